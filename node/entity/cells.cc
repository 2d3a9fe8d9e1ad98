// SPDX-License-Identifier: Apache-2.0
//
// Walks wire bytes to cut and compose; reaches map entries by reflection, which
// also serves messages that are not compiled in.
#include "node/entity/cells.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/wire_format_lite.h"

#include "node/entity/text.h"
#include "storage/core/limits.h"
#include "storage/core/record_codec.h"
#include "storage/core/status.h"

namespace chaptersync::node {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;
using google::protobuf::internal::WireFormatLite;
using storage::CellPath;
using storage::CellWrite;

// One field as it stands on the wire.
struct WireField {
  uint32_t number = 0;
  std::string_view whole;    // its tag included
  std::string_view payload;  // without tag, and without a length in front
};

// The fields of `bytes`, in order; false where they are no message.
bool Split(std::string_view bytes, std::vector<WireField>& out) {
  google::protobuf::io::CodedInputStream in(reinterpret_cast<const uint8_t*>(bytes.data()),
                                            static_cast<int>(bytes.size()));
  for (;;) {
    const auto begin = static_cast<size_t>(in.CurrentPosition());
    const uint32_t tag = in.ReadTag();
    if (tag == 0) return begin == bytes.size();
    const auto after_tag = static_cast<size_t>(in.CurrentPosition());
    if (WireFormatLite::GetTagFieldNumber(tag) == 0) return false;
    if (!WireFormatLite::SkipField(&in, tag)) return false;
    const auto end = static_cast<size_t>(in.CurrentPosition());
    WireField field;
    field.number = static_cast<uint32_t>(WireFormatLite::GetTagFieldNumber(tag));
    field.whole = bytes.substr(begin, end - begin);
    field.payload = bytes.substr(after_tag, end - after_tag);
    if (WireFormatLite::GetTagWireType(tag) == WireFormatLite::WIRETYPE_LENGTH_DELIMITED) {
      storage::Reader reader(field.payload);
      reader.Varint();
      field.payload.remove_prefix(field.payload.size() - reader.remaining());
    }
    out.push_back(field);
  }
}

WireFormatLite::WireType WireTypeOf(const FieldDescriptor* field) {
  return WireFormatLite::WireTypeForFieldType(
      static_cast<WireFormatLite::FieldType>(field->type()));
}

const FieldDescriptor* KeyField(const FieldDescriptor* map) {
  return map->message_type()->map_key();
}
const FieldDescriptor* ValueField(const FieldDescriptor* map) {
  return map->message_type()->map_value();
}

bool SetKey(Message& entry, const std::string& key) {
  const FieldDescriptor* field = entry.GetDescriptor()->map_key();
  const Reflection* reflection = entry.GetReflection();
  const auto number = [&key](auto& value) {
    // One text for one key: no plus sign, no leading zero, no blank.
    return absl::SimpleAtoi(key, &value) && absl::StrCat(value) == key;
  };
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      if (!ValidUtf8(key)) return false;
      reflection->SetString(&entry, field, key);
      return true;
    case FieldDescriptor::CPPTYPE_BOOL:
      if (key != "true" && key != "false") return false;
      reflection->SetBool(&entry, field, key == "true");
      return true;
    case FieldDescriptor::CPPTYPE_INT32: {
      int32_t value = 0;
      if (!number(value)) return false;
      reflection->SetInt32(&entry, field, value);
      return true;
    }
    case FieldDescriptor::CPPTYPE_INT64: {
      int64_t value = 0;
      if (!number(value)) return false;
      reflection->SetInt64(&entry, field, value);
      return true;
    }
    case FieldDescriptor::CPPTYPE_UINT32: {
      uint32_t value = 0;
      if (!number(value)) return false;
      reflection->SetUInt32(&entry, field, value);
      return true;
    }
    case FieldDescriptor::CPPTYPE_UINT64: {
      uint64_t value = 0;
      if (!number(value)) return false;
      reflection->SetUInt64(&entry, field, value);
      return true;
    }
    default:
      return false;  // Protocol Buffers allow no other keys.
  }
}

std::unique_ptr<Message> NewEntry(const Message& message, const FieldDescriptor* map) {
  return std::unique_ptr<Message>(
      message.GetReflection()->GetMessageFactory()->GetPrototype(map->message_type())->New());
}

void AppendTag(uint32_t number, WireFormatLite::WireType type, std::string& out) {
  storage::AppendVarint(WireFormatLite::MakeTag(static_cast<int>(number), type), out);
}

// The wire bytes of one map entry; none where key or value is not the map's.
std::optional<std::string> EncodeEntry(const EntityType& type, const FieldDescriptor* map,
                                       const std::string& key, const std::string& value) {
  std::string entry;
  if (KeyField(map)->type() == FieldDescriptor::TYPE_STRING) {
    if (!ValidUtf8(key)) return std::nullopt;
    AppendTag(1, WireFormatLite::WIRETYPE_LENGTH_DELIMITED, entry);
    storage::AppendString(key, entry);
  } else {
    auto scratch = NewEntry(*type.prototype, map);
    if (!SetKey(*scratch, key)) return std::nullopt;
    const std::string bytes = Deterministic(*scratch);
    std::vector<WireField> fields;
    if (!Split(bytes, fields)) return std::nullopt;
    for (const WireField& field : fields) {
      if (field.number == 1) entry += field.whole;
    }
  }
  const WireFormatLite::WireType wire = WireTypeOf(ValueField(map));
  std::string tagged;
  AppendTag(2, wire, tagged);
  if (wire == WireFormatLite::WIRETYPE_LENGTH_DELIMITED) {
    storage::AppendString(value, tagged);
  } else {
    tagged += value;
    std::vector<WireField> fields;
    if (!Split(tagged, fields) || fields.size() != 1) return std::nullopt;
  }
  entry += tagged;
  std::string out;
  AppendTag(static_cast<uint32_t>(map->number()), WireFormatLite::WIRETYPE_LENGTH_DELIMITED, out);
  storage::AppendString(entry, out);
  return out;
}

// A cell as a part of its message's wire bytes; none where it cannot be one.
std::optional<std::string> EncodeCell(const EntityType& type, const CellPath& path,
                                      const std::string& value) {
  const FieldDescriptor* field = type.descriptor->FindFieldByNumber(static_cast<int>(path.field));
  if (field == nullptr && path.map_key) return "";
  if (field != nullptr && field->is_map() != path.map_key.has_value()) return std::nullopt;
  if (field != nullptr && field->is_map()) return EncodeEntry(type, field, *path.map_key, value);
  std::vector<WireField> fields;
  if (!Split(value, fields) || fields.empty()) return std::nullopt;
  for (const WireField& part : fields) {
    if (part.number != path.field) return std::nullopt;
  }
  return value;
}

absl::Status Damaged(const EntityType& type, const CellPath& path) {
  return absl::DataLossError(absl::StrCat("field '", Shown(PathText(type, path)), "' of ",
                                          type.singular, " holds bytes that are no value of it"));
}

std::string FieldNames(const Descriptor* descriptor) {
  std::string out;
  for (int i = 0; i < descriptor->field_count(); ++i) {
    absl::StrAppend(&out, i == 0 ? "" : ", ", descriptor->field(i)->name());
  }
  return out;
}

// Splits a path at its dots; false where a backquote is out of place.
bool SplitPath(const std::string& text, std::vector<std::string>& parts) {
  parts = {""};
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '.') {
      parts.emplace_back();
    } else if (text[i] != '`') {
      parts.back() += text[i];
    } else {
      if (i > 0 && text[i - 1] != '.') return false;
      for (++i;; ++i) {
        if (i >= text.size()) return false;
        if (text[i] != '`') {
          parts.back() += text[i];
        } else if (i + 1 < text.size() && text[i + 1] == '`') {
          parts.back() += text[i++];
        } else {
          break;
        }
      }
      if (i + 1 < text.size() && text[i + 1] != '.') return false;
    }
  }
  return true;
}

std::string QuotedKey(const std::string& key) {
  if (!key.empty() && key.find_first_of(".`") == std::string::npos) return key;
  return absl::StrCat("`", absl::StrReplaceAll(key, {{"`", "``"}}), "`");
}

// The message that holds a path's innermost field, where it is there.
const Message* Holder(const Message& message, const FieldPath& path) {
  const Message* at = &message;
  const FieldDescriptor* next = path.field;
  for (size_t depth = 0; depth < path.sub.size(); ++depth) {
    if (next->is_map()) {
      const Message* entry = FindEntry(*at, next, *path.cell.map_key);
      if (entry == nullptr) return nullptr;
      at = &entry->GetReflection()->GetMessage(*entry, ValueField(next));
    } else {
      if (!at->GetReflection()->HasField(*at, next)) return nullptr;
      at = &at->GetReflection()->GetMessage(*at, next);
    }
    next = path.sub[depth];
  }
  return at;
}

// The same in a message of its own, made on the way down.
absl::StatusOr<Message*> MakeHolder(Message& message, const FieldPath& path) {
  Message* at = &message;
  const FieldDescriptor* next = path.field;
  for (size_t depth = 0; depth < path.sub.size(); ++depth) {
    if (next->is_map()) {
      CHAPTER_ASSIGN_OR_RETURN(Message * entry, MakeEntry(*at, next, *path.cell.map_key));
      at = entry->GetReflection()->MutableMessage(entry, ValueField(next));
    } else {
      at = at->GetReflection()->MutableMessage(at, next);
    }
    next = path.sub[depth];
  }
  return at;
}

std::optional<std::string> HeldValue(const storage::Record* held, const CellPath& path) {
  const storage::Cell* cell = held == nullptr ? nullptr : held->Find(path);
  return cell == nullptr ? std::nullopt : cell->value;
}

}  // namespace

std::string Deterministic(const Message& message) {
  std::string out;
  google::protobuf::io::StringOutputStream stream(&out);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  message.SerializePartialToCodedStream(&coded);
  coded.Trim();
  return out;
}

std::string EntryKey(const Message& entry) {
  const FieldDescriptor* key = entry.GetDescriptor()->map_key();
  const Reflection* reflection = entry.GetReflection();
  switch (key->cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      return reflection->GetString(entry, key);
    case FieldDescriptor::CPPTYPE_BOOL:
      return reflection->GetBool(entry, key) ? "true" : "false";
    case FieldDescriptor::CPPTYPE_INT32:
      return absl::StrCat(reflection->GetInt32(entry, key));
    case FieldDescriptor::CPPTYPE_INT64:
      return absl::StrCat(reflection->GetInt64(entry, key));
    case FieldDescriptor::CPPTYPE_UINT32:
      return absl::StrCat(reflection->GetUInt32(entry, key));
    default:
      return absl::StrCat(reflection->GetUInt64(entry, key));
  }
}

const Message* FindEntry(const Message& message, const FieldDescriptor* field,
                         const std::string& key) {
  const Reflection* reflection = message.GetReflection();
  for (int i = 0; i < reflection->FieldSize(message, field); ++i) {
    const Message& entry = reflection->GetRepeatedMessage(message, field, i);
    if (EntryKey(entry) == key) return &entry;
  }
  return nullptr;
}

absl::StatusOr<Message*> MakeEntry(Message& message, const FieldDescriptor* field,
                                   const std::string& key) {
  const Reflection* reflection = message.GetReflection();
  for (int i = 0; i < reflection->FieldSize(message, field); ++i) {
    Message* entry = reflection->MutableRepeatedMessage(&message, field, i);
    if (EntryKey(*entry) == key) return entry;
  }
  auto scratch = NewEntry(message, field);
  if (!SetKey(*scratch, key)) {
    return absl::InvalidArgumentError(absl::StrCat("field '", field->name(), "': key '", Shown(key),
                                                   "' is no ", KeyField(field)->type_name()));
  }
  Message* entry = reflection->AddMessage(&message, field);
  entry->CopyFrom(*scratch);
  // A message as the value is there once the entry is.
  if (ValueField(field)->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
    entry->GetReflection()->MutableMessage(entry, ValueField(field));
  }
  return entry;
}

std::vector<CellWrite> Cut(const Message& message) {
  std::map<CellPath, std::string> cells;
  const std::string bytes = Deterministic(message);
  std::vector<WireField> fields;
  CHAPTER_CHECK(Split(bytes, fields));  // These bytes are our own.
  for (const WireField& part : fields) {
    const FieldDescriptor* field =
        message.GetDescriptor()->FindFieldByNumber(static_cast<int>(part.number));
    if (field == nullptr) continue;
    if (!field->is_map()) {
      cells[{.field = part.number, .map_key = {}}] += part.whole;
      continue;
    }
    std::vector<WireField> halves;
    CHAPTER_CHECK(Split(part.payload, halves));
    std::string key;
    // An entry without a value holds the default one.
    std::string value = WireTypeOf(ValueField(field)) == WireFormatLite::WIRETYPE_VARINT
                            ? std::string(1, '\0')
                            : std::string();
    if (WireTypeOf(ValueField(field)) == WireFormatLite::WIRETYPE_FIXED32) value.assign(4, '\0');
    if (WireTypeOf(ValueField(field)) == WireFormatLite::WIRETYPE_FIXED64) value.assign(8, '\0');
    for (const WireField& half : halves) {
      if (half.number == 1) key = std::string(half.payload);
      if (half.number == 2) value = std::string(half.payload);
    }
    if (KeyField(field)->type() != FieldDescriptor::TYPE_STRING) {
      auto entry = NewEntry(message, field);
      CHAPTER_CHECK(
          entry->ParseFromArray(part.payload.data(), static_cast<int>(part.payload.size())));
      key = EntryKey(*entry);
    }
    cells[{.field = part.number, .map_key = std::move(key)}] = std::move(value);
  }
  std::vector<CellWrite> out;
  out.reserve(cells.size());
  for (auto& [path, value] : cells) out.push_back({path, std::move(value)});
  return out;
}

absl::StatusOr<std::unique_ptr<Message>> Compose(const EntityType& type,
                                                 const storage::Record& record) {
  std::string bytes;
  for (const storage::Cell& cell : record.cells) {
    if (cell.path.existence() || !cell.value) continue;
    const std::optional<std::string> part = EncodeCell(type, cell.path, *cell.value);
    if (!part) return Damaged(type, cell.path);
    bytes += *part;
  }
  auto message = type.NewMessage();
  if (message->ParseFromString(bytes)) return message;
  // One of them is at fault: which?
  for (const storage::Cell& cell : record.cells) {
    if (cell.path.existence()) continue;
    CHAPTER_RETURN_IF_ERROR(ComposeCell(type, cell.path, cell.value).status());
  }
  return absl::DataLossError(absl::StrCat("the fields of ", type.singular, " are no message"));
}

absl::StatusOr<std::unique_ptr<Message>> ComposeCell(const EntityType& type, const CellPath& path,
                                                     const std::optional<std::string>& value) {
  auto message = type.NewMessage();
  if (!value) return message;
  const std::optional<std::string> part = EncodeCell(type, path, *value);
  if (!part || !message->ParseFromString(*part)) return Damaged(type, path);
  return message;
}

const FieldDescriptor* FieldPath::leaf() const {
  if (!sub.empty()) return sub.back();
  return field->is_map() && cell.map_key ? ValueField(field) : field;
}

absl::StatusOr<FieldPath> ParsePath(const EntityType& type, const std::string& text) {
  const auto refuse = [&text](const std::string& why) {
    return absl::InvalidArgumentError(absl::StrCat("field '", Shown(text), "' ", why));
  };
  std::vector<std::string> parts;
  if (!SplitPath(text, parts)) {
    return refuse("is not allowed (a key that holds a dot stands whole in backquotes)");
  }
  FieldPath path;
  path.field = type.descriptor->FindFieldByName(parts[0]);
  if (path.field == nullptr) {
    return refuse(
        absl::StrCat("is not known (", type.plural, " have ", FieldNames(type.descriptor), ")"));
  }
  path.cell.field = static_cast<uint32_t>(path.field->number());
  size_t next = 1;
  if (path.field->is_map() && parts.size() > 1) {
    const std::string& key = parts[next++];
    auto scratch = NewEntry(*type.prototype, path.field);
    if (!SetKey(*scratch, key)) {
      return refuse(absl::StrCat("has a key that is no ", KeyField(path.field)->type_name()));
    }
    if (key.empty() || key.size() > storage::kMapKeyBytesMax) {
      return refuse(absl::StrCat("has a key of ", key.size(), " bytes (allowed: 1 to ",
                                 storage::kMapKeyBytesMax, ")"));
    }
    path.cell.map_key = key;
  }
  for (; next < parts.size(); ++next) {
    const FieldDescriptor* leaf = path.leaf();
    if (leaf->is_repeated() || leaf->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) {
      return refuse(absl::StrCat("is not known ('", leaf->is_repeated() ? "list " : "",
                                 path.sub.empty() ? path.field->name() : leaf->name(),
                                 "' has no fields in it)"));
    }
    const FieldDescriptor* inner = leaf->message_type()->FindFieldByName(parts[next]);
    if (inner == nullptr) {
      return refuse(
          absl::StrCat("is not known (there are ", FieldNames(leaf->message_type()), ")"));
    }
    path.sub.push_back(inner);
  }
  return path;
}

std::string PathText(const EntityType& type, const CellPath& path) {
  if (path.existence()) return "";
  const FieldDescriptor* field = type.descriptor->FindFieldByNumber(static_cast<int>(path.field));
  std::string out = field == nullptr ? absl::StrCat("field ", path.field) : field->name();
  if (path.map_key) absl::StrAppend(&out, ".", QuotedKey(*path.map_key));
  return out;
}

std::string PathText(const EntityType& type, const FieldPath& path) {
  std::string out = PathText(type, path.cell);
  for (const FieldDescriptor* field : path.sub) absl::StrAppend(&out, ".", field->name());
  return out;
}

bool DependsOnHeld(const FieldPath& path) { return path.whole_map() || !path.sub.empty(); }

absl::StatusOr<std::vector<CellWrite>> CutByMask(const EntityType& type, const Message& message,
                                                 const std::vector<std::string>& mask,
                                                 const storage::Record* held) {
  std::map<CellPath, std::optional<std::string>> given;
  for (CellWrite& cell : Cut(message)) given[cell.path] = std::move(cell.value);
  const auto given_at = [&given](const CellPath& path) {
    const auto it = given.find(path);
    return it == given.end() ? std::nullopt : it->second;
  };
  std::map<CellPath, std::optional<std::string>> writes;
  std::map<CellPath, std::vector<FieldPath>> partial;
  std::set<uint32_t> whole_maps;
  for (const std::string& text : mask) {
    CHAPTER_ASSIGN_OR_RETURN(FieldPath path, ParsePath(type, text));
    if (!path.sub.empty()) {
      partial[path.cell].push_back(std::move(path));
    } else if (path.whole_map()) {
      if (!whole_maps.insert(path.cell.field).second) continue;
      if (held != nullptr) {
        for (const storage::Cell& cell : held->cells) {
          if (cell.path.field == path.cell.field && cell.value) writes[cell.path] = std::nullopt;
        }
      }
      for (const auto& [cell, value] : given) {
        if (cell.field == path.cell.field) writes[cell] = value;
      }
    } else {
      writes[path.cell] = given_at(path.cell);
    }
  }
  for (const auto& [cell, paths] : partial) {
    if (writes.count(cell) > 0) continue;  // named as a whole, too
    const std::optional<std::string> before = HeldValue(held, cell);
    CHAPTER_ASSIGN_OR_RETURN(std::unique_ptr<Message> scratch, ComposeCell(type, cell, before));
    // By itself: a large map is not searched for each of its entries.
    CHAPTER_ASSIGN_OR_RETURN(const std::unique_ptr<Message> source,
                             ComposeCell(type, cell, given_at(cell)));
    for (const FieldPath& path : paths) {
      const Message* from = Holder(*source, path);
      const bool present =
          from != nullptr && (path.sub.back()->is_repeated()
                                  ? from->GetReflection()->FieldSize(*from, path.sub.back()) > 0
                                  : from->GetReflection()->HasField(*from, path.sub.back()));
      // Clearing within a cell that is not there makes no cell.
      if (!present && Holder(*scratch, path) == nullptr) continue;
      CHAPTER_ASSIGN_OR_RETURN(Message * to, MakeHolder(*scratch, path));
      if (!present) {
        to->GetReflection()->ClearField(to, path.sub.back());
        continue;
      }
      std::unique_ptr<Message> copy(from->New());
      copy->CopyFrom(*from);
      to->GetReflection()->SwapFields(copy.get(), to, {path.sub.back()});
    }
    const std::vector<CellWrite> cut = Cut(*scratch);
    if (!cut.empty()) writes[cell] = cut.front().value;
  }
  std::vector<CellWrite> out;
  out.reserve(writes.size());
  for (auto& [path, value] : writes) out.push_back({path, std::move(value)});
  return out;
}

}  // namespace chaptersync::node
