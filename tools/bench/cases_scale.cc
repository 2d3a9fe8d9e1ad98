// SPDX-License-Identifier: Apache-2.0
//
// What must not grow with the number of records: a hub and a node at several sizes, one federation
// after the other, and the same small things done at each.
#include <algorithm>
#include <cstdint>
#include <functional>
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

// What takes long is done so often; the median counts.
constexpr int kRounds = 3;
constexpr int64_t kFewEdits = 10;
constexpr int64_t kGets = 1'000;
constexpr int64_t kLists = 200;
constexpr int32_t kListSize = 50;

using Step = std::function<absl::Status()>;

// The median of the seconds that `step` takes after `prepare`.
absl::StatusOr<double> MedianOf(const Step& prepare, const Step& step) {
  std::vector<double> seconds;
  for (int i = 0; i < kRounds; ++i) {
    CHAPTER_RETURN_IF_ERROR(prepare());
    const Stopwatch one;
    CHAPTER_RETURN_IF_ERROR(step());
    seconds.push_back(one.seconds());
  }
  return Percentile(seconds, 0.5);
}

void AddPercentiles(const char* of, const std::vector<double>& milliseconds, nlohmann::json& out) {
  out[absl::StrCat(of, "p50_ms")] = Percentile(milliseconds, 0.5);
  out[absl::StrCat(of, "p99_ms")] = Percentile(milliseconds, 0.99);
}

absl::StatusOr<std::vector<double>> TimeGets(const Pair& pair, Site& site) {
  std::vector<double> milliseconds;
  for (const std::string& id : Draw(pair, kGets)) {
    v1::GetRecordRequest request;
    request.set_name(absl::StrCat("members/", id));
    const Stopwatch one;
    CHAPTER_RETURN_IF_ERROR(
        site.client->Call(site.client->records(), &v1::RecordsService::Stub::GetRecord, request)
            .status());
    milliseconds.push_back(one.milliseconds());
  }
  return milliseconds;
}

// Pages one after the other, from the first on again after the last.
absl::StatusOr<std::vector<double>> TimeLists(const Pair& pair, Site& site) {
  std::vector<double> milliseconds;
  v1::ListRecordsRequest request;
  request.set_noun("members");
  request.set_page_size(kListSize);
  const size_t least = std::min<size_t>(kListSize, pair.ids.size());
  for (int64_t i = 0; i < kLists; ++i) {
    const Stopwatch one;
    CHAPTER_ASSIGN_OR_RETURN(
        const v1::ListRecordsResponse page,
        site.client->Call(site.client->records(), &v1::RecordsService::Stub::ListRecords, request));
    milliseconds.push_back(one.milliseconds());
    if (request.page_token().empty() && static_cast<size_t>(page.records_size()) != least) {
      return absl::InternalError(
          absl::StrCat("a page has ", page.records_size(), " members, not ", least));
    }
    request.set_page_token(page.next_page_token());
  }
  return milliseconds;
}

absl::Status MeasureSize(const CaseOptions& options, const Print& print) {
  CHAPTER_ASSIGN_OR_RETURN(Pair pair, MakePair(options));
  nlohmann::json out = Head("scale", options.records);
  out["load_s"] = pair.load_s;
  const Stopwatch bootstrap;
  CHAPTER_RETURN_IF_ERROR(pair.federation->Start(*pair.node));
  CHAPTER_RETURN_IF_ERROR(SyncNow(*pair.node));
  out["bootstrap_s"] = bootstrap.seconds();
  CHAPTER_RETURN_IF_ERROR(CheckMembers(*pair.node, options.records));

  const std::vector<std::string> few = Choose(pair, kFewEdits);
  int round = 0;
  const Step write_few = [&] {
    return WriteEmployers(pair.hub(), few, absl::StrCat("round ", round++));
  };
  CHAPTER_ASSIGN_OR_RETURN(out["sync_ten_s"],
                           MedianOf(
                               [&]() -> absl::Status {
                                 CHAPTER_RETURN_IF_ERROR(Pause(*pair.node));
                                 CHAPTER_RETURN_IF_ERROR(pair.federation->AwaitNoConnection());
                                 return write_few();
                               },
                               [&]() -> absl::Status {
                                 CHAPTER_RETURN_IF_ERROR(Resume(*pair.node));
                                 return SyncNow(*pair.node);
                               }));
  {
    std::vector<Edit> edits;
    for (const std::string& id : Draw(pair, options.samples)) {
      edits.push_back(EmployerEdit(id, absl::StrCat("seen ", edits.size())));
    }
    const auto watch = SiteWatch::Open(*pair.node, "members", edits.size());
    CHAPTER_ASSIGN_OR_RETURN(const std::vector<double> seen_ms,
                             TimeEdits(pair.hub(), *watch, edits));
    AddPercentiles("", seen_ms, out);
  }
  CHAPTER_ASSIGN_OR_RETURN(const std::vector<double> gets_ms, TimeGets(pair, pair.hub()));
  AddPercentiles("get_", gets_ms, out);
  CHAPTER_ASSIGN_OR_RETURN(const std::vector<double> lists_ms, TimeLists(pair, pair.hub()));
  AddPercentiles("list_", lists_ms, out);
  CHAPTER_ASSIGN_OR_RETURN(out["return_s"],
                           MedianOf(
                               [&]() -> absl::Status {
                                 CHAPTER_RETURN_IF_ERROR(pair.federation->Stop(*pair.node));
                                 return write_few();
                               },
                               [&]() -> absl::Status {
                                 CHAPTER_RETURN_IF_ERROR(pair.federation->Start(*pair.node));
                                 return SyncNow(*pair.node);
                               }));
  CHAPTER_ASSIGN_OR_RETURN(const ProcessCost hub, pair.hub().daemon->Cost());
  CHAPTER_ASSIGN_OR_RETURN(const ProcessCost node, pair.node->daemon->Cost());
  out["rss_mb"] = {{"hub", hub.rss_mb}, {"node", node.rss_mb}};
  CHAPTER_ASSIGN_OR_RETURN(out["hub_start_s"],
                           MedianOf([&] { return pair.federation->Stop(pair.hub()); },
                                    [&] { return pair.federation->Start(pair.hub()); }));
  print(out);
  return absl::OkStatus();
}

}  // namespace

absl::Status Scale(const CaseOptions& options, const Print& print) {
  for (const int64_t size : options.sizes) {
    CaseOptions one = options;
    one.records = size;
    CHAPTER_RETURN_IF_ERROR(MeasureSize(one, print));
  }
  return absl::OkStatus();
}

}  // namespace chaptersync::bench
