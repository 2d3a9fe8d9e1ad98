// SPDX-License-Identifier: Apache-2.0
//
// How a hub's gRPC server is set up: what it takes in, for how long, and from how many, before
// anything of ours sees it.
#ifndef CHAPTERSYNC_HUB_GRPC_SERVER_H_
#define CHAPTERSYNC_HUB_GRPC_SERVER_H_

#include <grpcpp/server_builder.h>

namespace chaptersync::hub {

// Sets all limits of a server for nodes. Ports and services are the caller's.
void LimitServer(grpc::ServerBuilder& builder);

}  // namespace chaptersync::hub

#endif  // CHAPTERSYNC_HUB_GRPC_SERVER_H_
