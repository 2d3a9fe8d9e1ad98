// SPDX-License-Identifier: Apache-2.0
//
// Symbols: how elements are hashed, which of them are in a symbol, and the bytes of symbols on the
// wire and on disk.
#include "storage/reconcile/coded_symbol.h"

#include <algorithm>
#include <cmath>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "storage/core/digest.h"
#include "storage/core/record_codec.h"

namespace chaptersync::storage {
namespace {

// The largest number whose square is at most `value`.
uint64_t IntegerRoot(uint64_t value) {
  constexpr uint64_t kRootMax = 0xffff'ffff;
  // The floating-point root is off by one at most, in either direction.
  uint64_t root = std::min(static_cast<uint64_t>(std::sqrt(static_cast<double>(value))), kRootMax);
  while (root * root > value) --root;
  while (root < kRootMax && (root + 1) * (root + 1) <= value) ++root;
  return root;
}

std::array<uint64_t, 4> WordsOf(const Element& element) {
  const std::string_view id(reinterpret_cast<const char*>(element.key.id.bytes.data()),
                            element.key.id.bytes.size());
  Reader reader(id);
  const uint64_t high = reader.BigEndian64();
  const uint64_t low = reader.BigEndian64();
  return {element.key.entity.value, high, low, element.state};
}

void AppendWords(const std::array<uint64_t, 4>& words, std::string& out) {
  for (int shift = 24; shift >= 0; shift -= 8) {
    out.push_back(static_cast<char>(words[0] >> shift));
  }
  AppendBigEndian64(words[1], out);
  AppendBigEndian64(words[2], out);
  AppendFixed64(words[3], out);
}

// Of the two's complement: 0, -1, 1, -2, ... become 0, 1, 2, 3, ...
uint64_t ZigZag(int64_t value) {
  return (static_cast<uint64_t>(value) << 1) ^ static_cast<uint64_t>(value >> 63);
}
int64_t UnZigZag(uint64_t value) { return static_cast<int64_t>((value >> 1) ^ (~(value & 1) + 1)); }

Element ElementOfWords(const std::array<uint64_t, 4>& words) {
  Element element;
  element.key.entity.value = static_cast<uint32_t>(words[0]);
  for (size_t i = 0; i < 8; ++i) {
    element.key.id.bytes[i] = static_cast<uint8_t>(words[1] >> (56 - 8 * i));
    element.key.id.bytes[8 + i] = static_cast<uint8_t>(words[2] >> (56 - 8 * i));
  }
  element.state = words[3];
  return element;
}

}  // namespace

Element HashedElement::element() const { return ElementOfWords(words); }

Element CodedSymbol::element() const { return ElementOfWords(words); }

HashedElement HashElement(const Element& element) {
  HashedElement out{.words = WordsOf(element)};
  std::string bytes;
  AppendWords(out.words, bytes);
  const std::string hash = Sha256(bytes);
  Reader reader(hash);
  out.checksum = reader.Fixed64();
  out.seed = reader.Fixed64();
  return out;
}

void IndexWalk::Next() {
  if (index_ >= kSymbolsMax) return;
  // SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
  state_ += 0x9e37'79b9'7f4a'7c15;
  uint64_t random = state_;
  random = (random ^ (random >> 30)) * 0xbf58'476d'1ce4'e5b9;
  random = (random ^ (random >> 27)) * 0x94d0'49bb'1331'11eb;
  random ^= random >> 31;
  // With r uniform in (0, 1] the gap to the next index is the smallest whole number from
  // (3/2 + index) (1 / sqrt(r) - 1) on (section 4.2 of the paper): here sqrt(r) = root / 2^32.
  constexpr uint64_t kOne = uint64_t{1} << 32;
  const uint64_t root = IntegerRoot(random) + 1;
  const uint64_t divisor = 2 * root;
  const uint64_t gap = ((2 * index_ + 3) * (kOne - root) + divisor - 1) / divisor;
  index_ = std::min(index_ + std::max<size_t>(gap, 1), kSymbolsMax);
}
static_assert(kSymbolsMax <= size_t{1} << 30, "a gap's numerator fits 64 bits");

void CodedSymbol::Add(const HashedElement& element) {
  for (size_t i = 0; i < words.size(); ++i) words[i] ^= element.words[i];
  checksum ^= element.checksum;
  count = static_cast<int64_t>(static_cast<uint64_t>(count) + 1);
}

void CodedSymbol::Remove(const HashedElement& element) {
  for (size_t i = 0; i < words.size(); ++i) words[i] ^= element.words[i];
  checksum ^= element.checksum;
  count = static_cast<int64_t>(static_cast<uint64_t>(count) - 1);
}

void CodedSymbol::Subtract(const CodedSymbol& other) {
  for (size_t i = 0; i < words.size(); ++i) words[i] ^= other.words[i];
  checksum ^= other.checksum;
  // Counts are a peer's word: they may be anything, and wrap.
  count = static_cast<int64_t>(static_cast<uint64_t>(count) - static_cast<uint64_t>(other.count));
}

void AddElement(const HashedElement& element, size_t first, std::span<CodedSymbol> symbols) {
  for (IndexWalk walk(element.seed); walk.index() < first + symbols.size(); walk.Next()) {
    if (walk.index() >= first) symbols[walk.index() - first].Add(element);
  }
}

void RemoveElement(const HashedElement& element, size_t first, std::span<CodedSymbol> symbols) {
  for (IndexWalk walk(element.seed); walk.index() < first + symbols.size(); walk.Next()) {
    if (walk.index() >= first) symbols[walk.index() - first].Remove(element);
  }
}

void AppendSymbols(std::span<const CodedSymbol> symbols, std::string& out) {
  for (const CodedSymbol& symbol : symbols) {
    AppendWords(symbol.words, out);
    AppendFixed64(symbol.checksum, out);
    AppendVarint(ZigZag(symbol.count), out);
  }
}

absl::StatusOr<std::vector<CodedSymbol>> DecodeSymbols(std::string_view bytes, size_t symbols_max) {
  std::vector<CodedSymbol> symbols;
  symbols.reserve(std::min(symbols_max, bytes.size() / kSymbolBytesMin));
  Reader reader(bytes);
  while (!reader.empty()) {
    if (symbols.size() >= symbols_max) {
      return absl::InvalidArgumentError(
          absl::StrCat("more than ", symbols_max, " symbols of a set"));
    }
    CodedSymbol& symbol = symbols.emplace_back();
    symbol.words = WordsOf({.key = reader.Key(), .state = reader.Fixed64()});
    symbol.checksum = reader.Fixed64();
    symbol.count = UnZigZag(reader.Varint());
  }
  if (!reader.ok() || symbols.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(bytes.size(), " bytes are no symbols of a set"));
  }
  return symbols;
}

}  // namespace chaptersync::storage
