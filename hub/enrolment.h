// SPDX-License-Identifier: Apache-2.0
//
// Who belongs to the federation: invitations, each good for one node, the nodes that
// took one, and their certificates. Kept as settings of the hub's replica; of codes and
// keys only the SHA-256. All methods may be called from any thread.
#ifndef CHAPTERSYNC_HUB_ENROLMENT_H_
#define CHAPTERSYNC_HUB_ENROLMENT_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

#include "chaptersync/v1/enrolment.pb.h"
#include "hub/guess_limiter.h"
#include "node/trust/certificate.h"
#include "storage/replica/replica.h"

namespace chaptersync::hub {

// Seconds for which an invitation may hold.
inline constexpr int64_t kInvitationSecondsMin = 60;
inline constexpr int64_t kInvitationSecondsMax = 90 * 24 * 3600;
inline constexpr int64_t kInvitationSecondsDefault = 7 * 24 * 3600;
static_assert(kInvitationSecondsMin < kInvitationSecondsDefault);
static_assert(kInvitationSecondsDefault < kInvitationSecondsMax);
// A spent invitation is remembered so long, to tell who comes with it why not.
inline constexpr int64_t kInvitationKeptSeconds = 30 * 24 * 3600;
// Invitations that wait to be used.
inline constexpr size_t kInvitationsMax = 500;
// Between two certificates of one node, in seconds.
inline constexpr int64_t kRenewSecondsMin = 60;
static_assert(kRenewSecondsMin < node::kCertificateSeconds / 3);

// A computer of a chapter.
struct EnrolledNode {
  storage::NodeId node;
  std::string chapter;
  std::string name;
  uint64_t joined_ms = 0;       // wall clock
  int64_t certificate_end = 0;  // seconds since 1970, of its latest certificate
  int64_t revoked = 0;          // seconds since 1970; 0: it is not
};

// An invitation that can still be used, as it may be shown.
struct OpenInvitation {
  std::string id;  // kInvitationIdDigits of the SHA-256 of its code
  std::string chapter;
  int64_t made = 0;     // seconds since 1970; 0: not known
  std::string made_by;  // empty: not known
  int64_t end = 0;      // seconds since 1970
};
inline constexpr size_t kInvitationIdDigits = 12;
// The id of the invitation that has this code.
std::string InvitationId(const std::string& code);

class Enrolment {
 public:
  // Both outlive it. `federation`: its name, for people. `certificate_seconds`: for how long the
  // certificates hold that it has made.
  Enrolment(storage::Replica& replica, storage::Environment& environment, std::string federation,
            node::Authority authority, int64_t certificate_seconds = node::kCertificateSeconds);

  // Makes an invitation for one node of a chapter; `hub` is the address that it
  // names, `made_by` who wanted it. NOT_FOUND where there is no such chapter, INVALID_ARGUMENT
  // where `valid_seconds` is out of range, RESOURCE_EXHAUSTED where kInvitationsMax wait.
  absl::StatusOr<v1::Invitation> Invite(const std::string& chapter, int64_t valid_seconds,
                                        const std::string& hub, const std::string& made_by = "");
  // Those that can still be used; the one that ends first comes first.
  absl::StatusOr<std::vector<OpenInvitation>> ListInvitations() const;
  // Makes one of them void: its id, or a beginning of it. NOT_FOUND where none has it,
  // INVALID_ARGUMENT where several have.
  absl::StatusOr<OpenInvitation> RevokeInvitation(const std::string& id);

  // Lets a node in. PERMISSION_DENIED where the code is not known, used, revoked, for
  // another chapter, or past its end; RESOURCE_EXHAUSTED where `guesser` was wrong too often.
  // The node that used a code may come again with it, and prove the key that it asked with, and
  // gets a new certificate, until its first session: a lost answer does no harm. One that has
  // joined before may come with another invitation of its chapter, made after it was revoked if it
  // was, and prove a key that was certified for it, whenever: so it goes on where its certificate
  // has ended. From then on only its new key counts, and what others have begun ends.
  absl::StatusOr<v1::EnrolResponse> Enrol(const v1::EnrolRequest& request,
                                          const std::string& guesser);

  // A new certificate for whom the one names that the connection has shown, and the request proves;
  // the key of the latter counts as well until the new one has begun a session, since the answer
  // can be lost. PERMISSION_DENIED as in CheckBegins; RESOURCE_EXHAUSTED within kRenewSecondsMin of
  // the last.
  absl::StatusOr<v1::RenewResponse> Renew(const node::CertificateFacts& shown,
                                          const v1::RenewRequest& request);

  // Whether a stream may begin with this certificate: PERMISSION_DENIED as in CheckGoesOn, where
  // the certificate itself is past its end, and where its key does not count any more. Waits for no
  // disk. Which keys count: the latest, the one that it was asked for with until the latest has
  // begun a session, and any of a certificate that ends after all that this hub remembers; it made
  // that one itself, and has been restored since.
  absl::Status CheckBegins(const node::CertificateFacts& shown) const;
  // The same, by whom a session begins: its invitation is worth nothing any more, nor is any key
  // that came before.
  absl::StatusOr<EnrolledNode> Admit(const node::CertificateFacts& shown);

  // Whether a stream that has begun with this certificate may go on: PERMISSION_DENIED where the
  // node is not of this federation, is not enrolled, is of another chapter, was revoked, its latest
  // certificate is past its end, or the key counts no more; that of a connection over which the
  // latest certificate was asked for counts until that one has begun a session. Waits for no disk.
  absl::Status CheckGoesOn(const node::CertificateFacts& shown) const;

  // Keeps a node out from now on, whatever certificate it has, and ends its chapter's open
  // invitations: who has a stolen computer may have one as well. How many these were. Again does
  // no harm. NOT_FOUND where the node is not enrolled. Where the disk fails it is out until the hub
  // ends.
  absl::StatusOr<size_t> RevokeNode(const storage::NodeId& node);
  struct RevokedChapter {
    std::vector<storage::NodeId> nodes;  // that were not revoked before
    size_t invitations = 0;              // that were open
  };
  // The same for all nodes and open invitations of a chapter. NOT_FOUND where there is none.
  absl::StatusOr<RevokedChapter> RevokeChapter(const std::string& chapter);

  absl::StatusOr<std::vector<EnrolledNode>> ListNodes() const;

  const std::string& federation() const { return federation_; }
  const node::Authority& authority() const { return authority_; }

 private:
  struct Known {
    EnrolledNode facts;
    std::string code;               // the hash of the one that it joined with
    bool met = false;               // a session has begun since
    std::vector<std::string> keys;  // hashes of those that count; the last is the latest one's
    int64_t ends_max = 0;           // of all certificates known that it has had, seconds since 1970
    std::string renewed_over;       // the key that the connection of the latest renewal had shown
  };
  static absl::StatusOr<Known> Decode(const std::string& key, const std::string& text);
  static std::string Encode(const Known& known);
  static bool Counts(const Known& known, const node::CertificateFacts& shown);

  // The open ones, by their settings' names.
  absl::StatusOr<std::map<std::string, OpenInvitation>> FindOpen() const;
  // Forgets what is past its time; how many invitations can still be used.
  absl::StatusOr<size_t> ForgetSpent(int64_t now_seconds) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<v1::EnrolResponse> EnrolLocked(const v1::EnrolRequest& request)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // What is to be written, all at once.
  using Changes = storage::Replica::Settings;
  // Writes what is known of a node, on disk with the other changes, and here.
  absl::Status Keep(const Known& known, Changes changes = {}) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // What is known of a node. NOT_FOUND where it is not enrolled.
  absl::StatusOr<Known> Find(const storage::NodeId& node) const;
  // The same of the one that a certificate names, if that counts; as CheckGoesOn and CheckBegins.
  absl::StatusOr<Known> FindGoingOn(const node::CertificateFacts& shown) const;
  absl::StatusOr<Known> FindBeginning(const node::CertificateFacts& shown) const;
  // A node is out from here on, and is to be on disk.
  void Revoke(Known known, Changes& changes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Ends the invitations of a chapter; how many were open, and whether there were any.
  struct EndedInvitations {
    size_t open = 0;
    bool any = false;
  };
  absl::StatusOr<EndedInvitations> EndInvitations(const std::string& chapter, Changes& changes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status PutRevoked(const std::string& chapter, const Changes& changes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Load() ABSL_EXCLUSIVE_LOCKS_REQUIRED(known_mutex_);
  absl::Status CheckJoinsAgain(const v1::EnrolRequest& request, const std::string& chapter,
                               const Known& known) const;
  node::CertifiedName NameOf(const storage::NodeId& node, const std::string& chapter) const;
  int64_t NowSeconds() const;

  storage::Replica& replica_;
  storage::Environment& environment_;
  const std::string federation_;
  const node::Authority authority_;
  const int64_t certificate_seconds_;
  absl::Mutex mutex_;  // one change at a time
  GuessLimiter guesses_ ABSL_GUARDED_BY(mutex_);
  mutable absl::Mutex known_mutex_ ABSL_ACQUIRED_AFTER(mutex_);
  absl::Status loaded_ ABSL_GUARDED_BY(known_mutex_);
  std::map<storage::NodeId, Known> known_ ABSL_GUARDED_BY(known_mutex_);
  // Chapters whose invitations are void, and the disk has not taken it.
  std::set<std::string> void_chapters_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace chaptersync::hub

#endif  // CHAPTERSYNC_HUB_ENROLMENT_H_
