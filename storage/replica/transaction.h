// SPDX-License-Identifier: Apache-2.0
//
// One change of a replica in the making: records are read through it, changed,
// placed in their scopes together with what follows them, and sealed into one
// batch: record, feeds, indexes. One thread; the replica's lock is held.
#ifndef CHAPTERSYNC_STORAGE_REPLICA_TRANSACTION_H_
#define CHAPTERSYNC_STORAGE_REPLICA_TRANSACTION_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"

#include "storage/engine/engine.h"
#include "storage/replica/replica.h"
#include "storage/replica/scope_digests.h"
#include "storage/replica/stored_record.h"

namespace chaptersync::storage {

class Transaction {
 public:
  Transaction(const Engine& engine, const ReplicaOptions& options)
      : engine_(engine), options_(options) {}

  // The record as this transaction has it, null where it is not here. Stays valid.
  // After an engine's error it is null too; status() tells.
  StoredRecord* Find(const RecordKey& key);
  // As Find, but begins an empty record where there is none.
  StoredRecord& Make(const RecordKey& key);
  // The record changed: it gets a new place in the feeds.
  void Touch(const RecordKey& key);
  // The record goes, with its feed and index entries.
  void Remove(const RecordKey& key);
  // Forgets a record that Make began and nobody touched.
  void Forget(const RecordKey& key);
  bool touched(const RecordKey& key) const;
  // After Place: the record is erased in this transaction, or comes erased.
  bool Erases(const RecordKey& key) const;
  bool erases_anything() const;

  // Finds the scopes of all touched records and of what follows them; touches
  // followers that move, erases those of erased leaders.
  absl::Status Place();
  // After Place: the scopes that the record will be in.
  const std::set<Scope>& Placement(const RecordKey& key);
  // True where the record would be in other scopes, or follow others, than it does.
  bool Misplaced(const RecordKey& key);
  // After Place: the scope's feed shall say that the record is not in it.
  void TellLeft(const RecordKey& key, const Scope& scope);
  // The feeds of the record's scopes shall tell all of it.
  void TellWhole(const RecordKey& key) { Load(key).tell_whole = true; }

  // Writes everything into batch(), numbering from last + 1. Returns the last
  // sequence used. Nothing is read through this transaction from then on.
  Sequence Seal(Sequence last, Mark mark);

  // For what goes with the change: cursors, identity, settings.
  WriteBatch& batch() { return batch_; }
  const std::vector<ChangeEvent>& events() const { return events_; }
  // The first error of reading.
  const absl::Status& status() const { return status_; }
  // An engine's error that was met elsewhere.
  void Note(const absl::Status& status) { status_.Update(status); }
  // Read through the engine; NOT_FOUND is no error.
  absl::StatusOr<std::string> Get(Table table, std::string_view key);
  bool anything_touched() const { return !order_.empty(); }
  // Something else was deleted whose bytes must not stay in files.
  void LeaveResidue() { residue_ = true; }
  // True once a record was removed or erased: files still hold its bytes.
  bool leaves_residue() const { return residue_; }
  // After Seal: the records that had a place in the feed of all and have a later one.
  struct Moved {
    ReplicaId was_of;  // whose state it was in exactly, and is now; 0: nobody's
    ReplicaId is_of;
    Sequence from;
    Sequence to;
  };
  const std::vector<Moved>& moved() const { return moved_; }
  // After Seal: how many more, or fewer, records of each entity are live.
  const std::map<EntityNumber, int64_t>& live_changes() const { return live_changes_; }
  // After Seal, once: what counts in its scopes' digests, and what did before.
  std::vector<DigestChange> TakeDigestChanges() { return std::move(digest_changes_); }

 private:
  // What has to be known of a record as it was; its cells are not kept twice, as a
  // move can touch very many records.
  struct Before {
    RecordMeta meta;
    std::vector<ConflictEntry> conflicts;
    DigestedState digested;
    bool live = false;
    bool erased = false;
  };
  struct Entry {
    bool loaded = false;
    bool existed = false;
    bool present = false;
    bool touched = false;
    bool placed = false;
    bool leader_moved = false;
    Before before;
    StoredRecord after;
    std::set<Scope> placement;
    std::vector<RecordKey> leaders;
    std::set<Scope> tell_left;
    bool tell_whole = false;
  };
  struct Resolution {
    bool absent = false;
    bool erased = false;
    std::set<Scope> scopes;
    std::vector<RecordKey> leaders;
  };

  Entry& Load(const RecordKey& key);
  Resolution Resolve(const RecordKey& key, int depth);
  std::vector<RecordKey> Followers(const RecordKey& leader);
  // Touches what follows `leader` and is to be in other scopes than it is.
  void PlaceBelow(const RecordKey& leader, int depth);
  void SealRecord(const RecordKey& key, Entry& entry, Sequence sequence);
  void SealPositions(Entry& entry, Sequence sequence, const std::string& key_bytes);
  void SealLeaders(const RecordKey& key, const Entry& entry);
  void SealConflicts(const RecordKey& key, const Entry& entry);
  void AddEvent(const RecordKey& key, const Entry& entry);

  const Engine& engine_;
  const ReplicaOptions& options_;
  std::map<RecordKey, Entry> entries_;
  std::vector<RecordKey> order_;  // touched, in the order of touching
  WriteBatch batch_;
  std::vector<ChangeEvent> events_;
  absl::Status status_;
  bool residue_ = false;
  std::map<EntityNumber, int64_t> live_changes_;
  std::vector<DigestChange> digest_changes_;
  std::vector<Moved> moved_;
};

}  // namespace chaptersync::storage

#endif  // CHAPTERSYNC_STORAGE_REPLICA_TRANSACTION_H_
