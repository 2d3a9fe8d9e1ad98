// SPDX-License-Identifier: Apache-2.0
//
// What a sync session asks of a replica and what it gets: plain values, so that
// the session stays a pure state machine and a simulation can stand between the
// two. Any thread.
#ifndef CHAPTERSYNC_STORAGE_REPLICA_EXCHANGE_H_
#define CHAPTERSYNC_STORAGE_REPLICA_EXCHANGE_H_

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "storage/core/merge.h"
#include "storage/core/types.h"

namespace chaptersync::storage {

// A replica's clock at one moment.
struct PeerClock {
  uint64_t wall_ms = 0;
  HybridTime hybrid;
};

// Who is at the other end.
struct PeerIdentity {
  NodeId node;
  ReplicaId replica;
  Epoch epoch;
  bool hub = false;
  // The scopes that a node holds. Empty for a hub, which holds all.
  std::set<Scope> scopes;
  // What its schema knows: entity -> fingerprint of its scope rule.
  std::map<EntityNumber, uint64_t> entities;
};

// A position in a feed.
struct FeedCursor {
  ReplicaId replica;  // whose feed
  Epoch epoch;
  Scope scope;
  Sequence sequence;
  Mark mark;
  friend bool operator==(const FeedCursor&, const FeedCursor&) = default;
};

// Records that a node holds back from a hub, which go to it later.
struct WaitingCounts {
  uint64_t ahead = 0;     // until the hub's clock has come up
  uint64_t approval = 0;  // until headquarters has said a word
  friend bool operator==(const WaitingCounts&, const WaitingCounts&) = default;
};

// A record that a node pushed and that waits at the hub for an officer's word.
struct Approval {
  uint64_t number = 0;
  RecordKey key;
  NodeId from;
  Epoch epoch;  // the node's: a copy of it is in another
  std::string reason;
  uint64_t since_ms = 0;  // Unix milliseconds
  bool erasure = false;
  std::vector<RecordKey> leaders;  // what it follows, as the node has it
};

// What it tells that the hub has not got.
struct ApprovalNews {
  Approval approval;
  struct Value {
    Cell pushed;
    std::optional<Cell> stands;  // at the hub
  };
  std::vector<Value> values;
  size_t conflicts = 0;
  size_t settlements = 0;
};

// How far a hub has acknowledged a replica's feed of all.
struct Acknowledgement {
  ReplicaId hub;
  Epoch epoch;  // the hub's
  Sequence through;
  ReplicaId as;                    // the replica's id at that time
  std::vector<uint64_t> sessions;  // that the hub has welcomed, the last ones
};

struct HelloFacts {
  ReplicaId replica;
  Epoch epoch;
  NodeId node;
  bool hub = false;
  std::vector<FeedCursor> cursors;            // how far it has come in hubs' feeds
  std::vector<Acknowledgement> acknowledged;  // as it remembers
  PeerClock clock;
  std::map<EntityNumber, uint64_t> entities;
  uint64_t session = 0;            // random; 0: not remembered
  std::vector<uint64_t> attempts;  // sessions not welcomed, this one included
  std::vector<Epoch> past_epochs;  // of hubs that it has met in a later one
  std::vector<ReplicaId> former;   // ids that it wrote under and gave up, the last ones
  std::vector<ReplicaId> copied;   // ids that its folder was copied from, the last ones
};

// For AcceptedPeer::anew and its like.
inline constexpr Sequence kToEndOfFeed{UINT64_MAX};

// A hub, the epoch that it is in, and some that are over.
struct KnownHub {
  NodeId node;
  Epoch epoch;
  uint64_t at_ms = 0;       // Unix milliseconds when it was last known to be in that epoch
  std::vector<Epoch> over;  // at most kHubEpochsKept
  friend bool operator==(const KnownHub&, const KnownHub&) = default;
};

// What a hub tells of hubs.
struct HubsTold {
  std::vector<KnownHub> hubs;       // at most kHubsMax
  std::vector<FeedCursor> reached;  // in whosoever's feeds, their scopes empty; kReachedToldMax
  uint64_t through = 0;             // so many positions were told with these
};

// What came of it.
struct HubsHeardOf {
  // A record was dropped here for an epoch of another hub that is over: begin the session
  // anew, in which all cursors are void, so that the record is offered again.
  bool dropped = false;
  // This replica's disk has gone back without its knowing: it is in a new epoch now.
  bool went_back = false;
};

// A refusal as the hub keeps it until the node has noted it.
struct RefusedRecord {
  RecordKey key;
  Sequence sequence;
  enum class Reason : uint8_t {
    kRights = 1,
    kMalformed = 2,
    kAhead = 3,
    kLeft = 4,
    kWaits = 5,     // for headquarters' word: the node keeps what it wrote, and pushes it again
    kRejected = 6,  // by headquarters: also what others wrote, and the hub has not got, is to go
  };
  static constexpr Reason kReasonLast = Reason::kRejected;
  Reason reason = Reason::kMalformed;
  std::string message;
};

struct DroppedRecord {
  uint64_t number = 0;
  RecordKey key;
};

struct AcceptedPeer {
  // Who this replica is after it.
  ReplicaId replica;
  Epoch epoch;
  // This replica's disk has gone back without its knowing: the peer remembers more.
  bool went_back = false;
  // Two computers use the peer's replica id, or it has gone back: it must take another,
  // and nothing else here counts.
  bool shared = false;
  FeedCursor cursor;               // how far this replica has come in the peer's feed of all
  std::vector<FeedCursor> resume;  // where it goes on in its own feeds, per scope
  HybridTime highest_clock;        // of writes under the peer's replica id
  uint64_t highest_hash = 0;
  uint64_t drops_noted = 0;
  std::vector<RefusedRecord> refused;  // not yet noted by the peer
  // Up to here the peer is told whole records, also those that it sent itself: it may not have
  // them any more. kToEndOfFeed: until a feed has been read to its end, which ends it there.
  Sequence anew;
};

struct WelcomeFacts {
  ReplicaId told_as;     // this replica's id in Hello; 0: not looked at
  uint64_t session = 0;  // as in Hello
  bool shared = false;   // as in AcceptedPeer
  FeedCursor cursor;
  std::vector<FeedCursor> resume;
  HybridTime highest_clock;
  uint64_t highest_hash = 0;
  PeerClock clock;
  uint64_t ahead_max_ms = 0;
  uint64_t drops_noted = 0;
  // The peer's wall clock less this computer's, measured over the handshake.
  std::optional<int64_t> clock_offset_ms;
};

struct JoinedHub {
  // The identity changed: begin the session anew under it.
  bool restart = false;
  std::string restart_reason;
  Sequence start;                      // push the feed of all from here
  Sequence anew;                       // as in AcceptedPeer: the hub may lack any cell
  std::vector<RecordKey> ask_whole;    // refused records whose hub state is still to come
  std::vector<DroppedRecord> dropped;  // drops that the hub has not noted
};

struct FeedRequest {
  PeerIdentity peer;
  Scope scope;
  Sequence after;
  // The peer holds what this replica's feed told up to here: older cells may be
  // left out of records.
  Sequence since;
  Sequence anew;  // as in AcceptedPeer or JoinedHub
  size_t bytes_max = 0;
  size_t records_max = 0;
};

// A record for a peer.
struct FeedItem {
  enum class Kind : uint8_t {
    kChange,
    kLeft,      // in none of the peer's scopes any more
    kUnplaced,  // in no scope now; only in answer to a peer that asked
  };
  Kind kind = Kind::kChange;
  Sequence sequence;
  RecordKey key;
  std::string update;   // kChange: as record_codec.h writes it
  Seen seen;            // kLeft
  HybridTime own_high;  // highest own clock told in it
};

struct FeedPage {
  std::vector<FeedItem> items;
  Sequence last;  // read up to here
  Mark mark;      // of the commit that holds `last`
  bool at_end = false;
  size_t skipped = 0;                   // entries that do not concern the peer
  std::vector<EntityNumber> held_back;  // entities that the peer does not know
};

struct RecordsRequest {
  PeerIdentity peer;
  std::vector<RecordKey> keys;
  Sequence since;
  Sequence anew;  // as in FeedRequest
  // The peer asked for the records as a whole.
  bool asked = false;
  // It has noted that they were refused.
  bool refusals_noted = false;
  // Stops once the items have so many bytes.
  size_t bytes_max = 0;
};

struct RecordsPage {
  std::vector<FeedItem> items;
  size_t read = 0;  // of the request's keys, from the first on; at least one
};

struct InboundRecord {
  Sequence sequence;  // in the peer's feed; 0 outside it
  RecordKey key;
  std::string update;
  Sequence place;  // outside the feed: where that had it when it was read
};

struct InboundLeft {
  RecordKey key;
  Seen seen;              // of the hub's state; empty: the hub has never had it, or does not say
  bool unplaced = false;  // it has not left, and no other state of it comes
};

struct ApplyRequest {
  PeerIdentity peer;
  // This replica's id when the session began: under another one nothing is taken. 0: not looked
  // at.
  ReplicaId told_as;
  std::vector<InboundRecord> records;
  std::vector<InboundLeft> left;
  // Become durable with the records; not where one of a feed must come whole.
  std::vector<FeedCursor> cursors;
  // How far the peer has come in this replica's feeds, by scope.
  std::map<Scope, Sequence> peer_has;
};

struct RecordOutcome {
  enum class Kind : uint8_t {
    kTaken,    // merged, or nothing new
    kIgnored,  // not for this replica now
    kNeedsWhole,
    kRefused,
    kAhead,  // stamped too far ahead: nothing of it was taken
  };
  Kind kind = Kind::kTaken;
  RecordKey key;
  Sequence sequence;
  bool answer = false;  // what stands differs from what was pushed, or is not the pusher's
  // At a hub: so many values, conflicts and settlements of others were taken on a node's word.
  size_t vouched = 0;
  bool taken_back = false;  // at a node: it had been dropped
  RefusedRecord refusal;
  Seen waits;  // of a record that waits for headquarters' word: what it has seen
};

struct ApplyResult {
  std::vector<RecordOutcome> outcomes;  // as request.records
  std::vector<DroppedRecord> dropped;
  std::vector<std::string> damage;
  size_t conflicts_found = 0;
  bool identity_changed = false;
};

struct AcknowledgeRequest {
  PeerIdentity peer;
  std::optional<Sequence> through;  // of this replica's feed of all
  // Refusals are still to come: no record is let go before they have.
  bool drops_wait = false;
  ReplicaId told_as;    // this replica's id when the session began
  HybridTime own_high;  // highest own clock told up to there
  // What the peer was to be told anew it has been, up to here.
  std::optional<Sequence> anew;
  std::optional<uint64_t> accepted;  // the session's id, where this replica accepted it
  std::vector<RefusedRecord> refused;
  // What the peer did not take in an earlier session, and may have been given its word on since:
  // it goes there again.
  std::vector<RecordKey> push_again;
  std::vector<DroppedRecord> dropped;  // the peer dropped these
};

struct AcknowledgeResult {
  std::vector<DroppedRecord> dropped;  // due now at this replica
};

}  // namespace chaptersync::storage

#endif  // CHAPTERSYNC_STORAGE_REPLICA_EXCHANGE_H_
