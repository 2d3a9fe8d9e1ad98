// SPDX-License-Identifier: Apache-2.0
//
// CLI11 reads the words; its exceptions end here, as one line each that names
// the word that was wrong.
#include "tools/chapterctl/command_line.h"

#include <cstdlib>
#include <exception>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include <CLI/CLI.hpp>

#include "node/api/actor.h"
#include "node/entity/registry.h"
#include "node/entity/text.h"
#include "storage/core/status.h"
#include "tools/chapterctl/command.h"
#include "tools/chapterctl/failure.h"

namespace chaptersync::ctl {
namespace {

struct GlobalOptions {
  std::string data;
  std::string output = "table";
  std::string actor;
  bool quiet = false;
  bool yes = false;
};

// How errors are shown while it is not known whether the words make sense.
Format GuessFormat(const std::vector<std::string>& words) {
  for (size_t i = 0; i < words.size(); ++i) {
    if (words[i] == "--output=json") return Format::kJson;
    if (words[i] == "--output" && i + 1 < words.size() && words[i + 1] == "json") {
      return Format::kJson;
    }
  }
  return Format::kTable;
}

// "members list", as far as the words were understood.
std::string CommandSoFar(const CLI::App& app) {
  std::string out;
  for (const CLI::App* at = &app; at != nullptr;) {
    const std::vector<CLI::App*> given = at->get_subcommands();
    at = given.empty() ? nullptr : given[0];
    if (at != nullptr) absl::StrAppend(&out, out.empty() ? "" : " ", at->get_name());
  }
  return out;
}

absl::Status ExplainParseError(const CLI::App& app, const CLI::ParseError& error) {
  const std::string command = CommandSoFar(app);
  const std::vector<std::string> rest = app.remaining(true);
  const bool incomplete = dynamic_cast<const CLI::RequiredError*>(&error) != nullptr;
  const bool extras = dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr;
  if (!rest.empty() && (incomplete || extras)) {
    const std::string word = node::Shown(rest[0]);
    if (absl::StartsWith(word, "-")) return UsageError(absl::StrCat("unknown option ", word));
    if (incomplete && absl::StrContains(error.what(), "ubcommand")) {
      return UsageError(absl::StrCat("unknown command '", command, command.empty() ? "" : " ", word,
                                     "'; --help shows what there is"));
    }
    if (extras) return UsageError(absl::StrCat("unexpected word '", word, "' after ", command));
  }
  if (incomplete && absl::StrContains(error.what(), "ubcommand")) {
    return UsageError(command.empty() ? "which command? --help shows what there is"
                                      : absl::StrCat(command, ": which command? chapterctl ",
                                                     command, " --help shows what there is"));
  }
  if (dynamic_cast<const CLI::ConfigError*>(&error) != nullptr ||
      dynamic_cast<const CLI::FileError*>(&error) != nullptr) {
    return UsageError(absl::StrCat("--config: ", error.what()));
  }
  return UsageError(absl::StrCat(command, command.empty() ? "" : ": ", error.what()));
}

absl::Status CheckGlobals(GlobalOptions& options) {
  if (options.data.empty()) {
    return UsageError("which replica? give --data DIR, or DIR in CHAPTER_DATA");
  }
  if (options.actor.empty()) options.actor = OsUser();
  const absl::Status actor = node::CheckActor(options.actor);
  return actor.ok() ? actor : UsageError(std::string(actor.message()));
}

int Run(const std::vector<std::string>& words, Terminal& terminal, const Connector& connect) {
  GlobalOptions options;
  Action action;
  CLI::App app("Shows and changes what a ChapterSync replica holds.", "chapterctl");
  app.require_subcommand(1);
  app.fallthrough();  // Options of all commands may stand anywhere.
  app.set_version_flag("--version", CHAPTERSYNC_VERSION);
  // CLI11 does not look for the file's name in the environment by itself.
  const char* config = std::getenv("CHAPTER_CONFIG");
  if (config == nullptr) config = "";
  app.set_config("--config", config, "read options from this TOML file (Env:CHAPTER_CONFIG)",
                 *config != '\0');
  app.allow_config_extras(CLI::config_extras_mode::error);
  app.add_option("--data", options.data, "the folder that the replica's daemon serves")
      ->envname("CHAPTER_DATA");
  app.add_option("--output", options.output, "table, json (one object a line) or csv")
      ->check(CLI::IsMember({"table", "json", "csv"}))
      ->envname("CHAPTER_OUTPUT");
  app.add_option("--actor", options.actor, "who writes; unset: the user of this computer")
      ->envname("CHAPTER_ACTOR");
  app.add_flag("--quiet", options.quiet, "say only what was asked for")->envname("CHAPTER_QUIET");
  app.add_flag("--yes", options.yes, "do not ask")->envname("CHAPTER_YES");
  AddAdminCommands(app, action);
  AddRecordCommands(app, node::BuiltinEntities(), action);
  AddConflictCommands(app, action);
  AddRefusedCommands(app, action);
  AddApprovalCommands(app, action);
  AddSyncCommands(app, action);
  AddWatchCommand(app, action);

  absl::Status status;
  try {
    // CLI11 takes the words from the end.
    std::vector<std::string> reversed(words.rbegin(), words.rend());
    app.parse(std::move(reversed));
  } catch (const CLI::Success& asked) {  // --help, --version
    app.exit(asked, terminal.out, terminal.err);
    return static_cast<int>(Exit::kDone);
  } catch (const CLI::ParseError& error) {
    status = ExplainParseError(app, error);
  }
  Format format = GuessFormat(words);
  if (status.ok()) {
    format = options.output == "json"  ? Format::kJson
             : options.output == "csv" ? Format::kCsv
                                       : Format::kTable;
    status = CheckGlobals(options);
  }
  Output output(terminal, format, options.quiet);
  if (status.ok()) {
    const auto client = connect(options.data, options.actor);
    if (client.ok()) {
      Context context{**client, output, options.yes};
      status = action(context);
    } else {
      status = client.status();
    }
  }
  if (const absl::Status written = output.Finish(); status.ok()) status = written;
  if (!status.ok()) output.Error(status);
  return static_cast<int>(ExitOf(status));
}

}  // namespace

int RunCommandLine(const std::vector<std::string>& words, Terminal& terminal,
                   const Connector& connect) {
  try {
    return Run(words, terminal, connect);
  } catch (const std::exception& error) {  // Libraries throw; our own functions do not.
    terminal.err << "chapterctl: " << OneLine(error.what()) << std::endl;
    return static_cast<int>(Exit::kFailed);
  }
}

}  // namespace chaptersync::ctl
