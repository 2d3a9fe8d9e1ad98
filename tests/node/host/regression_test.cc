// SPDX-License-Identifier: Apache-2.0
//
// Defects that were found in the exchange between replicas, each with a history
// that failed because of it. The first line of each test states the defect.
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
const RecordKey kReply1 = Key(kReply, 1);

class RegressionTest : public testing::Test {
 protected:
  Site hq{"hq", true, 1};
  Site italy{"italy", false, 2};
  Site toronto{"toronto", false, 3};
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

// The hub's feed of the chapter reaches the node before the node's reaches the hub:
// both directions run at once.
void Pull(Site& node, Site& hub) {
  const Scope scope = Scope::Chapter(node.options.chapter);
  const FeedCursor cursor = node.replica->CursorIn(hub.replica->replica_id(), scope);
  const auto page =
      hub.replica->ReadFeed({Peer(node), scope, cursor.sequence, cursor.sequence, 1 << 20, 1000});
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
  const Sequence through{italy.replica->AcknowledgedBy(hub.replica).value + 1};
  ASSERT_TRUE(
      italy.replica->Acknowledge({.peer = hub, .through = through, .told_as = old_id}).ok());
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

}  // namespace
}  // namespace chaptersync::node
