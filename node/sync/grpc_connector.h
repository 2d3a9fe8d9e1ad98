// SPDX-License-Identifier: Apache-2.0
//
// Streams to a hub over gRPC. In the clear, and so to this machine's own
// addresses only. Connect waits; the rest is on gRPC's threads.
#ifndef CHAPTERSYNC_NODE_SYNC_GRPC_CONNECTOR_H_
#define CHAPTERSYNC_NODE_SYNC_GRPC_CONNECTOR_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include <grpcpp/channel.h>

#include "node/sync/address.h"
#include "node/sync/sync_client.h"

namespace chaptersync::node {

// A new channel to the address, connected. UNAVAILABLE where nobody answers or
// `cancelled` said yes; FAILED_PRECONDITION where it is another machine's.
// `attempt` chooses among several addresses of one name.
absl::StatusOr<std::shared_ptr<grpc::Channel>> ConnectChannel(
    const Address& address, size_t attempt, const std::function<bool()>& cancelled);

class GrpcConnector final : public Connector {
 public:
  explicit GrpcConnector(Address address) : address_(std::move(address)) {}

  absl::StatusOr<std::shared_ptr<Transport>> Connect(
      const std::shared_ptr<SessionHost>& host, const std::function<bool()>& cancelled) override;
  std::string name() const override { return address_.ToString(); }

 private:
  const Address address_;
  absl::Mutex mutex_;
  size_t attempts_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_SYNC_GRPC_CONNECTOR_H_
