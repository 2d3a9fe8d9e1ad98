// SPDX-License-Identifier: Apache-2.0
//
// chapter-sim: runs simulated federations from seeds. Exit 0 where every promise
// held, 1 where one did not, 2 for wrong usage.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <mutex>
#include <sstream>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include <CLI/CLI.hpp>

#include "storage/core/planted.h"
#include "tests/simulation/plan.h"
#include "tests/simulation/shrink.h"
#include "tests/simulation/workload.h"

namespace chaptersync::simulation {
namespace {

constexpr uint64_t kSeedsMax = 10'000'000;
constexpr unsigned kJobsMax = 64;
// Failing seeds that are told in full.
constexpr size_t kFailuresShown = 5;

struct Arguments {
  std::string seeds;
  Options options;
  std::vector<std::string> without;
  std::vector<std::string> plans;
  std::string defect;
  unsigned jobs = 1;
  bool log = false;
  bool twice = false;
  bool shrink = false;
  bool every_kind = false;
  bool until_found = false;
};

// The most of something that a run took to come to rest, and which.
struct Most {
  uint64_t count = 0;
  uint64_t seed = 0;
  void Note(uint64_t counted, uint64_t of_seed) {
    if (std::pair(counted, seed) > std::pair(count, of_seed)) *this = {counted, of_seed};
  }
};

struct Total {
  Counts counts;
  uint64_t runs = 0;
  uint64_t steps = 0;
  uint64_t steps_least = UINT64_MAX;
  Most rest_s;
  Most rest_messages;  // a computer
  std::vector<std::pair<uint64_t, Report>> failures;
};

std::string Command(const Arguments& arguments, const Options& options) {
  if (arguments.defect.empty()) return "chapter-sim " + options.ToText();
  return absl::StrCat("chapter-sim-planted ", options.ToText(), " --defect ", arguments.defect);
}

void ShowFailure(const Arguments& arguments, const Options& options, const Report& report) {
  std::cout << "FAILED seed " << options.seed << ": " << report.failure << "\n"
            << "  the last events:\n";
  for (const std::string& event : report.events) std::cout << "    " << event << "\n";
  std::cout << "  replay: " << Command(arguments, options) << " --log\n" << std::flush;
}

// Kinds of which a run over many seeds must have some, but for what it leaves out.
bool CheckEveryKind(const Counts& counts, const Options& options) {
  bool all = true;
  const auto need = [&](const std::string& kind, const std::string& name) {
    if (counts.Get(kind, name) > 0) return;
    std::cout << "MISSING " << kind << ": " << name << " never occurred\n";
    all = false;
  };
  for (uint8_t i = 0; i <= static_cast<uint8_t>(kLastFault); ++i) {
    const auto fault = static_cast<Fault>(i);
    if (!options.without_faults.contains(fault)) need("fault", FaultName(fault));
  }
  for (uint8_t i = 0; i <= static_cast<uint8_t>(kLastWork); ++i) {
    const auto work = static_cast<Work>(i);
    if (!options.without_work.contains(work)) need("work", WorkName(work));
  }
  for (const char* message :
       {"Hello", "Welcome", "Changes", "Changes outside a feed", "Stored", "Stored with refusals",
        "Stored with drops", "Left", "Whole", "Pulse"}) {
    need("message", message);
  }
  for (const std::string& conflict : ConflictKinds()) need("conflict", conflict);
  for (const char* form : {"partial", "whole"}) need("record", form);
  return all;
}

// With `until_found` no seed above the least one that fails matters: those below it have all been
// run when this returns, however many threads there are.
Total RunAll(const Arguments& arguments, uint64_t first, uint64_t last) {
  Total total;
  std::mutex mutex;
  std::atomic<uint64_t> next = first;
  std::atomic<uint64_t> end = last;
  const auto work = [&] {
    while (true) {
      const uint64_t seed = next++;
      if (seed > end) return;
      Options options = arguments.options;
      options.seed = seed;
      Report report = Simulate(options);
      if (arguments.twice) {
        const Report again = Simulate(options);
        if (again.hash != report.hash) {
          report.ok = false;
          report.failure = "the same seed gave another run";
        }
      }
      const std::lock_guard<std::mutex> lock(mutex);
      ++total.runs;
      total.steps += report.steps;
      total.steps_least = std::min(total.steps_least, report.steps);
      total.counts.Add(report.counts);
      total.rest_s.Note(report.counts.Get("ticks until quiet", "all"), seed);
      total.rest_messages.Note(report.counts.Get("messages a computer until quiet", "all"), seed);
      if (report.ok) continue;
      if (arguments.until_found) {
        end = std::min(end.load(), seed);
        total.failures.emplace_back(seed, std::move(report));
        continue;
      }
      if (total.failures.size() < kFailuresShown) {
        ShowFailure(arguments, options, report);
      } else {
        std::cout << "FAILED seed " << seed << ": " << report.failure << "\n" << std::flush;
      }
      total.failures.emplace_back(seed, std::move(report));
    }
  };
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < arguments.jobs; ++i) threads.emplace_back(work);
  for (std::thread& thread : threads) thread.join();
  return total;
}

// The least seed that fails, which is the same in every run of the program.
int TellFirst(const Arguments& arguments, uint64_t first, uint64_t last, const Total& total) {
  const auto least =
      std::min_element(total.failures.begin(), total.failures.end(),
                       [](const auto& a, const auto& b) { return a.first < b.first; });
  if (least == total.failures.end()) {
    std::cout << "found nothing after " << last - first + 1 << " seeds\n";
    return 0;
  }
  const auto& [seed, report] = *least;
  Options options = arguments.options;
  options.seed = seed;
  ShowFailure(arguments, options, report);
  std::cout << "found at seed " << seed << " after " << seed - first + 1
            << " seeds: " << report.failure << "\n";
  return 1;
}

int RunSeeds(const Arguments& arguments) {
  const size_t dash = arguments.seeds.find('-');
  uint64_t first = 0;
  uint64_t last = 0;
  if (!absl::SimpleAtoi(arguments.seeds.substr(0, dash), &first) ||
      !absl::SimpleAtoi(
          dash == std::string::npos ? arguments.seeds : arguments.seeds.substr(dash + 1), &last) ||
      first > last || last - first >= kSeedsMax) {
    std::cerr << "chapter-sim: '" << arguments.seeds << "' is no range of seeds, such as 1-300 (at"
              << " most " << kSeedsMax << " of them)\n";
    return 2;
  }
  const auto begin = std::chrono::steady_clock::now();
  const Total total = RunAll(arguments, first, last);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  if (arguments.until_found) return TellFirst(arguments, first, last, total);
  if (!arguments.twice) {
    for (const auto& [kind, names] : total.counts.all()) {
      const auto text = [](std::string* out, const auto& count) {
        absl::StrAppend(out, count.first, " ", count.second);
      };
      std::cout << kind << ": " << absl::StrJoin(names, ", ", text) << "\n";
    }
  }
  const bool every_kind = !arguments.every_kind || CheckEveryKind(total.counts, arguments.options);
  if (total.rest_s.count > 0) {
    std::cout << "at rest after " << total.rest_s.count << " simulated seconds at most, seed "
              << total.rest_s.seed << ", and " << total.rest_messages.count
              << " messages a computer, seed " << total.rest_messages.seed << "\n";
  }
  std::cout << total.runs << " seeds, " << total.steps << " steps (at least " << total.steps_least
            << " each), " << total.failures.size() << " failed, " << static_cast<uint64_t>(seconds)
            << " s\n";
  return total.failures.empty() && every_kind ? 0 : 1;
}

int RunOne(const Arguments& arguments) {
  const auto sink = [&](const std::string& event) {
    if (arguments.log) std::cout << event << "\n";
  };
  const Report report = Simulate(arguments.options, sink);
  std::cout << "seed " << arguments.options.seed << ": " << report.steps << " steps, hash "
            << absl::StrCat(absl::Hex(report.hash, absl::kZeroPad16)) << "\n";
  if (report.ok) return 0;
  ShowFailure(arguments, arguments.options, report);
  if (arguments.shrink) {
    const Options options = Shrink(
        arguments.options, [](const Options& candidate) { return Simulate(candidate).failure; });
    std::cout << "The shortest run found:\n";
    ShowFailure(arguments, options, Simulate(options));
  }
  return 1;
}

// All are read before the first is run.
// A file stands for itself, a folder for every .txt in it, by name.
std::vector<std::string> PlanFiles(const std::vector<std::string>& paths) {
  std::vector<std::string> out;
  for (const std::string& path : paths) {
    std::error_code not_a_folder;
    std::vector<std::string> files;
    for (const auto& entry : std::filesystem::directory_iterator(path, not_a_folder)) {
      if (entry.path().extension() == ".txt") files.push_back(entry.path().string());
    }
    std::sort(files.begin(), files.end());
    if (files.empty()) files.push_back(path);
    out.insert(out.end(), files.begin(), files.end());
  }
  return out;
}

int RunPlans(const Arguments& arguments) {
  std::vector<Plan> plans;
  bool wrong = false;
  for (const std::string& file : PlanFiles(arguments.plans)) {
    std::ifstream in(file);
    std::ostringstream text;
    text << in.rdbuf();
    absl::StatusOr<Plan> plan = in && text
                                    ? Plan::Parse(file, text.str())
                                    : absl::NotFoundError(file + ": no plan can be read there");
    if (plan.ok()) {
      plans.push_back(*std::move(plan));
    } else {
      std::cerr << "chapter-sim: " << plan.status().message() << "\n";
      wrong = true;
    }
  }
  if (wrong) return 2;
  bool ok = true;
  for (const Plan& plan : plans) {
    const Report report = plan.Run([&](const std::string& event) {
      if (arguments.log) std::cout << event << "\n";
    });
    ok = ok && report.ok;
    std::cout << (report.ok ? "ok      " : "FAILED  ") << plan.title();
    if (plan.rounds() > 1) std::cout << " (" << plan.rounds() << " times)";
    std::cout << "\n";
    if (report.ok) continue;
    std::cout << "  " << report.failure << "\n  the last events:\n";
    for (const std::string& event : report.events) std::cout << "    " << event << "\n";
  }
  return ok ? 0 : 1;
}

// What is wrong with `word` as a seed; empty where nothing is. The parser of options would take the
// highest number for one that is higher still.
std::string NotASeed(const std::string& word) {
  uint64_t seed = 0;
  if (absl::SimpleAtoi(word, &seed)) return "";
  return absl::StrCat("'", word, "' is no number from 0 to ", UINT64_MAX);
}

int Main(int argc, char** argv) {
  CLI::App app("Simulates federations, each from one number, and checks every promise.");
  Arguments arguments;
  arguments.jobs = std::max(1U, std::thread::hardware_concurrency());
  app.add_option("--seed", arguments.options.seed, "one run, from this number")
      ->check(CLI::Validator(NotASeed, "SEED"));
  app.add_option("--seeds", arguments.seeds, "many runs, such as 1-300");
  app.add_option("--steps", arguments.options.steps, "messages, writes and faults before the quiet")
      ->check(CLI::Range(1, 10'000'000));
  app.add_option("--hubs", arguments.options.hubs, "hubs (drawn from the seed unless given)")
      ->check(CLI::Range(size_t{1}, kHubsMax));
  app.add_option("--nodes", arguments.options.nodes, "nodes at the beginning")
      ->check(CLI::Range(size_t{1}, kNodesMax));
  app.add_option("--without", arguments.without, "leave out a fault or a kind of work");
  app.add_option("--plan", arguments.plans,
                 "run these plans, text files or folders of them, and nothing else");
  app.add_option("--jobs", arguments.jobs, "runs at a time")->check(CLI::Range(1U, kJobsMax));
  app.add_flag("--log", arguments.log, "print every event of the run");
  app.add_option("--watch", arguments.options.watch,
                 "with --log: print each state of this record at each computer");
  app.add_flag("--twice", arguments.twice, "run each seed twice: both must be the same; no counts");
  app.add_flag("--shrink", arguments.shrink, "look for a shorter run that fails as well");
  app.add_flag("--every-kind", arguments.every_kind,
               "fail unless every fault, message and conflict occurred");
  app.add_flag("--until-found", arguments.until_found, "end with the least seed that fails");
#ifdef CHAPTERSYNC_PLANTED_DEFECTS
  app.add_option("--defect", arguments.defect, "plant a known defect");
  bool list = false;
  app.add_flag("--list-defects", list, "print the defects, with what each does");
#endif
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    std::cerr << "chapter-sim: " << error.what() << "\n";
    return 2;
  }
  for (const std::string& name : arguments.without) {
    const auto fault = ParseFault(name);
    const auto work = ParseWork(name);
    if (fault.ok()) {
      arguments.options.without_faults.insert(*fault);
    } else if (work.ok()) {
      arguments.options.without_work.insert(*work);
    } else {
      std::cerr << "chapter-sim: " << fault.status().message() << "; " << work.status().message()
                << "\n";
      return 2;
    }
  }
#ifdef CHAPTERSYNC_PLANTED_DEFECTS
  if (list) {
    for (const storage::PlantedDefect& defect : storage::kPlantedDefects) {
      std::cout << defect.name << ": " << defect.what << "\n";
    }
    return 0;
  }
  if (!arguments.defect.empty()) {
    const storage::Planted defect = storage::PlantedByName(arguments.defect);
    if (defect == storage::Planted::kNone) {
      std::cerr << "chapter-sim: there is no defect '" << arguments.defect
                << "'; --list-defects names them\n";
      return 2;
    }
    storage::Plant(defect);
  }
#endif
  if (!arguments.plans.empty()) return RunPlans(arguments);
  return arguments.seeds.empty() ? RunOne(arguments) : RunSeeds(arguments);
}

}  // namespace
}  // namespace chaptersync::simulation

int main(int argc, char** argv) { return chaptersync::simulation::Main(argc, argv); }
