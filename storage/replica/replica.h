// SPDX-License-Identifier: Apache-2.0
//
// A replica: everything durable of a node or a hub. Local writes and what peers
// send come in; records, the change feed and the conflict log go out. All
// methods may be called from any thread; each call's changes are one atomic
// batch, and are durable when it returns.
#ifndef CHAPTERSYNC_STORAGE_REPLICA_REPLICA_H_
#define CHAPTERSYNC_STORAGE_REPLICA_REPLICA_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

#include "storage/core/clock.h"
#include "storage/core/merge.h"
#include "storage/core/record.h"
#include "storage/core/scope_rule.h"
#include "storage/engine/engine.h"
#include "storage/replica/approval_list.h"
#include "storage/replica/exchange.h"
#include "storage/replica/hub_epochs.h"
#include "storage/replica/scope_digests.h"
#include "storage/replica/stored_record.h"

namespace chaptersync::storage {

class Transaction;
struct AcknowledgedValue;
struct ApprovalValue;
struct Judgement;
struct TakenOut;
struct Whereabouts;

// Where wall-clock time and randomness come from, so that a test can say.
class Environment {
 public:
  virtual ~Environment() = default;
  // Milliseconds since 1970 in UTC, as the computer's clock has it.
  virtual uint64_t NowMs() = 0;
  // 64 random bits.
  virtual uint64_t Random() = 0;
};

// What storage needs to know of an entity.
struct EntityRule {
  ScopeRule scope;
  // A hash of the scope rule as its schema states it.
  uint64_t fingerprint = 0;
  // Fields that only headquarters writes; every field where `headquarters_only`.
  std::set<uint32_t> headquarters_fields;
  bool headquarters_only = false;
  // Of a record for everybody, or that follows one, only the chapters that its scope rule names
  // besides write: an event's hosts.
  bool hosts_write = false;
  // Whether these bytes are a value of the field, or the field is one that the schema does not
  // know. Null: any are. A hub refuses others: nobody could read the record any more.
  std::function<bool(const CellPath& path, const std::string& value)> readable;
};

struct ReplicaOptions {
  // A hub holds every scope, keeps a feed per scope and may erase.
  bool hub = false;
  // A node's chapter.
  std::string chapter;
  // Where the replica is, for life.
  NodeId node;
  std::map<EntityNumber, EntityRule> entities;
  // How far ahead of this replica's clock a peer may stamp, in milliseconds.
  // None: any distance, and no clock is ever corrected (the reference histories).
  std::optional<uint64_t> ahead_max_ms = 60'000;
  // The id of a new replica; none: a random one.
  std::optional<ReplicaId> replica_id;
  // Digests of scopes are written down after so many changes; see ScopeDigests.
  uint64_t digest_changes_min = 4096;
  // True where the folder was found copied or restored: a new identity is taken.
  bool copied = false;
  // The engine holds a replica: where it is empty, what was there is gone.
  bool must_exist = false;
};

struct CellWrite {
  CellPath path;
  std::optional<std::string> value;  // none: clear
};

// One write of one record, by a person at this replica.
struct LocalWrite {
  enum class Kind : uint8_t {
    kCreate,   // ALREADY_EXISTS where the record is there
    kUpdate,   // NOT_FOUND where it is not
    kUpsert,   // either
    kDelete,   // deleting what is deleted changes nothing
    kRestore,  // restoring what lives changes nothing
    kErase,    // at hubs; with all that follows the record
    kSettle,   // closes every open conflict entry of `path` and `lost`
  };
  Kind kind = Kind::kUpsert;
  RecordKey key;
  std::string actor;
  std::vector<CellWrite> cells;  // kCreate, kUpdate, kUpsert
  // The write was made from the record as it was at this place of the feed (0: it
  // was not there). Where it is at another now, the whole batch is ABORTED.
  std::optional<Sequence> made_from;
  // kSettle:
  CellPath path;
  std::optional<std::string> lost;
  Choice choice = Choice::kKeep;
  std::optional<std::string> third;  // with Choice::kValue
};

struct WriteResult {
  absl::Status status;
  bool created = false;
  bool changed = false;  // false too where the record held all of it already
};

// What a replica holds of a scope, in 40 bytes.
struct ScopeState {
  StateDigest digest;
  uint64_t records = 0;
  friend bool operator==(const ScopeState&, const ScopeState&) = default;
};

// What happened to a record here, for people who watch.
enum class ChangeKind : uint8_t { kCreated, kChanged, kDeleted, kRestored, kErased, kDropped };
struct ChangeEvent {
  RecordKey key;
  ChangeKind kind = ChangeKind::kChanged;
};

// A write of this replica that its hub did not take.
struct RefusedWrite {
  uint64_t number = 0;
  RecordKey key;
  std::vector<CellWrite> cells;
  std::string actor;
  std::string reason;
  HybridTime written_at;
};

std::string EncodeRefused(const RefusedWrite& refused);
// DATA_LOSS where it cannot be read.
absl::StatusOr<RefusedWrite> DecodeRefused(std::string_view bytes);

// A hash by which a hub and a node compare a write that they know by its clock.
uint64_t StampHash(const RecordKey& key, const Version& version);

// What of the record is over a limit, with the limit; empty where nothing is.
std::string OverLimit(const Record& record);

// An entry of the conflict log with its record.
struct ConflictRef {
  std::string id;  // 16 bytes
  RecordKey key;
  ConflictEntry entry;
};

// Where a new replica id is to be, between others. Where writes keep their times under it, they are
// to stand to those of equal times as they did under the old one: a copy of the same folder, whose
// ids are of the same lineage, often has stamped at the same time.
struct IdRange {
  ReplicaId above{0};
  ReplicaId below{UINT64_MAX};
  bool Contains(ReplicaId id) const { return above < id && id < below; }
  // Narrows it: on the side of `other` on which `old` is.
  void Keep(ReplicaId old, ReplicaId other);
  // The same for every version of the record that shares its time with one of `old`.
  void KeepOrder(const Record& record, const std::set<Version>& old);
};

class Replica {
 public:
  // Opens what `engine` holds, or begins a new replica where it is empty.
  // `engine` and `environment` outlive the replica. DATA_LOSS where what is
  // there cannot be read; FAILED_PRECONDITION where it is a hub's and a node's
  // is wanted, or the other way round, or of a newer format.
  static absl::StatusOr<std::unique_ptr<Replica>> Open(Engine& engine, Environment& environment,
                                                       ReplicaOptions options);

  const ReplicaOptions& options() const { return options_; }
  ReplicaId replica_id() const;
  // Under which id this replica's next write is stamped: its replica id; at a hub another one,
  // anew each time that it is opened or finds out that it went back.
  ReplicaId writer_id() const;
  Epoch epoch() const;
  // At a hub: whether it is known that two computers use this replica id, or one that has gone
  // back.
  bool IsShared(ReplicaId replica) const;
  // The hub's clock less this computer's, in milliseconds.
  int64_t clock_offset_ms() const;
  // Corrected wall clock and hybrid clock.
  PeerClock Clock() const;

  // Writes, in order; each succeeds or fails by itself, all that succeed are one
  // atomic batch. At most kBatchWritesMax. With `dry_run` nothing is kept. The
  // outer status is about the engine, or ABORTED: a record has changed since the
  // one that a write was made from, nothing was written.
  absl::StatusOr<std::vector<WriteResult>> Write(const std::vector<LocalWrite>& writes,
                                                 bool dry_run = false);

  // NOT_FOUND where this replica does not hold the record.
  absl::StatusOr<StoredRecord> Read(const RecordKey& key) const;
  // Records of an entity with ids after `after`, in order, at most `count`.
  absl::StatusOr<std::vector<std::pair<RecordKey, StoredRecord>>> List(
      EntityNumber entity, const std::optional<RecordId>& after, size_t count) const;
  // Ids that begin with the first `bits` bits of `prefix`, at most `count`.
  absl::StatusOr<std::vector<RecordId>> FindIds(EntityNumber entity, const RecordId& prefix,
                                                size_t bits, size_t count) const;
  // Live records of each entity; kept with every commit, so it costs no scan.
  std::map<EntityNumber, uint64_t> CountRecords() const;
  // What tells whether this replica and another hold the same of each scope, at a node of those
  // that it holds; kept with every commit. Scopes without records are left out.
  std::map<Scope, ScopeState> Digests() const;
  // The scopes whose digest is not that of their records, which a defect or a damaged file makes.
  // Goes through all records.
  absl::StatusOr<std::vector<Scope>> CheckDigests() const;

  // Conflicts in the order in which they were found, after a token of an earlier
  // call; the token for more comes back in `next`, empty at the end.
  absl::StatusOr<std::vector<ConflictRef>> ListConflicts(std::optional<bool> open,
                                                         const std::string& token, size_t count,
                                                         std::string& next) const;
  // Conflicts whose id begins with `prefix` (hexadecimal digits), at most 2.
  absl::StatusOr<std::vector<ConflictRef>> FindConflicts(const std::string& prefix_hex) const;
  absl::StatusOr<uint64_t> CountOpenConflicts() const;

  // Refused writes with numbers above `after`.
  // What is not held here, and no feed may tell of: records of listed writes, and those that they
  // would follow, as they may have been erased; and what was dropped at another hub's word, and
  // follows only what is held, as with that it may be this chapter's. At most kMissingAskedMax of
  // each, of as many entries looked at; the next call goes on behind them.
  absl::StatusOr<std::vector<RecordKey>> FindMissing(const PeerIdentity& hub);
  absl::StatusOr<std::vector<RefusedWrite>> ListRefused(uint64_t after, size_t count) const;
  // NOT_FOUND where there is none of this number.
  absl::StatusOr<RefusedWrite> GetRefused(uint64_t number) const;
  absl::Status ForgetRefused(uint64_t number);

  // Calls `listener` after each durable commit with what it changed, on the
  // thread that committed; it must not call back into the replica. Returns a
  // number for Unsubscribe, after which it is never called again.
  uint64_t Subscribe(std::function<void(const std::vector<ChangeEvent>&)> listener);
  void Unsubscribe(uint64_t number);

  // A small durable store for the layers above, by key. Put with no value erases.
  absl::StatusOr<std::string> GetSetting(const std::string& key) const;
  absl::Status PutSetting(const std::string& key, const std::optional<std::string>& value);
  // Several at once, or none.
  using Settings = std::map<std::string, std::optional<std::string>>;
  absl::Status PutSettings(const Settings& settings);
  // Settings whose keys begin with `prefix`, in order.
  absl::StatusOr<std::vector<std::pair<std::string, std::string>>> ListSettings(
      const std::string& prefix) const;

  // --- The exchange with peers; exchange.h tells what goes in and out. ---

  // What an initiator says first. `session` names the session (0: it has no name), and
  // is remembered: that this replica has opened it is durable on return.
  absl::StatusOr<HelloFacts> SayHello(uint64_t session);
  // A peer said hello. Finds out whether this replica was rolled back, and begins a new
  // epoch then; and whether the peer's id is used by two.
  absl::StatusOr<AcceptedPeer> AcceptPeer(const PeerIdentity& peer, const HelloFacts& hello);
  // A hub said welcome. What waits for headquarters' word there goes into the feed once more, at
  // most kBatchWritesMax records. Corrects the clock, takes a new identity where the hub
  // knows writes or sessions under this one that are not ours, and stamps writes
  // again that are too far ahead.
  absl::StatusOr<JoinedHub> JoinHub(const PeerIdentity& hub, const WelcomeFacts& welcome);
  // The hub's clock less this computer's, measured anew; stamps follow it.
  absl::Status AdjustClock(int64_t offset_ms);
  // The hub takes stamps up to `limit` now: what waited for that goes into the feed again,
  // at most kBatchWritesMax records at a time. True: own stamps were made again under a new
  // replica id; begin the session anew.
  absl::StatusOr<bool> SendWaiting(const PeerIdentity& hub, HybridTime limit);
  // Records that this hub does not take yet.
  absl::StatusOr<WaitingCounts> CountWaiting(const NodeId& hub) const;

  // At a hub: what waits for headquarters' word, with numbers above `after`, at most `count`.
  std::vector<Approval> ListApprovals(uint64_t after, size_t count) const;
  // NOT_FOUND where nothing of this number waits.
  absl::StatusOr<ApprovalNews> ReadApproval(uint64_t number) const;
  // An officer's word; NOT_FOUND where nothing of this number waits. Approved, it is merged;
  // rejected, the node hears so when it pushes it again. Returns whose it was. Durable on return.
  absl::StatusOr<Approval> Approve(uint64_t number);
  absl::StatusOr<Approval> Reject(uint64_t number);
  // Reads a piece of this replica's feed for a peer. All that it tells is durable.
  absl::StatusOr<FeedPage> ReadFeed(const FeedRequest& request);
  // Reads records for a peer outside the feed, as many as fit. All that it tells is
  // durable.
  absl::StatusOr<RecordsPage> ReadRecords(const RecordsRequest& request);
  // Takes what a peer sent. Durable on return.
  absl::StatusOr<ApplyResult> Apply(const ApplyRequest& request);
  // A peer has stored, refused or dropped. Durable on return.
  absl::StatusOr<AcknowledgeResult> Acknowledge(const AcknowledgeRequest& request);
  // At a hub: what it knows of the others, without the first `told` positions that it noted.
  HubsTold TellOfHubs(uint64_t told) const;
  // A hub has told of others, or of this one. Durable on return.
  absl::StatusOr<HubsHeardOf> HearOfHubs(const PeerIdentity& from, const HubsTold& told);
  // The ends of the feeds of these scopes.
  absl::StatusOr<std::vector<FeedCursor>> FeedEnds(const std::vector<Scope>& scopes) const;
  // Records of feed `scope` after `after` that `peer` did not send itself; counts
  // at most `most` and returns most + 1 where there are more.
  absl::StatusOr<uint64_t> CountUnsent(const Scope& scope, Sequence after, ReplicaId peer,
                                       uint64_t most) const;
  // Follows what `peer` has not acknowledged, which is up to `acknowledged`, of the feed of all as
  // it is now: what is changed again meanwhile gets a later place. To be ended.
  uint64_t WatchUnsent(ReplicaId peer, Sequence acknowledged);
  // Once the peer has acknowledged this, it has all that the watch follows. 0: no such watch.
  Sequence UnsentThrough(uint64_t watch) const;
  void EndWatch(uint64_t watch);
  // How far `hub` has acknowledged this replica's feed.
  Sequence AcknowledgedBy(ReplicaId hub) const;
  // How far this replica has come in `peer`'s feed.
  FeedCursor CursorIn(ReplicaId peer, bool peer_is_hub, const Scope& scope) const;

  // Rewrites the files that held records dropped or erased since the last call,
  // so that none of their bytes remains. Long. Does nothing where there were none.
  absl::Status Scrub();
  // Whether Scrub has something to do, also from before a restart.
  bool scrub_due() const;

 private:
  struct Identity {
    ReplicaId replica;  // whose feed it is, and at a node who writes
    Epoch epoch;
    std::vector<ReplicaId> own;  // every id ever used here, this one included, in their order
    // Of these, the ids that a folder may still be in use under of which this one is a copy.
    std::vector<ReplicaId> copied;
    int64_t clock_offset_ms = 0;
    HybridTime last_stamp;  // the highest of own writes under the present id
  };

  Replica(Engine& engine, Environment& environment, ReplicaOptions options);

  absl::Status Load() ABSL_LOCKS_EXCLUDED(mutex_);
  // Makes what was committed durable, then tells the listeners. `applied`: Apply calls.
  absl::Status Finish(const std::vector<ChangeEvent>& events, bool applied = false)
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status EnsureDurable(Sequence sequence) ABSL_LOCKS_EXCLUDED(durable_mutex_);
  // Seals the transaction and writes it; Finish makes it durable.
  absl::Status Commit(Transaction& transaction) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  uint64_t WallMs() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  bool Own(ReplicaId replica) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  void NewIdentity(bool new_epoch, const IdRange& between = {})
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // An id of the same lineage that was not used here.
  ReplicaId NewId(const IdRange& between = {}) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Under which id versions are made.
  ReplicaId Writer() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return writer_ == ReplicaId{} ? identity_.replica : writer_;
  }
  // In the Apply under way: writes under a new id from here on.
  void ChangeIdentity(const IdRange& between = {}) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::string EncodeIdentity() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  void PutIdentity(WriteBatch& batch) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  void PutState(WriteBatch& batch, Sequence last) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  // Remembers an own stamp until a hub has acknowledged it. A hub's own writes are
  // never compared, so it keeps none.
  void NoteStamp(Transaction& transaction, const RecordKey& key, const Version& version)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void PutRefused(Transaction& transaction, RefusedWrite refused)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // For a local write: later than all that the record has seen.
  Version NextVersion(const Record& record) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  WriteResult WriteOne(Transaction& transaction, const LocalWrite& write)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status SettleOne(Transaction& transaction, StoredRecord& stored, const LocalWrite& write)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  RecordOutcome ApplyOne(Transaction& transaction, const ApplyRequest& request,
                         const InboundRecord& inbound) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether a hub takes a push of this record from this node.
  absl::StatusOr<Judgement> Admit(Transaction& transaction, const PeerIdentity& peer,
                                  const RecordKey& key, const RecordUpdate& update,
                                  const StoredRecord* current) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<Whereabouts> Locate(const PeerIdentity& peer, const RecordKey& key,
                                     const StoredRecord& current) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  // The same after the merge: why the record waits because of where it would be then; null where
  // it does not.
  absl::StatusOr<const char*> AdmitMerged(Transaction& transaction, const PeerIdentity& peer,
                                          const RecordKey& key, const StoredRecord* current,
                                          const Record& merged) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  bool Hosts(Transaction& transaction, const PeerIdentity& peer, const RecordKey& key,
             const Record& record) const;
  // Whether the merged record would come back to the node's chapter from another one.
  bool ComesBack(Transaction& transaction, const PeerIdentity& peer, const RecordKey& key,
                 const StoredRecord& current, const Record& merged) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  // Keeps it for headquarters' word. RESOURCE_EXHAUSTED where too much waits, PERMISSION_DENIED
  // where the same was rejected.
  absl::Status PutApproval(Transaction& transaction, const PeerIdentity& peer, const RecordKey& key,
                           const RecordUpdate& update, const Record& mine,
                           const std::string& reason) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RemoveApproval(Transaction& transaction, const NodeId& node, Epoch epoch,
                      const RecordKey& key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Of a record that the transaction erases nothing waits any more, nor of what is to follow it;
  // whoever pushed that hears of the erasure.
  absl::Status EraseApprovals(Transaction& transaction) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<RecordKey> LeadersOf(const RecordKey& key, const Record& record) const;
  absl::Status LoadApprovals() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // What waits under a number, with its value.
  absl::StatusOr<std::pair<Approval, ApprovalValue>> FindApproval(uint64_t number) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<std::optional<RefusedRecord>> NotedRefusal(Transaction& transaction,
                                                            const RecordKey& key,
                                                            const PeerIdentity& hub)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TakeOutRefused(Transaction& transaction, const RecordKey& key, const PeerIdentity& hub,
                      const RefusedRecord& refusal, const RecordUpdate* hub_state,
                      const Seen& hub_seen) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void StampLater(Transaction& transaction, const RecordKey& key, TakenOut& parts)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Takes what was refused of records, and of what would follow them, off the list, as they were
  // erased.
  absl::Status ForgetRefusedOf(Transaction& transaction, const std::set<RecordKey>& erased)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The records that a refused write would make its record follow.
  std::vector<RecordKey> LeadersOf(const RefusedWrite& refused) const;
  absl::Status EndWaiting(Transaction& transaction, const AcknowledgeRequest& request,
                          Sequence before, Sequence through, std::set<RecordKey>& ended)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status DropWhereDue(Transaction& transaction, const AcknowledgeRequest& request,
                            Sequence through, const std::set<RecordKey>& ended,
                            std::vector<DroppedRecord>& dropped)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  struct OwnStamps {
    bool again = false;  // some are to be made again
    bool stay = false;   // some are above the limit, under the present id
  };
  // How far ahead stamps may be.
  struct AheadLimits {
    HybridTime limit;        // the hub takes them up to here
    HybridTime again_above;  // own ones above are made again, those below wait
    HybridTime with_others;  // the same in a record that waits for a lower stamp anyway
  };
  absl::StatusOr<AheadLimits> LimitsOf(const Snapshot& snapshot, ReplicaId hub,
                                       HybridTime limit) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  // Whether own stamps of a record are to be made again.
  bool ToStampAgain(const Record& record, const AheadLimits& limits) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<OwnStamps> FindOwnStamps(const AheadLimits& limits) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Places records anew whose entity's rule is another than when they were placed.
  absl::Status PlaceByNewRules() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status PlaceAnew(EntityNumber entity) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status StampAgain(Transaction& transaction, Sequence after, const AheadLimits& limits,
                          ReplicaId old_id, bool keep_times, size_t& count)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Remembers how far others have come in hubs' feeds. True: in this one's further than it goes,
  // or to another mark than it has there.
  bool NoteReached(const Snapshot& snapshot, const std::vector<FeedCursor>& cursors)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether what a peer remembers of this replica's feed is in it.
  bool Remembers(const Snapshot& snapshot, const FeedCursor& theirs) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  // Writes down what is news in `hubs`; false where nothing is. `dropped`: as HearOfHubs.
  absl::StatusOr<bool> NoteHubs(const std::vector<KnownHub>& hubs, bool& dropped)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status SendAwaitingApproval(const Snapshot& snapshot, Transaction& transaction,
                                    const NodeId& hub) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // PERMISSION_DENIED where a node comes under an id of another's lineage.
  absl::Status CheckLineage(const Snapshot& snapshot, const PeerIdentity& peer) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  // At a node: has all hubs but this tell everything once more. Only its positions stay, without
  // a scope.
  absl::Status VoidCursors(WriteBatch& batch, ReplicaId but = {}) const;
  // Notes how far each replica id has written, for Welcome.
  static void NoteHighest(Transaction& transaction, const std::vector<RecordOutcome>& outcomes);
  // What is known of a hub's epochs.
  absl::StatusOr<HubEpochs> EpochsOf(const NodeId& hub) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  // Whether a record was dropped here that this hub had said to have left, in this epoch.
  absl::StatusOr<bool> DroppedAtWordOf(const NodeId& hub, Epoch epoch) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  // The highest own stamp that any hub but this may have.
  HybridTime KnownElsewhere(const std::map<ReplicaId, AcknowledgedValue>& acknowledged,
                            ReplicaId hub) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  // At a node, before `hub` is told `items`: remembers the highest own stamp in them, and writes
  // down one that is ahead of the wall clock. Durable on return.
  absl::Status NoteTold(const PeerIdentity& hub, const std::vector<FeedItem>& items);
  void AnswerPusher(Transaction& transaction, const ApplyRequest& request, ApplyResult& result)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  FeedItem MakeItem(const RecordKey& key, const StoredRecord& stored, const PeerIdentity& peer,
                    Sequence sequence, Sequence since, bool whole) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);

  Engine& engine_;
  Environment& environment_;
  const ReplicaOptions options_;

  mutable absl::Mutex mutex_;
  Identity identity_ ABSL_GUARDED_BY(mutex_);
  HybridClock clock_ ABSL_GUARDED_BY(mutex_);
  Sequence last_sequence_ ABSL_GUARDED_BY(mutex_);
  // A hub's, anew with each start and each new epoch: it may have gone back without knowing, and
  // nobody may be there to tell it. What it writes then must not count as having seen what it wrote
  // and lost.
  ReplicaId writer_ ABSL_GUARDED_BY(mutex_);
  // At a hub: the hubs that it knows of, as on disk but for at_ms, which heartbeats renew. Those
  // that it never met are kept only up to kHubsMax.
  std::map<NodeId, HubEpochs> hubs_ ABSL_GUARDED_BY(mutex_);
  // At a hub: how far others have come in other hubs' feeds, as was heard since the start; each
  // once, the last kReachedKept. Of two positions in one feed neither replaces the other: where
  // that hub went back in between it has the later one and not the earlier.
  std::deque<FeedCursor> reached_ ABSL_GUARDED_BY(mutex_);
  uint64_t reached_count_ ABSL_GUARDED_BY(mutex_) = 0;  // with those that went
  // At a node: the highest own stamp that each hub was told since the start. One that is ahead of
  // the wall clock is on disk as well.
  std::map<ReplicaId, HybridTime> told_ ABSL_GUARDED_BY(mutex_);
  // So often it was written down. The first stands for what is there from before the start, which
  // need not be durable.
  uint64_t told_written_ ABSL_GUARDED_BY(mutex_) = 1;
  uint64_t told_durable_ ABSL_GUARDED_BY(mutex_) = 0;  // of these, known to be durable
  uint64_t refused_last_ ABSL_GUARDED_BY(mutex_) = 0;
  // Where FindMissing goes on: behind this number; from this key.
  uint64_t listed_asked_ ABSL_GUARDED_BY(mutex_) = 0;
  std::string dropped_asked_ ABSL_GUARDED_BY(mutex_);
  // At a hub: what waits for headquarters' word.
  ApprovalList approvals_ ABSL_GUARDED_BY(mutex_);
  std::map<EntityNumber, uint64_t> live_counts_ ABSL_GUARDED_BY(mutex_);
  ScopeDigests digests_ ABSL_GUARDED_BY(mutex_);
  struct Watch {
    ReplicaId peer;
    Sequence acknowledged;
    Sequence through;
  };
  std::map<uint64_t, Watch> watches_ ABSL_GUARDED_BY(mutex_);
  uint64_t watch_last_ ABSL_GUARDED_BY(mutex_) = 0;
  // Commits that left bytes to be scrubbed, and how many of them are dealt with.
  uint64_t residue_last_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t residue_scrubbed_ ABSL_GUARDED_BY(mutex_) = 0;
  // Records that are to be dropped, as under keys::Leaving.
  std::set<RecordKey> leaving_ ABSL_GUARDED_BY(mutex_);
  // Of the Apply under way.
  std::vector<std::string> damage_ ABSL_GUARDED_BY(mutex_);
  size_t conflicts_found_ ABSL_GUARDED_BY(mutex_) = 0;
  bool identity_changes_ ABSL_GUARDED_BY(mutex_) = false;
  // In the Apply under way: the times of writes that were stamped again, each once.
  std::set<HybridTime> renamed_to_ ABSL_GUARDED_BY(mutex_);

  mutable absl::Mutex durable_mutex_;
  Sequence durable_sequence_ ABSL_GUARDED_BY(durable_mutex_);

  mutable absl::Mutex listeners_mutex_;
  std::map<uint64_t, std::function<void(const std::vector<ChangeEvent>&)>> listeners_
      ABSL_GUARDED_BY(listeners_mutex_);
  uint64_t listener_last_ ABSL_GUARDED_BY(listeners_mutex_) = 0;
};

}  // namespace chaptersync::storage

#endif  // CHAPTERSYNC_STORAGE_REPLICA_REPLICA_H_
