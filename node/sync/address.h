// SPDX-License-Identifier: Apache-2.0
//
// Addresses of the form HOST:PORT, as people write them: parsing, resolving, and
// whether somebody is there. Resolving may wait for the network.
#ifndef CHAPTERSYNC_NODE_SYNC_ADDRESS_H_
#define CHAPTERSYNC_NODE_SYNC_ADDRESS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace chaptersync::node {

struct Address {
  std::string host;  // a name, or digits; IPv6 without brackets
  uint16_t port = 0;
  // "hub.example.org:7443", "[::1]:7443".
  std::string ToString() const;
};

// INVALID_ARGUMENT where `text` is not HOST:PORT; an IPv6 address is in brackets.
absl::StatusOr<Address> ParseAddress(const std::string& text);

struct ResolvedAddress {
  std::string ip;  // digits, without brackets
  uint16_t port = 0;
  bool v6 = false;
  bool any = false;  // 0.0.0.0 or ::, all of a machine's addresses
  // "127.0.0.1:7443", "[::1]:7443".
  std::string ToString() const;
  // As gRPC takes it without resolving anything: "ipv4:127.0.0.1:7443".
  std::string Target() const;
};

// At least one. UNAVAILABLE where the name cannot be resolved.
absl::StatusOr<std::vector<ResolvedAddress>> Resolve(const Address& address);

// Whether something takes TCP connections there; UNAVAILABLE else. Waits for at most a second.
absl::Status CheckConnect(const ResolvedAddress& address);

// Whether a server could listen there now: FAILED_PRECONDITION, with the reason,
// where it could not.
absl::Status CheckListen(const ResolvedAddress& address);

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_SYNC_ADDRESS_H_
