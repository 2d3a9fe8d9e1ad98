// SPDX-License-Identifier: Apache-2.0
//
// A few threads, and strands on them: tasks of one strand run one after the
// other in the order in which they were posted, tasks of different strands at
// the same time. Any thread may post.
#ifndef CHAPTERSYNC_NODE_SYNC_WORKER_POOL_H_
#define CHAPTERSYNC_NODE_SYNC_WORKER_POOL_H_

#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace chaptersync::node {

class WorkerPool {
 public:
  explicit WorkerPool(int threads);
  // Waits for the tasks that run; those that wait are forgotten.
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // The queue's bound is that of what posts to it: a strand is in it at most once.
  void Submit(std::function<void()> task);

 private:
  void Run();

  absl::Mutex mutex_;
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

// One strand. The pool outlives it. After each task the strand goes to the end of
// the pool's queue, so that a busy one delays no other.
class Strand : public std::enable_shared_from_this<Strand> {
 public:
  explicit Strand(WorkerPool& pool) : pool_(pool) {}

  // The queue's bound is its user's: see SessionHost.
  void Post(std::function<void()> task);

 private:
  void RunOne();

  WorkerPool& pool_;
  absl::Mutex mutex_;
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mutex_);
  bool scheduled_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_SYNC_WORKER_POOL_H_
