/* Prefork TLS server: a master keeps worker processes alive, which take clients from one socket and share sessions.
 * Build:  cc -std=c11 -o prefork_server prefork_server.c $(pkg-config --cflags --libs sesscache)
 * Expect: with -s DIRECTORY a client resumes in every worker; without it, only in the one that made its session. */
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
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TIMEOUT = 5, MAX_WORKERS = 256 };    /* TIMEOUT: seconds that a worker waits for a silent client */

static const char *cert = "cert.pem", *key = "key.pem", *store, *store_options;
static int port = 4433, workers = 4, ctx_per_worker, listener;
static SSL_CTX *ctx;
static pid_t pids[MAX_WORKERS];             /* 0 or less: not running */
static sigset_t signals;                    /* what the master waits for */
static volatile sig_atomic_t stop;

/* Not blocking: every worker wakes for a new client, and all but the fastest find that it is gone. */
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
    fflush(stdout);                         /* or every worker would print it again at its exit */
}

static void make_ctx(void)
{
    static const unsigned char context[] = "examples";  /* the same in all programs that share sessions */
    sesscache *cache = NULL;
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
    sesscache_close(cache);                 /* the SSL_CTX has its own reference */
}

/* One client: handshake, a line to it, at most one line from it, goodbye. */
static void serve(int fd)
{
    char line[512];
    struct timeval wait = { .tv_sec = TIMEOUT };
    SSL *ssl = SSL_new(ctx);
    ERR_clear_error();
    if (ssl == NULL || SSL_set_fd(ssl, fd) != 1
        || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait) != 0
        || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait) != 0 || SSL_accept(ssl) != 1) {
        const char *reason = ERR_reason_error_string(ERR_peek_error());
        warnx("handshake failed: %s", reason != NULL ? reason : "connection lost or timed out");
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

static void on_sigterm(int signal_number)
{
    (void)signal_number;
    stop = 1;
}

/* SIGTERM comes in only during ppoll(), so it is never missed, and a client being served is served to the end.
 * The other signals are the master's: Ctrl-C reaches the whole process group, and the master passes it on. */
static void work(void)
{
    sigset_t while_waiting = signals;
    sigdelset(&while_waiting, SIGTERM);
    signal(SIGTERM, on_sigterm);
    if (ctx_per_worker)
        make_ctx();
    while (!stop) {
        struct pollfd ready = { .fd = listener, .events = POLLIN };
        if (ppoll(&ready, 1, NULL, &while_waiting) != 1)
            continue;
        int fd = accept(listener, NULL, NULL);
        if (fd >= 0)
            serve(fd);
        else if (errno == EMFILE || errno == ENFILE)
            sleep(1);                       /* the client stays in the queue: do not spin over it */
    }
}

/* Starts every worker that is not running. */
static void start_workers(void)
{
    pid_t master = getpid();
    for (int i = 0; i < workers; i++) {
        if (pids[i] <= 0 && (pids[i] = fork()) == 0) {
            /* End with the master also when it is killed, which may have happened before this call. */
            if (prctl(PR_SET_PDEATHSIG, SIGTERM) == 0 && getppid() == master)
                work();
            close(listener);
            SSL_CTX_free(ctx);
            exit(0);
        }
    }
}

/* Keeps the workers running until SIGTERM or SIGINT, then ends them. */
static void supervise(void)
{
    int stopping = 0, running = 0;
    raise(SIGALRM);                         /* the signal to start those that are missing */
    while (!stopping || running > 0) {
        int event = sigwaitinfo(&signals, NULL);
        if (event == SIGALRM && !stopping)
            start_workers();
        if (event == SIGTERM || event == SIGINT)
            stopping = 1;
        running = 0;
        for (int i = 0; i < workers; i++) {
            if (pids[i] > 0 && waitpid(pids[i], NULL, WNOHANG) == pids[i])
                pids[i] = 0;
            if (pids[i] > 0 && stopping)
                kill(pids[i], event == SIGALRM ? SIGKILL : SIGTERM);
            running += pids[i] > 0;
        }
        /* Start anew in a second, so that a worker that always crashes, crashes slowly; or end by force. */
        if (stopping || running < workers)
            alarm(stopping ? 2 * TIMEOUT : 1);
    }
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
    if (port < 0 || port > 65535 || workers < 1 || workers > MAX_WORKERS || optind != argc)
        errx(1, "usage: %s [-p port] [-c cert] [-k key] [-w workers] [-s store] [-o options] [-l]", argv[0]);

    /* The master handles signals one after the other, with sigwaitinfo(), and needs no handler. */
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGCHLD);
    sigaddset(&signals, SIGALRM);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    signal(SIGCHLD, SIG_DFL);               /* whoever started us may have left it ignored: no waitpid() then */
    signal(SIGPIPE, SIG_IGN);               /* a client may be gone when we write */

    if (!ctx_per_worker)
        make_ctx();
    make_listener();
    supervise();
    close(listener);
    SSL_CTX_free(ctx);
    return 0;
}
