// SPDX-License-Identifier: Apache-2.0
//
// Percentiles of what was measured, by linear interpolation between closest ranks (Hyndman and
// Fan's type 7), by which the 50th is what everybody calls the median. Pure.
#ifndef CHAPTERSYNC_TOOLS_BENCH_PERCENTILE_H_
#define CHAPTERSYNC_TOOLS_BENCH_PERCENTILE_H_

#include <vector>

namespace chaptersync::bench {

// `part`: 0 (the least value) to 1 (the greatest); 0.5 is the median. 0 where there are no values.
double Percentile(std::vector<double> values, double part);

}  // namespace chaptersync::bench

#endif  // CHAPTERSYNC_TOOLS_BENCH_PERCENTILE_H_
