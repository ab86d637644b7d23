/*
 * Servers have an SSL_CTX for each certificate, for each reload while long connections go on, or for each connection. However many
 * they are, those of equal directories and options share one cache, and each resumes what the others stored.
 */
#include "check.h"
#include "tls.h"

#include <glob.h>
#include <malloc.h>
#include <sys/inotify.h>

#define MOST 10000
#define FRONTENDS 80
#define RELOADS 100

/* Its own certificate would take each SSL_CTX a signature to make: only some of them serve. */
static SSL_CTX *bare(const char *store)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());

    CHECK(ctx != NULL, "SSL_CTX_new");
    CHECK_OK(sesscache_enable(ctx, store, "ttl=1h"));
    return ctx;
}

static void contexts_without_number_share_a_cache(const char *scratch)
{
    static const int counts[] = {1, 64, 65, 1000, MOST};
    static SSL_CTX *all[MOST];
    char *store = store_in(scratch);

    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        SSL_CTX *first = tls_attached(store, "ttl=1h"), *last;
        struct outcome made = tls_here(first, (struct visit){.version = TLS1_3_VERSION});

        for (int n = 0; n < counts[i]; n++)
            all[n] = bare(store);
        last = tls_attached(store, "ttl=1h");
        CHECK(tls_here(last, (struct visit){.version = TLS1_3_VERSION, .offer = &made.newest}).resumed,
              "behind %d others an SSL_CTX does not resume", counts[i]);
        for (int n = 0; n < counts[i]; n++)
            SSL_CTX_free(all[n]);
        SSL_CTX_free(first);
        SSL_CTX_free(last);
    }
}

/* Maps of data files of stores that this process has, of a directory with this in its path. */
static int maps_of(const char *path)
{
    char line[PATH_MAX + 200];
    FILE *maps = fopen("/proc/self/maps", "r");
    int count = 0;

    CHECK(maps != NULL, "/proc/self/maps: %s", strerror(errno));
    while (fgets(line, sizeof line, maps) != NULL)
        count += strstr(line, "data.mdb") != NULL && strstr(line, path) != NULL;
    CHECK(fclose(maps) == 0, "fclose");
    return count;
}

/* A server that has an SSL_CTX for each connection has served so many. */
static struct outcome serve(const char *store, const char *options, int connections)
{
    struct outcome out = {.given = 0};

    for (int n = 0; n < connections; n++) {
        SSL_CTX *server = tls_attached(store, options);

        out = tls_here(server, (struct visit){.version = TLS1_3_VERSION, .offer = n > 0 ? &out.newest : NULL});
        CHECK(out.resumed == (n > 0), "connection %d", n);
        SSL_CTX_free(server);
    }
    return out;
}

static void a_context_for_each_connection_resumes(const char *scratch)
{
    (void)serve(store_in(scratch), NULL, 200);
}

static void a_context_for_each_connection_leaves_the_store_open_for_the_next(const char *scratch)
{
    char *store = store_in(scratch), command[] = "ls -l /proc/self/fd/ | grep -c /store/", count[16] = "";
    FILE *program;

    (void)serve(store, NULL, 1);
    CHECK(maps_of(store) == 0, "a server that ends keeps its store open");
    (void)serve(store, NULL, 2);
    CHECK(maps_of(store) > 0, "each connection opens the store anew");

    program = popen(command, "r");
    CHECK(program != NULL && fgets(count, sizeof count, program) != NULL, "popen: %s", strerror(errno));
    (void)pclose(program);
    CHECK(atoi(count) == 0, "a program that is started has %d descriptors of the store", atoi(count));
}

/* How often somebody has opened the data file since the last time. */
static int times_opened(int watch)
{
    char events[16 * (sizeof(struct inotify_event) + NAME_MAX + 1)];
    int count = 0;
    ssize_t len;

    while ((len = read(watch, events, sizeof events)) > 0) {
        /* Events of one file have no name. */
        count += (int)((size_t)len / sizeof(struct inotify_event));
    }
    CHECK(errno == EAGAIN, "read: %s", strerror(errno));
    return count;
}

/* In seconds. */
static double processor_time(void)
{
    return (double)clock() / CLOCKS_PER_SEC;
}

static void a_context_for_each_connection_opens_nothing(const char *scratch)
{
    char *store = store_in(scratch), *pattern = path_in(store, "*/data.mdb");
    int watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    struct outcome made = serve(store, NULL, 2);
    glob_t files;
    double begin, middle;

    CHECK(watch >= 0 && glob(pattern, 0, NULL, &files) == 0 && files.gl_pathc == 1 &&
          inotify_add_watch(watch, files.gl_pathv[0], IN_OPEN) >= 0, "no watch of %s", pattern);
    for (int n = 0; n < 100; n++)
        (void)serve(store, NULL, 2);
    CHECK(times_opened(watch) == 0, "SSL_CTXs open the store anew");
    CHECK(tls_elsewhere(store, NULL, (struct visit){.version = TLS1_3_VERSION, .offer = &made.newest}).resumed &&
          times_opened(watch) > 0, "another process opens the store, and this test does not see it");
    begin = processor_time();
    for (int n = 0; n < 1000; n++)
        SSL_CTX_free(tls_server());
    middle = processor_time();
    for (int n = 0; n < 1000; n++)
        SSL_CTX_free(tls_attached(store, NULL));
    printf("an SSL_CTX takes %.0f us of processor time, and %.0f more with sesscache_enable\n", (middle - begin) * 1000,
           (processor_time() - 2 * middle + begin) * 1000);
    globfree(&files);
    free(pattern);
}

/* hitch: an SSL_CTX for each frontend, all of them anew at each reload, while connections of each configuration go on. */
static void frontends_and_reloads_with_long_connections_share_a_cache(const char *scratch)
{
    static struct pair *going_on[RELOADS];
    static SSL_CTX *all[FRONTENDS];
    char *store = store_in(scratch);
    SSL_CTX *first = tls_attached(store, "ttl=1h");
    struct outcome made[2];

    for (int i = 0; i < 2; i++)
        made[i] = tls_here(first, (struct visit){.version = tls_versions[i]});
    for (int n = 0; n < RELOADS; n++) {
        SSL_CTX *serves;

        for (int k = 0; k < FRONTENDS; k++)
            all[k] = bare(store);
        serves = tls_attached(store, "ttl=1h");
        going_on[n] = tls_pair(serves, (struct visit){.version = tls_versions[n % 2], .offer = &made[n % 2].newest});
        tls_talk(going_on[n]);
        CHECK(going_on[n]->out.resumed, "after %d reloads a session does not resume", n + 1);
        SSL_CTX_free(serves);
        for (int k = 0; k < FRONTENDS; k++)
            SSL_CTX_free(all[k]);
    }
    for (int n = 0; n < RELOADS; n++)
        tls_end(going_on[n]);
    for (int i = 0; i < 2; i++)
        CHECK(tls_here(first, (struct visit){.version = tls_versions[i], .offer = &made[i].newest}).resumed, "nor in the first");
    SSL_CTX_free(first);
}

static void a_store_that_is_kept_ends_with_the_next_call_after_a_while(const char *scratch)
{
    char *store = store_in(scratch);
    SSL_CTX *other = tls_attached(path_in(scratch, "other"), NULL);

    for (int way = 0; way < 2; way++) {
        (void)serve(store, NULL, 3);
        CHECK(maps_of(store) > 0, "this shows nothing");
        check_sleep(2.1);
        if (way == 0)
            (void)tls_here(other, (struct visit){.version = TLS1_3_VERSION});
        else
            SSL_CTX_free(tls_attached(path_in(scratch, "third"), NULL));
        CHECK(maps_of(store) == 0, "a store that nobody uses any more stays open");
    }
    SSL_CTX_free(other);
}

static void a_store_that_is_kept_stands_in_nobodys_way(const char *scratch)
{
    char *store = store_in(scratch), name[32];
    sesscache *all[64] = {NULL};

    (void)serve(store, "deadline=5ms", 3);
    CHECK(maps_of(store) > 0, "this shows nothing");
    CHECK_OK(sesscache_open(store, "deadline=7ms", &all[0]));
    sesscache_close(all[0]);
    CHECK(maps_of(store) == 0, "a store that the application has closed stays open");

    /* As many as there can be, beside what is kept. */
    (void)serve(store, "deadline=5ms", 3);
    for (int i = 0; i < 64; i++) {
        snprintf(name, sizeof name, "store%d", i);
        CHECK_OK(sesscache_open(path_in(scratch, name), NULL, &all[i]));
    }
    for (int i = 0; i < 64; i++)
        sesscache_close(all[i]);
}

static void a_directory_that_is_made_anew_ends_what_was_kept_of_it(const char *scratch)
{
    char *store = store_in(scratch);

    for (int i = 0; i < 3; i++) {
        (void)serve(store, NULL, 3);
        CHECK(maps_of(store) > 0, "this shows nothing");
        CHECK(check_remove_tree(store) == 0, "cannot remove %s: %s", store, strerror(errno));
        (void)serve(store, NULL, 1);
        CHECK(maps_of("(deleted)") == 0, "files of a directory that is gone stay open");
    }
}

static void ignore(void *userdata, int level, const char *message)
{
    (void)userdata;
    (void)level;
    (void)message;
}

/* The host's function may be gone by the time that the store is used again. */
static void a_store_with_a_log_function_is_not_kept(const char *scratch)
{
    char *store = store_in(scratch);

    for (int i = 0; i < 4; i++) {
        SSL_CTX *server = tls_server();
        sesscache *cache;

        CHECK_OK(sesscache_open(store, NULL, &cache));
        sesscache_set_log(cache, ignore, NULL);
        CHECK_OK(sesscache_attach(cache, server));
        sesscache_close(cache);
        (void)tls_here(server, (struct visit){.version = TLS1_3_VERSION});
        SSL_CTX_free(server);
        CHECK(maps_of(store) == 0, "the store stays open, and with it a function that may be unloaded");
    }
}

static size_t allocated(void)
{
    struct mallinfo2 now = mallinfo2();

    return now.uordblks + now.hblkhd;
}

/* Handles, attachments and connections have no number of their own either. */
static void handles_and_attachments_without_number_share_a_cache(const char *scratch)
{
    static const int counts[] = {1, 64, 65, 1000, MOST};
    static sesscache *all[MOST];
    char *store = store_in(scratch);
    size_t before = 0;

    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        SSL_CTX *server = tls_server();
        struct outcome made;

        for (int n = 0; n < counts[i]; n++)
            CHECK_OK(sesscache_open(store, NULL, &all[n]));
        CHECK_OK(sesscache_attach(all[0], server));
        made = tls_here(server, (struct visit){.version = TLS1_3_VERSION});
        before = allocated();
        for (int n = 0; n < counts[i]; n++) {
            CHECK_OK(sesscache_detach(server));
            CHECK_OK(sesscache_attach(all[n], server));
        }
        CHECK(allocated() < before + 64 * 1024, "%d attachments of one SSL_CTX take %zu bytes", counts[i], allocated() - before);
        CHECK(tls_here(server, (struct visit){.version = TLS1_3_VERSION, .offer = &made.newest}).resumed,
              "an SSL_CTX that was attached %d times does not resume", counts[i]);
        for (int n = 0; n < counts[i]; n++)
            sesscache_close(all[n]);
        SSL_CTX_free(server);
    }
}

static void connections_without_number_share_a_cache(const char *scratch)
{
    static struct pair *all[1000];
    static const int counts[] = {1, 64, 65, 400};
    SSL_CTX *server = tls_attached(store_in(scratch), NULL);
    struct outcome made = tls_here(server, (struct visit){.version = TLS1_2_VERSION});

    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        for (int n = 0; n < counts[i]; n++) {
            all[n] = tls_pair(server, (struct visit){.version = TLS1_2_VERSION, .offer = &made.newest});
            tls_talk(all[n]);
            CHECK(all[n]->out.resumed, "connection %d of so many at once does not resume", n + 1);
        }
        for (int n = 0; n < counts[i]; n++)
            tls_end(all[n]);
    }
    SSL_CTX_free(server);
}

static void a_context_is_enabled_twice(const char *scratch)
{
    char *store = store_in(scratch);
    SSL_CTX *server = tls_attached(store, "ttl=1h capacity=8MiB");
    struct outcome made = tls_here(server, (struct visit){.version = TLS1_2_VERSION});

    CHECK_OK(sesscache_enable(server, store, "ttl=1h capacity=8MiB"));
    CHECK(tls_here(server, (struct visit){.version = TLS1_2_VERSION, .offer = &made.newest}).resumed, "no resumption after that");
    CHECK(sesscache_enable(server, store, "ttl=2h capacity=8MiB") == SESSCACHE_INVALID, "another ttl= is taken for the same");
    CHECK(sesscache_enable(server, path_in(scratch, "other"), "ttl=1h capacity=8MiB") == SESSCACHE_INVALID,
          "another directory is taken for the same");
    SSL_CTX_free(server);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(contexts_without_number_share_a_cache),
        TEST(handles_and_attachments_without_number_share_a_cache),
        TEST(connections_without_number_share_a_cache),
        TEST(a_context_for_each_connection_resumes),
        TEST(a_context_for_each_connection_leaves_the_store_open_for_the_next),
        TEST(a_context_for_each_connection_opens_nothing),
        TEST(frontends_and_reloads_with_long_connections_share_a_cache),
        TEST(a_store_that_is_kept_ends_with_the_next_call_after_a_while),
        TEST(a_store_that_is_kept_stands_in_nobodys_way),
        TEST(a_directory_that_is_made_anew_ends_what_was_kept_of_it),
        TEST(a_store_with_a_log_function_is_not_kept),
        TEST(a_context_is_enabled_twice),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
