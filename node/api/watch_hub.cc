// SPDX-License-Identifier: Apache-2.0
//
// Streams are state machines: gRPC's callbacks and the replica's commits only
// note what happened; the hub's thread alone starts operations, and never while
// it holds the lock, because a callback may come on the same stack.
#include "node/api/watch_hub.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "node/api/limits.h"
#include "node/api/status.h"

namespace chaptersync::node {

class WatchHub::Stream final : public Reactor {
 public:
  Stream(WatchHub& hub, uint64_t number, std::optional<storage::EntityNumber> entity)
      : hub_(hub), number_(number), entity_(entity) {}

  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&hub_.mutex_);
    writing_ = false;
    if (!ok) cancelled_ = true;
    hub_.Wake(Self());
  }
  void OnCancel() override {
    absl::MutexLock lock(&hub_.mutex_);
    cancelled_ = true;
    hub_.Wake(Self());
  }
  void OnDone() override {
    std::shared_ptr<Stream> self;  // Goes after the lock.
    absl::MutexLock lock(&hub_.mutex_);
    const auto it = hub_.streams_.find(number_);
    self = std::move(it->second);
    hub_.streams_.erase(it);
  }

 private:
  friend class WatchHub;

  std::shared_ptr<Stream> Self() ABSL_EXCLUSIVE_LOCKS_REQUIRED(hub_.mutex_) {
    return hub_.streams_.at(number_);
  }

  WatchHub& hub_;
  const uint64_t number_;
  const std::optional<storage::EntityNumber> entity_;
  v1::WatchRecordsResponse response_;  // of the write under way

  // Guarded by the hub's lock.
  std::deque<storage::ChangeEvent> queue_;  // at most kWatchQueueMax
  absl::Status end_;                        // how to end it; OK: not yet
  bool greeted_ = false;
  bool writing_ = false;
  bool cancelled_ = false;
  bool ending_ = false;
  bool waiting_ = false;  // in `ready_`
};

struct WatchHub::Step {
  enum class Kind { kNothing, kGreet, kWrite, kEnd } kind = Kind::kNothing;
  storage::ChangeEvent event;
  absl::Status end;
};

WatchHub::WatchHub(const ApiContext& api) : api_(api) {
  thread_ = std::thread([this] { Run(); });
  subscription_ = api_.replica.Subscribe(
      [this](const std::vector<storage::ChangeEvent>& events) { OnCommit(events); });
}

WatchHub::~WatchHub() {
  api_.replica.Unsubscribe(subscription_);
  Stop();
  {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(
        +[](decltype(streams_)* streams) { return streams->empty(); }, &streams_));
    finished_ = true;
  }
  thread_.join();
}

void WatchHub::Stop() {
  absl::MutexLock lock(&mutex_);
  stopped_ = true;
  for (const auto& [number, stream] : streams_) {
    if (stream->end_.ok()) stream->end_ = absl::UnavailableError("the server goes down");
    Wake(stream);
  }
}

WatchHub::Reactor* WatchHub::Watch(std::optional<storage::EntityNumber> entity) {
  absl::MutexLock lock(&mutex_);
  auto stream = std::make_shared<Stream>(*this, ++last_, entity);
  if (stopped_) {
    stream->end_ = absl::UnavailableError("the server goes down");
  } else if (streams_.size() >= kWatchesMax) {
    stream->end_ = absl::ResourceExhaustedError(absl::StrCat(
        "there are ", streams_.size(), " watches already (at most ", kWatchesMax, ")"));
  }
  streams_[last_] = stream;
  Wake(stream);
  return stream.get();
}

void WatchHub::OnCommit(const std::vector<storage::ChangeEvent>& events) {
  absl::MutexLock lock(&mutex_);
  for (const auto& [number, stream] : streams_) {
    if (stream->ending_ || !stream->end_.ok()) continue;
    for (const storage::ChangeEvent& event : events) {
      if (stream->entity_ && event.key.entity != *stream->entity_) continue;
      if (stream->queue_.size() == kWatchQueueMax) {
        stream->queue_.clear();
        stream->end_ = absl::ResourceExhaustedError(absl::StrCat(
            "the watch was read too slowly: ", kWatchQueueMax, " changes were waiting"));
        break;
      }
      stream->queue_.push_back(event);
    }
    Wake(stream);
  }
}

void WatchHub::Wake(const std::shared_ptr<Stream>& stream) {
  if (stream->waiting_) return;
  stream->waiting_ = true;
  ready_.push_back(stream);
}

WatchHub::Step WatchHub::Next(Stream& stream) {
  Step step;
  // One operation at a time; the end comes after all others.
  if (stream.ending_ || stream.writing_) return step;
  if (stream.cancelled_ && stream.end_.ok()) stream.end_ = absl::CancelledError("cancelled");
  if (!stream.end_.ok()) {
    stream.ending_ = true;
    stream.queue_.clear();
    step.kind = Step::Kind::kEnd;
    step.end = stream.end_;
  } else if (!stream.greeted_) {
    stream.greeted_ = true;
    Wake(streams_.at(stream.number_));
    step.kind = Step::Kind::kGreet;
  } else if (!stream.queue_.empty()) {
    stream.writing_ = true;
    step.kind = Step::Kind::kWrite;
    step.event = stream.queue_.front();
    stream.queue_.pop_front();
  }
  return step;
}

void WatchHub::Run() {
  const auto something = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return finished_ || !ready_.empty();
  };
  for (;;) {
    std::shared_ptr<Stream> stream;
    Step step;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&something));
      if (ready_.empty()) return;
      stream = std::move(ready_.front());
      ready_.pop_front();
      stream->waiting_ = false;
      step = Next(*stream);
    }
    switch (step.kind) {
      case Step::Kind::kNothing:
        break;
      case Step::Kind::kGreet:
        stream->StartSendInitialMetadata();
        break;
      case Step::Kind::kWrite:
        stream->response_ = Show(step.event);
        stream->StartWrite(&stream->response_);
        break;
      case Step::Kind::kEnd:
        stream->Finish(ToGrpc(step.end));
        break;
    }
  }
}

v1::WatchRecordsResponse WatchHub::Show(const storage::ChangeEvent& event) const {
  v1::WatchRecordsResponse out;
  switch (event.kind) {
    case storage::ChangeKind::kCreated:
      out.set_event(v1::RECORD_EVENT_CREATED);
      break;
    case storage::ChangeKind::kChanged:
      out.set_event(v1::RECORD_EVENT_CHANGED);
      break;
    case storage::ChangeKind::kDeleted:
      out.set_event(v1::RECORD_EVENT_DELETED);
      break;
    case storage::ChangeKind::kRestored:
      out.set_event(v1::RECORD_EVENT_RESTORED);
      break;
    case storage::ChangeKind::kErased:
      out.set_event(v1::RECORD_EVENT_ERASED);
      break;
    case storage::ChangeKind::kDropped:
      out.set_event(v1::RECORD_EVENT_DROPPED);
      break;
  }
  // As it is by now, which may be later than the event: later events follow.
  const auto stored = api_.replica.Read(event.key);
  *out.mutable_record() =
      stored.ok() ? ShowRecord(api_, event.key, *stored) : ShowAbsent(api_, event.key);
  return out;
}

}  // namespace chaptersync::node
