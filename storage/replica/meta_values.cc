// SPDX-License-Identifier: Apache-2.0
//
// The bytes; see meta_values.h. Integers are LEB128 varints or 8 bytes little-endian.
// Pure, but for what reads a snapshot; any thread.
#include "storage/replica/meta_values.h"

#include <algorithm>

#include "storage/core/limits.h"
#include "storage/core/status.h"
#include "storage/replica/keys.h"

namespace chaptersync::storage {
namespace {

constexpr size_t kDigestBytes = 32;  // SHA-256

void AppendNode(const NodeId& node, std::string& out) {
  out.append(reinterpret_cast<const char*>(node.bytes.data()), node.bytes.size());
}

NodeId ReadNode(Reader& in) {
  NodeId node;
  const std::string_view bytes = in.Bytes(node.bytes.size());
  if (in.ok()) std::copy(bytes.begin(), bytes.end(), node.bytes.begin());
  return node;
}

std::string Encode(const RefusedRecord& value) {
  std::string out;
  AppendFixed64(value.sequence.value, out);
  out.push_back(static_cast<char>(value.reason));
  AppendString(value.message, out);
  return out;
}

absl::StatusOr<RefusedRecord> DecodeRefusal(std::string_view bytes) {
  Reader in(bytes);
  RefusedRecord value;
  value.sequence = {in.Fixed64()};
  const std::string_view reason = in.Bytes(1);
  if (!reason.empty()) value.reason = static_cast<RefusedRecord::Reason>(reason[0]);
  value.message = std::string(in.String(1 << 16));
  if (!in.ok()) return absl::DataLossError("a refusal cannot be read");
  return value;
}

}  // namespace

void AppendSessions(const std::vector<uint64_t>& sessions, std::string& out) {
  AppendVarint(sessions.size(), out);
  for (const uint64_t session : sessions) AppendFixed64(session, out);
}

std::vector<uint64_t> ReadSessions(Reader& in, size_t most) {
  std::vector<uint64_t> sessions(in.Count(most, 8));
  for (uint64_t& session : sessions) session = in.Fixed64();
  return sessions;
}

void Remember(uint64_t session, size_t most, std::vector<uint64_t>& sessions) {
  std::erase(sessions, session);
  sessions.push_back(session);
  if (sessions.size() > most) sessions.erase(sessions.begin());
}

std::string Encode(const AcknowledgedValue& value) {
  std::string out;
  AppendFixed64(value.hub_epoch.value, out);
  AppendFixed64(value.through.value, out);
  AppendFixed64(value.farthest.value, out);
  AppendFixed64(value.own_high.ticks, out);
  AppendFixed64(value.told_high.ticks, out);
  AppendFixed64(value.anew.value, out);
  AppendFixed64(value.as.value, out);
  AppendSessions(value.sessions, out);
  return out;
}

AcknowledgedValue DecodeAcknowledged(std::string_view bytes) {
  Reader in(bytes);
  AcknowledgedValue value;
  value.hub_epoch = {in.Fixed64()};
  value.through = {in.Fixed64()};
  value.farthest = {in.Fixed64()};
  value.own_high = {in.Fixed64()};
  value.told_high = {in.Fixed64()};
  value.anew = {in.Fixed64()};
  value.as = {in.Fixed64()};
  value.sessions = ReadSessions(in, kSessionsKept);
  return in.ok() ? value : AcknowledgedValue{};
}

absl::StatusOr<std::map<ReplicaId, AcknowledgedValue>> ReadAcknowledged(const Snapshot& snapshot) {
  std::map<ReplicaId, AcknowledgedValue> by_hub;
  const std::string prefix(1, keys::kAcknowledgedKind);
  auto it = snapshot.NewIterator(Table::kMeta, prefix, keys::PrefixEnd(prefix));
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    by_hub[{Reader(it->key().substr(1)).BigEndian64()}] = DecodeAcknowledged(it->value());
  }
  CHAPTER_RETURN_IF_ERROR(it->status());
  return by_hub;
}

std::string Encode(const SessionsValue& value) {
  std::string out;
  AppendFixed64(value.epoch.value, out);
  AppendFixed64(value.last, out);
  out.push_back(value.shared ? 1 : 0);
  AppendFixed64(value.anew.value, out);
  AppendNode(value.node, out);
  AppendSessions(value.earlier, out);
  return out;
}

SessionsValue DecodeSessions(std::string_view bytes) {
  Reader in(bytes);
  SessionsValue value;
  value.epoch = {in.Fixed64()};
  value.last = in.Fixed64();
  value.shared = in.Bytes(1) == std::string_view("\x01", 1);
  value.anew = {in.Fixed64()};
  value.node = ReadNode(in);
  value.earlier = ReadSessions(in, kAttemptsKept);
  return in.ok() ? value : SessionsValue{};
}

void LeavingValue::Hear(const LeavingWord& word) {
  seen.Unite(word.seen);
  LeavingWord heard = word;
  if (const LeavingWord* before = Find(word.hub, word.epoch)) heard.seen.Unite(before->seen);
  std::erase_if(words, [&](const LeavingWord& other) { return other.hub == word.hub; });
  if (words.size() == kHubsMax) words.erase(words.begin());
  words.push_back(std::move(heard));
}

const LeavingWord* LeavingValue::Find(const NodeId& hub, Epoch epoch) const {
  const auto it = std::find_if(words.begin(), words.end(), [&](const LeavingWord& word) {
    return word.hub == hub && word.epoch == epoch;
  });
  return it == words.end() ? nullptr : &*it;
}

void LeavingValue::NoteDrop(const NodeId& hub) {
  std::erase(dropped_for, hub);
  if (dropped_for.size() == kHubsMax) dropped_for.erase(dropped_for.begin());
  dropped_for.push_back(hub);
}

namespace {

void AppendSeen(const Seen& seen, std::string& out) {
  AppendVarint(seen.entries().size(), out);
  for (const auto& [replica, time] : seen.entries()) {
    AppendFixed64(replica.value, out);
    AppendFixed64(time.ticks, out);
  }
}

Seen ReadSeen(Reader& in) {
  Seen seen;
  const size_t count = in.Count(kSeenMax, 16);
  for (size_t i = 0; i < count; ++i) {
    const ReplicaId replica{in.Fixed64()};
    seen.Advance(replica, {in.Fixed64()});
  }
  return seen;
}

}  // namespace

std::string Encode(const LeavingValue& value) {
  std::string out;
  AppendVarint(value.words.size(), out);
  for (const LeavingWord& word : value.words) {
    AppendNode(word.hub, out);
    AppendFixed64(word.epoch.value, out);
    AppendSeen(word.seen, out);
  }
  AppendSeen(value.seen, out);
  AppendVarint(value.dropped_for.size(), out);
  for (const NodeId& node : value.dropped_for) AppendNode(node, out);
  AppendVarint(value.leaders.size(), out);
  for (const RecordKey& leader : value.leaders) AppendKey(leader, out);
  return out;
}

absl::StatusOr<LeavingValue> DecodeLeaving(std::string_view bytes) {
  Reader in(bytes);
  LeavingValue value;
  const size_t words = in.Count(kHubsMax, 25);
  for (size_t i = 0; i < words; ++i) {
    LeavingWord word{.hub = ReadNode(in), .epoch = {in.Fixed64()}, .seen = {}};
    word.seen = ReadSeen(in);
    value.words.push_back(std::move(word));
  }
  value.seen = ReadSeen(in);
  const size_t dropped_for = in.Count(kHubsMax, 16);
  for (size_t i = 0; i < dropped_for; ++i) value.dropped_for.push_back(ReadNode(in));
  const size_t leaders = in.Count(kScopesMax, kKeyBytes);
  for (size_t i = 0; i < leaders; ++i) value.leaders.push_back(in.Key());
  if (!in.ok() || !in.empty()) {
    return absl::DataLossError("what is known of a dropped record cannot be read");
  }
  return value;
}

std::string Encode(const ResetValue& value) {
  std::string out;
  AppendNode(value.hub, out);
  AppendFixed64(value.epoch.value, out);
  return out + Encode(value.refusal);
}

std::string Encode(const PendingRefusal& value) {
  std::string out;
  AppendFixed64(value.epoch.value, out);
  out.push_back(value.noted ? 1 : 0);
  return out + Encode(value.refusal);
}

absl::StatusOr<PendingRefusal> DecodePending(std::string_view bytes) {
  Reader in(bytes);
  PendingRefusal value;
  value.epoch = {in.Fixed64()};
  value.noted = in.Bytes(1) == std::string_view("\x01", 1);
  if (!in.ok()) return absl::DataLossError("a refusal cannot be read");
  CHAPTER_ASSIGN_OR_RETURN(value.refusal, DecodeRefusal(in.Bytes(in.remaining())));
  return value;
}

std::string Encode(const WaitingValue& value) {
  std::string out;
  AppendNode(value.hub, out);
  if (value.what == WaitsFor::kApproval) AppendFixed64(value.at.value, out);
  return out;
}

absl::StatusOr<WaitingValue> DecodeWaiting(std::string_view bytes) {
  Reader in(bytes);
  WaitingValue value;
  value.hub = ReadNode(in);
  if (in.remaining() > 0) {
    value.what = WaitsFor::kApproval;
    value.at = {in.Fixed64()};
  }
  if (!in.ok() || !in.empty())
    return absl::DataLossError("the mark of a record that waits cannot be read");
  return value;
}

std::string Encode(const ApprovalValue& value) {
  std::string out;
  AppendFixed64(value.number, out);
  AppendFixed64(value.since_ms, out);
  AppendString(value.chapter.name, out);
  AppendString(value.reason, out);
  return out + value.update;
}

absl::StatusOr<ApprovalValue> DecodeApproval(std::string_view bytes) {
  Reader in(bytes);
  ApprovalValue value;
  value.number = in.Fixed64();
  value.since_ms = in.Fixed64();
  value.chapter.name = in.String(kScopeBytesMax);
  value.reason = in.String(kRefusedReasonBytesMax);
  if (!in.ok()) return absl::DataLossError("what waits for headquarters' word cannot be read");
  value.update = in.Bytes(in.remaining());
  return value;
}

absl::StatusOr<ResetValue> DecodeReset(std::string_view bytes) {
  Reader in(bytes);
  ResetValue value;
  value.hub = ReadNode(in);
  value.epoch = {in.Fixed64()};
  if (!in.ok()) return absl::DataLossError("a refusal that was noted cannot be read");
  CHAPTER_ASSIGN_OR_RETURN(value.refusal, DecodeRefusal(in.Bytes(in.remaining())));
  return value;
}

std::string Encode(const RejectedValue& value) {
  return value.digest + (value.sent_back ? "\x01" : "");
}

absl::StatusOr<RejectedValue> DecodeRejected(std::string_view bytes) {
  Reader in(bytes);
  RejectedValue value;
  value.digest = in.Bytes(kDigestBytes);
  value.sent_back = in.remaining() > 0 && in.Bytes(1) == std::string_view("\x01", 1);
  if (!in.ok() || !in.empty()) {
    return absl::DataLossError("what headquarters has rejected cannot be read");
  }
  return value;
}

std::string EncodeNumber(uint64_t value) {
  std::string out;
  AppendFixed64(value, out);
  return out;
}

uint64_t DecodeNumber(const absl::StatusOr<std::string>& bytes) {
  return bytes.ok() ? Reader(*bytes).Fixed64() : 0;
}

void PutCursor(const FeedCursor& cursor, bool peer_is_hub, WriteBatch& batch) {
  std::string value;
  AppendFixed64(cursor.epoch.value, value);
  AppendFixed64(cursor.sequence.value, value);
  AppendFixed64(cursor.mark.value, value);
  batch.Put(Table::kMeta, keys::Cursor(cursor.replica, peer_is_hub, cursor.scope), value);
}

FeedCursor DecodeCursor(std::string_view key, std::string_view value) {
  Reader key_in(key.substr(1));
  Reader in(value);
  FeedCursor cursor;
  cursor.replica = {key_in.BigEndian64()};
  cursor.scope = {std::string(key_in.Bytes(key_in.remaining()))};
  cursor.epoch = {in.Fixed64()};
  cursor.sequence = {in.Fixed64()};
  cursor.mark = {in.Fixed64()};
  return cursor;
}

Mark MarkAt(const Snapshot& snapshot, Sequence sequence) {
  auto it = snapshot.NewIterator(Table::kMeta, keys::Mark(sequence), keys::PrefixEnd("m"));
  it->SeekToFirst();
  return it->Valid() ? Mark{Reader(it->value()).Fixed64()} : Mark{};
}

bool Disjoint(const std::set<Scope>& a, const std::set<Scope>& b) {
  return std::none_of(a.begin(), a.end(), [&](const Scope& s) { return b.contains(s); });
}

}  // namespace chaptersync::storage
