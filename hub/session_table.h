// SPDX-License-Identifier: Apache-2.0
//
// The hub's open sessions: which node each one is, one at a time for a replica,
// and what is remembered of a node when its session ends. Hears from the hosts'
// strands what comes of them. Any thread; waits only for the replica's settings.
// Knows no network.
#ifndef CHAPTERSYNC_HUB_SESSION_TABLE_H_
#define CHAPTERSYNC_HUB_SESSION_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

#include "node/sync/limits.h"
#include "node/sync/peers.h"
#include "node/sync/session_host.h"
#include "storage/replica/replica.h"

namespace chaptersync::hub {

// A peer that has proved who it is, and what it may have.
struct Admission {
  storage::NodeId node;
  storage::ReplicaId replica;
  std::vector<storage::ReplicaId> former;  // ids that it has given up
  std::set<storage::Scope> scopes;         // empty for a hub
  std::string name;                        // for the log
};

class SessionTable {
 public:
  // The replica outlives the table. At most `sessions_max` sessions at once.
  explicit SessionTable(storage::Replica& replica, size_t sessions_max = node::kStreamsMax);
  SessionTable(const SessionTable&) = delete;
  SessionTable& operator=(const SessionTable&) = delete;

  // Takes a session before it begins; `certified` is whom its certificate names. RESOURCE_EXHAUSTED
  // where there are as many as there may be, at all or under that name: then the host must not
  // begin.
  absl::Status Add(std::shared_ptr<node::SessionHost> host,
                   std::optional<storage::NodeId> certified = std::nullopt);

  // Answers SessionHostOptions::authorize of a session that was added. Earlier sessions of the
  // same replica are stopped, and those of the same node under an id that it has given up since:
  // what is still on its way there must not be judged after what it says here. `done` is called
  // once they all have ended, by the last one's Ended; without any, before Admit returns.
  // PERMISSION_DENIED where the replica is another node's in a session that has not ended. `done`
  // is never called for a session that has ended already.
  void Admit(uint64_t serial, Admission who, std::function<void(node::Authorized)> done);

  // Ends what goes on under a certificate's name.
  void Stop(const storage::NodeId& certified, const absl::Status& why);

  // SessionHostOptions::progress.
  void Progress(const node::SessionView& view);

  // SessionHostOptions::ended: forgets the session, once what the hub remembers of a
  // node is written. Of a session that is not here: nothing.
  void Ended(uint64_t serial);

  size_t size() const;
  // The open sessions that are ready, by node; of several the one that began last.
  std::map<storage::NodeId, node::SessionView> Ready() const;
  // What was known of a node when its last session ended.
  node::PeerMemory Remembered(const storage::NodeId& node) const;

 private:
  struct Live {
    std::shared_ptr<node::SessionHost> host;
    std::optional<storage::NodeId> certified;
    std::optional<storage::NodeId> node;  // once it is known who it is
    std::optional<storage::ReplicaId> replica;
    node::SessionView view;
    bool over = false;  // and what is remembered of it is being written
    std::vector<std::function<void()>> when_ended;
  };

  // The verdict, or none where `done` is left with sessions that must end first.
  std::optional<node::Authorized> Decide(uint64_t serial, Admission who,
                                         const std::function<void(node::Authorized)>& done);

  storage::Replica& replica_;
  const size_t sessions_max_;
  mutable absl::Mutex mutex_;
  std::map<uint64_t, Live> live_ ABSL_GUARDED_BY(mutex_);  // by serial, at most sessions_max_
};

}  // namespace chaptersync::hub

#endif  // CHAPTERSYNC_HUB_SESSION_TABLE_H_
