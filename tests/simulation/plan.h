// SPDX-License-Identifier: Apache-2.0
//
// Plans: text files that tell one situation, what people do in it and what breaks,
// and how it must end. A plan reads as a story; plans/README.md has the words.
// One thread.
#ifndef CHAPTERSYNC_TESTS_SIMULATION_PLAN_H_
#define CHAPTERSYNC_TESTS_SIMULATION_PLAN_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"

#include "tests/simulation/report.h"

namespace chaptersync::simulation {

class Plan {
 public:
  // INVALID_ARGUMENT with file, line, what is wrong there and what is allowed. `file`
  // is for messages only.
  static absl::StatusOr<Plan> Parse(const std::string& file, const std::string& text);

  // Its first line: what it is called.
  const std::string& title() const { return title_; }
  uint64_t rounds() const { return rounds_; }
  // Runs it, as often as it says, each time in a new federation, until a round fails.
  // A failure names the line that does not hold, and what is there instead. `sink`,
  // where given, gets every event.
  Report Run(const std::function<void(const std::string&)>& sink = {}) const;

 private:
  Plan() = default;

  std::string file_;
  std::string text_;
  std::string title_;
  uint64_t rounds_ = 1;
};

}  // namespace chaptersync::simulation

#endif  // CHAPTERSYNC_TESTS_SIMULATION_PLAN_H_
