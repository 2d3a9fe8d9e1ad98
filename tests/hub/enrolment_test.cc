// SPDX-License-Identifier: Apache-2.0
//
// Invitations are good for one node and for their time; certificates say what was joined;
// neither is kept in a form that would let anybody in.
#include "hub/enrolment.h"

#include <algorithm>
#include <map>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "hub/refusal_log.h"
#include "node/entity/node_names.h"
#include "node/sync/one_request.h"
#include "tests/hub/hub_fixture.h"

namespace chaptersync::hub {
namespace {

using storage::NodeId;
using testing::HasSubstr;

NodeId Node(uint8_t number) {
  NodeId node;
  node.bytes[15] = number;
  return node;
}

class EnrolmentTest : public testing::Test {
 protected:
  v1::Invitation Invite(int64_t valid_seconds = kInvitationSecondsDefault,
                        const std::string& chapter = "italy") {
    const auto invitation = enrolment_.Invite(chapter, valid_seconds, "127.0.0.1:7443");
    EXPECT_TRUE(invitation.ok()) << invitation.status();
    return invitation.ok() ? *invitation : v1::Invitation();
  }
  static v1::EnrolRequest Request(const std::string& code, uint8_t node,
                                  const node::PrivateKey& key,
                                  const std::string& chapter = "italy") {
    v1::EnrolRequest request;
    request.set_code(code);
    request.set_node(node::ToBytes(Node(node)));
    request.set_name("front desk");
    request.set_request(key.MakeRequest());
    request.set_chapter(chapter);
    return request;
  }
  // From an address that nobody else uses.
  absl::StatusOr<v1::EnrolResponse> Enrol(const v1::EnrolRequest& request) {
    return enrolment_.Enrol(request, std::to_string(++addresses_));
  }
  absl::StatusOr<v1::EnrolResponse> Enrol(const std::string& code, uint8_t node) {
    return Enrol(Request(code, node, key_));
  }
  node::CertifiedName Name(uint8_t node, const std::string& chapter = "italy") {
    return {.federation = hub_.authority.federation(), .chapter = chapter, .node = Node(node)};
  }
  // What a certificate of a node says that was made so many seconds from now.
  node::CertificateFacts Shown(uint8_t node, const node::PrivateKey& key, int64_t seconds = -600) {
    return Shown(IdentityOf(hub_.authority, Name(node), key, seconds).chain);
  }
  node::CertificateFacts Shown(uint8_t node) { return Shown(node, key_); }
  static node::CertificateFacts Shown(const std::string& chain) {
    const auto facts = node::ReadCertificate(chain);
    EXPECT_TRUE(facts.ok()) << facts.status();
    return facts.ok() ? *facts : node::CertificateFacts();
  }
  // Joins again, as one that has had `former`.
  absl::StatusOr<v1::EnrolResponse> EnrolAgain(const v1::Invitation& invitation, uint8_t node,
                                               const node::PrivateKey& key,
                                               const node::PrivateKey& former,
                                               const std::string& former_chain = "") {
    v1::EnrolRequest request = Request(invitation.code(), node, key, invitation.chapter());
    request.set_former_chain(former_chain);
    request.set_former_key(former.PublicKey());
    request.set_former_signature(former.Sign(request.request()));
    return Enrol(request);
  }
  // A renewal of a certificate, over a connection that has shown `shown`.
  static v1::RenewRequest Renewal(const std::string& chain, const node::PrivateKey& key,
                                  const node::PrivateKey& next) {
    const auto renewal =
        node::MakeRenewal({.key = key.ToPem(), .chain = chain, .authority = ""}, next);
    EXPECT_TRUE(renewal.ok()) << renewal.status();
    v1::RenewRequest request;
    request.set_request(renewal->request);
    request.set_chain(renewal->chain);
    request.set_signature(renewal->signature);
    return request;
  }
  absl::StatusOr<v1::RenewResponse> Renew(const node::CertificateFacts& shown,
                                          const std::string& chain, const node::PrivateKey& key,
                                          const node::PrivateKey& next) {
    return enrolment_.Renew(shown, Renewal(chain, key, next));
  }
  static void ExpectDenied(const absl::Status& answer, const std::string& why) {
    EXPECT_EQ(answer.code(), absl::StatusCode::kPermissionDenied);
    EXPECT_THAT(answer.ToString(), HasSubstr(why));
  }

  HubSite hub_;
  const node::PrivateKey key_ = node::PrivateKey::Make();
  Enrolment enrolment_{*hub_.replica, hub_.environment, "Federation", hub_.authority};
  int addresses_ = 0;
};

TEST_F(EnrolmentTest, AnInvitationLetsOneNodeIn) {
  const v1::Invitation invitation = Invite();
  EXPECT_EQ(invitation.version(), 1u);
  EXPECT_EQ(invitation.hub(), "127.0.0.1:7443");
  EXPECT_EQ(invitation.chapter(), "italy");
  EXPECT_EQ(invitation.federation(), "Federation");
  EXPECT_EQ(invitation.authority(), hub_.authority.fingerprint());
  EXPECT_EQ(invitation.code().size(), 64u);
  const auto answer = Enrol(invitation.code(), 7);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->chapter(), "italy");
  EXPECT_EQ(answer->federation(), "Federation");
  EXPECT_EQ(answer->hub(), node::ToBytes(hub_.replica->options().node));
  const node::CertificateFacts shown = Shown(answer->chain());
  EXPECT_EQ(shown.name, Name(7));
  EXPECT_TRUE(node::CheckKeyOf(answer->chain(), key_).ok());
  const auto known = enrolment_.Admit(shown);
  ASSERT_TRUE(known.ok()) << known.status();
  EXPECT_EQ(known->chapter, "italy");
  EXPECT_EQ(known->name, "front desk");
  EXPECT_EQ(known->certificate_end, shown.not_after);
  ExpectDenied(Enrol(invitation.code(), 8).status(), "used");
  ExpectDenied(enrolment_.Admit(Shown(8)).status(), "not enrolled");
  node::CertificateFacts other = shown;
  other.name.chapter = "toronto";
  ExpectDenied(enrolment_.Admit(other).status(), "not of chapter");
  other = shown;
  other.name.federation = std::string(32, '0');
  ExpectDenied(enrolment_.Admit(other).status(), "federation");
  other = shown;
  other.name.chapter.clear();
  ExpectDenied(enrolment_.Admit(other).status(), "federation");
  other = shown;
  other.not_after = other.not_before;
  ExpectDenied(enrolment_.Admit(other).status(), "certificate ended");
  ExpectDenied(enrolment_.Admit(Shown(7, node::PrivateKey::Make())).status(),
               "another certificate by now");
}

TEST_F(EnrolmentTest, ALostAnswerDoesNoHarm) {
  const v1::Invitation invitation = Invite();
  ASSERT_TRUE(Enrol(invitation.code(), 7).ok());
  // Who has read the invitation as well has not its key.
  const node::PrivateKey strange = node::PrivateKey::Make();
  ExpectDenied(Enrol(Request(invitation.code(), 7, strange)).status(), "joined already");
  ExpectDenied(Enrol(Request(invitation.code(), 8, strange)).status(), "used already");
  const auto again = EnrolAgain(invitation, 7, key_, key_);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(enrolment_.Admit(Shown(again->chain())).ok());
  // From its first session on the invitation is spent for itself, too.
  ExpectDenied(EnrolAgain(invitation, 7, key_, key_).status(), "used already");
  EXPECT_TRUE(enrolment_.Admit(Shown(again->chain())).ok());
}

TEST_F(EnrolmentTest, AnotherInvitationDoesWhereAnAnswerWasLost) {
  ASSERT_TRUE(Enrol(Invite().code(), 7).ok());
  // Its folder has kept the key that it asked with.
  const auto again = EnrolAgain(Invite(), 7, key_, key_);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(enrolment_.Admit(Shown(again->chain())).ok());
}

TEST_F(EnrolmentTest, UnknownAndExpiredCodesSaySo) {
  ExpectDenied(Enrol("", 7).status(), "not known");
  ExpectDenied(Enrol(std::string(64, '0'), 7).status(), "not known");
  const v1::Invitation invitation = Invite(kInvitationSecondsMin);
  ExpectDenied(Enrol(Request(invitation.code(), 7, key_, "toronto")).status(), "altered");
  hub_.environment.ahead_ms = 1000 * kInvitationSecondsMin;
  ExpectDenied(Enrol(invitation.code(), 7).status(), "past its end");
  // After a month nobody remembers it.
  hub_.environment.ahead_ms = 1000 * (kInvitationKeptSeconds + 2 * kInvitationSecondsMin);
  Invite();
  ExpectDenied(Enrol(invitation.code(), 7).status(), "not known");
}

TEST_F(EnrolmentTest, ANodeJoinsAgainOnlyWithItsOwnKey) {
  const auto joined = Enrol(Invite().code(), 7);
  ASSERT_TRUE(joined.ok());
  ASSERT_TRUE(enrolment_.Admit(Shown(joined->chain())).ok());
  const node::PrivateKey next = node::PrivateKey::Make();
  const node::PrivateKey strange = node::PrivateKey::Make();
  ExpectDenied(Enrol(Invite().code(), 7).status(), "joined already");
  ExpectDenied(EnrolAgain(Invite(), 7, next, strange).status(), "joined already");
  ExpectDenied(EnrolAgain(Invite(kInvitationSecondsMin, "toronto"), 7, next, key_).status(),
               "is of chapter 'italy'");
  // Another request's signature is none of this one's.
  v1::EnrolRequest forged = Request(Invite().code(), 7, strange);
  forged.set_former_key(key_.PublicKey());
  forged.set_former_signature(key_.Sign(next.MakeRequest()));
  ExpectDenied(Enrol(forged).status(), "joined already");
  // Away for longer than its certificate holds.
  hub_.environment.ahead_ms = 1000 * uint64_t{node::kCertificateSeconds};
  ExpectDenied(enrolment_.CheckGoesOn(Shown(7)), "certificate ended");
  ExpectDenied(Renew(Shown(7), joined->chain(), key_, next).status(), "certificate ended");
  const v1::Invitation second = Invite();
  const auto again = EnrolAgain(second, 7, next, key_);
  ASSERT_TRUE(again.ok()) << again.status();
  // From here on only the new key counts, also where its owner has not come yet: what a copy of the
  // folder has begun ends.
  node::CertificateFacts before = Shown(7);
  before.not_after = Shown(again->chain()).not_after;
  ExpectDenied(enrolment_.CheckGoesOn(before), "another certificate");
  EXPECT_TRUE(enrolment_.Admit(Shown(again->chain())).ok());
  ExpectDenied(enrolment_.Admit(before).status(), "another certificate");
  // A former key does for joining, with its certificate; not another node's, nor without it.
  const node::TlsIdentity others = IdentityOf(hub_.authority, Name(8), strange);
  ExpectDenied(EnrolAgain(Invite(), 7, strange, strange, others.chain).status(), "joined already");
  ExpectDenied(EnrolAgain(Invite(), 7, strange, strange, joined->chain()).status(),
               "joined already");
  ExpectDenied(EnrolAgain(Invite(), 7, strange, key_).status(), "joined already");
  const auto third = EnrolAgain(Invite(), 7, strange, key_, joined->chain());
  ASSERT_TRUE(third.ok()) << third.status();
  EXPECT_TRUE(enrolment_.Admit(Shown(third->chain())).ok());
  // No invitation that it has used lets it in a second time.
  ExpectDenied(EnrolAgain(second, 7, next, strange).status(), "used already");
  EXPECT_EQ(enrolment_.ListNodes()->size(), 1u);
}

TEST_F(EnrolmentTest, TheKeyThatARenewalWasAskedWithCountsUntilTheNewOneIsUsed) {
  const auto joined = Enrol(Invite().code(), 7);
  ASSERT_TRUE(joined.ok());
  // The connection shows it to the end, however many come after it.
  const node::CertificateFacts first = Shown(joined->chain());
  const node::PrivateKey second = node::PrivateKey::Make();
  const absl::Status soon = Renew(first, joined->chain(), key_, second).status();
  EXPECT_EQ(soon.code(), absl::StatusCode::kResourceExhausted) << soon;
  uint64_t renewals = 0;
  const auto renew = [&](const std::string& chain, const node::PrivateKey& key,
                         const node::PrivateKey& next) {
    hub_.environment.ahead_ms = ++renewals * 1000 * uint64_t{kRenewSecondsMin};
    const auto renewed = Renew(first, chain, key, next);
    EXPECT_TRUE(renewed.ok()) << renewed.status();
    return renewed.ok() ? renewed->chain() : std::string();
  };
  // Lost twice, the node still has its first key.
  renew(joined->chain(), key_, second);
  const node::PrivateKey third = node::PrivateKey::Make();
  const std::string now = renew(joined->chain(), key_, third);
  EXPECT_EQ(Shown(now).name, Name(7));
  EXPECT_EQ(enrolment_.ListNodes()->front().certificate_end, Shown(now).not_after);
  EXPECT_TRUE(enrolment_.Admit(first).ok());
  EXPECT_TRUE(enrolment_.CheckBegins(Shown(now)).ok());
  ExpectDenied(enrolment_.Admit(Shown(7, second)).status(), "another certificate");
  // From the next one on, which is asked for with the third, the first begins nothing any more;
  // what it has begun goes on. That the answer was lost does no harm, with the third in the folder.
  const node::PrivateKey fourth = node::PrivateKey::Make();
  const std::string last = renew(now, third, fourth);
  EXPECT_TRUE(enrolment_.CheckBegins(Shown(now)).ok());
  EXPECT_TRUE(enrolment_.CheckBegins(Shown(last)).ok());
  ExpectDenied(enrolment_.CheckBegins(first), "another certificate");
  ExpectDenied(enrolment_.Admit(first).status(), "another certificate");
  EXPECT_TRUE(enrolment_.CheckGoesOn(first).ok());
  hub_.environment.ahead_ms = ++renewals * 1000 * uint64_t{kRenewSecondsMin};
  ExpectDenied(Renew(first, joined->chain(), key_, second).status(), "another certificate");
  // Once the latest has begun a session it stands alone: all else is a copy's.
  EXPECT_TRUE(enrolment_.Admit(Shown(last)).ok());
  ExpectDenied(enrolment_.CheckGoesOn(first), "another certificate");
  ExpectDenied(enrolment_.CheckBegins(Shown(now)), "another certificate");
  EXPECT_TRUE(enrolment_.CheckGoesOn(Shown(last)).ok());
  // Also after a restart.
  Enrolment later(*hub_.replica, hub_.environment, "Federation", hub_.authority);
  ExpectDenied(later.CheckBegins(Shown(now)), "another certificate");
  EXPECT_TRUE(later.CheckBegins(Shown(last)).ok());
}

TEST_F(EnrolmentTest, AConnectionThatCountsNoMoreGainsNothingByARenewal) {
  const auto joined = Enrol(Invite().code(), 7);
  ASSERT_TRUE(joined.ok());
  const node::PrivateKey next = node::PrivateKey::Make();
  const auto again = EnrolAgain(Invite(), 7, next, key_);
  ASSERT_TRUE(again.ok()) << again.status();
  hub_.environment.ahead_ms = 1000 * uint64_t{kRenewSecondsMin};
  const node::CertificateFacts first = Shown(joined->chain());
  EXPECT_TRUE(Renew(first, again->chain(), next, node::PrivateKey::Make()).ok());
  ExpectDenied(enrolment_.CheckGoesOn(first), "another certificate");
}

TEST_F(EnrolmentTest, AHubThatWasRestoredKnowsItsOwnCertificatesAgain) {
  const auto joined = Enrol(Invite().code(), 7);
  ASSERT_TRUE(joined.ok());
  ASSERT_TRUE(enrolment_.Admit(Shown(joined->chain())).ok());
  const std::string setting = "node/" + Node(7).ToString();
  const std::string backup = *hub_.replica->GetSetting(setting);
  const node::PrivateKey next = node::PrivateKey::Make();
  hub_.environment.ahead_ms = 1000 * uint64_t{kRenewSecondsMin};
  const auto renewed = Renew(Shown(joined->chain()), joined->chain(), key_, next);
  ASSERT_TRUE(renewed.ok()) << renewed.status();
  ASSERT_TRUE(hub_.replica->PutSetting(setting, backup).ok());
  Enrolment restored(*hub_.replica, hub_.environment, "Federation", hub_.authority);
  // One from before is none: a copy's.
  ExpectDenied(restored.CheckBegins(Shown(7, node::PrivateKey::Make())), "another certificate");
  EXPECT_TRUE(restored.CheckBegins(Shown(renewed->chain())).ok());
  EXPECT_TRUE(restored.CheckGoesOn(Shown(renewed->chain())).ok());
  const auto admitted = restored.Admit(Shown(renewed->chain()));
  ASSERT_TRUE(admitted.ok()) << admitted.status();
  EXPECT_EQ(admitted->certificate_end, Shown(renewed->chain()).not_after);
  // And then it is the only one, as before.
  ExpectDenied(restored.CheckBegins(Shown(joined->chain())), "another certificate");
  Enrolment later(*hub_.replica, hub_.environment, "Federation", hub_.authority);
  EXPECT_TRUE(later.CheckBegins(Shown(renewed->chain())).ok());
  ExpectDenied(later.CheckBegins(Shown(joined->chain())), "another certificate");
}

TEST_F(EnrolmentTest, ACopysKeyStaysOutAlsoWhereTheHubsClockWentBack) {
  hub_.environment.ahead_ms = uint64_t{24} * 3600 * 1000;
  const auto copied = Enrol(Invite().code(), 7);
  ASSERT_TRUE(copied.ok());
  ASSERT_TRUE(enrolment_.Admit(Shown(copied->chain())).ok());
  hub_.environment.ahead_ms = 0;
  ASSERT_TRUE(enrolment_.RevokeNode(Node(7)).ok());
  const node::PrivateKey next = node::PrivateKey::Make();
  const auto again = EnrolAgain(Invite(), 7, next, key_);
  ASSERT_TRUE(again.ok()) << again.status();
  // It ends later than the one that counts.
  ASSERT_GT(Shown(copied->chain()).not_after, Shown(again->chain()).not_after);
  ExpectDenied(enrolment_.CheckBegins(Shown(copied->chain())), "another certificate");
  ExpectDenied(enrolment_.CheckGoesOn(Shown(copied->chain())), "another certificate");
  EXPECT_TRUE(enrolment_.Admit(Shown(again->chain())).ok());
  Enrolment later(*hub_.replica, hub_.environment, "Federation", hub_.authority);
  ExpectDenied(later.CheckBegins(Shown(copied->chain())), "another certificate");
}

TEST_F(EnrolmentTest, ARevocationThatTheDiskDidNotTakeHoldsAndIsTakenTheNextTime) {
  const v1::Invitation sevens = Invite();
  const v1::Invitation open = Invite();
  ASSERT_TRUE(Enrol(sevens.code(), 7).ok());
  hub_.engine.FailNextWrites(1, absl::ResourceExhaustedError("the disk is full"));
  EXPECT_FALSE(enrolment_.RevokeNode(Node(7)).ok());
  ExpectDenied(enrolment_.CheckGoesOn(Shown(7)), "revoked");
  // Nor does an invitation let it in again meanwhile.
  ExpectDenied(EnrolAgain(sevens, 7, key_, key_).status(), "was revoked");
  ExpectDenied(EnrolAgain(open, 7, key_, key_).status(), "was revoked");
  EXPECT_TRUE(Enrolment(*hub_.replica, hub_.environment, "Federation", hub_.authority)
                  .CheckGoesOn(Shown(7))
                  .ok());
  EXPECT_TRUE(enrolment_.RevokeNode(Node(7)).ok());
  Enrolment later(*hub_.replica, hub_.environment, "Federation", hub_.authority);
  ExpectDenied(later.CheckGoesOn(Shown(7)), "revoked");
  ExpectDenied(later.Enrol(Request(sevens.code(), 7, key_), "elsewhere").status(), "was revoked");
}

TEST_F(EnrolmentTest, OnlyACertificateThatHoldsIsRenewedAndOnlyByItsKey) {
  const auto joined = Enrol(Invite().code(), 7);
  ASSERT_TRUE(joined.ok());
  const node::CertificateFacts shown = Shown(joined->chain());
  const node::PrivateKey next = node::PrivateKey::Make();
  const node::PrivateKey strange = node::PrivateKey::Make();
  hub_.environment.ahead_ms = 1000 * uint64_t{kRenewSecondsMin};
  // A copy of the certificate is not the key.
  ExpectDenied(Renew(shown, joined->chain(), strange, next).status(), "not that of the key");
  v1::RenewRequest forged = Renewal(joined->chain(), key_, next);
  forged.set_request(strange.MakeRequest());
  ExpectDenied(enrolment_.Renew(shown, forged).status(), "not that of the key");
  // Another's, or another authority's.
  const auto other = IdentityOf(hub_.authority, Name(8), strange);
  ExpectDenied(Renew(shown, other.chain, strange, next).status(), "to be renewed is of");
  const HubSite elsewhere;
  const auto theirs = IdentityOf(elsewhere.authority, Name(7), strange);
  ExpectDenied(Renew(shown, theirs.chain, strange, next).status(), "does not hold");
  v1::RenewRequest nonsense = Renewal(joined->chain(), key_, next);
  nonsense.set_request("nonsense");
  EXPECT_EQ(enrolment_.Renew(shown, nonsense).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(enrolment_.Renew(shown, {}).ok());
  // Nor one that has ended, though it still counts beside a later one.
  hub_.environment.ahead_ms = 1000 * uint64_t{node::kCertificateSeconds} * 2 / 3;
  const auto renewed = Renew(shown, joined->chain(), key_, next);
  ASSERT_TRUE(renewed.ok()) << renewed.status();
  hub_.environment.ahead_ms = 1000 * uint64_t{node::kCertificateSeconds};
  EXPECT_TRUE(enrolment_.CheckGoesOn(shown).ok());
  ExpectDenied(Renew(shown, joined->chain(), key_, strange).status(), "certificate ended");
  ExpectDenied(enrolment_.Admit(shown).status(), "certificate ended");
  EXPECT_TRUE(Renew(shown, renewed->chain(), next, strange).ok());
}

TEST_F(EnrolmentTest, WhoIsRevokedStaysOutUntilInvitedAnew) {
  const v1::Invitation sevens = Invite();
  const auto seven = Enrol(sevens.code(), 7);
  ASSERT_TRUE(seven.ok());
  ASSERT_TRUE(Enrol(Invite().code(), 8).ok());
  const v1::Invitation before = Invite();
  const v1::Invitation torontos = Invite(kInvitationSecondsMin, "toronto");
  EXPECT_EQ(*enrolment_.RevokeNode(Node(7)), 1u);
  EXPECT_EQ(*enrolment_.RevokeNode(Node(7)), 0u) << "again does no harm";
  EXPECT_EQ(enrolment_.RevokeNode(Node(9)).status().code(), absl::StatusCode::kNotFound);
  ExpectDenied(enrolment_.CheckGoesOn(Shown(7)), "revoked");
  ExpectDenied(enrolment_.Admit(Shown(7)).status(), "revoked");
  ExpectDenied(Renew(Shown(7), seven->chain(), key_, node::PrivateKey::Make()).status(), "revoked");
  EXPECT_TRUE(enrolment_.Admit(Shown(8)).ok());
  // Neither the invitation that it came with, though it was in no session yet, nor one of its
  // chapter that lay about lets it in again, under whichever name.
  ExpectDenied(Enrol(sevens.code(), 7).status(), "revoked");
  const node::PrivateKey next = node::PrivateKey::Make();
  ExpectDenied(EnrolAgain(before, 7, next, key_).status(), "was revoked");
  ExpectDenied(Enrol(before.code(), 9).status(), "was revoked");
  EXPECT_TRUE(Enrol(Request(torontos.code(), 10, key_, "toronto")).ok());
  // Also after a restart.
  Enrolment later(*hub_.replica, hub_.environment, "Federation", hub_.authority);
  ExpectDenied(later.Admit(Shown(7)).status(), "revoked");
  EXPECT_TRUE(later.Admit(Shown(8)).ok());
  // A new one does, and whoever has a copy of its old key stays out.
  const auto again = EnrolAgain(Invite(), 7, next, key_);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(enrolment_.Admit(Shown(again->chain())).ok());
  ExpectDenied(enrolment_.Admit(Shown(seven->chain())).status(), "another certificate");
}

TEST_F(EnrolmentTest, WhatCannotBeReadLetsNobodyIn) {
  const auto joined = Enrol(Invite().code(), 7);
  ASSERT_TRUE(joined.ok());
  const std::string key = "node/" + Node(7).ToString();
  const std::string text = *hub_.replica->GetSetting(key);
  const auto with = [&](const std::string& name, const std::string& other) {
    std::string damaged = text;
    const size_t at = damaged.find('"' + name + "\":");
    EXPECT_NE(at, std::string::npos) << text;
    EXPECT_TRUE(hub_.replica->PutSetting(key, damaged.replace(at + 1, name.size(), other)).ok());
    return Enrolment(*hub_.replica, hub_.environment, "Federation", hub_.authority)
        .CheckBegins(Shown(joined->chain()));
  };
  EXPECT_TRUE(with("name", "name").ok());
  ExpectDenied(with("keys", "?"), "another certificate");
  // Where the end of the latest cannot be read, none is taken for a later one.
  const node::CertificateFacts strange = Shown(7, node::PrivateKey::Make(), 600);
  ExpectDenied(enrolment_.CheckBegins(Shown(7, node::PrivateKey::Make())), "another certificate");
  EXPECT_TRUE(enrolment_.CheckBegins(strange).ok()) << "ends later: the hub was restored";
  EXPECT_TRUE(with("ends_max", "?").ok()) << "its own key counts";
  ExpectDenied(
      Enrolment(*hub_.replica, hub_.environment, "Federation", hub_.authority).CheckBegins(strange),
      "another certificate");
  std::string revoked = text;
  revoked.replace(revoked.find("\"revoked\":0"), 11, "\"revoked\":\"?\"");
  ASSERT_TRUE(hub_.replica->PutSetting(key, revoked).ok());
  ExpectDenied(Enrolment(*hub_.replica, hub_.environment, "Federation", hub_.authority)
                   .CheckGoesOn(Shown(joined->chain())),
               "revoked");
}

TEST_F(EnrolmentTest, AChapterIsRevokedWithItsInvitations) {
  ASSERT_TRUE(Enrol(Invite().code(), 7).ok());
  const v1::Invitation open = Invite();
  const auto torontos =
      Enrol(Request(Invite(kInvitationSecondsMin, "toronto").code(), 9, key_, "toronto"));
  ASSERT_TRUE(torontos.ok());
  const auto revoked = enrolment_.RevokeChapter("italy");
  ASSERT_TRUE(revoked.ok()) << revoked.status();
  EXPECT_EQ(revoked->nodes, std::vector<NodeId>{Node(7)});
  EXPECT_EQ(revoked->invitations, 1u);
  ExpectDenied(enrolment_.CheckGoesOn(Shown(7)), "revoked");
  ExpectDenied(Enrol(open.code(), 8).status(), "was revoked");
  EXPECT_TRUE(enrolment_.CheckGoesOn(Shown(torontos->chain())).ok());
  EXPECT_TRUE(enrolment_.RevokeChapter("italy")->nodes.empty());
  EXPECT_EQ(enrolment_.RevokeChapter("atlantis").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(EnrolmentTest, OpenInvitationsAreListedAndOneIsRevokedAlone) {
  const int64_t now = static_cast<int64_t>(hub_.environment.NowMs() / 1000);
  const v1::Invitation used = Invite();
  ASSERT_TRUE(Enrol(used.code(), 7).ok());
  const auto later = enrolment_.Invite("italy", 7200, "h:1", "ann@hq");
  const v1::Invitation sooner = Invite(kInvitationSecondsMin, "toronto");
  ASSERT_TRUE(later.ok());
  auto open = enrolment_.ListInvitations();
  ASSERT_TRUE(open.ok()) << open.status();
  ASSERT_EQ(open->size(), 2u) << "the used one is no more open";
  EXPECT_EQ(open->at(0).id, InvitationId(sooner.code()));
  EXPECT_EQ(open->at(0).chapter, "toronto");
  EXPECT_EQ(open->at(0).made_by, "");
  EXPECT_EQ(open->at(1).id, InvitationId(later->code()));
  EXPECT_EQ(open->at(1).chapter, "italy");
  EXPECT_EQ(open->at(1).made_by, "ann@hq");
  EXPECT_GE(open->at(1).made, now);
  EXPECT_EQ(open->at(1).end, later->expires());
  for (const OpenInvitation& one : *open) {
    EXPECT_EQ(one.id.size(), kInvitationIdDigits);
    EXPECT_EQ(later->code().find(one.id), std::string::npos) << "an id is no part of the code";
  }

  const auto revoked = enrolment_.RevokeInvitation(open->at(1).id.substr(0, 8));
  ASSERT_TRUE(revoked.ok()) << revoked.status();
  EXPECT_EQ(revoked->chapter, "italy");
  ExpectDenied(Enrol(later->code(), 8).status(), "was revoked");
  open = enrolment_.ListInvitations();
  ASSERT_EQ(open->size(), 1u);
  EXPECT_EQ(open->at(0).chapter, "toronto");
  // What is not open, or nothing, is not revoked; and a code in an id's place is not shown.
  for (const std::string& wrong :
       {revoked->id, InvitationId(used.code()), std::string(), std::string("/"), sooner.code()}) {
    const absl::Status status = enrolment_.RevokeInvitation(wrong).status();
    EXPECT_TRUE(absl::IsNotFound(status)) << status;
    EXPECT_EQ(status.ToString().find(sooner.code()), std::string::npos);
  }
  EXPECT_EQ(enrolment_.ListInvitations()->size(), 1u);
  hub_.environment.ahead_ms = (kInvitationSecondsMin + 1) * 1000;
  EXPECT_TRUE(enrolment_.ListInvitations()->empty()) << "past their end";
}

TEST_F(EnrolmentTest, AnIdThatSeveralInvitationsBeginWithRevokesNone) {
  // Seventeen of them: two begin with the same digit.
  std::map<char, int> first;
  for (int i = 0; i < 17; ++i) ++first[InvitationId(Invite().code())[0]];
  const auto shared =
      std::find_if(first.begin(), first.end(), [](const auto& digit) { return digit.second > 1; });
  ASSERT_NE(shared, first.end());
  const absl::Status status = enrolment_.RevokeInvitation(std::string(1, shared->first)).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_EQ(enrolment_.ListInvitations()->size(), 17u);
}

TEST_F(EnrolmentTest, WhoGuessesWaits) {
  hub_.environment.stands_at_ms = hub_.environment.NowMs();
  const v1::Invitation invitation = Invite();
  const auto try_code = [&](const std::string& code, const std::string& address) {
    return enrolment_.Enrol(Request(code, 7, key_), address).status();
  };
  for (uint32_t i = 0; i <= kGuessesFree; ++i) ExpectDenied(try_code("x", "a"), "not known");
  const absl::Status waits = try_code(invitation.code(), "a");
  EXPECT_EQ(waits.code(), absl::StatusCode::kResourceExhausted) << waits;
  EXPECT_THAT(waits.ToString(), HasSubstr(" s"));
  EXPECT_TRUE(try_code(invitation.code(), "b").ok()) << "others do not wait";
}

TEST_F(EnrolmentTest, InvitationsThatWaitAreBounded) {
  for (size_t i = 0; i < kInvitationsMax; ++i) Invite();
  EXPECT_EQ(enrolment_.Invite("italy", kInvitationSecondsMin, "h:1").status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST_F(EnrolmentTest, OnlyLiveChaptersAreInvited) {
  EXPECT_EQ(enrolment_.Invite("atlantis", 3600, "h:1").status(),
            absl::NotFoundError("there is no chapter 'atlantis'"));
  const node::EntityType* type = *node::BuiltinEntities().GetByNoun("chapters");
  storage::LocalWrite write{.kind = storage::LocalWrite::Kind::kDelete,
                            .key = {type->number, node::NamedId(*type, "italy")},
                            .actor = "hq"};
  ASSERT_TRUE(hub_.replica->Write({write})->front().status.ok());
  EXPECT_EQ(enrolment_.Invite("italy", 3600, "h:1").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(EnrolmentTest, ATimeOrANameOutOfRangeIsRefused) {
  for (const int64_t seconds :
       {int64_t{0}, int64_t{-1}, kInvitationSecondsMin - 1, kInvitationSecondsMax + 1, INT64_MAX}) {
    EXPECT_EQ(enrolment_.Invite("italy", seconds, "h:1").status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  const v1::Invitation invitation = Invite();
  const v1::EnrolRequest right = Request(invitation.code(), 7, key_);
  std::vector<v1::EnrolRequest> wrong(10, right);
  wrong[0].set_node("short");
  wrong[1].set_node(std::string(16, '\0'));
  wrong[2].set_name(std::string(node::kNodeNameBytesMax + 1, 'n'));
  wrong[3].set_request("nonsense");
  wrong[4].set_code(std::string(1000, '0'));
  wrong[5].set_chapter(std::string(1000, 'c'));
  wrong[6].set_name("front\ndesk");
  wrong[7].set_node(node::ToBytes(hub_.options.node));
  wrong[8].set_chapter("italy\nforged");
  wrong[9].set_name("desk~3f2a");
  for (const v1::EnrolRequest& request : wrong) {
    EXPECT_EQ(Enrol(request).status().code(), absl::StatusCode::kInvalidArgument);
  }
  // None of it used the invitation up.
  EXPECT_TRUE(Enrol(right).ok());
}

TEST_F(EnrolmentTest, SecretsAreNotKept) {
  const v1::Invitation invitation = Invite();
  ASSERT_TRUE(Enrol(invitation.code(), 7).ok());
  const auto settings = hub_.replica->ListSettings("");
  ASSERT_TRUE(settings.ok());
  EXPECT_FALSE(settings->empty());
  for (const auto& [key, value] : *settings) {
    for (const std::string& text : {key, value}) {
      EXPECT_EQ(text.find(invitation.code()), std::string::npos) << key;
      EXPECT_EQ(text.find("PRIVATE"), std::string::npos) << key;
    }
  }
}

TEST_F(EnrolmentTest, ServedOverTheNetwork) {
  HubServer server(hub_);
  const auto stub_of = [&](const node::TlsIdentity& identity) {
    return v1::EnrolmentService::NewStub(
        grpc::CreateChannel(server.address().ToString(), CredentialsOf(identity)));
  };
  const node::TlsIdentity nobody{.key = "", .chain = "", .authority = hub_.authority_pem()};
  const auto stub = stub_of(nobody);
  v1::EnrolResponse response;
  {
    grpc::ClientContext context;
    const grpc::Status status =
        node::SendOneRequest(stub->Enrol(&context, &response), Request("wrong", 7, key_));
    EXPECT_EQ(status.error_code(), grpc::StatusCode::PERMISSION_DENIED);
    EXPECT_THAT(status.error_message(), HasSubstr("not known"));
  }
  {
    grpc::ClientContext context;
    ASSERT_TRUE(
        node::SendOneRequest(stub->Enrol(&context, &response), Request(Invite().code(), 7, key_))
            .ok());
    EXPECT_EQ(response.chapter(), "italy");
  }
  const v1::RenewRequest renew = Renewal(response.chain(), key_, node::PrivateKey::Make());
  v1::RenewResponse renewed;
  {
    grpc::ClientContext context;
    EXPECT_EQ(node::SendOneRequest(stub->Renew(&context, &renewed), renew).error_code(),
              grpc::StatusCode::UNAUTHENTICATED);
  }
  hub_.environment.ahead_ms = 1000 * uint64_t{kRenewSecondsMin};
  grpc::ClientContext context;
  const auto known =
      stub_of({.key = key_.ToPem(), .chain = response.chain(), .authority = hub_.authority_pem()});
  const grpc::Status status = node::SendOneRequest(known->Renew(&context, &renewed), renew);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(node::ReadCertificate(renewed.chain())->name, Name(7));
}

TEST_F(EnrolmentTest, WhoSendsNothingIsHungUpOn) {
  // Without a certificate a call could stay open for ever, and its connection with it.
  HubServer server(hub_, {}, nullptr, node::kCertificateSeconds, /*call_ms_max=*/100);
  const node::TlsIdentity nobody{.key = "", .chain = "", .authority = hub_.authority_pem()};
  const auto stub = v1::EnrolmentService::NewStub(
      grpc::CreateChannel(server.address().ToString(), CredentialsOf(nobody)));
  v1::EnrolResponse response;
  grpc::ClientContext context;
  const auto call = stub->Enrol(&context, &response);
  call->WaitForInitialMetadata();  // until the hub ends it
  EXPECT_EQ(call->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(EnrolmentTest, ALongRequestIsNotLookedAt) {
  HubServer server(hub_);
  const node::TlsIdentity nobody{.key = "", .chain = "", .authority = hub_.authority_pem()};
  const auto stub = v1::EnrolmentService::NewStub(
      grpc::CreateChannel(server.address().ToString(), CredentialsOf(nobody)));
  v1::EnrolResponse response;
  grpc::ClientContext again;
  v1::EnrolRequest request = Request(Invite().code(), 7, key_);
  request.set_name(std::string(kEnrolmentBytesMax, 'n'));
  EXPECT_EQ(node::SendOneRequest(stub->Enrol(&again, &response), request).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST(RefusalLogTest, OneAMinuteOfAnAddressIsTold) {
  RefusalLog log;
  EXPECT_TRUE(log.Say("a", 0));
  EXPECT_FALSE(log.Say("a", kRefusalEveryMs - 1));
  EXPECT_TRUE(log.Say("b", 1));
  EXPECT_TRUE(log.Say("a", kRefusalEveryMs));
  // However many addresses there are.
  size_t told = 0;
  for (int i = 0; i < 100'000; ++i) told += log.Say(std::to_string(i), kRefusalEveryMs);
  EXPECT_LE(told, 2 * kRefusedAddressesMax);
}

TEST(GuessLimiterTest, EachWrongTryDoublesTheWait) {
  GuessLimiter limiter;
  for (uint32_t i = 0; i < kGuessesFree; ++i) limiter.Wrong("a", 1000);
  EXPECT_EQ(limiter.WaitMs("a", 1000), 0);
  limiter.Wrong("a", 1000);
  EXPECT_EQ(limiter.WaitMs("a", 1000), kGuessWaitMsMin);
  EXPECT_EQ(limiter.WaitMs("a", 1000 + kGuessWaitMsMin), 0);
  limiter.Wrong("a", 3000);
  EXPECT_EQ(limiter.WaitMs("a", 3000), 2 * kGuessWaitMsMin);
  for (int i = 0; i < 100; ++i) limiter.Wrong("a", 4000);
  EXPECT_EQ(limiter.WaitMs("a", 4000), kGuessWaitMsMax);
  EXPECT_EQ(limiter.WaitMs("b", 4000), 0);
  // Forgotten after an hour.
  limiter.Wrong("a", 4001 + kGuessForgottenMs);
  EXPECT_EQ(limiter.WaitMs("a", 4001 + kGuessForgottenMs), 0);
}

TEST(GuessLimiterTest, AClockThatIsPutBackLocksNobodyOut) {
  GuessLimiter limiter;
  for (uint32_t i = 0; i <= kGuessesFree; ++i) limiter.Wrong("a", 1'000'000);
  EXPECT_GT(limiter.WaitMs("a", 1'000'000), 0);
  EXPECT_EQ(limiter.WaitMs("a", 1'000), 0);
}

TEST(GuessLimiterTest, AddressesAreBoundedAndTheOldestGoes) {
  GuessLimiter limiter;
  for (size_t i = 0; i < 2 * kGuessersMax; ++i) {
    for (uint32_t j = 0; j <= kGuessesFree; ++j) limiter.Wrong(std::to_string(i), 1);
  }
  EXPECT_EQ(limiter.size(), kGuessersMax);
  EXPECT_EQ(limiter.WaitMs("0", 1), 0);
  EXPECT_EQ(limiter.WaitMs(std::to_string(2 * kGuessersMax - 1), 1), kGuessWaitMsMin);
}

TEST(GuessLimiterTest, ASiteIsOneGuesser) {
  EXPECT_EQ(GuesserOf("ipv4:192.0.2.7:4711"), "ipv4:192.0.2.7");
  EXPECT_EQ(GuesserOf("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:4711"), "ipv6:2001:db8:1:2::/64");
  EXPECT_EQ(GuesserOf("ipv6:[2001:db8:1:2::9]:1"), "ipv6:2001:db8:1:2::/64");
  EXPECT_EQ(GuesserOf("ipv6:%5Bfe80::1%25eth0%5D:1"), "ipv6:fe80::/64");
  EXPECT_EQ(GuesserOf("unix:"), "unix");
}

}  // namespace
}  // namespace chaptersync::hub
