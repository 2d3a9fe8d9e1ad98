// SPDX-License-Identifier: Apache-2.0
//
// Runs sync sessions against a replica. Messages, commits and time come in from
// any thread and become a session's events on its strand, where its effects are
// carried out in order: replica calls, which wait for the disk, and messages to
// a transport. Knows no network.
#ifndef CHAPTERSYNC_NODE_SYNC_SESSION_HOST_H_
#define CHAPTERSYNC_NODE_SYNC_SESSION_HOST_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

#include "node/session/session.h"
#include "node/sync/executor.h"
#include "node/sync/limits.h"
#include "node/sync/strand.h"
#include "node/sync/waker.h"
#include "node/sync/worker_pool.h"
#include "storage/replica/replica.h"

namespace chaptersync::node {

// One stream, as a session host uses it. Called on the host's strand only.
class Transport {
 public:
  virtual ~Transport() = default;
  // Asks for one message more: SessionHost::MessageArrived.
  virtual void Read() = 0;
  // Takes a message to be sent after those before it. Its queue is bounded by the
  // session's window and, at an acceptor, by SessionHost::backlog_bytes_max.
  virtual void Send(v1::SyncMessage message) = 0;
  // Ends the stream; an acceptor tells the peer `status`. SessionHost::StreamClosed
  // follows. What was not sent yet is not sent. No call but Tick comes after it.
  virtual void Close(const absl::Status& status) = 0;
  // Bytes taken and not sent yet. Each time that they come down to
  // SessionHost::backlog_bytes_max or below after more, the transport calls
  // SessionHost::Drained; without it the session stands still.
  virtual size_t backlog_bytes() const = 0;
  // Called every kTickMs.
  virtual void Tick() {}
};

// What others may know of a session, as it was after its last event.
struct SessionView {
  uint64_t serial = 0;  // counts the sessions of a group, from 1
  bool ready = false;
  storage::PeerIdentity peer;
  std::string federation;
  std::map<storage::Scope, storage::Sequence> acknowledged;  // by the peer, of our feeds
  std::map<storage::Scope, storage::Sequence> received;      // by us, of the peer's feeds
  SessionCounts counts;
  std::set<storage::EntityNumber> held_back;
  uint64_t last_in_ms = 0;  // wall clock; 0: nothing came yet
  uint64_t pulse_answered = 0;
  std::vector<storage::FeedCursor> peer_ends;
};

class SessionGroup;

struct SessionHostOptions {
  SessionConfig config;
  // Who it is, for the log.
  std::string name;
  // An acceptor's: says who a node is; `done` may be called later, from any thread.
  std::function<void(const Authorize& who, std::function<void(Authorized)> done)> authorize;
  // After each event, on the strand.
  std::function<void(const SessionView&)> progress;
  // Once, as the last call, on the strand: why it ended.
  std::function<void(const absl::Status&, bool again_at_once)> ended;
  // Until the session must be ready, in milliseconds.
  int64_t handshake_ms_max = kHandshakeMsMax;
  // While more waits to be sent, feeds are not read, and an acceptor reads no message.
  size_t backlog_bytes_max = kBacklogBytesMax;
};

class SessionHost : public std::enable_shared_from_this<SessionHost> {
 public:
  // Use SessionGroup::Start.
  SessionHost(SessionGroup& group, uint64_t serial, SessionHostOptions options);

  // --- The transport's side; any thread. ---
  void MessageArrived(v1::SyncMessage message);
  // The peer ends the stream, or it broke. The host closes it.
  void StreamBroken(absl::Status status);
  // The stream is over; nothing comes after it. `last` is let go on the strand.
  void StreamClosed(absl::Status status, std::shared_ptr<void> last = nullptr);
  void Drained();

  // --- Any thread. ---
  // Ends the session; the peer is told `status` where this side accepted it.
  void Stop(absl::Status status);
  // Asks the peer how far its feeds go: SessionView::pulse_answered, peer_ends.
  void Ask(uint64_t number);
  uint64_t serial() const { return serial_; }
  size_t backlog_bytes_max() const { return options_.backlog_bytes_max; }
  // The name by which the log knows it from now on.
  void Rename(std::string name);

 private:
  friend class SessionGroup;

  void Begin(std::shared_ptr<Transport> transport);
  void ReplicaChanged();
  void Tick();

  // Below: on the strand.
  void Handle(Event event);
  void Carry(Effect& effect);
  // Whether the effect waits until less is to be sent.
  bool Waits(const Effect& effect) const;
  void GoOn();
  void MaybeRead();
  void Publish();
  void Over(const absl::Status& status);

  SessionGroup& group_;
  const uint64_t serial_;
  SessionHostOptions options_;
  const std::shared_ptr<Strand> strand_;

  absl::Mutex mutex_;
  // Events that are posted already; more of their kind would say nothing more.
  bool change_pending_ ABSL_GUARDED_BY(mutex_) = false;
  bool tick_pending_ ABSL_GUARDED_BY(mutex_) = false;

  Session session_;
  std::shared_ptr<Transport> transport_;
  // Reads that wait for the backlog to go down: one for each feed that the peer
  // follows, and one for what it asked for.
  std::vector<Effect> waiting_;
  bool reading_ = false;
  bool broken_ = false;
  bool over_ = false;
  // Of a Stop that came before the stream.
  absl::Status stopped_early_;
  absl::Status end_status_;
  bool again_at_once_ = false;
  const int64_t began_ms_;  // steady clock
  SessionView view_;
};

// What runs the sessions of a group that has no threads of its own.
struct SessionGroupSeams {
  Executor* executor = nullptr;        // outlives the group's hosts
  std::function<int64_t()> steady_ms;  // a clock that never goes back, in milliseconds
};

// The sessions of one replica: their threads, their clock, and the news of its
// commits. Outlived by the replica; outlives its hosts' streams.
class SessionGroup {
 public:
  SessionGroup(storage::Replica& replica, storage::Environment& environment,
               int workers = kSessionWorkers);
  // Makes no threads: nothing happens but in the seams' executor, and time passes
  // only as the owner calls Tick.
  SessionGroup(storage::Replica& replica, storage::Environment& environment,
               SessionGroupSeams seams);
  // Sessions should have ended before: those that have not are forgotten. Strands of
  // theirs may still be in an executor of the owner's: it calls Strand::Forget on
  // each, before or after, and runs none of them once the group is gone.
  ~SessionGroup();
  SessionGroup(const SessionGroup&) = delete;
  SessionGroup& operator=(const SessionGroup&) = delete;

  // Prepares a session; Begin gives it its stream and starts it.
  std::shared_ptr<SessionHost> Make(SessionHostOptions options);
  void Begin(const std::shared_ptr<SessionHost>& host, std::shared_ptr<Transport> transport);

  // Stops every session, also those that begin later, and waits until all have
  // ended, at most for `wait_max`. False where some have not. Where the caller is also
  // the one who runs the executor, `wait_max` is 0, and size() tells when they have.
  bool StopAll(const absl::Status& status, absl::Duration wait_max);
  size_t size() const;

  // For a group with seams: kTickMs have gone by. Ends what has lasted too long.
  void Tick();

  storage::Replica& replica() { return replica_; }
  storage::Environment& environment() { return environment_; }

 private:
  friend class SessionHost;

  void Subscribe();
  void RunClock();
  void Ended(uint64_t serial);
  std::vector<std::shared_ptr<SessionHost>> Hosts() const;

  storage::Replica& replica_;
  storage::Environment& environment_;
  mutable absl::Mutex mutex_;
  std::map<uint64_t, std::shared_ptr<SessionHost>> hosts_ ABSL_GUARDED_BY(mutex_);
  uint64_t serial_last_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status stopped_ ABSL_GUARDED_BY(mutex_);  // of StopAll
  uint64_t subscription_ = 0;
  const std::function<int64_t()> steady_ms_;
  Waker clock_waker_;
  // Its tasks use what is above. None with seams.
  const std::unique_ptr<WorkerPool> pool_;
  Executor& executor_;
  std::thread clock_;  // none with seams
};

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_SYNC_SESSION_HOST_H_
