// SPDX-License-Identifier: Apache-2.0
//
// The small grammars that commands share: groups of commands, FIELD=VALUE,
// lengths of time.
#include "tools/chapterctl/command.h"

#include <cstdint>
#include <istream>
#include <ostream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "node/entity/text.h"
#include "tools/chapterctl/failure.h"

namespace chaptersync::ctl {

CLI::App* AddGroup(CLI::App& app, const std::string& name, const std::string& description) {
  CLI::App* group = app.add_subcommand(name, description);
  group->require_subcommand(1);
  return group;
}

absl::StatusOr<std::pair<std::string, std::string>> CutAtEquals(const std::string& text,
                                                                const std::string& what) {
  const size_t at = text.find('=');
  if (at == std::string::npos || at == 0) {
    return UsageError(absl::StrCat("'", node::Shown(text), "' is not ", what));
  }
  return std::make_pair(text.substr(0, at), text.substr(at + 1));
}

absl::Status Confirm(Context& context, const std::string& command, const std::string& question,
                     const std::string& not_done) {
  if (context.yes) return absl::OkStatus();
  Terminal& terminal = context.output.terminal();
  if (!terminal.in_terminal || !terminal.err_terminal) {
    return UsageError(absl::StrCat(command, " needs --yes where nobody can be asked"));
  }
  terminal.err << question << " Type yes: " << std::flush;
  std::string answer;
  std::getline(terminal.in, answer);
  return answer == "yes" ? absl::OkStatus() : absl::CancelledError(not_done);
}

absl::Status CheckUtf8(const std::string& text) {
  if (node::ValidUtf8(text)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("'", node::Shown(text), "' is not UTF-8"));
}

absl::StatusOr<absl::Duration> ParseDuration(const std::string& text) {
  struct Unit {
    const char* name;
    absl::Duration length;
  };
  static const Unit kUnits[] = {{"ms", absl::Milliseconds(1)}, {"s", absl::Seconds(1)},
                                {"m", absl::Minutes(1)},       {"h", absl::Hours(1)},
                                {"d", absl::Hours(24)},        {"w", absl::Hours(7 * 24)}};
  constexpr uint32_t kCountMax = 1'000'000;
  const size_t digits = text.find_first_not_of("0123456789");
  uint32_t count = 0;
  if (digits != std::string::npos && absl::SimpleAtoi(text.substr(0, digits), &count) &&
      count <= kCountMax) {
    for (const Unit& unit : kUnits) {
      if (text.substr(digits) == unit.name) return count * unit.length;
    }
  }
  return UsageError(
      absl::StrCat("'", node::Shown(text),
                   "' is no length of time (a whole number and one of ms, s, m, h, d, "
                   "w: 30s, 7d)"));
}

}  // namespace chaptersync::ctl
