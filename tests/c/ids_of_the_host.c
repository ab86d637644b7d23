/*
 * A server that makes its own session ids.
 *
 * The host sets a generator after attaching, or had connections open before: the ids are not in the store's time
 * order. Such sessions must resume everywhere, be bounded and expire like the others, and never be mixed up with
 * another's, also where ids of one length are the beginning of ids of another.
 */
#include "check.h"
#include "tls.h"

#include <openssl/rand.h>
#include <string.h>

static unsigned id_len = 32;

static int own_generator(SSL *ssl, unsigned char *id, unsigned *len)
{
    (void)ssl;
    CHECK(*len == 32, "OpenSSL asks for an id of %u bytes", *len);
    *len = id_len;
    return RAND_bytes(id, (int)id_len);
}

static int constant_start(SSL *ssl, unsigned char *id, unsigned *len)
{
    static unsigned char last;

    (void)ssl;
    (void)len;
    memset(id, 7, 32);
    id[31] = ++last;
    return 1;
}

static void sessions_of_the_hosts_own_ids_resume_in_other_processes(const char *scratch)
{
    static const unsigned lengths[] = {32, 16, 1};

    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        for (size_t v = 0; v < 2; v++) {
            int version = tls_versions[v];
            char *store = store_in(scratch);
            SSL_CTX *server = tls_attached(store, NULL);
            struct outcome made;

            id_len = lengths[i];
            CHECK(SSL_CTX_set_generate_session_id(server, own_generator) == 1, "SSL_CTX_set_generate_session_id");
            made = tls_here(server, (struct visit){.version = version});
            /* A TLS 1.3 ticket that is an id must have 32 bytes: OpenSSL looks no other up. */
            CHECK(tls_resumes_elsewhere(store, NULL, version, &made.newest) == (version == TLS1_2_VERSION || id_len == 32),
                  "%s: an id of %u bytes of the host's own %s", tls_name(version), id_len,
                  id_len == 32 || version == TLS1_2_VERSION ? "does not resume elsewhere" : "resumes, which OpenSSL never did");
            SSL_CTX_free(server);
        }
    }
    id_len = 32;
}

static void ids_that_differ_in_their_last_byte_are_kept_apart(const char *scratch)
{
    for (size_t v = 0; v < 2; v++) {
        int version = tls_versions[v];
        char *store = store_in(scratch);
        SSL_CTX *server = tls_attached(store, NULL);
        struct outcome first, second;

        CHECK(SSL_CTX_set_generate_session_id(server, constant_start) == 1, "SSL_CTX_set_generate_session_id");
        first = tls_here(server, (struct visit){.version = version});
        second = tls_here(server, (struct visit){.version = version});
        /* The handshake itself proves that each is given its own secret. */
        CHECK(tls_resumes_elsewhere(store, NULL, version, &first.newest), "%s: the first", tls_name(version));
        CHECK(tls_resumes_elsewhere(store, NULL, version, &second.newest), "%s: the second", tls_name(version));
        SSL_CTX_free(server);
    }
}

static void expired_sessions_of_the_hosts_own_ids_make_way(const char *scratch)
{
    char *store = store_in(scratch);
    sesscache *cache = NULL;
    SSL_CTX *server = tls_server();
    struct outcome last = {0};
    sesscache_stats stats;

    CHECK_OK(sesscache_open(store, "capacity=1MiB ttl=1s", &cache));
    CHECK_OK(sesscache_attach(cache, server));
    CHECK(SSL_CTX_set_generate_session_id(server, own_generator) == 1, "SSL_CTX_set_generate_session_id");
    for (int i = 0; i < 50; i++)
        last = tls_here(server, (struct visit){.version = TLS1_2_VERSION});
    sleep(2);
    CHECK(!tls_resumes_elsewhere(store, "ttl=1s", TLS1_2_VERSION, &last.newest), "a session outlives its time");
    for (int i = 0; i < 50; i++)
        (void)tls_here(server, (struct visit){.version = TLS1_2_VERSION});
    stats = tls_stats(cache);
    CHECK(stats.expired >= 45, "of 50 expired sessions %llu went with 50 new ones", (unsigned long long)stats.expired);
    SSL_CTX_free(server);
    sesscache_close(cache);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(sessions_of_the_hosts_own_ids_resume_in_other_processes),
        TEST(ids_that_differ_in_their_last_byte_are_kept_apart),
        TEST(expired_sessions_of_the_hosts_own_ids_make_way),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
