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
// What a session begins with, and what a slow line brings it down to: a page of the
// least size is two seconds of a line of 64 kbit/s.
inline constexpr size_t kPageBytesStart = 64 << 10;
inline constexpr size_t kPageBytesMin = 16 << 10;
static_assert(kPageBytesMin <= kPageBytesStart && kPageBytesStart <= kPageBytesMax);
// A page that is full and acknowledged faster makes the next ones twice as large; slower,
// half.
inline constexpr uint64_t kPageFastMs = 1'000;
inline constexpr uint64_t kPageSlowMs = 4'000;
static_assert(kPageFastMs < kPageSlowMs);
// Records in one Changes: bounds one commit at the receiver.
inline constexpr size_t kPageRecordsMax = 1000;
static_assert(kPageRecordsMax <= storage::kBatchWritesMax);
// Records that one message may hold, whatever their size.
inline constexpr size_t kMessageRecordsMax = 2000;
// Bytes of Changes that may be unacknowledged: a round trip of a tenth of a second
// at 40 MB/s.
inline constexpr size_t kWindowBytes = 4 << 20;
// Pages that may be unacknowledged, so that the window shrinks with the page.
inline constexpr size_t kWindowPages = 8;
static_assert(kWindowBytes >= kWindowPages * kPageBytesMax);
// Messages that wait to be handled; the driver reads no more from the stream above.
inline constexpr size_t kInboxMax = 16;
// Feed entries that did not concern the peer before it is told to move its cursor
// past them. Each move is a write at the peer.
inline constexpr size_t kSkippedMax = 1024;
// Names in one Whole.
inline constexpr size_t kWholeMax = 1000;
// Records that a peer has asked for and that wait to be read. A peer asks for what came
// to it in the window, and no record takes less than a few dozen bytes of that.
inline constexpr size_t kWholeWaitingMax = 100'000;
static_assert(kWholeWaitingMax >= kWindowBytes / 64);
// Cursors in one Hello: hubs times scopes.
inline constexpr size_t kCursorsMax = 1024;
inline constexpr size_t kPastEpochsMax = 1024;
// A Hello or Welcome, in bytes: room for as many cursors and epochs, and some for later versions.
inline constexpr size_t kHandshakeBytesMax = 512 << 10;
static_assert(kHandshakeBytesMax >= 256 * kCursorsMax + 16 * kPastEpochsMax);
// Between two Pulses, in milliseconds.
inline constexpr uint64_t kPulseEveryMs = 10'000;
// So often a node asks for what no feed may tell it of (Replica::FindMissing), in milliseconds.
inline constexpr uint64_t kMissingAskedEveryMs = 3'600'000;
static_assert(kWholeWaitingMax > 2 * storage::kMissingAskedMax);
// Without any message for so long the peer is gone, in milliseconds. A dead line is found
// out by the driver's keepalive; this is for a peer that lives and says nothing. Long
// enough for the largest record on a line of 64 kbit/s.
inline constexpr uint64_t kSilenceMaxMs = 300'000;
static_assert(kSilenceMaxMs > 3 * kPulseEveryMs);
static_assert(kSilenceMaxMs / 1000 * 8'000 > storage::kRecordBytesMax);
// How far the hub's clock may seem to have moved at a heartbeat before a node follows
// it, in milliseconds: the longest way of a message that is not worth a change.
inline constexpr int64_t kClockDriftMsMax = 5'000;
// Records that a note names, of those that it tells of: a line of a log.
inline constexpr size_t kNotedRecordsMax = 10;
// Payloads smaller than this are not worth compressing, in bytes.
inline constexpr size_t kCompressFrom = 256;

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_SESSION_LIMITS_H_
