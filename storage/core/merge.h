// SPDX-License-Identifier: Apache-2.0
//
// How two truths about a record become one, field by field, and what of the
// losing side goes to the conflict log. Pure: two states in, one out; any
// thread. docs/architecture.md states the rules in words.
#ifndef CHAPTERSYNC_STORAGE_CORE_MERGE_H_
#define CHAPTERSYNC_STORAGE_CORE_MERGE_H_

#include <string>
#include <vector>

#include "storage/core/record.h"

namespace chaptersync::storage {

// What a peer tells of a record: all of its cells, or some with the base that
// the receiver must have seen for the rest to be left out.
struct RecordUpdate {
  // `seen` and `conflicts` are the sender's whole ones, also in a partial update.
  Record state;
  bool whole = true;
  // For each replica, the highest version among the cells left out. Empty if whole.
  Seen base;
  // The scopes as the sender names them, where it knows that the receiver's
  // schema cannot tell. Empty: not named.
  std::vector<Scope> named_scopes;
  // The sender had dropped the record for the receiver, and holds it again from
  // another hub.
  bool again = false;
};

// Who merges, and when: goes into the conflict entries that the merge finds.
struct Finding {
  ReplicaId replica;
  HybridTime at;
};

struct MergeResult {
  Record record;
  // Entries that neither side had.
  size_t conflicts_found = 0;
  // What cannot come from a right history, one line each. The merge went on.
  std::vector<std::string> damage;
};

// The state after a replica that holds `mine` learns `theirs`. Commutative,
// associative and idempotent in what it leaves standing. A partial `theirs`
// requires mine.seen.CoversAll(theirs.base).
MergeResult Merge(const Record& mine, const RecordUpdate& theirs, const Finding& finding);

// True if a replica that holds `mine` would learn nothing from `theirs`: the
// merge would leave `mine` as it is, what it has seen included.
bool Contains(const Record& mine, const Record& theirs);

}  // namespace chaptersync::storage

#endif  // CHAPTERSYNC_STORAGE_CORE_MERGE_H_
