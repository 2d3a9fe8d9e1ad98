// SPDX-License-Identifier: Apache-2.0
//
// Measures how long edits of one record take from the call's beginning at one
// replica until another shows them to a watcher. Arguments: the two sockets, the
// record's resource name, the number of samples. Prints one JSON object.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "chaptersync/v1/event.pb.h"
#include "chaptersync/v1/records_service.grpc.pb.h"

namespace {

using chaptersync::v1::RecordsService;
using Clock = std::chrono::steady_clock;

std::unique_ptr<RecordsService::Stub> Connect(const std::string& socket) {
  return RecordsService::NewStub(
      grpc::CreateChannel("unix:" + socket, grpc::InsecureChannelCredentials()));
}

int Fail(const std::string& message) {
  std::fprintf(stderr, "latency_probe: %s\n", message.c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) return Fail("usage: latency_probe SOCKET SOCKET NAME SAMPLES");
  auto source = Connect(argv[1]);
  auto target = Connect(argv[2]);
  const std::string name = argv[3];
  const int samples = std::atoi(argv[4]);

  grpc::ClientContext watch_context;
  watch_context.set_deadline(std::chrono::system_clock::now() + std::chrono::minutes(2));
  chaptersync::v1::WatchRecordsRequest watch_request;
  auto watch = target->WatchRecords(&watch_context, watch_request);
  watch->WaitForInitialMetadata();

  std::vector<double> seen_ms;
  for (int i = 0; i < samples; ++i) {
    const std::string venue = "venue " + std::to_string(i) + " " + std::to_string(std::rand());
    chaptersync::v1::UpdateRecordRequest request;
    request.set_name(name);
    chaptersync::v1::Event event;
    event.set_venue(venue);
    request.mutable_entity()->PackFrom(event);
    request.mutable_update_mask()->add_paths("venue");
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    chaptersync::v1::UpdateRecordResponse response;
    const Clock::time_point start = Clock::now();
    const grpc::Status status = source->UpdateRecord(&context, request, &response);
    if (!status.ok()) return Fail("an update failed: " + status.error_message());
    for (bool there = false; !there;) {
      chaptersync::v1::WatchRecordsResponse change;
      if (!watch->Read(&change)) return Fail("watch: " + watch->Finish().error_message());
      chaptersync::v1::Event shown;
      there = change.record().entity().UnpackTo(&shown) && shown.venue() == venue;
    }
    seen_ms.push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
  }
  watch_context.TryCancel();
  std::sort(seen_ms.begin(), seen_ms.end());
  std::printf("{\"samples\": %d, \"p50_ms\": %.3f, \"p99_ms\": %.3f}\n", samples,
              seen_ms[seen_ms.size() / 2], seen_ms[seen_ms.size() * 99 / 100]);
  return 0;
}
