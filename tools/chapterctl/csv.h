// SPDX-License-Identifier: Apache-2.0
//
// Reads CSV (RFC 4180) row by row, in bounded memory, and strictly: cells in
// quotes may hold line ends and doubled quotes, lines end with LF or CRLF, a BOM
// at the beginning is left out. A bad row is reported with the line on which it
// begins, and reading goes on with the next line. One thread.
#ifndef CHAPTERSYNC_TOOLS_CHAPTERCTL_CSV_H_
#define CHAPTERSYNC_TOOLS_CHAPTERCTL_CSV_H_

#include <cstddef>
#include <cstdint>
#include <istream>
#include <string>
#include <vector>

namespace chaptersync::ctl {

// A row's bytes, whatever the format: a record holds no more either.
inline constexpr size_t kRowBytesMax = 1 << 20;

struct CsvRecord {
  uint64_t line = 0;  // where it begins, from 1
  std::vector<std::string> cells;
  std::string problem;  // why it is no row; then `cells` mean nothing
};

class CsvReader {
 public:
  explicit CsvReader(std::istream& in);

  // False at the end. Empty lines are passed over.
  bool Next(CsvRecord& record);

 private:
  static constexpr int kEnd = -1;

  int Peek();
  int Take();  // the next byte
  int Get();   // the same, as a part of the row
  bool too_long() const { return raw_.size() > kRowBytesMax; }
  // One row; its problem where it is none.
  std::string Parse(CsvRecord& record);
  std::string ParseQuoted(std::string& cell);
  // After a bad row: to the beginning of its second line.
  void Recover();

  std::istream& in_;
  std::string raw_;      // the row's bytes so far
  std::string pending_;  // read before, to be read again
  size_t pending_at_ = 0;
  uint64_t line_ = 1;
};

}  // namespace chaptersync::ctl

#endif  // CHAPTERSYNC_TOOLS_CHAPTERCTL_CSV_H_
