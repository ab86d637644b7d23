/*
 * Memory runs out inside the library: malloc fails for libsesscache.so alone, once at every place in turn, and from there on
 * for good. Rust ends a process whose allocation fails; the server must not end, and the handshake succeeds.
 */
#include "check.h"
#include "tls.h"

#include <link.h>
#include <stdint.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);

/* Where the code of the library lies. */
static uintptr_t first, behind;
/* The allocation that makes it 0 fails; with `for_good` all that follow, too. */
static long countdown, met;
static int for_good;

static int fails(const void *caller)
{
    uintptr_t from = (uintptr_t)caller;

    if (from < first || from >= behind)
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

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(an_allocation_that_fails_once_ends_no_server),
        TEST(memory_that_is_gone_for_good_ends_no_server),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
