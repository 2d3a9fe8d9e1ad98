// SPDX-License-Identifier: Apache-2.0
//
// Slows down who guesses: after a few wrong tries from one address, further ones are
// refused unseen for a time that doubles with each wrong one. Pure; the caller gives the
// time and calls from one thread at a time.
#ifndef CHAPTERSYNC_HUB_GUESS_LIMITER_H_
#define CHAPTERSYNC_HUB_GUESS_LIMITER_H_

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <string>

namespace chaptersync::hub {

// Wrong tries that cost nothing: people mistype, and a chapter shares its address.
inline constexpr uint32_t kGuessesFree = 5;
// Until the next try after one more, and at most, in milliseconds.
inline constexpr int64_t kGuessWaitMsMin = 1'000;
inline constexpr int64_t kGuessWaitMsMax = 60'000;
// After so long without a wrong try an address is as good as any other, in milliseconds.
inline constexpr int64_t kGuessForgottenMs = 3'600'000;
static_assert(kGuessWaitMsMin < kGuessWaitMsMax && kGuessWaitMsMax < kGuessForgottenMs);
// Addresses remembered; of more, the one that was wrong longest ago is forgotten.
inline constexpr size_t kGuessersMax = 10'000;

class GuessLimiter {
 public:
  // Milliseconds until a try from `address` is looked at; 0: now. Where the clock was put back
  // since the last wrong one, that one counts no more.
  int64_t WaitMs(const std::string& address, int64_t now_ms) const;
  // A try from `address` was wrong.
  void Wrong(const std::string& address, int64_t now_ms);
  size_t size() const { return guessers_.size(); }

 private:
  struct Guesser {
    uint32_t wrong = 0;
    int64_t last_ms = 0;
    std::list<std::string>::iterator place;
  };
  static int64_t WaitAfterMs(uint32_t wrong);

  std::map<std::string, Guesser> guessers_;
  std::list<std::string> by_age_;  // who was wrong longest ago first
};

// The part of gRPC's name of a peer ("ipv4:192.0.2.7:4711") that one site shares: the address
// of IPv4, the first 64 bits of one of IPv6; as it is where it is neither.
std::string GuesserOf(const std::string& peer);

}  // namespace chaptersync::hub

#endif  // CHAPTERSYNC_HUB_GUESS_LIMITER_H_
