/* The smallest complete TLS server that keeps its sessions in a shared store: one call, sesscache_enable(), does it.
 * Build:  cc -std=c11 -o minimal minimal.c $(pkg-config --cflags --libs sesscache)
 * Expect: a client resumes its session, also after a restart of this program, and in any other on the same store. */
#define _DEFAULT_SOURCE
#include <err.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sesscache.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static int listener;
static volatile sig_atomic_t stop;

static void on_signal(int signal_number)
{
    (void)signal_number;
    stop = 1;
    shutdown(listener, SHUT_RDWR);      /* accept() fails from here on, also when it has not begun to wait yet */
}

static SSL_CTX *make_ctx(const char *cert, const char *key, const char *path)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    if (ctx == NULL || SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1
        || SSL_CTX_use_certificate_chain_file(ctx, cert) != 1
        || SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1
        /* The same in all programs that share sessions with each other. */
        || SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"examples", 8) != 1)
        errx(1, "%s, %s: %s", cert, key, ERR_error_string(ERR_peek_error(), NULL));
    if (sesscache_enable(ctx, path, NULL) != SESSCACHE_OK)
        warnx("no shared sessions: %s", sesscache_errmsg());
    return ctx;
}

static void make_listener(const char *port)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t size = sizeof address;
    int on = 1;
    listener = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0
        || setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0   /* accepted sockets inherit it */
        || bind(listener, (struct sockaddr *)&address, size) != 0 || listen(listener, SOMAXCONN) != 0
        || getsockname(listener, (struct sockaddr *)&address, &size) != 0)
        err(1, "127.0.0.1:%s", port);
    printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
}

/* Handshake, a line to the client, then wait for its answer or its goodbye. */
static void serve(SSL *ssl)
{
    char line[128];
    if (SSL_accept(ssl) != 1) {
        const char *reason = ERR_reason_error_string(ERR_peek_error());
        warnx("handshake failed: %s", reason != NULL ? reason : "connection lost or timed out");
        return;
    }
    int n = snprintf(line, sizeof line, "worker %ld resumed %d\n", (long)getpid(), SSL_session_reused(ssl));
    n = SSL_write(ssl, line, n);
    if (n > 0)
        n = SSL_read(ssl, line, sizeof line);

    /* Say goodbye, unless the connection has failed: then nothing more may be sent. */
    int error = SSL_get_error(ssl, n);
    if (error != SSL_ERROR_SSL && error != SSL_ERROR_SYSCALL)
        SSL_shutdown(ssl);
}

int main(int argc, char **argv)
{
    if (argc != 5)
        errx(1, "usage: minimal CERT KEY PORT PATH");
    SSL_CTX *ctx = make_ctx(argv[1], argv[2], argv[4]);

    /* No SA_RESTART: a signal also ends the wait for a slow client. */
    struct sigaction on_stop = { .sa_handler = on_signal };
    if (sigaction(SIGTERM, &on_stop, NULL) != 0 || sigaction(SIGINT, &on_stop, NULL) != 0)
        err(1, "sigaction");
    signal(SIGPIPE, SIG_IGN);           /* a client may be gone when we write */
    make_listener(argv[3]);

    while (!stop) {
        struct timeval wait = { .tv_sec = 5 };
        int fd = accept(listener, NULL, NULL);
        if (fd < 0)
            continue;
        SSL *ssl = SSL_new(ctx);
        ERR_clear_error();
        if (ssl != NULL && SSL_set_fd(ssl, fd) == 1
            && setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait) == 0
            && setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait) == 0)
            serve(ssl);
        SSL_free(ssl);
        close(fd);
    }
    close(listener);
    SSL_CTX_free(ctx);
    return 0;
}
