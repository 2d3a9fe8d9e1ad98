// SPDX-License-Identifier: Apache-2.0
//
// What several cases do: a hub with members, a node that joins it, many writes at once, and the
// cost of what happens meanwhile. One thread.
#ifndef CHAPTERSYNC_TOOLS_BENCH_WORKLOAD_H_
#define CHAPTERSYNC_TOOLS_BENCH_WORKLOAD_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include <nlohmann/json.hpp>

#include "tools/bench/cases.h"
#include "tools/bench/federation.h"

namespace chaptersync::bench {

// Whose the members of a Pair are.
inline constexpr char kChapter[] = "italy";

// A hub with members, and one node that has joined and may hold all of them.
struct Pair {
  std::unique_ptr<Federation> federation;
  Site* node = nullptr;
  std::vector<std::string> ids;
  double load_s = 0;  // that the members took to be written at the hub

  Site& hub() { return federation->hub(); }
};

// Writes `count` members of a chapter at the hub; their ids.
absl::StatusOr<std::vector<std::string>> Load(Federation& federation, const std::string& chapter,
                                              int64_t count);

// The node is not started.
absl::StatusOr<Pair> MakePair(const CaseOptions& options);
// The node serves, and holds all of the members.
absl::StatusOr<Pair> MakeSyncedPair(const CaseOptions& options);

// Up to `count` different ids of members, the same for the same arguments.
std::vector<std::string> Choose(const Pair& pair, int64_t count);
// `count` ids, each chosen by itself, the same for the same arguments.
std::vector<std::string> Draw(const Pair& pair, int64_t count);

// Writes the employer of each, in requests as large as may be; one that nobody has had, made of
// `employer`.
absl::Status WriteEmployers(Site& site, const std::vector<std::string>& ids,
                            const std::string& employer);
// INTERNAL unless the site has exactly so many live members.
absl::Status CheckMembers(Site& site, int64_t count);

// What hub and node cost over a case: memory at its end and at most, processor time in it, bytes on
// their connection.
class Meter {
 public:
  enum class Node { kStopped, kPaused, kConnected };
  // `node`: how it is now. Where it is not connected, waits until its last connection has ended.
  static absl::StatusOr<Meter> Start(Pair& pair, Node node);
  // Adds to `out` what it has cost since. `changes`: of which a change's bytes are told; 0: none.
  // INTERNAL where the node has another connection than it had.
  absl::Status Finish(int64_t changes, nlohmann::json& out);

 private:
  explicit Meter(Pair& pair) : pair_(pair) {}

  Pair& pair_;
  ProcessCost hub_;
  ProcessCost node_;
  SocketBytes moved_;
};

// What every case begins its object with.
nlohmann::json Head(const char* name, int64_t records);

}  // namespace chaptersync::bench

#endif  // CHAPTERSYNC_TOOLS_BENCH_WORKLOAD_H_
