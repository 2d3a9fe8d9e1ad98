// SPDX-License-Identifier: Apache-2.0
//
// The initiator's end of a stream, and channels with our settings: a new one for
// each try.
#include "node/sync/grpc_connector.h"

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/support/channel_arguments.h>

#include "chaptersync/v1/enrolment.grpc.pb.h"
#include "chaptersync/v1/sync.grpc.pb.h"
#include "node/sync/grpc_stream.h"
#include "node/sync/limits.h"
#include "node/sync/one_request.h"
#include "storage/core/status.h"

namespace chaptersync::node {
namespace {

// Until a connection must stand, in milliseconds.
constexpr int64_t kConnectMsMax = 10'000;
// Between two looks at whether it is still wanted, in milliseconds.
constexpr int64_t kCancelledEveryMs = 200;

// HAZARD: gRPC calls OnDone only after the hold is removed, so every way in which
// a stream ends leads to Release.
class ClientStream final
    : public GrpcStream<grpc::ClientBidiReactor<v1::SessionRequest, v1::SessionResponse>,
                        v1::SessionRequest, v1::SessionResponse> {
 public:
  ClientStream(std::shared_ptr<SessionHost> host, std::shared_ptr<grpc::Channel> channel)
      : GrpcStream(std::move(host)),
        channel_(std::move(channel)),
        stub_(v1::ReplicationService::NewStub(channel_)) {}

  void Begin() {
    KeepAlive();
    stub_->async()->Session(&context_, this);
    AddHold();
    StartCall();
  }

  void Close(const absl::Status&) override {
    const auto self = shared_from_this();  // may be the last one, once released
    absl::MutexLock lock(&mutex_);
    if (closing_) return;
    closing_ = true;
    DropQueue();
    context_.TryCancel();
    Release();
  }

  void OnDone(const grpc::Status& status) override { Done(FromGrpc(status)); }

 private:
  void StreamEnds() override {
    absl::MutexLock lock(&mutex_);
    Release();
  }

  void Release() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (std::exchange(released_, true)) return;
    RemoveHold();
  }

  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::ReplicationService::Stub> stub_;
  grpc::ClientContext context_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::Channel>> ConnectChannel(
    const Address& address, size_t attempt,
    const std::shared_ptr<grpc::ChannelCredentials>& credentials, const TlsVerdict& verdict,
    const std::function<bool()>& cancelled) {
  CHAPTER_ASSIGN_OR_RETURN(const auto resolved, Resolve(address));
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(static_cast<int>(kMessageBytesMax) + kEnvelopeBytesMax);
  arguments.SetMaxSendMessageSize(static_cast<int>(kMessageBytesMax) + kEnvelopeBytesMax);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveTimeMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  // Every try is one of its own: the back-off between tries is ours, not gRPC's.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  // What is inflated counts to no limit until it is there.
  arguments.SetInt(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0);
  const ResolvedAddress& to = resolved[attempt % resolved.size()];
  auto channel = grpc::CreateCustomChannel(to.Target(), credentials, arguments);
  const int64_t began_ms = SteadyMs();
  grpc_connectivity_state state = channel->GetState(/*try_to_connect=*/true);
  while (state != GRPC_CHANNEL_READY) {
    if (cancelled()) return absl::UnavailableError("not wanted any more");
    CHAPTER_RETURN_IF_ERROR(verdict.status());
    if (state == GRPC_CHANNEL_TRANSIENT_FAILURE || state == GRPC_CHANNEL_SHUTDOWN ||
        SteadyMs() - began_ms > kConnectMsMax) {
      CHAPTER_RETURN_IF_ERROR(verdict.status());
      return absl::UnavailableError(
          CheckConnect(to).ok()
              ? absl::StrCat("no secure connection came about with ", to.ToString(),
                             ": it is no hub, or is busy, or does not take this computer's "
                             "certificate")
              : absl::StrCat("nobody answers at ", to.ToString()));
    }
    channel->WaitForStateChange(
        state, std::chrono::system_clock::now() + std::chrono::milliseconds(kCancelledEveryMs));
    state = channel->GetState(true);
  }
  return channel;
}

absl::StatusOr<std::shared_ptr<Transport>> GrpcConnector::Connect(
    const std::shared_ptr<SessionHost>& host, const std::function<bool()>& cancelled) {
  size_t attempt = 0;
  {
    absl::MutexLock lock(&mutex_);
    attempt = attempts_++;
  }
  const auto verdict = std::make_shared<TlsVerdict>();
  CHAPTER_ASSIGN_OR_RETURN(const auto credentials, credentials_(verdict));
  CHAPTER_ASSIGN_OR_RETURN(auto channel,
                           ConnectChannel(address_, attempt, credentials, *verdict, cancelled));
  {
    absl::MutexLock lock(&mutex_);
    channel_ = channel;
  }
  auto stream = std::make_shared<ClientStream>(host, std::move(channel));
  stream->Begin();
  return stream;
}

absl::StatusOr<std::string> GrpcConnector::Renew(const Renewal& renewal,
                                                 absl::Duration timeout) const {
  std::shared_ptr<grpc::Channel> channel;
  {
    absl::MutexLock lock(&mutex_);
    channel = channel_.lock();
  }
  if (channel == nullptr) return absl::UnavailableError("there is no connection with the hub");
  v1::RenewRequest request;
  request.set_request(renewal.request);
  request.set_chain(renewal.chain);
  request.set_signature(renewal.signature);
  v1::RenewResponse response;
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  const auto stub = v1::EnrolmentService::NewStub(channel);
  CHAPTER_RETURN_IF_ERROR(FromGrpc(SendOneRequest(stub->Renew(&context, &response), request)));
  return response.chain();
}

}  // namespace chaptersync::node
