// SPDX-License-Identifier: Apache-2.0
//
// One batch at a time: the next is read only once the daemon has made the one
// before it durable.
#include "tools/chapterctl/importer.h"

#include <cstring>
#include <utility>

#include "absl/hash/hash.h"
#include "absl/strings/str_cat.h"

#include "storage/core/status.h"
#include "tools/chapterctl/failure.h"
#include "tools/chapterctl/text_width.h"

namespace chaptersync::ctl {
namespace {

// Two different ids of a file with the same hash would hide a row: at a million
// rows the chance is one in thirty million.
uint64_t IdHash(const storage::RecordId& id) {
  std::string bytes(id.bytes.begin(), id.bytes.end());
  return absl::Hash<std::string>{}(bytes);
}

uint64_t ContentHash(const v1::UpdateRecordRequest& write) {
  std::string text = write.entity().value();
  for (const std::string& path : write.update_mask().paths()) absl::StrAppend(&text, "\n", path);
  return absl::Hash<std::string>{}(text);
}

}  // namespace

Importer::Importer(Client& client, Output& output, std::string noun, std::string source,
                   bool dry_run)
    : client_(client),
      output_(output),
      noun_(std::move(noun)),
      source_(std::move(source)),
      dry_run_(dry_run) {
  batch_.set_dry_run(dry_run);
}

absl::Status Importer::Run(RowSource& rows) {
  if (dry_run_ && output_.format() == Format::kCsv) {
    output_.Raw(CsvRow({"line", "status", "id", "reason"}));
  }
  const absl::Status read = Read(rows);
  output_.Progress("");
  PrintCounts();
  if (read.ok()) return Verdict();
  const std::string how_far =
      acknowledged_line_ == 0 ? "no row of the file is in"
                              : absl::StrCat("the rows up to line ", acknowledged_line_, " are in");
  return {read.code(), absl::StrCat(std::string(read.message()),
                                    dry_run_ ? "; the preview is not complete"
                                             : absl::StrCat("; ", how_far,
                                                            ", importing the file again goes on"))};
}

absl::StatusOr<bool> Importer::Next(RowSource& rows, ImportRow& row) const {
  try {
    return rows.Next(row);
  } catch (const std::ios_base::failure& failure) {
    return CannotRead(source_, failure);
  }
}

absl::Status Importer::Read(RowSource& rows) {
  ImportRow row;
  for (;;) {
    CHAPTER_ASSIGN_OR_RETURN(const bool more, Next(rows, row));
    if (!more) break;
    if (!row.problem.ok()) {
      ++refused_;
      Tell(row.line, "refused", "", std::string(row.problem.message()));
      continue;
    }
    const Repeat repeat = RepeatOf(row);
    if (repeat == Repeat::kOther) continue;
    const size_t bytes = row.write.ByteSizeLong();
    if (!waiting_.empty() && batch_bytes_ + bytes > kBatchBytesMax) {
      if (const absl::Status sent = Send(); !sent.ok()) return sent;
    }
    waiting_.push_back({row.line, row.id.ToString(), repeat == Repeat::kSame});
    *batch_.add_writes()->mutable_upsert() = std::move(row.write);
    batch_bytes_ += bytes;
    if (waiting_.size() == kBatchRowsMax) {
      if (const absl::Status sent = Send(); !sent.ok()) return sent;
    }
  }
  return waiting_.empty() ? absl::OkStatus() : Send();
}

Importer::Repeat Importer::RepeatOf(const ImportRow& row) {
  const Earlier now = {ContentHash(row.write), row.line};
  const auto [it, inserted] = earlier_.try_emplace(IdHash(row.id), now);
  if (inserted) return Repeat::kNone;
  if (it->second.content == now.content) return Repeat::kSame;
  // Which of the two is right is for a person to say.
  ++doubtful_;
  Tell(row.line, "doubtful", row.id.ToString(),
       absl::StrCat("line ", it->second.line, " is of the same record and says something else"));
  return Repeat::kOther;
}

absl::Status Importer::Send() {
  const auto response =
      client_.Call(client_.records(), &v1::RecordsService::Stub::BatchWriteRecords, batch_);
  if (!response.ok()) return response.status();
  if (static_cast<size_t>(response->results_size()) != waiting_.size()) {
    return absl::InternalError(absl::StrCat("the daemon answered ", response->results_size(),
                                            " results to ", waiting_.size(), " writes"));
  }
  for (size_t i = 0; i < waiting_.size(); ++i) {
    Count(waiting_[i], response->results(static_cast<int>(i)));
  }
  acknowledged_line_ = waiting_.back().line;
  waiting_.clear();
  batch_.clear_writes();
  batch_bytes_ = 0;
  output_.Progress(absl::StrCat(dry_run_ ? "looked at " : "imported ",
                                new_ + changed_ + same_ + refused_ + doubtful_, " rows of ", noun_,
                                " ..."));
  return absl::OkStatus();
}

void Importer::Count(const Waiting& row, const v1::RecordWriteResult& result) {
  if (result.code() != 0) {
    ++refused_;
    Tell(row.line, "refused", row.id, result.message());
    return;
  }
  // A preview has not written the row that this one repeats.
  switch (row.repeats ? v1::WRITE_OUTCOME_SAME : result.outcome()) {
    case v1::WRITE_OUTCOME_CREATED:
      ++new_;
      if (dry_run_) Tell(row.line, "new", row.id, "");
      break;
    case v1::WRITE_OUTCOME_CHANGED:
      ++changed_;
      if (dry_run_) Tell(row.line, "changed", row.id, "");
      break;
    default:
      ++same_;
  }
}

void Importer::Tell(uint64_t line, const std::string& status, const std::string& id,
                    const std::string& reason) {
  Json object;
  object["line"] = line;
  object["status"] = status;
  if (!id.empty()) object["id"] = id;
  if (!reason.empty()) object["reason"] = reason;
  std::string text = absl::StrCat("line ", line, ": ", status);
  if (!reason.empty()) {
    absl::StrAppend(&text, ": ", reason);
  } else if (!id.empty()) {
    absl::StrAppend(&text, " ", id);
  }
  if (!dry_run_) {
    output_.Trouble(text, object);
  } else if (output_.json()) {
    // A preview's rows are its result.
    output_.Object(object);
  } else if (output_.format() == Format::kCsv) {
    output_.Raw(CsvRow({absl::StrCat(line), status, id, reason}));
  } else {
    output_.Raw(Printable(text) + "\n");
  }
}

void Importer::PrintCounts() {
  if (output_.json()) {
    Json counts;
    counts["new"] = new_;
    counts["changed"] = changed_;
    counts["same"] = same_;
    counts["refused"] = refused_;
    counts["doubtful"] = doubtful_;
    output_.Object(counts);
  } else if (output_.format() == Format::kCsv) {
    if (dry_run_) return;  // The rows are the table.
    output_.Raw(CsvRow({"new", "changed", "same", "refused", "doubtful"}));
    output_.Raw(CsvRow({absl::StrCat(new_), absl::StrCat(changed_), absl::StrCat(same_),
                        absl::StrCat(refused_), absl::StrCat(doubtful_)}));
  } else {
    output_.Raw(absl::StrCat("new ", new_, ", changed ", changed_, ", same ", same_, ", refused ",
                             refused_, ", doubtful ", doubtful_, "\n"));
  }
}

absl::Status Importer::Verdict() const {
  if (refused_ + doubtful_ == 0) return absl::OkStatus();
  const std::string counts = absl::StrCat(refused_, " refused, ", doubtful_, " doubtful");
  if (dry_run_) {
    return WithExit(
        absl::FailedPreconditionError(absl::StrCat("some rows would not be imported: ", counts)),
        Exit::kDiffers);
  }
  return absl::FailedPreconditionError(absl::StrCat("some rows were not imported: ", counts));
}

}  // namespace chaptersync::ctl
