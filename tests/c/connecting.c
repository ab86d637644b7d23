/*
 * A program that connects: real OpenSSL on both ends of a pair of BIOs.
 */
#include "check.h"
#include "connecting.h"

sesscache *cache;
SSL_CTX *server;

SSL_CTX *client_ctx(const struct call *call)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

    CHECK(ctx != NULL, "no SSL_CTX");
    if (call->version != 0) {
        SSL_CTX_set_min_proto_version(ctx, call->version);
        SSL_CTX_set_max_proto_version(ctx, call->version);
    }
    SSL_CTX_set_verify(ctx, call->no_verify ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, NULL);
    if (!call->without_trust)
        CHECK(X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), tls_credentials(SERVER_P256)->certificate) == 1, "no trust");
    CHECK_OK(sesscache_attach_client(cache, ctx));
    if (call->prepare_ctx != NULL)
        call->prepare_ctx(ctx);
    return ctx;
}

struct ends connect_ends(SSL_CTX *ctx)
{
    struct ends ends = {SSL_new(ctx), SSL_new(server)};
    BIO *one, *other;

    CHECK(ends.client != NULL && ends.server != NULL && BIO_new_bio_pair(&one, 0, &other, 0) == 1, "no connection");
    SSL_set_bio(ends.client, one, one);
    SSL_set_bio(ends.server, other, other);
    SSL_set_accept_state(ends.server);
    SSL_set_connect_state(ends.client);
    SSL_set_tlsext_host_name(ends.client, "localhost");
    SSL_set1_host(ends.client, "localhost");
    return ends;
}

void free_ends(struct ends ends)
{
    SSL_free(ends.client);
    SSL_free(ends.server);
}

/* They take turns until neither has anything to do. */
int talk(struct ends ends)
{
    char byte;
    int round, done = 0;

    for (round = 0; round < 40; round++) {
        int a = SSL_do_handshake(ends.client), b = SSL_do_handshake(ends.server);

        if (a == 1 && b == 1 && !done) {
            done = 1;
            CHECK(SSL_write(ends.server, "x", 1) == 1, "the server cannot write");
        }
        if (done && SSL_read(ends.client, &byte, 1) == 1)
            return 1;
        if ((a != 1 && SSL_get_error(ends.client, a) != SSL_ERROR_WANT_READ) ||
            (b != 1 && SSL_get_error(ends.server, b) != SSL_ERROR_WANT_READ))
            return 0;
    }
    return 0;
}

static void note_ticket(SSL *client, struct answer *answer)
{
    const unsigned char *ticket = NULL;
    unsigned char hash[EVP_MAX_MD_SIZE];
    unsigned int len, n;
    size_t ticket_len = 0;
    SSL_SESSION *session = SSL_get0_session(client);

    if (session == NULL || SSL_SESSION_get_protocol_version(session) != TLS1_3_VERSION)
        return;
    SSL_SESSION_get0_ticket(session, &ticket, &ticket_len);
    CHECK(EVP_Digest(ticket, ticket_len, hash, &len, EVP_sha256(), NULL) == 1, "no hash");
    for (n = 0; n < len; n++)
        sprintf(answer->ticket + 2 * n, "%02x", hash[n]);
}

struct answer visit_with(SSL_CTX *ctx, struct call call)
{
    struct answer answer = {0};
    struct ends ends = connect_ends(ctx);
    SSL *client = ends.client;

    if (call.prepare != NULL)
        call.prepare(client);
    answer.status = sesscache_resume(cache, client, call.peer != NULL ? call.peer : PEER);
    if (call.after != NULL)
        call.after(client);
    if (answer.status == SESSCACHE_OK)
        note_ticket(client, &answer);
    if (call.break_off) {
        SSL_do_handshake(client);
    } else {
        answer.failed = !talk(ends);
        CHECK(answer.failed == call.expected_failure, "the handshake %s",
              answer.failed ? ERR_error_string(ERR_peek_error(), NULL) : "should have failed");
        answer.resumed = !answer.failed && SSL_session_reused(client);
        CHECK(answer.failed || call.no_verify || SSL_get_verify_result(client) == X509_V_OK, "the result of verification is lost");
        SSL_shutdown(client);
        SSL_shutdown(ends.server);
    }
    ERR_clear_error();
    free_ends(ends);
    return answer;
}

struct answer visit(struct call call)
{
    SSL_CTX *ctx = client_ctx(&call);
    struct answer answer = visit_with(ctx, call);

    SSL_CTX_free(ctx);
    return answer;
}

void begin(const char *scratch, const char *options)
{
    CHECK_OK(sesscache_open(store_in(scratch), options, &cache));
    server = tls_server();
    /* Stateless tickets, as most servers give them; their keys are those of this SSL_CTX, also in children. */
    SSL_CTX_set_session_cache_mode(server, SSL_SESS_CACHE_OFF);
}

