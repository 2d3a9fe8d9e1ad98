// SPDX-License-Identifier: Apache-2.0
//
// Cells' values for people and programs: as JSON (the mapping of Protocol
// Buffers, names as in the .proto), as text, and from text. Pure; any thread.
#ifndef CHAPTERSYNC_NODE_ENTITY_VALUE_H_
#define CHAPTERSYNC_NODE_ENTITY_VALUE_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/protobuf/message.h"
#include "google/protobuf/struct.pb.h"

#include "node/entity/cells.h"
#include "node/entity/registry.h"
#include "storage/core/record.h"

namespace chaptersync::node {

// A cell's value. Null: cleared. Of the existence cell: true where it says
// deleted. Of a field that the schema does not know, or that does not parse: its
// bytes in base64.
google::protobuf::Value ToJsonValue(const EntityType& type, const storage::CellPath& path,
                                    const std::optional<std::string>& value);
// The other way round; none for null and for an empty list. INVALID_ARGUMENT
// where the value does not fit the field, or the schema does not know it.
absl::StatusOr<std::optional<std::string>> FromJsonValue(const EntityType& type,
                                                         const storage::CellPath& path,
                                                         const google::protobuf::Value& value);

// One line of JSON, for error messages and for programs.
std::string JsonText(const google::protobuf::Message& message);

// What `message` holds at a path, in the form that SetText takes; none where it
// holds nothing there. Messages, lists and whole maps are JSON, bytes base64.
std::optional<std::string> GetText(const google::protobuf::Message& message, const FieldPath& path);
// The same for a table's cell: messages as their values one after the other, maps
// as "home: ...; office: ...". Empty where the message holds nothing there.
std::string DisplayText(const google::protobuf::Message& message, const FieldPath& path);

// Sets what the path names. An enum value is named in full, or without its prefix
// in any case. INVALID_ARGUMENT: "field 'status': value 'foo' is not allowed (one
// of ...)".
absl::Status SetText(const EntityType& type, google::protobuf::Message& message,
                     const FieldPath& path, const std::string& text);
// Removes what the path names.
void ClearPath(google::protobuf::Message& message, const FieldPath& path);

// Whether both messages hold the same at a path, or both nothing.
bool SameAt(const google::protobuf::Message& a, const google::protobuf::Message& b,
            const FieldPath& path);

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_ENTITY_VALUE_H_
