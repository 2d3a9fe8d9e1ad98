// SPDX-License-Identifier: Apache-2.0
//
// Random numbers of a simulation: from one number, the same on every machine.
// Each concern draws from a stream of its own, so that leaving out one kind of
// fault disturbs the others as little as can be. One thread.
#ifndef CHAPTERSYNC_TESTS_SIMULATION_RANDOM_H_
#define CHAPTERSYNC_TESTS_SIMULATION_RANDOM_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace chaptersync::simulation {

// splitmix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number
// Generators", 2014).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  // A stream of its own for `purpose`.
  Random(uint64_t seed, uint64_t purpose) : state_(seed * 0xd1342543de82ef95 + purpose) { Next(); }

  uint64_t Next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  // 0 to `count` - 1; 0 where `count` is 0. The bias is below one in 2^40.
  uint64_t Below(uint64_t count) { return count == 0 ? 0 : Next() % count; }
  // `low` to `high`, both included.
  uint64_t Between(uint64_t low, uint64_t high) { return low + Below(high - low + 1); }
  bool Chance(uint64_t per_mille) { return Below(1000) < per_mille; }
  template <typename T>
  const T& Pick(const std::vector<T>& from) {
    return from[Below(from.size())];
  }

 private:
  uint64_t state_;
};

}  // namespace chaptersync::simulation

#endif  // CHAPTERSYNC_TESTS_SIMULATION_RANDOM_H_
