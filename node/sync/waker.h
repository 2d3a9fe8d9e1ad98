// SPDX-License-Identifier: Apache-2.0
//
// Waiting by the steady clock: a person who sets the computer's clock back must
// not stop the sync for an hour, as absl's waits would. Any thread may wake; one
// thread at a time waits.
#ifndef CHAPTERSYNC_NODE_SYNC_WAKER_H_
#define CHAPTERSYNC_NODE_SYNC_WAKER_H_

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace chaptersync::node {

// Milliseconds of the steady clock.
inline int64_t SteadyMs() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

class Waker {
 public:
  // The wait that is under way, or the next one, ends at once.
  void Wake() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      woken_ = true;
    }
    condition_.notify_all();
  }

  // Until Wake, at most for `ms`.
  void WaitFor(int64_t ms) {
    std::unique_lock<std::mutex> lock(mutex_);
    condition_.wait_for(lock, std::chrono::milliseconds(std::max<int64_t>(ms, 0)),
                        [this] { return woken_; });
    woken_ = false;
  }

 private:
  std::mutex mutex_;
  std::condition_variable condition_;
  bool woken_ = false;  // guarded by mutex_
};

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_SYNC_WAKER_H_
