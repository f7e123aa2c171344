// Like glibc.cc, this file lets the library load with older versions of glibc. It covers the functions that CUDA's
// static runtime calls. glibc 2.34 moved these functions from libdl, libpthread and librt to libc and gave them a new
// symbol version. For each of them, this file defines a function that only the library itself sees (hidden). That
// function jumps to the old version in glibc.
#include <features.h>

#if defined(__x86_64__) && defined(__GLIBC__)

// clang-format off
#define LOWLEVEL_JUMP_TO(name, version)                       \
  __asm__(".text\n.globl " name "\n.hidden " name "\n"        \
          ".type " name ", @function\n" name ":\n"            \
          "  jmp lowlevel_old_" name "@PLT\n"                 \
          ".size " name ", .-" name "\n"                      \
          ".symver lowlevel_old_" name "," name "@" version);
#define LOWLEVEL_JUMP(name) LOWLEVEL_JUMP_TO(name, "GLIBC_2.2.5")

LOWLEVEL_JUMP_TO("dlmopen", "GLIBC_2.3.4")
LOWLEVEL_JUMP("dlclose")
LOWLEVEL_JUMP("dlerror")
LOWLEVEL_JUMP("dlopen")
LOWLEVEL_JUMP("dlsym")
LOWLEVEL_JUMP("dlvsym")
LOWLEVEL_JUMP("pthread_condattr_setpshared")
LOWLEVEL_JUMP("pthread_getspecific")
LOWLEVEL_JUMP("pthread_join")
LOWLEVEL_JUMP("pthread_key_create")
LOWLEVEL_JUMP("pthread_key_delete")
LOWLEVEL_JUMP("pthread_kill")
LOWLEVEL_JUMP("pthread_mutexattr_destroy")
LOWLEVEL_JUMP("pthread_mutexattr_init")
LOWLEVEL_JUMP("pthread_mutexattr_setpshared")
LOWLEVEL_JUMP("pthread_mutexattr_settype")
LOWLEVEL_JUMP("pthread_mutex_trylock")
LOWLEVEL_JUMP("pthread_rwlockattr_destroy")
LOWLEVEL_JUMP("pthread_rwlockattr_init")
LOWLEVEL_JUMP("pthread_rwlockattr_setpshared")
LOWLEVEL_JUMP("pthread_rwlock_destroy")
LOWLEVEL_JUMP("pthread_rwlock_init")
LOWLEVEL_JUMP("pthread_rwlock_rdlock")
LOWLEVEL_JUMP("pthread_rwlock_timedrdlock")
LOWLEVEL_JUMP("pthread_rwlock_timedwrlock")
LOWLEVEL_JUMP("pthread_rwlock_tryrdlock")
LOWLEVEL_JUMP("pthread_rwlock_trywrlock")
LOWLEVEL_JUMP("pthread_rwlock_unlock")
LOWLEVEL_JUMP("pthread_rwlock_wrlock")
LOWLEVEL_JUMP("pthread_setspecific")
LOWLEVEL_JUMP("pthread_spin_destroy")
LOWLEVEL_JUMP("pthread_spin_init")
LOWLEVEL_JUMP("pthread_spin_lock")
LOWLEVEL_JUMP("pthread_spin_trylock")
LOWLEVEL_JUMP("pthread_spin_unlock")
LOWLEVEL_JUMP("sem_destroy")
LOWLEVEL_JUMP("sem_init")
LOWLEVEL_JUMP("sem_post")
LOWLEVEL_JUMP("sem_timedwait")
LOWLEVEL_JUMP("sem_trywait")
LOWLEVEL_JUMP("sem_wait")
LOWLEVEL_JUMP("shm_open")
LOWLEVEL_JUMP("shm_unlink")
// clang-format on

#endif
