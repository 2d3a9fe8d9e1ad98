// SPDX-License-Identifier: Apache-2.0
//
// What a hub or node shows of itself and whom it believes, as it is kept: one file with
// its key and its certificates, so that they change together, and one with the
// authority's certificate. Pure.
#ifndef CHAPTERSYNC_NODE_TRUST_IDENTITY_H_
#define CHAPTERSYNC_NODE_TRUST_IDENTITY_H_

#include <string>

#include "absl/status/statusor.h"

#include "node/trust/certificate.h"

namespace chaptersync::node {

// All PEM.
struct TlsIdentity {
  std::string key;
  std::string chain;      // its certificate, then the authority's
  std::string authority;  // its certificate
};

// The text of an identity's file.
std::string IdentityText(const PrivateKey& key, const std::string& chain);

// From the texts of the two files. INVALID_ARGUMENT where one cannot be read, key and certificate
// do not belong together, or the certificate is of another federation.
absl::StatusOr<TlsIdentity> ParseIdentity(const std::string& identity_text,
                                          const std::string& authority_text);

// Asks for a certificate of another key, for whom an identity's certificate names.
struct Renewal {
  std::string request;    // PrivateKey::MakeRequest of the other key
  std::string chain;      // of the identity
  std::string signature;  // of the request, by the identity's key
};
// INVALID_ARGUMENT where the identity's key cannot be read.
absl::StatusOr<Renewal> MakeRenewal(const TlsIdentity& identity, const PrivateKey& next);

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_TRUST_IDENTITY_H_
