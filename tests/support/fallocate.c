/*
 * A file system whose fallocate(2) is slow, or that never gets to the end of it for signals: preloaded into a worker process. The
 * environment says which: SESSCACHE_TEST_FALLOCATE is milliseconds, or 0 for EINTR at each call. A call that asks for more than
 * a quarter of a MiB ends the process: what takes 70 microseconds for that takes minutes for all of a large file.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define LONGEST (256 << 10)

static int reserve(int fd, int mode, off_t offset, off_t len)
{
    const char *setting = getenv("SESSCACHE_TEST_FALLOCATE");
    long millis = setting == NULL ? 0 : atol(setting);
    struct timespec pause = {millis / 1000, millis % 1000 * 1000000};

    if (len > LONGEST)
        abort();
    if (millis == 0) {
        errno = EINTR;
        return -1;
    }
    nanosleep(&pause, NULL);
    return (int)syscall(SYS_fallocate, fd, mode, offset, len);
}

int fallocate(int fd, int mode, off_t offset, off_t len)
{
    return reserve(fd, mode, offset, len);
}

int posix_fallocate(int fd, off_t offset, off_t len)
{
    return reserve(fd, 0, offset, len) == 0 ? 0 : errno;
}
