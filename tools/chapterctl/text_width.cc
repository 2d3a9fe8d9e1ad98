// SPDX-License-Identifier: Apache-2.0
//
// Widths are the C library's (wcwidth) in its UTF-8 locale, whatever locale the
// user has.
#include "tools/chapterctl/text_width.h"

#include <locale.h>
#include <wchar.h>

#include <cstdint>

namespace chaptersync::ctl {
namespace {

constexpr char kReplacement[] = "\xef\xbf\xbd";

// One character and where it ends. Bytes that are no UTF-8 stand alone.
struct Character {
  uint32_t code = 0;
  size_t size = 1;
  bool valid = false;
};

Character At(const std::string& text, size_t at) {
  const auto byte = [&text](size_t i) -> uint32_t {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0;
  };
  const uint32_t first = byte(at);
  if (first < 0x80) return {first, 1, true};
  const size_t size = first >= 0xf0 && first < 0xf5   ? 4
                      : first >= 0xe0 && first < 0xf0 ? 3
                      : first >= 0xc2 && first < 0xe0 ? 2
                                                      : 0;
  if (size == 0) return {};
  uint32_t code = first & (0xffU >> (size + 1));
  for (size_t i = 1; i < size; ++i) {
    if ((byte(at + i) & 0xc0) != 0x80) return {};
    code = code << 6 | (byte(at + i) & 0x3f);
  }
  const uint32_t least = size == 2 ? 0x80 : size == 3 ? 0x800 : 0x10000;
  if (code < least || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return {};
  return {code, size, true};
}

// Uses the UTF-8 locale of the C library on this thread while it lives.
class Utf8Locale {
 public:
  Utf8Locale() {
    static const locale_t utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
    if (utf8 != nullptr) before_ = uselocale(utf8);
  }
  ~Utf8Locale() {
    if (before_ != nullptr) uselocale(before_);
  }
  Utf8Locale(const Utf8Locale&) = delete;
  Utf8Locale& operator=(const Utf8Locale&) = delete;

 private:
  locale_t before_ = nullptr;
};

size_t WidthOf(const Character& character) {
  if (!character.valid) return 1;
  if (character.code >= 0x20 && character.code < 0x7f) return 1;
  const int width = wcwidth(static_cast<wchar_t>(character.code));
  return width < 0 ? 1 : static_cast<size_t>(width);
}

}  // namespace

size_t DisplayWidth(const std::string& text) {
  const Utf8Locale locale;
  size_t width = 0;
  for (size_t i = 0; i < text.size();) {
    const Character character = At(text, i);
    width += WidthOf(character);
    i += character.size;
  }
  return width;
}

std::string FitTo(const std::string& text, size_t columns) {
  const Utf8Locale locale;
  size_t width = 0;
  size_t kept = 0;  // bytes that fit with the mark after them
  for (size_t i = 0; i < text.size();) {
    const Character character = At(text, i);
    width += WidthOf(character);
    i += character.size;
    if (width + 1 <= columns) kept = i;
    if (width > columns) return columns == 0 ? "" : text.substr(0, kept) + "…";
  }
  return text;
}

std::string Printable(const std::string& text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const Character character = At(text, i);
    const uint32_t code = character.code;
    if (code == '\n' || code == '\t' || code == '\r') {
      if (out.empty() || out.back() != ' ') out += ' ';
    } else if (!character.valid || code < 0x20 || (code >= 0x7f && code < 0xa0)) {
      out += kReplacement;
    } else {
      out.append(text, i, character.size);
    }
    i += character.size;
  }
  return out;
}

}  // namespace chaptersync::ctl
