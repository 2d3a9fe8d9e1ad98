// SPDX-License-Identifier: Apache-2.0
//
// Reads the kept histories under tests/tools/replay/histories: lines of a
// history, then what the reference model says every replica holds. Tests only.
#ifndef CHAPTERSYNC_TESTS_TOOLS_REPLAY_HISTORIES_H_
#define CHAPTERSYNC_TESTS_TOOLS_REPLAY_HISTORIES_H_

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace chaptersync::tools {

struct KeptHistory {
  std::string name;
  std::vector<std::string> lines;
  std::vector<std::string> want;  // sorted
};

// All kept histories, in the order of their files.
inline std::vector<KeptHistory> ReadHistories(const std::string& folder) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  std::vector<KeptHistory> histories;
  for (const auto& file : files) {
    std::ifstream in(file);
    for (std::string line; std::getline(in, line);) {
      const nlohmann::json row = nlohmann::json::parse(line);
      if (row.contains("history")) {
        histories.push_back({row["history"].get<std::string>(), {}, {}});
      } else if (row.contains("want")) {
        histories.back().want.push_back(row["want"].dump());
      } else {
        histories.back().lines.push_back(line);
      }
    }
  }
  for (KeptHistory& history : histories) std::sort(history.want.begin(), history.want.end());
  return histories;
}

}  // namespace chaptersync::tools

#endif  // CHAPTERSYNC_TESTS_TOOLS_REPLAY_HISTORIES_H_
