// SPDX-License-Identifier: Apache-2.0
//
// Synthetic members for measuring: of the size and variety of real ones, the same for the same
// seed, and of nobody. Not thread-safe.
#ifndef CHAPTERSYNC_TOOLS_BENCH_MEMBERS_H_
#define CHAPTERSYNC_TOOLS_BENCH_MEMBERS_H_

#include <cstdint>
#include <random>
#include <string>
#include <utility>

#include "chaptersync/v1/member.pb.h"

namespace chaptersync::bench {

inline constexpr uint64_t kMembersSeed = 20'261'123;

struct NewMember {
  std::string id;  // a UUID of version 7
  v1::Member member;
};

class MemberMaker {
 public:
  // All of them are the chapter's.
  explicit MemberMaker(std::string chapter, uint64_t seed = kMembersSeed)
      : chapter_(std::move(chapter)), random_(seed) {}
  // Names in two scripts, a mail address, a telephone number, a residence, a degree, an employer, a
  // job title, a note of 130 bytes.
  NewMember Next();

 private:
  template <size_t kSize>
  const char* Pick(const char* const (&choices)[kSize]) {
    return choices[random_() % kSize];
  }
  std::string Id();

  const std::string chapter_;
  std::mt19937_64 random_;
  uint64_t made_ = 0;
};

}  // namespace chaptersync::bench

#endif  // CHAPTERSYNC_TOOLS_BENCH_MEMBERS_H_
