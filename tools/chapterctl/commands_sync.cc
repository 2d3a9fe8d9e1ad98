// SPDX-License-Identifier: Apache-2.0
//
// sync: how the replica stands with its peers, and steering it. Waiting is the
// daemon's; here is only for how long.
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

#include "storage/core/status.h"
#include "tools/chapterctl/command.h"
#include "tools/chapterctl/failure.h"
#include "tools/chapterctl/json.h"

namespace chaptersync::ctl {
namespace {

using Sync = v1::SyncService::Stub;

// What the daemon is given to say why it did not come to an end in time.
constexpr absl::Duration kAnswerTime = absl::Milliseconds(100);

absl::Status SyncStatus(Context& context) {
  CHAPTER_ASSIGN_OR_RETURN(
      const v1::GetSyncStatusResponse response,
      context.client.Call(context.client.sync(), &Sync::GetSyncStatus, v1::GetSyncStatusRequest()));
  Table table(context.output, {"peer", "scope", "connected", "unsent", "behind", "last_contact",
                               "clock_offset_ms", "digest", "remarks"});
  for (const v1::PeerScope& peer : response.peers()) {
    if (context.output.json()) {
      context.output.Object(PeerScopeJson(peer));
      continue;
    }
    std::string remarks = response.paused() ? "paused" : peer.error();
    for (const std::string& line : peer.held_back()) {
      absl::StrAppend(&remarks, remarks.empty() ? "" : "; ", "held back: ", line);
    }
    table.Row({peer.peer(), peer.scope(), peer.connected() ? "yes" : "no",
               peer.unsent() < 0 ? "many" : absl::StrCat(peer.unsent()),
               peer.behind() < 0 ? "not known" : absl::StrCat(peer.behind()),
               peer.has_last_contact() ? TimeText(peer.last_contact()) : "never",
               absl::StrCat(peer.clock_offset_ms()), peer.digest(), remarks});
  }
  if (!context.output.json()) table.Finish(response.paused() ? "no peers; paused" : "no peers");
  return absl::OkStatus();
}

absl::Status SyncNow(Context& context, const std::string& timeout) {
  CHAPTER_ASSIGN_OR_RETURN(const absl::Duration limit, ParseDuration(timeout));
  const auto response = context.client.Call(context.client.sync(), &Sync::SyncNow,
                                            v1::SyncNowRequest(), limit + kAnswerTime);
  if (absl::IsDeadlineExceeded(response.status())) {
    const std::string said(response.status().message());
    return absl::DeadlineExceededError(
        absl::StrCat("not all is synced after ", timeout, said.empty() ? "" : ": ", said));
  }
  if (!response.ok()) return response.status();
  const std::vector<std::string> held(response->held_back().begin(), response->held_back().end());
  if (context.output.json()) {
    context.output.Object(
        Json{{"sent", response->sent()}, {"received", response->received()}, {"held_back", held}});
    return absl::OkStatus();
  }
  context.output.Line(
      absl::StrCat("synced: sent ", response->sent(), ", received ", response->received()));
  for (const std::string& line : held) context.output.Line(absl::StrCat("held back: ", line));
  return absl::OkStatus();
}

absl::Status Print(Context& context, bool paused) {
  if (context.output.json()) {
    context.output.Object(Json{{"paused", paused}});
  } else {
    context.output.Line(paused ? "paused" : "resumed");
  }
  return absl::OkStatus();
}

absl::Status Pause(Context& context) {
  CHAPTER_RETURN_IF_ERROR(
      context.client.Call(context.client.sync(), &Sync::PauseSync, v1::PauseSyncRequest())
          .status());
  return Print(context, true);
}

absl::Status Resume(Context& context) {
  CHAPTER_RETURN_IF_ERROR(
      context.client.Call(context.client.sync(), &Sync::ResumeSync, v1::ResumeSyncRequest())
          .status());
  return Print(context, false);
}

}  // namespace

void AddSyncCommands(CLI::App& app, Action& action) {
  CLI::App* group = AddGroup(app, "sync", "how this replica stands with its peers");
  group->add_subcommand("status", "shows it, by peer and scope")->callback([&action] {
    action = SyncStatus;
  });
  const auto timeout = std::make_shared<std::string>("30s");
  CLI::App* now =
      group->add_subcommand("now", "waits until all that either side holds is at the other");
  now->add_option("--timeout", *timeout, "how long to wait: 30s, the default");
  now->callback(
      [=, &action] { action = [=](Context& context) { return SyncNow(context, *timeout); }; });
  group->add_subcommand("pause", "ends syncing until resumed")->callback([&action] {
    action = Pause;
  });
  group->add_subcommand("resume", "syncs again")->callback([&action] { action = Resume; });
}

}  // namespace chaptersync::ctl
