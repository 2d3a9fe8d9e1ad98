// SPDX-License-Identifier: Apache-2.0
//
// A new key with each certificate: what was copied of the folder before is worth nothing once the
// new one has begun a session.
#include "node/sync/renewer.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include <spdlog/spdlog.h>

#include "storage/core/status.h"

namespace chaptersync::node {

Renewer::Renewer(RenewerSeams seams) : seams_(std::move(seams)) {}

Renewer::~Renewer() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  waker_.Wake();
  if (thread_.joinable()) thread_.join();
}

void Renewer::Start() {
  thread_ = std::thread([this] { Run(); });
}

absl::StatusOr<bool> Renewer::RenewIfDue() {
  const int64_t now = seams_.now();
  if ((due_ != 0 && now < due_) || !seams_.ready()) return false;
  CHAPTER_ASSIGN_OR_RETURN(const TlsIdentity identity, seams_.load());
  CHAPTER_ASSIGN_OR_RETURN(const CertificateFacts facts, ReadCertificate(identity.chain));
  due_ = facts.renew_from();
  if (now < due_) return false;
  const PrivateKey key = PrivateKey::Make();
  CHAPTER_ASSIGN_OR_RETURN(const Renewal renewal, MakeRenewal(identity, key));
  CHAPTER_ASSIGN_OR_RETURN(const std::string chain, seams_.certify(renewal));
  CHAPTER_RETURN_IF_ERROR(CheckKeyOf(chain, key));
  CHAPTER_ASSIGN_OR_RETURN(const CertificateFacts renewed, ReadCertificate(chain));
  if (renewed.name != facts.name) {
    return absl::PermissionDeniedError(absl::StrCat(
        "the new certificate is for ", renewed.name.ToUri(), ", not for ", facts.name.ToUri()));
  }
  CHAPTER_RETURN_IF_ERROR(seams_.store(key, chain));
  due_ = renewed.renew_from();
  end_ = renewed.not_after;
  return true;
}

std::string Renewer::Warning() {
  const int64_t now = seams_.now();
  if (began_ == 0) began_ = now;
  if (end_ == 0) {
    // That it cannot be read a renewal tells.
    const auto identity = seams_.load();
    if (!identity.ok()) return "";
    const auto facts = ReadCertificate(identity->chain);
    if (!facts.ok()) return "";
    end_ = facts->not_after;
  }
  if (now - began_ < kWarnAfterSeconds) return "";
  if (warned_ != 0 && now >= warned_ && now - warned_ < kWarnEverySeconds) return "";
  std::string warning = EndWarning(end_, now);
  if (!warning.empty()) warned_ = now;
  return warning;
}

void Renewer::Run() {
  std::string last_error;
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      if (stopping_) return;
    }
    const auto renewed = RenewIfDue();
    if (!renewed.ok()) {
      // The same news is no news.
      std::string error = renewed.status().ToString();
      if (error != last_error) spdlog::warn("the certificate was not renewed: {}", error);
      last_error = std::move(error);
    } else {
      last_error.clear();
      if (*renewed) spdlog::info("this computer has a new certificate");
    }
    if (seams_.warns) {
      if (const std::string warning = Warning(); !warning.empty()) spdlog::warn("{}", warning);
    }
    waker_.WaitFor(renewed.ok() ? kRenewLookMs : seams_.again_ms);
  }
}

}  // namespace chaptersync::node
