// SPDX-License-Identifier: Apache-2.0
//
// The tests of the Engine contract, for any engine: an engine's own test instantiates
// EngineContractTest with a maker of a fresh engine that can be crashed.
#ifndef CHAPTERSYNC_TESTS_STORAGE_ENGINE_ENGINE_CONTRACT_TEST_H_
#define CHAPTERSYNC_TESTS_STORAGE_ENGINE_ENGINE_CONTRACT_TEST_H_

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "gtest/gtest.h"

#include "storage/engine/engine.h"

namespace chaptersync::storage {

// ASSERT_TRUE(Ok(...)) prints the status where it is not OK.
inline testing::AssertionResult Ok(const absl::Status& status) {
  if (status.ok()) return testing::AssertionSuccess();
  return testing::AssertionFailure() << status.ToString();
}

// Puts `number` under one key of each table in one batch; a batch that is there in part shows.
// The values fill some KiB, so that an engine with small buffers writes files now and then.
WriteBatch NumberedBatch(int number);
// How many of the numbered batches, from 0, `engine` has. Fails where one is there in part or
// after a gap.
testing::AssertionResult CountNumberedBatches(const Engine& engine, int* count);

// An engine together with the power to crash it.
class EngineUnderTest {
 public:
  virtual ~EngineUnderTest() = default;
  virtual Engine& engine() = 0;
  // Cuts the power and opens what is left. Of the unsynced bytes or batches, the first `kept`
  // (0 to 1) have reached the disk.
  virtual void CrashAndReopen(double kept) = 0;
  // Where the engine may make files for ingestion.
  virtual std::string folder() const { return {}; }
};

using EngineMaker = std::unique_ptr<EngineUnderTest> (*)();

class EngineContractTest : public testing::TestWithParam<EngineMaker> {
 protected:
  EngineContractTest() : under_test_(GetParam()()) {}

  Engine& engine() { return under_test_->engine(); }
  EngineUnderTest& under_test() { return *under_test_; }

  void Put(Table table, std::string_view key, std::string_view value);
  void Delete(Table table, std::string_view key);
  // The latest value, or "NOT_FOUND" and the like.
  std::string Get(Table table, std::string_view key);

 private:
  std::unique_ptr<EngineUnderTest> under_test_;
};

}  // namespace chaptersync::storage

#endif  // CHAPTERSYNC_TESTS_STORAGE_ENGINE_ENGINE_CONTRACT_TEST_H_
