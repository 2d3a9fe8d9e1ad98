// SPDX-License-Identifier: Apache-2.0
//
// What is remembered of a peer, as JSON in the replica's settings: `replica`,
// `last_contact_ms`, `federation`, `acknowledged`.
#include "node/sync/peers.h"

#include <nlohmann/json.hpp>

namespace chaptersync::node {

PeerMemory LoadPeerMemory(const storage::Replica& replica, const std::string& key) {
  PeerMemory memory;
  const auto text = replica.GetSetting(key);
  if (!text.ok()) return memory;
  const auto json = nlohmann::json::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return memory;
  const auto number = [](const nlohmann::json& from, const char* name) {
    const auto it = from.find(name);
    return it != from.end() && it->is_number_unsigned() ? it->get<uint64_t>() : 0;
  };
  memory.replica = {number(json, "replica")};
  memory.last_contact_ms = number(json, "last_contact_ms");
  if (const auto it = json.find("federation"); it != json.end() && it->is_string()) {
    memory.federation = it->get<std::string>();
  }
  if (const auto it = json.find("acknowledged"); it != json.end() && it->is_object()) {
    for (const auto& [scope, sequence] : it->items()) {
      if (sequence.is_number_unsigned()) {
        memory.acknowledged[{scope}] = {sequence.get<uint64_t>()};
      }
    }
  }
  return memory;
}

absl::Status SavePeerMemory(storage::Replica& replica, const std::string& key,
                            const PeerMemory& memory) {
  nlohmann::json json = {{"replica", memory.replica.value},
                         {"last_contact_ms", memory.last_contact_ms},
                         {"federation", memory.federation},
                         {"acknowledged", nlohmann::json::object()}};
  for (const auto& [scope, sequence] : memory.acknowledged) {
    json["acknowledged"][scope.name] = sequence.value;
  }
  return replica.PutSetting(key,
                            json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

}  // namespace chaptersync::node
