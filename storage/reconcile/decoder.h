// SPDX-License-Identifier: Apache-2.0
//
// Finds what two sets differ in from their symbols, which come in as long as it is
// not done; the elements that only one of the sets has go out. Pure; one thread.
#ifndef CHAPTERSYNC_STORAGE_RECONCILE_DECODER_H_
#define CHAPTERSYNC_STORAGE_RECONCILE_DECODER_H_

#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"

#include "storage/reconcile/coded_symbol.h"
#include "storage/reconcile/element.h"

namespace chaptersync::storage {

// The peer's symbols may be anything: the work is bounded by their number.
class Decoder {
 public:
  // The next symbols of both sets, from the index size() on; as many of each.
  // INVALID_ARGUMENT where the peer's are those of no set; nothing is known then.
  // Not to be called again after an error, nor once done().
  absl::Status Take(std::span<const CodedSymbol> ours, std::span<const CodedSymbol> theirs);

  // Symbols taken.
  size_t size() const { return difference_.size(); }
  // All that the sets differ in is known. False until the first symbol.
  bool done() const { return !difference_.empty() && difference_.front().zero(); }
  // What only one of the sets has, in no order. Not all of it unless done().
  const std::vector<Element>& ours() const { return ours_; }
  const std::vector<Element>& theirs() const { return theirs_; }

 private:
  // An element found, which is no more in the symbols taken, and where it is in those to come.
  struct Found {
    HashedElement element;
    IndexWalk next;
    bool ours = false;
  };
  static void Cancel(const Found& found, CodedSymbol& symbol);
  // Whether the symbol is of a single element, and which.
  static bool Single(const CodedSymbol& symbol, HashedElement& element);
  // Takes out the element that the symbol at `index` consists of.
  absl::Status Peel(size_t index);

  std::vector<CodedSymbol> difference_;  // ours less theirs, without what was found
  std::vector<Found> found_;
  std::vector<std::pair<size_t, size_t>> coming_;  // index, place in found_; the least index on top
  std::vector<size_t> singles_;                    // indexes to look at
  std::vector<Element> ours_;
  std::vector<Element> theirs_;
};

}  // namespace chaptersync::storage

#endif  // CHAPTERSYNC_STORAGE_RECONCILE_DECODER_H_
