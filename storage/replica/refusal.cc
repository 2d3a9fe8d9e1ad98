// SPDX-License-Identifier: Apache-2.0
//
// See refusal.h. The parts are made one after another: values, the conflict log, what the hub
// lacks of others' writes, and settlements.
#include "storage/replica/refusal.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace chaptersync::storage {
namespace {

const ConflictEntry* FindEntry(const std::vector<ConflictEntry>& log, const ConflictEntry& entry) {
  const auto it = std::find_if(log.begin(), log.end(), [&](const ConflictEntry& other) {
    return other.path == entry.path && other.lost_version == entry.lost_version;
  });
  return it == log.end() ? nullptr : &*it;
}

// Takes a record apart.
class Surgeon {
 public:
  Surgeon(const RecordKey& key, const Record& record, const RefusedRecord& refusal,
          const OwnIds& ids, const HubsState& hub)
      : record_(record), refusal_(refusal), ids_(ids), hub_(hub) {
    refused_.key = key;
    refused_.reason = refusal.message;
    out_.later.whole = false;
    out_.later.state.seen = record.seen;
  }

  TakenOut Run() {
    TakeValues();
    TakeConflicts();
    TakeLaterElsewhere();
    FindGaps();
    if (hub_.update != nullptr || out_.gaps) ListOthersValues();
    if (out_.gaps) TakeUnknown();
    if (rejected() && hub_.update != nullptr) TakeUnknownConflicts(hub_.update->state);
    SaySettlements();
    out_.listed = std::move(lost_);
    if (refused_.written_at != HybridTime{}) out_.listed.push_back(std::move(refused_));
    return std::move(out_);
  }

 private:
  bool rejected() const { return refusal_.reason == RefusedRecord::Reason::kRejected; }
  bool Known(const Version& version) const { return hub_.seen.Covers(version); }
  bool UnknownKin(const Version& version) const {
    return ids_.Kin(version.replica) && !Known(version);
  }

  RefusedWrite Listed(const CellPath& path, const std::optional<std::string>& value,
                      const std::string& actor, HybridTime written_at) const {
    return {.number = 0,
            .key = refused_.key,
            .cells = {{path, value}},
            .actor = actor,
            .reason = refusal_.message,
            .written_at = written_at};
  }

  // What went along with a refused write, and the hub has not got.
  void ListOthers(const CellPath& path, const std::optional<std::string>& value,
                  const std::string& actor, HybridTime written_at) {
    lost_.push_back(Listed(path, value, actor, written_at));
    lost_.back().reason =
        absl::StrCat("the hub has not got this write of ", actor,
                     ", and refused what was written with it: ", refusal_.message);
  }
  void ListOthers(const ConflictEntry& entry) {
    ListOthers(entry.path, entry.lost_value, entry.lost_actor, entry.lost_version.time);
  }

  void TakeValues() {
    for (const Cell& cell : record_.cells) {
      if (!ids_.Own(cell.version.replica) || Known(cell.version)) {
        out_.others.push_back(cell);
      } else if (cell.learned > refusal_.sequence) {
        out_.later.state.cells.push_back(cell);
      } else {
        refused_.cells.push_back({cell.path, cell.value});
        refused_.actor = cell.actor;
        refused_.written_at = std::max(refused_.written_at, cell.version.time);
        out_.ids.insert(cell.version.replica);
      }
    }
  }

  void TakeConflicts() {
    for (ConflictEntry entry : record_.conflicts) {
      for (const SettlementEntry& s : entry.settlements) {
        if (!UnknownKin(s.version)) continue;
        Count(s);
        out_.ids.insert(s.version.replica);
        refused_.written_at = std::max(refused_.written_at, s.version.time);
      }
      std::erase_if(entry.settlements, [&](const auto& s) { return UnknownKin(s.version); });
      if (UnknownKin(entry.lost_version) && !entry.path.existence()) {
        // A value of this node that lost here, and that the hub has never had: listed by itself,
        // as another may have been written over it.
        lost_.push_back(
            Listed(entry.path, entry.lost_value, entry.lost_actor, entry.lost_version.time));
        out_.ids.insert(entry.lost_version.replica);
        CountUnknown(entry);
      } else {
        out_.later.state.conflicts.push_back(std::move(entry));
      }
    }
  }

  // What was written later under an id of which something leaves is written again under another id
  // (StampLater). Not what another hub may have: the two would meet as two writes, and under its
  // own id it would claim to have seen what was refused. It leaves as well; where that hub has it,
  // it tells of it.
  void TakeLaterElsewhere() {
    std::erase_if(out_.later.state.cells, [&](const Cell& cell) {
      const bool leaves =
          out_.ids.contains(cell.version.replica) && hub_.elsewhere.contains(cell.version);
      if (!leaves) return false;
      lost_.push_back(Listed(cell.path, cell.value, cell.actor, cell.version.time));
      lost_.back().reason = absl::StrCat(
          "written after what was refused, and another hub may have it: ", refusal_.message);
      out_.elsewhere = true;
      return true;
    });
  }

  // A hub that has gone back does not know what others wrote any more, and this node cannot tell
  // what they had replaced: an officer is to see them. The same where the record is not at the
  // hub, once something was taken out: what remains shows less than it had seen, and would hide
  // from the hub what the refused writes had replaced. And where it has left, and is dropped here.
  // And what headquarters has rejected.
  void FindGaps() {
    const bool of_kin = std::any_of(out_.others.begin(), out_.others.end(),
                                    [&](const Cell& cell) { return UnknownKin(cell.version); });
    out_.gaps = hub_.update == nullptr && (rejected() || of_kin || !hub_.seen.empty() ||
                                           !refused_.cells.empty() || !lost_.empty());
  }

  void ListOthersValues() {
    for (const Cell& cell : out_.others) {
      if (!Known(cell.version)) ListOthers(cell.path, cell.value, cell.actor, cell.version.time);
    }
  }

  void TakeUnknown() {
    std::erase_if(out_.later.state.conflicts, [&](const ConflictEntry& entry) {
      const bool known = Known(entry.lost_version);
      if (!known) ListOthers(entry);
      // Of what goes on to the hub the settlements go along.
      if (!known || out_.later.state.cells.empty()) CountUnknown(entry);
      return !known;
    });
    // What has left stays until it is dropped. What the hub has not got at all goes, as all of it
    // is listed; where another hub has it, that one tells of it once more.
    if (!out_.later.state.cells.empty() || hub_.seen.empty()) {
      std::erase_if(out_.others, [&](const Cell& cell) { return !Known(cell.version); });
    }
  }

  // Of what headquarters has rejected no conflict and no settlement either that the hub has not.
  void TakeUnknownConflicts(const Record& theirs) {
    std::erase_if(out_.later.state.conflicts, [&](ConflictEntry& entry) {
      const ConflictEntry* known = FindEntry(theirs.conflicts, entry);
      std::erase_if(entry.settlements, [&](const SettlementEntry& s) {
        const bool here =
            known != nullptr &&
            std::any_of(known->settlements.begin(), known->settlements.end(),
                        [&](const SettlementEntry& t) { return t.version == s.version; });
        if (!here) Count(s);
        return !here;
      });
      if (known != nullptr) return false;
      // What is written over what the hub holds has it in the log.
      const Record& later = out_.later.state;
      const bool displaced =
          entry.path.existence() ? !later.cells.empty() : later.Find(entry.path) != nullptr;
      if (displaced) return false;
      const Cell* stands = theirs.Find(entry.path);
      if (stands == nullptr || stands->version != entry.lost_version) ListOthers(entry);
      return true;
    });
  }

  void Count(const SettlementEntry& settlement) {
    ++settlements_;
    settled_at_ = std::max(settled_at_, settlement.version.time);
    settled_by_ = settlement.actor;
  }
  void CountUnknown(const ConflictEntry& entry) {
    for (const SettlementEntry& s : entry.settlements) {
      if (!Known(s.version)) Count(s);
    }
  }

  void SaySettlements() {
    if (settlements_ == 0) return;
    const bool listed = refused_.written_at != HybridTime{} || lost_.empty();
    if (listed) refused_.written_at = std::max(refused_.written_at, settled_at_);
    if (listed && refused_.actor.empty()) refused_.actor = settled_by_;
    absl::StrAppend(listed ? &refused_.reason : &lost_.front().reason, " (with it went ",
                    settlements_, " settlements of conflicts)");
  }

  const Record& record_;
  const RefusedRecord& refusal_;
  const OwnIds& ids_;
  const HubsState& hub_;
  TakenOut out_;
  RefusedWrite refused_;  // this node's values, in one
  std::vector<RefusedWrite> lost_;
  size_t settlements_ = 0;
  HybridTime settled_at_;
  std::string settled_by_;
};

}  // namespace

TakenOut TakeOut(const RecordKey& key, const Record& record, const RefusedRecord& refusal,
                 const OwnIds& ids, const HubsState& hub) {
  return Surgeon(key, record, refusal, ids, hub).Run();
}

bool HubHasTheRest(const TakenOut& parts, const Seen& hub_seen) {
  return parts.gaps || (!hub_seen.empty() && std::all_of(parts.others.begin(), parts.others.end(),
                                                         [&](const Cell& cell) {
                                                           return hub_seen.Covers(cell.version);
                                                         }));
}

Record WithoutRefused(const Record& record, TakenOut parts, const Seen& hub_seen) {
  Record out;
  out.cells = std::move(parts.others);
  for (Cell& cell : parts.later.state.cells) out.cells.push_back(std::move(cell));
  std::sort(out.cells.begin(), out.cells.end(),
            [](const Cell& a, const Cell& b) { return a.path < b.path; });
  // Where something is missing it claims no more of others than the hub does.
  out.seen = record.seen;
  for (const auto& [id, time] : record.seen.entries()) {
    if (parts.gaps || parts.ids.contains(id)) out.seen.Set(id, std::min(time, hub_seen.Get(id)));
  }
  for (const Cell& cell : out.cells) out.seen.Advance(cell.version);
  out.conflicts = std::move(parts.later.state.conflicts);
  return out;
}

Record OnTopOf(const RecordUpdate& hub_state, const TakenOut& parts, const OwnIds& ids,
               const Finding& finding) {
  const Seen& seen = hub_state.state.seen;
  const std::vector<Cell>& later = parts.later.state.cells;
  Record record = Merge(hub_state.state, parts.later, finding).record;
  const auto kept = [&](const Version& version) {
    return std::any_of(later.begin(), later.end(),
                       [&](const Cell& cell) { return cell.version == version; });
  };
  // What lost to a write that was refused has not lost.
  std::erase_if(record.conflicts, [&](const ConflictEntry& entry) {
    const Cell* cell = record.Find(entry.path);
    // But a deletion has, as long as a later write keeps the record.
    const bool kept_alive = entry.path.existence() && record.live();
    if (cell != nullptr && cell->version == entry.lost_version && kept_alive) return false;
    const bool lost_to_refused = ids.Own(entry.current_version.replica) &&
                                 !seen.Covers(entry.current_version) &&
                                 !kept(entry.current_version);
    return cell != nullptr && seen.Covers(cell->version) && seen.Covers(entry.lost_version) &&
           lost_to_refused && FindEntry(hub_state.state.conflicts, entry) == nullptr;
  });
  // What this node had seen beyond the hub's state it does not hold any more. Entries may tell of
  // what only another hub knows: to have seen one write of a replica is to have seen all that it
  // wrote before.
  record.seen = seen;
  for (const Cell& cell : record.cells) record.seen.Advance(cell.version);
  return record;
}

}  // namespace chaptersync::storage
