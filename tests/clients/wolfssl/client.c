/*
 * Visits localhost:PORT with wolfSSL, each time with the newest session.
 *
 * Usage: client PORT TLSv1.2|TLSv1.3 VISITS CA [CERT KEY]. Prints what the server answers, and the client's own word.
 */
#define _GNU_SOURCE
#include <wolfssl/options.h>

#include <wolfssl/ssl.h>

#include <err.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static const char request[] = "GET / HTTP/1.0\r\n\r\n";
static WOLFSSL_CTX *ctx;
static WOLFSSL_SESSION *session;

static int connect_to(int port)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct timeval wait = { .tv_sec = 20 };
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait) != 0
        || connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        err(1, "127.0.0.1:%d", port);
    return fd;
}

static void visit(int port)
{
    char part[4096];
    int fd = connect_to(port), n;
    WOLFSSL *tls = wolfSSL_new(ctx);
    if (tls == NULL || wolfSSL_set_fd(tls, fd) != WOLFSSL_SUCCESS
        || wolfSSL_UseSNI(tls, WOLFSSL_SNI_HOST_NAME, "localhost", 9) != WOLFSSL_SUCCESS
        || wolfSSL_check_domain_name(tls, "localhost") != WOLFSSL_SUCCESS
        || wolfSSL_UseSessionTicket(tls) != WOLFSSL_SUCCESS
        || (session != NULL && wolfSSL_set_session(tls, session) != WOLFSSL_SUCCESS))
        errx(1, "the connection cannot be prepared");
    if (wolfSSL_connect(tls) != WOLFSSL_SUCCESS)
        errx(1, "wolfSSL_connect: error %d", wolfSSL_get_error(tls, 0));
    if (wolfSSL_write(tls, request, sizeof request - 1) <= 0)
        errx(1, "wolfSSL_write");
    while ((n = wolfSSL_read(tls, part, sizeof part)) > 0)
        printf("%.*s\n", n, part);
    if (wolfSSL_get_error(tls, n) != WOLFSSL_ERROR_ZERO_RETURN)
        errx(1, "wolfSSL_read: error %d", wolfSSL_get_error(tls, n));
    printf("client %s resumed %d\n", wolfSSL_get_version(tls), wolfSSL_session_reused(tls));
    /* The tickets of TLS 1.3 come before the answer, so the session is complete only here. */
    wolfSSL_SESSION_free(session);
    session = wolfSSL_get1_session(tls);
    wolfSSL_free(tls);
    close(fd);
}

int main(int argc, char **argv)
{
    if (argc < 5)
        return 2;
    wolfSSL_Init();
    ctx = wolfSSL_CTX_new(strcmp(argv[2], "TLSv1.2") == 0 ? wolfTLSv1_2_client_method() : wolfTLSv1_3_client_method());
    if (ctx == NULL || wolfSSL_CTX_load_verify_locations(ctx, argv[4], NULL) != WOLFSSL_SUCCESS)
        errx(1, "%s", argv[4]);
    if (argc > 6 && (wolfSSL_CTX_use_certificate_file(ctx, argv[5], WOLFSSL_FILETYPE_PEM) != WOLFSSL_SUCCESS
                     || wolfSSL_CTX_use_PrivateKey_file(ctx, argv[6], WOLFSSL_FILETYPE_PEM) != WOLFSSL_SUCCESS))
        errx(1, "%s, %s", argv[5], argv[6]);
    for (int i = 0; i < atoi(argv[3]); i++)
        visit(atoi(argv[1]));
    wolfSSL_SESSION_free(session);
    wolfSSL_CTX_free(ctx);
    wolfSSL_Cleanup();
    return 0;
}
