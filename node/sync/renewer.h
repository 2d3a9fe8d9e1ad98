// SPDX-License-Identifier: Apache-2.0
//
// Renews this computer's certificate when two thirds of its life are over, while the
// program runs: connections that stand go on, later ones show the new one. A thread of its
// own.
#ifndef CHAPTERSYNC_NODE_SYNC_RENEWER_H_
#define CHAPTERSYNC_NODE_SYNC_RENEWER_H_

#include <cstdint>
#include <functional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

#include "node/sync/waker.h"
#include "node/trust/certificate.h"
#include "node/trust/identity.h"

namespace chaptersync::node {

// Between two looks at clock and hub, and until the next try after a failed one, in milliseconds.
inline constexpr int64_t kRenewLookMs = 1'000;
inline constexpr int64_t kRenewAgainMs = 60'000;
// Between two warnings of the end, and until the first one, in seconds.
inline constexpr int64_t kWarnEverySeconds = 24 * 3600;
inline constexpr int64_t kWarnAfterSeconds = 60;

struct RenewerSeams {
  // What time it is at the hub, in seconds since 1970: it is the one who judges.
  std::function<int64_t()> now;
  // The identity that is shown now.
  std::function<absl::StatusOr<TlsIdentity>()> load;
  // Replaces it, durably and at once.
  std::function<absl::Status(const PrivateKey& key, const std::string& chain)> store;
  // Whether somebody is there who could do it now.
  std::function<bool()> ready;
  // Has it certified; the new chain.
  std::function<absl::StatusOr<std::string>(const Renewal& renewal)> certify;
  // Until the next try after a failed one, in milliseconds.
  int64_t again_ms = kRenewAgainMs;
  // Whether the log warns of the certificate's end: a node's, as nobody asks for a hub's.
  bool warns = false;
};

class Renewer {
 public:
  // Nothing happens before Start.
  explicit Renewer(RenewerSeams seams);
  // Stops; a call of `certify` that is under way is waited for.
  ~Renewer();
  Renewer(const Renewer&) = delete;
  Renewer& operator=(const Renewer&) = delete;

  void Start();

  // One look: renews where it is time. True where there is a new certificate.
  absl::StatusOr<bool> RenewIfDue();

  // What the log is to say of the certificate's end, if it is soon and was not renewed: once a day,
  // and not in the first minute, which a renewal may take. Else empty.
  std::string Warning();

 private:
  void Run();

  const RenewerSeams seams_;
  Waker waker_;
  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  // Seconds since 1970; 0: to be read from the certificate.
  int64_t due_ = 0;
  int64_t end_ = 0;
  // The first look, and the last warning; 0: none yet.
  int64_t began_ = 0;
  int64_t warned_ = 0;
  std::thread thread_;
};

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_SYNC_RENEWER_H_
