/*
 * A program that connects to servers: a session is offered only where all that made the client trust the server still holds,
 * a ticket of TLS 1.3 once over all processes, and nothing changed means a resumption, in any process.
 */
#include "check.h"
#include "tls.h"
#include "workers.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <sys/mman.h>
#include <unistd.h>

#define PEER "mail.example:465"

/* One visit. Whatever is left zero is as in every other. */
struct call {
    int version;                        /* 0: both */
    const char *peer;
    void (*prepare_ctx)(SSL_CTX *);
    void (*prepare)(SSL *);
    void (*after)(SSL *);               /* called between sesscache_resume and the handshake */
    int without_trust;                  /* the store of certificates is empty */
    int no_verify;
    int break_off;                      /* the handshake does not come to its end */
    int expected_failure;
};

struct answer {
    sesscache_status status;
    int resumed;
    int failed;
    char ticket[2 * EVP_MAX_MD_SIZE + 1];   /* hash of the ticket that was offered, for TLS 1.3 */
};

static sesscache *cache;
static SSL_CTX *server;

static SSL_CTX *client_ctx(const struct call *call)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

    CHECK(ctx != NULL, "no SSL_CTX");
    if (call->version != 0) {
        SSL_CTX_set_min_proto_version(ctx, call->version);
        SSL_CTX_set_max_proto_version(ctx, call->version);
    }
    SSL_CTX_set_verify(ctx, call->no_verify ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, NULL);
    if (!call->without_trust)
        CHECK(X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), tls_credentials(SERVER_P256)->certificate) == 1, "no trust");
    CHECK_OK(sesscache_attach_client(cache, ctx));
    if (call->prepare_ctx != NULL)
        call->prepare_ctx(ctx);
    return ctx;
}

/* Both ends take turns until neither has anything to do. Returns whether both handshakes came to their ends. */
static int talk(SSL *client, SSL *at_server)
{
    char byte;
    int round, done = 0;

    for (round = 0; round < 40; round++) {
        int a = SSL_do_handshake(client), b = SSL_do_handshake(at_server);

        if (a == 1 && b == 1 && !done) {
            done = 1;
            CHECK(SSL_write(at_server, "x", 1) == 1, "the server cannot write");
        }
        if (done && SSL_read(client, &byte, 1) == 1)
            return 1;
        if ((a != 1 && SSL_get_error(client, a) != SSL_ERROR_WANT_READ) ||
            (b != 1 && SSL_get_error(at_server, b) != SSL_ERROR_WANT_READ))
            return 0;
    }
    return 0;
}

static void note_ticket(SSL *client, struct answer *answer)
{
    const unsigned char *ticket = NULL;
    unsigned char hash[EVP_MAX_MD_SIZE];
    unsigned int len, n;
    size_t ticket_len = 0;
    SSL_SESSION *session = SSL_get0_session(client);

    if (session == NULL || SSL_SESSION_get_protocol_version(session) != TLS1_3_VERSION)
        return;
    SSL_SESSION_get0_ticket(session, &ticket, &ticket_len);
    CHECK(EVP_Digest(ticket, ticket_len, hash, &len, EVP_sha256(), NULL) == 1, "no hash");
    for (n = 0; n < len; n++)
        sprintf(answer->ticket + 2 * n, "%02x", hash[n]);
}

static struct answer visit_with(SSL_CTX *ctx, struct call call)
{
    struct answer answer = {0};
    SSL *client = SSL_new(ctx), *at_server = SSL_new(server);
    BIO *one, *other;

    CHECK(client != NULL && at_server != NULL && BIO_new_bio_pair(&one, 0, &other, 0) == 1, "no connection");
    SSL_set_bio(client, one, one);
    SSL_set_bio(at_server, other, other);
    SSL_set_accept_state(at_server);
    SSL_set_connect_state(client);
    SSL_set_tlsext_host_name(client, "localhost");
    SSL_set1_host(client, "localhost");
    if (call.prepare != NULL)
        call.prepare(client);
    answer.status = sesscache_resume(cache, client, call.peer != NULL ? call.peer : PEER);
    if (call.after != NULL)
        call.after(client);
    if (answer.status == SESSCACHE_OK)
        note_ticket(client, &answer);
    if (call.break_off) {
        SSL_do_handshake(client);
    } else {
        answer.failed = !talk(client, at_server);
        CHECK(answer.failed == call.expected_failure, "the handshake %s",
              answer.failed ? ERR_error_string(ERR_peek_error(), NULL) : "should have failed");
        answer.resumed = !answer.failed && SSL_session_reused(client);
        CHECK(answer.failed || call.no_verify || SSL_get_verify_result(client) == X509_V_OK, "the result of verification is lost");
        SSL_shutdown(client);
        SSL_shutdown(at_server);
    }
    ERR_clear_error();
    SSL_free(client);
    SSL_free(at_server);
    return answer;
}

static struct answer visit(struct call call)
{
    SSL_CTX *ctx = client_ctx(&call);
    struct answer answer = visit_with(ctx, call);

    SSL_CTX_free(ctx);
    return answer;
}

static void begin(const char *scratch, const char *options)
{
    CHECK_OK(sesscache_open(store_in(scratch), options, &cache));
    server = tls_server();
    /* Stateless tickets, as most servers give them; their keys are those of this SSL_CTX, also in children. */
    SSL_CTX_set_session_cache_mode(server, SSL_SESS_CACHE_OFF);
}

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

static const struct {
    const char *name;
    struct call call;
} unreadable[] = {
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

static void forgotten_means_forgotten(const char *scratch)
{
    int v;

    begin(scratch, "");
    for (v = 0; v < 2; v++) {
        struct call call = {.version = tls_versions[v]};

        visit(call);
        CHECK(visit(call).resumed, "nothing to forget");
        {
            SSL_CTX *ctx = client_ctx(&call);
            SSL *client = SSL_new(ctx);

            SSL_set_tlsext_host_name(client, "localhost");
            SSL_set1_host(client, "localhost");
            CHECK_OK(sesscache_resume(cache, client, PEER));
            CHECK_OK(sesscache_forget(client));
            SSL_free(client);
            SSL_CTX_free(ctx);
        }
        CHECK(visit(call).status == SESSCACHE_NOT_FOUND, "%s: a session is left", tls_name(call.version));
    }
}

static void misuse_is_refused_with_its_cure(const char *scratch)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_method()), *plain = SSL_CTX_new(TLS_client_method());
    SSL *ssl;

    begin(scratch, "");
    CHECK_OK(sesscache_attach_client(cache, ctx));
    CHECK_OK(sesscache_attach_client(cache, ctx));
    CHECK_OK(sesscache_attach(cache, ctx));
    ssl = SSL_new(ctx);
    CHECK(sesscache_resume(cache, ssl, PEER) == SESSCACHE_INVALID && strstr(sesscache_errmsg(), "SSL_set_connect_state"), "%s",
          sesscache_errmsg());
    SSL_set_connect_state(ssl);
    CHECK(sesscache_resume(cache, ssl, PEER) == SESSCACHE_NOT_FOUND, "%s", sesscache_errmsg());
    CHECK(sesscache_resume(cache, ssl, "") == SESSCACHE_INVALID && sesscache_resume(cache, ssl, NULL) == SESSCACHE_INVALID, "no peer");
    SSL_free(ssl);
    CHECK_OK(sesscache_detach(ctx));
    CHECK(SSL_CTX_sess_get_new_cb(ctx) == NULL && SSL_CTX_get_session_cache_mode(ctx) == SSL_SESS_CACHE_SERVER, "not as before");
    CHECK(sesscache_detach(ctx) == SESSCACHE_NOT_FOUND, "detached twice");
    ssl = SSL_new(plain);
    CHECK(sesscache_resume(cache, ssl, PEER) == SESSCACHE_INVALID && strstr(sesscache_errmsg(), "sesscache_attach_client"), "%s",
          sesscache_errmsg());
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    SSL_CTX_free(plain);
}

static void a_session_with_which_no_handshake_ends_is_not_offered_again(const char *scratch)
{
    struct call call = {.version = TLS1_2_VERSION};

    begin(scratch, "");
    visit(call);
    call.break_off = 1;
    CHECK(visit(call).status == SESSCACHE_OK, "nothing is offered");
    call.break_off = 0;
    CHECK(visit(call).status == SESSCACHE_NOT_FOUND, "a session that may have broken the handshake is offered again");
    CHECK(visit(call).resumed, "and nothing resumes any more");
}

static void as_many_tickets_are_kept_as_the_option_says(const char *scratch)
{
    int n;

    begin(scratch, "client_tickets=2");
    SSL_CTX_set_num_tickets(server, 8);
    CHECK(!visit((struct call){0}).resumed && tls_stats(cache).sessions == 2, "%llu sessions are kept",
          (unsigned long long)tls_stats(cache).sessions);
    SSL_CTX_set_num_tickets(server, 0);
    for (n = 0; n < 3; n++)
        CHECK(visit((struct call){0}).resumed == (n < 2), "visit %d", n + 2);
}

static int hold_all(SSL *ssl, SSL_SESSION *session)
{
    (void)ssl;
    (void)session;
    return 0;
}

static void a_host_with_a_callback_of_its_own_keeps_it(const char *scratch)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

    begin(scratch, "");
    SSL_CTX_sess_set_new_cb(ctx, hold_all);
    CHECK(sesscache_attach_client(cache, ctx) == SESSCACHE_INVALID && SSL_CTX_sess_get_new_cb(ctx) == hold_all, "the callback is gone");
    SSL_CTX_free(ctx);
}

#define PROCESSES 8
#define VISITS 250

/* Full handshakes, and every ticket that was offered. */
struct seen {
    int full[PROCESSES], hits[PROCESSES];
    char tickets[PROCESSES][VISITS][65];
};

static int by_text(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void processes_share_tickets_and_offer_none_twice(const char *scratch)
{
    struct seen *seen = mmap(NULL, sizeof *seen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int p, n, full = 0, all = 0;
    static char sorted[PROCESSES * VISITS][65];

    /* One that waits for the others for longer than the deadline goes on without a ticket, or without storing one. */
    begin(scratch, "deadline=10s");
    CHECK(seen != MAP_FAILED, "no memory");
    visit((struct call){0});
    for (p = 0; p < PROCESSES; p++) {
        if (fork() == 0) {
            struct call call = {0};
            SSL_CTX *ctx = client_ctx(&call);

            for (n = 0; n < VISITS; n++) {
                struct answer answer = visit_with(ctx, call);

                seen->full[p] += !answer.resumed;
                memcpy(seen->tickets[p][n], answer.ticket, 65);
            }
            _exit(0);
        }
    }
    for (p = 0; p < PROCESSES; p++) {
        int status;

        CHECK(wait(&status) > 0 && status == 0, "a process fails");
    }
    for (p = 0; p < PROCESSES; p++) {
        full += seen->full[p];
        for (n = 0; n < VISITS; n++)
            if (seen->tickets[p][n][0] != '\0')
                memcpy(sorted[all++], seen->tickets[p][n], 65);
    }
    qsort(sorted, (size_t)all, 65, by_text);
    for (n = 1; n < all; n++)
        CHECK(strcmp(sorted[n - 1], sorted[n]) != 0, "a ticket is offered twice");
    /* A ticket that could not be stored in time ends its chain. */
    CHECK((unsigned long long)full <= PROCESSES + tls_stats(cache).client_puts_failed,
          "%d full handshakes of %d processes, %llu tickets not stored", full, PROCESSES,
          (unsigned long long)tls_stats(cache).client_puts_failed);
    munmap(seen, sizeof *seen);
}

/* Two ends that stay connected, as a control connection of FTPS does. */
static void a_data_connection_goes_back_to_its_control_connection(const char *scratch)
{
    int v, n;

    begin(scratch, "");
    for (v = 0; v < 2; v++) {
        struct call call = {.version = tls_versions[v]};
        SSL_CTX *ctx = client_ctx(&call);
        SSL *control = SSL_new(ctx), *at_server = SSL_new(server);
        BIO *one, *other;

        CHECK(BIO_new_bio_pair(&one, 0, &other, 0) == 1, "no connection");
        SSL_set_bio(control, one, one);
        SSL_set_bio(at_server, other, other);
        SSL_set_accept_state(at_server);
        SSL_set_connect_state(control);
        SSL_set_tlsext_host_name(control, "localhost");
        SSL_set1_host(control, "localhost");
        (void)sesscache_resume(cache, control, PEER);
        CHECK(talk(control, at_server), "no control connection");
        for (n = 0; n < 10; n++) {
            SSL *data = SSL_new(ctx), *data_server = SSL_new(server);

            CHECK(BIO_new_bio_pair(&one, 0, &other, 0) == 1, "no connection");
            SSL_set_bio(data, one, one);
            SSL_set_bio(data_server, other, other);
            SSL_set_accept_state(data_server);
            SSL_set_connect_state(data);
            SSL_set_tlsext_host_name(data, "localhost");
            CHECK(sesscache_resume_from(data, control) == SESSCACHE_INVALID && strstr(sesscache_errmsg(), "expected names"), "%s",
                  sesscache_errmsg());
            SSL_set1_host(data, "localhost");
            CHECK_OK(sesscache_resume_from(data, control));
            CHECK(talk(data, data_server) && SSL_session_reused(data), "%s: data connection %d is not resumed",
                  tls_name(call.version), n);
            SSL_shutdown(data);
            SSL_free(data);
            SSL_free(data_server);
        }
        SSL_free(control);
        SSL_free(at_server);
        SSL_CTX_free(ctx);
    }
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
        TEST(a_server_that_was_not_verified_is_not_trusted_later),
        TEST(verifying_again_after_none),
        TEST(an_authority_that_is_withdrawn_ends_resumption_and_one_more_does_not),
        TEST(a_directory_of_certificates_is_read_anew),
        TEST(what_cannot_be_read_needs_a_policy),
        TEST(namespaces_and_applications_see_nothing_of_it),
        TEST(an_application_never_gets_the_secrets_of_sessions),
        TEST(a_connection_that_is_changed_later_is_not_stored),
        TEST(forgotten_means_forgotten),
        TEST(misuse_is_refused_with_its_cure),
        TEST(a_session_with_which_no_handshake_ends_is_not_offered_again),
        TEST(as_many_tickets_are_kept_as_the_option_says),
        TEST(a_host_with_a_callback_of_its_own_keeps_it),
        TEST(processes_share_tickets_and_offer_none_twice),
        TEST(a_data_connection_goes_back_to_its_control_connection),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
