// SPDX-License-Identifier: Apache-2.0
//
// What people do and what breaks, all drawn from the seed: builds a federation,
// works on it until enough has happened, lets it come to rest. One thread.
#ifndef CHAPTERSYNC_TESTS_SIMULATION_WORKLOAD_H_
#define CHAPTERSYNC_TESTS_SIMULATION_WORKLOAD_H_

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "tests/simulation/federation.h"
#include "tests/simulation/options.h"
#include "tests/simulation/report.h"

namespace chaptersync::simulation {

// One whole run. `sink`, where given, gets every event.
Report Simulate(const Options& options, const std::function<void(const std::string&)>& sink = {});

}  // namespace chaptersync::simulation

#endif  // CHAPTERSYNC_TESTS_SIMULATION_WORKLOAD_H_
