// SPDX-License-Identifier: Apache-2.0
//
// status, nodes, and what chapters have beyond other nouns: add, invitations,
// revoking. Who may do what is for the daemon to say.
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "node/entity/cells.h"
#include "node/entity/value.h"
#include "storage/core/status.h"
#include "tools/chapterctl/command.h"
#include "tools/chapterctl/failure.h"
#include "tools/chapterctl/json.h"

namespace chaptersync::ctl {
namespace {

using Admin = v1::AdminService::Stub;
using Records = v1::RecordsService::Stub;

std::string YesNo(bool value) { return value ? "yes" : "no"; }

absl::Status Status(Context& context) {
  CHAPTER_ASSIGN_OR_RETURN(
      const v1::GetStatusResponse status,
      context.client.Call(context.client.admin(), &Admin::GetStatus, v1::GetStatusRequest()));
  const Json json = StatusJson(status);
  if (context.output.json()) {
    context.output.Object(json);
    return absl::OkStatus();
  }
  Table table(context.output, {"what", "value"}, Table::Rows::kWhole);
  table.Row({"federation", status.federation()});
  table.Row({"chapter", status.chapter()});
  table.Row({"role", json["role"].get<std::string>()});
  table.Row({"replica", status.replica()});
  for (const auto& [noun, count] : json["records"].items()) table.Row({noun, JsonLine(count)});
  table.Row({"open conflicts", absl::StrCat(status.conflicts_open())});
  table.Row({"refused writes", absl::StrCat(status.refused())});
  table.Row({"syncing", status.paused() ? "paused" : "on"});
  for (const v1::PeerSummary& peer : status.peers()) {
    const std::string last = peer.has_last_contact()
                                 ? absl::StrCat("last heard of ", TimeText(peer.last_contact()))
                                 : "never heard of";
    const std::string why = peer.error().empty() ? "" : absl::StrCat(": ", peer.error(), "; ");
    table.Row({absl::StrCat("peer ", peer.peer()),
               peer.connected() ? absl::StrCat("connected, ", last)
                                : absl::StrCat("not connected", why.empty() ? ", " : why, last)});
  }
  if (status.has_certificate_end()) {
    table.Row({"certificate", absl::StrCat("until ", TimeText(status.certificate_end()))});
  }
  for (const std::string& advice : status.advice()) table.Row({"to do", advice});
  table.Row({"version", status.version()});
  table.Finish("");
  return absl::OkStatus();
}

absl::Status Nodes(Context& context) {
  CHAPTER_ASSIGN_OR_RETURN(
      const v1::ListNodesResponse response,
      context.client.Call(context.client.admin(), &Admin::ListNodes, v1::ListNodesRequest()));
  Table table(context.output,
              {"id", "chapter", "name", "connected", "last_contact", "behind", "certificate"});
  for (const v1::EnrolledNode& node : response.nodes()) {
    if (context.output.json()) {
      context.output.Object(NodeJson(node));
      continue;
    }
    // Where names are shared, "vm~3f2a".
    const std::string prefix = absl::StrCat(node.chapter(), "/");
    const bool shown = absl::StartsWith(node.display_name(), prefix);
    table.Row(
        {node.id(), node.chapter(), shown ? node.display_name().substr(prefix.size()) : node.name(),
         YesNo(node.connected()), node.has_last_contact() ? TimeText(node.last_contact()) : "never",
         node.behind() < 0 ? "not known" : absl::StrCat(node.behind()),
         node.has_revoked() ? absl::StrCat("revoked ", TimeText(node.revoked()))
                            : absl::StrCat("until ", TimeText(node.certificate_end()))});
  }
  if (!context.output.json()) table.Finish("no nodes");
  return absl::OkStatus();
}

absl::Status RevokeNode(Context& context, const std::string& node) {
  CHAPTER_RETURN_IF_ERROR(CheckUtf8(node));
  v1::RevokeNodeRequest request;
  request.set_node(node);
  CHAPTER_ASSIGN_OR_RETURN(
      const v1::RevokeNodeResponse response,
      context.client.Call(context.client.admin(), &Admin::RevokeNode, request));
  if (context.output.json()) {
    context.output.Object({{"revoked", response.id()}, {"invitations", response.invitations()}});
  } else {
    context.output.Line(absl::StrCat(
        "revoked node ", response.id(),
        "; invitations of its chapter that were open and are void now: ", response.invitations()));
  }
  return absl::OkStatus();
}

struct ChapterWords {
  std::string id;
  std::string name;
  std::string country;
  std::string valid;
};

absl::Status Add(Context& context, const node::EntityType& type, const ChapterWords& words) {
  auto message = type.NewMessage();
  const std::vector<std::pair<std::string, std::string>> values = {
      {"handle", words.id}, {"names.en.text", words.name}, {"country", words.country}};
  for (const auto& [field, value] : values) {
    CHAPTER_RETURN_IF_ERROR(CheckUtf8(value));
    CHAPTER_ASSIGN_OR_RETURN(const node::FieldPath path, node::ParsePath(type, field));
    CHAPTER_RETURN_IF_ERROR(node::SetText(type, *message, path, value));
  }
  v1::CreateRecordRequest request;
  request.set_noun(type.plural);
  request.mutable_entity()->PackFrom(*message);
  CHAPTER_ASSIGN_OR_RETURN(
      const v1::CreateRecordResponse response,
      context.client.Call(context.client.records(), &Records::CreateRecord, request));
  if (context.output.json()) {
    CHAPTER_ASSIGN_OR_RETURN(const Json json, RecordJson(response.record()));
    context.output.Object(json);
  } else {
    context.output.Line(absl::StrCat("created chapter ", words.id));
  }
  return absl::OkStatus();
}

// The handle of the chapter that an id or a beginning of one names.
absl::StatusOr<std::string> HandleOf(Context& context, const node::EntityType& type,
                                     const std::string& id) {
  v1::GetRecordRequest request;
  CHAPTER_ASSIGN_OR_RETURN(*request.mutable_name(), context.client.ResolveName(type, id));
  CHAPTER_ASSIGN_OR_RETURN(
      const v1::GetRecordResponse response,
      context.client.Call(context.client.records(), &Records::GetRecord, request));
  CHAPTER_ASSIGN_OR_RETURN(const auto message, EntityOf(type, response.record()));
  return message->GetReflection()->GetString(*message, type.name_field);
}

absl::Status Invite(Context& context, const node::EntityType& type, const ChapterWords& words) {
  v1::CreateInvitationRequest request;
  if (!words.valid.empty()) {
    CHAPTER_ASSIGN_OR_RETURN(const absl::Duration valid, ParseDuration(words.valid));
    request.mutable_valid()->set_seconds(absl::ToInt64Seconds(valid));
  }
  CHAPTER_RETURN_IF_ERROR(CheckUtf8(words.id));
  request.set_chapter(words.id);
  const auto invite = [&] {
    return context.client.Call(context.client.admin(), &Admin::CreateInvitation, request);
  };
  auto response = invite();
  if (absl::IsNotFound(response.status()) || absl::IsInvalidArgument(response.status())) {
    const auto handle = HandleOf(context, type, words.id);
    if (handle.ok() && *handle != words.id) {
      request.set_chapter(*handle);
      response = invite();
    }
  }
  if (!response.ok()) return response.status();
  std::string text = response->invitation();
  if (context.output.json()) {
    const Json json = Json::parse(text, nullptr, false);
    if (!json.is_discarded()) text = JsonLine(json);
  }
  if (text.empty() || text.back() != '\n') text += '\n';
  context.output.Raw(text);
  const v1::OpenInvitation& shown = response->shown();
  context.output.Note(absl::StrCat(
      "invitation ", shown.id(), " for one computer of chapter ", shown.chapter(), ", until ",
      TimeText(shown.end()),
      "; keep it secret, as whoever has it can join. To take it back: chapterctl chapters "
      "revoke-invitation ",
      shown.id()));
  return absl::OkStatus();
}

absl::Status Invitations(Context& context, const node::EntityType& type,
                         const ChapterWords& words) {
  CHAPTER_RETURN_IF_ERROR(CheckUtf8(words.id));
  v1::ListInvitationsRequest request;
  if (!words.id.empty()) {
    // A chapter that was deleted may still have some.
    const auto handle = HandleOf(context, type, words.id);
    request.set_chapter(handle.ok() ? *handle : words.id);
  }
  CHAPTER_ASSIGN_OR_RETURN(
      const v1::ListInvitationsResponse response,
      context.client.Call(context.client.admin(), &Admin::ListInvitations, request));
  Table table(context.output, {"id", "chapter", "made", "made_by", "end"});
  for (const v1::OpenInvitation& invitation : response.invitations()) {
    if (context.output.json()) {
      context.output.Object(InvitationJson(invitation));
      continue;
    }
    table.Row({invitation.id(), invitation.chapter(),
               invitation.has_made() ? TimeText(invitation.made()) : "not known",
               invitation.made_by().empty() ? "not known" : invitation.made_by(),
               TimeText(invitation.end())});
  }
  if (!context.output.json()) table.Finish("no open invitations");
  return absl::OkStatus();
}

absl::Status RevokeInvitation(Context& context, const std::string& id) {
  CHAPTER_RETURN_IF_ERROR(CheckUtf8(id));
  v1::RevokeInvitationRequest request;
  request.set_id(id);
  CHAPTER_ASSIGN_OR_RETURN(
      const v1::RevokeInvitationResponse response,
      context.client.Call(context.client.admin(), &Admin::RevokeInvitation, request));
  if (context.output.json()) {
    context.output.Object(InvitationJson(response.invitation()));
  } else {
    context.output.Line(absl::StrCat("revoked invitation ", response.invitation().id(),
                                     " to chapter ", response.invitation().chapter()));
  }
  return absl::OkStatus();
}

absl::Status Revoke(Context& context, const node::EntityType& type, const ChapterWords& words) {
  CHAPTER_RETURN_IF_ERROR(CheckUtf8(words.id));
  v1::RevokeChapterRequest request;
  // A chapter that was deleted may still have computers.
  const auto handle = HandleOf(context, type, words.id);
  request.set_chapter(handle.ok() ? *handle : words.id);
  CHAPTER_RETURN_IF_ERROR(Confirm(
      context, "chapters revoke",
      absl::StrCat("Keep out all computers of chapter ", request.chapter(),
                   ", until each joins again with a new invitation, and end its open invitations?"),
      "not revoked"));
  CHAPTER_ASSIGN_OR_RETURN(
      const v1::RevokeChapterResponse response,
      context.client.Call(context.client.admin(), &Admin::RevokeChapter, request));
  if (context.output.json()) {
    Json json = {{"revoked", Json::array()}, {"invitations", response.invitations()}};
    for (const std::string& node : response.nodes()) json["revoked"].push_back(node);
    context.output.Object(json);
  } else {
    context.output.Line(absl::StrCat("revoked chapter ", request.chapter(),
                                     "; computers: ", response.nodes_size(),
                                     ", open invitations: ", response.invitations()));
  }
  return absl::OkStatus();
}

}  // namespace

void AddChapterCommands(CLI::App& noun, const node::EntityType& type, Action& action) {
  const auto words = std::make_shared<ChapterWords>();
  const node::EntityType* const t = &type;
  CLI::App* add = noun.add_subcommand("add", "makes a chapter");
  add->add_option("ID", words->id, "its name in the system: italy")->required();
  add->add_option("--name", words->name, "its name for people")->required();
  add->add_option("--country", words->country, "its country: IT")->required();
  add->callback(
      [=, &action] { action = [=](Context& context) { return Add(context, *t, *words); }; });
  CLI::App* invite = noun.add_subcommand("invite", "prints an invitation for a computer");
  invite->add_option("ID", words->id, "the chapter")->required();
  invite->add_option("--valid", words->valid, "how long it holds: 7d, the default");
  invite->callback(
      [=, &action] { action = [=](Context& context) { return Invite(context, *t, *words); }; });
  CLI::App* invitations = noun.add_subcommand("invitations", "shows those that can still be used");
  invitations->add_option("CHAPTER", words->id, "those of this one only");
  invitations->callback([=, &action] {
    action = [=](Context& context) { return Invitations(context, *t, *words); };
  });
  const auto invitation = std::make_shared<std::string>();
  CLI::App* void_one =
      noun.add_subcommand("revoke-invitation", "makes one void that can still be used");
  void_one
      ->add_option("ID", *invitation, "its id or the beginning of one, as `invitations` shows it")
      ->required();
  void_one->callback([=, &action] {
    action = [=](Context& context) { return RevokeInvitation(context, *invitation); };
  });
  CLI::App* revoke = noun.add_subcommand(
      "revoke", "keeps all its computers out, and ends its invitations; asks unless --yes");
  revoke->add_option("ID", words->id, "the chapter")->required();
  revoke->callback(
      [=, &action] { action = [=](Context& context) { return Revoke(context, *t, *words); }; });
}

void AddAdminCommands(CLI::App& app, Action& action) {
  app.add_subcommand("status", "who this is, what it holds, how fresh it is")->callback([&action] {
    action = Status;
  });
  CLI::App* nodes = AddGroup(app, "nodes", "the computers of the chapters");
  nodes->add_subcommand("list", "shows them")->callback([&action] { action = Nodes; });
  const auto node = std::make_shared<std::string>();
  CLI::App* revoke = nodes->add_subcommand("revoke", "keeps one out: a stolen laptop, say");
  revoke->add_option("NODE", *node, "its id, the beginning of one, or CHAPTER/NAME")->required();
  revoke->callback(
      [=, &action] { action = [=](Context& context) { return RevokeNode(context, *node); }; });
}

}  // namespace chaptersync::ctl
