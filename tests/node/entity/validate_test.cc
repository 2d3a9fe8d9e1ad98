// SPDX-License-Identifier: Apache-2.0
//
// Every format with good and bad values, lengths, required fields, and the
// texts of the errors.
#include "node/entity/validate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "chaptersync/v1/chapter.pb.h"
#include "chaptersync/v1/event.pb.h"
#include "chaptersync/v1/member.pb.h"
#include "chaptersync/v1/registration.pb.h"
#include "node/entity/cells.h"

namespace chaptersync::node {
namespace {

using ::testing::HasSubstr;

const EntityType& Type(const std::string& noun) { return *BuiltinEntities().FindByNoun(noun); }

void Check(v1::Format format, const std::vector<std::string>& good,
           const std::vector<std::string>& bad) {
  for (const std::string& text : good) EXPECT_TRUE(HasFormat(format, text)) << "'" << text << "'";
  for (const std::string& text : bad) EXPECT_FALSE(HasFormat(format, text)) << "'" << text << "'";
}

TEST(Formats, LanguageTag) {
  Check(v1::FORMAT_LANGUAGE_TAG,
        {"en", "it", "zh-Hans", "zh-Hans-CN", "en-US", "es-419", "sl-rozaj-biske", "de-1996",
         "de-CH-1901", "zh-cmn-Hans-CN", "en-a-myext-b-another", "x-whatever", "en-x-private",
         "de-DE-u-co-phonebk", "cmn"},
        {"", "e", "languages", "en-", "-en", "en--US", "zh_Hans", "en-x", "x", "en-a",
         "en-a-bb-a-cc", "12", "de-DE-DE", "en US", "é"});
}

TEST(Formats, Script) {
  Check(v1::FORMAT_SCRIPT, {"Latn", "Hans"}, {"", "latn", "LATN", "Lat", "Latin", "La1n"});
}

TEST(Formats, Country) { Check(v1::FORMAT_COUNTRY, {"IT", "CA"}, {"", "it", "ITA", "I", "I1"}); }

TEST(Formats, Handle) {
  Check(v1::FORMAT_HANDLE, {"italy", "a", "new-york-2", std::string(32, 'a')},
        {"", "Italy", "2nd", "-a", "a_b", "a b", "ä", std::string(33, 'a')});
}

TEST(Formats, RecordId) {
  Check(v1::FORMAT_RECORD_ID, {"01890a5d-ac96-774b-bcce-b302099a8057"},
        {"", "01890A5D-AC96-774B-BCCE-B302099A8057", "01890a5dac96774bbcceb302099a8057",
         "01890a5d-ac96-774b-bcce-b302099a805", "g1890a5d-ac96-774b-bcce-b302099a8057"});
}

TEST(Formats, Date) {
  Check(v1::FORMAT_DATE, {"2026-05-14", "2024-02-29", "2000-02-29", "0001-01-01"},
        {"", "2026-02-29", "1900-02-29", "2026-13-01", "2026-00-10", "2026-04-31", "2026-1-1",
         "26-01-01", "2026/01/01", "2026-05-14T00", "0000-01-01"});
}

TEST(Formats, LocalDateTime) {
  Check(v1::FORMAT_LOCAL_DATE_TIME, {"2026-05-14T19:00:00", "2024-02-29T23:59:59"},
        {"", "2026-05-14", "2026-05-14T24:00:00", "2026-05-14T19:60:00", "2026-05-14T19:00:60",
         "2026-05-14 19:00:00", "2026-05-14T19:00:00Z", "2026-05-14T19:00", "2026-02-30T19:00:00"});
}

TEST(Formats, TimeZone) {
  Check(v1::FORMAT_TIME_ZONE,
        {"Europe/Rome", "America/Toronto", "America/Argentina/Buenos_Aires", "Etc/GMT+1"},
        {"", "Rome!", "Europe/", "/Europe/Rome", "../../etc/passwd", "Europe//Rome",
         "posix/Europe/Rome", "+01:00"});
}

TEST(Formats, Phone) {
  for (const char* good : {"+390551234567", "+12", "+123456789012345"}) {
    EXPECT_TRUE(IsPhone(good)) << good;
  }
  for (const char* bad : {"", "+", "+1", "0551234567", "+0551234567", "+39 055 1234567",
                          "+1234567890123456", "+39055a"}) {
    EXPECT_FALSE(IsPhone(bad)) << bad;
  }
}

TEST(Formats, Email) {
  for (const char* good : {"ann@example.org", "a.b+c@mail.example.co.uk", "\"a b\"@example.org",
                           "o'neil@example.org", "\"a\\\"b\"@example.org", "用户@例子.公司"}) {
    EXPECT_TRUE(IsEmail(good)) << good;
  }
  for (const char* bad :
       {"", "ann", "@example.org", "ann@", "ann@localhost", "a b@example.org", ".ann@example.org",
        "ann.@example.org", "a..b@example.org", "ann@-example.org", "ann@example-.org",
        "ann@example..org", "ann@1.2.3.4", "a@b@example.org", "\"a\"b\"@example.org"}) {
    EXPECT_FALSE(IsEmail(bad)) << bad;
  }
  EXPECT_FALSE(IsEmail(std::string(65, 'a') + "@example.org"));
}

std::string Error(const EntityType& type, const google::protobuf::Message& message) {
  const absl::Status status = Validate(type, message);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  return std::string(status.message());
}

TEST(Validate, AContactIsCheckedByItsKind) {
  v1::Member member;
  const auto contact = [&member]() -> v1::Contact& { return (*member.mutable_contacts())["home"]; };
  contact().set_value("behind the church");
  EXPECT_TRUE(Validate(Type("members"), member).ok());
  contact().set_kind(v1::CONTACT_KIND_PHONE);
  EXPECT_EQ(Error(Type("members"), member),
            "field 'contacts.home.value': value 'behind the church' is not allowed (a telephone "
            "number of E.164, such as +390551234567)");
  contact().set_kind(v1::CONTACT_KIND_EMAIL);
  EXPECT_THAT(Error(Type("members"), member), HasSubstr("RFC 5322"));
  contact().set_value("ann@example.org");
  EXPECT_TRUE(Validate(Type("members"), member).ok());
  contact().set_kind(v1::CONTACT_KIND_POST);
  contact().set_value("Via Roma 1\n50123 Firenze");
  EXPECT_TRUE(Validate(Type("members"), member).ok());
}

TEST(Validate, SaysFieldValueAndWhatIsAllowed) {
  v1::Member member;
  (*member.mutable_names())["legal"].set_script("latin");
  EXPECT_EQ(Error(Type("members"), member),
            "field 'names.legal.script': value 'latin' is not allowed (a script of ISO 15924, such "
            "as Latn)");
  v1::Event event;
  event.set_start("2026-02-30T19:00:00");
  EXPECT_THAT(Error(Type("events"), event), HasSubstr("field 'start'"));
}

TEST(Validate, ShortensLongValues) {
  v1::Member member;
  member.set_chapter(std::string(500, 'X'));
  const std::string error = Error(Type("members"), member);
  EXPECT_THAT(error, HasSubstr("'" + std::string(64, 'X') + "...'"));
  member.set_chapter("a\nb");
  EXPECT_THAT(Error(Type("members"), member), HasSubstr("'a\\x0ab'"));
}

TEST(Validate, LimitsLengths) {
  v1::Member member;
  member.set_employer(std::string(4096, 'x'));
  EXPECT_TRUE(Validate(Type("members"), member).ok());
  member.set_employer(std::string(4097, 'x'));
  EXPECT_THAT(Error(Type("members"), member), HasSubstr("4097 bytes is too long (at most 4096)"));
  member.set_employer("");
  (*member.mutable_names())["legal"].set_full(std::string(513, 'x'));
  EXPECT_THAT(Error(Type("members"), member), HasSubstr("at most 512"));
  member.clear_names();
  member.set_photo(std::string(524288, '\xff'));
  EXPECT_TRUE(Validate(Type("members"), member).ok());
  member.set_photo(std::string(524289, '\xff'));
  EXPECT_THAT(Error(Type("members"), member), HasSubstr("field 'photo': value '...' of 524289"));
  v1::Registration registration;
  (*registration.mutable_answers())["diet"] = std::string(4097, 'x');
  EXPECT_THAT(Error(Type("registrations"), registration), HasSubstr("field 'answers.diet'"));
}

TEST(Validate, RefusesTextThatIsNotUtf8) {
  v1::Member member;
  member.set_employer("\xff\xfe");
  EXPECT_THAT(Error(Type("members"), member), HasSubstr("text in UTF-8"));
  member.set_employer(std::string("a\0b", 3));
  EXPECT_THAT(Error(Type("members"), member), HasSubstr("zero bytes"));
}

TEST(Validate, ChecksKeys) {
  v1::Event event;
  (*event.mutable_hosts())["Italy!"];
  EXPECT_THAT(Error(Type("events"), event), HasSubstr("field 'hosts': key 'Italy!'"));
  event.clear_hosts();
  (*event.mutable_hosts())["hq"];
  (*event.mutable_titles())["zh-Hans"].set_text("晚宴");
  EXPECT_TRUE(Validate(Type("events"), event).ok());
  (*event.mutable_titles())[""];
  EXPECT_THAT(Error(Type("events"), event), HasSubstr("1 to 256"));
  event.clear_titles();
  (*event.mutable_titles())["a\nb"];
  EXPECT_THAT(Error(Type("events"), event), HasSubstr("control characters"));
}

TEST(Required, MustHaveAValue) {
  v1::Chapter chapter;
  absl::Status status = CheckRequired(Type("chapters"), chapter);
  EXPECT_EQ(std::string(status.message()),
            "field 'handle' is required of chapters, and has no value");
  chapter.set_handle("");
  EXPECT_FALSE(CheckRequired(Type("chapters"), chapter).ok());
  chapter.set_handle("italy");
  EXPECT_TRUE(CheckRequired(Type("chapters"), chapter).ok());
  EXPECT_TRUE(CheckRequired(Type("members"), v1::Member()).ok());
}

TEST(Required, IsNotCleared) {
  const storage::CellPath event{1, std::nullopt};
  EXPECT_THAT(std::string(ValidateCells(Type("registrations"), {{event, std::nullopt}}).message()),
              HasSubstr("field 'event' is required"));
  const storage::CellPath guest{3, std::nullopt};
  EXPECT_TRUE(ValidateCells(Type("registrations"), {{guest, std::nullopt}}).ok());
}

}  // namespace
}  // namespace chaptersync::node
