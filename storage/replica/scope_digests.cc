// SPDX-License-Identifier: Apache-2.0
//
// Rows of a record as it was at the checkpoint are written with its first change after it:
// whether a change is the first is told by the record's place in the feed of all. So a start
// takes those rows out, and puts in what the feed tells of since.
#include "storage/replica/scope_digests.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "storage/core/limits.h"
#include "storage/core/planted.h"
#include "storage/core/record_codec.h"
#include "storage/core/status.h"
#include "storage/replica/keys.h"

namespace chaptersync::storage {
namespace {

// So many scopes' digests are written down at once as early as one's: at 4096 changes that costs
// a change 300 bytes at most. A start reads as many records as have changed.
constexpr uint64_t kScopesAtOnce = 32;

std::string EncodeState(const DigestedState& state) {
  std::string out;
  for (const uint64_t lane : state.digest.lanes) AppendFixed64(lane, out);
  AppendVarint(state.scopes.size(), out);
  for (const Scope& scope : state.scopes) AppendString(scope.name, out);
  return out;
}

absl::StatusOr<DigestedState> DecodeState(std::string_view bytes) {
  Reader reader(bytes);
  DigestedState state;
  for (uint64_t& lane : state.digest.lanes) lane = reader.Fixed64();
  const size_t count = reader.Count(kScopesMax, 1);
  for (size_t i = 0; i < count; ++i) {
    state.scopes.push_back({std::string(reader.String(kScopeBytesMax))});
  }
  if (reader.ok() && reader.empty()) return state;
  return absl::InvalidArgumentError(absl::StrCat(bytes.size(), " bytes are no digested state"));
}

}  // namespace

DigestedState Digested(const RecordKey& key, const StoredRecord& stored) {
  if (stored.record.erased) return {};
  DigestedState state{.scopes = stored.meta.Current(), .digest = {}};
  if (!state.scopes.empty()) state.digest = DigestState(key, stored.record);
  return state;
}

void ScopeDigests::Add(const RecordKey& key, const DigestedState& state) {
  for (const Scope& scope : state.scopes) {
    if (!kept(scope)) continue;
    digests_[scope].Add(key, state.digest);
    dirty_.insert(scope);
  }
}

// What cannot be read counts as what is not there: peers have another digest, and send it.
void ScopeDigests::AddStored(const RecordKey& key, std::string_view bytes) {
  if (const auto stored = DecodeStored(bytes); stored.ok()) Add(key, Digested(key, *stored));
}

void ScopeDigests::Remove(const RecordKey& key, const DigestedState& state) {
  for (const Scope& scope : state.scopes) {
    if (!kept(scope)) continue;
    digests_[scope].Remove(key, state.digest);
    dirty_.insert(scope);
  }
}

void ScopeDigests::Apply(const DigestChange& change, bool forward) {
  const DigestedState& from = forward ? change.before : change.after;
  const DigestedState& to = forward ? change.after : change.before;
  // What only has been seen since is no change.
  if (from.digest == to.digest && from.scopes == to.scopes) return;
  Remove(change.key, from);
  Add(change.key, to);
}

void ScopeDigests::Change(std::vector<DigestChange> changes, Sequence last, WriteBatch& batch) {
  pending_ = std::move(changes);
  for (const DigestChange& change : pending_) Apply(change, true);
  const uint64_t due = changes_between_min_ * (1 + dirty_.size() / kScopesAtOnce);
  if (checkpoint_ == Sequence{} || changed_ + pending_.size() >= due) {
    PutCheckpoint(last, batch);
    pending_checkpoint_ = last;
    return;
  }
  for (const DigestChange& change : pending_) {
    const bool first = change.latest != Sequence{} && change.latest <= checkpoint_;
    if (first && !change.before.scopes.empty()) {
      batch.Put(Table::kMeta, keys::DigestedBefore(change.key), EncodeState(change.before));
    }
  }
}

void ScopeDigests::PutCheckpoint(Sequence last, WriteBatch& batch) {
  if (checkpoint_ == Sequence{}) {
    const std::string digest(1, keys::kDigestKind);
    batch.DeleteRange(Table::kMeta, digest, keys::PrefixEnd(digest));
  }
  for (const Scope& scope : dirty_) {
    batch.Put(Table::kMeta, keys::Digest(scope), digests_[scope].Encode());
  }
  const std::string before(1, keys::kDigestedBeforeKind);
  batch.DeleteRange(Table::kMeta, before, keys::PrefixEnd(before));
  std::string bytes;
  AppendFixed64(last.value, bytes);
  batch.Put(Table::kMeta, keys::kDigestCheckpoint, bytes);
}

void ScopeDigests::Keep() {
  changed_ += pending_.size();
  pending_.clear();
  if (pending_checkpoint_ == Sequence{}) return;
  checkpoint_ = std::exchange(pending_checkpoint_, {});
  dirty_.clear();
  changed_ = 0;
}

void ScopeDigests::Undo() {
  for (auto change = pending_.rbegin(); change != pending_.rend(); ++change) Apply(*change, false);
  pending_.clear();
  pending_checkpoint_ = {};
}

absl::Status ScopeDigests::Load(const Engine& engine, Sequence last) {
  const auto snapshot = engine.NewSnapshot();
  absl::Status status = ReadCheckpoint(*snapshot, last);
  if (status.ok()) status = ReadChanged(*snapshot);
  if (absl::IsNotFound(status) || absl::IsInvalidArgument(status)) return Recompute(*snapshot);
  return status;
}

// NOT_FOUND where none was written; INVALID_ARGUMENT where it is damaged.
absl::Status ScopeDigests::ReadCheckpoint(const Snapshot& snapshot, Sequence last) {
  CHAPTER_ASSIGN_OR_RETURN(const std::string checkpoint,
                           snapshot.Get(Table::kMeta, keys::kDigestCheckpoint));
  Reader reader(checkpoint);
  checkpoint_ = {reader.Fixed64()};
  if (!reader.ok() || checkpoint_ == Sequence{} || checkpoint_ > last) {
    return absl::InvalidArgumentError("when digests were written down is damaged");
  }
  const std::string prefix(1, keys::kDigestKind);
  auto it = snapshot.NewIterator(Table::kMeta, prefix, keys::PrefixEnd(prefix));
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    const Scope scope{std::string(it->key().substr(prefix.size()))};
    CHAPTER_ASSIGN_OR_RETURN(ScopeDigest digest, ScopeDigest::Decode(it->value()));
    digests_.emplace(scope, std::move(digest));
  }
  return it->status();
}

absl::Status ScopeDigests::ReadChanged(const Snapshot& snapshot) {
  const std::string prefix(1, keys::kDigestedBeforeKind);
  auto before = snapshot.NewIterator(Table::kMeta, prefix, keys::PrefixEnd(prefix));
  for (before->SeekToFirst(); before->Valid(); before->Next()) {
    CHAPTER_ASSIGN_OR_RETURN(const DigestedState state, DecodeState(before->value()));
    Remove(Reader(before->key().substr(prefix.size())).Key(), state);
  }
  CHAPTER_RETURN_IF_ERROR(before->status());
  auto it = snapshot.NewIterator(Table::kFeed, keys::Feed(Scope::All(), {checkpoint_.value + 1}),
                                 keys::PrefixEnd(keys::FeedPrefix(Scope::All())));
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    CHAPTER_ASSIGN_OR_RETURN(const std::string bytes, snapshot.Get(Table::kRecord, it->value()));
    AddStored(Reader(it->value()).Key(), bytes);
    ++changed_;
  }
  return it->status();
}

absl::Status ScopeDigests::Recompute(const Snapshot& snapshot) {
  digests_.clear();
  dirty_.clear();
  checkpoint_ = {};
  changed_ = 0;
  auto it = snapshot.NewIterator(Table::kRecord, "", "");
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    AddStored(Reader(it->key()).Key(), it->value());
  }
  return it->status();
}

}  // namespace chaptersync::storage
