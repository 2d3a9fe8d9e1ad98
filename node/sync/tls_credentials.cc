// SPDX-License-Identifier: Apache-2.0
//
// gRPC's TLS credentials with our check of the peer in place of its own. gRPC calls a check in
// the handshake, on its own threads; that the peer has its certificate's key OpenSSL has seen then.
#include "node/sync/tls_credentials.h"

#include <cstdlib>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include <grpc/grpc_security_constants.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_certificate_verifier.h>
#include <grpcpp/security/tls_credentials_options.h>

#include "node/sync/limits.h"
#include "node/sync/rate_limiter.h"
#include "node/sync/waker.h"
#include "storage/core/status.h"

namespace chaptersync::node {
namespace {

namespace tls = grpc::experimental;

// How often a hub looks at its files, in seconds.
constexpr unsigned kFilesEverySeconds = 1;

std::string Text(grpc::string_ref text) { return std::string(text.data(), text.size()); }

// A check that is made at once.
class Check : public tls::ExternalCertificateVerifier {
 public:
  explicit Check(std::shared_ptr<TlsVerdict> verdict) : verdict_(std::move(verdict)) {}

  bool Verify(tls::TlsCustomVerificationCheckRequest* request, std::function<void(grpc::Status)>,
              grpc::Status* sync_status) override {
    const absl::Status status = Judge(*request);
    if (!status.ok()) {
      verdict_->Refuse(status);
      *sync_status = grpc::Status(grpc::StatusCode::PERMISSION_DENIED,
                                  std::string(status.message().data(), status.message().size()));
    }
    return true;
  }
  void Cancel(tls::TlsCustomVerificationCheckRequest*) override {}

 protected:
  virtual absl::Status Judge(tls::TlsCustomVerificationCheckRequest& request) = 0;
  TlsVerdict& verdict() { return *verdict_; }

 private:
  const std::shared_ptr<TlsVerdict> verdict_;
};

// For a node: is it a hub of its federation?
class IsHub final : public Check {
 public:
  IsHub(std::shared_ptr<TlsVerdict> verdict, std::string authority)
      : Check(std::move(verdict)), authority_(std::move(authority)) {}

 private:
  absl::Status Judge(tls::TlsCustomVerificationCheckRequest& request) override {
    const auto facts = CheckChain(Text(request.peer_cert_full_chain()), authority_);
    if (facts.ok() && facts->name.hub()) return absl::OkStatus();
    return absl::PermissionDeniedError(
        absl::StrCat("what answers there is no hub of this federation", facts.ok() ? "" : ": ",
                     facts.ok() ? "" : facts.status().message()));
  }

  const std::string authority_;
};

class IsPinned final : public Check {
 public:
  IsPinned(std::shared_ptr<TlsVerdict> verdict, std::string fingerprint)
      : Check(std::move(verdict)), fingerprint_(std::move(fingerprint)) {}

 private:
  absl::Status Judge(tls::TlsCustomVerificationCheckRequest& request) override {
    CHAPTER_ASSIGN_OR_RETURN(std::string authority,
                             CheckPinned(Text(request.peer_cert_full_chain()), fingerprint_));
    verdict().Accept(std::move(authority));
    return absl::OkStatus();
  }

  const std::string fingerprint_;
};

// For a hub: whoever shows a certificate shows one that its authority has made, and nobody begins
// connection after connection with one. A key that does not count any more counts for itself here:
// its owner takes no place from the computer that has gone on.
class IsNoneOrOurs final : public Check {
 public:
  explicit IsNoneOrOurs(std::string authority)
      : Check(std::make_shared<TlsVerdict>()), authority_(std::move(authority)) {}

 private:
  absl::Status Judge(tls::TlsCustomVerificationCheckRequest& request) override {
    if (request.peer_cert().empty()) return absl::OkStatus();
    CHAPTER_ASSIGN_OR_RETURN(const CertificateFacts facts,
                             CheckChain(Text(request.peer_cert()), authority_));
    absl::MutexLock lock(&mutex_);
    if (connections_.Take(facts.key_hash, SteadyMs())) return absl::OkStatus();
    return absl::ResourceExhaustedError("too many connections of one certificate");
  }

  const std::string authority_;
  absl::Mutex mutex_;
  RateLimiter<std::string> connections_ ABSL_GUARDED_BY(mutex_){
      kConnectionsBurst, kConnectionEveryMs, kCountedKeysMax};
};

std::shared_ptr<tls::CertificateProviderInterface> ProviderOf(const TlsIdentity& identity) {
  return std::make_shared<tls::StaticDataCertificateProvider>(
      identity.authority, std::vector<tls::IdentityKeyCertPair>{{identity.key, identity.chain}});
}

// An initiator's, whose check does it all. With roots from `provider`, whichever they are: without
// any, gRPC loads the machine's list of public authorities, and fails where that is damaged.
tls::TlsChannelCredentialsOptions CheckedBy(
    std::shared_ptr<tls::CertificateVerifier> verifier,
    std::shared_ptr<tls::CertificateProviderInterface> provider) {
  tls::TlsChannelCredentialsOptions options;
  options.set_certificate_provider(std::move(provider));
  options.watch_root_certs();
  options.set_verify_server_certs(false);
  options.set_check_call_host(false);
  options.set_certificate_verifier(std::move(verifier));
  return options;
}

std::shared_ptr<grpc::ServerCredentials> ServerOf(
    std::shared_ptr<tls::CertificateProviderInterface> provider, const std::string& authority) {
  tls::TlsServerCredentialsOptions options(std::move(provider));
  options.watch_identity_key_cert_pairs();
  // OpenSSL would look at the time as well.
  options.set_cert_request_type(GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_BUT_DONT_VERIFY);
  options.set_certificate_verifier(
      tls::ExternalCertificateVerifier::Create<IsNoneOrOurs>(authority));
  return tls::TlsServerCredentials(options);
}

}  // namespace

void AllowOnlyTls13() {
  // Suites of TLS 1.2 that need a kind of key which no certificate of ours has; those of TLS 1.3
  // are not named here, and stay. Not replaced: who runs the program may not loosen it.
  CHAPTER_CHECK(setenv("GRPC_SSL_CIPHER_SUITES", "ECDHE-RSA-AES256-GCM-SHA384", 1) == 0);
}

void TlsVerdict::Refuse(const absl::Status& why) {
  absl::MutexLock lock(&mutex_);
  status_ = why;
}

void TlsVerdict::Accept(std::string authority) {
  absl::MutexLock lock(&mutex_);
  authority_ = std::move(authority);
}

absl::Status TlsVerdict::status() const {
  absl::MutexLock lock(&mutex_);
  return status_;
}

std::string TlsVerdict::authority() const {
  absl::MutexLock lock(&mutex_);
  return authority_;
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> NodeCredentials(
    const TlsIdentity& identity, std::shared_ptr<TlsVerdict> verdict) {
  // Read once here, so that a damaged file is told as that.
  CHAPTER_RETURN_IF_ERROR(FederationOf(identity.authority).status());
  CHAPTER_RETURN_IF_ERROR(ReadCertificate(identity.chain).status());
  auto options = CheckedBy(
      tls::ExternalCertificateVerifier::Create<IsHub>(std::move(verdict), identity.authority),
      ProviderOf(identity));
  options.watch_identity_key_cert_pairs();
  return tls::TlsCredentials(options);
}

CredentialsSource CurrentCredentials(std::function<absl::StatusOr<TlsIdentity>()> identity) {
  return [identity = std::move(identity)](const std::shared_ptr<TlsVerdict>& verdict)
             -> absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> {
    CHAPTER_ASSIGN_OR_RETURN(const TlsIdentity current, identity());
    return NodeCredentials(current, verdict);
  };
}

std::shared_ptr<grpc::ChannelCredentials> JoiningCredentials(const std::string& fingerprint,
                                                             std::shared_ptr<TlsVerdict> verdict) {
  const std::string nobody = Authority::Make("nobody", 0).certificate_pem();
  return tls::TlsCredentials(
      CheckedBy(tls::ExternalCertificateVerifier::Create<IsPinned>(std::move(verdict), fingerprint),
                std::make_shared<tls::StaticDataCertificateProvider>(nobody)));
}

std::shared_ptr<grpc::ServerCredentials> HubCredentials(const std::string& identity_file,
                                                        const std::string& authority) {
  return ServerOf(std::make_shared<tls::FileWatcherCertificateProvider>(
                      identity_file, identity_file, kFilesEverySeconds),
                  authority);
}

std::shared_ptr<grpc::ServerCredentials> HubCredentials(const TlsIdentity& identity) {
  return ServerOf(ProviderOf(identity), identity.authority);
}

absl::StatusOr<CertificateFacts> CertifiedPeer(const grpc::AuthContext& context) {
  const auto certificates = context.FindPropertyValues(GRPC_X509_PEM_CERT_PROPERTY_NAME);
  if (!context.IsPeerAuthenticated() || certificates.empty()) {
    return absl::UnauthenticatedError(
        "a certificate is wanted; `chapter-node join` gets one with an invitation");
  }
  auto facts = ReadCertificate(Text(certificates.front()));
  if (!facts.ok()) {
    return absl::PermissionDeniedError(
        absl::StrCat("the certificate names no node: ", facts.status().message()));
  }
  return facts;
}

}  // namespace chaptersync::node
