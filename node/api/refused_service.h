// SPDX-License-Identifier: Apache-2.0
//
// The writes that the hub did not take: reading, retrying and dropping them, as
// refused_service.proto promises. Any thread; retrying waits for the disk.
#ifndef CHAPTERSYNC_NODE_API_REFUSED_SERVICE_H_
#define CHAPTERSYNC_NODE_API_REFUSED_SERVICE_H_

#include <string>

#include "absl/status/status.h"
#include <grpcpp/server_context.h>
#include <grpcpp/support/status.h>

#include "chaptersync/v1/refused_service.grpc.pb.h"
#include "node/api/context.h"

namespace chaptersync::node {

class RefusedService final : public v1::RefusedService::Service {
 public:
  explicit RefusedService(const ApiContext& api) : api_(api) {}

  grpc::Status ListRefused(grpc::ServerContext* context, const v1::ListRefusedRequest* request,
                           v1::ListRefusedResponse* response) override;
  grpc::Status GetRefused(grpc::ServerContext* context, const v1::GetRefusedRequest* request,
                          v1::GetRefusedResponse* response) override;
  grpc::Status RetryRefused(grpc::ServerContext* context, const v1::RetryRefusedRequest* request,
                            v1::RetryRefusedResponse* response) override;
  grpc::Status DropRefused(grpc::ServerContext* context, const v1::DropRefusedRequest* request,
                           v1::DropRefusedResponse* response) override;

 private:
  absl::Status List(const v1::ListRefusedRequest& request, v1::ListRefusedResponse& response) const;
  absl::Status Retry(const std::string& actor, uint64_t number);
  v1::RefusedWrite Show(const storage::RefusedWrite& refused) const;

  const ApiContext api_;
};

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_API_REFUSED_SERVICE_H_
