/*
 * Hosts that close descriptors they know nothing of, or begin without some: a daemon that closes every number from 3 on
 * while the store is open, and gives the numbers to files of its own. No page of the store may land in them, no lock
 * may be set on them, none may be closed, and sessions go on.
 */
#include "check.h"
#include "tls.h"

#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <stdatomic.h>
#include <syslog.h>

extern char **environ;

enum { OWN = 24 };

static const char line[] = "a line of the host's own log\n";

/* Files of the host under the numbers that are free. */
struct own {
    int fds[OWN];
    ino_t inodes[OWN];
};

static struct own open_own(const char *scratch)
{
    struct own own;

    for (int i = 0; i < OWN; i++) {
        char name[32];
        struct stat status;

        snprintf(name, sizeof name, "log%d", i);
        own.fds[i] = open(path_in(scratch, name), O_RDWR | O_CREAT | O_APPEND, 0600);
        CHECK(own.fds[i] >= 0 && write(own.fds[i], line, sizeof line - 1) == sizeof line - 1 &&
              fstat(own.fds[i], &status) == 0, "%s: %s", name, strerror(errno));
        own.inodes[i] = status.st_ino;
    }
    return own;
}

/* As a process that did not open them sees locks: POSIX locks of this one do not hinder it. */
static void expect_no_lock(const char *scratch, int i)
{
    pid_t pid = check_fork();

    if (pid == 0) {
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        char name[32];
        int fd;

        snprintf(name, sizeof name, "log%d", i);
        fd = open(path_in(scratch, name), O_RDWR);
        CHECK(fd >= 0 && fcntl(fd, F_GETLK, &lock) == 0, "%s: %s", name, strerror(errno));
        CHECK(lock.l_type == F_UNLCK, "the store holds a lock on a file of the host (bytes from %lld)", (long long)lock.l_start);
        _exit(0);
    }
    check_wait(pid, "who looks for locks");
}

static void expect_untouched(const char *scratch, const struct own *own, const char *when)
{
    for (int i = 0; i < OWN; i++) {
        struct stat status;
        char text[sizeof line];

        CHECK(fstat(own->fds[i], &status) == 0, "%s: descriptor %d of the host is closed", when, own->fds[i]);
        CHECK(status.st_ino == own->inodes[i], "%s: descriptor %d of the host leads elsewhere", when, own->fds[i]);
        CHECK(status.st_size == sizeof line - 1, "%s: a file of the host has %lld bytes instead of %zu: pages of the store are in it",
              when, (long long)status.st_size, sizeof line - 1);
        CHECK(pread(own->fds[i], text, sizeof text, 0) == sizeof line - 1 && memcmp(text, line, sizeof line - 1) == 0,
              "%s: a file of the host is overwritten", when);
        if (i < 4)
            expect_no_lock(scratch, i);
    }
}

static atomic_int messages;
static char said[512];

static void on_message(void *userdata, int level, const char *text)
{
    (void)userdata;
    if (level > LOG_WARNING)
        return;
    atomic_fetch_add(&messages, 1);
    snprintf(said + strlen(said), sizeof said - strlen(said), "\n  %s", text);
}

/* A connection by either version; both resume what was made a moment ago. */
static void expect_service(SSL_CTX *ctx, const char *when)
{
    for (int v = 0; v < 2; v++) {
        struct outcome made = tls_here(ctx, (struct visit){.version = tls_versions[v]});

        CHECK(tls_here(ctx, (struct visit){.version = tls_versions[v], .offer = &made.newest}).resumed,
              "%s: %s does not resume", when, tls_name(tls_versions[v]));
    }
}

/* Another thread, with a reader slot of its own from before. */
static SSL_CTX *threads_ctx;
static struct saved threads_session;
static atomic_int stage;

static void *resume_at_each_stage(void *argument)
{
    for (int next = 1; next <= 3; next++) {
        while (atomic_load(&stage) < next)
            check_sleep(0.001);
        CHECK(tls_here(threads_ctx, (struct visit){.version = TLS1_2_VERSION, .offer = &threads_session}).resumed,
              "a thread that used the store before does not resume at stage %d", next);
        atomic_fetch_add((atomic_int *)argument, 1);
    }
    return NULL;
}

static void let_thread_pass(atomic_int *passed, int next)
{
    atomic_store(&stage, next);
    while (atomic_load(passed) < next)
        check_sleep(0.001);
}

static void close_all_while_the_store_is_open(const char *scratch, const char *options)
{
    char *store = path_in(scratch, options);
    SSL_CTX *ctx = tls_server();
    sesscache *cache;
    struct outcome before;
    sesscache_stats first, last;
    atomic_int passed = 0;
    pthread_t thread;
    struct own own;

    CHECK_OK(sesscache_open(store, options, &cache));
    CHECK_OK(sesscache_attach(cache, ctx));
    before = tls_here(ctx, (struct visit){.version = TLS1_2_VERSION});
    first = tls_stats(cache);
    threads_ctx = ctx;
    threads_session = before.newest;
    atomic_store(&stage, 0);
    CHECK(pthread_create(&thread, NULL, resume_at_each_stage, &passed) == 0, "pthread_create");
    let_thread_pass(&passed, 1);

    closefrom(3);
    own = open_own(scratch);
    CHECK(tls_here(ctx, (struct visit){.version = TLS1_2_VERSION, .offer = &before.newest}).resumed,
          "%s: a session from before does not resume after closefrom", options);
    /* A first put may be lost where it would have been written through a descriptor. */
    (void)tls_here(ctx, (struct visit){.version = TLS1_3_VERSION});
    expect_service(ctx, "after closefrom");
    expect_untouched(scratch, &own, "after closefrom");

    /* Who opens the store now finds no lock of this process; who buries the dead finds this one dead. */
    check_sleep(1.1);
    CHECK(tls_resumes_elsewhere(store, options, TLS1_2_VERSION, &before.newest), "%s: another process does not resume", options);
    let_thread_pass(&passed, 2);
    expect_service(ctx, "after others took this process for dead");
    CHECK(tls_resumes_elsewhere(store, options, TLS1_2_VERSION, &before.newest), "%s: another process does not resume", options);
    last = tls_stats(cache);
    CHECK(last.generation == first.generation, "%s: the sessions of everybody are given up", options);
    expect_untouched(scratch, &own, "a second later");
    let_thread_pass(&passed, 3);

    /* What was open is let go of: nothing of the host may go with it. */
    CHECK_OK(sesscache_flush(cache));
    expect_service(ctx, "after a flush");
    CHECK(pthread_join(thread, NULL) == 0, "pthread_join");
    SSL_CTX_free(ctx);
    sesscache_close(cache);
    expect_untouched(scratch, &own, "after the end of the cache");
    for (int i = 0; i < OWN; i++) {
        char name[32];

        snprintf(name, sizeof name, "log%d", i);
        CHECK(close(own.fds[i]) == 0 && unlink(path_in(scratch, name)) == 0, "%s: %s", name, strerror(errno));
    }
}

static void a_host_that_closes_all_descriptors_finds_no_page_in_its_own_files(const char *scratch)
{
    close_all_while_the_store_is_open(scratch, "guard=off deadline=10s");
    close_all_while_the_store_is_open(scratch, "guard=on deadline=10s");
}

/* The n-th descriptor that leads into the store, or -1. */
static int descriptor_of(const char *store, int n)
{
    for (int fd = 3; fd < 64; fd++) {
        char name[32], target[PATH_MAX];
        ssize_t len;

        snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
        len = readlink(name, target, sizeof target);
        if (len > (ssize_t)strlen(store) && memcmp(target, store, strlen(store)) == 0 && n-- == 0)
            return fd;
    }
    return -1;
}

/* Each of the two or, with guard=on, three descriptors of the store is the only one lost once. */
static void any_single_descriptor_may_go(const char *scratch)
{
    static const char *const options[] = {"guard=off deadline=10s", "guard=on deadline=10s"};

    for (int o = 0; o < 2; o++) {
        char *store = path_in(scratch, options[o]);

        for (int n = 0; n < 2 + o; n++) {
            pid_t pid = check_fork();

            if (pid == 0) {
                SSL_CTX *ctx = tls_attached(store, options[o]);
                struct stat before, after;
                int fd, own;

                (void)tls_here(ctx, (struct visit){.version = TLS1_3_VERSION});
                fd = descriptor_of(store, n);
                own = open(path_in(scratch, "own"), O_RDWR | O_CREAT | O_TRUNC, 0600);
                CHECK(fd > 2 && descriptor_of(store, 2 + o) < 0, "the store has other descriptors than this test knows");
                CHECK(own >= 0 && dup2(own, fd) == fd && write(own, line, sizeof line - 1) > 0 && fstat(own, &before) == 0,
                      "dup2: %s", strerror(errno));
                (void)tls_here(ctx, (struct visit){.version = TLS1_3_VERSION});
                if (n == 0)
                    check_sleep(1.1);
                expect_service(ctx, "after one descriptor went");
                SSL_CTX_free(ctx);
                CHECK(fstat(fd, &after) == 0 && after.st_ino == before.st_ino && after.st_size == sizeof line - 1,
                      "%s: descriptor %d of the host is closed, or has pages of the store in it", options[o], fd);
                exit(0);
            }
            check_wait(pid, "a host that replaces one descriptor");
        }
    }
}

static void a_daemon_that_starts_after_the_first_session_goes_on(const char *scratch)
{
    static const char *const options[] = {"guard=off", "guard=on"};

    for (int o = 0; o < 2; o++) {
        char *store = path_in(scratch, options[o]);
        SSL_CTX *ctx = tls_attached(store, options[o]);
        struct outcome before = tls_here(ctx, (struct visit){.version = TLS1_2_VERSION});
        pid_t pid = check_fork();

        if (pid == 0) {
            /* As daemon(7) has it, but for the second fork's orphan: the test waits for it. */
            CHECK(setsid() > 0, "setsid: %s", strerror(errno));
            pid = check_fork();
            if (pid == 0) {
                struct own own;

                closefrom(3);
                own = open_own(scratch);
                CHECK(chdir("/") == 0, "chdir: %s", strerror(errno));
                CHECK(tls_here(ctx, (struct visit){.version = TLS1_2_VERSION, .offer = &before.newest}).resumed,
                      "%s: a session from before the daemon began does not resume in it", options[o]);
                expect_service(ctx, "in a daemon");
                expect_untouched(scratch, &own, "in a daemon");
                exit(0);
            }
            check_wait(pid, "the daemon");
            exit(0);
        }
        check_wait(pid, "the process that becomes a daemon");
        CHECK(tls_here(ctx, (struct visit){.version = TLS1_2_VERSION, .offer = &before.newest}).resumed,
              "%s: the parent of a daemon does not resume", options[o]);
        SSL_CTX_free(ctx);
        for (int i = 0; i < OWN; i++) {
            char name[32];

            snprintf(name, sizeof name, "log%d", i);
            CHECK(unlink(path_in(scratch, name)) == 0, "%s: %s", name, strerror(errno));
        }
    }
}

static void a_host_without_stdio_writes_nothing_into_the_store(const char *scratch)
{
    static const char *const options[] = {"guard=off", "guard=on"};
    int spare = fcntl(2, F_DUPFD_CLOEXEC, 64);

    CHECK(spare >= 0, "fcntl: %s", strerror(errno));
    for (int o = 0; o < 2; o++) {
        char *store = path_in(scratch, options[o]);
        struct outcome made;
        SSL_CTX *ctx;

        for (int fd = 0; fd < 3; fd++)
            (void)close(fd);
        ctx = tls_server();
        CHECK_OK(sesscache_enable(ctx, store, options[o]));
        /* The sockets of the connection itself take the numbers, so the store opens for a record first. */
        sesscache *cache;
        size_t len = 0;
        CHECK_OK(sesscache_open(store, options[o], &cache));
        CHECK(sesscache_get(cache, (const unsigned char *)"x", 1, NULL, &len) == SESSCACHE_NOT_FOUND, "a store of one's own");
        for (int fd = 0; fd < 3; fd++)
            CHECK(fcntl(fd, F_GETFD) < 0, "descriptor %d is occupied by the library", fd);
        /* What the host writes to its stdout and stderr then. */
        int log = open(path_in(scratch, "log"), O_RDWR | O_CREAT, 0600);
        CHECK(log == 0 && dup2(0, 1) == 1 && dup2(0, 2) == 2, "dup2: %s", strerror(errno));
        for (int i = 0; i < 1000; i++)
            CHECK(write(1 + i % 2, line, sizeof line - 1) > 0, "write: %s", strerror(errno));
        made = tls_here(ctx, (struct visit){.version = TLS1_2_VERSION});
        CHECK(dup2(spare, 2) == 2 && dup2(spare, 1) == 1, "dup2: %s", strerror(errno));
        CHECK(tls_resumes_elsewhere(store, options[o], TLS1_2_VERSION, &made.newest),
              "%s: what the host wrote to its stdout is in the store", options[o]);
        sesscache_close(cache);
        SSL_CTX_free(ctx);
    }
}

/* Both run the program in a child that shares the memory of this process until it does. */
static pid_t start_by_vfork(char *const arguments[])
{
    pid_t pid = vfork();

    if (pid == 0) {
        execvp(arguments[0], arguments);
        _exit(127);
    }
    return pid;
}

static pid_t start_by_spawn(char *const arguments[])
{
    pid_t pid;

    return posix_spawnp(&pid, arguments[0], NULL, NULL, arguments, environ) == 0 ? pid : -1;
}

static void a_program_started_without_a_fork_inherits_nothing_of_the_store(const char *scratch)
{
    static pid_t (*const ways[])(char *const[]) = {start_by_vfork, start_by_spawn};
    static const char *const options[] = {"guard=off", "guard=on"};

    for (int n = 0; n < 4; n++) {
        SSL_CTX *ctx = tls_attached(path_in(scratch, options[n % 2]), options[n % 2]);
        struct outcome made = tls_here(ctx, (struct visit){.version = TLS1_2_VERSION});
        char *script, *arguments[] = {"sh", "-c", NULL, NULL};
        pid_t pid;

        CHECK(asprintf(&script, "ls -l /proc/self/fd | grep -F '%s'; test $? -eq 1", scratch) > 0, "out of memory");
        arguments[2] = script;
        pid = ways[n / 2](arguments);
        CHECK(pid > 0, "no child: %s", strerror(errno));
        check_wait(pid, "a program that inherits descriptors of the store");
        CHECK(tls_here(ctx, (struct visit){.version = TLS1_2_VERSION, .offer = &made.newest}).resumed,
              "the parent does not resume after it started a program");
        SSL_CTX_free(ctx);
    }
}

/* ---- the store is out of reach when it is first used ---- */

/* Sessions from memory, errors none, and one message: not one per connection. */
static void expect_service_without_a_store(SSL_CTX *ctx, const char *why)
{
    atomic_store(&messages, 0);
    for (int n = 0; n < 5; n++)
        expect_service(ctx, why);
    CHECK(atomic_load(&messages) == 1, "%s: %d messages instead of one:%s", why, atomic_load(&messages), said);
}

static void leave_for_another_root(const char *scratch)
{
    char *empty = path_in(scratch, "empty");

    CHECK((mkdir(empty, 0755) == 0 || errno == EEXIST) && chroot(empty) == 0 && chdir("/") == 0, "chroot: %s", strerror(errno));
}

static void become_nobody(const char *scratch)
{
    (void)scratch;
    CHECK(setgid(65534) == 0 && setuid(65534) == 0, "setuid: %s", strerror(errno));
}

static void a_store_out_of_reach_costs_no_handshake(const char *scratch)
{
    static const struct {
        const char *name;
        void (*leave)(const char *scratch);
    } ways[] = {{"chroot", leave_for_another_root}, {"setuid", become_nobody}};

    if (geteuid() != 0)
        check_not_tried("chroot and setuid need root");
    for (int used = 0; used < 2; used++) {
        for (int way = 0; way < 2; way++) {
            SSL_CTX *ctx = tls_server();
            sesscache *cache;
            pid_t pid;

            CHECK_OK(sesscache_open(store_in(scratch), NULL, &cache));
            sesscache_set_log(cache, on_message, NULL);
            CHECK_OK(sesscache_attach(cache, ctx));
            /* With a store that the parent has used, and with one that nobody has. */
            if (used)
                (void)tls_here(ctx, (struct visit){.version = TLS1_3_VERSION});
            (void)tls_credentials(SERVER_P256);
            pid = check_fork();
            if (pid == 0) {
                ways[way].leave(scratch);
                expect_service_without_a_store(ctx, ways[way].name);
                exit(0);
            }
            check_wait(pid, ways[way].name);
            SSL_CTX_free(ctx);
            sesscache_close(cache);
        }
    }
}

/* Whoever has opened the store before goes on: nothing is opened again. */
static void a_store_opened_before_the_change_of_root_and_user_goes_on(const char *scratch)
{
    if (geteuid() != 0)
        check_not_tried("chroot and setuid need root");
    SSL_CTX *ctx = tls_attached(store_in(scratch), NULL);
    struct outcome before = tls_here(ctx, (struct visit){.version = TLS1_2_VERSION});
    leave_for_another_root(scratch);
    become_nobody(scratch);
    for (int n = 0; n < 3; n++) {
        CHECK(tls_here(ctx, (struct visit){.version = TLS1_2_VERSION, .offer = &before.newest}).resumed,
              "a session does not resume after chroot and setuid, try %d", n + 1);
        expect_service(ctx, "after chroot and setuid");
        check_sleep(0.6);
    }
    SSL_CTX_free(ctx);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(a_host_that_closes_all_descriptors_finds_no_page_in_its_own_files),
        TEST(any_single_descriptor_may_go),
        TEST(a_daemon_that_starts_after_the_first_session_goes_on),
        TEST(a_host_without_stdio_writes_nothing_into_the_store),
        TEST(a_program_started_without_a_fork_inherits_nothing_of_the_store),
        TEST(a_store_out_of_reach_costs_no_handshake),
        TEST(a_store_opened_before_the_change_of_root_and_user_goes_on),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
