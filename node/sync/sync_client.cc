// SPDX-License-Identifier: Apache-2.0
//
// One thread that waits, connects and starts sessions; what sessions report
// comes in on their strand.
#include "node/sync/sync_client.h"

#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include <spdlog/spdlog.h>

#include "node/session/wire.h"

namespace chaptersync::node {
namespace {

using storage::FeedCursor;
using storage::Scope;
using storage::Sequence;

// Sessions that may begin at once after one that asked for it.
constexpr int kAgainAtOnceMax = 3;
// Between two looks at whether a caller has gone, in milliseconds.
constexpr int64_t kCancelledEveryMs = 200;

Sequence At(const std::map<Scope, Sequence>& map, const Scope& scope) {
  const auto it = map.find(scope);
  return it == map.end() ? Sequence{} : it->second;
}

// Why a session ended, as people read it: without the names of codes.
std::string PlainReason(const absl::Status& status) {
  if (status.ok()) return "the hub ended the session";
  if (!status.message().empty()) return std::string(status.message());
  return absl::IsUnavailable(status) ? "the hub cannot be reached"
                                     : "the session with the hub broke off";
}

bool Reached(const SessionView& view, const std::vector<FeedCursor>& ends) {
  return std::all_of(ends.begin(), ends.end(), [&](const FeedCursor& end) {
    return At(view.received, end.scope) >= end.sequence;
  });
}

}  // namespace

SyncClient::SyncClient(SessionGroup& group, Connector& connector, SyncClientOptions options)
    : group_(group), connector_(connector), options_(std::move(options)) {
  absl::MutexLock lock(&mutex_);
  paused_ = group_.replica().GetSetting(kPausedKey).ok();
  memory_ = LoadPeerMemory(group_.replica(), kPeerKey);
  if (memory_.federation.empty()) memory_.federation = options_.federation;
}

SyncClient::~SyncClient() { Stop(); }

void SyncClient::Start() {
  thread_ = std::thread([this] { Run(); });
}

void SyncClient::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    ++progress_;
    if (host_ != nullptr) host_->Stop(absl::UnavailableError("the node goes down"));
  }
  waker_.Wake();
  if (thread_.joinable()) thread_.join();
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(
      +[](SyncClient* client) ABSL_SHARED_LOCKS_REQUIRED(client->mutex_) { return !client->busy_; },
      this));
}

bool SyncClient::stopping() const {
  absl::MutexLock lock(&mutex_);
  return stopping_;
}

bool SyncClient::paused() const {
  absl::MutexLock lock(&mutex_);
  return paused_;
}

uint64_t SyncClient::sessions() const {
  absl::MutexLock lock(&mutex_);
  return sessions_;
}

std::string SyncClient::error() const {
  absl::MutexLock lock(&mutex_);
  return error_;
}

void SyncClient::Run() {
  while (true) {
    int64_t wait_ms = 0;
    {
      absl::MutexLock lock(&mutex_);
      if (stopping_) return;
      if (busy_ || paused_) {
        wait_ms = kBackOffMsMax;
      } else {
        wait_ms = next_try_ms_ - SteadyMs();
      }
      if (wait_ms <= 0) busy_ = true;
    }
    if (wait_ms > 0) {
      waker_.WaitFor(wait_ms);
    } else {
      Try();
    }
  }
}

void SyncClient::Try() {
  SessionHostOptions options;
  options.name = "hub " + connector_.name();
  options.config.initiator = true;
  options.config.hub = group_.replica().options().hub;
  options.config.id = group_.environment().Random();
  options.config.silence_ms_max = options_.silence_ms_max;
  for (const auto& [entity, rule] : group_.replica().options().entities) {
    options.config.entities[entity] = rule.fingerprint;
  }
  options.progress = [this](const SessionView& view) { Progress(view); };
  options.ended = [this](const absl::Status& status, bool again) {
    Ended(status, again, absl::IsPermissionDenied(status));
  };
  const std::shared_ptr<SessionHost> host = group_.Make(std::move(options));
  auto transport = connector_.Connect(host, [this] {
    absl::MutexLock lock(&mutex_);
    return stopping_ || paused_;
  });
  if (!transport.ok()) return Ended(transport.status(), false, false);
  absl::MutexLock lock(&mutex_);
  host_ = host;
  view_ = {};
  group_.Begin(host, *std::move(transport));
  if (stopping_) host->Stop(absl::UnavailableError("the node goes down"));
  if (paused_) host->Stop(absl::CancelledError("syncing is paused"));
}

void SyncClient::Progress(const SessionView& view) {
  absl::MutexLock lock(&mutex_);
  if (view.ready && !ready_since_ms_) {
    ready_since_ms_ = SteadyMs();
    again_at_once_ = 0;
    ++sessions_;
    error_.clear();
    kept_out_ = false;
    // Tells status how far the hub's feeds go.
    host_->Ask(++pulses_);
  }
  view_ = view;
  if (view.last_in_ms != 0) memory_.last_contact_ms = view.last_in_ms;
  if (view.ready) {
    memory_.replica = view.peer.replica;
    if (!view.federation.empty()) memory_.federation = view.federation;
    memory_.acknowledged = view.acknowledged;
  }
  ++progress_;
}

void SyncClient::Ended(const absl::Status& status, bool again_at_once, bool kept_out) {
  PeerMemory memory;
  bool met = false;
  {
    absl::MutexLock lock(&mutex_);
    met = ready_since_ms_.has_value();
    memory = memory_;
  }
  // Only a convenience: what stands in the way of it stands in the way of more.
  if (met) SavePeerMemory(group_.replica(), kPeerKey, memory).IgnoreError();
  absl::MutexLock lock(&mutex_);
  if (ready_since_ms_) back_off_.SessionWas(SteadyMs() - *ready_since_ms_);
  before_.records_sent += view_.counts.records_sent;
  before_.records_received += view_.counts.records_received;
  ready_since_ms_.reset();
  host_.reset();
  view_ = {};
  busy_ = false;
  ++progress_;
  const bool wanted = !stopping_ && !paused_;
  // A node may be offline for days: the same news is no news.
  std::string error = PlainReason(status);
  const bool news = error != error_;
  if (wanted) {
    error_ = std::move(error);
    kept_out_ = kept_out;
  }
  int64_t wait_ms = 0;
  if (!again_at_once || ++again_at_once_ > kAgainAtOnceMax) {
    wait_ms = back_off_.Next(group_.environment().Random());
  }
  next_try_ms_ = SteadyMs() + wait_ms;
  if (wanted) {
    spdlog::log(news ? spdlog::level::info : spdlog::level::debug,
                "no session with hub {}: {}; next try in {} ms", connector_.name(), error_,
                wait_ms);
  }
  waker_.Wake();
}

void SyncClient::TryNow() {
  next_try_ms_ = 0;
  waker_.Wake();
}

absl::Status SyncClient::Pause() {
  const absl::Status status = group_.replica().PutSetting(kPausedKey, "1");
  if (!status.ok()) return status;
  absl::MutexLock lock(&mutex_);
  paused_ = true;
  error_.clear();
  kept_out_ = false;
  ++progress_;
  if (host_ != nullptr) host_->Stop(absl::CancelledError("syncing is paused"));
  return absl::OkStatus();
}

absl::Status SyncClient::Resume() {
  const absl::Status status = group_.replica().PutSetting(kPausedKey, std::nullopt);
  if (!status.ok()) return status;
  absl::MutexLock lock(&mutex_);
  paused_ = false;
  ++progress_;
  TryNow();
  return absl::OkStatus();
}

std::vector<PeerState> SyncClient::List() {
  PeerState state;
  absl::MutexLock lock(&mutex_);
  state.name = memory_.federation.empty() ? connector_.name() : memory_.federation;
  state.replica = memory_.replica;
  state.node = view_.peer.node;
  state.connected = view_.ready;
  state.last_contact_ms = memory_.last_contact_ms;
  state.error = error_;
  state.kept_out = kept_out_;
  state.held_back = view_.held_back;
  const std::string& chapter = group_.replica().options().chapter;
  for (const Scope& scope : {Scope::Global(), Scope::Chapter(chapter), Scope::All()}) {
    PeerScopeState one{.scope = scope, .acknowledged = {}, .caught_up = {}};
    if (scope == Scope::All()) {
      one.acknowledged = group_.replica().AcknowledgedBy(memory_.replica);
    } else {
      for (const FeedCursor& end : view_.peer_ends) {
        if (end.scope == scope) one.caught_up = At(view_.received, scope) >= end.sequence;
      }
    }
    state.scopes.push_back(std::move(one));
  }
  return {std::move(state)};
}

absl::StatusOr<SyncNowResult> SyncClient::SyncNow(std::optional<int64_t> timeout_ms,
                                                  const std::function<bool()>& cancelled) {
  const int64_t began_ms = SteadyMs();
  uint64_t asked_serial = 0;  // the session that was asked
  uint64_t number = 0;
  // Of what the hub has not got; anew for each session, as a new identity gives own writes new
  // places.
  storage::Replica& replica = group_.replica();
  uint64_t watch = 0;
  Sequence through;  // as it was when the hub was last asked
  const absl::Cleanup end_watch = [&] { replica.EndWatch(watch); };
  std::optional<std::vector<FeedCursor>> ends;

  mutex_.Lock();
  if (!paused_ && !busy_) TryNow();
  const uint64_t sent_before = before_.records_sent + view_.counts.records_sent;
  const uint64_t received_before = before_.records_received + view_.counts.records_received;
  mutex_.Unlock();

  while (true) {
    if (cancelled()) return absl::CancelledError("the caller has gone");
    const int64_t left_ms = timeout_ms ? *timeout_ms - (SteadyMs() - began_ms) : kCancelledEveryMs;
    absl::MutexLock lock(&mutex_);
    if (stopping_) return absl::UnavailableError("the node goes down");
    if (paused_) {
      return absl::FailedPreconditionError(
          "syncing is paused; `chapterctl sync resume` lets it go on");
    }
    if (view_.ready && host_ != nullptr && view_.serial != asked_serial) {
      asked_serial = view_.serial;
      number = ++pulses_;
      replica.EndWatch(watch);
      watch = replica.WatchUnsent(view_.peer.replica, At(view_.acknowledged, Scope::All()));
      through = replica.UnsentThrough(watch);
      ends.reset();
      host_->Ask(number);
    } else if (view_.ready && view_.serial == asked_serial && view_.pulse_answered >= number) {
      if (!ends) ends = view_.peer_ends;
      const Sequence unsent = replica.UnsentThrough(watch);
      if (Reached(view_, *ends) && At(view_.acknowledged, Scope::All()) >= unsent) {
        return SyncNowResult{
            .sent = before_.records_sent + view_.counts.records_sent - sent_before,
            .received = before_.records_received + view_.counts.records_received - received_before,
            .held_back = view_.held_back};
      }
      // What has moved on may be nothing to send: asking makes both sides tell their feeds' ends.
      if (unsent != std::exchange(through, unsent)) host_->Ask(number = ++pulses_);
    }
    if (left_ms <= 0) {
      return absl::DeadlineExceededError(error_.empty()
                                             ? std::string("not everything is on both sides yet")
                                             : "there is no session with the hub: " + error_);
    }
    struct News {
      SyncClient* client;
      uint64_t seen;
    } news{this, progress_};
    mutex_.AwaitWithTimeout(
        absl::Condition(
            +[](News* n) ABSL_NO_THREAD_SAFETY_ANALYSIS { return n->client->progress_ != n->seen; },
            &news),
        absl::Milliseconds(std::min(left_ms, kCancelledEveryMs)));
  }
}

}  // namespace chaptersync::node
