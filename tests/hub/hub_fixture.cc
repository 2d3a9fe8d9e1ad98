// SPDX-License-Identifier: Apache-2.0
//
// The relay: one thread accepts, and each direction of each connection has one of
// its own.
#include "tests/hub/hub_fixture.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <vector>

namespace chaptersync::hub {
namespace {

sockaddr_in LoopbackAddress(uint16_t port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

}  // namespace

int ConnectTo(const node::Address& address) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_in to = LoopbackAddress(address.port);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof(to)) == 0) return fd;
  close(fd);
  return -1;
}

Relay::Relay(const node::Address& to) : to_(to) {
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = LoopbackAddress(0);
  socklen_t size = sizeof(address);
  EXPECT_EQ(bind(listener_, reinterpret_cast<const sockaddr*>(&address), size), 0);
  EXPECT_EQ(listen(listener_, 16), 0);
  EXPECT_EQ(getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size), 0);
  port_ = ntohs(address.sin_port);
  acceptor_ = std::thread([this] { Accept(); });
}

Relay::~Relay() {
  shutdown(listener_, SHUT_RDWR);
  acceptor_.join();
  close(listener_);
  Cut();
  std::vector<std::thread> threads;
  {
    absl::MutexLock lock(&mutex_);
    threads.swap(threads_);
  }
  for (std::thread& thread : threads) thread.join();
  absl::MutexLock lock(&mutex_);
  for (const int fd : sockets_) close(fd);
}

void Relay::Cut() {
  left_ = INT64_MAX;
  absl::MutexLock lock(&mutex_);
  for (const int fd : sockets_) shutdown(fd, SHUT_RDWR);
}

void Relay::Accept() {
  while (true) {
    const int in = accept(listener_, nullptr, nullptr);
    if (in < 0) return;
    const int out = ConnectTo(to_);
    absl::MutexLock lock(&mutex_);
    sockets_.push_back(in);
    if (out < 0) {
      shutdown(in, SHUT_RDWR);
      continue;
    }
    sockets_.push_back(out);
    threads_.emplace_back([this, in, out] { Copy(in, out); });
    threads_.emplace_back([this, in, out] { Copy(out, in); });
  }
}

void Relay::Copy(int from, int to) {
  char buffer[16 << 10];
  while (true) {
    const ssize_t size = recv(from, buffer, sizeof(buffer), 0);
    if (size <= 0) break;
    const int64_t left = left_.fetch_sub(size);
    const auto pass = static_cast<size_t>(std::clamp<int64_t>(left, 0, size));
    size_t done = 0;
    while (done < pass) {
      const ssize_t sent = send(to, buffer + done, pass - done, MSG_NOSIGNAL);
      if (sent <= 0) break;
      done += static_cast<size_t>(sent);
    }
    if (left <= size) Cut();
    if (done < static_cast<size_t>(size)) break;
  }
  shutdown(from, SHUT_RDWR);
  shutdown(to, SHUT_RDWR);
}

}  // namespace chaptersync::hub
