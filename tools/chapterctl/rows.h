// SPDX-License-Identifier: Apache-2.0
//
// A file's rows as writes: each an upsert of one record, made of a row of CSV
// or of a line of JSON. What a row leaves out or empty is not written. A bad row
// carries its problem; only a bad file ends the reading. One thread.
#ifndef CHAPTERSYNC_TOOLS_CHAPTERCTL_ROWS_H_
#define CHAPTERSYNC_TOOLS_CHAPTERCTL_ROWS_H_

#include <cstddef>
#include <cstdint>
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
#include "node/entity/cells.h"
#include "node/entity/registry.h"
#include "storage/core/types.h"
#include "tools/chapterctl/csv.h"

namespace chaptersync::ctl {

// A name in a file that stands for a record's id, in bytes.
inline constexpr size_t kIdNameBytesMax = 128;
// The column that names the record.
inline constexpr char kIdColumn[] = "id";

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
  explicit RecordBuilder(const node::EntityType& type);

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
  std::unique_ptr<google::protobuf::Message> message_;
  std::vector<std::string> mask_;
  std::optional<storage::RecordId> id_;
};

class RowSource {
 public:
  virtual ~RowSource() = default;
  // False at the end.
  virtual bool Next(ImportRow& row) = 0;
};

// Column or key of the file -> field; an empty field leaves the column out.
using ColumnMap = std::map<std::string, std::string>;

// Reads the header. INVALID_ARGUMENT where a column is unknown or given twice.
absl::StatusOr<std::unique_ptr<RowSource>> OpenCsvRows(const node::EntityType& type,
                                                       std::istream& in, const ColumnMap& columns);
std::unique_ptr<RowSource> OpenJsonRows(const node::EntityType& type, std::istream& in,
                                        const ColumnMap& keys);

}  // namespace chaptersync::ctl

#endif  // CHAPTERSYNC_TOOLS_CHAPTERCTL_ROWS_H_
