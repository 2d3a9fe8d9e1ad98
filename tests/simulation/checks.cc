// SPDX-License-Identifier: Apache-2.0
//
// What is watched in a federation: each message as it leaves and arrives, each
// record as it changes, and the whole at the end; see federation.h. One thread.
#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "node/session/wire.h"
#include "storage/core/record_codec.h"
#include "storage/core/status.h"
#include "storage/replica/keys.h"
#include "storage/replica/meta_values.h"
#include "tests/simulation/federation.h"

namespace chaptersync::simulation {
namespace {

using storage::Scope;

// A record that left a scope may be in a message that was read before: the longest that
// a strand's tasks wait, in milliseconds.
constexpr uint64_t kRaceMs = 400;
// After a revocation, or a certificate's end, hubs end what is open within a second.
constexpr uint64_t kOutMs = 1000;
// What a page is over its bound by a record, and by names of records.
constexpr size_t kPageSlackBytes = 8 << 10;
constexpr size_t kWindowPages = 8;
// Quiet for so long, in milliseconds, is quiet: longer than any back-off.
constexpr uint64_t kQuietMs = 32'000;
// With several hubs of which one has gone back: until all have heard of its new epoch. A node takes
// a hub's word for it once that is a minute (kHubClocksApartMsMax) later than what it knows, by
// clocks that are 24 s apart; and a heartbeat takes 10 s from one to the next.
constexpr uint64_t kHubsHeardMs = 110'000;
// How often a computer may say Hello, and begin an epoch, once all faults have ended. In
// seeds 1 to 300 no computer of 2746 said it more than 9 times, all but 6 at most 3 times; 10
// began an epoch, none two.
constexpr uint64_t kQuietHellosMax = 30;
constexpr uint64_t kQuietEpochsMax = 6;
// How many messages a computer may take until all is at rest, heartbeats aside. In seeds 1 to 300
// no federation took more than 100.
constexpr uint64_t kRestMessagesMax = 1000;

const char* KindOf(const v1::SyncMessage& message) {
  switch (message.kind_case()) {
    case v1::SyncMessage::kHello:
      return "Hello";
    case v1::SyncMessage::kWelcome:
      return "Welcome";
    case v1::SyncMessage::kChanges:
      return "Changes";
    case v1::SyncMessage::kStored:
      return "Stored";
    case v1::SyncMessage::kLeft:
      return "Left";
    case v1::SyncMessage::kWhole:
      return "Whole";
    case v1::SyncMessage::kPulse:
      return "Pulse";
    default:
      return "nothing";
  }
}

}  // namespace

std::string ShortText(const v1::SyncMessage& message) {
  std::string out = KindOf(message);
  const auto cursor_text = [](const v1::Cursor& cursor) {
    return absl::StrCat(" '", cursor.scope(), "' ", cursor.sequence(), " of ",
                        storage::ToHex(cursor.replica()), "/", storage::ToHex(cursor.epoch()));
  };
  if (message.has_hello()) {
    const v1::Hello& hello = message.hello();
    absl::StrAppend(&out, " as ", storage::ToHex(hello.replica()), "/",
                    storage::ToHex(hello.epoch()), ", has");
    for (const v1::Cursor& cursor : hello.cursors()) absl::StrAppend(&out, cursor_text(cursor));
  } else if (message.has_welcome()) {
    const v1::Welcome& welcome = message.welcome();
    absl::StrAppend(&out, " as ", storage::ToHex(welcome.replica()), "/",
                    storage::ToHex(welcome.epoch()), ", has", cursor_text(welcome.cursor()),
                    ", sends from");
    for (const v1::Cursor& cursor : welcome.resume()) {
      absl::StrAppend(&out, " '", cursor.scope(), "' ", cursor.sequence());
    }
  } else if (message.has_changes()) {
    const v1::Changes& changes = message.changes();
    absl::StrAppend(&out, " '", changes.scope(), "' ", changes.previous(), "-", changes.last());
    const auto records = node::UnpackRecords(changes);
    if (!records.ok()) return out + " unreadable";
    for (const storage::InboundRecord& record : *records) {
      absl::StrAppend(&out, " ", NameOf(record.key));
      if (storage::IsPartial(record.update)) out += "~";
    }
  } else if (message.has_stored()) {
    const v1::Stored& stored = message.stored();
    absl::StrAppend(&out, " '", stored.scope(), "' ", stored.through());
    for (const auto& refused : stored.refused()) {
      if (const auto key = node::FromProto(refused.record()); key.ok()) {
        absl::StrAppend(&out, " refused ", NameOf(*key),
                        refused.reason() == v1::REFUSAL_REASON_WAITS ? " for now" : "");
      }
    }
    for (const auto& dropped : stored.dropped()) {
      if (const auto key = node::FromProto(dropped.record()); key.ok()) {
        absl::StrAppend(&out, " dropped ", NameOf(*key));
      }
    }
  } else if (message.has_left()) {
    for (const auto& left : message.left().records()) {
      if (const auto key = node::FromProto(left.record()); key.ok()) {
        absl::StrAppend(&out, " ", NameOf(*key));
      }
    }
    if (message.left().unplaced_size() > 0) out += " unplaced";
  } else if (message.has_whole()) {
    for (const auto& name : message.whole().records()) {
      if (const auto key = node::FromProto(name); key.ok())
        absl::StrAppend(&out, " ", NameOf(*key));
    }
  }
  return out;
}

namespace {

// The records of a replica, read when asked for.
struct Reader {
  const storage::Replica* replica;
  mutable PlainRecords known;
  static const PlainRecord* Find(const void* context, const std::string& name) {
    const auto* self = static_cast<const Reader*>(context);
    if (const auto it = self->known.find(name); it != self->known.end()) return &it->second;
    const auto stored = self->replica->Read(KeyOf(name));
    if (!stored.ok()) return nullptr;
    return &(self->known[name] = ToPlain(stored->record));
  }
};

const PlainRecord* FindIn(const void* context, const std::string& name) {
  const auto* records = static_cast<const PlainRecords*>(context);
  const auto it = records->find(name);
  return it == records->end() ? nullptr : &it->second;
}

// What goes on under another id stands where it stood under the one before.
uint64_t StoodAt(const std::map<std::tuple<uint64_t, uint64_t, std::string>, uint64_t>& reached,
                 const v1::Hello& hello, uint64_t acceptor) {
  uint64_t stood = 0;
  for (const v1::Acknowledgement& known : hello.acknowledged()) {
    if (known.hub() != acceptor || known.acknowledged_as() == hello.replica()) continue;
    uint64_t as = 0;
    for (const auto& [feed, sequence] : reached) {
      if (std::get<0>(feed) == known.acknowledged_as()) as = std::max(as, sequence);
    }
    stood = std::max(stood, std::min(as, known.sequence()));
  }
  return stood;
}

bool Meet(const std::set<std::string>& a, const std::set<std::string>& b) {
  return std::any_of(a.begin(), a.end(), [&](const std::string& s) { return b.contains(s); });
}

}  // namespace

// --- As it happens. ---

void Federation::Look(size_t number) {
  Site& site = *sites_[number];
  NoteReplicaId(site, *site.life->replica);
  NoteEpoch(site);
  if (site.unaware_as && site.life->replica->replica_id().value != *site.unaware_as) {
    site.unaware_as.reset();
    site.epochs.insert(site.life->replica->epoch().value);
    report_.counts.Add("found out", site.options.hub ? "a hub's rollback" : "a node's rollback");
  }
  if (site.changed.empty()) return;
  NoteIds(site);
  NoteRefused(number);
  JudgeTaken(number, site.changed);
  NotePlaces(number, site.changed);
  for (const std::string& record : std::exchange(site.changed, {})) {
    const auto now = Read(number, record);
    if (now && !now->erased) CheckHeld(number, record);
    if (record == options_.watch) Watched(number);
    if (now) {
      ledger_.Observe(number, record, *now);
      rights_.Observe(number, record, *now);
    } else {
      ExcuseLetGo(number, record);
      ledger_.ObserveGone(number, record);
    }
  }
}

void Federation::NoteIds(const Site& site) {
  rights_.NoteId(site.number, site.life->replica->replica_id().value);
  rights_.NoteId(site.number, site.life->replica->writer_id().value);
}

// Whether a hub may have taken these changes of those who wrote them.
void Federation::JudgeTaken(size_t number, const std::set<std::string>& records) {
  if (!sites_[number]->options.hub) return;
  const Reader reader{sites_[number]->life->replica.get(), {}};
  const RightsWatch::Around around{
      .before = [&](const std::string& record) { return ledger_.Last(number, record); },
      .now = [&](const std::string& record) { return Reader::Find(&reader, record); },
      .ever_in = [&](const std::string& record) { return ever_in_[record]; }};
  for (const std::string& record : records) {
    const PlainRecord* now = Reader::Find(&reader, record);
    if (now != nullptr) rights_.Taken(number, record, ledger_.Last(number, record), *now, around);
  }
}

// Who finds out that another has its id begins a new epoch, too, and nothing of what it has not
// told remains under the id.
void Federation::NoteReplicaId(Site& site, const storage::Replica& replica) {
  const uint64_t id = std::exchange(site.replica_id, replica.replica_id().value);
  if (id != site.replica_id && site.epoch == replica.epoch().value) site.former_ids.insert(id);
}

void Federation::NoteEpoch(Site& site) {
  const uint64_t epoch = site.life->replica->epoch().value;
  if (std::exchange(site.epoch, epoch) == epoch || !quiet_) return;
  if (++site.quiet_epochs > kQuietEpochsMax) {
    Fail(absl::StrCat(site.name, " begins epoch after epoch: ", site.quiet_epochs,
                      " since all faults ended"));
  }
}

// Where records are at a hub after a change of `records`: what follows them moves with them.
void Federation::NotePlaces(size_t number, const std::set<std::string>& records) {
  Site& site = *sites_[number];
  if (!site.options.hub || site.life == nullptr) return;
  const Reader reader{site.life->replica.get(), {}};
  const auto note = [&](const std::string& record) {
    std::optional<std::set<std::string>> in;
    if (const PlainRecord* held = Reader::Find(&reader, record)) {
      in = PlainScopes(record, *held, Reader::Find, &reader);
    }
    std::set<std::string> now = std::move(in).value_or(std::set<std::string>());
    ever_in_[record].insert(now.begin(), now.end());
    std::set<std::string>& before = site.scopes[record];
    if (before == now) return false;
    for (const std::string& scope : before) {
      if (!now.contains(scope)) site.left_ms[record][scope] = scheduler_.now_ms();
    }
    before = std::move(now);
    return true;
  };
  bool moved = false;
  for (const std::string& record : records) moved |= note(record);
  if (!moved) return;
  for (const auto& [record, in] : site.scopes) {
    if (record[0] == kLetters[kConsent] || record[0] == kLetters[kReply]) note(record);
  }
}

// A node holds what its chapter made, and what some hub has had in one of its scopes.
void Federation::CheckHeld(size_t number, const std::string& record) {
  const Site& site = *sites_[number];
  if (site.options.hub) return;
  const std::string& chapter = site.options.chapter;
  if (made_by_[chapter].contains(record)) return;
  if (Meet(ever_in_[record], {"global", "chapter/" + chapter})) return;
  Fail(absl::StrCat(site.name, " has ", record, ", which was never in one of its scopes"));
}

// A hub whose disk went back may have had a record acknowledged, and told that it left,
// before: the node hears of it afterwards, and lets go of what then nobody has.
void Federation::ExcuseLetGo(size_t number, const std::string& record) {
  const Site& site = *sites_[number];
  const PlainRecord* last = ledger_.Last(number, record);
  if (site.options.hub || last == nullptr) return;
  const Client& client = site.clients.front();
  const auto& went_back_ms = sites_[client.target]->went_back_ms;
  if (client.line == nullptr || !went_back_ms || client.began_ms > *went_back_ms) return;
  std::vector<PlainRecords> keep;
  ledger_.Excuse({{record, *last}}, Others(number, keep),
                 "only a hub that went back had what a chapter had let go");
}

void Federation::Watched(size_t number) {
  if (!sink_) return;
  std::string text = absl::StrCat(scheduler_.now_ms(), "   ", sites_[number]->name, " has ");
  const auto stored = sites_[number]->life->replica->Read(KeyOf(options_.watch));
  if (stored.ok()) {
    absl::StrAppend(&text, options_.watch, " ", ToPlain(stored->record).Text(), " seen");
    for (const auto& [replica, time] : stored->record.seen.entries()) {
      absl::StrAppend(&text, " ", time.ticks >> 16, ".", time.ticks & 0xffff, "@",
                      storage::ToHex(replica.value));
    }
    for (const storage::ScopePosition& position : stored->meta.scopes) {
      absl::StrAppend(&text, position.left ? " left " : " in ", position.scope.name, "/",
                      position.at.value, position.withheld ? " withheld" : "");
    }
  } else {
    absl::StrAppend(&text, "no ", options_.watch);
  }
  sink_(text);
}

bool Federation::Sends(const std::shared_ptr<Watch>& watch, size_t side,
                       const v1::SyncMessage& message, size_t bytes) {
  const size_t number = watch->site[side];
  Site& site = *sites_[number];
  // Hello and Welcome tell of identity, epoch and cursors.
  const bool tells = message.has_hello() || message.has_welcome() || message.has_changes() ||
                     message.has_left() || message.has_stored();
  const bool unsynced = site.disk.unsynced();
  if (!site.disk.Spend()) return false;
  if (tells && unsynced) {
    Fail(absl::StrCat(site.name, " tells what is not durable: ", ShortText(message)));
  }
  const size_t bound = limits_.page_bytes_max + kPageSlackBytes;
  if (bytes > bound) {
    Fail(absl::StrCat(site.name, " sends ", bytes, " bytes in one message (at most ", bound, ")"));
  }
  CheckOut(*watch, side, message);
  if (message.has_hello()) CheckHello(*watch, message.hello());
  if (message.has_welcome()) CheckWelcome(*watch, message.welcome());
  if (message.has_changes()) CheckChanges(*watch, side, message.changes());
  if (message.has_left() && watch->initiator_is_hub) {
    Fail(absl::StrCat(site.name, " tells a hub that a record has left"));
  }
  if (message.has_stored() && message.stored().refused_size() > 0) {
    report_.counts.Add("message", "Stored with refusals");
  }
  if (message.has_stored() && message.stored().dropped_size() > 0) {
    report_.counts.Add("message", "Stored with drops");
  }
  if (message.has_left() && message.left().unplaced_size() > 0) {
    report_.counts.Add("message", "Left with unplaced records");
  }
  report_.counts.Add("message", KindOf(message));
  return true;
}

// Who is revoked, or whose certificate has ended, hears no more.
void Federation::CheckOut(const Watch& watch, size_t side, const v1::SyncMessage& message) {
  const Site& node = *sites_[watch.site[kInitiator]];
  const auto out = out_since_ms_.find(node.options.node);
  if (side != kAcceptor || out == out_since_ms_.end()) return;
  if (scheduler_.now_ms() - out->second <= kOutMs) return;
  Fail(absl::StrCat(sites_[watch.site[kAcceptor]]->name, " sends ", KindOf(message), " to ",
                    node.name, ", which is out since ", scheduler_.now_ms() - out->second, " ms"));
}

// Nobody says to have what never reached it.
void Federation::CheckHello(Watch& watch, const v1::Hello& hello) {
  Site& site = *sites_[watch.site[kInitiator]];
  watch.hello = hello;
  if (quiet_ && Admitted(site) && ++site.quiet_hellos > kQuietHellosMax) {
    Fail(absl::StrCat(site.name, " connects again and again: ", site.quiet_hellos,
                      " times since all faults ended"));
  }
  replicas_told_.insert(hello.replica());
  for (const v1::Cursor& cursor : hello.cursors()) {
    // A stranger in a hub's name has a feed of its own.
    if (!replicas_told_.contains(cursor.replica())) continue;
    uint64_t reached = 0;
    for (const auto& [where, sequence] : site.reached) {
      const auto& [replica, epoch, scope] = where;
      // Of void ones there is only the position.
      if (replica == cursor.replica() && epoch == cursor.epoch() &&
          (cursor.scope().empty() || scope == cursor.scope())) {
        reached = std::max(reached, sequence);
      }
    }
    if (cursor.sequence() <= reached) continue;
    Fail(absl::StrCat(site.name, " says to have more of a feed than it got: ", cursor.scope(), " ",
                      cursor.sequence(), " of ", storage::ToHex(cursor.replica())));
  }
}

void Federation::CheckWelcome(Watch& watch, const v1::Welcome& welcome) {
  const Site& site = *sites_[watch.site[kAcceptor]];
  watch.welcome = welcome;
  replicas_told_.insert(welcome.replica());
  if (welcome.shared()) return;
  const v1::Hello& hello = watch.hello;
  const v1::Cursor& cursor = welcome.cursor();
  const auto got = site.reached.find({cursor.replica(), cursor.epoch(), cursor.scope()});
  const uint64_t reached = got == site.reached.end() ? 0 : got->second;
  if (cursor.sequence() > reached) {
    Fail(absl::StrCat(site.name, " says to have more of a feed than it got: ", cursor.sequence(),
                      " of ", storage::ToHex(cursor.replica()), ", and got ", reached));
  }
  watch.told[kInitiator][cursor.scope()] = cursor.sequence();
  for (const v1::Cursor& resume : welcome.resume()) {
    uint64_t has = 0;
    for (const v1::Cursor& theirs : hello.cursors()) {
      if (theirs.replica() == welcome.replica() && theirs.epoch() == welcome.epoch() &&
          theirs.scope() == resume.scope()) {
        has = theirs.sequence();
      }
    }
    if (resume.sequence() != has) {
      Fail(absl::StrCat(site.name, "'s feed of ", resume.scope(), " goes on at ", resume.sequence(),
                        ", and the other has ", has));
    }
    watch.told[kAcceptor][resume.scope()] = resume.sequence();
  }
}

// Whether a page goes on where the receiver is. A pusher may begin again: then it has noted that
// nothing counts as acknowledged.
bool Federation::Follows(const Watch& watch, size_t side, const v1::Changes& changes) const {
  const auto told = watch.told[side].find(changes.scope());
  if (told == watch.told[side].end()) return false;
  if (told->second == changes.previous()) return true;
  if (side != kInitiator || watch.begun[side] || changes.previous() != 0) return false;
  const auto noted = sites_[watch.site[side]]->disk.Get(
      storage::Table::kMeta, storage::keys::Acknowledged({watch.welcome.replica()}));
  return noted.ok() && storage::DecodeAcknowledged(*noted).through == storage::Sequence{};
}

void Federation::CheckChanges(Watch& watch, size_t side, const v1::Changes& changes) {
  const Site& site = *sites_[watch.site[side]];
  const auto records = node::UnpackRecords(changes);
  if (!records.ok()) return Fail(absl::StrCat(site.name, " sends what cannot be read"));
  for (const storage::InboundRecord& record : *records) {
    report_.counts.Add("record", storage::IsPartial(record.update) ? "partial" : "whole");
    if (site.options.hub && !watch.initiator_is_hub) {
      CheckScope(watch, site.number, NameOf(record.key));
    }
  }
  if (changes.scope().empty()) {
    report_.counts.Add("message", "Changes outside a feed");
    return;
  }
  uint64_t& told = watch.told[side][changes.scope()];
  if (!Follows(watch, side, changes)) {
    Fail(absl::StrCat(site.name, "'s feed of ", changes.scope(), " has a gap: after ", told,
                      " comes ", changes.previous(), " to ", changes.last()));
  }
  watch.begun[side] = true;
  uint64_t before = changes.previous();
  for (const storage::InboundRecord& record : *records) {
    if (record.sequence.value <= before || record.sequence.value > changes.last()) {
      Fail(absl::StrCat(site.name, "'s feed of ", changes.scope(), " names ", record.sequence.value,
                        " after ", before));
    }
    before = record.sequence.value;
  }
  told = changes.last();
  const size_t bytes = changes.payload_bytes();
  watch.unacknowledged[side].push_back({changes.scope(), changes.last(), bytes});
  watch.unacknowledged_bytes[side] += bytes;
  const size_t bound = (kWindowPages + 1) * limits_.page_bytes_max + kPageSlackBytes;
  if (watch.unacknowledged_bytes[side] > bound) {
    Fail(absl::StrCat(site.name, " has ", watch.unacknowledged_bytes[side],
                      " unacknowledged bytes under way (at most ", bound, ")"));
  }
}

void Federation::CheckScope(const Watch& watch, size_t number, const std::string& record) {
  Site& site = *sites_[number];
  if (!knows(number, KeyOf(record).entity.value) || site.life == nullptr) return;
  const Reader reader{site.life->replica.get(), {}};
  const PlainRecord* held = Reader::Find(&reader, record);
  if (held == nullptr) return;
  const auto scopes = PlainScopes(record, *held, Reader::Find, &reader);
  // Unplaced, it goes back to whoever brought it.
  if (!scopes || scopes->empty() || Meet(*scopes, watch.scopes)) return;
  NotePlaces(number, site.changed);
  for (const auto& [scope, left_ms] : site.left_ms[record]) {
    if (watch.scopes.contains(scope) && scheduler_.now_ms() - left_ms < kRaceMs) {
      return report_.counts.Add("record", "sent as it left");
    }
  }
  Fail(absl::StrCat(site.name, " sends ", record, " to ", sites_[watch.site[kInitiator]]->name,
                    ", and it is in none of its scopes"));
}

void Federation::Delivers(const std::shared_ptr<Watch>& watch, size_t side,
                          const v1::SyncMessage& message) {
  ++steps_;
  if (!message.has_pulse() && Admitted(*sites_[watch->site[kInitiator]])) {
    last_message_ms_ = scheduler_.now_ms();
    ++rest_messages_;
  }
  const auto name = [&](size_t site) { return sites_[site]->name; };
  Log(absl::StrCat(name(watch->site[1 - side]), " > ", name(watch->site[side]), ": ",
                   ShortText(message)));
  if (const v1::Hello& hello = message.hello(); message.has_hello()) {
    Site& site = *sites_[watch->site[side]];
    uint64_t& reached = site.reached[{hello.replica(), hello.epoch(), "*"}];
    reached = std::max(reached, StoodAt(site.reached, hello, site.replica_id));
  }
  if (const v1::Changes& changes = message.changes(); !changes.scope().empty()) {
    const bool pushed = side == kAcceptor;
    uint64_t& reached =
        sites_[watch->site[side]]
            ->reached[{pushed ? watch->hello.replica() : watch->welcome.replica(),
                       pushed ? watch->hello.epoch() : watch->welcome.epoch(), changes.scope()}];
    reached = std::max(reached, changes.last());
  }
  if (!message.has_stored() || message.stored().scope().empty()) return;
  auto& pages = watch->unacknowledged[side];
  for (auto page = pages.begin(); page != pages.end();) {
    if (page->scope == message.stored().scope() && page->last <= message.stored().through()) {
      watch->unacknowledged_bytes[side] -= page->bytes;
      page = pages.erase(page);
    } else {
      ++page;
    }
  }
}

// Every record stands in the feed once, at its latest change.
void Federation::CheckFeeds(size_t number) {
  const Site& site = *sites_[number];
  if (site.life == nullptr) return;
  const PlainRecords records = ReadAll(number);
  std::vector<Scope> scopes = {Scope::All()};
  if (site.options.hub) {
    for (const auto& other : sites_) {
      if (!other->options.hub) scopes.push_back(Scope::Chapter(other->options.chapter));
    }
    scopes.push_back(Scope::Global());
  }
  for (const Scope& scope : scopes) {
    storage::FeedRequest request;
    request.peer.hub = scope == Scope::All();
    request.peer.replica = {1};  // nobody's
    request.peer.scopes = {scope};
    for (const uint32_t entity : {kMember, kConsent, kEvent, kReply}) {
      request.peer.entities[{entity}] = 1;
    }
    request.scope = scope;
    request.bytes_max = 1 << 20;
    request.records_max = 1000;
    std::set<std::string> told;
    uint64_t last = 0;
    while (true) {
      const auto page = site.life->replica->ReadFeed(request);
      if (!page.ok()) {
        if (DiskAtFault(*sites_[number])) return;
        return Fail(absl::StrCat(site.name, " cannot read its feed of ", scope.name, ": ",
                                 page.status().ToString()));
      }
      for (const storage::FeedItem& item : page->items) {
        const std::string record = NameOf(item.key);
        if (item.sequence.value <= last) {
          return Fail(absl::StrCat(site.name, "'s feed of ", scope.name, " goes back at ",
                                   item.sequence.value));
        }
        last = item.sequence.value;
        if (!told.insert(record).second) {
          return Fail(
              absl::StrCat(site.name, "'s feed of ", scope.name, " has ", record, " twice"));
        }
      }
      if (page->at_end) break;
      request.after = page->last;
    }
    for (const auto& [name, record] : records) {
      if (record.erased) continue;
      if (scope != Scope::All()) {
        if (!knows(number, KeyOf(name).entity.value)) continue;
        const auto in = PlainScopes(name, record, FindIn, &records);
        if (!in || !in->contains(scope.name)) continue;
      }
      if (!told.contains(name)) {
        const auto in = PlainScopes(name, record, FindIn, &records);
        return Fail(absl::StrCat(site.name, "'s feed of ", scope.name, " lacks ", name,
                                 ", which is in ", in ? absl::StrJoin(*in, ", ") : "none", ": ",
                                 record.Text()));
      }
    }
  }
}

// --- The end. ---

// Records that a site's hub does not take yet, until its clock has come up, or headquarters has
// said a word.
storage::WaitingCounts Federation::Waiting(const Site& site) const {
  storage::WaitingCounts count;
  for (const Client& client : site.clients) {
    if (site.life == nullptr) break;
    const auto waiting = site.life->replica->CountWaiting(sites_[client.target]->options.node);
    if (!waiting.ok()) continue;
    count.ahead += waiting->ahead;
    count.approval += waiting->approval;
  }
  return count;
}

bool Federation::Quiet() const {
  for (const auto& site : sites_) {
    if (site->revoked) continue;
    if (site->life == nullptr) return false;
    if (Waiting(*site).ahead > 0) return false;
    for (const Client& client : site->clients) {
      if (!client.ready && Admitted(*site) && Reaches(*site, client)) return false;
    }
  }
  for (const auto& [serial, open] : lines_) {
    if (!Admitted(*sites_[open.watch->site[kInitiator]])) continue;
    if (open.line->open() && open.line->under_way() > 0) return false;
  }
  return scheduler_.now_ms() - last_message_ms_ >= kQuietMs;
}

std::string Federation::Differences() {
  const Site* first = nullptr;
  PlainRecords all;
  for (const auto& site : sites_) {
    if (!site->options.hub) continue;
    PlainRecords records = ReadAll(site->number);
    if (first == nullptr) {
      first = site.get();
      all = std::move(records);
      continue;
    }
    for (const auto* side : {&all, &records}) {
      for (const auto& [name, record] : *side) {
        const PlainRecord* mine = FindIn(&all, name);
        const PlainRecord* theirs = FindIn(&records, name);
        if (mine == nullptr || theirs == nullptr || mine->Text() != theirs->Text()) {
          return absl::StrCat(name, " is not the same at ", first->name, ": ",
                              mine == nullptr ? "absent" : mine->Text(), " and ", site->name, ": ",
                              theirs == nullptr ? "absent" : theirs->Text());
        }
      }
    }
  }
  for (const auto& site : sites_) {
    if (site->options.hub || site->revoked) continue;
    const std::set<std::string> scopes = {"global", "chapter/" + site->options.chapter};
    const PlainRecords records = ReadAll(site->number);
    for (const auto& [name, record] : all) {
      const auto in = PlainScopes(name, record, FindIn, &all);
      const PlainRecord* held = FindIn(&records, name);
      if (!in) {
        if (held != nullptr && !held->erased) {
          return absl::StrCat(name, " was erased, and ", site->name, " has ", held->Text());
        }
      } else if (Meet(*in, scopes)) {
        if (held == nullptr || held->Text() != record.Text()) {
          return absl::StrCat(name, " is not the same at ", first->name, ": ", record.Text(),
                              " and ", site->name, ": ", held == nullptr ? "absent" : held->Text());
        }
      } else if (held != nullptr && !in->empty()) {
        return absl::StrCat(name, " is not in the scopes of ", site->name,
                            ", which has: ", held->Text());
      }
    }
    for (const auto& [name, record] : records) {
      if (FindIn(&all, name) == nullptr) {
        return absl::StrCat(site->name, " has ", name, ", the hub has not: ", record.Text());
      }
    }
  }
  return "";
}

// What a replica keeps to compare its scopes with a peer's is what its records give.
void Federation::CheckDigests(Site& site, const storage::Replica& replica) {
  const auto wrong = replica.CheckDigests();
  if (!wrong.ok()) {
    if (!DiskAtFault(site)) {
      Fail(absl::StrCat(site.name, " cannot check its digests: ", wrong.status().ToString()));
    }
  } else if (!wrong->empty()) {
    Fail(absl::StrCat(site.name, "'s digest of ", wrong->front().name, " is not of its records"));
  }
}

// Hub and node hold the same of a scope, and can tell it without sending it.
void Federation::CompareDigests() {
  std::map<storage::Scope, storage::ScopeState> all;
  PlainRecords records;
  for (const auto& site : sites_) {
    if (!site->options.hub) continue;
    all = site->life->replica->Digests();
    records = ReadAll(site->number);
    break;
  }
  // What has lost its place at the hub keeps it at nodes until it has another.
  const auto without_place = [&](const std::string& name) {
    const auto it = records.find(name);
    if (it == records.end()) return false;
    const auto in = PlainScopes(name, it->second, FindIn, &records);
    return in && in->empty();
  };
  for (const auto& site : sites_) {
    if (site->revoked) continue;
    CheckDigests(*site, *site->life->replica);
    const PlainRecords here = ReadAll(site->number);
    if (site->had_older_schema ||
        (!site->options.hub && std::any_of(here.begin(), here.end(), [&](const auto& r) {
          return without_place(r.first);
        }))) {
      continue;
    }
    const auto held = site->life->replica->Digests();
    for (const auto& [scope, state] : all) {
      const bool holds = site->options.hub || scope == Scope::Global() ||
                         scope == Scope::Chapter(site->options.chapter);
      const auto it = held.find(scope);
      if (holds && (it == held.end() || it->second != state)) {
        Fail(absl::StrCat(site->name, " has another digest of ", scope.name, " than the hub, of ",
                          it == held.end() ? 0 : it->second.records, " records instead of ",
                          state.records));
      }
    }
    for (const auto& [scope, state] : held) {
      if (!all.contains(scope)) {
        Fail(absl::StrCat(site->name, " has ", state.records, " records of ", scope.name,
                          ", and the hub none"));
      }
    }
  }
}

// No byte of what was erased, or is not this node's, is left on its disk; but for the
// node's own writes that were refused, which an officer is to see.
void Federation::CheckBytes(size_t number) {
  const Site& site = *sites_[number];
  const PlainRecords records = ReadAll(number);
  constexpr char kRefusedKind = 'z';
  site.disk.Visit([&](storage::Table table, std::string_view key, std::string_view value) {
    if (value.find("forged") != std::string_view::npos) {
      Fail(absl::StrCat(site.name, " has bytes that a thief pushed, in table ",
                        static_cast<int>(table), " under '", std::string(key.substr(0, 1)), "'"));
    }
    for (size_t at = value.find('w'); at != std::string_view::npos; at = value.find('w', at + 1)) {
      size_t end = at + 1;
      while (end < value.size() && value[end] >= '0' && value[end] <= '9') ++end;
      if (end == at + 1 || end == value.size() || value[end] != ';') continue;
      const std::string text(value.substr(at, end - at + 1));
      const std::string record = ledger_.RecordOf(text);
      if (record.empty()) continue;
      const auto held = records.find(record);
      // What was refused at a node, and what waits at a hub for a word on it.
      const bool kept = table == storage::Table::kMeta &&
                        key[0] == (site.options.hub ? storage::keys::kApprovalKind : kRefusedKind);
      if (held == records.end() ? !kept : held->second.erased) {
        Fail(absl::StrCat(site.name, " has bytes of ", record, ", which it must not have: ", text,
                          " in table ", static_cast<int>(table), " under '",
                          std::string(key.substr(0, 1)), "'"));
      }
    }
  });
}

// Headquarters approves all that waits. False where nothing does, anywhere.
bool Federation::DecideAll() {
  bool any = false;
  for (const auto& site : sites_) {
    if (!site->revoked && Waiting(*site).approval > 0) any = true;
    while (site->options.hub && report_.ok && Decide(site->number, true)) any = true;
  }
  return any;
}

bool Federation::Rest(uint64_t ticks_max) {
  const uint64_t begin_ms = last_message_ms_ = scheduler_.now_ms();
  rest_messages_ = 0;
  while (report_.ok && !Quiet()) {
    if (scheduler_.now_ms() - begin_ms > ticks_max * 1000 || !WithinMessages()) return false;
    RunFor(1000);
  }
  return report_.ok;
}

// Whether what came since all faults ended, or since Rest began, is what a federation can have to
// tell: cost follows the change, and what goes round for ever is none.
bool Federation::WithinMessages() {
  const uint64_t most = kRestMessagesMax * sites_.size();
  if (rest_messages_ <= most) return true;
  Fail(absl::StrCat("not at rest after ", rest_messages_, " messages (at most ", most, " for ",
                    sites_.size(), " computers)"));
  return false;
}

void Federation::Settle(uint64_t ticks_max, const std::function<void()>& before) {
  Log("quiet from here");
  quiet_ = true;
  rest_messages_ = 0;
  divided_.clear();
  for (const auto& site : sites_) {
    if (!site->revoked) out_since_ms_.erase(site->options.node);
  }
  for (const auto& site : sites_) {
    site->disk.FailNextWrites(0, absl::OkStatus());
    site->disk.FailNextSyncs(0, absl::OkStatus());
    site->disk.ForgetFaults();
    site->isolated = false;
    if (!site->revoked) SetSchema(site->number, site->older_schema && !site->options.hub);
    if (site->life == nullptr && !site->restarting) Start(site->number);
  }
  for (const auto& [serial, open] : lines_) open.line->Cut();
  RunFor(5000);
  if (before) before();
  const uint64_t begin_ms = scheduler_.now_ms();
  last_message_ms_ = begin_ms;
  const auto hubs = std::count_if(sites_.begin(), sites_.end(),
                                  [](const auto& site) { return site->options.hub; });
  const uint64_t least_ms = hubs > 1 && past_changed_ ? kHubsHeardMs : 0;
  while (report_.ok && (!Quiet() || DecideAll() || scheduler_.now_ms() - begin_ms < least_ms)) {
    if (scheduler_.now_ms() - begin_ms > ticks_max * 1000) {
      std::string who;
      for (const auto& site : sites_) {
        const storage::WaitingCounts waiting = Waiting(*site);
        if (waiting != storage::WaitingCounts{} && !site->revoked) {
          absl::StrAppend(&who, " ", site->name, " (", waiting.ahead, " records wait for a clock, ",
                          waiting.approval, " for headquarters' word)");
        }
        for (const Client& client : site->clients) {
          if (!client.ready && !site->revoked) absl::StrAppend(&who, " ", site->name);
        }
      }
      return Fail(absl::StrCat("not quiet after ", ticks_max, " s; no session:", who));
    }
    if (!WithinMessages()) return;
    RunFor(1000);
  }
  if (!report_.ok) return;
  report_.counts.Add("ticks until quiet", "all", (scheduler_.now_ms() - begin_ms) / 1000);
  report_.counts.Add("messages a computer until quiet", "all", rest_messages_ / sites_.size());
  if (const std::string difference = Differences(); !difference.empty()) return Fail(difference);
  CompareDigests();
  for (const auto& site : sites_) {
    NoteRefused(site->number);
    CheckFeeds(site->number);
    if (!site->revoked) CheckBytes(site->number);
  }
  const size_t bound =
      limits_.backlog_bytes_max + (kWindowPages + 2) * limits_.page_bytes_max + 2 * kPageSlackBytes;
  if (backlog_most_ > bound) {
    Fail(absl::StrCat(backlog_most_, " bytes waited to be sent (at most ", bound, ")"));
  }
  for (const auto& site : sites_) {
    if (!site->options.hub) continue;
    ledger_.CheckAll(ReadAll(site->number));
    break;
  }
  for (const auto& site : sites_) {
    if (site->life == nullptr) continue;
    const auto settled = site->life->replica->CountOpenConflicts();
    if (!settled.ok()) Fail(absl::StrCat(site->name, " cannot count its conflicts"));
  }
}

// --- Nonsense. ---

// Of hubs and replicas that are not there. `within`: the limits are kept, and it is a lie only.
v1::SyncMessage Federation::PulseOfHubs(Random& random, bool within) {
  v1::SyncMessage message;
  v1::Pulse& pulse = *message.mutable_pulse();
  const uint64_t over = within ? 4 : random.Below(4);
  const auto hub = [&](size_t epochs, size_t id_bytes) {
    v1::HubEpoch& out = *pulse.add_hubs();
    out.set_node(std::string(id_bytes, static_cast<char>('a' + random.Below(26))));
    out.set_epoch(random.Next());
    out.set_at_ms(random.Next());
    for (size_t i = 0; i < epochs; ++i) out.add_over(random.Next());
  };
  const uint64_t hubs = over == 0 ? storage::kHubsMax + 1 : random.Between(1, 4);
  for (uint64_t i = 0; i < hubs; ++i) hub(random.Below(storage::kHubEpochsKept + 1), 16);
  if (over == 1) hub(storage::kHubEpochsKept + 1 + random.Below(20), 16);
  if (over == 2) hub(1, random.Below(16));
  const uint64_t reached = over == 3 ? storage::kReachedToldMax + 1 : random.Below(4);
  for (uint64_t i = 0; i < reached; ++i) {
    v1::Cursor& cursor = *pulse.add_reached();
    cursor.set_replica(random.Next());
    cursor.set_epoch(random.Next());
    cursor.set_scope(random.Chance(500) ? "*" : "global");
    cursor.set_sequence(random.Next());
    cursor.set_mark(random.Next());
  }
  if (random.Chance(500)) pulse.set_asks(1 + random.Below(9));
  if (random.Chance(500)) pulse.set_answers(random.Next());
  if (random.Chance(300)) {
    pulse.set_drops_noted(random.Next());
    pulse.add_ends()->set_sequence(random.Next());
  }
  return message;
}

v1::SyncMessage Federation::Nonsense(Random& random, bool to_hub) {
  v1::SyncMessage message;
  const std::string scopes[] = {"*", "global", "chapter/milan", "chapter/nowhere", "hq"};
  switch (random.Below(13)) {
    case 0:
      break;  // of no kind
    case 1: {
      v1::Changes& changes = *message.mutable_changes();
      changes.set_scope(scopes[random.Below(5)]);
      changes.set_previous(random.Below(1000));
      changes.set_last(random.Below(1000));
      changes.set_records(static_cast<uint32_t>(random.Below(4)));
      changes.set_payload(std::string(1 + random.Below(40), '\xff'));
      break;
    }
    case 2: {
      v1::Changes& changes = *message.mutable_changes();
      changes.set_records(3);
      changes.set_compression(v1::COMPRESSION_ZSTD);
      changes.set_payload_bytes(1 << 30);
      changes.set_payload("(\xb5/\xfd no such frame");
      break;
    }
    case 3: {
      // A record that says of itself what cannot be read.
      storage::FeedItem item;
      item.sequence = {1 + random.Below(50)};
      item.key = KeyOf("m1");
      item.update = std::string(1 + random.Below(30), '\xff');
      v1::Changes& changes = *message.mutable_changes();
      if (random.Chance(500)) changes.set_scope("*");
      changes.set_last(random.Below(60));
      node::PackRecords({&item}, changes);
      break;
    }
    case 4:
      message.mutable_stored()->set_scope(scopes[random.Below(5)]);
      message.mutable_stored()->set_through(1'000'000 + random.Below(1000));
      break;
    case 5:
      message.mutable_whole()->add_records()->set_id(std::string(random.Below(20), 'x'));
      break;
    case 6:
      message.mutable_left()->add_records()->mutable_record()->set_id("short");
      break;
    case 7: {
      v1::Refusal& refusal = *message.mutable_stored()->add_refused();
      refusal.mutable_record()->set_id(std::string(16, 'x'));
      refusal.set_reason(static_cast<v1::RefusalReason>(99));
      break;
    }
    case 8:
      message.mutable_hello()->set_version_min(99);
      message.mutable_hello()->set_version_max(99);
      break;
    case 9:
      message.mutable_welcome()->set_node(to_hub ? "from a node" : "no node's id");
      break;
    case 10:
      return PulseOfHubs(random, false);
    case 11:
      return PulseOfHubs(random, true);
    default:
      for (int i = 0; i < 1200; ++i) message.mutable_whole()->add_records();
      break;
  }
  return message;
}

bool Federation::NonsenseToHub(size_t number) {
  Site& hub = *sites_[number];
  if (hub.life == nullptr) return false;
  auto watch = std::make_shared<Watch>();
  Line::Hooks hooks;
  hooks.sends = [this, number](size_t side, const v1::SyncMessage&, size_t) {
    return side == kInitiator || (up(number) && sites_[number]->disk.Spend());
  };
  auto line = std::make_shared<Line>(scheduler_, network_random_, std::move(hooks),
                                     limits_.backlog_bytes_max);
  watch->site[kInitiator] = watch->site[kAcceptor] = number;
  lines_[++line_last_] = {line, watch};
  // A thief has a node's certificate, a stranger none.
  const Site* thief = nullptr;
  for (const auto& site : sites_) {
    if (!site->options.hub && fault_random_.Chance(300)) thief = site.get();
  }
  v1::SyncMessage hello;
  hello.mutable_hello()->set_version_min(1);
  hello.mutable_hello()->set_version_max(1);
  hello.mutable_hello()->set_replica(fault_random_.Next() | 1);
  hello.mutable_hello()->set_epoch(fault_random_.Next() | 1);
  hello.mutable_hello()->set_node(
      node::ToBytes(thief != nullptr ? thief->options.node : storage::NodeId{{7, 7, 7}}));
  for (const uint32_t entity : {kMember, kConsent, kEvent, kReply}) {
    hello.mutable_hello()->add_entities()->set_entity(entity);
  }
  // In the name of a hub that nobody knows.
  if (thief == nullptr && fault_random_.Chance(500)) {
    hello.mutable_hello()->set_hub(true);
    report_.counts.Add("nonsense", "in a hub's name");
  }
  BeginWithPuppet(number, line, hello.hello().hub() || (thief != nullptr && !thief->revoked));
  if (fault_random_.Chance(800)) line->Send(kInitiator, hello);
  // At once, or after the Welcome.
  const uint64_t wait_ms = fault_random_.Chance(600) ? 4000 : 0;
  const uint64_t messages = fault_random_.Between(1, 5);
  for (uint64_t i = 0; i < messages; ++i) {
    scheduler_.After(wait_ms, [line, message = Nonsense(fault_random_, true)] {
      line->Send(kInitiator, message);
    });
  }
  scheduler_.After(wait_ms + fault_random_.Between(100, 20'000),
                   [line] { line->Close(kInitiator, absl::CancelledError("enough")); });
  return true;
}

void Federation::BeginWithPuppet(size_t number, const std::shared_ptr<Line>& line, bool welcome) {
  Site& hub = *sites_[number];
  node::SessionHostOptions accepts;
  accepts.name = "a stranger";
  accepts.config = ConfigOf(hub, false);
  // Before the stranger's Hello, which names session 0, and after it.
  nonsense_sessions_.insert(accepts.config.id);
  nonsense_sessions_.insert(0);
  accepts.authorize = [welcome](const node::Authorize&,
                                const std::function<void(node::Authorized)>& done) {
    if (!welcome) return done({absl::PermissionDeniedError("not enrolled"), {}});
    done({absl::OkStatus(), {Scope::Global()}});
  };
  accepts.ended = [this](const absl::Status& status, bool) {
    report_.counts.Add("nonsense ended", absl::StatusCodeToString(status.code()));
  };
  const auto host = hub.life->group->Make(std::move(accepts));
  line->Connect(kAcceptor, host);
  line->Connect(kInitiator, [](const v1::SyncMessage&) {});
  hub.life->group->Begin(host, line->End(kAcceptor));
}

bool Federation::NonsenseToNode(size_t number) {
  Site& site = *sites_[number];
  Client& client = site.clients.front();
  if (client.line == nullptr || site.life == nullptr) return false;
  // What comes next on its stream, in the hub's name.
  nonsense_sessions_.insert(client.session);
  client.line->Inject(kAcceptor, Nonsense(fault_random_, false));
  return true;
}

}  // namespace chaptersync::simulation
