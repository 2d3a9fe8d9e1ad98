// SPDX-License-Identifier: Apache-2.0
//
// Where a name is shared, as much of each id is shown as tells it from the others of
// that name.
#include "node/entity/node_names.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "node/entity/text.h"

namespace chaptersync::node {
namespace {

size_t CommonPrefix(const std::string& a, const std::string& b) {
  return static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first -
                             a.begin());
}

}  // namespace

absl::Status CheckNodeName(const std::string& name) {
  const bool right = !name.empty() && name.size() <= kNodeNameBytesMax && ValidUtf8(name) &&
                     !HasControl(name) && name.find_first_of("/~") == std::string::npos;
  if (right) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("'", Shown(name), "' is no name of a computer (1 to ", kNodeNameBytesMax,
                   " bytes of UTF-8, without control characters, \"/\" and \"~\")"));
}

std::map<storage::NodeId, std::string> ShownNames(const std::vector<NamedNode>& nodes) {
  std::map<std::string, std::vector<storage::NodeId>> by_name;
  for (const NamedNode& n : nodes) {
    by_name[absl::StrCat(n.chapter, "/", n.name)].push_back(n.node);
  }
  std::map<storage::NodeId, std::string> shown;
  for (const auto& [name, ids] : by_name) {
    for (const storage::NodeId& id : ids) {
      shown[id] = name;
      if (ids.size() == 1) continue;
      const std::string digits = id.ToString();
      size_t length = kShownIdDigitsMin;
      for (const storage::NodeId& other : ids) {
        if (other != id) length = std::max(length, CommonPrefix(digits, other.ToString()) + 1);
      }
      absl::StrAppend(&shown[id], "~", digits.substr(0, length));
    }
  }
  return shown;
}

}  // namespace chaptersync::node
