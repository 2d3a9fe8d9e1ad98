// SPDX-License-Identifier: Apache-2.0
//
// Keeps strangers from filling the log: of one address, one refusal a minute is told.
// Any thread.
#ifndef CHAPTERSYNC_HUB_REFUSAL_LOG_H_
#define CHAPTERSYNC_HUB_REFUSAL_LOG_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "node/sync/waker.h"

namespace chaptersync::hub {

// Between two that are told, in milliseconds.
inline constexpr int64_t kRefusalEveryMs = 60'000;
// Addresses remembered; of more, all are forgotten, so that so many a minute may be told.
inline constexpr size_t kRefusedAddressesMax = 1'000;

class RefusalLog {
 public:
  // Whether a refusal of `address` is to be told now.
  bool Say(const std::string& address) { return Say(address, node::SteadyMs()); }
  bool Say(const std::string& address, int64_t now_ms) {
    absl::MutexLock lock(&mutex_);
    const auto it = told_ms_.find(address);
    if (it != told_ms_.end() && now_ms - it->second < kRefusalEveryMs) return false;
    if (told_ms_.size() >= kRefusedAddressesMax) {
      // As many were told within a minute: enough of it.
      if (now_ms - cleared_ms_ < kRefusalEveryMs) return false;
      told_ms_.clear();
      cleared_ms_ = now_ms;
    }
    told_ms_[address] = now_ms;
    return true;
  }

 private:
  absl::Mutex mutex_;
  std::map<std::string, int64_t> told_ms_ ABSL_GUARDED_BY(mutex_);
  int64_t cleared_ms_ ABSL_GUARDED_BY(mutex_) = -kRefusalEveryMs;
};

}  // namespace chaptersync::hub

#endif  // CHAPTERSYNC_HUB_REFUSAL_LOG_H_
