// SPDX-License-Identifier: Apache-2.0
//
// An engine in memory, for tests and the simulation: it keeps the whole of the
// Engine contract, what was not synced is lost in a crash included, and lets a
// test order failed writes, failed syncs and crashes. Any thread may call.
#ifndef CHAPTERSYNC_STORAGE_ENGINE_MEMORY_ENGINE_H_
#define CHAPTERSYNC_STORAGE_ENGINE_MEMORY_ENGINE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

#include "storage/engine/engine.h"

namespace chaptersync::storage {

// A key keeps its last versions, numbered by batch: as many as live snapshots and
// the next crash can ask for. A snapshot costs one number; it and a missing Sync
// hold memory, because every change since stays.
class MemoryEngine final : public Engine {
 public:
  MemoryEngine() = default;
  MemoryEngine(const MemoryEngine&) = delete;
  MemoryEngine& operator=(const MemoryEngine&) = delete;
  ~MemoryEngine() override = default;

  absl::Status Write(const WriteBatch& batch) override;
  absl::Status Sync() override;
  absl::StatusOr<std::string> Get(Table table, std::string_view key) const override;
  std::unique_ptr<Snapshot> NewSnapshot() const override;
  // There are no files; only makes the deletions durable, as a rewrite would.
  absl::Status Scrub(Table table, std::string_view lower, std::string_view upper) override;

  // The next `n` writes answer `error` and change nothing. An error of DATA_LOSS
  // also breaks the engine until Crash(), and leaves the batch in doubt: Crash()
  // counts it as the youngest that was not synced.
  void FailNextWrites(int n, absl::Status error);
  // The next `n` syncs answer `error` and make nothing durable; the first of them
  // breaks the engine until Crash(). Both kinds of fault outlive a crash.
  void FailNextSyncs(int n, absl::Status error);
  // The power fails and the engine is opened anew: of the batches written after
  // the last sync, the oldest `keep_unsynced_batches` survive, then durable, and
  // the rest was never there. Snapshots from before answer FAILED_PRECONDITION;
  // an iterator's key and value must not be read any more.
  void Crash(size_t keep_unsynced_batches = 0);
  // How many batches Crash(0) would lose, one in doubt included.
  size_t unsynced_batches() const;

 private:
  class Pin;
  class PinnedSnapshot;
  class PinnedIterator;

  // Batches are numbered from 1 in the order of Write, across crashes.
  using Sequence = uint64_t;
  struct Version {
    Sequence sequence;
    std::shared_ptr<const std::string> value;  // null: deleted
  };
  using Chain = absl::InlinedVector<Version, 1>;  // rising sequence
  using Keys = std::map<std::string, Chain, std::less<>>;
  struct Change {
    Sequence sequence;
    Table table;
    Keys::iterator place;
  };
  struct Fault {
    int left = 0;
    absl::Status error;
    // The error where one is still ordered; counts it.
    absl::Status Take();
  };

  // The value at `sequence`; null where the key was not there.
  static std::shared_ptr<const std::string> ValueAt(const Chain& chain, Sequence sequence);

  Keys& KeysOf(Table table) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return tables_[static_cast<size_t>(table)];
  }
  const Keys& KeysOf(Table table) const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return tables_[static_cast<size_t>(table)];
  }
  std::shared_ptr<const std::string> Find(Table table, std::string_view key, Sequence at) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  void Apply(const WriteBatch& batch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Null deletes.
  void SetValue(Table table, Keys::iterator place, Sequence sequence,
                std::shared_ptr<const std::string> value) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Drops versions that neither a snapshot nor a crash can ask for any more.
  void Collect() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable absl::Mutex mutex_;
  // Mutable: a snapshot's end, on a const engine, lets old versions go.
  mutable std::array<Keys, kTableCount> tables_ ABSL_GUARDED_BY(mutex_);
  // Changes whose forerunners are still kept, in order of sequence. All that are
  // not durable are among them: this is the journal, too.
  mutable std::deque<Change> changes_ ABSL_GUARDED_BY(mutex_);
  mutable std::map<Sequence, int> pins_ ABSL_GUARDED_BY(mutex_);  // -> snapshots
  uint64_t life_ ABSL_GUARDED_BY(mutex_) = 0;                     // crashes so far
  Sequence last_ ABSL_GUARDED_BY(mutex_) = 0;
  Sequence durable_ ABSL_GUARDED_BY(mutex_) = 0;
  std::optional<WriteBatch> doubtful_ ABSL_GUARDED_BY(mutex_);
  absl::Status broken_ ABSL_GUARDED_BY(mutex_);
  Fault write_fault_ ABSL_GUARDED_BY(mutex_);
  Fault sync_fault_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace chaptersync::storage

#endif  // CHAPTERSYNC_STORAGE_ENGINE_MEMORY_ENGINE_H_
