/* Replaces system calls to imitate a system with fewer features. tests/faults.rs compiles this file
 * and loads it with LD_PRELOAD. */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* With NO_LOCKS set: a file system without locks. */
int flock(int fd, int operation) {
  if (getenv("NO_LOCKS")) {
    errno = EOPNOTSUPP;
    return -1;
  }
  return (int)syscall(SYS_flock, fd, operation);
}

/* With NO_LOCKS set: a file system that cannot fsync a directory. */
int fsync(int fd) {
  struct stat found;
  if (getenv("NO_LOCKS") && fstat(fd, &found) == 0 && S_ISDIR(found.st_mode)) {
    errno = EINVAL;
    return -1;
  }
  return (int)syscall(SYS_fsync, fd);
}

/* With CLOCK set: a clock that shows CLOCK seconds after the epoch, as one that was never set. */
int clock_gettime(clockid_t clock, struct timespec *time) {
  int result = (int)syscall(SYS_clock_gettime, clock, time);
  const char *seconds = getenv("CLOCK");
  if (seconds && clock == CLOCK_REALTIME) time->tv_sec = atoll(seconds);
  return result;
}
