// SPDX-License-Identifier: Apache-2.0
//
// Events in, effects out, on a strand; and the group that gives sessions their
// threads and their clock.
#include "node/sync/session_host.h"

#include <utility>

#include <spdlog/spdlog.h>

#include "node/host/replica_port.h"

namespace chaptersync::node {
namespace {

std::string Text(const absl::Status& status) { return status.ToString(); }

// How much the end of a session is worth to whoever reads the log. Networks break, hubs
// restart, and strangers say anything; but where this side could not go on with what a known
// peer sent, or with its own data, a program or a disk is at fault.
spdlog::level::level_enum LevelOf(const absl::Status& why, bool fault_here) {
  switch (why.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kDataLoss:
    case absl::StatusCode::kUnknown:
      return fault_here ? spdlog::level::err : spdlog::level::warn;
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kFailedPrecondition:
      return spdlog::level::warn;
    default:
      return spdlog::level::info;
  }
}

}  // namespace

SessionHost::SessionHost(SessionGroup& group, uint64_t serial, SessionHostOptions options)
    : group_(group),
      serial_(serial),
      options_(std::move(options)),
      strand_(std::make_shared<Strand>(group.executor_)),
      session_(options_.config),
      began_ms_(group.steady_ms_()) {
  view_.serial = serial;
}

// --- From any thread: everything becomes a task of the strand. ---

void SessionHost::Begin(std::shared_ptr<Transport> transport) {
  strand_->Post([self = shared_from_this(), transport = std::move(transport)]() mutable {
    // The stream may have closed before the session could begin.
    if (self->over_) return self->group_.Ended(self->serial_);
    self->transport_ = std::move(transport);
    self->Handle(Opened{});
    if (!self->stopped_early_.ok()) self->Handle(node::Stop{self->stopped_early_});
  });
}

void SessionHost::MessageArrived(v1::SyncMessage message) {
  // At most one is under way: the transport reads when asked to.
  auto held = std::make_shared<v1::SyncMessage>(std::move(message));
  strand_->Post([self = shared_from_this(), held] {
    self->reading_ = false;
    self->view_.last_in_ms = self->group_.environment_.NowMs();
    self->Handle(MessageIn{std::move(*held)});
  });
}

void SessionHost::StreamBroken(absl::Status status) {
  strand_->Post([self = shared_from_this(), status = std::move(status)] {
    self->broken_ = true;
    self->Handle(node::Stop{status});
  });
}

void SessionHost::StreamClosed(absl::Status status, std::shared_ptr<void> last) {
  strand_->Post([self = shared_from_this(), status = std::move(status), last = std::move(last)] {
    self->Over(status);
  });
}

void SessionHost::Drained() {
  strand_->Post([self = shared_from_this()] { self->GoOn(); });
}

void SessionHost::Stop(absl::Status status) {
  strand_->Post([self = shared_from_this(), status = std::move(status)] {
    if (self->transport_ == nullptr && !self->over_) {
      self->stopped_early_ = status;
      return;
    }
    self->Handle(node::Stop{status});
  });
}

void SessionHost::Ask(uint64_t number) {
  strand_->Post([self = shared_from_this(), number] {
    self->Handle(AskPulse{number, self->group_.replica_.Clock()});
  });
}

void SessionHost::Rename(std::string name) {
  strand_->Post(
      [self = shared_from_this(), name = std::move(name)] { self->options_.name = name; });
}

void SessionHost::ReplicaChanged() {
  {
    absl::MutexLock lock(&mutex_);
    if (change_pending_) return;
    change_pending_ = true;
  }
  strand_->Post([self = shared_from_this()] {
    {
      absl::MutexLock lock(&self->mutex_);
      self->change_pending_ = false;
    }
    self->Handle(Changed{});
  });
}

void SessionHost::Tick() {
  {
    absl::MutexLock lock(&mutex_);
    if (tick_pending_) return;
    tick_pending_ = true;
  }
  strand_->Post([self = shared_from_this()] {
    {
      absl::MutexLock lock(&self->mutex_);
      self->tick_pending_ = false;
    }
    if (self->over_) return;
    if (self->transport_ != nullptr) self->transport_->Tick();
    if (!self->session_.ready() &&
        self->group_.steady_ms_() - self->began_ms_ > self->options_.handshake_ms_max) {
      return self->Handle(node::Stop{absl::DeadlineExceededError(
          fmt::format("no session after {} ms", self->options_.handshake_ms_max))});
    }
    const storage::Replica& replica = self->group_.replica_;
    const bool shared =
        !self->options_.config.initiator && replica.IsShared(self->session_.peer().replica);
    self->Handle(node::Tick{replica.Clock(), replica.epoch(), shared});
  });
}

// --- On the strand. ---

void SessionHost::Handle(Event event) {
  if (over_) return;
  for (Effect& effect : session_.Handle(std::move(event), group_.environment_.NowMs())) {
    Carry(effect);
  }
  for (const std::string& note : session_.TakeNotes()) {
    spdlog::info("session {:016x} with {}: {}", session_.id(), options_.name, note);
  }
  for (const std::string& damage : session_.TakeDamage()) {
    spdlog::error("session {:016x} with {}: damage: {}", session_.id(), options_.name, damage);
  }
  Publish();
  MaybeRead();
}

// An initiator may not wait with what it owes before a Stored: two that wait for each
// other to read could be.
bool SessionHost::Waits(const Effect& effect) const {
  if (transport_->backlog_bytes() <= options_.backlog_bytes_max) return false;
  const auto* read = std::get_if<ReadRecords>(&effect);
  return std::holds_alternative<ReadFeed>(effect) ||
         (read != nullptr && (read->request.asked || !options_.config.initiator));
}

void SessionHost::GoOn() {
  if (over_ || session_.ended()) return;
  for (Effect& effect : std::exchange(waiting_, {})) Carry(effect);
  MaybeRead();
}

void SessionHost::Carry(Effect& effect) {
  if (Waits(effect)) return waiting_.push_back(std::move(effect));
  if (auto* send = std::get_if<SendMessage>(&effect)) {
    transport_->Send(std::move(send->message));
  } else if (const auto* who = std::get_if<Authorize>(&effect)) {
    const auto done = [weak = weak_from_this()](Authorized answer) {
      const std::shared_ptr<SessionHost> self = weak.lock();
      if (self == nullptr) return;
      self->strand_->Post([self, answer = std::move(answer)] { self->Handle(answer); });
    };
    if (options_.authorize) {
      options_.authorize(*who, done);
    } else {
      done({absl::PermissionDeniedError("no peers are accepted here"), {}});
    }
  } else if (const auto* end = std::get_if<EndSession>(&effect)) {
    end_status_ = end->status;
    again_at_once_ = end->again_at_once;
    transport_->Close(end->status);
  } else {
    auto answer = std::make_shared<Event>(*Perform(group_.replica_, effect));
    strand_->Post([self = shared_from_this(), answer] { self->Handle(std::move(*answer)); });
    // What was taken may have to go back to who sent it.
    if (std::holds_alternative<ApplyRecords>(effect)) ReplicaChanged();
  }
}

void SessionHost::MaybeRead() {
  if (over_ || reading_ || broken_ || session_.ended() || session_.full()) return;
  if (!options_.config.initiator && transport_->backlog_bytes() > options_.backlog_bytes_max) {
    return;
  }
  reading_ = true;
  transport_->Read();
}

void SessionHost::Publish() {
  view_.counts = session_.counts();
  if (session_.ready()) {
    if (!view_.ready) {
      view_.ready = true;
      view_.peer = session_.peer();
      view_.federation = session_.federation();
      spdlog::info("session {:016x} with {}: open, replica {}", session_.id(), options_.name,
                   storage::ToHex(view_.peer.replica.value));
    }
    view_.held_back = session_.held_back();
    view_.pulse_answered = session_.pulse_answered();
    view_.peer_ends = session_.peer_ends();
    std::set<storage::Scope> scopes = view_.peer.scopes;
    scopes.insert(storage::Scope::All());
    for (const storage::FeedCursor& end : view_.peer_ends) scopes.insert(end.scope);
    for (const storage::Scope& scope : scopes) {
      view_.acknowledged[scope] = session_.acknowledged(scope);
      view_.received[scope] = session_.received(scope);
    }
  }
  if (options_.progress) options_.progress(view_);
}

void SessionHost::Over(const absl::Status& status) {
  if (over_) return;
  const bool ended_here = session_.ended();
  if (!ended_here) session_.Handle(node::Stop{status}, group_.environment_.NowMs());
  const absl::Status why = ended_here ? end_status_ : status;
  over_ = true;
  const bool was_ready = std::exchange(view_.ready, false);
  spdlog::log(LevelOf(why, ended_here && was_ready),
              "session {:016x} with {}: ended: {}; {} records sent, {} received", session_.id(),
              options_.name, Text(why), view_.counts.records_sent, view_.counts.records_received);
  const auto ended = std::exchange(options_.ended, nullptr);
  options_.progress = nullptr;
  options_.authorize = nullptr;
  transport_.reset();
  if (ended) ended(why, again_at_once_);
  group_.Ended(serial_);
}

// --- The group. ---

SessionGroup::SessionGroup(storage::Replica& replica, storage::Environment& environment,
                           int workers)
    : replica_(replica),
      environment_(environment),
      steady_ms_(SteadyMs),
      pool_(std::make_unique<WorkerPool>(workers)),
      executor_(*pool_) {
  Subscribe();
  clock_ = std::thread([this] { RunClock(); });
}

SessionGroup::SessionGroup(storage::Replica& replica, storage::Environment& environment,
                           SessionGroupSeams seams)
    : replica_(replica),
      environment_(environment),
      steady_ms_(std::move(seams.steady_ms)),
      executor_(*seams.executor) {
  Subscribe();
}

void SessionGroup::Subscribe() {
  subscription_ = replica_.Subscribe([this](const std::vector<storage::ChangeEvent>&) {
    for (const auto& host : Hosts()) host->ReplicaChanged();
  });
}

SessionGroup::~SessionGroup() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  clock_waker_.Wake();
  if (clock_.joinable()) clock_.join();
  replica_.Unsubscribe(subscription_);
}

std::shared_ptr<SessionHost> SessionGroup::Make(SessionHostOptions options) {
  absl::MutexLock lock(&mutex_);
  const uint64_t serial = ++serial_last_;
  return std::make_shared<SessionHost>(*this, serial, std::move(options));
}

void SessionGroup::Begin(const std::shared_ptr<SessionHost>& host,
                         std::shared_ptr<Transport> transport) {
  absl::MutexLock lock(&mutex_);
  hosts_[host->serial()] = host;
  host->Begin(std::move(transport));
  if (!stopped_.ok()) host->Stop(stopped_);
}

void SessionGroup::Ended(uint64_t serial) {
  absl::MutexLock lock(&mutex_);
  hosts_.erase(serial);
}

size_t SessionGroup::size() const {
  absl::MutexLock lock(&mutex_);
  return hosts_.size();
}

std::vector<std::shared_ptr<SessionHost>> SessionGroup::Hosts() const {
  std::vector<std::shared_ptr<SessionHost>> hosts;
  absl::MutexLock lock(&mutex_);
  hosts.reserve(hosts_.size());
  for (const auto& [serial, host] : hosts_) hosts.push_back(host);
  return hosts;
}

bool SessionGroup::StopAll(const absl::Status& status, absl::Duration wait_max) {
  absl::MutexLock lock(&mutex_);
  stopped_ = status;
  for (const auto& [serial, host] : hosts_) host->Stop(status);
  return mutex_.AwaitWithTimeout(absl::Condition(
                                     +[](SessionGroup* group) ABSL_SHARED_LOCKS_REQUIRED(
                                          group->mutex_) { return group->hosts_.empty(); },
                                     this),
                                 wait_max);
}

void SessionGroup::RunClock() {
  while (true) {
    clock_waker_.WaitFor(kTickMs);
    {
      absl::MutexLock lock(&mutex_);
      if (stopping_) return;
    }
    Tick();
  }
}

void SessionGroup::Tick() {
  for (const auto& host : Hosts()) host->Tick();
}

}  // namespace chaptersync::node
