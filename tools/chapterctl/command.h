// SPDX-License-Identifier: Apache-2.0
//
// What every command is: options on a parser, and an action that is chosen when
// they are parsed and carried out with a client and an output. Each file
// commands_*.cc adds some. One thread.
#ifndef CHAPTERSYNC_TOOLS_CHAPTERCTL_COMMAND_H_
#define CHAPTERSYNC_TOOLS_CHAPTERCTL_COMMAND_H_

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include <CLI/CLI.hpp>

#include "node/entity/registry.h"
#include "tools/chapterctl/client.h"
#include "tools/chapterctl/output.h"

namespace chaptersync::ctl {

struct Context {
  Client& client;
  Output& output;
  bool yes = false;  // --yes
};
using Action = std::function<absl::Status(Context&)>;

// Each adds commands to `app`; a parsed one sets `action`, which outlives `app`.
void AddRecordCommands(CLI::App& app, const node::EntityRegistry& entities, Action& action);
void AddTransferCommands(CLI::App& noun, const node::EntityType& type, Action& action);
void AddChapterCommands(CLI::App& noun, const node::EntityType& type, Action& action);
void AddAdminCommands(CLI::App& app, Action& action);
void AddConflictCommands(CLI::App& app, Action& action);
void AddRefusedCommands(CLI::App& app, Action& action);
void AddApprovalCommands(CLI::App& app, Action& action);
void AddSyncCommands(CLI::App& app, Action& action);
void AddWatchCommand(CLI::App& app, Action& action);

// A command of a group of which one must be given: "members list".
CLI::App* AddGroup(CLI::App& app, const std::string& name, const std::string& description);

// "FIELD=VALUE" cut at the first "="; a usage error that names `what` where there is none.
absl::StatusOr<std::pair<std::string, std::string>> CutAtEquals(const std::string& text,
                                                                const std::string& what);
// Asks, as `question`, whether to do what cannot be undone, unless --yes was given. A usage error
// that names `command` where nobody can be asked; CANCELLED, with `not_done`, unless "yes" is
// typed.
absl::Status Confirm(Context& context, const std::string& command, const std::string& question,
                     const std::string& not_done);
// What is sent to the daemon must be: INVALID_ARGUMENT unless the text is UTF-8.
absl::Status CheckUtf8(const std::string& text);
// "30s", "7d": a whole number and one of ms, s, m, h, d, w.
absl::StatusOr<absl::Duration> ParseDuration(const std::string& text);

}  // namespace chaptersync::ctl

#endif  // CHAPTERSYNC_TOOLS_CHAPTERCTL_COMMAND_H_
