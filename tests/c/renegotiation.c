/*
 * TLS 1.2 renegotiation, and clients that change their mind about the extended master secret (RFC 7627), come to the same
 * with the shared store as with OpenSSL's own cache. Where a client certificate is demanded only then, as servers do for
 * part of a site, the store is stricter: it returns no session that was made before the demand.
 */
#include "check.h"
#include "tls.h"

enum who { SERVER, SERVER_ABBREVIATED, CLIENT, WAYS };
static const char *const who_names[WAYS] = {"by the server", "abbreviated, by the server", "by the client"};

static void show(SSL *client)
{
    tls_show(client, CLIENT_P256);
}

static SSL_CTX *serve(const char *store)
{
    SSL_CTX *server = store != NULL ? tls_attached(store, NULL) : tls_server();

    if (store == NULL)
        SSL_CTX_set_options(server, SSL_OP_NO_TICKET);
    SSL_CTX_set_options(server, SSL_OP_ALLOW_CLIENT_RENEGOTIATION);
    return server;
}

/* Lets one end work on what has arrived; no application data ever does. */
static void advance(SSL *ssl, const char *name)
{
    char byte;
    int result = SSL_read(ssl, &byte, 1), error = SSL_get_error(ssl, result);

    CHECK(result < 0 && (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE), "renegotiation fails on the %s", name);
}

static void renegotiate(struct pair *pair, enum who who)
{
    SSL *first = who == CLIENT ? pair->client : pair->server;

    CHECK((who == SERVER_ABBREVIATED ? SSL_renegotiate_abbreviated(first) : SSL_renegotiate(first)) == 1, "SSL_renegotiate");
    /* The server is done when it has asked, the client only when it has been answered. */
    CHECK(SSL_do_handshake(first) == 1 || (who == CLIENT && SSL_want_read(first)), "a renegotiation %s fails", who_names[who]);
    for (int i = 0; i < 10; i++) {
        advance(pair->client, "client");
        advance(pair->server, "server");
    }
    CHECK(pair->out.hellos == 2 && !SSL_in_init(pair->server) && !SSL_in_init(pair->client),
          "the renegotiation %s does not end (%d ClientHellos)", who_names[who], pair->out.hellos);
}

/* What came of one renegotiation: was it resumed, is the client known, does the session made by it resume later. */
struct result {
    int resumed, known, again;
};

static struct result run(SSL_CTX *server, enum who who, int demand)
{
    struct pair *pair = tls_pair(server, (struct visit){.version = TLS1_2_VERSION, .prepare_client = show});
    struct result result;
    struct saved newest;

    tls_talk(pair);
    if (demand)
        tls_ask(pair->server, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT);
    renegotiate(pair, who);
    result.resumed = SSL_session_reused(pair->server);
    result.known = SSL_get0_peer_certificate(pair->server) != NULL;
    newest = pair->out.sessions[pair->out.given - 1];
    tls_end(pair);
    result.again = tls_here(server, (struct visit){.version = TLS1_2_VERSION, .offer = &newest}).resumed;
    SSL_CTX_free(server);
    return result;
}

static void a_renegotiation_comes_to_the_same(const char *scratch)
{
    for (int who = 0; who < WAYS; who++) {
        struct result own = run(serve(NULL), (enum who)who, 0), ours = run(serve(store_in(scratch)), (enum who)who, 0);

        CHECK(ours.resumed == own.resumed, "%s: a renegotiation is %s, with OpenSSL's own cache %s", who_names[who],
              ours.resumed ? "resumed" : "full", own.resumed ? "resumed" : "full");
        CHECK(ours.again == own.again && ours.again, "%s: the session after a renegotiation does not resume", who_names[who]);
    }
}

static void a_certificate_demanded_in_a_renegotiation_is_shown(const char *scratch)
{
    for (int who = 0; who < WAYS; who++) {
        struct result ours = run(serve(store_in(scratch)), (enum who)who, 1);

        CHECK(!ours.resumed && ours.known, "%s: a renegotiation that demands a certificate goes without", who_names[who]);
        CHECK(ours.again, "%s: the session with the certificate does not resume", who_names[who]);
    }
}

static void no_extended_master_secret(SSL *client)
{
    SSL_set_options(client, SSL_OP_NO_EXTENDED_MASTER_SECRET);
}

/* A session without the extension, offered with it: RFC 7627 section 5.3 wants a full handshake. */
static void a_session_without_the_extended_master_secret_does_not_resume_with_it(const char *scratch)
{
    for (int own = 0; own < 2; own++) {
        SSL_CTX *server = serve(own ? NULL : store_in(scratch));
        struct outcome first = tls_here(server, (struct visit){.version = TLS1_2_VERSION, .prepare_client = no_extended_master_secret});
        struct visit same = {.version = TLS1_2_VERSION, .offer = &first.newest, .prepare_client = no_extended_master_secret};
        struct visit other = {.version = TLS1_2_VERSION, .offer = &first.newest};

        CHECK(tls_here(server, same).resumed, "a client without the extension does not resume");
        CHECK(!tls_here(server, other).resumed, "a session without the extended master secret resumes with it");
        SSL_CTX_free(server);
    }
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(a_renegotiation_comes_to_the_same),
        TEST(a_certificate_demanded_in_a_renegotiation_is_shown),
        TEST(a_session_without_the_extended_master_secret_does_not_resume_with_it),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
