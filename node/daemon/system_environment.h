// SPDX-License-Identifier: Apache-2.0
//
// The computer's wall clock, and random numbers from OpenSSL.
// Any thread.
#ifndef CHAPTERSYNC_NODE_DAEMON_SYSTEM_ENVIRONMENT_H_
#define CHAPTERSYNC_NODE_DAEMON_SYSTEM_ENVIRONMENT_H_

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>

#include "storage/replica/replica.h"

namespace chaptersync::node {

// For tests: by how much the wall clock is wrong.
struct TestClock {
  int64_t offset_ms = 0;
  // A file with as much again, in milliseconds, as decimal text. It is read at every look at the
  // clock, so that a test moves time while the program runs. Empty: none.
  std::string offset_file;

  bool set() const { return offset_ms != 0 || moves(); }
  bool moves() const { return !offset_file.empty(); }
};

// What such a file says now; none where it cannot be read, or says no number within a thousand
// years.
std::optional<int64_t> ReadClockOffset(const std::string& file);

// The wall clock is read once, at the beginning; from then on time goes by as the
// kernel's monotonic clock has it, sleep included, so that setting the computer's
// clock while the program runs changes nothing. Sessions measure how far it is
// from the hub's.
class SystemEnvironment final : public storage::Environment {
 public:
  explicit SystemEnvironment(TestClock test_clock = {});
  uint64_t NowMs() override;
  uint64_t Random() override;

 private:
  const int64_t wall_less_boot_ms_;
  const std::string offset_file_;
  std::atomic<int64_t> offset_ms_ = 0;  // of the file, as it was last read
};

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_DAEMON_SYSTEM_ENVIRONMENT_H_
