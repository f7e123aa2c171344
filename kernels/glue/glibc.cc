// Lets the library load with glibc 2.29 and later, whatever glibc it is built on.
//
// Newer versions of glibc added some symbols, and moved others from libpthread to libc. This file defines both kinds as
// hidden functions, for our own code and for the C++ runtime that is linked into the library. The functions that moved
// call their old versions. A test reads the symbols of the finished library (test_build.py).
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

#define LOWLEVEL_OLD(name)                                                   \
  extern "C" decltype(name) lowlevel_old_##name;                             \
  __asm__(".symver lowlevel_old_" #name "," #name "@" LOWLEVEL_FIRST_GLIBC); \
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
#endif
