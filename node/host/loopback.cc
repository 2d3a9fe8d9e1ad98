// SPDX-License-Identifier: Apache-2.0
//
// Passes messages between two sessions in one thread; see loopback.h. Effects are
// carried out in their order, one side at a time.
#include "node/host/loopback.h"

#include <utility>

#include "node/host/replica_port.h"
#include "storage/core/status.h"

namespace chaptersync::node {

Loopback::Loopback(storage::Replica& initiator, SessionConfig initiator_config,
                   storage::Replica& acceptor, SessionConfig acceptor_config,
                   std::set<storage::Scope> scopes)
    : sides_{{initiator, Session(std::move(initiator_config)), {}, {}, {}, {}},
             {acceptor, Session(std::move(acceptor_config)), {}, {}, {}, {}}},
      scopes_(std::move(scopes)) {
  Deliver(kAcceptor, Opened{});
  Deliver(kInitiator, Opened{});
}

// The replicas' clocks are not corrected here but where a test lets them be.
uint64_t Loopback::WallMs(size_t side) const {
  const storage::Replica& replica = sides_[side].replica;
  return replica.Clock().wall_ms - static_cast<uint64_t>(replica.clock_offset_ms());
}

void Loopback::Tick() {
  for (const size_t side : {kInitiator, kAcceptor}) {
    if (ended()) return;
    const storage::Replica& replica = sides_[side].replica;
    const bool shared = side == kAcceptor && replica.IsShared(sides_[side].session.peer().replica);
    Deliver(side, node::Tick{replica.Clock(), replica.epoch(), shared});
  }
}

void Loopback::Deliver(size_t side, Event event) {
  Side& self = sides_[side];
  const auto handle = [&](Event e) {
    for (Effect& effect : self.session.Handle(std::move(e), WallMs(side))) {
      self.todo.push_back(std::move(effect));
    }
  };
  handle(std::move(event));
  while (!self.todo.empty()) {
    const Effect effect = std::move(self.todo.front());
    self.todo.pop_front();
    if (const auto* send = std::get_if<SendMessage>(&effect)) {
      sides_[1 - side].inbox.push_back(send->message.SerializeAsString());
    } else if (std::holds_alternative<Authorize>(effect)) {
      handle(Authorized{absl::OkStatus(), scopes_});
    } else if (const auto* end = std::get_if<EndSession>(&effect)) {
      self.ended = end->status;
      restart_ |= end->again_at_once;
    } else if (side == kAcceptor && std::holds_alternative<ReadFeed>(effect)) {
      self.held.push_back(effect);
    } else {
      handle(*Perform(self.replica, effect));
      // Its own feed may have grown by it.
      if (std::holds_alternative<ApplyRecords>(effect)) handle(Changed{});
    }
  }
}

bool Loopback::Step() {
  if (ended()) return false;
  for (const size_t side : {kAcceptor, kInitiator}) {
    Side& self = sides_[side];
    if (self.inbox.empty()) continue;
    MessageIn event;
    CHAPTER_CHECK(event.message.ParseFromString(self.inbox.front()));
    self.inbox.pop_front();
    ++delivered_;
    if (observer_) observer_(side == kAcceptor, event.message);
    Deliver(side, std::move(event));
    return true;
  }
  Side& acceptor = sides_[kAcceptor];
  if (acceptor.held.empty()) return false;
  const Effect effect = std::move(acceptor.held.front());
  acceptor.held.pop_front();
  Deliver(kAcceptor, *Perform(acceptor.replica, effect));
  return true;
}

std::vector<std::string> Loopback::TakeNotes() {
  std::vector<std::string> notes = sides_[kInitiator].session.TakeNotes();
  for (std::string& note : sides_[kAcceptor].session.TakeNotes()) notes.push_back(std::move(note));
  for (Side& side : sides_) {
    for (std::string& damage : side.session.TakeDamage()) notes.push_back(std::move(damage));
  }
  return notes;
}

absl::Status Loopback::Run(uint64_t messages_max) {
  while (delivered_ < messages_max && Step()) {
  }
  for (const Side& side : sides_) {
    if (side.session.ended()) return side.ended;
  }
  if (sides_[0].session.quiet() && sides_[1].session.quiet()) return absl::OkStatus();
  return absl::OutOfRangeError("not everything was sent");
}

}  // namespace chaptersync::node
