// SPDX-License-Identifier: Apache-2.0
//
// OpenRocksDbEngine: the Engine contract on RocksDB. All tables share one log, so
// the log alone makes a batch atomic across them. The folder holds RocksDB's files
// and FORMAT, one line with the number of this layout. Any thread.
#include "storage/engine/rocksdb_engine.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdarg>
#include <cstdio>
#include <filesystem>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "fmt/format.h"
#include "rocksdb/convenience.h"
#include "rocksdb/db.h"
#include "rocksdb/env.h"
#include "rocksdb/filter_policy.h"
#include "rocksdb/listener.h"
#include "rocksdb/metadata.h"
#include "rocksdb/options.h"
#include "rocksdb/sst_file_writer.h"
#include "rocksdb/table.h"
#include "rocksdb/utilities/table_properties_collectors.h"
#include "rocksdb/write_batch.h"
#include "spdlog/spdlog.h"

namespace chaptersync::storage {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kFormatFile = "FORMAT";
constexpr std::string_view kFormatTemporary = "FORMAT.new";
constexpr std::string_view kFormatPrefix = "chaptersync engine ";
constexpr int kFormat = 1;

constexpr absl::Duration kResumePause = absl::Seconds(2);

// Column families, in the order of Table. RocksDB insists on one called "default"
// first; it holds nothing but what Scrub writes to move logs on.
constexpr std::array<std::string_view, kTableCount> kTableNames = {"record", "feed", "index",
                                                                   "meta"};

std::string_view TableName(Table table) { return kTableNames[static_cast<size_t>(table)]; }

rocksdb::Slice ToSlice(std::string_view bytes) { return {bytes.data(), bytes.size()}; }
std::string_view ToView(const rocksdb::Slice& bytes) { return {bytes.data(), bytes.size()}; }

// HAZARD: absl::string_view is a type of its own where Abseil was built for C++14.
std::string Escaped(std::string_view bytes) {
  return absl::CHexEscape(absl::string_view(bytes.data(), bytes.size()));
}

bool Contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

// RocksDB's words on one line.
std::string Words(const rocksdb::Status& status) {
  return absl::StrReplaceAll(status.ToString(), {{"\n", " "}});
}

absl::Status ToStatus(const rocksdb::Status& status, std::string_view refused) {
  if (status.ok()) return absl::OkStatus();
  const std::string message = fmt::format("{}: {}", refused, Words(status));
  if (status.IsNotFound()) return absl::NotFoundError(message);
  if (status.IsNoSpace()) return absl::ResourceExhaustedError(message);
  if (status.IsCorruption()) return absl::DataLossError(message);
  if (status.IsInvalidArgument()) return absl::InvalidArgumentError(message);
  if (status.IsIOError() && Contains(message, "Permission denied")) {
    return absl::PermissionDeniedError(message);
  }
  if (status.IsBusy() || status.IsTryAgain() || status.IsTimedOut() || status.IsAborted() ||
      status.IsIncomplete() || status.IsShutdownInProgress()) {
    return absl::UnavailableError(message);
  }
  return absl::InternalError(message);
}

absl::Status ToStatus(const std::error_code& error, std::string_view refused) {
  if (!error) return absl::OkStatus();
  return absl::ErrnoToStatus(error.value(), std::string(refused));
}

// The names in a folder, subfolders included.
std::vector<std::string> FileNames(const std::string& path, std::error_code& error) {
  std::vector<std::string> names;
  fs::directory_iterator entry(path, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    names.push_back(entry->path().filename().native());
  }
  return names;
}

// Sends RocksDB's warnings and errors to the program's log. HAZARD: without a logger
// of ours RocksDB writes a file LOG, and stops the process where the disk is full.
class WarningLogger final : public rocksdb::Logger {
 public:
  WarningLogger() : rocksdb::Logger(rocksdb::InfoLogLevel::WARN_LEVEL) {}

  using rocksdb::Logger::Logv;
  void LogHeader(const char*, va_list) override {}
  void Logv(const rocksdb::InfoLogLevel level, const char* format, va_list arguments) override {
    if (level < GetInfoLogLevel() || level == rocksdb::InfoLogLevel::HEADER_LEVEL) return;
    std::array<char, 1024> line;
    if (std::vsnprintf(line.data(), line.size(), format, arguments) < 0) return;
    spdlog::log(
        level == rocksdb::InfoLogLevel::WARN_LEVEL ? spdlog::level::warn : spdlog::level::err,
        "rocksdb: {}", line.data());
  }
};

// What RocksDB's own threads ran into, as far as it decides what Write may answer.
class Health final : public rocksdb::EventListener {
 public:
  enum class State {
    kGood,
    kFull,    // no space for a table's file: nothing written is in doubt
    kBroken,  // until opened anew
  };

  explicit Health(std::string path) : path_(std::move(path)) {}

  void OnBackgroundError(rocksdb::BackgroundErrorReason reason, rocksdb::Status* error) override {
    // RocksDB reports an error of a flush once more, as one of a write, when the next
    // write meets it: the first report counts. A log that had no space is as broken as
    // any other: RocksDB 7.8 may append to it again after a torn record.
    const bool file_only = reason == rocksdb::BackgroundErrorReason::kFlush ||
                           reason == rocksdb::BackgroundErrorReason::kFlushNoWAL ||
                           reason == rocksdb::BackgroundErrorReason::kCompaction;
    const absl::MutexLock lock(&mutex_);
    if (state_ != State::kGood) return;
    if (file_only && error->IsNoSpace()) {
      state_ = State::kFull;
    } else {
      BreakLocked(Words(*error));
    }
  }

  // RocksDB would look for space every few seconds, and refuse to be told meanwhile.
  void OnErrorRecoveryBegin(rocksdb::BackgroundErrorReason, rocksdb::Status,
                            bool* auto_recovery) override {
    *auto_recovery = false;
  }

  State state() const {
    const absl::MutexLock lock(&mutex_);
    return state_;
  }
  void Break(std::string_view cause) {
    const absl::MutexLock lock(&mutex_);
    BreakLocked(cause);
  }
  // From kFull; a broken engine stays broken.
  void SetGood() {
    const absl::MutexLock lock(&mutex_);
    if (state_ == State::kFull) state_ = State::kGood;
  }
  // DATA_LOSS where the engine is broken.
  absl::Status Check() const {
    const absl::MutexLock lock(&mutex_);
    return state_ == State::kBroken ? absl::DataLossError(cause_) : absl::OkStatus();
  }

 private:
  void BreakLocked(std::string_view cause) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (state_ == State::kBroken) return;
    state_ = State::kBroken;
    cause_ =
        fmt::format("engine '{}' takes no writes until it is opened anew, after: {}", path_, cause);
  }

  const std::string path_;
  mutable absl::Mutex mutex_;
  State state_ ABSL_GUARDED_BY(mutex_) = State::kGood;
  std::string cause_ ABSL_GUARDED_BY(mutex_);
};

// The first of `wanted` that this build of RocksDB has; none otherwise.
rocksdb::CompressionType Compression(std::initializer_list<rocksdb::CompressionType> wanted) {
  const std::vector<rocksdb::CompressionType> offered = rocksdb::GetSupportedCompressions();
  for (const rocksdb::CompressionType type : wanted) {
    if (std::find(offered.begin(), offered.end(), type) != offered.end()) return type;
  }
  return rocksdb::kNoCompression;
}

// Of a write buffer, for a Bloom filter that saves looking into it for keys that are not there.
constexpr double kMemtableFilterPart = 0.02;

rocksdb::ColumnFamilyOptions TableOptions(Table table, const RocksDbOptions& options,
                                          const std::shared_ptr<rocksdb::Cache>& cache) {
  rocksdb::BlockBasedTableOptions blocks;
  blocks.block_cache = cache;
  // Indexes and filters count against the cache, so that memory stays bounded however
  // many files there are; those of the newest level are in every read's way.
  blocks.cache_index_and_filter_blocks = true;
  blocks.pin_l0_filter_and_index_blocks_in_cache = true;

  rocksdb::ColumnFamilyOptions result;
  result.write_buffer_size = options.write_buffer_bytes;
  // One is filled while two wait to be written out, so that a slow disk stalls writes later.
  result.max_write_buffer_number = 3;
  // Keeps dead versions to about a tenth of the data.
  result.level_compaction_dynamic_level_bytes = true;
  result.compression = Compression({rocksdb::kLZ4Compression});
  switch (table) {
    case Table::kRecord:
      // Every edit from a peer asks whether the record is known; often it is not.
      blocks.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
      result.memtable_prefix_bloom_size_ratio = kMemtableFilterPart;
      result.memtable_whole_key_filtering = true;
      // Nine tenths of the data lie in the last level and are seldom rewritten.
      result.bottommost_compression = Compression({rocksdb::kZSTD, rocksdb::kLZ4Compression});
      break;
    case Table::kFeed:
    case Table::kIndex:
      // Keys die young, in runs, and scans start where they were: files that are half
      // deletions are rewritten early.
      result.table_properties_collector_factories.push_back(
          rocksdb::NewCompactOnDeletionCollectorFactory(1024, 512));
      break;
    case Table::kMeta:
      // A few keys, written again and again; and each edit asks for rows of its record, of which
      // most are not there.
      blocks.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
      result.memtable_prefix_bloom_size_ratio = kMemtableFilterPart;
      result.memtable_whole_key_filtering = true;
      result.write_buffer_size = std::min(options.write_buffer_bytes, size_t{1} << 20);
      break;
  }
  result.table_factory.reset(rocksdb::NewBlockBasedTableFactory(blocks));
  return result;
}

rocksdb::DBOptions DatabaseOptions(const RocksDbOptions& options, std::shared_ptr<Health> health) {
  rocksdb::DBOptions result;
  result.create_if_missing = true;  // The caller's wish is checked before.
  result.create_missing_column_families = true;
  result.paranoid_checks = true;
  result.info_log = std::make_shared<WarningLogger>();
  result.info_log_level = rocksdb::InfoLogLevel::WARN_LEVEL;
  result.keep_log_file_num = 1;
  result.listeners.push_back(std::move(health));
  result.max_open_files = options.open_files_max;
  result.max_background_jobs = 2;
  result.db_write_buffer_size = 3 * options.write_buffer_bytes;
  // Write files out as they grow, so that the last fsync does not hold up the log's.
  result.bytes_per_sync = uint64_t{1} << 20;
  // No statistics nobody reads, and no thread to gather them.
  result.stats_dump_period_sec = 0;
  result.stats_persist_period_sec = 0;

  // The log. Every batch is in it, whole, under one checksum, and RocksDB syncs the
  // logs that a flush leaves behind before the flushed file counts: what one table
  // has on disk never runs ahead of the log for the others. So atomic_flush, which
  // serves databases without a log, is not needed.
  result.atomic_flush = false;
  result.unordered_write = false;
  // After a crash the unsynced end of the log may be missing, torn, or full of holes.
  // Opening stops at the first record that is not whole: always a prefix. Tolerating
  // a torn tail only would refuse to open on a hole in bytes nobody was promised.
  result.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  // Off: it knows of closed logs only, and has reported whole ones as missing.
  result.track_and_verify_wals_in_manifest = false;
  result.max_total_wal_size = options.wal_bytes_max;
  // Scrub counts on a log that is no longer needed being deleted at once.
  result.recycle_log_file_num = 0;
  result.WAL_ttl_seconds = 0;
  result.WAL_size_limit_MB = 0;
  // The manifest names the first and last key of files long gone: a new one with every
  // change of the set of files lets Scrub be rid of those. Costs some milliseconds
  // per file written.
  result.max_manifest_file_size = 1;
  return result;
}

// --- Reading -------------------------------------------------------------------------------------

// The live snapshots, for Scrub to wait on. Must outlive them.
class SnapshotList {
 public:
  explicit SnapshotList(rocksdb::DB* db) : db_(db) {}
  SnapshotList(const SnapshotList&) = delete;
  SnapshotList& operator=(const SnapshotList&) = delete;

  const rocksdb::Snapshot* Add() {
    const absl::MutexLock lock(&mutex_);
    const rocksdb::Snapshot* const snapshot = db_->GetSnapshot();
    ++live_[snapshot->GetSequenceNumber()];
    return snapshot;
  }

  void Remove(const rocksdb::Snapshot* snapshot) {
    const absl::MutexLock lock(&mutex_);
    const auto entry = live_.find(snapshot->GetSequenceNumber());
    db_->ReleaseSnapshot(snapshot);
    if (--entry->second > 0) return;
    live_.erase(entry);
    removed_.SignalAll();
  }

  // False where one older than `sequence` is still there at `deadline`.
  bool AwaitNoneBefore(rocksdb::SequenceNumber sequence, absl::Time deadline) {
    const absl::MutexLock lock(&mutex_);
    while (!live_.empty() && live_.begin()->first < sequence) {
      if (absl::Now() >= deadline) return false;
      removed_.WaitWithDeadline(&mutex_, deadline);
    }
    return true;
  }

 private:
  rocksdb::DB* const db_;
  absl::Mutex mutex_;
  absl::CondVar removed_;
  std::map<rocksdb::SequenceNumber, int> live_ ABSL_GUARDED_BY(mutex_);
};

using TableHandles = std::array<rocksdb::ColumnFamilyHandle*, kTableCount>;

// What reading needs; shared by a snapshot and its iterators.
class Moment {
 public:
  Moment(rocksdb::DB* db, const TableHandles* tables, SnapshotList* list)
      : db_(db), tables_(tables), list_(list), snapshot_(list->Add()) {}
  Moment(const Moment&) = delete;
  Moment& operator=(const Moment&) = delete;
  ~Moment() { list_->Remove(snapshot_); }

  rocksdb::DB* db() const { return db_; }
  rocksdb::ColumnFamilyHandle* handle(Table table) const {
    return (*tables_)[static_cast<size_t>(table)];
  }
  const rocksdb::Snapshot* snapshot() const { return snapshot_; }

 private:
  rocksdb::DB* const db_;
  const TableHandles* const tables_;
  SnapshotList* const list_;
  const rocksdb::Snapshot* const snapshot_;
};

absl::StatusOr<std::string> Read(rocksdb::DB* db, const rocksdb::ReadOptions& options,
                                 rocksdb::ColumnFamilyHandle* handle, std::string_view key) {
  std::string value;
  const rocksdb::Status status = db->Get(options, handle, ToSlice(key), &value);
  if (status.ok()) return value;
  if (status.IsNotFound()) return absl::NotFoundError("no such key in the table");
  return ToStatus(status,
                  fmt::format("cannot read key '{}' of table {}", Escaped(key), handle->GetName()));
}

class RocksDbIterator final : public Iterator {
 public:
  RocksDbIterator(std::shared_ptr<const Moment> moment, Table table, std::string_view lower,
                  std::string_view upper)
      : moment_(std::move(moment)),
        table_(table),
        lower_(lower),
        upper_(upper),
        lower_slice_(lower_),
        upper_slice_(upper_) {
    rocksdb::ReadOptions options;
    options.snapshot = moment_->snapshot();
    // HAZARD: RocksDB keeps these addresses; the object never moves.
    options.iterate_lower_bound = &lower_slice_;
    if (!upper_.empty()) options.iterate_upper_bound = &upper_slice_;
    if (upper_.empty() || lower_ < upper_) {
      iterator_.reset(moment_->db()->NewIterator(options, moment_->handle(table)));
    }
  }
  RocksDbIterator(const RocksDbIterator&) = delete;
  RocksDbIterator& operator=(const RocksDbIterator&) = delete;

  void SeekToFirst() override {
    if (iterator_ != nullptr) iterator_->SeekToFirst();
  }
  void Seek(std::string_view target) override {
    if (iterator_ != nullptr) iterator_->Seek(ToSlice(std::max<std::string_view>(target, lower_)));
  }
  void SeekToLast() override {
    if (iterator_ != nullptr) iterator_->SeekToLast();
  }
  void Next() override { iterator_->Next(); }
  void Prev() override { iterator_->Prev(); }
  bool Valid() const override { return iterator_ != nullptr && iterator_->Valid(); }
  std::string_view key() const override { return ToView(iterator_->key()); }
  std::string_view value() const override { return ToView(iterator_->value()); }
  absl::Status status() const override {
    if (iterator_ == nullptr || iterator_->status().ok()) return absl::OkStatus();
    return ToStatus(iterator_->status(), fmt::format("cannot scan table {}", TableName(table_)));
  }

 private:
  const std::shared_ptr<const Moment> moment_;
  const Table table_;
  const std::string lower_;
  const std::string upper_;
  const rocksdb::Slice lower_slice_;
  const rocksdb::Slice upper_slice_;
  std::unique_ptr<rocksdb::Iterator> iterator_;  // null: the bounds leave nothing
};

class RocksDbSnapshot final : public Snapshot {
 public:
  explicit RocksDbSnapshot(std::shared_ptr<const Moment> moment) : moment_(std::move(moment)) {}

  absl::StatusOr<std::string> Get(Table table, std::string_view key) const override {
    rocksdb::ReadOptions options;
    options.snapshot = moment_->snapshot();
    return Read(moment_->db(), options, moment_->handle(table), key);
  }

  std::unique_ptr<Iterator> NewIterator(Table table, std::string_view lower,
                                        std::string_view upper) const override {
    return std::make_unique<RocksDbIterator>(moment_, table, lower, upper);
  }

 private:
  const std::shared_ptr<const Moment> moment_;
};

// --- Whole files ---------------------------------------------------------------------------------

class SortedFileWriter final : public FileIngester::Writer {
 public:
  SortedFileWriter(const rocksdb::Options& options, std::string path)
      : path_(std::move(path)), writer_(rocksdb::EnvOptions(), options) {}
  ~SortedFileWriter() override {
    if (finished_) return;
    std::error_code ignored;  // A leftover costs space, nothing else.
    fs::remove(path_, ignored);
  }

  absl::Status Open() { return ToStatus(writer_.Open(path_), Refused("open")); }

  absl::Status Put(std::string_view key, std::string_view value) override {
    if (finished_) {
      return absl::FailedPreconditionError(fmt::format("{}: it is finished", Refused("add to")));
    }
    if (count_ > 0 && key <= last_key_) {
      return absl::InvalidArgumentError(
          fmt::format("{}: key '{}' after '{}'; keys must rise in byte order", Refused("add to"),
                      Escaped(key), Escaped(last_key_)));
    }
    const rocksdb::Status status = writer_.Put(ToSlice(key), ToSlice(value));
    if (!status.ok()) return ToStatus(status, Refused("add to"));
    last_key_.assign(key);
    ++count_;
    return absl::OkStatus();
  }

  absl::Status Finish() override {
    if (count_ == 0 || finished_) {
      return absl::FailedPreconditionError(
          fmt::format("{}{}", Refused("finish"),
                      count_ == 0 ? ": it has no keys" : ": it is finished already"));
    }
    const rocksdb::Status status = writer_.Finish();
    if (!status.ok()) return ToStatus(status, Refused("finish"));
    finished_ = true;
    return absl::OkStatus();
  }

 private:
  std::string Refused(std::string_view what) const {
    return fmt::format("cannot {} sorted file '{}'", what, path_);
  }

  const std::string path_;
  rocksdb::SstFileWriter writer_;
  std::string last_key_;
  uint64_t count_ = 0;
  bool finished_ = false;
};

// --- The engine ----------------------------------------------------------------------------------

class RocksDbEngine final : public Engine, public FileIngester {
 public:
  // Takes `db` and `handles`, the unused default family first, then the tables.
  RocksDbEngine(std::string path, const RocksDbOptions& options, std::unique_ptr<rocksdb::DB> db,
                const std::vector<rocksdb::ColumnFamilyHandle*>& handles,
                rocksdb::Options file_options, std::shared_ptr<Health> health)
      : path_(std::move(path)),
        options_(options),
        file_options_(std::move(file_options)),
        health_(std::move(health)),
        db_(std::move(db)),
        default_(handles[0]),
        snapshots_(db_.get()) {
    std::copy(handles.begin() + 1, handles.end(), tables_.begin());
  }
  RocksDbEngine(const RocksDbEngine&) = delete;
  RocksDbEngine& operator=(const RocksDbEngine&) = delete;

  ~RocksDbEngine() override {
    for (rocksdb::ColumnFamilyHandle* const handle : AllHandles()) {
      db_->DestroyColumnFamilyHandle(handle).PermitUncheckedError();
    }
    if (const rocksdb::Status status = db_->Close(); !status.ok()) {
      spdlog::warn("closing engine '{}': {}", path_, Words(status));
    }
  }

  absl::Status Write(const WriteBatch& batch) override;
  absl::Status Sync() override;
  absl::StatusOr<std::string> Get(Table table, std::string_view key) const override {
    return Read(db_.get(), rocksdb::ReadOptions(), handle(table), key);
  }
  std::unique_ptr<Snapshot> NewSnapshot() const override {
    return std::make_unique<RocksDbSnapshot>(
        std::make_shared<const Moment>(db_.get(), &tables_, &snapshots_));
  }
  absl::Status Scrub(Table table, std::string_view lower, std::string_view upper) override;

  FileIngester* file_ingester() override { return this; }
  absl::StatusOr<std::unique_ptr<Writer>> NewFile(const std::string& path) override;
  absl::Status Ingest(Table table, const std::vector<std::string>& paths) override;

 private:
  rocksdb::ColumnFamilyHandle* handle(Table table) const {
    return tables_[static_cast<size_t>(table)];
  }
  std::vector<rocksdb::ColumnFamilyHandle*> AllHandles() const {
    std::vector<rocksdb::ColumnFamilyHandle*> all(tables_.begin(), tables_.end());
    all.push_back(default_);
    return all;
  }

  // OK where writes may go to RocksDB now.
  absl::Status CheckWritable();
  absl::Status CheckSpace() const;
  // Lets RocksDB write out, after a full disk, what is in memory; false where the disk is still
  // full, as far as is known.
  bool TryResume();
  absl::Status RefusedForSpace() const;
  // Writes a key to the default family and the family to a file: a new log, and a new
  // manifest that knows only the present files.
  rocksdb::Status Touch();
  // Waits until all `files` are gone. UNAVAILABLE where one is still there at `deadline`.
  absl::Status AwaitDeleted(const std::vector<std::string>& files, absl::Time deadline) const;

  const std::string path_;
  const RocksDbOptions options_;
  const rocksdb::Options file_options_;
  const std::shared_ptr<Health> health_;
  const std::unique_ptr<rocksdb::DB> db_;
  rocksdb::ColumnFamilyHandle* const default_;
  TableHandles tables_;
  mutable SnapshotList snapshots_;

  absl::Mutex resume_mutex_;  // held while RocksDB tries again after a full disk
  absl::Time next_resume_ ABSL_GUARDED_BY(resume_mutex_) = absl::InfinitePast();
  absl::Mutex scrub_mutex_;  // held for a whole Scrub

  absl::Mutex sync_mutex_;
  absl::CondVar sync_ended_;
  bool syncing_ ABSL_GUARDED_BY(sync_mutex_) = false;
  uint64_t syncs_started_ ABSL_GUARDED_BY(sync_mutex_) = 0;
  // The youngest sync that has ended well; they end in the order in which they start.
  uint64_t syncs_done_ ABSL_GUARDED_BY(sync_mutex_) = 0;
};

absl::Status RocksDbEngine::CheckSpace() const {
  struct statvfs disk;
  if (statvfs(path_.c_str(), &disk) != 0) return absl::OkStatus();
  const uint64_t free_bytes = uint64_t{disk.f_bavail} * disk.f_frsize;
  if (free_bytes >= options_.free_bytes_min) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      fmt::format("refused to write to engine '{}': {} bytes free on its disk, needs {}", path_,
                  free_bytes, options_.free_bytes_min));
}

absl::Status RocksDbEngine::CheckWritable() {
  if (absl::Status broken = health_->Check(); !broken.ok()) return broken;
  if (absl::Status space = CheckSpace(); !space.ok()) return space;
  if (health_->state() == Health::State::kFull && !TryResume()) return RefusedForSpace();
  return health_->Check();
}

bool RocksDbEngine::TryResume() {
  if (!resume_mutex_.TryLock()) return false;
  // A try takes RocksDB about a second where there is still no space.
  if (absl::Now() >= next_resume_) {
    const rocksdb::Status status = db_->Resume();
    if (status.ok()) {
      health_->SetGood();
    } else if (!status.IsNoSpace()) {
      health_->Break(Words(status));
    }
    next_resume_ = absl::Now() + kResumePause;
  }
  resume_mutex_.Unlock();
  return health_->state() != Health::State::kFull;
}

absl::Status RocksDbEngine::RefusedForSpace() const {
  return absl::ResourceExhaustedError(
      fmt::format("refused to write to engine '{}': no space on its disk for files", path_));
}

absl::Status RocksDbEngine::Write(const WriteBatch& batch) {
  if (absl::Status status = CheckWritable(); !status.ok()) return status;
  if (batch.empty()) return absl::OkStatus();

  // Each operation: kind, family, two lengths.
  rocksdb::WriteBatch encoded(batch.bytes() + 16 * batch.operations().size());
  for (const WriteBatch::Operation& operation : batch.operations()) {
    rocksdb::ColumnFamilyHandle* const table = handle(operation.table);
    rocksdb::Status status;
    switch (operation.kind) {
      case WriteBatch::Kind::kPut:
        status = encoded.Put(table, operation.key, operation.value);
        break;
      case WriteBatch::Kind::kDelete:
        status = encoded.Delete(table, operation.key);
        break;
      case WriteBatch::Kind::kDeleteRange:
        status = encoded.DeleteRange(table, operation.key, operation.value);
        break;
    }
    if (!status.ok()) {
      return ToStatus(status, fmt::format("refused a key of {} bytes with a value of {}",
                                          operation.key.size(), operation.value.size()));
    }
  }
  rocksdb::WriteOptions options;
  options.sync = false;
  const rocksdb::Status status = db_->Write(options, &encoded);
  if (status.ok()) return absl::OkStatus();
  // RocksDB has called Health by now, unless it refused without trying.
  if (health_->state() == Health::State::kFull) return RefusedForSpace();
  health_->Break(Words(status));
  return health_->Check();
}

absl::Status RocksDbEngine::Sync() {
  const absl::MutexLock lock(&sync_mutex_);
  // One that has started already may miss what the caller has written.
  const uint64_t wanted = syncs_started_ + 1;
  while (true) {
    while (syncing_ && syncs_done_ < wanted) sync_ended_.Wait(&sync_mutex_);
    if (syncs_done_ >= wanted) return absl::OkStatus();
    if (absl::Status broken = health_->Check(); !broken.ok()) return broken;

    syncing_ = true;
    const uint64_t mine = ++syncs_started_;
    sync_mutex_.Unlock();
    const rocksdb::Status status = db_->SyncWAL();
    sync_mutex_.Lock();
    syncing_ = false;
    sync_ended_.SignalAll();
    if (!status.ok()) {
      health_->Break(Words(status));
      return health_->Check();
    }
    syncs_done_ = mine;
  }
}

// --- Scrub ---------------------------------------------------------------------------------------

rocksdb::Status RocksDbEngine::Touch() {
  rocksdb::Status status = db_->Put(rocksdb::WriteOptions(), default_, "scrub", "");
  if (status.ok()) status = db_->Flush(rocksdb::FlushOptions(), default_);
  return status;
}

absl::Status RocksDbEngine::AwaitDeleted(const std::vector<std::string>& files,
                                         absl::Time deadline) const {
  for (const std::string& file : files) {
    // A file goes with its last reader, on that reader's thread, and nothing tells.
    absl::Duration pause = absl::Milliseconds(1);
    std::error_code error;
    while (fs::exists(file, error)) {
      if (absl::Now() >= deadline) {
        return absl::UnavailableError(
            fmt::format("scrub of engine '{}': file '{}' is still read after {}; end the iterators",
                        path_, file, absl::FormatDuration(options_.scrub_wait_max)));
      }
      absl::SleepFor(pause);
      pause = std::min(2 * pause, absl::Milliseconds(100));
    }
    if (error) return ToStatus(error, fmt::format("cannot look for file '{}'", file));
  }
  return absl::OkStatus();
}

absl::Status RocksDbEngine::Scrub(Table table, std::string_view lower, std::string_view upper) {
  const absl::MutexLock lock(&scrub_mutex_);
  if (absl::Status status = CheckWritable(); !status.ok()) return status;
  if (!upper.empty() && lower >= upper) return Sync();
  const std::string refused = fmt::format("cannot scrub table {}", TableName(table));

  // A compaction keeps what a snapshot can still see.
  if (!snapshots_.AwaitNoneBefore(db_->GetLatestSequenceNumber(),
                                  absl::Now() + options_.scrub_wait_max)) {
    return absl::UnavailableError(fmt::format("{}: a snapshot from before is still held after {}",
                                              refused,
                                              absl::FormatDuration(options_.scrub_wait_max)));
  }

  // 1. Out of the logs: the present ones go when all that is in them is in files.
  std::vector<std::string> doomed;
  rocksdb::VectorLogPtr logs;
  rocksdb::Status status = db_->GetSortedWalFiles(logs);
  if (!status.ok()) return ToStatus(status, refused);
  for (const auto& log : logs) doomed.push_back(fmt::format("{}{}", path_, log->PathName()));
  status = Touch();
  if (status.ok()) status = db_->Flush(rocksdb::FlushOptions(), AllHandles());
  if (!status.ok()) return ToStatus(status, refused);

  // 2. Out of the files: every one that overlaps the range is written anew.
  rocksdb::ColumnFamilyMetaData files;
  db_->GetColumnFamilyMetaData(handle(table), &files);
  for (const rocksdb::LevelMetaData& level : files.levels) {
    for (const rocksdb::SstFileMetaData& file : level.files) {
      if (file.largestkey < lower || (!upper.empty() && file.smallestkey >= upper)) continue;
      doomed.push_back(fmt::format("{}{}", file.db_path, file.name));
    }
  }
  rocksdb::CompactRangeOptions options;
  options.exclusive_manual_compaction = true;
  options.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForce;
  const rocksdb::Slice begin = ToSlice(lower);
  const rocksdb::Slice end = ToSlice(upper);
  status = db_->CompactRange(options, handle(table), &begin, upper.empty() ? nullptr : &end);
  if (!status.ok()) return ToStatus(status, refused);

  // 3. Out of the manifest, which has first and last keys of the old files.
  std::error_code error;
  for (const std::string& name : FileNames(path_, error)) {
    if (name.starts_with("MANIFEST-")) doomed.push_back(fmt::format("{}/{}", path_, name));
  }
  if (error) return ToStatus(error, refused);
  status = Touch();
  if (!status.ok()) return ToStatus(status, refused);
  return AwaitDeleted(doomed, absl::Now() + options_.scrub_wait_max);
}

// --- Ingestion -----------------------------------------------------------------------------------

absl::StatusOr<std::unique_ptr<FileIngester::Writer>> RocksDbEngine::NewFile(
    const std::string& path) {
  auto writer = std::make_unique<SortedFileWriter>(file_options_, path);
  if (absl::Status status = writer->Open(); !status.ok()) return status;
  return writer;
}

absl::Status RocksDbEngine::Ingest(Table table, const std::vector<std::string>& paths) {
  if (absl::Status status = CheckWritable(); !status.ok()) return status;
  if (paths.empty()) return absl::OkStatus();
  // The files are durable at once; what was written before must not be lost after them.
  if (absl::Status status = Sync(); !status.ok()) return status;
  rocksdb::IngestExternalFileOptions options;
  options.move_files = true;
  options.write_global_seqno = false;
  return ToStatus(
      db_->IngestExternalFile(handle(table), paths, options),
      fmt::format("cannot take {} files into table {}", paths.size(), TableName(table)));
}

// --- Opening -------------------------------------------------------------------------------------

absl::Status CheckOptions(const RocksDbOptions& options) {
  if (options.write_buffer_bytes == 0 || options.wal_bytes_max == 0 ||
      options.open_files_max < 16) {
    return absl::InvalidArgumentError(
        fmt::format("engine options: write_buffer_bytes={} and wal_bytes_max={} must be above 0, "
                    "open_files_max={} at least 16",
                    options.write_buffer_bytes, options.wal_bytes_max, options.open_files_max));
  }
  return absl::OkStatus();
}

// The number in a line of the file FORMAT; nothing where it is not one.
std::optional<int> ParseFormat(std::string_view line) {
  if (line.ends_with('\n')) line.remove_suffix(1);
  if (!line.starts_with(kFormatPrefix)) return std::nullopt;
  line.remove_prefix(kFormatPrefix.size());
  int format = 0;
  const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), format);
  if (error != std::errc() || end != line.data() + line.size()) return std::nullopt;
  return format;
}

// Makes sure that `path` is a folder of ours, marked with our format, before RocksDB
// touches it: RocksDB would set up house among anybody's files.
absl::Status PrepareFolder(const std::string& path, const RocksDbOptions& options) {
  const std::string refused = fmt::format("cannot open engine '{}'", path);
  std::error_code error;
  const bool exists = fs::exists(path, error);
  if (error) return ToStatus(error, refused);
  if (exists && !fs::is_directory(path, error)) {
    return absl::FailedPreconditionError(fmt::format("{}: it is not a folder", refused));
  }
  bool marked = false;
  bool current = false;
  std::string data;       // a file that only a database has
  std::string unrelated;  // a file that a new engine does not expect
  if (exists) {
    for (const std::string& name : FileNames(path, error)) {
      marked |= name == kFormatFile;
      current |= name == "CURRENT";
      if (name.ends_with(".sst") || name.ends_with(".log")) data = name;
      // A disk's own folder has lost+found.
      if (name != kFormatTemporary && name != "lost+found") unrelated = name;
    }
    if (error) return ToStatus(error, refused);
  }
  if (!marked && !unrelated.empty()) {
    return absl::FailedPreconditionError(
        fmt::format("{}: it holds '{}' but no file {}; wants an empty folder or an engine's",
                    refused, unrelated, kFormatFile));
  }

  rocksdb::Env* const env = rocksdb::Env::Default();
  const std::string format_path = fmt::format("{}/{}", path, kFormatFile);
  if (marked) {
    std::string line;
    const rocksdb::Status status = rocksdb::ReadFileToString(env, format_path, &line);
    if (!status.ok()) return ToStatus(status, refused);
    const std::optional<int> format = ParseFormat(line);
    if (!format.has_value()) {
      return absl::FailedPreconditionError(
          fmt::format("{}: its file {} holds '{}'; expected '{}{}'", refused, kFormatFile,
                      Escaped(line.substr(0, 80)), kFormatPrefix, kFormat));
    }
    if (*format != kFormat) {
      return absl::FailedPreconditionError(fmt::format(
          "{}: it has format {}; this program knows format {}", refused, *format, kFormat));
    }
    if (!current && !data.empty()) {
      return absl::DataLossError(
          fmt::format("{}: it holds '{}' but its file CURRENT is missing", refused, data));
    }
    if (current) return absl::OkStatus();
  }
  if (!options.create_if_missing) {
    return absl::NotFoundError(fmt::format("{}: there is none", refused));
  }
  if (marked) return absl::OkStatus();  // Stopped while it was made.

  fs::create_directories(path, error);
  if (error) return ToStatus(error, refused);
  const std::string temporary = fmt::format("{}/{}", path, kFormatTemporary);
  rocksdb::Status status = rocksdb::WriteStringToFile(
      env, fmt::format("{}{}\n", kFormatPrefix, kFormat), temporary, /*should_sync=*/true);
  if (status.ok()) status = env->RenameFile(temporary, format_path);
  // The folder's own name has to last, too.
  const fs::path absolute = fs::absolute(path, error);
  if (error) return ToStatus(error, refused);
  const fs::path folder = absolute.has_filename() ? absolute : absolute.parent_path();
  for (const fs::path& synced : {folder, folder.parent_path()}) {
    std::unique_ptr<rocksdb::Directory> directory;
    if (status.ok()) status = env->NewDirectory(synced.native(), &directory);
    if (status.ok()) status = directory->Fsync();
  }
  return ToStatus(status, refused);
}

absl::Status OpenError(const rocksdb::Status& status, const std::string& path) {
  const std::string refused = fmt::format("cannot open engine '{}'", path);
  const std::string words = Words(status);
  if (status.IsIOError() &&
      (Contains(words, "lock file") || Contains(words, "lock hold by current process"))) {
    return absl::FailedPreconditionError(
        fmt::format("{}: it is in use, by another process or twice by this one", refused));
  }
  if (status.IsNotSupported() ||
      (status.IsInvalidArgument() && Contains(words, "Column families not opened"))) {
    return absl::FailedPreconditionError(
        fmt::format("{}: a newer program has written it: {}", refused, words));
  }
  return ToStatus(status, refused);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> OpenRocksDbEngine(const std::string& path,
                                                          const RocksDbOptions& options) {
  if (absl::Status status = CheckOptions(options); !status.ok()) return status;
  if (absl::Status status = PrepareFolder(path, options); !status.ok()) return status;

  auto health = std::make_shared<Health>(path);
  const rocksdb::DBOptions database = DatabaseOptions(options, health);
  const auto cache = rocksdb::NewLRUCache(options.block_cache_bytes);
  std::vector<rocksdb::ColumnFamilyDescriptor> families;
  families.emplace_back(rocksdb::kDefaultColumnFamilyName,
                        TableOptions(Table::kMeta, options, cache));
  for (int i = 0; i < kTableCount; ++i) {
    const auto table = static_cast<Table>(i);
    families.emplace_back(std::string(TableName(table)), TableOptions(table, options, cache));
  }
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* opened = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(database, path, families, &handles, &opened);
  if (!status.ok()) return OpenError(status, path);
  // Files for ingestion do not say for which table: those of most of the data fit.
  rocksdb::Options file_options(database, TableOptions(Table::kRecord, options, cache));
  file_options.listeners.clear();
  return std::make_unique<RocksDbEngine>(path, options, std::unique_ptr<rocksdb::DB>(opened),
                                         handles, std::move(file_options), std::move(health));
}

}  // namespace chaptersync::storage
