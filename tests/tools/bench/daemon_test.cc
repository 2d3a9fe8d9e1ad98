// SPDX-License-Identifier: Apache-2.0
//
// Processes: those that get ready, those that do not, and what is said of them. The shell is the
// program.
#include "tools/bench/daemon.h"

#include <unistd.h>

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chaptersync::bench {
namespace {

using testing::HasSubstr;

class DaemonTest : public testing::Test {
 protected:
  DaemonTest() : log_(testing::TempDir() + "daemon_test." + std::to_string(getpid()) + ".log") {}
  ~DaemonTest() override { unlink(log_.c_str()); }

  Daemon Shell(const std::string& script) { return {{"/bin/sh", "-c", script}, log_}; }

  const std::string log_;
};

TEST_F(DaemonTest, IsReadyOnceItSaysSoOnALineOfItsOwn) {
  Daemon daemon = Shell("echo almost ready; echo ready; read line; echo \"got $line\"; cat");
  ASSERT_TRUE(daemon.Start().ok());
  ASSERT_TRUE(daemon.Send("a word").ok());
  EXPECT_EQ(*daemon.Receive(kCommandTimeout), "got a word");
  EXPECT_GT(daemon.Cost()->rss_mb, 0);
  EXPECT_FALSE(daemon.Start().ok()) << "it runs";
  daemon.Kill();
  EXPECT_FALSE(daemon.Cost().ok());
  EXPECT_TRUE(daemon.Start().ok()) << "once more";
}

TEST_F(DaemonTest, ItsLastWordsAreToldWhereItEndsBefore) {
  Daemon daemon = Shell("echo first >&2; echo 'no disk' >&2; exit 3");
  const absl::Status status = daemon.Start();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no disk"));
}

TEST_F(DaemonTest, AProgramThatIsNotThereIsNamed) {
  Daemon daemon({"/no/such/program"}, log_);
  EXPECT_THAT(std::string(daemon.Start().message()), HasSubstr("/no/such/program"));
}

TEST_F(DaemonTest, StopWantsExitZero) {
  Daemon good = Shell("trap 'exit 0' TERM; echo ready; while read line; do :; done");
  ASSERT_TRUE(good.Start().ok());
  EXPECT_TRUE(good.Stop().ok());
  EXPECT_TRUE(good.Stop().ok()) << "it does not run";
  Daemon bad = Shell("trap 'exit 4' TERM; echo ready; while read line; do :; done");
  ASSERT_TRUE(bad.Start().ok());
  EXPECT_THAT(std::string(bad.Stop().message()), HasSubstr("ended with 4"));
}

TEST_F(DaemonTest, ReceiveTellsOfSilenceAndOfTheEnd) {
  Daemon daemon = Shell("echo ready; read line; exit 0");
  ASSERT_TRUE(daemon.Start().ok());
  EXPECT_EQ(daemon.Receive(absl::Milliseconds(1)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  ASSERT_TRUE(daemon.Send("go").ok());
  EXPECT_EQ(daemon.Receive(kCommandTimeout).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(DaemonTest, RunProgramGivesInputAndTellsWhatFailed) {
  EXPECT_TRUE(
      RunProgram({"/bin/sh", "-c", "read word; test \"$word\" = secret"}, "secret\n", log_).ok());
  const absl::Status status = RunProgram({"/bin/sh", "-c", "echo why >&2; exit 7"}, "", log_);
  EXPECT_THAT(std::string(status.message()), HasSubstr("ended with 7: why"));
}

}  // namespace
}  // namespace chaptersync::bench
