// SPDX-License-Identifier: Apache-2.0
//
// A computer's disk: the product's in-memory engine, on which power can fail at
// any operation, writes and syncs can fail, and of which images can be taken and
// put back. One thread.
#ifndef CHAPTERSYNC_TESTS_SIMULATION_DISK_H_
#define CHAPTERSYNC_TESTS_SIMULATION_DISK_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "storage/engine/engine.h"
#include "storage/engine/memory_engine.h"

namespace chaptersync::simulation {

// All that a disk held at one moment.
struct DiskImage {
  struct Item {
    storage::Table table;
    std::string key;
    std::string value;
  };
  std::vector<Item> items;
};

class Disk final : public storage::Engine {
 public:
  Disk() : engine_(std::make_unique<storage::MemoryEngine>()) {}

  absl::Status Write(const storage::WriteBatch& batch) override;
  absl::Status Sync() override;
  absl::StatusOr<std::string> Get(storage::Table table, std::string_view key) const override {
    return engine_->Get(table, key);
  }
  std::unique_ptr<storage::Snapshot> NewSnapshot() const override { return engine_->NewSnapshot(); }
  absl::Status Scrub(storage::Table table, std::string_view lower, std::string_view upper) override;

  // The power fails after so many more operations: writes, syncs, messages sent.
  // From then on nothing that the program does has any effect.
  // `fails` of this and the other faults is called when it first does.
  void FailPowerAfter(uint64_t operations, std::function<void()> fails = {}) {
    power_left_ = operations;
    power_fails_ = std::move(fails);
  }
  // Counts one operation; false where there is no power for it.
  bool Spend();
  bool powered() const { return powered_; }
  void ForgetFaults() { power_left_.reset(); }
  // The engine has answered DATA_LOSS: the program would end.
  bool broken() const { return broken_; }
  // Since the last sync, a batch was written that a peer may be told of.
  bool unsynced() const { return unsynced_; }

  // `n` 0: none any more.
  void FailNextWrites(int n, absl::Status error, std::function<void()> fails = {}) {
    writes_to_fail_ = n;
    write_fails_ = std::move(fails);
    engine_->FailNextWrites(n, std::move(error));
  }
  void FailNextSyncs(int n, absl::Status error, std::function<void()> fails = {}) {
    syncs_to_fail_ = n;
    sync_fails_ = std::move(fails);
    engine_->FailNextSyncs(n, std::move(error));
  }
  // Writes and syncs that have failed by order, ever.
  uint64_t failed() const { return failed_; }

  // The computer starts again. Of what was not synced the oldest `keep` batches are
  // there. No replica may be open.
  void Restart(size_t keep);
  size_t unsynced_batches() const { return engine_->unsynced_batches(); }

  // What is on the disk, made durable. None where it cannot be: the disk fails.
  std::optional<DiskImage> TakeImage();
  // What was there is gone.
  void PutImage(const DiskImage& image);
  // Calls `visit` with each key and value.
  void Visit(const std::function<void(storage::Table, std::string_view key,
                                      std::string_view value)>& visit) const;

 private:
  absl::Status SyncEngine();
  bool Untold(const storage::WriteBatch& batch) const;

  std::unique_ptr<storage::MemoryEngine> engine_;
  std::optional<uint64_t> power_left_;
  bool powered_ = true;
  bool broken_ = false;
  bool unsynced_ = false;
  std::function<void()> power_fails_;
  std::function<void()> write_fails_;
  std::function<void()> sync_fails_;
  int writes_to_fail_ = 0;
  int syncs_to_fail_ = 0;
  uint64_t failed_ = 0;
};

}  // namespace chaptersync::simulation

#endif  // CHAPTERSYNC_TESTS_SIMULATION_DISK_H_
