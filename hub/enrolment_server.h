// SPDX-License-Identifier: Apache-2.0
//
// Enrolment for nodes over gRPC. Whoever calls has so long for its one message, and no more:
// a stranger needs no certificate here, and must not be able to keep a connection. gRPC calls
// on its own threads; what waits for the disk is done on one of this server's.
#ifndef CHAPTERSYNC_HUB_ENROLMENT_SERVER_H_
#define CHAPTERSYNC_HUB_ENROLMENT_SERVER_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "chaptersync/v1/enrolment.grpc.pb.h"
#include "hub/enrolment.h"
#include "hub/refusal_log.h"
#include "node/session/limits.h"
#include "node/sync/limits.h"
#include "node/sync/strand.h"
#include "node/sync/worker_pool.h"

namespace chaptersync::hub {

// A request, in bytes: a chain of certificates and some text.
inline constexpr size_t kEnrolmentBytesMax = 64 << 10;
static_assert(kEnrolmentBytesMax < node::kMessageBytesMax);

class EnrolmentServer final : public v1::EnrolmentService::CallbackService {
 public:
  // `enrolment` outlives it. `call_ms_max`: from the beginning of a call to its end.
  explicit EnrolmentServer(Enrolment& enrolment, int64_t call_ms_max = node::kHandshakeMsMax)
      : enrolment_(enrolment), call_ms_max_(call_ms_max) {}

  grpc::ServerReadReactor<v1::EnrolRequest>* Enrol(grpc::CallbackServerContext* context,
                                                   v1::EnrolResponse* response) override;
  grpc::ServerReadReactor<v1::RenewRequest>* Renew(grpc::CallbackServerContext* context,
                                                   v1::RenewResponse* response) override;

 private:
  // Logs a refusal, not too many of one address.
  void NoteRefused(const char* what, const grpc::CallbackServerContext& context,
                   const absl::Status& status);

  Enrolment& enrolment_;
  const int64_t call_ms_max_;
  RefusalLog refusals_;
  node::WorkerPool pool_{1};
  const std::shared_ptr<node::Strand> strand_ = std::make_shared<node::Strand>(pool_);
};

}  // namespace chaptersync::hub

#endif  // CHAPTERSYNC_HUB_ENROLMENT_SERVER_H_
