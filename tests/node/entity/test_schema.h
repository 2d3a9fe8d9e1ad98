// SPDX-License-Identifier: Apache-2.0
//
// Entities made from text while a test runs, so that tests see kinds of fields
// that no entity of the product has, and wrong options.
#ifndef CHAPTERSYNC_TESTS_NODE_ENTITY_TEST_SCHEMA_H_
#define CHAPTERSYNC_TESTS_NODE_ENTITY_TEST_SCHEMA_H_

#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"

#include "node/entity/registry.h"
#include "storage/core/record.h"

namespace chaptersync::node {

class TestSchema {
 public:
  // `text` is a FileDescriptorProto in text form, without name, package, syntax
  // and imports.
  explicit TestSchema(const std::string& text);
  // A registry of these messages, by name.
  absl::StatusOr<EntityRegistry> Registry(const std::vector<std::string>& messages) const;

 private:
  google::protobuf::DescriptorPool pool_;
  const google::protobuf::FileDescriptor* file_ = nullptr;
};

// An entity `thing` with fields of every kind, and with maps of every kind of key.
const EntityRegistry& EveryKind();

// The entity that has maps of messages.
inline const EntityType& Members() { return *BuiltinEntities().FindByNoun("members"); }

// Fills fields at random, also with empty values and defaults.
void Randomize(google::protobuf::Message& message, std::mt19937_64& random, int depth = 0);

// A record whose winning cells are those writes.
storage::Record RecordOf(const std::vector<storage::CellWrite>& writes);

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_TESTS_NODE_ENTITY_TEST_SCHEMA_H_
