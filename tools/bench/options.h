// SPDX-License-Identifier: Apache-2.0
//
// chapter-bench's command line: which case, with which options. Words come in; what to do, or what
// is wrong with them, goes out. One thread.
#ifndef CHAPTERSYNC_TOOLS_BENCH_OPTIONS_H_
#define CHAPTERSYNC_TOOLS_BENCH_OPTIONS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "tools/bench/cases.h"

namespace chaptersync::bench {

// So many a database of this machine holds in a time that somebody waits for.
inline constexpr int64_t kRecordsMax = 20'000'000;
// Edits of a case.
inline constexpr int64_t kSamplesMax = 100'000;
// Sessions that a hub serves at once (node/sync/limits.h).
inline constexpr int64_t kNodesMax = 2'000;
// Of waiting, in seconds: an hour.
inline constexpr int64_t kSecondsMax = 3'600;

// The hidden command by which the program is the nodes of a crowd; see crowd.h.
inline constexpr char kCrowdCommand[] = "crowd";

struct CommandLine {
  // What to print and be done; empty: run.
  std::string help;
  // Null: be a crowd.
  const Case* chosen = nullptr;
  // Of them `programs` and `self` are not set; `folder` is the one to make the case's folder in.
  CaseOptions options;
};

// `words`: without the program's name. INVALID_ARGUMENT, in one line, where they are wrong.
absl::StatusOr<CommandLine> ParseCommandLine(std::vector<std::string> words);

}  // namespace chaptersync::bench

#endif  // CHAPTERSYNC_TOOLS_BENCH_OPTIONS_H_
