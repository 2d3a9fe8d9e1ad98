// SPDX-License-Identifier: Apache-2.0
//
// The engine on disk: the contract of all engines, killed processes and torn logs, failing disks,
// what Scrub leaves in the files, and folders it must not open. The program puts itself between
// RocksDB and the kernel: it knows what has been synced, and can make a sync or a write fail.
#include "storage/engine/rocksdb_engine.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <map>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "storage/engine/engine.h"
#include "tests/storage/engine/engine_contract_test.h"

namespace chaptersync::storage {
namespace {

namespace fs = std::filesystem;

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

// --- The disk ------------------------------------------------------------------------------------

// What this program's disk has been told, and how it shall misbehave.
class Disk {
 public:
  static Disk& Get() {
    static Disk* const disk = new Disk;
    return *disk;
  }

  // Until Heal(), writing files whose names end in `suffix` fails for want of space, the first
  // time after half of the bytes.
  void FailWrites(std::string suffix) {
    const absl::MutexLock lock(&mutex_);
    failing_writes_ = std::move(suffix);
    half_written_ = false;
    faults_ = true;
  }
  void FailLogSyncs() {
    const absl::MutexLock lock(&mutex_);
    failing_syncs_ = true;
  }
  void Heal() {
    const absl::MutexLock lock(&mutex_);
    failing_writes_.clear();
    failing_syncs_ = false;
    faults_ = false;
  }
  // The next sync of a log notifies `entered`, then waits for `go`.
  void HoldNextLogSync(absl::Notification* entered, absl::Notification* go) {
    const absl::MutexLock lock(&mutex_);
    entered_ = entered;
    go_ = go;
  }
  // A line "file <bytes> <path>" for every log synced.
  void ReportTo(int fd) { report_fd_ = fd; }

  int log_syncs() const { return log_syncs_; }
  // How many bytes of the file are known to be on disk.
  uintmax_t synced_bytes(const std::string& path) const {
    const absl::MutexLock lock(&mutex_);
    const auto file = synced_.find(path);
    return file == synced_.end() ? 0 : file->second;
  }

  int Sync(int fd, long call) {
    const std::string path = PathOf(fd);
    const bool log = path.ends_with(".log");
    if (log) {
      ++log_syncs_;
      Hold();
      const absl::MutexLock lock(&mutex_);
      if (failing_syncs_) {
        errno = EIO;
        return -1;
      }
    }
    struct stat before;  // What is written meanwhile may miss the sync.
    const bool known = fstat(fd, &before) == 0;
    const int result = static_cast<int>(syscall(call, fd));
    if (result == 0 && log && known) {
      const auto bytes = static_cast<uintmax_t>(before.st_size);
      {
        const absl::MutexLock lock(&mutex_);
        synced_[path] = bytes;
      }
      if (report_fd_ >= 0) dprintf(report_fd_, "file %ju %s\n", bytes, path.c_str());
    }
    return result;
  }

  ssize_t Write(int fd, const void* data, size_t size) {
    if (faults_ && PathOf(fd).ends_with(FailingWrites())) {
      if (half_written_.exchange(true) || size < 2) {
        errno = ENOSPC;
        return -1;
      }
      size /= 2;
    }
    return syscall(SYS_write, fd, data, size);
  }

 private:
  static std::string PathOf(int fd) {
    std::array<char, 4096> path;
    const std::string link = "/proc/self/fd/" + std::to_string(fd);
    const ssize_t size = readlink(link.c_str(), path.data(), path.size());
    return size < 0 ? std::string() : std::string(path.data(), static_cast<size_t>(size));
  }
  std::string FailingWrites() const {
    const absl::MutexLock lock(&mutex_);
    return failing_writes_;
  }
  void Hold() {
    absl::Notification* entered = nullptr;
    absl::Notification* go = nullptr;
    {
      const absl::MutexLock lock(&mutex_);
      entered = std::exchange(entered_, nullptr);
      go = std::exchange(go_, nullptr);
    }
    if (entered != nullptr) {
      entered->Notify();
      go->WaitForNotification();
    }
  }

  std::atomic<bool> faults_ = false;
  std::atomic<bool> half_written_ = false;
  std::atomic<int> log_syncs_ = 0;
  std::atomic<int> report_fd_ = -1;
  mutable absl::Mutex mutex_;
  std::string failing_writes_ ABSL_GUARDED_BY(mutex_);
  bool failing_syncs_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<std::string, uintmax_t> synced_ ABSL_GUARDED_BY(mutex_);
  absl::Notification* entered_ ABSL_GUARDED_BY(mutex_) = nullptr;
  absl::Notification* go_ ABSL_GUARDED_BY(mutex_) = nullptr;
};

}  // namespace
}  // namespace chaptersync::storage

// The program's own symbols come before the C library's, for RocksDB, too.
extern "C" int fdatasync(int fd) {
  return chaptersync::storage::Disk::Get().Sync(fd, SYS_fdatasync);
}
extern "C" int fsync(int fd) { return chaptersync::storage::Disk::Get().Sync(fd, SYS_fsync); }
extern "C" ssize_t write(int fd, const void* data, size_t size) {
  return chaptersync::storage::Disk::Get().Write(fd, data, size);
}

namespace chaptersync::storage {
namespace {

class TemporaryFolder {
 public:
  TemporaryFolder() : path_(testing::TempDir() + "/chaptersync_engine_XXXXXX") {
    if (mkdtemp(path_.data()) == nullptr) std::abort();
    path_ = fs::canonical(path_).native();
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() { fs::remove_all(path_); }

  const std::string& path() const { return path_; }
  std::string operator/(std::string_view name) const { return path_ + "/" + std::string(name); }

 private:
  std::string path_;
};

// Cuts every log in `folder` down to what is synced and the part `kept` of the rest.
void TearLogs(const std::string& folder, const std::map<std::string, uintmax_t>& synced,
              double kept) {
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() != ".log") continue;
    const auto file = synced.find(entry.path().filename().native());
    const uintmax_t least = file == synced.end() ? 0 : file->second;
    const uintmax_t most = entry.file_size();
    if (most <= least) continue;
    fs::resize_file(entry.path(),
                    least + static_cast<uintmax_t>(kept * static_cast<double>(most - least)));
  }
}

// Small buffers, so that tables are written out often.
RocksDbOptions SmallBuffers() {
  RocksDbOptions options;
  options.write_buffer_bytes = 64 << 10;
  options.wal_bytes_max = 512 << 10;
  return options;
}

std::unique_ptr<Engine> Open(const std::string& path, const RocksDbOptions& options = {}) {
  auto engine = OpenRocksDbEngine(path, options);
  EXPECT_TRUE(Ok(engine.status()));
  return engine.ok() ? *std::move(engine) : nullptr;
}

// --- The contract --------------------------------------------------------------------------------

class RocksDbUnderTest final : public EngineUnderTest {
 public:
  RocksDbUnderTest() : engine_(Open(Folder())) {}
  Engine& engine() override { return *engine_; }
  std::string folder() const override { return temporary_.path(); }

  // Closing writes nothing more: the process might as well have been killed.
  void CrashAndReopen(double kept) override {
    std::map<std::string, uintmax_t> synced;
    for (const fs::directory_entry& entry : fs::directory_iterator(Folder())) {
      synced[entry.path().filename().native()] = Disk::Get().synced_bytes(entry.path().native());
    }
    engine_.reset();
    TearLogs(Folder(), synced, kept);
    engine_ = Open(Folder());
  }

 private:
  std::string Folder() const { return temporary_ / "engine"; }

  TemporaryFolder temporary_;
  std::unique_ptr<Engine> engine_;
};

std::unique_ptr<EngineUnderTest> Make() { return std::make_unique<RocksDbUnderTest>(); }

INSTANTIATE_TEST_SUITE_P(RocksDb, EngineContractTest, testing::Values(EngineMaker{Make}));

// --- Other processes -----------------------------------------------------------------------------

constexpr std::string_view kWriterFlag = "--write-until-killed";

// Writes numbered batches to the engine in `path`, from the first that is missing, and tells its
// standard output: "open", then after every sync "synced <batches>".
int WriteUntilKilled(const std::string& path) {
  Disk::Get().ReportTo(STDOUT_FILENO);
  auto engine = OpenRocksDbEngine(path, SmallBuffers());
  int count = 0;
  if (!engine.ok() || !CountNumberedBatches(**engine, &count)) return 1;
  dprintf(STDOUT_FILENO, "open\n");
  while (true) {
    for (int i = 0; i < 7; ++i) {
      if (!(*engine)->Write(NumberedBatch(count++)).ok()) return 1;
    }
    if (!(*engine)->Sync().ok()) return 1;
    dprintf(STDOUT_FILENO, "synced %d\n", count);
  }
}

// This program, running WriteUntilKilled.
class Writer {
 public:
  explicit Writer(const std::string& path) {
    std::array<int, 2> ends;
    if (pipe2(ends.data(), O_CLOEXEC) != 0) std::abort();
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    std::string self = "/proc/self/exe";
    std::string flag(kWriterFlag);
    std::string folder = path;
    std::array<char*, 4> arguments = {self.data(), flag.data(), folder.data(), nullptr};
    if (posix_spawn(&pid_, self.c_str(), &actions, nullptr, arguments.data(), environ) != 0) {
      std::abort();
    }
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    output_ = fdopen(ends[0], "r");
  }
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;
  ~Writer() {
    Kill();
    std::fclose(output_);
  }

  // The next line; empty where there are no more.
  std::string Line() {
    std::array<char, 8192> line;
    if (std::fgets(line.data(), line.size(), output_) == nullptr) return {};
    std::string result(line.data());
    if (result.ends_with('\n')) result.pop_back();
    return result;
  }
  void Kill() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }

 private:
  pid_t pid_ = 0;
  std::FILE* output_ = nullptr;
};

// Tables reach their files at different times, and the log is torn at will: all tables must still
// agree on one prefix, with everything in it that a sync had promised.
TEST(RocksDbEngineTest, KilledWithTornLogsKeepsAPrefixWithAllThatWasSynced) {
  const TemporaryFolder folder;
  const std::string path = folder / "engine";
  int expected = 0;
  for (const double kept : {0.0, 0.31, 0.77, 1.0, 0.0}) {
    std::map<std::string, uintmax_t> synced_files;
    int synced = expected;
    {
      Writer writer(path);
      const int enough = expected + 300;
      bool killed = false;
      for (std::string line = writer.Line(); !line.empty(); line = writer.Line()) {
        std::istringstream words(line);
        std::string kind;
        words >> kind;
        if (kind == "file") {
          uintmax_t bytes = 0;
          std::string file;
          words >> bytes >> file;
          synced_files[fs::path(file).filename().native()] = bytes;
        } else if (kind == "synced") {
          words >> synced;
        }
        if (synced >= enough && !killed) {
          writer.Kill();  // What it said before is still in the pipe.
          killed = true;
        }
      }
      ASSERT_TRUE(killed) << "the writer ended by itself";
    }
    TearLogs(path, synced_files, kept);
    const auto engine = Open(path);
    ASSERT_NE(engine, nullptr);
    ASSERT_TRUE(CountNumberedBatches(*engine, &expected)) << kept;
    EXPECT_GE(expected, synced);
  }
}

TEST(RocksDbEngineTest, RefusesAFolderThatAnotherProcessHasOpen) {
  const TemporaryFolder folder;
  const std::string path = folder / "engine";
  Writer writer(path);
  std::string line = writer.Line();
  while (!line.empty() && line != "open") line = writer.Line();
  ASSERT_EQ(line, "open");
  const absl::Status status = OpenRocksDbEngine(path, {}).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("in use"));
  writer.Kill();
  EXPECT_NE(Open(path), nullptr);
}

// --- Opening -------------------------------------------------------------------------------------

// The refusal to open `path`: one line that names it.
absl::Status Refusal(const std::string& path, const RocksDbOptions& options = {}) {
  const absl::Status status = OpenRocksDbEngine(path, options).status();
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr(path), Not(HasSubstr("\n"))));
  return status;
}

void WriteFile(const std::string& path, std::string_view content) {
  std::ofstream(path, std::ios::binary) << content;
}

TEST(RocksDbEngineTest, RefusesAFolderThatItHasOpen) {
  const TemporaryFolder folder;
  auto engine = Open(folder / "engine");
  EXPECT_TRUE(absl::IsFailedPrecondition(Refusal(folder / "engine")));
  engine.reset();
  EXPECT_NE(Open(folder / "engine"), nullptr);
}

TEST(RocksDbEngineTest, MakesMissingFolders) {
  const TemporaryFolder folder;
  EXPECT_NE(Open(folder / "a/b/c"), nullptr);
  EXPECT_NE(Open(folder / "a/b/d/"), nullptr);
}

TEST(RocksDbEngineTest, OpensTheTopOfADisk) {
  const TemporaryFolder folder;
  fs::create_directory(folder / "lost+found");
  EXPECT_NE(Open(folder.path()), nullptr);
  EXPECT_NE(Open(folder.path()), nullptr);
}

TEST(RocksDbEngineTest, DoesNotCreateUnlessAsked) {
  const TemporaryFolder folder;
  RocksDbOptions options;
  options.create_if_missing = false;
  EXPECT_TRUE(absl::IsNotFound(Refusal(folder / "engine", options)));
  EXPECT_FALSE(fs::exists(folder / "engine"));
  EXPECT_NE(Open(folder / "engine"), nullptr);
  EXPECT_NE(Open(folder / "engine", options), nullptr);
}

TEST(RocksDbEngineTest, RefusesSomebodyElsesFolder) {
  const TemporaryFolder folder;
  WriteFile(folder / "letter.txt", "Dear all,");
  EXPECT_TRUE(absl::IsFailedPrecondition(Refusal(folder.path())));
  EXPECT_TRUE(absl::IsFailedPrecondition(Refusal(folder / "letter.txt")));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()), 1);
}

TEST(RocksDbEngineTest, RefusesAnotherProgramsDatabase) {
  const TemporaryFolder folder;
  ASSERT_NE(Open(folder.path()), nullptr);
  fs::remove(folder / "FORMAT");
  EXPECT_TRUE(absl::IsFailedPrecondition(Refusal(folder.path())));
}

TEST(RocksDbEngineTest, RefusesANewerFormat) {
  const TemporaryFolder folder;
  ASSERT_NE(Open(folder.path()), nullptr);
  WriteFile(folder / "FORMAT", "chaptersync engine 2\n");
  const absl::Status status = Refusal(folder.path());
  EXPECT_TRUE(absl::IsFailedPrecondition(status));
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("has format 2; this program knows format 1"));
  WriteFile(folder / "FORMAT", "chaptersync engine one\n");
  EXPECT_TRUE(absl::IsFailedPrecondition(Refusal(folder.path())));
  WriteFile(folder / "FORMAT", "chaptersync engine 1\n");
  EXPECT_NE(Open(folder.path()), nullptr);
}

TEST(RocksDbEngineTest, RefusesDamagedFiles) {
  const TemporaryFolder folder;
  {
    const auto engine = Open(folder.path());
    ASSERT_TRUE(Ok(engine->Write(NumberedBatch(0))));
    ASSERT_TRUE(Ok(engine->Scrub(Table::kRecord, "", "")));
  }
  fs::rename(folder / "CURRENT", folder / "lost+found");
  EXPECT_TRUE(absl::IsDataLoss(Refusal(folder.path()))) << "would start an empty engine";
  WriteFile(folder / "CURRENT", "garbage");
  EXPECT_TRUE(absl::IsDataLoss(Refusal(folder.path())));
  fs::rename(folder / "lost+found", folder / "CURRENT");
  EXPECT_NE(Open(folder.path()), nullptr);
}

TEST(RocksDbEngineTest, OpensWhatWasStoppedWhileItWasMade) {
  const TemporaryFolder folder;
  WriteFile(folder / "FORMAT.new", "chapter");
  ASSERT_NE(Open(folder.path()), nullptr);
  const TemporaryFolder marked;
  WriteFile(marked / "FORMAT", "chaptersync engine 1\n");
  EXPECT_NE(Open(marked.path()), nullptr);
}

TEST(RocksDbEngineTest, RefusesImpossibleOptions) {
  const TemporaryFolder folder;
  RocksDbOptions options;
  options.write_buffer_bytes = 0;
  EXPECT_TRUE(absl::IsInvalidArgument(OpenRocksDbEngine(folder.path(), options).status()));
}

// --- A failing disk ------------------------------------------------------------------------------

class FailingDiskTest : public testing::Test {
 protected:
  ~FailingDiskTest() override { Disk::Get().Heal(); }

  int Count(const Engine& engine) {
    int count = -1;
    EXPECT_TRUE(CountNumberedBatches(engine, &count));
    return count;
  }

  TemporaryFolder folder_;
};

TEST_F(FailingDiskTest, FailedSyncEndsWritingUntilOpenedAnew) {
  auto engine = Open(folder_.path());
  ASSERT_TRUE(Ok(engine->Write(NumberedBatch(0))));
  ASSERT_TRUE(Ok(engine->Sync()));
  ASSERT_TRUE(Ok(engine->Write(NumberedBatch(1))));
  Disk::Get().FailLogSyncs();
  EXPECT_TRUE(absl::IsDataLoss(engine->Sync()));
  Disk::Get().Heal();
  EXPECT_TRUE(absl::IsDataLoss(engine->Sync()));
  EXPECT_TRUE(absl::IsDataLoss(engine->Write(NumberedBatch(2))));
  EXPECT_TRUE(absl::IsDataLoss(engine->Scrub(Table::kRecord, "", "")));
  EXPECT_EQ(Count(*engine), 2) << "reading goes on";
  engine.reset();
  engine = Open(folder_.path());
  const int count = Count(*engine);
  EXPECT_GE(count, 1);
  EXPECT_TRUE(Ok(engine->Write(NumberedBatch(count))));
  EXPECT_TRUE(Ok(engine->Sync()));
}

TEST_F(FailingDiskTest, TornLogRecordEndsWritingUntilOpenedAnew) {
  auto engine = Open(folder_.path());
  ASSERT_TRUE(Ok(engine->Write(NumberedBatch(0))));
  Disk::Get().FailWrites(".log");
  EXPECT_TRUE(absl::IsDataLoss(engine->Write(NumberedBatch(1))));
  EXPECT_EQ(Count(*engine), 1) << "nothing of it is visible";
  Disk::Get().Heal();
  EXPECT_TRUE(absl::IsDataLoss(engine->Write(NumberedBatch(1))));
  EXPECT_TRUE(absl::IsDataLoss(engine->Sync()));
  engine.reset();
  engine = Open(folder_.path());
  EXPECT_EQ(Count(*engine), 1);
  EXPECT_TRUE(Ok(engine->Write(NumberedBatch(1))));
  EXPECT_TRUE(Ok(engine->Sync()));
  engine.reset();
  engine = Open(folder_.path());
  EXPECT_EQ(Count(*engine), 2);
}

TEST_F(FailingDiskTest, NoSpaceForATableRefusesWritesUntilThereIsSome) {
  auto engine = Open(folder_.path(), SmallBuffers());
  Disk::Get().FailWrites(".sst");
  int count = 0;
  absl::Status status;
  while (status.ok() && count < 10'000) {
    status = engine->Write(NumberedBatch(count));
    if (status.ok()) ++count;
  }
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_TRUE(absl::IsResourceExhausted(engine->Write(NumberedBatch(count))));
  EXPECT_EQ(Count(*engine), count) << "nothing of what was refused";
  EXPECT_TRUE(Ok(engine->Sync()));
  Disk::Get().Heal();
  do {
    status = engine->Write(NumberedBatch(count));
    std::this_thread::yield();
  } while (absl::IsResourceExhausted(status));  // It looks for space now and then.
  ASSERT_TRUE(Ok(status));
  EXPECT_TRUE(Ok(engine->Sync()));
  EXPECT_EQ(Count(*engine), count + 1);
  engine.reset();
  engine = Open(folder_.path(), SmallBuffers());
  EXPECT_EQ(Count(*engine), count + 1);
}

TEST_F(FailingDiskTest, RefusesWritesWhileTheDiskIsNearlyFull) {
  { ASSERT_TRUE(Ok(Open(folder_.path())->Write(NumberedBatch(0)))); }
  RocksDbOptions options;
  options.free_bytes_min = std::numeric_limits<uint64_t>::max();
  const auto engine = Open(folder_.path(), options);
  EXPECT_TRUE(absl::IsResourceExhausted(engine->Write(NumberedBatch(1))));
  EXPECT_EQ(Count(*engine), 1);
  EXPECT_TRUE(Ok(engine->Sync()));
}

// --- Sharing syncs -------------------------------------------------------------------------------

// Whether thread `tid` of this process sleeps.
bool Sleeps(pid_t tid) {
  std::ifstream file("/proc/self/task/" + std::to_string(tid) + "/stat");
  const std::string stat((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const size_t name_end = stat.rfind(") ");
  return name_end != std::string::npos && stat[name_end + 2] == 'S';
}

TEST(RocksDbEngineTest, CallersWhoComeDuringASyncShareTheNext) {
  constexpr size_t kFollowers = 15;
  const TemporaryFolder folder;
  const auto engine = Open(folder.path());
  const int before = Disk::Get().log_syncs();
  absl::Notification entered;
  absl::Notification go;
  Disk::Get().HoldNextLogSync(&entered, &go);
  std::thread leader([&] {
    EXPECT_TRUE(Ok(engine->Write(NumberedBatch(0))));
    EXPECT_TRUE(Ok(engine->Sync()));
  });
  entered.WaitForNotification();

  std::array<std::atomic<pid_t>, kFollowers> syncing = {};
  std::atomic<int> returned = 0;
  std::vector<std::thread> followers;
  for (size_t i = 0; i < kFollowers; ++i) {
    followers.emplace_back([&, i] {
      WriteBatch batch;
      batch.Put(Table::kMeta, std::to_string(i), "value");
      EXPECT_TRUE(Ok(engine->Write(batch)));
      syncing[i] = static_cast<pid_t>(syscall(SYS_gettid));
      EXPECT_TRUE(Ok(engine->Sync()));
      ++returned;
    });
  }
  for (const std::atomic<pid_t>& tid : syncing) {
    while (tid == 0 || !Sleeps(tid)) std::this_thread::yield();
  }
  EXPECT_EQ(returned, 0) << "the running sync began before their writes";
  go.Notify();
  leader.join();
  for (std::thread& follower : followers) follower.join();
  // One more where a follower slept before it came to wait.
  const int syncs = Disk::Get().log_syncs() - before;
  EXPECT_GE(syncs, 2);
  EXPECT_LE(syncs, 3);
}

// --- Scrub ---------------------------------------------------------------------------------------

class ScrubTest : public testing::Test {
 protected:
  // Random bytes, which no compression hides from Occurrences().
  std::string Bytes(size_t size) {
    std::string bytes(size, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random_());
    return bytes;
  }
  // In how many files of the engine `part` occurs.
  int Occurrences(std::string_view part) {
    int count = 0;
    for (const auto& entry : fs::recursive_directory_iterator(folder_.path())) {
      if (!entry.is_regular_file()) continue;
      std::ifstream file(entry.path(), std::ios::binary);
      const std::string content((std::istreambuf_iterator<char>(file)),
                                std::istreambuf_iterator<char>());
      if (content.find(part) != std::string::npos) ++count;
    }
    return count;
  }

  TemporaryFolder folder_;
  std::mt19937 random_{20240607};  // NOLINT: the same run every time
};

TEST_F(ScrubTest, LeavesNothingDeletedOrOverwrittenInAnyFile) {
  const auto engine = Open(folder_.path(), SmallBuffers());
  const std::string marker = Bytes(16);
  const std::string kept = Bytes(16);
  const auto key = [](int i) { return "key" + std::to_string(1000 + i); };
  // On several levels, in level 0 and, at the end, in the log alone.
  for (int round = 0; round < 4; ++round) {
    for (int i = 0; i < 200; ++i) {
      WriteBatch batch;
      batch.Put(Table::kRecord, key(i), Bytes(500) + marker + Bytes(500));
      batch.Put(Table::kIndex, marker + Bytes(20), "");
      batch.Put(Table::kMeta, key(i), kept);
      ASSERT_TRUE(Ok(engine->Write(batch)));
    }
    if (round == 1) {
      ASSERT_TRUE(Ok(engine->Scrub(Table::kRecord, "", "")));
    }
  }
  ASSERT_TRUE(Ok(engine->Sync()));
  EXPECT_GT(Occurrences(marker), 3);

  WriteBatch erase;
  for (int i = 0; i < 200; ++i) {
    if (i % 2 == 0) {
      erase.Delete(Table::kRecord, key(i));
    } else {
      erase.Put(Table::kRecord, key(i), kept);
    }
  }
  {
    const auto snapshot = engine->NewSnapshot();
    const auto indexed = snapshot->NewIterator(Table::kIndex, "", "");
    for (indexed->SeekToFirst(); indexed->Valid(); indexed->Next()) {
      erase.Delete(Table::kIndex, indexed->key());
    }
  }
  ASSERT_TRUE(Ok(engine->Write(erase)));
  ASSERT_TRUE(Ok(engine->Scrub(Table::kIndex, "", "")));
  ASSERT_TRUE(Ok(engine->Scrub(Table::kRecord, key(0), key(200))));
  EXPECT_EQ(Occurrences(marker), 0);
  EXPECT_GT(Occurrences(kept), 0);
  EXPECT_EQ(*engine->Get(Table::kRecord, key(1)), kept);
  EXPECT_TRUE(absl::IsNotFound(engine->Get(Table::kRecord, key(2)).status()));
}

TEST_F(ScrubTest, CleansWhatLiesInTheLogOnly) {
  const auto engine = Open(folder_.path());
  const std::string marker = Bytes(16);
  WriteBatch batch;
  batch.Put(Table::kRecord, "k", marker);
  ASSERT_TRUE(Ok(engine->Write(batch)));
  batch.Clear();
  batch.Delete(Table::kRecord, "k");
  ASSERT_TRUE(Ok(engine->Write(batch)));
  EXPECT_EQ(Occurrences(marker), 1);
  ASSERT_TRUE(Ok(engine->Scrub(Table::kRecord, "k", "l")));
  EXPECT_EQ(Occurrences(marker), 0);
}

TEST_F(ScrubTest, CleansWhatLiesInATableFile) {
  const auto engine = Open(folder_.path());
  const std::string marker = Bytes(16);
  WriteBatch batch;
  batch.Put(Table::kRecord, "a", "kept");
  batch.Put(Table::kRecord, marker, marker);  // The manifest has it as the last key.
  ASSERT_TRUE(Ok(engine->Write(batch)));
  ASSERT_TRUE(Ok(engine->Scrub(Table::kRecord, "", "")));
  batch.Clear();
  batch.Delete(Table::kRecord, marker);
  ASSERT_TRUE(Ok(engine->Write(batch)));
  EXPECT_EQ(Occurrences(marker), 3) << "table, manifest and log";
  ASSERT_TRUE(Ok(engine->Scrub(Table::kRecord, marker, "")));
  EXPECT_EQ(Occurrences(marker), 0);
  EXPECT_EQ(*engine->Get(Table::kRecord, "a"), "kept");
}

TEST_F(ScrubTest, CleansIngestedFiles) {
  const auto engine = Open(folder_ / "engine");
  const std::string marker = Bytes(16);
  auto file = engine->file_ingester()->NewFile(folder_ / "file");
  ASSERT_TRUE(Ok(file.status()));
  ASSERT_TRUE(Ok((*file)->Put("a", marker)));
  ASSERT_TRUE(Ok((*file)->Put("b", "kept")));
  ASSERT_TRUE(Ok((*file)->Finish()));
  ASSERT_TRUE(Ok(engine->file_ingester()->Ingest(Table::kRecord, {folder_ / "file"})));
  EXPECT_EQ(Occurrences(marker), 1) << "moved, not copied";
  WriteBatch batch;
  batch.Delete(Table::kRecord, "a");
  ASSERT_TRUE(Ok(engine->Write(batch)));
  ASSERT_TRUE(Ok(engine->Scrub(Table::kRecord, "", "b")));
  EXPECT_EQ(Occurrences(marker), 0);
  EXPECT_EQ(*engine->Get(Table::kRecord, "b"), "kept");
}

TEST_F(ScrubTest, ReportsReadersThatOutlastIt) {
  RocksDbOptions options;
  options.scrub_wait_max = absl::Milliseconds(20);
  const auto engine = Open(folder_.path(), options);
  const std::string marker = Bytes(16);
  WriteBatch batch;
  batch.Put(Table::kRecord, "k", marker);
  ASSERT_TRUE(Ok(engine->Write(batch)));
  auto snapshot = engine->NewSnapshot();
  auto iterator = snapshot->NewIterator(Table::kRecord, "", "");
  batch.Clear();
  batch.Delete(Table::kRecord, "k");
  ASSERT_TRUE(Ok(engine->Write(batch)));
  EXPECT_TRUE(absl::IsUnavailable(engine->Scrub(Table::kRecord, "", "")));
  snapshot.reset();
  EXPECT_TRUE(absl::IsUnavailable(engine->Scrub(Table::kRecord, "", "")));
  iterator->SeekToFirst();
  ASSERT_TRUE(iterator->Valid());
  EXPECT_EQ(iterator->value(), marker);
  iterator.reset();
  ASSERT_TRUE(Ok(engine->Scrub(Table::kRecord, "", "")));
  EXPECT_EQ(Occurrences(marker), 0);
}

TEST_F(ScrubTest, WaitsForReaders) {
  const auto engine = Open(folder_.path());
  const std::string marker = Bytes(16);
  WriteBatch batch;
  batch.Put(Table::kRecord, "k", marker);
  ASSERT_TRUE(Ok(engine->Write(batch)));
  auto snapshot = engine->NewSnapshot();
  batch.Clear();
  batch.Delete(Table::kRecord, "k");
  ASSERT_TRUE(Ok(engine->Write(batch)));
  std::atomic<pid_t> scrubbing = 0;
  std::thread scrub([&] {
    scrubbing = static_cast<pid_t>(syscall(SYS_gettid));
    EXPECT_TRUE(Ok(engine->Scrub(Table::kRecord, "", "")));
    EXPECT_EQ(Occurrences(marker), 0);
  });
  while (scrubbing == 0 || !Sleeps(scrubbing)) std::this_thread::yield();
  EXPECT_EQ(*snapshot->Get(Table::kRecord, "k"), marker);
  snapshot.reset();
  scrub.join();
}

}  // namespace
}  // namespace chaptersync::storage

int main(int argc, char** argv) {
  if (argc == 3 && argv[1] == chaptersync::storage::kWriterFlag) {
    return chaptersync::storage::WriteUntilKilled(argv[2]);
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
