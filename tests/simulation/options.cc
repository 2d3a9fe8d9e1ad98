// SPDX-License-Identifier: Apache-2.0
//
// Names of faults and kinds of work, and options as a command line has them; see
// options.h. Any thread.
#include "tests/simulation/options.h"

#include "absl/strings/str_cat.h"

namespace chaptersync::simulation {
namespace {

template <typename E>
absl::StatusOr<E> Parse(const std::string& name, E last, const char* (*name_of)(E),
                        const char* what) {
  std::string all;
  for (uint8_t i = 0; i <= static_cast<uint8_t>(last); ++i) {
    const E one = static_cast<E>(i);
    if (name == name_of(one)) return one;
    absl::StrAppend(&all, all.empty() ? "" : ", ", name_of(one));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("there is no ", what, " '", name, "'; there are: ", all));
}

}  // namespace

const char* FaultName(Fault fault) {
  switch (fault) {
    case Fault::kCut:
      return "cut";
    case Fault::kHalfOpen:
      return "half-open";
    case Fault::kOneWay:
      return "one-way";
    case Fault::kSlowReader:
      return "slow-reader";
    case Fault::kClog:
      return "clog";
    case Fault::kDuplicateSession:
      return "duplicate-session";
    case Fault::kSwitchHub:
      return "switch-hub";
    case Fault::kHubUnreachable:
      return "hub-unreachable";
    case Fault::kCertificateEnded:
      return "certificate-ended";
    case Fault::kCrashBetweenEffects:
      return "crash-between-effects";
    case Fault::kCrashLosingUnsynced:
      return "crash-losing-unsynced";
    case Fault::kFailedWrite:
      return "failed-write";
    case Fault::kTornWrite:
      return "torn-write";
    case Fault::kFailedSync:
      return "failed-sync";
    case Fault::kDiskFull:
      return "disk-full";
    case Fault::kRestoreNode:
      return "restore-node";
    case Fault::kRestoreHub:
      return "restore-hub";
    case Fault::kCopiedFolder:
      return "copied-folder";
    case Fault::kClonedMachine:
      return "cloned-machine";
    case Fault::kNodeRolledBack:
      return "node-rolled-back";
    case Fault::kHubRolledBack:
      return "hub-rolled-back";
    case Fault::kClockJump:
      return "clock-jump";
    case Fault::kClockDrift:
      return "clock-drift";
    case Fault::kClockYearsOff:
      return "clock-years-off";
    case Fault::kOlderSchema:
      return "older-schema";
    case Fault::kSchemaUpgrade:
      return "schema-upgrade";
    case Fault::kNonsenseToHub:
      return "nonsense-to-hub";
    case Fault::kNonsenseToNode:
      return "nonsense-to-node";
    case Fault::kForgedPush:
      return "forged-push";
  }
  return "?";
}

const char* WorkName(Work work) {
  switch (work) {
    case Work::kCreate:
      return "create";
    case Work::kCreateSame:
      return "create-same";
    case Work::kEdit:
      return "edit";
    case Work::kEditLabels:
      return "edit-labels";
    case Work::kMove:
      return "move";
    case Work::kChangeHosts:
      return "hosts";
    case Work::kDelete:
      return "delete";
    case Work::kRestore:
      return "restore";
    case Work::kErase:
      return "erase";
    case Work::kSettle:
      return "settle";
    case Work::kFollower:
      return "follower";
    case Work::kMoveFollower:
      return "move-follower";
    case Work::kBatch:
      return "batch";
    case Work::kForbidden:
      return "forbidden";
    case Work::kRetryRefused:
      return "retry-refused";
    case Work::kDropRefused:
      return "drop-refused";
    case Work::kJoin:
      return "join";
    case Work::kRevoke:
      return "revoke";
    case Work::kScrub:
      return "scrub";
    case Work::kApprove:
      return "approve";
    case Work::kReject:
      return "reject";
  }
  return "?";
}

absl::StatusOr<Fault> ParseFault(const std::string& name) {
  return Parse<Fault>(name, kLastFault, FaultName, "fault");
}

absl::StatusOr<Work> ParseWork(const std::string& name) {
  return Parse<Work>(name, kLastWork, WorkName, "kind of work");
}

std::string Options::ToText() const {
  std::string out = absl::StrCat("--seed ", seed, " --steps ", steps);
  if (hubs) absl::StrAppend(&out, " --hubs ", *hubs);
  if (nodes) absl::StrAppend(&out, " --nodes ", *nodes);
  for (const Fault fault : without_faults) absl::StrAppend(&out, " --without ", FaultName(fault));
  for (const Work work : without_work) absl::StrAppend(&out, " --without ", WorkName(work));
  return out;
}

}  // namespace chaptersync::simulation
