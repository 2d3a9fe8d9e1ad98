// SPDX-License-Identifier: Apache-2.0
//
// Checks values against the rules that their fields' options state: formats,
// lengths, what is required. An error says which field, which value, what is
// allowed. Reads the time zone database where it is there; any thread.
#ifndef CHAPTERSYNC_NODE_ENTITY_VALIDATE_H_
#define CHAPTERSYNC_NODE_ENTITY_VALIDATE_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "google/protobuf/message.h"

#include "chaptersync/v1/options.pb.h"
#include "node/entity/registry.h"
#include "storage/replica/replica.h"

namespace chaptersync::node {

// Bytes of a value whose field states no limit.
inline constexpr uint32_t kFieldBytesMaxDefault = 4096;

// Every set field of an entity's message, whatever is in it included.
// INVALID_ARGUMENT. Required fields are CheckRequired's.
absl::Status Validate(const EntityType& type, const google::protobuf::Message& message);
// The values of these cells, as Validate; a required field is not cleared.
absl::Status ValidateCells(const EntityType& type, const std::vector<storage::CellWrite>& cells);
// INVALID_ARGUMENT where a required field holds no value, or an empty one.
absl::Status CheckRequired(const EntityType& type, const google::protobuf::Message& message);

// Whether the text has the form. Any text is FORMAT_UNSPECIFIED's and, for want
// of a kind, FORMAT_CONTACT's.
bool HasFormat(v1::Format format, const std::string& text);
// "+390551234567" (E.164).
bool IsPhone(const std::string& text);
// "ann@example.org" (RFC 5322, addr-spec; a domain, no comments).
bool IsEmail(const std::string& text);

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_ENTITY_VALIDATE_H_
