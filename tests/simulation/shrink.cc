// SPDX-License-Identifier: Apache-2.0
//
// Greedy: whatever can be left out is left out, until nothing can; then a few other
// seeds are tried. See shrink.h; one thread.
#include "tests/simulation/shrink.h"

#include <algorithm>

namespace chaptersync::simulation {
namespace {

// Other seeds that are tried at the end: a short run from one of them is as good.
constexpr uint64_t kSeedsTried = 200;
constexpr uint64_t kStepsMin = 8;

}  // namespace

std::string FailureKind(const std::string& failure) {
  for (const char* kind : {"false alarm",
                           "a write was lost",
                           "a settlement was lost",
                           "an erasure was lost",
                           "a settled conflict is open again",
                           "is not the same at",
                           "writes on as replica",
                           "not quiet",
                           "tells what is not durable",
                           "has a gap",
                           "in none of its scopes",
                           "was erased and is back",
                           "one version has two values",
                           "bytes of",
                           "nobody wrote",
                           "two computers write",
                           "a version was used twice",
                           "lacks",
                           "cannot start",
                           "cannot write",
                           "has not"}) {
    if (failure.find(kind) != std::string::npos) return kind;
  }
  return failure.substr(0, failure.find_first_of("0123456789:"));
}

Options Shrink(const Options& options, const std::function<std::string(const Options&)>& fails) {
  Options best = options;
  const std::string kind = FailureKind(fails(options));
  const auto try_one = [&](const Options& candidate) {
    const std::string failure = fails(candidate);
    if (failure.empty() || FailureKind(failure) != kind) return false;
    best = candidate;
    return true;
  };
  const auto fewer_steps = [&] {
    bool any = false;
    for (uint64_t cut = best.steps / 2; cut > 0; cut /= 2) {
      while (best.steps >= cut + kStepsMin) {
        Options candidate = best;
        candidate.steps -= cut;
        if (!try_one(candidate)) break;
        any = true;
      }
    }
    return any;
  };
  bool progress = true;
  while (progress) {
    progress = fewer_steps();
    for (uint8_t i = 0; i <= static_cast<uint8_t>(kLastFault); ++i) {
      Options candidate = best;
      if (candidate.without_faults.insert(static_cast<Fault>(i)).second) {
        progress |= try_one(candidate);
      }
    }
    for (uint8_t i = 0; i <= static_cast<uint8_t>(kLastWork); ++i) {
      Options candidate = best;
      if (candidate.without_work.insert(static_cast<Work>(i)).second) {
        progress |= try_one(candidate);
      }
    }
    for (size_t hubs = 1; hubs < best.hubs.value_or(kHubsMax); ++hubs) {
      Options candidate = best;
      candidate.hubs = hubs;
      if (try_one(candidate)) {
        progress = true;
        break;
      }
    }
    for (size_t nodes = 1; nodes < best.nodes.value_or(kNodesMax); ++nodes) {
      Options candidate = best;
      candidate.nodes = nodes;
      if (try_one(candidate)) {
        progress = true;
        break;
      }
    }
  }
  const Options found = best;
  for (uint64_t i = 1; i <= kSeedsTried; ++i) {
    Options candidate = found;
    candidate.seed = found.seed * 1000 + i;
    candidate.steps = best.steps * 3 / 4;
    if (candidate.steps < kStepsMin) break;
    if (try_one(candidate)) fewer_steps();
  }
  return best;
}

}  // namespace chaptersync::simulation
