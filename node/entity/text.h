// SPDX-License-Identifier: Apache-2.0
//
// Text from people as error messages show it, and the checks of text that
// every entry to the program makes. Pure; any thread.
#ifndef CHAPTERSYNC_NODE_ENTITY_TEXT_H_
#define CHAPTERSYNC_NODE_ENTITY_TEXT_H_

#include <string>

namespace chaptersync::node {

// For an error message: control characters and bytes that are no UTF-8 escaped,
// and no more than 64 characters, "..." after them where there was more.
std::string Shown(const std::string& text);
bool ValidUtf8(const std::string& text);
// True where the text holds a control character of ASCII.
bool HasControl(const std::string& text);
// ASCII letters in lower case, all other bytes as they are.
std::string FoldCase(std::string text);

}  // namespace chaptersync::node

#endif  // CHAPTERSYNC_NODE_ENTITY_TEXT_H_
