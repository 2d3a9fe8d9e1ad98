// SPDX-License-Identifier: Apache-2.0
//
// Synthetic members: the same for the same seed, each a member that the product takes, all
// different people.
#include "tools/bench/members.h"

#include <set>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "node/entity/registry.h"
#include "node/entity/validate.h"
#include "storage/core/types.h"

namespace chaptersync::bench {
namespace {

constexpr int kMembers = 2'000;

std::vector<NewMember> Some(const std::string& chapter, uint64_t seed, int count = kMembers) {
  MemberMaker maker(chapter, seed);
  std::vector<NewMember> members;
  while (std::ssize(members) < count) members.push_back(maker.Next());
  return members;
}

TEST(MembersTest, SameSeedSameMembers) {
  const auto one = Some("italy", kMembersSeed, 100);
  const auto other = Some("italy", kMembersSeed, 100);
  for (size_t i = 0; i < one.size(); ++i) {
    EXPECT_EQ(one[i].id, other[i].id);
    EXPECT_EQ(one[i].member.DebugString(), other[i].member.DebugString());
  }
}

TEST(MembersTest, TheSeedSaysAllOnEveryMachine) {
  // As mt19937_64 gives them. Figures can be compared only while this stays.
  EXPECT_EQ(Some("italy", kMembersSeed, 1).front().id, "163e960d-48eb-73c5-83db-145038731942");
}

TEST(MembersTest, AnotherSeedOtherMembers) {
  EXPECT_NE(Some("italy", 1, 1).front().id, Some("italy", 2, 1).front().id);
}

TEST(MembersTest, IdsAreDifferentUuidsOfVersion7) {
  std::set<std::string> ids;
  for (const NewMember& made : Some("italy", kMembersSeed)) {
    const auto id = storage::RecordId::Parse(made.id);
    ASSERT_TRUE(id.ok()) << made.id;
    EXPECT_EQ(id->ToString(), made.id);
    EXPECT_EQ(id->bytes[6] >> 4, 7) << made.id;
    EXPECT_EQ(id->bytes[8] >> 6, 2) << made.id;
    ids.insert(made.id);
  }
  EXPECT_EQ(ids.size(), size_t{kMembers});
}

TEST(MembersTest, TheProductTakesThem) {
  const node::EntityType* type = *node::BuiltinEntities().GetByNoun("members");
  for (const NewMember& made : Some("italy", kMembersSeed)) {
    const absl::Status valid = node::Validate(*type, made.member);
    ASSERT_TRUE(valid.ok()) << valid << made.member.DebugString();
    ASSERT_TRUE(node::CheckRequired(*type, made.member).ok());
  }
}

TEST(MembersTest, TheyAreAsLargeAsRealOnes) {
  std::set<std::string> mails;
  for (const NewMember& made : Some("toronto", kMembersSeed)) {
    EXPECT_EQ(made.member.chapter(), "toronto");
    EXPECT_EQ(made.member.notes().size(), 130U);
    EXPECT_EQ(made.member.names_size(), 2);
    mails.insert(made.member.contacts().at("email").value());
  }
  EXPECT_EQ(mails.size(), size_t{kMembers});
}

}  // namespace
}  // namespace chaptersync::bench
