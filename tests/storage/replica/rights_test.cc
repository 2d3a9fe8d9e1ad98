// SPDX-License-Identifier: Apache-2.0
//
// What a hub takes of a push, refuses, or keeps for headquarters' word: the tables of
// docs/adr/0006-rights.md, one row a test.
#include "storage/replica/rights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "storage/core/record_codec.h"

namespace chaptersync::storage {
namespace {

using testing::HasSubstr;
using Kind = Judgement::Kind;

constexpr EntityNumber kEntity{1};
constexpr uint32_t kName = 3;
constexpr uint32_t kDegree = 7;  // headquarters'
constexpr ReplicaId kOwn{0x1111'1111'0000'0001};
constexpr ReplicaId kOwnLater{0x1111'1111'0000'0002};
constexpr ReplicaId kOther{0x2222'2222'0000'0001};

CellPath Field(uint32_t field) { return {.field = field, .map_key = {}}; }

Cell Make(uint32_t field, uint64_t ticks, ReplicaId replica, const std::string& value) {
  return {.path = Field(field),
          .version = {{ticks}, replica},
          .actor = "officer",
          .value = value,
          .learned = {}};
}

void Put(Record& record, Cell cell) {
  record.seen.Advance(cell.version);
  record.Put(std::move(cell));
}

class RightsTest : public testing::Test {
 protected:
  RightsTest() {
    rule_.headquarters_fields = {kDegree};
    peer_.replica = kOwn;
    peer_.scopes = {Scope::Global(), Scope::Chapter("italy")};
    Put(mine_, Make(kName, 10, kOther, "Anna"));
    update_.state = mine_;
  }

  Judgement Judged() const { return Judge(rule_, peer_, key_, update_, mine_, where_); }
  Kind JudgedKind() const { return Judged().kind; }

  static ConflictEntry Entry(ReplicaId lost_by, ReplicaId found_by) {
    return {.path = Field(kName),
            .lost_version = {{5}, lost_by},
            .lost_actor = "officer",
            .lost_value = "Hanna",
            .current_version = {{10}, kOther},
            .current_actor = "officer",
            .current_value = "Anna",
            .found_at = {20},
            .found_by = found_by,
            .settlements = {}};
  }

  EntityRule rule_;
  PeerIdentity peer_;
  RecordKey key_{kEntity, {}};
  Record mine_;
  RecordUpdate update_;
  Whereabouts where_;
};

TEST_F(RightsTest, WhatTheHubHasIsNoNews) { EXPECT_EQ(JudgedKind(), Kind::kTake); }

TEST_F(RightsTest, WhereItMayNotWriteWhatItSaysThatItHasSeenIsNotTaken) {
  // It would hide what others have not brought yet.
  update_.state.seen.Advance({{500}, kOther});
  EXPECT_EQ(JudgedKind(), Kind::kTake) << "in its own chapter";
  where_.not_a_host = true;
  EXPECT_EQ(JudgedKind(), Kind::kNothing);
  where_ = {};
  where_.elsewhere = true;
  EXPECT_EQ(JudgedKind(), Kind::kNothing);
  where_.been_there = true;
  EXPECT_EQ(JudgedKind(), Kind::kTake);
  where_.let_go = true;
  EXPECT_EQ(JudgedKind(), Kind::kNothing);
  where_ = {};
  rule_.headquarters_only = true;
  EXPECT_EQ(JudgedKind(), Kind::kNothing);
  rule_ = {};
  mine_ = {};
  update_.state.cells.clear();
  EXPECT_EQ(JudgedKind(), Kind::kNothing) << "a record without anything";
}

TEST_F(RightsTest, WhatTheHubHasSeenAndDoesNotHoldIsNewsAllTheSame) {
  // The merge would take it: a version that is known to have been is easily made up.
  mine_.seen.Advance({{50}, kOther});
  Put(update_.state, Make(4, 11, kOther, "555-0100"));
  EXPECT_EQ(Judged().vouched, 1u);
  where_.elsewhere = true;
  EXPECT_EQ(JudgedKind(), Kind::kWaits);
  // Two that each say to have replaced the other's: the later would stand.
  update_.state = {};
  Put(update_.state, Make(kName, 20, kOther, "Forged"));
  EXPECT_EQ(JudgedKind(), Kind::kWaits);
  where_ = {};
  EXPECT_EQ(Judged().vouched, 1u);
  // What the hub has replaced, and the node does not know of, is none.
  update_.state.seen = {};
  update_.state.seen.Advance({{5}, kOther});
  update_.state.cells = {Make(kName, 5, kOther, "Ann")};
  EXPECT_EQ(Judged().vouched, 0u);
}

TEST_F(RightsTest, WhatNobodyButThisHubCanHaveWrittenWaits) {
  where_.hub = kOther;
  Put(update_.state, Make(4, 60, kOther, "in the hub's name"));
  EXPECT_EQ(JudgedKind(), Kind::kWaits);
  EXPECT_THAT(Judged().reason, HasSubstr("in this hub's name"));
}

TEST_F(RightsTest, ALostValueIsTheOneThatItsVersionHad) {
  mine_.conflicts = {Entry(kOther, kOther)};
  update_.state.conflicts = mine_.conflicts;
  update_.state.conflicts[0].found_at = {1};
  update_.state.conflicts[0].lost_value = "Forged";
  mine_.conflicts[0].settlements = {{.version = {{30}, kOther}, .actor = "hq"}};
  update_.state.conflicts[0].settlements = {{.version = {{30}, kOther}, .actor = "thief"}};
  KeepKnownConflicts(mine_, update_.state);
  EXPECT_EQ(update_.state.conflicts[0].lost_value, mine_.conflicts[0].lost_value);
  EXPECT_EQ(update_.state.conflicts[0].settlements[0].actor, "hq");
  // Of what stands the hub knows the value: with another one it is taken on the node's word only.
  mine_.conflicts.clear();
  update_.state.conflicts = {Entry(kOther, kOwn)};
  update_.state.conflicts[0].lost_version = mine_.cells[0].version;
  update_.state.conflicts[0].lost_value = mine_.cells[0].value;
  EXPECT_EQ(Judged().vouched, 0u);
  update_.state.conflicts[0].lost_value = "Forged";
  EXPECT_EQ(Judged().vouched, 1u);
}

TEST_F(RightsTest, AnotherValueUnderAnOwnVersionIsNews) {
  // The merge would keep one of the two.
  Put(mine_, Make(4, 11, kOwn, "italy"));
  Put(update_.state, Make(4, 11, kOwn, "toronto"));
  where_.elsewhere = true;
  EXPECT_EQ(JudgedKind(), Kind::kWaits);
  where_.been_there = where_.let_go = true;
  EXPECT_EQ(JudgedKind(), Kind::kRights);
}

TEST_F(RightsTest, AConflictAboutWhatHeadquartersWritesWaitsWhoeverFoundOrSettledIt) {
  rule_.headquarters_fields = {kName};
  update_.state.conflicts = {Entry(kOther, kOwn)};
  EXPECT_EQ(JudgedKind(), Kind::kWaits);
  mine_.conflicts = update_.state.conflicts;
  EXPECT_EQ(JudgedKind(), Kind::kTake);
  update_.state.conflicts[0].settlements = {{.version = {{30}, kOwn}, .actor = "officer"}};
  EXPECT_EQ(JudgedKind(), Kind::kWaits);
}

TEST_F(RightsTest, OwnValuesAreTakenInPartAndUnderEveryOwnId) {
  Put(update_.state, Make(kName, 11, kOwnLater, "Anna Rossi"));
  update_.whole = false;
  const Judgement judgement = Judged();
  EXPECT_EQ(judgement.kind, Kind::kTake);
  EXPECT_EQ(judgement.vouched, 0u);
}

TEST_F(RightsTest, AnOwnValueOfHeadquartersIsRefused) {
  Put(update_.state, Make(kDegree, 11, kOwn, "Dott."));
  const Judgement judgement = Judged();
  EXPECT_EQ(judgement.kind, Kind::kRights);
  EXPECT_THAT(judgement.reason, HasSubstr("field 7"));
  EXPECT_THAT(judgement.reason, HasSubstr("headquarters only"));
}

TEST_F(RightsTest, AnOwnExistenceOfHeadquartersEntityIsRefused) {
  rule_.headquarters_only = true;
  Put(update_.state, Make(0, 11, kOwn, "deleted"));
  EXPECT_EQ(JudgedKind(), Kind::kRights);
}

TEST_F(RightsTest, OthersValuesAreTakenWholeAndCounted) {
  Put(update_.state, Make(4, 11, kOther, "555-0100"));
  update_.whole = false;
  EXPECT_EQ(JudgedKind(), Kind::kNeedsWhole);
  update_.whole = true;
  const Judgement judgement = Judged();
  EXPECT_EQ(judgement.kind, Kind::kTake);
  EXPECT_EQ(judgement.vouched, 1u);
}

TEST_F(RightsTest, AValueOfHeadquartersThatTheHubHasNotGotWaits) {
  Put(update_.state, Make(kDegree, 11, kOther, "Dott."));
  update_.whole = false;
  EXPECT_EQ(JudgedKind(), Kind::kNeedsWhole);
  update_.whole = true;
  EXPECT_EQ(JudgedKind(), Kind::kWaits);
  // Once the hub has it, or what replaced it, there is nothing to wait for.
  Put(mine_, Make(kDegree, 12, kOther, "PhD"));
  EXPECT_EQ(JudgedKind(), Kind::kTake);
}

TEST_F(RightsTest, AnotherValueUnderAnothersVersionIsRefused) {
  update_.state.cells[0].value = "Forged";
  EXPECT_EQ(JudgedKind(), Kind::kRights);
  // Two computers that share an id can make two values of one version.
  update_.state.cells[0].version.replica = mine_.cells[0].version.replica = kOwn;
  update_.state.seen.Advance({{10}, kOwn});
  mine_.seen.Advance({{10}, kOwn});
  EXPECT_EQ(JudgedKind(), Kind::kTake);
}

TEST_F(RightsTest, AnErasureWaits) {
  update_.state.Erase();
  EXPECT_EQ(JudgedKind(), Kind::kWaits);
  mine_.Erase();
  EXPECT_EQ(JudgedKind(), Kind::kTake);
}

TEST_F(RightsTest, WhatWasErasedTakesNothingMore) {
  mine_.Erase();
  Put(update_.state, Make(kDegree, 11, kOther, "Dott."));
  EXPECT_EQ(JudgedKind(), Kind::kTake);
}

TEST_F(RightsTest, AConflictOfOthersIsVouchedForAndOneOfItsOwnIsNot) {
  struct Case {
    ReplicaId lost_by;
    ReplicaId found_by;
    size_t vouched;
  };
  mine_.seen.Advance({{5}, kOwnLater});
  for (const Case& one : {Case{kOwn, kOwn, 0}, Case{kOwnLater, kOwn, 0}, Case{kOther, kOwn, 1},
                          Case{ReplicaId{0x3333'3333'0000'0001}, kOwn, 1}, Case{kOwn, kOther, 1}}) {
    update_.state.conflicts = {Entry(one.lost_by, one.found_by)};
    const Judgement judgement = Judged();
    EXPECT_EQ(judgement.kind, Kind::kTake);
    EXPECT_EQ(judgement.vouched, one.vouched) << one.lost_by.value << " " << one.found_by.value;
  }
}

TEST_F(RightsTest, ASettlementOfOthersIsVouchedFor) {
  mine_.conflicts = {Entry(kOther, kOther)};
  update_.state.conflicts = mine_.conflicts;
  update_.state.conflicts[0].settlements = {{.version = {{30}, kOwn}, .actor = "officer"}};
  EXPECT_EQ(Judged().vouched, 0u);
  update_.state.conflicts[0].settlements = {{.version = {{30}, kOther}, .actor = "officer"}};
  EXPECT_EQ(Judged().vouched, 1u);
}

TEST_F(RightsTest, OutsideItsScopesByWhereTheRecordWas) {
  Put(update_.state, Make(kName, 11, kOwn, "Anna Rossi"));
  where_.elsewhere = true;
  EXPECT_EQ(JudgedKind(), Kind::kWaits) << "it was never there";
  where_.been_there = true;
  EXPECT_EQ(JudgedKind(), Kind::kTake) << "it had the right when it wrote";
  where_.let_go = true;
  EXPECT_EQ(JudgedKind(), Kind::kRights);
  EXPECT_THAT(Judged().reason, HasSubstr("another chapter's now"));
  update_.again = true;
  EXPECT_EQ(JudgedKind(), Kind::kWaits) << "held again, as it says";
}

TEST_F(RightsTest, OfARecordForEverybodyOnlyTheHostsWriteAndOthersAreVouchedFor) {
  where_.not_a_host = true;
  Put(update_.state, Make(4, 11, kOther, "555-0100"));
  EXPECT_EQ(JudgedKind(), Kind::kWaits) << "on its word alone";
  Put(update_.state, Make(kName, 12, kOwn, "Anna Rossi"));
  EXPECT_EQ(JudgedKind(), Kind::kRights);
  EXPECT_THAT(Judged().reason, HasSubstr("only its hosts"));
}

TEST_F(RightsTest, AHostIsWhomTheRuleNamesBesideEverybody) {
  constexpr EntityNumber kEvent{2};
  constexpr EntityNumber kReply{3};
  constexpr uint32_t kAudience = 1;
  constexpr uint32_t kHosts = 2;
  constexpr uint32_t kLeader = 1;
  std::map<EntityNumber, EntityRule> entities;
  EntityRule& event = entities[kEvent];
  event.hosts_write = true;
  event.scope.clauses = {{.kind = ScopeClause::Kind::kGlobal,
                          .when = ScopeClause::Condition{.field = kAudience, .value = "everybody"}},
                         {.kind = ScopeClause::Kind::kChapterKeys, .field = kHosts}};
  EntityRule& reply = entities[kReply];
  reply.hosts_write = true;
  reply.scope.clauses = {{.kind = ScopeClause::Kind::kFollows, .field = kLeader, .leader = kEvent}};
  const RecordKey event_key{kEvent, {}};
  const RecordKey reply_key{kReply, {}};
  Record gala;
  Record answer;
  std::string leader;
  AppendVarint(kLeader * 8 + 2, leader);
  AppendString(event_key.id.ToString(), leader);
  Put(answer, Make(kLeader, 1, kOther, leader));
  bool here = true;
  const auto host = [&](const RecordKey& key, const Record& record) {
    return IsHost(entities, key, record, Scope::Chapter("italy"),
                  [&](const RecordKey&) { return here ? &gala : nullptr; });
  };
  Put(gala, Make(kAudience, 1, kOther, "members"));
  EXPECT_TRUE(host(event_key, gala)) << "it is not for everybody";
  Put(gala, Make(kAudience, 2, kOther, "everybody"));
  EXPECT_FALSE(host(event_key, gala));
  EXPECT_FALSE(host(reply_key, answer));
  here = false;
  EXPECT_TRUE(host(reply_key, answer)) << "what it follows is not here";
  here = true;
  Cell italy = Make(kHosts, 3, kOther, "host");
  italy.path.map_key = "italy";
  Put(gala, italy);
  EXPECT_TRUE(host(event_key, gala));
  EXPECT_TRUE(host(reply_key, answer));
  event.hosts_write = false;
  Put(gala,
      {.path = italy.path, .version = {{4}, kOther}, .actor = "", .value = {}, .learned = {}});
  EXPECT_TRUE(host(event_key, gala)) << "any chapter writes";
}

TEST_F(RightsTest, ARecordThatTheHubHasNotGotIsTaken) {
  mine_ = {};
  update_.state = {};
  Put(update_.state, Make(kName, 11, kOwn, "Anna"));
  EXPECT_EQ(JudgedKind(), Kind::kTake);
}

TEST_F(RightsTest, OneThatNamesNoHostWhereHostsWriteWaits) {
  mine_ = {};
  update_.state = {};
  Put(update_.state, Make(kName, 11, kOwn, "Gala"));
  where_.hostless = true;
  EXPECT_EQ(JudgedKind(), Kind::kWaits);
}

TEST_F(RightsTest, TheSameNewsHasTheSameDigestWhateverTheHubHearsMeanwhile) {
  Put(update_.state, Make(kDegree, 11, kOther, "Dott."));
  const std::string digest = NewsDigest(update_, mine_);
  Put(mine_, Make(4, 12, ReplicaId{0x3333'3333'0000'0001}, "555-0100"));
  EXPECT_EQ(NewsDigest(update_, mine_), digest);
  Put(update_.state, Make(4, 12, ReplicaId{0x3333'3333'0000'0001}, "555-0100"));
  EXPECT_EQ(NewsDigest(update_, mine_), digest);
  Put(update_.state, Make(kDegree, 13, kOther, "Dr."));
  EXPECT_NE(NewsDigest(update_, mine_), digest);
}

}  // namespace
}  // namespace chaptersync::storage
