// SPDX-License-Identifier: Apache-2.0
//
// Values as JSON and as text, both ways over every kind of field, and the texts
// of the errors.
#include "node/entity/value.h"

#include <random>

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "chaptersync/v1/event.pb.h"
#include "chaptersync/v1/member.pb.h"
#include "node/entity/text.h"
#include "tests/node/entity/test_schema.h"

namespace chaptersync::node {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Value;
using storage::CellPath;
using ::testing::HasSubstr;

const EntityType& Events() { return *BuiltinEntities().FindByNoun("events"); }
const EntityType& Thing() { return EveryKind().types().front(); }

FieldPath Path(const EntityType& type, const std::string& text) {
  const auto path = ParsePath(type, text);
  EXPECT_TRUE(path.ok()) << path.status();
  return *path;
}

TEST(Json, RoundTripsCellsOfEveryKindOfField) {
  for (uint64_t seed = 0; seed < 60; ++seed) {
    std::mt19937_64 random(seed);
    auto message = Thing().NewMessage();
    Randomize(*message, random);
    for (const storage::CellWrite& cell : Cut(*message)) {
      SCOPED_TRACE(absl::StrCat("seed ", seed, " ", PathText(Thing(), cell.path)));
      const Value json = ToJsonValue(Thing(), cell.path, cell.value);
      const auto back = FromJsonValue(Thing(), cell.path, json);
      ASSERT_TRUE(back.ok()) << back.status();
      EXPECT_EQ(*back, cell.value);
    }
  }
}

TEST(Json, ShowsValuesAsTheirJson) {
  v1::Member member;
  member.set_status(v1::MEMBER_STATUS_LOST);
  (*member.mutable_contacts())["home"].set_value("+391");
  const auto cells = Cut(member);
  ASSERT_EQ(cells.size(), 2u);
  EXPECT_EQ(JsonText(ToJsonValue(Members(), cells[0].path, cells[0].value)),
            "{\"value\":\"+391\"}");
  EXPECT_EQ(JsonText(ToJsonValue(Members(), cells[1].path, cells[1].value)),
            "\"MEMBER_STATUS_LOST\"");
  EXPECT_EQ(JsonText(ToJsonValue(Members(), cells[1].path, std::nullopt)), "null");
  const CellPath existence = CellPath::Existence();
  EXPECT_EQ(JsonText(ToJsonValue(Members(), existence, storage::DeletedValue())), "true");
  EXPECT_EQ(JsonText(ToJsonValue(Members(), existence, storage::RestoredValue())), "false");
  EXPECT_EQ(JsonText(ToJsonValue(Members(), {99, std::nullopt}, "abc")), "\"YWJj\"");
  EXPECT_EQ(JsonText(ToJsonValue(Members(), {7, std::nullopt}, "junk")), "\"anVuaw==\"");
}

TEST(Json, RefusesWhatDoesNotFit) {
  Value text;
  text.set_string_value("MEMBER_STATUS_GONE");
  const auto status = FromJsonValue(Members(), {10, std::nullopt}, text).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("field 'status': value '\"MEMBER_STATUS_GONE\"'"));
  EXPECT_THAT(std::string(FromJsonValue(Members(), {99, std::nullopt}, text).status().message()),
              HasSubstr("field 'field 99' is not known"));
  Value null;
  null.set_null_value(google::protobuf::NULL_VALUE);
  EXPECT_EQ(*FromJsonValue(Members(), {7, std::nullopt}, null), std::nullopt);
}

TEST(Text, RoundTripsSingleValuesOfEveryKind) {
  for (uint64_t seed = 0; seed < 100; ++seed) {
    std::mt19937_64 random(seed);
    auto message = Thing().NewMessage();
    Randomize(*message, random);
    for (const storage::CellWrite& cell : Cut(*message)) {
      if (cell.path.map_key == "") continue;
      const FieldPath path = Path(Thing(), PathText(Thing(), cell.path));
      SCOPED_TRACE(absl::StrCat("seed ", seed, " ", PathText(Thing(), cell.path)));
      const auto text = GetText(*message, path);
      ASSERT_TRUE(text.has_value());
      auto other = Thing().NewMessage();
      ASSERT_TRUE(SetText(Thing(), *other, path, *text).ok()) << *text;
      EXPECT_TRUE(SameAt(*message, *other, path)) << *text;
      ClearPath(*other, path);
      EXPECT_FALSE(GetText(*other, path).has_value());
      EXPECT_FALSE(SameAt(*message, *other, path));
    }
  }
}

TEST(Text, SetsWhatThePathNames) {
  v1::Member member;
  EXPECT_TRUE(SetText(Members(), member, Path(Members(), "employer"), "ENI").ok());
  EXPECT_EQ(member.employer(), "ENI");
  EXPECT_TRUE(SetText(Members(), member, Path(Members(), "contacts.home.value"), "+391").ok());
  EXPECT_TRUE(SetText(Members(), member, Path(Members(), "contacts.home.kind"), "phone").ok());
  EXPECT_EQ(member.contacts().at("home").value(), "+391");
  EXPECT_EQ(member.contacts().at("home").kind(), v1::CONTACT_KIND_PHONE);
  EXPECT_TRUE(SetText(Members(), member, Path(Members(), "contacts.home"),
                      "{\"value\": \"x\", \"kind\": \"CONTACT_KIND_POST\"}")
                  .ok());
  EXPECT_EQ(member.contacts().at("home").kind(), v1::CONTACT_KIND_POST);
  EXPECT_TRUE(
      SetText(Members(), member, Path(Members(), "names"), "{\"legal\": {\"full\": \"Anna\"}}")
          .ok());
  EXPECT_EQ(member.names().at("legal").full(), "Anna");
  for (const char* name : {"MEMBER_STATUS_LOST", "lost", "Lost", "LOST"}) {
    member.clear_status();
    EXPECT_TRUE(SetText(Members(), member, Path(Members(), "status"), name).ok()) << name;
    EXPECT_EQ(member.status(), v1::MEMBER_STATUS_LOST);
  }
  v1::Event event;
  EXPECT_TRUE(SetText(Events(), event, Path(Events(), "allotments.hq"), "60").ok());
  EXPECT_EQ(event.allotments().at("hq"), 60u);
}

TEST(Text, AnErrorSaysFieldValueAndWhatIsAllowed) {
  v1::Member member;
  v1::Event event;
  const auto error = [](absl::Status status) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_EQ(error(SetText(Members(), member, Path(Members(), "status"), "foo")),
            "field 'status': value 'foo' is not allowed (one of MEMBER_STATUS_UNSPECIFIED, "
            "MEMBER_STATUS_ACTIVE, MEMBER_STATUS_LOST, MEMBER_STATUS_DECEASED)");
  EXPECT_EQ(error(SetText(Events(), event, Path(Events(), "capacity"), "-1")),
            "field 'capacity': value '-1' is not allowed (a whole number from 0 to 4294967295)");
  EXPECT_THAT(error(SetText(Events(), event, Path(Events(), "capacity"), "4294967296")),
              HasSubstr("4294967296"));
  EXPECT_THAT(error(SetText(Events(), event, Path(Events(), "capacity"), "many")),
              HasSubstr("whole number"));
  EXPECT_THAT(error(SetText(Members(), member, Path(Members(), "photo"), "?")),
              HasSubstr("base64"));
  EXPECT_THAT(error(SetText(Members(), member, Path(Members(), "contacts.home"), "+391")),
              HasSubstr("field 'contacts.home': value '+391' is not allowed (Contact as JSON"));
  EXPECT_THAT(
      error(SetText(Members(), member, Path(Members(), "contacts.home"), "{\"number\": 1}")),
      HasSubstr("number"));
  EXPECT_TRUE(Cut(member).empty()) << "an error must change nothing";
}

TEST(Text, ForTablesIsShort) {
  v1::Member member;
  (*member.mutable_contacts())["home"].set_value("+391");
  (*member.mutable_contacts())["home"].set_kind(v1::CONTACT_KIND_PHONE);
  (*member.mutable_contacts())["email"].set_value("a@b.it");
  EXPECT_EQ(DisplayText(member, Path(Members(), "contacts")),
            "email: a@b.it; home: CONTACT_KIND_PHONE, +391");
  EXPECT_EQ(DisplayText(member, Path(Members(), "contacts.home.value")), "+391");
  EXPECT_EQ(DisplayText(member, Path(Members(), "employer")), "");
}

TEST(Shown, EscapesAndShortens) {
  EXPECT_EQ(Shown("plain 陈"), "plain 陈");
  EXPECT_EQ(Shown("a\tb"), "a\\x09b");
  EXPECT_EQ(Shown("\xff"), "\\xff");
  std::string many;
  for (int i = 0; i < 70; ++i) many += "陈";
  EXPECT_EQ(Shown(many).size(), 64 * 3 + 3u);
  EXPECT_TRUE(ValidUtf8(Shown(many)));
}

}  // namespace
}  // namespace chaptersync::node
