// SPDX-License-Identifier: Apache-2.0
//
// A thief with a node's certificate who knows the protocol: pushes what that node may not
// write, or what must wait for headquarters, which rejects it; asks for what is not its
// chapter's; and says to have let go, and to have seen, what it has not. Nothing of it may
// ever stand, and nothing comes back that its chapter may not have. See federation.h.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "node/session/wire.h"
#include "storage/core/record_codec.h"
#include "storage/replica/keys.h"
#include "tests/simulation/federation.h"

namespace chaptersync::simulation {
namespace {

using storage::Cell;
using storage::CellPath;
using storage::ConflictEntry;
using storage::HybridTime;
using storage::Record;
using storage::RecordUpdate;
using storage::ReplicaId;
using storage::Version;

constexpr size_t kRecordsMax = 5;
// Forged stamps are so far ahead of what they are to replace, in milliseconds: less than a hub
// refuses.
constexpr uint64_t kAheadMs = 5'000;

std::string Wire(uint32_t field, const std::string& text) {
  std::string out;
  storage::AppendVarint(uint64_t{field} * 8 + 2, out);
  storage::AppendString(text, out);
  return out;
}

// All values of people are in here (FreshText), and nothing else is written so.
void ForEachText(const std::string& bytes, const std::function<void(const std::string&)>& act) {
  for (size_t at = bytes.find('w'); at != std::string::npos; at = bytes.find('w', at + 1)) {
    size_t end = at + 1;
    while (end < bytes.size() && bytes[end] >= '0' && bytes[end] <= '9') ++end;
    if (end > at + 1 && end < bytes.size() && bytes[end] == ';') {
      act(bytes.substr(at, end - at + 1));
    }
  }
}

}  // namespace

// What a thief's stream has come to.
struct Federation::Thief {
  size_t hub = 0;
  std::string chapter;
  storage::NodeId node;
  ReplicaId replica;
  bool others_id = false;    // that the hub knows as another computer's
  std::weak_ptr<Line> line;  // which keeps the thief
  std::shared_ptr<Watch> watch;
  uint64_t sequence = 0;  // the last in its feed
  uint64_t dropped = 0;
  int pushes = 0;
  ReplicaId hubs_name;                    // the hub's, when it pushed last
  std::vector<storage::FeedItem> pushed;  // the last
};

bool Federation::ForgeToHub(size_t number) {
  Site& hub = *sites_[number];
  std::vector<const Site*> nodes;
  for (const auto& site : sites_) {
    if (!site->options.hub) nodes.push_back(site.get());
  }
  if (hub.life == nullptr || nodes.empty()) return false;
  const Site& victim = *fault_random_.Pick(nodes);
  auto thief = std::make_shared<Thief>();
  thief->hub = number;
  thief->chapter = victim.options.chapter;
  thief->node = victim.options.node;
  thief->pushes = static_cast<int>(fault_random_.Between(1, 4));
  // Of a lineage of its own, of the stolen computer's, or another computer's.
  const uint64_t random = fault_random_.Next() | 1;
  const uint64_t lineage = victim.replica_id >> 32 << 32;
  const bool of_victim =
      fault_random_.Chance(400) &&
      hub.disk.Get(storage::Table::kMeta, storage::keys::SessionsOf({victim.replica_id})).ok();
  thief->replica = {of_victim ? lineage | (random & 0xffffffff) : random};
  if (fault_random_.Chance(200)) {
    const Site& other = *fault_random_.Pick(nodes);
    const auto known =
        hub.disk.Get(storage::Table::kMeta, storage::keys::SessionsOf({other.replica_id}));
    if (known.ok() && other.options.node != victim.options.node) {
      thief->others_id = true;
      thief->replica = {other.replica_id};
    }
  }
  const uint64_t epoch = fault_random_.Next() | 1;
  if (!thief->others_id) rights_.NoteId(victim.number, thief->replica.value);
  forged_epochs_.insert(epoch);
  Log(absl::StrCat("a thief comes to ", hub.name, " as ", victim.name, ", replica ",
                   storage::ToHex(thief->replica.value)));
  thief->watch = std::make_shared<Watch>();
  thief->watch->site[kInitiator] = victim.number;
  thief->watch->site[kAcceptor] = number;
  Line::Hooks hooks;
  hooks.sends = [this, thief, number](size_t side, const v1::SyncMessage& message, size_t) {
    if (side == kInitiator) return true;
    if (!up(number) || !sites_[number]->disk.Spend()) return false;
    CheckOut(*thief->watch, side, message);
    CheckThief(*thief, message);
    return true;
  };
  hooks.delivers = [this, thief, number](size_t side, const v1::SyncMessage& message) {
    ++steps_;
    Log(absl::StrCat(side == kAcceptor ? "a thief > " : "", sites_[number]->name,
                     side == kAcceptor ? "" : " > a thief", ": ", ShortText(message)));
  };
  const auto line = std::make_shared<Line>(scheduler_, network_random_, std::move(hooks),
                                           limits_.backlog_bytes_max);
  thief->line = line;
  lines_[++line_last_] = {line, thief->watch};
  absl::Status refused;
  const auto host = Accept(hub, "a thief", thief->node, thief->watch, refused);
  if (host == nullptr) return false;
  line->Connect(kAcceptor, host);
  line->Connect(kInitiator, [this, hears = std::weak_ptr(thief)](const v1::SyncMessage& message) {
    if (const auto self = hears.lock()) ThiefHears(self, message);
  });
  hub.life->group->Begin(host, line->End(kAcceptor));
  v1::SyncMessage message;
  v1::Hello& hello = *message.mutable_hello();
  hello.set_version_min(1);
  hello.set_version_max(1);
  hello.set_replica(thief->replica.value);
  hello.set_epoch(epoch);
  hello.set_node(node::ToBytes(thief->node));
  hello.set_session(fault_random_.Next());
  for (const auto& [entity, rule] : hub.options.entities) {
    v1::EntityRule& out = *hello.add_entities();
    out.set_entity(entity.value);
    out.set_fingerprint(rule.fingerprint);
  }
  line->Send(kInitiator, message);
  scheduler_.After(fault_random_.Between(2'000, 30'000),
                   [line] { line->Close(kInitiator, absl::CancelledError("enough")); });
  return true;
}

// No byte of a record that its chapter may not have.
void Federation::CheckThief(const Thief& thief, const v1::SyncMessage& message) {
  const Site& hub = *sites_[thief.hub];
  if (message.has_welcome() && thief.others_id) {
    return Fail(absl::StrCat(hub.name, " welcomes a computer under the replica id of another, ",
                             storage::ToHex(thief.replica.value)));
  }
  const auto foreign = [&](const std::string& record, const std::string& bytes) {
    ForEachText(bytes, [&](const std::string& text) {
      const std::string of = ledger_.RecordOf(text);
      if (of.empty() || of == record) return;
      Fail(absl::StrCat(hub.name, " tells a thief ", text, " of ", of, " in ",
                        record.empty() ? "a message" : record));
    });
  };
  if (!message.has_changes()) return foreign("", message.SerializeAsString());
  const auto records = node::UnpackRecords(message.changes());
  if (!records.ok()) return Fail(absl::StrCat(hub.name, " sends what cannot be read"));
  for (const storage::InboundRecord& record : *records) {
    CheckScope(*thief.watch, thief.hub, NameOf(record.key));
    foreign(NameOf(record.key), record.update);
  }
}

void Federation::ThiefHears(const std::shared_ptr<Thief>& thief, const v1::SyncMessage& message) {
  Random& random = fault_random_;
  if (message.has_welcome()) {
    thief->sequence = message.welcome().cursor().sequence();
    for (int i = 0; i < thief->pushes; ++i) {
      scheduler_.After(random.Below(3'000), [this, thief] { Forge(*thief); });
    }
  } else if (message.has_changes() && !message.changes().scope().empty()) {
    // Acknowledged, and let go.
    v1::SyncMessage reply;
    v1::Stored& stored = *reply.mutable_stored();
    stored.set_scope(message.changes().scope());
    stored.set_through(message.changes().last());
    const auto records = node::UnpackRecords(message.changes());
    if (records.ok() && !records->empty() && random.Chance(400)) {
      v1::Dropped& dropped = *stored.add_dropped();
      dropped.set_number(++thief->dropped);
      *dropped.mutable_record() = node::ToProto(records->front().key);
    }
    if (const auto line = thief->line.lock()) line->Send(kInitiator, reply);
  } else if (message.has_whole()) {
    // Asked for the whole of what it pushed in part, it pushes something else.
    Forge(*thief);
  }
}

// What the hub has, or something else of it, and with each what must wait or be refused whatever
// becomes of the record meanwhile: values that only headquarters writes, or in this hub's name.
std::optional<storage::FeedItem> Federation::ForgedRecord(const Thief& thief,
                                                          const std::string& name) {
  Random& random = fault_random_;
  Site& hub = *sites_[thief.hub];
  const auto held = hub.life->replica->Read(KeyOf(name));
  if (!held.ok() || held->record.erased) return std::nullopt;
  const Record& mine = held->record;
  RecordUpdate update;
  update.state = mine;
  const uint64_t now_ms = NowMs(hub);
  const auto later = [&](ReplicaId replica) {
    const HybridTime high = std::max(mine.seen.Highest(), HybridTime::FromWall(now_ms));
    return Version{HybridTime::FromWall(high.wall_ms() + 1 + random.Below(kAheadMs)), replica};
  };
  const ReplicaId hubs_name = hub.life->replica->replica_id();
  const auto text = [&](uint32_t field) {
    return Wire(field, absl::StrCat("forged", ++forged_texts_, ";"));
  };
  const auto put = [&](uint32_t field, ReplicaId writer) {
    const Version version = later(writer);
    update.state.Put({{.field = field, .map_key = {}}, version, "a thief", text(field), {}});
    update.state.seen.Advance(version);
  };
  const bool member = name[0] == kLetters[kMember];
  const auto find_standing = [&] {
    return std::find_if(update.state.conflicts.begin(), update.state.conflicts.end(),
                        [](const ConflictEntry& entry) { return entry.path.field == kStanding; });
  };
  // Where its chapter may write it this stands: then the ledger knows of it as of a write of which
  // nobody knows whether it was made, and the watch over rights judges it.
  const auto put_own = [&] {
    const std::string fresh = FreshText();
    const Version version = later(thief.replica);
    const PlainRecord visible = ToPlain(mine);
    ledger_.Begin({thief.watch->site[kInitiator], thief.replica.value}, name, &visible,
                  {{PathText({.field = kPhone, .map_key = {}}), fresh, true}});
    update.state.Put(
        {{.field = kPhone, .map_key = {}}, version, "a thief", Wire(kPhone, fresh), {}});
    update.state.seen.Advance(version);
  };
  const Cell* existence = mine.Find(CellPath::Existence());
  const bool deleted = existence != nullptr && existence->value == storage::DeletedValue();
  std::string how;
  switch (random.Below(11)) {
    case 0:
      how = "headquarters' field in its own name";
      if (!member) return std::nullopt;
      put(kStanding, thief.replica);
      break;
    case 1:
      how = "headquarters' field in a hub's name";
      if (!member) return std::nullopt;
      put(kStanding, hubs_name);
      break;
    case 2:
      how = "a value in a hub's name";
      put(kName, hubs_name);
      break;
    case 3:
      how = "its own value and one of headquarters' field";
      if (!member) return std::nullopt;
      put(kPhone, thief.replica);
      put(kStanding, thief.replica);
      break;
    case 4:
      how = "an erasure";
      update.state.Erase();
      update.state.seen.Advance(later(thief.replica));
      break;
    case 5: {
      how = "a conflict about headquarters' field";
      if (!member) return std::nullopt;
      ConflictEntry entry;
      entry.path.field = kStanding;
      entry.lost_version = later(random.Chance(500) ? hubs_name : thief.replica);
      entry.lost_actor = "a thief";
      entry.lost_value = text(kStanding);
      entry.current_version = later(hubs_name);
      entry.current_value = text(kStanding);
      entry.found_at = entry.current_version.time;
      entry.found_by = thief.replica;
      update.state.seen.Advance(entry.lost_version);
      update.state.seen.Advance(entry.current_version);
      const auto at = std::find_if(update.state.conflicts.begin(), update.state.conflicts.end(),
                                   [&](const ConflictEntry& other) {
                                     return std::tie(other.path, other.lost_version) >
                                            std::tie(entry.path, entry.lost_version);
                                   });
      update.state.conflicts.insert(at, entry);
      break;
    }
    case 6:
    case 7:
      how = "a value in its own name";
      if (deleted) return std::nullopt;
      put_own();
      break;
    case 8:
      // By the time that it comes the hub may have written later than that: then the hub has all
      // that was written in its name, and what remains is the thief's own.
      how = "its own value and one in a hub's name";
      if (deleted) return std::nullopt;
      put_own();
      put(kName, hubs_name);
      break;
    case 9: {
      how = "a settlement about headquarters' field";
      const auto entry = find_standing();
      if (entry == update.state.conflicts.end()) return std::nullopt;
      const Version version = later(thief.replica);
      entry->settlements.push_back({version, "a thief", storage::Choice::kTake});
      update.state.seen.Advance(version);
      break;
    }
    default: {
      how = "another value under another computer's version";
      if (update.state.cells.empty()) return std::nullopt;
      Cell& cell = update.state.cells[random.Below(update.state.cells.size())];
      const bool own = cell.version.replica.value >> 32 == thief.replica.value >> 32;
      if (own || cell.path.existence() || cell.path.map_key) return std::nullopt;
      cell.value = text(cell.path.field);
      break;
    }
  }
  report_.counts.Add("forged", how);
  // In part, it says that the hub has the rest.
  if (!update.state.erased && random.Chance(300)) {
    update.whole = false;
    std::erase_if(update.state.cells, [&](const Cell& cell) {
      const Cell* same = mine.Find(cell.path);
      const bool known =
          same != nullptr && same->version == cell.version && same->value == cell.value;
      if (known) update.base.Advance(cell.version);
      return known;
    });
  }
  return storage::FeedItem{.kind = storage::FeedItem::Kind::kChange,
                           .sequence = {},
                           .key = KeyOf(name),
                           .update = storage::EncodeUpdate(update),
                           .seen = {},
                           .own_high = {}};
}

void Federation::Forge(Thief& thief) {
  Random& random = fault_random_;
  const Site& hub = *sites_[thief.hub];
  const auto line = thief.line.lock();
  if (line == nullptr || hub.life == nullptr || quiet_ || thief.pushes <= 0) return;
  --thief.pushes;
  std::vector<std::string> names;
  for (const auto& [name, record] : ReadAll(thief.hub)) names.push_back(name);
  if (names.empty()) return;
  // Whose records it asks for does not matter.
  v1::SyncMessage whole;
  for (int i = 0; i < 3; ++i) {
    *whole.mutable_whole()->add_records() = node::ToProto(KeyOf(random.Pick(names)));
  }
  if (random.Chance(500)) line->Send(kInitiator, whole);
  std::vector<storage::FeedItem> items;
  std::set<std::string> told;
  // What was pushed before, once more: it may have been rejected. What it forged in the hub's name
  // is anybody's, once the hub has another.
  const ReplicaId hubs_name = hub.life->replica->replica_id();
  if (random.Chance(400) && hubs_name == thief.hubs_name) items = thief.pushed;
  thief.hubs_name = hubs_name;
  for (const storage::FeedItem& item : items) told.insert(NameOf(item.key));
  for (size_t i = 0; i < 3 * kRecordsMax && items.size() < kRecordsMax; ++i) {
    const std::string& name = random.Pick(names);
    if (told.contains(name)) continue;
    if (auto item = ForgedRecord(thief, name)) {
      told.insert(name);
      items.push_back(*std::move(item));
    }
  }
  if (items.empty()) return;
  v1::SyncMessage message;
  v1::Changes& changes = *message.mutable_changes();
  changes.set_scope("*");
  changes.set_previous(thief.sequence);
  std::vector<const storage::FeedItem*> pointers;
  for (storage::FeedItem& item : items) {
    item.sequence = {++thief.sequence};
    pointers.push_back(&item);
  }
  changes.set_last(thief.sequence);
  changes.set_mark(random.Next());
  node::PackRecords(pointers, changes);
  line->Send(kInitiator, message);
  thief.pushed = items;
  CountFault(Fault::kForgedPush);
}

}  // namespace chaptersync::simulation
