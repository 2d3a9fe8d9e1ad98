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

PeerIdentity Peer(Site& s) {
  PeerIdentity p;
  p.node = s.options.node;
  p.replica = s.replica->replica_id();
  p.epoch = s.replica->epoch();
  p.hub = s.options.hub;
  p.scopes = ScopesOf(s);
  for (auto& [e, r] : s.options.entities) p.entities[e] = r.fingerprint;
  return p;
}
// the hub's chapter feed reaches the node first (both directions run at once)
void Pull(Site& node, Site& hub) {
  Scope sc = Scope::Chapter(node.options.chapter);
  auto cur = node.replica->CursorIn(hub.replica->replica_id(), sc);
  auto page = hub.replica->ReadFeed({Peer(node), sc, cur.sequence, cur.sequence, 1 << 20, 1000});
  ASSERT_TRUE(page.ok());
  ApplyRequest l{.peer = Peer(hub)}, r{.peer = Peer(hub)};
  for (auto& i : page->items) {
    if (i.kind == FeedItem::Kind::kLeft)
      l.left.push_back({i.key, i.seen});
    else
      r.records.push_back({i.sequence, i.key, i.update});
  }
  r.cursors.push_back(
      FeedCursor{hub.replica->replica_id(), hub.replica->epoch(), sc, page->last, page->mark});
  if (!l.left.empty()) {
    ASSERT_TRUE(node.replica->Apply(l).ok());
  }
  ASSERT_TRUE(node.replica->Apply(r).ok());
}
TEST_F(RegressionTest, AMergeOverTheLimitsCanStillBeRead) {
  // A merge above the limits was stored and could never be read again.

  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  for (Site* s : {&italy, &hq}) {
    LocalWrite w{.kind = LocalWrite::Kind::kUpsert, .key = kNote1};
    for (int i = 0; i < 3000; ++i)
      w.cells.push_back({{.field = 9, .map_key = (s == &hq ? "h" : "i") + std::to_string(i)}, "x"});
    ASSERT_TRUE(s->Write(w).ok());
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
  size_t n = italy.Get(kNote1).conflicts.size() + hq.Get(kNote1).conflicts.size();
  bool listed = false;
  const auto refused = italy.replica->ListRefused(0, 10);
  ASSERT_TRUE(refused.ok());
  for (const auto& write : *refused) {
    for (const auto& cell : write.cells) listed |= cell.value == Wire(kTextField, "mine");
  }
  EXPECT_TRUE(n > 0 || listed) << "value 'mine' is nowhere";
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
    (void)cut.Run(2);
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
  for (int i = 0; i < 5; ++i) (void)Sync(italy, hq);
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

  for (int cutn = 1; cutn < 14; ++cutn) {
    Site hq{"hq", true, 1};
    Site italy{"italy", false, 2};
    ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}}).ok());
    ASSERT_TRUE(Sync(italy, hq).ok());
    ASSERT_TRUE(italy.Put(kNote1, {{kHqField, "x"}}).ok());
    {
      Loopback cut(*italy.replica, TestConfig(italy, true), *hq.replica, TestConfig(hq, false),
                   ScopesOf(italy));
      (void)cut.Run(static_cast<uint64_t>(cutn));
    }
    ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "toronto"}}).ok());
    (void)italy.Put(kNote1, {{kTextField, "later"}});
    Epoch e = hq.replica->epoch();
    auto s1 = Sync(italy, hq), s2 = Sync(italy, hq);
    EXPECT_EQ(hq.replica->epoch().value, e.value) << "cut " << cutn << " " << s1 << " " << s2;
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
  auto old = italy.replica->replica_id();
  ASSERT_TRUE(Sync(italy, hq2).ok());
  ASSERT_NE(old, italy.replica->replica_id());
  // hq's open session (under the old id) stores the next page and says so
  PeerIdentity h = Peer(hq);
  Sequence t{italy.replica->AcknowledgedBy(h.replica).value + 1};
  ASSERT_TRUE(italy.replica->Acknowledge({.peer = h, .through = t, .told_as = old}).ok());
  Epoch e = hq.replica->epoch();
  (void)Sync(italy, hq);
  EXPECT_EQ(e.value, hq.replica->epoch().value);
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

  for (int i = 0; i < 4200; ++i) {
    RecordUpdate u;
    Version v{{(static_cast<uint64_t>(i) + 1) << 16}, italy.replica->replica_id()};
    u.state.seen.Advance(v);
    u.state.Put(
        {{.field = kChapterField}, v, "a", Wire(kChapterField, "c" + std::to_string(i)), {}});
    auto r =
        hq.replica->Apply({.peer = Peer(italy),
                           .records = {{{static_cast<uint64_t>(i) + 1}, kNote1, EncodeUpdate(u)}}});
    ASSERT_TRUE(r.ok()) << r.status();
  }
  EXPECT_EQ(hq.replica->List(kNote, {}, 1).status(), absl::OkStatus());
}

}  // namespace
}  // namespace chaptersync::node
