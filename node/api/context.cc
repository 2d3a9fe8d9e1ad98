// SPDX-License-Identifier: Apache-2.0
//
// Between what a replica holds and the messages of the API. What a peer wrote
// may be any bytes: whatever is shown is made UTF-8 first.
#include "node/api/context.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

#include "node/api/actor.h"
#include "node/entity/cells.h"
#include "node/entity/text.h"
#include "node/entity/value.h"
#include "storage/core/status.h"

namespace chaptersync::node {
namespace {

constexpr char kHeadquarters[] = "hq";

}  // namespace

absl::StatusOr<NamedRecord> ParseName(const ApiContext& api, const std::string& name) {
  const size_t slash = name.find('/');
  if (slash == std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("name '", Shown(name),
                     "' is not allowed (a noun and an id, such as "
                     "members/01890a5d-ac96-774b-bcce-b302099a8057)"));
  }
  NamedRecord out;
  CHAPTER_ASSIGN_OR_RETURN(out.type, api.entities.GetByNoun(name.substr(0, slash)));
  CHAPTER_ASSIGN_OR_RETURN(out.key.id, storage::RecordId::Parse(name.substr(slash + 1)));
  out.key.entity = out.type->number;
  return out;
}

bool Nothing(const storage::Record& record) { return record.cells.empty() && !record.erased; }

absl::StatusOr<storage::StoredRecord> ReadRecord(const ApiContext& api, const NamedRecord& record) {
  auto stored = api.replica.Read(record.key);
  if (absl::IsNotFound(stored.status()) || (stored.ok() && Nothing(stored->record))) {
    return absl::NotFoundError(absl::StrCat("there is no record ", record.name()));
  }
  return stored;
}

google::protobuf::Timestamp ShowTime(storage::HybridTime time) {
  google::protobuf::Timestamp out;
  out.set_seconds(static_cast<int64_t>(time.wall_ms() / 1000));
  out.set_nanos(static_cast<int32_t>(time.wall_ms() % 1000) * 1'000'000);
  return out;
}

absl::StatusOr<std::string> WriterOf(const ApiContext& api,
                                     const grpc::ServerContextBase& context) {
  CHAPTER_ASSIGN_OR_RETURN(std::string actor, ActorOf(context));
  const storage::ReplicaOptions& options = api.replica.options();
  return absl::StrCat(actor, "@", options.hub ? kHeadquarters : options.chapter);
}

v1::WriteInfo ShowWrite(const ApiContext&, const storage::Version& version,
                        const std::string& actor) {
  v1::WriteInfo out;
  const std::string shown = ValidUtf8(actor) ? actor : Shown(actor);
  const size_t at = shown.rfind('@');
  out.set_actor(shown.substr(0, at));
  if (at != std::string::npos) out.set_chapter(shown.substr(at + 1));
  out.set_replica(storage::ToHex(version.replica.value));
  *out.mutable_time() = ShowTime(version.time);
  return out;
}

google::protobuf::Value ShowValue(const ApiContext& api, storage::EntityNumber entity,
                                  const storage::CellPath& path,
                                  const std::optional<std::string>& value) {
  if (const EntityType* type = api.entities.FindByNumber(entity)) {
    return ToJsonValue(*type, path, value);
  }
  google::protobuf::Value out;
  if (!value) {
    out.set_null_value(google::protobuf::NULL_VALUE);
  } else if (path.existence()) {
    out.set_bool_value(*value == storage::DeletedValue());
  } else {
    out.set_string_value(absl::Base64Escape(*value));
  }
  return out;
}

std::string ShowPath(const ApiContext& api, storage::EntityNumber entity,
                     const storage::CellPath& path) {
  if (path.existence()) return "";
  std::string out;
  if (const EntityType* type = api.entities.FindByNumber(entity)) {
    out = PathText(*type, path);
  } else {
    out = absl::StrCat("field ", path.field);
    if (path.map_key) absl::StrAppend(&out, ".", *path.map_key);
  }
  // A peer's map key may be any bytes; an answer is UTF-8.
  return ValidUtf8(out) ? out : Shown(out);
}

v1::Record ShowAbsent(const ApiContext& api, const storage::RecordKey& key) {
  v1::Record out;
  out.set_noun(api.entities.NounOf(key.entity));
  out.set_id(key.id.ToString());
  out.set_name(absl::StrCat(out.noun(), "/", out.id()));
  return out;
}

v1::Record ShowRecord(const ApiContext& api, const storage::RecordKey& key,
                      const storage::StoredRecord& stored, absl::Status* damage) {
  v1::Record out = ShowAbsent(api, key);
  const storage::Record& record = stored.record;
  for (const storage::Scope& scope : stored.meta.Current()) out.add_scopes(scope.name);
  out.set_erased(record.erased);
  out.set_deleted(!record.erased && !record.cells.empty() && !record.live());
  storage::HybridTime latest;
  for (const storage::Cell& cell : record.cells) latest = std::max(latest, cell.version.time);
  if (latest != storage::HybridTime{}) *out.mutable_update_time() = ShowTime(latest);
  out.set_conflicts_open(static_cast<uint32_t>(
      std::count_if(record.conflicts.begin(), record.conflicts.end(),
                    [](const storage::ConflictEntry& entry) { return entry.open(); })));
  const EntityType* type = api.entities.FindByNumber(key.entity);
  // What was deleted is shown as it was, so that people know what they restore.
  if (type == nullptr || record.erased || Nothing(record)) return out;
  const auto message = Compose(*type, record);
  if (message.ok()) {
    out.mutable_entity()->PackFrom(**message);
  } else if (damage != nullptr) {
    *damage = message.status();
  }
  return out;
}

}  // namespace chaptersync::node
