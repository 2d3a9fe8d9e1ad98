# SPDX-License-Identifier: Apache-2.0
#
# Makes the thread sanitizer work with Debian's libraries, which were built without it. Included by
# the root in thread sanitizer builds; every program links chapter_thread_sanitizer.

add_library(chapter_thread_sanitizer OBJECT "${CMAKE_CURRENT_LIST_DIR}/absl_mutex.cc")
target_link_libraries(chapter_thread_sanitizer PUBLIC absl::synchronization absl::time)

# Each of our calls of these goes through absl_mutex.cc.
foreach(symbol IN ITEMS
    N4absl7debian35MutexD1Ev
    N4absl7debian35Mutex4LockEv
    N4absl7debian35Mutex6UnlockEv
    N4absl7debian35Mutex7TryLockEv
    N4absl7debian35Mutex10ReaderLockEv
    N4absl7debian35Mutex12ReaderUnlockEv
    N4absl7debian35Mutex13ReaderTryLockEv
    N4absl7debian35Mutex8LockWhenERKNS0_9ConditionE
    N4absl7debian35Mutex19LockWhenWithTimeoutERKNS0_9ConditionENS0_8DurationE
    N4absl7debian35Mutex20LockWhenWithDeadlineERKNS0_9ConditionENS0_4TimeE
    N4absl7debian35Mutex5AwaitERKNS0_9ConditionE
    N4absl7debian35Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE
    N4absl7debian35Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE
    N4absl7debian37CondVar4WaitEPNS0_5MutexE
    N4absl7debian37CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE
    N4absl7debian37CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE
    N4absl7debian312Notification6NotifyEv
    NK4absl7debian312Notification19WaitForNotificationEv
    NK4absl7debian312Notification30WaitForNotificationWithTimeoutENS0_8DurationE
    NK4absl7debian312Notification31WaitForNotificationWithDeadlineENS0_4TimeE
    N4absl7debian315BlockingCounter14DecrementCountEv
    N4absl7debian315BlockingCounter4WaitEv)
  target_link_options(chapter_thread_sanitizer INTERFACE "LINKER:--wrap=_Z${symbol}")
endforeach()

# A program's copies of inline functions (std::string's) carry the sanitizer. They stay within the
# program: RocksDB would call them otherwise, and its own synchronisation cannot be seen. The calls
# of the system that a test takes the place of are for RocksDB to see.
file(WRITE "${PROJECT_BINARY_DIR}/thread_sanitizer.map"
  "{ global: __tsan_default_options; fdatasync; fsync; write; local: *; };\n")
target_link_options(chapter_thread_sanitizer INTERFACE
  "LINKER:--version-script=${PROJECT_BINARY_DIR}/thread_sanitizer.map")
