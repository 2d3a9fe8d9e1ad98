// SPDX-License-Identifier: Apache-2.0
//
// Writes and reads the byte grammar of record_codec.h. Reading trusts nothing:
// every count, index, order and reference is checked. Pure; any thread.
#include "storage/core/record_codec.h"

#include <algorithm>
#include <tuple>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "storage/core/limits.h"
#include "storage/core/status.h"

namespace chaptersync::storage {
namespace {

constexpr uint64_t kFlagErased = 1;
constexpr uint64_t kFlagPartial = 2;
constexpr uint64_t kFlagScopes = 4;
constexpr uint64_t kFlagLearned = 8;
constexpr uint64_t kFlagAgain = 16;
constexpr uint64_t kFlagsAll = 31;

// What the writing side needs to know beyond the update itself.
class Encoder {
 public:
  Encoder(const RecordUpdate& update, bool learned, std::string& out)
      : record_(update.state), update_(update), learned_(learned), out_(out) {}

  void Run() {
    CollectReplicas();
    CollectWrites();
    AppendVarint((record_.erased ? kFlagErased : 0) | (update_.whole ? 0 : kFlagPartial) |
                     (update_.named_scopes.empty() ? 0 : kFlagScopes) |
                     (learned_ ? kFlagLearned : 0) | (update_.again ? kFlagAgain : 0),
                 out_);
    AppendVarint(replicas_.size(), out_);
    for (const ReplicaId& replica : replicas_) AppendFixed64(replica.value, out_);
    AppendVarint(writes_.size(), out_);
    for (const Cell* write : writes_) {
      PutVersion(write->version);
      AppendString(write->actor, out_);
      if (learned_) AppendVarint(LearnedOf(write->version), out_);
    }
    AppendVarint(record_.cells.size(), out_);
    for (const Cell& cell : record_.cells) PutCell(cell);
    PutSeen(record_.seen);
    AppendVarint(record_.conflicts.size(), out_);
    for (const ConflictEntry& entry : record_.conflicts) PutConflict(entry);
    if (!update_.whole) PutSeen(update_.base);
    if (!update_.named_scopes.empty()) {
      AppendVarint(update_.named_scopes.size(), out_);
      for (const Scope& scope : update_.named_scopes) AppendString(scope.name, out_);
    }
  }

 private:
  void CollectReplicas() {
    for (const auto& [replica, time] : record_.seen.entries()) replicas_.push_back(replica);
    for (const auto& [replica, time] : update_.base.entries()) replicas_.push_back(replica);
    for (const Cell& cell : record_.cells) replicas_.push_back(cell.version.replica);
    for (const ConflictEntry& entry : record_.conflicts) {
      replicas_.push_back(entry.lost_version.replica);
      replicas_.push_back(entry.current_version.replica);
      replicas_.push_back(entry.found_by);
      for (const SettlementEntry& s : entry.settlements) replicas_.push_back(s.version.replica);
    }
    std::sort(replicas_.begin(), replicas_.end());
    replicas_.erase(std::unique(replicas_.begin(), replicas_.end()), replicas_.end());
  }

  static bool WriteLess(const Cell* a, const Cell* b) {
    return std::tie(a->version, a->actor) < std::tie(b->version, b->actor);
  }

  void CollectWrites() {
    for (const Cell& cell : record_.cells) writes_.push_back(&cell);
    std::sort(writes_.begin(), writes_.end(), WriteLess);
    writes_.erase(std::unique(writes_.begin(), writes_.end(),
                              [](const Cell* a, const Cell* b) {
                                return a->version == b->version && a->actor == b->actor;
                              }),
                  writes_.end());
  }

  uint64_t LearnedOf(const Version& version) const {
    uint64_t learned = 0;
    for (const Cell& cell : record_.cells) {
      if (cell.version == version) learned = std::max(learned, cell.learned.value);
    }
    return learned;
  }

  void PutIndex(ReplicaId replica) {
    AppendVarint(
        static_cast<uint64_t>(std::lower_bound(replicas_.begin(), replicas_.end(), replica) -
                              replicas_.begin()),
        out_);
  }

  void PutVersion(const Version& version) {
    PutIndex(version.replica);
    AppendFixed64(version.time.ticks, out_);
  }

  void PutCell(const Cell& cell) {
    AppendVarint(uint64_t{cell.path.field} * 4 + (cell.path.map_key ? 2 : 0) + (cell.value ? 1 : 0),
                 out_);
    if (cell.path.map_key) AppendString(*cell.path.map_key, out_);
    AppendVarint(
        static_cast<uint64_t>(std::lower_bound(writes_.begin(), writes_.end(), &cell, WriteLess) -
                              writes_.begin()),
        out_);
    if (cell.value) AppendString(*cell.value, out_);
  }

  void PutSeen(const Seen& seen) {
    AppendVarint(seen.entries().size(), out_);
    for (const auto& [replica, time] : seen.entries()) PutVersion({time, replica});
  }

  void PutConflict(const ConflictEntry& e) {
    AppendVarint(uint64_t{e.path.field} * 8 + (e.path.map_key ? 4 : 0) + (e.lost_value ? 2 : 0) +
                     (e.current_value ? 1 : 0),
                 out_);
    if (e.path.map_key) AppendString(*e.path.map_key, out_);
    PutVersion(e.lost_version);
    AppendString(e.lost_actor, out_);
    if (e.lost_value) AppendString(*e.lost_value, out_);
    PutVersion(e.current_version);
    AppendString(e.current_actor, out_);
    if (e.current_value) AppendString(*e.current_value, out_);
    AppendFixed64(e.found_at.ticks, out_);
    PutIndex(e.found_by);
    AppendVarint(e.settlements.size(), out_);
    for (const SettlementEntry& s : e.settlements) {
      PutVersion(s.version);
      AppendString(s.actor, out_);
      AppendVarint(static_cast<uint64_t>(s.choice), out_);
    }
  }

  const Record& record_;
  const RecordUpdate& update_;
  const bool learned_;
  std::string& out_;
  std::vector<ReplicaId> replicas_;
  std::vector<const Cell*> writes_;
};

class Decoder {
 public:
  // What this replica stored itself is bounded by its bytes alone: a merge of two
  // records within the limits may be above them.
  Decoder(std::string_view bytes, bool stored) : in_(bytes), stored_(stored) {}

  // Empty when all is well, else what is wrong.
  std::string Run(RecordUpdate& update, bool learned) {
    Record& record = update.state;
    const uint64_t flags = in_.Varint();
    if (flags > kFlagsAll) {
      return absl::StrCat("flags ", flags, " are not known (0 to ", kFlagsAll, ")");
    }
    if (((flags & kFlagLearned) != 0) != learned) return "positions of versions are misplaced";
    record.erased = (flags & kFlagErased) != 0;
    update.whole = (flags & kFlagPartial) == 0;
    update.again = (flags & kFlagAgain) != 0;
    if (std::string error = ReadTables(learned); !error.empty()) return error;
    if (std::string error = ReadCells(record); !error.empty()) return error;
    if (std::string error = ReadSeen(record.seen); !error.empty()) return error;
    if (std::string error = ReadConflicts(record); !error.empty()) return error;
    if (!update.whole) {
      if (std::string error = ReadSeen(update.base); !error.empty()) return error;
      if (!record.seen.CoversAll(update.base)) return "the base is not part of what was seen";
    }
    if ((flags & kFlagScopes) != 0) {
      const size_t count = in_.Count(kScopesMax, 1);
      for (size_t i = 0; i < count; ++i) {
        update.named_scopes.push_back({std::string(in_.String(kScopeBytesMax))});
      }
    }
    if (!in_.ok()) return "it ends early, or a count or length is over its limit";
    if (!in_.empty()) return absl::StrCat(in_.remaining(), " bytes follow its end");
    return Check(record);
  }

 private:
  std::string ReadTables(bool learned) {
    const size_t replicas = Count(4 * kSeenMax, 8);
    for (size_t i = 0; i < replicas; ++i) {
      replicas_.push_back({in_.Fixed64()});
      if (replicas_.back().value == 0) return "replica id 0 is nobody's";
      if (i > 0 && replicas_[i - 1] >= replicas_[i]) return "replica ids are out of order";
    }
    const size_t writes = Count(kCellsMax, 10);
    for (size_t i = 0; i < writes && in_.ok(); ++i) {
      Cell write;
      write.version = Version_();
      write.actor = std::string(in_.String(kActorBytesMax));
      if (learned) write.learned = {in_.Varint()};
      writes_.push_back(std::move(write));
    }
    return in_.ok() ? "" : "its tables end early, or are over their limits";
  }

  std::string ReadCells(Record& record) {
    const size_t count = Count(kCellsMax, 2);
    record.cells.reserve(count);
    for (size_t i = 0; i < count && in_.ok(); ++i) {
      const uint64_t head = in_.Varint();
      CellPath path;
      if (std::string error = ReadPath(head / 4, (head & 2) != 0, path); !error.empty()) {
        return error;
      }
      const uint64_t write = in_.Varint();
      if (write >= writes_.size()) return absl::StrCat("write ", write, " is not in its table");
      Cell cell = writes_[write];
      cell.path = std::move(path);
      if ((head & 1) != 0) cell.value = std::string(in_.String(kCellBytesMax));
      if (i > 0 && record.cells.back().path >= cell.path) return "cells are out of order";
      if (cell.path.existence() && !ExistenceValue(cell.value)) {
        return "the existence cell holds neither 0 nor 1";
      }
      record.cells.push_back(std::move(cell));
    }
    return "";
  }

  std::string ReadPath(uint64_t field, bool has_key, CellPath& path) {
    if (field > kFieldMax) return absl::StrCat("field ", field, " is above ", kFieldMax);
    path.field = static_cast<uint32_t>(field);
    if (has_key) path.map_key = std::string(in_.String(kMapKeyBytesMax));
    if (path.existence() && has_key) return "the existence cell has a map key";
    return "";
  }

  std::string ReadSeen(Seen& seen) {
    const size_t count = Count(kSeenMax, 9);
    for (size_t i = 0; i < count && in_.ok(); ++i) {
      const Version version = Version_();
      if (seen.Get(version.replica) != HybridTime{}) return "a replica is twice in what was seen";
      seen.Advance(version);
    }
    return "";
  }

  std::string ReadConflicts(Record& record) {
    const size_t count = Count(kConflictsMax, 20);
    for (size_t i = 0; i < count && in_.ok(); ++i) {
      ConflictEntry e;
      const uint64_t head = in_.Varint();
      if (std::string error = ReadPath(head / 8, (head & 4) != 0, e.path); !error.empty()) {
        return error;
      }
      e.lost_version = Version_();
      e.lost_actor = std::string(in_.String(kActorBytesMax));
      if ((head & 2) != 0) e.lost_value = std::string(in_.String(kCellBytesMax));
      e.current_version = Version_();
      e.current_actor = std::string(in_.String(kActorBytesMax));
      if ((head & 1) != 0) e.current_value = std::string(in_.String(kCellBytesMax));
      e.found_at = {in_.Fixed64()};
      e.found_by = Replica();
      const size_t settlements = Count(kSettlementsMax, 11);
      for (size_t j = 0; j < settlements && in_.ok(); ++j) {
        SettlementEntry s;
        s.version = Version_();
        s.actor = std::string(in_.String(kActorBytesMax));
        const uint64_t choice = in_.Varint();
        if (choice < 1 || choice > 3) return absl::StrCat("choice ", choice, " is not 1 to 3");
        s.choice = static_cast<Choice>(choice);
        if (j > 0 && e.settlements.back().version >= s.version) {
          return "settlements are out of order";
        }
        e.settlements.push_back(std::move(s));
      }
      if (e.path.existence() && !ExistenceValue(e.lost_value)) {
        return "a lost deletion holds neither 0 nor 1";
      }
      if (i > 0 && std::tie(record.conflicts.back().path, record.conflicts.back().lost_version) >=
                       std::tie(e.path, e.lost_version)) {
        return "conflicts are out of order";
      }
      record.conflicts.push_back(std::move(e));
    }
    return "";
  }

  static bool ExistenceValue(const std::optional<std::string>& value) {
    return value == DeletedValue() || value == RestoredValue();
  }

  // What no single part can show.
  static std::string Check(const Record& record) {
    if (record.erased && (!record.cells.empty() || !record.conflicts.empty())) {
      return "an erased record holds values";
    }
    for (const Cell& cell : record.cells) {
      if (!record.seen.Covers(cell.version)) return "a cell's version was not seen";
    }
    // The conflict log may tell of writes that this state has not seen: after a refusal a
    // node keeps entries that only another hub knows.
    return "";
  }

  ReplicaId Replica() {
    const uint64_t index = in_.Varint();
    if (index < replicas_.size()) return replicas_[index];
    in_.Fail();
    return {};
  }

  Version Version_() {
    Version version;
    version.replica = Replica();
    version.time = {in_.Fixed64()};
    if (version.time.ticks == 0) in_.Fail();
    return version;
  }

  size_t Count(size_t max, size_t item_bytes) {
    return in_.Count(stored_ ? SIZE_MAX : max, item_bytes);
  }

  Reader in_;
  const bool stored_;
  std::vector<ReplicaId> replicas_;
  std::vector<Cell> writes_;
};

}  // namespace

void AppendVarint(uint64_t value, std::string& out) {
  while (value >= 0x80) {
    out.push_back(static_cast<char>(value | 0x80));
    value >>= 7;
  }
  out.push_back(static_cast<char>(value));
}

void AppendFixed64(uint64_t value, std::string& out) {
  for (int i = 0; i < 8; ++i) out.push_back(static_cast<char>(value >> (8 * i)));
}

void AppendBigEndian64(uint64_t value, std::string& out) {
  for (int i = 7; i >= 0; --i) out.push_back(static_cast<char>(value >> (8 * i)));
}

void AppendString(std::string_view value, std::string& out) {
  AppendVarint(value.size(), out);
  out.append(value);
}

void AppendKey(const RecordKey& key, std::string& out) {
  for (int i = 3; i >= 0; --i) out.push_back(static_cast<char>(key.entity.value >> (8 * i)));
  out.append(reinterpret_cast<const char*>(key.id.bytes.data()), key.id.bytes.size());
}

void AppendPath(const CellPath& path, std::string& out) {
  AppendVarint(uint64_t{path.field} * 2 + (path.map_key ? 1 : 0), out);
  if (path.map_key) AppendString(*path.map_key, out);
}

std::string EncodeKey(const RecordKey& key) {
  std::string out;
  AppendKey(key, out);
  return out;
}

uint64_t Reader::Varint() {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    if (rest_.empty()) break;
    const uint8_t byte = static_cast<uint8_t>(rest_.front());
    rest_.remove_prefix(1);
    if (shift == 63 && byte > 1) break;
    value |= uint64_t{byte & 0x7fu} << shift;
    if (byte < 0x80) return value;
  }
  Fail();
  return 0;
}

uint64_t Reader::Fixed64() {
  const std::string_view bytes = Bytes(8);
  uint64_t value = 0;
  for (size_t i = bytes.size(); i-- > 0;) value = value << 8 | static_cast<uint8_t>(bytes[i]);
  return value;
}

uint64_t Reader::BigEndian64() {
  uint64_t value = 0;
  for (const char byte : Bytes(8)) value = value << 8 | static_cast<uint8_t>(byte);
  return value;
}

std::string_view Reader::String(size_t bytes_max) {
  const uint64_t size = Varint();
  if (size > bytes_max) Fail();
  return Bytes(ok_ ? size : 0);
}

std::string_view Reader::Bytes(size_t count) {
  if (count > rest_.size()) {
    Fail();
    return {};
  }
  const std::string_view bytes = rest_.substr(0, count);
  rest_.remove_prefix(count);
  return bytes;
}

RecordKey Reader::Key() {
  const std::string_view bytes = Bytes(kKeyBytes);
  RecordKey key;
  if (!ok_) return key;
  for (size_t i = 0; i < 4; ++i) {
    key.entity.value = key.entity.value << 8 | static_cast<uint8_t>(bytes[i]);
  }
  std::copy(bytes.begin() + 4, bytes.end(), key.id.bytes.begin());
  return key;
}

CellPath Reader::Path() {
  const uint64_t head = Varint();
  CellPath path;
  if (head / 2 > kFieldMax) Fail();
  path.field = static_cast<uint32_t>(head / 2);
  if ((head & 1) != 0) path.map_key = std::string(String(kMapKeyBytesMax));
  return path;
}

size_t Reader::Count(size_t max, size_t item_bytes) {
  const uint64_t count = Varint();
  if (count <= max && count <= rest_.size() / item_bytes) return count;
  Fail();
  return 0;
}

std::string EncodeUpdate(const RecordUpdate& update) {
  std::string out;
  Encoder(update, false, out).Run();
  return out;
}

bool IsPartial(std::string_view bytes) {
  Reader in(bytes);
  const uint64_t flags = in.Varint();
  return !in.ok() || (flags & kFlagPartial) != 0;
}

absl::StatusOr<RecordUpdate> DecodeUpdate(std::string_view bytes) {
  RecordUpdate update;
  if (bytes.size() > kRecordBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a record of ", bytes.size(), " bytes is over the limit of ", kRecordBytesMax));
  }
  std::string error = Decoder(bytes, false).Run(update, false);
  if (!error.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("a record cannot be read: ", error));
  }
  return update;
}

void AppendRecord(const Record& record, std::string& out) {
  RecordUpdate update;
  update.state = record;
  Encoder(update, true, out).Run();
}

absl::StatusOr<Record> DecodeRecord(std::string_view bytes) {
  RecordUpdate update;
  std::string error = Decoder(bytes, true).Run(update, true);
  if (!error.empty()) {
    return absl::DataLossError(absl::StrCat("a stored record cannot be read: ", error));
  }
  return std::move(update.state);
}

}  // namespace chaptersync::storage
