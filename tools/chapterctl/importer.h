// SPDX-License-Identifier: Apache-2.0
//
// Writes a file's rows to the replica in batches, counts what came of them, and
// tells of every row that needs a person. Writing is repeatable: the same file
// again changes nothing, and completes what was interrupted. One thread.
#ifndef CHAPTERSYNC_TOOLS_CHAPTERCTL_IMPORTER_H_
#define CHAPTERSYNC_TOOLS_CHAPTERCTL_IMPORTER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "chaptersync/v1/records_service.pb.h"
#include "tools/chapterctl/client.h"
#include "tools/chapterctl/output.h"
#include "tools/chapterctl/rows.h"

namespace chaptersync::ctl {

// Writes of one call; the service takes 1,000.
inline constexpr size_t kBatchRowsMax = 500;
// Bytes of one call, unless a single row has more; gRPC takes 4 MiB by default.
inline constexpr size_t kBatchBytesMax = 2 << 20;
static_assert(kBatchBytesMax + 2 * kRowBytesMax <= 4 << 20);

class Importer {
 public:
  // `noun`, `source`: what is imported and from where, for messages.
  Importer(Client& client, Output& output, std::string noun, std::string source, bool dry_run);

  // Reads all rows, and prints the counts in any case. FAILED_PRECONDITION where
  // some rows were not taken; where a batch failed as a whole, its error, with how
  // far the import came.
  absl::Status Run(RowSource& rows);

 private:
  struct Waiting {
    uint64_t line;
    std::string id;
    bool repeats;  // an earlier row says the same
  };
  // A row that named a record before.
  struct Earlier {
    uint64_t content;  // a hash of what it writes
    uint64_t line;
  };

  absl::Status Read(RowSource& rows);
  // False at the end. INTERNAL where the file cannot be read on.
  absl::StatusOr<bool> Next(RowSource& rows, ImportRow& row) const;
  // Whether an earlier row was of the same record, and said the same. Counts the
  // row where it said something else: then it is not written.
  enum class Repeat { kNone, kSame, kOther };
  Repeat RepeatOf(const ImportRow& row);
  absl::Status Send();
  void Count(const Waiting& row, const v1::RecordWriteResult& result);
  void Tell(uint64_t line, const std::string& status, const std::string& id,
            const std::string& reason);
  void PrintCounts();
  absl::Status Verdict() const;

  Client& client_;
  Output& output_;
  const std::string noun_;
  const std::string source_;
  const bool dry_run_;
  v1::BatchWriteRecordsRequest batch_;
  size_t batch_bytes_ = 0;
  std::vector<Waiting> waiting_;  // the batch's rows, in its order
  // By a hash of the id: some tens of bytes for each row of the file.
  absl::flat_hash_map<uint64_t, Earlier> earlier_;
  uint64_t new_ = 0;
  uint64_t changed_ = 0;
  uint64_t same_ = 0;
  uint64_t refused_ = 0;
  uint64_t doubtful_ = 0;
  uint64_t acknowledged_line_ = 0;
};

}  // namespace chaptersync::ctl

#endif  // CHAPTERSYNC_TOOLS_CHAPTERCTL_IMPORTER_H_
