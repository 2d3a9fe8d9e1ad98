// SPDX-License-Identifier: Apache-2.0
//
// Cutting: an entity's message into cells at field boundaries, and cells into a
// message again; field paths such as "contacts.home.value"; the cells that an
// update mask names. Pure; any thread.
//
// A cell of a field holds the field's wire bytes with their tags, all
// occurrences of a repeated one. A cell of a map entry has the key in its path
// (text as it is, integers in decimal, booleans as true or false) and holds the
// value alone: the bytes of a string, of bytes or of a message, else the wire
// encoding without its tag. Either is encoded deterministically.
#ifndef CHAPTERSYNC_NODE_ENTITY_CELLS_H_
#define CHAPTERSYNC_NODE_ENTITY_CELLS_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "google/protobuf/message.h"

#include "node/entity/registry.h"
#include "storage/core/record.h"
#include "storage/replica/replica.h"

namespace chaptersync::node {

// A message's bytes, the same for the same values.
std::string Deterministic(const google::protobuf::Message& message);

// One write per set field or map entry, in rising paths, each with a value.
// Fields that the message's schema does not know are left out.
std::vector<storage::CellWrite> Cut(const google::protobuf::Message& message);

// The message of the winning cells that hold a value. Fields that the schema
// does not know become unknown fields, their map entries are left out. DATA_LOSS,
// with the field, where a cell does not parse.
absl::StatusOr<std::unique_ptr<google::protobuf::Message>> Compose(const EntityType& type,
                                                                   const storage::Record& record);
// The same of one cell alone; without a value, an empty message.
absl::StatusOr<std::unique_ptr<google::protobuf::Message>> ComposeCell(
    const EntityType& type, const storage::CellPath& path, const std::optional<std::string>& value);

// A place in a record: a cell, a whole map, or a field within a cell's value.
struct FieldPath {
  storage::CellPath cell;
  const google::protobuf::FieldDescriptor* field = nullptr;   // the entity's own field
  std::vector<const google::protobuf::FieldDescriptor*> sub;  // further down, from outside

  bool whole_map() const { return field->is_map() && !cell.map_key; }
  // The innermost field that is named; of a map entry, the map's value field.
  const google::protobuf::FieldDescriptor* leaf() const;
};

// Parts are separated by dots. A map key that holds a dot or a backquote stands
// in backquotes, those in it doubled: "names.`a.b`.full". INVALID_ARGUMENT, with
// the fields that there are, where the path names none.
absl::StatusOr<FieldPath> ParsePath(const EntityType& type, const std::string& text);

// "employer", "contacts.home"; "" for the existence cell; "field 99" or "field
// 99.key" where the schema does not know the field.
std::string PathText(const EntityType& type, const storage::CellPath& path);
std::string PathText(const EntityType& type, const FieldPath& path);

// The cells that the paths of a mask name, with their values in `message`; none
// where it has none there. A whole map gives the entries of `message`, and those
// that `held` has beyond them, cleared. A path into a cell's value changes that
// part of what `held` has. `held`: the record as it is, null where there is none.
absl::StatusOr<std::vector<storage::CellWrite>> CutByMask(const EntityType& type,
                                                          const google::protobuf::Message& message,
                                                          const std::vector<std::string>& mask,
                                                          const storage::Record* held);
// True where such a path depends on what the record holds.
bool DependsOnHeld(const FieldPath& path);

// A map entry of `message` by its key as text: null where it has none; made where
// it is not there. `field` is a map.
const google::protobuf::Message* FindEntry(const google::protobuf::Message& message,
                                           const google::protobuf::FieldDescriptor* field,
                                           const std::string& key);
// INVALID_ARGUMENT where the key is none of the map's type.
absl::StatusOr<google::protobuf::Message*> MakeEntry(google::protobuf::Message& message,
                                                     const google::protobuf::FieldDescriptor* field,
                                                     const std::string& key);
// The key of a map entry's message, as a cell's path has it.
std::string EntryKey(const google::protobuf::Message& entry);

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_ENTITY_CELLS_H_
