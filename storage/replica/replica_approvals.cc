// SPDX-License-Identifier: Apache-2.0
//
// What a node pushed and headquarters is to look at first: kept at the hub as it was pushed, in
// no record and no feed, until an officer approves or rejects it.
#include <algorithm>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"

#include "storage/core/limits.h"
#include "storage/core/planted.h"
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
  approvals_.set_last_number(DecodeNumber(engine_.Get(Table::kMeta, keys::kApprovalLast)));
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
    approvals_.Put({std::move(approval), value.chapter, it->value().size()});
  }
  approvals_.Keep();
  return it->status();
}

absl::Status Replica::PutApproval(Transaction& transaction, const PeerIdentity& peer,
                                  const RecordKey& key, const RecordUpdate& update,
                                  const Record& mine, const std::string& reason) {
  const auto bytes_rejected =
      transaction.Get(Table::kMeta, keys::Rejected(peer.node, peer.epoch, key));
  if (bytes_rejected.ok() && !IsPlanted(Planted::kRejectedWaitsAgain)) {
    CHAPTER_ASSIGN_OR_RETURN(const RejectedValue rejected, DecodeRejected(*bytes_rejected));
    if (rejected.digest == NewsDigest(update, mine)) {
      return absl::PermissionDeniedError(Rejection(reason));
    }
  }
  const ApprovalList::One* known = approvals_.Find({peer.node, peer.epoch, key});
  const bool same_number = known != nullptr && IsPlanted(Planted::kApprovedNotAsShown);
  // An officer says a word on what they have seen: another push of it is another number.
  if (known != nullptr) {
    CHAPTER_ASSIGN_OR_RETURN(
        const std::string before,
        transaction.Get(Table::kMeta, keys::Approval(peer.node, peer.epoch, key)));
    CHAPTER_ASSIGN_OR_RETURN(const ApprovalValue waiting, DecodeApproval(before));
    CHAPTER_ASSIGN_OR_RETURN(const RecordUpdate shown, DecodeUpdate(waiting.update));
    if (NewsDigest(shown, mine) == NewsDigest(update, mine)) return absl::OkStatus();
  }
  const Scope* chapter = ChapterScope(peer);
  const uint64_t next = approvals_.last_number() + 1;
  const ApprovalValue value{.number = same_number ? known->approval.number : next,
                            .since_ms = known != nullptr ? known->approval.since_ms : WallMs(),
                            .chapter = chapter == nullptr ? Scope() : *chapter,
                            .reason = reason.substr(0, kRefusedReasonBytesMax),
                            .update = EncodeUpdate(update)};
  const std::string bytes = Encode(value);
  const ApprovalList::Sum freed =
      known == nullptr ? ApprovalList::Sum{} : ApprovalList::Sum{1, known->bytes};
  const auto full = [&](const char* whose, ApprovalList::Sum sum, size_t count_max,
                        size_t bytes_max) {
    if (sum.count - freed.count < count_max &&
        sum.bytes - freed.bytes + bytes.size() <= bytes_max) {
      return absl::OkStatus();
    }
    return absl::ResourceExhaustedError(
        absl::StrCat(reason, "; but ", sum.count, " records", whose, " with ", sum.bytes,
                     " bytes wait already, and with ", bytes.size(), " more it would be over ",
                     count_max, " records or ", bytes_max, " bytes"));
  };
  CHAPTER_RETURN_IF_ERROR(full(" of this computer", approvals_.OfNode(peer.node),
                               kApprovalsOfNodeMax, kApprovalBytesOfNodeMax));
  CHAPTER_RETURN_IF_ERROR(full(" of all", approvals_.Total(), kApprovalsMax, kApprovalBytesMax));
  transaction.batch().Put(Table::kMeta, keys::Approval(peer.node, peer.epoch, key), bytes);
  transaction.batch().Put(Table::kMeta, keys::kApprovalLast,
                          EncodeNumber(std::max(approvals_.last_number(), value.number)));
  approvals_.Put({{.number = value.number,
                   .key = key,
                   .from = peer.node,
                   .epoch = peer.epoch,
                   .reason = value.reason,
                   .since_ms = value.since_ms,
                   .erasure = update.state.erased,
                   .leaders = LeadersOf(key, update.state)},
                  value.chapter,
                  bytes.size()});
  return absl::OkStatus();
}

void Replica::RemoveApproval(Transaction& transaction, const NodeId& node, Epoch epoch,
                             const RecordKey& key) {
  if (approvals_.Find({node, epoch, key}) == nullptr) return;
  approvals_.Remove({node, epoch, key});
  transaction.batch().Delete(Table::kMeta, keys::Approval(node, epoch, key));
  // Where it has not noted yet that it waits it need not any more.
  transaction.batch().Delete(Table::kMeta, keys::Refusal(node, epoch, key));
  transaction.LeaveResidue();
}

absl::Status Replica::EraseApprovals(Transaction& transaction) {
  if (!options_.hub || approvals_.Total().count == 0 || !transaction.erases_anything()) {
    return absl::OkStatus();
  }
  const auto erases = [&](const RecordKey& key) { return transaction.Erases(key); };
  // Taking one may erase another record, which others wait of.
  for (bool any = true; any;) {
    std::vector<ApprovalList::One> gone;
    for (const auto& [where, one] : approvals_.all()) {
      const std::vector<RecordKey>& leaders = one.approval.leaders;
      // Where the hub has the record it follows what the hub says.
      if (erases(one.approval.key) || (std::any_of(leaders.begin(), leaders.end(), erases) &&
                                       transaction.Find(one.approval.key) == nullptr)) {
        gone.push_back(one);
      }
    }
    for (const ApprovalList::One& one : gone) {
      const Approval& approval = one.approval;
      if (transaction.Find(approval.key) == nullptr) {
        CHAPTER_ASSIGN_OR_RETURN(
            const std::string bytes,
            transaction.Get(Table::kMeta,
                            keys::Approval(approval.from, approval.epoch, approval.key)));
        CHAPTER_ASSIGN_OR_RETURN(const ApprovalValue value, DecodeApproval(bytes));
        CHAPTER_ASSIGN_OR_RETURN(const RecordUpdate update, DecodeUpdate(value.update));
        StoredRecord& stored = transaction.Make(approval.key);
        stored.record = Merge({}, update, {Writer(), clock_.last()}).record;
        stored.meta.maker = one.chapter;
        clock_.Observe(stored.record.seen.Highest());
        transaction.Touch(approval.key);
        CHAPTER_RETURN_IF_ERROR(transaction.Place());
      }
      transaction.TellLeft(approval.key, one.chapter);
      RemoveApproval(transaction, approval.from, approval.epoch, approval.key);
    }
    CHAPTER_RETURN_IF_ERROR(transaction.status());
    CHAPTER_RETURN_IF_ERROR(transaction.Place());
    any = !gone.empty();
  }
  return absl::OkStatus();
}

std::vector<Approval> Replica::ListApprovals(uint64_t after, size_t count) const {
  absl::ReaderMutexLock lock(&mutex_);
  return approvals_.List(after, count);
}

absl::StatusOr<std::pair<Approval, ApprovalValue>> Replica::FindApproval(uint64_t number) const {
  const ApprovalList::One* one = approvals_.FindNumber(number);
  if (one == nullptr) {
    return absl::NotFoundError(
        absl::StrCat("nothing of number ", number, " waits for headquarters' word"));
  }
  const Approval& approval = one->approval;
  CHAPTER_ASSIGN_OR_RETURN(
      const std::string bytes,
      engine_.Get(Table::kMeta, keys::Approval(approval.from, approval.epoch, approval.key)));
  CHAPTER_ASSIGN_OR_RETURN(ApprovalValue value, DecodeApproval(bytes));
  return std::pair{approval, std::move(value)};
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
  ApprovalNews news{.approval = std::move(found.first), .values = {}};
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
    const StoredRecord* held = transaction.Find(key);
    CHAPTER_RETURN_IF_ERROR(transaction.status());
    const Record mine = held == nullptr ? Record() : held->record;
    const bool existed = held != nullptr;
    MergeResult merged =
        Merge(mine, update, {Writer(), std::max(clock_.last(), HybridTime::FromWall(WallMs()))});
    const bool seen_here_and_lost = SeenAndLost(mine, merged.record);
    if (const std::string over = OverLimit(merged.record); !over.empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat("record ", key.id.ToString(), " would have ", over, "; reject it"));
    }
    absl::Cleanup undo = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { approvals_.Undo(); };
    RemoveApproval(transaction, approval.from, approval.epoch, key);
    transaction.batch().Delete(Table::kMeta, keys::Rejected(approval.from, approval.epoch, key));
    if (!Contains(mine, update.state) || !existed || seen_here_and_lost) {
      StoredRecord& stored = transaction.Make(key);
      stored.record = std::move(merged.record);
      stored.meta.origin = {};
      if (existed && seen_here_and_lost) transaction.TellWhole(key);
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
    absl::Cleanup undo = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { approvals_.Undo(); };
    RemoveApproval(transaction, approval.from, approval.epoch, approval.key);
    const RefusedRecord refusal{
        approval.key, {}, RefusedRecord::Reason::kRejected, Rejection(approval.reason)};
    transaction.batch().Put(Table::kMeta,
                            keys::Refusal(approval.from, approval.epoch, approval.key),
                            Encode(PendingRefusal{identity_.epoch, false, refusal}));
    transaction.batch().Put(
        Table::kMeta, keys::Rejected(approval.from, approval.epoch, approval.key),
        Encode(RejectedValue{NewsDigest(update, held == nullptr ? Record() : held->record)}));
    CHAPTER_RETURN_IF_ERROR(Commit(transaction));
    std::move(undo).Cancel();
  }
  CHAPTER_RETURN_IF_ERROR(Finish({}));
  return approval;
}

}  // namespace chaptersync::storage
