// SPDX-License-Identifier: Apache-2.0
//
// The plain model; see ledger.h. What a writer had seen is told from what its
// replica showed: the values that stood and those in the conflict log, and all
// that their writers had seen. One thread.
#include "tests/simulation/ledger.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "absl/strings/str_cat.h"

#include "storage/core/status.h"

namespace chaptersync::simulation {
namespace {

std::string Quote(const std::string& record, const std::string& path, const PlainValue& value) {
  return absl::StrCat(record, " field '", path, "' = ", ToText(value));
}

uint64_t Bit(size_t site) { return uint64_t{1} << (site % 64); }

void SeenAt(size_t site, PlainWrite& write) {
  write.seen_at |= Bit(site);
  write.held_at |= Bit(site);
}

constexpr char kDeletionLost[] = "deletion lost to an edit";
constexpr char kDeletionUndone[] = "deletion lost to a restoration";
constexpr char kRestorationLost[] = "restoration lost to a deletion";
constexpr char kEditDeleted[] = "edit lost to a deletion";
constexpr char kEntryLost[] = "map entry lost to another";
constexpr char kMoveLost[] = "move lost to a move";
constexpr char kClearing[] = "clearing and edit";
constexpr char kEditLost[] = "edit lost to an edit";

// Whether a settlement holds there. What was stamped again since has another version: then
// any entry of the value does.
bool Settled(const PlainRecord& record, const PlainWrite& write) {
  if (record.erased) return true;
  bool found = false;
  for (const PlainEntry& entry : record.log) {
    if (entry.path != write.path || entry.lost != write.value) continue;
    if (entry.open && write.closed.contains(entry.lost_stamp)) return false;
    found |= !entry.open;
  }
  return found;
}

// Whether these hold it for certain: every entry that it closed is settled in one of them. Another
// entry of the value may be settled by itself.
bool SettledForCertain(const std::vector<const PlainRecord*>& records, const PlainWrite& write) {
  const auto settled = [&](const Stamp& lost) {
    return std::any_of(records.begin(), records.end(), [&](const PlainRecord* record) {
      return std::any_of(record->log.begin(), record->log.end(), [&](const PlainEntry& entry) {
        return entry.path == write.path && !entry.open && entry.lost_stamp == lost;
      });
    });
  };
  return !write.closed.empty() && std::all_of(write.closed.begin(), write.closed.end(), settled);
}

// What kind of conflict an entry tells of.
const char* KindOf(const PlainEntry& entry) {
  if (entry.path.empty()) {
    if (entry.lost == "restored") return kRestorationLost;
    return entry.current == "restored" ? kDeletionUndone : kDeletionLost;
  }
  if (entry.current == "deleted") return kEditDeleted;
  if (entry.path.find('/') != std::string::npos) return kEntryLost;
  if (entry.path == std::to_string(kChapter) || entry.path == std::to_string(kAbove)) {
    return kMoveLost;
  }
  return entry.lost && entry.current ? kEditLost : kClearing;
}

}  // namespace

std::vector<std::string> ConflictKinds() {
  return {kDeletionLost, kDeletionUndone, kRestorationLost, kEditDeleted,
          kEntryLost,    kMoveLost,       kClearing,        kEditLost};
}

size_t Ledger::Add(const std::string& record, PlainWrite write) {
  ++writes_;
  History& history = histories_[record];
  const size_t number = history.writes.size();
  if (const auto excuse = excused_sites_.find(write.site); excuse != excused_sites_.end()) {
    write.excuse = excuse->second;
  }
  write.when_revoked = (revoked_ & Bit(write.site)) != 0;
  if (write.kind == PlainWrite::Kind::kCell) {
    history.by_value[{write.path, write.value}].push_back(number);
    if (write.unique && write.value) record_of_[*write.value] = record;
  }
  history.writes.push_back(std::move(write));
  return number;
}

void Ledger::NoteStamp(History& history, const Stamp& stamp, size_t number) {
  const PlainWrite& write = history.writes[number];
  history.by_stamp[{write.path, stamp}] = number;
  history.by_version[{write.path, stamp, write.value}] = number;
}

std::optional<size_t> Ledger::Find(const History& history, const std::string& path,
                                   const PlainValue& value, const Stamp& stamp) const {
  const auto known = history.by_version.find({path, stamp, value});
  if (known != history.by_version.end()) return known->second;
  // Stamped again, or made by a call that failed.
  const auto it = history.by_value.find({path, value});
  if (it == history.by_value.end() || it->second.size() != 1) return std::nullopt;
  return it->second.front();
}

WriteSet Ledger::Held(const History& history, const PlainRecord& record) const {
  WriteSet out;
  for (const auto& [path, cell] : record.cells) {
    if (const auto number = Find(history, path, cell.value, cell.stamp)) out.Add(*number);
  }
  for (const PlainEntry& entry : record.log) {
    if (const auto number = Find(history, entry.path, entry.lost, entry.lost_stamp)) {
      out.Add(*number);
    }
  }
  return out;
}

WriteSet Ledger::Visible(const History& history, const PlainRecord& record) const {
  WriteSet out = Held(history, record);
  for (size_t number = 0; number < history.writes.size(); ++number) {
    if (out.Has(number)) out.Unite(history.writes[number].past);
  }
  return out;
}

size_t Ledger::Begin(Writer writer, const std::string& record, const PlainRecord* visible,
                     const std::vector<Cell>& cells) {
  History& history = histories_[record];
  const WriteSet past = visible == nullptr ? WriteSet() : Visible(history, *visible);
  const size_t first = history.writes.size();
  for (const Cell& cell : cells) {
    Add(record, {.kind = PlainWrite::Kind::kCell,
                 .site = writer.site,
                 .path = cell.path,
                 .value = cell.value,
                 .past = past,
                 .unique = cell.unique,
                 .replica = writer.replica});
  }
  return first;
}

size_t Ledger::BeginSettle(Writer writer, const std::string& record, const PlainRecord& visible,
                           const std::string& path, const PlainValue& lost,
                           const std::vector<Cell>& cells) {
  PlainWrite write{.kind = PlainWrite::Kind::kSettle,
                   .site = writer.site,
                   .path = path,
                   .value = lost,
                   .past = Visible(histories_[record], visible)};
  for (const PlainEntry& entry : visible.log) {
    if (entry.path == path && entry.lost == lost && entry.open) {
      write.closed.insert(entry.lost_stamp);
    }
  }
  const size_t first = Add(record, std::move(write));
  Begin(writer, record, &visible, cells);
  return first;
}

size_t Ledger::BeginErase(Writer writer, const std::string& record, const PlainRecord& visible) {
  return Add(record, {.kind = PlainWrite::Kind::kErase,
                      .site = writer.site,
                      .path = {},
                      .value = {},
                      .past = Visible(histories_[record], visible)});
}

void Ledger::Acknowledge(const std::string& record, size_t first, size_t count,
                         const PlainRecord& now) {
  History& history = histories_[record];
  std::optional<Stamp> batch;
  // What follows an erased record is erased with the write that says so.
  const bool erased = now.erased && (record[0] == 'c' || record[0] == 'r');
  for (size_t number = first; number < first + count; ++number) {
    PlainWrite& write = history.writes[number];
    write.acknowledged = write.observed = true;
    if (write.kind == PlainWrite::Kind::kErase) {
      if (!now.erased)
        fail_(absl::StrCat("the erasure of ", record,
                           " was acknowledged and it is"
                           " not erased"));
      continue;
    }
    if (write.kind != PlainWrite::Kind::kCell || erased) continue;
    const auto cell = now.cells.find(write.path);
    if (cell == now.cells.end() || cell->second.value != write.value) {
      fail_(absl::StrCat("acknowledged and not there: ", Quote(record, write.path, write.value)));
      continue;
    }
    write.stamp = cell->second.stamp;
    NoteStamp(history, *write.stamp, number);
    batch = write.stamp;
  }
  if (!batch) return;
  const size_t site = history.writes[first].site;
  const auto [used, fresh] = stamps_.try_emplace(*batch, site, record);
  if (!fresh && !AreTwins(site, used->second.first)) {
    fail_(absl::StrCat("a version was used twice: ", batch->time, "@",
                       storage::ToHex(batch->replica), " for ", used->second.second, " and ",
                       record));
  }
  const auto [owner, first_use] = owner_.try_emplace(batch->replica, site);
  if (!first_use && owner->second != site && !AreTwins(site, owner->second)) {
    fail_(absl::StrCat("two computers write as replica ", storage::ToHex(batch->replica)));
  }
  if (const auto forbidden = forbidden_.find(site);
      forbidden != forbidden_.end() && forbidden->second.contains(batch->replica)) {
    fail_(absl::StrCat("a restored or copied computer writes on as replica ",
                       storage::ToHex(batch->replica)));
  }
}

void Ledger::TakeBack(const std::string& record, size_t first, size_t count) {
  // Numbers stay; the value can come up nowhere.
  History& history = histories_[record];
  for (size_t number = first; number < first + count; ++number) {
    PlainWrite& write = history.writes[number];
    if (write.kind != PlainWrite::Kind::kCell) continue;
    auto& same = history.by_value[{write.path, write.value}];
    std::erase(same, number);
    --writes_;
  }
}

bool Ledger::AreTwins(size_t a, size_t b) const {
  if (a == b) return twins_.contains(a);
  const auto it = twins_.find(a);
  return it != twins_.end() && it->second.contains(b);
}

void Ledger::Twins(size_t site, size_t twin) {
  std::set<size_t> all = {site, twin};
  for (const size_t one : {site, twin}) {
    if (const auto it = twins_.find(one); it != twins_.end()) {
      all.insert(it->second.begin(), it->second.end());
    }
  }
  for (const size_t one : all) twins_[one] = all;
}

void Ledger::MustTakeNewId(size_t site, size_t original) {
  for (const auto& [replica, owner] : owner_) {
    if (owner == original || AreTwins(owner, original)) forbidden_[site].insert(replica);
  }
}

bool Ledger::MayAlarm(const PlainWrite& write) const {
  return !write.excuse.empty() || twins_.contains(write.site) ||
         (write.stamped_again && alarms_allowed_of_.contains(write.site));
}

void Ledger::Judge(const std::string& name, History& history, const PlainEntry& entry) {
  if (!history.judged.insert({entry.path, entry.lost, entry.lost_stamp}).second) return;
  ++conflicts_[KindOf(entry)];
  const auto lost = Find(history, entry.path, entry.lost, entry.lost_stamp);
  const std::string current_path = entry.current == "deleted" ? "" : entry.path;
  auto current = Find(history, current_path, entry.current, entry.current_stamp);
  if (entry.current == "an edit") {
    for (const auto& [where, number] : history.by_stamp) {
      if (where.second == entry.current_stamp) current = number;
    }
  }
  if (!lost || !current) return;
  // A value that several wrote is told by its version alone.
  const auto sure = [&](size_t number, const std::string& path, const Stamp& stamp) {
    return history.writes[number].unique || history.by_stamp.contains({path, stamp});
  };
  if (!sure(*lost, entry.path, entry.lost_stamp)) return;
  if (!sure(*current, history.writes[*current].path, entry.current_stamp)) return;
  const PlainWrite& l = history.writes[*lost];
  const PlainWrite& c = history.writes[*current];
  if (!c.past.Has(*lost) && !l.past.Has(*current)) return;
  // What remains of a refused record may be all that a hub gets that has lost it, and then
  // claims to have seen what the refused writes had replaced.
  const auto refused = refused_.find(name);
  const bool remains = hub_went_back_ && refused != refused_.end();
  // What one hub has refused, another, where it waited as well, can have taken since, with what its
  // author had replaced. It is one of the two, or one of them had seen it.
  const auto of_them = [&](size_t number) {
    return (history.writes[number].seen_at & hubs_) != 0 &&
           (number == *lost || number == *current || l.past.Has(number) || c.past.Has(number));
  };
  const bool elsewhere = std::popcount(hubs_) > 1 && refused != refused_.end() &&
                         std::any_of(refused->second.begin(), refused->second.end(), of_them);
  if (MayAlarm(l) || MayAlarm(c)) {
    ++alarms_allowed_["of what may be lost or is stamped again or of two computers under one id"];
    return;
  }
  if (remains) {
    ++alarms_allowed_["over what remains of a refused record where a hub went back"];
    return;
  }
  if (elsewhere) {
    ++alarms_allowed_["over what one hub refused and another took"];
    return;
  }
  fail_(absl::StrCat("false alarm: ", Quote(name, entry.path, entry.lost), " of site ", l.site,
                     " lost to ", ToText(entry.current), " of site ", c.site, ", which ",
                     c.past.Has(*lost) ? "had seen it" : "it had seen"));
}

void Ledger::Resolve(History& history, const std::string& path, const PlainValue& value,
                     const Stamp& stamp) {
  if (history.by_stamp.contains({path, stamp})) return;
  const auto same = history.by_value.find({path, value});
  if (same == history.by_value.end()) return;
  for (const size_t number : same->second) {
    PlainWrite& write = history.writes[number];
    if (write.acknowledged || write.stamp || write.replica != stamp.replica) continue;
    write.stamp = stamp;
    write.observed = true;
    NoteStamp(history, stamp, number);
    return;
  }
}

void Ledger::FollowStamps(History& history, const PlainRecord& before, const PlainRecord& now) {
  const auto follow = [&](const std::string& path, const Stamp& old, const Stamp& fresh) {
    const auto known = history.by_stamp.find({path, old});
    if (known == history.by_stamp.end()) return;
    NoteStamp(history, fresh, known->second);
    history.writes[known->second].stamped_again = true;
  };
  for (const auto& [path, cell] : now.cells) {
    if (history.by_stamp.contains({path, cell.stamp})) continue;
    const auto old = before.cells.find(path);
    if (old == before.cells.end() || old->second.value != cell.value) continue;
    follow(path, old->second.stamp, cell.stamp);
  }
  for (const auto& [where, number] : history.by_stamp) {
    const auto claims = [&stamp = where.second](const PlainRecord& record) {
      const auto known = record.seen.find(stamp.replica);
      return known != record.seen.end() && known->second >= stamp.time;
    };
    if (claims(before) && !claims(now)) history.writes[number].stamped_again = true;
  }
  const auto in_log = [](const PlainRecord& record, const PlainEntry& entry) {
    return std::any_of(record.log.begin(), record.log.end(), [&](const PlainEntry& e) {
      return e.path == entry.path && e.lost_stamp == entry.lost_stamp;
    });
  };
  for (const PlainEntry& entry : now.log) {
    if (history.by_stamp.contains({entry.path, entry.lost_stamp})) continue;
    for (const PlainEntry& old : before.log) {
      if (old.path != entry.path || old.lost != entry.lost || in_log(now, old)) continue;
      follow(entry.path, old.lost_stamp, entry.lost_stamp);
    }
    // Stamped again, and lost in the same batch.
    const auto old = before.cells.find(entry.path);
    if (old != before.cells.end() && old->second.value == entry.lost &&
        old->second.stamp.time == entry.lost_stamp.time) {
      follow(entry.path, old->second.stamp, entry.lost_stamp);
    }
  }
}

void Ledger::NoteBack(size_t site, History& history, const PlainRecord& before,
                      const PlainRecord& now) {
  std::optional<WriteSet> held;
  for (const auto& [path, cell] : now.cells) {
    const auto old = before.cells.find(path);
    if (old != before.cells.end() && old->second.stamp == cell.stamp) continue;
    const auto number = Find(history, path, cell.value, cell.stamp);
    if (!number) continue;
    if (!held) held = Held(history, now);
    PlainWrite& write = history.writes[*number];
    for (size_t other = 0; other < history.writes.size(); ++other) {
      PlainWrite& one = history.writes[other];
      if (one.path != path) continue;
      if (write.past.Has(other)) one.back_at &= ~Bit(site);
      const bool was_here = ((one.seen_at | Bit(one.site)) & Bit(site)) != 0;
      if (was_here && one.past.Has(*number) && !held->Has(other)) write.back_at |= Bit(site);
    }
  }
}

void Ledger::Observe(size_t site, const std::string& name, const PlainRecord& now) {
  History& history = histories_[name];
  SiteMemory& memory = memory_[site];
  for (const auto& [path, cell] : now.cells) Resolve(history, path, cell.value, cell.stamp);
  for (const PlainEntry& entry : now.log) {
    Resolve(history, entry.path, entry.lost, entry.lost_stamp);
  }
  if (const auto before = memory.last.find(name); before != memory.last.end()) {
    FollowStamps(history, before->second, now);
  }
  NoteBack(site, history, memory.last[name], now);
  memory.last[name] = now;
  bool& erased = memory.erased[name];
  if (erased && !now.erased) fail_(absl::StrCat(name, " was erased and is back"));
  erased = now.erased;
  if (now.erased) {
    memory.settled.erase(name);
    return;
  }
  for (const auto& [path, cell] : now.cells) {
    const auto [known, fresh] = history.content.try_emplace({path, cell.stamp}, cell.value);
    // Of two computers that believe to be one, each may have made its own.
    const auto owner = owner_.find(cell.stamp.replica);
    const bool twins = owner != owner_.end() && twins_.contains(owner->second);
    if (!fresh && known->second != cell.value && !twins) {
      fail_(absl::StrCat("one version has two values: ", Quote(name, path, cell.value), " and ",
                         ToText(known->second)));
    }
    const auto number = Find(history, path, cell.value, cell.stamp);
    if (number) {
      PlainWrite& write = history.writes[*number];
      write.observed = true;
      SeenAt(site, write);
      if (write.unique && write.when_revoked && (revoked_ & Bit(site)) == 0) {
        fail_(absl::StrCat("site ", site, " has what site ", write.site,
                           " wrote when it was revoked: ", Quote(name, path, cell.value)));
      }
    }
    if (!number && !history.by_value.contains({path, cell.value})) {
      fail_(absl::StrCat("nobody wrote ", Quote(name, path, cell.value)));
    }
  }
  auto& settled = memory.settled[name];
  for (const PlainEntry& entry : now.log) {
    const std::pair<std::string, Stamp> id{entry.path, entry.lost_stamp};
    const auto lost = Find(history, entry.path, entry.lost, entry.lost_stamp);
    if (lost) SeenAt(site, history.writes[*lost]);
    if (!lost && !history.by_value.contains({entry.path, entry.lost})) {
      fail_(absl::StrCat("nobody wrote what was lost: ", Quote(name, entry.path, entry.lost)));
    }
    const bool again = lost && history.writes[*lost].stamped_again &&
                       MayAlarm(history.writes[*lost]);  // the same conflict, found once more
    // A settlement that the hub refused was never one.
    if (entry.open && settled.contains(id) && !again &&
        !history.refused_settlements.contains(site)) {
      fail_(
          absl::StrCat("a settled conflict is open again: ", Quote(name, entry.path, entry.lost)));
    }
    if (!entry.open) settled.insert(id);
    Judge(name, history, entry);
  }
}

const PlainRecord* Ledger::Last(size_t site, const std::string& record) const {
  const auto memory = memory_.find(site);
  if (memory == memory_.end()) return nullptr;
  const auto last = memory->second.last.find(record);
  return last == memory->second.last.end() ? nullptr : &last->second;
}

std::vector<std::string> Ledger::LastBut(size_t site, const std::set<std::string>& held) const {
  std::vector<std::string> out;
  const auto memory = memory_.find(site);
  if (memory == memory_.end()) return out;
  for (const auto& [name, record] : memory->second.last) {
    if (!held.contains(name)) out.push_back(name);
  }
  return out;
}

void Ledger::ObserveGone(size_t site, const std::string& record) {
  for (PlainWrite& write : histories_[record].writes) write.held_at &= ~Bit(site);
  SiteMemory& memory = memory_[site];
  memory.last.erase(record);
  memory.erased.erase(record);
  memory.settled.erase(record);
}

std::vector<size_t> Ledger::MeantBy(size_t site, const std::string& record, const std::string& path,
                                    const PlainValue& value) const {
  const auto history = histories_.find(record);
  if (history == histories_.end()) return {};
  const auto it = history->second.by_value.find({path, value});
  if (it == history->second.by_value.end()) return {};
  // A value that several wrote is the list's own computer's, or was there.
  std::vector<size_t> numbers;
  for (const size_t number : it->second) {
    const PlainWrite& write = history->second.writes[number];
    if (write.site == site || (write.seen_at & Bit(site)) != 0) numbers.push_back(number);
  }
  return numbers;
}

void Ledger::Refused(size_t site, const std::string& record, const std::string& path,
                     const PlainValue& value) {
  for (const size_t number : MeantBy(site, record, path, value)) {
    refused_[record].insert(number);
    lists_[site][record].insert(number);
  }
}

void Ledger::TakeOff(size_t site, const std::string& record, const std::string& path,
                     const PlainValue& value) {
  for (const size_t number : MeantBy(site, record, path, value)) taken_off_[record].insert(number);
}

void Ledger::ExcuseRefused(size_t site, const std::string& why) {
  for (const auto& [record, numbers] : lists_[site]) {
    for (const size_t number : numbers) gone_with_lists_[record].try_emplace(number, why);
  }
}

void Ledger::RefusedSettlements(size_t site, const std::string& record) {
  // As it was before the refusal was heard.
  const auto& settled = memory_[site].settled[record];
  histories_[record].refused_settlements[site].insert(settled.begin(), settled.end());
}

void Ledger::GoBack(size_t site, const PlainRecords& records) {
  SiteMemory& memory = memory_[site];
  for (auto& [name, history] : histories_) {
    const auto record = records.find(name);
    const WriteSet held = record == records.end() ? WriteSet() : Held(history, record->second);
    for (size_t number = 0; number < history.writes.size(); ++number) {
      if (!held.Has(number)) history.writes[number].held_at &= ~Bit(site);
    }
  }
  memory = {};
  memory.last = records;
  for (const auto& [name, record] : records) {
    memory.erased[name] = record.erased;
    for (const PlainEntry& entry : record.log) {
      if (!entry.open) memory.settled[name].insert({entry.path, entry.lost_stamp});
    }
  }
}

void Ledger::Excuse(const PlainRecords& records, const std::vector<const PlainRecords*>& others,
                    const std::string& why) {
  for (const auto& [name, record] : records) {
    History& history = histories_[name];
    const WriteSet had = Visible(history, record);
    WriteSet have;
    std::vector<const PlainRecord*> states;
    for (const PlainRecords* other : others) {
      const auto it = other->find(name);
      if (it == other->end()) continue;
      states.push_back(&it->second);
      have.Unite(Visible(history, it->second));
    }
    const bool erased_elsewhere =
        std::any_of(states.begin(), states.end(), [](const PlainRecord* r) { return r->erased; });
    for (size_t number = 0; number < history.writes.size(); ++number) {
      PlainWrite& write = history.writes[number];
      if (!write.excuse.empty()) continue;
      bool lost = false;
      switch (write.kind) {
        case PlainWrite::Kind::kCell:
          lost = (record.erased || Stands(history, had, number)) &&
                 !Stands(history, have, number) && !erased_elsewhere;
          break;
        case PlainWrite::Kind::kSettle:
          lost = Settled(record, write) && !erased_elsewhere && !SettledForCertain(states, write);
          break;
        case PlainWrite::Kind::kErase:
          lost = record.erased && !erased_elsewhere;
          break;
      }
      if (lost) write.excuse = why;
    }
  }
}

bool Ledger::Stands(const History& history, const WriteSet& set, size_t number) const {
  if (set.Has(number)) return true;
  const std::vector<size_t> equals = EqualsOf(history, number);
  return std::any_of(equals.begin(), equals.end(), [&](size_t n) { return set.Has(n); });
}

std::vector<size_t> Ledger::EqualsOf(const History& history, size_t number) const {
  const PlainWrite& write = history.writes[number];
  std::vector<size_t> equals;
  if (write.kind != PlainWrite::Kind::kCell || write.unique) return equals;
  const auto same = history.by_value.find({write.path, write.value});
  if (same == history.by_value.end()) return equals;
  for (const size_t other : same->second) {
    const PlainWrite& twin = history.writes[other];
    if (other == number || twin.past.Has(number)) continue;
    // Under its later stamp it is another write, that came from a backup.
    const bool again = twin.stamped_again && alarms_allowed_of_.contains(twin.site);
    if (write.past.Has(other) && !again) continue;
    if (twin.acknowledged || twin.observed) equals.push_back(other);
  }
  return equals;
}

std::string Ledger::EndingAlone(const History& history, size_t number,
                                const PlainRecord* record) const {
  const PlainWrite& write = history.writes[number];
  if (record != nullptr && record->erased) return "erased";
  if (record == nullptr || write.kind == PlainWrite::Kind::kErase) return "";
  if (write.kind == PlainWrite::Kind::kSettle) return Settled(*record, write) ? "settled" : "";
  // A version that is known to be another write's tells of that one alone.
  const auto is = [&](const PlainValue& value, const Stamp& stamp) {
    if (value != write.value) return false;
    const auto known = history.by_stamp.find({write.path, stamp});
    return known == history.by_stamp.end() || known->second == number ||
           history.writes[known->second].value != value;
  };
  for (const PlainEntry& entry : record->log) {
    if (entry.path == write.path && is(entry.lost, entry.lost_stamp)) return "in the conflict log";
  }
  const auto cell = record->cells.find(write.path);
  if (cell == record->cells.end() || !is(cell->second.value, cell->second.stamp)) return "";
  if (write.path.empty() && write.value == "deleted") return record->Live() ? "" : "current";
  return record->Live() || write.path.empty() ? "current" : "";
}

std::set<size_t> Ledger::GoneWithLeader(const std::string& name, const History& history,
                                        const PlainRecords& records) const {
  std::set<size_t> sites;
  const auto refused = refused_.find(name);
  if (refused == refused_.end()) return sites;
  // A hub that went back may have lost the erasure since.
  const auto erased = [&](const std::string& leader) {
    const auto record = records.find(leader);
    if (record != records.end() && record->second.erased) return true;
    const auto known = histories_.find(leader);
    return known != histories_.end() &&
           std::any_of(known->second.writes.begin(), known->second.writes.end(),
                       [](const PlainWrite& w) { return w.kind == PlainWrite::Kind::kErase; });
  };
  for (const size_t number : refused->second) {
    const PlainWrite& write = history.writes[number];
    const auto leader = LeaderName(name, write.path, write.value);
    if (leader && erased(*leader)) sites.insert(write.site);
  }
  return sites;
}

std::vector<Ledger::End> Ledger::Endings(const std::string& name, const History& history,
                                         const PlainRecord* record,
                                         const std::set<size_t>& gone_with_leader) const {
  const size_t count = history.writes.size();
  std::vector<End> ends(count);
  const auto among = [&](const Writes& writes, size_t number) {
    const auto it = writes.find(name);
    return it != writes.end() && it->second.contains(number);
  };
  const auto gone = gone_with_lists_.find(name);
  for (size_t number = 0; number < count; ++number) {
    const PlainWrite& write = history.writes[number];
    End& end = ends[number];
    end.how = EndingAlone(history, number, record);
    end.there = !end.how.empty();
    if (end.there) continue;
    const bool listed = among(taken_off_, number) ||
                        std::any_of(lists_.begin(), lists_.end(),
                                    [&](const auto& l) { return among(l.second, number); });
    const auto id = excused_ids_.find(write.stamp ? write.stamp->replica : write.replica);
    if (listed) {
      end.how = "refused and shown";
    } else if (gone_with_leader.contains(write.site) && among(refused_, number)) {
      end.how = "erased";
    } else if (!write.excuse.empty()) {
      end.excuse = write.excuse;
    } else if (id != excused_ids_.end()) {
      end.excuse = id->second;
    } else if (gone != gone_with_lists_.end() && gone->second.contains(number)) {
      end.excuse = gone->second.at(number);
    }
  }
  // The better of two endings.
  const auto rank = [](const End& end) {
    return end.there ? 3 : !end.how.empty() ? 2 : !end.excuse.empty() ? 1 : 0;
  };
  const auto restored_between = [&](size_t deletion, size_t edit) {
    for (size_t number = deletion + 1; number < edit; ++number) {
      const PlainWrite& write = history.writes[number];
      if (write.path.empty() && write.value == "restored" && write.past.Has(deletion) &&
          history.writes[edit].past.Has(number)) {
        return true;
      }
    }
    return false;
  };
  for (bool more = true; more;) {
    more = false;
    for (size_t number = count; number-- > 0;) {
      const PlainWrite& write = history.writes[number];
      if (ends[number].there || write.kind != PlainWrite::Kind::kCell) continue;
      // It stands still, in a record that is deleted.
      const bool deleted = !write.path.empty() && record != nullptr && !record->Live() &&
                           record->Value(write.path) == write.value;
      const bool undone = write.path.empty() && write.value == "deleted" && record != nullptr &&
                          record->Live() && record->Value("") == write.value;
      End best = ends[number];
      const auto take = [&](const End& end, const char* how) {
        if (rank(end) <= rank(best)) return;
        best = end;
        if (!best.how.empty() && how != nullptr) best.how = how;
      };
      // What replaced it stands for it. What was refused, or may be lost, does so only where
      // nobody else had it: it must not take anything from others. What was hidden under an id
      // that two used, after it had replaced this at a hub, does so all the same: it is its own
      // loss that is allowed.
      std::vector<std::pair<size_t, const char*>> replacing;
      uint64_t others = write.held_at & ~revoked_;
      for (size_t other = number + 1; other < count; ++other) {
        const PlainWrite& by = history.writes[other];
        if (by.kind != PlainWrite::Kind::kCell || !by.past.Has(number)) continue;
        if (by.path == write.path && rank(ends[other]) > 0) {
          // Nor from where it is, or is shown: it has replaced the other there, unless that came
          // back.
          uint64_t at = Bit(by.site) | by.held_at;
          for (const auto& [site, listed] : lists_) {
            if (among(listed, other)) at |= Bit(site);
          }
          others &= ~(at & ~write.back_at);
        }
        if (by.path == write.path) replacing.emplace_back(other, "replaced knowingly");
        // An edit that came after a restoration keeps the record also where that was refused.
        if (undone && ends[other].there && restored_between(number, other)) {
          replacing.emplace_back(other, "undone knowingly");
        }
        if (deleted && by.path.empty() && by.value == "deleted") {
          replacing.emplace_back(other, "deleted knowingly");
        }
      }
      for (const auto& [other, how] : replacing) {
        const PlainWrite& by = history.writes[other];
        const bool hidden = by.path == write.path &&
                            excused_ids_.contains(by.stamp ? by.stamp->replica : by.replica) &&
                            (by.held_at & hubs_ & ~write.back_at) != 0;
        if (ends[other].there || others == 0 || hidden) take(ends[other], how);
      }
      for (const size_t other : EqualsOf(history, number)) take(ends[other], nullptr);
      if (rank(best) <= rank(ends[number])) continue;
      ends[number] = best;
      more = true;
    }
  }
  return ends;
}

void Ledger::CheckAll(const PlainRecords& records) {
  for (const auto& [name, history] : histories_) {
    const auto it = records.find(name);
    const PlainRecord* record = it == records.end() ? nullptr : &it->second;
    if (record != nullptr && record->erased) {
      const bool ordered =
          std::any_of(history.writes.begin(), history.writes.end(),
                      [](const PlainWrite& w) { return w.kind == PlainWrite::Kind::kErase; });
      // A follower goes with its leader.
      const bool follower = name[0] == 'c' || name[0] == 'r';
      if (!ordered && !follower) fail_(absl::StrCat(name, " is erased and nobody erased it"));
    }
    std::vector<End> ends = Endings(name, history, record, GoneWithLeader(name, history, records));
    for (size_t number = 0; number < history.writes.size(); ++number) {
      const PlainWrite& write = history.writes[number];
      if (!write.acknowledged) continue;
      End& end = ends[number];
      if (end.how.empty() && write.kind == PlainWrite::Kind::kSettle &&
          WentWithRefusal(history, write)) {
        end.how = "refused and shown";
      }
      if (!end.how.empty()) {
        ++endings_[end.how];
        continue;
      }
      if (!end.excuse.empty()) {
        ++losses_allowed_[end.excuse];
        continue;
      }
      if (write.kind == PlainWrite::Kind::kSettle && FoundAgain(history, write)) {
        ++alarms_allowed_["of a settled conflict that is found again"];
        continue;
      }
      const char* kind = write.kind == PlainWrite::Kind::kCell     ? "a write"
                         : write.kind == PlainWrite::Kind::kSettle ? "a settlement"
                                                                   : "an erasure";
      fail_(absl::StrCat(kind, " was lost: ", Quote(name, write.path, write.value),
                         ", made at site ", write.site, "; the hub has ",
                         record == nullptr ? "no such record" : record->Text()));
    }
  }
}

// Its own computer's, or what others had settled and the hub has lost, where the one whose
// push was refused had it.
bool Ledger::WentWithRefusal(const History& history, const PlainWrite& settlement) const {
  if (history.refused_settlements.contains(settlement.site)) return true;
  return std::any_of(history.refused_settlements.begin(), history.refused_settlements.end(),
                     [&](const auto& refuser) {
                       return std::any_of(settlement.closed.begin(), settlement.closed.end(),
                                          [&](const Stamp& lost) {
                                            return refuser.second.contains({settlement.path, lost});
                                          });
                     });
}

bool Ledger::FoundAgain(const History& history, const PlainWrite& settlement) const {
  const auto lost = history.by_value.find({settlement.path, settlement.value});
  return lost != history.by_value.end() &&
         std::any_of(lost->second.begin(), lost->second.end(), [&](size_t number) {
           const PlainWrite& write = history.writes[number];
           return write.stamped_again && MayAlarm(write);
         });
}

std::string Ledger::RecordOf(const std::string& unique_value) const {
  const auto it = record_of_.find(unique_value);
  return it == record_of_.end() ? "" : it->second;
}

}  // namespace chaptersync::simulation
