// SPDX-License-Identifier: Apache-2.0
//
// What a refusal takes out of a node's record, lists, and leaves, one rule a test; whole
// situations are among the plans of the simulation.
#include "storage/replica/refusal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "storage/core/record_codec.h"

namespace chaptersync::storage {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr EntityNumber kEntity{1};
constexpr uint32_t kName = 3;
constexpr uint32_t kPhone = 4;
constexpr ReplicaId kOwn{0x1111'1111'0000'0002};
constexpr ReplicaId kOwnBefore{0x3333'3333'0000'0001};  // of another lineage
constexpr ReplicaId kCopy{0x1111'1111'0000'0007};
constexpr ReplicaId kOther{0x2222'2222'0000'0001};
constexpr ReplicaId kThird{0x5555'5555'0000'0001};
constexpr ReplicaId kHub{0x4444'4444'0000'0001};

CellPath Field(uint32_t field) { return {.field = field, .map_key = {}}; }

// The refusal counts up to place 10.
class RefusalTest : public testing::Test {
 protected:
  void Put(uint32_t field, uint64_t ticks, ReplicaId replica, const std::string& value,
           uint64_t learned = 5) {
    const Version version{{ticks}, replica};
    record_.Put({Field(field), version, "officer", value, Sequence{learned}});
    record_.seen.Advance(version);
  }
  // `value` of kPhone lost to what stands.
  ConflictEntry& Lost(uint64_t ticks, ReplicaId replica, const std::string& value) {
    record_.seen.Advance({{ticks}, replica});
    record_.conflicts.push_back({.path = Field(kPhone),
                                 .lost_version = {{ticks}, replica},
                                 .lost_actor = "officer",
                                 .lost_value = value,
                                 .current_version = {{900}, kOther},
                                 .current_actor = "officer",
                                 .current_value = "stands",
                                 .found_at = {950},
                                 .found_by = kHub,
                                 .settlements = {}});
    return record_.conflicts.back();
  }
  void HubHas(uint64_t ticks, ReplicaId replica) { hub_.state.seen.Advance({{ticks}, replica}); }

  // Where the hub sent its state, and where it did not.
  TakenOut WithState() const {
    return TakeOut({kEntity, {}}, record_, refusal_, ids_, {&hub_, hub_.state.seen});
  }
  TakenOut WithoutState(std::set<Version> elsewhere = {}) const {
    return TakeOut({kEntity, {}}, record_, refusal_, ids_,
                   {nullptr, hub_.state.seen, std::move(elsewhere)});
  }
  static std::vector<std::string> Values(const TakenOut& parts) {
    std::vector<std::string> values;
    for (const RefusedWrite& write : parts.listed) {
      for (const CellWrite& cell : write.cells) values.push_back(*cell.value);
    }
    return values;
  }
  static std::vector<std::string> Values(const std::vector<Cell>& cells) {
    std::vector<std::string> values;
    for (const Cell& cell : cells) values.push_back(*cell.value);
    return values;
  }

  Record record_;
  RecordUpdate hub_;
  OwnIds ids_{{kOwnBefore, kOwn}, kOwn};
  RefusedRecord refusal_{{kEntity, {}}, {10}, RefusedRecord::Reason::kRights, "not yours"};
};

TEST_F(RefusalTest, WhatTheHubHasNotSeenOfOwnIsListedInOne) {
  Put(kName, 100, kOwn, "Anna");
  Put(kPhone, 90, kOwnBefore, "555-0100");
  const TakenOut parts = WithState();
  ASSERT_THAT(parts.listed, SizeIs(1));
  EXPECT_THAT(Values(parts), ElementsAre("Anna", "555-0100"));
  EXPECT_EQ(parts.listed[0].reason, "not yours");
  EXPECT_EQ(parts.listed[0].written_at, HybridTime{100});
  EXPECT_THAT(parts.ids, ElementsAre(kOwn, kOwnBefore));
  EXPECT_THAT(parts.others, IsEmpty());
}

TEST_F(RefusalTest, WhatTheHubHasOrOthersWroteOrCameLaterIsNotRefused) {
  Put(kName, 100, kOwn, "known to the hub");
  HubHas(100, kOwn);
  Put(kPhone, 90, kOther, "another's");
  Put(5, 110, kOwn, "later", 11);
  const TakenOut parts = WithState();
  EXPECT_THAT(Values(parts.others), ElementsAre("known to the hub", "another's"));
  EXPECT_THAT(Values(parts.later.state.cells), ElementsAre("later"));
  EXPECT_THAT(parts.ids, IsEmpty());
  // The hub has gone back, and lacks what others wrote: an officer is to see that.
  ASSERT_THAT(Values(parts), ElementsAre("another's"));
  EXPECT_THAT(parts.listed[0].reason, HasSubstr("refused what was written with it: not yours"));
}

TEST_F(RefusalTest, WhatCameLaterLeavesWhereAnotherHubMayHaveIt) {
  // Under the id of what was refused: there it would claim to have seen that.
  Put(kName, 100, kOwn, "refused");
  Put(kPhone, 110, kOwn, "later, and known elsewhere", 11);
  Put(5, 120, kOwn, "later", 12);
  Put(6, 90, kOwnBefore, "known elsewhere, of another id", 13);
  HubHas(1, kOther);
  const TakenOut parts = WithoutState({{{110}, kOwn}, {{90}, kOwnBefore}});
  EXPECT_THAT(Values(parts), ElementsAre("later, and known elsewhere", "refused"));
  EXPECT_THAT(Values(parts.later.state.cells),
              ElementsAre("later", "known elsewhere, of another id"));
  EXPECT_TRUE(parts.elsewhere);
  EXPECT_FALSE(WithoutState().elsewhere);
}

TEST_F(RefusalTest, AnOwnValueThatLostIsListedByItself) {
  Put(kPhone, 900, kOther, "stands");
  HubHas(900, kOther);
  Lost(80, kOwn, "lost before");
  Put(kName, 100, kOwn, "Anna");
  const TakenOut parts = WithState();
  ASSERT_THAT(parts.listed, SizeIs(2));
  EXPECT_THAT(Values(parts), ElementsAre("lost before", "Anna"));
  EXPECT_THAT(parts.later.state.conflicts, IsEmpty());
}

TEST_F(RefusalTest, SettlementsOfItsOwnAndOfItsCopiesGoAndAreCounted) {
  Put(kPhone, 900, kOther, "stands");
  HubHas(900, kOther);
  ConflictEntry& entry = Lost(80, kOther, "another's that lost");
  entry.settlements = {{{{960}, kOwn}, "milan", Choice::kKeep},
                       {{{970}, kCopy}, "the copy", Choice::kTake},
                       {{{980}, kHub}, "hq", Choice::kKeep}};
  HubHas(980, kHub);
  const TakenOut parts = WithState();
  ASSERT_THAT(parts.later.state.conflicts, SizeIs(1));
  ASSERT_THAT(parts.later.state.conflicts[0].settlements, SizeIs(1));
  EXPECT_EQ(parts.later.state.conflicts[0].settlements[0].actor, "hq");
  ASSERT_THAT(parts.listed, SizeIs(1));
  EXPECT_EQ(parts.listed[0].reason, "not yours (with it went 2 settlements of conflicts)");
  EXPECT_THAT(parts.ids, ElementsAre(kOwn, kCopy));
}

TEST_F(RefusalTest, WhatACopyWroteAndTheHubLacksLeavesGaps) {
  Put(kName, 90, kCopy, "by the copy");
  EXPECT_TRUE(WithoutState().gaps) << "that the hub has never had";
  Put(kPhone, 900, kOther, "stands");
  HubHas(900, kOther);
  EXPECT_FALSE(WithState().gaps) << "the hub's state has none";
  const TakenOut parts = WithoutState();
  EXPECT_TRUE(parts.gaps);
  EXPECT_THAT(Values(parts), ElementsAre("by the copy"));
  // What else it had seen is not what the rest can say.
  record_.seen.Advance({{950}, kOther});
  const Record rest = WithoutRefused(record_, parts, hub_.state.seen);
  EXPECT_EQ(rest.seen.Get(kOther), HybridTime{900});
}

TEST_F(RefusalTest, AtAHubThatNeverHadItNothingOfItStays) {
  Put(kName, 100, kOwn, "Anna");
  Put(kPhone, 90, kOther, "another's");
  const TakenOut parts = WithoutState();
  EXPECT_THAT(Values(parts), ElementsAre("another's", "Anna"));
  EXPECT_TRUE(WithoutRefused(record_, parts, {}).cells.empty());
}

TEST_F(RefusalTest, OfOthersAloneAllGoesToAHubThatLacksIt) {
  Put(kPhone, 90, kOther, "another's");
  const TakenOut parts = WithoutState();
  EXPECT_THAT(parts.listed, IsEmpty());
  EXPECT_FALSE(parts.gaps);
  EXPECT_FALSE(HubHasTheRest(parts, {}));
  EXPECT_THAT(Values(WithoutRefused(record_, parts, {}).cells), ElementsAre("another's"));
  refusal_.reason = RefusedRecord::Reason::kRejected;
  EXPECT_THAT(Values(WithoutState()), ElementsAre("another's")) << "headquarters does not want it";
}

TEST_F(RefusalTest, WhereItHasLeftWhatTheHubLacksIsListedAndStaysUntilItIsDropped) {
  Put(kName, 100, kOwn, "Anna");
  Put(kPhone, 900, kOther, "stands");
  HubHas(900, kOther);
  Put(5, 90, kThird, "another's");
  const TakenOut parts = WithoutState();
  EXPECT_THAT(Values(parts), ElementsAre("another's", "Anna"));
  const Record rest = WithoutRefused(record_, parts, hub_.state.seen);
  EXPECT_THAT(Values(rest.cells), ElementsAre("stands", "another's"));
  EXPECT_EQ(rest.seen.Get(kOwn), HybridTime{}) << "it has not got that any more";
}

TEST_F(RefusalTest, OfWhatIsRejectedNoConflictStaysThatTheHubLacks) {
  Put(kPhone, 900, kOther, "stands");
  HubHas(900, kOther);
  hub_.state.Put({Field(kPhone), {{900}, kOther}, "officer", "stands", {}});
  HubHas(80, kOther);
  Lost(80, kOther, "found here alone");
  EXPECT_THAT(WithState().later.state.conflicts, SizeIs(1));
  refusal_.reason = RefusedRecord::Reason::kRejected;
  EXPECT_THAT(WithState().later.state.conflicts, IsEmpty());
  EXPECT_THAT(Values(WithState()), ElementsAre("found here alone"));
  hub_.state.conflicts = record_.conflicts;
  EXPECT_THAT(WithState().later.state.conflicts, SizeIs(1));
}

TEST_F(RefusalTest, WhatLostToARefusedWriteHasNotLost) {
  hub_.state.Put({Field(kPhone), {{800}, kOther}, "officer", "theirs", {}});
  HubHas(800, kOther);
  Put(kPhone, 900, kOwn, "refused");
  ConflictEntry& entry = Lost(800, kOther, "theirs");
  entry.current_version = {{900}, kOwn};
  const TakenOut parts = WithState();
  const Record record = OnTopOf(hub_, parts, ids_, {kOwn, {1000}});
  EXPECT_THAT(Values(record.cells), ElementsAre("theirs"));
  EXPECT_THAT(record.conflicts, IsEmpty());
  EXPECT_EQ(record.seen, hub_.state.seen);
  // Where it was not refused, it has.
  refusal_.sequence = {1};
  const Record both = OnTopOf(hub_, WithState(), ids_, {kOwn, {1000}});
  EXPECT_THAT(Values(both.cells), ElementsAre("refused"));
  EXPECT_THAT(both.conflicts, SizeIs(1));
}

TEST_F(RefusalTest, ADeletionHasLostToALaterWriteThatKeepsTheRecord) {
  const Version deletion{{800}, kOther};
  hub_.state.Put({CellPath::Existence(), deletion, "officer", DeletedValue(), {}});
  HubHas(800, kOther);
  Put(kName, 850, kOwn, "refused");
  Put(kPhone, 900, kOwn, "later", 11);
  record_.Put({CellPath::Existence(), deletion, "officer", DeletedValue(), {}});
  record_.seen.Advance(deletion);
  ConflictEntry& entry = Lost(800, kOther, DeletedValue());
  entry.path = CellPath::Existence();
  entry.current_version = {{850}, kOwn};
  const Record record = OnTopOf(hub_, WithState(), ids_, {kOwn, {1000}});
  EXPECT_TRUE(record.live());
  EXPECT_THAT(record.conflicts, SizeIs(1));
}

}  // namespace
}  // namespace chaptersync::storage
