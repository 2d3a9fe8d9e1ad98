// SPDX-License-Identifier: Apache-2.0
//
// Time and chance as the system has them: the kernel's clocks, OpenSSL's random
// numbers.
#include "node/daemon/system_environment.h"

#include <ctime>

#include <openssl/rand.h>

#include "storage/core/status.h"

namespace chaptersync::node {

namespace {

int64_t ReadMs(clockid_t clock) {
  timespec now{};
  CHAPTER_CHECK(clock_gettime(clock, &now) == 0);
  return int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000;
}

}  // namespace

SystemEnvironment::SystemEnvironment(int64_t offset_ms)
    : wall_less_boot_ms_(ReadMs(CLOCK_REALTIME) - ReadMs(CLOCK_BOOTTIME) + offset_ms) {}

uint64_t SystemEnvironment::NowMs() {
  return static_cast<uint64_t>(ReadMs(CLOCK_BOOTTIME) + wall_less_boot_ms_);
}

uint64_t SystemEnvironment::Random() {
  uint64_t value = 0;
  CHAPTER_CHECK(RAND_bytes(reinterpret_cast<unsigned char*>(&value), sizeof(value)) == 1);
  return value;
}

}  // namespace chaptersync::node
