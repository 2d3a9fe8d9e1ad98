// SPDX-License-Identifier: Apache-2.0
//
// The waits between tries: doubled up to a bound, anywhere below it, and short
// again after a session that lasted.
#include "node/sync/back_off.h"

#include <gtest/gtest.h>

namespace chaptersync::node {
namespace {

// A random number that gives the longest wait allowed, for limits below 2^32.
int64_t Longest(BackOff& back_off, int64_t limit_ms) {
  return back_off.Next(static_cast<uint64_t>(limit_ms));
}

TEST(BackOffTest, DoublesUpToItsBound) {
  BackOff back_off;
  for (int64_t limit_ms = kBackOffMsMin; limit_ms < kBackOffMsMax; limit_ms *= 2) {
    EXPECT_EQ(Longest(back_off, limit_ms), limit_ms);
  }
  EXPECT_EQ(Longest(back_off, kBackOffMsMax), kBackOffMsMax);
  EXPECT_EQ(Longest(back_off, kBackOffMsMax), kBackOffMsMax);
  EXPECT_EQ(back_off.Next(kBackOffMsMax + 1), 0);
}

TEST(BackOffTest, OnlyASessionThatLastedMakesItShortAgain) {
  BackOff back_off;
  for (int i = 0; i < 20; ++i) back_off.Next(0);
  back_off.SessionWas(kGoodSessionMs - 1);
  EXPECT_EQ(Longest(back_off, kBackOffMsMax), kBackOffMsMax);
  back_off.SessionWas(kGoodSessionMs);
  EXPECT_EQ(Longest(back_off, kBackOffMsMin), kBackOffMsMin);
}

}  // namespace
}  // namespace chaptersync::node
