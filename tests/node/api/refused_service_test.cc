// SPDX-License-Identifier: Apache-2.0
//
// Writes that the hub refused: listed with reason and values, written again as
// new writes, or dropped.
#include "node/api/refused_service.h"

#include <gmock/gmock.h>

#include "tests/node/api/api_fixture.h"

namespace chaptersync::node {
namespace {

using ::testing::HasSubstr;

class RefusedTest : public ::testing::Test {
 protected:
  // A member whose employer the hub did not take; the hub has ENI.
  std::string MakeRefused() {
    v1::Member member;
    member.set_employer("ENI");
    v1::Member fields = member;
    fields.set_chapter("italy");
    const std::string name = api_.Create(member).name();
    v1::Member change;
    change.set_employer("Fiat");
    EXPECT_TRUE(api_.Update(name, change, {}).ok());
    api_.Refuse(TestApi::KeyOf(name), "members of italy are closed",
                {{{6, std::nullopt}, "\x32\x05italy"},
                 {{7, std::nullopt},
                  "\x3a\x03"
                  "ENI"}});
    return name;
  }

  std::vector<v1::RefusedWrite> List(int page_size = 0) {
    std::vector<v1::RefusedWrite> out;
    v1::ListRefusedRequest request;
    v1::ListRefusedResponse response;
    request.set_page_size(page_size);
    do {
      grpc::ClientContext context;
      const grpc::Status status = api_.refused().ListRefused(&context, request, &response);
      EXPECT_TRUE(status.ok()) << status.error_message();
      out.insert(out.end(), response.refused().begin(), response.refused().end());
      request.set_page_token(response.next_page_token());
    } while (!response.next_page_token().empty());
    return out;
  }

  grpc::Status Retry(uint64_t number) {
    grpc::ClientContext context;
    v1::RetryRefusedRequest request;
    v1::RetryRefusedResponse response;
    request.set_number(number);
    return api_.refused().RetryRefused(&context, request, &response);
  }

  grpc::Status Drop(uint64_t number) {
    grpc::ClientContext context;
    v1::DropRefusedRequest request;
    v1::DropRefusedResponse response;
    request.set_number(number);
    return api_.refused().DropRefused(&context, request, &response);
  }

  TestApi api_;
};

TEST_F(RefusedTest, ShowsRecordValuesAndReason) {
  const std::string name = MakeRefused();
  const auto refused = List();
  ASSERT_EQ(refused.size(), 1u);
  EXPECT_EQ(refused[0].number(), 1u);
  EXPECT_EQ(refused[0].noun(), "members");
  EXPECT_EQ("members/" + refused[0].record(), name);
  EXPECT_EQ(refused[0].reason(), "members of italy are closed");
  EXPECT_EQ(refused[0].fields().fields().at("employer").string_value(), "Fiat");
  EXPECT_TRUE(refused[0].has_written_at());
  EXPECT_EQ(api_.GetMember(name).employer(), "ENI");
  grpc::ClientContext context;
  v1::GetRefusedRequest request;
  v1::GetRefusedResponse response;
  request.set_number(1);
  ASSERT_TRUE(api_.refused().GetRefused(&context, request, &response).ok());
  EXPECT_EQ(response.refused().DebugString(), refused[0].DebugString());
}

TEST_F(RefusedTest, ARetryIsANewWriteAndLeavesTheList) {
  const std::string name = MakeRefused();
  ASSERT_TRUE(Retry(1).ok());
  EXPECT_EQ(api_.GetMember(name).employer(), "Fiat");
  EXPECT_TRUE(List().empty());
  EXPECT_EQ(Retry(1).error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(RefusedTest, ARetryThatIsRefusedStaysInTheList) {
  const std::string name = MakeRefused();
  grpc::ClientContext context;
  v1::DeleteRecordRequest request;
  v1::DeleteRecordResponse response;
  request.set_name(name);
  ASSERT_TRUE(api_.records().DeleteRecord(&context, request, &response).ok());
  EXPECT_EQ(Retry(1).error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(List().size(), 1u);
}

TEST_F(RefusedTest, IsDropped) {
  MakeRefused();
  ASSERT_TRUE(Drop(1).ok());
  EXPECT_TRUE(List().empty());
  EXPECT_THAT(Drop(1).error_message(), HasSubstr("there is no refused write 1"));
}

TEST_F(RefusedTest, IsListedPageByPage) {
  for (int i = 0; i < 5; ++i) MakeRefused();
  const auto refused = List(2);
  ASSERT_EQ(refused.size(), 5u);
  for (size_t i = 0; i < refused.size(); ++i) EXPECT_EQ(refused[i].number(), i + 1);
}

}  // namespace
}  // namespace chaptersync::node
