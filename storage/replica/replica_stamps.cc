// SPDX-License-Identifier: Apache-2.0
//
// Own stamps that a hub does not take: they wait until its clock has come up, or are made
// again under a new replica id.
#include <algorithm>
#include <tuple>

#include "absl/cleanup/cleanup.h"

#include "storage/core/limits.h"
#include "storage/core/planted.h"
#include "storage/core/record_codec.h"
#include "storage/core/status.h"
#include "storage/replica/keys.h"
#include "storage/replica/meta_values.h"
#include "storage/replica/replica.h"
#include "storage/replica/transaction.h"

namespace chaptersync::storage {

absl::StatusOr<bool> Replica::SendWaiting(const PeerIdentity& hub, HybridTime limit) {
  std::vector<ChangeEvent> events;
  bool restart = false;
  {
    absl::MutexLock lock(&mutex_);
    const std::string prefix(1, keys::kWaitingKind);
    auto snapshot = engine_.NewSnapshot();
    auto it = snapshot->NewIterator(Table::kMeta, prefix, keys::PrefixEnd(prefix));
    it->SeekToFirst();
    if (!it->Valid()) {
      CHAPTER_RETURN_IF_ERROR(it->status());
      return false;
    }
    Transaction transaction(engine_, options_);
    CHAPTER_ASSIGN_OR_RETURN(const AheadLimits limits, LimitsOf(*snapshot, hub.replica, limit));
    for (size_t sent = 0; it->Valid(); it->Next()) {
      CHAPTER_ASSIGN_OR_RETURN(const WaitingValue waiting, DecodeWaiting(it->value()));
      if (waiting.hub != hub.node || waiting.what != WaitsFor::kClock) continue;
      if (sent == kBatchWritesMax) break;
      const RecordKey key = Reader(it->key().substr(1)).Key();
      StoredRecord* held = transaction.Find(key);
      if (held != nullptr && held->record.seen.Highest() > limit) {
        Seen others = held->record.seen;
        for (const ReplicaId& id : identity_.own) others.Set(id, {});
        // Where only this node's own stamps are ahead now they can be made again.
        if (others.Highest() > limit || !ToStampAgain(held->record, limits)) continue;
        restart = true;
      }
      transaction.batch().Delete(Table::kMeta, it->key());
      if (held == nullptr) continue;
      held->meta.origin = {};
      transaction.Touch(key);
      ++sent;
    }
    CHAPTER_RETURN_IF_ERROR(it->status());
    if (transaction.batch().empty() && !transaction.anything_touched()) return false;
    absl::Cleanup undo = [this, before = identity_, clock_before = clock_]()
                             ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
                               identity_ = before;
                               clock_ = clock_before;
                             };
    if (restart) {
      const ReplicaId old_id = identity_.replica;
      NewIdentity(false);
      // Under a new id no stamp comes up a second time.
      if (clock_.last() > limit) clock_ = HybridClock(HybridTime::FromWall(WallMs()));
      size_t again = 0;
      CHAPTER_RETURN_IF_ERROR(StampAgain(transaction, {}, limits, old_id, false, again));
      transaction.batch().Put(Table::kMeta, keys::kIdentity, EncodeIdentity());
    }
    CHAPTER_RETURN_IF_ERROR(transaction.Place());
    CHAPTER_RETURN_IF_ERROR(Commit(transaction));
    std::move(undo).Cancel();
    events = transaction.events();
  }
  CHAPTER_RETURN_IF_ERROR(Finish(events));
  return restart;
}

void IdRange::KeepOrder(const Record& record, const std::set<Version>& old) {
  const auto look = [&](const Version& version) {
    if (old.contains(version)) return;
    const auto first = old.lower_bound({version.time, {}});
    for (auto it = first; it != old.end() && it->time == version.time; ++it) {
      Keep(it->replica, version.replica);
    }
  };
  for (const Cell& cell : record.cells) look(cell.version);
  for (const ConflictEntry& entry : record.conflicts) {
    look(entry.lost_version);
    look(entry.current_version);
    for (const SettlementEntry& settlement : entry.settlements) look(settlement.version);
  }
}

absl::StatusOr<Replica::AheadLimits> Replica::LimitsOf(const Snapshot& snapshot, ReplicaId hub,
                                                       HybridTime limit) const {
  // What a hub has acknowledged others may have seen, also what another hub was told and did not
  // answer; and under a new stamp it could show as a conflict: where waiting helps, it waits.
  CHAPTER_ASSIGN_OR_RETURN(const auto by_hub, ReadAcknowledged(snapshot));
  HybridTime acknowledged;
  for (const auto& [replica, value] : by_hub) acknowledged = std::max(acknowledged, value.own_high);
  const HybridTime elsewhere = KnownElsewhere(by_hub, hub);
  HybridTime again_above = limit;
  if (acknowledged.wall_ms() <= limit.wall_ms() + kAcknowledgedAheadMsMax) {
    again_above = std::max(again_above, acknowledged);
  }
  // Nobody may have it, to bring this hub's clock up to it: only its wall clock ends the wait. This
  // computer's is corrected by it.
  if (elsewhere.wall_ms() <= WallMs() + kAcknowledgedAheadMsMax) {
    again_above = std::max(again_above, elsewhere);
  }
  // Above what a record has to wait for, its own stamps are made again no lower than that: the
  // second more is for the ticks of many writes.
  const uint64_t with_others_ms =
      std::max(limit.wall_ms() + kAcknowledgedAheadMsMax, again_above.wall_ms()) + 1000;
  return AheadLimits{limit, again_above, HybridTime::FromWall(with_others_ms)};
}

bool Replica::ToStampAgain(const Record& record, const AheadLimits& limits) const {
  HybridTime own;
  HybridTime stays;
  for (const auto& [replica, time] : record.seen.entries()) {
    HybridTime& highest = Own(replica) ? own : stays;
    highest = std::max(highest, time);
  }
  // Above what others have stamped ahead no stamp is any better.
  if (own <= limits.again_above || stays > limits.again_above) return false;
  const auto look = [&](const Version& version) ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    if (version.time <= limits.again_above && Own(version.replica)) {
      stays = std::max(stays, version.time);
    }
  };
  for (const Cell& cell : record.cells) look(cell.version);
  for (const ConflictEntry& entry : record.conflicts) {
    look(entry.lost_version);
    for (const SettlementEntry& s : entry.settlements) look(s.version);
  }
  return stays <= limits.limit || own > limits.with_others;
}

HybridTime Replica::KnownElsewhere(const std::map<ReplicaId, AcknowledgedValue>& acknowledged,
                                   ReplicaId hub) const {
  HybridTime highest;
  for (const auto& [other, value] : acknowledged) {
    if (other != hub) highest = std::max({highest, value.own_high, value.told_high});
  }
  for (const auto& [other, own_high] : told_) {
    if (other != hub) highest = std::max(highest, own_high);
  }
  return highest;
}

absl::Status Replica::NoteTold(const PeerIdentity& hub, const std::vector<FeedItem>& items) {
  HybridTime own_high;
  for (const FeedItem& item : items) own_high = std::max(own_high, item.own_high);
  if (options_.hub || !hub.hub || own_high == HybridTime{}) return absl::OkStatus();
  uint64_t written = 0;
  {
    absl::MutexLock lock(&mutex_);
    HybridTime& told = told_[hub.replica];
    told = std::max(told, own_high);
    if (own_high.wall_ms() <= WallMs() + kToldAheadMsMin) return absl::OkStatus();
    AcknowledgedValue value;
    if (auto bytes = engine_.Get(Table::kMeta, keys::Acknowledged(hub.replica)); bytes.ok()) {
      value = DecodeAcknowledged(*bytes);
    } else if (!absl::IsNotFound(bytes.status())) {
      return bytes.status();
    }
    if (value.hub_epoch != hub.epoch) value = {.hub_epoch = hub.epoch};
    if (own_high <= value.told_high) {
      if (told_durable_ == told_written_) return absl::OkStatus();
    } else {
      value.told_high = own_high;
      WriteBatch batch;
      batch.Put(Table::kMeta, keys::Acknowledged(hub.replica), Encode(value));
      CHAPTER_RETURN_IF_ERROR(engine_.Write(batch));
      ++told_written_;
    }
    written = told_written_;
  }
  CHAPTER_RETURN_IF_ERROR(engine_.Sync());
  absl::MutexLock lock(&mutex_);
  told_durable_ = std::max(told_durable_, written);
  return absl::OkStatus();
}

absl::StatusOr<WaitingCounts> Replica::CountWaiting(const NodeId& hub) const {
  WaitingCounts count;
  const std::string prefix(1, keys::kWaitingKind);
  auto snapshot = engine_.NewSnapshot();
  auto it = snapshot->NewIterator(Table::kMeta, prefix, keys::PrefixEnd(prefix));
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    CHAPTER_ASSIGN_OR_RETURN(const WaitingValue waiting, DecodeWaiting(it->value()));
    if (waiting.hub != hub) continue;
    ++(waiting.what == WaitsFor::kClock ? count.ahead : count.approval);
  }
  CHAPTER_RETURN_IF_ERROR(it->status());
  return count;
}

// What is to be made again; those of the present id above the limit may stay.
absl::StatusOr<Replica::OwnStamps> Replica::FindOwnStamps(const AheadLimits& limits) const {
  OwnStamps found;
  if (clock_.last() <= limits.limit) return found;
  // Also of records that are not here any more.
  found.stay = identity_.last_stamp > limits.limit;
  auto snapshot = engine_.NewSnapshot();
  auto it = snapshot->NewIterator(Table::kRecord, "", "");
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    CHAPTER_ASSIGN_OR_RETURN(const StoredRecord stored, DecodeStored(it->value()));
    found.again |= ToStampAgain(stored.record, limits);
  }
  CHAPTER_RETURN_IF_ERROR(it->status());
  return found;
}

// Own writes get the present replica id: with `keep_times` all that nobody else knows,
// which is what came up after `after` in the feed or is stamped above the limit, under
// their old clock readings; else those that are to be made again, in their old order, with
// new ones.
// What was written under the old id above the limit these records then have not seen.
absl::Status Replica::StampAgain(Transaction& transaction, Sequence after,
                                 const AheadLimits& limits, ReplicaId old_id, bool keep_times,
                                 size_t& count) {
  const HybridTime limit = keep_times ? limits.limit : limits.again_above;
  std::map<Version, std::vector<RecordKey>> old_writes;
  std::vector<RecordKey> touched;
  const Scope all = Scope::All();
  auto snapshot = engine_.NewSnapshot();
  auto it = snapshot->NewIterator(Table::kFeed, keys::Feed(all, {keep_times ? after.value + 1 : 0}),
                                  keys::PrefixEnd(keys::FeedPrefix(all)));
  // Of a clone only the id that it shares; of a wrong clock every id used before.
  std::set<ReplicaId> old_ids = {old_id};
  if (!keep_times) old_ids.insert(identity_.own.begin(), identity_.own.end());
  if (!IsPlanted(Planted::kStampedAgainUnderOldId)) old_ids.erase(identity_.replica);
  // Others may know what is below the limit; but a cell that has a later one of its record
  // behind it may not have been told.
  const auto affected = [&](const Version& version, std::optional<Sequence> learned) {
    return old_ids.contains(version.replica) &&
           (version.time > limit || (keep_times && learned && *learned > after));
  };
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    const RecordKey key = Reader(it->value()).Key();
    const StoredRecord* stored = transaction.Find(key);
    if (stored == nullptr) continue;
    std::set<Version> versions;
    HybridTime kept;  // the highest own stamp that stays
    const auto look = [&](const Version& version, std::optional<Sequence> learned) {
      if (affected(version, learned)) {
        versions.insert(version);
      } else if (old_ids.contains(version.replica)) {
        kept = std::max(kept, version.time);
      }
    };
    for (const Cell& cell : stored->record.cells) look(cell.version, cell.learned);
    for (const ConflictEntry& entry : stored->record.conflicts) {
      for (const SettlementEntry& s : entry.settlements) look(s.version, std::nullopt);
      if (!keep_times) look(entry.lost_version, std::nullopt);
    }
    const bool seen_above = std::any_of(old_ids.begin(), old_ids.end(), [&](ReplicaId id) {
      return stored->record.seen.Get(id) > limit;
    });
    if (versions.empty() && !seen_above) continue;
    Seen others = stored->record.seen;
    for (const ReplicaId& id : old_ids) others.Set(id, {});
    if (!keep_times && !ToStampAgain(stored->record, limits)) continue;
    touched.push_back(key);
    for (const Version& version : versions) old_writes[version].push_back(key);
    if (!keep_times) clock_.Observe(std::max(kept, others.Highest()));
  }
  CHAPTER_RETURN_IF_ERROR(it->status());
  if (keep_times) {
    std::set<Version> old;
    for (const auto& [version, where] : old_writes) old.insert(version);
    IdRange between;
    for (const RecordKey& key : touched) between.KeepOrder(transaction.Find(key)->record, old);
    if (!between.Contains(identity_.replica)) {
      identity_.own.pop_back();
      identity_.replica = old_id;
      identity_.replica = NewId(between);
      identity_.own.push_back(identity_.replica);
    }
  }
  std::map<Version, Version> renamed;
  for (const auto& [version, where] : old_writes) {
    renamed[version] = {keep_times ? version.time : clock_.Tick(WallMs()), identity_.replica};
  }
  count = renamed.size();
  const auto rename = [&](Version& version) {
    auto found = renamed.find(version);
    if (found != renamed.end()) version = found->second;
  };
  for (const RecordKey& key : touched) {
    StoredRecord& stored = transaction.Make(key);
    Record& record = stored.record;
    std::map<ReplicaId, HybridTime> old_high;  // of what stays under an old id
    const auto stays = [&](const Version& version) {
      if (!old_ids.contains(version.replica)) return;
      old_high[version.replica] = std::max(old_high[version.replica], version.time);
    };
    for (Cell& cell : record.cells) {
      rename(cell.version);
      record.seen.Advance(cell.version);
      if (cell.version.replica == identity_.replica) {
        cell.learned = {};
        NoteStamp(transaction, key, cell.version);
      }
      stays(cell.version);
    }
    for (ConflictEntry& entry : record.conflicts) {
      rename(entry.lost_version);
      rename(entry.current_version);
      record.seen.Advance(entry.lost_version);
      if (entry.lost_version.replica == identity_.replica) {
        NoteStamp(transaction, key, entry.lost_version);
      }
      stays(entry.lost_version);
      for (SettlementEntry& s : entry.settlements) {
        rename(s.version);
        record.seen.Advance(s.version);
        if (s.version.replica == identity_.replica) NoteStamp(transaction, key, s.version);
        stays(s.version);
      }
      std::sort(entry.settlements.begin(), entry.settlements.end(),
                [](const auto& a, const auto& b) { return a.version < b.version; });
    }
    std::sort(record.conflicts.begin(), record.conflicts.end(), [](const auto& a, const auto& b) {
      return std::tie(a.path, a.lost_version) < std::tie(b.path, b.lost_version);
    });
    for (const ReplicaId& id : old_ids) {
      record.seen.Set(id, std::max(old_high[id], std::min(record.seen.Get(id), limit)));
    }
    stored.meta.origin = {};
    transaction.Touch(key);
  }
  return absl::OkStatus();
}

}  // namespace chaptersync::storage
