// SPDX-License-Identifier: Apache-2.0
//
// The words of plans; see plan_text.h. The names of fields stand here once. Functions
// without state; any thread.
#include "tests/simulation/plan_text.h"

#include <algorithm>
#include <array>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

#include "storage/core/status.h"

namespace chaptersync::simulation {

using storage::CellPath;
using storage::Choice;

namespace {

struct FieldName {
  const char* name;
  uint32_t field;
  const char* letters;  // of the records that have it
};
constexpr std::array<FieldName, 8> kFields = {{{"chapter", kChapter, "me"},
                                               {"leader", kLeader, "cr"},
                                               {"above", kAbove, "r"},
                                               {"name", kName, "mcer"},
                                               {"phone", kPhone, "mcer"},
                                               {"label", kLabels, "mcer"},
                                               {"host", kHosts, "e"},
                                               {"standing", kStanding, "m"}}};

std::string Quoted(const std::string& word) {
  return word.empty() || absl::StrContains(word, ' ') ? absl::StrCat("\"", word, "\"") : word;
}

bool IsMap(uint32_t field) { return field == kLabels || field == kHosts; }

std::string FieldText(const std::string& record, const CellPath& path) {
  for (const FieldName& known : kFields) {
    if (known.field != path.field || !absl::StrContains(known.letters, record.substr(0, 1))) {
      continue;
    }
    return path.map_key ? absl::StrCat(known.name, "/", *path.map_key) : known.name;
  }
  return absl::StrCat("field ", path.field);
}

// Followers name their leaders: by these records' ids in a cell, by their names in a
// plan.
bool NamesLeader(const std::string& record, const CellPath& path) {
  return (record[0] == 'c' || record[0] == 'r') &&
         (path.field == kLeader || path.field == kAbove) && !path.map_key;
}

std::string ValueText(const std::string& record, const CellPath& path, const PlainValue& value) {
  if (!value) return "cleared";
  if (!NamesLeader(record, path)) return *value;
  const auto id = storage::RecordId::Parse(*value);
  if (!id.ok()) return *value;
  const uint32_t entity = path.field == kAbove ? kReply : record[0] == 'c' ? kMember : kEvent;
  return NameOf({{entity}, *id});
}

const char* ChoiceText(Choice choice) {
  switch (choice) {
    case Choice::kKeep:
      return "keep";
    case Choice::kTake:
      return "take";
    case Choice::kValue:
      return "value";
  }
  return "?";
}

}  // namespace

absl::Status Wrong(const std::string& what) { return absl::InvalidArgumentError(what); }

absl::StatusOr<Words> Split(const std::string& line) {
  Words words;
  bool quoted = false;
  bool open = false;
  for (const char c : line) {
    if (c == '"') {
      quoted = !quoted;
      if (!open) words.emplace_back();
      open = true;
    } else if (!quoted && (c == ' ' || c == '\t' || c == '\r')) {
      open = false;
    } else {
      if (!open) words.emplace_back();
      open = true;
      words.back() += c;
    }
  }
  if (quoted) return Wrong("a quote is not closed");
  return words;
}

std::string Joined(const Words& words) {
  return absl::StrJoin(words, " ",
                       [](std::string* out, const std::string& w) { *out += Quoted(w); });
}

absl::StatusOr<uint64_t> Number(const std::string& word, uint64_t least, uint64_t most) {
  uint64_t number = 0;
  if (!absl::SimpleAtoi(word, &number) || number < least || number > most) {
    return Wrong(absl::StrCat("'", word, "' is no number from ", least, " to ", most));
  }
  return number;
}

absl::StatusOr<uint64_t> Duration(const std::string& word) {
  constexpr uint64_t kDayMs = uint64_t{24} * 3600 * 1000;
  static const auto* const units = new std::vector<std::pair<std::string, uint64_t>>{
      {"ms", 1}, {"s", 1000}, {"m", 60'000}, {"h", 3600'000}, {"d", kDayMs}, {"y", 365 * kDayMs}};
  const size_t digits = std::min(word.find_first_not_of("0123456789"), word.size());
  uint64_t count = 0;
  for (const auto& [unit, ms] : *units) {
    if (word.substr(digits) != unit) continue;
    if (absl::SimpleAtoi(word.substr(0, digits), &count) && count <= 100'000) return count * ms;
  }
  return Wrong(absl::StrCat("'", word, "' is no time, such as 500ms, 10s, 5m, 2h, 3d, 1y"));
}

absl::StatusOr<std::string> RecordName(const std::string& word) {
  uint64_t number = 0;
  if (word.size() < 2 || word.size() > 8 || !absl::StrContains("mcer", word.substr(0, 1)) ||
      !absl::SimpleAtoi(word.substr(1), &number) || absl::StrCat(number) != word.substr(1)) {
    return Wrong(absl::StrCat("'", word,
                              "' is no record, such as m1: a member (m), consent (c), event (e) or "
                              "reply (r) and a number"));
  }
  return word;
}

absl::StatusOr<CellPath> Path(const std::string& record, const std::string& word) {
  const std::pair<std::string, std::string> parts = absl::StrSplit(word, absl::MaxSplits('/', 1));
  std::vector<std::string> allowed;
  for (const FieldName& known : kFields) {
    if (!absl::StrContains(known.letters, record.substr(0, 1))) continue;
    const bool map = IsMap(known.field);
    allowed.push_back(absl::StrCat(known.name, map ? "/KEY" : ""));
    if (parts.first != known.name || map == parts.second.empty()) continue;
    CellPath path{.field = known.field};
    if (map) path.map_key = parts.second;
    return path;
  }
  return Wrong(absl::StrCat("'", word, "' is no field of ", record, "; it has ",
                            absl::StrJoin(allowed, ", ")));
}

absl::StatusOr<PlanCell> CellOf(const std::string& record, const std::string& word) {
  const size_t equals = word.find('=');
  if (equals == std::string::npos) {
    return Wrong(absl::StrCat("'", word, "' is no FIELD=VALUE (nothing after = clears)"));
  }
  CHAPTER_ASSIGN_OR_RETURN(const CellPath path, Path(record, word.substr(0, equals)));
  const std::string value = word.substr(equals + 1);
  if (value.empty()) return PlanCell{path, std::nullopt};
  if (!NamesLeader(record, path)) return PlanCell{path, value};
  CHAPTER_ASSIGN_OR_RETURN(const std::string leader, RecordName(value));
  return PlanCell{path, LeaderText(leader)};
}

std::string CellText(const std::string& record, const CellPath& path, const PlainValue& value) {
  return absl::StrCat(FieldText(record, path), "=",
                      value ? Quoted(ValueText(record, path, value)) : "");
}

std::string StateText(const std::optional<PlainRecord>& record) {
  if (!record) return "absent";
  if (record->erased) return "erased";
  return record->Live() ? "live" : "deleted";
}

std::string RecordText(const std::string& name, const std::optional<PlainRecord>& record) {
  std::string out = absl::StrCat(name, " ", StateText(record));
  if (!record) return out;
  for (const auto& [path, cell] : record->cells) {
    if (path.empty() || !cell.value) continue;
    const std::pair<std::string, std::string> parts = absl::StrSplit(path, absl::MaxSplits('/', 1));
    CellPath cell_path;
    if (!absl::SimpleAtoi(parts.first, &cell_path.field)) continue;
    if (!parts.second.empty()) cell_path.map_key = parts.second;
    absl::StrAppend(&out, " ", CellText(name, cell_path, cell.value));
  }
  return out;
}

std::string EntryText(const std::string& record, const storage::ConflictEntry& entry) {
  const PlainValue lost = PlainValueOf(entry.path, entry.lost_value);
  std::string out;
  const bool restored = entry.path.existence() && lost != "deleted";
  if (entry.path.existence()) {
    absl::StrAppend(&out, restored ? "restoration" : "deletion", " lost to ");
  } else {
    absl::StrAppend(&out, FieldText(record, entry.path), " lost ",
                    Quoted(ValueText(record, entry.path, lost)), " to ");
  }
  if (entry.current_value == storage::DeletedValue()) {
    out += "deletion";
  } else if (entry.path.existence()) {
    out += entry.current_value == storage::RestoredValue() ? "restoration" : "edit";
  } else {
    out += Quoted(ValueText(record, entry.path, PlainValueOf(entry.path, entry.current_value)));
  }
  if (entry.settlements.empty()) return out + " open";
  const char* between = " settled ";
  for (auto it = entry.settlements.rbegin(); it != entry.settlements.rend(); ++it) {
    absl::StrAppend(&out, between, ChoiceText(it->choice));
    between = " after ";
  }
  return out;
}

std::string LinesText(const std::vector<std::string>& lines) {
  return lines.empty() ? "none" : absl::StrJoin(lines, "; ");
}

std::string RefusedText(const storage::RefusedWrite& write) {
  const std::string record = NameOf(write.key);
  std::set<std::string> cells;
  for (const storage::CellWrite& cell : write.cells) {
    const PlainValue value = PlainValueOf(cell.path, cell.value);
    if (cell.path.existence()) {
      cells.insert(value == "deleted" ? "deletion" : "restoration");
    } else {
      cells.insert(CellText(record, cell.path, value));
    }
  }
  return absl::StrCat(record, " ", absl::StrJoin(cells, " "));
}

}  // namespace chaptersync::simulation
