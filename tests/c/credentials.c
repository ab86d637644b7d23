/*
 * Keys and certificates for both ends of the tests' connections: see tls.h.
 */
#include "tls.h"

#include <openssl/evp.h>
#include <openssl/x509v3.h>
#include <pthread.h>

static pthread_mutex_t making = PTHREAD_MUTEX_INITIALIZER;
static struct credentials made[CREDENTIALS];

static const struct {
    const char *name;
    int rsa;
    size_t comment;     /* bytes of a comment that makes the certificate larger */
} kinds[CREDENTIALS] = {
    [SERVER_P256] = {"localhost", 0, 0},
    [CLIENT_P256] = {"client", 0, 0},
    [CLIENT_RSA] = {"client with RSA", 1, 1000},
    [CLIENT_6KB] = {"client with a large certificate", 0, 5700},
};

static void add_comment(X509 *certificate, size_t len)
{
    char *text = malloc(len + 1);
    X509_EXTENSION *extension;

    CHECK(text != NULL, "out of memory");
    memset(text, 'x', len);
    text[len] = '\0';
    extension = X509V3_EXT_conf_nid(NULL, NULL, NID_netscape_comment, text);
    CHECK(extension != NULL && X509_add_ext(certificate, extension, -1) == 1, "no comment for a certificate");
    X509_EXTENSION_free(extension);
    free(text);
}

static void make(struct credentials *to, enum credential kind)
{
    EVP_PKEY *key = kinds[kind].rsa ? EVP_RSA_gen(2048) : EVP_EC_gen("P-256");
    X509 *certificate = X509_new();
    X509_NAME *name = X509_NAME_new();

    CHECK(key != NULL && certificate != NULL && name != NULL, "no key for %s", kinds[kind].name);
    CHECK(X509_set_version(certificate, 2) == 1 &&
          ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1 + (long)kind) == 1 &&
          X509_gmtime_adj(X509_getm_notBefore(certificate), -3600) != NULL &&
          X509_gmtime_adj(X509_getm_notAfter(certificate), 86400) != NULL &&
          X509_set_pubkey(certificate, key) == 1 &&
          X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)kinds[kind].name, -1, -1, 0) == 1 &&
          X509_set_subject_name(certificate, name) == 1 && X509_set_issuer_name(certificate, name) == 1,
          "no certificate for %s", kinds[kind].name);
    X509_NAME_free(name);
    if (kinds[kind].comment > 0)
        add_comment(certificate, kinds[kind].comment);
    CHECK(X509_sign(certificate, key, EVP_sha256()) > 0, "no certificate for %s", kinds[kind].name);
    to->key = key;
    to->certificate = certificate;
}

const struct credentials *tls_credentials(enum credential kind)
{
    CHECK(pthread_mutex_lock(&making) == 0, "pthread_mutex_lock");
    if (made[kind].key == NULL)
        make(&made[kind], kind);
    CHECK(pthread_mutex_unlock(&making) == 0, "pthread_mutex_unlock");
    return &made[kind];
}

void tls_show(SSL *client, enum credential kind)
{
    const struct credentials *own = tls_credentials(kind);

    CHECK(SSL_use_certificate(client, own->certificate) == 1 && SSL_use_PrivateKey(client, own->key) == 1,
          "the client cannot use its certificate");
}

static int accept_anybody(int ok, X509_STORE_CTX *store)
{
    (void)ok;
    (void)store;
    return 1;
}

void tls_ask(SSL *server, int mode)
{
    SSL_set_verify(server, mode, mode != SSL_VERIFY_NONE ? accept_anybody : NULL);
}
