// SPDX-License-Identifier: Apache-2.0
//
// An engine that passes everything on to another, and reports when that one lost
// data: after a failed fsync nobody knows what is on disk, and the process has to
// open it anew. Any thread.
#ifndef CHAPTERSYNC_NODE_DAEMON_ENGINE_WATCH_H_
#define CHAPTERSYNC_NODE_DAEMON_ENGINE_WATCH_H_

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "storage/engine/engine.h"

namespace chaptersync::node {

class EngineWatch final : public storage::Engine {
 public:
  // `lost` may be called several times, from any thread; it must not use the engine.
  EngineWatch(std::unique_ptr<storage::Engine> engine,
              std::function<void(const absl::Status&)> lost)
      : engine_(std::move(engine)), lost_(std::move(lost)) {}

  absl::Status Write(const storage::WriteBatch& batch) override {
    return Look(engine_->Write(batch));
  }
  absl::Status Sync() override { return Look(engine_->Sync()); }
  absl::StatusOr<std::string> Get(storage::Table table, std::string_view key) const override {
    return engine_->Get(table, key);
  }
  std::unique_ptr<storage::Snapshot> NewSnapshot() const override { return engine_->NewSnapshot(); }
  absl::Status Scrub(storage::Table table, std::string_view lower,
                     std::string_view upper) override {
    return Look(engine_->Scrub(table, lower, upper));
  }
  storage::FileIngester* file_ingester() override { return engine_->file_ingester(); }

 private:
  absl::Status Look(absl::Status status) const {
    if (absl::IsDataLoss(status)) lost_(status);
    return status;
  }

  const std::unique_ptr<storage::Engine> engine_;
  const std::function<void(const absl::Status&)> lost_;
};

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_DAEMON_ENGINE_WATCH_H_
