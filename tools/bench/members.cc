// SPDX-License-Identifier: Apache-2.0
//
// MemberMaker: every choice by the one generator, in a fixed order, so that a seed says all. The
// standard says what mt19937_64 gives; distributions, which it leaves open, are not used.
#include "tools/bench/members.h"

#include <iterator>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace chaptersync::bench {
namespace {

constexpr size_t kNoteBytes = 130;

constexpr const char* kGiven[] = {"Wei",   "Anna",  "Lucas", "Sofia",
                                  "Elena", "Kenji", "Mei",   "James"};
constexpr const char* kFamily[] = {"Zhang", "Rossi", "Smith", "Tanaka", "Kim", "Müller"};
constexpr const char* kGivenChinese[] = {"伟", "美丽", "晓明", "丽华", "志强"};
constexpr const char* kFamilyChinese[] = {"张", "王", "李", "陈", "欧阳"};
constexpr const char* kWords[] = {"alumni", "met",     "at",      "reunion", "volunteer",  "mentor",
                                  "email",  "prefers", "moved",   "from",    "board",      "dinner",
                                  "annual", "call",    "chapter", "spring",  "newsletter", "class"};
struct Place {
  const char* city;
  const char* country;
};
constexpr Place kPlaces[] = {{"Beijing", "CN"},   {"Milan", "IT"},  {"Toronto", "CA"},
                             {"Singapore", "SG"}, {"London", "GB"}, {"São Paulo", "BR"}};
constexpr const char* kLevels[] = {"BSc", "MSc", "PhD", "LLB", "BEng"};
constexpr const char* kSubjects[] = {"Law", "Physics", "History", "Architecture"};
constexpr const char* kEmployers[] = {"Acme Corp", "Globex", "City Council"};
constexpr const char* kTitles[] = {"Engineer", "Partner", "Teacher"};

}  // namespace

std::string MemberMaker::Id() {
  // Version 7 and the variant; spread over all of the key space, as imports of many years are.
  const uint64_t high = (random_() & ~uint64_t{0xf000}) | 0x7000;
  const uint64_t low = (random_() & ~(uint64_t{3} << 62)) | (uint64_t{2} << 62);
  return absl::StrFormat("%08x-%04x-%04x-%04x-%012x", high >> 32, (high >> 16) & 0xffff,
                         high & 0xffff, low >> 48, low & 0xffffffffffff);
}

NewMember MemberMaker::Next() {
  NewMember made{.id = Id(), .member = {}};
  v1::Member& m = made.member;
  const std::string given = Pick(kGiven);
  const std::string family = Pick(kFamily);
  v1::PersonName& legal = (*m.mutable_names())["legal"];
  legal.set_full(absl::StrCat(given, " ", family));
  legal.set_script("Latn");
  v1::PersonName& chinese = (*m.mutable_names())["chinese"];
  chinese.set_full(absl::StrCat(Pick(kFamilyChinese), Pick(kGivenChinese)));
  chinese.set_script("Hans");
  v1::Contact& mail = (*m.mutable_contacts())["email"];
  mail.set_kind(v1::CONTACT_KIND_EMAIL);
  mail.set_value(absl::StrCat(absl::AsciiStrToLower(given), ".member", made_, "@example.org"));
  v1::Contact& phone = (*m.mutable_contacts())["home"];
  phone.set_kind(v1::CONTACT_KIND_PHONE);
  phone.set_value(absl::StrCat("+", 1 + random_() % 98, 100'000'000 + random_() % 900'000'000));
  const Place& place = kPlaces[random_() % std::size(kPlaces)];
  v1::Residence& residence = (*m.mutable_residences())["current"];
  residence.set_city(place.city);
  residence.set_country(place.country);
  v1::Degree& degree = (*m.mutable_degrees())["first"];
  degree.set_level(Pick(kLevels));
  degree.set_subject(Pick(kSubjects));
  degree.set_year(1978 + static_cast<uint32_t>(random_() % 42));
  m.set_chapter(chapter_);
  m.set_employer(Pick(kEmployers));
  m.set_job_title(Pick(kTitles));
  m.set_status(v1::MEMBER_STATUS_ACTIVE);
  std::string notes;
  while (notes.size() < kNoteBytes) absl::StrAppend(&notes, notes.empty() ? "" : " ", Pick(kWords));
  m.set_notes(notes.substr(0, kNoteBytes));
  ++made_;
  return made;
}

}  // namespace chaptersync::bench
