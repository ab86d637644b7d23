/* A client that connects again and again and counts how often a server resumes its session, and in which worker.
 * Build:  cc -std=c11 -o resume_client resume_client.c $(pkg-config --cflags --libs libssl libcrypto)
 * Expect: resume_client -p 4433 -n 9   prints a line per connection, then "resumed 8 of 8, 6 in another worker". */
#define _DEFAULT_SOURCE
#include <err.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TIMEOUT = 10 };              /* seconds that any single wait may take */

/* The session offered next, and the worker that made it ("" when unknown). */
static SSL_SESSION *session;
static char maker[32];
static int session_is_new;

static int port = 4433, quiet, no_close_notify;
static const char *server_name;

/* TLS 1.2 calls this at the end of a full handshake. TLS 1.3 calls it for every ticket, which arrive after the
 * handshake, among the first data: SSL_get1_session() right after SSL_connect() would be too early. */
static int on_new_session(SSL *ssl, SSL_SESSION *newest)
{
    (void)ssl;
    SSL_SESSION_free(session);
    session = newest;
    session_is_new = 1;
    return 1;                       /* the reference is ours from here on */
}

static SSL_CTX *make_ctx(int version)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    if (ctx == NULL || SSL_CTX_set_min_proto_version(ctx, version ? version : TLS1_2_VERSION) != 1
        || SSL_CTX_set_max_proto_version(ctx, version) != 1) {
        ERR_print_errors_fp(stderr);
        exit(1);
    }
    /* This client measures resumption and sends no secret, so it takes any certificate. A real one verifies. */
    SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL_STORE);
    SSL_CTX_sess_set_new_cb(ctx, on_new_session);
    return ctx;
}

/* A saved session is PEM after one line of text, "worker NAME", which PEM readers skip. */
static void load_session(const char *path)
{
    FILE *file = fopen(path, "r");
    if (file == NULL)
        err(1, "%s", path);
    if (fscanf(file, "worker %31s", maker) != 1)
        maker[0] = '\0';
    rewind(file);
    session = PEM_read_SSL_SESSION(file, NULL, NULL, NULL);
    if (session == NULL)
        errx(1, "%s: no session in PEM form", path);
    fclose(file);
}

static int save_session(const char *path)
{
    if (session == NULL) {
        warnx("%s: not written, the server gave no session", path);
        return 0;
    }
    FILE *file = fopen(path, "w");
    int ok = file != NULL && fprintf(file, "worker %s\n", maker) > 0 && PEM_write_SSL_SESSION(file, session) == 1;
    if (file != NULL && fclose(file) != 0)
        ok = 0;
    if (!ok)
        warn("%s", path);
    return ok;
}

static int tcp_connect(void)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct timeval wait = { .tv_sec = TIMEOUT };
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait) != 0
        || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait) != 0
        || connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        warn("127.0.0.1:%d", port);
        if (fd >= 0)
            close(fd);
        return -1;
    }
    return fd;
}

/* One connection: handshake, the server's line, goodbye. Returns 1 when all of it worked. */
static int visit(SSL_CTX *ctx, char worker[static 32], int *resumed)
{
    char line[128] = "";
    size_t length = 0;
    int ok = 0, server_says = -1;
    SSL *ssl = NULL;
    int fd = tcp_connect();
    if (fd < 0)
        return 0;
    ERR_clear_error();
    session_is_new = 0;
    ssl = SSL_new(ctx);
    if (ssl == NULL || SSL_set_fd(ssl, fd) != 1
        || (server_name != NULL && SSL_set_tlsext_host_name(ssl, server_name) != 1)
        || (session != NULL && SSL_set_session(ssl, session) != 1) || SSL_connect(ssl) != 1)
        goto out;

    /* Reading the line also takes in the tickets, which the server sent before it. */
    while (length + 1 < sizeof line && strchr(line, '\n') == NULL) {
        int n = SSL_read(ssl, line + length, (int)(sizeof line - 1 - length));
        if (n <= 0)
            goto out;
        length += (size_t)n;
    }
    *resumed = SSL_session_reused(ssl);
    ok = sscanf(line, "worker %31s resumed %d", worker, &server_says) == 2 && server_says == *resumed;

    /* A quiet shutdown sends nothing. Without any, SSL_free() would take the session for a bad one and spoil it. */
    if (no_close_notify)
        SSL_set_quiet_shutdown(ssl, 1);
    if (SSL_shutdown(ssl) == 0)
        SSL_shutdown(ssl);          /* wait for the server's close_notify: then it has finished with us, too */
out:
    if (!ok) {
        const char *reason = ERR_reason_error_string(ERR_peek_error());
        warnx("127.0.0.1:%d: %s", port, length > 0 ? line : reason != NULL ? reason : "connection lost or timed out");
    }
    SSL_free(ssl);
    close(fd);
    return ok;
}

int main(int argc, char **argv)
{
    int connections = 5, version = 0, failed = 0, resumptions = 0, elsewhere = 0, option;
    const char *input = NULL, *output = NULL;
    while ((option = getopt(argc, argv, "p:n:23qxu:i:o:")) != -1) {
        switch (option) {
        case 'p': port = atoi(optarg); break;
        case 'n': connections = atoi(optarg); break;
        case '2': version = TLS1_2_VERSION; break;
        case '3': version = TLS1_3_VERSION; break;
        case 'q': quiet = 1; break;
        case 'x': no_close_notify = 1; break;
        case 'u': server_name = optarg; break;
        case 'i': input = optarg; break;
        case 'o': output = optarg; break;
        default: connections = 0;
        }
    }
    if (port < 1 || port > 65535 || connections < 1 || optind != argc)
        errx(1, "usage: %s [-p port] [-n connections] [-2|-3] [-q] [-x] [-u servername] [-i session.pem]"
                " [-o session.pem]", argv[0]);
    signal(SIGPIPE, SIG_IGN);
    SSL_CTX *ctx = make_ctx(version);
    if (input != NULL)
        load_session(input);

    for (int i = 1; i <= connections; i++) {
        char worker[32] = "";
        int resumed = 0;
        if (!visit(ctx, worker, &resumed)) {
            failed++;
            continue;
        }
        int other = resumed && maker[0] != '\0' && strcmp(worker, maker) != 0;
        resumptions += resumed;
        elsewhere += other;
        if (!quiet)
            printf("%d: %-8s worker %s%s\n", i, resumed ? "resumed" : "full", worker, other ? " (other worker)" : "");
        if (session_is_new)
            strcpy(maker, worker);
    }
    printf("resumed %d of %d, %d in another worker\n", resumptions, connections - (input == NULL), elsewhere);
    if (output != NULL && !save_session(output))
        failed++;
    SSL_SESSION_free(session);
    SSL_CTX_free(ctx);
    return failed == 0 ? 0 : 1;
}
