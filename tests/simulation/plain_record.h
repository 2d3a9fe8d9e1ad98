// SPDX-License-Identifier: Apache-2.0
//
// A record as the checkers see it: text instead of wire bytes, and their own
// judgement of what it means. Made from what a replica's Read gives; shares no
// code with the merge. Values only; one thread.
#ifndef CHAPTERSYNC_TESTS_SIMULATION_PLAIN_RECORD_H_
#define CHAPTERSYNC_TESTS_SIMULATION_PLAIN_RECORD_H_

#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "storage/replica/stored_record.h"

namespace chaptersync::simulation {

// The entities of every simulated federation, with their fields. A record is
// called by its entity's letter and a number: "m7".
inline constexpr uint32_t kMember = 1;   // m: of a chapter, or "everybody"
inline constexpr uint32_t kConsent = 2;  // c: follows its member
inline constexpr uint32_t kEvent = 3;    // e: of its hosts, or "everybody"
inline constexpr uint32_t kReply = 4;    // r: follows an event or another reply
// An entity's number stands in the first letter of its records' names.
inline constexpr char kLetters[] = " mcer";

inline constexpr uint32_t kChapter = 1;   // m: who holds it; e: "everybody" or none
inline constexpr uint32_t kLeader = 1;    // c: the member; r: the event
inline constexpr uint32_t kAbove = 2;     // r: the reply above it
inline constexpr uint32_t kName = 3;      // all
inline constexpr uint32_t kPhone = 4;     // all
inline constexpr uint32_t kLabels = 5;    // all: a map
inline constexpr uint32_t kHosts = 6;     // e: a map, its keys are chapters
inline constexpr uint32_t kStanding = 7;  // m: written by headquarters only
inline constexpr char kEverybody[] = "everybody";

// Text of a value: of a field without its wire bytes' head; a deletion "deleted",
// a restoration "restored".
using PlainValue = std::optional<std::string>;

// Names one write: clock and replica id.
struct Stamp {
  uint64_t time = 0;
  uint64_t replica = 0;
  friend auto operator<=>(const Stamp&, const Stamp&) = default;
};

struct PlainCell {
  PlainValue value;
  Stamp stamp;
  std::string actor;
};

struct PlainEntry {
  std::string path;
  PlainValue lost;
  Stamp lost_stamp;
  PlainValue current;
  Stamp current_stamp;
  bool open = true;
  std::string rest;                 // all else that the entry holds
  std::vector<Stamp> settled = {};  // of its settlements; in `rest` as well
};

struct PlainRecord {
  bool erased = false;
  std::map<std::string, PlainCell> cells;  // by path: "" existence, "3", "5/blue"
  std::vector<PlainEntry> log;
  // By replica id: up to which clock it claims to have seen writes. Not in Text.
  std::map<uint64_t, uint64_t> seen;

  // Deleted unless some field was written after the deletion.
  bool Live() const;
  PlainValue Value(const std::string& path) const;
  // All of it, for comparing and for people.
  std::string Text() const;
};

PlainRecord ToPlain(const storage::Record& record);
std::string PathText(const storage::CellPath& path);
PlainValue PlainValueOf(const storage::CellPath& path, const std::optional<std::string>& value);
std::string ToText(const PlainValue& value);

// "m7" and its key.
storage::RecordKey KeyOf(const std::string& name);
std::string NameOf(const storage::RecordKey& key);
// The text by which a follower names its leader, and back: of a field of `follower`; none where it
// names none.
std::string LeaderText(const std::string& name);
std::optional<std::string> LeaderName(const std::string& follower, const std::string& path,
                                      const PlainValue& value);

// Where a record is by the rules of design: the names of its scopes. `find` gives
// other records of the same replica, null where they are not there. Empty: nowhere
// yet, it follows what is not there. None: it was erased.
using FindRecord = const PlainRecord* (*)(const void* context, const std::string& name);
std::optional<std::set<std::string>> PlainScopes(const std::string& name, const PlainRecord& record,
                                                 FindRecord find, const void* context);

}  // namespace chaptersync::simulation

#endif  // CHAPTERSYNC_TESTS_SIMULATION_PLAIN_RECORD_H_
