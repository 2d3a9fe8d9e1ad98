// SPDX-License-Identifier: Apache-2.0
//
// Two macros that pass an absl::Status on, and one check of an invariant that
// holds in release builds too. Checks are never about what a peer, a file or a
// person can send: those are errors.
#ifndef CHAPTERSYNC_STORAGE_CORE_STATUS_H_
#define CHAPTERSYNC_STORAGE_CORE_STATUS_H_

#include <cstdio>
#include <cstdlib>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define CHAPTER_CONCAT_INNER(a, b) a##b
#define CHAPTER_CONCAT(a, b) CHAPTER_CONCAT_INNER(a, b)

#define CHAPTER_RETURN_IF_ERROR(expression)          \
  do {                                               \
    absl::Status chapter_status = (expression);      \
    if (!chapter_status.ok()) return chapter_status; \
  } while (false)

#define CHAPTER_ASSIGN_OR_RETURN_INNER(temporary, target, expression) \
  auto temporary = (expression);                                      \
  if (!temporary.ok()) return temporary.status();                     \
  target = std::move(*temporary)

#define CHAPTER_ASSIGN_OR_RETURN(target, expression) \
  CHAPTER_ASSIGN_OR_RETURN_INNER(CHAPTER_CONCAT(chapter_status_or_, __LINE__), target, expression)

#define CHAPTER_CHECK(condition)                                                             \
  do {                                                                                       \
    if (!(condition)) {                                                                      \
      std::fprintf(stderr, "%s:%d: invariant broken: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                          \
    }                                                                                        \
  } while (false)

#endif  // CHAPTERSYNC_STORAGE_CORE_STATUS_H_
