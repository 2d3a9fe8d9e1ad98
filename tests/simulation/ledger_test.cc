// SPDX-License-Identifier: Apache-2.0
//
// The plain model can fail: histories made by hand, each with one promise broken or
// one thing that only looks like it.
#include "tests/simulation/ledger.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chaptersync::simulation {
namespace {

using testing::_;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;
using testing::UnorderedElementsAre;

constexpr char kName[] = "3";
constexpr char kChapterPath[] = "1";

// Sites are numbers, and write under the replica id of that number plus 100, unless told.
class LedgerTest : public testing::Test {
 protected:
  static Ledger::Writer At(size_t site) { return {site, 100 + site}; }

  static PlainCell Cell(const PlainValue& value, uint64_t time, uint64_t replica) {
    return {value, {time, replica}, "officer"};
  }

  static PlainEntry Entry(const std::string& path, const PlainCell& lost,
                          const PlainCell& current) {
    return {path, lost.value, lost.stamp, current.value, current.stamp, true, ""};
  }

  // Where `seen` stood, a site writes a cell, which then stands in `seen`.
  size_t Write(Ledger::Writer writer, PlainRecord& seen, const std::string& path,
               const PlainValue& value, uint64_t time, const std::string& record = "m1") {
    const PlainRecord before = seen;
    const bool unique = value && value->front() == 'w';
    const size_t number = ledger_.Begin(writer, record, before.cells.empty() ? nullptr : &before,
                                        {{path, value, unique}});
    seen.cells[path] = Cell(value, time, writer.replica);
    ledger_.Acknowledge(record, number, 1, seen);
    return number;
  }

  std::vector<std::string> Check(const PlainRecords& records) {
    ledger_.CheckAll(records);
    return failures_;
  }

  std::vector<std::string> failures_;
  Ledger ledger_{[this](const std::string& what) { failures_.push_back(what); }};
};

TEST_F(LedgerTest, WriteThatStandsIsNotLost) {
  PlainRecord hub;
  Write(At(1), hub, kName, "w1;", 10);
  EXPECT_THAT(Check({{"m1", hub}}), IsEmpty());
  EXPECT_THAT(ledger_.endings(), ElementsAre(Pair("current", 1)));
}

TEST_F(LedgerTest, WriteThatIsNowhereIsLost) {
  PlainRecord one;
  Write(At(1), one, kName, "w1;", 10);
  EXPECT_THAT(Check({}), ElementsAre(AllOf(HasSubstr("a write was lost: m1 field '3' = w1;"),
                                           HasSubstr("no such record"))));
}

TEST_F(LedgerTest, WriteReplacedUnseenIsLost) {
  PlainRecord one;
  PlainRecord two;
  Write(At(1), one, kName, "w1;", 10);
  Write(At(2), two, kName, "w2;", 11);
  EXPECT_THAT(Check({{"m1", two}}), ElementsAre(HasSubstr("a write was lost: m1 field '3' = w1;")));
}

TEST_F(LedgerTest, WriteReplacedKnowinglyIsNotLost) {
  PlainRecord one;
  Write(At(1), one, kName, "w1;", 10);
  PlainRecord two = one;
  Write(At(2), two, kName, "w2;", 11);
  EXPECT_THAT(Check({{"m1", two}}), IsEmpty());
  EXPECT_THAT(ledger_.endings(), ElementsAre(Pair("current", 1), Pair("replaced knowingly", 1)));
}

TEST_F(LedgerTest, WriteInTheConflictLogIsNotLost) {
  PlainRecord one;
  PlainRecord two;
  Write(At(1), one, kName, "w1;", 10);
  Write(At(2), two, kName, "w2;", 11);
  two.log.push_back(Entry(kName, one.cells[kName], two.cells[kName]));
  ledger_.Observe(0, "m1", two);
  EXPECT_THAT(Check({{"m1", two}}), IsEmpty());
  EXPECT_THAT(ledger_.endings(), ElementsAre(Pair("current", 1), Pair("in the conflict log", 1)));
  EXPECT_THAT(ledger_.conflicts(), ElementsAre(Pair("edit lost to an edit", 1)));
}

TEST_F(LedgerTest, ConflictOverWhatNobodyWrote) {
  PlainRecord hub;
  Write(At(1), hub, kName, "w1;", 10);
  hub.log.push_back(Entry(kName, Cell("forged", 9, 102), hub.cells[kName]));
  ledger_.Observe(0, "m1", hub);
  EXPECT_THAT(failures_, ElementsAre("nobody wrote what was lost: m1 field '3' = forged"));
}

TEST_F(LedgerTest, WhatARevokedComputerWritesReachesNobody) {
  PlainRecord node;
  Write(At(1), node, kName, "w1;", 10);
  ledger_.Revoke(1);
  ledger_.Observe(0, "m1", node);
  EXPECT_THAT(failures_, IsEmpty());
  Write(At(1), node, "4", "w2;", 11);
  ledger_.Observe(1, "m1", node);
  EXPECT_THAT(failures_, IsEmpty());
  ledger_.Observe(0, "m1", node);
  EXPECT_THAT(failures_,
              ElementsAre(HasSubstr("site 0 has what site 1 wrote when it was revoked")));
}

TEST_F(LedgerTest, EqualWritesAccountForEachOther) {
  PlainRecord one;
  PlainRecord two;
  Write(At(1), one, kChapterPath, "oslo", 10);
  Write(At(2), two, kChapterPath, "oslo", 11);
  EXPECT_THAT(Check({{"m1", two}}), IsEmpty());
}

TEST_F(LedgerTest, DeletedWithoutKnowingIsLost) {
  PlainRecord one;
  Write(At(1), one, kName, "w1;", 10);
  PlainRecord two = one;
  Write(At(1), one, kName, "w2;", 11);
  Write(At(2), two, "", "deleted", 12);
  PlainRecord hub = two;
  hub.cells[kName] = one.cells[kName];
  EXPECT_THAT(Check({{"m1", hub}}),
              ElementsAre(HasSubstr("m1 field '3' = w1;"), HasSubstr("m1 field '3' = w2;")));
  EXPECT_THAT(ledger_.endings(), ElementsAre(Pair("current", 1)));
}

TEST_F(LedgerTest, DeletedKnowinglyIsNotLost) {
  PlainRecord hub;
  Write(At(1), hub, kName, "w1;", 10);
  Write(At(2), hub, "", "deleted", 12);
  EXPECT_THAT(Check({{"m1", hub}}), IsEmpty());
  EXPECT_THAT(ledger_.endings(), ElementsAre(Pair("current", 1), Pair("deleted knowingly", 1)));
}

TEST_F(LedgerTest, AnEditAfterARefusedRestorationKeepsTheRecord) {
  PlainRecords hub;
  // Who edits m1 did not know of the deletion, who edits m2 did, who edits m3 had restored it.
  for (const size_t number : {1, 2, 3}) {
    const std::string record = absl::StrCat("m", number);
    const uint64_t time = 10 * number;
    PlainRecord one;
    Write(At(1), one, "", "deleted", time, record);
    ledger_.Observe(0, record, one);
    PlainRecord two = number > 1 ? one : PlainRecord();
    if (number == 3) Write(At(2), two, "", "restored", time + 1, record);
    Write(At(2), two, kName, absl::StrCat("w", number, ";"), time + 2, record);
    ledger_.Refused(2, record, "", "restored");
    hub[record] = one;
    hub[record].cells[kName] = two.cells[kName];
  }
  EXPECT_THAT(Check(hub), ElementsAre(HasSubstr("a write was lost: m1 field '' = deleted"),
                                      HasSubstr("a write was lost: m2 field '' = deleted")));
}

TEST_F(LedgerTest, RefusedWriteMustBeShown) {
  PlainRecord one;
  Write(At(1), one, kName, "w1;", 10);
  ledger_.Refused(1, "m1", kName, "w1;");
  EXPECT_THAT(Check({}), IsEmpty());
  EXPECT_THAT(ledger_.endings(), ElementsAre(Pair("refused and shown", 1)));
}

TEST_F(LedgerTest, RefusedWriteStaysInTheListUntilAnOfficerTakesItOff) {
  PlainRecord one;
  PlainRecord two;
  PlainRecord three;
  Write(At(1), one, kName, "w1;", 10, "m1");
  Write(At(2), two, kName, "w2;", 10, "m2");
  Write(At(3), three, kName, "w3;", 10, "m3");
  for (const size_t site : {1, 2, 3}) {
    ledger_.Refused(site, absl::StrCat("m", site), kName, absl::StrCat("w", site, ";"));
  }
  ledger_.TakeOff(2, "m2", kName, "w2;");
  ledger_.ExcuseRefused(3, "went back");
  for (const size_t site : {1, 2, 3}) ledger_.BeginRefused(site);
  EXPECT_THAT(Check({}), ElementsAre(HasSubstr("a write was lost: m1 field '3' = w1;")));
  EXPECT_THAT(ledger_.endings(), ElementsAre(Pair("refused and shown", 1)));
  EXPECT_THAT(ledger_.losses_allowed(), ElementsAre(Pair("went back", 1)));
}

TEST_F(LedgerTest, ARefusedValueIsNotTheSameValueOfOthers) {
  PlainRecord one;
  PlainRecord two;
  Write(At(1), one, kChapterPath, "oslo", 10);
  two.cells[kName] = Cell("w;", 1, 105);
  Write(At(2), two, kChapterPath, "oslo", 10);
  Write(At(2), two, kChapterPath, "rome", 11);
  // 1's is refused; 2's was replaced by 2's next, which is nowhere.
  ledger_.Refused(1, "m1", kChapterPath, "oslo");
  EXPECT_THAT(Check({}), ElementsAre(HasSubstr("a write was lost: m1 field '1' = rome")));
}

TEST_F(LedgerTest, WhatWasRefusedStandsForNothingThatOthersHad) {
  for (const bool known : {false, true}) {
    const std::string record = known ? "m2" : "m1";
    PlainRecord one;
    Write(At(1), one, kName, known ? "w3;" : "w1;", known ? 20 : 10, record);
    if (known) ledger_.Observe(0, record, one);  // the hub has it
    Write(At(1), one, kName, known ? "w4;" : "w2;", known ? 21 : 11, record);
    ledger_.Refused(1, record, kName, known ? "w4;" : "w2;");
  }
  EXPECT_THAT(Check({}), ElementsAre(HasSubstr("a write was lost: m2 field '3' = w3;")));
  EXPECT_THAT(ledger_.endings(),
              ElementsAre(Pair("refused and shown", 2), Pair("replaced knowingly", 1)));
}

TEST_F(LedgerTest, WhatAnotherReplacedAndLostStandsWhereItIsShown) {
  // In m2 another has the first; in m3 it came back to 1, and was there when it got lost.
  for (const uint64_t n : {1, 2, 3}) {
    const std::string record = absl::StrCat("m", n);
    const std::string second = absl::StrCat("x", n, ";");
    PlainRecord one;
    Write(At(1), one, kName, absl::StrCat("w", n, ";"), 10 * n, record);
    ledger_.Observe(0, record, one);
    if (n == 2) ledger_.Observe(2, record, one);
    // The hub's, which 1 has, and the hub lost; 1 shows it, with what was refused there.
    PlainRecord two = one;
    Write(At(0), two, kName, second, 10 * n + 1, record);
    ledger_.Observe(1, record, two);
    ledger_.GoBack(0, {});
    ledger_.Refused(1, record, kName, second);
    if (n == 3) ledger_.Observe(1, record, one);
  }
  EXPECT_THAT(Check({}), ElementsAre(HasSubstr("a write was lost: m2 field '3' = w2;"),
                                     HasSubstr("a write was lost: m3 field '3' = w3;")));
}

TEST_F(LedgerTest, WhatEachOfTwoCopiesReplacedAndWasRefusedIsNotLost) {
  PlainRecord one;
  Write(At(1), one, kName, "w1;", 10);
  for (const size_t site : {1, 2}) {
    ledger_.Observe(site, "m1", one);
    PlainRecord own = one;
    Write(At(site), own, kName, absl::StrCat("w", site + 1, ";"), 10 + site);
    ledger_.Refused(site, "m1", kName, absl::StrCat("w", site + 1, ";"));
  }
  EXPECT_THAT(Check({}), IsEmpty());
  ledger_.Observe(3, "m1", one);
  EXPECT_THAT(Check({}), ElementsAre(HasSubstr("a write was lost: m1 field '3' = w1;")));
}

TEST_F(LedgerTest, WhatMayBeLostStandsForNothingThatOthersHave) {
  for (const bool others_have : {false, true}) {
    const std::string record = others_have ? "m2" : "m1";
    const uint64_t time = others_have ? 20 : 10;
    PlainRecord one;
    Write(At(1), one, kName, "w1;", time, record);
    ledger_.Observe(1, record, one);
    ledger_.Observe(0, record, one);
    ledger_.Observe(2, record, one);
    if (!others_have) ledger_.GoBack(0, {});
    ledger_.GoBack(1, {});
    ledger_.ExcuseWritesOf(2, "revoked");
    Write(At(2), one, kName, "w2;", time + 1, record);
    ledger_.ExcuseWritesOf(2, "");
  }
  EXPECT_THAT(Check({}), ElementsAre(HasSubstr("a write was lost: m2 field '3' = w1;")));
  EXPECT_THAT(ledger_.losses_allowed(), ElementsAre(Pair("revoked", 3)));
}

TEST_F(LedgerTest, WhatARevokedComputerHoldsComesBackToNobody) {
  // 1 has replaced it knowingly, which was refused; 2 still has it, or 3, which is revoked.
  for (const size_t other : {2, 3}) {
    const std::string record = absl::StrCat("m", other);
    const std::string second = absl::StrCat("x", other, ";");
    PlainRecord one;
    Write(At(1), one, kName, absl::StrCat("w", other, ";"), 10 * other, record);
    ledger_.Observe(other, record, one);
    Write(At(1), one, kName, second, 10 * other + 1, record);
    ledger_.Refused(1, record, kName, second);
  }
  ledger_.Revoke(3);
  EXPECT_THAT(Check({}), ElementsAre(HasSubstr("a write was lost: m2 field '3' = w2;")));
}

TEST_F(LedgerTest, OfTwoValuesOfOneVersionEachIsKnown) {
  ledger_.Twins(1, 2);
  PlainRecord one;
  Write(At(3), one, kName, "same", 5);
  Write(At(3), one, kName, "w1;", 6);
  PlainRecord two = one;
  Write({1, 7}, one, kName, "same", 10);
  Write({2, 7}, two, kName, "w2;", 10);
  Write(At(4), one, kName, "w3;", 11);
  EXPECT_THAT(Check({{"m1", one}}), ElementsAre(HasSubstr("a write was lost: m1 field '3' = w2;")));
}

TEST_F(LedgerTest, AnEntryOfAnotherWriteOfTheValueDoesNotAccountForOne) {
  PlainRecord hub;
  Write(At(1), hub, kChapterPath, "oslo", 10);
  const PlainCell first = hub.cells[kChapterPath];
  PlainRecord two = hub;
  Write(At(2), two, kChapterPath, "rome", 11);
  PlainRecord three = two;
  Write(At(3), three, kChapterPath, "oslo", 12);
  two.log.push_back(Entry(kChapterPath, first, two.cells[kChapterPath]));
  EXPECT_THAT(Check({{"m1", two}}),
              ElementsAre(HasSubstr("a write was lost: m1 field '1' = oslo")));
}

TEST_F(LedgerTest, WriteInDoubtMayBeLost) {
  ledger_.Begin(At(1), "m1", nullptr, {{kName, "w1;", true}});
  EXPECT_THAT(Check({}), IsEmpty());
  EXPECT_EQ(ledger_.writes(), 1);
}

// The call failed, and the write stands all the same: what replaces it has seen it.
TEST_F(LedgerTest, WriteInDoubtThatTurnsUpCounts) {
  ledger_.Begin(At(1), "m1", nullptr, {{kName, "w1;", true}});
  PlainRecord seen;
  seen.cells[kName] = Cell("w1;", 10, 101);
  ledger_.Observe(1, "m1", seen);
  const PlainCell first = seen.cells[kName];
  Write(At(2), seen, kName, "w2;", 11);
  seen.log.push_back(Entry(kName, first, seen.cells[kName]));
  ledger_.Observe(2, "m1", seen);
  EXPECT_THAT(failures_, ElementsAre(HasSubstr("false alarm: m1 field '3' = w1;")));
}

TEST_F(LedgerTest, AcknowledgedAndNotThere) {
  const size_t number = ledger_.Begin(At(1), "m1", nullptr, {{kName, "w1;", true}});
  ledger_.Acknowledge("m1", number, 1, {});
  EXPECT_THAT(failures_, ElementsAre(HasSubstr("acknowledged and not there: m1 field '3'")));
}

TEST_F(LedgerTest, TakenBackAndThereAllTheSame) {
  const size_t number = ledger_.Begin(At(1), "m1", nullptr, {{kName, "w1;", true}});
  ledger_.TakeBack("m1", number, 1);
  PlainRecord seen;
  seen.cells[kName] = Cell("w1;", 10, 101);
  ledger_.Observe(1, "m1", seen);
  EXPECT_THAT(Check({}), testing::Each(HasSubstr("nobody wrote m1 field '3' = w1;")));
}

TEST_F(LedgerTest, ValueThatNobodyWrote) {
  PlainRecord seen;
  seen.cells[kName] = Cell("from nowhere", 10, 101);
  ledger_.Observe(1, "m1", seen);
  EXPECT_THAT(failures_, ElementsAre(HasSubstr("nobody wrote m1 field '3' = from nowhere")));
}

TEST_F(LedgerTest, OneVersionWithTwoValues) {
  PlainRecord one;
  Write(At(1), one, kName, "w1;", 10);
  Write(At(1), one, kName, "w2;", 11);
  ledger_.Observe(1, "m1", one);
  one.cells[kName].value = "w1;";
  ledger_.Observe(2, "m1", one);
  EXPECT_THAT(failures_, ElementsAre(HasSubstr("one version has two values: m1 field '3' = w1;")));
}

// --- Alarms. ---

TEST_F(LedgerTest, ConflictOverWhatWasSeenIsAFalseAlarm) {
  PlainRecord hub;
  Write(At(1), hub, kName, "w1;", 10);
  const PlainCell seen = hub.cells[kName];
  Write(At(2), hub, kName, "w2;", 11);
  hub.log.push_back(Entry(kName, seen, hub.cells[kName]));
  ledger_.Observe(0, "m1", hub);
  EXPECT_THAT(failures_, ElementsAre(AllOf(HasSubstr("false alarm: m1 field '3' = w1; of site 1"),
                                           HasSubstr("which had seen it"))));
  // It is told once, wherever else it shows.
  ledger_.Observe(1, "m1", hub);
  EXPECT_EQ(failures_.size(), 1);
}

TEST_F(LedgerTest, AlarmThatTheDesignAllowsIsCounted) {
  ledger_.Twins(1, 2);
  PlainRecord hub;
  Write(At(1), hub, kName, "w1;", 10);
  const PlainCell seen = hub.cells[kName];
  Write(At(2), hub, kName, "w2;", 11);
  hub.log.push_back(Entry(kName, seen, hub.cells[kName]));
  ledger_.Observe(0, "m1", hub);
  EXPECT_THAT(failures_, IsEmpty());
  EXPECT_THAT(ledger_.alarms_allowed(), ElementsAre(Pair(_, 1u)));
}

// --- Settlements. ---

class SettlementTest : public LedgerTest {
 protected:
  void SetUp() override {
    PlainRecord one;
    Write(At(1), one, kName, "w1;", 10);
    Write(At(2), hub_, kName, "w2;", 11);
    hub_.log.push_back(Entry(kName, one.cells[kName], hub_.cells[kName]));
    ledger_.Observe(0, "m1", hub_);
    const size_t number = ledger_.BeginSettle(At(0), "m1", hub_, kName, "w1;", {});
    hub_.log[0].open = false;
    ledger_.Acknowledge("m1", number, 1, hub_);
    ledger_.Observe(0, "m1", hub_);
  }

  PlainRecord hub_;
};

TEST_F(SettlementTest, StaysSettled) {
  EXPECT_THAT(Check({{"m1", hub_}}), IsEmpty());
  EXPECT_EQ(ledger_.endings().at("settled"), 1);
}

TEST_F(SettlementTest, OpenAgainFails) {
  hub_.log[0].open = true;
  ledger_.Observe(0, "m1", hub_);
  EXPECT_THAT(failures_, ElementsAre(HasSubstr("a settled conflict is open again: m1 field '3'")));
}

TEST_F(SettlementTest, OpenWhereItWasNeverSettledIsNoFailure) {
  hub_.log[0].open = true;
  ledger_.Observe(5, "m1", hub_);
  EXPECT_THAT(failures_, IsEmpty());
}

TEST_F(SettlementTest, OpenAgainBecauseItWasRefusedIsNoFailure) {
  ledger_.RefusedSettlements(0, "m1");
  hub_.log[0].open = true;
  ledger_.Observe(0, "m1", hub_);
  EXPECT_THAT(Check({{"m1", hub_}}), IsEmpty());
  EXPECT_EQ(ledger_.endings().at("refused and shown"), 1);
}

TEST_F(SettlementTest, WhatOthersSettledMayGoWithARefusalOnlyWhereItWasHeld) {
  const PlainRecord settled = hub_;
  hub_.log[0].open = true;
  ledger_.RefusedSettlements(5, "m1");  // 5 had none
  EXPECT_THAT(Check({{"m1", hub_}}), ElementsAre(HasSubstr("a settlement was lost: m1")));
  failures_.clear();
  ledger_.Observe(6, "m1", settled);
  ledger_.RefusedSettlements(6, "m1");
  EXPECT_THAT(Check({{"m1", hub_}}), IsEmpty());
}

TEST_F(SettlementTest, AnotherEntryOfTheValueExcusesNothing) {
  // The hub that settled it goes back; elsewhere the same value lost in another entry.
  PlainRecord elsewhere = hub_;
  elsewhere.log[0].lost_stamp = {99, 199};
  const PlainRecords other{{"m1", elsewhere}};
  ledger_.Excuse({{"m1", hub_}}, {&other}, "went back");
  hub_.log[0].open = true;
  EXPECT_THAT(Check({{"m1", hub_}}), IsEmpty());
  EXPECT_THAT(ledger_.losses_allowed(), ElementsAre(Pair("went back", 1)));
}

TEST_F(SettlementTest, OpenAtTheEndIsLost) {
  hub_.log[0].open = true;
  EXPECT_THAT(Check({{"m1", hub_}}), ElementsAre(HasSubstr("a settlement was lost: m1")));
}

// One call closes two entries of a value at a computer that then goes back. What another has of
// them; at the end the first is settled, and the second is open.
class TwoEntriesTest : public LedgerTest {
 protected:
  std::vector<std::string> EndWhereAnotherHas(bool both) {
    PlainRecord first;
    PlainRecord second;
    PlainRecord hub;
    Write(At(1), first, kName, "same", 10);
    Write(At(2), second, kName, "same", 11);
    Write(At(3), hub, kName, "w3;", 12);
    hub.log = {Entry(kName, first.cells[kName], hub.cells[kName]),
               Entry(kName, second.cells[kName], hub.cells[kName])};
    ledger_.Observe(4, "m1", hub);
    const PlainRecord open = hub;
    const size_t number = ledger_.BeginSettle(At(4), "m1", hub, kName, "same", {});
    hub.log[0].open = hub.log[1].open = false;
    ledger_.Acknowledge("m1", number, 1, hub);
    PlainRecord another = hub;
    if (!both) another.log.pop_back();
    const PlainRecords other{{"m1", another}};
    ledger_.Excuse({{"m1", hub}}, {&other}, "went back");
    ledger_.GoBack(4, {{"m1", open}});
    hub.log[1].open = true;
    return Check({{"m1", hub}});
  }
};

TEST_F(TwoEntriesTest, OneOfThemSettledElsewhereDoesNotMakeTheOtherSo) {
  EXPECT_THAT(EndWhereAnotherHas(false), IsEmpty());
  EXPECT_THAT(ledger_.losses_allowed(), ElementsAre(Pair("went back", 1)));
}

TEST_F(TwoEntriesTest, BothSettledElsewhereMustStaySo) {
  EXPECT_THAT(EndWhereAnotherHas(true), ElementsAre(HasSubstr("a settlement was lost: m1")));
}

// --- Erasure. ---

TEST_F(LedgerTest, ErasureAccountsForEveryValue) {
  PlainRecord hub;
  Write(At(1), hub, kName, "w1;", 10);
  Write(At(2), hub, kName, "w2;", 11);
  const size_t number = ledger_.BeginErase(At(0), "m1", hub);
  const PlainRecord erased{.erased = true};
  ledger_.Acknowledge("m1", number, 1, erased);
  ledger_.Observe(0, "m1", erased);
  EXPECT_EQ(ledger_.RecordOf("w1;"), "m1");
  EXPECT_THAT(Check({{"m1", erased}}), IsEmpty());
  EXPECT_THAT(ledger_.endings(), ElementsAre(Pair("erased", 3)));
}

TEST_F(LedgerTest, ErasureUndoneFails) {
  PlainRecord hub;
  Write(At(1), hub, kName, "w1;", 10);
  const size_t number = ledger_.BeginErase(At(0), "m1", hub);
  const PlainRecord erased{.erased = true};
  ledger_.Acknowledge("m1", number, 1, erased);
  ledger_.Observe(0, "m1", erased);
  ledger_.Observe(0, "m1", hub);
  EXPECT_THAT(failures_, ElementsAre("m1 was erased and is back"));
  failures_.clear();
  EXPECT_THAT(Check({{"m1", hub}}), ElementsAre(HasSubstr("erasure was lost")));
}

TEST_F(LedgerTest, ErasedByNobodyFails) {
  PlainRecord hub;
  Write(At(1), hub, kName, "w1;", 10);
  EXPECT_THAT(Check({{"m1", {.erased = true}}}), ElementsAre("m1 is erased and nobody erased it"));
}

TEST_F(LedgerTest, ErasureAcknowledgedAndNotDoneFails) {
  PlainRecord hub;
  Write(At(1), hub, kName, "w1;", 10);
  ledger_.Acknowledge("m1", ledger_.BeginErase(At(0), "m1", hub), 1, hub);
  EXPECT_THAT(failures_, ElementsAre(HasSubstr("the erasure of m1 was acknowledged")));
}

// --- Versions and identities. ---

TEST_F(LedgerTest, VersionUsedTwiceFails) {
  PlainRecord one;
  PlainRecord two;
  Write(At(1), one, kName, "w1;", 10, "m1");
  Write(At(1), two, kName, "w2;", 10, "m2");
  EXPECT_THAT(failures_, ElementsAre(AllOf(HasSubstr("a version was used twice: 10@"),
                                           HasSubstr("for m1 and m2"))));
}

TEST_F(LedgerTest, TwoComputersUnderOneIdFail) {
  PlainRecord one;
  PlainRecord two;
  Write({1, 500}, one, kName, "w1;", 10, "m1");
  Write({2, 500}, two, kName, "w2;", 11, "m2");
  EXPECT_THAT(failures_, ElementsAre(HasSubstr("two computers write as replica")));
}

TEST_F(LedgerTest, TwinsMayWriteUnderOneId) {
  ledger_.Twins(1, 2);
  PlainRecord one;
  PlainRecord two;
  Write({1, 500}, one, kName, "w1;", 10, "m1");
  Write({2, 500}, two, kName, "w2;", 10, "m2");
  EXPECT_THAT(failures_, IsEmpty());
}

TEST_F(LedgerTest, RestoredComputerUnderItsOldIdFails) {
  PlainRecord one;
  Write(At(1), one, kName, "w1;", 10);
  ledger_.GoBack(1, {});
  ledger_.MustTakeNewId(1, 1);
  Write({1, 700}, one, kName, "w2;", 11);
  EXPECT_THAT(failures_, IsEmpty());
  Write(At(1), one, kName, "w3;", 12);
  EXPECT_THAT(failures_,
              ElementsAre(HasSubstr("a restored or copied computer writes on as replica")));
}

// --- Losses that the design allows. ---

TEST_F(LedgerTest, ExcusedLossIsCountedByItsReason) {
  PlainRecord backup;
  Write(At(1), backup, kName, "w1;", 10);
  PlainRecord now = backup;
  Write(At(1), now, kName, "w2;", 11);
  Write(At(1), now, kChapterPath, "oslo", 12);
  const PlainRecords left{{"m1", backup}};
  ledger_.Excuse({{"m1", now}}, {&left}, "went back");
  // The first is neither excused nor lost: somebody replaced it knowingly.
  EXPECT_THAT(Check(left), IsEmpty());
  EXPECT_THAT(ledger_.losses_allowed(), ElementsAre(Pair("went back", 2)));
}

TEST_F(LedgerTest, WhatOthersHaveIsNotExcused) {
  PlainRecord now;
  Write(At(1), now, kName, "w1;", 10);
  const PlainRecords other{{"m1", now}};
  ledger_.Excuse({{"m1", now}}, {&other}, "went back");
  EXPECT_THAT(Check({}), ElementsAre(HasSubstr("a write was lost")));
  EXPECT_THAT(ledger_.losses_allowed(), IsEmpty());
}

TEST_F(LedgerTest, AnIdThatTwoUsedUnseenIsExcused) {
  ledger_.Twins(1, 2);
  PlainRecord one;
  PlainRecord two;
  Write({1, 500}, one, kName, "w1;", 10, "m1");
  Write(At(3), two, kName, "w2;", 11, "m2");
  ledger_.ExcuseWritesUnder(500, "a clone");
  EXPECT_THAT(Check({}), ElementsAre(HasSubstr("a write was lost: m2")));
  EXPECT_THAT(ledger_.losses_allowed(), ElementsAre(Pair("a clone", 1)));
}

// Site 2 has only what was replaced, and hears of the other's write under the id, which the hub
// takes for one that has seen all of that id.
TEST_F(LedgerTest, WhatAHubHadOfAnIdThatTwoUsedStandsForWhatItReplaced) {
  ledger_.AddHub(0);
  ledger_.Twins(1, 5);
  ledger_.ExcuseWritesUnder(500, "a clone");
  PlainRecords records;
  for (const bool hub_had : {false, true}) {
    const std::string record = hub_had ? "m2" : "m1";
    const uint64_t time = hub_had ? 20 : 10;
    PlainRecord one;
    Write(At(3), one, kName, "w1;", time, record);
    ledger_.Observe(0, record, one);
    ledger_.Observe(2, record, one);
    Write({1, 500}, one, kName, absl::StrCat("w2", record, ";"), time + 1, record);
    if (hub_had) ledger_.Observe(0, record, one);
    PlainRecord other;
    Write({5, 500}, other, kName, absl::StrCat("w3", record, ";"), time + 2, record);
    ledger_.Observe(0, record, other);
    records[record] = other;
  }
  EXPECT_THAT(Check(records), ElementsAre(HasSubstr("a write was lost: m1 field '3' = w1;")));
  EXPECT_THAT(ledger_.losses_allowed(), ElementsAre(Pair("a clone", 3)));
}

TEST_F(LedgerTest, WhatOneHubHasRefusedMaySeemAConflictWhereAnotherTookIt) {
  for (const bool second_hub : {false, true}) {
    const std::string record = second_hub ? "m2" : "m1";
    const uint64_t time = second_hub ? 20 : 10;
    ledger_.AddHub(second_hub ? 5 : 0);
    PlainRecord one;
    Write(At(1), one, kName, "w1;", time, record);
    ledger_.Refused(1, record, kName, "w1;");
    const PlainCell first = one.cells[kName];
    Write(At(1), one, kName, "w2;", time + 1, record);
    one.log.push_back(Entry(kName, first, one.cells[kName]));
    ledger_.Observe(0, record, one);
  }
  EXPECT_THAT(failures_, ElementsAre(HasSubstr("false alarm: m1")));
  // Not where neither of the two had seen what was refused.
  failures_.clear();
  PlainRecord one;
  Write(At(1), one, kName, "w3;", 30, "m3");
  const PlainCell first = one.cells[kName];
  Write(At(1), one, kName, "w4;", 31, "m3");
  PlainRecord alarmed = one;
  alarmed.log.push_back(Entry(kName, first, one.cells[kName]));
  Write(At(1), one, kName, "w5;", 32, "m3");
  ledger_.Refused(1, "m3", kName, "w5;");
  ledger_.Observe(0, "m3", alarmed);
  EXPECT_THAT(failures_, ElementsAre(HasSubstr("false alarm: m3")));
}

// What a computer that has gone back stamps again, or does not claim any more after a refusal,
// may seem a conflict; what another does not claim may not.
TEST_F(LedgerTest, WhatIsNotClaimedAnyMoreMaySeemAConflictWhereOneWentBack) {
  for (const bool went_back : {false, true}) {
    const std::string record = went_back ? "m2" : "m1";
    const uint64_t time = went_back ? 20 : 10;
    if (went_back) ledger_.AllowAlarms(1);
    PlainRecord one;
    Write(At(1), one, kName, "w1;", time, record);
    const PlainCell first = one.cells[kName];
    PlainRecord two = one;
    two.seen = {{101, time}};
    ledger_.Observe(2, record, two);
    Write(At(2), two, kName, "w2;", time + 1, record);
    ledger_.Observe(2, record, two);
    two.seen = {{102, time + 1}};
    ledger_.Observe(2, record, two);
    two.log.push_back(Entry(kName, first, two.cells[kName]));
    ledger_.Observe(3, record, two);
    EXPECT_THAT(failures_, testing::SizeIs(1)) << record;
  }
  EXPECT_THAT(failures_, ElementsAre(HasSubstr("false alarm: m1")));
  EXPECT_THAT(ledger_.alarms_allowed(), ElementsAre(Pair(_, 1u)));
}

TEST_F(LedgerTest, WhatRemainsOfARefusedRecordMaySeemAConflictWhereAHubWentBack) {
  for (const bool went_back : {false, true}) {
    const std::string record = went_back ? "m2" : "m1";
    const uint64_t time = went_back ? 20 : 10;
    if (went_back) ledger_.HubWentBack();
    PlainRecord one;
    Write(At(1), one, kName, "w1;", time, record);
    const PlainCell first = one.cells[kName];
    Write(At(2), one, kName, "w2;", time + 1, record);
    ledger_.Refused(2, record, kName, "w2;");
    one.log.push_back(Entry(kName, first, one.cells[kName]));
    ledger_.Observe(3, record, one);
    EXPECT_THAT(failures_, testing::SizeIs(1)) << record;
  }
  EXPECT_THAT(ledger_.alarms_allowed(), ElementsAre(Pair(_, 1u)));
}

TEST_F(LedgerTest, SiteIsExcusedForAWhile) {
  PlainRecord one;
  PlainRecord two;
  ledger_.ExcuseWritesOf(1, "revoked");
  Write(At(1), one, kName, "w1;", 10, "m1");
  ledger_.ExcuseWritesOf(1, "");
  Write(At(1), two, kName, "w2;", 11, "m2");
  EXPECT_THAT(Check({}), ElementsAre(HasSubstr("a write was lost: m2")));
  EXPECT_THAT(ledger_.losses_allowed(), ElementsAre(Pair("revoked", 1)));
}

}  // namespace
}  // namespace chaptersync::simulation
