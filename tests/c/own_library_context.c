/*
 * Servers whose OpenSSL is not set up as usual: all TLS is in a library context of their own and the default one is empty, or the
 * configuration demands a FIPS module that is not there. The cache seals without what the host has taken away, and the key in a
 * client's certificate can be read in every process, as it can not where OpenSSL resumes a stateless ticket.
 */
#include "check.h"
#include "tls.h"

#include <openssl/evp.h>
#include <openssl/provider.h>
#include <openssl/x509.h>

static OSSL_LIB_CTX *own;

static SSL_CTX *new_ctx(const SSL_METHOD *method, const char *name)
{
    SSL_CTX *ctx = SSL_CTX_new_ex(own, NULL, method);
    EVP_PKEY *key = EVP_PKEY_Q_keygen(own, NULL, "EC", "P-256");
    X509 *certificate = X509_new_ex(own, NULL);
    EVP_MD *digest = EVP_MD_fetch(own, "SHA2-256", NULL);

    CHECK(ctx != NULL && key != NULL && certificate != NULL && digest != NULL, "no SSL_CTX in a library context");
    CHECK(X509_set_version(certificate, 2) == 1 && ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1) == 1 &&
          X509_gmtime_adj(X509_getm_notBefore(certificate), -3600) != NULL &&
          X509_gmtime_adj(X509_getm_notAfter(certificate), 86400) != NULL && X509_set_pubkey(certificate, key) == 1 &&
          X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_ASC, (const unsigned char *)name, -1,
                                     -1, 0) == 1 &&
          X509_set_issuer_name(certificate, X509_get_subject_name(certificate)) == 1 &&
          X509_sign(certificate, key, digest) > 0, "no certificate in a library context");
    CHECK(SSL_CTX_use_certificate(ctx, certificate) == 1 && SSL_CTX_use_PrivateKey(ctx, key) == 1, "no credentials");
    EVP_PKEY_free(key);
    X509_free(certificate);
    EVP_MD_free(digest);
    return ctx;
}

static int any_certificate(int ok, X509_STORE_CTX *store)
{
    (void)ok;
    (void)store;
    return 1;
}

/* What an application may want of a client's certificate: its key, for a signature that the client has made. */
static void expect_a_key_that_verifies(SSL *server, SSL *client)
{
    static const unsigned char text[] = "what the client has signed";
    X509 *peer = SSL_get0_peer_certificate(server);
    EVP_PKEY *key = peer != NULL ? X509_get0_pubkey(peer) : NULL;
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    unsigned char signature[128];
    size_t len = sizeof signature;

    CHECK(key != NULL, "the key of the client's certificate cannot be read%s", SSL_session_reused(server) ? ", resumed" : "");
    CHECK(digest != NULL && EVP_DigestSignInit_ex(digest, NULL, "SHA2-256", own, NULL, SSL_get_privatekey(client), NULL) == 1 &&
          EVP_DigestSign(digest, signature, &len, text, sizeof text) == 1, "the client cannot sign");
    EVP_MD_CTX_free(digest);
    digest = EVP_MD_CTX_new();
    CHECK(digest != NULL && EVP_DigestVerifyInit_ex(digest, NULL, "SHA2-256", own, NULL, key, NULL) == 1 &&
          EVP_DigestVerify(digest, signature, len, text, sizeof text) == 1, "the key of the client's certificate does not verify");
    EVP_MD_CTX_free(digest);
}

static SSL_CTX *serve(const char *store, int asks)
{
    SSL_CTX *ctx = new_ctx(TLS_server_method(), "server");

    CHECK(SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"own", 3) == 1, "SSL_CTX_set_session_id_context");
    if (asks)
        SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, any_certificate);
    CHECK_OK(sesscache_enable(ctx, store, NULL));
    return ctx;
}

/* Whether the server resumes; the session to offer next replaces the one that was offered. */
static int visit(SSL_CTX *server_ctx, SSL_CTX *client_ctx, int version, SSL_SESSION **session)
{
    SSL *server = SSL_new(server_ctx), *client = SSL_new(client_ctx);
    BIO *to_server, *to_client;
    char byte;
    int resumed;

    CHECK(server != NULL && client != NULL && BIO_new_bio_pair(&to_server, 1 << 17, &to_client, 1 << 17) == 1 &&
          SSL_set_min_proto_version(client, version) == 1 && SSL_set_max_proto_version(client, version) == 1, "no connection");
    SSL_set_bio(client, to_server, to_server);
    SSL_set_bio(server, to_client, to_client);
    SSL_set_connect_state(client);
    SSL_set_accept_state(server);
    CHECK(*session == NULL || SSL_set_session(client, *session) == 1, "SSL_set_session");
    for (int step = 0; step < 4; step++) {
        (void)SSL_do_handshake(client);
        (void)SSL_do_handshake(server);
    }
    CHECK(SSL_is_init_finished(client) && SSL_is_init_finished(server), "%s: no handshake", tls_name(version));
    CHECK(SSL_write(server, "x", 1) == 1 && SSL_read(client, &byte, 1) == 1, "no data");
    resumed = SSL_session_reused(server);
    if (SSL_get_verify_mode(server) != SSL_VERIFY_NONE)
        expect_a_key_that_verifies(server, client);
    SSL_SESSION_free(*session);
    *session = SSL_get1_session(client);
    SSL_set_shutdown(client, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_set_shutdown(server, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(client);
    SSL_free(server);
    return resumed;
}

static void expect_resumptions(const char *store)
{
    CHECK(ERR_peek_error() == 0, "errors lie about");
    for (int asks = 0; asks < 2; asks++) {
        SSL_CTX *one = serve(store, asks), *two = serve(store, asks), *client = new_ctx(TLS_client_method(), "client");

        CHECK(ERR_peek_error() == 0, "opening leaves errors behind");
        SSL_CTX_set_options(client, SSL_OP_NO_TICKET);
        for (int i = 0; i < 2; i++) {
            SSL_SESSION *session = NULL;
            pid_t pid;

            CHECK(!visit(one, client, tls_versions[i], &session), "no session was offered");
            CHECK(visit(two, client, tls_versions[i], &session), "%s: a session does not resume", tls_name(tls_versions[i]));
            pid = check_fork();
            if (pid == 0) {
                CHECK(visit(one, client, tls_versions[i], &session), "%s: not in a child", tls_name(tls_versions[i]));
                exit(0);
            }
            check_wait(pid, "a child");
            SSL_SESSION_free(session);
        }
        SSL_CTX_free(one);
        SSL_CTX_free(two);
        SSL_CTX_free(client);
    }
}

static int has_default_sha256(void)
{
    EVP_MD *digest = EVP_MD_fetch(NULL, "SHA2-256", NULL);
    int has = digest != NULL;

    EVP_MD_free(digest);
    ERR_clear_error();
    return has;
}

static void sessions_resume_where_the_default_context_is_empty(const char *scratch)
{
    CHECK(OSSL_PROVIDER_load(NULL, "null") != NULL, "no null provider");
    CHECK(!has_default_sha256(), "the default context has algorithms: this shows nothing");
    own = OSSL_LIB_CTX_new();
    CHECK(own != NULL, "no library context");
    expect_resumptions(store_in(scratch));
}

static void sessions_resume_where_a_fips_module_is_demanded_and_missing(const char *scratch)
{
    char *path = path_in(scratch, "openssl.cnf");
    FILE *file = fopen(path, "w");

    CHECK(file != NULL && fputs("openssl_conf = init\n[init]\nalg_section = evp\n[evp]\ndefault_properties = fips=yes\n", file) >= 0 &&
          fclose(file) == 0 && setenv("OPENSSL_CONF", path, 1) == 0, "no configuration");
    CHECK(!has_default_sha256(), "the configuration is not obeyed: this shows nothing");
    own = OSSL_LIB_CTX_new();
    CHECK(own != NULL, "no library context");
    expect_resumptions(store_in(scratch));
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(sessions_resume_where_the_default_context_is_empty),
        TEST(sessions_resume_where_a_fips_module_is_demanded_and_missing),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
