// SPDX-License-Identifier: Apache-2.0
//
// The product's replica and session against the reference model's results on
// the kept histories: on both engines, and with every sync cut after each of its
// messages in turn, with and without a crash of either side.
#include <unistd.h>

#include <cstdlib>

#include <gtest/gtest.h>

#include "storage/engine/memory_engine.h"
#include "storage/engine/rocksdb_engine.h"
#include "tests/tools/replay/histories.h"
#include "tools/replay/history.h"

namespace chaptersync::tools {
namespace {

// A sanitizer makes everything ten times slower: it gets a part of the histories.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr size_t kEvery = 8;
#else
constexpr size_t kEvery = 1;
#endif

// Which histories are cut: every tenth, unless CHAPTERSYNC_CUT_EVERY says otherwise.
size_t CutEvery() {
  const char* every = std::getenv("CHAPTERSYNC_CUT_EVERY");
  return every == nullptr ? 10 * kEvery : std::stoul(every);
}

const std::vector<KeptHistory>& Histories() {
  static const std::vector<KeptHistory> histories = ReadHistories(CHAPTERSYNC_HISTORIES);
  return histories;
}

absl::StatusOr<std::unique_ptr<storage::Engine>> MakeMemoryEngine(const std::string&) {
  return std::make_unique<storage::MemoryEngine>();
}

void Crash(storage::Engine& engine) { dynamic_cast<storage::MemoryEngine&>(engine).Crash(0); }

std::vector<std::string> Outcome(History& history, const KeptHistory& kept) {
  for (const std::string& line : kept.lines) {
    const absl::Status status = history.Run(line);
    EXPECT_TRUE(status.ok()) << kept.name << ": " << line << ": " << status;
    if (!status.ok()) return {};
  }
  auto result = history.Result();
  EXPECT_TRUE(result.ok()) << kept.name << ": " << result.status();
  if (!result.ok()) return {};
  std::sort(result->begin(), result->end());
  return *std::move(result);
}

TEST(Replay, AgreesWithTheModelInMemory) {
  ASSERT_GE(Histories().size(), 300u);
  node::SessionCounts all;
  for (size_t i = 0; i < Histories().size(); i += kEvery) {
    const KeptHistory& kept = Histories()[i];
    History history(MakeMemoryEngine);
    EXPECT_EQ(Outcome(history, kept), kept.want) << kept.name;
    all.records_sent += history.counts().records_sent;
    all.whole_asked += history.counts().whole_asked;
    all.left_sent += history.counts().left_sent;
    all.conflicts_found += history.counts().conflicts_found;
  }
  // The ordinary messages of all kinds took part, or the agreement proves little.
  EXPECT_GT(all.records_sent, 10'000u / kEvery);
  EXPECT_GT(all.whole_asked, 100u / kEvery);
  EXPECT_GT(all.left_sent, 100u / kEvery);
  EXPECT_GT(all.conflicts_found, 1'000u / kEvery);
}

TEST(Replay, AgreesWithTheModelOnRocksDb) {
  ASSERT_GE(Histories().size(), 300u);
  for (size_t i = 0; i < 80; i += kEvery) {
    const KeptHistory& kept = Histories()[i * Histories().size() / 80];
    const std::filesystem::path folder =
        std::filesystem::path(testing::TempDir()) / ("replay_" + std::to_string(getpid()));
    std::filesystem::create_directories(folder);
    {
      History history(
          [&](const std::string& name) { return storage::OpenRocksDbEngine(folder / name, {}); });
      EXPECT_EQ(Outcome(history, kept), kept.want) << kept.name;
    }
    std::filesystem::remove_all(folder);
  }
}

// Whatever a cut leaves behind, the next sync comes to the same end as if there
// had been no cut: nothing lost, nothing logged that is no conflict.
class CutTest : public testing::TestWithParam<int> {};

TEST_P(CutTest, EveryMessageInTurn) {
  const bool crash_node = GetParam() == 1 || GetParam() == 3;
  const bool crash_hub = GetParam() == 2 || GetParam() == 3;
  size_t cuts = 0;
  for (size_t i = 0; i < Histories().size(); i += CutEvery()) {
    const KeptHistory& kept = Histories()[i];
    uint64_t most = 1;
    for (uint64_t messages = 0; messages <= most; ++messages) {
      History history(MakeMemoryEngine);
      history.set_cut([&](uint64_t) { return Cut{messages, crash_node, crash_hub}; }, Crash);
      ASSERT_EQ(Outcome(history, kept), kept.want) << kept.name << ", cut after " << messages;
      most = std::max(most, history.messages_most());
      ++cuts;
    }
  }
  EXPECT_GT(cuts, 200u / kEvery);
}

std::string CutName(const testing::TestParamInfo<int>& cut) {
  return std::vector<std::string>{"NobodyCrashes", "NodeCrashes", "HubCrashes",
                                  "BothCrash"}[static_cast<size_t>(cut.param)];
}

INSTANTIATE_TEST_SUITE_P(All, CutTest, testing::Range(0, 4), CutName);

}  // namespace
}  // namespace chaptersync::tools
