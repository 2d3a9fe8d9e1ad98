// SPDX-License-Identifier: Apache-2.0
//
// The standard methods as a client sees them: outcomes, masks, batches, pages,
// and what each refusal says.
#include "node/api/records_service.h"

#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>

#include "chaptersync/v1/chapter.pb.h"
#include "chaptersync/v1/event.pb.h"
#include "chaptersync/v1/registration.pb.h"
#include "node/entity/ids.h"
#include "storage/core/limits.h"
#include "tests/node/api/api_fixture.h"

namespace chaptersync::node {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kNobody[] = "01890a5d-ac96-774b-bcce-b302099a8057";

class RecordsTest : public ::testing::Test {
 protected:
  static v1::Member Working(const std::string& employer) {
    v1::Member member;
    member.set_employer(employer);
    return member;
  }

  grpc::Status TryCreate(const google::protobuf::Message& entity, const std::string& noun,
                         const std::string& id = "", TestApi* api = nullptr) {
    grpc::ClientContext context;
    v1::CreateRecordRequest request;
    v1::CreateRecordResponse response;
    request.set_noun(noun);
    request.set_record_id(id);
    request.mutable_entity()->PackFrom(entity);
    return (api == nullptr ? api_ : *api).records().CreateRecord(&context, request, &response);
  }

  grpc::Status Delete(const std::string& name, v1::Record* record = nullptr) {
    grpc::ClientContext context;
    v1::DeleteRecordRequest request;
    v1::DeleteRecordResponse response;
    request.set_name(name);
    const grpc::Status status = api_.records().DeleteRecord(&context, request, &response);
    if (record != nullptr) *record = response.record();
    return status;
  }

  grpc::Status Undelete(const std::string& name, v1::Record* record = nullptr) {
    grpc::ClientContext context;
    v1::UndeleteRecordRequest request;
    v1::UndeleteRecordResponse response;
    request.set_name(name);
    const grpc::Status status = api_.records().UndeleteRecord(&context, request, &response);
    if (record != nullptr) *record = response.record();
    return status;
  }

  v1::BatchWriteRecordsResponse Batch(const v1::BatchWriteRecordsRequest& request) {
    grpc::ClientContext context;
    v1::BatchWriteRecordsResponse response;
    const grpc::Status status = api_.records().BatchWriteRecords(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }

  grpc::Status List(const v1::ListRecordsRequest& request, v1::ListRecordsResponse* response) {
    grpc::ClientContext context;
    response->Clear();
    return api_.records().ListRecords(&context, request, response);
  }

  // All pages; checks that no page is larger than asked.
  std::vector<std::string> ListAll(v1::ListRecordsRequest request) {
    std::vector<std::string> ids;
    v1::ListRecordsResponse response;
    do {
      const grpc::Status status = List(request, &response);
      EXPECT_TRUE(status.ok()) << status.error_message();
      EXPECT_TRUE(request.page_size() == 0 || response.records_size() <= request.page_size());
      for (const v1::Record& record : response.records()) ids.push_back(record.id());
      request.set_page_token(response.next_page_token());
    } while (!response.next_page_token().empty());
    return ids;
  }

  static v1::UpdateRecordRequest UpdateOf(const std::string& name,
                                          const google::protobuf::Message& entity,
                                          const std::vector<std::string>& mask = {}) {
    v1::UpdateRecordRequest request;
    request.set_name(name);
    request.mutable_entity()->PackFrom(entity);
    for (const std::string& path : mask) request.mutable_update_mask()->add_paths(path);
    return request;
  }

  TestApi api_;
};

TEST_F(RecordsTest, CreatesInTheNodesOwnChapterUnlessToldOtherwise) {
  const v1::Record made = api_.Create(Working("ENI"));
  EXPECT_EQ(made.noun(), "members");
  EXPECT_EQ(made.name(), "members/" + made.id());
  EXPECT_EQ(made.id()[14], '7');  // a UUID of version 7
  EXPECT_THAT(made.scopes(), ElementsAre("chapter/italy"));
  EXPECT_TRUE(made.has_update_time());
  v1::Member member;
  ASSERT_TRUE(made.entity().UnpackTo(&member));
  EXPECT_EQ(member.chapter(), "italy");
  EXPECT_EQ(member.employer(), "ENI");
  v1::Member elsewhere = Working("ENI");
  elsewhere.set_chapter("toronto");
  EXPECT_THAT(api_.Create(elsewhere).scopes(), ElementsAre("chapter/toronto"));
}

TEST_F(RecordsTest, AtHeadquartersNoChapterIsAdded) {
  TestApi hub(true);
  const v1::Record made = hub.Create(Working("ENI"));
  EXPECT_THAT(made.scopes(), ElementsAre("hq"));
  EXPECT_THAT(TryCreate(v1::Member(), "members", "", &hub).error_message(),
              HasSubstr("needs a value in one field at least"));
}

TEST_F(RecordsTest, TakesAnIdAndRefusesASecondRecordOfIt) {
  EXPECT_TRUE(TryCreate(Working("a"), "members", kNobody).ok());
  EXPECT_EQ(TryCreate(Working("a"), "members", kNobody).error_code(),
            grpc::StatusCode::ALREADY_EXISTS);
  const grpc::Status bad = TryCreate(Working("a"), "members", "01890A5D");
  EXPECT_EQ(bad.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(bad.error_message(), HasSubstr("'01890A5D' is not allowed (a UUID in lower case)"));
}

TEST_F(RecordsTest, ARecordWithANameHasItsIdFromTheName) {
  TestApi hub(true);
  v1::Chapter chapter;
  EXPECT_THAT(TryCreate(chapter, "chapters", "", &hub).error_message(),
              HasSubstr("field 'handle' is required"));
  chapter.set_handle("Italy");
  EXPECT_THAT(TryCreate(chapter, "chapters", "", &hub).error_message(),
              HasSubstr("field 'handle': value 'Italy' is not allowed (1 to 32"));
  chapter.set_handle("italy");
  EXPECT_THAT(TryCreate(chapter, "chapters", kNobody, &hub).error_message(),
              HasSubstr("names the record"));
  const v1::Record made = hub.Create(chapter, "chapters");
  EXPECT_EQ(made.id(), NamedId(*BuiltinEntities().FindByNoun("chapters"), "italy").ToString());
  EXPECT_THAT(made.scopes(), ElementsAre("global"));
  EXPECT_EQ(TryCreate(chapter, "chapters", "", &hub).error_code(),
            grpc::StatusCode::ALREADY_EXISTS);
  chapter.set_handle("rome");
  EXPECT_THAT(hub.Update(made.name(), chapter, {"handle"}).error_message(),
              HasSubstr("value 'rome' is not allowed in record"));
}

TEST_F(RecordsTest, RefusesWhatOnlyHeadquartersWrites) {
  v1::Member member;
  (*member.mutable_degrees())["first"].set_level("PhD");
  grpc::Status status = TryCreate(member, "members");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(status.error_message(),
            "field 'degrees.first' of members can be written at headquarters only; this is the "
            "replica of chapter italy");
  v1::Chapter chapter;
  chapter.set_handle("italy");
  status = TryCreate(chapter, "chapters");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_THAT(status.error_message(), HasSubstr("chapters can be written at headquarters only"));
}

TEST_F(RecordsTest, WritingBackWhatHeadquartersWroteIsNoWrite) {
  const std::string name = api_.Create(Working("ENI")).name();
  v1::Degree degree;
  degree.set_level("PhD");
  api_.Receive(TestApi::KeyOf(name), {{{2, "first"}, degree.SerializeAsString()}}, "hq staff");
  v1::Member member = api_.GetMember(name);
  EXPECT_EQ(member.degrees().at("first").level(), "PhD");
  EXPECT_TRUE(api_.Update(name, member, {}).ok());
  (*member.mutable_degrees())["first"].set_level("BSc");
  EXPECT_EQ(api_.Update(name, member, {}).error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(api_.Update(name, v1::Member(), {"degrees"}).error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
}

TEST_F(RecordsTest, RefusesEntitiesThatAreNotTheNouns) {
  grpc::Status status = TryCreate(v1::Event(), "members");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("chaptersync.v1.Event' is not allowed for members "
                                                "(chaptersync.v1.Member)"));
  status = TryCreate(v1::Member(), "people");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(status.error_message(), HasSubstr("there are members, events"));
  v1::Member unknown;
  unknown.GetReflection()->MutableUnknownFields(&unknown)->AddVarint(99, 1);
  EXPECT_THAT(TryCreate(unknown, "members").error_message(),
              HasSubstr("field 99 of chaptersync.v1.Member is not known"));
  v1::Member invalid;
  (*invalid.mutable_contacts())["home"].set_kind(v1::CONTACT_KIND_PHONE);
  (*invalid.mutable_contacts())["home"].set_value("055 1234567");
  EXPECT_THAT(TryCreate(invalid, "members").error_message(),
              HasSubstr("field 'contacts.home.value': value '055 1234567'"));
}

TEST_F(RecordsTest, AMaskIsExactlyWhatIsWritten) {
  v1::Member member = Working("ENI");
  member.set_job_title("engineer");
  member.set_notes("keep");
  const std::string name = api_.Create(member).name();
  v1::Member change = Working("Fiat");
  change.set_notes("not in the mask");
  v1::Record after;
  ASSERT_TRUE(api_.Update(name, change, {"employer", "job_title"}, &after).ok());
  v1::Member held;
  ASSERT_TRUE(after.entity().UnpackTo(&held));
  EXPECT_EQ(held.employer(), "Fiat");
  EXPECT_FALSE(held.has_job_title());
  EXPECT_EQ(held.notes(), "keep");
  EXPECT_EQ(held.chapter(), "italy");
  // Without a mask: what is set.
  ASSERT_TRUE(api_.Update(name, Working("ENI"), {}).ok());
  EXPECT_EQ(api_.GetMember(name).notes(), "keep");
  EXPECT_EQ(api_.GetMember(name).employer(), "ENI");
}

TEST_F(RecordsTest, AMaskReachesIntoAMapsValue) {
  v1::Member member;
  (*member.mutable_contacts())["home"].set_value("+391");
  (*member.mutable_contacts())["home"].set_label("office");
  (*member.mutable_contacts())["work"].set_value("+392");
  const std::string name = api_.Create(member).name();
  v1::Member change;
  (*change.mutable_contacts())["home"].set_value("+399");
  ASSERT_TRUE(api_.Update(name, change, {"contacts.home.value"}).ok());
  v1::Member held = api_.GetMember(name);
  EXPECT_EQ(held.contacts().at("home").value(), "+399");
  EXPECT_EQ(held.contacts().at("home").label(), "office");
  EXPECT_EQ(held.contacts().size(), 2u);
  ASSERT_TRUE(api_.Update(name, change, {"contacts.work"}).ok());
  held = api_.GetMember(name);
  EXPECT_EQ(held.contacts().size(), 1u);
  ASSERT_TRUE(api_.Update(name, v1::Member(), {"contacts"}).ok());
  EXPECT_EQ(api_.GetMember(name).contacts().size(), 0u);
  // The value is checked as it would be, not only what changes of it.
  (*change.mutable_contacts())["home"].set_kind(v1::CONTACT_KIND_PHONE);
  (*change.mutable_contacts())["home"].set_value("nonsense");
  ASSERT_TRUE(api_.Update(name, change, {"contacts.home.value"}).ok());
  EXPECT_THAT(api_.Update(name, change, {"contacts.home.kind"}).error_message(),
              HasSubstr("value 'nonsense' is not allowed"));
}

TEST_F(RecordsTest, TwoWhoChangeOneValueInPartsBothKeepTheirs) {
  const std::string name = api_.Create(Working("ENI")).name();
  constexpr int kRounds = 40;
  const auto change = [&](const char* path, auto set) {
    for (int i = 1; i <= kRounds; ++i) {
      v1::Member member;
      set((*member.mutable_contacts())["home"], absl::StrCat(i));
      EXPECT_TRUE(api_.Update(name, member, {path}).ok());
    }
  };
  std::thread other([&] {
    change("contacts.home.label",
           [](v1::Contact& contact, const std::string& text) { contact.set_label(text); });
  });
  change("contacts.home.value",
         [](v1::Contact& contact, const std::string& text) { contact.set_value(text); });
  other.join();
  const v1::Member held = api_.GetMember(name);
  EXPECT_EQ(held.contacts().at("home").label(), absl::StrCat(kRounds));
  EXPECT_EQ(held.contacts().at("home").value(), absl::StrCat(kRounds));
}

TEST_F(RecordsTest, UpdatesSayWhatIsWrong) {
  const std::string name = api_.Create(Working("ENI")).name();
  EXPECT_EQ(api_.Update(absl::StrCat("members/", kNobody), Working("x"), {}).error_code(),
            grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(api_.Update(absl::StrCat("members/", kNobody), Working("x"), {}).error_message(),
              HasSubstr(absl::StrCat("members/", kNobody)));
  EXPECT_EQ(api_.Update("members", Working("x"), {}).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(api_.Update("members/7", Working("x"), {}).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(api_.Update(name, Working("x"), {"telephone"}).error_message(),
              HasSubstr("field 'telephone' is not known"));
  const std::vector<std::string> many(4097, "employer");
  EXPECT_THAT(api_.Update(name, Working("x"), many).error_message(), HasSubstr("at most 4096"));
}

TEST_F(RecordsTest, AMaskNamesEveryCellThatARecordHolds) {
  // 1,000 paths were the most, so that a large record could not be written back.
  v1::Member member;
  v1::BatchWriteRecordsRequest request;
  v1::UpdateRecordRequest& upsert = *request.add_writes()->mutable_upsert();
  for (size_t i = 0; i < storage::kCellsMax; ++i) {
    const std::string key = absl::StrCat("c", i);
    (*member.mutable_contacts())[key].set_value(key);
    upsert.mutable_update_mask()->add_paths(
        absl::StrCat("contacts.", key, i % 2 == 0 ? "" : ".value"));
  }
  upsert.set_name(absl::StrCat("members/", kNobody));
  upsert.mutable_entity()->PackFrom(member);
  TestApi hub(true);
  grpc::ClientContext context;
  v1::BatchWriteRecordsResponse response;
  ASSERT_TRUE(hub.records().BatchWriteRecords(&context, request, &response).ok());
  EXPECT_EQ(response.results(0).outcome(), v1::WRITE_OUTCOME_CREATED)
      << response.results(0).message();
  EXPECT_EQ(hub.GetMember(upsert.name()).contacts().size(), storage::kCellsMax);
}

TEST_F(RecordsTest, DeletesAndRestores) {
  const std::string name = api_.Create(Working("ENI")).name();
  v1::Record record;
  ASSERT_TRUE(Delete(name, &record).ok());
  EXPECT_TRUE(record.deleted());
  EXPECT_EQ(api_.GetMember(name).employer(), "ENI") << "people see what they may restore";
  EXPECT_TRUE(Delete(name).ok()) << "may be repeated";
  EXPECT_TRUE(api_.Get(name).deleted());
  const grpc::Status update = api_.Update(name, Working("x"), {});
  EXPECT_EQ(update.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(update.error_message(), HasSubstr("is deleted"));
  ASSERT_TRUE(Undelete(name, &record).ok());
  EXPECT_FALSE(record.deleted());
  EXPECT_EQ(api_.GetMember(name).employer(), "ENI");
  EXPECT_TRUE(Undelete(name).ok()) << "may be repeated";
  EXPECT_EQ(Delete(absl::StrCat("members/", kNobody)).error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(RecordsTest, ErasesAtHeadquartersOnly) {
  const auto erase = [](TestApi& api, const std::string& name, v1::Record* record) {
    grpc::ClientContext context;
    v1::EraseRecordRequest request;
    v1::EraseRecordResponse response;
    request.set_name(name);
    const grpc::Status status = api.records().EraseRecord(&context, request, &response);
    *record = response.record();
    return status;
  };
  v1::Record record;
  EXPECT_EQ(erase(api_, api_.Create(Working("ENI")).name(), &record).error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
  TestApi hub(true);
  const std::string name = hub.Create(Working("ENI")).name();
  ASSERT_TRUE(erase(hub, name, &record).ok());
  EXPECT_TRUE(record.erased());
  EXPECT_FALSE(record.has_entity());
  EXPECT_TRUE(erase(hub, name, &record).ok()) << "may be repeated";
  EXPECT_TRUE(hub.Get(name).erased());
  EXPECT_EQ(hub.Update(name, Working("x"), {}).error_code(), grpc::StatusCode::FAILED_PRECONDITION);
}

TEST_F(RecordsTest, ABatchAnswersEachWriteByItself) {
  const std::string name = api_.Create(Working("ENI")).name();
  v1::BatchWriteRecordsRequest request;
  request.add_writes()->mutable_create()->set_noun("members");
  request.mutable_writes(0)->mutable_create()->set_record_id(kNobody);
  *request.add_writes()->mutable_update() = UpdateOf(name, Working("Fiat"));
  *request.add_writes()->mutable_update() = UpdateOf(name, Working("Fiat"));
  v1::Member invalid;
  invalid.set_chapter("No Chapter");
  *request.add_writes()->mutable_upsert() = UpdateOf(name, invalid);
  *request.add_writes()->mutable_upsert() =
      UpdateOf("members/01890a5d-ac96-774b-bcce-b302099a8058", Working("new"));
  request.add_writes();
  request.add_writes()->mutable_delete_()->set_name(name);
  *request.add_writes()->mutable_update() = UpdateOf(name, Working("late"));
  request.add_writes()->mutable_undelete()->set_name(name);
  request.mutable_writes(0)->mutable_create()->mutable_entity()->PackFrom(v1::Member());
  const v1::BatchWriteRecordsResponse response = Batch(request);
  ASSERT_EQ(response.results_size(), 9);
  const auto outcome = [&](int i) { return response.results(i).outcome(); };
  EXPECT_EQ(outcome(0), v1::WRITE_OUTCOME_CREATED);
  EXPECT_EQ(response.results(0).name(), absl::StrCat("members/", kNobody));
  EXPECT_EQ(outcome(1), v1::WRITE_OUTCOME_CHANGED);
  EXPECT_EQ(outcome(2), v1::WRITE_OUTCOME_SAME);
  EXPECT_EQ(response.results(3).code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(response.results(3).message(), HasSubstr("field 'chapter': value 'No Chapter'"));
  EXPECT_EQ(response.results(3).name(), name);
  EXPECT_EQ(outcome(3), v1::WRITE_OUTCOME_UNSPECIFIED);
  EXPECT_EQ(outcome(4), v1::WRITE_OUTCOME_CREATED);
  EXPECT_EQ(response.results(5).code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(outcome(6), v1::WRITE_OUTCOME_CHANGED);
  EXPECT_EQ(response.results(7).code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(outcome(8), v1::WRITE_OUTCOME_CHANGED);
  EXPECT_EQ(api_.GetMember(name).employer(), "Fiat");
  EXPECT_EQ(api_.GetMember("members/01890a5d-ac96-774b-bcce-b302099a8058").chapter(), "italy");
}

TEST_F(RecordsTest, WritesOfABatchSeeThoseBeforeThem) {
  const std::string name = absl::StrCat("members/", kNobody);
  v1::Member first;
  (*first.mutable_contacts())["home"].set_value("+391");
  v1::Member second;
  (*second.mutable_contacts())["home"].set_label("office");
  v1::Member third;
  (*third.mutable_contacts())["work"].set_value("+392");
  v1::BatchWriteRecordsRequest request;
  *request.add_writes()->mutable_upsert() = UpdateOf(name, first);
  *request.add_writes()->mutable_update() = UpdateOf(name, second, {"contacts.home.label"});
  auto response = Batch(request);
  EXPECT_EQ(response.results(0).outcome(), v1::WRITE_OUTCOME_CREATED);
  EXPECT_EQ(response.results(1).outcome(), v1::WRITE_OUTCOME_CHANGED);
  v1::Member held = api_.GetMember(name);
  EXPECT_EQ(held.contacts().at("home").value(), "+391");
  EXPECT_EQ(held.contacts().at("home").label(), "office");
  // A whole map replaces what an earlier write of the batch put there.
  request.Clear();
  *request.add_writes()->mutable_update() = UpdateOf(name, third);
  *request.add_writes()->mutable_update() = UpdateOf(name, first, {"contacts"});
  response = Batch(request);
  EXPECT_EQ(response.results(1).code(), 0);
  held = api_.GetMember(name);
  EXPECT_EQ(held.contacts().size(), 1u);
  EXPECT_FALSE(held.contacts().at("home").has_label());
}

TEST_F(RecordsTest, AWriteIsNotMadeFromOneThatTheReplicaRefused) {
  // The second write would go on top of the first, which is over the record's limit.
  const std::string name = api_.Create(Working("ENI")).name();
  v1::Member large;
  large.set_photo(std::string(500'000, 'x'));
  ASSERT_TRUE(api_.Update(name, large, {}).ok());
  v1::Member too_large;
  for (int i = 0; i < 200; ++i) {
    (*too_large.mutable_names())[absl::StrCat("n", i)].set_full(std::string(512, 'y'));
    (*too_large.mutable_affiliations())[absl::StrCat("a", i)].set_role(std::string(4000, 'y'));
  }
  v1::Member label;
  (*label.mutable_names())["n1"].set_display("Anna");
  v1::BatchWriteRecordsRequest request;
  *request.add_writes()->mutable_update() = UpdateOf(name, too_large);
  *request.add_writes()->mutable_update() = UpdateOf(name, label, {"names.n1.display"});
  const auto response = Batch(request);
  EXPECT_EQ(response.results(0).code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(response.results(1).outcome(), v1::WRITE_OUTCOME_CHANGED);
  const v1::Member held = api_.GetMember(name);
  EXPECT_EQ(held.names().at("n1").display(), "Anna");
  EXPECT_FALSE(held.names().at("n1").has_full());
}

TEST_F(RecordsTest, ADryRunSaysWhatWouldComeOfItAndKeepsNothing) {
  const std::string name = api_.Create(Working("ENI")).name();
  v1::BatchWriteRecordsRequest request;
  request.set_dry_run(true);
  *request.add_writes()->mutable_update() = UpdateOf(name, Working("Fiat"));
  *request.add_writes()->mutable_upsert() =
      UpdateOf(absl::StrCat("members/", kNobody), Working("new"));
  *request.add_writes()->mutable_upsert() =
      UpdateOf(absl::StrCat("members/", kNobody), Working("new"));
  const auto response = Batch(request);
  EXPECT_EQ(response.results(0).outcome(), v1::WRITE_OUTCOME_CHANGED);
  EXPECT_EQ(response.results(1).outcome(), v1::WRITE_OUTCOME_CREATED);
  EXPECT_EQ(response.results(2).outcome(), v1::WRITE_OUTCOME_SAME);
  EXPECT_EQ(api_.GetMember(name).employer(), "ENI");
  EXPECT_EQ(ListAll([] {
              v1::ListRecordsRequest all;
              all.set_noun("members");
              return all;
            }())
                .size(),
            1u);
}

TEST_F(RecordsTest, ABatchHasALimit) {
  grpc::ClientContext none;
  v1::BatchWriteRecordsResponse response;
  v1::BatchWriteRecordsRequest request;
  EXPECT_THAT(api_.records().BatchWriteRecords(&none, request, &response).error_message(),
              HasSubstr("a batch of 0 writes is not allowed (1 to 1000)"));
  for (int i = 0; i < 1001; ++i) request.add_writes();
  grpc::ClientContext many;
  EXPECT_THAT(api_.records().BatchWriteRecords(&many, request, &response).error_message(),
              HasSubstr("1001"));
}

class ListTest : public RecordsTest {
 protected:
  void SetUp() override {
    v1::BatchWriteRecordsRequest request;
    for (int i = 0; i < 250; ++i) {
      v1::Member member = Working(absl::StrCat("Company ", i % 10));
      (*member.mutable_names())["legal"].set_full(absl::StrCat("Ann", i));
      member.set_status(i % 2 == 0 ? v1::MEMBER_STATUS_ACTIVE : v1::MEMBER_STATUS_LOST);
      auto& create = *request.add_writes()->mutable_create();
      create.set_noun("members");
      create.mutable_entity()->PackFrom(member);
    }
    const v1::BatchWriteRecordsResponse response = Batch(request);
    for (const auto& result : response.results()) {
      ASSERT_EQ(result.code(), 0) << result.message();
      names_.push_back(result.name());
    }
    request_.set_noun("members");
  }

  std::vector<std::string> names_;
  v1::ListRecordsRequest request_;
};

TEST_F(ListTest, GoesThroughAllInTheOrderOfIdsPageByPage) {
  for (const int page_size : {0, 1, 7, 64, 250, 1000}) {
    request_.set_page_size(page_size);
    const std::vector<std::string> ids = ListAll(request_);
    EXPECT_EQ(ids.size(), 250u) << page_size;
    EXPECT_TRUE(std::is_sorted(ids.begin(), ids.end()));
    EXPECT_EQ(std::set<std::string>(ids.begin(), ids.end()).size(), 250u);
  }
}

TEST_F(ListTest, PagesStayTrueWhileRecordsComeAndGo) {
  request_.set_page_size(100);
  v1::ListRecordsResponse response;
  ASSERT_TRUE(List(request_, &response).ok());
  std::set<std::string> seen;
  for (const auto& record : response.records()) seen.insert(record.id());
  // One that was shown goes, and a new one comes before the position.
  ASSERT_TRUE(Delete(response.records(50).name()).ok());
  ASSERT_TRUE(TryCreate(Working("x"), "members", "00000000-0000-7000-8000-000000000000").ok());
  request_.set_page_token(response.next_page_token());
  for (const std::string& id : ListAll(request_)) EXPECT_TRUE(seen.insert(id).second) << id;
  EXPECT_EQ(seen.size(), 250u);
}

TEST_F(ListTest, FiltersByValues) {
  auto& where = *request_.add_where();
  where.set_field("employer");
  where.set_value("Company 3");
  EXPECT_EQ(ListAll(request_).size(), 25u);
  auto& second = *request_.add_where();
  second.set_field("status");
  second.set_value("active");
  EXPECT_EQ(ListAll(request_).size(), 0u);
  second.set_value("LOST");
  EXPECT_EQ(ListAll(request_).size(), 25u);
  second.set_field("names.legal.full");
  second.set_value("Ann13");
  EXPECT_EQ(ListAll(request_).size(), 1u);
  second.set_field("job_title");
  second.set_value("");
  EXPECT_EQ(ListAll(request_).size(), 25u);
}

TEST_F(ListTest, SearchesTextsWhateverTheirCase) {
  request_.set_search("aNN24");
  EXPECT_EQ(ListAll(request_).size(), 11u);  // 24 and 240 to 249
  request_.set_search("company 7");
  EXPECT_EQ(ListAll(request_).size(), 25u);
  request_.set_search("italy");  // the chapter is not searched
  EXPECT_EQ(ListAll(request_).size(), 0u);
  request_.set_search("legal");  // nor are the officer's own keys
  EXPECT_EQ(ListAll(request_).size(), 0u);
}

TEST_F(ListTest, ShowsDeletedOnesOnlyWhenAsked) {
  ASSERT_TRUE(Delete(names_[3]).ok());
  EXPECT_EQ(ListAll(request_).size(), 249u);
  request_.set_show_deleted(true);
  EXPECT_EQ(ListAll(request_).size(), 250u);
}

TEST_F(ListTest, ATokenBelongsToItsList) {
  request_.set_page_size(10);
  v1::ListRecordsResponse response;
  ASSERT_TRUE(List(request_, &response).ok());
  request_.set_page_token(response.next_page_token());
  request_.set_page_size(20);
  EXPECT_TRUE(List(request_, &response).ok()) << "another size is no other list";
  request_.set_search("x");
  EXPECT_THAT(List(request_, &response).error_message(), HasSubstr("other fields"));
  request_.set_page_token("garbage!");
  EXPECT_EQ(List(request_, &response).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(ListTest, SaysWhatIsWrong) {
  v1::ListRecordsResponse response;
  request_.set_page_size(1001);
  EXPECT_THAT(List(request_, &response).error_message(), HasSubstr("page size 1001"));
  request_.set_page_size(0);
  request_.add_where()->set_field("salary");
  EXPECT_THAT(List(request_, &response).error_message(), HasSubstr("field 'salary' is not known"));
  request_.mutable_where(0)->set_field("status");
  request_.mutable_where(0)->set_value("happy");
  EXPECT_THAT(List(request_, &response).error_message(),
              HasSubstr("field 'status': value 'happy' is not allowed (one of"));
}

TEST_F(ListTest, APageIsNoLargerThanAClientTakes) {
  v1::Member photo;
  photo.set_photo(std::string(500'000, 'x'));
  for (int i = 0; i < 12; ++i)
    ASSERT_TRUE(api_.Update(names_[static_cast<size_t>(i)], photo, {}).ok());
  EXPECT_EQ(ListAll(request_).size(), 250u);
}

TEST_F(ListTest, AFilteredListLooksAtSoManyAtATime) {
  for (int batch = 0; batch < 3; ++batch) {
    v1::BatchWriteRecordsRequest request;
    for (int i = 0; i < 1000; ++i) {
      auto& create = *request.add_writes()->mutable_create();
      create.set_noun("members");
      create.mutable_entity()->PackFrom(Working("crowd"));
    }
    Batch(request);
  }
  request_.set_search("no such text");
  v1::ListRecordsResponse response;
  ASSERT_TRUE(List(request_, &response).ok());
  EXPECT_EQ(response.records_size(), 0);
  EXPECT_FALSE(response.next_page_token().empty()) << "more to come";
  EXPECT_EQ(ListAll(request_).size(), 0u);
}

TEST_F(ListTest, ARecordThatDoesNotParseHidesNoOther) {
  api_.Receive(TestApi::KeyOf(names_[5]), {{{11, std::nullopt}, "\x5a\x01\xff"}}, "broken");
  EXPECT_EQ(ListAll(request_).size(), 250u);
  grpc::ClientContext context;
  v1::GetRecordRequest get;
  v1::GetRecordResponse got;
  get.set_name(names_[5]);
  const grpc::Status status = api_.records().GetRecord(&context, get, &got);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DATA_LOSS);
  EXPECT_THAT(status.error_message(), HasSubstr("field 'notes'"));
  v1::Member mended;
  mended.set_notes("mended");
  EXPECT_TRUE(api_.Update(names_[5], mended, {"notes"}).ok());
  EXPECT_EQ(api_.GetMember(names_[5]).notes(), "mended");
}

TEST_F(RecordsTest, KeepsWhatANewerSchemaWrote) {
  const std::string name = api_.Create(Working("ENI")).name();
  api_.Receive(TestApi::KeyOf(name), {{{99, std::nullopt}, "\x98\x06\x07"}}, "newer");
  ASSERT_TRUE(api_.Update(name, Working("Fiat"), {"employer"}).ok());
  const v1::Member held = api_.GetMember(name);
  const auto& unknown = held.GetReflection()->GetUnknownFields(held);
  ASSERT_EQ(unknown.field_count(), 1);
  EXPECT_EQ(unknown.field(0).varint(), 7u);
}

TEST_F(RecordsTest, Explains) {
  const std::string name = api_.Create(Working("ENI")).name();
  api_.Receive(TestApi::KeyOf(name),
               {{{7, std::nullopt},
                 "\x3a\x04"
                 "Fiat"}},
               "bob@toronto");
  grpc::ClientContext context;
  v1::ExplainRecordRequest request;
  v1::ExplainRecordResponse response;
  request.set_name(name);
  ASSERT_TRUE(api_.records().ExplainRecord(&context, request, &response).ok());
  ASSERT_EQ(response.fields_size(), 2);
  EXPECT_EQ(response.fields(0).field(), "chapter");
  EXPECT_EQ(response.fields(0).write().chapter(), "italy");
  EXPECT_EQ(response.fields(0).write().replica(),
            storage::ToHex(api_.replica().replica_id().value));
  const v1::FieldExplanation& employer = response.fields(1);
  EXPECT_EQ(employer.field(), "employer");
  EXPECT_EQ(employer.value().string_value(), "Fiat");
  EXPECT_EQ(employer.write().actor(), "bob");
  EXPECT_EQ(employer.write().chapter(), "toronto");
  ASSERT_EQ(employer.beat_size(), 1);
  EXPECT_EQ(employer.beat(0).value().string_value(), "ENI");
  EXPECT_EQ(employer.beat(0).write().chapter(), "italy");
  grpc::ClientContext one;
  request.set_field("employer");
  ASSERT_TRUE(api_.records().ExplainRecord(&one, request, &response).ok());
  EXPECT_EQ(response.fields_size(), 1);
  grpc::ClientContext wrong;
  request.set_field("salary");
  EXPECT_EQ(api_.records().ExplainRecord(&wrong, request, &response).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(RecordsTest, ResolvesBeginningsAndNames) {
  ASSERT_TRUE(TryCreate(Working("a"), "members", "01890a5d-ac96-774b-bcce-b302099a8057").ok());
  ASSERT_TRUE(TryCreate(Working("b"), "members", "01890a5d-ac96-774b-bcce-b302099a8058").ok());
  ASSERT_TRUE(TryCreate(Working("c"), "members", "11890a5d-ac96-774b-bcce-b302099a8058").ok());
  const auto resolve = [](TestApi& api, const std::string& noun, const std::string& prefix,
                          grpc::Status* status = nullptr) {
    grpc::ClientContext context;
    v1::ResolveRecordRequest request;
    v1::ResolveRecordResponse response;
    request.set_noun(noun);
    request.set_prefix(prefix);
    const grpc::Status got = api.records().ResolveRecord(&context, request, &response);
    if (status != nullptr) *status = got;
    return std::vector<std::string>(response.ids().begin(), response.ids().end());
  };
  EXPECT_EQ(resolve(api_, "members", "0").size(), 2u);
  EXPECT_EQ(resolve(api_, "members", "01890A5DAC").size(), 2u);
  EXPECT_EQ(resolve(api_, "members", "01890a5d-ac96-774b-bcce-b302099a8057").size(), 1u);
  EXPECT_EQ(resolve(api_, "members", "01890a5dac96774bbcceb302099a805").size(), 2u);
  EXPECT_THAT(resolve(api_, "members", "1"), ElementsAre("11890a5d-ac96-774b-bcce-b302099a8058"));
  EXPECT_TRUE(resolve(api_, "members", "ff").empty());
  grpc::Status status;
  resolve(api_, "members", "Anna", &status);
  EXPECT_THAT(status.error_message(), HasSubstr("'Anna' is not allowed (1 to 32 hexadecimal"));
  resolve(api_, "members", "", &status);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  TestApi hub(true);
  v1::Chapter chapter;
  chapter.set_handle("italy");
  const v1::Record made = hub.Create(chapter, "chapters");
  EXPECT_THAT(resolve(hub, "chapters", "italy"), ElementsAre(made.id()));
  EXPECT_THAT(resolve(hub, "chapters", made.id().substr(0, 6)), ElementsAre(made.id()));
  EXPECT_TRUE(resolve(hub, "chapters", "toronto", &status).empty());
  EXPECT_TRUE(status.ok());
}

TEST_F(RecordsTest, GetSaysWhatIsNotThere) {
  grpc::ClientContext context;
  v1::GetRecordRequest request;
  v1::GetRecordResponse response;
  request.set_name(absl::StrCat("members/", kNobody));
  const grpc::Status status = api_.records().GetRecord(&context, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(status.error_message(), absl::StrCat("there is no record members/", kNobody));
}

}  // namespace
}  // namespace chaptersync::node
