// SPDX-License-Identifier: Apache-2.0
//
// A real hub and real nodes on this machine, with TLS and fsync, under one folder that goes when
// the federation does; and what people would do at them. One thread.
#ifndef CHAPTERSYNC_TOOLS_BENCH_FEDERATION_H_
#define CHAPTERSYNC_TOOLS_BENCH_FEDERATION_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "chaptersync/v1/records_service.pb.h"
#include "tools/bench/daemon.h"
#include "tools/bench/socket_bytes.h"
#include "tools/chapterctl/client.h"

namespace chaptersync::bench {

// What one request may hold (RecordsService).
inline constexpr size_t kRequestWritesMax = 1'000;
inline constexpr absl::Duration kSyncTimeout = absl::Hours(1);  // millions of records take long
// Until the hub's connections have ended once nobody wants them: an idle one is closed after 15 s.
inline constexpr absl::Duration kNoConnectionTimeout = absl::Minutes(1);

// A replica with its process.
struct Site {
  std::string data;
  std::unique_ptr<Daemon> daemon;
  std::unique_ptr<ctl::Client> client;
};

class Federation {
 public:
  // `programs`: the folder of chapter-hub and chapter-node; `folder`: must not exist, is removed in
  // the end.
  static absl::StatusOr<std::unique_ptr<Federation>> Make(const std::string& programs,
                                                          const std::string& folder);
  ~Federation();

  Site& hub() { return hub_; }
  // Where it has its data and logs.
  const std::string& folder() const { return folder_; }
  absl::Status AddChapter(const std::string& handle, const std::string& country);
  // An invitation's text.
  absl::StatusOr<std::string> Invite(const std::string& chapter);
  // Invites and joins a computer; it is not started.
  absl::StatusOr<Site*> AddNode(const std::string& name, const std::string& chapter);
  // Starts it and connects a client.
  absl::Status Start(Site& site);
  // Ends it; it can be started again, the hub on the same port.
  absl::Status Stop(Site& site);

  // Bytes over the hub's connections as they are now.
  absl::StatusOr<SocketBytes> Moved() const { return CountSocketBytes(port_); }
  // Returns once the hub has no connection. DEADLINE_EXCEEDED after kNoConnectionTimeout.
  absl::Status AwaitNoConnection() const;

 private:
  Federation(std::string programs, std::string folder)
      : programs_(std::move(programs)), folder_(std::move(folder)) {}
  absl::Status MakeHub();

  const std::string programs_;
  const std::string folder_;
  uint16_t port_ = 0;
  Site hub_;
  std::vector<std::unique_ptr<Site>> nodes_;
};

// Sends up to kRequestWritesMax writes. INTERNAL where one was not done, with its reason.
absl::Status WriteAll(Site& site, const v1::BatchWriteRecordsRequest& request);
// Returns once all that the node and its hub hold now is durable at both.
absl::Status SyncNow(Site& node);
// Ends the node's session, and begins none, until it is resumed.
absl::Status Pause(Site& node);
absl::Status Resume(Site& node);
// Live records of a noun.
absl::StatusOr<uint64_t> Count(Site& site, const std::string& noun);
absl::StatusOr<uint64_t> OpenConflicts(Site& site);
// The write of a member's employer.
void AddEmployer(const std::string& id, const std::string& employer,
                 v1::BatchWriteRecordsRequest& request);

}  // namespace chaptersync::bench

#endif  // CHAPTERSYNC_TOOLS_BENCH_FEDERATION_H_
