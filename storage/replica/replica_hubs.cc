// SPDX-License-Identifier: Apache-2.0
//
// What a replica knows of hubs other than the one it is with, and tells of them: who has
// begun a new epoch, and how far others have come in whose feed.
#include <algorithm>

#include "absl/cleanup/cleanup.h"

#include "storage/core/limits.h"
#include "storage/core/planted.h"
#include "storage/core/record_codec.h"
#include "storage/core/status.h"
#include "storage/replica/hub_epochs.h"
#include "storage/replica/keys.h"
#include "storage/replica/meta_values.h"
#include "storage/replica/replica.h"

namespace chaptersync::storage {

absl::StatusOr<HubEpochs> Replica::EpochsOf(const NodeId& hub) const {
  auto bytes = engine_.Get(Table::kMeta, keys::HubEpochsOf(hub));
  if (absl::IsNotFound(bytes.status())) return HubEpochs{};
  CHAPTER_RETURN_IF_ERROR(bytes.status());
  return DecodeHubEpochs(*bytes);
}

absl::StatusOr<bool> Replica::DroppedAtWordOf(const NodeId& hub, Epoch epoch) const {
  const std::string prefix(1, keys::kDroppedKind);
  auto snapshot = engine_.NewSnapshot();
  auto it = snapshot->NewIterator(Table::kMeta, prefix, keys::PrefixEnd(prefix));
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    CHAPTER_ASSIGN_OR_RETURN(const LeavingValue value, DecodeLeaving(it->value()));
    if (value.Find(hub, epoch) != nullptr) return true;
  }
  CHAPTER_RETURN_IF_ERROR(it->status());
  return false;
}

HubsTold Replica::TellOfHubs(uint64_t told) const {
  HubsTold about;
  absl::ReaderMutexLock lock(&mutex_);
  for (const auto& [node, epochs] : hubs_) {
    if (about.hubs.size() == kHubsMax) break;
    about.hubs.push_back({node, epochs.latest(), epochs.at_ms, epochs.earlier});
  }
  const uint64_t gone = reached_count_ - reached_.size();
  size_t next = told > gone ? std::min<uint64_t>(told - gone, reached_.size()) : 0;
  while (next < reached_.size() && about.reached.size() < kReachedToldMax) {
    about.reached.push_back(reached_[next++]);
  }
  about.through = gone + next;
  return about;
}

absl::StatusOr<HubsHeardOf> Replica::HearOfHubs(const PeerIdentity& from, const HubsTold& told) {
  HubsHeardOf heard;
  {
    absl::MutexLock lock(&mutex_);
    // It is still there, in this epoch.
    const auto known = hubs_.find(from.node);
    if (known != hubs_.end() && known->second.latest() == from.epoch) {
      known->second.at_ms = std::max(known->second.at_ms, WallMs());
    }
    CHAPTER_ASSIGN_OR_RETURN(const bool news, NoteHubs(told.hubs, heard.dropped));
    heard.went_back = NoteReached(*engine_.NewSnapshot(), told.reached) &&
                      !IsPlanted(Planted::kRollbackNotNoticed);
    if (!news && !heard.went_back) return heard;
    if (heard.went_back) {
      absl::Cleanup undo = [this, before = identity_]()
                               ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { identity_ = before; };
      NewIdentity(true);
      WriteBatch batch;
      batch.Put(Table::kMeta, keys::kIdentity, EncodeIdentity());
      CHAPTER_RETURN_IF_ERROR(engine_.Write(batch));
      std::move(undo).Cancel();
    }
  }
  CHAPTER_RETURN_IF_ERROR(engine_.Sync());
  return heard;
}

bool Replica::Remembers(const Snapshot& snapshot, const FeedCursor& theirs) const {
  return theirs.sequence <= last_sequence_ &&
         (theirs.mark == Mark{} || MarkAt(snapshot, theirs.sequence) == theirs.mark);
}

bool Replica::NoteReached(const Snapshot& snapshot, const std::vector<FeedCursor>& cursors) {
  if (!options_.hub) return false;
  bool further = false;
  size_t noted = 0;
  for (const FeedCursor& cursor : cursors) {
    if (cursor.sequence == Sequence{}) continue;
    if (Own(cursor.replica)) {
      further |= cursor.replica == identity_.replica && cursor.epoch == identity_.epoch &&
                 !Remembers(snapshot, cursor);
      continue;
    }
    // An id that this one has taken since, and forgotten.
    if (SameLineage(cursor.replica, identity_.replica)) {
      if (noted == kReachedToldMax) continue;
      ++noted;
      identity_.own.push_back(cursor.replica);
      further = true;
      continue;
    }
    const FeedCursor one{cursor.replica, cursor.epoch, {}, cursor.sequence, cursor.mark};
    if (noted == kReachedToldMax ||
        std::find(reached_.begin(), reached_.end(), one) != reached_.end()) {
      continue;
    }
    ++noted;
    if (reached_.size() == kReachedKept) reached_.pop_front();
    reached_.push_back(one);
    ++reached_count_;
  }
  return further;
}

absl::StatusOr<bool> Replica::NoteHubs(const std::vector<KnownHub>& hubs, bool& dropped) {
  WriteBatch batch;
  std::map<NodeId, HubEpochs> news;
  for (const KnownHub& hub : hubs) {
    if (hub.node == options_.node) continue;
    CHAPTER_ASSIGN_OR_RETURN(HubEpochs epochs, EpochsOf(hub.node));
    const Epoch before = epochs.latest();
    // Of a hub that a node never met it has dropped nothing.
    if (before == Epoch{} && (!options_.hub || hubs_.size() + news.size() >= kHubsMax)) continue;
    if (!epochs.Hear(hub.epoch, hub.at_ms, hub.over)) continue;
    if (!options_.hub && !dropped) {
      CHAPTER_ASSIGN_OR_RETURN(dropped, DroppedAtWordOf(hub.node, before));
    }
    batch.Put(Table::kMeta, keys::HubEpochsOf(hub.node), Encode(epochs));
    news[hub.node] = std::move(epochs);
  }
  if (news.empty()) return false;
  if (dropped) batch.Put(Table::kMeta, keys::kCursorsVoid, "");
  CHAPTER_RETURN_IF_ERROR(engine_.Write(batch));
  if (options_.hub) {
    for (auto& [node, epochs] : news) hubs_[node] = std::move(epochs);
  }
  return true;
}

absl::Status Replica::VoidCursors(WriteBatch& batch, ReplicaId but) const {
  const std::string prefix(1, keys::kHubCursorKind);
  auto snapshot = engine_.NewSnapshot();
  std::map<ReplicaId, FeedCursor> farthest;
  auto it = snapshot->NewIterator(Table::kMeta, prefix, keys::PrefixEnd(prefix));
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    const FeedCursor cursor = DecodeCursor(it->key(), it->value());
    if (cursor.replica == but) continue;
    batch.Delete(Table::kMeta, it->key());
    FeedCursor& known = farthest[cursor.replica];
    if (cursor.sequence >= known.sequence) known = cursor;
  }
  // A hub that has gone back is found out by a position that it does not know.
  for (auto& [hub, cursor] : farthest) {
    cursor.scope = {};
    PutCursor(cursor, /*peer_is_hub=*/true, batch);
  }
  return it->status();
}

}  // namespace chaptersync::storage
