/*
 * sesscache_hold(): a process that gives up the file system. A filter of system calls kills it at any call that is not in the list of
 * the manual page, or that its own connections need, whatever it does with the cache and whatever becomes of the store meanwhile.
 */
#include "check.h"
#include "filter.h"
#include "tls.h"

#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <syslog.h>

static sesscache *cache;
static atomic_int messages;
static char said[1024];

static void on_message(void *userdata, int level, const char *text)
{
    (void)userdata;
    (void)level;
    atomic_fetch_add(&messages, 1);
    snprintf(said + strlen(said), sizeof said - strlen(said), "\n  %s", text);
}

static void open_and_attach(SSL_CTX *ctx, const char *store, const char *options)
{
    CHECK_OK(sesscache_open(store, options, &cache));
    sesscache_set_log(cache, on_message, NULL);
    /* What it lies on is said at once, and is nothing of what happens here. */
    atomic_store(&messages, 0);
    CHECK_OK(sesscache_attach(cache, ctx));
    SSL_CTX_set_max_early_data(ctx, 16384);
}

static SSL_CTX *server(const char *store, const char *options)
{
    SSL_CTX *ctx = tls_server();

    open_and_attach(ctx, store, options);
    (void)tls_credentials(CLIENT_RSA);
    return ctx;
}

/* Both versions resume, in this process. */
static void expect_service(SSL_CTX *ctx, const char *when)
{
    for (int v = 0; v < 2; v++) {
        struct outcome made = tls_here(ctx, (struct visit){.version = tls_versions[v], .name = "a.example"});
        struct visit again = {.version = tls_versions[v], .name = "a.example", .offer = &made.newest};

        CHECK(tls_here(ctx, again).resumed, "%s: %s does not resume", when, tls_name(tls_versions[v]));
    }
}

static void log_out(SSL *ssl)
{
    CHECK_OK(sesscache_forget(ssl));
}

static void ask(SSL *ssl)
{
    tls_ask(ssl, SSL_VERIFY_PEER);
}

static void show(SSL *client)
{
    tls_show(client, CLIENT_RSA);
}

static int count_records(void *userdata, const unsigned char *id, size_t id_len, const void *data, size_t len, int64_t expires)
{
    (void)id, (void)id_len, (void)data, (void)len, (void)expires;
    ++*(int *)userdata;
    return 0;
}

/* Everything that a server does with a cache. */
static void use_all(SSL_CTX *ctx)
{
    struct outcome made;
    unsigned char id[8] = {0}, data[3000] = {0}, out[3000];
    size_t len = sizeof out, swept;
    int records = 0;

    expect_service(ctx, "under the filter");
    for (int v = 0; v < 2; v++) {
        made = tls_here(ctx, (struct visit){.version = tls_versions[v], .prepare = ask, .prepare_client = show});
        CHECK(tls_here(ctx, (struct visit){.version = tls_versions[v], .offer = &made.newest, .prepare = ask, .prepare_client = show}).resumed,
              "with a certificate %s does not resume", tls_name(tls_versions[v]));
        made = tls_here(ctx, (struct visit){.version = tls_versions[v], .finished = log_out});
        CHECK(!tls_here(ctx, (struct visit){.version = tls_versions[v], .offer = &made.newest}).resumed, "a login that was ended resumes");
    }
    made = tls_here(ctx, (struct visit){.version = TLS1_3_VERSION});
    CHECK(tls_here(ctx, (struct visit){.version = TLS1_3_VERSION, .offer = &made.newest, .early = "an order"}).early_accepted,
          "no early data is accepted: the store is not used");
    tls_change_id(&made.newest);
    CHECK(!tls_here(ctx, (struct visit){.version = TLS1_3_VERSION, .offer = &made.newest}).resumed, "a made up id resumes");

    /* The file grows and grows full, records are evicted and replaced. */
    for (int n = 0; n < 6000; n++) {
        memcpy(id, &n, sizeof n);
        CHECK_OK(sesscache_put(cache, id, sizeof id, data, sizeof data, time(NULL) + (n % 10 == 0 ? 1 : 600)));
    }
    memcpy(id, "another", 7);
    CHECK_OK(sesscache_put(cache, id, sizeof id, data, sizeof data, time(NULL) + 600));
    CHECK_OK(sesscache_put(cache, id, sizeof id, data, 10, time(NULL) + 600));
    CHECK_OK(sesscache_get(cache, id, sizeof id, out, &len));
    len = sizeof out;
    CHECK_OK(sesscache_each(cache, count_records, &records));
    CHECK(records > 100, "%d records are visited", records);
    CHECK_OK(sesscache_remove(cache, id, sizeof id));
    CHECK(tls_stats(cache).evicted > 0, "the store is not full: this test shows less than it says");
    /* Rounds of maintenance, beside sessions. */
    for (int round = 0; round < 3; round++) {
        check_sleep(1.05);
        expect_service(ctx, "a second later");
    }
    CHECK_OK(sesscache_sweep(cache, 1000, &swept));
}

/* Threads that were there before, and use the store for the first time. */
static SSL_CTX *threads_ctx;
static atomic_int threads_may_begin;

static void *serve_in_a_thread(void *unused)
{
    (void)unused;
    while (!atomic_load(&threads_may_begin))
        check_sleep(0.001);
    for (int n = 0; n < 10; n++)
        expect_service(threads_ctx, "in another thread");
    return NULL;
}

static void a_filter_with_the_documented_calls_kills_no_process_that_holds(const char *scratch)
{
    static const char *const options[] = {"capacity=8MiB deadline=10s", "capacity=8MiB deadline=10s guard=on", "capacity=8MiB deadline=10s hold=on"};

    for (int o = 0; o < 3; o++) {
        pid_t pid = check_fork();

        if (pid == 0) {
            SSL_CTX *ctx = server(path_in(scratch, options[o]), options[o]);
            pthread_t threads[3];

            threads_ctx = ctx;
            for (int n = 0; n < 3; n++)
                CHECK(pthread_create(&threads[n], NULL, serve_in_a_thread, NULL) == 0, "pthread_create");
            if (o == 2)
                /* The first use. */
                (void)tls_stats(cache);
            else
                CHECK_OK(sesscache_hold(cache));
            forbid_all_other_calls(o == 1 ? GUARD : 0);
            atomic_store(&threads_may_begin, 1);
            use_all(ctx);
            for (int n = 0; n < 3; n++)
                CHECK(pthread_join(threads[n], NULL) == 0, "pthread_join");
            CHECK(tls_stats(cache).hits_local == 0, "%s: sessions come from memory, though the store is there", options[o]);
            SSL_CTX_free(ctx);
            sesscache_close(cache);
            _exit(0);
        }
        check_wait(pid, options[o]);
    }
}

static void a_filter_with_the_calls_that_are_documented_for_opening_lets_a_process_open(const char *scratch)
{
    static const char *const options[] = {"capacity=8MiB", "capacity=8MiB guard=on", "capacity=8MiB owner=65534 group=65534"};

    for (int o = 0; o < 3; o++) {
        pid_t pid;

        if (o == 2 && geteuid() != 0)
            check_not_tried("owner= needs root");
        pid = check_fork();
        if (pid == 0) {
            SSL_CTX *ctx[2] = {tls_server(), tls_server()};

            forbid_all_other_calls(BEFORE | (o == 1 ? GUARD : 0));
            for (int again = 0; again < 2; again++) {
                open_and_attach(ctx[again], path_in(scratch, options[o]), options[o]);
                expect_service(ctx[again], "without hold");
                CHECK_OK(sesscache_flush(cache));
                CHECK_OK(sesscache_hold(cache));
                expect_service(ctx[again], "after hold");
                SSL_CTX_free(ctx[again]);
                sesscache_close(cache);
            }
            _exit(0);
        }
        check_wait(pid, options[o]);
    }
}

/* The filter is one: without sesscache_hold() the first session ends the process. */
static void without_hold_the_filter_kills(const char *scratch)
{
    pid_t pid = check_fork();
    int status;

    if (pid == 0) {
        SSL_CTX *ctx = server(store_in(scratch), NULL);

        forbid_all_other_calls(0);
        expect_service(ctx, "without hold");
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid, "waitpid: %s", strerror(errno));
    if (WIFEXITED(status) && WEXITSTATUS(status) == CHECK_NOT_TRIED)
        check_not_tried("no filter of system calls can be set here");
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS, "a process that opens the store under the filter lives: status %d", status);
}

/* ---- what becomes of the store meanwhile ---- */

static void flush(const char *store)
{
    sesscache *own;

    CHECK_OK(sesscache_open(store, NULL, &own));
    CHECK_OK(sesscache_flush(own));
}

static void another_size(const char *store)
{
    CHECK(tls_here(tls_attached(store, "capacity=12MiB"), (struct visit){.version = TLS1_2_VERSION}).given > 0, "no session");
}

/* As an operator does, with a server that notices. */
static void other_keys(const char *store)
{
    SSL_CTX *ctx = tls_attached(store, NULL);
    char *key = path_in(store, "key"), *new = path_in(store, "key.new");
    char bytes[32] = "another key of thirty-two bytes";
    int fd;

    (void)tls_here(ctx, (struct visit){.version = TLS1_2_VERSION});
    fd = open(new, O_WRONLY | O_CREAT, 0600);
    CHECK(fd >= 0 && write(fd, bytes, sizeof bytes) == sizeof bytes && close(fd) == 0 && rename(new, key) == 0, "the key: %s", strerror(errno));
    for (int n = 0; n < 3; n++) {
        check_sleep(1.05);
        (void)tls_here(ctx, (struct visit){.version = TLS1_2_VERSION});
    }
}

static void no_directory(const char *store)
{
    CHECK(check_remove_tree(store) == 0, "cannot remove the store: %s", strerror(errno));
}

static void a_store_that_changes_leaves_a_process_that_holds_its_memory(const char *scratch)
{
    static const struct {
        const char *name;
        void (*change)(const char *store);
        int goes_on, says;
    } changes[] = {
        {"flush", flush, 0, 1},
        {"another capacity", another_size, 1, 1},
        {"other keys", other_keys, 0, 1},
        {"directory removed", no_directory, 1, 0},
    };

    for (size_t n = 0; n < TESTS(changes); n++) {
        char *store = path_in(scratch, changes[n].name);
        int go[2], ready[2];
        char byte;
        pid_t pid;

        CHECK(pipe(go) == 0 && pipe(ready) == 0, "pipe: %s", strerror(errno));
        pid = check_fork();
        if (pid == 0) {
            SSL_CTX *ctx = server(store, NULL);
            struct outcome before = tls_here(ctx, (struct visit){.version = TLS1_2_VERSION});
            int resumed;

            CHECK_OK(sesscache_hold(cache));
            forbid_all_other_calls(0);
            expect_service(ctx, changes[n].name);
            CHECK(write(ready[1], "r", 1) == 1 && read(go[0], &byte, 1) == 1, "pipe: %s", strerror(errno));
            resumed = tls_here(ctx, (struct visit){.version = TLS1_2_VERSION, .offer = &before.newest}).resumed;
            CHECK(resumed == changes[n].goes_on, "%s: a session from before resumes: %d", changes[n].name, resumed);
            for (int round = 0; round < 4; round++) {
                expect_service(ctx, changes[n].name);
                check_sleep(0.6);
            }
            CHECK(atomic_load(&messages) == changes[n].says, "%s: %d messages:%s", changes[n].name, atomic_load(&messages), said);
            CHECK(sesscache_flush(cache) == SESSCACHE_SYSTEM, "a process that holds the store flushes it by path");
            SSL_CTX_free(ctx);
            sesscache_close(cache);
            _exit(0);
        }
        CHECK(read(ready[0], &byte, 1) == 1, "%s: the server does not begin", changes[n].name);
        changes[n].change(store);
        CHECK(write(go[1], "g", 1) == 1, "pipe: %s", strerror(errno));
        check_wait(pid, changes[n].name);
    }
}

/* What is not opened anew by others has no say: a generation that is over, other readers of the control page. */
static void a_generation_that_is_over_is_let_go_of_and_the_store_goes_on(const char *scratch)
{
    int go[2], ready[2];
    char byte;
    pid_t pid;

    CHECK(pipe(go) == 0 && pipe(ready) == 0, "pipe: %s", strerror(errno));
    pid = check_fork();
    if (pid == 0) {
        /* A generation with one session that expires at once, and its successor, with other options. */
        SSL_CTX *ctx = server(store_in(scratch), "ttl=3s");
        struct outcome made;

        (void)tls_here(ctx, (struct visit){.version = TLS1_2_VERSION});
        SSL_CTX_free(ctx);
        sesscache_close(cache);
        ctx = server(store_in(scratch), "capacity=12MiB");
        (void)tls_here(ctx, (struct visit){.version = TLS1_2_VERSION});
        CHECK_OK(sesscache_hold(cache));
        forbid_all_other_calls(0);
        made = tls_here(ctx, (struct visit){.version = TLS1_2_VERSION});
        CHECK(write(ready[1], "r", 1) == 1 && read(go[0], &byte, 1) == 1, "pipe: %s", strerror(errno));
        CHECK(tls_here(ctx, (struct visit){.version = TLS1_2_VERSION, .offer = &made.newest}).resumed, "a session in the store is lost");
        expect_service(ctx, "when the old generation is over");
        CHECK(tls_stats(cache).hits_local == 0 && atomic_load(&messages) <= 1, "the store is given up:%s", said);
        _exit(0);
    }
    CHECK(read(ready[0], &byte, 1) == 1, "the server does not begin");
    SSL_CTX *ctx = tls_attached(store_in(scratch), "capacity=12MiB");
    for (int n = 0; n < 5; n++) {
        (void)tls_here(ctx, (struct visit){.version = TLS1_2_VERSION});
        check_sleep(1.05);
    }
    CHECK(write(go[1], "g", 1) == 1, "pipe: %s", strerror(errno));
    check_wait(pid, "a process that holds the newer generation");
    SSL_CTX_free(ctx);
}

/* LMDB cannot be used across fork(2). */
static void a_child_of_a_process_that_holds_has_the_memory_only(const char *scratch)
{
    SSL_CTX *ctx = server(store_in(scratch), NULL);
    struct outcome stored = tls_here(ctx, (struct visit){.version = TLS1_2_VERSION}), made;

    CHECK_OK(sesscache_hold(cache));
    forbid_all_other_calls(0);
    for (int n = 0; n < 4; n++) {
        made = tls_child(ctx, (struct visit){.version = tls_versions[n % 2]});
        CHECK(tls_child(ctx, (struct visit){.version = tls_versions[n % 2], .offer = &made.newest}).resumed,
              "%s: not resumed in another child", tls_name(tls_versions[n % 2]));
        CHECK(tls_here(ctx, (struct visit){.version = tls_versions[n % 2], .offer = &made.newest}).resumed,
              "%s: not resumed in the parent", tls_name(tls_versions[n % 2]));
    }
    CHECK(!tls_child(ctx, (struct visit){.version = TLS1_2_VERSION, .offer = &stored.newest}).resumed, "a child has opened the store");
    CHECK(tls_here(ctx, (struct visit){.version = TLS1_2_VERSION, .offer = &stored.newest}).resumed, "the parent has lost the store");
    _exit(0);
}

static void a_store_that_cannot_be_opened_is_an_error_and_nothing_is_opened_later(const char *scratch)
{
    SSL_CTX *ctx = server(store_in(scratch), NULL);

    CHECK(check_remove_tree(store_in(scratch)) == 0, "cannot remove the store: %s", strerror(errno));
    CHECK(sesscache_hold(cache) != SESSCACHE_OK && strstr(sesscache_errmsg(), "store") != NULL, "a store that is gone is held");
    forbid_all_other_calls(0);
    expect_service(ctx, "without a store");
    check_sleep(1.1);
    expect_service(ctx, "a second later");
    _exit(0);
}

static void after_chroot_and_setuid_the_store_itself_is_used(const char *scratch)
{
    SSL_CTX *ctx = server(store_in(scratch), NULL);
    char *empty = path_in(scratch, "empty");
    struct outcome made;

    if (geteuid() != 0)
        check_not_tried("chroot and setuid need root");
    CHECK_OK(sesscache_hold(cache));
    CHECK(mkdir(empty, 0755) == 0, "mkdir: %s", strerror(errno));
    for (int fd = 3; fd < 64; fd++) {
        struct stat status;

        CHECK(fstat(fd, &status) != 0 || !S_ISDIR(status.st_mode), "descriptor %d leads out of the new root", fd);
    }
    CHECK(chroot(empty) == 0 && chdir("/") == 0 && setgid(65534) == 0 && setuid(65534) == 0, "chroot: %s", strerror(errno));
    for (int n = 0; n < 20; n++) {
        made = tls_here(ctx, (struct visit){.version = tls_versions[n % 2]});
        CHECK(tls_here(ctx, (struct visit){.version = tls_versions[n % 2], .offer = &made.newest}).resumed, "client %d does not resume", n);
    }
    CHECK(tls_stats(cache).hits_local == 0 && tls_stats(cache).hits == 20, "sessions come from memory");
    _exit(0);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(a_filter_with_the_documented_calls_kills_no_process_that_holds),
        TEST(a_filter_with_the_calls_that_are_documented_for_opening_lets_a_process_open),
        TEST(without_hold_the_filter_kills),
        TEST(a_store_that_changes_leaves_a_process_that_holds_its_memory),
        TEST(a_generation_that_is_over_is_let_go_of_and_the_store_goes_on),
        TEST(a_child_of_a_process_that_holds_has_the_memory_only),
        TEST(a_store_that_cannot_be_opened_is_an_error_and_nothing_is_opened_later),
        TEST(after_chroot_and_setuid_the_store_itself_is_used),
    };

    /* glibc opens /proc/sys/vm/overcommit_memory when it shrinks the heap of a second arena (malloc/arena.c: shrink_heap). */
    CHECK(mallopt(M_ARENA_MAX, 1) == 1, "mallopt");
    return check_main(argc, argv, tests, TESTS(tests));
}
