// SPDX-License-Identifier: Apache-2.0
//
// The limits of a sync session, each with its unit and reason. Over a limit the
// stream ends with a status that names it.
#ifndef CHAPTERSYNC_NODE_SESSION_LIMITS_H_
#define CHAPTERSYNC_NODE_SESSION_LIMITS_H_

#include <cstddef>
#include <cstdint>

#include "storage/core/limits.h"

namespace chaptersync::node {

// Protocol versions that this program speaks.
inline constexpr uint32_t kVersionMin = 1;
inline constexpr uint32_t kVersionMax = 1;

// One message, also before decompression. A page of records and one record over.
inline constexpr size_t kMessageBytesMax = 8 << 20;
// Bytes of records put into one Changes: large enough to fill a disk's write, small
// enough that a slow line shows progress.
inline constexpr size_t kPageBytesMax = 512 << 10;
static_assert(kPageBytesMax + storage::kRecordBytesMax < kMessageBytesMax);
// Records in one Changes: bounds one commit at the receiver.
inline constexpr size_t kPageRecordsMax = 1000;
static_assert(kPageRecordsMax <= storage::kBatchWritesMax);
// Records that one message may hold, whatever their size.
inline constexpr size_t kMessageRecordsMax = 2000;
// Bytes of Changes that may be unacknowledged: a round trip of a tenth of a second
// at 40 MB/s.
inline constexpr size_t kWindowBytes = 4 << 20;
static_assert(kWindowBytes >= kPageBytesMax);
// Messages that wait to be handled; the driver reads no more from the stream above.
inline constexpr size_t kInboxMax = 16;
// Feed entries that did not concern the peer before it is told to move its cursor
// past them. Each move is a write at the peer.
inline constexpr size_t kSkippedMax = 1024;
// Names in one Whole.
inline constexpr size_t kWholeMax = 1000;
// Cursors in one Hello: hubs times scopes.
inline constexpr size_t kCursorsMax = 1024;
// Between two Pulses, in milliseconds.
inline constexpr uint64_t kPulseEveryMs = 10'000;
// Without any message for so long the peer is gone, in milliseconds.
inline constexpr uint64_t kSilenceMaxMs = 35'000;
static_assert(kSilenceMaxMs > 3 * kPulseEveryMs);
// How far the hub's clock may seem to have moved at a heartbeat before a node follows
// it, in milliseconds: the longest way of a message that is not worth a change.
inline constexpr int64_t kClockDriftMsMax = 5'000;
// Payloads smaller than this are not worth compressing, in bytes.
inline constexpr size_t kCompressFrom = 256;

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_SESSION_LIMITS_H_
