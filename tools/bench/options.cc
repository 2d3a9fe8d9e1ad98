// SPDX-License-Identifier: Apache-2.0
//
// The command line, with CLI11: a subcommand for each case, with the options that it takes and the
// case's own defaults.
#include "tools/bench/options.h"

#include <algorithm>
#include <deque>
#include <filesystem>
#include <system_error>

#include <CLI/CLI.hpp>

namespace chaptersync::bench {
namespace {

void AddOptions(CLI::App& command, const Case& of, CaseOptions& options) {
  const auto number = [&](unsigned takes, const char* name, int64_t& value, int64_t least,
                          int64_t most, const char* what) {
    if ((of.takes & takes) == 0) return;
    command.add_option(name, value, what)->check(CLI::Range(least, most))->capture_default_str();
  };
  const bool none_is_fine = of.defaults.records == 0;
  number(kRecords, "--records", options.records, none_is_fine ? 0 : 1, kRecordsMax,
         "Members at the hub");
  number(kChanges, "--changes", options.changes, 1, kRecordsMax,
         "Members that are written, at most all");
  number(kSamples, "--samples", options.samples, 1, kSamplesMax, "Edits that are timed");
  number(kNodes, "--nodes", options.nodes, 1, kNodesMax, "Nodes that are connected");
  number(kSeconds, "--seconds", options.seconds, 1, kSecondsMax, "For how long nothing happens");
  if ((of.takes & kSizes) != 0) {
    command.add_option("--sizes", options.sizes, "Numbers of members at the hub, with commas")
        ->delimiter(',')
        ->check(CLI::Range(int64_t{1}, kRecordsMax))
        ->capture_default_str();
  }
  command.add_option("--folder", options.folder, "Where a folder for the data is made")
      ->check(CLI::ExistingDirectory)
      ->capture_default_str();
}

}  // namespace

absl::StatusOr<CommandLine> ParseCommandLine(std::vector<std::string> words) {
  CLI::App app("Measures ChapterSync with real processes, TLS and fsync on this machine.",
               "chapter-bench");
  app.require_subcommand(1);
  std::error_code no_folder;
  const std::string folder = std::filesystem::temp_directory_path(no_folder);
  struct Command {
    const Case* of;
    CaseOptions options;
    CLI::App* parser;
  };
  std::deque<Command> commands;  // the parsers point into it
  for (const Case& one : AllCases()) {
    Command& command =
        commands.emplace_back(&one, one.defaults, app.add_subcommand(one.name, one.what));
    command.options.folder = no_folder ? "." : folder;
    AddOptions(*command.parser, one, command.options);
  }
  CLI::App* const crowd = app.add_subcommand(kCrowdCommand)->group("");
  std::reverse(words.begin(), words.end());  // as CLI11 takes them
  try {
    app.parse(words);
  } catch (const CLI::CallForHelp&) {
    return CommandLine{.help = app.help(), .options = {}};
  } catch (const CLI::ParseError& error) {
    std::string line = error.what();
    std::replace(line.begin(), line.end(), '\n', ' ');
    return absl::InvalidArgumentError(line + " (see --help)");
  }
  if (crowd->parsed()) return CommandLine{};
  for (const Command& command : commands) {
    if (command.parser->parsed()) return CommandLine{"", command.of, command.options};
  }
  return absl::InvalidArgumentError("no case is named (see --help)");
}

}  // namespace chaptersync::bench
