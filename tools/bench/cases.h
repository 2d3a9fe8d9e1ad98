// SPDX-License-Identifier: Apache-2.0
//
// The cases that chapter-bench measures. Each makes a federation of its own and prints what it
// measured as JSON objects; times in seconds or milliseconds as the names say, memory in 10^6
// bytes. A new case is a function and a row in AllCases. One thread.
#ifndef CHAPTERSYNC_TOOLS_BENCH_CASES_H_
#define CHAPTERSYNC_TOOLS_BENCH_CASES_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include <nlohmann/json.hpp>

namespace chaptersync::bench {

struct CaseOptions {
  std::string programs;  // the folder of chapter-hub and chapter-node
  std::string self;      // this program, which is the nodes of a crowd as well
  std::string folder;    // for data; must not exist, is removed in the end
  int64_t records = 1'000'000;
  int64_t changes = 100'000;
  int64_t samples = 200;
  int64_t nodes = 1'000;
  int64_t seconds = 30;
  std::vector<int64_t> sizes = {10, 100'000, 1'000'000, 5'000'000};
};

// Takes an object as soon as it is there.
using Print = std::function<void(const nlohmann::json&)>;

// The options that a case takes.
enum Takes : unsigned {
  kRecords = 1,
  kChanges = 2,
  kSamples = 4,
  kNodes = 8,
  kSeconds = 16,
  kSizes = 32,
};

struct Case {
  const char* name;
  const char* what;  // in a line
  unsigned takes;    // of Takes
  CaseOptions defaults;
  absl::Status (*run)(const CaseOptions& options, const Print& print);
};

const std::vector<Case>& AllCases();

// A node that has joined and holds nothing receives all, from the start of its process.
absl::Status Bootstrap(const CaseOptions& options, const Print& print);
// One field of `changes` members is written at the hub, in requests of kRequestWritesMax, until a
// connected node has all of them, durable.
absl::Status Updates(const CaseOptions& options, const Print& print);
// One field of one member at a time: from the call's beginning at the hub until a node's watch
// shows it, and of an event from one node over the hub to a node of another chapter.
absl::Status Latency(const CaseOptions& options, const Print& print);
// `changes` members are written at hub and node while apart; from there on until both agree and
// each has every conflict in its log.
absl::Status Conflicts(const CaseOptions& options, const Print& print);
// `nodes` nodes are connected, and nothing happens for `seconds`: what that costs the hub.
absl::Status Idle(const CaseOptions& options, const Print& print);
// An event's edit at the hub reaches `nodes` connected nodes, `samples` times.
absl::Status Fanout(const CaseOptions& options, const Print& print);
// What must not grow with the number of records, at each of `sizes`.
absl::Status Scale(const CaseOptions& options, const Print& print);

}  // namespace chaptersync::bench

#endif  // CHAPTERSYNC_TOOLS_BENCH_CASES_H_
