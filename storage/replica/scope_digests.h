// SPDX-License-Identifier: Apache-2.0
//
// The digests of a replica's scopes: kept in memory, changed with every commit, and written
// down now and then. In between, what was known of a record as it was then is written with
// the commit that first changes it, so that a start finds the digests from what changed since.
// The replica's lock is held.
#ifndef CHAPTERSYNC_STORAGE_REPLICA_SCOPE_DIGESTS_H_
#define CHAPTERSYNC_STORAGE_REPLICA_SCOPE_DIGESTS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "storage/engine/engine.h"
#include "storage/reconcile/scope_digest.h"
#include "storage/replica/stored_record.h"

namespace chaptersync::storage {

// Where a record counts, and as what. Of what is erased, or not there: nowhere.
struct DigestedState {
  std::vector<Scope> scopes;
  StateDigest digest;
};

struct DigestChange {
  RecordKey key;
  Sequence latest;  // of the record before; 0: it was not there
  DigestedState before;
  DigestedState after;
};

class ScopeDigests {
 public:
  // `kept`: the scopes that have a digest; none: all. Written down after so many changes, and the
  // later the more scopes they were in.
  ScopeDigests(std::optional<std::set<Scope>> kept, uint64_t changes_between_min)
      : kept_(std::move(kept)), changes_between_min_(changes_between_min) {}

  // Reads what was written down, and what changed since. Where nothing was, or it is damaged,
  // it is found from all records. `last`: of the replica's feed.
  absl::Status Load(const Engine& engine, Sequence last);
  // From all records, whatever was written down.
  absl::Status Recompute(const Snapshot& snapshot);

  // A commit that ends at `last`: puts into `batch` what a start needs, and counts it. To be
  // followed by Keep, or by Undo where the batch was not written.
  void Change(std::vector<DigestChange> changes, Sequence last, WriteBatch& batch);
  void Keep();
  void Undo();

  const std::map<Scope, ScopeDigest>& scopes() const { return digests_; }

 private:
  bool kept(const Scope& scope) const { return !kept_ || kept_->contains(scope); }
  void Apply(const DigestChange& change, bool forward);
  void Add(const RecordKey& key, const DigestedState& state);
  void AddStored(const RecordKey& key, std::string_view bytes);
  void Remove(const RecordKey& key, const DigestedState& state);
  absl::Status ReadCheckpoint(const Snapshot& snapshot, Sequence last);
  absl::Status ReadChanged(const Snapshot& snapshot);
  void PutCheckpoint(Sequence last, WriteBatch& batch);

  const std::optional<std::set<Scope>> kept_;
  const uint64_t changes_between_min_;
  std::map<Scope, ScopeDigest> digests_;
  Sequence checkpoint_;                // of the commit at whose end digests were written down
  std::set<Scope> dirty_;              // changed since
  uint64_t changed_ = 0;               // changes since
  std::vector<DigestChange> pending_;  // of the commit under way
  Sequence pending_checkpoint_;        // 0: it writes none
};

// What a stored record counts as.
DigestedState Digested(const RecordKey& key, const StoredRecord& stored);

}  // namespace chaptersync::storage

#endif  // CHAPTERSYNC_STORAGE_REPLICA_SCOPE_DIGESTS_H_
