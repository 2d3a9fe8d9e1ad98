// SPDX-License-Identifier: Apache-2.0
//
// Set reconciliation against a plain set difference, with differences of every size; symbols that
// no set has; digests of states and scopes, and that their bytes stay what they are.
#include <algorithm>
#include <iterator>
#include <random>
#include <set>

#include "absl/strings/escaping.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "storage/core/digest.h"
#include "storage/reconcile/coded_symbol.h"
#include "storage/reconcile/decoder.h"
#include "storage/reconcile/element.h"
#include "storage/reconcile/scope_digest.h"

namespace chaptersync::storage {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAreArray;

using Random = std::mt19937_64;

Element RandomElement(Random& random) {
  Element element;
  element.key.entity.value = static_cast<uint32_t>(random() % 8);
  for (uint8_t& byte : element.key.id.bytes) byte = static_cast<uint8_t>(random());
  element.state = random();
  return element;
}

// Symbols [first, first + count) of a set.
std::vector<CodedSymbol> SymbolsOf(const std::set<Element>& set, size_t first, size_t count) {
  std::vector<CodedSymbol> symbols(count);
  for (const Element& element : set) AddElement(HashElement(element), first, symbols);
  return symbols;
}

struct Sets {
  std::set<Element> ours;
  std::set<Element> theirs;
};

// Sets of which `common` elements are the same, and the others are in one of them. Every third of
// these is there in another state in the other set, as after an edit.
Sets RandomSets(size_t common, size_t different, Random& random) {
  Sets sets;
  for (size_t i = 0; i < common; ++i) {
    const Element element = RandomElement(random);
    sets.ours.insert(element);
    sets.theirs.insert(element);
  }
  while (different > 0) {
    Element element = RandomElement(random);
    (random() % 2 == 0 ? sets.ours : sets.theirs).insert(element);
    --different;
    if (different > 0 && random() % 2 == 0) {
      const bool is_ours = sets.ours.contains(element);
      element.state = random();
      (is_ours ? sets.theirs : sets.ours).insert(element);
      --different;
    }
  }
  return sets;
}

std::vector<Element> Difference(const std::set<Element>& from, const std::set<Element>& what) {
  std::vector<Element> out;
  std::set_difference(from.begin(), from.end(), what.begin(), what.end(), std::back_inserter(out));
  return out;
}

// Decodes with symbols that come `step` at a time; how many it took. Fails above `symbols_max`.
size_t ExpectFound(const Sets& sets, size_t step, size_t symbols_max) {
  Decoder decoder;
  while (!decoder.done()) {
    const size_t first = decoder.size();
    if (first >= symbols_max) {
      ADD_FAILURE() << "not done after " << first << " symbols";
      return first;
    }
    const absl::Status taken =
        decoder.Take(SymbolsOf(sets.ours, first, step), SymbolsOf(sets.theirs, first, step));
    if (!taken.ok()) {
      ADD_FAILURE() << taken;
      return first;
    }
  }
  EXPECT_THAT(decoder.ours(), UnorderedElementsAreArray(Difference(sets.ours, sets.theirs)));
  EXPECT_THAT(decoder.theirs(), UnorderedElementsAreArray(Difference(sets.theirs, sets.ours)));
  return decoder.size();
}

TEST(DecoderTest, FindsWhatAPlainDifferenceFinds) {
  Random random(1);
  for (int round = 0; round < 3000; ++round) {
    const size_t different = random() % (round % 10 == 0 ? 120 : 12);
    const Sets sets = RandomSets(random() % 60, different, random);
    // Eight symbols a difference, and some: no random pair comes near.
    ExpectFound(sets, 1 + random() % 9, 64 + 8 * different);
  }
}

TEST(DecoderTest, EqualSetsTakeOneSymbol) {
  Random random(2);
  for (const size_t common : {0, 1, 1000}) {
    EXPECT_EQ(ExpectFound(RandomSets(common, 0, random), 1, 2), 1u);
  }
}

TEST(DecoderTest, OfTwoSetsWithNothingInCommonOneMayBeEmpty) {
  Random random(3);
  for (const size_t size : {1, 2, 500}) {
    Sets sets = RandomSets(0, size, random);
    ExpectFound(sets, 16, 64 + 8 * size);
    sets.ours.clear();
    ExpectFound(sets, 16, 64 + 8 * size);
    std::swap(sets.ours, sets.theirs);
    ExpectFound(sets, 16, 64 + 8 * size);
  }
}

TEST(DecoderTest, ThousandsOfDifferencesTakeFewSymbolsEach) {
  Random random(4);
  const size_t different = 5000;
  const size_t taken = ExpectFound(RandomSets(2000, different, random), 500, 3 * different);
  // The paper has 1.35 for very many, 1.72 at most on the average.
  EXPECT_LT(taken, different * 8 / 5);
}

TEST(DecoderTest, CostIsAsThePaperHasIt) {
  Random random(5);
  size_t symbols = 0;
  size_t differences = 0;
  for (int round = 0; round < 100; ++round) {
    symbols += ExpectFound(RandomSets(10, 100, random), 1, 1000);
    differences += 100;
  }
  EXPECT_LT(symbols, differences * 7 / 4);
  EXPECT_GT(symbols, differences) << "fewer than one symbol a difference cannot tell it";
}

// What a peer sends may be anything: taking it ends, with an error or without.
TEST(DecoderTest, SymbolsOfNoSetEnd) {
  Random random(6);
  size_t refused = 0;
  for (int round = 0; round < 2000; ++round) {
    const Sets sets = RandomSets(random() % 5, random() % 20, random);
    const size_t count = 1 + random() % 60;
    std::vector<CodedSymbol> theirs = SymbolsOf(sets.theirs, 0, count);
    for (size_t changed = 1 + random() % 8; changed > 0; --changed) {
      CodedSymbol& symbol = theirs[random() % count];
      switch (random() % 5) {
        case 0:
          symbol.count = static_cast<int64_t>(random());
          break;
        case 1:
          symbol.checksum ^= random();
          break;
        case 2:  // an element where it does not belong
          symbol.Add(HashElement(RandomElement(random)));
          break;
        case 3:
          symbol = theirs[random() % count];
          break;
        default:
          symbol = {};
          symbol.Add(HashElement(RandomElement(random)));
      }
    }
    Decoder decoder;
    refused += !decoder.Take(SymbolsOf(sets.ours, 0, count), theirs).ok();
    EXPECT_LE(decoder.ours().size() + decoder.theirs().size(), count);
  }
  EXPECT_GT(refused, 500u);
}

TEST(DecoderTest, AnElementWhereItIsNotMappedIsRefused) {
  Random random(7);
  HashedElement element = HashElement(RandomElement(random));
  IndexWalk walk(element.seed);
  walk.Next();
  std::vector<CodedSymbol> theirs(walk.index() + 2);
  const size_t wrong = walk.index() == 1 ? 0 : 1;
  if (wrong == 1) {
    theirs[1].Add(element);
  } else {
    // Mapped to 0 and 1: then it is missing at 1, which leaves what cannot be taken out.
    theirs[0].Add(element);
    theirs[0].Add(HashElement(RandomElement(random)));
  }
  Decoder decoder;
  const absl::Status taken = decoder.Take(std::vector<CodedSymbol>(theirs.size()), theirs);
  EXPECT_FALSE(decoder.done() && taken.ok());
  if (wrong == 1) {
    EXPECT_THAT(taken.message(), HasSubstr("holds what is not in its set's others"));
  }
}

TEST(CodedSymbolTest, SymbolsDoNotDependOnTheOrderNorOnWhatWasThere) {
  Random random(8);
  const Sets sets = RandomSets(40, 0, random);
  std::vector<Element> elements(sets.ours.begin(), sets.ours.end());
  std::shuffle(elements.begin(), elements.end(), random);
  std::vector<CodedSymbol> symbols(100);
  const HashedElement passing = HashElement(RandomElement(random));
  AddElement(passing, 0, symbols);
  for (const Element& element : elements) AddElement(HashElement(element), 0, symbols);
  RemoveElement(passing, 0, symbols);
  EXPECT_EQ(symbols, SymbolsOf(sets.ours, 0, 100));
  EXPECT_EQ(symbols.front().count, 40);
}

TEST(CodedSymbolTest, AnElementIsInOneOfOnePlusHalfTheIndexOfThem) {
  Random random(9);
  std::vector<CodedSymbol> symbols(400);
  const int64_t elements = 4000;
  for (int64_t i = 0; i < elements; ++i) {
    AddElement(HashElement(RandomElement(random)), 0, symbols);
  }
  EXPECT_EQ(symbols[0].count, elements);
  for (const size_t from : {1, 10, 100, 300}) {
    double found = 0;
    double expected = 0;
    for (size_t i = from; i < from + 50; ++i) {
      found += static_cast<double>(symbols[i].count);
      expected += static_cast<double>(elements) / (1 + static_cast<double>(i) / 2);
    }
    EXPECT_NEAR(found / expected, 1, 0.12) << "from symbol " << from;
  }
}

TEST(CodedSymbolTest, AWalkEnds) {
  Random random(10);
  for (int i = 0; i < 1000; ++i) {
    IndexWalk walk(random());
    EXPECT_EQ(walk.index(), 0u);
    for (size_t before = 0; walk.index() < kSymbolsMax; before = walk.index()) {
      walk.Next();
      ASSERT_GT(walk.index(), before);
    }
    walk.Next();
    EXPECT_EQ(walk.index(), kSymbolsMax);
  }
}

TEST(CodedSymbolTest, BytesRoundTripAndOthersAreRefused) {
  Random random(11);
  std::vector<CodedSymbol> symbols = SymbolsOf(RandomSets(300, 0, random).ours, 0, 20);
  symbols[3].count = -7;
  symbols[4].count = INT64_MIN;
  symbols[5].count = INT64_MAX;
  std::string bytes;
  AppendSymbols(symbols, bytes);
  const auto decoded = DecodeSymbols(bytes, 20);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(*decoded, symbols);
  EXPECT_EQ(DecodeSymbols(bytes, 19).status().message(), "more than 19 symbols of a set");
  EXPECT_EQ(DecodeSymbols("", 19).status().message(), "0 bytes are no symbols of a set");
  for (size_t cut = 1; cut < kSymbolBytesMin; ++cut) {
    EXPECT_FALSE(DecodeSymbols(bytes.substr(0, cut), 20).ok());
  }
}

// The bytes are what two replicas compare: they must stay what they are.
TEST(CodedSymbolTest, BytesAreAsTheyWereEverBefore) {
  std::set<Element> set;
  for (uint64_t i = 1; i <= 100; ++i) {
    Element element{.key = {.entity = {1}, .id = {}}, .state = i};
    element.key.id.bytes[15] = static_cast<uint8_t>(i);
    set.insert(element);
  }
  std::string bytes;
  AppendSymbols(SymbolsOf(set, 0, 64), bytes);
  // From a twin of these rules in another language.
  EXPECT_EQ(absl::BytesToHexString(Sha256(bytes)).substr(0, 32),
            "a472917f379065e9bba0ffee62589db4");
}

Record ExampleRecord() {
  Record record;
  const auto version = [](uint64_t ms, uint64_t replica) {
    return Version{.time = HybridTime::FromWall(ms), .replica = {replica}};
  };
  record.Put({.path = {.field = 2, .map_key = {}},
              .version = version(10, 1),
              .actor = "a",
              .value = "x",
              .learned = {4}});
  record.Put({.path = {.field = 5, .map_key = "home"},
              .version = version(11, 2),
              .actor = "b",
              .value = {},
              .learned = {}});
  ConflictEntry conflict;
  conflict.path = {.field = 2, .map_key = {}};
  conflict.lost_version = version(9, 2);
  conflict.current_version = version(10, 1);
  conflict.found_at = HybridTime::FromWall(12);
  conflict.found_by = {1};
  conflict.settlements.push_back({.version = version(13, 1), .actor = "c"});
  record.conflicts.push_back(conflict);
  record.seen.Advance(version(11, 2));
  return record;
}

RecordKey ExampleKey() {
  RecordKey key{.entity = {3}, .id = {}};
  key.id.bytes[15] = 1;
  return key;
}

TEST(StateDigestTest, IsOfPathsVersionsAndConflictsAlone) {
  const StateDigest digest = DigestState(ExampleKey(), ExampleRecord());
  // What does not count.
  Record same = ExampleRecord();
  same.seen.Advance({.time = HybridTime::FromWall(99), .replica = {77}});
  same.cells[0].learned = {5};
  same.cells[0].actor = "else";
  EXPECT_EQ(DigestState(ExampleKey(), same), digest);
  // What does.
  std::vector<Record> others(9, ExampleRecord());
  others[0].cells[0].version.time.ticks += 1;
  others[1].cells[0].version.replica.value = 3;
  others[2].cells[0].path.field = 3;
  others[3].cells[1].path.map_key = "work";
  others[4].cells.pop_back();
  others[5].conflicts.clear();
  others[6].conflicts[0].settlements.clear();
  others[7].conflicts[0].found_at.ticks += 1;
  others[8].conflicts[0].settlements[0].choice = Choice::kTake;
  std::set<uint64_t> states{digest.lanes[0]};
  for (const Record& other : others) {
    states.insert(DigestState(ExampleKey(), other).lanes[0]);
  }
  RecordKey key = ExampleKey();
  key.entity.value = 4;
  states.insert(DigestState(key, ExampleRecord()).lanes[0]);
  EXPECT_EQ(states.size(), 11u);
}

// From a twin, as above.
TEST(StateDigestTest, BytesAreAsTheyWereEverBefore) {
  EXPECT_EQ(ToHex(DigestState(ExampleKey(), ExampleRecord()).lanes[0]), "663debc7f9185737");
}

TEST(ScopeDigestTest, IsTheSameWhateverTheWay) {
  Random random(13);
  ScopeDigest one;
  ScopeDigest other;
  std::vector<std::pair<RecordKey, StateDigest>> records;
  for (int i = 0; i < 200; ++i) {
    StateDigest digest;
    for (uint64_t& lane : digest.lanes) lane = random();
    records.emplace_back(RandomElement(random).key, digest);
    one.Add(records.back().first, digest);
  }
  EXPECT_EQ(one.records(), 200u);
  std::shuffle(records.begin(), records.end(), random);
  for (const auto& [key, digest] : records) {
    StateDigest before;
    before.lanes[0] = random();
    other.Add(key, before);
    other.Remove(key, before);
    other.Add(key, digest);
  }
  EXPECT_EQ(one, other);
  for (const auto& [key, digest] : records) one.Remove(key, digest);
  EXPECT_EQ(one, ScopeDigest());
}

TEST(ScopeDigestTest, BytesRoundTripAndOthersAreRefused) {
  Random random(14);
  ScopeDigest digest;
  for (int i = 0; i < 300; ++i) digest.Add(RandomElement(random).key, StateDigest{{random()}});
  const std::string bytes = digest.Encode();
  const auto decoded = ScopeDigest::Decode(bytes);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(*decoded, digest);
  for (const size_t cut : {size_t{0}, size_t{31}, size_t{40}, bytes.size() - 1}) {
    EXPECT_FALSE(ScopeDigest::Decode(bytes.substr(0, cut)).ok()) << cut;
  }
  EXPECT_FALSE(ScopeDigest::Decode(bytes + bytes.substr(bytes.size() - 64)).ok());
}

// Two scopes of which a few records differ tell each other so with what they keep.
TEST(ScopeDigestTest, WhatIsKeptTellsHundredsOfDifferences) {
  Random random(15);
  ScopeDigest ours;
  ScopeDigest theirs;
  std::set<Element> differ;
  for (int i = 0; i < 3000; ++i) {
    const RecordKey key = RandomElement(random).key;
    const StateDigest digest{{random(), random(), random(), random()}};
    ours.Add(key, digest);
    if (i % 20 != 0) {
      theirs.Add(key, digest);
      continue;
    }
    differ.insert(ElementOf(key, digest));
    const StateDigest edited{{random(), random(), random(), random()}};
    theirs.Add(key, edited);
    differ.insert(ElementOf(key, edited));
  }
  EXPECT_NE(ours.sum(), theirs.sum());
  Decoder decoder;
  ASSERT_TRUE(decoder.Take(ours.symbols(), theirs.symbols()).ok());
  ASSERT_TRUE(decoder.done());
  std::set<Element> found(decoder.ours().begin(), decoder.ours().end());
  found.insert(decoder.theirs().begin(), decoder.theirs().end());
  EXPECT_EQ(found, differ);
}

}  // namespace
}  // namespace chaptersync::storage
