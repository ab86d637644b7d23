/*
 * A resumed session tells the server the same as one from OpenSSL's own cache: who the client is, whether that was
 * verified, what was negotiated, and what the application wrote into it.
 *
 * The same connections are made with OpenSSL's own cache and with the shared store, there in the same process, in others,
 * and with and without the table of decoded sessions. All that a server can ask of a session is compared. Two things
 * differ, as the header says: the chain behind the client's certificate, and ex_data, are not in the store.
 */
#include "check.h"
#include "tls.h"

#include <openssl/evp.h>
#include <sys/mman.h>

enum fact {
    RESUMED, PEER, CHAIN, VERIFY_RESULT, ALPN, SESSION_ALPN, SERVER_NAME, HOSTNAME, APPDATA, MAX_EARLY_DATA, EARLY_DATA,
    MASTER_SECRET, RENEGOTIATION, CIPHER, PROTOCOL, ID_CONTEXT, FRAGMENT, TIMEOUT, EX_DATA, FACTS
};

static const char *const fact_names[FACTS] = {
    "resumed", "SSL_get0_peer_certificate", "SSL_get_peer_cert_chain", "SSL_get_verify_result", "SSL_get0_alpn_selected",
    "SSL_SESSION_get0_alpn_selected", "SSL_get_servername", "SSL_SESSION_get0_hostname", "SSL_SESSION_get0_ticket_appdata",
    "SSL_SESSION_get_max_early_data", "early data accepted", "SSL_get_extms_support",
    "SSL_get_secure_renegotiation_support", "SSL_SESSION_get0_cipher", "SSL_SESSION_get_protocol_version",
    "SSL_SESSION_get0_id_context", "SSL_SESSION_get_max_fragment_length", "SSL_SESSION_get_timeout",
    "SSL_SESSION_get_ex_data",
};

typedef char facts[FACTS][96];

/* What servers do that ends up in a session. */
struct scene {
    const char *name;
    int only;                       /* one version, or 0 */
    int shows;                      /* what the client shows when asked, or 0 */
    const char *server_name;
    int names_are_refused;          /* servername_cb does not acknowledge the name */
    const char *alpn;               /* in wire form */
    size_t appdata;
    uint32_t early;
    int no_extended_master_secret;
    uint8_t fragment;
};

static const struct scene scenes[] = {
    {.name = "plain"},
    {.name = "server name", .server_name = "a.example"},
    {.name = "refused server name", .server_name = "a.example", .names_are_refused = 1},
    {.name = "ALPN", .alpn = "\x02h2\x08http/1.1"},
    {.name = "client certificate", .shows = CLIENT_P256},
    {.name = "RSA client certificate", .shows = CLIENT_RSA},
    {.name = "client certificate of 6 KB", .shows = CLIENT_6KB},
    {.name = "application data", .appdata = 100, .alpn = "\x02h2"},
    {.name = "6 KB of application data", .appdata = 6000, .alpn = "\x02h2"},
    {.name = "no extended master secret", .only = TLS1_2_VERSION, .no_extended_master_secret = 1},
    {.name = "small fragments", .fragment = TLSEXT_max_fragment_length_1024},
    {.name = "early data", .only = TLS1_3_VERSION, .early = 12345},
    {.name = "all at once", .shows = CLIENT_6KB, .server_name = "a.example", .alpn = "\x02h2", .appdata = 6000, .early = 12345},
};

static const struct scene *scene;
static facts *seen;
static int ex_index;

static void put_hash(char *to, const unsigned char *data, size_t len)
{
    unsigned char hash[32];

    CHECK(EVP_Digest(data, len, hash, NULL, EVP_sha256(), NULL) == 1, "SHA-256");
    snprintf(to, sizeof (*seen)[0], "%zu bytes, %02x%02x%02x%02x%02x%02x", len, hash[0], hash[1], hash[2], hash[3], hash[4], hash[5]);
}

static void put_number(enum fact fact, long number)
{
    snprintf((*seen)[fact], sizeof (*seen)[fact], "%ld", number);
}

static void put_text(enum fact fact, const char *text)
{
    snprintf((*seen)[fact], sizeof (*seen)[fact], "%s", text != NULL ? text : "none");
}

static void put_bytes(enum fact fact, const unsigned char *data, size_t len)
{
    snprintf((*seen)[fact], sizeof (*seen)[fact], "%.*s", (int)len, (const char *)data);
}

static void put_peer(SSL *server)
{
    X509 *peer = SSL_get0_peer_certificate(server);
    unsigned char *der = NULL;
    int len;

    put_text(PEER, NULL);
    if (peer != NULL) {
        CHECK((len = i2d_X509(peer, &der)) > 0, "i2d_X509");
        put_hash((*seen)[PEER], der, (size_t)len);
        OPENSSL_free(der);
    }
    put_text(CHAIN, SSL_get_peer_cert_chain(server) != NULL ? "there" : NULL);
    put_number(VERIFY_RESULT, SSL_get_verify_result(server));
}

/* Called right after the handshake of the server, wherever that is: `seen` is shared memory. */
static void look(SSL *server)
{
    SSL_SESSION *session = SSL_get_session(server);
    const unsigned char *bytes;
    unsigned int len;
    size_t size;
    void *data;

    put_number(RESUMED, SSL_session_reused(server));
    put_peer(server);
    SSL_get0_alpn_selected(server, &bytes, &len);
    put_bytes(ALPN, bytes, len);
    SSL_SESSION_get0_alpn_selected(session, &bytes, &size);
    put_bytes(SESSION_ALPN, bytes, size);
    put_text(SERVER_NAME, SSL_get_servername(server, TLSEXT_NAMETYPE_host_name));
    put_text(HOSTNAME, SSL_SESSION_get0_hostname(session));
    CHECK(SSL_SESSION_get0_ticket_appdata(session, &data, &size) == 1, "SSL_SESSION_get0_ticket_appdata");
    put_hash((*seen)[APPDATA], data != NULL ? data : "", size);
    put_number(MAX_EARLY_DATA, SSL_SESSION_get_max_early_data(session));
    put_number(EARLY_DATA, SSL_get_early_data_status(server));
    put_number(MASTER_SECRET, SSL_get_extms_support(server));
    put_number(RENEGOTIATION, SSL_get_secure_renegotiation_support(server));
    put_text(CIPHER, SSL_CIPHER_get_name(SSL_SESSION_get0_cipher(session)));
    put_number(PROTOCOL, SSL_SESSION_get_protocol_version(session));
    bytes = SSL_SESSION_get0_id_context(session, &len);
    put_bytes(ID_CONTEXT, bytes, len);
    put_number(FRAGMENT, SSL_SESSION_get_max_fragment_length(session));
    /* In TLS 1.3 it shrinks, so that a chain of tickets ends; a minute is more than this test takes. */
    put_number(TIMEOUT, (SSL_SESSION_get_timeout(session) + 59) / 60);
    put_text(EX_DATA, SSL_SESSION_get_ex_data(session, ex_index));
    /* Also on a resumed one: nothing of it may reach the next connection through the table of decoded sessions. */
    CHECK(SSL_SESSION_set_ex_data(session, ex_index, "of the application") == 1, "SSL_SESSION_set_ex_data");
}

static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *len, const unsigned char *in, unsigned int in_len, void *argument)
{
    static unsigned char data[6000];

    (void)argument;
    /* As applications do that keep what they know of a client in its session. */
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
    return scene->names_are_refused ? SSL_TLSEXT_ERR_NOACK : SSL_TLSEXT_ERR_OK;
}

static void prepare_client(SSL *client)
{
    if (scene->shows != 0)
        tls_show(client, (enum credential)scene->shows);
    if (scene->alpn != NULL)
        CHECK(SSL_set_alpn_protos(client, (const unsigned char *)scene->alpn, (unsigned)strlen(scene->alpn)) == 0, "SSL_set_alpn_protos");
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

static SSL_CTX *serve(const char *store, const char *options)
{
    SSL_CTX *server = tls_server();

    SSL_CTX_set_alpn_select_cb(server, on_alpn, NULL);
    SSL_CTX_set_tlsext_servername_callback(server, on_servername);
    CHECK(SSL_CTX_set_max_early_data(server, scene->early) == 1, "SSL_CTX_set_max_early_data");
    if (store != NULL)
        CHECK_OK(sesscache_enable(server, store, options));
    else
        SSL_CTX_set_options(server, SSL_OP_NO_TICKET);
    return server;
}

/* A full connection, and resumptions with its session and what they bring: what the server sees of each. */
enum { VISITS = 5 };
static const char *const visit_names[VISITS] = {
    "full handshake", "resumption", "resumption of the resumed", "the first session again", "and again",
};

typedef facts story[VISITS];

/* With early data a ticket is good for one visit, and the last two are left out. */
static int visits(void)
{
    return scene->early > 0 ? 3 : VISITS;
}

static void tell(SSL_CTX *server, int version, int elsewhere, story *told)
{
    struct outcome first, out;

    for (int i = 0; i < visits(); i++) {
        struct visit visit = {.version = version, .name = scene->server_name, .finished = look, .prepare = ask,
                              .prepare_client = prepare_client};

        if (i > 0)
            visit.offer = i == 2 ? &out.newest : &first.newest;
        if (i > 0 && scene->early > 0 && version == TLS1_3_VERSION)
            visit.early = "PAY";
        memset(*seen, 0, sizeof *seen);
        out = elsewhere ? tls_child(server, visit) : tls_here(server, visit);
        memcpy((*told)[i], *seen, sizeof *seen);
        if (i == 0)
            first = out;
    }
    SSL_CTX_free(server);
}

static void compare(const char *how, int version, story *own, story *ours)
{
    for (int i = 0; i < visits(); i++) {
        for (int fact = 0; fact < FACTS; fact++) {
            const char *expected = (*own)[i][fact], *found = (*ours)[i][fact];

            /* What the header says is not in the store. */
            if (i > 0 && (fact == CHAIN || fact == EX_DATA))
                expected = "none";
            CHECK(strcmp(found, expected) == 0, "%s, %s, %s, %s: %s is \"%s\", with OpenSSL's own cache \"%s\"", scene->name,
                  tls_name(version), how, visit_names[i], fact_names[fact], found, (*own)[i][fact]);
        }
    }
}

static void the_server_sees_the_same_as_with_openssls_own_cache(const char *scratch)
{
    static const struct { const char *how, *options; int elsewhere; } ways[] = {
        {"same process", NULL, 0},
        {"another process", NULL, 1},
        {"no table of decoded sessions", "decoded=0", 0},
        {"single_use=off", "single_use=off", 0},
    };
    static story own, ours;

    seen = mmap(NULL, sizeof *seen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(seen != MAP_FAILED, "mmap: %s", strerror(errno));
    ex_index = SSL_SESSION_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    for (size_t n = 0; n < sizeof scenes / sizeof scenes[0] * 2; n++) {
        int version = tls_versions[n % 2];

        scene = &scenes[n / 2];
        if (scene->only != 0 && scene->only != version)
            continue;
        tell(serve(NULL, NULL), version, 0, &own);
        for (int i = 1; i < visits(); i++)
            CHECK(strcmp(own[i][RESUMED], "1") == 0, "%s, %s: OpenSSL's own cache does not resume", scene->name, tls_name(version));
        if (scene->shows != 0)
            CHECK(strcmp(own[1][CHAIN], "there") == 0, "OpenSSL's own cache has no chain either: say so in the header");
        for (size_t way = 0; way < sizeof ways / sizeof ways[0]; way++) {
            tell(serve(store_in(scratch), ways[way].options), version, ways[way].elsewhere, &ours);
            compare(ways[way].how, version, &own, &ours);
        }
    }
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(the_server_sees_the_same_as_with_openssls_own_cache),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
