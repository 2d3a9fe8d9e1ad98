// SPDX-License-Identifier: Apache-2.0
//
// Defects that were found in the exchange between replicas, each with a history
// that failed because of it. The first line of each test states the defect.
#include <deque>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "node/host/replica_port.h"
#include "node/session/wire.h"
#include "tests/node/host/federation.h"

namespace chaptersync::node {
namespace {

using storage::ApplyRequest;
using storage::Epoch;
using storage::FeedCursor;
using storage::FeedItem;
using storage::LocalWrite;
using storage::PeerIdentity;
using storage::RecordKey;
using storage::RecordUpdate;
using storage::Scope;
using storage::Sequence;
using storage::Version;

const RecordKey kNote1 = Key(kNote, 1);
const RecordKey kNote2 = Key(kNote, 2);
const RecordKey kNote3 = Key(kNote, 3);
const RecordKey kReply1 = Key(kReply, 1);

class RegressionTest : public testing::Test {
 protected:
  Site hq{"hq", true, 1};
  Site italy{"italy", false, 2};
  Site toronto{"toronto", false, 3};

  // A write of Italy's to kNote1, which has moved on: it is listed, and the record is dropped.
  void RefuseOneThatIsDropped() {
    ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}}).ok());
    ASSERT_TRUE(Sync(italy, hq).ok());
    ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "toronto"}}).ok());
    ASSERT_TRUE(italy.Put(kNote1, {{kHqField, "x"}, {kTextField, "personal"}}).ok());
    ASSERT_TRUE(Sync(italy, hq).ok());
    ASSERT_FALSE(italy.Has(kNote1));
    ASSERT_EQ(italy.replica->ListRefused(0, 10)->size(), 1u);
  }
};

PeerIdentity Peer(const Site& site) {
  PeerIdentity peer;
  peer.node = site.options.node;
  peer.replica = site.replica->replica_id();
  peer.epoch = site.replica->epoch();
  peer.hub = site.options.hub;
  peer.scopes = ScopesOf(site);
  for (const auto& [entity, rule] : site.options.entities) {
    peer.entities[entity] = rule.fingerprint;
  }
  return peer;
}

std::vector<Version> Versions(const storage::Record& record) {
  std::vector<Version> versions;
  for (const storage::Cell& cell : record.cells) versions.push_back(cell.version);
  return versions;
}

// A backup is put back, and the site knows it.
void Restore(Site& site, std::unique_ptr<storage::MemoryEngine> backup) {
  site.replica.reset();
  site.engine = std::move(backup);
  site.options.copied = true;
  site.Open();
  site.options.copied = false;
}

// Syncs until a heartbeat has told the node what the hub takes now.
void SyncAndPulse(Site& node, Site& hub) {
  for (int attempt = 0; attempt < 3; ++attempt) {
    Loopback loopback(*node.replica, TestConfig(node, true), *hub.replica, TestConfig(hub, false),
                      ScopesOf(node));
    loopback.Run().IgnoreError();  // what cannot be sent yet is not quiet
    for (Site* site : {&node, &hub}) site->environment.now_ms += 11'000;
    loopback.Tick();
    if (loopback.Run().ok()) {
      ASSERT_TRUE(Sync(node, hub).ok());
      return;
    }
    ASSERT_TRUE(loopback.restart());
  }
  FAIL() << "the session began again three times";
}

// The hub's feed of the chapter reaches the node before the node's reaches the hub:
// both directions run at once.
void Pull(Site& node, Site& hub) {
  const Scope scope = Scope::Chapter(node.options.chapter);
  const FeedCursor cursor = node.replica->CursorIn(hub.replica->replica_id(), true, scope);
  const auto page = hub.replica->ReadFeed({.peer = Peer(node),
                                           .scope = scope,
                                           .after = cursor.sequence,
                                           .since = cursor.sequence,
                                           .bytes_max = 1 << 20,
                                           .records_max = 1000});
  ASSERT_TRUE(page.ok());
  ApplyRequest left{.peer = Peer(hub)};
  ApplyRequest changes{.peer = Peer(hub)};
  for (const FeedItem& item : page->items) {
    if (item.kind == FeedItem::Kind::kLeft) {
      left.left.push_back({item.key, item.seen});
    } else {
      changes.records.push_back({item.sequence, item.key, item.update});
    }
  }
  changes.cursors.push_back(
      FeedCursor{hub.replica->replica_id(), hub.replica->epoch(), scope, page->last, page->mark});
  if (!left.left.empty()) {
    ASSERT_TRUE(node.replica->Apply(left).ok());
  }
  ASSERT_TRUE(node.replica->Apply(changes).ok());
}

TEST_F(RegressionTest, AMergeOverTheLimitsCanStillBeRead) {
  // A merge above the limits was stored and could never be read again.
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  for (Site* site : {&italy, &hq}) {
    LocalWrite write{.kind = LocalWrite::Kind::kUpsert, .key = kNote1};
    for (int i = 0; i < 3000; ++i) {
      const std::string map_key = (site == &hq ? "h" : "i") + std::to_string(i);
      write.cells.push_back({{.field = 9, .map_key = map_key}, "x"});
    }
    ASSERT_TRUE(site->Write(write).ok());
  }
  EXPECT_EQ(Sync(italy, hq), absl::OkStatus());
  EXPECT_EQ(Sync(italy, hq), absl::OkStatus());
  EXPECT_EQ(hq.replica->Read(kNote1).status(), absl::OkStatus());
  EXPECT_EQ(hq.replica->List(kNote, {}, 10).status(), absl::OkStatus());
}

TEST_F(RegressionTest, ARefusedWriteOfALeavingRecordIsListed) {
  // A refused write vanished where its record was leaving.
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "toronto"}}).ok());
  ASSERT_TRUE(italy.Put(kNote1, {{kHqField, "x"}, {kTextField, "precious"}}).ok());
  Pull(italy, hq);
  EXPECT_TRUE(italy.Has(kNote1));
  EXPECT_EQ(Sync(italy, hq), absl::OkStatus());
  EXPECT_FALSE(italy.Has(kNote1));
  EXPECT_EQ(hq.Text(kNote1, kTextField), "(none)");
  EXPECT_EQ(italy.replica->ListRefused(0, 10)->size(), 1u);
}

TEST_F(RegressionTest, AResetKeepsOwnValuesOfTheConflictLog) {
  // A refusal lost the node's own value that was only in its conflict log.
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}, {kTextField, "a"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  ASSERT_TRUE(italy.Put(kNote1, {{kTextField, "mine"}}).ok());
  hq.environment.now_ms += 1000;
  ASSERT_TRUE(hq.Put(kNote1, {{kTextField, "theirs"}}).ok());
  Pull(italy, hq);
  EXPECT_EQ(italy.Get(kNote1).conflicts.size(), 1u);
  ASSERT_TRUE(italy.Put(kNote1, {{kHqField, "x"}}).ok());
  EXPECT_EQ(Sync(italy, hq), absl::OkStatus());
  EXPECT_EQ(Sync(italy, hq), absl::OkStatus());
  const size_t logged = italy.Get(kNote1).conflicts.size() + hq.Get(kNote1).conflicts.size();
  bool listed = false;
  const auto refused = italy.replica->ListRefused(0, 10);
  ASSERT_TRUE(refused.ok());
  for (const auto& write : *refused) {
    for (const auto& cell : write.cells) listed |= cell.value == Wire(kTextField, "mine");
  }
  EXPECT_TRUE(logged > 0 || listed) << "value 'mine' is nowhere";
}

TEST_F(RegressionTest, AFollowerComesBackToWhoMadeIt) {
  // A follower was never sent back to the node that had made it.
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  ASSERT_TRUE(italy.Put(kReply1, {{kNoteField, kNote1.id.ToString()}, {kTextField, "r"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "toronto"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  EXPECT_FALSE(italy.Has(kReply1));
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}}).ok());
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(Sync(italy, hq).ok());
  EXPECT_TRUE(italy.Has(kNote1));
  EXPECT_TRUE(italy.Has(kReply1)) << "follower never comes back";
}

TEST_F(RegressionTest, WhatWasHeldBackIsSentAfterACut) {
  // Records held back were never sent where the stream was cut at the handshake.
  hq.options.entities.erase(kReply);
  hq.Open();
  ASSERT_TRUE(italy.Put(kNote1, {{kChapterField, "italy"}}).ok());
  ASSERT_TRUE(italy.Put(kReply1, {{kNoteField, kNote1.id.ToString()}}).ok());
  ASSERT_TRUE(italy.Put(Key(kNote, 2), {{kChapterField, "italy"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  EXPECT_FALSE(hq.Has(kReply1));
  hq.options.entities = TestRules();
  hq.Open();
  {
    Loopback cut(*italy.replica, TestConfig(italy, true), *hq.replica, TestConfig(hq, false),
                 ScopesOf(italy));
    EXPECT_TRUE(absl::IsOutOfRange(cut.Run(2)));
  }
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Sync(italy, hq), absl::OkStatus());
  EXPECT_TRUE(hq.Has(kReply1)) << "held-back record never sent";
}

TEST_F(RegressionTest, AheadStampsUnderAnEarlierIdAreStampedAgain) {
  // Stamps ahead under an earlier own id stopped every sync.
  ASSERT_TRUE(Sync(italy, hq).ok());
  italy.replica->AdjustClock(0).IgnoreError();
  italy.environment.now_ms += 365ull * 86400000;
  ASSERT_TRUE(italy.Put(kNote1, {{kChapterField, "italy"}}).ok());
  italy.options.copied = true;
  italy.environment.now_ms = hq.environment.now_ms;
  italy.Open();
  italy.options.copied = false;
  for (int i = 0; i < 5; ++i) EXPECT_EQ(Sync(italy, hq), absl::OkStatus());
  EXPECT_TRUE(hq.Has(kNote1));
}

TEST_F(RegressionTest, NodeAndHubAgreeOnWhatIsAhead) {
  // The node's limit was above the hub's, so the hub ended every session.
  toronto.environment.now_ms += 50000;
  ASSERT_TRUE(toronto.Put(Key(kNote, 2), {{kChapterField, "toronto"}}).ok());
  EXPECT_EQ(Sync(toronto, hq), absl::OkStatus());
  italy.environment.now_ms += 100000;
  ASSERT_TRUE(italy.Put(kNote1, {{kChapterField, "italy"}}).ok());
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Sync(italy, hq), absl::OkStatus());
}

TEST(LeftRegressionTest, AnAnsweredLeftKeepsTheEpoch) {
  // The hub told more than it had made durable, and took that for a rollback.
  for (uint64_t messages = 1; messages < 14; ++messages) {
    Site hq{"hq", true, 1};
    Site italy{"italy", false, 2};
    ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}}).ok());
    ASSERT_TRUE(Sync(italy, hq).ok());
    ASSERT_TRUE(italy.Put(kNote1, {{kHqField, "x"}}).ok());
    {
      Loopback cut(*italy.replica, TestConfig(italy, true), *hq.replica, TestConfig(hq, false),
                   ScopesOf(italy));
      cut.Run(messages).IgnoreError();  // however far it came
    }
    ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "toronto"}}).ok());
    italy.Put(kNote1, {{kTextField, "later"}}).IgnoreError();  // it may have left already
    const Epoch before = hq.replica->epoch();
    EXPECT_EQ(Sync(italy, hq), absl::OkStatus()) << "cut after " << messages;
    EXPECT_EQ(Sync(italy, hq), absl::OkStatus()) << "cut after " << messages;
    EXPECT_EQ(hq.replica->epoch(), before) << "cut after " << messages;
  }
}

TEST_F(RegressionTest, AnOpenSessionAcknowledgesUnderItsOwnId) {
  // An acknowledgement under the earlier id was noted under the new one.
  Site hq2{"hq", true, 9};
  ASSERT_TRUE(italy.Put(kNote1, {{kChapterField, "italy"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());  // session with hq stays open
  italy.replica->AdjustClock(0).IgnoreError();
  italy.environment.now_ms += 86400000;
  ASSERT_TRUE(italy.Put(kNote1, {{kTextField, "x"}}).ok());
  const auto old_id = italy.replica->replica_id();
  ASSERT_TRUE(Sync(italy, hq2).ok());
  ASSERT_NE(old_id, italy.replica->replica_id());
  // The open session with hq, under the old id, has stored the next page and says so.
  const PeerIdentity hub = Peer(hq);
  const Sequence through = italy.replica->AcknowledgedBy(hub.replica);
  ASSERT_TRUE(
      italy.replica->Acknowledge({.peer = hub, .through = through, .told_as = old_id}).ok());
  bool noted = false;
  const auto hello = italy.replica->SayHello(0);
  ASSERT_TRUE(hello.ok());
  for (const storage::Acknowledgement& known : hello->acknowledged) {
    noted |= known.hub == hub.replica && known.through == through && known.as == old_id;
  }
  EXPECT_TRUE(noted);
  const Epoch before = hq.replica->epoch();
  EXPECT_EQ(Sync(italy, hq), absl::OkStatus());
  EXPECT_EQ(hq.replica->epoch(), before);
}

TEST_F(RegressionTest, AChangeOfIdentityThatIsNotOnDiskIsNone) {
  // After a failed write at the handshake the node wrote under an id that it forgot.
  ASSERT_TRUE(Sync(italy, hq).ok());
  const auto id = italy.replica->replica_id();
  italy.environment.now_ms += 365ull * 86400000;
  ASSERT_TRUE(italy.Put(kNote1, {{kChapterField, "italy"}, {kTextField, "a"}}).ok());
  italy.environment.now_ms = hq.environment.now_ms;
  italy.engine->FailNextWrites(1, absl::ResourceExhaustedError("the disk is full"));
  EXPECT_EQ(Sync(italy, hq).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(italy.replica->replica_id(), id);
  ASSERT_TRUE(italy.Put(kNote1, {{kTextField, "b"}}).ok());
  italy.engine->Crash();
  italy.Open();
  EXPECT_EQ(Sync(italy, hq), absl::OkStatus());
  EXPECT_NE(italy.replica->replica_id(), id);
  EXPECT_EQ(hq.Text(kNote1, kTextField), "b");
}

TEST_F(RegressionTest, AnErasureEmptiesTheListOfRefusedWrites) {
  // Erased values stayed in the list of refused writes.
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  ASSERT_TRUE(italy.Put(kNote1, {{kHqField, "secret"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  ASSERT_TRUE(hq.Do(LocalWrite::Kind::kErase, kNote1).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  EXPECT_TRUE(italy.Get(kNote1).erased);
  EXPECT_EQ(italy.replica->ListRefused(0, 9)->size(), 0u);
}

TEST_F(RegressionTest, AMergeOverTheSizeIsRefused) {
  // A merge of over 1 MiB never reached a new holder, silently.
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  ASSERT_TRUE(italy.Put(kNote1, {{kTextField, std::string(600000, 'a')}}).ok());
  ASSERT_TRUE(hq.Put(kNote1, {{kOtherField, std::string(600000, 'b')}}).ok());
  Site rome{"italy", false, 7};
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(Sync(italy, hq), absl::OkStatus());
    EXPECT_EQ(Sync(rome, hq), absl::OkStatus());
  }
  EXPECT_TRUE(rome.Has(kNote1));
  EXPECT_EQ(italy.Text(kNote1, kOtherField).size(), 600000u);
}

TEST_F(RegressionTest, ARecordMayLeaveAnyNumberOfScopes) {
  // A record that had left 4,096 scopes could never be read again.
  for (uint64_t i = 0; i < 4200; ++i) {
    RecordUpdate update;
    const Version version{{(i + 1) << 16}, italy.replica->replica_id()};
    update.state.seen.Advance(version);
    update.state.Put(
        {{.field = kChapterField}, version, "a", Wire(kChapterField, "c" + std::to_string(i)), {}});
    const auto applied = hq.replica->Apply(
        {.peer = Peer(italy), .records = {{{i + 1}, kNote1, EncodeUpdate(update)}}});
    ASSERT_TRUE(applied.ok()) << applied.status();
  }
  EXPECT_EQ(hq.replica->List(kNote, {}, 1).status(), absl::OkStatus());
}

TEST_F(RegressionTest, ARolledBackNodeSendsWhatItWritesNext) {
  // After a rollback of its machine what a node wrote next was never sent.
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}, {kTextField, "0"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  ASSERT_TRUE(hq.Put(kNote1, {{kTextField, "hq"}}).ok());
  italy.environment.now_ms += 10;
  ASSERT_TRUE(italy.Put(kNote1, {{kTextField, "italy"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  ASSERT_EQ(italy.Get(kNote1).conflicts.size(), 1u);
  auto old = std::make_unique<storage::MemoryEngine>();
  Clone(*italy.engine, *old);
  ASSERT_TRUE(italy
                  .Write({.kind = LocalWrite::Kind::kSettle,
                          .key = kNote1,
                          .path = {.field = kTextField, .map_key = {}},
                          .lost = Wire(kTextField, "hq"),
                          .choice = storage::Choice::kKeep})
                  .ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  italy.replica.reset();
  italy.engine = std::move(old);
  italy.Open();
  italy.environment.now_ms += 60'000;
  hq.environment.now_ms += 60'000;
  ASSERT_TRUE(italy.Put(kNote2, {{kChapterField, "italy"}, {kTextField, "precious"}}).ok());
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(Sync(italy, hq).ok());
  EXPECT_EQ(hq.Text(kNote2, kTextField), "precious");
}

TEST_F(RegressionTest, ARolledBackHubThatJoinsAnotherIsFoundOut) {
  // So it was with a hub that joins another.
  Site hq2{"hq2", true, 9};
  ASSERT_TRUE(hq2.Put(kNote1, {{kChapterField, "italy"}, {kTextField, "0"}}).ok());
  ASSERT_TRUE(Sync(hq2, hq).ok());
  auto old = std::make_unique<storage::MemoryEngine>();
  Clone(*hq2.engine, *old);
  ASSERT_TRUE(hq2.Put(kNote1, {{kTextField, "1"}}).ok());
  ASSERT_TRUE(hq2.Put(kNote1, {{kTextField, "2"}}).ok());
  ASSERT_TRUE(Sync(hq2, hq).ok());
  hq2.replica.reset();
  hq2.engine = std::move(old);
  hq2.Open();
  ASSERT_TRUE(hq2.Put(kNote2, {{kChapterField, "italy"}, {kTextField, "precious"}}).ok());
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(Sync(hq2, hq).ok());
  EXPECT_EQ(hq.Text(kNote2, kTextField), "precious");
  EXPECT_EQ(hq2.Text(kNote1, kTextField), "2");
}

TEST_F(RegressionTest, AHubWritesUnderAnotherIdEachTimeItIsOpened) {
  // A hub that had gone back hid what it had lost by what it wrote before it was told.
  const auto first = hq.replica->writer_id();
  EXPECT_NE(first, hq.replica->replica_id());
  EXPECT_TRUE(SameLineage(first, hq.replica->replica_id()));
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}, {kTextField, "0"}}).ok());
  EXPECT_EQ(hq.Get(kNote1).cells.front().version.replica, first);
  ASSERT_TRUE(Sync(italy, hq).ok());
  auto old = std::make_unique<storage::MemoryEngine>();
  Clone(*hq.engine, *old);
  ASSERT_TRUE(hq.Put(kNote1, {{kTextField, "lost here"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  hq.replica.reset();
  hq.engine = std::move(old);
  hq.Open();
  EXPECT_NE(hq.replica->writer_id(), first);
  // Toronto hears of it before anybody who knows better is there.
  hq.environment.now_ms += 1000;
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "toronto"}}).ok());
  ASSERT_TRUE(Sync(toronto, hq).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  ASSERT_TRUE(Sync(toronto, hq).ok());
  EXPECT_EQ(hq.Text(kNote1, kTextField), "lost here");
  EXPECT_EQ(toronto.Text(kNote1, kTextField), "lost here");
  EXPECT_EQ(italy.replica->writer_id(), italy.replica->replica_id());
}

TEST_F(RegressionTest, AHubInAnEpochThatIsOverIsToldSo) {
  // A node's cursor in an old epoch fitted where that epoch's feed had ended.
  ASSERT_TRUE(hq.Put(kNote1, {{kTextField, "0"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  const Epoch first = hq.replica->epoch();
  auto old = std::make_unique<storage::MemoryEngine>();
  Clone(*hq.engine, *old);
  hq.options.copied = true;  // restored, and knows it
  hq.Open();
  hq.options.copied = false;
  const Epoch second = hq.replica->epoch();
  ASSERT_NE(second, first);
  ASSERT_TRUE(Sync(italy, hq).ok());
  hq.replica.reset();
  hq.engine = std::move(old);
  hq.Open();
  ASSERT_EQ(hq.replica->epoch(), first);
  ASSERT_TRUE(Sync(italy, hq).ok());
  EXPECT_NE(hq.replica->epoch(), first);
  EXPECT_NE(hq.replica->epoch(), second);
}

TEST_F(RegressionTest, AHubTellsInWhichEpochAnotherIs) {
  // What a node had dropped for one hub it never took back from another.
  Site hq2{"hq2", true, 9};
  ASSERT_TRUE(Sync(hq2, hq).ok());
  ASSERT_TRUE(hq2.Put(kNote1, {{kChapterField, "italy"}, {kTextField, "0"}}).ok());
  ASSERT_TRUE(Sync(hq2, hq).ok());
  ASSERT_TRUE(Sync(italy, hq2).ok());
  auto old = std::make_unique<storage::MemoryEngine>();
  Clone(*hq2.engine, *old);
  ASSERT_TRUE(hq2.Put(kNote1, {{kChapterField, "toronto"}}).ok());
  ASSERT_TRUE(Sync(italy, hq2).ok());
  ASSERT_FALSE(italy.Has(kNote1));
  const Epoch before = hq2.replica->epoch();
  hq2.replica.reset();
  hq2.engine = std::move(old);
  hq2.options.copied = true;
  hq2.Open();
  ASSERT_TRUE(Sync(italy, hq).ok());
  EXPECT_FALSE(italy.Has(kNote1)) << "hq may only be behind";
  const storage::KnownHub known{hq2.options.node, hq2.replica->epoch(), 0, {before}};
  ASSERT_EQ(hq.replica->TellOfHubs(0).hubs.size(), 1u);
  EXPECT_EQ(hq.replica->TellOfHubs(0).hubs.front().epoch, before);
  ASSERT_TRUE(Sync(hq2, hq).ok());
  EXPECT_EQ(hq.replica->TellOfHubs(0).hubs.front().epoch, known.epoch);
  EXPECT_EQ(hq.replica->TellOfHubs(0).hubs.front().over, known.over);

  Loopback loopback(*italy.replica, TestConfig(italy, true), *hq.replica, TestConfig(hq, false),
                    ScopesOf(italy));
  ASSERT_TRUE(loopback.Run().ok());
  for (Site* site : {&italy, &hq}) site->environment.now_ms += 11'000;
  loopback.Tick();
  EXPECT_TRUE(absl::IsAborted(loopback.Run()));
  EXPECT_TRUE(loopback.restart());
  const auto id = italy.replica->replica_id();
  ASSERT_TRUE(Sync(italy, hq).ok());
  EXPECT_EQ(italy.Text(kNote1, kTextField), "0");
  EXPECT_NE(italy.replica->replica_id(), id);
  // Once is enough.
  const auto again = italy.replica->HearOfHubs(Peer(hq), {{known}, {}});
  ASSERT_TRUE(again.ok());
  EXPECT_FALSE(again->dropped);
}

TEST_F(RegressionTest, AHubIsToldByAnotherHowFarSomebodyHasComeInItsFeed) {
  // Who remembers more of it comes only to the other hub.
  Site hq2{"hq2", true, 9};
  ASSERT_TRUE(hq2.Put(kNote1, {{kChapterField, "italy"}}).ok());
  ASSERT_TRUE(Sync(hq2, hq).ok());
  const Epoch first = hq2.replica->epoch();
  const auto meet = [&](bool went_back) {
    Loopback loopback(*hq2.replica, TestConfig(hq2, true), *hq.replica, TestConfig(hq, false), {});
    EXPECT_TRUE(loopback.Run().ok());
    for (Site* site : {&hq2, &hq}) site->environment.now_ms += 11'000;
    loopback.Tick();
    EXPECT_EQ(absl::IsAborted(loopback.Run()), went_back);
    EXPECT_EQ(loopback.restart(), went_back);
  };
  ASSERT_TRUE(Sync(italy, hq2).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  meet(false);
  EXPECT_EQ(hq2.replica->epoch(), first) << "it remembers all that others have seen";
  auto old = std::make_unique<storage::MemoryEngine>();
  Clone(*hq2.engine, *old);
  ASSERT_TRUE(hq2.Put(kNote1, {{kTextField, "lost there"}}).ok());
  ASSERT_TRUE(Sync(italy, hq2).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  hq2.replica.reset();
  hq2.engine = std::move(old);
  hq2.Open();
  ASSERT_EQ(hq2.replica->epoch(), first);
  meet(true);
  EXPECT_NE(hq2.replica->epoch(), first);
  const Epoch second = hq2.replica->epoch();
  meet(false);
  EXPECT_EQ(hq2.replica->epoch(), second);
}

TEST_F(RegressionTest, AHubThatDialsInAnEpochThatIsOverIsToldSo) {
  Site hq2{"hq2", true, 9};
  ASSERT_TRUE(Sync(hq2, hq).ok());
  const Epoch first = hq2.replica->epoch();
  auto old = std::make_unique<storage::MemoryEngine>();
  Clone(*hq2.engine, *old);
  hq2.options.copied = true;  // restored, and knows it
  hq2.Open();
  hq2.options.copied = false;
  ASSERT_TRUE(Sync(hq2, hq).ok());
  const Epoch second = hq2.replica->epoch();
  hq2.replica.reset();
  hq2.engine = std::move(old);
  hq2.Open();
  ASSERT_EQ(hq2.replica->epoch(), first);
  const Epoch hqs = hq.replica->epoch();
  ASSERT_TRUE(Sync(hq2, hq).ok());
  EXPECT_NE(hq2.replica->epoch(), first);
  EXPECT_NE(hq2.replica->epoch(), second);
  EXPECT_EQ(hq.replica->epoch(), hqs);
  ASSERT_EQ(hq.replica->TellOfHubs(0).hubs.size(), 1u);
  EXPECT_EQ(hq.replica->TellOfHubs(0).hubs.front().over, std::vector({first, second}));
}

TEST_F(RegressionTest, TwoHubsThatBothWentBackBothHearOfIt) {
  Site hq2{"hq2", true, 9};
  ASSERT_TRUE(Sync(hq2, hq).ok());
  const Epoch first = hq2.replica->epoch();
  const Epoch hqs = hq.replica->epoch();
  auto old = std::make_unique<storage::MemoryEngine>();
  Clone(*hq2.engine, *old);
  hq2.options.copied = true;
  hq2.Open();
  hq2.options.copied = false;
  ASSERT_TRUE(Sync(hq2, hq).ok());
  hq2.engine = std::move(old);
  hq2.Open();
  storage::HelloFacts hello = *hq2.replica->SayHello(1);
  hello.past_epochs = {hqs};
  const auto accepted = hq.replica->AcceptPeer(Peer(hq2), hello);
  ASSERT_TRUE(accepted.ok());
  EXPECT_TRUE(accepted->went_back);
  EXPECT_TRUE(accepted->shared);
  EXPECT_NE(hq.replica->epoch(), hqs);
  const auto about = hq.replica->TellOfHubs(0);
  ASSERT_EQ(about.hubs.size(), 1u);
  EXPECT_NE(about.hubs[0].epoch, first) << "what went back is not met";
}

TEST_F(RegressionTest, APositionWithAnotherMarkTellsThatAHubWentBack) {
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  storage::FeedCursor cursor =
      italy.replica->CursorIn(hq.replica->replica_id(), true, Scope::Chapter("italy"));
  ASSERT_NE(cursor.mark, storage::Mark{});
  cursor.scope = {};
  const Epoch before = hq.replica->epoch();
  const storage::PeerIdentity other{.node = {}, .replica = {77}, .epoch = {7}, .hub = true};
  auto heard = hq.replica->HearOfHubs(other, {.hubs = {}, .reached = {cursor}});
  ASSERT_TRUE(heard.ok());
  EXPECT_FALSE(heard->went_back);
  EXPECT_EQ(hq.replica->epoch(), before);
  cursor.mark.value ^= 1;
  // A disk that is full leaves everything as it was.
  hq.engine->FailNextWrites(1, absl::ResourceExhaustedError("disk full"));
  EXPECT_FALSE(hq.replica->HearOfHubs(other, {.hubs = {}, .reached = {cursor}}).ok());
  EXPECT_EQ(hq.replica->epoch(), before);
  heard = hq.replica->HearOfHubs(other, {.hubs = {}, .reached = {cursor}});
  ASSERT_TRUE(heard.ok());
  EXPECT_TRUE(heard->went_back);
  EXPECT_NE(hq.replica->epoch(), before);
  heard = hq.replica->HearOfHubs(other, {.hubs = {}, .reached = {cursor}});
  EXPECT_FALSE(heard->went_back) << "that was in the epoch before";
}

// Puts a node of Italy where it is once it has read a hub's feeds; their end.
Sequence StandAtTheEnd(const Site& hub, storage::HelloFacts& hello) {
  hello.cursors = *hub.replica->FeedEnds({Scope::Global(), Scope::Chapter("italy")});
  // Past what does not concern a scope, too.
  const storage::FeedCursor& last = hello.cursors.back();
  hello.cursors.front().sequence = last.sequence;
  hello.cursors.front().mark = last.mark;
  return last.sequence;
}

TEST_F(RegressionTest, ANodeIsToldAnewUnderItsNextIdAsWell) {
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}}).ok());
  storage::PeerIdentity peer = Peer(italy);
  storage::HelloFacts hello = *italy.replica->SayHello(1);
  const auto first = hq.replica->AcceptPeer(peer, hello);
  ASSERT_TRUE(first.ok());
  EXPECT_GT(first->anew, storage::Sequence{});
  // Told a part of it, it takes another id.
  hello.former = {peer.replica};
  peer.replica = hello.replica = {4711};
  hello.session = 2;
  hello.cursors = {{.replica = hq.replica->replica_id(),
                    .epoch = hq.replica->epoch(),
                    .scope = Scope::Global(),
                    .sequence = {1},
                    .mark = {}}};
  const auto second = hq.replica->AcceptPeer(peer, hello);
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(second->anew, first->anew);
  EXPECT_TRUE(hq.replica->IsShared(hello.former[0]));
  EXPECT_FALSE(hq.replica->IsShared(peer.replica));
  // Once told all of it, it is so under this id for good, also where it names the former one again.
  const Sequence end = StandAtTheEnd(hq, hello);
  ASSERT_TRUE(hq.replica->Acknowledge({.peer = peer, .anew = end, .accepted = hello.session}).ok());
  hello.session = 3;
  hello.acknowledged = {{.hub = hq.replica->replica_id(),
                         .epoch = hq.replica->epoch(),
                         .through = {},
                         .as = peer.replica,
                         .sessions = {2}}};
  const auto third = hq.replica->AcceptPeer(peer, hello);
  ASSERT_TRUE(third.ok());
  EXPECT_FALSE(third->shared);
  EXPECT_EQ(third->anew, end);
  // Another node's ids are not its to give up.
  storage::PeerIdentity other = Peer(toronto);
  storage::HelloFacts theirs = *toronto.replica->SayHello(3);
  theirs.former = {peer.replica};
  ASSERT_TRUE(hq.replica->AcceptPeer(other, theirs).ok());
  EXPECT_FALSE(hq.replica->IsShared(peer.replica));
}

TEST_F(RegressionTest, AFolderThatWasCopiedIsToldAnewAsWell) {
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}}).ok());
  {
    Loopback cut(*italy.replica, TestConfig(italy, true), *hq.replica, TestConfig(hq, false),
                 ScopesOf(italy));
    cut.Run(3).IgnoreError();  // it has not got all
  }
  const storage::ReplicaId before = italy.replica->replica_id();
  italy.options.copied = true;
  italy.Open();
  italy.options.copied = false;
  storage::HelloFacts hello = *italy.replica->SayHello(2);
  EXPECT_EQ(hello.copied, std::vector<storage::ReplicaId>{before});
  hello.cursors = {{.replica = hq.replica->replica_id(),
                    .epoch = hq.replica->epoch(),
                    .scope = Scope::Global(),
                    .sequence = {1},
                    .mark = {}}};
  const auto accepted = hq.replica->AcceptPeer(Peer(italy), hello);
  ASSERT_TRUE(accepted.ok());
  EXPECT_EQ(accepted->anew, storage::kToEndOfFeed);
  EXPECT_FALSE(hq.replica->IsShared(before)) << "the first may still be in use";
  // And once it has been told all, not again.
  const Sequence end = StandAtTheEnd(hq, hello);
  ASSERT_TRUE(
      hq.replica->Acknowledge({.peer = Peer(italy), .anew = end, .accepted = hello.session}).ok());
  hello.acknowledged = {{.hub = hq.replica->replica_id(),
                         .epoch = hq.replica->epoch(),
                         .through = {},
                         .as = hello.replica,
                         .sessions = {hello.session}}};
  ++hello.session;
  EXPECT_EQ(hq.replica->AcceptPeer(Peer(italy), hello)->anew, end);
}

TEST_F(RegressionTest, WhatChangesWhileANodeIsToldAnewIsToldWhole) {
  // A record whose new place came to be read after the pass went in part.
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}}).ok());
  ASSERT_TRUE(hq.Put(kNote2, {{kChapterField, "italy"}}).ok());
  const Sequence end = hq.replica->FeedEnds({Scope::All()})->front().sequence;
  const auto accepted = hq.replica->AcceptPeer(Peer(italy), *italy.replica->SayHello(1));
  ASSERT_TRUE(accepted.ok());
  ASSERT_TRUE(hq.Put(kNote2, {{kTextField, "x"}}).ok());
  storage::FeedRequest request{.peer = Peer(italy),
                               .scope = Scope::Chapter("italy"),
                               .after = end,
                               .since = end,
                               .anew = accepted->anew,
                               .bytes_max = 1 << 20,
                               .records_max = 10};
  request.peer.scopes = ScopesOf(italy);
  const auto page = hq.replica->ReadFeed(request);
  ASSERT_TRUE(page.ok());
  ASSERT_EQ(page->items.size(), 1u);
  EXPECT_FALSE(storage::IsPartial(page->items[0].update));
  // It is over once the node has acknowledged all, and not before; on both sides.
  const auto anew = [&] {
    storage::HelloFacts hello = *italy.replica->SayHello(2);
    hello.session = 0;
    return hq.replica->AcceptPeer(Peer(italy), hello)->anew;
  };
  {
    Loopback cut(*italy.replica, TestConfig(italy, true), *hq.replica, TestConfig(hq, false),
                 ScopesOf(italy));
    cut.Run(3).IgnoreError();
  }
  EXPECT_EQ(anew(), storage::kToEndOfFeed);
  ASSERT_TRUE(italy.Put(kNote3, {{kChapterField, "italy"}, {kTextField, "y"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  const Sequence last = anew();
  EXPECT_NE(last, storage::kToEndOfFeed);
  EXPECT_GE(last, end);
  for (Site* site : {&hq, &italy}) {
    ASSERT_TRUE(site->Put(kNote3, {{kOtherField, site->options.chapter + "z"}}).ok());
    Loopback loopback(*italy.replica, TestConfig(italy, true), *hq.replica, TestConfig(hq, false),
                      ScopesOf(italy));
    std::vector<std::pair<bool, bool>> told;  // by whom, and in part
    loopback.set_observer([&](bool from_initiator, const v1::SyncMessage& message) {
      const auto records = UnpackRecords(message.changes());
      ASSERT_TRUE(records.ok());
      for (const storage::InboundRecord& record : *records) {
        told.emplace_back(from_initiator, storage::IsPartial(record.update));
      }
    });
    ASSERT_TRUE(loopback.Run().ok());
    EXPECT_EQ(told, (std::vector<std::pair<bool, bool>>{{site == &italy, true}}));
  }
}

TEST_F(RegressionTest, ARecordWaitsWithTheStampThatItWaitsFor) {
  // What came after a stamp that another hub had was made again at each try, in vain.
  constexpr uint64_t kAheadMs = 300'000;
  Site hq2{"hq2", true, 9};
  hq2.environment.now_ms += kAheadMs;
  italy.environment.now_ms += kAheadMs;
  ASSERT_TRUE(italy.Put(kNote1, {{kChapterField, "italy"}, {kTextField, "a"}}).ok());
  ASSERT_TRUE(Sync(italy, hq2).ok());
  italy.environment.now_ms += 1000;
  ASSERT_TRUE(italy.Put(kNote1, {{kOtherField, "b"}}).ok());
  const storage::Record written = italy.Get(kNote1);
  std::set<uint64_t> ids;
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(Sync(italy, hq), absl::OkStatus());
    ids.insert(italy.replica->replica_id().value);
  }
  EXPECT_EQ(ids.size(), 1u) << "a new replica id with every try";
  EXPECT_FALSE(hq.Has(kNote1));
  EXPECT_EQ(Versions(italy.Get(kNote1)), Versions(written));
  hq.environment.now_ms += kAheadMs;
  italy.environment.now_ms += kAheadMs;
  SyncAndPulse(italy, hq);
  EXPECT_EQ(Versions(hq.Get(kNote1)), Versions(written));
  // But not for years.
  hq2.environment.now_ms += 2 * kAheadMs;
  italy.environment.now_ms = hq2.environment.now_ms;
  ASSERT_TRUE(italy.Put(kNote2, {{kChapterField, "italy"}}).ok());
  ASSERT_TRUE(Sync(italy, hq2).ok());
  italy.environment.now_ms += 365ull * 86'400'000;
  ASSERT_TRUE(italy.Put(kNote2, {{kTextField, "c"}}).ok());
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Sync(italy, hq), absl::OkStatus());
  hq.environment.now_ms = italy.environment.now_ms = hq2.environment.now_ms;
  SyncAndPulse(italy, hq);
  EXPECT_EQ(hq.Text(kNote2, kTextField), "c");
}

TEST_F(RegressionTest, WhatAHubWasToldAheadOfTheClockIsRememberedOverARestart) {
  // What was not acknowledged was made again under another stamp, and showed as a conflict.
  constexpr uint64_t kAheadMs = 100'000;
  Site hq2{"hq2", true, 9};
  italy.environment.now_ms += kAheadMs;
  ASSERT_TRUE(italy.Put(kNote1, {{kChapterField, "italy"}}).ok());
  italy.environment.now_ms -= kAheadMs;
  const storage::Record written = italy.Get(kNote1);
  storage::FeedRequest request{.peer = Peer(hq2),
                               .scope = Scope::All(),
                               .after = {},
                               .since = {},
                               .anew = {},
                               .bytes_max = 1 << 20,
                               .records_max = 10};
  const auto page = italy.replica->ReadFeed(request);
  ASSERT_TRUE(page.ok());
  ASSERT_EQ(page->items.size(), 1u);
  italy.engine->Crash();
  italy.Open();
  // The note of it may be from just before the start, and not durable: none is told without a sync.
  italy.engine->FailNextSyncs(1, absl::DataLossError("fsync failed"));
  EXPECT_TRUE(absl::IsDataLoss(italy.replica->ReadFeed(request).status()));
  italy.engine->Crash();
  italy.Open();
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Sync(italy, hq), absl::OkStatus());
  EXPECT_EQ(Versions(italy.Get(kNote1)), Versions(written));
  hq.environment.now_ms += kAheadMs;
  italy.environment.now_ms += kAheadMs;
  ASSERT_TRUE(Sync(italy, hq).ok());
  EXPECT_EQ(Versions(hq.Get(kNote1)), Versions(written));
}

TEST_F(RegressionTest, ANewEpochEndsTheSessionsOfTheOldOne) {
  // Those who were there went on under the id and epoch of before.
  for (const bool acceptor : {true, false}) {
    Site hq2{"hq2", true, 9};
    Site& changes = acceptor ? hq : hq2;
    Loopback loopback(*hq2.replica, TestConfig(hq2, true), *hq.replica, TestConfig(hq, false), {});
    ASSERT_TRUE(loopback.Run().ok());
    loopback.Tick();
    ASSERT_TRUE(loopback.Run().ok());
    storage::HelloFacts hello = *toronto.replica->SayHello(1);
    hello.past_epochs = {changes.replica->epoch()};
    ASSERT_TRUE(changes.replica->AcceptPeer(Peer(toronto), hello)->went_back);
    loopback.Tick();
    EXPECT_TRUE(absl::IsAborted(loopback.Run()));
    EXPECT_TRUE(loopback.restart());
  }
}

TEST_F(RegressionTest, WhatIsPushedInASessionOfTheOldEpochIsNotTaken) {
  // In the name that the hub had until then a node could have written what it liked, until the next
  // tick ended the session.
  ASSERT_TRUE(italy.Put(kNote1, {{kChapterField, "italy"}}).ok());
  Loopback loopback(*italy.replica, TestConfig(italy, true), *hq.replica, TestConfig(hq, false),
                    {Scope::Global(), Scope::Chapter("italy")});
  while (!loopback.acceptor().ready()) ASSERT_TRUE(loopback.Step());
  storage::HelloFacts hello = *toronto.replica->SayHello(1);
  hello.past_epochs = {hq.replica->epoch()};
  ASSERT_TRUE(hq.replica->AcceptPeer(Peer(toronto), hello)->went_back);
  EXPECT_TRUE(absl::IsAborted(loopback.Run()));
  EXPECT_FALSE(hq.Has(kNote1));
  ASSERT_TRUE(Sync(italy, hq).ok());
  EXPECT_TRUE(hq.Has(kNote1));
}

TEST_F(RegressionTest, ACloneIsFoundOutAlsoWhereBothHaveTakenAnotherId) {
  // Cloned while a refusal was under way each took an id of its own, and heard refusals of the
  // other's: what one had written stayed there, and was in no list.
  const storage::ReplicaId before = italy.replica->replica_id();
  const auto comes_as = [&](uint64_t add, std::vector<storage::ReplicaId> former) {
    storage::PeerIdentity peer = Peer(italy);
    peer.replica.value += add;
    storage::HelloFacts hello = *italy.replica->SayHello(0);
    hello.replica = peer.replica;
    hello.former = std::move(former);
    const auto accepted = hq.replica->AcceptPeer(peer, hello);
    EXPECT_TRUE(accepted.ok()) << accepted.status();
    return accepted.ok() && accepted->shared;
  };
  EXPECT_FALSE(comes_as(0, {}));
  EXPECT_FALSE(comes_as(1, {before}));
  EXPECT_TRUE(comes_as(2, {before})) << "the clone";
  EXPECT_FALSE(comes_as(1, {before})) << "who came first goes on";
  EXPECT_FALSE(comes_as(3, {{before.value + 1}, before}));
  EXPECT_FALSE(comes_as(4, {{before.value + 3}, {before.value + 1}, before}));
}

TEST_F(RegressionTest, APositionIsToldInBothDirectionsAndOnceASession) {
  Site hq2{"hq2", true, 9};
  ASSERT_TRUE(hq2.Put(kNote1, {{kChapterField, "italy"}}).ok());
  ASSERT_TRUE(Sync(italy, hq2).ok());
  ASSERT_TRUE(hq.Put(kNote2, {{kChapterField, "toronto"}}).ok());
  ASSERT_TRUE(Sync(toronto, hq).ok());
  ASSERT_TRUE(Sync(toronto, hq2).ok());  // which knows hq's feed by it
  ASSERT_TRUE(Sync(italy, hq).ok());
  Loopback loopback(*hq2.replica, TestConfig(hq2, true), *hq.replica, TestConfig(hq, false), {});
  std::map<bool, int> told;
  loopback.set_observer([&](bool from_initiator, const v1::SyncMessage& message) {
    told[from_initiator] += message.pulse().reached_size();
  });
  ASSERT_TRUE(loopback.Run().ok());
  for (int i = 0; i < 3; ++i) {
    for (Site* site : {&hq2, &hq}) site->environment.now_ms += 11'000;
    loopback.Tick();
    ASSERT_TRUE(loopback.Run().ok());
  }
  EXPECT_GT(told[true], 0);
  EXPECT_GT(told[false], 0);
  const int once = told[true] + told[false];
  for (Site* site : {&hq2, &hq}) site->environment.now_ms += 11'000;
  loopback.Tick();
  ASSERT_TRUE(loopback.Run().ok());
  EXPECT_EQ(told[true] + told[false], once);
}

TEST_F(RegressionTest, ACloneIsFoundOutByWhatOthersBroughtOfIt) {
  // A hub that was restored, and got a clone's writes from others, did not tell the original.
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "everybody"}, {kTextField, "0"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  auto restored = std::make_unique<storage::MemoryEngine>();
  Clone(*hq.engine, *restored);
  Site clone{"italy", false, 2};
  clone.replica.reset();
  Clone(*italy.engine, *clone.engine);
  clone.Open();
  ASSERT_EQ(clone.replica->replica_id(), italy.replica->replica_id());
  ASSERT_TRUE(clone.Put(kNote1, {{kTextField, "the clone's"}}).ok());
  ASSERT_TRUE(Sync(clone, hq).ok());
  ASSERT_TRUE(Sync(toronto, hq).ok());
  hq.replica.reset();
  hq.engine = std::move(restored);
  hq.options.copied = true;
  hq.Open();
  ASSERT_TRUE(Sync(toronto, hq).ok());
  ASSERT_EQ(hq.Text(kNote1, kTextField), "the clone's");
  const auto id = italy.replica->replica_id();
  italy.environment.now_ms += 1000;
  ASSERT_TRUE(italy.Put(kNote1, {{kTextField, "the original's"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  EXPECT_NE(italy.replica->replica_id(), id);
  EXPECT_EQ(hq.Text(kNote1, kTextField), "the original's");
  ASSERT_EQ(hq.Get(kNote1).conflicts.size(), 1u);
  EXPECT_EQ(hq.Get(kNote1).conflicts.front().lost_value, Wire(kTextField, "the clone's"));
}

TEST_F(RegressionTest, APendingResetDoesNotDeleteTheLastCopy) {
  // A refusal by one hub made another, which did not know the record, delete the last copy.
  // It is listed: told to the new hub, what remains would hide what the refused writes replaced.
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}, {kTextField, "by hq"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  ASSERT_TRUE(italy.Put(kNote1, {{kHqField, "x"}}).ok());
  {
    Loopback loopback(*italy.replica, TestConfig(italy, true), *hq.replica, TestConfig(hq, false),
                      ScopesOf(italy));
    bool refused = false;
    loopback.set_observer([&](bool, const v1::SyncMessage& m) {
      refused |= m.has_stored() && m.stored().refused_size() > 0;
    });
    while (!refused && loopback.Step()) {
    }
    ASSERT_TRUE(refused);
  }
  Site fresh{"hq", true, 9};
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Sync(italy, fresh), absl::OkStatus());
  const auto listed = italy.replica->ListRefused(0, 10);
  ASSERT_TRUE(listed.ok());
  std::map<uint32_t, std::optional<std::string>> values;
  for (const storage::RefusedWrite& write : *listed) {
    for (const storage::CellWrite& cell : write.cells) values[cell.path.field] = cell.value;
  }
  const std::map<uint32_t, std::optional<std::string>> all = {
      {kChapterField, Wire(kChapterField, "italy")},
      {kTextField, Wire(kTextField, "by hq")},
      {kHqField, Wire(kHqField, "x")}};
  EXPECT_EQ(values, all);
}

TEST_F(RegressionTest, WhatAHubThatIsBehindRefusedComesBackFromTheOther) {
  Site hq2{"hq2", true, 9};
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}, {kTextField, "by hq"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  ASSERT_TRUE(italy.Put(kNote1, {{kHqField, "x"}}).ok());
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(Sync(italy, hq2).ok());
  EXPECT_FALSE(italy.Has(kNote1)) << "all of it is listed";
  EXPECT_EQ(italy.replica->ListRefused(0, 10)->size(), 3u);
  ASSERT_TRUE(Sync(italy, hq).ok());
  EXPECT_EQ(italy.Text(kNote1, kTextField), "by hq") << "its cursor there was past that";
  ASSERT_TRUE(Sync(hq2, hq).ok());
  ASSERT_TRUE(Sync(italy, hq2).ok());
  EXPECT_EQ(italy.Text(kNote1, kTextField), "by hq");
  EXPECT_EQ(hq2.Text(kNote1, kHqField), "(none)");
}

TEST_F(RegressionTest, AResetKeepsTheConflictsThatTheNodeFound) {
  // A refusal lost a value of others that was only in the node's conflict log.
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}, {kTextField, "0"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  ASSERT_TRUE(hq.Put(kNote1, {{kTextField, "theirs"}}).ok());
  italy.environment.now_ms += 10;
  ASSERT_TRUE(italy.Put(kNote1, {{kTextField, "mine"}}).ok());
  Pull(italy, hq);
  ASSERT_EQ(italy.Get(kNote1).conflicts.size(), 1u);  // "theirs" lost to "mine"
  ASSERT_TRUE(italy.Put(kNote1, {{kHqField, "x"}}).ok());
  Loopback loopback(*italy.replica, TestConfig(italy, true), *hq.replica, TestConfig(hq, false),
                    ScopesOf(italy));
  bool done = false;
  loopback.set_observer([&](bool from_node, const v1::SyncMessage& m) {
    if (from_node || done || !m.has_stored() || m.stored().refused_size() == 0) return;
    done = true;  // while the refusal is on its way
    ASSERT_TRUE(italy.Put(kNote1, {{kTextField, "later"}}).ok());
  });
  ASSERT_TRUE(loopback.Run().ok() || loopback.restart());  // under a new id
  ASSERT_TRUE(done);
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(Sync(italy, hq).ok());
  EXPECT_EQ(hq.Text(kNote1, kTextField), "later");
  bool theirs = false;
  for (const Site* site : {&hq, &italy}) {
    for (const auto& entry : site->Get(kNote1).conflicts) {
      theirs |= entry.lost_value == Wire(kTextField, "theirs");
    }
  }
  EXPECT_TRUE(theirs) << "nobody who wrote 'later' knew that it replaced 'theirs'";
}

TEST_F(RegressionTest, AnErasureReachesWhoBroughtAnUnplacedRecord) {
  // The erasure of an unplaced record was never told to the chapter that holds it.
  ASSERT_TRUE(
      italy.Put(kReply1, {{kNoteField, kNote1.id.ToString()}, {kTextField, "personal"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  ASSERT_TRUE(hq.Do(LocalWrite::Kind::kErase, kReply1).ok());
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(Sync(italy, hq).ok());
  EXPECT_TRUE(italy.Get(kReply1).erased);
  EXPECT_EQ(italy.Text(kReply1, kTextField), "(none)");
}

TEST_F(RegressionTest, AnErasureEmptiesTheListOfRefusedWritesOfADroppedRecord) {
  // Refused writes of a record that was dropped outlived its erasure.
  ASSERT_NO_FATAL_FAILURE(RefuseOneThatIsDropped());
  ASSERT_TRUE(hq.Do(LocalWrite::Kind::kErase, kNote1).ok());
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(Sync(italy, hq).ok());
  EXPECT_EQ(italy.replica->ListRefused(0, 10)->size(), 0u);
}

TEST_F(RegressionTest, AnErasureEmptiesThatListAlsoInASessionThatGoesOn) {
  // A session may last for months.
  ASSERT_NO_FATAL_FAILURE(RefuseOneThatIsDropped());
  Loopback loopback(*italy.replica, TestConfig(italy, true), *hq.replica, TestConfig(hq, false),
                    ScopesOf(italy));
  ASSERT_TRUE(loopback.Run().ok());
  ASSERT_TRUE(hq.Do(LocalWrite::Kind::kErase, kNote1).ok());
  ASSERT_EQ(italy.replica->ListRefused(0, 10)->size(), 1u);
  for (int i = 0; i < 61; ++i) {
    for (Site* site : {&italy, &hq}) site->environment.now_ms += 60'000;
    loopback.Tick();
    ASSERT_TRUE(loopback.Run().ok());
  }
  EXPECT_EQ(italy.replica->ListRefused(0, 10)->size(), 0u);
}

TEST_F(RegressionTest, WhatWasUnplacedForAWhileLeavesItsOldHolders) {
  // What was unplaced for a while, and then placed elsewhere, never left its old holders.
  Site rome{"italy", false, 7};
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}}).ok());
  ASSERT_TRUE(hq.Put(kReply1, {{kNoteField, kNote1.id.ToString()}, {kTextField, "r"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  ASSERT_TRUE(Sync(rome, hq).ok());
  ASSERT_TRUE(italy.Put(kReply1, {{kNoteField, kNote2.id.ToString()}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  Pull(italy, hq);  // as a live session does: the cursor moves past the unplaced record
  Pull(rome, hq);
  ASSERT_TRUE(hq.Put(kNote2, {{kChapterField, "toronto"}}).ok());
  ASSERT_EQ(hq.Scopes(kReply1), (std::set<Scope>{Scope::Chapter("toronto")}));
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(Sync(italy, hq).ok());
    ASSERT_TRUE(Sync(rome, hq).ok());
  }
  EXPECT_FALSE(italy.Has(kReply1));
  EXPECT_FALSE(rome.Has(kReply1));
}

TEST_F(RegressionTest, ADropIsMadeAlsoWhereTheAcknowledgementWasCut) {
  // A drop was never made where the line broke before the Stored.
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "toronto"}, {kTextField, "0"}}).ok());
  ASSERT_TRUE(toronto.Put(kNote2, {{kChapterField, "toronto"}}).ok());
  ASSERT_TRUE(Sync(toronto, hq).ok());
  ASSERT_TRUE(toronto.Put(kNote1, {{kChapterField, "italy"}}).ok());
  {
    Loopback loopback(*toronto.replica, TestConfig(toronto, true), *hq.replica,
                      TestConfig(hq, false), ScopesOf(toronto));
    while (hq.Text(kNote1, kChapterField) != "italy") ASSERT_TRUE(loopback.Step());
  }                   // cut: the hub has it, the node has not heard so
  Pull(toronto, hq);  // the feed's Left overtook the answer and the Stored
  ASSERT_TRUE(toronto.Has(kNote1));
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(Sync(toronto, hq).ok());
  EXPECT_FALSE(toronto.Has(kNote1));
}

TEST_F(RegressionTest, ANewEpochOfTheHubCancelsAPendingDrop) {
  // A handshake with a restored hub made the drop that its earlier self had asked for.
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}, {kTextField, "a"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  ASSERT_TRUE(italy.Put(kNote1, {{kTextField, "b"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  auto backup = std::make_unique<storage::MemoryEngine>();
  Clone(*hq.engine, *backup);
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "toronto"}}).ok());
  ASSERT_TRUE(italy.Put(kNote1, {{kOtherField, "unsent"}}).ok());
  Pull(italy, hq);  // the drop waits for what is unsent
  ASSERT_TRUE(italy.Has(kNote1));
  hq.replica.reset();
  hq.engine = std::move(backup);
  hq.options.copied = true;  // its marker tells
  hq.Open();
  hq.options.copied = false;
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(Sync(italy, hq).ok());
  EXPECT_TRUE(italy.Has(kNote1));
  EXPECT_EQ(hq.Text(kNote1, kOtherField), "unsent");
}

TEST_F(RegressionTest, TheHubsStateAfterARefusalCancelsAPendingDrop) {
  // A record in the scope of a node was dropped, as a refusal kept a pending drop.
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "toronto"}}).ok());
  ASSERT_TRUE(italy.Put(kNote1, {{kHqField, "x"}}).ok());
  Pull(italy, hq);  // Left: waits for the unsent write
  ASSERT_TRUE(italy.Has(kNote1));
  bool cut = false;
  {
    Loopback loopback(*italy.replica, TestConfig(italy, true), *hq.replica, TestConfig(hq, false),
                      ScopesOf(italy));
    bool refused = false;
    loopback.set_observer([&](bool, const v1::SyncMessage& m) {
      if (m.has_stored() && m.stored().refused_size() > 0) refused = true;
    });
    while (!refused && loopback.Step()) {
    }
    cut = refused;  // the line breaks once the node has heard of the refusal
  }
  ASSERT_TRUE(cut);
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}}).ok());  // and comes back
  Pull(italy, hq);  // the feed tells so: the hub's state, in the node's scope
  ASSERT_TRUE(italy.Has(kNote1));
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(Sync(italy, hq).ok());
  EXPECT_TRUE(italy.Has(kNote1)) << "dropped, though it is in the node's scope";
}

TEST_F(RegressionTest, ADropAfterARefusalIsReported) {
  // A drop after a refusal was never reported to the hub.
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "toronto"}}).ok());
  ASSERT_TRUE(italy.Put(kNote1, {{kHqField, "x"}}).ok());
  int reported = 0;
  for (int i = 0; i < 3; ++i) {
    Loopback loopback(*italy.replica, TestConfig(italy, true), *hq.replica, TestConfig(hq, false),
                      ScopesOf(italy));
    loopback.set_observer([&](bool from_node, const v1::SyncMessage& m) {
      if (from_node && m.has_stored()) reported += m.stored().dropped_size();
    });
    ASSERT_TRUE(loopback.Run().ok() || loopback.restart());
  }
  ASSERT_FALSE(italy.Has(kNote1));
  EXPECT_EQ(reported, 1);
}

TEST_F(RegressionTest, AHubsOwnRuleDecidesWhereARecordIs) {
  // Scopes that another hub had named stood for ever above a hub's own rule.
  Site hq2{"hq2", true, 9};
  hq2.options.entities[kNote].fingerprint = 99;  // the next schema: same clauses
  hq2.Open();
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}, {kTextField, "t"}}).ok());
  ASSERT_TRUE(Sync(hq2, hq).ok());
  hq2.environment.now_ms += 1000;
  ASSERT_TRUE(hq2.Put(kNote1, {{kChapterField, "toronto"}}).ok());
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(Sync(hq2, hq).ok());
  EXPECT_EQ(hq.Text(kNote1, kChapterField), "toronto");
  EXPECT_EQ(hq.Scopes(kNote1), (std::set<Scope>{Scope::Chapter("toronto")}));
  EXPECT_EQ(hq2.Scopes(kNote1), (std::set<Scope>{Scope::Chapter("toronto")}));
  ASSERT_TRUE(Sync(toronto, hq).ok());
  EXPECT_TRUE(toronto.Has(kNote1));
  ASSERT_TRUE(Sync(italy, hq).ok());
  EXPECT_FALSE(italy.Has(kNote1)) << "italy is sent what is toronto's";
}

TEST_F(RegressionTest, NamedScopesFollowTheirLeader) {
  // Named scopes were not updated where only the placement changed.
  Site hq2{"hq2", true, 9};
  hq2.options.entities.erase(kReply);
  hq2.Open();
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}}).ok());
  ASSERT_TRUE(hq.Put(kReply1, {{kNoteField, kNote1.id.ToString()}, {kTextField, "r"}}).ok());
  ASSERT_TRUE(Sync(hq2, hq).ok());
  ASSERT_EQ(hq2.Scopes(kReply1), (std::set<Scope>{Scope::Chapter("italy")}));
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "toronto"}}).ok());
  ASSERT_TRUE(Sync(hq2, hq).ok());
  EXPECT_EQ(hq2.Scopes(kReply1), (std::set<Scope>{Scope::Chapter("toronto")}));
  ASSERT_TRUE(Sync(italy, hq2).ok());
  EXPECT_FALSE(italy.Has(kReply1)) << "a node is sent what is not its own";
}

TEST_F(RegressionTest, ANewRulePlacesWhatIsThere) {
  // After a change of the schema records stayed where the old rule had put them.
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}, {kTextField, "t"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  hq.options.entities[kNote].fingerprint = 99;
  hq.options.entities[kNote].scope.clauses = {{.kind = storage::ScopeClause::Kind::kHq}};
  hq.Open();
  EXPECT_EQ(hq.Scopes(kNote1), (std::set<Scope>{Scope::Hq()}));
  ASSERT_TRUE(Sync(italy, hq).ok());
  EXPECT_FALSE(italy.Has(kNote1));
}

TEST_F(RegressionTest, TwoHubsAgreeWhereADeepFollowerIs) {
  // Followers were not placed anew where only their depth changed.
  Site hq2{"hq2", true, 9};
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}}).ok());
  std::string above = kNote1.id.ToString();
  for (uint8_t i = 1; i <= 5; ++i) {
    ASSERT_TRUE(hq.Put(Key(kReply, i), {{i == 1 ? kNoteField : kReplyField, above}}).ok());
    above = Key(kReply, i).id.ToString();
  }
  ASSERT_TRUE(
      hq.Put(Key(kReply, 2), {{kReplyField, std::nullopt}, {kNoteField, kNote1.id.ToString()}})
          .ok());
  ASSERT_TRUE(Sync(hq2, hq).ok());
  EXPECT_EQ(hq.Scopes(Key(kReply, 5)), hq2.Scopes(Key(kReply, 5)));
  ASSERT_EQ(hq.Get(Key(kReply, 5)).seen, hq2.Get(Key(kReply, 5)).seen);
}

TEST_F(RegressionTest, WhatOthersWroteIsListedWhereARefusedRecordHasLeft) {
  // A node brought back what its hub had lost of others' writes, was refused, and let it go.
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}, {kTextField, "a"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  auto old = std::make_unique<storage::MemoryEngine>();
  Clone(*hq.engine, *old);
  ASSERT_TRUE(hq.Put(kNote1, {{kOtherField, "lost by hq"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  Restore(hq, std::move(old));
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "toronto"}}).ok());
  // The other copy of italy's folder has let it go.
  ASSERT_TRUE(hq.replica->Acknowledge({.peer = Peer(italy), .dropped = {{1, kNote1}}}).ok());
  EXPECT_EQ(Sync(italy, hq), absl::OkStatus());
  EXPECT_EQ(Sync(italy, hq), absl::OkStatus());
  EXPECT_FALSE(italy.Has(kNote1));
  const auto refused = italy.replica->ListRefused(0, 10);
  ASSERT_TRUE(refused.ok());
  ASSERT_EQ(refused->size(), 1u);
  ASSERT_EQ(refused->front().cells.size(), 1u);
  EXPECT_EQ(refused->front().cells[0].path.field, kOtherField);
  EXPECT_EQ(refused->front().cells[0].value, Wire(kOtherField, "lost by hq"));
}

TEST_F(RegressionTest, SettlementsThatGoWithAListedValueAreTold) {
  // Of a conflict that the hub had lost the value was listed, and not that it had been settled.
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}, {kTextField, "a"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  auto old = std::make_unique<storage::MemoryEngine>();
  Clone(*hq.engine, *old);
  ASSERT_TRUE(italy.Put(kNote1, {{kTextField, "italy's"}}).ok());
  hq.environment.now_ms += 1000;
  ASSERT_TRUE(hq.Put(kNote1, {{kTextField, "hq's"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  ASSERT_TRUE(hq.Write({.kind = LocalWrite::Kind::kSettle,
                        .key = kNote1,
                        .path = {.field = kTextField, .map_key = {}},
                        .lost = Wire(kTextField, "italy's"),
                        .choice = storage::Choice::kKeep})
                  .ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  Restore(hq, std::move(old));
  ASSERT_TRUE(italy.Put(kNote1, {{kHqField, "x"}}).ok());
  EXPECT_EQ(Sync(italy, hq), absl::OkStatus());
  const auto refused = italy.replica->ListRefused(0, 10);
  ASSERT_TRUE(refused.ok());
  const auto tells = [](const storage::RefusedWrite& write) {
    return write.reason.find("1 settlements of conflicts") != std::string::npos;
  };
  EXPECT_EQ(std::count_if(refused->begin(), refused->end(), tells), 1);
}

TEST_F(RegressionTest, TheListOfRefusedWritesCanAlwaysBeRead) {
  // Many settlements in a refused record made the list unreadable, and erasures stopped.
  constexpr int kMany = 950;
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}}).ok());
  ASSERT_TRUE(hq.Put(kNote2, {{kChapterField, "italy"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  for (Site* site : {&italy, &hq}) {
    LocalWrite write{.kind = LocalWrite::Kind::kUpsert, .key = kNote1};
    for (int i = 0; i < kMany; ++i) {
      write.cells.push_back({{.field = 9, .map_key = std::to_string(i)}, site == &hq ? "h" : "i"});
    }
    ASSERT_TRUE(site->Write(write).ok());
    italy.environment.now_ms += 10;
  }
  ASSERT_TRUE(Sync(italy, hq).ok());
  ASSERT_EQ(italy.Get(kNote1).conflicts.size(), static_cast<size_t>(kMany));
  for (const auto& entry : italy.Get(kNote1).conflicts) {
    ASSERT_TRUE(italy
                    .Write({.kind = LocalWrite::Kind::kSettle,
                            .key = kNote1,
                            .path = entry.path,
                            .lost = entry.lost_value,
                            .choice = storage::Choice::kKeep})
                    .ok());
  }
  ASSERT_TRUE(italy.Put(kNote1, {{kHqField, "x"}}).ok());
  EXPECT_EQ(Sync(italy, hq), absl::OkStatus());
  EXPECT_EQ(italy.replica->ListRefused(0, 10).status(), absl::OkStatus());
  ASSERT_TRUE(hq.Do(LocalWrite::Kind::kErase, kNote2).ok());
  EXPECT_EQ(Sync(italy, hq), absl::OkStatus());
  EXPECT_TRUE(italy.Get(kNote2).erased);
}

TEST_F(RegressionTest, OnlyWhatWasRefusedIsListed) {
  // Writes that the hub had taken long ago were listed as refused.
  ASSERT_TRUE(italy.Put(kNote1, {{kChapterField, "italy"}, {kTextField, "taken long ago"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "toronto"}}).ok());
  ASSERT_TRUE(italy.Put(kNote1, {{kHqField, "x"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  auto refused = italy.replica->ListRefused(0, 10);
  ASSERT_EQ(refused->size(), 1u);
  for (const auto& cell : refused->front().cells) EXPECT_EQ(cell.path.field, kHqField);
}

TEST_F(RegressionTest, ARefusedWriteOfAnUnplacedRecordIsListed) {
  // A refusal of an unplaced record was never settled.
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}}).ok());
  ASSERT_TRUE(hq.Put(kReply1, {{kNoteField, kNote1.id.ToString()}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  ASSERT_TRUE(italy.Put(kReply1, {{kNoteField, kNote2.id.ToString()}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  ASSERT_TRUE(hq.Put(kReply1, {{kTextField, std::string(600000, 'a')}}).ok());
  ASSERT_TRUE(italy.Put(kReply1, {{kOtherField, std::string(600000, 'b')}}).ok());
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(Sync(italy, hq).ok());
  ASSERT_EQ(hq.Text(kReply1, kOtherField), "(none)");
  EXPECT_EQ(italy.replica->ListRefused(0, 10)->size(), 1u);
}

TEST_F(RegressionTest, WhoseWriteWasRefusedHearsWhatARecordWithoutAPlaceHadSeen) {
  // Where the answer was lost, all that the node had of the record was listed as refused.
  ASSERT_TRUE(hq.Put(kReply1, {{kNoteField, kNote1.id.ToString()}}).ok());
  ASSERT_TRUE(hq.Put(kReply1, {{kTextField, std::string(600000, 'a')}}).ok());
  ASSERT_TRUE(italy.Put(kReply1, {{kOtherField, std::string(600000, 'b')}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  EXPECT_EQ(italy.replica->ListRefused(0, 10)->size(), 1u);
  storage::RecordsRequest request{
      .keys = {kReply1}, .asked = true, .refusals_noted = true, .bytes_max = 1 << 20};
  for (const Site* site : {&italy, &italy, &toronto}) {
    request.peer.node = site->options.node;
    request.peer.epoch = site->replica->epoch();
    request.peer.scopes = ScopesOf(*site);
    const auto page = hq.replica->ReadRecords(request);
    ASSERT_TRUE(page.ok());
    ASSERT_EQ(page->items.size(), 1u);
    EXPECT_EQ(page->items[0].kind, storage::FeedItem::Kind::kUnplaced);
    EXPECT_EQ(page->items[0].seen.empty(), site == &toronto);
  }
  // It is not told of the refusal again.
  SessionCounts counts;
  ASSERT_TRUE(Sync(italy, hq, &counts).ok());
  EXPECT_EQ(counts.refused, 0u);
  EXPECT_EQ(italy.replica->ListRefused(0, 10)->size(), 1u);
}

TEST_F(RegressionTest, WhatIsAheadDoesNotHoldUpTheRest) {
  // One record stamped ahead by others held up everything, with a new id at every try.
  constexpr uint64_t kDayMs = 86'400'000;
  hq.environment.now_ms += kDayMs;
  italy.environment.now_ms += kDayMs;
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}, {kTextField, "by hq"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  ASSERT_TRUE(italy.Put(kNote1, {{kOtherField, "by italy"}}).ok());
  italy.environment.now_ms -= kDayMs;
  Site fresh{"hq", true, 9};  // hq lost its disk, and its clock is right now
  ASSERT_TRUE(
      italy.Put(kNote2, {{kChapterField, "italy"}, {kTextField, std::string(700000, 'a')}}).ok());
  ASSERT_TRUE(italy.Put(kNote3, {{kChapterField, "italy"}, {kTextField, "c"}}).ok());
  std::set<uint64_t> ids;
  absl::Status last;
  for (int i = 0; i < 10; ++i) {
    last = Sync(italy, fresh);
    ids.insert(italy.replica->replica_id().value);
  }
  EXPECT_EQ(last, absl::OkStatus());
  EXPECT_TRUE(fresh.Has(kNote2));
  EXPECT_TRUE(fresh.Has(kNote3));
  EXPECT_LE(ids.size(), 2u) << "a new replica id with every try";
}

TEST_F(RegressionTest, ALateHeartbeatMovesNoClock) {
  // A heartbeat that was long under way set a right clock wrong.
  Loopback loopback(*italy.replica, TestConfig(italy, true), *hq.replica, TestConfig(hq, false),
                    ScopesOf(italy));
  ASSERT_TRUE(loopback.Run().ok());
  for (Site* site : {&italy, &hq}) site->environment.now_ms += 11'000;
  loopback.Tick();  // sent now
  for (Site* site : {&italy, &hq})
    site->environment.now_ms += 30'000;  // behind 240 kB on a line of 64 kbit/s
  ASSERT_TRUE(loopback.Run().ok());
  EXPECT_NEAR(static_cast<double>(italy.replica->clock_offset_ms()), 0.0, 5000.0);
}

TEST_F(RegressionTest, TheEndsThatAPulseNamesAreReached) {
  // The ends that a Pulse named were not always sent: `sync now` waited for ever.
  const Site everybody{"everybody", false, 5};
  Session session(TestConfig(hq, false));
  std::vector<v1::SyncMessage> sent;
  const auto handle = [&](Event first) {
    std::deque<Event> events;
    events.push_back(std::move(first));
    while (!events.empty()) {
      auto effects = session.Handle(std::move(events.front()), 1'700'000'000'000);
      events.pop_front();
      for (Effect& effect : effects) {
        if (auto* send = std::get_if<SendMessage>(&effect)) {
          sent.push_back(std::move(send->message));
        } else if (std::holds_alternative<Authorize>(effect)) {
          events.push_back(Authorized{absl::OkStatus(), ScopesOf(everybody)});
        } else {
          // Headquarters writes: the commit is there, the news of it comes after the fsync.
          if (std::holds_alternative<ReadEnds>(effect)) {
            ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "everybody"}}).ok());
          }
          events.push_back(*Perform(*hq.replica, effect));
        }
      }
    }
  };
  v1::SyncMessage hello;
  hello.mutable_hello()->set_version_min(1);
  hello.mutable_hello()->set_version_max(1);
  hello.mutable_hello()->set_replica(77);
  hello.mutable_hello()->set_epoch(1);
  hello.mutable_hello()->set_node(std::string(16, 'x'));
  handle(Opened{});
  handle(MessageIn{hello});
  ASSERT_TRUE(session.ready());
  v1::SyncMessage ask;
  ask.mutable_pulse()->set_asks(1);
  handle(MessageIn{ask});
  handle(Changed{});
  uint64_t end = 0;
  uint64_t told = 0;
  for (const v1::SyncMessage& message : sent) {
    for (const v1::Cursor& cursor : message.pulse().ends()) {
      if (cursor.scope() == "global") end = cursor.sequence();
    }
    if (message.changes().scope() == "global") told = message.changes().last();
  }
  ASSERT_GT(end, 0u);
  EXPECT_GE(told, end);
}

TEST_F(RegressionTest, ARejectedErasureIsNotPushedForEver) {
  // A node pushed an erasure that headquarters had rejected again at once, and was refused again.
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}, {kTextField, "a"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  auto old = std::make_unique<storage::MemoryEngine>();
  Clone(*hq.engine, *old);
  ASSERT_TRUE(hq.Do(LocalWrite::Kind::kErase, kNote1).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  Restore(hq, std::move(old));
  ASSERT_TRUE(Sync(italy, hq).ok());
  const auto waiting = hq.replica->ListApprovals(0, 10);
  ASSERT_EQ(waiting.size(), 1u);
  ASSERT_TRUE(hq.replica->Reject(waiting[0].number).ok());
  SessionCounts counts;
  EXPECT_EQ(Sync(italy, hq, &counts), absl::OkStatus());
  EXPECT_EQ(Sync(italy, hq, &counts), absl::OkStatus());
  EXPECT_EQ(counts.records_sent, 0u);
  EXPECT_EQ(counts.refused, 0u);
  EXPECT_FALSE(hq.replica->Read(kNote1)->record.erased);
}

TEST_F(RegressionTest, WhatWaitsAtTwoHubsIsLetGoAtNeither) {
  // That a record waits at a second hub made the node forget that it waits at the first.
  Site hq2{"hq2", true, 9};
  ASSERT_TRUE(toronto.Put(kNote1, {{kChapterField, "italy"}, {kTextField, "a"}}).ok());
  for (Site* hub : {&hq, &hq2}) {
    const RecordKey& key = kNote1;
    ASSERT_TRUE(italy.replica
                    ->Apply({.peer = Peer(*hub),
                             .records = {{Sequence{1}, key,
                                          EncodeUpdate(RecordUpdate{
                                              .state = toronto.replica->Read(key)->record})}}})
                    .ok());
  }
  for (Site* hub : {&hq, &hq2}) {
    storage::AcknowledgeRequest waits{.peer = Peer(*hub), .through = Sequence{1}};
    waits.told_as = italy.replica->replica_id();
    waits.refused = {{kNote1, Sequence{1}, storage::RefusedRecord::Reason::kWaits, "?"}};
    ASSERT_TRUE(italy.replica->Acknowledge(waits).ok());
  }
  EXPECT_EQ(italy.replica->CountWaiting(hq.options.node)->approval, 1u);
  EXPECT_EQ(italy.replica->CountWaiting(hq2.options.node)->approval, 1u);
  ApplyRequest left{.peer = Peer(hq)};
  left.left = {{kNote1, italy.replica->Read(kNote1)->record.seen}};
  ASSERT_TRUE(italy.replica->Apply(left).ok());
  EXPECT_TRUE(italy.Has(kNote1));
}

TEST_F(RegressionTest, WhatAHubOnlySaysThatItHasSeenGoesThere) {
  // Of two that wrote under one version the other's value counted as this one's.
  ASSERT_TRUE(italy.Put(kNote1, {{kChapterField, "italy"}, {kTextField, "a"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  ASSERT_TRUE(italy.Put(kNote1, {{kOtherField, "only here"}}).ok());
  ASSERT_TRUE(hq.Put(kNote1, {{kTextField, "b"}}).ok());
  RecordUpdate update{.state = hq.replica->Read(kNote1)->record};
  update.state.seen.Unite(italy.replica->Read(kNote1)->record.seen);
  ASSERT_TRUE(
      italy.replica
          ->Apply({.peer = Peer(hq), .records = {{Sequence{9}, kNote1, EncodeUpdate(update)}}})
          .ok());
  EXPECT_EQ(italy.Text(kNote1, kTextField), "b");
  EXPECT_EQ(italy.Text(kNote1, kOtherField), "only here");
  ASSERT_TRUE(Sync(italy, hq).ok());
  EXPECT_EQ(hq.Text(kNote1, kOtherField), "only here");
}

TEST_F(RegressionTest, AHubOfManyNodesCanJoinAnotherHub) {
  // A hub that had met more than 1,024 nodes could join no other.
  for (uint64_t i = 1; i <= 1100; ++i) {
    PeerIdentity peer = Peer(italy);
    peer.replica = {(1000 + i) << storage::kLineageShift};
    peer.node.bytes[1] = static_cast<uint8_t>(i);
    peer.node.bytes[2] = static_cast<uint8_t>(i >> 8);
    ASSERT_TRUE(
        hq.replica
            ->AcceptPeer(peer, {.replica = peer.replica, .epoch = peer.epoch, .node = peer.node})
            .ok());
  }
  Site hq2{"hq2", true, 9};
  EXPECT_EQ(Sync(hq, hq2), absl::OkStatus());
}

}  // namespace
}  // namespace chaptersync::node
