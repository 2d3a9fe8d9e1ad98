// SPDX-License-Identifier: Apache-2.0
//
// Federation: the daemons' own programs make folders, join and serve; all else goes over their
// local API.
#include "tools/bench/federation.h"

#include <filesystem>
#include <fstream>
#include <system_error>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include <nlohmann/json.hpp>

#include "chaptersync/v1/chapter.pb.h"
#include "chaptersync/v1/member.pb.h"
#include "storage/core/status.h"

namespace chaptersync::bench {

namespace fs = std::filesystem;

namespace {

constexpr absl::Duration kPollPause = absl::Milliseconds(2);

absl::StatusOr<v1::GetStatusResponse> Status(Site& site) {
  return site.client->Call(site.client->admin(), &v1::AdminService::Stub::GetStatus,
                           v1::GetStatusRequest());
}

}  // namespace

absl::StatusOr<std::unique_ptr<Federation>> Federation::Make(const std::string& programs,
                                                             const std::string& folder) {
  std::error_code error;
  if (!fs::create_directory(folder, error)) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot make the folder ", folder, ": ",
                     error ? error.message() : std::string("it is there already")));
  }
  std::unique_ptr<Federation> federation(new Federation(programs, folder));
  CHAPTER_RETURN_IF_ERROR(federation->MakeHub());
  return federation;
}

Federation::~Federation() {
  nodes_.clear();
  hub_ = {};
  std::error_code error;
  fs::remove_all(folder_, error);
}

absl::Status Federation::MakeHub() {
  hub_.data = folder_ + "/hub";
  const std::string program = programs_ + "/chapter-hub";
  CHAPTER_RETURN_IF_ERROR(RunProgram({program, "init", "--data", hub_.data, "--name", "Benchmark"},
                                     "", folder_ + "/init.log"));
  hub_.daemon = std::make_unique<Daemon>(
      std::vector<std::string>{program, "serve", "--data", hub_.data, "--listen", "127.0.0.1:0"},
      folder_ + "/hub.log");
  CHAPTER_RETURN_IF_ERROR(Start(hub_));
  std::ifstream in(hub_.data + "/endpoints.json");
  const auto endpoints = nlohmann::json::parse(in, nullptr, false);
  const std::string address = endpoints.is_object() ? endpoints.value("sync", "") : "";
  uint32_t port = 0;
  if (!absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &port)) {
    return absl::InternalError(absl::StrCat(hub_.data, "/endpoints.json names no port"));
  }
  port_ = static_cast<uint16_t>(port);
  // It keeps its port over a restart.
  hub_.daemon->SetCommand({program, "serve", "--data", hub_.data, "--listen", address});
  return absl::OkStatus();
}

absl::Status Federation::Start(Site& site) {
  CHAPTER_RETURN_IF_ERROR(site.daemon->Start());
  CHAPTER_ASSIGN_OR_RETURN(site.client, ctl::Client::Connect(site.data, "bench"));
  return absl::OkStatus();
}

absl::Status Federation::Stop(Site& site) {
  site.client.reset();
  return site.daemon->Stop();
}

absl::Status Federation::AwaitNoConnection() const {
  const absl::Time end = absl::Now() + kNoConnectionTimeout;
  for (;;) {
    CHAPTER_ASSIGN_OR_RETURN(const SocketBytes moved, Moved());
    if (moved.connections == 0) return absl::OkStatus();
    if (absl::Now() >= end) {
      return absl::DeadlineExceededError(
          absl::StrCat("the hub has ", moved.connections, " connections still, that nobody wants"));
    }
    absl::SleepFor(kPollPause);
  }
}

absl::Status Federation::AddChapter(const std::string& handle, const std::string& country) {
  v1::Chapter chapter;
  chapter.set_handle(handle);
  chapter.set_country(country);
  v1::CreateRecordRequest request;
  request.set_noun("chapters");
  request.mutable_entity()->PackFrom(chapter);
  return hub_.client->Call(hub_.client->records(), &v1::RecordsService::Stub::CreateRecord, request)
      .status();
}

absl::StatusOr<std::string> Federation::Invite(const std::string& chapter) {
  v1::CreateInvitationRequest request;
  request.set_chapter(chapter);
  CHAPTER_ASSIGN_OR_RETURN(
      const v1::CreateInvitationResponse made,
      hub_.client->Call(hub_.client->admin(), &v1::AdminService::Stub::CreateInvitation, request));
  return made.invitation();
}

absl::StatusOr<Site*> Federation::AddNode(const std::string& name, const std::string& chapter) {
  CHAPTER_ASSIGN_OR_RETURN(const std::string invitation, Invite(chapter));
  auto site = std::make_unique<Site>();
  site->data = absl::StrCat(folder_, "/", name);
  const std::string program = programs_ + "/chapter-node";
  CHAPTER_RETURN_IF_ERROR(
      RunProgram({program, "join", "--data", site->data, "--name", name, "--invitation", "-"},
                 invitation, absl::StrCat(folder_, "/", name, ".join.log")));
  site->daemon =
      std::make_unique<Daemon>(std::vector<std::string>{program, "serve", "--data", site->data},
                               absl::StrCat(folder_, "/", name, ".log"));
  nodes_.push_back(std::move(site));
  return nodes_.back().get();
}

absl::Status WriteAll(Site& site, const v1::BatchWriteRecordsRequest& request) {
  CHAPTER_ASSIGN_OR_RETURN(
      const v1::BatchWriteRecordsResponse response,
      site.client->Call(site.client->records(), &v1::RecordsService::Stub::BatchWriteRecords,
                        request));
  for (const v1::RecordWriteResult& result : response.results()) {
    if (result.code() != 0) {
      return absl::InternalError(absl::StrCat(result.name(), ": ", result.message()));
    }
  }
  return absl::OkStatus();
}

absl::Status SyncNow(Site& node) {
  return node.client
      ->Call(node.client->sync(), &v1::SyncService::Stub::SyncNow, v1::SyncNowRequest(),
             kSyncTimeout)
      .status();
}

absl::Status Pause(Site& node) {
  return node.client
      ->Call(node.client->sync(), &v1::SyncService::Stub::PauseSync, v1::PauseSyncRequest())
      .status();
}

absl::Status Resume(Site& node) {
  return node.client
      ->Call(node.client->sync(), &v1::SyncService::Stub::ResumeSync, v1::ResumeSyncRequest())
      .status();
}

absl::StatusOr<uint64_t> Count(Site& site, const std::string& noun) {
  CHAPTER_ASSIGN_OR_RETURN(const v1::GetStatusResponse status, Status(site));
  const auto count = status.records().find(noun);
  return count == status.records().end() ? 0 : count->second;
}

absl::StatusOr<uint64_t> OpenConflicts(Site& site) {
  CHAPTER_ASSIGN_OR_RETURN(const v1::GetStatusResponse status, Status(site));
  return status.conflicts_open();
}

void AddEmployer(const std::string& id, const std::string& employer,
                 v1::BatchWriteRecordsRequest& request) {
  v1::Member member;
  member.set_employer(employer);
  v1::UpdateRecordRequest& update = *request.add_writes()->mutable_update();
  update.set_name(absl::StrCat("members/", id));
  update.mutable_entity()->PackFrom(member);
  update.mutable_update_mask()->add_paths("employer");
}

}  // namespace chaptersync::bench
