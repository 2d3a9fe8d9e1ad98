// SPDX-License-Identifier: Apache-2.0
//
// The seam between the replica and whatever keeps bytes on disk: an ordered
// map from byte strings to byte strings, in a few tables, with atomic batches
// and snapshots. Keys and values come in as bytes; nothing of the engine's own
// types goes out. Every method may be called from any thread.
#ifndef CHAPTERSYNC_STORAGE_ENGINE_ENGINE_H_
#define CHAPTERSYNC_STORAGE_ENGINE_ENGINE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace chaptersync::storage {

// A table is a key space of its own, so that an engine can tune each for its use.
enum class Table : uint8_t {
  kRecord = 0,  // record key -> stored record: point reads, scans in key order
  kFeed = 1,    // scope, sequence -> record key: short-lived keys, scans forward
  kIndex = 2,   // followers, open conflicts: no values, prefix scans
  kMeta = 3,    // identity, clock, cursors, peers, marks: few, small
};
inline constexpr int kTableCount = 4;

// Changes that become visible, and durable, together or not at all. Later
// operations on a key win over earlier ones of the same batch. Not thread-safe.
class WriteBatch {
 public:
  enum class Kind : uint8_t { kPut, kDelete, kDeleteRange };
  struct Operation {
    Kind kind;
    Table table;
    std::string key;
    std::string value;  // empty for kDelete; for kDeleteRange the first key after the range
  };

  void Put(Table table, std::string_view key, std::string_view value);
  // Deleting a key that does not exist is not an error.
  void Delete(Table table, std::string_view key);
  // Keys in [lower, upper), those put before in this batch included; none where lower >= upper.
  void DeleteRange(Table table, std::string_view lower, std::string_view upper);
  void Clear();

  const std::vector<Operation>& operations() const { return operations_; }
  bool empty() const { return operations_.empty(); }
  // Sum of the lengths of keys and values, in bytes.
  size_t bytes() const { return bytes_; }

 private:
  std::vector<Operation> operations_;
  size_t bytes_ = 0;
};

// Walks one table's keys in byte order within [lower, upper), at one moment of
// the engine's history. Must not outlive its engine. One thread at a time.
//
//   for (it->SeekToFirst(); it->Valid(); it->Next()) Use(it->key(), it->value());
//   RETURN_IF_ERROR(it->status());
class Iterator {
 public:
  virtual ~Iterator() = default;
  virtual void SeekToFirst() = 0;
  // To the first key at or after `target`; to the lower bound where that is later.
  virtual void Seek(std::string_view target) = 0;
  // To the last key before the upper bound.
  virtual void SeekToLast() = 0;
  // Require Valid().
  virtual void Next() = 0;
  virtual void Prev() = 0;
  // False past either end and after an error; status() tells which.
  virtual bool Valid() const = 0;
  // Require Valid(); valid until the iterator moves.
  virtual std::string_view key() const = 0;
  virtual std::string_view value() const = 0;
  // OK while nothing failed, also past the end.
  virtual absl::Status status() const = 0;
};

// One moment of an engine, for reading: sees every batch written before it was
// taken and none after. Must not outlive its engine. Any thread.
class Snapshot {
 public:
  virtual ~Snapshot() = default;
  // NOT_FOUND where the table has no such key.
  virtual absl::StatusOr<std::string> Get(Table table, std::string_view key) const = 0;
  // Keys in [lower, upper); an empty `upper` means up to the table's end.
  virtual std::unique_ptr<Iterator> NewIterator(Table table, std::string_view lower,
                                                std::string_view upper) const = 0;
};

// Optional capability: takes whole sorted files at once (bootstrap). Files are
// of the engine's own making and become visible and durable atomically.
class FileIngester {
 public:
  virtual ~FileIngester() = default;
  // Writes keys in strictly rising byte order to a file of the engine's own at
  // `path`. INVALID_ARGUMENT for a key out of order.
  class Writer {
   public:
    virtual ~Writer() = default;
    virtual absl::Status Put(std::string_view key, std::string_view value) = 0;
    // No Put after it. FAILED_PRECONDITION where nothing was put.
    virtual absl::Status Finish() = 0;
  };
  virtual absl::StatusOr<std::unique_ptr<Writer>> NewFile(const std::string& path) = 0;
  // Moves finished files into `table`; on failure the table is as it was.
  virtual absl::Status Ingest(Table table, const std::vector<std::string>& paths) = 0;
};

class Engine {
 public:
  virtual ~Engine() = default;

  // Applies `batch` atomically. On return it is visible to readers, and durable
  // only once a Sync() that began afterwards has returned OK. Batches become
  // durable in the order in which they were written: after a crash a prefix of
  // them is there, each whole. On error nothing of it is visible, and nothing of
  // it is there after a restart, unless the error is DATA_LOSS: then the engine
  // takes no more writes until it is opened anew.
  // RESOURCE_EXHAUSTED: the disk is full; later writes may succeed.
  virtual absl::Status Write(const WriteBatch& batch) = 0;

  // Everything written before the call is durable when it returns OK. Concurrent
  // callers share one fsync. After an error the engine answers every Write and
  // Sync with DATA_LOSS until it is opened anew: what of the unsynced is on disk
  // is not known.
  virtual absl::Status Sync() = 0;

  // The latest value. NOT_FOUND where there is none.
  virtual absl::StatusOr<std::string> Get(Table table, std::string_view key) const = 0;
  virtual std::unique_ptr<Snapshot> NewSnapshot() const = 0;

  // Rewrites what holds [lower, upper) of `table`, so that nothing deleted or
  // overwritten in it remains in any file, write-ahead log included, and makes
  // durable what was written before it. Long; call from a thread that may wait and
  // holds no snapshot. UNAVAILABLE where a snapshot or iterator from before the call
  // is not let go in time; nothing is broken, call again.
  virtual absl::Status Scrub(Table table, std::string_view lower, std::string_view upper) = 0;

  // Null where the engine has no files to ingest.
  virtual FileIngester* file_ingester() { return nullptr; }
};

}  // namespace chaptersync::storage

#endif  // CHAPTERSYNC_STORAGE_ENGINE_ENGINE_H_
