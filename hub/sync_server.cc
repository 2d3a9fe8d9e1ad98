// SPDX-License-Identifier: Apache-2.0
//
// The acceptor's end of a stream, who a node is and what it may have, and how the
// nodes stand.
#include "hub/sync_server.h"

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include <grpcpp/server_context.h>
#include <spdlog/spdlog.h>

#include "node/entity/node_names.h"
#include "node/entity/registry.h"
#include "node/sync/grpc_stream.h"
#include "node/sync/tls_credentials.h"
#include "node/sync/waker.h"

namespace chaptersync::hub {
namespace {

using node::SessionHost;
using storage::NodeId;
using storage::ReplicaId;
using storage::Scope;

using Reactor = grpc::ServerBidiReactor<v1::SessionRequest, v1::SessionResponse>;

// HAZARD: gRPC calls OnDone only after Finish, so every way in which a stream ends
// leads to Close: StreamEnds has the host do it.
class ServerStream final
    : public node::GrpcStream<Reactor, v1::SessionResponse, v1::SessionRequest> {
 public:
  // `standing`: whether the peer may still be here. `close_ms_max` as in SyncServerOptions.
  ServerStream(std::shared_ptr<SessionHost> host, grpc::CallbackServerContext* context,
               std::function<absl::Status()> standing, int64_t close_ms_max)
      : GrpcStream(std::move(host)),
        context_(context),
        standing_(std::move(standing)),
        close_ms_max_(close_ms_max) {}

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
    const absl::Status standing = standing_();
    if (!standing.ok()) host_->Stop(standing);
    absl::MutexLock lock(&mutex_);
    if (!closing_ || !writing_ || done_) return;
    // Who may not be here any more is not given the time to read on.
    if (!standing.ok() || node::SteadyMs() - closed_ms_ > close_ms_max_) context_->TryCancel();
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
  const std::function<absl::Status()> standing_;
  const int64_t close_ms_max_;
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
    : group_(group),
      enrolment_(enrolment),
      options_(options),
      sessions_(group.replica(), options.streams_max) {}

Reactor* SyncServer::Session(grpc::CallbackServerContext* context) {
  const auto shown = options_.identify ? options_.identify(*context)
                                       : node::CertifiedPeer(*context->auth_context());
  const absl::Status begins = shown.ok() ? enrolment_.CheckBegins(*shown) : shown.status();
  if (!begins.ok()) {
    if (refusals_.Say(GuesserOf(context->peer()))) {
      spdlog::info("a stream from {} refused: {}", context->peer(), begins.ToString());
    }
    return new RefusedStream(begins);
  }
  node::SessionHostOptions options;
  options.name = context->peer();
  options.config.initiator = false;
  options.config.hub = true;
  options.config.federation = enrolment_.federation();
  const storage::ReplicaOptions& replica = group_.replica().options();
  if (replica.ahead_max_ms) options.config.ahead_max_ms = *replica.ahead_max_ms;
  for (const auto& [entity, rule] : replica.entities) {
    options.config.entities[entity] = rule.fingerprint;
    options.config.nouns[entity] = node::BuiltinEntities().NounOf(entity);
  }
  options.config.silence_ms_max = options_.silence_ms_max;
  options.handshake_ms_max = options_.handshake_ms_max;
  // The host's own calls come only after it has begun, when its serial is known.
  const auto serial = std::make_shared<uint64_t>(0);
  options.authorize = [this, serial, shown = *shown](const node::Authorize& who,
                                                     std::function<void(node::Authorized)> done) {
    Authorize(*serial, shown, who, std::move(done));
  };
  options.progress = [this](const node::SessionView& view) { sessions_.Progress(view); };
  options.ended = [this, serial](const absl::Status&, bool) { sessions_.Ended(*serial); };

  const std::shared_ptr<SessionHost> host = group_.Make(std::move(options));
  *serial = host->serial();
  if (const absl::Status added = sessions_.Add(host, shown->name.node); !added.ok()) {
    if (refusals_.Say(GuesserOf(context->peer()))) {
      spdlog::warn("a stream from {} refused: {}", context->peer(), added.ToString());
    }
    return new RefusedStream(added);
  }
  const auto stream = std::make_shared<ServerStream>(
      host, context, [this, shown = *shown] { return enrolment_.CheckGoesOn(shown); },
      options_.close_ms_max);
  stream->KeepAlive();
  group_.Begin(host, stream);
  return stream.get();
}

// What is asked for must be what the certificate gives: nothing follows from a message's claims.
void SyncServer::Authorize(uint64_t serial, const node::CertificateFacts& shown,
                           const node::Authorize& who, std::function<void(node::Authorized)> done) {
  if (who.node != shown.name.node || who.hub) {
    return done({absl::PermissionDeniedError(
                     absl::StrCat("Hello is of ", who.hub ? "hub " : "node ", who.node.ToString(),
                                  ", but the certificate of node ", shown.name.node.ToString())),
                 {}});
  }
  const auto enrolled = enrolment_.Admit(shown);
  if (!enrolled.ok()) return done({enrolled.status(), {}});
  sessions_.Admit(serial,
                  {enrolled->node,
                   who.replica,
                   who.former,
                   {Scope::Global(), Scope::Chapter(enrolled->chapter)},
                   absl::StrCat("node ", NameOf(*enrolled))},
                  std::move(done));
}

// As people know it from others.
std::string SyncServer::NameOf(const EnrolledNode& node) const {
  const auto nodes = enrolment_.ListNodes();
  if (!nodes.ok()) return absl::StrCat(node.chapter, "/", node.name);
  return node::ShownNames(*nodes)[node.node];
}

void SyncServer::Disconnect(const NodeId& node) {
  sessions_.Stop(node, absl::PermissionDeniedError("headquarters has revoked this computer"));
}

void SyncServer::RestartSessions(const NodeId& node) {
  sessions_.Stop(node,
                 absl::AbortedError("headquarters has decided about what this computer pushed"));
}

bool SyncServer::Stop(absl::Duration wait_max) {
  return group_.StopAll(absl::UnavailableError("the hub goes down"), wait_max);
}

std::vector<node::PeerState> SyncServer::List() {
  std::vector<node::PeerState> states;
  const auto nodes = enrolment_.ListNodes();
  if (!nodes.ok()) return states;
  const std::map<NodeId, std::string> names = node::ShownNames(*nodes);
  const std::map<NodeId, node::SessionView> views = sessions_.Ready();
  for (const EnrolledNode& enrolled : *nodes) {
    node::PeerState state;
    state.name = names.at(enrolled.node);
    state.node = enrolled.node;
    node::PeerMemory memory;
    if (const auto it = views.find(enrolled.node); it != views.end()) {
      state.connected = true;
      memory.replica = it->second.peer.replica;
      memory.last_contact_ms = it->second.last_in_ms;
      memory.acknowledged = it->second.acknowledged;
      state.held_back = it->second.held_back;
    } else {
      memory = sessions_.Remembered(enrolled.node);
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
