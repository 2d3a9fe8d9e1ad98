// SPDX-License-Identifier: Apache-2.0
//
// What is wrong in a plan is told with its line, and an ending that does not hold is
// a failure.
#include "tests/simulation/plan.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chaptersync::simulation {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

constexpr char kStory[] =
    "# A title\n"
    "hub hq\n"
    "node milan chapter milan hub hq\n"
    "node toronto chapter toronto hub hq\n"
    "at milan put m1 chapter=everybody name=Anna phone=555-0100\n"
    "rest\n"
    "line milan down\n"
    "at milan put m1 phone=555-0111 standing=gold\n"
    "run 1s\n"
    "at toronto put m1 name=\"Anna Rossi\"\n";

std::string Wrong(const std::string& text) {
  const auto plan = Plan::Parse("x.txt", text);
  return plan.ok() ? "" : std::string(plan.status().message());
}

std::string WrongLine(const std::string& line) {
  return Wrong(std::string(kStory) + line + "\n----\neverywhere: m1 live\n");
}

std::string WrongEnd(const std::string& line) {
  return Wrong(std::string(kStory) + "----\n" + line + "\n");
}

TEST(PlanTest, SaysWhichLineIsWrongAndWhatIsAllowed) {
  EXPECT_EQ(WrongLine("rest"), "");
  EXPECT_THAT(WrongLine("sleep 10s"),
              AllOf(StartsWith("x.txt:11: 'sleep' is no command; there are"), HasSubstr("run")));
  EXPECT_THAT(WrongLine("run 10 s"),
              HasSubstr("x.txt:11: 'run 10 s' is not of the form 'run TIME'"));
  EXPECT_THAT(WrongLine("run 10x"), HasSubstr("'10x' is no time, such as"));
  EXPECT_THAT(WrongLine("line rome down"),
              HasSubstr("no computer 'rome' here; there are hq; milan; toronto"));
  EXPECT_THAT(WrongLine("hub hq"), HasSubstr("'hq' already"));
  EXPECT_THAT(WrongLine("revoke hq"), HasSubstr("'hq' is no node"));
  EXPECT_THAT(WrongLine("tell milan dropped milan m1"), HasSubstr("'milan' is no hub"));
  EXPECT_THAT(WrongLine("tell hq dropped milan"), HasSubstr("'tell HUB dropped NODE RECORD'"));
  EXPECT_THAT(WrongLine("at milan put x1 name=A"), HasSubstr("'x1' is no record, such as m1"));
  EXPECT_THAT(WrongLine("at milan put m1 host/milan=yes"),
              HasSubstr("'host/milan' is no field of m1; it has chapter, name, phone, label/KEY"));
  EXPECT_THAT(WrongLine("at milan put m1"), HasSubstr("not of the form 'put RECORD"));
  EXPECT_THAT(WrongLine("at milan put m1 name=\"Anna"), HasSubstr("a quote is not closed"));
  EXPECT_THAT(WrongLine("restore hq"), HasSubstr("hq has no backup"));
  EXPECT_THAT(WrongLine("clock milan 3y"), HasSubstr("not of the form 'clock"));
  EXPECT_THAT(WrongLine("page 1 records"), HasSubstr("before the first computer"));
}

TEST(PlanTest, SaysWhichExpectationIsWrong) {
  EXPECT_THAT(WrongEnd("finally: m1 live"), HasSubstr("x.txt:12: 'finally' is no expectation"));
  EXPECT_THAT(WrongEnd("at rome: m1 live"), HasSubstr("no computer 'rome'"));
  EXPECT_THAT(WrongEnd("everywhere: m1"), HasSubstr("of m1 nothing is expected"));
  EXPECT_THAT(WrongEnd("conflicts: m1 none\nconflicts: m1 phone lost 1 to 2 open"),
              HasSubstr("x.txt:13: 'none', and yet others"));
  EXPECT_THAT(WrongEnd(""), HasSubstr("no expectations"));
  EXPECT_THAT(Wrong("hub hq\n----\neverywhere: m1 absent\n"), HasSubstr("is no title"));
}

std::string Failure(const std::string& more, const std::string& expectation) {
  const auto plan = Plan::Parse("x.txt", kStory + more + "----\n" + expectation + "\n");
  if (!plan.ok()) return std::string(plan.status().message());
  return plan->Run().failure;
}

TEST(PlanTest, FailsWhereTheEndingIsAnotherOne) {
  EXPECT_EQ(Failure("", "everywhere: m1 live phone=555-0100 name=\"Anna Rossi\""), "");
  EXPECT_THAT(Failure("", "everywhere: m1 phone=555-0111"),
              AllOf(StartsWith("x.txt:12: 'everywhere: m1 phone=555-0111' does not hold: hq has m1 "
                               "live chapter=everybody name=\"Anna Rossi\" phone=555-0100"),
                    testing::Not(HasSubstr("$n"))));
  EXPECT_THAT(Failure("", "at toronto: m1 absent"), HasSubstr("toronto has m1 live"));
  EXPECT_THAT(Failure("", "everywhere: m2 live"), HasSubstr("hq has m2 absent"));
  EXPECT_THAT(Failure("", "conflicts: m1 phone lost 1 to 2 open"), HasSubstr("there is: none"));
  EXPECT_THAT(Failure("", "refused at milan: none"),
              HasSubstr("there is: m1 phone=555-0111 standing=gold"));
  EXPECT_THAT(Failure("", "nowhere: Anna Rossi"), HasSubstr("one text"));
  EXPECT_THAT(Failure("", "nowhere: \"Anna Rossi\""), HasSubstr("on the disk of hq"));
  EXPECT_THAT(Failure("", "new id: toronto"), HasSubstr("toronto was "));
  EXPECT_THAT(Failure("", "new epoch: hq"), HasSubstr("hq was "));
  EXPECT_THAT(Failure("", "false alarms: 1"), HasSubstr("there are 0"));
  EXPECT_THAT(Failure("", "losses allowed: 1 a fire"), HasSubstr("there are: none"));
}

TEST(PlanTest, FailsWhereAStepDoesNot) {
  EXPECT_THAT(Failure("at milan put m1 phone=555-0111\n", "everywhere: m1 live"),
              StartsWith("x.txt:11: 'at milan put m1 phone=555-0111': milan did not take it"));
  EXPECT_THAT(Failure("at milan cannot put m1 phone=555-0222\n", "everywhere: m1 live"),
              HasSubstr("milan took it"));
}

TEST(PlanTest, RepeatsWithTheNumberOfTheRound) {
  const auto plan = Plan::Parse("x.txt",
                                "# A title\n"
                                "repeat 3\n"
                                "hub hq\n"
                                "at hq put m1 chapter=everybody name=Anna$n\n"
                                "----\n"
                                "everywhere: m1 name=Anna$n\n"
                                "nowhere: Anna3\n");
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->rounds(), 3);
  EXPECT_THAT(plan->Run().failure, AllOf(HasSubstr("x.txt:7: 'nowhere: Anna3' does not hold"),
                                         HasSubstr("(with $n = 3)")));
}

}  // namespace
}  // namespace chaptersync::simulation
