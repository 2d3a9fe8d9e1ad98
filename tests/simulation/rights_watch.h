// SPDX-License-Identifier: Apache-2.0
//
// Who may write what, worked out once more from who wrote it: what only headquarters
// or only an event's hosts write, and what goes to another chapter, stands nowhere but
// at its writer's own computers until headquarters has approved it. Shares no code with
// the product. A promise that does not hold is told at once. One thread.
#ifndef CHAPTERSYNC_TESTS_SIMULATION_RIGHTS_WATCH_H_
#define CHAPTERSYNC_TESTS_SIMULATION_RIGHTS_WATCH_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>

#include "tests/simulation/plain_record.h"

namespace chaptersync::simulation {

class RightsWatch {
 public:
  // Every promise broken is told here.
  explicit RightsWatch(std::function<void(const std::string& what)> fail)
      : fail_(std::move(fail)) {}

  // A hub has no chapter. Computers with one folder, copied, are one `node`.
  struct Computer {
    std::string name;
    std::string node;
    std::string chapter;
    bool hub() const { return chapter.empty(); }
  };
  void AddComputer(size_t site, Computer computer) { computers_[site] = std::move(computer); }
  // A computer has, or had, this replica id.
  void NoteId(size_t site, uint64_t replica) { owners_.emplace(replica, site); }
  // Somebody writes a value: a record is erased with whatever it was to follow.
  void Writes(const std::string& record, const std::string& path, const PlainValue& value);
  // Headquarters erases a record.
  void Ordered(const std::string& record) { ordered_.insert(record); }

  // The values that an officer at headquarters was shown when approving a push, by path.
  struct Shown {
    std::map<std::string, PlainCell> cells;
    bool conflicts = false;  // and conflicts or settlements
    bool erasure = false;
  };
  // An officer is about to approve; and has, at a hub which had `before` and has `now`.
  void Approve(const std::string& record, const Shown& shown);
  void Approved(size_t hub, const std::string& record, const Shown& shown,
                const PlainRecord* before, const PlainRecord& now);
  // It failed, or the hub's power did, and may have been done all the same: nothing is said of the
  // record's conflicts.
  void ApprovedInDoubt(const std::string& record) { doubted_.insert(record); }

  // A record as a computer has it, however it came there.
  void Observe(size_t site, const std::string& record, const PlainRecord& now);

  // Other records of a hub: as they stood before a change, and as they do now; null where they are
  // not there. `ever_in`: the scopes that a record has been in before the change, at any hub.
  struct Around {
    std::function<const PlainRecord*(const std::string& record)> before;
    std::function<const PlainRecord*(const std::string& record)> now;
    std::function<std::set<std::string>(const std::string& record)> ever_in;
  };
  // A hub has taken a change of a record. Before Observe of it.
  void Taken(size_t hub, const std::string& record, const PlainRecord* before,
             const PlainRecord& now, const Around& around);

 private:
  // One value that was written: record, path and stamp.
  using Written = std::tuple<std::string, std::string, Stamp>;

  void CheckWriter(size_t site, const std::string& record, const Stamp& stamp,
                   const std::string& what);
  bool MayBeErased(const std::string& record, std::set<std::string>& asked) const;
  // Calls `act` with path and stamp of whatever the record shows that somebody wrote.
  static void ForEach(const PlainRecord& record,
                      const std::function<void(const std::string& path, const Stamp& stamp)>& act);

  const std::function<void(const std::string&)> fail_;
  std::map<size_t, Computer> computers_;
  std::map<uint64_t, size_t> owners_;
  std::set<std::string> ordered_;
  std::map<std::string, std::set<std::string>> leaders_;  // that a record ever named
  std::set<std::pair<std::string, Stamp>> approved_;      // by record
  std::set<std::string> doubted_;                         // whose approval failed
  std::set<Written> at_hubs_;                             // that any hub has, or had
  std::set<Written> conflicts_at_hubs_;                   // the same of lost values
};

}  // namespace chaptersync::simulation

#endif  // CHAPTERSYNC_TESTS_SIMULATION_RIGHTS_WATCH_H_
