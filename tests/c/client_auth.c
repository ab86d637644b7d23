/*
 * A certificate that the server demands is never skipped by resuming a session that was made without it, wherever
 * the demand is made: on the SSL_CTX, on the SSL, in a callback, or after the handshake.
 */
#include "check.h"
#include "tls.h"

#define INSIST (SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT)

/* What the callbacks of the server ask for, while they are asked. */
static int mode;

static void ask(SSL *server)
{
    tls_ask(server, mode);
}

static int ask_in_client_hello(SSL *server, int *alert, void *argument)
{
    (void)alert;
    (void)argument;
    tls_ask(server, mode);
    return SSL_CLIENT_HELLO_SUCCESS;
}

static int ask_in_servername(SSL *server, int *alert, void *argument)
{
    (void)alert;
    (void)argument;
    tls_ask(server, mode);
    return SSL_TLSEXT_ERR_OK;
}

static void show(SSL *client)
{
    tls_show(client, CLIENT_P256);
}

static struct outcome visit(SSL_CTX *server, int version, const struct saved *offer, void (*prepare)(SSL *))
{
    return tls_here(server, (struct visit){.version = version, .offer = offer, .name = "a.example", .prepare = prepare,
                                           .prepare_client = show});
}

static void a_demand_made_on_the_context_counts(const char *scratch)
{
    char *store = store_in(scratch);

    for (int i = 0; i < 2; i++) {
        SSL_CTX *before = tls_attached(store, NULL), *after = tls_attached(store, NULL);
        struct outcome first = visit(before, tls_versions[i], NULL, NULL);

        SSL_CTX_set_verify(after, SSL_VERIFY_PEER, NULL);
        /* The certificate shown then is self-signed: anonymous is enough here, and the first session is not. */
        CHECK(!tls_here(after, (struct visit){.version = tls_versions[i], .offer = &first.newest, .name = "a.example"}).resumed,
              "%s: a session that nothing was asked for resumes where clients are verified", tls_name(tls_versions[i]));
        CHECK(visit(before, tls_versions[i], &first.newest, NULL).resumed, "%s: the session is gone", tls_name(tls_versions[i]));
        SSL_CTX_free(before);
        SSL_CTX_free(after);
    }
}

/* The ways to ask on one connection before OpenSSL looks for the session. */
static void a_demand_made_for_one_connection_counts(const char *scratch)
{
    char *store = store_in(scratch);

    for (int i = 0; i < 4; i++) {
        int version = tls_versions[i % 2], in_callback = i / 2;
        SSL_CTX *server = tls_attached(store, NULL);
        void (*prepare)(SSL *) = in_callback ? NULL : ask;
        struct outcome first, anonymous, known;

        if (in_callback)
            SSL_CTX_set_client_hello_cb(server, ask_in_client_hello, NULL);
        mode = SSL_VERIFY_NONE;
        first = visit(server, version, NULL, prepare);
        mode = SSL_VERIFY_PEER;
        anonymous = tls_here(server, (struct visit){.version = version, .name = "a.example", .prepare = prepare});
        known = visit(server, version, NULL, prepare);
        CHECK(!visit(server, version, &first.newest, prepare).resumed, "%s: the session resumes unasked", tls_name(version));
        CHECK(visit(server, version, &anonymous.newest, prepare).resumed,
              "%s: a client that may stay anonymous does not resume", tls_name(version));
        mode = INSIST;
        CHECK(!visit(server, version, &first.newest, prepare).resumed, "%s: the session resumes unasked", tls_name(version));
        CHECK(!visit(server, version, &anonymous.newest, prepare).resumed,
              "%s: a client that showed no certificate resumes where one is required", tls_name(version));
        CHECK(visit(server, version, &known.newest, prepare).resumed, "%s: a client that showed its certificate does not resume",
              tls_name(version));
        SSL_CTX_free(server);
    }
}

/* OpenSSL looks for the session before servername_cb: nobody knows of the demand then, its own cache neither. */
static void a_demand_made_in_the_servername_callback_comes_as_late_as_with_openssl(const char *scratch)
{
    for (int i = 0; i < 4; i++) {
        int version = tls_versions[i % 2], own = i / 2;
        SSL_CTX *server = own ? tls_server() : tls_attached(store_in(scratch), NULL);
        struct outcome first, again;

        if (own)
            SSL_CTX_set_options(server, SSL_OP_NO_TICKET);
        SSL_CTX_set_tlsext_servername_callback(server, ask_in_servername);
        mode = SSL_VERIFY_NONE;
        first = visit(server, version, NULL, NULL);
        mode = INSIST;
        again = visit(server, version, &first.newest, NULL);
        CHECK(again.resumed, "%s, %s: a demand in servername_cb is seen in time: say so in the header", tls_name(version),
              own ? "OpenSSL's own cache" : "sesscache");
        /* Another name has other sessions, so the policy of a name only has to stay the same. */
        CHECK(own || !tls_here(server, (struct visit){.version = version, .offer = &first.newest, .name = "b.example",
              .prepare_client = show}).resumed, "%s: a session resumes under another name", tls_name(version));
        SSL_CTX_free(server);
    }
}

static void a_session_without_a_context_is_not_returned_where_clients_are_verified(const char *scratch)
{
    SSL_CTX *server = tls_attached(store_in(scratch), NULL);

    CHECK(SSL_CTX_set_session_id_context(server, (const unsigned char *)"", 0) == 1, "SSL_CTX_set_session_id_context");
    for (int i = 0; i < 2; i++) {
        struct outcome first;

        mode = SSL_VERIFY_NONE;
        first = visit(server, tls_versions[i], NULL, ask);
        CHECK(visit(server, tls_versions[i], &first.newest, ask).resumed, "%s: does not resume", tls_name(tls_versions[i]));
        /* OpenSSL would end the handshake with a fatal alert. */
        mode = SSL_VERIFY_PEER;
        CHECK(!visit(server, tls_versions[i], &first.newest, ask).resumed, "%s: resumes without a context", tls_name(tls_versions[i]));
        mode = SSL_VERIFY_PEER | SSL_VERIFY_POST_HANDSHAKE;
        CHECK(!visit(server, tls_versions[i], &first.newest, ask).resumed, "%s: resumes without a context", tls_name(tls_versions[i]));
    }
    SSL_CTX_free(server);
}

static void show_later(SSL *client)
{
    show(client);
    SSL_set_post_handshake_auth(client, 1);
}

/* Reads what is there, which is no application data. */
static void expect_silence(SSL *ssl)
{
    char byte;
    int result = SSL_read(ssl, &byte, 1);

    CHECK(SSL_get_error(ssl, result) == SSL_ERROR_WANT_READ, "authentication after the handshake fails");
}

static void what_is_shown_after_the_handshake_counts_from_then_on(const char *scratch)
{
    SSL_CTX *server = tls_attached(store_in(scratch), NULL);
    struct pair *pair;
    struct outcome before, after;

    mode = SSL_VERIFY_PEER | SSL_VERIFY_POST_HANDSHAKE;
    pair = tls_pair(server, (struct visit){.version = TLS1_3_VERSION, .name = "a.example", .prepare = ask,
                                           .prepare_client = show_later});
    tls_talk(pair);
    before = pair->out;
    CHECK(SSL_verify_client_post_handshake(pair->server) == 1 && SSL_do_handshake(pair->server) == 1,
          "the server cannot ask after the handshake");
    expect_silence(pair->client);
    expect_silence(pair->server);
    CHECK(SSL_get0_peer_certificate(pair->server) != NULL, "the client showed nothing");
    expect_silence(pair->client);
    after = pair->out;
    tls_end(pair);

    CHECK(after.given > before.given, "no ticket after authentication");
    CHECK(visit(server, TLS1_3_VERSION, &before.newest, ask).resumed, "a client that is asked later does not resume");
    mode = SSL_VERIFY_PEER;
    CHECK(!visit(server, TLS1_3_VERSION, &before.newest, ask).resumed, "a client that was never asked counts as asked");
    mode = INSIST;
    CHECK(!visit(server, TLS1_3_VERSION, &before.newest, ask).resumed, "a client that was never asked counts as known");
    CHECK(visit(server, TLS1_3_VERSION, &after.sessions[after.given - 1], ask).resumed,
          "a client that showed its certificate after the handshake does not resume");
    SSL_CTX_free(server);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(a_demand_made_on_the_context_counts),
        TEST(a_demand_made_for_one_connection_counts),
        TEST(a_demand_made_in_the_servername_callback_comes_as_late_as_with_openssl),
        TEST(a_session_without_a_context_is_not_returned_where_clients_are_verified),
        TEST(what_is_shown_after_the_handshake_counts_from_then_on),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
