// SPDX-License-Identifier: Apache-2.0
//
// Invitations are read from a file or from standard input, and no error shows a
// byte of one, wherever its text was put.
#include "node/daemon/invitation.h"

#include <unistd.h>

#include <fstream>
#include <sstream>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chaptersync::node {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class InvitationTest : public testing::Test {
 protected:
  InvitationTest() {
    file_ = testing::TempDir() + "invitation_test_" + std::to_string(getpid()) + ".json";
  }
  ~InvitationTest() override { unlink(file_.c_str()); }

  std::string Text(int version = 1) const {
    return R"({"version": )" + std::to_string(version) +
           R"(, "hub": "127.0.0.1:7443", "chapter": "italy", "code": ")" + code_ +
           R"(", "expires": "1796388424", "federation": "F", "authority": "00ff"})";
  }
  absl::StatusOr<v1::Invitation> ReadInput(const std::string& text) {
    std::istringstream input(text);
    return ReadInvitation("-", input);
  }
  absl::StatusOr<v1::Invitation> ReadFile(const std::string& text) {
    std::ofstream(file_) << text;
    return ReadNamed(file_);
  }
  absl::StatusOr<v1::Invitation> ReadNamed(const std::string& name) {
    std::istringstream empty;
    return ReadInvitation(name, empty);
  }

  const std::string code_ = "5ec2e7" + std::string(58, 'd');
  std::string file_;
};

TEST_F(InvitationTest, IsReadFromAFileOrFromStandardInput) {
  for (const auto& read : {ReadInput(Text()), ReadFile(Text())}) {
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(read->code(), code_);
    EXPECT_EQ(read->chapter(), "italy");
    EXPECT_EQ(read->expires(), 1796388424);
  }
}

TEST_F(InvitationTest, ItsTextInPlaceOfAFilesNameIsNotShown) {
  // `--invitation "$(cat invitation.json)"` printed the code as the name of a missing file.
  const std::string long_name(5'000, 'x');
  for (const std::string& word :
       {Text(), code_, "a\n" + code_.substr(0, 8), code_.substr(0, 32), long_name}) {
    const auto read = ReadNamed(word);
    EXPECT_TRUE(absl::IsInvalidArgument(read.status())) << read.status();
    const std::string said(read.status().message());
    EXPECT_THAT(said, AllOf(HasSubstr("--invitation takes the name of a file, or -"),
                            Not(HasSubstr("5ec2e7")), Not(HasSubstr("xxx")), Not(HasSubstr("\n"))));
  }
}

TEST_F(InvitationTest, AMissingFileIsNamed) {
  const auto read = ReadNamed("nowhere/invitation-3f2a.json");
  EXPECT_TRUE(absl::IsNotFound(read.status()));
  EXPECT_THAT(std::string(read.status().message()), HasSubstr("'nowhere/invitation-3f2a.json'"));
}

TEST_F(InvitationTest, AFileWithAnOddNameIsReadAllTheSame) {
  const std::string odd = file_ + "{0}";
  std::ofstream(odd) << Text();
  EXPECT_TRUE(ReadNamed(odd).ok());
  unlink(odd.c_str());
}

TEST_F(InvitationTest, WhatIsNoneSaysSoAndQuotesNothing) {
  std::string long_text = Text();
  long_text.resize(70'000, ' ');
  const std::string unknown = R"({"5ec2e7": 1,)" + Text().substr(1);
  for (const std::string& text : {Text().substr(0, 90), unknown, std::string("5ec2e7"),
                                  std::string("[]"), std::string(), Text(2), long_text}) {
    for (const auto& read : {ReadInput(text), ReadFile(text)}) {
      ASSERT_FALSE(read.ok()) << text;
      EXPECT_THAT(std::string(read.status().message()),
                  AllOf(Not(HasSubstr("5ec2e7")), Not(HasSubstr("\n"))));
    }
  }
}

TEST(MayBeSecretTest, PlainPathsAreNot) {
  for (const char* word : {"t.json", "/tmp/a b/invitation (1).json", "-", "",
                           "1234567890123456789012345678901", "C:\\my\\file"}) {
    EXPECT_FALSE(MayBeSecret(word)) << word;
  }
}

}  // namespace
}  // namespace chaptersync::node
