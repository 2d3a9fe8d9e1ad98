// SPDX-License-Identifier: Apache-2.0
//
// Makes a failing run a short one: fewer faults, fewer kinds of work, fewer
// computers, fewer steps, as long as the same promise is broken. One thread.
#ifndef CHAPTERSYNC_TESTS_SIMULATION_SHRINK_H_
#define CHAPTERSYNC_TESTS_SIMULATION_SHRINK_H_

#include <functional>
#include <string>

#include "tests/simulation/options.h"
#include "tests/simulation/report.h"

namespace chaptersync::simulation {

// What kind of promise a failure breaks: its first words, without what varies.
std::string FailureKind(const std::string& failure);

// `fails` runs the options and gives the failure, empty where there is none. The
// options returned fail as `options` did. Tries a few hundred runs.
Options Shrink(const Options& options, const std::function<std::string(const Options&)>& fails);

}  // namespace chaptersync::simulation

#endif  // CHAPTERSYNC_TESTS_SIMULATION_SHRINK_H_
