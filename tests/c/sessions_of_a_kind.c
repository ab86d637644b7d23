/*
 * A session that is made from one of its kind is what d2i_SSL_SESSION makes of its DER, byte for byte.
 *
 * Two servers share a store: one keeps kinds, the other decodes each session (decoded=0). Both hand the same sessions to
 * OpenSSL, and what they hand over is encoded again and compared. This program's own d2i_SSL_SESSION, which stands before
 * libssl's, counts how often the library decodes.
 */
#include "check.h"
#include "tls.h"

#include <dlfcn.h>
#include <openssl/x509.h>

/* ---- what the library hands to OpenSSL, and how often it decodes for that ---- */

static int in_get, decoded;
static unsigned char *handed;
static int handed_len;

typedef SSL_SESSION *(*get_cb)(SSL *, const unsigned char *, int, int *);
static get_cb real_get;

SSL_SESSION *d2i_SSL_SESSION(SSL_SESSION **to, const unsigned char **from, long len)
{
    static SSL_SESSION *(*real)(SSL_SESSION **, const unsigned char **, long);

    if (real == NULL)
        *(void **)&real = dlsym(RTLD_NEXT, "d2i_SSL_SESSION");
    CHECK(real != NULL, "libssl has no d2i_SSL_SESSION");
    decoded += in_get;
    return real(to, from, len);
}

static SSL_SESSION *wrapped_get(SSL *ssl, const unsigned char *id, int len, int *copy)
{
    SSL_SESSION *session;

    in_get = 1;
    session = real_get(ssl, id, len, copy);
    in_get = 0;
    OPENSSL_free(handed);
    handed = NULL;
    handed_len = session != NULL ? i2d_SSL_SESSION(session, &handed) : 0;
    return session;
}

/* ---- the scenes ---- */

struct scene {
    const char *name;
    int version;
    const char *ciphers;
    int shows;                      /* what the client shows when asked, or 0 */
    const char *server_name, *alpn;
    size_t appdata;
    uint32_t early;
    int no_extended_master_secret;
    uint8_t fragment;
    long timeout;
    int always_decoded;
};

static const struct scene scenes[] = {
    {.name = "AES-128-GCM", .version = TLS1_2_VERSION, .ciphers = "ECDHE-ECDSA-AES128-GCM-SHA256"},
    {.name = "AES-256-GCM", .version = TLS1_2_VERSION, .ciphers = "ECDHE-ECDSA-AES256-GCM-SHA384"},
    {.name = "ChaCha20", .version = TLS1_2_VERSION, .ciphers = "ECDHE-ECDSA-CHACHA20-POLY1305"},
    {.name = "AES-128-CBC", .version = TLS1_2_VERSION, .ciphers = "ECDHE-ECDSA-AES128-SHA256"},
    {.name = "no extended master secret", .version = TLS1_2_VERSION, .no_extended_master_secret = 1},
    {.name = "AES-128-GCM", .version = TLS1_3_VERSION, .ciphers = "TLS_AES_128_GCM_SHA256"},
    {.name = "AES-256-GCM", .version = TLS1_3_VERSION, .ciphers = "TLS_AES_256_GCM_SHA384"},
    {.name = "ChaCha20", .version = TLS1_3_VERSION, .ciphers = "TLS_CHACHA20_POLY1305_SHA256"},
    {.name = "server name", .server_name = "a.example"},
    {.name = "ALPN", .alpn = "\x02h2\x08http/1.1"},
    {.name = "client certificate", .shows = CLIENT_P256},
    {.name = "RSA client certificate", .shows = CLIENT_RSA},
    {.name = "client certificate of 6 KB", .shows = CLIENT_6KB},
    {.name = "application data", .appdata = 100, .alpn = "\x02h2"},
    {.name = "6 KB of application data", .appdata = 6000, .alpn = "\x02h2"},
    {.name = "small fragments", .fragment = TLSEXT_max_fragment_length_1024},
    {.name = "a minute", .timeout = 60},
    {.name = "three months", .timeout = 90L * 24 * 3600},
    {.name = "early data", .version = TLS1_3_VERSION, .early = 12345, .always_decoded = 1},
    {.name = "nearly all at once", .shows = CLIENT_6KB, .server_name = "a.example", .alpn = "\x02h2", .appdata = 6000},
    {.name = "all at once", .version = TLS1_3_VERSION, .shows = CLIENT_6KB, .server_name = "a.example", .alpn = "\x02h2",
     .appdata = 6000, .early = 12345, .always_decoded = 1},
};

static const struct scene *scene;

static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *len, const unsigned char *in, unsigned in_len, void *argument)
{
    static unsigned char data[6000];

    (void)argument;
    if (scene->appdata > 0 && !SSL_session_reused(ssl)) {
        memset(data, 'd', sizeof data);
        CHECK(SSL_SESSION_set1_ticket_appdata(SSL_get_session(ssl), data, scene->appdata) == 1, "no room for application data");
    }
    CHECK(in_len > 1 && in[0] < in_len, "a strange ALPN list");
    *out = in + 1;
    *len = in[0];
    return SSL_TLSEXT_ERR_OK;
}

static int on_servername(SSL *ssl, int *alert, void *argument)
{
    (void)ssl;
    (void)alert;
    (void)argument;
    return SSL_TLSEXT_ERR_OK;
}

static void prepare_client(SSL *client)
{
    if (scene->shows != 0)
        tls_show(client, (enum credential)scene->shows);
    if (scene->alpn != NULL)
        CHECK(SSL_set_alpn_protos(client, (const unsigned char *)scene->alpn, (unsigned)strlen(scene->alpn)) == 0, "SSL_set_alpn_protos");
    if (scene->ciphers != NULL && scene->version == TLS1_2_VERSION)
        CHECK(SSL_set_cipher_list(client, scene->ciphers) == 1, "SSL_set_cipher_list");
    if (scene->ciphers != NULL && scene->version == TLS1_3_VERSION)
        CHECK(SSL_set_ciphersuites(client, scene->ciphers) == 1, "SSL_set_ciphersuites");
    if (scene->no_extended_master_secret)
        SSL_set_options(client, SSL_OP_NO_EXTENDED_MASTER_SECRET);
    if (scene->fragment != 0)
        CHECK(SSL_set_tlsext_max_fragment_length(client, scene->fragment) == 1, "SSL_set_tlsext_max_fragment_length");
}

static void ask(SSL *server)
{
    if (scene->shows != 0)
        tls_ask(server, SSL_VERIFY_PEER);
}

/* Both servers have callbacks of their own behind the wrapper. */
static SSL_CTX *serve(const char *store, const char *options, get_cb *behind)
{
    SSL_CTX *server = tls_server();

    SSL_CTX_set_alpn_select_cb(server, on_alpn, NULL);
    SSL_CTX_set_tlsext_servername_callback(server, on_servername);
    CHECK(SSL_CTX_set_max_early_data(server, scene->early) == 1, "SSL_CTX_set_max_early_data");
    if (scene->timeout != 0)
        SSL_CTX_set_timeout(server, scene->timeout);
    CHECK_OK(sesscache_enable(server, store, options));
    *behind = SSL_CTX_sess_get_get_cb(server);
    SSL_CTX_sess_set_get_cb(server, wrapped_get);
    return server;
}

static struct outcome visit(SSL_CTX *server, const struct saved *offer, int version)
{
    return tls_here(server, (struct visit){.version = version, .offer = offer, .name = scene->server_name, .prepare = ask,
                                           .prepare_client = prepare_client});
}

static void what_is_handed_out_is_what_decoding_makes(const char *scratch)
{
    enum { SESSIONS = 5 };

    for (size_t n = 0; n < sizeof scenes / sizeof scenes[0] * 2; n++) {
        int version = tls_versions[n % 2];

        scene = &scenes[n / 2];
        if (scene->version != 0 && scene->version != version)
            continue;
        char *store = store_in(scratch);
        get_cb behind[2];
        SSL_CTX *servers[] = {serve(store, NULL, &behind[0]), serve(store, "decoded=0", &behind[1])};
        int kinds_used = 0;

        for (int i = 0; i < SESSIONS; i++) {
            struct outcome made = visit(servers[0], NULL, version);

            for (int turn = 0; turn < 2; turn++) {
                unsigned char *by_a_kind = NULL;
                int len = 0, times = 0;

                for (int way = 0; way < 2; way++) {
                    decoded = 0;
                    real_get = behind[way];
                    CHECK(visit(servers[way], &made.newest, version).resumed, "%s, %s: no resumption", scene->name, tls_name(version));
                    CHECK(handed != NULL, "%s, %s: nothing is handed out", scene->name, tls_name(version));
                    if (way == 0) {
                        by_a_kind = handed;
                        len = handed_len;
                        times = decoded;
                        handed = NULL;
                    }
                }
                CHECK(decoded > 0, "the server that keeps nothing does not decode either");
                CHECK(len == handed_len && memcmp(by_a_kind, handed, (size_t)len) == 0,
                      "%s, %s, session %d: %d bytes of DER are not the %d that decoding makes", scene->name, tls_name(version), i,
                      len, handed_len);
                OPENSSL_free(by_a_kind);
                kinds_used += times == 0;
            }
        }
        /* The first two sessions, at most, are decoded before their kind is known; with a certificate, the first of each login. */
        int least = scene->shows ? SESSIONS : 2 * SESSIONS - 3;
        if (scene->always_decoded)
            CHECK(kinds_used == 0, "%s, %s: a session with early data begins a kind, to which no other belongs", scene->name, tls_name(version));
        else
            CHECK(kinds_used >= least, "%s, %s: only %d of %d lookups go by kind", scene->name, tls_name(version),
                  kinds_used, 2 * SESSIONS);
        SSL_CTX_free(servers[0]);
        SSL_CTX_free(servers[1]);
    }
}

/* ---- what an application attaches ---- */

static int session_index, certificate_index, live;

static void make(void *parent, void *value, CRYPTO_EX_DATA *data, int index, long argl, void *argp)
{
    void *made = malloc(16);

    (void)parent;
    (void)value;
    (void)argl;
    (void)argp;
    live++;
    CHECK(made != NULL && CRYPTO_set_ex_data(data, index, made) == 1, "out of memory");
}

/* Copies of pointers are freed twice, unless nobody copies. */
static void end(void *parent, void *value, CRYPTO_EX_DATA *data, int index, long argl, void *argp)
{
    (void)parent;
    (void)data;
    (void)index;
    (void)argl;
    (void)argp;
    live -= value != NULL;
    free(value);
}

static void what_an_application_makes_for_each_session_is_never_copied(const char *scratch)
{
    static const struct scene shows = {.name = "client certificate", .shows = CLIENT_P256};

    scene = &shows;
    session_index = SSL_SESSION_get_ex_new_index(0, NULL, make, NULL, end);
    SSL_CTX *server = tls_attached(store_in(scratch), NULL);
    struct outcome made = visit(server, NULL, TLS1_2_VERSION);

    for (int i = 0; i < 5; i++)
        CHECK(visit(server, &made.newest, TLS1_2_VERSION).resumed, "no resumption");
    SSL_CTX_free(server);
    CHECK(live == 0, "%d of the application's objects are left, or were freed twice", live);
}

static void attach_to_certificate(SSL *server)
{
    X509 *peer = SSL_get0_peer_certificate(server);

    CHECK(peer != NULL, "no client certificate");
    CHECK(X509_get_ex_data(peer, certificate_index) == NULL, "a certificate has what another connection attached to it");
    CHECK(X509_set_ex_data(peer, certificate_index, "of this connection") == 1, "X509_set_ex_data");
}

static void what_is_attached_to_a_certificate_stays_with_its_connection(const char *scratch)
{
    static const struct scene shows = {.name = "client certificate", .shows = CLIENT_P256};

    scene = &shows;
    certificate_index = X509_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    SSL_CTX *server = tls_attached(store_in(scratch), NULL);
    struct outcome made = visit(server, NULL, TLS1_2_VERSION);

    for (int i = 0; i < 5; i++) {
        struct visit again = {.version = TLS1_2_VERSION, .offer = &made.newest, .prepare = ask, .prepare_client = prepare_client,
                              .finished = attach_to_certificate};

        CHECK(tls_here(server, again).resumed, "no resumption");
    }
    SSL_CTX_free(server);
}

static X509 *held;

/* Held beyond the end of its connection, so that no other one can lie at the same address. */
static void hold_certificate(SSL *server)
{
    held = SSL_get1_peer_certificate(server);
    CHECK(held != NULL, "no client certificate");
}

/* An application may change a certificate: its alias, its trust, its ex_data. */
static void two_logins_with_one_certificate_have_a_certificate_each(const char *scratch)
{
    static const struct scene shows = {.name = "client certificate", .shows = CLIENT_P256};

    scene = &shows;
    for (int n = 0; n < 2; n++) {
        int version = tls_versions[n];
        SSL_CTX *server = tls_attached(store_in(scratch), NULL);
        struct outcome logins[2] = {visit(server, NULL, version), visit(server, NULL, version)};
        X509 *certificates[2][4];

        for (int i = 0; i < 8; i++) {
            struct visit again = {.version = version, .offer = &logins[i % 2].newest, .prepare = ask, .prepare_client = prepare_client,
                                  .finished = hold_certificate};
            struct outcome next = tls_here(server, again);

            CHECK(next.resumed, "%s: no resumption", tls_name(version));
            if (next.newest.len > 0 && version == TLS1_3_VERSION)
                logins[i % 2].newest = next.newest;
            certificates[i % 2][i / 2] = held;
        }
        for (int i = 0; i < 16; i++)
            CHECK(certificates[0][i / 4] != certificates[1][i % 4], "%s: two logins have one certificate", tls_name(version));
        for (int i = 0; i < 8; i++)
            X509_free(certificates[i % 2][i / 2]);
        SSL_CTX_free(server);
    }
}

/* A logout ends sessions that were made from others, and no others. */
static void forget(SSL *server)
{
    CHECK_OK(sesscache_forget(server));
}

static void a_logout_ends_one_of_a_kind(const char *scratch)
{
    static const struct scene shows = {.name = "client certificate", .shows = CLIENT_P256};

    scene = &shows;
    for (int n = 0; n < 2; n++) {
        int version = tls_versions[n];
        SSL_CTX *server = tls_attached(store_in(scratch), NULL);
        struct outcome logins[3], next;

        for (int i = 0; i < 3; i++) {
            logins[i] = visit(server, NULL, version);
            next = visit(server, &logins[i].newest, version);
            CHECK(next.resumed, "%s: no resumption", tls_name(version));
            if (next.newest.len > 0 && version == TLS1_3_VERSION)
                logins[i].newest = next.newest;
        }
        struct visit last = {.version = version, .offer = &logins[1].newest, .prepare = ask, .prepare_client = prepare_client,
                             .finished = forget};
        CHECK(tls_here(server, last).resumed, "%s: no resumption", tls_name(version));
        for (int i = 0; i < 3; i++)
            CHECK(visit(server, &logins[i].newest, version).resumed == (i != 1), "%s: login %d %s after the logout of 1",
                  tls_name(version), i, i == 1 ? "resumes" : "does not resume");
        SSL_CTX_free(server);
    }
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(what_is_handed_out_is_what_decoding_makes),
        TEST(what_an_application_makes_for_each_session_is_never_copied),
        TEST(what_is_attached_to_a_certificate_stays_with_its_connection),
        TEST(two_logins_with_one_certificate_have_a_certificate_each),
        TEST(a_logout_ends_one_of_a_kind),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
