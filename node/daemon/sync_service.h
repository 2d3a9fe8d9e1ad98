// SPDX-License-Identifier: Apache-2.0
//
// The SyncService of a replica: shows and steers its peers. Served to tools on
// the same machine; gRPC's own threads call it, and SyncNow keeps one waiting.
#ifndef CHAPTERSYNC_NODE_DAEMON_SYNC_SERVICE_H_
#define CHAPTERSYNC_NODE_DAEMON_SYNC_SERVICE_H_

#include <cstdint>

#include "chaptersync/v1/sync_service.grpc.pb.h"
#include "node/sync/peers.h"
#include "storage/replica/replica.h"

namespace chaptersync::node {

// Records of a feed of `replica` that the peer has not acknowledged; -1: more
// than kUnsentCountMax.
int64_t CountUnsent(const storage::Replica& replica, const PeerState& peer,
                    const PeerScopeState& scope);

class SyncServiceServer final : public v1::SyncService::Service {
 public:
  // Both outlive it.
  SyncServiceServer(storage::Replica& replica, Peers& peers) : replica_(replica), peers_(peers) {}

  grpc::Status GetSyncStatus(grpc::ServerContext* context, const v1::GetSyncStatusRequest* request,
                             v1::GetSyncStatusResponse* response) override;
  grpc::Status SyncNow(grpc::ServerContext* context, const v1::SyncNowRequest* request,
                       v1::SyncNowResponse* response) override;
  grpc::Status PauseSync(grpc::ServerContext* context, const v1::PauseSyncRequest* request,
                         v1::PauseSyncResponse* response) override;
  grpc::Status ResumeSync(grpc::ServerContext* context, const v1::ResumeSyncRequest* request,
                          v1::ResumeSyncResponse* response) override;

 private:
  storage::Replica& replica_;
  Peers& peers_;
};

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_DAEMON_SYNC_SERVICE_H_
