// SPDX-License-Identifier: Apache-2.0
//
// Whoever comes to a hub over gRPC and TLS and is not what a hub expects. One call for each
// start; what it was answered is printed as one JSON object.
//
//   stranger HUB AUTHORITY IDENTITY hello NODE     a session whose Hello names this node
//   stranger HUB AUTHORITY IDENTITY hub NODE       the same, as a hub
//   stranger HUB AUTHORITY IDENTITY push JSON      a session that pushes one member, see Push
//   stranger HUB AUTHORITY IDENTITY talk           a session led by standard input, see Talk
//   stranger HUB AUTHORITY IDENTITY renew          asks for a new certificate
//   stranger HUB AUTHORITY IDENTITY guess COUNT    so many wrong invitations, one after another
//   stranger HUB AUTHORITY IDENTITY hold COUNT     so many calls at once in which nothing is sent
//
// HUB is HOST:PORT; AUTHORITY and IDENTITY are files as in a data folder, and an identity of
// "-" is none.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include <google/protobuf/util/json_util.h>
#include <grpcpp/grpcpp.h>
#include <nlohmann/json.hpp>

#include "chaptersync/v1/enrolment.grpc.pb.h"
#include "chaptersync/v1/sync.grpc.pb.h"
#include "node/entity/registry.h"
#include "node/session/limits.h"
#include "node/session/wire.h"
#include "node/sync/one_request.h"
#include "node/sync/tls_credentials.h"
#include "storage/core/record_codec.h"

namespace chaptersync {
namespace {

constexpr std::chrono::seconds kPatience{60};

int Fail(const std::string& message) {
  std::fprintf(stderr, "stranger: %s\n", message.c_str());
  return 1;
}

std::string Contents(const std::string& file) {
  std::ostringstream text;
  text << std::ifstream(file).rdbuf();
  return text.str();
}

int Print(const nlohmann::json& answer) {
  std::printf("%s\n", answer.dump().c_str());
  return 0;
}

nlohmann::json Answer(const grpc::Status& status) {
  return {{"code", static_cast<int>(status.error_code())}, {"message", status.error_message()}};
}

uint64_t NowMs() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(now).count());
}

v1::SessionRequest HelloOf(const std::string& node, uint64_t replica, bool hub) {
  v1::SessionRequest request;
  v1::Hello& hello = *request.mutable_message()->mutable_hello();
  hello.set_version_min(node::kVersionMin);
  hello.set_version_max(node::kVersionMax);
  hello.set_replica(replica);
  hello.set_epoch(1);
  hello.set_node(absl::HexStringToBytes(node));
  hello.set_hub(hub);
  return request;
}

int Hello(const std::shared_ptr<grpc::Channel>& channel, const std::string& node, bool hub) {
  const auto stub = v1::ReplicationService::NewStub(channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  const auto stream = stub->Session(&context);
  v1::SessionRequest request = HelloOf(node, 0x1234567800000001, hub);
  request.mutable_message()->mutable_hello()->set_session(7);
  stream->Write(request);
  v1::SessionResponse response;
  if (stream->Read(&response)) {
    nlohmann::json scopes = nlohmann::json::array();
    for (const std::string& scope : response.message().welcome().scopes()) scopes.push_back(scope);
    return Print({{"code", 0}, {"welcome", response.message().has_welcome()}, {"scopes", scopes}});
  }
  return Print(Answer(stream->Finish()));
}

// A record's update, as the other side is to take it. `what` has "member" (a UUID), "fields" (by
// number, or by number/key; a text, or a whole number), and, or not, "noun" (of another entity),
// "ahead_ms", "partial" (true: other fields may be left out) and "erased". Written under `writer`.
absl::StatusOr<storage::FeedItem> ItemOf(const nlohmann::json& what, storage::ReplicaId writer,
                                         uint64_t sequence) {
  const auto type = node::BuiltinEntities().GetByNoun(what.value("noun", "members"));
  if (!type.ok()) return type.status();
  const auto id = storage::RecordId::Parse(what.at("member").get<std::string>());
  if (!id.ok()) return id.status();
  const storage::Version version{
      storage::HybridTime::FromWall(NowMs() + what.value("ahead_ms", uint64_t{0})), writer};
  storage::RecordUpdate update;
  update.whole = !what.value("partial", false);
  update.state.erased = what.value("erased", false);
  for (const auto& [field, content] : what.at("fields").items()) {
    const size_t slash = std::min(field.find('/'), field.size());
    const auto number = static_cast<uint32_t>(std::stoul(field.substr(0, slash)));
    std::string value;
    if (content.is_string()) {
      storage::AppendVarint(uint64_t{number} * 8 + 2, value);  // a field of text on the wire
      storage::AppendString(content.get<std::string>(), value);
    } else {
      storage::AppendVarint(uint64_t{number} * 8, value);  // a whole number
      storage::AppendVarint(content.get<uint64_t>(), value);
    }
    storage::Cell& cell = update.state.cells.emplace_back();
    cell.path.field = number;
    if (slash < field.size()) cell.path.map_key = field.substr(slash + 1);
    cell.version = version;
    cell.actor = "stranger";
    cell.value = value;
  }
  // Digits as text are in another order.
  std::sort(update.state.cells.begin(), update.state.cells.end(),
            [](const storage::Cell& a, const storage::Cell& b) { return a.path < b.path; });
  update.state.seen.Advance(version);
  storage::FeedItem item;
  item.sequence = {sequence};
  item.key = storage::RecordKey{(*type)->number, *id};
  item.update = storage::EncodeUpdate(update);
  return item;
}

storage::ReplicaId ReplicaOf(const std::string& digits) {
  return {std::stoull(digits, nullptr, 16)};
}

// A member as a whole, in a session of its own. `what` is as for ItemOf, with "node" and "replica"
// (hexadecimal digits) and, or not, "as" (the replica in whose name the fields are). Printed:
// "refused", the refusals with reason and message, "stored", how far the hub said that it has the
// feed, and "whole", whether it asked for the whole record, once it has said one of these; or how
// the stream ended.
int Push(const std::shared_ptr<grpc::Channel>& channel, const nlohmann::json& what) {
  const auto stub = v1::ReplicationService::NewStub(channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  const auto stream = stub->Session(&context);
  const std::string replica = what.at("replica");
  stream->Write(HelloOf(what.at("node"), ReplicaOf(replica).value, false));
  v1::SessionResponse response;
  if (!stream->Read(&response)) return Print(Answer(stream->Finish()));
  const v1::Welcome welcome = response.message().welcome();

  const auto item =
      ItemOf(what, ReplicaOf(what.value("as", replica)), welcome.cursor().sequence() + 1);
  if (!item.ok()) return Fail(item.status().ToString());
  v1::SessionRequest request;
  v1::Changes& changes = *request.mutable_message()->mutable_changes();
  changes.set_scope("*");
  changes.set_previous(welcome.cursor().sequence());
  changes.set_last(item->sequence.value);
  changes.set_mark(1);
  node::PackRecords({&*item}, changes);
  stream->Write(request);
  uint64_t of_before = welcome.refused();  // they come again first, as nobody has noted them
  while (stream->Read(&response)) {
    const v1::Stored& stored = response.message().stored();
    nlohmann::json refused = nlohmann::json::array();
    for (const v1::Refusal& one : stored.refused()) {
      if (of_before > 0) {
        --of_before;
        continue;
      }
      refused.push_back(
          {{"reason", v1::RefusalReason_Name(one.reason())}, {"message", one.message()}});
    }
    const bool whole = response.message().has_whole();
    if (refused.empty() && !whole && stored.through() < item->sequence.value) continue;
    return Print(
        {{"code", 0}, {"stored", stored.through()}, {"refused", refused}, {"whole", whole}});
  }
  return Print(Answer(stream->Finish()));
}

// What came, as a line of JSON; of Changes also "records", each with its id and its update in
// base64, as they are once unpacked.
void PrintMessage(const v1::SyncMessage& message) {
  std::string text;
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  const auto status = google::protobuf::util::MessageToJsonString(message, &text, options);
  nlohmann::json line =
      status.ok() ? nlohmann::json::parse(text) : nlohmann::json{{"unreadable", status.ToString()}};
  if (message.has_changes()) {
    line["changes"].erase("payload");
    nlohmann::json& records = line["changes"]["records"] = nlohmann::json::array();
    const auto unpacked = node::UnpackRecords(message.changes());
    if (!unpacked.ok()) line["unreadable"] = unpacked.status().ToString();
    for (size_t i = 0; unpacked.ok() && i < unpacked->size(); ++i) {
      const storage::InboundRecord& record = (*unpacked)[i];
      records.push_back(
          {{"id", record.key.id.ToString()}, {"update", absl::Base64Escape(record.update)}});
    }
  }
  Print(line);
  std::fflush(stdout);
}

// A session whose every message is one line of standard input: a SyncMessage in protobuf's JSON, or
// {"records": [...], "replica": HEX} for Changes with these records, each as for ItemOf ("as" names
// another replica), in the scope "scope", "*" where none is named. Each message that comes is
// printed as it comes, then {"code", "message", "at_ms"}: how the stream ended, and when. The end
// of standard input ends it. What cannot be read ends the program, whose other thread reads on.
int Talk(const std::shared_ptr<grpc::Channel>& channel) {
  const auto stub = v1::ReplicationService::NewStub(channel);
  grpc::ClientContext context;
  const auto stream = stub->Session(&context);
  std::atomic<uint64_t> cursor = 0;
  std::thread reader([&] {
    v1::SessionResponse response;
    while (stream->Read(&response)) {
      if (response.message().has_welcome())
        cursor = response.message().welcome().cursor().sequence();
      PrintMessage(response.message());
    }
    nlohmann::json end = Answer(stream->Finish());
    end["at_ms"] = NowMs();
    Print(end);
    std::fflush(stdout);
    std::_Exit(0);  // standard input may be open still
  });
  std::string line;
  while (std::getline(std::cin, line)) {
    v1::SessionRequest request;
    const nlohmann::json what = nlohmann::json::parse(line);
    if (what.contains("records")) {
      v1::Changes& changes = *request.mutable_message()->mutable_changes();
      const uint64_t before = cursor;
      std::vector<storage::FeedItem> items;
      for (const nlohmann::json& one : what["records"]) {
        auto item = ItemOf(one, ReplicaOf(one.value("as", what.at("replica").get<std::string>())),
                           before + items.size() + 1);
        if (!item.ok()) std::_Exit(Fail(item.status().ToString()));
        items.push_back(*std::move(item));
      }
      std::vector<const storage::FeedItem*> all;
      for (const storage::FeedItem& item : items) all.push_back(&item);
      cursor = before + items.size();
      changes.set_scope(what.value("scope", "*"));
      changes.set_previous(before);
      changes.set_last(cursor);
      changes.set_mark(1);
      node::PackRecords(all, changes);
    } else {
      const auto read =
          google::protobuf::util::JsonStringToMessage(line, request.mutable_message());
      if (!read.ok()) std::_Exit(Fail(read.ToString()));
    }
    stream->Write(request);
  }
  context.TryCancel();
  reader.join();
  return 0;
}

// Over a connection that shows the identity, or none where `identity` has no key.
int Renew(const std::shared_ptr<grpc::Channel>& channel, const node::TlsIdentity& identity) {
  v1::RenewRequest request;
  const node::PrivateKey next = node::PrivateKey::Make();
  const auto renewal = node::MakeRenewal(identity, next);
  request.set_request(renewal.ok() ? renewal->request : next.MakeRequest());
  if (renewal.ok()) {
    request.set_chain(renewal->chain);
    request.set_signature(renewal->signature);
  }
  v1::RenewResponse response;
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  const auto stub = v1::EnrolmentService::NewStub(channel);
  return Print(Answer(node::SendOneRequest(stub->Renew(&context, &response), request)));
}

int Guess(const std::shared_ptr<grpc::Channel>& channel, int count) {
  const auto stub = v1::EnrolmentService::NewStub(channel);
  const node::PrivateKey key = node::PrivateKey::Make();
  std::map<std::string, int> codes;
  for (int i = 0; i < count; ++i) {
    v1::EnrolRequest request;
    request.set_code("wrong" + std::to_string(i));
    request.set_node(std::string(16, 'n'));
    request.set_request(key.MakeRequest());
    request.set_chapter("italy");
    v1::EnrolResponse response;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kPatience);
    const auto status = node::SendOneRequest(stub->Enrol(&context, &response), request);
    ++codes[std::to_string(status.error_code())];
  }
  return Print({{"codes", codes}});
}

// Calls that send nothing, some on each of a few connections, until the hub ends them.
int Hold(const std::string& hub, const std::shared_ptr<grpc::ChannelCredentials>& credentials,
         int count) {
  constexpr int kOnOneConnection = 16;
  struct Call {
    grpc::ClientContext context;
    v1::EnrolResponse response;
    std::unique_ptr<grpc::ClientWriter<v1::EnrolRequest>> writer;
  };
  std::vector<std::unique_ptr<v1::EnrolmentService::Stub>> stubs;
  std::vector<std::unique_ptr<Call>> calls;
  for (int i = 0; i < count; ++i) {
    if (i % kOnOneConnection == 0) {
      grpc::ChannelArguments own;
      own.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
      stubs.push_back(
          v1::EnrolmentService::NewStub(grpc::CreateCustomChannel(hub, credentials, own)));
    }
    calls.push_back(std::make_unique<Call>());
    Call& call = *calls.back();
    call.context.set_deadline(std::chrono::system_clock::now() + kPatience);
    call.writer = stubs.back()->Enrol(&call.context, &call.response);
  }
  std::map<std::string, int> codes;
  for (const auto& call : calls) {
    call->writer->WaitForInitialMetadata();
    ++codes[std::to_string(call->writer->Finish().error_code())];
  }
  return Print({{"codes", codes}});
}

int Main(int argc, char** argv) {
  if (argc < 5) return Fail("usage: stranger HUB AUTHORITY IDENTITY COMMAND [ARGUMENT]");
  const std::string command = argv[4];
  const std::string argument = argc > 5 ? argv[5] : "";
  const std::string authority = Contents(argv[2]);
  const auto verdict = std::make_shared<node::TlsVerdict>();
  node::TlsIdentity identity;
  std::shared_ptr<grpc::ChannelCredentials> credentials;
  if (std::string(argv[3]) == "-") {
    const auto fingerprint = node::FingerprintOf(authority);
    if (!fingerprint.ok()) return Fail(fingerprint.status().ToString());
    credentials = node::JoiningCredentials(*fingerprint, verdict);
  } else {
    // As it is, without our own checks of it.
    const std::string text = Contents(argv[3]);
    const size_t certificates = text.find("-----BEGIN CERTIFICATE-----");
    if (certificates == std::string::npos) return Fail("the identity has no certificate");
    identity = {.key = text.substr(0, certificates),
                .chain = text.substr(certificates),
                .authority = authority};
    const auto made = node::NodeCredentials(identity, verdict);
    if (!made.ok()) return Fail(made.status().ToString());
    credentials = *made;
  }
  const auto channel = grpc::CreateChannel(argv[1], credentials);
  if (command == "hello" || command == "hub") return Hello(channel, argument, command == "hub");
  if (command == "push") return Push(channel, nlohmann::json::parse(argument));
  if (command == "talk") return Talk(channel);
  if (command == "renew") return Renew(channel, identity);
  if (command == "hold") return Hold(argv[1], credentials, std::atoi(argument.c_str()));
  if (command == "guess") return Guess(channel, std::atoi(argument.c_str()));
  return Fail("unknown command " + command);
}

}  // namespace
}  // namespace chaptersync

int main(int argc, char** argv) { return chaptersync::Main(argc, argv); }
