// SPDX-License-Identifier: Apache-2.0
//
// A scope rule as data: clauses over fields, united, else a default. Made from
// an entity's options by whoever has the schema; applied here to a record's own
// winning cells. Pure; any thread.
#ifndef CHAPTERSYNC_STORAGE_CORE_SCOPE_RULE_H_
#define CHAPTERSYNC_STORAGE_CORE_SCOPE_RULE_H_

#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "storage/core/record.h"

namespace chaptersync::storage {

struct ScopeClause {
  enum class Kind : uint8_t {
    kGlobal,        // everywhere
    kHq,            // headquarters only
    kChapterField,  // the chapter that the string field names
    kChapterKeys,   // the chapters that the map field's keys name; "hq" gives hq
    kOwnerField,    // as kChapterField; "hq" gives hq
    kFollows,       // where the record of `leader` is whose id the string field holds
  };
  Kind kind = Kind::kHq;
  uint32_t field = 0;
  EntityNumber leader;
  // The clause applies only where this field holds exactly these wire bytes.
  struct Condition {
    uint32_t field = 0;
    std::string value;
  };
  std::optional<Condition> when;
};

struct ScopeRule {
  std::vector<ScopeClause> clauses;
  Scope otherwise = Scope::Hq();  // where no clause applies
};

// What a record's own cells say of where it is.
struct OwnScopes {
  std::set<Scope> scopes;
  std::vector<RecordKey> leaders;  // follows these too
};

// Where a clause's field does not hold what it should (no string, no id), the
// clause gives nothing. `otherwise` is given where nothing else is.
OwnScopes Apply(const ScopeRule& rule, const Record& record);

// The text of an optional string field's wire bytes; none where they are no such.
std::optional<std::string_view> StringOf(const std::optional<std::string>& wire);

}  // namespace chaptersync::storage

#endif  // CHAPTERSYNC_STORAGE_CORE_SCOPE_RULE_H_
