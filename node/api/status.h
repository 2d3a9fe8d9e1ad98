// SPDX-License-Identifier: Apache-2.0
//
// The one place where our errors become gRPC's and back. Codes have the same
// numbers and meaning on both sides. Any thread.
#ifndef CHAPTERSYNC_NODE_API_STATUS_H_
#define CHAPTERSYNC_NODE_API_STATUS_H_

#include "absl/status/status.h"
#include <grpcpp/support/status.h>

namespace chaptersync::node {

grpc::Status ToGrpc(const absl::Status& status);
absl::Status FromGrpc(const grpc::Status& status);

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_API_STATUS_H_
