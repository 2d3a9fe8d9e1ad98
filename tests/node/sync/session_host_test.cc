// SPDX-License-Identifier: Apache-2.0
//
// Sessions on strands between replicas of one process: both ways, cut, stopped,
// silent, and many at once.
#include "node/sync/session_host.h"

#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/node/sync/sync_fixture.h"

namespace chaptersync::node {
namespace {

using storage::Scope;

// How a session ended, for a test that waits for it.
class Outcome {
 public:
  std::function<void(const absl::Status&, bool)> Callback() {
    return [this](const absl::Status& status, bool) {
      absl::MutexLock lock(&mutex_);
      status_ = status;
    };
  }
  std::optional<absl::Status> status() const {
    absl::MutexLock lock(&mutex_);
    return status_;
  }
  absl::Status Wait() const {
    EXPECT_TRUE(Eventually([this] { return status().has_value(); }));
    return status().value_or(absl::UnknownError("did not end"));
  }

 private:
  mutable absl::Mutex mutex_;
  std::optional<absl::Status> status_ ABSL_GUARDED_BY(mutex_);
};

class SessionHostTest : public testing::Test {
 protected:
  struct Hosts {
    std::shared_ptr<Pair> pair;
    std::shared_ptr<SessionHost> initiator;
    std::shared_ptr<SessionHost> acceptor;
  };

  Hosts Begin(std::optional<int> cut_after = std::nullopt) {
    Hosts hosts;
    SessionHostOptions options;
    options.config = SiteConfig(italy_, true);
    options.name = "hub";
    options.ended = initiator_end_.Callback();
    hosts.initiator = italy_group_.Make(std::move(options));
    options = AcceptorOptions(hub_, "italy");
    options.ended = acceptor_end_.Callback();
    hosts.acceptor = hub_group_.Make(std::move(options));
    hosts.pair = std::make_shared<Pair>(cut_after);
    hosts.pair->Connect(hosts.initiator, hosts.acceptor);
    hub_group_.Begin(hosts.acceptor, hosts.pair->acceptor());
    italy_group_.Begin(hosts.initiator, hosts.pair->initiator());
    return hosts;
  }

  ~SessionHostTest() override {
    EXPECT_TRUE(italy_group_.StopAll(absl::CancelledError("done"), absl::Seconds(60)));
    EXPECT_TRUE(hub_group_.StopAll(absl::CancelledError("done"), absl::Seconds(60)));
  }

  Site hub_{"", 1};
  Site italy_{"italy", 2};
  Outcome initiator_end_;
  Outcome acceptor_end_;
  SessionGroup hub_group_{*hub_.replica, hub_.environment};
  SessionGroup italy_group_{*italy_.replica, italy_.environment, 1};
};

TEST_F(SessionHostTest, SyncsBothWaysBeforeAndWhileItIsOpen) {
  ASSERT_TRUE(italy_.Put(1, "italy", "from italy").ok());
  ASSERT_TRUE(hub_.Put(2, "italy", "from the hub").ok());
  ASSERT_TRUE(hub_.Put(3, "toronto", "not for italy").ok());
  Begin();
  EXPECT_TRUE(hub_.WaitFor(1, "from italy"));
  EXPECT_TRUE(italy_.WaitFor(2, "from the hub"));
  ASSERT_TRUE(italy_.Put(2, "italy", "and back").ok());
  ASSERT_TRUE(hub_.Put(1, "italy", "and there").ok());
  EXPECT_TRUE(hub_.WaitFor(2, "and back"));
  EXPECT_TRUE(italy_.WaitFor(1, "and there"));
  EXPECT_EQ(italy_.Text(3), "");
}

TEST_F(SessionHostTest, CutAfterAnyMessageItGoesOnInTheNext) {
  // Hello, Welcome, Changes and Stored of both: there are at least so many.
  constexpr int kMessages = 6;
  uint32_t number = 0;
  const auto write = [&] {
    for (int i = 0; i < 20; ++i, ++number) {
      ASSERT_TRUE(italy_.Put(number, "italy", "i" + std::to_string(number)).ok());
      ASSERT_TRUE(hub_.Put(1000 + number, "italy", "h" + std::to_string(number)).ok());
    }
  };
  for (int cut_after = 0; cut_after < kMessages; ++cut_after) {
    write();
    Begin(cut_after);
    ASSERT_TRUE(Eventually([&] { return italy_group_.size() + hub_group_.size() == 0; }))
        << cut_after;
    EXPECT_EQ(initiator_end_.Wait().code(), absl::StatusCode::kUnavailable);
  }
  Begin();
  for (uint32_t i = 0; i < number; ++i) {
    EXPECT_TRUE(hub_.WaitFor(i, "i" + std::to_string(i)));
    EXPECT_TRUE(italy_.WaitFor(1000 + i, "h" + std::to_string(i)));
  }
}

TEST_F(SessionHostTest, TheAcceptorsStatusReachesTheInitiator) {
  const Hosts hosts = Begin();
  ASSERT_TRUE(hub_.Put(1, "italy", "one").ok());
  ASSERT_TRUE(italy_.WaitFor(1, "one"));
  hosts.acceptor->Stop(absl::AbortedError("a newer session took over"));
  EXPECT_EQ(initiator_end_.Wait(), absl::AbortedError("a newer session took over"));
  EXPECT_EQ(acceptor_end_.Wait(), absl::AbortedError("a newer session took over"));
}

TEST_F(SessionHostTest, WhoStopsBeforeTheFirstMessageEnds) {
  const Hosts hosts = Begin();
  hosts.initiator->Stop(absl::CancelledError("paused"));
  EXPECT_EQ(initiator_end_.Wait(), absl::CancelledError("paused"));
  EXPECT_FALSE(acceptor_end_.Wait().ok());
}

TEST_F(SessionHostTest, AGroupThatIsStoppedTakesNoMoreSessions) {
  ASSERT_TRUE(hub_group_.StopAll(absl::UnavailableError("down"), absl::Seconds(60)));
  Begin();
  EXPECT_EQ(initiator_end_.Wait(), absl::UnavailableError("down"));
}

// A stream without a peer, that counts.
class DeadTransport final : public Transport {
 public:
  explicit DeadTransport(std::weak_ptr<SessionHost> host) : host_(std::move(host)) {}
  void Read() override { ++reads; }
  void Send(v1::SyncMessage message) override {
    if (message.has_changes()) ++changes;
    ++sent;
  }
  void Close(const absl::Status& status) override {
    if (const auto host = host_.lock()) host->StreamClosed(status);
  }
  size_t backlog_bytes() const override { return backlog; }

  std::atomic<int> reads = 0;
  std::atomic<int> sent = 0;
  std::atomic<int> changes = 0;
  std::atomic<size_t> backlog = 0;

 private:
  const std::weak_ptr<SessionHost> host_;
};

TEST_F(SessionHostTest, ASilentStreamEndsAfterTheHandshakesTime) {
  SessionHostOptions options = AcceptorOptions(hub_, "italy");
  options.ended = acceptor_end_.Callback();
  options.handshake_ms_max = 10;
  const auto host = hub_group_.Make(std::move(options));
  hub_group_.Begin(host, std::make_shared<DeadTransport>(host));
  EXPECT_EQ(acceptor_end_.Wait().code(), absl::StatusCode::kDeadlineExceeded);
}

// A session whose stream had closed before it began was never forgotten by its group.
TEST_F(SessionHostTest, AStreamThatClosesFirstLeavesNoSession) {
  SessionHostOptions options = AcceptorOptions(hub_, "italy");
  options.ended = acceptor_end_.Callback();
  const auto host = hub_group_.Make(std::move(options));
  host->StreamClosed(absl::UnavailableError("gone"));
  EXPECT_EQ(acceptor_end_.Wait(), absl::UnavailableError("gone"));
  hub_group_.Begin(host, std::make_shared<DeadTransport>(host));
  EXPECT_TRUE(Eventually([&] { return hub_group_.size() == 0; }));
}

TEST_F(SessionHostTest, AnAcceptorReadsNothingWhileMuchWaitsToBeSent) {
  SessionHostOptions options = AcceptorOptions(hub_, "italy");
  options.ended = acceptor_end_.Callback();
  const auto host = hub_group_.Make(std::move(options));
  const auto transport = std::make_shared<DeadTransport>(host);
  transport->backlog = kBacklogBytesMax + 1;
  hub_group_.Begin(host, transport);
  host->Drained();  // not true, and so without effect
  transport->backlog = kBacklogBytesMax;
  EXPECT_EQ(transport->reads, 0);
  host->Drained();
  EXPECT_TRUE(Eventually([&] { return transport->reads == 1; }));
  host->Stop(absl::CancelledError("done"));
  EXPECT_EQ(acceptor_end_.Wait().code(), absl::StatusCode::kCancelled);
}

// A hub read on for a node that read nothing, without a bound.
TEST_F(SessionHostTest, AnAcceptorReadsNoRecordsWhileMuchWaitsToBeSent) {
  ASSERT_TRUE(hub_.Put(1, "italy", "one").ok());
  SessionHostOptions options = AcceptorOptions(hub_, "italy");
  options.ended = acceptor_end_.Callback();
  const auto host = hub_group_.Make(std::move(options));
  const auto transport = std::make_shared<DeadTransport>(host);
  hub_group_.Begin(host, transport);
  transport->backlog = kBacklogBytesMax + 1;
  v1::SyncMessage hello;
  hello.mutable_hello()->set_version_min(1);
  hello.mutable_hello()->set_version_max(1);
  hello.mutable_hello()->set_replica(77);
  hello.mutable_hello()->set_epoch(1);
  hello.mutable_hello()->set_node(std::string(16, 'x'));
  host->MessageArrived(hello);
  ASSERT_TRUE(Eventually([&] { return transport->sent >= 1; }));  // Welcome
  v1::SyncMessage pulse;
  pulse.mutable_pulse()->set_asks(1);
  host->MessageArrived(pulse);
  // The answer has been sent, and no Changes before it.
  ASSERT_TRUE(Eventually([&] { return transport->sent >= 2; }));
  EXPECT_EQ(transport->changes, 0);
  transport->backlog = 0;
  host->Drained();
  EXPECT_TRUE(Eventually([&] { return transport->changes > 0; }));
  host->Stop(absl::CancelledError("done"));
  EXPECT_EQ(acceptor_end_.Wait().code(), absl::StatusCode::kCancelled);
}

TEST_F(SessionHostTest, ABrokenDiskEndsTheSession) {
  Begin();
  ASSERT_TRUE(italy_.Put(1, "italy", "one").ok());
  ASSERT_TRUE(hub_.WaitFor(1, "one"));
  hub_.engine.FailNextSyncs(1, absl::DataLossError("fsync failed"));
  EXPECT_TRUE(italy_.Put(2, "italy", "two").ok());
  EXPECT_EQ(acceptor_end_.Wait().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(initiator_end_.Wait().code(), absl::StatusCode::kDataLoss);
}

TEST_F(SessionHostTest, ManyNodesShareAHubsWorkers) {
  constexpr uint32_t kNodes = 30;
  std::vector<std::unique_ptr<Site>> sites;
  std::vector<std::unique_ptr<SessionGroup>> groups;
  for (uint32_t i = 0; i < kNodes; ++i) {
    const std::string chapter = "c" + std::to_string(i);
    sites.push_back(std::make_unique<Site>(chapter, static_cast<uint8_t>(10 + i)));
    Site& site = *sites.back();
    groups.push_back(std::make_unique<SessionGroup>(*site.replica, site.environment, 1));
    ASSERT_TRUE(site.Put(i, chapter, "from " + chapter).ok());
    ASSERT_TRUE(hub_.Put(1000 + i, chapter, "to " + chapter).ok());
    SessionHostOptions options;
    options.config = SiteConfig(site, true);
    const auto initiator = groups.back()->Make(std::move(options));
    const auto acceptor = hub_group_.Make(AcceptorOptions(hub_, chapter));
    const auto pair = std::make_shared<Pair>();
    pair->Connect(initiator, acceptor);
    hub_group_.Begin(acceptor, pair->acceptor());
    groups.back()->Begin(initiator, pair->initiator());
  }
  for (uint32_t i = 0; i < kNodes; ++i) {
    const std::string chapter = "c" + std::to_string(i);
    EXPECT_TRUE(hub_.WaitFor(i, "from " + chapter));
    EXPECT_TRUE(sites[i]->WaitFor(1000 + i, "to " + chapter));
  }
  EXPECT_TRUE(hub_group_.StopAll(absl::UnavailableError("down"), absl::Seconds(60)));
  for (auto& group : groups) {
    EXPECT_TRUE(group->StopAll(absl::UnavailableError("down"), absl::Seconds(60)));
  }
}

}  // namespace
}  // namespace chaptersync::node
