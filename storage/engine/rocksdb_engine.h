// SPDX-License-Identifier: Apache-2.0
//
// The engine on disk: a folder of RocksDB files, one column family per table, one
// write-ahead log for all. In: a path and limits; out: an Engine, whose methods
// any thread may call. The only place that knows RocksDB.
#ifndef CHAPTERSYNC_STORAGE_ENGINE_ROCKSDB_ENGINE_H_
#define CHAPTERSYNC_STORAGE_ENGINE_ROCKSDB_ENGINE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "storage/engine/engine.h"

namespace chaptersync::storage {

struct RocksDbOptions {
  // False: NOT_FOUND where `path` holds no engine yet.
  bool create_if_missing = true;
  // Memory for blocks read, with the files' indexes and filters.
  size_t block_cache_bytes = size_t{64} << 20;
  // Memory for writes of one table before they go to a file; all tables together
  // take at most three times as much.
  size_t write_buffer_bytes = size_t{16} << 20;
  // Above this the tables that hold on to the oldest log are written out: bounds the
  // disk taken and the time to open.
  uint64_t wal_bytes_max = uint64_t{128} << 20;
  // Of the process's file descriptors. More files than that are opened as needed.
  int open_files_max = 1000;
  // With less than this free on the disk, Write refuses. It leaves room to write out
  // what is in memory: at least three times write_buffer_bytes.
  uint64_t free_bytes_min = uint64_t{64} << 20;
  // How long Scrub waits for snapshots and iterators from before it to end.
  absl::Duration scrub_wait_max = absl::Minutes(1);
};

// Opens the engine in folder `path`, which it makes, with its parents, where it is
// missing; a new engine wants an empty folder. One process at a time.
//
// FAILED_PRECONDITION: in use, not an engine's folder, or written by a newer
// program. DATA_LOSS: its files are damaged. INVALID_ARGUMENT: a limit is zero.
//
// Of the Engine contract: Write answers RESOURCE_EXHAUSTED below free_bytes_min
// and where RocksDB found no space for a file, and recovers by itself. Scrub
// answers UNAVAILABLE where an older snapshot or iterator outlasts scrub_wait_max:
// the engine is as good as before, call it again.
absl::StatusOr<std::unique_ptr<Engine>> OpenRocksDbEngine(const std::string& path,
                                                          const RocksDbOptions& options);

}  // namespace chaptersync::storage

#endif  // CHAPTERSYNC_STORAGE_ENGINE_ROCKSDB_ENGINE_H_
