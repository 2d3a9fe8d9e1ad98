// SPDX-License-Identifier: Apache-2.0
//
// The sessions by serial. What is known of a node outlives its session in the
// setting `peer/<id>`. Callbacks run without the lock.
#include "hub/session_table.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"

#include "storage/core/planted.h"

namespace chaptersync::hub {
namespace {

using node::Authorized;
using storage::NodeId;
using storage::ReplicaId;

std::string MemoryKey(const NodeId& node) { return "peer/" + node.ToString(); }

}  // namespace

SessionTable::SessionTable(storage::Replica& replica, size_t sessions_max)
    : replica_(replica), sessions_max_(sessions_max) {}

absl::Status SessionTable::Add(std::shared_ptr<node::SessionHost> host,
                               std::optional<NodeId> certified) {
  absl::MutexLock lock(&mutex_);
  if (live_.size() >= sessions_max_) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the hub serves ", live_.size(), " streams already"));
  }
  const auto of_same = std::count_if(live_.begin(), live_.end(), [&](const auto& entry) {
    return certified && entry.second.certified == certified;
  });
  if (static_cast<size_t>(of_same) >= node::kStreamsPerNodeMax) {
    return absl::ResourceExhaustedError(absl::StrCat("this computer has ", of_same,
                                                     " streams open already, at most ",
                                                     node::kStreamsPerNodeMax, " are served"));
  }
  Live& live = live_[host->serial()];
  live.host = std::move(host);
  live.certified = certified;
  return absl::OkStatus();
}

void SessionTable::Stop(const NodeId& certified, const absl::Status& why) {
  if (storage::IsPlanted(storage::Planted::kOutAndGoesOn) && absl::IsPermissionDenied(why)) return;
  absl::MutexLock lock(&mutex_);
  for (auto& [serial, live] : live_) {
    if (live.certified == certified) live.host->Stop(why);
  }
}

void SessionTable::Admit(uint64_t serial, Admission who, std::function<void(Authorized)> done) {
  const auto verdict = Decide(serial, std::move(who), done);
  if (verdict) done(*verdict);
}

std::optional<Authorized> SessionTable::Decide(uint64_t serial, Admission who,
                                               const std::function<void(Authorized)>& done) {
  absl::MutexLock lock(&mutex_);
  const auto self = live_.find(serial);
  if (self == live_.end() || self->second.over) return std::nullopt;
  std::vector<Live*> earlier;
  for (auto& [other, live] : live_) {
    if (other == serial) continue;
    const bool of_former =
        live.node == who.node && live.replica &&
        std::find(who.former.begin(), who.former.end(), *live.replica) != who.former.end();
    if (of_former) earlier.push_back(&live);
    if (of_former || live.replica != who.replica) continue;
    if (live.node != who.node) {
      return Authorized{absl::PermissionDeniedError(absl::StrCat(
                            "replica ", storage::ToHex(who.replica.value), " is another node's")),
                        {}};
    }
    earlier.push_back(&live);
  }
  self->second.node = who.node;
  self->second.replica = who.replica;
  self->second.host->Rename(std::move(who.name));
  Authorized yes{absl::OkStatus(), std::move(who.scopes)};
  if (earlier.empty()) return yes;
  // The earlier ones have made their last change before this one is answered: a
  // cursor must not go back under a node that has been told of it.
  const auto left = std::make_shared<std::atomic<size_t>>(earlier.size());
  for (Live* live : earlier) {
    live->when_ended.push_back([left, yes, done] {
      if (left->fetch_sub(1) == 1) done(yes);
    });
    live->host->Stop(absl::AbortedError("a newer session of the same computer took over"));
  }
  return std::nullopt;
}

void SessionTable::Progress(const node::SessionView& view) {
  absl::MutexLock lock(&mutex_);
  const auto it = live_.find(view.serial);
  if (it != live_.end()) it->second.view = view;
}

void SessionTable::Ended(uint64_t serial) {
  std::optional<NodeId> met;
  node::PeerMemory memory;
  {
    absl::MutexLock lock(&mutex_);
    const auto it = live_.find(serial);
    if (it == live_.end()) return;
    it->second.over = true;
    if (it->second.view.peer.replica != ReplicaId{} && !it->second.view.peer.hub) {
      met = it->second.node;
      memory.replica = it->second.view.peer.replica;
      memory.last_contact_ms = it->second.view.last_in_ms;
      memory.acknowledged = it->second.view.acknowledged;
    }
  }
  // Before the session goes from the list, or the node would for a moment be one that never came.
  if (met) {
    // For status only: what stands in the way of it stands in the way of more.
    node::SavePeerMemory(replica_, MemoryKey(*met), memory).IgnoreError();
  }
  std::vector<std::function<void()>> when_ended;
  {
    absl::MutexLock lock(&mutex_);
    const auto it = live_.find(serial);
    if (it == live_.end()) return;
    when_ended.swap(it->second.when_ended);
    live_.erase(it);
  }
  for (const auto& call : when_ended) call();
}

size_t SessionTable::size() const {
  absl::MutexLock lock(&mutex_);
  return live_.size();
}

std::map<NodeId, node::SessionView> SessionTable::Ready() const {
  std::map<NodeId, node::SessionView> views;
  absl::MutexLock lock(&mutex_);
  for (const auto& [serial, live] : live_) {
    if (live.node && live.view.ready) views[*live.node] = live.view;
  }
  return views;
}

node::PeerMemory SessionTable::Remembered(const NodeId& node) const {
  return node::LoadPeerMemory(replica_, MemoryKey(node));
}

}  // namespace chaptersync::hub
