/*
 * Any order of free, close, detach, exit and dlclose is safe, and what is still attached goes on working.
 */
#include "check.h"
#include "loaded.h"
#include "tls.h"

#include <dlfcn.h>
#include <pthread.h>

#define CACHES 64

static sesscache *open_cache(const char *store)
{
    sesscache *cache = NULL;

    CHECK_OK(sesscache_open(store, NULL, &cache));
    CHECK(cache != NULL, "sesscache_open succeeds without a handle");
    return cache;
}

/* One order of ending, given by four letters: c close, s SSL_free, x SSL_CTX_free, d detach. */
static struct saved end_in_order(const char *store, const char *order, int version)
{
    sesscache *cache = open_cache(store);
    SSL_CTX *server = tls_server();
    struct pair *pair;
    struct saved session;

    CHECK_OK(sesscache_attach(cache, server));
    pair = tls_pair(server, (struct visit){.version = version});
    tls_talk(pair);
    session = pair->out.newest;
    for (const char *step = order; *step != '\0'; step++) {
        switch (*step) {
        case 'c':
            sesscache_close(cache);
            break;
        case 's':
            SSL_free(pair->server);
            pair->server = NULL;
            break;
        case 'x':
            SSL_CTX_free(server);
            break;
        default:
            CHECK_OK(sesscache_detach(server));
            break;
        }
    }
    tls_drop(pair);
    return session;
}

static void any_order_of_free_close_and_detach_is_safe(const char *scratch)
{
    /* The SSL_CTX lives until both its own reference and that of the SSL are gone; detach comes before. */
    static const char *const orders[] = {
        "csx", "cxs", "scx", "sxc", "xcs", "xsc",
        "dcsx", "dcxs", "dscx", "dsxc", "dxcs", "dxsc",
        "cdsx", "cdxs", "csdx", "sdcx", "sdxc", "scdx",
        "xdcs", "xdsc", "xcds", "cxds",
    };
    char *store = store_in(scratch);

    for (size_t i = 0; i < sizeof orders / sizeof orders[0]; i++) {
        for (int v = 0; v < 2; v++) {
            struct saved session = end_in_order(store, orders[i], tls_versions[v]);

            CHECK(tls_resumes_elsewhere(store, NULL, tls_versions[v], &session),
                  "%s: a session is lost when things end in the order %s", tls_name(tls_versions[v]), orders[i]);
        }
    }
}

static void exit_with_everything_alive_is_clean(const char *scratch)
{
    char *store = store_in(scratch);

    for (int i = 0; i < 2; i++) {
        int version = tls_versions[i], ends[2];
        struct saved session;
        pid_t pid;

        CHECK(pipe(ends) == 0, "pipe: %s", strerror(errno));
        pid = check_fork();
        if (pid == 0) {
            /* A server's handle is reachable at the end: no leak for a sanitizer, even where nobody reads it any more. */
            static sesscache *volatile live;
            SSL_CTX *server = tls_server();
            struct pair *pair;

            live = open_cache(store);
            CHECK_OK(sesscache_attach(live, server));
            pair = tls_pair(server, (struct visit){.version = version});
            tls_talk(pair);
            CHECK(write(ends[1], &pair->out.newest, sizeof session) == (ssize_t)sizeof session, "write: %s", strerror(errno));
            exit(0);
        }
        CHECK(close(ends[1]) == 0, "close: %s", strerror(errno));
        CHECK(read(ends[0], &session, sizeof session) == (ssize_t)sizeof session, "the process made no session");
        CHECK(close(ends[0]) == 0, "close: %s", strerror(errno));
        check_wait(pid, "a process that exits with a live cache, SSL_CTX and SSL");
        CHECK(tls_resumes_elsewhere(store, NULL, version, &session), "%s: a session is lost by exit()", tls_name(version));
    }
}

static void exit_after_openssl_has_cleaned_up_is_clean(const char *scratch)
{
    char *store = store_in(scratch);
    pid_t pid = check_fork();

    if (pid == 0) {
        static SSL_CTX *volatile live;

        live = tls_attached(store, NULL);
        (void)tls_here(live, (struct visit){.version = TLS1_3_VERSION});
        /* As when OpenSSL's exit handler runs before the library's. */
        OPENSSL_cleanup();
        exit(0);
    }
    check_wait(pid, "a process that cleans up OpenSSL before it exits");
}

static void closing_before_the_first_use_is_clean(const char *scratch)
{
    char *store = store_in(scratch);
    SSL_CTX *server = tls_server();
    sesscache *cache;

    for (int i = 0; i < 100; i++)
        sesscache_close(open_cache(store));
    cache = open_cache(store);
    CHECK_OK(sesscache_attach(cache, server));
    sesscache_close(cache);
    SSL_CTX_free(server);
}

static void a_closed_handle_still_serves_its_contexts(const char *scratch)
{
    char *store = store_in(scratch);
    SSL_CTX *servers[3];
    sesscache *cache = open_cache(store);

    for (int i = 0; i < 3; i++) {
        servers[i] = tls_server();
        CHECK_OK(sesscache_attach(cache, servers[i]));
    }
    sesscache_close(cache);
    for (int i = 0; i < 3; i++) {
        for (int v = 0; v < 2; v++) {
            struct outcome first = tls_here(servers[i], (struct visit){.version = tls_versions[v]});

            CHECK(tls_here(servers[i], (struct visit){.version = tls_versions[v], .offer = &first.newest}).resumed,
                  "%s: nothing resumes once the handle is closed", tls_name(tls_versions[v]));
            CHECK(tls_resumes_elsewhere(store, NULL, tls_versions[v], &first.newest),
                  "%s: nothing is shared once the handle is closed", tls_name(tls_versions[v]));
        }
        SSL_CTX_free(servers[i]);
    }
}

static void sixty_four_caches_open_and_one_more_is_refused(const char *scratch)
{
    sesscache *caches[CACHES], *more = NULL;
    SSL_CTX *servers[CACHES];
    struct outcome made[CACHES];
    char name[32];

    for (int i = 0; i < CACHES; i++) {
        snprintf(name, sizeof name, "store%d", i);
        caches[i] = open_cache(path_in(scratch, name));
        servers[i] = tls_server();
        CHECK_OK(sesscache_attach(caches[i], servers[i]));
    }
    for (int i = 0; i < CACHES; i++)
        made[i] = tls_here(servers[i], (struct visit){.version = tls_versions[i % 2]});
    for (int i = 0; i < CACHES; i++) {
        int version = tls_versions[i % 2];

        CHECK(tls_here(servers[i], (struct visit){.version = version, .offer = &made[i].newest}).resumed,
              "cache %d of %d open ones does not resume its sessions", i + 1, CACHES);
        CHECK(!tls_here(servers[(i + 2) % CACHES], (struct visit){.version = version, .offer = &made[i].newest}).resumed,
              "a session of cache %d resumes from another cache", i + 1);
    }

    CHECK(sesscache_open(path_in(scratch, "more"), NULL, &more) == SESSCACHE_FULL, "cache %d does not report FULL", CACHES + 1);
    CHECK(more == NULL, "a refused open gives a handle");
    CHECK(strlen(sesscache_errmsg()) > 0 && strstr(sesscache_errmsg(), "64") != NULL,
          "the message does not name the limit: %s", sesscache_errmsg());

    /* A place is free again once the handle is closed and the last SSL_CTX is gone. */
    sesscache_close(caches[7]);
    SSL_CTX_free(servers[7]);
    CHECK_OK(sesscache_open(path_in(scratch, "more"), NULL, &more));
    servers[7] = tls_server();
    CHECK_OK(sesscache_attach(more, servers[7]));
    made[7] = tls_here(servers[7], (struct visit){.version = TLS1_3_VERSION});
    CHECK(tls_here(servers[7], (struct visit){.version = TLS1_3_VERSION, .offer = &made[7].newest}).resumed,
          "a cache in the place of a closed one does not resume");
    caches[7] = more;
    for (int i = 0; i < CACHES; i++) {
        SSL_CTX_free(servers[i]);
        sesscache_close(caches[i]);
    }
}

static void opening_and_closing_a_thousand_times_uses_up_nothing(const char *scratch)
{
    char *store = store_in(scratch);

    for (int i = 0; i < 1000; i++) {
        SSL_CTX *server = tls_server();

        CHECK_OK(sesscache_enable(server, store, NULL));
        SSL_CTX_free(server);
    }
}

static void two_handles_on_one_directory_share_sessions(const char *scratch)
{
    char *store = store_in(scratch);
    sesscache *one = open_cache(store), *two = open_cache(store);
    SSL_CTX *first = tls_server(), *second = tls_server();
    struct outcome made;

    CHECK_OK(sesscache_attach(one, first));
    CHECK_OK(sesscache_attach(two, second));
    for (int v = 0; v < 2; v++) {
        made = tls_here(first, (struct visit){.version = tls_versions[v]});
        CHECK(tls_here(second, (struct visit){.version = tls_versions[v], .offer = &made.newest}).resumed,
              "%s: the second handle does not see sessions of the first", tls_name(tls_versions[v]));
        made = tls_here(second, (struct visit){.version = tls_versions[v]});
        CHECK(tls_here(first, (struct visit){.version = tls_versions[v], .offer = &made.newest}).resumed,
              "%s: the first handle does not see sessions of the second", tls_name(tls_versions[v]));
    }
    CHECK(tls_stats(one).puts == tls_stats(two).puts, "two handles on one store count differently");

    /* One handle gone must not take the store from the other. */
    sesscache_close(one);
    SSL_CTX_free(first);
    made = tls_here(second, (struct visit){.version = TLS1_2_VERSION});
    CHECK(tls_resumes_elsewhere(store, NULL, TLS1_2_VERSION, &made.newest), "closing one handle breaks the other");
    sesscache_close(two);
    SSL_CTX_free(second);
}

/* What a host does with the library while it is loaded. */
struct guest {
    char *copy, *store;
    void *library;
    SSL_CTX *servers[2];
    struct pair *open_one;
};

static void *use_library(void *argument)
{
    struct guest *guest = argument;
    sesscache_status (*enable)(SSL_CTX *, const char *, const char *);
    struct outcome made;

    guest->library = dlopen(guest->copy, RTLD_NOW | RTLD_LOCAL);
    CHECK(guest->library != NULL, "dlopen: %s", dlerror());
    find_function(guest->library, "sesscache_enable", &enable);
    for (int i = 0; i < 2; i++)
        CHECK(enable(guest->servers[i], guest->store, NULL) == SESSCACHE_OK, "a loaded library does not attach");
    made = tls_here(guest->servers[0], (struct visit){.version = TLS1_3_VERSION});
    guest->open_one = tls_pair(guest->servers[0], (struct visit){.version = TLS1_3_VERSION, .offer = &made.newest});
    tls_talk(guest->open_one);
    return NULL;
}

static void a_host_that_unloads_the_library_keeps_its_contexts(const char *scratch)
{
    /* Reachable, or a sanitizer would call it a leak. */
    static SSL_CTX *volatile until_exit;
    struct guest guest = {.copy = path_in(scratch, "libcopy.so"), .store = store_in(scratch), .servers = {tls_server(), tls_server()}};
    struct outcome made;
    pthread_t thread;
    Dl_info info;
    void *symbol;

    /* This program is linked to the library, so a copy under another name is loaded and unloaded instead. */
    symbol = dlsym(RTLD_DEFAULT, "sesscache_enable");
    CHECK(symbol != NULL && dladdr(symbol, &info) != 0, "where is the library?");
    copy_file(info.dli_fname, guest.copy);

    /* A thread that has used the library may keep it loaded by its thread-local data alone; this one is gone before. */
    CHECK(pthread_create(&thread, NULL, use_library, &guest) == 0 && pthread_join(thread, NULL) == 0, "pthread_create");
    CHECK(dlclose(guest.library) == 0, "dlclose: %s", dlerror());

    for (int v = 0; v < 2; v++) {
        made = tls_here(guest.servers[v], (struct visit){.version = tls_versions[v]});
        CHECK(tls_child(guest.servers[!v], (struct visit){.version = tls_versions[v], .offer = &made.newest}).resumed,
              "%s: nothing resumes after dlclose", tls_name(tls_versions[v]));
    }
    tls_end(guest.open_one);
    SSL_CTX_free(guest.servers[0]);
    until_exit = guest.servers[1];
    (void)until_exit;
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(any_order_of_free_close_and_detach_is_safe),
        TEST(exit_with_everything_alive_is_clean),
        TEST(exit_after_openssl_has_cleaned_up_is_clean),
        TEST(closing_before_the_first_use_is_clean),
        TEST(a_closed_handle_still_serves_its_contexts),
        TEST(sixty_four_caches_open_and_one_more_is_refused),
        TEST(opening_and_closing_a_thousand_times_uses_up_nothing),
        TEST(two_handles_on_one_directory_share_sessions),
        TEST(a_host_that_unloads_the_library_keeps_its_contexts),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
