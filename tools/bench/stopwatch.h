// SPDX-License-Identifier: Apache-2.0
//
// Time gone by since a moment, on the kernel's monotonic clock, which all processes of a machine
// share and nobody sets. Any thread.
#ifndef CHAPTERSYNC_TOOLS_BENCH_STOPWATCH_H_
#define CHAPTERSYNC_TOOLS_BENCH_STOPWATCH_H_

#include <chrono>
#include <cstdint>

namespace chaptersync::bench {

// Nanoseconds of the monotonic clock.
inline int64_t MonotonicNs() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Runs from when it is made.
class Stopwatch {
 public:
  int64_t began_ns() const { return began_ns_; }
  double seconds() const { return static_cast<double>(MonotonicNs() - began_ns_) / 1e9; }
  double milliseconds() const { return seconds() * 1e3; }

 private:
  const int64_t began_ns_ = MonotonicNs();
};

}  // namespace chaptersync::bench

#endif  // CHAPTERSYNC_TOOLS_BENCH_STOPWATCH_H_
