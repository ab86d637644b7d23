/*
 * QUIC servers of OpenSSL 3.5 and later: what a listener's connections are given resumes in every process, and OpenSSL, which
 * holds a lock of its own during the callbacks, never waits for itself.
 *
 * Each server is a process with an SSL_CTX of its own; the client is this one.
 */
#include "check.h"
#include "tls.h"

#if OPENSSL_VERSION_NUMBER >= 0x30500000L && !defined(OPENSSL_NO_QUIC)

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <openssl/quic.h>

/* Both sides' protocol, as it is on the wire: QUIC wants one to be agreed on. */
#define PROTOCOL "\5tests"
#define VISITS 4

struct quic_server {
    pid_t pid;
    int port;
};

static struct sockaddr_in loopback(int port)
{
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *len, const unsigned char *in, unsigned in_len,
                           void *argument)
{
    (void)ssl;
    (void)argument;
    return SSL_select_next_proto((unsigned char **)out, len, (const unsigned char *)PROTOCOL, sizeof PROTOCOL - 1, in, in_len) ==
                   OPENSSL_NPN_NEGOTIATED
               ? SSL_TLSEXT_ERR_OK
               : SSL_TLSEXT_ERR_ALERT_FATAL;
}

static SSL_CTX *quic_ctx(void)
{
    SSL_CTX *ctx = SSL_CTX_new(OSSL_QUIC_server_method());
    const struct credentials *own = tls_credentials(SERVER_P256);

    CHECK(ctx != NULL && SSL_CTX_use_certificate(ctx, own->certificate) == 1 &&
          SSL_CTX_use_PrivateKey(ctx, own->key) == 1 &&
          SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"tests", 5) == 1, "no SSL_CTX for the QUIC server");
    SSL_CTX_set_alpn_select_cb(ctx, choose_protocol, NULL);
    return ctx;
}

/* Serves one client: a byte from it, 'r' or 'f' to it for a resumed or a full handshake. */
static void serve_one(SSL *listener, void (*finished)(SSL *server))
{
    SSL *connection = SSL_accept_connection(listener, 0), *stream;
    char byte;
    size_t n;

    CHECK(connection != NULL, "the listener accepts no connection");
    stream = SSL_accept_stream(connection, 0);
    CHECK(stream != NULL && SSL_read_ex(stream, &byte, 1, &n) == 1, "the server cannot read what the client wrote");
    if (finished != NULL)
        finished(connection);
    byte = SSL_session_reused(connection) ? 'r' : 'f';
    CHECK(SSL_write_ex2(stream, &byte, 1, SSL_WRITE_FLAG_CONCLUDE, &n) == 1, "the server cannot answer");
    SSL_free(stream);
    while (SSL_shutdown(connection) == 0)
        check_sleep(0.001);
    SSL_free(connection);
}

/* Starts a process that serves so many clients and ends. */
static struct quic_server start(const char *store, const char *options, int visits, void (*finished)(SSL *server))
{
    struct sockaddr_in address = loopback(0);
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct quic_server server;

    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&address, size) == 0 &&
          getsockname(fd, (struct sockaddr *)&address, &size) == 0, "no UDP socket: %s", strerror(errno));
    server.port = ntohs(address.sin_port);
    server.pid = check_fork();
    if (server.pid == 0) {
        SSL_CTX *ctx = quic_ctx();
        SSL *listener;

        CHECK_OK(sesscache_enable(ctx, store, options));
        listener = SSL_new_listener(ctx, 0);
        CHECK(listener != NULL && SSL_set_fd(listener, fd) == 1 && SSL_listen(listener) == 1, "no listener");
        while (visits-- > 0)
            serve_one(listener, finished);
        SSL_free(listener);
        SSL_CTX_free(ctx);
        exit(0);
    }
    CHECK(close(fd) == 0, "close: %s", strerror(errno));
    return server;
}

static int on_session(SSL *ssl, SSL_SESSION *session)
{
    struct outcome *out = SSL_get_app_data(ssl);

    if (out->given < MAX_GIVEN)
        tls_save(&out->sessions[out->given], session);
    tls_save(&out->newest, session);
    out->given++;
    return 0;
}

/* One client, which waits for its tickets: a packet with them may arrive after the answer. */
static struct outcome visit(const struct quic_server *server, const struct saved *offer)
{
    struct sockaddr_in address = loopback(server->port);
    SSL_CTX *ctx = SSL_CTX_new(OSSL_QUIC_client_method());
    BIO_ADDR *peer = BIO_ADDR_new();
    struct outcome out;
    double end = check_now() + check_patience(10);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    char answer;
    size_t n;
    SSL *ssl;

    memset(&out, 0, sizeof out);
    CHECK(ctx != NULL && peer != NULL && fd >= 0, "no QUIC client");
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(ctx, on_session);
    ssl = SSL_new(ctx);
    CHECK(ssl != NULL && connect(fd, (struct sockaddr *)&address, sizeof address) == 0 && SSL_set_fd(ssl, fd) == 1 &&
          BIO_ADDR_rawmake(peer, AF_INET, &address.sin_addr, sizeof address.sin_addr, address.sin_port) == 1 &&
          SSL_set1_initial_peer_addr(ssl, peer) == 1 && SSL_set_app_data(ssl, &out) == 1 &&
          SSL_set_alpn_protos(ssl, (const unsigned char *)PROTOCOL, sizeof PROTOCOL - 1) == 0, "no QUIC client");
    if (offer != NULL) {
        SSL_SESSION *session = tls_load(offer);

        CHECK(SSL_set_session(ssl, session) == 1, "the client cannot offer its session");
        SSL_SESSION_free(session);
    }
    CHECK(SSL_connect(ssl) == 1, "the client cannot connect");
    CHECK(SSL_write_ex2(ssl, "?", 1, SSL_WRITE_FLAG_CONCLUDE, &n) == 1 && SSL_read_ex(ssl, &answer, 1, &n) == 1,
          "the client gets no answer");
    out.resumed = SSL_session_reused(ssl);
    CHECK((answer == 'r') == (out.resumed != 0), "client and server disagree on whether this is a resumption");
    while (out.given == 0 && check_now() < end) {
        CHECK(SSL_handle_events(ssl) == 1, "the client's connection fails");
        check_sleep(0.001);
    }
    CHECK(out.given > 0, "the server issued no session");
    while (SSL_shutdown(ssl) == 0)
        check_sleep(0.001);
    SSL_free(ssl);
    BIO_ADDR_free(peer);
    SSL_CTX_free(ctx);
    CHECK(close(fd) == 0, "close: %s", strerror(errno));
    return out;
}

/* The same with a server process for this one client. */
static struct outcome visit_process(const char *store, const char *options, const struct saved *offer,
                                    void (*finished)(SSL *server))
{
    struct quic_server server = start(store, options, 1, finished);
    struct outcome out = visit(&server, offer);

    check_wait(server.pid, "the QUIC server");
    return out;
}

static sesscache *look(const char *store)
{
    sesscache *cache;

    CHECK_OK(sesscache_open(store, NULL, &cache));
    return cache;
}

static void sessions_resume_in_every_process(const char *scratch)
{
    char *store = store_in(scratch);
    sesscache *cache = look(store);
    struct outcome first = visit_process(store, NULL, NULL, NULL), next = first;
    sesscache_stats stats;

    CHECK(!first.resumed, "the first connection resumed");
    for (int i = 0; i < VISITS; i++) {
        next = visit_process(store, NULL, &next.newest, NULL);
        CHECK(next.resumed, "return %d to another process is a full handshake", i + 1);
    }
    CHECK(visit_process(store, NULL, &first.sessions[0], NULL).resumed, "an earlier session does not resume");
    stats = tls_stats(cache);
    CHECK(stats.hits == VISITS + 1 && stats.misses_foreign == 0, "%lu hits and %lu foreign ids of %d returns",
          (unsigned long)stats.hits, (unsigned long)stats.misses_foreign, VISITS + 1);
    CHECK(stats.handshakes_full == 1 && stats.handshakes_resumed == VISITS + 1, "%lu full handshakes and %lu resumptions counted",
          (unsigned long)stats.handshakes_full, (unsigned long)stats.handshakes_resumed);
    sesscache_close(cache);
}

static void sessions_resume_in_one_process(const char *scratch)
{
    struct quic_server server = start(store_in(scratch), NULL, VISITS, NULL);
    struct outcome out = visit(&server, NULL);

    for (int i = 1; i < VISITS; i++) {
        out = visit(&server, &out.newest);
        CHECK(out.resumed, "return %d to the same process is a full handshake", i);
    }
    check_wait(server.pid, "the QUIC server");
}

/* RFC 9001 section 4.5: what was made over TCP says nothing of transport parameters. */
static void quic_and_tcp_do_not_resume_each_other(const char *scratch)
{
    char *store = store_in(scratch);
    sesscache *cache = look(store);
    struct outcome tcp = tls_elsewhere(store, NULL, (struct visit){.version = TLS1_3_VERSION});
    struct outcome quic = visit_process(store, NULL, NULL, NULL);

    CHECK(!visit_process(store, NULL, &tcp.newest, NULL).resumed, "a session made over TCP resumes over QUIC");
    CHECK(!tls_resumes_elsewhere(store, NULL, TLS1_3_VERSION, &quic.newest), "a session made over QUIC resumes over TCP");
    CHECK(tls_stats(cache).misses_protocol == 2, "it is not the protocol that kept them apart");
    CHECK(visit_process(store, NULL, &quic.newest, NULL).resumed, "the session made over QUIC is lost");
    CHECK(tls_resumes_elsewhere(store, NULL, TLS1_3_VERSION, &tcp.newest), "the session made over TCP is lost");
    sesscache_close(cache);
}

static void a_single_use_session_resumes_once(const char *scratch)
{
    char *store = store_in(scratch);
    struct outcome out = visit_process(store, "single_use=always", NULL, NULL);

    CHECK(visit_process(store, "single_use=always", &out.newest, NULL).resumed, "it does not resume");
    CHECK(!visit_process(store, "single_use=always", &out.newest, NULL).resumed, "it resumes twice");
}

static void forget(SSL *server)
{
    CHECK_OK(sesscache_forget(server));
}

static void a_forgotten_login_ends(const char *scratch)
{
    char *store = store_in(scratch);
    struct outcome login = visit_process(store, NULL, NULL, NULL);
    struct outcome logout = visit_process(store, NULL, &login.newest, forget);

    CHECK(logout.resumed, "nothing resumed before forget");
    CHECK(!visit_process(store, NULL, &login.sessions[0], NULL).resumed, "a session of the login resumes after forget");
    CHECK(!visit_process(store, NULL, &logout.newest, NULL).resumed, "a session of the forgotten connection resumes");
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(sessions_resume_in_every_process),
        TEST(sessions_resume_in_one_process),
        TEST(quic_and_tcp_do_not_resume_each_other),
        TEST(a_single_use_session_resumes_once),
        TEST(a_forgotten_login_ends),
    };
    return check_main(argc, argv, tests, TESTS(tests));
}

#else

static void quic(const char *scratch)
{
    (void)scratch;
    check_not_tried("OpenSSL has QUIC servers from 3.5 on");
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {TEST(quic)};
    return check_main(argc, argv, tests, TESTS(tests));
}

#endif
