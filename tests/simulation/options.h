// SPDX-License-Identifier: Apache-2.0
//
// What may vary in a run, besides the seed; and the names of the faults and of the
// kinds of work, by which they are counted and left out. Values; any thread.
#ifndef CHAPTERSYNC_TESTS_SIMULATION_OPTIONS_H_
#define CHAPTERSYNC_TESTS_SIMULATION_OPTIONS_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <string>

#include "absl/status/statusor.h"

namespace chaptersync::simulation {

inline constexpr size_t kHubsMax = 3;
inline constexpr size_t kNodesMax = 12;

enum class Fault : uint8_t {
  kCut,
  kHalfOpen,
  kOneWay,
  kSlowReader,
  kClog,
  kDuplicateSession,
  kSwitchHub,
  kHubUnreachable,
  kCertificateEnded,  // the hubs take nothing of a node any more, until it joins again
  kCrashBetweenEffects,
  kCrashLosingUnsynced,
  kFailedWrite,
  kTornWrite,
  kFailedSync,
  kDiskFull,
  kRestoreNode,
  kRestoreHub,
  kCopiedFolder,
  kClonedMachine,
  kNodeRolledBack,
  kHubRolledBack,
  kClockJump,
  kClockDrift,
  kClockYearsOff,
  kOlderSchema,
  kSchemaUpgrade,
  kNonsenseToHub,
  kNonsenseToNode,
  kForgedPush,  // by a thief with a node's certificate, and what must not stand
};
inline constexpr Fault kLastFault = Fault::kForgedPush;
const char* FaultName(Fault fault);

enum class Work : uint8_t {
  kCreate,
  kCreateSame,  // one record, made at two places
  kEdit,
  kEditLabels,
  kMove,
  kChangeHosts,
  kDelete,
  kRestore,
  kErase,
  kSettle,
  kFollower,
  kMoveFollower,
  kBatch,
  kForbidden,  // what only headquarters may write: the hub refuses it
  kRetryRefused,
  kDropRefused,
  kJoin,
  kRevoke,
  kScrub,
  kApprove,  // headquarters' word on what a node pushed
  kReject,
};
inline constexpr Work kLastWork = Work::kReject;
const char* WorkName(Work work);

struct Options {
  uint64_t seed = 1;
  // Messages delivered, writes and faults, before the quiet.
  uint64_t steps = 2000;
  // Drawn from the seed where not given.
  std::optional<size_t> hubs;
  std::optional<size_t> nodes;
  std::set<Fault> without_faults;
  std::set<Work> without_work;
  // Each state of this record is told among the events; changes nothing in the run.
  std::string watch;

  // As on the command line, without the program's name.
  std::string ToText() const;
};

// INVALID_ARGUMENT with the names that there are.
absl::StatusOr<Fault> ParseFault(const std::string& name);
absl::StatusOr<Work> ParseWork(const std::string& name);

}  // namespace chaptersync::simulation

#endif  // CHAPTERSYNC_TESTS_SIMULATION_OPTIONS_H_
