// SPDX-License-Identifier: Apache-2.0
//
// Between a session's values and its messages: positions, names, and the payload
// of Changes. Everything from a peer is checked here. Pure; any thread.
//
//   payload := { sequence:varint key:20 length:varint update }    records times
//
// `update` is what storage/core/record_codec.h describes.
#ifndef CHAPTERSYNC_NODE_SESSION_WIRE_H_
#define CHAPTERSYNC_NODE_SESSION_WIRE_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "chaptersync/v1/sync.pb.h"
#include "storage/replica/exchange.h"

namespace chaptersync::node {

// Fills `payload`, `compression`, `payload_bytes` and `records`.
void PackRecords(const std::vector<const storage::FeedItem*>& items, v1::Changes& changes);
// INVALID_ARGUMENT where the payload is not what it says, or is over a limit.
absl::StatusOr<std::vector<storage::InboundRecord>> UnpackRecords(const v1::Changes& changes);

v1::Cursor ToProto(const storage::FeedCursor& cursor);
storage::FeedCursor FromProto(const v1::Cursor& cursor);

v1::Acknowledgement ToProto(const storage::Acknowledgement& known);
storage::Acknowledgement FromProto(const v1::Acknowledgement& known);

v1::RecordName ToProto(const storage::RecordKey& key);
// INVALID_ARGUMENT where the id is not 16 bytes.
absl::StatusOr<storage::RecordKey> FromProto(const v1::RecordName& name);

v1::ClockReading ToProto(const storage::PeerClock& clock);
storage::PeerClock FromProto(const v1::ClockReading& clock);

v1::LeftRecord ToLeft(const storage::FeedItem& item);
absl::StatusOr<storage::InboundLeft> FromProto(const v1::LeftRecord& left);

v1::Refusal ToProto(const storage::RefusedRecord& refused);
absl::StatusOr<storage::RefusedRecord> FromProto(const v1::Refusal& refusal);

absl::StatusOr<storage::NodeId> NodeIdFromBytes(const std::string& bytes);
std::string ToBytes(const storage::NodeId& node);

using EntityFingerprints = std::map<storage::EntityNumber, uint64_t>;
template <typename Repeated>
EntityFingerprints EntitiesFromProto(const Repeated& rules) {
  EntityFingerprints out;
  for (const v1::EntityRule& rule : rules) out[{rule.entity()}] = rule.fingerprint();
  return out;
}
template <typename Repeated>
void EntitiesToProto(const EntityFingerprints& entities, Repeated* rules) {
  for (const auto& [entity, fingerprint] : entities) {
    v1::EntityRule* rule = rules->Add();
    rule->set_entity(entity.value);
    rule->set_fingerprint(fingerprint);
  }
}

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_SESSION_WIRE_H_
