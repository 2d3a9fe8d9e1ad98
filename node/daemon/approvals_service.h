// SPDX-License-Identifier: Apache-2.0
//
// What waits at a hub for headquarters' word: reading it and taking that word, as
// approvals_service.proto promises. Served to tools on the same machine; gRPC's own
// threads call it, and a decision waits for the disk.
#ifndef CHAPTERSYNC_NODE_DAEMON_APPROVALS_SERVICE_H_
#define CHAPTERSYNC_NODE_DAEMON_APPROVALS_SERVICE_H_

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include <grpcpp/server_context.h>
#include <grpcpp/support/status.h>

#include "chaptersync/v1/approvals_service.grpc.pb.h"
#include "node/api/context.h"
#include "node/daemon/admin_service.h"
#include "storage/replica/replica.h"

namespace chaptersync::node {

class ApprovalsServiceServer final : public v1::ApprovalsService::Service {
 public:
  // `roster` outlives it, and is null at a node.
  ApprovalsServiceServer(const ApiContext& api, Roster* roster) : api_(api), roster_(roster) {}

  grpc::Status ListApprovals(grpc::ServerContext* context, const v1::ListApprovalsRequest* request,
                             v1::ListApprovalsResponse* response) override;
  grpc::Status GetApproval(grpc::ServerContext* context, const v1::GetApprovalRequest* request,
                           v1::GetApprovalResponse* response) override;
  grpc::Status Approve(grpc::ServerContext* context, const v1::ApproveRequest* request,
                       v1::ApproveResponse* response) override;
  grpc::Status Reject(grpc::ServerContext* context, const v1::RejectRequest* request,
                      v1::RejectResponse* response) override;

 private:
  // What people call the nodes.
  using Names = std::map<storage::NodeId, std::string>;
  // Replica::Approve or Replica::Reject.
  using Decision = absl::StatusOr<storage::Approval> (storage::Replica::*)(uint64_t number);

  absl::StatusOr<Names> ReadNames() const;
  v1::Approval Show(const storage::Approval& approval, const Names& names) const;
  // With the paths of what is new in it.
  v1::Approval Show(const storage::ApprovalNews& news, const Names& names) const;
  absl::Status List(const v1::ListApprovalsRequest& request,
                    v1::ListApprovalsResponse& response) const;
  absl::Status Get(uint64_t number, v1::GetApprovalResponse& response) const;
  // `done`: for the log. The session of each node concerned begins anew once.
  absl::Status Decide(const grpc::ServerContext& context,
                      const google::protobuf::RepeatedField<uint64_t>& numbers, Decision decision,
                      const char* done,
                      google::protobuf::RepeatedPtrField<v1::Approval>& approvals);

  const ApiContext api_;
  Roster* const roster_;
};

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_DAEMON_APPROVALS_SERVICE_H_
