// SPDX-License-Identifier: Apache-2.0
//
// Bytes and order of a hub's epochs; see hub_epochs.h. What is met counts more than
// what is heard. Pure; any thread.
#include "storage/replica/hub_epochs.h"

#include <algorithm>

#include "storage/core/limits.h"
#include "storage/core/record_codec.h"

namespace chaptersync::storage {

void HubEpochs::Meet(Epoch epoch) {
  heard = {};
  if (epoch == met) return;
  std::erase(earlier, epoch);
  if (met != Epoch{}) earlier.push_back(met);
  if (earlier.size() > kHubEpochsKept) earlier.erase(earlier.begin());
  met = epoch;
}

bool HubEpochs::Hear(Epoch epoch) {
  if (epoch == met || epoch == heard) return false;
  if (std::find(earlier.begin(), earlier.end(), epoch) != earlier.end()) return false;
  heard = epoch;
  return true;
}

std::string Encode(const HubEpochs& value) {
  std::string out;
  AppendFixed64(value.met.value, out);
  AppendFixed64(value.heard.value, out);
  AppendVarint(value.earlier.size(), out);
  for (const Epoch& epoch : value.earlier) AppendFixed64(epoch.value, out);
  return out;
}

HubEpochs DecodeHubEpochs(std::string_view bytes) {
  Reader in(bytes);
  HubEpochs value;
  value.met = {in.Fixed64()};
  value.heard = {in.Fixed64()};
  const size_t earlier = in.Count(kHubEpochsKept, 8);
  for (size_t i = 0; i < earlier; ++i) value.earlier.push_back({in.Fixed64()});
  return in.ok() ? value : HubEpochs{};
}

}  // namespace chaptersync::storage
