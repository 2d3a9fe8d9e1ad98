// SPDX-License-Identifier: Apache-2.0
//
// Who makes a call: the account that the replica notes with every cell that the
// call writes. Any thread.
#ifndef CHAPTERSYNC_NODE_API_ACTOR_H_
#define CHAPTERSYNC_NODE_API_ACTOR_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include <grpcpp/server_context.h>

namespace chaptersync::node {

// Names the actor. A name beyond printable ASCII goes under the key with "-bin",
// as gRPC carries it.
inline constexpr char kActorKey[] = "chapter-actor";
inline constexpr char kActorBinaryKey[] = "chapter-actor-bin";

// INVALID_ARGUMENT unless it is 1 to 128 bytes of UTF-8 without control characters.
absl::Status CheckActor(const std::string& actor);

// The actor that the call's metadata names, else the user that owns this process.
absl::StatusOr<std::string> ActorOf(const grpc::ServerContextBase& context);

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_API_ACTOR_H_
