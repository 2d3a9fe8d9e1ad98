// SPDX-License-Identifier: Apache-2.0
//
// Reading the feed, and records outside it, for a peer; what the peer acknowledges, and
// the drops that wait for that.
#include <algorithm>

#include "storage/core/planted.h"
#include "storage/core/record_codec.h"
#include "storage/core/status.h"
#include "storage/replica/keys.h"
#include "storage/replica/meta_values.h"
#include "storage/replica/replica.h"
#include "storage/replica/transaction.h"

namespace chaptersync::storage {
namespace {

// For Planted::kCursorByClock.
HybridTime HighestUpTo(const Snapshot& snapshot, const FeedRequest& request) {
  HybridTime highest;
  auto it = snapshot.NewIterator(Table::kFeed, keys::FeedPrefix(request.scope),
                                 keys::Feed(request.scope, {request.after.value + 1}));
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    const auto bytes = snapshot.Get(Table::kRecord, it->value());
    if (!bytes.ok()) continue;
    const auto stored = DecodeStored(*bytes);
    if (stored.ok()) highest = std::max(highest, stored->record.seen.Highest());
  }
  return highest;
}

}  // namespace

FeedItem Replica::MakeItem(const RecordKey& key, const StoredRecord& stored,
                           const PeerIdentity& peer, Sequence sequence, Sequence since,
                           bool whole) const {
  FeedItem item{.kind = FeedItem::Kind::kChange,
                .sequence = sequence,
                .key = key,
                .update = {},
                .seen = {},
                .own_high = {}};
  RecordUpdate update;
  update.state.erased = stored.record.erased;
  update.state.seen = stored.record.seen;
  update.state.conflicts = stored.record.conflicts;
  if (IsPlanted(Planted::kConflictFoundNotPushed) && !options_.hub) {
    std::erase_if(update.state.conflicts,
                  [&](const ConflictEntry& entry)
                      ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return Own(entry.found_by); });
  }
  for (const Cell& cell : stored.record.cells) {
    const bool own = Own(cell.version.replica);
    if (own) item.own_high = std::max(item.own_high, cell.version.time);
    // What the peer wrote it has; what others wrote a node need not tell a hub.
    const bool told = whole || (cell.learned > since && cell.version.replica != peer.replica &&
                                (options_.hub || own));
    if (told) {
      update.state.cells.push_back(cell);
    } else {
      if (!IsPlanted(Planted::kCellsByCursor)) update.base.Advance(cell.version);
      update.whole = false;
    }
  }
  if (options_.hub) {
    auto theirs = peer.entities.find(key.entity);
    auto ours = options_.entities.find(key.entity);
    if (theirs == peer.entities.end() || ours == options_.entities.end() ||
        theirs->second != ours->second.fingerprint) {
      update.named_scopes = stored.meta.Current();
    }
  }
  update.again = std::find(stored.meta.again.begin(), stored.meta.again.end(), peer.node) !=
                 stored.meta.again.end();
  item.update = EncodeUpdate(update);
  return item;
}

namespace {

// Of a record's row of keys::Reset, as Get answered: whether it was refused by this hub in this
// epoch, whose state of it is still to come.
absl::StatusOr<bool> WaitsForState(const absl::StatusOr<std::string>& reset,
                                   const PeerIdentity& hub) {
  if (absl::IsNotFound(reset.status())) return false;
  CHAPTER_RETURN_IF_ERROR(reset.status());
  CHAPTER_ASSIGN_OR_RETURN(const ResetValue value, DecodeReset(*reset));
  return value.hub == hub.node && value.epoch == hub.epoch;
}

}  // namespace

absl::StatusOr<FeedPage> Replica::ReadFeed(const FeedRequest& request) {
  FeedPage page;
  page.last = request.after;
  Sequence durable;
  {
    absl::ReaderMutexLock lock(&mutex_);
    auto snapshot = engine_.NewSnapshot();
    durable = last_sequence_;
    const bool all = request.scope == Scope::All();
    std::set<EntityNumber> held_back;
    HybridTime sent;
    if (IsPlanted(Planted::kCursorByClock)) sent = HighestUpTo(*snapshot, request);
    // What the hub has refused waits for its state, and gets a new place in the feed then.
    bool any_refused = false;
    if (!options_.hub) {
      const std::string resets(1, keys::kResetKind);
      auto reset = snapshot->NewIterator(Table::kMeta, resets, keys::PrefixEnd(resets));
      reset->SeekToFirst();
      any_refused = reset->Valid();
      CHAPTER_RETURN_IF_ERROR(reset->status());
    }
    size_t bytes = 0;
    auto it =
        snapshot->NewIterator(Table::kFeed, keys::Feed(request.scope, {request.after.value + 1}),
                              keys::PrefixEnd(keys::FeedPrefix(request.scope)));
    const size_t prefix_size = keys::FeedPrefix(request.scope).size();
    size_t looked_at = 0;
    for (it->SeekToFirst(); it->Valid(); it->Next()) {
      if (page.items.size() >= request.records_max || bytes >= request.bytes_max ||
          looked_at >= 4 * request.records_max) {
        break;
      }
      ++looked_at;
      const Sequence sequence{Reader(it->key().substr(prefix_size)).BigEndian64()};
      const RecordKey key = Reader(it->value()).Key();
      CHAPTER_ASSIGN_OR_RETURN(const std::string stored_bytes,
                               snapshot->Get(Table::kRecord, it->value()));
      CHAPTER_ASSIGN_OR_RETURN(StoredRecord stored, DecodeStored(stored_bytes));
      page.last = sequence;
      if (IsPlanted(Planted::kCursorByClock) && stored.record.seen.Highest() <= sent) {
        ++page.skipped;
        continue;
      }
      if (options_.hub ? false : !request.peer.entities.contains(key.entity)) {
        held_back.insert(key.entity);
        ++page.skipped;
        continue;
      }
      bool entered = false;
      if (!all && !stored.record.erased) {
        const std::vector<Scope> current = stored.meta.Current();
        const Scope* first = nullptr;
        for (const Scope& scope : request.peer.scopes) {
          if (std::find(current.begin(), current.end(), scope) == current.end()) continue;
          first = &scope;
          break;
        }
        if (IsPlanted(Planted::kLeftPerScope) &&
            std::find(current.begin(), current.end(), request.scope) == current.end()) {
          first = nullptr;
        }
        if (first == nullptr) {
          if (current.empty()) {
            ++page.skipped;
            continue;
          }
          page.items.push_back({.kind = FeedItem::Kind::kLeft,
                                .sequence = sequence,
                                .key = key,
                                .update = {},
                                .seen = stored.record.seen,
                                .own_high = {}});
          bytes += 64;
          continue;
        }
        if (*first != request.scope) {
          ++page.skipped;
          continue;
        }
        entered = stored.meta.Position(request.scope)->entered > request.since;
      }
      // Also what was changed again since, as long as the peer is not past what it may lack.
      const bool anew = sequence <= request.anew || request.since < request.anew;
      bool refused = false;
      if (any_refused) {
        CHAPTER_ASSIGN_OR_RETURN(
            refused, WaitsForState(snapshot->Get(Table::kMeta, keys::Reset(key)), request.peer));
      }
      if ((stored.meta.origin == request.peer.replica && !(anew && options_.hub)) || refused) {
        ++page.skipped;
        continue;
      }
      if (IsPlanted(Planted::kConflictsLostOnMove) && entered) stored.record.conflicts.clear();
      const Sequence since = IsPlanted(Planted::kCellsByCursor) ? request.after : request.since;
      page.items.push_back(MakeItem(key, stored, request.peer, sequence, since, entered || anew));
      bytes += page.items.back().update.size() + kKeyBytes;
    }
    CHAPTER_RETURN_IF_ERROR(it->status());
    page.at_end = !it->Valid();
    // Past the places of records that were dropped or changed again since.
    if (page.at_end) page.last = std::max(page.last, last_sequence_);
    page.held_back.assign(held_back.begin(), held_back.end());
    if (page.last > request.after) page.mark = MarkAt(*snapshot, page.last);
  }
  CHAPTER_RETURN_IF_ERROR(NoteTold(request.peer, page.items));
  CHAPTER_RETURN_IF_ERROR(EnsureDurable(durable));
  return page;
}

absl::StatusOr<RecordsPage> Replica::ReadRecords(const RecordsRequest& request) {
  RecordsPage page;
  size_t size = 0;
  Sequence durable;
  bool keeps_row = false;
  {
    absl::MutexLock lock(&mutex_);
    WriteBatch batch;
    for (const RecordKey& key : request.keys) {
      if (page.read > 0 && size >= request.bytes_max) break;
      ++page.read;
      const std::string refusal_row = keys::Refusal(request.peer.node, request.peer.epoch, key);
      const bool noted = request.refusals_noted && options_.hub;
      if (noted) batch.Delete(Table::kMeta, refusal_row);
      auto bytes = engine_.Get(Table::kRecord, EncodeKey(key));
      FeedItem left{.kind = FeedItem::Kind::kLeft,
                    .sequence = {},
                    .key = key,
                    .update = {},
                    .seen = {},
                    .own_high = {}};
      // What the hub has refused is not pushed again, also where it asks, before its state has
      // come: an officer could approve it meanwhile.
      bool refused = false;
      if (!options_.hub) {
        CHAPTER_ASSIGN_OR_RETURN(
            refused, WaitsForState(engine_.Get(Table::kMeta, keys::Reset(key)), request.peer));
      }
      if (refused || absl::IsNotFound(bytes.status())) {
        page.items.push_back(std::move(left));
        continue;
      }
      CHAPTER_RETURN_IF_ERROR(bytes.status());
      CHAPTER_ASSIGN_OR_RETURN(const StoredRecord stored, DecodeStored(*bytes));
      const std::vector<Scope> current = stored.meta.Current();
      // What has no place goes back to the chapters that brought or held it, and to
      // nobody else.
      const auto held = stored.meta.Withheld();
      const bool theirs = !options_.hub || request.peer.hub || stored.record.erased ||
                          !Disjoint({current.begin(), current.end()}, request.peer.scopes) ||
                          (request.asked && IsPlanted(Planted::kAskedForAndTold)) ||
                          (request.asked && (request.peer.scopes.contains(stored.meta.maker) ||
                                             !Disjoint(held, request.peer.scopes)));
      if (theirs) {
        // Where a refusal of it stands in the feed is told by its place then.
        const Sequence place = request.asked ? stored.meta.latest : Sequence{};
        page.items.push_back(MakeItem(key, stored, request.peer, place, request.since,
                                      request.asked || request.since < request.anew));
        size += page.items.back().update.size();
        continue;
      }
      if (current.empty() && !request.asked) continue;
      // Of what a chapter had, or brought, its feed has a place, but for what was not taken.
      // Whoever only asks for another's record hears what he would if it were not here, and not who
      // wrote it and when.
      const NodeId& node = request.peer.node;
      const auto refusal = engine_.Get(Table::kMeta, refusal_row);
      const bool not_taken =
          refusal.ok() || approvals_.Find({node, request.peer.epoch, key}) != nullptr ||
          engine_.Get(Table::kMeta, keys::Rejected(node, request.peer.epoch, key)).ok();
      const bool had = std::any_of(
          stored.meta.scopes.begin(), stored.meta.scopes.end(),
          [&](const ScopePosition& p) { return request.peer.scopes.contains(p.scope); });
      if (current.empty()) {
        left.kind = FeedItem::Kind::kUnplaced;
        // It may ask again, where the answer is lost.
        if (noted && refusal.ok()) {
          CHAPTER_ASSIGN_OR_RETURN(PendingRefusal row, DecodePending(*refusal));
          row.noted = keeps_row = true;
          batch.Put(Table::kMeta, refusal_row, Encode(row));
        }
      }
      if (not_taken || (had && !current.empty())) left.seen = stored.record.seen;
      page.items.push_back(std::move(left));
    }
    if (!batch.empty()) CHAPTER_RETURN_IF_ERROR(engine_.Write(batch));
    durable = last_sequence_;
  }
  CHAPTER_RETURN_IF_ERROR(NoteTold(request.peer, page.items));
  if (keeps_row) CHAPTER_RETURN_IF_ERROR(engine_.Sync());
  CHAPTER_RETURN_IF_ERROR(EnsureDurable(durable));
  return page;
}

absl::StatusOr<AcknowledgeResult> Replica::Acknowledge(const AcknowledgeRequest& request) {
  AcknowledgeResult result;
  std::vector<ChangeEvent> events;
  const PeerIdentity& peer = request.peer;
  {
    absl::MutexLock lock(&mutex_);
    Transaction transaction(engine_, options_);
    WriteBatch& batch = transaction.batch();
    AcknowledgedValue acknowledged{.hub_epoch = peer.epoch};
    if (auto bytes = transaction.Get(Table::kMeta, keys::Acknowledged(peer.replica)); bytes.ok()) {
      const AcknowledgedValue known = DecodeAcknowledged(*bytes);
      if (known.hub_epoch == peer.epoch) acknowledged = known;
    }
    if (request.anew && !request.accepted) acknowledged.anew = *request.anew;
    const Sequence before = acknowledged.through;
    if (request.through) {
      acknowledged.through = *request.through;
      acknowledged.farthest = std::max(acknowledged.farthest, acknowledged.through);
      acknowledged.as = request.told_as;
      if (request.own_high > acknowledged.own_high) {
        auto snapshot = engine_.NewSnapshot();
        // Those below this hub's last went with it; going over their graves would cost
        // more with every acknowledgement.
        auto it = snapshot->NewIterator(Table::kMeta, keys::Stamp(acknowledged.own_high),
                                        keys::Stamp({request.own_high.ticks + 1}));
        for (it->SeekToFirst(); it->Valid(); it->Next()) batch.Delete(Table::kMeta, it->key());
        CHAPTER_RETURN_IF_ERROR(it->status());
        acknowledged.own_high = request.own_high;
      }
    }
    if (request.through || (request.anew && !request.accepted)) {
      batch.Put(Table::kMeta, keys::Acknowledged(peer.replica), Encode(acknowledged));
    }
    if (request.anew && request.accepted) {
      const std::string sessions_key = keys::SessionsOf(peer.replica);
      CHAPTER_ASSIGN_OR_RETURN(const std::string bytes,
                               transaction.Get(Table::kMeta, sessions_key));
      SessionsValue sessions = DecodeSessions(bytes);
      // A later session may have begun another pass.
      if (sessions.last == *request.accepted) {
        sessions.anew = *request.anew;
        batch.Put(Table::kMeta, sessions_key, Encode(sessions));
      }
    }
    for (const RefusedRecord& refused : request.refused) {
      if (options_.hub || transaction.Find(refused.key) == nullptr) continue;
      const bool waits = refused.reason == RefusedRecord::Reason::kWaits;
      if (waits && IsPlanted(Planted::kWhatWaitsCountsAsTaken)) continue;
      if (refused.reason == RefusedRecord::Reason::kAhead ||
          refused.reason == RefusedRecord::Reason::kWaits) {
        const bool ahead = refused.reason == RefusedRecord::Reason::kAhead;
        batch.Put(Table::kMeta, keys::Waiting(refused.key, peer.node),
                  Encode(WaitingValue{.hub = peer.node,
                                      .what = ahead ? WaitsFor::kClock : WaitsFor::kApproval,
                                      .at = std::max(refused.sequence, acknowledged.through)}));
        continue;
      }
      RefusedRecord kept = refused;
      if (kept.sequence == Sequence{}) kept.sequence = acknowledged.through;
      batch.Put(Table::kMeta, keys::Reset(refused.key),
                Encode(ResetValue{peer.node, peer.epoch, std::move(kept)}));
    }
    std::set<RecordKey> ended;  // wait no more
    if (!options_.hub && request.through) {
      CHAPTER_RETURN_IF_ERROR(
          EndWaiting(transaction, request, before, acknowledged.through, ended));
    }
    for (const RecordKey& key : request.push_again) {
      StoredRecord* held = transaction.Find(key);
      if (options_.hub || held == nullptr) continue;
      held->meta.origin = {};
      transaction.Touch(key);
    }
    if (options_.hub && !request.dropped.empty()) {
      const std::string noted_key = keys::DropsNoted(peer.node, peer.epoch);
      uint64_t noted = DecodeNumber(transaction.Get(Table::kMeta, noted_key));
      const std::string at =
          EncodeNumber(last_sequence_.value) + EncodeNumber(identity_.epoch.value);
      for (const DroppedRecord& dropped : request.dropped) {
        noted = std::max(noted, dropped.number);
        batch.Put(Table::kMeta, keys::DroppedBy(peer.node, peer.epoch, dropped.key), at);
      }
      batch.Put(Table::kMeta, noted_key, EncodeNumber(noted));
    }
    if (!options_.hub && !request.drops_wait) {
      CHAPTER_RETURN_IF_ERROR(
          DropWhereDue(transaction, request, acknowledged.through, ended, result.dropped));
    }
    CHAPTER_RETURN_IF_ERROR(transaction.Place());
    if (batch.empty() && !transaction.anything_touched()) return result;
    CHAPTER_RETURN_IF_ERROR(Commit(transaction));
    for (const DroppedRecord& dropped : result.dropped) leaving_.erase(dropped.key);
    events = transaction.events();
  }
  CHAPTER_RETURN_IF_ERROR(Finish(events));
  return result;
}

// What the hub has stored from a later place of the feed than where it did not take it waits no
// more. Between the two places, so that it costs what was pushed.
absl::Status Replica::EndWaiting(Transaction& transaction, const AcknowledgeRequest& request,
                                 Sequence before, Sequence through, std::set<RecordKey>& ended) {
  if (through <= before) return absl::OkStatus();
  auto snapshot = engine_.NewSnapshot();
  const std::string marks(1, keys::kWaitingKind);
  auto mark = snapshot->NewIterator(Table::kMeta, marks, keys::PrefixEnd(marks));
  mark->SeekToFirst();
  if (!mark->Valid()) return mark->status();
  std::set<RecordKey> refused;
  for (const RefusedRecord& record : request.refused) refused.insert(record.key);
  auto it = snapshot->NewIterator(Table::kFeed, keys::Feed(Scope::All(), {before.value + 1}),
                                  keys::Feed(Scope::All(), {through.value + 1}));
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    const RecordKey key = Reader(it->value()).Key();
    const auto bytes = transaction.Get(Table::kMeta, keys::Waiting(key, request.peer.node));
    if (!bytes.ok() || refused.contains(key)) continue;
    CHAPTER_ASSIGN_OR_RETURN(const WaitingValue waiting, DecodeWaiting(*bytes));
    const StoredRecord* held = transaction.Find(key);
    if (waiting.what == WaitsFor::kApproval && held != nullptr && held->meta.latest > waiting.at &&
        held->meta.latest <= through) {
      transaction.batch().Delete(Table::kMeta, keys::Waiting(key, request.peer.node));
      ended.insert(key);
    }
  }
  return it->status();
}

absl::Status Replica::DropWhereDue(Transaction& transaction, const AcknowledgeRequest& request,
                                   Sequence through, const std::set<RecordKey>& ended,
                                   std::vector<DroppedRecord>& dropped) {
  if (leaving_.empty()) return absl::OkStatus();
  const PeerIdentity& hub = request.peer;
  // What was refused waits for the hub's state of the record, in which it is not.
  std::set<RecordKey> refused(request.push_again.begin(), request.push_again.end());
  for (const RefusedRecord& record : request.refused) refused.insert(record.key);
  uint64_t count = DecodeNumber(transaction.Get(Table::kMeta, keys::DropCount(hub.node)));
  const uint64_t before = count;
  for (const RecordKey& key : leaving_) {
    // The engine's word counts: the record may have been sent again meanwhile.
    auto current = transaction.Get(Table::kMeta, keys::Leaving(key));
    if (!current.ok()) continue;
    CHAPTER_ASSIGN_OR_RETURN(LeavingValue leaving, DecodeLeaving(*current));
    // What was held back is not acknowledged, wherever its place in the feed is.
    if (!hub.entities.contains(key.entity)) continue;
    // A new epoch of the hub has cancelled it.
    if (leaving.Find(hub.node, hub.epoch) == nullptr) continue;
    const StoredRecord* stored = transaction.Find(key);
    if (stored != nullptr && !stored->record.erased) {
      if (stored->meta.latest > through && stored->meta.origin != hub.replica &&
          !IsPlanted(Planted::kDropBeforeAcknowledgement)) {
        continue;
      }
      if (refused.contains(key)) continue;
      // What another hub refused this one has taken, or would say so.
      if (const auto reset = transaction.Get(Table::kMeta, keys::Reset(key)); reset.ok()) {
        CHAPTER_ASSIGN_OR_RETURN(const ResetValue noted, DecodeReset(*reset));
        if (noted.hub == hub.node) continue;
      }
      const bool waits = transaction.Get(Table::kMeta, keys::Waiting(key, hub.node)).ok();
      if (waits && !ended.contains(key)) continue;
      for (const NodeId& hub_before : stored->meta.again) leaving.NoteDrop(hub_before);
      leaving.NoteDrop(hub.node);
      leaving.leaders = LeadersOf(key, stored->record);
      transaction.Remove(key);
      transaction.batch().Put(Table::kMeta, keys::Dropped(key), Encode(leaving));
      std::string key_bytes = EncodeKey(key);
      transaction.batch().Put(Table::kMeta, keys::UnnotedDrop(hub.node, ++count), key_bytes);
      dropped.push_back({count, key});
    }
    transaction.batch().Delete(Table::kMeta, keys::Leaving(key));
  }
  if (count != before) {
    transaction.batch().Put(Table::kMeta, keys::DropCount(hub.node), EncodeNumber(count));
  }
  return transaction.status();
}

absl::StatusOr<std::vector<FeedCursor>> Replica::FeedEnds(const std::vector<Scope>& scopes) const {
  std::vector<FeedCursor> ends;
  absl::ReaderMutexLock lock(&mutex_);
  auto snapshot = engine_.NewSnapshot();
  for (const Scope& scope : scopes) {
    FeedCursor end{identity_.replica, identity_.epoch, scope, {}, {}};
    const std::string prefix = keys::FeedPrefix(scope);
    auto it = snapshot->NewIterator(Table::kFeed, prefix, keys::PrefixEnd(prefix));
    it->SeekToLast();
    if (it->Valid()) end.sequence = {Reader(it->key().substr(prefix.size())).BigEndian64()};
    CHAPTER_RETURN_IF_ERROR(it->status());
    ends.push_back(std::move(end));
  }
  return ends;
}

uint64_t Replica::WatchUnsent(ReplicaId peer, Sequence acknowledged) {
  absl::MutexLock lock(&mutex_);
  watches_[++watch_last_] = {peer, acknowledged, last_sequence_};
  return watch_last_;
}

Sequence Replica::UnsentThrough(uint64_t watch) const {
  absl::ReaderMutexLock lock(&mutex_);
  const auto it = watches_.find(watch);
  return it == watches_.end() ? Sequence{} : it->second.through;
}

void Replica::EndWatch(uint64_t watch) {
  absl::MutexLock lock(&mutex_);
  watches_.erase(watch);
}

absl::StatusOr<uint64_t> Replica::CountUnsent(const Scope& scope, Sequence after, ReplicaId peer,
                                              uint64_t most) const {
  uint64_t count = 0;
  auto snapshot = engine_.NewSnapshot();
  auto it = snapshot->NewIterator(Table::kFeed, keys::Feed(scope, {after.value + 1}),
                                  keys::PrefixEnd(keys::FeedPrefix(scope)));
  for (it->SeekToFirst(); it->Valid() && count <= most; it->Next()) {
    CHAPTER_ASSIGN_OR_RETURN(const std::string bytes, snapshot->Get(Table::kRecord, it->value()));
    CHAPTER_ASSIGN_OR_RETURN(const StoredRecord stored, DecodeStored(bytes));
    if (stored.meta.origin != peer) ++count;
  }
  CHAPTER_RETURN_IF_ERROR(it->status());
  return count;
}

}  // namespace chaptersync::storage
