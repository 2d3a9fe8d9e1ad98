// SPDX-License-Identifier: Apache-2.0
//
// The acceptor's end of a stream, and the list of sessions. What is known of a node
// outlives its session in the setting `peer/<id>`.
#include "hub/sync_server.h"

#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include <grpcpp/server_context.h>
#include <spdlog/spdlog.h>

#include "node/sync/grpc_stream.h"
#include "node/sync/waker.h"

namespace chaptersync::hub {
namespace {

using node::SessionHost;
using storage::NodeId;
using storage::ReplicaId;
using storage::Scope;

using Reactor = grpc::ServerBidiReactor<v1::SessionRequest, v1::SessionResponse>;

std::string MemoryKey(const NodeId& node) { return "peer/" + node.ToString(); }

// HAZARD: gRPC calls OnDone only after Finish, so every way in which a stream ends
// leads to Close: StreamEnds has the host do it.
class ServerStream final
    : public node::GrpcStream<Reactor, v1::SessionResponse, v1::SessionRequest> {
 public:
  ServerStream(std::shared_ptr<SessionHost> host, grpc::CallbackServerContext* context)
      : GrpcStream(std::move(host)), context_(context) {}

  void Close(const absl::Status& status) override {
    const auto self = shared_from_this();  // may be the last one, once finished
    absl::MutexLock lock(&mutex_);
    if (std::exchange(closing_, true)) return;
    status_ = status;
    closed_ms_ = node::SteadyMs();
    DropQueue();
    WriteEnded();
  }

  // A peer that does not read holds up the last write: it is cut off.
  void Tick() override {
    absl::MutexLock lock(&mutex_);
    if (closing_ && writing_ && !done_ && node::SteadyMs() - closed_ms_ > node::kCloseMsMax) {
      context_->TryCancel();
    }
  }

  void OnCancel() override { StreamEnds(); }

  void OnDone() override {
    absl::Status status;
    {
      absl::MutexLock lock(&mutex_);
      done_ = true;
      status = status_;
    }
    Done(std::move(status));
  }

 private:
  void StreamEnds() override {
    host_->StreamBroken(absl::CancelledError("the node ended the stream, or the line broke"));
  }

  void WriteEnded() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!closing_ || writing_ || std::exchange(released_, true)) return;
    Finish(node::ToGrpc(status_));
  }

  grpc::CallbackServerContext* const context_;  // until OnDone
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  int64_t closed_ms_ ABSL_GUARDED_BY(mutex_) = 0;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
};

// A stream that is not taken.
class RefusedStream final : public Reactor {
 public:
  explicit RefusedStream(const absl::Status& status) { Finish(node::ToGrpc(status)); }
  void OnDone() override { delete this; }
};

}  // namespace

SyncServer::SyncServer(node::SessionGroup& group, Enrolment& enrolment, SyncServerOptions options)
    : group_(group), enrolment_(enrolment), options_(options) {}

Reactor* SyncServer::Session(grpc::CallbackServerContext* context) {
  node::SessionHostOptions options;
  options.name = context->peer();
  options.config.initiator = false;
  options.config.hub = true;
  options.config.federation = enrolment_.federation();
  const storage::ReplicaOptions& replica = group_.replica().options();
  if (replica.ahead_max_ms) options.config.ahead_max_ms = *replica.ahead_max_ms;
  for (const auto& [entity, rule] : replica.entities) {
    options.config.entities[entity] = rule.fingerprint;
  }
  options.handshake_ms_max = options_.handshake_ms_max;
  // The host's own calls come only after it has begun, when its serial is known.
  const auto serial = std::make_shared<uint64_t>(0);
  options.authorize = [this, serial](const node::Authorize& who, ReplicaId replica_id,
                                     std::function<void(node::Authorized)> done) {
    Authorize(*serial, who, replica_id, std::move(done));
  };
  options.progress = [this](const node::SessionView& view) { Progress(view); };
  options.ended = [this, serial](const absl::Status&, bool) { Ended(*serial); };

  absl::MutexLock lock(&mutex_);
  if (live_.size() >= options_.streams_max) {
    spdlog::warn("a stream from {} refused: {} streams are open, at most {} are served",
                 context->peer(), live_.size(), options_.streams_max);
    return new RefusedStream(absl::ResourceExhaustedError(
        absl::StrCat("the hub serves ", live_.size(), " streams already")));
  }
  const std::shared_ptr<SessionHost> host = group_.Make(std::move(options));
  *serial = host->serial();
  live_[*serial].host = host;
  const auto stream = std::make_shared<ServerStream>(host, context);
  stream->KeepAlive();
  group_.Begin(host, stream);
  return stream.get();
}

void SyncServer::Authorize(uint64_t serial, const node::Authorize& who, ReplicaId replica,
                           std::function<void(node::Authorized)> done) {
  std::string name = absl::StrCat("hub ", who.node.ToString());
  std::set<Scope> scopes;
  if (who.hub) {
    if (!options_.accept_hubs) {
      return done({absl::PermissionDeniedError("other hubs are not accepted here"), {}});
    }
  } else {
    const auto enrolled = enrolment_.Authenticate(who.node, who.credential);
    if (!enrolled.ok()) return done({enrolled.status(), {}});
    scopes = {Scope::Global(), Scope::Chapter(enrolled->chapter)};
    name = absl::StrCat("node ", enrolled->chapter, "/", enrolled->name);
  }

  absl::MutexLock lock(&mutex_);
  const auto self = live_.find(serial);
  if (self == live_.end()) return;
  std::vector<Live*> earlier;
  for (auto& [other, live] : live_) {
    if (other == serial || live.replica != replica) continue;
    if (live.node != who.node) {
      return done({absl::PermissionDeniedError(absl::StrCat(
                       "replica ", storage::ToHex(replica.value), " is another node's")),
                   {}});
    }
    earlier.push_back(&live);
  }
  self->second.node = who.node;
  self->second.replica = replica;
  self->second.host->Rename(std::move(name));
  const node::Authorized yes{absl::OkStatus(), std::move(scopes)};
  if (earlier.empty()) return done(yes);
  // The earlier ones have made their last change before this one is answered: a
  // cursor must not go back under a node that has been told of it.
  const auto left = std::make_shared<std::atomic<size_t>>(earlier.size());
  for (Live* live : earlier) {
    live->when_ended.push_back([left, yes, done] {
      if (left->fetch_sub(1) == 1) done(yes);
    });
    live->host->Stop(absl::AbortedError("a newer session of the same replica took over"));
  }
}

void SyncServer::Progress(const node::SessionView& view) {
  absl::MutexLock lock(&mutex_);
  const auto it = live_.find(view.serial);
  if (it != live_.end()) it->second.view = view;
}

void SyncServer::Ended(uint64_t serial) {
  std::vector<std::function<void()>> when_ended;
  std::optional<NodeId> met;
  node::PeerMemory memory;
  {
    absl::MutexLock lock(&mutex_);
    const auto it = live_.find(serial);
    if (it == live_.end()) return;
    if (it->second.view.peer.replica != ReplicaId{} && !it->second.view.peer.hub) {
      met = it->second.node;
      memory.replica = it->second.view.peer.replica;
      memory.last_contact_ms = it->second.view.last_in_ms;
      memory.acknowledged = it->second.view.acknowledged;
    }
    when_ended.swap(it->second.when_ended);
    live_.erase(it);
  }
  if (met) {
    // For status only: what stands in the way of it stands in the way of more.
    node::SavePeerMemory(group_.replica(), MemoryKey(*met), memory).IgnoreError();
  }
  for (const auto& call : when_ended) call();
}

bool SyncServer::Stop(absl::Duration wait_max) {
  return group_.StopAll(absl::UnavailableError("the hub goes down"), wait_max);
}

std::vector<node::PeerState> SyncServer::List() {
  std::vector<node::PeerState> states;
  const auto nodes = enrolment_.ListNodes();
  if (!nodes.ok()) return states;
  std::map<NodeId, node::SessionView> views;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [serial, live] : live_) {
      if (live.node && live.view.ready) views[*live.node] = live.view;
    }
  }
  for (const EnrolledNode& enrolled : *nodes) {
    node::PeerState state;
    state.name = absl::StrCat(enrolled.chapter, "/", enrolled.name);
    state.node = enrolled.node;
    node::PeerMemory memory;
    if (const auto it = views.find(enrolled.node); it != views.end()) {
      state.connected = true;
      memory.replica = it->second.peer.replica;
      memory.last_contact_ms = it->second.last_in_ms;
      memory.acknowledged = it->second.acknowledged;
      state.held_back = it->second.held_back;
    } else {
      memory = node::LoadPeerMemory(group_.replica(), MemoryKey(enrolled.node));
    }
    state.replica = memory.replica;
    state.last_contact_ms = memory.last_contact_ms;
    for (const Scope& scope : {Scope::Global(), Scope::Chapter(enrolled.chapter)}) {
      node::PeerScopeState one{
          .scope = scope, .acknowledged = storage::Sequence{}, .caught_up = {}};
      if (const auto it = memory.acknowledged.find(scope); it != memory.acknowledged.end()) {
        one.acknowledged = it->second;
      }
      state.scopes.push_back(std::move(one));
    }
    states.push_back(std::move(state));
  }
  return states;
}

absl::Status SyncServer::Pause() {
  return absl::FailedPreconditionError("syncing is paused at nodes; this is a hub");
}

absl::Status SyncServer::Resume() {
  return absl::FailedPreconditionError("syncing is resumed at nodes; this is a hub");
}

absl::StatusOr<node::SyncNowResult> SyncServer::SyncNow(std::optional<int64_t>,
                                                        const std::function<bool()>&) {
  return absl::FailedPreconditionError("nodes sync with their hub; this is the hub");
}

}  // namespace chaptersync::hub
