// SPDX-License-Identifier: Apache-2.0
//
// Runs the lines of a history; see history.h. A sync is a session over a loopback.
// One thread.
#include "tools/replay/history.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "replay_record.pb.h"
#include <nlohmann/json.hpp>

#include "node/host/loopback.h"
#include "storage/core/digest.h"
#include "storage/core/record_codec.h"
#include "storage/core/status.h"

namespace chaptersync::tools {
namespace {

using nlohmann::json;
using storage::CellPath;
using storage::LocalWrite;
using storage::Scope;

constexpr storage::EntityNumber kEntity{60000};
constexpr char kActor[] = "replay";

// A wall clock that the history sets, and random numbers from the replica's id.
class ReplayEnvironment : public storage::Environment {
 public:
  explicit ReplayEnvironment(uint64_t seed) : state_(seed) {}
  uint64_t NowMs() override { return wall_ms; }
  // splitmix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number
  // Generators", 2014).
  uint64_t Random() override {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  uint64_t wall_ms = 0;

 private:
  uint64_t state_;
};

storage::RecordId IdOf(const std::string& name) {
  const std::string digest = storage::Sha256(name);
  storage::RecordId id;
  std::copy_n(digest.begin(), id.bytes.size(), id.bytes.begin());
  return id;
}

// "city", "labels/blue", or "" for the record's existence.
absl::StatusOr<CellPath> PathOf(const std::string& field) {
  if (field.empty()) return CellPath::Existence();
  const size_t slash = field.find('/');
  const auto* descriptor =
      replay::ReplayRecord::descriptor()->FindFieldByName(field.substr(0, slash));
  if (descriptor == nullptr || descriptor->is_map() != (slash != std::string::npos)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "field '", field, "' is not chapter, city, phone, email, employer or labels/<key>"));
  }
  CellPath path{.field = static_cast<uint32_t>(descriptor->number()), .map_key = {}};
  if (slash != std::string::npos) path.map_key = field.substr(slash + 1);
  return path;
}

std::string FieldOf(const CellPath& path) {
  if (path.existence()) return "";
  const auto* descriptor =
      replay::ReplayRecord::descriptor()->FindFieldByNumber(static_cast<int>(path.field));
  return path.map_key ? absl::StrCat(descriptor->name(), "/", *path.map_key) : descriptor->name();
}

// A cell's bytes of a JSON value: a string, null for cleared, true or false for
// the record's existence.
absl::StatusOr<std::optional<std::string>> BytesOf(const CellPath& path, const json& value) {
  if (path.existence() && value.is_boolean()) {
    return value.get<bool>() ? storage::DeletedValue() : storage::RestoredValue();
  }
  if (!path.existence() && value.is_null()) return std::nullopt;
  if (path.existence() || !value.is_string()) {
    return absl::InvalidArgumentError(
        absl::StrCat("value ", value.dump(), " of field '", FieldOf(path),
                     "' is not a string or null (true or false for the field '')"));
  }
  if (path.map_key) return value.get<std::string>();
  std::string wire;
  storage::AppendVarint(uint64_t{path.field} * 8 + 2, wire);
  storage::AppendString(value.get<std::string>(), wire);
  return wire;
}

json ValueOf(const CellPath& path, const std::optional<std::string>& bytes) {
  if (path.existence()) return bytes == storage::DeletedValue();
  if (!bytes) return nullptr;
  if (path.map_key) return *bytes;
  const auto text = storage::StringOf(bytes);
  return text ? json(std::string(*text)) : json(nullptr);
}

// null first, then by value.
bool LoserLess(const json& a, const json& b) {
  const auto key = [](const json& loser) {
    const json& value = loser[1];
    const std::string text = value.is_string()    ? value.get<std::string>()
                             : value.is_boolean() ? (value.get<bool>() ? "True" : "False")
                                                  : "";
    return std::tuple(loser[0].get<std::string>(), !value.is_null(), text,
                      loser[2].get<std::string>());
  };
  return key(a) < key(b);
}

}  // namespace

struct History::Member {
  std::string name;
  storage::ReplicaOptions options;
  std::unique_ptr<storage::Engine> engine;
  std::unique_ptr<ReplayEnvironment> environment;
  std::unique_ptr<storage::Replica> replica;
};

History::History(EngineFactory make_engine)
    : make_engine_(std::move(make_engine)),
      registry_(*node::EntityRegistry::Make({replay::ReplayRecord::descriptor()})) {}

History::~History() = default;

absl::StatusOr<History::Member*> History::Find(const std::string& name) {
  auto it = members_.find(name);
  if (it == members_.end()) {
    return absl::InvalidArgumentError(absl::StrCat("there is no replica '", name, "'"));
  }
  return it->second.get();
}

absl::Status History::AddReplica(const std::string& name, uint64_t id, bool hub,
                                 const std::string& chapter) {
  if (members_.contains(name) || id == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("replica '", name, "' is there already, or its id ", id, " is 0"));
  }
  auto member = std::make_unique<Member>();
  member->name = name;
  member->environment = std::make_unique<ReplayEnvironment>(id);
  member->options.hub = hub;
  member->options.chapter = chapter;
  member->options.entities = node::StorageRules(registry_);
  member->options.ahead_max_ms = std::nullopt;
  // Ids with a common upper half are of one replica: small numbers have none, and keep their order
  // in it.
  member->options.replica_id =
      storage::ReplicaId{id <= UINT32_MAX ? id << storage::kLineageShift : id};
  member->options.node.bytes = IdOf("node " + name).bytes;
  CHAPTER_ASSIGN_OR_RETURN(member->engine, make_engine_(name));
  CHAPTER_RETURN_IF_ERROR(Open(*member));
  members_[name] = std::move(member);
  return absl::OkStatus();
}

absl::Status History::Open(Member& member) {
  member.replica.reset();
  CHAPTER_ASSIGN_OR_RETURN(
      member.replica, storage::Replica::Open(*member.engine, *member.environment, member.options));
  return absl::OkStatus();
}

absl::Status History::Sync(Member& node, Member& hub, std::optional<Cut> cut) {
  node::SessionConfig initiator;
  initiator.initiator = true;
  initiator.hub = node.options.hub;
  for (const node::EntityType& type : registry_.types()) {
    initiator.entities[type.number] = type.rule.fingerprint;
  }
  node::SessionConfig acceptor = initiator;
  acceptor.initiator = false;
  acceptor.hub = true;
  std::set<Scope> scopes;
  if (!initiator.hub) scopes = {Scope::Global(), Scope::Chapter(node.options.chapter)};
  node::Loopback loopback(*node.replica, initiator, *hub.replica, acceptor, scopes);
  if (cut) {
    const absl::Status status = loopback.Run(cut->messages);
    if (!status.ok() && !absl::IsOutOfRange(status)) return status;
    for (const auto& [crashes, member] :
         {std::pair{cut->crash_node, &node}, std::pair{cut->crash_hub, &hub}}) {
      if (!crashes) continue;
      crash_(*member->engine);
      CHAPTER_RETURN_IF_ERROR(Open(*member));
    }
    return absl::OkStatus();
  }
  CHAPTER_RETURN_IF_ERROR(loopback.Run());
  messages_most_ = std::max(messages_most_, loopback.delivered());
  for (const node::Session* session : {&loopback.initiator(), &loopback.acceptor()}) {
    counts_.records_sent += session->counts().records_sent;
    counts_.records_received += session->counts().records_received;
    counts_.whole_asked += session->counts().whole_asked;
    counts_.left_sent += session->counts().left_sent;
    counts_.refused += session->counts().refused;
    counts_.conflicts_found += session->counts().conflicts_found;
  }
  return absl::OkStatus();
}

absl::Status History::SyncAndApprove(Member& node, Member& hub) {
  // What was approved may bring what waits next: a record, and then what follows it.
  constexpr int kRoundsMax = 20;
  for (int round = 0; round < kRoundsMax; ++round) {
    CHAPTER_RETURN_IF_ERROR(Sync(node, hub, std::nullopt));
    const std::vector<storage::Approval> waiting = hub.replica->ListApprovals(0, SIZE_MAX);
    if (waiting.empty()) return absl::OkStatus();
    for (const storage::Approval& approval : waiting) {
      const auto approved = hub.replica->Approve(approval.number);
      // An erasure takes along what else waits of the record.
      if (!approved.ok() && !absl::IsNotFound(approved.status())) return approved.status();
    }
  }
  return absl::InternalError(absl::StrCat("between ", node.name, " and ", hub.name,
                                          " something waits still, ", kRoundsMax,
                                          " approvals later"));
}

absl::Status History::Run(const std::string& line) {
  const json op = json::parse(line, nullptr, false);
  if (!op.is_object() || !op.contains("op")) {
    return absl::InvalidArgumentError(
        absl::StrCat("line is not an object with \"op\": ", line.substr(0, 80)));
  }
  const auto text = [&](const char* name) {
    return op.contains(name) && op[name].is_string() ? op[name].get<std::string>() : std::string();
  };
  const std::string kind = text("op");
  if (kind == "replica") {
    const bool hub = op.value("hub", false);
    if (!op.contains("id") || !op["id"].is_number_unsigned()) {
      return absl::InvalidArgumentError("a replica's id is not a number");
    }
    return AddReplica(text("name"), op["id"].get<uint64_t>(), hub, text("chapter"));
  }
  if (kind == "sync") {
    CHAPTER_ASSIGN_OR_RETURN(Member * node, Find(text("node")));
    CHAPTER_ASSIGN_OR_RETURN(Member * hub, Find(text("hub")));
    ++syncs_;
    if (const auto cut = cut_ ? cut_(syncs_) : std::nullopt) {
      CHAPTER_RETURN_IF_ERROR(Sync(*node, *hub, cut));
    }
    return SyncAndApprove(*node, *hub);
  }
  CHAPTER_ASSIGN_OR_RETURN(Member * at, Find(text("at")));
  if (kind == "clock") {
    if (!op.contains("ms") || !op["ms"].is_number_unsigned()) {
      return absl::InvalidArgumentError("a clock's ms is not a number of milliseconds");
    }
    at->environment->wall_ms = op["ms"].get<uint64_t>();
    return absl::OkStatus();
  }
  LocalWrite write;
  write.actor = kActor;
  write.key = {kEntity, IdOf(text("record"))};
  names_[write.key.id] = text("record");
  if (kind == "put") {
    write.kind = LocalWrite::Kind::kUpsert;
    if (!op.contains("fields") || !op["fields"].is_object()) {
      return absl::InvalidArgumentError("a put has no fields");
    }
    for (const auto& [field, value] : op["fields"].items()) {
      CHAPTER_ASSIGN_OR_RETURN(CellPath path, PathOf(field));
      CHAPTER_ASSIGN_OR_RETURN(auto bytes, BytesOf(path, value));
      write.cells.push_back({std::move(path), std::move(bytes)});
    }
  } else if (kind == "delete") {
    write.kind = LocalWrite::Kind::kDelete;
  } else if (kind == "restore") {
    write.kind = LocalWrite::Kind::kRestore;
  } else if (kind == "erase") {
    write.kind = LocalWrite::Kind::kErase;
  } else if (kind == "settle") {
    write.kind = LocalWrite::Kind::kSettle;
    CHAPTER_ASSIGN_OR_RETURN(write.path, PathOf(text("field")));
    CHAPTER_ASSIGN_OR_RETURN(
        write.lost, BytesOf(write.path, op.contains("value") ? op["value"] : json(nullptr)));
    write.choice = text("choice") == "take" ? storage::Choice::kTake : storage::Choice::kKeep;
  } else {
    return absl::InvalidArgumentError(absl::StrCat("operation '", kind, "' is not known"));
  }
  CHAPTER_ASSIGN_OR_RETURN(const auto results, at->replica->Write({write}));
  // A refused operation does nothing; a limit or a damaged engine is an error.
  const absl::Status& status = results.front().status;
  const bool refused = absl::IsFailedPrecondition(status) || absl::IsNotFound(status) ||
                       absl::IsAlreadyExists(status) || absl::IsPermissionDenied(status);
  return refused ? absl::OkStatus() : status;
}

absl::StatusOr<std::vector<std::string>> History::Result() const {
  std::vector<std::string> lines;
  for (const auto& [name, member] : members_) {
    std::map<std::string, json> rows;
    std::optional<storage::RecordId> after;
    while (true) {
      CHAPTER_ASSIGN_OR_RETURN(const auto records, member->replica->List(kEntity, after, 1000));
      if (records.empty()) break;
      after = records.back().first.id;
      for (const auto& [key, stored] : records) {
        const storage::Record& record = stored.record;
        json row;
        row["replica"] = name;
        row["record"] = names_.at(key.id);
        row["state"] = record.erased ? "erased" : record.live() ? "live" : "deleted";
        row["fields"] = json::object();
        for (const storage::Cell& cell : record.cells) {
          if (!record.live() || cell.path.existence() || !cell.value) continue;
          row["fields"][FieldOf(cell.path)] = ValueOf(cell.path, cell.value);
        }
        std::vector<json> losers;
        for (const storage::ConflictEntry& e : record.conflicts) {
          losers.push_back(
              {FieldOf(e.path), ValueOf(e.path, e.lost_value), e.open() ? "open" : "settled"});
        }
        std::sort(losers.begin(), losers.end(), LoserLess);
        row["losers"] = losers;
        rows[names_.at(key.id)] = std::move(row);
      }
    }
    for (const auto& [record, row] : rows) lines.push_back(row.dump());
  }
  return lines;
}

}  // namespace chaptersync::tools
