// SPDX-License-Identifier: Apache-2.0
//
// Shows conflict entries with their values as JSON, and turns an officer's
// choice into one replicated write.
#include "node/api/conflicts_service.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

#include "node/api/actor.h"
#include "node/api/limits.h"
#include "node/api/page_token.h"
#include "node/api/status.h"
#include "node/api/write_rules.h"
#include "node/entity/text.h"
#include "node/entity/value.h"
#include "storage/core/status.h"

namespace chaptersync::node {
namespace {

// Conflicts read at once while listing.
constexpr size_t kReadCount = 32;

v1::SettlementChoice ShowChoice(storage::Choice choice) {
  switch (choice) {
    case storage::Choice::kKeep:
      return v1::SETTLEMENT_CHOICE_KEEP;
    case storage::Choice::kTake:
      return v1::SETTLEMENT_CHOICE_TAKE;
    case storage::Choice::kValue:
      return v1::SETTLEMENT_CHOICE_VALUE;
  }
  return v1::SETTLEMENT_CHOICE_UNSPECIFIED;
}

absl::StatusOr<storage::Choice> ReadChoice(v1::SettlementChoice choice) {
  switch (choice) {
    case v1::SETTLEMENT_CHOICE_KEEP:
      return storage::Choice::kKeep;
    case v1::SETTLEMENT_CHOICE_TAKE:
      return storage::Choice::kTake;
    case v1::SETTLEMENT_CHOICE_VALUE:
      return storage::Choice::kValue;
    default:
      return absl::InvalidArgumentError(absl::StrCat("choice ", static_cast<int>(choice),
                                                     " is not allowed (keep, take or value)"));
  }
}

// Whether what stood when the conflict was found is the record's deletion. A
// field's bytes begin with a tag, a map entry's may be the same as a deletion's:
// then the version tells, as long as the deletion stands.
bool LostToDeletion(const ApiContext& api, const storage::ConflictRef& ref) {
  const storage::ConflictEntry& entry = ref.entry;
  if (entry.path.existence() || entry.current_value != storage::DeletedValue()) return false;
  if (!entry.path.map_key) return true;
  const auto stored = api.replica.Read(ref.key);
  if (!stored.ok()) return false;
  const storage::Cell* existence = stored->record.Find(storage::CellPath::Existence());
  return existence != nullptr && existence->version == entry.current_version;
}

}  // namespace

v1::Conflict ConflictsService::Show(const storage::ConflictRef& ref) const {
  const storage::ConflictEntry& entry = ref.entry;
  const storage::EntityNumber entity = ref.key.entity;
  v1::Conflict out;
  out.set_id(absl::BytesToHexString(ref.id));
  out.set_noun(api_.entities.NounOf(entity));
  out.set_record(ref.key.id.ToString());
  out.set_field(ShowPath(api_, entity, entry.path));
  out.set_state(entry.open() ? v1::CONFLICT_STATE_OPEN : v1::CONFLICT_STATE_SETTLED);
  const storage::CellPath stands =
      LostToDeletion(api_, ref) ? storage::CellPath::Existence() : entry.path;
  *out.mutable_current() = ShowValue(api_, entity, stands, entry.current_value);
  *out.mutable_lost() = ShowValue(api_, entity, entry.path, entry.lost_value);
  *out.mutable_current_write() = ShowWrite(api_, entry.current_version, entry.current_actor);
  *out.mutable_lost_write() = ShowWrite(api_, entry.lost_version, entry.lost_actor);
  *out.mutable_found_at() = ShowTime(entry.found_at);
  out.set_found_by(storage::ToHex(entry.found_by.value));
  for (const storage::SettlementEntry& settlement : entry.settlements) {
    v1::Settlement& shown = *out.add_settled();
    *shown.mutable_write() = ShowWrite(api_, settlement.version, settlement.actor);
    shown.set_choice(ShowChoice(settlement.choice));
  }
  return out;
}

absl::Status ConflictsService::List(const v1::ListConflictsRequest& request,
                                    v1::ListConflictsResponse& response) const {
  CHAPTER_ASSIGN_OR_RETURN(const size_t page_size, PageSize(request.page_size()));
  std::optional<bool> open;
  switch (request.state()) {
    case v1::CONFLICT_STATE_UNSPECIFIED:
      break;
    case v1::CONFLICT_STATE_OPEN:
      open = true;
      break;
    case v1::CONFLICT_STATE_SETTLED:
      open = false;
      break;
    default:
      return absl::InvalidArgumentError(absl::StrCat("state ", static_cast<int>(request.state()),
                                                     " is not allowed (open, settled or neither)"));
  }
  const std::string bound = absl::StrCat("conflicts ", static_cast<int>(request.state()));
  CHAPTER_ASSIGN_OR_RETURN(std::string position, ReadPageToken(bound, request.page_token()));
  size_t bytes = 0;
  size_t read_count = kReadCount;
  for (;;) {
    const size_t left = page_size - static_cast<size_t>(response.conflicts_size());
    if (left == 0) break;
    std::string next;
    CHAPTER_ASSIGN_OR_RETURN(
        const std::vector<storage::ConflictRef> read,
        api_.replica.ListConflicts(open, position, std::min(left, read_count), next));
    std::vector<v1::Conflict> shown;
    size_t shown_bytes = 0;
    for (const storage::ConflictRef& ref : read) {
      shown.push_back(Show(ref));
      shown_bytes += shown.back().ByteSizeLong();
    }
    if (bytes + shown_bytes > kAnswerBytesMax) {
      // One by one up to the limit; one alone is always answered.
      if (read.size() > 1) {
        read_count = 1;
        continue;
      }
      if (response.conflicts_size() > 0) break;
    }
    bytes += shown_bytes;
    for (v1::Conflict& conflict : shown) *response.add_conflicts() = std::move(conflict);
    position = next;
    if (position.empty()) break;
  }
  response.set_next_page_token(MakePageToken(bound, position));
  return absl::OkStatus();
}

absl::StatusOr<storage::ConflictRef> ConflictsService::Find(const std::string& id) const {
  const std::string digits = FoldCase(id);
  if (digits.size() < kConflictDigitsMin || digits.size() > kConflictDigitsMax ||
      !std::all_of(digits.begin(), digits.end(),
                   [](char c) { return absl::ascii_isxdigit(static_cast<unsigned char>(c)); })) {
    return absl::InvalidArgumentError(absl::StrCat("conflict '", Shown(id), "' is not allowed (",
                                                   kConflictDigitsMin, " to ", kConflictDigitsMax,
                                                   " hexadecimal digits)"));
  }
  CHAPTER_ASSIGN_OR_RETURN(std::vector<storage::ConflictRef> found,
                           api_.replica.FindConflicts(digits));
  if (found.empty()) return absl::NotFoundError(absl::StrCat("there is no conflict ", digits));
  if (found.size() > 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("conflict ", digits, " fits several (", absl::BytesToHexString(found[0].id),
                     ", ", absl::BytesToHexString(found[1].id), "); give more digits"));
  }
  return std::move(found[0]);
}

absl::Status ConflictsService::Settle(const std::string& actor,
                                      const v1::SettleConflictRequest& request,
                                      v1::SettleConflictResponse& response) {
  CHAPTER_ASSIGN_OR_RETURN(const storage::Choice choice, ReadChoice(request.choice()));
  const bool has_value =
      request.has_value() && request.value().kind_case() != google::protobuf::Value::KIND_NOT_SET;
  if (has_value != (choice == storage::Choice::kValue)) {
    return absl::InvalidArgumentError(has_value ? "a value goes with the choice value only"
                                                : "the choice value needs a value; null clears");
  }
  CHAPTER_ASSIGN_OR_RETURN(const storage::ConflictRef ref, Find(request.id()));
  const storage::ConflictEntry& entry = ref.entry;
  if (!entry.open()) {
    const v1::Conflict shown = Show(ref);
    return absl::FailedPreconditionError(
        absl::StrCat("conflict ", shown.id(), " is settled already, by ",
                     shown.settled(shown.settled_size() - 1).write().actor()));
  }
  storage::LocalWrite write;
  write.kind = storage::LocalWrite::Kind::kSettle;
  write.key = ref.key;
  write.actor = actor;
  write.path = entry.path;
  write.lost = entry.lost_value;
  write.choice = choice;
  const EntityType* type = api_.entities.FindByNumber(ref.key.entity);
  CHAPTER_ASSIGN_OR_RETURN(const storage::StoredRecord stored, api_.replica.Read(ref.key));
  if (type != nullptr) {
    CHAPTER_RETURN_IF_ERROR(CheckSettler(api_, *type, entry.path, stored.record));
  }
  if (choice == storage::Choice::kValue && !entry.path.existence()) {
    if (type == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat(api_.entities.NounOf(ref.key.entity),
                       " is not known to this replica's schema; keep or take a value instead"));
    }
    CHAPTER_ASSIGN_OR_RETURN(write.third, FromJsonValue(*type, entry.path, request.value()));
    CHAPTER_RETURN_IF_ERROR(
        CheckWrite(api_, *type, ref.key, {{entry.path, write.third}}, &stored.record));
  }
  CHAPTER_ASSIGN_OR_RETURN(const std::vector<storage::WriteResult> results,
                           api_.replica.Write({write}));
  CHAPTER_RETURN_IF_ERROR(results[0].status);
  CHAPTER_ASSIGN_OR_RETURN(const storage::ConflictRef after, Find(absl::BytesToHexString(ref.id)));
  *response.mutable_conflict() = Show(after);
  return absl::OkStatus();
}

grpc::Status ConflictsService::ListConflicts(grpc::ServerContext* /*context*/,
                                             const v1::ListConflictsRequest* request,
                                             v1::ListConflictsResponse* response) {
  return ToGrpc(List(*request, *response));
}

grpc::Status ConflictsService::GetConflict(grpc::ServerContext* /*context*/,
                                           const v1::GetConflictRequest* request,
                                           v1::GetConflictResponse* response) {
  const auto found = Find(request->id());
  if (found.ok()) *response->mutable_conflict() = Show(*found);
  return ToGrpc(found.status());
}

grpc::Status ConflictsService::SettleConflict(grpc::ServerContext* context,
                                              const v1::SettleConflictRequest* request,
                                              v1::SettleConflictResponse* response) {
  const auto actor = WriterOf(api_, *context);
  return ToGrpc(actor.ok() ? Settle(*actor, *request, *response) : actor.status());
}

}  // namespace chaptersync::node
