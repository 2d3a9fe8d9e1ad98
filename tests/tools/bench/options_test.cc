// SPDX-License-Identifier: Apache-2.0
//
// chapter-bench's command line: what each case takes, with which defaults, and what is wrong usage,
// said in one line. Nothing is run.
#include "tools/bench/options.h"

#include <algorithm>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chaptersync::bench {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string ErrorOf(const std::vector<std::string>& words) {
  const auto line = ParseCommandLine(words);
  EXPECT_EQ(line.status().code(), absl::StatusCode::kInvalidArgument);
  const std::string message(line.status().message());
  EXPECT_EQ(std::count(message.begin(), message.end(), '\n'), 0) << message;
  return message;
}

TEST(OptionsTest, DefaultsAreThoseOfTheContract) {
  const auto updates = ParseCommandLine({"updates"});
  ASSERT_TRUE(updates.ok()) << updates.status();
  EXPECT_STREQ(updates->chosen->name, "updates");
  EXPECT_EQ(updates->options.records, 1'000'000);
  EXPECT_EQ(updates->options.changes, 100'000);
  EXPECT_EQ(ParseCommandLine({"conflicts"})->options.changes, 10'000);
  EXPECT_EQ(ParseCommandLine({"latency"})->options.samples, 200);
  EXPECT_EQ(ParseCommandLine({"fanout"})->options.nodes, 1'000);
  EXPECT_EQ(ParseCommandLine({"idle"})->options.seconds, 30);
  EXPECT_THAT(ParseCommandLine({"scale"})->options.sizes,
              ElementsAre(10, 100'000, 1'000'000, 5'000'000));
}

TEST(OptionsTest, TakesWhatIsSaid) {
  const auto line = ParseCommandLine({"conflicts", "--records", "50", "--changes=5", "--folder=."});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->options.records, 50);
  EXPECT_EQ(line->options.changes, 5);
  EXPECT_EQ(line->options.folder, ".");
  EXPECT_THAT(ParseCommandLine({"scale", "--sizes", "10,200"})->options.sizes,
              ElementsAre(10, 200));
  EXPECT_EQ(ParseCommandLine({"idle", "--records", "0"})->options.records, 0);
}

TEST(OptionsTest, EveryCaseHasHelp) {
  EXPECT_THAT(ParseCommandLine({"--help"})->help, HasSubstr("bootstrap"));
  EXPECT_THAT(ParseCommandLine({"--help"})->help, testing::Not(HasSubstr(kCrowdCommand)));
  for (const Case& one : AllCases()) {
    const auto line = ParseCommandLine({one.name, "--help"});
    ASSERT_TRUE(line.ok()) << line.status();
    EXPECT_THAT(line->help, HasSubstr(one.what));
  }
}

TEST(OptionsTest, TheHiddenCommandIsNoCase) {
  const auto line = ParseCommandLine({kCrowdCommand});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->chosen, nullptr);
  EXPECT_EQ(line->help, "");
}

TEST(OptionsTest, WrongUsageIsSaidInALine) {
  EXPECT_THAT(ErrorOf({}), HasSubstr("--help"));
  EXPECT_THAT(ErrorOf({"verification"}), HasSubstr("--help"));
  EXPECT_THAT(ErrorOf({"bootstrap", "updates"}), HasSubstr("updates"));
  EXPECT_THAT(ErrorOf({"bootstrap", "--changes", "5"}), HasSubstr("--changes"));
  EXPECT_THAT(ErrorOf({"bootstrap", "--records", "0"}), HasSubstr("--records"));
  EXPECT_THAT(ErrorOf({"updates", "--changes", "many"}), HasSubstr("--changes"));
  EXPECT_THAT(ErrorOf({"fanout", "--nodes", "2001"}), HasSubstr("--nodes"));
  EXPECT_THAT(ErrorOf({"scale", "--sizes", "10,x"}), HasSubstr("--sizes"));
  EXPECT_THAT(ErrorOf({"idle", "--folder", "no such folder"}), HasSubstr("--folder"));
}

}  // namespace
}  // namespace chaptersync::bench
