// SPDX-License-Identifier: Apache-2.0
//
// What a hub's refusal takes out of a node's record, and what stays: docs/adr/0006-rights.md and
// docs/protocol.md. Pure; any thread.
#ifndef CHAPTERSYNC_STORAGE_REPLICA_REFUSAL_H_
#define CHAPTERSYNC_STORAGE_REPLICA_REFUSAL_H_

#include <set>
#include <vector>

#include "storage/core/merge.h"
#include "storage/core/record.h"
#include "storage/replica/exchange.h"
#include "storage/replica/replica.h"

namespace chaptersync::storage {

// Whose writes a refusal can take out.
struct OwnIds {
  std::set<ReplicaId> all;  // that this node has written under
  ReplicaId present;        // copies of this computer share its lineage

  bool Own(ReplicaId replica) const { return all.contains(replica); }
  // What a copy of this computer wrote is its own as well, to the hub.
  bool Kin(ReplicaId replica) const { return Own(replica) || SameLineage(replica, present); }
};

// The hub's state of the record, as the node hears of it.
struct HubsState {
  const RecordUpdate* update = nullptr;  // null: it has left, has no place, or is not there
  const Seen& seen;                      // empty: the hub has never had it, or does not say
  // Writes of this node that another hub may have, as it has acknowledged what was told until then.
  std::set<Version> elsewhere = {};
};

// A record in parts: what is listed as refused and leaves it, and the rest.
struct TakenOut {
  std::vector<RefusedWrite> listed;  // in the list's order, not numbered yet
  bool elsewhere = false;            // with something that another hub may have
  std::set<ReplicaId> ids;           // under which something that leaves was written
  std::vector<Cell> others;          // not this node's, or known to the hub
  // What this node has written later than what was refused, and the conflict log that stays.
  RecordUpdate later;
  // What stays shows less than the record had seen.
  bool gaps = false;
};

// `record` is not erased.
TakenOut TakeOut(const RecordKey& key, const Record& record, const RefusedRecord& refusal,
                 const OwnIds& ids, const HubsState& hub);

// Whether nothing but later writes would go to a hub that sent no state of the record.
bool HubHasTheRest(const TakenOut& parts, const Seen& hub_seen);

// What stays of the record where the hub sent no state of it; without cells: nothing.
Record WithoutRefused(const Record& record, TakenOut parts, const Seen& hub_seen);

// The hub's state with the later writes on top.
Record OnTopOf(const RecordUpdate& hub_state, const TakenOut& parts, const OwnIds& ids,
               const Finding& finding);

}  // namespace chaptersync::storage

#endif  // CHAPTERSYNC_STORAGE_REPLICA_REFUSAL_H_
