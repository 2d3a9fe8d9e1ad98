// SPDX-License-Identifier: Apache-2.0
//
// Shrinking on made-up runs, whose smallest failing one is known; and what makes a
// seed mean the same run everywhere: random numbers, order in time, options as text.
#include "tests/simulation/shrink.h"

#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include "tests/simulation/random.h"
#include "tests/simulation/scheduler.h"
#include "tests/simulation/workload.h"

namespace chaptersync::simulation {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

constexpr size_t kAllFaults = static_cast<size_t>(kLastFault) + 1;
constexpr size_t kAllWork = static_cast<size_t>(kLastWork) + 1;

// Loses a write where there are cuts and edits, two hubs, three nodes and 137 steps.
std::string LosesAWrite(const Options& options) {
  const bool fails = options.steps >= 137 && options.hubs.value_or(kHubsMax) >= 2 &&
                     options.nodes.value_or(kNodesMax) >= 3 &&
                     !options.without_faults.contains(Fault::kCut) &&
                     !options.without_work.contains(Work::kEdit);
  return fails ? "a write was lost: m1 of seed " + std::to_string(options.seed) : "";
}

TEST(ShrinkTest, FindsTheSmallestRun) {
  const Options least = Shrink({.seed = 7, .steps = 2000}, LosesAWrite);
  EXPECT_EQ(least.steps, 137);
  EXPECT_EQ(least.hubs, 2);
  EXPECT_EQ(least.nodes, 3);
  EXPECT_EQ(least.without_faults.size(), kAllFaults - 1);
  EXPECT_FALSE(least.without_faults.contains(Fault::kCut));
  EXPECT_EQ(least.without_work.size(), kAllWork - 1);
  EXPECT_FALSE(least.without_work.contains(Work::kEdit));
  EXPECT_EQ(least.seed, 7);
}

TEST(ShrinkTest, KeepsToTheSamePromise) {
  // Below 500 steps it is another promise that is broken.
  const Options least = Shrink({.seed = 1, .steps = 2000}, [](const Options& options) {
    return std::string(options.steps >= 500 ? "false alarm: m1" : "a write was lost: m1");
  });
  EXPECT_EQ(least.steps, 500);
}

TEST(ShrinkTest, TakesAShorterRunOfAnotherSeed) {
  const Options least = Shrink({.seed = 3, .steps = 1000}, [](const Options& options) {
    const uint64_t enough = options.seed == 3 ? 400 : options.seed == 3005 ? 50 : 100'000;
    return std::string(options.steps >= enough ? "false alarm" : "");
  });
  EXPECT_EQ(least.seed, 3005);
  EXPECT_EQ(least.steps, 50);
}

TEST(ShrinkTest, KnowsAFailureByItsKind) {
  EXPECT_EQ(FailureKind("false alarm: m1 field '3' = w1; of site 1 lost to w2; of site 2"),
            FailureKind("false alarm: e9 field '4' = w8; of site 0 lost to w9; of site 3"));
  EXPECT_EQ(FailureKind("hq1 tells what is not durable: Changes"), "tells what is not durable");
  EXPECT_NE(FailureKind("a write was lost: m1"), FailureKind("a settlement was lost: m1"));
  EXPECT_EQ(FailureKind("no kind of its own: 12"), FailureKind("no kind of its own: 13"));
}

// As main.cc reads it, word by word.
Options Read(const std::string& text) {
  Options options;
  const std::vector<std::string> words = absl::StrSplit(text, ' ');
  for (size_t i = 0; i + 1 < words.size(); i += 2) {
    const std::string& value = words[i + 1];
    uint64_t number = 0;
    EXPECT_EQ(absl::SimpleAtoi(value, &number), words[i] != "--without") << value;
    if (words[i] == "--seed") options.seed = number;
    if (words[i] == "--steps") options.steps = number;
    if (words[i] == "--hubs") options.hubs = number;
    if (words[i] == "--nodes") options.nodes = number;
    if (words[i] != "--without") continue;
    const auto fault = ParseFault(value);
    const auto work = ParseWork(value);
    EXPECT_NE(fault.ok(), work.ok()) << value << " must be the name of one thing";
    if (fault.ok()) options.without_faults.insert(*fault);
    if (work.ok()) options.without_work.insert(*work);
  }
  return options;
}

TEST(OptionsTest, TextNamesEverything) {
  EXPECT_EQ(Options{}.ToText(), "--seed 1 --steps 2000");
  Options options{.seed = 42, .steps = 77, .hubs = 2, .nodes = 5};
  for (size_t i = 0; i < kAllFaults; ++i) options.without_faults.insert(static_cast<Fault>(i));
  for (size_t i = 0; i < kAllWork; ++i) options.without_work.insert(static_cast<Work>(i));
  const Options read = Read(options.ToText());
  EXPECT_EQ(read.seed, 42);
  EXPECT_EQ(read.steps, 77);
  EXPECT_EQ(read.hubs, 2);
  EXPECT_EQ(read.nodes, 5);
  EXPECT_EQ(read.without_faults, options.without_faults);
  EXPECT_EQ(read.without_work, options.without_work);
  EXPECT_THAT(options.ToText(), Not(HasSubstr("?")));
}

TEST(OptionsTest, UnknownNameIsToldTheKnownOnes) {
  EXPECT_THAT(ParseFault("rain").status().message(), HasSubstr("'rain'; there are: cut, "));
  EXPECT_THAT(ParseWork("rest").status().message(), HasSubstr("'rest'; there are: create, "));
}

// Other numbers would make every seed that somebody noted another run.
TEST(RandomTest, IsTheSameOnEveryMachine) {
  Random random(0);
  EXPECT_EQ(random.Next(), 0xe220a8397b1dcdaf);  // as published for splitmix64
  EXPECT_EQ(random.Next(), 0x6e789e6aa1b965f4);
  EXPECT_EQ(random.Next(), 0x06c45d188009454f);
}

TEST(RandomTest, PurposesDrawApart) {
  Random one(5, 1);
  Random other(5, 2);
  Random again(5, 1);
  const uint64_t first = one.Next();
  EXPECT_NE(first, other.Next());
  EXPECT_EQ(first, again.Next());
  EXPECT_EQ(Random(1).Below(0), 0);
  for (int i = 0; i < 1000; ++i) {
    const uint64_t drawn = one.Between(3, 5);
    EXPECT_GE(drawn, 3);
    EXPECT_LE(drawn, 5);
  }
}

TEST(SchedulerTest, GoesByTimeThenByArrival) {
  Scheduler scheduler;
  std::vector<std::string> happened;
  const auto note = [&](const std::string& what) {
    return [&, what] { happened.push_back(what + "@" + std::to_string(scheduler.now_ms())); };
  };
  scheduler.After(20, note("late"));
  scheduler.After(10, note("first"));
  scheduler.After(10, note("second"));
  scheduler.After(5, [&] { scheduler.After(5, note("third")); });
  EXPECT_EQ(scheduler.next_ms(), 5);
  while (scheduler.Step()) {
  }
  EXPECT_THAT(happened, ElementsAre("first@10", "second@10", "third@10", "late@20"));
  EXPECT_EQ(scheduler.next_ms(), 20);
  scheduler.After(1, note("never"));
  scheduler.Clear();
  EXPECT_FALSE(scheduler.Step());
  EXPECT_EQ(scheduler.now_ms(), 20);
}

// What the promise of replay rests on; whole runs are compared by simulation_replays.
TEST(SimulateTest, LogAndHashAreTheSameAgain) {
  const Options options{.seed = 11, .steps = 150};
  std::vector<std::string> once;
  std::vector<std::string> twice;
  const Report first = Simulate(options, [&](const std::string& event) { once.push_back(event); });
  const Report second =
      Simulate(options, [&](const std::string& event) { twice.push_back(event); });
  EXPECT_EQ(once, twice);
  EXPECT_EQ(first.hash, second.hash);
  EXPECT_GE(first.steps, 150);
  EXPECT_NE(first.hash, Simulate({.seed = 12, .steps = 150}).hash);
  EXPECT_EQ(first.hash, Simulate(options).hash) << "a listener changes the run";
}

TEST(SimulateTest, AnErrorInALogThatNoFaultExplainsFailsTheRun) {
  const Options options{.seed = 11, .steps = 150};
  EXPECT_TRUE(Simulate(options).ok);
  bool logged = false;
  const Report report = Simulate(options, [&](const std::string& event) {
    if (logged || event.find(" > ") == std::string::npos) return;
    logged = true;
    spdlog::error("session 00000000000000aa with milan: something is wrong");
  });
  EXPECT_FALSE(report.ok);
  EXPECT_THAT(report.failure, testing::HasSubstr("an error that no fault explains"));
}

}  // namespace
}  // namespace chaptersync::simulation
