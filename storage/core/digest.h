// SPDX-License-Identifier: Apache-2.0
//
// SHA-256 (FIPS 180-4), as OpenSSL computes it: for names, and to compare what two sides know
// without its being told. Keys and codes are hashed by it as well.
#ifndef CHAPTERSYNC_STORAGE_CORE_DIGEST_H_
#define CHAPTERSYNC_STORAGE_CORE_DIGEST_H_

#include <string>
#include <string_view>

namespace chaptersync::storage {

// 32 bytes.
std::string Sha256(std::string_view text);

}  // namespace chaptersync::storage

#endif  // CHAPTERSYNC_STORAGE_CORE_DIGEST_H_
