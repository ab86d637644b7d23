/*
 * Sessions that could not be stored, in memory: a listener forks a process for each connection, which gives up the file system
 * before its first session. Its children resume each other's sessions, and whatever ends a session in the store ends it here.
 */
#include "check.h"
#include "tls.h"

#include <pthread.h>
#include <sys/mman.h>

static char *empty_root;

/* What each child does first: nothing of the store is open yet, and nothing can be opened any more. */
static void leave(SSL *server)
{
    (void)server;
    CHECK(chroot(empty_root) == 0 && chdir("/") == 0 && setgid(65534) == 0 && setuid(65534) == 0, "chroot, setuid: %s", strerror(errno));
}

static sesscache *cache;

static SSL_CTX *listener(const char *scratch, const char *options)
{
    SSL_CTX *ctx = tls_server();

    if (geteuid() != 0)
        check_not_tried("chroot and setuid need root");
    empty_root = path_in(scratch, "empty");
    CHECK(mkdir(empty_root, 0755) == 0 || errno == EEXIST, "mkdir: %s", strerror(errno));
    CHECK_OK(sesscache_open(store_in(scratch), options, &cache));
    CHECK_OK(sesscache_attach(cache, ctx));
    (void)tls_credentials(SERVER_P256);
    return ctx;
}

static struct outcome in_a_child(SSL_CTX *ctx, struct visit visit)
{
    visit.prepare = leave;
    return tls_child(ctx, visit);
}

static int resumes(SSL_CTX *ctx, int version, const struct saved *session)
{
    return in_a_child(ctx, (struct visit){.version = version, .offer = session}).resumed;
}

/* Another name of the store, under which nothing that is inherited is used. */
static char *alias_in(const char *scratch)
{
    CHECK(symlink(".", path_in(scratch, "alias")) == 0, "symlink: %s", strerror(errno));
    return path_in(scratch, "alias/store");
}

static void children_without_a_file_system_resume_each_others_sessions(const char *scratch)
{
    SSL_CTX *ctx = listener(scratch, NULL);
    struct outcome made;
    sesscache_stats stats;

    for (int n = 0; n < 20; n++) {
        int version = tls_versions[n % 2];

        made = in_a_child(ctx, (struct visit){.version = version});
        CHECK(resumes(ctx, version, &made.newest), "client %d, %s: not resumed in another child", n, tls_name(version));
        CHECK(tls_here(ctx, (struct visit){.version = version, .offer = &made.newest}).resumed,
              "client %d, %s: not resumed in the listener itself", n, tls_name(version));
    }
    stats = tls_stats(cache);
    CHECK(stats.hits_local == 40 && stats.hits == 40 && stats.puts_local >= 20 && stats.sessions <= 40,
          "counted: %llu hits in memory, %llu hits, %llu puts in memory", (unsigned long long)stats.hits_local,
          (unsigned long long)stats.hits, (unsigned long long)stats.puts_local);

    /* A process that opens the directory itself has memory of its own. */
    made = in_a_child(ctx, (struct visit){.version = TLS1_2_VERSION});
    CHECK(!tls_resumes_elsewhere(alias_in(scratch), NULL, TLS1_2_VERSION, &made.newest), "the session was in the store: this test looks in the wrong place");
    CHECK(resumes(ctx, TLS1_2_VERSION, &made.newest), "a session is lost");
    SSL_CTX_free(ctx);
    sesscache_close(cache);
}

/* A process that has nothing to do with the listener. */
static void flush_elsewhere(const char *scratch)
{
    pid_t pid = check_fork();

    if (pid == 0) {
        sesscache *own;

        CHECK_OK(sesscache_open(alias_in(scratch), NULL, &own));
        CHECK_OK(sesscache_flush(own));
        _exit(0);
    }
    check_wait(pid, "who flushes");
}

static void a_flush_ends_them_in_every_process(const char *scratch)
{
    SSL_CTX *ctx = listener(scratch, NULL);

    for (int v = 0; v < 2; v++) {
        struct outcome made = in_a_child(ctx, (struct visit){.version = tls_versions[v]});
        struct outcome again = in_a_child(ctx, (struct visit){.version = tls_versions[v], .offer = &made.newest});

        CHECK(again.resumed, "%s: not resumed before the flush", tls_name(tls_versions[v]));
        if (v == 0)
            CHECK_OK(sesscache_flush(cache));
        else
            flush_elsewhere(scratch);
        CHECK(!resumes(ctx, tls_versions[v], &made.newest) && !resumes(ctx, tls_versions[v], &again.newest),
              "%s: resumed after a flush", tls_name(tls_versions[v]));
        CHECK(!tls_here(ctx, (struct visit){.version = tls_versions[v], .offer = &made.newest}).resumed,
              "%s: resumed in the listener after a flush", tls_name(tls_versions[v]));
        made = in_a_child(ctx, (struct visit){.version = tls_versions[v]});
        CHECK(resumes(ctx, tls_versions[v], &made.newest), "%s: nothing resumes after a flush", tls_name(tls_versions[v]));
    }
    SSL_CTX_free(ctx);
    sesscache_close(cache);
}

static void log_out(SSL *server)
{
    CHECK_OK(sesscache_forget(server));
}

static void forget_ends_a_login_without_a_file_system_and_no_other(const char *scratch)
{
    SSL_CTX *ctx = listener(scratch, NULL);

    for (int v = 0; v < 2; v++) {
        int version = tls_versions[v];
        struct outcome other = in_a_child(ctx, (struct visit){.version = version});
        struct outcome made = in_a_child(ctx, (struct visit){.version = version});
        struct outcome left = in_a_child(ctx, (struct visit){.version = version, .offer = &made.newest, .finished = log_out});

        CHECK(left.resumed, "%s: not resumed before the logout", tls_name(version));
        for (size_t n = 0; n < made.given; n++)
            CHECK(!resumes(ctx, version, &made.sessions[n]), "%s: session %zu resumes after the logout", tls_name(version), n);
        CHECK(!resumes(ctx, version, &left.newest), "%s: the session of the logout itself resumes", tls_name(version));
        CHECK(!tls_here(ctx, (struct visit){.version = version, .offer = &made.newest}).resumed,
              "%s: resumes in a process that has the store", tls_name(version));
        CHECK(resumes(ctx, version, &other.newest), "%s: another login has ended", tls_name(version));
    }
    SSL_CTX_free(ctx);
    sesscache_close(cache);
}

/* The directory was removed, and another service makes it anew: the listener goes on with that, its children with the memory. */
static void a_directory_that_was_made_anew_is_flushed_and_forgets_for_all_children(const char *scratch)
{
    static const char *const acts[] = {"flush", "flush by a newer handle", "forget"};

    for (int act = 0; act < 3; act++) {
        SSL_CTX *ctx = listener(scratch, NULL);
        struct outcome made = in_a_child(ctx, (struct visit){.version = TLS1_2_VERSION});
        struct pair *connection = tls_pair(ctx, (struct visit){.version = TLS1_2_VERSION, .offer = &made.newest});
        sesscache *newer = NULL;

        tls_talk(connection);
        CHECK(SSL_session_reused(connection->server), "%s: not resumed in the listener", acts[act]);
        CHECK(check_remove_tree(store_in(scratch)) == 0, "cannot remove the store: %s", strerror(errno));
        CHECK(resumes(ctx, TLS1_2_VERSION, &made.newest), "%s: not resumed before", acts[act]);
        CHECK_OK(sesscache_open(store_in(scratch), NULL, &newer));
        if (act == 0)
            /* The listener sees within two rounds that the directory is another one. */
            for (int n = 0; n < 3; n++) {
                (void)tls_here(ctx, (struct visit){.version = TLS1_2_VERSION});
                check_sleep(1.05);
            }
        if (act == 2)
            CHECK_OK(sesscache_forget(connection->server));
        else
            CHECK_OK(sesscache_flush(act == 0 ? cache : newer));
        CHECK(!resumes(ctx, TLS1_2_VERSION, &made.newest), "%s: resumes in a child", acts[act]);
        tls_end(connection);
        sesscache_close(newer);
        SSL_CTX_free(ctx);
        sesscache_close(cache);
    }
}

static void a_session_that_is_removed_is_gone_in_every_child(const char *scratch)
{
    SSL_CTX *ctx = listener(scratch, NULL);

    for (int v = 0; v < 2; v++) {
        struct outcome made = in_a_child(ctx, (struct visit){.version = tls_versions[v]});
        SSL_SESSION *session = tls_load(&made.newest);
        const unsigned char *id;
        unsigned short_len;
        size_t len;

        if (tls_versions[v] == TLS1_3_VERSION) {
            SSL_SESSION_get0_ticket(session, &id, &len);
        } else {
            id = SSL_SESSION_get_id(session, &short_len);
            len = short_len;
        }
        CHECK(resumes(ctx, tls_versions[v], &made.newest), "%s: not resumed", tls_name(tls_versions[v]));
        CHECK_OK(sesscache_remove(cache, id, len));
        CHECK(!resumes(ctx, tls_versions[v], &made.newest), "%s: resumed after it was removed", tls_name(tls_versions[v]));
        CHECK(sesscache_remove(cache, id, len) == SESSCACHE_NOT_FOUND, "it is there to be removed again");
        SSL_SESSION_free(session);
    }
    SSL_CTX_free(ctx);
    sesscache_close(cache);
}

static void they_expire(const char *scratch)
{
    SSL_CTX *ctx = listener(scratch, "ttl=2s");

    for (int v = 0; v < 2; v++) {
        struct outcome made = in_a_child(ctx, (struct visit){.version = tls_versions[v]});

        CHECK(resumes(ctx, tls_versions[v], &made.newest), "%s: not resumed", tls_name(tls_versions[v]));
        check_sleep(2.1);
        tls_pretend_fresh(&made.newest);
        CHECK(!resumes(ctx, tls_versions[v], &made.newest), "%s: resumed after its life", tls_name(tls_versions[v]));
    }
    SSL_CTX_free(ctx);
    sesscache_close(cache);
}

static void a_session_resumes_only_under_its_server_name_and_namespace(const char *scratch)
{
    SSL_CTX *ctx = listener(scratch, NULL), *other = tls_server();

    CHECK_OK(sesscache_enable(other, store_in(scratch), "namespace=other"));
    for (int v = 0; v < 2; v++) {
        struct visit visit = {.version = tls_versions[v], .name = "one.example"};
        struct outcome made = in_a_child(ctx, visit);

        visit.offer = &made.newest;
        CHECK(!in_a_child(other, visit).resumed, "%s: resumed in another namespace", tls_name(visit.version));
        CHECK(in_a_child(ctx, visit).resumed, "%s: not resumed under its own name", tls_name(visit.version));
        visit.name = "two.example";
        CHECK(!in_a_child(ctx, visit).resumed, "%s: resumed under another name", tls_name(visit.version));
        visit.name = NULL;
        CHECK(!in_a_child(ctx, visit).resumed, "%s: resumed without a name", tls_name(visit.version));
    }
    SSL_CTX_free(other);
    SSL_CTX_free(ctx);
    sesscache_close(cache);
}

static void ask(SSL *server)
{
    leave(server);
    tls_ask(server, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT);
}

static void show(SSL *client)
{
    tls_show(client, CLIENT_RSA);
}

static void a_client_keeps_its_certificate_and_one_without_gets_nowhere(const char *scratch)
{
    SSL_CTX *ctx = listener(scratch, NULL);

    for (int v = 0; v < 2; v++) {
        struct visit visit = {.version = tls_versions[v], .prepare = ask, .prepare_client = show};
        struct outcome without = in_a_child(ctx, (struct visit){.version = visit.version});
        struct outcome with = tls_child(ctx, visit);

        visit.offer = &with.newest;
        CHECK(tls_child(ctx, visit).resumed, "%s: with a certificate nothing resumes", tls_name(visit.version));
        visit.offer = &without.newest;
        CHECK(!tls_child(ctx, visit).resumed, "%s: a session without a certificate resumes where one is demanded", tls_name(visit.version));
    }
    SSL_CTX_free(ctx);
    sesscache_close(cache);
}

/* Children that all wait for the same moment, and offer the same ticket. */
static void a_ticket_for_single_use_resumes_once_in_all_children(const char *scratch)
{
    enum { ROUNDS = 20, CHILDREN = 6 };
    SSL_CTX *ctx = listener(scratch, "single_use=always");
    _Atomic int *board = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    CHECK(board != MAP_FAILED, "mmap: %s", strerror(errno));
    for (int round = 0; round < ROUNDS; round++) {
        struct outcome made = in_a_child(ctx, (struct visit){.version = TLS1_3_VERSION});
        pid_t children[CHILDREN];

        board[0] = board[1] = 0;
        for (int n = 0; n < CHILDREN; n++) {
            children[n] = check_fork();
            if (children[n] == 0) {
                leave(NULL);
                board[0]++;
                while (board[0] < CHILDREN)
                    check_sleep(0.0002);
                board[1] += tls_here(ctx, (struct visit){.version = TLS1_3_VERSION, .offer = &made.newest}).resumed;
                _exit(0);
            }
        }
        for (int n = 0; n < CHILDREN; n++)
            check_wait(children[n], "a child");
        CHECK(board[1] == 1, "round %d: the ticket resumed %d times", round, board[1]);
    }
    CHECK(tls_stats(cache).takes == ROUNDS, "%llu tickets are counted as used", (unsigned long long)tls_stats(cache).takes);
    SSL_CTX_free(ctx);
    sesscache_close(cache);
}

static void early_data_is_never_accepted(const char *scratch)
{
    static const char *const options[] = {"", "single_use=off", "single_use=always"};

    for (int n = 0; n < 3; n++) {
        char own[32];
        SSL_CTX *ctx;

        snprintf(own, sizeof own, "%d", n);
        CHECK(mkdir(path_in(scratch, own), 0755) == 0, "mkdir: %s", strerror(errno));
        ctx = listener(path_in(scratch, own), options[n]);
        SSL_CTX_set_max_early_data(ctx, 16384);
        for (int client = 0; client < 10; client++) {
            struct outcome made = in_a_child(ctx, (struct visit){.version = TLS1_3_VERSION});
            struct visit visit = {.version = TLS1_3_VERSION, .offer = &made.newest, .early = "an order"};
            struct outcome first = in_a_child(ctx, visit), second;

            /* tls.c: it is also compared with what the server has read. */
            CHECK(first.resumed && !first.early_accepted, "resumed %d, early data accepted %d", first.resumed, first.early_accepted);
            second = client % 2 == 0 ? in_a_child(ctx, visit) : tls_here(ctx, visit);
            CHECK(!second.early_accepted, "a replayed order is executed");
            /* A ticket of the resumed connection. */
            visit.offer = &first.newest;
            first = in_a_child(ctx, visit);
            CHECK(first.resumed && !first.early_accepted, "later: resumed %d, early data accepted %d", first.resumed, first.early_accepted);
        }
        SSL_CTX_free(ctx);
        sesscache_close(cache);
    }
}

/* Children that store and resume as fast as they can. */
static pid_t start_busy_child(SSL_CTX *ctx)
{
    pid_t pid = check_fork();

    if (pid == 0) {
        leave(NULL);
        for (int n = 0;; n++) {
            struct outcome made = tls_here(ctx, (struct visit){.version = tls_versions[n % 2]});

            (void)tls_here(ctx, (struct visit){.version = tls_versions[n % 2], .offer = &made.newest});
        }
    }
    return pid;
}

static void children_that_are_killed_or_stopped_cost_the_others_nothing(const char *scratch)
{
    SSL_CTX *ctx = listener(scratch, "local=256KiB");

    for (int round = 0; round < 30; round++) {
        pid_t busy[2] = {start_busy_child(ctx), start_busy_child(ctx)};

        check_sleep(0.01 + round % 7 * 0.003);
        CHECK(kill(busy[0], SIGKILL) == 0 && kill(busy[1], SIGSTOP) == 0, "kill: %s", strerror(errno));
        for (int v = 0; v < 2; v++) {
            struct outcome made = in_a_child(ctx, (struct visit){.version = tls_versions[v]});

            CHECK(resumes(ctx, tls_versions[v], &made.newest), "round %d: %s does not resume", round, tls_name(tls_versions[v]));
        }
        CHECK(kill(busy[1], SIGKILL) == 0 && waitpid(busy[0], NULL, 0) > 0 && waitpid(busy[1], NULL, 0) > 0, "kill: %s", strerror(errno));
    }
    SSL_CTX_free(ctx);
    sesscache_close(cache);
}

enum { THREADS = 4, CLIENTS = 40 };
static struct saved of_threads[THREADS][CLIENTS];
static pthread_barrier_t made_all;
static SSL_CTX *threads_ctx;

/* Makes sessions, and resumes those of the next thread. */
static void *make_and_resume(void *number)
{
    int me = *(int *)number, next = (me + 1) % THREADS;

    for (int n = 0; n < CLIENTS; n++)
        of_threads[me][n] = tls_here(threads_ctx, (struct visit){.version = tls_versions[n % 2]}).newest;
    (void)pthread_barrier_wait(&made_all);
    for (int n = 0; n < CLIENTS; n++)
        CHECK(tls_here(threads_ctx, (struct visit){.version = tls_versions[n % 2], .offer = &of_threads[next][n]}).resumed,
              "client %d does not resume in another thread", n);
    return NULL;
}

static void threads_of_a_process_without_a_file_system_resume_each_others_sessions(const char *scratch)
{
    int numbers[THREADS];
    pthread_t threads[THREADS];

    threads_ctx = listener(scratch, NULL);
    leave(NULL);
    CHECK(pthread_barrier_init(&made_all, NULL, THREADS) == 0, "pthread_barrier_init");
    for (int n = 0; n < THREADS; n++) {
        numbers[n] = n;
        CHECK(pthread_create(&threads[n], NULL, make_and_resume, &numbers[n]) == 0, "pthread_create");
    }
    for (int n = 0; n < THREADS; n++)
        CHECK(pthread_join(threads[n], NULL) == 0, "pthread_join");
    SSL_CTX_free(threads_ctx);
    sesscache_close(cache);
}

/* Bytes of anonymous shared memory that this process has touched. */
static unsigned long shared_memory(void)
{
    FILE *status = fopen("/proc/self/status", "r");
    char line[128];
    unsigned long kilobytes = 0;

    CHECK(status != NULL, "status: %s", strerror(errno));
    while (fgets(line, sizeof line, status) != NULL)
        (void)sscanf(line, "RssShmem: %lu", &kilobytes);
    CHECK(fclose(status) == 0, "status: %s", strerror(errno));
    return kilobytes << 10;
}

static void a_flood_has_its_bounds_and_the_newest_sessions_resume(const char *scratch)
{
    enum { FLOOD = 1500, NEWEST = 60 };
    SSL_CTX *ctx = listener(scratch, "local=64KiB");
    static struct saved newest[NEWEST];
    int resumed = 0;

    CHECK(setgid(65534) == 0 && setuid(65534) == 0, "setuid: %s", strerror(errno));
    for (int n = 0; n < FLOOD; n++)
        newest[n % NEWEST] = tls_here(ctx, (struct visit){.version = TLS1_2_VERSION}).newest;
    for (int n = 0; n < NEWEST; n++)
        resumed += tls_here(ctx, (struct visit){.version = TLS1_2_VERSION, .offer = &newest[n]}).resumed;
    CHECK(resumed == NEWEST, "%d of the newest %d sessions resume after a flood", resumed, NEWEST);
    CHECK(shared_memory() < 2UL << 20, "a flood takes %lu bytes", shared_memory());
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(children_without_a_file_system_resume_each_others_sessions),
        TEST(a_flush_ends_them_in_every_process),
        TEST(forget_ends_a_login_without_a_file_system_and_no_other),
        TEST(a_directory_that_was_made_anew_is_flushed_and_forgets_for_all_children),
        TEST(a_session_that_is_removed_is_gone_in_every_child),
        TEST(they_expire),
        TEST(a_session_resumes_only_under_its_server_name_and_namespace),
        TEST(a_client_keeps_its_certificate_and_one_without_gets_nowhere),
        TEST(a_ticket_for_single_use_resumes_once_in_all_children),
        TEST(early_data_is_never_accepted),
        TEST(children_that_are_killed_or_stopped_cost_the_others_nothing),
        TEST(threads_of_a_process_without_a_file_system_resume_each_others_sessions),
        TEST(a_flood_has_its_bounds_and_the_newest_sessions_resume),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
