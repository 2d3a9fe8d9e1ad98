// SPDX-License-Identifier: Apache-2.0
//
// Hybrid logical clock arithmetic (Kulkarni et al., "Logical Physical Clocks",
// 2014). The wall clock comes in with each call; nothing is read from outside.
// One thread at a time.
#ifndef CHAPTERSYNC_STORAGE_CORE_CLOCK_H_
#define CHAPTERSYNC_STORAGE_CORE_CLOCK_H_

#include <algorithm>

#include "storage/core/types.h"

namespace chaptersync::storage {

class HybridClock {
 public:
  explicit HybridClock(HybridTime last = {}) : last_(last) {}

  // A new reading, above every earlier one: max(wall, last + 1).
  HybridTime Tick(uint64_t wall_ms) {
    last_ =
        std::max(HybridTime::FromWall(std::min(wall_ms, kWallMsMax)), HybridTime{last_.ticks + 1});
    return last_;
  }

  // Later readings will be above `time`. Does not tick.
  void Observe(HybridTime time) { last_ = std::max(last_, time); }

  HybridTime last() const { return last_; }

 private:
  HybridTime last_;
};

}  // namespace chaptersync::storage

#endif  // CHAPTERSYNC_STORAGE_CORE_CLOCK_H_
