// SPDX-License-Identifier: Apache-2.0
//
// Page tokens belong to one query, and whatever else is handed in is refused
// with a reason.
#include "node/api/page_token.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chaptersync::node {
namespace {

using ::testing::HasSubstr;

TEST(PageToken, GivesBackThePositionToItsOwnQueryOnly) {
  const std::string position("\x00\xff position", 10);
  const std::string token = MakePageToken("members", position);
  const auto read = ReadPageToken("members", token);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(*read, position);
  EXPECT_THAT(std::string(ReadPageToken("events", token).status().message()),
              HasSubstr("belongs to a list with other fields"));
  EXPECT_EQ(*ReadPageToken("members", ""), "");
  EXPECT_EQ(MakePageToken("members", ""), "");
  for (const char* bad : {"?", "AAAA", "AAAAAAAAAAA"}) {
    EXPECT_EQ(ReadPageToken("members", bad).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(PageToken, SizesAreOneToAThousand) {
  EXPECT_EQ(*PageSize(0), 100u);
  EXPECT_EQ(*PageSize(1), 1u);
  EXPECT_EQ(*PageSize(1000), 1000u);
  EXPECT_THAT(std::string(PageSize(1001).status().message()), HasSubstr("page size 1001"));
  EXPECT_FALSE(PageSize(-1).ok());
}

}  // namespace
}  // namespace chaptersync::node
