/* Clients of a web server that come back: each keeps its session and offers it the next time.
 * Build:  cc -std=c11 -o https_client https_client.c $(pkg-config --cflags --libs libssl libcrypto)
 * Expect: printf 'new 3\nback 2\n' | https_client -p 4433   prints a line per command: visits, resumed, failed.
 *
 * Commands on standard input: "new N" makes N clients, each with a full handshake, in place of those before;
 * "back N" lets every client come back N times; "full N" is N visits of clients that keep nothing. */
#define _DEFAULT_SOURCE
#include <err.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TIMEOUT = 20, CLIENTS_MAX = 200000 };

static SSL_SESSION *sessions[CLIENTS_MAX];
static SSL_SESSION *newest;
static int port = 4433, rude, verbose;
static const char *server_name = "localhost", *host = "localhost";

static int on_new_session(SSL *ssl, SSL_SESSION *session)
{
    (void)ssl;
    SSL_SESSION_free(newest);
    newest = session;
    return 1;                       /* the reference is ours from here on */
}

static int tcp_connect(void)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct timeval wait = { .tv_sec = TIMEOUT };
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait) != 0
        || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait) != 0
        || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0
        || connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        if (verbose)
            warn("127.0.0.1:%d", port);
        if (fd >= 0)
            close(fd);
        return -1;
    }
    return fd;
}

/* One request and its whole response. 0 failed, 1 a full handshake, 2 a resumed one. */
static int visit(SSL_CTX *ctx, SSL_SESSION *session)
{
    char text[4096];
    int result = 0, n, total = 0;
    SSL *ssl = NULL;
    int fd = tcp_connect();
    if (fd < 0)
        return 0;
    ERR_clear_error();
    ssl = SSL_new(ctx);
    if (ssl == NULL || SSL_set_fd(ssl, fd) != 1 || SSL_set_tlsext_host_name(ssl, server_name) != 1
        || (session != NULL && SSL_set_session(ssl, session) != 1) || SSL_connect(ssl) != 1)
        goto out;
    n = snprintf(text, sizeof text, "GET /index.html HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", host);
    if (SSL_write(ssl, text, n) != n)
        goto out;
    while ((n = SSL_read(ssl, text, sizeof text)) > 0) {
        if (total == 0 && (n < 12 || strncmp(text, "HTTP/1.1 200", 12) != 0))
            goto out;
        total += n;
    }
    if (total > 0)
        result = 1 + SSL_session_reused(ssl);
    /* A rude client says no goodbye, as many do: that must cost nobody a session. */
    if (rude)
        SSL_set_quiet_shutdown(ssl, 1);
    SSL_shutdown(ssl);
out:
    if (result == 0 && verbose) {
        const char *reason = ERR_reason_error_string(ERR_peek_error());
        warnx("127.0.0.1:%d: %s", port, reason != NULL ? reason : "connection lost, timed out, or not 200");
    }
    SSL_free(ssl);
    close(fd);
    return result;
}

static void keep(SSL_SESSION **slot)
{
    if (newest != NULL) {
        SSL_SESSION_free(*slot);
        *slot = newest;
        newest = NULL;
    }
}

int main(int argc, char **argv)
{
    int version = 0, option, clients = 0, n;
    char command[16];
    while ((option = getopt(argc, argv, "p:23xvu:h:")) != -1) {
        switch (option) {
        case 'p': port = atoi(optarg); break;
        case '2': version = TLS1_2_VERSION; break;
        case '3': version = TLS1_3_VERSION; break;
        case 'x': rude = 1; break;
        case 'v': verbose = 1; break;
        case 'u': server_name = host = optarg; break;
        case 'h': host = optarg; break;
        default: errx(1, "usage: %s [-p port] [-2|-3] [-x] [-v] [-u servername] [-h host]", argv[0]);
        }
    }
    signal(SIGPIPE, SIG_IGN);
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    if (ctx == NULL || SSL_CTX_set_min_proto_version(ctx, version ? version : TLS1_2_VERSION) != 1
        || SSL_CTX_set_max_proto_version(ctx, version) != 1)
        errx(1, "SSL_CTX_new failed");
    /* Nothing secret is sent: any certificate will do. */
    SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL_STORE);
    SSL_CTX_sess_set_new_cb(ctx, on_new_session);

    while (scanf("%15s %d", command, &n) == 2) {
        int count[3] = { 0 };
        if (strcmp(command, "new") == 0 && n <= CLIENTS_MAX) {
            for (int i = 0; i < clients; i++) {
                SSL_SESSION_free(sessions[i]);
                sessions[i] = NULL;
            }
            for (clients = 0; clients < n; clients++) {
                count[visit(ctx, NULL)]++;
                keep(&sessions[clients]);
            }
        } else if (strcmp(command, "back") == 0) {
            for (int round = 0; round < n; round++) {
                for (int i = 0; i < clients; i++) {
                    count[visit(ctx, sessions[i])]++;
                    keep(&sessions[i]);
                }
            }
        } else if (strcmp(command, "full") == 0) {
            for (int i = 0; i < n; i++)
                count[visit(ctx, NULL)]++;
        } else {
            errx(1, "what is \"%s %d\"?", command, n);
        }
        printf("visits %d resumed %d failed %d\n", count[0] + count[1] + count[2], count[2], count[0]);
        fflush(stdout);
    }
    for (int i = 0; i < clients; i++)
        SSL_SESSION_free(sessions[i]);
    SSL_SESSION_free(newest);
    SSL_CTX_free(ctx);
    return 0;
}
