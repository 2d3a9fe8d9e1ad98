// SPDX-License-Identifier: Apache-2.0
//
// Percentiles of small sets, which can be checked by hand: the median above all, and what lies
// between two ranks.
#include "tools/bench/percentile.h"

#include <vector>

#include <gtest/gtest.h>

namespace chaptersync::bench {
namespace {

TEST(PercentileTest, TheFiftiethIsTheMedian) {
  EXPECT_DOUBLE_EQ(Percentile({3, 1, 2}, 0.5), 2);
  EXPECT_DOUBLE_EQ(Percentile({4, 1, 3, 2}, 0.5), 2.5);
  EXPECT_DOUBLE_EQ(Percentile({7}, 0.5), 7);
}

TEST(PercentileTest, EndsAreTheLeastAndTheGreatest) {
  EXPECT_DOUBLE_EQ(Percentile({5, 9, 1}, 0), 1);
  EXPECT_DOUBLE_EQ(Percentile({5, 9, 1}, 1), 9);
  EXPECT_DOUBLE_EQ(Percentile({5, 9, 1}, 2), 9);
  EXPECT_DOUBLE_EQ(Percentile({5, 9, 1}, -1), 1);
}

TEST(PercentileTest, LiesBetweenClosestRanks) {
  std::vector<double> values;
  for (int i = 200; i >= 1; --i) values.push_back(i);
  // Ranks count from 0: 0.99 * 199 is 197.01, between the values 198 and 199.
  EXPECT_NEAR(Percentile(values, 0.99), 198.01, 1e-9);
  EXPECT_DOUBLE_EQ(Percentile(values, 0.5), 100.5);
}

TEST(PercentileTest, EqualValuesAndNone) {
  EXPECT_DOUBLE_EQ(Percentile({2, 2, 2, 2}, 0.99), 2);
  EXPECT_DOUBLE_EQ(Percentile({}, 0.5), 0);
}

}  // namespace
}  // namespace chaptersync::bench
