// SPDX-License-Identifier: Apache-2.0
//
// Reading an invitation where a person gave it. It holds a code that is a secret, so no
// error shows any of its text, nor a word that may be such a text put in a wrong place.
// Any thread.
#ifndef CHAPTERSYNC_NODE_DAEMON_INVITATION_H_
#define CHAPTERSYNC_NODE_DAEMON_INVITATION_H_

#include <istream>
#include <string>

#include "absl/status/statusor.h"

#include "chaptersync/v1/enrolment.pb.h"

namespace chaptersync::node {

// Whether a word may hold a secret, as an invitation's text or its code does: it looks like JSON,
// has more than one line, is longer than any path, or holds 32 hexadecimal digits in a row.
bool MayBeSecret(const std::string& word);

// The invitation in `file`, or in `input` where that is "-". NOT_FOUND where there is no such file,
// INVALID_ARGUMENT where the word is none, or what it holds is no invitation.
absl::StatusOr<v1::Invitation> ReadInvitation(const std::string& file, std::istream& input);

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_DAEMON_INVITATION_H_
