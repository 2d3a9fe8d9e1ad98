// SPDX-License-Identifier: Apache-2.0
//
// Errors cross to gRPC and back. What gRPC does not allow in a message is
// escaped, so that an odd value from a person cannot break the answer.
#include "node/api/status.h"

#include <string>

#include "node/entity/text.h"

namespace chaptersync::node {
namespace {

static_assert(static_cast<int>(absl::StatusCode::kUnauthenticated) ==
              static_cast<int>(grpc::StatusCode::UNAUTHENTICATED));
static_assert(static_cast<int>(absl::StatusCode::kDataLoss) ==
              static_cast<int>(grpc::StatusCode::DATA_LOSS));
static_assert(static_cast<int>(absl::StatusCode::kCancelled) ==
              static_cast<int>(grpc::StatusCode::CANCELLED));

}  // namespace

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  std::string message(status.message());
  if (!ValidUtf8(message)) message = Shown(message);
  return {static_cast<grpc::StatusCode>(status.raw_code()), message};
}

absl::Status FromGrpc(const grpc::Status& status) {
  return {static_cast<absl::StatusCode>(status.error_code()), status.error_message()};
}

}  // namespace chaptersync::node
