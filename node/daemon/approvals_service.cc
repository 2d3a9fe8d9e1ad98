// SPDX-License-Identifier: Apache-2.0
//
// A decision is durable before the node's session ends, so that the next one tells
// the node. Names are read first: once it is taken, nothing fails.
#include "node/daemon/approvals_service.h"

#include <set>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include <spdlog/spdlog.h>

#include "node/api/limits.h"
#include "node/api/page_token.h"
#include "node/api/status.h"
#include "node/entity/node_names.h"
#include "node/entity/text.h"
#include "storage/core/status.h"

namespace chaptersync::node {
namespace {

constexpr char kQuery[] = "approvals";

absl::Status NoHub() {
  return absl::FailedPreconditionError(
      "what waits for headquarters' word is listed and decided at the hub; this is a node");
}

}  // namespace

absl::StatusOr<ApprovalsServiceServer::Names> ApprovalsServiceServer::ReadNames() const {
  if (roster_ == nullptr) return NoHub();
  CHAPTER_ASSIGN_OR_RETURN(const std::vector<Roster::Node> nodes, roster_->ListNodes());
  return ShownNames(nodes);
}

v1::Approval ApprovalsServiceServer::Show(const storage::Approval& approval,
                                          const Names& names) const {
  v1::Approval out;
  out.set_number(approval.number);
  out.set_noun(api_.entities.NounOf(approval.key.entity));
  out.set_record(approval.key.id.ToString());
  const auto name = names.find(approval.from);
  out.set_from(name == names.end() ? approval.from.ToString() : name->second);
  out.set_reason(ValidUtf8(approval.reason) ? approval.reason : Shown(approval.reason));
  out.set_erasure(approval.erasure);
  *out.mutable_since() = ShowTime(storage::HybridTime::FromWall(approval.since_ms));
  return out;
}

v1::Approval ApprovalsServiceServer::Show(const storage::ApprovalNews& news,
                                          const Names& names) const {
  v1::Approval out = Show(news.approval, names);
  for (const auto& value : news.values) {
    out.add_fields(ShowPath(api_, news.approval.key.entity, value.pushed.path));
  }
  return out;
}

absl::Status ApprovalsServiceServer::List(const v1::ListApprovalsRequest& request,
                                          v1::ListApprovalsResponse& response) const {
  CHAPTER_ASSIGN_OR_RETURN(const Names names, ReadNames());
  CHAPTER_ASSIGN_OR_RETURN(const size_t page_size, PageSize(request.page_size()));
  CHAPTER_ASSIGN_OR_RETURN(const std::string position, ReadPageToken(kQuery, request.page_token()));
  uint64_t after = 0;
  if (!position.empty() && !absl::SimpleAtoi(position, &after)) {
    return absl::InvalidArgumentError("page token is damaged");
  }
  size_t bytes = 0;
  // One over tells that there is more.
  for (const storage::Approval& approval : api_.replica.ListApprovals(after, page_size + 1)) {
    const auto news = api_.replica.ReadApproval(approval.number);
    if (absl::IsNotFound(news.status())) continue;  // decided meanwhile
    CHAPTER_RETURN_IF_ERROR(news.status());
    v1::Approval shown = Show(*news, names);
    const size_t size = shown.ByteSizeLong();
    const bool full = static_cast<size_t>(response.approvals_size()) == page_size ||
                      (response.approvals_size() > 0 && bytes + size > kAnswerBytesMax);
    if (full) {
      response.set_next_page_token(MakePageToken(kQuery, absl::StrCat(after)));
      break;
    }
    bytes += size;
    *response.add_approvals() = std::move(shown);
    after = approval.number;
  }
  return absl::OkStatus();
}

absl::Status ApprovalsServiceServer::Get(uint64_t number, v1::GetApprovalResponse& response) const {
  CHAPTER_ASSIGN_OR_RETURN(const Names names, ReadNames());
  CHAPTER_ASSIGN_OR_RETURN(const storage::ApprovalNews news, api_.replica.ReadApproval(number));
  *response.mutable_approval() = Show(news, names);
  const storage::EntityNumber entity = news.approval.key.entity;
  for (const auto& [pushed, stands] : news.values) {
    v1::PushedValue& out = *response.add_values();
    out.set_field(ShowPath(api_, entity, pushed.path));
    *out.mutable_value() = ShowValue(api_, entity, pushed.path, pushed.value);
    *out.mutable_write() = ShowWrite(api_, pushed.version, pushed.actor);
    *out.mutable_current() =
        ShowValue(api_, entity, pushed.path, stands ? stands->value : std::nullopt);
    if (stands) *out.mutable_current_write() = ShowWrite(api_, stands->version, stands->actor);
  }
  response.set_conflicts(static_cast<uint32_t>(news.conflicts));
  response.set_settlements(static_cast<uint32_t>(news.settlements));
  return absl::OkStatus();
}

absl::Status ApprovalsServiceServer::Decide(
    const grpc::ServerContext& context, const google::protobuf::RepeatedField<uint64_t>& numbers,
    Decision decision, const char* done,
    google::protobuf::RepeatedPtrField<v1::Approval>& approvals) {
  if (numbers.empty() || numbers.size() > kPageSizeMax) {
    return absl::InvalidArgumentError(
        absl::StrCat(numbers.size(), " numbers are not allowed (1 to ", kPageSizeMax, ")"));
  }
  CHAPTER_ASSIGN_OR_RETURN(const Names names, ReadNames());
  CHAPTER_ASSIGN_OR_RETURN(const std::string actor, WriterOf(api_, context));
  std::set<storage::NodeId> nodes;
  absl::Status status;
  for (const uint64_t number : numbers) {
    const auto decided = (api_.replica.*decision)(number);
    if (!decided.ok()) {
      status = decided.status();
      break;
    }
    nodes.insert(decided->from);
    v1::Approval& approval = *approvals.Add();
    approval = Show(*decided, names);
    spdlog::info("approval {}, {}/{} from {}, was {} by {}", number, approval.noun(),
                 approval.record(), approval.from(), done, actor);
  }
  for (const storage::NodeId& node : nodes) roster_->RestartSessions(node);
  if (status.ok() || approvals.empty()) return status;
  return absl::Status(status.code(), absl::StrCat(status.message(), "; ", approvals.size(),
                                                  " of those given were ", done, " before it"));
}

grpc::Status ApprovalsServiceServer::ListApprovals(grpc::ServerContext* /*context*/,
                                                   const v1::ListApprovalsRequest* request,
                                                   v1::ListApprovalsResponse* response) {
  return ToGrpc(List(*request, *response));
}

grpc::Status ApprovalsServiceServer::GetApproval(grpc::ServerContext* /*context*/,
                                                 const v1::GetApprovalRequest* request,
                                                 v1::GetApprovalResponse* response) {
  return ToGrpc(Get(request->number(), *response));
}

grpc::Status ApprovalsServiceServer::Approve(grpc::ServerContext* context,
                                             const v1::ApproveRequest* request,
                                             v1::ApproveResponse* response) {
  return ToGrpc(Decide(*context, request->numbers(), &storage::Replica::Approve, "approved",
                       *response->mutable_approvals()));
}

grpc::Status ApprovalsServiceServer::Reject(grpc::ServerContext* context,
                                            const v1::RejectRequest* request,
                                            v1::RejectResponse* response) {
  return ToGrpc(Decide(*context, request->numbers(), &storage::Replica::Reject, "rejected",
                       *response->mutable_approvals()));
}

}  // namespace chaptersync::node
