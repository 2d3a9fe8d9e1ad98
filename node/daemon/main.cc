// SPDX-License-Identifier: Apache-2.0
//
// chapter-node: joins a federation with an invitation, and serves a chapter's
// replica to the tools of this computer while it syncs with the hub.
#include <unistd.h>

#include <cstdio>
#include <iostream>

#include "absl/strings/str_cat.h"
#include <google/protobuf/util/json_util.h>
#include <spdlog/spdlog.h>

#include "chaptersync/v1/enrolment.grpc.pb.h"
#include "node/api/status.h"
#include "node/daemon/daemon.h"
#include "node/session/wire.h"
#include "node/sync/grpc_connector.h"
#include "node/sync/sync_client.h"
#include "storage/core/status.h"

namespace chaptersync::node {
namespace {

constexpr char kProgram[] = "chapter-node";
constexpr size_t kInvitationBytesMax = 64 << 10;
constexpr std::chrono::seconds kEnrolDeadline{20};
constexpr absl::Duration kSessionGrace = absl::Seconds(3);

struct Options {
  std::string data;
  std::string invitation;
  std::string hub;
  int64_t clock_offset_ms = 0;
};

absl::StatusOr<v1::Invitation> ReadInvitation(const std::string& file) {
  std::string text;
  if (file == "-") {
    text.resize(kInvitationBytesMax + 1);  // one over tells that it is too long
    std::cin.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<size_t>(std::cin.gcount()));
  } else {
    CHAPTER_ASSIGN_OR_RETURN(text, ReadWholeFile(file, kInvitationBytesMax));
  }
  v1::Invitation invitation;
  const auto parsed = google::protobuf::util::JsonStringToMessage(text, &invitation);
  if (text.size() > kInvitationBytesMax || !parsed.ok() || invitation.code().empty() ||
      invitation.hub().empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        file == "-" ? std::string("standard input") : file,
        " is no invitation (the JSON text that `chapterctl chapters invite` prints is wanted)"));
  }
  if (invitation.version() != 1) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the invitation is of version ", invitation.version(), ", this program reads version 1"));
  }
  return invitation;
}

std::string ComputerName() {
  char name[256] = {};
  return gethostname(name, sizeof(name) - 1) == 0 ? std::string(name) : "computer";
}

absl::Status Join(const Options& options) {
  CHAPTER_ASSIGN_OR_RETURN(const v1::Invitation invitation, ReadInvitation(options.invitation));
  const std::string hub = options.hub.empty() ? invitation.hub() : options.hub;
  CHAPTER_ASSIGN_OR_RETURN(const Address address, ParseAddress(hub));
  CHAPTER_ASSIGN_OR_RETURN(DataFolder folder, DataFolder::Prepare(options.data));
  CHAPTER_ASSIGN_OR_RETURN(const storage::NodeId node, folder.JoiningNode());
  const auto deadline = std::chrono::system_clock::now() + kEnrolDeadline;
  CHAPTER_ASSIGN_OR_RETURN(auto channel, ConnectChannel(address, 0, [&] {
                             return std::chrono::system_clock::now() > deadline;
                           }));
  v1::EnrolRequest request;
  request.set_code(invitation.code());
  request.set_node(ToBytes(node));
  request.set_name(ComputerName());
  v1::EnrolResponse response;
  grpc::ClientContext context;
  context.set_deadline(deadline);
  const grpc::Status status =
      v1::EnrolmentService::NewStub(channel)->Enrol(&context, request, &response);
  CHAPTER_RETURN_IF_ERROR(FromGrpc(status));
  CHAPTER_RETURN_IF_ERROR(folder.Create({.hub = false,
                                         .node = node,
                                         .chapter = response.chapter(),
                                         .federation = response.federation(),
                                         .hub_address = hub},
                                        response.credential()));
  std::printf("joined %s as a computer of chapter %s; start it with: %s serve --data %s\n",
              response.federation().c_str(), response.chapter().c_str(), kProgram,
              options.data.c_str());
  return absl::OkStatus();
}

absl::Status Serve(const Options& options) {
  CHAPTER_ASSIGN_OR_RETURN(DataFolder folder, DataFolder::Open(options.data, false));
  CHAPTER_ASSIGN_OR_RETURN(const Address hub, ParseAddress(folder.facts().hub_address));
  CHAPTER_ASSIGN_OR_RETURN(const std::string credential, folder.Credential());
  CHAPTER_ASSIGN_OR_RETURN(auto opened, OpenedReplica::Open(folder, options.clock_offset_ms));
  storage::Replica& replica = opened->replica();
  {
    SessionGroup group(replica, opened->environment());
    GrpcConnector connector(hub);
    SyncClient client(group, connector, {credential, folder.facts().federation});
    Scrubber scrubber(replica);
    LocalServer local(replica, opened->environment(), client, nullptr, folder.facts().federation);
    CHAPTER_ASSIGN_OR_RETURN(const std::string socket, folder.SocketPath());
    CHAPTER_RETURN_IF_ERROR(local.Start(socket));
    CHAPTER_RETURN_IF_ERROR(folder.WriteEndpoints({{"socket", socket}}));
    client.Start();
    spdlog::info("serving chapter {} of {} as replica {}, hub {}", folder.facts().chapter,
                 folder.facts().federation, storage::ToHex(replica.replica_id().value),
                 folder.facts().hub_address);
    std::printf("ready\n");
    std::fflush(stdout);
    WaitForSignal();
    spdlog::info("ending");
    EndWithin(opened->lost() ? kExitFailed : kExitDone);
    folder.RemoveEndpoints();
    local.Stop();
    client.Stop();
    if (!group.StopAll(absl::UnavailableError("the node ends"), kSessionGrace)) {
      spdlog::warn("the session with the hub did not end in time");
    }
  }
  if (opened->lost()) return absl::DataLossError("the disk failed; see the log");
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app("One chapter: its replica, served to this computer's tools and synced with the hub.",
               kProgram);
  AddConfiguration(app);
  app.set_version_flag("--version", ProgramVersion());
  const auto add_data = [&](CLI::App& command) {
    command.add_option("--data", options.data, "the data folder")
        ->required()
        ->envname("CHAPTER_DATA");
  };
  CLI::App* join = app.add_subcommand("join", "take an invitation and make the data folder");
  add_data(*join);
  join->add_option("--invitation", options.invitation, "the invitation's file; - is standard input")
      ->required()
      ->envname("CHAPTER_INVITATION");
  join->add_option("--hub", options.hub, "the hub's HOST:PORT, instead of the invitation's")
      ->envname("CHAPTER_HUB");
  CLI::App* serve = app.add_subcommand("serve", "serve the data folder until SIGTERM");
  add_data(*serve);
  // Hidden: shifts the wall clock, for tests of wrong clocks.
  serve->add_option("--test-clock-offset-ms", options.clock_offset_ms)
      ->group("")
      ->envname("CHAPTER_TEST_CLOCK_OFFSET_MS");
  if (const auto code = Parse(app, argc, argv)) return *code;
  PrepareSignals();
  PrepareLog();
  const absl::Status status = join->parsed() ? Join(options) : Serve(options);
  return status.ok() ? kExitDone : Fail(kProgram, status);
}

}  // namespace
}  // namespace chaptersync::node

int main(int argc, char** argv) { return chaptersync::node::Main(argc, argv); }
