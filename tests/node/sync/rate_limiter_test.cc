// SPDX-License-Identifier: Apache-2.0
//
// Token buckets: a burst, then one in so long; each key has its own, and there are not more of them
// than allowed.
#include "node/sync/rate_limiter.h"

#include <gtest/gtest.h>

namespace chaptersync::node {
namespace {

TEST(RateLimiterTest, ABurstThenOneInSoLong) {
  RateLimiter<int> limiter(3, 1000, 10);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(limiter.Take(1, 5000));
  EXPECT_FALSE(limiter.Take(1, 5000));
  EXPECT_FALSE(limiter.Take(1, 5999));
  EXPECT_TRUE(limiter.Take(1, 6000));
  EXPECT_FALSE(limiter.Take(1, 6000));
  EXPECT_TRUE(limiter.Take(2, 6000)) << "another's is its own";
  // Full again, and not fuller, after a long time.
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(limiter.Take(1, 900'000));
  EXPECT_FALSE(limiter.Take(1, 900'000));
}

TEST(RateLimiterTest, KeysAreBounded) {
  RateLimiter<int> limiter(1, 1000, 100);
  int taken = 0;
  for (int key = 0; key < 1000; ++key) taken += limiter.Take(key, 0);
  EXPECT_EQ(taken, 100);
  EXPECT_EQ(limiter.size(), 100u);
  EXPECT_FALSE(limiter.Take(0, 0)) << "it is remembered";
  EXPECT_TRUE(limiter.Take(5000, 1000)) << "the quiet ones go";
  EXPECT_EQ(limiter.size(), 1u);
}

}  // namespace
}  // namespace chaptersync::node
