// Lets the library load with glibc 2.17 and later, whatever glibc it is built on.
//
// Newer versions of glibc added some symbols, moved others from libpthread to libc, and gave exp and log a version that
// reports errors in another way. This file defines all three kinds as hidden functions, for our own code and for the C++
// runtime that is linked into the library. The functions of the last two kinds call their old versions. Both versions of
// exp and log return the same values. A test reads the symbols of the finished library (test_build.py).
//
// Consequence: the unwinder finds no frames, so an exception inside the library ends the process. The library itself
// throws no exceptions. Errors travel as status values, as a C ABI requires.
#include <pthread.h>

#define LOWLEVEL_HIDDEN extern "C" __attribute__((visibility("hidden"), used))

#if (defined(__x86_64__) || defined(__aarch64__)) && defined(__GLIBC__)

// The first version of glibc for this processor, whose symbols every later version still has.
#if defined(__x86_64__)
#define LOWLEVEL_FIRST_GLIBC "GLIBC_2.2.5"
#else
#define LOWLEVEL_FIRST_GLIBC "GLIBC_2.17"
#endif

// glibc 2.35 added this function. It finds unwinding tables. -1 means "not found".
LOWLEVEL_HIDDEN int _dl_find_object(void*, void*) { return -1; }

// glibc 2.32 added this variable. It lets shared_ptr skip atomics. 0 means that there are other threads.
extern "C" {
__attribute__((visibility("hidden"))) char __libc_single_threaded = 0;
}

#define LOWLEVEL_OLD_VERSION(name) __asm__(".symver lowlevel_old_" #name "," #name "@" LOWLEVEL_FIRST_GLIBC);
#define LOWLEVEL_OLD(name)                       \
  extern "C" decltype(name) lowlevel_old_##name; \
  LOWLEVEL_OLD_VERSION(name)                     \
  LOWLEVEL_HIDDEN int name

extern "C" int __pthread_key_create(pthread_key_t*, void (*)(void*));

LOWLEVEL_OLD(pthread_create)
(pthread_t* thread, const pthread_attr_t* attributes, void* (*body)(void*), void* argument) noexcept {
  return lowlevel_old_pthread_create(thread, attributes, body, argument);
}
LOWLEVEL_OLD(pthread_detach)(pthread_t thread) noexcept { return lowlevel_old_pthread_detach(thread); }
LOWLEVEL_OLD(pthread_once)(pthread_once_t* once, void (*body)()) {
  return lowlevel_old_pthread_once(once, body);
}
LOWLEVEL_OLD(__pthread_key_create)(pthread_key_t* key, void (*body)(void*)) {
  return lowlevel_old___pthread_key_create(key, body);
}

// Defined under other names, because GCC declares exp and log itself, and visible.
extern "C" double lowlevel_old_exp(double), lowlevel_old_log(double);
LOWLEVEL_OLD_VERSION(exp)
LOWLEVEL_OLD_VERSION(log)
LOWLEVEL_HIDDEN double lowlevel_exp(double) __asm__("exp");
LOWLEVEL_HIDDEN double lowlevel_log(double) __asm__("log");
double lowlevel_exp(double x) { return lowlevel_old_exp(x); }
double lowlevel_log(double x) { return lowlevel_old_log(x); }
#endif
