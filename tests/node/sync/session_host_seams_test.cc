// SPDX-License-Identifier: Apache-2.0
//
// Sessions on an executor and a clock of their owner's: one thread, in which
// nothing happens unless the test makes it happen.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include "node/sync/session_host.h"
#include "tests/node/sync/queue_executor.h"
#include "tests/node/sync/sync_fixture.h"

namespace chaptersync::node {
namespace {

class SessionHostSeamsTest : public testing::Test {
 protected:
  std::unique_ptr<SessionGroup> Group(Site& site) {
    return std::make_unique<SessionGroup>(
        *site.replica, site.environment,
        SessionGroupSeams{.executor = &executor_, .steady_ms = [this] { return steady_ms_; }});
  }

  // A session of italy with the hub; it has only been posted.
  void Begin() {
    SessionHostOptions options;
    options.config = SiteConfig(italy_, true);
    options.name = "hub";
    const auto initiator = italy_group_->Make(std::move(options));
    const auto acceptor = hub_group_->Make(AcceptorOptions(hub_, "italy"));
    const auto pair = std::make_shared<Pair>();
    pair->Connect(initiator, acceptor);
    hub_group_->Begin(acceptor, pair->acceptor());
    italy_group_->Begin(initiator, pair->initiator());
    initiator_ = initiator;
    acceptor_ = acceptor;
    pair_ = pair;
  }

  // An acceptor's session whose peer is the test.
  std::shared_ptr<HandStream> BeginByHand(SessionHostOptions options) {
    options.ended = [this](const absl::Status& status, bool) { end_ = status; };
    const auto host = hub_group_->Make(std::move(options));
    auto stream = std::make_shared<HandStream>(host);
    hub_group_->Begin(host, stream);
    acceptor_ = host;
    executor_.Run();
    return stream;
  }

  void TearDown() override {
    executor_.Forget();
    if (const auto pair = pair_.lock()) pair->Forget();
  }

  QueueExecutor executor_;
  int64_t steady_ms_ = 5'000'000;
  Site hub_{"", 1};
  Site italy_{"italy", 2};
  std::unique_ptr<SessionGroup> hub_group_ = Group(hub_);
  std::unique_ptr<SessionGroup> italy_group_ = Group(italy_);
  std::weak_ptr<SessionHost> initiator_;
  std::weak_ptr<SessionHost> acceptor_;
  std::weak_ptr<Pair> pair_;
  std::optional<absl::Status> end_;
};

TEST_F(SessionHostSeamsTest, NothingHappensUnlessTheOwnerRunsIt) {
  ASSERT_TRUE(italy_.Put(1, "italy", "from italy").ok());
  ASSERT_TRUE(hub_.Put(2, "italy", "from the hub").ok());
  Begin();
  EXPECT_EQ(executor_.size(), 2u);  // the two strands
  EXPECT_EQ(hub_.Text(1), "");
  EXPECT_EQ(italy_.Text(2), "");
  executor_.Run();
  EXPECT_EQ(hub_.Text(1), "from italy");
  EXPECT_EQ(italy_.Text(2), "from the hub");
  // A commit becomes a task too.
  ASSERT_TRUE(hub_.Put(1, "italy", "answer").ok());
  EXPECT_EQ(executor_.size(), 1u);
  EXPECT_EQ(italy_.Text(1), "from italy");
  executor_.Run();
  EXPECT_EQ(italy_.Text(1), "answer");
}

TEST_F(SessionHostSeamsTest, TheSessionsEndWhereTheOwnerStopsAndRunsThem) {
  Begin();
  executor_.Run();
  EXPECT_FALSE(hub_group_->StopAll(absl::UnavailableError("down"), absl::ZeroDuration()));
  EXPECT_EQ(hub_group_->size(), 1u);
  executor_.Run();
  EXPECT_EQ(hub_group_->size(), 0u);
  EXPECT_EQ(italy_group_->size(), 0u);
}

TEST_F(SessionHostSeamsTest, AStopThatComesBeforeTheStreamEndsIt) {
  // A node that was revoked just as its stream began brought the hub down.
  SessionHostOptions options = AcceptorOptions(hub_, "italy");
  options.ended = [this](const absl::Status& status, bool) { end_ = status; };
  const auto host = hub_group_->Make(std::move(options));
  host->Stop(absl::PermissionDeniedError("revoked"));
  executor_.Run();
  EXPECT_FALSE(end_.has_value());
  hub_group_->Begin(host, std::make_shared<HandStream>(host));
  executor_.Run();
  ASSERT_TRUE(end_.has_value());
  EXPECT_EQ(*end_, absl::PermissionDeniedError("revoked"));
  EXPECT_EQ(hub_group_->size(), 0u);
}

TEST_F(SessionHostSeamsTest, TheHandshakesTimeIsTheOwnersClocks) {
  SessionHostOptions options = AcceptorOptions(hub_, "italy");
  options.handshake_ms_max = 3 * kTickMs;
  const auto stream = BeginByHand(std::move(options));
  // Ticks without time end nothing, nor does time without a tick.
  for (int i = 1; i <= 10; ++i) {
    hub_group_->Tick();
    executor_.Run();
    EXPECT_EQ(stream->ticks, i);
  }
  steady_ms_ += 3 * kTickMs;
  hub_group_->Tick();
  executor_.Run();
  EXPECT_FALSE(end_.has_value());
  ++steady_ms_;
  EXPECT_EQ(executor_.Run(), 0u);
  hub_group_->Tick();
  EXPECT_FALSE(end_.has_value());
  executor_.Run();
  ASSERT_TRUE(end_.has_value());
  EXPECT_EQ(end_->code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(hub_group_->size(), 0u);
}

TEST_F(SessionHostSeamsTest, TheBacklogsBoundIsTheOwners) {
  SessionHostOptions options = AcceptorOptions(hub_, "italy");
  options.backlog_bytes_max = 100;
  const auto host = hub_group_->Make(std::move(options));
  EXPECT_EQ(host->backlog_bytes_max(), 100u);
  const auto stream = std::make_shared<HandStream>(host);
  stream->backlog = 101;
  hub_group_->Begin(host, stream);
  executor_.Run();
  EXPECT_EQ(stream->reads, 0);
  stream->backlog = 100;
  host->Drained();
  executor_.Run();
  EXPECT_EQ(stream->reads, 1);
}

TEST_F(SessionHostSeamsTest, AGroupMayGoBeforeWhatWaitsInTheExecutor) {
  ASSERT_TRUE(italy_.Put(1, "italy", "from italy").ok());
  Begin();
  for (int i = 0; i < 3; ++i) executor_.RunOne();  // in the middle of the handshake
  ASSERT_GT(executor_.size(), 0u);
  hub_group_.reset();
  italy_group_.reset();
  pair_.lock()->Cut();  // posts to hosts without a group
  executor_.Forget();
  pair_.lock()->Forget();
  EXPECT_TRUE(initiator_.expired());
  EXPECT_TRUE(acceptor_.expired());
}

TEST_F(SessionHostSeamsTest, AGroupMayGoAfterWhatWaitsInTheExecutor) {
  const auto stream = BeginByHand(AcceptorOptions(hub_, "italy"));
  acceptor_.lock()->Drained();
  ASSERT_EQ(executor_.size(), 1u);
  executor_.Forget();
  hub_group_.reset();
  EXPECT_TRUE(acceptor_.expired());
  EXPECT_FALSE(end_.has_value());
}

TEST_F(SessionHostSeamsTest, ForgettingLetsGoOfAHostWithoutAGroup) {
  const auto stream = BeginByHand(AcceptorOptions(hub_, "italy"));
  acceptor_.lock()->Drained();
  hub_group_.reset();
  EXPECT_FALSE(acceptor_.expired());
  executor_.Forget();
  EXPECT_TRUE(acceptor_.expired());
  EXPECT_FALSE(end_.has_value());
}

TEST(StrandTest, WhatWasForgottenDoesNotRunAndWhatIsPostedThenDoes) {
  QueueExecutor executor;
  const auto strand = std::make_shared<Strand>(executor);
  int ran = 0;
  strand->Post([&] { ran += 1; });
  strand->Post([&] { ran += 10; });
  EXPECT_EQ(executor.size(), 1u);
  executor.Forget();
  strand->RunOne();
  EXPECT_EQ(ran, 0);
  strand->Post([&] { ran += 100; });
  EXPECT_EQ(executor.size(), 1u);
  EXPECT_EQ(executor.Run(), 1u);
  EXPECT_EQ(ran, 100);
}

}  // namespace
}  // namespace chaptersync::node
