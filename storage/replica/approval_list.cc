// SPDX-License-Identifier: Apache-2.0
//
// Sums and the index by number go with each change, those of an undo included; see
// approval_list.h.
#include "storage/replica/approval_list.h"

#include <algorithm>

namespace chaptersync::storage {

const ApprovalList::One* ApprovalList::Find(const Where& where) const {
  const auto it = waiting_.find(where);
  return it == waiting_.end() ? nullptr : &it->second;
}

const ApprovalList::One* ApprovalList::FindNumber(uint64_t number) const {
  const auto it = by_number_.find(number);
  return it == by_number_.end() ? nullptr : Find(it->second);
}

std::vector<Approval> ApprovalList::List(uint64_t after, size_t count) const {
  std::vector<Approval> out;
  for (auto it = by_number_.upper_bound(after); it != by_number_.end() && out.size() < count;
       ++it) {
    out.push_back(Find(it->second)->approval);
  }
  return out;
}

ApprovalList::Sum ApprovalList::OfNode(const NodeId& node) const {
  const auto it = of_node_.find(node);
  return it == of_node_.end() ? Sum{} : it->second;
}

void ApprovalList::Put(One one) {
  if (!last_number_before_) last_number_before_ = last_number_;
  last_number_ = std::max(last_number_, one.approval.number);
  const Where where = WhereOf(one.approval);
  const One* before = Find(where);
  undo_.emplace_back(where, before == nullptr ? std::nullopt : std::optional(*before));
  Set(where, std::move(one));
}

void ApprovalList::Remove(const Where& where) {
  const One* before = Find(where);
  if (before == nullptr) return;
  undo_.emplace_back(where, *before);
  Set(where, std::nullopt);
}

void ApprovalList::Undo() {
  while (!undo_.empty()) {
    auto [where, one] = std::move(undo_.back());
    undo_.pop_back();
    Set(where, std::move(one));
  }
  if (last_number_before_) last_number_ = *last_number_before_;
  last_number_before_.reset();
}

void ApprovalList::Set(const Where& where, std::optional<One> one) {
  Sum& of_node = of_node_[std::get<NodeId>(where)];
  if (const auto it = waiting_.find(where); it != waiting_.end()) {
    for (Sum* sum : {&of_node, &total_}) {
      --sum->count;
      sum->bytes -= it->second.bytes;
    }
    by_number_.erase(it->second.approval.number);
    waiting_.erase(it);
  }
  if (one) {
    for (Sum* sum : {&of_node, &total_}) {
      ++sum->count;
      sum->bytes += one->bytes;
    }
    by_number_[one->approval.number] = where;
    waiting_[where] = *std::move(one);
  }
  if (of_node.count == 0) of_node_.erase(std::get<NodeId>(where));
}

}  // namespace chaptersync::storage
