// SPDX-License-Identifier: Apache-2.0
//
// Who a call is noted under: what its metadata says, checked, else the owner
// of the process.
#include "node/api/actor.h"

#include <gmock/gmock.h>

#include "storage/core/record.h"
#include "tests/node/api/api_fixture.h"

namespace chaptersync::node {
namespace {

using ::testing::HasSubstr;

class ActorTest : public ::testing::Test {
 protected:
  // Creates a member under this metadata; the actor of its cells.
  std::string Create(const std::string& key, const std::string& value, grpc::Status* status) {
    grpc::ClientContext context;
    if (!key.empty()) context.AddMetadata(key, value);
    v1::CreateRecordRequest request;
    v1::CreateRecordResponse response;
    request.set_noun("members");
    *status = api_.records().CreateRecord(&context, request, &response);
    if (!status->ok()) return "";
    const auto stored = api_.replica().Read(TestApi::KeyOf(response.record().name()));
    EXPECT_TRUE(stored.ok());
    return stored->record.cells[0].actor;
  }
  TestApi api_;
};

TEST_F(ActorTest, IsWhoTheMetadataNames) {
  grpc::Status status;
  EXPECT_EQ(Create("chapter-actor", "giulia", &status), "giulia@italy");
  EXPECT_EQ(Create("chapter-actor-bin", "朱丽叶", &status), "朱丽叶@italy");
}

TEST_F(ActorTest, IsTheProcesssOwnerElse) {
  grpc::Status status;
  EXPECT_FALSE(Create("", "", &status).empty());
  EXPECT_TRUE(status.ok());
}

TEST_F(ActorTest, IsRefusedWhereItIsNone) {
  grpc::Status status;
  Create("chapter-actor", std::string(129, 'a'), &status);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("of 129 bytes is not allowed (1 to 128"));
  Create("chapter-actor-bin", "a\nb", &status);
  EXPECT_THAT(status.error_message(), HasSubstr("actor 'a\\x0ab'"));
  Create("chapter-actor-bin", "\xff", &status);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

}  // namespace
}  // namespace chaptersync::node
