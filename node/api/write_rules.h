// SPDX-License-Identifier: Apache-2.0
//
// What every local write is checked against before the replica takes it,
// whichever service makes it: values, names, and who may write. Any thread.
#ifndef CHAPTERSYNC_NODE_API_WRITE_RULES_H_
#define CHAPTERSYNC_NODE_API_WRITE_RULES_H_

#include <vector>

#include "absl/status/status.h"

#include "node/api/context.h"
#include "storage/core/record.h"
#include "storage/replica/replica.h"

namespace chaptersync::node {

// Cells that are to be written to a record that is `held` so far (null: not
// there). Only what would change is checked: a repeated write is no write.
// INVALID_ARGUMENT; PERMISSION_DENIED where only headquarters writes a field.
absl::Status CheckWrite(const ApiContext& api, const EntityType& type,
                        const storage::RecordKey& key, const std::vector<storage::CellWrite>& cells,
                        const storage::Record* held);
// Settling a conflict of a field, or of a deletion, is for whoever may write it, whatever the
// choice: the hub lets headquarters look at a settlement that others make.
absl::Status CheckSettler(const ApiContext& api, const EntityType& type,
                          const storage::CellPath& path, const storage::Record& held);
// A deletion or restoration.
absl::Status CheckExistenceWriter(const ApiContext& api, const EntityType& type, bool deletes,
                                  const storage::Record* held);

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_API_WRITE_RULES_H_
