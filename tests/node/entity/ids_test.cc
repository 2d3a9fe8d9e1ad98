// SPDX-License-Identifier: Apache-2.0
//
// The examples of RFC 9562, and that named ids never change: replicas of
// different builds must give one name one id.
#include "node/entity/ids.h"

#include <gtest/gtest.h>

namespace chaptersync::node {
namespace {

TEST(Ids, Version5IsAsInTheStandard) {
  const auto dns = storage::RecordId::Parse("6ba7b810-9dad-11d1-80b4-00c04fd430c8");
  EXPECT_EQ(UuidV5(*dns, "www.example.com").ToString(), "2ed6657d-e927-568b-95e1-2665a8aea6a2");
}

TEST(Ids, Version7BeginsWithTheTimeInMilliseconds) {
  const std::string id = UuidV7(0x017F22E279B0, ~uint64_t{0}, ~uint64_t{0}).ToString();
  EXPECT_EQ(id, "017f22e2-79b0-7fff-bfff-ffffffffffff");
  EXPECT_EQ(UuidV7(0x017F22E279B0, 0, 0).ToString(), "017f22e2-79b0-7000-8000-000000000000");
  EXPECT_LT(UuidV7(1, ~uint64_t{0}, ~uint64_t{0}), UuidV7(2, 0, 0));
}

TEST(Ids, ANameGivesTheSameIdAtEveryReplicaForEver) {
  const EntityType* chapters = BuiltinEntities().FindByNoun("chapters");
  ASSERT_NE(chapters, nullptr);
  EXPECT_EQ(NamedId(*chapters, "italy").ToString(), "64a1cd18-0adf-59ce-a874-90268939c9cc");
  EXPECT_NE(NamedId(*chapters, "toronto"), NamedId(*chapters, "italy"));
  const EntityType* members = BuiltinEntities().FindByNoun("members");
  EXPECT_NE(NamedId(*members, "italy"), NamedId(*chapters, "italy"));
}

}  // namespace
}  // namespace chaptersync::node
