// SPDX-License-Identifier: Apache-2.0
//
// Members and consents that follow them, as small as tests of a replica by itself need them, and
// a clock that stands.
#ifndef CHAPTERSYNC_TESTS_STORAGE_REPLICA_SMALL_SCHEMA_H_
#define CHAPTERSYNC_TESTS_STORAGE_REPLICA_SMALL_SCHEMA_H_

#include <cstdint>
#include <map>
#include <string>

#include "storage/core/record_codec.h"
#include "storage/replica/replica.h"

namespace chaptersync::storage {

inline constexpr EntityNumber kMember{1};
inline constexpr EntityNumber kConsent{2};
inline constexpr uint32_t kChapter = 1;
inline constexpr uint32_t kLeader = 2;
inline constexpr uint32_t kText = 3;

class FixedEnvironment : public Environment {
 public:
  uint64_t NowMs() override { return now_ms; }
  uint64_t Random() override { return ++random; }
  uint64_t now_ms = 1'700'000'000'000;
  uint64_t random = 1;
};

inline RecordKey Key(uint32_t number, EntityNumber entity = kMember) {
  RecordKey key{entity, {}};
  for (size_t i = 0; i < 4; ++i) {
    key.id.bytes[15 - i] = static_cast<uint8_t>(number >> (8 * i));
  }
  return key;
}

inline CellWrite Text(uint32_t field, const std::string& text) {
  std::string wire;
  AppendVarint(uint64_t{field} * 8 + 2, wire);
  AppendString(text, wire);
  return {{.field = field, .map_key = {}}, wire};
}

inline std::map<EntityNumber, EntityRule> Rules() {
  using Clause = ScopeClause::Kind;
  std::map<EntityNumber, EntityRule> rules;
  rules[kMember].scope.clauses = {{.kind = Clause::kChapterField, .field = kChapter}};
  rules[kConsent].scope.clauses = {
      {.kind = Clause::kFollows, .field = kLeader, .leader = {kMember}}};
  return rules;
}

}  // namespace chaptersync::storage

#endif  // CHAPTERSYNC_TESTS_STORAGE_REPLICA_SMALL_SCHEMA_H_
