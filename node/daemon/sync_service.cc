// SPDX-License-Identifier: Apache-2.0
//
// Peers as messages. SyncNow looks every now and then at whether its caller is
// still there.
#include "node/daemon/sync_service.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "google/protobuf/util/time_util.h"
#include <grpcpp/server_context.h>

#include "node/entity/registry.h"
#include "node/sync/grpc_stream.h"
#include "node/sync/limits.h"

namespace chaptersync::node {
namespace {

using google::protobuf::util::TimeUtil;

std::vector<std::string> HeldBackLines(const storage::Replica& replica, const storage::NodeId& hub,
                                       const std::set<storage::EntityNumber>& held_back) {
  std::vector<std::string> lines;
  const auto waiting = replica.CountWaiting(hub);
  const auto records = [](uint64_t count) {
    return absl::StrCat(count, count == 1 ? " record" : " records");
  };
  if (waiting.ok() && waiting->ahead > 0) {
    lines.push_back(
        absl::StrCat(records(waiting->ahead), " stamped ahead: until the hub's clock has come up"));
  }
  if (waiting.ok() && waiting->approval > 0) {
    lines.push_back(
        absl::StrCat(records(waiting->approval), ": until headquarters has approved them"));
  }
  for (const storage::EntityNumber& entity : held_back) {
    lines.push_back(absl::StrCat(BuiltinEntities().NounOf(entity), ": until the hub knows them"));
  }
  return lines;
}

}  // namespace

int64_t CountUnsent(const storage::Replica& replica, const PeerState& peer,
                    const PeerScopeState& scope) {
  if (!scope.acknowledged) return 0;
  const auto count =
      replica.CountUnsent(scope.scope, *scope.acknowledged, peer.replica, kUnsentCountMax);
  if (!count.ok() || *count > kUnsentCountMax) return -1;
  return static_cast<int64_t>(*count);
}

grpc::Status SyncServiceServer::GetSyncStatus(grpc::ServerContext*, const v1::GetSyncStatusRequest*,
                                              v1::GetSyncStatusResponse* response) {
  response->set_paused(peers_.paused());
  for (const PeerState& peer : peers_.List()) {
    for (const PeerScopeState& scope : peer.scopes) {
      v1::PeerScope* out = response->add_peers();
      out->set_peer(peer.name);
      out->set_scope(scope.scope.name);
      out->set_connected(peer.connected);
      out->set_unsent(CountUnsent(replica_, peer, scope));
      const bool sends = scope.scope == storage::Scope::All();
      out->set_behind(sends || scope.caught_up == true ? 0 : -1);
      if (peer.last_contact_ms != 0) {
        *out->mutable_last_contact() =
            TimeUtil::MillisecondsToTimestamp(static_cast<int64_t>(peer.last_contact_ms));
      }
      out->set_clock_offset_ms(replica_.clock_offset_ms());
      out->set_error(peer.error);
      if (!sends) continue;
      for (std::string& line : HeldBackLines(replica_, peer.node, peer.held_back)) {
        out->add_held_back(std::move(line));
      }
    }
  }
  return grpc::Status::OK;
}

grpc::Status SyncServiceServer::SyncNow(grpc::ServerContext* context, const v1::SyncNowRequest*,
                                        v1::SyncNowResponse* response) {
  std::optional<int64_t> timeout_ms;
  const auto deadline = context->deadline();
  if (deadline != std::chrono::system_clock::time_point::max()) {
    // A little before the caller gives up, so that it hears why.
    constexpr int64_t kEarlierMs = 100;
    timeout_ms = std::chrono::duration_cast<std::chrono::milliseconds>(
                     deadline - std::chrono::system_clock::now())
                     .count() -
                 kEarlierMs;
    timeout_ms = std::max<int64_t>(*timeout_ms, 0);
  }
  auto result = peers_.SyncNow(timeout_ms, [context] { return context->IsCancelled(); });
  if (!result.ok()) return ToGrpc(result.status());
  response->set_sent(result->sent);
  response->set_received(result->received);
  const std::vector<PeerState> peers = peers_.List();
  const storage::NodeId hub = peers.empty() ? storage::NodeId{} : peers.front().node;
  for (std::string& line : HeldBackLines(replica_, hub, result->held_back)) {
    response->add_held_back(std::move(line));
  }
  return grpc::Status::OK;
}

grpc::Status SyncServiceServer::PauseSync(grpc::ServerContext*, const v1::PauseSyncRequest*,
                                          v1::PauseSyncResponse*) {
  return ToGrpc(peers_.Pause());
}

grpc::Status SyncServiceServer::ResumeSync(grpc::ServerContext*, const v1::ResumeSyncRequest*,
                                           v1::ResumeSyncResponse*) {
  return ToGrpc(peers_.Resume());
}

}  // namespace chaptersync::node
