// SPDX-License-Identifier: Apache-2.0
//
// Walks the set fields of a message; their text is the entity layer's, so that
// it can be read back.
#include "tools/chapterctl/flatten.h"

#include <cstdint>
#include <map>
#include <utility>

#include "google/protobuf/descriptor.h"

#include "node/entity/cells.h"
#include "node/entity/value.h"

namespace chaptersync::ctl {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using node::EntityType;
using node::FieldPath;

struct Walk {
  const EntityType& type;
  const Message& whole;
  std::vector<FlatValue>& out;

  void Add(const FieldPath& path) const {
    out.push_back({node::PathText(type, path), node::GetText(whole, path).value_or("")});
  }

  // What is at `path` is `value`, a message.
  void Down(const Message& value, const FieldPath& path) const {
    std::vector<const FieldDescriptor*> fields;
    value.GetReflection()->ListFields(value, &fields);
    if (fields.empty()) Add(path);
    for (const FieldDescriptor* field : fields) {
      FieldPath further = path;
      further.sub.push_back(field);
      if (!field->is_repeated() && field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
        Down(value.GetReflection()->GetMessage(value, field), further);
      } else {
        Add(further);
      }
    }
  }
};

}  // namespace

std::vector<FlatValue> Flatten(const EntityType& type, const Message& message) {
  std::vector<FlatValue> out;
  const Walk walk{type, message, out};
  const auto& reflection = *message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    FieldPath path;
    path.field = field;
    path.cell.field = static_cast<uint32_t>(field->number());
    if (field->is_map()) {
      std::map<std::string, const Message*> entries;
      for (int i = 0; i < reflection.FieldSize(message, field); ++i) {
        const Message& entry = reflection.GetRepeatedMessage(message, field, i);
        entries[node::EntryKey(entry)] = &entry;
      }
      for (const auto& [key, entry] : entries) {
        path.cell.map_key = key;
        const FieldDescriptor* value = entry->GetDescriptor()->map_value();
        if (value->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
          walk.Down(entry->GetReflection()->GetMessage(*entry, value), path);
        } else {
          walk.Add(path);
        }
      }
    } else if (!field->is_repeated() && field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      walk.Down(reflection.GetMessage(message, field), path);
    } else {
      walk.Add(path);
    }
  }
  return out;
}

}  // namespace chaptersync::ctl
