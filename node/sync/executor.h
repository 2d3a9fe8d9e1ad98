// SPDX-License-Identifier: Apache-2.0
//
// What runs strands: threads in production (WorkerPool), a queue in one thread
// where every step must come back the same.
#ifndef CHAPTERSYNC_NODE_SYNC_EXECUTOR_H_
#define CHAPTERSYNC_NODE_SYNC_EXECUTOR_H_

#include <memory>

namespace chaptersync::node {

class Strand;

// Outlives its strands.
class Executor {
 public:
  virtual ~Executor() = default;
  // Takes a strand that has tasks and later calls RunOne on it once, or Forget. A strand is
  // in here at most once: after the task it is submitted again where it has more. Called by
  // whoever posts, who may hold locks: must not run the strand before it returns.
  virtual void Submit(std::shared_ptr<Strand> strand) = 0;
};

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_SYNC_EXECUTOR_H_
