// SPDX-License-Identifier: Apache-2.0
//
// A federation in one thread: computers with clocks and disks, replicas, sessions
// and the hub's session table as in production, over simulated lines. What people
// do and what breaks comes from outside (workload.h, plan.h); here it happens, and
// here every promise is watched. One thread.
#ifndef CHAPTERSYNC_TESTS_SIMULATION_FEDERATION_H_
#define CHAPTERSYNC_TESTS_SIMULATION_FEDERATION_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/status.h"

#include "hub/session_table.h"
#include "node/sync/back_off.h"
#include "node/sync/executor.h"
#include "node/sync/session_host.h"
#include "storage/replica/replica.h"
#include "tests/simulation/disk.h"
#include "tests/simulation/ledger.h"
#include "tests/simulation/line.h"
#include "tests/simulation/options.h"
#include "tests/simulation/random.h"
#include "tests/simulation/report.h"
#include "tests/simulation/rights_watch.h"
#include "tests/simulation/scheduler.h"

namespace chaptersync::simulation {

// When every simulation begins, in milliseconds since 1970.
inline constexpr int64_t kBeginMs = 1'700'000'000'000;

// For the log: a message's kind, its positions and its records' names.
std::string ShortText(const v1::SyncMessage& message);

class Federation {
 public:
  // Small limits, so that little data meets them all.
  struct Limits {
    size_t page_bytes_max = 2048;
    size_t page_records_max = 8;
    size_t backlog_bytes_max = 16 << 10;
  };

  Federation(const Options& options, Limits limits);
  ~Federation();
  Federation(const Federation&) = delete;
  Federation& operator=(const Federation&) = delete;

  // --- Building. Sites are known by number. ---
  size_t AddHub(const std::string& name, bool older_schema = false);
  // Joins: the roster has it from now on.
  size_t AddNode(const std::string& name, const std::string& chapter, size_t hub,
                 bool older_schema = false);
  // A hub dials another one.
  void LinkHubs(size_t from, size_t to);

  size_t sites() const { return sites_.size(); }
  const std::string& name(size_t site) const { return sites_[site]->name; }
  const std::string& chapter(size_t site) const { return sites_[site]->options.chapter; }
  bool hub(size_t site) const { return sites_[site]->options.hub; }
  bool up(size_t site) const { return sites_[site]->life != nullptr; }
  bool revoked(size_t site) const { return sites_[site]->revoked; }
  bool knows(size_t site, uint32_t entity) const;
  storage::Replica* replica(size_t site);
  std::optional<size_t> Find(const std::string& name) const;

  // --- What people do. Each returns whether the replica took it. ---
  struct CellText {
    uint32_t field = 0;
    std::optional<std::string> map_key;
    PlainValue text;  // none: clear
    bool unique = false;
  };
  struct Edit {
    std::string record;
    std::vector<CellText> cells;
  };
  // One batch; each succeeds or fails by itself.
  bool Put(size_t site, const std::vector<Edit>& edits);
  bool Delete(size_t site, const std::string& record);
  bool Restore(size_t site, const std::string& record);
  bool Erase(size_t site, const std::string& record);
  bool SettleConflict(size_t site, const std::string& record, const storage::CellPath& path,
                      const std::optional<std::string>& lost, storage::Choice choice,
                      const PlainValue& third);
  // The officer deals with the oldest refused write. False where there is none.
  bool RetryRefused(size_t site);
  bool DropRefused(size_t site);
  bool Scrub(size_t site);
  // An officer at a hub says a word on the oldest that waits there, of a node that is not revoked.
  // They have looked at what waits some time before. What erases is never rejected: it would stay
  // at the one node. False where nothing waits.
  bool Decide(size_t site, bool approve);
  // With all that have the same folder. It dials on, and works on.
  void Revoke(size_t site);
  // What stands at a site, empty where it does not hold the record.
  std::optional<PlainRecord> Read(size_t site, const std::string& record) const;
  PlainRecords ReadAll(size_t site);
  // Whether any value on a site's disk contains `text`.
  bool DiskHolds(size_t site, const std::string& text) const;
  // Text of a value that nobody has written before.
  std::string FreshText() { return "w" + std::to_string(++texts_) + ";"; }

  // --- What breaks. ---
  // A line of a site as initiator; null where there is none.
  Line* LineOf(size_t site);
  // The power fails now; the computer starts again after `down_ms`.
  void Crash(size_t site, uint64_t down_ms, bool lose_unsynced);
  // After so many more writes, syncs and messages sent.
  void CrashAfter(size_t site, uint64_t operations, std::function<void()> fails = {});
  void FailNextWrites(size_t site, int n, absl::Status error, std::function<void()> fails = {});
  void FailNextSyncs(size_t site, int n, absl::Status error, std::function<void()> fails = {});
  void TakeBackup(size_t site);
  bool HasBackup(size_t site) const { return !sites_[site]->backups.empty(); }
  enum class Aware : uint8_t { kYes, kNo };
  // Puts a backup back: the computer may not notice.
  void GoBack(size_t site, Aware aware);
  // A second computer with the same content, called after the first unless named. Its
  // number; none where the disk fails.
  std::optional<size_t> Copy(size_t site, Aware aware, const std::string& name = "");
  // The clock is put to another time, or made to run at another speed.
  void JumpClock(size_t site, int64_t by_ms);
  void DriftClock(size_t site, int64_t parts_per_million);
  // A hub gets to know that a node let a record go, from another computer with that node's folder,
  // of which it has not found out that there are two.
  bool TellDropped(size_t hub, size_t node, const std::string& record);
  // The node uses another hub from now on.
  void SwitchHub(size_t site, size_t hub);
  // The connection is lost without the hub's knowing, and the node dials again.
  bool DialAgain(size_t site);
  // Nothing connects to or from a site.
  void Isolate(size_t site, bool isolated);
  // A node's certificate has ended, and those of all that have the same folder: hubs end what it
  // has open, and take nothing of it until it has joined again. It works on.
  void EndCertificate(size_t site);
  void JoinAgain(size_t site);
  // Nor does `from` reach `to`, which it dials.
  void Divide(size_t from, size_t to, bool divided);
  // Schemas: an entity is taken from what a site knows, or all are known again.
  void SetSchema(size_t site, bool older);
  // A stranger, or a node's thief, opens a stream to a hub and talks nonsense; or
  // answers a node in its hub's place. False where nobody is there to hear it.
  bool NonsenseToHub(size_t hub);
  bool NonsenseToNode(size_t site);
  // A thief with a node's certificate opens a stream to a hub, and pushes well-formed records of
  // which none may ever stand (forgery.cc). Counts the fault with each push.
  bool ForgeToHub(size_t hub);

  // --- Time. ---
  Scheduler& scheduler() { return scheduler_; }
  // Lets the next event happen. False once a promise was broken.
  bool Step();
  void RunFor(uint64_t ms);
  // Runs until nothing is under way any more between those that can be reached. False
  // where that takes longer than `ticks_max` seconds, or too many messages, which is a failure.
  bool Rest(uint64_t ticks_max);
  uint64_t steps() const { return steps_; }

  // All faults end, everybody is there; within `ticks_max` seconds all replicas
  // must be the same, and then every promise is checked.
  // `before`: what people do once everybody is there.
  void Settle(uint64_t ticks_max, const std::function<void()>& before = {});
  bool failed() const { return !report_.ok; }

  void Log(const std::string& line);
  void CountFault(Fault fault);
  void CountWork(Work work);
  void set_event_sink(std::function<void(const std::string&)> sink) { sink_ = std::move(sink); }
  Report Finish();
  // Whether another computer believes to be this one, for all that is known.
  bool has_twin(size_t site) const { return sites_[site]->has_twin; }
  Ledger& ledger() { return ledger_; }
  // A promise does not hold.
  void Fail(const std::string& what);

 private:
  class SiteExecutor;
  class SiteEnvironment;

  // One life of a computer's program.
  struct Life {
    uint64_t number = 0;
    std::shared_ptr<SiteExecutor> executor;
    std::unique_ptr<storage::Replica> replica;
    uint64_t subscription = 0;
    std::unique_ptr<node::SessionGroup> group;
    std::unique_ptr<hub::SessionTable> table;
  };
  // A site as it dials another.
  struct Client {
    size_t target = 0;
    std::shared_ptr<Line> line;  // the stream under way
    uint64_t dial = 0;           // counts them: what an earlier one reports is old news
    uint64_t began_ms = 0;       // the last
    uint64_t session = 0;        // the last
    bool busy = false;
    bool ready = false;
    std::optional<uint64_t> ready_since_ms;
    uint64_t met_ms = 0;  // when it was last ready
    int again_at_once = 0;
    node::BackOff back_off;
  };
  // How far a site can have come in others' feeds, by the messages that reached it: by
  // replica, epoch and scope.
  using Reached = std::map<std::tuple<uint64_t, uint64_t, std::string>, uint64_t>;
  struct Backup {
    uint64_t at_ms = 0;
    DiskImage image;
    PlainRecords records;
    Reached reached;
  };
  // What an officer at a hub was shown of a push that waits, by its number; and of those that were
  // rejected, by node, epoch and record.
  struct OfficersView {
    struct Push {
      storage::Approval approval;
      std::string record;
      RightsWatch::Shown shown;
      std::string Text() const;
    };
    std::map<uint64_t, Push> shown;
    std::map<std::tuple<storage::NodeId, storage::Epoch, std::string>, std::string> rejected;
  };
  struct Clock {
    int64_t offset_ms = 0;
    int64_t parts_per_million = 0;
    uint64_t since_ms = 0;
  };
  struct Site {
    size_t number = 0;
    std::string name;
    storage::ReplicaOptions options;
    std::unique_ptr<SiteEnvironment> environment;
    Clock clock;
    Disk disk;
    std::unique_ptr<Life> life;
    uint64_t lives = 0;
    bool started = false;  // the disk holds a replica
    bool older_schema = false;
    // It has had an older one: where it places records is as hubs named it, when they last did.
    bool had_older_schema = false;
    bool revoked = false;
    bool isolated = false;
    bool has_twin = false;
    bool from_the_past = false;              // it, or a copy of it, has gone back
    bool copied = false;                     // its marker will tell at the next start
    bool restarting = false;                 // a start is under way
    uint64_t disk_failed = 0;                // as when its disk was last looked at
    std::optional<uint64_t> disk_failed_ms;  // when it last failed
    std::optional<uint64_t> went_back_ms;    // the last time
    bool went_back_unawares = false;         // since its last start
    bool not_to_be_found_out = false;        // and its hub does not know more
    // It went back without knowing: until it takes another id.
    std::optional<uint64_t> unaware_as;
    // Its former ids, unless it gave one up because a clone was found out.
    std::set<uint64_t> former_ids;
    std::optional<uint64_t> copied_as;  // of a copy that knows of it: the original's id then
    uint64_t replica_id = 0;            // as when it was last looked at
    uint64_t epoch = 0;                 // the same
    uint64_t quiet_hellos = 0;          // said since all faults ended
    uint64_t quiet_epochs = 0;          // begun since then
    std::set<uint64_t> epochs;          // that it, or what it was copied from, has begun
    std::vector<Client> clients;        // a node has one, for its hub
    std::vector<Backup> backups;
    std::set<std::string> changed;  // records to look at
    // At a hub, by record: the scopes it is in, and when it left those it was in, in
    // milliseconds.
    std::map<std::string, std::set<std::string>> scopes;
    std::map<std::string, std::map<std::string, uint64_t>> left_ms;
    Reached reached;
    OfficersView officers_view;  // a hub's
  };
  // A stream's state as the checkers follow it, for each side that sends.
  struct Watch {
    size_t site[2] = {0, 0};
    // By scope: the last sequence sent; at first what the receiver said to have.
    std::map<std::string, uint64_t> told[2];
    bool begun[2] = {false, false};  // a page was sent
    v1::Hello hello;
    v1::Welcome welcome;
    struct Page {
      std::string scope;
      uint64_t last = 0;
      size_t bytes = 0;
    };
    std::deque<Page> unacknowledged[2];
    size_t unacknowledged_bytes[2] = {0, 0};
    std::set<std::string> scopes;  // of the node; empty: a hub
    bool initiator_is_hub = false;
  };

  size_t AddSite(std::unique_ptr<Site> site);
  void Start(size_t site);
  void StartLater(size_t site, uint64_t wait_ms);
  void Stop(size_t site, uint64_t found_ms);
  uint64_t NowMs(const Site& site) const;
  void Dial(size_t site, size_t client);
  void DialLater(size_t site, size_t client, uint64_t wait_ms);
  void DialEnded(size_t site, size_t client, uint64_t dial, const absl::Status& status,
                 bool again_at_once);
  node::SessionConfig ConfigOf(const Site& site, bool initiator);
  void TickSite(size_t site, uint64_t life);
  void AfterTask(size_t site);
  void Look(size_t site);
  // Whether errors are to be expected of a site's program.
  bool DiskAtFault(Site& site) const;
  void Watched(size_t site);
  void JudgeTaken(size_t hub, const std::set<std::string>& records);
  void NoteIds(const Site& site);
  void ExcuseLetGo(size_t site, const std::string& record);
  bool Sends(const std::shared_ptr<Watch>& watch, size_t side, const v1::SyncMessage& message,
             size_t bytes);
  void Delivers(const std::shared_ptr<Watch>& watch, size_t side, const v1::SyncMessage& message);
  void NoteReplicaId(Site& site, const storage::Replica& replica);
  void NoteEpoch(Site& site);
  void CheckHello(Watch& watch, const v1::Hello& hello);
  void CheckWelcome(Watch& watch, const v1::Welcome& welcome);
  bool Follows(const Watch& watch, size_t side, const v1::Changes& changes) const;
  void CheckChanges(Watch& watch, size_t side, const v1::Changes& changes);
  void NotePlaces(size_t hub, const std::set<std::string>& records);
  void CheckHeld(size_t node, const std::string& record);
  void CheckScope(const Watch& watch, size_t hub, const std::string& record);
  void CheckFeeds(size_t site);
  bool Reaches(const Site& site, const Client& client) const;
  bool Admitted(const Site& site) const { return !out_since_ms_.contains(site.options.node); }
  // Hubs end what the computers of a certificate have open, and let them in no more.
  void KeepOut(const storage::NodeId& node, const absl::Status& why);
  void CheckOut(const Watch& watch, size_t side, const v1::SyncMessage& message);
  // A stream that a hub takes, from who shows a node's certificate. Null where it does not.
  std::shared_ptr<node::SessionHost> Accept(Site& hub, const std::string& name,
                                            const storage::NodeId& certified,
                                            const std::shared_ptr<Watch>& watch,
                                            absl::Status& refused);
  storage::WaitingCounts Waiting(const Site& site) const;
  bool DecideAll();
  void LookAtWaiting(size_t hub);
  std::optional<bool> DecideOnShown(size_t hub, bool approve);
  std::optional<OfficersView::Push> Show(size_t hub, const storage::Approval& approval);
  bool Quiet() const;
  bool WithinMessages();
  std::string Differences();
  void CheckBytes(size_t site);
  void CheckDigests(Site& site, const storage::Replica& replica);
  void CompareDigests();
  std::vector<const PlainRecords*> Others(size_t site, std::vector<PlainRecords>& keep);
  Ledger::Writer Writer(size_t site) const;
  bool WriteOne(size_t site, const std::string& record, storage::LocalWrite::Kind kind,
                const char* verb);
  bool Conclude(size_t site, const std::string& record, size_t first, size_t count,
                const absl::StatusOr<std::vector<storage::WriteResult>>& results);
  bool Made(size_t site, const absl::Status& status);
  void NoteRefused(size_t site);
  void ForgetRefused(size_t site, const storage::RefusedWrite& refused);
  void NoteStampsOfCopies(size_t site);
  static bool SharesId(const Site& site);
  std::shared_ptr<Line> MakeLine(const std::shared_ptr<Watch>& watch);
  v1::SyncMessage Nonsense(Random& random, bool to_hub);
  static v1::SyncMessage PulseOfHubs(Random& random, bool within);
  struct Thief;
  void CheckThief(const Thief& thief, const v1::SyncMessage& message);
  void ThiefHears(const std::shared_ptr<Thief>& thief, const v1::SyncMessage& message);
  void Forge(Thief& thief);
  std::optional<storage::FeedItem> ForgedRecord(const Thief& thief, const std::string& name);
  // What a program wrote into its log at error level.
  class LogSink;
  void ErrorLogged(const std::string& line);
  void BeginWithPuppet(size_t hub, const std::shared_ptr<Line>& line, bool welcome);

  const Options options_;
  const Limits limits_;
  Scheduler scheduler_;
  Random network_random_;
  Random executor_random_;
  Random fault_random_;
  Report report_;
  std::function<void(const std::string&)> sink_;
  std::deque<std::string> last_events_;
  uint64_t hash_ = 0xcbf29ce484222325;
  uint64_t steps_ = 0;
  uint64_t texts_ = 100000;  // long enough never to come up by chance
  size_t backlog_most_ = 0;
  std::set<uint64_t> replicas_told_;  // ids in a Hello or Welcome of a computer of the federation
  Ledger ledger_;
  RightsWatch rights_;
  std::vector<std::unique_ptr<Site>> sites_;
  std::set<std::pair<size_t, size_t>> divided_;
  // Nodes that are revoked, or whose certificate has ended: since when.
  std::map<storage::NodeId, uint64_t> out_since_ms_;
  struct OpenLine {
    std::shared_ptr<Line> line;
    std::shared_ptr<Watch> watch;
  };
  std::map<uint64_t, OpenLine> lines_;
  uint64_t line_last_ = 0;
  size_t running_ = 0;                // the site whose task runs
  std::set<uint64_t> forged_epochs_;  // that thieves' replicas say to be in
  uint64_t forged_texts_ = 0;
  // Sessions into which nonsense was sent.
  std::set<uint64_t> nonsense_sessions_;
  // By record: the scopes that it has ever been in at any hub.
  std::map<std::string, std::set<std::string>> ever_in_;
  // By chapter: records that were made at one of its nodes.
  std::map<std::string, std::set<std::string>> made_by_;
  bool quiet_ = false;            // all faults have ended
  bool past_changed_ = false;     // a computer was cloned, or went back
  uint64_t rest_messages_ = 0;    // the same, since all faults ended or Rest began
  uint64_t last_message_ms_ = 0;  // that was no heartbeat, nor a try of one who is let in no more
};

}  // namespace chaptersync::simulation

#endif  // CHAPTERSYNC_TESTS_SIMULATION_FEDERATION_H_
