// SPDX-License-Identifier: Apache-2.0
//
// What waits at a hub for headquarters' word, without the records themselves: as on disk, in
// memory, with an undo for a commit that fails. The owner's lock guards it.
#ifndef CHAPTERSYNC_STORAGE_REPLICA_APPROVAL_LIST_H_
#define CHAPTERSYNC_STORAGE_REPLICA_APPROVAL_LIST_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "storage/core/types.h"
#include "storage/replica/exchange.h"

namespace chaptersync::storage {

class ApprovalList {
 public:
  // The node, its epoch, the record: of each one waits at most.
  using Where = std::tuple<NodeId, Epoch, RecordKey>;
  struct One {
    Approval approval;
    Scope chapter;     // the node's
    size_t bytes = 0;  // on disk
  };
  struct Sum {
    size_t count = 0;
    size_t bytes = 0;
  };

  static Where WhereOf(const Approval& a) { return {a.from, a.epoch, a.key}; }

  // Null where nothing waits there. Valid until the next change.
  const One* Find(const Where& where) const;
  const One* FindNumber(uint64_t number) const;
  // In the order of their numbers, at most `count` of those above `after`.
  std::vector<Approval> List(uint64_t after, size_t count) const;
  const std::map<Where, One>& all() const { return waiting_; }
  Sum Total() const { return total_; }
  Sum OfNode(const NodeId& node) const;

  // One that replaces what waited there. Its number is new.
  void Put(One one);
  void Remove(const Where& where);
  uint64_t last_number() const { return last_number_; }
  void set_last_number(uint64_t last) { last_number_ = last; }

  // What was changed since the last of the two stands, or did not happen.
  void Keep() { undo_.clear(), last_number_before_.reset(); }
  void Undo();

 private:
  void Set(const Where& where, std::optional<One> one);

  std::map<Where, One> waiting_;
  std::map<uint64_t, Where> by_number_;
  std::map<NodeId, Sum> of_node_;
  Sum total_;
  uint64_t last_number_ = 0;
  std::vector<std::pair<Where, std::optional<One>>> undo_;  // in the order of the changes
  std::optional<uint64_t> last_number_before_;
};

}  // namespace chaptersync::storage

#endif  // CHAPTERSYNC_STORAGE_REPLICA_APPROVAL_LIST_H_
