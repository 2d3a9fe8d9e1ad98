// SPDX-License-Identifier: Apache-2.0
//
// The bytes that a state's digest is of: see element.h. They are part of the
// protocol, and of the disk format.
#include "storage/reconcile/element.h"

#include <string>

#include "storage/core/digest.h"
#include "storage/core/record_codec.h"

namespace chaptersync::storage {
namespace {

void AppendVersion(const Version& version, std::string& out) {
  AppendFixed64(version.time.ticks, out);
  AppendFixed64(version.replica.value, out);
}

}  // namespace

void StateDigest::Add(const StateDigest& other) {
  for (size_t i = 0; i < lanes.size(); ++i) lanes[i] += other.lanes[i];
}

void StateDigest::Remove(const StateDigest& other) {
  for (size_t i = 0; i < lanes.size(); ++i) lanes[i] -= other.lanes[i];
}

StateDigest DigestState(const RecordKey& key, const Record& record) {
  std::string bytes;
  bytes.reserve(kKeyBytes + 24 * (record.cells.size() + 1));
  AppendKey(key, bytes);
  AppendVarint(record.cells.size(), bytes);
  for (const Cell& cell : record.cells) {
    AppendPath(cell.path, bytes);
    AppendVersion(cell.version, bytes);
  }
  for (const ConflictEntry& entry : record.conflicts) {
    AppendPath(entry.path, bytes);
    AppendVersion(entry.lost_version, bytes);
    AppendVersion(entry.current_version, bytes);
    AppendVersion({.time = entry.found_at, .replica = entry.found_by}, bytes);
    AppendVarint(entry.settlements.size(), bytes);
    for (const SettlementEntry& settlement : entry.settlements) {
      AppendVersion(settlement.version, bytes);
      bytes.push_back(static_cast<char>(settlement.choice));
    }
  }
  const std::string hash = Sha256(bytes);
  Reader reader(hash);
  StateDigest digest;
  for (uint64_t& lane : digest.lanes) lane = reader.Fixed64();
  return digest;
}

}  // namespace chaptersync::storage
