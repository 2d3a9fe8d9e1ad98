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

class Strand;

class WorkerPool {
 public:
  explicit WorkerPool(int threads);
  // Waits for the tasks that run; those that wait are forgotten, and so is what is
  // posted from then on.
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

 private:
  friend class Strand;

  // Has a thread take one task of the strand. A strand is in the queue at most once.
  void Submit(std::shared_ptr<Strand> strand);
  void Run();

  absl::Mutex mutex_;
  std::deque<std::shared_ptr<Strand>> strands_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

// One strand. Nothing is posted to it once the pool is gone. After each task the
// strand goes to the end of the pool's queue, so that a busy one delays no other.
class Strand : public std::enable_shared_from_this<Strand> {
 public:
  explicit Strand(WorkerPool& pool) : pool_(pool) {}

  // The queue's bound is its user's: see SessionHost.
  void Post(std::function<void()> task);

 private:
  friend class WorkerPool;

  void RunOne();
  // The pool has stopped. Tasks may hold whoever holds the strand, so they must go.
  void Forget();

  WorkerPool& pool_;
  absl::Mutex mutex_;
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mutex_);
  bool scheduled_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_SYNC_WORKER_POOL_H_
