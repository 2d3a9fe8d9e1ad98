// SPDX-License-Identifier: Apache-2.0
//
// What chapter-node and chapter-hub share: opening a replica in a data folder,
// serving the local API on its Unix socket, options from file and environment,
// logging, and ending on a signal. One thread, the program's first.
#ifndef CHAPTERSYNC_NODE_DAEMON_DAEMON_H_
#define CHAPTERSYNC_NODE_DAEMON_DAEMON_H_

#include <atomic>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include <CLI/CLI.hpp>
#include <grpcpp/grpcpp.h>

#include "node/api/conflicts_service.h"
#include "node/api/records_service.h"
#include "node/api/refused_service.h"
#include "node/daemon/admin_service.h"
#include "node/daemon/approvals_service.h"
#include "node/daemon/folder.h"
#include "node/daemon/scrubber.h"
#include "node/daemon/sync_service.h"
#include "node/daemon/system_environment.h"
#include "node/sync/session_host.h"
#include "storage/engine/engine.h"
#include "storage/replica/replica.h"

namespace chaptersync::node {

// How a program ends, as scripts rely on it.
enum ExitCode : int {
  kExitDone = 0,
  kExitFailed = 1,
  kExitUsage = 2,
  kExitNotFound = 3,
  kExitRefused = 4,
  kExitUnreachable = 5,
};

// The exit code of an error.
int ExitCodeOf(const absl::Status& status);
// Prints "PROGRAM: message" on standard error; the exit code.
int Fail(const std::string& program, const absl::Status& status);

// Blocks SIGTERM and SIGINT for all threads that begin later, and ignores SIGPIPE.
void PrepareSignals();
// Waits for SIGTERM or SIGINT.
void WaitForSignal();

// Ends the process with `code` if that has not happened after a few seconds: a
// client or a disk that does not answer must not hold up a stop. All that was
// acknowledged is durable already.
void EndWithin(int code);

// One line per event on standard error.
void PrepareLog();

// Options from a TOML file (--config) and from the environment (CHAPTER_…), for
// a program and all of its subcommands. In the file options stand at the top, or
// in a table named as the subcommand.
void AddConfiguration(CLI::App& app);
// Parses; an exit code where the program is to end now.
std::optional<int> Parse(CLI::App& app, int argc, char** argv);

// Where a test clock moves, silence cannot be told from a move: as SessionConfig::silence_ms_max.
inline constexpr uint64_t kNeverSilentMs = UINT64_MAX;
// Hidden options of a command, and CHAPTER_TEST_CLOCK_...: for tests.
void AddTestClock(CLI::App& command, TestClock& clock);
// Says in the log where one is set. INVALID_ARGUMENT where its file says no time.
absl::Status CheckTestClock(const TestClock& clock);

// A replica in its folder, with all that it stands on.
class OpenedReplica {
 public:
  // Opens the folder's database; a copied or restored folder gets a new identity.
  // After a failed fsync `lost` is set and the process gets SIGTERM.
  static absl::StatusOr<std::unique_ptr<OpenedReplica>> Open(const DataFolder& folder,
                                                             const TestClock& test_clock = {});

  storage::Replica& replica() { return *replica_; }
  storage::Environment& environment() { return environment_; }
  // Data may be lost: end with an error.
  bool lost() const { return lost_; }

 private:
  explicit OpenedReplica(const TestClock& test_clock) : environment_(test_clock) {}

  SystemEnvironment environment_;
  std::atomic<bool> lost_ = false;
  std::unique_ptr<storage::Engine> engine_;
  std::unique_ptr<storage::Replica> replica_;
};

// The local API on the folder's Unix socket.
class LocalServer {
 public:
  // All outlive it; `roster` is null at a node, `certificate_end` at a hub.
  LocalServer(storage::Replica& replica, storage::Environment& environment, Peers& peers,
              Roster* roster, const std::string& federation,
              CertificateEnd certificate_end = nullptr);
  ~LocalServer();

  // Listens. FAILED_PRECONDITION where it cannot.
  absl::Status Start(const std::string& socket);
  // Ends all calls.
  void Stop();

 private:
  ApiContext api_;
  RecordsService records_;
  ConflictsService conflicts_;
  RefusedService refused_;
  ApprovalsServiceServer approvals_;
  SyncServiceServer sync_;
  AdminServiceServer admin_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_DAEMON_DAEMON_H_
