// SPDX-License-Identifier: Apache-2.0
//
// A record's values by field path, down to what is no message, as FIELD=VALUE
// and an import take them. Pure; any thread.
#ifndef CHAPTERSYNC_TOOLS_CHAPTERCTL_FLATTEN_H_
#define CHAPTERSYNC_TOOLS_CHAPTERCTL_FLATTEN_H_

#include <string>
#include <vector>

#include "google/protobuf/message.h"

#include "node/entity/registry.h"

namespace chaptersync::ctl {

struct FlatValue {
  std::string path;   // "contacts.home.value"
  std::string value;  // lists are JSON
};

// In the order of the fields, and of keys within a map. A message that holds
// nothing is "{}" at its own path.
std::vector<FlatValue> Flatten(const node::EntityType& type,
                               const google::protobuf::Message& message);

}  // namespace chaptersync::ctl

#endif  // CHAPTERSYNC_TOOLS_CHAPTERCTL_FLATTEN_H_
