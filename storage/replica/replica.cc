// SPDX-License-Identifier: Apache-2.0
//
// Opening a replica, local writes, reads, the conflict log's and the refused
// writes' lists. The exchange with peers is in replica_handshake.cc, replica_feed.cc,
// replica_apply.cc, replica_hubs.cc and replica_stamps.cc.
#include "storage/replica/replica.h"

#include <algorithm>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

#include "storage/core/digest.h"
#include "storage/core/limits.h"
#include "storage/core/planted.h"
#include "storage/core/record_codec.h"
#include "storage/core/status.h"
#include "storage/replica/hub_epochs.h"
#include "storage/replica/keys.h"
#include "storage/replica/transaction.h"

namespace chaptersync::storage {
namespace {

constexpr uint8_t kFormatNumber = 1;
// Fewer ids than this are no choice: computers that take one each would take the same.
constexpr uint64_t kIdsApart = uint64_t{1} << 20;

// For Planted::kFeedInAnotherBatch.
absl::Status WriteFeedApart(Engine& engine, const WriteBatch& batch) {
  WriteBatch parts[2];
  for (const WriteBatch::Operation& operation : batch.operations()) {
    WriteBatch& part = parts[operation.table == Table::kFeed ? 1 : 0];
    switch (operation.kind) {
      case WriteBatch::Kind::kPut:
        part.Put(operation.table, operation.key, operation.value);
        break;
      case WriteBatch::Kind::kDelete:
        part.Delete(operation.table, operation.key);
        break;
      case WriteBatch::Kind::kDeleteRange:
        part.DeleteRange(operation.table, operation.key, operation.value);
        break;
    }
  }
  CHAPTER_RETURN_IF_ERROR(engine.Write(parts[0]));
  return engine.Write(parts[1]);
}

// An upper bound of the record's encoded size that costs no encoding.
size_t ApproximateBytes(const Record& record) {
  size_t bytes = 64 + 17 * record.seen.entries().size();
  const auto value = [](const std::optional<std::string>& v) { return v ? v->size() : 0; };
  for (const Cell& cell : record.cells) {
    bytes += 48 + cell.actor.size() + value(cell.value);
    if (cell.path.map_key) bytes += cell.path.map_key->size();
  }
  for (const ConflictEntry& e : record.conflicts) {
    bytes += 96 + e.lost_actor.size() + e.current_actor.size() + value(e.lost_value) +
             value(e.current_value) + 160 * e.settlements.size();
    if (e.path.map_key) bytes += e.path.map_key->size();
  }
  return bytes;
}

}  // namespace

std::string OverLimit(const Record& record) {
  if (record.cells.size() > kCellsMax) {
    return absl::StrCat(record.cells.size(), " fields (at most ", kCellsMax, ")");
  }
  if (record.conflicts.size() > kConflictsMax) {
    return absl::StrCat(record.conflicts.size(), " conflicts (at most ", kConflictsMax, ")");
  }
  if (record.seen.entries().size() > kSeenMax) {
    return absl::StrCat(record.seen.entries().size(), " writers (at most ", kSeenMax, ")");
  }
  for (const ConflictEntry& entry : record.conflicts) {
    if (entry.settlements.size() > kSettlementsMax) {
      return absl::StrCat("a conflict with ", entry.settlements.size(), " settlements (at most ",
                          kSettlementsMax, ")");
    }
  }
  const size_t bytes = ApproximateBytes(record);
  if (bytes > kRecordBytesMax) {
    return absl::StrCat("about ", bytes, " bytes (at most ", kRecordBytesMax, ")");
  }
  return "";
}

namespace {

absl::Status CheckCells(const std::vector<CellWrite>& cells) {
  for (const CellWrite& cell : cells) {
    if (cell.path.existence() || cell.path.field > kFieldMax) {
      return absl::InvalidArgumentError(
          absl::StrCat("field number ", cell.path.field, " is not allowed (1 to ", kFieldMax, ")"));
    }
    if (cell.path.map_key && cell.path.map_key->size() > kMapKeyBytesMax) {
      return absl::InvalidArgumentError(
          absl::StrCat("a map key of ", cell.path.map_key->size(), " bytes in field ",
                       cell.path.field, " is too long (at most ", kMapKeyBytesMax, ")"));
    }
    if (cell.value && cell.value->size() > kCellBytesMax) {
      return absl::InvalidArgumentError(absl::StrCat("a value of ", cell.value->size(),
                                                     " bytes in field ", cell.path.field,
                                                     " is too long (at most ", kCellBytesMax, ")"));
    }
  }
  return absl::OkStatus();
}

// None: all.
std::optional<std::set<Scope>> ScopesHeld(const ReplicaOptions& options) {
  if (options.hub) return std::nullopt;
  return std::set<Scope>{Scope::Global(), Scope::Chapter(options.chapter)};
}

// By which rules records are placed, as under keys::kRules.
std::string EncodeRules(const ReplicaOptions& options) {
  std::string rules;
  for (const auto& [entity, rule] : options.entities) {
    AppendVarint(entity.value, rules);
    AppendFixed64(rule.fingerprint, rules);
  }
  return rules;
}

// What of `cells` is news: writing what a field already holds is no write.
std::vector<const CellWrite*> Changes(const Record& record, const std::vector<CellWrite>& cells) {
  std::map<CellPath, const CellWrite*> last;
  for (const CellWrite& cell : cells) last[cell.path] = &cell;
  std::vector<const CellWrite*> news;
  for (const auto& [path, write] : last) {
    const Cell* held = record.Find(path);
    if ((held == nullptr ? std::nullopt : held->value) != write->value) news.push_back(write);
  }
  return news;
}

}  // namespace

Replica::Replica(Engine& engine, Environment& environment, ReplicaOptions options)
    : engine_(engine),
      environment_(environment),
      options_(std::move(options)),
      digests_(ScopesHeld(options_), options_.digest_changes_min) {}

absl::StatusOr<std::unique_ptr<Replica>> Replica::Open(Engine& engine, Environment& environment,
                                                       ReplicaOptions options) {
  if (!options.hub && (options.chapter.empty() || options.chapter.size() + 8 > kScopeBytesMax)) {
    return absl::InvalidArgumentError(absl::StrCat("chapter '", options.chapter, "' is not 1 to ",
                                                   kScopeBytesMax - 8, " bytes long"));
  }
  std::unique_ptr<Replica> replica(new Replica(engine, environment, std::move(options)));
  CHAPTER_RETURN_IF_ERROR(replica->Load());
  return replica;
}

absl::Status Replica::Load() {
  absl::MutexLock lock(&mutex_);
  auto format = engine_.Get(Table::kMeta, keys::kFormat);
  if (absl::IsNotFound(format.status()) && options_.must_exist) {
    return absl::DataLossError("the database is empty, and there was a replica in it");
  }
  if (absl::IsNotFound(format.status())) {
    identity_.replica = options_.replica_id.value_or(ReplicaId{environment_.Random() | 1});
    identity_.epoch = {environment_.Random() | 1};
    identity_.own = {identity_.replica};
    WriteBatch batch;
    batch.Put(Table::kMeta, keys::kFormat,
              std::string{static_cast<char>(kFormatNumber), options_.hub ? 'h' : 'n'});
    PutIdentity(batch);
    batch.Put(Table::kMeta, keys::kRules, EncodeRules(options_));
    if (options_.hub && !options_.replica_id) writer_ = NewId();
    CHAPTER_RETURN_IF_ERROR(engine_.Write(batch));
    return engine_.Sync();
  }
  CHAPTER_RETURN_IF_ERROR(format.status());
  if (format->size() != 2 || (*format)[0] != static_cast<char>(kFormatNumber)) {
    return absl::FailedPreconditionError(
        absl::StrCat("the data is of format ", format->empty() ? 0 : (*format)[0],
                     ", this program reads format ", kFormatNumber));
  }
  if (((*format)[1] == 'h') != options_.hub) {
    return absl::FailedPreconditionError(options_.hub ? "the data is a node's, not a hub's"
                                                      : "the data is a hub's, not a node's");
  }
  CHAPTER_ASSIGN_OR_RETURN(const std::string identity, engine_.Get(Table::kMeta, keys::kIdentity));
  Reader in(identity);
  identity_.replica = {in.Fixed64()};
  identity_.epoch = {in.Fixed64()};
  identity_.clock_offset_ms = static_cast<int64_t>(in.Fixed64());
  const size_t own = in.Count(1 << 20, 8);
  for (size_t i = 0; i < own; ++i) identity_.own.push_back({in.Fixed64()});
  // An earlier build wrote neither these nor the last stamp below.
  const size_t copied = in.empty() ? 0 : in.Count(1 << 20, 8);
  for (size_t i = 0; i < copied; ++i) identity_.copied.push_back({in.Fixed64()});
  CHAPTER_ASSIGN_OR_RETURN(const std::string state, engine_.Get(Table::kMeta, keys::kState));
  Reader state_in(state);
  clock_ = HybridClock({state_in.Fixed64()});
  last_sequence_ = {state_in.Fixed64()};
  refused_last_ = state_in.Fixed64();
  if (!state_in.empty()) identity_.last_stamp = {state_in.Fixed64()};
  if (!in.ok() || !state_in.ok()) return absl::DataLossError("the replica's identity is damaged");
  {
    absl::MutexLock durable_lock(&durable_mutex_);
    durable_sequence_ = last_sequence_;
  }
  auto snapshot = engine_.NewSnapshot();
  const std::string leaving(1, keys::kLeavingKind);
  auto it = snapshot->NewIterator(Table::kMeta, leaving, keys::PrefixEnd(leaving));
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    leaving_.insert(Reader(it->key().substr(1)).Key());
  }
  CHAPTER_RETURN_IF_ERROR(it->status());
  if (options_.hub) {
    if (!options_.replica_id) writer_ = NewId();
    const std::string epochs(1, keys::kHubEpochsKind);
    it = snapshot->NewIterator(Table::kMeta, epochs, keys::PrefixEnd(epochs));
    for (it->SeekToFirst(); it->Valid(); it->Next()) {
      NodeId hub;
      const std::string_view id = it->key().substr(1, hub.bytes.size());
      std::copy(id.begin(), id.end(), hub.bytes.begin());
      if (hubs_.size() < kHubsMax) hubs_[hub] = DecodeHubEpochs(it->value());
    }
    CHAPTER_RETURN_IF_ERROR(it->status());
    CHAPTER_RETURN_IF_ERROR(LoadApprovals());
  }
  const std::string count(1, keys::kLiveCountKind);
  it = snapshot->NewIterator(Table::kMeta, count, keys::PrefixEnd(count));
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    const uint64_t entity = Reader(it->key().substr(1)).BigEndian64();
    live_counts_[{static_cast<uint32_t>(entity)}] = Reader(it->value()).Fixed64();
  }
  CHAPTER_RETURN_IF_ERROR(it->status());
  const auto residue = snapshot->Get(Table::kMeta, keys::kResidue);
  if (!residue.ok() && !absl::IsNotFound(residue.status())) return residue.status();
  residue_last_ = residue.ok() ? 1 : 0;
  CHAPTER_RETURN_IF_ERROR(digests_.Load(engine_, last_sequence_));
  if (options_.copied && !IsPlanted(Planted::kCopyNotNoticed)) {
    if (IsPlanted(Planted::kVersionsReused)) {
      identity_.epoch = {environment_.Random() | 1};
    } else {
      identity_.copied.push_back(identity_.replica);
      NewIdentity(true);
    }
    WriteBatch batch;
    PutIdentity(batch);
    CHAPTER_RETURN_IF_ERROR(engine_.Write(batch));
    CHAPTER_RETURN_IF_ERROR(engine_.Sync());
  }
  return PlaceByNewRules();
}

absl::Status Replica::PlaceByNewRules() {
  const std::string rules = EncodeRules(options_);
  auto known = engine_.Get(Table::kMeta, keys::kRules);
  if (!known.ok() && !absl::IsNotFound(known.status())) return known.status();
  if (known.ok() && *known == rules) return absl::OkStatus();
  std::map<EntityNumber, uint64_t> before;
  if (known.ok()) {
    Reader in(*known);
    while (in.ok() && !in.empty()) {
      const EntityNumber entity{static_cast<uint32_t>(in.Varint())};
      before[entity] = in.Fixed64();
    }
  }
  for (const auto& [entity, rule] : options_.entities) {
    auto it = before.find(entity);
    if (it != before.end() && it->second == rule.fingerprint) continue;
    CHAPTER_RETURN_IF_ERROR(PlaceAnew(entity));
  }
  // Last: what was interrupted begins again.
  WriteBatch batch;
  batch.Put(Table::kMeta, keys::kRules, rules);
  CHAPTER_RETURN_IF_ERROR(engine_.Write(batch));
  return engine_.Sync();
}

absl::Status Replica::PlaceAnew(EntityNumber entity) {
  const std::string prefix = EncodeKey({entity, {}}).substr(0, 4);
  auto snapshot = engine_.NewSnapshot();
  auto it = snapshot->NewIterator(Table::kRecord, prefix, keys::PrefixEnd(prefix));
  it->SeekToFirst();
  while (it->Valid()) {
    Transaction transaction(engine_, options_);
    for (size_t i = 0; i < kBatchWritesMax && it->Valid(); ++i, it->Next()) {
      const RecordKey key = Reader(it->key()).Key();
      if (!transaction.Misplaced(key)) continue;
      transaction.Find(key)->meta.origin = {};
      transaction.Touch(key);
    }
    CHAPTER_RETURN_IF_ERROR(transaction.Place());
    if (transaction.anything_touched()) CHAPTER_RETURN_IF_ERROR(Commit(transaction));
  }
  return it->status();
}

// The upper half of the id stays, so that what is stamped again under its old time keeps its
// order among writes of the same time: whether a deletion stands may hang on it.
ReplicaId Replica::NewId(const IdRange& between) {
  constexpr uint64_t kLowerHalf = (uint64_t{1} << kLineageShift) - 1;
  const uint64_t base = identity_.replica.value & ~kLowerHalf;
  uint64_t first = std::max(between.above.value + 1, base);
  uint64_t last = std::min(between.below.value - 1, base | kLowerHalf);
  // Where there is next to no room it may be any: two computers must not take the same.
  if (first > last || last - first < kIdsApart) {
    first = base;
    last = base | kLowerHalf;
  }
  ReplicaId id = identity_.replica;
  while (Own(id) || id.value > last) {
    id = {(first + environment_.Random() % (last - first + 1)) | 1};
  }
  return id;
}

void IdRange::Keep(ReplicaId old, ReplicaId other) {
  if (other < old) above = std::max(above, other);
  if (old < other) below = std::min(below, other);
}

void Replica::NewIdentity(bool new_epoch, const IdRange& between) {
  identity_.replica = NewId(between);
  identity_.last_stamp = {};
  // A snapshot with the program's memory goes back without a start.
  if (new_epoch && writer_ != ReplicaId{}) writer_ = NewId();
  if (new_epoch) identity_.epoch = {environment_.Random() | 1};
  identity_.own.push_back(identity_.replica);
}

void Replica::ChangeIdentity(const IdRange& between) {
  if (std::exchange(identity_changes_, true)) return;
  NewIdentity(false, between);
}

std::string Replica::EncodeIdentity() const {
  std::string out;
  AppendFixed64(identity_.replica.value, out);
  AppendFixed64(identity_.epoch.value, out);
  AppendFixed64(static_cast<uint64_t>(identity_.clock_offset_ms), out);
  AppendVarint(identity_.own.size(), out);
  for (const ReplicaId& id : identity_.own) AppendFixed64(id.value, out);
  AppendVarint(identity_.copied.size(), out);
  for (const ReplicaId& id : identity_.copied) AppendFixed64(id.value, out);
  return out;
}

void Replica::PutIdentity(WriteBatch& batch) const {
  batch.Put(Table::kMeta, keys::kIdentity, EncodeIdentity());
  PutState(batch, last_sequence_);
}

void Replica::PutState(WriteBatch& batch, Sequence last) const {
  std::string out;
  AppendFixed64(clock_.last().ticks, out);
  AppendFixed64(last.value, out);
  AppendFixed64(refused_last_, out);
  AppendFixed64(identity_.last_stamp.ticks, out);
  batch.Put(Table::kMeta, keys::kState, out);
}

absl::Status Replica::Commit(Transaction& transaction) {
  CHAPTER_RETURN_IF_ERROR(transaction.status());
  absl::Cleanup undo = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    approvals_.Undo();
    digests_.Undo();
  };
  CHAPTER_RETURN_IF_ERROR(EraseApprovals(transaction));
  const Sequence last = transaction.Seal(last_sequence_, {environment_.Random() | 1});
  CHAPTER_RETURN_IF_ERROR(transaction.status());
  std::set<RecordKey> erased;
  for (const ChangeEvent& event : transaction.events()) {
    if (event.kind == ChangeKind::kErased && !options_.hub) erased.insert(event.key);
  }
  CHAPTER_RETURN_IF_ERROR(ForgetRefusedOf(transaction, erased));
  PutState(transaction.batch(), last);
  std::map<EntityNumber, uint64_t> counts;
  for (const auto& [entity, change] : transaction.live_changes()) {
    auto known = live_counts_.find(entity);
    const uint64_t before = known == live_counts_.end() ? 0 : known->second;
    counts[entity] = before + static_cast<uint64_t>(change);
    std::string value;
    AppendFixed64(counts[entity], value);
    transaction.batch().Put(Table::kMeta, keys::LiveCount(entity), value);
  }
  if (transaction.leaves_residue()) transaction.batch().Put(Table::kMeta, keys::kResidue, "");
  digests_.Change(transaction.TakeDigestChanges(), last, transaction.batch());
  CHAPTER_RETURN_IF_ERROR(IsPlanted(Planted::kFeedInAnotherBatch)
                              ? WriteFeedApart(engine_, transaction.batch())
                              : engine_.Write(transaction.batch()));
  std::move(undo).Cancel();
  approvals_.Keep();
  digests_.Keep();
  last_sequence_ = last;
  for (auto& [number, watch] : watches_) {
    for (const Transaction::Moved& moved : transaction.moved()) {
      const bool unsent = moved.was_of != watch.peer && moved.is_of != watch.peer;
      if (unsent && watch.acknowledged < moved.from && moved.from <= watch.through) {
        watch.through = moved.to;
      }
    }
  }
  for (const auto& [entity, count] : counts) live_counts_[entity] = count;
  if (transaction.leaves_residue()) ++residue_last_;
  return absl::OkStatus();
}

absl::Status Replica::EnsureDurable(Sequence sequence) {
  {
    absl::MutexLock lock(&durable_mutex_);
    if (durable_sequence_ >= sequence) return absl::OkStatus();
  }
  CHAPTER_RETURN_IF_ERROR(engine_.Sync());
  absl::MutexLock lock(&durable_mutex_);
  durable_sequence_ = std::max(durable_sequence_, sequence);
  return absl::OkStatus();
}

absl::Status Replica::Finish(const std::vector<ChangeEvent>& events, bool applied) {
  Sequence sequence;
  {
    absl::ReaderMutexLock lock(&mutex_);
    sequence = last_sequence_;
  }
  // Also where no record changed: cursors and acknowledgements must be durable.
  if (!(IsPlanted(Planted::kAcknowledgeBeforeSync) && applied)) {
    CHAPTER_RETURN_IF_ERROR(engine_.Sync());
  }
  {
    absl::MutexLock lock(&durable_mutex_);
    durable_sequence_ = std::max(durable_sequence_, sequence);
  }
  if (events.empty()) return absl::OkStatus();
  absl::MutexLock lock(&listeners_mutex_);
  for (const auto& [number, listener] : listeners_) listener(events);
  return absl::OkStatus();
}

ReplicaId Replica::writer_id() const {
  absl::ReaderMutexLock lock(&mutex_);
  return Writer();
}

ReplicaId Replica::replica_id() const {
  absl::ReaderMutexLock lock(&mutex_);
  return identity_.replica;
}

Epoch Replica::epoch() const {
  absl::ReaderMutexLock lock(&mutex_);
  return identity_.epoch;
}

int64_t Replica::clock_offset_ms() const {
  absl::ReaderMutexLock lock(&mutex_);
  return identity_.clock_offset_ms;
}

PeerClock Replica::Clock() const {
  absl::ReaderMutexLock lock(&mutex_);
  return {WallMs(), clock_.last()};
}

uint64_t Replica::WallMs() const {
  const int64_t now = static_cast<int64_t>(environment_.NowMs()) + identity_.clock_offset_ms;
  return now < 0 ? 0 : static_cast<uint64_t>(now);
}

bool Replica::Own(ReplicaId replica) const {
  return std::find(identity_.own.begin(), identity_.own.end(), replica) != identity_.own.end();
}

uint64_t StampHash(const RecordKey& key, const Version& version) {
  std::string text;
  AppendKey(key, text);
  AppendFixed64(version.time.ticks, text);
  AppendFixed64(version.replica.value, text);
  return Reader(Sha256(text)).Fixed64();
}

void Replica::NoteStamp(Transaction& transaction, const RecordKey& key, const Version& version) {
  if (options_.hub) return;
  identity_.last_stamp = std::max(identity_.last_stamp, version.time);
  std::string hash;
  AppendFixed64(StampHash(key, version), hash);
  transaction.batch().Put(Table::kMeta, keys::Stamp(version.time), hash);
}

absl::StatusOr<std::vector<WriteResult>> Replica::Write(const std::vector<LocalWrite>& writes,
                                                        bool dry_run) {
  if (writes.size() > kBatchWritesMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a batch of ", writes.size(), " writes is too large (at most ", kBatchWritesMax, ")"));
  }
  std::vector<WriteResult> results;
  std::vector<ChangeEvent> events;
  {
    absl::MutexLock lock(&mutex_);
    const HybridClock clock_before = clock_;
    Transaction transaction(engine_, options_);
    for (const LocalWrite& write : writes) results.push_back(WriteOne(transaction, write));
    CHAPTER_RETURN_IF_ERROR(transaction.status());
    for (const WriteResult& result : results) {
      if (!absl::IsAborted(result.status)) continue;
      clock_ = clock_before;
      return result.status;
    }
    if (dry_run || !transaction.anything_touched()) {
      clock_ = clock_before;
      return results;
    }
    CHAPTER_RETURN_IF_ERROR(transaction.Place());
    CHAPTER_RETURN_IF_ERROR(Commit(transaction));
    events = transaction.events();
  }
  CHAPTER_RETURN_IF_ERROR(Finish(events));
  return results;
}

// The clock may have been put back since some of it was stamped: a deletion must be later
// than what it deletes all the same.
Version Replica::NextVersion(const Record& record) {
  clock_.Observe(record.seen.Highest());
  return {clock_.Tick(WallMs()), Writer()};
}

WriteResult Replica::WriteOne(Transaction& transaction, const LocalWrite& write) {
  using Kind = LocalWrite::Kind;
  WriteResult result;
  const auto refuse = [&](absl::Status status) {
    transaction.Forget(write.key);
    result.status = std::move(status);
    return result;
  };
  const std::string id = write.key.id.ToString();
  if (write.actor.size() > kActorBytesMax) {
    return refuse(absl::InvalidArgumentError(absl::StrCat("an actor's name of ", write.actor.size(),
                                                          " bytes is too long (at most ",
                                                          kActorBytesMax, ")")));
  }
  if (auto status = CheckCells(write.cells); !status.ok()) return refuse(std::move(status));
  StoredRecord* held = transaction.Find(write.key);
  if (write.made_from && (held == nullptr ? Sequence{} : held->meta.latest) != *write.made_from) {
    return refuse(absl::AbortedError(absl::StrCat("record ", id, " has changed meanwhile")));
  }
  if (held == nullptr) {
    if (write.kind != Kind::kCreate && write.kind != Kind::kUpsert) {
      return refuse(absl::NotFoundError(absl::StrCat("there is no record ", id)));
    }
    if (transaction.Get(Table::kMeta, keys::Dropped(write.key)).ok()) {
      return refuse(absl::FailedPreconditionError(
          absl::StrCat("record ", id, " is another chapter's now; this chapter has let it go")));
    }
  } else if (held->record.erased) {
    return refuse(absl::FailedPreconditionError(absl::StrCat("record ", id, " was erased")));
  } else if (write.kind == Kind::kCreate && held->record.live()) {
    return refuse(absl::AlreadyExistsError(absl::StrCat("record ", id, " exists already")));
  } else if (!held->record.live() && (write.kind == Kind::kCreate || write.kind == Kind::kUpdate ||
                                      write.kind == Kind::kUpsert)) {
    return refuse(absl::FailedPreconditionError(
        absl::StrCat("record ", id, " is deleted; restore it before writing to it")));
  }
  StoredRecord& stored = transaction.Make(write.key);
  const StoredRecord before = stored;
  const auto stamp = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const Version version = NextVersion(stored.record);
    stored.record.seen.Advance(version);
    NoteStamp(transaction, write.key, version);
    return version;
  };
  switch (write.kind) {
    case Kind::kCreate:
    case Kind::kUpdate:
    case Kind::kUpsert: {
      const std::vector<const CellWrite*> news = Changes(stored.record, write.cells);
      if (news.empty()) {
        transaction.Forget(write.key);
        return result;
      }
      const Version version = stamp();
      for (const CellWrite* cell : news) {
        stored.record.Put({cell->path, version, write.actor, cell->value, {}});
      }
      break;
    }
    case Kind::kDelete:
    case Kind::kRestore: {
      const bool deletes = write.kind == Kind::kDelete;
      if (stored.record.live() != deletes) return result;
      stored.record.Put({CellPath::Existence(),
                         stamp(),
                         write.actor,
                         deletes ? DeletedValue() : RestoredValue(),
                         {}});
      break;
    }
    case Kind::kErase:
      if (!options_.hub) {
        return refuse(absl::PermissionDeniedError(
            absl::StrCat("record ", id, " can be erased at headquarters only")));
      }
      stamp();
      stored.record.Erase();
      break;
    case Kind::kSettle: {
      absl::Status status = SettleOne(transaction, stored, write);
      if (!status.ok()) return refuse(std::move(status));
      break;
    }
  }
  if (std::string over = OverLimit(stored.record); !over.empty()) {
    stored = before;
    return refuse(absl::InvalidArgumentError(absl::StrCat("record ", id, " would have ", over)));
  }
  stored.meta.origin = {};
  result.created = before.record.empty();
  result.changed = true;
  transaction.Touch(write.key);
  return result;
}

absl::Status Replica::SettleOne(Transaction& transaction, StoredRecord& stored,
                                const LocalWrite& write) {
  Record& record = stored.record;
  const std::string id = write.key.id.ToString();
  std::vector<ConflictEntry*> entries;
  for (ConflictEntry& entry : record.conflicts) {
    if (entry.path == write.path && entry.lost_value == write.lost && entry.open()) {
      entries.push_back(&entry);
    }
  }
  if (entries.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("record ", id, " has no open conflict of that field and value"));
  }
  const bool existence = write.path.existence();
  if (write.choice != Choice::kKeep && !existence && !record.live()) {
    return absl::FailedPreconditionError(
        absl::StrCat("record ", id, " is deleted; restore it before taking back a value"));
  }
  if (write.choice == Choice::kValue && existence) {
    return absl::InvalidArgumentError(
        "a deletion is settled by keeping what stands or taking back what lost, not by a value");
  }
  if (write.choice == Choice::kValue) {
    CHAPTER_RETURN_IF_ERROR(CheckCells({{write.path, write.third}}));
  }
  const Version version = NextVersion(record);
  record.seen.Advance(version);
  NoteStamp(transaction, write.key, version);
  for (ConflictEntry* entry : entries) {
    entry->settlements.push_back({version, write.actor, write.choice});
    std::sort(entry->settlements.begin(), entry->settlements.end(),
              [](const auto& a, const auto& b) { return a.version < b.version; });
  }
  if (write.choice == Choice::kKeep) return absl::OkStatus();
  const std::optional<std::string>& value =
      write.choice == Choice::kTake ? write.lost : write.third;
  if (existence) {
    if (record.live() == (value == DeletedValue())) {
      record.Put({write.path, version, write.actor, value, {}});
    }
    return absl::OkStatus();
  }
  const Cell* held = record.Find(write.path);
  if ((held == nullptr ? std::nullopt : held->value) != value) {
    record.Put({write.path, version, write.actor, value, {}});
  }
  return absl::OkStatus();
}

absl::StatusOr<StoredRecord> Replica::Read(const RecordKey& key) const {
  auto bytes = engine_.Get(Table::kRecord, EncodeKey(key));
  if (absl::IsNotFound(bytes.status())) {
    return absl::NotFoundError(absl::StrCat("there is no record ", key.id.ToString()));
  }
  CHAPTER_RETURN_IF_ERROR(bytes.status());
  return DecodeStored(*bytes);
}

absl::StatusOr<std::vector<std::pair<RecordKey, StoredRecord>>> Replica::List(
    EntityNumber entity, const std::optional<RecordId>& after, size_t count) const {
  std::vector<std::pair<RecordKey, StoredRecord>> out;
  const std::string prefix = EncodeKey({entity, {}}).substr(0, 4);
  std::string lower = prefix;
  if (after) lower = EncodeKey({entity, *after}) + std::string(1, '\0');
  auto snapshot = engine_.NewSnapshot();
  auto it = snapshot->NewIterator(Table::kRecord, lower, keys::PrefixEnd(prefix));
  for (it->SeekToFirst(); it->Valid() && out.size() < count; it->Next()) {
    Reader reader(it->key());
    const RecordKey key = reader.Key();
    CHAPTER_ASSIGN_OR_RETURN(StoredRecord stored, DecodeStored(it->value()));
    out.emplace_back(key, std::move(stored));
  }
  CHAPTER_RETURN_IF_ERROR(it->status());
  return out;
}

absl::StatusOr<std::vector<RecordId>> Replica::FindIds(EntityNumber entity, const RecordId& prefix,
                                                       size_t bits, size_t count) const {
  RecordId first = prefix;
  RecordId last = prefix;
  for (size_t bit = bits; bit < 128; ++bit) {
    const auto mask = static_cast<uint8_t>(0x80 >> (bit % 8));
    first.bytes[bit / 8] = static_cast<uint8_t>(first.bytes[bit / 8] & ~mask);
    last.bytes[bit / 8] |= mask;
  }
  std::vector<RecordId> out;
  auto snapshot = engine_.NewSnapshot();
  auto it = snapshot->NewIterator(Table::kRecord, EncodeKey({entity, first}),
                                  EncodeKey({entity, last}) + std::string(1, '\0'));
  for (it->SeekToFirst(); it->Valid() && out.size() < count; it->Next()) {
    Reader reader(it->key());
    out.push_back(reader.Key().id);
  }
  CHAPTER_RETURN_IF_ERROR(it->status());
  return out;
}

std::map<EntityNumber, uint64_t> Replica::CountRecords() const {
  absl::ReaderMutexLock lock(&mutex_);
  return live_counts_;
}

std::map<Scope, ScopeState> Replica::Digests() const {
  absl::ReaderMutexLock lock(&mutex_);
  std::map<Scope, ScopeState> states;
  for (const auto& [scope, digest] : digests_.scopes()) {
    if (digest.records() > 0) states[scope] = {digest.sum(), digest.records()};
  }
  return states;
}

absl::StatusOr<std::vector<Scope>> Replica::CheckDigests() const {
  std::map<Scope, ScopeDigest> kept;
  std::unique_ptr<Snapshot> snapshot;
  {
    absl::ReaderMutexLock lock(&mutex_);
    kept = digests_.scopes();
    snapshot = engine_.NewSnapshot();
  }
  ScopeDigests found(ScopesHeld(options_), options_.digest_changes_min);
  CHAPTER_RETURN_IF_ERROR(found.Recompute(*snapshot));
  std::vector<Scope> wrong;
  for (const auto& [scope, digest] : kept) {
    const auto it = found.scopes().find(scope);
    if ((it == found.scopes().end() ? ScopeDigest() : it->second) != digest) wrong.push_back(scope);
  }
  for (const auto& [scope, digest] : found.scopes()) {
    if (!kept.contains(scope)) wrong.push_back(scope);
  }
  return wrong;
}

namespace {

// The entry that an index value of kConflictById leads to.
absl::StatusOr<ConflictRef> ReadConflict(const Snapshot& snapshot, std::string id) {
  CHAPTER_ASSIGN_OR_RETURN(const std::string where,
                           snapshot.Get(Table::kIndex, keys::ConflictById(id)));
  Reader in(where);
  ConflictRef ref;
  ref.id = std::move(id);
  ref.key = in.Key();
  in.BigEndian64();
  const CellPath path = in.Path();
  Version version;
  version.time = {in.Fixed64()};
  version.replica = {in.Fixed64()};
  if (!in.ok()) return absl::DataLossError("the index of conflicts is damaged");
  CHAPTER_ASSIGN_OR_RETURN(const std::string bytes,
                           snapshot.Get(Table::kRecord, EncodeKey(ref.key)));
  CHAPTER_ASSIGN_OR_RETURN(const StoredRecord stored, DecodeStored(bytes));
  for (const ConflictEntry& entry : stored.record.conflicts) {
    if (entry.path == path && entry.lost_version == version) {
      ref.entry = entry;
      return ref;
    }
  }
  return absl::DataLossError("the index of conflicts names an entry that its record lacks");
}

}  // namespace

absl::StatusOr<std::vector<ConflictRef>> Replica::ListConflicts(std::optional<bool> open,
                                                                const std::string& token,
                                                                size_t count,
                                                                std::string& next) const {
  const std::string prefix(open == true ? keys::kOpenConflictPrefix : keys::kConflictByTimePrefix);
  std::string lower = prefix;
  if (!token.empty()) lower += absl::HexStringToBytes(token) + std::string(1, '\0');
  std::vector<ConflictRef> out;
  next.clear();
  auto snapshot = engine_.NewSnapshot();
  auto it = snapshot->NewIterator(Table::kIndex, lower, keys::PrefixEnd(prefix));
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    if (out.size() == count) break;
    const std::string tail(it->key().substr(1));
    CHAPTER_ASSIGN_OR_RETURN(ConflictRef ref, ReadConflict(*snapshot, tail.substr(8)));
    next = absl::BytesToHexString(tail);
    if (open == false && ref.entry.open()) continue;
    out.push_back(std::move(ref));
  }
  CHAPTER_RETURN_IF_ERROR(it->status());
  if (!it->Valid()) next.clear();
  return out;
}

absl::StatusOr<std::vector<ConflictRef>> Replica::FindConflicts(
    const std::string& prefix_hex) const {
  std::string padded = prefix_hex;
  if (padded.size() % 2 == 1) padded += '0';
  const std::string lower = std::string(keys::kConflictByIdPrefix) + absl::HexStringToBytes(padded);
  std::vector<ConflictRef> out;
  auto snapshot = engine_.NewSnapshot();
  auto it = snapshot->NewIterator(Table::kIndex, lower,
                                  keys::PrefixEnd(std::string(keys::kConflictByIdPrefix)));
  for (it->SeekToFirst(); it->Valid() && out.size() < 2; it->Next()) {
    const std::string id(it->key().substr(1));
    if (absl::BytesToHexString(id).substr(0, prefix_hex.size()) != prefix_hex) break;
    CHAPTER_ASSIGN_OR_RETURN(ConflictRef ref, ReadConflict(*snapshot, id));
    out.push_back(std::move(ref));
  }
  CHAPTER_RETURN_IF_ERROR(it->status());
  return out;
}

absl::StatusOr<uint64_t> Replica::CountOpenConflicts() const {
  uint64_t count = 0;
  const std::string prefix(keys::kOpenConflictPrefix);
  auto snapshot = engine_.NewSnapshot();
  auto it = snapshot->NewIterator(Table::kIndex, prefix, keys::PrefixEnd(prefix));
  for (it->SeekToFirst(); it->Valid(); it->Next()) ++count;
  CHAPTER_RETURN_IF_ERROR(it->status());
  return count;
}

std::string EncodeRefused(const RefusedWrite& refused) {
  std::string out;
  AppendKey(refused.key, out);
  AppendFixed64(refused.written_at.ticks, out);
  AppendString(refused.actor, out);
  AppendString(refused.reason, out);
  AppendVarint(refused.cells.size(), out);
  for (const CellWrite& cell : refused.cells) {
    AppendPath(cell.path, out);
    out.push_back(cell.value ? 1 : 0);
    if (cell.value) AppendString(*cell.value, out);
  }
  return out;
}

absl::StatusOr<RefusedWrite> DecodeRefused(std::string_view bytes) {
  Reader in(bytes);
  RefusedWrite refused;
  refused.key = in.Key();
  refused.written_at = {in.Fixed64()};
  refused.actor = std::string(in.String(kActorBytesMax));
  refused.reason = std::string(in.String(kRefusedReasonBytesMax));
  const size_t count = in.Count(kCellsMax, 2);
  for (size_t i = 0; i < count; ++i) {
    CellWrite cell;
    cell.path = in.Path();
    if (in.Bytes(1) == std::string_view("\x01", 1)) {
      cell.value = std::string(in.String(kCellBytesMax));
    }
    refused.cells.push_back(std::move(cell));
  }
  if (!in.ok()) return absl::DataLossError("a refused write cannot be read");
  return refused;
}

absl::StatusOr<std::vector<RefusedWrite>> Replica::ListRefused(uint64_t after, size_t count) const {
  std::vector<RefusedWrite> out;
  auto snapshot = engine_.NewSnapshot();
  auto it = snapshot->NewIterator(Table::kMeta, keys::Refused(after + 1),
                                  keys::PrefixEnd(std::string(1, keys::kRefusedKind)));
  for (it->SeekToFirst(); it->Valid() && out.size() < count; it->Next()) {
    CHAPTER_ASSIGN_OR_RETURN(RefusedWrite refused, DecodeRefused(it->value()));
    refused.number = Reader(it->key().substr(1)).BigEndian64();
    out.push_back(std::move(refused));
  }
  CHAPTER_RETURN_IF_ERROR(it->status());
  return out;
}

absl::StatusOr<RefusedWrite> Replica::GetRefused(uint64_t number) const {
  auto bytes = engine_.Get(Table::kMeta, keys::Refused(number));
  if (absl::IsNotFound(bytes.status())) {
    return absl::NotFoundError(absl::StrCat("there is no refused write ", number));
  }
  CHAPTER_RETURN_IF_ERROR(bytes.status());
  CHAPTER_ASSIGN_OR_RETURN(RefusedWrite refused, DecodeRefused(*bytes));
  refused.number = number;
  return refused;
}

absl::Status Replica::ForgetRefused(uint64_t number) {
  CHAPTER_RETURN_IF_ERROR(GetRefused(number).status());
  WriteBatch batch;
  batch.Delete(Table::kMeta, keys::Refused(number));
  CHAPTER_RETURN_IF_ERROR(engine_.Write(batch));
  return engine_.Sync();
}

uint64_t Replica::Subscribe(std::function<void(const std::vector<ChangeEvent>&)> listener) {
  absl::MutexLock lock(&listeners_mutex_);
  listeners_[++listener_last_] = std::move(listener);
  return listener_last_;
}

void Replica::Unsubscribe(uint64_t number) {
  absl::MutexLock lock(&listeners_mutex_);
  listeners_.erase(number);
}

absl::StatusOr<std::string> Replica::GetSetting(const std::string& key) const {
  auto value = engine_.Get(Table::kMeta, keys::Setting(key));
  if (absl::IsNotFound(value.status())) {
    return absl::NotFoundError(absl::StrCat("there is no setting '", key, "'"));
  }
  return value;
}

absl::Status Replica::PutSetting(const std::string& key, const std::optional<std::string>& value) {
  return PutSettings({{key, value}});
}

absl::Status Replica::PutSettings(const Settings& settings) {
  WriteBatch batch;
  for (const auto& [key, value] : settings) {
    if (value) {
      batch.Put(Table::kMeta, keys::Setting(key), *value);
    } else {
      batch.Delete(Table::kMeta, keys::Setting(key));
    }
  }
  CHAPTER_RETURN_IF_ERROR(engine_.Write(batch));
  return engine_.Sync();
}

absl::StatusOr<std::vector<std::pair<std::string, std::string>>> Replica::ListSettings(
    const std::string& prefix) const {
  std::vector<std::pair<std::string, std::string>> out;
  const std::string lower = keys::Setting(prefix);
  auto snapshot = engine_.NewSnapshot();
  auto it = snapshot->NewIterator(Table::kMeta, lower, keys::PrefixEnd(lower));
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    out.emplace_back(std::string(it->key().substr(1)), std::string(it->value()));
  }
  CHAPTER_RETURN_IF_ERROR(it->status());
  return out;
}

bool Replica::scrub_due() const {
  absl::ReaderMutexLock lock(&mutex_);
  return residue_last_ != residue_scrubbed_;
}

absl::Status Replica::Scrub() {
  uint64_t through = 0;
  {
    absl::ReaderMutexLock lock(&mutex_);
    through = residue_last_;
    if (through == residue_scrubbed_) return absl::OkStatus();
  }
  // Refused writes are in kMeta, the keys of map entries in kIndex.
  for (const Table table : {Table::kRecord, Table::kIndex, Table::kMeta}) {
    CHAPTER_RETURN_IF_ERROR(engine_.Scrub(table, "", ""));
  }
  {
    absl::MutexLock lock(&mutex_);
    residue_scrubbed_ = through;
    if (residue_last_ != through) return absl::OkStatus();  // more came meanwhile
    WriteBatch batch;
    batch.Delete(Table::kMeta, keys::kResidue);
    CHAPTER_RETURN_IF_ERROR(engine_.Write(batch));
  }
  return engine_.Sync();
}

}  // namespace chaptersync::storage
