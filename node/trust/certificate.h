// SPDX-License-Identifier: Apache-2.0
//
// Keys, certificates and the authority that makes them: X.509 v3 with ECDSA over
// P-256. A certificate's one URI is a SPIFFE id (the SPIFFE-ID and X509-SVID
// standards), which names federation, chapter and node:
//
//   spiffe://FEDERATION/hub/NODE
//   spiffe://FEDERATION/chapter/CHAPTER/node/NODE
//
// FEDERATION is the beginning of the SHA-256 of the authority's public key, so that no
// two authorities speak for one. Times are in seconds since 1970 in UTC. Pure, but for
// randomness; any thread.
#ifndef CHAPTERSYNC_NODE_TRUST_CERTIFICATE_H_
#define CHAPTERSYNC_NODE_TRUST_CERTIFICATE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include <openssl/types.h>

#include "storage/core/types.h"

namespace chaptersync::node {

// A certificate's life. At two thirds of it a new one is made.
inline constexpr int64_t kCertificateSeconds = int64_t{90} * 24 * 3600;
// The authority's own, which nobody renews.
inline constexpr int64_t kAuthoritySeconds = int64_t{20} * 365 * 24 * 3600;
// A certificate holds from a little before it was made: clocks differ.
inline constexpr int64_t kBackdatedSeconds = 3600;
static_assert(kBackdatedSeconds < kCertificateSeconds && kCertificateSeconds < kAuthoritySeconds);
// Whoever has not renewed one so long before its end is warned.
inline constexpr int64_t kEndWarningSeconds = int64_t{14} * 24 * 3600;
static_assert(kEndWarningSeconds < kCertificateSeconds / 3);
// Keys, requests and chains that are read, in bytes.
inline constexpr size_t kPemBytesMax = 32 << 10;

// Whom a certificate is for.
struct CertifiedName {
  std::string federation;  // 32 hexadecimal digits
  std::string chapter;     // its handle; empty: a hub
  storage::NodeId node;

  bool hub() const { return chapter.empty(); }
  std::string ToUri() const;
  friend bool operator==(const CertifiedName&, const CertifiedName&) = default;
};

// INVALID_ARGUMENT where `uri` is none of the forms above.
absl::StatusOr<CertifiedName> ParseCertifiedName(const std::string& uri);

// What a certificate says.
struct CertificateFacts {
  CertifiedName name;
  int64_t not_before = 0;
  int64_t not_after = 0;
  std::string key_hash;  // SHA-256 of its public key (DER), 64 hexadecimal digits
  // From when on a new one is wanted.
  int64_t renew_from() const {
    return not_after - (not_after - not_before - kBackdatedSeconds) / 3;
  }
};

// The first certificate of a chain. INVALID_ARGUMENT where it is none of ours.
absl::StatusOr<CertificateFacts> ReadCertificate(const std::string& chain_pem);

// What a node's certificate that ends, or ended, then means and what to do, for people; empty where
// that is not soon.
std::string EndWarning(int64_t end, int64_t now);

// The SHA-256 of the public key in a request (DER), 64 hexadecimal digits. INVALID_ARGUMENT
// where the request is not signed by that key.
absl::StatusOr<std::string> KeyHashOfRequest(const std::string& request);

// Checks what PrivateKey::Sign has signed; the hash of the key, as in CertificateFacts.
// INVALID_ARGUMENT where `public_key` (DER) is none of P-256, PERMISSION_DENIED where the
// signature is not its.
absl::StatusOr<std::string> CheckSignature(const std::string& public_key, const std::string& text,
                                           const std::string& signature);

// The same of what the key of a chain's first certificate has signed. INVALID_ARGUMENT where the
// chain cannot be read, PERMISSION_DENIED where the signature is not that key's.
absl::Status CheckSignedBy(const std::string& chain_pem, const std::string& text,
                           const std::string& signature);

// The first certificate of a PEM text: the SHA-256 of its DER form, 64 hexadecimal digits.
absl::StatusOr<std::string> FingerprintOf(const std::string& pem);

// A private key.
class PrivateKey {
 public:
  static PrivateKey Make();
  static absl::StatusOr<PrivateKey> FromPem(const std::string& pem);

  // PKCS #8, not encrypted: the file's mode guards it.
  std::string ToPem() const;
  // A PKCS #10 request for a certificate of this key, DER. It proves that the sender has
  // the key; whom the certificate is for is the authority's to say.
  std::string MakeRequest() const;
  // ECDSA with SHA-256, DER.
  std::string Sign(const std::string& text) const;
  // The public key, DER.
  std::string PublicKey() const;
  EVP_PKEY* get() const { return key_.get(); }

 private:
  explicit PrivateKey(EVP_PKEY* key);
  std::shared_ptr<EVP_PKEY> key_;
};

// INVALID_ARGUMENT where the first certificate of the chain is not that of the key.
absl::Status CheckKeyOf(const std::string& chain_pem, const PrivateKey& key);

// Makes certificates, and is what everybody of a federation trusts.
class Authority {
 public:
  // A new one, whose certificate names the federation for people.
  static Authority Make(const std::string& federation_name, int64_t now);
  // INVALID_ARGUMENT where either cannot be read, or they do not belong together.
  static absl::StatusOr<Authority> FromPem(const std::string& key_pem,
                                           const std::string& certificate_pem);

  // A chain: a certificate for the key of `request` (DER), then the authority's own.
  // INVALID_ARGUMENT where the request is not signed by its own key, or that is not of
  // P-256, or `name` is none. It holds for `seconds` from `now` on.
  absl::StatusOr<std::string> Certify(const std::string& request, const CertifiedName& name,
                                      int64_t now, int64_t seconds = kCertificateSeconds) const;

  const PrivateKey& key() const { return key_; }
  const std::string& certificate_pem() const { return certificate_pem_; }
  const std::string& fingerprint() const { return fingerprint_; }
  const std::string& federation() const { return federation_; }

 private:
  Authority(PrivateKey key, std::shared_ptr<X509> certificate);

  PrivateKey key_;
  std::shared_ptr<X509> certificate_;
  std::string certificate_pem_;
  std::string fingerprint_;
  std::string federation_;
};

// The id of the federation whose authority's certificate is first in `authority_pem`.
absl::StatusOr<std::string> FederationOf(const std::string& authority_pem);

// Whose certificate a peer has shown, as the first of its chain: made by the authority whose
// certificate is first in `authority_pem`, and for its own federation. PERMISSION_DENIED with
// the reason else. Time is not looked at: a laptop's clock may be years off, and must not
// keep it from its hub; whoever has a clock to judge by looks at the facts.
absl::StatusOr<CertificateFacts> CheckChain(const std::string& chain_pem,
                                            const std::string& authority_pem);

// Finds the authority with this fingerprint in the chain that a hub showed, and checks that the
// chain is a hub's as CheckChain does. The authority's certificate, PEM. PERMISSION_DENIED with
// the reason else.
absl::StatusOr<std::string> CheckPinned(const std::string& chain_pem,
                                        const std::string& fingerprint);

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_TRUST_CERTIFICATE_H_
