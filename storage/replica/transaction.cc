// SPDX-License-Identifier: Apache-2.0
//
// Reads, places and seals records; see transaction.h. One thread, with the
// replica's lock held.
#include "storage/replica/transaction.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "storage/core/limits.h"
#include "storage/core/planted.h"
#include "storage/core/status.h"
#include "storage/replica/keys.h"

namespace chaptersync::storage {

absl::StatusOr<std::string> Transaction::Get(Table table, std::string_view key) {
  auto value = engine_.Get(table, key);
  if (!value.ok() && !absl::IsNotFound(value.status()) && status_.ok()) status_ = value.status();
  return value;
}

Transaction::Entry& Transaction::Load(const RecordKey& key) {
  Entry& entry = entries_[key];
  if (entry.loaded) return entry;
  entry.loaded = true;
  auto bytes = Get(Table::kRecord, EncodeKey(key));
  if (!bytes.ok()) return entry;
  auto stored = DecodeStored(*bytes);
  if (!stored.ok()) {
    if (status_.ok()) status_ = stored.status();
    return entry;
  }
  entry.existed = entry.present = true;
  entry.after = *std::move(stored);
  const Record& record = entry.after.record;
  entry.before = {entry.after.meta, record.conflicts, Digested(key, entry.after), record.live(),
                  record.erased};
  return entry;
}

StoredRecord* Transaction::Find(const RecordKey& key) {
  Entry& entry = Load(key);
  return entry.present ? &entry.after : nullptr;
}

StoredRecord& Transaction::Make(const RecordKey& key) {
  Entry& entry = Load(key);
  entry.present = true;
  return entry.after;
}

void Transaction::Touch(const RecordKey& key) {
  Entry& entry = Load(key);
  if (entry.touched) return;
  entry.touched = true;
  order_.push_back(key);
}

void Transaction::Remove(const RecordKey& key) {
  Touch(key);
  Entry& entry = Load(key);
  entry.present = false;
  entry.after = {};
}

void Transaction::Forget(const RecordKey& key) {
  Entry& entry = Load(key);
  if (entry.touched || entry.existed) return;
  entry.present = false;
  entry.after = {};
}

bool Transaction::touched(const RecordKey& key) const {
  auto it = entries_.find(key);
  return it != entries_.end() && it->second.touched;
}

bool Transaction::Erases(const RecordKey& key) const {
  const auto it = entries_.find(key);
  if (it == entries_.end() || !it->second.touched) return false;
  const Entry& entry = it->second;
  return entry.present && entry.after.record.erased && !(entry.existed && entry.before.erased);
}

bool Transaction::erases_anything() const {
  return std::any_of(order_.begin(), order_.end(), [&](const auto& key) { return Erases(key); });
}

const std::set<Scope>& Transaction::Placement(const RecordKey& key) {
  Entry& entry = Load(key);
  if (!entry.placed) {
    entry.placed = true;
    entry.placement = Resolve(key, 0).scopes;
  }
  return entry.placement;
}

bool Transaction::Misplaced(const RecordKey& key) {
  const StoredRecord* stored = Find(key);
  if (stored == nullptr || stored->record.erased) return false;
  const std::vector<Scope> current = stored->meta.Current();
  const Resolution resolution = Resolve(key, 0);
  return resolution.scopes != std::set<Scope>(current.begin(), current.end()) ||
         resolution.leaders != stored->meta.leaders;
}

void Transaction::TellLeft(const RecordKey& key, const Scope& scope) {
  Placement(key);
  Touch(key);
  Load(key).tell_left.insert(scope);
}

Transaction::Resolution Transaction::Resolve(const RecordKey& key, int depth) {
  Resolution out;
  const StoredRecord* stored = Find(key);
  if (stored == nullptr) {
    out.absent = true;
    return out;
  }
  if (stored->record.erased) {
    out.erased = true;
    return out;
  }
  auto rule = options_.entities.find(key.entity);
  // A node takes its hub's word for it; hubs that have a rule each decide by their own.
  if (!stored->meta.named.empty() && (!options_.hub || rule == options_.entities.end())) {
    out.scopes.insert(stored->meta.named.begin(), stored->meta.named.end());
    return out;
  }
  if (rule == options_.entities.end()) return out;
  OwnScopes own = Apply(rule->second.scope, stored->record);
  out.scopes = std::move(own.scopes);
  out.leaders = std::move(own.leaders);
  for (const RecordKey& leader : out.leaders) {
    if (depth >= kFollowDepthMax) {
      out.scopes.insert(Scope::Hq());
      continue;
    }
    Resolution above = Resolve(leader, depth + 1);
    if (above.erased) out.erased = true;
    out.scopes.insert(above.scopes.begin(), above.scopes.end());
  }
  return out;
}

std::vector<RecordKey> Transaction::Followers(const RecordKey& leader) {
  std::vector<RecordKey> followers;
  const std::string prefix = keys::FollowerPrefix(leader);
  auto snapshot = engine_.NewSnapshot();
  auto it = snapshot->NewIterator(Table::kIndex, prefix, keys::PrefixEnd(prefix));
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    Reader reader(it->key().substr(prefix.size()));
    followers.push_back(reader.Key());
  }
  if (!it->status().ok() && status_.ok()) status_ = it->status();
  return followers;
}

absl::Status Transaction::Place() {
  // order_ grows while it is walked: followers that move are placed as well.
  for (size_t i = 0; i < order_.size() && status_.ok(); ++i) {
    const RecordKey key = order_[i];
    Entry& entry = Load(key);
    if (!entry.present) continue;
    Resolution resolution = Resolve(key, 0);
    if (resolution.erased && !entry.after.record.erased) {
      // Whoever sent it has another state, and must hear of this one.
      entry.after.record.Erase();
      entry.after.meta.origin = {};
    }
    entry.placed = true;
    entry.placement = std::move(resolution.scopes);
    entry.leaders = std::move(resolution.leaders);
    const std::vector<Scope> current = entry.before.meta.Current();
    const bool moved = !entry.existed || entry.before.erased != entry.after.record.erased ||
                       std::set<Scope>(current.begin(), current.end()) != entry.placement;
    // How deep those below are may decide where they are: by the way through what has
    // moved, also where this record stays because of another way.
    if (!moved && (entry.before.meta.leaders != entry.leaders || entry.leader_moved)) {
      PlaceBelow(key, 1);
    }
    if (!moved) continue;
    const bool moved_only = entry.existed && !entry.after.record.erased;
    if (IsPlanted(Planted::kFollowerLeftBehind) && moved_only) continue;
    for (const RecordKey& follower : Followers(key)) {
      StoredRecord* stored = Find(follower);
      if (stored == nullptr) continue;
      Entry& below = Load(follower);
      below.leader_moved = true;
      if (below.touched) {
        if (below.placed) PlaceBelow(follower, 1);
        continue;
      }
      // Also who sent it must hear where it is now.
      stored->meta.origin = {};
      Touch(follower);
    }
  }
  return status_;
}

void Transaction::PlaceBelow(const RecordKey& leader, int depth) {
  if (depth > kFollowDepthMax + 1) return;
  for (const RecordKey& follower : Followers(leader)) {
    StoredRecord* stored = Find(follower);
    if (stored == nullptr) continue;
    const std::vector<Scope> current = stored->meta.Current();
    if (!touched(follower) &&
        Resolve(follower, 0).scopes != std::set<Scope>(current.begin(), current.end())) {
      stored->meta.origin = {};
      Touch(follower);
      Load(follower).leader_moved = true;
    } else {
      PlaceBelow(follower, depth + 1);
    }
  }
}

Sequence Transaction::Seal(Sequence last, Mark mark) {
  for (const RecordKey& key : order_) {
    ++last.value;
    Entry& entry = Load(key);
    SealRecord(key, entry, last);
    entry.before = {};
    entry.after = {};
  }
  if (!order_.empty()) {
    std::string bytes;
    AppendFixed64(mark.value, bytes);
    batch_.Put(Table::kMeta, keys::Mark(last), bytes);
  }
  return last;
}

void Transaction::SealRecord(const RecordKey& key, Entry& entry, Sequence sequence) {
  const std::string key_bytes = EncodeKey(key);
  if (entry.existed) {
    const RecordMeta& before = entry.before.meta;
    batch_.Delete(Table::kFeed, keys::Feed(Scope::All(), before.latest));
    if (entry.present) {
      moved_.push_back({before.origin, entry.after.meta.origin, before.latest, sequence});
    }
  }
  SealPositions(entry, sequence, key_bytes);
  SealLeaders(key, entry);
  SealConflicts(key, entry);
  if (entry.present) {
    entry.after.meta.latest = sequence;
    for (Cell& cell : entry.after.record.cells) {
      if (cell.learned == Sequence{}) cell.learned = sequence;
    }
    batch_.Put(Table::kFeed, keys::Feed(Scope::All(), sequence), key_bytes);
    batch_.Put(Table::kRecord, key_bytes, EncodeStored(entry.after));
  } else {
    batch_.Delete(Table::kRecord, key_bytes);
  }
  if (entry.present || !IsPlanted(Planted::kDigestKeptOnDrop)) {
    digest_changes_.push_back(
        {.key = key,
         .latest = entry.existed ? entry.before.meta.latest : Sequence{},
         .before = std::move(entry.before.digested),
         .after = entry.present ? Digested(key, entry.after) : DigestedState{}});
  }
  residue_ |= entry.existed && (!entry.present || entry.after.record.erased);
  AddEvent(key, entry);
}

void Transaction::SealPositions(Entry& entry, Sequence sequence, const std::string& key_bytes) {
  RecordMeta& meta = entry.after.meta;
  std::vector<ScopePosition> positions = entry.before.meta.scopes;
  const auto at = [&positions](const Scope& scope) -> ScopePosition& {
    for (ScopePosition& position : positions) {
      if (position.scope == scope) return position;
    }
    positions.push_back({.scope = scope, .at = {}, .entered = {}, .left = true});
    return positions.back();
  };
  std::set<Scope> moved;  // scopes whose feed tells of the record anew
  const bool erased = entry.present && entry.after.record.erased;
  if (erased) {
    for (const ScopePosition& position : positions) moved.insert(position.scope);
  } else if (entry.present) {
    for (const Scope& scope : entry.placement) {
      ScopePosition& position = at(scope);
      if (position.left) {
        position.returned = position.at != Sequence{};
        position.entered = sequence;
      }
      if (entry.tell_whole) position.entered = sequence;
      position.left = position.withheld = false;
      moved.insert(scope);
    }
    const bool unplaced = entry.placement.empty();
    // While it had no place, feeds passed over it, also where they were to tell that it left.
    const bool found_place = entry.existed && !unplaced && entry.before.meta.unplaced();
    for (ScopePosition& position : positions) {
      if (entry.placement.contains(position.scope)) continue;
      // Holders are told once it is known where else the record is.
      if (position.left && !found_place) continue;
      position.left = true;
      position.withheld = unplaced;
      moved.insert(position.scope);
    }
  }
  // Who brought it while it had no place learns that its place is elsewhere, or that it
  // was erased.
  if (entry.present && (erased || !entry.placement.empty())) {
    for (const Scope& pusher : meta.pushers) {
      if (!entry.placement.contains(pusher) && !entry.placement.contains(Scope::Global())) {
        entry.tell_left.insert(pusher);
      }
    }
    meta.pushers.clear();
    meta.maker = {};
  }
  for (const Scope& scope : entry.tell_left) {
    at(scope);
    moved.insert(scope);
  }
  for (ScopePosition& position : positions) {
    const bool gone = !entry.present;
    if (!gone && !moved.contains(position.scope)) continue;
    if (options_.hub && position.at != Sequence{}) {
      batch_.Delete(Table::kFeed, keys::Feed(position.scope, position.at));
    }
    position.at = sequence;
    if (options_.hub && !gone) {
      batch_.Put(Table::kFeed, keys::Feed(position.scope, sequence), key_bytes);
    }
  }
  meta.scopes = std::move(positions);
  if (!options_.hub) std::erase_if(meta.scopes, [](const ScopePosition& p) { return p.left; });
}

void Transaction::SealLeaders(const RecordKey& key, const Entry& entry) {
  std::vector<RecordKey> now = entry.present ? entry.leaders : std::vector<RecordKey>{};
  for (const RecordKey& leader : entry.before.meta.leaders) {
    if (std::find(now.begin(), now.end(), leader) == now.end()) {
      batch_.Delete(Table::kIndex, keys::Follower(leader, key));
    }
  }
  for (const RecordKey& leader : now) batch_.Put(Table::kIndex, keys::Follower(leader, key), "");
  entries_[key].after.meta.leaders = std::move(now);
}

void Transaction::SealConflicts(const RecordKey& key, const Entry& entry) {
  const auto& before = entry.before.conflicts;
  const auto& after = entry.after.record.conflicts;
  const auto less = [](const ConflictEntry& a, const ConflictEntry& b) {
    return std::tie(a.path, a.lost_version) < std::tie(b.path, b.lost_version);
  };
  const auto remove = [&](const ConflictEntry& e, const std::string& id) {
    batch_.Delete(Table::kIndex, keys::ConflictById(id));
    batch_.Delete(Table::kIndex, keys::ConflictByTime(e.found_at, id));
    if (e.open()) batch_.Delete(Table::kIndex, keys::OpenConflict(e.found_at, id));
  };
  auto x = before.begin();
  auto y = after.begin();
  while (x != before.end() || y != after.end()) {
    const bool only_before = y == after.end() || (x != before.end() && less(*x, *y));
    const bool only_after = x == before.end() || (y != after.end() && less(*y, *x));
    const ConflictEntry& e = only_before ? *x : *y;
    const std::string id = ConflictId(key, e.path, e.lost_version);
    if (only_before) {
      remove(*x++, id);
      continue;
    }
    if (!only_after) {
      const bool same = x->found_at == y->found_at && x->open() == y->open();
      if (!same) remove(*x, id);
      ++x;
      if (same) {
        ++y;
        continue;
      }
    }
    std::string where = EncodeKey(key);
    AppendBigEndian64(e.found_at.ticks, where);
    AppendPath(e.path, where);
    AppendFixed64(e.lost_version.time.ticks, where);
    AppendFixed64(e.lost_version.replica.value, where);
    batch_.Put(Table::kIndex, keys::ConflictById(id), where);
    batch_.Put(Table::kIndex, keys::ConflictByTime(e.found_at, id), "");
    if (e.open()) batch_.Put(Table::kIndex, keys::OpenConflict(e.found_at, id), "");
    ++y;
  }
}

void Transaction::AddEvent(const RecordKey& key, const Entry& entry) {
  const bool was_live = entry.existed && entry.before.live;
  const bool is_live = entry.present && entry.after.record.live();
  if (was_live != is_live) live_changes_[key.entity] += is_live ? 1 : -1;
  ChangeKind kind = ChangeKind::kChanged;
  if (!entry.present) {
    if (!entry.existed) return;
    kind = ChangeKind::kDropped;
  } else if (entry.after.record.erased) {
    if (entry.existed && entry.before.erased) return;
    kind = ChangeKind::kErased;
  } else if (!entry.existed) {
    kind = ChangeKind::kCreated;
  } else if (was_live != is_live) {
    kind = is_live ? ChangeKind::kRestored : ChangeKind::kDeleted;
  }
  events_.push_back({key, kind});
}

}  // namespace chaptersync::storage
