// SPDX-License-Identifier: Apache-2.0
//
// Members, a node for them, writes in bulk, and the meter. Every choice comes from one seed, so
// that two runs do the same.
#include "tools/bench/workload.h"

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"

#include "storage/core/status.h"
#include "tools/bench/members.h"
#include "tools/bench/stopwatch.h"

namespace chaptersync::bench {

absl::StatusOr<std::vector<std::string>> Load(Federation& federation, const std::string& chapter,
                                              int64_t count) {
  MemberMaker maker(chapter);
  std::vector<std::string> ids;
  ids.reserve(static_cast<size_t>(count));
  v1::BatchWriteRecordsRequest request;
  for (int64_t i = 0; i < count; ++i) {
    NewMember made = maker.Next();
    v1::CreateRecordRequest& create = *request.add_writes()->mutable_create();
    create.set_noun("members");
    create.set_record_id(made.id);
    create.mutable_entity()->PackFrom(made.member);
    ids.push_back(std::move(made.id));
    if (static_cast<size_t>(request.writes_size()) < kRequestWritesMax && i + 1 < count) continue;
    CHAPTER_RETURN_IF_ERROR(WriteAll(federation.hub(), request));
    request.Clear();
  }
  return ids;
}

absl::StatusOr<Pair> MakePair(const CaseOptions& options) {
  Pair pair;
  CHAPTER_ASSIGN_OR_RETURN(pair.federation, Federation::Make(options.programs, options.folder));
  CHAPTER_RETURN_IF_ERROR(pair.federation->AddChapter(kChapter, "IT"));
  const Stopwatch load;
  CHAPTER_ASSIGN_OR_RETURN(pair.ids, Load(*pair.federation, kChapter, options.records));
  pair.load_s = load.seconds();
  CHAPTER_ASSIGN_OR_RETURN(pair.node, pair.federation->AddNode("node", kChapter));
  return pair;
}

absl::StatusOr<Pair> MakeSyncedPair(const CaseOptions& options) {
  CHAPTER_ASSIGN_OR_RETURN(Pair pair, MakePair(options));
  CHAPTER_RETURN_IF_ERROR(pair.federation->Start(*pair.node));
  CHAPTER_RETURN_IF_ERROR(SyncNow(*pair.node));
  CHAPTER_RETURN_IF_ERROR(CheckMembers(*pair.node, options.records));
  return pair;
}

std::vector<std::string> Choose(const Pair& pair, int64_t count) {
  // The first steps of a shuffle, on places: the ids themselves stay where they are.
  std::mt19937_64 random(kMembersSeed);
  std::vector<size_t> places(pair.ids.size());
  for (size_t i = 0; i < places.size(); ++i) places[i] = i;
  const size_t wanted = std::min(places.size(), static_cast<size_t>(count));
  std::vector<std::string> chosen;
  chosen.reserve(wanted);
  for (size_t i = 0; i < wanted; ++i) {
    std::swap(places[i], places[i + random() % (places.size() - i)]);
    chosen.push_back(pair.ids[places[i]]);
  }
  return chosen;
}

std::vector<std::string> Draw(const Pair& pair, int64_t count) {
  std::mt19937_64 random(kMembersSeed);
  std::vector<std::string> drawn;
  for (int64_t i = 0; i < count; ++i) drawn.push_back(pair.ids[random() % pair.ids.size()]);
  return drawn;
}

absl::Status WriteEmployers(Site& site, const std::vector<std::string>& ids,
                            const std::string& employer) {
  v1::BatchWriteRecordsRequest request;
  for (size_t i = 0; i < ids.size(); ++i) {
    AddEmployer(ids[i], absl::StrCat(employer, " ", i), request);
    if (static_cast<size_t>(request.writes_size()) < kRequestWritesMax && i + 1 < ids.size()) {
      continue;
    }
    CHAPTER_RETURN_IF_ERROR(WriteAll(site, request));
    request.Clear();
  }
  return absl::OkStatus();
}

absl::Status CheckMembers(Site& site, int64_t count) {
  CHAPTER_ASSIGN_OR_RETURN(const uint64_t held, Count(site, "members"));
  if (held == static_cast<uint64_t>(count)) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(site.data, " has ", held, " members, not ", count));
}

absl::StatusOr<Meter> Meter::Start(Pair& pair, Node node) {
  Meter meter(pair);
  if (node == Node::kConnected) {
    CHAPTER_ASSIGN_OR_RETURN(meter.moved_, pair.federation->Moved());
  } else {
    CHAPTER_RETURN_IF_ERROR(pair.federation->AwaitNoConnection());
  }
  pair.hub().daemon->ResetPeak();
  CHAPTER_ASSIGN_OR_RETURN(meter.hub_, pair.hub().daemon->Cost());
  if (node != Node::kStopped) {
    pair.node->daemon->ResetPeak();
    CHAPTER_ASSIGN_OR_RETURN(meter.node_, pair.node->daemon->Cost());
  }
  return meter;
}

absl::Status Meter::Finish(int64_t changes, nlohmann::json& out) {
  CHAPTER_ASSIGN_OR_RETURN(const SocketBytes moved, pair_.federation->Moved());
  CHAPTER_ASSIGN_OR_RETURN(const ProcessCost hub, pair_.hub().daemon->Cost());
  CHAPTER_ASSIGN_OR_RETURN(const ProcessCost node, pair_.node->daemon->Cost());
  if (moved.connections != 1 || moved.to_server < moved_.to_server ||
      moved.from_server < moved_.from_server) {
    return absl::InternalError(
        "the connection between node and hub did not last, so that its bytes are not known");
  }
  const uint64_t to_hub = moved.to_server - moved_.to_server;
  const uint64_t from_hub = moved.from_server - moved_.from_server;
  out["bytes_to_hub"] = to_hub;
  out["bytes_from_hub"] = from_hub;
  if (changes > 0) {
    out["bytes_per_change"] = static_cast<double>(to_hub + from_hub) / static_cast<double>(changes);
  }
  out["cpu_s"] = {{"hub", hub.cpu_s - hub_.cpu_s}, {"node", node.cpu_s - node_.cpu_s}};
  out["rss_mb"] = {{"hub", hub.rss_mb}, {"node", node.rss_mb}};
  out["rss_peak_mb"] = {{"hub", hub.rss_peak_mb}, {"node", node.rss_peak_mb}};
  return absl::OkStatus();
}

nlohmann::json Head(const char* name, int64_t records) {
  return {{"case", name}, {"records", records}};
}

}  // namespace chaptersync::bench
