// SPDX-License-Identifier: Apache-2.0
//
// Translation into plain text, and the rules of scopes written once more; see
// plain_record.h. One thread.
#include "tests/simulation/plain_record.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

#include "storage/core/status.h"

namespace chaptersync::simulation {
namespace {

// Levels of following that the design allows.
constexpr int kDepthMax = 4;

std::string ToText(const Stamp& stamp) {
  return absl::StrCat(stamp.time >> 16, ".", stamp.time & 0xffff, "@",
                      storage::ToHex(stamp.replica));
}

std::optional<std::set<std::string>> Scopes(const std::string& name, const PlainRecord& record,
                                            FindRecord find, const void* context, int depth) {
  if (record.erased) return std::nullopt;
  std::set<std::string> scopes;
  std::vector<std::string> leaders;
  const PlainValue chapter = record.Value(std::to_string(kChapter));
  switch (name[0]) {
    case 'm':
      if (chapter == kEverybody) scopes.insert("global");
      if (chapter && !chapter->empty()) scopes.insert("chapter/" + *chapter);
      break;
    case 'e':
      if (chapter == kEverybody) scopes.insert("global");
      for (const auto& [path, cell] : record.cells) {
        const std::string prefix = absl::StrCat(kHosts, "/");
        if (path.substr(0, prefix.size()) != prefix || !cell.value) continue;
        const std::string host = path.substr(prefix.size());
        scopes.insert(host == "hq" ? "hq" : "chapter/" + host);
      }
      break;
    case 'c':
    case 'r':
      for (const uint32_t field : {kLeader, kAbove}) {
        const std::string path = std::to_string(field);
        if (auto leader = LeaderName(name, path, record.Value(path))) {
          leaders.push_back(*std::move(leader));
        }
      }
      break;
    default:
      break;
  }
  bool erased = false;
  for (const std::string& leader : leaders) {
    if (depth >= kDepthMax) {
      scopes.insert("hq");
      continue;
    }
    const PlainRecord* above = find(context, leader);
    if (above == nullptr) continue;
    const auto more = Scopes(leader, *above, find, context, depth + 1);
    if (!more) {
      erased = true;
    } else {
      scopes.insert(more->begin(), more->end());
    }
  }
  if (erased) return std::nullopt;
  if (scopes.empty() && leaders.empty()) scopes.insert("hq");
  return scopes;
}

}  // namespace

std::string ToText(const PlainValue& value) { return value ? *value : "(cleared)"; }

bool PlainRecord::Live() const {
  if (erased || cells.empty()) return false;
  const auto existence = cells.find("");
  if (existence == cells.end() || existence->second.value != "deleted") return true;
  return std::any_of(cells.begin(), cells.end(),
                     [&](const auto& cell) { return cell.second.stamp > existence->second.stamp; });
}

PlainValue PlainRecord::Value(const std::string& path) const {
  const auto cell = cells.find(path);
  return cell == cells.end() ? std::nullopt : cell->second.value;
}

std::string PlainRecord::Text() const {
  if (erased) return "erased";
  std::string out = Live() ? "live" : "deleted";
  for (const auto& [path, cell] : cells) {
    absl::StrAppend(&out, " ", path, "=", ToText(cell.value), "[", ToText(cell.stamp), " ",
                    cell.actor, "]");
  }
  for (const PlainEntry& entry : log) {
    absl::StrAppend(&out, " {", entry.path, " lost ", ToText(entry.lost), "[",
                    ToText(entry.lost_stamp), "] to ", ToText(entry.current), "[",
                    ToText(entry.current_stamp), "] ", entry.open ? "open" : "settled", " ",
                    entry.rest, "}");
  }
  return out;
}

std::string PathText(const storage::CellPath& path) {
  if (path.existence()) return "";
  std::string out = std::to_string(path.field);
  if (path.map_key) absl::StrAppend(&out, "/", *path.map_key);
  return out;
}

PlainValue PlainValueOf(const storage::CellPath& path, const std::optional<std::string>& value) {
  if (!value) return std::nullopt;
  if (path.existence()) return *value == std::string(1, '\x01') ? "deleted" : "restored";
  // A tag and a length of one byte each.
  if (path.map_key) return *value;
  return value->size() < 2 ? *value : value->substr(2);
}

PlainRecord ToPlain(const storage::Record& record) {
  const auto stamp = [](const storage::Version& version) {
    return Stamp{version.time.ticks, version.replica.value};
  };
  PlainRecord out;
  out.erased = record.erased;
  for (const storage::Cell& cell : record.cells) {
    out.cells[PathText(cell.path)] = {PlainValueOf(cell.path, cell.value), stamp(cell.version),
                                      cell.actor};
  }
  for (const storage::ConflictEntry& entry : record.conflicts) {
    PlainEntry plain;
    plain.path = PathText(entry.path);
    plain.lost = PlainValueOf(entry.path, entry.lost_value);
    plain.lost_stamp = stamp(entry.lost_version);
    // An edit may lose to a deletion, and a deletion to an edit.
    const bool existence =
        entry.current_value == storage::DeletedValue() ||
        (entry.path.existence() && entry.current_value == storage::RestoredValue());
    if (existence) {
      plain.current = PlainValueOf({}, entry.current_value);
    } else if (entry.path.existence()) {
      plain.current = "an edit";
    } else {
      plain.current = PlainValueOf(entry.path, entry.current_value);
    }
    plain.current_stamp = stamp(entry.current_version);
    plain.open = entry.settlements.empty();
    plain.rest = absl::StrCat(entry.lost_actor, "/", entry.current_actor, " found ",
                              ToText({entry.found_at.ticks, entry.found_by.value}));
    for (const storage::SettlementEntry& s : entry.settlements) {
      absl::StrAppend(&plain.rest, " settled ", static_cast<int>(s.choice), " by ", s.actor, " ",
                      ToText(stamp(s.version)));
      plain.settled.push_back(stamp(s.version));
    }
    out.log.push_back(std::move(plain));
  }
  for (const auto& [replica, time] : record.seen.entries()) out.seen[replica.value] = time.ticks;
  return out;
}

storage::RecordKey KeyOf(const std::string& name) {
  storage::RecordKey key;
  for (uint32_t entity = kMember; entity <= kReply; ++entity) {
    if (kLetters[entity] == name[0]) key.entity = {entity};
  }
  CHAPTER_CHECK(key.entity.value != 0);
  uint64_t number = std::stoull(name.substr(1));
  for (size_t i = 0; i < 8; ++i, number >>= 8) {
    key.id.bytes[15 - i] = static_cast<uint8_t>(number);
  }
  return key;
}

std::string NameOf(const storage::RecordKey& key) {
  uint64_t number = 0;
  for (size_t i = 8; i < 16; ++i) number = number << 8 | key.id.bytes[i];
  return std::string(1, kLetters[key.entity.value]) + std::to_string(number);
}

std::string LeaderText(const std::string& name) { return KeyOf(name).id.ToString(); }

std::optional<std::string> LeaderName(const std::string& follower, const std::string& path,
                                      const PlainValue& value) {
  const bool leader = path == std::to_string(kLeader);
  const bool above = path == std::to_string(kAbove);
  if (!value || !(leader || above) || (follower[0] != 'c' && follower[0] != 'r')) return {};
  if (follower[0] == 'c' && above) return {};
  const auto id = storage::RecordId::Parse(*value);
  if (!id.ok()) return {};
  return NameOf({{follower[0] == 'c' ? kMember : leader ? kEvent : kReply}, *id});
}

std::optional<std::set<std::string>> PlainScopes(const std::string& name, const PlainRecord& record,
                                                 FindRecord find, const void* context) {
  return Scopes(name, record, find, context, 0);
}

}  // namespace chaptersync::simulation
