// SPDX-License-Identifier: Apache-2.0
//
// Small values under Table::kMeta and their bytes; docs/disk_format.md lists them. What
// cannot be read counts as not known, where nothing is said of an error.
#ifndef CHAPTERSYNC_STORAGE_REPLICA_META_VALUES_H_
#define CHAPTERSYNC_STORAGE_REPLICA_META_VALUES_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

#include "storage/core/record_codec.h"
#include "storage/core/types.h"
#include "storage/engine/engine.h"
#include "storage/replica/exchange.h"

namespace chaptersync::storage {

// How far a hub has acknowledged this replica's feed.
struct AcknowledgedValue {
  Epoch hub_epoch;
  Sequence through;
  Sequence farthest;  // the same, but never less than before
  HybridTime own_high;
  HybridTime told_high;            // of own stamps that were ahead: the highest told
  Sequence anew;                   // up to here the hub is told whole records
  ReplicaId as;                    // this replica's id at that time
  std::vector<uint64_t> sessions;  // that the hub has welcomed, the last ones
};
std::string Encode(const AcknowledgedValue& value);
AcknowledgedValue DecodeAcknowledged(std::string_view bytes);
// By hub.
absl::StatusOr<std::map<ReplicaId, AcknowledgedValue>> ReadAcknowledged(const Snapshot& snapshot);

// Sessions by their ids, in their order, the last at the end.
void AppendSessions(const std::vector<uint64_t>& sessions, std::string& out);
std::vector<uint64_t> ReadSessions(Reader& in, size_t most);
// Puts `session` last and keeps the last `most`.
void Remember(uint64_t session, size_t most, std::vector<uint64_t>& sessions);

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
std::string Encode(const SessionsValue& value);
SessionsValue DecodeSessions(std::string_view bytes);

// That a record has left, as a hub said.
struct LeavingWord {
  NodeId hub;
  Epoch epoch;
  Seen seen;  // of the hub's state
};
// A record that is to be dropped, or was.
struct LeavingValue {
  std::vector<LeavingWord> words;   // one of each hub, the last kHubsMax
  std::vector<NodeId> dropped_for;  // hubs, each once, the last kHubsMax
  std::vector<RecordKey> leaders;   // of one that was dropped
  Seen seen;                        // of all words that were heard, also of epochs that are over

  // Replaces what the hub said in another epoch.
  void Hear(const LeavingWord& word);
  // Null where the hub has said nothing in this epoch.
  const LeavingWord* Find(const NodeId& hub, Epoch epoch) const;
  void NoteDrop(const NodeId& hub);
};
std::string Encode(const LeavingValue& value);
// DATA_LOSS where it cannot be read.
absl::StatusOr<LeavingValue> DecodeLeaving(std::string_view bytes);

// A refusal at the hub.
struct PendingRefusal {
  Epoch epoch;         // the hub's
  bool noted = false;  // the node has it, and may still ask what the hub has
  RefusedRecord refusal;
};
std::string Encode(const PendingRefusal& value);
// DATA_LOSS where it cannot be read.
absl::StatusOr<PendingRefusal> DecodePending(std::string_view bytes);

// A refusal that a node has noted, with the hub that it waits for: no other can say
// what the record is without it.
struct ResetValue {
  NodeId hub;
  Epoch epoch;
  RefusedRecord refusal;
};
std::string Encode(const ResetValue& value);
// DATA_LOSS where it cannot be read.
absl::StatusOr<ResetValue> DecodeReset(std::string_view bytes);

// The hub that a record waits for, and what for. What waits for headquarters' word was in the feed
// at `at`: once that hub has stored the record from a later place it waits no more.
enum class WaitsFor : uint8_t { kClock, kApproval };
struct WaitingValue {
  NodeId hub;
  WaitsFor what = WaitsFor::kClock;
  Sequence at;
};
std::string Encode(const WaitingValue& value);
// DATA_LOSS where it cannot be read.
absl::StatusOr<WaitingValue> DecodeWaiting(std::string_view bytes);

// What waits at a hub for headquarters' word. Number, key and node are elsewhere.
struct ApprovalValue {
  uint64_t number = 0;
  uint64_t since_ms = 0;
  Scope chapter;  // the node's
  std::string reason;
  std::string update;
};
std::string Encode(const ApprovalValue& value);
// DATA_LOSS where it cannot be read.
absl::StatusOr<ApprovalValue> DecodeApproval(std::string_view bytes);

// What headquarters rejected of a record that a node pushed.
struct RejectedValue {
  std::string digest;      // NewsDigest: 32 bytes
  bool sent_back = false;  // the record was taken from that node since, and sent to it
};
std::string Encode(const RejectedValue& value);
// DATA_LOSS where it cannot be read.
absl::StatusOr<RejectedValue> DecodeRejected(std::string_view bytes);

std::string EncodeNumber(uint64_t value);
// What Get answered; 0 where there is none.
uint64_t DecodeNumber(const absl::StatusOr<std::string>& bytes);

// How far this replica has come in a peer's feed.
void PutCursor(const FeedCursor& cursor, bool peer_is_hub, WriteBatch& batch);
// A row of keys::Cursor.
FeedCursor DecodeCursor(std::string_view key, std::string_view value);

// The mark of the commit that holds `sequence`. 0: none.
Mark MarkAt(const Snapshot& snapshot, Sequence sequence);

bool Disjoint(const std::set<Scope>& a, const std::set<Scope>& b);

}  // namespace chaptersync::storage

#endif  // CHAPTERSYNC_STORAGE_REPLICA_META_VALUES_H_
