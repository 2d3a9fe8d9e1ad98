// SPDX-License-Identifier: Apache-2.0
//
// What waits at a hub for headquarters' word: kept over crashes, bounded, gone with what is erased;
// and what a node knows of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "storage/core/limits.h"
#include "storage/core/record_codec.h"
#include "storage/engine/memory_engine.h"
#include "storage/replica/exchange.h"
#include "storage/replica/keys.h"
#include "storage/replica/replica.h"
#include "tests/storage/replica/small_schema.h"

namespace chaptersync::storage {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;
using Reason = RefusedRecord::Reason;

class ApprovalsTest : public testing::Test {
 protected:
  ApprovalsTest() {
    options_.hub = true;
    options_.entities = Rules();
    italy_.node.bytes[0] = 7;
    italy_.replica = {uint64_t{7} << kLineageShift};
    italy_.epoch = {70};
    italy_.scopes = {Scope::Global(), Scope::Chapter("italy")};
    for (const auto& [entity, rule] : options_.entities) italy_.entities[entity] = rule.fingerprint;
    Open();
  }

  void Open() {
    hub_.reset();
    auto opened = Replica::Open(engine_, environment_, options_);
    ASSERT_TRUE(opened.ok()) << opened.status();
    hub_ = *std::move(opened);
  }

  absl::Status Write(LocalWrite::Kind kind, const RecordKey& key,
                     std::vector<CellWrite> cells = {}) {
    auto results =
        hub_->Write({{.kind = kind, .key = key, .actor = "hq", .cells = std::move(cells)}});
    return results.ok() ? results->front().status : results.status();
  }

  // One that it made, of its own.
  RecordUpdate Made(std::vector<CellWrite> cells) {
    RecordUpdate update;
    const Version version{HybridTime::FromWall(environment_.now_ms), italy_.replica};
    for (CellWrite& cell : cells) {
      update.state.cells.push_back({.path = cell.path,
                                    .version = version,
                                    .actor = "milan",
                                    .value = std::move(cell.value),
                                    .learned = {}});
    }
    update.state.seen.Advance(version);
    return update;
  }
  static RecordUpdate Erasure(uint64_t ticks = 5) {
    RecordUpdate update;
    update.state.erased = true;
    update.state.seen.Advance({{ticks}, {uint64_t{9} << kLineageShift}});
    return update;
  }

  // Empty where it was taken.
  std::optional<RefusedRecord> Push(const RecordKey& key, const RecordUpdate& update) {
    ApplyRequest request{.peer = italy_};
    request.records = {{Sequence{++pushed_}, key, EncodeUpdate(update)}};
    const auto result = hub_->Apply(request);
    EXPECT_TRUE(result.ok()) << result.status();
    if (!result.ok() || result->outcomes.front().kind != RecordOutcome::Kind::kRefused) return {};
    return result->outcomes.front().refusal;
  }
  std::optional<Reason> Pushed(const RecordKey& key, const RecordUpdate& update) {
    const auto refused = Push(key, update);
    return refused ? std::optional(refused->reason) : std::nullopt;
  }

  absl::StatusOr<FeedPage> ItalysFeed() {
    return hub_->ReadFeed({.peer = italy_,
                           .scope = Scope::Chapter("italy"),
                           .after = {},
                           .since = {},
                           .bytes_max = 1 << 20,
                           .records_max = 10});
  }
  // Whether Italy's feed has the record for it.
  bool FeedTells(const RecordKey& key) {
    const auto page = ItalysFeed();
    EXPECT_TRUE(page.ok()) << page.status();
    return page.ok() && std::any_of(page->items.begin(), page->items.end(), [&](const FeedItem& i) {
             return i.key == key && i.kind == FeedItem::Kind::kChange;
           });
  }

  std::vector<Approval> Waiting() { return hub_->ListApprovals(0, SIZE_MAX); }
  std::string OnDisk() {
    std::string all;
    const auto snapshot = engine_.NewSnapshot();
    for (const Table table : {Table::kRecord, Table::kMeta, Table::kFeed}) {
      auto it = snapshot->NewIterator(table, "", "");
      for (it->SeekToFirst(); it->Valid(); it->Next()) all.append(it->value());
    }
    return all;
  }

  MemoryEngine engine_;
  FixedEnvironment environment_;
  ReplicaOptions options_;
  std::unique_ptr<Replica> hub_;
  PeerIdentity italy_;
  uint64_t pushed_ = 0;
};

TEST_F(ApprovalsTest, WhoAsksForARecordThatItNeverHadHearsWhatItWouldOfNone) {
  // It was told who had written a record of another chapter, or of headquarters, and when.
  const auto chapter = [](const std::string& name) {
    return std::vector<CellWrite>{Text(kChapter, name)};
  };
  ASSERT_TRUE(Write(LocalWrite::Kind::kUpsert, Key(1), chapter("toronto")).ok());
  ASSERT_TRUE(Write(LocalWrite::Kind::kUpsert, Key(2), {Text(kText, "of headquarters")}).ok());
  ASSERT_TRUE(Write(LocalWrite::Kind::kUpsert, Key(3), chapter("italy")).ok());
  ASSERT_TRUE(Write(LocalWrite::Kind::kUpsert, Key(3), chapter("toronto")).ok());
  EXPECT_EQ(Push(Key(4), Made(chapter("toronto"))), std::nullopt);
  const auto hears = [&](uint32_t number, bool asked) {
    RecordsRequest request{
        .peer = italy_, .keys = {Key(number)}, .asked = asked, .bytes_max = 1 << 20};
    const auto page = hub_->ReadRecords(request);
    EXPECT_TRUE(page.ok()) << page.status();
    EXPECT_THAT(page->items, SizeIs(1));
    FeedItem item = page->items.at(0);
    EXPECT_EQ(item.kind, FeedItem::Kind::kLeft);
    EXPECT_EQ(item.key, Key(number));
    item.key = {};
    return std::tuple(item.sequence, item.update, item.seen.entries(), item.own_high);
  };
  for (const bool asked : {true, false}) {
    const auto nothing = hears(99, asked);
    EXPECT_EQ(hears(1, asked), nothing);
    EXPECT_EQ(hears(2, asked), nothing);
    // What it had, and what it made, it is told to let go, in no earlier a state.
    for (const uint32_t number : {3u, 4u}) {
      EXPECT_EQ(std::get<2>(hears(number, asked)), hub_->Read(Key(number))->record.seen.entries());
    }
  }
}

TEST_F(ApprovalsTest, WhatWaitsIsThereAfterACrashAndCanBeApproved) {
  ASSERT_TRUE(Write(LocalWrite::Kind::kUpsert, Key(1), {Text(kChapter, "italy")}).ok());
  EXPECT_EQ(Pushed(Key(1), Erasure()), Reason::kWaits);
  environment_.now_ms += 60'000;
  EXPECT_EQ(Pushed(Key(1), Erasure(6)), Reason::kWaits) << "the same record, the same place";
  ASSERT_TRUE(engine_.Sync().ok());
  const auto before = Waiting();
  ASSERT_THAT(before, SizeIs(1));
  engine_.Crash();
  Open();
  const auto after = Waiting();
  ASSERT_THAT(after, SizeIs(1));
  EXPECT_EQ(after[0].number, before[0].number);
  EXPECT_EQ(after[0].since_ms, 1'700'000'000'000) << "since the first time";
  EXPECT_EQ(after[0].reason, before[0].reason);
  EXPECT_TRUE(after[0].erasure);
  ASSERT_TRUE(hub_->Approve(after[0].number).ok());
  EXPECT_TRUE(hub_->Read(Key(1))->record.erased);
  EXPECT_THAT(Waiting(), IsEmpty());
  EXPECT_EQ(hub_->Approve(after[0].number).status().code(), absl::StatusCode::kNotFound);
  // Numbers are not used again.
  ASSERT_TRUE(Write(LocalWrite::Kind::kUpsert, Key(2), {Text(kChapter, "italy")}).ok());
  EXPECT_EQ(Pushed(Key(2), Erasure()), Reason::kWaits);
  EXPECT_GT(Waiting()[0].number, after[0].number);
}

TEST_F(ApprovalsTest, WhatIsApprovedIsWhatWasShown) {
  ASSERT_TRUE(Write(LocalWrite::Kind::kUpsert, Key(1), {Text(kChapter, "toronto")}).ok());
  EXPECT_EQ(Pushed(Key(1), Made({Text(kText, "harmless")})), Reason::kWaits);
  const uint64_t shown = Waiting()[0].number;
  EXPECT_EQ(Pushed(Key(1), Made({Text(kText, "harmless")})), Reason::kWaits);
  EXPECT_EQ(Waiting()[0].number, shown) << "the same once more";
  environment_.now_ms += 1'000;
  EXPECT_EQ(Pushed(Key(1), Made({Text(kText, "another")})), Reason::kWaits);
  ASSERT_THAT(Waiting(), SizeIs(1));
  EXPECT_EQ(hub_->Approve(shown).status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(hub_->Approve(Waiting()[0].number).ok());
}

TEST_F(ApprovalsTest, WhatIsApprovedIsMergedAlsoWhereTheHubHasSeenItAndLostIt) {
  // Two computers wrote under one id, and of the two the other's later write is known here.
  ASSERT_TRUE(Write(LocalWrite::Kind::kUpsert, Key(1), {Text(kChapter, "toronto")}).ok());
  const Version lost{HybridTime::FromWall(environment_.now_ms), {uint64_t{9} << kLineageShift}};
  PeerIdentity other = italy_;
  other.hub = true;
  other.scopes = {};
  RecordUpdate known{.state = hub_->Read(Key(1))->record};
  known.state.seen.Advance(lost);
  ASSERT_TRUE(
      hub_->Apply({.peer = other, .records = {{Sequence{1}, Key(1), EncodeUpdate(known)}}}).ok());
  RecordUpdate pushed = known;
  CellWrite text = Text(kText, "found again");
  pushed.state.Put({text.path, lost, "milan", text.value, {}});
  EXPECT_EQ(Pushed(Key(1), pushed), Reason::kWaits);
  ASSERT_TRUE(hub_->Approve(Waiting()[0].number).ok());
  const Record record = hub_->Read(Key(1))->record;
  ASSERT_NE(record.Find(text.path), nullptr);
  EXPECT_EQ(record.Find(text.path)->value, text.value);
}

TEST_F(ApprovalsTest, WhatWouldFollowAnotherRecordIsJudgedAsANewOneWouldBe) {
  ASSERT_TRUE(Write(LocalWrite::Kind::kUpsert, Key(1), {Text(kChapter, "toronto")}).ok());
  ASSERT_TRUE(Write(LocalWrite::Kind::kUpsert, Key(2), {Text(kChapter, "italy")}).ok());
  ASSERT_TRUE(Write(LocalWrite::Kind::kUpsert, Key(3), {Text(kChapter, "italy")}).ok());
  ASSERT_TRUE(Write(LocalWrite::Kind::kErase, Key(3)).ok());
  const RecordKey consent = Key(5, kConsent);
  const auto follow = [&](uint32_t leader) {
    environment_.now_ms += 1'000;
    RecordUpdate update = Made({Text(kLeader, Key(leader).id.ToString())});
    return Pushed(consent, update);
  };
  EXPECT_EQ(follow(2), std::nullopt);
  EXPECT_EQ(follow(1), Reason::kWaits) << "another chapter's";
  EXPECT_EQ(follow(3), Reason::kWaits) << "it would be erased with it";
  EXPECT_FALSE(hub_->Read(consent)->record.erased);
  EXPECT_EQ(follow(2), std::nullopt);
  // Of another chapter's, to one that is to come: whoever makes that would have it.
  ASSERT_TRUE(
      Write(LocalWrite::Kind::kUpsert, Key(6, kConsent), {Text(kLeader, Key(1).id.ToString())})
          .ok());
  EXPECT_EQ(Pushed(Key(6, kConsent), Made({Text(kLeader, Key(9).id.ToString())})), Reason::kWaits);
}

TEST_F(ApprovalsTest, WhatCouldNotBeStoredDoesNotWait) {
  ASSERT_TRUE(Write(LocalWrite::Kind::kUpsert, Key(1), {Text(kChapter, "italy")}).ok());
  engine_.FailNextWrites(1, absl::ResourceExhaustedError("the disk is full"));
  ApplyRequest request{.peer = italy_};
  request.records = {{Sequence{1}, Key(1), EncodeUpdate(Erasure())}};
  EXPECT_EQ(hub_->Apply(request).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Waiting(), IsEmpty());
  EXPECT_EQ(Pushed(Key(1), Erasure()), Reason::kWaits);
  engine_.FailNextWrites(1, absl::ResourceExhaustedError("the disk is full"));
  EXPECT_FALSE(hub_->Approve(Waiting()[0].number).ok());
  EXPECT_THAT(Waiting(), SizeIs(1)) << "nothing became of it, and it waits still";
  EXPECT_FALSE(hub_->Read(Key(1))->record.erased);
}

TEST_F(ApprovalsTest, OfOneComputerNoMoreWaitThanTheLimit) {
  for (uint32_t i = 1; i <= kApprovalsOfNodeMax; ++i) {
    ASSERT_EQ(Pushed(Key(i), Erasure()), Reason::kWaits);
  }
  EXPECT_THAT(Waiting(), SizeIs(kApprovalsOfNodeMax));
  const auto over = Push(Key(kApprovalsOfNodeMax + 1), Erasure());
  ASSERT_TRUE(over.has_value());
  EXPECT_EQ(over->reason, Reason::kWaits) << "the node keeps it, and the hub does not";
  EXPECT_THAT(over->message, HasSubstr("wait already, and with"));
  EXPECT_THAT(Waiting(), SizeIs(kApprovalsOfNodeMax));
  EXPECT_EQ(Pushed(Key(1), Erasure(6)), Reason::kWaits) << "what waits already may change";
  // Another computer has a count of its own.
  italy_.node.bytes[0] = 8;
  EXPECT_EQ(Pushed(Key(1), Erasure()), Reason::kWaits);
  EXPECT_THAT(Waiting(), SizeIs(kApprovalsOfNodeMax + 1));
}

TEST_F(ApprovalsTest, WhatWasRejectedDoesNotWaitAgainUntilItIsAnother) {
  ASSERT_TRUE(Write(LocalWrite::Kind::kUpsert, Key(1), {Text(kChapter, "toronto")}).ok());
  const RecordUpdate taken = Made({Text(kChapter, "italy")});
  EXPECT_EQ(Pushed(Key(1), taken), Reason::kWaits);
  ASSERT_TRUE(hub_->Reject(Waiting()[0].number).ok());
  EXPECT_THAT(Waiting(), IsEmpty());
  const auto again = Push(Key(1), taken);
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ(again->reason, Reason::kRejected);
  EXPECT_THAT(again->message, HasSubstr("headquarters has rejected it"));
  EXPECT_THAT(Waiting(), IsEmpty());
  environment_.now_ms += 1'000;
  EXPECT_EQ(Pushed(Key(1), Made({Text(kChapter, "italy"), Text(kText, "mine")})), Reason::kWaits);
  EXPECT_THAT(Waiting(), SizeIs(1));
}

TEST_F(ApprovalsTest, WhatIsTakenAfterARejectionGoesBackOnce) {
  // Whoever pushed it may have let it go meanwhile.
  const RecordKey consent = Key(5, kConsent);
  ASSERT_TRUE(Write(LocalWrite::Kind::kUpsert, Key(1), {Text(kChapter, "toronto")}).ok());
  const RecordUpdate made = Made({Text(kLeader, Key(1).id.ToString())});
  EXPECT_EQ(Pushed(consent, made), Reason::kWaits);
  ASSERT_TRUE(hub_->Reject(Waiting()[0].number).ok());
  ASSERT_TRUE(Write(LocalWrite::Kind::kUpsert, Key(1), {Text(kChapter, "italy")}).ok());
  EXPECT_EQ(Pushed(consent, made), std::nullopt);
  EXPECT_TRUE(FeedTells(consent));
  // From then on it knows that the record is here.
  environment_.now_ms += 1'000;
  RecordUpdate later = Made({Text(kText, "later")});
  later.base = made.state.seen;
  later.state.seen.Unite(made.state.seen);
  later.whole = false;
  EXPECT_EQ(Pushed(consent, later), std::nullopt);
  EXPECT_FALSE(FeedTells(consent));
}

TEST_F(ApprovalsTest, WhatIsTakenSinceDoesNotMakeWhatWasRejectedWaitAgain) {
  const RecordKey consent = Key(5, kConsent);
  ASSERT_TRUE(Write(LocalWrite::Kind::kUpsert, Key(1), {Text(kChapter, "italy")}).ok());
  ASSERT_TRUE(Write(LocalWrite::Kind::kUpsert, Key(2), {Text(kChapter, "toronto")}).ok());
  const RecordUpdate made = Made({Text(kLeader, Key(1).id.ToString())});
  EXPECT_EQ(Pushed(consent, made), std::nullopt);
  environment_.now_ms += 1'000;
  RecordUpdate rejected = Made({Text(kLeader, Key(2).id.ToString())});
  rejected.state.seen.Unite(made.state.seen);
  EXPECT_EQ(Pushed(consent, rejected), Reason::kWaits);
  ASSERT_TRUE(hub_->Reject(Waiting()[0].number).ok());
  // Under its next id, as something was refused.
  ++italy_.replica.value;
  EXPECT_EQ(Pushed(consent, Made({Text(kText, "another")})), std::nullopt);
  // It has that from another hub once more.
  EXPECT_EQ(Pushed(consent, rejected), Reason::kRejected);
  EXPECT_THAT(Waiting(), IsEmpty());
}

TEST_F(ApprovalsTest, WithAnErasureGoesWhatWaitsOfItAndOfWhatFollowsIt) {
  // The consent follows a member that was never in Italy.
  ASSERT_TRUE(Write(LocalWrite::Kind::kUpsert, Key(1), {Text(kChapter, "toronto")}).ok());
  EXPECT_EQ(Pushed(Key(1), Made({Text(kText, "w1-of-the-member")})), Reason::kWaits);
  EXPECT_EQ(Pushed(Key(5, kConsent),
                   Made({Text(kLeader, Key(1).id.ToString()), Text(kText, "w2-of-it")})),
            Reason::kWaits);
  EXPECT_THAT(Waiting(), SizeIs(2));
  EXPECT_THAT(OnDisk(), HasSubstr("w2-of-it"));
  ASSERT_TRUE(Write(LocalWrite::Kind::kErase, Key(1)).ok());
  EXPECT_THAT(Waiting(), IsEmpty());
  EXPECT_TRUE(hub_->Read(Key(5, kConsent))->record.erased);
  EXPECT_THAT(OnDisk(), Not(HasSubstr("w1-of-the-member")));
  EXPECT_THAT(OnDisk(), Not(HasSubstr("w2-of-it")));
  // Italy's feed tells of both.
  const auto page = ItalysFeed();
  ASSERT_TRUE(page.ok());
  EXPECT_THAT(page->items, SizeIs(2));
  // And what comes later is erased with it at once.
  EXPECT_EQ(Pushed(Key(6, kConsent), Made({Text(kLeader, Key(1).id.ToString())})), std::nullopt);
  EXPECT_TRUE(hub_->Read(Key(6, kConsent))->record.erased);
}

TEST_F(ApprovalsTest, OfOneComputerNoMoreBytesWaitThanTheLimit) {
  const std::string much(200'000, 'x');
  size_t kept = 0;
  for (uint32_t i = 1; i <= 100; ++i) {
    ASSERT_TRUE(Write(LocalWrite::Kind::kUpsert, Key(i), {Text(kChapter, "toronto")}).ok());
    EXPECT_EQ(Pushed(Key(i), Made({Text(kText, much)})), Reason::kWaits);
    if (Waiting().size() == i) kept = i;
  }
  EXPECT_EQ(kept, kApprovalBytesOfNodeMax / 200'200);
  EXPECT_EQ(Pushed(Key(1), Made({Text(kText, "less")})), Reason::kWaits);
  EXPECT_EQ(Pushed(Key(100), Made({Text(kText, much)})), Reason::kWaits);
  EXPECT_THAT(Waiting(), SizeIs(kept + 1)) << "there was room again";
}

// At the other end.
class AwaitingTest : public testing::Test {
 protected:
  AwaitingTest() {
    options_.chapter = "italy";
    options_.entities = Rules();
    auto opened = Replica::Open(engine_, environment_, options_);
    EXPECT_TRUE(opened.ok()) << opened.status();
    node_ = *std::move(opened);
    hub_.node.bytes[0] = 1;
    hub_.replica = {uint64_t{1} << kLineageShift};
    hub_.epoch = {10};
    hub_.hub = true;
    for (const auto& [entity, rule] : options_.entities) hub_.entities[entity] = rule.fingerprint;
  }

  // The record's place in the feed then.
  Sequence Put(const std::string& text) {
    const auto results = node_->Write({{.kind = LocalWrite::Kind::kUpsert,
                                        .key = Key(1),
                                        .actor = "milan",
                                        .cells = {Text(kText, text)}}});
    EXPECT_TRUE(results.ok() && results->front().status.ok());
    return End();
  }
  Sequence End() { return node_->FeedEnds({Scope::All()})->front().sequence; }
  void Stored(Sequence through, std::vector<RefusedRecord> refused = {}) {
    AcknowledgeRequest request{.peer = hub_, .through = through};
    request.told_as = node_->replica_id();
    request.refused = std::move(refused);
    ASSERT_TRUE(node_->Acknowledge(request).ok());
  }
  static RefusedRecord Waits(Sequence sequence) { return {Key(1), sequence, Reason::kWaits, "?"}; }
  uint64_t Waiting() { return node_->CountWaiting(hub_.node)->approval; }

  MemoryEngine engine_;
  FixedEnvironment environment_;
  ReplicaOptions options_;
  std::unique_ptr<Replica> node_;
  PeerIdentity hub_;
};

TEST_F(AwaitingTest, WhatWaitsNoMoreIsDroppedInTheSameStep) {
  const Sequence first = Put("a");
  Stored(first, {Waits(first)});
  const Sequence second = Put("b");
  // Taken, and elsewhere: nothing else may be acknowledged for a long time.
  ApplyRequest request{.peer = hub_};
  request.left = {{Key(1), node_->Read(Key(1))->record.seen}};
  ASSERT_TRUE(node_->Apply(request).ok());
  EXPECT_TRUE(node_->Read(Key(1)).ok()) << "it waits, and is not acknowledged";
  Stored(second);
  EXPECT_EQ(Waiting(), 0u);
  EXPECT_TRUE(absl::IsNotFound(node_->Read(Key(1)).status()));
}

TEST_F(AwaitingTest, WithTheHubsStateThatHasAllNothingWaits) {
  const Sequence first = Put("a");
  Stored(first, {Waits(first)});
  RecordUpdate theirs;
  theirs.state = node_->Read(Key(1))->record;
  const Version later{HybridTime::FromWall(environment_.now_ms + 1), hub_.replica};
  theirs.state.Put({.path = CellPath{.field = kChapter, .map_key = {}},
                    .version = later,
                    .actor = "hq",
                    .value = Text(kChapter, "italy").value,
                    .learned = {}});
  ApplyRequest request{.peer = hub_};
  // One that has gone back unawares says to have seen what it does not hold.
  RecordUpdate less = theirs;
  std::erase_if(less.state.cells, [](const Cell& cell) { return cell.path.field == kText; });
  for (const auto& [update, waiting] : {std::pair(less, 1u), std::pair(theirs, 0u)}) {
    RecordUpdate sent = update;
    sent.state.seen.Advance(later);
    request.records = {{Sequence{1}, Key(1), EncodeUpdate(sent)}};
    ASSERT_TRUE(node_->Apply(request).ok());
    EXPECT_EQ(Waiting(), waiting);
  }
}

TEST_F(AwaitingTest, WhatTheHubHasStoredSinceWaitsNoMore) {
  const Sequence first = Put("a");
  Stored(first, {Waits(first)});
  EXPECT_EQ(Waiting(), 1u);
  const Sequence second = Put("b");
  EXPECT_EQ(Waiting(), 1u) << "not stored yet";
  Stored(second);
  EXPECT_EQ(Waiting(), 0u);
}

TEST_F(AwaitingTest, WhatTheHubDoesNotTakeOnceMoreGoesOnWaiting) {
  const Sequence first = Put("a");
  Stored(first, {Waits(first)});
  const Sequence second = Put("b");
  Stored(second, {Waits(second)});
  EXPECT_EQ(Waiting(), 1u);
  // Another record's acknowledgement says nothing of it.
  ASSERT_TRUE(node_
                  ->Write({{.kind = LocalWrite::Kind::kUpsert,
                            .key = Key(2),
                            .actor = "milan",
                            .cells = {Text(kText, "c")}}})
                  .ok());
  Stored(End());
  EXPECT_EQ(Waiting(), 1u);
}

TEST_F(AwaitingTest, WhatWaitsAtOneHubIsNothingToAnother) {
  const Sequence first = Put("a");
  Stored(first, {Waits(first)});
  hub_.node.bytes[0] = 2;
  hub_.replica = {uint64_t{2} << kLineageShift};
  EXPECT_EQ(Waiting(), 0u);
  Stored(first);
  hub_.node.bytes[0] = 1;
  EXPECT_EQ(Waiting(), 1u);
}

TEST_F(AwaitingTest, WhatWasToldInAnEarlierSessionIsPushedAgain) {
  Put("a");
  AcknowledgeRequest request{.peer = hub_};
  request.push_again = {Key(1), Key(2)};  // the second is not here
  const Sequence before = End();
  ASSERT_TRUE(node_->Acknowledge(request).ok());
  EXPECT_EQ(Waiting(), 0u) << "the hub's answer says whether it does";
  EXPECT_GT(End(), before);
}

TEST_F(AwaitingTest, WhatWasRejectedIsNotPushedAlsoWhereTheHubAsks) {
  const Sequence first = Put("a");
  const RecordsRequest asked{.peer = hub_, .keys = {Key(1)}, .asked = true, .bytes_max = 1 << 20};
  ASSERT_EQ(node_->ReadRecords(asked)->items.front().kind, FeedItem::Kind::kChange);
  Stored(first, {{Key(1), first, Reason::kRejected, "headquarters has rejected it"}});
  const auto page = node_->ReadRecords(asked);
  ASSERT_TRUE(page.ok());
  EXPECT_EQ(page->items.front().kind, FeedItem::Kind::kLeft);
  EXPECT_TRUE(page->items.front().seen.empty());
  // Of another hub it is not known.
  RecordsRequest other = asked;
  other.peer.node.bytes[0] = 2;
  EXPECT_EQ(node_->ReadRecords(other)->items.front().kind, FeedItem::Kind::kChange);
}

TEST_F(AwaitingTest, OfTwoValuesOfOneVersionTheOneThatStandsIsTakenWhereTheLogIsKnown) {
  // The hub's answer leaves out what this node itself wrote, and tells of the conflict.
  Put("a");
  const Record mine = node_->Read(Key(1))->record;
  RecordUpdate theirs{.state = mine};
  CellWrite other = Text(kText, "b");
  theirs.state.cells.front().value = other.value;
  const MergeResult merged = Merge(theirs.state, {.state = mine}, {hub_.replica, HybridTime{1}});
  ASSERT_THAT(merged.record.conflicts, SizeIs(1));
  const std::optional<std::string> stands = merged.record.cells.front().value;
  ASSERT_NE(stands, mine.cells.front().value);
  RecordUpdate partial{.state = merged.record};
  partial.base = mine.seen;
  partial.whole = false;
  partial.state.cells.clear();
  ASSERT_TRUE(
      node_->Apply({.peer = hub_, .records = {{Sequence{1}, Key(1), EncodeUpdate(partial)}}}).ok());
  const RecordUpdate whole{.state = merged.record};
  ASSERT_TRUE(
      node_->Apply({.peer = hub_, .records = {{Sequence{2}, Key(1), EncodeUpdate(whole)}}}).ok());
  EXPECT_EQ(node_->Read(Key(1))->record.cells.front().value, stands);
}

TEST_F(AwaitingTest, WithTheHubsErasureNothingWaits) {
  Put("a");
  ASSERT_TRUE(
      node_
          ->Write(
              {{.kind = LocalWrite::Kind::kErase, .key = Key(1), .actor = "milan", .cells = {}}})
          .ok());
  Stored(End(), {Waits(End())});
  EXPECT_EQ(Waiting(), 1u);
  RecordUpdate erasure;
  erasure.state.erased = true;
  erasure.state.seen.Advance({{5}, hub_.replica});
  ApplyRequest request{.peer = hub_};
  request.records = {{Sequence{1}, Key(1), EncodeUpdate(erasure)}};
  ASSERT_TRUE(node_->Apply(request).ok());
  EXPECT_EQ(Waiting(), 0u);
}

}  // namespace
}  // namespace chaptersync::storage
