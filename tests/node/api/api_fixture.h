// SPDX-License-Identifier: Apache-2.0
//
// The services over a replica in memory, called through a channel within the
// process: what a client sees, metadata and statuses included. Time and
// randomness are the test's.
#ifndef CHAPTERSYNC_TESTS_NODE_API_API_FIXTURE_H_
#define CHAPTERSYNC_TESTS_NODE_API_API_FIXTURE_H_

#include <atomic>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "chaptersync/v1/member.pb.h"
#include "node/api/conflicts_service.h"
#include "node/api/records_service.h"
#include "node/api/refused_service.h"
#include "storage/engine/memory_engine.h"
#include "storage/replica/replica.h"

namespace chaptersync::node {

class TestEnvironment final : public storage::Environment {
 public:
  uint64_t NowMs() override { return now_ms_; }
  uint64_t Random() override {
    const std::lock_guard lock(mutex_);
    return random_();
  }
  void Advance(uint64_t ms) { now_ms_ += ms; }

 private:
  std::atomic<uint64_t> now_ms_ = 1'750'000'000'000;
  std::mutex mutex_;
  std::mt19937_64 random_{1};
};

// A replica with its API.
class TestApi {
 public:
  explicit TestApi(bool hub = false);
  ~TestApi();

  storage::Replica& replica() { return *replica_; }
  TestEnvironment& environment() { return environment_; }
  RecordsService& records_service() { return *records_service_; }
  std::shared_ptr<grpc::Channel> channel() { return channel_; }

  v1::RecordsService::Stub& records() { return *records_; }
  v1::ConflictsService::Stub& conflicts() { return *conflicts_; }
  v1::RefusedService::Stub& refused() { return *refused_; }

  // A message's member cells; the whole request where only its result matters.
  v1::Record Create(const google::protobuf::Message& entity, const std::string& noun = "members");
  // With an empty mask: all set fields.
  grpc::Status Update(const std::string& name, const google::protobuf::Message& entity,
                      const std::vector<std::string>& mask, v1::Record* record = nullptr);
  v1::Record Get(const std::string& name);
  v1::Member GetMember(const std::string& name);

  // The record as a hub holds it that another replica wrote to, without knowing
  // what was written here.
  void Receive(const storage::RecordKey& key, const std::vector<storage::CellWrite>& cells,
               const std::string& actor, uint64_t replica = 0x7777);
  // The hub refuses what was written here, and sends its own state.
  void Refuse(const storage::RecordKey& key, const std::string& reason,
              const std::vector<storage::CellWrite>& hub_cells);
  static storage::RecordKey KeyOf(const std::string& member_name);

 private:
  storage::PeerIdentity Hub() const;
  storage::InboundRecord Inbound(const storage::RecordKey& key,
                                 const std::vector<storage::CellWrite>& cells,
                                 const std::string& actor, uint64_t replica);

  TestEnvironment environment_;
  storage::MemoryEngine engine_;
  std::unique_ptr<storage::Replica> replica_;
  std::unique_ptr<RecordsService> records_service_;
  std::unique_ptr<ConflictsService> conflicts_service_;
  std::unique_ptr<RefusedService> refused_service_;
  std::unique_ptr<grpc::Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::RecordsService::Stub> records_;
  std::unique_ptr<v1::ConflictsService::Stub> conflicts_;
  std::unique_ptr<v1::RefusedService::Stub> refused_;
};

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_TESTS_NODE_API_API_FIXTURE_H_
