// SPDX-License-Identifier: Apache-2.0
//
// Builds descriptors from text, and fills messages at random: by reflection, so
// that a new kind of field is met without a change here.
#include "tests/node/entity/test_schema.h"

#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.pb.h"
#include "google/protobuf/text_format.h"
#include <gtest/gtest.h>

#include "chaptersync/v1/options.pb.h"
#include "node/entity/cells.h"
#include "storage/core/status.h"

namespace chaptersync::node {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

std::string RandomText(std::mt19937_64& random) {
  static const std::vector<std::string> pieces = {"", "a", "Anna", "陈", "é", ".", "`", " ", "😀"};
  std::string out;
  for (uint64_t n = random() % 4; n > 0; --n) out += pieces[random() % pieces.size()];
  return out;
}

uint64_t RandomNumber(std::mt19937_64& random) {
  return random() % 3 == 0 ? 0 : random() >> (random() % 64);
}

void RandomScalar(Message& message, const FieldDescriptor* field, std::mt19937_64& random) {
  const Reflection* r = message.GetReflection();
  const bool many = field->is_repeated();
  const uint64_t bits = RandomNumber(random);
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      many ? r->AddInt32(&message, field, static_cast<int32_t>(bits))
           : r->SetInt32(&message, field, static_cast<int32_t>(bits));
      break;
    case FieldDescriptor::CPPTYPE_INT64:
      many ? r->AddInt64(&message, field, static_cast<int64_t>(bits))
           : r->SetInt64(&message, field, static_cast<int64_t>(bits));
      break;
    case FieldDescriptor::CPPTYPE_UINT32:
      many ? r->AddUInt32(&message, field, static_cast<uint32_t>(bits))
           : r->SetUInt32(&message, field, static_cast<uint32_t>(bits));
      break;
    case FieldDescriptor::CPPTYPE_UINT64:
      many ? r->AddUInt64(&message, field, bits) : r->SetUInt64(&message, field, bits);
      break;
    case FieldDescriptor::CPPTYPE_DOUBLE:
      many ? r->AddDouble(&message, field, static_cast<double>(bits) / 8)
           : r->SetDouble(&message, field, static_cast<double>(bits) / 8);
      break;
    case FieldDescriptor::CPPTYPE_FLOAT:
      many ? r->AddFloat(&message, field, static_cast<float>(bits % 1000) / 8)
           : r->SetFloat(&message, field, static_cast<float>(bits % 1000) / 8);
      break;
    case FieldDescriptor::CPPTYPE_BOOL:
      many ? r->AddBool(&message, field, bits % 2 == 1)
           : r->SetBool(&message, field, bits % 2 == 1);
      break;
    case FieldDescriptor::CPPTYPE_ENUM: {
      const auto* type = field->enum_type();
      const auto* value =
          type->value(static_cast<int>(bits % static_cast<uint64_t>(type->value_count())));
      many ? r->AddEnum(&message, field, value) : r->SetEnum(&message, field, value);
      break;
    }
    case FieldDescriptor::CPPTYPE_STRING: {
      std::string text = RandomText(random);
      if (field->type() == FieldDescriptor::TYPE_BYTES) text += '\xff';
      many ? r->AddString(&message, field, text) : r->SetString(&message, field, text);
      break;
    }
    case FieldDescriptor::CPPTYPE_MESSAGE:
      break;
  }
}

}  // namespace

TestSchema::TestSchema(const std::string& text)
    : pool_(google::protobuf::DescriptorPool::generated_pool()) {
  v1::EntityOptions::descriptor();  // Links the options' file in.
  google::protobuf::FileDescriptorProto file;
  CHAPTER_CHECK(google::protobuf::TextFormat::ParseFromString(text, &file));
  file.set_name("test.proto");
  file.set_package("test");
  file.set_syntax("proto3");
  file.add_dependency("chaptersync/v1/options.proto");
  file_ = pool_.BuildFile(file);
  CHAPTER_CHECK(file_ != nullptr);
}

absl::StatusOr<EntityRegistry> TestSchema::Registry(
    const std::vector<std::string>& messages) const {
  std::vector<const google::protobuf::Descriptor*> descriptors;
  for (const std::string& name : messages) {
    descriptors.push_back(file_->FindMessageTypeByName(name));
    CHAPTER_CHECK(descriptors.back() != nullptr);
  }
  return EntityRegistry::Make(descriptors);
}

const EntityRegistry& EveryKind() {
  static const EntityRegistry* const registry = [] {
    const std::vector<std::string> scalars = {
        "DOUBLE", "FLOAT", "INT64",  "UINT64",   "INT32",    "FIXED64", "FIXED32", "BOOL",
        "STRING", "BYTES", "UINT32", "SFIXED32", "SFIXED64", "SINT32",  "SINT64"};
    const std::vector<std::string> keys = {"INT64",    "UINT64",   "INT32",  "FIXED64",
                                           "FIXED32",  "BOOL",     "STRING", "UINT32",
                                           "SFIXED32", "SFIXED64", "SINT32", "SINT64"};
    std::string fields;
    std::string oneofs;
    std::string nested;
    int number = 0;
    int oneof = 0;
    const auto lower = [](std::string name) {
      for (char& c : name) c = static_cast<char>(std::tolower(c));
      return name;
    };
    const auto singular = [&](const std::string& name, const std::string& type) {
      absl::StrAppend(&fields, "field { name: 'one_", name, "' number: ", ++number,
                      " label: LABEL_OPTIONAL ", type,
                      " proto3_optional: true oneof_index: ", oneof++, " } ");
      absl::StrAppend(&oneofs, "oneof_decl { name: '_one_", name, "' } ");
    };
    const auto repeated = [&](const std::string& name, const std::string& type) {
      absl::StrAppend(&fields, "field { name: 'many_", name, "' number: ", ++number,
                      " label: LABEL_REPEATED ", type, " } ");
    };
    const auto map = [&](const std::string& name, const std::string& entry, const std::string& key,
                         const std::string& value) {
      absl::StrAppend(&nested, "nested_type { name: '", entry,
                      "Entry' options { map_entry: true } field { name: 'key' number: 1 label: "
                      "LABEL_OPTIONAL ",
                      key, " } field { name: 'value' number: 2 label: LABEL_OPTIONAL ", value,
                      " } } ");
      absl::StrAppend(&fields, "field { name: '", name, "' number: ", ++number,
                      " label: LABEL_REPEATED type: TYPE_MESSAGE type_name: '.test.Thing.", entry,
                      "Entry' } ");
    };
    const std::string color = "type: TYPE_ENUM type_name: '.test.Color'";
    const std::string part = "type: TYPE_MESSAGE type_name: '.test.Part'";
    const auto type_of = [](const std::string& scalar) { return "type: TYPE_" + scalar; };
    for (const std::string& scalar : scalars) {
      singular(lower(scalar), type_of(scalar));
      repeated(lower(scalar), type_of(scalar));
    }
    singular("color", color);
    repeated("color", color);
    singular("part", part);
    repeated("part", part);
    const auto camel = [&lower](const std::string& name) {
      return name[0] + lower(name.substr(1));
    };
    for (const std::string& key : keys) {
      map("by_" + lower(key), "By" + camel(key), type_of(key), part);
    }
    for (const std::string& scalar : scalars) {
      map("to_" + lower(scalar), "To" + camel(scalar), type_of("STRING"), type_of(scalar));
    }
    map("to_color", "ToColor", type_of("STRING"), color);
    static const TestSchema* const schema = new TestSchema(absl::StrCat(
        "enum_type { name: 'Color' value { name: 'COLOR_UNSPECIFIED' number: 0 } value { name: "
        "'COLOR_RED' number: 1 } value { name: 'COLOR_BLUE' number: -2 } } "
        "message_type { name: 'Part' field { name: 'label' number: 1 label: LABEL_OPTIONAL type: "
        "TYPE_STRING proto3_optional: true oneof_index: 0 } field { name: 'inner' number: 2 label: "
        "LABEL_OPTIONAL type: TYPE_MESSAGE type_name: '.test.Part' } field { name: 'sizes' number: "
        "3 label: LABEL_REPEATED type: TYPE_UINT32 } field { name: 'plain' number: 4 label: "
        "LABEL_OPTIONAL type: TYPE_INT32 } oneof_decl { name: '_label' } } "
        "message_type { name: 'Thing' options { [chaptersync.v1.entity] { number: 77 singular: "
        "'thing' plural: 'things' } } ",
        fields, oneofs, nested, "}"));
    auto made = schema->Registry({"Thing"});
    if (!made.ok()) ADD_FAILURE() << made.status();
    return new EntityRegistry(*std::move(made));
  }();
  return *registry;
}

void Randomize(Message& message, std::mt19937_64& random, int depth) {
  const auto* type = message.GetDescriptor();
  const Reflection* reflection = message.GetReflection();
  for (int i = 0; i < type->field_count(); ++i) {
    const FieldDescriptor* field = type->field(i);
    const uint64_t count = field->is_repeated() ? random() % 4 : random() % 2;
    for (uint64_t n = 0; n < count; ++n) {
      if (field->is_map()) {
        // Through a scratch entry: two of one key must not stand side by side.
        std::unique_ptr<Message> scratch(
            reflection->GetMessageFactory()->GetPrototype(field->message_type())->New());
        RandomScalar(*scratch, field->message_type()->map_key(), random);
        auto entry = MakeEntry(message, field, EntryKey(*scratch));
        ASSERT_TRUE(entry.ok()) << entry.status();
        const FieldDescriptor* value = field->message_type()->map_value();
        if (value->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) {
          RandomScalar(**entry, value, random);
        } else if (depth < 3) {
          Randomize(*(*entry)->GetReflection()->MutableMessage(*entry, value), random, depth + 1);
        }
      } else if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) {
        RandomScalar(message, field, random);
      } else if (depth < 3) {
        Randomize(field->is_repeated() ? *reflection->AddMessage(&message, field)
                                       : *reflection->MutableMessage(&message, field),
                  random, depth + 1);
      }
    }
  }
}

storage::Record RecordOf(const std::vector<storage::CellWrite>& writes) {
  storage::Record record;
  for (const storage::CellWrite& write : writes) record.Put({write.path, {}, "", write.value, {}});
  return record;
}

}  // namespace chaptersync::node
