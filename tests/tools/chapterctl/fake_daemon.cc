// SPDX-License-Identifier: Apache-2.0
//
// Writes replace a record's message as a whole; pages hold two items, so that
// whoever reads them has to turn pages.
#include "tests/tools/chapterctl/fake_daemon.h"

#include <signal.h>
#include <unistd.h>

#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include <grpcpp/server_builder.h>
#include <grpcpp/support/channel_arguments.h>

namespace chaptersync::ctl {
namespace {

constexpr int kPage = 2;
// A record whose message holds this text is refused.
constexpr char kRefuseMe[] = "refuse me";

grpc::Status Missing(const std::string& name) {
  return {grpc::StatusCode::NOT_FOUND, absl::StrCat("there is no record ", name)};
}

v1::Record Make(const std::string& name, const google::protobuf::Any& entity) {
  v1::Record record;
  record.set_name(name);
  record.set_noun(name.substr(0, name.find('/')));
  record.set_id(name.substr(name.find('/') + 1));
  record.add_scopes("hq");
  *record.mutable_entity() = entity;
  return record;
}

std::string ActorOf(const grpc::ServerContext& context) {
  const auto it = context.client_metadata().find("chapter-actor");
  return it == context.client_metadata().end() ? ""
                                               : std::string(it->second.data(), it->second.size());
}

}  // namespace

grpc::Status FakeRecords::GetRecord(grpc::ServerContext*, const v1::GetRecordRequest* request,
                                    v1::GetRecordResponse* response) {
  const auto it = records.find(request->name());
  if (it == records.end()) return Missing(request->name());
  *response->mutable_record() = it->second;
  return grpc::Status::OK;
}

grpc::Status FakeRecords::ListRecords(grpc::ServerContext*, const v1::ListRecordsRequest* request,
                                      v1::ListRecordsResponse* response) {
  for (auto it = records.upper_bound(request->page_token()); it != records.end(); ++it) {
    if (it->second.noun() != request->noun()) continue;
    if (response->records_size() == kPage) {
      response->set_next_page_token(response->records(kPage - 1).name());
      break;
    }
    *response->add_records() = it->second;
  }
  return grpc::Status::OK;
}

grpc::Status FakeRecords::CreateRecord(grpc::ServerContext* context,
                                       const v1::CreateRecordRequest* request,
                                       v1::CreateRecordResponse* response) {
  actors.push_back(ActorOf(*context));
  *writes.emplace_back().mutable_create() = *request;
  const std::string id =
      request->record_id().empty() ? "00000000-0000-7000-8000-000000000001" : request->record_id();
  const std::string name = absl::StrCat(request->noun(), "/", id);
  const auto [it, inserted] = records.try_emplace(name, Make(name, request->entity()));
  if (!inserted) return {grpc::StatusCode::ALREADY_EXISTS, absl::StrCat(name, " exists already")};
  *response->mutable_record() = it->second;
  return grpc::Status::OK;
}

grpc::Status FakeRecords::UpdateRecord(grpc::ServerContext* context,
                                       const v1::UpdateRecordRequest* request,
                                       v1::UpdateRecordResponse* response) {
  actors.push_back(ActorOf(*context));
  *writes.emplace_back().mutable_update() = *request;
  const auto it = records.find(request->name());
  if (it == records.end()) return Missing(request->name());
  *response->mutable_record() = it->second;
  return grpc::Status::OK;
}

grpc::Status FakeRecords::EraseRecord(grpc::ServerContext*, const v1::EraseRecordRequest* request,
                                      v1::EraseRecordResponse* response) {
  const auto it = records.find(request->name());
  if (it == records.end()) return Missing(request->name());
  it->second.clear_entity();
  it->second.set_erased(true);
  *response->mutable_record() = it->second;
  return grpc::Status::OK;
}

grpc::Status FakeRecords::BatchWriteRecords(grpc::ServerContext* context,
                                            const v1::BatchWriteRecordsRequest* request,
                                            v1::BatchWriteRecordsResponse* response) {
  if (batches_until_gone >= 0 && static_cast<int>(batches.size()) >= batches_until_gone) {
    return {grpc::StatusCode::UNAVAILABLE, "Socket closed"};
  }
  actors.push_back(ActorOf(*context));
  batches.push_back(*request);
  for (const v1::RecordWrite& write : request->writes()) {
    const v1::UpdateRecordRequest& upsert = write.upsert();
    v1::RecordWriteResult& result = *response->add_results();
    result.set_name(upsert.name());
    if (absl::StrContains(upsert.entity().value(), kRefuseMe)) {
      result.set_code(grpc::StatusCode::PERMISSION_DENIED);
      result.set_message("it is another's");
      continue;
    }
    const auto it = records.find(upsert.name());
    const bool same = it != records.end() && it->second.entity().value() == upsert.entity().value();
    result.set_outcome(same                  ? v1::WRITE_OUTCOME_SAME
                       : it == records.end() ? v1::WRITE_OUTCOME_CREATED
                                             : v1::WRITE_OUTCOME_CHANGED);
    if (!request->dry_run()) records[upsert.name()] = Make(upsert.name(), upsert.entity());
  }
  return grpc::Status::OK;
}

grpc::Status FakeRecords::WatchRecords(grpc::ServerContext* context, const v1::WatchRecordsRequest*,
                                       grpc::ServerWriter<v1::WatchRecordsResponse>* writer) {
  for (const v1::WatchRecordsResponse& event : events) writer->Write(event);
  if (!interrupts) return grpc::Status::OK;
  kill(getpid(), SIGTERM);
  while (!context->IsCancelled()) std::this_thread::yield();
  return grpc::Status::CANCELLED;
}

grpc::Status FakeRecords::ResolveRecord(grpc::ServerContext*,
                                        const v1::ResolveRecordRequest* request,
                                        v1::ResolveRecordResponse* response) {
  const std::string prefix = absl::StrCat(request->noun(), "/", request->prefix());
  for (const auto& [name, record] : records) {
    if (absl::StartsWith(name, prefix)) response->add_ids(record.id());
  }
  return grpc::Status::OK;
}

grpc::Status FakeConflicts::ListConflicts(grpc::ServerContext*,
                                          const v1::ListConflictsRequest* request,
                                          v1::ListConflictsResponse* response) {
  listed = *request;
  *response->add_conflicts() = conflict;
  return grpc::Status::OK;
}

grpc::Status FakeConflicts::GetConflict(grpc::ServerContext*, const v1::GetConflictRequest*,
                                        v1::GetConflictResponse* response) {
  *response->mutable_conflict() = conflict;
  return grpc::Status::OK;
}

grpc::Status FakeConflicts::SettleConflict(grpc::ServerContext*,
                                           const v1::SettleConflictRequest* request,
                                           v1::SettleConflictResponse* response) {
  settled = *request;
  *response->mutable_conflict() = conflict;
  return grpc::Status::OK;
}

grpc::Status FakeApprovals::ListApprovals(grpc::ServerContext*,
                                          const v1::ListApprovalsRequest* request,
                                          v1::ListApprovalsResponse* response) {
  if (!failure.ok()) return failure;
  uint64_t after = 0;
  if (!request->page_token().empty() && !absl::SimpleAtoi(request->page_token(), &after)) {
    return {grpc::StatusCode::INVALID_ARGUMENT, "page token is damaged"};
  }
  for (auto it = waiting.upper_bound(after); it != waiting.end(); ++it) {
    if (response->approvals_size() == kPage) {
      response->set_next_page_token(absl::StrCat(response->approvals(kPage - 1).number()));
      break;
    }
    *response->add_approvals() = it->second;
  }
  return grpc::Status::OK;
}

grpc::Status FakeApprovals::GetApproval(grpc::ServerContext*, const v1::GetApprovalRequest* request,
                                        v1::GetApprovalResponse* response) {
  if (!failure.ok()) return failure;
  const auto it = waiting.find(request->number());
  if (it == waiting.end()) {
    return {grpc::StatusCode::NOT_FOUND,
            absl::StrCat("nothing of number ", request->number(), " waits for headquarters' word")};
  }
  *response->mutable_approval() = it->second;
  v1::PushedValue& value = *response->add_values();
  value.set_field("employer");
  value.mutable_value()->set_string_value("Globex");
  value.mutable_write()->set_actor("milan");
  value.mutable_current()->set_string_value("Initech");
  value.mutable_current_write()->set_actor("registrar");
  v1::PushedValue& fresh = *response->add_values();
  fresh.set_field("notes");
  fresh.mutable_value()->set_string_value("new there");
  fresh.mutable_current()->set_null_value(google::protobuf::NULL_VALUE);
  response->set_settlements(2);
  return grpc::Status::OK;
}

grpc::Status FakeApprovals::Approve(grpc::ServerContext* context, const v1::ApproveRequest* request,
                                    v1::ApproveResponse* response) {
  return Take(*context, request->numbers(), approved, *response->mutable_approvals());
}

grpc::Status FakeApprovals::Reject(grpc::ServerContext* context, const v1::RejectRequest* request,
                                   v1::RejectResponse* response) {
  return Take(*context, request->numbers(), rejected, *response->mutable_approvals());
}

grpc::Status FakeApprovals::Take(const grpc::ServerContext& context,
                                 const google::protobuf::RepeatedField<uint64_t>& numbers,
                                 std::vector<uint64_t>& decided,
                                 google::protobuf::RepeatedPtrField<v1::Approval>& approvals) {
  if (!failure.ok()) return failure;
  ++calls;
  for (const uint64_t number : numbers) {
    const auto it = waiting.find(number);
    if (it == waiting.end()) {
      return {grpc::StatusCode::NOT_FOUND,
              absl::StrCat("nothing of number ", number, " waits for headquarters' word")};
    }
    actors.push_back(ActorOf(context));
    decided.push_back(number);
    *approvals.Add() = it->second;
    waiting.erase(it);
  }
  return grpc::Status::OK;
}

grpc::Status FakeAdmin::GetStatus(grpc::ServerContext*, const v1::GetStatusRequest*,
                                  v1::GetStatusResponse* response) {
  *response = status;
  return grpc::Status::OK;
}

grpc::Status FakeAdmin::CreateInvitation(grpc::ServerContext*,
                                         const v1::CreateInvitationRequest* request,
                                         v1::CreateInvitationResponse* response) {
  response->set_invitation("{\"code\": \"c0de\", \"expires\": \"1796388424\"}");
  response->mutable_shown()->set_id("3f2a00112233");
  response->mutable_shown()->set_chapter(request->chapter());
  response->mutable_shown()->mutable_end()->set_seconds(1'796'388'424);
  return grpc::Status::OK;
}

grpc::Status FakeAdmin::ListInvitations(grpc::ServerContext*,
                                        const v1::ListInvitationsRequest* request,
                                        v1::ListInvitationsResponse* response) {
  for (const v1::OpenInvitation& invitation : invitations) {
    if (!request->chapter().empty() && request->chapter() != invitation.chapter()) continue;
    *response->add_invitations() = invitation;
  }
  return grpc::Status::OK;
}

grpc::Status FakeAdmin::RevokeInvitation(grpc::ServerContext* context,
                                         const v1::RevokeInvitationRequest* request,
                                         v1::RevokeInvitationResponse* response) {
  for (const v1::OpenInvitation& invitation : invitations) {
    if (invitation.id() != request->id()) continue;
    actors.push_back(ActorOf(*context));
    revoked_invitations.push_back(request->id());
    *response->mutable_invitation() = invitation;
    return grpc::Status::OK;
  }
  return {grpc::StatusCode::NOT_FOUND, "no such invitation"};
}

grpc::Status FakeAdmin::ListNodes(grpc::ServerContext*, const v1::ListNodesRequest*,
                                  v1::ListNodesResponse* response) {
  *response = nodes;
  return grpc::Status::OK;
}

grpc::Status FakeAdmin::RevokeChapter(grpc::ServerContext* context,
                                      const v1::RevokeChapterRequest* request,
                                      v1::RevokeChapterResponse*) {
  actors.push_back(ActorOf(*context));
  revoked_chapters.push_back(request->chapter());
  return grpc::Status::OK;
}

FakeDaemon::FakeDaemon() {
  grpc::ServerBuilder builder;
  builder.RegisterService(&records);
  builder.RegisterService(&conflicts);
  builder.RegisterService(&approvals);
  builder.RegisterService(&admin);
  server_ = builder.BuildAndStart();
}

FakeDaemon::~FakeDaemon() { server_->Shutdown(); }

std::shared_ptr<grpc::Channel> FakeDaemon::channel() {
  return server_->InProcessChannel(grpc::ChannelArguments());
}

}  // namespace chaptersync::ctl
