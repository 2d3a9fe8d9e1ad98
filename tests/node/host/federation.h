// SPDX-License-Identifier: Apache-2.0
//
// A small federation for tests: replicas on memory engines, clocks that the test
// sets, sessions over a loopback. Two entities: notes, which belong to a chapter,
// and replies, which follow a note or another reply.
#ifndef CHAPTERSYNC_TESTS_NODE_HOST_FEDERATION_H_
#define CHAPTERSYNC_TESTS_NODE_HOST_FEDERATION_H_

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "node/host/loopback.h"
#include "storage/core/record_codec.h"
#include "storage/engine/memory_engine.h"
#include "storage/replica/replica.h"

namespace chaptersync::node {

inline constexpr storage::EntityNumber kNote{1};
inline constexpr storage::EntityNumber kReply{2};
inline constexpr uint32_t kChapterField = 1;
inline constexpr uint32_t kTextField = 2;
inline constexpr uint32_t kOtherField = 3;
inline constexpr uint32_t kHqField = 4;     // written by headquarters only
inline constexpr uint32_t kNoteField = 5;   // of a reply: the note it follows
inline constexpr uint32_t kReplyField = 6;  // of a reply: the reply it follows

// The wire bytes of an optional string field.
inline std::string Wire(uint32_t field, const std::string& text) {
  std::string out;
  storage::AppendVarint(uint64_t{field} * 8 + 2, out);
  storage::AppendString(text, out);
  return out;
}

inline storage::RecordKey Key(storage::EntityNumber entity, uint8_t number) {
  storage::RecordKey key{entity, {}};
  key.id.bytes[15] = number;
  return key;
}

inline std::map<storage::EntityNumber, storage::EntityRule> TestRules() {
  using Kind = storage::ScopeClause::Kind;
  storage::EntityRule note;
  note.fingerprint = 11;
  note.headquarters_fields = {kHqField};
  note.scope.clauses.push_back(
      {.kind = Kind::kGlobal,
       .when = storage::ScopeClause::Condition{kChapterField, Wire(kChapterField, "everybody")}});
  note.scope.clauses.push_back({.kind = Kind::kChapterField, .field = kChapterField});
  storage::EntityRule reply;
  reply.fingerprint = 12;
  reply.scope.clauses.push_back({.kind = Kind::kFollows, .field = kNoteField, .leader = kNote});
  reply.scope.clauses.push_back({.kind = Kind::kFollows, .field = kReplyField, .leader = kReply});
  return {{kNote, note}, {kReply, reply}};
}

class TestEnvironment : public storage::Environment {
 public:
  explicit TestEnvironment(uint64_t seed) : state_(seed) {}
  uint64_t NowMs() override { return now_ms; }
  uint64_t Random() override {
    return state_ = state_ * 6364136223846793005u + 1442695040888963407u;
  }
  uint64_t now_ms = 1'700'000'000'000;

 private:
  uint64_t state_;
};

// One replica with what it stands on.
struct Site {
  Site(const std::string& name, bool hub, uint64_t seed)
      : environment(seed), engine(std::make_unique<storage::MemoryEngine>()) {
    options.hub = hub;
    options.chapter = hub ? "" : name;
    options.node.bytes[0] = static_cast<uint8_t>(seed);
    options.entities = TestRules();
    Open();
  }

  void Open() {
    replica.reset();
    auto opened = storage::Replica::Open(*engine, environment, options);
    EXPECT_TRUE(opened.ok()) << opened.status();
    if (opened.ok()) replica = *std::move(opened);
  }

  absl::Status Write(storage::LocalWrite write) {
    write.actor = "tester";
    auto results = replica->Write({write});
    return results.ok() ? results->front().status : results.status();
  }
  absl::Status Put(const storage::RecordKey& key,
                   const std::map<uint32_t, std::optional<std::string>>& fields) {
    storage::LocalWrite write{.kind = storage::LocalWrite::Kind::kUpsert, .key = key};
    for (const auto& [field, text] : fields) {
      write.cells.push_back({{.field = field, .map_key = {}},
                             text ? std::optional(Wire(field, *text)) : std::nullopt});
    }
    return Write(std::move(write));
  }
  absl::Status Do(storage::LocalWrite::Kind kind, const storage::RecordKey& key) {
    return Write({.kind = kind, .key = key});
  }

  bool Has(const storage::RecordKey& key) const { return replica->Read(key).ok(); }
  storage::Record Get(const storage::RecordKey& key) const {
    auto stored = replica->Read(key);
    return stored.ok() ? stored->record : storage::Record{};
  }
  std::string Text(const storage::RecordKey& key, uint32_t field) const {
    const storage::Record record = Get(key);
    const storage::Cell* cell = record.Find({.field = field, .map_key = {}});
    if (cell == nullptr) return "(none)";
    const auto text = storage::StringOf(cell->value);
    return text ? std::string(*text) : "(cleared)";
  }
  std::set<storage::Scope> Scopes(const storage::RecordKey& key) const {
    auto stored = replica->Read(key);
    if (!stored.ok()) return {};
    const auto current = stored->meta.Current();
    return {current.begin(), current.end()};
  }

  storage::ReplicaOptions options;
  TestEnvironment environment;
  std::unique_ptr<storage::MemoryEngine> engine;
  std::unique_ptr<storage::Replica> replica;
};

inline SessionConfig TestConfig(const Site& site, bool initiator) {
  SessionConfig config;
  config.initiator = initiator;
  config.hub = site.options.hub;
  static uint64_t sessions = 0;
  config.id = ++sessions;
  for (const auto& [entity, rule] : site.options.entities)
    config.entities[entity] = rule.fingerprint;
  return config;
}

inline std::set<storage::Scope> ScopesOf(const Site& site) {
  if (site.options.hub) return {};
  return {storage::Scope::Global(), storage::Scope::Chapter(site.options.chapter)};
}

// Syncs until both are quiet; begins again where a session says so.
inline absl::Status Sync(Site& node, Site& hub, SessionCounts* counts = nullptr,
                         std::vector<std::string>* notes = nullptr) {
  for (int attempt = 0; attempt < 4; ++attempt) {
    Loopback loopback(*node.replica, TestConfig(node, true), *hub.replica, TestConfig(hub, false),
                      ScopesOf(node));
    const absl::Status status = loopback.Run();
    if (counts != nullptr) *counts = loopback.initiator().counts();
    if (notes != nullptr) {
      for (std::string& note : loopback.TakeNotes()) notes->push_back(std::move(note));
    }
    if (!loopback.restart()) return status;
  }
  return absl::InternalError("the session began again four times");
}

// Copies an engine's content into another, as a virtual machine's clone has it.
inline void Clone(const storage::Engine& from, storage::Engine& to) {
  storage::WriteBatch batch;
  auto snapshot = from.NewSnapshot();
  for (int table = 0; table < storage::kTableCount; ++table) {
    auto it = snapshot->NewIterator(static_cast<storage::Table>(table), "", "");
    for (it->SeekToFirst(); it->Valid(); it->Next()) {
      batch.Put(static_cast<storage::Table>(table), it->key(), it->value());
    }
  }
  ASSERT_TRUE(to.Write(batch).ok());
  ASSERT_TRUE(to.Sync().ok());
}

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_TESTS_NODE_HOST_FEDERATION_H_
