// SPDX-License-Identifier: Apache-2.0
//
// In which epochs a replica has met another hub, or heard of it. A hub whose disk
// goes back begins a new epoch. Epochs have no order of their own: later is what
// was met later, here or by more than clocks differ elsewhere, or what somebody
// tells who knows that ours is over. Pure.
#ifndef CHAPTERSYNC_STORAGE_REPLICA_HUB_EPOCHS_H_
#define CHAPTERSYNC_STORAGE_REPLICA_HUB_EPOCHS_H_

#include <string>
#include <string_view>
#include <vector>

#include "storage/core/types.h"

namespace chaptersync::storage {

struct HubEpochs {
  Epoch met;                   // the last in which this replica met the hub; 0: never
  Epoch heard;                 // a later one, as another hub says; 0: none
  uint64_t at_ms = 0;          // Unix milliseconds when it was last known to be in latest()
  std::vector<Epoch> earlier;  // those that are over, the last ones, at most kHubEpochsKept

  Epoch latest() const { return heard != Epoch{} ? heard : met; }
  // The hub itself is in `epoch` now.
  void Meet(Epoch epoch, uint64_t now_ms);
  // Another hub knew it to be in `epoch` at `then_ms`, and that those in `over` are over.
  // False where that is no news. Who does not know that the latest one known here is over may
  // only be behind, unless what it knows is later by more than clocks differ.
  bool Hear(Epoch epoch, uint64_t then_ms, const std::vector<Epoch>& over);

 private:
  void Over(Epoch epoch);
};

std::string Encode(const HubEpochs& value);
// What cannot be read counts as never met.
HubEpochs DecodeHubEpochs(std::string_view bytes);

}  // namespace chaptersync::storage

#endif  // CHAPTERSYNC_STORAGE_REPLICA_HUB_EPOCHS_H_
