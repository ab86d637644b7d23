/* A client that fetches from several servers, in several processes, and shares TLS sessions between all of them and between runs.
 * Build:  cc -std=c11 -o get_client get_client.c $(pkg-config --cflags --libs sesscache libssl libcrypto)
 * Expect: get_client -a ca.pem -n 5 -w 4 localhost:4433   prints "localhost:4433: 20 visits, 19 resumed" or a few less: processes
 *         that start at once begin with a full handshake each. A second run resumes all of them. */
#define _DEFAULT_SOURCE
#include <err.h>
#include <netdb.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sesscache.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TIMEOUT = 10 };              /* seconds that any single wait may take */

/* What came of the visits to one server, counted by all processes. */
struct tally { int visits, resumed, failed; };

static SSL_CTX *make_ctx(sesscache *cache, const char *authority)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    if (ctx == NULL)
        errx(1, "no SSL_CTX");
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    if (authority != NULL ? SSL_CTX_load_verify_file(ctx, authority) != 1 : SSL_CTX_set_default_verify_paths(ctx) != 1)
        errx(1, "%s: no certificates", authority != NULL ? authority : "the system");
    /* Without the cache the client works as well: every handshake is a full one. */
    if (cache != NULL && sesscache_attach_client(cache, ctx) != SESSCACHE_OK)
        warnx("without a session cache: %s", sesscache_errmsg());
    return ctx;
}

static int connect_to(const char *host, const char *port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found, *each;
    struct timeval limit = {.tv_sec = TIMEOUT};
    int fd = -1, code = getaddrinfo(host, port, &hints, &found);
    if (code != 0) {
        warnx("%s: %s", host, gai_strerror(code));
        return -1;
    }
    for (each = found; each != NULL && fd < 0; each = each->ai_next) {
        fd = socket(each->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        if (fd >= 0 && connect(fd, each->ai_addr, each->ai_addrlen) != 0) {
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(found);
    if (fd < 0)
        warn("%s:%s", host, port);
    return fd;
}

static void visit(sesscache *cache, SSL_CTX *ctx, const char *peer, struct tally *tally)
{
    char host[256], byte;
    const char *port = strrchr(peer, ':');
    SSL *ssl = SSL_new(ctx);
    int fd;

    if (port == NULL || (size_t)(port - peer) >= sizeof host)
        errx(2, "%s is not host:port", peer);
    memcpy(host, peer, (size_t)(port - peer));
    host[port - peer] = '\0';
    fd = connect_to(host, port + 1);
    if (fd < 0 || ssl == NULL) {
        __atomic_fetch_add(&tally->failed, 1, __ATOMIC_RELAXED);
        SSL_free(ssl);
        return;
    }
    SSL_set_fd(ssl, fd);
    SSL_set_tlsext_host_name(ssl, host);
    SSL_set1_host(ssl, host);
    /* Last of all: it looks at everything that was set. Without a session the handshake is a full one. */
    if (cache != NULL)
        (void)sesscache_resume(cache, ssl, peer);
    if (SSL_connect(ssl) == 1) {
        __atomic_fetch_add(&tally->visits, 1, __ATOMIC_RELAXED);
        __atomic_fetch_add(&tally->resumed, SSL_session_reused(ssl), __ATOMIC_RELAXED);
        SSL_write(ssl, "GET / HTTP/1.0\r\n\r\n", 18);
        /* The tickets of TLS 1.3 come with the answer. */
        while (SSL_read(ssl, &byte, 1) == 1)
            ;
        SSL_shutdown(ssl);
    } else {
        __atomic_fetch_add(&tally->failed, 1, __ATOMIC_RELAXED);
        ERR_print_errors_fp(stderr);
    }
    SSL_free(ssl);
    close(fd);
}

int main(int argc, char **argv)
{
    const char *store = "/run/sesscache-get", *authority = NULL, *options = NULL;
    int option, visits = 1, workers = 1, w, i, n, failed = 0;
    sesscache *cache = NULL;
    struct tally *tallies;

    while ((option = getopt(argc, argv, "s:o:a:n:w:")) != -1) {
        switch (option) {
        case 's': store = optarg; break;
        case 'o': options = optarg; break;
        case 'a': authority = optarg; break;
        case 'n': visits = atoi(optarg); break;
        case 'w': workers = atoi(optarg); break;
        default: errx(2, "usage: get_client [-s STORE] [-o OPTIONS] [-a CERTIFICATES] [-n VISITS] [-w PROCESSES] HOST:PORT...");
        }
    }
    if (sesscache_open(store, options, &cache) != SESSCACHE_OK)
        warnx("without a session cache: %s", sesscache_errmsg());
    tallies = mmap(NULL, sizeof *tallies * (size_t)argc, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (tallies == MAP_FAILED)
        err(1, "mmap");
    for (w = 0; w < workers; w++) {
        if (fork() == 0) {
            SSL_CTX *ctx = make_ctx(cache, authority);
            for (n = 0; n < visits; n++)
                for (i = optind; i < argc; i++)
                    visit(cache, ctx, argv[i], &tallies[i]);
            SSL_CTX_free(ctx);
            sesscache_close(cache);
            exit(0);
        }
    }
    while (wait(NULL) > 0)
        ;
    for (i = optind; i < argc; i++) {
        printf("%s: %d visits, %d resumed\n", argv[i], tallies[i].visits, tallies[i].resumed);
        failed += tallies[i].failed;
    }
    sesscache_close(cache);
    return failed > 0;
}
