// SPDX-License-Identifier: Apache-2.0
//
// What computers are called, how those of one name are told apart, and which
// names are refused.
#include "node/entity/node_names.h"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chaptersync::node {
namespace {

storage::NodeId Node(uint8_t first, uint8_t second, uint8_t third = 0) {
  storage::NodeId node;
  node.bytes = {first, second, third};
  return node;
}

TEST(NodeNamesTest, OneOfItsNameIsShownByItAlone) {
  const auto shown = ShownNames(
      std::vector<NamedNode>{{Node(1, 1), "italy", "vm"}, {Node(1, 2), "toronto", "vm"}});
  EXPECT_EQ(shown.at(Node(1, 1)), "italy/vm");
  EXPECT_EQ(shown.at(Node(1, 2)), "toronto/vm");
}

TEST(NodeNamesTest, ComputersOfOneNameAreShownWithAsMuchOfTheIdAsTellsThemApart) {
  // Two computers with one host name looked the same everywhere.
  const auto shown = ShownNames(std::vector<NamedNode>{{Node(0x3f, 0x2a), "italy", "vm"},
                                                       {Node(0x40, 0x2a), "italy", "vm"},
                                                       {Node(0x40, 0x2a, 0x12), "italy", "vm"},
                                                       {Node(0x3f, 0x2b), "italy", "desk"}});
  EXPECT_EQ(shown.at(Node(0x3f, 0x2a)), "italy/vm~3f2a");
  EXPECT_EQ(shown.at(Node(0x40, 0x2a)), "italy/vm~402a0");
  EXPECT_EQ(shown.at(Node(0x40, 0x2a, 0x12)), "italy/vm~402a1");
  EXPECT_EQ(shown.at(Node(0x3f, 0x2b)), "italy/desk");
}

TEST(NodeNamesTest, WhatMayBeAName) {
  for (const std::string& name :
       {std::string("vm"), std::string("Ufficio di Zoë (2)"), std::string(255, 'n')}) {
    EXPECT_TRUE(CheckNodeName(name).ok()) << name;
  }
  for (const std::string& name :
       {std::string(), std::string(256, 'n'), std::string("a/b"), std::string("vm~3f2a"),
        std::string("a\nb"), std::string("\xff")}) {
    const absl::Status status = CheckNodeName(name);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << name;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr("1 to 255 bytes"));
  }
}

}  // namespace
}  // namespace chaptersync::node
