// SPDX-License-Identifier: Apache-2.0
//
// Simulated time: what is to happen, in order of time and then of arrival. One
// thread.
#ifndef CHAPTERSYNC_TESTS_SIMULATION_SCHEDULER_H_
#define CHAPTERSYNC_TESTS_SIMULATION_SCHEDULER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <utility>

namespace chaptersync::simulation {

class Scheduler {
 public:
  // Milliseconds since the simulation began.
  uint64_t now_ms() const { return now_ms_; }

  void After(uint64_t wait_ms, std::function<void()> event) {
    events_.emplace(std::pair(now_ms_ + wait_ms, ++serial_), std::move(event));
  }

  // Lets the next event happen. False where there is none.
  bool Step() {
    if (events_.empty()) return false;
    const auto first = events_.begin();
    now_ms_ = first->first.first;
    const std::function<void()> event = std::move(first->second);
    events_.erase(first);
    event();
    return true;
  }

  // When the next event happens; now where there is none.
  uint64_t next_ms() const { return events_.empty() ? now_ms_ : events_.begin()->first.first; }

  // Forgets what was to happen.
  void Clear() { events_.clear(); }

 private:
  uint64_t now_ms_ = 0;
  uint64_t serial_ = 0;
  std::map<std::pair<uint64_t, uint64_t>, std::function<void()>> events_;
};

}  // namespace chaptersync::simulation

#endif  // CHAPTERSYNC_TESTS_SIMULATION_SCHEDULER_H_
