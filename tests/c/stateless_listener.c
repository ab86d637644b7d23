/*
 * DTLS servers that answer first ClientHellos with DTLSv1_listen, on UDP: until a client has shown the cookie nothing of the
 * cache may be touched, since anybody can send such a ClientHello under any address. After it, sessions resume in every
 * process.
 */
#include "check.h"
#include "tls.h"

#include <netinet/in.h>
#include <openssl/bio.h>
#include <openssl/hmac.h>
#include <poll.h>
#include <sys/socket.h>

#define PATIENCE_MS 10000
#define WANDERERS 50

static const unsigned char secret[] = "cookies of tests";

/* ---- the server ---- */

static int cookie_of(SSL *ssl, unsigned char *cookie, unsigned int *len)
{
    BIO_ADDR *peer = BIO_ADDR_new();
    unsigned char address[64];
    unsigned short port;
    size_t size = sizeof address - sizeof port;

    CHECK(peer != NULL && BIO_dgram_get_peer(SSL_get_rbio(ssl), peer) > 0 &&
          BIO_ADDR_rawaddress(peer, address, &size) == 1, "the address of a client is not known");
    port = BIO_ADDR_rawport(peer);
    memcpy(address + size, &port, sizeof port);
    CHECK(HMAC(EVP_sha256(), secret, sizeof secret, address, size + sizeof port, cookie, len) != NULL, "no cookie");
    BIO_ADDR_free(peer);
    return 1;
}

static int cookie_is_right(SSL *ssl, const unsigned char *cookie, unsigned int len)
{
    unsigned char right[EVP_MAX_MD_SIZE];
    unsigned int size = sizeof right;

    return cookie_of(ssl, right, &size) && size == len && memcmp(right, cookie, len) == 0;
}

static SSL_CTX *listener_context(const char *store)
{
    SSL_CTX *ctx = tls_server_for(DTLS1_2_VERSION);

    SSL_CTX_set_cookie_generate_cb(ctx, cookie_of);
    SSL_CTX_set_cookie_verify_cb(ctx, cookie_is_right);
    CHECK_OK(sesscache_enable(ctx, store, NULL));
    return ctx;
}

static int udp_socket(int *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&address, len) == 0 &&
          getsockname(fd, (struct sockaddr *)&address, &len) == 0, "no UDP socket: %s", strerror(errno));
    *port = ntohs(address.sin_port);
    return fd;
}

static void wait_for_datagram(int fd)
{
    struct pollfd wanted = {.fd = fd, .events = POLLIN};

    CHECK(poll(&wanted, 1, PATIENCE_MS) == 1, "no datagram arrives");
}

static int has_datagram(int fd)
{
    struct pollfd wanted = {.fd = fd, .events = POLLIN};

    return poll(&wanted, 1, 0) == 1;
}

static void set_blocking(int fd, int blocking)
{
    struct timeval patience = {.tv_sec = PATIENCE_MS / 1000};

    CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0 && BIO_socket_nbio(fd, !blocking) == 1,
          "a socket cannot be set up");
}

static SSL *listener(SSL_CTX *ctx, int fd)
{
    SSL *ssl = SSL_new(ctx);
    BIO *bio = BIO_new_dgram(fd, BIO_NOCLOSE);

    CHECK(ssl != NULL && bio != NULL, "out of memory");
    SSL_set_bio(ssl, bio, bio);
    return ssl;
}

/* Answers whatever comes until a client has shown its cookie. */
static void listen_for_one(SSL *ssl, int fd, BIO_ADDR *client)
{
    int result;

    set_blocking(fd, 0);
    do {
        wait_for_datagram(fd);
        result = DTLSv1_listen(ssl, client);
        CHECK(result >= 0, "DTLSv1_listen fails: %d", result);
    } while (result == 0);
}

/* The socket now belongs to the client; the letter it gets is r for a resumed handshake and f for a full one. */
static void serve_one(SSL *ssl, int fd, BIO_ADDR *client)
{
    const char *letter;
    char byte;

    set_blocking(fd, 1);
    CHECK(BIO_connect(fd, client, 0) == 1 && BIO_ctrl(SSL_get_rbio(ssl), BIO_CTRL_DGRAM_SET_CONNECTED, 0, client) > 0,
          "the socket is not connected");
    CHECK(SSL_accept(ssl) == 1, "a client that has shown its cookie is not accepted");
    letter = SSL_session_reused(ssl) ? "r" : "f";
    CHECK(SSL_write(ssl, letter, 1) == 1 && SSL_read(ssl, &byte, 1) <= 0, "the client does not say goodbye");
}

/* Listens on a socket of its own in a process of its own, for so many clients one after the other. */
static pid_t listen_elsewhere(SSL_CTX *ctx, int clients, int one_ssl, int *port)
{
    int fds[8], i;
    SSL *ssl = NULL;
    BIO_ADDR *client = BIO_ADDR_new();
    pid_t pid;

    CHECK(client != NULL && clients <= 8, "too many clients");
    for (i = 0; i < clients; i++)
        fds[i] = udp_socket(&port[i]);
    pid = check_fork();
    if (pid != 0) {
        for (i = 0; i < clients; i++)
            close(fds[i]);
        BIO_ADDR_free(client);
        return pid;
    }
    for (i = 0; i < clients; i++) {
        if (ssl == NULL || !one_ssl) {
            SSL_free(ssl);
            ssl = listener(ctx, fds[i]);
        } else {
            BIO *bio = BIO_new_dgram(fds[i], BIO_NOCLOSE);

            CHECK(bio != NULL, "out of memory");
            SSL_set_bio(ssl, bio, bio);
        }
        listen_for_one(ssl, fds[i], client);
        serve_one(ssl, fds[i], client);
    }
    SSL_free(ssl);
    BIO_ADDR_free(client);
    exit(0);
}

/* ---- the client ---- */

static SSL *client_of(int port, const struct saved *offer, int *fd)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    static SSL_CTX *ctx;
    int own;
    SSL *ssl;
    BIO *bio;

    if (ctx == NULL)
        ctx = SSL_CTX_new(DTLS_client_method());
    *fd = udp_socket(&own);
    address.sin_port = htons((unsigned short)port);
    CHECK(connect(*fd, (struct sockaddr *)&address, sizeof address) == 0, "connect: %s", strerror(errno));
    set_blocking(*fd, 1);
    CHECK(ctx != NULL && (ssl = SSL_new(ctx)) != NULL && (bio = BIO_new_dgram(*fd, BIO_NOCLOSE)) != NULL,
          "no SSL for the client");
    (void)BIO_ctrl_set_connected(bio, (struct sockaddr *)&address);
    SSL_set_bio(ssl, bio, bio);
    SSL_set_connect_state(ssl);
    if (offer != NULL) {
        SSL_SESSION *session = tls_load(offer);

        CHECK(SSL_set_session(ssl, session) == 1, "the client cannot offer its session");
        SSL_SESSION_free(session);
    }
    return ssl;
}

/* The server's letter; the session to offer next goes to `newest` unless it is NULL. */
static char visit(int port, const struct saved *offer, struct saved *newest)
{
    int fd;
    char letter;
    SSL *ssl = client_of(port, offer, &fd);

    CHECK(SSL_connect(ssl) == 1 && SSL_read(ssl, &letter, 1) == 1, "a DTLS client is not served");
    CHECK((letter == 'r') == (SSL_session_reused(ssl) == 1), "client and server disagree");
    if (newest != NULL)
        tls_save(newest, SSL_get0_session(ssl));
    CHECK(SSL_shutdown(ssl) >= 0, "no goodbye");
    SSL_free(ssl);
    close(fd);
    return letter;
}

/* A first ClientHello, which brings no cookie, and nothing more. */
static void pass_by(int port, const struct saved *offer)
{
    int fd;
    SSL *ssl = client_of(port, offer, &fd);

    set_blocking(fd, 0);
    CHECK(SSL_connect(ssl) < 0, "a client needs no answer");
    SSL_free(ssl);
    close(fd);
}

/* ---- the tests ---- */

static uint64_t lookups(sesscache *cache)
{
    sesscache_stats stats = tls_stats(cache);

    return stats.hits + stats.misses_absent + stats.misses_foreign + stats.misses_expired;
}

static int has_the_store_open(void)
{
    char line[4096];
    int found = 0;
    FILE *maps = fopen("/proc/self/maps", "r");

    CHECK(maps != NULL, "/proc/self/maps: %s", strerror(errno));
    while (fgets(line, sizeof line, maps) != NULL)
        found |= strstr(line, "/data.mdb") != NULL;
    fclose(maps);
    return found;
}

static void a_session_resumes_in_another_process_behind_a_cookie(const char *scratch)
{
    SSL_CTX *one = listener_context(store_in(scratch)), *two = listener_context(store_in(scratch));
    struct saved session;
    int ports[8];
    pid_t server = listen_elsewhere(one, 2, 0, ports);

    CHECK(visit(ports[0], NULL, &session) == 'f', "a client without a session resumes one");
    CHECK(visit(ports[1], &session, NULL) == 'r', "a DTLS session does not resume in the process that made it");
    check_wait(server, "the first server");
    server = listen_elsewhere(two, 1, 0, ports);
    CHECK(visit(ports[0], &session, NULL) == 'r', "a DTLS session does not resume in another process");
    check_wait(server, "the second server");
    SSL_CTX_free(one);
    SSL_CTX_free(two);
}

/* One SSL object serves client after client, as DTLSv1_listen clears it. */
static void no_client_resumes_the_session_of_the_one_before_it_on_the_same_ssl(const char *scratch)
{
    SSL_CTX *ctx = listener_context(store_in(scratch));
    struct saved first, second;
    int ports[8];
    pid_t server = listen_elsewhere(ctx, 4, 1, ports);

    CHECK(visit(ports[0], NULL, &first) == 'f', "a client without a session resumes one");
    CHECK(visit(ports[1], NULL, &second) == 'f', "a client without a session resumes that of the one before it");
    CHECK(visit(ports[2], &first, NULL) == 'r' && visit(ports[3], &second, NULL) == 'r', "a session does not resume");
    check_wait(server, "the server");
    SSL_CTX_free(ctx);
}

static void a_client_hello_without_a_cookie_does_not_reach_the_store(const char *scratch)
{
    SSL_CTX *ctx = listener_context(store_in(scratch));
    struct saved session;
    sesscache *cache;
    int ports[8], port, fd = udp_socket(&port), i;
    uint64_t before;
    BIO_ADDR *client = BIO_ADDR_new();
    SSL *ssl;
    pid_t server = listen_elsewhere(ctx, 1, 0, ports);

    CHECK(client != NULL && visit(ports[0], NULL, &session) == 'f', "no session to offer");
    check_wait(server, "the server");
    server = check_fork();
    if (server == 0) {
        set_blocking(fd, 0);
        ssl = listener(ctx, fd);
        for (i = 0; i < WANDERERS; i++) {
            pass_by(port, &session);
            wait_for_datagram(fd);
            CHECK(DTLSv1_listen(ssl, client) == 0, "a client passes without a cookie");
        }
        CHECK(!has_datagram(fd), "the listener leaves ClientHellos unread");
        CHECK(!has_the_store_open(), "the store is opened for a client that nobody has verified");
        /* That this shows anything: a server that does not listen first looks the session up. */
        SSL_free(ssl);
        CHECK_OK(sesscache_open(store_in(scratch), NULL, &cache));
        before = lookups(cache);
        CHECK(before == 0, "ClientHellos without a cookie are looked up");
        ssl = listener(ctx, fd);
        SSL_set_accept_state(ssl);
        pass_by(port, &session);
        wait_for_datagram(fd);
        CHECK(SSL_accept(ssl) < 0 && lookups(cache) == 1, "a lookup is not counted, so nothing was shown");
        CHECK(has_the_store_open(), "a lookup leaves the store closed, so nothing was shown");
        SSL_free(ssl);
        sesscache_close(cache);
        exit(0);
    }
    check_wait(server, "the listener");
    BIO_ADDR_free(client);
    close(fd);
    SSL_CTX_free(ctx);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(a_session_resumes_in_another_process_behind_a_cookie),
        TEST(no_client_resumes_the_session_of_the_one_before_it_on_the_same_ssl),
        TEST(a_client_hello_without_a_cookie_does_not_reach_the_store),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
