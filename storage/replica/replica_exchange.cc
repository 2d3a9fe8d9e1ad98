// SPDX-License-Identifier: Apache-2.0
//
// The replica's half of the exchange with peers: handshakes, reading the feed
// for a peer, taking what a peer sent, acknowledgements, drops and refusals.
#include <algorithm>
#include <tuple>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"

#include "storage/core/limits.h"
#include "storage/core/planted.h"
#include "storage/core/record_codec.h"
#include "storage/core/status.h"
#include "storage/replica/hub_epochs.h"
#include "storage/replica/keys.h"
#include "storage/replica/replica.h"
#include "storage/replica/transaction.h"

namespace chaptersync::storage {
namespace {

// --- Small values under Table::kMeta; docs/disk_format.md lists them. ---

struct AcknowledgedValue {
  Epoch hub_epoch;
  Sequence through;
  Sequence farthest;  // the same, but never less than before
  HybridTime own_high;
  ReplicaId as;                    // this replica's id at that time
  std::vector<uint64_t> sessions;  // that the hub has welcomed, the last ones
};

void AppendSessions(const std::vector<uint64_t>& sessions, std::string& out) {
  AppendVarint(sessions.size(), out);
  for (const uint64_t session : sessions) AppendFixed64(session, out);
}

std::vector<uint64_t> ReadSessions(Reader& in, size_t most) {
  std::vector<uint64_t> sessions(in.Count(most, 8));
  for (uint64_t& session : sessions) session = in.Fixed64();
  return sessions;
}

void Remember(uint64_t session, size_t most, std::vector<uint64_t>& sessions) {
  std::erase(sessions, session);
  sessions.push_back(session);
  if (sessions.size() > most) sessions.erase(sessions.begin());
}

std::string Encode(const AcknowledgedValue& value) {
  std::string out;
  AppendFixed64(value.hub_epoch.value, out);
  AppendFixed64(value.through.value, out);
  AppendFixed64(value.farthest.value, out);
  AppendFixed64(value.own_high.ticks, out);
  AppendFixed64(value.as.value, out);
  AppendSessions(value.sessions, out);
  return out;
}

AcknowledgedValue DecodeAcknowledged(std::string_view bytes) {
  Reader in(bytes);
  AcknowledgedValue value;
  value.hub_epoch = {in.Fixed64()};
  value.through = {in.Fixed64()};
  value.farthest = {in.Fixed64()};
  value.own_high = {in.Fixed64()};
  value.as = {in.Fixed64()};
  value.sessions = ReadSessions(in, kSessionsKept);
  return in.ok() ? value : AcknowledgedValue{};
}

void AppendNode(const NodeId& node, std::string& out) {
  out.append(reinterpret_cast<const char*>(node.bytes.data()), node.bytes.size());
}

NodeId ReadNode(Reader& in) {
  NodeId node;
  const std::string_view bytes = in.Bytes(node.bytes.size());
  if (in.ok()) std::copy(bytes.begin(), bytes.end(), node.bytes.begin());
  return node;
}

// What the side that accepts sessions keeps of a replica id.
struct SessionsValue {
  Epoch epoch;  // its own, when it accepted the last
  uint64_t last = 0;
  bool shared = false;  // two computers use the id
  // The peer held nothing of this feed up to here, or this side cannot know: it is told
  // also of what it sent itself.
  Sequence anew;
  NodeId node;                    // whose id it is
  std::vector<uint64_t> earlier;  // sessions that the peer had opened before the last
};

std::string Encode(const SessionsValue& value) {
  std::string out;
  AppendFixed64(value.epoch.value, out);
  AppendFixed64(value.last, out);
  out.push_back(value.shared ? 1 : 0);
  AppendFixed64(value.anew.value, out);
  AppendNode(value.node, out);
  AppendSessions(value.earlier, out);
  return out;
}

SessionsValue DecodeSessions(std::string_view bytes) {
  Reader in(bytes);
  SessionsValue value;
  value.epoch = {in.Fixed64()};
  value.last = in.Fixed64();
  value.shared = in.Bytes(1) == std::string_view("\x01", 1);
  value.anew = {in.Fixed64()};
  value.node = ReadNode(in);
  value.earlier = ReadSessions(in, kAttemptsKept);
  return in.ok() ? value : SessionsValue{};
}

// What a record had seen when it was dropped, or is to be; and for which hub.
struct LeavingValue {
  NodeId hub;
  Epoch epoch;
  Seen seen;
  std::vector<NodeId> earlier;  // hubs for which it was dropped before
};

std::string Encode(const LeavingValue& value) {
  std::string out;
  AppendNode(value.hub, out);
  AppendFixed64(value.epoch.value, out);
  AppendVarint(value.seen.entries().size(), out);
  for (const auto& [replica, time] : value.seen.entries()) {
    AppendFixed64(replica.value, out);
    AppendFixed64(time.ticks, out);
  }
  AppendVarint(value.earlier.size(), out);
  for (const NodeId& node : value.earlier) AppendNode(node, out);
  return out;
}

absl::StatusOr<LeavingValue> DecodeLeaving(std::string_view bytes) {
  Reader in(bytes);
  LeavingValue value;
  value.hub = ReadNode(in);
  value.epoch = {in.Fixed64()};
  const size_t count = in.Count(kSeenMax, 16);
  for (size_t i = 0; i < count; ++i) {
    const ReplicaId replica{in.Fixed64()};
    value.seen.Advance(replica, {in.Fixed64()});
  }
  const size_t earlier = in.Count(kScopesMax, 16);
  for (size_t i = 0; i < earlier; ++i) value.earlier.push_back(ReadNode(in));
  if (!in.ok()) return absl::DataLossError("what is known of a dropped record cannot be read");
  return value;
}

std::string Encode(const RefusedRecord& value) {
  std::string out;
  AppendFixed64(value.sequence.value, out);
  out.push_back(static_cast<char>(value.reason));
  AppendString(value.message, out);
  return out;
}

// A refusal that a node has noted, with the hub that it waits for: no other can say
// what the record is without it.
struct ResetValue {
  NodeId hub;
  Epoch epoch;
  RefusedRecord refusal;
};

std::string Encode(const ResetValue& value) {
  std::string out;
  AppendNode(value.hub, out);
  AppendFixed64(value.epoch.value, out);
  return out + Encode(value.refusal);
}

absl::StatusOr<RefusedRecord> DecodeRefusal(std::string_view bytes) {
  Reader in(bytes);
  RefusedRecord value;
  value.sequence = {in.Fixed64()};
  const std::string_view reason = in.Bytes(1);
  if (!reason.empty()) value.reason = static_cast<RefusedRecord::Reason>(reason[0]);
  value.message = std::string(in.String(1 << 16));
  if (!in.ok()) return absl::DataLossError("a refusal cannot be read");
  return value;
}

// A refusal at the hub, with the hub's epoch.
std::string EncodePending(Epoch epoch, const RefusedRecord& value) {
  std::string out;
  AppendFixed64(epoch.value, out);
  return out + Encode(value);
}

absl::StatusOr<std::pair<Epoch, RefusedRecord>> DecodePending(std::string_view bytes) {
  Reader in(bytes);
  const Epoch epoch{in.Fixed64()};
  if (!in.ok()) return absl::DataLossError("a refusal cannot be read");
  CHAPTER_ASSIGN_OR_RETURN(RefusedRecord refused, DecodeRefusal(in.Bytes(in.remaining())));
  return std::pair{epoch, std::move(refused)};
}

// The hub that a record waits for, until it takes its stamps.
std::string EncodeWaiting(const NodeId& hub) {
  std::string out;
  AppendNode(hub, out);
  return out;
}

absl::StatusOr<ResetValue> DecodeReset(std::string_view bytes) {
  Reader in(bytes);
  ResetValue value;
  value.hub = ReadNode(in);
  value.epoch = {in.Fixed64()};
  if (!in.ok()) return absl::DataLossError("a refusal that was noted cannot be read");
  CHAPTER_ASSIGN_OR_RETURN(value.refusal, DecodeRefusal(in.Bytes(in.remaining())));
  return value;
}

std::string EncodeNumber(uint64_t value) {
  std::string out;
  AppendFixed64(value, out);
  return out;
}

uint64_t DecodeNumber(const absl::StatusOr<std::string>& bytes) {
  return bytes.ok() ? Reader(*bytes).Fixed64() : 0;
}

bool Disjoint(const std::set<Scope>& a, const std::set<Scope>& b) {
  return std::none_of(a.begin(), a.end(), [&](const Scope& s) { return b.contains(s); });
}

// Whether the record is back in a scope of the peer, after it had left this one or another
// of them, and the peer has not yet said that it has heard so.
bool ReturnedUnheard(const RecordMeta& meta, const ApplyRequest& request) {
  const bool left_one =
      std::any_of(meta.scopes.begin(), meta.scopes.end(), [&](const ScopePosition& position) {
        return position.left && request.peer_has.contains(position.scope);
      });
  return std::any_of(meta.scopes.begin(), meta.scopes.end(), [&](const ScopePosition& position) {
    if (position.left || !(position.returned || left_one)) return false;
    const auto has = request.peer_has.find(position.scope);
    return has != request.peer_has.end() && position.entered > has->second;
  });
}

// The chapter's scope among a node's.
const Scope* ChapterScope(const PeerIdentity& peer) {
  for (const Scope& scope : peer.scopes) {
    if (scope != Scope::Global()) return &scope;
  }
  return nullptr;
}

void PutCursor(const FeedCursor& cursor, bool peer_is_hub, WriteBatch& batch) {
  std::string value;
  AppendFixed64(cursor.epoch.value, value);
  AppendFixed64(cursor.sequence.value, value);
  AppendFixed64(cursor.mark.value, value);
  batch.Put(Table::kMeta, keys::Cursor(cursor.replica, peer_is_hub, cursor.scope), value);
}

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

Mark MarkAt(const Snapshot& snapshot, Sequence sequence) {
  auto it = snapshot.NewIterator(Table::kMeta, keys::Mark(sequence), keys::PrefixEnd("m"));
  it->SeekToFirst();
  return it->Valid() ? Mark{Reader(it->value()).Fixed64()} : Mark{};
}

}  // namespace

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
  }
  hello.node = options_.node;
  hello.hub = options_.hub;
  for (const auto& [entity, rule] : options_.entities) hello.entities[entity] = rule.fingerprint;
  auto snapshot = engine_.NewSnapshot();
  const std::string cursors(1, keys::kHubCursorKind);
  auto it = snapshot->NewIterator(Table::kMeta, cursors, keys::PrefixEnd(cursors));
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    Reader key(it->key().substr(1));
    Reader value(it->value());
    FeedCursor cursor;
    cursor.replica = {key.BigEndian64()};
    cursor.scope = {std::string(key.Bytes(key.remaining()))};
    cursor.epoch = {value.Fixed64()};
    cursor.sequence = {value.Fixed64()};
    cursor.mark = {value.Fixed64()};
    hello.cursors.push_back(std::move(cursor));
  }
  CHAPTER_RETURN_IF_ERROR(it->status());
  it = snapshot->NewIterator(Table::kMeta, "a", "b");
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    const AcknowledgedValue value = DecodeAcknowledged(it->value());
    hello.acknowledged.push_back({.hub = {Reader(it->key().substr(1)).BigEndian64()},
                                  .epoch = value.hub_epoch,
                                  .through = value.through,
                                  .as = value.as,
                                  .sessions = value.sessions});
  }
  CHAPTER_RETURN_IF_ERROR(it->status());
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

Sequence Replica::AcknowledgedBy(ReplicaId hub) const {
  auto bytes = engine_.Get(Table::kMeta, keys::Acknowledged(hub));
  return bytes.ok() ? DecodeAcknowledged(*bytes).through : Sequence{};
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
    if (sessions.node != NodeId{} && sessions.node != peer.node) {
      return absl::PermissionDeniedError(
          absl::StrCat("replica ", ToHex(peer.replica.value), " is another node's"));
    }
    sessions.node = peer.node;
    const auto contains = [&](const std::vector<uint64_t>& some) {
      return std::find(some.begin(), some.end(), sessions.last) != some.end();
    };
    bool remembered = sessions.last == 0 || sessions.epoch != identity_.epoch ||
                      hello.session == 0 || contains(hello.attempts);
    for (const Acknowledgement& theirs : hello.acknowledged) {
      if (theirs.hub != identity_.replica || theirs.epoch != identity_.epoch) continue;
      // Whoever comes as the former self of a node that has gone on has gone back.
      if (theirs.as != peer.replica &&
          CursorIn(theirs.as, peer.hub, Scope::All()).epoch == peer.epoch) {
        SessionsValue former = sessions_of(theirs.as);
        former.shared = true;
        batch.Put(Table::kMeta, keys::SessionsOf(theirs.as), Encode(former));
      }
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
    if (!rolled_back && (sessions.shared || !remembered || over)) {
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
    const bool any_cursor =
        std::any_of(hello.cursors.begin(), hello.cursors.end(),
                    [&](const FeedCursor& theirs) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
                      return theirs.replica == identity_.replica && theirs.epoch == identity_.epoch;
                    });
    if (!any_cursor && !accepted.shared) sessions.anew = last_sequence_;
    accepted.anew = sessions.anew;
    if (!accepted.shared) {
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
      if (pending.first != identity_.epoch) {
        batch.Delete(Table::kMeta, it->key());
        continue;
      }
      pending.second.key = Reader(it->key().substr(prefix.size())).Key();
      accepted.refused.push_back(std::move(pending.second));
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
    HybridTime own_high;
    auto acknowledged = snapshot->NewIterator(Table::kMeta, "a", "b");
    for (acknowledged->SeekToFirst(); acknowledged->Valid(); acknowledged->Next()) {
      own_high = std::max(own_high, DecodeAcknowledged(acknowledged->value()).own_high);
    }
    CHAPTER_RETURN_IF_ERROR(acknowledged->status());
    const HybridTime again_above = AgainAbove(limit, own_high);
    for (size_t sent = 0; it->Valid(); it->Next()) {
      if (it->value() != EncodeWaiting(hub.node)) continue;
      if (sent == kBatchWritesMax) break;
      const RecordKey key = Reader(it->key().substr(1)).Key();
      StoredRecord* held = transaction.Find(key);
      if (held != nullptr && held->record.seen.Highest() > limit) {
        Seen others = held->record.seen;
        for (const ReplicaId& id : identity_.own) others.Set(id, {});
        // Where only this node's own stamps are ahead now they can be made again.
        if (others.Highest() > limit || held->record.seen.Highest() <= again_above) continue;
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
      CHAPTER_RETURN_IF_ERROR(StampAgain(transaction, {}, again_above, old_id, false, again));
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

HybridTime Replica::AgainAbove(HybridTime limit, HybridTime own_high) {
  // What a hub has acknowledged others may have seen, and under a new stamp it could show as
  // a conflict: where waiting helps, this hub waits for it.
  const bool wait =
      own_high > limit && own_high.wall_ms() <= limit.wall_ms() + kAcknowledgedAheadMsMax;
  return wait ? own_high : limit;
}

absl::StatusOr<HubEpochs> Replica::EpochsOf(const NodeId& hub) const {
  auto bytes = engine_.Get(Table::kMeta, keys::HubEpochsOf(hub));
  if (absl::IsNotFound(bytes.status())) return HubEpochs{};
  CHAPTER_RETURN_IF_ERROR(bytes.status());
  return DecodeHubEpochs(*bytes);
}

absl::StatusOr<bool> Replica::DroppedFor(const NodeId& hub, Epoch epoch) const {
  const std::string prefix(1, keys::kDroppedKind);
  auto snapshot = engine_.NewSnapshot();
  auto it = snapshot->NewIterator(Table::kMeta, prefix, keys::PrefixEnd(prefix));
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    CHAPTER_ASSIGN_OR_RETURN(const LeavingValue value, DecodeLeaving(it->value()));
    if (value.hub == hub && value.epoch == epoch) return true;
  }
  CHAPTER_RETURN_IF_ERROR(it->status());
  return false;
}

HubsTold Replica::TellOfHubs() const {
  HubsTold told;
  absl::ReaderMutexLock lock(&mutex_);
  for (const auto& [node, epochs] : hubs_) {
    if (told.hubs.size() == kHubsMax) break;
    told.hubs.push_back({node, epochs.latest(), epochs.at_ms, epochs.earlier});
  }
  told.reached.assign(reached_.begin(), reached_.end());
  return told;
}

absl::StatusOr<HubsHeardOf> Replica::HearOfHubs(const PeerIdentity& from, const HubsTold& told) {
  HubsHeardOf heard;
  {
    absl::MutexLock lock(&mutex_);
    // It is still there, in this epoch.
    const auto known = hubs_.find(from.node);
    if (known != hubs_.end() && known->second.latest() == from.epoch) {
      known->second.at_ms = std::max(known->second.at_ms, WallMs());
    }
    CHAPTER_ASSIGN_OR_RETURN(const bool news, NoteHubs(told.hubs, heard.dropped));
    heard.went_back = NoteReached(*engine_.NewSnapshot(), told.reached) &&
                      !IsPlanted(Planted::kRollbackNotNoticed);
    if (!news && !heard.went_back) return heard;
    if (heard.went_back) {
      absl::Cleanup undo = [this, before = identity_]()
                               ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { identity_ = before; };
      NewIdentity(true);
      WriteBatch batch;
      batch.Put(Table::kMeta, keys::kIdentity, EncodeIdentity());
      CHAPTER_RETURN_IF_ERROR(engine_.Write(batch));
      std::move(undo).Cancel();
    }
  }
  CHAPTER_RETURN_IF_ERROR(engine_.Sync());
  return heard;
}

bool Replica::Remembers(const Snapshot& snapshot, const FeedCursor& theirs) const {
  return theirs.sequence <= last_sequence_ &&
         (theirs.mark == Mark{} || MarkAt(snapshot, theirs.sequence) == theirs.mark);
}

bool Replica::NoteReached(const Snapshot& snapshot, const std::vector<FeedCursor>& cursors) {
  if (!options_.hub) return false;
  bool further = false;
  for (const FeedCursor& cursor : cursors) {
    if (cursor.sequence == Sequence{}) continue;
    if (Own(cursor.replica)) {
      further |= cursor.replica == identity_.replica && cursor.epoch == identity_.epoch &&
                 !Remembers(snapshot, cursor);
      continue;
    }
    const auto known = std::find_if(reached_.begin(), reached_.end(), [&](const FeedCursor& one) {
      return one.replica == cursor.replica && one.epoch == cursor.epoch;
    });
    if (known != reached_.end()) {
      if (known->sequence >= cursor.sequence) continue;
      reached_.erase(known);
    }
    if (reached_.size() == kReachedMax) reached_.pop_front();
    reached_.push_back({cursor.replica, cursor.epoch, {}, cursor.sequence, cursor.mark});
  }
  return further;
}

absl::StatusOr<bool> Replica::NoteHubs(const std::vector<KnownHub>& hubs, bool& dropped) {
  WriteBatch batch;
  std::map<NodeId, HubEpochs> news;
  for (const KnownHub& hub : hubs) {
    if (hub.node == options_.node) continue;
    CHAPTER_ASSIGN_OR_RETURN(HubEpochs epochs, EpochsOf(hub.node));
    const Epoch before = epochs.latest();
    // Of a hub that a node never met it has dropped nothing.
    if (before == Epoch{} && (!options_.hub || hubs_.size() + news.size() >= kHubsMax)) continue;
    if (!epochs.Hear(hub.epoch, hub.at_ms, hub.over)) continue;
    if (!options_.hub && !dropped) {
      CHAPTER_ASSIGN_OR_RETURN(dropped, DroppedFor(hub.node, before));
    }
    batch.Put(Table::kMeta, keys::HubEpochsOf(hub.node), Encode(epochs));
    news[hub.node] = std::move(epochs);
  }
  if (news.empty()) return false;
  if (dropped) batch.Put(Table::kMeta, keys::kCursorsVoid, "");
  CHAPTER_RETURN_IF_ERROR(engine_.Write(batch));
  if (options_.hub) {
    for (auto& [node, epochs] : news) hubs_[node] = std::move(epochs);
  }
  return true;
}

absl::Status Replica::VoidCursors(WriteBatch& batch) const {
  const std::string prefix(1, keys::kHubCursorKind);
  auto snapshot = engine_.NewSnapshot();
  auto it = snapshot->NewIterator(Table::kMeta, prefix, keys::PrefixEnd(prefix));
  for (it->SeekToFirst(); it->Valid(); it->Next()) batch.Delete(Table::kMeta, it->key());
  return it->status();
}

absl::StatusOr<uint64_t> Replica::CountWaiting(const NodeId& hub) const {
  uint64_t count = 0;
  const std::string prefix(1, keys::kWaitingKind);
  auto snapshot = engine_.NewSnapshot();
  auto it = snapshot->NewIterator(Table::kMeta, prefix, keys::PrefixEnd(prefix));
  for (it->SeekToFirst(); it->Valid(); it->Next()) count += it->value() == EncodeWaiting(hub);
  CHAPTER_RETURN_IF_ERROR(it->status());
  return count;
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
    HybridTime own_high;
    Sequence told;  // some hub has come so far in this feed
    auto snapshot = engine_.NewSnapshot();
    auto it = snapshot->NewIterator(Table::kMeta, "a", "b");
    for (it->SeekToFirst(); it->Valid(); it->Next()) {
      const AcknowledgedValue value = DecodeAcknowledged(it->value());
      own_high = std::max(own_high, value.own_high);
      told = std::max(told, value.farthest);
    }
    CHAPTER_RETURN_IF_ERROR(it->status());
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
        CHAPTER_RETURN_IF_ERROR(StampAgain(transaction, told, own_high, old_id, true, again));
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
      const HybridTime again_above = AgainAbove(limit, own_high);
      CHAPTER_ASSIGN_OR_RETURN(const OwnStamps own, FindOwnStamps(limit, again_above));
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
            StampAgain(transaction, acknowledged.through, again_above, old_id, false, again));
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
        CHAPTER_ASSIGN_OR_RETURN(dropped, DroppedFor(hub.node, before));
      }
      std::string prefix(1, keys::kHubCursorKind);
      it = snapshot->NewIterator(Table::kMeta, prefix, keys::PrefixEnd(prefix));
      for (it->SeekToFirst(); it->Valid(); it->Next()) {
        const ReplicaId feed{Reader(it->key().substr(1)).BigEndian64()};
        if (feed != hub.replica && (dropped || SameLineage(feed, hub.replica))) {
          batch.Delete(Table::kMeta, it->key());
        }
      }
      CHAPTER_RETURN_IF_ERROR(it->status());
      prefix = std::string(1, keys::kLeavingKind);
      it = snapshot->NewIterator(Table::kMeta, prefix, keys::PrefixEnd(prefix));
      for (it->SeekToFirst(); it->Valid(); it->Next()) {
        CHAPTER_ASSIGN_OR_RETURN(const LeavingValue leaving, DecodeLeaving(it->value()));
        if (leaving.hub == hub.node) batch.Delete(Table::kMeta, it->key());
      }
      CHAPTER_RETURN_IF_ERROR(it->status());
      // And everything goes to it again, also what waited.
      const std::string waiting_prefix(1, keys::kWaitingKind);
      it = snapshot->NewIterator(Table::kMeta, waiting_prefix, keys::PrefixEnd(waiting_prefix));
      for (it->SeekToFirst(); it->Valid(); it->Next()) {
        if (it->value() == EncodeWaiting(hub.node)) batch.Delete(Table::kMeta, it->key());
      }
      CHAPTER_RETURN_IF_ERROR(it->status());
    }

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
    it = snapshot->NewIterator(Table::kMeta, prefix, keys::PrefixEnd(prefix));
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

// Own stamps above `again_above` in records that others have not stamped as far ahead
// are made again; those of the present id above `limit` may stay.
absl::StatusOr<Replica::OwnStamps> Replica::FindOwnStamps(HybridTime limit,
                                                          HybridTime again_above) const {
  OwnStamps found;
  if (clock_.last() <= limit) return found;
  auto snapshot = engine_.NewSnapshot();
  auto it = snapshot->NewIterator(Table::kRecord, "", "");
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    CHAPTER_ASSIGN_OR_RETURN(const StoredRecord stored, DecodeStored(it->value()));
    bool own = false;
    bool others = false;
    for (const auto& [replica, time] : stored.record.seen.entries()) {
      if (time > again_above) (Own(replica) ? own : others) = true;
    }
    found.again |= own && !others;
    found.stay |= stored.record.seen.Get(identity_.replica) > limit;
  }
  CHAPTER_RETURN_IF_ERROR(it->status());
  return found;
}

// Own writes get the present replica id: with `keep_times` all that nobody else knows,
// which is what came up after `after` in the feed or is stamped above `limit`, under
// their old clock readings; else those stamped above `limit`, in their old order, with
// new ones.
// What was written under the old id above `limit` these records then have not seen.
absl::Status Replica::StampAgain(Transaction& transaction, Sequence after, HybridTime limit,
                                 ReplicaId old_id, bool keep_times, size_t& count) {
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
    // Above what others have stamped ahead no stamp is any better.
    if (!keep_times && others.Highest() > limit) continue;
    touched.push_back(key);
    for (const Version& version : versions) old_writes[version].push_back(key);
    if (!keep_times) clock_.Observe(std::max(kept, others.Highest()));
  }
  CHAPTER_RETURN_IF_ERROR(it->status());
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
      const bool anew = sequence <= request.anew;
      bool refused = false;
      if (any_refused) {
        auto reset = snapshot->Get(Table::kMeta, keys::Reset(key));
        if (reset.ok()) {
          CHAPTER_ASSIGN_OR_RETURN(const ResetValue value, DecodeReset(*reset));
          refused = value.hub == request.peer.node && value.epoch == request.peer.epoch;
        } else if (!absl::IsNotFound(reset.status())) {
          return reset.status();
        }
      }
      if ((stored.meta.origin == request.peer.replica && !anew) || refused) {
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
  CHAPTER_RETURN_IF_ERROR(EnsureDurable(durable));
  return page;
}

absl::StatusOr<RecordsPage> Replica::ReadRecords(const RecordsRequest& request) {
  RecordsPage page;
  size_t size = 0;
  Sequence durable;
  {
    absl::MutexLock lock(&mutex_);
    WriteBatch batch;
    for (const RecordKey& key : request.keys) {
      if (page.read > 0 && size >= request.bytes_max) break;
      ++page.read;
      if (request.refusals_noted && options_.hub) {
        batch.Delete(Table::kMeta, keys::Refusal(request.peer.node, request.peer.epoch, key));
      }
      auto bytes = engine_.Get(Table::kRecord, EncodeKey(key));
      FeedItem left{.kind = FeedItem::Kind::kLeft,
                    .sequence = {},
                    .key = key,
                    .update = {},
                    .seen = {},
                    .own_high = {}};
      if (absl::IsNotFound(bytes.status())) {
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
                          (request.asked && (request.peer.scopes.contains(stored.meta.maker) ||
                                             !Disjoint(held, request.peer.scopes)));
      if (theirs) {
        page.items.push_back(MakeItem(key, stored, request.peer, {}, request.since, request.asked));
        size += page.items.back().update.size();
        continue;
      }
      if (current.empty() && !request.asked) continue;
      if (current.empty()) {
        left.kind = FeedItem::Kind::kUnplaced;
      } else {
        left.seen = stored.record.seen;
      }
      page.items.push_back(std::move(left));
    }
    if (!batch.empty()) CHAPTER_RETURN_IF_ERROR(engine_.Write(batch));
    durable = last_sequence_;
  }
  CHAPTER_RETURN_IF_ERROR(EnsureDurable(durable));
  return page;
}

// Whether the hub takes a push of this record from this node.
absl::Status Replica::Admit(const PeerIdentity& peer, const RecordKey& key,
                            const RecordUpdate& update, const StoredRecord* current) {
  auto rule = options_.entities.find(key.entity);
  if (rule == options_.entities.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("entity ", key.entity.value, " is not known to the hub"));
  }
  for (const Cell& cell : update.state.cells) {
    if (!SameLineage(cell.version.replica, peer.replica)) continue;
    const Cell* held = current == nullptr ? nullptr : current->record.Find(cell.path);
    if (held != nullptr && held->version == cell.version) continue;
    if (rule->second.headquarters_only ||
        rule->second.headquarters_fields.contains(cell.path.field)) {
      return absl::PermissionDeniedError(absl::StrCat("field ", cell.path.field, " of record ",
                                                      key.id.ToString(),
                                                      " is written by headquarters only"));
    }
  }
  if (current == nullptr || update.again || update.state.erased || current->record.erased) {
    return absl::OkStatus();
  }
  const std::vector<Scope> scopes = current->meta.Current();
  if (scopes.empty() || !Disjoint({scopes.begin(), scopes.end()}, peer.scopes)) {
    return absl::OkStatus();
  }
  // Outside the node's scopes: it had the right when it wrote, unless it has
  // said since then that it let the record go.
  auto dropped = engine_.Get(Table::kMeta, keys::DroppedBy(peer.node, peer.epoch, key));
  if (absl::IsNotFound(dropped.status())) return absl::OkStatus();
  CHAPTER_RETURN_IF_ERROR(dropped.status());
  Reader in(*dropped);
  const Sequence since{in.Fixed64()};
  // In another epoch: this hub may have sent it again since, and forgotten that.
  if (Epoch{in.Fixed64()} != identity_.epoch) return absl::OkStatus();
  for (const Scope& scope : peer.scopes) {
    const ScopePosition* position = current->meta.Position(scope);
    if (position != nullptr && position->entered > since) return absl::OkStatus();
  }
  return absl::PermissionDeniedError(
      absl::StrCat("record ", key.id.ToString(), " is another chapter's now"));
}

RecordOutcome Replica::ApplyOne(Transaction& transaction, const ApplyRequest& request,
                                const InboundRecord& inbound) {
  using Kind = RecordOutcome::Kind;
  const PeerIdentity& peer = request.peer;
  const RecordKey& key = inbound.key;
  RecordOutcome outcome{.kind = Kind::kTaken,
                        .key = key,
                        .sequence = inbound.sequence,
                        .answer = false,
                        .refusal = {}};
  const auto refuse = [&](RefusedRecord::Reason reason,
                          std::string message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    transaction.Forget(key);
    outcome.kind = Kind::kRefused;
    outcome.answer = false;
    outcome.refusal = {key, inbound.sequence, reason, std::move(message)};
    if (options_.hub && !peer.hub) {
      transaction.batch().Put(Table::kMeta, keys::Refusal(peer.node, peer.epoch, key),
                              EncodePending(identity_.epoch, outcome.refusal));
    }
    return outcome;
  };
  auto update = DecodeUpdate(inbound.update);
  if (!update.ok()) {
    return refuse(RefusedRecord::Reason::kMalformed, std::string(update.status().message()));
  }
  if (options_.hub && options_.ahead_max_ms) {
    const uint64_t now_ms = std::max(clock_.last().wall_ms(), WallMs());
    const HybridTime limit = HybridTime::FromWall(now_ms + *options_.ahead_max_ms);
    if (update->state.seen.Highest() > limit) {
      // Its own stamps the peer makes anew at the next handshake; those of others, by a
      // clock that was ahead, it cannot, and they hold up nothing else.
      Seen others = update->state.seen;
      others.Set(peer.replica, {});
      if (!peer.hub && others.Highest() > limit) {
        return refuse(RefusedRecord::Reason::kAhead,
                      absl::StrCat("record ", key.id.ToString(), " was stamped ",
                                   (others.Highest().wall_ms() - now_ms) / 1000,
                                   " s ahead of the hub's clock (at most ",
                                   *options_.ahead_max_ms / 1000, " s)"));
      }
      outcome.kind = Kind::kAhead;
      return outcome;
    }
  }
  StoredRecord* held = transaction.Find(key);
  bool take_back = false;
  LeavingValue dropped;
  if (!options_.hub && held == nullptr) {
    if (update->state.erased) {
      // Of a record that was dropped, refused writes may still be listed.
      if (auto status = ForgetRefusedOf(transaction, key); !status.ok()) {
        return refuse(RefusedRecord::Reason::kMalformed, status.ToString());
      }
      outcome.kind = Kind::kIgnored;
      return outcome;
    }
    auto bytes = transaction.Get(Table::kMeta, keys::Dropped(key));
    if (bytes.ok()) {
      auto decoded = DecodeLeaving(*bytes);
      if (!decoded.ok()) return refuse(RefusedRecord::Reason::kMalformed, "damaged");
      dropped = *std::move(decoded);
      auto epochs = transaction.Get(Table::kMeta, keys::HubEpochsOf(dropped.hub));
      const Epoch now = epochs.ok() ? DecodeHubEpochs(*epochs).latest() : Epoch{};
      if (now == dropped.epoch && !update->state.seen.CoversAll(dropped.seen) &&
          !IsPlanted(Planted::kTakenBackTooEarly)) {
        outcome.kind = Kind::kIgnored;
        return outcome;
      }
      take_back = true;
    }
  }
  const Record nothing;
  const Record& mine = held == nullptr ? nothing : held->record;
  if (!update->whole && !mine.seen.CoversAll(update->base) && !mine.erased &&
      !IsPlanted(Planted::kPartialWithoutBase)) {
    outcome.kind = Kind::kNeedsWhole;
    return outcome;
  }
  if (options_.hub && !peer.hub) {
    if (auto status = Admit(peer, key, *update, held); !status.ok()) {
      if (IsPlanted(Planted::kContextAdvancedByRefusedWrite) && held != nullptr &&
          absl::IsPermissionDenied(status)) {
        held->record.seen.Unite(update->state.seen);
        transaction.Touch(key);
      }
      return refuse(absl::IsPermissionDenied(status) ? RefusedRecord::Reason::kRights
                                                     : RefusedRecord::Reason::kMalformed,
                    std::string(status.message()));
    }
  }
  // Another hub has said that it leaves, and this one may be behind: pushed anew, it gets
  // that hub's word again.
  bool called_off = false;
  if (!options_.hub) {
    const auto reset = NotedRefusal(transaction, key, peer);
    if (!reset.ok()) return refuse(RefusedRecord::Reason::kMalformed, reset.status().ToString());
    if (*reset && !update->whole) {
      outcome.kind = Kind::kNeedsWhole;
      return outcome;
    }
    // The hub sends it again: it is not leaving after all.
    auto leaving = transaction.Get(Table::kMeta, keys::Leaving(key));
    if (held != nullptr && leaving.ok()) {
      const auto decoded = DecodeLeaving(*leaving);
      if (!decoded.ok()) return refuse(RefusedRecord::Reason::kMalformed, "damaged");
      transaction.batch().Delete(Table::kMeta, keys::Leaving(key));
      called_off = decoded->hub != peer.node;
    }
    if (*reset) {
      TakeOutRefused(transaction, key, peer, **reset, &*update, update->state.seen);
      return outcome;
    }
  }
  // Nothing was left out that is not here, or that an erasure would not take.
  if (held == nullptr || mine.erased || IsPlanted(Planted::kPartialWithoutBase)) {
    update->whole = true;
  }
  MergeResult merged =
      Merge(mine, *update, {Writer(), std::max(clock_.last(), HybridTime::FromWall(WallMs()))});
  for (const std::string& damage : merged.damage) {
    damage_.push_back(absl::StrCat("record ", key.id.ToString(), ": ", damage));
  }
  conflicts_found_ += merged.conflicts_found;
  if (std::string over = OverLimit(merged.record); !over.empty() && options_.hub && !peer.hub) {
    return refuse(RefusedRecord::Reason::kMalformed,
                  absl::StrCat("record ", key.id.ToString(), " would have ", over));
  }
  const bool equals_sent = Contains(update->state, merged.record);
  // Named scopes count at a hub that has no rule of its own for the entity.
  const bool named_anew = peer.hub && options_.hub && held != nullptr &&
                          !options_.entities.contains(key.entity) &&
                          held->meta.named != update->named_scopes;
  const bool changed = !Contains(mine, update->state) || !merged.damage.empty() ||
                       held == nullptr || named_anew ||
                       merged.record.cells.size() > mine.cells.size();  // seen here, and lost
  if (options_.hub) outcome.answer = !equals_sent;
  if (!changed && !called_off) return outcome;
  const bool existed = held != nullptr;
  const std::vector<Scope> before = existed ? held->meta.Current() : std::vector<Scope>{};
  StoredRecord& stored = transaction.Make(key);
  stored.record = std::move(merged.record);
  // An own write that comes from a hub, after a backup was put back, is nothing that only
  // this replica knows.
  constexpr Sequence kLongAgo{1};
  if (!options_.hub) {
    for (Cell& cell : stored.record.cells) {
      if (cell.learned == Sequence{} && Own(cell.version.replica)) cell.learned = kLongAgo;
    }
  }
  // Only what this replica itself learnt has a place in its feed; the rest gets one now.
  stored.meta.origin = equals_sent && !called_off ? peer.replica : ReplicaId{};
  // It may have been told that the record left, and must hear that it has not.
  if (options_.hub && !peer.hub && existed &&
      (Disjoint({before.begin(), before.end()}, peer.scopes) ||
       ReturnedUnheard(stored.meta, request))) {
    stored.meta.origin = {};
    outcome.answer = true;
  }
  if (peer.hub) stored.meta.named = update->named_scopes;
  if (options_.hub && !peer.hub && !existed) {
    if (const Scope* chapter = ChapterScope(peer)) stored.meta.maker = *chapter;
  }
  if (take_back) {
    transaction.batch().Delete(Table::kMeta, keys::Dropped(key));
    stored.meta.again = dropped.earlier;
    stored.meta.again.push_back(dropped.hub);
    // Taken back in a state that may lack writes of ours: never write under an id
    // whose writes others may have seen.
    if (!stored.record.seen.CoversAll(dropped.seen) && !IsPlanted(Planted::kTakenBackTooEarly)) {
      ChangeIdentity();
    }
  }
  clock_.Observe(stored.record.seen.Highest());
  transaction.Touch(key);
  return outcome;
}

// The refusal of this hub that waits for its word on the record.
absl::StatusOr<std::optional<RefusedRecord>> Replica::NotedRefusal(Transaction& transaction,
                                                                   const RecordKey& key,
                                                                   const PeerIdentity& hub) {
  auto bytes = transaction.Get(Table::kMeta, keys::Reset(key));
  if (absl::IsNotFound(bytes.status())) return std::nullopt;
  CHAPTER_RETURN_IF_ERROR(bytes.status());
  CHAPTER_ASSIGN_OR_RETURN(ResetValue reset, DecodeReset(*bytes));
  if (reset.hub != hub.node || reset.epoch != hub.epoch) return std::nullopt;
  return std::move(reset.refusal);
}

// A hub refused what this node wrote to a record, and its own state has come: that
// stands, later writes of this node go on top, what was refused is listed. Where the
// record has left (`hub_state` null), or the hub has never had it (`hub_seen` empty as
// well), what was refused is taken out of it.
void Replica::TakeOutRefused(Transaction& transaction, const RecordKey& key,
                             const PeerIdentity& hub, const RefusedRecord& refusal,
                             const RecordUpdate* hub_state, const Seen& hub_seen) {
  transaction.batch().Delete(Table::kMeta, keys::Reset(key));
  StoredRecord* held = transaction.Find(key);
  if (held == nullptr) return;
  if (held->record.erased) {
    // An erasure is nobody's to refuse; this hub may not have it.
    held->meta.origin = {};
    return transaction.Touch(key);
  }
  const std::set<ReplicaId> own(identity_.own.begin(), identity_.own.end());
  const auto unseen_own = [&](const Version& version) {
    return own.contains(version.replica) && !hub_seen.Covers(version);
  };
  RefusedWrite refused{.number = 0,
                       .key = key,
                       .cells = {},
                       .actor = {},
                       .reason = refusal.message,
                       .written_at = {}};
  std::vector<RefusedWrite> lost;
  std::set<ReplicaId> taken_out;  // ids of which a write leaves the record
  RecordUpdate later;
  later.whole = false;
  later.state.seen = held->record.seen;
  std::vector<Cell> others;
  for (const Cell& cell : held->record.cells) {
    if (!unseen_own(cell.version)) {
      others.push_back(cell);
    } else if (cell.learned > refusal.sequence) {
      later.state.cells.push_back(cell);
    } else {
      refused.cells.push_back({cell.path, cell.value});
      refused.actor = cell.actor;
      refused.written_at = std::max(refused.written_at, cell.version.time);
      taken_out.insert(cell.version.replica);
    }
  }
  size_t settlements = 0;
  for (ConflictEntry entry : held->record.conflicts) {
    for (const SettlementEntry& s : entry.settlements) {
      if (!unseen_own(s.version)) continue;
      ++settlements;
      taken_out.insert(s.version.replica);
      refused.written_at = std::max(refused.written_at, s.version.time);
    }
    std::erase_if(entry.settlements, [&](const auto& s) { return unseen_own(s.version); });
    if (unseen_own(entry.lost_version) && !entry.path.existence()) {
      // A value of this node that lost here, and that the hub has never had: listed by
      // itself, as another may have been written over it.
      lost.push_back({.number = 0,
                      .key = key,
                      .cells = {{entry.path, entry.lost_value}},
                      .actor = entry.lost_actor,
                      .reason = refusal.message,
                      .written_at = entry.lost_version.time});
      taken_out.insert(entry.lost_version.replica);
    } else {
      later.state.conflicts.push_back(std::move(entry));
    }
  }
  // A hub that has gone back does not know them any more, and this node cannot tell what
  // they had replaced: an officer is to see them.
  // The same where the record has left, once something was taken out: what remains shows less
  // than it had seen, and would hide from the hub what the refused writes had replaced.
  const bool gaps = hub_state == nullptr && !hub_seen.empty() && !refused.cells.empty();
  const auto list_lost = [&](const CellPath& path, const std::optional<std::string>& value,
                             const std::string& actor, HybridTime written_at) {
    lost.push_back(
        {.number = 0,
         .key = key,
         .cells = {{path, value}},
         .actor = actor,
         .reason = absl::StrCat("the hub has not got this write of ", actor,
                                ", and refused what was written with it: ", refusal.message),
         .written_at = written_at});
  };
  if (hub_state != nullptr || gaps) {
    for (const Cell& cell : others) {
      if (hub_seen.Covers(cell.version)) continue;
      list_lost(cell.path, cell.value, cell.actor, cell.version.time);
    }
  }
  if (gaps) {
    std::erase_if(later.state.conflicts, [&](const ConflictEntry& entry) {
      const bool known = hub_seen.Covers(entry.lost_version);
      if (!known) {
        list_lost(entry.path, entry.lost_value, entry.lost_actor, entry.lost_version.time);
      }
      // Of what goes on to the hub the settlements go along.
      if (!known || later.state.cells.empty()) {
        for (const SettlementEntry& s : entry.settlements) {
          settlements += !hub_seen.Covers(s.version);
        }
      }
      return !known;
    });
    // It stays until it is dropped.
    if (!later.state.cells.empty()) {
      std::erase_if(others, [&](const Cell& cell) { return !hub_seen.Covers(cell.version); });
    }
  }
  if (settlements > 0) {
    absl::StrAppend(&refused.reason, " (with it went ", settlements, " settlements of conflicts)");
  }
  // To have seen a later write of an id is to have seen all before it: what was refused
  // would count as replaced if it came back, from a backup or by way of another hub.
  if (taken_out.contains(identity_.replica)) ChangeIdentity();
  const HybridTime known_elsewhere = HighestKnownElsewhere(transaction, hub.replica);
  std::map<Version, Version> renamed;
  std::set<HybridTime> used;
  for (const Cell& cell : later.state.cells) {
    const Version& version = cell.version;
    if (!taken_out.contains(version.replica) || version.time <= known_elsewhere) continue;
    const auto [it, fresh] = renamed.try_emplace(version);
    if (!fresh) continue;
    HybridTime time = version.time;
    while (!used.insert(time).second) ++time.ticks;
    it->second = {time, identity_.replica};
  }
  const auto rename = [&](Version& version) {
    const auto it = renamed.find(version);
    if (it != renamed.end()) version = it->second;
  };
  for (Cell& cell : later.state.cells) {
    rename(cell.version);
    later.state.seen.Advance(cell.version);
    if (cell.version.replica == identity_.replica) NoteStamp(transaction, key, cell.version);
  }
  for (ConflictEntry& entry : later.state.conflicts) {
    rename(entry.lost_version);
    rename(entry.current_version);
  }
  std::sort(later.state.conflicts.begin(), later.state.conflicts.end(),
            [](const auto& a, const auto& b) {
              return std::tie(a.path, a.lost_version) < std::tie(b.path, b.lost_version);
            });
  const bool erased = hub_state != nullptr && hub_state->state.erased;
  for (RefusedWrite& write : lost) {
    if (!erased) PutRefused(transaction, std::move(write));
  }
  if (refused.written_at != HybridTime{} && !erased) PutRefused(transaction, std::move(refused));
  held->meta.origin = {};
  if (hub_state == nullptr) {
    // A hub that has never had it, or has lost it, gets what others wrote; to one where it
    // has left there is nothing to send but later writes.
    const bool known = gaps || (!hub_seen.empty() &&
                                std::all_of(others.begin(), others.end(), [&](const Cell& cell) {
                                  return hub_seen.Covers(cell.version);
                                }));
    // What was refused as it is now would be so again.
    const bool again = !known && !taken_out.empty();
    if (later.state.cells.empty() && !again) held->meta.origin = hub.replica;
    for (Cell& cell : later.state.cells) others.push_back(std::move(cell));
    if (others.empty()) return transaction.Remove(key);
    // Where something is missing it claims no more of others than the hub does.
    Seen& seen = held->record.seen;
    const Seen claimed = seen;
    for (const auto& [id, time] : claimed.entries()) {
      if (gaps || taken_out.contains(id)) seen.Set(id, std::min(time, hub_seen.Get(id)));
    }
    for (const Cell& cell : others) seen.Advance(cell.version);
    std::sort(others.begin(), others.end(),
              [](const Cell& a, const Cell& b) { return a.path < b.path; });
    held->record.cells = std::move(others);
    held->record.conflicts = std::move(later.state.conflicts);
  } else {
    MergeResult merged =
        Merge(hub_state->state, later,
              {identity_.replica, std::max(clock_.last(), HybridTime::FromWall(WallMs()))});
    Record& record = merged.record;
    // What lost to a write that was refused has not lost.
    const auto known = [&](const ConflictEntry& entry) {
      const auto& log = hub_state->state.conflicts;
      return std::any_of(log.begin(), log.end(), [&](const ConflictEntry& e) {
        return e.path == entry.path && e.lost_version == entry.lost_version;
      });
    };
    const auto kept = [&](const Version& version) {
      return std::any_of(later.state.cells.begin(), later.state.cells.end(),
                         [&](const Cell& cell) { return cell.version == version; });
    };
    std::erase_if(record.conflicts, [&](const ConflictEntry& entry) {
      // But a deletion has, as long as a later write keeps the record.
      const Cell* cell = record.Find(entry.path);
      if (cell != nullptr && cell->version == entry.lost_version && record.live()) return false;
      return cell != nullptr && hub_seen.Covers(cell->version) &&
             hub_seen.Covers(entry.lost_version) && unseen_own(entry.current_version) &&
             !kept(entry.current_version) && !known(entry);
    });
    // What this node had seen beyond the hub's state it does not hold any more.
    // Entries may tell of what only another hub knows: to have seen one write of a
    // replica is to have seen all that it wrote before.
    record.seen = hub_seen;
    for (const Cell& cell : record.cells) record.seen.Advance(cell.version);
    held->record = std::move(record);
  }
  clock_.Observe(held->record.seen.Highest());
  transaction.Touch(key);
}

// The highest own clock that any hub but this one, as it is now, has acknowledged.
HybridTime Replica::HighestKnownElsewhere(Transaction& transaction, ReplicaId hub) const {
  HybridTime highest;
  auto snapshot = engine_.NewSnapshot();
  auto it = snapshot->NewIterator(Table::kMeta, "a", "b");
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    if (it->key() == keys::Acknowledged(hub)) continue;
    highest = std::max(highest, DecodeAcknowledged(it->value()).own_high);
  }
  transaction.Note(it->status());
  return highest;
}

// More cells than one entry may have become several entries.
void Replica::PutRefused(Transaction& transaction, RefusedWrite refused) {
  const std::vector<CellWrite> cells = std::exchange(refused.cells, {});
  refused.reason = refused.reason.substr(0, kRefusedReasonBytesMax);
  for (size_t begin = 0; begin == 0 || begin < cells.size(); begin += kCellsMax) {
    const size_t end = std::min(cells.size(), begin + kCellsMax);
    refused.cells.assign(cells.begin() + static_cast<ptrdiff_t>(begin),
                         cells.begin() + static_cast<ptrdiff_t>(end));
    refused.number = ++refused_last_;
    transaction.batch().Put(Table::kMeta, keys::Refused(refused.number), EncodeRefused(refused));
  }
}

// By their keys alone, so that an entry that cannot be read stops nothing.
absl::Status Replica::ForgetRefusedOf(Transaction& transaction, const RecordKey& key) {
  const std::string prefix(1, keys::kRefusedKind);
  const std::string wanted = EncodeKey(key);
  auto snapshot = engine_.NewSnapshot();
  auto it = snapshot->NewIterator(Table::kMeta, prefix, keys::PrefixEnd(prefix));
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    if (it->value().substr(0, wanted.size()) != wanted) continue;
    transaction.batch().Delete(Table::kMeta, it->key());
    transaction.LeaveResidue();
  }
  return it->status();
}

absl::StatusOr<ApplyResult> Replica::Apply(const ApplyRequest& request) {
  ApplyResult result;
  std::vector<ChangeEvent> events;
  const PeerIdentity& peer = request.peer;
  {
    absl::MutexLock lock(&mutex_);
    // A hub has found out meanwhile that it went back: to the peer, what it lost is its own.
    if (request.told_as != ReplicaId{} && request.told_as != identity_.replica) {
      result.identity_changed = true;
      return result;
    }
    Transaction transaction(engine_, options_);
    damage_.clear();
    conflicts_found_ = 0;
    identity_changes_ = false;
    absl::Cleanup undo = [this, before = identity_]()
                             ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { identity_ = before; };
    for (const InboundRecord& inbound : request.records) {
      result.outcomes.push_back(ApplyOne(transaction, request, inbound));
      CHAPTER_RETURN_IF_ERROR(transaction.status());
    }
    for (const InboundLeft& left : request.left) {
      if (options_.hub) continue;  // hubs hold everything
      CHAPTER_ASSIGN_OR_RETURN(const auto reset, NotedRefusal(transaction, left.key, peer));
      if (reset) TakeOutRefused(transaction, left.key, peer, *reset, nullptr, left.seen);
      const StoredRecord* held = transaction.Find(left.key);
      // Without anything seen the hub has never had it: nothing leaves.
      if (held == nullptr || held->record.erased || left.seen.empty()) continue;
      LeavingValue leaving{peer.node, peer.epoch, left.seen, {}};
      if (auto bytes = transaction.Get(Table::kMeta, keys::Leaving(left.key)); bytes.ok()) {
        CHAPTER_ASSIGN_OR_RETURN(const LeavingValue earlier, DecodeLeaving(*bytes));
        leaving.seen.Unite(earlier.seen);
      }
      transaction.batch().Put(Table::kMeta, keys::Leaving(left.key), Encode(leaving));
      leaving_[left.key] = Encode(leaving);
    }
    CHAPTER_RETURN_IF_ERROR(transaction.Place());
    if (options_.hub) NoteHighest(transaction, result.outcomes);
    if (options_.hub && !peer.hub) AnswerPusher(transaction, request, result);
    CHAPTER_RETURN_IF_ERROR(transaction.Place());

    // A cursor stays where its mark is known until nothing is missing.
    const bool missing = std::any_of(result.outcomes.begin(), result.outcomes.end(),
                                     [](const RecordOutcome& outcome) {
                                       return outcome.sequence != Sequence{} &&
                                              (outcome.kind == RecordOutcome::Kind::kNeedsWhole ||
                                               outcome.kind == RecordOutcome::Kind::kAhead);
                                     });
    for (const FeedCursor& cursor : request.cursors) {
      if (!missing) PutCursor(cursor, peer.hub, transaction.batch());
    }
    if (identity_changes_) {
      transaction.batch().Put(Table::kMeta, keys::kIdentity, EncodeIdentity());
      result.identity_changed = true;
    }
    CHAPTER_RETURN_IF_ERROR(Commit(transaction));
    std::move(undo).Cancel();
    events = transaction.events();
    result.damage = std::move(damage_);
    result.conflicts_found = conflicts_found_;
  }
  CHAPTER_RETURN_IF_ERROR(Finish(events, /*applied=*/true));
  if (!options_.hub && !request.left.empty()) {
    CHAPTER_ASSIGN_OR_RETURN(
        AcknowledgeResult due,
        Acknowledge({.peer = peer, .through = {}, .own_high = {}, .refused = {}, .dropped = {}}));
    result.dropped = std::move(due.dropped);
  }
  return result;
}

// After the records of a node's push are placed: what the node must hear of
// them, kept in its scope's feed as well, so that a cut stream loses no answer.
void Replica::AnswerPusher(Transaction& transaction, const ApplyRequest& request,
                           ApplyResult& result) {
  const PeerIdentity& peer = request.peer;
  const Scope* chapter = ChapterScope(peer);
  for (RecordOutcome& outcome : result.outcomes) {
    if (outcome.kind != RecordOutcome::Kind::kTaken) continue;
    StoredRecord* stored = transaction.Find(outcome.key);
    if (stored == nullptr) continue;
    if (stored->record.erased) {
      // Also where it was the leader that was erased.
      if (stored->meta.origin != peer.replica) outcome.answer = true;
      // Whoever pushed it may hold it: the feed of its scope tells of the erasure.
      if (outcome.answer && chapter != nullptr) transaction.TellLeft(outcome.key, *chapter);
      continue;
    }
    const std::set<Scope>& placement = transaction.Placement(outcome.key);
    if (placement.empty()) {
      // Once it has a place, whoever brought it must hear where.
      std::vector<Scope>& pushers = stored->meta.pushers;
      if (chapter == nullptr ||
          std::find(pushers.begin(), pushers.end(), *chapter) != pushers.end()) {
        continue;
      }
      pushers.push_back(*chapter);
      transaction.Touch(outcome.key);
      continue;
    }
    if (Disjoint(placement, peer.scopes)) {
      outcome.answer = true;
      if (chapter != nullptr) transaction.TellLeft(outcome.key, *chapter);
    } else if (outcome.answer && !transaction.touched(outcome.key)) {
      // Nothing changed here, and the node may have passed its place in the feed.
      bool to_come = false;
      for (const ScopePosition& position : stored->meta.scopes) {
        auto has = request.peer_has.find(position.scope);
        if (!position.left && has != request.peer_has.end() && position.at > has->second) {
          to_come = true;
        }
      }
      if (!to_come) transaction.Touch(outcome.key);
    }
  }
}

// Whoever brought them: a node that goes back, or a clone, meets here what was written under
// its id, also where this hub has gone back itself and got it from others.
void Replica::NoteHighest(Transaction& transaction, const std::vector<RecordOutcome>& outcomes) {
  struct Stamped {
    HybridTime time;
    uint64_t hash = 0;
  };
  std::map<ReplicaId, Stamped> highest;
  for (const RecordOutcome& outcome : outcomes) {
    if (outcome.kind != RecordOutcome::Kind::kTaken) continue;
    const StoredRecord* stored = transaction.Find(outcome.key);
    if (stored == nullptr) continue;
    const auto note = [&](const Version& version) {
      Stamped& known = highest[version.replica];
      if (version.time <= known.time) return;
      known = {version.time, StampHash(outcome.key, version)};
    };
    for (const Cell& cell : stored->record.cells) note(cell.version);
    for (const ConflictEntry& entry : stored->record.conflicts) {
      for (const SettlementEntry& settlement : entry.settlements) note(settlement.version);
    }
  }
  for (const auto& [replica, stamped] : highest) {
    const std::string key = keys::Highest(replica);
    if (auto known = transaction.Get(Table::kMeta, key);
        known.ok() && HybridTime{Reader(*known).Fixed64()} >= stamped.time) {
      continue;
    }
    std::string value;
    AppendFixed64(stamped.time.ticks, value);
    AppendFixed64(stamped.hash, value);
    transaction.batch().Put(Table::kMeta, key, value);
  }
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
      batch.Put(Table::kMeta, keys::Acknowledged(peer.replica), Encode(acknowledged));
    }
    for (const RefusedRecord& refused : request.refused) {
      if (options_.hub || transaction.Find(refused.key) == nullptr) continue;
      if (refused.reason == RefusedRecord::Reason::kAhead) {
        batch.Put(Table::kMeta, keys::Waiting(refused.key), EncodeWaiting(peer.node));
        continue;
      }
      RefusedRecord kept = refused;
      if (kept.sequence == Sequence{}) kept.sequence = acknowledged.through;
      batch.Put(Table::kMeta, keys::Reset(refused.key),
                Encode(ResetValue{peer.node, peer.epoch, std::move(kept)}));
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
          DropWhereDue(transaction, request, acknowledged.through, result.dropped));
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

absl::Status Replica::DropWhereDue(Transaction& transaction, const AcknowledgeRequest& request,
                                   Sequence through, std::vector<DroppedRecord>& dropped) {
  if (leaving_.empty()) return absl::OkStatus();
  const PeerIdentity& hub = request.peer;
  // What was refused waits for the hub's state of the record, in which it is not.
  std::set<RecordKey> refused;
  for (const RefusedRecord& record : request.refused) refused.insert(record.key);
  uint64_t count = DecodeNumber(transaction.Get(Table::kMeta, keys::DropCount(hub.node)));
  const uint64_t before = count;
  for (const auto& [key, bytes] : leaving_) {
    // The engine's word counts: the record may have been sent again meanwhile.
    auto current = transaction.Get(Table::kMeta, keys::Leaving(key));
    if (!current.ok()) continue;
    CHAPTER_ASSIGN_OR_RETURN(const LeavingValue leaving, DecodeLeaving(*current));
    // What was held back is not acknowledged, wherever its place in the feed is.
    if (!hub.entities.contains(key.entity)) continue;
    // A new epoch of the hub has cancelled it.
    if (leaving.hub != hub.node || leaving.epoch != hub.epoch) continue;
    const StoredRecord* stored = transaction.Find(key);
    if (stored != nullptr && !stored->record.erased) {
      if (stored->meta.latest > through && stored->meta.origin != hub.replica &&
          !IsPlanted(Planted::kDropBeforeAcknowledgement)) {
        continue;
      }
      if (refused.contains(key) || transaction.Get(Table::kMeta, keys::Reset(key)).ok()) continue;
      const auto waits = transaction.Get(Table::kMeta, keys::Waiting(key));
      if (waits.ok() && *waits == EncodeWaiting(hub.node)) continue;
      LeavingValue memory = leaving;
      for (const NodeId& hub_before : stored->meta.again) {
        if (hub_before != hub.node) memory.earlier.push_back(hub_before);
      }
      transaction.Remove(key);
      transaction.batch().Put(Table::kMeta, keys::Dropped(key), Encode(memory));
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
