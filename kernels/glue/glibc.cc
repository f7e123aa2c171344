// Lets the library load with glibc 2.17 and later, whatever version of glibc the machine has that builds the library.
// Newer versions of glibc changed three kinds of symbols. First, they added some. Second, they moved others from
// libpthread to libc. Third, they gave exp and log a new version, which reports errors in another way but returns the
// same values. A library that uses such a symbol needs the newer glibc. So this file defines all of them as hidden
// symbols, which only the library itself sees. Then our own code and the C++ runtime inside the library use these
// definitions. The functions of the second and the third kind call their old versions in glibc. A test reads the
// symbols of the finished library (test_build.py).
//
// This has one consequence: the code that unwinds the stack finds no frames, so an exception inside the library ends
// the process. The library itself throws no exceptions. It returns errors as status values, as a C ABI requires.
#include <pthread.h>

#define LOWLEVEL_HIDDEN extern "C" __attribute__((visibility("hidden"), used))

#if (defined(__x86_64__) || defined(__aarch64__)) && defined(__GLIBC__)

// The first version of glibc for this processor. Every later version still has its symbols.
#if defined(__x86_64__)
#define LOWLEVEL_FIRST_GLIBC "GLIBC_2.2.5"
#else
#define LOWLEVEL_FIRST_GLIBC "GLIBC_2.17"
#endif

// glibc 2.35 added this function. It finds the tables for unwinding the stack. -1 means "not found".
LOWLEVEL_HIDDEN int _dl_find_object(void*, void*) { return -1; }

// glibc 2.32 added this variable. If it is not 0, shared_ptr uses no atomics. 0 means that there are other threads.
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

// In C++ these two functions have other names, because GCC itself declares exp and log, as visible functions.
extern "C" double lowlevel_old_exp(double), lowlevel_old_log(double);
LOWLEVEL_OLD_VERSION(exp)
LOWLEVEL_OLD_VERSION(log)
LOWLEVEL_HIDDEN double lowlevel_exp(double) __asm__("exp");
LOWLEVEL_HIDDEN double lowlevel_log(double) __asm__("log");
double lowlevel_exp(double x) { return lowlevel_old_exp(x); }
double lowlevel_log(double x) { return lowlevel_old_log(x); }
#endif
