// SPDX-License-Identifier: Apache-2.0
//
// A file's rows as writes: each an upsert of one record, made of a row of CSV
// or of a line of JSON. What a row leaves out or empty is not written. A bad row
// carries its problem; only a bad file ends the reading. One thread.
#ifndef CHAPTERSYNC_TOOLS_CHAPTERCTL_ROWS_H_
#define CHAPTERSYNC_TOOLS_CHAPTERCTL_ROWS_H_

#include <cstddef>
#include <cstdint>
#include <ios>
#include <istream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/protobuf/message.h"

#include "chaptersync/v1/records_service.pb.h"
#include "node/api/limits.h"
#include "node/entity/cells.h"
#include "node/entity/registry.h"
#include "storage/core/limits.h"
#include "storage/core/record.h"
#include "storage/core/types.h"
#include "tools/chapterctl/csv.h"

namespace chaptersync::ctl {

// A name in a file that stands for a record's id, in bytes.
inline constexpr size_t kIdNameBytesMax = 128;
// The column that names the record.
inline constexpr char kIdColumn[] = "id";
// Columns of a CSV file besides the id. With more of them the keys are data, and JSON is for it.
inline constexpr size_t kCsvColumnsMax = 1000;
// Fields and map entries of a line of JSON: as many as a record holds.
inline constexpr size_t kJsonFieldsMax = storage::kCellsMax;
static_assert(kJsonFieldsMax <= node::kMaskPathsMax && kCsvColumnsMax <= node::kMaskPathsMax);

struct ImportRow {
  uint64_t line = 0;     // where it begins, from 1
  absl::Status problem;  // why it cannot be written; then the rest means nothing
  storage::RecordId id;
  v1::UpdateRecordRequest write;
};

// The id that a person's text stands for: a UUID is itself, any other text names
// a record as an entity's name field does. INVALID_ARGUMENT where it is empty,
// longer than kIdNameBytesMax, or not UTF-8.
absl::StatusOr<storage::RecordId> IdFromText(const node::EntityType& type, const std::string& text);

// Gathers the values of one record.
class RecordBuilder {
 public:
  explicit RecordBuilder(const node::EntityType& type) : type_(type) {}

  // INVALID_ARGUMENT where the value does not fit, or a map is given both in whole
  // and by its entries.
  absl::Status Set(const node::FieldPath& path, const std::string& path_text,
                   const std::string& value);
  absl::Status SetId(const std::string& text);
  bool empty() const { return mask_.empty() && !id_; }
  // Ends the record and begins the next. Without an id of its own it is named by
  // the entity's name field or, where there is none, by its whole content.
  absl::Status Finish(ImportRow& row);
  void Clear();

 private:
  const node::EntityType& type_;
  // Each cell in a message of its own: in one of all of them every value would be
  // searched for. A whole map is a cell without a key.
  std::map<storage::CellPath, std::unique_ptr<google::protobuf::Message>> cells_;
  std::vector<std::string> mask_;
  std::optional<storage::RecordId> id_;
};

class RowSource {
 public:
  virtual ~RowSource() = default;
  // False at the end. Throws std::ios_base::failure where the stream cannot be read.
  virtual bool Next(ImportRow& row) = 0;
};

// Column or key of the file -> field; an empty field leaves the column out.
using ColumnMap = std::map<std::string, std::string>;

// What Next has thrown, of a file by its name or of standard input.
absl::Status CannotRead(const std::string& source, const std::ios_base::failure& failure);

// Reads the header, and throws as Next does. INVALID_ARGUMENT where a column is
// unknown or given twice, or there are more than kCsvColumnsMax.
absl::StatusOr<std::unique_ptr<RowSource>> OpenCsvRows(const node::EntityType& type,
                                                       std::istream& in, const ColumnMap& columns);
std::unique_ptr<RowSource> OpenJsonRows(const node::EntityType& type, std::istream& in,
                                        const ColumnMap& keys);

}  // namespace chaptersync::ctl

#endif  // CHAPTERSYNC_TOOLS_CHAPTERCTL_ROWS_H_
