// SPDX-License-Identifier: Apache-2.0
//
// What a run of the simulation did and found: counts that can be added up over
// seeds, the last events, the failure. Values; one thread.
#ifndef CHAPTERSYNC_TESTS_SIMULATION_REPORT_H_
#define CHAPTERSYNC_TESTS_SIMULATION_REPORT_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace chaptersync::simulation {

// Counts by kind and name: "fault", "crash between two effects" -> 3.
class Counts {
 public:
  void Add(const std::string& kind, const std::string& name, uint64_t count = 1) {
    counts_[kind][name] += count;
  }
  void Add(const Counts& other) {
    for (const auto& [kind, names] : other.counts_) {
      for (const auto& [name, count] : names) counts_[kind][name] += count;
    }
  }
  const std::map<std::string, std::map<std::string, uint64_t>>& all() const { return counts_; }
  uint64_t Get(const std::string& kind, const std::string& name) const {
    const auto names = counts_.find(kind);
    if (names == counts_.end()) return 0;
    const auto count = names->second.find(name);
    return count == names->second.end() ? 0 : count->second;
  }

 private:
  std::map<std::string, std::map<std::string, uint64_t>> counts_;
};

struct Report {
  bool ok = true;
  std::string failure;              // the first promise that did not hold
  std::vector<std::string> events;  // the last ones
  uint64_t steps = 0;               // messages delivered, writes, faults
  uint64_t hash = 0;                // of the whole event log
  Counts counts;
};

}  // namespace chaptersync::simulation

#endif  // CHAPTERSYNC_TESTS_SIMULATION_REPORT_H_
