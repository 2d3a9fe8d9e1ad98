// SPDX-License-Identifier: Apache-2.0
//
// Faults in front of the in-memory engine: power that goes at any operation, images
// of what a disk held; see disk.h. One thread.
#include "tests/simulation/disk.h"

#include <algorithm>
#include <utility>

#include "storage/core/status.h"

namespace chaptersync::simulation {

using storage::Table;
using storage::WriteBatch;

namespace {

constexpr char kIdentityKey[] = "I";
constexpr char kRefusalKind = 'r';
// Where the identity has the clock's offset, in bytes.
constexpr size_t kOffsetBegin = 16;
constexpr size_t kOffsetEnd = 24;

absl::Status NoPower() { return absl::DataLossError("the computer has no power"); }

void Tell(std::function<void()>& fails) {
  if (const auto once = std::exchange(fails, {})) once();
}

bool SameButForOffset(std::string_view a, std::string_view b) {
  return a.size() == b.size() && a.size() >= kOffsetEnd &&
         a.substr(0, kOffsetBegin) == b.substr(0, kOffsetBegin) &&
         a.substr(kOffsetEnd) == b.substr(kOffsetEnd);
}

}  // namespace

bool Disk::Spend() {
  if (!powered_) return false;
  if (power_left_ && (*power_left_)-- == 0) {
    power_left_.reset();
    powered_ = false;
    Tell(power_fails_);
  }
  return powered_;
}

absl::Status Disk::Write(const WriteBatch& batch) {
  if (!Spend()) return NoPower();
  const bool untold = Untold(batch);
  const bool to_fail = writes_to_fail_ > 0 && !broken_;
  const absl::Status status = engine_->Write(batch);
  if (to_fail) {
    --writes_to_fail_;
    ++failed_;
    Tell(write_fails_);
  }
  if (absl::IsDataLoss(status)) broken_ = true;
  if (status.ok() && !untold) unsynced_ = true;
  return status;
}

// Nobody is told of a measured clock before it counts for a write, or that a refusal is not
// remembered any more.
bool Disk::Untold(const WriteBatch& batch) const {
  const auto& operations = batch.operations();
  return std::all_of(operations.begin(), operations.end(), [&](const WriteBatch::Operation& o) {
    if (o.table != Table::kMeta) return false;
    if (o.kind == WriteBatch::Kind::kDelete) return o.key[0] == kRefusalKind;
    if (o.key != kIdentityKey) return false;
    const auto before = engine_->Get(Table::kMeta, kIdentityKey);
    return before.ok() && SameButForOffset(*before, o.value);
  });
}

absl::Status Disk::Sync() {
  if (!Spend()) return NoPower();
  return SyncEngine();
}

absl::Status Disk::SyncEngine() {
  const bool to_fail = syncs_to_fail_ > 0 && !broken_;
  const absl::Status status = engine_->Sync();
  if (to_fail) {
    --syncs_to_fail_;
    ++failed_;
    Tell(sync_fails_);
  }
  if (absl::IsDataLoss(status)) broken_ = true;
  if (status.ok()) unsynced_ = false;
  return status;
}

absl::Status Disk::Scrub(Table, std::string_view, std::string_view) { return Sync(); }

void Disk::Restart(size_t keep) {
  engine_->Crash(keep);
  powered_ = true;
  power_left_.reset();
  broken_ = false;
  unsynced_ = false;
}

std::optional<DiskImage> Disk::TakeImage() {
  if (!powered_ || broken_) return std::nullopt;
  if (!SyncEngine().ok()) {
    broken_ = true;
    return std::nullopt;
  }
  DiskImage image;
  Visit([&](Table table, std::string_view key, std::string_view value) {
    image.items.push_back({table, std::string(key), std::string(value)});
  });
  return image;
}

void Disk::PutImage(const DiskImage& image) {
  engine_ = std::make_unique<storage::MemoryEngine>();
  writes_to_fail_ = syncs_to_fail_ = 0;
  WriteBatch batch;
  for (const DiskImage::Item& item : image.items) batch.Put(item.table, item.key, item.value);
  CHAPTER_CHECK(engine_->Write(batch).ok());
  Restart(1);
}

void Disk::Visit(
    const std::function<void(Table, std::string_view, std::string_view)>& visit) const {
  const auto snapshot = engine_->NewSnapshot();
  for (int table = 0; table < storage::kTableCount; ++table) {
    const auto it = snapshot->NewIterator(static_cast<Table>(table), "", "");
    for (it->SeekToFirst(); it->Valid(); it->Next()) {
      visit(static_cast<Table>(table), it->key(), it->value());
    }
  }
}

}  // namespace chaptersync::simulation
