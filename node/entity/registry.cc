// SPDX-License-Identifier: Apache-2.0
//
// Reads the options of entities' messages, checks them, and turns the scope
// rules into what storage applies.
#include "node/entity/registry.h"

#include <algorithm>
#include <cstdio>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "google/protobuf/dynamic_message.h"

#include "chaptersync/v1/chapter.pb.h"
#include "chaptersync/v1/event.pb.h"
#include "chaptersync/v1/member.pb.h"
#include "chaptersync/v1/registration.pb.h"
#include "node/entity/cells.h"
#include "node/entity/text.h"
#include "node/entity/value.h"
#include "storage/core/digest.h"
#include "storage/core/record_codec.h"
#include "storage/core/status.h"

namespace chaptersync::node {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::DescriptorPool;
using google::protobuf::FieldDescriptor;
using storage::ScopeClause;

constexpr uint32_t kNumberMax = 65'535;
constexpr int kClausesMax = 8;

absl::Status Wrong(const Descriptor* message, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(message->full_name(), ": ", what));
}

bool IsNoun(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(),
                                      [](char c) { return (c >= 'a' && c <= 'z') || c == '_'; });
}

// A value has one encoding only where no map is in it.
absl::Status CheckValue(const Descriptor* message, std::set<const Descriptor*>& seen) {
  if (!seen.insert(message).second) return absl::OkStatus();
  for (int i = 0; i < message->field_count(); ++i) {
    const FieldDescriptor* field = message->field(i);
    if (field->is_map()) {
      return Wrong(message, absl::StrCat("map field '", field->name(),
                                         "' is inside a value; only an entity has maps"));
    }
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      CHAPTER_RETURN_IF_ERROR(CheckValue(field->message_type(), seen));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckFields(const Descriptor* message) {
  if (message->real_oneof_decl_count() > 0) {
    return Wrong(message, absl::StrCat("oneof '", message->oneof_decl(0)->name(),
                                       "' is not allowed: of two cells one would hide the other"));
  }
  std::set<const Descriptor*> seen;
  for (int i = 0; i < message->field_count(); ++i) {
    const FieldDescriptor* field = message->field(i);
    if (!field->is_repeated() && !field->has_presence()) {
      return Wrong(message, absl::StrCat("field '", field->name(),
                                         "' must be optional, so that empty and absent differ"));
    }
    const FieldDescriptor* value = field->is_map() ? field->message_type()->map_value() : field;
    if (value->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      CHAPTER_RETURN_IF_ERROR(CheckValue(value->message_type(), seen));
    }
  }
  return absl::OkStatus();
}

// The field of an option, of the kind that the option needs.
enum class Wanted { kString, kMap, kScalar };
absl::StatusOr<const FieldDescriptor*> FieldOf(const Descriptor* message, const char* option,
                                               const std::string& name, Wanted wanted) {
  const FieldDescriptor* field = message->FindFieldByName(name);
  if (field == nullptr) {
    return Wrong(message, absl::StrCat("option '", option, "' names '", Shown(name),
                                       "', which is no field"));
  }
  const bool singular = !field->is_repeated();
  bool fits = false;
  const char* allowed = "";
  switch (wanted) {
    case Wanted::kString:
      fits = singular && field->type() == FieldDescriptor::TYPE_STRING;
      allowed = "an optional string";
      break;
    case Wanted::kMap:
      fits = field->is_map() &&
             field->message_type()->map_key()->type() == FieldDescriptor::TYPE_STRING;
      allowed = "a map with string keys";
      break;
    case Wanted::kScalar:
      fits = singular && field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE &&
             field->cpp_type() != FieldDescriptor::CPPTYPE_DOUBLE &&
             field->cpp_type() != FieldDescriptor::CPPTYPE_FLOAT &&
             field->type() != FieldDescriptor::TYPE_BYTES;
      allowed = "an optional enum, string, bool or integer";
      break;
  }
  if (!fits) {
    return Wrong(message,
                 absl::StrCat("option '", option, "' names '", name, "', which is not ", allowed));
  }
  return field;
}

uint32_t Number(const FieldDescriptor* field) { return static_cast<uint32_t>(field->number()); }

// The rule as its schema states it, with what its names stand for, hashed: two
// replicas with the same number place records alike.
uint64_t Fingerprint(const v1::ScopeRule& option, const storage::ScopeRule& rule) {
  std::string text = Deterministic(option);
  storage::AppendString(rule.otherwise.name, text);
  for (const ScopeClause& clause : rule.clauses) {
    storage::AppendVarint(static_cast<uint64_t>(clause.kind), text);
    storage::AppendVarint(clause.field, text);
    storage::AppendVarint(clause.leader.value, text);
    storage::AppendVarint(clause.when ? clause.when->field : 0, text);
    storage::AppendString(clause.when ? clause.when->value : "", text);
  }
  return storage::Reader(storage::Sha256(text)).Fixed64();
}

absl::StatusOr<ScopeClause> MakeClause(const EntityRegistry& registry, const EntityType& type,
                                       const v1::ScopeClause& option) {
  ScopeClause clause;
  const Descriptor* message = type.descriptor;
  if (option.has_when()) {
    CHAPTER_ASSIGN_OR_RETURN(
        const FieldDescriptor* field,
        FieldOf(message, "when.field", option.when().field(), Wanted::kScalar));
    auto scratch = type.NewMessage();
    FieldPath path;
    path.cell.field = Number(field);
    path.field = field;
    const absl::Status set = SetText(type, *scratch, path, option.when().value());
    if (!set.ok())
      return Wrong(message, absl::StrCat("option 'when': ", std::string(set.message())));
    clause.when = ScopeClause::Condition{Number(field), *Cut(*scratch).front().value};
  }
  const auto by_field = [&](ScopeClause::Kind kind, const char* name, const std::string& field,
                            Wanted wanted) -> absl::Status {
    CHAPTER_ASSIGN_OR_RETURN(const FieldDescriptor* found, FieldOf(message, name, field, wanted));
    clause.kind = kind;
    clause.field = Number(found);
    return absl::OkStatus();
  };
  using Kind = ScopeClause::Kind;
  switch (option.kind_case()) {
    case v1::ScopeClause::kGlobal:
    case v1::ScopeClause::kHq:
      if (!option.global() && !option.hq()) return Wrong(message, "a scope clause says false");
      clause.kind = option.has_global() ? Kind::kGlobal : Kind::kHq;
      break;
    case v1::ScopeClause::kChapterField:
      CHAPTER_RETURN_IF_ERROR(
          by_field(Kind::kChapterField, "chapter_field", option.chapter_field(), Wanted::kString));
      break;
    case v1::ScopeClause::kChapterKeys:
      CHAPTER_RETURN_IF_ERROR(
          by_field(Kind::kChapterKeys, "chapter_keys", option.chapter_keys(), Wanted::kMap));
      break;
    case v1::ScopeClause::kOwnerField:
      CHAPTER_RETURN_IF_ERROR(
          by_field(Kind::kOwnerField, "owner_field", option.owner_field(), Wanted::kString));
      break;
    case v1::ScopeClause::kFollows: {
      CHAPTER_RETURN_IF_ERROR(
          by_field(Kind::kFollows, "follows.field", option.follows().field(), Wanted::kString));
      const EntityType* leader = registry.FindByNoun(option.follows().noun());
      if (leader == nullptr || leader->plural != option.follows().noun()) {
        return Wrong(message,
                     absl::StrCat("option 'follows.noun' names '", Shown(option.follows().noun()),
                                  "', which is no plural noun of an entity"));
      }
      clause.leader = leader->number;
      break;
    }
    case v1::ScopeClause::KIND_NOT_SET:
      return Wrong(message, "a scope clause gives nothing");
  }
  return clause;
}

void AddWriters(EntityType& type) {
  const bool closed = type.options.writers() == v1::WRITERS_HEADQUARTERS;
  std::set<uint32_t>& fields = type.rule.headquarters_fields;
  bool opened = false;
  for (int i = 0; i < type.descriptor->field_count(); ++i) {
    const FieldDescriptor* field = type.descriptor->field(i);
    const v1::Writers writers = field->options().GetExtension(v1::rules).writers();
    if (writers == v1::WRITERS_HEADQUARTERS || (closed && writers == v1::WRITERS_UNSPECIFIED)) {
      fields.insert(Number(field));
    } else {
      opened = true;
    }
  }
  using Kind = ScopeClause::Kind;
  const auto has = [&](Kind kind) {
    const auto& clauses = type.rule.scope.clauses;
    return std::any_of(clauses.begin(), clauses.end(),
                       [&](const ScopeClause& clause) { return clause.kind == kind; });
  };
  const bool of_scope = type.options.writers() == v1::WRITERS_UNSPECIFIED ||
                        type.options.writers() == v1::WRITERS_SCOPE;
  type.rule.hosts_write =
      of_scope && (has(Kind::kFollows) || (has(Kind::kGlobal) && has(Kind::kChapterKeys)));
  // A field that this schema does not know is headquarters' too, unless some are not.
  type.rule.headquarters_only = closed && !opened;
}

}  // namespace

std::string EntityType::ResourceName(const storage::RecordId& id) const {
  return absl::StrCat(plural, "/", id.ToString());
}

absl::StatusOr<EntityRegistry> EntityRegistry::Make(
    const std::vector<const Descriptor*>& messages) {
  EntityRegistry registry;
  registry.factory_ = std::make_unique<google::protobuf::DynamicMessageFactory>();
  std::set<std::string> nouns;
  std::set<storage::EntityNumber> numbers;
  for (const Descriptor* message : messages) {
    if (!message->options().HasExtension(v1::entity)) {
      return Wrong(message, "has no option 'entity'");
    }
    EntityType type;
    type.descriptor = message;
    type.options = message->options().GetExtension(v1::entity);
    type.number = {type.options.number()};
    type.singular = type.options.singular();
    type.plural = type.options.plural();
    type.columns = {type.options.columns().begin(), type.options.columns().end()};
    const bool compiled_in = message->file()->pool() == DescriptorPool::generated_pool();
    google::protobuf::MessageFactory* factory =
        compiled_in ? google::protobuf::MessageFactory::generated_factory()
                    : registry.factory_.get();
    type.prototype = factory->GetPrototype(message);
    if (type.number.value < 1 || type.number.value > kNumberMax) {
      return Wrong(message, absl::StrCat("number ", type.number.value, " is not allowed (1 to ",
                                         kNumberMax, ")"));
    }
    if (!numbers.insert(type.number).second) {
      return Wrong(message, absl::StrCat("number ", type.number.value, " is another entity's"));
    }
    for (const std::string& noun : {type.singular, type.plural}) {
      if (!IsNoun(noun)) {
        return Wrong(message, absl::StrCat("noun '", Shown(noun),
                                           "' is not allowed (lower case letters and _)"));
      }
      if (!nouns.insert(noun).second) {
        return Wrong(message, absl::StrCat("noun '", noun, "' is taken"));
      }
    }
    CHAPTER_RETURN_IF_ERROR(CheckFields(message));
    registry.types_.push_back(std::move(type));
  }
  std::sort(registry.types_.begin(), registry.types_.end(),
            [](const EntityType& a, const EntityType& b) { return a.number < b.number; });
  CHAPTER_RETURN_IF_ERROR(registry.AddRules());
  return registry;
}

absl::Status EntityRegistry::AddRules() {
  for (EntityType& type : types_) {
    const Descriptor* message = type.descriptor;
    if (!type.options.name_field().empty()) {
      CHAPTER_ASSIGN_OR_RETURN(
          type.name_field,
          FieldOf(message, "name_field", type.options.name_field(), Wanted::kString));
      if (!type.name_field->options().GetExtension(v1::rules).required()) {
        return Wrong(message, "the field that names a record must be required");
      }
    }
    for (const std::string& column : type.columns) {
      const auto path = ParsePath(type, column);
      if (!path.ok()) {
        return Wrong(message,
                     absl::StrCat("option 'columns': ", std::string(path.status().message())));
      }
    }
    const v1::ScopeRule& option = type.options.scope();
    if (option.clauses_size() > kClausesMax) {
      return Wrong(message, absl::StrCat("has ", option.clauses_size(), " scope clauses (at most ",
                                         kClausesMax, ")"));
    }
    for (const v1::ScopeClause& clause_option : option.clauses()) {
      CHAPTER_ASSIGN_OR_RETURN(ScopeClause clause, MakeClause(*this, type, clause_option));
      if (clause.kind == ScopeClause::Kind::kChapterField && !clause.when &&
          type.chapter_field == nullptr) {
        type.chapter_field = message->FindFieldByNumber(static_cast<int>(clause.field));
      }
      type.rule.scope.clauses.push_back(std::move(clause));
    }
    if (option.default_scope() == v1::DEFAULT_SCOPE_GLOBAL) {
      type.rule.scope.otherwise = storage::Scope::Global();
    }
    type.rule.fingerprint = Fingerprint(option, type.rule.scope);
    AddWriters(type);
  }
  return absl::OkStatus();
}

const EntityType* EntityRegistry::FindByNoun(const std::string& noun) const {
  for (const EntityType& type : types_) {
    if (type.plural == noun || type.singular == noun) return &type;
  }
  return nullptr;
}

const EntityType* EntityRegistry::FindByNumber(storage::EntityNumber number) const {
  for (const EntityType& type : types_) {
    if (type.number == number) return &type;
  }
  return nullptr;
}

absl::StatusOr<const EntityType*> EntityRegistry::GetByNoun(const std::string& noun) const {
  const EntityType* type = FindByNoun(noun);
  if (type != nullptr) return type;
  std::string allowed;
  for (const EntityType& known : types_) {
    absl::StrAppend(&allowed, allowed.empty() ? "" : ", ", known.plural);
  }
  return absl::NotFoundError(
      absl::StrCat("noun '", Shown(noun), "' is not known (there are ", allowed, ")"));
}

std::string EntityRegistry::NounOf(storage::EntityNumber number) const {
  const EntityType* type = FindByNumber(number);
  return type == nullptr ? absl::StrCat("entity ", number.value) : type->plural;
}

const EntityRegistry& BuiltinEntities() {
  static const EntityRegistry* const registry = [] {
    auto made = EntityRegistry::Make({v1::Member::descriptor(), v1::Event::descriptor(),
                                      v1::Registration::descriptor(), v1::Chapter::descriptor()});
    if (!made.ok()) std::fprintf(stderr, "%s\n", made.status().ToString().c_str());
    CHAPTER_CHECK(made.ok());
    return new EntityRegistry(*std::move(made));
  }();
  return *registry;
}

std::map<storage::EntityNumber, storage::EntityRule> StorageRules(const EntityRegistry& registry) {
  std::map<storage::EntityNumber, storage::EntityRule> rules;
  for (const EntityType& type : registry.types()) {
    storage::EntityRule& rule = rules[type.number] = type.rule;
    rule.readable = [&type](const storage::CellPath& path, const std::string& value) {
      return ComposeCell(type, path, value).ok();
    };
  }
  return rules;
}

}  // namespace chaptersync::node
