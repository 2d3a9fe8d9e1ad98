// SPDX-License-Identifier: Apache-2.0
//
// conflicts, refused and approvals: what needs an officer's decision, and the
// decision. A third value is typed as a field's value is, and sent as JSON.
#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "node/entity/cells.h"
#include "node/entity/value.h"
#include "storage/core/status.h"
#include "tools/chapterctl/command.h"
#include "tools/chapterctl/failure.h"
#include "tools/chapterctl/json.h"

namespace chaptersync::ctl {
namespace {

using Conflicts = v1::ConflictsService::Stub;
using Refused = v1::RefusedService::Stub;
using Approvals = v1::ApprovalsService::Stub;

constexpr size_t kIdDigits = 12;
constexpr uint64_t kNumberMax = uint64_t{1} << 62;

std::string Author(const v1::WriteInfo& write) {
  return absl::StrCat(write.actor(), write.chapter().empty() ? "" : " at ", write.chapter());
}

std::string FieldText(const std::string& field) { return field.empty() ? "(record)" : field; }

absl::Status ListConflicts(Context& context, const std::string& state) {
  v1::ListConflictsRequest request;
  if (state == "open") request.set_state(v1::CONFLICT_STATE_OPEN);
  if (state == "settled") request.set_state(v1::CONFLICT_STATE_SETTLED);
  request.set_page_size(kPageSize);
  const bool csv = context.output.format() == Format::kCsv;
  Table table(context.output, {"id", "noun", "record", "field", "state", "stands", "lost",
                               "stands_by", "lost_by", "found"});
  CHAPTER_RETURN_IF_ERROR(
      (context.client.Pages<Conflicts, v1::ListConflictsRequest, v1::ListConflictsResponse>(
          context.client.conflicts(), &Conflicts::ListConflicts, std::move(request),
          [&](v1::ListConflictsResponse& page) -> absl::StatusOr<bool> {
            for (const v1::Conflict& conflict : page.conflicts()) {
              if (context.output.json()) {
                context.output.Object(ConflictJson(conflict));
                continue;
              }
              table.Row({csv ? conflict.id() : conflict.id().substr(0, kIdDigits), conflict.noun(),
                         conflict.record(), FieldText(conflict.field()),
                         conflict.state() == v1::CONFLICT_STATE_OPEN ? "open" : "settled",
                         StandsText(conflict), ValueText(conflict.lost(), conflict.field()),
                         Author(conflict.current_write()), Author(conflict.lost_write()),
                         TimeText(conflict.found_at())});
            }
            return true;
          })));
  if (!context.output.json()) {
    table.Finish(state == "all" ? "no conflicts" : absl::StrCat("no ", state, " conflicts"));
  }
  return absl::OkStatus();
}

void PrintConflict(Output& output, const v1::Conflict& conflict) {
  if (output.json()) {
    output.Object(ConflictJson(conflict));
    return;
  }
  Table table(output, {"what", "value"}, Table::Rows::kWhole);
  const auto write = [](const v1::WriteInfo& info) {
    return absl::StrCat(Author(info), ", ", TimeText(info.time()));
  };
  table.Row({"conflict", conflict.id()});
  table.Row({"record", absl::StrCat(conflict.noun(), "/", conflict.record())});
  table.Row({"field", FieldText(conflict.field())});
  table.Row({"stands", StandsText(conflict)});
  table.Row({"written by", write(conflict.current_write())});
  table.Row({"lost", ValueText(conflict.lost(), conflict.field())});
  table.Row({"written by", write(conflict.lost_write())});
  table.Row({"found", TimeText(conflict.found_at())});
  table.Row({"state", conflict.state() == v1::CONFLICT_STATE_OPEN ? "open" : "settled"});
  for (const v1::Settlement& settlement : conflict.settled()) {
    table.Row({"settled",
               absl::StrCat(ChoiceText(settlement.choice()), " by ", write(settlement.write()))});
  }
  table.Finish("");
}

absl::StatusOr<v1::Conflict> GetConflict(Context& context, const std::string& id) {
  v1::GetConflictRequest request;
  CHAPTER_RETURN_IF_ERROR(CheckUtf8(id));
  request.set_id(id);
  CHAPTER_ASSIGN_OR_RETURN(
      v1::GetConflictResponse response,
      context.client.Call(context.client.conflicts(), &Conflicts::GetConflict, request));
  return std::move(*response.mutable_conflict());
}

absl::Status Show(Context& context, const std::string& id) {
  CHAPTER_ASSIGN_OR_RETURN(const v1::Conflict conflict, GetConflict(context, id));
  PrintConflict(context.output, conflict);
  return absl::OkStatus();
}

// A person's text as the JSON of the field that it is for.
absl::StatusOr<google::protobuf::Value> ThirdValue(const v1::Conflict& conflict,
                                                   const std::string& text) {
  if (conflict.field().empty()) {
    return absl::InvalidArgumentError(
        "a deletion or restoration has no other value: --keep it or --take it back");
  }
  CHAPTER_RETURN_IF_ERROR(CheckUtf8(text));
  CHAPTER_ASSIGN_OR_RETURN(const node::EntityType* const type,
                           node::BuiltinEntities().GetByNoun(conflict.noun()));
  CHAPTER_ASSIGN_OR_RETURN(const node::FieldPath path, node::ParsePath(*type, conflict.field()));
  auto message = type->NewMessage();
  CHAPTER_RETURN_IF_ERROR(node::SetText(*type, *message, path, text));
  for (const storage::CellWrite& cell : node::Cut(*message)) {
    if (cell.path == path.cell) return node::ToJsonValue(*type, cell.path, cell.value);
  }
  return node::ToJsonValue(*type, path.cell, std::nullopt);
}

struct SettleWords {
  std::string id;
  bool keep = false;
  bool take = false;
  std::string value;
  bool has_value = false;
};

absl::Status Settle(Context& context, const SettleWords& words) {
  if (static_cast<int>(words.keep) + static_cast<int>(words.take) +
          static_cast<int>(words.has_value) !=
      1) {
    return UsageError("conflicts settle needs one of --keep, --take, --value VALUE");
  }
  v1::SettleConflictRequest request;
  CHAPTER_RETURN_IF_ERROR(CheckUtf8(words.id));
  request.set_id(words.id);
  if (words.has_value) {
    CHAPTER_ASSIGN_OR_RETURN(const v1::Conflict conflict, GetConflict(context, words.id));
    CHAPTER_ASSIGN_OR_RETURN(*request.mutable_value(), ThirdValue(conflict, words.value));
    request.set_id(conflict.id());
    request.set_choice(v1::SETTLEMENT_CHOICE_VALUE);
  } else {
    request.set_choice(words.keep ? v1::SETTLEMENT_CHOICE_KEEP : v1::SETTLEMENT_CHOICE_TAKE);
  }
  CHAPTER_ASSIGN_OR_RETURN(
      const v1::SettleConflictResponse response,
      context.client.Call(context.client.conflicts(), &Conflicts::SettleConflict, request));
  if (context.output.json()) {
    PrintConflict(context.output, response.conflict());
  } else {
    context.output.Line(absl::StrCat("settled ", response.conflict().id()));
  }
  return absl::OkStatus();
}

// --- Refused writes ---

void PrintRefused(Table& table, const v1::RefusedWrite& refused) {
  table.Row({absl::StrCat(refused.number()), refused.noun(), refused.record(),
             JsonLine(RefusedJson(refused)["fields"]), refused.reason(),
             TimeText(refused.written_at())});
}

absl::Status ListRefused(Context& context) {
  v1::ListRefusedRequest request;
  request.set_page_size(kPageSize);
  Table table(context.output, {"number", "noun", "record", "fields", "reason", "written_at"});
  CHAPTER_RETURN_IF_ERROR(
      (context.client.Pages<Refused, v1::ListRefusedRequest, v1::ListRefusedResponse>(
          context.client.refused(), &Refused::ListRefused, std::move(request),
          [&](v1::ListRefusedResponse& page) -> absl::StatusOr<bool> {
            for (const v1::RefusedWrite& refused : page.refused()) {
              if (context.output.json()) {
                context.output.Object(RefusedJson(refused));
              } else {
                PrintRefused(table, refused);
              }
            }
            return true;
          })));
  if (!context.output.json()) table.Finish("no refused writes");
  return absl::OkStatus();
}

absl::Status ShowRefused(Context& context, uint64_t number) {
  v1::GetRefusedRequest request;
  request.set_number(number);
  CHAPTER_ASSIGN_OR_RETURN(
      const v1::GetRefusedResponse response,
      context.client.Call(context.client.refused(), &Refused::GetRefused, request));
  const v1::RefusedWrite& refused = response.refused();
  if (context.output.json()) {
    context.output.Object(RefusedJson(refused));
    return absl::OkStatus();
  }
  Table table(context.output, {"what", "value"}, Table::Rows::kWhole);
  table.Row({"number", absl::StrCat(refused.number())});
  table.Row({"record", absl::StrCat(refused.noun(), "/", refused.record())});
  const Json shown = RefusedJson(refused);
  for (const auto& [field, value] : shown["fields"].items()) {
    table.Row({FieldText(field), value.is_string() ? value.get<std::string>() : JsonLine(value)});
  }
  table.Row({"reason", refused.reason()});
  table.Row({"written at", TimeText(refused.written_at())});
  table.Finish("");
  return absl::OkStatus();
}

// Retry and drop: both take a write off the list.
template <typename Request, typename Response>
absl::Status TakeOff(Context& context, uint64_t number, const std::string& done,
                     grpc::Status (Refused::*method)(grpc::ClientContext*, const Request&,
                                                     Response*)) {
  Request request;
  request.set_number(number);
  CHAPTER_RETURN_IF_ERROR(context.client.Call(context.client.refused(), method, request).status());
  if (context.output.json()) {
    context.output.Object(Json{{"number", number}, {"state", done}});
  } else {
    context.output.Line(absl::StrCat(done, " ", number));
  }
  return absl::OkStatus();
}

// --- Approvals ---

// What one would change, in few words.
std::string WhatOf(const v1::Approval& approval) {
  if (approval.erasure()) return "erased";
  std::vector<std::string> fields;
  for (const std::string& field : approval.fields()) fields.push_back(FieldText(field));
  return absl::StrJoin(fields, " ");
}

// `from` empty: from whomever.
absl::Status EachApproval(Context& context, const std::string& from,
                          const std::function<void(const v1::Approval&)>& each) {
  v1::ListApprovalsRequest request;
  request.set_page_size(kPageSize);
  return context.client.Pages<Approvals, v1::ListApprovalsRequest, v1::ListApprovalsResponse>(
      context.client.approvals(), &Approvals::ListApprovals, std::move(request),
      [&](v1::ListApprovalsResponse& page) -> absl::StatusOr<bool> {
        for (const v1::Approval& approval : page.approvals()) {
          if (from.empty() || approval.from() == from) each(approval);
        }
        return true;
      });
}

absl::Status ListApprovals(Context& context, const std::string& from) {
  Table table(context.output, {"number", "noun", "record", "from", "what", "reason", "since"});
  CHAPTER_RETURN_IF_ERROR(EachApproval(context, from, [&](const v1::Approval& approval) {
    if (context.output.json()) {
      context.output.Object(ApprovalJson(approval));
      return;
    }
    table.Row({absl::StrCat(approval.number()), approval.noun(), approval.record(), approval.from(),
               WhatOf(approval), approval.reason(), TimeText(approval.since())});
  }));
  if (!context.output.json()) {
    table.Finish(from.empty() ? "nothing waits for headquarters' word"
                              : absl::StrCat("nothing of ", from, " waits"));
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::GetApprovalResponse> GetApproval(Context& context, uint64_t number) {
  v1::GetApprovalRequest request;
  request.set_number(number);
  return context.client.Call(context.client.approvals(), &Approvals::GetApproval, request);
}

absl::Status ShowApproval(Context& context, uint64_t number) {
  CHAPTER_ASSIGN_OR_RETURN(const v1::GetApprovalResponse response, GetApproval(context, number));
  if (context.output.json()) {
    context.output.Object(ApprovalNewsJson(response));
    return absl::OkStatus();
  }
  const v1::Approval& approval = response.approval();
  Table table(context.output, {"what", "value", "stands"}, Table::Rows::kWhole);
  const auto by = [](const v1::WriteInfo& write) {
    return absl::StrCat(" (", write.actor(), ", ", TimeText(write.time()), ")");
  };
  table.Row({"number", absl::StrCat(approval.number()), ""});
  table.Row({"record", absl::StrCat(approval.noun(), "/", approval.record()), ""});
  table.Row({"from", approval.from(), ""});
  if (approval.erasure()) table.Row({FieldText(""), "erased, for ever", ""});
  for (const v1::PushedValue& value : response.values()) {
    table.Row({FieldText(value.field()),
               absl::StrCat(ValueText(value.value(), value.field()), by(value.write())),
               value.has_current_write() ? absl::StrCat(ValueText(value.current(), value.field()),
                                                        by(value.current_write()))
                                         : ""});
  }
  if (response.conflicts() > 0) table.Row({"conflicts", absl::StrCat(response.conflicts()), ""});
  if (response.settlements() > 0) {
    table.Row({"settlements", absl::StrCat(response.settlements()), ""});
  }
  table.Row({"reason", approval.reason(), ""});
  table.Row({"since", TimeText(approval.since()), ""});
  table.Finish("");
  return absl::OkStatus();
}

// Approve and reject: both answer what had waited.
template <typename Request, typename Response>
absl::Status Decide(Context& context, const std::vector<uint64_t>& numbers, const std::string& done,
                    grpc::Status (Approvals::*method)(grpc::ClientContext*, const Request&,
                                                      Response*)) {
  for (size_t begin = 0; begin < numbers.size(); begin += kPageSize) {
    Request request;
    for (size_t i = begin; i < std::min<size_t>(numbers.size(), begin + kPageSize); ++i) {
      request.add_numbers(numbers[i]);
    }
    CHAPTER_ASSIGN_OR_RETURN(const Response response,
                             context.client.Call(context.client.approvals(), method, request));
    for (const v1::Approval& approval : response.approvals()) {
      if (context.output.json()) {
        context.output.Object(ApprovalJson(approval));
      } else {
        context.output.Line(absl::StrCat(done, " ", approval.number(), ": ", approval.noun(), "/",
                                         approval.record(), " from ", approval.from()));
      }
    }
  }
  return absl::OkStatus();
}

// Of what erases, somebody must say so.
absl::Status Approve(Context& context, const std::vector<uint64_t>& numbers) {
  std::vector<std::string> erased;
  for (const uint64_t number : numbers) {
    CHAPTER_ASSIGN_OR_RETURN(const v1::GetApprovalResponse response, GetApproval(context, number));
    const v1::Approval& approval = response.approval();
    if (approval.erasure()) {
      erased.push_back(absl::StrCat(approval.noun(), "/", approval.record()));
    }
  }
  if (!erased.empty()) {
    CHAPTER_RETURN_IF_ERROR(Confirm(
        context, "approving an erasure",
        absl::StrCat("Erase ", absl::StrJoin(erased, ", "), " for ever, with all that follows?"),
        "nothing was approved"));
  }
  return Decide(context, numbers, "approved", &Approvals::Approve);
}

absl::Status Reject(Context& context, std::vector<uint64_t> numbers, const std::string& from) {
  if (numbers.empty() == from.empty()) {
    return UsageError("approvals reject: numbers, or --from CHAPTER/NAME");
  }
  if (!from.empty()) {
    CHAPTER_RETURN_IF_ERROR(EachApproval(context, from, [&](const v1::Approval& approval) {
      numbers.push_back(approval.number());
    }));
    if (numbers.empty()) {
      return absl::NotFoundError(absl::StrCat(
          "nothing of '", from, "' waits; `approvals list` shows whose it is, as --from takes it"));
    }
  }
  return Decide(context, numbers, "rejected", &Approvals::Reject);
}

// The commands of a group that take a number.
std::function<void(const char*, const char*, Action)> NumberCommands(
    CLI::App* group, const std::shared_ptr<uint64_t>& number, const std::string& description,
    Action& action) {
  return [=, &action](const char* name, const char* what, Action run) {
    CLI::App* command = group->add_subcommand(name, what);
    command->add_option("N", *number, description)
        ->required()
        ->check(CLI::Range(uint64_t{1}, kNumberMax));
    command->callback([&action, run = std::move(run)] { action = run; });
  };
}

}  // namespace

void AddConflictCommands(CLI::App& app, Action& action) {
  CLI::App* group = AddGroup(app, "conflicts", "what lost without having been seen");
  const auto state = std::make_shared<std::string>("open");
  CLI::App* list = group->add_subcommand("list", "shows conflicts");
  list->add_option("--state", *state, "open (the default), settled or all")
      ->check(CLI::IsMember({"open", "settled", "all"}));
  list->callback(
      [=, &action] { action = [=](Context& context) { return ListConflicts(context, *state); }; });

  const auto words = std::make_shared<SettleWords>();
  const auto with_id = [words](CLI::App* command) {
    command->add_option("CONFLICT", words->id, "a conflict's id, or a beginning of it")->required();
    return command;
  };
  with_id(group->add_subcommand("show", "shows one conflict"))->callback([=, &action] {
    action = [=](Context& context) { return Show(context, words->id); };
  });
  CLI::App* settle = with_id(group->add_subcommand("settle", "settles a conflict"));
  settle->add_flag("--keep", words->keep, "what stands stays");
  settle->add_flag("--take", words->take, "what lost is written again");
  CLI::Option* value = settle->add_option("--value", words->value, "this is written");
  settle->callback([=, &action] {
    words->has_value = value->count() > 0;
    action = [=](Context& context) { return Settle(context, *words); };
  });
}

void AddRefusedCommands(CLI::App& app, Action& action) {
  CLI::App* group = AddGroup(app, "refused", "writes that the hub did not take");
  const auto number = std::make_shared<uint64_t>(0);
  const auto add = NumberCommands(group, number, "a refused write's number", action);
  group->add_subcommand("list", "shows refused writes")->callback([&action] {
    action = ListRefused;
  });
  add("show", "shows one", [=](Context& context) { return ShowRefused(context, *number); });
  add("retry", "writes it again", [=](Context& context) {
    return TakeOff(context, *number, "retried", &Refused::RetryRefused);
  });
  add("drop", "takes it off the list", [=](Context& context) {
    return TakeOff(context, *number, "dropped", &Refused::DropRefused);
  });
}

void AddApprovalCommands(CLI::App& app, Action& action) {
  CLI::App* group = AddGroup(app, "approvals", "at the hub: what waits for headquarters' word");
  const auto from = std::make_shared<std::string>();
  const auto with_from = [from](CLI::App* command) {
    command->add_option("--from", *from, "of this computer only, CHAPTER/NAME as list shows it");
    return command;
  };
  with_from(group->add_subcommand("list", "shows what waits"))->callback([=, &action] {
    action = [=](Context& context) { return ListApprovals(context, *from); };
  });
  const auto number = std::make_shared<uint64_t>(0);
  NumberCommands(group, number, "the number of what waits", action)(
      "show", "shows what one would change",
      [=](Context& context) { return ShowApproval(context, *number); });
  const auto numbers = std::make_shared<std::vector<uint64_t>>();
  const auto with_numbers = [numbers](CLI::App* command) {
    return command->add_option("N", *numbers, "numbers of what waits")
        ->check(CLI::Range(uint64_t{1}, kNumberMax));
  };
  CLI::App* approve =
      group->add_subcommand("approve", "takes it, as if headquarters had written it");
  with_numbers(approve)->required();
  approve->callback(
      [=, &action] { action = [=](Context& context) { return Approve(context, *numbers); }; });
  CLI::App* reject = with_from(group->add_subcommand("reject", "refuses it, for good"));
  with_numbers(reject);
  reject->callback([=, &action] {
    action = [=](Context& context) { return Reject(context, *numbers, *from); };
  });
}

}  // namespace chaptersync::ctl
