// SPDX-License-Identifier: Apache-2.0
//
// Certificates with OpenSSL 3. Failures of OpenSSL that no input explains (no memory, no
// randomness) end the program; what comes from a file or a peer is an error.
#include "node/trust/certificate.h"

#include <ctime>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "storage/core/digest.h"
#include "storage/core/status.h"

namespace chaptersync::node {
namespace {

using storage::NodeId;

constexpr char kScheme[] = "spiffe://";
constexpr size_t kFederationDigits = 32;
constexpr size_t kChapterBytesMax = 64;
constexpr size_t kChainMax = 8;
constexpr int kSerialBytes = 16;

template <auto Free>
struct Deleter {
  template <typename T>
  void operator()(T* object) const {
    Free(object);
  }
};
template <typename T, auto Free>
using Owned = std::unique_ptr<T, Deleter<Free>>;
using Bio = Owned<BIO, &BIO_free_all>;
using Store = Owned<X509_STORE, &X509_STORE_free>;
using StoreContext = Owned<X509_STORE_CTX, &X509_STORE_CTX_free>;
using Request = Owned<X509_REQ, &X509_REQ_free>;
using Names = Owned<GENERAL_NAMES, &GENERAL_NAMES_free>;
using Key = Owned<EVP_PKEY, &EVP_PKEY_free>;
using DigestContext = Owned<EVP_MD_CTX, &EVP_MD_CTX_free>;

// What goes wrong below with a right input is a defect or the end of memory.
void Must(bool ok) {
  if (!ok) ERR_print_errors_fp(stderr);
  CHAPTER_CHECK(ok);
}

absl::Status Unreadable(const char* what) {
  ERR_clear_error();
  return absl::InvalidArgumentError(absl::StrCat("this is no ", what));
}

Bio ReaderOf(std::string_view text) {
  Bio bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
  Must(bio != nullptr);
  return bio;
}

std::string TextOf(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return std::string(data, static_cast<size_t>(size));
}

std::string PemOf(X509* certificate) {
  const Bio bio(BIO_new(BIO_s_mem()));
  Must(bio != nullptr && PEM_write_bio_X509(bio.get(), certificate) == 1);
  return TextOf(bio.get());
}

// All certificates of a text; none is an error.
absl::StatusOr<std::vector<std::shared_ptr<X509>>> ReadChain(const std::string& pem) {
  if (pem.size() > kPemBytesMax) return Unreadable("certificate: it is too long");
  const Bio bio = ReaderOf(pem);
  std::vector<std::shared_ptr<X509>> chain;
  while (chain.size() < kChainMax) {
    X509* certificate = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr);
    if (certificate == nullptr) break;
    chain.emplace_back(certificate, &X509_free);
  }
  ERR_clear_error();  // the end of the text is one
  if (chain.empty()) return Unreadable("certificate");
  return chain;
}

std::string Sha256Of(X509* certificate) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  Must(X509_digest(certificate, EVP_sha256(), digest, &size) == 1);
  return absl::BytesToHexString(std::string(reinterpret_cast<const char*>(digest), size));
}

std::string FederationOfKey(X509* authority) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  Must(X509_pubkey_digest(authority, EVP_sha256(), digest, &size) == 1);
  return absl::BytesToHexString(std::string(reinterpret_cast<const char*>(digest), size))
      .substr(0, kFederationDigits);
}

bool IsP256(const EVP_PKEY* key) {
  char group[32] = {};
  size_t size = 0;
  return EVP_PKEY_get_base_id(key) == EVP_PKEY_EC &&
         EVP_PKEY_get_group_name(key, group, sizeof(group), &size) == 1 &&
         std::string_view(group, size) == SN_X9_62_prime256v1;
}

std::string PublicKeyOf(EVP_PKEY* key) {
  unsigned char* data = nullptr;
  const int size = i2d_PUBKEY(key, &data);
  Must(size > 0);
  std::string der(reinterpret_cast<const char*>(data), static_cast<size_t>(size));
  OPENSSL_free(data);
  return der;
}

std::string KeyHash(EVP_PKEY* key) {
  return absl::BytesToHexString(storage::Sha256(PublicKeyOf(key)));
}

absl::StatusOr<int64_t> SecondsOf(const ASN1_TIME* time) {
  std::tm parts = {};
  if (ASN1_TIME_to_tm(time, &parts) != 1) return Unreadable("certificate's time");
  return static_cast<int64_t>(timegm(&parts));
}

absl::StatusOr<CertificateFacts> FactsOf(X509* certificate) {
  const Names names(static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)));
  if (names == nullptr || sk_GENERAL_NAME_num(names.get()) != 1) {
    return Unreadable("certificate of a federation: it has not got one name");
  }
  const GENERAL_NAME* only = sk_GENERAL_NAME_value(names.get(), 0);
  if (only->type != GEN_URI) return Unreadable("certificate of a federation: its name is no URI");
  const ASN1_IA5STRING* uri = only->d.uniformResourceIdentifier;
  CertificateFacts facts;
  CHAPTER_ASSIGN_OR_RETURN(
      facts.name, ParseCertifiedName({reinterpret_cast<const char*>(ASN1_STRING_get0_data(uri)),
                                      static_cast<size_t>(ASN1_STRING_length(uri))}));
  CHAPTER_ASSIGN_OR_RETURN(facts.not_before, SecondsOf(X509_get0_notBefore(certificate)));
  CHAPTER_ASSIGN_OR_RETURN(facts.not_after, SecondsOf(X509_get0_notAfter(certificate)));
  EVP_PKEY* key = X509_get0_pubkey(certificate);
  if (key == nullptr || !IsP256(key)) return Unreadable("certificate of a key of P-256");
  facts.key_hash = KeyHash(key);
  return facts;
}

void AddExtension(X509* certificate, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  const Owned<X509_EXTENSION, &X509_EXTENSION_free> extension(
      X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str()));
  Must(extension != nullptr && X509_add_ext(certificate, extension.get(), -1) == 1);
}

// A request that is signed by its own key.
absl::StatusOr<Request> ReadRequest(const std::string& der) {
  if (der.size() > kPemBytesMax) return Unreadable("certificate request: it is too long");
  const auto* data = reinterpret_cast<const unsigned char*>(der.data());
  const unsigned char* const end = data + der.size();
  Request request(d2i_X509_REQ(nullptr, &data, static_cast<long>(der.size())));
  if (request == nullptr || data != end) return Unreadable("certificate request");
  EVP_PKEY* key = X509_REQ_get0_pubkey(request.get());
  if (key == nullptr || !IsP256(key)) return Unreadable("certificate request for a key of P-256");
  if (X509_REQ_verify(request.get(), key) != 1) {
    return Unreadable("certificate request that its own key has signed");
  }
  return request;
}

// A certificate that is not signed yet, for life from a little before `now` on.
std::shared_ptr<X509> Blank(EVP_PKEY* key, const std::string& common_name, int64_t now,
                            int64_t seconds) {
  std::shared_ptr<X509> certificate(X509_new(), &X509_free);
  Must(certificate != nullptr && X509_set_version(certificate.get(), X509_VERSION_3) == 1);
  unsigned char bytes[kSerialBytes];
  Must(RAND_bytes(bytes, kSerialBytes) == 1);
  bytes[0] &= 0x7f;  // a serial is positive
  const Owned<BIGNUM, &BN_free> serial(BN_bin2bn(bytes, kSerialBytes, nullptr));
  Must(serial != nullptr &&
       BN_to_ASN1_INTEGER(serial.get(), X509_get_serialNumber(certificate.get())) != nullptr);
  Must(ASN1_TIME_set(X509_getm_notBefore(certificate.get()), now - kBackdatedSeconds) != nullptr);
  Must(ASN1_TIME_set(X509_getm_notAfter(certificate.get()), now + seconds) != nullptr);
  Must(X509_set_pubkey(certificate.get(), key) == 1);
  X509_NAME* subject = X509_get_subject_name(certificate.get());
  // X.520 allows 64 characters.
  Must(X509_NAME_add_entry_by_NID(subject, NID_commonName, MBSTRING_UTF8,
                                  reinterpret_cast<const unsigned char*>(common_name.data()),
                                  static_cast<int>(common_name.size()), -1, 0) == 1);
  return certificate;
}

// At most `bytes` of it, whole UTF-8 characters.
std::string Shortened(const std::string& text, size_t bytes) {
  if (text.size() <= bytes) return text;
  while (bytes > 0 && (static_cast<unsigned char>(text[bytes]) & 0xc0) == 0x80) --bytes;
  return text.substr(0, bytes);
}

absl::Status CheckSignatureOf(EVP_PKEY* key, const std::string& text,
                              const std::string& signature) {
  const DigestContext context(EVP_MD_CTX_new());
  Must(context != nullptr &&
       EVP_DigestVerifyInit(context.get(), nullptr, EVP_sha256(), nullptr, key) == 1);
  if (EVP_DigestVerify(context.get(), reinterpret_cast<const unsigned char*>(signature.data()),
                       signature.size(), reinterpret_cast<const unsigned char*>(text.data()),
                       text.size()) == 1) {
    return absl::OkStatus();
  }
  ERR_clear_error();
  return absl::PermissionDeniedError("the signature is not that of the key");
}

}  // namespace

// --- Names. ---

std::string CertifiedName::ToUri() const {
  if (hub()) return absl::StrCat(kScheme, federation, "/hub/", node.ToString());
  return absl::StrCat(kScheme, federation, "/chapter/", chapter, "/node/", node.ToString());
}

absl::StatusOr<CertifiedName> ParseCertifiedName(const std::string& uri) {
  const auto wrong = [&] {
    return absl::InvalidArgumentError(
        absl::StrCat("'", absl::CHexEscape(uri.substr(0, 200)), "' is no name of a hub or node"));
  };
  const auto hexadecimal = [](std::string_view text) {
    return text.size() == 32 && text.find_first_not_of("0123456789abcdef") == text.npos;
  };
  if (!absl::StartsWith(uri, kScheme)) return wrong();
  const std::vector<std::string> parts =
      absl::StrSplit(uri.substr(sizeof(kScheme) - 1), absl::MaxSplits('/', 5));
  CertifiedName name;
  name.federation = parts[0];
  if (!hexadecimal(name.federation)) return wrong();
  if (parts.size() == 5 && parts[1] == "chapter" && parts[3] == "node") {
    name.chapter = parts[2];
    if (name.chapter.empty() || name.chapter.size() > kChapterBytesMax ||
        name.chapter.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") !=
            std::string::npos) {
      return wrong();
    }
  } else if (parts.size() != 3 || parts[1] != "hub") {
    return wrong();
  }
  if (!hexadecimal(parts.back())) return wrong();
  const std::string bytes = absl::HexStringToBytes(parts.back());
  std::copy(bytes.begin(), bytes.end(), name.node.bytes.begin());
  if (name.node == NodeId{}) return wrong();
  return name;
}

// --- Keys. ---

PrivateKey::PrivateKey(EVP_PKEY* key) : key_(key, &EVP_PKEY_free) {}

PrivateKey PrivateKey::Make() {
  EVP_PKEY* key = EVP_EC_gen(SN_X9_62_prime256v1);
  Must(key != nullptr);
  return PrivateKey(key);
}

absl::StatusOr<PrivateKey> PrivateKey::FromPem(const std::string& pem) {
  if (pem.size() > kPemBytesMax) return Unreadable("private key: it is too long");
  const Bio bio = ReaderOf(pem);
  // An encrypted key would ask the terminal for its password.
  const auto no_password = +[](char*, int, int, void*) { return -1; };
  EVP_PKEY* key = PEM_read_bio_PrivateKey(bio.get(), nullptr, no_password, nullptr);
  if (key == nullptr) return Unreadable("private key");
  PrivateKey owner(key);
  if (!IsP256(key)) return Unreadable("private key of P-256");
  return owner;
}

std::string PrivateKey::ToPem() const {
  const Bio bio(BIO_new(BIO_s_mem()));
  Must(bio != nullptr && PEM_write_bio_PKCS8PrivateKey(bio.get(), key_.get(), nullptr, nullptr, 0,
                                                       nullptr, nullptr) == 1);
  return TextOf(bio.get());
}

std::string PrivateKey::MakeRequest() const {
  const Request request(X509_REQ_new());
  Must(request != nullptr && X509_REQ_set_version(request.get(), X509_REQ_VERSION_1) == 1 &&
       X509_REQ_set_pubkey(request.get(), key_.get()) == 1 &&
       X509_REQ_sign(request.get(), key_.get(), EVP_sha256()) > 0);
  unsigned char* data = nullptr;
  const int size = i2d_X509_REQ(request.get(), &data);
  Must(size > 0);
  std::string der(reinterpret_cast<const char*>(data), static_cast<size_t>(size));
  OPENSSL_free(data);
  return der;
}

std::string PrivateKey::Sign(const std::string& text) const {
  const DigestContext context(EVP_MD_CTX_new());
  const auto* data = reinterpret_cast<const unsigned char*>(text.data());
  size_t size = 0;
  Must(context != nullptr &&
       EVP_DigestSignInit(context.get(), nullptr, EVP_sha256(), nullptr, key_.get()) == 1 &&
       EVP_DigestSign(context.get(), nullptr, &size, data, text.size()) == 1);
  std::string signature(size, '\0');
  Must(EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(signature.data()), &size,
                      data, text.size()) == 1);
  signature.resize(size);
  return signature;
}

std::string PrivateKey::PublicKey() const { return PublicKeyOf(key_.get()); }

std::string EndWarning(int64_t end, int64_t now) {
  if (end - now > kEndWarningSeconds) return "";
  const std::string at =
      absl::FormatTime("%Y-%m-%d %H:%M UTC", absl::FromUnixSeconds(end), absl::UTCTimeZone());
  if (end > now) {
    return absl::StrCat("this computer's certificate ends on ", at,
                        " and was not renewed: that happens by itself once it is in touch with the "
                        "hub; after its end it syncs no more until it joins again with a new "
                        "invitation from headquarters");
  }
  return absl::StrCat(
      "this computer's certificate ended on ", at,
      ": ask headquarters for a new invitation, stop chapter-node, and run `chapter-node join` "
      "with it on the same folder; nothing that was written here is lost");
}

// --- Certificates. ---

absl::StatusOr<CertificateFacts> ReadCertificate(const std::string& chain_pem) {
  CHAPTER_ASSIGN_OR_RETURN(const auto chain, ReadChain(chain_pem));
  return FactsOf(chain.front().get());
}

absl::StatusOr<std::string> KeyHashOfRequest(const std::string& request) {
  CHAPTER_ASSIGN_OR_RETURN(const Request parsed, ReadRequest(request));
  return KeyHash(X509_REQ_get0_pubkey(parsed.get()));
}

absl::StatusOr<std::string> CheckSignature(const std::string& public_key, const std::string& text,
                                           const std::string& signature) {
  if (public_key.size() > kPemBytesMax || signature.size() > kPemBytesMax) {
    return Unreadable("public key and signature: they are too long");
  }
  const auto* data = reinterpret_cast<const unsigned char*>(public_key.data());
  const Key key(d2i_PUBKEY(nullptr, &data, static_cast<long>(public_key.size())));
  if (key == nullptr || !IsP256(key.get())) return Unreadable("public key of P-256");
  CHAPTER_RETURN_IF_ERROR(CheckSignatureOf(key.get(), text, signature));
  return KeyHash(key.get());
}

absl::Status CheckSignedBy(const std::string& chain_pem, const std::string& text,
                           const std::string& signature) {
  CHAPTER_ASSIGN_OR_RETURN(const auto chain, ReadChain(chain_pem));
  EVP_PKEY* const key = X509_get0_pubkey(chain.front().get());
  if (key == nullptr) return Unreadable("certificate's public key");
  return CheckSignatureOf(key, text, signature);
}

absl::Status CheckKeyOf(const std::string& chain_pem, const PrivateKey& key) {
  CHAPTER_ASSIGN_OR_RETURN(const auto chain, ReadChain(chain_pem));
  if (X509_check_private_key(chain.front().get(), key.get()) == 1) return absl::OkStatus();
  ERR_clear_error();
  return absl::InvalidArgumentError("the certificate is not that of the key");
}

absl::StatusOr<std::string> FingerprintOf(const std::string& pem) {
  CHAPTER_ASSIGN_OR_RETURN(const auto chain, ReadChain(pem));
  return Sha256Of(chain.front().get());
}

absl::StatusOr<std::string> FederationOf(const std::string& authority_pem) {
  CHAPTER_ASSIGN_OR_RETURN(const auto chain, ReadChain(authority_pem));
  return FederationOfKey(chain.front().get());
}

Authority::Authority(PrivateKey key, std::shared_ptr<X509> certificate)
    : key_(std::move(key)),
      certificate_(std::move(certificate)),
      certificate_pem_(PemOf(certificate_.get())),
      fingerprint_(Sha256Of(certificate_.get())),
      federation_(FederationOfKey(certificate_.get())) {}

Authority Authority::Make(const std::string& federation_name, int64_t now) {
  constexpr size_t kCommonNameBytesMax = 60;
  PrivateKey key = PrivateKey::Make();
  const std::string name = Shortened(federation_name, kCommonNameBytesMax);
  std::shared_ptr<X509> certificate =
      Blank(key.get(), name.empty() ? "ChapterSync" : name, now, kAuthoritySeconds);
  X509* raw = certificate.get();
  Must(X509_set_issuer_name(raw, X509_get_subject_name(raw)) == 1);
  // It makes no other authorities.
  AddExtension(raw, raw, NID_basic_constraints, "critical,CA:TRUE,pathlen:0");
  AddExtension(raw, raw, NID_key_usage, "critical,keyCertSign,cRLSign");
  AddExtension(raw, raw, NID_subject_key_identifier, "hash");
  Must(X509_sign(raw, key.get(), EVP_sha256()) > 0);
  return Authority(std::move(key), std::move(certificate));
}

absl::StatusOr<Authority> Authority::FromPem(const std::string& key_pem,
                                             const std::string& certificate_pem) {
  CHAPTER_ASSIGN_OR_RETURN(PrivateKey key, PrivateKey::FromPem(key_pem));
  CHAPTER_RETURN_IF_ERROR(CheckKeyOf(certificate_pem, key));
  CHAPTER_ASSIGN_OR_RETURN(const auto chain, ReadChain(certificate_pem));
  if (X509_check_ca(chain.front().get()) != 1) {
    return absl::InvalidArgumentError("the authority's certificate is that of no authority");
  }
  return Authority(std::move(key), chain.front());
}

absl::StatusOr<std::string> Authority::Certify(const std::string& request,
                                               const CertifiedName& name, int64_t now,
                                               int64_t seconds) const {
  CHAPTER_ASSIGN_OR_RETURN(const Request parsed, ReadRequest(request));
  // The name becomes a part of OpenSSL's language for extensions.
  CHAPTER_ASSIGN_OR_RETURN(const CertifiedName checked, ParseCertifiedName(name.ToUri()));
  if (checked != name) return absl::InvalidArgumentError("a name that cannot be certified");
  const std::shared_ptr<X509> certificate =
      Blank(X509_REQ_get0_pubkey(parsed.get()), name.node.ToString(), now, seconds);
  X509* raw = certificate.get();
  Must(X509_set_issuer_name(raw, X509_get_subject_name(certificate_.get())) == 1);
  AddExtension(raw, certificate_.get(), NID_basic_constraints, "critical,CA:FALSE");
  AddExtension(raw, certificate_.get(), NID_key_usage, "critical,digitalSignature");
  // A hub is a client of other hubs.
  AddExtension(raw, certificate_.get(), NID_ext_key_usage,
               name.hub() ? "serverAuth,clientAuth" : "clientAuth");
  AddExtension(raw, certificate_.get(), NID_authority_key_identifier, "keyid:always");
  AddExtension(raw, certificate_.get(), NID_subject_alt_name, absl::StrCat("URI:", name.ToUri()));
  Must(X509_sign(raw, key_.get(), EVP_sha256()) > 0);
  return PemOf(raw) + certificate_pem_;
}

absl::StatusOr<CertificateFacts> CheckChain(const std::string& chain_pem,
                                            const std::string& authority_pem) {
  const auto chain = ReadChain(chain_pem);
  if (!chain.ok()) return absl::PermissionDeniedError("the peer shows no certificate");
  CHAPTER_ASSIGN_OR_RETURN(const auto authority, ReadChain(authority_pem));
  const Store store(X509_STORE_new());
  const StoreContext context(X509_STORE_CTX_new());
  Must(store != nullptr && context != nullptr &&
       X509_STORE_add_cert(store.get(), authority.front().get()) == 1 &&
       X509_STORE_CTX_init(context.get(), store.get(), chain->front().get(), nullptr) == 1);
  X509_STORE_CTX_set_flags(context.get(), X509_V_FLAG_NO_CHECK_TIME);
  if (X509_verify_cert(context.get()) != 1) {
    ERR_clear_error();
    return absl::PermissionDeniedError(
        absl::StrCat("the peer's certificate does not hold: ",
                     X509_verify_cert_error_string(X509_STORE_CTX_get_error(context.get()))));
  }
  const auto facts = FactsOf(chain->front().get());
  if (!facts.ok() || facts->name.federation != FederationOfKey(authority.front().get())) {
    return absl::PermissionDeniedError("the peer's certificate names nobody of this federation");
  }
  return facts;
}

absl::StatusOr<std::string> CheckPinned(const std::string& chain_pem,
                                        const std::string& fingerprint) {
  const auto chain = ReadChain(chain_pem);
  if (!chain.ok()) return absl::PermissionDeniedError("the hub shows no certificate");
  for (const auto& certificate : *chain) {
    if (Sha256Of(certificate.get()) != fingerprint) continue;
    std::string authority = PemOf(certificate.get());
    CHAPTER_ASSIGN_OR_RETURN(const CertificateFacts facts, CheckChain(chain_pem, authority));
    if (facts.name.hub()) return authority;
    return absl::PermissionDeniedError("what answers is a node, and not a hub");
  }
  return absl::PermissionDeniedError("the hub is of another federation than the invitation names");
}

}  // namespace chaptersync::node
