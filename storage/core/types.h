// SPDX-License-Identifier: Apache-2.0
//
// The ids, clocks and positions that everything else speaks of, each a type of
// its own, so that no two bare integers stand side by side. Values only; any
// thread.
#ifndef CHAPTERSYNC_STORAGE_CORE_TYPES_H_
#define CHAPTERSYNC_STORAGE_CORE_TYPES_H_

#include <array>
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace chaptersync::storage {

// A writer of versions: a random 64-bit number that belongs to the node that
// first used it. 0 is nobody. The ids that a node takes one after the other, and
// those of its copies, share the upper half: in order they stand side by side.
struct ReplicaId {
  uint64_t value = 0;
  friend auto operator<=>(const ReplicaId&, const ReplicaId&) = default;
};
inline constexpr int kLineageShift = 32;
inline bool SameLineage(ReplicaId a, ReplicaId b) {
  return a.value >> kLineageShift == b.value >> kLineageShift;
}

// A hybrid logical clock's reading: 48 bits of milliseconds since 1970 in UTC,
// 16 bits of counter (Kulkarni et al., "Logical Physical Clocks", 2014).
struct HybridTime {
  uint64_t ticks = 0;
  friend auto operator<=>(const HybridTime&, const HybridTime&) = default;

  static HybridTime FromWall(uint64_t wall_ms) { return {wall_ms << 16}; }
  uint64_t wall_ms() const { return ticks >> 16; }
};
inline constexpr uint64_t kWallMsMax = (uint64_t{1} << 48) - 1;

// Names one write; totally ordered by time, then by replica.
struct Version {
  HybridTime time;
  ReplicaId replica;
  friend auto operator<=>(const Version&, const Version&) = default;
};

// 16 bytes that name a record within its entity, shown as a UUID.
struct RecordId {
  std::array<uint8_t, 16> bytes{};
  friend auto operator<=>(const RecordId&, const RecordId&) = default;

  // "01890a5d-ac96-774b-bcce-b302099a8057".
  std::string ToString() const;
  // INVALID_ARGUMENT unless `text` is a UUID in lower or upper case with dashes.
  static absl::StatusOr<RecordId> Parse(std::string_view text);
};

// An entity's number, as its .proto says.
struct EntityNumber {
  uint32_t value = 0;
  friend auto operator<=>(const EntityNumber&, const EntityNumber&) = default;
};

struct RecordKey {
  EntityNumber entity;
  RecordId id;
  friend auto operator<=>(const RecordKey&, const RecordKey&) = default;
};

// A place where replicas meet: 16 random bytes that a node or hub keeps for
// life, whatever replica ids it writes under.
struct NodeId {
  std::array<uint8_t, 16> bytes{};
  friend auto operator<=>(const NodeId&, const NodeId&) = default;
  // 32 hexadecimal digits.
  std::string ToString() const;
};

// A position in a replica's change feed; local to that replica and epoch. 0 is
// before everything.
struct Sequence {
  uint64_t value = 0;
  friend auto operator<=>(const Sequence&, const Sequence&) = default;
};

// Changes whenever a replica's past may have changed under it.
struct Epoch {
  uint64_t value = 0;
  friend auto operator<=>(const Epoch&, const Epoch&) = default;
};

// Random number of a commit, by which a rolled-back replica is found out. 0 is
// none.
struct Mark {
  uint64_t value = 0;
  friend auto operator<=>(const Mark&, const Mark&) = default;
};

// Who holds a record: "global", "hq", "chapter/<handle>"; "*" is every scope.
struct Scope {
  std::string name;
  friend auto operator<=>(const Scope&, const Scope&) = default;

  static Scope Global() { return {"global"}; }
  static Scope Hq() { return {"hq"}; }
  static Scope All() { return {"*"}; }
  static Scope Chapter(std::string_view handle) { return {"chapter/" + std::string(handle)}; }
};

// 16 hexadecimal digits.
std::string ToHex(uint64_t value);

}  // namespace chaptersync::storage

#endif  // CHAPTERSYNC_STORAGE_CORE_TYPES_H_
