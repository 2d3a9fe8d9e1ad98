// SPDX-License-Identifier: Apache-2.0
//
// Planted defects: constant false in what users run, and each has a name of its own by
// which a program can choose it.
#include "storage/core/planted.h"

#include <algorithm>
#include <iterator>

#include <gtest/gtest.h>

namespace chaptersync::storage {
namespace {

constexpr bool NonePlanted() {
  return std::none_of(std::begin(kPlantedDefects), std::end(kPlantedDefects),
                      [](const PlantedDefect& planted) { return IsPlanted(planted.defect); });
}
static_assert(NonePlanted());
static_assert(!IsPlanted(Planted::kNone));

TEST(Planted, TheTableIsInTheOrderOfTheEnum) {
  uint8_t number = 0;
  for (const PlantedDefect& planted : kPlantedDefects) {
    EXPECT_EQ(static_cast<uint8_t>(planted.defect), ++number) << planted.name;
  }
  EXPECT_EQ(number, static_cast<uint8_t>(Planted::kDigestKeptOnDrop));
}

TEST(Planted, EachIsFoundByItsName) {
  for (const PlantedDefect& planted : kPlantedDefects) {
    EXPECT_EQ(PlantedByName(planted.name), planted.defect) << planted.name;
    EXPECT_FALSE(planted.what.empty()) << planted.name;
  }
  EXPECT_EQ(PlantedByName("follower-left-behind"), Planted::kFollowerLeftBehind);
  EXPECT_EQ(PlantedByName("no-such-defect"), Planted::kNone);
}

}  // namespace
}  // namespace chaptersync::storage
