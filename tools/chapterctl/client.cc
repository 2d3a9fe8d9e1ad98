// SPDX-License-Identifier: Apache-2.0
//
// Tries the socket before gRPC does, which tells a folder that nobody serves
// from a daemon that fails.
#include "tools/chapterctl/client.h"

#include <pwd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>
#include <nlohmann/json.hpp>

#include "node/api/actor.h"
#include "node/api/status.h"
#include "node/entity/ids.h"
#include "node/entity/text.h"
#include "tools/chapterctl/failure.h"

namespace chaptersync::ctl {
namespace {

namespace fs = std::filesystem;

constexpr char kEndpointsFile[] = "endpoints.json";
constexpr size_t kIdTextMax = 36;

absl::Status NoDaemon(const std::string& data) {
  return absl::UnavailableError(
      absl::StrCat("no daemon serves ", data, ": start chapter-node serve or chapter-hub serve"));
}

// The path of the socket that the folder's daemon listens on.
absl::StatusOr<std::string> SocketOf(const std::string& data) {
  std::error_code error;
  if (!fs::is_directory(data, error)) {
    return absl::UnavailableError(
        absl::StrCat(data, " is no data folder: there is no such folder"));
  }
  const fs::path file = fs::path(data) / kEndpointsFile;
  std::ifstream in(file);
  if (!in) {
    const bool there = fs::exists(file, error);
    if (!there && !error) return NoDaemon(data);
    return absl::UnavailableError(absl::StrCat("cannot read ", file.string(), ": ",
                                               error ? error.message() : std::strerror(EACCES)));
  }
  const auto endpoints = nlohmann::json::parse(in, nullptr, false);
  const auto socket = endpoints.is_object() ? endpoints.find("socket") : endpoints.end();
  if (socket == endpoints.end() || !socket->is_string()) {
    return absl::UnavailableError(absl::StrCat(file.string(), " names no socket"));
  }
  return fs::absolute(fs::path(data) / socket->get<std::string>()).string();
}

// OK where somebody listens there.
absl::Status Knock(const std::string& data, const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return absl::UnavailableError(absl::StrCat("the path of the socket ", path, " is too long"));
  }
  std::copy(path.begin(), path.end(), address.sun_path);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return absl::InternalError(absl::StrCat("socket: ", std::strerror(errno)));
  const int result = connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  const int reason = errno;
  close(fd);
  if (result == 0) return absl::OkStatus();
  if (reason == ENOENT || reason == ECONNREFUSED) return NoDaemon(data);
  return absl::UnavailableError(
      absl::StrCat("cannot reach the daemon at ", path, ": ", std::strerror(reason)));
}

bool PrintableAscii(const std::string& text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c < 0x7f; });
}

bool BeginningOfId(const std::string& text) {
  return !text.empty() && text.size() <= kIdTextMax &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return c == '-' || absl::ascii_isxdigit(static_cast<unsigned char>(c));
         });
}

}  // namespace

absl::StatusOr<std::unique_ptr<Client>> Client::Connect(const std::string& data,
                                                        const std::string& actor) {
  auto socket = SocketOf(data);
  if (!socket.ok()) return socket.status();
  if (const absl::Status reached = Knock(data, *socket); !reached.ok()) return reached;
  grpc::ChannelArguments arguments;
  // The daemon bounds its answers, and it is ours.
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  auto channel = grpc::CreateCustomChannel(absl::StrCat("unix:", *socket),
                                           grpc::InsecureChannelCredentials(), arguments);
  return std::make_unique<Client>(std::move(channel), data, actor);
}

Client::Client(std::shared_ptr<grpc::Channel> channel, std::string served, std::string actor)
    : served_(std::move(served)),
      actor_(std::move(actor)),
      records_(v1::RecordsService::NewStub(channel)),
      conflicts_(v1::ConflictsService::NewStub(channel)),
      refused_(v1::RefusedService::NewStub(channel)),
      approvals_(v1::ApprovalsService::NewStub(channel)),
      sync_(v1::SyncService::NewStub(channel)),
      admin_(v1::AdminService::NewStub(channel)) {}

void Client::Prepare(grpc::ClientContext& context) const {
  context.AddMetadata(PrintableAscii(actor_) ? node::kActorKey : node::kActorBinaryKey, actor_);
}

absl::Status Client::Failed(const grpc::Status& status) const {
  const absl::Status failed = node::FromGrpc(status);
  if (absl::IsUnavailable(failed)) {
    return absl::UnavailableError(absl::StrCat("the daemon that serves ", served_,
                                               " does not answer: ", status.error_message()));
  }
  if (absl::IsUnimplemented(failed) && status.error_message().empty()) {
    return absl::UnimplementedError(
        absl::StrCat("the daemon that serves ", served_, " does not know this command"));
  }
  if (status.error_message().empty()) return {failed.code(), CodeOf(failed)};
  return failed;
}

absl::StatusOr<std::string> Client::ResolveId(const node::EntityType& type,
                                              const std::string& text) {
  const absl::Status missing = absl::NotFoundError(
      absl::StrCat("there is no ", type.singular, " '", node::Shown(text), "'"));
  if (const auto id = storage::RecordId::Parse(text); id.ok()) return id->ToString();
  if (text.empty() || !node::ValidUtf8(text)) return missing;
  if (type.name_field == nullptr && !BeginningOfId(text)) return missing;
  v1::ResolveRecordRequest request;
  request.set_noun(type.plural);
  request.set_prefix(text);
  const auto response = Call(records(), &v1::RecordsService::Stub::ResolveRecord, request);
  if (!response.ok()) return response.status();
  const std::vector<std::string> ids(response->ids().begin(), response->ids().end());
  if (ids.empty()) return missing;
  if (ids.size() == 1) return ids[0];
  // A whole name goes before the beginning of an id.
  if (type.name_field != nullptr) {
    const std::string named = node::NamedId(type, text).ToString();
    if (std::find(ids.begin(), ids.end(), named) != ids.end()) return named;
  }
  constexpr size_t kShown = 3;
  const std::vector<std::string> first(ids.begin(),
                                       ids.begin() + std::min<ptrdiff_t>(kShown, std::ssize(ids)));
  return WithDetails(
      absl::InvalidArgumentError(
          absl::StrCat("'", text, "' fits several ", type.plural, ": ", absl::StrJoin(first, ", "),
                       ids.size() > kShown ? ", ..." : "", "; give more digits")),
      ids);
}

absl::StatusOr<std::string> Client::ResolveName(const node::EntityType& type,
                                                const std::string& text) {
  auto id = ResolveId(type, text);
  if (!id.ok()) return id.status();
  return absl::StrCat(type.plural, "/", *id);
}

std::string OsUser() {
  const uid_t user = geteuid();
  passwd entry{};
  passwd* found = nullptr;
  std::vector<char> buffer(1 << 14);
  if (getpwuid_r(user, &entry, buffer.data(), buffer.size(), &found) == 0 && found != nullptr &&
      node::CheckActor(entry.pw_name).ok()) {
    return entry.pw_name;
  }
  return absl::StrCat("uid ", user);
}

}  // namespace chaptersync::ctl
