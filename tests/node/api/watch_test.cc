// SPDX-License-Identifier: Apache-2.0
//
// Watching: every change after the headers arrives, in order, until somebody
// ends it; a watcher that does not read is cut off.
#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>

#include "chaptersync/v1/event.pb.h"
#include "node/api/watch_hub.h"
#include "tests/node/api/api_fixture.h"

namespace chaptersync::node {
namespace {

using ::testing::HasSubstr;

class Watcher {
 public:
  explicit Watcher(TestApi& api, const std::string& noun = "") {
    v1::WatchRecordsRequest request;
    request.set_noun(noun);
    reader_ = api.records().WatchRecords(&context_, request);
    reader_->WaitForInitialMetadata();
  }
  ~Watcher() {
    if (reader_ != nullptr) {
      context_.TryCancel();
      Finish();
    }
  }

  v1::WatchRecordsResponse Next() {
    v1::WatchRecordsResponse response;
    EXPECT_TRUE(reader_->Read(&response));
    return response;
  }
  void Cancel() { context_.TryCancel(); }
  // Reads what there is, then the end.
  grpc::Status Finish() {
    v1::WatchRecordsResponse response;
    while (reader_->Read(&response)) ++read_;
    const grpc::Status status = reader_->Finish();
    reader_ = nullptr;
    return status;
  }
  size_t read() const { return read_; }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::WatchRecordsResponse>> reader_;
  size_t read_ = 0;
};

class WatchTest : public ::testing::Test {
 protected:
  static v1::Member Working(const std::string& employer) {
    v1::Member member;
    member.set_employer(employer);
    return member;
  }
  TestApi api_;
};

TEST_F(WatchTest, TellsWhatHappensFromTheHeadersOn) {
  api_.Create(Working("before"));
  Watcher watcher(api_);
  const v1::Record made = api_.Create(Working("ENI"));
  v1::WatchRecordsResponse event = watcher.Next();
  EXPECT_EQ(event.event(), v1::RECORD_EVENT_CREATED);
  EXPECT_EQ(event.record().name(), made.name());
  v1::Member member;
  ASSERT_TRUE(event.record().entity().UnpackTo(&member));
  EXPECT_EQ(member.employer(), "ENI");
  ASSERT_TRUE(api_.Update(made.name(), Working("Fiat"), {}).ok());
  EXPECT_EQ(watcher.Next().event(), v1::RECORD_EVENT_CHANGED);
  grpc::ClientContext context;
  v1::DeleteRecordRequest request;
  v1::DeleteRecordResponse response;
  request.set_name(made.name());
  ASSERT_TRUE(api_.records().DeleteRecord(&context, request, &response).ok());
  event = watcher.Next();
  EXPECT_EQ(event.event(), v1::RECORD_EVENT_DELETED);
  EXPECT_TRUE(event.record().deleted());
  grpc::ClientContext second;
  v1::UndeleteRecordRequest restore;
  v1::UndeleteRecordResponse restored;
  restore.set_name(made.name());
  ASSERT_TRUE(api_.records().UndeleteRecord(&second, restore, &restored).ok());
  EXPECT_EQ(watcher.Next().event(), v1::RECORD_EVENT_RESTORED);
}

TEST_F(WatchTest, TellsOfOneEntityWhereAsked) {
  Watcher watcher(api_, "events");
  api_.Create(Working("ENI"));
  v1::Event event;
  event.set_venue("Firenze");
  const v1::Record made = api_.Create(event, "events");
  EXPECT_EQ(watcher.Next().record().name(), made.name());
}

TEST_F(WatchTest, RefusesANounThatIsNotThere) {
  Watcher watcher(api_, "people");
  const grpc::Status status = watcher.Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(status.error_message(), HasSubstr("noun 'people' is not known"));
}

TEST_F(WatchTest, EndsWhenTheClientGoes) {
  Watcher watcher(api_);
  watcher.Cancel();
  EXPECT_EQ(watcher.Finish().error_code(), grpc::StatusCode::CANCELLED);
  api_.Create(Working("nobody watches"));
}

TEST_F(WatchTest, EndsWhenTheServerGoesDown) {
  Watcher watcher(api_);
  api_.records_service().StopWatches();
  EXPECT_EQ(watcher.Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  Watcher late(api_);
  EXPECT_EQ(late.Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(WatchTest, ASlowWatcherIsCutOffAndHoldsUpNobody) {
  Watcher slow(api_);
  Watcher quick(api_);
  constexpr int kBatches = 3;
  for (int batch = 0; batch < kBatches; ++batch) {
    v1::BatchWriteRecordsRequest request;
    for (int i = 0; i < 1000; ++i) {
      auto& create = *request.add_writes()->mutable_create();
      create.set_noun("members");
      create.mutable_entity()->PackFrom(Working(absl::StrCat(i)));
    }
    grpc::ClientContext context;
    v1::BatchWriteRecordsResponse response;
    ASSERT_TRUE(api_.records().BatchWriteRecords(&context, request, &response).ok());
    for (int i = 0; i < 1000; ++i) quick.Next();
  }
  const grpc::Status status = slow.Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("1024 changes were waiting"));
  EXPECT_LT(slow.read(), 3000u);
}

TEST_F(WatchTest, ManyWatchersAllHearEverything) {
  std::vector<std::unique_ptr<Watcher>> watchers;
  for (int i = 0; i < 20; ++i) watchers.push_back(std::make_unique<Watcher>(api_));
  for (int i = 0; i < 20; ++i) api_.Create(Working(absl::StrCat(i)));
  std::string last;
  for (auto& watcher : watchers) {
    std::vector<std::string> employers;
    for (int i = 0; i < 20; ++i) {
      v1::Member member;
      ASSERT_TRUE(watcher->Next().record().entity().UnpackTo(&member));
      EXPECT_EQ(member.employer(), absl::StrCat(i));
    }
  }
}

}  // namespace
}  // namespace chaptersync::node
