// SPDX-License-Identifier: Apache-2.0
//
// The parser's own errors quote what they could not read, so they are left out; so is the
// name of the file where it may be the invitation itself.
#include "node/daemon/invitation.h"

#include <algorithm>
#include <cstddef>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include <google/protobuf/util/json_util.h>

#include "node/daemon/folder.h"
#include "storage/core/status.h"

namespace chaptersync::node {
namespace {

constexpr size_t kInvitationBytesMax = 64 << 10;
// As Linux has it, without the end.
constexpr size_t kPathBytesMax = 4095;
// A code has 64; no name of a file that people choose has as many.
constexpr size_t kCodeDigitsMin = 32;

}  // namespace

bool MayBeSecret(const std::string& word) {
  if (word.size() > kPathBytesMax || word.find_first_of("{}\"") != std::string::npos) return true;
  size_t digits = 0;
  for (const char c : word) {
    if (absl::ascii_iscntrl(static_cast<unsigned char>(c))) return true;
    digits = absl::ascii_isxdigit(static_cast<unsigned char>(c)) ? digits + 1 : 0;
    if (digits >= kCodeDigitsMin) return true;
  }
  return false;
}

absl::StatusOr<v1::Invitation> ReadInvitation(const std::string& file, std::istream& input) {
  std::string text;
  std::string source = "standard input";
  if (file == "-") {
    text.resize(kInvitationBytesMax + 1);  // one over tells that it is too long
    input.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<size_t>(input.gcount()));
  } else {
    auto read = ReadWholeFile(file, kInvitationBytesMax);
    if (MayBeSecret(file)) {
      source = "the file";
      if (!read.ok()) {
        return absl::InvalidArgumentError(
            "--invitation takes the name of a file, or - for standard input; what it was given is "
            "neither and is not shown, as it may be the invitation itself");
      }
    } else {
      CHAPTER_RETURN_IF_ERROR(read.status());
      source = absl::StrCat("'", file, "'");
    }
    text = *std::move(read);
  }
  v1::Invitation invitation;
  const auto parsed = google::protobuf::util::JsonStringToMessage(text, &invitation);
  if (text.size() > kInvitationBytesMax || !parsed.ok() || invitation.code().empty() ||
      invitation.hub().empty() || invitation.chapter().empty() || invitation.authority().empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(source,
                     " is no invitation (the JSON text that `chapterctl chapters invite` prints is "
                     "wanted)"));
  }
  if (invitation.version() != 1) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the invitation is of version ", invitation.version(), ", this program reads version 1"));
  }
  return invitation;
}

}  // namespace chaptersync::node
