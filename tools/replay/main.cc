// SPDX-License-Identifier: Apache-2.0
//
// chapter-replay: reads a history from standard input, one JSON object a line,
// and prints what every replica then holds. Exit 0, 1 where a line could not be
// carried out, 2 for wrong usage.
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <string>

#include "absl/strings/str_cat.h"
#include <CLI/CLI.hpp>

#include "storage/engine/memory_engine.h"
#include "storage/engine/rocksdb_engine.h"
#include "tools/replay/history.h"

namespace {

using chaptersync::storage::Engine;

// A folder under the system's temporary one, removed at the end.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = std::filesystem::temp_directory_path() / "chapter-replay-XXXXXX";
    if (mkdtemp(name.data()) != nullptr) path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;  // what cannot be removed is the system's to clean up
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Replays a history of edits and syncs and prints what every replica holds.");
  std::string engine = "memory";
  bool counts = false;
  app.add_option("--engine", engine, "memory or rocksdb")
      ->check(CLI::IsMember({"memory", "rocksdb"}));
  app.add_flag("--counts", counts, "print on standard error how many records travelled");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    return code == 0 ? 0 : 2;
  }
  TemporaryFolder folder;
  if (engine == "rocksdb" && folder.path().empty()) {
    std::cerr << "chapter-replay: cannot make a temporary folder\n";
    return 1;
  }
  chaptersync::tools::History history(
      [&](const std::string& replica) -> absl::StatusOr<std::unique_ptr<Engine>> {
        if (engine == "memory") return std::make_unique<chaptersync::storage::MemoryEngine>();
        return chaptersync::storage::OpenRocksDbEngine(folder.path() + "/" + replica, {});
      });
  std::string line;
  for (uint64_t number = 1; std::getline(std::cin, line); ++number) {
    if (line.empty()) continue;
    if (absl::Status status = history.Run(line); !status.ok()) {
      std::cerr << "chapter-replay: line " << number << ": " << status.message() << "\n";
      return 1;
    }
  }
  auto result = history.Result();
  if (!result.ok()) {
    std::cerr << "chapter-replay: " << result.status().message() << "\n";
    return 1;
  }
  for (const std::string& row : *result) std::cout << row << "\n";
  if (counts) {
    const auto& c = history.counts();
    std::cerr << "sent " << c.records_sent << ", whole asked " << c.whole_asked << ", left "
              << c.left_sent << ", refused " << c.refused << ", conflicts found "
              << c.conflicts_found << "\n";
  }
  return std::cout.flush() ? 0 : 1;
}
