// SPDX-License-Identifier: Apache-2.0
//
// The cases of many nodes at one hub: what they cost it at rest, and how an edit reaches all of
// them. The nodes are processes beside this one; see crowd.h.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"

#include "storage/core/status.h"
#include "tools/bench/cases.h"
#include "tools/bench/crowd_process.h"
#include "tools/bench/edits.h"
#include "tools/bench/federation.h"
#include "tools/bench/percentile.h"
#include "tools/bench/stopwatch.h"
#include "tools/bench/workload.h"

namespace chaptersync::bench {
namespace {

// Whose the members are: it has no computer, so that no node holds them.
constexpr char kArchive[] = "archive";

// A hub, started anew after all have joined: what that has cost it is none of a session's.
struct Hall {
  std::unique_ptr<Federation> federation;
  std::unique_ptr<Crowd> crowd;
  std::string event;  // for everybody
  ProcessCost alone;  // the hub's without nodes
};

absl::StatusOr<Hall> MakeHall(const CaseOptions& options) {
  Hall hall;
  CHAPTER_ASSIGN_OR_RETURN(hall.federation, Federation::Make(options.programs, options.folder));
  CHAPTER_RETURN_IF_ERROR(hall.federation->AddChapter(kArchive, "IT"));
  CHAPTER_RETURN_IF_ERROR(Load(*hall.federation, kArchive, options.records).status());
  CHAPTER_ASSIGN_OR_RETURN(hall.event, MakeEvent(hall.federation->hub(), kArchive));
  CHAPTER_ASSIGN_OR_RETURN(hall.crowd, Crowd::Join(*hall.federation, options.self, options.nodes));
  Site& hub = hall.federation->hub();
  CHAPTER_RETURN_IF_ERROR(hall.federation->Stop(hub));
  CHAPTER_RETURN_IF_ERROR(hall.federation->Start(hub));
  CHAPTER_RETURN_IF_ERROR(CheckMembers(hub, options.records));
  CHAPTER_ASSIGN_OR_RETURN(hall.alone, hub.daemon->Cost());
  return hall;
}

// INTERNAL unless every node has its one connection.
absl::StatusOr<SocketBytes> MovedByAll(const Hall& hall, int64_t nodes) {
  CHAPTER_ASSIGN_OR_RETURN(const SocketBytes moved, hall.federation->Moved());
  if (moved.connections == static_cast<uint64_t>(nodes)) return moved;
  return absl::InternalError(
      absl::StrCat("the hub has ", moved.connections, " connections for ", nodes, " nodes"));
}

}  // namespace

absl::Status Idle(const CaseOptions& options, const Print& print) {
  CHAPTER_ASSIGN_OR_RETURN(const Hall hall, MakeHall(options));
  const Daemon& hub = *hall.federation->hub().daemon;
  const Stopwatch connecting;
  CHAPTER_RETURN_IF_ERROR(hall.crowd->Connect());
  const double connect_s = connecting.seconds();
  CHAPTER_ASSIGN_OR_RETURN(const SocketBytes moved_before, MovedByAll(hall, options.nodes));
  CHAPTER_ASSIGN_OR_RETURN(const ProcessCost before, hub.Cost());
  const Stopwatch idle;
  absl::SleepFor(absl::Seconds(options.seconds));
  CHAPTER_ASSIGN_OR_RETURN(const ProcessCost after, hub.Cost());
  const double seconds = idle.seconds();
  CHAPTER_ASSIGN_OR_RETURN(const SocketBytes moved_after, MovedByAll(hall, options.nodes));
  const double added_mb = after.rss_mb - hall.alone.rss_mb;
  const double cpu_s = after.cpu_s - before.cpu_s;
  nlohmann::json out = Head("idle", options.records);
  out["nodes"] = options.nodes;
  out["chapters"] = hall.crowd->chapters();
  out["connect_s"] = connect_s;
  out["seconds"] = seconds;
  out["bytes_to_hub"] = moved_after.to_server - moved_before.to_server;
  out["bytes_from_hub"] = moved_after.from_server - moved_before.from_server;
  out["cpu_s"] = {{"hub", cpu_s}};
  out["cpu_share"] = cpu_s / seconds;
  out["rss_mb"] = {{"hub", after.rss_mb}};
  out["rss_added_mb"] = added_mb;
  out["rss_per_node_kb"] = added_mb * 1e3 / static_cast<double>(options.nodes);
  print(out);
  return absl::OkStatus();
}

absl::Status Fanout(const CaseOptions& options, const Print& print) {
  CHAPTER_ASSIGN_OR_RETURN(const Hall hall, MakeHall(options));
  Site& hub = hall.federation->hub();
  CHAPTER_RETURN_IF_ERROR(hall.crowd->Connect());
  const std::string id(absl::StripPrefix(hall.event, "events/"));
  CHAPTER_ASSIGN_OR_RETURN(const SocketBytes moved_before, MovedByAll(hall, options.nodes));
  CHAPTER_ASSIGN_OR_RETURN(const ProcessCost before, hub.daemon->Cost());
  std::vector<double> all_ms;   // every node of every edit
  std::vector<double> last_ms;  // the last node of every edit
  const Stopwatch whole;
  for (int64_t i = 0; i < options.samples; ++i) {
    absl::SleepFor(kEditPause);
    const std::string venue = absl::StrCat("seen ", i);
    const Edit edit = VenueEdit(hall.event, venue);
    const Stopwatch way;
    CHAPTER_RETURN_IF_ERROR(Write(hub, edit));
    CHAPTER_ASSIGN_OR_RETURN(const std::vector<int64_t> seen_ns, hall.crowd->AwaitVenue(id, venue));
    double last = 0;
    for (const int64_t at_ns : seen_ns) {
      all_ms.push_back(static_cast<double>(at_ns - way.began_ns()) / 1e6);
      last = std::max(last, all_ms.back());
    }
    last_ms.push_back(last);
  }
  const double seconds = whole.seconds();
  CHAPTER_ASSIGN_OR_RETURN(const ProcessCost after, hub.daemon->Cost());
  CHAPTER_ASSIGN_OR_RETURN(const SocketBytes moved_after, MovedByAll(hall, options.nodes));
  const uint64_t to_hub = moved_after.to_server - moved_before.to_server;
  const uint64_t from_hub = moved_after.from_server - moved_before.from_server;
  nlohmann::json out = Head("fanout", options.records);
  out["nodes"] = options.nodes;
  out["chapters"] = hall.crowd->chapters();
  out["samples"] = options.samples;
  out["seconds"] = seconds;
  out["p50_ms"] = Percentile(all_ms, 0.5);
  out["p99_ms"] = Percentile(all_ms, 0.99);
  out["last_p50_ms"] = Percentile(last_ms, 0.5);
  out["last_p99_ms"] = Percentile(last_ms, 0.99);
  out["bytes_to_hub"] = to_hub;
  out["bytes_from_hub"] = from_hub;
  // A change is one edit at one node.
  out["bytes_per_change"] =
      static_cast<double>(to_hub + from_hub) / static_cast<double>(all_ms.size());
  out["cpu_s"] = {{"hub", after.cpu_s - before.cpu_s}};
  out["rss_mb"] = {{"hub", after.rss_mb}};
  print(out);
  return absl::OkStatus();
}

}  // namespace chaptersync::bench
