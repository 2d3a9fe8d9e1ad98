// SPDX-License-Identifier: Apache-2.0
//
// Percentile. Two values are looked for by partial sorting, as a fanout has many; the copy that it
// sorts is its own.
#include "tools/bench/percentile.h"

#include <algorithm>
#include <cstddef>

namespace chaptersync::bench {

double Percentile(std::vector<double> values, double part) {
  if (values.empty()) return 0;
  const double rank = std::clamp(part, 0.0, 1.0) * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(rank);
  const auto at = values.begin() + static_cast<std::ptrdiff_t>(below);
  std::nth_element(values.begin(), at, values.end());
  if (at + 1 == values.end()) return *at;
  const double above = *std::min_element(at + 1, values.end());
  return *at + (above - *at) * (rank - static_cast<double>(below));
}

}  // namespace chaptersync::bench
