// SPDX-License-Identifier: Apache-2.0
//
// What storage/engine/engine.h promises, sentence by sentence, for whatever engine the program
// is linked with.
#include "tests/storage/engine/engine_contract_test.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "storage/engine/engine.h"

namespace chaptersync::storage {
namespace {

using std::string_literals::operator""s;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr Table kTables[] = {Table::kRecord, Table::kFeed, Table::kIndex, Table::kMeta};

std::string NumberedKey(int number) {
  std::string digits = std::to_string(number);
  return "batch/" + std::string(8 - digits.size(), '0') + digits;
}

std::vector<std::string> KeysForward(Iterator& iterator) {
  std::vector<std::string> keys;
  for (iterator.SeekToFirst(); iterator.Valid(); iterator.Next()) {
    keys.emplace_back(iterator.key());
  }
  EXPECT_TRUE(Ok(iterator.status()));
  return keys;
}

std::vector<std::string> KeysBackward(Iterator& iterator) {
  std::vector<std::string> keys;
  for (iterator.SeekToLast(); iterator.Valid(); iterator.Prev()) {
    keys.emplace_back(iterator.key());
  }
  EXPECT_TRUE(Ok(iterator.status()));
  return keys;
}

std::vector<std::string> Keys(const Engine& engine, Table table, std::string_view lower = "",
                              std::string_view upper = "") {
  return KeysForward(*engine.NewSnapshot()->NewIterator(table, lower, upper));
}

std::string Read(const absl::StatusOr<std::string>& value) {
  return value.ok() ? *value : absl::StatusCodeToString(value.status().code());
}

}  // namespace

WriteBatch NumberedBatch(int number) {
  WriteBatch batch;
  for (const Table table : kTables) {
    batch.Put(table, NumberedKey(number), std::to_string(number) + "/" + std::string(1000, 'x'));
  }
  return batch;
}

testing::AssertionResult CountNumberedBatches(const Engine& engine, int* count) {
  const std::vector<std::string> keys = Keys(engine, Table::kRecord, "batch/", "batch0");
  *count = static_cast<int>(keys.size());
  for (const Table table : kTables) {
    if (Keys(engine, table, "batch/", "batch0") != keys) {
      return testing::AssertionFailure()
             << "table " << static_cast<int>(table) << " has other batches than table 0";
    }
  }
  for (int number = 0; number < *count; ++number) {
    if (keys[static_cast<size_t>(number)] != NumberedKey(number)) {
      return testing::AssertionFailure() << "batch " << number << " of " << *count << " is missing";
    }
  }
  return testing::AssertionSuccess();
}

void EngineContractTest::Put(Table table, std::string_view key, std::string_view value) {
  WriteBatch batch;
  batch.Put(table, key, value);
  ASSERT_TRUE(Ok(engine().Write(batch)));
}

void EngineContractTest::Delete(Table table, std::string_view key) {
  WriteBatch batch;
  batch.Delete(table, key);
  ASSERT_TRUE(Ok(engine().Write(batch)));
}

std::string EngineContractTest::Get(Table table, std::string_view key) {
  return Read(engine().Get(table, key));
}

// --- Batches -------------------------------------------------------------------------------------

TEST_P(EngineContractTest, PutOverwriteDelete) {
  EXPECT_EQ(Get(Table::kRecord, "k"), "NOT_FOUND");
  Put(Table::kRecord, "k", "1");
  EXPECT_EQ(Get(Table::kRecord, "k"), "1");
  Put(Table::kRecord, "k", "2");
  EXPECT_EQ(Get(Table::kRecord, "k"), "2");
  Delete(Table::kRecord, "k");
  EXPECT_EQ(Get(Table::kRecord, "k"), "NOT_FOUND");
  Put(Table::kRecord, "k", "3");
  EXPECT_EQ(Get(Table::kRecord, "k"), "3");
}

TEST_P(EngineContractTest, DeletingWhatIsNotThereIsNoError) {
  Delete(Table::kMeta, "nothing");
  EXPECT_THAT(Keys(engine(), Table::kMeta), IsEmpty());
}

TEST_P(EngineContractTest, EmptyBatchIsNoError) {
  EXPECT_TRUE(Ok(engine().Write(WriteBatch())));
  EXPECT_TRUE(Ok(engine().Sync()));
}

TEST_P(EngineContractTest, TablesAreKeySpacesOfTheirOwn) {
  WriteBatch batch;
  for (const Table table : kTables) {
    batch.Put(table, "k", std::to_string(static_cast<int>(table)));
  }
  ASSERT_TRUE(Ok(engine().Write(batch)));
  Delete(Table::kIndex, "k");
  EXPECT_EQ(Get(Table::kRecord, "k"), "0");
  EXPECT_EQ(Get(Table::kFeed, "k"), "1");
  EXPECT_EQ(Get(Table::kIndex, "k"), "NOT_FOUND");
  EXPECT_EQ(Get(Table::kMeta, "k"), "3");
}

TEST_P(EngineContractTest, LaterOperationOfABatchWins) {
  WriteBatch batch;
  batch.Put(Table::kRecord, "a", "1");
  batch.Put(Table::kRecord, "a", "2");
  batch.Put(Table::kRecord, "b", "1");
  batch.Delete(Table::kRecord, "b");
  batch.Delete(Table::kRecord, "c");
  batch.Put(Table::kRecord, "c", "1");
  ASSERT_TRUE(Ok(engine().Write(batch)));
  EXPECT_EQ(Get(Table::kRecord, "a"), "2");
  EXPECT_EQ(Get(Table::kRecord, "b"), "NOT_FOUND");
  EXPECT_EQ(Get(Table::kRecord, "c"), "1");
  ASSERT_TRUE(Ok(engine().Sync()));
  EXPECT_THAT(Keys(engine(), Table::kRecord), ElementsAre("a", "c"));
}

TEST_P(EngineContractTest, DeletesARangeAsItIsInTheBatch) {
  WriteBatch batch;
  for (const char* key : {"a", "b", "b1", "c"}) batch.Put(Table::kMeta, key, "1");
  batch.Put(Table::kIndex, "b", "1");
  ASSERT_TRUE(Ok(engine().Write(batch)));
  const auto before = engine().NewSnapshot();
  batch.Clear();
  batch.Put(Table::kMeta, "b2", "put before");
  batch.DeleteRange(Table::kMeta, "b", "c");
  batch.Put(Table::kMeta, "b3", "put after");
  batch.DeleteRange(Table::kMeta, "x", "y");
  ASSERT_TRUE(Ok(engine().Write(batch)));
  EXPECT_THAT(Keys(engine(), Table::kMeta), ElementsAre("a", "b3", "c"));
  EXPECT_THAT(Keys(engine(), Table::kIndex), ElementsAre("b"));
  EXPECT_TRUE(before->Get(Table::kMeta, "b1").ok()) << "a snapshot keeps what it saw";
}

TEST_P(EngineContractTest, BatchCountsItsBytes) {
  WriteBatch batch;
  EXPECT_TRUE(batch.empty());
  batch.Put(Table::kRecord, "key", "value");
  batch.Delete(Table::kMeta, "other");
  EXPECT_EQ(batch.bytes(), 13u);
  EXPECT_EQ(batch.operations().size(), 2u);
  batch.Clear();
  EXPECT_TRUE(batch.empty());
  EXPECT_EQ(batch.bytes(), 0u);
}

// --- Keys and values -----------------------------------------------------------------------------

TEST_P(EngineContractTest, EmptyKeysAndValues) {
  Put(Table::kRecord, "", "value of the empty key");
  Put(Table::kRecord, "a", "");
  EXPECT_EQ(Get(Table::kRecord, ""), "value of the empty key");
  EXPECT_EQ(Get(Table::kRecord, "a"), "");
  EXPECT_THAT(Keys(engine(), Table::kRecord), ElementsAre("", "a"));
  Delete(Table::kRecord, "");
  EXPECT_THAT(Keys(engine(), Table::kRecord), ElementsAre("a"));
}

TEST_P(EngineContractTest, KeysAreOrderedAsUnsignedBytes) {
  const std::vector<std::string> ordered = {"\0"s,   "\0\0"s,   "\0\xff"s,  "a"s,     "a\0"s,
                                            "aa"s,   "a\x7f"s,  "a\x80"s,   "a\xff"s, "\x80"s,
                                            "\xff"s, "\xff\0"s, "\xff\xff"s};
  for (auto key = ordered.rbegin(); key != ordered.rend(); ++key) {
    Put(Table::kFeed, *key, *key + "\0\xff"s);
  }
  EXPECT_EQ(Keys(engine(), Table::kFeed), ordered);
  for (const std::string& key : ordered) EXPECT_EQ(Get(Table::kFeed, key), key + "\0\xff"s);
  EXPECT_THAT(Keys(engine(), Table::kFeed, "a\0"s, "a\xff"s),
              ElementsAre("a\0"s, "aa", "a\x7f"s, "a\x80"s));
}

TEST_P(EngineContractTest, LargeValues) {
  std::string value(8 << 20, '\0');
  for (size_t i = 0; i < value.size(); ++i) value[i] = static_cast<char>(i * 31 >> 3);
  Put(Table::kRecord, "large", value);
  Put(Table::kRecord, "small", "s");
  ASSERT_TRUE(Ok(engine().Sync()));
  under_test().CrashAndReopen(0);
  EXPECT_EQ(Get(Table::kRecord, "large"), value);
  EXPECT_EQ(Get(Table::kRecord, "small"), "s");
}

// --- Iterators -----------------------------------------------------------------------------------

TEST_P(EngineContractTest, IteratorKeepsToItsBounds) {
  for (const char* key : {"a", "b", "c", "d", "e"}) Put(Table::kRecord, key, key);
  const auto snapshot = engine().NewSnapshot();
  const auto forward = [&](std::string_view lower, std::string_view upper) {
    return KeysForward(*snapshot->NewIterator(Table::kRecord, lower, upper));
  };
  const auto backward = [&](std::string_view lower, std::string_view upper) {
    return KeysBackward(*snapshot->NewIterator(Table::kRecord, lower, upper));
  };
  EXPECT_THAT(forward("", ""), ElementsAre("a", "b", "c", "d", "e"));
  EXPECT_THAT(backward("", ""), ElementsAre("e", "d", "c", "b", "a"));
  EXPECT_THAT(forward("b", "d"), ElementsAre("b", "c"));
  EXPECT_THAT(backward("b", "d"), ElementsAre("c", "b"));
  EXPECT_THAT(forward("bb", "dd"), ElementsAre("c", "d"));
  EXPECT_THAT(backward("bb", "dd"), ElementsAre("d", "c"));
  EXPECT_THAT(forward("c", ""), ElementsAre("c", "d", "e"));
  EXPECT_THAT(backward("c", ""), ElementsAre("e", "d", "c"));
  EXPECT_THAT(forward("", "c"), ElementsAre("a", "b"));
  EXPECT_THAT(backward("", "c"), ElementsAre("b", "a"));
  for (const auto& [lower, upper] : std::vector<std::pair<std::string, std::string>>{
           {"c", "c"}, {"d", "b"}, {"f", ""}, {"bb", "bc"}, {"x", "z"}}) {
    EXPECT_THAT(forward(lower, upper), IsEmpty()) << lower << " to " << upper;
    EXPECT_THAT(backward(lower, upper), IsEmpty()) << lower << " to " << upper;
  }
}

TEST_P(EngineContractTest, IteratorOwnsItsBounds) {
  for (const char* key : {"a", "b", "c", "d"}) Put(Table::kRecord, key, key);
  std::string lower = "b";
  std::string upper = "d";
  const auto iterator = engine().NewSnapshot()->NewIterator(Table::kRecord, lower, upper);
  lower.assign(100, 'z');
  upper.assign(100, '\0');
  EXPECT_THAT(KeysForward(*iterator), ElementsAre("b", "c"));
  EXPECT_THAT(KeysBackward(*iterator), ElementsAre("c", "b"));
}

TEST_P(EngineContractTest, IteratorSeeks) {
  for (const char* key : {"a", "c", "e", "g"}) Put(Table::kRecord, key, key);
  const auto iterator = engine().NewSnapshot()->NewIterator(Table::kRecord, "b", "f");
  EXPECT_FALSE(iterator->Valid());
  const auto seek = [&](std::string_view target) {
    iterator->Seek(target);
    return iterator->Valid() ? std::string(iterator->key()) : "end";
  };
  EXPECT_EQ(seek(""), "c");
  EXPECT_EQ(seek("a"), "c");
  EXPECT_EQ(seek("c"), "c");
  EXPECT_EQ(seek("c\0"s), "e");
  EXPECT_EQ(seek("f"), "end");
  EXPECT_EQ(seek("z"), "end");
  EXPECT_TRUE(Ok(iterator->status()));
  EXPECT_EQ(seek("d"), "e");
}

TEST_P(EngineContractTest, IteratorTurnsRound) {
  for (const char* key : {"a", "b", "c"}) Put(Table::kRecord, key, "value of "s + key);
  const auto iterator = engine().NewSnapshot()->NewIterator(Table::kRecord, "", "");
  iterator->SeekToFirst();
  iterator->Next();
  iterator->Prev();
  ASSERT_TRUE(iterator->Valid());
  EXPECT_EQ(iterator->key(), "a");
  iterator->SeekToLast();
  iterator->Prev();
  iterator->Next();
  ASSERT_TRUE(iterator->Valid());
  EXPECT_EQ(iterator->key(), "c");
  EXPECT_EQ(iterator->value(), "value of c");
  iterator->Next();
  EXPECT_FALSE(iterator->Valid());
  iterator->SeekToFirst();
  iterator->Prev();
  EXPECT_FALSE(iterator->Valid());
  EXPECT_TRUE(Ok(iterator->status()));
}

// --- Snapshots -----------------------------------------------------------------------------------

TEST_P(EngineContractTest, SnapshotSeesOneMoment) {
  Put(Table::kRecord, "changed", "before");
  Put(Table::kRecord, "deleted", "before");
  const auto snapshot = engine().NewSnapshot();
  const auto iterator = snapshot->NewIterator(Table::kRecord, "", "");
  Put(Table::kRecord, "changed", "after");
  Put(Table::kRecord, "added", "after");
  Delete(Table::kRecord, "deleted");
  ASSERT_TRUE(Ok(engine().Sync()));
  EXPECT_EQ(Read(snapshot->Get(Table::kRecord, "changed")), "before");
  EXPECT_EQ(Read(snapshot->Get(Table::kRecord, "deleted")), "before");
  EXPECT_EQ(Read(snapshot->Get(Table::kRecord, "added")), "NOT_FOUND");
  EXPECT_THAT(KeysForward(*iterator), ElementsAre("changed", "deleted"));
  EXPECT_THAT(KeysBackward(*snapshot->NewIterator(Table::kRecord, "", "")),
              ElementsAre("deleted", "changed"));
  EXPECT_THAT(Keys(engine(), Table::kRecord), ElementsAre("added", "changed"));
}

TEST_P(EngineContractTest, IteratorOutlivesItsSnapshot) {
  Put(Table::kRecord, "a", "1");
  Put(Table::kRecord, "b", "1");
  auto snapshot = engine().NewSnapshot();
  const auto iterator = snapshot->NewIterator(Table::kRecord, "", "");
  iterator->SeekToFirst();
  snapshot.reset();
  Delete(Table::kRecord, "a");
  Put(Table::kRecord, "b", "2");
  ASSERT_TRUE(Ok(engine().Sync()));
  ASSERT_TRUE(iterator->Valid());
  EXPECT_EQ(iterator->key(), "a");
  EXPECT_EQ(iterator->value(), "1");
  iterator->Next();
  ASSERT_TRUE(iterator->Valid());
  EXPECT_EQ(iterator->value(), "1");
}

// Random changes, snapshots taken and dropped, syncs and crashes, against a plain map.
TEST_P(EngineContractTest, AgreesWithAPlainMap) {
  using State = std::map<std::pair<Table, std::string>, std::string>;
  const auto expect_same = [](const Snapshot& snapshot, const State& state) {
    for (const Table table : kTables) {
      auto entry = state.lower_bound({table, ""});
      const auto iterator = snapshot.NewIterator(table, "", "");
      for (iterator->SeekToFirst(); iterator->Valid(); iterator->Next(), ++entry) {
        ASSERT_TRUE(entry != state.end() && entry->first.first == table);
        ASSERT_EQ(entry->first.second, iterator->key());
        ASSERT_EQ(entry->second, iterator->value());
      }
      ASSERT_TRUE(entry == state.end() || entry->first.first != table);
    }
  };
  std::mt19937 random(20240607);  // NOLINT: the same run every time
  const auto upto = [&random](int n) {
    return static_cast<int>(random() % static_cast<unsigned>(n));
  };
  std::vector<State> unsynced(1);  // the last durable state, and the one after each batch since
  std::vector<std::pair<std::unique_ptr<Snapshot>, State>> snapshots;
  int crashes = 0;
  for (int step = 0; step < 6000; ++step) {
    const int choice = upto(1000);
    if (choice < 850) {
      WriteBatch batch;
      State state = unsynced.back();
      for (int i = upto(4); i >= 0; --i) {
        const Table table = kTables[upto(kTableCount)];
        const std::string key = std::to_string(upto(20));
        if (upto(3) == 0) {
          batch.Delete(table, key);
          state.erase({table, key});
        } else if (upto(8) == 0) {
          const std::string upper = std::to_string(upto(20));
          batch.DeleteRange(table, key, upper);
          if (key < upper) {
            state.erase(state.lower_bound({table, key}), state.lower_bound({table, upper}));
          }
        } else {
          const std::string value = std::to_string(step);
          batch.Put(table, key, value);
          state[{table, key}] = value;
        }
      }
      ASSERT_TRUE(Ok(engine().Write(batch)));
      unsynced.push_back(std::move(state));
    } else if (choice < 900) {
      snapshots.emplace_back(engine().NewSnapshot(), unsynced.back());
    } else if (choice < 950 && !snapshots.empty()) {
      const auto chosen = snapshots.begin() + upto(static_cast<int>(snapshots.size()));
      ASSERT_NO_FATAL_FAILURE(expect_same(*chosen->first, chosen->second)) << step;
      snapshots.erase(chosen);
    } else if (choice < 995) {
      ASSERT_TRUE(Ok(engine().Sync()));
      unsynced.erase(unsynced.begin(), unsynced.end() - 1);
    } else {
      ++crashes;
      snapshots.clear();
      under_test().CrashAndReopen(upto(5) / 4.0);
      const auto now = engine().NewSnapshot();
      State left;
      for (const Table table : kTables) {
        const auto iterator = now->NewIterator(table, "", "");
        for (iterator->SeekToFirst(); iterator->Valid(); iterator->Next()) {
          left[{table, std::string(iterator->key())}] = iterator->value();
        }
      }
      ASSERT_THAT(unsynced, testing::Contains(left)) << "not a prefix, step " << step;
      unsynced = {std::move(left)};
      ASSERT_TRUE(Ok(engine().Sync()));
    }
    if (step % 100 == 0) {
      ASSERT_NO_FATAL_FAILURE(expect_same(*engine().NewSnapshot(), unsynced.back())) << step;
    }
  }
  EXPECT_GT(crashes, 5);
}

// --- Durability ----------------------------------------------------------------------------------

TEST_P(EngineContractTest, CrashLeavesAPrefixWithAllThatWasSynced) {
  for (const double kept : {0.0, 0.1, 0.37, 0.5, 0.93, 1.0}) {
    int before = 0;
    ASSERT_TRUE(CountNumberedBatches(engine(), &before));
    for (int i = before; i < before + 10; ++i) ASSERT_TRUE(Ok(engine().Write(NumberedBatch(i))));
    ASSERT_TRUE(Ok(engine().Sync()));
    for (int i = before + 10; i < before + 40; ++i) {
      ASSERT_TRUE(Ok(engine().Write(NumberedBatch(i))));
    }
    under_test().CrashAndReopen(kept);
    int after = 0;
    ASSERT_TRUE(CountNumberedBatches(engine(), &after)) << kept;
    EXPECT_GE(after, before + 10) << kept;
    EXPECT_LE(after, before + 40) << kept;
    if (kept == 0.0) {
      EXPECT_EQ(after, before + 10);
    } else if (kept == 1.0) {
      EXPECT_EQ(after, before + 40);
    }
  }
}

TEST_P(EngineContractTest, ThreadsWriteAndSync) {
  constexpr int kThreads = 8;
  constexpr int kWrites = 50;
  const auto key = [](int writer, int i) {
    return std::to_string(writer) + "/" + std::to_string(i);
  };
  std::vector<std::thread> threads;
  for (int writer = 0; writer < kThreads; ++writer) {
    threads.emplace_back([&, writer] {
      for (int i = 0; i < kWrites; ++i) {
        WriteBatch batch;
        batch.Put(Table::kRecord, key(writer, i), "value");
        batch.Put(Table::kFeed, key(writer, i), "");
        EXPECT_TRUE(Ok(engine().Write(batch)));
        EXPECT_TRUE(Ok(engine().Sync()));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  under_test().CrashAndReopen(0);
  for (int writer = 0; writer < kThreads; ++writer) {
    for (int i = 0; i < kWrites; ++i) EXPECT_EQ(Get(Table::kRecord, key(writer, i)), "value");
  }
  EXPECT_EQ(Keys(engine(), Table::kFeed).size(), size_t{kThreads * kWrites});
}

TEST_P(EngineContractTest, ReadersSeeWholeBatches) {
  constexpr int kBatches = 500;
  std::atomic<bool> done = false;
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&] {
      std::string last;
      while (!done) {
        const auto snapshot = engine().NewSnapshot();
        const std::string record = Read(snapshot->Get(Table::kRecord, "k"));
        EXPECT_EQ(record, Read(snapshot->Get(Table::kFeed, "k")));
        const auto iterator = snapshot->NewIterator(Table::kMeta, "", "");
        iterator->SeekToFirst();
        EXPECT_EQ(record, iterator->Valid() ? std::string(iterator->value()) : "NOT_FOUND");
        const std::string latest = Read(engine().Get(Table::kRecord, "k"));
        if (record == "NOT_FOUND") continue;
        EXPECT_GE(std::stoi(latest), std::stoi(record));
      }
    });
  }
  for (int i = 0; i < kBatches; ++i) {
    WriteBatch batch;
    const std::string number = std::to_string(i);
    batch.Put(Table::kRecord, "k", number);
    batch.Put(Table::kFeed, "k", number);
    batch.Put(Table::kMeta, "k" + number, number);
    if (i > 0) batch.Delete(Table::kMeta, "k" + std::to_string(i - 1));
    EXPECT_TRUE(Ok(engine().Write(batch)));
    if (i % 10 != 0) continue;
    EXPECT_TRUE(Ok(engine().Sync()));
  }
  done = true;
  for (std::thread& reader : readers) reader.join();
}

// --- Scrub and ingestion -------------------------------------------------------------------------

TEST_P(EngineContractTest, ScrubKeepsWhatIsThereAndLastsThroughACrash) {
  for (const char* key : {"a", "b", "c", "d"}) Put(Table::kRecord, key, "old");
  ASSERT_TRUE(Ok(engine().Sync()));
  Put(Table::kRecord, "b", "new");
  Delete(Table::kRecord, "c");
  ASSERT_TRUE(Ok(engine().Scrub(Table::kRecord, "b", "d")));
  under_test().CrashAndReopen(0);
  EXPECT_THAT(Keys(engine(), Table::kRecord), ElementsAre("a", "b", "d"));
  EXPECT_EQ(Get(Table::kRecord, "a"), "old");
  EXPECT_EQ(Get(Table::kRecord, "b"), "new");
  EXPECT_TRUE(Ok(engine().Scrub(Table::kRecord, "", "")));
  EXPECT_TRUE(Ok(engine().Scrub(Table::kIndex, "x", "a")));
  EXPECT_THAT(Keys(engine(), Table::kRecord), ElementsAre("a", "b", "d"));
}

TEST_P(EngineContractTest, IngestsFilesWhereItOffersTo) {
  FileIngester* const ingester = engine().file_ingester();
  if (ingester == nullptr) {
    EXPECT_TRUE(under_test().folder().empty()) << "an engine on disk offers it";
    return;
  }
  const std::string first = under_test().folder() + "/first";
  const std::string second = under_test().folder() + "/second";
  Put(Table::kRecord, "a1", "before");
  auto snapshot = engine().NewSnapshot();

  auto writer = ingester->NewFile(first);
  ASSERT_TRUE(Ok(writer.status()));
  EXPECT_TRUE(absl::IsFailedPrecondition((*writer)->Finish())) << "nothing was put";
  ASSERT_TRUE(Ok((*writer)->Put("", "empty key")));
  ASSERT_TRUE(Ok((*writer)->Put("a1", "file")));
  EXPECT_TRUE(absl::IsInvalidArgument((*writer)->Put("a1", "again")));
  EXPECT_TRUE(absl::IsInvalidArgument((*writer)->Put("a0", "back")));
  ASSERT_TRUE(Ok((*writer)->Put("a\xff", "file")));
  ASSERT_TRUE(Ok((*writer)->Finish()));
  EXPECT_TRUE(absl::IsFailedPrecondition((*writer)->Put("z", "late")));
  writer = ingester->NewFile(second);
  ASSERT_TRUE(Ok(writer.status()));
  ASSERT_TRUE(Ok((*writer)->Put("b", "file")));
  ASSERT_TRUE(Ok((*writer)->Finish()));

  EXPECT_FALSE(ingester->Ingest(Table::kRecord, {first, second + "-missing"}).ok());
  EXPECT_THAT(Keys(engine(), Table::kRecord), ElementsAre("a1"));
  ASSERT_TRUE(Ok(ingester->Ingest(Table::kRecord, {first, second})));
  EXPECT_TRUE(Ok(ingester->Ingest(Table::kRecord, {})));
  EXPECT_EQ(Get(Table::kRecord, "a1"), "file");
  EXPECT_THAT(KeysForward(*snapshot->NewIterator(Table::kRecord, "", "")), ElementsAre("a1"));
  EXPECT_EQ(Read(snapshot->Get(Table::kRecord, "a1")), "before");
  snapshot.reset();

  Put(Table::kRecord, "a1", "after");
  ASSERT_TRUE(Ok(engine().Sync()));
  under_test().CrashAndReopen(0);
  EXPECT_THAT(Keys(engine(), Table::kRecord), ElementsAre("", "a1", "a\xff", "b"));
  EXPECT_EQ(Get(Table::kRecord, "a1"), "after");

  FileIngester* const reopened = engine().file_ingester();
  ASSERT_NE(reopened, nullptr);
  writer = reopened->NewFile(first);
  ASSERT_TRUE(Ok(writer.status()));
  ASSERT_TRUE(Ok((*writer)->Put("k", "file")));
  ASSERT_TRUE(Ok((*writer)->Finish()));
  Put(Table::kMeta, "k", "batch");
  ASSERT_TRUE(Ok(reopened->Ingest(Table::kIndex, {first})));
  under_test().CrashAndReopen(0);
  EXPECT_EQ(Get(Table::kIndex, "k"), "file");
  EXPECT_EQ(Get(Table::kMeta, "k"), "batch") << "files must not overtake batches";
}

}  // namespace chaptersync::storage
