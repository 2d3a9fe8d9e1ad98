// SPDX-License-Identifier: Apache-2.0
//
// The replica's half of the handshakes: who the other is, what each remembers of the
// other, and what follows where one of them has gone back or has a copy.
#include <algorithm>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"

#include "storage/core/limits.h"
#include "storage/core/planted.h"
#include "storage/core/record_codec.h"
#include "storage/core/status.h"
#include "storage/replica/hub_epochs.h"
#include "storage/replica/keys.h"
#include "storage/replica/meta_values.h"
#include "storage/replica/replica.h"
#include "storage/replica/transaction.h"

namespace chaptersync::storage {

absl::StatusOr<HelloFacts> Replica::SayHello(uint64_t session) {
  HelloFacts hello;
  hello.session = session;
  {
    absl::MutexLock lock(&mutex_);
    if (auto bytes = engine_.Get(Table::kMeta, keys::kAttempts); bytes.ok()) {
      Reader in(*bytes);
      hello.attempts = ReadSessions(in, kAttemptsKept);
    } else if (!absl::IsNotFound(bytes.status())) {
      return bytes.status();
    }
    WriteBatch batch;
    if (session != 0) {
      Remember(session, kAttemptsKept, hello.attempts);
      std::string attempts;
      AppendSessions(hello.attempts, attempts);
      batch.Put(Table::kMeta, keys::kAttempts, attempts);
    }
    const auto cursors_void = engine_.Get(Table::kMeta, keys::kCursorsVoid);
    if (cursors_void.ok()) {
      batch.Delete(Table::kMeta, keys::kCursorsVoid);
      CHAPTER_RETURN_IF_ERROR(VoidCursors(batch));
    } else if (!absl::IsNotFound(cursors_void.status())) {
      return cursors_void.status();
    }
    if (!batch.empty()) CHAPTER_RETURN_IF_ERROR(engine_.Write(batch));
    hello.replica = identity_.replica;
    hello.epoch = identity_.epoch;
    hello.clock = {WallMs(), clock_.last()};
    const auto& copied = identity_.copied;
    for (auto id = identity_.own.rbegin(); !options_.hub && id != identity_.own.rend(); ++id) {
      if (*id == identity_.replica) continue;
      const bool is_copied = std::find(copied.begin(), copied.end(), *id) != copied.end();
      std::vector<ReplicaId>& told = is_copied ? hello.copied : hello.former;
      if (told.size() < kFormerIdsTold) told.push_back(*id);
    }
  }
  hello.node = options_.node;
  hello.hub = options_.hub;
  for (const auto& [entity, rule] : options_.entities) hello.entities[entity] = rule.fingerprint;
  auto snapshot = engine_.NewSnapshot();
  const std::string cursors(1, keys::kHubCursorKind);
  auto it = snapshot->NewIterator(Table::kMeta, cursors, keys::PrefixEnd(cursors));
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    hello.cursors.push_back(DecodeCursor(it->key(), it->value()));
  }
  CHAPTER_RETURN_IF_ERROR(it->status());
  CHAPTER_ASSIGN_OR_RETURN(const auto by_hub, ReadAcknowledged(*snapshot));
  for (const auto& [replica, value] : by_hub) {
    hello.acknowledged.push_back({.hub = replica,
                                  .epoch = value.hub_epoch,
                                  .through = value.through,
                                  .as = value.as,
                                  .sessions = value.sessions});
  }
  const std::string epochs(1, keys::kHubEpochsKind);
  it = snapshot->NewIterator(Table::kMeta, epochs, keys::PrefixEnd(epochs));
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    const HubEpochs known = DecodeHubEpochs(it->value());
    hello.past_epochs.insert(hello.past_epochs.end(), known.earlier.begin(), known.earlier.end());
  }
  CHAPTER_RETURN_IF_ERROR(it->status());
  // A hub may accept it from here on, and whoever goes back behind this is found out.
  if (session != 0) CHAPTER_RETURN_IF_ERROR(engine_.Sync());
  return hello;
}

FeedCursor Replica::CursorIn(ReplicaId peer, bool peer_is_hub, const Scope& scope) const {
  FeedCursor cursor{.replica = peer, .epoch = {}, .scope = scope, .sequence = {}, .mark = {}};
  auto bytes = engine_.Get(Table::kMeta, keys::Cursor(peer, peer_is_hub, scope));
  if (!bytes.ok()) return cursor;
  Reader in(*bytes);
  cursor.epoch = {in.Fixed64()};
  cursor.sequence = {in.Fixed64()};
  cursor.mark = {in.Fixed64()};
  return cursor;
}

bool Replica::IsShared(ReplicaId replica) const {
  const auto bytes = engine_.Get(Table::kMeta, keys::SessionsOf(replica));
  return bytes.ok() && DecodeSessions(*bytes).shared;
}

Sequence Replica::AcknowledgedBy(ReplicaId hub) const {
  auto bytes = engine_.Get(Table::kMeta, keys::Acknowledged(hub));
  return bytes.ok() ? DecodeAcknowledged(*bytes).through : Sequence{};
}

// What is written under any id of a lineage counts as its node's own.
absl::Status Replica::CheckLineage(const Snapshot& snapshot, const PeerIdentity& peer) const {
  const uint64_t first = peer.replica.value >> kLineageShift << kLineageShift;
  const uint64_t last = first | ((uint64_t{1} << kLineageShift) - 1);
  auto it = snapshot.NewIterator(Table::kMeta, keys::SessionsOf({first}),
                                 keys::PrefixEnd(keys::SessionsOf({last})));
  it->SeekToFirst();
  const NodeId node = it->Valid() ? DecodeSessions(it->value()).node : NodeId{};
  CHAPTER_RETURN_IF_ERROR(it->status());
  const bool others = node != NodeId{} && node != peer.node;
  if (!others && !SameLineage(peer.replica, identity_.replica)) return absl::OkStatus();
  return absl::PermissionDeniedError(
      absl::StrCat("replica ", ToHex(peer.replica.value), " is of the ids of another computer"));
}

absl::StatusOr<AcceptedPeer> Replica::AcceptPeer(const PeerIdentity& peer,
                                                 const HelloFacts& hello) {
  AcceptedPeer accepted;
  {
    absl::MutexLock lock(&mutex_);
    if (!options_.ahead_max_ms ||
        hello.clock.hybrid <= HybridTime::FromWall(WallMs() + *options_.ahead_max_ms)) {
      clock_.Observe(hello.clock.hybrid);
    }
    accepted.cursor = CursorIn(peer.replica, peer.hub, Scope::All());
    const bool known = accepted.cursor.epoch == peer.epoch;
    if (!known) {
      accepted.cursor = {peer.replica, peer.epoch, Scope::All(), {}, {}};
    }
    auto snapshot = engine_.NewSnapshot();
    // A peer that remembers more of this replica than the replica itself: it was
    // rolled back without its knowing.
    const auto& past = hello.past_epochs;
    bool rolled_back = std::find(past.begin(), past.end(), identity_.epoch) != past.end();
    bool acknowledged_more = false;
    Transaction transaction(engine_, options_);
    WriteBatch& batch = transaction.batch();
    const auto sessions_of = [&](ReplicaId replica) {
      const auto bytes = transaction.Get(Table::kMeta, keys::SessionsOf(replica));
      return bytes.ok() ? DecodeSessions(*bytes) : SessionsValue{};
    };
    SessionsValue sessions = sessions_of(peer.replica);
    CHAPTER_RETURN_IF_ERROR(transaction.status());
    const bool others_let_in = IsPlanted(Planted::kOthersReplicaLetIn);
    if (sessions.node != NodeId{} && sessions.node != peer.node && !others_let_in) {
      return absl::PermissionDeniedError(
          absl::StrCat("replica ", ToHex(peer.replica.value), " is another node's"));
    }
    if (!peer.hub && !others_let_in) CHAPTER_RETURN_IF_ERROR(CheckLineage(*snapshot, peer));
    const bool first_meeting = sessions.node == NodeId{};
    sessions.node = peer.node;
    const auto contains = [&](const std::vector<uint64_t>& some) {
      return std::find(some.begin(), some.end(), sessions.last) != some.end();
    };
    bool remembered = sessions.last == 0 || sessions.epoch != identity_.epoch ||
                      hello.session == 0 || contains(hello.attempts);
    for (const Acknowledgement& theirs : hello.acknowledged) {
      if (theirs.hub != identity_.replica || theirs.epoch != identity_.epoch) continue;
      if (CursorIn(theirs.as, peer.hub, Scope::All()).sequence < theirs.through) {
        acknowledged_more = true;
      } else if (theirs.as != peer.replica && !known) {
        accepted.cursor.sequence = theirs.through;  // the feed went on under a new id
        accepted.cursor.mark = {};
      }
      if (sessions.last != 0 && sessions.epoch == identity_.epoch && contains(theirs.sessions)) {
        remembered = true;
        // This replica has welcomed a later one, and forgotten it.
        rolled_back |= theirs.sessions.back() != sessions.last;
      }
    }
    // What it was to be told anew, it is so under its new id; once, for that pass has its own end.
    const auto inherit = [&](const SessionsValue& former) {
      if (first_meeting && former.node == peer.node)
        sessions.anew = std::max(sessions.anew, former.anew);
    };
    for (const ReplicaId& id : hello.copied) inherit(sessions_of(id));
    // Whoever comes as the former self of a node that has gone on has gone back, or is a copy.
    for (const ReplicaId& id : hello.former) {
      SessionsValue former = sessions_of(id);
      inherit(former);
      if (id == peer.replica || former.shared) continue;
      if (former.node != NodeId{} && former.node != peer.node) continue;
      former.shared = true;
      batch.Put(Table::kMeta, keys::SessionsOf(id), Encode(former));
    }
    // Whoever came last in this epoch of a node, and is no former self of this one, is another
    // computer: each has taken an id of its own before it was found out.
    const std::string came_as_key = keys::CameAs(peer.node, peer.epoch);
    const ReplicaId came_as{DecodeNumber(transaction.Get(Table::kMeta, came_as_key))};
    const auto among = [&](const std::vector<ReplicaId>& ids) {
      return std::find(ids.begin(), ids.end(), came_as) != ids.end();
    };
    const bool another_came = !peer.hub && came_as != ReplicaId{} && came_as != peer.replica &&
                              !among(hello.former) && !among(hello.copied);
    std::vector<Scope> scopes(peer.scopes.begin(), peer.scopes.end());
    if (peer.hub) scopes = {Scope::All()};
    for (const Scope& scope : scopes) {
      FeedCursor resume{identity_.replica, identity_.epoch, scope, {}, {}};
      for (const FeedCursor& theirs : hello.cursors) {
        if (theirs.replica != identity_.replica || theirs.epoch != identity_.epoch ||
            theirs.scope != scope || theirs.sequence == Sequence{}) {
          continue;
        }
        if (!Remembers(*snapshot, theirs)) continue;
        resume.sequence = theirs.sequence;
        resume.mark = theirs.mark;
      }
      accepted.resume.push_back(std::move(resume));
    }
    rolled_back |= NoteReached(*snapshot, hello.cursors);
    HubEpochs epochs;
    if (peer.hub) {
      CHAPTER_ASSIGN_OR_RETURN(epochs, EpochsOf(peer.node));
    }
    const auto& earlier = sessions.earlier;
    if (!remembered && std::find(earlier.begin(), earlier.end(), hello.session) != earlier.end()) {
      return absl::AbortedError("a later session of this replica has begun already");
    }
    // Whoever does not know the last session of its id is not alone with it, or has gone
    // back; unless this replica has. A hub in an epoch that is over has.
    const bool over =
        std::find(epochs.earlier.begin(), epochs.earlier.end(), peer.epoch) != epochs.earlier.end();
    if (over || another_came || (!rolled_back && (sessions.shared || !remembered))) {
      sessions.shared = accepted.shared = true;
    } else {
      rolled_back |= acknowledged_more;
    }
    if (IsPlanted(Planted::kRollbackNotNoticed)) rolled_back = false;
    absl::Cleanup undo = [this, before = identity_]()
                             ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { identity_ = before; };
    if (rolled_back) {
      accepted.went_back = true;
      NewIdentity(true);
      batch.Put(Table::kMeta, keys::kIdentity, EncodeIdentity());
      for (FeedCursor& resume : accepted.resume) {
        resume = {identity_.replica, identity_.epoch, resume.scope, {}, {}};
      }
      accepted.cursor.sequence = {};
      accepted.cursor.mark = {};
    }
    accepted.replica = identity_.replica;
    accepted.epoch = identity_.epoch;
    const bool any_cursor =
        std::any_of(hello.cursors.begin(), hello.cursors.end(),
                    [&](const FeedCursor& theirs) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
                      // Without a scope it is a void one's position.
                      return theirs.replica == identity_.replica &&
                             theirs.epoch == identity_.epoch && !theirs.scope.name.empty();
                    });
    // The same where it stands before the end of what it was told anew: what was beyond may have
    // been changed since, and have another place.
    const bool behind =
        std::any_of(accepted.resume.begin(), accepted.resume.end(),
                    [&](const FeedCursor& resume) { return resume.sequence < sessions.anew; });
    if ((!any_cursor || behind) && !accepted.shared) sessions.anew = kToEndOfFeed;
    accepted.anew = sessions.anew;
    if (!accepted.shared) {
      if (!peer.hub) batch.Put(Table::kMeta, came_as_key, EncodeNumber(peer.replica.value));
      sessions.epoch = identity_.epoch;
      if (hello.session != 0) {
        sessions.last = hello.session;
        sessions.earlier = hello.attempts;
        std::erase(sessions.earlier, hello.session);
      }
    }
    batch.Put(Table::kMeta, keys::SessionsOf(peer.replica), Encode(sessions));
    // Kept from the first meeting on: a peer of an id that is not known here, but
    // was acknowledged here, met a later self of this replica.
    if ((!known || rolled_back) && !accepted.shared) PutCursor(accepted.cursor, peer.hub, batch);
    // What was refused in another epoch is sent and judged again.
    const std::string prefix = keys::RefusalPrefix(peer.node, peer.epoch);
    auto it = snapshot->NewIterator(Table::kMeta, prefix, keys::PrefixEnd(prefix));
    for (it->SeekToFirst(); it->Valid(); it->Next()) {
      CHAPTER_ASSIGN_OR_RETURN(auto pending, DecodePending(it->value()));
      if (pending.epoch != identity_.epoch) {
        batch.Delete(Table::kMeta, it->key());
        continue;
      }
      if (pending.noted) continue;
      pending.refusal.key = Reader(it->key().substr(prefix.size())).Key();
      accepted.refused.push_back(std::move(pending.refusal));
    }
    CHAPTER_RETURN_IF_ERROR(it->status());
    if (peer.hub && !accepted.shared) {
      epochs.Meet(peer.epoch, WallMs());
      batch.Put(Table::kMeta, keys::HubEpochsOf(peer.node), Encode(epochs));
    }
    // With the clock: what is written here from now on is later than what the peer has, also
    // where this replica crashes in between.
    CHAPTER_RETURN_IF_ERROR(Commit(transaction));
    std::move(undo).Cancel();
    if (peer.hub && !accepted.shared) hubs_[peer.node] = std::move(epochs);
    auto highest = engine_.Get(Table::kMeta, keys::Highest(peer.replica));
    if (highest.ok()) {
      Reader in(*highest);
      accepted.highest_clock = {in.Fixed64()};
      accepted.highest_hash = in.Fixed64();
    }
    accepted.drops_noted =
        DecodeNumber(engine_.Get(Table::kMeta, keys::DropsNoted(peer.node, peer.epoch)));
  }
  CHAPTER_RETURN_IF_ERROR(Finish({}));
  return accepted;
}

absl::Status Replica::AdjustClock(int64_t offset_ms) {
  absl::MutexLock lock(&mutex_);
  if (!options_.ahead_max_ms || options_.hub) return absl::OkStatus();
  const int64_t before = std::exchange(identity_.clock_offset_ms, offset_ms);
  WriteBatch batch;
  batch.Put(Table::kMeta, keys::kIdentity, EncodeIdentity());
  const absl::Status status = engine_.Write(batch);
  if (!status.ok()) identity_.clock_offset_ms = before;
  return status;
}

// What waits at a hub for headquarters' word is pushed again, to be judged anew.
absl::Status Replica::SendAwaitingApproval(const Snapshot& snapshot, Transaction& transaction,
                                           const NodeId& hub) {
  const std::string prefix(1, keys::kWaitingKind);
  auto it = snapshot.NewIterator(Table::kMeta, prefix, keys::PrefixEnd(prefix));
  size_t sent = 0;
  for (it->SeekToFirst(); it->Valid() && sent < kBatchWritesMax; it->Next()) {
    CHAPTER_ASSIGN_OR_RETURN(const WaitingValue waiting, DecodeWaiting(it->value()));
    if (waiting.hub != hub || waiting.what != WaitsFor::kApproval) continue;
    transaction.batch().Delete(Table::kMeta, it->key());
    const RecordKey key = Reader(it->key().substr(1)).Key();
    StoredRecord* held = transaction.Find(key);
    if (held == nullptr) continue;
    held->meta.origin = {};
    transaction.Touch(key);
    ++sent;
  }
  return it->status();
}

absl::StatusOr<JoinedHub> Replica::JoinHub(const PeerIdentity& hub, const WelcomeFacts& welcome) {
  JoinedHub joined;
  std::vector<ChangeEvent> events;
  {
    absl::MutexLock lock(&mutex_);
    if (welcome.told_as != ReplicaId{} && welcome.told_as != identity_.replica) {
      joined.restart = true;
      joined.restart_reason = absl::StrCat("writing as replica ", ToHex(identity_.replica.value),
                                           " since Hello was said");
      return joined;
    }
    Transaction transaction(engine_, options_);
    WriteBatch& batch = transaction.batch();
    // An identity that is not on disk must not be written under.
    absl::Cleanup undo = [this, before = identity_, clock_before = clock_]()
                             ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
                               identity_ = before;
                               clock_ = clock_before;
                             };
    if (options_.ahead_max_ms && !options_.hub && welcome.clock_offset_ms) {
      identity_.clock_offset_ms = *welcome.clock_offset_ms;
    }
    AcknowledgedValue acknowledged;
    if (auto bytes = transaction.Get(Table::kMeta, keys::Acknowledged(hub.replica)); bytes.ok()) {
      acknowledged = DecodeAcknowledged(*bytes);
    }
    if (acknowledged.hub_epoch != hub.epoch) acknowledged = {.hub_epoch = hub.epoch};
    size_t again = 0;
    const ReplicaId old_id = identity_.replica;

    // Writes under this id that are not ours: a clone of this machine made them.
    Sequence told;        // some hub has come so far in this feed
    HybridTime own_high;  // and has so much of what was written here
    auto snapshot = engine_.NewSnapshot();
    CHAPTER_ASSIGN_OR_RETURN(const auto by_hub, ReadAcknowledged(*snapshot));
    for (const auto& [replica, value] : by_hub) {
      told = std::max(told, value.farthest);
      own_high = std::max(own_high, value.own_high);
    }
    const bool writes_not_ours =
        !options_.hub && welcome.highest_clock > own_high &&
        DecodeNumber(transaction.Get(Table::kMeta, keys::Stamp(welcome.highest_clock))) !=
            welcome.highest_hash &&
        !IsPlanted(Planted::kVersionsReused);
    // Or the hub has come further in this feed than it goes, or on another way: this
    // replica was rolled back without its knowing, or has a copy that went on.
    const FeedCursor& theirs = welcome.cursor;
    const bool feed_not_ours = theirs.replica == identity_.replica &&
                               theirs.epoch == identity_.epoch && !Remembers(*snapshot, theirs);
    if (writes_not_ours || feed_not_ours || welcome.shared) {
      NewIdentity(true);
      // What the other one sent under the common id counted as this one's own, and was
      // passed over here.
      CHAPTER_RETURN_IF_ERROR(VoidCursors(batch));
      batch.Delete(Table::kMeta, keys::kAttempts);
      // A hub writes under an id of its own.
      if (!options_.hub) {
        CHAPTER_RETURN_IF_ERROR(
            StampAgain(transaction, told, {own_high, own_high, own_high}, old_id, true, again));
      }
      joined.restart = true;
      joined.restart_reason = absl::StrCat(
          "the hub knows what was done as replica ", ToHex(old_id.value),
          " and not here: there is a copy of this computer, or it has gone back; writing as "
          "replica ",
          ToHex(identity_.replica.value), " from now on, ", again, " unsent writes taken along");
    } else if (options_.ahead_max_ms && !options_.hub) {
      const HybridTime limit = HybridTime::FromWall(
          std::max(welcome.clock.wall_ms, welcome.clock.hybrid.wall_ms()) + welcome.ahead_max_ms);
      CHAPTER_ASSIGN_OR_RETURN(const AheadLimits limits, LimitsOf(*snapshot, hub.replica, limit));
      CHAPTER_ASSIGN_OR_RETURN(const OwnStamps own, FindOwnStamps(limits));
      if (clock_.last() > limit && !own.again) {
        // Learnt from others, or of records that others have stamped ahead as well. What
        // stays above the clock under this id must not come up a second time.
        if (own.stay) {
          NewIdentity(false);
          joined.restart = true;
          joined.restart_reason = absl::StrCat(
              "this computer's clock was ahead of the hub's, and its stamps are known to others; "
              "writing as replica ",
              ToHex(identity_.replica.value), " from now on");
        }
        clock_ = HybridClock(limit);
      } else if (clock_.last() > limit) {
        const uint64_t ahead_ms = clock_.last().wall_ms() - welcome.clock.wall_ms;
        if (!IsPlanted(Planted::kStampedAgainUnderOldId)) NewIdentity(false);
        clock_ = HybridClock(std::max(welcome.clock.hybrid, HybridTime::FromWall(WallMs())));
        CHAPTER_RETURN_IF_ERROR(
            StampAgain(transaction, acknowledged.through, limits, old_id, false, again));
        joined.restart = true;
        joined.restart_reason =
            absl::StrCat("this computer's clock was ", ahead_ms / 1000,
                         " s ahead of the hub's (at most ", welcome.ahead_max_ms / 1000,
                         " s are allowed); ", again, " unsent writes got the hub's time");
      }
    }
    clock_.Observe(welcome.clock.hybrid);

    // A new epoch of the hub cancels the drops that wait for it.
    CHAPTER_ASSIGN_OR_RETURN(HubEpochs epochs, EpochsOf(hub.node));
    const Epoch known = epochs.met;
    const Epoch before = epochs.latest();
    epochs.Meet(hub.epoch, WallMs());
    batch.Put(Table::kMeta, keys::HubEpochsOf(hub.node), Encode(epochs));
    if (known != hub.epoch) {
      // Other hubs may have offered meanwhile what was dropped for the epoch that is over.
      bool dropped = false;
      if (before != Epoch{} && before != hub.epoch && !options_.hub) {
        CHAPTER_ASSIGN_OR_RETURN(dropped, DroppedAtWordOf(hub.node, before));
      }
      std::string prefix(1, keys::kHubCursorKind);
      auto it = snapshot->NewIterator(Table::kMeta, prefix, keys::PrefixEnd(prefix));
      if (dropped) CHAPTER_RETURN_IF_ERROR(VoidCursors(batch, hub.replica));
      for (it->SeekToFirst(); it->Valid(); it->Next()) {
        const ReplicaId feed{Reader(it->key().substr(1)).BigEndian64()};
        if (feed == hub.replica || !SameLineage(feed, hub.replica)) continue;
        batch.Delete(Table::kMeta, it->key());
        batch.Delete(Table::kMeta, keys::Cursor(feed, /*peer_is_hub=*/true, {}));
      }
      CHAPTER_RETURN_IF_ERROR(it->status());
      prefix = std::string(1, keys::kLeavingKind);
      it = snapshot->NewIterator(Table::kMeta, prefix, keys::PrefixEnd(prefix));
      for (it->SeekToFirst(); it->Valid(); it->Next()) {
        CHAPTER_ASSIGN_OR_RETURN(LeavingValue leaving, DecodeLeaving(it->value()));
        if (std::erase_if(leaving.words, [&](const auto& word) { return word.hub == hub.node; }) ==
            0) {
          continue;
        }
        if (leaving.words.empty()) {
          batch.Delete(Table::kMeta, it->key());
        } else {
          batch.Put(Table::kMeta, it->key(), Encode(leaving));
        }
      }
      CHAPTER_RETURN_IF_ERROR(it->status());
      // And everything goes to it again, also what waited.
      const std::string waiting_prefix(1, keys::kWaitingKind);
      it = snapshot->NewIterator(Table::kMeta, waiting_prefix, keys::PrefixEnd(waiting_prefix));
      for (it->SeekToFirst(); it->Valid(); it->Next()) {
        CHAPTER_ASSIGN_OR_RETURN(const WaitingValue waiting, DecodeWaiting(it->value()));
        if (waiting.hub == hub.node) batch.Delete(Table::kMeta, it->key());
      }
      CHAPTER_RETURN_IF_ERROR(it->status());
    }

    // Headquarters may have said a word meanwhile.
    CHAPTER_RETURN_IF_ERROR(SendAwaitingApproval(*snapshot, transaction, hub.node));

    // Where the hub's memory and ours differ, the hub's counts: it takes from there, but
    // in a new epoch has forgotten more than it knows.
    joined.start =
        welcome.cursor.replica == identity_.replica && welcome.cursor.epoch == identity_.epoch
            ? welcome.cursor.sequence
            : Sequence{};
    if (known != Epoch{} && known != hub.epoch) joined.start = {};
    if (theirs.mark == Mark{} && joined.start > acknowledged.through) joined.start = {};
    // Going through the feed again had begun, and nothing of it was acknowledged.
    if (acknowledged.as == identity_.replica && acknowledged.through == Sequence{}) {
      joined.start = {};
    }
    // An entity that the hub has come to know: its records were held back.
    std::string entities;
    for (const auto& [entity, fingerprint] : hub.entities) AppendVarint(entity.value, entities);
    const std::string entities_key = keys::ByNode('k', hub.node);
    auto entities_known = transaction.Get(Table::kMeta, entities_key);
    if (!entities_known.ok() || *entities_known != entities) {
      batch.Put(Table::kMeta, entities_key, entities);
      if (entities_known.ok()) joined.start = {};
    }
    // A hub without a cursor, or with a void one, may lack what a partial record would leave out,
    // and claim to have seen it.
    if (joined.start == Sequence{} || joined.start < acknowledged.anew) {
      acknowledged.anew = kToEndOfFeed;
    }
    joined.anew = acknowledged.anew;
    acknowledged.through = joined.start;
    acknowledged.farthest = std::max(acknowledged.farthest, acknowledged.through);
    acknowledged.as = identity_.replica;
    if (!joined.restart && welcome.session != 0) {
      Remember(welcome.session, kSessionsKept, acknowledged.sessions);
      std::vector<uint64_t> attempts;
      if (auto bytes = transaction.Get(Table::kMeta, keys::kAttempts); bytes.ok()) {
        Reader in(*bytes);
        attempts = ReadSessions(in, kAttemptsKept);
      }
      std::erase(attempts, welcome.session);
      std::string left;
      AppendSessions(attempts, left);
      batch.Put(Table::kMeta, keys::kAttempts, left);
    }
    batch.Put(Table::kMeta, keys::Acknowledged(hub.replica), Encode(acknowledged));

    std::string prefix = keys::UnnotedDropPrefix(hub.node);
    auto it = snapshot->NewIterator(Table::kMeta, prefix, keys::PrefixEnd(prefix));
    for (it->SeekToFirst(); it->Valid(); it->Next()) {
      const uint64_t number = Reader(it->key().substr(prefix.size())).BigEndian64();
      if (number <= welcome.drops_noted) {
        batch.Delete(Table::kMeta, it->key());
      } else {
        joined.dropped.push_back({number, Reader(it->value()).Key()});
      }
    }
    CHAPTER_RETURN_IF_ERROR(it->status());
    prefix = std::string(1, keys::kResetKind);
    it = snapshot->NewIterator(Table::kMeta, prefix, keys::PrefixEnd(prefix));
    for (it->SeekToFirst(); it->Valid(); it->Next()) {
      CHAPTER_ASSIGN_OR_RETURN(const ResetValue reset, DecodeReset(it->value()));
      if (reset.hub != hub.node) continue;
      if (reset.epoch == hub.epoch) {
        joined.ask_whole.push_back(Reader(it->key().substr(1)).Key());
      } else {
        // The hub's past is another now: what it refused is sent and judged again.
        batch.Delete(Table::kMeta, it->key());
      }
    }
    CHAPTER_RETURN_IF_ERROR(it->status());

    CHAPTER_RETURN_IF_ERROR(transaction.Place());
    batch.Put(Table::kMeta, keys::kIdentity, EncodeIdentity());
    CHAPTER_RETURN_IF_ERROR(Commit(transaction));
    std::move(undo).Cancel();
    if (options_.hub) hubs_[hub.node] = std::move(epochs);
    events = transaction.events();
  }
  CHAPTER_RETURN_IF_ERROR(Finish(events));
  return joined;
}

}  // namespace chaptersync::storage
