// SPDX-License-Identifier: Apache-2.0
//
// The conflict log through its service: how entries show, are found, and are
// settled in each of the three ways.
#include "node/api/conflicts_service.h"

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>

#include "chaptersync/v1/event.pb.h"
#include "tests/node/api/api_fixture.h"

namespace chaptersync::node {
namespace {

using ::testing::HasSubstr;

constexpr uint32_t kEmployer = 7;

std::string EmployerBytes(const std::string& text) {
  v1::Member member;
  member.set_employer(text);
  return member.SerializeAsString();
}

class ConflictsTest : public ::testing::Test {
 protected:
  // A member whose employer was ENI here and Fiat in Toronto; Fiat stands.
  std::string MakeConflict() {
    v1::Member member;
    member.set_employer("ENI");
    const std::string name = api_.Create(member).name();
    api_.Receive(TestApi::KeyOf(name), {{{kEmployer, std::nullopt}, EmployerBytes("Fiat")}},
                 "bob@toronto");
    return name;
  }

  std::vector<v1::Conflict> List(v1::ConflictState state, int page_size = 0) {
    std::vector<v1::Conflict> out;
    v1::ListConflictsRequest request;
    v1::ListConflictsResponse response;
    request.set_state(state);
    request.set_page_size(page_size);
    do {
      grpc::ClientContext context;
      const grpc::Status status = api_.conflicts().ListConflicts(&context, request, &response);
      EXPECT_TRUE(status.ok()) << status.error_message();
      EXPECT_TRUE(page_size == 0 || response.conflicts_size() <= page_size);
      out.insert(out.end(), response.conflicts().begin(), response.conflicts().end());
      request.set_page_token(response.next_page_token());
    } while (!response.next_page_token().empty());
    return out;
  }

  grpc::Status Settle(const std::string& id, v1::SettlementChoice choice,
                      const google::protobuf::Value* value = nullptr,
                      v1::Conflict* after = nullptr) {
    grpc::ClientContext context;
    context.AddMetadata("chapter-actor", "giulia");
    v1::SettleConflictRequest request;
    v1::SettleConflictResponse response;
    request.set_id(id);
    request.set_choice(choice);
    if (value != nullptr) *request.mutable_value() = *value;
    const grpc::Status status = api_.conflicts().SettleConflict(&context, request, &response);
    if (after != nullptr) *after = response.conflict();
    return status;
  }

  grpc::Status Get(const std::string& id, v1::Conflict* conflict = nullptr) {
    grpc::ClientContext context;
    v1::GetConflictRequest request;
    v1::GetConflictResponse response;
    request.set_id(id);
    const grpc::Status status = api_.conflicts().GetConflict(&context, request, &response);
    if (conflict != nullptr) *conflict = response.conflict();
    return status;
  }

  TestApi api_;
};

TEST_F(ConflictsTest, ShowsWhatLostWhatStoodAndWhoWroteThem) {
  const std::string name = MakeConflict();
  const auto conflicts = List(v1::CONFLICT_STATE_OPEN);
  ASSERT_EQ(conflicts.size(), 1u);
  const v1::Conflict& conflict = conflicts[0];
  EXPECT_EQ(conflict.id().size(), 32u);
  EXPECT_EQ(conflict.noun(), "members");
  EXPECT_EQ("members/" + conflict.record(), name);
  EXPECT_EQ(conflict.field(), "employer");
  EXPECT_EQ(conflict.state(), v1::CONFLICT_STATE_OPEN);
  EXPECT_EQ(conflict.current().string_value(), "Fiat");
  EXPECT_EQ(conflict.lost().string_value(), "ENI");
  EXPECT_EQ(conflict.current_write().actor(), "bob");
  EXPECT_EQ(conflict.current_write().chapter(), "toronto");
  EXPECT_EQ(conflict.lost_write().chapter(), "italy");
  EXPECT_TRUE(conflict.has_found_at());
  EXPECT_EQ(conflict.found_by(), storage::ToHex(api_.replica().replica_id().value));
  EXPECT_EQ(api_.Get(name).conflicts_open(), 1u);
}

TEST_F(ConflictsTest, ListsByStateAndPage) {
  for (int i = 0; i < 7; ++i) MakeConflict();
  EXPECT_EQ(List(v1::CONFLICT_STATE_OPEN, 3).size(), 7u);
  ASSERT_TRUE(Settle(List(v1::CONFLICT_STATE_OPEN)[0].id(), v1::SETTLEMENT_CHOICE_KEEP).ok());
  EXPECT_EQ(List(v1::CONFLICT_STATE_OPEN, 1).size(), 6u);
  EXPECT_EQ(List(v1::CONFLICT_STATE_SETTLED).size(), 1u);
  EXPECT_EQ(List(v1::CONFLICT_STATE_UNSPECIFIED, 2).size(), 7u);
}

TEST_F(ConflictsTest, IsFoundByTheBeginningOfItsId) {
  MakeConflict();
  const std::string id = List(v1::CONFLICT_STATE_OPEN)[0].id();
  v1::Conflict conflict;
  for (const size_t digits : {4u, 5u, 31u, 32u}) {
    ASSERT_TRUE(Get(id.substr(0, digits), &conflict).ok()) << digits;
    EXPECT_EQ(conflict.id(), id);
  }
  EXPECT_THAT(Get(id.substr(0, 3)).error_message(), HasSubstr("4 to 32 hexadecimal digits"));
  EXPECT_EQ(Get("xyzw").error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  const std::string other = (id[0] == 'f' ? "0" : "f") + id.substr(1);
  EXPECT_EQ(Get(other).error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(ConflictsTest, KeepsWhatStands) {
  const std::string name = MakeConflict();
  v1::Conflict after;
  ASSERT_TRUE(
      Settle(List(v1::CONFLICT_STATE_OPEN)[0].id(), v1::SETTLEMENT_CHOICE_KEEP, nullptr, &after)
          .ok());
  EXPECT_EQ(after.state(), v1::CONFLICT_STATE_SETTLED);
  ASSERT_EQ(after.settled_size(), 1);
  EXPECT_EQ(after.settled(0).choice(), v1::SETTLEMENT_CHOICE_KEEP);
  EXPECT_EQ(after.settled(0).write().actor(), "giulia");
  EXPECT_EQ(api_.GetMember(name).employer(), "Fiat");
  const grpc::Status again = Settle(after.id(), v1::SETTLEMENT_CHOICE_KEEP);
  EXPECT_EQ(again.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(again.error_message(), HasSubstr("is settled already, by giulia"));
}

TEST_F(ConflictsTest, TakesBackWhatLost) {
  const std::string name = MakeConflict();
  ASSERT_TRUE(Settle(List(v1::CONFLICT_STATE_OPEN)[0].id(), v1::SETTLEMENT_CHOICE_TAKE).ok());
  EXPECT_EQ(api_.GetMember(name).employer(), "ENI");
  EXPECT_EQ(api_.Get(name).conflicts_open(), 0u);
}

TEST_F(ConflictsTest, WritesAThirdValue) {
  const std::string name = MakeConflict();
  const std::string id = List(v1::CONFLICT_STATE_OPEN)[0].id();
  google::protobuf::Value value;
  EXPECT_THAT(Settle(id, v1::SETTLEMENT_CHOICE_VALUE).error_message(),
              HasSubstr("the choice value needs a value"));
  value.set_string_value(std::string(5000, 'x'));
  EXPECT_THAT(Settle(id, v1::SETTLEMENT_CHOICE_VALUE, &value).error_message(),
              HasSubstr("too long (at most 4096)"));
  value.mutable_struct_value();
  EXPECT_THAT(Settle(id, v1::SETTLEMENT_CHOICE_VALUE, &value).error_message(),
              HasSubstr("field 'employer': value '{}' is not allowed"));
  value.set_string_value("Ferrari");
  EXPECT_THAT(Settle(id, v1::SETTLEMENT_CHOICE_KEEP, &value).error_message(),
              HasSubstr("with the choice value only"));
  v1::Conflict after;
  ASSERT_TRUE(Settle(id, v1::SETTLEMENT_CHOICE_VALUE, &value, &after).ok());
  EXPECT_EQ(after.settled(0).choice(), v1::SETTLEMENT_CHOICE_VALUE);
  EXPECT_EQ(api_.GetMember(name).employer(), "Ferrari");
}

TEST_F(ConflictsTest, NullClears) {
  const std::string name = MakeConflict();
  google::protobuf::Value null;
  null.set_null_value(google::protobuf::NULL_VALUE);
  ASSERT_TRUE(
      Settle(List(v1::CONFLICT_STATE_OPEN)[0].id(), v1::SETTLEMENT_CHOICE_VALUE, &null).ok());
  EXPECT_FALSE(api_.GetMember(name).has_employer());
}

TEST_F(ConflictsTest, OneSettlementClosesAllOfTheSameFieldAndValue) {
  const std::string name = MakeConflict();
  // The same value lost once more, in a third replica's name.
  v1::Member again;
  again.set_employer("Olivetti");
  api_.Receive(TestApi::KeyOf(name), {{{kEmployer, std::nullopt}, EmployerBytes("ENI")}}, "carl",
               0x1111);
  api_.Receive(TestApi::KeyOf(name), {{{kEmployer, std::nullopt}, EmployerBytes("Olivetti")}},
               "dora", 0x2222);
  std::string eni;
  size_t open = 0;
  for (const v1::Conflict& conflict : List(v1::CONFLICT_STATE_OPEN)) {
    ++open;
    if (conflict.lost().string_value() == "ENI") eni = conflict.id();
  }
  ASSERT_GE(open, 2u);
  ASSERT_TRUE(Settle(eni, v1::SETTLEMENT_CHOICE_TAKE).ok());
  for (const v1::Conflict& conflict : List(v1::CONFLICT_STATE_OPEN)) {
    EXPECT_NE(conflict.lost().string_value(), "ENI");
  }
  EXPECT_EQ(api_.GetMember(name).employer(), "ENI");
}

TEST_F(ConflictsTest, ADeletionThatLostHasNoFieldAndTheValueTrue) {
  v1::Member member;
  member.set_employer("ENI");
  const std::string name = api_.Create(member).name();
  grpc::ClientContext context;
  v1::DeleteRecordRequest request;
  v1::DeleteRecordResponse response;
  request.set_name(name);
  ASSERT_TRUE(api_.records().DeleteRecord(&context, request, &response).ok());
  api_.Receive(TestApi::KeyOf(name), {{{kEmployer, std::nullopt}, EmployerBytes("Fiat")}},
               "bob@toronto");
  std::string id;
  for (const v1::Conflict& conflict : List(v1::CONFLICT_STATE_OPEN)) {
    if (!conflict.field().empty()) continue;
    EXPECT_TRUE(conflict.lost().bool_value());
    id = conflict.id();
  }
  ASSERT_FALSE(id.empty());
  google::protobuf::Value value;
  value.set_bool_value(true);
  EXPECT_EQ(Settle(id, v1::SETTLEMENT_CHOICE_VALUE, &value).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  ASSERT_TRUE(Settle(id, v1::SETTLEMENT_CHOICE_TAKE).ok());
  EXPECT_TRUE(api_.Get(name).deleted());
}

TEST_F(ConflictsTest, AnEditThatLostToADeletionShowsThatAsTrue) {
  // What stood was shown as the bytes that stand for a deletion, in base64.
  v1::Member member;
  member.set_employer("ENI");
  (*member.mutable_contacts())["home"].set_label("x");
  const std::string name = api_.Create(member).name();
  api_.Receive(TestApi::KeyOf(name), {{storage::CellPath::Existence(), storage::DeletedValue()}},
               "bob@toronto");
  ASSERT_TRUE(api_.Get(name).deleted());
  const auto conflicts = List(v1::CONFLICT_STATE_OPEN);
  ASSERT_GE(conflicts.size(), 2u);
  for (const v1::Conflict& conflict : conflicts) {
    EXPECT_FALSE(conflict.field().empty());
    EXPECT_EQ(conflict.current().kind_case(), google::protobuf::Value::kBoolValue)
        << conflict.field() << ": " << conflict.current().DebugString();
    EXPECT_TRUE(conflict.current().bool_value());
    EXPECT_EQ(conflict.current_write().chapter(), "toronto");
  }
  v1::Conflict shown;
  ASSERT_TRUE(Get(conflicts[0].id(), &shown).ok());
  EXPECT_TRUE(shown.current().bool_value());
  const grpc::Status taken = Settle(conflicts[0].id(), v1::SETTLEMENT_CHOICE_TAKE);
  EXPECT_THAT(taken.error_message(), HasSubstr("is deleted; restore it before"));
  ASSERT_TRUE(Settle(conflicts[0].id(), v1::SETTLEMENT_CHOICE_KEEP, nullptr, &shown).ok());
  EXPECT_TRUE(shown.current().bool_value());
}

TEST_F(ConflictsTest, AMapEntryOfTheSameBytesAsADeletionIsNone) {
  // An allotment of 1 has the byte that a deletion has.
  constexpr uint32_t kAllotments = 9;
  v1::Event event;
  (*event.mutable_allotments())["italy"] = 2;
  const std::string name = api_.Create(event, "events").name();
  const auto id = storage::RecordId::Parse(name.substr(name.find('/') + 1));
  ASSERT_TRUE(id.ok());
  const storage::RecordKey key{BuiltinEntities().FindByNoun("events")->number, *id};
  api_.Receive(key, {{{kAllotments, "italy"}, std::string(1, '\x01')}}, "bob@toronto");
  const auto entry = List(v1::CONFLICT_STATE_OPEN);
  ASSERT_EQ(entry.size(), 1u);
  EXPECT_EQ(entry[0].field(), "allotments.italy");
  EXPECT_EQ(entry[0].lost().number_value(), 2);
  EXPECT_EQ(entry[0].current().number_value(), 1) << entry[0].current().DebugString();

  const std::string other = api_.Create(event, "events").name();
  const auto other_id = storage::RecordId::Parse(other.substr(other.find('/') + 1));
  ASSERT_TRUE(other_id.ok());
  api_.Receive({key.entity, *other_id}, {{storage::CellPath::Existence(), storage::DeletedValue()}},
               "bob@toronto");
  int deletions = 0;
  for (const v1::Conflict& conflict : List(v1::CONFLICT_STATE_OPEN)) {
    if ("events/" + conflict.record() != other || conflict.field() != "allotments.italy") continue;
    ++deletions;
    EXPECT_TRUE(conflict.current().bool_value());
  }
  EXPECT_EQ(deletions, 1);
}

TEST_F(ConflictsTest, ADeletedRecordTakesNoValue) {
  const std::string name = MakeConflict();
  grpc::ClientContext context;
  v1::DeleteRecordRequest request;
  v1::DeleteRecordResponse response;
  request.set_name(name);
  ASSERT_TRUE(api_.records().DeleteRecord(&context, request, &response).ok());
  const std::string id = List(v1::CONFLICT_STATE_OPEN)[0].id();
  EXPECT_EQ(Settle(id, v1::SETTLEMENT_CHOICE_TAKE).error_code(),
            grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_TRUE(Settle(id, v1::SETTLEMENT_CHOICE_KEEP).ok());
}

TEST_F(ConflictsTest, AChapterWritesNoFieldOfHeadquartersBySettling) {
  const std::string name = MakeConflict();
  v1::Degree degree;
  degree.set_level("BSc");
  api_.Receive(TestApi::KeyOf(name), {{{2, "first"}, degree.SerializeAsString()}}, "x", 0x1111);
  degree.set_level("PhD");
  api_.Receive(TestApi::KeyOf(name), {{{2, "first"}, degree.SerializeAsString()}}, "y", 0x2222);
  std::string id;
  for (const v1::Conflict& conflict : List(v1::CONFLICT_STATE_OPEN)) {
    if (conflict.field() == "degrees.first") id = conflict.id();
  }
  ASSERT_FALSE(id.empty());
  for (const auto choice : {v1::SETTLEMENT_CHOICE_TAKE, v1::SETTLEMENT_CHOICE_KEEP}) {
    const grpc::Status status = Settle(id, choice);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::PERMISSION_DENIED) << choice;
    EXPECT_THAT(status.error_message(), HasSubstr("field 'degrees.first'"));
  }
  EXPECT_FALSE(List(v1::CONFLICT_STATE_OPEN).empty());
}

TEST_F(ConflictsTest, AChoiceMustBeSaid) {
  MakeConflict();
  EXPECT_THAT(Settle(List(v1::CONFLICT_STATE_OPEN)[0].id(), v1::SETTLEMENT_CHOICE_UNSPECIFIED)
                  .error_message(),
              HasSubstr("keep, take or value"));
}

}  // namespace
}  // namespace chaptersync::node
