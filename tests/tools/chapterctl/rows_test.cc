// SPDX-License-Identifier: Apache-2.0
//
// Rows of CSV and lines of JSON as writes: which record, which fields, and what
// is wrong with a bad one.
#include "tools/chapterctl/rows.h"

#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "chaptersync/v1/member.pb.h"
#include "node/entity/ids.h"

namespace chaptersync::ctl {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const node::EntityType& Type(const std::string& noun) {
  return *node::BuiltinEntities().FindByNoun(noun);
}

std::vector<ImportRow> All(RowSource& rows) {
  std::vector<ImportRow> out;
  for (ImportRow row; rows.Next(row);) out.push_back(row);
  return out;
}

std::vector<ImportRow> Csv(const std::string& noun, const std::string& text,
                           const ColumnMap& map = {}) {
  std::istringstream in(text);
  auto rows = OpenCsvRows(Type(noun), in, map);
  EXPECT_TRUE(rows.ok()) << rows.status();
  return rows.ok() ? All(**rows) : std::vector<ImportRow>();
}

std::string CsvError(const std::string& text, const ColumnMap& map = {}) {
  std::istringstream in(text);
  return std::string(OpenCsvRows(Type("members"), in, map).status().message());
}

std::vector<ImportRow> JsonLines(const std::string& noun, const std::string& text) {
  std::istringstream in(text);
  return All(*OpenJsonRows(Type(noun), in, {}));
}

v1::Member MemberOf(const ImportRow& row) {
  v1::Member member;
  row.write.entity().UnpackTo(&member);
  return member;
}

std::string Problem(const ImportRow& row) {
  return std::to_string(row.line) + " " + std::string(row.problem.message());
}

TEST(CsvRowsTest, CellsBecomeFieldsAndEmptyOnesAreNotWritten) {
  const auto rows = Csv("members",
                        "id,names.legal.full,employer,contacts.home.value,status\n"
                        "0006314D-7c5b-5af4-8261-84579a21b6ec,王小明,,+390551234567,lost\n");
  ASSERT_EQ(rows.size(), 1U);
  ASSERT_TRUE(rows[0].problem.ok()) << rows[0].problem;
  EXPECT_EQ(rows[0].line, 2U);
  EXPECT_EQ(rows[0].write.name(), "members/0006314d-7c5b-5af4-8261-84579a21b6ec");
  EXPECT_THAT(rows[0].write.update_mask().paths(),
              ElementsAre("names.legal.full", "contacts.home.value", "status"));
  const v1::Member member = MemberOf(rows[0]);
  EXPECT_EQ(member.names().at("legal").full(), "王小明");
  EXPECT_EQ(member.contacts().at("home").value(), "+390551234567");
  EXPECT_EQ(member.status(), v1::MEMBER_STATUS_LOST);
  EXPECT_FALSE(member.has_employer());
}

TEST(CsvRowsTest, ATextNamesARecord) {
  const auto rows = Csv("members", "id,employer\n1985-00017,A\n1985-00017,B\n1985-00018,A\n");
  ASSERT_EQ(rows.size(), 3U);
  EXPECT_EQ(rows[0].id, node::NamedId(Type("members"), "1985-00017"));
  EXPECT_EQ(rows[0].id, rows[1].id);
  EXPECT_NE(rows[0].id, rows[2].id);
  const auto long_id = Csv("members", "id,employer\n" + std::string(129, 'x') + ",A\n");
  EXPECT_THAT(Problem(long_id[0]), HasSubstr("2 id '"));
}

TEST(CsvRowsTest, WithoutAnIdTheContentNamesTheRecord) {
  const auto rows = Csv("members", "employer,job_title\nA,x\nA,x\nA,y\n");
  ASSERT_EQ(rows.size(), 3U);
  EXPECT_EQ(rows[0].id, rows[1].id);
  EXPECT_NE(rows[0].id, rows[2].id);
  // The order of columns does not matter.
  EXPECT_EQ(Csv("members", "job_title,employer\nx,A\n")[0].id, rows[0].id);
}

TEST(CsvRowsTest, AnEntityWithANameIsNamedByIt) {
  const auto rows = Csv("chapters", "handle,country\nitaly,IT\n,CA\n");
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[0].id, node::NamedId(Type("chapters"), "italy"));
  EXPECT_THAT(Problem(rows[1]), HasSubstr("3 the row names no record"));
}

TEST(CsvRowsTest, ABadRowHasItsLineAndReason) {
  const auto rows = Csv("members",
                        "id,notes,status\n"
                        "a,\"two\nlines\",\n"
                        "b,x\n"
                        "c,\xff\xfe,\n"
                        "d,x,happy\n"
                        ",,\n"
                        "e,x,lost\n");
  ASSERT_EQ(rows.size(), 5U);
  EXPECT_TRUE(rows[0].problem.ok());
  EXPECT_EQ(Problem(rows[1]), "4 the row has 2 cells, the header 3");
  EXPECT_THAT(Problem(rows[2]), HasSubstr("5 field 'notes'"));
  EXPECT_THAT(Problem(rows[3]), HasSubstr("6 field 'status': value 'happy' is not allowed"));
  EXPECT_TRUE(rows[4].problem.ok());
  EXPECT_EQ(rows[4].line, 8U);
  EXPECT_THAT(rows[4].write.update_mask().paths(), ElementsAre("notes", "status"));
}

TEST(CsvRowsTest, UnknownColumnsAreNamedUpToFive) {
  EXPECT_THAT(CsvError("id,colour\n"),
              HasSubstr("unknown column 'colour' (members have id, names"));
  EXPECT_THAT(CsvError("a,b,c,d,e,id,f,g\n"),
              HasSubstr("unknown columns 'a', 'b', 'c', 'd', 'e' and 2 more"));
  EXPECT_THAT(CsvError(""), HasSubstr("empty"));
  EXPECT_THAT(CsvError("\"id\n"), HasSubstr("line 1"));
  EXPECT_THAT(CsvError("id,\xff\n"), HasSubstr("not UTF-8"));
  EXPECT_THAT(CsvError("id,employer,employer\n"), HasSubstr("two columns stand for 'employer'"));
}

TEST(CsvRowsTest, ColumnsCanBeMapped) {
  const ColumnMap map = {{"Firma", "employer"}, {"Nr", "id"}, {"Ort", ""}};
  const auto rows = Csv("members", "Nr,Firma,Ort\n7,Globex,Rome\n", map);
  ASSERT_EQ(rows.size(), 1U);
  EXPECT_EQ(rows[0].id, node::NamedId(Type("members"), "7"));
  EXPECT_THAT(rows[0].write.update_mask().paths(), ElementsAre("employer"));
  EXPECT_THAT(CsvError("id\n", {{"Firma", "employer"}}), HasSubstr("no column 'Firma'"));
  EXPECT_THAT(CsvError("id,Firma\n", {{"Firma", "colour"}}), HasSubstr("unknown column 'Firma'"));
}

TEST(CsvRowsTest, TooManyColumnsAreRefusedBeforeTheyAreReadOneByOne) {
  // 20,000 columns took minutes.
  const auto header = [](size_t count) {
    std::string text = "id";
    for (size_t i = 0; i < count; ++i) absl::StrAppend(&text, ",contacts.c", i, ".value");
    return text + "\n";
  };
  EXPECT_EQ(CsvError(header(20'000)), "20000 columns are too many (at most 1000)");
  EXPECT_EQ(CsvError(header(kCsvColumnsMax + 1)), "1001 columns are too many (at most 1000)");
  std::string row = "a";
  for (size_t i = 0; i < kCsvColumnsMax; ++i) row += ",x";
  const auto rows = Csv("members", header(kCsvColumnsMax) + row + "\n");
  ASSERT_EQ(rows.size(), 1U);
  ASSERT_TRUE(rows[0].problem.ok()) << rows[0].problem;
  EXPECT_EQ(MemberOf(rows[0]).contacts().size(), kCsvColumnsMax);
}

TEST(JsonRowsTest, ARowHoldsAsManyFieldsAsARecord) {
  // What export prints of a record with 4,096 entries was refused for its update mask.
  const auto line = [](size_t count) {
    std::string text = "{\"id\":\"a\",\"noun\":\"members\",\"contacts\":{";
    for (size_t i = 0; i < count; ++i) {
      absl::StrAppend(&text, i == 0 ? "" : ",", "\"c", i, "\":{\"value\":\"", i, "\"}");
    }
    return text + "},\"scopes\":[\"hq\"],\"deleted\":false,\"erased\":false}\n";
  };
  const auto rows =
      JsonLines("members", "\n" + line(kJsonFieldsMax) + line(kJsonFieldsMax + 1) + line(1));
  ASSERT_EQ(rows.size(), 3U);
  ASSERT_TRUE(rows[0].problem.ok()) << rows[0].problem;
  EXPECT_EQ(static_cast<size_t>(rows[0].write.update_mask().paths_size()), kJsonFieldsMax);
  const v1::Member member = MemberOf(rows[0]);
  ASSERT_EQ(member.contacts().size(), kJsonFieldsMax);
  EXPECT_EQ(member.contacts().at("c4095").value(), "4095");
  EXPECT_EQ(Problem(rows[1]), "3 4097 fields are too many (at most 4096)");
  EXPECT_TRUE(rows[2].problem.ok());
}

TEST(JsonRowsTest, AKeyThatComesTwiceRefusesTheRow) {
  // The last value was kept without a word.
  const auto rows =
      JsonLines("members",
                "{\"employer\":\"A\",\"employer\":\"B\"}\n"
                "{\"contacts\":{\"home\":{\"value\":\"1\"},\"home\":{\"value\":\"2\"}}}\n"
                "{\"contacts\":{\"a\":{\"value\":\"1\"},\"b\":{\"value\":\"1\"}},"
                "\"names\":{\"a\":{}}}\n");
  ASSERT_EQ(rows.size(), 3U);
  EXPECT_EQ(Problem(rows[0]), "1 'employer' is given twice (once is allowed)");
  EXPECT_EQ(Problem(rows[1]), "2 'home' is given twice (once is allowed)");
  EXPECT_TRUE(rows[2].problem.ok()) << rows[2].problem;
}

TEST(JsonRowsTest, EqualRowsAreEqualBytes) {
  // Maps came in any order, so that a row that is there twice could be doubtful.
  std::string line = "{\"id\":\"a\",\"contacts\":{";
  for (int i = 0; i < 100; ++i) {
    absl::StrAppend(&line, i == 0 ? "" : ",", "\"c", i, "\":{\"value\":\"", i, "\"}");
  }
  line += "}}\n";
  const auto rows = JsonLines("members", line + line + line);
  ASSERT_EQ(rows.size(), 3U);
  EXPECT_EQ(rows[0].write.SerializeAsString(), rows[1].write.SerializeAsString());
  EXPECT_EQ(rows[0].write.SerializeAsString(), rows[2].write.SerializeAsString());
}

TEST(CsvRowsTest, AMapIsGivenInWholeOrByItsEntries) {
  const auto rows = Csv("members",
                        "id,contacts,contacts.home.value,contacts.home.label,contacts.home\n"
                        "a,\"{\"\"home\"\":{}}\",1,,\n"
                        "b,,1,x,\n"
                        "c,\"{\"\"home\"\":{\"\"label\"\":\"\"y\"\"}}\",,,\n");
  ASSERT_EQ(rows.size(), 3U);
  EXPECT_THAT(Problem(rows[0]), HasSubstr("2 field 'contacts' is given twice (once is allowed"));
  ASSERT_TRUE(rows[1].problem.ok()) << rows[1].problem;
  EXPECT_EQ(MemberOf(rows[1]).contacts().at("home").value(), "1");
  EXPECT_EQ(MemberOf(rows[1]).contacts().at("home").label(), "x");
  ASSERT_TRUE(rows[2].problem.ok()) << rows[2].problem;
  EXPECT_EQ(MemberOf(rows[2]).contacts().at("home").label(), "y");
}

TEST(JsonRowsTest, AnExportedRecordIsTakenBack) {
  const auto rows = JsonLines(
      "members",
      "{\"id\":\"0006314d-7c5b-5af4-8261-84579a21b6ec\",\"noun\":\"members\",\"employer\":\"\","
      "\"contacts\":{\"home\":{\"kind\":\"CONTACT_KIND_PHONE\",\"value\":\"+390551234567\"},"
      "\"a.b\":{}},\"job_title\":null,\"scopes\":[\"hq\"],\"deleted\":false,\"erased\":false}\n");
  ASSERT_EQ(rows.size(), 1U);
  ASSERT_TRUE(rows[0].problem.ok()) << rows[0].problem;
  EXPECT_EQ(rows[0].write.name(), "members/0006314d-7c5b-5af4-8261-84579a21b6ec");
  EXPECT_THAT(rows[0].write.update_mask().paths(),
              testing::UnorderedElementsAre("contacts.home", "contacts.`a.b`", "employer"));
  const v1::Member member = MemberOf(rows[0]);
  EXPECT_TRUE(member.has_employer());
  EXPECT_EQ(member.contacts().at("home").kind(), v1::CONTACT_KIND_PHONE);
  EXPECT_EQ(member.contacts().count("a.b"), 1U);
}

TEST(JsonRowsTest, NumbersAndPathsAreTaken) {
  const auto rows = JsonLines("events", "{\"capacity\":60,\"titles.en.text\":\"Gala\"}\n");
  ASSERT_EQ(rows.size(), 1U);
  ASSERT_TRUE(rows[0].problem.ok()) << rows[0].problem;
  EXPECT_THAT(rows[0].write.update_mask().paths(), ElementsAre("capacity", "titles.en.text"));
}

TEST(JsonRowsTest, BadLinesHaveTheirNumberAndReason) {
  const auto rows = JsonLines("members",
                              "\xef\xbb\xbf{\"employer\":\"A\"}\r\n"
                              "\n"
                              "[1]\n"
                              "{\"employer\":\n"
                              "{\"colour\":\"blue\"}\n"
                              "{\"noun\":\"events\",\"employer\":\"A\"}\n"
                              "{\"deleted\":true,\"employer\":\"A\"}\n"
                              "{\"contacts\":{\"home\":5}}\n"
                              "{}\n"
                              "{\"employer\":\"\xff\"}\n" +
                                  std::string(100'000, '[') + "\n{\"notes\":\"" +
                                  std::string(kRowBytesMax, 'x') + "\"}\n{\"employer\":\"B\"}");
  std::vector<std::string> problems;
  for (const ImportRow& row : rows) problems.push_back(Problem(row));
  EXPECT_THAT(
      problems,
      ElementsAre("1 ", "3 the line is no JSON object", "4 the line is no JSON object",
                  HasSubstr("5 unknown column 'colour'"), HasSubstr("6 the row is one of"),
                  HasSubstr("7 the record was deleted"), HasSubstr("8 field 'contacts.home'"),
                  "9 the row holds no value", "10 the line is not UTF-8",
                  "11 the line is nested too deeply", "12 longer than 1048576 bytes", "13 "));
}

}  // namespace
}  // namespace chaptersync::ctl
