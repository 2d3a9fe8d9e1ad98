// SPDX-License-Identifier: Apache-2.0
//
// The hub's table of sessions, with real session hosts on one thread, whose peers
// are the test: who takes over from whom, and when that is answered.
#include "hub/session_table.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "node/session/limits.h"
#include "tests/node/sync/queue_executor.h"
#include "tests/node/sync/sync_fixture.h"

namespace chaptersync::hub {
namespace {

using node::HandStream;
using node::SessionHost;
using storage::NodeId;
using storage::ReplicaId;
using storage::Scope;
using testing::HasSubstr;

NodeId Node(uint8_t number) {
  NodeId node;
  node.bytes[0] = number;
  return node;
}

v1::SyncMessage HelloOf(uint8_t node, ReplicaId replica) {
  v1::SyncMessage message;
  v1::Hello& hello = *message.mutable_hello();
  hello.set_version_min(node::kVersionMin);
  hello.set_version_max(node::kVersionMax);
  hello.set_replica(replica.value);
  hello.set_epoch(1);
  const NodeId id = Node(node);
  hello.set_node(std::string(id.bytes.begin(), id.bytes.end()));
  return message;
}

constexpr ReplicaId kReplica{77};
constexpr ReplicaId kOtherReplica{uint64_t{78} << storage::kLineageShift};  // not of the same ids

class SessionTableTest : public testing::Test {
 protected:
  // A session at the hub, of a peer that said Hello.
  struct Peer {
    std::shared_ptr<SessionHost> host;
    std::shared_ptr<HandStream> stream;
    std::shared_ptr<int> answers = std::make_shared<int>(0);
    bool welcomed() const { return stream->welcomed; }
  };

  // `held`: the stream is over only once the test releases it.
  Peer Come(SessionTable& table, uint8_t node, ReplicaId replica, bool held = false,
            ReplicaId former = {}) {
    Peer peer;
    node::SessionHostOptions options;
    options.config = SiteConfig(hub_, false);
    const auto serial = std::make_shared<uint64_t>(0);
    options.authorize = [&table, serial, answers = peer.answers](
                            const node::Authorize& who,
                            const std::function<void(node::Authorized)>& done) {
      table.Admit(
          *serial,
          {who.node, who.replica, who.former, {Scope::Global(), Scope::Chapter("italy")}, "a node"},
          [done, answers](node::Authorized answer) {
            ++*answers;
            done(std::move(answer));
          });
    };
    options.progress = [&table](const node::SessionView& view) { table.Progress(view); };
    options.ended = [&table, serial](const absl::Status&, bool) { table.Ended(*serial); };
    peer.host = group_.Make(std::move(options));
    *serial = peer.host->serial();
    EXPECT_TRUE(table.Add(peer.host).ok());
    peer.stream = std::make_shared<HandStream>(peer.host, held);
    group_.Begin(peer.host, peer.stream);
    v1::SyncMessage hello = HelloOf(node, replica);
    if (former != ReplicaId{}) hello.mutable_hello()->add_former(former.value);
    peer.host->MessageArrived(std::move(hello));
    executor_.Run();
    return peer;
  }

  node::QueueExecutor executor_;
  node::Site hub_{"", 1};
  SessionTable table_{*hub_.replica};
  node::SessionGroup group_{*hub_.replica,
                            hub_.environment,
                            {.executor = &executor_, .steady_ms = [] { return int64_t{0}; }}};
};

TEST_F(SessionTableTest, AReadySessionIsListedAndThenRemembered) {
  const Peer peer = Come(table_, 1, kReplica);
  EXPECT_TRUE(peer.welcomed());
  EXPECT_EQ(table_.size(), 1u);
  const auto ready = table_.Ready();
  ASSERT_EQ(ready.count(Node(1)), 1u);
  EXPECT_EQ(ready.at(Node(1)).peer.replica, kReplica);
  EXPECT_EQ(table_.Remembered(Node(1)).replica, ReplicaId{});
  peer.host->Stop(absl::CancelledError("done"));
  executor_.Run();
  EXPECT_EQ(table_.size(), 0u);
  EXPECT_TRUE(table_.Ready().empty());
  EXPECT_EQ(table_.Remembered(Node(1)).replica, kReplica);
  EXPECT_NE(table_.Remembered(Node(1)).last_contact_ms, 0u);
}

// Calls before each write.
class WatchedEngine final : public storage::Engine {
 public:
  explicit WatchedEngine(storage::Engine& engine) : engine_(engine) {}
  absl::Status Write(const storage::WriteBatch& batch) override {
    if (before_write) before_write();
    return engine_.Write(batch);
  }
  absl::Status Sync() override { return engine_.Sync(); }
  absl::StatusOr<std::string> Get(storage::Table table, std::string_view key) const override {
    return engine_.Get(table, key);
  }
  std::unique_ptr<storage::Snapshot> NewSnapshot() const override { return engine_.NewSnapshot(); }
  absl::Status Scrub(storage::Table table, std::string_view lower,
                     std::string_view upper) override {
    return engine_.Scrub(table, lower, upper);
  }
  std::function<void()> before_write;

 private:
  storage::Engine& engine_;
};

TEST_F(SessionTableTest, ASessionIsListedUntilItIsRemembered) {
  WatchedEngine watched(hub_.engine);
  const auto replica = storage::Replica::Open(watched, hub_.environment, hub_.options);
  ASSERT_TRUE(replica.ok()) << replica.status();
  SessionTable table(**replica);
  const Peer peer = Come(table, 1, kReplica);
  ASSERT_TRUE(peer.welcomed());
  int writes = 0;
  watched.before_write = [&] {
    ++writes;
    EXPECT_EQ(table.Ready().count(Node(1)), 1u);
    EXPECT_EQ(table.Remembered(Node(1)).last_contact_ms, 0u);
    // Too late: it is over.
    table.Admit(peer.host->serial(), {Node(1), kReplica, {}, {}, "late"},
                [](const node::Authorized&) { ADD_FAILURE() << "answered"; });
  };
  peer.host->Stop(absl::CancelledError("done"));
  executor_.Run();
  EXPECT_EQ(writes, 1);
  EXPECT_TRUE(table.Ready().empty());
  EXPECT_NE(table.Remembered(Node(1)).last_contact_ms, 0u);
}

TEST_F(SessionTableTest, ASecondSessionIsAnsweredOnceTheFirstHasEnded) {
  const Peer first = Come(table_, 1, kReplica, /*held=*/true);
  const Peer second = Come(table_, 1, kReplica);
  // The first was told to end, and has not ended yet.
  ASSERT_TRUE(first.stream->closed.has_value());
  EXPECT_EQ(first.stream->closed->code(), absl::StatusCode::kAborted);
  EXPECT_EQ(table_.size(), 2u);
  EXPECT_EQ(*second.answers, 0);
  EXPECT_FALSE(second.welcomed());
  first.stream->Release();
  executor_.Run();
  EXPECT_EQ(table_.size(), 1u);
  EXPECT_EQ(*second.answers, 1);
  EXPECT_TRUE(second.welcomed());
  EXPECT_EQ(table_.Ready().at(Node(1)).serial, second.host->serial());
}

TEST_F(SessionTableTest, AThirdWaitsForTheFirstAndForTheSecondThatWaits) {
  const Peer first = Come(table_, 1, kReplica, /*held=*/true);
  const Peer second = Come(table_, 1, kReplica, /*held=*/true);
  const Peer third = Come(table_, 1, kReplica);
  EXPECT_TRUE(second.stream->closed.has_value());
  second.stream->Release();
  executor_.Run();
  EXPECT_EQ(*third.answers, 0);
  first.stream->Release();
  executor_.Run();
  EXPECT_TRUE(third.welcomed());
  EXPECT_FALSE(second.welcomed());
  EXPECT_EQ(table_.size(), 1u);
}

TEST_F(SessionTableTest, UnderAnotherIdItEndsWhatWentOnUnderTheFormer) {
  constexpr ReplicaId kLater{79};
  const Peer first = Come(table_, 1, kReplica, /*held=*/true);
  const Peer another = Come(table_, 2, kOtherReplica);
  const Peer later = Come(table_, 1, kLater, /*held=*/false, /*former=*/kReplica);
  EXPECT_TRUE(first.stream->closed);
  EXPECT_FALSE(later.welcomed());
  first.stream->Release();
  executor_.Run();
  EXPECT_TRUE(later.welcomed());
  EXPECT_EQ(table_.size(), 2u);
  // What another node calls a former id of its own ends nobody else's session.
  const Peer liar = Come(table_, 2, {uint64_t{80} << storage::kLineageShift}, false, kLater);
  EXPECT_TRUE(liar.welcomed());
  EXPECT_FALSE(later.stream->closed);
}

TEST_F(SessionTableTest, OtherReplicasDoNotEndEachOther) {
  const Peer one = Come(table_, 1, kReplica);
  const Peer other = Come(table_, 2, kOtherReplica);
  EXPECT_FALSE(one.stream->closed.has_value());
  EXPECT_TRUE(other.welcomed());
  EXPECT_EQ(table_.Ready().size(), 2u);
}

TEST_F(SessionTableTest, AReplicaOfAnotherLiveNodeIsRefused) {
  const Peer owner = Come(table_, 1, kReplica);
  const Peer thief = Come(table_, 2, kReplica);
  ASSERT_TRUE(thief.stream->closed.has_value());
  EXPECT_EQ(thief.stream->closed->code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(thief.stream->closed->message()), HasSubstr("another node's"));
  EXPECT_FALSE(owner.stream->closed.has_value());
  EXPECT_EQ(table_.size(), 1u);
}

TEST_F(SessionTableTest, AStreamMayEndBeforeItsSessionIsAdmitted) {
  const Peer first = Come(table_, 1, kReplica, /*held=*/true);
  const Peer second = Come(table_, 1, kReplica);
  second.host->StreamClosed(absl::UnavailableError("gone"));
  executor_.Run();
  EXPECT_EQ(table_.size(), 1u);
  // The answer comes to a session that is over.
  first.stream->Release();
  executor_.Run();
  EXPECT_EQ(table_.size(), 0u);
  EXPECT_FALSE(second.welcomed());
  // Who asks only then gets no answer, and leaves nothing.
  bool answered = false;
  table_.Admit(second.host->serial(), {Node(1), kReplica, {}, {}, "late"},
               [&](const node::Authorized&) { answered = true; });
  EXPECT_FALSE(answered);
  table_.Ended(second.host->serial());
  EXPECT_TRUE(Come(table_, 1, kReplica).welcomed());
}

TEST_F(SessionTableTest, TheNumberOfSessionsIsBounded) {
  SessionTable small(*hub_.replica, 1);
  const Peer first = Come(small, 1, kReplica);
  const auto second = group_.Make(node::AcceptorOptions(hub_, "italy"));
  const absl::Status refused = small.Add(second);
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("serves 1 streams"));
  EXPECT_EQ(small.size(), 1u);
  first.host->Stop(absl::CancelledError("done"));
  executor_.Run();
  EXPECT_TRUE(small.Add(second).ok());
}

}  // namespace
}  // namespace chaptersync::hub
