// SPDX-License-Identifier: Apache-2.0
//
// What both daemons share; see daemon.h. Threads are the libraries' and those of
// the parts that are started here.
#include "node/daemon/daemon.h"

#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <istream>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include <grpc/support/log.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include "node/daemon/engine_watch.h"
#include "node/daemon/invitation.h"
#include "node/entity/registry.h"
#include "node/sync/waker.h"
#include "storage/core/status.h"
#include "storage/engine/rocksdb_engine.h"
#include "storage/replica/keys.h"

namespace chaptersync::node {
namespace {

constexpr char kMarkerSetting[] = "folder.marker";
// What a batch of a thousand records, each at its limit, never reaches in practice.
constexpr int kLocalMessageBytesMax = 64 << 20;
// For calls under way when the server stops.
constexpr std::chrono::seconds kLocalGrace{1};

// From the signal to the end, in milliseconds.
constexpr int64_t kEndMsMax = 4'500;

// Options at the top of the file are those of the subcommand that was chosen.
class FlatToml final : public CLI::ConfigBase {
 public:
  explicit FlatToml(const CLI::App& app) : app_(app) {}

  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override {
    std::vector<CLI::ConfigItem> found;
    for (CLI::ConfigItem& item : CLI::ConfigBase::from_config(input)) {
      if (item.parents.empty() && item.name != "++" && item.name != "--") {
        const std::string option = "--" + item.name;
        bool known = false;  // to some subcommand
        for (const CLI::App* command : app_.get_subcommands(nullptr)) {
          if (command->get_option_no_throw(option) == nullptr) continue;
          known = true;
          if (command->parsed()) item.parents = {command->get_name()};
        }
        if (known && item.parents.empty()) continue;
      }
      found.push_back(std::move(item));
    }
    return found;
  }

 private:
  const CLI::App& app_;
};

// gRPC's own lines go where ours go. What it calls an error is mostly a stranger's connection, and
// the calls of ours say what came of theirs: a few a minute are enough.
void LogGrpc(gpr_log_func_args* line) {
  constexpr int64_t kEveryMs = 60'000;
  constexpr int kErrorsMax = 10;
  static std::atomic<int64_t> minute = -1;
  static std::atomic<int> errors = 0;
  // It looks for the address's name in a certificate even where it is told not to; a hub is
  // known by another one.
  constexpr char kNoHostName[] = "No match found for server name";
  if (std::strstr(line->message, kNoHostName) != nullptr) return;
  const int64_t now = SteadyMs() / kEveryMs;
  if (minute.exchange(now) != now) errors = 0;
  const bool tell = line->severity == GPR_LOG_SEVERITY_ERROR && errors.fetch_add(1) < kErrorsMax;
  spdlog::log(tell ? spdlog::level::warn : spdlog::level::debug, "grpc: {}", line->message);
}

sigset_t EndSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

}  // namespace

int ExitCodeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kExitDone;
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
      return kExitRefused;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
      return kExitUnreachable;
    case absl::StatusCode::kInvalidArgument:
      return kExitUsage;
    default:
      return kExitFailed;
  }
}

int Fail(const std::string& program, const absl::Status& status) {
  std::fprintf(stderr, "%s: %s\n", program.c_str(), std::string(status.message()).c_str());
  return ExitCodeOf(status);
}

void PrepareSignals() {
  const sigset_t set = EndSignals();
  CHAPTER_CHECK(pthread_sigmask(SIG_BLOCK, &set, nullptr) == 0);
  CHAPTER_CHECK(std::signal(SIGPIPE, SIG_IGN) != SIG_ERR);
  umask(077);
}

void WaitForSignal() {
  const sigset_t set = EndSignals();
  int number = 0;
  CHAPTER_CHECK(sigwait(&set, &number) == 0);
}

void EndWithin(int code) {
  std::thread([code] {
    Waker().WaitFor(kEndMsMax);
    spdlog::warn("not all has ended in time; the program ends all the same");
    _exit(code);
  }).detach();
}

void PrepareLog() {
  gpr_set_log_function(LogGrpc);
  auto logger = spdlog::stderr_logger_mt("chaptersync");
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l %v");
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
}

void AddConfiguration(CLI::App& app) {
  app.set_config("--config", "", "options from a TOML file", false)->envname("CHAPTER_CONFIG");
  app.config_formatter(std::make_shared<FlatToml>(app));
  app.allow_config_extras(CLI::config_extras_mode::error);
  app.require_subcommand(1);
  app.fallthrough();
}

std::optional<int> Parse(CLI::App& app, int argc, char** argv) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& help) {
    return app.exit(help);
  } catch (const CLI::CallForAllHelp& help) {
    return app.exit(help);
  } catch (const CLI::CallForVersion& version) {
    return app.exit(version);
  } catch (const CLI::ParseError& error) {
    // It may quote words, and an invitation's text without quotes around it is many.
    const std::string what = error.what();
    std::fprintf(stderr, "%s: %s (see --help)\n", app.get_name().c_str(),
                 MayBeSecret(what) ? "there is a word too many, or one that was not expected; it "
                                     "is not shown, as it may be an invitation's text"
                                   : what.c_str());
    return kExitUsage;
  }
  return std::nullopt;
}

void AddTestClock(CLI::App& command, TestClock& clock) {
  command.add_option("--test-clock-offset-ms", clock.offset_ms)
      ->group("")
      ->envname("CHAPTER_TEST_CLOCK_OFFSET_MS");
  command.add_option("--test-clock-offset-file", clock.offset_file)
      ->group("")
      ->envname("CHAPTER_TEST_CLOCK_OFFSET_FILE");
}

absl::Status CheckTestClock(const TestClock& clock) {
  if (!clock.set()) return absl::OkStatus();
  if (clock.moves() && !ReadClockOffset(clock.offset_file)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the test clock's file '", clock.offset_file,
                     "' cannot be read, or holds no number of milliseconds"));
  }
  spdlog::warn(
      "A TEST CLOCK IS SET by CHAPTER_TEST_CLOCK_OFFSET_MS or CHAPTER_TEST_CLOCK_OFFSET_FILE: this "
      "program goes by another time than the computer's, and what has ended may hold again, "
      "certificates and invitations among it. It is for tests only");
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<OpenedReplica>> OpenedReplica::Open(const DataFolder& folder,
                                                                   const TestClock& test_clock) {
  std::unique_ptr<OpenedReplica> opened(new OpenedReplica(test_clock));
  // Only the first time is there nothing: later an empty database is a lost one.
  storage::RocksDbOptions engine_options;
  engine_options.create_if_missing = !folder.served();
  auto database = storage::OpenRocksDbEngine(folder.database_path(), engine_options);
  if (absl::IsNotFound(database.status())) {
    return absl::DataLossError(absl::StrCat("the database in '", folder.database_path(),
                                            "' is gone, though it was served before; put it back "
                                            "from a backup, or join anew with another folder"));
  }
  CHAPTER_RETURN_IF_ERROR(database.status());
  opened->engine_ = std::make_unique<EngineWatch>(
      *std::move(database), [self = opened.get()](const auto& status) {
        if (self->lost_.exchange(true)) return;
        spdlog::critical("the disk failed, so the program ends: {}", status.ToString());
        kill(getpid(), SIGTERM);
      });
  storage::ReplicaOptions options;
  options.hub = folder.facts().hub;
  options.chapter = folder.facts().chapter;
  options.node = folder.facts().node;
  options.entities = StorageRules(BuiltinEntities());
  options.must_exist = folder.served();
  CHAPTER_ASSIGN_OR_RETURN(const std::string marker, folder.Marker());
  auto known = opened->engine_->Get(storage::Table::kMeta, storage::keys::Setting(kMarkerSetting));
  if (!known.ok() && !absl::IsNotFound(known.status())) return known.status();
  options.copied = known.ok() && *known != marker;
  if (options.copied) {
    spdlog::warn(
        "this folder is a copy or was restored: it writes under a new replica id from now on");
  }
  CHAPTER_ASSIGN_OR_RETURN(opened->replica_,
                           storage::Replica::Open(*opened->engine_, opened->environment_, options));
  if (!known.ok() || *known != marker) {
    CHAPTER_RETURN_IF_ERROR(opened->replica_->PutSetting(kMarkerSetting, marker));
  }
  if (!folder.served()) CHAPTER_RETURN_IF_ERROR(folder.SetServed());
  return opened;
}

LocalServer::LocalServer(storage::Replica& replica, storage::Environment& environment, Peers& peers,
                         Roster* roster, const std::string& federation,
                         CertificateEnd certificate_end)
    : api_{replica, BuiltinEntities(), environment},
      records_(api_),
      conflicts_(api_),
      refused_(api_),
      approvals_(api_, roster),
      sync_(replica, peers),
      admin_(api_, peers, roster, federation, std::move(certificate_end)) {}

LocalServer::~LocalServer() { Stop(); }

absl::Status LocalServer::Start(const std::string& socket) {
  grpc::ServerBuilder builder;
  builder.AddListeningPort("unix:" + socket, grpc::InsecureServerCredentials());
  builder.SetMaxReceiveMessageSize(kLocalMessageBytesMax);
  builder.SetMaxSendMessageSize(kLocalMessageBytesMax);
  builder.RegisterService(&records_);
  builder.RegisterService(&conflicts_);
  builder.RegisterService(&refused_);
  builder.RegisterService(&approvals_);
  builder.RegisterService(&sync_);
  builder.RegisterService(&admin_);
  server_ = builder.BuildAndStart();
  if (server_ == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat("cannot listen on the socket ", socket));
  }
  return absl::OkStatus();
}

void LocalServer::Stop() {
  if (server_ == nullptr) return;
  records_.StopWatches();
  server_->Shutdown(std::chrono::system_clock::now() + kLocalGrace);
  server_->Wait();
  server_.reset();
}

}  // namespace chaptersync::node
