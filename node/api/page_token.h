// SPDX-License-Identifier: Apache-2.0
//
// Page tokens: a position and a hash of the query that it belongs to, so that a
// token of one list cannot be used with another. Opaque to callers. Any thread.
#ifndef CHAPTERSYNC_NODE_API_PAGE_TOKEN_H_
#define CHAPTERSYNC_NODE_API_PAGE_TOKEN_H_

#include <string>

#include "absl/status/statusor.h"

namespace chaptersync::node {

// Empty where `position` is.
std::string MakePageToken(const std::string& query, const std::string& position);
// The position; empty for an empty token. INVALID_ARGUMENT where the token is
// none, or belongs to another query.
absl::StatusOr<std::string> ReadPageToken(const std::string& query, const std::string& token);

// The page size that a caller asked for: 100 where it is 0. INVALID_ARGUMENT
// unless it is 0 to 1,000.
absl::StatusOr<size_t> PageSize(int asked);

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_API_PAGE_TOKEN_H_
