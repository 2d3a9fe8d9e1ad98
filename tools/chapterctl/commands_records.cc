// SPDX-License-Identifier: Apache-2.0
//
// The commands that every noun has: list, get, create, set, clear, delete,
// restore, erase, why. Nothing here knows an entity by name, but that chapters
// are shown with how their nodes stand.
#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

#include "node/entity/cells.h"
#include "node/entity/text.h"
#include "node/entity/value.h"
#include "storage/core/status.h"
#include "tools/chapterctl/command.h"
#include "tools/chapterctl/failure.h"
#include "tools/chapterctl/flatten.h"
#include "tools/chapterctl/json.h"
#include "tools/chapterctl/rows.h"

namespace chaptersync::ctl {
namespace {

using google::protobuf::Message;
using node::EntityType;
using Records = v1::RecordsService::Stub;

constexpr char kChapters[] = "chapters";

// Chapters' handles -> what their nodes say.
using States = std::map<std::string, Json>;

// None where this is no hub.
absl::StatusOr<std::optional<States>> ChapterStates(Client& client) {
  const auto nodes =
      client.Call(client.admin(), &v1::AdminService::Stub::ListNodes, v1::ListNodesRequest());
  if (absl::IsFailedPrecondition(nodes.status()) || absl::IsUnimplemented(nodes.status())) {
    return std::optional<States>();
  }
  if (!nodes.ok()) return nodes.status();
  States states;
  for (const v1::EnrolledNode& node : nodes->nodes()) {
    Json& state = states[node.chapter()];
    const Json own = NodeJson(node);
    if (state.is_null()) {
      state = Json{{"connected", own["connected"]},
                   {"last_contact", own["last_contact"]},
                   {"behind", own["behind"]}};
      continue;
    }
    // A chapter stands as its best connected computer does.
    if (own["connected"] == true) state["connected"] = true;
    const auto text = [](const Json& time) {
      return time.is_string() ? time.get<std::string>() : "";
    };
    if (text(own["last_contact"]) > text(state["last_contact"])) {
      state["last_contact"] = own["last_contact"];
    }
    const int64_t behind = node.behind();
    const auto before = state["behind"].get<int64_t>();
    if (behind >= 0 && (before < 0 || behind < before)) state["behind"] = behind;
  }
  return std::optional<States>(std::move(states));
}

// Adds connected, last_contact and behind; null where only the hub knows.
void AddChapterState(const std::optional<States>& states, Json& chapter) {
  Json state{{"connected", nullptr}, {"last_contact", nullptr}, {"behind", nullptr}};
  if (states) {
    const auto it = states->find(chapter.value("handle", ""));
    state = it != states->end()
                ? it->second
                : Json{{"connected", false}, {"last_contact", nullptr}, {"behind", -1}};
  }
  chapter.update(state);
}

// The names that AddChapterState adds.
constexpr const char* kStateNames[] = {"connected", "last_contact", "behind"};

// Texts as they are, null as nothing, all else as JSON.
std::string JsonText(const Json& value) {
  if (value.is_null()) return "";
  return value.is_string() ? value.get<std::string>() : JsonLine(value);
}

// What a program reads of a message at a path.
std::string CellText(const Json& message, const node::FieldPath& path) {
  const Json* at = &message;
  std::vector<std::string> names = {path.field->name()};
  if (path.cell.map_key) names.push_back(*path.cell.map_key);
  for (const auto* field : path.sub) names.push_back(field->name());
  for (const std::string& name : names) {
    const auto it = at->find(name);
    if (it == at->end()) return "";
    at = &*it;
  }
  return JsonText(*at);
}

// All values of a record, one a row.
absl::Status PrintFields(Output& output, const EntityType& type, const v1::Record& record) {
  CHAPTER_ASSIGN_OR_RETURN(const auto message, EntityOf(type, record));
  Table table(output, {"field", "value"}, Table::Rows::kWhole);
  table.Row({kIdColumn, record.id()});
  for (const FlatValue& value : Flatten(type, *message)) table.Row({value.path, value.value});
  std::string scopes;
  for (const std::string& scope : record.scopes()) {
    absl::StrAppend(&scopes, scopes.empty() ? "" : ", ", scope);
  }
  table.Row({"scopes", scopes});
  if (record.deleted()) table.Row({"deleted", "true"});
  if (record.erased()) table.Row({"erased", "true"});
  table.Finish("");
  return absl::OkStatus();
}

// A record after a write: in whole for programs, in a few words for people.
absl::Status PrintWritten(Output& output, const v1::Record& record, const std::string& done) {
  if (!output.json()) {
    output.Line(absl::StrCat(done, " ", record.name()));
    return absl::OkStatus();
  }
  CHAPTER_ASSIGN_OR_RETURN(const Json json, RecordJson(record));
  output.Object(json);
  return absl::OkStatus();
}

struct ListOptions {
  std::vector<std::string> where;
  std::string search;
  uint64_t limit = 0;  // 0: all
  bool deleted = false;
};

// Prints records as they come.
class RecordPrinter {
 public:
  RecordPrinter(Output& output, const EntityType& type, bool deleted, std::optional<States> states)
      : output_(output),
        type_(type),
        deleted_(deleted),
        chapters_(type.plural == kChapters),
        states_(std::move(states)),
        table_(output, Columns(type, deleted)) {
    for (const std::string& column : type.columns) paths_.push_back(*node::ParsePath(type, column));
  }

  absl::Status Print(const v1::Record& record) {
    if (output_.json()) {
      CHAPTER_ASSIGN_OR_RETURN(Json json, RecordJson(record));
      if (chapters_) AddChapterState(states_, json);
      output_.Object(json);
      return absl::OkStatus();
    }
    CHAPTER_ASSIGN_OR_RETURN(const auto message, EntityOf(type_, record));
    std::vector<std::string> cells = {record.id()};
    Json json = MessageJson(*message);
    for (const node::FieldPath& path : paths_) {
      cells.push_back(output_.format() == Format::kTable ? node::DisplayText(*message, path)
                                                         : CellText(json, path));
    }
    if (deleted_) cells.push_back(record.erased() ? "erased" : record.deleted() ? "deleted" : "");
    if (chapters_) {
      AddChapterState(states_, json);
      for (const char* name : kStateNames) cells.push_back(JsonText(json[name]));
    }
    table_.Row(std::move(cells));
    return absl::OkStatus();
  }

  void Finish() {
    if (!output_.json()) table_.Finish(absl::StrCat("no ", type_.plural));
  }

 private:
  static std::vector<std::string> Columns(const EntityType& type, bool deleted) {
    std::vector<std::string> columns = {kIdColumn};
    columns.insert(columns.end(), type.columns.begin(), type.columns.end());
    if (deleted) columns.push_back("deleted");
    if (type.plural == kChapters) {
      columns.insert(columns.end(), std::begin(kStateNames), std::end(kStateNames));
    }
    return columns;
  }

  Output& output_;
  const EntityType& type_;
  const bool deleted_;
  const bool chapters_;
  const std::optional<States> states_;
  Table table_;
  std::vector<node::FieldPath> paths_;
};

absl::Status List(Context& context, const EntityType& type, const ListOptions& options) {
  v1::ListRecordsRequest request;
  request.set_noun(type.plural);
  CHAPTER_RETURN_IF_ERROR(CheckUtf8(options.search));
  request.set_search(options.search);
  request.set_show_deleted(options.deleted);
  for (const std::string& text : options.where) {
    CHAPTER_ASSIGN_OR_RETURN(const auto cut, CutAtEquals(text, "FIELD=VALUE"));
    CHAPTER_RETURN_IF_ERROR(CheckUtf8(text));
    v1::FieldMatch& match = *request.add_where();
    match.set_field(cut.first);
    match.set_value(cut.second);
  }
  uint64_t left = options.limit;
  request.set_page_size(left > 0 ? static_cast<int>(std::min<uint64_t>(left, kPageSize))
                                 : kPageSize);
  std::optional<States> states;
  if (type.plural == kChapters) {
    CHAPTER_ASSIGN_OR_RETURN(states, ChapterStates(context.client));
  }
  RecordPrinter printer(context.output, type, options.deleted, std::move(states));
  const auto print = [&](v1::ListRecordsResponse& page) -> absl::StatusOr<bool> {
    for (const v1::Record& record : page.records()) {
      CHAPTER_RETURN_IF_ERROR(printer.Print(record));
      if (options.limit > 0 && --left == 0) return false;
    }
    return true;
  };
  CHAPTER_RETURN_IF_ERROR(
      (context.client.Pages<Records, v1::ListRecordsRequest, v1::ListRecordsResponse>(
          context.client.records(), &Records::ListRecords, std::move(request), print)));
  printer.Finish();
  return absl::OkStatus();
}

absl::Status Get(Context& context, const EntityType& type, const std::string& id) {
  v1::GetRecordRequest request;
  CHAPTER_ASSIGN_OR_RETURN(*request.mutable_name(), context.client.ResolveName(type, id));
  CHAPTER_ASSIGN_OR_RETURN(
      const v1::GetRecordResponse response,
      context.client.Call(context.client.records(), &Records::GetRecord, request));
  if (!context.output.json()) return PrintFields(context.output, type, response.record());
  CHAPTER_ASSIGN_OR_RETURN(Json json, RecordJson(response.record()));
  if (type.plural == kChapters) {
    CHAPTER_ASSIGN_OR_RETURN(const auto states, ChapterStates(context.client));
    AddChapterState(states, json);
  }
  context.output.Object(json);
  return absl::OkStatus();
}

// Whether one path names what the other does, or a part of it.
bool Overlap(const node::FieldPath& a, const node::FieldPath& b) {
  if (a.field != b.field) return false;
  if (a.whole_map() || b.whole_map()) return true;
  const size_t common = std::min(a.sub.size(), b.sub.size());
  return a.cell == b.cell && std::equal(a.sub.begin(), a.sub.begin() + common, b.sub.begin());
}

// The values of FIELD=VALUE words; their paths go to `mask`, an id's to `id`.
absl::StatusOr<std::unique_ptr<Message>> ReadFields(const EntityType& type,
                                                    const std::vector<std::string>& fields,
                                                    std::vector<std::string>& mask,
                                                    std::string* id) {
  auto message = type.NewMessage();
  std::vector<node::FieldPath> given;
  for (const std::string& text : fields) {
    CHAPTER_ASSIGN_OR_RETURN(const auto cut, CutAtEquals(text, "FIELD=VALUE"));
    const auto& [field, value] = cut;
    if (id != nullptr && field == kIdColumn) {
      if (!id->empty()) return UsageError("'id' is given twice (once is allowed)");
      CHAPTER_ASSIGN_OR_RETURN(const storage::RecordId named, IdFromText(type, value));
      *id = named.ToString();
      continue;
    }
    CHAPTER_ASSIGN_OR_RETURN(const node::FieldPath path, node::ParsePath(type, field));
    CHAPTER_RETURN_IF_ERROR(CheckUtf8(text));
    const std::string name = node::PathText(type, path);
    for (const node::FieldPath& earlier : given) {
      if (!Overlap(earlier, path)) continue;
      const std::string other = node::PathText(type, earlier);
      return UsageError(absl::StrCat(
          "field '", node::Shown(name), "' is given twice", other == name ? "" : ", also by '",
          other == name ? "" : node::Shown(other), other == name ? "" : "'", " (once is allowed)"));
    }
    given.push_back(path);
    CHAPTER_RETURN_IF_ERROR(node::SetText(type, *message, path, value));
    mask.push_back(name);
  }
  return message;
}

absl::Status Create(Context& context, const EntityType& type,
                    const std::vector<std::string>& fields) {
  v1::CreateRecordRequest request;
  request.set_noun(type.plural);
  std::vector<std::string> mask;
  CHAPTER_ASSIGN_OR_RETURN(const auto message,
                           ReadFields(type, fields, mask, request.mutable_record_id()));
  request.mutable_entity()->PackFrom(*message);
  CHAPTER_ASSIGN_OR_RETURN(
      const v1::CreateRecordResponse response,
      context.client.Call(context.client.records(), &Records::CreateRecord, request));
  if (context.output.quiet() && !context.output.json()) {
    context.output.Raw(response.record().id() + "\n");
    return absl::OkStatus();
  }
  return PrintWritten(context.output, response.record(), "created");
}

absl::Status Update(Context& context, const EntityType& type, const std::string& id,
                    const Message& message, const std::vector<std::string>& mask) {
  v1::UpdateRecordRequest request;
  CHAPTER_ASSIGN_OR_RETURN(*request.mutable_name(), context.client.ResolveName(type, id));
  request.mutable_entity()->PackFrom(message);
  for (const std::string& path : mask) request.mutable_update_mask()->add_paths(path);
  CHAPTER_ASSIGN_OR_RETURN(
      const v1::UpdateRecordResponse response,
      context.client.Call(context.client.records(), &Records::UpdateRecord, request));
  return PrintWritten(context.output, response.record(), "changed");
}

absl::Status Set(Context& context, const EntityType& type, const std::string& id,
                 const std::vector<std::string>& fields) {
  std::vector<std::string> mask;
  CHAPTER_ASSIGN_OR_RETURN(const auto message, ReadFields(type, fields, mask, nullptr));
  return Update(context, type, id, *message, mask);
}

absl::Status Clear(Context& context, const EntityType& type, const std::string& id,
                   const std::vector<std::string>& fields) {
  std::vector<std::string> mask;
  for (const std::string& field : fields) {
    CHAPTER_ASSIGN_OR_RETURN(const node::FieldPath path, node::ParsePath(type, field));
    mask.push_back(node::PathText(type, path));
  }
  return Update(context, type, id, *type.NewMessage(), mask);
}

template <typename Request, typename Response>
absl::Status ChangeExistence(Context& context, const EntityType& type, const std::string& id,
                             grpc::Status (Records::*method)(grpc::ClientContext*, const Request&,
                                                             Response*),
                             const std::string& done) {
  Request request;
  CHAPTER_ASSIGN_OR_RETURN(*request.mutable_name(), context.client.ResolveName(type, id));
  CHAPTER_ASSIGN_OR_RETURN(const Response response,
                           context.client.Call(context.client.records(), method, request));
  return PrintWritten(context.output, response.record(), done);
}

absl::Status Erase(Context& context, const EntityType& type, const std::string& id) {
  CHAPTER_ASSIGN_OR_RETURN(const std::string name, context.client.ResolveName(type, id));
  CHAPTER_RETURN_IF_ERROR(
      Confirm(context, "erase",
              absl::StrCat("Erase ", name, " for ever, with all that follows it?"), "not erased"));
  return ChangeExistence(context, type, name.substr(type.plural.size() + 1), &Records::EraseRecord,
                         "erased");
}

absl::Status Why(Context& context, const EntityType& type, const std::string& id,
                 const std::string& field) {
  v1::ExplainRecordRequest request;
  CHAPTER_ASSIGN_OR_RETURN(*request.mutable_name(), context.client.ResolveName(type, id));
  if (!field.empty()) {
    CHAPTER_ASSIGN_OR_RETURN(const node::FieldPath path, node::ParsePath(type, field));
    request.set_field(node::PathText(type, path));
  }
  CHAPTER_ASSIGN_OR_RETURN(
      const v1::ExplainRecordResponse response,
      context.client.Call(context.client.records(), &Records::ExplainRecord, request));
  Table table(context.output, {"field", "value", "actor", "chapter", "replica", "time", "state"});
  const auto row = [&table](const std::string& path, const google::protobuf::Value& value,
                            const v1::WriteInfo& write, const char* state) {
    table.Row({path.empty() ? "(record)" : path, ValueText(value, path), write.actor(),
               write.chapter(), write.replica(), TimeText(write.time()), state});
  };
  for (const v1::FieldExplanation& explained : response.fields()) {
    if (context.output.json()) {
      context.output.Object(ExplanationJson(explained));
      continue;
    }
    row(explained.field(), explained.value(), explained.write(), "stands");
    for (const v1::BeatenValue& beaten : explained.beat()) {
      row(explained.field(), beaten.value(), beaten.write(), "beaten");
    }
  }
  if (!context.output.json()) table.Finish("nobody wrote this");
  return absl::OkStatus();
}

// What the words of a command line say; shared with the action.
struct Words {
  std::string id;
  std::vector<std::string> fields;
  std::string field;
  ListOptions list;
};

void AddNoun(CLI::App& app, const EntityType& type, Action& action) {
  CLI::App* noun = AddGroup(app, type.plural, absl::StrCat("the ", type.plural, " kept here"));
  noun->alias(type.singular);
  const auto words = std::make_shared<Words>();
  const EntityType* const t = &type;
  const auto add = [noun, &action](const char* name, const char* description, Action run) {
    CLI::App* command = noun->add_subcommand(name, description);
    command->callback([&action, run = std::move(run)] { action = run; });
    return command;
  };
  const auto with_id = [words](CLI::App* command) {
    command->add_option("ID", words->id, "a record's id, or an unambiguous beginning of it")
        ->required();
    return command;
  };

  CLI::App* list = add("list", "shows records",
                       [=](Context& context) { return List(context, *t, words->list); });
  list->add_option("--where", words->list.where, "FIELD=VALUE: only records with this value")
      ->allow_extra_args(false);
  list->add_option("--search", words->list.search, "only records that hold this text");
  list->add_option("--limit", words->list.limit, "at most so many")
      ->check(CLI::Range(uint64_t{1}, uint64_t{1} << 62));
  list->add_flag("--deleted", words->list.deleted, "deleted ones as well");

  with_id(add("get", "shows one record",
              [=](Context& context) { return Get(context, *t, words->id); }));
  add("create", "makes a record",
      [=](Context& context) { return Create(context, *t, words->fields); })
      ->add_option("FIELD=VALUE", words->fields, "its values")
      ->required();
  with_id(add("set", "writes fields",
              [=](Context& context) { return Set(context, *t, words->id, words->fields); }))
      ->add_option("FIELD=VALUE", words->fields, "the values")
      ->required();
  with_id(add("clear", "clears fields",
              [=](Context& context) { return Clear(context, *t, words->id, words->fields); }))
      ->add_option("FIELD", words->fields, "the fields")
      ->required();
  with_id(add("delete", "deletes a record, so that it can be restored", [=](Context& context) {
    return ChangeExistence(context, *t, words->id, &Records::DeleteRecord, "deleted");
  }));
  with_id(add("restore", "restores a deleted record", [=](Context& context) {
    return ChangeExistence(context, *t, words->id, &Records::UndeleteRecord, "restored");
  }));
  with_id(add("erase", "erases a record for ever, everywhere",
              [=](Context& context) { return Erase(context, *t, words->id); }));
  with_id(add("why", "who wrote each field, and what it beat", [=](Context& context) {
    return Why(context, *t, words->id, words->field);
  }))->add_option("FIELD", words->field, "only this field");
  AddTransferCommands(*noun, type, action);
  if (type.plural == kChapters) AddChapterCommands(*noun, type, action);
}

}  // namespace

void AddRecordCommands(CLI::App& app, const node::EntityRegistry& entities, Action& action) {
  for (const EntityType& type : entities.types()) AddNoun(app, type, action);
}

}  // namespace chaptersync::ctl
