// SPDX-License-Identifier: Apache-2.0
//
// Gives map fields the layout that Debian's Protocol Buffers has them in, which was
// built without the thread sanitizer: with it, its header adds two members. Included
// before every source of a thread sanitizer build that has to do with messages.
#ifndef CHAPTERSYNC_TESTS_THREAD_SANITIZER_PROTOBUF_LAYOUT_H_
#define CHAPTERSYNC_TESTS_THREAD_SANITIZER_PROTOBUF_LAYOUT_H_

// The standard library's headers, which look at the same macro, come with it on.
#include <atomic>
#include <functional>
#include <iosfwd>
#include <memory>
#include <mutex>
#include <set>
#include <sstream>
#include <string>
#include <unordered_map>

#pragma push_macro("__SANITIZE_THREAD__")
#undef __SANITIZE_THREAD__
#include <google/protobuf/map_field.h>
#pragma pop_macro("__SANITIZE_THREAD__")

#endif  // CHAPTERSYNC_TESTS_THREAD_SANITIZER_PROTOBUF_LAYOUT_H_
