// SPDX-License-Identifier: Apache-2.0
//
// What stands for one record in a set that two replicas compare: its key, and a
// hash of its state. Two replicas that hold the same state of a record have the
// same element. Pure; any thread.
#ifndef CHAPTERSYNC_STORAGE_RECONCILE_ELEMENT_H_
#define CHAPTERSYNC_STORAGE_RECONCILE_ELEMENT_H_

#include <array>
#include <compare>
#include <cstdint>

#include "storage/core/record.h"
#include "storage/core/types.h"

namespace chaptersync::storage {

// SHA-256 of a record's key and state, as four numbers, which are added lane by
// lane: the sum over a set's records is 32 bytes that do not depend on order.
// HAZARD: sums of chosen hashes can be made to meet. Who chooses states so that two
// sets look the same hides a difference from those who hold his records, no more.
struct StateDigest {
  std::array<uint64_t, 4> lanes{};

  void Add(const StateDigest& other);
  void Remove(const StateDigest& other);
  friend bool operator==(const StateDigest&, const StateDigest&) = default;
};

// Of the paths and versions of the cells, the conflict entries, and how they were
// settled. What a state has seen, and where this replica learnt it, do not count.
// An erased record has none: it is in no scope.
StateDigest DigestState(const RecordKey& key, const Record& record);

// A record's key, and the first eight bytes of its state's digest.
struct Element {
  RecordKey key;
  uint64_t state = 0;
  friend auto operator<=>(const Element&, const Element&) = default;
};

inline Element ElementOf(const RecordKey& key, const StateDigest& digest) {
  return {.key = key, .state = digest.lanes[0]};
}

}  // namespace chaptersync::storage

#endif  // CHAPTERSYNC_STORAGE_RECONCILE_ELEMENT_H_
