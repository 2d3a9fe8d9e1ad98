// SPDX-License-Identifier: Apache-2.0
//
// The standard methods for the records of all entities, as records_service.proto
// promises them. Unary methods run on gRPC's threads and may wait for the disk;
// watches wait on none. Any thread.
#ifndef CHAPTERSYNC_NODE_API_RECORDS_SERVICE_H_
#define CHAPTERSYNC_NODE_API_RECORDS_SERVICE_H_

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include <grpcpp/server_context.h>
#include <grpcpp/support/status.h>

#include "chaptersync/v1/records_service.grpc.pb.h"
#include "node/api/context.h"
#include "node/api/watch_hub.h"

namespace chaptersync::node {

class RecordsService final
    : public v1::RecordsService::WithCallbackMethod_WatchRecords<v1::RecordsService::Service> {
 public:
  explicit RecordsService(const ApiContext& api) : api_(api), watches_(api) {}

  // Ends all watches, so that a server that shuts down need not wait for them.
  void StopWatches() { watches_.Stop(); }

  grpc::Status GetRecord(grpc::ServerContext* context, const v1::GetRecordRequest* request,
                         v1::GetRecordResponse* response) override;
  grpc::Status ListRecords(grpc::ServerContext* context, const v1::ListRecordsRequest* request,
                           v1::ListRecordsResponse* response) override;
  grpc::Status CreateRecord(grpc::ServerContext* context, const v1::CreateRecordRequest* request,
                            v1::CreateRecordResponse* response) override;
  grpc::Status UpdateRecord(grpc::ServerContext* context, const v1::UpdateRecordRequest* request,
                            v1::UpdateRecordResponse* response) override;
  grpc::Status DeleteRecord(grpc::ServerContext* context, const v1::DeleteRecordRequest* request,
                            v1::DeleteRecordResponse* response) override;
  grpc::Status UndeleteRecord(grpc::ServerContext* context,
                              const v1::UndeleteRecordRequest* request,
                              v1::UndeleteRecordResponse* response) override;
  grpc::Status EraseRecord(grpc::ServerContext* context, const v1::EraseRecordRequest* request,
                           v1::EraseRecordResponse* response) override;
  grpc::Status BatchWriteRecords(grpc::ServerContext* context,
                                 const v1::BatchWriteRecordsRequest* request,
                                 v1::BatchWriteRecordsResponse* response) override;
  grpc::ServerWriteReactor<v1::WatchRecordsResponse>* WatchRecords(
      grpc::CallbackServerContext* context, const v1::WatchRecordsRequest* request) override;
  grpc::Status ExplainRecord(grpc::ServerContext* context, const v1::ExplainRecordRequest* request,
                             v1::ExplainRecordResponse* response) override;
  grpc::Status ResolveRecord(grpc::ServerContext* context, const v1::ResolveRecordRequest* request,
                             v1::ResolveRecordResponse* response) override;

 private:
  class Batch;
  struct Outcome {
    absl::Status status;
    std::optional<NamedRecord> record;  // where it is known
    bool created = false;
    bool changed = false;
  };

  absl::Status List(const v1::ListRecordsRequest& request, v1::ListRecordsResponse& response) const;
  absl::Status Explain(const v1::ExplainRecordRequest& request,
                       v1::ExplainRecordResponse& response) const;
  absl::Status Resolve(const v1::ResolveRecordRequest& request,
                       v1::ResolveRecordResponse& response) const;
  // Does the writes as one batch. The outer status is the engine's.
  absl::StatusOr<std::vector<Outcome>> Write(const std::vector<v1::RecordWrite>& writes,
                                             const std::string& actor, bool dry_run);
  // One write, and the record after it.
  absl::StatusOr<v1::Record> WriteOne(const grpc::ServerContext& context, v1::RecordWrite write);
  absl::StatusOr<v1::Record> Erase(const grpc::ServerContext& context, const std::string& name);

  const ApiContext api_;
  WatchHub watches_;
  // Held for writing where a write is made from what the record holds, so that
  // two of these do not undo each other; for reading by all other writes.
  absl::Mutex write_mutex_;
};

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_API_RECORDS_SERVICE_H_
