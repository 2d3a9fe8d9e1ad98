// SPDX-License-Identifier: Apache-2.0
//
// Carries out, against a replica, the effects of a session that are replica
// calls, and gives the event that answers each. Blocks for as long as the
// replica does; any thread.
#ifndef CHAPTERSYNC_NODE_HOST_REPLICA_PORT_H_
#define CHAPTERSYNC_NODE_HOST_REPLICA_PORT_H_

#include <optional>

#include "node/session/session.h"
#include "storage/replica/replica.h"

namespace chaptersync::node {

// None where the effect is no replica call (SendMessage, Authorize, EndSession).
std::optional<Event> Perform(storage::Replica& replica, const Effect& effect);

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_HOST_REPLICA_PORT_H_
