// SPDX-License-Identifier: Apache-2.0
//
// The command line as a whole: reads the words, finds the daemon, carries the
// command out and gives the exit code. Nothing is thrown. One thread.
#ifndef CHAPTERSYNC_TOOLS_CHAPTERCTL_COMMAND_LINE_H_
#define CHAPTERSYNC_TOOLS_CHAPTERCTL_COMMAND_LINE_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "tools/chapterctl/client.h"
#include "tools/chapterctl/output.h"

namespace chaptersync::ctl {

// How a daemon is reached; tests have their own.
using Connector = std::function<absl::StatusOr<std::unique_ptr<Client>>(const std::string& data,
                                                                        const std::string& actor)>;

// `words`: those after the program's name.
int RunCommandLine(const std::vector<std::string>& words, Terminal& terminal,
                   const Connector& connect = Client::Connect);

}  // namespace chaptersync::ctl

#endif  // CHAPTERSYNC_TOOLS_CHAPTERCTL_COMMAND_LINE_H_
