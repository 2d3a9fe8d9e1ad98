// SPDX-License-Identifier: Apache-2.0
//
// Calls with one message each: read it within the time, have it served on the strand, which
// waits for the disk, and answer.
#include "hub/enrolment_server.h"

#include <chrono>
#include <functional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include <grpcpp/alarm.h>
#include <grpcpp/server_context.h>
#include <spdlog/spdlog.h>

#include "node/sync/grpc_stream.h"
#include "node/sync/tls_credentials.h"

namespace chaptersync::hub {
namespace {

// HAZARD: gRPC calls OnDone only after Finish, which every end of the read leads to. The task on
// the strand holds this one as well. The alarm, which is a part of it and keeps its function to its
// own end, may not: neither would ever go.
template <typename Request, typename Response>
class OneRequest final : public grpc::ServerReadReactor<Request>,
                         public std::enable_shared_from_this<OneRequest<Request, Response>> {
 public:
  using Serve = std::function<absl::Status(const Request&, Response&)>;

  OneRequest(grpc::CallbackServerContext* context, Response* response,
             std::shared_ptr<node::Strand> strand, Serve serve)
      : context_(context),
        response_(response),
        strand_(std::move(strand)),
        serve_(std::move(serve)) {}

  // Once; from here on it keeps itself.
  grpc::ServerReadReactor<Request>* Begin(int64_t call_ms_max) {
    const auto self = this->shared_from_this();
    {
      absl::MutexLock lock(&mutex_);
      self_ = self;
    }
    alarm_.Set(std::chrono::system_clock::now() + std::chrono::milliseconds(call_ms_max),
               [weak = std::weak_ptr<OneRequest>(self)](bool expired) {
                 const auto held = expired ? weak.lock() : nullptr;
                 if (held != nullptr) held->GiveUp();
               });
    this->StartRead(&request_);
    return this;
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      return this->Finish(node::ToGrpc(absl::InvalidArgumentError("no request came")));
    }
    if (const size_t bytes = request_.ByteSizeLong(); bytes > kEnrolmentBytesMax) {
      return this->Finish(node::ToGrpc(absl::ResourceExhaustedError(absl::StrCat(
          "a request of ", bytes, " bytes is over the limit of ", kEnrolmentBytesMax))));
    }
    strand_->Post([self = this->shared_from_this()] {
      self->Finish(node::ToGrpc(self->serve_(self->request_, *self->response_)));
    });
  }

  void OnDone() override {
    std::shared_ptr<OneRequest> self;
    {
      absl::MutexLock lock(&mutex_);
      self = std::exchange(self_, nullptr);
    }
    alarm_.Cancel();
  }

 private:
  void GiveUp() {
    absl::MutexLock lock(&mutex_);
    if (self_ != nullptr) context_->TryCancel();
  }

  grpc::CallbackServerContext* const context_;  // until OnDone
  Response* const response_;                    // the same
  const std::shared_ptr<node::Strand> strand_;
  const Serve serve_;
  Request request_;
  grpc::Alarm alarm_;
  absl::Mutex mutex_;
  std::shared_ptr<OneRequest> self_ ABSL_GUARDED_BY(mutex_);  // while the call lasts
};

}  // namespace

void EnrolmentServer::NoteRefused(const char* what, const grpc::CallbackServerContext& context,
                                  const absl::Status& status) {
  if (!refusals_.Say(GuesserOf(context.peer()))) return;
  spdlog::info("{} from {} refused: {}", what, context.peer(), status.ToString());
}

grpc::ServerReadReactor<v1::EnrolRequest>* EnrolmentServer::Enrol(
    grpc::CallbackServerContext* context, v1::EnrolResponse* response) {
  const auto serve = [this, context](const v1::EnrolRequest& request, v1::EnrolResponse& out) {
    auto answer = enrolment_.Enrol(request, GuesserOf(context->peer()));
    if (!answer.ok()) {
      NoteRefused("enrolment", *context, answer.status());
      return answer.status();
    }
    spdlog::info("node {} joined chapter {}", absl::BytesToHexString(request.node()),
                 answer->chapter());
    out = *std::move(answer);
    return absl::OkStatus();
  };
  using Call = OneRequest<v1::EnrolRequest, v1::EnrolResponse>;
  return std::make_shared<Call>(context, response, strand_, serve)->Begin(call_ms_max_);
}

grpc::ServerReadReactor<v1::RenewRequest>* EnrolmentServer::Renew(
    grpc::CallbackServerContext* context, v1::RenewResponse* response) {
  const auto serve = [this, context](const v1::RenewRequest& request, v1::RenewResponse& out) {
    const auto shown = node::CertifiedPeer(*context->auth_context());
    auto answer = shown.ok() ? enrolment_.Renew(*shown, request)
                             : absl::StatusOr<v1::RenewResponse>(shown.status());
    if (!answer.ok()) {
      NoteRefused("renewal", *context, answer.status());
      return answer.status();
    }
    spdlog::info("node {} of chapter {} has a new certificate", shown->name.node.ToString(),
                 shown->name.chapter);
    out = *std::move(answer);
    return absl::OkStatus();
  };
  using Call = OneRequest<v1::RenewRequest, v1::RenewResponse>;
  return std::make_shared<Call>(context, response, strand_, serve)->Begin(call_ms_max_);
}

}  // namespace chaptersync::hub
