/* QUIC server: workers that share one UDP port, and the sessions of the TLS 1.3 inside QUIC. OpenSSL 3.5 or later.
 * Build:  cc -std=c11 -o quic_server quic_server.c $(pkg-config --cflags --libs sesscache)
 * Expect: with -s DIRECTORY, what `openssl s_client -quic -alpn examples -connect 127.0.0.1:4433 -sess_out FILE` saves is
 *         "Reused" with -sess_in FILE, whichever worker answers; without it, only in the one that made it. */
#define _GNU_SOURCE
#include <err.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#if OPENSSL_VERSION_NUMBER < 0x30500000L || defined OPENSSL_NO_QUIC
#error "QUIC servers need OpenSSL 3.5 or later"
#endif
#include <openssl/quic.h>
#include <sesscache.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_WORKERS = 256 };

static const char *cert = "cert.pem", *key = "key.pem", *store, *store_options;
static int port = 4433, workers = 4, sockets[MAX_WORKERS];
static SSL_CTX *ctx;
static pid_t pids[MAX_WORKERS];

/* The kernel gives all packets of one client address to the same socket, so each connection stays in one worker. A client that
 * moves to another address would need a router that knows connection ids. */
static void make_sockets(void)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t size = sizeof address;
    int on = 1;
    for (int i = 0; i < workers; i++) {     /* the first gets a port when none is given, and the others take the same */
        sockets[i] = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
        if (sockets[i] < 0 || setsockopt(sockets[i], SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) != 0
            || bind(sockets[i], (struct sockaddr *)&address, size) != 0
            || getsockname(sockets[i], (struct sockaddr *)&address, &size) != 0)
            err(1, "127.0.0.1:%d", port);
    }
    printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
}

/* QUIC wants a protocol to be agreed on. */
static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_length, const unsigned char *in,
                           unsigned in_length, void *argument)
{
    static const unsigned char known[] = "\10examples";
    (void)ssl, (void)argument;
    int chosen = SSL_select_next_proto((unsigned char **)out, out_length, known, sizeof known - 1, in, in_length);
    return chosen == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

static void make_ctx(void)
{
    static const unsigned char context[] = "examples";  /* the same in all programs that share sessions */
    sesscache *cache = NULL;
    ctx = SSL_CTX_new(OSSL_QUIC_server_method());
    if (ctx == NULL || SSL_CTX_use_certificate_chain_file(ctx, cert) != 1
        || SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1
        || SSL_CTX_set_session_id_context(ctx, context, sizeof context - 1) != 1)
        errx(1, "%s, %s: %s", cert, key, ERR_error_string(ERR_peek_error(), NULL));
    SSL_CTX_set_alpn_select_cb(ctx, choose_protocol, NULL);
    if (store == NULL || sesscache_open(store, store_options, &cache) != SESSCACHE_OK
        || sesscache_attach(cache, ctx) != SESSCACHE_OK) {
        if (store != NULL)
            warnx("no shared sessions: %s", sesscache_errmsg());
        /* No tickets that hold the whole session: OpenSSL's own cache, one per process, is what we compare with. */
        SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
    }
    sesscache_close(cache);                 /* the SSL_CTX has its own reference */
}

/* One client: a line from it on a stream that it opens, a line to it, goodbye. */
static void serve(SSL *connection)
{
    char line[512];
    size_t length = 0, n = 0;
    SSL *stream = SSL_accept_stream(connection, 0);     /* waits for the handshake, too */
    if (stream == NULL) {
        const char *reason = ERR_reason_error_string(ERR_peek_error());
        warnx("no stream: %s", reason != NULL ? reason : "connection lost or timed out");
    } else {
        while (length < sizeof line && memchr(line, '\n', length) == NULL
               && SSL_read_ex(stream, line + length, sizeof line - length, &n) == 1)
            length += n;
        int answer = snprintf(line, sizeof line, "worker %ld resumed %d\n", (long)getpid(),
                              SSL_session_reused(connection));
        SSL_write_ex2(stream, line, (size_t)answer, SSL_WRITE_FLAG_CONCLUDE, &n);
    }
    SSL_free(stream);
    SSL_shutdown(connection);               /* waits until the client has all */
    SSL_free(connection);
}

/* One client after the other; the rest wait in the listener. A busy server drives all of them with SSL_poll(3). */
static void work(int fd)
{
    SSL *listener = SSL_new_listener(ctx, 0), *connection;
    if (listener == NULL || SSL_set_fd(listener, fd) != 1 || SSL_listen(listener) != 1)
        errx(1, "no listener: %s", ERR_error_string(ERR_peek_error(), NULL));
    while ((connection = SSL_accept_connection(listener, 0)) != NULL) {
        serve(connection);
        ERR_clear_error();
    }
    errx(1, "no connection: %s", ERR_error_string(ERR_peek_error(), NULL));
}

/* A worker ends when it is killed, which may be at any time: that costs the others nothing. */
static void start_worker(int i)
{
    pid_t master = getpid();
    if ((pids[i] = fork()) == 0) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        /* End with the master also when it is killed, which may have happened before this call. */
        if (prctl(PR_SET_PDEATHSIG, SIGTERM) == 0 && getppid() == master)
            work(sockets[i]);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    for (int option; (option = getopt(argc, argv, "p:c:k:w:s:o:")) != -1;) {
        switch (option) {
        case 'p': port = atoi(optarg); break;
        case 'c': cert = optarg; break;
        case 'k': key = optarg; break;
        case 'w': workers = atoi(optarg); break;
        case 's': store = optarg; break;
        case 'o': store_options = optarg; break;
        default: workers = 0;
        }
    }
    if (port < 0 || port > 65535 || workers < 1 || workers > MAX_WORKERS || optind != argc)
        errx(1, "usage: %s [-p port] [-c cert] [-k key] [-w workers] [-s store] [-o options]", argv[0]);

    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGCHLD);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    signal(SIGCHLD, SIG_DFL);               /* whoever started us may have left it ignored: no waitpid() then */

    make_ctx();
    make_sockets();
    for (int i = 0; i < workers; i++)
        start_worker(i);
    int event;
    while (sigwait(&signals, &event) == 0 && event == SIGCHLD) {
        sleep(1);                           /* a worker that always crashes, crashes slowly */
        for (int i = 0; i < workers; i++)
            if (pids[i] <= 0 || waitpid(pids[i], NULL, WNOHANG) == pids[i])
                start_worker(i);
    }
    for (int i = 0; i < workers; i++) {
        if (pids[i] > 0) {
            kill(pids[i], SIGTERM);
            waitpid(pids[i], NULL, 0);
        }
    }
    SSL_CTX_free(ctx);
    return 0;
}
