// SPDX-License-Identifier: Apache-2.0
//
// The keys under which a replica keeps things; docs/disk_format.md lists them
// with their values. No key holds a value of a record. Pure; any thread.
#ifndef CHAPTERSYNC_STORAGE_REPLICA_KEYS_H_
#define CHAPTERSYNC_STORAGE_REPLICA_KEYS_H_

#include <string>
#include <string_view>

#include "storage/core/record_codec.h"
#include "storage/core/types.h"

namespace chaptersync::storage::keys {

// --- Table::kFeed: scope, then the sequence so that it sorts. ---
inline std::string FeedPrefix(const Scope& scope) {
  std::string out;
  AppendString(scope.name, out);
  return out;
}
inline std::string Feed(const Scope& scope, Sequence sequence) {
  std::string out = FeedPrefix(scope);
  AppendBigEndian64(sequence.value, out);
  return out;
}

// --- Table::kIndex ---
inline std::string FollowerPrefix(const RecordKey& leader) { return "f" + EncodeKey(leader); }
inline std::string Follower(const RecordKey& leader, const RecordKey& follower) {
  return FollowerPrefix(leader) + EncodeKey(follower);
}
inline constexpr std::string_view kConflictByIdPrefix = "c";
inline std::string ConflictById(std::string_view id) { return "c" + std::string(id); }
inline constexpr std::string_view kConflictByTimePrefix = "t";
inline std::string ConflictByTime(HybridTime found_at, std::string_view id) {
  std::string out = "t";
  AppendBigEndian64(found_at.ticks, out);
  return out.append(id);
}
inline constexpr std::string_view kOpenConflictPrefix = "o";
inline std::string OpenConflict(HybridTime found_at, std::string_view id) {
  std::string out = "o";
  AppendBigEndian64(found_at.ticks, out);
  return out.append(id);
}

// --- Table::kMeta ---
inline constexpr std::string_view kFormat = "F";    // format number and role
inline constexpr std::string_view kIdentity = "I";  // replica ids, epoch, clock offset
inline constexpr std::string_view kState = "S";     // clock, last sequence, counters
// There while files may hold what was dropped or erased.
inline constexpr std::string_view kResidue = "R";
// By which rules records were placed.
inline constexpr std::string_view kRules = "P";

inline std::string ById(char kind, ReplicaId replica) {
  std::string out(1, kind);
  AppendBigEndian64(replica.value, out);
  return out;
}
inline std::string ByNode(char kind, const NodeId& node) {
  std::string out(1, kind);
  return out.append(reinterpret_cast<const char*>(node.bytes.data()), node.bytes.size());
}
// A node in one of its epochs: a copy of it is in another.
inline std::string ByNodeEpoch(char kind, const NodeId& node, Epoch epoch) {
  std::string out = ByNode(kind, node);
  AppendBigEndian64(epoch.value, out);
  return out;
}
inline std::string ByKey(char kind, const RecordKey& key) {
  return std::string(1, kind) + EncodeKey(key);
}
inline std::string ByNumber(char kind, uint64_t number) {
  std::string out(1, kind);
  AppendBigEndian64(number, out);
  return out;
}
// How many records of an entity are live.
inline constexpr char kLiveCountKind = 'n';
inline std::string LiveCount(EntityNumber entity) { return ByNumber(kLiveCountKind, entity.value); }
// The mark of the commit that ended at `sequence`.
inline std::string Mark(Sequence sequence) { return ByNumber('m', sequence.value); }
// How far this replica has come in a peer's feed. Those in hubs' feeds are told to hubs;
// a hub's own in its nodes' feeds, which are many, are kept apart.
inline constexpr char kHubCursorKind = 'c';
inline constexpr char kNodeCursorKind = 'b';
inline std::string Cursor(ReplicaId peer, bool peer_is_hub, const Scope& scope) {
  return ById(peer_is_hub ? kHubCursorKind : kNodeCursorKind, peer) + scope.name;
}
// How far a hub has come in this replica's feed.
inline constexpr char kAcknowledgedKind = 'a';
inline std::string Acknowledged(ReplicaId hub) { return ById(kAcknowledgedKind, hub); }
// At a hub: the highest clock known of a replica id, and its hash.
inline std::string Highest(ReplicaId writer) { return ById('h', writer); }
// The epochs known of a hub.
inline constexpr char kHubEpochsKind = 'e';
inline std::string HubEpochsOf(const NodeId& hub) { return ByNode(kHubEpochsKind, hub); }
// At a node: all cursors in hubs' feeds are void when the next session begins.
inline constexpr std::string_view kCursorsVoid = "V";
// What a record had seen when this replica dropped it.
inline constexpr char kDroppedKind = 'd';
inline std::string Dropped(const RecordKey& key) { return ByKey(kDroppedKind, key); }
// A record that is to be dropped once the hub has acknowledged all of it.
inline constexpr char kLeavingKind = 'l';
inline std::string Leaving(const RecordKey& key) { return ByKey(kLeavingKind, key); }
// Drops that a hub has not noted yet; and how many were ever made for it.
inline std::string UnnotedDropPrefix(const NodeId& hub) { return ByNode('u', hub); }
inline std::string UnnotedDrop(const NodeId& hub, uint64_t number) {
  std::string out = UnnotedDropPrefix(hub);
  AppendBigEndian64(number, out);
  return out;
}
inline std::string DropCount(const NodeId& hub) { return ByNode('v', hub); }
// At a hub: the last drop noted of a node, and the records that it dropped.
inline std::string DropsNoted(const NodeId& node, Epoch epoch) {
  return ByNodeEpoch('w', node, epoch);
}
inline std::string DroppedBy(const NodeId& node, Epoch epoch, const RecordKey& key) {
  return ByNodeEpoch('x', node, epoch) + EncodeKey(key);
}
// At a hub: the replica id under which a node came last, by its epoch.
inline std::string CameAs(const NodeId& node, Epoch epoch) { return ByNodeEpoch('i', node, epoch); }
// At a hub: refusals that a node has not noted.
inline std::string RefusalPrefix(const NodeId& node, Epoch epoch) {
  return ByNodeEpoch('r', node, epoch);
}
inline std::string Refusal(const NodeId& node, Epoch epoch, const RecordKey& key) {
  return RefusalPrefix(node, epoch) + EncodeKey(key);
}
// At a hub: what waits for headquarters' word, by node, epoch and record; the number of the last;
// and of what was rejected a digest.
inline constexpr char kApprovalKind = 'p';
inline std::string Approval(const NodeId& node, Epoch epoch, const RecordKey& key) {
  return ByNodeEpoch(kApprovalKind, node, epoch) + EncodeKey(key);
}
inline constexpr std::string_view kApprovalLast = "A";
inline std::string Rejected(const NodeId& node, Epoch epoch, const RecordKey& key) {
  return ByNodeEpoch('t', node, epoch) + EncodeKey(key);
}
// Sessions of a peer's replica id, as the one that accepts them remembers them.
inline std::string SessionsOf(ReplicaId peer) { return ById('y', peer); }
// Sessions that this replica has opened and no hub has welcomed.
inline constexpr std::string_view kAttempts = "j";
// At a node: records whose refused writes are to be taken out.
inline constexpr char kResetKind = 'q';
inline std::string Reset(const RecordKey& key) { return ByKey(kResetKind, key); }
// At a node: a record that a hub does not take yet: others stamped it further ahead than the hub
// allows, or it waits for headquarters' word.
inline constexpr char kWaitingKind = 'g';
inline std::string Waiting(const RecordKey& key, const NodeId& hub) {
  return ByKey(kWaitingKind, key).append(hub.bytes.begin(), hub.bytes.end());
}
// The list of refused writes.
inline constexpr char kRefusedKind = 'z';
inline std::string Refused(uint64_t number) { return ByNumber(kRefusedKind, number); }
// Own stamps that no hub has acknowledged, with a hash of each.
inline constexpr char kStampKind = 'o';
inline std::string Stamp(HybridTime time) { return ByNumber(kStampKind, time.ticks); }
// Digests of scopes, as they were at the end of the commit that kDigestCheckpoint names, and
// records that have changed since, as they were then.
inline constexpr char kDigestKind = 'D';
inline std::string Digest(const Scope& scope) { return std::string(1, kDigestKind) + scope.name; }
inline constexpr std::string_view kDigestCheckpoint = "C";
inline constexpr char kDigestedBeforeKind = 'B';
inline std::string DigestedBefore(const RecordKey& key) { return ByKey(kDigestedBeforeKind, key); }
// Settings of the layers above.
inline std::string Setting(std::string_view key) { return "s" + std::string(key); }

// The first key after all that begin with `prefix`; empty where there is none.
inline std::string PrefixEnd(std::string prefix) {
  while (!prefix.empty() && static_cast<unsigned char>(prefix.back()) == 0xff) prefix.pop_back();
  if (!prefix.empty()) ++prefix.back();
  return prefix;
}

}  // namespace chaptersync::storage::keys

#endif  // CHAPTERSYNC_STORAGE_REPLICA_KEYS_H_
