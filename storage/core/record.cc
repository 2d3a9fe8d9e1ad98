// SPDX-License-Identifier: Apache-2.0
//
// Look-ups and small changes of a record's parts, and the name of a conflict entry.
// Pure; any thread.
#include "storage/core/record.h"

#include <algorithm>

#include "storage/core/digest.h"
#include "storage/core/record_codec.h"
#include "storage/core/status.h"

namespace chaptersync::storage {

bool Seen::CoversAll(const Seen& other) const {
  return std::all_of(other.entries_.begin(), other.entries_.end(),
                     [this](const auto& e) { return Get(e.first) >= e.second; });
}

HybridTime Seen::Get(ReplicaId replica) const {
  auto it =
      std::lower_bound(entries_.begin(), entries_.end(), replica,
                       [](const auto& entry, ReplicaId wanted) { return entry.first < wanted; });
  return it != entries_.end() && it->first == replica ? it->second : HybridTime{};
}

void Seen::Advance(ReplicaId replica, HybridTime time) {
  if (time > Get(replica)) Set(replica, time);
}

void Seen::Set(ReplicaId replica, HybridTime time) {
  auto it =
      std::lower_bound(entries_.begin(), entries_.end(), replica,
                       [](const auto& entry, ReplicaId wanted) { return entry.first < wanted; });
  const bool there = it != entries_.end() && it->first == replica;
  if (time == HybridTime{}) {
    if (there) entries_.erase(it);
  } else if (there) {
    it->second = time;
  } else {
    entries_.insert(it, {replica, time});
  }
}

void Seen::Unite(const Seen& other) {
  for (const auto& [replica, time] : other.entries_) Advance(replica, time);
}

HybridTime Seen::Highest() const {
  HybridTime highest;
  for (const auto& [replica, time] : entries_) highest = std::max(highest, time);
  return highest;
}

std::string ConflictId(const RecordKey& key, const CellPath& path, const Version& lost_version) {
  std::string text;
  AppendKey(key, text);
  AppendPath(path, text);
  AppendFixed64(lost_version.time.ticks, text);
  AppendFixed64(lost_version.replica.value, text);
  return Sha256(text).substr(0, 16);
}

const Cell* Record::Find(const CellPath& path) const {
  auto it = std::lower_bound(cells.begin(), cells.end(), path,
                             [](const Cell& c, const CellPath& p) { return c.path < p; });
  return it != cells.end() && it->path == path ? &*it : nullptr;
}

void Record::Put(Cell cell) {
  auto it = std::lower_bound(cells.begin(), cells.end(), cell.path,
                             [](const Cell& c, const CellPath& p) { return c.path < p; });
  if (it != cells.end() && it->path == cell.path) {
    *it = std::move(cell);
  } else {
    cells.insert(it, std::move(cell));
  }
}

bool Record::live() const {
  if (erased || cells.empty()) return false;
  const Cell* existence = Find(CellPath::Existence());
  if (existence == nullptr || existence->value != DeletedValue()) return true;
  return std::any_of(cells.begin(), cells.end(),
                     [&](const Cell& c) { return c.version > existence->version; });
}

void Record::Erase() {
  erased = true;
  cells.clear();
  conflicts.clear();
}

}  // namespace chaptersync::storage
