// SPDX-License-Identifier: Apache-2.0
//
// What the kernel counts on connections over loopback, against what the test itself has sent on
// them: one thread, both ends.
#include "tools/bench/socket_bytes.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

#include <gtest/gtest.h>

namespace chaptersync::bench {
namespace {

// A listener on a port of its own, and connections to it.
class SocketBytesTest : public testing::Test {
 protected:
  struct Connection {
    int client = -1;
    int server = -1;
  };

  void SetUp() override {
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address = Loopback(0);
    socklen_t size = sizeof(address);
    ASSERT_EQ(bind(listener_, reinterpret_cast<const sockaddr*>(&address), size), 0);
    ASSERT_EQ(listen(listener_, 4), 0);
    ASSERT_EQ(getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    port_ = ntohs(address.sin_port);
  }
  void TearDown() override { close(listener_); }

  static sockaddr_in Loopback(uint16_t port) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
  }

  Connection Connect() const {
    Connection made;
    made.client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const sockaddr_in to = Loopback(port_);
    EXPECT_EQ(connect(made.client, reinterpret_cast<const sockaddr*>(&to), sizeof(to)), 0);
    made.server = accept(listener_, nullptr, nullptr);
    EXPECT_GE(made.server, 0);
    return made;
  }

  // Sends so many bytes, all of which have arrived when it returns.
  static void Move(int from, int to, size_t bytes) {
    const std::string data(bytes, 'x');
    ASSERT_EQ(send(from, data.data(), bytes, MSG_NOSIGNAL), static_cast<ssize_t>(bytes));
    std::string came(bytes, '\0');
    ASSERT_EQ(recv(to, came.data(), bytes, MSG_WAITALL), static_cast<ssize_t>(bytes));
  }

  SocketBytes Bytes() const {
    const auto bytes = CountSocketBytes(port_);
    EXPECT_TRUE(bytes.ok()) << bytes.status();
    return bytes.ok() ? *bytes : SocketBytes{};
  }

  int listener_ = -1;
  uint16_t port_ = 0;
};

TEST_F(SocketBytesTest, NothingWhereNobodyIsConnected) {
  const SocketBytes bytes = Bytes();
  EXPECT_EQ(bytes.connections, 0U);
  EXPECT_EQ(bytes.to_server, 0U);
  EXPECT_EQ(bytes.from_server, 0U);
}

TEST_F(SocketBytesTest, CountsBothWaysOfAllConnections) {
  const Connection one = Connect();
  const Connection other = Connect();
  Move(one.client, one.server, 1'000);
  Move(one.server, one.client, 20'000);
  Move(other.client, other.server, 300);
  // What the server sent counts once it is acknowledged. An answer carries that with it.
  Move(one.client, one.server, 1);
  const SocketBytes bytes = Bytes();
  EXPECT_EQ(bytes.connections, 2U);
  EXPECT_EQ(bytes.to_server, 1'301U);
  EXPECT_EQ(bytes.from_server, 20'000U);
  close(one.client);
  close(one.server);
  close(other.client);
  close(other.server);
}

TEST_F(SocketBytesTest, AConnectionThatWasClosedIsInNoSum) {
  const Connection one = Connect();
  Move(one.client, one.server, 10);
  close(one.client);
  close(one.server);
  EXPECT_EQ(Bytes().connections, 0U);
}

}  // namespace
}  // namespace chaptersync::bench
