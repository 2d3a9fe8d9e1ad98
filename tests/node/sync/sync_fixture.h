// SPDX-License-Identifier: Apache-2.0
//
// For tests of sessions at work: replicas on memory engines that many threads may
// use, with one entity of notes that belong to a chapter, and streams between two
// hosts of one process. Any thread, where nothing else is said.
#ifndef CHAPTERSYNC_TESTS_NODE_SYNC_SYNC_FIXTURE_H_
#define CHAPTERSYNC_TESTS_NODE_SYNC_SYNC_FIXTURE_H_

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include <gtest/gtest.h>

#include "node/sync/session_host.h"
#include "node/sync/waker.h"
#include "storage/core/record_codec.h"
#include "storage/engine/memory_engine.h"
#include "storage/replica/replica.h"

namespace chaptersync::node {

// Far above what any of it takes on a busy machine, in milliseconds.
inline constexpr int64_t kPatienceMs = 60'000;

// Waits until the condition holds.
inline bool Eventually(const std::function<bool()>& condition) {
  constexpr int64_t kLookEveryMs = 2;
  const int64_t end_ms = SteadyMs() + kPatienceMs;
  Waker nobody;
  while (!condition()) {
    if (SteadyMs() > end_ms) return false;
    nobody.WaitFor(kLookEveryMs);
  }
  return true;
}

class RealEnvironment final : public storage::Environment {
 public:
  explicit RealEnvironment(uint64_t seed) : random_(seed) {}
  uint64_t NowMs() override {
    if (stands_at_ms != 0) return stands_at_ms;
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    return static_cast<uint64_t>(
               std::chrono::duration_cast<std::chrono::milliseconds>(now).count()) +
           ahead_ms;
  }
  uint64_t Random() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    return random_();
  }
  std::atomic<uint64_t> ahead_ms = 0;
  std::atomic<uint64_t> stands_at_ms = 0;  // not 0: the clock does not move

 private:
  std::mutex mutex_;
  std::mt19937_64 random_;
};

inline constexpr storage::EntityNumber kNote{9001};
inline constexpr uint32_t kNoteChapter = 1;
inline constexpr uint32_t kNoteText = 2;

inline storage::RecordKey NoteKey(uint32_t number) {
  storage::RecordKey key{kNote, {}};
  for (size_t i = 0; i < 4; ++i) {
    key.id.bytes[15 - i] = static_cast<uint8_t>(number >> (8 * i));
  }
  return key;
}

// The wire bytes of an optional string field.
inline std::string WireText(uint32_t field, const std::string& text) {
  std::string out;
  storage::AppendVarint(uint64_t{field} * 8 + 2, out);
  storage::AppendString(text, out);
  return out;
}

// Notes, and whatever else is given.
inline std::map<storage::EntityNumber, storage::EntityRule> NoteRules(
    std::map<storage::EntityNumber, storage::EntityRule> more = {}) {
  storage::EntityRule rule;
  rule.fingerprint = 17;
  rule.scope.clauses.push_back(
      {.kind = storage::ScopeClause::Kind::kChapterField, .field = kNoteChapter});
  more[kNote] = rule;
  return more;
}

// One replica with what it stands on.
struct Site {
  // `chapter` empty: a hub.
  Site(const std::string& chapter, uint8_t seed,
       std::map<storage::EntityNumber, storage::EntityRule> more = {})
      : environment(seed) {
    options.hub = chapter.empty();
    options.chapter = chapter;
    options.node.bytes[0] = seed;
    options.entities = NoteRules(std::move(more));
    Open();
  }

  // As after a power failure: what was not synced is gone.
  void Restart() {
    replica.reset();
    engine.Crash();
    Open();
  }

  void Open() {
    auto opened = storage::Replica::Open(engine, environment, options);
    EXPECT_TRUE(opened.ok()) << opened.status();
    replica = *std::move(opened);
  }

  absl::Status Put(uint32_t number, const std::string& chapter, const std::string& text) {
    storage::LocalWrite write{.key = NoteKey(number), .actor = "tester"};
    write.cells = {{{kNoteChapter, {}}, WireText(kNoteChapter, chapter)},
                   {{kNoteText, {}}, WireText(kNoteText, text)}};
    auto results = replica->Write({write});
    return results.ok() ? results->front().status : results.status();
  }

  // Empty where the note is not here.
  std::string Text(uint32_t number) const {
    auto stored = replica->Read(NoteKey(number));
    if (!stored.ok()) return "";
    const storage::Cell* cell = stored->record.Find({kNoteText, {}});
    if (cell == nullptr) return "";
    const auto text = storage::StringOf(cell->value);
    return text ? std::string(*text) : "";
  }

  bool WaitFor(uint32_t number, const std::string& text) const {
    return Eventually([&] { return Text(number) == text; });
  }

  storage::ReplicaOptions options;
  RealEnvironment environment;
  storage::MemoryEngine engine;
  std::unique_ptr<storage::Replica> replica;
};

inline SessionConfig SiteConfig(const Site& site, bool initiator) {
  SessionConfig config;
  config.initiator = initiator;
  config.hub = site.replica->options().hub;
  for (const auto& [entity, rule] : site.replica->options().entities) {
    config.entities[entity] = rule.fingerprint;
  }
  return config;
}

// A stream between two hosts. Messages travel as bytes.
class Pair : public std::enable_shared_from_this<Pair> {
 public:
  // Cuts the line after this many messages; none: never.
  explicit Pair(std::optional<int> cut_after = std::nullopt) : left_(cut_after) {}

  void Connect(const std::shared_ptr<SessionHost>& initiator,
               const std::shared_ptr<SessionHost>& acceptor) {
    absl::MutexLock lock(&mutex_);
    ends_[0].host = initiator;
    ends_[1].host = acceptor;
  }
  std::shared_ptr<Transport> initiator() { return std::make_shared<End>(shared_from_this(), 0); }
  std::shared_ptr<Transport> acceptor() { return std::make_shared<End>(shared_from_this(), 1); }

  // The line breaks.
  void Cut() {
    absl::MutexLock lock(&mutex_);
    CutLocked();
  }

  // Lets the hosts go, for those that will not run any more: nothing is told to them.
  void Forget() {
    std::shared_ptr<SessionHost> hosts[2];  // may end without the lock
    absl::MutexLock lock(&mutex_);
    for (size_t i = 0; i < 2; ++i) {
      hosts[i] = std::move(ends_[i].host);
      ends_[i].closed = true;
    }
  }

 private:
  struct Side {
    std::shared_ptr<SessionHost> host;
    std::deque<std::string> queue;  // to be read by this side
    bool reading = false;
    bool closed = false;
  };

  class End final : public Transport {
   public:
    End(std::shared_ptr<Pair> pair, size_t side) : pair_(std::move(pair)), side_(side) {}
    void Read() override { pair_->Read(side_); }
    void Send(v1::SyncMessage message) override { pair_->Send(side_, message); }
    void Close(const absl::Status& status) override { pair_->Close(side_, status); }
    size_t backlog_bytes() const override { return 0; }

   private:
    const std::shared_ptr<Pair> pair_;
    const size_t side_;
  };

  void Read(size_t side) {
    absl::MutexLock lock(&mutex_);
    ends_[side].reading = true;
    Deliver(ends_[side]);
  }

  void Send(size_t side, const v1::SyncMessage& message) {
    absl::MutexLock lock(&mutex_);
    Side& to = ends_[1 - side];
    if (cut_ || to.closed) return;
    if (left_ && (*left_)-- <= 0) return CutLocked();
    to.queue.push_back(message.SerializeAsString());
    Deliver(to);
  }

  void Deliver(Side& side) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!side.reading || side.queue.empty() || side.closed) return;
    side.reading = false;
    v1::SyncMessage message;
    EXPECT_TRUE(message.ParseFromString(side.queue.front()));
    side.queue.pop_front();
    side.host->MessageArrived(std::move(message));
  }

  // As gRPC does it: the acceptor's status reaches the initiator, which itself can
  // only hang up.
  void Close(size_t side, const absl::Status& status) {
    absl::MutexLock lock(&mutex_);
    if (side == 1) {
      End1(absl::OkStatus());
      End0(status.ok() ? absl::CancelledError("ended") : status);
    } else {
      End0(status);
      if (!ends_[1].closed) ends_[1].host->StreamBroken(absl::CancelledError("hung up"));
    }
  }

  void CutLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    cut_ = true;
    End0(absl::UnavailableError("cut"));
    if (!ends_[1].closed) ends_[1].host->StreamBroken(absl::UnavailableError("cut"));
  }

  void End0(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!std::exchange(ends_[0].closed, true)) ends_[0].host->StreamClosed(status);
  }
  void End1(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!std::exchange(ends_[1].closed, true)) ends_[1].host->StreamClosed(status);
  }

  absl::Mutex mutex_;
  Side ends_[2] ABSL_GUARDED_BY(mutex_);
  std::optional<int> left_ ABSL_GUARDED_BY(mutex_);
  bool cut_ ABSL_GUARDED_BY(mutex_) = false;
};

// Options of an acceptor that takes whoever comes as a node of `chapter`.
inline SessionHostOptions AcceptorOptions(const Site& hub, const std::string& chapter) {
  SessionHostOptions options;
  options.config = SiteConfig(hub, false);
  options.name = "node " + chapter;
  options.authorize = [chapter](const Authorize&, const std::function<void(Authorized)>& done) {
    done({absl::OkStatus(), {storage::Scope::Global(), storage::Scope::Chapter(chapter)}});
  };
  return options;
}

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_TESTS_NODE_SYNC_SYNC_FIXTURE_H_
