// SPDX-License-Identifier: Apache-2.0
//
// Many nodes at a hub, in a few processes of this program (crowd.h), so that what is measured at
// the hub is the hub's. One thread.
#ifndef CHAPTERSYNC_TOOLS_BENCH_CROWD_PROCESS_H_
#define CHAPTERSYNC_TOOLS_BENCH_CROWD_PROCESS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include <nlohmann/json.hpp>

#include "tools/bench/daemon.h"
#include "tools/bench/federation.h"

namespace chaptersync::bench {

// Nodes of one process: each has a thread.
inline constexpr int64_t kNodesPerProcess = 250;
// Nodes of one chapter, but for the bound.
inline constexpr int64_t kNodesPerChapter = 2;
inline constexpr int64_t kChaptersMax = 500;
// Until a process has done what it was told with all of its nodes.
inline constexpr absl::Duration kOrderTimeout = absl::Minutes(10);

class Crowd {
 public:
  // Adds the chapters, and lets `nodes` nodes join; none connects yet. `self`: this program.
  static absl::StatusOr<std::unique_ptr<Crowd>> Join(Federation& federation,
                                                     const std::string& self, int64_t nodes);

  int64_t chapters() const { return chapters_; }
  // Returns once all are in a session and in sync. Once.
  absl::Status Connect();
  // Returns once all show the event's venue: when each first did, in nanoseconds of the monotonic
  // clock.
  absl::StatusOr<std::vector<int64_t>> AwaitVenue(const std::string& event,
                                                  const std::string& venue);

 private:
  Crowd() = default;
  // To all at once; their answers.
  absl::StatusOr<std::vector<nlohmann::json>> Order(const nlohmann::json& order);

  int64_t chapters_ = 0;
  std::vector<std::unique_ptr<Daemon>> processes_;
};

}  // namespace chaptersync::bench

#endif  // CHAPTERSYNC_TOOLS_BENCH_CROWD_PROCESS_H_
