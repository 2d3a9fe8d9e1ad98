// SPDX-License-Identifier: Apache-2.0
//
// What a command prints: tables for people, JSON (one object a line) or CSV for
// programs, notes and progress for whoever sits at a terminal. One thread.
#ifndef CHAPTERSYNC_TOOLS_CHAPTERCTL_OUTPUT_H_
#define CHAPTERSYNC_TOOLS_CHAPTERCTL_OUTPUT_H_

#include <cstddef>
#include <istream>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include <nlohmann/json.hpp>

namespace chaptersync::ctl {

using Json = nlohmann::ordered_json;

// Where a program reads and writes, and what of it a person sees.
struct Terminal {
  std::istream& in;
  std::ostream& out;
  std::ostream& err;
  bool in_terminal = false;
  bool out_terminal = false;
  bool err_terminal = false;
  size_t columns = 80;  // of the terminal that `out` is
};

enum class Format { kTable, kJson, kCsv };

class Output {
 public:
  Output(Terminal& terminal, Format format, bool quiet)
      : terminal_(terminal), format_(format), quiet_(quiet) {}

  Format format() const { return format_; }
  bool json() const { return format_ == Format::kJson; }
  bool quiet() const { return quiet_; }
  Terminal& terminal() { return terminal_; }

  // One object on a line of its own.
  void Object(const Json& object);
  // A line for people, such as "deleted members/...". Not where quiet.
  void Line(const std::string& text);
  // A line as it is, in every format.
  void Raw(const std::string& text);
  // Says something beside the result, on standard error, to a person only.
  void Note(const std::string& text);
  // Shows how far a long work is, in place of what it showed before; to a person
  // only. Empty: takes it away.
  void Progress(const std::string& text);
  // What went wrong: one line, or one object.
  void Error(const absl::Status& status);
  // One thing of a list of them that went wrong, while the work goes on.
  void Trouble(const std::string& line, const Json& object);
  void Flush() { terminal_.out.flush(); }
  // INTERNAL where standard output could not be written.
  absl::Status Finish();

 private:
  friend class Table;

  Terminal& terminal_;
  const Format format_;
  const bool quiet_;
  bool progress_shown_ = false;
};

// Rows with a header, as a table or as CSV. A table's first rows are held back
// to find how wide its columns are; what comes after them is printed at once.
class Table {
 public:
  // On a terminal rows are cut off at its width, or shown whole.
  enum class Rows { kCut, kWhole };
  // `columns`: names as CSV has them; a table shows them in capitals.
  Table(Output& output, std::vector<std::string> columns, Rows rows = Rows::kCut);
  void Row(std::vector<std::string> cells);
  // Prints what was held back. Where there was no row, `empty` is noted.
  void Finish(const std::string& empty);

 private:
  void Print(const std::vector<std::string>& cells);
  void PrintHeld();

  Output& output_;
  const std::vector<std::string> columns_;
  const bool cut_;
  std::vector<std::vector<std::string>> held_;
  std::vector<size_t> widths_;
  bool begun_ = false;  // the header is printed
  bool any_ = false;
};

// A row of CSV (RFC 4180), with LF at its end.
std::string CsvRow(const std::vector<std::string>& cells);
// One line of JSON; bytes that are no UTF-8 become U+FFFD.
std::string JsonLine(const Json& value);
// The error as --output json has it.
Json ErrorJson(const absl::Status& status);

}  // namespace chaptersync::ctl

#endif  // CHAPTERSYNC_TOOLS_CHAPTERCTL_OUTPUT_H_
