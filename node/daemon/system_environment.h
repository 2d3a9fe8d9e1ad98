// SPDX-License-Identifier: Apache-2.0
//
// The computer's wall clock, and random numbers from OpenSSL.
// Any thread.
#ifndef CHAPTERSYNC_NODE_DAEMON_SYSTEM_ENVIRONMENT_H_
#define CHAPTERSYNC_NODE_DAEMON_SYSTEM_ENVIRONMENT_H_

#include <cstdint>

#include "storage/replica/replica.h"

namespace chaptersync::node {

// The wall clock is read once, at the beginning; from then on time goes by as the
// kernel's monotonic clock has it, sleep included, so that setting the computer's
// clock while the program runs changes nothing. Sessions measure how far it is
// from the hub's.
class SystemEnvironment final : public storage::Environment {
 public:
  // `offset_ms` shifts the wall clock, for tests.
  explicit SystemEnvironment(int64_t offset_ms = 0);
  uint64_t NowMs() override;
  uint64_t Random() override;

 private:
  const int64_t wall_less_boot_ms_;
};

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_DAEMON_SYSTEM_ENVIRONMENT_H_
