// SPDX-License-Identifier: Apache-2.0
//
// MemoryEngine: every key is a node of an ordered map and holds a short chain of
// versions. Nodes do not move, and one that a live snapshot sees is not erased,
// so that an iterator is a place in the map plus a sequence. Any thread.
#include "storage/engine/memory_engine.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"

namespace chaptersync::storage {
namespace {

absl::Status NoSuchKey() { return absl::NotFoundError("no such key in the table"); }

absl::Status Outlived() {
  return absl::FailedPreconditionError(
      "refused to read a snapshot taken before a crash of the memory engine");
}

}  // namespace

// Keeps the versions of one moment alive; shared by a snapshot and its iterators.
class MemoryEngine::Pin {
 public:
  explicit Pin(const MemoryEngine* engine) : engine_(engine) {
    const absl::MutexLock lock(&engine_->mutex_);
    life_ = engine_->life_;
    sequence_ = engine_->last_;
    ++engine_->pins_[sequence_];
  }
  Pin(const Pin&) = delete;
  Pin& operator=(const Pin&) = delete;
  ~Pin() {
    const absl::MutexLock lock(&engine_->mutex_);
    if (life_ != engine_->life_) return;
    const auto pin = engine_->pins_.find(sequence_);
    if (--pin->second > 0) return;
    engine_->pins_.erase(pin);
    engine_->Collect();
  }

  const MemoryEngine* engine() const { return engine_; }
  // Once the engine's life is another one, nothing of this moment may be read.
  uint64_t life() const { return life_; }
  Sequence sequence() const { return sequence_; }

 private:
  const MemoryEngine* const engine_;
  uint64_t life_;
  Sequence sequence_;
};

class MemoryEngine::PinnedIterator final : public Iterator {
 public:
  PinnedIterator(std::shared_ptr<const Pin> pin, Table table, std::string_view lower,
                 std::string_view upper)
      : pin_(std::move(pin)),
        engine_(pin_->engine()),
        table_(table),
        lower_(lower),
        upper_(upper) {}

  void SeekToFirst() override { Seek(lower_); }

  void Seek(std::string_view target) override {
    const absl::ReaderMutexLock lock(&engine_->mutex_);
    if (Stopped()) return;
    place_ = engine_->KeysOf(table_).lower_bound(std::max<std::string_view>(target, lower_));
    SettleForward();
  }

  void SeekToLast() override {
    const absl::ReaderMutexLock lock(&engine_->mutex_);
    if (Stopped()) return;
    const Keys& keys = engine_->KeysOf(table_);
    place_ = upper_.empty() ? keys.end() : keys.lower_bound(upper_);
    SettleBackward();
  }

  void Next() override {
    const absl::ReaderMutexLock lock(&engine_->mutex_);
    if (Stopped()) return;
    ++place_;
    SettleForward();
  }

  void Prev() override {
    const absl::ReaderMutexLock lock(&engine_->mutex_);
    if (Stopped()) return;
    SettleBackward();
  }

  bool Valid() const override { return value_ != nullptr; }
  std::string_view key() const override { return place_->first; }
  std::string_view value() const override { return *value_; }
  absl::Status status() const override { return status_; }

 private:
  bool Stopped() ABSL_SHARED_LOCKS_REQUIRED(engine_->mutex_) {
    if (pin_->life() == engine_->life_) return false;
    value_ = nullptr;
    status_ = Outlived();
    return true;
  }

  // To the first key at or after place_ that was there.
  void SettleForward() ABSL_SHARED_LOCKS_REQUIRED(engine_->mutex_) {
    value_ = nullptr;
    const Keys& keys = engine_->KeysOf(table_);
    for (; place_ != keys.end() && (upper_.empty() || place_->first < upper_); ++place_) {
      value_ = ValueAt(place_->second, pin_->sequence());
      if (value_ != nullptr) return;
    }
  }

  // To the last key before place_ that was there.
  void SettleBackward() ABSL_SHARED_LOCKS_REQUIRED(engine_->mutex_) {
    value_ = nullptr;
    const Keys& keys = engine_->KeysOf(table_);
    while (place_ != keys.begin()) {
      --place_;
      if (place_->first < lower_) return;
      value_ = ValueAt(place_->second, pin_->sequence());
      if (value_ != nullptr) return;
    }
  }

  const std::shared_ptr<const Pin> pin_;
  const MemoryEngine* const engine_;
  const Table table_;
  const std::string lower_;
  const std::string upper_;
  Keys::const_iterator place_;
  std::shared_ptr<const std::string> value_;  // null: not valid
  absl::Status status_;
};

class MemoryEngine::PinnedSnapshot final : public Snapshot {
 public:
  explicit PinnedSnapshot(const MemoryEngine* engine) : pin_(std::make_shared<Pin>(engine)) {}

  absl::StatusOr<std::string> Get(Table table, std::string_view key) const override {
    std::shared_ptr<const std::string> value;
    {
      const MemoryEngine* const engine = pin_->engine();
      const absl::ReaderMutexLock lock(&engine->mutex_);
      if (pin_->life() != engine->life_) return Outlived();
      value = engine->Find(table, key, pin_->sequence());
    }
    if (value == nullptr) return NoSuchKey();
    return *value;
  }

  std::unique_ptr<Iterator> NewIterator(Table table, std::string_view lower,
                                        std::string_view upper) const override {
    return std::make_unique<PinnedIterator>(pin_, table, lower, upper);
  }

 private:
  const std::shared_ptr<const Pin> pin_;
};

absl::Status MemoryEngine::Fault::Take() {
  if (left == 0) return absl::OkStatus();
  --left;
  return error;
}

std::shared_ptr<const std::string> MemoryEngine::ValueAt(const Chain& chain, Sequence sequence) {
  for (auto version = chain.rbegin(); version != chain.rend(); ++version) {
    if (version->sequence <= sequence) return version->value;
  }
  return nullptr;
}

std::shared_ptr<const std::string> MemoryEngine::Find(Table table, std::string_view key,
                                                      Sequence at) const {
  const Keys& keys = KeysOf(table);
  const auto place = keys.find(key);
  return place == keys.end() ? nullptr : ValueAt(place->second, at);
}

void MemoryEngine::Apply(const WriteBatch& batch) {
  const Sequence sequence = ++last_;
  for (const WriteBatch::Operation& operation : batch.operations()) {
    Keys& keys = KeysOf(operation.table);
    auto place = keys.lower_bound(operation.key);
    if (operation.kind == WriteBatch::Kind::kDeleteRange) {
      for (; place != keys.end() && place->first < operation.value; ++place) {
        if (place->second.back().value == nullptr) continue;
        SetValue(operation.table, place, sequence, nullptr);
      }
      continue;
    }
    const bool known = place != keys.end() && place->first == operation.key;
    const bool puts = operation.kind == WriteBatch::Kind::kPut;
    if (!puts && !known) continue;
    if (!known) place = keys.emplace_hint(place, operation.key, Chain());
    SetValue(operation.table, place, sequence,
             puts ? std::make_shared<const std::string>(operation.value) : nullptr);
  }
}

void MemoryEngine::SetValue(Table table, Keys::iterator place, Sequence sequence,
                            std::shared_ptr<const std::string> value) {
  Chain& chain = place->second;
  if (!chain.empty() && chain.back().sequence == sequence) {
    chain.back().value = std::move(value);
  } else {
    chain.push_back({sequence, std::move(value)});
    changes_.push_back({sequence, table, place});
  }
}

void MemoryEngine::Collect() const {
  const Sequence oldest = pins_.empty() ? durable_ : std::min(durable_, pins_.begin()->first);
  while (!changes_.empty() && changes_.front().sequence <= oldest) {
    const Change change = changes_.front();
    changes_.pop_front();
    Chain& chain = change.place->second;
    // HAZARD: only up to this change's own version, and the node goes only with its
    // youngest change: later ones in changes_ still point at it.
    auto keep = chain.begin();
    while (keep != chain.end() && keep->sequence < change.sequence) ++keep;
    chain.erase(chain.begin(), keep);
    const bool deleted = chain.size() == 1 && chain.front().sequence == change.sequence &&
                         chain.front().value == nullptr;
    if (deleted) tables_[static_cast<size_t>(change.table)].erase(change.place);
  }
}

absl::Status MemoryEngine::Write(const WriteBatch& batch) {
  const absl::MutexLock lock(&mutex_);
  if (!broken_.ok()) return broken_;
  if (absl::Status fault = write_fault_.Take(); !fault.ok()) {
    if (absl::IsDataLoss(fault)) {
      doubtful_ = batch;
      broken_ = absl::DataLossError(
          absl::StrCat("memory engine takes nothing until it is opened anew; a write failed: ",
                       fault.message()));
    }
    return fault;
  }
  if (!batch.empty()) Apply(batch);
  return absl::OkStatus();
}

absl::Status MemoryEngine::Sync() {
  const absl::MutexLock lock(&mutex_);
  if (!broken_.ok()) return broken_;
  if (absl::Status fault = sync_fault_.Take(); !fault.ok()) {
    broken_ = absl::DataLossError(absl::StrCat(
        "memory engine takes nothing until it is opened anew; a sync failed: ", fault.message()));
    return fault;
  }
  durable_ = last_;
  Collect();
  return absl::OkStatus();
}

absl::StatusOr<std::string> MemoryEngine::Get(Table table, std::string_view key) const {
  std::shared_ptr<const std::string> value;
  {
    const absl::ReaderMutexLock lock(&mutex_);
    value = Find(table, key, last_);
  }
  if (value == nullptr) return NoSuchKey();
  return *value;
}

std::unique_ptr<Snapshot> MemoryEngine::NewSnapshot() const {
  return std::make_unique<PinnedSnapshot>(this);
}

absl::Status MemoryEngine::Scrub(Table, std::string_view, std::string_view) { return Sync(); }

void MemoryEngine::FailNextWrites(int n, absl::Status error) {
  const absl::MutexLock lock(&mutex_);
  write_fault_ = {n, std::move(error)};
}

void MemoryEngine::FailNextSyncs(int n, absl::Status error) {
  const absl::MutexLock lock(&mutex_);
  sync_fault_ = {n, std::move(error)};
}

void MemoryEngine::Crash(size_t keep_unsynced_batches) {
  const absl::MutexLock lock(&mutex_);
  const Sequence unsynced = last_ - durable_;
  if (doubtful_.has_value() && keep_unsynced_batches > unsynced) Apply(*doubtful_);
  const Sequence cut = durable_ + std::min<Sequence>(keep_unsynced_batches, last_ - durable_);
  while (!changes_.empty() && changes_.back().sequence > cut) {
    const Change change = changes_.back();
    changes_.pop_back();
    Chain& chain = change.place->second;
    chain.pop_back();
    if (chain.empty()) KeysOf(change.table).erase(change.place);
  }
  ++life_;
  pins_.clear();
  durable_ = last_;
  doubtful_.reset();
  broken_ = absl::OkStatus();
  Collect();
}

size_t MemoryEngine::unsynced_batches() const {
  const absl::MutexLock lock(&mutex_);
  return static_cast<size_t>(last_ - durable_) + (doubtful_.has_value() ? 1 : 0);
}

}  // namespace chaptersync::storage
