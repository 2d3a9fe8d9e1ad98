// SPDX-License-Identifier: Apache-2.0
//
// What both ends of a gRPC stream share: a queue of messages of which one is
// being written, one message being read. gRPC calls the reactions on its own
// threads, the session host the rest on its strand; nothing here waits.
#ifndef CHAPTERSYNC_NODE_SYNC_GRPC_STREAM_H_
#define CHAPTERSYNC_NODE_SYNC_GRPC_STREAM_H_

#include <cstddef>
#include <deque>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include <grpcpp/support/status.h>

#include "node/sync/session_host.h"

namespace chaptersync::node {

// Headers carry a status's message; a longer one is cut. In bytes.
inline constexpr size_t kStatusTextMax = 1024;

inline grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return grpc::Status(
      static_cast<grpc::StatusCode>(status.code()),
      std::string(status.message().data(), status.message().size()).substr(0, kStatusTextMax));
}

inline absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

// `Reactor` is gRPC's, with StartRead(In*) and StartWrite(const Out*).
template <typename Reactor, typename Out, typename In>
class GrpcStream : public Reactor,
                   public Transport,
                   public std::enable_shared_from_this<GrpcStream<Reactor, Out, In>> {
 public:
  explicit GrpcStream(std::shared_ptr<SessionHost> host) : host_(std::move(host)) {}

  // Keeps itself alive until gRPC is done with it.
  void KeepAlive() { self_ = this->shared_from_this(); }

  void Read() override {
    absl::MutexLock lock(&mutex_);
    if (!released_) this->StartRead(&incoming_);
  }

  void Send(v1::SyncMessage message) override {
    absl::MutexLock lock(&mutex_);
    if (released_ || closing_) return;
    Out out;
    out.mutable_message()->Swap(&message);
    const size_t bytes = out.ByteSizeLong();
    backlog_bytes_ += bytes;
    queue_.push_back({std::move(out), bytes});
    WriteNext();
  }

  size_t backlog_bytes() const override {
    absl::MutexLock lock(&mutex_);
    return backlog_bytes_;
  }

  void OnReadDone(bool ok) override {
    if (ok) {
      v1::SyncMessage message;
      incoming_.mutable_message()->Swap(&message);
      incoming_.Clear();
      host_->MessageArrived(std::move(message));
    } else {
      StreamEnds();
    }
  }

  void OnWriteDone(bool ok) override {
    bool drained = false;
    {
      absl::MutexLock lock(&mutex_);
      const bool above = backlog_bytes_ > host_->backlog_bytes_max();
      writing_ = false;
      backlog_bytes_ -= queue_.front().bytes;
      queue_.pop_front();
      if (!ok || closing_) {
        queue_.clear();
        backlog_bytes_ = 0;
      }
      drained = above && backlog_bytes_ <= host_->backlog_bytes_max();
      WriteNext();
      WriteEnded();
    }
    if (!ok) return StreamEnds();
    if (drained) host_->Drained();
  }

 protected:
  // No further message will come or go.
  virtual void StreamEnds() = 0;
  // A write has ended, and no other began.
  virtual void WriteEnded() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {}

  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (writing_ || released_ || queue_.empty()) return;
    writing_ = true;
    this->StartWrite(&queue_.front().message);
  }

  // What gRPC does not hold any more.
  void DropQueue() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    while (queue_.size() > (writing_ ? 1u : 0u)) {
      backlog_bytes_ -= queue_.back().bytes;
      queue_.pop_back();
    }
  }

  // The last thing that gRPC says. `this` may be gone after it.
  // HAZARD: with the stream its channel goes, and where that is the process's last,
  // gRPC 1.51 joins its callback threads, which one of them cannot do to itself.
  // So the stream ends on the host's strand, never in a reaction.
  void Done(absl::Status status) {
    const std::shared_ptr<SessionHost> host = host_;
    host->StreamClosed(std::move(status), std::move(self_));
  }

  struct Queued {
    Out message;
    size_t bytes = 0;
  };

  const std::shared_ptr<SessionHost> host_;
  mutable absl::Mutex mutex_;
  std::deque<Queued> queue_ ABSL_GUARDED_BY(mutex_);  // the first is being written
  size_t backlog_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  bool released_ ABSL_GUARDED_BY(mutex_) = false;  // nothing may be started any more

 private:
  In incoming_;
  std::shared_ptr<GrpcStream> self_;
};

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_SYNC_GRPC_STREAM_H_
