// SPDX-License-Identifier: Apache-2.0
//
// The CSV reader: what RFC 4180 allows, what it does not, and that neither
// random bytes nor endless rows harm it.
#include "tools/chapterctl/csv.h"

#include <algorithm>
#include <random>
#include <sstream>
#include <streambuf>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tools/chapterctl/output.h"

namespace chaptersync::ctl {
namespace {

using namespace std::string_literals;

// Rows as "line:cell|cell", bad ones as "line!problem".
std::vector<std::string> ReadAll(const std::string& text) {
  std::istringstream in(text);
  CsvReader reader(in);
  std::vector<std::string> out;
  for (CsvRecord record; reader.Next(record);) {
    std::string shown = std::to_string(record.line) + (record.problem.empty() ? ":" : "!");
    if (!record.problem.empty()) {
      shown += record.problem;
    } else {
      for (size_t i = 0; i < record.cells.size(); ++i)
        shown += (i > 0 ? "|" : "") + record.cells[i];
    }
    out.push_back(shown);
  }
  return out;
}

constexpr char kNeverClosed[] = "a quote is opened and never closed";
constexpr char kAfterQuote[] = "text after a closing quote";
constexpr char kStrayQuote[] = "a quote within a cell that does not begin with one";
constexpr char kStrayReturn[] = "a carriage return without a line feed";

struct Case {
  const char* name;
  std::string text;
  std::vector<std::string> rows;
};

TEST(CsvTest, ReadsWhatIsCsvAndNamesWhatIsNot) {
  const std::vector<Case> cases = {
      {"Empty", "", {}},
      {"Plain", "a,b\nc,d\n", {"1:a|b", "2:c|d"}},
      {"NoEndOfLastLine", "a,b\nc,d", {"1:a|b", "2:c|d"}},
      {"CrLf", "a,b\r\nc,d\r\n", {"1:a|b", "2:c|d"}},
      {"CrAtTheEnd", "a,b\r", {"1:a|b"}},
      {"ByteOrderMark",
       "\xef\xbb\xbf"
       "a,b\n",
       {"1:a|b"}},
      {"ByteOrderMarkAndQuote", "\xef\xbb\xbf\"a\",b\n", {"1:a|b"}},
      {"HalfAByteOrderMark",
       "\xef\xbb"
       "a\n",
       {"1:\xef\xbb"
        "a"}},
      {"EmptyLines", "\n\na\n\r\n\nb\n\n", {"3:a", "6:b"}},
      {"EmptyCells", ",\na,\n", {"1:|", "2:a|"}},
      {"QuotedEmptyCell", "\"\"\n", {"1:"}},
      {"Quotes", "\"a,b\",\"c\"\"d\"\n", {"1:a,b|c\"d"}},
      {"NewlinesInQuotes", "\"a\nb\r\nc\",d\ne,f\n", {"1:a\nb\r\nc|d", "4:e|f"}},
      {"QuoteAtTheEnd", "\"a\"", {"1:a"}},
      {"Nul", "a\0b,c\n"s, {"1:a\0b|c"s}},
      {"StrayQuote", "a\"b,c\nd,e\n", {"1!"s + kStrayQuote, "2:d|e"}},
      {"TextAfterQuote", "\"a\"b\nd\n", {"1!"s + kAfterQuote, "2:d"}},
      {"StrayReturn", "a\rb\nd\n", {"1!"s + kStrayReturn, "2:d"}},
      {"ReturnAfterQuote", "\"a\"\rb\nd\n", {"1!"s + kStrayReturn, "2:d"}},
      {"NeverClosed", "a\n\"b\nc\nd\n", {"1:a", "2!"s + kNeverClosed, "3:c", "4:d"}},
      {"NeverClosedLast", "a\n\"b", {"1:a", "2!"s + kNeverClosed}},
      {"OnlyAQuote", "\"", {"1!"s + kNeverClosed}},
      // The quote of line 1 meets that of line 3: line 1 alone is given up.
      {"SwallowsGoodRows", "\"a\nb\n\"c\"\nd\n", {"1!"s + kAfterQuote, "2:b", "3:c", "4:d"}},
      {"TwiceBad",
       "\"a\n\"b\n\"c\n",
       {"1!"s + kAfterQuote, "2!"s + kAfterQuote, "3!"s + kNeverClosed}},
  };
  for (const Case& one : cases) EXPECT_EQ(ReadAll(one.text), one.rows) << one.name;
}

TEST(CsvTest, ARowThatIsTooLongIsReportedAndTheNextRead) {
  const std::string half(kRowBytesMax / 2, 'x');
  const std::string fits = half + "," + half.substr(2);
  EXPECT_EQ(ReadAll(fits + "\nb\n").size(), 2U);
  EXPECT_EQ(ReadAll(fits + "\nb\n")[0], "1:" + half + "|" + half.substr(2));
  const std::vector<std::string> plain = ReadAll("a\n" + half + half + "yy\nb\n");
  ASSERT_EQ(plain.size(), 3U);
  EXPECT_EQ(plain[1], "2!longer than 1048576 bytes");
  EXPECT_EQ(plain[2], "3:b");
  const std::vector<std::string> quoted = ReadAll("a\n\"" + half + half + "\"\nb\n");
  ASSERT_EQ(quoted.size(), 3U);
  EXPECT_EQ(quoted[1].substr(0, 2), "2!");
  EXPECT_EQ(quoted[2], "3:b");
  // Of a long row in quotes with lines of its own, those are read as rows.
  const std::vector<std::string> lines = ReadAll("\"a\n" + half + half + "\nb\n");
  ASSERT_EQ(lines.size(), 3U);
  EXPECT_EQ(lines[0].substr(0, 2), "1!");
  EXPECT_EQ(lines[1].substr(0, 2), "2!");
  EXPECT_EQ(lines[2], "3:b");
}

// Gives the same byte again and again.
class Endless : public std::streambuf {
 public:
  Endless(char byte, size_t count) : byte_(byte), left_(count) {}

 protected:
  int_type underflow() override {
    if (left_ == 0) return traits_type::eof();
    --left_;
    setg(&byte_, &byte_, &byte_ + 1);
    return traits_type::to_int_type(byte_);
  }

 private:
  char byte_;
  size_t left_;
};

TEST(CsvTest, AnEndlessRowTakesNoMemory) {
  constexpr size_t kBytes = 16 * kRowBytesMax;
  for (const char byte : {'x', '"', ','}) {
    Endless bytes(byte, kBytes);
    std::istream in(&bytes);
    CsvReader reader(in);
    size_t rows = 0;
    for (CsvRecord record; reader.Next(record); ++rows) {
      EXPECT_FALSE(record.problem.empty());
      EXPECT_LE(record.cells.size(), kRowBytesMax + 1);
      size_t kept = 0;
      for (const std::string& cell : record.cells) kept += cell.size();
      EXPECT_LE(kept, kRowBytesMax + 1);
    }
    EXPECT_EQ(rows, 1U) << byte;
  }
}

TEST(CsvTest, RandomBytesAreReadToTheirEndInOrder) {
  const std::string alphabet = "\"\",,\n\n\r ab\xff\0"s;
  for (uint32_t seed = 0; seed < 3000; ++seed) {
    std::mt19937 random(seed);
    std::string text(random() % 200, ' ');
    for (char& c : text) c = alphabet[random() % alphabet.size()];
    std::istringstream in(text);
    CsvReader reader(in);
    const auto lines = static_cast<uint64_t>(std::count(text.begin(), text.end(), '\n')) + 1;
    uint64_t before = 0;
    for (CsvRecord record; reader.Next(record);) {
      ASSERT_GT(record.line, before) << "seed " << seed;
      ASSERT_LE(record.line, lines) << "seed " << seed;
      before = record.line;
      if (record.problem.empty()) {
        ASSERT_FALSE(record.cells.empty()) << "seed " << seed;
      }
    }
    ASSERT_TRUE(in.rdbuf()->sgetc() == std::char_traits<char>::eof()) << "seed " << seed;
  }
}

TEST(CsvTest, WhatIsWrittenIsRead) {
  const std::string alphabet = "\",\n\rab \xc3"s;
  for (uint32_t seed = 0; seed < 2000; ++seed) {
    std::mt19937 random(seed);
    std::vector<std::vector<std::string>> rows(1 + random() % 4);
    std::string text;
    for (auto& cells : rows) {
      cells.resize(2 + random() % 3);
      for (std::string& cell : cells) {
        cell.resize(random() % 6);
        for (char& c : cell) c = alphabet[random() % alphabet.size()];
      }
      text += CsvRow(cells);
    }
    std::istringstream in(text);
    CsvReader reader(in);
    for (const auto& cells : rows) {
      CsvRecord record;
      ASSERT_TRUE(reader.Next(record)) << "seed " << seed;
      ASSERT_EQ(record.problem, "") << "seed " << seed;
      ASSERT_EQ(record.cells, cells) << "seed " << seed;
    }
    CsvRecord record;
    ASSERT_FALSE(reader.Next(record)) << "seed " << seed;
  }
}

}  // namespace
}  // namespace chaptersync::ctl
