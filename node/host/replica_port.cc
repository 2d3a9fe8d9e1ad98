// SPDX-License-Identifier: Apache-2.0
//
// One replica call for each effect that asks for one; see replica_port.h. Blocks
// for as long as the replica does; any thread.
#include "node/host/replica_port.h"

namespace chaptersync::node {
namespace {

template <typename... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <typename... F>
Overloaded(F...) -> Overloaded<F...>;

}  // namespace

std::optional<Event> Perform(storage::Replica& replica, const Effect& effect) {
  using Result = std::optional<Event>;
  return std::visit(
      Overloaded{
          [](const SendMessage&) -> Result { return std::nullopt; },
          [](const Authorize&) -> Result { return std::nullopt; },
          [](const EndSession&) -> Result { return std::nullopt; },
          [&](const SayHello& e) -> Result { return HelloReady{replica.SayHello(e.session)}; },
          [&](const AcceptPeer& e) -> Result {
            auto accepted = replica.AcceptPeer(e.peer, e.hello);
            return PeerAccepted{std::move(accepted), replica.options().node, replica.Clock()};
          },
          [&](const JoinHub& e) -> Result { return HubJoined{replica.JoinHub(e.hub, e.welcome)}; },
          [&](const ReadFeed& e) -> Result {
            return FeedRead{e.request.scope, replica.ReadFeed(e.request)};
          },
          [&](const ReadRecords& e) -> Result {
            return RecordsRead{e.request.asked, replica.ReadRecords(e.request)};
          },
          [&](const ApplyRecords& e) -> Result { return Applied{replica.Apply(e.request)}; },
          [&](const AcknowledgePeer& e) -> Result {
            return Acknowledged{replica.Acknowledge(e.request)};
          },
          [&](const ReadEnds& e) -> Result {
            return EndsRead{replica.FeedEnds(e.scopes), replica.Clock()};
          },
          [&](const AdjustClock& e) -> Result {
            return ClockAdjusted{replica.AdjustClock(e.offset_ms)};
          },
          [&](const SendWaiting& e) -> Result {
            return WaitingSent{replica.SendWaiting(e.hub, e.limit)};
          },
          [&](const HearOfHubs& e) -> Result {
            return HubsHeard{replica.HearOfHubs(e.from, e.told)};
          },
          [&](const FindMissing& e) -> Result { return MissingFound{replica.FindMissing(e.hub)}; },
          [&](const TellOfHubs& e) -> Result {
            return HubsToTell{replica.TellOfHubs(e.told), replica.Clock()};
          },
      },
      effect);
}

}  // namespace chaptersync::node
