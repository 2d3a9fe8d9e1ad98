// SPDX-License-Identifier: Apache-2.0
//
// Nodes and a hub over gRPC and TLS on loopback: records both ways, lines that break,
// two of the same replica, strangers, and peers that do not keep the protocol.
#include "hub/sync_server.h"

#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "node/sync/grpc_stream.h"
#include "node/sync/renewer.h"
#include "tests/hub/hub_fixture.h"

namespace chaptersync::hub {
namespace {

using node::Eventually;
using node::Site;
using testing::HasSubstr;

class SyncServerTest : public testing::Test {
 protected:
  // A stream whose other end reads nothing, while the hub has much to tell it.
  std::unique_ptr<RawStream> OpenDeaf(const node::TlsIdentity& identity) {
    const std::string text(500'000, 'x');
    for (uint32_t i = 0; i < 60; ++i) EXPECT_TRUE(hub_.Put(i, "italy", text).ok());
    auto deaf = std::make_unique<RawStream>(server().address(), identity);
    deaf->Send(HelloOf(italy_));
    EXPECT_TRUE(Eventually([&] {
      const auto peers = server().sync_server().List();
      return !peers.empty() && peers.front().connected;
    }));
    return deaf;
  }

  // With default options; a test may start another.
  HubServer& server() {
    if (server_ == nullptr) server_ = std::make_unique<HubServer>(hub_);
    return *server_;
  }
  void Start(SyncServerOptions options) { server_ = std::make_unique<HubServer>(hub_, options); }

  node::TlsIdentity Enrol(const Site& site) {
    return server().Enrol(site.replica->options().node, site.replica->options().chapter);
  }

  HubSite hub_;
  Site italy_{"italy", 2, node::StorageRules(node::BuiltinEntities())};
  Site toronto_{"toronto", 3, node::StorageRules(node::BuiltinEntities())};
  std::unique_ptr<HubServer> server_;
};

TEST_F(SyncServerTest, NodesAndHubHoldTheSame) {
  const node::TlsIdentity italys = Enrol(italy_);
  const node::TlsIdentity torontos = Enrol(toronto_);
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
  const node::TlsIdentity identity = Enrol(italy_);
  const std::string text(500'000, 'x');
  for (uint32_t i = 0; i < 40; ++i) {
    ASSERT_TRUE(italy_.Put(i, "italy", text + std::to_string(i)).ok());
    ASSERT_TRUE(hub_.Put(100 + i, "italy", text + std::to_string(i)).ok());
  }
  TestNode italy(italy_, server().address(), identity);
  ASSERT_TRUE(italy.SyncNow().ok());
  for (uint32_t i = 0; i < 40; ++i) {
    EXPECT_EQ(hub_.Text(i), text + std::to_string(i));
    EXPECT_EQ(italy_.Text(100 + i), text + std::to_string(i));
  }
}

TEST_F(SyncServerTest, ALineThatBreaksAnywhereLosesNothing) {
  const node::TlsIdentity identity = Enrol(italy_);
  Relay relay(server().address());
  TestNode italy(italy_, relay.address(), identity);
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
  const node::TlsIdentity identity = Enrol(italy_);
  Relay relay(server().address());
  auto italy = std::make_unique<TestNode>(italy_, server().address(), identity);
  ASSERT_TRUE(italy->SyncNow().ok());
  server().Stop();
  ASSERT_TRUE(italy_.Put(1, "italy", "while away").ok());
  ASSERT_TRUE(Eventually([&] { return !italy->client.error().empty(); }));
  Start({});
  italy = std::make_unique<TestNode>(italy_, server().address(), identity);
  ASSERT_TRUE(italy->SyncNow().ok());
  EXPECT_EQ(hub_.Text(1), "while away");
}

// A stream that ended took the process's last channel with it on gRPC's own thread,
// which gRPC then tried to join: the process aborted, now and then.
TEST_F(SyncServerTest, TheLastStreamsChannelGoesWithoutHarm) {
  const node::TlsIdentity identity = Enrol(italy_);
  for (int round = 0; round < 30; ++round) {
    Start({});
    TestNode italy(italy_, server().address(), identity);
    ASSERT_TRUE(italy.SyncNow().ok());
    server_.reset();
  }
}

TEST_F(SyncServerTest, ASecondSessionOfAReplicaEndsTheFirst) {
  const node::TlsIdentity identity = Enrol(italy_);
  RawStream first(server().address(), identity);
  first.Send(HelloOf(italy_));
  v1::SyncMessage message;
  ASSERT_TRUE(first.Receive(message));
  ASSERT_TRUE(message.has_welcome());
  TestNode second(italy_, server().address(), identity);
  const grpc::Status ended = first.Finish();
  EXPECT_EQ(ended.error_code(), grpc::StatusCode::ABORTED);
  EXPECT_THAT(ended.error_message(), HasSubstr("newer session"));
  EXPECT_TRUE(second.SyncNow().ok());
}

TEST_F(SyncServerTest, AnotherNodeCannotTakeAReplicasPlace) {
  const node::TlsIdentity identity = Enrol(italy_);
  const node::TlsIdentity others = Enrol(toronto_);
  TestNode italy(italy_, server().address(), identity);
  ASSERT_TRUE(italy.SyncNow().ok());
  RawStream thief(server().address(), others);
  v1::SyncMessage hello = HelloOf(toronto_);
  hello.mutable_hello()->set_replica(italy_.replica->replica_id().value);
  thief.Send(hello);
  EXPECT_EQ(thief.Finish().error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_TRUE(italy.SyncNow().ok());
  EXPECT_EQ(italy.client.sessions(), 1u);
}

TEST_F(SyncServerTest, WhoShowsNoCertificateOrAnothersIsToldSo) {
  Enrol(italy_);
  ASSERT_TRUE(hub_.Put(1, "italy", "secret").ok());
  RawStream nobody(server().address(), {.key = "", .chain = "", .authority = hub_.authority_pem()});
  nobody.Send(HelloOf(italy_));
  const grpc::Status refused = nobody.Finish();
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_THAT(refused.error_message(), HasSubstr("certificate"));
  // Toronto's, with a Hello of Italy's node.
  const node::TlsIdentity torontos = Enrol(toronto_);
  RawStream thief(server().address(), torontos);
  thief.Send(HelloOf(italy_));
  const grpc::Status denied = thief.Finish();
  EXPECT_EQ(denied.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_THAT(denied.error_message(), HasSubstr("certificate of node"));
  // Nor does a node become a hub by saying so.
  RawStream proud(server().address(), torontos);
  v1::SyncMessage hello = HelloOf(toronto_);
  hello.mutable_hello()->set_hub(true);
  proud.Send(hello);
  EXPECT_EQ(proud.Finish().error_code(), grpc::StatusCode::PERMISSION_DENIED);
}

TEST_F(SyncServerTest, AnotherAuthoritysCertificateGetsNoFurtherThanTheHandshake) {
  HubSite other;
  const node::TlsIdentity theirs = IdentityOf(
      other.authority,
      {.federation = hub_.authority.federation(), .chapter = "italy", .node = italy_.options.node});
  RawStream stranger(server().address(),
                     {.key = theirs.key, .chain = theirs.chain, .authority = hub_.authority_pem()});
  stranger.Send(HelloOf(italy_));
  EXPECT_EQ(stranger.Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  // And a node does not speak to a hub of another federation.
  HubServer imposter(other);
  TestNode italy(italy_, imposter.address(), Enrol(italy_));
  ASSERT_TRUE(Eventually([&] { return !italy.client.error().empty(); }));
  EXPECT_THAT(italy.client.error(), HasSubstr("no hub of this federation"));
}

TEST_F(SyncServerTest, ANodesCertificateIsNoHubs) {
  // Of the right authority, but it names a node: who has stolen it cannot play the hub.
  const node::TlsIdentity stolen = Enrol(toronto_);
  HubServer imposter(hub_, {}, &stolen);
  TestNode italy(italy_, imposter.address(), Enrol(italy_));
  ASSERT_TRUE(Eventually([&] { return !italy.client.error().empty(); }));
  EXPECT_THAT(italy.client.error(), HasSubstr("no hub of this federation"));
}

TEST_F(SyncServerTest, ARevokedNodeIsOutAtOnceAndForGood) {
  const node::TlsIdentity identity = Enrol(italy_);
  Site second{"italy", 4, node::StorageRules(node::BuiltinEntities())};
  TestNode other(second, server().address(), Enrol(second));
  TestNode italy(italy_, server().address(), identity);
  ASSERT_TRUE(italy.SyncNow().ok());
  ASSERT_TRUE(other.SyncNow().ok());
  // Both of one name, and told apart.
  std::vector<std::string> names;
  for (const node::PeerState& peer : server().sync_server().List()) names.push_back(peer.name);
  EXPECT_THAT(names, testing::UnorderedElementsAre(
                         "italy/office~" + italy_.options.node.ToString().substr(0, 4),
                         "italy/office~" + second.options.node.ToString().substr(0, 4)));
  ASSERT_TRUE(server().enrolment().RevokeNode(italy_.options.node).ok());
  server().sync_server().Disconnect(italy_.options.node);
  ASSERT_TRUE(Eventually([&] { return !italy.client.error().empty(); }));
  EXPECT_THAT(italy.client.error(), HasSubstr("revoked"));
  EXPECT_EQ(italy.client.sessions(), 1u);
  ASSERT_TRUE(hub_.Put(1, "italy", "afterwards").ok());
  // The chapter goes on with its other computer.
  EXPECT_TRUE(other.SyncNow().ok());
  EXPECT_EQ(second.Text(1), "afterwards");
  EXPECT_EQ(italy_.Text(1), "");
  RawStream again(server().address(), identity);
  EXPECT_EQ(again.Finish().error_code(), grpc::StatusCode::PERMISSION_DENIED);
}

TEST_F(SyncServerTest, ARevokedNodeKnowsThatItIsKeptOut) {
  // It showed the name of a code and no way out.
  TestNode italy(italy_, server().address(), Enrol(italy_));
  ASSERT_TRUE(italy.SyncNow().ok());
  EXPECT_FALSE(italy.client.List().front().kept_out);
  ASSERT_TRUE(server().enrolment().RevokeNode(italy_.options.node).ok());
  server().sync_server().Disconnect(italy_.options.node);
  ASSERT_TRUE(Eventually([&] { return italy.client.List().front().kept_out; }));
  EXPECT_EQ(italy.client.List().front().error, "headquarters has revoked this computer");
}

TEST_F(SyncServerTest, DisconnectEndsASessionByItself) {
  TestNode italy(italy_, server().address(), Enrol(italy_));
  ASSERT_TRUE(italy.SyncNow().ok());
  ASSERT_EQ(italy.client.sessions(), 1u);
  // It may come again: nobody has revoked it.
  server().sync_server().Disconnect(italy_.options.node);
  EXPECT_TRUE(Eventually([&] { return italy.client.sessions() == 2; }));
}

TEST_F(SyncServerTest, ANodeHearsInItsNextSessionWhatHeadquartersDecided) {
  // Another hub has erased a note that this one has never seen.
  ASSERT_TRUE(italy_.Put(1, "italy", "erased elsewhere").ok());
  storage::RecordUpdate erasure;
  erasure.state = italy_.replica->Read(node::NoteKey(1))->record;
  erasure.state.Erase();
  storage::ApplyRequest word;
  word.peer.node.bytes[0] = 9;
  word.peer.replica = {99};
  word.peer.epoch = {1};
  word.peer.hub = true;
  word.peer.entities = {{node::kNote, italy_.options.entities[node::kNote].fingerprint}};
  word.records = {{storage::Sequence{}, node::NoteKey(1), storage::EncodeUpdate(erasure)}};
  ASSERT_TRUE(italy_.replica->Apply(word).ok());
  TestNode italy(italy_, server().address(), Enrol(italy_));
  ASSERT_TRUE(italy.SyncNow().ok());
  const storage::NodeId hub = hub_.options.node;
  EXPECT_TRUE(Eventually([&] { return italy_.replica->CountWaiting(hub)->approval == 1; }));
  const auto waiting = hub_.replica->ListApprovals(0, 10);
  ASSERT_EQ(waiting.size(), 1u);
  EXPECT_EQ(waiting.front().from, italy_.options.node);
  ASSERT_TRUE(hub_.replica->Approve(waiting.front().number).ok());
  server().sync_server().RestartSessions(italy_.options.node);
  ASSERT_TRUE(Eventually([&] { return italy.client.sessions() == 2; }));
  ASSERT_TRUE(italy.SyncNow().ok());
  EXPECT_TRUE(Eventually([&] { return italy_.replica->CountWaiting(hub)->approval == 0; }));
  EXPECT_TRUE(hub_.replica->ListApprovals(0, 10).empty());
  EXPECT_TRUE(hub_.replica->Read(node::NoteKey(1))->record.erased);
}

TEST_F(SyncServerTest, WhoCopiedAFolderIsOutOnceItsOwnerHasJoinedAgain) {
  const node::TlsIdentity copied = Enrol(italy_);
  RawStream thief(server().address(), copied);
  thief.Send(HelloOf(italy_));
  v1::SyncMessage welcome;
  ASSERT_TRUE(thief.Receive(welcome));
  const auto invitation = server().enrolment().Invite("italy", kInvitationSecondsDefault, "h:1");
  ASSERT_TRUE(invitation.ok());
  const node::PrivateKey key = node::PrivateKey::Make();
  const auto former = node::PrivateKey::FromPem(copied.key);
  ASSERT_TRUE(former.ok());
  v1::EnrolRequest again;
  again.set_code(invitation->code());
  again.set_node(node::ToBytes(italy_.options.node));
  again.set_request(key.MakeRequest());
  again.set_chapter("italy");
  again.set_former_key(former->PublicKey());
  again.set_former_signature(former->Sign(again.request()));
  ASSERT_TRUE(server().enrolment().Enrol(again, "test").ok());
  const grpc::Status ended = thief.Finish();
  EXPECT_EQ(ended.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_THAT(ended.error_message(), HasSubstr("another certificate"));
  // Nor does it take one of the few places that the node has.
  for (size_t i = 0; i < 2 * node::kStreamsPerNodeMax; ++i) {
    RawStream more(server().address(), copied);
    EXPECT_EQ(more.Finish().error_code(), grpc::StatusCode::PERMISSION_DENIED);
  }
}

TEST_F(SyncServerTest, AStreamWithoutHelloIsOfAKeyThatCountsOrIsRefusedAtOnce) {
  const node::TlsIdentity identity = Enrol(italy_);
  const node::TlsIdentity strange = IdentityOf(
      hub_.authority,
      {.federation = hub_.authority.federation(), .chapter = "italy", .node = italy_.options.node},
      node::PrivateKey::Make(), -600);
  RawStream stream(server().address(), strange);  // says nothing
  const grpc::Status ended = stream.Finish();
  EXPECT_EQ(ended.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_THAT(ended.error_message(), HasSubstr("another certificate"));
}

TEST_F(SyncServerTest, ASessionLastsAsLongAsTheLatestCertificate) {
  // Short: a session ends where nothing came for minutes, as it seems when the clock moves on.
  server_ = std::make_unique<HubServer>(hub_, SyncServerOptions{}, nullptr,
                                        /*certificate_seconds=*/240);
  const auto at = [&](uint64_t seconds) {
    hub_.environment.ahead_ms = italy_.environment.ahead_ms = 1000 * seconds;
  };
  const node::TlsIdentity identity = Enrol(italy_);
  TestNode italy(italy_, server().address(), identity);
  ASSERT_TRUE(italy.SyncNow().ok());
  // Two thirds are over: a new one, over the connection that stands, which goes on.
  at(161);
  node::TlsIdentity now = identity;
  node::Renewer renewer(
      {.now = [&] { return static_cast<int64_t>(hub_.environment.NowMs() / 1000); },
       .load = [&] { return now; },
       .store =
           [&](const node::PrivateKey& key, const std::string& chain) {
             now.key = key.ToPem();
             now.chain = chain;
             return absl::OkStatus();
           },
       .ready = [] { return true; },
       .certify =
           [&](const node::Renewal& renewal) {
             return italy.connector.Renew(renewal, absl::Milliseconds(node::kPatienceMs));
           }});
  const auto renewed = renewer.RenewIfDue();
  ASSERT_TRUE(renewed.ok()) << renewed.status();
  EXPECT_TRUE(*renewed);
  EXPECT_NE(now.chain, identity.chain);
  EXPECT_NE(now.key, identity.key);
  EXPECT_FALSE(*renewer.RenewIfDue());
  ASSERT_TRUE(italy.SyncNow().ok());
  // The first one's end is over, and the stream that it began goes on.
  at(300);
  node::Waker nobody;
  nobody.WaitFor(2 * node::kTickMs);  // the hub has looked at it
  EXPECT_TRUE(italy.SyncNow().ok());
  EXPECT_EQ(italy.client.sessions(), 1u);
  // The second one's, too.
  at(450);
  ASSERT_TRUE(Eventually([&] { return !italy.client.error().empty(); }));
  EXPECT_THAT(italy.client.error(), HasSubstr("certificate"));
}

TEST_F(SyncServerTest, ARevokedNodeThatDoesNotReadIsCutOff) {
  Start({.close_ms_max = 10 * node::kPatienceMs});  // what others are given
  const node::TlsIdentity identity = Enrol(italy_);
  const auto deaf = OpenDeaf(identity);
  ASSERT_TRUE(server().enrolment().RevokeNode(italy_.options.node).ok());
  server().sync_server().Disconnect(italy_.options.node);
  EXPECT_TRUE(Eventually([&] { return server().group().size() == 0; }));
}

TEST_F(SyncServerTest, ANodeThatWasAwayTooLongSaysSo) {
  const node::TlsIdentity identity = Enrol(italy_);
  hub_.environment.ahead_ms = 1000 * uint64_t{node::kCertificateSeconds} + 1;
  TestNode italy(italy_, server().address(), identity);
  ASSERT_TRUE(Eventually([&] { return !italy.client.error().empty(); }));
  EXPECT_THAT(italy.client.error(), HasSubstr("certificate ended on"));
  EXPECT_THAT(italy.client.error(), HasSubstr("chapter-node join"));
}

TEST_F(SyncServerTest, ALaptopWhoseClockIsYearsAheadReachesItsHub) {
  // By its own clock its certificate has ended, and the hub's as well.
  const node::TlsIdentity identity = Enrol(italy_);
  italy_.environment.ahead_ms = 8000 * uint64_t{node::kCertificateSeconds};
  ASSERT_TRUE(hub_.Put(1, "italy", "x").ok());
  TestNode italy(italy_, server().address(), identity);
  EXPECT_TRUE(italy.SyncNow().ok());
  EXPECT_EQ(italy_.Text(1), "x");
}

TEST_F(SyncServerTest, OneComputerHasAFewStreamsAtMost) {
  const node::TlsIdentity identity = Enrol(italy_);
  std::vector<std::unique_ptr<RawStream>> idle;
  for (size_t i = 0; i < node::kStreamsPerNodeMax; ++i) {
    idle.push_back(std::make_unique<RawStream>(server().address(), identity));
  }
  ASSERT_TRUE(Eventually([&] { return server().group().size() == idle.size(); }));
  RawStream last(server().address(), identity);
  EXPECT_EQ(last.Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  TestNode toronto(toronto_, server().address(), Enrol(toronto_));
  EXPECT_TRUE(toronto.SyncNow().ok());
}

TEST_F(SyncServerTest, AHubsCertificateOpensNoStream) {
  // It would give everything; hubs are not enrolled at each other yet.
  Site other("", 9);
  const node::TlsIdentity identity = IdentityOf(
      hub_.authority,
      {.federation = hub_.authority.federation(), .chapter = "", .node = other.options.node});
  RawStream taken(server().address(), identity);
  v1::SyncMessage hello = HelloOf(other);
  hello.mutable_hello()->set_hub(true);
  taken.Send(hello);
  EXPECT_EQ(taken.Finish().error_code(), grpc::StatusCode::PERMISSION_DENIED);
  RawStream own(server().address(), hub_.Identity());
  own.Send(HelloOf(hub_));
  EXPECT_EQ(own.Finish().error_code(), grpc::StatusCode::PERMISSION_DENIED);
}

TEST_F(SyncServerTest, GarbageDisturbsNobody) {
  const node::TlsIdentity identity = Enrol(italy_);
  TestNode italy(italy_, server().address(), identity);
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
  const node::TlsIdentity identity = Enrol(italy_);
  std::vector<v1::SyncMessage> bad(5);
  bad[0].mutable_pulse();
  bad[1].mutable_hello()->set_replica(1);
  bad[2] = HelloOf(italy_);
  bad[2].mutable_hello()->set_node("short");
  bad[3] = HelloOf(italy_);
  bad[3].mutable_hello()->set_epoch(0);
  for (size_t i = 0; i < bad.size(); ++i) {
    RawStream stream(server().address(), identity);
    stream.Send(bad[i]);
    const grpc::Status status = stream.Finish();
    EXPECT_THAT(status.error_code(), testing::AnyOf(grpc::StatusCode::INVALID_ARGUMENT,
                                                    grpc::StatusCode::FAILED_PRECONDITION))
        << i << ": " << status.error_message();
  }
  RawStream stream(server().address(), identity);
  stream.Send(HelloOf(italy_));
  v1::SyncMessage nonsense;
  nonsense.mutable_changes()->set_scope("*");
  nonsense.mutable_changes()->set_payload("nonsense");
  stream.Send(nonsense);
  EXPECT_EQ(stream.Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(SyncServerTest, AValueThatNobodyCouldReadIsRefusedByItself) {
  TestNode italy(italy_, server().address(), Enrol(italy_));
  const node::EntityType& members = **node::BuiltinEntities().GetByNoun("members");
  const auto field = [&](const char* name) {
    return static_cast<uint32_t>(members.descriptor->FindFieldByName(name)->number());
  };
  storage::LocalWrite good{.key = {members.number, {}}, .actor = "officer"};
  good.key.id.bytes[0] = 1;
  good.cells = {{{field("chapter"), {}}, node::WireText(field("chapter"), "italy")}};
  std::vector<storage::LocalWrite> bad(4, good);
  // Bytes that end early, another field's, an entry where there is no map, and no UTF-8.
  bad[0].cells.push_back({{field("employer"), {}}, "\x3a\x7f"});
  bad[1].cells.push_back({{field("employer"), {}}, node::WireText(field("notes"), "x")});
  bad[2].cells.push_back({{field("employer"), "x"}, "x"});
  bad[3].cells.push_back({{field("employer"), {}}, node::WireText(field("employer"), "\xff")});
  for (uint8_t i = 0; i < bad.size(); ++i) bad[i].key.id.bytes[0] = static_cast<uint8_t>(2 + i);
  // A later schema's.
  good.cells.push_back({{5000, {}}, node::WireText(5000, "kept")});
  std::vector<storage::LocalWrite> all = bad;
  all.push_back(good);
  ASSERT_TRUE(italy_.replica->Write(all).ok());
  ASSERT_TRUE(italy.SyncNow().ok());
  ASSERT_TRUE(Eventually([&] { return italy_.replica->ListRefused(0, 100)->size() == 4; }));
  const auto refused_writes = italy_.replica->ListRefused(0, 100);
  ASSERT_TRUE(refused_writes.ok()) << refused_writes.status();
  for (const storage::RefusedWrite& refused : *refused_writes) {
    EXPECT_THAT(refused.reason, HasSubstr("no value of it"));
  }
  for (const storage::LocalWrite& write : bad) EXPECT_FALSE(hub_.replica->Read(write.key).ok());
  const auto held = hub_.replica->Read(good.key);
  ASSERT_TRUE(held.ok()) << held.status();
  EXPECT_NE(held->record.Find({5000, {}}), nullptr);
}

TEST_F(SyncServerTest, AMessageThatIsTooLargeIsRefused) {
  const node::TlsIdentity identity = Enrol(italy_);
  RawStream stream(server().address(), identity);
  stream.Send(HelloOf(italy_));
  v1::SyncMessage large;
  large.mutable_changes()->set_payload(std::string(node::kMessageBytesMax + 1000, 'x'));
  stream.Send(large);
  EXPECT_EQ(stream.Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(SyncServerTest, AnotherVersionIsRefusedWithBothVersions) {
  const node::TlsIdentity identity = Enrol(italy_);
  RawStream stream(server().address(), identity);
  v1::SyncMessage hello = HelloOf(italy_);
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
  builder.AddListeningPort("127.0.0.1:0", node::HubCredentials(hub_.Identity()), &port);
  builder.RegisterService(&strange);
  const auto strange_server = builder.BuildAndStart();
  {
    TestNode italy(italy_, {"127.0.0.1", static_cast<uint16_t>(port)}, Enrol(italy_));
    ASSERT_TRUE(Eventually([&] { return !italy.client.error().empty(); }));
    EXPECT_EQ(italy.client.error(), "the hub speaks protocol version 99, this program 1 to 1");
  }
  strange_server->Shutdown();
}

TEST_F(SyncServerTest, WhoSaysNothingIsHungUpOn) {
  Start({.handshake_ms_max = 10});
  const node::TlsIdentity identity = Enrol(italy_);
  RawStream stream(server().address(), identity);
  EXPECT_EQ(stream.Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
}

TEST_F(SyncServerTest, TheNumberOfStreamsIsBounded) {
  Start({.streams_max = 1});
  const node::TlsIdentity identity = Enrol(italy_);
  {
    RawStream first(server().address(), identity);
    first.Send(HelloOf(italy_));
    v1::SyncMessage message;
    ASSERT_TRUE(first.Receive(message));
    RawStream second(server().address(), identity);
    EXPECT_EQ(second.Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  }
  // The first has gone: its place is free.
  ASSERT_TRUE(Eventually([&] { return server().group().size() == 0; }));
  TestNode italy(italy_, server().address(), identity);
  EXPECT_TRUE(italy.SyncNow().ok());
}

TEST_F(SyncServerTest, ANodeThatReadsNothingHoldsUpNobody) {
  const node::TlsIdentity identity = Enrol(italy_);
  const auto deaf = OpenDeaf(identity);
  const node::TlsIdentity torontos = Enrol(toronto_);
  TestNode toronto(toronto_, server().address(), torontos);
  ASSERT_TRUE(toronto_.Put(1000, "toronto", "quick").ok());
  EXPECT_TRUE(toronto.SyncNow().ok());
  EXPECT_EQ(hub_.Text(1000), "quick");
  // And the hub ends in spite of it.
  server().Stop();
}

TEST_F(SyncServerTest, StatusTellsWhoIsThereAndWhatTheyLack) {
  const node::TlsIdentity identity =
      server().Enrol(italy_.replica->options().node, "italy", "desk");
  ASSERT_TRUE(hub_.Put(1, "italy", "one").ok());
  auto peers = server().sync_server().List();
  ASSERT_EQ(peers.size(), 1u);
  EXPECT_EQ(peers[0].name, "italy/desk");
  EXPECT_FALSE(peers[0].connected);
  EXPECT_EQ(peers[0].last_contact_ms, 0u);
  auto italy = std::make_unique<TestNode>(italy_, server().address(), identity);
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
