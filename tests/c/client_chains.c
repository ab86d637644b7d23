/*
 * A server with a chain of certificates: a session with it is offered only where its chain would be verified now with the result that
 * it had then.
 */
#include "check.h"
#include "connecting.h"

#include <openssl/x509v3.h>
#include <unistd.h>

static EVP_PKEY *root_key, *key;
static X509 *root, *leaf;
static X509_CRL *revoked;

static void extend(X509 *certificate, int nid, const char *value)
{
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, nid, value);

    CHECK(extension != NULL && X509_add_ext(certificate, extension, -1) == 1, "no extension");
    X509_EXTENSION_free(extension);
}

static X509 *issue(const char *name, EVP_PKEY *to, long seconds, const char *usage)
{
    X509 *made = X509_new();
    X509_NAME *subject = X509_get_subject_name(made);

    X509_set_version(made, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(made), 1 + (long)(usage != NULL));
    X509_gmtime_adj(X509_getm_notBefore(made), -60);
    X509_gmtime_adj(X509_getm_notAfter(made), seconds);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(made, usage == NULL ? subject : X509_get_subject_name(root));
    X509_set_pubkey(made, to);
    extend(made, NID_basic_constraints, usage == NULL ? "critical,CA:TRUE" : "CA:FALSE");
    extend(made, NID_key_usage, usage == NULL ? "critical,keyCertSign,cRLSign" : "digitalSignature");
    if (usage != NULL)
        extend(made, NID_ext_key_usage, usage);
    CHECK(X509_sign(made, root_key, EVP_sha256()) > 0, "no certificate");
    return made;
}

/* A list of nothing, or of the server's certificate. */
static X509_CRL *list(int with_leaf)
{
    X509_CRL *made = X509_CRL_new();
    ASN1_TIME *time = X509_gmtime_adj(NULL, -10);

    X509_CRL_set_version(made, X509_CRL_VERSION_2);
    X509_CRL_set_issuer_name(made, X509_get_subject_name(root));
    X509_CRL_set1_lastUpdate(made, time);
    if (with_leaf) {
        X509_REVOKED *entry = X509_REVOKED_new();

        X509_REVOKED_set_serialNumber(entry, X509_get_serialNumber(leaf));
        X509_REVOKED_set_revocationDate(entry, time);
        X509_CRL_add0_revoked(made, entry);
    }
    X509_gmtime_adj(time, 3600);
    X509_CRL_set1_nextUpdate(made, time);
    ASN1_TIME_free(time);
    CHECK(X509_CRL_sign(made, root_key, EVP_sha256()) > 0, "no list");
    return made;
}

static void begin_with_chain(const char *scratch, const char *options, long life_of_root)
{
    begin(scratch, options);
    root_key = EVP_EC_gen("P-256");
    key = EVP_EC_gen("P-256");
    root = issue("an authority", root_key, life_of_root, NULL);
    leaf = issue("localhost", key, 3600, "serverAuth");
    CHECK(SSL_CTX_use_certificate(server, leaf) == 1 && SSL_CTX_use_PrivateKey(server, key) == 1, "no chain");
}

static void trust_root(SSL_CTX *ctx)
{
    CHECK(X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), root) == 1, "no trust");
}

static void reject_root(SSL_CTX *ctx)
{
    X509 *copy = X509_dup(root);

    CHECK(X509_add1_reject_object(copy, OBJ_nid2obj(NID_server_auth)) == 1, "no rejection");
    CHECK(X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), copy) == 1, "no trust");
    X509_free(copy);
}

static void for_clients(SSL *ssl) { SSL_set_purpose(ssl, X509_PURPOSE_SSL_CLIENT); }
static void for_mail(SSL *ssl) { SSL_set_trust(ssl, X509_TRUST_EMAIL); }

static void expect_names(SSL_CTX *ctx)
{
    trust_root(ctx);
    X509_VERIFY_PARAM_set1_host(X509_STORE_get0_param(SSL_CTX_get_cert_store(ctx)), "other.example", 0);
}

static void any_names(SSL *ssl) { SSL_set1_host(ssl, NULL); }

static const struct {
    const char *name;
    struct call before, after;
} changes[] = {
    {"an authority that is rejected for servers", {.prepare_ctx = trust_root}, {.prepare_ctx = reject_root}},
    {"another purpose", {.prepare_ctx = trust_root}, {.prepare_ctx = trust_root, .prepare = for_clients}},
    {"names that the store of certificates demands", {.prepare_ctx = trust_root, .prepare = any_names},
     {.prepare_ctx = expect_names, .prepare = any_names}},
};

static void what_would_not_be_verified_now_is_not_resumed(const char *scratch)
{
    size_t n;
    int v;

    begin_with_chain(scratch, "", 3600);
    for (n = 0; n < TESTS(changes); n++) {
        for (v = 0; v < 2; v++) {
            struct call before = changes[n].before, after = changes[n].after;

            before.version = after.version = tls_versions[v];
            before.without_trust = after.without_trust = after.expected_failure = 1;
            CHECK(!visit(before).resumed && visit(before).resumed, "%s: nothing to resume", changes[n].name);
            CHECK(visit(after).failed, "%s: a server is trusted that a full handshake refuses", changes[n].name);
            CHECK(visit(before).resumed, "%s: the session is gone", changes[n].name);
            CHECK_OK(sesscache_flush(cache));
        }
    }
}

static void a_trust_that_no_certificate_has_been_given_changes_nothing(const char *scratch)
{
    struct call call = {.prepare_ctx = trust_root, .without_trust = 1, .prepare = for_mail};

    begin_with_chain(scratch, "", 3600);
    CHECK(!visit(call).resumed && visit(call).resumed, "nothing to resume");
}

static void an_authority_that_has_expired_ends_resumption(const char *scratch)
{
    int v;

    begin_with_chain(scratch, "", 3);
    for (v = 0; v < 2; v++) {
        struct call call = {.version = tls_versions[v], .prepare_ctx = trust_root, .without_trust = 1};

        CHECK(!visit(call).resumed && visit(call).resumed, "nothing to resume");
    }
    sleep(5);
    for (v = 0; v < 2; v++) {
        struct call call = {.version = tls_versions[v], .prepare_ctx = trust_root, .without_trust = 1, .expected_failure = 1};

        CHECK(visit(call).failed, "%s: a server is trusted whose authority has expired", tls_name(call.version));
    }
}

static void with_list(SSL_CTX *ctx)
{
    trust_root(ctx);
    CHECK(X509_STORE_add_crl(SSL_CTX_get_cert_store(ctx), revoked) == 1, "no list");
    X509_STORE_set_flags(SSL_CTX_get_cert_store(ctx), X509_V_FLAG_CRL_CHECK);
}

static void a_certificate_that_is_revoked_meanwhile_ends_resumption(const char *scratch)
{
    struct call call = {.prepare_ctx = with_list, .without_trust = 1};

    begin_with_chain(scratch, "policy=lists", 3600);
    revoked = list(0);
    CHECK(!visit(call).resumed && visit(call).resumed, "nothing to resume");
    X509_CRL_free(revoked);
    revoked = list(1);
    call.expected_failure = 1;
    CHECK(visit(call).failed, "a server is trusted whose certificate is revoked");
}

/* Who verifies nothing may still look at SSL_get_verify_result(). */
static void a_client_that_demands_nothing_gets_the_result_of_now(const char *scratch)
{
    int v, n;

    begin_with_chain(scratch, "", 3600);
    for (v = 0; v < 2; v++) {
        struct call blind = {.version = tls_versions[v], .no_verify = 1, .without_trust = 1};
        struct call sees = blind;
        SSL_CTX *ctx;
        struct ends ends;

        sees.prepare_ctx = trust_root;
        CHECK(!visit(blind).resumed && visit(blind).resumed, "nothing to resume");
        for (n = 0; n < 2; n++) {
            ctx = client_ctx(n == 0 ? &sees : &blind);
            ends = connect_ends(ctx);
            (void)sesscache_resume(cache, ends.client, PEER);
            CHECK(talk(ends), "no connection");
            CHECK((SSL_get_verify_result(ends.client) == X509_V_OK) == (n == 0), "%s: the result is that of another client",
                  tls_name(sees.version));
            free_ends(ends);
            SSL_CTX_free(ctx);
        }
        CHECK_OK(sesscache_flush(cache));
    }
}

static void many_authorities(SSL_CTX *ctx)
{
    CHECK(SSL_CTX_load_verify_file(ctx, "/etc/ssl/certs/ca-certificates.crt") == 1, "no authorities");
}

static void a_client_that_demands_nothing_resumes_with_many_authorities(const char *scratch)
{
    struct call call = {.no_verify = 1, .without_trust = 1, .prepare_ctx = many_authorities};

    if (access("/etc/ssl/certs/ca-certificates.crt", R_OK) != 0)
        exit(CHECK_NOT_TRIED);
    begin_with_chain(scratch, "", 3600);
    CHECK(!visit(call).resumed && visit(call).resumed && visit(call).resumed, "nothing resumes");
}

/* A data connection that trusts less than its control connection. */
static void a_data_connection_trusts_for_itself(const char *scratch)
{
    int v;

    begin_with_chain(scratch, "", 3600);
    for (v = 0; v < 2; v++) {
        struct call call = {.version = tls_versions[v], .without_trust = 1, .prepare_ctx = trust_root};
        SSL_CTX *ctx = client_ctx(&call), *less;
        struct ends control = connect_ends(ctx), data;

        call.prepare_ctx = NULL;
        less = client_ctx(&call);
        (void)sesscache_resume(cache, control.client, PEER);
        CHECK(sesscache_resume_from(control.client, control.client) == SESSCACHE_INVALID, "a connection goes back to itself");
        CHECK_OK(sesscache_resume(cache, control.client, PEER) == SESSCACHE_NOT_FOUND ? SESSCACHE_OK : SESSCACHE_BUG);
        data = connect_ends(less);
        CHECK(sesscache_resume_from(data.client, control.client) == SESSCACHE_INVALID, "a control connection before its handshake");
        CHECK(talk(control), "no control connection");
        CHECK(sesscache_resume_from(data.client, control.client) == SESSCACHE_NOT_FOUND, "%s: %s", tls_name(call.version),
              "a session is offered that the connection does not trust");
        CHECK(!talk(data), "a server is trusted for the session of another connection");
        ERR_clear_error();
        free_ends(data);
        free_ends(control);
        SSL_CTX_free(less);
        SSL_CTX_free(ctx);
    }
}

static unsigned int identify(SSL *ssl, const char *hint, char *identity, unsigned int room, unsigned char *psk, unsigned int len)
{
    (void)ssl;
    (void)hint;
    CHECK(room > 6 && len >= 16, "no room");
    strcpy(identity, "alice");
    memset(psk, 7, 16);
    return 16;
}

static unsigned int accept_alice(SSL *ssl, const char *identity, unsigned char *psk, unsigned int len)
{
    (void)ssl;
    (void)len;
    memset(psk, 7, 16);
    return strcmp(identity, "alice") == 0 ? 16 : 0;
}

static void with_key(SSL_CTX *ctx)
{
    CHECK(X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), tls_credentials(CLIENT_RSA)->certificate) == 1, "no trust");
    SSL_CTX_set_psk_client_callback(ctx, identify);
    CHECK(SSL_CTX_set_cipher_list(ctx, "kRSAPSK:@SECLEVEL=0") == 1, "no cipher");
}

static void a_key_that_both_know_is_no_session_without_a_policy(const char *scratch)
{
    struct call call = {.version = TLS1_2_VERSION, .without_trust = 1, .prepare_ctx = with_key, .prepare = any_names};
    int n;

    for (n = 0; n < 2; n++) {
        begin(scratch, n == 0 ? "" : "policy=alice");
        SSL_CTX_use_certificate(server, tls_credentials(CLIENT_RSA)->certificate);
        SSL_CTX_use_PrivateKey(server, tls_credentials(CLIENT_RSA)->key);
        SSL_CTX_set_psk_server_callback(server, accept_alice);
        CHECK(SSL_CTX_set_cipher_list(server, "kRSAPSK:@SECLEVEL=0") == 1, "no cipher");
        CHECK(!visit(call).resumed && visit(call).resumed == n, "a session of whoever knows the key, %s policy", n == 0 ? "without" : "with");
        sesscache_close(cache);
    }
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(what_would_not_be_verified_now_is_not_resumed),
        TEST(a_trust_that_no_certificate_has_been_given_changes_nothing),
        TEST(an_authority_that_has_expired_ends_resumption),
        TEST(a_certificate_that_is_revoked_meanwhile_ends_resumption),
        TEST(a_client_that_demands_nothing_gets_the_result_of_now),
        TEST(a_client_that_demands_nothing_resumes_with_many_authorities),
        TEST(a_data_connection_trusts_for_itself),
        TEST(a_key_that_both_know_is_no_session_without_a_policy),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
