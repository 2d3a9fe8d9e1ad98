// SPDX-License-Identifier: Apache-2.0
//
// Prints rows, objects, notes and errors, each where and as the chosen format
// has it.
#include "tools/chapterctl/output.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

#include "tools/chapterctl/failure.h"
#include "tools/chapterctl/text_width.h"

namespace chaptersync::ctl {
namespace {

// Rows that decide how wide a table's columns are.
constexpr size_t kHeldRows = 1000;
// A column that others follow is never padded wider than this.
constexpr size_t kPaddedColumnsMax = 60;
constexpr char kGap[] = "  ";

bool NeedsQuotes(const std::string& cell) {
  return cell.find_first_of(",\"\r\n") != std::string::npos ||
         (!cell.empty() && (cell.front() == ' ' || cell.back() == ' '));
}

}  // namespace

std::string CsvRow(const std::vector<std::string>& cells) {
  std::string out;
  for (size_t i = 0; i < cells.size(); ++i) {
    if (i > 0) out += ',';
    if (!NeedsQuotes(cells[i])) {
      out += cells[i];
      continue;
    }
    out += '"';
    for (const char c : cells[i]) {
      if (c == '"') out += '"';
      out += c;
    }
    out += '"';
  }
  return out + "\n";
}

std::string JsonLine(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json ErrorJson(const absl::Status& status) {
  Json error;
  error["code"] = CodeOf(status);
  error["message"] = OneLine(std::string(status.message()));
  error["details"] = DetailsOf(status);
  return Json{{"error", std::move(error)}};
}

void Output::Object(const Json& object) { terminal_.out << JsonLine(object) << '\n'; }

void Output::Line(const std::string& text) {
  if (!quiet_) terminal_.out << Printable(text) << '\n';
}

void Output::Raw(const std::string& text) { terminal_.out << text; }

void Output::Note(const std::string& text) {
  if (!quiet_ && terminal_.err_terminal) {
    Progress("");
    terminal_.err << Printable(text) << std::endl;
  }
}

void Output::Progress(const std::string& text) {
  if (quiet_ || !terminal_.err_terminal) return;
  if (text.empty() && !progress_shown_) return;
  terminal_.err << "\r\x1b[K" << text << std::flush;
  progress_shown_ = !text.empty();
}

void Output::Error(const absl::Status& status) {
  Progress("");
  terminal_.out.flush();
  if (json()) {
    terminal_.err << JsonLine(ErrorJson(status)) << std::endl;
  } else {
    terminal_.err << "chapterctl: " << Printable(OneLine(std::string(status.message())))
                  << std::endl;
  }
}

void Output::Trouble(const std::string& line, const Json& object) {
  Progress("");
  terminal_.err << (json() ? JsonLine(object) : Printable(line)) << '\n';
}

absl::Status Output::Finish() {
  Progress("");
  terminal_.out.flush();
  if (!terminal_.out.good()) return absl::InternalError("cannot write to standard output");
  return absl::OkStatus();
}

Table::Table(Output& output, std::vector<std::string> columns, Rows rows)
    : output_(output),
      columns_(std::move(columns)),
      cut_(rows == Rows::kCut && output.terminal_.out_terminal) {}

void Table::Row(std::vector<std::string> cells) {
  any_ = true;
  cells.resize(columns_.size());
  if (output_.format_ == Format::kCsv) {
    if (!std::exchange(begun_, true)) output_.Raw(CsvRow(columns_));
    output_.Raw(CsvRow(cells));
    return;
  }
  for (std::string& cell : cells) cell = Printable(cell);
  if (begun_) {
    Print(cells);
    return;
  }
  held_.push_back(std::move(cells));
  if (held_.size() == kHeldRows) PrintHeld();
}

void Table::PrintHeld() {
  begun_ = true;
  std::vector<std::string> header = columns_;
  for (std::string& name : header) absl::AsciiStrToUpper(&name);
  held_.insert(held_.begin(), std::move(header));
  widths_.assign(columns_.size(), 0);
  for (const auto& cells : held_) {
    for (size_t i = 0; i < cells.size(); ++i) {
      widths_[i] = std::max(widths_[i], std::min(DisplayWidth(cells[i]), kPaddedColumnsMax));
    }
  }
  for (const auto& cells : held_) Print(cells);
  held_.clear();
}

void Table::Print(const std::vector<std::string>& cells) {
  std::string line;
  for (size_t i = 0; i < cells.size(); ++i) {
    const bool last = i + 1 == cells.size();
    // A person's columns stay where they are; nothing is cut off for a program.
    const std::string cell = cut_ && !last ? FitTo(cells[i], widths_[i]) : cells[i];
    absl::StrAppend(&line, i == 0 ? "" : kGap, cell);
    const size_t width = DisplayWidth(cell);
    if (!last && width < widths_[i]) line.append(widths_[i] - width, ' ');
  }
  line.erase(line.find_last_not_of(' ') + 1);
  output_.Raw(cut_ ? FitTo(line, output_.terminal_.columns) : line);
  output_.Raw("\n");
}

void Table::Finish(const std::string& empty) {
  if (!any_) {
    if (output_.format_ == Format::kCsv) output_.Raw(CsvRow(columns_));
    if (!empty.empty()) output_.Note(empty);
    return;
  }
  if (output_.format_ == Format::kTable && !begun_) PrintHeld();
}

}  // namespace chaptersync::ctl
