// SPDX-License-Identifier: Apache-2.0
//
// What is printed: widths of Chinese and accents, tables, errors in both forms,
// and messages as JSON.
#include "tools/chapterctl/output.h"

#include <sstream>
#include <string>

#include <gtest/gtest.h>

#include "chaptersync/v1/event.pb.h"
#include "chaptersync/v1/member.pb.h"
#include "tools/chapterctl/failure.h"
#include "tools/chapterctl/flatten.h"
#include "tools/chapterctl/json.h"
#include "tools/chapterctl/text_width.h"

namespace chaptersync::ctl {
namespace {

TEST(TextWidthTest, CountsColumns) {
  EXPECT_EQ(DisplayWidth(""), 0U);
  EXPECT_EQ(DisplayWidth("abc"), 3U);
  EXPECT_EQ(DisplayWidth("王小明"), 6U);
  EXPECT_EQ(DisplayWidth("é"), 1U);
  EXPECT_EQ(DisplayWidth("e\xcc\x81"), 1U);  // the accent by itself
  EXPECT_EQ(DisplayWidth("\xff\xfe"), 2U);
}

TEST(TextWidthTest, CutsBetweenCharacters) {
  EXPECT_EQ(FitTo("abc", 3), "abc");
  EXPECT_EQ(FitTo("abcd", 3), "ab…");
  EXPECT_EQ(FitTo("王小明", 6), "王小明");
  EXPECT_EQ(FitTo("王小明", 5), "王小…");
  EXPECT_EQ(FitTo("王小明", 4), "王…");
  EXPECT_EQ(FitTo("abc", 0), "");
}

TEST(TextWidthTest, NothingSteersATerminal) {
  EXPECT_EQ(Printable("a\n\tb"), "a b");
  EXPECT_EQ(Printable("\x1b[31m"), "\xef\xbf\xbd[31m");
  EXPECT_EQ(Printable("\xc2\x9b"
                      "x"),
            "\xef\xbf\xbdx");  // the same in one character
  EXPECT_EQ(Printable("\xff"), "\xef\xbf\xbd");
  EXPECT_EQ(Printable("王 é"), "王 é");
}

// Streams in place of a terminal's.
struct Screen {
  std::istringstream in;
  std::ostringstream out;
  std::ostringstream err;
  Terminal terminal{.in = in, .out = out, .err = err};
};

TEST(TableTest, AlignsChinese) {
  Screen screen;
  Output output(screen.terminal, Format::kTable, false);
  Table table(output, {"id", "name", "city"});
  table.Row({"1", "王小明", "Rome"});
  table.Row({"22", "Ann", ""});
  table.Finish("no members");
  EXPECT_EQ(screen.out.str(),
            "ID  NAME    CITY\n"
            "1   王小明  Rome\n"
            "22  Ann\n");
}

TEST(TableTest, OnlyATerminalCutsRows) {
  const std::string text(100, 'x');
  for (const bool terminal : {false, true}) {
    Screen screen;
    screen.terminal.out_terminal = terminal;
    screen.terminal.columns = 20;
    Output output(screen.terminal, Format::kTable, false);
    Table table(output, {"a", "b"});
    table.Row({"1", text});
    table.Finish("");
    std::istringstream lines(screen.out.str());
    std::string line;
    std::getline(lines, line);
    std::getline(lines, line);
    EXPECT_EQ(line, terminal ? "1  " + std::string(16, 'x') + "…" : "1  " + text);
  }
}

TEST(TableTest, ALongTableIsPrintedAsItComes) {
  Screen screen;
  Output output(screen.terminal, Format::kTable, false);
  Table table(output, {"n", "m"});
  for (int i = 0; i < 1000; ++i) table.Row({"1", "x"});
  EXPECT_FALSE(screen.out.str().empty());
  table.Row({"12345", "y"});
  table.Finish("");
  EXPECT_TRUE(screen.out.str().ends_with("1  x\n12345  y\n"));
}

TEST(TableTest, AnEmptyTableIsANoteToAPerson) {
  for (const bool terminal : {false, true}) {
    Screen screen;
    screen.terminal.err_terminal = terminal;
    Output output(screen.terminal, Format::kTable, false);
    Table table(output, {"id"});
    table.Finish("no members");
    EXPECT_EQ(screen.out.str(), "");
    EXPECT_EQ(screen.err.str(), terminal ? "no members\n" : "");
  }
  Screen screen;
  Output output(screen.terminal, Format::kCsv, false);
  Table table(output, {"id", "name"});
  table.Finish("no members");
  EXPECT_EQ(screen.out.str(), "id,name\n");
}

TEST(OutputTest, CsvQuotesWhatNeedsIt) {
  EXPECT_EQ(CsvRow({"a", "b c", " d", "e,f", "g\"h", "i\nj", ""}),
            "a,b c,\" d\",\"e,f\",\"g\"\"h\",\"i\nj\",\n");
}

TEST(OutputTest, ErrorsInBothForms) {
  const absl::Status status =
      WithDetails(absl::NotFoundError("there is no\nmember 'x'"), {"a", "b"});
  {
    Screen screen;
    Output(screen.terminal, Format::kTable, true).Error(status);
    EXPECT_EQ(screen.err.str(), "chapterctl: there is no member 'x'\n");
    EXPECT_EQ(screen.out.str(), "");
  }
  Screen screen;
  Output(screen.terminal, Format::kJson, true).Error(status);
  EXPECT_EQ(screen.err.str(),
            "{\"error\":{\"code\":\"NOT_FOUND\",\"message\":\"there is no member 'x'\","
            "\"details\":[\"a\",\"b\"]}}\n");
}

TEST(OutputTest, ProgressIsForTerminalsOnly) {
  Screen screen;
  Output(screen.terminal, Format::kTable, false).Progress("10 rows");
  EXPECT_EQ(screen.err.str(), "");
  screen.terminal.err_terminal = true;
  Output(screen.terminal, Format::kTable, true).Progress("10 rows");
  EXPECT_EQ(screen.err.str(), "");
  Output output(screen.terminal, Format::kTable, false);
  output.Progress("10 rows");
  EXPECT_NE(screen.err.str().find("10 rows"), std::string::npos);
}

TEST(OutputTest, AFullDiskIsAnError) {
  Screen screen;
  Output output(screen.terminal, Format::kTable, false);
  EXPECT_TRUE(output.Finish().ok());
  screen.out.setstate(std::ios::badbit);
  EXPECT_EQ(ExitOf(output.Finish()), Exit::kFailed);
}

TEST(FailureTest, ExitCodes) {
  EXPECT_EQ(ExitOf(absl::OkStatus()), Exit::kDone);
  EXPECT_EQ(ExitOf(absl::InternalError("")), Exit::kFailed);
  EXPECT_EQ(ExitOf(absl::CancelledError("")), Exit::kFailed);
  EXPECT_EQ(ExitOf(UsageError("x")), Exit::kUsage);
  EXPECT_EQ(ExitOf(absl::NotFoundError("")), Exit::kNotFound);
  for (const absl::Status& refused :
       {absl::PermissionDeniedError(""), absl::FailedPreconditionError(""),
        absl::InvalidArgumentError(""), absl::AlreadyExistsError("")}) {
    EXPECT_EQ(ExitOf(refused), Exit::kRefused) << refused;
  }
  // A daemon's full disk was taken for a refusal, which trying again cannot mend.
  EXPECT_EQ(ExitOf(absl::ResourceExhaustedError("")), Exit::kFailed);
  EXPECT_EQ(ExitOf(absl::UnavailableError("")), Exit::kUnreachable);
  EXPECT_EQ(ExitOf(absl::DeadlineExceededError("")), Exit::kUnreachable);
  EXPECT_EQ(ExitOf(WithExit(absl::NotFoundError(""), Exit::kDiffers)), Exit::kDiffers);
}

TEST(JsonTest, TimesAreInUtcWithMilliseconds) {
  google::protobuf::Timestamp time;
  time.set_seconds(1'778'778'000);
  time.set_nanos(5'600'000);
  EXPECT_EQ(TimeText(time), "2026-05-14T17:00:00.005Z");
}

TEST(JsonTest, AMessageKeepsItsOrderAndTypes) {
  v1::Event event;
  (*event.mutable_titles())["it"].set_text("Cena");
  (*event.mutable_titles())["en"].set_text("Dinner");
  event.set_capacity(60);
  event.set_venue("");
  (*event.mutable_allotments())["italy"] = 40;
  event.set_audience(v1::AUDIENCE_EVERYBODY);
  EXPECT_EQ(JsonLine(MessageJson(event)),
            "{\"titles\":{\"en\":{\"text\":\"Dinner\"},\"it\":{\"text\":\"Cena\"}},\"venue\":\"\","
            "\"audience\":\"AUDIENCE_EVERYBODY\",\"capacity\":60,\"allotments\":{\"italy\":40}}");
  v1::Member member;
  member.set_photo("\xff\x01");
  EXPECT_EQ(JsonLine(MessageJson(member)), "{\"photo\":\"/wE=\"}");
}

TEST(JsonTest, NumbersStayNumbers) {
  google::protobuf::Value value;
  value.set_number_value(60);
  EXPECT_EQ(JsonLine(ValueJson(value)), "60");
  value.set_number_value(0.5);
  EXPECT_EQ(JsonLine(ValueJson(value)), "0.5");
  value.set_null_value(google::protobuf::NULL_VALUE);
  EXPECT_EQ(JsonLine(ValueJson(value)), "null");
}

TEST(JsonTest, ARecordHasItsFieldsAndWhereItIs) {
  v1::Member member;
  member.set_employer("Globex");
  v1::Record record;
  record.set_id("0006314d-7c5b-5af4-8261-84579a21b6ec");
  record.set_noun("members");
  record.add_scopes("chapter/italy");
  record.mutable_entity()->PackFrom(member);
  EXPECT_EQ(JsonLine(*RecordJson(record)),
            "{\"id\":\"0006314d-7c5b-5af4-8261-84579a21b6ec\",\"noun\":\"members\","
            "\"employer\":\"Globex\",\"scopes\":[\"chapter/italy\"],\"deleted\":false,"
            "\"erased\":false}");
  record.mutable_entity()->set_value("\xff");
  EXPECT_EQ(RecordJson(record).status().code(), absl::StatusCode::kDataLoss);
}

TEST(JsonTest, AFieldThatLostToADeletionStandsDeleted) {
  // A table showed the deletion as a field's value.
  v1::Conflict conflict;
  conflict.set_noun("members");
  conflict.set_field("employer");
  conflict.mutable_current()->set_bool_value(true);
  EXPECT_EQ(StandsText(conflict), "(deleted)");
  EXPECT_EQ(JsonLine(ConflictJson(conflict)["current"]), "true");
  conflict.set_noun("unicorns");
  EXPECT_EQ(StandsText(conflict), "(deleted)");
  conflict.mutable_current()->set_string_value("true");
  EXPECT_EQ(StandsText(conflict), "true");
  conflict.clear_current();
  EXPECT_EQ(StandsText(conflict), "(cleared)");
  conflict.clear_field();
  EXPECT_EQ(StandsText(conflict), "(not deleted)");
  conflict.mutable_current()->set_bool_value(false);
  EXPECT_EQ(StandsText(conflict), "(restored)");
}

TEST(JsonTest, OfTwoSettlementsTheLastStands) {
  v1::Conflict conflict;
  conflict.set_state(v1::CONFLICT_STATE_OPEN);
  EXPECT_EQ(ConflictJson(conflict)["settled"], nullptr);
  EXPECT_EQ(ConflictJson(conflict)["state"], "open");
  conflict.set_state(v1::CONFLICT_STATE_SETTLED);
  for (const char* actor : {"first", "second"}) {
    v1::Settlement& settlement = *conflict.add_settled();
    settlement.mutable_write()->set_actor(actor);
    settlement.mutable_write()->mutable_time()->set_seconds(1);
    settlement.set_choice(v1::SETTLEMENT_CHOICE_TAKE);
  }
  const Json json = ConflictJson(conflict);
  EXPECT_EQ(JsonLine(json["settled"]),
            "{\"actor\":\"second\",\"time\":\"1970-01-01T00:00:01.000Z\",\"choice\":\"take\"}");
  EXPECT_EQ(json["settlements"].size(), 2U);
}

TEST(FlattenTest, GoesDownToWhatIsNoMessage) {
  v1::Member member;
  (*member.mutable_names())["legal"].set_full("Ann");
  (*member.mutable_names())["a.b"].set_full("Dot");
  (*member.mutable_contacts())["home"];
  member.set_employer("");
  const auto* type = node::BuiltinEntities().FindByNoun("members");
  std::string shown;
  for (const FlatValue& value : Flatten(*type, member)) {
    shown += value.path + "=" + value.value + "\n";
  }
  EXPECT_EQ(shown,
            "names.`a.b`.full=Dot\n"
            "names.legal.full=Ann\n"
            "contacts.home={}\n"
            "employer=\n");
}

}  // namespace
}  // namespace chaptersync::ctl
