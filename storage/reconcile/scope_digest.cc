// SPDX-License-Identifier: Apache-2.0
//
// Adding and taking out records, and the bytes that a scope's digest is kept in: see
// scope_digest.h.
#include "storage/reconcile/scope_digest.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "storage/core/record_codec.h"
#include "storage/core/status.h"

namespace chaptersync::storage {

void ScopeDigest::Add(const RecordKey& key, const StateDigest& state) {
  sum_.Add(state);
  ++records_;
  AddElement(HashElement(ElementOf(key, state)), 0, symbols_);
}

void ScopeDigest::Remove(const RecordKey& key, const StateDigest& state) {
  sum_.Remove(state);
  --records_;
  RemoveElement(HashElement(ElementOf(key, state)), 0, symbols_);
}

std::string ScopeDigest::Encode() const {
  std::string out;
  out.reserve(symbols_.size() * (kSymbolBytesMin + 1) + 48);
  for (const uint64_t lane : sum_.lanes) AppendFixed64(lane, out);
  AppendVarint(records_, out);
  AppendSymbols(symbols_, out);
  return out;
}

absl::StatusOr<ScopeDigest> ScopeDigest::Decode(std::string_view bytes) {
  Reader reader(bytes);
  ScopeDigest digest;
  for (uint64_t& lane : digest.sum_.lanes) lane = reader.Fixed64();
  digest.records_ = reader.Varint();
  CHAPTER_ASSIGN_OR_RETURN(digest.symbols_,
                           DecodeSymbols(reader.Bytes(reader.remaining()), kKeptSymbols));
  if (!reader.ok() || digest.symbols_.size() != kKeptSymbols) {
    return absl::InvalidArgumentError(
        absl::StrCat(bytes.size(), " bytes are no digest of a scope"));
  }
  return digest;
}

}  // namespace chaptersync::storage
