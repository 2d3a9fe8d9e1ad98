// SPDX-License-Identifier: Apache-2.0
//
// A quote in the wrong place can swallow any number of good rows. So the bytes
// of a row are kept until it has ended well; where it has not, only its first
// line is given up, and the lines after it are read again.
#include "tools/chapterctl/csv.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace chaptersync::ctl {

CsvReader::CsvReader(std::istream& in) : in_(in) {
  for (const int expected : {0xef, 0xbb, 0xbf}) {
    if (Peek() != expected) {  // No BOM: what was read is data.
      pending_ = raw_ + pending_.substr(pending_at_);
      pending_at_ = 0;
      break;
    }
    Get();
  }
  raw_.clear();
}

int CsvReader::Peek() {
  if (pending_at_ < pending_.size()) return static_cast<unsigned char>(pending_[pending_at_]);
  const int c = in_.rdbuf()->sgetc();
  return c == std::char_traits<char>::eof() ? kEnd : c;
}

int CsvReader::Take() {
  const int c = Peek();
  if (c == kEnd) return c;
  if (pending_at_ < pending_.size()) {
    ++pending_at_;
  } else {
    in_.rdbuf()->sbumpc();
  }
  if (c == '\n') ++line_;
  return c;
}

int CsvReader::Get() {
  const int c = Take();
  if (c != kEnd) raw_ += static_cast<char>(c);
  return c;
}

bool CsvReader::Next(CsvRecord& record) {
  for (;;) {
    while (Peek() == '\n') Get();
    if (Peek() == kEnd) return false;
    record.line = line_;
    record.cells.clear();
    raw_.clear();
    record.problem = Parse(record);
    if (!record.problem.empty()) {
      line_ = record.line;
      Recover();
      return true;
    }
    if (record.cells.size() > 1 || !record.cells[0].empty() || raw_[0] == '"') return true;
  }
}

std::string CsvReader::ParseQuoted(std::string& cell) {
  Get();  // the opening quote
  for (;;) {
    const int c = Get();
    if (c == kEnd) return "a quote is opened and never closed";
    if (too_long())
      return absl::StrCat("longer than ", kRowBytesMax, " bytes, or a quote not closed");
    if (c != '"') {
      cell += static_cast<char>(c);
    } else if (Peek() == '"') {
      Get();
      cell += '"';
    } else {
      break;
    }
  }
  const int next = Peek();
  if (next == ',' || next == '\n' || next == '\r' || next == kEnd) return "";
  return "text after a closing quote";
}

std::string CsvReader::Parse(CsvRecord& record) {
  for (;;) {
    std::string cell;
    if (Peek() == '"') {
      if (std::string problem = ParseQuoted(cell); !problem.empty()) return problem;
    }
    int c = Get();
    for (; c != ',' && c != '\n' && c != kEnd; c = Get()) {
      if (too_long()) return absl::StrCat("longer than ", kRowBytesMax, " bytes");
      if (c == '"') return "a quote within a cell that does not begin with one";
      if (c == '\r') {
        if (Peek() == '\n' || Peek() == kEnd) continue;
        return "a carriage return without a line feed";
      }
      cell += static_cast<char>(c);
    }
    if (too_long()) return absl::StrCat("longer than ", kRowBytesMax, " bytes");
    record.cells.push_back(std::move(cell));
    if (c != ',') return "";
  }
}

void CsvReader::Recover() {
  const size_t first_line = raw_.find('\n');
  if (first_line == std::string::npos) {
    int c = Take();
    while (c != kEnd && c != '\n') c = Take();
    return;
  }
  std::string again = raw_.substr(first_line + 1);
  again.append(pending_, pending_at_);
  pending_ = std::move(again);
  pending_at_ = 0;
  ++line_;
}

}  // namespace chaptersync::ctl
