// SPDX-License-Identifier: Apache-2.0
//
// The limits of carrying sessions: threads, queues, times, each with its unit and
// reason. What a session itself allows is in node/session/limits.h.
#ifndef CHAPTERSYNC_NODE_SYNC_LIMITS_H_
#define CHAPTERSYNC_NODE_SYNC_LIMITS_H_

#include <cstddef>
#include <cstdint>

#include "node/session/limits.h"

namespace chaptersync::node {

// Threads that carry out replica calls. Each may wait for an fsync, which they share.
inline constexpr int kSessionWorkers = 4;
// Sessions that a hub serves at once: twice the chapters that it is planned for.
inline constexpr size_t kStreamsMax = 2000;
// Streams on one connection. A node needs one, and one more while it takes over.
inline constexpr int kStreamsPerConnectionMax = 16;
// Bytes that wait to be sent before an acceptor reads no more: what is in the
// window, and as much in answers. An initiator reads on, so that two that wait for
// each other cannot be.
inline constexpr size_t kBacklogBytesMax = 2 * kWindowBytes;
static_assert(kBacklogBytesMax >= kWindowBytes + kMessageBytesMax / 2);
// Connections that may begin at a hub at once with one certificate's key, and after that one in so
// long, in milliseconds. What has no stream is closed soon, so that this bounds how many are open.
inline constexpr int64_t kConnectionsBurst = 60;
inline constexpr int64_t kConnectionEveryMs = 1'000;
// Keys whose connections are counted at a time.
inline constexpr size_t kCountedKeysMax = 10'000;
// Streams that one computer may have open at a hub: one is at work, others may hang in lines that
// broke.
inline constexpr size_t kStreamsPerNodeMax = 8;
static_assert(kStreamsPerNodeMax < kStreamsMax);
// A message's envelope on the stream, in bytes.
inline constexpr int kEnvelopeBytesMax = 16;
// Between two ticks of a session, in milliseconds.
inline constexpr int64_t kTickMs = 1000;
// Until Hello and Welcome must have been exchanged, in milliseconds.
inline constexpr int64_t kHandshakeMsMax = 10'000;
static_assert(kHandshakeMsMax >= 2 * kTickMs);
// For a stream that was closed to send what is under way, in milliseconds.
inline constexpr int64_t kCloseMsMax = 2'000;

// Between two tries to reach the hub, in milliseconds, doubled each time.
inline constexpr int64_t kBackOffMsMin = 200;
inline constexpr int64_t kBackOffMsMax = 30'000;
// A session that was ready for so long counts as a success, in milliseconds.
inline constexpr int64_t kGoodSessionMs = 10'000;
static_assert(kBackOffMsMin < kBackOffMsMax);

// A connection without any sign of life for the sum of these is given up, in
// milliseconds. Below what most middleboxes allow an idle connection.
inline constexpr int kKeepaliveTimeMs = 20'000;
inline constexpr int kKeepaliveTimeoutMs = 10'000;
// The hub counts pings that come faster than this as a fault.
inline constexpr int kKeepaliveTimeMsMin = 10'000;
static_assert(kKeepaliveTimeMsMin < kKeepaliveTimeMs);
// A connection without a stream is closed after so long, in milliseconds.
inline constexpr int kConnectionIdleMsMax = 15'000;

// How far the unsent records of a peer are counted.
inline constexpr uint64_t kUnsentCountMax = 10'000;

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_SYNC_LIMITS_H_
