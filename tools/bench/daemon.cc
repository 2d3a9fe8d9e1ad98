// SPDX-License-Identifier: Apache-2.0
//
// Daemon, with fork and /proc. A process gets SIGKILL from the kernel when the thread that started
// it ends, which is the program's first one.
#include "tools/bench/daemon.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <optional>
#include <set>
#include <sstream>

#include "absl/base/const_init.h"
#include "absl/base/thread_annotations.h"
#include "absl/cleanup/cleanup.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"

#include "storage/core/status.h"

namespace chaptersync::bench {
namespace {

constexpr absl::Duration kPollPause = absl::Milliseconds(2);
constexpr int kExitCannotRun = 127;

ABSL_CONST_INIT absl::Mutex running_mutex(absl::kConstInit);
bool none_more ABSL_GUARDED_BY(running_mutex) = false;

std::set<pid_t>& Running() ABSL_EXCLUSIVE_LOCKS_REQUIRED(running_mutex) {
  static auto& running = *new std::set<pid_t>;
  return running;
}

absl::Status Failed(const char* what) {
  return absl::InternalError(absl::StrCat(what, ": ", std::strerror(errno)));
}

// Both ends are closed on exec.
struct Pipe {
  int read_end = -1;
  int write_end = -1;
};

absl::StatusOr<Pipe> MakePipe() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return Failed("pipe");
  return Pipe{ends[0], ends[1]};
}

// In the child: only what is allowed between fork and exec of a program with threads.
[[noreturn]] void BecomeProgram(char* const* words, const char* log, int in, int out,
                                pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  signal(SIGPIPE, SIG_DFL);
  const int error = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
  if (getppid() == parent && dup2(in, STDIN_FILENO) >= 0 && dup2(out, STDOUT_FILENO) >= 0 &&
      error >= 0 && dup2(error, STDERR_FILENO) >= 0) {
    close(error);
    execv(words[0], words);
  }
  _exit(kExitCannotRun);
}

// Starts `command` with `in` and `out` as its standard input and output.
absl::StatusOr<pid_t> Spawn(const std::vector<std::string>& command, int in, int out,
                            const std::string& log) {
  if (access(command[0].c_str(), X_OK) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot start ", command[0], ": ", std::strerror(errno)));
  }
  std::vector<char*> words;
  words.reserve(command.size() + 1);
  for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  const pid_t parent = getpid();
  absl::MutexLock lock(&running_mutex);
  if (none_more) return absl::CancelledError("the program ends");
  const pid_t pid = fork();
  if (pid < 0) return Failed("fork");
  if (pid == 0) BecomeProgram(words.data(), log.c_str(), in, out, parent);
  Running().insert(pid);
  return pid;
}

// Waits for the end of a child, at most until `end`; none where it has not ended.
absl::StatusOr<std::optional<int>> Reap(pid_t pid, absl::Time end) {
  for (;;) {
    int status = 0;
    {
      // Until it is reaped its number is nobody else's.
      absl::MutexLock lock(&running_mutex);
      const pid_t ended = waitpid(pid, &status, WNOHANG);
      if (ended != 0) Running().erase(pid);
      if (ended < 0) return Failed("waitpid");
      if (ended == pid) return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
    if (absl::Now() >= end) return std::nullopt;
    absl::SleepFor(kPollPause);
  }
}

void KillAndReap(pid_t pid) {
  kill(pid, SIGKILL);
  Reap(pid, absl::InfiniteFuture()).IgnoreError();
}

// The exit code once it ended; 128 and more: by a signal. DEADLINE_EXCEEDED, and it is killed.
absl::StatusOr<int> Await(pid_t pid, absl::Duration timeout) {
  CHAPTER_ASSIGN_OR_RETURN(const std::optional<int> code, Reap(pid, absl::Now() + timeout));
  if (code) return *code;
  KillAndReap(pid);
  return absl::DeadlineExceededError(
      absl::StrCat("it did not end within ", absl::FormatDuration(timeout)));
}

std::string LastLineOf(const std::string& path) {
  std::ifstream in(path);
  std::string last;
  for (std::string line; std::getline(in, line);) {
    if (!line.empty()) last = line;
  }
  return last;
}

}  // namespace

Daemon::~Daemon() { Kill(); }

absl::Status Daemon::Start() {
  if (pid_ >= 0) return absl::FailedPreconditionError(absl::StrCat(command_[0], " runs already"));
  CHAPTER_ASSIGN_OR_RETURN(const Pipe in, MakePipe());
  const auto out = MakePipe();
  if (!out.ok()) {
    close(in.read_end);
    close(in.write_end);
    return out.status();
  }
  in_ = in.write_end;
  out_ = out->read_end;
  said_.clear();
  const auto pid = Spawn(command_, in.read_end, out->write_end, log_);
  // The process's ends are its alone: its end is the end of what it says.
  close(in.read_end);
  close(out->write_end);
  if (!pid.ok()) {
    Forget();
    return pid.status();
  }
  pid_ = *pid;
  const absl::Time end = absl::Now() + kReadyTimeout;
  for (;;) {
    const auto line = Receive(end - absl::Now());
    if (line.ok() && *line == "ready") return absl::OkStatus();
    if (line.ok()) continue;
    Kill();
    if (!absl::IsDeadlineExceeded(line.status())) return line.status();
    return absl::DeadlineExceededError(absl::StrCat(
        absl::StrJoin(command_, " "), " was not ready in ", absl::FormatDuration(kReadyTimeout)));
  }
}

absl::Status Daemon::Send(const std::string& line) {
  const std::string text = line + "\n";
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t wrote = write(in_, text.data() + done, text.size() - done);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return Failed(command_[0].c_str());
    done += static_cast<size_t>(wrote);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> Daemon::Receive(absl::Duration timeout) {
  const absl::Time end = absl::Now() + timeout;
  for (;;) {
    if (const size_t size = said_.find('\n'); size != std::string::npos) {
      std::string line = said_.substr(0, size);
      said_.erase(0, size + 1);
      return line;
    }
    const int64_t left_ms = absl::ToInt64Milliseconds(end - absl::Now());
    if (left_ms <= 0) {
      return absl::DeadlineExceededError(absl::StrCat(
          absl::StrJoin(command_, " "), " said nothing for ", absl::FormatDuration(timeout)));
    }
    pollfd one{.fd = out_, .events = POLLIN, .revents = 0};
    if (poll(&one, 1, static_cast<int>(std::min<int64_t>(left_ms, INT32_MAX))) <= 0) continue;
    char buffer[1 << 14];
    const ssize_t got = read(out_, buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      return absl::FailedPreconditionError(
          absl::StrCat(absl::StrJoin(command_, " "), " ended: ", LastLineOf(log_)));
    }
    said_.append(buffer, static_cast<size_t>(got));
  }
}

absl::Status Daemon::Stop() {
  if (pid_ < 0) return absl::OkStatus();
  kill(pid_, SIGTERM);
  const auto code = Await(pid_, kStopTimeout);
  Forget();
  if (!code.ok()) {
    return absl::DeadlineExceededError(absl::StrCat(command_[0], ": ", code.status().message()));
  }
  if (*code == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(command_[0], " ended with ", *code, ": ", LastLineOf(log_)));
}

void Daemon::Kill() {
  if (pid_ >= 0) KillAndReap(pid_);
  Forget();
}

void Daemon::Forget() {
  for (int* end : {&in_, &out_}) {
    if (*end >= 0) close(*end);
    *end = -1;
  }
  pid_ = -1;
}

absl::StatusOr<ProcessCost> Daemon::Cost() const {
  const std::string folder = absl::StrCat("/proc/", pid_);
  std::ifstream stat_file(folder + "/stat");
  std::string stat;
  if (pid_ < 0 || !std::getline(stat_file, stat)) {
    return absl::InternalError(absl::StrCat(command_[0], " does not run"));
  }
  // After the name in parentheses: state is field 3; utime and stime are 14 and 15.
  const std::vector<std::string> fields = absl::StrSplit(stat.substr(stat.rfind(')') + 2), ' ');
  ProcessCost cost;
  uint64_t user = 0;
  uint64_t system = 0;
  if (fields.size() < 13 || !absl::SimpleAtoi(fields[11], &user) ||
      !absl::SimpleAtoi(fields[12], &system)) {
    return absl::InternalError(absl::StrCat(folder, "/stat is of another form"));
  }
  cost.cpu_s = static_cast<double>(user + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
  std::ifstream status(folder + "/status");
  for (std::string line; std::getline(status, line);) {
    std::istringstream words(line);
    std::string name;
    double kib = 0;
    if (!(words >> name >> kib)) continue;
    if (name == "VmRSS:") cost.rss_mb = kib * 1024 / 1e6;
    if (name == "VmHWM:") cost.rss_peak_mb = kib * 1024 / 1e6;
  }
  // One that has ended and was not waited for has no memory.
  if (cost.rss_mb == 0) return absl::InternalError(absl::StrCat(command_[0], " has ended"));
  return cost;
}

void Daemon::ResetPeak() const {
  // As proc(5) has it: 5 sets the peak to what is resident now.
  if (pid_ > 0) std::ofstream(absl::StrCat("/proc/", pid_, "/clear_refs")) << "5";
}

absl::Status RunProgram(const std::vector<std::string>& command, const std::string& input,
                        const std::string& log) {
  CHAPTER_ASSIGN_OR_RETURN(const Pipe in, MakePipe());
  const absl::Cleanup close_in = [&] { close(in.read_end); };
  const ssize_t wrote = write(in.write_end, input.data(), input.size());
  close(in.write_end);
  if (wrote != static_cast<ssize_t>(input.size())) return Failed("write");
  const int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
  if (null < 0) return Failed("/dev/null");
  const absl::Cleanup close_null = [&] { close(null); };
  CHAPTER_ASSIGN_OR_RETURN(const pid_t pid, Spawn(command, in.read_end, null, log));
  CHAPTER_ASSIGN_OR_RETURN(const int code, Await(pid, kCommandTimeout));
  if (code == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(command[0], " ended with ", code, ": ", LastLineOf(log)));
}

void KillAll() {
  absl::MutexLock lock(&running_mutex);
  none_more = true;
  for (const pid_t pid : Running()) kill(pid, SIGKILL);
}

}  // namespace chaptersync::bench
