// SPDX-License-Identifier: Apache-2.0
//
// What TLS costs a session: a node gets all of its chapter's records from a hub, over
// loopback, with TLS and in the clear in turn. Arguments: records, bytes of text in each,
// rounds. Prints one JSON object; medians.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "tests/hub/hub_fixture.h"

namespace chaptersync::hub {
namespace {

// Each round is of a computer that the hub has not met.
constexpr uint8_t kFirstSeed = 2;
constexpr int64_t kRoundsMax = 100;

// Random, so that compression does not make the line's work small.
std::string Noise(size_t bytes, storage::Environment& environment) {
  std::string text;
  while (text.size() < bytes) text += storage::ToHex(environment.Random());
  return text.substr(0, bytes);
}

// Seconds that an empty replica takes to get everything.
double Round(HubServer& server, uint8_t seed, const node::CredentialsSource& credentials,
             int64_t records) {
  node::Site italy("italy", seed, node::StorageRules(node::BuiltinEntities()));
  node::SessionGroup group(*italy.replica, italy.environment, 1);
  node::GrpcConnector connector(server.address(), credentials);
  node::SyncClient client(group, connector, {""});
  const int64_t began_ms = node::SteadyMs();
  client.Start();
  const auto result = client.SyncNow(node::kPatienceMs, [] { return false; });
  const double seconds = static_cast<double>(node::SteadyMs() - began_ms) / 1000;
  if (!result.ok() || italy.Text(static_cast<uint32_t>(records)).empty()) {
    std::fprintf(stderr, "tls_benchmark: not all came: %s\n", result.status().ToString().c_str());
    std::exit(1);
  }
  return seconds;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

int Main(int argc, char** argv) {
  const int64_t records = argc > 1 ? std::atoll(argv[1]) : 20'000;
  const int64_t bytes = argc > 2 ? std::atoll(argv[2]) : 500;
  const int64_t rounds = argc > 3 ? std::atoll(argv[3]) : 5;
  if (records < 1 || records > 1'000'000 || bytes < 1 || bytes > 4096 || rounds < 1 ||
      rounds > kRoundsMax) {
    std::fprintf(stderr, "usage: tls_benchmark [RECORDS [BYTES [ROUNDS]]]\n");
    return 2;
  }
  HubSite hub;
  for (int64_t i = 1; i <= records; ++i) {
    if (!hub.Put(static_cast<uint32_t>(i), "italy",
                 Noise(static_cast<size_t>(bytes), hub.environment))
             .ok()) {
      return 1;
    }
  }
  HubServer secure(hub);
  node::CertificateFacts shown;
  HubServer clear(hub, {.identify = [&](const grpc::CallbackServerContext&) {
                    return absl::StatusOr<node::CertificateFacts>(shown);
                  }});
  const node::CredentialsSource without = [](const auto&) {
    return grpc::InsecureChannelCredentials();
  };
  std::vector<double> tls_seconds;
  std::vector<double> clear_seconds;
  uint8_t seed = kFirstSeed;
  for (int64_t i = 0; i < rounds; ++i) {
    for (const bool with_tls : {false, true}) {
      storage::NodeId node;
      node.bytes[0] = seed;
      const node::TlsIdentity identity = (with_tls ? secure : clear).Enrol(node, "italy");
      shown = *node::ReadCertificate(identity.chain);
      const auto current =
          node::CurrentCredentials([&]() -> absl::StatusOr<node::TlsIdentity> { return identity; });
      (with_tls ? tls_seconds : clear_seconds)
          .push_back(Round(with_tls ? secure : clear, seed, with_tls ? current : without, records));
      ++seed;
    }
  }
  const double tls = Median(tls_seconds);
  const double open = Median(clear_seconds);
  std::printf("%s\n", nlohmann::json({{"case", "tls"},
                                      {"records", records},
                                      {"bytes_per_record", bytes},
                                      {"rounds", rounds},
                                      {"tls_records_per_s", static_cast<double>(records) / tls},
                                      {"clear_records_per_s", static_cast<double>(records) / open},
                                      {"tls_of_clear", open / tls}})
                          .dump()
                          .c_str());
  return 0;
}

}  // namespace
}  // namespace chaptersync::hub

int main(int argc, char** argv) { return chaptersync::hub::Main(argc, argv); }
