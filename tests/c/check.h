/*
 * What the C tests share: a check that says what a user would notice, and a runner that gives each test
 * its own process, its own scratch directory and a deadline, and leaves nothing behind.
 *
 * Include this file first: it asks for the GNU names of the C library.
 */
#ifndef CHECK_H
#define CHECK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <openssl/err.h>
#include <sesscache.h>

/* Seconds one test may take on a usual machine before its whole process group is killed. */
#ifndef CHECK_DEADLINE
#define CHECK_DEADLINE 60
#endif

/* The exit status of a test that could not be tried here. */
#define CHECK_NOT_TRIED 77

/* The message says what a user of the library would notice; it may be a printf format with arguments. */
#define CHECK(condition, ...) \
    ((condition) ? (void)0 : check_fail(__FILE__, __LINE__, #condition, __VA_ARGS__))

/* A call into the library that has to succeed. */
#define CHECK_OK(call) check_ok(__FILE__, __LINE__, #call, (call))

/* A test gets the path of a scratch directory of its own; the store goes to `store_in(scratch)`. */
struct test {
    const char *name;
    void (*run)(const char *scratch);
};
#define TEST(function) {#function, function}
#define TESTS(table) (sizeof (table) / sizeof (table)[0])

/* Ends this process only; the runner kills what the test started and removes its files. */
__attribute__((noreturn, format(printf, 4, 5))) static inline void
check_fail(const char *file, int line, const char *condition, const char *format, ...)
{
    va_list arguments;

    flockfile(stderr);
    fprintf(stderr, "%s:%d: ", file, line);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "\n    failed: %s\n    sesscache_errmsg: %s\n", condition, sesscache_errmsg());
    ERR_print_errors_fp(stderr);
    fflush(stderr);
    _exit(1);
}

static inline void check_ok(const char *file, int line, const char *call, sesscache_status status)
{
    if (status != SESSCACHE_OK)
        check_fail(file, line, call, "the call failed with status %d, %s", (int)status, sesscache_strerror((int)status));
}

/* A path below the scratch directory; lives as long as the process. */
static inline char *path_in(const char *scratch, const char *name)
{
    char *path;

    CHECK(asprintf(&path, "%s/%s", scratch, name) > 0, "out of memory");
    return path;
}

static inline char *store_in(const char *scratch)
{
    return path_in(scratch, "store");
}

/* fork() whose child dies with its parent, so that no test leaves a process behind. */
static inline pid_t check_fork(void)
{
    pid_t parent = getpid(), pid;

    CHECK(fflush(NULL) == 0, "output is lost");
    pid = fork();
    CHECK(pid >= 0, "fork: %s", strerror(errno));
    if (pid == 0) {
        CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0, "prctl: %s", strerror(errno));
        if (getppid() != parent)
            _exit(1);
    }
    return pid;
}

/* The child has to end by itself and with success; it has reported what went wrong otherwise. */
static inline void check_wait(pid_t pid, const char *what)
{
    int status;

    while (waitpid(pid, &status, 0) != pid)
        CHECK(errno == EINTR, "waitpid: %s", strerror(errno));
    CHECK(!WIFSIGNALED(status), "%s: died of signal %d", what, WTERMSIG(status));
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s: exit status %d", what, WEXITSTATUS(status));
}

/* Ends the test: it needs what this machine, or its user, does not have. */
__attribute__((noreturn)) static inline void check_not_tried(const char *why)
{
    printf("not tried: %s\n", why);
    exit(CHECK_NOT_TRIED);
}

/* A wait that is long enough on a usual machine, in seconds, as long as this one needs; tests/support has the same. */
static inline double check_patience(double usual)
{
    const char *slowness = getenv("SESSCACHE_TEST_SLOWNESS");
    double factor = slowness == NULL ? 1 : atof(slowness);

    CHECK(factor >= 1 && factor <= 1000, "SESSCACHE_TEST_SLOWNESS=%s is no number from 1 to 1000", slowness);
    return usual * factor;
}

static inline double check_now(void)
{
    struct timespec now;

    CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0, "clock_gettime: %s", strerror(errno));
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static inline void check_sleep(double seconds)
{
    struct timespec left;

    left.tv_sec = (time_t)seconds;
    left.tv_nsec = (long)((seconds - (double)left.tv_sec) * 1e9);
    while (nanosleep(&left, &left) != 0)
        CHECK(errno == EINTR, "nanosleep: %s", strerror(errno));
}

static inline int check_unlink_entry(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status;
    (void)type;
    (void)walk;
    return remove(path);
}

/* Removes a directory with all that is in it. */
static inline int check_remove_tree(const char *path)
{
    return nftw(path, check_unlink_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* The signal that ends the test under way: SIGALRM from the deadline, or one sent to stop the program. */
static volatile sig_atomic_t check_signal;

static inline void check_on_signal(int number)
{
    check_signal = number;
}

static inline void check_catch(int number, void (*handler)(int))
{
    struct sigaction action;

    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    CHECK(sigaction(number, &action, NULL) == 0, "sigaction: %s", strerror(errno));
}

static inline void check_test_process(const struct test *test, const char *scratch)
{
    static const int caught[] = {SIGALRM, SIGINT, SIGTERM, SIGHUP};
    size_t i;

    CHECK(setpgid(0, 0) == 0, "setpgid: %s", strerror(errno));
    for (i = 0; i < sizeof caught / sizeof caught[0]; i++)
        check_catch(caught[i], SIG_DFL);
    /* A peer that hangs up is an error code in these tests. */
    check_catch(SIGPIPE, SIG_IGN);
    test->run(scratch);
    exit(0);
}

/* Runs one test in a process group of its own; 0 when it passed. */
static inline int check_run(const struct test *test)
{
    const char *tmp = getenv("TMPDIR");
    char pattern[PATH_MAX], scratch[PATH_MAX];
    int status = 0, failed = 1;
    unsigned deadline = (unsigned)check_patience(CHECK_DEADLINE);
    pid_t pid;

    snprintf(pattern, sizeof pattern, "%s/sesscache-test-XXXXXX", tmp != NULL && *tmp != '\0' ? tmp : "/tmp");
    CHECK(mkdtemp(pattern) != NULL, "mkdtemp %s: %s", pattern, strerror(errno));
    CHECK(realpath(pattern, scratch) != NULL, "realpath %s: %s", pattern, strerror(errno));

    check_signal = 0;
    pid = check_fork();
    if (pid == 0)
        check_test_process(test, scratch);
    (void)setpgid(pid, pid);
    alarm(deadline);
    while (waitpid(pid, &status, 0) != pid) {
        if (check_signal != 0)
            (void)kill(-pid, SIGKILL);
    }
    alarm(0);
    (void)kill(-pid, SIGKILL);

    if (check_signal == SIGALRM)
        fprintf(stderr, "%s: hangs, killed after %u seconds\n", test->name, deadline);
    else if (check_signal != 0)
        fprintf(stderr, "%s: stopped by signal %d\n", test->name, (int)check_signal);
    else if (WIFSIGNALED(status))
        fprintf(stderr, "%s: died of signal %d (%s)\n", test->name, WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        failed = WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != CHECK_NOT_TRIED;
    if (check_remove_tree(scratch) != 0) {
        fprintf(stderr, "%s: cannot remove %s: %s\n", test->name, scratch, strerror(errno));
        failed = 1;
    }
    printf("%s %s\n", failed ? "FAILED" : WEXITSTATUS(status) == CHECK_NOT_TRIED ? "left out" : "ok", test->name);
    return failed;
}

/* Runs all tests in turn, or the one named on the command line; stops at the first failure. */
static inline int check_main(int argc, char **argv, const struct test *tests, size_t count)
{
    size_t i, run = 0;

    check_catch(SIGALRM, check_on_signal);
    check_catch(SIGINT, check_on_signal);
    check_catch(SIGTERM, check_on_signal);
    check_catch(SIGHUP, check_on_signal);
    for (i = 0; i < count; i++) {
        if (argc > 1 && strcmp(argv[1], tests[i].name) != 0)
            continue;
        run++;
        if (check_run(&tests[i]) != 0)
            return 1;
    }
    if (run == 0) {
        fprintf(stderr, "%s: no test of this name\n", argv[1]);
        return 1;
    }
    return 0;
}

#endif
