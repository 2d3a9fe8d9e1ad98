// SPDX-License-Identifier: Apache-2.0
//
// Certificates say what was asked of the authority and nothing that was asked by the
// request; what is damaged or foreign is refused, and time is only read.
#include "node/trust/certificate.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "node/trust/identity.h"

namespace chaptersync::node {
namespace {

using testing::HasSubstr;

constexpr int64_t kNow = 1'700'000'000;

class CertificateTest : public testing::Test {
 protected:
  CertifiedName Name(const std::string& chapter = "italy") const {
    CertifiedName name{.federation = authority_.federation(), .chapter = chapter, .node = {}};
    name.node.bytes[15] = 7;
    return name;
  }
  std::string Chain(const CertifiedName& name, int64_t now = kNow) const {
    const auto chain = authority_.Certify(key_.MakeRequest(), name, now);
    EXPECT_TRUE(chain.ok()) << chain.status();
    return chain.ok() ? *chain : "";
  }
  template <typename Checked>
  static void ExpectDenied(const absl::StatusOr<Checked>& checked, const std::string& why) {
    EXPECT_EQ(checked.status().code(), absl::StatusCode::kPermissionDenied);
    EXPECT_THAT(checked.status().ToString(), HasSubstr(why));
  }

  const Authority authority_ = Authority::Make("Alumni Association", kNow);
  const PrivateKey key_ = PrivateKey::Make();
};

TEST_F(CertificateTest, NamesAreReadAsTheyAreWritten) {
  const CertifiedName node = Name();
  EXPECT_EQ(node.ToUri(), "spiffe://" + authority_.federation() +
                              "/chapter/italy/node/00000000000000000000000000000007");
  EXPECT_EQ(*ParseCertifiedName(node.ToUri()), node);
  const CertifiedName hub = Name("");
  EXPECT_EQ(hub.ToUri(),
            "spiffe://" + authority_.federation() + "/hub/00000000000000000000000000000007");
  EXPECT_EQ(*ParseCertifiedName(hub.ToUri()), hub);
}

TEST_F(CertificateTest, OtherNamesAreRefused) {
  const std::string f = authority_.federation();
  const std::string n(32, '7');
  for (const std::string& uri :
       {std::string(), std::string("spiffe://"), "spiffe://" + f, "spiffe://" + f + "/hub/",
        "spiffe://" + f + "/hub/" + n + "/more", "spiffe://" + f + "/hub/" + std::string(32, '0'),
        "spiffe://" + f + "/hub/" + std::string(32, 'G'), "spiffe://" + f + "/chapter//node/" + n,
        "spiffe://" + f + "/chapter/It/node/" + n, "spiffe://" + f + "/chapter/a b/node/" + n,
        "spiffe://" + f + "/chapter/a/../node/" + n, "spiffe://" + f + "/chapter/italy/knot/" + n,
        "spiffe://other.example/hub/" + n, "https://" + f + "/hub/" + n,
        "spiffe://" + f + "/chapter/" + std::string(65, 'a') + "/node/" + n}) {
    EXPECT_EQ(ParseCertifiedName(uri).status().code(), absl::StatusCode::kInvalidArgument) << uri;
  }
}

TEST_F(CertificateTest, ACertificateSaysWhatTheAuthorityDecided) {
  const std::string chain = Chain(Name());
  const auto facts = ReadCertificate(chain);
  ASSERT_TRUE(facts.ok()) << facts.status();
  EXPECT_EQ(facts->name, Name());
  EXPECT_EQ(facts->not_before, kNow - kBackdatedSeconds);
  EXPECT_EQ(facts->not_after, kNow + kCertificateSeconds);
  EXPECT_EQ(facts->renew_from(), kNow + kCertificateSeconds * 2 / 3);
  EXPECT_TRUE(CheckKeyOf(chain, key_).ok());
  EXPECT_FALSE(CheckKeyOf(chain, PrivateKey::Make()).ok());
  EXPECT_EQ(*FederationOf(authority_.certificate_pem()), authority_.federation());
  EXPECT_EQ(*FingerprintOf(authority_.certificate_pem()), authority_.fingerprint());
  EXPECT_NE(*FingerprintOf(chain), authority_.fingerprint());
  EXPECT_NE(Authority::Make("Alumni Association", kNow).federation(), authority_.federation());
}

TEST_F(CertificateTest, RequestsThatAreNoneAreRefused) {
  const std::string request = key_.MakeRequest();
  std::string forged = request;
  forged.back() = static_cast<char>(forged.back() ^ 1);  // in the signature
  for (const std::string& bad : {std::string(), std::string("nonsense"), request + "x",
                                 request.substr(1), forged, std::string(kPemBytesMax + 1, 'x')}) {
    EXPECT_EQ(authority_.Certify(bad, Name(), kNow).status().code(),
              absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(KeyHashOfRequest(bad).status().code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(*KeyHashOfRequest(request), *KeyHashOfRequest(key_.MakeRequest()));
  EXPECT_NE(*KeyHashOfRequest(request), *KeyHashOfRequest(PrivateKey::Make().MakeRequest()));
}

TEST_F(CertificateTest, ASignatureIsOneKeysAndOneTexts) {
  const std::string signature = key_.Sign("text");
  const auto hash = CheckSignature(key_.PublicKey(), "text", signature);
  ASSERT_TRUE(hash.ok()) << hash.status();
  EXPECT_EQ(*hash, *KeyHashOfRequest(key_.MakeRequest()));
  EXPECT_EQ(*hash, ReadCertificate(Chain(Name()))->key_hash);
  for (const std::string& bad :
       {std::string(), signature.substr(1), PrivateKey::Make().Sign("text"), key_.Sign("texts"),
        std::string(100, 'x')}) {
    EXPECT_EQ(CheckSignature(key_.PublicKey(), "text", bad).status().code(),
              absl::StatusCode::kPermissionDenied);
  }
  for (const std::string& bad : {std::string(), std::string("x"), key_.PublicKey().substr(1)}) {
    EXPECT_EQ(CheckSignature(bad, "text", signature).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST_F(CertificateTest, WhatIsNoNameIsNotCertified) {
  CertifiedName bad = Name();
  bad.chapter = "italy,URI:spiffe://x";
  EXPECT_EQ(authority_.Certify(key_.MakeRequest(), bad, kNow).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(CertificateTest, KeysAndAuthoritiesAreReadBack) {
  const auto key = PrivateKey::FromPem(key_.ToPem());
  ASSERT_TRUE(key.ok()) << key.status();
  EXPECT_TRUE(CheckKeyOf(Chain(Name()), *key).ok());
  const auto authority = Authority::FromPem(authority_.key().ToPem(), authority_.certificate_pem());
  ASSERT_TRUE(authority.ok()) << authority.status();
  EXPECT_EQ(authority->fingerprint(), authority_.fingerprint());
  EXPECT_FALSE(PrivateKey::FromPem("").ok());
  EXPECT_FALSE(PrivateKey::FromPem(authority_.certificate_pem()).ok());
  EXPECT_FALSE(Authority::FromPem(key_.ToPem(), authority_.certificate_pem()).ok());
  EXPECT_FALSE(Authority::FromPem(key_.ToPem(), Chain(Name())).ok()) << "makes no certificates";
}

TEST_F(CertificateTest, APeerIsWhoItsAuthoritySays) {
  const auto facts = CheckChain(Chain(Name()), authority_.certificate_pem());
  ASSERT_TRUE(facts.ok()) << facts.status();
  EXPECT_EQ(facts->name, Name());
  // Long ago or not yet: that is for who has a clock to say.
  for (const int64_t now : {int64_t{0}, kNow + 10 * kCertificateSeconds}) {
    EXPECT_EQ(CheckChain(Chain(Name(), now), authority_.certificate_pem())->not_after,
              now + kCertificateSeconds);
  }
  const Authority other = Authority::Make("Alumni Association", kNow);
  ExpectDenied(CheckChain(Chain(Name()), other.certificate_pem()), "does not hold");
  ExpectDenied(CheckChain("", authority_.certificate_pem()), "no certificate");
  // The authority itself is nobody, and another's name is not its to give.
  ExpectDenied(CheckChain(authority_.certificate_pem(), authority_.certificate_pem()), "nobody");
  CertifiedName foreign = Name();
  foreign.federation = other.federation();
  ExpectDenied(CheckChain(Chain(foreign), authority_.certificate_pem()), "nobody");
  // Nor does a certificate make others.
  const Authority node = *Authority::FromPem(other.key().ToPem(), other.certificate_pem());
  const std::string made = *node.Certify(key_.MakeRequest(), Name(), kNow);
  ExpectDenied(CheckChain(made + Chain(Name()), authority_.certificate_pem()), "does not hold");
}

TEST_F(CertificateTest, TheHubOfAnInvitationIsFoundByItsAuthority) {
  const std::string chain = Chain(Name(""));
  const auto found = CheckPinned(chain, authority_.fingerprint());
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(*found, authority_.certificate_pem());
  ExpectDenied(CheckPinned("", authority_.fingerprint()), "no certificate");
  ExpectDenied(CheckPinned(chain, std::string(64, '0')), "another federation");
  ExpectDenied(CheckPinned(Chain(Name()), authority_.fingerprint()), "not a hub");
  ExpectDenied(CheckPinned(authority_.certificate_pem(), authority_.fingerprint()), "nobody");
  // The right authority's certificate, shown by one whom it has not certified.
  const Authority other = Authority::Make("Alumni Association", kNow);
  const std::string foreign = *other.Certify(key_.MakeRequest(), Name(""), kNow);
  const std::string leaf = foreign.substr(0, foreign.find("-----BEGIN", 1));
  ExpectDenied(CheckPinned(leaf + authority_.certificate_pem(), authority_.fingerprint()),
               "does not hold");
}

TEST_F(CertificateTest, AnIdentityIsWhole) {
  const std::string chain = Chain(Name());
  const std::string text = IdentityText(key_, chain);
  const auto identity = ParseIdentity(text, authority_.certificate_pem());
  ASSERT_TRUE(identity.ok()) << identity.status();
  EXPECT_EQ(identity->key, key_.ToPem());
  EXPECT_EQ(identity->chain, chain);
  EXPECT_FALSE(ParseIdentity(chain, authority_.certificate_pem()).ok());
  EXPECT_FALSE(ParseIdentity(key_.ToPem(), authority_.certificate_pem()).ok());
  EXPECT_FALSE(ParseIdentity(text, Authority::Make("Other", kNow).certificate_pem()).ok());
}

}  // namespace
}  // namespace chaptersync::node
