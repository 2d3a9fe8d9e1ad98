// SPDX-License-Identifier: Apache-2.0
//
// When a certificate is renewed, by the hub's clock whatever this computer's own says, and what
// becomes of a failed try.
#include "node/sync/renewer.h"

#include <string>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chaptersync::node {
namespace {

constexpr int64_t kMade = 1'700'000'000;
constexpr int64_t kTwoThirds = kMade + kCertificateSeconds * 2 / 3;

class RenewerTest : public testing::Test {
 protected:
  RenewerTest() { Give(PrivateKey::Make()); }

  void Give(const PrivateKey& key) {
    identity_ = {.key = key.ToPem(),
                 .chain = *authority_.Certify(key.MakeRequest(), name_, kMade),
                 .authority = authority_.certificate_pem()};
  }

  const Authority authority_ = Authority::Make("Federation", kMade);
  CertifiedName name_{
      .federation = authority_.federation(), .chapter = "italy", .node = {{1, 2, 3}}};
  TlsIdentity identity_;
  int64_t now_ = kMade;
  int asked_ = 0;
  absl::Status answer_;       // OK: a certificate
  CertifiedName to_ = name_;  // for whom
  absl::Status disk_;
  bool ready_ = true;
  Renewer renewer_{{.now = [this] { return now_; },
                    .load = [this]() -> absl::StatusOr<TlsIdentity> { return identity_; },
                    .store =
                        [this](const PrivateKey& key, const std::string& chain) {
                          if (!disk_.ok()) return disk_;
                          identity_.key = key.ToPem();
                          identity_.chain = chain;
                          return absl::OkStatus();
                        },
                    .ready = [this] { return ready_; },
                    .certify = [this](const Renewal& renewal) -> absl::StatusOr<std::string> {
                      ++asked_;
                      if (!answer_.ok()) return answer_;
                      EXPECT_EQ(renewal.chain, identity_.chain);
                      EXPECT_TRUE(
                          CheckSignedBy(renewal.chain, renewal.request, renewal.signature).ok());
                      return authority_.Certify(renewal.request, to_, now_);
                    }}};
};

TEST_F(RenewerTest, ANewKeyAndCertificateAtTwoThirds) {
  const TlsIdentity before = identity_;
  now_ = kTwoThirds - 1;
  EXPECT_EQ(*renewer_.RenewIfDue(), false);
  EXPECT_EQ(asked_, 0);
  now_ = kTwoThirds;
  EXPECT_EQ(*renewer_.RenewIfDue(), true);
  EXPECT_NE(identity_.key, before.key);
  EXPECT_EQ(ReadCertificate(identity_.chain)->not_after, now_ + kCertificateSeconds);
  EXPECT_EQ(*renewer_.RenewIfDue(), false);
  now_ += kCertificateSeconds * 2 / 3;
  EXPECT_EQ(*renewer_.RenewIfDue(), true);
  EXPECT_EQ(asked_, 2);
}

TEST_F(RenewerTest, AFailedTryIsMadeAgain) {
  const TlsIdentity before = identity_;
  now_ = kTwoThirds;
  ready_ = false;
  EXPECT_EQ(*renewer_.RenewIfDue(), false);
  EXPECT_EQ(asked_, 0);
  ready_ = true;
  answer_ = absl::UnavailableError("no line");
  EXPECT_EQ(renewer_.RenewIfDue().status(), answer_);
  answer_ = absl::OkStatus();
  disk_ = absl::ResourceExhaustedError("the disk is full");
  EXPECT_EQ(renewer_.RenewIfDue().status(), disk_);
  EXPECT_EQ(identity_.chain, before.chain);
  EXPECT_EQ(identity_.key, before.key);
  disk_ = absl::OkStatus();
  EXPECT_EQ(*renewer_.RenewIfDue(), true);
}

TEST_F(RenewerTest, AnotherCertificateThanWasAskedForIsNotTaken) {
  const TlsIdentity before = identity_;
  now_ = kTwoThirds;
  to_.chapter = "toronto";
  const auto renewed = renewer_.RenewIfDue();
  EXPECT_EQ(renewed.status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(renewed.status().ToString(), testing::HasSubstr("toronto"));
  EXPECT_EQ(identity_.chain, before.chain);
}

TEST_F(RenewerTest, TheLastTwoWeeksAreWarnedOfOnceADay) {
  constexpr int64_t kDay = 24 * 3600;
  const int64_t end = ReadCertificate(identity_.chain)->not_after;
  now_ = end - kEndWarningSeconds - 1;
  EXPECT_EQ(renewer_.Warning(), "") << "in the first minute";
  now_ += 1;
  EXPECT_EQ(renewer_.Warning(), "") << "in the first minute";
  now_ += kWarnAfterSeconds;
  EXPECT_THAT(renewer_.Warning(), testing::HasSubstr("ends on 2024-02-12 22:13 UTC"));
  now_ += kDay - 1;
  EXPECT_EQ(renewer_.Warning(), "");
  now_ += 1;
  EXPECT_THAT(renewer_.Warning(), testing::HasSubstr("was not renewed"));
  now_ = end;
  EXPECT_THAT(renewer_.Warning(), testing::HasSubstr("new invitation"));
  now_ = end - kDay;
  EXPECT_EQ(*renewer_.RenewIfDue(), true);
  now_ = end + kDay;
  EXPECT_EQ(renewer_.Warning(), "");
}

TEST_F(RenewerTest, AClockThatWasWrongForAWhileDoesNoHarm) {
  // Before the hub's clock was known this computer's own was two years ahead.
  now_ = kMade + 2 * 365 * 24 * 3600;
  answer_ = absl::UnavailableError("no line");
  EXPECT_FALSE(renewer_.RenewIfDue().ok());
  answer_ = absl::OkStatus();
  now_ = kMade + 3600;
  EXPECT_EQ(*renewer_.RenewIfDue(), false);
  EXPECT_EQ(asked_, 1);
}

}  // namespace
}  // namespace chaptersync::node
