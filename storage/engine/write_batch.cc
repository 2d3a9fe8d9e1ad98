// SPDX-License-Identifier: Apache-2.0
//
// WriteBatch: the list of puts and deletes that an engine applies at once. It
// owns copies of every key and value. Not thread-safe.
#include <string>
#include <string_view>

#include "storage/engine/engine.h"

namespace chaptersync::storage {

void WriteBatch::Put(Table table, std::string_view key, std::string_view value) {
  operations_.push_back({Kind::kPut, table, std::string(key), std::string(value)});
  bytes_ += key.size() + value.size();
}

void WriteBatch::Delete(Table table, std::string_view key) {
  operations_.push_back({Kind::kDelete, table, std::string(key), std::string()});
  bytes_ += key.size();
}

void WriteBatch::DeleteRange(Table table, std::string_view lower, std::string_view upper) {
  if (lower >= upper) return;
  operations_.push_back({Kind::kDeleteRange, table, std::string(lower), std::string(upper)});
  bytes_ += lower.size() + upper.size();
}

void WriteBatch::Clear() {
  operations_.clear();
  bytes_ = 0;
}

}  // namespace chaptersync::storage
