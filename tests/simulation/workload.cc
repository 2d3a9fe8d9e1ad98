// SPDX-License-Identifier: Apache-2.0
//
// Random work and random faults, in one federation whose shape is drawn as well; see
// workload.h. One thread.
#include "tests/simulation/workload.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace chaptersync::simulation {
namespace {

using Aware = Federation::Aware;
using CellText = Federation::CellText;
using Edit = Federation::Edit;

// Streams of random numbers, by purpose; those of the federation are below 100.
enum Purpose : uint64_t { kShape = 50, kWork = 51, kBreak = 52 };

constexpr uint64_t kYearMs = uint64_t{365} * 24 * 3600 * 1000;
// Hubs agree on the time this well where there are several, in milliseconds.
constexpr int64_t kHubsApartMsMax = 12'000;
// Seconds for the federation to come to rest.
constexpr uint64_t kTicksMax = 1500;
constexpr size_t kCopiesMax = 2;

const std::vector<std::string>& Chapters() {
  static const auto* const chapters = new std::vector<std::string>{"milan", "toronto", "oslo"};
  return *chapters;
}

class Workload {
 public:
  explicit Workload(const Options& options, const std::function<void(const std::string&)>& sink)
      : options_(options),
        shape_(options.seed, Purpose::kShape),
        work_(options.seed, Purpose::kWork),
        break_(options.seed, Purpose::kBreak),
        federation_(options, DrawLimits()) {
    federation_.set_event_sink(sink);
  }

  Report Run() {
    Build();
    WorkLater();
    BreakLater();
    BackUpLater();
    while (federation_.steps() < options_.steps && federation_.Step()) {
    }
    over_ = true;
    if (!federation_.failed()) federation_.Settle(kTicksMax, [this] { UseTwins(); });
    return federation_.Finish();
  }

 private:
  Federation::Limits DrawLimits() {
    Federation::Limits limits;
    limits.page_bytes_max = shape_.Pick(std::vector<size_t>{512, 2048, 16384});
    limits.page_records_max = shape_.Pick(std::vector<size_t>{1, 3, 8, 64});
    limits.backlog_bytes_max = shape_.Pick(std::vector<size_t>{600, 4096, 65536});
    return limits;
  }

  bool With(Fault fault) const { return !options_.without_faults.contains(fault); }

  // --- The federation. ---

  void Build() {
    const uint64_t roll = shape_.Below(100);
    hubs_ = options_.hubs.value_or(roll < 55 ? 1 : roll < 85 ? 2 : 3);
    const size_t nodes =
        options_.nodes.value_or(shape_.Chance(700) ? shape_.Between(2, 5) : shape_.Between(6, 11));
    hub_years_off_ = hubs_ == 1 && shape_.Chance(400);
    for (size_t hub = 0; hub < hubs_; ++hub) {
      const bool older = shape_.Chance(120) && With(Fault::kOlderSchema);
      if (older) federation_.CountFault(Fault::kOlderSchema);
      const size_t site = federation_.AddHub(absl::StrCat("hq", hub + 1), older);
      DrawClock(site);
    }
    // A star, and at times a ring.
    for (size_t hub = 1; hub < hubs_; ++hub) federation_.LinkHubs(hub, 0);
    if (hubs_ == 3 && shape_.Chance(500)) federation_.LinkHubs(1, 2);
    for (size_t node = 0; node < nodes; ++node) Join(shape_);
  }

  void Join(Random& random) {
    const std::string chapter = Chapters()[random.Below(random.Chance(600) ? 2 : 3)];
    const bool older = random.Chance(150) && With(Fault::kOlderSchema);
    if (older) federation_.CountFault(Fault::kOlderSchema);
    const size_t site = federation_.AddNode(absl::StrCat(chapter, federation_.sites()), chapter,
                                            random.Below(hubs_), older);
    DrawClock(site);
  }

  void DrawClock(size_t site) {
    const int64_t apart = federation_.hub(site) ? kHubsApartMsMax : 5000;
    const auto offset = static_cast<int64_t>(shape_.Below(2 * static_cast<uint64_t>(apart)));
    federation_.JumpClock(site, offset - apart);
    offsets_[site] = offset - apart;
  }

  std::vector<size_t> Sites(const std::function<bool(size_t)>& condition) {
    std::vector<size_t> out;
    for (size_t site = 0; site < federation_.sites(); ++site) {
      if (condition(site)) out.push_back(site);
    }
    return out;
  }

  // --- Work. ---

  void WorkLater() {
    const uint64_t wait_ms = work_.Chance(950)   ? work_.Between(1, 400)
                             : work_.Chance(900) ? work_.Between(400, 8000)
                                                 : work_.Between(8'000, 90'000);
    federation_.scheduler().After(wait_ms, [this] {
      if (over_) return;
      DoWork();
      WorkLater();
    });
  }

  void DoWork() {
    struct Weight {
      Work work;
      uint64_t weight;
    };
    static constexpr Weight kWeights[] = {
        {Work::kCreate, 60},     {Work::kCreateSame, 12}, {Work::kEdit, 330},
        {Work::kEditLabels, 70}, {Work::kMove, 60},       {Work::kChangeHosts, 45},
        {Work::kDelete, 50},     {Work::kRestore, 50},    {Work::kErase, 8},
        {Work::kSettle, 90},     {Work::kFollower, 50},   {Work::kMoveFollower, 25},
        {Work::kBatch, 30},      {Work::kForbidden, 15},  {Work::kRetryRefused, 12},
        {Work::kDropRefused, 6}, {Work::kJoin, 4},        {Work::kRevoke, 1},
        {Work::kScrub, 4},       {Work::kApprove, 30},    {Work::kReject, 10},
    };
    uint64_t total = 0;
    for (const Weight& weight : kWeights) total += weight.weight;
    uint64_t roll = work_.Below(total);
    for (const Weight& weight : kWeights) {
      if (roll >= weight.weight) {
        roll -= weight.weight;
        continue;
      }
      if (options_.without_work.contains(weight.work)) return;
      const auto sites = Sites([&](size_t s) { return federation_.up(s); });
      if (sites.empty()) return;
      if (Do(weight.work, work_.Pick(sites))) federation_.CountWork(weight.work);
      return;
    }
  }

  bool Do(Work work, size_t site) {
    switch (work) {
      case Work::kCreate:
        return Create(site);
      case Work::kCreateSame:
        return CreateSame(site);
      case Work::kEdit:
        return EditSome(site);
      case Work::kEditLabels:
        return EditLabels(site);
      case Work::kMove:
        return Move(site);
      case Work::kChangeHosts:
        return Hosts(site);
      case Work::kDelete:
        return WithRecord(site, "mcer",
                          [&](const std::string& r) { return federation_.Delete(site, r); });
      case Work::kRestore:
        return RestoreOne(site);
      case Work::kErase:
        return federation_.hub(site) && WithRecord(site, "mer", [&](const std::string& r) {
                 return federation_.Erase(site, r);
               });
      case Work::kSettle:
        return SettleOne(site);
      case Work::kFollower:
        return Follower(site);
      case Work::kMoveFollower:
        return MoveFollower(site);
      case Work::kBatch:
        return Batch(site);
      case Work::kForbidden:
        return Forbidden(site);
      case Work::kRetryRefused:
        return federation_.RetryRefused(site);
      case Work::kDropRefused:
        return federation_.DropRefused(site);
      case Work::kJoin:
        if (federation_.sites() >= hubs_ + kNodesMax) return false;
        Join(work_);
        return true;
      case Work::kRevoke:
        return RevokeOne(site);
      case Work::kScrub:
        return federation_.Scrub(site);
      case Work::kApprove:
      case Work::kReject:
        return Decide(work == Work::kApprove);
    }
    return false;
  }

  // Calls `act` with a record of these kinds that the site holds.
  bool WithRecord(size_t site, const std::string& letters,
                  const std::function<bool(const std::string&)>& act) {
    if (names_.empty()) return false;
    for (int attempt = 0; attempt < 8; ++attempt) {
      const std::string& record = work_.Pick(names_);
      if (letters.find(record[0]) == std::string::npos) continue;
      if (!federation_.Read(site, record)) continue;
      return act(record);
    }
    return false;
  }

  CellText Text(uint32_t field) {
    const uint64_t roll = work_.Below(100);
    if (roll < 82) return {field, std::nullopt, federation_.FreshText(), true};
    if (roll < 92) return {field, std::nullopt, "same", false};
    return {field, std::nullopt, std::nullopt, false};
  }

  CellText Plain(uint32_t field, PlainValue value) {
    return {field, std::nullopt, std::move(value), false};
  }

  // Whom a record that is made at a site belongs to.
  std::string Home(size_t site) {
    if (work_.Chance(200)) return kEverybody;
    return federation_.hub(site) ? work_.Pick(Chapters()) : federation_.chapter(site);
  }

  std::string NewName(char letter) {
    names_.push_back(std::string(1, letter) + std::to_string(++last_[letter]));
    return names_.back();
  }

  bool Create(size_t site) {
    const bool event = work_.Chance(350);
    if (last_['m'] + last_['e'] >= kLeadersMax) return EditSome(site);
    Edit edit{NewName(event ? 'e' : 'm'), {Text(kName), Text(kPhone)}};
    const std::string home = Home(site);
    if (!event) {
      edit.cells.push_back(Plain(kChapter, home));
    } else if (home == kEverybody) {
      edit.cells.push_back(Plain(kChapter, home));
      if (!federation_.hub(site) && work_.Chance(850)) {
        edit.cells.push_back({kHosts, federation_.chapter(site), "host", false});
      }
    } else {
      edit.cells.push_back({kHosts, home, "host", false});
      if (work_.Chance(300)) edit.cells.push_back({kHosts, work_.Pick(Chapters()), "host", false});
    }
    return federation_.Put(site, {edit});
  }

  // What everybody may make by its name, as chapters are made.
  bool CreateSame(size_t site) {
    const std::string record = absl::StrCat("m", 1000 + work_.Below(2));
    if (std::find(names_.begin(), names_.end(), record) == names_.end()) names_.push_back(record);
    if (federation_.Read(site, record)) return false;
    return federation_.Put(site, {{record, {Plain(kChapter, kEverybody), Text(kName)}}});
  }

  std::vector<CellText> SomeCells() {
    std::vector<CellText> cells;
    if (work_.Chance(650)) cells.push_back(Text(kName));
    if (cells.empty() || work_.Chance(400)) cells.push_back(Text(kPhone));
    return cells;
  }

  bool EditSome(size_t site) {
    return WithRecord(site, "mcer", [&](const std::string& record) {
      return federation_.Put(site, {{record, SomeCells()}});
    });
  }

  bool EditLabels(size_t site) {
    static const auto* const keys = new std::vector<std::string>{"blue", "red"};
    return WithRecord(site, "mcer", [&](const std::string& record) {
      CellText cell = Text(kLabels);
      cell.map_key = work_.Pick(*keys);
      return federation_.Put(site, {{record, {cell}}});
    });
  }

  bool Move(size_t site) {
    return WithRecord(site, "m", [&](const std::string& record) {
      std::vector<CellText> cells = {
          Plain(kChapter, work_.Chance(150) ? std::string(kEverybody) : work_.Pick(Chapters()))};
      if (work_.Chance(40)) cells = {Plain(kChapter, std::nullopt)};  // nobody's: headquarters'
      if (work_.Chance(300)) cells.push_back(Text(kName));
      return federation_.Put(site, {{record, cells}});
    });
  }

  bool Hosts(size_t site) {
    return WithRecord(site, "e", [&](const std::string& record) {
      std::vector<CellText> cells;
      if (work_.Chance(150)) {
        cells.push_back(Plain(kChapter, work_.Chance(500) ? PlainValue(kEverybody) : std::nullopt));
      }
      const std::string host = work_.Chance(80) ? "hq" : work_.Pick(Chapters());
      cells.push_back({kHosts, host, work_.Chance(500) ? PlainValue("host") : std::nullopt, false});
      return federation_.Put(site, {{record, cells}});
    });
  }

  bool RestoreOne(size_t site) {
    for (const std::string& record : names_) {
      const auto held = federation_.Read(site, record);
      if (held && !held->erased && !held->Live() && work_.Chance(500)) {
        return federation_.Restore(site, record);
      }
    }
    return false;
  }

  bool SettleOne(size_t site) {
    storage::Replica* replica = federation_.replica(site);
    std::string next;
    const auto conflicts = replica->ListConflicts(true, "", 20, next);
    if (!conflicts.ok() || conflicts->empty()) return false;
    const storage::ConflictRef& ref = work_.Pick(*conflicts);
    const uint64_t roll = work_.Below(100);
    const uint32_t field = ref.entry.path.field;
    const bool text = field == kName || field == kPhone || field == kLabels;
    const storage::Choice choice = roll < 40            ? storage::Choice::kKeep
                                   : roll < 80 || !text ? storage::Choice::kTake
                                                        : storage::Choice::kValue;
    PlainValue third;
    if (choice == storage::Choice::kValue) third = federation_.FreshText();
    return federation_.SettleConflict(site, NameOf(ref.key), ref.entry.path, ref.entry.lost_value,
                                      choice, third);
  }

  // The text of a record of the kind to follow; at times one that is not here.
  PlainValue Leader(size_t site, char letter) {
    std::vector<std::string> some;
    for (const std::string& record : names_) {
      if (record[0] != letter) continue;
      if (federation_.Read(site, record) || work_.Chance(150)) some.push_back(record);
    }
    if (some.empty()) return std::nullopt;
    return LeaderText(work_.Pick(some));
  }

  bool Follower(size_t site) {
    const bool reply = work_.Chance(600);
    if (last_['c'] + last_['r'] >= kFollowersMax) return MoveFollower(site);
    if (reply && !federation_.knows(site, kReply)) return false;
    const bool above = reply && work_.Chance(550);
    const PlainValue leader = Leader(site, !reply ? 'm' : above ? 'r' : 'e');
    if (!leader) return false;
    Edit edit{NewName(reply ? 'r' : 'c'), {Plain(above ? kAbove : kLeader, leader), Text(kName)}};
    return federation_.Put(site, {edit});
  }

  bool MoveFollower(size_t site) {
    return WithRecord(site, "cr", [&](const std::string& record) {
      const bool reply = record[0] == 'r';
      if (reply && !federation_.knows(site, kReply)) return false;
      const bool above = reply && work_.Chance(500);
      const PlainValue leader = Leader(site, !reply ? 'm' : above ? 'r' : 'e');
      return federation_.Put(site, {{record, {Plain(above ? kAbove : kLeader, leader)}}});
    });
  }

  bool Batch(size_t site) {
    std::map<std::string, Edit> edits;
    for (int i = 0; i < 4; ++i) {
      WithRecord(site, "mcer", [&](const std::string& record) {
        edits[record] = {record, SomeCells()};
        return true;
      });
    }
    std::vector<Edit> batch;
    for (auto& [record, edit] : edits) batch.push_back(std::move(edit));
    return !batch.empty() && federation_.Put(site, batch);
  }

  bool Forbidden(size_t site) {
    return WithRecord(site, "m", [&](const std::string& record) {
      std::vector<CellText> cells = {Text(kStanding)};
      if (work_.Chance(400)) cells.push_back(Text(kName));
      return federation_.Put(site, {{record, cells}});
    });
  }

  bool Decide(bool approve) {
    const auto hubs = Sites([&](size_t s) { return federation_.hub(s) && federation_.up(s); });
    return !hubs.empty() && federation_.Decide(work_.Pick(hubs), approve);
  }

  bool RevokeOne(size_t site) {
    const auto nodes =
        Sites([&](size_t s) { return !federation_.hub(s) && !federation_.revoked(s); });
    if (federation_.hub(site) || federation_.revoked(site) || nodes.size() < 3) return false;
    federation_.Revoke(site);
    return true;
  }

  // Twins take each other's place at the hub for as long as both only listen: that
  // there are two is found out when both have written.
  void UseTwins() {
    for (size_t site = 0; site < federation_.sites(); ++site) {
      if (!federation_.has_twin(site)) continue;
      federation_.Put(site,
                      {{NewName('m'), {Plain(kChapter, federation_.chapter(site)), Text(kName)}}});
    }
  }

  // --- Faults. ---

  void BackUpLater() {
    federation_.scheduler().After(break_.Between(500, 12'000), [this] {
      if (over_) return;
      federation_.TakeBackup(break_.Below(federation_.sites()));
      BackUpLater();
    });
  }

  void BreakLater() {
    federation_.scheduler().After(break_.Between(100, 3'500), [this] {
      if (over_) return;
      const auto fault = static_cast<Fault>(break_.Below(static_cast<uint64_t>(kLastFault) + 1));
      const bool rare = fault >= Fault::kRestoreNode && fault <= Fault::kHubRolledBack;
      if (With(fault) && (!rare || break_.Chance(300)) && Break(fault)) {
        federation_.CountFault(fault);
      }
      BreakLater();
    });
  }

  std::optional<size_t> OneOf(const std::function<bool(size_t)>& condition) {
    const auto sites = Sites(condition);
    if (sites.empty()) return std::nullopt;
    return break_.Pick(sites);
  }

  std::optional<size_t> UpNode() {
    return OneOf([&](size_t s) {
      return federation_.up(s) && !federation_.hub(s) && !federation_.revoked(s);
    });
  }
  std::optional<size_t> UpSite() {
    return OneOf([&](size_t s) { return federation_.up(s); });
  }

  // For a fault that may never come to take effect: counts it when it does.
  std::function<void()> Counts(Fault fault) {
    return [this, fault] { federation_.CountFault(fault); };
  }

  // Whether the fault is to be counted now.
  bool Break(Fault fault) {
    switch (fault) {
      case Fault::kCut:
      case Fault::kHalfOpen:
      case Fault::kOneWay:
      case Fault::kSlowReader:
      case Fault::kClog:
        return BreakLine(fault);
      case Fault::kDuplicateSession: {
        const auto site = UpNode();
        return site && federation_.DialAgain(*site);
      }
      case Fault::kSwitchHub: {
        const auto site = UpNode();
        if (!site || hubs_ < 2) return false;
        federation_.SwitchHub(*site, break_.Below(hubs_));
        return true;
      }
      case Fault::kHubUnreachable:
        return Unreachable();
      case Fault::kCertificateEnded: {
        const auto site = UpNode();
        if (!site) return false;
        federation_.EndCertificate(*site);
        federation_.scheduler().After(break_.Between(500, 60'000),
                                      [this, site = *site] { federation_.JoinAgain(site); });
        return true;
      }
      case Fault::kCrashBetweenEffects: {
        const auto site = UpSite();
        if (!site) return false;
        federation_.Log("power will fail at " + federation_.name(*site));
        federation_.CrashAfter(*site, break_.Below(25), Counts(fault));
        return false;
      }
      case Fault::kCrashLosingUnsynced: {
        const auto site = UpSite();
        if (!site) return false;
        federation_.Log("power fails at " + federation_.name(*site));
        federation_.Crash(*site, break_.Between(10, 4000), true);
        return true;
      }
      case Fault::kFailedWrite:
      case Fault::kTornWrite:
      case Fault::kFailedSync:
      case Fault::kDiskFull:
        return BreakDisk(fault);
      case Fault::kRestoreNode:
        return GoBack(false, Aware::kYes);
      case Fault::kRestoreHub:
        return !hub_years_off_ && GoBack(true, Aware::kYes);
      case Fault::kNodeRolledBack:
        return hubs_ == 1 && GoBack(false, Aware::kNo);
      case Fault::kHubRolledBack:
        return !hub_years_off_ && GoBack(true, Aware::kNo);
      case Fault::kCopiedFolder:
        return Copy(Aware::kYes);
      case Fault::kClonedMachine:
        return hubs_ == 1 && Copy(Aware::kNo);
      case Fault::kClockJump:
      case Fault::kClockDrift:
      case Fault::kClockYearsOff:
        return BreakClock(fault);
      case Fault::kOlderSchema: {
        const auto site = UpNode();
        if (!site || !federation_.knows(*site, kReply)) return false;
        federation_.Log(federation_.name(*site) + " gets an older schema");
        federation_.SetSchema(*site, true);
        return true;
      }
      case Fault::kSchemaUpgrade: {
        const auto site =
            OneOf([&](size_t s) { return federation_.up(s) && !federation_.knows(s, kReply); });
        if (!site) return false;
        federation_.Log(federation_.name(*site) + " gets a newer schema");
        federation_.SetSchema(*site, false);
        return true;
      }
      case Fault::kNonsenseToHub:
        federation_.Log("nonsense to a hub");
        return federation_.NonsenseToHub(break_.Below(hubs_));
      case Fault::kNonsenseToNode: {
        const auto site = UpNode();
        if (!site || federation_.LineOf(*site) == nullptr) return false;
        federation_.Log("nonsense to " + federation_.name(*site));
        return federation_.NonsenseToNode(*site);
      }
      case Fault::kForgedPush:
        federation_.ForgeToHub(break_.Below(hubs_));
        return false;
    }
    return false;
  }

  bool BreakLine(Fault fault) {
    const auto site = OneOf([&](size_t s) { return federation_.LineOf(s) != nullptr; });
    if (!site) return false;
    Line& line = *federation_.LineOf(*site);
    federation_.Log(absl::StrCat("the line of ", federation_.name(*site), ": ", FaultName(fault)));
    const size_t side = break_.Below(2);
    switch (fault) {
      case Fault::kCut:
        line.CutAfter(break_.Below(12), Counts(fault));
        return false;
      case Fault::kHalfOpen:
        line.LoseFrom(0, break_.Between(1'000, 40'000));
        line.LoseFrom(1, 40'000);
        break;
      case Fault::kOneWay:
        // Now and then only the session itself finds out.
        line.LoseFrom(side, break_.Chance(100) ? 400'000 : break_.Between(1'000, 30'000));
        break;
      case Fault::kSlowReader:
        line.SlowReader(side, break_.Between(50, 2'000));
        break;
      default:
        line.Clog(side, break_.Between(100, 15'000));
        break;
    }
    return true;
  }

  bool Unreachable() {
    const auto site = UpSite();
    if (!site) return false;
    federation_.Log(federation_.name(*site) + " cannot be reached");
    federation_.Isolate(*site, true);
    const uint64_t wait_ms =
        break_.Chance(800) ? break_.Between(500, 8'000) : break_.Between(8'000, 60'000);
    federation_.scheduler().After(wait_ms,
                                  [this, site = *site] { federation_.Isolate(site, false); });
    return true;
  }

  bool BreakDisk(Fault fault) {
    const auto site = UpSite();
    if (!site) return false;
    federation_.Log(absl::StrCat(federation_.name(*site), ": ", FaultName(fault)));
    const absl::Status full = absl::ResourceExhaustedError("the disk is full");
    switch (fault) {
      case Fault::kFailedWrite:
        federation_.FailNextWrites(*site, 1, full, Counts(fault));
        break;
      case Fault::kTornWrite:
        federation_.FailNextWrites(*site, 1, absl::DataLossError("the disk failed in a write"),
                                   Counts(fault));
        break;
      case Fault::kFailedSync:
        federation_.FailNextSyncs(*site, 1, absl::DataLossError("the disk failed in a sync"),
                                  Counts(fault));
        break;
      default:
        federation_.FailNextWrites(*site, 1'000'000, full, Counts(fault));
        federation_.scheduler().After(break_.Between(500, 8'000), [this, site = *site] {
          federation_.FailNextWrites(site, 0, absl::OkStatus());
        });
        break;
    }
    return false;
  }

  bool GoBack(bool hub, Aware aware) {
    const auto site = OneOf([&](size_t s) {
      return federation_.hub(s) == hub && federation_.HasBackup(s) && !federation_.revoked(s);
    });
    if (!site) return false;
    federation_.GoBack(*site, aware);
    return true;
  }

  bool Copy(Aware aware) {
    const auto site = UpNode();
    if (!site || copies_ >= kCopiesMax || federation_.sites() >= hubs_ + kNodesMax) return false;
    const auto copy = federation_.Copy(*site, aware);
    if (!copy) return false;
    ++copies_;
    if (hubs_ > 1 && break_.Chance(500)) federation_.SwitchHub(*copy, break_.Below(hubs_));
    return true;
  }

  bool BreakClock(Fault fault) {
    const bool hubs_apart = hubs_ > 1;
    const auto site = OneOf([&](size_t s) {
      if (!federation_.hub(s) || fault == Fault::kClockJump) return true;
      return fault == Fault::kClockYearsOff ? hub_years_off_ : !hubs_apart;
    });
    if (!site) return false;
    const bool hub = federation_.hub(*site);
    int64_t offset = 0;
    switch (fault) {
      case Fault::kClockJump: {
        const int64_t far = hub && hubs_apart ? kHubsApartMsMax : 120'000;
        offset = static_cast<int64_t>(break_.Below(2 * static_cast<uint64_t>(far))) - far;
        break;
      }
      case Fault::kClockDrift:
        federation_.Log(federation_.name(*site) + "'s clock drifts");
        federation_.DriftClock(*site, static_cast<int64_t>(break_.Below(100'000)) - 50'000);
        return true;
      default:
        offset = static_cast<int64_t>(break_.Between(1, 3) * kYearMs);
        if (break_.Chance(500)) offset = -offset;
        break;
    }
    federation_.Log(absl::StrCat(federation_.name(*site), "'s clock is put to ", offset, " ms"));
    federation_.JumpClock(*site, offset - offsets_[*site]);
    offsets_[*site] = offset;
    return true;
  }

  static constexpr uint64_t kLeadersMax = 14;
  static constexpr uint64_t kFollowersMax = 16;

  const Options options_;
  Random shape_;
  Random work_;
  Random break_;
  Federation federation_;
  size_t hubs_ = 1;
  size_t copies_ = 0;
  // The hub's clock may be years off: then its disk does not go back, as the stamps that
  // it would forget are years ahead of what it would take.
  bool hub_years_off_ = false;
  bool over_ = false;
  std::vector<std::string> names_;
  std::map<char, uint64_t> last_;
  std::map<size_t, int64_t> offsets_;
};

}  // namespace

Report Simulate(const Options& options, const std::function<void(const std::string&)>& sink) {
  return Workload(options, sink).Run();
}

}  // namespace chaptersync::simulation
