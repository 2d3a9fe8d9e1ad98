// SPDX-License-Identifier: Apache-2.0
//
// HOST:PORT with the system's resolver and sockets. Trying a
// connection sends nothing over it.
#include "node/sync/address.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>

#include "absl/strings/str_cat.h"

namespace chaptersync::node {
namespace {

std::string Join(const std::string& host, uint16_t port) {
  const bool brackets = host.find(':') != std::string::npos;
  return brackets ? absl::StrCat("[", host, "]:", port) : absl::StrCat(host, ":", port);
}

bool IsAny(const sockaddr* address) {
  if (address->sa_family == AF_INET) {
    sockaddr_in in;
    std::memcpy(&in, address, sizeof(in));
    return in.sin_addr.s_addr == htonl(INADDR_ANY);
  }
  sockaddr_in6 in6;
  std::memcpy(&in6, address, sizeof(in6));
  return IN6_IS_ADDR_UNSPECIFIED(&in6.sin6_addr) != 0;
}

using AddressList = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

absl::StatusOr<AddressList> LookUp(const std::string& host, uint16_t port, int flags) {
  addrinfo hints = {};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (error != 0) {
    return absl::UnavailableError(
        absl::StrCat("'", host, "' cannot be resolved: ", gai_strerror(error)));
  }
  return AddressList(found, &freeaddrinfo);
}

}  // namespace

std::string Address::ToString() const { return Join(host, port); }
std::string ResolvedAddress::ToString() const { return Join(ip, port); }
std::string ResolvedAddress::Target() const {
  return absl::StrCat(v6 ? "ipv6:" : "ipv4:", ToString());
}

absl::StatusOr<Address> ParseAddress(const std::string& text) {
  const auto wrong = [&] {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", text, "' is no address: HOST:PORT is wanted, as 127.0.0.1:7443 or [::1]:7443"));
  };
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0) return wrong();
  Address address;
  address.host = text.substr(0, colon);
  if (address.host.front() == '[' && address.host.back() == ']') {
    address.host = address.host.substr(1, address.host.size() - 2);
  } else if (address.host.find(':') != std::string::npos) {
    return wrong();
  }
  const char* first = text.data() + colon + 1;
  const char* last = text.data() + text.size();
  const auto [end, error] = std::from_chars(first, last, address.port);
  if (error != std::errc() || end != last || address.host.empty()) return wrong();
  for (const char c : address.host) {
    if (static_cast<unsigned char>(c) <= ' ' || c == '/') return wrong();
  }
  return address;
}

absl::StatusOr<std::vector<ResolvedAddress>> Resolve(const Address& address) {
  auto list = LookUp(address.host, address.port, 0);
  if (!list.ok()) return list.status();
  std::vector<ResolvedAddress> resolved;
  for (const addrinfo* info = list->get(); info != nullptr; info = info->ai_next) {
    if (info->ai_family != AF_INET && info->ai_family != AF_INET6) continue;
    char ip[NI_MAXHOST];
    if (getnameinfo(info->ai_addr, info->ai_addrlen, ip, sizeof(ip), nullptr, 0, NI_NUMERICHOST) !=
        0) {
      continue;
    }
    resolved.push_back({ip, address.port, info->ai_family == AF_INET6, IsAny(info->ai_addr)});
  }
  if (resolved.empty()) {
    return absl::UnavailableError(absl::StrCat("'", address.host, "' has no IP address"));
  }
  return resolved;
}

absl::Status CheckConnect(const ResolvedAddress& address) {
  constexpr int kConnectMsMax = 1'000;
  auto list = LookUp(address.ip, address.port, AI_NUMERICHOST);
  if (!list.ok()) return list.status();
  const addrinfo* info = list->get();
  const int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return absl::UnavailableError(std::strerror(errno));
  int error = connect(fd, info->ai_addr, info->ai_addrlen) == 0 ? 0 : errno;
  if (error == EINPROGRESS) {
    pollfd wait{fd, POLLOUT, 0};
    socklen_t size = sizeof(error);
    if (poll(&wait, 1, kConnectMsMax) != 1) {
      error = ETIMEDOUT;
    } else if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) {
      error = errno;
    }
  }
  close(fd);
  return error == 0 ? absl::OkStatus() : absl::UnavailableError(std::strerror(error));
}

absl::Status CheckListen(const ResolvedAddress& address) {
  const auto failed = [&](const char* what) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot listen on ", address.ToString(), ": ", what));
  };
  auto list = LookUp(address.ip, address.port, AI_NUMERICHOST);
  if (!list.ok()) return list.status();
  const addrinfo* info = list->get();
  const int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return failed(std::strerror(errno));
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  const int result = bind(fd, info->ai_addr, info->ai_addrlen);
  const int error = errno;
  close(fd);
  if (result == 0) return absl::OkStatus();
  return failed(error == EADDRINUSE ? "another program uses this port" : std::strerror(error));
}

}  // namespace chaptersync::node
