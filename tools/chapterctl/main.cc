// SPDX-License-Identifier: Apache-2.0
//
// chapterctl: the command line of a replica. Hands the process's words and
// streams over; see the file command_line.h.
#include <sys/ioctl.h>
#include <unistd.h>

#include <iostream>
#include <string>
#include <vector>

#include "tools/chapterctl/command_line.h"

int main(int argc, char** argv) {
  std::ios::sync_with_stdio(false);
  std::cin.tie(nullptr);
  chaptersync::ctl::Terminal terminal{.in = std::cin, .out = std::cout, .err = std::cerr};
  terminal.in_terminal = isatty(STDIN_FILENO) != 0;
  terminal.out_terminal = isatty(STDOUT_FILENO) != 0;
  terminal.err_terminal = isatty(STDERR_FILENO) != 0;
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
    terminal.columns = size.ws_col;
  }
  const std::vector<std::string> words(argv + 1, argv + argc);
  return chaptersync::ctl::RunCommandLine(words, terminal);
}
