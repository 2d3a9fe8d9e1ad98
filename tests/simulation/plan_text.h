// SPDX-License-Identifier: Apache-2.0
//
// How a plan spells times, records, fields, conflicts: from words and back. Errors say
// which word is wrong and what is allowed. Functions without state; any thread.
#ifndef CHAPTERSYNC_TESTS_SIMULATION_PLAN_TEXT_H_
#define CHAPTERSYNC_TESTS_SIMULATION_PLAN_TEXT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "storage/core/record.h"
#include "storage/replica/replica.h"
#include "tests/simulation/plain_record.h"

namespace chaptersync::simulation {

using Words = std::vector<std::string>;

absl::Status Wrong(const std::string& what);

// Words are divided by blanks; what stands in quotes is of one piece.
absl::StatusOr<Words> Split(const std::string& line);
std::string Joined(const Words& words);
// "none" where there are none.
std::string LinesText(const std::vector<std::string>& lines);

absl::StatusOr<uint64_t> Number(const std::string& word, uint64_t least, uint64_t most);
// "10s" in milliseconds.
absl::StatusOr<uint64_t> Duration(const std::string& word);
// "m1", as it stands.
absl::StatusOr<std::string> RecordName(const std::string& word);
// "phone", "label/blue", where the record has such a field.
absl::StatusOr<storage::CellPath> Path(const std::string& record, const std::string& word);

// A field and what it holds: "phone=555-0100". A follower's leader is written by its
// name, and held as its id.
struct PlanCell {
  storage::CellPath path;
  PlainValue value;
};
absl::StatusOr<PlanCell> CellOf(const std::string& record, const std::string& word);
std::string CellText(const std::string& record, const storage::CellPath& path,
                     const PlainValue& value);

// "live", "deleted", "erased", "absent".
std::string StateText(const std::optional<PlainRecord>& record);
// "m1 live name=Anna".
std::string RecordText(const std::string& name, const std::optional<PlainRecord>& record);
// "phone lost 555-0100 to 555-0199 open", "deletion lost to edit settled keep".
std::string EntryText(const std::string& record, const storage::ConflictEntry& entry);
// "m1 phone=555-0100 standing=gold", in the order of the names.
std::string RefusedText(const storage::RefusedWrite& write);

}  // namespace chaptersync::simulation

#endif  // CHAPTERSYNC_TESTS_SIMULATION_PLAN_TEXT_H_
