// SPDX-License-Identifier: Apache-2.0
//
// The client over streams within the process: syncing now, also across cuts,
// pausing, hubs that cannot be reached.
#include "node/sync/sync_client.h"

#include <memory>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/node/sync/sync_fixture.h"

namespace chaptersync::node {
namespace {

using testing::HasSubstr;

const auto kNeverCancelled = [] { return false; };

// Streams to a hub of this process, some of which break.
class PairConnector final : public Connector {
 public:
  explicit PairConnector(Site& hub) : hub_(hub), group_(*hub.replica, hub.environment) {}
  ~PairConnector() override {
    EXPECT_TRUE(group_.StopAll(absl::UnavailableError("down"), absl::Seconds(60)));
  }

  absl::StatusOr<std::shared_ptr<Transport>> Connect(
      const std::shared_ptr<SessionHost>& host, const std::function<bool()>& cancelled) override {
    absl::MutexLock lock(&mutex_);
    ++attempts_;
    while (blocked_) {
      if (cancelled()) return absl::UnavailableError("not wanted any more");
      mutex_.AwaitWithTimeout(
          absl::Condition(
              +[](PairConnector* c) ABSL_SHARED_LOCKS_REQUIRED(c->mutex_) { return !c->blocked_; },
              this),
          absl::Milliseconds(10));
    }
    if (unreachable_) return absl::UnavailableError("nobody answers");
    const auto acceptor = group_.Make(AcceptorOptions(hub_, "italy"));
    const auto pair =
        std::make_shared<Pair>(cut_after_ ? std::optional<int>((*cut_after_)++) : std::nullopt);
    if (cut_after_ && *cut_after_ > cut_until_) cut_after_.reset();
    pair->Connect(host, acceptor);
    group_.Begin(acceptor, pair->acceptor());
    pair_ = pair;
    return pair->initiator();
  }
  std::string name() const override { return "127.0.0.1:1"; }

  void set_unreachable(bool unreachable) {
    absl::MutexLock lock(&mutex_);
    unreachable_ = unreachable;
  }
  void set_blocked(bool blocked) {
    absl::MutexLock lock(&mutex_);
    blocked_ = blocked;
  }
  // The first stream breaks after no message, the next after one, ...
  void CutUntil(int messages) {
    absl::MutexLock lock(&mutex_);
    cut_after_ = 0;
    cut_until_ = messages;
  }
  void Cut() {
    absl::MutexLock lock(&mutex_);
    if (pair_ != nullptr) pair_->Cut();
  }
  int attempts() const {
    absl::MutexLock lock(&mutex_);
    return attempts_;
  }

 private:
  Site& hub_;
  SessionGroup group_;
  mutable absl::Mutex mutex_;
  bool unreachable_ ABSL_GUARDED_BY(mutex_) = false;
  bool blocked_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<int> cut_after_ ABSL_GUARDED_BY(mutex_);
  int cut_until_ ABSL_GUARDED_BY(mutex_) = 0;
  int attempts_ ABSL_GUARDED_BY(mutex_) = 0;
  std::shared_ptr<Pair> pair_ ABSL_GUARDED_BY(mutex_);
};

class SyncClientTest : public testing::Test {
 protected:
  std::unique_ptr<SyncClient> NewClient() {
    return std::make_unique<SyncClient>(group_, connector_, SyncClientOptions{"Federation"});
  }

  Site hub_{"", 1};
  Site italy_{"italy", 2};
  PairConnector connector_{hub_};
  SessionGroup group_{*italy_.replica, italy_.environment, 1};
};

TEST_F(SyncClientTest, SyncNowReturnsOnceBothSidesHoldAll) {
  auto client = NewClient();
  client->Start();
  for (uint32_t i = 0; i < 50; ++i) {
    ASSERT_TRUE(italy_.Put(i, "italy", "i").ok());
    ASSERT_TRUE(hub_.Put(100 + i, "italy", "h").ok());
    ASSERT_TRUE(hub_.Put(200 + i, "toronto", "t").ok());
  }
  const auto result = client->SyncNow(kPatienceMs, kNeverCancelled);
  ASSERT_TRUE(result.ok()) << result.status();
  for (uint32_t i = 0; i < 50; ++i) {
    EXPECT_EQ(hub_.Text(i), "i");
    EXPECT_EQ(italy_.Text(100 + i), "h");
  }
  // Nothing new: at once again.
  const auto again = client->SyncNow(kPatienceMs, kNeverCancelled);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->sent, 0u);
  EXPECT_EQ(again->received, 0u);
}

TEST_F(SyncClientTest, EachSyncNowCoversWhatWasWrittenBeforeIt) {
  auto client = NewClient();
  client->Start();
  for (uint32_t i = 0; i < 200; ++i) {
    const std::string text = "v" + std::to_string(i);
    ASSERT_TRUE(italy_.Put(1, "italy", text).ok());
    ASSERT_TRUE(hub_.Put(2, "italy", text).ok());
    const auto result = client->SyncNow(kPatienceMs, kNeverCancelled);
    ASSERT_TRUE(result.ok()) << result.status();
    ASSERT_EQ(hub_.Text(1), text);
    ASSERT_EQ(italy_.Text(2), text);
  }
}

// What came from the hub gave unsent writes later places in the feed, behind its end as it was
// when SyncNow began, and SyncNow returned before the hub had them.
TEST_F(SyncClientTest, SyncNowCoversWhatMovesInTheFeedMeanwhile) {
  constexpr uint32_t kRecords = 500;
  auto client = NewClient();
  client->Start();
  for (int round = 0; round < 5; ++round) {
    ASSERT_TRUE(client->Pause().ok());
    for (uint32_t i = 0; i < kRecords; ++i) {
      ASSERT_TRUE(hub_.Put(i, "italy", "h" + std::to_string(round)).ok());
      ASSERT_TRUE(italy_.Put(i, "italy", "i" + std::to_string(round)).ok());
    }
    ASSERT_TRUE(client->Resume().ok());
    const auto result = client->SyncNow(kPatienceMs, kNeverCancelled);
    ASSERT_TRUE(result.ok()) << result.status();
    for (uint32_t i = 0; i < kRecords; ++i) {
      const auto stored = hub_.replica->Read(NoteKey(i));
      ASSERT_TRUE(stored.ok()) << stored.status();
      ASSERT_EQ(stored->record.conflicts.size(), static_cast<size_t>(round) + 1)
          << "record " << i << " in round " << round;
    }
  }
}

TEST_F(SyncClientTest, SyncNowOutlivesStreamsThatBreak) {
  for (uint32_t i = 0; i < 20; ++i) {
    ASSERT_TRUE(italy_.Put(i, "italy", "i").ok());
    ASSERT_TRUE(hub_.Put(100 + i, "italy", "h").ok());
  }
  connector_.CutUntil(4);
  auto client = NewClient();
  client->Start();
  absl::StatusOr<SyncNowResult> result = absl::UnknownError("");
  // The last streams may come after a wait of some seconds.
  ASSERT_TRUE(Eventually([&] {
    result = client->SyncNow(kPatienceMs, kNeverCancelled);
    return result.ok();
  })) << result.status();
  EXPECT_GT(connector_.attempts(), 1);
  for (uint32_t i = 0; i < 20; ++i) {
    EXPECT_EQ(hub_.Text(i), "i");
    EXPECT_EQ(italy_.Text(100 + i), "h");
  }
}

TEST_F(SyncClientTest, AfterACutItComesBackByItself) {
  auto client = NewClient();
  client->Start();
  ASSERT_TRUE(Eventually([&] { return client->sessions() == 1; }));
  connector_.Cut();
  ASSERT_TRUE(Eventually([&] { return client->sessions() == 2; }));
  ASSERT_TRUE(italy_.Put(1, "italy", "after").ok());
  EXPECT_TRUE(hub_.WaitFor(1, "after"));
}

TEST_F(SyncClientTest, PausedItStaysAwayAlsoAfterARestart) {
  auto client = NewClient();
  client->Start();
  ASSERT_TRUE(Eventually([&] { return client->sessions() == 1; }));
  ASSERT_TRUE(client->Pause().ok());
  ASSERT_TRUE(Eventually([&] { return !client->List().front().connected; }));
  EXPECT_EQ(client->SyncNow(kPatienceMs, kNeverCancelled).status().code(),
            absl::StatusCode::kFailedPrecondition);
  client->Stop();
  const int attempts = connector_.attempts();
  client = NewClient();
  client->Start();
  EXPECT_TRUE(client->paused());
  EXPECT_EQ(client->SyncNow(kPatienceMs, kNeverCancelled).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(connector_.attempts(), attempts);
  ASSERT_TRUE(client->Resume().ok());
  EXPECT_TRUE(Eventually([&] { return client->sessions() == 1; }));
  EXPECT_TRUE(client->SyncNow(kPatienceMs, kNeverCancelled).ok());
}

TEST_F(SyncClientTest, AHubThatCannotBeReachedIsSaidSo) {
  connector_.set_unreachable(true);
  auto client = NewClient();
  client->Start();
  const auto result = client->SyncNow(300, kNeverCancelled);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(result.status().ToString(), HasSubstr("nobody answers"));
  EXPECT_THAT(client->List().front().error, HasSubstr("nobody answers"));
  EXPECT_EQ(client->List().front().name, "Federation");
  connector_.set_unreachable(false);
  EXPECT_TRUE(Eventually([&] { return client->SyncNow(1000, kNeverCancelled).ok(); }));
  EXPECT_EQ(client->error(), "");
}

TEST_F(SyncClientTest, ACallerWhoHasGoneIsNotWaitedFor) {
  connector_.set_blocked(true);
  auto client = NewClient();
  client->Start();
  int asked = 0;
  EXPECT_EQ(client->SyncNow(std::nullopt, [&] { return ++asked > 2; }).status().code(),
            absl::StatusCode::kCancelled);
  // Stops in the middle of connecting.
  client->Stop();
}

TEST_F(SyncClientTest, RemembersTheHubWhileItIsAway) {
  auto client = NewClient();
  client->Start();
  ASSERT_TRUE(client->SyncNow(kPatienceMs, kNeverCancelled).ok());
  const PeerState met = client->List().front();
  EXPECT_TRUE(met.connected);
  EXPECT_NE(met.last_contact_ms, 0u);
  client->Stop();
  client = NewClient();
  const PeerState state = client->List().front();
  EXPECT_FALSE(state.connected);
  EXPECT_EQ(state.replica, hub_.replica->replica_id());
  EXPECT_NE(state.last_contact_ms, 0u);
  ASSERT_EQ(state.scopes.size(), 3u);
}

}  // namespace
}  // namespace chaptersync::node
