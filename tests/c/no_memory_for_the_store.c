/*
 * Memory runs out inside the library: malloc fails for libsesscache.so alone, once at every place in turn, and from there on
 * for good. Rust ends a process whose allocation fails; the server must not end, and the handshake succeeds.
 */
#include "check.h"
#include "tls.h"

#include <link.h>
#include <pthread.h>
#include <openssl/err.h>
#include <stdint.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);

/* Where the code of the library lies. */
static uintptr_t first, behind;
/* The allocation that makes it 0 fails; with `for_good` all that follow, too. */
static long countdown, met;
static int for_good;
/* It fails for everybody. */
static int for_all;

static int fails(const void *caller)
{
    uintptr_t from = (uintptr_t)caller;

    if (!for_all && (from < first || from >= behind))
        return 0;
    met++;
    if (countdown <= 0)
        return 0;
    if (countdown > 1)
        return --countdown, 0;
    countdown = for_good;
    return 1;
}

void *malloc(size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *block, size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_realloc(block, size);
}

static int find_library(struct dl_phdr_info *object, size_t size, void *argument)
{
    (void)size;
    (void)argument;
    if (strstr(object->dlpi_name, "libsesscache") == NULL)
        return 0;
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &object->dlpi_phdr[i];

        if (part->p_type == PT_LOAD && (part->p_flags & PF_X)) {
            first = object->dlpi_addr + part->p_vaddr;
            behind = first + part->p_memsz;
        }
    }
    return 1;
}

enum { DONE = 7 };

/* In a child, which opens the store for itself unless it has made a session before. */
static int connect_without(SSL_CTX *ctx, int version, int used, int n)
{
    pid_t pid = check_fork();
    int status;

    if (pid == 0) {
        struct visit visit = {.version = version};
        struct outcome made;

        if (used) {
            made = tls_here(ctx, visit);
            visit.offer = &made.newest;
        }
        met = 0;
        countdown = n;
        for (int again = 0; again < 1 + 20 * for_good; again++)
            (void)tls_here(ctx, visit);
        if (countdown > 1)
            _exit(DONE);
        /* With memory again, all is as before. */
        countdown = 0;
        for (double end = check_now() + check_patience(3);; check_sleep(0.05)) {
            visit.offer = NULL;
            made = tls_here(ctx, visit);
            visit.offer = &made.newest;
            if (tls_here(ctx, visit).resumed)
                break;
            CHECK(check_now() < end, "%s: nothing resumes when there is memory again", tls_name(version));
        }
        _exit(met > 0 ? 0 : 1);
    }
    CHECK(waitpid(pid, &status, 0) == pid, "waitpid: %s", strerror(errno));
    CHECK(!WIFSIGNALED(status), "%s: the server dies of signal %d when allocation %d of the library fails", tls_name(version),
          WTERMSIG(status), n);
    CHECK(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == DONE, "%s: a handshake fails when allocation %d of the library does",
          tls_name(version), n);
    return WEXITSTATUS(status) == 0;
}

static void fail_everywhere(const char *scratch, int step)
{
    SSL_CTX *ctx;

    CHECK(dl_iterate_phdr(find_library, NULL) == 1, "the library is not loaded");
    ctx = tls_attached(store_in(scratch), "deadline=1s");
    (void)tls_here(ctx, (struct visit){.version = TLS1_3_VERSION});
    for (int n = 0; n < 4; n++) {
        int places = 0;

        while (connect_without(ctx, tls_versions[n % 2], n / 2, 1 + places * step))
            CHECK(++places < 1000, "the handshake never gets through");
        printf("%s, %s: %d allocations failed\n", tls_name(tls_versions[n % 2]), n / 2 ? "resumed" : "first session", places);
        CHECK(places > 0, "no allocation was met: this test looks in the wrong place");
    }
    SSL_CTX_free(ctx);
}

static void an_allocation_that_fails_once_ends_no_server(const char *scratch)
{
    for_good = 0;
    fail_everywhere(scratch, getenv("SESSCACHE_LONG") != NULL ? 1 : 4);
}

static void memory_that_is_gone_for_good_ends_no_server(const char *scratch)
{
    for_good = 1;
    fail_everywhere(scratch, getenv("SESSCACHE_LONG") != NULL ? 1 : 30);
}

/* ---- a thread's first use, without memory for anybody ---- */

struct first_use {
    struct pair *pair;
    int n, met_it;
};

static void *serve_first(void *argument)
{
    struct first_use *use = argument;
    int client = -1, server = -1;

    for (int step = 0; step < 20 && !(client == 1 && server == 1); step++) {
        client = SSL_do_handshake(use->pair->client);
        if (step == 0)
            countdown = use->n;
        for_all = 1;
        server = SSL_do_handshake(use->pair->server);
        for_all = 0;
        if (server <= 0 && SSL_get_error(use->pair->server, server) == SSL_ERROR_SSL)
            break;
    }
    use->met_it = countdown <= for_good;
    countdown = 0;
    ERR_clear_error();
    return NULL;
}

/* Handshakes may fail, for OpenSSL has no memory either. */
static void each_place_fails_in_a_new_thread(SSL_CTX *ctx, int version, int resumed, int step)
{
    struct visit visit = {.version = version};
    struct outcome made;
    struct first_use use = {.met_it = 1};

    /* OpenSSL never forgets that it could not fetch an algorithm: it has fetched all before. */
    made = tls_here(ctx, visit);
    visit.offer = &made.newest;
    (void)tls_here(ctx, visit);
    for (int n = 1; use.met_it; n += step) {
        pthread_t thread;

        visit.offer = NULL;
        if (resumed) {
            made = tls_here(ctx, visit);
            visit.offer = &made.newest;
        }
        use = (struct first_use){.pair = tls_pair(ctx, visit), .n = n};
        CHECK(pthread_create(&thread, NULL, serve_first, &use) == 0 && pthread_join(thread, NULL) == 0, "no thread");
        tls_drop(use.pair);
        CHECK(n < 5000, "the handshake never gets through");
    }
    made = tls_here(ctx, visit);
    visit.offer = &made.newest;
    CHECK(tls_here(ctx, visit).resumed, "nothing resumes when there is memory again");
    exit(0);
}

static void memory_that_ends_at_a_thread_s_first_use_ends_no_server(const char *scratch)
{
    SSL_CTX *ctx = tls_attached(store_in(scratch), "deadline=1s");
    int step = getenv("SESSCACHE_LONG") != NULL ? 1 : 3;

    for (int n = 0; n < 8; n++) {
        pid_t pid = check_fork();
        int status;

        for_good = n / 4;
        if (pid == 0)
            each_place_fails_in_a_new_thread(ctx, tls_versions[n % 2], n / 2 % 2, step);
        CHECK(waitpid(pid, &status, 0) == pid, "waitpid: %s", strerror(errno));
        CHECK(!WIFSIGNALED(status), "%s, %s, %s: the server dies of signal %d", tls_name(tls_versions[n % 2]),
              n / 2 % 2 ? "resumed" : "full", for_good ? "for good" : "once", WTERMSIG(status));
        CHECK(WEXITSTATUS(status) == 0, "see above");
    }
    SSL_CTX_free(ctx);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(an_allocation_that_fails_once_ends_no_server),
        TEST(memory_that_is_gone_for_good_ends_no_server),
        TEST(memory_that_ends_at_a_thread_s_first_use_ends_no_server),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
