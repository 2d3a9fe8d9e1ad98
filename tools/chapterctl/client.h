// SPDX-License-Identifier: Apache-2.0
//
// The local API of the daemon that serves a data folder: finds its Unix socket,
// makes calls in an actor's name, reads pages, and turns what goes wrong into a
// status whose message says so. One thread; calls wait for their answers.
#ifndef CHAPTERSYNC_TOOLS_CHAPTERCTL_CLIENT_H_
#define CHAPTERSYNC_TOOLS_CHAPTERCTL_CLIENT_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>

#include "chaptersync/v1/admin_service.grpc.pb.h"
#include "chaptersync/v1/approvals_service.grpc.pb.h"
#include "chaptersync/v1/conflicts_service.grpc.pb.h"
#include "chaptersync/v1/records_service.grpc.pb.h"
#include "chaptersync/v1/refused_service.grpc.pb.h"
#include "chaptersync/v1/sync_service.grpc.pb.h"
#include "node/entity/registry.h"
#include "storage/core/types.h"

namespace chaptersync::ctl {

// A call that takes longer than this has failed: the daemon is on this machine.
inline constexpr absl::Duration kCallTimeout = absl::Minutes(2);
// Records, conflicts, refused writes or approvals asked for at a time.
inline constexpr int kPageSize = 500;

class Client {
 public:
  // UNAVAILABLE where no daemon serves the folder.
  static absl::StatusOr<std::unique_ptr<Client>> Connect(const std::string& data,
                                                         const std::string& actor);
  // `served`: the folder, for messages.
  Client(std::shared_ptr<grpc::Channel> channel, std::string served, std::string actor);

  // Makes one call: Call(client.records(), &v1::RecordsService::Stub::GetRecord, request).
  template <typename Stub, typename Request, typename Response>
  absl::StatusOr<Response> Call(Stub& stub,
                                grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                             Response*),
                                const Request& request, absl::Duration timeout = kCallTimeout) {
    grpc::ClientContext context;
    Prepare(context);
    context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
    Response response;
    const grpc::Status status = (stub.*method)(&context, request, &response);
    if (!status.ok()) return Failed(status);
    return response;
  }

  // Calls again with the page token of the answer until there is no more, or
  // `page` returns false.
  template <typename Stub, typename Request, typename Response>
  absl::Status Pages(Stub& stub,
                     grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                     Request request, const std::function<absl::StatusOr<bool>(Response&)>& page) {
    for (;;) {
      auto response = Call(stub, method, request);
      if (!response.ok()) return response.status();
      const auto more = page(*response);
      if (!more.ok()) return more.status();
      if (!*more || response->next_page_token().empty()) return absl::OkStatus();
      request.set_page_token(response->next_page_token());
    }
  }

  // Names the actor in a call of the caller's own.
  void Prepare(grpc::ClientContext& context) const;
  absl::Status Failed(const grpc::Status& status) const;

  // The id of the record that `text` names: a UUID, the beginning of one, or the
  // value of the entity's name field. NOT_FOUND; INVALID_ARGUMENT, with the first
  // candidates, where the beginning fits several.
  absl::StatusOr<std::string> ResolveId(const node::EntityType& type, const std::string& text);
  // The same as a resource name.
  absl::StatusOr<std::string> ResolveName(const node::EntityType& type, const std::string& text);

  v1::RecordsService::Stub& records() { return *records_; }
  v1::ConflictsService::Stub& conflicts() { return *conflicts_; }
  v1::RefusedService::Stub& refused() { return *refused_; }
  v1::ApprovalsService::Stub& approvals() { return *approvals_; }
  v1::SyncService::Stub& sync() { return *sync_; }
  v1::AdminService::Stub& admin() { return *admin_; }

 private:
  const std::string served_;
  const std::string actor_;
  const std::unique_ptr<v1::RecordsService::Stub> records_;
  const std::unique_ptr<v1::ConflictsService::Stub> conflicts_;
  const std::unique_ptr<v1::RefusedService::Stub> refused_;
  const std::unique_ptr<v1::ApprovalsService::Stub> approvals_;
  const std::unique_ptr<v1::SyncService::Stub> sync_;
  const std::unique_ptr<v1::AdminService::Stub> admin_;
};

// The name of the user who runs this program.
std::string OsUser();

}  // namespace chaptersync::ctl

#endif  // CHAPTERSYNC_TOOLS_CHAPTERCTL_CLIENT_H_
