// SPDX-License-Identifier: Apache-2.0
//
// A plain model of every write that a person made: what it saw, whether it was
// acknowledged, and at the end where it is. Knows nothing of merging; shares no
// code with the product. A promise that does not hold is a failure, told once.
// One thread.
#ifndef CHAPTERSYNC_TESTS_SIMULATION_LEDGER_H_
#define CHAPTERSYNC_TESTS_SIMULATION_LEDGER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "tests/simulation/plain_record.h"

namespace chaptersync::simulation {

// A set of writes of one record, by their number within it.
class WriteSet {
 public:
  bool Has(size_t number) const {
    return number / 64 < bits_.size() && (bits_[number / 64] >> (number % 64) & 1) != 0;
  }
  void Add(size_t number) {
    if (number / 64 >= bits_.size()) bits_.resize(number / 64 + 1);
    bits_[number / 64] |= uint64_t{1} << (number % 64);
  }
  void Unite(const WriteSet& other) {
    if (other.bits_.size() > bits_.size()) bits_.resize(other.bits_.size());
    for (size_t i = 0; i < other.bits_.size(); ++i) bits_[i] |= other.bits_[i];
  }

 private:
  std::vector<uint64_t> bits_;
};

struct PlainWrite {
  enum class Kind : uint8_t { kCell, kSettle, kErase };
  Kind kind = Kind::kCell;
  size_t site = 0;
  std::string path;        // kCell, kSettle
  PlainValue value;        // kCell: written; kSettle: that had lost
  WriteSet past;           // what its writer had seen
  std::set<Stamp> closed;  // kSettle: the entries of `value` that were open
  // False: the call failed, and the write may have been made all the same.
  bool acknowledged = false;
  bool unique = false;    // no other write of the record has this value
  bool observed = false;  // seen at some replica
  // The sites at which it was seen, a bit each; and those of them that have not let the record go
  // since, or gone back to where they did not have it.
  uint64_t seen_at = 0;
  uint64_t held_at = 0;
  // Those at which it is back, after what had replaced it there was refused.
  uint64_t back_at = 0;
  // Got another stamp at a computer that does not claim any more to have seen the first, or is
  // not claimed any more after a refusal.
  bool stamped_again = false;
  bool when_revoked = false;  // its site was revoked when it was made
  uint64_t replica = 0;       // the id that its replica had
  std::optional<Stamp> stamp;
  // Why it may be lost, or seem a conflict; empty: it may not.
  std::string excuse;
};

// Every kind of conflict that a conflict log can tell of.
std::vector<std::string> ConflictKinds();

// Records by name.
using PlainRecords = std::map<std::string, PlainRecord>;

class Ledger {
 public:
  // Every promise broken is told here.
  explicit Ledger(std::function<void(const std::string& what)> fail) : fail_(std::move(fail)) {}

  // --- Writes, around each call at a replica. ---

  // Who writes: a site, under its present replica id.
  struct Writer {
    size_t site = 0;
    uint64_t replica = 0;
  };
  // A write of several cells of `record` is about to be made where `visible` stands.
  // Returns its number among the record's; the cells have rising numbers from there.
  struct Cell {
    std::string path;
    PlainValue value;
    bool unique = false;
  };
  size_t Begin(Writer writer, const std::string& record, const PlainRecord* visible,
               const std::vector<Cell>& cells);
  size_t BeginSettle(Writer writer, const std::string& record, const PlainRecord& visible,
                     const std::string& path, const PlainValue& lost,
                     const std::vector<Cell>& cells);
  size_t BeginErase(Writer writer, const std::string& record, const PlainRecord& visible);
  // The replica has it, as `now` shows.
  void Acknowledge(const std::string& record, size_t first, size_t count, const PlainRecord& now);
  // The replica said that it was not made, and is believed.
  void TakeBack(const std::string& record, size_t first, size_t count);

  // --- What is seen of the replicas. ---

  // What a site holds from here on comes back to nobody.
  void Revoke(size_t site) { revoked_ |= uint64_t{1} << (site % 64); }
  // A record as a replica has it now; or that it has let it go.
  void Observe(size_t site, const std::string& record, const PlainRecord& now);
  void ObserveGone(size_t site, const std::string& record);
  // The records that were last seen at a site, but for `held`.
  std::vector<std::string> LastBut(size_t site, const std::set<std::string>& held) const;
  // A record as it was last seen at a site; null where it was not.
  const PlainRecord* Last(size_t site, const std::string& record) const;
  // A site's list of refused writes is told anew, from its beginning.
  void BeginRefused(size_t site) { lists_[site].clear(); }
  // It names a value.
  void Refused(size_t site, const std::string& record, const std::string& path,
               const PlainValue& value);
  void RefusedSettlements(size_t site, const std::string& record);
  // An officer takes it off the list: has written it once more, or lets it go.
  void TakeOff(size_t site, const std::string& record, const std::string& path,
               const PlainValue& value);

  // What a hub has replaced it replaces at whoever hears of it.
  void AddHub(size_t site) { hubs_ |= uint64_t{1} << (site % 64); }

  // --- Faults that the design names. ---

  // What `site` observed is as it was when these were its records.
  void GoBack(size_t site, const PlainRecords& records);
  // What only `records` had, and none of `others` has, may be lost.
  void Excuse(const PlainRecords& records, const std::vector<const PlainRecords*>& others,
              const std::string& why);
  // And so may what a site's list of refused writes names.
  void ExcuseRefused(size_t site, const std::string& why);
  // A hub's disk has gone back.
  void HubWentBack() { hub_went_back_ = true; }
  // Whatever `site` writes from now on may be lost, until `why` is empty.
  void ExcuseWritesOf(size_t site, const std::string& why) { excused_sites_[site] = why; }
  // The same of whatever is written under this replica id, before or after, by anybody.
  void ExcuseWritesUnder(uint64_t replica, const std::string& why) { excused_ids_[replica] = why; }
  // Two computers believe to be one: alarms over what either wrote are allowed, and
  // both may write under one id for a while.
  void Twins(size_t site, size_t twin);
  // Of what this site stamps again, others may know the first stamp.
  void AllowAlarms(size_t site) { alarms_allowed_of_.insert(site); }
  // The site does not know that its disk went back: an old id is what it has.
  void MayUseOldIds(size_t site) { forbidden_.erase(site); }
  // The site was restored or copied from `original`, and knows it: never again the
  // ids that were used there.
  void MustTakeNewId(size_t site, size_t original);

  // --- The end. ---

  // Every write must be accounted for, where `records` stand at a hub.
  void CheckAll(const PlainRecords& records);
  // The record that a value was written to; empty where none was.
  std::string RecordOf(const std::string& unique_value) const;

  uint64_t writes() const { return writes_; }
  // By reason.
  const std::map<std::string, uint64_t>& alarms_allowed() const { return alarms_allowed_; }
  // Losses by their excuse.
  const std::map<std::string, uint64_t>& losses_allowed() const { return losses_allowed_; }
  // Where acknowledged writes ended.
  const std::map<std::string, uint64_t>& endings() const { return endings_; }
  // Kinds of conflict found, over all records.
  const std::map<std::string, uint64_t>& conflicts() const { return conflicts_; }

 private:
  struct History {
    std::vector<PlainWrite> writes;
    std::map<std::pair<std::string, Stamp>, size_t> by_stamp;
    // The same by value as well: two computers that believe to be one may have made two.
    std::map<std::tuple<std::string, Stamp, PlainValue>, size_t> by_version;
    std::map<std::pair<std::string, PlainValue>, std::vector<size_t>> by_value;
    std::set<std::tuple<std::string, PlainValue, Stamp>> judged;  // conflict entries
    std::map<std::pair<std::string, Stamp>, PlainValue> content;
    // Sites whose settlements a hub refused, with the conflicts that were settled there.
    std::map<size_t, std::set<std::pair<std::string, Stamp>>> refused_settlements;
  };
  struct SiteMemory {
    std::map<std::string, PlainRecord> last;  // as it was last seen
    std::map<std::string, bool> erased;
    std::map<std::string, std::set<std::pair<std::string, Stamp>>> settled;
  };

  size_t Add(const std::string& record, PlainWrite write);
  static void NoteStamp(History& history, const Stamp& stamp, size_t number);
  // Writes that `site` has stamped again: what had a known version has another now.
  void FollowStamps(History& history, const PlainRecord& before, const PlainRecord& now);
  // Writes that stand at `site` once more.
  void NoteBack(size_t site, History& history, const PlainRecord& before, const PlainRecord& now);
  // Finds out which write in doubt it was that a version tells of.
  void Resolve(History& history, const std::string& path, const PlainValue& value,
               const Stamp& stamp);
  std::optional<size_t> Find(const History& history, const std::string& path,
                             const PlainValue& value, const Stamp& stamp) const;
  // What a record's state shows: values that stand, and those in its conflict log.
  WriteSet Held(const History& history, const PlainRecord& record) const;
  // And all that their writers had seen.
  WriteSet Visible(const History& history, const PlainRecord& record) const;
  void Judge(const std::string& name, History& history, const PlainEntry& entry);
  // How a write ended by itself, whatever came after it; empty where it is not there.
  std::string EndingAlone(const History& history, size_t number, const PlainRecord* record) const;
  // Writes of the same value that did not know of this one, nor it of them. They are no
  // conflict: where one is accounted for, so are all.
  std::vector<size_t> EqualsOf(const History& history, size_t number) const;
  // Whether the set has a write, or one equal to it.
  bool Stands(const History& history, const WriteSet& set, size_t number) const;
  // The writes of a value that a site's list of refused writes can mean.
  std::vector<size_t> MeantBy(size_t site, const std::string& record, const std::string& path,
                              const PlainValue& value) const;
  // How a write ended.
  struct End {
    std::string how;     // empty: it is lost
    std::string excuse;  // not empty: it may be
    bool there = false;  // in the record, by itself or by what replaced it
  };
  // Where something was refused of the record that would have had it follow what is erased now:
  // with that it goes from lists.
  std::set<size_t> GoneWithLeader(const std::string& name, const History& history,
                                  const PlainRecords& records) const;
  // By the writes' numbers. A write that replaced others stands for them only as it ended itself.
  std::vector<End> Endings(const std::string& name, const History& history,
                           const PlainRecord* record,
                           const std::set<size_t>& gone_with_leader) const;
  // Whether an alarm over a write is one that the design allows.
  bool MayAlarm(const PlainWrite& write) const;
  // Whether what a settlement closed may be open once more, as it was stamped again.
  bool WentWithRefusal(const History& history, const PlainWrite& settlement) const;
  bool FoundAgain(const History& history, const PlainWrite& settlement) const;
  bool AreTwins(size_t a, size_t b) const;

  const std::function<void(const std::string&)> fail_;
  std::map<std::string, History> histories_;
  uint64_t revoked_ = 0;  // sites, a bit each
  uint64_t hubs_ = 0;     // the same
  std::map<size_t, SiteMemory> memory_;
  bool hub_went_back_ = false;
  std::map<size_t, std::string> excused_sites_;
  std::map<uint64_t, std::string> excused_ids_;
  std::set<size_t> alarms_allowed_of_;
  std::map<uint64_t, size_t> owner_;  // of a replica id: the site that wrote under it
  std::map<Stamp, std::pair<size_t, std::string>> stamps_;
  std::map<size_t, std::set<size_t>> twins_;
  std::map<size_t, std::set<uint64_t>> forbidden_;
  std::map<std::string, std::string> record_of_;
  // Writes by record and number: that a list of refused writes ever named; those in each site's
  // list as it was last told; those that an officer took off one; those that went with one.
  using Writes = std::map<std::string, std::set<size_t>>;
  Writes refused_;
  std::map<size_t, Writes> lists_;
  Writes taken_off_;
  std::map<std::string, std::map<size_t, std::string>> gone_with_lists_;
  uint64_t writes_ = 0;
  std::map<std::string, uint64_t> alarms_allowed_;
  std::map<std::string, uint64_t> losses_allowed_;
  std::map<std::string, uint64_t> endings_;
  std::map<std::string, uint64_t> conflicts_;
};

}  // namespace chaptersync::simulation

#endif  // CHAPTERSYNC_TESTS_SIMULATION_LEDGER_H_
