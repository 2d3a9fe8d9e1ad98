// SPDX-License-Identifier: Apache-2.0
//
// Data folders: made once, opened by one daemon of the right role, private, and
// known from their copies. Every refusal names the folder.
#include "node/daemon/folder.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chaptersync::node {
namespace {

using testing::HasSubstr;

class FolderTest : public testing::Test {
 protected:
  FolderTest() {
    std::string name = testing::TempDir() + "folder_test_XXXXXX";
    EXPECT_NE(mkdtemp(name.data()), nullptr);
    base_ = name;
  }
  ~FolderTest() override { std::filesystem::remove_all(base_); }

  std::string Path(const std::string& name) const { return base_ + "/" + name; }

  // Makes a data folder and lets go of it.
  std::string Make(const std::string& name, bool hub) {
    auto folder = DataFolder::Prepare(Path(name));
    EXPECT_TRUE(folder.ok()) << folder.status();
    const auto node = folder->JoiningNode();
    EXPECT_TRUE(node.ok()) << node.status();
    FolderFacts facts{.hub = hub, .node = *node, .federation = "Federation"};
    if (!hub) {
      facts.chapter = "italy";
      facts.hub_address = "127.0.0.1:7443";
    }
    const absl::Status made = folder->Create(facts, hub ? "" : std::string(32, '\x7f'));
    EXPECT_TRUE(made.ok()) << made;
    return Path(name);
  }

  static void Write(const std::string& path, const std::string& text) {
    std::ofstream(path) << text;
  }
  static int Mode(const std::string& path) {
    struct stat info = {};
    EXPECT_EQ(stat(path.c_str(), &info), 0) << path;
    return static_cast<int>(info.st_mode & 0777);
  }
  static void ExpectRefused(const absl::Status& status, absl::StatusCode code,
                            const std::string& path, const std::string& why) {
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(status.ToString(), HasSubstr(path));
    EXPECT_THAT(status.ToString(), HasSubstr(why));
    EXPECT_EQ(status.ToString().find('\n'), std::string::npos);
  }

  std::string base_;
};

TEST_F(FolderTest, WhatIsMadeIsOpened) {
  const std::string path = Make("node", false);
  const auto folder = DataFolder::Open(path, false);
  ASSERT_TRUE(folder.ok()) << folder.status();
  EXPECT_FALSE(folder->facts().hub);
  EXPECT_EQ(folder->facts().chapter, "italy");
  EXPECT_EQ(folder->facts().federation, "Federation");
  EXPECT_EQ(folder->facts().hub_address, "127.0.0.1:7443");
  EXPECT_NE(folder->facts().node, storage::NodeId{});
  const auto credential = folder->Credential();
  ASSERT_TRUE(credential.ok()) << credential.status();
  EXPECT_EQ(*credential, std::string(32, '\x7f'));
  EXPECT_EQ(Mode(path), 0700);
  EXPECT_EQ(Mode(path + "/credential"), 0600);
  EXPECT_FALSE(std::filesystem::exists(path + "/joining.json"));
}

TEST_F(FolderTest, OnlyItsOwnerMayEnterAFolderThatWasThere) {
  ASSERT_EQ(mkdir(Path("open").c_str(), 0755), 0);
  EXPECT_EQ(Mode(Make("open", true)), 0700);
}

TEST_F(FolderTest, AJoinThatDidNotEndGoesOnUnderTheSameId) {
  storage::NodeId first;
  {
    auto folder = DataFolder::Prepare(Path("node"));
    ASSERT_TRUE(folder.ok()) << folder.status();
    first = *folder->JoiningNode();
  }
  auto folder = DataFolder::Prepare(Path("node"));
  ASSERT_TRUE(folder.ok()) << folder.status();
  EXPECT_EQ(*folder->JoiningNode(), first);
}

TEST_F(FolderTest, OneDaemonAtATime) {
  const std::string path = Make("hub", true);
  {
    const auto folder = DataFolder::Open(path, true);
    ASSERT_TRUE(folder.ok()) << folder.status();
    ExpectRefused(DataFolder::Open(path, true).status(), absl::StatusCode::kFailedPrecondition,
                  path, "in use by process " + std::to_string(getpid()));
  }
  EXPECT_TRUE(DataFolder::Open(path, true).ok());
}

TEST_F(FolderTest, WhatIsNoDataFolderIsNotOpened) {
  ExpectRefused(DataFolder::Open(Path("none"), true).status(), absl::StatusCode::kNotFound,
                Path("none"), "there is no folder");
  ASSERT_EQ(mkdir(Path("empty").c_str(), 0700), 0);
  ExpectRefused(DataFolder::Open(Path("empty"), false).status(), absl::StatusCode::kNotFound,
                Path("empty"), "chapter-node join");
  Write(Path("file"), "text");
  EXPECT_FALSE(DataFolder::Open(Path("file"), true).ok());
  EXPECT_FALSE(DataFolder::Open("", true).ok());
}

TEST_F(FolderTest, WhatIsNotEmptyIsNotMadeOne) {
  ASSERT_EQ(mkdir(Path("full").c_str(), 0700), 0);
  Write(Path("full") + "/letter.txt", "dear");
  ExpectRefused(DataFolder::Prepare(Path("full")).status(), absl::StatusCode::kFailedPrecondition,
                Path("full"), "letter.txt");
  const std::string path = Make("hub", true);
  ExpectRefused(DataFolder::Prepare(path).status(), absl::StatusCode::kAlreadyExists, path,
                "a data folder already");
  Write(Path("file"), "text");
  EXPECT_FALSE(DataFolder::Prepare(Path("file")).ok());
}

TEST_F(FolderTest, TheOtherRoleIsRefused) {
  const std::string hub = Make("hub", true);
  const std::string node = Make("node", false);
  ExpectRefused(DataFolder::Open(hub, false).status(), absl::StatusCode::kFailedPrecondition, hub,
                "is a hub's folder; it is for `chapter-hub`");
  ExpectRefused(DataFolder::Open(node, true).status(), absl::StatusCode::kFailedPrecondition, node,
                "is a node's folder; it is for `chapter-node`");
}

TEST_F(FolderTest, NewerAndDamagedFoldersAreRefused) {
  const std::string path = Make("hub", true);
  const auto refuse = [&](const std::string& text, const std::string& why) {
    Write(path + "/chaptersync.json", text);
    ExpectRefused(DataFolder::Open(path, true).status(), absl::StatusCode::kFailedPrecondition,
                  path, why);
  };
  refuse(R"({"format": 2, "role": "hub"})", "a newer program made it");
  refuse("", "damaged");
  refuse("[1]", "damaged");
  refuse("{\"format\": \"1\"}", "damaged");
  refuse(R"({"format": 1, "role": "hub", "node": "12"})", "no node id");
  refuse(std::string(100'000, ' '), "longer than");
}

TEST_F(FolderTest, ADamagedCredentialIsSaidSo) {
  const std::string path = Make("node", false);
  const auto folder = DataFolder::Open(path, false);
  ASSERT_TRUE(folder.ok());
  Write(path + "/credential", "secret");
  const absl::Status status = folder->Credential().status();
  ExpectRefused(status, absl::StatusCode::kFailedPrecondition, path, "64 hexadecimal digits");
  EXPECT_EQ(status.ToString().find("secret"), std::string::npos);
}

TEST_F(FolderTest, ACopyHasAnotherMarker) {
  const std::string path = Make("hub", true);
  const auto original = DataFolder::Open(path, true);
  ASSERT_TRUE(original.ok());
  std::filesystem::copy(path, Path("copy"), std::filesystem::copy_options::recursive);
  const auto copy = DataFolder::Open(Path("copy"), true);
  ASSERT_TRUE(copy.ok()) << copy.status();
  EXPECT_NE(*original->Marker(), *copy->Marker());
  EXPECT_EQ(*original->Marker(), *original->Marker());
}

TEST_F(FolderTest, AMarkerThatWasPutBackIsAnother) {
  const std::string path = Make("hub", true);
  const auto folder = DataFolder::Open(path, true);
  ASSERT_TRUE(folder.ok());
  const std::string before = *folder->Marker();
  // The inode's number may well be given out again.
  unlink((path + "/marker").c_str());
  EXPECT_NE(*folder->Marker(), before);
}

TEST_F(FolderTest, AMovedFolderIsTheSame) {
  const std::string path = Make("hub", true);
  const std::string before = *DataFolder::Open(path, true)->Marker();
  std::filesystem::rename(path, Path("moved"));
  EXPECT_EQ(*DataFolder::Open(Path("moved"), true)->Marker(), before);
}

TEST_F(FolderTest, ALongPathHasItsSocketElsewhere) {
  const std::string path = Make("hub", true);
  const auto folder = DataFolder::Open(path, true);
  ASSERT_TRUE(folder.ok());
  EXPECT_EQ(*folder->SocketPath(), path + "/socket");

  const std::string long_path = Make(std::string(150, 'l'), true);
  const auto long_folder = DataFolder::Open(long_path, true);
  ASSERT_TRUE(long_folder.ok());
  setenv("XDG_RUNTIME_DIR", base_.c_str(), 1);
  const auto socket = long_folder->SocketPath();
  unsetenv("XDG_RUNTIME_DIR");
  ASSERT_TRUE(socket.ok()) << socket.status();
  EXPECT_LE(socket->size(), kSocketPathMax);
  const std::string parent = std::filesystem::path(*socket).parent_path().string();
  EXPECT_EQ(Mode(parent), 0700);
  // Who finds it open to others does not use it.
  ASSERT_EQ(chmod(parent.c_str(), 0755), 0);
  setenv("XDG_RUNTIME_DIR", base_.c_str(), 1);
  EXPECT_EQ(long_folder->SocketPath().status().code(), absl::StatusCode::kFailedPrecondition);
  unsetenv("XDG_RUNTIME_DIR");
}

TEST_F(FolderTest, EndpointsComeAndGoAsAWhole) {
  const std::string path = Make("hub", true);
  const auto folder = DataFolder::Open(path, true);
  ASSERT_TRUE(folder.ok());
  ASSERT_TRUE(folder->WriteEndpoints({{"sync", "127.0.0.1:7443"}, {"socket", "s"}}).ok());
  EXPECT_EQ(*ReadWholeFile(path + "/endpoints.json", 1000),
            "{\"socket\":\"s\",\"sync\":\"127.0.0.1:7443\"}\n");
  folder->RemoveEndpoints();
  EXPECT_FALSE(std::filesystem::exists(path + "/endpoints.json"));
}

}  // namespace
}  // namespace chaptersync::node
