/*
 * A server for clients that the examples do not suit: it speaks HTTP, may demand a client certificate, may do without
 * a session id context, may take early data. Every connection has a process of its own, as in fork_server.
 *
 * The answer is one line, `worker PID resumed 0|1`, and a second one that says what else came of the handshake.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sesscache.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TIMEOUT = 60 };                      /* seconds that a connection may last: some clients are slow to start */

static const char *cert = "cert.pem", *key = "key.pem", *store, *store_options, *client_ca;
static int port, listener, no_context;
static uint32_t max_early_data;
static SSL_CTX *ctx;
static volatile sig_atomic_t stop;

static void make_listener(void)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t size = sizeof address;
    int on = 1;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (listener < 0 || setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0
        || bind(listener, (struct sockaddr *)&address, size) != 0 || listen(listener, SOMAXCONN) != 0
        || getsockname(listener, (struct sockaddr *)&address, &size) != 0)
        err(1, "127.0.0.1:%d", port);
    printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);                         /* or every child would print it again at its exit */
}

static void make_ctx(void)
{
    static const unsigned char context[] = "clients";
    ctx = SSL_CTX_new(TLS_server_method());
    if (ctx == NULL || SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1
        || SSL_CTX_use_certificate_chain_file(ctx, cert) != 1
        || SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1
        || (!no_context && SSL_CTX_set_session_id_context(ctx, context, sizeof context - 1) != 1)
        || SSL_CTX_set_max_early_data(ctx, max_early_data) != 1)
        errx(1, "%s, %s: %s", cert, key, ERR_error_string(ERR_peek_error(), NULL));
    if (client_ca != NULL) {
        if (SSL_CTX_load_verify_file(ctx, client_ca) != 1)
            errx(1, "%s: %s", client_ca, ERR_error_string(ERR_peek_error(), NULL));
        SSL_CTX_set_client_CA_list(ctx, SSL_load_client_CA_file(client_ca));
        SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    }
    if (store == NULL)
        SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
    else if (sesscache_enable(ctx, store, store_options) != SESSCACHE_OK)
        errx(1, "%s", sesscache_errmsg());
}

/* Early data up to the end of it, which is where the handshake goes on. Returns its length, -1 on failure. */
static int read_early(SSL *ssl, char *buffer, size_t room)
{
    size_t len = 0, part;
    for (;;) {
        switch (SSL_read_early_data(ssl, buffer + len, room - len, &part)) {
        case SSL_READ_EARLY_DATA_SUCCESS: len += part; break;
        case SSL_READ_EARLY_DATA_FINISH: return (int)(len + part);
        default: return -1;
        }
    }
}

/* OpenSSL accepts early data of 0 bytes as well: a client that offers it and then sends none shows nothing. */
static const char *early_state(SSL *ssl, int len)
{
    switch (SSL_get_early_data_status(ssl)) {
    case SSL_EARLY_DATA_ACCEPTED: return len > 0 ? "accepted" : "empty";
    case SSL_EARLY_DATA_REJECTED: return "rejected";
    default: return "none";
    }
}

/* The request up to the empty line, its answer, goodbye. */
static void serve(int fd)
{
    char request[16384] = "", body[256], answer[1024];
    int len = 0, early = 0, n = 1;
    SSL *ssl = SSL_new(ctx);
    ERR_clear_error();
    if (ssl == NULL || SSL_set_fd(ssl, fd) != 1
        || (max_early_data > 0 && (len = early = read_early(ssl, request, sizeof request - 1)) < 0)
        || SSL_accept(ssl) != 1) {
        /* Browsers give up connections that they opened ahead of need: only what TLS complains of is worth a line. */
        const char *reason = ERR_reason_error_string(ERR_peek_error());
        if (reason != NULL)
            warnx("handshake failed: %s", reason);
        goto out;
    }
    while (strstr(request, "\r\n\r\n") == NULL && len < (int)sizeof request - 1
           && (n = SSL_read(ssl, request + len, (int)sizeof request - 1 - len)) > 0)
        len += n;
    if (n <= 0)
        goto out;
    int body_len = snprintf(body, sizeof body, "worker %ld resumed %d\n%s, early data %s, client certificate %s\n",
                            (long)getpid(), SSL_session_reused(ssl), SSL_get_version(ssl), early_state(ssl, early),
                            SSL_get0_peer_certificate(ssl) != NULL ? "known" : "none");
    n = snprintf(answer, sizeof answer,
                 "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nCache-Control: no-store\r\n"
                 "Access-Control-Allow-Origin: *\r\nConnection: close\r\n\r\n%s", body_len, body);
    if (SSL_write(ssl, answer, n) > 0 && SSL_shutdown(ssl) == 0) {
        /* The client closes first, or what it still sends would make the kernel throw the answer away. */
        while (SSL_read(ssl, request, sizeof request) > 0)
            ;
    }
out:
    SSL_free(ssl);
    close(fd);
}

static void on_stop(int signal_number)
{
    (void)signal_number;
    stop = 1;
}

static void on_child(int signal_number)
{
    (void)signal_number;                    /* ends the wait in ppoll() */
}

/* Takes clients until SIGTERM. Returns 1 in a child with its client served, 0 in the parent. */
static int run(const sigset_t *while_waiting)
{
    while (!stop) {
        struct pollfd ready = { .fd = listener, .events = POLLIN };
        int waiting = ppoll(&ready, 1, NULL, while_waiting);
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
        int fd = waiting == 1 ? accept(listener, NULL, NULL) : -1;
        if (fd < 0)
            continue;
        pid_t pid = fork();
        if (pid == 0) {
            signal(SIGTERM, SIG_DFL);       /* the parent passes it on to those who only wait */
            sigprocmask(SIG_SETMASK, while_waiting, NULL);
            alarm(TIMEOUT);
            close(listener);
            serve(fd);
            return 1;
        }
        if (pid < 0)
            warn("fork");
        close(fd);
    }
    return 0;
}

int main(int argc, char **argv)
{
    for (int option; (option = getopt(argc, argv, "p:c:k:s:o:a:ne:")) != -1;) {
        switch (option) {
        case 'p': port = atoi(optarg); break;
        case 'c': cert = optarg; break;
        case 'k': key = optarg; break;
        case 's': store = optarg; break;
        case 'o': store_options = optarg; break;
        case 'a': client_ca = optarg; break;
        case 'n': no_context = 1; break;
        case 'e': max_early_data = (uint32_t)atoi(optarg); break;
        default: port = -1;
        }
    }
    if (port < 0 || port > 65535 || optind != argc)
        errx(1, "usage: %s [-p port] [-c cert] [-k key] [-s store] [-o options] [-a client_ca] [-n] [-e early_data]",
             argv[0]);

    sigset_t signals, before;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGCHLD);
    sigprocmask(SIG_BLOCK, &signals, &before);
    signal(SIGTERM, on_stop);
    signal(SIGCHLD, on_child);
    signal(SIGPIPE, SIG_IGN);

    make_ctx();
    make_listener();
    if (run(&before) == 0) {
        close(listener);
        signal(SIGTERM, SIG_IGN);
        kill(0, SIGTERM);                   /* the process group is this server's own: its idle children end */
        while (waitpid(-1, NULL, 0) > 0)
            ;
    }
    SSL_CTX_free(ctx);
    return 0;
}
