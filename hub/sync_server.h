// SPDX-License-Identifier: Apache-2.0
//
// The hub's side of syncing: takes streams from nodes, finds out who they are and
// what they may have, and puts the sessions on its table. gRPC calls Session on its
// own threads; everything else may be called from any thread and does not wait
// for the network.
#ifndef CHAPTERSYNC_HUB_SYNC_SERVER_H_
#define CHAPTERSYNC_HUB_SYNC_SERVER_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "chaptersync/v1/sync.grpc.pb.h"
#include "hub/enrolment.h"
#include "hub/refusal_log.h"
#include "hub/session_table.h"
#include "node/sync/peers.h"
#include "node/sync/session_host.h"

namespace chaptersync::hub {

struct SyncServerOptions {
  // What a stream's certificate says; default: node::CertifiedPeer.
  std::function<absl::StatusOr<node::CertificateFacts>(const grpc::CallbackServerContext&)>
      identify;
  size_t streams_max = node::kStreamsMax;
  int64_t handshake_ms_max = node::kHandshakeMsMax;
  // For the last answer to go out where the peer does not read on, in milliseconds.
  int64_t close_ms_max = node::kCloseMsMax;
  // As in SessionConfig.
  uint64_t silence_ms_max = node::kSilenceMaxMs;
};

class SyncServer final : public v1::ReplicationService::CallbackService, public node::Peers {
 public:
  // All outlive the server, and the gRPC server that it is registered with is
  // shut down before it goes.
  SyncServer(node::SessionGroup& group, Enrolment& enrolment, SyncServerOptions options = {});

  grpc::ServerBidiReactor<v1::SessionRequest, v1::SessionResponse>* Session(
      grpc::CallbackServerContext* context) override;

  // Ends what a node has open, which was revoked: the node is told.
  void Disconnect(const storage::NodeId& node);

  // Ends what a node has open, about whose pushes headquarters has decided: it hears so in the
  // session that it begins next.
  void RestartSessions(const storage::NodeId& node);

  // Ends all sessions, at most within `wait_max`, and takes no more.
  bool Stop(absl::Duration wait_max);

  // Every enrolled node.
  std::vector<node::PeerState> List() override;
  absl::Status Pause() override;
  absl::Status Resume() override;
  absl::StatusOr<node::SyncNowResult> SyncNow(std::optional<int64_t> timeout_ms,
                                              const std::function<bool()>& cancelled) override;

 private:
  std::string NameOf(const EnrolledNode& node) const;
  void Authorize(uint64_t serial, const node::CertificateFacts& shown, const node::Authorize& who,
                 std::function<void(node::Authorized)> done);

  node::SessionGroup& group_;
  Enrolment& enrolment_;
  const SyncServerOptions options_;
  SessionTable sessions_;
  RefusalLog refusals_;
};

}  // namespace chaptersync::hub

#endif  // CHAPTERSYNC_HUB_SYNC_SERVER_H_
