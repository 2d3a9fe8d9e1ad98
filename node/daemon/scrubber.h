// SPDX-License-Identifier: Apache-2.0
//
// Some seconds after records were dropped or erased, has the replica rewrite the
// files that held them: once no more are dropped for a while, and soon also while more are.
// One thread of its own.
#ifndef CHAPTERSYNC_NODE_DAEMON_SCRUBBER_H_
#define CHAPTERSYNC_NODE_DAEMON_SCRUBBER_H_

#include <atomic>
#include <cstdint>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "node/sync/waker.h"
#include "storage/replica/replica.h"

namespace chaptersync::node {

class Scrubber {
 public:
  // After the last drop, in milliseconds: drops come in bursts.
  static constexpr int64_t kAfterMs = 5'000;
  // After the first drop that is not scrubbed yet: who goes on dropping puts it off no longer.
  static constexpr int64_t kWithinMs = 30'000;
  static_assert(kAfterMs < kWithinMs);

  // `replica` outlives it.
  explicit Scrubber(storage::Replica& replica, int64_t after_ms = kAfterMs,
                    int64_t within_ms = kWithinMs);
  // Waits for a scrub that runs.
  ~Scrubber();
  Scrubber(const Scrubber&) = delete;
  Scrubber& operator=(const Scrubber&) = delete;

  // Scrubs that went well, for tests.
  uint64_t scrubs() const { return scrubs_; }

 private:
  void Run();
  // There is something to scrub.
  void NoteResidue();
  // Until it is time to, in milliseconds; 0: now, and what there was is taken as done.
  int64_t TakeDue();

  storage::Replica& replica_;
  const int64_t after_ms_;
  const int64_t within_ms_;
  std::atomic<bool> stopping_ = false;
  absl::Mutex mutex_;
  // Steady clock, of what is not scrubbed yet; 0: nothing.
  int64_t first_drop_ms_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t last_drop_ms_ ABSL_GUARDED_BY(mutex_) = 0;
  std::atomic<uint64_t> scrubs_ = 0;
  Waker waker_;
  uint64_t subscription_ = 0;
  std::thread thread_;
};

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_DAEMON_SCRUBBER_H_
