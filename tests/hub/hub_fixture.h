// SPDX-License-Identifier: Apache-2.0
//
// A hub on a real port of this machine for tests, and what comes to it: nodes,
// streams that say what a test wants, and a relay that can cut the line. Any
// thread, where nothing else is said.
#ifndef CHAPTERSYNC_TESTS_HUB_HUB_FIXTURE_H_
#define CHAPTERSYNC_TESTS_HUB_HUB_FIXTURE_H_

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "hub/enrolment.h"
#include "hub/enrolment_server.h"
#include "hub/grpc_server.h"
#include "hub/sync_server.h"
#include "node/entity/ids.h"
#include "node/entity/registry.h"
#include "node/session/wire.h"
#include "node/sync/grpc_connector.h"
#include "node/sync/sync_client.h"
#include "node/sync/tls_credentials.h"
#include "node/trust/certificate.h"
#include "tests/node/sync/sync_fixture.h"

namespace chaptersync::hub {

inline constexpr uint32_t kHandleField = 1;

// Adds a chapter as headquarters does.
inline absl::Status AddChapter(node::Site& hub, const std::string& handle) {
  const node::EntityType* type = *node::BuiltinEntities().GetByNoun("chapters");
  storage::LocalWrite write{.key = {type->number, node::NamedId(*type, handle)}, .actor = "hq"};
  write.cells = {{{kHandleField, {}}, node::WireText(kHandleField, handle)}};
  auto results = hub.replica->Write({write});
  return results.ok() ? results->front().status : results.status();
}

// A key with a certificate of `authority` that was made so many seconds from now.
inline node::TlsIdentity IdentityOf(const node::Authority& authority,
                                    const node::CertifiedName& name,
                                    const node::PrivateKey& key = node::PrivateKey::Make(),
                                    int64_t seconds = 0) {
  const auto chain =
      authority.Certify(key.MakeRequest(), name, absl::ToUnixSeconds(absl::Now()) + seconds);
  EXPECT_TRUE(chain.ok()) << chain.status();
  return {.key = key.ToPem(), .chain = *chain, .authority = authority.certificate_pem()};
}

// A channel's credentials; without a key it shows no certificate.
inline std::shared_ptr<grpc::ChannelCredentials> CredentialsOf(const node::TlsIdentity& identity) {
  const auto verdict = std::make_shared<node::TlsVerdict>();
  if (identity.key.empty()) {
    return node::JoiningCredentials(*node::FingerprintOf(identity.authority), verdict);
  }
  const auto credentials = node::NodeCredentials(identity, verdict);
  EXPECT_TRUE(credentials.ok()) << credentials.status();
  return *credentials;
}

// A site that knows notes and the program's own entities.
class HubSite : public node::Site {
 public:
  HubSite() : Site("", 1, node::StorageRules(node::BuiltinEntities())) {
    EXPECT_TRUE(AddChapter(*this, "italy").ok());
    EXPECT_TRUE(AddChapter(*this, "toronto").ok());
  }
  const std::string& authority_pem() const { return authority.certificate_pem(); }
  node::TlsIdentity Identity() const {
    return IdentityOf(authority,
                      {.federation = authority.federation(), .chapter = "", .node = options.node});
  }

  const node::Authority authority =
      node::Authority::Make("Federation", absl::ToUnixSeconds(absl::Now()));
};

class HubServer {
 public:
  // `identity`: what it shows, instead of the site's own. In the clear where `options.identify`
  // says who comes.
  explicit HubServer(HubSite& site, SyncServerOptions options = {},
                     const node::TlsIdentity* identity = nullptr,
                     int64_t certificate_seconds = node::kCertificateSeconds,
                     int64_t call_ms_max = node::kHandshakeMsMax)
      : group_(*site.replica, site.environment),
        enrolment_(*site.replica, site.environment, "Federation", site.authority,
                   certificate_seconds),
        enrolment_server_(enrolment_, call_ms_max),
        sync_server_(group_, enrolment_, options) {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort(
        "127.0.0.1:0",
        options.identify != nullptr
            ? grpc::InsecureServerCredentials()
            : node::HubCredentials(identity != nullptr ? *identity : site.Identity()),
        &port);
    LimitServer(builder);
    builder.RegisterService(&enrolment_server_);
    builder.RegisterService(&sync_server_);
    server_ = builder.BuildAndStart();
    EXPECT_NE(server_, nullptr);
    address_ = {"127.0.0.1", static_cast<uint16_t>(port)};
  }
  ~HubServer() { Stop(); }

  void Stop() {
    if (server_ == nullptr) return;
    EXPECT_TRUE(sync_server_.Stop(absl::Seconds(60)));
    server_->Shutdown();
    server_->Wait();
    server_.reset();
  }

  const node::Address& address() const { return address_; }
  Enrolment& enrolment() { return enrolment_; }
  SyncServer& sync_server() { return sync_server_; }
  node::SessionGroup& group() { return group_; }

  // Enrols a node of a chapter; its identity.
  node::TlsIdentity Enrol(const storage::NodeId& node, const std::string& chapter,
                          const std::string& name = "office") {
    const auto invitation =
        enrolment_.Invite(chapter, kInvitationSecondsDefault, address_.ToString());
    EXPECT_TRUE(invitation.ok()) << invitation.status();
    if (!invitation.ok()) return {};
    const node::PrivateKey key = node::PrivateKey::Make();
    v1::EnrolRequest request;
    request.set_code(invitation->code());
    request.set_node(node::ToBytes(node));
    request.set_name(name);
    request.set_request(key.MakeRequest());
    request.set_chapter(chapter);
    const auto response = enrolment_.Enrol(request, "test");
    EXPECT_TRUE(response.ok()) << response.status();
    if (!response.ok()) return {};
    return {.key = key.ToPem(),
            .chain = response->chain(),
            .authority = enrolment_.authority().certificate_pem()};
  }

 private:
  node::SessionGroup group_;
  Enrolment enrolment_;
  EnrolmentServer enrolment_server_;
  SyncServer sync_server_;
  std::unique_ptr<grpc::Server> server_;
  node::Address address_;
};

// A node with its client.
struct TestNode {
  TestNode(node::Site& site, const node::Address& hub, const node::TlsIdentity& identity)
      : group(*site.replica, site.environment, 1),
        connector(hub, node::CurrentCredentials(
                           [identity]() -> absl::StatusOr<node::TlsIdentity> { return identity; })),
        client(group, connector, {""}) {
    client.Start();
  }

  absl::Status SyncNow() {
    return client.SyncNow(node::kPatienceMs, [] { return false; }).status();
  }

  node::SessionGroup group;
  node::GrpcConnector connector;
  node::SyncClient client;
};

// A stream on which a test says what it wants. One thread.
class RawStream {
 public:
  RawStream(const node::Address& hub, const node::TlsIdentity& identity)
      : stub_(v1::ReplicationService::NewStub(
            grpc::CreateChannel(hub.ToString(), CredentialsOf(identity)))),
        stream_(stub_->Session(&context_)) {}
  ~RawStream() { context_.TryCancel(); }

  void Send(const v1::SyncMessage& message) {
    v1::SessionRequest request;
    *request.mutable_message() = message;
    stream_->Write(request);
  }
  // False once the stream is over.
  bool Receive(v1::SyncMessage& message) {
    v1::SessionResponse response;
    if (!stream_->Read(&response)) return false;
    message = response.message();
    return true;
  }
  // Reads to the end; why it ended.
  grpc::Status Finish() {
    v1::SyncMessage message;
    while (Receive(message)) {
    }
    return stream_->Finish();
  }

 private:
  std::unique_ptr<v1::ReplicationService::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::SessionRequest, v1::SessionResponse>> stream_;
};

inline v1::SyncMessage HelloOf(const node::Site& site) {
  const auto facts = site.replica->SayHello(0);
  EXPECT_TRUE(facts.ok()) << facts.status();
  v1::SyncMessage message;
  v1::Hello& hello = *message.mutable_hello();
  hello.set_version_min(node::kVersionMin);
  hello.set_version_max(node::kVersionMax);
  hello.set_replica(facts->replica.value);
  hello.set_epoch(facts->epoch.value);
  hello.set_node(node::ToBytes(facts->node));
  *hello.mutable_clock() = node::ToProto(facts->clock);
  hello.set_session(7);
  return message;
}

// A line to `to` that can be cut.
class Relay {
 public:
  explicit Relay(const node::Address& to);
  ~Relay();

  node::Address address() const { return {"127.0.0.1", port_}; }
  // Breaks all connections that stand; new ones are taken.
  void Cut();
  // Breaks them after this many bytes more from either side.
  void CutAfter(int64_t bytes) { left_ = bytes; }

 private:
  void Accept();
  void Copy(int from, int to);

  const node::Address to_;
  int listener_ = -1;
  uint16_t port_ = 0;
  std::atomic<int64_t> left_ = INT64_MAX;
  absl::Mutex mutex_;
  std::vector<int> sockets_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(mutex_);
  std::thread acceptor_;
};

// A TCP connection; -1 where there is none.
int ConnectTo(const node::Address& address);

}  // namespace chaptersync::hub

#endif  // CHAPTERSYNC_TESTS_HUB_HUB_FIXTURE_H_
