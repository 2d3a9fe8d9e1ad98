// SPDX-License-Identifier: Apache-2.0
//
// Whole commands, from words to output and exit code, against a fake daemon in
// the same process.
#include "tools/chapterctl/command_line.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "chaptersync/v1/chapter.pb.h"
#include "chaptersync/v1/event.pb.h"
#include "chaptersync/v1/member.pb.h"
#include "node/entity/ids.h"
#include "tests/tools/chapterctl/fake_daemon.h"
#include "tools/chapterctl/importer.h"

namespace chaptersync::ctl {
namespace {

using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr char kIdA[] = "aaaaaaaa-0000-7000-8000-000000000001";
constexpr char kIdB[] = "aaaabbbb-0000-7000-8000-000000000002";

class CommandLineTest : public testing::Test {
 protected:
  CommandLineTest() {
    for (const char* name : {"CHAPTER_DATA", "CHAPTER_OUTPUT", "CHAPTER_ACTOR", "CHAPTER_QUIET",
                             "CHAPTER_YES", "CHAPTER_CONFIG"}) {
      unsetenv(name);
    }
    folder_ = testing::TempDir() + "chapterctl_" + std::to_string(getpid());
    std::filesystem::create_directories(folder_);
  }
  ~CommandLineTest() override {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

  // Runs a command against the fake daemon.
  int Run(std::vector<std::string> words, const std::string& input = "") {
    words.insert(words.begin(), {"--data", "replica"});
    return RunAsGiven(words, input);
  }
  int RunAsGiven(const std::vector<std::string>& words, const std::string& input = "") {
    std::istringstream in(input);
    return RunFrom(in, words);
  }
  int RunFrom(std::istream& in, const std::vector<std::string>& words) {
    std::ostringstream out;
    std::ostringstream err;
    Terminal terminal{.in = in, .out = out, .err = err};
    terminal.in_terminal = terminal.err_terminal = at_terminal_;
    const int exit =
        RunCommandLine(words, terminal,
                       [this](const std::string& data,
                              const std::string& actor) -> absl::StatusOr<std::unique_ptr<Client>> {
                         return std::make_unique<Client>(daemon_.channel(), data, actor);
                       });
    out_ = out.str();
    err_ = err.str();
    return exit;
  }

  std::string File(const std::string& name, const std::string& content) {
    const std::string path = absl::StrCat(folder_, "/", name);
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }

  void AddMember(const std::string& id, const std::string& employer) {
    v1::Member member;
    member.set_employer(employer);
    (*member.mutable_names())["legal"].set_full("Name of " + employer);
    v1::Record record;
    record.set_name("members/" + id);
    record.set_noun("members");
    record.set_id(id);
    record.mutable_entity()->PackFrom(member);
    daemon_.records.records[record.name()] = record;
  }

  void AddApproval(uint64_t number, const std::string& from) {
    v1::Approval& approval = daemon_.approvals.waiting[number];
    approval.set_number(number);
    approval.set_noun("members");
    approval.set_record(kIdA);
    approval.set_from(from);
    approval.set_reason("it was erased");
    approval.mutable_since()->set_seconds(1'750'000'000);
    approval.add_fields("employer");
    approval.add_fields("notes");
  }

  FakeDaemon daemon_;
  bool at_terminal_ = false;
  std::string folder_;
  std::string out_;
  std::string err_;
};

TEST_F(CommandLineTest, WrongWordsAreOneLineAndExit2) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"frobnicate"}, "chapterctl: unknown command 'frobnicate'"},
      {{"approvals"}, "chapterctl: approvals: which command?"},
      {{"approvals", "settle"}, "chapterctl: unknown command 'approvals settle'"},
      {{"approvals", "approve"}, "chapterctl: approvals approve: N"},
      {{"approvals", "approve", "0"}, "chapterctl: approvals approve: N"},
      {{"approvals", "reject", "1", "two"}, "chapterctl: approvals reject: N"},
      {{"approvals", "reject"}, "chapterctl: approvals reject: numbers, or --from CHAPTER/NAME"},
      {{"approvals", "reject", "1", "--from", "italy/desk"},
       "chapterctl: approvals reject: numbers, or --from CHAPTER/NAME"},
      {{"members", "frobnicate"}, "chapterctl: unknown command 'members frobnicate'"},
      {{"unicorns", "list"}, "chapterctl: unknown command 'unicorns'"},
      {{}, "chapterctl: which command?"},
      {{"members"}, "chapterctl: members: which command?"},
      {{"members", "list", "--colour", "x"}, "chapterctl: unknown option --colour"},
      {{"members", "list", "x"}, "chapterctl: unexpected word 'x' after members list"},
      {{"members", "list", "--limit", "many"}, "chapterctl: members list: --limit"},
      {{"members", "list", "--limit", "-1"}, "chapterctl: members list: --limit"},
      {{"members", "list", "--where", "employer"}, "chapterctl: 'employer' is not FIELD=VALUE"},
      {{"members", "get"}, "chapterctl: members get: ID"},
      {{"members", "set", kIdA}, "chapterctl: members set: FIELD=VALUE"},
      {{"members", "set", kIdA, "=x"}, "chapterctl: '=x' is not FIELD=VALUE"},
      {{"refused", "show", "-1"}, "chapterctl: refused show: N"},
      {{"refused", "show", "x"}, "chapterctl: "},
      {{"sync", "now", "--timeout", "soon"}, "chapterctl: 'soon' is no length of time"},
      {{"sync", "now", "--timeout", "30"}, "chapterctl: '30' is no length of time"},
      {{"conflicts", "list", "--state", "odd"}, "chapterctl: conflicts list: --state"},
      {{"conflicts", "settle", "abcd"}, "chapterctl: conflicts settle needs one of"},
      {{"conflicts", "settle", "abcd", "--keep", "--take"}, "chapterctl: conflicts settle needs"},
      {{"members", "export", "--format", "vcard"}, "chapterctl: members export: --format"},
      {{"watch", "unicorns"}, "chapterctl: noun 'unicorns' is not known"},
      // Of two values of a field the last was kept without a word.
      {{"members", "create", "employer=a", "employer=b"},
       "chapterctl: field 'employer' is given twice (once is allowed)"},
      {{"members", "create", "id=a", "id=b"}, "chapterctl: 'id' is given twice"},
      {{"members", "set", kIdA, "names.a.full=1", "names.a={}"},
       "chapterctl: field 'names.a' is given twice, also by 'names.a.full'"},
      {{"members", "set", kIdA, "names={}", "names.a.full=1"},
       "chapterctl: field 'names.a.full' is given twice, also by 'names'"},
      {{"members", "import", "a.csv", "--map", "A=employer", "--map", "A=notes"},
       "chapterctl: --map gives column 'A' twice (once is allowed)"},
  };
  for (const auto& [words, message] : cases) {
    EXPECT_EQ(Run(words), 2) << message;
    EXPECT_THAT(err_, StartsWith(message));
    EXPECT_EQ(err_.find('\n'), err_.size() - 1) << err_;
    EXPECT_EQ(out_, "") << message;
  }
}

TEST_F(CommandLineTest, ErrorsAreJsonWhereTheOutputIs) {
  EXPECT_EQ(Run({"--output", "json", "members", "get", kIdA}), 3);
  EXPECT_THAT(err_, StartsWith("{\"error\":{\"code\":\"NOT_FOUND\",\"message\":"));
  EXPECT_EQ(Run({"members", "frobnicate", "--output", "json"}), 2);
  EXPECT_THAT(err_, StartsWith("{\"error\":{\"code\":\"INVALID_ARGUMENT\",\"message\":"));
}

TEST_F(CommandLineTest, HelpIsNoError) {
  EXPECT_EQ(RunAsGiven({"--help"}), 0);
  EXPECT_THAT(out_, HasSubstr("members"));
  EXPECT_EQ(RunAsGiven({"members", "set", "--help"}), 0);
  EXPECT_THAT(out_, HasSubstr("FIELD=VALUE"));
}

TEST_F(CommandLineTest, TheFolderComesFromTheEnvironmentOrAFileToo) {
  EXPECT_EQ(RunAsGiven({"members", "list"}), 2);
  EXPECT_THAT(err_, HasSubstr("CHAPTER_DATA"));
  setenv("CHAPTER_DATA", "replica", 1);
  EXPECT_EQ(RunAsGiven({"members", "list"}), 0);
  unsetenv("CHAPTER_DATA");
  const std::string config = File("ctl.toml", "data = \"replica\"\noutput = \"json\"\n");
  AddMember(kIdA, "Globex");
  EXPECT_EQ(RunAsGiven({"--config", config, "members", "list"}), 0) << err_;
  EXPECT_THAT(out_, StartsWith("{\"id\":"));
  setenv("CHAPTER_CONFIG", config.c_str(), 1);
  EXPECT_EQ(RunAsGiven({"members", "list"}), 0) << err_;
  EXPECT_THAT(out_, StartsWith("{\"id\":"));
  setenv("CHAPTER_CONFIG", "nowhere.toml", 1);
  EXPECT_EQ(RunAsGiven({"members", "list"}), 2);
  unsetenv("CHAPTER_CONFIG");
  EXPECT_EQ(RunAsGiven({"--config", File("odd.toml", "dta = \"x\"\n"), "members", "list"}), 2);
}

TEST_F(CommandLineTest, NoDaemonIsExit5AndSaysWhatToDo) {
  const auto unreachable = [this](const std::string& data) {
    std::istringstream in;
    std::ostringstream out;
    std::ostringstream err;
    Terminal terminal{.in = in, .out = out, .err = err};
    const int exit = RunCommandLine({"--data", data, "status"}, terminal);
    err_ = err.str();
    return exit;
  };
  EXPECT_EQ(unreachable(folder_), 5);
  EXPECT_EQ(err_, absl::StrCat("chapterctl: no daemon serves ", folder_,
                               ": start chapter-node serve or chapter-hub serve\n"));
  EXPECT_EQ(unreachable(folder_ + "/nowhere"), 5);
  EXPECT_THAT(err_, HasSubstr("no data folder"));
  // A daemon that was killed leaves its endpoints behind.
  File("endpoints.json", absl::StrCat("{\"socket\": \"", folder_, "/socket\"}"));
  EXPECT_EQ(unreachable(folder_), 5);
  EXPECT_THAT(err_, HasSubstr("no daemon serves"));
  for (const char* damaged : {"", "[]", "{}", "{\"socket\": 5}"}) {
    File("endpoints.json", damaged);
    EXPECT_EQ(unreachable(folder_), 5) << damaged;
    EXPECT_THAT(err_, HasSubstr("names no socket")) << damaged;
  }
}

TEST_F(CommandLineTest, ListTurnsPagesUpToTheLimit) {
  for (int i = 1; i <= 5; ++i) {
    AddMember(absl::StrCat("aaaaaaaa-0000-7000-8000-00000000000", i), absl::StrCat("E", i));
  }
  EXPECT_EQ(Run({"--output", "json", "members", "list"}), 0);
  EXPECT_EQ(std::count(out_.begin(), out_.end(), '\n'), 5);
  EXPECT_EQ(Run({"--output", "json", "members", "list", "--limit", "3"}), 0);
  EXPECT_EQ(std::count(out_.begin(), out_.end(), '\n'), 3);
  EXPECT_EQ(Run({"members", "list", "--limit", "1", "--output", "csv"}), 0);
  EXPECT_EQ(out_, absl::StrCat("id,names,chapter,employer,job_title,contacts\n", kIdA,
                               ",\"{\"\"legal\"\":{\"\"full\"\":\"\"Name of E1\"\"}}\",,E1,,\n"));
  EXPECT_EQ(Run({"member", "list", "--limit", "1"}), 0);
  EXPECT_THAT(out_, HasSubstr("legal: Name of E1"));
}

TEST_F(CommandLineTest, ABeginningOfAnIdIsEnoughWhereItIsUnambiguous) {
  AddMember(kIdA, "A");
  AddMember(kIdB, "B");
  EXPECT_EQ(Run({"--output", "json", "members", "get", "aaaab"}), 0);
  EXPECT_THAT(out_, HasSubstr(kIdB));
  EXPECT_EQ(Run({"members", "get", "aaaa"}), 4);
  EXPECT_EQ(err_, absl::StrCat("chapterctl: 'aaaa' fits several members: ", kIdA, ", ", kIdB,
                               "; give more digits\n"));
  EXPECT_EQ(Run({"members", "get", "cc"}), 3);
  EXPECT_EQ(Run({"members", "get", "zzz"}), 3);
  EXPECT_EQ(Run({"members", "get", "AAAAAAAA-0000-7000-8000-000000000001"}), 0);
}

TEST_F(CommandLineTest, WritesNameTheActorAndExactlyTheirFields) {
  AddMember(kIdA, "A");
  EXPECT_EQ(Run({"--actor", "ann", "members", "set", kIdA, "employer=", "contacts.home.value=1=2",
                 "contacts.work={\"label\":\"x\"}"}),
            0)
      << err_;
  EXPECT_EQ(out_, absl::StrCat("changed members/", kIdA, "\n"));
  ASSERT_EQ(daemon_.records.writes.size(), 1U);
  const v1::UpdateRecordRequest& set = daemon_.records.writes[0].update();
  EXPECT_THAT(set.update_mask().paths(),
              ElementsAre("employer", "contacts.home.value", "contacts.work"));
  v1::Member member;
  ASSERT_TRUE(set.entity().UnpackTo(&member));
  EXPECT_TRUE(member.has_employer());
  EXPECT_EQ(member.contacts().at("home").value(), "1=2");
  EXPECT_EQ(member.contacts().at("work").label(), "x");
  EXPECT_EQ(daemon_.records.actors.back(), "ann");

  EXPECT_EQ(Run({"--quiet", "members", "clear", kIdA, "employer", "contacts.home"}), 0);
  EXPECT_EQ(out_, "");
  const v1::UpdateRecordRequest& clear = daemon_.records.writes[1].update();
  EXPECT_THAT(clear.update_mask().paths(), ElementsAre("employer", "contacts.home"));
  EXPECT_EQ(clear.entity().value(), "");
  EXPECT_EQ(daemon_.records.actors.back(), OsUser());
  EXPECT_EQ(Run({"--actor", "a\nb", "members", "clear", kIdA, "employer"}), 2);
}

TEST_F(CommandLineTest, PartsOfOneEntryAreNoRepetition) {
  AddMember(kIdA, "A");
  EXPECT_EQ(Run({"members", "set", kIdA, "names.a.full=1", "names.a.display=2", "names.b.full=3",
                 "contacts.a.value=4"}),
            0)
      << err_;
  EXPECT_EQ(Run({"members", "clear", kIdA, "employer", "employer"}), 0) << err_;
}

TEST_F(CommandLineTest, AQuietCreateSaysTheId) {
  // A script could not learn which record it made.
  EXPECT_EQ(Run({"--quiet", "members", "create", "employer=A"}), 0) << err_;
  EXPECT_EQ(out_, "00000000-0000-7000-8000-000000000001\n");
}

TEST_F(CommandLineTest, UnknownFieldsAndValuesAreRefused) {
  AddMember(kIdA, "A");
  EXPECT_EQ(Run({"members", "set", kIdA, "colour=blue"}), 4);
  EXPECT_THAT(err_, HasSubstr("colour"));
  EXPECT_EQ(Run({"members", "set", kIdA, "status=happy"}), 4);
  EXPECT_THAT(err_, HasSubstr("MEMBER_STATUS_LOST"));
  EXPECT_EQ(Run({"members", "set", kIdA, "employer=\xff"}), 4);
  EXPECT_EQ(Run({"members", "clear", kIdA, "colour"}), 4);
  EXPECT_TRUE(daemon_.records.writes.empty());
}

TEST_F(CommandLineTest, ChaptersAddIsTheEntitysCreate) {
  EXPECT_EQ(Run({"chapters", "add", "italy", "--name", "Italy Chapter", "--country", "IT"}), 0);
  ASSERT_EQ(daemon_.records.writes.size(), 1U);
  const v1::CreateRecordRequest& create = daemon_.records.writes[0].create();
  v1::Chapter chapter;
  ASSERT_TRUE(create.entity().UnpackTo(&chapter));
  EXPECT_EQ(create.noun(), "chapters");
  EXPECT_EQ(chapter.handle(), "italy");
  EXPECT_EQ(chapter.names().at("en").text(), "Italy Chapter");
  EXPECT_EQ(chapter.country(), "IT");
  EXPECT_EQ(Run({"chapters", "add", "italy", "--name", "x", "--country", "IT"}), 4);
}

TEST_F(CommandLineTest, EraseAsks) {
  AddMember(kIdA, "A");
  const std::string name = absl::StrCat("members/", kIdA);
  EXPECT_EQ(Run({"members", "erase", kIdA}), 2);
  EXPECT_THAT(err_, HasSubstr("--yes"));
  at_terminal_ = true;
  EXPECT_EQ(Run({"members", "erase", kIdA}, "no\n"), 1);
  EXPECT_EQ(Run({"members", "erase", kIdA}, ""), 1);
  EXPECT_FALSE(daemon_.records.records[name].erased());
  EXPECT_EQ(Run({"members", "erase", kIdA}, "yes\n"), 0);
  EXPECT_TRUE(daemon_.records.records[name].erased());
  at_terminal_ = false;
  EXPECT_EQ(Run({"members", "erase", kIdA, "--yes", "--output", "json"}), 0);
  EXPECT_THAT(out_, HasSubstr("\"erased\":true"));
}

TEST_F(CommandLineTest, RevokingAChapterAsks) {
  // One word too few, and all computers of a chapter were out.
  EXPECT_EQ(Run({"chapters", "revoke", "italy"}), 2);
  EXPECT_THAT(err_, HasSubstr("chapters revoke needs --yes"));
  at_terminal_ = true;
  EXPECT_EQ(Run({"chapters", "revoke", "italy"}, "y\n"), 1);
  EXPECT_THAT(err_, HasSubstr("chapter italy"));
  EXPECT_TRUE(daemon_.admin.revoked_chapters.empty());
  EXPECT_EQ(Run({"chapters", "revoke", "italy", "--actor", "ann"}, "yes\n"), 0);
  EXPECT_THAT(daemon_.admin.revoked_chapters, ElementsAre("italy"));
  EXPECT_THAT(daemon_.admin.actors, ElementsAre("ann"));
  at_terminal_ = false;
  EXPECT_EQ(Run({"chapters", "revoke", "italy", "--yes"}), 0);
}

TEST_F(CommandLineTest, AnInvitationIsForAProgramAndALineBesideItForAPerson) {
  EXPECT_EQ(Run({"chapters", "invite", "italy"}), 0);
  EXPECT_EQ(out_, "{\"code\": \"c0de\", \"expires\": \"1796388424\"}\n");
  EXPECT_EQ(err_, "");
  at_terminal_ = true;
  EXPECT_EQ(Run({"chapters", "invite", "italy"}), 0);
  EXPECT_EQ(out_, "{\"code\": \"c0de\", \"expires\": \"1796388424\"}\n");
  EXPECT_THAT(err_, HasSubstr("chapter italy, until 2026-12-04T12:47:04.000Z; keep it secret"));
  EXPECT_THAT(err_, HasSubstr("revoke-invitation 3f2a00112233"));
  EXPECT_THAT(err_, Not(HasSubstr("c0de")));
  EXPECT_EQ(std::count(err_.begin(), err_.end(), '\n'), 1);
}

TEST_F(CommandLineTest, OpenInvitationsAreListedAndOneIsRevoked) {
  v1::OpenInvitation& italys = daemon_.admin.invitations.emplace_back();
  italys.set_id("0123456789ab");
  italys.set_chapter("italy");
  italys.set_made_by("ann@hq");
  italys.mutable_made()->set_seconds(1'750'000'000);
  italys.mutable_end()->set_seconds(1'750'600'000);
  v1::OpenInvitation& old = daemon_.admin.invitations.emplace_back();
  old.set_id("ba9876543210");
  old.set_chapter("toronto");
  old.mutable_end()->set_seconds(1'750'700'000);
  EXPECT_EQ(Run({"chapters", "invitations", "--output", "json"}), 0);
  EXPECT_EQ(out_,
            "{\"id\":\"0123456789ab\",\"chapter\":\"italy\",\"made\":\"2025-06-15T15:06:40.000Z\","
            "\"made_by\":\"ann@hq\",\"end\":\"2025-06-22T13:46:40.000Z\"}\n"
            "{\"id\":\"ba9876543210\",\"chapter\":\"toronto\",\"made\":null,\"made_by\":\"\","
            "\"end\":\"2025-06-23T17:33:20.000Z\"}\n");
  EXPECT_EQ(Run({"chapters", "invitations", "toronto"}), 0);
  EXPECT_THAT(out_, HasSubstr("ba9876543210"));
  EXPECT_THAT(out_, Not(HasSubstr("0123456789ab")));
  EXPECT_EQ(Run({"chapters", "revoke-invitation", "0123456789ab", "--actor", "bob"}), 0);
  EXPECT_THAT(daemon_.admin.revoked_invitations, ElementsAre("0123456789ab"));
  EXPECT_THAT(daemon_.admin.actors, ElementsAre("bob"));
  EXPECT_THAT(out_, HasSubstr("0123456789ab"));
  EXPECT_EQ(Run({"chapters", "revoke-invitation", "77"}), 3);
}

TEST_F(CommandLineTest, StatusSaysWhyItIsNotConnectedAndWhatToDo) {
  v1::GetStatusResponse& status = daemon_.admin.status;
  status.set_role(v1::REPLICA_ROLE_NODE);
  v1::PeerSummary& peer = *status.add_peers();
  peer.set_peer("Federation");
  peer.set_error("headquarters has revoked this computer");
  status.add_advice("ask headquarters for a new invitation");
  status.mutable_certificate_end()->set_seconds(1'750'000'000);
  EXPECT_EQ(Run({"status"}), 0);
  EXPECT_THAT(out_,
              HasSubstr("not connected: headquarters has revoked this computer; never heard of"));
  EXPECT_THAT(out_, HasSubstr("ask headquarters for a new invitation"));
  EXPECT_THAT(out_, HasSubstr("until 2025-06-15T15:06:40.000Z"));
  EXPECT_EQ(Run({"status", "--output", "json"}), 0);
  const auto json = Json::parse(out_);
  EXPECT_EQ(json["peers"][0]["error"], "headquarters has revoked this computer");
  EXPECT_EQ(json["advice"][0], "ask headquarters for a new invitation");
  EXPECT_EQ(json["certificate_end"], "2025-06-15T15:06:40.000Z");
}

TEST_F(CommandLineTest, NodesOfOneNameAreToldApart) {
  v1::EnrolledNode& node = *daemon_.admin.nodes.add_nodes();
  node.set_id("3f2a");
  node.set_chapter("italy");
  node.set_name("vm");
  node.set_display_name("italy/vm~3f2a");
  EXPECT_EQ(Run({"nodes", "list"}), 0);
  EXPECT_THAT(out_, HasSubstr("  vm~3f2a  "));
  EXPECT_EQ(Run({"nodes", "list", "--output", "json"}), 0);
  EXPECT_EQ(Json::parse(out_)["name"], "vm");
  EXPECT_EQ(Json::parse(out_)["display_name"], "italy/vm~3f2a");
}

TEST_F(CommandLineTest, AWatchPrintsWhatHappensAndEndsWithTheDaemon) {
  AddMember(kIdA, "Globex");
  v1::WatchRecordsResponse& created = daemon_.records.events.emplace_back();
  created.set_event(v1::RECORD_EVENT_CREATED);
  *created.mutable_record() = daemon_.records.records[absl::StrCat("members/", kIdA)];
  v1::WatchRecordsResponse& dropped = daemon_.records.events.emplace_back();
  dropped.set_event(v1::RECORD_EVENT_DROPPED);
  dropped.mutable_record()->set_name(absl::StrCat("members/", kIdA));
  dropped.mutable_record()->set_noun("members");
  dropped.mutable_record()->set_id(kIdA);
  EXPECT_EQ(Run({"watch", "members"}), 5);
  EXPECT_EQ(out_, absl::StrCat("created members/", kIdA, "  legal: Name of Globex, Globex\n",
                               "dropped members/", kIdA, "\n"));
  EXPECT_EQ(Run({"--output", "json", "watch"}), 5);
  EXPECT_THAT(out_, StartsWith(absl::StrCat("{\"event\":\"created\",\"record\":{\"id\":\"", kIdA)));
  EXPECT_THAT(out_, HasSubstr("{\"event\":\"dropped\",\"record\":{"));
}

TEST_F(CommandLineTest, ASignalEndsAWatchWell) {
  daemon_.records.interrupts = true;
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(Run({"watch"}), 0) << err_;
    EXPECT_EQ(err_, "");
  }
}

TEST_F(CommandLineTest, WhatWaitsIsListed) {
  at_terminal_ = true;
  EXPECT_EQ(Run({"approvals", "list"}), 0);
  EXPECT_EQ(out_, "");
  EXPECT_EQ(err_, "nothing waits for headquarters' word\n");
  at_terminal_ = false;
  EXPECT_EQ(Run({"--output", "json", "approvals", "list"}), 0);
  EXPECT_EQ(out_ + err_, "");
  for (const uint64_t number : {2, 3, 7}) AddApproval(number, "italy/desk");
  EXPECT_EQ(Run({"--output", "json", "approvals", "list"}), 0);
  EXPECT_THAT(out_,
              StartsWith(absl::StrCat("{\"number\":2,\"noun\":\"members\",\"record\":\"", kIdA,
                                      "\",\"from\":\"italy/desk\",\"reason\":\"it was erased\","
                                      "\"since\":\"2025-06-15T15:06:40.000Z\",\"erasure\":false,"
                                      "\"fields\":[\"employer\",\"notes\"]}\n{\"number\":3,")));
  EXPECT_EQ(std::count(out_.begin(), out_.end(), '\n'), 3);
  EXPECT_EQ(Run({"--output", "csv", "approvals", "list"}), 0);
  EXPECT_THAT(out_, StartsWith(absl::StrCat(
                        "number,noun,record,from,what,reason,since\n2,members,", kIdA,
                        ",italy/desk,employer notes,it was erased,2025-06-15T15:06:40.000Z\n")));
  EXPECT_EQ(Run({"approvals", "list"}), 0);
  EXPECT_THAT(out_, HasSubstr("it was erased"));
  AddApproval(8, "oslo/desk");
  EXPECT_EQ(Run({"--output", "csv", "approvals", "list", "--from", "oslo/desk"}), 0);
  EXPECT_EQ(std::count(out_.begin(), out_.end(), '\n'), 2) << out_;
}

TEST_F(CommandLineTest, WhatOneWouldChangeIsShown) {
  AddApproval(7, "italy/desk");
  daemon_.approvals.waiting[7].set_erasure(true);
  EXPECT_EQ(Run({"approvals", "show", "7"}), 0) << err_;
  for (const char* part : {"italy/desk", "employer", "Globex (milan", "Initech (registrar",
                           "erased, for ever", "settlements"}) {
    EXPECT_THAT(out_, HasSubstr(part));
  }
  EXPECT_THAT(out_, Not(HasSubstr("conflicts")));
  EXPECT_EQ(Run({"--output", "json", "approvals", "show", "7"}), 0) << err_;
  EXPECT_THAT(out_,
              HasSubstr("\"values\":[{\"field\":\"employer\",\"value\":\"Globex\",\"write\":{"));
  EXPECT_THAT(out_,
              HasSubstr("\"current\":\"Initech\",\"current_write\":{\"actor\":\"registrar\""));
  EXPECT_THAT(out_, EndsWith("\"current\":null,\"current_write\":null}],\"conflicts\":0,"
                             "\"settlements\":2}\n"));
  EXPECT_EQ(Run({"approvals", "show", "8"}), 3);
}

TEST_F(CommandLineTest, WhatWaitsIsApprovedOrRejectedByItsNumber) {
  for (const uint64_t number : {1, 2, 3}) AddApproval(number, "italy/desk");
  EXPECT_EQ(Run({"--actor", "ann", "approvals", "approve", "1"}), 0) << err_;
  EXPECT_EQ(out_, absl::StrCat("approved 1: members/", kIdA, " from italy/desk\n"));
  EXPECT_EQ(Run({"approvals", "reject", "2"}), 0) << err_;
  EXPECT_EQ(out_, absl::StrCat("rejected 2: members/", kIdA, " from italy/desk\n"));
  EXPECT_EQ(Run({"--output", "json", "approvals", "reject", "3"}), 0) << err_;
  EXPECT_THAT(out_, StartsWith("{\"number\":3,\"noun\":\"members\","));
  EXPECT_THAT(daemon_.approvals.approved, ElementsAre(1));
  EXPECT_THAT(daemon_.approvals.rejected, ElementsAre(2, 3));
  EXPECT_THAT(daemon_.approvals.actors, ElementsAre("ann", OsUser(), OsUser()));
  EXPECT_EQ(Run({"approvals", "approve", "1"}), 3);
  EXPECT_EQ(err_, "chapterctl: nothing of number 1 waits for headquarters' word\n");
  daemon_.approvals.failure = {grpc::StatusCode::FAILED_PRECONDITION, "this is a node"};
  for (const char* command : {"approve", "reject"}) {
    EXPECT_EQ(Run({"approvals", command, "1"}), 4);
    EXPECT_EQ(err_, "chapterctl: this is a node\n");
  }
  EXPECT_EQ(Run({"approvals", "list"}), 4);
}

TEST_F(CommandLineTest, SeveralAreDecidedInOneCall) {
  for (const uint64_t number : {1, 2, 3, 4, 5}) {
    AddApproval(number, number == 4 ? "oslo/desk" : "italy/desk");
  }
  EXPECT_EQ(Run({"approvals", "approve", "2", "1"}), 0) << err_;
  EXPECT_THAT(daemon_.approvals.approved, ElementsAre(2, 1));
  EXPECT_EQ(daemon_.approvals.calls, 1u) << "the computer's session begins anew once";
  EXPECT_EQ(Run({"approvals", "reject", "--from", "italy/desk"}), 0) << err_;
  EXPECT_THAT(daemon_.approvals.rejected, ElementsAre(3, 5));
  EXPECT_EQ(daemon_.approvals.calls, 2u);
  EXPECT_EQ(Run({"approvals", "reject", "--from", "italy/desk"}), 3);
  EXPECT_THAT(err_, HasSubstr("nothing of 'italy/desk' waits"));
  EXPECT_EQ(daemon_.approvals.waiting.size(), 1u);
}

TEST_F(CommandLineTest, AnErasureIsApprovedOnlyWhereSomebodySaysSo) {
  for (const uint64_t number : {1, 2}) AddApproval(number, "italy/desk");
  daemon_.approvals.waiting[2].set_erasure(true);
  EXPECT_EQ(Run({"approvals", "approve", "1", "2"}), 2);
  EXPECT_THAT(err_, HasSubstr("approving an erasure needs --yes where nobody can be asked"));
  EXPECT_TRUE(daemon_.approvals.approved.empty()) << "neither of them";
  at_terminal_ = true;
  EXPECT_EQ(Run({"approvals", "approve", "1", "2"}, "no\n"), 1);
  EXPECT_THAT(err_, HasSubstr(absl::StrCat("Erase members/", kIdA, " for ever")));
  EXPECT_TRUE(daemon_.approvals.approved.empty());
  EXPECT_EQ(Run({"approvals", "approve", "1", "2"}, "yes\n"), 0) << err_;
  EXPECT_THAT(daemon_.approvals.approved, ElementsAre(1, 2));
}

TEST_F(CommandLineTest, AConflictsThirdValueIsReadAsItsField) {
  v1::Conflict& conflict = daemon_.conflicts.conflict;
  conflict.set_id("0123456789abcdef0123456789abcdef");
  conflict.set_noun("events");
  conflict.set_field("capacity");
  EXPECT_EQ(Run({"conflicts", "settle", "0123", "--value", "70"}), 0) << err_;
  EXPECT_EQ(daemon_.conflicts.settled.choice(), v1::SETTLEMENT_CHOICE_VALUE);
  EXPECT_EQ(daemon_.conflicts.settled.value().number_value(), 70);
  EXPECT_EQ(Run({"conflicts", "settle", "0123", "--value", "many"}), 4);
  conflict.set_field("venue");
  EXPECT_EQ(Run({"conflicts", "settle", "0123", "--value", "70"}), 0);
  EXPECT_EQ(daemon_.conflicts.settled.value().string_value(), "70");
  EXPECT_EQ(Run({"conflicts", "settle", "0123", "--value", ""}), 0) << err_;
  EXPECT_EQ(daemon_.conflicts.settled.value().kind_case(), google::protobuf::Value::kStringValue);
  conflict.set_field("");
  EXPECT_EQ(Run({"conflicts", "settle", "0123", "--value", "70"}), 4);
  EXPECT_EQ(Run({"conflicts", "settle", "0123", "--take"}), 0);
  EXPECT_EQ(daemon_.conflicts.settled.choice(), v1::SETTLEMENT_CHOICE_TAKE);
  EXPECT_EQ(Run({"conflicts", "list"}), 0);
  EXPECT_EQ(daemon_.conflicts.listed.state(), v1::CONFLICT_STATE_OPEN);
  EXPECT_EQ(Run({"conflicts", "list", "--state", "all"}), 0);
  EXPECT_EQ(daemon_.conflicts.listed.state(), v1::CONFLICT_STATE_UNSPECIFIED);
}

TEST_F(CommandLineTest, AnImportCountsAndNamesBadRows) {
  const std::string file = File("a.csv",
                                "id,employer\n"
                                "a,Globex\n"
                                "b,refuse me\n"
                                "c,two,many\n"
                                "d,Acme\n");
  EXPECT_EQ(Run({"members", "import", file}), 4);
  EXPECT_EQ(out_, "new 2, changed 0, same 0, refused 2, doubtful 0\n");
  EXPECT_EQ(err_,
            "line 4: refused: the row has 3 cells, the header 2\n"
            "line 3: refused: it is another's\n"
            "chapterctl: some rows were not imported: 2 refused, 0 doubtful\n");
  EXPECT_EQ(Run({"--output", "json", "members", "import", file}), 4);
  EXPECT_EQ(out_, "{\"new\":0,\"changed\":0,\"same\":2,\"refused\":2,\"doubtful\":0}\n");
  EXPECT_THAT(err_, HasSubstr("{\"line\":4,\"status\":\"refused\",\"reason\":\"the row has 3 "
                              "cells, the header 2\"}\n"));
}

TEST_F(CommandLineTest, ADryRunWritesNothingAndShowsEveryRowThatIsNews) {
  const std::string file = File("a.csv", "id,employer\na,Globex\nb,Acme\n");
  EXPECT_EQ(Run({"members", "import", file, "--dry-run", "--output", "json"}), 0);
  const std::string id =
      node::NamedId(*node::BuiltinEntities().FindByNoun("members"), "a").ToString();
  EXPECT_THAT(out_,
              StartsWith(absl::StrCat("{\"line\":2,\"status\":\"new\",\"id\":\"", id, "\"}\n")));
  EXPECT_THAT(out_,
              EndsWith("{\"new\":2,\"changed\":0,\"same\":0,\"refused\":0,\"doubtful\":0}\n"));
  EXPECT_TRUE(daemon_.records.records.empty());
  const std::string bad = File("b.csv", "id,employer\na,Globex,x\n");
  EXPECT_EQ(Run({"members", "import", bad, "--dry-run"}), 6);
  EXPECT_THAT(out_, StartsWith("line 2: refused: the row has 3 cells"));
}

TEST_F(CommandLineTest, OfTwoRowsOfOneRecordThatDifferOneIsDoubtful) {
  const std::string file = File("a.csv", "id,employer\na,Globex\na,Acme\na,Globex\n");
  EXPECT_EQ(Run({"members", "import", file, "--dry-run"}), 6);
  EXPECT_THAT(out_, HasSubstr("line 3: doubtful: line 2 is of the same record"));
  EXPECT_THAT(out_, EndsWith("new 1, changed 0, same 1, refused 0, doubtful 1\n"));
  EXPECT_EQ(Run({"members", "import", file}), 4);
  EXPECT_EQ(out_, "new 1, changed 0, same 1, refused 0, doubtful 1\n");
  EXPECT_EQ(daemon_.records.records.size(), 1U);
}

TEST_F(CommandLineTest, AnImportGoesInBatchesAndSaysWhereItStopped) {
  std::string text = "id,employer\n";
  constexpr size_t kRows = 2 * kBatchRowsMax + 3;
  for (size_t i = 0; i < kRows; ++i) absl::StrAppend(&text, "r", i, ",E", i, "\n");
  const std::string file = File("a.csv", text);
  daemon_.records.batches_until_gone = 1;
  EXPECT_EQ(Run({"--output", "json", "members", "import", file}), 5);
  EXPECT_EQ(out_, "{\"new\":500,\"changed\":0,\"same\":0,\"refused\":0,\"doubtful\":0}\n");
  EXPECT_THAT(err_, HasSubstr("the rows up to line 501 are in"));
  daemon_.records.batches_until_gone = -1;
  EXPECT_EQ(Run({"--output", "json", "members", "import", file}), 0);
  EXPECT_EQ(out_, "{\"new\":503,\"changed\":0,\"same\":500,\"refused\":0,\"doubtful\":0}\n");
  for (const auto& batch : daemon_.records.batches) {
    EXPECT_LE(static_cast<size_t>(batch.writes_size()), kBatchRowsMax);
  }
  daemon_.records.batches_until_gone = 0;
  EXPECT_EQ(Run({"members", "import", file}), 5);
  EXPECT_EQ(out_, "new 0, changed 0, same 0, refused 0, doubtful 0\n");
  EXPECT_THAT(err_, HasSubstr("no row of the file is in"));
}

TEST_F(CommandLineTest, LargeRowsMakeSmallBatches) {
  std::string text = "id,notes\n";
  for (int i = 0; i < 12; ++i) {
    absl::StrAppend(&text, "r", i, ",", std::string(kRowBytesMax / 2, 'x'), "\n");
  }
  EXPECT_EQ(Run({"members", "import", File("a.csv", text)}), 0) << err_;
  EXPECT_GE(daemon_.records.batches.size(), 3U);
  for (const auto& batch : daemon_.records.batches) {
    EXPECT_LE(batch.ByteSizeLong(), kBatchBytesMax + 4096);
  }
}

TEST_F(CommandLineTest, AnUnknownColumnStopsAnImportBeforeItBegins) {
  std::string header = "id";
  for (int i = 0; i < 1000; ++i) absl::StrAppend(&header, ",c", i);
  EXPECT_EQ(Run({"members", "import", File("a.csv", header + "\n")}), 4);
  EXPECT_THAT(err_,
              StartsWith("chapterctl: unknown columns 'c0', 'c1', 'c2', 'c3', 'c4' and 995 more"));
  EXPECT_EQ(out_, "");
  EXPECT_LT(err_.size(), 400U);
  EXPECT_TRUE(daemon_.records.batches.empty());
}

TEST_F(CommandLineTest, AFileThatCannotBeReadIsExit1) {
  EXPECT_EQ(Run({"members", "import", folder_ + "/nowhere.csv"}), 1);
  EXPECT_THAT(err_, HasSubstr("nowhere.csv"));
  EXPECT_EQ(Run({"members", "import", folder_, "--format", "csv"}), 1);
  EXPECT_EQ(Run({"members", "import", folder_ + "/a.txt"}), 2);
}

TEST_F(CommandLineTest, AnInputThatCannotBeReadIsOneLineAndExit1) {
  // The library's own words were printed.
  for (const char* format : {"csv", "json"}) {
    std::ifstream folder(folder_);  // Opens; reading fails.
    EXPECT_EQ(RunFrom(folder, {"--data", "replica", "members", "import", "-", "--format", format}),
              1);
    EXPECT_THAT(err_, StartsWith("chapterctl: cannot read standard input: Is a directory"));
    EXPECT_EQ(err_.find('\n'), err_.size() - 1) << err_;
  }
}

TEST_F(CommandLineTest, WhatIsExportedIsImported) {
  v1::Event event;
  (*event.mutable_titles())["en"].set_text("Gala, \"the\" one\nof 2026");
  (*event.mutable_titles())["zh.Hans"].set_text("中秋晚会");
  (*event.mutable_allotments())["italy"] = 40;
  (*event.mutable_hosts())["hq"];
  event.set_audience(v1::AUDIENCE_EVERYBODY);
  event.set_capacity(60);
  for (const char* id : {kIdA, kIdB}) {
    v1::Record record;
    record.set_name(absl::StrCat("events/", id));
    record.set_noun("events");
    record.set_id(id);
    record.mutable_entity()->PackFrom(event);
    daemon_.records.records[record.name()] = record;
    event.clear_titles();
  }
  const auto before = daemon_.records.records;
  for (const char* format : {"csv", "json"}) {
    daemon_.records.records = before;
    ASSERT_EQ(Run({"events", "export", "--format", format}), 0) << err_;
    const std::string exported = out_;
    daemon_.records.records.clear();
    ASSERT_EQ(Run({"events", "import", "-", "--format", format}, exported), 0) << err_ << exported;
    ASSERT_EQ(daemon_.records.records.size(), 2U);
    for (const auto& [name, record] : before) {
      v1::Event was;
      v1::Event is;
      record.entity().UnpackTo(&was);
      daemon_.records.records[name].entity().UnpackTo(&is);
      EXPECT_EQ(was.DebugString(), is.DebugString()) << exported;
    }
  }
  daemon_.records.records = before;
  ASSERT_EQ(Run({"events", "export"}), 0);
  EXPECT_THAT(out_, StartsWith("id,titles.`zh.Hans`.text,titles.en.text,start,"));
}

}  // namespace
}  // namespace chaptersync::ctl
