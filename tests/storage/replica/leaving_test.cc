// SPDX-License-Identifier: Apache-2.0
//
// What a node remembers of records that have left, as several hubs say so, and what it asks for
// that no feed may tell of.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "storage/core/limits.h"
#include "storage/core/record_codec.h"
#include "storage/engine/memory_engine.h"
#include "storage/replica/keys.h"
#include "storage/replica/meta_values.h"
#include "storage/replica/replica.h"
#include "tests/storage/replica/small_schema.h"

namespace chaptersync::storage {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

constexpr ReplicaId kWriter{uint64_t{9} << kLineageShift};

NodeId Node(uint8_t number) {
  NodeId node;
  node.bytes[0] = number;
  return node;
}

Seen SeenUpTo(uint64_t ticks, ReplicaId replica = kWriter) {
  Seen seen;
  seen.Advance({{ticks}, replica});
  return seen;
}

TEST(LeavingTest, OfEachHubTheWordOfItsPresentEpochCounts) {
  LeavingValue leaving;
  leaving.Hear({Node(1), {10}, SeenUpTo(5)});
  leaving.Hear({Node(2), {20}, SeenUpTo(7)});
  leaving.Hear({Node(1), {10}, SeenUpTo(3, ReplicaId{4})});
  ASSERT_THAT(leaving.words, SizeIs(2));
  const LeavingWord* first = leaving.Find(Node(1), {10});
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(first->seen.Get(kWriter), HybridTime{5}) << "what it said before counts as well";
  EXPECT_EQ(first->seen.Get(ReplicaId{4}), HybridTime{3});
  EXPECT_EQ(leaving.Find(Node(2), {10}), nullptr);

  leaving.Hear({Node(1), {11}, SeenUpTo(1)});
  EXPECT_EQ(leaving.Find(Node(1), {10}), nullptr);
  EXPECT_EQ(leaving.Find(Node(1), {11})->seen.Get(kWriter), HybridTime{1});
  EXPECT_EQ(leaving.seen.Get(kWriter), HybridTime{7}) << "whoever takes it back may lack that";
  EXPECT_NE(leaving.Find(Node(2), {20}), nullptr);
}

TEST(LeavingTest, OfTooManyHubsTheFirstAreForgotten) {
  LeavingValue leaving;
  for (uint8_t hub = 0; hub <= kHubsMax; ++hub) {
    leaving.Hear({Node(hub), {10}, {}});
    leaving.NoteDrop(Node(hub));
  }
  EXPECT_THAT(leaving.words, SizeIs(kHubsMax));
  EXPECT_EQ(leaving.Find(Node(0), {10}), nullptr);
  EXPECT_THAT(leaving.dropped_for, SizeIs(kHubsMax));
  EXPECT_EQ(leaving.dropped_for.front(), Node(1));
  leaving.NoteDrop(Node(1));
  EXPECT_THAT(leaving.dropped_for, SizeIs(kHubsMax));
  EXPECT_EQ(leaving.dropped_for.back(), Node(1));
}

TEST(LeavingTest, ComesBackFromItsBytes) {
  LeavingValue leaving;
  leaving.Hear({Node(1), {10}, SeenUpTo(5)});
  leaving.Hear({Node(2), {20}, {}});
  leaving.NoteDrop(Node(2));
  leaving.leaders = {{kMember, {}}};
  const std::string bytes = Encode(leaving);
  const auto back = DecodeLeaving(bytes);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(Encode(*back), bytes);
  EXPECT_EQ(back->Find(Node(1), {10})->seen.Get(kWriter), HybridTime{5});
  EXPECT_THAT(back->leaders, ElementsAre(RecordKey{kMember, {}}));
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_TRUE(absl::IsDataLoss(DecodeLeaving(bytes.substr(0, size)).status())) << size;
  }
  EXPECT_TRUE(absl::IsDataLoss(DecodeLeaving(bytes + "x").status()));
}

// A node of Italy with a member and her consent, and two hubs.
class MissingTest : public testing::Test {
 protected:
  MissingTest() {
    options_.chapter = "italy";
    options_.entities = Rules();
    auto opened = Replica::Open(engine_, environment_, options_);
    EXPECT_TRUE(opened.ok()) << opened.status();
    node_ = *std::move(opened);
    WriteBatch batch;
    for (uint8_t hub = 1; hub <= 3; ++hub) {
      HubEpochs met;
      met.Meet(Hub(hub).epoch, environment_.NowMs());
      batch.Put(Table::kMeta, keys::HubEpochsOf(Node(hub)), Encode(met));
    }
    EXPECT_TRUE(engine_.Write(batch).ok());
  }

  PeerIdentity Hub(uint8_t number) {
    PeerIdentity hub{.node = Node(number),
                     .replica = {uint64_t{number} << kLineageShift},
                     .epoch = {number},
                     .hub = true};
    for (const auto& [entity, rule] : options_.entities) hub.entities[entity] = rule.fingerprint;
    return hub;
  }
  void Put(const RecordKey& key, CellWrite cell) {
    const auto results = node_->Write({{.kind = LocalWrite::Kind::kUpsert,
                                        .key = key,
                                        .actor = "milan",
                                        .cells = {std::move(cell)}}});
    ASSERT_TRUE(results.ok() && results->front().status.ok());
  }
  // The hub has all that is here, and says that the record has left.
  void Leaves(uint8_t hub, const RecordKey& key) {
    AcknowledgeRequest stored{.peer = Hub(hub),
                              .through = node_->FeedEnds({Scope::All()})->front().sequence};
    stored.told_as = node_->replica_id();
    ASSERT_TRUE(node_->Acknowledge(stored).ok());
    ASSERT_TRUE(node_->Apply({.peer = Hub(hub), .left = {{key, SeenUpTo(1)}}}).ok());
    ASSERT_TRUE(absl::IsNotFound(node_->Read(key).status()));
  }
  std::vector<RecordKey> Missing(uint8_t hub) {
    auto missing = node_->FindMissing(Hub(hub));
    EXPECT_TRUE(missing.ok()) << missing.status();
    return missing.ok() ? *std::move(missing) : std::vector<RecordKey>();
  }

  MemoryEngine engine_;
  FixedEnvironment environment_;
  ReplicaOptions options_;
  std::unique_ptr<Replica> node_;
};

TEST_F(MissingTest, OfWhatOneHubHadDroppedAnotherIsAskedWhereItsLeaderIsHeld) {
  const RecordKey consent = Key(5, kConsent);
  Put(Key(1), Text(kChapter, "italy"));
  Put(consent, Text(kLeader, Key(1).id.ToString()));
  Leaves(1, consent);
  EXPECT_THAT(Missing(1), IsEmpty());
  EXPECT_THAT(Missing(2), ElementsAre(consent));
  EXPECT_THAT(Missing(2), ElementsAre(consent)) << "until it answers";
  ASSERT_TRUE(node_->Apply({.peer = Hub(2), .left = {{consent, {}}}}).ok());
  EXPECT_THAT(Missing(2), IsEmpty());
  EXPECT_THAT(Missing(3), ElementsAre(consent));
  // What cannot be read stops nothing.
  WriteBatch batch;
  batch.Put(Table::kMeta, keys::Dropped(Key(4, kConsent)), "damaged");
  ASSERT_TRUE(engine_.Write(batch).ok());
  EXPECT_THAT(Missing(3), ElementsAre(consent));
  Leaves(1, Key(1));
  EXPECT_THAT(Missing(3), IsEmpty()) << "nothing tells of the member, who has left as well";
}

TEST_F(MissingTest, WhatWasDroppedComesBackInTheStateThatItWasDroppedIn) {
  // Whatever another hub says of what is not here any more.
  Put(Key(1), Text(kChapter, "italy"));
  RecordUpdate back{.state = node_->Read(Key(1))->record};
  Leaves(1, Key(1));
  ASSERT_TRUE(node_->Apply({.peer = Hub(2), .left = {{Key(1), SeenUpTo(100)}}}).ok());
  const auto offer = [&] {
    const auto result =
        node_->Apply({.peer = Hub(1), .records = {{Sequence{1}, Key(1), EncodeUpdate(back)}}});
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() && result->outcomes.front().taken_back;
  };
  EXPECT_FALSE(offer()) << "the hub is behind what it said";
  back.state.seen.Unite(SeenUpTo(1));
  EXPECT_TRUE(offer());
}

TEST_F(MissingTest, OfManyRefusedWritesTheRecordsAreAskedForInTurn) {
  WriteBatch batch;
  for (uint32_t number = 1; number <= kMissingAskedMax + 2; ++number) {
    const RefusedWrite refused{
        .number = number, .key = Key(number), .actor = "milan", .reason = "no"};
    batch.Put(Table::kMeta, keys::Refused(number), EncodeRefused(refused));
  }
  ASSERT_TRUE(engine_.Write(batch).ok());
  EXPECT_THAT(Missing(1), SizeIs(kMissingAskedMax));
  EXPECT_THAT(Missing(1), SizeIs(2));
  EXPECT_THAT(Missing(1), SizeIs(kMissingAskedMax));
}

}  // namespace
}  // namespace chaptersync::storage
