// SPDX-License-Identifier: Apache-2.0
//
// OpenSSL answers an error only where it is broken itself, and then nothing that is written can be
// trusted.
#include "storage/core/digest.h"

#include <openssl/evp.h>

#include "storage/core/status.h"

namespace chaptersync::storage {

std::string Sha256(std::string_view text) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  CHAPTER_CHECK(EVP_Digest(text.data(), text.size(), digest, &size, EVP_sha256(), nullptr) == 1);
  return {reinterpret_cast<const char*>(digest), size};
}

}  // namespace chaptersync::storage
