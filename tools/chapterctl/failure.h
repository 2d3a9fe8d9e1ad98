// SPDX-License-Identifier: Apache-2.0
//
// How a command fails: an absl::Status, the program's exit code that follows
// from it, and what it prints of it. Values only; any thread.
#ifndef CHAPTERSYNC_TOOLS_CHAPTERCTL_FAILURE_H_
#define CHAPTERSYNC_TOOLS_CHAPTERCTL_FAILURE_H_

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace chaptersync::ctl {

// Scripts rely on these numbers.
enum class Exit : int {
  kDone = 0,
  kFailed = 1,
  kUsage = 2,
  kNotFound = 3,
  kRefused = 4,      // rights, validation
  kUnreachable = 5,  // or out of time
  kDiffers = 6,
};

// By the status's code, unless WithExit said otherwise.
Exit ExitOf(const absl::Status& status);
absl::Status WithExit(absl::Status status, Exit exit);
// The command line is wrong.
absl::Status UsageError(const std::string& message);

// More than the one line of the message, for programs: candidates, for instance.
absl::Status WithDetails(absl::Status status, const std::vector<std::string>& details);
std::vector<std::string> DetailsOf(const absl::Status& status);

// The message on one line, whatever it was made of.
std::string OneLine(const std::string& message);
// "NOT_FOUND".
std::string CodeOf(const absl::Status& status);

}  // namespace chaptersync::ctl

#endif  // CHAPTERSYNC_TOOLS_CHAPTERCTL_FAILURE_H_
