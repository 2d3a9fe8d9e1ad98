// SPDX-License-Identifier: Apache-2.0
//
// Starts the services, and plays the hub of the replica where a test needs
// what only a hub can bring: others' writes, and refusals.
#include "tests/node/api/api_fixture.h"

#include "storage/core/record_codec.h"
#include "storage/core/status.h"

namespace chaptersync::node {

TestApi::TestApi(bool hub) {
  storage::ReplicaOptions options;
  options.hub = hub;
  options.chapter = hub ? "" : "italy";
  options.node.bytes[0] = 1;
  options.entities = StorageRules(BuiltinEntities());
  auto opened = storage::Replica::Open(engine_, environment_, options);
  CHAPTER_CHECK(opened.ok());
  replica_ = *std::move(opened);
  const ApiContext api{*replica_, BuiltinEntities(), environment_};
  records_service_ = std::make_unique<RecordsService>(api);
  conflicts_service_ = std::make_unique<ConflictsService>(api);
  refused_service_ = std::make_unique<RefusedService>(api);
  grpc::ServerBuilder builder;
  builder.SetMaxReceiveMessageSize(-1);
  builder.RegisterService(records_service_.get());
  builder.RegisterService(conflicts_service_.get());
  builder.RegisterService(refused_service_.get());
  server_ = builder.BuildAndStart();
  CHAPTER_CHECK(server_ != nullptr);
  channel_ = server_->InProcessChannel({});
  records_ = v1::RecordsService::NewStub(channel_);
  conflicts_ = v1::ConflictsService::NewStub(channel_);
  refused_ = v1::RefusedService::NewStub(channel_);
}

TestApi::~TestApi() {
  records_service_->StopWatches();
  server_->Shutdown();
}

v1::Record TestApi::Create(const google::protobuf::Message& entity, const std::string& noun) {
  grpc::ClientContext context;
  v1::CreateRecordRequest request;
  v1::CreateRecordResponse response;
  request.set_noun(noun);
  request.mutable_entity()->PackFrom(entity);
  const grpc::Status status = records_->CreateRecord(&context, request, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return response.record();
}

grpc::Status TestApi::Update(const std::string& name, const google::protobuf::Message& entity,
                             const std::vector<std::string>& mask, v1::Record* record) {
  grpc::ClientContext context;
  v1::UpdateRecordRequest request;
  v1::UpdateRecordResponse response;
  request.set_name(name);
  request.mutable_entity()->PackFrom(entity);
  for (const std::string& path : mask) request.mutable_update_mask()->add_paths(path);
  const grpc::Status status = records_->UpdateRecord(&context, request, &response);
  if (record != nullptr) *record = response.record();
  return status;
}

v1::Record TestApi::Get(const std::string& name) {
  grpc::ClientContext context;
  v1::GetRecordRequest request;
  v1::GetRecordResponse response;
  request.set_name(name);
  const grpc::Status status = records_->GetRecord(&context, request, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return response.record();
}

v1::Member TestApi::GetMember(const std::string& name) {
  v1::Member member;
  Get(name).entity().UnpackTo(&member);
  return member;
}

storage::RecordKey TestApi::KeyOf(const std::string& member_name) {
  const auto id = storage::RecordId::Parse(member_name.substr(member_name.find('/') + 1));
  CHAPTER_CHECK(id.ok());
  return {{1}, *id};
}

storage::PeerIdentity TestApi::Hub() const {
  storage::PeerIdentity hub;
  hub.node.bytes[0] = 2;
  hub.replica = {0x4242};
  hub.epoch = {1};
  hub.hub = true;
  for (const auto& [number, rule] : StorageRules(BuiltinEntities())) {
    hub.entities[number] = rule.fingerprint;
  }
  return hub;
}

storage::InboundRecord TestApi::Inbound(const storage::RecordKey& key,
                                        const std::vector<storage::CellWrite>& cells,
                                        const std::string& actor, uint64_t replica) {
  // A version above all that was written so far, and within what is allowed.
  const storage::Version version{storage::HybridTime::FromWall(environment_.NowMs() + 1000),
                                 {replica}};
  environment_.Advance(2000);
  storage::RecordUpdate update;
  for (const storage::CellWrite& cell : cells) {
    update.state.Put({cell.path, version, actor, cell.value, {}});
  }
  update.state.seen.Advance(version);
  return {{}, key, storage::EncodeUpdate(update)};
}

void TestApi::Receive(const storage::RecordKey& key, const std::vector<storage::CellWrite>& cells,
                      const std::string& actor, uint64_t replica) {
  storage::ApplyRequest request;
  request.peer = Hub();
  request.records.push_back(Inbound(key, cells, actor, replica));
  const auto result = replica_->Apply(request);
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->outcomes[0].kind, storage::RecordOutcome::Kind::kTaken);
}

void TestApi::Refuse(const storage::RecordKey& key, const std::string& reason,
                     const std::vector<storage::CellWrite>& hub_cells) {
  storage::AcknowledgeRequest refusal;
  refusal.peer = Hub();
  refusal.refused.push_back({key, {1'000'000}, storage::RefusedRecord::Reason::kRights, reason});
  const auto noted = replica_->Acknowledge(refusal);
  ASSERT_TRUE(noted.ok()) << noted.status();
  Receive(key, hub_cells, "hq staff", 0x4242);
}

}  // namespace chaptersync::node
