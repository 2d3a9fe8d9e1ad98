// SPDX-License-Identifier: Apache-2.0
//
// Invitations and nodes in the replica's settings, as JSON; of codes and keys only their
// hashes:
//
//   invitation/<SHA-256 of code>  chapter, made (seconds), made_by, expires (seconds), used_by,
//                                 revoked (seconds)
//   node/<id>                     chapter, name, joined_ms, code, met, keys (that count),
//                                 certificate_end, ends_max, revoked (seconds)
#include "hub/enrolment.h"

#include <algorithm>
#include <limits>
#include <tuple>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include <nlohmann/json.hpp>
#include <openssl/rand.h>

#include "node/entity/ids.h"
#include "node/entity/node_names.h"
#include "node/entity/registry.h"
#include "node/entity/text.h"
#include "node/session/wire.h"
#include "storage/core/digest.h"
#include "storage/core/status.h"

namespace chaptersync::hub {
namespace {

using nlohmann::json;
using storage::NodeId;

constexpr char kInvitationPrefix[] = "invitation/";
constexpr char kNodePrefix[] = "node/";
constexpr size_t kSecretBytes = 32;
constexpr size_t kCodeBytesMax = 128;
constexpr size_t kChapterBytesMax = 64;
std::string Hex(const std::string& bytes) { return absl::BytesToHexString(bytes); }

std::string RandomBytes() {
  std::string bytes(kSecretBytes, '\0');
  CHAPTER_CHECK(RAND_bytes(reinterpret_cast<unsigned char*>(bytes.data()),
                           static_cast<int>(bytes.size())) == 1);
  return bytes;
}

// What this file wrote. DATA_LOSS where it is no JSON object any more.
absl::StatusOr<json> ParseJson(const std::string& key, const std::string& text) {
  json value = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!value.is_object()) {
    return absl::DataLossError(absl::StrCat("the setting '", key, "' cannot be read"));
  }
  return value;
}

std::string TextOfJson(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string TextOf(const json& value, const char* name) {
  const auto it = value.find(name);
  return it != value.end() && it->is_string() ? it->get<std::string>() : std::string();
}

int64_t NumberOf(const json& value, const char* name) {
  const auto it = value.find(name);
  return it != value.end() && it->is_number_integer() ? it->get<int64_t>() : 0;
}

// When something was revoked; 0: it was not. What cannot be read was.
int64_t RevokedOf(const json& value) {
  const auto it = value.find("revoked");
  if (it == value.end()) return 0;
  return it->is_number_integer() ? it->get<int64_t>() : 1;
}

// An invitation that can still be used.
bool IsOpen(const json& value, int64_t now_seconds) {
  return NumberOf(value, "expires") > now_seconds && TextOf(value, "used_by").empty() &&
         RevokedOf(value) == 0;
}

std::vector<std::string> ListOf(const json& value, const char* name) {
  std::vector<std::string> list;
  const auto it = value.find(name);
  if (it == value.end() || !it->is_array()) return list;
  for (const json& text : *it) {
    if (text.is_string()) list.push_back(text.get<std::string>());
  }
  return list;
}

bool Contains(const std::vector<std::string>& list, const std::string& text) {
  return std::find(list.begin(), list.end(), text) != list.end();
}

bool IsPlain(const std::string& name) {
  return std::none_of(name.begin(), name.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte < ' ' || byte == 0x7f;
  });
}

std::string NodeKey(const NodeId& node) { return kNodePrefix + node.ToString(); }

absl::Status PastItsEnd(int64_t end) {
  return absl::PermissionDeniedError(absl::StrCat(
      "this computer's certificate ended on ",
      absl::FormatTime("%Y-%m-%d %H:%M:%S UTC", absl::FromUnixSeconds(end), absl::UTCTimeZone()),
      "; ask headquarters for an invitation, stop this program, and run `chapter-node join` with "
      "it "
      "on the same folder: nothing that was written here is lost"));
}

}  // namespace

std::string InvitationId(const std::string& code) {
  return Hex(storage::Sha256(code)).substr(0, kInvitationIdDigits);
}

Enrolment::Enrolment(storage::Replica& replica, storage::Environment& environment,
                     std::string federation, node::Authority authority, int64_t certificate_seconds)
    : replica_(replica),
      environment_(environment),
      federation_(std::move(federation)),
      authority_(std::move(authority)),
      certificate_seconds_(certificate_seconds) {
  absl::MutexLock lock(&known_mutex_);
  loaded_ = Load();
}

absl::StatusOr<Enrolment::Known> Enrolment::Decode(const std::string& key,
                                                   const std::string& text) {
  CHAPTER_ASSIGN_OR_RETURN(const json value, ParseJson(key, text));
  CHAPTER_ASSIGN_OR_RETURN(
      const NodeId node,
      node::NodeIdFromBytes(absl::HexStringToBytes(key.substr(sizeof(kNodePrefix) - 1))));
  return Known{.facts = {.node = node,
                         .chapter = TextOf(value, "chapter"),
                         .name = TextOf(value, "name"),
                         .joined_ms = static_cast<uint64_t>(NumberOf(value, "joined_ms")),
                         .certificate_end = NumberOf(value, "certificate_end"),
                         .revoked = RevokedOf(value)},
               .code = TextOf(value, "code"),
               .met = NumberOf(value, "met") != 0,
               .keys = ListOf(value, "keys"),
               // Where that cannot be read no certificate is taken for a later one.
               .ends_max = value.contains("ends_max") && value["ends_max"].is_number_integer()
                               ? NumberOf(value, "ends_max")
                               : std::numeric_limits<int64_t>::max(),
               .renewed_over = ""};
}

std::string Enrolment::Encode(const Known& known) {
  return TextOfJson({{"chapter", known.facts.chapter},
                     {"name", known.facts.name},
                     {"joined_ms", known.facts.joined_ms},
                     {"code", known.code},
                     {"met", known.met ? 1 : 0},
                     {"keys", known.keys},
                     {"certificate_end", known.facts.certificate_end},
                     {"ends_max", known.ends_max},
                     {"revoked", known.facts.revoked}});
}

absl::Status Enrolment::Load() {
  CHAPTER_ASSIGN_OR_RETURN(const auto settings, replica_.ListSettings(kNodePrefix));
  for (const auto& [key, text] : settings) {
    CHAPTER_ASSIGN_OR_RETURN(Known known, Decode(key, text));
    known_[known.facts.node] = std::move(known);
  }
  return absl::OkStatus();
}

absl::Status Enrolment::Keep(const Known& known, Changes changes) {
  changes[NodeKey(known.facts.node)] = Encode(known);
  CHAPTER_RETURN_IF_ERROR(replica_.PutSettings(changes));
  absl::MutexLock lock(&known_mutex_);
  known_[known.facts.node] = known;
  return absl::OkStatus();
}

node::CertifiedName Enrolment::NameOf(const NodeId& node, const std::string& chapter) const {
  return {.federation = authority_.federation(), .chapter = chapter, .node = node};
}

int64_t Enrolment::NowSeconds() const { return static_cast<int64_t>(environment_.NowMs() / 1000); }

absl::StatusOr<v1::Invitation> Enrolment::Invite(const std::string& chapter, int64_t valid_seconds,
                                                 const std::string& hub,
                                                 const std::string& made_by) {
  if (valid_seconds < kInvitationSecondsMin || valid_seconds > kInvitationSecondsMax) {
    return absl::InvalidArgumentError(absl::StrCat("an invitation cannot hold for ", valid_seconds,
                                                   " s (", kInvitationSecondsMin, " s to ",
                                                   kInvitationSecondsMax / (24 * 3600), " days)"));
  }
  CHAPTER_ASSIGN_OR_RETURN(const node::EntityType* type,
                           node::BuiltinEntities().GetByNoun("chapters"));
  const auto held = replica_.Read({type->number, node::NamedId(*type, chapter)});
  if (!held.ok() && !absl::IsNotFound(held.status())) return held.status();
  if (!held.ok() || !held->record.live()) {
    return absl::NotFoundError(absl::StrCat("there is no chapter '", chapter, "'"));
  }
  const int64_t now = NowSeconds();
  const std::string code = Hex(RandomBytes());
  absl::MutexLock lock(&mutex_);
  CHAPTER_ASSIGN_OR_RETURN(const size_t open, ForgetSpent(now));
  if (open >= kInvitationsMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat(open, " invitations wait to be used, which is the most there may be"));
  }
  CHAPTER_RETURN_IF_ERROR(replica_.PutSetting(kInvitationPrefix + Hex(storage::Sha256(code)),
                                              TextOfJson({{"chapter", chapter},
                                                          {"made", now},
                                                          {"made_by", made_by},
                                                          {"expires", now + valid_seconds},
                                                          {"used_by", ""},
                                                          {"revoked", 0}})));
  v1::Invitation invitation;
  invitation.set_version(1);
  invitation.set_hub(hub);
  invitation.set_chapter(chapter);
  invitation.set_code(code);
  invitation.set_expires(now + valid_seconds);
  invitation.set_federation(federation_);
  invitation.set_authority(authority_.fingerprint());
  return invitation;
}

absl::StatusOr<std::map<std::string, OpenInvitation>> Enrolment::FindOpen() const {
  CHAPTER_ASSIGN_OR_RETURN(const auto settings, replica_.ListSettings(kInvitationPrefix));
  const int64_t now = NowSeconds();
  std::map<std::string, OpenInvitation> open;
  for (const auto& [key, text] : settings) {
    const json value = json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!value.is_object() || !IsOpen(value, now)) continue;
    open[key] = {.id = key.substr(sizeof(kInvitationPrefix) - 1, kInvitationIdDigits),
                 .chapter = TextOf(value, "chapter"),
                 .made = NumberOf(value, "made"),
                 .made_by = TextOf(value, "made_by"),
                 .end = NumberOf(value, "expires")};
  }
  return open;
}

absl::StatusOr<std::vector<OpenInvitation>> Enrolment::ListInvitations() const {
  CHAPTER_ASSIGN_OR_RETURN(const auto open, FindOpen());
  std::vector<OpenInvitation> list;
  for (const auto& [key, invitation] : open) list.push_back(invitation);
  std::sort(list.begin(), list.end(), [](const OpenInvitation& a, const OpenInvitation& b) {
    return std::tie(a.end, a.id) < std::tie(b.end, b.id);
  });
  return list;
}

absl::StatusOr<OpenInvitation> Enrolment::RevokeInvitation(const std::string& id) {
  // Not shown where it may be the code itself.
  const std::string shown = id.size() > kInvitationIdDigits
                                ? "of that id"
                                : absl::StrCat("of id '", node::Shown(id), "'");
  absl::MutexLock lock(&mutex_);
  CHAPTER_ASSIGN_OR_RETURN(const auto open, FindOpen());
  const auto matches = [&](const auto& entry) {
    return absl::StartsWith(entry.first, absl::StrCat(kInvitationPrefix, id));
  };
  const auto count = id.empty() ? 0 : std::count_if(open.begin(), open.end(), matches);
  if (count == 0) {
    return absl::NotFoundError(
        absl::StrCat("no invitation ", shown,
                     " can still be used; `chapterctl chapters invitations` shows those that can"));
  }
  if (count > 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("there are ", count, " open invitations ", shown, "; give more of the id"));
  }
  const auto found = std::find_if(open.begin(), open.end(), matches);
  CHAPTER_ASSIGN_OR_RETURN(const std::string text, replica_.GetSetting(found->first));
  CHAPTER_ASSIGN_OR_RETURN(json value, ParseJson(found->first, text));
  value["revoked"] = std::max<int64_t>(NowSeconds(), 1);
  CHAPTER_RETURN_IF_ERROR(replica_.PutSetting(found->first, TextOfJson(value)));
  return found->second;
}

absl::StatusOr<size_t> Enrolment::ForgetSpent(int64_t now_seconds) {
  CHAPTER_ASSIGN_OR_RETURN(const auto settings, replica_.ListSettings(kInvitationPrefix));
  size_t open = 0;
  for (const auto& [key, text] : settings) {
    const json value = json::parse(text, nullptr, false);
    const int64_t expires = value.is_object() ? NumberOf(value, "expires") : 0;
    if (expires + kInvitationKeptSeconds > now_seconds) {
      open += IsOpen(value, now_seconds);
      continue;
    }
    CHAPTER_RETURN_IF_ERROR(replica_.PutSetting(key, std::nullopt));
  }
  return open;
}

absl::StatusOr<v1::EnrolResponse> Enrolment::Enrol(const v1::EnrolRequest& request,
                                                   const std::string& guesser) {
  absl::MutexLock lock(&mutex_);
  const auto now_ms = static_cast<int64_t>(environment_.NowMs());
  if (const int64_t wait_ms = guesses_.WaitMs(guesser, now_ms); wait_ms > 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("too many wrong invitations came from this address; the next is looked at in ",
                     (wait_ms + 999) / 1000, " s"));
  }
  auto response = EnrolLocked(request);
  if (absl::IsPermissionDenied(response.status()) || absl::IsInvalidArgument(response.status())) {
    guesses_.Wrong(guesser, now_ms);
  }
  return response;
}

absl::StatusOr<v1::EnrolResponse> Enrolment::EnrolLocked(const v1::EnrolRequest& request) {
  const auto too_long = [](const char* what, size_t bytes, size_t bytes_max) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " of ", bytes, " bytes is too long (at most ", bytes_max, ")"));
  };
  CHAPTER_ASSIGN_OR_RETURN(const NodeId node, node::NodeIdFromBytes(request.node()));
  if (node == NodeId{}) return absl::InvalidArgumentError("a node's id cannot be all zeros");
  if (node == replica_.options().node) {
    return absl::InvalidArgumentError("this id is the hub's own");
  }
  if (!request.name().empty()) CHAPTER_RETURN_IF_ERROR(node::CheckNodeName(request.name()));
  if (request.code().size() > kCodeBytesMax) {
    return too_long("a code", request.code().size(), kCodeBytesMax);
  }
  if (request.chapter().size() > kChapterBytesMax) {
    return too_long("a chapter's handle", request.chapter().size(), kChapterBytesMax);
  }
  if (!IsPlain(request.chapter())) {
    return absl::InvalidArgumentError("a chapter's handle may not hold control characters");
  }
  const std::string code_hash = Hex(storage::Sha256(request.code()));
  const std::string invitation_key = kInvitationPrefix + code_hash;
  const auto text = replica_.GetSetting(invitation_key);
  if (absl::IsNotFound(text.status())) {
    return absl::PermissionDeniedError("the invitation's code is not known at this hub");
  }
  CHAPTER_RETURN_IF_ERROR(text.status());
  auto invitation = ParseJson(invitation_key, *text);
  CHAPTER_RETURN_IF_ERROR(invitation.status());
  const int64_t now = NowSeconds();
  if (RevokedOf(*invitation) != 0 || void_chapters_.contains(TextOf(*invitation, "chapter"))) {
    return absl::PermissionDeniedError("the invitation was revoked");
  }
  if (NumberOf(*invitation, "expires") <= now) {
    return absl::PermissionDeniedError("the invitation is past its end");
  }
  const std::string chapter = TextOf(*invitation, "chapter");
  if (request.chapter() != chapter) {
    return absl::PermissionDeniedError(absl::StrCat("the invitation is for another chapter than '",
                                                    request.chapter(), "': it was altered"));
  }
  auto known = Find(node);
  if (!known.ok() && !absl::IsNotFound(known.status())) return known.status();
  const std::string used_by = TextOf(*invitation, "used_by");
  // Only whose answer was lost may come again.
  const bool again =
      used_by == node.ToString() && known.ok() && known->code == code_hash && !known->met;
  if (!used_by.empty() && !again) {
    return absl::PermissionDeniedError("the invitation was used already");
  }
  if (known.ok()) CHAPTER_RETURN_IF_ERROR(CheckJoinsAgain(request, chapter, *known));
  CHAPTER_ASSIGN_OR_RETURN(const std::string key_hash, node::KeyHashOfRequest(request.request()));
  CHAPTER_ASSIGN_OR_RETURN(
      std::string chain,
      authority_.Certify(request.request(), NameOf(node, chapter), now, certificate_seconds_));
  (*invitation)["used_by"] = node.ToString();
  const uint64_t joined_ms = known.ok() ? known->facts.joined_ms : environment_.NowMs();
  CHAPTER_RETURN_IF_ERROR(
      Keep({.facts = {.node = node,
                      .chapter = chapter,
                      .name = request.name(),
                      .joined_ms = joined_ms,
                      .certificate_end = now + certificate_seconds_,
                      .revoked = 0},
            .code = code_hash,
            .met = false,
            .keys = {key_hash},
            .ends_max = std::max(known.ok() ? known->ends_max : 0, now + certificate_seconds_),
            .renewed_over = ""},
           {{invitation_key, TextOfJson(*invitation)}}));
  v1::EnrolResponse response;
  response.set_chapter(chapter);
  response.set_federation(federation_);
  response.set_hub(node::ToBytes(replica_.options().node));
  response.set_chain(std::move(chain));
  return response;
}

// Of a node that has joined before: whether it is the one, and may come with this invitation.
absl::Status Enrolment::CheckJoinsAgain(const v1::EnrolRequest& request, const std::string& chapter,
                                        const Known& known) const {
  const auto key =
      node::CheckSignature(request.former_key(), request.request(), request.former_signature());
  // Also one that this hub has made and, restored since, does not remember.
  const auto certified = node::CheckChain(request.former_chain(), authority_.certificate_pem());
  const bool proved =
      key.ok() && (Contains(known.keys, *key) ||
                   (certified.ok() && certified->key_hash == *key &&
                    certified->name == NameOf(known.facts.node, known.facts.chapter)));
  if (!proved) {
    return absl::PermissionDeniedError(
        "this node has joined already, and only the key in its own folder proves it; a folder that "
        "has none joins anew as an empty one");
  }
  if (known.facts.chapter != chapter) {
    return absl::PermissionDeniedError(absl::StrCat("this node is of chapter '",
                                                    known.facts.chapter, "', not of '", chapter,
                                                    "'; join with a folder of its own"));
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::RenewResponse> Enrolment::Renew(const node::CertificateFacts& shown,
                                                   const v1::RenewRequest& request) {
  CHAPTER_ASSIGN_OR_RETURN(const std::string key_hash, node::KeyHashOfRequest(request.request()));
  // A connection that stands for months has begun with a certificate that is long past.
  CHAPTER_ASSIGN_OR_RETURN(const node::CertificateFacts latest,
                           node::CheckChain(request.chain(), authority_.certificate_pem()));
  CHAPTER_RETURN_IF_ERROR(
      node::CheckSignedBy(request.chain(), request.request(), request.signature()));
  if (latest.name != shown.name) {
    return absl::PermissionDeniedError(absl::StrCat("the certificate to be renewed is of ",
                                                    latest.name.ToUri(), ", the connection of ",
                                                    shown.name.ToUri()));
  }
  absl::MutexLock lock(&mutex_);
  CHAPTER_ASSIGN_OR_RETURN(Known known, FindBeginning(latest));
  const int64_t now = NowSeconds();
  const int64_t last = known.facts.certificate_end - certificate_seconds_;
  if (now - last < kRenewSecondsMin) {
    return absl::ResourceExhaustedError(absl::StrCat("this computer got a certificate ", now - last,
                                                     " s ago; at most one in ", kRenewSecondsMin,
                                                     " s is made"));
  }
  CHAPTER_ASSIGN_OR_RETURN(std::string chain, authority_.Certify(request.request(), shown.name, now,
                                                                 certificate_seconds_));
  // The streams of this connection go on, where they might before.
  known.renewed_over = FindGoingOn(shown).ok() ? shown.key_hash : "";
  known.keys = {latest.key_hash, key_hash};
  known.facts.certificate_end = now + certificate_seconds_;
  known.ends_max = std::max(known.ends_max, known.facts.certificate_end);
  CHAPTER_RETURN_IF_ERROR(Keep(known));
  v1::RenewResponse response;
  response.set_chain(std::move(chain));
  return response;
}

bool Enrolment::Counts(const Known& known, const node::CertificateFacts& shown) {
  return Contains(known.keys, shown.key_hash) || shown.not_after > known.ends_max;
}

absl::StatusOr<Enrolment::Known> Enrolment::Find(const NodeId& node) const {
  absl::MutexLock lock(&known_mutex_);
  CHAPTER_RETURN_IF_ERROR(loaded_);
  const auto it = known_.find(node);
  if (it != known_.end()) return it->second;
  return absl::NotFoundError(absl::StrCat("there is no node ", node.ToString()));
}

absl::StatusOr<Enrolment::Known> Enrolment::FindGoingOn(const node::CertificateFacts& shown) const {
  if (shown.name.hub() || shown.name.federation != authority_.federation()) {
    return absl::PermissionDeniedError("the certificate is not that of a node of this federation");
  }
  auto known = Find(shown.name.node);
  if (absl::IsNotFound(known.status())) {
    return absl::PermissionDeniedError(
        absl::StrCat("node ", shown.name.node.ToString(), " is not enrolled at this hub"));
  }
  CHAPTER_RETURN_IF_ERROR(known.status());
  if (known->facts.chapter != shown.name.chapter) {
    return absl::PermissionDeniedError(absl::StrCat(
        "node ", shown.name.node.ToString(), " is not of chapter '", shown.name.chapter, "'"));
  }
  if (known->facts.revoked != 0) {
    return absl::PermissionDeniedError("headquarters has revoked this computer");
  }
  if (!Counts(*known, shown) && known->renewed_over != shown.key_hash) {
    return absl::PermissionDeniedError(
        "this computer has another certificate by now: another copy of its folder is in use, or it "
        "was put back from a backup; it can join again with an invitation");
  }
  const int64_t end = std::max(known->facts.certificate_end, shown.not_after);
  if (end <= NowSeconds()) return PastItsEnd(end);
  return known;
}

absl::StatusOr<Enrolment::Known> Enrolment::FindBeginning(
    const node::CertificateFacts& shown) const {
  CHAPTER_ASSIGN_OR_RETURN(Known known, FindGoingOn(shown));
  if (shown.not_after <= NowSeconds()) return PastItsEnd(shown.not_after);
  if (Counts(known, shown)) return known;
  return absl::PermissionDeniedError(
      "this computer has another certificate by now, with which it is to connect anew");
}

absl::Status Enrolment::CheckBegins(const node::CertificateFacts& shown) const {
  return FindBeginning(shown).status();
}

absl::Status Enrolment::CheckGoesOn(const node::CertificateFacts& shown) const {
  return FindGoingOn(shown).status();
}

absl::StatusOr<EnrolledNode> Enrolment::Admit(const node::CertificateFacts& shown) {
  const auto is_latest = [&](const Known& known) {
    return !Contains(known.keys, shown.key_hash) || known.keys.back() == shown.key_hash;
  };
  CHAPTER_ASSIGN_OR_RETURN(Known known, FindBeginning(shown));
  const std::vector<std::string> alone = {shown.key_hash};
  if (known.met && (known.keys == alone || !is_latest(known))) return known.facts;
  absl::MutexLock lock(&mutex_);
  CHAPTER_ASSIGN_OR_RETURN(known, FindBeginning(shown));
  known.met = true;
  if (is_latest(known)) {
    known.keys = alone;
    known.renewed_over.clear();
    known.facts.certificate_end = std::max(known.facts.certificate_end, shown.not_after);
    known.ends_max = std::max(known.ends_max, shown.not_after);
  }
  CHAPTER_RETURN_IF_ERROR(Keep(known));
  return known.facts;
}

absl::StatusOr<size_t> Enrolment::RevokeNode(const NodeId& node) {
  absl::MutexLock lock(&mutex_);
  Changes changes;
  CHAPTER_ASSIGN_OR_RETURN(const Known known, Find(node));
  Revoke(known, changes);
  CHAPTER_ASSIGN_OR_RETURN(const EndedInvitations ended,
                           EndInvitations(known.facts.chapter, changes));
  CHAPTER_RETURN_IF_ERROR(PutRevoked(known.facts.chapter, changes));
  return ended.open;
}

// Written also where it is known already: the disk may have failed then.
void Enrolment::Revoke(Known known, Changes& changes) {
  if (known.facts.revoked == 0) known.facts.revoked = std::max<int64_t>(NowSeconds(), 1);
  changes[NodeKey(known.facts.node)] = Encode(known);
  absl::MutexLock lock(&known_mutex_);
  known_[known.facts.node] = std::move(known);
}

// What the disk does not take holds all the same, until the hub ends.
absl::Status Enrolment::PutRevoked(const std::string& chapter, const Changes& changes) {
  void_chapters_.insert(chapter);
  CHAPTER_RETURN_IF_ERROR(replica_.PutSettings(changes));
  void_chapters_.erase(chapter);
  return absl::OkStatus();
}

absl::StatusOr<Enrolment::EndedInvitations> Enrolment::EndInvitations(const std::string& chapter,
                                                                      Changes& changes) {
  EndedInvitations ended;
  CHAPTER_ASSIGN_OR_RETURN(const auto settings, replica_.ListSettings(kInvitationPrefix));
  for (const auto& [key, text] : settings) {
    json value = json::parse(text, nullptr, false);
    if (!value.is_object() || TextOf(value, "chapter") != chapter) continue;
    ended.any = true;
    if (RevokedOf(value) != 0) continue;
    ended.open += IsOpen(value, NowSeconds());
    value["revoked"] = std::max<int64_t>(NowSeconds(), 1);
    changes[key] = TextOfJson(value);
  }
  return ended;
}

absl::StatusOr<Enrolment::RevokedChapter> Enrolment::RevokeChapter(const std::string& chapter) {
  absl::MutexLock lock(&mutex_);
  Changes changes;
  CHAPTER_ASSIGN_OR_RETURN(const EndedInvitations ended, EndInvitations(chapter, changes));
  RevokedChapter revoked{.nodes = {}, .invitations = ended.open};
  bool any = ended.any;
  CHAPTER_ASSIGN_OR_RETURN(const auto nodes, ListNodes());
  for (const EnrolledNode& node : nodes) {
    if (node.chapter != chapter) continue;
    any = true;
    if (node.revoked == 0) revoked.nodes.push_back(node.node);
    CHAPTER_ASSIGN_OR_RETURN(Known known, Find(node.node));
    Revoke(std::move(known), changes);
  }
  if (!any) {
    return absl::NotFoundError(
        absl::StrCat("chapter '", chapter, "' has neither a computer nor an invitation"));
  }
  CHAPTER_RETURN_IF_ERROR(PutRevoked(chapter, changes));
  return revoked;
}

absl::StatusOr<std::vector<EnrolledNode>> Enrolment::ListNodes() const {
  absl::MutexLock lock(&known_mutex_);
  CHAPTER_RETURN_IF_ERROR(loaded_);
  std::vector<EnrolledNode> nodes;
  for (const auto& [node, known] : known_) nodes.push_back(known.facts);
  return nodes;
}

}  // namespace chaptersync::hub
