// SPDX-License-Identifier: Apache-2.0
//
// Processes that are measured, or help to measure: starts one, waits until it is ready, asks it
// line by line, tells what it has cost, and ends it. None outlives this program, however that ends.
// Every wait has an end. One thread, but for KillAll: any.
#ifndef CHAPTERSYNC_TOOLS_BENCH_DAEMON_H_
#define CHAPTERSYNC_TOOLS_BENCH_DAEMON_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace chaptersync::bench {

// A database of millions is opened within it.
inline constexpr absl::Duration kReadyTimeout = absl::Minutes(5);
inline constexpr absl::Duration kStopTimeout = absl::Minutes(1);
// A command that is run to its end.
inline constexpr absl::Duration kCommandTimeout = absl::Minutes(1);

// What a process has cost up to now.
struct ProcessCost {
  double cpu_s = 0;        // user and system, since it started
  double rss_mb = 0;       // resident now, in 10^6 bytes
  double rss_peak_mb = 0;  // at most since it started, or since ResetPeak
};

class Daemon {
 public:
  // The program's path and its arguments. `log` gets what it writes to standard error.
  Daemon(std::vector<std::string> command, std::string log)
      : command_(std::move(command)), log_(std::move(log)) {}
  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;
  // Kills it where it runs.
  ~Daemon();

  // Starts it and waits until it says `ready` on a line of its own. DEADLINE_EXCEEDED after
  // kReadyTimeout; FAILED_PRECONDITION where it ended, with the last line of its log, or runs.
  absl::Status Start();
  // SIGTERM. OK where it ended with 0, or did not run.
  absl::Status Stop();
  // SIGKILL.
  void Kill();

  // Writes a line to its standard input. INTERNAL where it does not read any more.
  absl::Status Send(const std::string& line);
  // The next line of its standard output. DEADLINE_EXCEEDED; FAILED_PRECONDITION where it ended,
  // with the last line of its log.
  absl::StatusOr<std::string> Receive(absl::Duration timeout);

  // INTERNAL where it does not run.
  absl::StatusOr<ProcessCost> Cost() const;
  // The peak counts from now on.
  void ResetPeak() const;

  // For the next Start.
  void SetCommand(std::vector<std::string> command) { command_ = std::move(command); }

 private:
  void Forget();

  std::vector<std::string> command_;
  const std::string log_;
  pid_t pid_ = -1;
  int in_ = -1;   // its standard input
  int out_ = -1;  // its standard output
  std::string said_;
};

// Runs a program to its end with `input`, less than a pipe holds, as its standard input.
// FAILED_PRECONDITION, with the last line that it wrote to standard error, where it did not end
// with 0.
absl::Status RunProgram(const std::vector<std::string>& command, const std::string& input,
                        const std::string& log);

// Kills every process that was started here and has not ended, for a program that must end at once.
// None can be started after it.
void KillAll();

}  // namespace chaptersync::bench

#endif  // CHAPTERSYNC_TOOLS_BENCH_DAEMON_H_
