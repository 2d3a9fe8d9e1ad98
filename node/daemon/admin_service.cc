// SPDX-License-Identifier: Apache-2.0
//
// A replica and its roster as messages. Counting records and refused writes reads
// them all.
#include "node/daemon/admin_service.h"

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/util/time_util.h"
#include <grpcpp/server_context.h>

#include "node/daemon/sync_service.h"
#include "node/entity/node_names.h"
#include "node/entity/registry.h"
#include "node/sync/grpc_stream.h"
#include "node/trust/certificate.h"

namespace chaptersync::node {
namespace {

using google::protobuf::util::TimeUtil;

// Refused writes read at a time.
constexpr size_t kRefusedPage = 1000;

grpc::Status NoRoster() {
  return ToGrpc(absl::FailedPreconditionError(
      "chapters join at the hub and are listed there; this is a node"));
}

template <typename Message>
void SetLastContact(uint64_t ms, Message& message) {
  if (ms == 0) return;
  *message.mutable_last_contact() = TimeUtil::MillisecondsToTimestamp(static_cast<int64_t>(ms));
}

// The one node that `text` names: an id, the beginning of one, CHAPTER/NAME, or that as it is
// shown.
absl::StatusOr<storage::NodeId> FindNode(const std::vector<Roster::Node>& nodes,
                                         const std::string& text) {
  std::vector<const Roster::Node*> found;
  const std::map<storage::NodeId, std::string> shown = ShownNames(nodes);
  for (const Roster::Node& node : nodes) {
    const bool by_id = !text.empty() && absl::StartsWith(node.node.ToString(), text);
    const bool by_name = absl::StrCat(node.chapter, "/", node.name) == text;
    if (by_id || by_name || shown.at(node.node) == text) found.push_back(&node);
  }
  if (found.size() == 1) return found.front()->node;
  if (found.empty()) {
    return absl::NotFoundError(
        absl::StrCat("no node is named '", text, "'; `chapterctl nodes list` shows them"));
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "'", text, "' names ", found.size(), " nodes, for instance ", found[0]->node.ToString(),
      " and ", found[1]->node.ToString(), "; give more of the id"));
}

v1::OpenInvitation Show(const Roster::Invitation& invitation) {
  v1::OpenInvitation out;
  out.set_id(invitation.id);
  out.set_chapter(invitation.chapter);
  if (invitation.made != 0) *out.mutable_made() = TimeUtil::SecondsToTimestamp(invitation.made);
  out.set_made_by(invitation.made_by);
  *out.mutable_end() = TimeUtil::SecondsToTimestamp(invitation.end);
  return out;
}

}  // namespace

std::string ProgramVersion() { return CHAPTERSYNC_VERSION; }

grpc::Status AdminServiceServer::GetStatus(grpc::ServerContext*, const v1::GetStatusRequest*,
                                           v1::GetStatusResponse* response) {
  response->set_replica(storage::ToHex(replica_.replica_id().value));
  const storage::ReplicaOptions& options = replica_.options();
  response->set_chapter(options.hub ? "hq" : options.chapter);
  response->set_role(options.hub ? v1::REPLICA_ROLE_HUB : v1::REPLICA_ROLE_NODE);
  for (const auto& [entity, count] : replica_.CountRecords()) {
    (*response->mutable_records())[BuiltinEntities().NounOf(entity)] += count;
  }
  const auto conflicts = replica_.CountOpenConflicts();
  if (!conflicts.ok()) return ToGrpc(conflicts.status());
  response->set_conflicts_open(*conflicts);
  uint64_t refused = 0;
  uint64_t after = 0;
  while (true) {
    const auto page = replica_.ListRefused(after, kRefusedPage);
    if (!page.ok()) return ToGrpc(page.status());
    if (page->empty()) break;
    refused += page->size();
    after = page->back().number;
  }
  response->set_refused(refused);
  const std::vector<PeerState> peers = peers_.List();
  for (const PeerState& peer : peers) {
    v1::PeerSummary* out = response->add_peers();
    out->set_peer(peer.name);
    out->set_connected(peer.connected);
    SetLastContact(peer.last_contact_ms, *out);
    if (!peer.connected) out->set_error(peer.error);
  }
  Advise(peers, *response);
  response->set_federation(federation_);
  response->set_version(ProgramVersion());
  response->set_paused(peers_.paused());
  return grpc::Status::OK;
}

void AdminServiceServer::Advise(const std::vector<PeerState>& peers,
                                v1::GetStatusResponse& response) const {
  bool kept_out = false;
  for (const PeerState& peer : peers) kept_out |= !peer.connected && peer.kept_out;
  if (kept_out) {
    response.add_advice(
        "the hub does not let this computer in: ask headquarters for a new invitation, stop "
        "chapter-node, and run `chapter-node join` with it on the same folder; nothing that was "
        "written here is lost");
  }
  if (certificate_end_ == nullptr) return;
  const auto end = certificate_end_();
  if (!end.ok()) {
    response.add_advice(
        absl::StrCat("this computer's certificate cannot be read: ", end.status().message()));
    return;
  }
  *response.mutable_certificate_end() = TimeUtil::SecondsToTimestamp(*end);
  const auto now = static_cast<int64_t>(replica_.Clock().wall_ms / 1000);
  // Where it is kept out that says what to do already.
  if (std::string warning = EndWarning(*end, now); !warning.empty() && !kept_out) {
    response.add_advice(std::move(warning));
  }
}

grpc::Status AdminServiceServer::CreateInvitation(grpc::ServerContext* context,
                                                  const v1::CreateInvitationRequest* request,
                                                  v1::CreateInvitationResponse* response) {
  if (roster_ == nullptr) return NoRoster();
  std::optional<int64_t> valid_seconds;
  if (request->has_valid()) valid_seconds = request->valid().seconds();
  const auto actor = WriterOf(api_, *context);
  if (!actor.ok()) return ToGrpc(actor.status());
  auto invitation = roster_->Invite(request->chapter(), valid_seconds, *actor);
  if (!invitation.ok()) return ToGrpc(invitation.status());
  response->set_invitation(std::move(invitation->text));
  *response->mutable_shown() = Show(invitation->shown);
  return grpc::Status::OK;
}

grpc::Status AdminServiceServer::ListInvitations(grpc::ServerContext*,
                                                 const v1::ListInvitationsRequest* request,
                                                 v1::ListInvitationsResponse* response) {
  if (roster_ == nullptr) return NoRoster();
  const auto invitations = roster_->ListInvitations();
  if (!invitations.ok()) return ToGrpc(invitations.status());
  for (const Roster::Invitation& invitation : *invitations) {
    if (!request->chapter().empty() && request->chapter() != invitation.chapter) continue;
    *response->add_invitations() = Show(invitation);
  }
  return grpc::Status::OK;
}

grpc::Status AdminServiceServer::RevokeInvitation(grpc::ServerContext* context,
                                                  const v1::RevokeInvitationRequest* request,
                                                  v1::RevokeInvitationResponse* response) {
  if (roster_ == nullptr) return NoRoster();
  const auto actor = WriterOf(api_, *context);
  if (!actor.ok()) return ToGrpc(actor.status());
  const auto revoked = roster_->RevokeInvitation(request->id(), *actor);
  if (!revoked.ok()) return ToGrpc(revoked.status());
  *response->mutable_invitation() = Show(*revoked);
  return grpc::Status::OK;
}

grpc::Status AdminServiceServer::ListNodes(grpc::ServerContext*, const v1::ListNodesRequest*,
                                           v1::ListNodesResponse* response) {
  if (roster_ == nullptr) return NoRoster();
  const auto nodes = roster_->ListNodes();
  if (!nodes.ok()) return ToGrpc(nodes.status());
  std::map<storage::NodeId, PeerState> peers;
  for (PeerState& peer : peers_.List()) peers[peer.node] = std::move(peer);
  const std::map<storage::NodeId, std::string> shown = ShownNames(*nodes);
  for (const Roster::Node& node : *nodes) {
    v1::EnrolledNode* out = response->add_nodes();
    out->set_display_name(shown.at(node.node));
    out->set_id(node.node.ToString());
    out->set_chapter(node.chapter);
    out->set_name(node.name);
    *out->mutable_certificate_end() = TimeUtil::SecondsToTimestamp(node.certificate_end);
    if (node.revoked != 0) *out->mutable_revoked() = TimeUtil::SecondsToTimestamp(node.revoked);
    const auto it = peers.find(node.node);
    if (it == peers.end() || it->second.last_contact_ms == 0) {
      out->set_behind(-1);
      continue;
    }
    out->set_connected(it->second.connected);
    SetLastContact(it->second.last_contact_ms, *out);
    int64_t behind = 0;
    for (const PeerScopeState& scope : it->second.scopes) {
      const int64_t unsent = CountUnsent(replica_, it->second, scope);
      behind = behind < 0 || unsent < 0 ? -1 : behind + unsent;
    }
    out->set_behind(behind);
  }
  return grpc::Status::OK;
}

grpc::Status AdminServiceServer::RevokeNode(grpc::ServerContext* context,
                                            const v1::RevokeNodeRequest* request,
                                            v1::RevokeNodeResponse* response) {
  if (roster_ == nullptr) return NoRoster();
  const auto nodes = roster_->ListNodes();
  if (!nodes.ok()) return ToGrpc(nodes.status());
  const auto node = FindNode(*nodes, request->node());
  if (!node.ok()) return ToGrpc(node.status());
  const auto actor = WriterOf(api_, *context);
  if (!actor.ok()) return ToGrpc(actor.status());
  const auto invitations = roster_->RevokeNode(*node, *actor);
  if (!invitations.ok()) return ToGrpc(invitations.status());
  response->set_id(node->ToString());
  response->set_invitations(static_cast<uint32_t>(*invitations));
  return grpc::Status::OK;
}

grpc::Status AdminServiceServer::RevokeChapter(grpc::ServerContext* context,
                                               const v1::RevokeChapterRequest* request,
                                               v1::RevokeChapterResponse* response) {
  if (roster_ == nullptr) return NoRoster();
  const auto actor = WriterOf(api_, *context);
  if (!actor.ok()) return ToGrpc(actor.status());
  const auto revoked = roster_->RevokeChapter(request->chapter(), *actor);
  if (!revoked.ok()) return ToGrpc(revoked.status());
  for (const storage::NodeId& node : revoked->nodes) response->add_nodes(node.ToString());
  response->set_invitations(static_cast<uint32_t>(revoked->invitations));
  return grpc::Status::OK;
}

}  // namespace chaptersync::node
