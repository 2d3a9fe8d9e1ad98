// SPDX-License-Identifier: Apache-2.0
//
// A session between two replicas in one thread, without a network: what one side
// sends the other gets, in order, as the bytes that would travel. For replaying
// histories and for tests, which can cut it after any message.
#ifndef CHAPTERSYNC_NODE_HOST_LOOPBACK_H_
#define CHAPTERSYNC_NODE_HOST_LOOPBACK_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "node/session/session.h"
#include "storage/replica/replica.h"

namespace chaptersync::node {

class Loopback {
 public:
  // The acceptor takes the initiator as a holder of `scopes`; empty: as a hub.
  Loopback(storage::Replica& initiator, SessionConfig initiator_config, storage::Replica& acceptor,
           SessionConfig acceptor_config, std::set<storage::Scope> scopes);

  // Runs until both sides are quiet, or a side ended, or `messages_max` messages
  // were delivered. The initiator's feed goes first, whole; then the acceptor's.
  // OK when quiet; OUT_OF_RANGE after `messages_max`; else the status with which
  // a session ended.
  absl::Status Run(uint64_t messages_max = UINT64_MAX);

  // Delivers one message. False where there is none or a side ended.
  bool Step();

  // Tells both sides that time went by: each sends its heartbeat where one is due.
  void Tick();

  // Called with each message before it is delivered; true if the initiator sent it.
  void set_observer(std::function<void(bool, const v1::SyncMessage&)> observer) {
    observer_ = std::move(observer);
  }
  uint64_t delivered() const { return delivered_; }
  // A side wants to begin anew at once, under another identity.
  bool restart() const { return restart_; }
  // What both sides noted, for the log.
  std::vector<std::string> TakeNotes();
  const Session& initiator() const { return sides_[0].session; }
  const Session& acceptor() const { return sides_[1].session; }

 private:
  static constexpr size_t kInitiator = 0;
  static constexpr size_t kAcceptor = 1;

  struct Side {
    storage::Replica& replica;
    Session session;
    std::deque<std::string> inbox;  // bytes on their way to this side
    std::deque<Effect> todo;
    std::deque<Effect> held;  // feed reads that wait for their turn
    absl::Status ended;
  };

  uint64_t WallMs(size_t side) const;
  void Deliver(size_t side, Event event);
  bool ended() const { return sides_[0].session.ended() || sides_[1].session.ended(); }

  Side sides_[2];
  std::set<storage::Scope> scopes_;
  std::function<void(bool, const v1::SyncMessage&)> observer_;
  uint64_t delivered_ = 0;
  bool restart_ = false;
};

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_HOST_LOOPBACK_H_
