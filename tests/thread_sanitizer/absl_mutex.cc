// SPDX-License-Identifier: Apache-2.0
//
// Tells the thread sanitizer of Abseil's locks. Debian's Abseil was built without it, so that
// without this every use of absl::Mutex is reported as a race. The linker (--wrap) sends the calls
// of our own code here; each tells the sanitizer and goes on to Abseil. Only in thread sanitizer
// builds, where it is part of every program. Any thread may call it.
#include <sanitizer/tsan_interface.h>

#include <type_traits>

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"

// Read by the sanitizer at start; TSAN_OPTIONS overrides. Libraries that were built without it are
// not looked into: their own synchronisation cannot be seen, and all of it would be reported.
extern "C" const char* __tsan_default_options() {
  return "ignore_noninstrumented_modules=1:halt_on_error=1:second_deadlock_stack=1";
}

namespace {

constexpr unsigned kWrite = 0;
constexpr unsigned kRead = __tsan_mutex_read_lock;

// Around a call that acquires.
template <typename Call>
void Acquire(void* mutex, unsigned flags, Call call) {
  __tsan_mutex_pre_lock(mutex, flags);
  call();
  __tsan_mutex_post_lock(mutex, flags, 0);
}

template <typename Call>
bool TryAcquire(void* mutex, unsigned flags, Call call) {
  flags |= __tsan_mutex_try_lock;
  __tsan_mutex_pre_lock(mutex, flags);
  const bool acquired = call();
  __tsan_mutex_post_lock(mutex, flags | (acquired ? 0 : __tsan_mutex_try_lock_failed), 0);
  return acquired;
}

// Around a call that releases.
template <typename Call>
void Release(void* mutex, unsigned flags, Call call) {
  __tsan_mutex_pre_unlock(mutex, flags);
  call();
  __tsan_mutex_post_unlock(mutex, flags);
}

// Around a call that releases, waits and acquires again. Abseil evaluates conditions in any thread,
// with the lock held: what they read is not looked at.
template <typename Call>
auto Wait(void* mutex, Call call) {
  __tsan_mutex_pre_unlock(mutex, kWrite);
  __tsan_mutex_post_unlock(mutex, kWrite);
  __tsan_mutex_pre_lock(mutex, kWrite);
  if constexpr (std::is_void_v<decltype(call())>) {
    call();
    __tsan_mutex_post_lock(mutex, kWrite, 0);
  } else {
    const auto result = call();
    __tsan_mutex_post_lock(mutex, kWrite, 0);
    return result;
  }
}

}  // namespace

// Declares what the linker makes of a wrapped function: Abseil's own, and ours.
#define WRAP(result, symbol, ...)                   \
  extern "C" result __real__Z##symbol(__VA_ARGS__); \
  extern "C" result __wrap__Z##symbol(__VA_ARGS__)

using absl::Condition;
using absl::CondVar;
using absl::Duration;
using absl::Mutex;
using absl::Notification;
using absl::Time;

WRAP(void, N4absl7debian35MutexD1Ev, Mutex* m) {
  __tsan_mutex_destroy(m, 0);
  __real__ZN4absl7debian35MutexD1Ev(m);
}
WRAP(void, N4absl7debian35Mutex4LockEv, Mutex* m) {
  Acquire(m, kWrite, [=] { __real__ZN4absl7debian35Mutex4LockEv(m); });
}
WRAP(void, N4absl7debian35Mutex6UnlockEv, Mutex* m) {
  Release(m, kWrite, [=] { __real__ZN4absl7debian35Mutex6UnlockEv(m); });
}
WRAP(bool, N4absl7debian35Mutex7TryLockEv, Mutex* m) {
  return TryAcquire(m, kWrite, [=] { return __real__ZN4absl7debian35Mutex7TryLockEv(m); });
}
WRAP(void, N4absl7debian35Mutex10ReaderLockEv, Mutex* m) {
  Acquire(m, kRead, [=] { __real__ZN4absl7debian35Mutex10ReaderLockEv(m); });
}
WRAP(void, N4absl7debian35Mutex12ReaderUnlockEv, Mutex* m) {
  Release(m, kRead, [=] { __real__ZN4absl7debian35Mutex12ReaderUnlockEv(m); });
}
WRAP(bool, N4absl7debian35Mutex13ReaderTryLockEv, Mutex* m) {
  return TryAcquire(m, kRead, [=] { return __real__ZN4absl7debian35Mutex13ReaderTryLockEv(m); });
}
WRAP(void, N4absl7debian35Mutex8LockWhenERKNS0_9ConditionE, Mutex* m, const Condition* c) {
  Acquire(m, kWrite, [=] { __real__ZN4absl7debian35Mutex8LockWhenERKNS0_9ConditionE(m, c); });
}
WRAP(bool, N4absl7debian35Mutex19LockWhenWithTimeoutERKNS0_9ConditionENS0_8DurationE, Mutex* m,
     const Condition* c, Duration t) {
  bool result = false;
  Acquire(m, kWrite, [&] {
    result =
        __real__ZN4absl7debian35Mutex19LockWhenWithTimeoutERKNS0_9ConditionENS0_8DurationE(m, c, t);
  });
  return result;
}
WRAP(bool, N4absl7debian35Mutex20LockWhenWithDeadlineERKNS0_9ConditionENS0_4TimeE, Mutex* m,
     const Condition* c, Time t) {
  bool result = false;
  Acquire(m, kWrite, [&] {
    result =
        __real__ZN4absl7debian35Mutex20LockWhenWithDeadlineERKNS0_9ConditionENS0_4TimeE(m, c, t);
  });
  return result;
}
WRAP(void, N4absl7debian35Mutex5AwaitERKNS0_9ConditionE, Mutex* m, const Condition* c) {
  Wait(m, [=] { __real__ZN4absl7debian35Mutex5AwaitERKNS0_9ConditionE(m, c); });
}
WRAP(bool, N4absl7debian35Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE, Mutex* m,
     const Condition* c, Duration t) {
  return Wait(m, [=] {
    return __real__ZN4absl7debian35Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE(m, c, t);
  });
}
WRAP(bool, N4absl7debian35Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE, Mutex* m,
     const Condition* c, Time t) {
  return Wait(m, [=] {
    return __real__ZN4absl7debian35Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE(m, c, t);
  });
}
WRAP(void, N4absl7debian37CondVar4WaitEPNS0_5MutexE, CondVar* v, Mutex* m) {
  Wait(m, [=] { __real__ZN4absl7debian37CondVar4WaitEPNS0_5MutexE(v, m); });
}
WRAP(bool, N4absl7debian37CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE, CondVar* v, Mutex* m,
     Duration t) {
  return Wait(m, [=] {
    return __real__ZN4absl7debian37CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE(v, m, t);
  });
}
WRAP(bool, N4absl7debian37CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE, CondVar* v, Mutex* m,
     Time t) {
  return Wait(m, [=] {
    return __real__ZN4absl7debian37CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE(v, m, t);
  });
}

// HasBeenNotified is inline and reads the flag behind the mutex with acquire: released here too.
WRAP(void, N4absl7debian312Notification6NotifyEv, Notification* n) {
  __tsan_release(n);
  __tsan_release(reinterpret_cast<char*>(n) + sizeof(Mutex));
  __real__ZN4absl7debian312Notification6NotifyEv(n);
}
WRAP(void, NK4absl7debian312Notification19WaitForNotificationEv, Notification* n) {
  __real__ZNK4absl7debian312Notification19WaitForNotificationEv(n);
  __tsan_acquire(n);
}
WRAP(bool, NK4absl7debian312Notification30WaitForNotificationWithTimeoutENS0_8DurationE,
     Notification* n, Duration t) {
  const bool notified =
      __real__ZNK4absl7debian312Notification30WaitForNotificationWithTimeoutENS0_8DurationE(n, t);
  if (notified) __tsan_acquire(n);
  return notified;
}
WRAP(bool, NK4absl7debian312Notification31WaitForNotificationWithDeadlineENS0_4TimeE,
     Notification* n, Time t) {
  const bool notified =
      __real__ZNK4absl7debian312Notification31WaitForNotificationWithDeadlineENS0_4TimeE(n, t);
  if (notified) __tsan_acquire(n);
  return notified;
}
WRAP(bool, N4absl7debian315BlockingCounter14DecrementCountEv, absl::BlockingCounter* b) {
  __tsan_release(b);
  return __real__ZN4absl7debian315BlockingCounter14DecrementCountEv(b);
}
WRAP(void, N4absl7debian315BlockingCounter4WaitEv, absl::BlockingCounter* b) {
  __real__ZN4absl7debian315BlockingCounter4WaitEv(b);
  __tsan_acquire(b);
}
