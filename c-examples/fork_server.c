/* Fork-per-connection TLS server: every client gets a process of its own, which ends with the connection.
 * Build:  cc -std=c11 -o fork_server fork_server.c $(pkg-config --cflags --libs sesscache)
 * Expect: with -s DIRECTORY clients resume; without it never: each session is lost with the child that made it. */
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

enum { TIMEOUT = 5 };                       /* seconds that a connection may last */

static const char *cert = "cert.pem", *key = "key.pem", *store, *store_options;
static int port = 4433, listener;
static SSL_CTX *ctx;
static sesscache *cache;
static volatile sig_atomic_t stop;

/* Not blocking: a client may be gone again between ppoll() and accept(). */
static void make_listener(void)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t size = sizeof address;
    int on = 1;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0
        || setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0   /* accepted sockets inherit it */
        || bind(listener, (struct sockaddr *)&address, size) != 0 || listen(listener, SOMAXCONN) != 0
        || getsockname(listener, (struct sockaddr *)&address, &size) != 0)
        err(1, "127.0.0.1:%d", port);
    printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);                         /* or every child would print it again at its exit */
}

static void make_ctx(void)
{
    static const unsigned char context[] = "examples";  /* the same in all programs that share sessions */
    ctx = SSL_CTX_new(TLS_server_method());
    if (ctx == NULL || SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1
        || SSL_CTX_use_certificate_chain_file(ctx, cert) != 1
        || SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1
        || SSL_CTX_set_session_id_context(ctx, context, sizeof context - 1) != 1)
        errx(1, "%s, %s: %s", cert, key, ERR_error_string(ERR_peek_error(), NULL));
    if (store == NULL || sesscache_open(store, store_options, &cache) != SESSCACHE_OK
        || sesscache_attach(cache, ctx) != SESSCACHE_OK) {
        if (store != NULL)
            warnx("no shared sessions: %s", sesscache_errmsg());
        /* No tickets that hold the whole session: OpenSSL's own cache, one per process, is what we compare with. */
        SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
    }
}

/* What a child does: handshake, a line to the client, at most one line from it, goodbye. */
static void serve(int fd)
{
    char line[512];
    SSL *ssl = SSL_new(ctx);
    ERR_clear_error();
    if (ssl == NULL || SSL_set_fd(ssl, fd) != 1 || SSL_accept(ssl) != 1) {
        const char *reason = ERR_reason_error_string(ERR_peek_error());
        warnx("handshake failed: %s", reason != NULL ? reason : "connection lost");
        goto out;
    }
    int n = snprintf(line, sizeof line, "worker %ld resumed %d\n", (long)getpid(), SSL_session_reused(ssl));
    n = SSL_write(ssl, line, n);
    while (n > 0 && (n = SSL_read(ssl, line, sizeof line)) > 0)
        if (memchr(line, '\n', (size_t)n) != NULL)
            break;
    /* Say goodbye, unless the connection has failed: then nothing more may be sent. */
    int error = SSL_get_error(ssl, n);
    if (error != SSL_ERROR_SSL && error != SSL_ERROR_SYSCALL)
        SSL_shutdown(ssl);
out:
    SSL_free(ssl);
    close(fd);
}

static void on_stop(int signal_number)
{
    (void)signal_number;
    stop = 1;
}

/* For SIGCHLD: there is nothing to do but to end the wait in ppoll(). */
static void on_child(int signal_number)
{
    (void)signal_number;
}

static void reap(int options)
{
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, options)) > 0;)
        if (WIFSIGNALED(status))
            warnx("child %ld: %s", (long)pid, WTERMSIG(status) == SIGALRM ? "timed out" : strsignal(WTERMSIG(status)));
}

/* Takes clients until SIGTERM or SIGINT. Returns 1 in a child with its client served, 0 in the parent. */
static int run(const sigset_t *while_waiting)
{
    while (!stop) {
        struct pollfd ready = { .fd = listener, .events = POLLIN };
        int waiting = ppoll(&ready, 1, NULL, while_waiting);
        reap(WNOHANG);
        if (waiting != 1)
            continue;
        int fd = accept(listener, NULL, NULL);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE)
                sleep(1);                   /* the client stays in the queue: do not spin over it */
            continue;
        }
        pid_t pid = fork();
        if (pid == 0) {
            alarm(TIMEOUT);                 /* ends the child, whatever it waits for */
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
    for (int option; (option = getopt(argc, argv, "p:c:k:w:s:o:")) != -1;) {
        switch (option) {
        case 'p': port = atoi(optarg); break;
        case 'c': cert = optarg; break;
        case 'k': key = optarg; break;
        case 's': store = optarg; break;
        case 'o': store_options = optarg; break;
        case 'w': break;                    /* as many processes as there are clients */
        default: port = -1;
        }
    }
    if (port < 0 || port > 65535 || optind != argc)
        errx(1, "usage: %s [-p port] [-c cert] [-k key] [-s store] [-o options]", argv[0]);

    /* The signals come in only during ppoll(), so that none is missed and no child is disturbed. */
    sigset_t signals, before;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGCHLD);
    sigprocmask(SIG_BLOCK, &signals, &before);
    signal(SIGTERM, on_stop);
    signal(SIGINT, on_stop);
    signal(SIGCHLD, on_child);
    signal(SIGPIPE, SIG_IGN);               /* a client may be gone when we write */

    make_ctx();                             /* once, before any fork: a child has no time to read certificates */
    make_listener();
    if (run(&before) == 0) {
        close(listener);
        reap(0);                            /* the last clients are served to their end */
    }
    SSL_CTX_free(ctx);
    sesscache_close(cache);
    return 0;
}
