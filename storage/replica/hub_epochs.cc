// SPDX-License-Identifier: Apache-2.0
//
// Bytes and order of a hub's epochs; see hub_epochs.h. Nothing goes back to an epoch
// that is over, except the hub itself. Pure; any thread.
#include "storage/replica/hub_epochs.h"

#include <algorithm>

#include "storage/core/limits.h"
#include "storage/core/record_codec.h"

namespace chaptersync::storage {
namespace {

bool Contains(const std::vector<Epoch>& some, Epoch one) {
  return std::find(some.begin(), some.end(), one) != some.end();
}

}  // namespace

void HubEpochs::Over(Epoch epoch) {
  if (epoch == Epoch{} || Contains(earlier, epoch)) return;
  earlier.push_back(epoch);
  if (earlier.size() > kHubEpochsKept) earlier.erase(earlier.begin());
}

void HubEpochs::Meet(Epoch epoch, uint64_t now_ms) {
  if (epoch != met) Over(met);
  if (epoch != heard) Over(heard);
  std::erase(earlier, epoch);
  met = epoch;
  heard = {};
  at_ms = now_ms;
}

bool HubEpochs::Hear(Epoch epoch, uint64_t then_ms, const std::vector<Epoch>& over) {
  const Epoch known = latest();
  if (epoch == Epoch{} || epoch == known || Contains(earlier, epoch)) return false;
  const bool later = then_ms > at_ms + kHubClocksApartMsMax;
  if (known != Epoch{} && !Contains(over, known) && !later) return false;
  for (const Epoch& one : over) {
    if (one != epoch) Over(one);
  }
  Over(known);
  heard = epoch;
  at_ms = then_ms;
  return true;
}

std::string Encode(const HubEpochs& value) {
  std::string out;
  AppendFixed64(value.met.value, out);
  AppendFixed64(value.heard.value, out);
  AppendFixed64(value.at_ms, out);
  AppendVarint(value.earlier.size(), out);
  for (const Epoch& epoch : value.earlier) AppendFixed64(epoch.value, out);
  return out;
}

HubEpochs DecodeHubEpochs(std::string_view bytes) {
  Reader in(bytes);
  HubEpochs value;
  value.met = {in.Fixed64()};
  value.heard = {in.Fixed64()};
  value.at_ms = in.Fixed64();
  const size_t earlier = in.Count(kHubEpochsKept, 8);
  for (size_t i = 0; i < earlier; ++i) value.earlier.push_back({in.Fixed64()});
  return in.ok() ? value : HubEpochs{};
}

}  // namespace chaptersync::storage
