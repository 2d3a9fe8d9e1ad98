// SPDX-License-Identifier: Apache-2.0
//
// The AdminService of a replica: who it is, what it holds, and at a hub, who has
// joined. Served to tools on the same machine; gRPC's own threads call it.
#ifndef CHAPTERSYNC_NODE_DAEMON_ADMIN_SERVICE_H_
#define CHAPTERSYNC_NODE_DAEMON_ADMIN_SERVICE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "chaptersync/v1/admin_service.grpc.pb.h"
#include "node/sync/peers.h"
#include "storage/replica/replica.h"

namespace chaptersync::node {

// Who has joined, and how to let more in. A hub's.
class Roster {
 public:
  struct Node {
    storage::NodeId node;
    std::string chapter;
    std::string name;
    int64_t certificate_end = 0;  // seconds since 1970
    int64_t revoked = 0;          // seconds since 1970; 0: it is not
  };
  struct RevokedChapter {
    std::vector<storage::NodeId> nodes;  // that were not revoked before
    size_t invitations = 0;              // that were open
  };
  virtual ~Roster() = default;
  // An invitation as JSON. NOT_FOUND where there is no such chapter.
  virtual absl::StatusOr<std::string> Invite(const std::string& chapter,
                                             std::optional<int64_t> valid_seconds) = 0;
  virtual absl::StatusOr<std::vector<Node>> ListNodes() = 0;
  // Keeps a node out from now on, ends what it has open, and its chapter's open invitations; how
  // many these were. NOT_FOUND where there is no such node.
  virtual absl::StatusOr<size_t> RevokeNode(const storage::NodeId& node) = 0;
  // The same for all nodes and invitations of a chapter. NOT_FOUND where there is none.
  virtual absl::StatusOr<RevokedChapter> RevokeChapter(const std::string& chapter) = 0;
  // Headquarters has decided about what a node pushed: ends what it has open, so that it begins
  // anew and hears so. Of a node that has nothing open, nothing.
  virtual void RestartSessions(const storage::NodeId& node) = 0;
};

class AdminServiceServer final : public v1::AdminService::Service {
 public:
  // All outlive it; `roster` is null at a node.
  AdminServiceServer(storage::Replica& replica, Peers& peers, Roster* roster,
                     std::string federation)
      : replica_(replica), peers_(peers), roster_(roster), federation_(std::move(federation)) {}

  grpc::Status GetStatus(grpc::ServerContext* context, const v1::GetStatusRequest* request,
                         v1::GetStatusResponse* response) override;
  grpc::Status CreateInvitation(grpc::ServerContext* context,
                                const v1::CreateInvitationRequest* request,
                                v1::CreateInvitationResponse* response) override;
  grpc::Status ListNodes(grpc::ServerContext* context, const v1::ListNodesRequest* request,
                         v1::ListNodesResponse* response) override;
  grpc::Status RevokeNode(grpc::ServerContext* context, const v1::RevokeNodeRequest* request,
                          v1::RevokeNodeResponse* response) override;
  grpc::Status RevokeChapter(grpc::ServerContext* context, const v1::RevokeChapterRequest* request,
                             v1::RevokeChapterResponse* response) override;

 private:
  storage::Replica& replica_;
  Peers& peers_;
  Roster* const roster_;
  const std::string federation_;
};

// The program's version.
std::string ProgramVersion();

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_DAEMON_ADMIN_SERVICE_H_
