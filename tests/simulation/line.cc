// SPDX-License-Identifier: Apache-2.0
//
// Streams with faults; see line.h. As gRPC does it: an acceptor's status reaches
// the initiator, which itself can only hang up. One thread.
#include "tests/simulation/line.h"

#include <algorithm>
#include <utility>

#include "storage/core/status.h"

namespace chaptersync::simulation {

class Line::EndOfLine final : public node::Transport {
 public:
  EndOfLine(std::shared_ptr<Line> line, size_t side) : line_(std::move(line)), side_(side) {}
  void Read() override { line_->Read(side_); }
  void Send(v1::SyncMessage message) override { line_->Send(side_, message); }
  void Close(const absl::Status& status) override { line_->Close(side_, status); }
  size_t backlog_bytes() const override { return line_->ends_[1 - side_].queue_bytes; }

 private:
  const std::shared_ptr<Line> line_;
  const size_t side_;
};

Line::Line(Scheduler& scheduler, Random& random, Hooks hooks, size_t backlog_bytes_max)
    : scheduler_(scheduler),
      random_(random),
      hooks_(std::move(hooks)),
      backlog_bytes_max_(backlog_bytes_max),
      latency_ms_(random.Chance(800) ? random.Between(1, 40) : random.Between(40, 800)) {}

std::shared_ptr<node::Transport> Line::End(size_t side) {
  return std::make_shared<EndOfLine>(shared_from_this(), side);
}

void Line::Read(size_t side) {
  ends_[side].reading = true;
  Deliver(side);
}

void Line::Send(size_t side, const v1::SyncMessage& message) {
  std::string bytes = message.SerializeAsString();
  if (hooks_.sends && !hooks_.sends(side, message, bytes.size())) return;
  if (!ends_[side].closed && !ends_[side].loses) Enqueue(1 - side, std::move(bytes));
  if (hooks_.waits) hooks_.waits(side, ends_[1 - side].queue_bytes);
}

void Line::Inject(size_t side, const v1::SyncMessage& message) {
  Enqueue(1 - side, message.SerializeAsString());
}

void Line::Enqueue(size_t side, std::string bytes) {
  Side& to = ends_[side];
  if (cut_ || to.closed) return;
  const uint64_t arrives_ms =
      std::max({to.last_arrival_ms, to.clogged_until_ms,
                scheduler_.now_ms() + latency_ms_ + random_.Below(latency_ms_ / 4 + 1)});
  to.last_arrival_ms = arrives_ms;
  to.queue_bytes += bytes.size();
  to.queue.push_back({std::move(bytes), arrives_ms});
  Deliver(side);
}

void Line::Deliver(size_t side) {
  Side& to = ends_[side];
  if ((!to.reading && !to.puppet) || to.queue.empty() || to.closed || to.delivering) return;
  to.delivering = true;
  const uint64_t at_ms = std::max(
      {to.queue.front().arrives_ms, to.clogged_until_ms, scheduler_.now_ms() + to.read_ms});
  scheduler_.After(at_ms - scheduler_.now_ms(), [self = shared_from_this(), side] {
    self->ends_[side].delivering = false;
    self->HandOver(side);
  });
}

void Line::HandOver(size_t side) {
  Side& to = ends_[side];
  if (to.closed || cut_ || to.queue.empty() || (!to.reading && !to.puppet)) return;
  if (to.clogged_until_ms > scheduler_.now_ms()) return Deliver(side);
  if (cut_after_ && (*cut_after_)-- == 0) {
    if (cuts_) cuts_();
    return Cut();
  }
  const std::string bytes = std::move(to.queue.front().bytes);
  to.queue.pop_front();
  const size_t before = to.queue_bytes;
  to.queue_bytes -= bytes.size();
  Side& from = ends_[1 - side];
  if (before > backlog_bytes_max_ && to.queue_bytes <= backlog_bytes_max_ && from.host) {
    from.host->Drained();
  }
  v1::SyncMessage message;
  CHAPTER_CHECK(message.ParseFromString(bytes));
  to.reading = false;
  if (hooks_.delivers) hooks_.delivers(side, message);
  if (to.puppet) {
    to.puppet(message);
    Deliver(side);
  } else if (to.host) {
    to.host->MessageArrived(std::move(message));
  }
}

void Line::Closed(size_t side, const absl::Status& status) {
  Side& end = ends_[side];
  if (std::exchange(end.closed, true)) return;
  end.queue.clear();
  end.queue_bytes = 0;
  if (end.host) end.host->StreamClosed(status);
  end.host = nullptr;
  end.puppet = nullptr;
}

void Line::Close(size_t side, const absl::Status& status) {
  if (ends_[side].closed) return;
  if (side == kInitiator) {
    Closed(kInitiator, status);
    scheduler_.After(latency_ms_, [self = shared_from_this()] {
      Side& acceptor = self->ends_[kAcceptor];
      if (acceptor.closed) return;
      if (acceptor.host) {
        acceptor.host->StreamBroken(absl::CancelledError("the node hung up"));
      } else {
        self->Closed(kAcceptor, absl::CancelledError("the node hung up"));
      }
    });
    return;
  }
  // What was sent may arrive before the status does, or not.
  const uint64_t wait_ms = random_.Chance(500) ? 0 : latency_ms_ * 2;
  Closed(kAcceptor, absl::OkStatus());
  scheduler_.After(latency_ms_ + wait_ms, [self = shared_from_this(), status] {
    self->Closed(kInitiator, status.ok() ? absl::CancelledError("the hub ended it") : status);
  });
}

void Line::Cut() {
  if (std::exchange(cut_, true)) return;
  for (const size_t side : {kInitiator, kAcceptor}) {
    scheduler_.After(random_.Below(300), [self = shared_from_this(), side] {
      const absl::Status status = absl::UnavailableError("the line broke");
      Side& end = self->ends_[side];
      if (end.closed) return;
      if (side == kAcceptor && end.host) {
        end.host->StreamBroken(status);
      } else {
        self->Closed(side, status);
      }
    });
  }
}

void Line::LoseFrom(size_t side, uint64_t found_ms) {
  ends_[side].loses = true;
  scheduler_.After(found_ms, [self = shared_from_this()] { self->Cut(); });
}

void Line::Clog(size_t side, uint64_t ms) {
  ends_[1 - side].clogged_until_ms = scheduler_.now_ms() + ms;
}

void Line::HangUpUnheard(uint64_t found_ms) {
  Closed(kInitiator, absl::UnavailableError("the network changed"));
  ends_[kAcceptor].loses = true;
  scheduler_.After(found_ms, [self = shared_from_this()] { self->Cut(); });
}

void Line::SideIsGone(size_t side, uint64_t found_ms) {
  Side& end = ends_[side];
  if (std::exchange(end.closed, true)) return;
  end.host = nullptr;
  end.puppet = nullptr;
  end.queue.clear();
  end.queue_bytes = 0;
  ends_[1 - side].loses = true;
  scheduler_.After(found_ms, [self = shared_from_this()] { self->Cut(); });
}

}  // namespace chaptersync::simulation
