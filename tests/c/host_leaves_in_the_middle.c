/*
 * Processes and threads that end, or jump away, at any moment while they are inside the store: the others go on at once,
 * and nobody's sessions are lost. The one thing that costs time is a signal handler that jumps out of the library with
 * longjmp while it is writing: the others leave the generation behind that it holds, after a second.
 */
#include "check.h"
#include "tls.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>

enum { THREADS = 3, RECORD = 40000 };

static sesscache *cache;
static unsigned char record[RECORD];

static sesscache_status put(int n, size_t len)
{
    char id[16];

    snprintf(id, sizeof id, "r%d", n);
    return sesscache_put(cache, (const unsigned char *)id, strlen(id), record, len, (int64_t)time(NULL) + 600);
}

static sesscache_status get(int n)
{
    static _Thread_local unsigned char data[RECORD];
    size_t len = sizeof data;
    char id[16];

    snprintf(id, sizeof id, "r%d", n);
    return sesscache_get(cache, (const unsigned char *)id, strlen(id), data, &len);
}

/* Under an id that nobody has used. One that lies in a generation left behind is refused until its gate is free. */
static sesscache_status put_new(void)
{
    static int n = 1000000;

    return put(n++, 200);
}

static void *work(void *argument)
{
    int n = *(const int *)argument;

    for (int i = 0;; i = (i + 1) % 20) {
        (void)put(100 * n + i, i % 4 == 0 ? RECORD : 200);
        (void)get(100 * n + i);
        pthread_testcancel();
    }
    return NULL;
}

static pthread_t threads[THREADS];
static int numbers[THREADS] = {1, 2, 3};

static void start_threads(void)
{
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, work, &numbers[i]) == 0, "pthread_create");
}

static void leave_by_exit(void)
{
    exit(0);
}

static void leave_by_underscore_exit(void)
{
    _exit(0);
}

static void leave_by_sigkill(void)
{
    raise(SIGKILL);
}

static void *end_process_later(void *argument)
{
    check_sleep(0.01);
    _exit(0);
    return argument;
}

/* The main thread ends alone; the others go on until one of them ends the process. */
static void leave_by_pthread_exit(void)
{
    pthread_t last;

    CHECK(pthread_create(&last, NULL, end_process_later, NULL) == 0, "pthread_create");
    pthread_exit(NULL);
}

static const struct {
    const char *name;
    void (*leave)(void);
    int signal;
} ways[] = {
    {"exit", leave_by_exit, 0},
    {"_exit", leave_by_underscore_exit, 0},
    {"abort", abort, SIGABRT},
    {"pthread_exit", leave_by_pthread_exit, 0},
    {"SIGKILL", leave_by_sigkill, SIGKILL},
};

/* Both in this process and in one that opens the store now, each within two seconds. */
static void expect_others_go_on(const char *store, const char *options, const struct saved *session, const char *why)
{
    double start = check_now();
    sesscache_status status;

    while ((status = put_new()) != SESSCACHE_OK && check_now() - start < check_patience(2))
        check_sleep(0.001);
    CHECK(status == SESSCACHE_OK, "%s: others cannot store for two seconds", why);
    CHECK(tls_resumes_elsewhere(store, options, TLS1_2_VERSION, session), "%s: a session of others is lost", why);
}

static void a_process_that_ends_while_its_threads_are_in_the_store_stops_nobody(const char *scratch)
{
    static const char *const options[] = {"guard=off", "guard=on"};
    const struct rlimit none = {0, 0};
    int rounds = getenv("SESSCACHE_LONG") != NULL ? 200 : 12;

    CHECK(setrlimit(RLIMIT_CORE, &none) == 0, "setrlimit: %s", strerror(errno));
    for (int o = 0; o < 2; o++) {
        char *store = path_in(scratch, options[o]);
        SSL_CTX *ctx = tls_server();
        struct outcome made;
        uint64_t generation;

        CHECK_OK(sesscache_open(store, options[o], &cache));
        CHECK_OK(sesscache_attach(cache, ctx));
        made = tls_here(ctx, (struct visit){.version = TLS1_2_VERSION});
        generation = tls_stats(cache).generation;
        for (int n = 0; n < rounds * (int)TESTS(ways); n++) {
            int way = n % (int)TESTS(ways), status;
            pid_t pid = check_fork();

            if (pid == 0) {
                start_threads();
                check_sleep(0.002 + 0.0003 * (n % 17));
                ways[way].leave();
            }
            CHECK(waitpid(pid, &status, 0) == pid, "waitpid: %s", strerror(errno));
            CHECK(ways[way].signal != 0 ? WIFSIGNALED(status) && WTERMSIG(status) == ways[way].signal
                                        : WIFEXITED(status) && WEXITSTATUS(status) == 0,
                  "a process that leaves by %s ends with status %#x", ways[way].name, (unsigned int)status);
            expect_others_go_on(store, options[o], &made.newest, ways[way].name);
        }
        CHECK(tls_stats(cache).generation == generation, "%s: all sessions are given up because processes ended", options[o]);
        SSL_CTX_free(ctx);
        sesscache_close(cache);
    }
}

/* pthread_cancel(3) unwinds through whatever calls a cancellation point: write(2) and its like, as LMDB with guard=on does. */
static void a_thread_that_is_cancelled_stops_nobody(const char *scratch)
{
    static const char *const options[] = {"guard=off", "guard=on"};
    int rounds = getenv("SESSCACHE_LONG") != NULL ? 3000 : 150;

    for (int o = 0; o < 2; o++) {
        char *store = path_in(scratch, options[o]);
        SSL_CTX *ctx = tls_server();
        struct outcome made;
        sesscache_stats stats;
        uint64_t generation;

        CHECK_OK(sesscache_open(store, options[o], &cache));
        CHECK_OK(sesscache_attach(cache, ctx));
        made = tls_here(ctx, (struct visit){.version = TLS1_2_VERSION});
        generation = tls_stats(cache).generation;
        for (int n = 0; n < rounds; n++) {
            start_threads();
            check_sleep(0.0002 * (n % 7));
            for (int i = 0; i < THREADS; i++)
                CHECK(pthread_cancel(threads[i]) == 0, "pthread_cancel");
            for (int i = 0; i < THREADS; i++) {
                void *result;

                CHECK(pthread_join(threads[i], &result) == 0 && result == PTHREAD_CANCELED, "a thread is not cancelled");
            }
            CHECK(put(1, 200) == SESSCACHE_OK, "%s: the process cannot store after a thread was cancelled", options[o]);
        }
        expect_others_go_on(store, options[o], &made.newest, "pthread_cancel");
        stats = tls_stats(cache);
        CHECK(stats.generation == generation, "%s: all sessions are given up because threads ended", options[o]);
        CHECK(stats.misses_unavailable == 0 && stats.puts_failed == 0, "%s: a thread that ended left its process without a store", options[o]);
        SSL_CTX_free(ctx);
        sesscache_close(cache);
    }
}

/* ---- longjmp out of a signal handler ---- */

static sigjmp_buf out;
static volatile sig_atomic_t inside;

static void jump(int number)
{
    (void)number;
    if (inside) {
        inside = 0;
        siglongjmp(out, 1);
    }
}

/* Puts until a timer strikes, in a process of its own which then stands still, alive. */
__attribute__((noreturn)) static void jump_out_of_a_put(int n, int ready)
{
    struct itimerval timer = {{0, 0}, {0, 100 + 13 * (n % 50)}};

    (void)put(2, RECORD);
    check_catch(SIGALRM, jump);
    if (sigsetjmp(out, 1) == 0) {
        inside = 1;
        CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0, "setitimer: %s", strerror(errno));
        for (;;)
            (void)put(2, RECORD);
    }
    /* The thread has lost its seat, or not: what it asks is answered, and at once. */
    double start = check_now();
    sesscache_status status = put_new();

    CHECK(status == SESSCACHE_OK || status == SESSCACHE_BUSY, "after a longjmp the same thread gets status %d", (int)status);
    CHECK(check_now() - start < check_patience(1), "after a longjmp the same thread waits for %.1f s", check_now() - start);
    CHECK(write(ready, status == SESSCACHE_OK ? "o" : "b", 1) == 1, "write: %s", strerror(errno));
    for (;;)
        pause();
}

static void a_longjmp_out_of_a_put_costs_the_others_a_second(const char *scratch)
{
    SSL_CTX *ctx = tls_server();
    struct outcome made;
    int held = 0, rounds = 0, least = getenv("SESSCACHE_LONG") != NULL ? 50 : 3;

    CHECK_OK(sesscache_open(store_in(scratch), NULL, &cache));
    CHECK_OK(sesscache_attach(cache, ctx));
    for (; held < least && rounds < 100 * least; rounds++) {
        int ends[2];
        char seat;
        double start;
        pid_t pid;

        /* A generation is read for as long as the next one is the newest: of two such jumps, the second costs older sessions. */
        made = tls_here(ctx, (struct visit){.version = TLS1_2_VERSION});
        CHECK(pipe(ends) == 0, "pipe: %s", strerror(errno));
        pid = check_fork();
        if (pid == 0)
            jump_out_of_a_put(rounds, ends[1]);
        CHECK(close(ends[1]) == 0 && read(ends[0], &seat, 1) == 1 && close(ends[0]) == 0, "a process that jumps away dies of it");
        start = check_now();
        if (put_new() != SESSCACHE_OK) {
            held++;
            while (put_new() != SESSCACHE_OK)
                CHECK(check_now() - start < check_patience(3), "nobody can store for three seconds after a longjmp out of a put");
            CHECK(check_now() - start < check_patience(2), "nobody can store for %.1f s after a longjmp out of a put", check_now() - start);
        }
        CHECK(tls_here(ctx, (struct visit){.version = TLS1_2_VERSION, .offer = &made.newest}).resumed,
              "a longjmp in one process costs another its session");
        CHECK(kill(pid, SIGKILL) == 0 && waitpid(pid, NULL, 0) == pid, "waitpid: %s", strerror(errno));
    }
    CHECK(held > 0, "in %d rounds no jump left the gate held: this test looks in the wrong place", rounds);
    printf("%d jumps, %d of them with the gate held\n", rounds, held);
    SSL_CTX_free(ctx);
    sesscache_close(cache);
}

/* ---- children without end ---- */

/* Each takes a reader slot, of which there are 16, and ends without giving it back. */
static void a_process_per_connection_never_runs_out_of_reader_slots(const char *scratch)
{
    enum { AT_ONCE = 4 };
    int children = getenv("SESSCACHE_LONG") != NULL ? 10000 : 2000;
    SSL_CTX *ctx = tls_server();
    pid_t pids[AT_ONCE] = {0};
    struct outcome made;
    sesscache_stats stats;

    CHECK_OK(sesscache_open(store_in(scratch), "readers=16 deadline=10s", &cache));
    CHECK_OK(sesscache_attach(cache, ctx));
    CHECK_OK(put(1, 200));
    made = tls_here(ctx, (struct visit){.version = TLS1_2_VERSION});
    for (int n = 0; n < children; n++) {
        if (pids[n % AT_ONCE] != 0)
            check_wait(pids[n % AT_ONCE], "a child");
        pids[n % AT_ONCE] = check_fork();
        if (pids[n % AT_ONCE] == 0) {
            CHECK_OK(get(1));
            if (n % 20 == 0)
                CHECK(tls_here(ctx, (struct visit){.version = TLS1_2_VERSION, .offer = &made.newest}).resumed,
                      "child %d does not resume", n);
            if (n % 3 == 0)
                raise(SIGKILL);
            _exit(0);
        }
        if (n % 3 == 0) {
            int status;

            CHECK(waitpid(pids[n % AT_ONCE], &status, 0) == pids[n % AT_ONCE], "waitpid: %s", strerror(errno));
            CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "child %d fails", n);
            pids[n % AT_ONCE] = 0;
        }
    }
    for (int i = 0; i < AT_ONCE; i++)
        if (pids[i] != 0)
            check_wait(pids[i], "a child");
    stats = tls_stats(cache);
    CHECK(stats.misses_unavailable == 0, "%llu lookups of children found no reader slot", (unsigned long long)stats.misses_unavailable);
    CHECK(stats.generation == 1 || stats.puts_failed == 0, "the store is given up");
    SSL_CTX_free(ctx);
    sesscache_close(cache);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(a_process_that_ends_while_its_threads_are_in_the_store_stops_nobody),
        TEST(a_thread_that_is_cancelled_stops_nobody),
        TEST(a_longjmp_out_of_a_put_costs_the_others_a_second),
        TEST(a_process_per_connection_never_runs_out_of_reader_slots),
    };

    /* Threads that use OpenSSL while its own atexit handler cleans up crash, cache or not: exit(3) is to run ours alone. */
    CHECK(OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, NULL) == 1, "OPENSSL_init_crypto");
    return check_main(argc, argv, tests, TESTS(tests));
}
