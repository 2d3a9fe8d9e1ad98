// SPDX-License-Identifier: Apache-2.0
//
// Mutual TLS 1.3 for hubs and nodes, over gRPC's own: who has which certificate, and whom
// each side believes. A hub is known by the name in its certificate, not by its host's. No
// clock is asked in a handshake: a laptop whose clock is years off must reach its hub, and the hub
// judges by its own clock once a stream begins. Any thread.
#ifndef CHAPTERSYNC_NODE_SYNC_TLS_CREDENTIALS_H_
#define CHAPTERSYNC_NODE_SYNC_TLS_CREDENTIALS_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include <grpcpp/security/auth_context.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>

#include "node/trust/certificate.h"
#include "node/trust/identity.h"

namespace chaptersync::node {

// Leaves only TLS 1.3: gRPC 1.51 has no setting for it. Before the program's first use of TLS.
void AllowOnlyTls13();

// What a connection's check of the peer found. Shared by the check and who asks.
class TlsVerdict {
 public:
  void Refuse(const absl::Status& why);
  void Accept(std::string authority);
  // Why the peer was refused; OK where it was not.
  absl::Status status() const;
  // The certificate of the authority that was found, PEM; empty before.
  std::string authority() const;

 private:
  mutable absl::Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::string authority_ ABSL_GUARDED_BY(mutex_);
};

// A node's end: shows its certificate, and speaks to a hub of its own federation only, before a
// byte of a call is sent. INVALID_ARGUMENT where the identity cannot be read.
absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> NodeCredentials(
    const TlsIdentity& identity, std::shared_ptr<TlsVerdict> verdict);

// Makes a connection's credentials; `verdict` will hear what became of the peer.
using CredentialsSource = std::function<absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>>(
    const std::shared_ptr<TlsVerdict>& verdict)>;

// NodeCredentials of the identity as it is when asked.
CredentialsSource CurrentCredentials(std::function<absl::StatusOr<TlsIdentity>()> identity);

// Of one who has no certificate yet: shows none, and speaks only to a hub of the federation whose
// authority has this fingerprint, before a byte of a call is sent.
std::shared_ptr<grpc::ChannelCredentials> JoiningCredentials(const std::string& fingerprint,
                                                             std::shared_ptr<TlsVerdict> verdict);

// A hub's end: asks for a certificate and hangs up on one that its authority did not make; who
// shows none may connect. `identity_file` holds key and chain; it is read anew as it changes,
// for connections that begin later. `authority`: the certificate of its authority, PEM.
std::shared_ptr<grpc::ServerCredentials> HubCredentials(const std::string& identity_file,
                                                        const std::string& authority);
// The same from memory, for good.
std::shared_ptr<grpc::ServerCredentials> HubCredentials(const TlsIdentity& identity);

// What the certificate says that the peer has shown, and that was checked when the connection
// began, but for time. UNAUTHENTICATED where it has shown none, PERMISSION_DENIED where it is none
// of ours.
absl::StatusOr<CertificateFacts> CertifiedPeer(const grpc::AuthContext& context);

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_SYNC_TLS_CREDENTIALS_H_
