// SPDX-License-Identifier: Apache-2.0
//
// The API's messages as --output json prints them: names as in the .proto files,
// times in RFC 3339 (UTC, milliseconds), numbers as numbers, keys of maps in
// order. Pure; any thread.
#ifndef CHAPTERSYNC_TOOLS_CHAPTERCTL_JSON_H_
#define CHAPTERSYNC_TOOLS_CHAPTERCTL_JSON_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "google/protobuf/message.h"
#include "google/protobuf/struct.pb.h"
#include "google/protobuf/timestamp.pb.h"

#include "chaptersync/v1/admin_service.pb.h"
#include "chaptersync/v1/approvals_service.pb.h"
#include "chaptersync/v1/record.pb.h"
#include "chaptersync/v1/records_service.pb.h"
#include "chaptersync/v1/refused_service.pb.h"
#include "chaptersync/v1/sync_service.pb.h"
#include "node/entity/registry.h"
#include "tools/chapterctl/output.h"

namespace chaptersync::ctl {

// "2026-05-14T17:00:00.000Z".
std::string TimeText(const google::protobuf::Timestamp& time);
// The fields of a message that are set, in the order of their declaration.
Json MessageJson(const google::protobuf::Message& message);
Json ValueJson(const google::protobuf::Value& value);
// A value for a table's cell. `field`: the path; of "" it is a deletion or not.
std::string ValueText(const google::protobuf::Value& value, const std::string& field);

// The entity's message out of a record; empty where the record has none.
// DATA_LOSS where it does not parse.
absl::StatusOr<std::unique_ptr<google::protobuf::Message>> EntityOf(const node::EntityType& type,
                                                                    const v1::Record& record);
// The entity's own fields, and id, noun, scopes, deleted, erased.
absl::StatusOr<Json> RecordJson(const v1::Record& record);

Json WriteJson(const v1::WriteInfo& write);
// "keep".
std::string ChoiceText(v1::SettlementChoice choice);
Json ConflictJson(const v1::Conflict& conflict);
// What stood, for a table's cell: "(deleted)" where a field's value lost to a deletion.
std::string StandsText(const v1::Conflict& conflict);
Json ExplanationJson(const v1::FieldExplanation& field);
Json RefusedJson(const v1::RefusedWrite& refused);
Json ApprovalJson(const v1::Approval& approval);
Json ApprovalNewsJson(const v1::GetApprovalResponse& response);
Json StatusJson(const v1::GetStatusResponse& status);
Json InvitationJson(const v1::OpenInvitation& invitation);
Json NodeJson(const v1::EnrolledNode& node);
Json PeerScopeJson(const v1::PeerScope& peer);
// "created".
std::string EventText(v1::RecordEvent event);

}  // namespace chaptersync::ctl

#endif  // CHAPTERSYNC_TOOLS_CHAPTERCTL_JSON_H_
