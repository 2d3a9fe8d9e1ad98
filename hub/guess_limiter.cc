// SPDX-License-Identifier: Apache-2.0
//
// A map of addresses, and a list of them by age for the one that has to go; what one site shares of
// an address.
#include "hub/guess_limiter.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>

#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"

namespace chaptersync::hub {

int64_t GuessLimiter::WaitAfterMs(uint32_t wrong) {
  if (wrong <= kGuessesFree) return 0;
  const uint32_t doublings = std::min(wrong - kGuessesFree - 1, uint32_t{30});
  return std::min(kGuessWaitMsMin << doublings, kGuessWaitMsMax);
}

int64_t GuessLimiter::WaitMs(const std::string& address, int64_t now_ms) const {
  const auto it = guessers_.find(address);
  if (it == guessers_.end() || now_ms < it->second.last_ms) return 0;
  const int64_t over_ms = it->second.last_ms + WaitAfterMs(it->second.wrong);
  return std::max<int64_t>(over_ms - now_ms, 0);
}

void GuessLimiter::Wrong(const std::string& address, int64_t now_ms) {
  const auto [it, is_new] = guessers_.try_emplace(address);
  Guesser& guesser = it->second;
  if (!is_new) by_age_.erase(guesser.place);
  if (now_ms - guesser.last_ms > kGuessForgottenMs) guesser.wrong = 0;
  ++guesser.wrong;
  guesser.last_ms = now_ms;
  guesser.place = by_age_.insert(by_age_.end(), address);
  if (guessers_.size() > kGuessersMax) {
    guessers_.erase(by_age_.front());
    by_age_.pop_front();
  }
}

std::string GuesserOf(const std::string& peer) {
  const size_t colon = peer.rfind(':');
  if (colon == std::string::npos) return peer;
  const std::string host = peer.substr(0, colon);
  if (!absl::StartsWith(host, "ipv6:")) return host;
  // gRPC writes brackets as in a URI.
  std::string digits = absl::StrReplaceAll(host.substr(5), {{"%5B", ""}, {"%5D", ""}});
  digits.erase(
      std::remove_if(digits.begin(), digits.end(), [](char c) { return c == '[' || c == ']'; }),
      digits.end());
  digits = digits.substr(0, digits.find('%'));  // a link's zone
  in6_addr address{};
  if (inet_pton(AF_INET6, digits.c_str(), &address) != 1) return host;
  std::fill(std::begin(address.s6_addr) + 8, std::end(address.s6_addr), uint8_t{0});
  std::array<char, INET6_ADDRSTRLEN> text{};
  inet_ntop(AF_INET6, &address, text.data(), text.size());
  return "ipv6:" + std::string(text.data()) + "/64";
}

}  // namespace chaptersync::hub
