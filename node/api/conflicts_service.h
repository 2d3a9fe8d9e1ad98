// SPDX-License-Identifier: Apache-2.0
//
// The conflict log: reading it and settling its entries, as
// conflicts_service.proto promises. Any thread; settling waits for the disk.
#ifndef CHAPTERSYNC_NODE_API_CONFLICTS_SERVICE_H_
#define CHAPTERSYNC_NODE_API_CONFLICTS_SERVICE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include <grpcpp/server_context.h>
#include <grpcpp/support/status.h>

#include "chaptersync/v1/conflicts_service.grpc.pb.h"
#include "node/api/context.h"

namespace chaptersync::node {

class ConflictsService final : public v1::ConflictsService::Service {
 public:
  explicit ConflictsService(const ApiContext& api) : api_(api) {}

  grpc::Status ListConflicts(grpc::ServerContext* context, const v1::ListConflictsRequest* request,
                             v1::ListConflictsResponse* response) override;
  grpc::Status GetConflict(grpc::ServerContext* context, const v1::GetConflictRequest* request,
                           v1::GetConflictResponse* response) override;
  grpc::Status SettleConflict(grpc::ServerContext* context,
                              const v1::SettleConflictRequest* request,
                              v1::SettleConflictResponse* response) override;

 private:
  absl::Status List(const v1::ListConflictsRequest& request,
                    v1::ListConflictsResponse& response) const;
  absl::StatusOr<storage::ConflictRef> Find(const std::string& id) const;
  absl::Status Settle(const std::string& actor, const v1::SettleConflictRequest& request,
                      v1::SettleConflictResponse& response);
  v1::Conflict Show(const storage::ConflictRef& ref) const;

  const ApiContext api_;
};

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_API_CONFLICTS_SERVICE_H_
