// SPDX-License-Identifier: Apache-2.0
//
// Many nodes in one process, each with a replica in memory, a certificate and a connection of its
// own, as chapter-bench's hidden command. It prints `ready`, then takes orders from standard input,
// one JSON object a line, and answers each with one on standard output, as it stands beside it
// below; the end of standard input ends it. The first thread; others are the nodes'.
//
//   {"do": "join", "invitations": [text, ...]}   {"joined": count}: a node more for each
//   {"do": "connect"}                            {"connected": count}: all in sync
//   {"do": "await", "event": ID, "venue": text}  {"seen_ns": [time, ...]}: when each first did
//
// Joining ends with connecting, which is once. What goes wrong is answered with {"error": text}.
// Times are of the monotonic clock.
#ifndef CHAPTERSYNC_TOOLS_BENCH_CROWD_H_
#define CHAPTERSYNC_TOOLS_BENCH_CROWD_H_

#include "absl/time/time.h"

namespace chaptersync::bench {

// Until one node is enrolled, or is in sync, or shows an edit.
inline constexpr absl::Duration kCrowdStepTimeout = absl::Minutes(1);
// Nodes that begin their sessions together: one after the other would take long, all at once would
// measure how the hub takes a storm.
inline constexpr int kConnectTogether = 16;
// Threads that carry out the nodes' sessions.
inline constexpr int kCrowdWorkers = 2;

// The exit code.
int RunCrowd();

}  // namespace chaptersync::bench

#endif  // CHAPTERSYNC_TOOLS_BENCH_CROWD_H_
