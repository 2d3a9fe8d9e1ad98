// SPDX-License-Identifier: Apache-2.0
//
// UUIDs of versions 7 (time and random bits) and 5 (SHA-1 of a name). RFC 9562
// numbers bits from the left: the version is in byte 6, the variant in byte 8.
#include "node/entity/ids.h"

#include <algorithm>

#include <openssl/evp.h>

#include "storage/core/status.h"

namespace chaptersync::node {
namespace {

using storage::RecordId;

// Drawn once, for this project alone; part of what replicas agree on. Never changes.
constexpr RecordId kProjectNamespace = {{0x6f, 0x1c, 0x3b, 0x52, 0x9d, 0x0e, 0x4c, 0x87, 0xa4, 0x2b,
                                         0xe1, 0x75, 0x08, 0xd3, 0x5a, 0xf6}};

void SetVersion(RecordId& id, uint8_t version) {
  id.bytes[6] = static_cast<uint8_t>((id.bytes[6] & 0x0f) | (version << 4));
  id.bytes[8] = static_cast<uint8_t>((id.bytes[8] & 0x3f) | 0x80);
}

}  // namespace

RecordId UuidV7(uint64_t now_ms, uint64_t random_a, uint64_t random_b) {
  RecordId id;
  for (size_t i = 0; i < 6; ++i) id.bytes[i] = static_cast<uint8_t>(now_ms >> (40 - 8 * i));
  for (size_t i = 6; i < 8; ++i) id.bytes[i] = static_cast<uint8_t>(random_a >> (8 * i));
  for (size_t i = 8; i < 16; ++i) id.bytes[i] = static_cast<uint8_t>(random_b >> (8 * (i - 8)));
  SetVersion(id, 7);
  return id;
}

RecordId UuidV5(const RecordId& name_space, const std::string& name) {
  std::string text(name_space.bytes.begin(), name_space.bytes.end());
  text += name;
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  CHAPTER_CHECK(EVP_Digest(text.data(), text.size(), digest, &size, EVP_sha1(), nullptr) == 1);
  RecordId id;
  std::copy_n(digest, id.bytes.size(), id.bytes.begin());
  SetVersion(id, 5);
  return id;
}

RecordId NamedId(const EntityType& type, const std::string& name) {
  return UuidV5(UuidV5(kProjectNamespace, type.plural), name);
}

}  // namespace chaptersync::node
