// SPDX-License-Identifier: Apache-2.0
//
// Requests become local writes: checked, cut into cells, and handed to the
// replica in one call; reads are shown as the API has them.
#include "node/api/records_service.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/unknown_field_set.h"

#include "node/api/actor.h"
#include "node/api/limits.h"
#include "node/api/page_token.h"
#include "node/api/status.h"
#include "node/api/write_rules.h"
#include "node/entity/cells.h"
#include "node/entity/ids.h"
#include "node/entity/text.h"
#include "node/entity/validate.h"
#include "node/entity/value.h"
#include "storage/core/limits.h"
#include "storage/core/status.h"

namespace chaptersync::node {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;
using storage::CellWrite;
using storage::LocalWrite;
using storage::RecordKey;

// The entity's message out of a request.
absl::StatusOr<std::unique_ptr<Message>> Unpack(const EntityType& type,
                                                const google::protobuf::Any& any) {
  auto message = type.NewMessage();
  if (any.type_url().empty() && any.value().empty()) return message;
  const std::string& wanted = type.descriptor->full_name();
  if (any.type_url().substr(any.type_url().rfind('/') + 1) != wanted) {
    return absl::InvalidArgumentError(absl::StrCat("entity of type '", Shown(any.type_url()),
                                                   "' is not allowed for ", type.plural, " (",
                                                   wanted, ")"));
  }
  if (!message->ParseFromString(any.value())) {
    return absl::InvalidArgumentError(
        absl::StrCat("entity is no ", wanted, ": its bytes do not parse, or a text is not UTF-8"));
  }
  const auto& unknown = message->GetReflection()->GetUnknownFields(*message);
  if (unknown.field_count() > 0) {
    return absl::InvalidArgumentError(absl::StrCat("field ", unknown.field(0).number(), " of ",
                                                   wanted,
                                                   " is not known to this replica's schema"));
  }
  return message;
}

// What scope rules read as headquarters.
constexpr char kReservedName[] = "hq";

std::optional<std::string> GetString(const Message& message, const FieldDescriptor* field) {
  if (!message.GetReflection()->HasField(message, field)) return std::nullopt;
  return message.GetReflection()->GetString(message, field);
}

// A chapter's own record, where it does not say whose it is.
void AddOwnChapter(const ApiContext& api, const EntityType& type, Message& message) {
  if (api.replica.options().hub) return;
  for (const v1::ScopeClause& clause : type.options.scope().clauses()) {
    if (clause.chapter_keys().empty()) continue;
    const FieldDescriptor* keys = type.descriptor->FindFieldByName(clause.chapter_keys());
    const Reflection* reflection = message.GetReflection();
    if (reflection->FieldSize(message, keys) > 0) continue;
    Message* entry = reflection->AddMessage(&message, keys);
    const FieldDescriptor* key = keys->message_type()->map_key();
    entry->GetReflection()->SetString(entry, key, api.replica.options().chapter);
  }
  if (type.chapter_field == nullptr) return;
  if (GetString(message, type.chapter_field).value_or("").empty()) {
    message.GetReflection()->SetString(&message, type.chapter_field, api.replica.options().chapter);
  }
}

bool Contains(const std::string& text, const std::string& folded) {
  return absl::StrContains(FoldCase(text), folded);
}

// Whether a text anywhere in the message contains this one, which is in lower case.
bool AnyTextContains(const Message& message, const std::string& folded, bool searched_only) {
  const Reflection* reflection = message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    if (searched_only && !field->options().GetExtension(v1::rules).searched()) continue;
    // A map's key is the officer's own label, no value.
    if (message.GetDescriptor()->options().map_entry() && field->number() == 1) continue;
    const bool is_message = field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
    if (!is_message && field->type() != FieldDescriptor::TYPE_STRING) continue;
    const int size = field->is_repeated() ? reflection->FieldSize(message, field) : 1;
    for (int i = 0; i < size; ++i) {
      if (is_message) {
        const Message& inner = field->is_repeated()
                                   ? reflection->GetRepeatedMessage(message, field, i)
                                   : reflection->GetMessage(message, field);
        if (AnyTextContains(inner, folded, false)) return true;
      } else if (Contains(field->is_repeated() ? reflection->GetRepeatedString(message, field, i)
                                               : reflection->GetString(message, field),
                          folded)) {
        return true;
      }
    }
  }
  return false;
}

// What a list call filters by.
class Filter {
 public:
  static absl::StatusOr<Filter> Make(const EntityType& type,
                                     const v1::ListRecordsRequest& request) {
    Filter filter(type);
    for (const v1::FieldMatch& match : request.where()) {
      CHAPTER_ASSIGN_OR_RETURN(FieldPath path, ParsePath(type, match.field()));
      if (match.value().size() > kFilterBytesMax) return TooLong("value to match", match.value());
      Where where{std::move(path), match.value().empty(), type.NewMessage()};
      if (!where.nothing) {
        CHAPTER_RETURN_IF_ERROR(SetText(type, *where.wanted, where.path, match.value()));
      }
      filter.where_.push_back(std::move(where));
    }
    if (request.search().size() > kFilterBytesMax) return TooLong("search text", request.search());
    if (!ValidUtf8(request.search())) {
      return absl::InvalidArgumentError(
          absl::StrCat("search text '", Shown(request.search()), "' is not UTF-8"));
    }
    filter.search_ = FoldCase(request.search());
    return filter;
  }

  // A record whose cells do not parse fits no filter, and is shown where there is none.
  bool Fits(const storage::Record& record) const {
    if (where_.empty() && search_.empty()) return true;
    const auto message = Compose(*type_, record);
    if (!message.ok()) return false;
    for (const Where& where : where_) {
      if (where.nothing) {
        if (!GetText(**message, where.path).value_or("").empty()) return false;
      } else if (!SameAt(**message, *where.wanted, where.path)) {
        return false;
      }
    }
    return search_.empty() || AnyTextContains(**message, search_, true);
  }

 private:
  struct Where {
    FieldPath path;
    bool nothing;  // no value is wanted there, or an empty one
    std::unique_ptr<Message> wanted;
  };

  explicit Filter(const EntityType& type) : type_(&type) {}

  static absl::Status TooLong(const std::string& what, const std::string& text) {
    return absl::InvalidArgumentError(absl::StrCat(what, " '", Shown(text), "' of ", text.size(),
                                                   " bytes is too long (at most ", kFilterBytesMax,
                                                   ")"));
  }

  const EntityType* type_;
  std::vector<Where> where_;
  std::string search_;
};

std::string IdBytes(const storage::RecordId& id) { return {id.bytes.begin(), id.bytes.end()}; }

}  // namespace

// Plans writes one after the other: each sees what those before it will leave.
class RecordsService::Batch {
 public:
  Batch(const ApiContext& api, const std::string& actor) : api_(api), actor_(actor) {}

  struct Plan {
    std::optional<NamedRecord> record;  // where it is known, also where it is refused
    LocalWrite write;
  };

  // Fills as much of `plan` as the request tells, and says whether it can go on.
  absl::Status Add(const v1::RecordWrite& request, Plan& plan) {
    plan.write.actor = actor_;
    switch (request.kind_case()) {
      case v1::RecordWrite::kCreate:
        return Create(request.create(), plan);
      case v1::RecordWrite::kUpsert:
        return Update(request.upsert(), true, plan);
      case v1::RecordWrite::kUpdate:
        return Update(request.update(), false, plan);
      case v1::RecordWrite::kDelete:
        return Existence(request.delete_().name(), true, plan);
      case v1::RecordWrite::kUndelete:
        return Existence(request.undelete().name(), false, plan);
      case v1::RecordWrite::KIND_NOT_SET:
        break;
    }
    return absl::InvalidArgumentError(
        "a write of the batch says nothing (one of create, upsert, update, delete, undelete)");
  }

  // What the planned write will leave, for those that come after it.
  void Apply(const LocalWrite& write) {
    std::optional<storage::Record>& held = held_[write.key];
    const bool live = held && held->live();
    const bool there = held && !Nothing(*held);
    // Writes beyond all that a replica can hold, in rising order.
    const storage::Version version{{~uint64_t{0} / 2 + ++applied_}, {1}};
    using Kind = LocalWrite::Kind;
    switch (write.kind) {
      case Kind::kCreate:
      case Kind::kUpdate:
      case Kind::kUpsert: {
        const bool takes = write.kind == Kind::kCreate   ? !there
                           : write.kind == Kind::kUpdate ? live
                                                         : !there || live;
        if (!takes) return;
        if (!held) held.emplace();
        for (const CellWrite& cell : write.cells) {
          held->Put({cell.path, version, actor_, cell.value, {}});
        }
        return;
      }
      default:
        if (!there || held->erased || live != (write.kind == Kind::kDelete)) return;
        held->Put({storage::CellPath::Existence(),
                   version,
                   actor_,
                   live ? storage::DeletedValue() : storage::RestoredValue(),
                   {}});
    }
  }

  // Some write was made from what its record holds.
  bool depends() const { return depends_; }
  // Some write was made from what an earlier write of the batch leaves.
  bool depends_on_itself() const { return depends_on_itself_; }

 private:
  // The record so far; null where it is not here.
  absl::StatusOr<const storage::Record*> Held(const RecordKey& key) {
    auto it = held_.find(key);
    if (it == held_.end()) {
      auto stored = api_.replica.Read(key);
      if (!stored.ok() && !absl::IsNotFound(stored.status())) return stored.status();
      std::optional<storage::Record> record;
      if (stored.ok()) record = std::move(stored->record);
      read_at_[key] = stored.ok() ? stored->meta.latest : storage::Sequence{};
      it = held_.emplace(key, std::move(record)).first;
    } else if (applied_ > 0) {
      depends_on_itself_ = true;
    }
    return it->second ? &*it->second : nullptr;
  }

  absl::Status Create(const v1::CreateRecordRequest& request, Plan& plan) {
    CHAPTER_ASSIGN_OR_RETURN(const EntityType* type, api_.entities.GetByNoun(request.noun()));
    CHAPTER_ASSIGN_OR_RETURN(std::unique_ptr<Message> message, Unpack(*type, request.entity()));
    RecordKey key{type->number, {}};
    if (!request.record_id().empty()) {
      if (!HasFormat(v1::FORMAT_RECORD_ID, request.record_id())) {
        return absl::InvalidArgumentError(absl::StrCat("record id '", Shown(request.record_id()),
                                                       "' is not allowed (a UUID in lower case)"));
      }
      key.id = *storage::RecordId::Parse(request.record_id());
    } else if (type->name_field != nullptr) {
      CHAPTER_RETURN_IF_ERROR(CheckRequired(*type, *message));
      const std::string name = *GetString(*message, type->name_field);
      if (name == kReservedName) {
        return absl::InvalidArgumentError(absl::StrCat(type->name_field->name(), ": value '", name,
                                                       "' is not allowed (it means headquarters)"));
      }
      key.id = NamedId(*type, name);
    } else {
      key.id = UuidV7(api_.replica.Clock().wall_ms, api_.environment.Random(),
                      api_.environment.Random());
    }
    plan.record = NamedRecord{type, key};
    return MakeNew(*type, *message, LocalWrite::Kind::kCreate, plan);
  }

  // A record that is not there yet, with all that the message holds.
  absl::Status MakeNew(const EntityType& type, Message& message, LocalWrite::Kind kind,
                       Plan& plan) {
    const RecordKey& key = plan.record->key;
    AddOwnChapter(api_, type, message);
    CHAPTER_RETURN_IF_ERROR(CheckRequired(type, message));
    std::vector<CellWrite> cells = Cut(message);
    if (cells.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("a record of ", type.plural, " needs a value in one field at least"));
    }
    CHAPTER_ASSIGN_OR_RETURN(const storage::Record* held, Held(key));
    // What is there already is the replica's to refuse, or none of it is news.
    if (held == nullptr || Nothing(*held)) held = nullptr;
    CHAPTER_RETURN_IF_ERROR(CheckWrite(api_, type, key, cells, held));
    plan.write.kind = kind;
    plan.write.key = key;
    plan.write.cells = std::move(cells);
    return absl::OkStatus();
  }

  absl::Status Update(const v1::UpdateRecordRequest& request, bool upsert, Plan& plan) {
    CHAPTER_ASSIGN_OR_RETURN(plan.record, ParseName(api_, request.name()));
    const EntityType& type = *plan.record->type;
    const RecordKey& key = plan.record->key;
    CHAPTER_ASSIGN_OR_RETURN(std::unique_ptr<Message> message, Unpack(type, request.entity()));
    if (request.update_mask().paths_size() > kMaskPathsMax) {
      return absl::InvalidArgumentError(
          absl::StrCat("an update mask of ", request.update_mask().paths_size(),
                       " paths is too long (at most ", kMaskPathsMax, ")"));
    }
    const std::vector<std::string> mask(request.update_mask().paths().begin(),
                                        request.update_mask().paths().end());
    CHAPTER_ASSIGN_OR_RETURN(const storage::Record* held, Held(key));
    const bool absent = held == nullptr || Nothing(*held);
    if (absent && !upsert) {
      return absl::NotFoundError(absl::StrCat("there is no record ", plan.record->name()));
    }
    std::vector<CellWrite> cells;
    if (mask.empty()) {
      cells = Cut(*message);
    } else {
      for (const std::string& text : mask) {
        CHAPTER_ASSIGN_OR_RETURN(const FieldPath path, ParsePath(type, text));
        if (!DependsOnHeld(path)) continue;
        depends_ = true;
        plan.write.made_from = read_at_[key];
      }
      CHAPTER_ASSIGN_OR_RETURN(cells, CutByMask(type, *message, mask, held));
    }
    if (absent) {
      storage::Record made;
      for (CellWrite& cell : cells) made.Put({cell.path, {}, "", std::move(cell.value), {}});
      CHAPTER_ASSIGN_OR_RETURN(message, Compose(type, made));
      return MakeNew(type, *message, LocalWrite::Kind::kUpsert, plan);
    }
    CHAPTER_RETURN_IF_ERROR(CheckWrite(api_, type, key, cells, held));
    plan.write.kind = upsert ? LocalWrite::Kind::kUpsert : LocalWrite::Kind::kUpdate;
    plan.write.key = key;
    plan.write.cells = std::move(cells);
    return absl::OkStatus();
  }

  absl::Status Existence(const std::string& name, bool deletes, Plan& plan) {
    CHAPTER_ASSIGN_OR_RETURN(plan.record, ParseName(api_, name));
    CHAPTER_ASSIGN_OR_RETURN(const storage::Record* held, Held(plan.record->key));
    if (held == nullptr || Nothing(*held)) {
      return absl::NotFoundError(absl::StrCat("there is no record ", plan.record->name()));
    }
    CHAPTER_RETURN_IF_ERROR(CheckExistenceWriter(api_, *plan.record->type, deletes, held));
    plan.write.kind = deletes ? LocalWrite::Kind::kDelete : LocalWrite::Kind::kRestore;
    plan.write.key = plan.record->key;
    return absl::OkStatus();
  }

  const ApiContext& api_;
  const std::string& actor_;
  std::map<RecordKey, std::optional<storage::Record>> held_;
  std::map<RecordKey, storage::Sequence> read_at_;  // where held_ was in the feed
  uint64_t applied_ = 0;
  bool depends_ = false;
  bool depends_on_itself_ = false;
};

absl::StatusOr<std::vector<RecordsService::Outcome>> RecordsService::Write(
    const std::vector<v1::RecordWrite>& requests, const std::string& actor, bool dry_run) {
  std::vector<Outcome> outcomes(requests.size());
  std::vector<LocalWrite> writes;
  std::vector<size_t> places;             // of each write among the requests
  std::map<size_t, absl::Status> denied;  // by the replica, in a trial
  bool depends = false;
  bool depends_on_itself = false;
  const auto plan = [&] {
    outcomes.assign(requests.size(), {});
    writes.clear();
    places.clear();
    Batch batch(api_, actor);
    for (size_t i = 0; i < requests.size(); ++i) {
      Batch::Plan planned;
      outcomes[i].status = batch.Add(requests[i], planned);
      outcomes[i].record = planned.record;
      if (const auto it = denied.find(i); it != denied.end()) outcomes[i].status = it->second;
      if (!outcomes[i].status.ok()) continue;
      batch.Apply(planned.write);
      writes.push_back(std::move(planned.write));
      places.push_back(i);
    }
    depends = batch.depends();
    depends_on_itself = batch.depends_on_itself();
  };
  const auto write = [&]() -> absl::Status {
    CHAPTER_ASSIGN_OR_RETURN(const std::vector<storage::WriteResult> results,
                             api_.replica.Write(writes, dry_run));
    for (size_t i = 0; i < results.size(); ++i) {
      Outcome& outcome = outcomes[places[i]];
      outcome.status = results[i].status;
      outcome.created = results[i].created;
      outcome.changed = results[i].changed;
    }
    return absl::OkStatus();
  };
  {
    absl::ReaderMutexLock lock(&write_mutex_);
    plan();
    if (!depends && !depends_on_itself) {
      CHAPTER_RETURN_IF_ERROR(write());
      return outcomes;
    }
  }
  absl::MutexLock lock(&write_mutex_);
  const auto try_once = [&]() -> absl::Status {
    denied.clear();
    plan();
    // Later writes must not be made from what the replica will not take.
    for (bool again = depends_on_itself; again;) {
      again = false;
      CHAPTER_ASSIGN_OR_RETURN(const std::vector<storage::WriteResult> trial,
                               api_.replica.Write(writes, true));
      for (size_t i = 0; i < trial.size(); ++i) {
        if (!trial[i].status.ok()) again |= denied.emplace(places[i], trial[i].status).second;
      }
      if (again) plan();
    }
    return write();
  };
  // What a peer sent meanwhile must be seen before it is written over.
  absl::Status status = try_once();
  for (int attempt = 1; absl::IsAborted(status) && attempt < kWriteAttemptsMax; ++attempt) {
    status = try_once();
  }
  CHAPTER_RETURN_IF_ERROR(status);
  return outcomes;
}

absl::StatusOr<v1::Record> RecordsService::WriteOne(const grpc::ServerContext& context,
                                                    v1::RecordWrite write) {
  CHAPTER_ASSIGN_OR_RETURN(const std::string actor, WriterOf(api_, context));
  std::vector<v1::RecordWrite> writes;
  writes.push_back(std::move(write));
  CHAPTER_ASSIGN_OR_RETURN(const std::vector<Outcome> outcomes, Write(writes, actor, false));
  CHAPTER_RETURN_IF_ERROR(outcomes[0].status);
  const NamedRecord& record = *outcomes[0].record;
  CHAPTER_ASSIGN_OR_RETURN(const storage::StoredRecord stored, ReadRecord(api_, record));
  return ShowRecord(api_, record.key, stored);
}

absl::StatusOr<v1::Record> RecordsService::Erase(const grpc::ServerContext& context,
                                                 const std::string& name) {
  LocalWrite write;
  write.kind = LocalWrite::Kind::kErase;
  CHAPTER_ASSIGN_OR_RETURN(write.actor, WriterOf(api_, context));
  CHAPTER_ASSIGN_OR_RETURN(const NamedRecord record, ParseName(api_, name));
  write.key = record.key;
  CHAPTER_ASSIGN_OR_RETURN(storage::StoredRecord stored, ReadRecord(api_, record));
  if (!stored.record.erased) {
    CHAPTER_ASSIGN_OR_RETURN(const std::vector<storage::WriteResult> results,
                             api_.replica.Write({write}));
    CHAPTER_RETURN_IF_ERROR(results[0].status);
    CHAPTER_ASSIGN_OR_RETURN(stored, ReadRecord(api_, record));
  }
  return ShowRecord(api_, record.key, stored);
}

absl::Status RecordsService::List(const v1::ListRecordsRequest& request,
                                  v1::ListRecordsResponse& response) const {
  CHAPTER_ASSIGN_OR_RETURN(const EntityType* type, api_.entities.GetByNoun(request.noun()));
  CHAPTER_ASSIGN_OR_RETURN(const size_t page_size, PageSize(request.page_size()));
  CHAPTER_ASSIGN_OR_RETURN(const Filter filter, Filter::Make(*type, request));
  v1::ListRecordsRequest query = request;
  query.set_noun(type->plural);
  query.clear_page_size();
  query.clear_page_token();
  const std::string bound = absl::StrCat("records", Deterministic(query));
  CHAPTER_ASSIGN_OR_RETURN(const std::string position, ReadPageToken(bound, request.page_token()));
  std::optional<storage::RecordId> after;
  if (!position.empty()) {
    after.emplace();
    if (position.size() != after->bytes.size()) {
      return absl::InvalidArgumentError("page token is damaged");
    }
    std::copy(position.begin(), position.end(), after->bytes.begin());
  }
  size_t scanned = 0;
  size_t bytes = 0;
  while (scanned < kListScanMax) {
    CHAPTER_ASSIGN_OR_RETURN(const auto records,
                             api_.replica.List(type->number, after, kListReadCount));
    for (const auto& [key, stored] : records) {
      ++scanned;
      const storage::Record& record = stored.record;
      const bool wanted =
          record.live() || (request.show_deleted() && !record.erased && !Nothing(record));
      if (wanted && filter.Fits(record)) {
        v1::Record shown = ShowRecord(api_, key, stored);
        const size_t size = shown.ByteSizeLong();
        // This one begins the next page.
        const bool full = static_cast<size_t>(response.records_size()) == page_size ||
                          (response.records_size() > 0 && bytes + size > kAnswerBytesMax);
        if (full) {
          response.set_next_page_token(MakePageToken(bound, IdBytes(*after)));
          return absl::OkStatus();
        }
        bytes += size;
        *response.add_records() = std::move(shown);
      }
      after = key.id;
    }
    if (records.size() < kListReadCount) return absl::OkStatus();
  }
  response.set_next_page_token(MakePageToken(bound, IdBytes(*after)));
  return absl::OkStatus();
}

absl::Status RecordsService::Explain(const v1::ExplainRecordRequest& request,
                                     v1::ExplainRecordResponse& response) const {
  CHAPTER_ASSIGN_OR_RETURN(const NamedRecord named, ParseName(api_, request.name()));
  std::optional<FieldPath> wanted;
  if (!request.field().empty()) {
    CHAPTER_ASSIGN_OR_RETURN(wanted, ParsePath(*named.type, request.field()));
  }
  CHAPTER_ASSIGN_OR_RETURN(const storage::StoredRecord stored, ReadRecord(api_, named));
  const storage::EntityNumber entity = named.key.entity;
  for (const storage::Cell& cell : stored.record.cells) {
    if (wanted &&
        (wanted->whole_map() ? cell.path.field != wanted->cell.field : cell.path != wanted->cell)) {
      continue;
    }
    v1::FieldExplanation& field = *response.add_fields();
    field.set_field(ShowPath(api_, entity, cell.path));
    *field.mutable_value() = ShowValue(api_, entity, cell.path, cell.value);
    *field.mutable_write() = ShowWrite(api_, cell.version, cell.actor);
    for (const storage::ConflictEntry& entry : stored.record.conflicts) {
      if (entry.path != cell.path) continue;
      v1::BeatenValue& beaten = *field.add_beat();
      *beaten.mutable_value() = ShowValue(api_, entity, entry.path, entry.lost_value);
      *beaten.mutable_write() = ShowWrite(api_, entry.lost_version, entry.lost_actor);
    }
  }
  return absl::OkStatus();
}

absl::Status RecordsService::Resolve(const v1::ResolveRecordRequest& request,
                                     v1::ResolveRecordResponse& response) const {
  CHAPTER_ASSIGN_OR_RETURN(const EntityType* type, api_.entities.GetByNoun(request.noun()));
  const std::string& prefix = request.prefix();
  std::vector<storage::RecordId> ids;
  if (type->name_field != nullptr) {
    const NamedRecord named{type, {type->number, NamedId(*type, prefix)}};
    const auto stored = ReadRecord(api_, named);
    if (stored.ok()) ids.push_back(named.key.id);
    if (!stored.ok() && !absl::IsNotFound(stored.status())) return stored.status();
  }
  std::string digits;
  for (const char c : prefix) {
    if (c != '-') digits += absl::ascii_tolower(static_cast<unsigned char>(c));
  }
  const bool hexadecimal = !digits.empty() && prefix.size() <= 36 && digits.size() <= 32 &&
                           std::all_of(digits.begin(), digits.end(), [](char c) {
                             return absl::ascii_isxdigit(static_cast<unsigned char>(c));
                           });
  if (hexadecimal) {
    std::string padded = digits;
    padded.resize(32, '0');
    const std::string bytes = absl::HexStringToBytes(padded);
    storage::RecordId first;
    std::copy(bytes.begin(), bytes.end(), first.bytes.begin());
    CHAPTER_ASSIGN_OR_RETURN(
        const std::vector<storage::RecordId> found,
        api_.replica.FindIds(type->number, first, 4 * digits.size(), kResolveMax));
    ids.insert(ids.end(), found.begin(), found.end());
  } else if (type->name_field == nullptr || prefix.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("beginning of an id '", Shown(prefix),
                     "' is not allowed (1 to 32 hexadecimal digits, with or without dashes)"));
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  if (ids.size() > kResolveMax) ids.resize(kResolveMax);
  for (const storage::RecordId& id : ids) response.add_ids(id.ToString());
  return absl::OkStatus();
}

// --- What gRPC calls ---

namespace {

// Moves a record into its response.
template <typename Response>
grpc::Status Answer(absl::StatusOr<v1::Record> record, Response* response) {
  if (record.ok()) *response->mutable_record() = *std::move(record);
  return ToGrpc(record.status());
}

}  // namespace

grpc::Status RecordsService::GetRecord(grpc::ServerContext* /*context*/,
                                       const v1::GetRecordRequest* request,
                                       v1::GetRecordResponse* response) {
  const auto record = [&]() -> absl::StatusOr<v1::Record> {
    CHAPTER_ASSIGN_OR_RETURN(const NamedRecord named, ParseName(api_, request->name()));
    CHAPTER_ASSIGN_OR_RETURN(const storage::StoredRecord stored, ReadRecord(api_, named));
    absl::Status damage;
    v1::Record shown = ShowRecord(api_, named.key, stored, &damage);
    CHAPTER_RETURN_IF_ERROR(damage);
    return shown;
  };
  return Answer(record(), response);
}

grpc::Status RecordsService::ListRecords(grpc::ServerContext* /*context*/,
                                         const v1::ListRecordsRequest* request,
                                         v1::ListRecordsResponse* response) {
  return ToGrpc(List(*request, *response));
}

grpc::Status RecordsService::CreateRecord(grpc::ServerContext* context,
                                          const v1::CreateRecordRequest* request,
                                          v1::CreateRecordResponse* response) {
  v1::RecordWrite write;
  *write.mutable_create() = *request;
  return Answer(WriteOne(*context, std::move(write)), response);
}

grpc::Status RecordsService::UpdateRecord(grpc::ServerContext* context,
                                          const v1::UpdateRecordRequest* request,
                                          v1::UpdateRecordResponse* response) {
  v1::RecordWrite write;
  *write.mutable_update() = *request;
  return Answer(WriteOne(*context, std::move(write)), response);
}

grpc::Status RecordsService::DeleteRecord(grpc::ServerContext* context,
                                          const v1::DeleteRecordRequest* request,
                                          v1::DeleteRecordResponse* response) {
  v1::RecordWrite write;
  *write.mutable_delete_() = *request;
  return Answer(WriteOne(*context, std::move(write)), response);
}

grpc::Status RecordsService::UndeleteRecord(grpc::ServerContext* context,
                                            const v1::UndeleteRecordRequest* request,
                                            v1::UndeleteRecordResponse* response) {
  v1::RecordWrite write;
  *write.mutable_undelete() = *request;
  return Answer(WriteOne(*context, std::move(write)), response);
}

grpc::Status RecordsService::EraseRecord(grpc::ServerContext* context,
                                         const v1::EraseRecordRequest* request,
                                         v1::EraseRecordResponse* response) {
  return Answer(Erase(*context, request->name()), response);
}

grpc::Status RecordsService::BatchWriteRecords(grpc::ServerContext* context,
                                               const v1::BatchWriteRecordsRequest* request,
                                               v1::BatchWriteRecordsResponse* response) {
  const auto status = [&]() -> absl::Status {
    CHAPTER_ASSIGN_OR_RETURN(const std::string actor, WriterOf(api_, *context));
    const auto count = static_cast<size_t>(request->writes_size());
    if (count < 1 || count > storage::kBatchWritesMax) {
      return absl::InvalidArgumentError(absl::StrCat(
          "a batch of ", count, " writes is not allowed (1 to ", storage::kBatchWritesMax, ")"));
    }
    CHAPTER_ASSIGN_OR_RETURN(
        const std::vector<Outcome> outcomes,
        Write({request->writes().begin(), request->writes().end()}, actor, request->dry_run()));
    for (const Outcome& outcome : outcomes) {
      v1::RecordWriteResult& result = *response->add_results();
      if (outcome.record) result.set_name(outcome.record->name());
      const grpc::Status shown = ToGrpc(outcome.status);
      result.set_code(shown.error_code());
      result.set_message(shown.error_message());
      if (!outcome.status.ok()) continue;
      result.set_outcome(outcome.created   ? v1::WRITE_OUTCOME_CREATED
                         : outcome.changed ? v1::WRITE_OUTCOME_CHANGED
                                           : v1::WRITE_OUTCOME_SAME);
    }
    return absl::OkStatus();
  };
  return ToGrpc(status());
}

grpc::ServerWriteReactor<v1::WatchRecordsResponse>* RecordsService::WatchRecords(
    grpc::CallbackServerContext* /*context*/, const v1::WatchRecordsRequest* request) {
  // Refuses at once.
  class Refusal final : public grpc::ServerWriteReactor<v1::WatchRecordsResponse> {
   public:
    explicit Refusal(const absl::Status& status) { Finish(ToGrpc(status)); }
    void OnDone() override { delete this; }
  };
  if (request->noun().empty()) return watches_.Watch(std::nullopt);
  const auto type = api_.entities.GetByNoun(request->noun());
  if (!type.ok()) return new Refusal(type.status());
  return watches_.Watch((*type)->number);
}

grpc::Status RecordsService::ExplainRecord(grpc::ServerContext* /*context*/,
                                           const v1::ExplainRecordRequest* request,
                                           v1::ExplainRecordResponse* response) {
  return ToGrpc(Explain(*request, *response));
}

grpc::Status RecordsService::ResolveRecord(grpc::ServerContext* /*context*/,
                                           const v1::ResolveRecordRequest* request,
                                           v1::ResolveRecordResponse* response) {
  return ToGrpc(Resolve(*request, *response));
}

}  // namespace chaptersync::node
