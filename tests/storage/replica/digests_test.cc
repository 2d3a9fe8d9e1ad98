// SPDX-License-Identifier: Apache-2.0
//
// The digests of scopes: whatever is written, dropped, moved or erased, wherever the program
// starts again, and whatever is damaged, they are those of the records.
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "storage/engine/memory_engine.h"
#include "storage/replica/keys.h"
#include "storage/replica/replica.h"
#include "tests/storage/replica/small_schema.h"

namespace chaptersync::storage {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Key;
using testing::Pair;

class DigestsTest : public testing::Test {
 protected:
  DigestsTest() { Open(); }

  void Open() {
    replica_.reset();
    ReplicaOptions options;
    options.hub = true;
    options.entities = Rules();
    options.digest_changes_min = changes_min_;
    auto opened = Replica::Open(engine_, environment_, options);
    ASSERT_TRUE(opened.ok()) << opened.status();
    replica_ = *std::move(opened);
  }

  absl::Status Write(LocalWrite::Kind kind, uint32_t number, std::vector<CellWrite> cells = {},
                     EntityNumber entity = kMember) {
    auto results = replica_->Write({{.kind = kind,
                                     .key = storage::Key(number, entity),
                                     .actor = "a@hq",
                                     .cells = std::move(cells)}});
    return results.ok() ? results->front().status : results.status();
  }
  absl::Status Put(uint32_t number, const std::string& chapter, const std::string& text) {
    return Write(LocalWrite::Kind::kUpsert, number, {Text(kChapter, chapter), Text(kText, text)});
  }

  void ExpectTrue() {
    const auto wrong = replica_->CheckDigests();
    ASSERT_TRUE(wrong.ok()) << wrong.status();
    EXPECT_THAT(*wrong, IsEmpty());
  }
  std::map<std::string, uint64_t> Records() const {
    std::map<std::string, uint64_t> records;
    for (const auto& [scope, state] : replica_->Digests()) records[scope.name] = state.records;
    return records;
  }
  void Damage(const std::string& key, const std::string& value) {
    WriteBatch batch;
    batch.Put(Table::kMeta, key, value);
    ASSERT_TRUE(engine_.Write(batch).ok());
  }

  uint64_t changes_min_ = 4096;
  MemoryEngine engine_;
  FixedEnvironment environment_;
  std::unique_ptr<Replica> replica_;
};

TEST_F(DigestsTest, TellWhereRecordsAre) {
  EXPECT_THAT(replica_->Digests(), IsEmpty());
  ASSERT_TRUE(Put(1, "milan", "a").ok());
  ASSERT_TRUE(Put(2, "milan", "b").ok());
  ASSERT_TRUE(Put(3, "oslo", "c").ok());
  EXPECT_THAT(Records(), ElementsAre(Pair("chapter/milan", 2), Pair("chapter/oslo", 1)));
  ASSERT_TRUE(Put(2, "oslo", "b").ok());
  EXPECT_THAT(Records(), ElementsAre(Pair("chapter/milan", 1), Pair("chapter/oslo", 2)));
  // What is deleted is kept, and what is erased is not.
  ASSERT_TRUE(Write(LocalWrite::Kind::kDelete, 1).ok());
  ASSERT_TRUE(Write(LocalWrite::Kind::kErase, 2).ok());
  EXPECT_THAT(Records(), ElementsAre(Pair("chapter/milan", 1), Pair("chapter/oslo", 1)));
  ExpectTrue();
}

TEST_F(DigestsTest, ChangeWithTheStateAndWithNothingElse) {
  ASSERT_TRUE(Put(1, "milan", "a").ok());
  const auto before = replica_->Digests();
  ASSERT_TRUE(Put(1, "milan", "a").ok());
  EXPECT_EQ(replica_->Digests(), before) << "writing what is there is no write";
  ASSERT_TRUE(Put(1, "milan", "b").ok());
  EXPECT_NE(replica_->Digests(), before);
  ExpectTrue();
}

TEST_F(DigestsTest, AFollowerGoesWhereItsLeaderIs) {
  ASSERT_TRUE(
      Write(LocalWrite::Kind::kUpsert, 7, {Text(kLeader, storage::Key(1).id.ToString())}, kConsent)
          .ok());
  EXPECT_THAT(Records(), IsEmpty()) << "it has no place yet";
  ASSERT_TRUE(Put(1, "milan", "a").ok());
  EXPECT_THAT(Records(), ElementsAre(Pair("chapter/milan", 2)));
  ASSERT_TRUE(Put(1, "oslo", "a").ok());
  EXPECT_THAT(Records(), ElementsAre(Pair("chapter/oslo", 2)));
  ASSERT_TRUE(Write(LocalWrite::Kind::kErase, 1).ok());
  EXPECT_THAT(Records(), IsEmpty());
  ExpectTrue();
}

TEST_F(DigestsTest, AWriteThatFailsLeavesThemAsTheyWere) {
  ASSERT_TRUE(Put(1, "milan", "a").ok());
  const auto before = replica_->Digests();
  engine_.FailNextWrites(1, absl::ResourceExhaustedError("the disk is full"));
  EXPECT_FALSE(Put(1, "oslo", "b").ok());
  EXPECT_EQ(replica_->Digests(), before);
  ExpectTrue();
  ASSERT_TRUE(Put(1, "oslo", "c").ok());
  ExpectTrue();
}

// Written down often, seldom and with failures in between, and found again at every start.
TEST_F(DigestsTest, AStartFindsThemAsTheyWere) {
  std::mt19937_64 random(1);
  for (const uint64_t changes_min : {1, 2, 5, 17, 4096}) {
    changes_min_ = changes_min;
    Open();
    for (int step = 0; step < 300; ++step) {
      const auto number = static_cast<uint32_t>(1 + random() % 12);
      const uint64_t choice = random() % 20;
      if (choice < 12) {
        Put(number, random() % 2 == 0 ? "milan" : "oslo", std::to_string(random() % 50))
            .IgnoreError();
      } else if (choice < 14) {
        Write(LocalWrite::Kind::kDelete, number).IgnoreError();
      } else if (choice < 15 && random() % 8 == 0) {
        Write(LocalWrite::Kind::kErase, number).IgnoreError();
      } else if (choice < 16) {
        engine_.FailNextWrites(1, absl::ResourceExhaustedError("the disk is full"));
        Put(number, "oslo", std::to_string(step)).IgnoreError();
        engine_.FailNextWrites(0, absl::OkStatus());
      } else if (choice < 18) {
        const auto before = replica_->Digests();
        engine_.Crash();
        Open();
        ASSERT_EQ(replica_->Digests(), before) << changes_min << ", step " << step;
      }
      ASSERT_NO_FATAL_FAILURE(ExpectTrue()) << changes_min << ", step " << step;
    }
  }
}

TEST_F(DigestsTest, WhatWasWrittenDownAndIsDamagedIsFoundAnew) {
  changes_min_ = 3;
  Open();
  for (uint32_t number = 1; number <= 8; ++number) ASSERT_TRUE(Put(number, "milan", "a").ok());
  const std::vector<std::string> rows = {keys::Digest(Scope::Chapter("milan")),
                                         keys::DigestedBefore(storage::Key(1)),
                                         std::string(keys::kDigestCheckpoint)};
  for (const std::string& row : rows) {
    for (const std::string value : {"nonsense", ""}) {
      const auto before = replica_->Digests();
      Damage(row, value);
      Open();
      EXPECT_EQ(replica_->Digests(), before);
      ExpectTrue();
      // And is written down whole with the next change.
      ASSERT_TRUE(Put(9, "oslo", row + value).ok());
      Open();
      EXPECT_THAT(Records(), ElementsAre(Pair("chapter/milan", 8), Pair("chapter/oslo", 1)));
      ExpectTrue();
    }
  }
}

TEST_F(DigestsTest, ThoseOfNoScopeAnyMoreDoNotComeBack) {
  ASSERT_TRUE(Put(1, "milan", "a").ok());
  Damage(keys::Digest(Scope::Chapter("gone")), ScopeDigest().Encode());
  Damage(std::string(keys::kDigestCheckpoint), "");
  Open();
  ASSERT_TRUE(Put(1, "milan", "b").ok());
  EXPECT_FALSE(engine_.Get(Table::kMeta, keys::Digest(Scope::Chapter("gone"))).ok());
  ExpectTrue();
}

TEST_F(DigestsTest, WhatIsNotOfTheRecordsIsFoundOut) {
  changes_min_ = 1;
  Open();
  ASSERT_TRUE(Put(1, "milan", "a").ok());
  ScopeDigest other;
  other.Add(storage::Key(1), StateDigest{{1, 2, 3, 4}});
  Damage(keys::Digest(Scope::Chapter("milan")), other.Encode());
  Open();
  const auto wrong = replica_->CheckDigests();
  ASSERT_TRUE(wrong.ok());
  EXPECT_THAT(*wrong, ElementsAre(Scope::Chapter("milan")));
}

// A node did not place again what an older schema could not place.
TEST_F(DigestsTest, ANodeWithANewerSchemaPlacesWhatItHas) {
  MemoryEngine engine;
  ReplicaOptions options;
  options.chapter = "milan";
  for (const bool newer : {false, true}) {
    options.entities = Rules();
    if (!newer) options.entities.erase(kMember);
    auto node = Replica::Open(engine, environment_, options);
    ASSERT_TRUE(node.ok()) << node.status();
    if (!newer) {
      auto results = (*node)->Write({{.kind = LocalWrite::Kind::kUpsert,
                                      .key = storage::Key(1),
                                      .actor = "a@milan",
                                      .cells = {Text(kChapter, "milan")}}});
      ASSERT_TRUE(results.ok() && results->front().status.ok());
      EXPECT_THAT((*node)->Digests(), IsEmpty());
    } else {
      EXPECT_THAT((*node)->Digests(), ElementsAre(Key(Scope::Chapter("milan"))));
    }
  }
}

TEST_F(DigestsTest, WhatIsNewIsNotPlacedAgainAtTheNextStart) {
  EXPECT_TRUE(engine_.Get(Table::kMeta, keys::kRules).ok());
}

TEST_F(DigestsTest, ANodeKeepsThoseOfItsOwnScopesAlone) {
  MemoryEngine engine;
  ReplicaOptions options;
  options.chapter = "milan";
  options.entities = Rules();
  auto node = Replica::Open(engine, environment_, options);
  ASSERT_TRUE(node.ok());
  for (const uint32_t number : {1u, 2u}) {
    auto results = (*node)->Write({{.kind = LocalWrite::Kind::kUpsert,
                                    .key = storage::Key(number),
                                    .actor = "a@milan",
                                    .cells = {Text(kChapter, number == 1 ? "milan" : "oslo")}}});
    ASSERT_TRUE(results.ok() && results->front().status.ok());
  }
  EXPECT_THAT((*node)->Digests(), ElementsAre(Key(Scope::Chapter("milan"))));
}

}  // namespace
}  // namespace chaptersync::storage
