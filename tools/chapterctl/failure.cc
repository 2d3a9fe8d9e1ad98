// SPDX-License-Identifier: Apache-2.0
//
// Exit codes from status codes; what a status carries beyond its code goes
// along as payloads.
#include "tools/chapterctl/failure.h"

#include <optional>
#include <string>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace chaptersync::ctl {
namespace {

constexpr char kExitUrl[] = "chapterctl/exit";
constexpr char kDetailsUrl[] = "chapterctl/details";

}  // namespace

Exit ExitOf(const absl::Status& status) {
  if (const auto payload = status.GetPayload(kExitUrl)) {
    int exit = 0;
    if (absl::SimpleAtoi(std::string(*payload), &exit)) return static_cast<Exit>(exit);
  }
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return Exit::kDone;
    case absl::StatusCode::kNotFound:
      return Exit::kNotFound;
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kAlreadyExists:
      return Exit::kRefused;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
      return Exit::kUnreachable;
    default:
      return Exit::kFailed;
  }
}

absl::Status WithExit(absl::Status status, Exit exit) {
  status.SetPayload(kExitUrl, absl::Cord(absl::StrCat(static_cast<int>(exit))));
  return status;
}

absl::Status UsageError(const std::string& message) {
  return WithExit(absl::InvalidArgumentError(message), Exit::kUsage);
}

absl::Status WithDetails(absl::Status status, const std::vector<std::string>& details) {
  status.SetPayload(kDetailsUrl, absl::Cord(absl::StrJoin(details, "\n")));
  return status;
}

std::vector<std::string> DetailsOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kDetailsUrl);
  if (!payload || payload->empty()) return {};
  return absl::StrSplit(std::string(*payload), '\n');
}

std::string OneLine(const std::string& message) {
  std::string out;
  for (const char c : message) {
    const bool control = static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
    if (!control) {
      out += c;
    } else if (!out.empty() && out.back() != ' ') {
      out += ' ';
    }
  }
  while (!out.empty() && out.back() == ' ') out.pop_back();
  return out;
}

std::string CodeOf(const absl::Status& status) { return absl::StatusCodeToString(status.code()); }

}  // namespace chaptersync::ctl
