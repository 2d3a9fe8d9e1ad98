// SPDX-License-Identifier: Apache-2.0
//
// The product's entities as registered, and every mistake in options that a
// registry refuses.
#include "node/entity/registry.h"

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/node/entity/test_schema.h"

namespace chaptersync::node {
namespace {

using storage::ScopeClause;
using ::testing::HasSubstr;

TEST(Registry, HasTheProductsEntities) {
  const EntityRegistry& registry = BuiltinEntities();
  EXPECT_EQ(registry.types().size(), 4u);
  const EntityType* members = registry.FindByNoun("members");
  ASSERT_NE(members, nullptr);
  EXPECT_EQ(registry.FindByNoun("member"), members);
  EXPECT_EQ(registry.FindByNumber({1}), members);
  EXPECT_EQ(registry.FindByNoun("people"), nullptr);
  EXPECT_EQ(registry.GetByNoun("people").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(registry.GetByNoun("people").status().message()),
              HasSubstr("noun 'people' is not known (there are members, events, registrations, "
                        "chapters)"));
  EXPECT_EQ(registry.NounOf({9}), "entity 9");
  ASSERT_NE(members->chapter_field, nullptr);
  EXPECT_EQ(members->chapter_field->name(), "chapter");
  EXPECT_EQ(members->rule.headquarters_fields, (std::set<uint32_t>{2}));
  EXPECT_FALSE(members->rule.headquarters_only);
  const EntityType* chapters = registry.FindByNoun("chapters");
  EXPECT_TRUE(chapters->rule.headquarters_only);
  EXPECT_EQ(chapters->name_field->name(), "handle");
  EXPECT_EQ(chapters->rule.scope.otherwise, storage::Scope::Global());
}

TEST(Registry, TurnsScopeRulesIntoData) {
  const storage::ScopeRule& events = BuiltinEntities().FindByNoun("events")->rule.scope;
  ASSERT_EQ(events.clauses.size(), 2u);
  EXPECT_EQ(events.clauses[0].kind, ScopeClause::Kind::kGlobal);
  ASSERT_TRUE(events.clauses[0].when.has_value());
  EXPECT_EQ(events.clauses[0].when->field, 7u);
  EXPECT_EQ(events.clauses[0].when->value, "\x38\x02");  // as a cell of the field holds it
  EXPECT_EQ(events.clauses[1].kind, ScopeClause::Kind::kChapterKeys);
  EXPECT_EQ(events.clauses[1].field, 6u);
  const storage::ScopeRule& seats = BuiltinEntities().FindByNoun("registrations")->rule.scope;
  ASSERT_EQ(seats.clauses.size(), 1u);
  EXPECT_EQ(seats.clauses[0].kind, ScopeClause::Kind::kFollows);
  EXPECT_EQ(seats.clauses[0].leader, storage::EntityNumber{2});
  const auto rules = StorageRules(BuiltinEntities());
  EXPECT_EQ(rules.size(), 4u);
  EXPECT_EQ(rules.at({1}).scope.clauses.size(), 1u);
}

TEST(Registry, FingerprintsAreStableAndTellRulesApart) {
  // Replicas of different builds compare these: a change here is a change of rule.
  const auto rules = StorageRules(BuiltinEntities());
  std::set<uint64_t> seen;
  for (const auto& [number, rule] : rules) {
    EXPECT_NE(rule.fingerprint, 0u);
    EXPECT_TRUE(seen.insert(rule.fingerprint).second);
  }
  EXPECT_EQ(storage::ToHex(rules.at({1}).fingerprint), "16639b8f7bd105c8");
}

// An entity with a string `text`, a map `notes`, an enum-free body, and these options.
std::string Entity(const std::string& name, const std::string& options,
                   const std::string& fields = "") {
  return absl::StrCat(
      "message_type { name: '", name, "' options { [chaptersync.v1.entity] { ", options,
      " } } field { name: 'text' number: 1 label: LABEL_OPTIONAL type: TYPE_STRING "
      "proto3_optional: true oneof_index: 0 } field { name: 'notes' number: 2 label: "
      "LABEL_REPEATED type: TYPE_MESSAGE type_name: '.test.",
      name,
      ".NotesEntry' } nested_type { name: 'NotesEntry' options { map_entry: true } field { name: "
      "'key' number: 1 label: LABEL_OPTIONAL type: TYPE_STRING } field { name: 'value' number: 2 "
      "label: LABEL_OPTIONAL type: TYPE_STRING } } field { name: 'flag' number: 3 label: "
      "LABEL_OPTIONAL type: TYPE_BOOL proto3_optional: true oneof_index: 1 } ",
      fields, " oneof_decl { name: '_text' } oneof_decl { name: '_flag' } } ");
}

std::string Error(const std::string& text, const std::vector<std::string>& names = {"A"}) {
  const TestSchema schema(text);
  const auto registry = schema.Registry(names);
  EXPECT_EQ(registry.status().code(), absl::StatusCode::kInvalidArgument) << registry.status();
  return std::string(registry.status().message());
}

constexpr char kGood[] = "number: 1 singular: 'a' plural: 'as' ";

TEST(Registry, TakesWhatIsRight) {
  const TestSchema schema(
      Entity("A", absl::StrCat(kGood,
                               "columns: 'notes.x' scope { clauses { when { field: 'flag' value: "
                               "'true' } owner_field: 'text' } clauses { hq: true } }")));
  const auto registry = schema.Registry({"A"});
  ASSERT_TRUE(registry.ok()) << registry.status();
  const auto& clauses = registry->types()[0].rule.scope.clauses;
  ASSERT_EQ(clauses.size(), 2u);
  EXPECT_EQ(clauses[0].kind, ScopeClause::Kind::kOwnerField);
  EXPECT_EQ(clauses[0].when->value, std::string("\x18\x01"));
}

TEST(Registry, RefusesTwoOfANumberOrANoun) {
  EXPECT_THAT(
      Error(Entity("A", kGood) + Entity("B", "number: 1 singular: 'b' plural: 'bs'"), {"A", "B"}),
      HasSubstr("number 1 is another entity's"));
  EXPECT_THAT(
      Error(Entity("A", kGood) + Entity("B", "number: 2 singular: 'as' plural: 'bs'"), {"A", "B"}),
      HasSubstr("noun 'as' is taken"));
  EXPECT_THAT(Error(Entity("A", "number: 0 singular: 'a' plural: 'as'")), HasSubstr("number 0"));
  EXPECT_THAT(Error(Entity("A", "number: 1 singular: 'A b' plural: 'as'")), HasSubstr("'A b'"));
}

TEST(Registry, RefusesOptionsThatNameWrongFields) {
  const auto with = [](const std::string& options) { return Error(Entity("A", kGood + options)); };
  EXPECT_THAT(with("name_field: 'nix'"), HasSubstr("option 'name_field' names 'nix'"));
  EXPECT_THAT(with("name_field: 'text'"), HasSubstr("must be required"));
  EXPECT_THAT(with("columns: 'nix'"), HasSubstr("option 'columns': field 'nix'"));
  EXPECT_THAT(with("scope { clauses { chapter_field: 'notes' } }"),
              HasSubstr("'notes', which is not an optional string"));
  EXPECT_THAT(with("scope { clauses { chapter_keys: 'text' } }"),
              HasSubstr("'text', which is not a map with string keys"));
  EXPECT_THAT(with("scope { clauses { follows { noun: 'others' field: 'text' } } }"),
              HasSubstr("names 'others'"));
  EXPECT_THAT(with("scope { clauses { when { field: 'flag' value: 'maybe' } hq: true } }"),
              HasSubstr("value 'maybe' is not allowed (true or false)"));
  EXPECT_THAT(with("scope { clauses { when { field: 'notes' value: 'x' } hq: true } }"),
              HasSubstr("'notes', which is not an optional enum"));
  EXPECT_THAT(with("scope { clauses { } }"), HasSubstr("gives nothing"));
}

TEST(Registry, RefusesMessagesThatCannotBeCut) {
  const std::string inner =
      "message_type { name: 'Inner' field { name: 'deep' number: 1 label: LABEL_REPEATED type: "
      "TYPE_MESSAGE type_name: '.test.Inner.DeepEntry' } nested_type { name: 'DeepEntry' options { "
      "map_entry: true } field { name: 'key' number: 1 label: LABEL_OPTIONAL type: TYPE_STRING } "
      "field { name: 'value' number: 2 label: LABEL_OPTIONAL type: TYPE_STRING } } } ";
  EXPECT_THAT(Error(inner + Entity("A", kGood,
                                   "field { name: 'inner' number: 9 label: LABEL_OPTIONAL type: "
                                   "TYPE_MESSAGE type_name: '.test.Inner' }")),
              HasSubstr("map field 'deep' is inside a value"));
  EXPECT_THAT(Error(Entity("A", kGood,
                           "field { name: 'plain' number: 9 label: LABEL_OPTIONAL type: "
                           "TYPE_STRING }")),
              HasSubstr("field 'plain' must be optional"));
  EXPECT_THAT(Error("message_type { name: 'A' options { [chaptersync.v1.entity] { number: 1 "
                    "singular: 'a' plural: 'as' } } field { name: 'x' number: 1 label: "
                    "LABEL_OPTIONAL type: TYPE_STRING oneof_index: 0 } oneof_decl { name: 'which' "
                    "} }"),
              HasSubstr("oneof 'which'"));
  EXPECT_THAT(Error("message_type { name: 'A' }"), HasSubstr("has no option 'entity'"));
}

}  // namespace
}  // namespace chaptersync::node
