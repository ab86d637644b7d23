/*
 * Visits localhost:PORT with Mbed TLS, each time with the newest session.
 *
 * Usage: client PORT TLSv1.2 VISITS CA [CERT KEY]. Prints what the server answers, and the client's own word: a session
 * is the one of the visit before when its master secret is. `client version` prints the version of the library.
 */
#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/net_sockets.h>
#include <mbedtls/ssl.h>
#include <mbedtls/version.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef MBEDTLS_PRIVATE
#define MBEDTLS_PRIVATE(member) member
#endif

static const char request[] = "GET / HTTP/1.0\r\n\r\n";
static mbedtls_ssl_config config;
static mbedtls_ssl_session session;
static int have_session;

static void check(int code, const char *step)
{
    if (code < 0) {
        fprintf(stderr, "%s: -0x%04x\n", step, (unsigned)-code);
        exit(1);
    }
}

static void visit(const char *port)
{
    mbedtls_net_context tcp;
    mbedtls_ssl_context tls;
    mbedtls_ssl_session newest;
    unsigned char part[4096];
    mbedtls_net_init(&tcp);
    mbedtls_ssl_init(&tls);
    mbedtls_ssl_session_init(&newest);
    check(mbedtls_net_connect(&tcp, "127.0.0.1", port, MBEDTLS_NET_PROTO_TCP), "connect");
    check(mbedtls_ssl_setup(&tls, &config), "mbedtls_ssl_setup");
    check(mbedtls_ssl_set_hostname(&tls, "localhost"), "mbedtls_ssl_set_hostname");
    mbedtls_ssl_set_bio(&tls, &tcp, mbedtls_net_send, mbedtls_net_recv, mbedtls_net_recv_timeout);
    if (have_session)
        check(mbedtls_ssl_set_session(&tls, &session), "mbedtls_ssl_set_session");
    check(mbedtls_ssl_handshake(&tls), "mbedtls_ssl_handshake");
    check(mbedtls_ssl_get_session(&tls, &newest), "mbedtls_ssl_get_session");
    check(mbedtls_ssl_write(&tls, (const unsigned char *)request, sizeof request - 1), "mbedtls_ssl_write");
    int n;
    while ((n = mbedtls_ssl_read(&tls, part, sizeof part)) > 0)
        printf("%.*s\n", n, (const char *)part);
    if (n != MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY)
        check(n, "mbedtls_ssl_read");
    printf("client %s resumed %d\n", mbedtls_ssl_get_version(&tls),
           have_session && memcmp(newest.MBEDTLS_PRIVATE(master), session.MBEDTLS_PRIVATE(master),
                                  sizeof session.MBEDTLS_PRIVATE(master)) == 0);
    mbedtls_ssl_close_notify(&tls);
    mbedtls_ssl_session_free(&session);
    session = newest;                       /* what it points to moves along */
    have_session = 1;
    mbedtls_ssl_free(&tls);
    mbedtls_net_free(&tcp);
}

int main(int argc, char **argv)
{
    if (argc < 5) {
        puts(MBEDTLS_VERSION_STRING);
        return 0;
    }
    mbedtls_entropy_context entropy;
    mbedtls_ctr_drbg_context random;
    mbedtls_x509_crt ca, cert;
    mbedtls_pk_context key;
    mbedtls_entropy_init(&entropy);
    mbedtls_ctr_drbg_init(&random);
    mbedtls_x509_crt_init(&ca);
    mbedtls_x509_crt_init(&cert);
    mbedtls_pk_init(&key);
    mbedtls_ssl_config_init(&config);
    check(mbedtls_ctr_drbg_seed(&random, mbedtls_entropy_func, &entropy, NULL, 0), "mbedtls_ctr_drbg_seed");
    check(mbedtls_x509_crt_parse_file(&ca, argv[4]), argv[4]);
    check(mbedtls_ssl_config_defaults(&config, MBEDTLS_SSL_IS_CLIENT, MBEDTLS_SSL_TRANSPORT_STREAM,
                                      MBEDTLS_SSL_PRESET_DEFAULT), "mbedtls_ssl_config_defaults");
    mbedtls_ssl_conf_ca_chain(&config, &ca, NULL);
    mbedtls_ssl_conf_rng(&config, mbedtls_ctr_drbg_random, &random);
    mbedtls_ssl_conf_read_timeout(&config, 20000);
#if MBEDTLS_VERSION_MAJOR >= 3
    mbedtls_ssl_conf_max_tls_version(&config, MBEDTLS_SSL_VERSION_TLS1_2);
#endif
    if (argc > 6) {
        check(mbedtls_x509_crt_parse_file(&cert, argv[5]), argv[5]);
#if MBEDTLS_VERSION_MAJOR >= 3
        check(mbedtls_pk_parse_keyfile(&key, argv[6], NULL, mbedtls_ctr_drbg_random, &random), argv[6]);
#else
        check(mbedtls_pk_parse_keyfile(&key, argv[6], NULL), argv[6]);
#endif
        check(mbedtls_ssl_conf_own_cert(&config, &cert, &key), "mbedtls_ssl_conf_own_cert");
    }
    for (int i = 0; i < atoi(argv[3]); i++)
        visit(argv[1]);
    mbedtls_ssl_session_free(&session);
    mbedtls_ssl_config_free(&config);
    mbedtls_pk_free(&key);
    mbedtls_x509_crt_free(&cert);
    mbedtls_x509_crt_free(&ca);
    mbedtls_ctr_drbg_free(&random);
    mbedtls_entropy_free(&entropy);
    return 0;
}
