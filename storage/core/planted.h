// SPDX-License-Identifier: Apache-2.0
//
// Planted defects: known bugs that a simulation must be able to find. They are there
// only where CHAPTERSYNC_PLANTED_DEFECTS is defined; elsewhere IsPlanted is constant
// and nothing of them is compiled.
// HAZARD: code compiled with and without the macro is never linked into one program.
#ifndef CHAPTERSYNC_STORAGE_CORE_PLANTED_H_
#define CHAPTERSYNC_STORAGE_CORE_PLANTED_H_

#include <cstdint>
#include <string_view>

namespace chaptersync::storage {

enum class Planted : uint8_t {
  kNone,
  kAcknowledgeBeforeSync,
  kContextNotMerged,
  kContextAdvancedByRefusedWrite,
  kPartialWithoutBase,
  kCellsByCursor,
  kConflictFoundNotPushed,
  kDropBeforeAcknowledgement,
  kLeftPerScope,
  kTakenBackTooEarly,
  kCursorByClock,
  kVersionsReused,
  kCopyNotNoticed,
  kStampedAgainUnderOldId,
  kConflictsLostOnMove,
  kSettlementsNotMerged,
  kErasureBeaten,
  kFeedInAnotherBatch,
  kFollowerLeftBehind,
  kRollbackNotNoticed,
  kHeadquartersFieldsTaken,
  kErasuresTaken,
  kAnybodyHosts,
  kWhatWaitsCountsAsTaken,
  kApprovedNotAsShown,
  kRejectedWaitsAgain,
  kOthersReplicaLetIn,
  kAskedForAndTold,
  kOutAndGoesOn,
  kDigestKeptOnDrop,
};

// A defect as a person names it, and what the code then does.
struct PlantedDefect {
  Planted defect;
  std::string_view name;
  std::string_view what;
};

// All of them, in the order of the enum.
inline constexpr PlantedDefect kPlantedDefects[] = {
    {Planted::kAcknowledgeBeforeSync, "acknowledge-before-sync",
     "what a peer sent is acknowledged, and passed on, before it is durable"},
    {Planted::kContextNotMerged, "context-not-merged",
     "a merge does not unite what the two sides have seen"},
    {Planted::kContextAdvancedByRefusedWrite, "context-advanced-by-refused-write",
     "a hub takes over what a push has seen although it refuses the push for rights"},
    {Planted::kPartialWithoutBase, "partial-without-base",
     "a partial record is merged where its base is not covered"},
    {Planted::kCellsByCursor, "cells-by-cursor",
     "a partial record leaves out what is below the send cursor, and names no base"},
    {Planted::kConflictFoundNotPushed, "conflict-found-not-pushed",
     "a node does not push the conflict entries that it found"},
    {Planted::kDropBeforeAcknowledgement, "drop-before-acknowledgement",
     "a node drops a record that left before the hub has acknowledged its writes"},
    {Planted::kLeftPerScope, "left-per-scope",
     "Left is sent of a record that left one scope of the node and is in another"},
    {Planted::kTakenBackTooEarly, "taken-back-too-early",
     "a dropped record is taken back in a state that has seen less than it had"},
    {Planted::kCursorByClock, "cursor-by-clock",
     "a feed's reader gets no record whose clock is below the highest it was sent"},
    {Planted::kVersionsReused, "versions-reused",
     "a restored replica begins an epoch, but writes on under its old id"},
    {Planted::kCopyNotNoticed, "copy-not-noticed",
     "a restored or copied replica goes on as if it were the one it was"},
    {Planted::kStampedAgainUnderOldId, "stamped-again-under-old-id",
     "writes stamped too far ahead are stamped again under the same replica id"},
    {Planted::kConflictsLostOnMove, "conflicts-lost-on-move",
     "a record that enters a node's scope is sent without its conflict log"},
    {Planted::kSettlementsNotMerged, "settlements-not-merged",
     "of a conflict entry that both sides have only one side's settlements are kept"},
    {Planted::kErasureBeaten, "erasure-beaten", "an edit later than an erasure undoes it"},
    {Planted::kFeedInAnotherBatch, "feed-in-another-batch",
     "a commit writes its feed entries in a batch of their own, after the records"},
    {Planted::kFollowerLeftBehind, "follower-left-behind",
     "a record that moves does not take its followers along"},
    {Planted::kRollbackNotNoticed, "rollback-not-noticed",
     "a hub that was rolled back never finds out"},
    {Planted::kHeadquartersFieldsTaken, "headquarters-fields-taken",
     "a hub takes from nodes what only headquarters writes"},
    {Planted::kErasuresTaken, "erasures-taken", "a hub takes a node's word for an erasure"},
    {Planted::kAnybodyHosts, "anybody-hosts",
     "a hub takes from any chapter what only an event's hosts write"},
    {Planted::kWhatWaitsCountsAsTaken, "what-waits-counts-as-taken",
     "a node does not remember that a record waits for headquarters' word"},
    {Planted::kApprovedNotAsShown, "approved-not-as-shown",
     "a later push of what waits takes the number under which another was shown"},
    {Planted::kRejectedWaitsAgain, "rejected-waits-again",
     "a hub does not remember what headquarters has rejected"},
    {Planted::kOthersReplicaLetIn, "others-replica-let-in",
     "a hub welcomes a computer under the replica id of another"},
    {Planted::kAskedForAndTold, "asked-for-and-told",
     "a hub tells whoever asks for a record, whosever it is"},
    {Planted::kOutAndGoesOn, "out-and-goes-on",
     "a hub does not end the sessions of who is revoked, or whose certificate has ended"},
    {Planted::kDigestKeptOnDrop, "digest-kept-on-drop",
     "a record that is dropped stays in the digests of its scopes"},
};

// kNone where no defect has that name.
constexpr Planted PlantedByName(std::string_view name) {
  for (const PlantedDefect& planted : kPlantedDefects) {
    if (planted.name == name) return planted.defect;
  }
  return Planted::kNone;
}

#ifdef CHAPTERSYNC_PLANTED_DEFECTS

namespace planted_internal {
inline Planted chosen = Planted::kNone;
}  // namespace planted_internal

// The one defect that the process has from now on. Before it starts threads.
inline void Plant(Planted defect) { planted_internal::chosen = defect; }
inline bool IsPlanted(Planted defect) { return planted_internal::chosen == defect; }

#else

constexpr bool IsPlanted(Planted) { return false; }

#endif

}  // namespace chaptersync::storage

#endif  // CHAPTERSYNC_STORAGE_CORE_PLANTED_H_
