// SPDX-License-Identifier: Apache-2.0
//
// The order of a hub's epochs, as one replica learns them by meeting the hub and by
// what others tell, and their bytes.
#include "storage/replica/hub_epochs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "storage/core/limits.h"

namespace chaptersync::storage {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

TEST(HubEpochsTest, WhatIsMetLaterIsLater) {
  HubEpochs hub;
  EXPECT_EQ(hub.latest(), Epoch{});
  hub.Meet({1}, 1000);
  hub.Meet({1}, 1000);
  EXPECT_EQ(hub.latest(), Epoch{1});
  EXPECT_THAT(hub.earlier, IsEmpty());
  hub.Meet({2}, 1000);
  EXPECT_EQ(hub.latest(), Epoch{2});
  EXPECT_THAT(hub.earlier, ElementsAre(Epoch{1}));
  // A hub that went back unawares, before it is told.
  hub.Meet({1}, 1000);
  EXPECT_EQ(hub.latest(), Epoch{1});
  EXPECT_THAT(hub.earlier, ElementsAre(Epoch{2}));
}

TEST(HubEpochsTest, OnlyWhoKnowsThatOursIsOverHasNews) {
  HubEpochs hub;
  hub.Meet({1}, 1000);
  hub.Meet({2}, 1000);
  EXPECT_FALSE(hub.Hear({2}, 1000, {{1}}));
  EXPECT_FALSE(hub.Hear({1}, 1000, {})) << "it is behind";
  EXPECT_FALSE(hub.Hear({3}, 1000, {{1}})) << "it may be behind";
  EXPECT_FALSE(hub.Hear({}, 1000, {{2}}));
  EXPECT_TRUE(hub.Hear({3}, 1000, {{1}, {2}}));
  EXPECT_FALSE(hub.Hear({3}, 1000, {{1}, {2}}));
  EXPECT_EQ(hub.latest(), Epoch{3});
  EXPECT_EQ(hub.met, Epoch{2});
  EXPECT_TRUE(hub.Hear({4}, 1000, {{3}}));
  hub.Meet({4}, 1000);
  EXPECT_EQ(hub.heard, Epoch{});
  EXPECT_THAT(hub.earlier, ElementsAre(Epoch{1}, Epoch{2}, Epoch{3}));
  EXPECT_FALSE(hub.Hear({3}, 1000, {{4}})) << "it was over before";
}

TEST(HubEpochsTest, TwoThatMetDifferentEpochsDoNotSwap) {
  HubEpochs older;
  older.Meet({1}, 1000);
  HubEpochs newer;
  newer.Meet({2}, 1000);
  EXPECT_FALSE(newer.Hear(older.latest(), older.at_ms, older.earlier));
  EXPECT_FALSE(older.Hear(newer.latest(), newer.at_ms, newer.earlier));
  newer.Meet({3}, 1000);
  EXPECT_FALSE(newer.Hear(older.latest(), older.at_ms, older.earlier));
  // Who never met it takes anybody's word, and goes on from there.
  HubEpochs none;
  EXPECT_TRUE(none.Hear({2}, 1000, {}));
  EXPECT_TRUE(none.Hear(newer.latest(), newer.at_ms, newer.earlier));
  EXPECT_EQ(none.latest(), Epoch{3});
}

TEST(HubEpochsTest, WhatWasMetMuchLaterIsLater) {
  HubEpochs hub;
  hub.Meet({1}, 1'000'000);
  EXPECT_FALSE(hub.Hear({2}, 1'000'000 + kHubClocksApartMsMax, {}));
  EXPECT_TRUE(hub.Hear({2}, 1'000'001 + kHubClocksApartMsMax, {}));
  EXPECT_EQ(hub.latest(), Epoch{2});
  EXPECT_FALSE(hub.Hear({1}, 9'000'000, {})) << "it is over";
}

TEST(HubEpochsTest, KeepsTheLastOnes) {
  HubEpochs hub;
  for (uint64_t epoch = 1; epoch <= kHubEpochsKept + 5; ++epoch) hub.Meet({epoch}, 1000);
  EXPECT_THAT(hub.earlier, SizeIs(kHubEpochsKept));
  EXPECT_EQ(hub.earlier.front(), Epoch{5});
  EXPECT_EQ(hub.earlier.back(), Epoch{kHubEpochsKept + 4});
}

TEST(HubEpochsTest, ReadsWhatItWroteAndNothingElse) {
  HubEpochs hub;
  hub.Meet({7}, 1000);
  hub.Meet({8}, 1000);
  ASSERT_TRUE(hub.Hear({9}, 1000, {{8}}));
  const std::string bytes = Encode(hub);
  const HubEpochs again = DecodeHubEpochs(bytes);
  EXPECT_EQ(again.met, hub.met);
  EXPECT_EQ(again.heard, hub.heard);
  EXPECT_EQ(again.at_ms, hub.at_ms);
  EXPECT_EQ(again.earlier, hub.earlier);
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_EQ(DecodeHubEpochs(std::string_view(bytes).substr(0, size)).latest(), Epoch{});
  }
}

}  // namespace
}  // namespace chaptersync::storage
