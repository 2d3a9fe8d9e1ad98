// SPDX-License-Identifier: Apache-2.0
//
// The AdminService of a replica: who it is, what it holds, and at a hub, who has
// joined. Served to tools on the same machine; gRPC's own threads call it.
#ifndef CHAPTERSYNC_NODE_DAEMON_ADMIN_SERVICE_H_
#define CHAPTERSYNC_NODE_DAEMON_ADMIN_SERVICE_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "chaptersync/v1/admin_service.grpc.pb.h"
#include "node/api/context.h"
#include "node/sync/peers.h"
#include "storage/replica/replica.h"

namespace chaptersync::node {

// Who has joined, and how to let more in. A hub's.
class Roster {
 public:
  struct Node {
    storage::NodeId node;
    std::string chapter;
    std::string name;
    int64_t certificate_end = 0;  // seconds since 1970
    int64_t revoked = 0;          // seconds since 1970; 0: it is not
  };
  struct Invitation {
    std::string id;  // 12 hexadecimal digits
    std::string chapter;
    int64_t made = 0;     // seconds since 1970; 0: not known
    std::string made_by;  // empty: not known
    int64_t end = 0;      // seconds since 1970
  };
  struct NewInvitation {
    std::string text;  // as JSON; a secret
    Invitation shown;
  };
  struct RevokedChapter {
    std::vector<storage::NodeId> nodes;  // that were not revoked before
    size_t invitations = 0;              // that were open
  };
  virtual ~Roster() = default;
  // `actor`, here and below: who wants it, for the record and the log. NOT_FOUND where there is no
  // such chapter.
  virtual absl::StatusOr<NewInvitation> Invite(const std::string& chapter,
                                               std::optional<int64_t> valid_seconds,
                                               const std::string& actor) = 0;
  // Those that can still be used; the one that ends first comes first.
  virtual absl::StatusOr<std::vector<Invitation>> ListInvitations() = 0;
  // Makes one of them void. NOT_FOUND where no open one has this id, or a beginning of it;
  // INVALID_ARGUMENT where several have.
  virtual absl::StatusOr<Invitation> RevokeInvitation(const std::string& id,
                                                      const std::string& actor) = 0;
  virtual absl::StatusOr<std::vector<Node>> ListNodes() = 0;
  // Keeps a node out from now on, ends what it has open, and its chapter's open invitations; how
  // many these were. NOT_FOUND where there is no such node.
  virtual absl::StatusOr<size_t> RevokeNode(const storage::NodeId& node,
                                            const std::string& actor) = 0;
  // The same for all nodes and invitations of a chapter. NOT_FOUND where there is none.
  virtual absl::StatusOr<RevokedChapter> RevokeChapter(const std::string& chapter,
                                                       const std::string& actor) = 0;
  // Headquarters has decided about what a node pushed: ends what it has open, so that it begins
  // anew and hears so. Of a node that has nothing open, nothing.
  virtual void RestartSessions(const storage::NodeId& node) = 0;
};

// What a node knows of its own certificate.
using CertificateEnd = std::function<absl::StatusOr<int64_t>()>;  // seconds since 1970

class AdminServiceServer final : public v1::AdminService::Service {
 public:
  // All outlive it; `roster` is null at a node, `certificate_end` at a hub.
  AdminServiceServer(const ApiContext& api, Peers& peers, Roster* roster, std::string federation,
                     CertificateEnd certificate_end)
      : api_(api),
        replica_(api.replica),
        peers_(peers),
        roster_(roster),
        federation_(std::move(federation)),
        certificate_end_(std::move(certificate_end)) {}

  grpc::Status GetStatus(grpc::ServerContext* context, const v1::GetStatusRequest* request,
                         v1::GetStatusResponse* response) override;
  grpc::Status CreateInvitation(grpc::ServerContext* context,
                                const v1::CreateInvitationRequest* request,
                                v1::CreateInvitationResponse* response) override;
  grpc::Status ListInvitations(grpc::ServerContext* context,
                               const v1::ListInvitationsRequest* request,
                               v1::ListInvitationsResponse* response) override;
  grpc::Status RevokeInvitation(grpc::ServerContext* context,
                                const v1::RevokeInvitationRequest* request,
                                v1::RevokeInvitationResponse* response) override;
  grpc::Status ListNodes(grpc::ServerContext* context, const v1::ListNodesRequest* request,
                         v1::ListNodesResponse* response) override;
  grpc::Status RevokeNode(grpc::ServerContext* context, const v1::RevokeNodeRequest* request,
                          v1::RevokeNodeResponse* response) override;
  grpc::Status RevokeChapter(grpc::ServerContext* context, const v1::RevokeChapterRequest* request,
                             v1::RevokeChapterResponse* response) override;

 private:
  // The certificate's end, and what to do about it and about peers that keep this computer out.
  void Advise(const std::vector<PeerState>& peers, v1::GetStatusResponse& response) const;

  const ApiContext api_;
  storage::Replica& replica_;
  Peers& peers_;
  Roster* const roster_;
  const std::string federation_;
  const CertificateEnd certificate_end_;
};

// The program's version.
std::string ProgramVersion();

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_DAEMON_ADMIN_SERVICE_H_
