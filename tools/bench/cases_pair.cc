// SPDX-License-Identifier: Apache-2.0
//
// The cases of a hub and a node, both as daemons of their own, with one node more for the second
// hop of an edit.
#include <cstdint>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

#include "storage/core/status.h"
#include "tools/bench/cases.h"
#include "tools/bench/edits.h"
#include "tools/bench/percentile.h"
#include "tools/bench/stopwatch.h"
#include "tools/bench/workload.h"

namespace chaptersync::bench {
namespace {

constexpr char kOtherChapter[] = "toronto";

}  // namespace

absl::Status Bootstrap(const CaseOptions& options, const Print& print) {
  CHAPTER_ASSIGN_OR_RETURN(Pair pair, MakePair(options));
  nlohmann::json out = Head("bootstrap", options.records);
  CHAPTER_ASSIGN_OR_RETURN(Meter meter, Meter::Start(pair, Meter::Node::kStopped));
  const Stopwatch all;
  CHAPTER_RETURN_IF_ERROR(pair.federation->Start(*pair.node));
  CHAPTER_RETURN_IF_ERROR(SyncNow(*pair.node));
  const double seconds = all.seconds();
  CHAPTER_RETURN_IF_ERROR(CheckMembers(*pair.node, options.records));
  out["load_s"] = pair.load_s;
  out["seconds"] = seconds;
  out["records_per_s"] = static_cast<double>(options.records) / seconds;
  CHAPTER_RETURN_IF_ERROR(meter.Finish(0, out));
  print(out);
  return absl::OkStatus();
}

absl::Status Updates(const CaseOptions& options, const Print& print) {
  CHAPTER_ASSIGN_OR_RETURN(Pair pair, MakeSyncedPair(options));
  nlohmann::json out = Head("updates", options.records);
  const std::vector<std::string> ids = Choose(pair, options.changes);
  CHAPTER_ASSIGN_OR_RETURN(Meter meter, Meter::Start(pair, Meter::Node::kConnected));
  const Stopwatch all;
  CHAPTER_RETURN_IF_ERROR(WriteEmployers(pair.hub(), ids, "employer"));
  const double written_s = all.seconds();
  CHAPTER_RETURN_IF_ERROR(SyncNow(*pair.node));
  const double seconds = all.seconds();
  const int64_t changes = std::ssize(ids);
  out["load_s"] = pair.load_s;
  out["changes"] = changes;
  out["seconds"] = seconds;
  out["written_s"] = written_s;
  out["records_per_s"] = static_cast<double>(changes) / seconds;
  CHAPTER_RETURN_IF_ERROR(meter.Finish(changes, out));
  print(out);
  return absl::OkStatus();
}

absl::Status Latency(const CaseOptions& options, const Print& print) {
  CHAPTER_ASSIGN_OR_RETURN(Pair pair, MakeSyncedPair(options));
  Federation& federation = *pair.federation;
  nlohmann::json out = Head("latency", options.records);
  out["load_s"] = pair.load_s;
  out["samples"] = options.samples;
  {
    std::vector<Edit> edits;
    for (const std::string& id : Draw(pair, options.samples)) {
      edits.push_back(EmployerEdit(id, absl::StrCat("seen ", edits.size())));
    }
    const auto watch = SiteWatch::Open(*pair.node, "members", edits.size());
    CHAPTER_ASSIGN_OR_RETURN(Meter meter, Meter::Start(pair, Meter::Node::kConnected));
    const Stopwatch all;
    CHAPTER_ASSIGN_OR_RETURN(const std::vector<double> seen_ms,
                             TimeEdits(pair.hub(), *watch, edits));
    out["seconds"] = all.seconds();
    out["p50_ms"] = Percentile(seen_ms, 0.5);
    out["p99_ms"] = Percentile(seen_ms, 0.99);
    CHAPTER_RETURN_IF_ERROR(meter.Finish(options.samples, out));
  }
  CHAPTER_RETURN_IF_ERROR(federation.AddChapter(kOtherChapter, "CA"));
  CHAPTER_ASSIGN_OR_RETURN(Site* const other, federation.AddNode("other", kOtherChapter));
  CHAPTER_RETURN_IF_ERROR(federation.Start(*other));
  CHAPTER_ASSIGN_OR_RETURN(const std::string event, MakeEvent(*pair.node, kChapter));
  for (Site* site : {pair.node, other}) CHAPTER_RETURN_IF_ERROR(SyncNow(*site));
  std::vector<Edit> edits;
  while (std::ssize(edits) < options.samples) {
    edits.push_back(VenueEdit(event, absl::StrCat("seen ", edits.size())));
  }
  const auto watch = SiteWatch::Open(*other, "events", edits.size());
  CHAPTER_ASSIGN_OR_RETURN(const std::vector<double> seen_ms, TimeEdits(*pair.node, *watch, edits));
  out["two_hops_p50_ms"] = Percentile(seen_ms, 0.5);
  out["two_hops_p99_ms"] = Percentile(seen_ms, 0.99);
  print(out);
  return absl::OkStatus();
}

absl::Status Conflicts(const CaseOptions& options, const Print& print) {
  CHAPTER_ASSIGN_OR_RETURN(Pair pair, MakeSyncedPair(options));
  nlohmann::json out = Head("conflicts", options.records);
  const std::vector<std::string> ids = Choose(pair, options.changes);
  CHAPTER_RETURN_IF_ERROR(Pause(*pair.node));
  CHAPTER_RETURN_IF_ERROR(WriteEmployers(*pair.node, ids, "at the node"));
  CHAPTER_RETURN_IF_ERROR(WriteEmployers(pair.hub(), ids, "at the hub"));
  CHAPTER_ASSIGN_OR_RETURN(Meter meter, Meter::Start(pair, Meter::Node::kPaused));
  const Stopwatch all;
  CHAPTER_RETURN_IF_ERROR(Resume(*pair.node));
  CHAPTER_RETURN_IF_ERROR(SyncNow(*pair.node));
  CHAPTER_ASSIGN_OR_RETURN(const uint64_t at_hub, OpenConflicts(pair.hub()));
  CHAPTER_ASSIGN_OR_RETURN(const uint64_t at_node, OpenConflicts(*pair.node));
  if (at_hub != ids.size() || at_node != ids.size()) {
    return absl::InternalError(absl::StrCat("once all is in sync the hub has ", at_hub,
                                            " open conflicts and the node ", at_node, ", not ",
                                            ids.size()));
  }
  const double seconds = all.seconds();
  const int64_t changes = std::ssize(ids);
  out["load_s"] = pair.load_s;
  out["changes"] = changes;
  out["seconds"] = seconds;
  out["records_per_s"] = static_cast<double>(changes) / seconds;
  CHAPTER_RETURN_IF_ERROR(meter.Finish(changes, out));
  print(out);
  return absl::OkStatus();
}

}  // namespace chaptersync::bench
