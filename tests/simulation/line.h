// SPDX-License-Identifier: Apache-2.0
//
// A stream between two session hosts over a simulated network: messages travel as
// bytes, take time, and meet every fault that a line can have. Side 0 opened it.
// One thread.
#ifndef CHAPTERSYNC_TESTS_SIMULATION_LINE_H_
#define CHAPTERSYNC_TESTS_SIMULATION_LINE_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"

#include "node/sync/session_host.h"
#include "tests/simulation/random.h"
#include "tests/simulation/scheduler.h"

namespace chaptersync::simulation {

inline constexpr size_t kInitiator = 0;
inline constexpr size_t kAcceptor = 1;

class Line : public std::enable_shared_from_this<Line> {
 public:
  // What the federation hears and decides.
  struct Hooks {
    // A side sends: false where its computer has no power left for it.
    std::function<bool(size_t side, const v1::SyncMessage& message, size_t bytes)> sends;
    // A message is handed over to a side.
    std::function<void(size_t side, const v1::SyncMessage& message)> delivers;
    // The most that waited to be sent by a side, after each Send.
    std::function<void(size_t side, size_t backlog_bytes)> waits;
  };

  Line(Scheduler& scheduler, Random& random, Hooks hooks, size_t backlog_bytes_max);

  void Connect(size_t side, std::shared_ptr<node::SessionHost> host) {
    ends_[side].host = std::move(host);
  }
  // A side without a host: what it receives goes here.
  void Connect(size_t side, std::function<void(const v1::SyncMessage&)> puppet) {
    ends_[side].puppet = std::move(puppet);
  }
  std::shared_ptr<node::Transport> End(size_t side);
  // A puppet sends; its end of the stream is closed.
  void Send(size_t side, const v1::SyncMessage& message);
  void Close(size_t side, const absl::Status& status);
  // As if `side` had sent it, and it did not: nobody hears of it but who receives it.
  void Inject(size_t side, const v1::SyncMessage& message);

  // --- Faults. ---
  // The line breaks: both sides hear of it, each after its own time.
  void Cut();
  // It breaks after so many more messages have been handed over.
  // `cuts` is called when it does.
  void CutAfter(uint64_t messages, std::function<void()> cuts = {}) {
    cut_after_ = messages;
    cuts_ = std::move(cuts);
  }
  // What `side` sends from now on is lost, and nobody is told; the keepalive finds
  // out after `found_ms`.
  void LoseFrom(size_t side, uint64_t found_ms);
  // Nothing from `side` arrives before `ms` from now; then all does.
  void Clog(size_t side, uint64_t ms);
  // `side` takes this long for each message.
  void SlowReader(size_t side, uint64_t ms) { ends_[side].read_ms = ms; }
  // The initiator's end breaks, and the acceptor does not hear of it before `found_ms`.
  void HangUpUnheard(uint64_t found_ms);
  // The computer of a side has lost its power: its host is gone.
  void SideIsGone(size_t side, uint64_t found_ms);

  bool open() const { return !ends_[0].closed || !ends_[1].closed; }
  // Messages on their way.
  size_t under_way() const { return ends_[0].queue.size() + ends_[1].queue.size(); }

 private:
  struct Packet {
    std::string bytes;
    uint64_t arrives_ms;
  };
  struct Side {
    std::shared_ptr<node::SessionHost> host;
    std::function<void(const v1::SyncMessage&)> puppet;
    std::deque<Packet> queue;  // on their way to this side
    size_t queue_bytes = 0;
    bool reading = false;
    bool delivering = false;  // an event is scheduled
    bool closed = false;
    bool loses = false;             // what this side sends
    uint64_t clogged_until_ms = 0;  // on its way to this side
    uint64_t read_ms = 0;
    uint64_t last_arrival_ms = 0;
  };
  class EndOfLine;

  void Read(size_t side);
  void Enqueue(size_t side, std::string bytes);
  void Deliver(size_t side);
  void HandOver(size_t side);
  void Closed(size_t side, const absl::Status& status);

  Scheduler& scheduler_;
  Random& random_;
  const Hooks hooks_;
  const size_t backlog_bytes_max_;
  Side ends_[2];
  std::optional<uint64_t> cut_after_;
  std::function<void()> cuts_;
  bool cut_ = false;
  uint64_t latency_ms_;
};

}  // namespace chaptersync::simulation

#endif  // CHAPTERSYNC_TESTS_SIMULATION_LINE_H_
