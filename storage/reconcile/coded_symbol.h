// SPDX-License-Identifier: Apache-2.0
//
// The code by which two replicas find what their sets differ in: rateless
// invertible Bloom lookup tables (Yang, Gilad, Alizadeh, "Practical Rateless Set
// Reconciliation", SIGCOMM 2024). A set has endlessly many symbols; symbol i is the
// sum of the elements mapped to it, which are 1 of 1 + i/2. Symbols of two sets,
// subtracted, are the symbols of their difference. Pure; any thread.
#ifndef CHAPTERSYNC_STORAGE_RECONCILE_CODED_SYMBOL_H_
#define CHAPTERSYNC_STORAGE_RECONCILE_CODED_SYMBOL_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "storage/core/record_codec.h"
#include "storage/reconcile/element.h"

namespace chaptersync::storage {

// No set is compared by more symbols than this: enough for half a million
// differences, some 20 MB. Above it the feeds are gone through instead.
inline constexpr size_t kSymbolsMax = size_t{1} << 20;
// An encoded symbol: key, state, checksum, count.
inline constexpr size_t kSymbolBytesMin = kKeyBytes + 8 + 8 + 1;

// An element, and what is needed to add it to symbols.
struct HashedElement {
  std::array<uint64_t, 4> words{};  // the element: entity, id, state
  uint64_t checksum = 0;
  uint64_t seed = 0;  // of the symbols that it is mapped to

  Element element() const;
};
HashedElement HashElement(const Element& element);

// The indexes of the symbols that an element is mapped to, rising; the first is 0.
// Only whole numbers are used: every machine walks the same way.
class IndexWalk {
 public:
  explicit IndexWalk(uint64_t seed) : state_(seed) {}
  size_t index() const { return index_; }
  // Past kSymbolsMax it stays there.
  void Next();

 private:
  uint64_t state_;
  size_t index_ = 0;
};

struct CodedSymbol {
  std::array<uint64_t, 4> words{};  // exclusive or of the elements'
  uint64_t checksum = 0;            // likewise
  int64_t count = 0;                // of elements; of a difference: ours less theirs

  void Add(const HashedElement& element);
  void Remove(const HashedElement& element);
  void Subtract(const CodedSymbol& other);
  bool zero() const { return *this == CodedSymbol{}; }
  // Its words as an element.
  Element element() const;
  friend bool operator==(const CodedSymbol&, const CodedSymbol&) = default;
};

// Adds an element to those of `symbols` that it is mapped to; symbols[0] has the index
// `first`.
void AddElement(const HashedElement& element, size_t first, std::span<CodedSymbol> symbols);
void RemoveElement(const HashedElement& element, size_t first, std::span<CodedSymbol> symbols);

// symbols := { key:20 state:fixed checksum:fixed count:varint }, the count's sign in its lowest
// bit.
void AppendSymbols(std::span<const CodedSymbol> symbols, std::string& out);
// INVALID_ARGUMENT where `bytes` are not between 1 and `symbols_max` symbols.
absl::StatusOr<std::vector<CodedSymbol>> DecodeSymbols(std::string_view bytes, size_t symbols_max);

}  // namespace chaptersync::storage

#endif  // CHAPTERSYNC_STORAGE_RECONCILE_CODED_SYMBOL_H_
