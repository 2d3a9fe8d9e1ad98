// SPDX-License-Identifier: Apache-2.0
//
// A retry is a new write of the same cells by whoever retries; only once it is
// durable does the refused one leave the list.
#include "node/api/refused_service.h"

#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "node/api/actor.h"
#include "node/api/limits.h"
#include "node/api/page_token.h"
#include "node/api/status.h"
#include "node/api/write_rules.h"
#include "node/entity/text.h"
#include "storage/core/status.h"

namespace chaptersync::node {
namespace {

constexpr char kQuery[] = "refused";
// Refused writes read at once while listing.
constexpr size_t kReadCount = 32;

}  // namespace

v1::RefusedWrite RefusedService::Show(const storage::RefusedWrite& refused) const {
  v1::RefusedWrite out;
  out.set_number(refused.number);
  out.set_noun(api_.entities.NounOf(refused.key.entity));
  out.set_record(refused.key.id.ToString());
  auto& fields = *out.mutable_fields()->mutable_fields();
  for (const storage::CellWrite& cell : refused.cells) {
    fields[ShowPath(api_, refused.key.entity, cell.path)] =
        ShowValue(api_, refused.key.entity, cell.path, cell.value);
  }
  out.set_reason(ValidUtf8(refused.reason) ? refused.reason : Shown(refused.reason));
  *out.mutable_written_at() = ShowTime(refused.written_at);
  return out;
}

absl::Status RefusedService::List(const v1::ListRefusedRequest& request,
                                  v1::ListRefusedResponse& response) const {
  CHAPTER_ASSIGN_OR_RETURN(const size_t page_size, PageSize(request.page_size()));
  CHAPTER_ASSIGN_OR_RETURN(const std::string position, ReadPageToken(kQuery, request.page_token()));
  uint64_t after = 0;
  if (!position.empty() && !absl::SimpleAtoi(position, &after)) {
    return absl::InvalidArgumentError("page token is damaged");
  }
  size_t bytes = 0;
  for (;;) {
    CHAPTER_ASSIGN_OR_RETURN(const std::vector<storage::RefusedWrite> read,
                             api_.replica.ListRefused(after, kReadCount));
    for (const storage::RefusedWrite& refused : read) {
      v1::RefusedWrite shown = Show(refused);
      const size_t size = shown.ByteSizeLong();
      const bool full = static_cast<size_t>(response.refused_size()) == page_size ||
                        (response.refused_size() > 0 && bytes + size > kAnswerBytesMax);
      if (full) {
        response.set_next_page_token(MakePageToken(kQuery, absl::StrCat(after)));
        return absl::OkStatus();
      }
      bytes += size;
      *response.add_refused() = std::move(shown);
      after = refused.number;
    }
    if (read.size() < kReadCount) return absl::OkStatus();
  }
}

absl::Status RefusedService::Retry(const std::string& actor, uint64_t number) {
  CHAPTER_ASSIGN_OR_RETURN(const storage::RefusedWrite refused, api_.replica.GetRefused(number));
  using Kind = storage::LocalWrite::Kind;
  const EntityType* type = api_.entities.FindByNumber(refused.key.entity);
  const auto stored = api_.replica.Read(refused.key);
  if (!stored.ok() && !absl::IsNotFound(stored.status())) return stored.status();
  const storage::Record* held = stored.ok() ? &stored->record : nullptr;
  storage::LocalWrite fields{.kind = Kind::kUpsert, .key = refused.key, .actor = actor};
  std::optional<bool> deletes;
  for (const storage::CellWrite& cell : refused.cells) {
    if (cell.path.existence()) {
      deletes = cell.value == storage::DeletedValue();
    } else {
      fields.cells.push_back(cell);
    }
  }
  if (type != nullptr) {
    CHAPTER_RETURN_IF_ERROR(CheckWrite(api_, *type, refused.key, fields.cells, held));
    if (deletes) CHAPTER_RETURN_IF_ERROR(CheckExistenceWriter(api_, *type, *deletes, held));
  }
  // A record must live while its fields are written.
  std::vector<storage::LocalWrite> writes;
  const storage::LocalWrite existence{
      .kind = deletes.value_or(false) ? Kind::kDelete : Kind::kRestore,
      .key = refused.key,
      .actor = actor};
  if (deletes == false) writes.push_back(existence);
  if (!fields.cells.empty()) writes.push_back(std::move(fields));
  if (deletes == true) writes.push_back(existence);
  CHAPTER_ASSIGN_OR_RETURN(const std::vector<storage::WriteResult> results,
                           api_.replica.Write(writes));
  for (const storage::WriteResult& result : results) CHAPTER_RETURN_IF_ERROR(result.status);
  // It is not there any more where the record was erased meanwhile.
  const absl::Status status = api_.replica.ForgetRefused(number);
  return absl::IsNotFound(status) ? absl::OkStatus() : status;
}

grpc::Status RefusedService::ListRefused(grpc::ServerContext* /*context*/,
                                         const v1::ListRefusedRequest* request,
                                         v1::ListRefusedResponse* response) {
  return ToGrpc(List(*request, *response));
}

grpc::Status RefusedService::GetRefused(grpc::ServerContext* /*context*/,
                                        const v1::GetRefusedRequest* request,
                                        v1::GetRefusedResponse* response) {
  const auto refused = api_.replica.GetRefused(request->number());
  if (refused.ok()) *response->mutable_refused() = Show(*refused);
  return ToGrpc(refused.status());
}

grpc::Status RefusedService::RetryRefused(grpc::ServerContext* context,
                                          const v1::RetryRefusedRequest* request,
                                          v1::RetryRefusedResponse* /*response*/) {
  const auto actor = WriterOf(api_, *context);
  return ToGrpc(actor.ok() ? Retry(*actor, request->number()) : actor.status());
}

grpc::Status RefusedService::DropRefused(grpc::ServerContext* /*context*/,
                                         const v1::DropRefusedRequest* request,
                                         v1::DropRefusedResponse* /*response*/) {
  return ToGrpc(api_.replica.ForgetRefused(request->number()));
}

}  // namespace chaptersync::node
