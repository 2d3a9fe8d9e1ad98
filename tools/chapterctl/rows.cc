// SPDX-License-Identifier: Apache-2.0
//
// Cells and JSON members become values by their field paths; errors of one row
// stay with it.
#include "tools/chapterctl/rows.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include <nlohmann/json.hpp>

#include "node/entity/ids.h"
#include "node/entity/text.h"
#include "node/entity/value.h"
#include "storage/core/status.h"

namespace chaptersync::ctl {
namespace {

using google::protobuf::FieldDescriptor;
using node::EntityType;
using node::FieldPath;

// Of unknown columns, as many are named.
constexpr size_t kNamedMax = 5;
// No value of an entity is nested deeper.
constexpr int kJsonDepthMax = 32;

absl::Status UnknownColumns(const EntityType& type, const std::vector<std::string>& unknown) {
  std::vector<std::string> named;
  for (const std::string& name : unknown) {
    if (named.size() == kNamedMax) break;
    named.push_back(absl::StrCat("'", node::Shown(name), "'"));
  }
  std::string message =
      absl::StrCat("unknown column", unknown.size() > 1 ? "s " : " ", absl::StrJoin(named, ", "));
  if (unknown.size() > named.size()) {
    absl::StrAppend(&message, " and ", unknown.size() - named.size(), " more");
  }
  std::vector<std::string> fields = {kIdColumn};
  for (int i = 0; i < type.descriptor->field_count(); ++i) {
    fields.push_back(type.descriptor->field(i)->name());
  }
  return absl::InvalidArgumentError(absl::StrCat(message, " (", type.plural, " have ",
                                                 absl::StrJoin(fields, ", "),
                                                 "; --map COLUMN=FIELD names others)"));
}

// What a column or key stands for.
struct Target {
  enum class Kind { kField, kId, kLeftOut };
  Kind kind = Kind::kField;
  FieldPath path;
  std::string path_text;
};

absl::StatusOr<Target> TargetOf(const EntityType& type, const std::string& name,
                                const ColumnMap& columns) {
  const auto mapped = columns.find(name);
  const std::string& field = mapped == columns.end() ? name : mapped->second;
  Target target;
  if (mapped != columns.end() && field.empty()) {
    target.kind = Target::Kind::kLeftOut;
  } else if (field == kIdColumn) {
    target.kind = Target::Kind::kId;
  } else {
    CHAPTER_ASSIGN_OR_RETURN(target.path, node::ParsePath(type, field));
    target.path_text = node::PathText(type, target.path);
  }
  return target;
}

class CsvRows final : public RowSource {
 public:
  CsvRows(const EntityType& type, std::istream& in) : type_(type), reader_(in), builder_(type) {}

  absl::Status ReadHeader(const ColumnMap& columns) {
    CsvRecord header;
    if (!reader_.Next(header)) {
      return absl::InvalidArgumentError("the file is empty: it needs a row with the fields' names");
    }
    if (!header.problem.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("line ", header.line, ", the fields' names: ", header.problem));
    }
    const auto is_id = [&](const std::string& name) {
      const auto mapped = columns.find(name);
      return (mapped == columns.end() ? name : mapped->second) == kIdColumn;
    };
    const size_t ids = std::any_of(header.cells.begin(), header.cells.end(), is_id) ? 1 : 0;
    if (const size_t count = header.cells.size() - ids; count > kCsvColumnsMax) {
      return absl::InvalidArgumentError(
          absl::StrCat(count, " columns are too many (at most ", kCsvColumnsMax, ")"));
    }
    std::vector<std::string> unknown;
    std::set<std::string> seen;
    for (const std::string& name : header.cells) {
      if (!node::ValidUtf8(name)) {
        return absl::InvalidArgumentError(
            absl::StrCat("line ", header.line, ": column '", node::Shown(name), "' is not UTF-8"));
      }
      auto target = TargetOf(type_, name, columns);
      if (!target.ok()) {
        unknown.push_back(name);
        continue;
      }
      const std::string field = target->kind == Target::Kind::kId ? kIdColumn : target->path_text;
      if (target->kind != Target::Kind::kLeftOut && !seen.insert(field).second) {
        return absl::InvalidArgumentError(
            absl::StrCat("two columns stand for '", node::Shown(field), "'"));
      }
      targets_.push_back(*std::move(target));
    }
    if (!unknown.empty()) return UnknownColumns(type_, unknown);
    for (const auto& [column, field] : columns) {
      if (std::find(header.cells.begin(), header.cells.end(), column) == header.cells.end()) {
        return absl::InvalidArgumentError(
            absl::StrCat("the file has no column '", node::Shown(column), "', which --map names"));
      }
    }
    return absl::OkStatus();
  }

  bool Next(ImportRow& row) override {
    CsvRecord record;
    while (reader_.Next(record)) {
      builder_.Clear();
      row.line = record.line;
      row.problem = Read(record);
      if (row.problem.ok()) {
        if (builder_.empty()) continue;  // all cells are empty
        row.problem = builder_.Finish(row);
      }
      return true;
    }
    return false;
  }

 private:
  absl::Status Read(const CsvRecord& record) {
    if (!record.problem.empty()) return absl::InvalidArgumentError(record.problem);
    if (record.cells.size() != targets_.size()) {
      return absl::InvalidArgumentError(absl::StrCat("the row has ", record.cells.size(),
                                                     " cells, the header ", targets_.size()));
    }
    for (size_t i = 0; i < targets_.size(); ++i) {
      const std::string& cell = record.cells[i];
      const Target& target = targets_[i];
      if (cell.empty() || target.kind == Target::Kind::kLeftOut) continue;
      CHAPTER_RETURN_IF_ERROR(target.kind == Target::Kind::kId
                                  ? builder_.SetId(cell)
                                  : builder_.Set(target.path, target.path_text, cell));
    }
    return absl::OkStatus();
  }

  const EntityType& type_;
  CsvReader reader_;
  RecordBuilder builder_;
  std::vector<Target> targets_;
};

// How deep brackets are nested in a text that may be JSON.
bool TooDeep(const std::string& text) {
  int depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') ++i;
      quoted = c != '"';
    } else if (c == '"') {
      quoted = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kJsonDepthMax) return true;
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return false;
}

// Finds an object's key that comes twice, of which a parser keeps the last.
class RepeatedKey {
 public:
  const std::optional<std::string>& key() const { return key_; }

  // As nlohmann's parser calls it.
  bool operator()(int /*depth*/, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    using Event = nlohmann::json::parse_event_t;
    if (event == Event::object_start) {
      objects_.emplace_back();
    } else if (event == Event::object_end) {
      objects_.pop_back();
    } else if (event == Event::key && !key_) {
      const auto [it, inserted] = objects_.back().insert(parsed.get<std::string>());
      if (!inserted) key_ = *it;
    }
    return true;
  }

 private:
  std::vector<std::set<std::string>> objects_;  // that are open
  std::optional<std::string> key_;              // the first
};

class JsonRows final : public RowSource {
 public:
  JsonRows(const EntityType& type, std::istream& in, const ColumnMap& keys)
      : type_(type), in_(in), keys_(keys), builder_(type) {}

  bool Next(ImportRow& row) override {
    std::string line;
    while (ReadLine(line)) {
      const bool first = line_ == 1;
      if (first && line.compare(0, 3, "\xef\xbb\xbf") == 0) line.erase(0, 3);
      if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
      builder_.Clear();
      row.line = line_;
      row.problem = Read(line);
      if (row.problem.ok()) row.problem = builder_.Finish(row);
      return true;
    }
    return false;
  }

 private:
  // Of a line that is too long, no more than shows that it is.
  bool ReadLine(std::string& line) {
    line.clear();
    std::streambuf& buffer = *in_.rdbuf();
    bool any = false;
    for (;;) {
      const int c = buffer.sbumpc();
      if (c == std::char_traits<char>::eof()) break;
      any = true;
      if (c == '\n') break;
      if (line.size() <= kRowBytesMax) line += static_cast<char>(c);
    }
    if (any) ++line_;
    return any;
  }

  absl::Status Read(const std::string& line) {
    if (line.size() > kRowBytesMax) {
      return absl::InvalidArgumentError(absl::StrCat("longer than ", kRowBytesMax, " bytes"));
    }
    if (!node::ValidUtf8(line)) return absl::InvalidArgumentError("the line is not UTF-8");
    if (TooDeep(line)) return absl::InvalidArgumentError("the line is nested too deeply");
    RepeatedKey repeated;
    const auto object = nlohmann::json::parse(line, std::ref(repeated), false);
    if (!object.is_object()) return absl::InvalidArgumentError("the line is no JSON object");
    if (repeated.key()) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", node::Shown(*repeated.key()), "' is given twice (once is allowed)"));
    }
    size_t count = 0;
    for (const auto& [key, value] : object.items()) count += CountFields(key, value);
    if (count > kJsonFieldsMax) {
      return absl::InvalidArgumentError(
          absl::StrCat(count, " fields are too many (at most ", kJsonFieldsMax, ")"));
    }
    std::vector<std::string> unknown;
    for (const auto& [key, value] : object.items()) {
      if (value.is_null()) continue;
      CHAPTER_ASSIGN_OR_RETURN(const bool own, ReadOwn(key, value));
      if (own) continue;
      const auto target = TargetOf(type_, key, keys_);
      if (!target.ok()) {
        unknown.push_back(key);
      } else if (target->kind == Target::Kind::kId) {
        CHAPTER_RETURN_IF_ERROR(builder_.SetId(TextOf(value)));
      } else if (target->kind == Target::Kind::kField) {
        CHAPTER_RETURN_IF_ERROR(SetField(*target, value));
      }
    }
    if (!unknown.empty()) return UnknownColumns(type_, unknown);
    if (builder_.empty()) return absl::InvalidArgumentError("the row holds no value");
    return absl::OkStatus();
  }

  // Whether the key is the file's own, and none that stands for a field.
  bool Own(const std::string& key) const {
    return keys_.count(key) == 0 && type_.descriptor->FindFieldByName(key) == nullptr;
  }

  // How many fields are written: of a map each entry.
  size_t CountFields(const std::string& key, const nlohmann::json& value) const {
    if (value.is_null()) return 0;
    if (Own(key)) {
      for (const char* own : {"scopes", "noun", "deleted", "erased", kIdColumn}) {
        if (key == own) return 0;
      }
    }
    const auto mapped = keys_.find(key);
    const FieldDescriptor* field =
        type_.descriptor->FindFieldByName(mapped == keys_.end() ? key : mapped->second);
    return field != nullptr && field->is_map() && value.is_object() ? value.size() : 1;
  }

  // What an exported record says besides its fields. False where the key is none of it.
  absl::StatusOr<bool> ReadOwn(const std::string& key, const nlohmann::json& value) const {
    if (!Own(key)) return false;
    if (key == "scopes") return true;  // They follow from the fields.
    if (key == "noun") {
      if (value == type_.plural) return true;
      return absl::InvalidArgumentError(absl::StrCat(
          "the row is one of ", node::Shown(TextOf(value)), ", not of ", type_.plural));
    }
    if (key == "deleted" || key == "erased") {
      if (value == false) return true;
      return absl::InvalidArgumentError(absl::StrCat("the record was ", key, " when exported"));
    }
    return false;
  }

  // Entries of a map are cells of their own: those that are not named stay.
  absl::Status SetField(const Target& target, const nlohmann::json& value) {
    if (!target.path.whole_map() || !value.is_object()) {
      return builder_.Set(target.path, target.path_text, TextOf(value));
    }
    for (const auto& [key, entry] : value.items()) {
      if (entry.is_null()) continue;
      FieldPath path = target.path;
      path.cell.map_key = key;
      // A key from a file is checked as one that a person types.
      const std::string text = node::PathText(type_, path);
      CHAPTER_ASSIGN_OR_RETURN(path, node::ParsePath(type_, text));
      CHAPTER_RETURN_IF_ERROR(builder_.Set(path, text, TextOf(entry)));
    }
    return absl::OkStatus();
  }

  static std::string TextOf(const nlohmann::json& value) {
    return value.is_string() ? value.get<std::string>() : value.dump();
  }

  const EntityType& type_;
  std::istream& in_;
  const ColumnMap keys_;
  RecordBuilder builder_;
  uint64_t line_ = 0;
};

}  // namespace

absl::StatusOr<storage::RecordId> IdFromText(const EntityType& type, const std::string& text) {
  if (const auto id = storage::RecordId::Parse(text); id.ok()) return *id;
  if (text.empty() || text.size() > kIdNameBytesMax || !node::ValidUtf8(text)) {
    return absl::InvalidArgumentError(absl::StrCat("id '", node::Shown(text), "' of ", text.size(),
                                                   " bytes is not allowed (a UUID, or 1 to ",
                                                   kIdNameBytesMax, " bytes of UTF-8)"));
  }
  return node::NamedId(type, text);
}

absl::Status RecordBuilder::Set(const FieldPath& path, const std::string& path_text,
                                const std::string& value) {
  if (!node::ValidUtf8(value)) {
    return absl::InvalidArgumentError(
        absl::StrCat("field '", path_text, "': value '", node::Shown(value), "' is not UTF-8"));
  }
  if (path.field->is_map()) {
    const storage::CellPath whole{path.cell.field, std::nullopt};
    const auto first = cells_.lower_bound(whole);  // the map, or the first of its entries
    const bool given = first != cells_.end() && first->first.field == whole.field;
    if (given && path.whole_map() != !first->first.map_key) {
      return absl::InvalidArgumentError(
          absl::StrCat("field '", path.field->name(),
                       "' is given twice (once is allowed, as a map or by its entries)"));
    }
  }
  auto& cell = cells_[path.cell];
  if (cell == nullptr) cell = type_.NewMessage();
  CHAPTER_RETURN_IF_ERROR(node::SetText(type_, *cell, path, value));
  mask_.push_back(path_text);
  return absl::OkStatus();
}

absl::Status RecordBuilder::SetId(const std::string& text) {
  CHAPTER_ASSIGN_OR_RETURN(id_, IdFromText(type_, text));
  return absl::OkStatus();
}

absl::Status RecordBuilder::Finish(ImportRow& row) {
  std::string all;
  for (const auto& [path, cell] : cells_) all += node::Deterministic(*cell);
  const auto message = type_.NewMessage();
  if (!message->ParseFromString(all)) return absl::InternalError("the row is no message");
  // The same bytes for the same values, so that equal rows are known as equal.
  const std::string content = node::Deterministic(*message);
  if (id_) {
    row.id = *id_;
  } else if (const FieldDescriptor* name = type_.name_field; name != nullptr) {
    const std::string text = message->GetReflection()->GetString(*message, name);
    if (text.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("the row names no record: it has neither '", name->name(), "' nor 'id'"));
    }
    row.id = node::NamedId(type_, text);
  } else {
    // No name of a record begins with a NUL.
    row.id = node::NamedId(type_, std::string(1, '\0') + content);
  }
  row.write.Clear();
  row.write.set_name(type_.ResourceName(row.id));
  row.write.mutable_entity()->PackFrom(*type_.prototype);
  row.write.mutable_entity()->set_value(content);
  for (std::string& path : mask_) row.write.mutable_update_mask()->add_paths(std::move(path));
  Clear();
  return absl::OkStatus();
}

void RecordBuilder::Clear() {
  cells_.clear();
  mask_.clear();
  id_.reset();
}

absl::Status CannotRead(const std::string& source, const std::ios_base::failure& failure) {
  return absl::InternalError(absl::StrCat("cannot read ", source, ": ", failure.code().message()));
}

absl::StatusOr<std::unique_ptr<RowSource>> OpenCsvRows(const EntityType& type, std::istream& in,
                                                       const ColumnMap& columns) {
  auto rows = std::make_unique<CsvRows>(type, in);
  CHAPTER_RETURN_IF_ERROR(rows->ReadHeader(columns));
  return std::unique_ptr<RowSource>(std::move(rows));
}

std::unique_ptr<RowSource> OpenJsonRows(const EntityType& type, std::istream& in,
                                        const ColumnMap& keys) {
  return std::make_unique<JsonRows>(type, in, keys);
}

}  // namespace chaptersync::ctl
