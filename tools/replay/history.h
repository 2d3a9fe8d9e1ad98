// SPDX-License-Identifier: Apache-2.0
//
// Replays a history: replicas, local writes and syncs, one JSON object a line,
// through the product's own replica and session, in one thread. docs/replay.md
// describes the form. Nothing here knows what must come out.
#ifndef CHAPTERSYNC_TOOLS_REPLAY_HISTORY_H_
#define CHAPTERSYNC_TOOLS_REPLAY_HISTORY_H_

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "node/entity/registry.h"
#include "node/session/session.h"
#include "storage/engine/engine.h"
#include "storage/replica/replica.h"

namespace chaptersync::tools {

// Makes the engine of one replica.
using EngineFactory =
    std::function<absl::StatusOr<std::unique_ptr<storage::Engine>>(const std::string& replica)>;

// A sync that is cut off before it runs whole.
struct Cut {
  uint64_t messages = 0;    // delivered before the cut
  bool crash_node = false;  // the side loses what it had not synced, and starts again
  bool crash_hub = false;
};

class History {
 public:
  explicit History(EngineFactory make_engine);
  ~History();

  // Carries out one line. INVALID_ARGUMENT where it cannot be read: nothing was
  // done. An operation that cannot be done (a write to what is deleted) does
  // nothing and is OK.
  absl::Status Run(const std::string& line);
  // What every replica holds: one JSON object per replica and record, sorted.
  absl::StatusOr<std::vector<std::string>> Result() const;

  const node::SessionCounts& counts() const { return counts_; }

  // For tests: before each sync, numbered from 1, one that is cut as `cut` says;
  // `crash` makes an engine lose what was not synced.
  void set_cut(std::function<std::optional<Cut>(uint64_t sync)> cut,
               std::function<void(storage::Engine&)> crash) {
    cut_ = std::move(cut);
    crash_ = std::move(crash);
  }
  // Messages of the longest sync so far.
  uint64_t messages_most() const { return messages_most_; }

 private:
  struct Member;

  absl::Status AddReplica(const std::string& name, uint64_t id, bool hub,
                          const std::string& chapter);
  absl::Status Open(Member& member);
  absl::Status Sync(Member& node, Member& hub, std::optional<Cut> cut);
  // As in the model nothing waits for an officer: whatever would is approved at once.
  absl::Status SyncAndApprove(Member& node, Member& hub);
  absl::StatusOr<Member*> Find(const std::string& name);

  EngineFactory make_engine_;
  node::EntityRegistry registry_;
  std::map<std::string, std::unique_ptr<Member>> members_;
  std::map<storage::RecordId, std::string> names_;
  node::SessionCounts counts_;
  std::function<std::optional<Cut>(uint64_t)> cut_;
  std::function<void(storage::Engine&)> crash_;
  uint64_t syncs_ = 0;
  uint64_t messages_most_ = 0;
};

}  // namespace chaptersync::tools

#endif  // CHAPTERSYNC_TOOLS_REPLAY_HISTORY_H_
