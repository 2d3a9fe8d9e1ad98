// SPDX-License-Identifier: Apache-2.0
//
// Computers, their lives and their lines, and what people do; see federation.h.
// What is watched is in checks.cc. One thread.
#include "tests/simulation/federation.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include <spdlog/details/null_mutex.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>

#include "storage/core/record_codec.h"
#include "storage/core/status.h"

namespace chaptersync::simulation {

using node::SessionHostOptions;
using storage::CellPath;
using storage::EntityRule;
using storage::LocalWrite;
using storage::ScopeClause;

namespace {

constexpr char kActor[] = "officer";
constexpr int kAgainAtOnceMax = 3;
// Few, so that a short history writes digests down, and starts between two times.
constexpr uint64_t kDigestChangesMin = 9;
// A program's last words on a fault of its disk, in milliseconds: as long as two tasks of a
// strand wait.
constexpr uint64_t kDiskGraceMs = 300;
// The hub does not know what the node had told before.
constexpr char kBothWentBack[] = "of a node that went back when its hub did, and neither knew";
// What was not told stays under that id, and both write their own under one version.
constexpr char kSharedUntold[] =
    "of an id that a clone used as well, when one of them was restored";

// Streams of random numbers, by purpose.
enum Purpose : uint64_t { kNetwork = 1, kExecutor = 2, kFaults = 3, kSites = 100 };

std::string Wire(uint32_t field, const std::string& text) {
  std::string out;
  storage::AppendVarint(uint64_t{field} * 8 + 2, out);
  storage::AppendString(text, out);
  return out;
}

// The older schema has no replies, and another rule for members.
std::map<storage::EntityNumber, EntityRule> Rules(bool hub, bool older) {
  using Kind = ScopeClause::Kind;
  const auto everybody = [](uint32_t field) {
    return ScopeClause{.kind = Kind::kGlobal,
                       .when = ScopeClause::Condition{field, Wire(field, kEverybody)}};
  };
  std::map<storage::EntityNumber, EntityRule> rules;
  EntityRule member;
  member.fingerprint = older && !hub ? 12 : 11;
  member.headquarters_fields = {kStanding};
  member.scope.clauses = {everybody(kChapter), {.kind = Kind::kChapterField, .field = kChapter}};
  rules[{kMember}] = member;
  EntityRule consent;
  consent.fingerprint = 21;
  consent.scope.clauses = {{.kind = Kind::kFollows, .field = kLeader, .leader = {kMember}}};
  rules[{kConsent}] = consent;
  EntityRule event;
  event.fingerprint = 31;
  event.scope.clauses = {everybody(kChapter), {.kind = Kind::kChapterKeys, .field = kHosts}};
  event.hosts_write = true;
  rules[{kEvent}] = event;
  if (older) return rules;
  EntityRule reply;
  reply.fingerprint = 41;
  reply.scope.clauses = {{.kind = Kind::kFollows, .field = kLeader, .leader = {kEvent}},
                         {.kind = Kind::kFollows, .field = kAbove, .leader = {kReply}}};
  reply.hosts_write = true;
  rules[{kReply}] = reply;
  return rules;
}

}  // namespace

// Runs the strands of one life, each after a little time of its own, so that those
// of several sessions mix as threads would.
class Federation::SiteExecutor final : public node::Executor,
                                       public std::enable_shared_from_this<SiteExecutor> {
 public:
  SiteExecutor(Federation& federation, size_t site) : federation_(federation), site_(site) {}

  void Submit(std::shared_ptr<node::Strand> strand) override {
    Random& random = federation_.executor_random_;
    if (dropped_) return strand->Forget();
    const uint64_t wait_ms = random.Chance(700)   ? 0
                             : random.Chance(950) ? random.Between(1, 4)
                                                  : random.Between(5, 150);
    const uint64_t number = ++last_;
    strands_[number] = std::move(strand);
    federation_.scheduler_.After(wait_ms, [self = shared_from_this(), number] {
      const auto taken = self->strands_.extract(number);
      if (taken.empty()) return;
      self->federation_.running_ = self->site_;
      taken.mapped()->RunOne();
      self->federation_.AfterTask(self->site_);
    });
  }
  void Drop() {
    dropped_ = true;
    for (const auto& [number, strand] : std::exchange(strands_, {})) strand->Forget();
  }

 private:
  Federation& federation_;
  const size_t site_;
  std::map<uint64_t, std::shared_ptr<node::Strand>> strands_;  // that have a task to run
  uint64_t last_ = 0;
  bool dropped_ = false;
};

class Federation::SiteEnvironment final : public storage::Environment {
 public:
  SiteEnvironment(Federation& federation, size_t site)
      : federation_(federation),
        site_(site),
        random_(federation.options_.seed, Purpose::kSites + site) {}
  uint64_t NowMs() override { return federation_.NowMs(*federation_.sites_[site_]); }
  uint64_t Random() override { return random_.Next(); }

 private:
  Federation& federation_;
  const size_t site_;
  simulation::Random random_;
};

// Of a federation's thread: what its programs log at error level.
class Federation::LogSink final : public spdlog::sinks::base_sink<spdlog::details::null_mutex> {
 public:
  static inline thread_local Federation* federation = nullptr;

  // Once in a process: the product logs through spdlog's default logger.
  static void Install() {
    [[maybe_unused]] static const bool installed = [] {
      auto logger = std::make_shared<spdlog::logger>("simulated", std::make_shared<LogSink>());
      logger->set_level(spdlog::level::err);
      spdlog::set_default_logger(std::move(logger));
      return true;
    }();
  }

 protected:
  void sink_it_(const spdlog::details::log_msg& line) override {
    if (federation != nullptr) federation->ErrorLogged({line.payload.data(), line.payload.size()});
  }
  void flush_() override {}
};

Federation::Federation(const Options& options, Limits limits)
    : options_(options),
      limits_(limits),
      network_random_(options.seed, Purpose::kNetwork),
      executor_random_(options.seed, Purpose::kExecutor),
      fault_random_(options.seed, Purpose::kFaults),
      ledger_([this](const std::string& what) { Fail(what); }),
      rights_([this](const std::string& what) { Fail(what); }) {
  LogSink::Install();
  LogSink::federation = this;
}

Federation::~Federation() {
  for (const auto& site : sites_) {
    running_ = site->number;
    if (site->life != nullptr) Stop(site->number, 0);
  }
  scheduler_.Clear();
  LogSink::federation = nullptr;
}

// --- Building. ---

size_t Federation::AddSite(std::unique_ptr<Site> site) {
  site->number = sites_.size();
  site->environment = std::make_unique<SiteEnvironment>(*this, site->number);
  rights_.AddComputer(site->number,
                      {site->name, site->options.node.ToString(), site->options.chapter});
  sites_.push_back(std::move(site));
  return sites_.size() - 1;
}

size_t Federation::AddHub(const std::string& name, bool older_schema) {
  auto site = std::make_unique<Site>();
  site->name = name;
  site->older_schema = site->had_older_schema = older_schema;
  site->options.hub = true;
  site->options.node.bytes[0] = 0xff;
  site->options.node.bytes[15] = static_cast<uint8_t>(sites_.size());
  const size_t number = AddSite(std::move(site));
  ledger_.AddHub(number);
  Start(number);
  return number;
}

size_t Federation::AddNode(const std::string& name, const std::string& chapter, size_t hub,
                           bool older_schema) {
  auto site = std::make_unique<Site>();
  site->name = name;
  site->options.chapter = chapter;
  site->options.node.bytes[15] = static_cast<uint8_t>(sites_.size());
  site->options.node.bytes[0] = 1;
  site->older_schema = site->had_older_schema = older_schema;
  site->clients.emplace_back().target = hub;
  const size_t number = AddSite(std::move(site));
  Start(number);
  return number;
}

void Federation::LinkHubs(size_t from, size_t to) {
  sites_[from]->clients.emplace_back().target = to;
  DialLater(from, sites_[from]->clients.size() - 1, 1);
}

bool Federation::knows(size_t site, uint32_t entity) const {
  return entity != kReply || !sites_[site]->older_schema;
}

storage::Replica* Federation::replica(size_t site) {
  return up(site) ? sites_[site]->life->replica.get() : nullptr;
}

std::optional<size_t> Federation::Find(const std::string& name) const {
  for (const auto& site : sites_) {
    if (site->name == name) return site->number;
  }
  return std::nullopt;
}

// --- Lives. ---

uint64_t Federation::NowMs(const Site& site) const {
  const auto now = static_cast<int64_t>(scheduler_.now_ms());
  const auto since = static_cast<int64_t>(site.clock.since_ms);
  const int64_t drift_ms = (now - since) * site.clock.parts_per_million / 1'000'000;
  return static_cast<uint64_t>(
      std::max<int64_t>(1, kBeginMs + now + site.clock.offset_ms + drift_ms));
}

void Federation::Start(size_t number) {
  Site& site = *sites_[number];
  running_ = number;
  site.restarting = false;
  site.options.entities = Rules(site.options.hub, site.older_schema);
  site.options.copied = site.copied;
  site.options.digest_changes_min = kDigestChangesMin;
  site.options.must_exist = site.started;
  auto life = std::make_unique<Life>();
  life->number = ++site.lives;
  auto replica = storage::Replica::Open(site.disk, *site.environment, site.options);
  if (!replica.ok()) {
    Log(absl::StrCat(site.name, " cannot start: ", replica.status().ToString()));
    if (!DiskAtFault(site)) {
      Fail(absl::StrCat(site.name, " cannot start: ", replica.status().ToString()));
    }
    site.disk.Restart(site.disk.unsynced_batches());
    return StartLater(number, 500);
  }
  life->replica = *std::move(replica);
  site.started = true;
  CheckDigests(site, *life->replica);
  NoteReplicaId(site, *life->replica);
  site.epoch = life->replica->epoch().value;
  const uint64_t epoch = site.epoch;
  if (!site.epochs.insert(epoch).second && site.copied) {
    Fail(absl::StrCat(site.name, " was restored or copied, and goes on in epoch ",
                      storage::ToHex(epoch)));
  }
  site.copied = false;
  life->executor = std::make_shared<SiteExecutor>(*this, number);
  life->subscription =
      life->replica->Subscribe([this, &site](const std::vector<storage::ChangeEvent>& events) {
        for (const storage::ChangeEvent& event : events) {
          site.changed.insert(NameOf(event.key));
        }
      });
  life->group = std::make_unique<node::SessionGroup>(
      *life->replica, *site.environment,
      node::SessionGroupSeams{.executor = life->executor.get(), .steady_ms = [this] {
                                return static_cast<int64_t>(scheduler_.now_ms());
                              }});
  if (site.options.hub) life->table = std::make_unique<hub::SessionTable>(*life->replica);
  const uint64_t life_number = life->number;
  if (std::exchange(site.went_back_unawares, false)) {
    site.unaware_as = life->replica->replica_id().value;
    if (std::exchange(site.not_to_be_found_out, false)) {
      ledger_.ExcuseWritesUnder(*site.unaware_as, kBothWentBack);
    }
  }
  site.life = std::move(life);
  Log(absl::StrCat(site.name, " starts as ", storage::ToHex(site.life->replica->replica_id().value),
                   " epoch ", storage::ToHex(site.life->replica->epoch().value)));
  CheckFeeds(number);
  NoteIds(site);
  // Refused when the power failed.
  NoteRefused(number);
  std::set<std::string> held;
  for (const auto& [record, now] : ReadAll(number)) {
    ledger_.Observe(number, record, now);
    rights_.Observe(number, record, now);
    held.insert(record);
  }
  // Let go when the power failed.
  for (const std::string& record : ledger_.LastBut(number, held)) {
    ledger_.ObserveGone(number, record);
  }
  site.scopes.clear();
  site.left_ms.clear();
  NotePlaces(number, held);
  scheduler_.After(node::kTickMs, [this, number, life_number] { TickSite(number, life_number); });
  for (size_t client = 0; client < site.clients.size(); ++client) {
    site.clients[client].busy = false;
    DialLater(number, client, 1 + network_random_.Below(50));
  }
}

void Federation::StartLater(size_t number, uint64_t wait_ms) {
  sites_[number]->restarting = true;
  scheduler_.After(wait_ms, [this, number] {
    if (sites_[number]->restarting && !up(number)) Start(number);
  });
}

void Federation::Stop(size_t number, uint64_t found_ms) {
  Site& site = *sites_[number];
  if (site.life == nullptr) return;
  for (const auto& [serial, open] : lines_) {
    for (const size_t side : {kInitiator, kAcceptor}) {
      if (open.watch->site[side] == number) open.line->SideIsGone(side, found_ms);
    }
  }
  site.life->executor->Drop();
  site.life->table.reset();
  site.life->group.reset();
  site.life->replica->Unsubscribe(site.life->subscription);
  site.life.reset();
  site.changed.clear();
  for (Client& client : site.clients) {
    client.line.reset();
    ++client.dial;
    client.busy = client.ready = false;
    client.ready_since_ms.reset();
  }
}

void Federation::TickSite(size_t number, uint64_t life) {
  Site& site = *sites_[number];
  if (site.life == nullptr || site.life->number != life) return;
  site.life->group->Tick();
  scheduler_.After(node::kTickMs, [this, number, life] { TickSite(number, life); });
}

void Federation::AfterTask(size_t number) {
  Site& site = *sites_[number];
  if (site.life == nullptr) return;
  DiskAtFault(site);
  if (!site.disk.powered()) {
    Log(absl::StrCat(site.name, " has lost its power"));
    return Crash(number, fault_random_.Between(10, 3000), fault_random_.Chance(500));
  }
  if (site.disk.broken()) {
    // The program ends by itself and is started again.
    Log(absl::StrCat(site.name, " ends: its disk failed"));
    return Crash(number, fault_random_.Between(10, 500), fault_random_.Chance(500));
  }
  Look(number);
}

// --- Streams. ---

node::SessionConfig Federation::ConfigOf(const Site& site, bool initiator) {
  node::SessionConfig config;
  config.initiator = initiator;
  config.hub = site.options.hub;
  config.federation = "simulated";
  config.id = site.environment->Random();
  for (const auto& [entity, rule] : site.options.entities) {
    config.entities[entity] = rule.fingerprint;
  }
  config.page_bytes_max = limits_.page_bytes_max;
  config.page_records_max = limits_.page_records_max;
  return config;
}

void Federation::DialLater(size_t number, size_t client, uint64_t wait_ms) {
  const uint64_t life = sites_[number]->lives;
  scheduler_.After(wait_ms, [this, number, client, life] {
    const Site& site = *sites_[number];
    if (site.life != nullptr && site.life->number == life && !site.clients[client].busy) {
      Dial(number, client);
    }
  });
}

std::shared_ptr<Line> Federation::MakeLine(const std::shared_ptr<Watch>& watch) {
  // What has closed on both sides is forgotten here.
  std::erase_if(lines_, [](const auto& open) { return !open.second.line->open(); });
  Line::Hooks hooks;
  hooks.sends = [this, watch](size_t side, const v1::SyncMessage& message, size_t bytes) {
    return Sends(watch, side, message, bytes);
  };
  hooks.delivers = [this, watch](size_t side, const v1::SyncMessage& message) {
    Delivers(watch, side, message);
  };
  hooks.waits = [this](size_t, size_t backlog_bytes) {
    backlog_most_ = std::max(backlog_most_, backlog_bytes);
  };
  auto line = std::make_shared<Line>(scheduler_, network_random_, std::move(hooks),
                                     limits_.backlog_bytes_max);
  lines_[++line_last_] = {line, watch};
  return line;
}

std::shared_ptr<node::SessionHost> Federation::Accept(Site& hub, const std::string& name,
                                                      const storage::NodeId& certified,
                                                      const std::shared_ptr<Watch>& watch,
                                                      absl::Status& refused) {
  SessionHostOptions accepts;
  accepts.name = name;
  accepts.config = ConfigOf(hub, false);
  accepts.backlog_bytes_max = limits_.backlog_bytes_max;
  const auto serial = std::make_shared<uint64_t>(0);
  hub::SessionTable* const table = hub.life->table.get();
  accepts.authorize = [this, serial, table, watch, certified](
                          const node::Authorize& who, std::function<void(node::Authorized)> done) {
    if (who.node != certified) {
      return done({absl::PermissionDeniedError("Hello is of another computer"), {}});
    }
    if (out_since_ms_.contains(who.node)) {
      report_.counts.Add("refused at the door", "revoked, or the certificate ended");
      return done({absl::PermissionDeniedError("revoked, or the certificate ended"), {}});
    }
    for (const auto& known : sites_) {
      if (known->options.node != who.node) continue;
      std::set<storage::Scope> scopes;
      if (!known->options.hub) {
        scopes = {storage::Scope::Global(), storage::Scope::Chapter(known->options.chapter)};
      }
      for (const storage::Scope& scope : scopes) watch->scopes.insert(scope.name);
      return table->Admit(*serial,
                          {who.node, who.replica, who.former, std::move(scopes), known->name},
                          std::move(done));
    }
    done({absl::PermissionDeniedError("not enrolled"), {}});
  };
  accepts.progress = [table](const node::SessionView& view) { table->Progress(view); };
  accepts.ended = [table, serial](const absl::Status&, bool) { table->Ended(*serial); };
  const auto acceptor = hub.life->group->Make(std::move(accepts));
  *serial = acceptor->serial();
  refused = table->Add(acceptor, certified);
  return refused.ok() ? acceptor : nullptr;
}

void Federation::Dial(size_t number, size_t index) {
  Site& site = *sites_[number];
  Client& client = site.clients[index];
  client.busy = true;
  const uint64_t dial = ++client.dial;
  client.began_ms = scheduler_.now_ms();
  Site& hub = *sites_[client.target];
  if (hub.life == nullptr || !Reaches(site, client)) {
    return DialEnded(number, index, dial, absl::UnavailableError("cannot be reached"), false);
  }
  auto watch = std::make_shared<Watch>();
  watch->site[kInitiator] = number;
  watch->site[kAcceptor] = hub.number;
  watch->initiator_is_hub = site.options.hub;
  const auto line = MakeLine(watch);

  absl::Status refused;
  const auto acceptor = Accept(hub, site.name, site.options.node, watch, refused);
  if (acceptor == nullptr) return DialEnded(number, index, dial, refused, false);

  SessionHostOptions dials;
  dials.name = hub.name;
  dials.config = ConfigOf(site, true);
  client.session = dials.config.id;
  dials.backlog_bytes_max = limits_.backlog_bytes_max;
  dials.progress = [this, number, index, dial](const node::SessionView& view) {
    Client& self = sites_[number]->clients[index];
    if (self.dial != dial || !view.ready || self.ready) return;
    self.ready = true;
    self.ready_since_ms = self.met_ms = scheduler_.now_ms();
    self.again_at_once = 0;
  };
  dials.ended = [this, number, index, dial](const absl::Status& status, bool again) {
    DialEnded(number, index, dial, status, again);
  };
  const auto initiator = site.life->group->Make(std::move(dials));
  line->Connect(kInitiator, initiator);
  line->Connect(kAcceptor, acceptor);
  client.line = line;
  hub.life->group->Begin(acceptor, line->End(kAcceptor));
  site.life->group->Begin(initiator, line->End(kInitiator));
}

void Federation::DialEnded(size_t number, size_t index, uint64_t dial, const absl::Status& status,
                           bool again_at_once) {
  Site& site = *sites_[number];
  Client& client = site.clients[index];
  if (client.dial != dial || site.life == nullptr) return;
  if (client.ready) {
    Log(absl::StrCat(site.name, " - ", sites_[client.target]->name, ": ", status.ToString()));
  }
  report_.counts.Add("session ended", absl::StatusCodeToString(status.code()));
  if (client.ready_since_ms) {
    client.back_off.SessionWas(static_cast<int64_t>(scheduler_.now_ms() - *client.ready_since_ms));
  }
  client.ready_since_ms.reset();
  client.ready = client.busy = false;
  client.line.reset();
  uint64_t wait_ms = 0;
  if (!again_at_once || ++client.again_at_once > kAgainAtOnceMax) {
    wait_ms = static_cast<uint64_t>(client.back_off.Next(network_random_.Next()));
  }
  DialLater(number, index, wait_ms);
}

// --- What people do. ---

std::optional<PlainRecord> Federation::Read(size_t number, const std::string& record) const {
  const Site& site = *sites_[number];
  if (site.life == nullptr) return std::nullopt;
  const auto stored = site.life->replica->Read(KeyOf(record));
  if (!stored.ok()) return std::nullopt;
  return ToPlain(stored->record);
}

// As the disk has them, whether the program runs or not.
PlainRecords Federation::ReadAll(size_t number) {
  PlainRecords out;
  sites_[number]->disk.Visit(
      [&](storage::Table table, std::string_view key, std::string_view value) {
        if (table != storage::Table::kRecord) return;
        const auto stored = storage::DecodeStored(value);
        storage::Reader reader(key);
        const std::string name = NameOf(reader.Key());
        if (!stored.ok()) {
          return Fail(absl::StrCat(sites_[number]->name, " cannot read its own ", name, ": ",
                                   stored.status().ToString()));
        }
        out[name] = ToPlain(stored->record);
      });
  return out;
}

bool Federation::DiskHolds(size_t number, const std::string& text) const {
  bool found = false;
  sites_[number]->disk.Visit([&](storage::Table, std::string_view, std::string_view value) {
    found |= value.find(text) != std::string_view::npos;
  });
  return found;
}

// Only while a fault takes effect, not for having been ordered. Looked at after each task, so
// that it is known when.
bool Federation::DiskAtFault(Site& site) const {
  if (const uint64_t failed = site.disk.failed(); failed != site.disk_failed) {
    site.disk_failed = failed;
    site.disk_failed_ms = scheduler_.now_ms();
  }
  return site.disk.broken() || !site.disk.powered() ||
         (site.disk_failed_ms && scheduler_.now_ms() - *site.disk_failed_ms <= kDiskGraceMs);
}

// What a failed call means: false where it was made for certain, or may have been.
bool Federation::Made(size_t number, const absl::Status& status) {
  Site& site = *sites_[number];
  if (status.ok()) return true;
  Log(absl::StrCat(site.name, " could not write: ", status.ToString()));
  if (!DiskAtFault(site)) {
    Fail(absl::StrCat(site.name, " could not write: ", status.ToString()));
  }
  return !absl::IsResourceExhausted(status);
}

Ledger::Writer Federation::Writer(size_t number) const {
  return {number, sites_[number]->life->replica->writer_id().value};
}

bool Federation::Put(size_t number, const std::vector<Edit>& edits) {
  Site& site = *sites_[number];
  if (site.life == nullptr) return false;
  struct Begun {
    size_t first = 0;
    size_t count = 0;
  };
  std::vector<LocalWrite> writes;
  std::vector<Begun> begun;
  std::string text = site.name + " puts";
  for (const Edit& edit : edits) {
    LocalWrite write{.kind = LocalWrite::Kind::kUpsert, .key = KeyOf(edit.record), .actor = kActor};
    const auto visible = Read(number, edit.record);
    std::vector<Ledger::Cell> cells;
    if (!visible && !site.options.hub) made_by_[site.options.chapter].insert(edit.record);
    absl::StrAppend(&text, " ", edit.record);
    for (const CellText& cell : edit.cells) {
      const CellPath path{.field = cell.field, .map_key = cell.map_key};
      std::optional<std::string> value;
      if (cell.text) value = cell.map_key ? *cell.text : Wire(cell.field, *cell.text);
      write.cells.push_back({path, std::move(value)});
      const std::string path_text = PathText(path);
      absl::StrAppend(&text, " ", path_text, "=", ToText(cell.text));
      rights_.Writes(edit.record, path_text, cell.text);
      // Of two writes of a field in one edit the last counts.
      std::erase_if(cells, [&](const Ledger::Cell& earlier) { return earlier.path == path_text; });
      // Writing what a field already holds is no write.
      if ((visible ? visible->Value(path_text) : std::nullopt) == cell.text) continue;
      cells.push_back({path_text, cell.text, cell.unique});
    }
    begun.push_back(
        {ledger_.Begin(Writer(number), edit.record, visible ? &*visible : nullptr, cells),
         cells.size()});
    writes.push_back(std::move(write));
  }
  Log(text);
  const auto results = site.life->replica->Write(writes);
  bool taken = false;
  for (size_t i = 0; i < edits.size(); ++i) {
    const std::string& record = edits[i].record;
    if (!results.ok()) {
      if (!Made(number, results.status())) ledger_.TakeBack(record, begun[i].first, begun[i].count);
    } else if (!(*results)[i].status.ok() || !(*results)[i].changed) {
      ledger_.TakeBack(record, begun[i].first, begun[i].count);
    } else {
      ledger_.Acknowledge(record, begun[i].first, begun[i].count, *Read(number, record));
      taken = true;
    }
  }
  AfterTask(number);
  return taken;
}

bool Federation::Delete(size_t number, const std::string& record) {
  return WriteOne(number, record, LocalWrite::Kind::kDelete, "deletes");
}

bool Federation::Restore(size_t number, const std::string& record) {
  return WriteOne(number, record, LocalWrite::Kind::kRestore, "restores");
}

bool Federation::Erase(size_t number, const std::string& record) {
  return WriteOne(number, record, LocalWrite::Kind::kErase, "erases");
}

bool Federation::WriteOne(size_t number, const std::string& record, LocalWrite::Kind kind,
                          const char* verb) {
  Site& site = *sites_[number];
  if (site.life == nullptr) return false;
  const auto visible = Read(number, record);
  if (!visible) return false;
  size_t first = 0;
  if (kind == LocalWrite::Kind::kErase) {
    first = ledger_.BeginErase(Writer(number), record, *visible);
    if (site.options.hub) rights_.Ordered(record);
  } else {
    first =
        ledger_.Begin(Writer(number), record, &*visible,
                      {{"", kind == LocalWrite::Kind::kDelete ? "deleted" : "restored", false}});
  }
  Log(absl::StrCat(site.name, " ", verb, " ", record));
  const auto results =
      site.life->replica->Write({LocalWrite{.kind = kind, .key = KeyOf(record), .actor = kActor}});
  return Conclude(number, record, first, 1, results);
}

bool Federation::Conclude(size_t number, const std::string& record, size_t first, size_t count,
                          const absl::StatusOr<std::vector<storage::WriteResult>>& results) {
  bool taken = false;
  if (!results.ok()) {
    if (!Made(number, results.status())) ledger_.TakeBack(record, first, count);
  } else if (!results->front().status.ok() || !results->front().changed) {
    ledger_.TakeBack(record, first, count);
  } else {
    ledger_.Acknowledge(record, first, count, *Read(number, record));
    taken = true;
  }
  AfterTask(number);
  return taken;
}

bool Federation::SettleConflict(size_t number, const std::string& record, const CellPath& path,
                                const std::optional<std::string>& lost, storage::Choice choice,
                                const PlainValue& third) {
  Site& site = *sites_[number];
  if (site.life == nullptr) return false;
  const auto visible = Read(number, record);
  if (!visible) return false;
  const std::string path_text = PathText(path);
  const PlainValue lost_text = PlainValueOf(path, lost);
  LocalWrite write{
      .kind = LocalWrite::Kind::kSettle, .key = KeyOf(record), .actor = kActor, .path = path};
  write.lost = lost;
  write.choice = choice;
  std::vector<Ledger::Cell> cells;
  if (choice != storage::Choice::kKeep) {
    const PlainValue value = choice == storage::Choice::kTake ? lost_text : third;
    if (third) write.third = path.map_key ? *third : Wire(path.field, *third);
    const bool changes = path.existence() ? visible->Live() == (value == "deleted")
                                          : visible->Value(path_text) != value;
    if (changes) cells.push_back({path_text, value, choice == storage::Choice::kValue});
  }
  const size_t first =
      ledger_.BeginSettle(Writer(number), record, *visible, path_text, lost_text, cells);
  Log(absl::StrCat(site.name, " settles ", record, " field '", path_text, "' lost ",
                   ToText(lost_text), " choice ", static_cast<int>(choice)));
  return Conclude(number, record, first, 1 + cells.size(), site.life->replica->Write({write}));
}

void Federation::NoteRefused(size_t number) {
  const Site& site = *sites_[number];
  if (site.life == nullptr || site.options.hub) return;
  const auto refused = site.life->replica->ListRefused(0, SIZE_MAX);
  if (!refused.ok()) return;
  ledger_.BeginRefused(number);
  for (const storage::RefusedWrite& write : *refused) {
    const std::string record = NameOf(write.key);
    for (const storage::CellWrite& cell : write.cells) {
      ledger_.Refused(number, record, PathText(cell.path), PlainValueOf(cell.path, cell.value));
    }
    if (absl::StrContains(write.reason, "settlements of conflicts")) {
      ledger_.RefusedSettlements(number, record);
    }
  }
}

void Federation::ForgetRefused(size_t number, const storage::RefusedWrite& refused) {
  // Where the call fails it may be off the list all the same, and what was put again may have
  // been erased with what it follows, and its entry with it.
  const absl::Status status = sites_[number]->life->replica->ForgetRefused(refused.number);
  if (!absl::IsNotFound(status)) Made(number, status);
  for (const storage::CellWrite& cell : refused.cells) {
    ledger_.TakeOff(number, NameOf(refused.key), PathText(cell.path),
                    PlainValueOf(cell.path, cell.value));
  }
}

bool Federation::RetryRefused(size_t number) {
  Site& site = *sites_[number];
  if (site.life == nullptr) return false;
  NoteRefused(number);
  const auto refused = site.life->replica->ListRefused(0, 1);
  if (!refused.ok() || refused->empty()) return false;
  Edit edit;
  edit.record = NameOf(refused->front().key);
  for (const storage::CellWrite& cell : refused->front().cells) {
    if (cell.path.existence()) continue;
    edit.cells.push_back(
        {cell.path.field, cell.path.map_key, PlainValueOf(cell.path, cell.value), false});
  }
  // As the command does: a new write, and only then the list is shorter.
  if (edit.cells.empty() || !Put(number, {edit}) || site.life == nullptr) return false;
  ForgetRefused(number, refused->front());
  AfterTask(number);
  return true;
}

bool Federation::DropRefused(size_t number) {
  Site& site = *sites_[number];
  if (site.life == nullptr) return false;
  NoteRefused(number);
  const auto refused = site.life->replica->ListRefused(0, 1);
  if (!refused.ok() || refused->empty()) return false;
  Log(site.name + " drops a refused write");
  ForgetRefused(number, refused->front());
  AfterTask(number);
  return true;
}

bool Federation::Scrub(size_t number) {
  Site& site = *sites_[number];
  if (site.life == nullptr || !site.life->replica->scrub_due()) return false;
  Log(site.name + " rewrites its files");
  Made(number, site.life->replica->Scrub());
  AfterTask(number);
  return true;
}

std::string Federation::OfficersView::Push::Text() const {
  std::string text;
  for (const auto& [path, cell] : shown.cells) {
    absl::StrAppend(&text, path, "=", ToText(cell.value), " ", cell.stamp.time, "@",
                    cell.stamp.replica, " ");
  }
  return text;
}

std::optional<Federation::OfficersView::Push> Federation::Show(size_t number,
                                                               const storage::Approval& approval) {
  const auto news = sites_[number]->life->replica->ReadApproval(approval.number);
  if (!news.ok()) return std::nullopt;
  OfficersView::Push push{approval, NameOf(approval.key), {}};
  storage::Record cells;
  for (const auto& value : news->values) cells.Put(value.pushed);
  push.shown.cells = ToPlain(cells).cells;
  push.shown.conflicts = news->conflicts + news->settlements > 0;
  push.shown.erasure = approval.erasure;
  return push;
}

// What was rejected does not wait again.
void Federation::LookAtWaiting(size_t number) {
  Site& site = *sites_[number];
  OfficersView& view = site.officers_view;
  for (const storage::Approval& approval : site.life->replica->ListApprovals(0, SIZE_MAX)) {
    if (view.shown.contains(approval.number)) continue;
    const auto push = Show(number, approval);
    if (!push) continue;
    const auto rejected = view.rejected.find({approval.from, approval.epoch, push->record});
    const bool cells_alone = !push->shown.conflicts && !push->shown.erasure;
    if (cells_alone && rejected != view.rejected.end() && rejected->second == push->Text()) {
      Fail(absl::StrCat(push->record, " waits at ", site.name,
                        " once more, as it was rejected: ", push->Text()));
    }
    view.shown.emplace(approval.number, *push);
  }
}

bool Federation::Decide(size_t number, bool approve) {
  Site& site = *sites_[number];
  if (site.life == nullptr) return false;
  if (const auto decided = DecideOnShown(number, approve)) return *decided;
  if (site.life != nullptr) LookAtWaiting(number);
  return DecideOnShown(number, approve).value_or(false);
}

// None where nothing of what the officer has looked at is to be decided.
std::optional<bool> Federation::DecideOnShown(size_t number, bool approve) {
  Site& site = *sites_[number];
  if (site.life == nullptr) return std::nullopt;
  OfficersView& view = site.officers_view;
  for (const auto& [waiting, push] : std::map(view.shown)) {
    const storage::Approval& approval = push.approval;
    const bool revoked = std::all_of(sites_.begin(), sites_.end(), [&](const auto& other) {
      return other->revoked || other->options.node != approval.from;
    });
    // Headquarters finds out what a thief has pushed.
    const bool forged = forged_epochs_.contains(approval.epoch.value);
    const bool approves = approve && !forged;
    if (!forged && (revoked || (approval.erasure && !approve))) continue;
    view.shown.erase(waiting);
    storage::Replica& replica = *site.life->replica;
    const auto now = Show(number, approval);
    if (!now) {
      report_.counts.Add("officer's word", "too late");
      continue;
    }
    Log(absl::StrCat(site.name, approves ? " approves " : " rejects ", push.record));
    const auto before = Read(number, push.record);
    if (approves) rights_.Approve(push.record, push.shown);
    const auto done = approves ? replica.Approve(waiting) : replica.Reject(waiting);
    const std::tuple where{approval.from, approval.epoch, push.record};
    view.rejected.erase(where);
    const auto after = Read(number, push.record);
    if (approves && (!done.ok() || !after)) rights_.ApprovedInDoubt(push.record);
    if (approves && after) {
      rights_.Approved(number, push.record, push.shown, before ? &*before : nullptr, *after);
    }
    if (!approves && done.ok() && !now->shown.conflicts) view.rejected[where] = now->Text();
    Made(number, done.status());
    if (done.ok() && site.life != nullptr) {
      site.life->table->Stop(approval.from, absl::AbortedError("headquarters has decided"));
    }
    AfterTask(number);
    if (site.life != nullptr) LookAtWaiting(number);
    return done.ok();
  }
  return std::nullopt;
}

bool Federation::TellDropped(size_t number, size_t node, const std::string& record) {
  const Site& site = *sites_[number];
  const Site& other = *sites_[node];
  if (site.life == nullptr || other.life == nullptr) return false;
  Log(absl::StrCat(site.name, " hears that ", other.name, " let ", record, " go"));
  const storage::Replica& told = *other.life->replica;
  storage::AcknowledgeRequest request{
      .peer = {.node = other.options.node, .replica = told.replica_id(), .epoch = told.epoch()},
      .dropped = {{.number = 0, .key = KeyOf(record)}}};
  const auto result = site.life->replica->Acknowledge(request);
  Made(number, result.status());
  AfterTask(number);
  return result.ok();
}

void Federation::Revoke(size_t number) {
  const storage::NodeId node = sites_[number]->options.node;
  Log(sites_[number]->name + " is revoked");
  std::vector<size_t> all;
  for (const auto& site : sites_) {
    if (site->options.node != node) continue;
    site->revoked = true;
    all.push_back(site->number);
  }
  for (const size_t one : all) {
    std::vector<PlainRecords> keep;
    ledger_.Excuse(ReadAll(one), Others(one, keep), "only a revoked node had it");
    ledger_.ExcuseWritesOf(one, "written at a revoked node");
    ledger_.Revoke(one);
  }
  KeepOut(node, absl::PermissionDeniedError("headquarters has revoked this computer"));
}

void Federation::KeepOut(const storage::NodeId& node, const absl::Status& why) {
  out_since_ms_.emplace(node, scheduler_.now_ms());
  for (const auto& hub : sites_) {
    if (!hub->options.hub || hub->life == nullptr) continue;
    hub->life->table->Stop(node, why);
    AfterTask(hub->number);
  }
}

// What the others have, as their disks hold it: a revoked node's is lost.
std::vector<const PlainRecords*> Federation::Others(size_t number,
                                                    std::vector<PlainRecords>& keep) {
  for (const auto& site : sites_) {
    if (site->number != number && !site->revoked) keep.push_back(ReadAll(site->number));
  }
  std::vector<const PlainRecords*> others;
  for (const PlainRecords& records : keep) others.push_back(&records);
  return others;
}

// --- What breaks. ---

Line* Federation::LineOf(size_t number) {
  for (const Client& client : sites_[number]->clients) {
    if (client.line != nullptr) return client.line.get();
  }
  return nullptr;
}

void Federation::Crash(size_t number, uint64_t down_ms, bool lose_unsynced) {
  Site& site = *sites_[number];
  NoteRefused(number);
  const bool known = fault_random_.Chance(600);
  Stop(number, known ? fault_random_.Below(300) : fault_random_.Between(1'000, 60'000));
  const size_t unsynced = site.disk.unsynced_batches();
  const size_t keep = lose_unsynced ? 0 : fault_random_.Below(unsynced + 1);
  site.disk.Restart(keep);
  if (unsynced > keep) report_.counts.Add("lost in a crash", "unsynced batches", unsynced - keep);
  StartLater(number, down_ms);
}

void Federation::CrashAfter(size_t number, uint64_t operations, std::function<void()> fails) {
  sites_[number]->disk.FailPowerAfter(operations, std::move(fails));
}

void Federation::FailNextWrites(size_t number, int n, absl::Status error,
                                std::function<void()> fails) {
  sites_[number]->disk.FailNextWrites(n, std::move(error), std::move(fails));
}

void Federation::FailNextSyncs(size_t number, int n, absl::Status error,
                               std::function<void()> fails) {
  sites_[number]->disk.FailNextSyncs(n, std::move(error), std::move(fails));
}

void Federation::TakeBackup(size_t number) {
  Site& site = *sites_[number];
  if (!site.started) return;
  auto image = site.disk.TakeImage();
  if (!image) return AfterTask(number);
  if (site.backups.size() >= 3) site.backups.erase(site.backups.begin());
  site.backups.push_back({scheduler_.now_ms(), *std::move(image), ReadAll(number), site.reached});
}

void Federation::GoBack(size_t number, Aware aware) {
  Site& site = *sites_[number];
  const Backup& backup = fault_random_.Pick(site.backups);
  past_changed_ = true;
  Log(absl::StrCat(site.name, aware == Aware::kYes ? " is restored" : " goes back unawares", " to ",
                   backup.at_ms, " ms"));
  NoteRefused(number);
  std::vector<PlainRecords> keep;
  auto others = Others(number, keep);
  // Where another has written under the same id, what the backup has not told is lost.
  if (!SharesId(site)) others.push_back(&backup.records);
  ledger_.Excuse(
      ReadAll(number), others,
      site.options.hub ? "only a hub that went back had it" : "only a node that went back had it");
  ledger_.ExcuseRefused(number, "only a node that went back had it");
  ledger_.GoBack(number, backup.records);
  Stop(number, fault_random_.Below(2000));
  site.disk.PutImage(backup.image);
  site.reached = backup.reached;
  site.from_the_past = true;
  site.went_back_ms = scheduler_.now_ms();
  if (site.options.hub) {
    site.officers_view = {};
    ledger_.HubWentBack();
    // It may not know any more that one of two computers of an id has been there.
    std::map<uint64_t, size_t> users;
    for (const auto& other : sites_) {
      ++users[other->replica_id];
      for (const uint64_t id : other->former_ids) ++users[id];
      if (other->unaware_as) ledger_.ExcuseWritesUnder(*other->unaware_as, kBothWentBack);
      other->not_to_be_found_out |= other->went_back_unawares;
    }
    for (const auto& [id, count] : users) {
      if (count > 1) ledger_.ExcuseWritesUnder(id, "a clone, not found out before a hub went back");
    }
    // What it had stored and told others, but not yet acknowledged, its writers take for
    // unknown.
    for (const auto& other : sites_) ledger_.AllowAlarms(other->number);
  }
  NoteStampsOfCopies(number);
  if (aware == Aware::kYes) {
    if (SharesId(site)) ledger_.ExcuseWritesUnder(site.replica_id, kSharedUntold);
    site.copied = true;
    ledger_.MustTakeNewId(number, number);
  } else {
    site.went_back_unawares = true;
    if (!site.options.hub) {
      const Client& client = site.clients.front();
      site.not_to_be_found_out = sites_[client.target]->went_back_ms > client.met_ms;
      ledger_.Twins(number, number);
      ledger_.MayUseOldIds(number);
      // A copy that knows of it brings what was not told, under this id.
      const bool copied_before = std::any_of(sites_.begin(), sites_.end(), [&](const auto& other) {
        return other->copied_as == site.replica_id;
      });
      if (copied_before) ledger_.ExcuseWritesUnder(site.replica_id, kSharedUntold);
    }
  }
  StartLater(number, fault_random_.Between(10, 2000));
}

// What it has not told stands under versions that another may have used, or will.
bool Federation::SharesId(const Site& site) {
  return !site.options.hub &&
         (site.has_twin || site.went_back_unawares || site.unaware_as.has_value());
}

std::optional<size_t> Federation::Copy(size_t number, Aware aware, const std::string& name) {
  Site& original = *sites_[number];
  const auto image = original.disk.TakeImage();
  if (!image) {
    AfterTask(number);
    return std::nullopt;
  }
  auto site = std::make_unique<Site>();
  site->name = name;
  if (name.empty()) {
    site->name =
        absl::StrCat(original.name, aware == Aware::kYes ? "-copy" : "-clone", sites_.size());
  }
  site->options = original.options;
  site->clock = original.clock;
  site->older_schema = original.older_schema;
  site->had_older_schema = original.had_older_schema;
  site->clients.emplace_back().target = original.clients.front().target;
  site->disk.PutImage(*image);
  site->started = true;
  site->copied = aware == Aware::kYes;
  site->epochs = original.epochs;
  site->reached = original.reached;
  site->replica_id = original.replica_id;
  if (aware == Aware::kYes) site->copied_as = original.replica_id;
  past_changed_ = true;
  Log(absl::StrCat(original.name,
                   aware == Aware::kYes ? "'s folder is copied to " : " is cloned as ",
                   site->name));
  site->from_the_past = original.from_the_past = true;
  if (aware == Aware::kYes && SharesId(original)) {
    ledger_.ExcuseWritesUnder(original.replica_id, kSharedUntold);
  }
  const size_t copy = AddSite(std::move(site));
  NoteStampsOfCopies(number);
  NoteStampsOfCopies(copy);
  ledger_.GoBack(copy, ReadAll(copy));
  if (aware == Aware::kYes) {
    ledger_.MustTakeNewId(copy, number);
  } else {
    ledger_.Twins(number, copy);
    original.has_twin = sites_[copy]->has_twin = true;
  }
  Start(copy);
  return copy;
}

void Federation::JumpClock(size_t number, int64_t by_ms) {
  Site& site = *sites_[number];
  site.clock.offset_ms += by_ms;
}

// What a copy of the past stamps again may have been stamped again before, otherwise.
void Federation::NoteStampsOfCopies(size_t number) {
  if (sites_[number]->from_the_past) ledger_.AllowAlarms(number);
}

void Federation::DriftClock(size_t number, int64_t parts_per_million) {
  Site& site = *sites_[number];
  const auto now = static_cast<int64_t>(NowMs(site));
  site.clock.since_ms = scheduler_.now_ms();
  site.clock.parts_per_million = parts_per_million;
  site.clock.offset_ms = now - kBeginMs - static_cast<int64_t>(scheduler_.now_ms());
}

void Federation::SwitchHub(size_t number, size_t hub) {
  Client& client = sites_[number]->clients.front();
  Log(absl::StrCat(sites_[number]->name, " goes to ", sites_[hub]->name));
  client.target = hub;
  if (client.line != nullptr) client.line->Cut();
}

bool Federation::DialAgain(size_t number) {
  Client& client = sites_[number]->clients.front();
  if (client.line == nullptr || !client.ready) return false;
  client.line->HangUpUnheard(60'000);
  return true;
}

void Federation::Isolate(size_t number, bool isolated) {
  sites_[number]->isolated = isolated;
  if (!isolated) return;
  for (const auto& [serial, open] : lines_) {
    const auto& at = open.watch->site;
    if (at[kInitiator] == number || at[kAcceptor] == number) open.line->Cut();
  }
}

void Federation::EndCertificate(size_t number) {
  const storage::NodeId& node = sites_[number]->options.node;
  Log(sites_[number]->name + "'s certificate ends");
  KeepOut(node, absl::PermissionDeniedError("the certificate ended"));
}

void Federation::JoinAgain(size_t number) {
  if (sites_[number]->revoked) return;
  if (out_since_ms_.erase(sites_[number]->options.node) == 0) return;
  Log(sites_[number]->name + " joins again");
}

void Federation::Divide(size_t from, size_t to, bool divided) {
  if (!divided) {
    divided_.erase({from, to});
    return;
  }
  divided_.insert({from, to});
  for (const Client& client : sites_[from]->clients) {
    if (client.target == to && client.line != nullptr) client.line->Cut();
  }
}

bool Federation::Reaches(const Site& site, const Client& client) const {
  return !site.isolated && !sites_[client.target]->isolated &&
         !divided_.contains({site.number, client.target});
}

void Federation::SetSchema(size_t number, bool older) {
  Site& site = *sites_[number];
  if (site.older_schema == older) return;
  site.older_schema = older;
  site.had_older_schema = true;
  // Another program is installed, and started.
  Stop(number, 100);
  site.disk.Restart(site.disk.unsynced_batches());
  StartLater(number, 500);
}

// --- Time. ---

bool Federation::Step() {
  scheduler_.Step();
  return report_.ok;
}

void Federation::RunFor(uint64_t ms) {
  const uint64_t end_ms = scheduler_.now_ms() + ms;
  bool over = false;
  scheduler_.After(ms, [&over] { over = true; });
  while (!over && scheduler_.now_ms() <= end_ms && Step()) {
  }
}

void Federation::Log(const std::string& line) {
  const std::string text = absl::StrCat(scheduler_.now_ms(), " ", line);
  // FNV-1a, 64 bits.
  for (const char c : text) hash_ = (hash_ ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  hash_ = (hash_ ^ '\n') * 0x100000001b3;
  if (sink_) sink_(text);
  if (absl::EndsWith(text, ": Pulse")) return;
  last_events_.push_back(text);
  if (last_events_.size() > 60) last_events_.pop_front();
}

// Each line must have its fault: a disk's, what a stranger said, or a history that cannot be
// right, as two computers wrote it under one id.
void Federation::ErrorLogged(const std::string& line) {
  Site& site = *sites_[running_];
  if (DiskAtFault(site)) {
    return report_.counts.Add("error logged", "after a disk's fault");
  }
  for (const uint64_t session : nonsense_sessions_) {
    if (absl::StartsWith(line, absl::StrCat("session ", storage::ToHex(session), " "))) {
      return report_.counts.Add("error logged", "after nonsense");
    }
  }
  if (past_changed_ && absl::StrContains(line, ": damage: ")) {
    return report_.counts.Add("error logged", "of a history that cannot be right");
  }
  Fail(absl::StrCat(site.name, " logs an error that no fault explains: ", line));
}

void Federation::CountFault(Fault fault) {
  report_.counts.Add("fault", FaultName(fault));
  ++steps_;
}

void Federation::CountWork(Work work) {
  report_.counts.Add("work", WorkName(work));
  ++steps_;
}

void Federation::Fail(const std::string& what) {
  Log("FAILED: " + what);
  if (!report_.ok) return;
  report_.ok = false;
  report_.failure = what;
}

Report Federation::Finish() {
  report_.steps = steps_;
  report_.hash = hash_;
  report_.events.assign(last_events_.begin(), last_events_.end());
  report_.counts.Add("writes", "acknowledged or in doubt", ledger_.writes());
  for (const auto& [name, count] : ledger_.endings()) report_.counts.Add("ending", name, count);
  for (const auto& [name, count] : ledger_.conflicts()) {
    report_.counts.Add("conflict", name, count);
  }
  for (const auto& [name, count] : ledger_.losses_allowed()) {
    report_.counts.Add("loss that the design allows", name, count);
  }
  for (const auto& [reason, count] : ledger_.alarms_allowed()) {
    report_.counts.Add("false alarm that the design allows", reason, count);
  }
  return report_;
}

}  // namespace chaptersync::simulation
