// SPDX-License-Identifier: Apache-2.0
//
// The replica's own promises: atomic batches, durable before acknowledged, what
// is refused changes nothing, and faults of the engine under it.
#include "storage/replica/replica.h"

#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "storage/core/limits.h"
#include "storage/engine/memory_engine.h"

namespace chaptersync::storage {
namespace {

using testing::HasSubstr;

constexpr EntityNumber kEntity{1};

class FixedEnvironment : public Environment {
 public:
  uint64_t NowMs() override { return now_ms; }
  uint64_t Random() override { return ++random; }
  uint64_t now_ms = 1'700'000'000'000;
  std::atomic<uint64_t> random = 1;
};

RecordKey Key(uint32_t number) {
  RecordKey key{kEntity, {}};
  for (size_t i = 0; i < 4; ++i) key.id.bytes[i] = static_cast<uint8_t>(number >> (24 - 8 * i));
  return key;
}

LocalWrite Put(const RecordKey& key, uint32_t field, const std::string& value) {
  return {.kind = LocalWrite::Kind::kUpsert,
          .key = key,
          .actor = "a@hq",
          .cells = {{{.field = field, .map_key = {}}, value}}};
}

class ReplicaTest : public testing::Test {
 protected:
  ReplicaTest() { Open(); }

  void Open() {
    replica_.reset();
    ReplicaOptions options;
    options.hub = true;
    options.entities[kEntity] = {};
    auto opened = Replica::Open(engine_, environment_, options);
    ASSERT_TRUE(opened.ok()) << opened.status();
    replica_ = *std::move(opened);
  }

  absl::Status Write(const LocalWrite& write) {
    auto results = replica_->Write({write});
    return results.ok() ? results->front().status : results.status();
  }

  std::string Value(const RecordKey& key, uint32_t field) {
    auto stored = replica_->Read(key);
    if (!stored.ok()) return "(no record)";
    const Cell* cell = stored->record.Find({.field = field, .map_key = {}});
    return cell == nullptr ? "(none)" : cell->value.value_or("(cleared)");
  }

  MemoryEngine engine_;
  FixedEnvironment environment_;
  std::unique_ptr<Replica> replica_;
};

TEST_F(ReplicaTest, AnAcknowledgedWriteSurvivesACrash) {
  ASSERT_TRUE(Write(Put(Key(1), 1, "x")).ok());
  const ReplicaId id = replica_->replica_id();
  const HybridTime clock = replica_->Clock().hybrid;
  engine_.Crash();
  Open();
  EXPECT_EQ(Value(Key(1), 1), "x");
  EXPECT_EQ(replica_->replica_id(), id);
  EXPECT_EQ(replica_->Clock().hybrid, clock) << "a version could be used twice";
}

TEST_F(ReplicaTest, AFullDiskRefusesTheWriteAndKeepsNothingOfIt) {
  ASSERT_TRUE(Write(Put(Key(1), 1, "x")).ok());
  engine_.FailNextWrites(1, absl::ResourceExhaustedError("the disk is full"));
  EXPECT_EQ(Write(Put(Key(1), 1, "y")).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Value(Key(1), 1), "x");
  ASSERT_TRUE(Write(Put(Key(1), 1, "z")).ok());
  EXPECT_EQ(Value(Key(1), 1), "z");
  auto ends = replica_->FeedEnds({Scope::All()});
  ASSERT_TRUE(ends.ok());
  EXPECT_EQ((*ends)[0].sequence.value, 2u) << "the failed write took no place in the feed";
}

TEST_F(ReplicaTest, AFailedSyncIsNotAcknowledgedAndTheEngineTakesNoMore) {
  engine_.FailNextSyncs(1, absl::DataLossError("fsync failed"));
  EXPECT_EQ(Write(Put(Key(1), 1, "x")).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(Write(Put(Key(2), 1, "x")).code(), absl::StatusCode::kDataLoss);
  engine_.Crash();
  Open();
  EXPECT_EQ(Value(Key(1), 1), "(no record)");
  EXPECT_TRUE(Write(Put(Key(1), 1, "again")).ok());
}

TEST_F(ReplicaTest, ManyWritersAtOnceLoseNothingInACrash) {
  constexpr uint32_t kThreads = 4;
  constexpr uint32_t kWrites = 100;
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (uint32_t i = 0; i < kWrites; ++i) {
        EXPECT_TRUE(Write(Put(Key(t * kWrites + i), 1, std::to_string(i))).ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  engine_.Crash();
  Open();
  std::set<Sequence> places;
  for (uint32_t i = 0; i < kThreads * kWrites; ++i) {
    EXPECT_EQ(Value(Key(i), 1), std::to_string(i % kWrites));
    places.insert(replica_->Read(Key(i))->meta.latest);
  }
  EXPECT_EQ(places.size(), kThreads * kWrites) << "two records share a place in the feed";
}

TEST_F(ReplicaTest, EachWriteOfABatchSucceedsOrFailsByItself) {
  ASSERT_TRUE(Write(Put(Key(1), 1, "x")).ok());
  ASSERT_TRUE(Write({.kind = LocalWrite::Kind::kDelete, .key = Key(1)}).ok());
  auto results =
      replica_->Write({Put(Key(2), 1, "a"), Put(Key(1), 1, "deleted"), Put(Key(2), 2, "b"),
                       Put(Key(3), 1, std::string(kCellBytesMax + 1, 'x'))});
  ASSERT_TRUE(results.ok());
  EXPECT_TRUE((*results)[0].status.ok() && (*results)[0].created);
  EXPECT_EQ((*results)[1].status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE((*results)[2].status.ok() && !(*results)[2].created && (*results)[2].changed);
  EXPECT_EQ((*results)[3].status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string((*results)[3].status.message()), HasSubstr("at most"));
  EXPECT_EQ(Value(Key(2), 2), "b");
  EXPECT_EQ(Value(Key(3), 1), "(no record)");
}

TEST_F(ReplicaTest, WritingWhatIsHeldIsNoWrite) {
  ASSERT_TRUE(Write(Put(Key(1), 1, "x")).ok());
  const HybridTime clock = replica_->Clock().hybrid;
  auto results = replica_->Write({Put(Key(1), 1, "x")});
  ASSERT_TRUE(results.ok());
  EXPECT_FALSE((*results)[0].changed);
  EXPECT_EQ(replica_->Clock().hybrid, clock) << "it ticked";
}

TEST_F(ReplicaTest, ADryRunKeepsNothing) {
  auto results = replica_->Write({Put(Key(1), 1, "x")}, true);
  ASSERT_TRUE(results.ok());
  EXPECT_TRUE((*results)[0].created);
  EXPECT_EQ(Value(Key(1), 1), "(no record)");
  EXPECT_EQ(replica_->Clock().hybrid, HybridTime{});
}

TEST_F(ReplicaTest, AWriteMadeFromAnOlderStateIsAborted) {
  ASSERT_TRUE(Write(Put(Key(1), 1, "x")).ok());
  LocalWrite write = Put(Key(1), 2, "made from x");
  write.made_from = replica_->Read(Key(1))->meta.latest;
  ASSERT_TRUE(Write(Put(Key(1), 1, "y")).ok());
  auto results = replica_->Write({Put(Key(2), 1, "same batch"), write});
  EXPECT_EQ(results.status().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(Value(Key(1), 2), "(none)");
  EXPECT_EQ(Value(Key(2), 1), "(no record)") << "nothing of an aborted batch is written";
}

TEST_F(ReplicaTest, OverLimitsIsRefusedWithTheLimit) {
  std::vector<LocalWrite> many(kBatchWritesMax + 1, Put(Key(1), 1, "x"));
  EXPECT_THAT(std::string(replica_->Write(many).status().message()), HasSubstr("at most 1000"));
  LocalWrite wide{.kind = LocalWrite::Kind::kUpsert, .key = Key(1)};
  for (uint32_t i = 0; i <= kCellsMax; ++i) {
    wide.cells.push_back({{.field = 1, .map_key = std::to_string(i)}, "v"});
  }
  EXPECT_EQ(Write(wide).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Value(Key(1), 1), "(no record)");
}

TEST_F(ReplicaTest, ListsAndFindsInTheOrderOfIds) {
  for (uint32_t i = 0; i < 20; ++i) ASSERT_TRUE(Write(Put(Key(i << 24 | i), 1, "x")).ok());
  auto page = replica_->List(kEntity, std::nullopt, 7);
  ASSERT_TRUE(page.ok());
  ASSERT_EQ(page->size(), 7u);
  auto rest = replica_->List(kEntity, page->back().first.id, 100);
  ASSERT_TRUE(rest.ok());
  EXPECT_EQ(rest->size(), 13u);
  EXPECT_EQ(replica_->FindIds(kEntity, Key(3 << 24).id, 8, 10)->size(), 1u);
  EXPECT_EQ(replica_->FindIds(kEntity, RecordId{}, 3, 100)->size(), 20u);
}

TEST_F(ReplicaTest, AClockThatWasObservedDoesNotGoBackInACrash) {
  // A hub that crashed after a handshake stamped its next write before what the node had.
  const HybridTime theirs = HybridTime::FromWall(environment_.now_ms + 30'000);
  const PeerIdentity peer{
      .replica = {uint64_t{7} << kLineageShift}, .epoch = {1}, .scopes = {Scope::Global()}};
  HelloFacts hello;
  ASSERT_TRUE(replica_->AcceptPeer(peer, hello).ok());
  hello.clock.hybrid = theirs;
  ASSERT_TRUE(replica_->AcceptPeer(peer, hello).ok());
  engine_.Crash();
  Open();
  ASSERT_TRUE(Write(Put(Key(1), 1, "x")).ok());
  EXPECT_GT(replica_->Read(Key(1))->record.Find({.field = 1, .map_key = {}})->version.time, theirs);
}

TEST_F(ReplicaTest, CountsLiveRecordsWithEveryCommit) {
  const auto count = [&] { return replica_->CountRecords()[kEntity]; };
  EXPECT_EQ(count(), 0u);
  for (uint32_t i = 0; i < 5; ++i) ASSERT_TRUE(Write(Put(Key(i), 1, "x")).ok());
  ASSERT_TRUE(Write(Put(Key(1), 1, "y")).ok());
  EXPECT_EQ(count(), 5u);
  ASSERT_TRUE(Write({.kind = LocalWrite::Kind::kDelete, .key = Key(1)}).ok());
  ASSERT_TRUE(Write({.kind = LocalWrite::Kind::kDelete, .key = Key(2)}).ok());
  ASSERT_TRUE(Write({.kind = LocalWrite::Kind::kRestore, .key = Key(2)}).ok());
  ASSERT_TRUE(Write({.kind = LocalWrite::Kind::kErase, .key = Key(1)}).ok());
  ASSERT_TRUE(Write({.kind = LocalWrite::Kind::kErase, .key = Key(3)}).ok());
  EXPECT_EQ(count(), 3u);
  engine_.FailNextWrites(1, absl::ResourceExhaustedError("the disk is full"));
  EXPECT_FALSE(Write(Put(Key(9), 1, "x")).ok());
  EXPECT_EQ(count(), 3u) << "a failed write counts for nothing";
  engine_.Crash();
  Open();
  EXPECT_EQ(count(), 3u);
}

TEST_F(ReplicaTest, ListenersHearOfDurableCommitsOnly) {
  std::vector<ChangeKind> heard;
  const uint64_t number = replica_->Subscribe(
      [&](const std::vector<ChangeEvent>& events) { heard.push_back(events.at(0).kind); });
  ASSERT_TRUE(Write(Put(Key(1), 1, "x")).ok());
  ASSERT_TRUE(Write(Put(Key(1), 1, "y")).ok());
  ASSERT_TRUE(Write({.kind = LocalWrite::Kind::kDelete, .key = Key(1)}).ok());
  ASSERT_TRUE(Write({.kind = LocalWrite::Kind::kRestore, .key = Key(1)}).ok());
  ASSERT_TRUE(Write({.kind = LocalWrite::Kind::kErase, .key = Key(1)}).ok());
  EXPECT_THAT(heard,
              testing::ElementsAre(ChangeKind::kCreated, ChangeKind::kChanged, ChangeKind::kDeleted,
                                   ChangeKind::kRestored, ChangeKind::kErased));
  engine_.FailNextSyncs(1, absl::DataLossError("fsync failed"));
  EXPECT_FALSE(Write(Put(Key(2), 1, "x")).ok());
  EXPECT_EQ(heard.size(), 5u);
  replica_->Unsubscribe(number);
}

TEST_F(ReplicaTest, OpeningAsTheOtherRoleOrANewerFormatIsRefused) {
  replica_.reset();
  ReplicaOptions options;
  options.chapter = "italy";
  EXPECT_THAT(std::string(Replica::Open(engine_, environment_, options).status().message()),
              HasSubstr("hub's, not a node's"));
  WriteBatch batch;
  batch.Put(Table::kMeta, "F", "\x09h");
  ASSERT_TRUE(engine_.Write(batch).ok());
  options.hub = true;
  EXPECT_THAT(std::string(Replica::Open(engine_, environment_, options).status().message()),
              HasSubstr("format 9, this program reads format 1"));
}

// What is followed until a peer has it keeps its end where it is, unless what is unsent moves on.
TEST_F(ReplicaTest, WhatIsUnsentIsFollowedWhereItMoves) {
  const ReplicaId peer{77};
  for (uint32_t i = 1; i <= 4; ++i) ASSERT_TRUE(Write(Put(Key(i), 1, "x")).ok());
  const uint64_t watch = replica_->WatchUnsent(peer, {1});
  EXPECT_EQ(replica_->UnsentThrough(watch).value, 4u);
  ASSERT_TRUE(Write(Put(Key(5), 1, "new")).ok());
  EXPECT_EQ(replica_->UnsentThrough(watch).value, 4u) << "it was not there";
  ASSERT_TRUE(Write(Put(Key(1), 1, "y")).ok());
  EXPECT_EQ(replica_->UnsentThrough(watch).value, 4u) << "the peer had it";
  ASSERT_TRUE(Write(Put(Key(2), 1, "y")).ok());
  EXPECT_EQ(replica_->UnsentThrough(watch).value, 7u);
  ASSERT_TRUE(Write(Put(Key(2), 1, "z")).ok());
  EXPECT_EQ(replica_->UnsentThrough(watch).value, 8u) << "it moved twice";
  engine_.FailNextWrites(1, absl::ResourceExhaustedError("the disk is full"));
  EXPECT_FALSE(Write(Put(Key(3), 1, "y")).ok());
  EXPECT_EQ(replica_->UnsentThrough(watch).value, 8u);
  replica_->EndWatch(watch);
  EXPECT_EQ(replica_->UnsentThrough(watch).value, 0u);
}

}  // namespace
}  // namespace chaptersync::storage
