// SPDX-License-Identifier: Apache-2.0
//
// The watch over rights can fail: histories made by hand, each with one rule broken or one
// thing that only looks like it.
#include "tests/simulation/rights_watch.h"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chaptersync::simulation {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr size_t kHub = 0;
constexpr size_t kMilan = 1;
constexpr size_t kToronto = 2;
constexpr size_t kMilanCopy = 3;

// Sites write under the replica id of their number plus 100.
class RightsWatchTest : public testing::Test {
 protected:
  RightsWatchTest() {
    watch_.AddComputer(kHub, {"hq", "node-hq", ""});
    watch_.AddComputer(kMilan, {"milan", "node-milan", "milan"});
    watch_.AddComputer(kToronto, {"toronto", "node-toronto", "toronto"});
    watch_.AddComputer(kMilanCopy, {"milan-copy", "node-milan", "milan"});
    for (size_t site = kHub; site <= kMilanCopy; ++site) watch_.NoteId(site, 100 + site);
  }

  static PlainCell Cell(size_t site, const PlainValue& value, uint64_t time = 10) {
    return {value, {time, 100 + site}, "officer"};
  }
  static PlainRecord With(PlainRecord record, const std::string& path, PlainCell cell) {
    record.cells[path] = std::move(cell);
    return record;
  }
  static PlainRecord Member(const std::string& chapter) {
    return With({}, "1", Cell(kHub, chapter, 1));
  }
  static PlainRecord Erased() {
    PlainRecord record;
    record.erased = true;
    return record;
  }
  static std::string Path(uint32_t field) { return std::to_string(field); }

  // The hub had a record in one state, and has it in another.
  void Take(const std::string& record, const PlainRecord* before, const PlainRecord& now) {
    records_before_ = records_;
    records_[record] = now;
    const auto find = [](std::map<std::string, PlainRecord>& records) {
      return [&records](const std::string& name) -> const PlainRecord* {
        const auto it = records.find(name);
        return it == records.end() ? nullptr : &it->second;
      };
    };
    watch_.Taken(kHub, record, before, now,
                 {find(records_before_), find(records_),
                  [this](const std::string& name) { return ever_in_[name]; }});
    watch_.Observe(kHub, record, now);
  }

  std::map<std::string, PlainRecord> records_;
  std::map<std::string, PlainRecord> records_before_;
  std::map<std::string, std::set<std::string>> ever_in_;
  std::vector<std::string> failures_;
  RightsWatch watch_{[this](const std::string& what) { failures_.push_back(what); }};
};

// --- What only headquarters writes. ---

TEST_F(RightsWatchTest, HeadquartersFieldOfHeadquartersMayStandAnywhere) {
  const PlainRecord record = With(Member("milan"), Path(kStanding), Cell(kHub, "gold"));
  watch_.Observe(kHub, "m1", record);
  watch_.Observe(kToronto, "m1", record);
  EXPECT_THAT(failures_, IsEmpty());
}

TEST_F(RightsWatchTest, HeadquartersFieldOfANodeMayStandAtItsOwnComputers) {
  const PlainRecord record = With(Member("milan"), Path(kStanding), Cell(kMilan, "gold"));
  watch_.Observe(kMilan, "m1", record);
  watch_.Observe(kMilanCopy, "m1", record);
  EXPECT_THAT(failures_, IsEmpty());
}

TEST_F(RightsWatchTest, HeadquartersFieldOfANodeMustNotStandAtAHub) {
  watch_.Observe(kHub, "m1", With(Member("milan"), Path(kStanding), Cell(kMilan, "gold")));
  EXPECT_THAT(failures_, ElementsAre("hq has a standing of m1 that milan wrote, and only "
                                     "headquarters writes it"));
}

TEST_F(RightsWatchTest, HeadquartersFieldOfANodeMustNotStandAtAnotherNode) {
  watch_.Observe(kToronto, "m1", With(Member("milan"), Path(kStanding), Cell(kMilan, "gold")));
  EXPECT_THAT(failures_, ElementsAre(HasSubstr("toronto has a standing of m1 that milan wrote")));
}

TEST_F(RightsWatchTest, HeadquartersFieldOfANodeMayStandOnceItWasApproved) {
  const PlainCell gold = Cell(kMilan, "gold");
  const PlainRecord record = With(Member("milan"), Path(kStanding), gold);
  watch_.Approve("m1", {{{Path(kStanding), gold}}, false, false});
  watch_.Observe(kHub, "m1", record);
  watch_.Observe(kToronto, "m1", record);
  EXPECT_THAT(failures_, IsEmpty());
}

TEST_F(RightsWatchTest, ApprovalOfOneValueIsNoneOfAnother) {
  watch_.Approve("m1", {{{Path(kStanding), Cell(kMilan, "gold", 9)}}, false, false});
  watch_.Observe(kHub, "m1", With(Member("milan"), Path(kStanding), Cell(kMilan, "gold")));
  EXPECT_THAT(failures_, ElementsAre(HasSubstr("that milan wrote")));
}

TEST_F(RightsWatchTest, HeadquartersFieldInNobodysNameIsForged) {
  watch_.Observe(kHub, "m1", With(Member("milan"), Path(kStanding), Cell(77, "gold")));
  EXPECT_THAT(failures_, ElementsAre(HasSubstr("which is no computer's")));
}

TEST_F(RightsWatchTest, ConflictAboutAHeadquartersFieldMustNotTellOfANodesValue) {
  PlainRecord record = With(Member("milan"), Path(kStanding), Cell(kHub, "gold", 11));
  record.log.push_back({Path(kStanding), "lead", {10, 100 + kMilan}, "gold", {11, 100}, true, ""});
  watch_.Observe(kHub, "m1", record);
  EXPECT_THAT(failures_, ElementsAre(HasSubstr("hq has a conflict about a standing of m1")));
}

TEST_F(RightsWatchTest, AnApprovalThatFailedMayHaveBroughtConflicts) {
  PlainRecord record = With(Member("milan"), Path(kStanding), Cell(kHub, "gold", 11));
  record.log.push_back({Path(kStanding), "lead", {10, 100 + kMilan}, "gold", {11, 100}, true, ""});
  watch_.ApprovedInDoubt("m1");
  watch_.Observe(kHub, "m1", record);
  EXPECT_THAT(failures_, IsEmpty());
  watch_.Observe(kHub, "m2", record);
  EXPECT_THAT(failures_, ElementsAre(HasSubstr("hq has a conflict about a standing of m2")));
}

TEST_F(RightsWatchTest, ConflictAboutAHeadquartersFieldMustNotNameANodesValueAsWinner) {
  PlainRecord record = Member("milan");
  record.log.push_back({Path(kStanding), "gold", {9, 100}, "lead", {10, 100 + kMilan}, true, ""});
  watch_.Observe(kHub, "m1", record);
  EXPECT_THAT(failures_, ElementsAre(HasSubstr("hq has a conflict with a standing of m1")));
}

TEST_F(RightsWatchTest, WhoFoundAKnownConflictFirstMayNameItsValueAsWinner) {
  PlainRecord record = Member("milan");
  record.log.push_back({Path(kStanding), "gold", {9, 100}, "lead", {10, 100}, true, ""});
  watch_.Observe(kHub, "m1", record);
  record.log.back().current_stamp = {10, 100 + kMilan};
  watch_.Observe(kHub, "m1", record);
  EXPECT_THAT(failures_, IsEmpty());
}

TEST_F(RightsWatchTest, HeadquartersFieldMayLoseToANodesDeletion) {
  PlainRecord record = With(Member("milan"), "", Cell(kMilan, "deleted", 11));
  record.log.push_back(
      {Path(kStanding), "gold", {9, 100}, "deleted", {11, 100 + kMilan}, true, ""});
  watch_.Observe(kHub, "m1", record);
  EXPECT_THAT(failures_, IsEmpty());
}

TEST_F(RightsWatchTest, SettlementAboutAHeadquartersFieldMustNotBeANodes) {
  PlainRecord record = With(Member("milan"), Path(kStanding), Cell(kHub, "gold", 11));
  record.log.push_back(
      {Path(kStanding), "lead", {9, 100}, "gold", {11, 100}, false, "", {{12, 100 + kMilan}}});
  watch_.Observe(kHub, "m1", record);
  EXPECT_THAT(failures_, ElementsAre(HasSubstr("hq has a settlement about a standing of m1")));
}

// --- Erasures. ---

TEST_F(RightsWatchTest, ErasureThatHeadquartersOrdered) {
  watch_.Ordered("m1");
  watch_.Observe(kMilan, "m1", Erased());
  EXPECT_THAT(failures_, IsEmpty());
}

TEST_F(RightsWatchTest, ErasureThatNobodyOrdered) {
  watch_.Observe(kMilan, "m1", Erased());
  EXPECT_THAT(failures_, ElementsAre("m1 is erased at milan, and headquarters has not said so"));
}

TEST_F(RightsWatchTest, ErasureThatWasApproved) {
  watch_.Approve("m1", {{}, false, true});
  watch_.Observe(kHub, "m1", Erased());
  EXPECT_THAT(failures_, IsEmpty());
}

TEST_F(RightsWatchTest, FollowerIsErasedWithWhatItWasToFollow) {
  watch_.Ordered("m1");
  watch_.Writes("c1", Path(kLeader), LeaderText("m1"));
  watch_.Observe(kHub, "c1", Erased());
  EXPECT_THAT(failures_, IsEmpty());
}

TEST_F(RightsWatchTest, FollowerOfWhatIsNotErasedStays) {
  watch_.Ordered("m2");
  watch_.Writes("c1", Path(kLeader), LeaderText("m1"));
  watch_.Observe(kHub, "c1", Erased());
  EXPECT_THAT(failures_, ElementsAre(HasSubstr("c1 is erased at hq")));
}

// --- What is not a chapter's. ---

TEST_F(RightsWatchTest, EventForEverybodyIsItsHostsToWrite) {
  const PlainRecord event = With(Member(kEverybody), "6/milan", Cell(kHub, "host", 2));
  ever_in_["e1"] = {"global", "chapter/milan"};
  Take("e1", nullptr, event);
  Take("e1", &event, With(event, "3", Cell(kMilan, "w1;")));
  EXPECT_THAT(failures_, IsEmpty());
  Take("e1", &event, With(event, "3", Cell(kToronto, "w2;")));
  EXPECT_THAT(failures_, ElementsAre(AllOf(HasSubstr("hq takes field '3' of e1 from toronto"),
                                           HasSubstr("only its hosts write it"))));
}

TEST_F(RightsWatchTest, HostMustBeOneBeforeItWrites) {
  const PlainRecord event = Member(kEverybody);
  ever_in_["e1"] = {"global"};
  Take("e1", nullptr, event);
  Take("e1", &event, With(event, "6/toronto", Cell(kToronto, "host")));
  EXPECT_THAT(failures_, ElementsAre(HasSubstr("from toronto")));
}

TEST_F(RightsWatchTest, ReplyToAnEventForEverybodyIsItsHostsToWrite) {
  Take("e1", nullptr, Member(kEverybody));
  ever_in_["e1"] = {"global"};
  Take("r1", nullptr, With({}, Path(kLeader), Cell(kToronto, LeaderText("e1"))));
  EXPECT_THAT(failures_, ElementsAre(HasSubstr("hq takes field '1' of r1 from toronto")));
}

TEST_F(RightsWatchTest, WhatIsNoHostsMayStandOnceItWasApproved) {
  const PlainRecord event = Member(kEverybody);
  const PlainCell name = Cell(kToronto, "w1;");
  ever_in_["e1"] = {"global"};
  Take("e1", nullptr, event);
  watch_.Approve("e1", {{{"3", name}}, false, false});
  Take("e1", &event, With(event, "3", name));
  EXPECT_THAT(failures_, IsEmpty());
}

TEST_F(RightsWatchTest, ValueThatAHubHadBeforeIsNoNews) {
  const PlainRecord event = With(Member(kEverybody), "6/toronto", Cell(kHub, "host", 2));
  const PlainRecord written = With(event, "3", Cell(kToronto, "w1;"));
  ever_in_["e1"] = {"global", "chapter/toronto"};
  Take("e1", &event, written);
  const PlainRecord closed = With(event, "6/toronto", Cell(kHub, std::nullopt, 3));
  Take("e1", &closed, With(closed, "3", Cell(kToronto, "w1;")));
  EXPECT_THAT(failures_, IsEmpty());
}

TEST_F(RightsWatchTest, RecordThatWasNeverInAChapterIsNotItsToWrite) {
  const PlainRecord member = Member("milan");
  ever_in_["m1"] = {"chapter/milan"};
  Take("m1", nullptr, member);
  Take("m1", &member, With(member, "3", Cell(kToronto, "w1;")));
  EXPECT_THAT(failures_, ElementsAre(AllOf(HasSubstr("hq takes field '3' of m1 from toronto"),
                                           HasSubstr("never in that chapter"))));
}

TEST_F(RightsWatchTest, RecordThatHasLeftAChapterMayHaveBeenWrittenBefore) {
  const PlainRecord member = Member("milan");
  ever_in_["m1"] = {"chapter/milan", "chapter/toronto"};
  Take("m1", nullptr, member);
  Take("m1", &member, With(member, "3", Cell(kToronto, "w1;")));
  EXPECT_THAT(failures_, IsEmpty());
}

TEST_F(RightsWatchTest, ChapterDoesNotTakeARecordBack) {
  const PlainRecord member = Member("milan");
  ever_in_["m1"] = {"chapter/milan", "chapter/toronto"};
  Take("m1", nullptr, member);
  Take("m1", &member, With(member, "1", Cell(kToronto, "toronto")));
  EXPECT_THAT(failures_, ElementsAre(HasSubstr("it would come back to that chapter")));
}

TEST_F(RightsWatchTest, FollowerOfAnotherChaptersRecordIsNotAChaptersToMake) {
  Take("m1", nullptr, Member("milan"));
  ever_in_["m1"] = {"chapter/milan"};
  Take("c1", nullptr, With({}, Path(kLeader), Cell(kToronto, LeaderText("m1"))));
  EXPECT_THAT(failures_, ElementsAre(HasSubstr("it would follow m1")));
}

// --- What was approved. ---

TEST_F(RightsWatchTest, WhatIsApprovedIsWhatWasShown) {
  const PlainRecord before = Member("milan");
  const RightsWatch::Shown shown{{{"3", Cell(kMilan, "w1;")}}, false, false};
  watch_.Approved(kHub, "m1", shown, &before, With(before, "3", Cell(kMilan, "w1;")));
  EXPECT_THAT(failures_, IsEmpty());
  watch_.Approved(kHub, "m1", shown, &before, With(before, "3", Cell(kMilan, "w2;", 11)));
  EXPECT_THAT(failures_, ElementsAre(HasSubstr("which is not what was shown")));
}

TEST_F(RightsWatchTest, ConflictsGoWithWhatIsApproved) {
  const PlainRecord before = With(Member("milan"), Path(kStanding), Cell(kHub, "gold", 9));
  PlainRecord after = before;
  after.log.push_back({Path(kStanding), "gold", {9, 100}, "lead", {10, 100 + kMilan}, true, ""});
  watch_.Approved(kHub, "m1", {{}, true, false}, &before, after);
  watch_.Observe(kHub, "m1", after);
  EXPECT_THAT(failures_, IsEmpty());
}

TEST_F(RightsWatchTest, NothingElseIsApproved) {
  const PlainRecord before = Member("milan");
  PlainRecord after = With(before, "3", Cell(kMilan, "w1;"));
  after = With(after, "4", Cell(kMilan, "w2;"));
  watch_.Approved(kHub, "m1", {{{"3", Cell(kMilan, "w1;")}}, false, false}, &before, after);
  EXPECT_THAT(failures_, ElementsAre(HasSubstr("hq takes field '4' of m1 = w2;")));
}

}  // namespace
}  // namespace chaptersync::simulation
