// SPDX-License-Identifier: Apache-2.0
//
// OpenSSL answers an error only where it is broken itself, and then nothing that is written can be
// trusted.
#include "storage/core/digest.h"

#include <openssl/evp.h>

#include "storage/core/status.h"

namespace chaptersync::storage {
namespace {

// Looking an algorithm up costs more than hashing a record's state, so a thread does it once.
class Hasher {
 public:
  Hasher() {
    CHAPTER_CHECK(algorithm_ != nullptr);
    CHAPTER_CHECK(context_ != nullptr);
  }
  Hasher(const Hasher&) = delete;
  Hasher& operator=(const Hasher&) = delete;
  ~Hasher() {
    EVP_MD_CTX_free(context_);
    EVP_MD_free(algorithm_);
  }

  unsigned int Hash(std::string_view text, unsigned char* digest) {
    unsigned int size = 0;
    CHAPTER_CHECK(EVP_DigestInit_ex2(context_, algorithm_, nullptr) == 1);
    CHAPTER_CHECK(EVP_DigestUpdate(context_, text.data(), text.size()) == 1);
    CHAPTER_CHECK(EVP_DigestFinal_ex(context_, digest, &size) == 1);
    return size;
  }

 private:
  EVP_MD* const algorithm_ = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  EVP_MD_CTX* const context_ = EVP_MD_CTX_new();
};

}  // namespace

std::string Sha256(std::string_view text) {
  thread_local Hasher hasher;
  unsigned char digest[EVP_MAX_MD_SIZE];
  const unsigned int size = hasher.Hash(text, digest);
  return {reinterpret_cast<const char*>(digest), size};
}

}  // namespace chaptersync::storage
