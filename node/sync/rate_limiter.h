// SPDX-License-Identifier: Apache-2.0
//
// So many at once, and after that one in so long: a token bucket for each key. Pure; the caller
// gives the time and calls from one thread at a time.
#ifndef CHAPTERSYNC_NODE_SYNC_RATE_LIMITER_H_
#define CHAPTERSYNC_NODE_SYNC_RATE_LIMITER_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>

namespace chaptersync::node {

template <typename Key>
class RateLimiter {
 public:
  // At most `burst` at once, and one more each `every_ms`; at most `keys_max` keys are remembered,
  // of which those that have been quiet go first.
  RateLimiter(int64_t burst, int64_t every_ms, size_t keys_max)
      : full_ms_(burst * every_ms), every_ms_(every_ms), keys_max_(keys_max) {}

  // Whether one more of `key` is allowed at `now_ms`, which never goes back; it counts if it is.
  bool Take(const Key& key, int64_t now_ms) {
    if (used_until_ms_.size() >= keys_max_ && !used_until_ms_.contains(key)) {
      std::erase_if(used_until_ms_, [&](const auto& entry) { return entry.second <= now_ms; });
      if (used_until_ms_.size() >= keys_max_) return false;
    }
    int64_t& until_ms = used_until_ms_[key];
    const int64_t next_ms = std::max(until_ms, now_ms) + every_ms_;
    if (next_ms - now_ms > full_ms_) return false;
    until_ms = next_ms;
    return true;
  }
  size_t size() const { return used_until_ms_.size(); }

 private:
  const int64_t full_ms_;
  const int64_t every_ms_;
  const size_t keys_max_;
  // By key: when its bucket is full again.
  std::map<Key, int64_t> used_until_ms_;
};

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_SYNC_RATE_LIMITER_H_
