// SPDX-License-Identifier: Apache-2.0
//
// Strands keep their order whatever the number of threads, and a busy one delays
// no other.
#include "node/sync/worker_pool.h"

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/notification.h"
#include <gtest/gtest.h>

namespace chaptersync::node {
namespace {

TEST(WorkerPoolTest, TasksOfAStrandRunInOrderOneAtATime) {
  constexpr int kStrands = 10;
  constexpr int kTasks = 1000;
  std::vector<std::vector<int>> ran(kStrands);
  std::vector<std::atomic<int>> inside(kStrands);
  std::atomic<bool> overlapped = false;
  absl::BlockingCounter left(kStrands * kTasks);
  WorkerPool pool(4);
  std::vector<std::shared_ptr<Strand>> strands;
  for (int i = 0; i < kStrands; ++i) strands.push_back(std::make_shared<Strand>(pool));
  for (int task = 0; task < kTasks; ++task) {
    for (size_t i = 0; i < kStrands; ++i) {
      strands[i]->Post([&, i, task] {
        if (inside[i].fetch_add(1) != 0) overlapped = true;
        ran[i].push_back(task);
        inside[i].fetch_sub(1);
        left.DecrementCount();
      });
    }
  }
  left.Wait();
  EXPECT_FALSE(overlapped);
  for (const std::vector<int>& tasks : ran) {
    for (int task = 0; task < kTasks; ++task) ASSERT_EQ(tasks[static_cast<size_t>(task)], task);
  }
}

TEST(WorkerPoolTest, AStrandWithManyTasksDelaysNoOther) {
  WorkerPool pool(1);
  const auto busy = std::make_shared<Strand>(pool);
  const auto other = std::make_shared<Strand>(pool);
  absl::Notification posted;
  absl::Notification done;
  std::atomic<int> busy_ran = 0;
  std::atomic<int> before_other = -1;
  busy->Post([&] { posted.WaitForNotification(); });
  for (int i = 0; i < 100; ++i) busy->Post([&] { ++busy_ran; });
  other->Post([&] {
    before_other = busy_ran.load();
    done.Notify();
  });
  posted.Notify();
  done.WaitForNotification();
  EXPECT_LE(before_other, 1);
}

TEST(WorkerPoolTest, ItsEndWaitsForWhatRuns) {
  absl::Notification running;
  absl::Notification go_on;
  bool ended = false;
  auto pool = std::make_unique<WorkerPool>(1);
  std::make_shared<Strand>(*pool)->Post([&] {
    running.Notify();
    go_on.WaitForNotification();
    ended = true;
  });
  running.WaitForNotification();
  std::thread ender([&pool] { pool.reset(); });
  go_on.Notify();
  ender.join();
  EXPECT_TRUE(ended);
}

// A task that held its strand's owner was never let go where the pool ended first.
TEST(WorkerPoolTest, ItsEndForgetsWhatWaits) {
  struct Owner {
    std::shared_ptr<Strand> strand;
  };
  absl::Notification running;
  absl::Notification go_on;
  auto pool = std::make_unique<WorkerPool>(1);
  auto owner = std::make_shared<Owner>();
  owner->strand = std::make_shared<Strand>(*pool);
  const std::weak_ptr<Owner> watched = owner;
  owner->strand->Post([&running, &go_on, owner] {
    running.Notify();
    go_on.WaitForNotification();
    owner->strand->Post([owner] {});  // after the pool has begun to end, or before
  });
  owner->strand->Post([owner] {});
  const auto other = std::make_shared<Strand>(*pool);
  other->Post([owner] {});
  owner.reset();
  running.WaitForNotification();
  std::thread ender([&pool] { pool.reset(); });
  go_on.Notify();
  ender.join();
  EXPECT_TRUE(watched.expired());
}

}  // namespace
}  // namespace chaptersync::node
