// SPDX-License-Identifier: Apache-2.0
//
// Writes and reads the grammar of stored_record.h; every count is checked.
// Pure; any thread.
#include "storage/replica/stored_record.h"

#include <algorithm>

#include "absl/status/status.h"

#include "storage/core/limits.h"
#include "storage/core/record_codec.h"

namespace chaptersync::storage {
namespace {

constexpr char kFormat = 1;
// Flags of a position.
constexpr int kLeft = 1;
constexpr int kWithheld = 2;
constexpr int kReturned = 4;

}  // namespace

const ScopePosition* RecordMeta::Position(const Scope& scope) const {
  auto it = std::find_if(scopes.begin(), scopes.end(),
                         [&](const ScopePosition& p) { return p.scope == scope; });
  return it == scopes.end() ? nullptr : &*it;
}

std::vector<Scope> RecordMeta::Current() const {
  std::vector<Scope> current;
  for (const ScopePosition& position : scopes) {
    if (!position.left) current.push_back(position.scope);
  }
  return current;
}

std::set<Scope> RecordMeta::Withheld() const {
  std::set<Scope> withheld;
  for (const ScopePosition& position : scopes) {
    if (position.withheld) withheld.insert(position.scope);
  }
  return withheld;
}

std::string EncodeStored(const StoredRecord& stored) {
  const RecordMeta& meta = stored.meta;
  std::string out(1, kFormat);
  AppendVarint(meta.latest.value, out);
  AppendFixed64(meta.origin.value, out);
  AppendVarint(meta.scopes.size(), out);
  for (const ScopePosition& position : meta.scopes) {
    AppendString(position.scope.name, out);
    AppendVarint(position.at.value, out);
    AppendVarint(position.entered.value, out);
    out.push_back(static_cast<char>((position.left ? kLeft : 0) |
                                    (position.withheld ? kWithheld : 0) |
                                    (position.returned ? kReturned : 0)));
  }
  AppendVarint(meta.leaders.size(), out);
  for (const RecordKey& leader : meta.leaders) AppendKey(leader, out);
  AppendVarint(meta.named.size(), out);
  for (const Scope& scope : meta.named) AppendString(scope.name, out);
  AppendString(meta.maker.name, out);
  AppendVarint(meta.pushers.size(), out);
  for (const Scope& scope : meta.pushers) AppendString(scope.name, out);
  AppendVarint(meta.again.size(), out);
  for (const NodeId& node : meta.again) {
    out.append(reinterpret_cast<const char*>(node.bytes.data()), node.bytes.size());
  }
  AppendRecord(stored.record, out);
  return out;
}

absl::StatusOr<StoredRecord> DecodeStored(std::string_view bytes) {
  StoredRecord stored;
  RecordMeta& meta = stored.meta;
  Reader in(bytes);
  if (in.Bytes(1) != std::string_view(&kFormat, 1)) {
    return absl::DataLossError("a stored record is of an unknown format");
  }
  meta.latest = {in.Varint()};
  meta.origin = {in.Fixed64()};
  const size_t scopes = in.Count(SIZE_MAX, 4);
  for (size_t i = 0; i < scopes; ++i) {
    ScopePosition position;
    position.scope = {std::string(in.String(kScopeBytesMax))};
    position.at = {in.Varint()};
    position.entered = {in.Varint()};
    const std::string_view flags = in.Bytes(1);
    position.left = !flags.empty() && (flags[0] & kLeft) != 0;
    position.withheld = !flags.empty() && (flags[0] & kWithheld) != 0;
    position.returned = !flags.empty() && (flags[0] & kReturned) != 0;
    meta.scopes.push_back(std::move(position));
  }
  const size_t leaders = in.Count(SIZE_MAX, kKeyBytes);
  for (size_t i = 0; i < leaders; ++i) meta.leaders.push_back(in.Key());
  const size_t named = in.Count(SIZE_MAX, 1);
  for (size_t i = 0; i < named; ++i) meta.named.push_back({std::string(in.String(kScopeBytesMax))});
  meta.maker = {std::string(in.String(kScopeBytesMax))};
  const size_t pushers = in.Count(SIZE_MAX, 1);
  for (size_t i = 0; i < pushers; ++i) {
    meta.pushers.push_back({std::string(in.String(kScopeBytesMax))});
  }
  const size_t again = in.Count(SIZE_MAX, 16);
  for (size_t i = 0; i < again; ++i) {
    const std::string_view raw = in.Bytes(16);
    NodeId node;
    if (raw.size() == 16) std::copy(raw.begin(), raw.end(), node.bytes.begin());
    meta.again.push_back(node);
  }
  if (!in.ok()) return absl::DataLossError("a stored record ends early");
  auto record = DecodeRecord(in.Bytes(in.remaining()));
  if (!record.ok()) return record.status();
  stored.record = *std::move(record);
  return stored;
}

}  // namespace chaptersync::storage
