// SPDX-License-Identifier: Apache-2.0
//
// Finds what is news in an update, whose it is, and what follows; see rights.h. News is whatever
// the merge would take.
#include "storage/replica/rights.h"

#include <algorithm>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"

#include "storage/core/digest.h"
#include "storage/core/limits.h"
#include "storage/core/planted.h"
#include "storage/core/record_codec.h"

namespace chaptersync::storage {
namespace {

const ConflictEntry* FindEntry(const Record& record, const ConflictEntry& entry) {
  const auto it = std::lower_bound(
      record.conflicts.begin(), record.conflicts.end(), entry, [](const auto& a, const auto& b) {
        return std::tie(a.path, a.lost_version) < std::tie(b.path, b.lost_version);
      });
  const bool found = it != record.conflicts.end() && it->path == entry.path &&
                     it->lost_version == entry.lost_version;
  return found ? &*it : nullptr;
}

struct Settlement {
  const ConflictEntry* entry = nullptr;
  const SettlementEntry* one = nullptr;
};

// What an update tells and a record has not got.
struct News {
  std::vector<const Cell*> cells;
  std::vector<const ConflictEntry*> entries;
  std::vector<Settlement> settlements;
  bool erasure = false;
  bool empty() const { return cells.empty() && entries.empty() && settlements.empty() && !erasure; }
};

// As Merge has it: what was seen is nothing new only where a value stands that the update does not
// say it has replaced.
bool IsNews(const Cell& cell, const RecordUpdate& update, const Record& mine) {
  const Cell* held = mine.Find(cell.path);
  if (held == nullptr) return true;
  if (held->version == cell.version) return held->value != cell.value;
  if (!mine.seen.Covers(cell.version)) return true;
  if (!update.state.seen.Covers(held->version)) return false;
  // Each says that it has replaced the other's: the later stands, and the other is logged.
  ConflictEntry lost;
  lost.path = cell.path;
  lost.lost_version = cell.version;
  return cell.version > held->version || FindEntry(mine, lost) == nullptr;
}

News FindNews(const RecordUpdate& update, const Record& mine) {
  News news;
  if (mine.erased) return news;
  news.erasure = update.state.erased;
  for (const Cell& cell : update.state.cells) {
    if (IsNews(cell, update, mine)) news.cells.push_back(&cell);
  }
  for (const ConflictEntry& entry : update.state.conflicts) {
    const ConflictEntry* held = FindEntry(mine, entry);
    if (held == nullptr) news.entries.push_back(&entry);
    for (const SettlementEntry& settlement : entry.settlements) {
      const bool known =
          held != nullptr &&
          std::any_of(held->settlements.begin(), held->settlements.end(),
                      [&](const auto& s) { return s.version == settlement.version; });
      if (!known) news.settlements.push_back({&entry, &settlement});
    }
  }
  return news;
}

Judgement Refused(Judgement::Kind kind, const RecordKey& key, const CellPath& path,
                  const char* why) {
  return {kind,
          absl::StrCat("field ", path.field, path.map_key ? ", an entry of it," : "", " of record ",
                       key.id.ToString(), " ", why),
          0};
}

bool IsHost(const std::map<EntityNumber, EntityRule>& entities, const RecordKey& key,
            const Record& record, const Scope& chapter,
            const std::function<const Record*(const RecordKey&)>& find, int depth) {
  if (IsPlanted(Planted::kAnybodyHosts)) return true;
  const auto rule = entities.find(key.entity);
  if (rule == entities.end() || !rule->second.hosts_write || depth > kFollowDepthMax) return true;
  const OwnScopes own = Apply(rule->second.scope, record);
  if (own.scopes.contains(Scope::Global())) return own.scopes.contains(chapter);
  if (!own.scopes.empty()) return true;
  return own.leaders.empty() ||
         std::any_of(own.leaders.begin(), own.leaders.end(), [&](const RecordKey& leader) {
           const Record* above = find(leader);
           return above == nullptr || IsHost(entities, leader, *above, chapter, find, depth + 1);
         });
}

}  // namespace

const Scope* ChapterScope(const PeerIdentity& peer) {
  for (const Scope& scope : peer.scopes) {
    if (scope != Scope::Global()) return &scope;
  }
  return nullptr;
}

bool IsHost(const std::map<EntityNumber, EntityRule>& entities, const RecordKey& key,
            const Record& record, const Scope& chapter,
            const std::function<const Record*(const RecordKey&)>& find) {
  return IsHost(entities, key, record, chapter, find, 0);
}

Judgement Judge(const EntityRule& rule, const PeerIdentity& peer, const RecordKey& key,
                const RecordUpdate& update, const Record& mine, const Whereabouts& where) {
  using Kind = Judgement::Kind;
  const auto own = [&](ReplicaId id) { return SameLineage(id, peer.replica); };
  const auto headquarters = [&](const CellPath& path) {
    if (IsPlanted(Planted::kHeadquartersFieldsTaken)) return false;
    return rule.headquarters_only || rule.headquarters_fields.contains(path.field);
  };
  constexpr char kOtherValue[] =
      "holds another value in another computer's name than that one wrote";
  for (const Cell& cell : update.state.cells) {
    const Cell* held = mine.Find(cell.path);
    if (held != nullptr && held->version == cell.version) {
      if (held->value == cell.value) continue;
      if (!own(cell.version.replica)) return Refused(Kind::kRights, key, cell.path, kOtherValue);
    }
    if (own(cell.version.replica) && headquarters(cell.path)) {
      return Refused(Kind::kRights, key, cell.path, "is written by headquarters only");
    }
  }
  const auto holds = [&](const ConflictEntry& entry) {
    const Cell* held = mine.Find(entry.path);
    return held != nullptr && held->version == entry.lost_version &&
           held->value == entry.lost_value;
  };
  const News news = FindNews(update, mine);
  if (news.empty()) {
    const bool elsewhere = where.elsewhere && (!where.been_there || where.let_go);
    const bool nobodys = mine.seen.empty() && !mine.erased && !update.state.erased;
    const bool theirs = elsewhere || where.not_a_host || rule.headquarters_only || nobodys;
    return {theirs ? Kind::kNothing : Kind::kTake, "", 0};
  }
  Judgement judgement;
  bool writes = false;
  bool of_headquarters = false;
  bool of_this_hub = false;
  const auto vouch = [&](const CellPath& path, ReplicaId writer) {
    ++judgement.vouched;
    of_headquarters |= headquarters(path);
    of_this_hub |= writer != ReplicaId{} && writer == where.hub;
  };
  // A refusal takes out what is the node's own and the hub has not seen.
  const auto fresh = [&](const Version& version) {
    return own(version.replica) && !mine.seen.Covers(version);
  };
  for (const Cell* cell : news.cells) {
    if (own(cell->version.replica)) {
      writes |= fresh(cell->version);
    } else {
      vouch(cell->path, cell->version.replica);
    }
  }
  for (const ConflictEntry* entry : news.entries) {
    const ReplicaId lost_by = entry->lost_version.replica;
    writes |= fresh(entry->lost_version) && !entry->path.existence();
    of_headquarters |= headquarters(entry->path);
    // Where the hub holds the value, or the node wrote it, it needs nobody's word.
    if (own(entry->found_by) && (own(lost_by) || holds(*entry))) continue;
    vouch(entry->path, mine.seen.Covers(entry->lost_version) ? ReplicaId{} : lost_by);
  }
  for (const Settlement& settlement : news.settlements) {
    const ReplicaId settled_by = settlement.one->version.replica;
    of_headquarters |= headquarters(settlement.entry->path);
    if (own(settled_by)) {
      writes |= fresh(settlement.one->version);
    } else {
      vouch(settlement.entry->path, settled_by);
    }
  }
  const auto waits = [&](const char* why) {
    if (!update.whole) return Judgement{Kind::kNeedsWhole, "", 0};
    return Judgement{
        Kind::kWaits,
        absl::StrCat("record ", key.id.ToString(), " ", why, ": it waits for headquarters' word"),
        judgement.vouched};
  };
  if (where.not_a_host && !update.whole) return {Kind::kNeedsWhole, "", 0};
  if (where.not_a_host && writes && !where.believes_host) {
    return {Kind::kRights,
            absl::StrCat("record ", key.id.ToString(),
                         " is for everybody, and only its hosts write it: this chapter is none"),
            0};
  }
  if (where.not_a_host) return waits("is for everybody, and this chapter is none of its hosts");
  if (news.erasure && !IsPlanted(Planted::kErasuresTaken)) {
    return waits("was erased, as this computer says");
  }
  if (where.hostless) return waits("is not known here, and names no host and nothing it follows");
  if (judgement.vouched > 0 && !update.whole) return {Kind::kNeedsWhole, "", 0};
  if (of_headquarters) {
    return waits("has values of headquarters that headquarters has not got");
  }
  if (of_this_hub) return waits("has values in this hub's name that it has not written");
  if (!where.elsewhere) return judgement;
  if (!where.been_there) return waits("was never in this computer's chapter");
  if (where.let_go && !update.again) {
    return {Kind::kRights, absl::StrCat("record ", key.id.ToString(), " is another chapter's now"),
            0};
  }
  if (where.let_go) return waits("had left this computer's chapter");
  return judgement;
}

void KeepKnownConflicts(const Record& mine, Record& theirs) {
  for (ConflictEntry& entry : theirs.conflicts) {
    const ConflictEntry* known = FindEntry(mine, entry);
    if (known == nullptr) continue;
    entry.lost_value = known->lost_value;
    entry.lost_actor = known->lost_actor;
    for (SettlementEntry& settlement : entry.settlements) {
      for (const SettlementEntry& one : known->settlements) {
        if (one.version == settlement.version) settlement = one;
      }
    }
  }
}

void AddNews(const RecordUpdate& update, const Record& mine, ApprovalNews& out) {
  const News news = FindNews(update, mine);
  for (const Cell* cell : news.cells) {
    const Cell* stands = mine.Find(cell->path);
    out.values.push_back({*cell, stands == nullptr ? std::nullopt : std::optional(*stands)});
  }
  out.conflicts = news.entries.size();
  out.settlements = news.settlements.size();
}

bool SeenAndLost(const Record& mine, const Record& merged) {
  return std::any_of(merged.cells.begin(), merged.cells.end(), [&](const Cell& cell) {
    if (!mine.seen.Covers(cell.version)) return false;
    const Cell* stood = mine.Find(cell.path);
    return stood == nullptr || stood->version != cell.version;
  });
}

std::string NewsDigest(const RecordUpdate& update, const Record& mine) {
  const News news = FindNews(update, mine);
  std::string text(news.erasure ? "erased" : "");
  const auto version = [&text](const Version& v) {
    AppendFixed64(v.time.ticks, text);
    AppendFixed64(v.replica.value, text);
  };
  const auto value = [&text](const std::optional<std::string>& v) {
    AppendVarint(v ? 1 : 0, text);
    if (v) AppendString(*v, text);
  };
  for (const Cell* cell : news.cells) {
    AppendPath(cell->path, text);
    version(cell->version);
    value(cell->value);
    AppendString(cell->actor, text);
  }
  for (const ConflictEntry* entry : news.entries) {
    AppendPath(entry->path, text);
    version(entry->lost_version);
    value(entry->lost_value);
    AppendString(entry->lost_actor, text);
  }
  for (const Settlement& settlement : news.settlements) {
    version(settlement.one->version);
    AppendVarint(static_cast<uint64_t>(settlement.one->choice), text);
    AppendString(settlement.one->actor, text);
  }
  return Sha256(text);
}

}  // namespace chaptersync::storage
