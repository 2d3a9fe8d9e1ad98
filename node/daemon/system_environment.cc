// SPDX-License-Identifier: Apache-2.0
//
// Time and chance as the system has them: the kernel's clocks, OpenSSL's random
// numbers.
#include "node/daemon/system_environment.h"

#include <ctime>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include <openssl/rand.h>

#include "node/daemon/folder.h"
#include "storage/core/status.h"

namespace chaptersync::node {

namespace {

constexpr size_t kOffsetBytesMax = 64;
// No sum of times comes near the end of its type.
constexpr int64_t kOffsetMsMax = int64_t{1000} * 365 * 24 * 3600 * 1000;

int64_t ReadMs(clockid_t clock) {
  timespec now{};
  CHAPTER_CHECK(clock_gettime(clock, &now) == 0);
  return int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000;
}

}  // namespace

std::optional<int64_t> ReadClockOffset(const std::string& file) {
  const auto text = ReadWholeFile(file, kOffsetBytesMax);
  int64_t offset_ms = 0;
  if (!text.ok() || !absl::SimpleAtoi(absl::StripAsciiWhitespace(*text), &offset_ms) ||
      offset_ms < -kOffsetMsMax || offset_ms > kOffsetMsMax) {
    return std::nullopt;
  }
  return offset_ms;
}

SystemEnvironment::SystemEnvironment(TestClock test_clock)
    : wall_less_boot_ms_(ReadMs(CLOCK_REALTIME) - ReadMs(CLOCK_BOOTTIME) + test_clock.offset_ms),
      offset_file_(std::move(test_clock.offset_file)) {}

uint64_t SystemEnvironment::NowMs() {
  if (!offset_file_.empty()) {
    if (const auto offset_ms = ReadClockOffset(offset_file_)) offset_ms_ = *offset_ms;
  }
  return static_cast<uint64_t>(ReadMs(CLOCK_BOOTTIME) + wall_less_boot_ms_ + offset_ms_);
}

uint64_t SystemEnvironment::Random() {
  uint64_t value = 0;
  CHAPTER_CHECK(RAND_bytes(reinterpret_cast<unsigned char*>(&value), sizeof(value)) == 1);
  return value;
}

}  // namespace chaptersync::node
