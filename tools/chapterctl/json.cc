// SPDX-License-Identifier: Apache-2.0
//
// Walks messages by reflection; what is special to one message of the API is
// named here as the command line's contract names it.
#include "tools/chapterctl/json.h"

#include <cmath>
#include <cstdlib>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include <fmt/format.h>

#include "node/entity/cells.h"
#include "node/entity/value.h"

namespace chaptersync::ctl {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// Whole numbers up to here are the same as a double and as an integer.
constexpr double kExactMax = 9007199254740992.0;

Json NumberJson(double number) {
  if (std::trunc(number) == number && std::fabs(number) <= kExactMax) {
    return static_cast<int64_t>(number);
  }
  return number;
}

// One value of a field; `index` is -1 where it is not repeated.
Json FieldJson(const Message& message, const FieldDescriptor* field, int index) {
  const Reflection& r = *message.GetReflection();
  const bool one = index < 0;
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return one ? r.GetInt32(message, field) : r.GetRepeatedInt32(message, field, index);
    case FieldDescriptor::CPPTYPE_INT64:
      return one ? r.GetInt64(message, field) : r.GetRepeatedInt64(message, field, index);
    case FieldDescriptor::CPPTYPE_UINT32:
      return one ? r.GetUInt32(message, field) : r.GetRepeatedUInt32(message, field, index);
    case FieldDescriptor::CPPTYPE_UINT64:
      return one ? r.GetUInt64(message, field) : r.GetRepeatedUInt64(message, field, index);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return one ? r.GetDouble(message, field) : r.GetRepeatedDouble(message, field, index);
    case FieldDescriptor::CPPTYPE_FLOAT: {
      // 0.1, not what the nearest float is as a double.
      const float number =
          one ? r.GetFloat(message, field) : r.GetRepeatedFloat(message, field, index);
      return std::strtod(fmt::format("{}", number).c_str(), nullptr);
    }
    case FieldDescriptor::CPPTYPE_BOOL:
      return one ? r.GetBool(message, field) : r.GetRepeatedBool(message, field, index);
    case FieldDescriptor::CPPTYPE_ENUM: {
      const int number =
          one ? r.GetEnumValue(message, field) : r.GetRepeatedEnumValue(message, field, index);
      const auto* value = field->enum_type()->FindValueByNumber(number);
      return value == nullptr ? Json(number) : Json(value->name());
    }
    case FieldDescriptor::CPPTYPE_STRING: {
      const std::string text =
          one ? r.GetString(message, field) : r.GetRepeatedString(message, field, index);
      return field->type() == FieldDescriptor::TYPE_BYTES ? absl::Base64Escape(text) : text;
    }
    case FieldDescriptor::CPPTYPE_MESSAGE: {
      const Message& inner =
          one ? r.GetMessage(message, field) : r.GetRepeatedMessage(message, field, index);
      if (absl::StartsWith(field->message_type()->full_name(), "google.protobuf.")) {
        return Json::parse(node::JsonText(inner), nullptr, false);
      }
      return MessageJson(inner);
    }
  }
  return nullptr;
}

Json MapJson(const Message& message, const FieldDescriptor* field) {
  const Reflection& reflection = *message.GetReflection();
  std::map<std::string, Json> entries;
  for (int i = 0; i < reflection.FieldSize(message, field); ++i) {
    const Message& entry = reflection.GetRepeatedMessage(message, field, i);
    entries[node::EntryKey(entry)] = FieldJson(entry, entry.GetDescriptor()->map_value(), -1);
  }
  Json out = Json::object();
  for (auto& [key, value] : entries) out[key] = std::move(value);
  return out;
}

Json TimeJson(bool known, const google::protobuf::Timestamp& time) {
  return known ? Json(TimeText(time)) : Json(nullptr);
}

// "keep" of SETTLEMENT_CHOICE_KEEP.
std::string ShortName(const std::string& name, const std::string& prefix) {
  return absl::AsciiStrToLower(absl::StartsWith(name, prefix) ? name.substr(prefix.size()) : name);
}

Json StructJson(const google::protobuf::Struct& fields) {
  const std::map<std::string, google::protobuf::Value> sorted(fields.fields().begin(),
                                                              fields.fields().end());
  Json out = Json::object();
  for (const auto& [key, value] : sorted) out[key] = ValueJson(value);
  return out;
}

}  // namespace

std::string TimeText(const google::protobuf::Timestamp& time) {
  const absl::Time moment = absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", moment, absl::UTCTimeZone());
}

Json MessageJson(const Message& message) {
  const Reflection& reflection = *message.GetReflection();
  Json out = Json::object();
  for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor* field = message.GetDescriptor()->field(i);
    if (!field->is_repeated()) {
      if (reflection.HasField(message, field)) out[field->name()] = FieldJson(message, field, -1);
      continue;
    }
    const int size = reflection.FieldSize(message, field);
    if (size == 0) continue;
    if (field->is_map()) {
      out[field->name()] = MapJson(message, field);
      continue;
    }
    Json list = Json::array();
    for (int at = 0; at < size; ++at) list.push_back(FieldJson(message, field, at));
    out[field->name()] = std::move(list);
  }
  return out;
}

Json ValueJson(const google::protobuf::Value& value) {
  using google::protobuf::Value;
  switch (value.kind_case()) {
    case Value::kNumberValue:
      return NumberJson(value.number_value());
    case Value::kStringValue:
      return value.string_value();
    case Value::kBoolValue:
      return value.bool_value();
    case Value::kStructValue:
      return StructJson(value.struct_value());
    case Value::kListValue: {
      Json list = Json::array();
      for (const Value& element : value.list_value().values()) list.push_back(ValueJson(element));
      return list;
    }
    case Value::kNullValue:
    case Value::KIND_NOT_SET:
      break;
  }
  return nullptr;
}

std::string ValueText(const google::protobuf::Value& value, const std::string& field) {
  using google::protobuf::Value;
  switch (value.kind_case()) {
    case Value::kNullValue:
    case Value::KIND_NOT_SET:
      return field.empty() ? "(not deleted)" : "(cleared)";
    case Value::kStringValue:
      return value.string_value();
    case Value::kBoolValue:
      if (field.empty()) return value.bool_value() ? "(deleted)" : "(restored)";
      [[fallthrough]];
    default:
      return JsonLine(ValueJson(value));
  }
}

absl::StatusOr<std::unique_ptr<Message>> EntityOf(const node::EntityType& type,
                                                  const v1::Record& record) {
  auto message = type.NewMessage();
  if (!message->ParseFromString(record.entity().value())) {
    return absl::DataLossError(
        absl::StrCat("what the daemon says of ", record.name(), " is no ", type.singular));
  }
  return message;
}

absl::StatusOr<Json> RecordJson(const v1::Record& record) {
  Json out;
  out["id"] = record.id();
  out["noun"] = record.noun();
  const node::EntityType* type = node::BuiltinEntities().FindByNoun(record.noun());
  if (type != nullptr && record.has_entity()) {
    auto message = EntityOf(*type, record);
    if (!message.ok()) return message.status();
    out.update(MessageJson(**message));
  }
  out["scopes"] = std::vector<std::string>(record.scopes().begin(), record.scopes().end());
  out["deleted"] = record.deleted();
  out["erased"] = record.erased();
  return out;
}

Json WriteJson(const v1::WriteInfo& write) {
  Json out;
  out["actor"] = write.actor();
  out["replica"] = write.replica();
  out["chapter"] = write.chapter();
  out["time"] = TimeJson(write.has_time(), write.time());
  return out;
}

std::string ChoiceText(v1::SettlementChoice choice) {
  return ShortName(v1::SettlementChoice_Name(choice), "SETTLEMENT_CHOICE_");
}

Json ConflictJson(const v1::Conflict& conflict) {
  Json out;
  out["id"] = conflict.id();
  out["noun"] = conflict.noun();
  out["record"] = conflict.record();
  out["field"] = conflict.field();
  out["state"] = ShortName(v1::ConflictState_Name(conflict.state()), "CONFLICT_STATE_");
  out["current"] = ValueJson(conflict.current());
  out["lost"] = ValueJson(conflict.lost());
  out["current_write"] = WriteJson(conflict.current_write());
  out["lost_write"] = WriteJson(conflict.lost_write());
  out["found_at"] = TimeJson(conflict.has_found_at(), conflict.found_at());
  out["found_by"] = conflict.found_by();
  // The one that stands, and all of them.
  Json settlements = Json::array();
  for (const v1::Settlement& settlement : conflict.settled()) {
    Json shown;
    shown["actor"] = settlement.write().actor();
    shown["replica"] = settlement.write().replica();
    shown["chapter"] = settlement.write().chapter();
    shown["time"] = TimeJson(settlement.write().has_time(), settlement.write().time());
    shown["choice"] = ChoiceText(settlement.choice());
    settlements.push_back(std::move(shown));
  }
  out["settled"] = nullptr;
  if (!settlements.empty()) {
    out["settled"] = Json{{"actor", settlements.back()["actor"]},
                          {"time", settlements.back()["time"]},
                          {"choice", settlements.back()["choice"]}};
  }
  out["settlements"] = std::move(settlements);
  return out;
}

std::string StandsText(const v1::Conflict& conflict) {
  // A field that is no yes or no holds no boolean.
  bool deleted = conflict.current().kind_case() == google::protobuf::Value::kBoolValue;
  if (const node::EntityType* type = node::BuiltinEntities().FindByNoun(conflict.noun())) {
    const auto path = node::ParsePath(*type, conflict.field());
    if (path.ok() && path->leaf()->cpp_type() == FieldDescriptor::CPPTYPE_BOOL) deleted = false;
  }
  return ValueText(conflict.current(), deleted ? "" : conflict.field());
}

Json ExplanationJson(const v1::FieldExplanation& field) {
  Json out;
  out["field"] = field.field();
  out["value"] = ValueJson(field.value());
  out["write"] = WriteJson(field.write());
  out["beat"] = Json::array();
  for (const v1::BeatenValue& beaten : field.beat()) {
    out["beat"].push_back(
        Json{{"value", ValueJson(beaten.value())}, {"write", WriteJson(beaten.write())}});
  }
  return out;
}

Json RefusedJson(const v1::RefusedWrite& refused) {
  Json out;
  out["number"] = refused.number();
  out["noun"] = refused.noun();
  out["record"] = refused.record();
  out["fields"] = StructJson(refused.fields());
  out["reason"] = refused.reason();
  out["written_at"] = TimeJson(refused.has_written_at(), refused.written_at());
  return out;
}

Json ApprovalJson(const v1::Approval& approval) {
  Json out;
  out["number"] = approval.number();
  out["noun"] = approval.noun();
  out["record"] = approval.record();
  out["from"] = approval.from();
  out["reason"] = approval.reason();
  out["since"] = TimeJson(approval.has_since(), approval.since());
  out["erasure"] = approval.erasure();
  out["fields"] = Json::array();
  for (const std::string& field : approval.fields()) out["fields"].push_back(field);
  return out;
}

Json ApprovalNewsJson(const v1::GetApprovalResponse& response) {
  Json out = ApprovalJson(response.approval());
  out["values"] = Json::array();
  for (const v1::PushedValue& value : response.values()) {
    out["values"].push_back(Json{
        {"field", value.field()},
        {"value", ValueJson(value.value())},
        {"write", WriteJson(value.write())},
        {"current", ValueJson(value.current())},
        {"current_write", value.has_current_write() ? WriteJson(value.current_write()) : Json()}});
  }
  out["conflicts"] = response.conflicts();
  out["settlements"] = response.settlements();
  return out;
}

Json StatusJson(const v1::GetStatusResponse& status) {
  Json out;
  out["replica"] = status.replica();
  out["chapter"] = status.chapter();
  out["role"] = ShortName(v1::ReplicaRole_Name(status.role()), "REPLICA_ROLE_");
  const std::map<std::string, uint64_t> records(status.records().begin(), status.records().end());
  out["records"] = Json::object();
  for (const auto& [noun, count] : records) out["records"][noun] = count;
  out["conflicts_open"] = status.conflicts_open();
  out["refused"] = status.refused();
  out["peers"] = Json::array();
  for (const v1::PeerSummary& peer : status.peers()) {
    out["peers"].push_back(
        Json{{"peer", peer.peer()},
             {"connected", peer.connected()},
             {"last_contact", TimeJson(peer.has_last_contact(), peer.last_contact())},
             {"error", peer.error()}});
  }
  out["federation"] = status.federation();
  out["version"] = status.version();
  out["paused"] = status.paused();
  out["certificate_end"] = TimeJson(status.has_certificate_end(), status.certificate_end());
  out["advice"] = std::vector<std::string>(status.advice().begin(), status.advice().end());
  return out;
}

Json InvitationJson(const v1::OpenInvitation& invitation) {
  Json out;
  out["id"] = invitation.id();
  out["chapter"] = invitation.chapter();
  out["made"] = TimeJson(invitation.has_made(), invitation.made());
  out["made_by"] = invitation.made_by();
  out["end"] = TimeJson(invitation.has_end(), invitation.end());
  return out;
}

Json NodeJson(const v1::EnrolledNode& node) {
  Json out;
  out["id"] = node.id();
  out["chapter"] = node.chapter();
  out["name"] = node.name();
  out["connected"] = node.connected();
  out["last_contact"] = TimeJson(node.has_last_contact(), node.last_contact());
  out["behind"] = node.behind();
  out["certificate_end"] = TimeJson(node.has_certificate_end(), node.certificate_end());
  out["revoked"] = TimeJson(node.has_revoked(), node.revoked());
  out["display_name"] = node.display_name();
  return out;
}

Json PeerScopeJson(const v1::PeerScope& peer) {
  Json out;
  out["peer"] = peer.peer();
  out["scope"] = peer.scope();
  out["connected"] = peer.connected();
  out["unsent"] = peer.unsent();
  out["behind"] = peer.behind();
  out["last_contact"] = TimeJson(peer.has_last_contact(), peer.last_contact());
  out["clock_offset_ms"] = peer.clock_offset_ms();
  out["digest"] = peer.digest();
  out["error"] = peer.error();
  out["held_back"] = std::vector<std::string>(peer.held_back().begin(), peer.held_back().end());
  return out;
}

std::string EventText(v1::RecordEvent event) {
  return ShortName(v1::RecordEvent_Name(event), "RECORD_EVENT_");
}

}  // namespace chaptersync::ctl
