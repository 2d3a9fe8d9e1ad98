// SPDX-License-Identifier: Apache-2.0
//
// The entities that this program knows: made from the options of their
// messages, checked once, then only read. Nobody below this folder knows an
// entity by name. Values only; any thread.
#ifndef CHAPTERSYNC_NODE_ENTITY_REGISTRY_H_
#define CHAPTERSYNC_NODE_ENTITY_REGISTRY_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"

#include "chaptersync/v1/options.pb.h"
#include "storage/core/types.h"
#include "storage/replica/replica.h"

namespace chaptersync::node {

// An entity, described once in its .proto.
struct EntityType {
  storage::EntityNumber number;
  std::string singular;  // "member"
  std::string plural;    // "members"
  const google::protobuf::Descriptor* descriptor = nullptr;
  v1::EntityOptions options;
  storage::EntityRule rule;
  std::vector<std::string> columns;  // field paths that a table shows
  // The field whose value names a record; null where ids are made otherwise.
  const google::protobuf::FieldDescriptor* name_field = nullptr;
  // The field of an unconditional chapter clause; null where there is none. A
  // record that a chapter makes is that chapter's unless it says otherwise.
  const google::protobuf::FieldDescriptor* chapter_field = nullptr;
  // A message without values, to make others from. Lives as long as its registry.
  const google::protobuf::Message* prototype = nullptr;

  std::unique_ptr<google::protobuf::Message> NewMessage() const {
    return std::unique_ptr<google::protobuf::Message>(prototype->New());
  }
  // "members/01890a5d-ac96-774b-bcce-b302099a8057".
  std::string ResourceName(const storage::RecordId& id) const;
};

class EntityRegistry {
 public:
  // INVALID_ARGUMENT, with what is wrong, where a message is no entity, two share
  // a number or a noun, an option names a field that is not there or of another
  // type, or a message cannot be cut into cells. Descriptors outlive the registry.
  static absl::StatusOr<EntityRegistry> Make(
      const std::vector<const google::protobuf::Descriptor*>& messages);

  EntityRegistry(EntityRegistry&&) = default;
  EntityRegistry& operator=(EntityRegistry&&) = default;

  // By plural or singular; null where there is none. Lives as long as the registry.
  const EntityType* FindByNoun(const std::string& noun) const;
  const EntityType* FindByNumber(storage::EntityNumber number) const;
  // As FindByNoun; NOT_FOUND, with the nouns that there are, where there is none.
  absl::StatusOr<const EntityType*> GetByNoun(const std::string& noun) const;
  // The plural noun; "entity 99" where the number is not known.
  std::string NounOf(storage::EntityNumber number) const;

  const std::vector<EntityType>& types() const { return types_; }  // by number

 private:
  EntityRegistry() = default;
  absl::Status AddRules();

  std::unique_ptr<google::protobuf::MessageFactory> factory_;  // of messages not compiled in
  std::vector<EntityType> types_;
};

// What this program is built with.
const EntityRegistry& BuiltinEntities();

// What storage needs to know of the entities. The registry outlives the rules.
std::map<storage::EntityNumber, storage::EntityRule> StorageRules(const EntityRegistry& registry);

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_ENTITY_REGISTRY_H_
