// SPDX-License-Identifier: Apache-2.0
//
// The merge: walks both states' cells in the order of their paths, then settles
// deletions against edits that did not know of them, then unites the conflict
// logs. Pure; any thread.
#include "storage/core/merge.h"

#include <algorithm>
#include <tuple>

#include "absl/strings/str_cat.h"

#include "storage/core/planted.h"
#include "storage/core/status.h"

namespace chaptersync::storage {
namespace {

bool EntryLess(const ConflictEntry& a, const ConflictEntry& b) {
  return std::tie(a.path, a.lost_version) < std::tie(b.path, b.lost_version);
}

// One entry as two replicas know it: the earlier finding, all settlements.
ConflictEntry UniteEntry(const ConflictEntry& a, const ConflictEntry& b) {
  const auto order = [](const ConflictEntry& e) {
    return std::tie(e.found_at, e.found_by, e.lost_value, e.current_version, e.current_value);
  };
  ConflictEntry out = order(a) <= order(b) ? a : b;
  const ConflictEntry& other = order(a) <= order(b) ? b : a;
  if (IsPlanted(Planted::kSettlementsNotMerged)) {
    out.settlements = a.settlements;
    return out;
  }
  for (const SettlementEntry& settlement : other.settlements) {
    auto it = std::lower_bound(
        out.settlements.begin(), out.settlements.end(), settlement,
        [](const SettlementEntry& x, const SettlementEntry& y) { return x.version < y.version; });
    if (it == out.settlements.end() || it->version != settlement.version) {
      out.settlements.insert(it, settlement);
    }
  }
  return out;
}

std::vector<ConflictEntry> UniteConflicts(const std::vector<ConflictEntry>& a,
                                          const std::vector<ConflictEntry>& b) {
  std::vector<ConflictEntry> out;
  out.reserve(a.size() + b.size());
  auto x = a.begin();
  auto y = b.begin();
  while (x != a.end() || y != b.end()) {
    if (y == b.end() || (x != a.end() && EntryLess(*x, *y))) {
      out.push_back(*x++);
    } else if (x == a.end() || EntryLess(*y, *x)) {
      out.push_back(*y++);
    } else {
      out.push_back(UniteEntry(*x++, *y++));
    }
  }
  return out;
}

std::string Describe(const CellPath& path) {
  return absl::StrCat("field ", path.field, path.map_key ? absl::StrCat("/", *path.map_key) : "");
}

class Merger {
 public:
  Merger(const Record& mine, const RecordUpdate& theirs, const Finding& finding)
      : mine_(mine), theirs_(theirs.state), finding_(finding) {}

  MergeResult Run() {
    Record& out = result_.record;
    out.seen = mine_.seen;
    if (!IsPlanted(Planted::kContextNotMerged)) out.seen.Unite(theirs_.seen);
    if ((mine_.erased || theirs_.erased) &&
        !(IsPlanted(Planted::kErasureBeaten) && EditedAfterErasure())) {
      out.erased = true;
      return std::move(result_);
    }
    MergeCells();
    MergeExistence();
    std::sort(found_.begin(), found_.end(), EntryLess);
    std::vector<ConflictEntry> known = UniteConflicts(mine_.conflicts, theirs_.conflicts);
    const size_t before = known.size();
    out.conflicts = UniteConflicts(known, found_);
    result_.conflicts_found = out.conflicts.size() - before;
    if (IsPlanted(Planted::kContextNotMerged)) SeeWhatIsHeld();
    return std::move(result_);
  }

 private:
  // For Planted::kContextNotMerged: a record that names versions it has not seen cannot
  // be stored.
  void SeeWhatIsHeld() {
    Record& out = result_.record;
    for (const Cell& cell : out.cells) out.seen.Advance(cell.version);
    for (const ConflictEntry& entry : out.conflicts) {
      out.seen.Advance(entry.lost_version);
      for (const SettlementEntry& s : entry.settlements) out.seen.Advance(s.version);
    }
  }

  // For Planted::kErasureBeaten.
  bool EditedAfterErasure() const {
    const Record& erased = mine_.erased ? mine_ : theirs_;
    const Record& edited = mine_.erased ? theirs_ : mine_;
    return std::any_of(edited.cells.begin(), edited.cells.end(),
                       [&](const Cell& cell) { return cell.version.time > erased.seen.Highest(); });
  }

  void Lose(const Cell& lost, const Cell& current) {
    found_.push_back({.path = lost.path,
                      .lost_version = lost.version,
                      .lost_actor = lost.actor,
                      .lost_value = lost.value,
                      .current_version = current.version,
                      .current_actor = current.actor,
                      .current_value = current.value,
                      .found_at = finding_.at,
                      .found_by = finding_.replica,
                      .settlements = {}});
  }

  void MergeCells() {
    std::vector<Cell>& out = result_.record.cells;
    out.reserve(mine_.cells.size() + theirs_.cells.size());
    auto x = mine_.cells.begin();
    auto y = theirs_.cells.begin();
    while (x != mine_.cells.end() || y != theirs_.cells.end()) {
      if (y == theirs_.cells.end() || (x != mine_.cells.end() && x->path < y->path)) {
        out.push_back(*x++);
      } else if (x == mine_.cells.end() || y->path < x->path) {
        out.push_back(*y++);
      } else {
        MergeCell(*x++, *y++);
      }
    }
  }

  void MergeCell(const Cell& mine, const Cell& theirs) {
    std::vector<Cell>& out = result_.record.cells;
    if (mine.version == theirs.version) {
      out.push_back(mine);
      if (mine.value != theirs.value) {
        const bool keep = mine.value > theirs.value;
        if (!keep) out.back() = theirs;
        Lose(keep ? theirs : mine, keep ? mine : theirs);
        result_.damage.push_back(absl::StrCat(Describe(mine.path), " has two values under version ",
                                              mine.version.time.ticks, "@",
                                              ToHex(mine.version.replica.value)));
      }
      return;
    }
    const bool mine_saw = mine_.seen.Covers(theirs.version);
    const bool theirs_saw = theirs_.seen.Covers(mine.version);
    const bool mine_is_later = mine.version > theirs.version;
    if (mine_saw != theirs_saw) {
      out.push_back(mine_saw ? mine : theirs);
      return;
    }
    const Cell& win = mine_is_later ? mine : theirs;
    const Cell& lose = mine_is_later ? theirs : mine;
    out.push_back(win);
    if (mine_saw) {
      result_.damage.push_back(
          absl::StrCat(Describe(mine.path), ": two replicas each claim to have replaced ",
                       mine.version.time.ticks, "@", ToHex(mine.version.replica.value), " and ",
                       theirs.version.time.ticks, "@", ToHex(theirs.version.replica.value)));
      Lose(lose, win);
    } else if (win.value != lose.value) {
      Lose(lose, win);
    }
  }

  // A deletion, and edits that did not know of it nor it of them.
  void MergeExistence() {
    const Record& out = result_.record;
    const Cell* mark = out.Find(CellPath::Existence());
    if (mark == nullptr || mark->value != DeletedValue()) return;
    std::vector<const Cell*> rivals;
    for (const auto& [editor, deleter] :
         {std::pair{&mine_, &theirs_}, std::pair{&theirs_, &mine_}}) {
      const Cell* deleters = deleter->Find(CellPath::Existence());
      if (deleters == nullptr || deleters->version != mark->version) continue;
      if (editor->seen.Covers(mark->version)) continue;
      for (const Cell& cell : editor->cells) {
        if (cell.path.existence() || deleter->seen.Covers(cell.version)) continue;
        if (out.Find(cell.path)->version == cell.version) rivals.push_back(&cell);
      }
    }
    if (rivals.empty()) return;
    if (!out.live()) {
      for (const Cell* rival : rivals) Lose(*rival, *mark);
      return;
    }
    const Cell* latest =
        *std::max_element(rivals.begin(), rivals.end(),
                          [](const Cell* a, const Cell* b) { return a->version < b->version; });
    if (latest->version > mark->version) Lose(*mark, *latest);
  }

  const Record& mine_;
  const Record& theirs_;
  const Finding finding_;
  MergeResult result_;
  std::vector<ConflictEntry> found_;
};

}  // namespace

MergeResult Merge(const Record& mine, const RecordUpdate& theirs, const Finding& finding) {
  CHAPTER_CHECK(theirs.whole || mine.seen.CoversAll(theirs.base));
  return Merger(mine, theirs, finding).Run();
}

bool Contains(const Record& mine, const Record& theirs) {
  if (theirs.erased != mine.erased) return mine.erased && mine.seen.CoversAll(theirs.seen);
  return mine.seen.CoversAll(theirs.seen) &&
         UniteConflicts(mine.conflicts, theirs.conflicts) == mine.conflicts;
}

}  // namespace chaptersync::storage
