/* Event-driven TLS server: worker processes with epoll, each with many clients at once and its own SO_REUSEPORT socket.
 * Build:  cc -std=c11 -o event_server event_server.c $(pkg-config --cflags --libs sesscache)
 * Expect: the kernel spreads clients over the workers; with -s DIRECTORY they resume in whichever they meet. */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sesscache.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { TIMEOUT = 5 };                       /* seconds that a connection may last */
static TAILQ_HEAD(, connection) connections = TAILQ_HEAD_INITIALIZER(connections);  /* oldest first */
struct connection {
    TAILQ_ENTRY(connection) entry;
    enum { HANDSHAKE, GREET, LISTEN } step;
    SSL *ssl;
    int fd, length;                         /* length of the line */
    time_t deadline;
    char line[64];
};
static const char *cert = "cert.pem", *key = "key.pem", *store, *store_options;
static int port = 4433, workers = 4, ctx_per_worker, epoll, lifeline[2];
static SSL_CTX *ctx;
static volatile sig_atomic_t stopped_by;

static int make_listener(void)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t size = sizeof address;
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) != 0
        || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0   /* accepted sockets inherit it */
        || bind(fd, (struct sockaddr *)&address, size) != 0 || listen(fd, SOMAXCONN) != 0
        || getsockname(fd, (struct sockaddr *)&address, &size) != 0)
        err(1, "127.0.0.1:%d", port);
    port = ntohs(address.sin_port);         /* when the kernel chose it: the same for the next worker */
    return fd;
}

static void make_ctx(void)
{
    if ((ctx = SSL_CTX_new(TLS_server_method())) == NULL || SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1
        || SSL_CTX_use_certificate_chain_file(ctx, cert) != 1
        || SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1
        || SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"examples", 8) != 1)  /* in all that share */
        errx(1, "%s, %s: %s", cert, key, ERR_error_string(ERR_peek_error(), NULL));
    if (store == NULL || sesscache_enable(ctx, store, store_options) != SESSCACHE_OK) {
        if (store != NULL)
            warnx("no shared sessions: %s", sesscache_errmsg());
        /* No tickets that hold the whole session: OpenSSL's own cache, one per process, is what we compare with. */
        SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
    }
}

static int watch(int operation, int fd, uint32_t events, void *data)
{
    return epoll_ctl(epoll, operation, fd, &(struct epoll_event){ .events = events, .data.ptr = data });
}

/* Goes on until it has to wait for the client. Returns the events to wait for, 0 when the connection is over. */
static uint32_t advance(struct connection *c)
{
    static char received[SSL3_RT_MAX_PLAIN_LENGTH];     /* a whole record: nothing stays behind, unseen by epoll */
    int n = -1;
    if (c->step == HANDSHAKE && (n = SSL_accept(c->ssl)) == 1) {
        c->length = snprintf(c->line, sizeof c->line, "worker %d resumed %d\n", getpid(), SSL_session_reused(c->ssl));
        c->step = GREET;
    }
    if (c->step == GREET && (n = SSL_write(c->ssl, c->line, c->length)) > 0)
        c->step = LISTEN;
    if (c->step == LISTEN && (n = SSL_read(c->ssl, received, sizeof received)) > 0
        && memchr(received, '\n', (size_t)n) == NULL)
        return EPOLLIN;
    int error = SSL_get_error(c->ssl, n);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
        return error == SSL_ERROR_WANT_READ ? EPOLLIN : EPOLLOUT;
    if (error != SSL_ERROR_SSL && error != SSL_ERROR_SYSCALL)   /* after these, nothing more may be sent */
        SSL_shutdown(c->ssl);
    return 0;
}

static void end(struct connection *c)
{
    const char *reason = ERR_reason_error_string(ERR_peek_error());
    if (c->step == HANDSHAKE)
        warnx("handshake failed: %s", reason != NULL ? reason : "connection lost or timed out");
    TAILQ_REMOVE(&connections, c, entry);
    SSL_free(c->ssl);
    close(c->fd);
    free(c);
    ERR_clear_error();                      /* the error queue is the thread's: leave none for the next connection */
}

static void welcome(int listener)
{
    struct connection *c = TAILQ_FIRST(&connections);
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    if (fd < 0 && c != NULL && (errno == EMFILE || errno == ENFILE))
        end(c);                             /* the oldest makes room for the new one, which is still in the queue */
    if (fd < 0)
        return;
    if ((c = malloc(sizeof *c)) == NULL)
        err(1, NULL);
    *c = (struct connection){ .fd = fd, .ssl = SSL_new(ctx), .deadline = time(NULL) + TIMEOUT };
    TAILQ_INSERT_TAIL(&connections, c, entry);
    if (c->ssl == NULL || SSL_set_fd(c->ssl, fd) != 1 || watch(EPOLL_CTL_ADD, fd, EPOLLIN, c) != 0)
        end(c);
}

/* Takes clients until the lifeline ends, and serves those it has to their end. */
static _Noreturn void work(int listener)
{
    struct connection *c;
    signal(SIGTERM, SIG_IGN);               /* these are the master's, also when the whole process group gets them */
    signal(SIGINT, SIG_IGN);
    close(lifeline[1]);
    if (ctx_per_worker)
        make_ctx();
    if ((epoll = epoll_create1(0)) < 0 || watch(EPOLL_CTL_ADD, listener, EPOLLIN, &listener) != 0
        || watch(EPOLL_CTL_ADD, lifeline[0], EPOLLIN | EPOLLONESHOT, lifeline) != 0)
        err(1, "epoll");
    while (listener >= 0 || !TAILQ_EMPTY(&connections)) {
        struct epoll_event event = { .data.ptr = NULL };    /* one at a time: none is left for a freed connection */
        epoll_wait(epoll, &event, 1, TAILQ_EMPTY(&connections) ? -1 : 1000);
        if (event.data.ptr == lifeline) {
            close(listener);                /* new clients go to other workers, or nowhere */
            listener = -1;
        } else if (event.data.ptr == &listener) {
            welcome(listener);
        } else if ((c = event.data.ptr) != NULL) {
            uint32_t wanted = advance(c);
            if (wanted == 0 || watch(EPOLL_CTL_MOD, c->fd, wanted, c) != 0)
                end(c);
        }
        while ((c = TAILQ_FIRST(&connections)) != NULL && c->deadline <= time(NULL))
            end(c);
    }
    SSL_CTX_free(ctx);
    exit(0);
}

/* The lifeline ends at this signal, or when the master dies in whatever way; every worker sees it. */
static void on_stop(int signal_number)
{
    stopped_by = signal_number;
    shutdown(lifeline[1], SHUT_WR);
}

int main(int argc, char **argv)
{
    for (int option; (option = getopt(argc, argv, "p:c:k:w:s:o:l")) != -1;) {
        switch (option) {
        case 'p': port = atoi(optarg); break;
        case 'c': cert = optarg; break;
        case 'k': key = optarg; break;
        case 'w': workers = atoi(optarg); break;
        case 's': store = optarg; break;
        case 'o': store_options = optarg; break;
        case 'l': ctx_per_worker = 1; break;
        default: workers = 0;
        }
    }
    if (port < 0 || port > 65535 || workers < 1 || optind != argc)
        errx(1, "usage: %s [-p port] [-c cert] [-k key] [-w workers] [-s store] [-o options] [-l]", argv[0]);
    if (!ctx_per_worker)
        make_ctx();
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, lifeline) != 0)
        err(1, "socketpair");
    signal(SIGTERM, on_stop);
    signal(SIGINT, on_stop);
    signal(SIGPIPE, SIG_IGN);               /* a client may be gone when we write */
    for (int i = 0; i < workers; i++) {
        int listener = make_listener();
        pid_t pid = fork();
        if (pid < 0)
            err(1, "fork");
        if (pid == 0)
            work(listener);
        close(listener);                    /* only its worker has it: should that die, the others get its clients */
    }
    dprintf(STDOUT_FILENO, "listening on 127.0.0.1:%d\n", port);
    while (wait(NULL) > 0)
        continue;                           /* prefork_server.c shows how to restart one that died */
    SSL_CTX_free(ctx);
    return stopped_by != 0 ? 0 : 1;         /* 1: no worker is left, and nobody asked for that */
}
