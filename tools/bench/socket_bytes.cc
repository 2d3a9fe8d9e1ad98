// SPDX-License-Identifier: Apache-2.0
//
// CountSocketBytes: asks the kernel over netlink for TCP's counters of every established
// connection, in IPv4 and IPv6, and adds up those of the port.
#include "tools/bench/socket_bytes.h"

#include <arpa/inet.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"

#include "storage/core/status.h"

namespace chaptersync::bench {
namespace {

constexpr uint32_t kEstablished = 1;  // TCP_ESTABLISHED
constexpr timeval kAnswerTimeout{.tv_sec = 5, .tv_usec = 0};

absl::Status Failed(const char* what) {
  return absl::InternalError(absl::StrCat("sock_diag: ", what, ": ", std::strerror(errno)));
}

// Adds one connection's counters.
void Add(const nlmsghdr& header, uint16_t port, SocketBytes& sum) {
  inet_diag_msg connection{};
  const char* const data = reinterpret_cast<const char*>(&header) + NLMSG_HDRLEN;
  std::memcpy(&connection, data, sizeof(connection));
  if (ntohs(connection.id.idiag_sport) != port) return;
  ++sum.connections;
  int left = static_cast<int>(header.nlmsg_len - NLMSG_LENGTH(sizeof(connection)));
  const char* at = data + NLMSG_ALIGN(sizeof(connection));
  while (left >= static_cast<int>(sizeof(rtattr))) {
    rtattr attribute{};
    std::memcpy(&attribute, at, sizeof(attribute));
    const int size = static_cast<int>(attribute.rta_len);
    if (size < static_cast<int>(sizeof(attribute)) || size > left) return;
    if (attribute.rta_type == INET_DIAG_INFO) {
      tcp_info info{};
      std::memcpy(&info, at + RTA_LENGTH(0),
                  std::min(sizeof(info), static_cast<size_t>(size) - RTA_LENGTH(0)));
      sum.to_server += info.tcpi_bytes_received;
      sum.from_server += info.tcpi_bytes_acked;
    }
    at += RTA_ALIGN(size);
    left -= static_cast<int>(RTA_ALIGN(size));
  }
}

absl::Status AddFamily(int fd, uint8_t family, uint16_t port, SocketBytes& sum) {
  struct {
    nlmsghdr header;
    inet_diag_req_v2 request;
  } ask{};
  ask.header.nlmsg_len = sizeof(ask);
  ask.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  ask.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  ask.request.sdiag_family = family;
  ask.request.sdiag_protocol = IPPROTO_TCP;
  ask.request.idiag_ext = 1 << (INET_DIAG_INFO - 1);
  ask.request.idiag_states = 1U << kEstablished;
  if (send(fd, &ask, sizeof(ask), 0) != static_cast<ssize_t>(sizeof(ask))) return Failed("send");
  alignas(nlmsghdr) std::array<char, 1 << 16> buffer;
  for (;;) {
    const ssize_t got = recv(fd, buffer.data(), buffer.size(), 0);
    if (got <= 0) return Failed("recv");
    size_t left = static_cast<size_t>(got);
    const char* at = buffer.data();
    while (left >= sizeof(nlmsghdr)) {
      const auto* header = reinterpret_cast<const nlmsghdr*>(at);
      if (header->nlmsg_len < sizeof(nlmsghdr) || header->nlmsg_len > left) {
        return absl::InternalError("sock_diag: an answer of another form");
      }
      if (header->nlmsg_type == NLMSG_DONE) return absl::OkStatus();
      if (header->nlmsg_type == NLMSG_ERROR) return absl::InternalError("sock_diag: refused");
      Add(*header, port, sum);
      const size_t size = std::min<size_t>(left, NLMSG_ALIGN(header->nlmsg_len));
      at += size;
      left -= size;
    }
  }
}

}  // namespace

absl::StatusOr<SocketBytes> CountSocketBytes(uint16_t port) {
  const int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
  if (fd < 0) return Failed("socket");
  const absl::Cleanup close_fd = [&] { close(fd); };
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &kAnswerTimeout, sizeof(kAnswerTimeout));
  SocketBytes sum;
  CHAPTER_RETURN_IF_ERROR(AddFamily(fd, AF_INET, port, sum));
  CHAPTER_RETURN_IF_ERROR(AddFamily(fd, AF_INET6, port, sum));
  return sum;
}

}  // namespace chaptersync::bench
