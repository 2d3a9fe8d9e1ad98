// SPDX-License-Identifier: Apache-2.0
//
// Invitations and nodes in the replica's settings, as JSON; of codes and credentials
// only their hashes:
//
//   invitation/<SHA-256 of code>  chapter, expires (seconds), used_by
//   node/<id>                     chapter, name, credential (SHA-256), joined_ms, code, met
#include "hub/enrolment.h"

#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include <nlohmann/json.hpp>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <spdlog/spdlog.h>

#include "node/entity/ids.h"
#include "node/entity/registry.h"
#include "node/session/wire.h"
#include "node/sync/grpc_stream.h"
#include "storage/core/status.h"

namespace chaptersync::hub {
namespace {

using nlohmann::json;
using storage::NodeId;

constexpr char kInvitationPrefix[] = "invitation/";
constexpr char kNodePrefix[] = "node/";
constexpr size_t kSecretBytes = 32;

std::string Hex(const std::string& bytes) { return absl::BytesToHexString(bytes); }

std::string RandomBytes() {
  std::string bytes(kSecretBytes, '\0');
  CHAPTER_CHECK(RAND_bytes(reinterpret_cast<unsigned char*>(bytes.data()),
                           static_cast<int>(bytes.size())) == 1);
  return bytes;
}

// In hexadecimal.
std::string Sha256(const std::string& text) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  CHAPTER_CHECK(EVP_Digest(text.data(), text.size(), digest, &size, EVP_sha256(), nullptr) == 1);
  return Hex(std::string(reinterpret_cast<const char*>(digest), size));
}

bool SameInConstantTime(const std::string& a, const std::string& b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

// What this file wrote. DATA_LOSS where it is no JSON object any more.
absl::StatusOr<json> ReadJson(const storage::Replica& replica, const std::string& key) {
  CHAPTER_ASSIGN_OR_RETURN(const std::string text, replica.GetSetting(key));
  json value = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!value.is_object()) {
    return absl::DataLossError(absl::StrCat("the setting '", key, "' cannot be read"));
  }
  return value;
}

absl::Status WriteJson(storage::Replica& replica, const std::string& key, const json& value) {
  return replica.PutSetting(key, value.dump(-1, ' ', false, json::error_handler_t::replace));
}

std::string TextOf(const json& value, const char* name) {
  const auto it = value.find(name);
  return it != value.end() && it->is_string() ? it->get<std::string>() : std::string();
}

int64_t NumberOf(const json& value, const char* name) {
  const auto it = value.find(name);
  return it != value.end() && it->is_number_integer() ? it->get<int64_t>() : 0;
}

EnrolledNode NodeOf(const NodeId& node, const json& value) {
  return {.node = node,
          .chapter = TextOf(value, "chapter"),
          .name = TextOf(value, "name"),
          .joined_ms = static_cast<uint64_t>(NumberOf(value, "joined_ms"))};
}

}  // namespace

Enrolment::Enrolment(storage::Replica& replica, storage::Environment& environment,
                     std::string federation)
    : replica_(replica), environment_(environment), federation_(std::move(federation)) {}

int64_t Enrolment::NowSeconds() const { return static_cast<int64_t>(environment_.NowMs() / 1000); }

absl::StatusOr<v1::Invitation> Enrolment::Invite(const std::string& chapter, int64_t valid_seconds,
                                                 const std::string& hub) {
  if (valid_seconds < kInvitationSecondsMin || valid_seconds > kInvitationSecondsMax) {
    return absl::InvalidArgumentError(absl::StrCat("an invitation cannot hold for ", valid_seconds,
                                                   " s (", kInvitationSecondsMin, " s to ",
                                                   kInvitationSecondsMax / (24 * 3600), " days)"));
  }
  CHAPTER_ASSIGN_OR_RETURN(const node::EntityType* type,
                           node::BuiltinEntities().GetByNoun("chapters"));
  const auto held = replica_.Read({type->number, node::NamedId(*type, chapter)});
  if (!held.ok() && !absl::IsNotFound(held.status())) return held.status();
  if (!held.ok() || !held->record.live()) {
    return absl::NotFoundError(absl::StrCat("there is no chapter '", chapter, "'"));
  }
  const int64_t now = NowSeconds();
  const std::string code = Hex(RandomBytes());
  absl::MutexLock lock(&mutex_);
  CHAPTER_RETURN_IF_ERROR(ForgetSpent(now));
  CHAPTER_RETURN_IF_ERROR(
      WriteJson(replica_, kInvitationPrefix + Sha256(code),
                {{"chapter", chapter}, {"expires", now + valid_seconds}, {"used_by", ""}}));
  v1::Invitation invitation;
  invitation.set_version(1);
  invitation.set_hub(hub);
  invitation.set_chapter(chapter);
  invitation.set_code(code);
  invitation.set_expires(now + valid_seconds);
  invitation.set_federation(federation_);
  return invitation;
}

absl::Status Enrolment::ForgetSpent(int64_t now_seconds) {
  CHAPTER_ASSIGN_OR_RETURN(const auto settings, replica_.ListSettings(kInvitationPrefix));
  for (const auto& [key, text] : settings) {
    const json value = json::parse(text, nullptr, false);
    if (value.is_object() && NumberOf(value, "expires") + kInvitationKeptSeconds > now_seconds) {
      continue;
    }
    CHAPTER_RETURN_IF_ERROR(replica_.PutSetting(key, std::nullopt));
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::EnrolResponse> Enrolment::Enrol(const v1::EnrolRequest& request) {
  CHAPTER_ASSIGN_OR_RETURN(const NodeId node, node::NodeIdFromBytes(request.node()));
  if (node == NodeId{}) return absl::InvalidArgumentError("a node's id cannot be all zeros");
  if (request.name().size() > kNodeNameBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat("a node's name of ", request.name().size(),
                                                   " bytes is too long (at most ",
                                                   kNodeNameBytesMax, ")"));
  }
  const std::string code_hash = Sha256(request.code());
  const std::string invitation_key = kInvitationPrefix + code_hash;
  const std::string node_key = kNodePrefix + node.ToString();
  absl::MutexLock lock(&mutex_);
  auto invitation = ReadJson(replica_, invitation_key);
  if (absl::IsNotFound(invitation.status())) {
    return absl::PermissionDeniedError("the invitation's code is not known at this hub");
  }
  CHAPTER_RETURN_IF_ERROR(invitation.status());
  if (NumberOf(*invitation, "expires") <= NowSeconds()) {
    return absl::PermissionDeniedError("the invitation is past its end");
  }
  const auto used = absl::PermissionDeniedError("the invitation was used already");
  const std::string used_by = TextOf(*invitation, "used_by");
  if (!used_by.empty() && used_by != node.ToString()) return used;
  auto known = ReadJson(replica_, node_key);
  if (!known.ok() && !absl::IsNotFound(known.status())) return known.status();
  if (known.ok()) {
    if (TextOf(*known, "code") != code_hash) {
      return absl::PermissionDeniedError("this node has joined already, with another invitation");
    }
    if (NumberOf(*known, "met") != 0) return used;
  }
  const std::string chapter = TextOf(*invitation, "chapter");
  const std::string credential = RandomBytes();
  // The invitation first: after a crash in between, only this node can go on.
  (*invitation)["used_by"] = node.ToString();
  CHAPTER_RETURN_IF_ERROR(WriteJson(replica_, invitation_key, *invitation));
  CHAPTER_RETURN_IF_ERROR(WriteJson(replica_, node_key,
                                    {{"chapter", chapter},
                                     {"name", request.name()},
                                     {"credential", Sha256(credential)},
                                     {"joined_ms", environment_.NowMs()},
                                     {"code", code_hash},
                                     {"met", 0}}));
  v1::EnrolResponse response;
  response.set_chapter(chapter);
  response.set_credential(credential);
  response.set_federation(federation_);
  response.set_hub(node::ToBytes(replica_.options().node));
  return response;
}

absl::StatusOr<EnrolledNode> Enrolment::Authenticate(const NodeId& node,
                                                     const std::string& credential) {
  const std::string key = kNodePrefix + node.ToString();
  auto value = ReadJson(replica_, key);
  if (absl::IsNotFound(value.status())) {
    return absl::PermissionDeniedError(
        absl::StrCat("node ", node.ToString(), " is not enrolled at this hub"));
  }
  CHAPTER_RETURN_IF_ERROR(value.status());
  if (!SameInConstantTime(TextOf(*value, "credential"), Sha256(credential))) {
    return absl::PermissionDeniedError(
        absl::StrCat("the credential is not that of node ", node.ToString()));
  }
  if (NumberOf(*value, "met") == 0) {
    // From here on its invitation is worth nothing any more.
    absl::MutexLock lock(&mutex_);
    CHAPTER_ASSIGN_OR_RETURN(json now, ReadJson(replica_, key));
    if (TextOf(now, "credential") != TextOf(*value, "credential")) {
      return absl::PermissionDeniedError(
          absl::StrCat("the credential is not that of node ", node.ToString(), " any more"));
    }
    now["met"] = 1;
    CHAPTER_RETURN_IF_ERROR(WriteJson(replica_, key, now));
  }
  return NodeOf(node, *value);
}

absl::StatusOr<std::vector<EnrolledNode>> Enrolment::ListNodes() const {
  CHAPTER_ASSIGN_OR_RETURN(const auto settings, replica_.ListSettings(kNodePrefix));
  std::vector<EnrolledNode> nodes;
  for (const auto& [key, text] : settings) {
    const auto node =
        node::NodeIdFromBytes(absl::HexStringToBytes(key.substr(sizeof(kNodePrefix) - 1)));
    const json value = json::parse(text, nullptr, false);
    if (!node.ok() || !value.is_object()) continue;
    nodes.push_back(NodeOf(*node, value));
  }
  return nodes;
}

grpc::Status EnrolmentServer::Enrol(grpc::ServerContext* context, const v1::EnrolRequest* request,
                                    v1::EnrolResponse* response) {
  auto answer = enrolment_.Enrol(*request);
  if (!answer.ok()) {
    spdlog::info("enrolment from {} refused: {}", context->peer(), answer.status().ToString());
    return node::ToGrpc(answer.status());
  }
  spdlog::info("node {} joined chapter {}", absl::BytesToHexString(request->node()),
               answer->chapter());
  *response = *std::move(answer);
  return grpc::Status::OK;
}

}  // namespace chaptersync::hub
