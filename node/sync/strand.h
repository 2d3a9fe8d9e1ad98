// SPDX-License-Identifier: Apache-2.0
//
// Tasks that run one after the other in the order in which they were posted, on
// an executor that runs other strands at the same time. Any thread may post.
#ifndef CHAPTERSYNC_NODE_SYNC_STRAND_H_
#define CHAPTERSYNC_NODE_SYNC_STRAND_H_

#include <deque>
#include <functional>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "node/sync/executor.h"

namespace chaptersync::node {

// One strand. Nothing is posted to it once its executor is gone. After each task it is
// submitted anew, so that with an executor that keeps the order a busy one delays no other.
class Strand : public std::enable_shared_from_this<Strand> {
 public:
  explicit Strand(Executor& executor) : executor_(executor) {}

  // The queue's bound is its user's: see SessionHost.
  void Post(std::function<void()> task);

  // --- For executors, of a strand that they took out of their queue and still hold. ---

  // Runs its first task, then submits it again where it has more. One thread at a time.
  // Does nothing where all were forgotten.
  void RunOne();
  // Lets its tasks go without running them. They may hold whoever holds the strand, so an
  // executor that ends does this with each that it has.
  void Forget();

 private:
  Executor& executor_;
  absl::Mutex mutex_;
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mutex_);
  bool scheduled_ ABSL_GUARDED_BY(mutex_) = false;  // submitted, or in RunOne
};

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_SYNC_STRAND_H_
