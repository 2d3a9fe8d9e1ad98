// SPDX-License-Identifier: Apache-2.0
//
// The limits of the local API, each with its unit and reason. Going over one is
// answered with an error that names it, or with a page that has more to come.
#ifndef CHAPTERSYNC_NODE_API_LIMITS_H_
#define CHAPTERSYNC_NODE_API_LIMITS_H_

#include <cstddef>

#include "storage/core/limits.h"

namespace chaptersync::node {

// Items of a page where the caller does not say, and at most.
inline constexpr int kPageSizeDefault = 100;
inline constexpr int kPageSizeMax = 1000;
// Bytes of a page: more items are for the next one. With one record on top it
// stays below what gRPC's clients take by default.
inline constexpr size_t kAnswerBytesMax = 2 << 20;
inline constexpr size_t kClientMessageBytesMax = 4 << 20;
static_assert(kAnswerBytesMax + 2 * storage::kRecordBytesMax <= kClientMessageBytesMax);
// Records that one list call looks at when it filters: bounds its time.
inline constexpr size_t kListScanMax = 2000;
// Records read at once, and held in memory, while listing.
inline constexpr size_t kListReadCount = 64;
static_assert(kListReadCount < kListScanMax);
// Paths of an update mask: every cell of a record can be named.
inline constexpr int kMaskPathsMax = 4096;
static_assert(kMaskPathsMax == storage::kCellsMax);
// Bytes of a search text, and of a value to match.
inline constexpr size_t kFilterBytesMax = 4096;
// Ids that one resolve call answers.
inline constexpr size_t kResolveMax = 10;
// Digits of a conflict's id, at least and at most.
inline constexpr size_t kConflictDigitsMin = 4;
inline constexpr size_t kConflictDigitsMax = 32;
// Events that wait for a slow watcher. When it is full the watch ends with
// RESOURCE_EXHAUSTED.
inline constexpr size_t kWatchQueueMax = 1024;
static_assert(kWatchQueueMax >= storage::kBatchWritesMax);  // one batch fits
// Watches at once: each holds a queue.
inline constexpr size_t kWatchesMax = 256;

// An account's name. With "@" and a chapter's handle it is an actor.
inline constexpr size_t kAccountBytesMax = 128;
static_assert(kAccountBytesMax + 1 + 32 <= storage::kActorBytesMax);
// Tries of a write that is made from what a record holds while peers change it.
inline constexpr int kWriteAttemptsMax = 16;

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_API_LIMITS_H_
