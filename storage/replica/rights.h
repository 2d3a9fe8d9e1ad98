// SPDX-License-Identifier: Apache-2.0
//
// What a hub takes of a record that a node pushes, what it refuses, and what waits for an
// officer at headquarters: docs/adr/0006-rights.md. Pure; any thread.
#ifndef CHAPTERSYNC_STORAGE_REPLICA_RIGHTS_H_
#define CHAPTERSYNC_STORAGE_REPLICA_RIGHTS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "storage/core/merge.h"
#include "storage/replica/exchange.h"
#include "storage/replica/replica.h"

namespace chaptersync::storage {

// Where the hub has the record, as the node sees it.
struct Whereabouts {
  bool elsewhere = false;   // it has a place, which is in none of the node's scopes
  bool been_there = false;  // it was in one of them before
  // The node has said that it let the record go, and the hub has not offered it since.
  bool let_go = false;
  bool not_a_host = false;     // it is for everybody, and the node's chapter is none of its hosts
  bool believes_host = false;  // by what the node says that it had seen, it was one
  // Not known here, and of those that hosts write: it names none, nor what it follows. What is left
  // of another's record may look so.
  bool hostless = false;
  ReplicaId hub;  // the hub's present id: whatever that wrote the hub has
};

// The chapter's scope among a node's; null where it has none.
const Scope* ChapterScope(const PeerIdentity& peer);

// Whether the chapter may write the record, as far as that is its hosts': true of whatever is not
// for everybody. `find` gives the records that it follows; null where one is not here.
bool IsHost(const std::map<EntityNumber, EntityRule>& entities, const RecordKey& key,
            const Record& record, const Scope& chapter,
            const std::function<const Record*(const RecordKey&)>& find);

struct Judgement {
  // kNothing: there is nothing to take, and what the node has seen of it is not the hub's either.
  enum class Kind : uint8_t { kTake, kNothing, kNeedsWhole, kWaits, kRights, kMalformed };
  Kind kind = Kind::kTake;
  std::string reason;  // for people; empty where it is taken
  size_t vouched = 0;  // values, conflicts and settlements of others that the hub has not got
};

// `mine` is the hub's state, an empty record where it has none.
Judgement Judge(const EntityRule& rule, const PeerIdentity& peer, const RecordKey& key,
                const RecordUpdate& update, const Record& mine, const Whereabouts& where);

// Of conflicts and settlements that `mine` has, what was lost and how it was settled stand as
// there: whoever tells of them once more has nothing to say about that.
void KeepKnownConflicts(const Record& mine, Record& theirs);

// Fills in what `update` tells and the hub has not got.
void AddNews(const RecordUpdate& update, const Record& mine, ApprovalNews& out);

// 32 bytes that name what `update` tells and the hub has not got: the same for the same news, also
// where the hub has heard other things of the record meanwhile.
std::string NewsDigest(const RecordUpdate& update, const Record& mine);

// Whether `merged` has a value that `mine` has seen and does not hold: written under an id that two
// computers had, or that one had before and after it went back, and not the last of it. Whoever has
// seen that last one, also the other of the two, would count as having it.
bool SeenAndLost(const Record& mine, const Record& merged);

}  // namespace chaptersync::storage

#endif  // CHAPTERSYNC_STORAGE_REPLICA_RIGHTS_H_
