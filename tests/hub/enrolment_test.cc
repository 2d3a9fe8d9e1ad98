// SPDX-License-Identifier: Apache-2.0
//
// Invitations are good for one node and for their time; credentials are checked;
// neither is kept in a form that would let anybody in.
#include "hub/enrolment.h"

#include <string>

#include "absl/strings/escaping.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/hub/hub_fixture.h"

namespace chaptersync::hub {
namespace {

using storage::NodeId;
using testing::HasSubstr;

NodeId Node(uint8_t number) {
  NodeId node;
  node.bytes[15] = number;
  return node;
}

class EnrolmentTest : public testing::Test {
 protected:
  v1::Invitation Invite(int64_t valid_seconds = kInvitationSecondsDefault) {
    const auto invitation = enrolment_.Invite("italy", valid_seconds, "127.0.0.1:7443");
    EXPECT_TRUE(invitation.ok()) << invitation.status();
    return invitation.ok() ? *invitation : v1::Invitation();
  }
  absl::StatusOr<v1::EnrolResponse> Enrol(const std::string& code, uint8_t node) {
    v1::EnrolRequest request;
    request.set_code(code);
    request.set_node(node::ToBytes(Node(node)));
    request.set_name("front desk");
    return enrolment_.Enrol(request);
  }
  static void ExpectDenied(const absl::StatusOr<v1::EnrolResponse>& answer,
                           const std::string& why) {
    EXPECT_EQ(answer.status().code(), absl::StatusCode::kPermissionDenied);
    EXPECT_THAT(answer.status().ToString(), HasSubstr(why));
  }

  HubSite hub_;
  Enrolment enrolment_{*hub_.replica, hub_.environment, "Federation"};
};

TEST_F(EnrolmentTest, AnInvitationLetsOneNodeIn) {
  const v1::Invitation invitation = Invite();
  EXPECT_EQ(invitation.version(), 1u);
  EXPECT_EQ(invitation.hub(), "127.0.0.1:7443");
  EXPECT_EQ(invitation.chapter(), "italy");
  EXPECT_EQ(invitation.federation(), "Federation");
  EXPECT_EQ(invitation.code().size(), 64u);
  const auto answer = Enrol(invitation.code(), 7);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->chapter(), "italy");
  EXPECT_EQ(answer->federation(), "Federation");
  EXPECT_EQ(answer->credential().size(), 32u);
  EXPECT_EQ(answer->hub(), node::ToBytes(hub_.replica->options().node));
  const auto known = enrolment_.Authenticate(Node(7), answer->credential());
  ASSERT_TRUE(known.ok()) << known.status();
  EXPECT_EQ(known->chapter, "italy");
  EXPECT_EQ(known->name, "front desk");
  ExpectDenied(Enrol(invitation.code(), 8), "used");
}

TEST_F(EnrolmentTest, ALostAnswerDoesNoHarm) {
  const v1::Invitation invitation = Invite();
  const auto lost = Enrol(invitation.code(), 7);
  ASSERT_TRUE(lost.ok());
  const auto again = Enrol(invitation.code(), 7);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_NE(lost->credential(), again->credential());
  EXPECT_FALSE(enrolment_.Authenticate(Node(7), lost->credential()).ok());
  EXPECT_TRUE(enrolment_.Authenticate(Node(7), again->credential()).ok());
  // From its first session on the invitation is spent for itself, too.
  ExpectDenied(Enrol(invitation.code(), 7), "used");
  EXPECT_TRUE(enrolment_.Authenticate(Node(7), again->credential()).ok());
}

TEST_F(EnrolmentTest, UnknownAndExpiredCodesSaySo) {
  ExpectDenied(Enrol("", 7), "not known");
  ExpectDenied(Enrol(std::string(64, '0'), 7), "not known");
  const v1::Invitation invitation = Invite(kInvitationSecondsMin);
  hub_.environment.ahead_ms = 1000 * kInvitationSecondsMin;
  ExpectDenied(Enrol(invitation.code(), 7), "past its end");
  // After a month nobody remembers it.
  hub_.environment.ahead_ms = 1000 * (kInvitationKeptSeconds + 2 * kInvitationSecondsMin);
  Invite();
  ExpectDenied(Enrol(invitation.code(), 7), "not known");
}

TEST_F(EnrolmentTest, ANodeJoinsOnce) {
  ASSERT_TRUE(Enrol(Invite().code(), 7).ok());
  ExpectDenied(Enrol(Invite().code(), 7), "joined already");
  EXPECT_TRUE(Enrol(Invite().code(), 8).ok());
  const auto nodes = enrolment_.ListNodes();
  ASSERT_TRUE(nodes.ok());
  ASSERT_EQ(nodes->size(), 2u);
  EXPECT_EQ((*nodes)[0].node, Node(7));
  EXPECT_EQ((*nodes)[1].node, Node(8));
}

TEST_F(EnrolmentTest, OnlyLiveChaptersAreInvited) {
  EXPECT_EQ(enrolment_.Invite("atlantis", 3600, "h:1").status(),
            absl::NotFoundError("there is no chapter 'atlantis'"));
  const node::EntityType* type = *node::BuiltinEntities().GetByNoun("chapters");
  storage::LocalWrite write{.kind = storage::LocalWrite::Kind::kDelete,
                            .key = {type->number, node::NamedId(*type, "italy")},
                            .actor = "hq"};
  ASSERT_TRUE(hub_.replica->Write({write})->front().status.ok());
  EXPECT_EQ(enrolment_.Invite("italy", 3600, "h:1").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(EnrolmentTest, ATimeOrANameOutOfRangeIsRefused) {
  for (const int64_t seconds :
       {int64_t{0}, int64_t{-1}, kInvitationSecondsMin - 1, kInvitationSecondsMax + 1, INT64_MAX}) {
    EXPECT_EQ(enrolment_.Invite("italy", seconds, "h:1").status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  const v1::Invitation invitation = Invite();
  v1::EnrolRequest request;
  request.set_code(invitation.code());
  request.set_node("short");
  EXPECT_EQ(enrolment_.Enrol(request).status().code(), absl::StatusCode::kInvalidArgument);
  request.set_node(std::string(16, '\0'));
  EXPECT_EQ(enrolment_.Enrol(request).status().code(), absl::StatusCode::kInvalidArgument);
  request.set_node(node::ToBytes(Node(7)));
  request.set_name(std::string(kNodeNameBytesMax + 1, 'n'));
  EXPECT_EQ(enrolment_.Enrol(request).status().code(), absl::StatusCode::kInvalidArgument);
  // None of it used the invitation up.
  EXPECT_TRUE(Enrol(invitation.code(), 7).ok());
}

TEST_F(EnrolmentTest, SecretsAreNotKept) {
  const v1::Invitation invitation = Invite();
  const auto answer = Enrol(invitation.code(), 7);
  ASSERT_TRUE(answer.ok());
  const auto settings = hub_.replica->ListSettings("");
  ASSERT_TRUE(settings.ok());
  EXPECT_FALSE(settings->empty());
  const std::string credential_hex = absl::BytesToHexString(answer->credential());
  for (const auto& [key, value] : *settings) {
    for (const std::string& text : {key, value}) {
      EXPECT_EQ(text.find(invitation.code()), std::string::npos) << key;
      EXPECT_EQ(text.find(answer->credential()), std::string::npos) << key;
      EXPECT_EQ(text.find(credential_hex), std::string::npos) << key;
    }
  }
}

TEST_F(EnrolmentTest, ServedOverTheNetwork) {
  HubServer server(hub_);
  const auto stub = v1::EnrolmentService::NewStub(
      grpc::CreateChannel(server.address().ToString(), grpc::InsecureChannelCredentials()));
  v1::EnrolRequest request;
  request.set_code("wrong");
  request.set_node(node::ToBytes(Node(7)));
  v1::EnrolResponse response;
  {
    grpc::ClientContext context;
    const grpc::Status status = stub->Enrol(&context, request, &response);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::PERMISSION_DENIED);
    EXPECT_THAT(status.error_message(), HasSubstr("not known"));
  }
  grpc::ClientContext context;
  request.set_code(Invite().code());
  EXPECT_TRUE(stub->Enrol(&context, request, &response).ok());
  EXPECT_EQ(response.chapter(), "italy");
}

}  // namespace
}  // namespace chaptersync::hub
