// SPDX-License-Identifier: Apache-2.0
//
// chapter-bench: measures real hubs and nodes, with TLS and fsync, on this machine, and prints one
// JSON object per case. Exit 0, 1 where something failed, 2 on wrong usage. A second thread waits
// for the signal that ends it early, which leaves nothing behind.
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"

#include "node/daemon/daemon.h"
#include "tools/bench/cases.h"
#include "tools/bench/crowd.h"
#include "tools/bench/daemon.h"
#include "tools/bench/options.h"

namespace chaptersync::bench {
namespace {

constexpr char kProgram[] = "chapter-bench";

// Kills what runs and removes the data, once SIGINT or SIGTERM comes.
void CleanUpOnSignal(const std::string& folder) {
  std::thread([folder] {
    node::WaitForSignal();
    KillAll();
    std::error_code error;
    std::filesystem::remove_all(folder, error);
    std::fprintf(stderr, "%s: ended by a signal\n", kProgram);
    _exit(node::kExitFailed);
  }).detach();
}

int Fail(const std::string& what, const absl::Status& status) {
  std::fprintf(stderr, "%s: %s%s\n", kProgram, what.c_str(), std::string(status.message()).c_str());
  return absl::IsInvalidArgument(status) && what.empty() ? node::kExitUsage : node::kExitFailed;
}

int Main(int argc, char** argv) {
  auto line = ParseCommandLine({argv + 1, argv + argc});
  if (!line.ok()) return Fail("", line.status());
  if (!line->help.empty()) {
    std::fputs(line->help.c_str(), stdout);
    return node::kExitDone;
  }
  if (line->chosen == nullptr) return RunCrowd();
  node::PrepareSignals();
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return Fail("cannot tell where it is: ", absl::InternalError(error.message()));
  line->options.self = self;
  line->options.programs = self.parent_path();
  absl::StrAppend(&line->options.folder, "/chapter-bench-", getpid());
  CleanUpOnSignal(line->options.folder);
  const absl::Status status = line->chosen->run(line->options, [](const nlohmann::json& object) {
    std::printf("%s\n", object.dump().c_str());
    std::fflush(stdout);
  });
  return status.ok() ? node::kExitDone : Fail(absl::StrCat(line->chosen->name, ": "), status);
}

}  // namespace
}  // namespace chaptersync::bench

int main(int argc, char** argv) { return chaptersync::bench::Main(argc, argv); }
