// SPDX-License-Identifier: Apache-2.0
//
// What a node pushed and headquarters is to look at first: kept at the hub as it was pushed, in
// no record and no feed, until an officer approves or rejects it.
#include <algorithm>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"

#include "storage/core/limits.h"
#include "storage/core/record_codec.h"
#include "storage/core/status.h"
#include "storage/replica/keys.h"
#include "storage/replica/meta_values.h"
#include "storage/replica/replica.h"
#include "storage/replica/rights.h"
#include "storage/replica/transaction.h"

namespace chaptersync::storage {

namespace {

std::string Rejection(const std::string& reason) {
  return absl::StrCat("headquarters has rejected it: ",
                      reason.substr(0, reason.find(": it waits")));
}

}  // namespace

std::vector<RecordKey> Replica::LeadersOf(const RecordKey& key, const Record& record) const {
  const auto rule = options_.entities.find(key.entity);
  if (rule == options_.entities.end()) return {};
  return storage::Apply(rule->second.scope, record).leaders;
}

absl::Status Replica::LoadApprovals() {
  approvals_ = {};
  approvals_.last = DecodeNumber(engine_.Get(Table::kMeta, keys::kApprovalLast));
  const std::string prefix(1, keys::kApprovalKind);
  auto snapshot = engine_.NewSnapshot();
  auto it = snapshot->NewIterator(Table::kMeta, prefix, keys::PrefixEnd(prefix));
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    Approval approval;
    const std::string_view key = it->key().substr(1);
    const size_t node_bytes = approval.from.bytes.size();
    if (key.size() != node_bytes + sizeof(uint64_t) + kKeyBytes) {
      return absl::DataLossError("a key of what waits for headquarters' word is damaged");
    }
    std::copy_n(key.begin(), node_bytes, approval.from.bytes.begin());
    Reader in(key.substr(node_bytes));
    approval.epoch = {in.BigEndian64()};
    approval.key = in.Key();
    CHAPTER_ASSIGN_OR_RETURN(ApprovalValue value, DecodeApproval(it->value()));
    CHAPTER_ASSIGN_OR_RETURN(const RecordUpdate update, DecodeUpdate(value.update));
    approval.number = value.number;
    approval.since_ms = value.since_ms;
    approval.reason = std::move(value.reason);
    approval.erasure = update.state.erased;
    approval.leaders = LeadersOf(approval.key, update.state);
    const size_t bytes = it->value().size();
    approvals_.bytes += bytes;
    approvals_.waiting[{approval.from, approval.epoch, approval.key}] = {std::move(approval),
                                                                         bytes};
  }
  return it->status();
}

absl::Status Replica::PutApproval(Transaction& transaction, const PeerIdentity& peer,
                                  const RecordKey& key, const RecordUpdate& update,
                                  const Record& mine, const std::string& reason) {
  const auto rejected = transaction.Get(Table::kMeta, keys::Rejected(peer.node, peer.epoch, key));
  if (rejected.ok() && *rejected == NewsDigest(update, mine)) {
    return absl::PermissionDeniedError(Rejection(reason));
  }
  const auto known = approvals_.waiting.find({peer.node, peer.epoch, key});
  const bool is_known = known != approvals_.waiting.end();
  // An officer says a word on what they have seen: another push of it is another number.
  if (is_known) {
    CHAPTER_ASSIGN_OR_RETURN(
        const std::string before,
        transaction.Get(Table::kMeta, keys::Approval(peer.node, peer.epoch, key)));
    CHAPTER_ASSIGN_OR_RETURN(const ApprovalValue waiting, DecodeApproval(before));
    CHAPTER_ASSIGN_OR_RETURN(const RecordUpdate shown, DecodeUpdate(waiting.update));
    if (NewsDigest(shown, mine) == NewsDigest(update, mine)) return absl::OkStatus();
  }
  ApprovalValue value{.number = approvals_.last + 1,
                      .since_ms = is_known ? known->second.approval.since_ms : WallMs(),
                      .chapter = {},
                      .reason = reason.substr(0, kRefusedReasonBytesMax),
                      .update = EncodeUpdate(update)};
  for (const Scope& scope : peer.scopes) {
    if (scope != Scope::Global()) value.chapter = scope;
  }
  const std::string bytes = Encode(value);
  const size_t freed = is_known ? known->second.bytes : 0;
  if (!is_known) {
    const auto first = approvals_.waiting.lower_bound({peer.node, Epoch{}, RecordKey{}});
    size_t of_node = 0;
    for (auto it = first;
         it != approvals_.waiting.end() && std::get<NodeId>(it->first) == peer.node; ++it) {
      ++of_node;
    }
    if (of_node >= kApprovalsOfNodeMax || approvals_.waiting.size() >= kApprovalsMax) {
      return absl::ResourceExhaustedError(absl::StrCat(
          reason, "; but ", of_node, " records of this computer and ", approvals_.waiting.size(),
          " in all wait already (at most ", kApprovalsOfNodeMax, " and ", kApprovalsMax, ")"));
    }
  }
  if (approvals_.bytes - freed + bytes.size() > kApprovalBytesMax) {
    return absl::ResourceExhaustedError(absl::StrCat(
        reason, "; but ", approvals_.bytes - freed, " bytes wait already, and with these ",
        bytes.size(), " more it would be over ", kApprovalBytesMax));
  }
  transaction.batch().Put(Table::kMeta, keys::Approval(peer.node, peer.epoch, key), bytes);
  if (!approvals_before_) approvals_before_ = approvals_;
  approvals_.bytes += bytes.size() - freed;
  approvals_.last = std::max(approvals_.last, value.number);
  transaction.batch().Put(Table::kMeta, keys::kApprovalLast, EncodeNumber(approvals_.last));
  approvals_.waiting[{peer.node, peer.epoch, key}] = {{.number = value.number,
                                                       .key = key,
                                                       .from = peer.node,
                                                       .epoch = peer.epoch,
                                                       .reason = value.reason,
                                                       .since_ms = value.since_ms,
                                                       .erasure = update.state.erased,
                                                       .leaders = LeadersOf(key, update.state)},
                                                      bytes.size()};
  return absl::OkStatus();
}

void Replica::RemoveApproval(Transaction& transaction, const NodeId& node, Epoch epoch,
                             const RecordKey& key) {
  const auto it = approvals_.waiting.find({node, epoch, key});
  if (it == approvals_.waiting.end()) return;
  if (!approvals_before_) approvals_before_ = approvals_;
  approvals_.bytes -= it->second.bytes;
  approvals_.waiting.erase({node, epoch, key});
  transaction.batch().Delete(Table::kMeta, keys::Approval(node, epoch, key));
  // Where it has not noted yet that it waits it need not any more.
  transaction.batch().Delete(Table::kMeta, keys::Refusal(node, epoch, key));
  transaction.LeaveResidue();
}

absl::Status Replica::EraseApprovals(Transaction& transaction) {
  if (!options_.hub || approvals_.waiting.empty() || !transaction.erases_anything()) {
    return absl::OkStatus();
  }
  // Taking one may erase another record, which others wait of.
  for (bool any = true; any;) {
    any = false;
    std::vector<Approval> gone;
    for (const auto& [where, one] : approvals_.waiting) {
      const std::vector<RecordKey>& leaders = one.approval.leaders;
      const auto erased = [&](const RecordKey& key) { return transaction.Erases(key); };
      // Where the hub has the record it follows what the hub says.
      if (erased(one.approval.key) || (std::any_of(leaders.begin(), leaders.end(), erased) &&
                                       transaction.Find(one.approval.key) == nullptr)) {
        gone.push_back(one.approval);
      }
    }
    for (const Approval& approval : gone) {
      CHAPTER_ASSIGN_OR_RETURN(
          const std::string bytes,
          transaction.Get(Table::kMeta,
                          keys::Approval(approval.from, approval.epoch, approval.key)));
      CHAPTER_ASSIGN_OR_RETURN(const ApprovalValue value, DecodeApproval(bytes));
      if (transaction.Find(approval.key) == nullptr) {
        CHAPTER_ASSIGN_OR_RETURN(const RecordUpdate update, DecodeUpdate(value.update));
        StoredRecord& stored = transaction.Make(approval.key);
        stored.record = Merge({}, update, {Writer(), clock_.last()}).record;
        stored.meta.maker = value.chapter;
        clock_.Observe(stored.record.seen.Highest());
        transaction.Touch(approval.key);
        CHAPTER_RETURN_IF_ERROR(transaction.Place());
      }
      transaction.TellLeft(approval.key, value.chapter);
      RemoveApproval(transaction, approval.from, approval.epoch, approval.key);
      any = true;
    }
    CHAPTER_RETURN_IF_ERROR(transaction.status());
    CHAPTER_RETURN_IF_ERROR(transaction.Place());
  }
  return absl::OkStatus();
}

void Replica::UndoApprovals() {
  if (approvals_before_) approvals_ = *std::move(approvals_before_);
  approvals_before_.reset();
}

std::vector<Approval> Replica::ListApprovals(uint64_t after, size_t count) const {
  std::vector<Approval> out;
  absl::ReaderMutexLock lock(&mutex_);
  for (const auto& [where, one] : approvals_.waiting) {
    if (one.approval.number > after) out.push_back(one.approval);
  }
  std::sort(out.begin(), out.end(),
            [](const Approval& a, const Approval& b) { return a.number < b.number; });
  if (out.size() > count) out.resize(count);
  return out;
}

absl::StatusOr<std::pair<Approval, ApprovalValue>> Replica::FindApproval(uint64_t number) const {
  for (const auto& [where, one] : approvals_.waiting) {
    if (one.approval.number != number) continue;
    CHAPTER_ASSIGN_OR_RETURN(
        const std::string bytes,
        engine_.Get(Table::kMeta,
                    keys::Approval(one.approval.from, one.approval.epoch, one.approval.key)));
    CHAPTER_ASSIGN_OR_RETURN(ApprovalValue value, DecodeApproval(bytes));
    return std::pair{one.approval, std::move(value)};
  }
  return absl::NotFoundError(
      absl::StrCat("nothing of number ", number, " waits for headquarters' word"));
}

absl::StatusOr<ApprovalNews> Replica::ReadApproval(uint64_t number) const {
  absl::ReaderMutexLock lock(&mutex_);
  CHAPTER_ASSIGN_OR_RETURN(auto found, FindApproval(number));
  CHAPTER_ASSIGN_OR_RETURN(const RecordUpdate update, DecodeUpdate(found.second.update));
  const auto bytes = engine_.Get(Table::kRecord, EncodeKey(found.first.key));
  if (!bytes.ok() && !absl::IsNotFound(bytes.status())) return bytes.status();
  StoredRecord stored;
  if (bytes.ok()) {
    CHAPTER_ASSIGN_OR_RETURN(stored, DecodeStored(*bytes));
  }
  ApprovalNews news{.approval = std::move(found.first), .cells = {}};
  AddNews(update, stored.record, news);
  return news;
}

absl::StatusOr<Approval> Replica::Approve(uint64_t number) {
  std::vector<ChangeEvent> events;
  Approval approval;
  {
    absl::MutexLock lock(&mutex_);
    CHAPTER_ASSIGN_OR_RETURN(auto found, FindApproval(number));
    approval = std::move(found.first);
    const RecordKey& key = approval.key;
    CHAPTER_ASSIGN_OR_RETURN(const RecordUpdate update, DecodeUpdate(found.second.update));
    Transaction transaction(engine_, options_);
    damage_.clear();
    const StoredRecord* held = transaction.Find(key);
    CHAPTER_RETURN_IF_ERROR(transaction.status());
    const Record mine = held == nullptr ? Record() : held->record;
    const bool existed = held != nullptr;
    MergeResult merged =
        Merge(mine, update, {Writer(), std::max(clock_.last(), HybridTime::FromWall(WallMs()))});
    if (const std::string over = OverLimit(merged.record); !over.empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat("record ", key.id.ToString(), " would have ", over, "; reject it"));
    }
    absl::Cleanup undo = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { UndoApprovals(); };
    RemoveApproval(transaction, approval.from, approval.epoch, key);
    transaction.batch().Delete(Table::kMeta, keys::Rejected(approval.from, approval.epoch, key));
    if (!Contains(mine, update.state) || !existed) {
      StoredRecord& stored = transaction.Make(key);
      stored.record = std::move(merged.record);
      stored.meta.origin = {};
      if (!existed) stored.meta.maker = found.second.chapter;
      clock_.Observe(stored.record.seen.Highest());
      transaction.Touch(key);
      CHAPTER_RETURN_IF_ERROR(transaction.Place());
      NoteHighest(transaction, {{.kind = RecordOutcome::Kind::kTaken, .key = key}});
      const std::set<Scope>& placement = transaction.Placement(key);
      const std::set<Scope> theirs = {Scope::Global(), found.second.chapter};
      if (stored.record.erased || (!placement.empty() && Disjoint(placement, theirs))) {
        transaction.TellLeft(key, found.second.chapter);
      }
      CHAPTER_RETURN_IF_ERROR(transaction.Place());
    }
    CHAPTER_RETURN_IF_ERROR(Commit(transaction));
    std::move(undo).Cancel();
    events = transaction.events();
  }
  CHAPTER_RETURN_IF_ERROR(Finish(events));
  return approval;
}

absl::StatusOr<Approval> Replica::Reject(uint64_t number) {
  Approval approval;
  {
    absl::MutexLock lock(&mutex_);
    CHAPTER_ASSIGN_OR_RETURN(auto found, FindApproval(number));
    approval = std::move(found.first);
    CHAPTER_ASSIGN_OR_RETURN(const RecordUpdate update, DecodeUpdate(found.second.update));
    Transaction transaction(engine_, options_);
    const StoredRecord* held = transaction.Find(approval.key);
    CHAPTER_RETURN_IF_ERROR(transaction.status());
    absl::Cleanup undo = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { UndoApprovals(); };
    RemoveApproval(transaction, approval.from, approval.epoch, approval.key);
    const RefusedRecord refusal{
        approval.key, {}, RefusedRecord::Reason::kRejected, Rejection(approval.reason)};
    transaction.batch().Put(Table::kMeta,
                            keys::Refusal(approval.from, approval.epoch, approval.key),
                            EncodePending(identity_.epoch, refusal));
    transaction.batch().Put(Table::kMeta,
                            keys::Rejected(approval.from, approval.epoch, approval.key),
                            NewsDigest(update, held == nullptr ? Record() : held->record));
    CHAPTER_RETURN_IF_ERROR(Commit(transaction));
    std::move(undo).Cancel();
  }
  CHAPTER_RETURN_IF_ERROR(Finish({}));
  return approval;
}

}  // namespace chaptersync::storage
