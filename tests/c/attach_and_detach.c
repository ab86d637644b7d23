/*
 * What attach and detach do to an SSL_CTX: one cache at most, nothing taken from the application, and everything
 * as it was afterwards.
 */
#include "check.h"
#include "tls.h"

static sesscache *open_cache(const char *store)
{
    sesscache *cache = NULL;

    CHECK_OK(sesscache_open(store, NULL, &cache));
    CHECK(cache != NULL, "sesscache_open succeeds without a handle");
    return cache;
}

static void attaching_twice_is_fine_to_one_cache_and_refused_to_another(const char *scratch)
{
    char *store = store_in(scratch);
    sesscache *cache = open_cache(store), *other = open_cache(path_in(scratch, "other"));
    SSL_CTX *server = tls_server();
    struct outcome first;

    CHECK_OK(sesscache_attach(cache, server));
    CHECK_OK(sesscache_attach(cache, server));
    CHECK(sesscache_attach(other, server) == SESSCACHE_INVALID, "an SSL_CTX moves silently to another cache");
    CHECK(strlen(sesscache_errmsg()) > 0, "no message says why");
    first = tls_here(server, (struct visit){.version = TLS1_3_VERSION});
    CHECK(tls_resumes_elsewhere(store, NULL, TLS1_3_VERSION, &first.newest),
          "a refused attach breaks the cache the SSL_CTX had");
    CHECK(tls_stats(other).puts == 0, "the session went to the cache that was refused");
    sesscache_close(cache);
    sesscache_close(other);
    SSL_CTX_free(server);
}

static void a_thousand_contexts_share_one_cache(const char *scratch)
{
    enum { COUNT = 1000 };
    static SSL_CTX *servers[COUNT];
    sesscache *cache = open_cache(store_in(scratch));

    for (int i = 0; i < COUNT; i++) {
        servers[i] = tls_server();
        CHECK_OK(sesscache_attach(cache, servers[i]));
    }
    for (int v = 0; v < 2; v++) {
        struct outcome first = tls_here(servers[0], (struct visit){.version = tls_versions[v]});

        for (int i = 1; i < COUNT; i += 333)
            CHECK(tls_here(servers[i], (struct visit){.version = tls_versions[v], .offer = &first.newest}).resumed,
                  "%s: SSL_CTX %d of %d does not resume", tls_name(tls_versions[v]), i + 1, COUNT);
    }
    for (int i = 0; i < COUNT; i++)
        SSL_CTX_free(servers[i]);
    sesscache_close(cache);
}

static void after_detach_connections_are_full_and_openssl_is_as_before(const char *scratch)
{
    char *store = store_in(scratch);

    for (int v = 0; v < 2; v++) {
        int version = tls_versions[v];
        SSL_CTX *server = tls_server();
        long mode = SSL_CTX_get_session_cache_mode(server);
        uint64_t options = SSL_CTX_get_options(server);
        struct pair *open_one;
        struct outcome first;
        sesscache *cache;

        CHECK_OK(sesscache_enable(server, store, NULL));
        first = tls_here(server, (struct visit){.version = version});
        open_one = tls_pair(server, (struct visit){.version = version, .offer = &first.newest});
        CHECK_OK(sesscache_detach(server));

        CHECK(SSL_CTX_sess_get_new_cb(server) == NULL && SSL_CTX_sess_get_get_cb(server) == NULL &&
              SSL_CTX_sess_get_remove_cb(server) == NULL, "detach leaves a hook behind");
        CHECK(SSL_CTX_get_session_cache_mode(server) == mode, "detach leaves another session cache mode");
        CHECK(SSL_CTX_get_options(server) == options, "detach leaves other options");
        CHECK(!tls_here(server, (struct visit){.version = version, .offer = &first.newest}).resumed,
              "%s: a detached SSL_CTX resumes from the store", tls_name(version));

        /* The connection begun before detach ends in peace, full or resumed. */
        tls_talk(open_one);
        tls_end(open_one);

        cache = open_cache(store);
        CHECK_OK(sesscache_attach(cache, server));
        sesscache_close(cache);
        CHECK(tls_here(server, (struct visit){.version = version, .offer = &first.newest}).resumed,
              "%s: an SSL_CTX attached again does not resume", tls_name(version));
        SSL_CTX_free(server);
    }
}

static void detaching_what_was_never_attached_is_refused(const char *scratch)
{
    SSL_CTX *server = tls_server();

    (void)scratch;
    CHECK(sesscache_detach(server) != SESSCACHE_OK, "detach of a plain SSL_CTX claims success");
    CHECK(strlen(sesscache_errmsg()) > 0, "no message says why");
    SSL_CTX_free(server);
}

static int host_new(SSL *ssl, SSL_SESSION *session)
{
    (void)ssl;
    (void)session;
    return 0;
}

static SSL_SESSION *host_get(SSL *ssl, const unsigned char *id, int len, int *copy)
{
    (void)ssl;
    (void)id;
    (void)len;
    (void)copy;
    return NULL;
}

static void host_remove(SSL_CTX *ctx, SSL_SESSION *session)
{
    (void)ctx;
    (void)session;
}

static void hooks_of_the_application_are_refused_and_left_alone(const char *scratch)
{
    char *store = store_in(scratch);
    sesscache *cache = open_cache(store);

    for (int which = 0; which < 3; which++) {
        SSL_CTX *server = tls_server();
        long mode = SSL_CTX_get_session_cache_mode(server);
        uint64_t options = SSL_CTX_get_options(server);

        if (which == 0)
            SSL_CTX_sess_set_new_cb(server, host_new);
        else if (which == 1)
            SSL_CTX_sess_set_get_cb(server, host_get);
        else
            SSL_CTX_sess_set_remove_cb(server, host_remove);
        CHECK(sesscache_attach(cache, server) == SESSCACHE_INVALID, "attach takes over hook %d of the application", which);
        CHECK(strlen(sesscache_errmsg()) > 0, "no message says why");
        CHECK(sesscache_enable(server, store, NULL) == SESSCACHE_INVALID, "enable takes over hook %d of the application", which);
        CHECK(SSL_CTX_sess_get_new_cb(server) == (which == 0 ? host_new : NULL) &&
              SSL_CTX_sess_get_get_cb(server) == (which == 1 ? host_get : NULL) &&
              SSL_CTX_sess_get_remove_cb(server) == (which == 2 ? host_remove : NULL),
              "a refused attach changes the hooks of the application");
        CHECK(SSL_CTX_get_session_cache_mode(server) == mode && SSL_CTX_get_options(server) == options,
              "a refused attach changes the SSL_CTX");
        (void)tls_here(server, (struct visit){.version = TLS1_2_VERSION});
        SSL_CTX_free(server);
    }
    CHECK(tls_stats(cache).puts == 0, "a refused SSL_CTX stores sessions");
    sesscache_close(cache);
}

static void a_hook_set_after_attach_is_noticed_when_attaching_again(const char *scratch)
{
    sesscache *cache = open_cache(store_in(scratch));

    for (int which = 0; which < 3; which++) {
        SSL_CTX *server = tls_server();

        CHECK_OK(sesscache_attach(cache, server));
        if (which == 0)
            SSL_CTX_sess_set_new_cb(server, host_new);
        else if (which == 1)
            SSL_CTX_sess_set_get_cb(server, host_get);
        else
            SSL_CTX_sess_set_remove_cb(server, host_remove);
        CHECK(sesscache_attach(cache, server) == SESSCACHE_INVALID, "attach calls an SSL_CTX attached whose hook %d is another", which);
        CHECK(strlen(sesscache_errmsg()) > 0, "no message says why");
        SSL_CTX_free(server);
    }
    sesscache_close(cache);
}

static int asked;

static int host_generate(SSL *ssl, unsigned char *id, unsigned int *len)
{
    (void)ssl;
    asked++;
    for (unsigned int i = 0; i < *len; i++)
        id[i] = (unsigned char)(asked + 7 * (int)i);
    return 1;
}

/* OpenSSL does not tell of a generator that was there before; the header does. One that is set later is the host's. */
static void an_id_generator_is_replaced_by_attach_and_one_set_later_works(const char *scratch)
{
    char *store = store_in(scratch);

    for (int v = 0; v < 2; v++) {
        SSL_CTX *server = tls_server();
        struct outcome first;

        CHECK(SSL_CTX_set_generate_session_id(server, host_generate) == 1, "SSL_CTX_set_generate_session_id");
        CHECK_OK(sesscache_enable(server, store, NULL));
        first = tls_here(server, (struct visit){.version = tls_versions[v]});
        CHECK(asked == 0, "%s: attach leaves the id generator of the application in place", tls_name(tls_versions[v]));
        CHECK(tls_resumes_elsewhere(store, NULL, tls_versions[v], &first.newest), "%s: does not resume", tls_name(tls_versions[v]));

        CHECK(SSL_CTX_set_generate_session_id(server, host_generate) == 1, "SSL_CTX_set_generate_session_id");
        first = tls_here(server, (struct visit){.version = tls_versions[v]});
        CHECK(asked > 0, "%s: an id generator set after attach is not asked", tls_name(tls_versions[v]));
        CHECK(tls_resumes_elsewhere(store, NULL, tls_versions[v], &first.newest),
              "%s: ids of the application's generator do not resume", tls_name(tls_versions[v]));

        asked = 0;
        CHECK_OK(sesscache_detach(server));
        (void)tls_here(server, (struct visit){.version = tls_versions[v]});
        CHECK(asked == 0, "%s: detach leaves an id generator behind", tls_name(tls_versions[v]));
        SSL_CTX_free(server);
    }
}

static const char *inherited_store;

static void attach_and_inherit(SSL *server)
{
    CHECK_OK(sesscache_enable(SSL_get_SSL_CTX(server), inherited_store, NULL));
    CHECK_OK(sesscache_inherit(server));
}

static void detach_and_inherit(SSL *server)
{
    CHECK_OK(sesscache_detach(SSL_get_SSL_CTX(server)));
    CHECK_OK(sesscache_inherit(server));
    CHECK(!(SSL_get_options(server) & (SSL_OP_NO_TICKET | SSL_OP_NO_ANTI_REPLAY)), "options of ours stay");
}

static void a_connection_made_before_attach_is_as_one_made_after(const char *scratch)
{
    inherited_store = store_in(scratch);
    for (int v = 0; v < 2; v++) {
        SSL_CTX *server = tls_server();
        SSL *ssl = SSL_new(server);
        struct outcome first, stateless;

        CHECK(sesscache_inherit(ssl) == SESSCACHE_NOT_FOUND, "an SSL_CTX that was never attached has something to give");
        SSL_free(ssl);
        first = tls_here(server, (struct visit){.version = tls_versions[v], .prepare = attach_and_inherit});
        CHECK(tls_resumes_elsewhere(inherited_store, NULL, tls_versions[v], &first.newest),
              "%s: the session is in no store", tls_name(tls_versions[v]));
        stateless = tls_here(server, (struct visit){.version = tls_versions[v], .prepare = detach_and_inherit});
        CHECK(tls_here(server, (struct visit){.version = tls_versions[v], .offer = &stateless.newest}).resumed,
              "%s: the ticket of a connection that was made before detach does not resume", tls_name(tls_versions[v]));
        SSL_CTX_free(server);
    }
}

static void detach_leaves_what_the_host_has_set_since(const char *scratch)
{
    for (int which = 0; which < 3; which++) {
        SSL_CTX *server = tls_server();
        uint64_t options = SSL_CTX_get_options(server);

        CHECK_OK(sesscache_enable(server, store_in(scratch), "ttl=1h"));
        if (which == 0)
            SSL_CTX_sess_set_new_cb(server, host_new);
        if (which == 1)
            SSL_CTX_sess_set_get_cb(server, host_get);
        if (which == 2)
            SSL_CTX_sess_set_remove_cb(server, host_remove);
        SSL_CTX_set_session_cache_mode(server, SSL_SESS_CACHE_SERVER | SSL_SESS_CACHE_NO_INTERNAL_LOOKUP);
        SSL_CTX_set_timeout(server, 1234);
        CHECK_OK(sesscache_detach(server));
        CHECK(SSL_CTX_sess_get_new_cb(server) == (which == 0 ? host_new : NULL)
              && SSL_CTX_sess_get_get_cb(server) == (which == 1 ? host_get : NULL)
              && SSL_CTX_sess_get_remove_cb(server) == (which == 2 ? host_remove : NULL), "callback %d", which);
        CHECK(SSL_CTX_get_session_cache_mode(server) == (SSL_SESS_CACHE_SERVER | SSL_SESS_CACHE_NO_INTERNAL_LOOKUP), "the mode");
        CHECK(SSL_CTX_get_timeout(server) == 1234, "the timeout");
        CHECK(SSL_CTX_get_options(server) == options, "options of ours stay");
        CHECK(sesscache_detach(server) == SESSCACHE_NOT_FOUND, "it is detached twice");
        SSL_CTX_free(server);
    }
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(attaching_twice_is_fine_to_one_cache_and_refused_to_another),
        TEST(a_thousand_contexts_share_one_cache),
        TEST(after_detach_connections_are_full_and_openssl_is_as_before),
        TEST(detaching_what_was_never_attached_is_refused),
        TEST(a_connection_made_before_attach_is_as_one_made_after),
        TEST(detach_leaves_what_the_host_has_set_since),
        TEST(hooks_of_the_application_are_refused_and_left_alone),
        TEST(a_hook_set_after_attach_is_noticed_when_attaching_again),
        TEST(an_id_generator_is_replaced_by_attach_and_one_set_later_works),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
