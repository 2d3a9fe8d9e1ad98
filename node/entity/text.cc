// SPDX-License-Identifier: Apache-2.0
//
// Text as error messages show it, and checks of it. Only the part that is shown
// is looked at: a value can be large.
#include "node/entity/text.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"
#include "google/protobuf/stubs/common.h"

namespace chaptersync::node {
namespace {

constexpr size_t kShownCharactersMax = 64;

bool Control(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return byte < 0x20 || byte == 0x7f;
}

bool Continues(char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; }

}  // namespace

bool ValidUtf8(const std::string& text) {
  return google::protobuf::internal::IsStructurallyValidUTF8(text);
}

bool HasControl(const std::string& text) { return std::any_of(text.begin(), text.end(), Control); }

std::string Shown(const std::string& text) {
  // What lies behind the part that is shown does not matter.
  std::string head = text.substr(0, 4 * kShownCharactersMax + 4);
  while (head.size() < text.size() && !head.empty() && Continues(text[head.size()])) {
    head.pop_back();
  }
  const bool utf8 = ValidUtf8(head);
  std::string out;
  size_t characters = 0;
  for (size_t i = 0; i < head.size(); ++i) {
    if (!utf8 || !Continues(head[i])) {
      if (++characters > kShownCharactersMax) return out + "...";
    }
    if (Control(head[i]) || (!utf8 && (head[i] & 0x80) != 0)) {
      absl::StrAppendFormat(&out, "\\x%02x", static_cast<unsigned>(head[i]) & 0xff);
    } else {
      out += head[i];
    }
  }
  if (head.size() < text.size()) out += "...";
  return out;
}

std::string FoldCase(std::string text) {
  absl::AsciiStrToLower(&text);
  return text;
}

}  // namespace chaptersync::node
