// SPDX-License-Identifier: Apache-2.0
//
// For tests: an executor that is a plain queue, run by the test's one thread and
// only when the test says so; and a stream without a peer, that counts.
#ifndef CHAPTERSYNC_TESTS_NODE_SYNC_QUEUE_EXECUTOR_H_
#define CHAPTERSYNC_TESTS_NODE_SYNC_QUEUE_EXECUTOR_H_

#include <cstddef>
#include <deque>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/status.h"

#include "node/sync/executor.h"
#include "node/sync/session_host.h"
#include "node/sync/strand.h"

namespace chaptersync::node {

class QueueExecutor final : public Executor {
 public:
  ~QueueExecutor() override { Forget(); }

  void Submit(std::shared_ptr<Strand> strand) override { strands_.push_back(std::move(strand)); }

  // One task of the strand that waits longest. False where there is none.
  bool RunOne() {
    if (strands_.empty()) return false;
    const std::shared_ptr<Strand> strand = std::move(strands_.front());
    strands_.pop_front();
    strand->RunOne();
    return true;
  }
  // Until nothing waits; how many tasks that took.
  size_t Run() {
    size_t tasks = 0;
    while (RunOne()) ++tasks;
    return tasks;
  }
  void Forget() {
    for (const auto& strand : std::exchange(strands_, {})) strand->Forget();
  }
  size_t size() const { return strands_.size(); }

 private:
  std::deque<std::shared_ptr<Strand>> strands_;
};

// A stream on which the test is the peer. One thread.
class HandStream final : public Transport {
 public:
  // `held`: after Close the host is told that the stream is over by Release only.
  explicit HandStream(std::weak_ptr<SessionHost> host, bool held = false)
      : host_(std::move(host)), held_(held) {}

  void Read() override { ++reads; }
  void Send(v1::SyncMessage message) override {
    if (message.has_welcome()) welcomed = true;
  }
  void Close(const absl::Status& status) override {
    closed = status;
    if (!held_) Release();
  }
  size_t backlog_bytes() const override { return backlog; }
  void Tick() override { ++ticks; }

  // The stream is over.
  void Release() {
    if (const auto host = host_.lock()) host->StreamClosed(closed.value_or(absl::OkStatus()));
  }

  int reads = 0;
  int ticks = 0;
  bool welcomed = false;
  std::optional<absl::Status> closed;
  size_t backlog = 0;

 private:
  const std::weak_ptr<SessionHost> host_;
  const bool held_;
};

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_TESTS_NODE_SYNC_QUEUE_EXECUTOR_H_
