/*
 * A host that turns OpenSSL's own cache on after attach, and empties it from another thread while sessions are made.
 *
 * A session in OpenSSL's cache is seen by all threads. It lies in a hash table by its id: whoever takes the id off it for a
 * moment, and be it to encode it, leaves the table with an entry that nobody finds again, and SSL_CTX_flush_sessions_ex loops.
 */
#include "check.h"
#include "tls.h"

#include <pthread.h>
#include <stdatomic.h>

#define CONNECTIONS 400
#define OPTIONS "deadline=10s"

static atomic_int done;

static void *flush(void *ctx)
{
    while (!atomic_load(&done))
        SSL_CTX_flush_sessions_ex(ctx, 0);
    return NULL;
}

static SSL_CTX *serve(const char *store)
{
    SSL_CTX *server = tls_attached(store, OPTIONS);

    SSL_CTX_set_session_cache_mode(server, SSL_SESS_CACHE_SERVER);
    return server;
}

static void sessions_are_made_while_another_thread_flushes(const char *scratch)
{
    SSL_CTX *server = serve(store_in(scratch));
    pthread_t flusher;

    CHECK(pthread_create(&flusher, NULL, flush, server) == 0, "pthread_create");
    for (int i = 0; i < CONNECTIONS; i++) {
        struct outcome first = tls_here(server, (struct visit){.version = tls_versions[i % 2]});

        CHECK(first.given > 0, "%s: connection %d has no session", tls_name(tls_versions[i % 2]), i);
    }
    atomic_store(&done, 1);
    CHECK(pthread_join(flusher, NULL) == 0, "pthread_join");
    SSL_CTX_flush_sessions_ex(server, 0);
    CHECK(SSL_CTX_sess_number(server) == 0, "%ld sessions are left in OpenSSL's cache after it was emptied",
          SSL_CTX_sess_number(server));
    SSL_CTX_free(server);
}

static void forget_and_finish(SSL *server)
{
    CHECK_OK(sesscache_forget(server));
}

static void forget_reaches_both_caches(const char *scratch)
{
    char *store = store_in(scratch);

    for (int i = 0; i < 2; i++) {
        SSL_CTX *server = serve(store);
        struct outcome out = tls_here(server, (struct visit){.version = tls_versions[i]});
        struct visit visit = {.version = tls_versions[i], .offer = &out.newest, .finished = forget_and_finish};

        tls_here(server, visit);
        CHECK(!tls_resumes_elsewhere(store, OPTIONS, tls_versions[i], &out.newest), "%s: resumes elsewhere after forget",
              tls_name(tls_versions[i]));
        visit.finished = NULL;
        CHECK(tls_versions[i] != TLS1_2_VERSION || !tls_here(server, visit).resumed, "resumes here after forget");
        SSL_CTX_free(server);
    }
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(sessions_are_made_while_another_thread_flushes),
        TEST(forget_reaches_both_caches),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
