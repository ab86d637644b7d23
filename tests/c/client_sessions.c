/*
 * A program that connects to servers: a session is offered only where all that made the client trust the server still holds, and nothing
 * changed means a resumption.
 */
#include "check.h"
#include "connecting.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <unistd.h>

static void nothing_changed_is_a_resumption(const char *scratch)
{
    int n, v;

    begin(scratch, "");
    for (v = 0; v < 2; v++) {
        struct call call = {.version = tls_versions[v]};

        CHECK(visit(call).status == SESSCACHE_NOT_FOUND, "a session comes from nowhere");
        for (n = 0; n < 20; n++) {
            struct answer answer = visit(call);

            CHECK(answer.status == SESSCACHE_OK && answer.resumed, "%s: visit %d is not resumed", tls_name(call.version), n + 2);
        }
    }
    CHECK(tls_stats(cache).client_hits == 40 && tls_stats(cache).client_misses == 2, "client_hits %llu, client_misses %llu",
          (unsigned long long)tls_stats(cache).client_hits, (unsigned long long)tls_stats(cache).client_misses);
    CHECK(tls_stats(cache).hits == 0 && tls_stats(cache).misses_absent == 0, "a client's lookups count as a server's");
}

/* What may be changed alone. */
static void other_name(SSL *ssl) { SSL_set_tlsext_host_name(ssl, "other.example"); }
static void no_name(SSL *ssl) { SSL_set_tlsext_host_name(ssl, NULL); }
static void two_hosts(SSL *ssl) { SSL_add1_host(ssl, "other.example"); }
static void any_host(SSL *ssl) { SSL_set1_host(ssl, NULL); }
static void host_flags(SSL *ssl) { SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS); }
static void depth(SSL *ssl) { SSL_set_verify_depth(ssl, 3); }
static void flags(SSL *ssl) { X509_VERIFY_PARAM_set_flags(SSL_get0_param(ssl), X509_V_FLAG_X509_STRICT); }
static void flags_of_store(SSL_CTX *ctx) { X509_STORE_set_flags(SSL_CTX_get_cert_store(ctx), X509_V_FLAG_PARTIAL_CHAIN); }
static void level(SSL *ssl) { SSL_set_security_level(ssl, 0); }
static void ciphers(SSL *ssl) { SSL_set_cipher_list(ssl, "ECDHE+AESGCM"); }
static void options(SSL *ssl) { SSL_set_options(ssl, SSL_OP_NO_RENEGOTIATION); }
static void range(SSL *ssl) { SSL_set_max_proto_version(ssl, TLS1_2_VERSION); }
static void status(SSL *ssl) { SSL_set_tlsext_status_type(ssl, TLSEXT_STATUSTYPE_ocsp); }
static void certificate(SSL *ssl) { tls_show(ssl, CLIENT_P256); }
static void other_certificate(SSL *ssl) { tls_show(ssl, CLIENT_RSA); }
static void verifies(SSL *ssl) { SSL_set_verify(ssl, SSL_VERIFY_PEER, NULL); }
static void verifies_not(SSL *ssl) { SSL_set_verify(ssl, SSL_VERIFY_NONE, NULL); }

static const struct {
    const char *name;
    struct call changed;
} changes[] = {
    {"the peer", {.peer = "mail.example:587"}},
    {"the server name", {.prepare = other_name}},
    {"no server name", {.prepare = no_name}},
    {"an expected name more", {.prepare = two_hosts}},
    {"no expected name", {.prepare = any_host}},
    {"flags of names", {.prepare = host_flags}},
    {"the depth of chains", {.prepare = depth}},
    {"flags of verification", {.prepare = flags}},
    {"flags of the store of certificates", {.prepare_ctx = flags_of_store}},
    {"the security level", {.prepare = level}},
    {"ciphers", {.prepare = ciphers}},
    {"options", {.prepare = options}},
    {"a range of versions", {.prepare = range}},
    {"the stapled status", {.prepare = status}},
    {"a client certificate", {.prepare = certificate}},
    {"another client certificate", {.prepare = other_certificate}},
    {"no verification", {.no_verify = 1, .prepare = verifies_not}},
};

static void what_decides_on_trust_ends_resumption_when_it_changes(const char *scratch)
{
    size_t n;

    begin(scratch, "");
    for (n = 0; n < TESTS(changes); n++) {
        struct call as_ever = {0}, changed = changes[n].changed;
        int round;

        /* In both directions, and back: what is unchanged resumes on either side. */
        CHECK_OK(sesscache_flush(cache));
        for (round = 0; round < 2; round++) {
            struct answer first = visit(round == 0 ? as_ever : changed), second = visit(round == 0 ? changed : as_ever);

            CHECK(round == 1 || (!first.resumed && !second.resumed), "%s: resumed across the change", changes[n].name);
            CHECK(round == 0 || (first.resumed && second.resumed), "%s: what is unchanged does not resume", changes[n].name);
        }
        CHECK_OK(sesscache_flush(cache));
        CHECK(!visit(changed).resumed && !visit(as_ever).resumed, "%s: resumed across the change back", changes[n].name);
    }
}

/* A connection is used for one server after another, as a mail server that tries the next host does. */
static void what_was_offered_to_one_server_is_withdrawn_before_the_next(const char *scratch)
{
    int v;

    begin(scratch, "");
    for (v = 0; v < 2; v++) {
        struct call call = {.version = tls_versions[v]};
        SSL_CTX *ctx = client_ctx(&call);
        struct ends ends;

        visit_with(ctx, call);
        ends = connect_ends(ctx);
        CHECK_OK(sesscache_resume(cache, ends.client, PEER));
        SSL_set1_host(ends.client, "other.example");
        CHECK(sesscache_resume(cache, ends.client, "other.example:465") == SESSCACHE_NOT_FOUND, "a session of nobody");
        CHECK(SSL_get0_session(ends.client) == NULL && !talk(ends), "the session with one server is offered to another");
        ERR_clear_error();
        free_ends(ends);
        visit_with(ctx, call);
        ends = connect_ends(ctx);
        CHECK_OK(sesscache_resume(cache, ends.client, PEER));
        CHECK(sesscache_resume(cache, ends.client, NULL) == SESSCACHE_INVALID && SSL_get0_session(ends.client) == NULL,
              "what is refused leaves a session behind");
        free_ends(ends);
        SSL_CTX_free(ctx);
    }
}

static void a_server_that_was_not_verified_is_not_trusted_later(const char *scratch)
{
    int v;

    begin(scratch, "");
    for (v = 0; v < 2; v++) {
        struct call blind = {.version = tls_versions[v], .no_verify = 1, .without_trust = 1}, verifying = {.version = tls_versions[v]};

        CHECK(!visit(blind).resumed && visit(blind).resumed, "a client that verifies nothing does not resume");
        CHECK(!visit(verifying).resumed, "the session of a server that nobody has verified is resumed");
        CHECK(visit(verifying).resumed, "the verified one does not resume");
        verifying.without_trust = 1;
        verifying.expected_failure = 1;
        CHECK(visit(verifying).failed, "a server is trusted for the session that others have with it");
    }
}

static X509 *an_authority(void)
{
    return tls_credentials(CLIENT_RSA)->certificate;
}

static void one_authority_more(SSL_CTX *ctx)
{
    X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), an_authority());
}

static void an_authority_that_is_withdrawn_ends_resumption_and_one_more_does_not(const char *scratch)
{
    int v;

    begin(scratch, "");
    for (v = 0; v < 2; v++) {
        struct call call = {.version = tls_versions[v]};

        CHECK(!visit(call).resumed, "a session comes from nowhere");
        call.prepare_ctx = one_authority_more;
        CHECK(visit(call).resumed, "one more authority ends resumption");
        call.without_trust = 1;
        call.expected_failure = 1;
        CHECK(visit(call).failed, "the session of an authority that was withdrawn is resumed");
        call.without_trust = call.expected_failure = 0;
        CHECK(visit(call).resumed, "the authority is back, and nothing resumes");
    }
}

static char directory[PATH_MAX];

static void from_directory(SSL_CTX *ctx)
{
    CHECK(SSL_CTX_load_verify_dir(ctx, directory) == 1, "no directory of certificates");
}

static void a_directory_of_certificates_is_read_anew(const char *scratch)
{
    X509 *own = tls_credentials(SERVER_P256)->certificate;
    struct call call = {.prepare_ctx = from_directory, .without_trust = 1};
    char path[PATH_MAX + 32];
    FILE *file;

    begin(scratch, "");
    snprintf(directory, sizeof directory, "%s/authorities", scratch);
    CHECK(mkdir(directory, 0700) == 0, "no directory");
    snprintf(path, sizeof path, "%s/%08lx.0", directory, X509_subject_name_hash(own));
    file = fopen(path, "w");
    CHECK(file != NULL && PEM_write_X509(file, own) == 1 && fclose(file) == 0, "no certificate in the directory");
    CHECK(!visit(call).resumed && visit(call).resumed && visit(call).resumed, "an authority in a directory does not serve");
    CHECK(unlink(path) == 0, "the certificate stays");
    call.expected_failure = 1;
    CHECK(visit(call).failed, "the session of an authority that was deleted is resumed");
}

static int accept_all(int ok, X509_STORE_CTX *ctx)
{
    (void)ok;
    (void)ctx;
    return 1;
}

static int no_certificate(SSL *ssl, X509 **x, EVP_PKEY **key)
{
    (void)ssl;
    (void)x;
    (void)key;
    return 0;
}

static void verify_callback(SSL *ssl) { SSL_set_verify(ssl, SSL_VERIFY_PEER, accept_all); }
static void certificate_callback(SSL_CTX *ctx) { SSL_CTX_set_client_cert_cb(ctx, no_certificate); }
static void crl(SSL *ssl) { X509_VERIFY_PARAM_set_flags(SSL_get0_param(ssl), X509_V_FLAG_CRL_CHECK); verifies_not(ssl); }
static void transparency(SSL *ssl) { verifies_not(ssl); CHECK(SSL_enable_ct(ssl, SSL_CT_VALIDATION_PERMISSIVE) == 1, "no CT"); }
static void dane_ctx(SSL_CTX *ctx) { CHECK(SSL_CTX_dane_enable(ctx) == 1, "no DANE"); }

static void dane(SSL *ssl)
{
    unsigned char hash[EVP_MAX_MD_SIZE];
    unsigned int len;

    CHECK(X509_pubkey_digest(tls_credentials(SERVER_P256)->certificate, EVP_sha256(), hash, &len) == 1, "no digest");
    X509_digest(tls_credentials(SERVER_P256)->certificate, EVP_sha256(), hash, &len);
    CHECK(SSL_dane_enable(ssl, "localhost") == 1 && SSL_dane_tlsa_add(ssl, 3, 0, 1, hash, len) == 1, "no DANE");
}

static int verify_step(int ok, X509_STORE_CTX *ctx) { (void)ctx; return ok; }
static int check_revocation(X509_STORE_CTX *ctx) { (void)ctx; return 1; }
static int accept_status(SSL *ssl, void *data) { (void)ssl; (void)data; return 1; }
static int allow_all(const SSL *ssl, const SSL_CTX *ctx, int op, int bits, int nid, void *other, void *data)
{
    (void)ssl, (void)ctx, (void)op, (void)bits, (void)nid, (void)other, (void)data;
    return 1;
}
static void store_callback(SSL_CTX *ctx) { X509_STORE_set_verify_cb(SSL_CTX_get_cert_store(ctx), verify_step); }
static void store_revocation(SSL_CTX *ctx) { X509_STORE_set_check_revocation(SSL_CTX_get_cert_store(ctx), check_revocation); }
static void security_callback(SSL_CTX *ctx) { SSL_CTX_set_security_callback(ctx, allow_all); }
static void status_callback(SSL_CTX *ctx)
{
    SSL_CTX_set_tlsext_status_type(ctx, TLSEXT_STATUSTYPE_ocsp);
    SSL_CTX_set_tlsext_status_cb(ctx, accept_status);
}

static const struct {
    const char *name;
    struct call call;
} unreadable[] = {
    {"a callback of the store of certificates", {.prepare_ctx = store_callback}},
    {"a check of revocation", {.prepare_ctx = store_revocation}},
    {"a security callback", {.prepare_ctx = security_callback}},
    {"a callback for the stapled status", {.prepare_ctx = status_callback}},
    {"a verify callback", {.prepare = verify_callback}},
    {"a callback for the client's certificate", {.prepare_ctx = certificate_callback}},
    {"revocation lists", {.prepare = crl, .no_verify = 1}},
    {"certificate transparency", {.prepare = transparency, .no_verify = 1}},
    {"DANE", {.prepare_ctx = dane_ctx, .prepare = dane}},
};

static void what_cannot_be_read_needs_a_policy(const char *scratch)
{
    size_t n;

    for (n = 0; n < TESTS(unreadable); n++) {
        begin(scratch, "");
        CHECK(visit(unreadable[n].call).status == SESSCACHE_INVALID, "%s needs no policy", unreadable[n].name);
        CHECK(strstr(sesscache_errmsg(), "policy=TEXT") != NULL, "no cure: %s", sesscache_errmsg());
        CHECK(visit(unreadable[n].call).status == SESSCACHE_INVALID && tls_stats(cache).sessions == 0, "%s: stored all the same",
              unreadable[n].name);
        sesscache_close(cache);
        begin(scratch, "policy=one");
        CHECK(!visit(unreadable[n].call).resumed && visit(unreadable[n].call).resumed, "%s: not resumed with a policy", unreadable[n].name);
        sesscache_close(cache);
        begin(scratch, "policy=two");
        CHECK(!visit(unreadable[n].call).resumed, "%s: resumed under another policy", unreadable[n].name);
        CHECK_OK(sesscache_flush(cache));
        sesscache_close(cache);
    }
}

static void namespaces_and_applications_see_nothing_of_it(const char *scratch)
{
    begin(scratch, "namespace=a");
    CHECK(!visit((struct call){0}).resumed, "a session comes from nowhere");
    sesscache_close(cache);
    begin(scratch, "namespace=b");
    CHECK(visit((struct call){0}).status == SESSCACHE_NOT_FOUND, "another namespace resumes it");
}

static int count(void *userdata, const unsigned char *id, size_t id_len, const void *data, size_t len, int64_t expires)
{
    (void)id;
    (void)id_len;
    (void)data;
    (void)len;
    (void)expires;
    ++*(int *)userdata;
    return 1;
}

static void an_application_never_gets_the_secrets_of_sessions(const char *scratch)
{
    int n = 0;

    begin(scratch, "");
    visit((struct call){0});
    CHECK_OK(sesscache_each(cache, count, &n));
    CHECK(n == 0 && tls_stats(cache).sessions > 0, "%d sessions are handed to the application", n);
}

static void a_connection_that_is_changed_later_is_not_stored(const char *scratch)
{
    begin(scratch, "");
    visit((struct call){.after = two_hosts});
    CHECK(visit((struct call){0}).status == SESSCACHE_NOT_FOUND, "a session under rules that did not hold");
}

static void verifying_again_after_none(const char *scratch)
{
    begin(scratch, "");
    visit((struct call){.no_verify = 1});
    CHECK(visit((struct call){.prepare = verifies}).status == SESSCACHE_NOT_FOUND, "the session of a blind visit is offered");
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(nothing_changed_is_a_resumption),
        TEST(what_decides_on_trust_ends_resumption_when_it_changes),
        TEST(what_was_offered_to_one_server_is_withdrawn_before_the_next),
        TEST(a_server_that_was_not_verified_is_not_trusted_later),
        TEST(verifying_again_after_none),
        TEST(an_authority_that_is_withdrawn_ends_resumption_and_one_more_does_not),
        TEST(a_directory_of_certificates_is_read_anew),
        TEST(what_cannot_be_read_needs_a_policy),
        TEST(namespaces_and_applications_see_nothing_of_it),
        TEST(an_application_never_gets_the_secrets_of_sessions),
        TEST(a_connection_that_is_changed_later_is_not_stored),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
