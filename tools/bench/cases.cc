// SPDX-License-Identifier: Apache-2.0
//
// The table of the cases: their names, what they take, and the defaults in which they differ. A new
// case gets its row here.
#include "tools/bench/cases.h"

namespace chaptersync::bench {

const std::vector<Case>& AllCases() {
  static const auto& cases = *new std::vector<Case>{
      {"bootstrap", "a node that holds nothing receives all members", kRecords, {}, Bootstrap},
      {"updates",
       "one field of many members, in requests of 1,000",
       kRecords | kChanges,
       {},
       Updates},
      {"latency", "one edit at a time, until a node shows it", kRecords | kSamples, {}, Latency},
      {"conflicts",
       "members that hub and node have both written while apart",
       kRecords | kChanges,
       {.changes = 10'000},
       Conflicts},
      {"idle",
       "what connected nodes cost the hub while nothing happens",
       kRecords | kNodes | kSeconds,
       {.records = 0},
       Idle},
      {"fanout",
       "one edit at a time, until every node has it",
       kRecords | kNodes | kSamples,
       {.records = 0, .samples = 50},
       Fanout},
      {"scale",
       "what must not grow with the number of records",
       kSizes | kSamples,
       {.samples = 50},
       Scale},
  };
  return cases;
}

}  // namespace chaptersync::bench
