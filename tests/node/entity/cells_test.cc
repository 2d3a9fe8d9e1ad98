// SPDX-License-Identifier: Apache-2.0
//
// Cutting and composing: round trips over random messages of every kind of
// field, canonical bytes, paths, and what an update mask names.
#include "node/entity/cells.h"

#include <random>

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "chaptersync/v1/event.pb.h"
#include "chaptersync/v1/member.pb.h"
#include "storage/core/limits.h"
#include "tests/node/entity/test_schema.h"

namespace chaptersync::node {
namespace {

using storage::CellPath;
using storage::CellWrite;
using ::testing::HasSubstr;

std::vector<std::pair<CellPath, std::optional<std::string>>> Plain(
    const std::vector<CellWrite>& writes) {
  std::vector<std::pair<CellPath, std::optional<std::string>>> out;
  for (const CellWrite& write : writes) out.emplace_back(write.path, write.value);
  return out;
}

TEST(Cut, RoundTripsRandomMessagesOfEveryKindOfField) {
  std::vector<const EntityType*> types = {&EveryKind().types().front()};
  for (const EntityType& type : BuiltinEntities().types()) types.push_back(&type);
  for (uint64_t seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    std::mt19937_64 random(seed);
    const EntityType& type = *types[seed % types.size()];
    auto message = type.NewMessage();
    Randomize(*message, random);
    const std::vector<CellWrite> cells = Cut(*message);
    EXPECT_TRUE(std::is_sorted(cells.begin(), cells.end(),
                               [](const auto& a, const auto& b) { return a.path < b.path; }));
    const auto composed = Compose(type, RecordOf(cells));
    ASSERT_TRUE(composed.ok()) << composed.status();
    EXPECT_EQ(Deterministic(**composed), Deterministic(*message));
    EXPECT_EQ(Plain(Cut(**composed)), Plain(cells)) << "a second cut gives other bytes";
    for (const CellWrite& cell : cells) {
      const auto alone = ComposeCell(type, cell.path, cell.value);
      ASSERT_TRUE(alone.ok()) << alone.status();
      const std::vector<CellWrite> again = Cut(**alone);
      ASSERT_EQ(again.size(), 1u);
      EXPECT_EQ(again[0].path, cell.path);
      EXPECT_EQ(again[0].value, cell.value);
      const auto path = ParsePath(type, PathText(type, cell.path));
      if (cell.path.map_key == "") continue;  // has a text, but no officer may use it
      ASSERT_TRUE(path.ok()) << path.status();
      EXPECT_EQ(path->cell, cell.path);
    }
  }
}

TEST(Cut, BytesAreTheSameHoweverTheMessageWasMade) {
  v1::Member forth;
  v1::Member back;
  for (int i = 0; i < 50; ++i) (*forth.mutable_contacts())[absl::StrCat(i)].set_value("x");
  for (int i = 49; i >= 0; --i) (*back.mutable_contacts())[absl::StrCat(i)].set_value("x");
  EXPECT_EQ(Plain(Cut(forth)), Plain(Cut(back)));
}

TEST(Cut, AFieldsCellHasItsTagAndAMapEntrysHasNot) {
  v1::Member member;
  member.set_employer("ENI");
  (*member.mutable_contacts())["home"].set_value("1");
  v1::Event event;
  (*event.mutable_allotments())["hq"] = 300;
  const auto cells = Cut(member);
  ASSERT_EQ(cells.size(), 2u);
  EXPECT_EQ(cells[0].path, (CellPath{3, "home"}));
  EXPECT_EQ(cells[0].value, std::string("\x12\x01"
                                        "1"));
  EXPECT_EQ(cells[1].path, (CellPath{7, std::nullopt}));
  EXPECT_EQ(cells[1].value, std::string("\x3a\x03"
                                        "ENI"));
  const auto seats = Cut(event);
  ASSERT_EQ(seats.size(), 1u);
  EXPECT_EQ(seats[0].path, (CellPath{9, "hq"}));
  EXPECT_EQ(seats[0].value, std::string("\xac\x02"));
}

TEST(Cut, EmptyAndAbsentDiffer) {
  v1::Member member;
  EXPECT_TRUE(Cut(member).empty());
  member.set_employer("");
  (*member.mutable_contacts())["home"];
  const auto cells = Cut(member);
  ASSERT_EQ(cells.size(), 2u);
  EXPECT_EQ(cells[0].value, "");
  EXPECT_EQ(cells[1].value, std::string("\x3a\x00", 2));
}

TEST(Compose, SkipsClearedCellsAndExistenceAndKeepsUnknownFields) {
  storage::Record record = RecordOf({{{7, std::nullopt},
                                      "\x3a\x03"
                                      "ENI"},
                                     {{8, std::nullopt}, std::nullopt},
                                     {{99, std::nullopt}, "\x98\x06\x07"},
                                     {{98, "key"}, "anything"},
                                     {CellPath::Existence(), storage::RestoredValue()}});
  const auto message = Compose(Members(), record);
  ASSERT_TRUE(message.ok()) << message.status();
  const auto& member = static_cast<const v1::Member&>(**message);
  EXPECT_EQ(member.employer(), "ENI");
  EXPECT_FALSE(member.has_job_title());
  const auto& unknown = member.GetReflection()->GetUnknownFields(member);
  ASSERT_EQ(unknown.field_count(), 1);
  EXPECT_EQ(unknown.field(0).number(), 99);
  EXPECT_EQ(unknown.field(0).varint(), 7u);
}

TEST(Compose, SaysWhichCellDoesNotParse) {
  const auto damaged = [](const CellPath& path, const std::string& bytes) {
    const auto message = Compose(Members(), RecordOf({{{8, std::nullopt},
                                                       "\x42\x01"
                                                       "x"},
                                                      {path, bytes}}));
    EXPECT_EQ(message.status().code(), absl::StatusCode::kDataLoss) << message.status();
    return std::string(message.status().message());
  };
  EXPECT_THAT(damaged({7, std::nullopt},
                      "\x3a\x09"
                      "ENI"),
              HasSubstr("field 'employer'"));
  EXPECT_THAT(damaged({7, std::nullopt}, ""), HasSubstr("field 'employer'"));
  EXPECT_THAT(damaged({7, std::nullopt}, "\x42\x01y"), HasSubstr("field 'employer'"));
  EXPECT_THAT(damaged({7, std::nullopt}, "\x3a\x01\xff"), HasSubstr("field 'employer'"));
  EXPECT_THAT(damaged({7, "key"}, "x"), HasSubstr("field 'employer.key'"));
  EXPECT_THAT(damaged({3, "home"}, "\xff"), HasSubstr("field 'contacts.home'"));
  EXPECT_THAT(damaged({3, std::nullopt}, "\x1a\x00"), HasSubstr("field 'contacts'"));
}

TEST(Paths, NameCellsMapsAndWhatIsInAValue) {
  const auto parse = [](const std::string& text) {
    const auto path = ParsePath(Members(), text);
    EXPECT_TRUE(path.ok()) << path.status();
    return *path;
  };
  EXPECT_EQ(parse("employer").cell, (CellPath{7, std::nullopt}));
  EXPECT_TRUE(parse("contacts").whole_map());
  EXPECT_EQ(parse("contacts.home").cell, (CellPath{3, "home"}));
  EXPECT_FALSE(parse("contacts.home").whole_map());
  const FieldPath value = parse("contacts.home.value");
  EXPECT_EQ(value.cell, (CellPath{3, "home"}));
  ASSERT_EQ(value.sub.size(), 1u);
  EXPECT_EQ(value.sub[0]->name(), "value");
  EXPECT_EQ(PathText(Members(), value), "contacts.home.value");
  EXPECT_EQ(parse("contacts.`a.b`.value").cell, (CellPath{3, "a.b"}));
  EXPECT_EQ(parse("contacts.`a``b`").cell, (CellPath{3, "a`b"}));
  EXPECT_EQ(PathText(Members(), CellPath{3, "a`.b"}), "contacts.`a``.b`");
  EXPECT_EQ(PathText(Members(), CellPath{99, std::nullopt}), "field 99");
  EXPECT_EQ(PathText(Members(), CellPath{99, "k"}), "field 99.k");
  EXPECT_EQ(PathText(Members(), CellPath::Existence()), "");
}

TEST(Paths, AnErrorSaysWhichAndWhatThereIs) {
  const auto error = [](const EntityType& type, const std::string& text) {
    const auto path = ParsePath(type, text);
    EXPECT_EQ(path.status().code(), absl::StatusCode::kInvalidArgument) << text;
    return std::string(path.status().message());
  };
  EXPECT_THAT(error(Members(), "telephone"),
              HasSubstr("field 'telephone' is not known (members have names, degrees"));
  EXPECT_THAT(error(Members(), ""), HasSubstr("field ''"));
  EXPECT_THAT(error(Members(), "employer.x"), HasSubstr("'employer' has no fields in it"));
  EXPECT_THAT(error(Members(), "contacts.home.number"),
              HasSubstr("there are kind, value, status, label"));
  EXPECT_THAT(error(Members(), "contacts."), HasSubstr("1 to 256"));
  EXPECT_THAT(error(Members(), "contacts.`a"), HasSubstr("backquotes"));
  EXPECT_THAT(error(Members(), "contacts.a`b`"), HasSubstr("backquotes"));
  EXPECT_THAT(error(Members(), absl::StrCat("contacts.", std::string(257, 'k'))),
              HasSubstr("257 bytes"));
  const EntityType& thing = EveryKind().types().front();
  EXPECT_THAT(error(thing, "by_int32.one"), HasSubstr("int32"));
  EXPECT_THAT(error(thing, "by_int32.007"), HasSubstr("int32"));
  EXPECT_THAT(error(thing, "by_bool.yes"), HasSubstr("bool"));
  EXPECT_THAT(error(thing, "by_uint32.4294967296"), HasSubstr("uint32"));
}

class Mask : public ::testing::Test {
 protected:
  void SetUp() override {
    held_.set_employer("ENI");
    (*held_.mutable_contacts())["home"].set_value("+391");
    (*held_.mutable_contacts())["home"].set_label("office");
    (*held_.mutable_contacts())["work"].set_value("+392");
    record_ = RecordOf(Cut(held_));
  }

  // The cells that the mask names, by path.
  std::map<std::string, std::optional<std::string>> Apply(const v1::Member& message,
                                                          const std::vector<std::string>& mask) {
    const auto cells = CutByMask(Members(), message, mask, &record_);
    EXPECT_TRUE(cells.ok()) << cells.status();
    std::map<std::string, std::optional<std::string>> out;
    for (const CellWrite& cell : *cells) out[PathText(Members(), cell.path)] = cell.value;
    return out;
  }

  static v1::Contact Contact(const std::optional<std::string>& bytes) {
    v1::Contact contact;
    EXPECT_TRUE(bytes && contact.ParseFromString(*bytes));
    return contact;
  }

  v1::Member held_;
  storage::Record record_;
};

TEST_F(Mask, NamesExactlyTheCellsToWrite) {
  v1::Member message;
  message.set_employer("Fiat");
  message.set_job_title("engineer");
  const auto cells = Apply(message, {"employer", "notes"});
  ASSERT_EQ(cells.size(), 2u);
  EXPECT_EQ(cells.at("employer"),
            "\x3a\x04"
            "Fiat");
  EXPECT_EQ(cells.at("notes"), std::nullopt);
}

TEST_F(Mask, AWholeMapClearsWhatTheMessageDoesNotHave) {
  v1::Member message;
  (*message.mutable_contacts())["home"].set_value("+393");
  (*message.mutable_contacts())["new"].set_value("+394");
  const auto cells = Apply(message, {"contacts"});
  ASSERT_EQ(cells.size(), 3u);
  EXPECT_EQ(Contact(cells.at("contacts.home")).value(), "+393");
  EXPECT_EQ(cells.at("contacts.work"), std::nullopt);
  EXPECT_EQ(Contact(cells.at("contacts.new")).value(), "+394");
}

TEST_F(Mask, AFieldInAValueChangesThatFieldAlone) {
  v1::Member message;
  (*message.mutable_contacts())["home"].set_value("+399");
  auto cells = Apply(message, {"contacts.home.value"});
  ASSERT_EQ(cells.size(), 1u);
  EXPECT_EQ(Contact(cells.at("contacts.home")).value(), "+399");
  EXPECT_EQ(Contact(cells.at("contacts.home")).label(), "office");
  cells = Apply(message, {"contacts.home.label", "contacts.home.value"});
  EXPECT_EQ(Contact(cells.at("contacts.home")).value(), "+399");
  EXPECT_FALSE(Contact(cells.at("contacts.home")).has_label());
  cells = Apply(message, {"contacts.home", "contacts.home.label"});
  EXPECT_FALSE(Contact(cells.at("contacts.home")).has_label());
}

TEST_F(Mask, AFieldInAValueThatIsNotThereMakesTheValue) {
  v1::Member message;
  (*message.mutable_contacts())["fax"].set_value("+395");
  (*message.mutable_contacts())["fax"].set_label("old");
  auto cells = Apply(message, {"contacts.fax.value"});
  EXPECT_EQ(Contact(cells.at("contacts.fax")).value(), "+395");
  EXPECT_FALSE(Contact(cells.at("contacts.fax")).has_label());
  EXPECT_TRUE(Apply(v1::Member(), {"contacts.fax.value"}).empty());
}

TEST_F(Mask, AFieldInAValueKeepsWhatANewerSchemaPutThere) {
  storage::Cell cell = *record_.Find({3, "home"});
  *cell.value += "\x98\x06\x07";  // field 99
  record_.Put(cell);
  v1::Member message;
  (*message.mutable_contacts())["home"].set_value("+399");
  const auto cells = Apply(message, {"contacts.home.value"});
  EXPECT_THAT(*cells.at("contacts.home"), HasSubstr("\x98\x06\x07"));
}

}  // namespace
}  // namespace chaptersync::node
