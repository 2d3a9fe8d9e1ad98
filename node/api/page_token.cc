// SPDX-License-Identifier: Apache-2.0
//
// A token is base64 for URLs of 8 bytes of the query's SHA-256, then the
// position.
#include "node/api/page_token.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

#include "node/api/limits.h"
#include "node/entity/text.h"
#include "storage/core/digest.h"
#include "storage/core/status.h"

namespace chaptersync::node {
namespace {

constexpr size_t kHashBytes = 8;

std::string Hash(const std::string& query) { return storage::Sha256(query).substr(0, kHashBytes); }

}  // namespace

std::string MakePageToken(const std::string& query, const std::string& position) {
  if (position.empty()) return "";
  return absl::WebSafeBase64Escape(Hash(query) + position);
}

absl::StatusOr<std::string> ReadPageToken(const std::string& query, const std::string& token) {
  if (token.empty()) return "";
  std::string bytes;
  if (!absl::WebSafeBase64Unescape(token, &bytes) || bytes.size() <= kHashBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("page token '", Shown(token), "' is none that this program gave"));
  }
  if (bytes.substr(0, kHashBytes) != Hash(query)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "page token '", Shown(token), "' belongs to a list with other fields in its request"));
  }
  return bytes.substr(kHashBytes);
}

absl::StatusOr<size_t> PageSize(int asked) {
  if (asked < 0 || asked > kPageSizeMax) {
    return absl::InvalidArgumentError(absl::StrCat("page size ", asked, " is not allowed (1 to ",
                                                   kPageSizeMax, ", 0 for ", kPageSizeDefault,
                                                   ")"));
  }
  return static_cast<size_t>(asked == 0 ? kPageSizeDefault : asked);
}

}  // namespace chaptersync::node
