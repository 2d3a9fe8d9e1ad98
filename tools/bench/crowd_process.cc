// SPDX-License-Identifier: Apache-2.0
//
// Crowd: orders and answers are lines of JSON. Processes join one after the other, as a hub keeps
// only so many open invitations; all else they do at once.
#include "tools/bench/crowd_process.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "storage/core/status.h"

namespace chaptersync::bench {
namespace {

using nlohmann::json;

absl::StatusOr<json> Answer(Daemon& process) {
  CHAPTER_ASSIGN_OR_RETURN(const std::string line, process.Receive(kOrderTimeout));
  json answer = json::parse(line, nullptr, false);
  if (!answer.is_object()) return absl::InternalError("a crowd's answer is no JSON object");
  if (answer.contains("error")) {
    return absl::InternalError(absl::StrCat("a crowd: ", answer.value("error", "")));
  }
  return answer;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Crowd>> Crowd::Join(Federation& federation, const std::string& self,
                                                   int64_t nodes) {
  std::unique_ptr<Crowd> crowd(new Crowd);
  crowd->chapters_ = std::clamp<int64_t>(nodes / kNodesPerChapter, 1, kChaptersMax);
  const auto chapter = [](int64_t number) { return absl::StrCat("chapter-", number); };
  for (int64_t i = 0; i < crowd->chapters_; ++i) {
    CHAPTER_RETURN_IF_ERROR(federation.AddChapter(chapter(i), "IT"));
  }
  for (int64_t joined = 0; joined < nodes;) {
    crowd->processes_.push_back(std::make_unique<Daemon>(
        std::vector<std::string>{self, "crowd"},
        absl::StrCat(federation.folder(), "/crowd-", crowd->processes_.size(), ".log")));
    Daemon& process = *crowd->processes_.back();
    CHAPTER_RETURN_IF_ERROR(process.Start());
    json invitations = json::array();
    for (const int64_t end = std::min(nodes, joined + kNodesPerProcess); joined < end; ++joined) {
      CHAPTER_ASSIGN_OR_RETURN(std::string invitation,
                               federation.Invite(chapter(joined % crowd->chapters_)));
      invitations.push_back(std::move(invitation));
    }
    CHAPTER_RETURN_IF_ERROR(
        process.Send(json{{"do", "join"}, {"invitations", invitations}}.dump()));
    CHAPTER_RETURN_IF_ERROR(Answer(process).status());
  }
  return crowd;
}

absl::Status Crowd::Connect() { return Order({{"do", "connect"}}).status(); }

absl::StatusOr<std::vector<int64_t>> Crowd::AwaitVenue(const std::string& event,
                                                       const std::string& venue) {
  CHAPTER_ASSIGN_OR_RETURN(const std::vector<json> answers,
                           Order({{"do", "await"}, {"event", event}, {"venue", venue}}));
  std::vector<int64_t> seen;
  for (const json& answer : answers) {
    for (const json& at_ns : answer.at("seen_ns")) seen.push_back(at_ns.get<int64_t>());
  }
  return seen;
}

absl::StatusOr<std::vector<json>> Crowd::Order(const json& order) {
  const std::string line = order.dump();
  for (const auto& process : processes_) CHAPTER_RETURN_IF_ERROR(process->Send(line));
  std::vector<json> answers;
  for (const auto& process : processes_) {
    CHAPTER_ASSIGN_OR_RETURN(json answer, Answer(*process));
    answers.push_back(std::move(answer));
  }
  return answers;
}

}  // namespace chaptersync::bench
