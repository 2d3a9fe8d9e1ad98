// SPDX-License-Identifier: Apache-2.0
//
// A queue of tasks that puts itself into its executor's queue while it has some,
// at most once.
#include "node/sync/strand.h"

#include <utility>

namespace chaptersync::node {

void Strand::Post(std::function<void()> task) {
  {
    absl::MutexLock lock(&mutex_);
    tasks_.push_back(std::move(task));
    if (scheduled_) return;
    scheduled_ = true;
  }
  executor_.Submit(shared_from_this());
}

void Strand::Forget() {
  std::deque<std::function<void()>> forgotten;  // destroyed without the lock
  absl::MutexLock lock(&mutex_);
  forgotten.swap(tasks_);
  scheduled_ = false;
}

void Strand::RunOne() {
  std::function<void()> task;
  {
    absl::MutexLock lock(&mutex_);
    if (tasks_.empty()) return;
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
  executor_.Submit(shared_from_this());
}

}  // namespace chaptersync::node
