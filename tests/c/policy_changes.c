/*
 * A store outlives the process that fills it, and so what that process allowed. A session resumes only where a full handshake
 * could come to the same: under a cipher that is still allowed, with a certificate that is still valid. And where the processes of a
 * rollout differ, a handshake that would succeed without the cache never fails with it.
 */
#include "check.h"
#include "tls.h"

#include <openssl/x509v3.h>

#define OLD_CIPHER "ECDHE-ECDSA-AES128-SHA"
#define NEW_CIPHER "ECDHE-ECDSA-AES256-GCM-SHA384"
#define OLD_AND_NEW OLD_CIPHER ":" NEW_CIPHER

static sesscache_stats stats_of(const char *store)
{
    sesscache *cache;
    sesscache_stats stats;

    CHECK_OK(sesscache_open(store, NULL, &cache));
    stats = tls_stats(cache);
    sesscache_close(cache);
    return stats;
}

static SSL_CTX *serve(const char *store, const char *ciphers)
{
    SSL_CTX *server = tls_attached(store, NULL);

    CHECK(ciphers == NULL || SSL_CTX_set_cipher_list(server, ciphers) == 1, "SSL_CTX_set_cipher_list");
    return server;
}

static void old_cipher_first(SSL *client)
{
    CHECK(SSL_set_cipher_list(client, OLD_AND_NEW ":@SECLEVEL=0") == 1, "SSL_set_cipher_list");
}

static void a_cipher_that_was_withdrawn_does_not_resume(const char *scratch)
{
    static const struct {
        const char *before, *after;
        int resumes;
    } changes[] = {
        {OLD_AND_NEW, OLD_AND_NEW, 1},
        {OLD_AND_NEW, NEW_CIPHER ":" OLD_CIPHER, 1},
        {OLD_AND_NEW, NEW_CIPHER, 0},
        {OLD_AND_NEW, OLD_AND_NEW ":@SECLEVEL=4", 0},
    };

    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        char *name, *store;

        CHECK(asprintf(&name, "store%zu", i) > 0, "out of memory");
        store = path_in(scratch, name);
        SSL_CTX *before = serve(store, changes[i].before), *after = serve(store, changes[i].after);
        struct visit visit = {.version = TLS1_2_VERSION, .prepare_client = old_cipher_first};
        struct outcome first = tls_here(before, visit);

        CHECK(first.given == 1, "no session");
        visit.offer = &first.newest;
        if (strstr(changes[i].after, "SECLEVEL") != NULL) {
            /* Nothing of this test is strong enough for the level: what counts is that the cache says no. */
            struct pair *pair = tls_pair(after, visit);

            (void)SSL_do_handshake(pair->client);
            (void)SSL_do_handshake(pair->server);
            tls_drop(pair);
            ERR_clear_error();
        } else {
            CHECK(tls_here(after, visit).resumed == changes[i].resumes, "%s, then %s: resumed %d", changes[i].before,
                  changes[i].after, !changes[i].resumes);
        }
        CHECK(stats_of(store).misses_cipher == (uint64_t)!changes[i].resumes, "%s: misses_cipher", changes[i].after);
        SSL_CTX_free(before);
        SSL_CTX_free(after);
    }
}

/* A client whose certificate is valid for some seconds. */
static X509 *short_lived;

static void show_short_lived(SSL *client)
{
    CHECK(SSL_use_certificate(client, short_lived) == 1 &&
          SSL_use_PrivateKey(client, tls_credentials(CLIENT_P256)->key) == 1, "no client certificate");
}

static void ask(SSL *server)
{
    tls_ask(server, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT);
}

static void a_session_ends_with_the_certificate_of_its_client(const char *scratch)
{
    char *store = store_in(scratch);
    const struct credentials *own = tls_credentials(CLIENT_P256);

    for (int i = 0; i < 2; i++) {
        SSL_CTX *server = serve(store, NULL);
        struct visit visit = {.version = tls_versions[i], .prepare = ask, .prepare_client = show_short_lived};
        struct outcome first, second;

        short_lived = X509_dup(own->certificate);
        CHECK(short_lived != NULL && X509_gmtime_adj(X509_getm_notAfter(short_lived), 3) != NULL &&
              X509_sign(short_lived, own->key, EVP_sha256()) > 0, "no certificate");
        first = tls_here(server, visit);
        visit.offer = &first.newest;
        second = tls_here(server, visit);
        CHECK(second.resumed, "%s: a session does not resume while the certificate is valid", tls_name(tls_versions[i]));
        visit.offer = &second.newest;
        sleep(4);
        CHECK(!tls_here(server, visit).resumed, "%s: a session resumes after the certificate has expired",
              tls_name(tls_versions[i]));
        X509_free(short_lived);
        SSL_CTX_free(server);
    }
}

static void an_expired_certificate_that_the_host_accepts_resumes(const char *scratch)
{
    char *store = store_in(scratch);
    const struct credentials *own = tls_credentials(CLIENT_P256);
    SSL_CTX *server = serve(store, NULL);

    short_lived = X509_dup(own->certificate);
    CHECK(short_lived != NULL && X509_gmtime_adj(X509_getm_notAfter(short_lived), -60) != NULL &&
          X509_sign(short_lived, own->key, EVP_sha256()) > 0, "no certificate");
    for (int i = 0; i < 2; i++) {
        struct visit visit = {.version = tls_versions[i], .prepare = ask, .prepare_client = show_short_lived};
        struct outcome first = tls_here(server, visit);

        visit.offer = &first.newest;
        CHECK(tls_here(server, visit).resumed, "%s: a session with a certificate that had expired before does not resume",
              tls_name(tls_versions[i]));
    }
    X509_free(short_lived);
    SSL_CTX_free(server);
}

static int other_ciphers(SSL *server, int *alert, void *argument)
{
    (void)alert;
    (void)argument;
    CHECK(SSL_set_cipher_list(server, OLD_CIPHER) == 1, "SSL_set_cipher_list");
    return SSL_TLSEXT_ERR_OK;
}

/* The callback runs after any cache's lookup. */
static void ciphers_that_the_servername_callback_allows_resume(const char *scratch)
{
    char *store = store_in(scratch);
    SSL_CTX *server = serve(store, NEW_CIPHER);
    struct visit visit = {.version = TLS1_2_VERSION, .name = "a.example", .prepare_client = old_cipher_first};

    SSL_CTX_set_tlsext_servername_callback(server, other_ciphers);
    struct outcome first = tls_here(server, visit);

    visit.offer = &first.newest;
    CHECK(tls_here(server, visit).resumed, "a session under a cipher of the name's own does not resume");
    SSL_CTX_free(server);
}

static void without_extended_master_secret_a_handshake_is_full_and_does_not_fail(const char *scratch)
{
    char *store = store_in(scratch);
    SSL_CTX *with = serve(store, NULL), *without = serve(store, NULL);

    SSL_CTX_set_options(without, SSL_OP_NO_EXTENDED_MASTER_SECRET);
    struct outcome first = tls_here(with, (struct visit){.version = TLS1_2_VERSION});
    struct visit again = {.version = TLS1_2_VERSION, .offer = &first.newest};

    CHECK(!tls_here(without, again).resumed, "resumed without the extended master secret");
    CHECK(tls_here(with, again).resumed, "the session did not survive");
    first = tls_here(without, (struct visit){.version = TLS1_2_VERSION});
    again.offer = &first.newest;
    CHECK(tls_here(without, again).resumed && !tls_here(with, again).resumed, "the other way round");
    SSL_CTX_free(with);
    SSL_CTX_free(without);
}

static void early_data_that_comes_and_goes_with_the_configuration_fails_no_handshake(const char *scratch)
{
    char *store = store_in(scratch);
    SSL_CTX *on = serve(store, NULL), *off = serve(store, NULL);

    CHECK(SSL_CTX_set_max_early_data(on, 16384) == 1 && SSL_CTX_set_max_early_data(off, 0) == 1, "SSL_CTX_set_max_early_data");
    struct outcome first = tls_here(on, (struct visit){.version = TLS1_3_VERSION});
    struct outcome second = tls_here(off, (struct visit){.version = TLS1_3_VERSION, .offer = &first.newest});

    CHECK(second.resumed, "early data switched off: a session does not resume");
    tls_pretend_early(&second.newest);
    struct outcome third =
        tls_here(on, (struct visit){.version = TLS1_3_VERSION, .offer = &second.newest, .early = "early"});

    CHECK(third.resumed && !third.early_accepted, "resumed %d, early data %d", third.resumed, third.early_accepted);
    struct outcome fourth =
        tls_here(on, (struct visit){.version = TLS1_3_VERSION, .offer = &third.newest, .early = "early"});

    CHECK(fourth.resumed && fourth.early_accepted, "the ticket of a connection whose early data was refused allows none");
    SSL_CTX_free(on);
    SSL_CTX_free(off);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(a_cipher_that_was_withdrawn_does_not_resume),
        TEST(a_session_ends_with_the_certificate_of_its_client),
        TEST(an_expired_certificate_that_the_host_accepts_resumes),
        TEST(ciphers_that_the_servername_callback_allows_resume),
        TEST(without_extended_master_secret_a_handshake_is_full_and_does_not_fail),
        TEST(early_data_that_comes_and_goes_with_the_configuration_fails_no_handshake),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
