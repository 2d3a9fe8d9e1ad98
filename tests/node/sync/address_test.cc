// SPDX-License-Identifier: Apache-2.0
//
// Addresses as people write them, which of them stay on this machine, and where a
// server may listen.
#include "node/sync/address.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chaptersync::node {
namespace {

using testing::HasSubstr;

TEST(AddressTest, ParsesWhatItPrints) {
  for (const char* text : {"127.0.0.1:7443", "[::1]:0", "hub.example.org:65535"}) {
    const auto address = ParseAddress(text);
    ASSERT_TRUE(address.ok()) << address.status();
    EXPECT_EQ(address->ToString(), text);
  }
}

TEST(AddressTest, RefusesWhatIsNone) {
  for (const char* text : {"", ":", ":1", "host", "host:", "host:x", "host:65536", "host:-1",
                           "host:1x", "::1:7443", "[]:1", "a b:1", "http://host:1"}) {
    const auto address = ParseAddress(text);
    ASSERT_FALSE(address.ok()) << text;
    EXPECT_EQ(address.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(address.status().ToString(), HasSubstr(text));
  }
}

TEST(AddressTest, AllOfAMachinesAddressesAreNone) {
  for (const char* host : {"0.0.0.0", "::"}) EXPECT_TRUE(Resolve({host, 1})->front().any) << host;
  for (const char* host : {"127.0.0.1", "::1", "192.0.2.1", "2001:db8::1"}) {
    const auto resolved = Resolve({host, 1});
    ASSERT_TRUE(resolved.ok()) << resolved.status();
    EXPECT_EQ(resolved->front().ip, host);
    EXPECT_FALSE(resolved->front().any) << host;
  }
}

TEST(AddressTest, NobodyIsWhereNobodyListens) {
  EXPECT_EQ(CheckConnect({"127.0.0.1", 1, false, false}).code(), absl::StatusCode::kUnavailable);
}

TEST(AddressTest, AFreePortIsFree) {
  EXPECT_TRUE(CheckListen({"127.0.0.1", 0, false, false}).ok());
}

}  // namespace
}  // namespace chaptersync::node
