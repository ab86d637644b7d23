/* Threaded TLS server: a fixed set of threads takes clients from one socket, all of them with one SSL_CTX.
 * Build:  cc -std=c11 -pthread -o threaded_server threaded_server.c $(pkg-config --cflags --libs sesscache)
 * Expect: clients resume in every thread; with -s DIRECTORY also after a restart and in other programs. */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <sesscache.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TIMEOUT = 5, MAX_THREADS = 256 };    /* TIMEOUT: seconds that a thread waits for a silent client */

static const char *cert = "cert.pem", *key = "key.pem", *store, *store_options;
static int port = 4433, threads = 4, listener;
static SSL_CTX *ctx;
static sesscache *cache;
static atomic_int stop;

static void make_listener(void)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t size = sizeof address;
    int on = 1;
    listener = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0
        || setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0   /* accepted sockets inherit it */
        || bind(listener, (struct sockaddr *)&address, size) != 0 || listen(listener, SOMAXCONN) != 0
        || getsockname(listener, (struct sockaddr *)&address, &size) != 0)
        err(1, "127.0.0.1:%d", port);
    printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
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
        /* No tickets that hold the whole session: OpenSSL's own cache, which dies with the process, is used. */
        SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
    }
}

/* One client: handshake, a line to it, at most one line from it, goodbye. */
static void serve(int fd, int number)
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
    int n = snprintf(line, sizeof line, "worker %ld.%d resumed %d\n", (long)getpid(), number, SSL_session_reused(ssl));
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

static void *work(void *number)
{
    while (!stop) {
        int fd = accept(listener, NULL, NULL);
        if (fd >= 0)
            serve(fd, *(const int *)number);
        else if (errno == EMFILE || errno == ENFILE)
            sleep(1);                       /* the client stays in the queue: do not spin over it */
    }
    return NULL;
}

int main(int argc, char **argv)
{
    for (int option; (option = getopt(argc, argv, "p:c:k:w:s:o:")) != -1;) {
        switch (option) {
        case 'p': port = atoi(optarg); break;
        case 'c': cert = optarg; break;
        case 'k': key = optarg; break;
        case 'w': threads = atoi(optarg); break;
        case 's': store = optarg; break;
        case 'o': store_options = optarg; break;
        default: threads = 0;
        }
    }
    if (port < 0 || port > 65535 || threads < 1 || threads > MAX_THREADS || optind != argc)
        errx(1, "usage: %s [-p port] [-c cert] [-k key] [-w threads] [-s store] [-o options]", argv[0]);

    /* Blocked in every thread, since threads inherit the mask; the main thread asks for them with sigwait(). */
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);               /* a client may be gone when we write */

    make_ctx();                             /* with the hooks in place before the first connection */
    make_listener();
    pthread_t ids[MAX_THREADS];
    int numbers[MAX_THREADS], started = 0, error = 0, signal_number;
    while (started < threads && error == 0) {
        numbers[started] = started + 1;
        error = pthread_create(&ids[started], NULL, work, &numbers[started]);
        started += error == 0;
    }
    if (error == 0)
        sigwait(&signals, &signal_number);
    else
        warnx("thread %d: %s", started + 1, strerror(error));

    stop = 1;
    shutdown(listener, SHUT_RDWR);          /* wakes the threads that wait in accept() */
    for (int i = 0; i < started; i++)
        pthread_join(ids[i], NULL);
    close(listener);
    SSL_CTX_free(ctx);
    sesscache_close(cache);
    return error != 0;
}
