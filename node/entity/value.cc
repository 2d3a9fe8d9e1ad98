// SPDX-License-Identifier: Apache-2.0
//
// Values as JSON and as text. The JSON mapping is the library's; text of single
// values is read and written here, so that errors name field, value and choice.
#include "node/entity/value.h"

#include <limits>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/util/json_util.h"

#include "node/entity/text.h"
#include "storage/core/status.h"

namespace chaptersync::node {
namespace {

using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;
using google::protobuf::Value;
using storage::CellPath;

absl::Status Refuse(const std::string& field, const std::string& value,
                    const std::string& allowed) {
  return absl::InvalidArgumentError(absl::StrCat("field '", Shown(field), "': value '",
                                                 Shown(value), "' is not allowed (", allowed, ")"));
}

Value StringValue(std::string text) {
  Value value;
  value.set_string_value(std::move(text));
  return value;
}

Value NullValue() {
  Value value;
  value.set_null_value(google::protobuf::NULL_VALUE);
  return value;
}

// What json_util says, without its own wording around it.
std::string Reason(const google::protobuf::util::Status& status) {
  return std::string(status.message().data(), status.message().size());
}

// "MEMBER_STATUS_" of MemberStatus.
std::string EnumPrefix(const EnumDescriptor* type) {
  std::string out;
  for (const char c : type->name()) {
    if (absl::ascii_isupper(static_cast<unsigned char>(c)) && !out.empty() && out.back() != '_') {
      out += '_';
    }
    out += absl::ascii_toupper(static_cast<unsigned char>(c));
  }
  return out + "_";
}

std::string EnumNames(const EnumDescriptor* type) {
  std::string out;
  for (int i = 0; i < type->value_count(); ++i) {
    absl::StrAppend(&out, i == 0 ? "one of " : ", ", type->value(i)->name());
  }
  return out;
}

const google::protobuf::EnumValueDescriptor* FindEnumValue(const EnumDescriptor* type,
                                                           const std::string& text) {
  if (const auto* value = type->FindValueByName(text)) return value;
  std::string name = absl::AsciiStrToUpper(text);
  for (char& c : name) {
    if (c == '-') c = '_';
  }
  return type->FindValueByName(EnumPrefix(type) + name);
}

template <typename T>
bool ParseInteger(const std::string& text, T& value) {
  return absl::SimpleAtoi(text, &value);
}

template <typename T>
std::string IntegerRange() {
  return absl::StrCat("a whole number from ", std::numeric_limits<T>::min(), " to ",
                      std::numeric_limits<T>::max());
}

// Sets a singular scalar from text.
absl::Status SetScalar(Message& message, const FieldDescriptor* field, const std::string& name,
                       const std::string& text) {
  const Reflection* reflection = message.GetReflection();
  const auto integer = [&](auto zero, auto set) -> absl::Status {
    auto value = zero;
    if (!ParseInteger(text, value)) return Refuse(name, text, IntegerRange<decltype(zero)>());
    (reflection->*set)(&message, field, value);
    return absl::OkStatus();
  };
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return integer(int32_t{0}, &Reflection::SetInt32);
    case FieldDescriptor::CPPTYPE_INT64:
      return integer(int64_t{0}, &Reflection::SetInt64);
    case FieldDescriptor::CPPTYPE_UINT32:
      return integer(uint32_t{0}, &Reflection::SetUInt32);
    case FieldDescriptor::CPPTYPE_UINT64:
      return integer(uint64_t{0}, &Reflection::SetUInt64);
    case FieldDescriptor::CPPTYPE_DOUBLE:
    case FieldDescriptor::CPPTYPE_FLOAT: {
      double value = 0;
      if (!absl::SimpleAtod(text, &value)) return Refuse(name, text, "a number");
      if (field->cpp_type() == FieldDescriptor::CPPTYPE_DOUBLE) {
        reflection->SetDouble(&message, field, value);
      } else {
        reflection->SetFloat(&message, field, static_cast<float>(value));
      }
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_BOOL:
      if (text != "true" && text != "false") return Refuse(name, text, "true or false");
      reflection->SetBool(&message, field, text == "true");
      return absl::OkStatus();
    case FieldDescriptor::CPPTYPE_ENUM: {
      const auto* value = FindEnumValue(field->enum_type(), text);
      if (value == nullptr) return Refuse(name, text, EnumNames(field->enum_type()));
      reflection->SetEnum(&message, field, value);
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_STRING: {
      if (field->type() == FieldDescriptor::TYPE_BYTES) {
        std::string bytes;
        if (!absl::Base64Unescape(text, &bytes)) return Refuse(name, text, "base64");
        reflection->SetString(&message, field, std::move(bytes));
        return absl::OkStatus();
      }
      if (!ValidUtf8(text)) return Refuse(name, text, "text in UTF-8");
      reflection->SetString(&message, field, text);
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_MESSAGE:
      break;
  }
  return absl::InternalError(absl::StrCat("field '", name, "' is no scalar"));
}

// Sets a field, of whatever kind, from JSON.
absl::Status SetJson(Message& message, const FieldDescriptor* field, const std::string& name,
                     const std::string& json) {
  std::unique_ptr<Message> scratch(message.New());
  google::protobuf::util::JsonParseOptions options;
  const auto status = google::protobuf::util::JsonStringToMessage(
      absl::StrCat("{\"", field->name(), "\":", json, "}"), scratch.get(), options);
  if (!status.ok()) {
    return Refuse(name, json, absl::StrCat(field->type_name(), " as JSON: ", Reason(status)));
  }
  message.GetReflection()->SwapFields(scratch.get(), &message, {field});
  return absl::OkStatus();
}

// The text of a singular scalar, or of an element where `index` is not -1.
std::string ScalarText(const Message& message, const FieldDescriptor* field, int index) {
  const Reflection* r = message.GetReflection();
  const bool one = index < 0;
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return absl::StrCat(one ? r->GetInt32(message, field)
                              : r->GetRepeatedInt32(message, field, index));
    case FieldDescriptor::CPPTYPE_INT64:
      return absl::StrCat(one ? r->GetInt64(message, field)
                              : r->GetRepeatedInt64(message, field, index));
    case FieldDescriptor::CPPTYPE_UINT32:
      return absl::StrCat(one ? r->GetUInt32(message, field)
                              : r->GetRepeatedUInt32(message, field, index));
    case FieldDescriptor::CPPTYPE_UINT64:
      return absl::StrCat(one ? r->GetUInt64(message, field)
                              : r->GetRepeatedUInt64(message, field, index));
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return absl::StrCat(one ? r->GetDouble(message, field)
                              : r->GetRepeatedDouble(message, field, index));
    case FieldDescriptor::CPPTYPE_FLOAT:
      return absl::StrCat(one ? r->GetFloat(message, field)
                              : r->GetRepeatedFloat(message, field, index));
    case FieldDescriptor::CPPTYPE_BOOL:
      return (one ? r->GetBool(message, field) : r->GetRepeatedBool(message, field, index))
                 ? "true"
                 : "false";
    case FieldDescriptor::CPPTYPE_ENUM: {
      const int number =
          one ? r->GetEnumValue(message, field) : r->GetRepeatedEnumValue(message, field, index);
      const auto* value = field->enum_type()->FindValueByNumber(number);
      return value == nullptr ? absl::StrCat(number) : value->name();
    }
    case FieldDescriptor::CPPTYPE_STRING: {
      std::string text =
          one ? r->GetString(message, field) : r->GetRepeatedString(message, field, index);
      return field->type() == FieldDescriptor::TYPE_BYTES ? absl::Base64Escape(text) : text;
    }
    case FieldDescriptor::CPPTYPE_MESSAGE:
      break;
  }
  return "";
}

// Where a path ends: the message, and the field in it.
struct Place {
  const Message* message = nullptr;
  const FieldDescriptor* field = nullptr;
};

// None where the message holds nothing there.
std::optional<Place> Find(const Message& message, const FieldPath& path) {
  Place place{&message, path.field};
  const auto enter_entry = [&] {
    const Message* entry = FindEntry(*place.message, place.field, *path.cell.map_key);
    if (entry == nullptr) return false;
    place = {entry, entry->GetDescriptor()->map_value()};
    return true;
  };
  if (path.field->is_map() && path.cell.map_key && !enter_entry()) return std::nullopt;
  const bool in_map = place.message != &message;
  for (const FieldDescriptor* next : path.sub) {
    const Reflection* reflection = place.message->GetReflection();
    // An entry that is there has a value, whatever its presence bit says.
    const bool in_entry = in_map &&
                          place.field == place.message->GetDescriptor()->FindFieldByNumber(2) &&
                          place.message->GetDescriptor()->options().map_entry();
    if (!in_entry && !reflection->HasField(*place.message, place.field)) return std::nullopt;
    place = {&reflection->GetMessage(*place.message, place.field), next};
  }
  const Reflection* reflection = place.message->GetReflection();
  if (place.field->is_repeated()) {
    if (reflection->FieldSize(*place.message, place.field) == 0) return std::nullopt;
  } else if (!place.message->GetDescriptor()->options().map_entry() &&
             !reflection->HasField(*place.message, place.field)) {
    return std::nullopt;
  }
  return place;
}

// Bytes that are the same for the same value and no other.
std::string ExactBytes(const Place& place) {
  const Reflection* reflection = place.message->GetReflection();
  if (!place.field->is_repeated()) {
    return place.field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE
               ? Deterministic(reflection->GetMessage(*place.message, place.field))
               : ScalarText(*place.message, place.field, -1);
  }
  std::unique_ptr<Message> copy(place.message->New());
  std::unique_ptr<Message> alone(place.message->New());
  copy->CopyFrom(*place.message);
  reflection->SwapFields(copy.get(), alone.get(), {place.field});
  return Deterministic(*alone);
}

std::string DisplayField(const Message& message, const FieldDescriptor* field);

std::string DisplayMessage(const Message& message) {
  std::vector<const FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  std::string out;
  for (const FieldDescriptor* field : fields) {
    absl::StrAppend(&out, out.empty() ? "" : ", ", DisplayField(message, field));
  }
  return out;
}

std::string DisplayField(const Message& message, const FieldDescriptor* field) {
  const Reflection* reflection = message.GetReflection();
  const bool is_message = field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
  if (!field->is_repeated()) {
    return is_message ? DisplayMessage(reflection->GetMessage(message, field))
                      : ScalarText(message, field, -1);
  }
  std::map<std::string, std::string> entries;
  std::string out;
  for (int i = 0; i < reflection->FieldSize(message, field); ++i) {
    if (!is_message) {
      absl::StrAppend(&out, i == 0 ? "" : "; ", ScalarText(message, field, i));
      continue;
    }
    const Message& element = reflection->GetRepeatedMessage(message, field, i);
    if (field->is_map()) {
      entries[EntryKey(element)] = DisplayField(element, element.GetDescriptor()->map_value());
    } else {
      absl::StrAppend(&out, i == 0 ? "" : "; ", DisplayMessage(element));
    }
  }
  for (const auto& [key, text] : entries) {
    absl::StrAppend(&out, out.empty() ? "" : "; ", key, ": ", text);
  }
  return out;
}

// JSON of one field alone, as its message's JSON has it; "null" where it is unset.
Value FieldJson(const Message& message, const std::string& field) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string json;
  Value value;
  if (!google::protobuf::util::MessageToJsonString(message, &json, options).ok() ||
      !google::protobuf::util::JsonStringToMessage(json, &value).ok()) {
    return NullValue();
  }
  const auto& fields = value.struct_value().fields();
  const auto it = fields.find(field);
  return it == fields.end() ? NullValue() : it->second;
}

}  // namespace

std::string JsonText(const Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string json;
  const auto status = google::protobuf::util::MessageToJsonString(message, &json, options);
  return status.ok() ? json : "";
}

Value ToJsonValue(const EntityType& type, const CellPath& path,
                  const std::optional<std::string>& value) {
  if (!value) return NullValue();
  if (path.existence()) {
    Value deleted;
    deleted.set_bool_value(*value == storage::DeletedValue());
    return deleted;
  }
  const FieldDescriptor* field = type.descriptor->FindFieldByNumber(static_cast<int>(path.field));
  const auto message = ComposeCell(type, path, value);
  if (field == nullptr || !message.ok()) return StringValue(absl::Base64Escape(*value));
  Value whole = FieldJson(**message, field->name());
  if (!path.map_key) return whole;
  const auto& entries = whole.struct_value().fields();
  const auto entry = entries.find(*path.map_key);
  return entry == entries.end() ? StringValue(absl::Base64Escape(*value)) : entry->second;
}

absl::StatusOr<std::optional<std::string>> FromJsonValue(const EntityType& type,
                                                         const CellPath& path, const Value& value) {
  const FieldDescriptor* field = type.descriptor->FindFieldByNumber(static_cast<int>(path.field));
  const std::string name = PathText(type, path);
  if (field == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("field '", Shown(name), "' is not known to this replica's schema"));
  }
  if (value.kind_case() == Value::kNullValue || value.kind_case() == Value::KIND_NOT_SET) {
    return std::nullopt;
  }
  auto message = type.NewMessage();
  Value whole = value;
  if (path.map_key) {
    whole.Clear();
    (*whole.mutable_struct_value()->mutable_fields())[*path.map_key] = value;
  }
  CHAPTER_RETURN_IF_ERROR(SetJson(*message, field, name, JsonText(whole)));
  for (const storage::CellWrite& cell : Cut(*message)) {
    if (cell.path == path) return cell.value;
  }
  return std::nullopt;
}

std::optional<std::string> GetText(const Message& message, const FieldPath& path) {
  const std::optional<Place> place = Find(message, path);
  if (!place) return std::nullopt;
  if (!place->field->is_repeated()) {
    if (place->field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) {
      return ScalarText(*place->message, place->field, -1);
    }
    return JsonText(place->message->GetReflection()->GetMessage(*place->message, place->field));
  }
  return JsonText(FieldJson(*place->message, place->field->name()));
}

std::string DisplayText(const Message& message, const FieldPath& path) {
  const std::optional<Place> place = Find(message, path);
  return place ? DisplayField(*place->message, place->field) : "";
}

absl::Status SetText(const EntityType& type, Message& message, const FieldPath& path,
                     const std::string& text) {
  const std::string name = PathText(type, path);
  Message* at = &message;
  const FieldDescriptor* field = path.field;
  // All is set in a copy of what is on the way, so that an error changes nothing.
  std::unique_ptr<Message> copy(message.New());
  copy->CopyFrom(message);
  at = copy.get();
  if (field->is_map() && path.cell.map_key) {
    CHAPTER_ASSIGN_OR_RETURN(Message * entry, MakeEntry(*at, field, *path.cell.map_key));
    at = entry;
    field = entry->GetDescriptor()->map_value();
  }
  for (const FieldDescriptor* next : path.sub) {
    at = at->GetReflection()->MutableMessage(at, field);
    field = next;
  }
  const bool json = field->is_repeated() || field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
  if (json && at->GetDescriptor()->options().map_entry()) {
    // A map entry's own JSON is not its field's: read the value by itself.
    Message* value = at->GetReflection()->MutableMessage(at, field);
    std::unique_ptr<Message> parsed(value->New());
    const auto status = google::protobuf::util::JsonStringToMessage(text, parsed.get());
    if (!status.ok()) {
      return Refuse(name, text,
                    absl::StrCat(field->message_type()->name(), " as JSON: ", Reason(status)));
    }
    value->CopyFrom(*parsed);
  } else if (json) {
    CHAPTER_RETURN_IF_ERROR(SetJson(*at, field, name, text));
  } else {
    CHAPTER_RETURN_IF_ERROR(SetScalar(*at, field, name, text));
  }
  message.GetReflection()->Swap(&message, copy.get());
  return absl::OkStatus();
}

void ClearPath(Message& message, const FieldPath& path) {
  const Reflection* reflection = message.GetReflection();
  if (path.field->is_map() && path.cell.map_key) {
    const int size = reflection->FieldSize(message, path.field);
    for (int i = 0; i < size; ++i) {
      Message* entry = reflection->MutableRepeatedMessage(&message, path.field, i);
      if (EntryKey(*entry) != *path.cell.map_key) continue;
      if (path.sub.empty()) {
        reflection->SwapElements(&message, path.field, i, size - 1);
        reflection->RemoveLast(&message, path.field);
        return;
      }
      Message* at =
          entry->GetReflection()->MutableMessage(entry, entry->GetDescriptor()->map_value());
      for (size_t depth = 0; depth + 1 < path.sub.size(); ++depth) {
        at = at->GetReflection()->MutableMessage(at, path.sub[depth]);
      }
      at->GetReflection()->ClearField(at, path.sub.back());
      return;
    }
    return;
  }
  Message* at = &message;
  const FieldDescriptor* field = path.field;
  for (const FieldDescriptor* next : path.sub) {
    if (!at->GetReflection()->HasField(*at, field)) return;
    at = at->GetReflection()->MutableMessage(at, field);
    field = next;
  }
  at->GetReflection()->ClearField(at, field);
}

bool SameAt(const Message& a, const Message& b, const FieldPath& path) {
  const std::optional<Place> left = Find(a, path);
  const std::optional<Place> right = Find(b, path);
  if (!left || !right) return !left && !right;
  return ExactBytes(*left) == ExactBytes(*right);
}

}  // namespace chaptersync::node
