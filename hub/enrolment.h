// SPDX-License-Identifier: Apache-2.0
//
// Who belongs to the federation: invitations, each good for one node, and the
// nodes that took one. Kept as settings of the hub's replica; of codes and
// credentials only the SHA-256. All methods may be called from any thread.
#ifndef CHAPTERSYNC_HUB_ENROLMENT_H_
#define CHAPTERSYNC_HUB_ENROLMENT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

#include "chaptersync/v1/enrolment.grpc.pb.h"
#include "storage/replica/replica.h"

namespace chaptersync::hub {

// Seconds for which an invitation may hold.
inline constexpr int64_t kInvitationSecondsMin = 60;
inline constexpr int64_t kInvitationSecondsMax = 90 * 24 * 3600;
inline constexpr int64_t kInvitationSecondsDefault = 7 * 24 * 3600;
static_assert(kInvitationSecondsMin < kInvitationSecondsDefault);
static_assert(kInvitationSecondsDefault < kInvitationSecondsMax);
// A spent invitation is remembered so long, to tell who comes with it why not.
inline constexpr int64_t kInvitationKeptSeconds = 30 * 24 * 3600;
// What people call a computer, in bytes.
inline constexpr size_t kNodeNameBytesMax = 255;

// A computer of a chapter.
struct EnrolledNode {
  storage::NodeId node;
  std::string chapter;
  std::string name;
  uint64_t joined_ms = 0;  // wall clock
};

class Enrolment {
 public:
  // Both outlive it. `federation`: its name, for people.
  Enrolment(storage::Replica& replica, storage::Environment& environment, std::string federation);

  // Makes an invitation for one node of a chapter; `hub` is the address that it
  // names. NOT_FOUND where there is no such chapter, INVALID_ARGUMENT where
  // `valid_seconds` is out of range.
  absl::StatusOr<v1::Invitation> Invite(const std::string& chapter, int64_t valid_seconds,
                                        const std::string& hub);

  // Lets a node in. PERMISSION_DENIED where the code is not known, used, or past
  // its end. The node that used it may come again with it, and gets a new
  // credential, until its first session: a lost answer does no harm.
  absl::StatusOr<v1::EnrolResponse> Enrol(const v1::EnrolRequest& request);

  // PERMISSION_DENIED where the node is not enrolled, or the credential not its.
  absl::StatusOr<EnrolledNode> Authenticate(const storage::NodeId& node,
                                            const std::string& credential);

  absl::StatusOr<std::vector<EnrolledNode>> ListNodes() const;

  const std::string& federation() const { return federation_; }

 private:
  absl::Status ForgetSpent(int64_t now_seconds) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  int64_t NowSeconds() const;

  storage::Replica& replica_;
  storage::Environment& environment_;
  const std::string federation_;
  absl::Mutex mutex_;  // one change at a time
};

// Enrolment for nodes. Blocks for an fsync: gRPC's own threads serve it.
class EnrolmentServer final : public v1::EnrolmentService::Service {
 public:
  explicit EnrolmentServer(Enrolment& enrolment) : enrolment_(enrolment) {}

  grpc::Status Enrol(grpc::ServerContext* context, const v1::EnrolRequest* request,
                     v1::EnrolResponse* response) override;

 private:
  Enrolment& enrolment_;
};

}  // namespace chaptersync::hub

#endif  // CHAPTERSYNC_HUB_ENROLMENT_H_
