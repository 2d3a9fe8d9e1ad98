// SPDX-License-Identifier: Apache-2.0
//
// How a replica stands with its peers, whoever keeps the sessions: the client of
// a node or the server of a hub. What the local services show and steer. All
// methods may be called from any thread.
#ifndef CHAPTERSYNC_NODE_SYNC_PEERS_H_
#define CHAPTERSYNC_NODE_SYNC_PEERS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "storage/core/types.h"
#include "storage/replica/replica.h"

namespace chaptersync::node {

// What is remembered of a peer, also while there is no session and after a restart.
struct PeerMemory {
  storage::ReplicaId replica;    // 0: never met
  uint64_t last_contact_ms = 0;  // wall clock; 0: never
  std::string federation;        // a hub's, as it says
  // How far it has come in this replica's feeds.
  std::map<storage::Scope, storage::Sequence> acknowledged;
};

// Kept as a setting of the replica, as JSON. What cannot be read was never there.
PeerMemory LoadPeerMemory(const storage::Replica& replica, const std::string& key);
absl::Status SavePeerMemory(storage::Replica& replica, const std::string& key,
                            const PeerMemory& memory);

// How this replica stands with a peer in one scope.
struct PeerScopeState {
  storage::Scope scope;
  // How far the peer has acknowledged this replica's feed; none where the peer
  // does not follow it.
  std::optional<storage::Sequence> acknowledged;
  // Whether this replica has all that the peer's feed had when it was last asked.
  std::optional<bool> caught_up;
};

struct PeerState {
  std::string name;
  storage::NodeId node;
  storage::ReplicaId replica;
  bool connected = false;
  uint64_t last_contact_ms = 0;  // wall clock; 0: never
  std::string error;             // why there is no session, in plain words
  bool kept_out = false;         // that is since the peer does not let this computer in
  std::vector<PeerScopeState> scopes;
  std::set<storage::EntityNumber> held_back;
};

struct SyncNowResult {
  uint64_t sent = 0;      // records
  uint64_t received = 0;  // records
  std::set<storage::EntityNumber> held_back;
};

class Peers {
 public:
  virtual ~Peers() = default;
  virtual std::vector<PeerState> List() = 0;
  virtual bool paused() const { return false; }
  virtual absl::Status Pause() = 0;
  virtual absl::Status Resume() = 0;
  // Returns once everything that either side held when it began is durable at the
  // other. `cancelled` is asked every now and then. DEADLINE_EXCEEDED after
  // `timeout_ms` (none: no limit), with the reason where one is known;
  // FAILED_PRECONDITION where syncing is paused, and at a hub.
  virtual absl::StatusOr<SyncNowResult> SyncNow(std::optional<int64_t> timeout_ms,
                                                const std::function<bool()>& cancelled) = 0;
};

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_SYNC_PEERS_H_
