// SPDX-License-Identifier: Apache-2.0
//
// Threads that take tasks from one queue; a strand puts itself into it while it
// has tasks.
#include "node/sync/worker_pool.h"

#include <utility>

namespace chaptersync::node {

WorkerPool::WorkerPool(int threads) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Run(); });
}

WorkerPool::~WorkerPool() {
  std::deque<std::function<void()>> forgotten;  // destroyed without the lock
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    forgotten.swap(tasks_);
  }
  for (std::thread& thread : threads_) thread.join();
}

void WorkerPool::Submit(std::function<void()> task) {
  absl::MutexLock lock(&mutex_);
  if (!stopping_) tasks_.push_back(std::move(task));
}

void WorkerPool::Run() {
  while (true) {
    std::function<void()> task;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(
          +[](WorkerPool* pool) ABSL_SHARED_LOCKS_REQUIRED(pool->mutex_) {
            return pool->stopping_ || !pool->tasks_.empty();
          },
          this));
      if (stopping_) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

void Strand::Post(std::function<void()> task) {
  {
    absl::MutexLock lock(&mutex_);
    tasks_.push_back(std::move(task));
    if (scheduled_) return;
    scheduled_ = true;
  }
  pool_.Submit([self = shared_from_this()] { self->RunOne(); });
}

void Strand::RunOne() {
  std::function<void()> task;
  {
    absl::MutexLock lock(&mutex_);
    task = std::move(tasks_.front());
    tasks_.pop_front();
  }
  task();
  task = nullptr;
  {
    absl::MutexLock lock(&mutex_);
    if (tasks_.empty()) {
      scheduled_ = false;
      return;
    }
  }
  pool_.Submit([self = shared_from_this()] { self->RunOne(); });
}

}  // namespace chaptersync::node
