// SPDX-License-Identifier: Apache-2.0
//
// Streams to a hub over gRPC and mutual TLS. Connect waits; the rest is on gRPC's
// threads.
#ifndef CHAPTERSYNC_NODE_SYNC_GRPC_CONNECTOR_H_
#define CHAPTERSYNC_NODE_SYNC_GRPC_CONNECTOR_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include <grpcpp/channel.h>
#include <grpcpp/security/credentials.h>

#include "node/sync/address.h"
#include "node/sync/sync_client.h"
#include "node/sync/tls_credentials.h"
#include "node/trust/identity.h"

namespace chaptersync::node {

// A new channel to the address, connected. UNAVAILABLE where nobody answers, or something
// that is no hub, or `cancelled` said yes; what `verdict` says where that refused the peer.
// `attempt` chooses among several addresses of one name.
absl::StatusOr<std::shared_ptr<grpc::Channel>> ConnectChannel(
    const Address& address, size_t attempt,
    const std::shared_ptr<grpc::ChannelCredentials>& credentials, const TlsVerdict& verdict,
    const std::function<bool()>& cancelled);

class GrpcConnector final : public Connector {
 public:
  // `credentials` is asked for each connection.
  GrpcConnector(Address address, CredentialsSource credentials)
      : address_(std::move(address)), credentials_(std::move(credentials)) {}

  absl::StatusOr<std::shared_ptr<Transport>> Connect(
      const std::shared_ptr<SessionHost>& host, const std::function<bool()>& cancelled) override;
  std::string name() const override { return address_.ToString(); }
  // A new certificate, PEM, over the connection that stands. UNAVAILABLE where none does; waits for
  // `timeout` at most.
  absl::StatusOr<std::string> Renew(const Renewal& renewal, absl::Duration timeout) const;

 private:
  const Address address_;
  const CredentialsSource credentials_;
  mutable absl::Mutex mutex_;
  size_t attempts_ ABSL_GUARDED_BY(mutex_) = 0;
  // That was made last, while its stream lasts.
  std::weak_ptr<grpc::Channel> channel_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_SYNC_GRPC_CONNECTOR_H_
