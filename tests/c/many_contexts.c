/*
 * Servers have an SSL_CTX for each certificate, for each reload while long connections go on, or for each connection. However many
 * they are, those of equal directories and options share one cache, and each resumes what the others stored.
 */
#include "check.h"
#include "tls.h"

#define MOST 10000

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

static void a_context_for_each_connection_resumes(const char *scratch)
{
    char *store = store_in(scratch);
    struct outcome out = {.given = 0};

    for (int n = 0; n < 200; n++) {
        SSL_CTX *server = tls_attached(store, NULL);

        out = tls_here(server, (struct visit){.version = TLS1_3_VERSION, .offer = n > 0 ? &out.newest : NULL});
        CHECK(out.resumed == (n > 0), "connection %d", n);
        SSL_CTX_free(server);
    }
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
        TEST(a_context_for_each_connection_resumes),
        TEST(a_context_is_enabled_twice),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
