// SPDX-License-Identifier: Apache-2.0
//
// What people call the computers of the chapters: CHAPTER/NAME, and where two of a chapter have one
// name, with the beginning of the id: "italy/vm~3f2a". Pure; any thread.
#ifndef CHAPTERSYNC_NODE_ENTITY_NODE_NAMES_H_
#define CHAPTERSYNC_NODE_ENTITY_NODE_NAMES_H_

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "storage/core/types.h"

namespace chaptersync::node {

// What people call a computer, in bytes.
inline constexpr size_t kNodeNameBytesMax = 255;
// Of an id, where the name alone does not tell: hexadecimal digits, and more where they are shared.
inline constexpr size_t kShownIdDigitsMin = 4;

// INVALID_ARGUMENT, with what is allowed, where `name` is none: 1 to kNodeNameBytesMax bytes of
// UTF-8, without control characters, "/" and "~", which CHAPTER/NAME~ID has.
absl::Status CheckNodeName(const std::string& name);

struct NamedNode {
  storage::NodeId node;
  std::string chapter;
  std::string name;
};

std::map<storage::NodeId, std::string> ShownNames(const std::vector<NamedNode>& nodes);

// The same of whatever has these three.
template <typename Node>
std::map<storage::NodeId, std::string> ShownNames(const std::vector<Node>& nodes) {
  std::vector<NamedNode> named;
  named.reserve(nodes.size());
  for (const Node& n : nodes) named.push_back({n.node, n.chapter, n.name});
  return ShownNames(named);
}

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_ENTITY_NODE_NAMES_H_
