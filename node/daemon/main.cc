// SPDX-License-Identifier: Apache-2.0
//
// chapter-node: joins a federation with an invitation, and serves a chapter's
// replica to the tools of this computer while it syncs with the hub.
#include <unistd.h>

#include <cstdio>
#include <iostream>

#include "absl/strings/str_cat.h"
#include <spdlog/spdlog.h>

#include "chaptersync/v1/enrolment.grpc.pb.h"
#include "node/api/status.h"
#include "node/daemon/daemon.h"
#include "node/daemon/invitation.h"
#include "node/entity/node_names.h"
#include "node/session/wire.h"
#include "node/sync/grpc_connector.h"
#include "node/sync/one_request.h"
#include "node/sync/renewer.h"
#include "node/sync/sync_client.h"
#include "node/sync/tls_credentials.h"
#include "node/trust/certificate.h"
#include "storage/core/status.h"

namespace chaptersync::node {
namespace {

constexpr char kProgram[] = "chapter-node";
constexpr std::chrono::seconds kEnrolDeadline{20};
// A stop waits for it.
constexpr absl::Duration kRenewTimeout = absl::Seconds(3);
constexpr absl::Duration kSessionGrace = absl::Seconds(3);

struct Options {
  std::string data;
  std::string invitation;
  std::string hub;
  std::string name;
  TestClock test_clock;
};

// What people call this computer where nobody has said: its host name, unless that is no name.
std::string HostName() {
  char name[256] = {};
  if (gethostname(name, sizeof(name) - 1) != 0 || !CheckNodeName(name).ok()) return "computer";
  return name;
}

// One of several wrong ones that came from this address: the invitation was not looked at, and is
// as good as before.
absl::Status TryLater(const absl::Status& status) {
  if (!absl::IsResourceExhausted(status)) return status;
  return absl::UnavailableError(status.message());
}

// The folder to join with: a new one, or one that has joined before and whose certificate has ended
// or was revoked.
absl::StatusOr<DataFolder> FolderToJoin(const std::string& path) {
  auto folder = DataFolder::Prepare(path);
  if (absl::IsAlreadyExists(folder.status())) return DataFolder::Open(path, false);
  return folder;
}

// What the hub's new certificate must be: for this node and chapter, and of this key.
absl::Status CheckIssued(const std::string& chain, const PrivateKey& key,
                         const CertifiedName& wanted) {
  CHAPTER_RETURN_IF_ERROR(CheckKeyOf(chain, key));
  CHAPTER_ASSIGN_OR_RETURN(const CertificateFacts facts, ReadCertificate(chain));
  if (facts.name == wanted) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrCat(
      "the hub's certificate is for ", facts.name.ToUri(), ", not for ", wanted.ToUri()));
}

absl::Status Join(const Options& options) {
  CHAPTER_ASSIGN_OR_RETURN(const v1::Invitation invitation,
                           ReadInvitation(options.invitation, std::cin));
  const std::string hub = options.hub.empty() ? invitation.hub() : options.hub;
  const std::string name = options.name.empty() ? HostName() : options.name;
  if (const absl::Status right = CheckNodeName(name); !right.ok()) {
    return MayBeSecret(name) ? absl::InvalidArgumentError(
                                   "--name is no name of a computer; it is not shown, as it may be "
                                   "a secret")
                             : right;
  }
  if (MayBeSecret(hub)) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.hub.empty() ? "the invitation's hub" : "--hub",
                     " is no HOST:PORT; it is not shown, as it may be a secret"));
  }
  CHAPTER_ASSIGN_OR_RETURN(const Address address, ParseAddress(hub));
  CHAPTER_ASSIGN_OR_RETURN(DataFolder folder, FolderToJoin(options.data));
  const bool again = folder.facts().node != storage::NodeId{};
  PrivateKey key = PrivateKey::Make();
  storage::NodeId node = folder.facts().node;
  v1::EnrolRequest request;
  // By it the hub knows a node again.
  const auto prove = [&request](const PrivateKey& former) {
    request.set_former_key(former.PublicKey());
    request.set_former_signature(former.Sign(request.request()));
  };
  if (again) {
    CHAPTER_ASSIGN_OR_RETURN(const TlsIdentity identity, folder.ReadIdentity());
    CHAPTER_ASSIGN_OR_RETURN(const std::string fingerprint, FingerprintOf(identity.authority));
    if (fingerprint != invitation.authority() || folder.facts().chapter != invitation.chapter()) {
      return absl::PermissionDeniedError(absl::StrCat(
          "'", folder.path(), "' is a computer of chapter ", folder.facts().chapter, " of ",
          folder.facts().federation, ", and the invitation is for chapter ", invitation.chapter(),
          " of ", invitation.federation(), "; join with another folder"));
    }
    CHAPTER_ASSIGN_OR_RETURN(const PrivateKey former, PrivateKey::FromPem(identity.key));
    request.set_request(key.MakeRequest());
    request.set_former_chain(identity.chain);
    prove(former);
  } else {
    // The same in every try: an answer that was lost has its certificate for this key.
    CHAPTER_ASSIGN_OR_RETURN(const JoiningNode joining, folder.Joining());
    node = joining.node;
    key = joining.key;
    request.set_request(key.MakeRequest());
    prove(key);
  }
  const auto verdict = std::make_shared<TlsVerdict>();
  const auto deadline = std::chrono::system_clock::now() + kEnrolDeadline;
  CHAPTER_ASSIGN_OR_RETURN(
      auto channel,
      ConnectChannel(address, 0, JoiningCredentials(invitation.authority(), verdict), *verdict,
                     [&] { return std::chrono::system_clock::now() > deadline; }));
  request.set_code(invitation.code());
  request.set_node(ToBytes(node));
  request.set_name(name);
  request.set_chapter(invitation.chapter());
  v1::EnrolResponse response;
  grpc::ClientContext context;
  context.set_deadline(deadline);
  const auto stub = v1::EnrolmentService::NewStub(channel);
  CHAPTER_RETURN_IF_ERROR(
      TryLater(FromGrpc(SendOneRequest(stub->Enrol(&context, &response), request))));
  CHAPTER_ASSIGN_OR_RETURN(const std::string federation, FederationOf(verdict->authority()));
  CHAPTER_RETURN_IF_ERROR(
      CheckIssued(response.chain(), key,
                  {.federation = federation, .chapter = invitation.chapter(), .node = node}));
  CHAPTER_RETURN_IF_ERROR(folder.WriteAuthority(verdict->authority()));
  CHAPTER_RETURN_IF_ERROR(folder.WriteIdentity(key, response.chain()));
  CHAPTER_RETURN_IF_ERROR(folder.Create({.hub = false,
                                         .node = node,
                                         .chapter = invitation.chapter(),
                                         .federation = response.federation(),
                                         .hub_address = hub}));
  std::printf("joined %s %sas a computer of chapter %s; start it with: %s serve --data %s\n",
              response.federation().c_str(), again ? "again " : "", invitation.chapter().c_str(),
              kProgram, options.data.c_str());
  return absl::OkStatus();
}

absl::StatusOr<int64_t> CertificateEndOf(const DataFolder& folder) {
  CHAPTER_ASSIGN_OR_RETURN(const TlsIdentity identity, folder.ReadIdentity());
  CHAPTER_ASSIGN_OR_RETURN(const CertificateFacts facts, ReadCertificate(identity.chain));
  return facts.not_after;
}

absl::Status Serve(const Options& options) {
  CHAPTER_RETURN_IF_ERROR(CheckTestClock(options.test_clock));
  CHAPTER_ASSIGN_OR_RETURN(DataFolder folder, DataFolder::Open(options.data, false));
  CHAPTER_ASSIGN_OR_RETURN(const Address hub, ParseAddress(folder.facts().hub_address));
  // A damaged one is told now, and not by every try to connect.
  CHAPTER_RETURN_IF_ERROR(folder.ReadIdentity().status());
  CHAPTER_ASSIGN_OR_RETURN(auto opened, OpenedReplica::Open(folder, options.test_clock));
  storage::Replica& replica = opened->replica();
  {
    SessionGroup group(replica, opened->environment());
    GrpcConnector connector(hub, CurrentCredentials([&folder] { return folder.ReadIdentity(); }));
    SyncClientOptions client_options{.federation = folder.facts().federation};
    if (options.test_clock.moves()) client_options.silence_ms_max = kNeverSilentMs;
    SyncClient client(group, connector, client_options);
    Renewer renewer(
        {.now = [&replica] { return static_cast<int64_t>(replica.Clock().wall_ms / 1000); },
         .load = [&folder] { return folder.ReadIdentity(); },
         .store = [&folder](const PrivateKey& key,
                            const std::string& chain) { return folder.WriteIdentity(key, chain); },
         // Only in a session is the hub's clock known for sure.
         .ready =
             [&client] {
               const auto peers = client.List();
               return !peers.empty() && peers.front().connected;
             },
         .certify = [&connector](
                        const Renewal& renewal) { return connector.Renew(renewal, kRenewTimeout); },
         .again_ms = options.test_clock.moves() ? kRenewLookMs : kRenewAgainMs,
         .warns = true});
    Scrubber scrubber(replica);
    LocalServer local(replica, opened->environment(), client, nullptr, folder.facts().federation,
                      [&folder] { return CertificateEndOf(folder); });
    CHAPTER_ASSIGN_OR_RETURN(const std::string socket, folder.SocketPath());
    CHAPTER_RETURN_IF_ERROR(local.Start(socket));
    CHAPTER_RETURN_IF_ERROR(folder.WriteEndpoints({{"socket", socket}}));
    client.Start();
    renewer.Start();
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
  join->add_option("--name", options.name,
                   "what people call this computer; unset: its host name. Names may be shared, but "
                   "one of each in a chapter is easier to tell apart")
      ->envname("CHAPTER_NODE_NAME");
  CLI::App* serve = app.add_subcommand("serve", "serve the data folder until SIGTERM");
  add_data(*serve);
  AddTestClock(*serve, options.test_clock);
  if (const auto code = Parse(app, argc, argv)) return *code;
  PrepareSignals();
  PrepareLog();
  AllowOnlyTls13();
  const absl::Status status = join->parsed() ? Join(options) : Serve(options);
  return status.ok() ? kExitDone : Fail(kProgram, status);
}

}  // namespace
}  // namespace chaptersync::node

int main(int argc, char** argv) { return chaptersync::node::Main(argc, argv); }
