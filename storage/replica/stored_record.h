// SPDX-License-Identifier: Apache-2.0
//
// A record as this replica keeps it: its state, and what only this replica
// knows of it (positions in its feeds, scopes, whom it follows). Never sent.
//
//   stored  := format:1 latest origin:fixed flags:varint scopes leaders named
//              maker pushers again record
//   scopes  := count { name:string at:varint entered:varint flags:1 }
//   leaders := count { key:20 }
//   named   := count { name:string }      scopes that a hub named
//   maker   := name:string                chapter that made it here
//   pushers := count { name:string }      chapters that brought it while it had no place
//   again   := count { node:16 }          hubs for which it was dropped before
//
// The record follows as record_codec.h writes it, learned included. Pure.
#ifndef CHAPTERSYNC_STORAGE_REPLICA_STORED_RECORD_H_
#define CHAPTERSYNC_STORAGE_REPLICA_STORED_RECORD_H_

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "storage/core/record.h"

namespace chaptersync::storage {

// A record's entry in one scope's feed.
struct ScopePosition {
  Scope scope;
  Sequence at;        // where the feed tells of it
  Sequence entered;   // since when it has been in the scope
  bool left = false;  // it is in the feed only to say that it left
  // It left for no scope at all, so that its holders were not told yet.
  bool withheld = false;
  // It left before it entered: holders were told so, and must hear that it is back.
  bool returned = false;
};

struct RecordMeta {
  Sequence latest;   // in the feed of all
  ReplicaId origin;  // the peer that sent exactly this state; 0: none
  std::vector<ScopePosition> scopes;
  std::vector<RecordKey> leaders;
  std::vector<Scope> named;
  Scope maker;
  std::vector<Scope> pushers;
  std::vector<NodeId> again;

  // In the scope now.
  const ScopePosition* Position(const Scope& scope) const;
  std::vector<Scope> Current() const;
  // Of an unplaced record: the scopes that it was in.
  std::set<Scope> Withheld() const;
  // Follows a record that is not here, and has no scope of its own.
  bool unplaced() const { return Current().empty(); }
};

struct StoredRecord {
  Record record;
  RecordMeta meta;
};

std::string EncodeStored(const StoredRecord& stored);
// DATA_LOSS where `bytes` are no stored record.
absl::StatusOr<StoredRecord> DecodeStored(std::string_view bytes);

}  // namespace chaptersync::storage

#endif  // CHAPTERSYNC_STORAGE_REPLICA_STORED_RECORD_H_
