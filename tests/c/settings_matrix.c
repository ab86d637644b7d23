/*
 * In a rollout the processes that share a store differ in one setting. For every setting of an SSL_CTX, and whichever process made
 * the session: a handshake that would succeed without the cache never fails with it, and where both processes are alike a client
 * resumes as it does with OpenSSL's own cache.
 */
#include "check.h"
#include "tls.h"

#include <openssl/x509.h>

static int any_certificate(int ok, X509_STORE_CTX *store)
{
    (void)ok;
    (void)store;
    return 1;
}

static int select_protocol(SSL *ssl, const unsigned char **out, unsigned char *len, const unsigned char *in, unsigned int size,
                           void *argument)
{
    const char *wanted = argument;

    (void)ssl;
    return SSL_select_next_proto((unsigned char **)out, len, (const unsigned char *)wanted, (unsigned int)strlen(wanted), in,
                                 size) == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}

static int acknowledge(SSL *ssl, int *alert, void *argument)
{
    (void)ssl;
    (void)alert;
    return *(const int *)argument;
}

static int no_psk(SSL *ssl, const unsigned char *identity, size_t len, SSL_SESSION **session)
{
    (void)ssl;
    (void)identity;
    (void)len;
    *session = NULL;
    return 1;
}

static int no_status(SSL *ssl, void *argument)
{
    (void)ssl;
    (void)argument;
    return SSL_TLSEXT_ERR_NOACK;
}

static int not_resumable(SSL *ssl, int is_forward_secure)
{
    (void)ssl;
    (void)is_forward_secure;
    return 1;
}

static size_t pad(SSL *ssl, int type, size_t len, void *argument)
{
    (void)ssl;
    (void)type;
    (void)argument;
    return 256 - len % 256;
}

static void set_credentials(SSL_CTX *ctx, enum credential kind)
{
    const struct credentials *own = tls_credentials(kind);

    CHECK(SSL_CTX_use_certificate(ctx, own->certificate) == 1 && SSL_CTX_use_PrivateKey(ctx, own->key) == 1, "no certificate");
}

enum what {
    NOTHING, CIPHERS, SUITES, GROUPS, SIGNATURES, CLIENT_SIGNATURES, LEVEL, OPTIONS, WITHOUT_OPTIONS, LEAST_VERSION, MOST_VERSION,
    ALPN, VERIFY, VERIFY_WITHOUT_CONTEXT, EARLY_DATA, RECEIVED_EARLY_DATA, DANE, FRAGMENT, SPLIT, PADDING, PADDING_CALLBACK, READ_AHEAD, CERTIFICATE,
    SECOND_CERTIFICATE, CA_LIST, TICKETS, MODE, CONTEXT, NAMES, PSK, PSK_HINT, STATUS, NOT_RESUMABLE, DH_AUTO, TIMEOUT, QUIET, DEPTH
};

/* Settings of one kind are tried against one another, and against none. */
static const struct setting {
    const char *kind;
    enum what what;
    const char *text;
    uint64_t number;
} settings[] = {
    {"ciphers", CIPHERS, "ECDHE-ECDSA-AES128-GCM-SHA256", 0},
    {"ciphers", CIPHERS, "ECDHE-ECDSA-AES256-GCM-SHA384", 0},
    {"ciphers", CIPHERS, "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-SHA256", 0},
    {"ciphers", CIPHERS, "ECDHE-ECDSA-AES128-SHA", 0},
    {"ciphersuites", SUITES, "TLS_AES_128_GCM_SHA256", 0},
    {"ciphersuites", SUITES, "TLS_AES_256_GCM_SHA384", 0},
    {"ciphersuites", SUITES, "TLS_CHACHA20_POLY1305_SHA256", 0},
    {"groups", GROUPS, "P-256", 0},
    {"groups", GROUPS, "X25519", 0},
    {"groups", GROUPS, "P-384", 0},
    {"groups", GROUPS, "X448:P-521", 0},
    {"signatures", SIGNATURES, "ECDSA+SHA256", 0},
    {"signatures", SIGNATURES, "ECDSA+SHA384:ECDSA+SHA256", 0},
    {"signatures of clients", CLIENT_SIGNATURES, "ECDSA+SHA512", 0},
    {"security level", LEVEL, NULL, 0},
    {"security level", LEVEL, NULL, 2},
    {"security level", LEVEL, NULL, 3},
    {"security level", LEVEL, NULL, 4},
    {"extended master secret", OPTIONS, NULL, SSL_OP_NO_EXTENDED_MASTER_SECRET},
    {"encrypt then MAC", OPTIONS, NULL, SSL_OP_NO_ENCRYPT_THEN_MAC},
    {"compression", WITHOUT_OPTIONS, NULL, SSL_OP_NO_COMPRESSION},
    {"preference", OPTIONS, NULL, SSL_OP_CIPHER_SERVER_PREFERENCE},
    {"preference", OPTIONS, NULL, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA},
    {"renegotiation", OPTIONS, NULL, SSL_OP_NO_RENEGOTIATION},
    {"renegotiation", OPTIONS, NULL, SSL_OP_ALLOW_UNSAFE_LEGACY_RENEGOTIATION},
    {"renegotiation", OPTIONS, NULL, SSL_OP_NO_SESSION_RESUMPTION_ON_RENEGOTIATION},
    {"middlebox compatibility", WITHOUT_OPTIONS, NULL, SSL_OP_ENABLE_MIDDLEBOX_COMPAT},
    {"key exchange", OPTIONS, NULL, SSL_OP_ALLOW_NO_DHE_KEX},
#ifdef SSL_OP_PREFER_NO_DHE_KEX
    {"key exchange", OPTIONS, NULL, SSL_OP_ALLOW_NO_DHE_KEX | SSL_OP_PREFER_NO_DHE_KEX},
#endif
#ifdef SSL_OP_NO_TX_CERTIFICATE_COMPRESSION
    {"compressed certificates", OPTIONS, NULL, SSL_OP_NO_TX_CERTIFICATE_COMPRESSION | SSL_OP_NO_RX_CERTIFICATE_COMPRESSION},
#endif
    {"kernel TLS", OPTIONS, NULL, SSL_OP_ENABLE_KTLS},
    {"padded hello", OPTIONS, NULL, SSL_OP_TLSEXT_PADDING},
    {"unexpected EOF", OPTIONS, NULL, SSL_OP_IGNORE_UNEXPECTED_EOF},
    {"empty fragments", OPTIONS, NULL, SSL_OP_DONT_INSERT_EMPTY_FRAGMENTS},
    {"protocol", LEAST_VERSION, NULL, TLS1_3_VERSION},
    {"protocol", MOST_VERSION, NULL, TLS1_2_VERSION},
    {"ALPN", ALPN, "\x02h2", 0},
    {"ALPN", ALPN, "\x08http/1.1", 0},
    {"ALPN", ALPN, "\x03" "foo", 0},
    {"verify mode", VERIFY, NULL, SSL_VERIFY_PEER},
    {"verify mode", VERIFY, NULL, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT},
    {"verify mode", VERIFY, NULL, SSL_VERIFY_PEER | SSL_VERIFY_CLIENT_ONCE},
    {"verify mode", VERIFY, NULL, SSL_VERIFY_PEER | SSL_VERIFY_POST_HANDSHAKE},
    {"verify mode without a context", VERIFY_WITHOUT_CONTEXT, NULL, SSL_VERIFY_NONE},
    {"verify mode without a context", VERIFY_WITHOUT_CONTEXT, NULL, SSL_VERIFY_PEER},
    {"verify depth", DEPTH, NULL, 1},
    {"early data", EARLY_DATA, NULL, 16384},
    {"early data", EARLY_DATA, NULL, 100},
    {"early data received", RECEIVED_EARLY_DATA, NULL, 100},
    {"DANE", DANE, NULL, 0},
    {"record size", FRAGMENT, NULL, 512},
    {"record size", SPLIT, NULL, 512},
    {"record size", PADDING, NULL, 512},
    {"record size", PADDING_CALLBACK, NULL, 0},
    {"read ahead", READ_AHEAD, NULL, 0},
    {"certificate", CERTIFICATE, NULL, CLIENT_RSA},
    {"certificate", SECOND_CERTIFICATE, NULL, CLIENT_RSA},
    {"CA list", CA_LIST, NULL, 0},
    {"tickets", TICKETS, NULL, 0},
    {"tickets", TICKETS, NULL, 1},
    {"tickets", TICKETS, NULL, 5},
    {"mode", MODE, NULL, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN | SSL_MODE_ASYNC},
    {"session id context", CONTEXT, "other", 0},
    {"session id context", CONTEXT, "", 0},
    {"server name", NAMES, NULL, SSL_TLSEXT_ERR_OK},
    {"server name", NAMES, NULL, SSL_TLSEXT_ERR_NOACK},
    {"PSK", PSK, NULL, 0},
    {"PSK", PSK_HINT, "hint", 0},
    {"OCSP", STATUS, NULL, 0},
    {"not resumable", NOT_RESUMABLE, NULL, 0},
    {"DH", DH_AUTO, NULL, 0},
    {"timeout", TIMEOUT, NULL, 60},
    {"quiet shutdown", QUIET, NULL, 0},
};

/* The callbacks of one server. */
static const int acknowledged = SSL_TLSEXT_ERR_OK, not_acknowledged = SSL_TLSEXT_ERR_NOACK;

static int apply(SSL_CTX *ctx, const struct setting *to)
{
    unsigned int number = (unsigned int)to->number;
    const char *text = to->text;

    switch (to->what) {
    case NOTHING: return 1;
    case CIPHERS: return SSL_CTX_set_cipher_list(ctx, text);
    case SUITES: return SSL_CTX_set_ciphersuites(ctx, text);
    case GROUPS: return (int)SSL_CTX_set1_groups_list(ctx, text);
    case SIGNATURES: return (int)SSL_CTX_set1_sigalgs_list(ctx, text);
    case CLIENT_SIGNATURES: return (int)SSL_CTX_set1_client_sigalgs_list(ctx, text);
    case LEVEL: SSL_CTX_set_security_level(ctx, (int)number); return 1;
    case OPTIONS: SSL_CTX_set_options(ctx, to->number); return 1;
    case WITHOUT_OPTIONS: SSL_CTX_clear_options(ctx, to->number); return 1;
    case LEAST_VERSION: return (int)SSL_CTX_set_min_proto_version(ctx, (int)number);
    case MOST_VERSION: return (int)SSL_CTX_set_max_proto_version(ctx, (int)number);
    case ALPN: SSL_CTX_set_alpn_select_cb(ctx, select_protocol, (void *)(uintptr_t)text); return 1;
    case VERIFY: SSL_CTX_set_verify(ctx, (int)number, any_certificate); return 1;
    case VERIFY_WITHOUT_CONTEXT:
        SSL_CTX_set_verify(ctx, (int)number, any_certificate);
        return SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"", 0);
    case EARLY_DATA: return SSL_CTX_set_max_early_data(ctx, number);
    case RECEIVED_EARLY_DATA: return SSL_CTX_set_recv_max_early_data(ctx, number);
    case DANE: return SSL_CTX_dane_enable(ctx);
    case FRAGMENT: return (int)SSL_CTX_set_max_send_fragment(ctx, number);
    case SPLIT: return (int)SSL_CTX_set_split_send_fragment(ctx, number);
    case PADDING: return SSL_CTX_set_block_padding(ctx, number);
    case PADDING_CALLBACK: SSL_CTX_set_record_padding_callback(ctx, pad); return 1;
    case READ_AHEAD: SSL_CTX_set_read_ahead(ctx, 1); return 1;
    case CERTIFICATE:
    case SECOND_CERTIFICATE: set_credentials(ctx, (enum credential)number); return 1;
    case CA_LIST: return SSL_CTX_add_client_CA(ctx, tls_credentials(SERVER_P256)->certificate);
    case TICKETS: return SSL_CTX_set_num_tickets(ctx, number);
    case MODE: SSL_CTX_set_mode(ctx, number); return 1;
    case CONTEXT: return SSL_CTX_set_session_id_context(ctx, (const unsigned char *)text, (unsigned int)strlen(text));
    case NAMES:
        SSL_CTX_set_tlsext_servername_callback(ctx, acknowledge);
        SSL_CTX_set_tlsext_servername_arg(ctx, (void *)(uintptr_t)(number == SSL_TLSEXT_ERR_OK ? &acknowledged : &not_acknowledged));
        return 1;
    case PSK: SSL_CTX_set_psk_find_session_callback(ctx, no_psk); return 1;
    case PSK_HINT: return SSL_CTX_use_psk_identity_hint(ctx, text);
    case STATUS: return (int)SSL_CTX_set_tlsext_status_cb(ctx, no_status);
    case NOT_RESUMABLE: SSL_CTX_set_not_resumable_session_callback(ctx, not_resumable); return 1;
    case DH_AUTO: return (int)SSL_CTX_set_dh_auto(ctx, 1);
    case TIMEOUT: return (int)SSL_CTX_set_timeout(ctx, number);
    case QUIET: SSL_CTX_set_quiet_shutdown(ctx, 1); return 1;
    case DEPTH: SSL_CTX_set_verify_depth(ctx, (int)number); return 1;
    }
    return 0;
}

/* With a cache, or with OpenSSL's own. */
static SSL_CTX *serve(const struct setting *setting, sesscache *cache)
{
    SSL_CTX *ctx = setting->what == CERTIFICATE ? SSL_CTX_new(TLS_server_method()) : tls_server();

    CHECK(SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"tests", 5) == 1, "SSL_CTX_set_session_id_context");
    CHECK(apply(ctx, setting) > 0, "%s cannot be set", setting->kind);
    if (cache != NULL)
        CHECK_OK(sesscache_attach(cache, ctx));
    else
        SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
    return ctx;
}

static SSL_SESSION *newest;

static int on_session(SSL *ssl, SSL_SESSION *session)
{
    (void)ssl;
    SSL_SESSION_free(newest);
    newest = session;
    return 1;
}

/* A client that can do everything, of one version or, if that is 0, of both. */
static SSL_CTX *new_client(int version)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    static const unsigned char protocols[] = "\x02h2\x08http/1.1";

    CHECK(ctx != NULL && SSL_CTX_set_cipher_list(ctx, "ALL:@SECLEVEL=0") == 1 &&
          SSL_CTX_set_min_proto_version(ctx, version == 0 ? TLS1_2_VERSION : version) == 1 &&
          SSL_CTX_set_max_proto_version(ctx, version) == 1 && SSL_CTX_set1_groups_list(ctx, "X25519:P-256:P-384:X448:P-521") == 1 &&
          SSL_CTX_set_alpn_protos(ctx, protocols, sizeof protocols - 1) == 0, "no SSL_CTX for the client");
    SSL_CTX_set_post_handshake_auth(ctx, 1);
    SSL_CTX_set_options(ctx, SSL_OP_ALLOW_NO_DHE_KEX);
    SSL_CTX_clear_options(ctx, SSL_OP_NO_COMPRESSION);
    set_credentials(ctx, CLIENT_P256);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(ctx, on_session);
    return ctx;
}

enum outcome_kind { FAILED, FULL, RESUMED };

static const char *const outcome_names[] = {"fails", "is full", "resumes"};

/* What the server reads until the handshake is done: early data on the way. */
static void step_server(SSL *server, int *early)
{
    char text[64];
    size_t len;

    if (*early && SSL_read_early_data(server, text, sizeof text, &len) == SSL_READ_EARLY_DATA_FINISH)
        *early = 0;
    if (!*early)
        (void)SSL_do_handshake(server);
}

static enum outcome_kind attempt(SSL_CTX *server_ctx, SSL_CTX *client_ctx, SSL_SESSION *offer)
{
    SSL *server = SSL_new(server_ctx), *client = SSL_new(client_ctx);
    enum outcome_kind outcome = FAILED;
    BIO *to_server, *to_client;
    char byte = 'x';
    size_t len;
    int early = SSL_CTX_get_max_early_data(server_ctx) > 0;

    CHECK(server != NULL && client != NULL && BIO_new_bio_pair(&to_server, 1 << 17, &to_client, 1 << 17) == 1 &&
          SSL_set_tlsext_host_name(client, "a.example") == 1, "no connection");
    SSL_set_bio(client, to_server, to_server);
    SSL_set_bio(server, to_client, to_client);
    SSL_set_connect_state(client);
    SSL_set_accept_state(server);
    if (offer != NULL) {
        SSL_SESSION *copy = SSL_SESSION_dup(offer);

        CHECK(copy != NULL && SSL_set_session(client, copy) == 1, "SSL_set_session");
        if (SSL_SESSION_get_max_early_data(copy) > 0)
            (void)SSL_write_early_data(client, "early", 5, &len);
        SSL_SESSION_free(copy);
    }
    for (int step = 0; step < 8; step++) {
        (void)SSL_do_handshake(client);
        step_server(server, &early);
    }
    if (SSL_is_init_finished(client) && SSL_is_init_finished(server) && SSL_write(server, &byte, 1) == 1 &&
        SSL_read(client, &byte, 1) == 1 && SSL_write(client, &byte, 1) == 1 && SSL_read(server, &byte, 1) == 1)
        outcome = SSL_session_reused(server) ? RESUMED : FULL;
    SSL_set_shutdown(client, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_set_shutdown(server, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(client);
    SSL_free(server);
    ERR_clear_error();
    return outcome;
}

static SSL_SESSION *take_newest(SSL_SESSION *otherwise)
{
    SSL_SESSION *session = newest;

    newest = NULL;
    if (session == NULL)
        return otherwise;
    SSL_SESSION_free(otherwise);
    return session;
}

static void describe(char *to, size_t size, const struct setting *setting)
{
    if (setting->what == NOTHING)
        snprintf(to, size, "nothing");
    else
        snprintf(to, size, "%s %s%llx", setting->kind, setting->text != NULL ? setting->text : "",
                 (unsigned long long)setting->number);
}

/* A session goes from one server to the other and back; where they are alike, as with OpenSSL's own cache. */
static int try_pair(sesscache *cache, const struct setting *one, const struct setting *two, int version)
{
    const struct setting *of[] = {one, two, one};
    SSL_CTX *client = new_client(version);
    SSL_CTX *alone[] = {serve(one, NULL), serve(two, NULL)}, *attached[] = {serve(one, cache), serve(two, cache)};
    SSL_SESSION *session = NULL, *control = NULL;
    int wrong = 0;

    for (int n = 0; n < 3; n++) {
        int at = n % 2;
        enum outcome_kind without = attempt(alone[at], client, NULL), with;
        char names[2][128];

        SSL_SESSION_free(take_newest(NULL));
        with = attempt(attached[at], client, session);
        session = take_newest(session);
        if (one == two) {
            enum outcome_kind own = attempt(alone[0], client, control);

            control = take_newest(control);
            wrong += with < own;
        }
        wrong += with == FAILED && without != FAILED;
        if (wrong > 0) {
            describe(names[0], sizeof names[0], of[n > 0 ? n - 1 : 0]);
            describe(names[1], sizeof names[1], of[n]);
            fprintf(stderr, "version %x: made with %s, offered where there is %s: the handshake %s; alone it %s\n", (unsigned)version,
                    names[0], names[1], outcome_names[with], outcome_names[without]);
            break;
        }
    }
    SSL_SESSION_free(session);
    SSL_SESSION_free(control);
    for (int n = 0; n < 2; n++) {
        SSL_CTX_free(alone[n]);
        SSL_CTX_free(attached[n]);
    }
    SSL_CTX_free(client);
    return wrong;
}

static void no_setting_that_differs_fails_a_handshake(const char *scratch)
{
    static const struct setting none = {"nothing", NOTHING, NULL, 0};
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION, 0};
    int wrong = 0;
    sesscache *cache;

    CHECK_OK(sesscache_open(store_in(scratch), NULL, &cache));
    for (int v = 0; v < 3; v++) {
        for (size_t i = 0; i < TESTS(settings); i++) {
            wrong += try_pair(cache, &none, &settings[i], versions[v]) + try_pair(cache, &settings[i], &none, versions[v]);
            for (size_t j = 0; j < TESTS(settings); j++)
                if (strcmp(settings[i].kind, settings[j].kind) == 0)
                    wrong += try_pair(cache, &settings[i], &settings[j], versions[v]);
        }
    }
    CHECK(wrong == 0, "%d combinations of settings are worse off with the cache", wrong);
    CHECK(tls_stats(cache).hits > 100, "hardly anything is looked up, so nothing was shown");
    sesscache_close(cache);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(no_setting_that_differs_fails_a_handshake),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
