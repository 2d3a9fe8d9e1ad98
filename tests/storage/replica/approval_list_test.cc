// SPDX-License-Identifier: Apache-2.0
//
// The list of what waits: sums and numbers follow each change, and an undo of several
// changes.
#include "storage/replica/approval_list.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chaptersync::storage {
namespace {

using testing::ElementsAre;

ApprovalList::One One(uint8_t node, uint8_t record, uint64_t number, size_t bytes) {
  ApprovalList::One one{.approval = {.number = number}, .chapter = {}, .bytes = bytes};
  one.approval.from.bytes[0] = node;
  one.approval.key.id.bytes[0] = record;
  return one;
}

NodeId Node(uint8_t first) {
  NodeId node;
  node.bytes[0] = first;
  return node;
}

std::vector<uint64_t> Numbers(const ApprovalList& list, uint64_t after = 0, size_t count = 100) {
  std::vector<uint64_t> numbers;
  for (const Approval& approval : list.List(after, count)) numbers.push_back(approval.number);
  return numbers;
}

TEST(ApprovalListTest, CountsByNodeAndInAll) {
  ApprovalList list;
  list.Put(One(1, 1, 1, 10));
  list.Put(One(1, 2, 2, 20));
  list.Put(One(2, 1, 3, 40));
  EXPECT_EQ(list.OfNode(Node(1)).count, 2u);
  EXPECT_EQ(list.OfNode(Node(1)).bytes, 30u);
  EXPECT_EQ(list.Total().count, 3u);
  EXPECT_EQ(list.Total().bytes, 70u);
  list.Put(One(1, 1, 4, 5));
  EXPECT_EQ(list.OfNode(Node(1)).bytes, 25u);
  EXPECT_THAT(Numbers(list), ElementsAre(2, 3, 4));
  EXPECT_THAT(Numbers(list, 2), ElementsAre(3, 4));
  EXPECT_THAT(Numbers(list, 0, 1), ElementsAre(2));
  EXPECT_EQ(list.FindNumber(1), nullptr) << "another took its place";
  ASSERT_NE(list.FindNumber(4), nullptr);
  list.Remove(ApprovalList::WhereOf(One(2, 1, 0, 0).approval));
  EXPECT_EQ(list.OfNode(Node(2)).count, 0u);
  EXPECT_EQ(list.Total().bytes, 25u);
}

TEST(ApprovalListTest, AnUndoTakesBackWhatWasChangedSinceTheLastKeep) {
  ApprovalList list;
  list.Put(One(1, 1, 1, 10));
  list.Put(One(1, 2, 2, 20));
  list.Keep();
  list.Put(One(1, 1, 3, 7));
  list.Put(One(1, 1, 4, 8));
  list.Remove(ApprovalList::WhereOf(One(1, 2, 0, 0).approval));
  list.Put(One(3, 1, 5, 9));
  EXPECT_EQ(list.last_number(), 5u);
  list.Undo();
  EXPECT_THAT(Numbers(list), ElementsAre(1, 2));
  EXPECT_EQ(list.last_number(), 2u);
  EXPECT_EQ(list.Total().bytes, 30u);
  EXPECT_EQ(list.OfNode(Node(1)).count, 2u);
  EXPECT_EQ(list.OfNode(Node(3)).count, 0u);
  list.Undo();
  EXPECT_THAT(Numbers(list), ElementsAre(1, 2)) << "there is nothing more to take back";
}

}  // namespace
}  // namespace chaptersync::storage
