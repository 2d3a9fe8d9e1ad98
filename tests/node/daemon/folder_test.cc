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
    const auto joining = folder->Joining();
    EXPECT_TRUE(joining.ok()) << joining.status();
    FolderFacts facts{.hub = hub, .node = joining->node, .federation = "Federation"};
    if (!hub) {
      facts.chapter = "italy";
      facts.hub_address = "127.0.0.1:7443";
    }
    const CertifiedName who{
        .federation = authority_.federation(), .chapter = facts.chapter, .node = joining->node};
    const auto chain = authority_.Certify(key_.MakeRequest(), who, kNow);
    EXPECT_TRUE(chain.ok()) << chain.status();
    EXPECT_TRUE((hub ? folder->WriteAuthority(authority_)
                     : folder->WriteAuthority(authority_.certificate_pem()))
                    .ok());
    EXPECT_TRUE(folder->WriteIdentity(key_, *chain).ok());
    const absl::Status made = folder->Create(facts);
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

  static constexpr int64_t kNow = 1'700'000'000;
  const Authority authority_ = Authority::Make("Federation", kNow);
  const PrivateKey key_ = PrivateKey::Make();
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
  const auto identity = folder->ReadIdentity();
  ASSERT_TRUE(identity.ok()) << identity.status();
  EXPECT_EQ(identity->key, key_.ToPem());
  EXPECT_EQ(identity->authority, authority_.certificate_pem());
  EXPECT_EQ(ReadCertificate(identity->chain)->name.chapter, "italy");
  EXPECT_EQ(Mode(path), 0700);
  EXPECT_EQ(Mode(path + "/identity.pem"), 0600);
  EXPECT_FALSE(std::filesystem::exists(path + "/authority.key")) << "is the hub's alone";
  EXPECT_FALSE(std::filesystem::exists(path + "/joining.json"));
}

TEST_F(FolderTest, OnlyItsOwnerMayEnterAFolderThatWasThere) {
  ASSERT_EQ(mkdir(Path("open").c_str(), 0755), 0);
  EXPECT_EQ(Mode(Make("open", true)), 0700);
}

TEST_F(FolderTest, AJoinThatDidNotEndGoesOnUnderTheSameIdAndKey) {
  storage::NodeId first;
  std::string key;
  {
    auto folder = DataFolder::Prepare(Path("node"));
    ASSERT_TRUE(folder.ok()) << folder.status();
    const auto joining = folder->Joining();
    ASSERT_TRUE(joining.ok()) << joining.status();
    first = joining->node;
    key = joining->key.ToPem();
  }
  EXPECT_EQ(Mode(Path("node") + "/joining.json"), 0600);
  auto folder = DataFolder::Prepare(Path("node"));
  ASSERT_TRUE(folder.ok()) << folder.status();
  const auto again = folder->Joining();
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->node, first);
  EXPECT_EQ(again->key.ToPem(), key);
}

TEST_F(FolderTest, WhatLiesInTheWayOfAFileIsNotWrittenInto) {
  // Its mode and owner would be the secret's.
  const std::string path = Path("secret");
  ASSERT_TRUE(WriteFileDurably(path + ".new", "theirs").ok());
  ASSERT_EQ(chmod((path + ".new").c_str(), 0644), 0);
  ASSERT_TRUE(WriteFileDurably(path, "ours").ok());
  EXPECT_EQ(Mode(path), 0600);
  EXPECT_EQ(*ReadWholeFile(path, 100), "ours");
}

TEST_F(FolderTest, OneDaemonAtATime) {
  const std::string path = Make("hub", true);
  {
    const auto folder = DataFolder::Open(path, true);
    ASSERT_TRUE(folder.ok()) << folder.status();
    ExpectRefused(DataFolder::Open(path, true).status(), absl::StatusCode::kFailedPrecondition,
                  path, "in use by process " + std::to_string(getpid()) + "; stop that one first");
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

TEST_F(FolderTest, AHubHasItsAuthority) {
  const std::string path = Make("hub", true);
  const auto folder = DataFolder::Open(path, true);
  ASSERT_TRUE(folder.ok()) << folder.status();
  const auto authority = folder->ReadAuthority();
  ASSERT_TRUE(authority.ok()) << authority.status();
  EXPECT_EQ(authority->fingerprint(), authority_.fingerprint());
  EXPECT_EQ(Mode(path + "/authority.key"), 0600);
  Write(path + "/authority.key", PrivateKey::Make().ToPem());
  ExpectRefused(folder->ReadAuthority().status(), absl::StatusCode::kFailedPrecondition, path,
                "not that of the key");
}

TEST_F(FolderTest, ADamagedIdentityIsSaidSo) {
  const std::string path = Make("node", false);
  const auto folder = DataFolder::Open(path, false);
  ASSERT_TRUE(folder.ok());
  const auto refuse = [&](const std::string& file, const std::string& text,
                          const std::string& why) {
    const std::string before = *ReadWholeFile(path + file, 1 << 20);
    Write(path + file, text);
    const absl::Status status = folder->ReadIdentity().status();
    ExpectRefused(status, absl::StatusCode::kFailedPrecondition, path, why);
    EXPECT_EQ(status.ToString().find("secret"), std::string::npos);
    Write(path + file, before);
  };
  const std::string chain = folder->ReadIdentity()->chain;
  refuse("/identity.pem", "secret", "no certificate in it");
  refuse("/identity.pem", "secret" + chain, "no private key");
  refuse("/identity.pem", PrivateKey::Make().ToPem() + chain, "not that of the key");
  refuse("/authority.pem", Authority::Make("Other", kNow).certificate_pem(), "another federation");
  ASSERT_EQ(unlink((path + "/identity.pem").c_str()), 0);
  ExpectRefused(folder->ReadIdentity().status(), absl::StatusCode::kFailedPrecondition, path,
                "there is no file");
}

TEST_F(FolderTest, WhoJoinsAgainKeepsItsMarker) {
  const std::string path = Make("node", false);
  auto folder = DataFolder::Open(path, false);
  ASSERT_TRUE(folder.ok());
  const std::string marker = *folder->Marker();
  FolderFacts facts = folder->facts();
  facts.hub_address = "hub.example.org:1";
  ASSERT_TRUE(folder->Create(facts).ok());
  EXPECT_EQ(*folder->Marker(), marker) << "it is no copy";
  EXPECT_EQ(folder->facts().hub_address, "hub.example.org:1");
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
  // Nor a way to another folder that somebody laid there, however closed that is.
  ASSERT_EQ(mkdir(Path("another").c_str(), 0700), 0);
  std::filesystem::remove_all(parent);
  std::filesystem::create_directory_symlink(Path("another"), parent);
  EXPECT_EQ(long_folder->SocketPath().status().code(), absl::StatusCode::kFailedPrecondition);
  std::filesystem::remove(parent);
  EXPECT_TRUE(long_folder->SocketPath().ok());
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
