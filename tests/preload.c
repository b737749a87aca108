/* What is asked of the system, answered as a poorer one does: for LD_PRELOAD, and compiled by tests/faults.rs. */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* A file system without locks. */
int flock(int fd, int operation) {
    if (getenv("NO_LOCKS")) {
        errno = EOPNOTSUPP;
        return -1;
    }
    return (int)syscall(SYS_flock, fd, operation);
}

/* One that knows no fsync of a directory. */
int fsync(int fd) {
    struct stat found;
    if (getenv("NO_LOCKS") && fstat(fd, &found) == 0 && S_ISDIR(found.st_mode)) {
        errno = EINVAL;
        return -1;
    }
    return (int)syscall(SYS_fsync, fd);
}

/* A clock that was never set. */
int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = (int)syscall(SYS_clock_gettime, clock, time);
    const char *seconds = getenv("CLOCK");
    if (seconds && clock == CLOCK_REALTIME) time->tv_sec = atoll(seconds);
    return result;
}
