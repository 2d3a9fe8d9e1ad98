// SPDX-License-Identifier: Apache-2.0
//
// The sync session's state machine; see session.h. Messages are handled one
// after the other in the order of the stream, so that an answer always comes
// before the acknowledgement that covers it.
#include "node/session/session.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "node/session/wire.h"
#include "storage/core/record_codec.h"
#include "storage/core/status.h"

namespace chaptersync::node {

using storage::FeedCursor;
using storage::FeedItem;
using storage::HybridTime;
using storage::RecordKey;
using storage::RecordOutcome;
using storage::Scope;
using storage::Sequence;

Session::Session(SessionConfig config) : config_(std::move(config)) {
  window_bytes_max_ = config_.window_bytes;
  page_bytes_ = std::min(kPageBytesStart, config_.page_bytes_max);
}

std::vector<Effect> Session::Handle(Event event, uint64_t now_ms) {
  if (state_ == State::kEnded) return {};
  now_ms_ = now_ms;
  std::visit([this](auto& e) { On(e); }, event);
  if (state_ == State::kReady) {
    Work();
    if (state_ == State::kReady) Pump();
  }
  return std::exchange(effects_, {});
}

void Session::Send(v1::SyncMessage message) {
  if (state_ != State::kEnded) effects_.push_back(SendMessage{std::move(message)});
}

void Session::End(absl::Status status, bool again_at_once) {
  if (state_ == State::kEnded) return;
  state_ = State::kEnded;
  inbox_.clear();
  effects_.push_back(EndSession{std::move(status), again_at_once});
}

bool Session::Check(const absl::Status& status) {
  if (!status.ok()) End(status);
  return status.ok();
}

std::vector<std::string> Session::TakeNotes() { return std::exchange(notes_, {}); }

std::vector<std::string> Session::TakeDamage() { return std::exchange(damage_, {}); }

bool Session::quiet() const {
  if (state_ != State::kReady || !inbox_.empty() || busy_ != Busy::kNo || !in_flight_.empty() ||
      !wanted_.empty()) {
    return false;
  }
  const bool feeds = std::all_of(outbound_.begin(), outbound_.end(),
                                 [](const Outbound& f) { return !f.dirty && !f.reading; });
  return feeds && std::all_of(inbound_.begin(), inbound_.end(),
                              [](const auto& i) { return i.second.missing.empty(); });
}

Sequence Session::acknowledged(const Scope& scope) const {
  for (const Outbound& feed : outbound_) {
    if (feed.scope == scope) return feed.acknowledged;
  }
  return {};
}

Sequence Session::received(const Scope& scope) const {
  auto it = inbound_.find(scope);
  return it == inbound_.end() ? Sequence{} : it->second.durable;
}

Session::Outbound* Session::FindOutbound(const Scope& scope) {
  for (Outbound& feed : outbound_) {
    if (feed.scope == scope) return &feed;
  }
  return nullptr;
}

std::map<Scope, Sequence> Session::PeerHas() const {
  std::map<Scope, Sequence> has;
  for (const Outbound& feed : outbound_) has[feed.scope] = feed.acknowledged;
  return has;
}

// --- The handshake. ---

void Session::On(const Opened&) {
  last_in_ms_ = now_ms_;
  if (config_.initiator && state_ == State::kNew) effects_.push_back(SayHello{config_.id});
}

void Session::On(const HelloReady& event) {
  if (!Check(event.facts.status())) return;
  hello_ = *event.facts;
  own_epoch_ = hello_.epoch;
  v1::SyncMessage message;
  v1::Hello& hello = *message.mutable_hello();
  hello.set_version_min(kVersionMin);
  hello.set_version_max(kVersionMax);
  hello.set_replica(hello_.replica.value);
  hello.set_epoch(hello_.epoch.value);
  hello.set_node(ToBytes(hello_.node));
  for (const FeedCursor& cursor : hello_.cursors) *hello.add_cursors() = ToProto(cursor);
  for (const storage::Acknowledgement& known : hello_.acknowledged) {
    *hello.add_acknowledged() = ToProto(known);
  }
  *hello.mutable_clock() = ToProto(hello_.clock);
  EntitiesToProto(config_.entities, hello.mutable_entities());
  hello.set_hub(config_.hub);
  hello.set_session(config_.id);
  hello.mutable_attempts()->Add(hello_.attempts.begin(), hello_.attempts.end());
  for (const storage::Epoch& epoch : hello_.past_epochs) hello.add_past_epochs(epoch.value);
  for (const storage::ReplicaId& id : hello_.former) hello.add_former(id.value);
  for (const storage::ReplicaId& id : hello_.copied) hello.add_copied(id.value);
  state_ = State::kHello;
  hello_sent_ms_ = now_ms_;
  Send(std::move(message));
}

void Session::TakeHello(const v1::Hello& hello) {
  if (hello.version_max() < kVersionMin || hello.version_min() > kVersionMax) {
    return End(absl::FailedPreconditionError(
        absl::StrCat("the peer speaks protocol versions ", hello.version_min(), " to ",
                     hello.version_max(), ", this program ", kVersionMin, " to ", kVersionMax)));
  }
  const size_t cursors = static_cast<size_t>(hello.cursors_size() + hello.acknowledged_size());
  if (cursors > kCursorsMax || static_cast<size_t>(hello.entities_size()) > kCursorsMax) {
    return End(absl::InvalidArgumentError(
        absl::StrCat("a Hello with ", cursors, " cursors and ", hello.entities_size(),
                     " entities is over the limit of ", kCursorsMax)));
  }
  if (std::count(hello.former().begin(), hello.former().end(), 0) > 0) {
    return End(absl::InvalidArgumentError("a Hello names replica 0 as a former one"));
  }
  const auto former = static_cast<size_t>(std::max(hello.former_size(), hello.copied_size()));
  if (former > storage::kFormerIdsTold) {
    return End(absl::InvalidArgumentError(absl::StrCat("a Hello with ", former,
                                                       " former replica ids is over the limit of ",
                                                       storage::kFormerIdsTold)));
  }
  if (static_cast<size_t>(hello.past_epochs_size()) > kPastEpochsMax) {
    return End(absl::InvalidArgumentError(
        absl::StrCat("a Hello with ", hello.past_epochs_size(),
                     " epochs that are over is over the limit of ", kPastEpochsMax)));
  }
  for (const v1::Acknowledgement& known : hello.acknowledged()) {
    if (static_cast<size_t>(known.sessions_size()) > storage::kSessionsKept) {
      return End(absl::InvalidArgumentError(
          absl::StrCat("a Hello with ", known.sessions_size(),
                       " sessions of one hub is over the limit of ", storage::kSessionsKept)));
    }
  }
  if (static_cast<size_t>(hello.attempts_size()) > storage::kAttemptsKept) {
    return End(
        absl::InvalidArgumentError(absl::StrCat("a Hello with ", hello.attempts_size(),
                                                " sessions that were not welcomed is over the "
                                                "limit of ",
                                                storage::kAttemptsKept)));
  }
  auto node = NodeIdFromBytes(hello.node());
  if (!Check(node.status())) return;
  if (hello.replica() == 0 || hello.epoch() == 0) {
    return End(absl::InvalidArgumentError("a Hello names replica or epoch 0"));
  }
  config_.id = hello.session();
  peer_.node = *node;
  peer_.replica = {hello.replica()};
  peer_.epoch = {hello.epoch()};
  peer_.hub = hello.hub();
  peer_.entities = EntitiesFromProto(hello.entities());
  hello_.replica = peer_.replica;
  hello_.epoch = peer_.epoch;
  hello_.node = peer_.node;
  hello_.hub = peer_.hub;
  for (const v1::Cursor& cursor : hello.cursors()) hello_.cursors.push_back(FromProto(cursor));
  for (const v1::Acknowledgement& known : hello.acknowledged()) {
    hello_.acknowledged.push_back(FromProto(known));
  }
  hello_.clock = FromProto(hello.clock());
  hello_.entities = peer_.entities;
  hello_.session = hello.session();
  hello_.attempts.assign(hello.attempts().begin(), hello.attempts().end());
  for (const uint64_t epoch : hello.past_epochs()) hello_.past_epochs.push_back({epoch});
  for (const uint64_t id : hello.former()) hello_.former.push_back({id});
  for (const uint64_t id : hello.copied()) hello_.copied.push_back({id});
  state_ = State::kHello;
  effects_.push_back(Authorize{peer_.node, peer_.hub, peer_.replica, hello_.former});
}

void Session::On(const Authorized& event) {
  if (!Check(event.status)) return;
  peer_.scopes = event.scopes;
  effects_.push_back(AcceptPeer{peer_, hello_});
}

void Session::On(const PeerAccepted& event) {
  if (!Check(event.accepted.status())) return;
  const storage::AcceptedPeer& accepted = *event.accepted;
  own_epoch_ = accepted.epoch;
  welcomed_as_ = accepted.replica;
  anew_open_ = accepted.anew == storage::kToEndOfFeed;
  if (accepted.went_back) {
    notes_.push_back(absl::StrCat(
        "this hub's disk has gone back to an earlier state: the peer remembers more of it; it "
        "begins a new epoch, as replica ",
        storage::ToHex(accepted.replica.value), ", and gets back what its nodes have"));
  }
  v1::SyncMessage message;
  v1::Welcome& welcome = *message.mutable_welcome();
  welcome.set_version(kVersionMax);
  welcome.set_replica(accepted.replica.value);
  welcome.set_epoch(accepted.epoch.value);
  welcome.set_node(ToBytes(event.node));
  if (accepted.shared) {
    notes_.push_back(absl::StrCat("another computer uses replica id ",
                                  storage::ToHex(peer_.replica.value),
                                  " as well, or this one has gone back; it is to take another"));
    welcome.set_shared(true);
    *welcome.mutable_clock() = ToProto(event.clock);
    welcome.set_ahead_max_ms(config_.ahead_max_ms);
    return Send(std::move(message));  // and the peer ends the session
  }
  for (const Scope& scope : peer_.scopes) welcome.add_scopes(scope.name);
  if (peer_.hub) welcome.add_scopes(Scope::All().name);
  *welcome.mutable_cursor() = ToProto(accepted.cursor);
  for (const FeedCursor& resume : accepted.resume) {
    *welcome.add_resume() = ToProto(resume);
    outbound_.push_back({.scope = resume.scope,
                         .position = resume.sequence,
                         .told = resume.sequence,
                         .acknowledged = resume.sequence,
                         .mark = resume.mark,
                         .anew = accepted.anew});
  }
  welcome.set_highest_clock(accepted.highest_clock.ticks);
  welcome.set_highest_hash(accepted.highest_hash);
  *welcome.mutable_clock() = ToProto(event.clock);
  EntitiesToProto(config_.entities, welcome.mutable_entities());
  welcome.set_ahead_max_ms(config_.ahead_max_ms);
  welcome.set_record_bytes_max(storage::kRecordBytesMax);
  welcome.set_window_bytes(static_cast<uint32_t>(config_.window_bytes));
  welcome.set_drops_noted(accepted.drops_noted);
  welcome.set_federation(config_.federation);
  welcome.set_refused(accepted.refused.size());
  Inbound& inbound = inbound_[Scope::All()];
  inbound.position = inbound.durable = accepted.cursor.sequence;
  inbound.mark = inbound.durable_mark = accepted.cursor.mark;
  state_ = State::kReady;
  Send(std::move(message));
  if (!accepted.refused.empty()) {
    // Told before, perhaps into a stream that was cut: until the node asks for
    // these records it has not noted the refusals.
    for (size_t i = 0; i < accepted.refused.size(); i += kWholeMax) {
      const size_t end = std::min(accepted.refused.size(), i + kWholeMax);
      stored_refused_.assign(accepted.refused.begin() + static_cast<ptrdiff_t>(i),
                             accepted.refused.begin() + static_cast<ptrdiff_t>(end));
      SendStored();
    }
  }
}

void Session::TakeWelcome(const v1::Welcome& welcome) {
  if (welcome.version() < kVersionMin || welcome.version() > kVersionMax) {
    return End(absl::FailedPreconditionError(absl::StrCat("the hub speaks protocol version ",
                                                          welcome.version(), ", this program ",
                                                          kVersionMin, " to ", kVersionMax)));
  }
  auto node = NodeIdFromBytes(welcome.node());
  if (!Check(node.status())) return;
  const size_t resumes = static_cast<size_t>(welcome.resume_size());
  if (resumes > kCursorsMax || static_cast<size_t>(welcome.entities_size()) > kCursorsMax) {
    return End(absl::InvalidArgumentError(
        absl::StrCat("a Welcome with ", resumes, " cursors is over the limit of ", kCursorsMax)));
  }
  peer_.node = *node;
  peer_.replica = {welcome.replica()};
  peer_.epoch = {welcome.epoch()};
  peer_.hub = true;
  peer_.entities = EntitiesFromProto(welcome.entities());
  federation_ = welcome.federation();
  window_bytes_max_ = std::clamp<size_t>(welcome.window_bytes(), kPageBytesMax, kWindowBytes);
  storage::WelcomeFacts facts;
  facts.told_as = told_as();
  facts.session = config_.id;
  facts.shared = welcome.shared();
  facts.cursor = FromProto(welcome.cursor());
  for (const v1::Cursor& resume : welcome.resume()) {
    FeedCursor cursor = FromProto(resume);
    Inbound& inbound = inbound_[cursor.scope];
    inbound.position = inbound.durable = cursor.sequence;
    inbound.mark = inbound.durable_mark = cursor.mark;
    facts.resume.push_back(std::move(cursor));
  }
  facts.highest_clock = {welcome.highest_clock()};
  facts.highest_hash = welcome.highest_hash();
  facts.clock = FromProto(welcome.clock());
  facts.ahead_max_ms = hub_ahead_max_ms_ = welcome.ahead_max_ms();
  facts.drops_noted = welcome.drops_noted();
  refusals_to_come_ = welcome.refused();
  // The clock may have been put back since.
  const auto sent_ms = static_cast<int64_t>(hello_sent_ms_);
  const int64_t middle = sent_ms + (static_cast<int64_t>(now_ms_) - sent_ms) / 2;
  clock_offset_ms_ = static_cast<int64_t>(facts.clock.wall_ms) - middle;
  facts.clock_offset_ms = clock_offset_ms_;
  effects_.push_back(JoinHub{peer_, std::move(facts)});
}

void Session::On(const HubJoined& event) {
  if (!Check(event.joined.status())) return;
  const storage::JoinedHub& joined = *event.joined;
  if (joined.restart) {
    notes_.push_back(joined.restart_reason);
    return End(absl::AbortedError(joined.restart_reason), true);
  }
  anew_open_ = joined.anew == storage::kToEndOfFeed;
  outbound_.push_back({.scope = Scope::All(),
                       .position = joined.start,
                       .told = joined.start,
                       .acknowledged = joined.start,
                       .mark = {},
                       .anew = joined.anew});
  state_ = State::kReady;
  SendDropped(joined.dropped);
  AskWhole(joined.ask_whole, /*refusals_noted=*/true);
  AskMissing();
  if (refusals_to_come_ > 0) return;
  // What the hub has acknowledged by its cursor may be what a drop has waited for.
  busy_ = Busy::kAcknowledging;
  effects_.push_back(AcknowledgePeer{{.peer = peer_}});
}

// --- Messages. ---

void Session::On(MessageIn& event) {
  last_in_ms_ = now_ms_;
  const v1::SyncMessage& message = event.message;
  if (state_ != State::kReady && message.ByteSizeLong() > kHandshakeBytesMax) {
    return End(absl::ResourceExhaustedError(absl::StrCat("a message of ", message.ByteSizeLong(),
                                                         " bytes before the session has begun "
                                                         "is over the limit of ",
                                                         kHandshakeBytesMax)));
  }
  switch (state_) {
    case State::kNew:
      if (!config_.initiator && message.has_hello()) return TakeHello(message.hello());
      return End(absl::InvalidArgumentError("the first message is not a Hello"));
    case State::kHello:
      if (config_.initiator && message.has_welcome()) return TakeWelcome(message.welcome());
      return End(absl::InvalidArgumentError(config_.initiator
                                                ? "the answer to Hello is not a Welcome"
                                                : "a message came before Welcome was sent"));
    case State::kReady:
      if (inbox_.size() > 2 * kInboxMax) {
        return End(absl::InternalError("more messages were handed over than asked for"));
      }
      inbox_.push_back(std::move(event.message));
      return;
    case State::kEnded:
      return;
  }
}

void Session::Work() {
  while (state_ == State::kReady && busy_ == Busy::kNo && !inbox_.empty()) {
    const v1::SyncMessage message = std::move(inbox_.front());
    inbox_.pop_front();
    switch (message.kind_case()) {
      case v1::SyncMessage::kChanges:
        TakeChanges(message.changes());
        break;
      case v1::SyncMessage::kLeft:
        TakeLeft(message.left());
        break;
      case v1::SyncMessage::kStored:
        TakeStored(message.stored());
        break;
      case v1::SyncMessage::kWhole:
        TakeWhole(message.whole());
        break;
      case v1::SyncMessage::kPulse:
        TakePulse(message.pulse());
        break;
      default:
        End(absl::InvalidArgumentError(absl::StrCat("a message of kind ",
                                                    static_cast<int>(message.kind_case()),
                                                    " is not allowed after the handshake")));
    }
  }
}

// Where the peer's feed stands durably once `resolved` have been dealt with. While
// something is missing it stays at a place whose mark is known.
FeedCursor Session::DurableCursor(const Scope& scope, const Inbound& inbound,
                                  const std::set<RecordKey>& resolved) const {
  const bool missing =
      std::any_of(inbound.missing.begin(), inbound.missing.end(),
                  [&](const auto& entry) { return !resolved.contains(entry.first); });
  if (missing) {
    return {peer_.replica, peer_.epoch, scope, inbound.durable, inbound.durable_mark};
  }
  return {peer_.replica, peer_.epoch, scope, inbound.position, inbound.mark};
}

void Session::TakeChanges(const v1::Changes& changes) {
  auto records = UnpackRecords(changes);
  if (!Check(records.status())) return;
  storage::ApplyRequest request{.peer = peer_,
                                .told_as = told_as(),
                                .records = *std::move(records),
                                .left = {},
                                .cursors = {},
                                .peer_has = PeerHas()};
  counts_.records_received += request.records.size();
  stored_refused_.clear();
  stored_scope_.reset();
  const Scope scope{changes.scope()};
  if (scope.name.empty()) {
    std::set<RecordKey> resolved;
    for (storage::InboundRecord& record : request.records) {
      record.place = std::exchange(record.sequence, {});
      if (!storage::IsPartial(record.update)) resolved.insert(record.key);
    }
    for (const auto& [name, inbound] : inbound_) {
      const bool any = std::any_of(inbound.missing.begin(), inbound.missing.end(),
                                   [&](const auto& m) { return resolved.contains(m.first); });
      if (!any) continue;
      request.cursors.push_back(DurableCursor(name, inbound, resolved));
    }
  } else {
    auto it = inbound_.find(scope);
    if (it == inbound_.end()) {
      return End(absl::InvalidArgumentError(
          absl::StrCat("Changes of scope '", scope.name, "', which was not agreed on")));
    }
    Inbound& inbound = it->second;
    const bool begins_again = changes.previous() == 0;
    if (!begins_again && changes.previous() != inbound.position.value) {
      return End(absl::InvalidArgumentError(
          absl::StrCat("Changes of scope '", scope.name, "' begin after ", changes.previous(),
                       ", but the last ended at ", inbound.position.value)));
    }
    uint64_t before = changes.previous();
    for (const storage::InboundRecord& record : request.records) {
      if (record.sequence.value <= before || record.sequence.value > changes.last()) {
        return End(absl::InvalidArgumentError(
            absl::StrCat("Changes name sequence ", record.sequence.value, " after ", before,
                         ", with ", changes.last(), " as the last")));
      }
      before = record.sequence.value;
    }
    if (changes.last() < changes.previous()) {
      return End(absl::InvalidArgumentError(
          absl::StrCat("Changes end at ", changes.last(), " before ", changes.previous())));
    }
    if (begins_again) {
      inbound.missing.clear();
      inbound.durable = {};
      inbound.durable_mark = {};
    }
    inbound.position = {changes.last()};
    inbound.mark = {changes.mark()};
    std::set<RecordKey> resolved;  // told anew by this message
    for (const storage::InboundRecord& record : request.records) resolved.insert(record.key);
    request.cursors.push_back(DurableCursor(scope, inbound, resolved));
    std::erase_if(inbound.missing, [&](const auto& m) { return resolved.contains(m.first); });
    stored_scope_ = scope;
  }
  busy_ = Busy::kApplying;
  effects_.push_back(ApplyRecords{std::move(request)});
}

void Session::TakeLeft(const v1::Left& left) {
  storage::ApplyRequest request{.peer = peer_,
                                .told_as = told_as(),
                                .records = {},
                                .left = {},
                                .cursors = {},
                                .peer_has = {}};
  if (static_cast<size_t>(left.records_size()) > kMessageRecordsMax) {
    return End(absl::InvalidArgumentError(absl::StrCat(
        left.records_size(), " records in one Left are over the limit of ", kMessageRecordsMax)));
  }
  if (static_cast<size_t>(left.unplaced_size()) > kWholeMax) {
    return End(absl::InvalidArgumentError(absl::StrCat(
        left.unplaced_size(), " unplaced records in one Left are over the limit of ", kWholeMax)));
  }
  std::set<Scope> raised;
  const auto take = [&](const v1::LeftRecord& record, bool unplaced) {
    auto inbound = FromProto(record);
    if (!Check(inbound.status())) return false;
    inbound->unplaced = unplaced;
    for (auto& [scope, feed] : inbound_) {
      if (feed.missing.erase(inbound->key) > 0) raised.insert(scope);
    }
    request.left.push_back(*std::move(inbound));
    return true;
  };
  for (const v1::LeftRecord& record : left.records()) {
    if (!take(record, /*unplaced=*/false)) return;
  }
  for (const v1::LeftRecord& record : left.unplaced()) {
    if (!take(record, /*unplaced=*/true)) return;
  }
  for (const Scope& scope : raised) {
    request.cursors.push_back(DurableCursor(scope, inbound_[scope], {}));
  }
  stored_scope_.reset();
  stored_refused_.clear();
  busy_ = Busy::kApplying;
  effects_.push_back(ApplyRecords{std::move(request)});
}

void Session::On(const Applied& event) {
  if (!Check(event.result.status())) return;
  const storage::ApplyResult& result = *event.result;
  damage_.insert(damage_.end(), result.damage.begin(), result.damage.end());
  counts_.conflicts_found += result.conflicts_found;
  if (result.identity_changed) {
    return End(absl::AbortedError("writing under a new replica id from now on"), true);
  }
  // With what was dropped, and is back, may be what follows it.
  if (std::any_of(result.outcomes.begin(), result.outcomes.end(),
                  [](const RecordOutcome& outcome) { return outcome.taken_back; })) {
    AskMissing();
  }
  std::vector<RecordKey> whole;
  size_t vouched = 0;
  std::vector<RecordKey> vouched_records;
  for (const RecordOutcome& outcome : result.outcomes) {
    switch (outcome.kind) {
      case RecordOutcome::Kind::kNeedsWhole:
        whole.push_back(outcome.key);
        if (stored_scope_) inbound_[*stored_scope_].missing[outcome.key] = outcome.sequence;
        continue;
      case RecordOutcome::Kind::kAhead:
        return End(absl::FailedPreconditionError(
            absl::StrCat("record ", outcome.key.id.ToString(), " is stamped more than ",
                         config_.ahead_max_ms / 1000, " s ahead of the hub's clock")));
      case RecordOutcome::Kind::kRefused:
        stored_refused_.push_back(outcome.refusal);
        if (outcome.refusal.reason == storage::RefusedRecord::Reason::kWaits) {
          notes_.push_back(absl::StrCat("not taken yet: ", outcome.refusal.message));
          break;
        }
        ++counts_.refused;
        notes_.push_back(absl::StrCat("refused record ", outcome.key.id.ToString(), ": ",
                                      outcome.refusal.message));
        break;
      case RecordOutcome::Kind::kTaken:
        vouched += outcome.vouched;
        if (outcome.vouched > 0) vouched_records.push_back(outcome.key);
        break;
      case RecordOutcome::Kind::kIgnored:
        break;
    }
    if (outcome.answer) answers_.push_back(outcome.key);
    if (!stored_scope_) {
      for (auto& [scope, feed] : inbound_) feed.missing.erase(outcome.key);
    }
  }
  if (vouched > 0) {
    notes_.push_back(absl::StrCat("took ", vouched, " values that others wrote, in ",
                                  vouched_records.size(), " records, on the word of node ",
                                  peer_.node.ToString(), ": ", NamesOf(vouched_records)));
  }
  AskWhole(whole, /*refusals_noted=*/false);
  SendDropped(result.dropped);
  if (!answers_.empty()) return ReadAnswers();
  SendStored();
  busy_ = Busy::kNo;
}

// For notes: the first of them, and how many more there are.
std::string Session::NamesOf(const std::vector<RecordKey>& keys) const {
  std::string names;
  const size_t shown = std::min(keys.size(), kNotedRecordsMax);
  for (size_t i = 0; i < shown; ++i) {
    const auto noun = config_.nouns.find(keys[i].entity);
    absl::StrAppend(
        &names, i == 0 ? "" : ", ",
        noun != config_.nouns.end() ? noun->second : absl::StrCat("entity ", keys[i].entity.value),
        "/", keys[i].id.ToString());
  }
  if (shown < keys.size()) absl::StrAppend(&names, " and ", keys.size() - shown, " more");
  return names;
}

void Session::ReadAnswers() {
  Sequence since{UINT64_MAX};
  bool told_anew = true;
  for (const Outbound& feed : outbound_) {
    since = std::min(since, feed.acknowledged);
    told_anew = told_anew && feed.acknowledged >= feed.anew;
  }
  busy_ = Busy::kAnswering;
  effects_.push_back(ReadRecords{{.peer = peer_,
                                  .keys = answers_,
                                  .since = since,
                                  .anew = told_anew ? Sequence{} : storage::kToEndOfFeed,
                                  .asked = false,
                                  .refusals_noted = false,
                                  .bytes_max = page_bytes_}});
}

void Session::ReadWanted() {
  if (wanted_.empty() || reading_wanted_) return;
  storage::RecordsRequest request{.peer = peer_,
                                  .keys = {},
                                  .since = {},
                                  .anew = {},
                                  .asked = true,
                                  .refusals_noted = wanted_.front().second,
                                  .bytes_max = page_bytes_};
  for (const auto& [key, noted] : wanted_) {
    if (noted != request.refusals_noted || request.keys.size() == config_.page_records_max) break;
    request.keys.push_back(key);
  }
  reading_wanted_ = true;
  effects_.push_back(ReadRecords{std::move(request)});
}

void Session::On(const RecordsRead& event) {
  if (!Check(event.page.status())) return;
  SendItems(event.page->items);
  const auto read = static_cast<ptrdiff_t>(event.page->read);
  if (event.asked) {
    for (ptrdiff_t i = 0; i < read; ++i) {
      wanted_set_.erase(wanted_.front());
      wanted_.pop_front();
    }
    reading_wanted_ = false;
    return;
  }
  answers_.erase(answers_.begin(), answers_.begin() + read);
  if (!answers_.empty()) return ReadAnswers();
  SendStored();
  busy_ = Busy::kNo;
}

// Records outside the feed: Left, and Changes in pages.
void Session::SendItems(const std::vector<FeedItem>& items) {
  v1::SyncMessage left;
  std::vector<const FeedItem*> page;
  size_t bytes = 0;
  const auto send_page = [&] {
    if (page.empty()) return;
    v1::SyncMessage message;
    PackRecords(page, *message.mutable_changes());
    counts_.records_sent += page.size();
    Send(std::move(message));
    page.clear();
    bytes = 0;
  };
  for (const FeedItem& item : items) {
    if (item.kind == FeedItem::Kind::kLeft) {
      *left.mutable_left()->add_records() = ToLeft(item);
      ++counts_.left_sent;
      continue;
    }
    if (item.kind == FeedItem::Kind::kUnplaced) {
      *left.mutable_left()->add_unplaced() = ToLeft(item);
      continue;
    }
    page.push_back(&item);
    bytes += item.update.size();
    if (bytes >= config_.page_bytes_max || page.size() >= config_.page_records_max) send_page();
  }
  if (left.has_left()) Send(std::move(left));
  send_page();
}

void Session::SendStored() {
  v1::SyncMessage message;
  v1::Stored& stored = *message.mutable_stored();
  for (const storage::RefusedRecord& refused : stored_refused_) {
    *stored.add_refused() = ToProto(refused);
  }
  stored_refused_.clear();
  if (stored_scope_) {
    Inbound& inbound = inbound_[*stored_scope_];
    const FeedCursor durable = DurableCursor(*stored_scope_, inbound, {});
    inbound.durable = durable.sequence;
    inbound.durable_mark = durable.mark;
    stored.set_scope(stored_scope_->name);
    stored.set_through(inbound.durable.value);
    Send(std::move(message));
  } else {
    // An answer may have brought what a feed was waiting for.
    bool sent = false;
    for (auto& [scope, inbound] : inbound_) {
      const FeedCursor durable = DurableCursor(scope, inbound, {});
      if (durable.sequence <= inbound.durable) continue;
      inbound.durable = durable.sequence;
      inbound.durable_mark = durable.mark;
      stored.set_scope(scope.name);
      stored.set_through(durable.sequence.value);
      Send(message);
      stored.clear_refused();
      sent = true;
    }
    if (!sent && stored.refused_size() > 0) Send(std::move(message));
  }
  stored_scope_.reset();
}

void Session::SendDropped(const std::vector<storage::DroppedRecord>& dropped) {
  for (size_t i = 0; i < dropped.size(); i += kWholeMax) {
    v1::SyncMessage message;
    for (size_t j = i; j < std::min(dropped.size(), i + kWholeMax); ++j) {
      v1::Dropped* out = message.mutable_stored()->add_dropped();
      out->set_number(dropped[j].number);
      *out->mutable_record() = ToProto(dropped[j].key);
    }
    Send(std::move(message));
  }
}

void Session::AskMissing() {
  if (config_.hub) return;
  missing_asked_ms_ = now_ms_;
  effects_.push_back(FindMissing{peer_});
}

void Session::On(const MissingFound& event) {
  if (Check(event.keys.status())) AskWhole(*event.keys, /*refusals_noted=*/false);
}

void Session::AskWhole(const std::vector<RecordKey>& keys, bool refusals_noted) {
  counts_.whole_asked += keys.size();
  for (size_t i = 0; i < keys.size(); i += kWholeMax) {
    v1::SyncMessage message;
    message.mutable_whole()->set_refusals_noted(refusals_noted);
    for (size_t j = i; j < std::min(keys.size(), i + kWholeMax); ++j) {
      *message.mutable_whole()->add_records() = ToProto(keys[j]);
    }
    Send(std::move(message));
  }
}

void Session::TakeStored(const v1::Stored& stored) {
  storage::AcknowledgeRequest request{
      .peer = peer_, .through = {}, .own_high = {}, .refused = {}, .push_again = {}, .dropped = {}};
  for (const v1::Refusal& refusal : stored.refused()) {
    auto refused = FromProto(refusal);
    if (!Check(refused.status())) return;
    if (refusals_to_come_ > 0) {
      --refusals_to_come_;  // of an earlier session
      if (refused->reason == storage::RefusedRecord::Reason::kWaits) {
        request.push_again.push_back(refused->key);
        ask_after_.push_back(refused->key);
        continue;
      }
    } else {
      ForgetRefused(*refused);
    }
    request.refused.push_back(*std::move(refused));
  }
  if (!stored.scope().empty()) {
    Outbound* feed = FindOutbound({stored.scope()});
    if (feed == nullptr) {
      return End(absl::InvalidArgumentError(
          absl::StrCat("Stored of scope '", stored.scope(), "', which was not agreed on")));
    }
    if (stored.through() > feed->told.value) {
      return End(absl::InvalidArgumentError(
          absl::StrCat("Stored through ", stored.through(), " of scope '", stored.scope(),
                       "', but only ", feed->told.value, " was sent")));
    }
    HybridTime own_high;
    while (!in_flight_.empty()) {
      // Feeds are sent in turn, so this scope's oldest need not be the first.
      auto it = std::find_if(in_flight_.begin(), in_flight_.end(), [&](const InFlight& f) {
        return f.scope == feed->scope && f.last.value <= stored.through();
      });
      if (it == in_flight_.end()) break;
      for (const InFlight::Own& own : it->own) own_high = std::max(own_high, own.high);
      if (it->bytes > 0 && now_ms_ >= it->sent_ms) Adapt(it->bytes, now_ms_ - it->sent_ms);
      in_flight_bytes_ -= it->bytes;
      in_flight_.erase(it);
    }
    if (stored.through() > feed->acknowledged.value) {
      feed->acknowledged = {stored.through()};
      if (config_.initiator) {
        request.through = feed->acknowledged;
        request.told_as = hello_.replica;
        request.own_high = own_high;
      }
    }
  }
  for (const storage::RefusedRecord& refused : request.refused) {
    const bool waits = refused.reason == storage::RefusedRecord::Reason::kWaits;
    notes_.push_back(
        absl::StrCat(waits ? "the hub does not take record " : "the hub refused record ",
                     refused.key.id.ToString(), waits ? " yet: " : ": ", refused.message));
    ask_after_.push_back(refused.key);
    if (!waits) ++counts_.refused;
  }
  request.drops_wait = refusals_to_come_ > 0;
  for (const v1::Dropped& dropped : stored.dropped()) {
    auto key = FromProto(dropped.record());
    if (!Check(key.status())) return;
    request.dropped.push_back({dropped.number(), *key});
  }
  request.anew = ToldAnew();
  if (!config_.initiator) request.accepted = config_.id;
  if (!request.through && !request.anew && request.refused.empty() && request.push_again.empty() &&
      request.dropped.empty()) {
    return;
  }
  busy_ = Busy::kAcknowledging;
  effects_.push_back(AcknowledgePeer{std::move(request)});
}

// The hub has not got it, and nobody has it from it: its stamps will not count as acknowledged. It
// may have been refused as a whole that the hub had asked for, with all that had come up before.
void Session::ForgetRefused(const storage::RefusedRecord& refused) {
  for (InFlight& page : in_flight_) {
    std::erase_if(page.own, [&](const InFlight::Own& own) {
      const bool all = refused.sequence == Sequence{};
      return own.key == refused.key && (all || own.sequence <= refused.sequence);
    });
  }
}

std::optional<Sequence> Session::ToldAnew() {
  if (!anew_open_) return std::nullopt;
  // Feeds are read to their ends one after another: the first end holds for all of them.
  Sequence anew{UINT64_MAX};
  for (const Outbound& feed : outbound_) {
    if (feed.acknowledged < feed.anew) return std::nullopt;
    anew = std::min(anew, feed.anew);
  }
  anew_open_ = false;
  return anew;
}

void Session::On(const Acknowledged& event) {
  if (!Check(event.result.status())) return;
  SendDropped(event.result->dropped);
  AskWhole(std::exchange(ask_after_, {}), /*refusals_noted=*/true);
  busy_ = Busy::kNo;
}

void Session::TakeWhole(const v1::Whole& whole) {
  if (static_cast<size_t>(whole.records_size()) > kWholeMax) {
    return End(absl::InvalidArgumentError(absl::StrCat(
        whole.records_size(), " records in one Whole are over the limit of ", kWholeMax)));
  }
  for (const v1::RecordName& name : whole.records()) {
    auto key = FromProto(name);
    if (!Check(key.status())) return;
    const std::pair<RecordKey, bool> wanted{*key, whole.refusals_noted()};
    if (wanted_set_.insert(wanted).second) wanted_.push_back(wanted);
  }
  if (wanted_.size() > kWholeWaitingMax) {
    End(absl::ResourceExhaustedError(absl::StrCat(
        "the peer waits for ", wanted_.size(), " whole records (at most ", kWholeWaitingMax, ")")));
  }
}

void Session::TakePulse(const v1::Pulse& pulse) {
  if (pulse.answers() != 0) {
    pulse_answered_ = pulse.answers();
    peer_ends_.clear();
    for (const v1::Cursor& end : pulse.ends()) peer_ends_.push_back(FromProto(end));
  }
  if (config_.initiator && !config_.hub && pulse.has_clock()) {
    // A heartbeat's way is not measured, so only what no way explains is taken: however
    // long it was under way, the hub's clock is not behind what it says.
    const int64_t offset_ms =
        static_cast<int64_t>(pulse.clock().wall_ms()) - static_cast<int64_t>(now_ms_);
    const int64_t moved_ms = offset_ms - clock_offset_ms_;
    if (moved_ms > kClockDriftMsMax) {
      notes_.push_back(absl::StrCat("the hub's clock has moved by ", moved_ms,
                                    " ms against this computer's since it was last measured"));
      clock_offset_ms_ = offset_ms;
      effects_.push_back(AdjustClock{offset_ms});
    }
  }
  if (config_.initiator && !config_.hub && pulse.has_clock()) {
    const storage::PeerClock clock = FromProto(pulse.clock());
    effects_.push_back(SendWaiting{
        peer_,
        HybridTime::FromWall(std::max(clock.wall_ms, clock.hybrid.wall_ms()) + hub_ahead_max_ms_)});
  }
  if (peer_.hub && (config_.hub || pulse.hubs_size() > 0)) {
    if (static_cast<size_t>(pulse.hubs_size()) > storage::kHubsMax) {
      return End(absl::InvalidArgumentError(absl::StrCat(
          "a Pulse with ", pulse.hubs_size(), " hubs is over the limit of ", storage::kHubsMax)));
    }
    if (static_cast<size_t>(pulse.reached_size()) > storage::kReachedToldMax) {
      return End(absl::InvalidArgumentError(absl::StrCat(
          "a Pulse with ", pulse.reached_size(), " positions in hubs' feeds is over the limit of ",
          storage::kReachedToldMax)));
    }
    storage::HubsTold told;
    for (const v1::Cursor& one : pulse.reached()) told.reached.push_back(FromProto(one));
    for (const v1::HubEpoch& hub : pulse.hubs()) {
      auto node = NodeIdFromBytes(hub.node());
      if (!Check(node.status())) return;
      if (static_cast<size_t>(hub.over_size()) > storage::kHubEpochsKept) {
        return End(absl::InvalidArgumentError(
            absl::StrCat("a Pulse with ", hub.over_size(),
                         " epochs of one hub is over the limit of ", storage::kHubEpochsKept)));
      }
      storage::KnownHub known{*node, {hub.epoch()}, hub.at_ms(), {}};
      for (const uint64_t over : hub.over()) known.over.push_back({over});
      told.hubs.push_back(std::move(known));
    }
    effects_.push_back(HearOfHubs{peer_, std::move(told)});
  }
  if (pulse.asks() == 0) return;
  pulse_asked_ = pulse.asks();
  busy_ = Busy::kEnds;
  std::vector<Scope> scopes;
  for (const Outbound& feed : outbound_) scopes.push_back(feed.scope);
  effects_.push_back(ReadEnds{std::move(scopes)});
}

void Session::On(const EndsRead& event) {
  if (!Check(event.ends.status())) return;
  v1::SyncMessage message;
  v1::Pulse& pulse = *message.mutable_pulse();
  *pulse.mutable_clock() = ToProto(event.clock);
  pulse.set_answers(std::exchange(pulse_asked_, 0));
  for (const FeedCursor& end : *event.ends) *pulse.add_ends() = ToProto(end);
  Send(std::move(message));
  // Up to these ends at least, whatever the feeds have been read to before.
  flush_ = true;
  for (Outbound& feed : outbound_) feed.dirty = true;
  busy_ = Busy::kNo;
}

void Session::On(const ClockAdjusted& event) { Check(event.status); }

void Session::On(const WaitingSent& event) {
  if (!Check(event.restart.status()) || !*event.restart) return;
  End(absl::AbortedError("own stamps that were too far ahead got another replica id"), true);
}

void Session::On(const HubsHeard& event) {
  if (!Check(event.heard.status())) return;
  if (!event.heard->went_back && !event.heard->dropped) return;
  notes_.push_back(
      event.heard->went_back
          ? "this hub's disk has gone back to an earlier state: another hub knows somebody who "
            "remembers more of it; it begins a new epoch, and gets back what its nodes have"
          : "another hub has gone back; going through this one's feeds again");
  End(absl::AbortedError(notes_.back()), true);
}

// --- This side's feeds. ---

void Session::On(const Changed&) {
  for (Outbound& feed : outbound_) feed.dirty = true;
}

void Session::Adapt(size_t bytes, uint64_t elapsed_ms) {
  // A small page says nothing of how long a larger one takes.
  if (elapsed_ms < kPageFastMs && 2 * bytes >= page_bytes_) page_bytes_ *= 2;
  if (elapsed_ms > kPageSlowMs) page_bytes_ /= 2;
  page_bytes_ = std::clamp(page_bytes_, std::min(kPageBytesMin, config_.page_bytes_max),
                           config_.page_bytes_max);
}

size_t Session::window_bytes() const {
  return std::min(window_bytes_max_, kWindowPages * page_bytes_);
}

void Session::Pump() {
  ReadWanted();
  for (Outbound& feed : outbound_) {
    if (!feed.dirty || feed.reading || in_flight_bytes_ >= window_bytes()) continue;
    feed.reading = true;
    feed.dirty = false;
    effects_.push_back(ReadFeed{{.peer = peer_,
                                 .scope = feed.scope,
                                 .after = feed.position,
                                 .since = feed.acknowledged,
                                 .anew = feed.anew,
                                 .bytes_max = page_bytes_,
                                 .records_max = config_.page_records_max}});
  }
  if (flush_ && std::none_of(outbound_.begin(), outbound_.end(),
                             [](const Outbound& f) { return f.dirty || f.reading; })) {
    flush_ = false;
    for (Outbound& feed : outbound_) Flush(feed);
  }
}

void Session::On(const FeedRead& event) {
  Outbound* feed = FindOutbound(event.scope);
  if (feed == nullptr || !Check(event.page.status())) return;
  feed->reading = false;
  const storage::FeedPage& page = *event.page;
  if (!page.at_end) feed->dirty = true;
  held_back_.insert(page.held_back.begin(), page.held_back.end());
  if (page.last > feed->position) {
    feed->position = page.last;
    feed->mark = page.mark;
  }
  feed->skipped += page.skipped;
  const bool told_anew = page.at_end && feed->anew == storage::kToEndOfFeed;
  if (told_anew) feed->anew = page.last;
  if (page.items.empty()) {
    if (told_anew || feed->skipped >= kSkippedMax) Flush(*feed);
    return;
  }
  v1::SyncMessage left;
  v1::SyncMessage message;
  v1::Changes& changes = *message.mutable_changes();
  std::vector<const FeedItem*> items;
  InFlight in_flight{
      .scope = feed->scope, .last = page.last, .bytes = 0, .own = {}, .sent_ms = now_ms_};
  for (const FeedItem& item : page.items) {
    if (item.kind == FeedItem::Kind::kLeft) {
      *left.mutable_left()->add_records() = ToLeft(item);
      ++counts_.left_sent;
      in_flight.bytes += 64;
      continue;
    }
    items.push_back(&item);
    in_flight.bytes += item.update.size() + storage::kKeyBytes;
    if (item.own_high != HybridTime{}) {
      in_flight.own.push_back({item.key, item.sequence, item.own_high});
    }
  }
  if (left.has_left()) Send(std::move(left));
  changes.set_scope(feed->scope.name);
  changes.set_previous(feed->told.value);
  changes.set_last(page.last.value);
  changes.set_mark(page.mark.value);
  PackRecords(items, changes);
  counts_.records_sent += items.size();
  in_flight_bytes_ += in_flight.bytes;
  in_flight_.push_back(std::move(in_flight));
  feed->told = page.last;
  feed->skipped = 0;
  Send(std::move(message));
}

// Moves the peer's cursor past entries that did not concern it.
void Session::Flush(Outbound& feed) {
  if (feed.told == feed.position) return;
  v1::SyncMessage message;
  v1::Changes& changes = *message.mutable_changes();
  changes.set_scope(feed.scope.name);
  changes.set_previous(feed.told.value);
  changes.set_last(feed.position.value);
  changes.set_mark(feed.mark.value);
  in_flight_.push_back(
      {.scope = feed.scope, .last = feed.position, .bytes = 0, .own = {}, .sent_ms = now_ms_});
  feed.told = feed.position;
  feed.skipped = 0;
  Send(std::move(message));
}

// --- Time. ---

void Session::On(const Tick& event) {
  if (last_in_ms_ == 0 || now_ms_ < last_in_ms_) last_in_ms_ = now_ms_;
  if (now_ms_ - last_in_ms_ > config_.silence_ms_max) {
    return End(absl::UnavailableError(
        absl::StrCat("the peer has been silent for ", (now_ms_ - last_in_ms_) / 1000, " s")));
  }
  if (own_epoch_ != storage::Epoch{} && event.epoch != own_epoch_) {
    return End(absl::AbortedError("this replica has begun a new epoch"), true);
  }
  if (state_ != State::kReady) return;
  // Before that, Welcome is to tell it.
  if (event.shared) {
    return End(absl::AbortedError("another computer has used this replica id"), true);
  }
  const bool asked_lately =
      now_ms_ >= missing_asked_ms_ && now_ms_ - missing_asked_ms_ < kMissingAskedEveryMs;
  if (!asked_lately) AskMissing();
  if (now_ms_ >= last_pulse_ms_ && now_ms_ - last_pulse_ms_ < kPulseEveryMs) return;
  last_pulse_ms_ = now_ms_;
  if (config_.hub) {
    // Only hubs are told how far others have come.
    effects_.push_back(TellOfHubs{peer_.hub ? reached_told_ : UINT64_MAX});
    return;
  }
  v1::SyncMessage message;
  *message.mutable_pulse()->mutable_clock() = ToProto(event.clock);
  Send(std::move(message));
}

void Session::On(const HubsToTell& event) {
  reached_told_ = event.about.through;
  v1::SyncMessage message;
  v1::Pulse& pulse = *message.mutable_pulse();
  *pulse.mutable_clock() = ToProto(event.clock);
  for (const FeedCursor& one : event.about.reached) *pulse.add_reached() = ToProto(one);
  for (const storage::KnownHub& known : event.about.hubs) {
    if (known.node == peer_.node) continue;
    v1::HubEpoch& hub = *pulse.add_hubs();
    hub.set_node(ToBytes(known.node));
    hub.set_epoch(known.epoch.value);
    hub.set_at_ms(known.at_ms);
    for (const storage::Epoch& over : known.over) hub.add_over(over.value);
  }
  Send(std::move(message));
}

void Session::On(const AskPulse& event) {
  if (state_ != State::kReady) return;
  flush_ = true;
  for (Outbound& feed : outbound_) feed.dirty = true;
  v1::SyncMessage message;
  *message.mutable_pulse()->mutable_clock() = ToProto(event.clock);
  message.mutable_pulse()->set_asks(event.number);
  Send(std::move(message));
}

void Session::On(const Stop& event) { End(event.status); }

}  // namespace chaptersync::node
