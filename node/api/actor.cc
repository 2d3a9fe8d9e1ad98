// SPDX-License-Identifier: Apache-2.0
//
// Reads the actor from a call's metadata; the process's owner is looked up
// once.
#include "node/api/actor.h"

#include <pwd.h>
#include <unistd.h>

#include <vector>

#include "absl/strings/str_cat.h"

#include "node/api/limits.h"
#include "node/entity/text.h"
#include "storage/core/status.h"

namespace chaptersync::node {
namespace {

std::string ProcessOwner() {
  const uid_t user = geteuid();
  passwd entry{};
  passwd* found = nullptr;
  std::vector<char> buffer(1 << 14);
  if (getpwuid_r(user, &entry, buffer.data(), buffer.size(), &found) == 0 && found != nullptr) {
    std::string name = entry.pw_name;
    if (CheckActor(name).ok()) return name;
  }
  return absl::StrCat("uid ", user);
}

}  // namespace

absl::Status CheckActor(const std::string& actor) {
  if (actor.empty() || actor.size() > kAccountBytesMax || !ValidUtf8(actor) || HasControl(actor)) {
    return absl::InvalidArgumentError(absl::StrCat("actor '", Shown(actor), "' of ", actor.size(),
                                                   " bytes is not allowed (1 to ", kAccountBytesMax,
                                                   " bytes of UTF-8 without control characters)"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ActorOf(const grpc::ServerContextBase& context) {
  const auto& metadata = context.client_metadata();
  for (const char* key : {kActorBinaryKey, kActorKey}) {
    const auto it = metadata.find(key);
    if (it == metadata.end()) continue;
    std::string actor(it->second.data(), it->second.size());
    CHAPTER_RETURN_IF_ERROR(CheckActor(actor));
    return actor;
  }
  static const std::string* const owner = new std::string(ProcessOwner());
  return *owner;
}

}  // namespace chaptersync::node
