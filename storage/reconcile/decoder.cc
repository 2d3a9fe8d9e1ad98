// SPDX-License-Identifier: Apache-2.0
//
// Peeling: a symbol of one element gives it away, and taking it out of the others
// leaves more such symbols.
#include "storage/reconcile/decoder.h"

#include <algorithm>
#include <functional>

#include "absl/strings/str_cat.h"

#include "storage/core/status.h"

namespace chaptersync::storage {

bool Decoder::Single(const CodedSymbol& symbol, HashedElement& element) {
  if (symbol.count != 1 && symbol.count != -1) return false;
  element = HashElement(symbol.element());
  return element.checksum == symbol.checksum;
}

void Decoder::Cancel(const Found& found, CodedSymbol& symbol) {
  if (found.ours) {
    symbol.Remove(found.element);
  } else {
    symbol.Add(found.element);
  }
}

absl::Status Decoder::Take(std::span<const CodedSymbol> ours, std::span<const CodedSymbol> theirs) {
  CHAPTER_CHECK(ours.size() == theirs.size());
  for (size_t i = 0; i < ours.size(); ++i) {
    const size_t index = difference_.size();
    CodedSymbol& symbol = difference_.emplace_back(ours[i]);
    symbol.Subtract(theirs[i]);
    while (!coming_.empty() && coming_.front().first == index) {
      std::pop_heap(coming_.begin(), coming_.end(), std::greater<>());
      Found& found = found_[coming_.back().second];
      Cancel(found, symbol);
      found.next.Next();
      coming_.back().first = found.next.index();
      std::push_heap(coming_.begin(), coming_.end(), std::greater<>());
    }
    CHAPTER_RETURN_IF_ERROR(Peel(index));
  }
  return absl::OkStatus();
}

absl::Status Decoder::Peel(size_t index) {
  singles_.assign(1, index);
  while (!singles_.empty()) {
    const size_t at = singles_.back();
    singles_.pop_back();
    Found found{.element = {}, .next = IndexWalk(0)};
    if (!Single(difference_[at], found.element)) continue;
    found.ours = difference_[at].count > 0;
    // Elements of a set are as many as its symbols at most, once all are known; and each is in
    // the symbols that it is mapped to. Else taking out would never end.
    found.next = IndexWalk(found.element.seed);
    while (found.next.index() < at) found.next.Next();
    if (found.next.index() != at || found_.size() >= difference_.size()) {
      return absl::InvalidArgumentError(absl::StrCat("symbol ", at, " of ", difference_.size(),
                                                     " holds what is not in its set's others"));
    }
    found.next = IndexWalk(found.element.seed);
    for (; found.next.index() < difference_.size(); found.next.Next()) {
      CodedSymbol& symbol = difference_[found.next.index()];
      Cancel(found, symbol);
      if (symbol.count == 1 || symbol.count == -1) singles_.push_back(found.next.index());
    }
    (found.ours ? ours_ : theirs_).push_back(found.element.element());
    coming_.emplace_back(found.next.index(), found_.size());
    std::push_heap(coming_.begin(), coming_.end(), std::greater<>());
    found_.push_back(found);
  }
  return absl::OkStatus();
}

}  // namespace chaptersync::storage
