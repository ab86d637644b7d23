/*
 * A wall clock that a test sets: preloaded into a worker process, it moves or stops CLOCK_REALTIME, and with it time(3), which
 * OpenSSL 3.0 asks, and gettimeofday(2), which later versions ask, as the file named by SESSCACHE_TEST_CLOCK says, two 64-bit
 * numbers in nanoseconds: what to add, and where the clock stands still (0: it runs). All processes that map the same file have
 * the same time. The monotonic clocks are left alone: nobody can set those on a real machine either.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct setting {
    _Atomic int64_t added;
    _Atomic int64_t stands_at;
};

static struct setting *setting;
static int (*real_clock_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void start(void)
{
    const char *path = getenv("SESSCACHE_TEST_CLOCK");
    void *symbol = dlsym(RTLD_NEXT, "clock_gettime");
    int fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *map = fd >= 0 ? mmap(NULL, sizeof *setting, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;

    if (symbol == NULL || map == MAP_FAILED) {
        fprintf(stderr, "clock: SESSCACHE_TEST_CLOCK names no file of two numbers\n");
        abort();
    }
    close(fd);
    memcpy(&real_clock_gettime, &symbol, sizeof symbol);
    setting = map;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int64_t wanted, stands_at;

    /* Another preloaded library may ask before the constructor has run. */
    if (real_clock_gettime == NULL)
        start();
    if (real_clock_gettime(clock, now) != 0)
        return -1;
    if (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)
        return 0;
    stands_at = atomic_load(&setting->stands_at);
    wanted = stands_at != 0 ? stands_at
                            : now->tv_sec * INT64_C(1000000000) + now->tv_nsec + atomic_load(&setting->added);
    now->tv_sec = wanted / INT64_C(1000000000);
    now->tv_nsec = wanted % INT64_C(1000000000);
    return 0;
}

time_t time(time_t *now)
{
    struct timespec wall;

    if (clock_gettime(CLOCK_REALTIME_COARSE, &wall) != 0)
        return (time_t)-1;
    if (now != NULL)
        *now = wall.tv_sec;
    return wall.tv_sec;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec wall;

    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &wall) != 0)
        return -1;
    now->tv_sec = wall.tv_sec;
    now->tv_usec = wall.tv_nsec / 1000;
    return 0;
}
