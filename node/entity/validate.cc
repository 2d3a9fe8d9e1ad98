// SPDX-License-Identifier: Apache-2.0
//
// The formats, and a walk through a message that checks each set field by its
// rules.
#include "node/entity/validate.h"

#include <sys/stat.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <set>
#include <string_view>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/civil_time.h"

#include "node/entity/cells.h"
#include "node/entity/text.h"
#include "node/entity/value.h"
#include "storage/core/limits.h"
#include "storage/core/status.h"

namespace chaptersync::node {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

constexpr size_t kHandleBytesMax = 32;
constexpr size_t kEmailBytesMax = 254;       // RFC 5321, 4.5.3.1.3, without the brackets
constexpr size_t kEmailLocalBytesMax = 64;   // RFC 5321, 4.5.3.1.1
constexpr size_t kDomainLabelBytesMax = 63;  // RFC 1035, 2.3.4
constexpr size_t kTimeZoneBytesMax = 64;
constexpr char kTimeZoneFolder[] = "/usr/share/zoneinfo";

bool Digit(char c) { return c >= '0' && c <= '9'; }
bool Lower(char c) { return c >= 'a' && c <= 'z'; }
bool Upper(char c) { return c >= 'A' && c <= 'Z'; }
bool Letter(char c) { return Lower(c) || Upper(c); }
bool Alphanumeric(char c) { return Letter(c) || Digit(c); }

template <typename Predicate>
bool All(const std::string& text, size_t least, size_t most, Predicate predicate) {
  return text.size() >= least && text.size() <= most &&
         std::all_of(text.begin(), text.end(), predicate);
}

std::vector<std::string> Parts(const std::string& text, char separator) {
  return absl::StrSplit(text, separator);
}

// RFC 5646, 2.1: langtag or privateuse; of the grandfathered tags none.
bool IsLanguageTag(const std::string& text) {
  if (text.size() > 64) return false;
  const std::vector<std::string> parts = Parts(text, '-');
  size_t at = 0;
  const auto next = [&](size_t least, size_t most, auto predicate) {
    if (at >= parts.size() || !All(parts[at], least, most, predicate)) return false;
    ++at;
    return true;
  };
  const auto private_use = [&] {
    if (at >= parts.size() || (parts[at] != "x" && parts[at] != "X")) return false;
    ++at;
    bool any = false;
    while (next(1, 8, Alphanumeric)) any = true;
    return any;
  };
  if (private_use()) return at == parts.size();
  at = 0;
  if (!next(2, 8, Letter)) return false;
  if (parts[0].size() <= 3) {
    for (int i = 0; i < 3 && next(3, 3, Letter); ++i) {  // extended language
    }
  }
  next(4, 4, Letter);                          // script
  if (!next(2, 2, Letter)) next(3, 3, Digit);  // region
  for (;;) {                                   // variants
    if (at < parts.size() && parts[at].size() == 4 && !Digit(parts[at][0])) break;
    if (!next(5, 8, Alphanumeric) && !next(4, 4, Alphanumeric)) break;
  }
  std::set<char> singletons;
  while (at < parts.size() && parts[at].size() == 1 && parts[at] != "x" && parts[at] != "X") {
    if (!All(parts[at], 1, 1, Alphanumeric)) return false;
    if (!singletons.insert(absl::ascii_tolower(static_cast<unsigned char>(parts[at][0]))).second) {
      return false;
    }
    ++at;
    bool any = false;
    while (next(2, 8, Alphanumeric)) any = true;
    if (!any) return false;
  }
  if (at < parts.size() && !private_use()) return false;
  return at == parts.size();
}

// A number of exactly so many digits; -1 where it is none.
int Number(const std::string& text, size_t begin, size_t digits) {
  if (begin + digits > text.size()) return -1;
  int value = 0;
  for (size_t i = begin; i < begin + digits; ++i) {
    if (!Digit(text[i])) return -1;
    value = value * 10 + (text[i] - '0');
  }
  return value;
}

bool IsDate(const std::string& text) {
  if (text.size() != 10 || text[4] != '-' || text[7] != '-') return false;
  const int year = Number(text, 0, 4);
  const int month = Number(text, 5, 2);
  const int day = Number(text, 8, 2);
  if (year < 1 || month < 1 || day < 1) return false;
  // A day that the calendar does not have becomes another one.
  const absl::CivilDay civil(year, month, day);
  return civil.year() == year && civil.month() == month && civil.day() == day;
}

bool IsLocalDateTime(const std::string& text) {
  if (text.size() != 19 || text[10] != 'T' || text[13] != ':' || text[16] != ':') return false;
  const int hour = Number(text, 11, 2);
  const int minute = Number(text, 14, 2);
  const int second = Number(text, 17, 2);
  return IsDate(text.substr(0, 10)) && hour >= 0 && hour <= 23 && minute >= 0 && minute <= 59 &&
         second >= 0 && second <= 59;
}

bool IsTimeZone(const std::string& text) {
  if (text.empty() || text.size() > kTimeZoneBytesMax || !Letter(text[0])) return false;
  for (const std::string& part : Parts(text, '/')) {
    if (part.empty() || !Alphanumeric(part[0])) return false;
    if (!All(part, 1, kTimeZoneBytesMax,
             [](char c) { return Alphanumeric(c) || c == '_' || c == '-' || c == '+'; })) {
      return false;
    }
  }
  if (text.starts_with("posix/") || text.starts_with("right/")) return false;
  struct stat info {};
  // Without the database the shape has to do.
  if (stat(kTimeZoneFolder, &info) != 0) return true;
  std::ifstream file(absl::StrCat(kTimeZoneFolder, "/", text), std::ios::binary);
  char magic[4] = {};
  return file.read(magic, sizeof magic) && std::string_view(magic, sizeof magic) == "TZif";
}

// What a format allows, for people.
const char* Allowed(v1::Format format) {
  switch (format) {
    case v1::FORMAT_LANGUAGE_TAG:
      return "a language tag of BCP 47, such as zh-Hans";
    case v1::FORMAT_SCRIPT:
      return "a script of ISO 15924, such as Latn";
    case v1::FORMAT_COUNTRY:
      return "a country of ISO 3166-1 as two capital letters, such as IT";
    case v1::FORMAT_HANDLE:
      return "1 to 32 of a-z, 0-9 and -, beginning with a letter";
    case v1::FORMAT_RECORD_ID:
      return "a UUID in lower case, such as 01890a5d-ac96-774b-bcce-b302099a8057";
    case v1::FORMAT_LOCAL_DATE_TIME:
      return "a local date and time, such as 2026-05-14T19:00:00";
    case v1::FORMAT_TIME_ZONE:
      return "a time zone of the IANA database, such as Europe/Rome";
    case v1::FORMAT_DATE:
      return "a date, such as 2026-05-14";
    default:
      return "text in UTF-8";
  }
}

absl::Status Refuse(const std::string& path, const std::string& value, const std::string& allowed) {
  return absl::InvalidArgumentError(absl::StrCat("field '", Shown(path), "': value '", Shown(value),
                                                 "' is not allowed (", allowed, ")"));
}

// What the sibling field `kind` asks of a contact's text.
absl::Status CheckContact(const Message& message, const std::string& path,
                          const std::string& text) {
  const FieldDescriptor* kind = message.GetDescriptor()->FindFieldByName("kind");
  if (kind == nullptr || kind->cpp_type() != FieldDescriptor::CPPTYPE_ENUM) {
    return absl::OkStatus();
  }
  const auto* value =
      kind->enum_type()->FindValueByNumber(message.GetReflection()->GetEnumValue(message, kind));
  if (value == nullptr) return absl::OkStatus();
  if (value->name() == "CONTACT_KIND_PHONE" && !IsPhone(text)) {
    return Refuse(path, text, "a telephone number of E.164, such as +390551234567");
  }
  if (value->name() == "CONTACT_KIND_EMAIL" && !IsEmail(text)) {
    return Refuse(path, text, "a mail address of RFC 5322, such as ann@example.org");
  }
  return absl::OkStatus();
}

absl::Status CheckText(const Message& message, const FieldDescriptor* field,
                       const std::string& path, const std::string& text) {
  const v1::FieldRules& rules = field->options().GetExtension(v1::rules);
  const size_t bytes_max = rules.bytes_max() == 0 ? kFieldBytesMaxDefault : rules.bytes_max();
  if (text.size() > bytes_max) {
    return absl::InvalidArgumentError(
        absl::StrCat("field '", Shown(path), "': value '",
                     field->type() == FieldDescriptor::TYPE_BYTES ? "..." : Shown(text), "' of ",
                     text.size(), " bytes is too long (at most ", bytes_max, ")"));
  }
  if (field->type() == FieldDescriptor::TYPE_BYTES) return absl::OkStatus();
  if (!ValidUtf8(text)) return Refuse(path, text, "text in UTF-8");
  if (text.find('\0') != std::string::npos) {
    return Refuse(path, text, "text without zero bytes");
  }
  if (rules.format() == v1::FORMAT_CONTACT) return CheckContact(message, path, text);
  if (!HasFormat(rules.format(), text)) return Refuse(path, text, Allowed(rules.format()));
  return absl::OkStatus();
}

// Map fields whose keys name chapters, by the entity's scope rule.
bool KeysAreChapters(const EntityType& type, const FieldDescriptor* field) {
  for (const storage::ScopeClause& clause : type.rule.scope.clauses) {
    if (clause.kind == storage::ScopeClause::Kind::kChapterKeys &&
        clause.field == static_cast<uint32_t>(field->number()) &&
        field->containing_type() == type.descriptor) {
      return true;
    }
  }
  return false;
}

absl::Status CheckKey(const EntityType& type, const FieldDescriptor* map, const std::string& key) {
  if (key.empty() || key.size() > storage::kMapKeyBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("field '", map->name(), "': key '", Shown(key), "' of ", key.size(),
                     " bytes is not allowed (1 to ", storage::kMapKeyBytesMax, ")"));
  }
  const char* allowed = nullptr;
  if (!ValidUtf8(key) || HasControl(key)) {
    allowed = "text in UTF-8 without control characters";
  } else if (KeysAreChapters(type, map) && !HasFormat(v1::FORMAT_HANDLE, key)) {
    allowed = Allowed(v1::FORMAT_HANDLE);
  }
  if (allowed == nullptr) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("field '", map->name(), "': key '", Shown(key),
                                                 "' is not allowed (", allowed, ")"));
}

absl::Status CheckMessage(const EntityType& type, const Message& message,
                          const std::string& prefix);

// A map's entry; `message` holds the map.
absl::Status CheckEntry(const EntityType& type, const FieldDescriptor* map, const Message& entry,
                        const std::string& prefix) {
  storage::CellPath cell{static_cast<uint32_t>(map->number()), EntryKey(entry)};
  CHAPTER_RETURN_IF_ERROR(CheckKey(type, map, *cell.map_key));
  const std::string path = absl::StrCat(prefix, PathText(type, cell));
  const FieldDescriptor* value = entry.GetDescriptor()->map_value();
  const Reflection* reflection = entry.GetReflection();
  if (value->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
    return CheckMessage(type, reflection->GetMessage(entry, value), path + ".");
  }
  if (value->cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
    const std::string text = reflection->GetString(entry, value);
    // The rules of a map field are its values'.
    const v1::FieldRules& rules = map->options().GetExtension(v1::rules);
    const size_t bytes_max = rules.bytes_max() == 0 ? kFieldBytesMaxDefault : rules.bytes_max();
    if (text.size() > bytes_max) {
      return absl::InvalidArgumentError(
          absl::StrCat("field '", Shown(path), "': value '", Shown(text), "' of ", text.size(),
                       " bytes is too long (at most ", bytes_max, ")"));
    }
    if (value->type() == FieldDescriptor::TYPE_BYTES) return absl::OkStatus();
    if (!ValidUtf8(text)) return Refuse(path, text, "text in UTF-8");
    if (!HasFormat(rules.format(), text)) return Refuse(path, text, Allowed(rules.format()));
  }
  return absl::OkStatus();
}

absl::Status CheckMessage(const EntityType& type, const Message& message,
                          const std::string& prefix) {
  const Reflection* reflection = message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    const std::string path = prefix + field->name();
    const bool is_message = field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
    const bool is_text = field->cpp_type() == FieldDescriptor::CPPTYPE_STRING;
    if (!field->is_repeated()) {
      if (is_message) {
        CHAPTER_RETURN_IF_ERROR(
            CheckMessage(type, reflection->GetMessage(message, field), path + "."));
      } else if (is_text) {
        CHAPTER_RETURN_IF_ERROR(
            CheckText(message, field, path, reflection->GetString(message, field)));
      }
      continue;
    }
    for (int i = 0; i < reflection->FieldSize(message, field); ++i) {
      if (field->is_map()) {
        CHAPTER_RETURN_IF_ERROR(
            CheckEntry(type, field, reflection->GetRepeatedMessage(message, field, i), prefix));
      } else if (is_message) {
        CHAPTER_RETURN_IF_ERROR(
            CheckMessage(type, reflection->GetRepeatedMessage(message, field, i), path + "."));
      } else if (is_text) {
        CHAPTER_RETURN_IF_ERROR(
            CheckText(message, field, path, reflection->GetRepeatedString(message, field, i)));
      }
    }
  }
  return absl::OkStatus();
}

bool Required(const FieldDescriptor* field) {
  return field->options().GetExtension(v1::rules).required();
}

}  // namespace

bool IsPhone(const std::string& text) {
  return text.size() >= 3 && text.size() <= 16 && text[0] == '+' && text[1] != '0' &&
         All(text.substr(1), 2, 15, Digit);
}

bool IsEmail(const std::string& text) {
  const size_t at = text.rfind('@');
  if (at == std::string::npos || text.size() > kEmailBytesMax) return false;
  const std::string local = text.substr(0, at);
  const std::string domain = text.substr(at + 1);
  if (local.empty() || local.size() > kEmailLocalBytesMax) return false;
  if (local.size() >= 2 && local.front() == '"' && local.back() == '"') {
    for (size_t i = 1; i + 1 < local.size(); ++i) {
      if (local[i] == '\\' && i + 2 < local.size()) {
        ++i;
      } else if (local[i] == '"' || local[i] == '\\') {
        return false;
      }
      if (HasControl(std::string(1, local[i]))) return false;
    }
  } else {
    // atext of RFC 5322, with the letters beyond ASCII of RFC 6532.
    const std::string_view special = "!#$%&'*+-/=?^_`{|}~";
    for (const std::string& atom : Parts(local, '.')) {
      if (!All(atom, 1, kEmailLocalBytesMax, [special](char c) {
            return Alphanumeric(c) || (c & 0x80) != 0 || special.find(c) != std::string_view::npos;
          })) {
        return false;
      }
    }
  }
  const std::vector<std::string> labels = Parts(domain, '.');
  if (labels.size() < 2) return false;
  for (const std::string& label : labels) {
    if (label.empty() || label.front() == '-' || label.back() == '-') return false;
    if (!All(label, 1, kDomainLabelBytesMax,
             [](char c) { return Alphanumeric(c) || c == '-' || (c & 0x80) != 0; })) {
      return false;
    }
  }
  return !All(labels.back(), 1, kDomainLabelBytesMax, Digit);
}

bool HasFormat(v1::Format format, const std::string& text) {
  switch (format) {
    case v1::FORMAT_LANGUAGE_TAG:
      return IsLanguageTag(text);
    case v1::FORMAT_SCRIPT:
      return text.size() == 4 && Upper(text[0]) && All(text.substr(1), 3, 3, Lower);
    case v1::FORMAT_COUNTRY:
      return All(text, 2, 2, Upper);
    case v1::FORMAT_HANDLE:
      return All(text, 1, kHandleBytesMax,
                 [](char c) { return Lower(c) || Digit(c) || c == '-'; }) &&
             Lower(text[0]);
    case v1::FORMAT_RECORD_ID: {
      const auto id = storage::RecordId::Parse(text);
      return id.ok() && id->ToString() == text;
    }
    case v1::FORMAT_LOCAL_DATE_TIME:
      return IsLocalDateTime(text);
    case v1::FORMAT_TIME_ZONE:
      return IsTimeZone(text);
    case v1::FORMAT_DATE:
      return IsDate(text);
    default:
      return true;
  }
}

absl::Status Validate(const EntityType& type, const Message& message) {
  return CheckMessage(type, message, "");
}

absl::Status ValidateCells(const EntityType& type, const std::vector<storage::CellWrite>& cells) {
  storage::Record record;
  for (const storage::CellWrite& cell : cells) {
    const FieldDescriptor* field =
        type.descriptor->FindFieldByNumber(static_cast<int>(cell.path.field));
    if (!cell.value && field != nullptr && Required(field)) {
      return absl::InvalidArgumentError(
          absl::StrCat("field '", field->name(), "' is required; it can be changed, not cleared"));
    }
    if (cell.value) record.Put({cell.path, {}, "", cell.value, {}});
  }
  CHAPTER_ASSIGN_OR_RETURN(const std::unique_ptr<Message> message, Compose(type, record));
  CHAPTER_RETURN_IF_ERROR(Validate(type, *message));
  for (const storage::CellWrite& cell : cells) {
    const FieldDescriptor* field =
        type.descriptor->FindFieldByNumber(static_cast<int>(cell.path.field));
    if (field == nullptr || !Required(field) || field->is_repeated() ||
        field->cpp_type() != FieldDescriptor::CPPTYPE_STRING) {
      continue;
    }
    if (message->GetReflection()->GetString(*message, field).empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("field '", field->name(), "' is required; it cannot be empty"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckRequired(const EntityType& type, const Message& message) {
  const Reflection* reflection = message.GetReflection();
  for (int i = 0; i < type.descriptor->field_count(); ++i) {
    const FieldDescriptor* field = type.descriptor->field(i);
    if (!Required(field)) continue;
    bool there = field->is_repeated() ? reflection->FieldSize(message, field) > 0
                                      : reflection->HasField(message, field);
    if (there && !field->is_repeated() && field->cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
      there = !reflection->GetString(message, field).empty();
    }
    if (!there) {
      return absl::InvalidArgumentError(absl::StrCat("field '", field->name(), "' is required of ",
                                                     type.plural, ", and has no value"));
    }
  }
  return absl::OkStatus();
}

}  // namespace chaptersync::node
