// SPDX-License-Identifier: Apache-2.0
//
// The rules of docs/adr/0006-rights.md, as far as they follow from who wrote a value and
// where its record was; see rights_watch.h. One thread.
#include "tests/simulation/rights_watch.h"

#include <algorithm>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "storage/core/status.h"

namespace chaptersync::simulation {
namespace {

constexpr int kDepthMax = 4;  // levels of following

bool Follower(const std::string& record) { return record[0] == 'c' || record[0] == 'r'; }

// The record that a follower follows by a value of it; empty where by none.
std::string LeaderBy(const std::string& record, const std::string& path, const PlainValue& value) {
  const bool above = record[0] == 'r' && path == std::to_string(kAbove);
  if (!Follower(record) || !value || (!above && path != std::to_string(kLeader))) return "";
  const auto id = storage::RecordId::Parse(*value);
  const uint32_t entity = above ? kReply : record[0] == 'c' ? kMember : kEvent;
  return id.ok() ? NameOf({{entity}, *id}) : "";
}

// The records that one follows, by their names.
std::vector<std::string> LeadersOf(const std::string& record, const PlainRecord& state) {
  std::vector<std::string> out;
  for (const auto& [path, cell] : state.cells) {
    std::string leader = LeaderBy(record, path, cell.value);
    if (!leader.empty()) out.push_back(std::move(leader));
  }
  return out;
}

// Whether a chapter may write a record as far as hosts decide: an event for everybody, and what
// follows it, its hosts alone.
bool Hosts(const std::string& record, const PlainRecord& state, const std::string& chapter,
           const std::function<const PlainRecord*(const std::string&)>& find, int depth = 0) {
  if ((record[0] != 'e' && record[0] != 'r') || depth > kDepthMax) return true;
  if (record[0] == 'e') {
    if (state.Value(std::to_string(kChapter)) != kEverybody) return true;
    return state.Value(absl::StrCat(kHosts, "/", chapter)).has_value();
  }
  const std::vector<std::string> leaders = LeadersOf(record, state);
  return leaders.empty() || std::any_of(leaders.begin(), leaders.end(), [&](const auto& leader) {
           const PlainRecord* above = find(leader);
           return above == nullptr || Hosts(leader, *above, chapter, find, depth + 1);
         });
}

bool Meet(const std::set<std::string>& a, const std::set<std::string>& b) {
  return std::any_of(a.begin(), a.end(), [&](const std::string& s) { return b.contains(s); });
}

// Where a record is. None: it was erased.
std::optional<std::set<std::string>> Scopes(
    const std::string& record, const PlainRecord& state,
    const std::function<const PlainRecord*(const std::string&)>& find) {
  const FindRecord call = [](const void* context, const std::string& name) {
    return (*static_cast<const std::function<const PlainRecord*(const std::string&)>*>(context))(
        name);
  };
  return PlainScopes(record, state, call, &find);
}

}  // namespace

void RightsWatch::ForEach(const PlainRecord& record,
                          const std::function<void(const std::string&, const Stamp&)>& act) {
  for (const auto& [path, cell] : record.cells) act(path, cell.stamp);
  for (const PlainEntry& entry : record.log) {
    act(entry.path, entry.lost_stamp);
    for (const Stamp& settled : entry.settled) act(entry.path, settled);
  }
}

void RightsWatch::CheckWriter(size_t site, const std::string& record, const Stamp& stamp,
                              const std::string& what) {
  const auto owner = owners_.find(stamp.replica);
  if (owner == owners_.end()) {
    return fail_(absl::StrCat(computers_.at(site).name, " has ", what, " of ", record,
                              " in the name of replica ", storage::ToHex(stamp.replica),
                              ", which is no computer's"));
  }
  const Computer& writer = computers_.at(owner->second);
  if (writer.hub() || writer.node == computers_.at(site).node) return;
  if (approved_.contains({record, stamp}) || doubted_.contains(record)) return;
  fail_(absl::StrCat(computers_.at(site).name, " has ", what, " of ", record, " that ", writer.name,
                     " wrote, and only headquarters writes it"));
}

void RightsWatch::Writes(const std::string& record, const std::string& path,
                         const PlainValue& value) {
  const std::string leader = LeaderBy(record, path, value);
  if (!leader.empty()) leaders_[record].insert(leader);
}

bool RightsWatch::MayBeErased(const std::string& record, std::set<std::string>& asked) const {
  if (ordered_.contains(record)) return true;
  if (!asked.insert(record).second) return false;
  const auto leaders = leaders_.find(record);
  return leaders != leaders_.end() &&
         std::any_of(leaders->second.begin(), leaders->second.end(),
                     [&](const std::string& leader) { return MayBeErased(leader, asked); });
}

void RightsWatch::Observe(size_t site, const std::string& record, const PlainRecord& now) {
  if (computers_.at(site).hub()) {
    ForEach(now, [&](const std::string& path, const Stamp& stamp) {
      at_hubs_.insert({record, path, stamp});
    });
  }
  if (now.erased) {
    std::set<std::string> asked;
    if (!MayBeErased(record, asked)) {
      fail_(absl::StrCat(record, " is erased at ", computers_.at(site).name,
                         ", and headquarters has not said so"));
    }
    return;
  }
  if (record[0] != 'm') return;
  const std::string standing = std::to_string(kStanding);
  if (const auto cell = now.cells.find(standing); cell != now.cells.end()) {
    CheckWriter(site, record, cell->second.stamp, "a standing");
  }
  for (const PlainEntry& entry : now.log) {
    if (entry.path != standing) continue;
    CheckWriter(site, record, entry.lost_stamp, "a conflict about a standing");
    // Of two findings of one conflict the earlier stands everywhere, and what it says that stood
    // then.
    const Written lost{record, entry.path, entry.lost_stamp};
    const bool known = conflicts_at_hubs_.contains(lost);
    if (computers_.at(site).hub()) conflicts_at_hubs_.insert(lost);
    if (!known && entry.current != "deleted" && entry.current != "restored") {
      CheckWriter(site, record, entry.current_stamp, "a conflict with a standing");
    }
    for (const Stamp& settled : entry.settled) {
      CheckWriter(site, record, settled, "a settlement about a standing");
    }
  }
}

void RightsWatch::Approve(const std::string& record, const Shown& shown) {
  for (const auto& [path, cell] : shown.cells) approved_.insert({record, cell.stamp});
  if (shown.erasure) ordered_.insert(record);
}

void RightsWatch::Approved(size_t hub, const std::string& record, const Shown& shown,
                           const PlainRecord* before, const PlainRecord& now) {
  if (now.erased) return;
  const PlainRecord nothing;
  const PlainRecord& was = before == nullptr ? nothing : *before;
  for (const auto& [path, cell] : now.cells) {
    const auto old = was.cells.find(path);
    const auto same = [&](const PlainCell& other) {
      return other.stamp == cell.stamp && other.value == cell.value;
    };
    if (old != was.cells.end() && same(old->second)) continue;
    const auto known = shown.cells.find(path);
    if (known != shown.cells.end() && same(known->second)) continue;
    fail_(absl::StrCat(computers_.at(hub).name, " takes field '", path, "' of ", record, " = ",
                       ToText(cell.value), ", which is not what was shown when it was approved"));
  }
  // A conflict that both know may have been found earlier there, over another value.
  for (const PlainEntry& entry : now.log) approved_.insert({record, entry.current_stamp});
  if (!shown.conflicts) return;
  for (const PlainEntry& entry : now.log) {
    const auto old = std::find_if(was.log.begin(), was.log.end(), [&](const PlainEntry& e) {
      return e.path == entry.path && e.lost_stamp == entry.lost_stamp;
    });
    for (const Stamp& settled : entry.settled) approved_.insert({record, settled});
    if (old != was.log.end()) continue;
    approved_.insert({record, entry.lost_stamp});
  }
}

void RightsWatch::Taken(size_t hub, const std::string& record, const PlainRecord* before,
                        const PlainRecord& now, const Around& around) {
  std::vector<std::pair<std::string, Stamp>> fresh;
  ForEach(now, [&](const std::string& path, const Stamp& stamp) {
    if (at_hubs_.insert({record, path, stamp}).second) fresh.emplace_back(path, stamp);
  });
  if (now.erased || (before != nullptr && before->erased)) return;
  for (const auto& [path, stamp] : fresh) {
    const auto owner = owners_.find(stamp.replica);
    if (owner == owners_.end() || approved_.contains({record, stamp})) continue;
    const Computer& writer = computers_.at(owner->second);
    if (writer.hub()) continue;
    const auto refuse = [&](const std::string& why) {
      fail_(absl::StrCat(computers_.at(hub).name, " takes field '", path, "' of ", record, " from ",
                         writer.name, ", and ", why));
    };
    // The hub judges by what it had, or by what the same page brought before.
    const PlainRecord& had = before == nullptr ? now : *before;
    if (!Hosts(record, had, writer.chapter, around.before) &&
        !Hosts(record, had, writer.chapter, around.now)) {
      refuse("the record is for everybody, and only its hosts write it");
      continue;
    }
    const std::set<std::string> theirs = {"global", "chapter/" + writer.chapter};
    const auto foreign = [&](const std::string& name, const PlainRecord& state) {
      for (const auto& find : {around.before, around.now}) {
        const auto in = Scopes(name, state, find);
        if (!in || in->empty() || Meet(*in, theirs)) return false;
      }
      return !Meet(around.ever_in(name), theirs);
    };
    if (before != nullptr && foreign(record, *before)) {
      refuse("it was never in that chapter");
      continue;
    }
    // What it follows from now on, and has not before.
    const auto here = Scopes(record, now, around.now);
    for (const std::string& leader : LeadersOf(record, now)) {
      const PlainRecord* above = around.now(leader);
      const PlainRecord* above_before = around.before(leader);
      if (above == nullptr || above_before == nullptr || above->erased) continue;
      if (before != nullptr) {
        const auto led = LeadersOf(record, *before);
        if (std::find(led.begin(), led.end(), leader) != led.end()) continue;
      } else if (here && Meet(*here, theirs)) {
        continue;
      }
      const bool names = path == std::to_string(kLeader) || path == std::to_string(kAbove);
      if (names && foreign(leader, *above)) {
        refuse(absl::StrCat("it would follow ", leader, ", which was never in that chapter"));
      }
    }
    if (before == nullptr) continue;
    const auto was = Scopes(record, *before, around.before);
    const auto was_so = Scopes(record, *before, around.now);
    const auto elsewhere = [&](const auto& in) { return in && !in->empty() && !Meet(*in, theirs); };
    const auto cell = now.cells.find(path);
    const bool stands = cell != now.cells.end() && cell->second.stamp == stamp;
    if (stands && elsewhere(was) && elsewhere(was_so) && here && Meet(*here, theirs)) {
      refuse("it would come back to that chapter from another");
    }
  }
}

}  // namespace chaptersync::simulation
