// SPDX-License-Identifier: Apache-2.0
//
// A node's side of syncing: keeps one session with the hub open, tries again with
// back-off where it ends, can be paused for good, and tells when everything is on
// both sides. Streams come from a Connector. Any thread may call.
#ifndef CHAPTERSYNC_NODE_SYNC_SYNC_CLIENT_H_
#define CHAPTERSYNC_NODE_SYNC_SYNC_CLIENT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

#include "node/sync/back_off.h"
#include "node/sync/peers.h"
#include "node/sync/session_host.h"
#include "node/sync/waker.h"

namespace chaptersync::node {

// Opens streams to a hub.
class Connector {
 public:
  virtual ~Connector() = default;
  // Connects, for as long as `cancelled` says no, and makes a stream for `host`,
  // which is not begun yet. UNAVAILABLE where the hub cannot be reached;
  virtual absl::StatusOr<std::shared_ptr<Transport>> Connect(
      const std::shared_ptr<SessionHost>& host, const std::function<bool()>& cancelled) = 0;
  // For the log.
  virtual std::string name() const = 0;
};

struct SyncClientOptions {
  // The federation's name where the hub has not said it yet.
  std::string federation;
  // As in SessionConfig.
  uint64_t silence_ms_max = kSilenceMaxMs;
};

class SyncClient final : public Peers {
 public:
  // All outlive the client. Nothing happens before Start.
  SyncClient(SessionGroup& group, Connector& connector, SyncClientOptions options);
  // Stops.
  ~SyncClient() override;
  SyncClient(const SyncClient&) = delete;
  SyncClient& operator=(const SyncClient&) = delete;

  void Start();
  // Ends the session and waits until it has ended; opens no other.
  void Stop();

  std::vector<PeerState> List() override;
  bool paused() const override;
  absl::Status Pause() override;
  absl::Status Resume() override;
  absl::StatusOr<SyncNowResult> SyncNow(std::optional<int64_t> timeout_ms,
                                        const std::function<bool()>& cancelled) override;

  // Sessions that were ready so far.
  uint64_t sessions() const;
  // Why there is no session; empty where there is one or none is wanted.
  std::string error() const;

 private:
  static constexpr const char* kPausedKey = "sync.paused";
  static constexpr const char* kPeerKey = "sync.hub";

  void Run();
  void Try();
  void Progress(const SessionView& view);
  // `kept_out`: the hub does not let this computer in.
  void Ended(const absl::Status& status, bool again_at_once, bool kept_out);
  void TryNow() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool stopping() const;

  SessionGroup& group_;
  Connector& connector_;
  const SyncClientOptions options_;
  Waker waker_;
  std::thread thread_;

  mutable absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool paused_ ABSL_GUARDED_BY(mutex_) = false;
  // Being connected, or in a session.
  bool busy_ ABSL_GUARDED_BY(mutex_) = false;
  std::shared_ptr<SessionHost> host_ ABSL_GUARDED_BY(mutex_);
  SessionView view_ ABSL_GUARDED_BY(mutex_);  // of the session under way
  PeerMemory memory_ ABSL_GUARDED_BY(mutex_);
  std::optional<int64_t> ready_since_ms_ ABSL_GUARDED_BY(mutex_);  // steady clock
  int64_t next_try_ms_ ABSL_GUARDED_BY(mutex_) = 0;                // steady clock
  int again_at_once_ ABSL_GUARDED_BY(mutex_) = 0;                  // in a row
  BackOff back_off_ ABSL_GUARDED_BY(mutex_);
  std::string error_ ABSL_GUARDED_BY(mutex_);  // in plain words
  bool kept_out_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t sessions_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t pulses_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t progress_ ABSL_GUARDED_BY(mutex_) = 0;  // rises with every event
  SessionCounts before_ ABSL_GUARDED_BY(mutex_);   // of the sessions that ended
};

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_SYNC_SYNC_CLIENT_H_
