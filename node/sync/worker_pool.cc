// SPDX-License-Identifier: Apache-2.0
//
// Threads that take strands from one queue and run a task of each; a strand that
// has more comes back to the end.
#include "node/sync/worker_pool.h"

#include <utility>

namespace chaptersync::node {

WorkerPool::WorkerPool(int threads) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Run(); });
}

WorkerPool::~WorkerPool() {
  std::deque<std::shared_ptr<Strand>> forgotten;
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    forgotten.swap(strands_);
  }
  for (const auto& strand : forgotten) strand->Forget();
  for (std::thread& thread : threads_) thread.join();
}

void WorkerPool::Submit(std::shared_ptr<Strand> strand) {
  {
    absl::MutexLock lock(&mutex_);
    if (!stopping_) return strands_.push_back(std::move(strand));
  }
  strand->Forget();
}

void WorkerPool::Run() {
  while (true) {
    std::shared_ptr<Strand> strand;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(
          +[](WorkerPool* pool) ABSL_SHARED_LOCKS_REQUIRED(pool->mutex_) {
            return pool->stopping_ || !pool->strands_.empty();
          },
          this));
      if (stopping_) return;
      strand = std::move(strands_.front());
      strands_.pop_front();
    }
    strand->RunOne();
  }
}

}  // namespace chaptersync::node
