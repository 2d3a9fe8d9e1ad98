// SPDX-License-Identifier: Apache-2.0
//
// A key's PEM block, then those of the certificates: gRPC and OpenSSL find in one file what they
// look for.
#include "node/trust/identity.h"

#include "storage/core/status.h"

namespace chaptersync::node {

std::string IdentityText(const PrivateKey& key, const std::string& chain) {
  return key.ToPem() + chain;
}

absl::StatusOr<TlsIdentity> ParseIdentity(const std::string& identity_text,
                                          const std::string& authority_text) {
  const size_t certificates = identity_text.find("-----BEGIN CERTIFICATE-----");
  if (certificates == std::string::npos) {
    return absl::InvalidArgumentError("there is no certificate in it");
  }
  TlsIdentity identity{.key = identity_text.substr(0, certificates),
                       .chain = identity_text.substr(certificates),
                       .authority = authority_text};
  CHAPTER_ASSIGN_OR_RETURN(const PrivateKey key, PrivateKey::FromPem(identity.key));
  CHAPTER_RETURN_IF_ERROR(CheckKeyOf(identity.chain, key));
  CHAPTER_ASSIGN_OR_RETURN(const CertificateFacts facts, ReadCertificate(identity.chain));
  CHAPTER_ASSIGN_OR_RETURN(const std::string federation, FederationOf(identity.authority));
  if (facts.name.federation != federation) {
    return absl::InvalidArgumentError("its certificate is of another federation");
  }
  return identity;
}

absl::StatusOr<Renewal> MakeRenewal(const TlsIdentity& identity, const PrivateKey& next) {
  CHAPTER_ASSIGN_OR_RETURN(const PrivateKey key, PrivateKey::FromPem(identity.key));
  Renewal renewal{.request = next.MakeRequest(), .chain = identity.chain, .signature = ""};
  renewal.signature = key.Sign(renewal.request);
  return renewal;
}

}  // namespace chaptersync::node
