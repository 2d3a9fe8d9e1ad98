// SPDX-License-Identifier: Apache-2.0
//
// How many columns of a terminal a text takes, and texts made fit for one: a
// Chinese character takes two, a combining accent none. Pure; any thread.
#ifndef CHAPTERSYNC_TOOLS_CHAPTERCTL_TEXT_WIDTH_H_
#define CHAPTERSYNC_TOOLS_CHAPTERCTL_TEXT_WIDTH_H_

#include <cstddef>
#include <string>

namespace chaptersync::ctl {

// Of UTF-8; what is none counts as one column a byte.
size_t DisplayWidth(const std::string& text);
// The text where it fits into `columns`, else its beginning with "…" after it.
std::string FitTo(const std::string& text, size_t columns);
// On one line, and without what could steer a terminal: line ends and tabs become
// spaces, other control characters and bytes that are no UTF-8 U+FFFD.
std::string Printable(const std::string& text);

}  // namespace chaptersync::ctl

#endif  // CHAPTERSYNC_TOOLS_CHAPTERCTL_TEXT_WIDTH_H_
