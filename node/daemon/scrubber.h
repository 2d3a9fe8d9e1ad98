// SPDX-License-Identifier: Apache-2.0
//
// Some seconds after records were dropped or erased, has the replica rewrite the
// files that held them. One thread of its own.
#ifndef CHAPTERSYNC_NODE_DAEMON_SCRUBBER_H_
#define CHAPTERSYNC_NODE_DAEMON_SCRUBBER_H_

#include <atomic>
#include <cstdint>
#include <thread>

#include "node/sync/waker.h"
#include "storage/replica/replica.h"

namespace chaptersync::node {

class Scrubber {
 public:
  // After the last drop, in milliseconds: drops come in bursts.
  static constexpr int64_t kAfterMs = 5'000;

  // `replica` outlives it.
  explicit Scrubber(storage::Replica& replica, int64_t after_ms = kAfterMs);
  // Waits for a scrub that runs.
  ~Scrubber();
  Scrubber(const Scrubber&) = delete;
  Scrubber& operator=(const Scrubber&) = delete;

  // Scrubs that went well, for tests.
  uint64_t scrubs() const { return scrubs_; }

 private:
  void Run();

  storage::Replica& replica_;
  const int64_t after_ms_;
  std::atomic<bool> stopping_ = false;
  std::atomic<int64_t> last_drop_ms_ = 0;  // steady clock; 0: nothing to do
  std::atomic<uint64_t> scrubs_ = 0;
  Waker waker_;
  uint64_t subscription_ = 0;
  std::thread thread_;
};

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_DAEMON_SCRUBBER_H_
