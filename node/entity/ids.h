// SPDX-License-Identifier: Apache-2.0
//
// Record ids (RFC 9562): from the time where nothing names a record, and from
// its name where something does, so that two replicas that add the same one
// make one record. Pure; any thread.
#ifndef CHAPTERSYNC_NODE_ENTITY_IDS_H_
#define CHAPTERSYNC_NODE_ENTITY_IDS_H_

#include <cstdint>
#include <string>

#include "node/entity/registry.h"
#include "storage/core/types.h"

namespace chaptersync::node {

// `random_a` and `random_b`: random bits, 74 of which are used.
storage::RecordId UuidV7(uint64_t now_ms, uint64_t random_a, uint64_t random_b);

// The name-based UUID (SHA-1) of a name within a namespace.
storage::RecordId UuidV5(const storage::RecordId& name_space, const std::string& name);

// The id of the record that the entity's name field names: the namespace is the
// UUIDv5 of the entity's plural noun in the project's own.
storage::RecordId NamedId(const EntityType& type, const std::string& name);

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_ENTITY_IDS_H_
