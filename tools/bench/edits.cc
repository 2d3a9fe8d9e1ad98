// SPDX-License-Identifier: Apache-2.0
//
// Edits over the local API, and the watch that shows them. A read has no deadline of its own: the
// watch as a whole has one.
#include "tools/bench/edits.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

#include "chaptersync/v1/event.pb.h"
#include "chaptersync/v1/member.pb.h"
#include "storage/core/status.h"
#include "tools/bench/stopwatch.h"

namespace chaptersync::bench {

Edit EmployerEdit(const std::string& id, const std::string& employer) {
  v1::BatchWriteRecordsRequest batch;
  AddEmployer(id, employer, batch);
  Edit edit{.request = batch.writes(0).update(), .shown_by = nullptr};
  edit.shown_by = [name = edit.request.name(), employer](const v1::Record& record) {
    v1::Member member;
    return record.name() == name && record.entity().UnpackTo(&member) &&
           member.employer() == employer;
  };
  return edit;
}

Edit VenueEdit(const std::string& name, const std::string& venue) {
  v1::Event event;
  event.set_venue(venue);
  Edit edit;
  edit.request.set_name(name);
  edit.request.mutable_entity()->PackFrom(event);
  edit.request.mutable_update_mask()->add_paths("venue");
  edit.shown_by = [name, venue](const v1::Record& record) {
    v1::Event seen;
    return record.name() == name && record.entity().UnpackTo(&seen) && seen.venue() == venue;
  };
  return edit;
}

absl::StatusOr<std::string> MakeEvent(Site& site, const std::string& host) {
  v1::Event event;
  event.set_audience(v1::AUDIENCE_EVERYBODY);
  (*event.mutable_hosts())[host].set_role(v1::HOST_ROLE_HOST);
  v1::CreateRecordRequest request;
  request.set_noun("events");
  request.mutable_entity()->PackFrom(event);
  CHAPTER_ASSIGN_OR_RETURN(
      const v1::CreateRecordResponse made,
      site.client->Call(site.client->records(), &v1::RecordsService::Stub::CreateRecord, request));
  return made.record().name();
}

absl::Status Write(Site& site, const Edit& edit) {
  return site.client
      ->Call(site.client->records(), &v1::RecordsService::Stub::UpdateRecord, edit.request)
      .status();
}

std::unique_ptr<SiteWatch> SiteWatch::Open(Site& site, const std::string& noun, size_t edits) {
  std::unique_ptr<SiteWatch> watch(new SiteWatch(*site.client));
  site.client->Prepare(watch->context_);
  watch->context_.set_deadline(
      absl::ToChronoTime(absl::Now() + kSeenTimeout + kEditTimeout * static_cast<int64_t>(edits)));
  v1::WatchRecordsRequest request;
  request.set_noun(noun);
  watch->reader_ = site.client->records().WatchRecords(&watch->context_, request);
  watch->reader_->WaitForInitialMetadata();
  return watch;
}

SiteWatch::~SiteWatch() {
  context_.TryCancel();
  if (reader_ != nullptr) reader_->Finish();
}

absl::Status SiteWatch::Await(const Edit& edit) {
  if (reader_ == nullptr) return absl::FailedPreconditionError("the watch has ended");
  v1::WatchRecordsResponse change;
  while (reader_->Read(&change)) {
    if (edit.shown_by(change.record())) return absl::OkStatus();
  }
  const grpc::Status ended = std::exchange(reader_, nullptr)->Finish();
  if (ended.ok()) return absl::UnavailableError("a watch has ended");
  const absl::Status why = client_.Failed(ended);
  return {why.code(),
          absl::StrCat("an edit of ", edit.request.name(), " was not seen: ", why.message())};
}

absl::StatusOr<std::vector<double>> TimeEdits(Site& from, SiteWatch& watch,
                                              const std::vector<Edit>& edits) {
  std::vector<double> milliseconds;
  milliseconds.reserve(edits.size());
  for (const Edit& edit : edits) {
    absl::SleepFor(kEditPause);
    const Stopwatch way;
    CHAPTER_RETURN_IF_ERROR(Write(from, edit));
    CHAPTER_RETURN_IF_ERROR(watch.Await(edit));
    milliseconds.push_back(way.milliseconds());
  }
  return milliseconds;
}

}  // namespace chaptersync::bench
