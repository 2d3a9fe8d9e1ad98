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

Scrubber::Scrubber(storage::Replica& replica, int64_t after_ms, int64_t within_ms)
    : replica_(replica), after_ms_(after_ms), within_ms_(within_ms) {
  subscription_ = replica_.Subscribe([this](const std::vector<storage::ChangeEvent>& events) {
    const bool residue = std::any_of(events.begin(), events.end(), [](const auto& event) {
      return event.kind == storage::ChangeKind::kDropped ||
             event.kind == storage::ChangeKind::kErased;
    });
    if (!residue) return;
    NoteResidue();
    waker_.Wake();
  });
  // What was left to do when the program ended, or crashed.
  if (replica_.scrub_due()) NoteResidue();
  thread_ = std::thread([this] { Run(); });
}

Scrubber::~Scrubber() {
  replica_.Unsubscribe(subscription_);
  stopping_ = true;
  waker_.Wake();
  thread_.join();
}

void Scrubber::NoteResidue() {
  absl::MutexLock lock(&mutex_);
  last_drop_ms_ = SteadyMs();
  if (first_drop_ms_ == 0) first_drop_ms_ = last_drop_ms_;
}

int64_t Scrubber::TakeDue() {
  absl::MutexLock lock(&mutex_);
  if (first_drop_ms_ == 0) return kIdleMs;
  const int64_t due_ms = std::min(last_drop_ms_ + after_ms_, first_drop_ms_ + within_ms_);
  const int64_t wait_ms = due_ms - SteadyMs();
  if (wait_ms > 0) return wait_ms;
  first_drop_ms_ = last_drop_ms_ = 0;
  return 0;
}

void Scrubber::Run() {
  while (!stopping_) {
    if (const int64_t wait_ms = TakeDue(); wait_ms > 0) {
      waker_.WaitFor(wait_ms);
      continue;
    }
    const absl::Status status = replica_.Scrub();
    if (status.ok()) {
      ++scrubs_;
      spdlog::info("files that held dropped or erased records were rewritten");
    } else {
      spdlog::warn("files that held dropped or erased records could not be rewritten yet: {}",
                   status.ToString());
      if (absl::IsDataLoss(status)) return;
      NoteResidue();
    }
  }
}

}  // namespace chaptersync::node
