// SPDX-License-Identifier: Apache-2.0
//
// What the daemons share: options from the command line, a file and the
// environment; a disk that fails; scrubbing after drops; the services that show
// and steer syncing, and take headquarters' word.
#include "node/daemon/daemon.h"

#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include "node/api/actor.h"
#include "node/api/limits.h"
#include "node/daemon/engine_watch.h"
#include "storage/engine/memory_engine.h"
#include "tests/node/sync/sync_fixture.h"

namespace chaptersync::node {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

class OptionsTest : public testing::Test {
 protected:
  OptionsTest() {
    file_ = testing::TempDir() + "daemon_test_" + std::to_string(getpid()) + ".toml";
    unsetenv("CHAPTER_DATA");
    unsetenv("CHAPTER_LISTEN");
  }
  ~OptionsTest() override {
    unlink(file_.c_str());
    unsetenv("CHAPTER_DATA");
    unsetenv("CHAPTER_LISTEN");
  }

  // As a daemon with two commands does it.
  std::optional<int> ParseWith(std::vector<std::string> arguments) {
    data_.clear();
    listen_.clear();
    CLI::App app("a daemon", "chapter-test");
    AddConfiguration(app);
    CLI::App* init = app.add_subcommand("init", "");
    init->add_option("--data", data_)->required()->envname("CHAPTER_DATA");
    std::string name;
    init->add_option("--name", name);
    CLI::App* serve = app.add_subcommand("serve", "");
    serve->add_option("--data", data_)->required()->envname("CHAPTER_DATA");
    serve->add_option("--listen", listen_)->envname("CHAPTER_LISTEN");
    arguments.insert(arguments.begin(), "chapter-test");
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    return Parse(app, static_cast<int>(argv.size()), argv.data());
  }
  void WriteFile(const std::string& text) { std::ofstream(file_) << text; }

  std::string file_;
  std::string data_;
  std::string listen_;
};

TEST_F(OptionsTest, ComeFromTheCommandLine) {
  EXPECT_EQ(ParseWith({"serve", "--data", "d", "--listen", "l"}), std::nullopt);
  EXPECT_EQ(data_, "d");
  EXPECT_EQ(listen_, "l");
}

TEST_F(OptionsTest, ComeFromTheTopOfAFile) {
  // Those of the other command do not disturb.
  WriteFile("data = \"d\"\nlisten = \"127.0.0.1:1\"\nname = \"n\"\n");
  EXPECT_EQ(ParseWith({"serve", "--config", file_}), std::nullopt);
  EXPECT_EQ(data_, "d");
  EXPECT_EQ(listen_, "127.0.0.1:1");
  EXPECT_EQ(ParseWith({"--config", file_, "init"}), std::nullopt);
  EXPECT_EQ(data_, "d");
}

TEST_F(OptionsTest, ComeFromATableOfAFile) {
  WriteFile("[serve]\ndata = \"d\"\nlisten = \"l\"\n");
  EXPECT_EQ(ParseWith({"serve", "--config", file_}), std::nullopt);
  EXPECT_EQ(data_, "d");
  EXPECT_EQ(listen_, "l");
}

TEST_F(OptionsTest, ComeFromTheEnvironment) {
  setenv("CHAPTER_DATA", "d", 1);
  setenv("CHAPTER_LISTEN", "l", 1);
  EXPECT_EQ(ParseWith({"serve"}), std::nullopt);
  EXPECT_EQ(data_, "d");
  EXPECT_EQ(listen_, "l");
}

TEST_F(OptionsTest, TheCommandLineWins) {
  WriteFile("data = \"file\"\n");
  setenv("CHAPTER_DATA", "environment", 1);
  EXPECT_EQ(ParseWith({"serve", "--config", file_, "--data", "line"}), std::nullopt);
  EXPECT_EQ(data_, "line");
}

TEST_F(OptionsTest, WhatIsWrongEndsWithUsage) {
  EXPECT_EQ(ParseWith({}), kExitUsage);
  EXPECT_EQ(ParseWith({"serve"}), kExitUsage);
  EXPECT_EQ(ParseWith({"serve", "--data", "d", "--metrics", "127.0.0.1:1"}), kExitUsage);
  EXPECT_EQ(ParseWith({"serve", "--data", "d", "--config", "/nowhere.toml"}), kExitUsage);
  WriteFile("dada = \"d\"\n");
  EXPECT_EQ(ParseWith({"serve", "--data", "d", "--config", file_}), kExitUsage);
  WriteFile("this is no TOML");
  EXPECT_EQ(ParseWith({"serve", "--data", "d", "--config", file_}), kExitUsage);
  EXPECT_EQ(ParseWith({"--help"}), kExitDone);
}

TEST_F(OptionsTest, AnInvitationsTextInTheWrongPlaceIsNotShown) {
  // An invitation that the shell cut into words was printed with its code.
  const std::string code(64, 'c');
  for (const std::string& word : {"{\"code\":\"" + code + "\"}", code, "\"" + code.substr(1)}) {
    testing::internal::CaptureStderr();
    EXPECT_EQ(ParseWith({"serve", "--data", "d", word}), kExitUsage);
    const std::string said = testing::internal::GetCapturedStderr();
    EXPECT_THAT(said, Not(HasSubstr("ccc")));
    EXPECT_THAT(said, HasSubstr("not shown"));
  }
  testing::internal::CaptureStderr();
  EXPECT_EQ(ParseWith({"serve", "--data", "d", "astray"}), kExitUsage);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("astray"));
}

// A clock that a test moves.
class TestClockTest : public testing::Test {
 protected:
  TestClockTest() {
    file_ = testing::TempDir() + "test_clock_" + std::to_string(getpid());
    SetOffset("0");
  }
  ~TestClockTest() override { unlink(file_.c_str()); }

  // In one step, as the file may be read at any time.
  void SetOffset(const std::string& text) {
    std::ofstream(file_ + ".new") << text;
    ASSERT_EQ(rename((file_ + ".new").c_str(), file_.c_str()), 0);
  }
  // How far it is ahead of another that nobody moves.
  static int64_t AheadMs(SystemEnvironment& environment) {
    SystemEnvironment right;
    return static_cast<int64_t>(environment.NowMs()) - static_cast<int64_t>(right.NowMs());
  }

  static constexpr int64_t kDayMs = 86'400'000;
  // For the time between two looks.
  static constexpr double kSlackMs = kDayMs / 4.0;
  std::string file_;
};

TEST_F(TestClockTest, MovesWhileTheProgramRuns) {
  SystemEnvironment environment({.offset_ms = kDayMs, .offset_file = file_});
  const auto expect_ahead = [&](int64_t days) {
    EXPECT_NEAR(static_cast<double>(AheadMs(environment)), static_cast<double>(days * kDayMs),
                kSlackMs);
  };
  expect_ahead(1);
  SetOffset(std::to_string(60 * kDayMs) + "\n");
  expect_ahead(61);
  SetOffset(" -" + std::to_string(3 * kDayMs));
  expect_ahead(-2);
  // What says nothing changes nothing.
  for (const char* nothing : {"", "soon", "9223372036854775807", "1.5"}) {
    SetOffset(nothing);
    expect_ahead(-2);
  }
  unlink(file_.c_str());
  expect_ahead(-2);
}

TEST_F(TestClockTest, IsWarnedOfAndMustBeReadable) {
  EXPECT_FALSE(TestClock().set());
  EXPECT_TRUE(CheckTestClock({}).ok());
  EXPECT_TRUE(CheckTestClock({.offset_ms = 1, .offset_file = ""}).ok());
  EXPECT_TRUE(CheckTestClock({.offset_ms = 0, .offset_file = file_}).ok());
  SetOffset("tomorrow");
  const absl::Status unreadable = CheckTestClock({.offset_ms = 0, .offset_file = file_});
  EXPECT_TRUE(absl::IsInvalidArgument(unreadable)) << unreadable;
  EXPECT_THAT(std::string(unreadable.message()), HasSubstr(file_));
}

TEST(EngineWatchTest, ReportsLostDataAndNothingElse) {
  auto memory = std::make_unique<storage::MemoryEngine>();
  storage::MemoryEngine& engine = *memory;
  int lost = 0;
  EngineWatch watch(std::move(memory), [&](const absl::Status&) { ++lost; });
  storage::WriteBatch batch;
  batch.Put(storage::Table::kMeta, "key", "value");
  EXPECT_TRUE(watch.Write(batch).ok());
  EXPECT_TRUE(watch.Sync().ok());
  EXPECT_EQ(*watch.Get(storage::Table::kMeta, "key"), "value");
  engine.FailNextWrites(1, absl::ResourceExhaustedError("full"));
  EXPECT_FALSE(watch.Write(batch).ok());
  EXPECT_EQ(lost, 0);
  engine.FailNextSyncs(1, absl::DataLossError("fsync failed"));
  EXPECT_FALSE(watch.Sync().ok());
  EXPECT_EQ(lost, 1);
  EXPECT_FALSE(watch.Write(batch).ok());
  EXPECT_EQ(lost, 2);
}

void Erase(Site& hub, uint32_t number) {
  const auto results = hub.replica->Write(
      {{.kind = storage::LocalWrite::Kind::kErase, .key = NoteKey(number), .actor = "hq"}});
  ASSERT_TRUE(results.ok());
  ASSERT_TRUE(results->front().status.ok());
}

void EraseFirst(Site& hub) { Erase(hub, 1); }

TEST(ScrubberTest, ScrubsAfterAnErasureAndOnlyThen) {
  Site hub("", 1);
  Scrubber scrubber(*hub.replica, 1);
  ASSERT_TRUE(hub.Put(1, "italy", "secret").ok());
  EXPECT_EQ(scrubber.scrubs(), 0u);
  EraseFirst(hub);
  EXPECT_TRUE(Eventually([&] { return scrubber.scrubs() == 1; }));
}

TEST(ScrubberTest, GoesOnAfterARestart) {
  // What was dropped before a crash stayed in the files until the next drop.
  Site hub("", 1);
  ASSERT_TRUE(hub.Put(1, "italy", "secret").ok());
  EraseFirst(hub);
  hub.Restart();
  EXPECT_TRUE(hub.replica->scrub_due());
  {
    Scrubber scrubber(*hub.replica, 1);
    EXPECT_TRUE(Eventually([&] { return scrubber.scrubs() == 1; }));
  }
  EXPECT_FALSE(hub.replica->scrub_due());
  hub.Restart();
  EXPECT_FALSE(hub.replica->scrub_due());
}

TEST(ScrubberTest, DropsThatGoOnDoNotPutItOffForEver) {
  // Where something was dropped every few seconds nothing was ever scrubbed.
  Site hub("", 1);
  Scrubber scrubber(*hub.replica, /*after_ms=*/3'600'000, /*within_ms=*/1);
  ASSERT_TRUE(hub.Put(1, "italy", "secret").ok());
  EraseFirst(hub);
  EXPECT_TRUE(Eventually([&] { return scrubber.scrubs() == 1; }));
  EXPECT_FALSE(hub.replica->scrub_due());
  // What is dropped later is another first.
  ASSERT_TRUE(hub.Put(2, "italy", "secret").ok());
  Erase(hub, 2);
  EXPECT_TRUE(Eventually([&] { return scrubber.scrubs() == 2; }));
}

TEST(ScrubberTest, EndsWhileItWaits) {
  Site hub("", 1);
  Scrubber scrubber(*hub.replica, 3'600'000);
  ASSERT_TRUE(hub.Put(1, "italy", "secret").ok());
  EraseFirst(hub);
}

// Peers as a test says.
class FakePeers final : public Peers {
 public:
  std::vector<PeerState> List() override { return states; }
  bool paused() const override { return is_paused; }
  absl::Status Pause() override {
    is_paused = true;
    return absl::OkStatus();
  }
  absl::Status Resume() override {
    is_paused = false;
    return absl::OkStatus();
  }
  absl::StatusOr<SyncNowResult> SyncNow(std::optional<int64_t> timeout_ms,
                                        const std::function<bool()>& cancelled) override {
    timeout = timeout_ms;
    // A caller that waits without an end.
    if (wait) {
      EXPECT_TRUE(Eventually(cancelled));
      return absl::CancelledError("gone");
    }
    return now;
  }

  std::vector<PeerState> states;
  bool is_paused = false;
  bool wait = false;
  std::optional<int64_t> timeout;
  absl::StatusOr<SyncNowResult> now = SyncNowResult{};
};

class FakeRoster final : public Roster {
 public:
  absl::StatusOr<NewInvitation> Invite(const std::string& chapter,
                                       std::optional<int64_t> valid_seconds,
                                       const std::string& actor) override {
    if (chapter != "italy") return absl::NotFoundError("there is no chapter '" + chapter + "'");
    actors.push_back(actor);
    return NewInvitation{valid_seconds ? std::to_string(*valid_seconds) : "default",
                         {"0123456789ab", chapter, 1'700'000'000, actor, 1'700'600'000}};
  }
  absl::StatusOr<std::vector<Invitation>> ListInvitations() override { return invitations; }
  absl::StatusOr<Invitation> RevokeInvitation(const std::string& id,
                                              const std::string& actor) override {
    if (id != invitations.front().id) return absl::NotFoundError("no such invitation");
    actors.push_back(actor);
    return invitations.front();
  }
  absl::StatusOr<std::vector<Node>> ListNodes() override { return nodes; }
  absl::StatusOr<size_t> RevokeNode(const storage::NodeId& node,
                                    const std::string& actor) override {
    revoked.push_back(node);
    actors.push_back(actor);
    return revoked.size();
  }
  absl::StatusOr<RevokedChapter> RevokeChapter(const std::string& chapter,
                                               const std::string& actor) override {
    if (chapter != "italy") return absl::NotFoundError("there is no chapter '" + chapter + "'");
    actors.push_back(actor);
    return RevokedChapter{{nodes.front().node}, 2};
  }
  void RestartSessions(const storage::NodeId& node) override { restarted.push_back(node); }
  std::vector<Node> nodes;
  std::vector<Invitation> invitations;
  std::vector<std::string> actors;  // of what was done
  std::vector<storage::NodeId> revoked;
  std::vector<storage::NodeId> restarted;
};

// The services on a socket, as the daemons serve them.
class LocalServerTest : public testing::Test {
 protected:
  void Serve(Roster* roster, CertificateEnd certificate_end = nullptr) {
    socket_ = testing::TempDir() + "local_" + std::to_string(getpid()) + ".socket";
    local_ = std::make_unique<LocalServer>(*site_.replica, site_.environment, peers_, roster,
                                           "Federation", std::move(certificate_end));
    ASSERT_TRUE(local_->Start(socket_).ok());
    channel_ = grpc::CreateChannel("unix:" + socket_, grpc::InsecureChannelCredentials());
    sync_ = v1::SyncService::NewStub(channel_);
    admin_ = v1::AdminService::NewStub(channel_);
    approvals_ = v1::ApprovalsService::NewStub(channel_);
  }

  PeerState State() {
    PeerState state;
    state.name = "italy/desk";
    state.node.bytes[3] = 9;
    state.replica = {77};
    state.connected = true;
    state.last_contact_ms = 1'700'000'000'123;
    state.scopes = {{storage::Scope::Chapter("italy"), storage::Sequence{0}, true},
                    {storage::Scope::All(), storage::Sequence{0}, std::nullopt}};
    state.held_back = {kNote};
    return state;
  }

  Site site_{"", 1};
  FakePeers peers_;
  FakeRoster roster_;
  std::string socket_;
  std::unique_ptr<LocalServer> local_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::SyncService::Stub> sync_;
  std::unique_ptr<v1::AdminService::Stub> admin_;
  std::unique_ptr<v1::ApprovalsService::Stub> approvals_;
};

// At a hub, what a computer pushed and an officer is to look at.
class ApprovalsTest : public LocalServerTest {
 protected:
  ApprovalsTest() {
    known_ = State().node;
    roster_.nodes = {{known_, "italy", "desk", 0, 0}};
  }

  // A computer of italy says that a note was erased, which is here: that waits.
  void PushErased(const storage::NodeId& node, uint32_t number) {
    ASSERT_TRUE(site_.Put(number, "italy", "here").ok());
    storage::RecordUpdate update;
    update.state = site_.replica->Read(NoteKey(number))->record;
    update.state.Erase();
    Push(node, number, update);
  }
  // It has another text for a note that was never in italy.
  void PushText(const storage::NodeId& node, uint32_t number, const std::string& text) {
    ASSERT_TRUE(site_.Put(number, "oslo", "here").ok());
    storage::RecordUpdate update;
    const storage::Record mine = site_.replica->Read(NoteKey(number))->record;
    for (storage::Cell cell : mine.cells) {
      if (cell.path.field != kNoteText) continue;
      cell.version = {{cell.version.time.ticks + 1}, State().replica};
      cell.actor = "milan@italy";
      cell.value = WireText(kNoteText, text);
      update.state.seen.Advance(cell.version);
      update.state.cells.push_back(std::move(cell));
    }
    Push(node, number, update);
  }
  void Push(const storage::NodeId& node, uint32_t number, const storage::RecordUpdate& update) {
    storage::ApplyRequest push;
    push.peer.node = node;
    push.peer.replica = State().replica;
    push.peer.epoch = {1};
    push.peer.scopes = {storage::Scope::Global(), storage::Scope::Chapter("italy")};
    push.peer.entities = {{kNote, site_.options.entities[kNote].fingerprint}};
    push.records = {{storage::Sequence{number}, NoteKey(number), storage::EncodeUpdate(update)}};
    const auto applied = site_.replica->Apply(push);
    ASSERT_TRUE(applied.ok()) << applied.status();
    ASSERT_EQ(applied->outcomes.front().refusal.reason, storage::RefusedRecord::Reason::kWaits);
  }
  bool Erased(uint32_t number) { return site_.replica->Read(NoteKey(number))->record.erased; }

  grpc::Status List(int page_size, const std::string& token, v1::ListApprovalsResponse& response) {
    grpc::ClientContext context;
    v1::ListApprovalsRequest request;
    request.set_page_size(page_size);
    request.set_page_token(token);
    return approvals_->ListApprovals(&context, request, &response);
  }
  grpc::Status Approve(uint64_t number, v1::Approval* approval = nullptr) {
    grpc::ClientContext context;
    v1::ApproveRequest request;
    v1::ApproveResponse response;
    request.add_numbers(number);
    const grpc::Status status = approvals_->Approve(&context, request, &response);
    if (approval != nullptr && response.approvals_size() > 0) *approval = response.approvals(0);
    return status;
  }
  grpc::Status Reject(uint64_t number, v1::Approval* approval = nullptr) {
    grpc::ClientContext context;
    v1::RejectRequest request;
    v1::RejectResponse response;
    request.add_numbers(number);
    const grpc::Status status = approvals_->Reject(&context, request, &response);
    if (approval != nullptr && response.approvals_size() > 0) *approval = response.approvals(0);
    return status;
  }

  storage::NodeId known_;
};

TEST_F(LocalServerTest, ShowsHowItStandsWithItsPeers) {
  Serve(&roster_);
  ASSERT_TRUE(site_.Put(1, "italy", "one").ok());
  ASSERT_TRUE(site_.Put(2, "italy", "two").ok());
  peers_.states = {State()};
  grpc::ClientContext context;
  v1::GetSyncStatusResponse response;
  ASSERT_TRUE(sync_->GetSyncStatus(&context, {}, &response).ok());
  ASSERT_EQ(response.peers_size(), 2);
  const v1::PeerScope& italy = response.peers(0);
  EXPECT_EQ(italy.peer(), "italy/desk");
  EXPECT_EQ(italy.scope(), "chapter/italy");
  EXPECT_TRUE(italy.connected());
  EXPECT_EQ(italy.unsent(), 2);
  EXPECT_EQ(italy.behind(), 0);
  EXPECT_EQ(italy.last_contact().seconds(), 1'700'000'000);
  EXPECT_EQ(italy.held_back_size(), 0);
  EXPECT_EQ(response.peers(1).scope(), "*");
  EXPECT_THAT(response.peers(1).held_back(), ElementsAre("entity 9001: until the hub knows them"));
}

TEST_F(LocalServerTest, PausesAndResumes) {
  Serve(nullptr);
  {
    grpc::ClientContext context;
    v1::PauseSyncResponse response;
    EXPECT_TRUE(sync_->PauseSync(&context, {}, &response).ok());
  }
  EXPECT_TRUE(peers_.is_paused);
  {
    grpc::ClientContext context;
    v1::GetSyncStatusResponse response;
    EXPECT_TRUE(sync_->GetSyncStatus(&context, {}, &response).ok());
    EXPECT_TRUE(response.paused());
  }
  grpc::ClientContext context;
  v1::ResumeSyncResponse response;
  EXPECT_TRUE(sync_->ResumeSync(&context, {}, &response).ok());
  EXPECT_FALSE(peers_.is_paused);
}

TEST_F(LocalServerTest, SyncNowKeepsTheCallersDeadlineAndReportsWhyNot) {
  Serve(nullptr);
  {
    grpc::ClientContext context;
    v1::SyncNowResponse response;
    EXPECT_TRUE(sync_->SyncNow(&context, {}, &response).ok());
    EXPECT_EQ(peers_.timeout, std::nullopt);
  }
  peers_.now = absl::DeadlineExceededError("nobody answers");
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  v1::SyncNowResponse response;
  const grpc::Status status = sync_->SyncNow(&context, {}, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(status.error_message(), "nobody answers");
  ASSERT_TRUE(peers_.timeout.has_value());
  EXPECT_LT(*peers_.timeout, 60'000);
}

TEST_F(LocalServerTest, EndsInSpiteOfCallersThatWait) {
  Serve(nullptr);
  peers_.wait = true;
  grpc::Status status;
  std::thread caller([&] {
    grpc::ClientContext context;
    v1::SyncNowResponse response;
    status = sync_->SyncNow(&context, {}, &response);
  });
  v1::GetStatusResponse ignored;
  grpc::ClientContext context;
  EXPECT_TRUE(admin_->GetStatus(&context, {}, &ignored).ok());
  local_->Stop();
  caller.join();
  EXPECT_FALSE(status.ok());
}

TEST_F(LocalServerTest, SaysWhoItIsAndWhatItHolds) {
  Serve(&roster_);
  ASSERT_TRUE(site_.Put(1, "italy", "one").ok());
  peers_.states = {State()};
  grpc::ClientContext context;
  v1::GetStatusResponse response;
  ASSERT_TRUE(admin_->GetStatus(&context, {}, &response).ok());
  EXPECT_EQ(response.replica(), storage::ToHex(site_.replica->replica_id().value));
  EXPECT_EQ(response.chapter(), "hq");
  EXPECT_EQ(response.role(), v1::REPLICA_ROLE_HUB);
  EXPECT_EQ(response.records().at("entity 9001"), 1u);
  EXPECT_EQ(response.federation(), "Federation");
  EXPECT_EQ(response.version(), ProgramVersion());
  ASSERT_EQ(response.peers_size(), 1);
  EXPECT_EQ(response.peers(0).peer(), "italy/desk");
}

TEST_F(LocalServerTest, InvitesAndListsNodesAtAHub) {
  Serve(&roster_);
  ASSERT_TRUE(site_.Put(1, "italy", "one").ok());
  const auto invite = [&](const std::string& chapter, std::optional<int64_t> seconds) {
    grpc::ClientContext context;
    v1::CreateInvitationRequest request;
    request.set_chapter(chapter);
    if (seconds) request.mutable_valid()->set_seconds(*seconds);
    v1::CreateInvitationResponse response;
    const grpc::Status status = admin_->CreateInvitation(&context, request, &response);
    return status.ok() ? response.invitation() : status.error_message();
  };
  EXPECT_EQ(invite("italy", std::nullopt), "default");
  EXPECT_EQ(invite("italy", 60), "60");
  EXPECT_EQ(invite("atlantis", 60), "there is no chapter 'atlantis'");
  peers_.states = {State()};
  roster_.nodes = {{peers_.states[0].node, "italy", "desk", 1'700'000'000, 0},
                   {{}, "toronto", "new", 0, 1'600'000'000}};
  grpc::ClientContext context;
  v1::ListNodesResponse response;
  ASSERT_TRUE(admin_->ListNodes(&context, {}, &response).ok());
  ASSERT_EQ(response.nodes_size(), 2);
  EXPECT_EQ(response.nodes(0).id(), peers_.states[0].node.ToString());
  EXPECT_TRUE(response.nodes(0).connected());
  EXPECT_EQ(response.nodes(0).behind(), 2);  // in its chapter's feed, and in that of all
  EXPECT_EQ(response.nodes(1).name(), "new");
  EXPECT_EQ(response.nodes(1).behind(), -1);
  EXPECT_EQ(response.nodes(0).certificate_end().seconds(), 1'700'000'000);
  EXPECT_FALSE(response.nodes(0).has_revoked());
  EXPECT_EQ(response.nodes(1).revoked().seconds(), 1'600'000'000);
}

TEST_F(LocalServerTest, ComputersOfOneNameAreToldApart) {
  Serve(&roster_);
  storage::NodeId first;
  first.bytes = {0x3f, 0x2a};
  storage::NodeId second;
  second.bytes = {0x40, 0x2a};
  roster_.nodes = {{first, "italy", "vm", 0, 0}, {second, "italy", "vm", 0, 0}};
  grpc::ClientContext context;
  v1::ListNodesResponse response;
  ASSERT_TRUE(admin_->ListNodes(&context, {}, &response).ok());
  ASSERT_EQ(response.nodes_size(), 2);
  EXPECT_EQ(response.nodes(0).name(), "vm");
  EXPECT_EQ(response.nodes(0).display_name(), "italy/vm~3f2a");
  EXPECT_EQ(response.nodes(1).display_name(), "italy/vm~402a");
  // And so they can be named.
  grpc::ClientContext revoking;
  v1::RevokeNodeRequest request;
  request.set_node("italy/vm~402a");
  v1::RevokeNodeResponse revoked;
  ASSERT_TRUE(admin_->RevokeNode(&revoking, request, &revoked).ok());
  EXPECT_EQ(roster_.revoked, std::vector<storage::NodeId>{second});
}

TEST_F(LocalServerTest, OpenInvitationsAreListedAndRevokedByWhomIsKnown) {
  Serve(&roster_);
  roster_.invitations = {{"0123456789ab", "italy", 1'700'000'000, "ann@hq", 1'700'600'000},
                         {"ba9876543210", "toronto", 0, "", 1'700'700'000}};
  const auto list = [&](const std::string& chapter) {
    grpc::ClientContext context;
    v1::ListInvitationsRequest request;
    request.set_chapter(chapter);
    v1::ListInvitationsResponse response;
    EXPECT_TRUE(admin_->ListInvitations(&context, request, &response).ok());
    return response;
  };
  ASSERT_EQ(list("").invitations_size(), 2);
  const v1::OpenInvitation old = list("").invitations(1);
  EXPECT_EQ(old.id(), "ba9876543210");
  EXPECT_FALSE(old.has_made());
  ASSERT_EQ(list("italy").invitations_size(), 1);
  const v1::OpenInvitation italys = list("italy").invitations(0);
  EXPECT_EQ(italys.made().seconds(), 1'700'000'000);
  EXPECT_EQ(italys.made_by(), "ann@hq");
  EXPECT_EQ(italys.end().seconds(), 1'700'600'000);

  grpc::ClientContext context;
  context.AddMetadata(kActorKey, "bob");
  v1::RevokeInvitationRequest request;
  request.set_id("0123456789ab");
  v1::RevokeInvitationResponse response;
  ASSERT_TRUE(admin_->RevokeInvitation(&context, request, &response).ok());
  EXPECT_EQ(response.invitation().chapter(), "italy");
  EXPECT_THAT(roster_.actors, ElementsAre("bob@hq"));
}

TEST_F(LocalServerTest, WhatKeepsAComputerOutIsSaidWithWhatToDo) {
  // `status` said "not connected", and no more.
  constexpr int64_t kDay = 86'400;
  const int64_t now = static_cast<int64_t>(site_.environment.NowMs() / 1000);
  int64_t end = now + 30 * kDay;
  Serve(nullptr, [&]() -> absl::StatusOr<int64_t> { return end; });
  const auto status = [&] {
    grpc::ClientContext context;
    v1::GetStatusResponse response;
    EXPECT_TRUE(admin_->GetStatus(&context, {}, &response).ok());
    return response;
  };
  peers_.states = {State()};
  EXPECT_EQ(status().certificate_end().seconds(), end);
  EXPECT_EQ(status().advice_size(), 0);
  end = now + 14 * kDay - 60;
  ASSERT_EQ(status().advice_size(), 1);
  EXPECT_THAT(status().advice(0), HasSubstr("was not renewed"));
  end = now - 60;
  ASSERT_EQ(status().advice_size(), 1);
  EXPECT_THAT(status().advice(0), HasSubstr("chapter-node join"));
  peers_.states[0].connected = false;
  peers_.states[0].error = "headquarters has revoked this computer";
  peers_.states[0].kept_out = true;
  EXPECT_EQ(status().peers(0).error(), "headquarters has revoked this computer");
  ASSERT_EQ(status().advice_size(), 1);
  EXPECT_THAT(status().advice(0), HasSubstr("ask headquarters for a new invitation"));
  EXPECT_THAT(status().advice(0), HasSubstr("chapter-node join"));
}

TEST_F(LocalServerTest, ANodeIsRevokedByItsIdABeginningOfItOrItsName) {
  Serve(&roster_);
  storage::NodeId first;
  first.bytes = {0xab, 1};
  storage::NodeId second;
  second.bytes = {0xab, 2};
  roster_.nodes = {{first, "italy", "desk", 0, 0}, {second, "italy", "bar", 0, 0}};
  const auto revoke = [&](const std::string& node) {
    grpc::ClientContext context;
    v1::RevokeNodeRequest request;
    request.set_node(node);
    v1::RevokeNodeResponse response;
    grpc::Status status = admin_->RevokeNode(&context, request, &response);
    EXPECT_EQ(response.invitations(), status.ok() ? roster_.revoked.size() : 0);
    return status;
  };
  EXPECT_TRUE(revoke(second.ToString()).ok());
  EXPECT_TRUE(revoke("ab01").ok());
  EXPECT_TRUE(revoke("italy/bar").ok());
  EXPECT_EQ(roster_.revoked, (std::vector<storage::NodeId>{second, first, second}));
  for (const char* nobody : {"", "cd", "italy/", "toronto/desk"}) {
    EXPECT_EQ(revoke(nobody).error_code(), grpc::StatusCode::NOT_FOUND) << nobody;
  }
  const grpc::Status several = revoke("ab");
  EXPECT_EQ(several.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(several.error_message(), HasSubstr("names 2 nodes"));
  EXPECT_EQ(roster_.revoked.size(), 3u);
  EXPECT_EQ(roster_.actors.size(), 3u);
  for (const std::string& actor : roster_.actors) EXPECT_THAT(actor, testing::EndsWith("@hq"));
}

TEST_F(LocalServerTest, AChapterIsRevoked) {
  Serve(&roster_);
  roster_.nodes = {{State().node, "italy", "desk", 0, 0}};
  v1::RevokeChapterRequest request;
  v1::RevokeChapterResponse response;
  {
    grpc::ClientContext context;
    request.set_chapter("italy");
    ASSERT_TRUE(admin_->RevokeChapter(&context, request, &response).ok());
    ASSERT_EQ(response.nodes_size(), 1);
    EXPECT_EQ(response.nodes(0), State().node.ToString());
    EXPECT_EQ(response.invitations(), 2u);
  }
  grpc::ClientContext context;
  request.set_chapter("atlantis");
  EXPECT_EQ(admin_->RevokeChapter(&context, request, &response).error_code(),
            grpc::StatusCode::NOT_FOUND);
}

TEST_F(LocalServerTest, ANodeHasNoRoster) {
  Serve(nullptr);
  grpc::ClientContext context;
  v1::CreateInvitationResponse response;
  const grpc::Status status = admin_->CreateInvitation(&context, {}, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(), HasSubstr("this is a node"));
}

TEST_F(ApprovalsTest, AreListedPageByPage) {
  Serve(&roster_);
  storage::NodeId stranger;
  stranger.bytes[0] = 0xcd;
  for (const uint32_t number : {1, 2, 3}) PushErased(number == 2 ? stranger : known_, number);
  v1::ListApprovalsResponse page;
  ASSERT_TRUE(List(2, "", page).ok());
  ASSERT_EQ(page.approvals_size(), 2);
  const v1::Approval& first = page.approvals(0);
  EXPECT_EQ(first.number(), 1u);
  EXPECT_EQ(first.noun(), "entity 9001");
  EXPECT_EQ(first.record(), NoteKey(1).id.ToString());
  EXPECT_EQ(first.from(), "italy/desk");
  EXPECT_EQ(first.reason(), site_.replica->ListApprovals(0, 1).front().reason);
  EXPECT_EQ(static_cast<uint64_t>(first.since().seconds()),
            site_.replica->ListApprovals(0, 1).front().since_ms / 1000);
  EXPECT_EQ(page.approvals(1).from(), stranger.ToString());
  const std::string token = page.next_page_token();
  ASSERT_TRUE(List(2, token, page).ok());
  ASSERT_EQ(page.approvals_size(), 1);
  EXPECT_EQ(page.approvals(0).number(), 3u);
  EXPECT_EQ(page.next_page_token(), "");
  EXPECT_EQ(List(1001, "", page).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(List(0, "odd", page).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(ApprovalsTest, OneIsShownWithWhatItWouldChange) {
  Serve(&roster_);
  PushErased(known_, 1);
  grpc::ClientContext context;
  v1::GetApprovalRequest request;
  v1::GetApprovalResponse response;
  request.set_number(1);
  ASSERT_TRUE(approvals_->GetApproval(&context, request, &response).ok());
  EXPECT_EQ(response.approval().from(), "italy/desk");
  EXPECT_TRUE(response.approval().erasure());
  EXPECT_EQ(response.values_size(), 0);
  PushText(known_, 2, "there");
  grpc::ClientContext text;
  request.set_number(2);
  ASSERT_TRUE(approvals_->GetApproval(&text, request, &response).ok());
  EXPECT_FALSE(response.approval().erasure());
  ASSERT_EQ(response.values_size(), 1);
  const v1::PushedValue& value = response.values(0);
  EXPECT_EQ(value.write().actor(), "milan");
  EXPECT_TRUE(value.has_current_write()) << "what stands is shown as well, and who wrote it";
  EXPECT_NE(value.current_write().actor(), value.write().actor());
  EXPECT_FALSE(google::protobuf::util::MessageDifferencer::Equals(value.value(), value.current()));
  EXPECT_THAT(response.approval().fields(), ElementsAre(value.field()));
  grpc::ClientContext second;
  request.set_number(3);
  EXPECT_EQ(approvals_->GetApproval(&second, request, &response).error_code(),
            grpc::StatusCode::NOT_FOUND);
}

TEST_F(ApprovalsTest, ADecisionIsTakenOnceAndTheNodeBeginsAnew) {
  Serve(&roster_);
  PushErased(known_, 1);
  PushErased(known_, 2);
  v1::Approval approval;
  ASSERT_TRUE(Approve(1, &approval).ok());
  EXPECT_EQ(approval.number(), 1u);
  EXPECT_EQ(approval.record(), NoteKey(1).id.ToString());
  EXPECT_EQ(approval.from(), "italy/desk");
  EXPECT_TRUE(Erased(1));
  EXPECT_THAT(roster_.restarted, ElementsAre(known_));
  ASSERT_TRUE(Reject(2, &approval).ok());
  EXPECT_EQ(approval.number(), 2u);
  EXPECT_FALSE(Erased(2));
  EXPECT_THAT(roster_.restarted, ElementsAre(known_, known_));
  v1::ListApprovalsResponse page;
  ASSERT_TRUE(List(0, "", page).ok());
  EXPECT_EQ(page.approvals_size(), 0);
  for (const uint64_t number : {0, 1, 2, 3}) {
    EXPECT_EQ(Approve(number).error_code(), grpc::StatusCode::NOT_FOUND) << number;
    EXPECT_EQ(Reject(number).error_code(), grpc::StatusCode::NOT_FOUND) << number;
  }
  EXPECT_EQ(roster_.restarted.size(), 2u) << "nothing was decided, and a session ended";
}

TEST_F(ApprovalsTest, SeveralAreDecidedAtOnce) {
  Serve(&roster_);
  for (uint32_t i = 1; i <= 3; ++i) PushErased(known_, i);
  grpc::ClientContext context;
  v1::ApproveRequest request;
  v1::ApproveResponse response;
  for (const uint64_t number : {1, 3, 9, 2}) request.add_numbers(number);
  const grpc::Status status = approvals_->Approve(&context, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(status.error_message(), HasSubstr("number 9"));
  EXPECT_THAT(status.error_message(), HasSubstr("2 of those given were approved before it"));
  EXPECT_TRUE(Erased(1));
  EXPECT_FALSE(Erased(2));
  EXPECT_TRUE(Erased(3));
  EXPECT_THAT(roster_.restarted, ElementsAre(known_)) << "once for all of them";
  for (const int count : {0, kPageSizeMax + 1}) {
    grpc::ClientContext other;
    request.clear_numbers();
    for (int i = 0; i < count; ++i) request.add_numbers(2);
    EXPECT_EQ(approvals_->Approve(&other, request, &response).error_code(),
              grpc::StatusCode::INVALID_ARGUMENT);
  }
  EXPECT_FALSE(Erased(2));
}

TEST_F(ApprovalsTest, AreAtTheHubOnly) {
  Serve(nullptr);
  PushErased(known_, 1);
  v1::ListApprovalsResponse page;
  for (const grpc::Status& status : {List(0, "", page), Approve(1), Reject(1)}) {
    EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
    EXPECT_EQ(status.error_message(),
              "what waits for headquarters' word is listed and decided at the hub; this is a node");
  }
  EXPECT_FALSE(Erased(1));
}

}  // namespace
}  // namespace chaptersync::node
