// SPDX-License-Identifier: Apache-2.0
//
// chapter-hub: makes a federation's hub, and serves it: sessions and enrolment
// to the chapters, the local API to the tools of this computer.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include <google/protobuf/util/json_util.h>
#include <spdlog/spdlog.h>

#include "hub/enrolment.h"
#include "hub/enrolment_server.h"
#include "hub/grpc_server.h"
#include "hub/sync_server.h"
#include "node/daemon/daemon.h"
#include "node/entity/text.h"
#include "node/sync/address.h"
#include "node/sync/limits.h"
#include "node/sync/renewer.h"
#include "node/sync/tls_credentials.h"
#include "node/trust/certificate.h"
#include "storage/core/status.h"

namespace chaptersync::hub {
namespace {

constexpr char kProgram[] = "chapter-hub";
constexpr absl::Duration kSessionGrace = absl::Milliseconds(2500);
constexpr std::chrono::milliseconds kServerGrace{500};
constexpr size_t kFederationBytesMax = 256;
// Connections, and the files of the database.
constexpr rlim_t kOpenFilesWanted = 16'384;

struct Options {
  std::string data;
  std::string name;
  std::string listen;
  std::string advertise;
  node::TestClock test_clock;
};

int64_t NowSeconds(storage::Environment& environment) {
  return static_cast<int64_t>(environment.NowMs() / 1000);
}

// As many open files as are wanted, or as the system allows.
void RaiseOpenFiles() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= kOpenFilesWanted) return;
  limit.rlim_cur = std::min(limit.rlim_max, kOpenFilesWanted);
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < kOpenFilesWanted) {
    spdlog::warn("at most {} open files are allowed, {} are wanted", limit.rlim_cur,
                 kOpenFilesWanted);
  }
}

// Invitations and nodes for the local API.
class HubRoster final : public node::Roster {
 public:
  // `advertise`: the address that invitations name; empty where none can be told.
  HubRoster(Enrolment& enrolment, SyncServer& sync_server, std::string advertise)
      : enrolment_(enrolment), sync_server_(sync_server), advertise_(std::move(advertise)) {}

  absl::StatusOr<NewInvitation> Invite(const std::string& chapter,
                                       std::optional<int64_t> valid_seconds,
                                       const std::string& actor) override {
    if (advertise_.empty()) {
      return absl::FailedPreconditionError(
          "this hub listens on all addresses of this machine: start it with --advertise HOST:PORT, "
          "so that invitations name one by which chapters reach it");
    }
    const int64_t seconds = valid_seconds.value_or(kInvitationSecondsDefault);
    CHAPTER_ASSIGN_OR_RETURN(const v1::Invitation invitation,
                             enrolment_.Invite(chapter, seconds, advertise_, actor));
    google::protobuf::util::JsonPrintOptions print;
    print.preserve_proto_field_names = true;
    std::string text;
    const auto status = google::protobuf::util::MessageToJsonString(invitation, &text, print);
    if (!status.ok()) return absl::InternalError("an invitation could not be written as JSON");
    Invitation shown{.id = InvitationId(invitation.code()),
                     .chapter = chapter,
                     .made = invitation.expires() - seconds,
                     .made_by = actor,
                     .end = invitation.expires()};
    spdlog::info("invitation {} to chapter {} was made by {}", shown.id, chapter, actor);
    return NewInvitation{std::move(text), std::move(shown)};
  }

  absl::StatusOr<std::vector<Invitation>> ListInvitations() override {
    CHAPTER_ASSIGN_OR_RETURN(const std::vector<OpenInvitation> open, enrolment_.ListInvitations());
    std::vector<Invitation> invitations;
    for (const OpenInvitation& one : open) invitations.push_back(Shown(one));
    return invitations;
  }

  absl::StatusOr<Invitation> RevokeInvitation(const std::string& id,
                                              const std::string& actor) override {
    CHAPTER_ASSIGN_OR_RETURN(const OpenInvitation revoked, enrolment_.RevokeInvitation(id));
    spdlog::info("invitation {} to chapter {} is revoked by {}", revoked.id, revoked.chapter,
                 actor);
    return Shown(revoked);
  }

  absl::StatusOr<std::vector<Node>> ListNodes() override {
    CHAPTER_ASSIGN_OR_RETURN(const std::vector<EnrolledNode> enrolled, enrolment_.ListNodes());
    std::vector<Node> nodes;
    for (const EnrolledNode& n : enrolled) {
      nodes.push_back({n.node, n.chapter, n.name, n.certificate_end, n.revoked});
    }
    return nodes;
  }

  absl::StatusOr<size_t> RevokeNode(const storage::NodeId& node,
                                    const std::string& actor) override {
    const auto invitations = enrolment_.RevokeNode(node);
    // Also where the disk did not take it: it is out until the hub ends.
    sync_server_.Disconnect(node);
    CHAPTER_RETURN_IF_ERROR(invitations.status());
    spdlog::info("node {} is revoked by {}; open invitations of its chapter: {}", node.ToString(),
                 actor, *invitations);
    return invitations;
  }

  absl::StatusOr<RevokedChapter> RevokeChapter(const std::string& chapter,
                                               const std::string& actor) override {
    CHAPTER_ASSIGN_OR_RETURN(Enrolment::RevokedChapter revoked, enrolment_.RevokeChapter(chapter));
    for (const storage::NodeId& node : revoked.nodes) sync_server_.Disconnect(node);
    spdlog::info("chapter {} is revoked by {}; nodes: {}, open invitations: {}", chapter, actor,
                 revoked.nodes.size(), revoked.invitations);
    return RevokedChapter{std::move(revoked.nodes), revoked.invitations};
  }

  void RestartSessions(const storage::NodeId& node) override { sync_server_.RestartSessions(node); }

 private:
  static Invitation Shown(const OpenInvitation& one) {
    return {one.id, one.chapter, one.made, one.made_by, one.end};
  }

  Enrolment& enrolment_;
  SyncServer& sync_server_;
  const std::string advertise_;
};

absl::Status Init(const Options& options) {
  if (!node::ValidUtf8(options.name)) {
    return absl::InvalidArgumentError("a federation's name is not valid UTF-8");
  }
  if (options.name.empty() || options.name.size() > kFederationBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat("a federation's name of ", options.name.size(),
                                                   " bytes is not allowed (1 to ",
                                                   kFederationBytesMax, ")"));
  }
  CHAPTER_ASSIGN_OR_RETURN(node::DataFolder folder, node::DataFolder::Prepare(options.data));
  CHAPTER_ASSIGN_OR_RETURN(const node::JoiningNode joining, folder.Joining());
  CHAPTER_RETURN_IF_ERROR(node::CheckTestClock(options.test_clock));
  node::SystemEnvironment environment(options.test_clock);
  const int64_t now = NowSeconds(environment);
  const node::Authority authority = node::Authority::Make(options.name, now);
  CHAPTER_ASSIGN_OR_RETURN(
      const std::string chain,
      authority.Certify(joining.key.MakeRequest(),
                        {.federation = authority.federation(), .chapter = "", .node = joining.node},
                        now));
  CHAPTER_RETURN_IF_ERROR(folder.WriteAuthority(authority));
  CHAPTER_RETURN_IF_ERROR(folder.WriteIdentity(joining.key, chain));
  CHAPTER_RETURN_IF_ERROR(folder.Create({.hub = true,
                                         .node = joining.node,
                                         .chapter = "",
                                         .federation = options.name,
                                         .hub_address = ""}));
  std::printf("made the hub of %s; start it with: %s serve --data %s --listen 127.0.0.1:7443\n",
              options.name.c_str(), kProgram, options.data.c_str());
  return absl::OkStatus();
}

// Everything but the end of the data folder.
absl::Status ServeOpened(const Options& options, node::DataFolder& folder,
                         node::OpenedReplica& opened) {
  CHAPTER_ASSIGN_OR_RETURN(const node::Address listen, node::ParseAddress(options.listen));
  CHAPTER_ASSIGN_OR_RETURN(const auto resolved, node::Resolve(listen));
  CHAPTER_RETURN_IF_ERROR(node::CheckListen(resolved.front()));
  storage::Replica& replica = opened.replica();
  const std::string& federation = folder.facts().federation;
  CHAPTER_ASSIGN_OR_RETURN(const node::Authority authority, folder.ReadAuthority());
  node::Renewer renewer(
      {.now = [&opened] { return NowSeconds(opened.environment()); },
       .load = [&folder] { return folder.ReadIdentity(); },
       .store = [&folder](const node::PrivateKey& key,
                          const std::string& chain) { return folder.WriteIdentity(key, chain); },
       .ready = [] { return true; },
       .certify =
           [&](const node::Renewal& renewal) {
             return authority.Certify(
                 renewal.request,
                 {.federation = authority.federation(), .chapter = "", .node = folder.facts().node},
                 NowSeconds(opened.environment()));
           },
       .again_ms = options.test_clock.moves() ? node::kRenewLookMs : node::kRenewAgainMs});
  // A hub that was away for long shows a good one from the first connection on.
  CHAPTER_RETURN_IF_ERROR(renewer.RenewIfDue().status());
  node::SessionGroup group(replica, opened.environment());
  Enrolment enrolment(replica, opened.environment(), federation, authority);
  EnrolmentServer enrolment_server(enrolment);
  SyncServerOptions server_options;
  if (options.test_clock.moves()) server_options.silence_ms_max = node::kNeverSilentMs;
  SyncServer sync_server(group, enrolment, server_options);
  node::Scrubber scrubber(replica);

  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(
      resolved.front().ToString(),
      node::HubCredentials(folder.identity_path(), authority.certificate_pem()), &port);
  LimitServer(builder);
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
    // Their streams are gone now; what is still at work uses what is about to go.
    if (!sync_server.Stop(kSessionGrace)) {
      spdlog::critical("some sessions do not end; the program ends all the same");
      std::_Exit(node::kExitFailed);
    }
  };
  node::ResolvedAddress bound = resolved.front();
  bound.port = static_cast<uint16_t>(port);
  std::string advertise = bound.any ? "" : bound.ToString();
  if (!options.advertise.empty()) {
    CHAPTER_ASSIGN_OR_RETURN(const node::Address address, node::ParseAddress(options.advertise));
    advertise = address.ToString();
  }
  HubRoster roster(enrolment, sync_server, advertise);
  node::LocalServer local(replica, opened.environment(), sync_server, &roster, federation);
  CHAPTER_ASSIGN_OR_RETURN(const std::string socket, folder.SocketPath());
  CHAPTER_RETURN_IF_ERROR(local.Start(socket));
  CHAPTER_RETURN_IF_ERROR(folder.WriteEndpoints({{"sync", bound.ToString()}, {"socket", socket}}));
  renewer.Start();
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
  CHAPTER_RETURN_IF_ERROR(node::CheckTestClock(options.test_clock));
  RaiseOpenFiles();
  CHAPTER_ASSIGN_OR_RETURN(node::DataFolder folder, node::DataFolder::Open(options.data, true));
  CHAPTER_ASSIGN_OR_RETURN(auto opened, node::OpenedReplica::Open(folder, options.test_clock));
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
  for (CLI::App* command : {init, serve}) node::AddTestClock(*command, options.test_clock);
  if (const auto code = node::Parse(app, argc, argv)) return *code;
  node::PrepareSignals();
  node::PrepareLog();
  node::AllowOnlyTls13();
  const absl::Status status = init->parsed() ? Init(options) : Serve(options);
  return status.ok() ? node::kExitDone : node::Fail(kProgram, status);
}

}  // namespace
}  // namespace chaptersync::hub

int main(int argc, char** argv) { return chaptersync::hub::Main(argc, argv); }
