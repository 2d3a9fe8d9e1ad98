// SPDX-License-Identifier: Apache-2.0
//
// Packs and unpacks messages; see wire.h. Whatever comes from a peer is checked
// before it is used. Pure; any thread.
#include "node/session/wire.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include <zstd.h>

#include "node/session/limits.h"
#include "storage/core/record_codec.h"
#include "storage/core/status.h"

namespace chaptersync::node {

using storage::Reader;

namespace {

// Fast on both sides; records repeat each other a great deal at any level.
constexpr int kZstdLevel = 1;

absl::StatusOr<std::string> Decompress(const v1::Changes& changes) {
  if (changes.payload_bytes() > kMessageBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat("a payload of ", changes.payload_bytes(),
                                                   " bytes is over the limit of ",
                                                   kMessageBytesMax));
  }
  switch (changes.compression()) {
    case v1::COMPRESSION_UNSPECIFIED:
      return changes.payload();
    case v1::COMPRESSION_ZSTD: {
      std::string out(changes.payload_bytes(), '\0');
      const size_t size = ZSTD_decompress(out.data(), out.size(), changes.payload().data(),
                                          changes.payload().size());
      if (ZSTD_isError(size) != 0 || size != out.size()) {
        return absl::InvalidArgumentError("a compressed payload cannot be read");
      }
      return out;
    }
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("compression ", static_cast<int>(changes.compression()), " is not known"));
  }
}

}  // namespace

void PackRecords(const std::vector<const storage::FeedItem*>& items, v1::Changes& changes) {
  std::string payload;
  for (const storage::FeedItem* item : items) {
    storage::AppendVarint(item->sequence.value, payload);
    storage::AppendKey(item->key, payload);
    storage::AppendString(item->update, payload);
  }
  changes.set_records(static_cast<uint32_t>(items.size()));
  changes.set_payload_bytes(static_cast<uint32_t>(payload.size()));
  if (payload.size() >= kCompressFrom) {
    std::string compressed(ZSTD_compressBound(payload.size()), '\0');
    const size_t size = ZSTD_compress(compressed.data(), compressed.size(), payload.data(),
                                      payload.size(), kZstdLevel);
    if (ZSTD_isError(size) == 0 && size < payload.size()) {
      compressed.resize(size);
      changes.set_compression(v1::COMPRESSION_ZSTD);
      changes.set_payload(std::move(compressed));
      return;
    }
  }
  changes.set_payload(std::move(payload));
}

absl::StatusOr<std::vector<storage::InboundRecord>> UnpackRecords(const v1::Changes& changes) {
  if (changes.records() > kMessageRecordsMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        changes.records(), " records in one message are over the limit of ", kMessageRecordsMax));
  }
  CHAPTER_ASSIGN_OR_RETURN(const std::string payload, Decompress(changes));
  std::vector<storage::InboundRecord> records;
  Reader in(payload);
  for (uint32_t i = 0; i < changes.records() && in.ok(); ++i) {
    storage::InboundRecord record;
    record.sequence = {in.Varint()};
    record.key = in.Key();
    record.update = std::string(in.String(kMessageBytesMax));
    records.push_back(std::move(record));
  }
  if (!in.ok() || !in.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("a payload does not hold the ", changes.records(), " records that it says"));
  }
  return records;
}

v1::Cursor ToProto(const storage::FeedCursor& cursor) {
  v1::Cursor out;
  out.set_replica(cursor.replica.value);
  out.set_epoch(cursor.epoch.value);
  out.set_scope(cursor.scope.name);
  out.set_sequence(cursor.sequence.value);
  out.set_mark(cursor.mark.value);
  return out;
}

storage::FeedCursor FromProto(const v1::Cursor& cursor) {
  return {
      {cursor.replica()}, {cursor.epoch()}, {cursor.scope()}, {cursor.sequence()}, {cursor.mark()}};
}

v1::Acknowledgement ToProto(const storage::Acknowledgement& known) {
  v1::Acknowledgement out;
  out.set_hub(known.hub.value);
  out.set_epoch(known.epoch.value);
  out.set_sequence(known.through.value);
  out.set_acknowledged_as(known.as.value);
  out.mutable_sessions()->Add(known.sessions.begin(), known.sessions.end());
  return out;
}

storage::Acknowledgement FromProto(const v1::Acknowledgement& known) {
  return {{known.hub()},
          {known.epoch()},
          {known.sequence()},
          {known.acknowledged_as()},
          {known.sessions().begin(), known.sessions().end()}};
}

v1::RecordName ToProto(const storage::RecordKey& key) {
  v1::RecordName out;
  out.set_entity(key.entity.value);
  out.set_id(std::string(key.id.bytes.begin(), key.id.bytes.end()));
  return out;
}

absl::StatusOr<storage::RecordKey> FromProto(const v1::RecordName& name) {
  storage::RecordKey key{{name.entity()}, {}};
  if (name.id().size() != key.id.bytes.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("a record's id has ", name.id().size(), " bytes, not 16"));
  }
  std::copy(name.id().begin(), name.id().end(), key.id.bytes.begin());
  return key;
}

v1::ClockReading ToProto(const storage::PeerClock& clock) {
  v1::ClockReading out;
  out.set_wall_ms(clock.wall_ms);
  out.set_hybrid(clock.hybrid.ticks);
  return out;
}

storage::PeerClock FromProto(const v1::ClockReading& clock) {
  return {clock.wall_ms(), {clock.hybrid()}};
}

v1::LeftRecord ToLeft(const storage::FeedItem& item) {
  v1::LeftRecord out;
  *out.mutable_record() = ToProto(item.key);
  for (const auto& [replica, time] : item.seen.entries()) {
    v1::SeenClock* seen = out.add_seen();
    seen->set_replica(replica.value);
    seen->set_clock(time.ticks);
  }
  return out;
}

absl::StatusOr<storage::InboundLeft> FromProto(const v1::LeftRecord& left) {
  storage::InboundLeft out;
  CHAPTER_ASSIGN_OR_RETURN(out.key, FromProto(left.record()));
  if (static_cast<size_t>(left.seen_size()) > storage::kSeenMax) {
    return absl::InvalidArgumentError(absl::StrCat("a record seen by ", left.seen_size(),
                                                   " replicas is over the limit of ",
                                                   storage::kSeenMax));
  }
  for (const v1::SeenClock& seen : left.seen()) out.seen.Advance({seen.replica()}, {seen.clock()});
  return out;
}

v1::Refusal ToProto(const storage::RefusedRecord& refused) {
  v1::Refusal out;
  *out.mutable_record() = ToProto(refused.key);
  out.set_sequence(refused.sequence.value);
  out.set_reason(static_cast<v1::RefusalReason>(refused.reason));
  out.set_message(refused.message);
  return out;
}

absl::StatusOr<storage::RefusedRecord> FromProto(const v1::Refusal& refusal) {
  storage::RefusedRecord out;
  CHAPTER_ASSIGN_OR_RETURN(out.key, FromProto(refusal.record()));
  out.sequence = {refusal.sequence()};
  constexpr int kLast = static_cast<int>(storage::RefusedRecord::kReasonLast);
  if (refusal.reason() < 1 || refusal.reason() > kLast) {
    return absl::InvalidArgumentError(absl::StrCat(
        "refusal reason ", static_cast<int>(refusal.reason()), " is not 1 to ", kLast));
  }
  out.reason = static_cast<storage::RefusedRecord::Reason>(refusal.reason());
  out.message = refusal.message().substr(0, 1024);
  return out;
}

absl::StatusOr<storage::NodeId> NodeIdFromBytes(const std::string& bytes) {
  storage::NodeId node;
  if (bytes.size() != node.bytes.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("a node's id has ", bytes.size(), " bytes, not 16"));
  }
  std::copy(bytes.begin(), bytes.end(), node.bytes.begin());
  return node;
}

std::string ToBytes(const storage::NodeId& node) {
  return std::string(node.bytes.begin(), node.bytes.end());
}

}  // namespace chaptersync::node
