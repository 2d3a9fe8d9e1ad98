// SPDX-License-Identifier: Apache-2.0
//
// Waits for drops to come to rest, then scrubs; where that fails, again later, as
// the engine then waits for an old snapshot to go.
#include "node/daemon/scrubber.h"

#include <algorithm>

#include <spdlog/spdlog.h>

namespace chaptersync::node {
namespace {

// With nothing to do, in milliseconds.
constexpr int64_t kIdleMs = 3'600'000;

}  // namespace

Scrubber::Scrubber(storage::Replica& replica, int64_t after_ms)
    : replica_(replica), after_ms_(after_ms) {
  subscription_ = replica_.Subscribe([this](const std::vector<storage::ChangeEvent>& events) {
    const bool residue = std::any_of(events.begin(), events.end(), [](const auto& event) {
      return event.kind == storage::ChangeKind::kDropped ||
             event.kind == storage::ChangeKind::kErased;
    });
    if (!residue) return;
    last_drop_ms_ = SteadyMs();
    waker_.Wake();
  });
  // What was left to do when the program ended, or crashed.
  if (replica_.scrub_due()) last_drop_ms_ = SteadyMs();
  thread_ = std::thread([this] { Run(); });
}

Scrubber::~Scrubber() {
  replica_.Unsubscribe(subscription_);
  stopping_ = true;
  waker_.Wake();
  thread_.join();
}

void Scrubber::Run() {
  while (!stopping_) {
    int64_t drop_ms = last_drop_ms_;
    const int64_t wait_ms = drop_ms == 0 ? kIdleMs : drop_ms + after_ms_ - SteadyMs();
    if (wait_ms > 0) {
      waker_.WaitFor(wait_ms);
      continue;
    }
    const absl::Status status = replica_.Scrub();
    if (status.ok()) {
      ++scrubs_;
      spdlog::info("files that held dropped or erased records were rewritten");
      // A drop that came meanwhile stays to be done.
      last_drop_ms_.compare_exchange_strong(drop_ms, 0);
    } else {
      spdlog::warn("files that held dropped or erased records could not be rewritten yet: {}",
                   status.ToString());
      last_drop_ms_ = SteadyMs();
      if (absl::IsDataLoss(status)) return;
    }
  }
}

}  // namespace chaptersync::node
