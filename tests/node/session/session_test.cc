// SPDX-License-Identifier: Apache-2.0
//
// One side of a session, event by event, with a peer that the test plays: how much
// is read and sent at a time, and what waits for what.
#include "node/session/session.h"

#include <deque>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "node/host/replica_port.h"
#include "node/session/wire.h"
#include "tests/node/host/federation.h"

namespace chaptersync::node {
namespace {

using storage::Scope;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

const storage::RecordKey kNote1 = Key(kNote, 1);
const storage::RecordKey kReply1 = Key(kReply, 1);
constexpr uint64_t kPeerReplica = 77;
constexpr char kPeerNodeDigits[] = "78787878787878787878787878787878";  // of 'x'

// Text that no compression makes smaller.
std::string RandomText(size_t bytes, uint32_t seed) {
  std::mt19937 random(seed);
  std::string text(bytes, '\0');
  for (char& c : text) c = static_cast<char>(' ' + random() % 95);
  return text;
}

// A session at a site, whose replica calls are carried out at once, but for those
// that the test holds.
class Driver {
 public:
  Driver(Site& site, bool initiator) : Driver(site, TestConfig(site, initiator)) {}
  Driver(Site& site, const SessionConfig& config) : site_(site), session_(config) {
    Handle(Opened{});
  }

  void Handle(Event event) {
    std::deque<Event> events;
    events.push_back(std::move(event));
    while (!events.empty()) {
      auto effects = session_.Handle(std::move(events.front()), now_ms);
      events.pop_front();
      for (Effect& effect : effects) {
        if (auto* send = std::get_if<SendMessage>(&effect)) {
          sent.push_back(std::move(send->message));
        } else if (std::holds_alternative<Authorize>(effect)) {
          events.push_back(
              Authorized{absl::OkStatus(), {Scope::Global(), Scope::Chapter("italy")}});
        } else if (const auto* end = std::get_if<EndSession>(&effect)) {
          ended = end->status;
        } else if (hold_reads && std::holds_alternative<ReadRecords>(effect)) {
          held.push_back(std::move(effect));
        } else {
          if (const auto* told = std::get_if<AcknowledgePeer>(&effect)) {
            own_high = std::max(own_high, told->request.own_high);
          }
          events.push_back(*Perform(*site_.replica, effect));
        }
      }
    }
  }
  void Receive(v1::SyncMessage message) { Handle(MessageIn{std::move(message)}); }
  // Carries out the oldest read that is held.
  void Release() {
    const Effect effect = std::move(held.front());
    held.pop_front();
    Handle(*Perform(*site_.replica, effect));
  }
  std::vector<v1::SyncMessage> TakeSent() { return std::exchange(sent, {}); }
  Session& session() { return session_; }

  uint64_t now_ms = 1'700'000'000'000;
  bool hold_reads = false;
  std::vector<v1::SyncMessage> sent;
  std::deque<Effect> held;
  storage::HybridTime own_high;  // acknowledged
  absl::Status ended;

 private:
  Site& site_;
  Session session_;
};

class SessionTest : public testing::Test {
 protected:
  // The hub's end, greeted by a node of Italy.
  void Greet(Driver& hub) {
    v1::SyncMessage message;
    v1::Hello& hello = *message.mutable_hello();
    hello.set_version_min(1);
    hello.set_version_max(1);
    hello.set_replica(kPeerReplica);
    hello.set_epoch(1);
    hello.set_node(std::string(16, 'x'));
    EntitiesToProto(TestConfig(hq, true).entities, hello.mutable_entities());
    hub.Receive(message);
    ASSERT_TRUE(hub.session().ready()) << hub.ended;
  }

  // A node's end, welcomed by a hub.
  void Welcome(Driver& node) {
    v1::SyncMessage message;
    v1::Welcome& welcome = *message.mutable_welcome();
    welcome.set_version(1);
    welcome.set_replica(kPeerReplica);
    welcome.set_epoch(1);
    welcome.set_node(std::string(16, 'h'));
    welcome.set_ahead_max_ms(60'000);
    welcome.mutable_clock()->set_wall_ms(node.now_ms);
    EntitiesToProto(TestConfig(hq, true).entities, welcome.mutable_entities());
    node.Receive(message);
    ASSERT_TRUE(node.session().ready()) << node.ended;
  }

  // Where the peer is once it has all that was sent.
  static uint64_t Told(const std::vector<v1::SyncMessage>& sent) {
    uint64_t told = 0;
    for (const v1::SyncMessage& message : sent) {
      if (message.has_changes()) told = message.changes().last();
    }
    return told;
  }

  void Fill(uint8_t count, size_t bytes) {
    for (uint8_t i = 1; i <= count; ++i) {
      ASSERT_TRUE(
          hq.Put(Key(kNote, i), {{kChapterField, "italy"}, {kTextField, RandomText(bytes, i)}})
              .ok());
    }
  }

  static v1::SyncMessage Whole(const std::vector<storage::RecordKey>& keys, bool noted = false) {
    v1::SyncMessage message;
    message.mutable_whole()->set_refusals_noted(noted);
    for (const auto& key : keys) *message.mutable_whole()->add_records() = ToProto(key);
    return message;
  }

  Site hq{"hq", true, 1};
  Site italy{"italy", false, 2};
  Site toronto{"toronto", false, 3};
};

TEST_F(SessionTest, PagesFitTheLine) {
  // On a line of 64 kbit/s a page of half a MiB took longer than the peer's patience.
  constexpr size_t kRecordBytes = 8 << 10;
  Fill(250, kRecordBytes);
  Driver hub(hq, false);
  Greet(hub);
  size_t smallest = SIZE_MAX;
  size_t largest = 0;
  size_t unacknowledged_max = 0;
  std::deque<v1::SyncMessage> line;
  for (int round = 0; round < 60; ++round) {
    for (v1::SyncMessage& message : hub.TakeSent()) {
      if (message.has_changes()) line.push_back(std::move(message));
    }
    if (line.empty()) break;
    size_t unacknowledged = 0;
    for (const auto& message : line) unacknowledged += message.changes().payload_bytes();
    const v1::Changes changes = line.front().changes();
    line.pop_front();
    const bool slow = round < 12;
    if (round > 9 && slow) unacknowledged_max = std::max(unacknowledged_max, unacknowledged);
    if (slow) smallest = std::min<size_t>(smallest, changes.payload_bytes());
    largest = std::max<size_t>(largest, changes.payload_bytes());
    hub.now_ms += slow ? 10'000 : 10;
    v1::SyncMessage stored;
    stored.mutable_stored()->set_scope(changes.scope());
    stored.mutable_stored()->set_through(changes.last());
    hub.Receive(stored);
  }
  ASSERT_TRUE(hub.ended.ok()) << hub.ended;
  EXPECT_LE(smallest, kPageBytesMin + kRecordBytes);
  EXPECT_LE(unacknowledged_max, (kWindowPages + 1) * (kPageBytesMin + 2 * kRecordBytes));
  EXPECT_GE(largest, 2 * kPageBytesStart) << "a fast line gets large ones again";
}

TEST_F(SessionTest, SmallPagesDoNotMakeLargeOnes) {
  // A few small edits, acknowledged at once, let the next page be half a MiB.
  Driver hub(hq, false);
  Greet(hub);
  for (uint8_t i = 1; i <= 250; ++i) {
    const bool bulk = i > 50;
    ASSERT_TRUE(hq.Put(Key(kNote, i),
                       {{kChapterField, "italy"}, {kTextField, RandomText(bulk ? 8 << 10 : 10, i)}})
                    .ok());
    if (bulk && i < 250) continue;  // unsent until the last
    hub.Handle(Changed{});
    for (const v1::SyncMessage& message : hub.TakeSent()) {
      if (!message.has_changes()) continue;
      EXPECT_LE(message.changes().payload_bytes(), kPageBytesStart + (16 << 10));
      if (bulk) continue;
      v1::SyncMessage stored;
      stored.mutable_stored()->set_scope(message.changes().scope());
      stored.mutable_stored()->set_through(message.changes().last());
      hub.Receive(stored);
    }
  }
}

TEST_F(SessionTest, WhatAPeerAsksForIsReadAPageAtATime) {
  // A Whole of a thousand large records was read into memory in one go.
  constexpr size_t kRecordBytes = 50 << 10;
  Fill(100, kRecordBytes);
  Driver hub(hq, false);
  Greet(hub);
  hub.TakeSent();
  hub.hold_reads = true;
  std::vector<storage::RecordKey> keys;
  for (uint8_t i = 1; i <= 100; ++i) keys.push_back(Key(kNote, i));
  hub.Receive(Whole(keys));
  hub.Receive(Whole(keys));  // asked twice, sent once
  size_t records = 0;
  while (!hub.held.empty()) {
    ASSERT_EQ(hub.held.size(), 1u);
    EXPECT_FALSE(hub.session().quiet());
    hub.Release();
    size_t bytes = 0;
    for (const auto& message : hub.TakeSent()) {
      if (!message.has_changes() || !message.changes().scope().empty()) continue;
      bytes += message.changes().payload_bytes();
      records += message.changes().records();
    }
    EXPECT_LE(bytes, kPageBytesMax + 2 * kRecordBytes);
  }
  EXPECT_EQ(records, 100u);
}

TEST_F(SessionTest, OtherMessagesDoNotWaitForWhatAPeerAskedFor) {
  Fill(1, 100);
  Driver hub(hq, false);
  Greet(hub);
  hub.hold_reads = true;
  hub.Receive(Whole({kNote1}));
  hub.TakeSent();
  v1::SyncMessage pulse;
  pulse.mutable_pulse()->set_asks(5);
  hub.Receive(pulse);
  const auto sent = hub.TakeSent();
  ASSERT_FALSE(sent.empty());
  EXPECT_EQ(sent[0].pulse().answers(), 5u);
}

TEST_F(SessionTest, TooMuchAskedForEndsTheStream) {
  Driver hub(hq, false);
  Greet(hub);
  hub.hold_reads = true;
  uint32_t number = 0;
  for (size_t asked = 0; asked <= kWholeWaitingMax && hub.ended.ok(); asked += kWholeMax) {
    v1::SyncMessage message;
    for (size_t i = 0; i < kWholeMax; ++i) {
      storage::RecordKey key = kNote1;
      ++number;
      for (size_t b = 0; b < 4; ++b) key.id.bytes[b] = static_cast<uint8_t>(number >> (8 * b));
      *message.mutable_whole()->add_records() = ToProto(key);
    }
    hub.Receive(message);
  }
  EXPECT_EQ(hub.ended.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(hub.ended.message()), HasSubstr("at most 100000"));
}

TEST_F(SessionTest, ARefusalIsForgottenOnceItIsNotedAndNotBefore) {
  // A node that asked for a record for another reason was never told of the refusal again.
  ASSERT_TRUE(hq.Put(kNote1, {{kChapterField, "italy"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  ASSERT_TRUE(italy.Put(kNote1, {{kHqField, "x"}}).ok());
  {
    // Cut as soon as the hub has refused it.
    Loopback cut(*italy.replica, TestConfig(italy, true), *hq.replica, TestConfig(hq, false),
                 ScopesOf(italy));
    EXPECT_TRUE(absl::IsOutOfRange(cut.Run(3)));
  }
  const auto pending = [&] {
    storage::PeerIdentity peer{.node = italy.options.node,
                               .replica = italy.replica->replica_id(),
                               .epoch = italy.replica->epoch(),
                               .scopes = ScopesOf(italy)};
    return hq.replica->AcceptPeer(peer, {})->refused.size();
  };
  ASSERT_EQ(pending(), 1u);
  storage::RecordsRequest request{
      .keys = {kNote1}, .asked = true, .refusals_noted = false, .bytes_max = 1 << 20};
  request.peer.node = italy.options.node;
  request.peer.epoch = italy.replica->epoch();
  request.peer.scopes = ScopesOf(italy);
  ASSERT_TRUE(hq.replica->ReadRecords(request).ok());
  EXPECT_EQ(pending(), 1u);
  request.refusals_noted = true;
  ASSERT_TRUE(hq.replica->ReadRecords(request).ok());
  EXPECT_EQ(pending(), 0u);
}

TEST_F(SessionTest, ASharedIdEndsASessionThatIsReadyAndNoOther) {
  // A tick that came before Welcome ended the session, and the peer never heard why.
  const Tick tick{hq.replica->Clock(), hq.replica->epoch(), /*shared=*/true};
  Driver early(hq, false);
  early.Handle(tick);
  EXPECT_TRUE(early.ended.ok()) << early.ended;
  Driver hub(hq, false);
  Greet(hub);
  hub.Handle(tick);
  EXPECT_TRUE(absl::IsAborted(hub.ended)) << hub.ended;
  // And nobody gave up what is no id.
  Driver zero(hq, false);
  v1::SyncMessage message;
  message.mutable_hello()->set_version_min(1);
  message.mutable_hello()->set_version_max(1);
  message.mutable_hello()->add_former(0);
  zero.Receive(message);
  EXPECT_TRUE(absl::IsInvalidArgument(zero.ended)) << zero.ended;
}

TEST_F(SessionTest, APeerIsSilentForAsLongAsItMayBe) {
  constexpr uint64_t kDayMs = 86'400'000;
  SessionConfig patient = TestConfig(hq, false);
  patient.silence_ms_max = UINT64_MAX;
  for (const bool waits : {false, true}) {
    Driver hub(hq, waits ? patient : TestConfig(hq, false));
    Greet(hub);
    hub.now_ms += kDayMs;
    hub.Handle(Tick{hq.replica->Clock(), hq.replica->epoch(), /*shared=*/false});
    EXPECT_EQ(hub.ended.ok(), waits) << hub.ended;
  }
}

TEST_F(SessionTest, WhatIsTakenOnANodesWordIsNamed) {
  // A log that only counted such values let nobody find what was forged.
  SessionConfig config = TestConfig(hq, false);
  config.nouns[kNote] = "notes";
  Driver hub(hq, config);
  Greet(hub);
  storage::ApplyResult result;
  const auto taken = [&](const storage::RecordKey& key, size_t vouched) {
    result.outcomes.push_back({.kind = storage::RecordOutcome::Kind::kTaken, .key = key});
    result.outcomes.back().vouched = vouched;
  };
  taken(Key(kNote, 1), 2);
  taken(Key(kNote, 2), 0);
  taken(Key(kReply, 3), 1);
  hub.session().TakeNotes();
  hub.Handle(Applied{result});
  EXPECT_THAT(hub.session().TakeNotes(),
              ElementsAre(absl::StrCat("took 3 values that others wrote, in 2 records, on the word "
                                       "of node ",
                                       kPeerNodeDigits, ": notes/", Key(kNote, 1).id.ToString(),
                                       ", entity 2/", Key(kReply, 3).id.ToString())));
  result.outcomes.clear();
  for (uint8_t i = 1; i <= 13; ++i) taken(Key(kNote, i), 1);
  hub.Handle(Applied{result});
  const std::vector<std::string> notes = hub.session().TakeNotes();
  ASSERT_EQ(notes.size(), 1u);
  EXPECT_THAT(notes[0], HasSubstr(Key(kNote, 10).id.ToString() + " and 3 more"));
  EXPECT_THAT(notes[0], Not(HasSubstr(Key(kNote, 11).id.ToString())));
}

TEST_F(SessionTest, BeforeTheHandshakeIsDoneMessagesAreSmall) {
  Driver hub(hq, false);
  v1::SyncMessage message;
  message.mutable_hello()->set_node(std::string(kHandshakeBytesMax, 'x'));
  hub.Receive(message);
  EXPECT_TRUE(absl::IsResourceExhausted(hub.ended)) << hub.ended;
  EXPECT_THAT(std::string(hub.ended.message()), HasSubstr("524288"));
}

TEST_F(SessionTest, WhatWasRefusedIsNotAcknowledged) {
  // A node waited for a hub's clock to come up to a stamp that nobody had.
  ASSERT_TRUE(italy.Put(kNote1, {{kChapterField, "italy"}}).ok());
  ASSERT_TRUE(italy.Put(Key(kNote, 2), {{kChapterField, "italy"}}).ok());
  const storage::HybridTime first = italy.replica->Read(kNote1)->record.seen.Highest();
  const storage::HybridTime second = italy.replica->Read(Key(kNote, 2))->record.seen.Highest();
  ASSERT_LT(first, second);
  // With the position, before it, or not.
  for (const int messages : {1, 2, 0}) {
    const bool refused = messages > 0;
    Driver node(italy, true);
    Welcome(node);
    v1::SyncMessage message;
    v1::Stored& stored = *message.mutable_stored();
    stored.set_scope("*");
    stored.set_through(Told(node.TakeSent()));
    ASSERT_GE(stored.through(), 2u);
    if (refused) {
      v1::Refusal& refusal = *stored.add_refused();
      *refusal.mutable_record() = ToProto(Key(kNote, 2));
      refusal.set_sequence(2);
      refusal.set_reason(v1::REFUSAL_REASON_AHEAD);
    }
    if (messages == 2) {
      v1::SyncMessage before;
      stored.mutable_refused()->Swap(before.mutable_stored()->mutable_refused());
      before.mutable_stored()->set_scope("*");
      node.Receive(before);
    }
    node.Receive(message);
    EXPECT_TRUE(node.ended.ok()) << node.ended;
    EXPECT_EQ(node.own_high, refused ? first : second);
  }
}

TEST_F(SessionTest, WhatWasRefusedWholeIsAcknowledgedInNoPage) {
  // Of a record in two pages the second one's stamp counted as the hub's.
  enum class Refused { kAll, kUpToTheSecondPage, kUpToTheFirst };
  for (const Refused refused :
       {Refused::kAll, Refused::kUpToTheSecondPage, Refused::kUpToTheFirst}) {
    Site site{"italy", false, 3};
    ASSERT_TRUE(site.Put(kNote1, {{kChapterField, "italy"}}).ok());
    ASSERT_TRUE(site.Put(Key(kNote, 2), {{kChapterField, "italy"}}).ok());
    const storage::HybridTime first = site.replica->Read(kNote1)->record.seen.Highest();
    Driver node(site, true);
    Welcome(node);
    const uint64_t before = Told(node.TakeSent());
    ASSERT_TRUE(site.Put(Key(kNote, 2), {{kTextField, "x"}}).ok());
    const storage::HybridTime last = site.replica->Read(Key(kNote, 2))->record.seen.Highest();
    node.Handle(Changed{});
    v1::SyncMessage message;
    v1::Stored& stored = *message.mutable_stored();
    stored.set_scope("*");
    stored.set_through(Told(node.TakeSent()));
    ASSERT_GT(stored.through(), before);
    v1::Refusal& refusal = *stored.add_refused();
    *refusal.mutable_record() = ToProto(Key(kNote, 2));
    refusal.set_reason(v1::REFUSAL_REASON_AHEAD);
    if (refused == Refused::kUpToTheSecondPage) refusal.set_sequence(stored.through());
    if (refused == Refused::kUpToTheFirst) refusal.set_sequence(before);
    node.Receive(message);
    EXPECT_TRUE(node.ended.ok()) << node.ended;
    EXPECT_EQ(node.own_high, refused == Refused::kUpToTheFirst ? last : first);
  }
}

TEST_F(SessionTest, WhatWasRefusedIsListedAlsoWhereTheRecordHasNoPlace) {
  // A node waited for ever for the hub's state, and its officer never saw the refusal.
  ASSERT_TRUE(italy.Put(kReply1, {{kNoteField, kNote1.id.ToString()}, {kTextField, "r"}}).ok());
  Driver node(italy, true);
  Welcome(node);
  v1::SyncMessage message;
  v1::Stored& stored = *message.mutable_stored();
  stored.set_scope("*");
  stored.set_through(Told(node.TakeSent()));
  v1::Refusal& refusal = *stored.add_refused();
  *refusal.mutable_record() = ToProto(kReply1);
  refusal.set_sequence(stored.through());
  refusal.set_reason(v1::REFUSAL_REASON_RIGHTS);
  refusal.set_message("not yours");
  node.Receive(message);
  const auto sent = node.TakeSent();
  ASSERT_EQ(sent.size(), 1u);
  ASSERT_EQ(sent[0].whole().records_size(), 1);
  EXPECT_TRUE(italy.replica->ListRefused(0, 10)->empty());
  message.Clear();
  *message.mutable_left()->add_unplaced()->mutable_record() = ToProto(kReply1);
  node.Receive(message);
  const auto refused = italy.replica->ListRefused(0, 10);
  ASSERT_EQ(refused->size(), 1u);
  EXPECT_EQ(refused->front().reason, "not yours");
  EXPECT_FALSE(italy.Has(kReply1));
}

TEST_F(SessionTest, AnUnplacedRecordGoesToWhoBroughtItAndNobodyElse) {
  // A node that asked for an unplaced record waited for an answer for ever.
  ASSERT_TRUE(italy.Put(kReply1, {{kNoteField, kNote1.id.ToString()}, {kTextField, "r"}}).ok());
  ASSERT_TRUE(Sync(italy, hq).ok());
  storage::RecordsRequest request{.keys = {kReply1}, .asked = true, .bytes_max = 1 << 20};
  for (const Site* site : {&italy, &toronto}) {
    request.peer.scopes = ScopesOf(*site);
    const auto page = hq.replica->ReadRecords(request);
    ASSERT_TRUE(page.ok());
    ASSERT_EQ(page->items.size(), 1u);
    EXPECT_EQ(page->items[0].kind, site == &italy ? storage::FeedItem::Kind::kChange
                                                  : storage::FeedItem::Kind::kUnplaced);
    EXPECT_EQ(page->items[0].update.empty(), site == &toronto);
  }
}

TEST_F(SessionTest, AnUnplacedRecordHoldsUpNoCursor) {
  Driver node(italy, true);
  ASSERT_EQ(node.TakeSent().size(), 1u);
  v1::SyncMessage message;
  v1::Welcome& welcome = *message.mutable_welcome();
  welcome.set_version(1);
  welcome.set_replica(9);
  welcome.set_epoch(1);
  welcome.set_node(std::string(16, 'h'));
  welcome.add_scopes("chapter/italy");
  welcome.mutable_clock()->set_wall_ms(node.now_ms);
  welcome.set_ahead_max_ms(60'000);
  v1::Cursor& resume = *welcome.add_resume();
  resume.set_replica(9);
  resume.set_epoch(1);
  resume.set_scope("chapter/italy");
  node.Receive(message);
  ASSERT_TRUE(node.session().ready()) << node.ended;
  // A partial record that builds on what the node has never seen.
  storage::RecordUpdate update;
  update.whole = false;
  const storage::Version version{storage::HybridTime::FromWall(node.now_ms), {9}};
  update.base.Advance({storage::HybridTime::FromWall(node.now_ms - 1), {8}});
  update.state.seen.Unite(update.base);
  update.state.seen.Advance(version);
  update.state.Put({{.field = kTextField, .map_key = {}}, version, "a", Wire(kTextField, "t"), {}});
  storage::FeedItem item{.sequence = {4}, .key = kReply1, .update = EncodeUpdate(update)};
  message.Clear();
  message.mutable_changes()->set_scope("chapter/italy");
  message.mutable_changes()->set_last(6);
  PackRecords({&item}, *message.mutable_changes());
  node.TakeSent();
  node.Receive(message);
  auto sent = node.TakeSent();
  ASSERT_EQ(sent.size(), 2u);
  EXPECT_EQ(sent[0].whole().records_size(), 1);
  EXPECT_EQ(sent[1].stored().through(), 0u) << "not beyond what is missing";
  message.Clear();
  *message.mutable_left()->add_unplaced()->mutable_record() = ToProto(kReply1);
  node.Receive(message);
  sent = node.TakeSent();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].stored().through(), 6u);
  EXPECT_FALSE(italy.Has(kReply1));
  EXPECT_TRUE(node.session().quiet());
}

}  // namespace
}  // namespace chaptersync::node
