// SPDX-License-Identifier: Apache-2.0
//
// What two replicas and a session do together, beyond the merge: scopes and
// followers, drops, refusals, clocks, identities, epochs, schemas, bad peers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "node/host/replica_port.h"
#include "node/session/wire.h"
#include "tests/node/host/federation.h"

namespace chaptersync::node {
namespace {

using storage::LocalWrite;
using storage::Scope;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

const storage::RecordKey kNote1 = Key(kNote, 1);
const storage::RecordKey kNote2 = Key(kNote, 2);
const storage::RecordKey kReply1 = Key(kReply, 1);
const storage::RecordKey kReply2 = Key(kReply, 2);

class ExchangeTest : public testing::Test {
 protected:
  Site hq{"hq", true, 1};
  Site italy{"italy", false, 2};
  Site toronto{"toronto", false, 3};
};

TEST_F(ExchangeTest, AnEditReachesWhoHoldsTheRecordAndNobodyElse) {
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}, {kTextField, "ciao"}}).ok());
  ASSERT_TRUE(hq.Put(kNote2, {{kChapterField, "everybody"}, {kTextField, "all"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  ASSERT_TRUE(Sync(toronto, hq).ok());
  EXPECT_EQ(italy.Text(kNote1, kTextField), "ciao");
  EXPECT_EQ(italy.Text(kNote2, kTextField), "all");
  EXPECT_FALSE(toronto.Has(kNote1));
  EXPECT_EQ(toronto.Text(kNote2, kTextField), "all");
}

TEST_F(ExchangeTest, NothingTravelsTwice) {
  for (uint8_t i = 1; i <= 100; ++i) {
    ASSERT_TRUE(hq.Put(Key(kNote, i), {{kChapterField, "italy"}, {kTextField, "t"}}).ok());
  }
  SessionCounts counts;
  ASSERT_TRUE(Sync(italy, hq, &counts).ok());
  EXPECT_EQ(counts.records_received, 100u);
  EXPECT_EQ(counts.records_sent, 0u);
  ASSERT_TRUE(Sync(italy, hq, &counts).ok());
  EXPECT_EQ(counts.records_received, 0u);
  ASSERT_TRUE(italy.Put(kNote1, {{kTextField, "u"}}).ok());
  ASSERT_TRUE(Sync(italy, hq, &counts).ok());
  EXPECT_EQ(counts.records_sent, 1u);
  EXPECT_EQ(counts.records_received, 0u);
  EXPECT_EQ(counts.whole_asked, 0u);
}

TEST_F(ExchangeTest, AFollowerIsWhereItsLeaderIsAndMovesWithIt) {
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "toronto"}, {kTextField, "n"}}).ok());
  ASSERT_TRUE(Sync(toronto, hq).ok());
  ASSERT_TRUE(toronto.Put(kReply1, {{kNoteField, kNote1.id.ToString()}, {kTextField, "r"}}).ok());
  ASSERT_TRUE(Sync(toronto, hq).ok());
  EXPECT_THAT(hq.Scopes(kReply1), UnorderedElementsAre(Scope::Chapter("toronto")));
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}}).ok());
  EXPECT_THAT(hq.Scopes(kReply1), UnorderedElementsAre(Scope::Chapter("italy")));
  ASSERT_TRUE(Sync(italy, hq).ok());
  ASSERT_TRUE(Sync(toronto, hq).ok());
  EXPECT_EQ(italy.Text(kReply1, kTextField), "r");
  EXPECT_FALSE(toronto.Has(kNote1));
  EXPECT_FALSE(toronto.Has(kReply1));
}

TEST_F(ExchangeTest, AFollowerWithoutItsLeaderIsUnplacedUntilTheLeaderComes) {
  ASSERT_TRUE(italy.Put(kReply1, {{kNoteField, kNote1.id.ToString()}, {kTextField, "r"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  EXPECT_EQ(hq.Text(kReply1, kTextField), "r");
  EXPECT_THAT(hq.Scopes(kReply1), IsEmpty());
  EXPECT_TRUE(italy.Has(kReply1)) << "an unplaced record is never answered with Left";
  // The leader turns up outside its pusher's scopes: the pusher lets the follower go.
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "toronto"}}).ok());
  EXPECT_THAT(hq.Scopes(kReply1), UnorderedElementsAre(Scope::Chapter("toronto")));
  ASSERT_TRUE(Sync(italy, hq).ok());
  EXPECT_FALSE(italy.Has(kReply1));
  ASSERT_TRUE(Sync(toronto, hq).ok());
  EXPECT_EQ(toronto.Text(kReply1, kTextField), "r");
}

TEST_F(ExchangeTest, FollowingGoesFourDeepAndACycleIsHq) {
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}}).ok());
  std::string above = kNote1.id.ToString();
  for (uint8_t i = 1; i <= 5; ++i) {
    ASSERT_TRUE(hq.Put(Key(kReply, i), {{i == 1 ? kNoteField : kReplyField, above}}).ok());
    above = Key(kReply, i).id.ToString();
  }
  EXPECT_THAT(hq.Scopes(Key(kReply, 4)), UnorderedElementsAre(Scope::Chapter("italy")));
  EXPECT_THAT(hq.Scopes(Key(kReply, 5)), UnorderedElementsAre(Scope::Hq()));
  const auto a = Key(kReply, 11);
  const auto b = Key(kReply, 12);
  ASSERT_TRUE(hq.Put(a, {{kReplyField, b.id.ToString()}}).ok());
  ASSERT_TRUE(hq.Put(b, {{kReplyField, a.id.ToString()}}).ok());
  EXPECT_THAT(hq.Scopes(a), UnorderedElementsAre(Scope::Hq()));
  EXPECT_THAT(hq.Scopes(b), UnorderedElementsAre(Scope::Hq()));
}

TEST_F(ExchangeTest, AnErasureTakesFollowersAlongAlsoThoseThatArriveLater) {
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}}).ok());
  ASSERT_TRUE(hq.Put(kReply1, {{kNoteField, kNote1.id.ToString()}, {kTextField, "r"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  ASSERT_TRUE(italy.Put(kReply2, {{kNoteField, kNote1.id.ToString()}, {kTextField, "late"}}).ok());
  ASSERT_TRUE(hq.Do(LocalWrite::Kind::kErase, kNote1).ok());
  EXPECT_TRUE(hq.Get(kReply1).erased);
  ASSERT_TRUE(Sync(italy, hq).ok());
  for (const Site* site : {&hq, &italy}) {
    for (const auto& key : {kNote1, kReply1, kReply2}) {
      EXPECT_TRUE(site->Get(key).erased) << key.id.ToString();
      EXPECT_THAT(site->Get(key).cells, IsEmpty());
    }
  }
  EXPECT_FALSE(toronto.Has(kNote1));
}

TEST_F(ExchangeTest, AMoveTakesTheConflictLogAlong) {
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "toronto"}, {kTextField, "0"}}).ok());
  ASSERT_TRUE(Sync(toronto, hq).ok());
  ASSERT_TRUE(hq.Put(kNote1, {{kTextField, "hq"}}).ok());
  toronto.environment.now_ms += 10;
  ASSERT_TRUE(toronto.Put(kNote1, {{kTextField, "toronto"}}).ok());
  ASSERT_TRUE(Sync(toronto, hq).ok());
  ASSERT_EQ(hq.Get(kNote1).conflicts.size(), 1u);
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  ASSERT_TRUE(Sync(toronto, hq).ok());
  EXPECT_EQ(italy.Text(kNote1, kTextField), "toronto");
  EXPECT_EQ(italy.Get(kNote1).conflicts, hq.Get(kNote1).conflicts);
  EXPECT_FALSE(toronto.Has(kNote1));
  EXPECT_EQ(*toronto.replica->CountOpenConflicts(), 0u);
}

TEST_F(ExchangeTest, ADropWaitsForWhatTheNodeHasNotSent) {
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "toronto"}, {kTextField, "0"}}).ok());
  ASSERT_TRUE(Sync(toronto, hq).ok());
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}}).ok());
  ASSERT_TRUE(toronto.Put(kNote1, {{kOtherField, "unsent"}}).ok());
  ASSERT_TRUE(Sync(toronto, hq).ok());
  EXPECT_FALSE(toronto.Has(kNote1));
  EXPECT_EQ(hq.Text(kNote1, kOtherField), "unsent");
  // A write to what was dropped is refused, not lost.
  EXPECT_EQ(toronto.Put(kNote1, {{kOtherField, "x"}}).code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(ExchangeTest, ARefusedWriteLeavesTheRecordAndIsListed) {
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}, {kTextField, "0"}, {kHqField, "hq"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  ASSERT_TRUE(italy.Put(kNote1, {{kHqField, "mine"}, {kTextField, "t"}}).ok());
  ASSERT_TRUE(italy.Put(kNote2, {{kChapterField, "italy"}, {kTextField, "other"}}).ok());
  std::vector<std::string> notes;
  ASSERT_TRUE(Sync(italy, hq, nullptr, &notes).ok());
  EXPECT_EQ(hq.Text(kNote1, kHqField), "hq");
  EXPECT_EQ(hq.Text(kNote2, kTextField), "other") << "the stream goes on";
  EXPECT_EQ(italy.Text(kNote1, kHqField), "hq");
  EXPECT_EQ(italy.Text(kNote1, kTextField), "0");
  auto refused = italy.replica->ListRefused(0, 10);
  ASSERT_TRUE(refused.ok());
  ASSERT_EQ(refused->size(), 1u);
  EXPECT_EQ(refused->front().key, kNote1);
  EXPECT_EQ(refused->front().cells.size(), 2u);
  EXPECT_THAT(refused->front().reason, HasSubstr("headquarters only"));
  EXPECT_EQ(italy.Get(kNote1).seen, hq.Get(kNote1).seen)
      << "a refused write must not advance what the record has seen";
  // Afterwards the record can be edited and synced as before.
  ASSERT_TRUE(italy.Put(kNote1, {{kTextField, "again"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  EXPECT_EQ(hq.Text(kNote1, kTextField), "again");
  EXPECT_THAT(hq.Get(kNote1).conflicts, IsEmpty());
}

TEST_F(ExchangeTest, ARefusalSurvivesACutAtAnyMessage) {
  for (uint64_t cut = 0; cut < 12; ++cut) {
    Site hub{"hq", true, 21};
    Site node{"italy", false, 22};
    ASSERT_TRUE(hub.Put(kNote1, {{kChapterField, "italy"}, {kHqField, "hq"}}).ok());
    ASSERT_TRUE(Sync(node, hub).ok());
    ASSERT_TRUE(node.Put(kNote1, {{kHqField, "mine"}}).ok());
    {
      Loopback loopback(*node.replica, TestConfig(node, true), *hub.replica, TestConfig(hub, false),
                        ScopesOf(node));
      (void)loopback.Run(cut);
    }
    node.engine->Crash();
    node.Open();
    ASSERT_TRUE(Sync(node, hub).ok());
    EXPECT_EQ(node.Text(kNote1, kHqField), "hq") << "cut after " << cut;
    EXPECT_EQ(node.replica->ListRefused(0, 10)->size(), 1u) << "cut after " << cut;
  }
}

TEST_F(ExchangeTest, AClockTwoYearsAheadWinsNothingAndLosesNothing) {
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}, {kTextField, "0"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  constexpr uint64_t kTwoYearsMs = 2ull * 365 * 24 * 3600 * 1000;
  italy.environment.now_ms += kTwoYearsMs;
  ASSERT_TRUE(italy.Put(kNote1, {{kTextField, "1"}}).ok());
  ASSERT_TRUE(italy.Put(kNote1, {{kTextField, "2"}, {kOtherField, "kept"}}).ok());
  ASSERT_TRUE(italy.Put(kNote2, {{kChapterField, "italy"}, {kTextField, "new"}}).ok());
  std::vector<std::string> notes;
  const auto old_id = italy.replica->replica_id();
  ASSERT_TRUE(Sync(italy, hq, nullptr, &notes).ok());
  EXPECT_NE(italy.replica->replica_id(), old_id);
  ASSERT_FALSE(notes.empty());
  EXPECT_THAT(notes.front(), HasSubstr("ahead of the hub's"));
  EXPECT_EQ(hq.Text(kNote1, kTextField), "2");
  EXPECT_EQ(hq.Text(kNote1, kOtherField), "kept");
  EXPECT_EQ(hq.Text(kNote2, kTextField), "new");
  EXPECT_THAT(hq.Get(kNote1).conflicts, IsEmpty());
  EXPECT_LE(hq.Get(kNote1).seen.Highest().wall_ms(), hq.environment.now_ms + 60'000);
  EXPECT_LE(italy.replica->Clock().hybrid.wall_ms(), hq.environment.now_ms + 60'000);
  // A later edit at headquarters stands: nothing wins for ever.
  hq.environment.now_ms += 1000;
  ASSERT_TRUE(hq.Put(kNote1, {{kTextField, "3"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  EXPECT_EQ(italy.Text(kNote1, kTextField), "3");
  EXPECT_THAT(italy.Get(kNote1).conflicts, IsEmpty());
}

TEST_F(ExchangeTest, AHeartbeatFollowsAHubWhoseClockWasSet) {
  ASSERT_TRUE(Sync(italy, hq).ok());
  Loopback loopback(*italy.replica, TestConfig(italy, true), *hq.replica, TestConfig(hq, false),
                    ScopesOf(italy));
  ASSERT_TRUE(loopback.Run().ok());
  hq.environment.now_ms += 20'000;
  loopback.Tick();
  ASSERT_TRUE(loopback.Run().ok());
  EXPECT_NEAR(static_cast<double>(italy.replica->clock_offset_ms()), 20'000.0, 1.0);
}

TEST_F(ExchangeTest, ACopiedFolderWritesUnderANewIdAndLosesNothing) {
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}, {kTextField, "0"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  ASSERT_TRUE(italy.Put(kNote1, {{kTextField, "unsent"}}).ok());
  const auto before = italy.replica->replica_id();
  italy.options.copied = true;
  italy.Open();
  EXPECT_NE(italy.replica->replica_id(), before);
  ASSERT_TRUE(italy.Put(kNote1, {{kOtherField, "copy"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  EXPECT_EQ(hq.Text(kNote1, kTextField), "unsent");
  EXPECT_EQ(hq.Text(kNote1, kOtherField), "copy");
  EXPECT_THAT(hq.Get(kNote1).conflicts, IsEmpty());
}

TEST_F(ExchangeTest, AClonedMachineTakesANewIdOnceTheHubKnowsTheOthersWrites) {
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}, {kTextField, "0"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  Site clone{"italy", false, 2};
  clone.engine = std::make_unique<storage::MemoryEngine>();
  Clone(*italy.engine, *clone.engine);
  clone.Open();
  ASSERT_EQ(clone.replica->replica_id(), italy.replica->replica_id());
  italy.environment.now_ms += 10;
  clone.environment.now_ms += 20;
  ASSERT_TRUE(italy.Put(kNote1, {{kTextField, "original"}}).ok());
  ASSERT_TRUE(clone.Put(kNote1, {{kTextField, "clone"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  std::vector<std::string> notes;
  ASSERT_TRUE(Sync(clone, hq, nullptr, &notes).ok());
  EXPECT_NE(clone.replica->replica_id(), italy.replica->replica_id());
  ASSERT_FALSE(notes.empty());
  EXPECT_THAT(notes.front(), HasSubstr("there is a copy of this computer"));
  EXPECT_EQ(hq.Text(kNote1, kTextField), "clone");
  ASSERT_EQ(hq.Get(kNote1).conflicts.size(), 1u) << "the original's write lost unseen";
}

TEST_F(ExchangeTest, ARolledBackHubIsFoundOutAndHeals) {
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}, {kTextField, "0"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  auto old = std::make_unique<storage::MemoryEngine>();
  Clone(*hq.engine, *old);
  ASSERT_TRUE(italy.Put(kNote1, {{kTextField, "1"}}).ok());
  ASSERT_TRUE(italy.Put(kNote2, {{kChapterField, "italy"}, {kTextField, "new"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  const auto epoch = hq.replica->epoch();
  hq.replica.reset();
  hq.engine = std::move(old);
  hq.Open();
  ASSERT_EQ(hq.replica->epoch(), epoch);
  ASSERT_TRUE(hq.Put(Key(kNote, 9), {{kChapterField, "italy"}, {kTextField, "after"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  EXPECT_NE(hq.replica->epoch(), epoch);
  EXPECT_EQ(hq.Text(kNote1, kTextField), "1");
  EXPECT_EQ(hq.Text(kNote2, kTextField), "new");
  EXPECT_EQ(italy.Text(Key(kNote, 9), kTextField), "after");
  EXPECT_THAT(hq.Get(kNote1).conflicts, IsEmpty());
}

TEST_F(ExchangeTest, AHubThatLostItsDiskGetsEverythingBack) {
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}, {kTextField, "by hq"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  ASSERT_TRUE(italy.Put(kNote1, {{kOtherField, "by italy"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  Site fresh{"hq", true, 9};
  ASSERT_TRUE(Sync(italy, fresh).ok());
  EXPECT_EQ(fresh.Text(kNote1, kTextField), "by hq") << "a node hands back what others wrote";
  EXPECT_EQ(fresh.Text(kNote1, kOtherField), "by italy");
}

TEST_F(ExchangeTest, AnEntityThatTheHubDoesNotKnowWaitsAtTheNode) {
  hq.options.entities.erase(kReply);
  hq.Open();
  ASSERT_TRUE(italy.Put(kNote1, {{kChapterField, "italy"}}).ok());
  ASSERT_TRUE(italy.Put(kReply1, {{kNoteField, kNote1.id.ToString()}, {kTextField, "r"}}).ok());
  ASSERT_TRUE(italy.Put(kNote2, {{kChapterField, "italy"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  EXPECT_TRUE(hq.Has(kNote1));
  EXPECT_TRUE(hq.Has(kNote2));
  EXPECT_FALSE(hq.Has(kReply1));
  EXPECT_TRUE(italy.Has(kReply1));
  hq.options.entities = TestRules();
  hq.Open();
  ASSERT_TRUE(Sync(italy, hq).ok());
  EXPECT_EQ(hq.Text(kReply1, kTextField), "r");
}

TEST_F(ExchangeTest, AnOlderNodeKeepsAndRelaysWhatItDoesNotKnow) {
  italy.options.entities.erase(kReply);
  italy.Open();
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}, {99, "a field of the future"}}).ok());
  ASSERT_TRUE(hq.Put(kReply1, {{kNoteField, kNote1.id.ToString()}, {kTextField, "r"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  EXPECT_EQ(italy.Text(kReply1, kTextField), "r");
  EXPECT_THAT(italy.Scopes(kReply1), UnorderedElementsAre(Scope::Chapter("italy")))
      << "the scopes that the hub names";
  ASSERT_TRUE(italy.Put(kNote1, {{kTextField, "edited"}}).ok());
  Site fresh{"hq", true, 9};
  ASSERT_TRUE(Sync(italy, fresh).ok());
  EXPECT_EQ(fresh.Text(kNote1, 99), "a field of the future");
}

TEST_F(ExchangeTest, ARecordComesBackAfterADrop) {
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}, {kTextField, "0"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "toronto"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  EXPECT_FALSE(italy.Has(kNote1));
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}}).ok());
  SessionCounts counts;
  ASSERT_TRUE(Sync(italy, hq, &counts).ok());
  EXPECT_EQ(italy.Text(kNote1, kTextField), "0");
  EXPECT_EQ(counts.whole_asked, 0u) << "what enters a scope is sent whole";
  ASSERT_TRUE(italy.Put(kNote1, {{kTextField, "1"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  EXPECT_EQ(hq.Text(kNote1, kTextField), "1");
}

TEST_F(ExchangeTest, TwoFindingsAndTwoSettlementsOfOneConflictUnite) {
  Site hq2{"hq2", true, 7};
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}, {kTextField, "0"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  ASSERT_TRUE(Sync(hq2, hq).ok());
  ASSERT_TRUE(hq.Put(kNote1, {{kTextField, "hq"}}).ok());
  italy.environment.now_ms += 10;
  ASSERT_TRUE(italy.Put(kNote1, {{kTextField, "italy"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  ASSERT_TRUE(Sync(hq2, hq).ok());
  LocalWrite settle{.kind = LocalWrite::Kind::kSettle,
                    .key = kNote1,
                    .path = {.field = kTextField, .map_key = {}},
                    .lost = Wire(kTextField, "hq"),
                    .choice = storage::Choice::kKeep};
  ASSERT_TRUE(hq.Write(settle).ok());
  hq2.environment.now_ms += 1000;
  settle.choice = storage::Choice::kTake;
  ASSERT_TRUE(hq2.Write(settle).ok());
  ASSERT_TRUE(Sync(hq2, hq).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  for (const Site* site : {&hq, &hq2, &italy}) {
    ASSERT_EQ(site->Get(kNote1).conflicts.size(), 1u);
    const auto settlements = site->Get(kNote1).conflicts[0].settlements;
    ASSERT_EQ(settlements.size(), 2u) << "both are shown";
    EXPECT_EQ(settlements.back().choice, storage::Choice::kTake) << "the later stands";
    EXPECT_EQ(site->Text(kNote1, kTextField), "hq");
  }
}

// --- Peers that misbehave: the stream ends with a clear status, nothing is kept. ---

class BadPeerTest : public ExchangeTest {
 protected:
  // Feeds the acceptor a handshake and then `message`; the status with which it ends.
  absl::Status Send(v1::SyncMessage message, bool from_hub = false) {
    Session session(TestConfig(hq, false));
    absl::Status ended;
    std::deque<Event> events;
    events.push_back(Opened{});
    v1::SyncMessage hello;
    hello.mutable_hello()->set_version_min(1);
    hello.mutable_hello()->set_version_max(1);
    hello.mutable_hello()->set_replica(77);
    hello.mutable_hello()->set_epoch(1);
    hello.mutable_hello()->set_node(std::string(16, 'x'));
    hello.mutable_hello()->set_hub(from_hub);
    events.push_back(MessageIn{hello});
    bool sent = false;
    while (!events.empty()) {
      auto effects = session.Handle(std::move(events.front()), 1);
      events.pop_front();
      for (const Effect& effect : effects) {
        if (std::holds_alternative<Authorize>(effect)) {
          events.push_back(Authorized{absl::OkStatus(), {Scope::Global(), Scope::Chapter("x")}});
        } else if (const auto* end = std::get_if<EndSession>(&effect)) {
          ended = end->status;
        } else if (auto event = Perform(*hq.replica, effect)) {
          events.push_back(*std::move(event));
        }
      }
      if (session.ready() && !sent) {
        sent = true;
        events.push_back(MessageIn{message});
      }
    }
    return ended;
  }
};

TEST_F(BadPeerTest, AHelloOfAnotherVersionNamesBoth) {
  Session session(TestConfig(hq, false));
  v1::SyncMessage hello;
  hello.mutable_hello()->set_version_min(7);
  hello.mutable_hello()->set_version_max(9);
  const auto effects = session.Handle(MessageIn{hello}, 1);
  ASSERT_EQ(effects.size(), 1u);
  const absl::Status status = std::get<EndSession>(effects[0]).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("versions 7 to 9, this program 1 to 1"));
}

TEST_F(BadPeerTest, AHelloNamesAtMostSoManyEpochsThatAreOver) {
  Session session(TestConfig(hq, false));
  v1::SyncMessage hello;
  hello.mutable_hello()->set_version_min(1);
  hello.mutable_hello()->set_version_max(1);
  for (uint64_t i = 0; i < kPastEpochsMax + 1; ++i) hello.mutable_hello()->add_past_epochs(i + 1);
  const auto effects = session.Handle(MessageIn{hello}, 1);
  ASSERT_EQ(effects.size(), 1u);
  const absl::Status status = std::get<EndSession>(effects[0]).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("1025 epochs that are over is over the"));
}

TEST_F(BadPeerTest, AHelloNamesAtMostSoManyFormerIds) {
  Session session(TestConfig(hq, false));
  v1::SyncMessage hello;
  hello.mutable_hello()->set_version_min(1);
  hello.mutable_hello()->set_version_max(1);
  for (uint64_t i = 0; i < storage::kFormerIdsTold + 1; ++i)
    hello.mutable_hello()->add_former(i + 1);
  const auto effects = session.Handle(MessageIn{hello}, 1);
  ASSERT_EQ(effects.size(), 1u);
  const absl::Status status = std::get<EndSession>(effects[0]).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("65 former replica ids is over the limit"));
}

TEST_F(BadPeerTest, OnlyAHubTellsOfHubsAndOfSoManyAtMost) {
  const auto pulse = [](size_t hubs, size_t over, size_t node_bytes) {
    v1::SyncMessage message;
    for (size_t i = 0; i < hubs; ++i) {
      v1::HubEpoch& hub = *message.mutable_pulse()->add_hubs();
      hub.set_node(std::string(node_bytes, static_cast<char>('a' + i % 26)));
      hub.set_epoch(i + 1);
      for (size_t j = 0; j < over; ++j) hub.add_over(100 + j);
    }
    return message;
  };
  const auto text = [](const absl::Status& status) { return std::string(status.message()); };
  EXPECT_THAT(text(Send(pulse(65, 0, 16), true)), HasSubstr("65 hubs is over the limit of 64"));
  EXPECT_THAT(text(Send(pulse(1, 17, 16), true)), HasSubstr("17 epochs of one hub is over the"));
  EXPECT_FALSE(Send(pulse(1, 0, 5), true).ok());
  v1::SyncMessage reached;
  for (uint64_t i = 0; i < 65; ++i) {
    v1::Cursor& cursor = *reached.mutable_pulse()->add_reached();
    cursor.set_replica(i + 1);
    cursor.set_epoch(7);
    cursor.set_sequence(1);
  }
  EXPECT_THAT(text(Send(reached, true)), HasSubstr("65 positions in hubs' feeds is over the"));
  v1::SyncMessage one;
  *one.mutable_pulse()->add_reached() = reached.pulse().reached(0);
  reached.mutable_pulse()->mutable_reached()->DeleteSubrange(0, 1);
  EXPECT_TRUE(Send(reached, true).ok());
  EXPECT_TRUE(Send(reached, true).ok()) << "each is kept once";
  EXPECT_EQ(hq.replica->TellOfHubs(0).reached.size(), 64u);
  EXPECT_TRUE(Send(one, true).ok());
  const storage::HubsTold more = hq.replica->TellOfHubs(hq.replica->TellOfHubs(0).through);
  ASSERT_EQ(more.reached.size(), 1u);
  EXPECT_EQ(more.reached[0].replica.value, 1u);
  EXPECT_TRUE(hq.replica->TellOfHubs(more.through).reached.empty());
  EXPECT_TRUE(hq.replica->TellOfHubs(UINT64_MAX).reached.empty());
  for (uint64_t round = 2; round < 20; ++round) {
    for (v1::Cursor& cursor : *reached.mutable_pulse()->mutable_reached()) {
      cursor.set_sequence(round);
    }
    EXPECT_TRUE(Send(reached, true).ok());
  }
  EXPECT_EQ(hq.replica->TellOfHubs(0).reached[0].sequence.value, 4u) << "the last 1,024";
  EXPECT_EQ(hq.replica->TellOfHubs(0).through, 65u + 18 * 64 - 1024 + 64);
  EXPECT_TRUE(Send(pulse(3, 16, 16), true).ok());
  EXPECT_EQ(hq.replica->TellOfHubs(0).hubs.size(), 4u) << "three, and who told of them";
  EXPECT_TRUE(Send(pulse(65, 17, 5)).ok()) << "what a node says of hubs is not looked at";
  EXPECT_EQ(hq.replica->TellOfHubs(0).hubs.size(), 4u);
}

TEST_F(BadPeerTest, ChangesOutOfOrderEndTheStream) {
  v1::SyncMessage message;
  message.mutable_changes()->set_scope("*");
  message.mutable_changes()->set_previous(5);
  message.mutable_changes()->set_last(6);
  const absl::Status status = Send(message);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("begin after 5"));
}

TEST_F(BadPeerTest, AScopeThatWasNotAgreedOnEndsTheStream) {
  v1::SyncMessage message;
  message.mutable_changes()->set_scope("hq");
  EXPECT_EQ(Send(message).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(BadPeerTest, APayloadThatLiesAboutItsSizeEndsTheStream) {
  v1::SyncMessage message;
  message.mutable_changes()->set_scope("*");
  message.mutable_changes()->set_last(1);
  message.mutable_changes()->set_compression(v1::COMPRESSION_ZSTD);
  message.mutable_changes()->set_payload_bytes(0xffffffff);
  EXPECT_THAT(std::string(Send(message).message()), HasSubstr("over the limit"));
  message.mutable_changes()->set_payload_bytes(100);
  message.mutable_changes()->set_payload("garbage");
  EXPECT_THAT(std::string(Send(message).message()), HasSubstr("cannot be read"));
}

TEST_F(BadPeerTest, StoredBeyondWhatWasSentEndsTheStream) {
  v1::SyncMessage message;
  message.mutable_stored()->set_scope("global");
  message.mutable_stored()->set_through(1000);
  EXPECT_THAT(std::string(Send(message).message()), HasSubstr("was sent"));
}

TEST_F(BadPeerTest, OneBadRecordIsRefusedByItself) {
  storage::FeedItem good;
  good.sequence = {1};
  good.key = kNote1;
  storage::RecordUpdate update;
  const storage::Version version{storage::HybridTime::FromWall(1'700'000'000'000), {77}};
  update.state.cells.push_back(
      {{.field = kChapterField, .map_key = {}}, version, "a", Wire(kChapterField, "x"), {}});
  update.state.seen.Advance(version);
  good.update = storage::EncodeUpdate(update);
  storage::FeedItem bad = good;
  bad.sequence = {2};
  bad.key = kNote2;
  bad.update = "\xff\xff\xff";
  v1::SyncMessage message;
  message.mutable_changes()->set_scope("*");
  message.mutable_changes()->set_last(2);
  PackRecords({&good, &bad}, *message.mutable_changes());
  EXPECT_TRUE(Send(message).ok());
  EXPECT_TRUE(hq.Has(kNote1));
  EXPECT_FALSE(hq.Has(kNote2));
}

}  // namespace
}  // namespace chaptersync::node
