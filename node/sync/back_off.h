// SPDX-License-Identifier: Apache-2.0
//
// How long to wait before the next try to reach the hub: exponential with full
// jitter (Brooker, "Exponential Backoff And Jitter", 2015), so that a thousand
// nodes that lost their hub do not come back in one moment. Pure.
#ifndef CHAPTERSYNC_NODE_SYNC_BACK_OFF_H_
#define CHAPTERSYNC_NODE_SYNC_BACK_OFF_H_

#include <algorithm>
#include <cstdint>

#include "node/sync/limits.h"

namespace chaptersync::node {

class BackOff {
 public:
  // Milliseconds to wait now; the next will be longer. `random`: 64 random bits.
  int64_t Next(uint64_t random) {
    const int64_t limit_ms = limit_ms_;
    limit_ms_ = std::min(2 * limit_ms_, kBackOffMsMax);
    return static_cast<int64_t>(random % static_cast<uint64_t>(limit_ms + 1));
  }

  // A session was ready for so long.
  void SessionWas(int64_t ready_ms) {
    if (ready_ms >= kGoodSessionMs) limit_ms_ = kBackOffMsMin;
  }

 private:
  int64_t limit_ms_ = kBackOffMsMin;
};

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_SYNC_BACK_OFF_H_
