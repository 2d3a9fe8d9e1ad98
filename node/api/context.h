// SPDX-License-Identifier: Apache-2.0
//
// What every service of the local API works on, and how it shows what a replica
// holds: records, values, writers, times. Any thread.
#ifndef CHAPTERSYNC_NODE_API_CONTEXT_H_
#define CHAPTERSYNC_NODE_API_CONTEXT_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "google/protobuf/struct.pb.h"
#include "google/protobuf/timestamp.pb.h"
#include <grpcpp/server_context.h>

#include "chaptersync/v1/record.pb.h"
#include "node/entity/registry.h"
#include "storage/core/record.h"
#include "storage/replica/replica.h"

namespace chaptersync::node {

// All that is named here outlives the services; all of it may be called from
// any thread, the environment too.
struct ApiContext {
  storage::Replica& replica;
  const EntityRegistry& entities;
  storage::Environment& environment;
};

// A record that a resource name names.
struct NamedRecord {
  const EntityType* type = nullptr;
  storage::RecordKey key;
  std::string name() const { return type->ResourceName(key.id); }
};
// Of "members/<id>": INVALID_ARGUMENT where the text is no such name, NOT_FOUND
// where there is no such noun.
absl::StatusOr<NamedRecord> ParseName(const ApiContext& api, const std::string& name);

// NOT_FOUND where this replica does not hold the record, or only knows of it.
absl::StatusOr<storage::StoredRecord> ReadRecord(const ApiContext& api, const NamedRecord& record);
// A record that was never written here, or of which nothing is left.
bool Nothing(const storage::Record& record);

// The record as the API shows it. Where its cells do not parse it goes without
// its entity, and `damage`, unless null, says so.
v1::Record ShowRecord(const ApiContext& api, const storage::RecordKey& key,
                      const storage::StoredRecord& stored, absl::Status* damage = nullptr);
// The same of a record that is not here any more.
v1::Record ShowAbsent(const ApiContext& api, const storage::RecordKey& key);

// The actor of a call as records keep it: the account, "@", and this replica's
// chapter ("hq" at a hub), so that every replica can tell where a write was made.
absl::StatusOr<std::string> WriterOf(const ApiContext& api, const grpc::ServerContextBase& context);
v1::WriteInfo ShowWrite(const ApiContext& api, const storage::Version& version,
                        const std::string& actor);
// Also where the schema does not know the entity: bytes in base64.
google::protobuf::Value ShowValue(const ApiContext& api, storage::EntityNumber entity,
                                  const storage::CellPath& path,
                                  const std::optional<std::string>& value);
std::string ShowPath(const ApiContext& api, storage::EntityNumber entity,
                     const storage::CellPath& path);
google::protobuf::Timestamp ShowTime(storage::HybridTime time);

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_API_CONTEXT_H_
