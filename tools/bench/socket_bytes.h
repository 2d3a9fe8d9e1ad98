// SPDX-License-Identifier: Apache-2.0
//
// Bytes that have gone over a server's TCP connections, as the kernel counts them. A port comes in,
// sums go out. Any thread.
#ifndef CHAPTERSYNC_TOOLS_BENCH_SOCKET_BYTES_H_
#define CHAPTERSYNC_TOOLS_BENCH_SOCKET_BYTES_H_

#include <cstdint>

#include "absl/status/statusor.h"

namespace chaptersync::bench {

// Payload of TCP in bytes, received, or acknowledged by the other end: TLS and HTTP/2 framing
// count, headers of TCP and IP do not.
struct SocketBytes {
  uint64_t connections = 0;
  uint64_t to_server = 0;
  uint64_t from_server = 0;
};

// The sum over the connections open now whose server listens on `port` of this machine; a
// connection that one end has closed is in no sum. By netlink's sock_diag(7). INTERNAL where the
// kernel does not answer.
absl::StatusOr<SocketBytes> CountSocketBytes(uint16_t port);

}  // namespace chaptersync::bench

#endif  // CHAPTERSYNC_TOOLS_BENCH_SOCKET_BYTES_H_
