// SPDX-License-Identifier: Apache-2.0
//
// The sync session: one side of one stream, as a pure state machine. Events come
// in (a message, a finished read or write, a tick), ordered effects go out. The
// same class serves the initiator (a node, or a hub towards another) and the
// acceptor (a hub). One thread at a time.
//
// The host's duties:
//  1. Carry out effects in the order given; answer each that says so by its event.
//  2. Replica calls make durable what they tell before the answering event comes.
//  3. Hand over messages in the order of the stream, none while full().
//  4. Give Changed after each commit at the replica, Tick every second or so.
//  5. After End, drop the session; begin a new one for the next stream.
#ifndef CHAPTERSYNC_NODE_SESSION_SESSION_H_
#define CHAPTERSYNC_NODE_SESSION_SESSION_H_

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "chaptersync/v1/sync.pb.h"
#include "node/session/limits.h"
#include "storage/replica/exchange.h"

namespace chaptersync::node {

struct SessionConfig {
  bool initiator = false;
  // This side is a hub. An acceptor always is.
  bool hub = false;
  // Told to the initiator, for people.
  std::string federation;
  // Told to the initiator: how far ahead it may stamp, in milliseconds.
  uint64_t ahead_max_ms = 60'000;
  // Names the session in logs; random. The acceptor takes the initiator's.
  uint64_t id = 0;
  // This side's entities, with the fingerprints of their scope rules.
  std::map<storage::EntityNumber, uint64_t> entities;
  // What people call them, for notes; without one it is its number.
  std::map<storage::EntityNumber, std::string> nouns;
  // Without any message for so long the peer is gone.
  uint64_t silence_ms_max = kSilenceMaxMs;
  size_t window_bytes = kWindowBytes;
  size_t page_bytes_max = kPageBytesMax;
  size_t page_records_max = kPageRecordsMax;
};

// --- What the session wants done. ---

// Send a message.
struct SendMessage {
  v1::SyncMessage message;
};
// Call Replica::SayHello; answer HelloReady.
struct SayHello {
  uint64_t session = 0;
};
// Find out whether the peer is who it says, and what it may have; answer Authorized.
struct Authorize {
  storage::NodeId node;
  bool hub = false;
  storage::ReplicaId replica;
  std::vector<storage::ReplicaId> former;  // ids that it has given up
};
// Call Replica::AcceptPeer; answer PeerAccepted.
struct AcceptPeer {
  storage::PeerIdentity peer;
  storage::HelloFacts hello;
};
// Call Replica::JoinHub; answer HubJoined.
struct JoinHub {
  storage::PeerIdentity hub;
  storage::WelcomeFacts welcome;
};
// Call Replica::ReadFeed; answer FeedRead. A host may delay it: nothing waits.
struct ReadFeed {
  storage::FeedRequest request;
};
// Call Replica::ReadRecords; answer RecordsRead. Where the peer asked for the records
// a host may delay it: nothing waits.
struct ReadRecords {
  storage::RecordsRequest request;
};
// Call Replica::Apply; answer Applied.
struct ApplyRecords {
  storage::ApplyRequest request;
};
// Call Replica::Acknowledge; answer Acknowledged.
struct AcknowledgePeer {
  storage::AcknowledgeRequest request;
};
// Call Replica::FeedEnds; answer EndsRead.
struct ReadEnds {
  std::vector<storage::Scope> scopes;
};
// Call Replica::AdjustClock; answer ClockAdjusted.
struct AdjustClock {
  int64_t offset_ms = 0;
};
// Call Replica::SendWaiting; answer WaitingSent.
struct SendWaiting {
  storage::PeerIdentity hub;
  storage::HybridTime limit;
};
// Call Replica::HearOfHubs; answer HubsHeard.
struct HearOfHubs {
  storage::PeerIdentity from;
  storage::HubsTold told;
};
// Call Replica::FindMissing; answer MissingFound.
struct FindMissing {
  storage::PeerIdentity hub;
};
// Call Replica::TellOfHubs; answer HubsToTell.
struct TellOfHubs {
  uint64_t told = 0;
};
// Close the stream with this status. Nothing follows. OK: a clean end.
struct EndSession {
  absl::Status status;
  bool again_at_once = false;  // begin a new session without waiting
};

using Effect = std::variant<SendMessage, SayHello, Authorize, AcceptPeer, JoinHub, ReadFeed,
                            ReadRecords, ApplyRecords, AcknowledgePeer, ReadEnds, AdjustClock,
                            SendWaiting, HearOfHubs, FindMissing, TellOfHubs, EndSession>;

// --- What happens to a session. ---

// The stream is open. The initiator's first event.
struct Opened {};
struct MessageIn {
  v1::SyncMessage message;
};
struct HelloReady {
  absl::StatusOr<storage::HelloFacts> facts;
};
struct Authorized {
  absl::Status status;
  std::set<storage::Scope> scopes;  // empty for a hub
};
struct PeerAccepted {
  absl::StatusOr<storage::AcceptedPeer> accepted;
  storage::NodeId node;  // this side's
  storage::PeerClock clock;
};
struct HubJoined {
  absl::StatusOr<storage::JoinedHub> joined;
};
struct FeedRead {
  storage::Scope scope;
  absl::StatusOr<storage::FeedPage> page;
};
struct RecordsRead {
  bool asked = false;  // as in the request
  absl::StatusOr<storage::RecordsPage> page;
};
struct Applied {
  absl::StatusOr<storage::ApplyResult> result;
};
struct Acknowledged {
  absl::StatusOr<storage::AcknowledgeResult> result;
};
struct EndsRead {
  absl::StatusOr<std::vector<storage::FeedCursor>> ends;
  storage::PeerClock clock;
};
struct ClockAdjusted {
  absl::Status status;
};
struct WaitingSent {
  absl::StatusOr<bool> restart;
};
struct HubsHeard {
  absl::StatusOr<storage::HubsHeardOf> heard;
};
struct MissingFound {
  absl::StatusOr<std::vector<storage::RecordKey>> keys;
};
struct HubsToTell {
  storage::HubsTold about;
  storage::PeerClock clock;
};
// The replica has new entries in its feed.
struct Changed {};
// Time goes by.
struct Tick {
  storage::PeerClock clock;
  storage::Epoch epoch;  // this side's; another than in the handshake ends the session
  bool shared = false;   // at an acceptor: two computers use the peer's id; ends it, once ready
};
// Ask the peer how far its feeds go; see pulse_answered().
struct AskPulse {
  uint64_t number = 0;  // not 0
  storage::PeerClock clock;
};
// This side wants to end; the peer is told why.
struct Stop {
  absl::Status status;
};

using Event =
    std::variant<Opened, MessageIn, HelloReady, Authorized, PeerAccepted, HubJoined, FeedRead,
                 RecordsRead, Applied, Acknowledged, EndsRead, ClockAdjusted, WaitingSent,
                 HubsHeard, MissingFound, HubsToTell, Changed, Tick, AskPulse, Stop>;

struct SessionCounts {
  uint64_t records_sent = 0;
  uint64_t records_received = 0;
  uint64_t records_partial = 0;
  uint64_t whole_asked = 0;
  uint64_t left_sent = 0;
  uint64_t refused = 0;
  uint64_t conflicts_found = 0;
};

class Session {
 public:
  explicit Session(SessionConfig config);

  // `now_ms`: this computer's wall clock, uncorrected. After End nothing comes out.
  std::vector<Effect> Handle(Event event, uint64_t now_ms);

  // Both handshakes are done.
  bool ready() const { return state_ == State::kReady; }
  bool ended() const { return state_ == State::kEnded; }
  // Take no more messages from the stream now.
  bool full() const { return inbox_.size() >= kInboxMax; }
  // Ready, and everything known to be there is sent, stored and acknowledged.
  bool quiet() const;

  const storage::PeerIdentity& peer() const { return peer_; }
  const SessionCounts& counts() const { return counts_; }
  uint64_t id() const { return config_.id; }
  // The peer's federation name, at an initiator.
  const std::string& federation() const { return federation_; }
  // How far the peer has acknowledged this side's feed.
  storage::Sequence acknowledged(const storage::Scope& scope) const;
  // How far this side has come, durably, in the peer's feed.
  storage::Sequence received(const storage::Scope& scope) const;
  // The last AskPulse that was answered, and the ends that the answer named.
  uint64_t pulse_answered() const { return pulse_answered_; }
  const std::vector<storage::FeedCursor>& peer_ends() const { return peer_ends_; }
  // Entities whose records wait until the peer knows them.
  const std::set<storage::EntityNumber>& held_back() const { return held_back_; }
  // What a reader of the log should know. Empties it.
  std::vector<std::string> TakeNotes();
  // What cannot come from a right history: a defect, a damaged disk, or a clone. Empties it.
  std::vector<std::string> TakeDamage();

 private:
  enum class State : uint8_t { kNew, kHello, kReady, kEnded };

  // A feed of this side that the peer follows.
  struct Outbound {
    storage::Scope scope;
    storage::Sequence position;      // read up to here
    storage::Sequence told;          // the peer will be here once it has all that was sent
    storage::Sequence acknowledged;  // the peer is here
    storage::Mark mark;
    storage::Sequence anew;  // as in FeedRequest
    bool dirty = true;       // there may be more to read
    bool reading = false;
    size_t skipped = 0;  // since `told`
  };
  // A Changes that the peer has not acknowledged.
  struct InFlight {
    storage::Scope scope;
    storage::Sequence last;
    size_t bytes = 0;
    // Records with own stamps, and the highest in each.
    struct Own {
      storage::RecordKey key;
      storage::Sequence sequence;
      storage::HybridTime high;
    };
    std::vector<Own> own;
    uint64_t sent_ms = 0;
  };
  // A feed of the peer that this side follows.
  struct Inbound {
    storage::Sequence position;  // the last Changes taken
    storage::Mark mark;
    storage::Sequence durable;  // acknowledged to the peer
    storage::Mark durable_mark;
    std::map<storage::RecordKey, storage::Sequence> missing;  // must come whole
  };

  void Send(v1::SyncMessage message);
  void End(absl::Status status, bool again_at_once = false);
  // Ends the session and returns false where `status` is an error.
  bool Check(const absl::Status& status);

  void On(const Opened&);
  void On(const HelloReady&);
  void On(const Authorized&);
  void On(const PeerAccepted&);
  void On(const HubJoined&);
  void On(const FeedRead&);
  void On(const RecordsRead&);
  void On(const Applied&);
  void On(const Acknowledged&);
  void On(const EndsRead&);
  void On(const ClockAdjusted&);
  void On(const WaitingSent&);
  void On(const HubsHeard&);
  void On(const MissingFound&);
  void On(const HubsToTell&);
  void On(const Changed&);
  void On(const Tick&);
  void On(const AskPulse&);
  void On(const Stop&);
  void On(MessageIn&);

  void TakeHello(const v1::Hello& hello);
  void TakeWelcome(const v1::Welcome& welcome);
  void Work();  // handles the inbox while nothing is under way
  void TakeChanges(const v1::Changes& changes);
  void TakeLeft(const v1::Left& left);
  void TakeStored(const v1::Stored& stored);
  void ForgetRefused(const storage::RefusedRecord& refused);
  void TakeWhole(const v1::Whole& whole);
  void TakePulse(const v1::Pulse& pulse);
  void Pump();  // reads this side's feeds while the window has room
  void Flush(Outbound& feed);
  // The end of what the peer was told anew, once it has acknowledged all of that.
  std::optional<storage::Sequence> ToldAnew();
  // Reads what the peer asked for, a page at a time.
  void ReadWanted();
  std::string NamesOf(const std::vector<storage::RecordKey>& keys) const;
  // Reads what must go to the peer before the Stored of its push.
  void ReadAnswers();
  // Fits pages to the line: one of so many bytes was acknowledged after so long.
  void Adapt(size_t bytes, uint64_t elapsed_ms);
  size_t window_bytes() const;
  // This replica's id as the peer was told.
  storage::ReplicaId told_as() const { return config_.initiator ? hello_.replica : welcomed_as_; }
  void SendItems(const std::vector<storage::FeedItem>& items);
  void SendStored();
  void SendDropped(const std::vector<storage::DroppedRecord>& dropped);
  // For what no feed may tell of.
  void AskMissing();
  void AskWhole(const std::vector<storage::RecordKey>& keys, bool refusals_noted);
  storage::FeedCursor DurableCursor(const storage::Scope& scope, const Inbound& inbound,
                                    const std::set<storage::RecordKey>& resolved) const;
  Outbound* FindOutbound(const storage::Scope& scope);
  std::map<storage::Scope, storage::Sequence> PeerHas() const;

  SessionConfig config_;
  State state_ = State::kNew;
  uint64_t now_ms_ = 0;
  uint64_t hello_sent_ms_ = 0;
  int64_t clock_offset_ms_ = 0;  // the hub's clock less this computer's, last measured
  uint64_t last_in_ms_ = 0;
  uint64_t missing_asked_ms_ = 0;
  uint64_t last_pulse_ms_ = 0;
  std::vector<Effect> effects_;

  storage::PeerIdentity peer_;
  storage::HelloFacts hello_;
  storage::Epoch own_epoch_;        // as told to the peer; 0: not yet
  storage::ReplicaId welcomed_as_;  // an acceptor's id in Welcome; 0: not yet
  uint64_t reached_told_ = 0;       // positions in hubs' feeds that the peer was told
  std::string federation_;
  uint64_t hub_ahead_max_ms_ = 0;  // how far ahead the hub takes stamps
  std::vector<Outbound> outbound_;
  bool anew_open_ = false;  // the replica does not know yet that a pass over everything has ended
  std::deque<InFlight> in_flight_;
  size_t in_flight_bytes_ = 0;
  size_t window_bytes_max_ = kWindowBytes;
  size_t page_bytes_ = kPageBytesStart;
  std::map<storage::Scope, Inbound> inbound_;

  std::deque<v1::SyncMessage> inbox_;
  // The replica call under way for the message at the front of the inbox.
  enum class Busy : uint8_t { kNo, kApplying, kAnswering, kAcknowledging, kEnds };
  Busy busy_ = Busy::kNo;
  std::vector<storage::RecordKey> answers_;  // still to go to the peer before Stored
  // What the peer asked for whole, and whether it noted a refusal of it: at most
  // kWholeWaitingMax, each once.
  std::deque<std::pair<storage::RecordKey, bool>> wanted_;
  std::set<std::pair<storage::RecordKey, bool>> wanted_set_;
  bool reading_wanted_ = false;
  std::optional<storage::Scope> stored_scope_;  // of the Changes being taken
  std::vector<storage::RefusedRecord> stored_refused_;
  std::vector<storage::RecordKey> ask_after_;  // refused: ask for the hub's state
  uint64_t refusals_to_come_ = 0;              // of those that Welcome has counted
  uint64_t pulse_asked_ = 0;                   // by the peer
  bool flush_ = false;
  uint64_t pulse_answered_ = 0;
  std::vector<storage::FeedCursor> peer_ends_;
  std::set<storage::EntityNumber> held_back_;
  std::vector<std::string> notes_;
  std::vector<std::string> damage_;
  SessionCounts counts_;
};

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_SESSION_SESSION_H_
