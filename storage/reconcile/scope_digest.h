// SPDX-License-Identifier: Apache-2.0
//
// What a replica keeps of a scope to compare it with a peer's: the sum of its records'
// digests, their number, and the first symbols of their set. Kept up to date record by
// record. Pure; one thread at a time.
#ifndef CHAPTERSYNC_STORAGE_RECONCILE_SCOPE_DIGEST_H_
#define CHAPTERSYNC_STORAGE_RECONCILE_SCOPE_DIGEST_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "storage/reconcile/coded_symbol.h"
#include "storage/reconcile/element.h"

namespace chaptersync::storage {

// Symbols that are kept: enough for some 600 differences. A change costs 14 of them.
inline constexpr size_t kKeptSymbols = 1024;
static_assert(kKeptSymbols <= kSymbolsMax);

class ScopeDigest {
 public:
  ScopeDigest() : symbols_(kKeptSymbols) {}

  // The record came into the scope, or is in it, with this state; never twice.
  void Add(const RecordKey& key, const StateDigest& state);
  // It was there with this state.
  void Remove(const RecordKey& key, const StateDigest& state);

  const StateDigest& sum() const { return sum_; }
  // How many records.
  uint64_t records() const { return records_; }
  // Of the set of the records' elements: the first kKeptSymbols.
  const std::vector<CodedSymbol>& symbols() const { return symbols_; }

  // digest := sum:32 records:varint symbols
  std::string Encode() const;
  // INVALID_ARGUMENT where `bytes` are none.
  static absl::StatusOr<ScopeDigest> Decode(std::string_view bytes);
  friend bool operator==(const ScopeDigest&, const ScopeDigest&) = default;

 private:
  StateDigest sum_;
  uint64_t records_ = 0;
  std::vector<CodedSymbol> symbols_;
};

}  // namespace chaptersync::storage

#endif  // CHAPTERSYNC_STORAGE_RECONCILE_SCOPE_DIGEST_H_
