// SPDX-License-Identifier: Apache-2.0
//
// A crowd's nodes: the product's own replica, session, client and connector, on the engine in
// memory. They share their workers and their clock, which ticks one node after the other, as a
// thousand computers would.
#include "tools/bench/crowd.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include <grpcpp/client_context.h>
#include <nlohmann/json.hpp>
#include <openssl/rand.h>
#include <spdlog/spdlog.h>

#include "chaptersync/v1/enrolment.grpc.pb.h"
#include "chaptersync/v1/event.pb.h"
#include "node/api/status.h"
#include "node/daemon/daemon.h"
#include "node/daemon/invitation.h"
#include "node/daemon/system_environment.h"
#include "node/entity/cells.h"
#include "node/entity/registry.h"
#include "node/session/wire.h"
#include "node/sync/address.h"
#include "node/sync/grpc_connector.h"
#include "node/sync/one_request.h"
#include "node/sync/sync_client.h"
#include "node/sync/tls_credentials.h"
#include "node/sync/waker.h"
#include "node/sync/worker_pool.h"
#include "node/trust/certificate.h"
#include "storage/core/status.h"
#include "storage/engine/memory_engine.h"
#include "storage/replica/replica.h"
#include "tools/bench/stopwatch.h"

namespace chaptersync::bench {
namespace {

using nlohmann::json;

// What joining gives.
struct Enrolled {
  storage::NodeId node;
  std::string chapter;
  node::Address hub;
  node::TlsIdentity identity;
};

absl::StatusOr<Enrolled> Enrol(const std::string& invitation_text) {
  std::istringstream text(invitation_text);
  CHAPTER_ASSIGN_OR_RETURN(const v1::Invitation invitation, node::ReadInvitation("-", text));
  Enrolled enrolled;
  enrolled.chapter = invitation.chapter();
  CHAPTER_ASSIGN_OR_RETURN(enrolled.hub, node::ParseAddress(invitation.hub()));
  auto& id = enrolled.node.bytes;
  CHAPTER_CHECK(RAND_bytes(id.data(), static_cast<int>(id.size())) == 1);
  const absl::Time deadline = absl::Now() + kCrowdStepTimeout;
  const auto verdict = std::make_shared<node::TlsVerdict>();
  CHAPTER_ASSIGN_OR_RETURN(
      const auto channel,
      node::ConnectChannel(enrolled.hub, 0,
                           node::JoiningCredentials(invitation.authority(), verdict), *verdict,
                           [&] { return absl::Now() > deadline; }));
  const node::PrivateKey key = node::PrivateKey::Make();
  v1::EnrolRequest request;
  request.set_code(invitation.code());
  request.set_node(node::ToBytes(enrolled.node));
  request.set_name(enrolled.node.ToString());
  request.set_chapter(invitation.chapter());
  request.set_request(key.MakeRequest());
  v1::EnrolResponse response;
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(deadline));
  const auto stub = v1::EnrolmentService::NewStub(channel);
  CHAPTER_RETURN_IF_ERROR(
      node::FromGrpc(node::SendOneRequest(stub->Enrol(&context, &response), request)));
  enrolled.identity = {
      .key = key.ToPem(), .chain = response.chain(), .authority = verdict->authority()};
  return enrolled;
}

storage::ReplicaOptions OptionsOf(const Enrolled& enrolled) {
  storage::ReplicaOptions options;
  options.chapter = enrolled.chapter;
  options.node = enrolled.node;
  options.entities = node::StorageRules(node::BuiltinEntities());
  return options;
}

// One node, as chapter-node has it, without its disk and its local API.
class CrowdNode {
 public:
  static absl::StatusOr<std::unique_ptr<CrowdNode>> Make(const Enrolled& enrolled,
                                                         storage::Environment& environment,
                                                         node::Executor& executor) {
    std::unique_ptr<CrowdNode> made(new CrowdNode(enrolled));
    CHAPTER_ASSIGN_OR_RETURN(
        made->replica_, storage::Replica::Open(made->engine_, environment, OptionsOf(enrolled)));
    made->subscription_ = made->replica_->Subscribe(
        [self = made.get()](const auto& changes) { self->Changed(changes); });
    made->group_ = std::make_unique<node::SessionGroup>(
        *made->replica_, environment,
        node::SessionGroupSeams{.executor = &executor, .steady_ms = node::SteadyMs});
    made->client_ = std::make_unique<node::SyncClient>(*made->group_, made->connector_,
                                                       node::SyncClientOptions{});
    return made;
  }
  CrowdNode(const CrowdNode&) = delete;
  CrowdNode& operator=(const CrowdNode&) = delete;
  ~CrowdNode() {
    if (client_ != nullptr) client_->Stop();
    if (group_ != nullptr) {
      // A session uses the group to its last task.
      CHAPTER_CHECK(group_->StopAll(absl::UnavailableError("the crowd ends"), kCrowdStepTimeout));
    }
    client_.reset();
    group_.reset();
    if (replica_ != nullptr) replica_->Unsubscribe(subscription_);
  }

  void Start() { client_->Start(); }
  absl::Status SyncNow() {
    return client_->SyncNow(absl::ToInt64Milliseconds(kCrowdStepTimeout), [] { return false; })
        .status();
  }
  void Tick() { group_->Tick(); }

  // When an event's venue became what it is to be; DEADLINE_EXCEEDED.
  absl::StatusOr<int64_t> AwaitVenue(const storage::RecordKey& event, const std::string& venue) {
    const absl::Time deadline = absl::Now() + kCrowdStepTimeout;
    for (;;) {
      std::optional<Change> change;
      {
        absl::MutexLock lock(&mutex_);
        mutex_.AwaitWithDeadline(absl::Condition(this, &CrowdNode::HasNews), deadline);
        change = std::exchange(news_, std::nullopt);
      }
      if (!change) {
        return absl::DeadlineExceededError(
            absl::StrCat("a node has not seen an edit; its session: ",
                         client_->error().empty() ? std::string("stands") : client_->error()));
      }
      if (change->key != event) continue;
      CHAPTER_ASSIGN_OR_RETURN(const storage::StoredRecord stored, replica_->Read(event));
      CHAPTER_ASSIGN_OR_RETURN(const node::EntityType* const type,
                               node::BuiltinEntities().GetByNoun("events"));
      CHAPTER_ASSIGN_OR_RETURN(const auto message, node::Compose(*type, stored.record));
      const auto* shown = google::protobuf::DynamicCastToGenerated<const v1::Event>(message.get());
      if (shown != nullptr && shown->venue() == venue) return change->at_ns;
    }
  }

 private:
  // The last one that nobody has looked at: there is one edit at a time.
  struct Change {
    storage::RecordKey key;
    int64_t at_ns;
  };

  explicit CrowdNode(const Enrolled& enrolled)
      : connector_(enrolled.hub,
                   node::CurrentCredentials(
                       [identity = enrolled.identity]() -> absl::StatusOr<node::TlsIdentity> {
                         return identity;
                       })) {}

  bool HasNews() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return news_.has_value(); }

  void Changed(const std::vector<storage::ChangeEvent>& changes) {
    const int64_t now = MonotonicNs();
    absl::MutexLock lock(&mutex_);
    if (!changes.empty()) news_ = Change{changes.back().key, now};
  }

  absl::Mutex mutex_;
  std::optional<Change> news_ ABSL_GUARDED_BY(mutex_);
  storage::MemoryEngine engine_;
  node::GrpcConnector connector_;
  std::unique_ptr<storage::Replica> replica_;
  uint64_t subscription_ = 0;
  std::unique_ptr<node::SessionGroup> group_;
  std::unique_ptr<node::SyncClient> client_;
};

class NodeSet {
 public:
  ~NodeSet() {
    ending_ = true;
    waker_.Wake();
    if (clock_.joinable()) clock_.join();
  }

  // INVALID_ARGUMENT where it is no order, FAILED_PRECONDITION where it is not its turn.
  absl::StatusOr<json> Do(const json& order) {
    try {
      const std::string what = order.value("do", "");
      if (what == "join") return Join(order.at("invitations"));
      if (what == "connect") return Connect();
      if (what == "await") return Await(order.at("event"), order.at("venue"));
      return absl::InvalidArgumentError(absl::StrCat("'", what, "' is no order"));
    } catch (const json::exception& error) {
      return absl::InvalidArgumentError(error.what());
    }
  }

 private:
  absl::StatusOr<json> Join(const std::vector<std::string>& invitations) {
    if (clock_.joinable()) return absl::FailedPreconditionError("they are connected already");
    for (const std::string& invitation : invitations) {
      CHAPTER_ASSIGN_OR_RETURN(const Enrolled enrolled, Enrol(invitation));
      CHAPTER_ASSIGN_OR_RETURN(auto node, CrowdNode::Make(enrolled, environment_, pool_));
      nodes_.push_back(std::move(node));
    }
    return json{{"joined", invitations.size()}};
  }

  absl::StatusOr<json> Connect() {
    if (nodes_.empty()) return absl::FailedPreconditionError("nobody has joined");
    if (clock_.joinable()) return absl::FailedPreconditionError("they are connected already");
    clock_ = std::thread([this] { RunClock(); });
    for (size_t begin = 0; begin < nodes_.size(); begin += kConnectTogether) {
      const size_t end = std::min(nodes_.size(), begin + kConnectTogether);
      for (size_t i = begin; i < end; ++i) nodes_[i]->Start();
      for (size_t i = begin; i < end; ++i) CHAPTER_RETURN_IF_ERROR(nodes_[i]->SyncNow());
    }
    return json{{"connected", nodes_.size()}};
  }

  absl::StatusOr<json> Await(const std::string& id, const std::string& venue) {
    CHAPTER_ASSIGN_OR_RETURN(const node::EntityType* const type,
                             node::BuiltinEntities().GetByNoun("events"));
    CHAPTER_ASSIGN_OR_RETURN(const storage::RecordId record, storage::RecordId::Parse(id));
    json seen = json::array();
    for (const auto& node : nodes_) {
      CHAPTER_ASSIGN_OR_RETURN(const int64_t at_ns,
                               node->AwaitVenue({type->number, record}, venue));
      seen.push_back(at_ns);
    }
    return json{{"seen_ns", seen}};
  }

  void RunClock() {
    for (size_t next = 0; !ending_; next = (next + 1) % nodes_.size()) {
      waker_.WaitFor(std::max<int64_t>(1, node::kTickMs / std::ssize(nodes_)));
      if (!ending_) nodes_[next]->Tick();
    }
  }

  node::SystemEnvironment environment_;
  node::WorkerPool pool_{kCrowdWorkers};
  std::vector<std::unique_ptr<CrowdNode>> nodes_;
  node::Waker waker_;
  std::atomic<bool> ending_ = false;
  std::thread clock_;
};

}  // namespace

int RunCrowd() {
  node::PrepareSignals();
  node::PrepareLog();
  spdlog::set_level(spdlog::level::warn);  // what a thousand nodes have to say otherwise is much
  node::AllowOnlyTls13();
  NodeSet nodes;
  std::printf("ready\n");
  std::fflush(stdout);
  for (std::string line; std::getline(std::cin, line);) {
    const json order = json::parse(line, nullptr, false);
    if (!order.is_object()) {
      std::fprintf(stderr, "chapter-bench: crowd: an order is no JSON object\n");
      return node::kExitFailed;
    }
    const absl::StatusOr<json> answer = nodes.Do(order);
    const json said = answer.ok() ? *answer : json{{"error", answer.status().message()}};
    std::printf("%s\n", said.dump().c_str());
    std::fflush(stdout);
  }
  return node::kExitDone;
}

}  // namespace chaptersync::bench
