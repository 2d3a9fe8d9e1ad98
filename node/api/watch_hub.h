// SPDX-License-Identifier: Apache-2.0
//
// Streams of changes to whoever watches. The replica's commits come in on their
// own threads and only fill queues; one thread of the hub reads the records and
// speaks on all streams, so that no stream is written to by two.
#ifndef CHAPTERSYNC_NODE_API_WATCH_HUB_H_
#define CHAPTERSYNC_NODE_API_WATCH_HUB_H_

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include <grpcpp/support/server_callback.h>

#include "chaptersync/v1/records_service.pb.h"
#include "node/api/context.h"

namespace chaptersync::node {

class WatchHub {
 public:
  using Reactor = grpc::ServerWriteReactor<v1::WatchRecordsResponse>;

  explicit WatchHub(const ApiContext& api);
  // Ends all watches as Stop does and waits until gRPC has let go of them.
  ~WatchHub();
  WatchHub(const WatchHub&) = delete;
  WatchHub& operator=(const WatchHub&) = delete;

  // A stream of the changes from now on, of one entity or of all; owned by the
  // hub. Headers go out at once. RESOURCE_EXHAUSTED where there are too many.
  Reactor* Watch(std::optional<storage::EntityNumber> entity);
  // Ends every watch, and every later one, with UNAVAILABLE.
  void Stop();

 private:
  class Stream;
  // A stream's next step, found under the lock and taken without it.
  struct Step;

  void OnCommit(const std::vector<storage::ChangeEvent>& events) ABSL_LOCKS_EXCLUDED(mutex_);
  void Run() ABSL_LOCKS_EXCLUDED(mutex_);
  Step Next(Stream& stream) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Wake(const std::shared_ptr<Stream>& stream) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  v1::WatchRecordsResponse Show(const storage::ChangeEvent& event) const;

  const ApiContext api_;
  absl::Mutex mutex_;
  std::map<uint64_t, std::shared_ptr<Stream>> streams_ ABSL_GUARDED_BY(mutex_);
  uint64_t last_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<std::shared_ptr<Stream>> ready_ ABSL_GUARDED_BY(mutex_);  // each at most once
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t subscription_ = 0;
  std::thread thread_;
};

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_API_WATCH_HUB_H_
