// SPDX-License-Identifier: Apache-2.0
//
// chapter-hub: makes a federation's hub, and serves it: sessions and enrolment
// to the chapters, the local API to the tools of this computer.
#include <chrono>
#include <cstdio>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include <google/protobuf/util/json_util.h>
#include <spdlog/spdlog.h>

#include "hub/enrolment.h"
#include "hub/sync_server.h"
#include "node/daemon/daemon.h"
#include "node/session/limits.h"
#include "node/sync/address.h"
#include "node/sync/limits.h"
#include "storage/core/status.h"

namespace chaptersync::hub {
namespace {

constexpr char kProgram[] = "chapter-hub";
constexpr absl::Duration kSessionGrace = absl::Milliseconds(2500);
constexpr std::chrono::milliseconds kServerGrace{500};
constexpr size_t kFederationBytesMax = 256;

struct Options {
  std::string data;
  std::string name;
  std::string listen;
  std::string advertise;
  int64_t clock_offset_ms = 0;
};

// Invitations and nodes for the local API.
class HubRoster final : public node::Roster {
 public:
  HubRoster(Enrolment& enrolment, std::string advertise)
      : enrolment_(enrolment), advertise_(std::move(advertise)) {}

  absl::StatusOr<std::string> Invite(const std::string& chapter,
                                     std::optional<int64_t> valid_seconds) override {
    CHAPTER_ASSIGN_OR_RETURN(
        const v1::Invitation invitation,
        enrolment_.Invite(chapter, valid_seconds.value_or(kInvitationSecondsDefault), advertise_));
    google::protobuf::util::JsonPrintOptions print;
    print.preserve_proto_field_names = true;
    std::string text;
    const auto status = google::protobuf::util::MessageToJsonString(invitation, &text, print);
    if (!status.ok()) return absl::InternalError("an invitation could not be written as JSON");
    return text;
  }

  absl::StatusOr<std::vector<Node>> ListNodes() override {
    CHAPTER_ASSIGN_OR_RETURN(const std::vector<EnrolledNode> enrolled, enrolment_.ListNodes());
    std::vector<Node> nodes;
    for (const EnrolledNode& n : enrolled) nodes.push_back({n.node, n.chapter, n.name});
    return nodes;
  }

 private:
  Enrolment& enrolment_;
  const std::string advertise_;
};

absl::Status Init(const Options& options) {
  if (options.name.empty() || options.name.size() > kFederationBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat("a federation's name of ", options.name.size(),
                                                   " bytes is not allowed (1 to ",
                                                   kFederationBytesMax, ")"));
  }
  CHAPTER_ASSIGN_OR_RETURN(node::DataFolder folder, node::DataFolder::Prepare(options.data));
  CHAPTER_ASSIGN_OR_RETURN(const storage::NodeId id, folder.JoiningNode());
  CHAPTER_RETURN_IF_ERROR(folder.Create(
      {.hub = true, .node = id, .chapter = "", .federation = options.name, .hub_address = ""}, ""));
  std::printf("made the hub of %s; start it with: %s serve --data %s --listen 127.0.0.1:7443\n",
              options.name.c_str(), kProgram, options.data.c_str());
  return absl::OkStatus();
}

// Everything but the end of the data folder.
absl::Status ServeOpened(const Options& options, const node::DataFolder& folder,
                         node::OpenedReplica& opened) {
  CHAPTER_ASSIGN_OR_RETURN(const node::Address listen, node::ParseAddress(options.listen));
  CHAPTER_ASSIGN_OR_RETURN(const auto resolved, node::ResolveLoopback(listen));
  CHAPTER_RETURN_IF_ERROR(node::CheckListen(resolved.front()));
  storage::Replica& replica = opened.replica();
  const std::string& federation = folder.facts().federation;
  node::SessionGroup group(replica, opened.environment());
  Enrolment enrolment(replica, opened.environment(), federation);
  EnrolmentServer enrolment_server(enrolment);
  SyncServer sync_server(group, enrolment);
  node::Scrubber scrubber(replica);

  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(resolved.front().ToString(), grpc::InsecureServerCredentials(), &port);
  builder.SetMaxReceiveMessageSize(static_cast<int>(node::kMessageBytesMax) +
                                   node::kEnvelopeBytesMax);
  builder.SetMaxSendMessageSize(-1);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, node::kStreamsPerConnectionMax);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, node::kKeepaliveTimeMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, node::kKeepaliveTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             node::kKeepaliveTimeMsMin);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, node::kConnectionIdleMsMax);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS,
                             static_cast<int>(node::kHandshakeMsMax));
  builder.RegisterService(&enrolment_server);
  builder.RegisterService(&sync_server);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || port == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot listen on ", resolved.front().ToString(), ": the port is in use"));
  }
  // Streams may be open from here on; gRPC's own end would wait for them for ever.
  const absl::Cleanup end = [&] {
    if (!sync_server.Stop(kSessionGrace)) spdlog::warn("some sessions did not end in time");
    server->Shutdown(std::chrono::system_clock::now() + kServerGrace);
    server->Wait();
  };
  node::ResolvedAddress bound = resolved.front();
  bound.port = static_cast<uint16_t>(port);
  std::string advertise = bound.ToString();
  if (!options.advertise.empty()) {
    CHAPTER_ASSIGN_OR_RETURN(const node::Address address, node::ParseAddress(options.advertise));
    advertise = address.ToString();
  }
  HubRoster roster(enrolment, advertise);
  node::LocalServer local(replica, opened.environment(), sync_server, &roster, federation);
  CHAPTER_ASSIGN_OR_RETURN(const std::string socket, folder.SocketPath());
  CHAPTER_RETURN_IF_ERROR(local.Start(socket));
  CHAPTER_RETURN_IF_ERROR(folder.WriteEndpoints({{"sync", bound.ToString()}, {"socket", socket}}));
  spdlog::info("serving the hub of {} as replica {} on {}", federation,
               storage::ToHex(replica.replica_id().value), bound.ToString());
  std::printf("ready\n");
  std::fflush(stdout);
  node::WaitForSignal();
  spdlog::info("ending");
  node::EndWithin(opened.lost() ? node::kExitFailed : node::kExitDone);
  folder.RemoveEndpoints();
  return absl::OkStatus();
}

absl::Status Serve(const Options& options) {
  CHAPTER_ASSIGN_OR_RETURN(node::DataFolder folder, node::DataFolder::Open(options.data, true));
  CHAPTER_ASSIGN_OR_RETURN(auto opened, node::OpenedReplica::Open(folder, options.clock_offset_ms));
  CHAPTER_RETURN_IF_ERROR(ServeOpened(options, folder, *opened));
  if (opened->lost()) return absl::DataLossError("the disk failed; see the log");
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app("The hub: headquarters' replica, where all chapters meet.", kProgram);
  node::AddConfiguration(app);
  app.set_version_flag("--version", node::ProgramVersion());
  const auto add_data = [&](CLI::App& command) {
    command.add_option("--data", options.data, "the data folder")
        ->required()
        ->envname("CHAPTER_DATA");
  };
  CLI::App* init = app.add_subcommand("init", "make a hub's data folder");
  add_data(*init);
  init->add_option("--name", options.name, "the federation's name")
      ->required()
      ->envname("CHAPTER_NAME");
  CLI::App* serve = app.add_subcommand("serve", "serve the data folder until SIGTERM");
  add_data(*serve);
  serve->add_option("--listen", options.listen, "HOST:PORT for chapters; port 0 picks a free one")
      ->required()
      ->envname("CHAPTER_LISTEN");
  serve->add_option("--advertise", options.advertise, "HOST:PORT that invitations name")
      ->envname("CHAPTER_ADVERTISE");
  // Hidden: shifts the wall clock, for tests of wrong clocks.
  serve->add_option("--test-clock-offset-ms", options.clock_offset_ms)
      ->group("")
      ->envname("CHAPTER_TEST_CLOCK_OFFSET_MS");
  if (const auto code = node::Parse(app, argc, argv)) return *code;
  node::PrepareSignals();
  node::PrepareLog();
  const absl::Status status = init->parsed() ? Init(options) : Serve(options);
  return status.ok() ? node::kExitDone : node::Fail(kProgram, status);
}

}  // namespace
}  // namespace chaptersync::hub

int main(int argc, char** argv) { return chaptersync::hub::Main(argc, argv); }
