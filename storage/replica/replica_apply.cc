// SPDX-License-Identifier: Apache-2.0
//
// Taking what a peer sent: whether it may write that, the merge, what it is answered, and
// what follows for a node from its hub's refusals.
#include <algorithm>
#include <tuple>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"

#include "storage/core/limits.h"
#include "storage/core/planted.h"
#include "storage/core/record_codec.h"
#include "storage/core/status.h"
#include "storage/replica/hub_epochs.h"
#include "storage/replica/keys.h"
#include "storage/replica/meta_values.h"
#include "storage/replica/refusal.h"
#include "storage/replica/replica.h"
#include "storage/replica/rights.h"
#include "storage/replica/transaction.h"

namespace chaptersync::storage {
namespace {

// Whether the update has every cell of the record, or says that the receiver has it.
bool TellsAll(const RecordUpdate& update, const Record& record) {
  return std::all_of(record.cells.begin(), record.cells.end(), [&](const Cell& cell) {
    if (!update.whole && update.base.Covers(cell.version)) return true;
    const Cell* told = update.state.Find(cell.path);
    return told != nullptr && told->version == cell.version;
  });
}

// Whether the record is back in a scope of the peer, after it had left this one or another
// of them, and the peer has not yet said that it has heard so.
bool ReturnedUnheard(const RecordMeta& meta, const ApplyRequest& request) {
  const bool left_one =
      std::any_of(meta.scopes.begin(), meta.scopes.end(), [&](const ScopePosition& position) {
        return position.left && request.peer_has.contains(position.scope);
      });
  return std::any_of(meta.scopes.begin(), meta.scopes.end(), [&](const ScopePosition& position) {
    if (position.left || !(position.returned || left_one)) return false;
    const auto has = request.peer_has.find(position.scope);
    return has != request.peer_has.end() && position.entered > has->second;
  });
}

absl::Status CheckReadable(const EntityRule& rule, const RecordKey& key, const Record& state) {
  if (rule.readable == nullptr) return absl::OkStatus();
  const auto check = [&](const CellPath& path, const std::optional<std::string>& value) {
    if (!value || path.existence() || rule.readable(path, *value)) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(
        "field ", path.field, path.map_key ? ", an entry of it," : "", " of record ",
        key.id.ToString(), " holds ", value->size(), " bytes that are no value of it"));
  };
  for (const Cell& cell : state.cells) CHAPTER_RETURN_IF_ERROR(check(cell.path, cell.value));
  for (const ConflictEntry& entry : state.conflicts) {
    CHAPTER_RETURN_IF_ERROR(check(entry.path, entry.lost_value));
    // An edit may have lost to a deletion.
    if (entry.current_value == DeletedValue() || entry.current_value == RestoredValue()) continue;
    CHAPTER_RETURN_IF_ERROR(check(entry.path, entry.current_value));
  }
  return absl::OkStatus();
}

// Whether `after` has a value that `before` has not, or has of another version.
bool ChangesCells(const Record& before, const Record& after) {
  return std::any_of(after.cells.begin(), after.cells.end(), [&](const Cell& cell) {
    const Cell* known = before.Find(cell.path);
    return known == nullptr || known->version != cell.version || known->value != cell.value;
  });
}

// Whether a push that is taken goes back to its node: headquarters has rejected an earlier one of
// the record, and the node may have let it go while this one was on its way. Once: from then on
// the node knows that the record is here.
bool SendsBackRejected(Transaction& transaction, const PeerIdentity& node, const RecordKey& key) {
  const std::string row = keys::Rejected(node.node, node.epoch, key);
  const auto bytes = transaction.Get(Table::kMeta, row);
  if (!bytes.ok()) return false;
  auto rejected = DecodeRejected(*bytes);
  transaction.Note(rejected.status());
  if (!rejected.ok() || rejected->sent_back) return false;
  rejected->sent_back = true;
  transaction.batch().Put(Table::kMeta, row, Encode(*rejected));
  return true;
}

}  // namespace

// Where the hub has the record, for the node that pushes it.
absl::StatusOr<Whereabouts> Replica::Locate(const PeerIdentity& peer, const RecordKey& key,
                                            const StoredRecord& current) const {
  Whereabouts where;
  const std::vector<Scope> scopes = current.meta.Current();
  if (scopes.empty() || !Disjoint({scopes.begin(), scopes.end()}, peer.scopes)) return where;
  where.elsewhere = true;
  // Told that it left, of what it brought, a scope has a position and was never entered.
  where.been_there = std::any_of(
      current.meta.scopes.begin(), current.meta.scopes.end(),
      [&](const auto& p) { return peer.scopes.contains(p.scope) && p.entered != Sequence{}; });
  const auto dropped = engine_.Get(Table::kMeta, keys::DroppedBy(peer.node, peer.epoch, key));
  if (absl::IsNotFound(dropped.status())) return where;
  CHAPTER_RETURN_IF_ERROR(dropped.status());
  Reader in(*dropped);
  const Sequence since{in.Fixed64()};
  // In another epoch: this hub may have sent it again since, and forgotten that.
  where.let_go = Epoch{in.Fixed64()} == identity_.epoch;
  for (const Scope& scope : peer.scopes) {
    const ScopePosition* position = current.meta.Position(scope);
    if (position != nullptr && position->entered > since) where.let_go = false;
  }
  return where;
}

// Whether the node's chapter may write the record as far as that is its hosts'.
bool Replica::Hosts(Transaction& transaction, const PeerIdentity& peer, const RecordKey& key,
                    const Record& record) const {
  const Scope* chapter = ChapterScope(peer);
  if (chapter == nullptr) return true;
  return IsHost(options_.entities, key, record, *chapter,
                [&](const RecordKey& leader) -> const Record* {
                  const StoredRecord* stored = transaction.Find(leader);
                  return stored == nullptr ? nullptr : &stored->record;
                });
}

absl::StatusOr<Judgement> Replica::Admit(Transaction& transaction, const PeerIdentity& peer,
                                         const RecordKey& key, const RecordUpdate& update,
                                         const StoredRecord* current) const {
  auto rule = options_.entities.find(key.entity);
  if (rule == options_.entities.end()) {
    return Judgement{Judgement::Kind::kMalformed,
                     absl::StrCat("entity ", key.entity.value, " is not known to the hub"), 0};
  }
  if (auto status = CheckReadable(rule->second, key, update.state); !status.ok()) {
    return Judgement{Judgement::Kind::kMalformed, std::string(status.message()), 0};
  }
  if (current != nullptr) {
    CHAPTER_ASSIGN_OR_RETURN(Whereabouts where, Locate(peer, key, *current));
    where.hub = identity_.replica;
    where.not_a_host = !Hosts(transaction, peer, key, current->record);
    // By what others have written: it may have heard of that from another hub. And by what it had
    // seen: it may have had the right when it wrote.
    Record others = current->record;
    std::erase_if(others.cells, [&](const Cell& cell) {
      return !update.state.seen.Covers(cell.version) &&
             !SameLineage(cell.version.replica, peer.replica);
    });
    for (const Cell& cell : update.state.cells) {
      if (!SameLineage(cell.version.replica, peer.replica)) others.Put(cell);
    }
    where.believes_host = Hosts(transaction, peer, key, others);
    return Judge(rule->second, peer, key, update, current->record, where);
  }
  Whereabouts where;
  where.hub = identity_.replica;
  where.not_a_host = !Hosts(transaction, peer, key, update.state);
  // A new record is where those are that it follows.
  const OwnScopes own = storage::Apply(rule->second.scope, update.state);
  for (const RecordKey& leader : own.leaders) {
    const StoredRecord* stored = transaction.Find(leader);
    if (stored == nullptr) continue;
    // It is erased with what it follows, whoever says so.
    if (stored->record.erased) return Judgement{};
    CHAPTER_ASSIGN_OR_RETURN(const Whereabouts above, Locate(peer, leader, *stored));
    if (above.elsewhere && (!above.been_there || above.let_go)) where.elsewhere = true;
  }
  if (!Disjoint(own.scopes, peer.scopes)) where.elsewhere = false;
  const bool placed = std::any_of(own.scopes.begin(), own.scopes.end(),
                                  [](const Scope& scope) { return scope != Scope::Hq(); });
  where.hostless = rule->second.hosts_write && !placed && own.leaders.empty();
  return Judge(rule->second, peer, key, update, {}, where);
}

bool Replica::ComesBack(Transaction& transaction, const PeerIdentity& peer, const RecordKey& key,
                        const StoredRecord& current, const Record& merged) const {
  const std::vector<Scope> before = current.meta.Current();
  if (before.empty() || !Disjoint({before.begin(), before.end()}, peer.scopes)) return false;
  const auto rule = options_.entities.find(key.entity);
  if (rule == options_.entities.end()) return false;
  OwnScopes after = storage::Apply(rule->second.scope, merged);
  for (const RecordKey& leader : after.leaders) {
    if (const StoredRecord* stored = transaction.Find(leader); stored != nullptr) {
      const std::vector<Scope> scopes = stored->meta.Current();
      after.scopes.insert(scopes.begin(), scopes.end());
    }
  }
  return !Disjoint(after.scopes, peer.scopes);
}

absl::StatusOr<const char*> Replica::AdmitMerged(Transaction& transaction, const PeerIdentity& peer,
                                                 const RecordKey& key, const StoredRecord* current,
                                                 const Record& merged) const {
  if (current == nullptr || merged.erased) return nullptr;
  const Record& mine = current->record;
  if (!ChangesCells(mine, merged)) return nullptr;
  if (ComesBack(transaction, peer, key, *current, merged)) {
    return "would come back to this computer's chapter from another";
  }
  const std::vector<RecordKey> before = LeadersOf(key, mine);
  const std::vector<RecordKey> after = LeadersOf(key, merged);
  if (after == before) return nullptr;
  // What it follows now is judged as what a new record follows.
  CHAPTER_ASSIGN_OR_RETURN(const Whereabouts here, Locate(peer, key, *current));
  for (const RecordKey& leader : after) {
    if (std::find(before.begin(), before.end(), leader) != before.end()) continue;
    const StoredRecord* stored = transaction.Find(leader);
    if (stored != nullptr && stored->record.erased) {
      return "would be erased with the record that it would follow";
    }
    if (stored == nullptr || stored->meta.Current().empty()) {
      if (here.elsewhere) return "would follow a record whose place is not known";
      continue;
    }
    CHAPTER_ASSIGN_OR_RETURN(const Whereabouts above, Locate(peer, leader, *stored));
    if (above.elsewhere && (!above.been_there || above.let_go)) {
      return "would follow a record of another chapter";
    }
  }
  if (Hosts(transaction, peer, key, mine) && !Hosts(transaction, peer, key, merged)) {
    return "would follow a record that others host";
  }
  return nullptr;
}

RecordOutcome Replica::ApplyOne(Transaction& transaction, const ApplyRequest& request,
                                const InboundRecord& inbound) {
  using Kind = RecordOutcome::Kind;
  const PeerIdentity& peer = request.peer;
  const RecordKey& key = inbound.key;
  RecordOutcome outcome{.kind = Kind::kTaken,
                        .key = key,
                        .sequence = inbound.sequence,
                        .answer = false,
                        .refusal = {}};
  const auto refuse = [&](RefusedRecord::Reason reason,
                          std::string message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    transaction.Forget(key);
    outcome.kind = Kind::kRefused;
    outcome.answer = false;
    const bool in_feed = inbound.sequence != Sequence{};
    outcome.refusal = {key, in_feed ? inbound.sequence : inbound.place, reason, std::move(message)};
    if (options_.hub && !peer.hub) {
      transaction.batch().Put(Table::kMeta, keys::Refusal(peer.node, peer.epoch, key),
                              Encode(PendingRefusal{identity_.epoch, false, outcome.refusal}));
    }
    return outcome;
  };
  auto update = DecodeUpdate(inbound.update);
  if (!update.ok()) {
    return refuse(RefusedRecord::Reason::kMalformed, std::string(update.status().message()));
  }
  if (options_.hub && options_.ahead_max_ms) {
    const uint64_t now_ms = std::max(clock_.last().wall_ms(), WallMs());
    const HybridTime limit = HybridTime::FromWall(now_ms + *options_.ahead_max_ms);
    if (update->state.seen.Highest() > limit) {
      // Its own stamps the peer makes anew at the next handshake; those of others, by a
      // clock that was ahead, it cannot, and they hold up nothing else.
      Seen others = update->state.seen;
      others.Set(peer.replica, {});
      if (!peer.hub && others.Highest() > limit) {
        return refuse(RefusedRecord::Reason::kAhead,
                      absl::StrCat("record ", key.id.ToString(), " was stamped ",
                                   (others.Highest().wall_ms() - now_ms) / 1000,
                                   " s ahead of the hub's clock (at most ",
                                   *options_.ahead_max_ms / 1000, " s)"));
      }
      outcome.kind = Kind::kAhead;
      return outcome;
    }
  }
  StoredRecord* held = transaction.Find(key);
  // Whatever its hub did not take yet of it has nothing to wait for.
  if (!options_.hub && update->state.erased) {
    transaction.batch().Delete(Table::kMeta, keys::Waiting(key, peer.node));
  }
  bool take_back = false;
  LeavingValue dropped;
  if (!options_.hub && held == nullptr) {
    if (update->state.erased) {
      // Of a record that was dropped, refused writes may still be listed.
      if (auto status = ForgetRefusedOf(transaction, {key}); !status.ok()) {
        return refuse(RefusedRecord::Reason::kMalformed, status.ToString());
      }
      outcome.kind = Kind::kIgnored;
      return outcome;
    }
    auto bytes = transaction.Get(Table::kMeta, keys::Dropped(key));
    if (bytes.ok()) {
      auto decoded = DecodeLeaving(*bytes);
      if (!decoded.ok()) return refuse(RefusedRecord::Reason::kMalformed, "damaged");
      dropped = *std::move(decoded);
      // What a hub said in an epoch that is over counts no more.
      const auto stands = [&](const LeavingWord& word) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        const auto epochs = EpochsOf(word.hub);
        transaction.Note(epochs.status());
        return epochs.ok() && epochs->latest() == word.epoch &&
               !update->state.seen.CoversAll(word.seen);
      };
      if (std::any_of(dropped.words.begin(), dropped.words.end(), stands) &&
          !IsPlanted(Planted::kTakenBackTooEarly)) {
        outcome.kind = Kind::kIgnored;
        return outcome;
      }
      take_back = true;
    }
  }
  const Record nothing;
  const Record& mine = held == nullptr ? nothing : held->record;
  if (!update->whole && !mine.seen.CoversAll(update->base) && !mine.erased &&
      !IsPlanted(Planted::kPartialWithoutBase)) {
    outcome.kind = Kind::kNeedsWhole;
    return outcome;
  }
  const auto wait = [&](const std::string& reason) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const absl::Status put = PutApproval(transaction, peer, key, *update, mine, reason);
    if (put.ok()) {
      // As with what is taken: this clock is never behind what is kept here.
      clock_.Observe(update->state.seen.Highest());
      for (const auto& [id, time] : update->state.seen.entries()) {
        if (SameLineage(id, peer.replica)) outcome.waits.Advance(id, time);
      }
      return refuse(RefusedRecord::Reason::kWaits, reason);
    }
    // Where too much waits already, this hub does not keep it, and the node does.
    if (absl::IsResourceExhausted(put)) {
      return refuse(RefusedRecord::Reason::kWaits, std::string(put.message()));
    }
    if (!absl::IsPermissionDenied(put)) transaction.Note(put);
    RemoveApproval(transaction, peer.node, peer.epoch, key);
    return refuse(RefusedRecord::Reason::kRejected, std::string(put.message()));
  };
  if (options_.hub && !peer.hub) {
    using Judged = Judgement::Kind;
    KeepKnownConflicts(mine, update->state);
    const auto admitted = Admit(transaction, peer, key, *update, held);
    transaction.Note(admitted.status());
    const Judgement judgement = admitted.value_or(Judgement{Judged::kRights, "", 0});
    switch (judgement.kind) {
      case Judged::kTake:
        outcome.vouched = judgement.vouched;
        break;
      case Judged::kNothing:
        // It hears what stands, or that the record is elsewhere.
        if (held == nullptr) {
          outcome.kind = Kind::kIgnored;
          return outcome;
        }
        // Who found a conflict that both have first is the same everywhere.
        if (mine.seen.CoversAll(update->state.seen)) break;
        RemoveApproval(transaction, peer.node, peer.epoch, key);
        outcome.answer = !Contains(update->state, mine);
        return outcome;
      case Judged::kNeedsWhole:
        outcome.kind = Kind::kNeedsWhole;
        return outcome;
      case Judged::kWaits:
        return wait(judgement.reason);
      case Judged::kRights:
      case Judged::kMalformed:
        if (IsPlanted(Planted::kContextAdvancedByRefusedWrite) && held != nullptr &&
            judgement.kind == Judged::kRights) {
          held->record.seen.Unite(update->state.seen);
          transaction.Touch(key);
        }
        RemoveApproval(transaction, peer.node, peer.epoch, key);
        return refuse(judgement.kind == Judged::kRights ? RefusedRecord::Reason::kRights
                                                        : RefusedRecord::Reason::kMalformed,
                      judgement.reason);
    }
  }
  // Another hub has said that it leaves, and this one may be behind: pushed anew, it gets
  // that hub's word again.
  bool called_off = false;
  if (!options_.hub) {
    const auto reset = NotedRefusal(transaction, key, peer);
    if (!reset.ok()) return refuse(RefusedRecord::Reason::kMalformed, reset.status().ToString());
    if (*reset && !update->whole) {
      outcome.kind = Kind::kNeedsWhole;
      return outcome;
    }
    // The hub sends it again: it is not leaving after all.
    auto leaving = transaction.Get(Table::kMeta, keys::Leaving(key));
    if (held != nullptr && leaving.ok()) {
      const auto decoded = DecodeLeaving(*leaving);
      if (!decoded.ok()) return refuse(RefusedRecord::Reason::kMalformed, "damaged");
      transaction.batch().Delete(Table::kMeta, keys::Leaving(key));
      called_off = std::any_of(decoded->words.begin(), decoded->words.end(),
                               [&](const LeavingWord& word) { return word.hub != peer.node; });
    }
    // Of a record that was let go since, nothing is to be taken out.
    if (*reset && held == nullptr) {
      transaction.batch().Delete(Table::kMeta, keys::Reset(key));
    } else if (*reset) {
      TakeOutRefused(transaction, key, peer, **reset, &*update, update->state.seen);
      return outcome;
    }
  }
  // Nothing was left out that is not here, or that an erasure would not take.
  if (held == nullptr || mine.erased || IsPlanted(Planted::kPartialWithoutBase)) {
    update->whole = true;
  }
  MergeResult merged =
      Merge(mine, *update, {Writer(), std::max(clock_.last(), HybridTime::FromWall(WallMs()))});
  if (options_.hub && !peer.hub) {
    const auto admitted = AdmitMerged(transaction, peer, key, held, merged.record);
    transaction.Note(admitted.status());
    const char* why = admitted.value_or(nullptr);
    if (why != nullptr) {
      if (!update->whole) {
        outcome.kind = Kind::kNeedsWhole;
        return outcome;
      }
      return wait(absl::StrCat("record ", key.id.ToString(), " ", why,
                               ": it waits for headquarters' word"));
    }
    RemoveApproval(transaction, peer.node, peer.epoch, key);
  }
  for (const std::string& damage : merged.damage) {
    damage_.push_back(absl::StrCat("record ", key.id.ToString(), ": ", damage));
  }
  conflicts_found_ += merged.conflicts_found;
  if (std::string over = OverLimit(merged.record); !over.empty() && options_.hub && !peer.hub) {
    return refuse(RefusedRecord::Reason::kMalformed,
                  absl::StrCat("record ", key.id.ToString(), " would have ", over));
  }
  // Having seen a value is not to have it, where two computers wrote under one version.
  const bool equals_sent =
      Contains(update->state, merged.record) && TellsAll(*update, merged.record);
  // Named scopes count at a node, and at a hub that has no rule of its own for the entity.
  const bool named_anew = peer.hub && held != nullptr &&
                          !(options_.hub && options_.entities.contains(key.entity)) &&
                          held->meta.named != update->named_scopes;
  const bool seen_here_and_lost = SeenAndLost(mine, merged.record);
  // The same damage met again changes nothing.
  const bool damaged = !merged.damage.empty() &&
                       (!Contains(mine, merged.record) || ChangesCells(mine, merged.record));
  const bool changed = !Contains(mine, update->state) || damaged || held == nullptr || named_anew ||
                       seen_here_and_lost;
  if (options_.hub) outcome.answer = !equals_sent;
  // The hub has all that is here, and nothing of it goes there again.
  if (!options_.hub && equals_sent && !called_off) {
    transaction.batch().Delete(Table::kMeta, keys::Waiting(key, peer.node));
  }
  if (!changed && !called_off) return outcome;
  const bool existed = held != nullptr;
  const std::vector<Scope> before = existed ? held->meta.Current() : std::vector<Scope>{};
  StoredRecord& stored = transaction.Make(key);
  stored.record = std::move(merged.record);
  // An own write that comes from a hub, after a backup was put back, is nothing that only
  // this replica knows.
  constexpr Sequence kLongAgo{1};
  if (!options_.hub) {
    for (Cell& cell : stored.record.cells) {
      if (cell.learned == Sequence{} && Own(cell.version.replica)) cell.learned = kLongAgo;
    }
  }
  // Only what this replica itself learnt has a place in its feed; the rest gets one now.
  stored.meta.origin = equals_sent && !called_off ? peer.replica : ReplicaId{};
  // It may have been told that the record left, and must hear that it has not.
  if (options_.hub && !peer.hub && existed &&
      (Disjoint({before.begin(), before.end()}, peer.scopes) ||
       ReturnedUnheard(stored.meta, request))) {
    stored.meta.origin = {};
    outcome.answer = true;
  }
  if (options_.hub && !peer.hub && SendsBackRejected(transaction, peer, key)) {
    stored.meta.origin = {};
    outcome.answer = true;
  }
  if (options_.hub && existed && seen_here_and_lost) {
    stored.meta.origin = {};
    transaction.TellWhole(key);
  }
  if (peer.hub) stored.meta.named = update->named_scopes;
  if (options_.hub && !peer.hub && !existed) {
    if (const Scope* chapter = ChapterScope(peer)) stored.meta.maker = *chapter;
  }
  if (take_back) {
    outcome.taken_back = true;
    transaction.batch().Delete(Table::kMeta, keys::Dropped(key));
    stored.meta.again = dropped.dropped_for;
    // Taken back in a state that may lack writes of ours: never write under an id
    // whose writes others may have seen.
    if (!stored.record.seen.CoversAll(dropped.seen) && !IsPlanted(Planted::kTakenBackTooEarly)) {
      ChangeIdentity();
    }
  }
  clock_.Observe(stored.record.seen.Highest());
  transaction.Touch(key);
  return outcome;
}

// The refusal of this hub that waits for its word on the record.
absl::StatusOr<std::optional<RefusedRecord>> Replica::NotedRefusal(Transaction& transaction,
                                                                   const RecordKey& key,
                                                                   const PeerIdentity& hub) {
  auto bytes = transaction.Get(Table::kMeta, keys::Reset(key));
  if (absl::IsNotFound(bytes.status())) return std::nullopt;
  CHAPTER_RETURN_IF_ERROR(bytes.status());
  CHAPTER_ASSIGN_OR_RETURN(ResetValue reset, DecodeReset(*bytes));
  if (reset.hub != hub.node || reset.epoch != hub.epoch) return std::nullopt;
  return std::move(reset.refusal);
}

// A hub refused what this node wrote to a record, and its own state has come: that
// stands, later writes of this node go on top, what was refused is listed. Where the
// record has left or has no place (`hub_state` null), or the hub has never had it or does
// not say what it had seen (`hub_seen` empty as well), what was refused is taken out of it.
void Replica::TakeOutRefused(Transaction& transaction, const RecordKey& key,
                             const PeerIdentity& hub, const RefusedRecord& refusal,
                             const RecordUpdate* hub_state, const Seen& hub_seen) {
  transaction.batch().Delete(Table::kMeta, keys::Reset(key));
  StoredRecord* held = transaction.Find(key);
  if (held == nullptr) return;
  if (held->record.erased) {
    // An erasure is nobody's to refuse, and this hub may not have it, but headquarters': it stays
    // here, and goes there no more. What was erased since was not what headquarters has rejected.
    const bool rejected =
        refusal.reason == RefusedRecord::Reason::kRejected && held->meta.latest <= refusal.sequence;
    held->meta.origin = rejected ? hub.replica : ReplicaId{};
    if (rejected) transaction.batch().Delete(Table::kMeta, keys::Waiting(key, hub.node));
    return transaction.Touch(key);
  }
  const OwnIds ids{{identity_.own.begin(), identity_.own.end()}, identity_.replica};
  const auto acknowledged = ReadAcknowledged(*engine_.NewSnapshot());
  transaction.Note(acknowledged.status());
  if (!acknowledged.ok()) return;
  std::set<Version> elsewhere;
  for (const Cell& cell : held->record.cells) {
    if (!ids.Own(cell.version.replica)) continue;
    const bool known =
        std::any_of(acknowledged->begin(), acknowledged->end(), [&](const auto& entry) {
          const auto& [other, by] = entry;
          return !SameLineage(other, hub.replica) && cell.version.time <= by.own_high &&
                 cell.learned <= by.farthest;
        });
    if (known) elsewhere.insert(cell.version);
  }
  TakenOut parts =
      TakeOut(key, held->record, refusal, ids, {hub_state, hub_seen, std::move(elsewhere)});
  if (parts.gaps && hub_seen.empty()) {
    transaction.batch().Put(Table::kMeta, keys::kCursorsVoid, "");
  } else if (parts.gaps || parts.elsewhere) {
    // Another hub may have what is taken out here, and has told it once.
    transaction.Note(VoidCursors(transaction.batch(), hub.replica));
  }
  // To have seen a later write of an id is to have seen all before it: what was refused
  // would count as replaced if it came back, from a backup or by way of another hub.
  if (parts.ids.contains(identity_.replica)) {
    std::set<Version> old;
    for (const Cell& cell : parts.later.state.cells) {
      if (cell.version.replica == identity_.replica) old.insert(cell.version);
    }
    IdRange between;
    between.KeepOrder(held->record, old);
    if (hub_state != nullptr) between.KeepOrder(hub_state->state, old);
    ChangeIdentity(between);
  }
  StampLater(transaction, key, parts);
  if (hub_state == nullptr || !hub_state->state.erased) {
    for (RefusedWrite& write : parts.listed) PutRefused(transaction, std::move(write));
  }
  held->meta.origin = {};
  if (hub_state == nullptr) {
    // Where no value was taken out, a hub that has never had it, or has lost it, gets what others
    // wrote; else there is nothing to send but later writes. What was refused as it is now would
    // be so again.
    const bool again = !HubHasTheRest(parts, hub_seen) && !parts.ids.empty();
    // Nothing of it goes there, so that nothing of it waits there.
    if (parts.later.state.cells.empty() && !again) {
      held->meta.origin = hub.replica;
      transaction.batch().Delete(Table::kMeta, keys::Waiting(key, hub.node));
    }
    Record rest = WithoutRefused(held->record, std::move(parts), hub_seen);
    if (rest.cells.empty()) return transaction.Remove(key);
    held->record = std::move(rest);
  } else {
    held->record =
        OnTopOf(*hub_state, parts, ids,
                {identity_.replica, std::max(clock_.last(), HybridTime::FromWall(WallMs()))});
  }
  clock_.Observe(held->record.seen.Highest());
  transaction.Touch(key);
}

// What this node has written since, under an id of which something was refused, is written again
// under the present one.
void Replica::StampLater(Transaction& transaction, const RecordKey& key, TakenOut& parts) {
  Record& later = parts.later.state;
  std::map<Version, Version> renamed;
  for (const Cell& cell : later.cells) {
    const Version& version = cell.version;
    if (!parts.ids.contains(version.replica)) continue;
    const auto [it, fresh] = renamed.try_emplace(version);
    if (!fresh) continue;
    HybridTime time = version.time;
    while (!renamed_to_.insert(time).second) ++time.ticks;
    it->second = {time, identity_.replica};
  }
  const auto rename = [&](Version& version) {
    const auto it = renamed.find(version);
    if (it != renamed.end()) version = it->second;
  };
  for (Cell& cell : later.cells) {
    rename(cell.version);
    later.seen.Advance(cell.version);
    if (cell.version.replica == identity_.replica) NoteStamp(transaction, key, cell.version);
  }
  for (ConflictEntry& entry : later.conflicts) {
    rename(entry.lost_version);
    rename(entry.current_version);
  }
  std::sort(later.conflicts.begin(), later.conflicts.end(), [](const auto& a, const auto& b) {
    return std::tie(a.path, a.lost_version) < std::tie(b.path, b.lost_version);
  });
}

// More cells than one entry may have become several entries.
void Replica::PutRefused(Transaction& transaction, RefusedWrite refused) {
  const std::vector<CellWrite> cells = std::exchange(refused.cells, {});
  refused.reason = refused.reason.substr(0, kRefusedReasonBytesMax);
  for (size_t begin = 0; begin == 0 || begin < cells.size(); begin += kCellsMax) {
    const size_t end = std::min(cells.size(), begin + kCellsMax);
    refused.cells.assign(cells.begin() + static_cast<ptrdiff_t>(begin),
                         cells.begin() + static_cast<ptrdiff_t>(end));
    refused.number = ++refused_last_;
    transaction.batch().Put(Table::kMeta, keys::Refused(refused.number), EncodeRefused(refused));
  }
}

std::vector<RecordKey> Replica::LeadersOf(const RefusedWrite& refused) const {
  Record record;
  for (const CellWrite& cell : refused.cells) {
    record.cells.push_back({.path = cell.path, .value = cell.value});
  }
  return LeadersOf(refused.key, record);
}

absl::StatusOr<std::vector<RecordKey>> Replica::FindMissing(const PeerIdentity& hub) {
  absl::MutexLock lock(&mutex_);
  auto snapshot = engine_.NewSnapshot();
  const auto holds = [&](const RecordKey& key) -> absl::StatusOr<bool> {
    const auto held = snapshot->Get(Table::kRecord, EncodeKey(key));
    if (!held.ok() && !absl::IsNotFound(held.status())) return held.status();
    return held.ok();
  };
  std::set<RecordKey> listed;
  std::string prefix(1, keys::kRefusedKind);
  auto it = snapshot->NewIterator(Table::kMeta, keys::Refused(listed_asked_ + 1),
                                  keys::PrefixEnd(prefix));
  size_t looked_at = 0;
  for (it->SeekToFirst(); it->Valid() && looked_at < kMissingAskedMax; it->Next(), ++looked_at) {
    // One that cannot be read stops nothing, here and where lists are forgotten.
    const auto refused = DecodeRefused(it->value());
    if (!refused.ok()) continue;
    CHAPTER_ASSIGN_OR_RETURN(const bool held, holds(refused->key));
    // A record that is held follows what it holds.
    std::set<RecordKey> asked;
    if (!held) asked.insert(refused->key);
    for (const RecordKey& leader : held ? std::vector<RecordKey>() : LeadersOf(*refused)) {
      CHAPTER_ASSIGN_OR_RETURN(const bool leader_held, holds(leader));
      if (!leader_held) asked.insert(leader);
    }
    if (listed.size() + asked.size() > kMissingAskedMax) break;
    listed.merge(asked);
    listed_asked_ = Reader(it->key().substr(1)).BigEndian64();
  }
  CHAPTER_RETURN_IF_ERROR(it->status());
  if (!it->Valid()) listed_asked_ = 0;
  std::vector<RecordKey> out(listed.begin(), listed.end());

  prefix = std::string(1, keys::kDroppedKind);
  it = snapshot->NewIterator(Table::kMeta, dropped_asked_.empty() ? prefix : dropped_asked_,
                             keys::PrefixEnd(prefix));
  looked_at = 0;
  for (it->SeekToFirst(); it->Valid() && looked_at < kMissingAskedMax; it->Next(), ++looked_at) {
    const auto dropped = DecodeLeaving(it->value());
    if (!dropped.ok()) continue;
    bool follows = !dropped->leaders.empty() && dropped->Find(hub.node, hub.epoch) == nullptr;
    for (const RecordKey& leader : dropped->leaders) {
      if (!follows) break;
      CHAPTER_ASSIGN_OR_RETURN(follows, holds(leader));
    }
    if (follows) out.push_back(Reader(it->key().substr(1)).Key());
  }
  CHAPTER_RETURN_IF_ERROR(it->status());
  dropped_asked_ = it->Valid() ? std::string(it->key()) : std::string();
  return out;
}

// An entry that cannot be read is known by its key alone, and stops nothing.
absl::Status Replica::ForgetRefusedOf(Transaction& transaction, const std::set<RecordKey>& erased) {
  if (erased.empty()) return absl::OkStatus();
  const std::string prefix(1, keys::kRefusedKind);
  auto snapshot = engine_.NewSnapshot();
  auto it = snapshot->NewIterator(Table::kMeta, prefix, keys::PrefixEnd(prefix));
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    bool of_it = erased.contains(Reader(it->value()).Key());
    // As with what waits at a hub: a record that is held follows what it holds.
    if (const auto refused = DecodeRefused(it->value()); !of_it && refused.ok()) {
      const std::vector<RecordKey> leaders = LeadersOf(*refused);
      of_it = std::any_of(leaders.begin(), leaders.end(),
                          [&](const RecordKey& leader) { return erased.contains(leader); }) &&
              transaction.Find(refused->key) == nullptr;
      CHAPTER_RETURN_IF_ERROR(transaction.status());
    }
    if (!of_it) continue;
    transaction.batch().Delete(Table::kMeta, it->key());
    transaction.LeaveResidue();
  }
  return it->status();
}

absl::StatusOr<ApplyResult> Replica::Apply(const ApplyRequest& request) {
  ApplyResult result;
  std::vector<ChangeEvent> events;
  const PeerIdentity& peer = request.peer;
  {
    absl::MutexLock lock(&mutex_);
    // A hub has found out meanwhile that it went back: to a peer hub, what it lost is its own; and
    // what a node pushes in the name that it had must not pass for another's.
    if (request.told_as != ReplicaId{} && request.told_as != identity_.replica) {
      result.identity_changed = true;
      return result;
    }
    Transaction transaction(engine_, options_);
    damage_.clear();
    conflicts_found_ = 0;
    identity_changes_ = false;
    renamed_to_.clear();
    absl::Cleanup undo = [this, before = identity_]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      identity_ = before;
      approvals_.Undo();
    };
    for (const InboundRecord& inbound : request.records) {
      result.outcomes.push_back(ApplyOne(transaction, request, inbound));
      CHAPTER_RETURN_IF_ERROR(transaction.status());
    }
    for (const InboundLeft& left : request.left) {
      if (options_.hub) continue;  // hubs hold everything
      CHAPTER_ASSIGN_OR_RETURN(const auto reset, NotedRefusal(transaction, left.key, peer));
      if (reset) TakeOutRefused(transaction, left.key, peer, *reset, nullptr, left.seen);
      const StoredRecord* held = transaction.Find(left.key);
      if (held == nullptr && !left.unplaced) {
        // Of what was dropped at another hub's word it need not be asked again. What may come back
        // is decided by what the record had seen when it was dropped.
        if (const auto bytes = transaction.Get(Table::kMeta, keys::Dropped(left.key)); bytes.ok()) {
          auto dropped = DecodeLeaving(*bytes);
          if (!dropped.ok()) continue;
          dropped->Hear({peer.node, peer.epoch, {}});
          transaction.batch().Put(Table::kMeta, keys::Dropped(left.key), Encode(*dropped));
        }
      }
      // Without anything seen the hub has never had it: nothing leaves.
      if (held == nullptr || held->record.erased || left.seen.empty() || left.unplaced) continue;
      LeavingValue leaving;
      if (auto bytes = transaction.Get(Table::kMeta, keys::Leaving(left.key)); bytes.ok()) {
        CHAPTER_ASSIGN_OR_RETURN(leaving, DecodeLeaving(*bytes));
      }
      leaving.Hear({peer.node, peer.epoch, left.seen});
      transaction.batch().Put(Table::kMeta, keys::Leaving(left.key), Encode(leaving));
      leaving_.insert(left.key);
    }
    CHAPTER_RETURN_IF_ERROR(transaction.Place());
    if (options_.hub) NoteHighest(transaction, result.outcomes);
    if (options_.hub && !peer.hub) AnswerPusher(transaction, request, result);
    CHAPTER_RETURN_IF_ERROR(transaction.Place());

    // A cursor stays where its mark is known until nothing is missing.
    const bool missing = std::any_of(result.outcomes.begin(), result.outcomes.end(),
                                     [](const RecordOutcome& outcome) {
                                       return outcome.sequence != Sequence{} &&
                                              (outcome.kind == RecordOutcome::Kind::kNeedsWhole ||
                                               outcome.kind == RecordOutcome::Kind::kAhead);
                                     });
    for (const FeedCursor& cursor : request.cursors) {
      if (!missing) PutCursor(cursor, peer.hub, transaction.batch());
    }
    if (identity_changes_) {
      transaction.batch().Put(Table::kMeta, keys::kIdentity, EncodeIdentity());
      result.identity_changed = true;
    }
    CHAPTER_RETURN_IF_ERROR(Commit(transaction));
    std::move(undo).Cancel();
    events = transaction.events();
    result.damage = std::move(damage_);
    result.conflicts_found = conflicts_found_;
  }
  CHAPTER_RETURN_IF_ERROR(Finish(events, /*applied=*/true));
  if (!options_.hub && !request.left.empty()) {
    CHAPTER_ASSIGN_OR_RETURN(AcknowledgeResult due, Acknowledge(AcknowledgeRequest{.peer = peer}));
    result.dropped = std::move(due.dropped);
  }
  return result;
}

// After the records of a node's push are placed: what the node must hear of
// them, kept in its scope's feed as well, so that a cut stream loses no answer.
void Replica::AnswerPusher(Transaction& transaction, const ApplyRequest& request,
                           ApplyResult& result) {
  const PeerIdentity& peer = request.peer;
  const Scope* chapter = ChapterScope(peer);
  for (RecordOutcome& outcome : result.outcomes) {
    if (outcome.kind != RecordOutcome::Kind::kTaken) continue;
    StoredRecord* stored = transaction.Find(outcome.key);
    if (stored == nullptr) continue;
    if (stored->record.erased) {
      // Also where it was the leader that was erased.
      if (stored->meta.origin != peer.replica) outcome.answer = true;
      // Whoever pushed it may hold it: the feed of its scope tells of the erasure.
      if (outcome.answer && chapter != nullptr) transaction.TellLeft(outcome.key, *chapter);
      continue;
    }
    const std::set<Scope>& placement = transaction.Placement(outcome.key);
    if (placement.empty()) {
      // Once it has a place, whoever brought it must hear where.
      std::vector<Scope>& pushers = stored->meta.pushers;
      if (chapter == nullptr ||
          std::find(pushers.begin(), pushers.end(), *chapter) != pushers.end()) {
        continue;
      }
      pushers.push_back(*chapter);
      transaction.Touch(outcome.key);
      continue;
    }
    if (Disjoint(placement, peer.scopes)) {
      outcome.answer = true;
      if (chapter != nullptr) transaction.TellLeft(outcome.key, *chapter);
    } else if (outcome.answer && !transaction.touched(outcome.key)) {
      // Nothing changed here, and the node may have passed its place in the feed.
      bool to_come = false;
      for (const ScopePosition& position : stored->meta.scopes) {
        auto has = request.peer_has.find(position.scope);
        if (!position.left && has != request.peer_has.end() && position.at > has->second) {
          to_come = true;
        }
      }
      if (!to_come || stored->meta.origin == peer.replica) {
        stored->meta.origin = {};
        transaction.Touch(outcome.key);
      }
    }
  }
}

// Whoever brought them: a node that goes back, or a clone, meets here what was written under
// its id, also where this hub has gone back itself and got it from others.
void Replica::NoteHighest(Transaction& transaction, const std::vector<RecordOutcome>& outcomes) {
  struct Stamped {
    HybridTime time;
    uint64_t hash = 0;
  };
  std::map<ReplicaId, Stamped> highest;
  for (const RecordOutcome& outcome : outcomes) {
    const bool taken = outcome.kind == RecordOutcome::Kind::kTaken;
    const StoredRecord* stored = taken ? transaction.Find(outcome.key) : nullptr;
    const Seen& seen = stored == nullptr ? outcome.waits : stored->record.seen;
    // Also of writes that lost, or that nothing is left of: what the peer writes below them would
    // count as seen.
    for (const auto& [replica, time] : seen.entries()) {
      Stamped& known = highest[replica];
      if (time > known.time) known = {time, StampHash(outcome.key, Version{time, replica})};
    }
  }
  for (const auto& [replica, stamped] : highest) {
    const std::string key = keys::Highest(replica);
    if (auto known = transaction.Get(Table::kMeta, key);
        known.ok() && HybridTime{Reader(*known).Fixed64()} >= stamped.time) {
      continue;
    }
    std::string value;
    AppendFixed64(stamped.time.ticks, value);
    AppendFixed64(stamped.hash, value);
    transaction.batch().Put(Table::kMeta, key, value);
  }
}

}  // namespace chaptersync::storage
