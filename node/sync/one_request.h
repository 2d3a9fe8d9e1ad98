// SPDX-License-Identifier: Apache-2.0
//
// A call whose one request goes in a stream, as EnrolmentService has them. Waits for the answer,
// within the context's deadline.
#ifndef CHAPTERSYNC_NODE_SYNC_ONE_REQUEST_H_
#define CHAPTERSYNC_NODE_SYNC_ONE_REQUEST_H_

#include <memory>

#include <grpcpp/support/sync_stream.h>

namespace chaptersync::node {

// `call`: what the stub's method gave.
template <typename Request>
grpc::Status SendOneRequest(std::unique_ptr<grpc::ClientWriter<Request>> call,
                            const Request& request) {
  call->WriteLast(request, grpc::WriteOptions());  // why it failed, Finish says
  return call->Finish();
}

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_SYNC_ONE_REQUEST_H_
