// SPDX-License-Identifier: Apache-2.0
//
// A few threads that run strands: one task of a strand at a time, tasks of
// different strands at the same time. Any thread may submit.
#ifndef CHAPTERSYNC_NODE_SYNC_WORKER_POOL_H_
#define CHAPTERSYNC_NODE_SYNC_WORKER_POOL_H_

#include <deque>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "node/sync/executor.h"
#include "node/sync/strand.h"

namespace chaptersync::node {

class WorkerPool final : public Executor {
 public:
  explicit WorkerPool(int threads);
  // Waits for the tasks that run; those that wait are forgotten, and so is what is
  // posted from then on.
  ~WorkerPool() override;
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // To the end of the queue, from which the threads take.
  void Submit(std::shared_ptr<Strand> strand) override;

 private:
  void Run();

  absl::Mutex mutex_;
  std::deque<std::shared_ptr<Strand>> strands_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_SYNC_WORKER_POOL_H_
