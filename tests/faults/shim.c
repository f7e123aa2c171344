/* Makes the n-th change of a file below one folder fail, or kills the process before it. To this end, the library is
 * loaded before the C library (LD_PRELOAD) and replaces its functions.
 *
 * fault_arm(folder, n, what) starts to count the changes. A change is an open for writing, a write, a rename, an fsync,
 * a truncation, an unlink or a mkdir. what is 0 to only count, 1 to kill the process before the n-th change, or an
 * errno: the n-th change and all later ones then fail with it, because a disk that is full stays full.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[PATH_MAX];
static int armed, what;
static long at, count;

void fault_arm(const char* path, long n, int kind) {
  snprintf(folder, sizeof folder, "%s", path);
  at = n;
  what = kind;
  count = 0;
  armed = 1;
}

long fault_count(void) { return count; }

static int inside(const char* path) {
  char absolute[PATH_MAX], work[PATH_MAX];
  if (!armed || path == NULL) return 0;
  if (path[0] == '/')
    snprintf(absolute, sizeof absolute, "%s", path);
  else if (getcwd(work, sizeof work) != NULL)
    snprintf(absolute, sizeof absolute, "%.2000s/%.2000s", work, path);
  else
    return 0;
  return strncmp(absolute, folder, strlen(folder)) == 0;
}

static int inside_descriptor(int fd) {
  char link[64], path[PATH_MAX];
  if (!armed) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = '\0';
  return inside(path);
}

/* Counts one change. Returns whether it must fail, and then sets errno. */
static int fails(void) {
  long number = __sync_add_and_fetch(&count, 1);
  if (what == 0 || number < at) return 0;
  if (what == 1) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
  }
  errno = what;
  return 1;
}

#define REAL(name) __typeof__(name)* real = (__typeof__(name)*)dlsym(RTLD_NEXT, #name)
#define MODE(flags)               \
  mode_t mode = 0;                \
  if (flags & (O_CREAT)) {        \
    va_list list;                 \
    va_start(list, flags);        \
    mode = va_arg(list, mode_t);  \
    va_end(list);                 \
  }
#define WRITES(flags) ((flags & O_ACCMODE) != O_RDONLY)

int open(const char* path, int flags, ...) {
  REAL(open);
  MODE(flags)
  if (WRITES(flags) && inside(path) && fails()) return -1;
  return real(path, flags, mode);
}
int open64(const char* path, int flags, ...) {
  REAL(open64);
  MODE(flags)
  if (WRITES(flags) && inside(path) && fails()) return -1;
  return real(path, flags, mode);
}
int openat(int base, const char* path, int flags, ...) {
  REAL(openat);
  MODE(flags)
  if (WRITES(flags) && inside(path) && fails()) return -1;
  return real(base, path, flags, mode);
}
ssize_t write(int fd, const void* data, size_t size) {
  REAL(write);
  if (inside_descriptor(fd) && fails()) return -1;
  return real(fd, data, size);
}
ssize_t pwrite64(int fd, const void* data, size_t size, off64_t place) {
  REAL(pwrite64);
  if (inside_descriptor(fd) && fails()) return -1;
  return real(fd, data, size, place);
}
ssize_t writev(int fd, const struct iovec* parts, int number) {
  REAL(writev);
  if (inside_descriptor(fd) && fails()) return -1;
  return real(fd, parts, number);
}
int fsync(int fd) {
  REAL(fsync);
  if (inside_descriptor(fd) && fails()) return -1;
  return real(fd);
}
int ftruncate64(int fd, off64_t size) {
  REAL(ftruncate64);
  if (inside_descriptor(fd) && fails()) return -1;
  return real(fd, size);
}
int rename(const char* from, const char* to) {
  REAL(rename);
  if (inside(to) && fails()) return -1;
  return real(from, to);
}
int unlink(const char* path) {
  REAL(unlink);
  if (inside(path) && fails()) return -1;
  return real(path);
}
int mkdir(const char* path, mode_t mode) {
  REAL(mkdir);
  if (inside(path) && fails()) return -1;
  return real(path, mode);
}
