// SPDX-License-Identifier: Apache-2.0
//
// Nodes and a hub over gRPC on loopback: records both ways, lines that break, two
// of the same replica, wrong credentials, and peers that do not keep the protocol.
#include "hub/sync_server.h"

#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <random>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/hub/hub_fixture.h"

namespace chaptersync::hub {
namespace {

using node::Eventually;
using node::Site;
using testing::HasSubstr;

class SyncServerTest : public testing::Test {
 protected:
  // With default options; a test may start another.
  HubServer& server() {
    if (server_ == nullptr) server_ = std::make_unique<HubServer>(hub_);
    return *server_;
  }
  void Start(SyncServerOptions options) { server_ = std::make_unique<HubServer>(hub_, options); }

  std::string Enrol(const Site& site) {
    return server().Enrol(site.replica->options().node, site.replica->options().chapter);
  }

  HubSite hub_;
  Site italy_{"italy", 2, node::StorageRules(node::BuiltinEntities())};
  Site toronto_{"toronto", 3, node::StorageRules(node::BuiltinEntities())};
  std::unique_ptr<HubServer> server_;
};

TEST_F(SyncServerTest, NodesAndHubHoldTheSame) {
  const std::string italys = Enrol(italy_);
  const std::string torontos = Enrol(toronto_);
  TestNode italy(italy_, server().address(), italys);
  TestNode toronto(toronto_, server().address(), torontos);
  ASSERT_TRUE(italy_.Put(1, "italy", "from italy").ok());
  ASSERT_TRUE(hub_.Put(2, "toronto", "from the hub").ok());
  ASSERT_TRUE(italy.SyncNow().ok());
  ASSERT_TRUE(toronto.SyncNow().ok());
  EXPECT_EQ(hub_.Text(1), "from italy");
  EXPECT_EQ(toronto_.Text(2), "from the hub");
  EXPECT_EQ(toronto_.Text(1), "");
  EXPECT_EQ(italy_.Text(2), "");
  // Live.
  ASSERT_TRUE(hub_.Put(1, "italy", "answer").ok());
  EXPECT_TRUE(italy_.WaitFor(1, "answer"));
  ASSERT_TRUE(toronto_.Put(2, "toronto", "answer").ok());
  EXPECT_TRUE(hub_.WaitFor(2, "answer"));
}

TEST_F(SyncServerTest, LargeRecordsOverManyPagesArrive) {
  const std::string credential = Enrol(italy_);
  const std::string text(500'000, 'x');
  for (uint32_t i = 0; i < 40; ++i) {
    ASSERT_TRUE(italy_.Put(i, "italy", text + std::to_string(i)).ok());
    ASSERT_TRUE(hub_.Put(100 + i, "italy", text + std::to_string(i)).ok());
  }
  TestNode italy(italy_, server().address(), credential);
  ASSERT_TRUE(italy.SyncNow().ok());
  for (uint32_t i = 0; i < 40; ++i) {
    EXPECT_EQ(hub_.Text(i), text + std::to_string(i));
    EXPECT_EQ(italy_.Text(100 + i), text + std::to_string(i));
  }
}

TEST_F(SyncServerTest, ALineThatBreaksAnywhereLosesNothing) {
  const std::string credential = Enrol(italy_);
  Relay relay(server().address());
  TestNode italy(italy_, relay.address(), credential);
  // A stream's first bytes, then a little into the next exchange, and so on.
  uint32_t number = 0;
  for (const int64_t bytes : {10, 100, 300, 700, 1500, 3000, 8000}) {
    relay.CutAfter(bytes);
    for (int i = 0; i < 20; ++i, ++number) {
      ASSERT_TRUE(italy_.Put(number, "italy", "i" + std::to_string(number)).ok());
      ASSERT_TRUE(hub_.Put(10'000 + number, "italy", "h" + std::to_string(number)).ok());
    }
    const absl::Status status = italy.SyncNow();
    ASSERT_TRUE(status.ok()) << status;
  }
  EXPECT_GT(italy.client.sessions(), 1u);
  for (uint32_t i = 0; i < number; ++i) {
    EXPECT_EQ(hub_.Text(i), "i" + std::to_string(i));
    EXPECT_EQ(italy_.Text(10'000 + i), "h" + std::to_string(i));
  }
}

TEST_F(SyncServerTest, ANodeComesBackToAHubThatWasAway) {
  const std::string credential = Enrol(italy_);
  Relay relay(server().address());
  auto italy = std::make_unique<TestNode>(italy_, server().address(), credential);
  ASSERT_TRUE(italy->SyncNow().ok());
  server().Stop();
  ASSERT_TRUE(italy_.Put(1, "italy", "while away").ok());
  ASSERT_TRUE(Eventually([&] { return !italy->client.error().empty(); }));
  Start({});
  italy = std::make_unique<TestNode>(italy_, server().address(), credential);
  ASSERT_TRUE(italy->SyncNow().ok());
  EXPECT_EQ(hub_.Text(1), "while away");
}

// A stream that ended took the process's last channel with it on gRPC's own thread,
// which gRPC then tried to join: the process aborted, now and then.
TEST_F(SyncServerTest, TheLastStreamsChannelGoesWithoutHarm) {
  const std::string credential = Enrol(italy_);
  for (int round = 0; round < 30; ++round) {
    Start({});
    TestNode italy(italy_, server().address(), credential);
    ASSERT_TRUE(italy.SyncNow().ok());
    server_.reset();
  }
}

TEST_F(SyncServerTest, ASecondSessionOfAReplicaEndsTheFirst) {
  const std::string credential = Enrol(italy_);
  RawStream first(server().address());
  first.Send(HelloOf(italy_, credential));
  v1::SyncMessage message;
  ASSERT_TRUE(first.Receive(message));
  ASSERT_TRUE(message.has_welcome());
  TestNode second(italy_, server().address(), credential);
  const grpc::Status ended = first.Finish();
  EXPECT_EQ(ended.error_code(), grpc::StatusCode::ABORTED);
  EXPECT_THAT(ended.error_message(), HasSubstr("newer session"));
  EXPECT_TRUE(second.SyncNow().ok());
}

TEST_F(SyncServerTest, AnotherNodeCannotTakeAReplicasPlace) {
  const std::string credential = Enrol(italy_);
  const std::string others = Enrol(toronto_);
  TestNode italy(italy_, server().address(), credential);
  ASSERT_TRUE(italy.SyncNow().ok());
  RawStream thief(server().address());
  v1::SyncMessage hello = HelloOf(toronto_, others);
  hello.mutable_hello()->set_replica(italy_.replica->replica_id().value);
  thief.Send(hello);
  EXPECT_EQ(thief.Finish().error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_TRUE(italy.SyncNow().ok());
  EXPECT_EQ(italy.client.sessions(), 1u);
}

TEST_F(SyncServerTest, WhoIsNotEnrolledOrHasNotTheCredentialStaysOut) {
  const std::string credential = Enrol(italy_);
  ASSERT_TRUE(hub_.Put(1, "italy", "secret").ok());
  std::string wrong = credential;
  wrong[0] = static_cast<char>(wrong[0] ^ 1);
  for (const std::string& bad : {wrong, std::string(), credential.substr(1), credential + "x"}) {
    TestNode italy(italy_, server().address(), bad);
    ASSERT_TRUE(Eventually([&] { return !italy.client.error().empty(); }));
    EXPECT_THAT(italy.client.error(), HasSubstr("PERMISSION_DENIED"));
    EXPECT_THAT(italy.client.error(), HasSubstr("credential"));
  }
  TestNode toronto(toronto_, server().address(), credential);
  ASSERT_TRUE(Eventually([&] { return !toronto.client.error().empty(); }));
  EXPECT_THAT(toronto.client.error(), HasSubstr("not enrolled"));
  EXPECT_EQ(italy_.Text(1), "");
}

TEST_F(SyncServerTest, HubsAreTakenOnlyWhereATestSaysSo) {
  Site other("", 9);
  RawStream refused(server().address());
  v1::SyncMessage hello = HelloOf(other, "");
  hello.mutable_hello()->set_hub(true);
  refused.Send(hello);
  EXPECT_EQ(refused.Finish().error_code(), grpc::StatusCode::PERMISSION_DENIED);
  Start({.accept_hubs = true});
  RawStream taken(server().address());
  taken.Send(hello);
  v1::SyncMessage message;
  ASSERT_TRUE(taken.Receive(message));
  EXPECT_THAT(message.welcome().scopes(), testing::ElementsAre("*"));
}

TEST_F(SyncServerTest, GarbageDisturbsNobody) {
  const std::string credential = Enrol(italy_);
  TestNode italy(italy_, server().address(), credential);
  std::mt19937 random(1);
  for (int i = 0; i < 20; ++i) {
    const int fd = ConnectTo(server().address());
    ASSERT_GE(fd, 0);
    // Some of it begins as HTTP/2 does.
    std::string bytes = i % 2 == 0 ? "" : "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for (int j = 0; j < 4000; ++j) bytes.push_back(static_cast<char>(random()));
    send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    shutdown(fd, SHUT_WR);
    char buffer[4096];
    while (recv(fd, buffer, sizeof(buffer), 0) > 0) {
    }
    close(fd);
  }
  ASSERT_TRUE(italy_.Put(1, "italy", "still here").ok());
  EXPECT_TRUE(italy.SyncNow().ok());
  EXPECT_EQ(hub_.Text(1), "still here");
}

TEST_F(SyncServerTest, MalformedMessagesEndTheStreamAndNothingElse) {
  const std::string credential = Enrol(italy_);
  std::vector<v1::SyncMessage> bad(5);
  bad[0].mutable_pulse();
  bad[1].mutable_hello()->set_replica(1);
  bad[2] = HelloOf(italy_, credential);
  bad[2].mutable_hello()->set_node("short");
  bad[3] = HelloOf(italy_, credential);
  bad[3].mutable_hello()->set_epoch(0);
  for (size_t i = 0; i < bad.size(); ++i) {
    RawStream stream(server().address());
    stream.Send(bad[i]);
    const grpc::Status status = stream.Finish();
    EXPECT_THAT(status.error_code(), testing::AnyOf(grpc::StatusCode::INVALID_ARGUMENT,
                                                    grpc::StatusCode::FAILED_PRECONDITION))
        << i << ": " << status.error_message();
  }
  RawStream stream(server().address());
  stream.Send(HelloOf(italy_, credential));
  v1::SyncMessage nonsense;
  nonsense.mutable_changes()->set_scope("*");
  nonsense.mutable_changes()->set_payload("nonsense");
  stream.Send(nonsense);
  EXPECT_EQ(stream.Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(SyncServerTest, AMessageThatIsTooLargeIsRefused) {
  const std::string credential = Enrol(italy_);
  RawStream stream(server().address());
  stream.Send(HelloOf(italy_, credential));
  v1::SyncMessage large;
  large.mutable_changes()->set_payload(std::string(node::kMessageBytesMax + 1000, 'x'));
  stream.Send(large);
  EXPECT_EQ(stream.Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(SyncServerTest, AnotherVersionIsRefusedWithBothVersions) {
  const std::string credential = Enrol(italy_);
  RawStream stream(server().address());
  v1::SyncMessage hello = HelloOf(italy_, credential);
  hello.mutable_hello()->set_version_min(99);
  hello.mutable_hello()->set_version_max(99);
  stream.Send(hello);
  const grpc::Status status = stream.Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(), HasSubstr("99"));
  EXPECT_THAT(status.error_message(), HasSubstr("this program 1 to 1"));
}

// Answers every Hello with a Welcome in a version that nobody speaks.
class StrangeHub final : public v1::ReplicationService::Service {
  grpc::Status Session(
      grpc::ServerContext*,
      grpc::ServerReaderWriter<v1::SessionResponse, v1::SessionRequest>* stream) override {
    v1::SessionRequest request;
    stream->Read(&request);
    v1::SessionResponse response;
    response.mutable_message()->mutable_welcome()->set_version(99);
    response.mutable_message()->mutable_welcome()->set_node(std::string(16, 'n'));
    stream->Write(response);
    while (stream->Read(&request)) {
    }
    return grpc::Status::OK;
  }
};

TEST_F(SyncServerTest, ANodeRefusesAHubOfAnotherVersion) {
  StrangeHub strange;
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&strange);
  const auto strange_server = builder.BuildAndStart();
  {
    TestNode italy(italy_, {"127.0.0.1", static_cast<uint16_t>(port)}, "");
    ASSERT_TRUE(Eventually([&] { return !italy.client.error().empty(); }));
    EXPECT_THAT(italy.client.error(), HasSubstr("FAILED_PRECONDITION"));
    EXPECT_THAT(italy.client.error(), HasSubstr("version 99"));
  }
  strange_server->Shutdown();
}

TEST_F(SyncServerTest, NodesDoNotLeaveThisMachine) {
  TestNode italy(italy_, {"192.0.2.1", 7443}, "");
  ASSERT_TRUE(Eventually([&] { return !italy.client.error().empty(); }));
  EXPECT_THAT(italy.client.error(), HasSubstr("another machine (192.0.2.1)"));
}

TEST_F(SyncServerTest, WhoSaysNothingIsHungUpOn) {
  Start({.handshake_ms_max = 10});
  RawStream stream(server().address());
  EXPECT_EQ(stream.Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
}

TEST_F(SyncServerTest, TheNumberOfStreamsIsBounded) {
  Start({.streams_max = 1});
  const std::string credential = Enrol(italy_);
  {
    RawStream first(server().address());
    first.Send(HelloOf(italy_, credential));
    v1::SyncMessage message;
    ASSERT_TRUE(first.Receive(message));
    RawStream second(server().address());
    EXPECT_EQ(second.Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  }
  // The first has gone: its place is free.
  ASSERT_TRUE(Eventually([&] { return server().group().size() == 0; }));
  TestNode italy(italy_, server().address(), credential);
  EXPECT_TRUE(italy.SyncNow().ok());
}

TEST_F(SyncServerTest, ANodeThatReadsNothingHoldsUpNobody) {
  const std::string credential = Enrol(italy_);
  const std::string text(500'000, 'x');
  for (uint32_t i = 0; i < 60; ++i) ASSERT_TRUE(hub_.Put(i, "italy", text).ok());
  RawStream deaf(server().address());
  deaf.Send(HelloOf(italy_, credential));
  ASSERT_TRUE(Eventually([&] {
    const auto peers = server().sync_server().List();
    return !peers.empty() && peers.front().connected;
  }));
  const std::string torontos = Enrol(toronto_);
  TestNode toronto(toronto_, server().address(), torontos);
  ASSERT_TRUE(toronto_.Put(1000, "toronto", "quick").ok());
  EXPECT_TRUE(toronto.SyncNow().ok());
  EXPECT_EQ(hub_.Text(1000), "quick");
  // And the hub ends in spite of it.
  server().Stop();
}

TEST_F(SyncServerTest, StatusTellsWhoIsThereAndWhatTheyLack) {
  const std::string credential = server().Enrol(italy_.replica->options().node, "italy", "desk");
  ASSERT_TRUE(hub_.Put(1, "italy", "one").ok());
  auto peers = server().sync_server().List();
  ASSERT_EQ(peers.size(), 1u);
  EXPECT_EQ(peers[0].name, "italy/desk");
  EXPECT_FALSE(peers[0].connected);
  EXPECT_EQ(peers[0].last_contact_ms, 0u);
  auto italy = std::make_unique<TestNode>(italy_, server().address(), credential);
  ASSERT_TRUE(italy->SyncNow().ok());
  const auto ends = hub_.replica->FeedEnds({storage::Scope::Chapter("italy")});
  ASSERT_TRUE(ends.ok());
  ASSERT_TRUE(Eventually([&] {
    peers = server().sync_server().List();
    return peers[0].scopes[1].acknowledged == ends->front().sequence;
  }));
  EXPECT_TRUE(peers[0].connected);
  EXPECT_EQ(peers[0].replica, italy_.replica->replica_id());
  italy.reset();
  ASSERT_TRUE(Eventually([&] {
    peers = server().sync_server().List();
    return !peers[0].connected;
  }));
  EXPECT_NE(peers[0].last_contact_ms, 0u);
  EXPECT_EQ(peers[0].scopes[1].acknowledged, ends->front().sequence);
}

}  // namespace
}  // namespace chaptersync::hub
