// SPDX-License-Identifier: Apache-2.0
//
// The limits of what is kept and merged, each with its unit and reason. A peer
// or a person that goes over one gets an error that names it.
#ifndef CHAPTERSYNC_STORAGE_CORE_LIMITS_H_
#define CHAPTERSYNC_STORAGE_CORE_LIMITS_H_

#include <cstddef>
#include <cstdint>

namespace chaptersync::storage {

// One record as a whole, encoded. A photo, long notes and a conflict log fit; a
// thousand of them still fit into a small machine's memory.
inline constexpr size_t kRecordBytesMax = 1 << 20;
// One cell's value. Below the record's limit, so that a cell never fills it alone.
inline constexpr size_t kCellBytesMax = 768 << 10;
static_assert(kCellBytesMax < kRecordBytesMax);
// A map entry's key. Keys are for people: "home", a language tag, a chapter.
inline constexpr size_t kMapKeyBytesMax = 256;
// Cells of one record. A list of guests is records of its own, not a map.
inline constexpr size_t kCellsMax = 4096;
// Replicas that ever wrote one record.
inline constexpr size_t kSeenMax = 4096;
// Entries of one record's conflict log, and settlements of one entry.
inline constexpr size_t kConflictsMax = 4096;
inline constexpr size_t kSettlementsMax = 64;
// An actor: an account's name of up to 128 bytes, "@", and a chapter's handle.
inline constexpr size_t kActorBytesMax = 192;
// Why a write was refused: a hub's words, for people.
inline constexpr size_t kRefusedReasonBytesMax = 2048;
// Records that are not held, of which a session asks at a time: those of refused writes, and those
// that were dropped.
inline constexpr size_t kMissingAskedMax = 10'000;
// Field numbers, as Protocol Buffers allow them.
inline constexpr uint32_t kFieldMax = (1u << 29) - 1;
// Scopes of one record: hosts of an event.
inline constexpr size_t kScopesMax = 1024;
// A scope's name: "chapter/" and a handle of up to 32 characters fit.
inline constexpr size_t kScopeBytesMax = 64;
// What waits at a hub for headquarters' word: records of one node and their bytes, and of all.
inline constexpr size_t kApprovalsOfNodeMax = 1000;
inline constexpr size_t kApprovalBytesOfNodeMax = 16 << 20;
inline constexpr size_t kApprovalsMax = 20'000;
inline constexpr size_t kApprovalBytesMax = 64 << 20;
// How deep following goes: a response follows a delivery follows a member is two.
inline constexpr int kFollowDepthMax = 4;
// How far ahead of one hub's clock the stamps that another hub has acknowledged, or was told, may
// be to be waited for, in milliseconds: as long as people wait without asking. Those further ahead
// are stamped again, at the risk of a false alarm.
inline constexpr uint64_t kAcknowledgedAheadMsMax = 600'000;
// Sessions that a replica remembers: those that one hub has welcomed, so that a hub that went
// back is found out, and those that none has, which a hub may have accepted all the same.
inline constexpr size_t kSessionsKept = 16;
inline constexpr size_t kAttemptsKept = 64;
// Ids that a node gave up, of which it tells hubs, the last ones: whoever comes as one of them is
// another computer, or has gone back.
inline constexpr size_t kFormerIdsTold = 64;
// Epochs of a hub before the present one, of which a peer tells it.
inline constexpr size_t kHubEpochsKept = 16;
// So far apart hubs' clocks may be, in milliseconds, for what one met later to be later.
inline constexpr uint64_t kHubClocksApartMsMax = 60'000;
// An own stamp further ahead of the corrected wall clock, in milliseconds, is noted before a hub
// is told of it.
inline constexpr uint64_t kToldAheadMsMin = 1000;
// Hubs of which a hub tells, and whose word a node remembers on one record that has left.
inline constexpr size_t kHubsMax = 64;
// Positions in hubs' feeds: those that a hub remembers of what peers have named, the last
// ones; those that it takes from one peer's Hello, and tells in one heartbeat.
inline constexpr size_t kReachedKept = 1024;
inline constexpr size_t kReachedToldMax = 64;
// Writes of one batch: bounds the memory and the pause of one commit.
inline constexpr size_t kBatchWritesMax = 1000;

}  // namespace chaptersync::storage

#endif  // CHAPTERSYNC_STORAGE_CORE_LIMITS_H_
