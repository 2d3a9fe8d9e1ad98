// SPDX-License-Identifier: Apache-2.0
//
// The engine in memory: the contract of all engines, and the faults that a test can order: failed
// writes, failed syncs, crashes that keep a part of what was not synced.
#include "storage/engine/memory_engine.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "gtest/gtest.h"

#include "storage/engine/engine.h"
#include "tests/storage/engine/engine_contract_test.h"

namespace chaptersync::storage {
namespace {

class MemoryEngineUnderTest final : public EngineUnderTest {
 public:
  Engine& engine() override { return engine_; }
  void CrashAndReopen(double kept) override {
    engine_.Crash(
        static_cast<size_t>(std::floor(kept * static_cast<double>(engine_.unsynced_batches()))));
  }

 private:
  MemoryEngine engine_;
};

std::unique_ptr<EngineUnderTest> Make() { return std::make_unique<MemoryEngineUnderTest>(); }

INSTANTIATE_TEST_SUITE_P(Memory, EngineContractTest, testing::Values(EngineMaker{Make}));

class MemoryEngineTest : public testing::Test {
 protected:
  absl::Status Write(int number) { return engine_.Write(NumberedBatch(number)); }
  int Count() {
    int count = -1;
    EXPECT_TRUE(CountNumberedBatches(engine_, &count));
    return count;
  }

  MemoryEngine engine_;
};

TEST_F(MemoryEngineTest, CrashKeepsAsManyUnsyncedBatchesAsAsked) {
  for (size_t keep = 0; keep <= 6; ++keep) {
    MemoryEngine engine;
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(Ok(engine.Write(NumberedBatch(i))));
    ASSERT_TRUE(Ok(engine.Sync()));
    for (int i = 3; i < 8; ++i) ASSERT_TRUE(Ok(engine.Write(NumberedBatch(i))));
    EXPECT_EQ(engine.unsynced_batches(), 5u);
    engine.Crash(keep);
    EXPECT_EQ(engine.unsynced_batches(), 0u);
    int count = 0;
    ASSERT_TRUE(CountNumberedBatches(engine, &count));
    EXPECT_EQ(count, 3 + std::min<int>(static_cast<int>(keep), 5));
    engine.Crash();
    int again = 0;
    ASSERT_TRUE(CountNumberedBatches(engine, &again));
    EXPECT_EQ(again, count) << "what survived is durable";
  }
}

TEST_F(MemoryEngineTest, CrashBringsBackWhatWasOverwrittenAndDeleted) {
  WriteBatch before;
  before.Put(Table::kRecord, "changed", "before");
  before.Put(Table::kRecord, "deleted", "before");
  ASSERT_TRUE(Ok(engine_.Write(before)));
  ASSERT_TRUE(Ok(engine_.Sync()));
  WriteBatch after;
  after.Put(Table::kRecord, "changed", "after");
  after.Delete(Table::kRecord, "deleted");
  after.Put(Table::kRecord, "added", "after");
  ASSERT_TRUE(Ok(engine_.Write(after)));
  engine_.Crash();
  EXPECT_EQ(*engine_.Get(Table::kRecord, "changed"), "before");
  EXPECT_EQ(*engine_.Get(Table::kRecord, "deleted"), "before");
  EXPECT_TRUE(absl::IsNotFound(engine_.Get(Table::kRecord, "added").status()));
}

TEST_F(MemoryEngineTest, FailedWriteChangesNothingAndLaterOnesSucceed) {
  engine_.FailNextWrites(2, absl::ResourceExhaustedError("disk full"));
  EXPECT_EQ(Write(0), absl::ResourceExhaustedError("disk full"));
  EXPECT_EQ(Write(0), absl::ResourceExhaustedError("disk full"));
  EXPECT_EQ(Count(), 0);
  EXPECT_TRUE(Ok(Write(0)));
  EXPECT_TRUE(Ok(engine_.Sync()));
  engine_.Crash();
  EXPECT_EQ(Count(), 1);
}

TEST_F(MemoryEngineTest, WriteThatLosesDataBreaksTheEngineAndIsInDoubt) {
  ASSERT_TRUE(Ok(Write(0)));
  for (const bool survives : {false, true}) {
    engine_.FailNextWrites(1, absl::DataLossError("torn"));
    const int before = Count();
    EXPECT_TRUE(absl::IsDataLoss(Write(before)));
    EXPECT_EQ(Count(), before) << "not visible in either case";
    EXPECT_TRUE(absl::IsDataLoss(Write(before)));
    EXPECT_TRUE(absl::IsDataLoss(engine_.Sync()));
    engine_.Crash(engine_.unsynced_batches() - (survives ? 0 : 1));
    EXPECT_EQ(Count(), before + (survives ? 1 : 0));
    EXPECT_TRUE(Ok(engine_.Sync()));
  }
}

TEST_F(MemoryEngineTest, FailedSyncBreaksTheEngineUntilACrash) {
  ASSERT_TRUE(Ok(Write(0)));
  ASSERT_TRUE(Ok(engine_.Sync()));
  ASSERT_TRUE(Ok(Write(1)));
  ASSERT_TRUE(Ok(Write(2)));
  engine_.FailNextSyncs(1, absl::InternalError("fsync"));
  EXPECT_EQ(engine_.Sync(), absl::InternalError("fsync"));
  EXPECT_TRUE(absl::IsDataLoss(engine_.Sync()));
  EXPECT_TRUE(absl::IsDataLoss(Write(3)));
  EXPECT_TRUE(absl::IsDataLoss(engine_.Scrub(Table::kRecord, "", "")));
  EXPECT_EQ(Count(), 3) << "reading goes on";
  engine_.Crash(1);
  EXPECT_EQ(Count(), 2);
  EXPECT_TRUE(Ok(Write(2)));
  EXPECT_TRUE(Ok(engine_.Sync()));
}

TEST_F(MemoryEngineTest, FaultsOutliveACrash) {
  engine_.FailNextSyncs(2, absl::InternalError("fsync"));
  EXPECT_FALSE(engine_.Sync().ok());
  engine_.Crash();
  EXPECT_EQ(engine_.Sync(), absl::InternalError("fsync"));
  engine_.Crash();
  EXPECT_TRUE(Ok(engine_.Sync()));
}

TEST_F(MemoryEngineTest, SnapshotFromBeforeACrashIsRefused) {
  ASSERT_TRUE(Ok(Write(0)));
  auto snapshot = engine_.NewSnapshot();
  auto iterator = snapshot->NewIterator(Table::kRecord, "", "");
  iterator->SeekToFirst();
  engine_.Crash();
  iterator->Next();
  EXPECT_FALSE(iterator->Valid());
  EXPECT_TRUE(absl::IsFailedPrecondition(iterator->status()));
  iterator->SeekToFirst();
  EXPECT_FALSE(iterator->Valid());
  EXPECT_TRUE(absl::IsFailedPrecondition(snapshot->Get(Table::kRecord, "k").status()));
  ASSERT_TRUE(Ok(Write(0)));
  const auto now = engine_.NewSnapshot();
  snapshot.reset();
  iterator.reset();
  ASSERT_TRUE(Ok(engine_.Sync()));
  EXPECT_EQ(Count(), 1);
}

}  // namespace
}  // namespace chaptersync::storage
