// SPDX-License-Identifier: Apache-2.0
//
// One edit at a time, and how long it takes until another replica shows it to whoever watches
// there. One thread.
#ifndef CHAPTERSYNC_TOOLS_BENCH_EDITS_H_
#define CHAPTERSYNC_TOOLS_BENCH_EDITS_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include <grpcpp/client_context.h>
#include <grpcpp/support/sync_stream.h>

#include "tools/bench/federation.h"

namespace chaptersync::bench {

// Before each edit: people do not write one upon the other, and nothing is under way any more.
inline constexpr absl::Duration kEditPause = absl::Milliseconds(30);
// Until edits are seen: all of them, and each of them besides. Far above what they take.
inline constexpr absl::Duration kSeenTimeout = absl::Minutes(2);
inline constexpr absl::Duration kEditTimeout = absl::Seconds(1);
static_assert(kEditTimeout > kEditPause);

// An edit, and how a record shows it.
struct Edit {
  v1::UpdateRecordRequest request;
  std::function<bool(const v1::Record&)> shown_by;
};

// Another employer of a member; another venue of an event, which is named by its resource name.
Edit EmployerEdit(const std::string& id, const std::string& employer);
Edit VenueEdit(const std::string& name, const std::string& venue);

// Makes an event for everybody that `host` hosts; its resource name.
absl::StatusOr<std::string> MakeEvent(Site& site, const std::string& host);
absl::Status Write(Site& site, const Edit& edit);

// What changes at a site, as it becomes visible there.
class SiteWatch {
 public:
  // Sees what changes from its return on, for as long as so many edits may take.
  static std::unique_ptr<SiteWatch> Open(Site& site, const std::string& noun, size_t edits);
  ~SiteWatch();

  // Waits until a record shows the edit. What the watch ended with where it ended.
  absl::Status Await(const Edit& edit);

 private:
  explicit SiteWatch(ctl::Client& client) : client_(client) {}

  ctl::Client& client_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::WatchRecordsResponse>> reader_;
};

// Makes one edit after the other at `from`, with a pause before each; of each, the milliseconds
// from the call's beginning until it has returned and `watch` has shown the edit.
absl::StatusOr<std::vector<double>> TimeEdits(Site& from, SiteWatch& watch,
                                              const std::vector<Edit>& edits);

}  // namespace chaptersync::bench

#endif  // CHAPTERSYNC_TOOLS_BENCH_EDITS_H_
