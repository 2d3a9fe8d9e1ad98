// SPDX-License-Identifier: Apache-2.0
//
// gRPC's channel arguments, each with its reason: they hold before a call is known to be of
// anybody.
#include "hub/grpc_server.h"

#include <cstddef>

#include <grpc/compression.h>
#include <grpc/grpc.h>
#include <grpcpp/resource_quota.h>

#include "node/session/limits.h"
#include "node/sync/limits.h"

namespace chaptersync::hub {
namespace {

// What messages of all connections together may take while they come in, in bytes: gRPC 1.51 looks
// at a message's size once it has all of it.
constexpr size_t kMessagesBytesMax = 256 << 20;

}  // namespace

void LimitServer(grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(static_cast<int>(node::kMessageBytesMax) +
                                   node::kEnvelopeBytesMax);
  builder.SetMaxSendMessageSize(-1);
  grpc::ResourceQuota quota("chapter-hub");
  quota.Resize(kMessagesBytesMax);
  builder.SetResourceQuota(quota);
  // What is inflated counts to no limit until it is there. Nobody needs it: nodes do not compress.
  builder.AddChannelArgument(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0);
  builder.AddChannelArgument(GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET,
                             1 << GRPC_COMPRESS_NONE);
  // Two hubs on one port would share its nodes out between them.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, node::kStreamsPerConnectionMax);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, node::kKeepaliveTimeMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, node::kKeepaliveTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             node::kKeepaliveTimeMsMin);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, node::kConnectionIdleMsMax);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS,
                             static_cast<int>(node::kHandshakeMsMax));
}

}  // namespace chaptersync::hub
