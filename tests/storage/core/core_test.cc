// SPDX-License-Identifier: Apache-2.0
//
// The pure core: clock arithmetic, ids, the record codec against hostile bytes,
// the laws of the merge on random states, and scope rules.
#include <random>

#include "absl/strings/escaping.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "storage/core/clock.h"
#include "storage/core/digest.h"
#include "storage/core/limits.h"
#include "storage/core/merge.h"
#include "storage/core/record_codec.h"
#include "storage/core/scope_rule.h"

namespace chaptersync::storage {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(HybridClock, TicksAboveWallAndAboveItself) {
  HybridClock clock;
  EXPECT_EQ(clock.Tick(0).ticks, 1u);
  EXPECT_EQ(clock.Tick(1000).wall_ms(), 1000u);
  const HybridTime before = clock.last();
  EXPECT_EQ(clock.Tick(500).ticks, before.ticks + 1) << "a clock that goes back still rises";
}

TEST(HybridClock, ObservingDoesNotTick) {
  HybridClock clock;
  clock.Tick(1000);
  clock.Observe(HybridTime::FromWall(2000));
  EXPECT_EQ(clock.last(), HybridTime::FromWall(2000));
  clock.Observe(HybridTime::FromWall(1500));
  EXPECT_EQ(clock.last(), HybridTime::FromWall(2000));
}

TEST(HybridClock, AWallClockBeyond48BitsIsCapped) {
  HybridClock clock;
  EXPECT_EQ(clock.Tick(UINT64_MAX).wall_ms(), kWallMsMax);
}

TEST(Digest, IsSha256) {
  // FIPS 180-2, appendix B.1.
  EXPECT_EQ(absl::BytesToHexString(Sha256("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256("").size(), 32u);
}

TEST(RecordIdText, RoundTripsAndRefuses) {
  const std::string text = "01890a5d-ac96-774b-bcce-b302099a8057";
  ASSERT_TRUE(RecordId::Parse(text).ok());
  EXPECT_EQ(RecordId::Parse(text)->ToString(), text);
  for (const std::string bad :
       {"", "01890a5d", "01890a5dac96774bbcceb302099a8057", "01890a5d-ac96-774b-bcce-b302099a805g",
        "01890a5d-ac96-774b-bcce-b302099a80577", "{1890a5d-ac96-774b-bcce-b302099a8057"}) {
    EXPECT_FALSE(RecordId::Parse(bad).ok()) << bad;
  }
}

TEST(SeenSet, CoversUnitesAndForgets) {
  Seen a;
  a.Advance({1}, {10});
  a.Advance({3}, {30});
  EXPECT_TRUE(a.Covers({{10}, {1}}));
  EXPECT_FALSE(a.Covers({{11}, {1}}));
  EXPECT_FALSE(a.Covers({{1}, {2}}));
  Seen b;
  b.Advance({2}, {20});
  b.Advance({3}, {25});
  EXPECT_FALSE(a.CoversAll(b));
  a.Unite(b);
  EXPECT_TRUE(a.CoversAll(b));
  EXPECT_EQ(a.Highest(), (HybridTime{30}));
  a.Set({3}, {});
  EXPECT_EQ(a.Get({3}), (HybridTime{}));
  EXPECT_EQ(a.entries().size(), 2u);
}

// Random histories of one record at a few replicas, so that every state is one
// that can happen.
class World {
 public:
  explicit World(uint32_t seed) : random_(seed), states_(3) {
    for (int step = 0; step < 25; ++step) Step();
  }
  const std::vector<Record>& states() const { return states_; }

 private:
  uint32_t Pick(uint32_t below) { return random_() % below; }

  void Step() {
    const uint32_t at = Pick(3);
    Record& record = states_[at];
    if (Pick(3) == 0) {
      const RecordUpdate theirs{.state = states_[Pick(3)]};
      record = Merge(record, theirs, {{at + 1}, {clock_}}).record;
      return;
    }
    if (record.erased) return;
    const Version version{{++clock_ * 3 - Pick(3)}, {at + 1}};
    if (version.time <= record.seen.Get({at + 1})) return;
    if (record.live() && Pick(5) == 0) {
      record.Put({CellPath::Existence(), version, "a", DeletedValue(), {}});
    } else if (!record.live() && !record.cells.empty()) {
      record.Put({CellPath::Existence(), version, "a", RestoredValue(), {}});
    } else {
      const std::optional<std::string> key =
          Pick(2) == 0 ? std::optional<std::string>("k") : std::nullopt;
      const std::optional<std::string> value =
          Pick(4) == 0 ? std::nullopt : std::optional(std::to_string(Pick(3)));
      record.Put({{.field = 1 + Pick(3), .map_key = key}, version, "a", value, {}});
    }
    record.seen.Advance(version);
  }

  std::mt19937 random_;
  uint64_t clock_ = 10;
  std::vector<Record> states_;
};

std::string Standing(const Record& record) {
  RecordUpdate update{.state = record};
  update.state.conflicts.clear();
  for (Cell& cell : update.state.cells) cell.learned = {};
  return EncodeUpdate(update);
}

TEST(MergeLaws, CommutativeAssociativeIdempotentInWhatStands) {
  constexpr Finding kFinding{{9}, {9}};
  size_t conflicts = 0;
  for (uint32_t seed = 0; seed < 3000; ++seed) {
    const World world(seed);
    const RecordUpdate a{.state = world.states()[0]};
    const RecordUpdate b{.state = world.states()[1]};
    const RecordUpdate c{.state = world.states()[2]};
    const MergeResult ab = Merge(a.state, b, kFinding);
    EXPECT_THAT(ab.damage, IsEmpty()) << seed;
    conflicts += ab.conflicts_found;
    EXPECT_EQ(Standing(ab.record), Standing(Merge(b.state, a, kFinding).record)) << seed;
    EXPECT_EQ(ab.record.conflicts, Merge(b.state, a, kFinding).record.conflicts) << seed;
    EXPECT_EQ(Standing(Merge(a.state, a, kFinding).record), Standing(a.state)) << seed;
    const Record bc = Merge(b.state, c, kFinding).record;
    EXPECT_EQ(Standing(Merge(ab.record, c, kFinding).record),
              Standing(Merge(a.state, {.state = bc}, kFinding).record))
        << seed;
    const Record again = Merge(ab.record, b, kFinding).record;
    EXPECT_EQ(Standing(again), Standing(ab.record)) << seed;
    EXPECT_EQ(again.conflicts, ab.record.conflicts) << seed;
  }
  EXPECT_GT(conflicts, 300u);
}

TEST(MergeLaws, APartialUpdateComesToTheSameAsAWholeOne) {
  constexpr Finding kFinding{{9}, {9}};
  size_t left_out = 0;
  for (uint32_t seed = 0; seed < 3000; ++seed) {
    const World world(seed);
    const Record& mine = world.states()[0];
    const RecordUpdate whole{.state = world.states()[1]};
    RecordUpdate partial = whole;
    partial.whole = false;
    std::erase_if(partial.state.cells, [&](const Cell& cell) {
      if (!mine.seen.Covers(cell.version)) return false;
      partial.base.Advance(cell.version);
      ++left_out;
      return true;
    });
    ASSERT_TRUE(mine.seen.CoversAll(partial.base));
    const Record expected = Merge(mine, whole, kFinding).record;
    const Record got = Merge(mine, partial, kFinding).record;
    EXPECT_EQ(Standing(got), Standing(expected)) << seed;
    EXPECT_EQ(got.conflicts, expected.conflicts) << seed;
  }
  EXPECT_GT(left_out, 1000u);
}

Record OneCell(const Version& version, const std::string& value) {
  Record record;
  record.Put({{.field = 1, .map_key = {}}, version, "a", value, {}});
  record.seen.Advance(version);
  return record;
}

TEST(MergeDamage, OneVersionWithTwoValuesKeepsTheHigherBytesAndLogsTheOther) {
  const Version version{{5}, {1}};
  const MergeResult result =
      Merge(OneCell(version, "a"), {.state = OneCell(version, "b")}, {{2}, {7}});
  EXPECT_EQ(result.record.cells[0].value, "b");
  ASSERT_EQ(result.record.conflicts.size(), 1u);
  EXPECT_EQ(result.record.conflicts[0].lost_value, "a");
  EXPECT_THAT(result.damage, ElementsAre(HasSubstr("two values under version")));
}

TEST(MergeDamage, TwoSidesThatEachClaimToHaveReplacedTheOtherDoNotStopTheProduct) {
  Record a = OneCell({{5}, {1}}, "a");
  Record b = OneCell({{6}, {2}}, "b");
  a.seen.Advance({{6}, {2}});
  b.seen.Advance({{5}, {1}});
  const MergeResult result = Merge(a, {.state = b}, {{2}, {7}});
  EXPECT_EQ(result.record.cells[0].value, "b");
  EXPECT_EQ(result.record.conflicts.size(), 1u);
  EXPECT_THAT(result.damage, ElementsAre(HasSubstr("each claim")));
}

TEST(Codec, RoundTripsRandomStates) {
  for (uint32_t seed = 0; seed < 1000; ++seed) {
    const World world(seed);
    RecordUpdate update{.state = world.states()[seed % 3]};
    if (seed % 2 == 0) {
      update.whole = false;
      update.base = update.state.seen;
    }
    if (seed % 3 == 0) update.named_scopes = {Scope::Global(), Scope::Chapter("italy")};
    update.again = seed % 5 == 0;
    const std::string bytes = EncodeUpdate(update);
    const auto decoded = DecodeUpdate(bytes);
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    EXPECT_EQ(EncodeUpdate(*decoded), bytes);
    EXPECT_EQ(decoded->state.conflicts, update.state.conflicts);
    EXPECT_EQ(decoded->whole, update.whole);
    EXPECT_EQ(decoded->again, update.again);
  }
}

TEST(Codec, HostileBytesAreAnErrorNeverACrash) {
  std::mt19937 random(7);
  size_t accepted = 0;
  for (uint32_t seed = 0; seed < 400; ++seed) {
    const World world(seed);
    const std::string bytes = EncodeUpdate({.state = world.states()[0]});
    for (size_t cut = 0; cut < bytes.size(); ++cut) {
      EXPECT_FALSE(DecodeUpdate(bytes.substr(0, cut)).ok());
    }
    EXPECT_FALSE(DecodeUpdate(bytes + "x").ok());
    for (int flip = 0; flip < 50 && !bytes.empty(); ++flip) {
      std::string damaged = bytes;
      damaged[random() % damaged.size()] ^= static_cast<char>(1 << random() % 8);
      const auto decoded = DecodeUpdate(damaged);
      if (!decoded.ok()) continue;
      ++accepted;  // what is still a record can be merged
      (void)Merge(world.states()[1], {.state = decoded->state}, {{9}, {9}});
    }
  }
  EXPECT_GT(accepted, 0u);
}

TEST(Codec, ACellThatWasNotSeenIsRefused) {
  Record record = OneCell({{5}, {1}}, "a");
  record.seen = {};
  record.seen.Advance({{4}, {1}});
  const auto decoded = DecodeUpdate(EncodeUpdate({.state = record}));
  ASSERT_FALSE(decoded.ok());
  EXPECT_THAT(std::string(decoded.status().message()), HasSubstr("was not seen"));
}

TEST(Codec, OverLimitsIsRefused) {
  const auto decoded = DecodeUpdate(
      EncodeUpdate({.state = OneCell({{5}, {1}}, std::string(kCellBytesMax + 1, 'x'))}));
  EXPECT_FALSE(decoded.ok());
  EXPECT_FALSE(DecodeUpdate(std::string(kRecordBytesMax + 1, 'x')).ok());
}

std::string Wire(uint32_t field, const std::string& text) {
  std::string out;
  AppendVarint(uint64_t{field} * 8 + 2, out);
  AppendString(text, out);
  return out;
}

TEST(ScopeRules, ClausesAreUnitedAndHaveADefault) {
  using Kind = ScopeClause::Kind;
  ScopeRule rule;
  rule.clauses = {{.kind = Kind::kGlobal, .when = ScopeClause::Condition{2, Wire(2, "all")}},
                  {.kind = Kind::kChapterField, .field = 1},
                  {.kind = Kind::kChapterKeys, .field = 3},
                  {.kind = Kind::kFollows, .field = 4, .leader = {7}}};
  Record record;
  EXPECT_THAT(Apply(rule, record).scopes, ElementsAre(Scope::Hq()));
  const Version version{{5}, {1}};
  record.Put({{.field = 1, .map_key = {}}, version, "", Wire(1, "italy"), {}});
  record.Put({{.field = 3, .map_key = "toronto"}, version, "", "x", {}});
  record.Put({{.field = 3, .map_key = "gone"}, version, "", std::nullopt, {}});
  record.Put({{.field = 3, .map_key = "hq"}, version, "", "x", {}});
  EXPECT_THAT(Apply(rule, record).scopes,
              ElementsAre(Scope::Chapter("italy"), Scope::Chapter("toronto"), Scope::Hq()));
  record.Put({{.field = 2, .map_key = {}}, version, "", Wire(2, "all"), {}});
  EXPECT_TRUE(Apply(rule, record).scopes.contains(Scope::Global()));
  record.Put({{.field = 4, .map_key = {}}, version, "", Wire(4, "no id"), {}});
  EXPECT_THAT(Apply(rule, record).leaders, IsEmpty());
}

}  // namespace
}  // namespace chaptersync::storage
