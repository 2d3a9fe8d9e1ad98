// SPDX-License-Identifier: Apache-2.0
//
// A record: its cells, what it has seen, its conflict log. Knows field numbers
// and map keys, never entity types. Values only; any thread.
#ifndef CHAPTERSYNC_STORAGE_CORE_RECORD_H_
#define CHAPTERSYNC_STORAGE_CORE_RECORD_H_

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "storage/core/types.h"

namespace chaptersync::storage {

// Where a cell is: a field's number, and the key where the field is a map.
// Field 0 is the record's existence, which a deletion or restoration writes.
struct CellPath {
  uint32_t field = 0;
  std::optional<std::string> map_key;
  friend auto operator<=>(const CellPath&, const CellPath&) = default;

  static CellPath Existence() { return {}; }
  bool existence() const { return field == 0; }
};

// What the existence cell holds.
inline std::string DeletedValue() { return std::string(1, '\x01'); }
inline std::string RestoredValue() { return std::string(1, '\0'); }

// The winning value of one field or map entry.
struct Cell {
  CellPath path;
  Version version;
  std::string actor;                 // account at the replica that wrote it
  std::optional<std::string> value;  // canonical wire bytes; none: cleared
  // Where in this replica's own feed the version first came up. Local: never sent.
  Sequence learned;
};

// For each replica that ever wrote the record, the highest clock seen: the
// record's causal context.
class Seen {
 public:
  bool Covers(const Version& version) const { return Get(version.replica) >= version.time; }
  bool CoversAll(const Seen& other) const;
  // The zero time where the replica's writes were never seen.
  HybridTime Get(ReplicaId replica) const;
  void Advance(ReplicaId replica, HybridTime time);
  void Advance(const Version& version) { Advance(version.replica, version.time); }
  void Unite(const Seen& other);
  // Forgets a replica, or lowers it: only for writes that nobody else has seen.
  void Set(ReplicaId replica, HybridTime time);
  HybridTime Highest() const;

  const std::vector<std::pair<ReplicaId, HybridTime>>& entries() const { return entries_; }
  bool empty() const { return entries_.empty(); }
  friend bool operator==(const Seen&, const Seen&) = default;

 private:
  std::vector<std::pair<ReplicaId, HybridTime>> entries_;  // sorted by replica, no zero times
};

// What an officer decided about a conflict. Numbers are on disk and on the wire.
enum class Choice : uint8_t { kKeep = 1, kTake = 2, kValue = 3 };

// That somebody settled a conflict entry.
struct SettlementEntry {
  Version version;
  std::string actor;
  Choice choice = Choice::kKeep;
  friend bool operator==(const SettlementEntry&, const SettlementEntry&) = default;
};

// A value that lost without having been seen. Its path and the version that
// lost name it; the rest comes from the merge that found it.
struct ConflictEntry {
  CellPath path;
  Version lost_version;
  std::string lost_actor;
  std::optional<std::string> lost_value;
  Version current_version;  // what stood when it was found
  std::string current_actor;
  std::optional<std::string> current_value;
  HybridTime found_at;
  ReplicaId found_by;
  std::vector<SettlementEntry> settlements;  // rising versions; the last stands

  bool open() const { return settlements.empty(); }
  friend bool operator==(const ConflictEntry&, const ConflictEntry&) = default;
};

// 16 bytes that name an entry, the same at every replica.
std::string ConflictId(const RecordKey& key, const CellPath& path, const Version& lost_version);

struct Record {
  std::vector<Cell> cells;  // rising paths
  Seen seen;
  std::vector<ConflictEntry> conflicts;  // rising (path, lost_version)
  bool erased = false;

  const Cell* Find(const CellPath& path) const;
  // Replaces the cell at its path, or adds it.
  void Put(Cell cell);
  // True unless erased, without cells, or deleted by a deletion that no cell is
  // later than.
  bool live() const;
  // Nothing was ever written here.
  bool empty() const { return cells.empty() && !erased && seen.empty(); }
  // Leaves the fact and what has been seen.
  void Erase();
};

}  // namespace chaptersync::storage

#endif  // CHAPTERSYNC_STORAGE_CORE_RECORD_H_
