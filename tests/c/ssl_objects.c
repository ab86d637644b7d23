/*
 * What programs do with SSL objects: use one again after SSL_clear, duplicate one, serve and connect with one SSL_CTX, make tickets
 * by hand, make a hundred of them, answer the first ClientHello without keeping state. Whatever resumes with OpenSSL's own cache
 * resumes with the shared one, there in another SSL_CTX as well.
 */
#include "check.h"
#include "tls.h"

enum { MOST = 128 };

static SSL_SESSION *given[MOST];
static int count;

static int on_session(SSL *ssl, SSL_SESSION *session)
{
    (void)ssl;
    CHECK(count < MOST, "too many sessions");
    given[count++] = session;
    return 1;
}

static void drop_given(void)
{
    while (count > 0)
        SSL_SESSION_free(given[--count]);
}

static void client_settings(SSL_CTX *ctx, int version)
{
    CHECK(SSL_CTX_set_min_proto_version(ctx, version) == 1 && SSL_CTX_set_max_proto_version(ctx, version) == 1,
          "SSL_CTX_set_max_proto_version");
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(ctx, on_session);
}

static SSL_CTX *new_client(int version)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

    CHECK(ctx != NULL, "no SSL_CTX for the client");
    client_settings(ctx, version);
    return ctx;
}

static SSL *connect_to(SSL *server, SSL_CTX *client_ctx, const SSL_SESSION *offer)
{
    SSL *client = SSL_new(client_ctx);
    BIO *to_server, *to_client;

    CHECK(client != NULL && BIO_new_bio_pair(&to_server, 1 << 17, &to_client, 1 << 17) == 1, "out of memory");
    SSL_set_bio(client, to_server, to_server);
    SSL_set_bio(server, to_client, to_client);
    SSL_set_connect_state(client);
    SSL_set_accept_state(server);
    if (offer != NULL) {
        SSL_SESSION *copy = SSL_SESSION_dup((SSL_SESSION *)(uintptr_t)offer);

        CHECK(copy != NULL && SSL_set_session(client, copy) == 1, "SSL_set_session");
        SSL_SESSION_free(copy);
    }
    return client;
}

static void shake(SSL *server, SSL *client)
{
    char byte = 'x';

    for (int step = 0; step < 4; step++) {
        (void)SSL_do_handshake(client);
        (void)SSL_do_handshake(server);
    }
    CHECK(SSL_is_init_finished(client) && SSL_is_init_finished(server), "no handshake");
    CHECK(SSL_write(server, &byte, 1) == 1 && SSL_read(client, &byte, 1) == 1, "no data");
}

static void part(SSL *server, SSL *client)
{
    SSL_set_shutdown(client, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_set_shutdown(server, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(client);
    ERR_clear_error();
}

/* One visit on this SSL; the newest session goes to `newest` unless that is NULL. */
static int visit(SSL *server, SSL_CTX *client_ctx, const SSL_SESSION *offer, SSL_SESSION **newest)
{
    SSL *client = connect_to(server, client_ctx, offer);
    int resumed;

    drop_given();
    shake(server, client);
    resumed = SSL_session_reused(server);
    if (newest != NULL)
        *newest = SSL_get1_session(client);
    part(server, client);
    return resumed;
}

static int resumes(SSL_CTX *ctx, SSL_CTX *client_ctx, const SSL_SESSION *offer)
{
    SSL *server = SSL_new(ctx);
    int resumed = visit(server, client_ctx, offer, NULL);

    SSL_free(server);
    return resumed;
}

/* What a scene came to: how many of its sessions resume in the SSL_CTX that made them, and in another with the same cache. */
struct result {
    int here, elsewhere;
};

static void used_again(SSL_CTX *ctx, SSL_CTX *other, int version, struct result *result)
{
    SSL_CTX *client = new_client(version);
    SSL *server = SSL_new(ctx);
    SSL_SESSION *sessions[4];

    for (int n = 0; n < 4; n++) {
        (void)visit(server, client, n == 2 ? sessions[0] : NULL, &sessions[n]);
        CHECK(SSL_clear(server) == 1, "SSL_clear");
    }
    SSL_free(server);
    for (int n = 0; n < 4; n++) {
        result->here += resumes(ctx, client, sessions[n]);
        result->elsewhere += resumes(other, client, sessions[n]);
        SSL_SESSION_free(sessions[n]);
    }
    SSL_CTX_free(client);
}

static void duplicated(SSL_CTX *ctx, SSL_CTX *other, int version, struct result *result)
{
    SSL_CTX *client = new_client(version);
    SSL *model = SSL_new(ctx), *copies[2], *again;
    SSL_SESSION *sessions[2];

    SSL_set_accept_state(model);
    for (int n = 0; n < 2; n++)
        CHECK((copies[n] = SSL_dup(model)) != NULL, "SSL_dup");
    SSL_free(model);
    for (int n = 0; n < 2; n++) {
        (void)visit(copies[n], client, NULL, &sessions[n]);
        CHECK((again = SSL_dup(copies[n])) != NULL, "SSL_dup after a handshake");
        SSL_free(again);
        SSL_free(copies[n]);
        result->here += resumes(ctx, client, sessions[n]);
        result->elsewhere += resumes(other, client, sessions[n]);
        SSL_SESSION_free(sessions[n]);
    }
    SSL_CTX_free(client);
}

/* Tickets made by hand where the handshake makes none. */
static void made_by_hand(SSL_CTX *ctx, SSL_CTX *other, int version, struct result *result)
{
    SSL_CTX *client_ctx = new_client(version);
    SSL *server = SSL_new(ctx), *client;
    char byte = 'x';

    if (version == TLS1_3_VERSION) {
        CHECK(SSL_set_num_tickets(server, 0) == 1, "SSL_set_num_tickets");
        drop_given();
        client = connect_to(server, client_ctx, NULL);
        shake(server, client);
        CHECK(count == 0, "a ticket was made");
        for (int n = 0; n < 3; n++)
            CHECK(SSL_new_session_ticket(server) == 1 && SSL_write(server, &byte, 1) == 1 && SSL_read(client, &byte, 1) == 1,
                  "SSL_new_session_ticket");
        CHECK(count == 3, "%d tickets", count);
        SSL_SESSION *sessions[3] = {given[0], given[1], given[2]};

        count = 0;
        part(server, client);
        for (int n = 0; n < 3; n++) {
            result->here += resumes(ctx, client_ctx, sessions[n]);
            result->elsewhere += resumes(other, client_ctx, sessions[n]);
            SSL_SESSION_free(sessions[n]);
        }
    }
    SSL_free(server);
    SSL_CTX_free(client_ctx);
}

static void a_hundred(SSL_CTX *ctx, SSL_CTX *other, int version, struct result *result)
{
    SSL_CTX *client_ctx = new_client(version);
    SSL *server = SSL_new(ctx), *client;

    if (version == TLS1_3_VERSION) {
        SSL_SESSION *sessions[100];

        CHECK(SSL_set_num_tickets(server, 100) == 1, "SSL_set_num_tickets");
        drop_given();
        client = connect_to(server, client_ctx, NULL);
        shake(server, client);
        CHECK(count == 100, "%d tickets", count);
        memcpy(sessions, given, sizeof sessions);
        count = 0;
        part(server, client);
        for (int n = 0; n < 100; n++) {
            result->here += resumes(ctx, client_ctx, sessions[n]);
            result->elsewhere += resumes(other, client_ctx, sessions[n]);
            SSL_SESSION_free(sessions[n]);
        }
    }
    SSL_free(server);
    SSL_CTX_free(client_ctx);
}

/* The same SSL_CTX connects to others, whose sessions are none of the cache's. */
static void both_roles(SSL_CTX *ctx, SSL_CTX *other, int version, struct result *result)
{
    SSL_CTX *client = new_client(version), *peer = tls_server();
    SSL *server;
    SSL_SESSION *session, *of_peer;

    CHECK(SSL_CTX_set_min_proto_version(ctx, version) == 1 && SSL_CTX_set_max_proto_version(ctx, version) == 1, "no version");
    for (int n = 0; n < 3; n++) {
        server = SSL_new(peer);
        (void)visit(server, ctx, NULL, &of_peer);
        SSL_free(server);
        server = SSL_new(ctx);
        (void)visit(server, client, NULL, &session);
        SSL_free(server);
        result->here += resumes(ctx, client, session) + resumes(peer, ctx, of_peer);
        result->elsewhere += resumes(other, client, session);
        SSL_SESSION_free(session);
        SSL_SESSION_free(of_peer);
    }
    SSL_CTX_free(peer);
    SSL_CTX_free(client);
}

static const unsigned char cookie_text[] = "a cookie of the test";

static int make_cookie(SSL *ssl, unsigned char *cookie, size_t *len)
{
    (void)ssl;
    memcpy(cookie, cookie_text, sizeof cookie_text);
    *len = sizeof cookie_text;
    return 1;
}

static int know_cookie(SSL *ssl, const unsigned char *cookie, size_t len)
{
    (void)ssl;
    return len == sizeof cookie_text && memcmp(cookie, cookie_text, len) == 0;
}

/* The first ClientHello gets a cookie, and only the second one is served. SSL_stateless begins anew each time. */
static int visit_stateless(SSL_CTX *ctx, SSL_CTX *client_ctx, const SSL_SESSION *offer, SSL_SESSION **newest)
{
    SSL *server = SSL_new(ctx), *client = connect_to(server, client_ctx, offer);
    int resumed;

    (void)SSL_do_handshake(client);
    CHECK(SSL_stateless(server) == 0, "the first ClientHello is served");
    (void)SSL_do_handshake(client);
    CHECK(SSL_stateless(server) == 1, "the second ClientHello is not served");
    drop_given();
    shake(server, client);
    resumed = SSL_session_reused(server);
    if (newest != NULL)
        *newest = SSL_get1_session(client);
    part(server, client);
    SSL_free(server);
    return resumed;
}

static const struct scene {
    const char *name;
    void (*play)(SSL_CTX *ctx, SSL_CTX *other, int version, struct result *result);
    int of_tls13_only;
} scenes[] = {
    {"SSL_clear", used_again, 0},        {"SSL_dup", duplicated, 0},  {"SSL_new_session_ticket", made_by_hand, 1},
    {"a hundred tickets", a_hundred, 1}, {"both roles", both_roles, 0},
};

static SSL_CTX *new_server(const char *store)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_method());
    const struct credentials *own = tls_credentials(SERVER_P256);

    CHECK(ctx != NULL && SSL_CTX_use_certificate(ctx, own->certificate) == 1 && SSL_CTX_use_PrivateKey(ctx, own->key) == 1 &&
          SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"tests", 5) == 1, "no SSL_CTX");
    if (store != NULL)
        CHECK_OK(sesscache_enable(ctx, store, NULL));
    else
        SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
    return ctx;
}

static void whatever_resumes_with_openssls_own_cache_resumes_everywhere(const char *scratch)
{
    char *store = store_in(scratch);

    for (size_t n = 0; n < TESTS(scenes); n++) {
        for (int i = 0; i < 2; i++) {
            struct result alone = {0, 0}, attached = {0, 0};
            SSL_CTX *own[] = {new_server(NULL), new_server(NULL)}, *shared[] = {new_server(store), new_server(store)};
            const char *name = scenes[n].name, *version = tls_name(tls_versions[i]);

            scenes[n].play(own[0], own[1], tls_versions[i], &alone);
            scenes[n].play(shared[0], shared[1], tls_versions[i], &attached);
            CHECK(alone.here > 0 || (scenes[n].of_tls13_only && i == 0), "%s, %s: nothing resumes alone", name, version);
            CHECK(attached.here >= alone.here && alone.elsewhere == 0, "%s, %s: %d resume, %d with OpenSSL's own cache", name,
                  version, attached.here, alone.here);
            CHECK(attached.elsewhere > 0 || (scenes[n].of_tls13_only && i == 0), "%s, %s: nothing resumes elsewhere", name, version);
            for (int k = 0; k < 2; k++) {
                SSL_CTX_free(own[k]);
                SSL_CTX_free(shared[k]);
            }
        }
    }
    drop_given();
}

/* OpenSSL cannot verify the binder of a session offered behind a cookie, and ends the handshake: no session may be found there. */
static void a_client_behind_a_cookie_is_served_whatever_it_offers(const char *scratch)
{
    SSL_CTX *server = new_server(store_in(scratch)), *client = new_client(TLS1_3_VERSION);
    SSL_SESSION *session;

    /* SSL_stateless takes the ChangeCipherSpec of the middlebox mode for the second ClientHello. */
    SSL_CTX_clear_options(client, SSL_OP_ENABLE_MIDDLEBOX_COMPAT);
    SSL_CTX_set_stateless_cookie_generate_cb(server, make_cookie);
    SSL_CTX_set_stateless_cookie_verify_cb(server, know_cookie);
    CHECK(!visit_stateless(server, client, NULL, &session), "a client without a session resumes");
    for (int n = 0; n < 2; n++)
        CHECK(!visit_stateless(server, client, session, NULL), "OpenSSL verifies binders behind a cookie by now: look them up");
    CHECK(resumes(server, client, session), "the session does not resume without a cookie");
    SSL_SESSION_free(session);
    SSL_CTX_free(client);
    SSL_CTX_free(server);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(a_client_behind_a_cookie_is_served_whatever_it_offers),
        TEST(whatever_resumes_with_openssls_own_cache_resumes_everywhere),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
