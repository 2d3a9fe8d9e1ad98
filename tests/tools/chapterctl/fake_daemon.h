// SPDX-License-Identifier: Apache-2.0
//
// A daemon's records, conflicts, approvals and roster in memory, served within the test:
// enough behaviour to drive commands, and whatever failure a test asks for. Call
// its methods from one thread while no command runs.
#ifndef CHAPTERSYNC_TESTS_TOOLS_CHAPTERCTL_FAKE_DAEMON_H_
#define CHAPTERSYNC_TESTS_TOOLS_CHAPTERCTL_FAKE_DAEMON_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <grpcpp/channel.h>
#include <grpcpp/server.h>
#include <grpcpp/support/sync_stream.h>

#include "chaptersync/v1/admin_service.grpc.pb.h"
#include "chaptersync/v1/approvals_service.grpc.pb.h"
#include "chaptersync/v1/conflicts_service.grpc.pb.h"
#include "chaptersync/v1/records_service.grpc.pb.h"

namespace chaptersync::ctl {

class FakeRecords final : public v1::RecordsService::Service {
 public:
  // Batches that are answered before the daemon is gone; -1: all.
  int batches_until_gone = -1;
  std::vector<v1::BatchWriteRecordsRequest> batches;
  std::vector<v1::RecordWrite> writes;           // all others
  std::map<std::string, v1::Record> records;     // by resource name
  std::vector<std::string> actors;               // of writes
  std::vector<v1::WatchRecordsResponse> events;  // of a watch, which then ends
  bool interrupts = false;  // a watch sends SIGTERM to this process instead of ending

  grpc::Status GetRecord(grpc::ServerContext*, const v1::GetRecordRequest*,
                         v1::GetRecordResponse*) override;
  grpc::Status ListRecords(grpc::ServerContext*, const v1::ListRecordsRequest*,
                           v1::ListRecordsResponse*) override;
  grpc::Status CreateRecord(grpc::ServerContext*, const v1::CreateRecordRequest*,
                            v1::CreateRecordResponse*) override;
  grpc::Status UpdateRecord(grpc::ServerContext*, const v1::UpdateRecordRequest*,
                            v1::UpdateRecordResponse*) override;
  grpc::Status EraseRecord(grpc::ServerContext*, const v1::EraseRecordRequest*,
                           v1::EraseRecordResponse*) override;
  grpc::Status BatchWriteRecords(grpc::ServerContext*, const v1::BatchWriteRecordsRequest*,
                                 v1::BatchWriteRecordsResponse*) override;
  grpc::Status WatchRecords(grpc::ServerContext*, const v1::WatchRecordsRequest*,
                            grpc::ServerWriter<v1::WatchRecordsResponse>*) override;
  grpc::Status ResolveRecord(grpc::ServerContext*, const v1::ResolveRecordRequest*,
                             v1::ResolveRecordResponse*) override;
};

class FakeConflicts final : public v1::ConflictsService::Service {
 public:
  v1::Conflict conflict;
  v1::SettleConflictRequest settled;
  v1::ListConflictsRequest listed;

  grpc::Status ListConflicts(grpc::ServerContext*, const v1::ListConflictsRequest*,
                             v1::ListConflictsResponse*) override;
  grpc::Status GetConflict(grpc::ServerContext*, const v1::GetConflictRequest*,
                           v1::GetConflictResponse*) override;
  grpc::Status SettleConflict(grpc::ServerContext*, const v1::SettleConflictRequest*,
                              v1::SettleConflictResponse*) override;
};

class FakeApprovals final : public v1::ApprovalsService::Service {
 public:
  std::map<uint64_t, v1::Approval> waiting;  // by number
  std::vector<uint64_t> approved;
  std::vector<uint64_t> rejected;
  std::vector<std::string> actors;  // of decisions
  size_t calls = 0;                 // that decide
  grpc::Status failure;             // of every call

  grpc::Status ListApprovals(grpc::ServerContext*, const v1::ListApprovalsRequest*,
                             v1::ListApprovalsResponse*) override;
  // With two values, of which one is new.
  grpc::Status GetApproval(grpc::ServerContext*, const v1::GetApprovalRequest*,
                           v1::GetApprovalResponse*) override;
  grpc::Status Approve(grpc::ServerContext*, const v1::ApproveRequest*,
                       v1::ApproveResponse*) override;
  grpc::Status Reject(grpc::ServerContext*, const v1::RejectRequest*, v1::RejectResponse*) override;

 private:
  grpc::Status Take(const grpc::ServerContext& context,
                    const google::protobuf::RepeatedField<uint64_t>& numbers,
                    std::vector<uint64_t>& decided,
                    google::protobuf::RepeatedPtrField<v1::Approval>& approvals);
};

class FakeAdmin final : public v1::AdminService::Service {
 public:
  v1::GetStatusResponse status;
  v1::ListNodesResponse nodes;
  std::vector<v1::OpenInvitation> invitations;
  std::vector<std::string> revoked_chapters;
  std::vector<std::string> revoked_invitations;
  std::vector<std::string> actors;  // of what was revoked

  grpc::Status GetStatus(grpc::ServerContext*, const v1::GetStatusRequest*,
                         v1::GetStatusResponse*) override;
  grpc::Status CreateInvitation(grpc::ServerContext*, const v1::CreateInvitationRequest*,
                                v1::CreateInvitationResponse*) override;
  grpc::Status ListInvitations(grpc::ServerContext*, const v1::ListInvitationsRequest*,
                               v1::ListInvitationsResponse*) override;
  grpc::Status RevokeInvitation(grpc::ServerContext*, const v1::RevokeInvitationRequest*,
                                v1::RevokeInvitationResponse*) override;
  grpc::Status ListNodes(grpc::ServerContext*, const v1::ListNodesRequest*,
                         v1::ListNodesResponse*) override;
  grpc::Status RevokeChapter(grpc::ServerContext*, const v1::RevokeChapterRequest*,
                             v1::RevokeChapterResponse*) override;
};

class FakeDaemon {
 public:
  FakeDaemon();
  ~FakeDaemon();

  FakeRecords records;
  FakeConflicts conflicts;
  FakeApprovals approvals;
  FakeAdmin admin;
  std::shared_ptr<grpc::Channel> channel();

 private:
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace chaptersync::ctl

#endif  // CHAPTERSYNC_TESTS_TOOLS_CHAPTERCTL_FAKE_DAEMON_H_
