/*
 * Nobody empties the store by accident.
 *
 * OpenSSL calls the remove hook for far more than bad sessions: when an SSL_CTX is freed or flushed, when its
 * own cache is full, when a client closes TCP without close_notify, when an SSL is freed without SSL_shutdown.
 * Obeyed blindly, one exiting worker would forget the sessions of all. What has to go does go: the session of
 * a connection that broke, and the one the server said to forget.
 */
#include "check.h"
#include "tls.h"

static int resumes(const char *store, const struct outcome *first, int version)
{
    return tls_resumes_elsewhere(store, NULL, version, &first->newest);
}

static void a_worker_that_frees_its_context_and_exits_leaves_the_store_full(const char *scratch)
{
    char *store = store_in(scratch);

    for (int i = 0; i < 2; i++) {
        int version = tls_versions[i];
        struct outcome first = tls_elsewhere(store, NULL, (struct visit){.version = version});

        CHECK(!first.resumed, "%s: a first connection counts as resumed", tls_name(version));
        CHECK(resumes(store, &first, version), "%s: a session dies with the worker that made it", tls_name(version));
    }
}

static void a_context_freed_in_this_process_leaves_the_store_full(const char *scratch)
{
    char *store = store_in(scratch);

    for (int i = 0; i < 2; i++) {
        SSL_CTX *server = tls_attached(store, NULL);
        struct outcome first = tls_here(server, (struct visit){.version = tls_versions[i]});

        SSL_CTX_free(server);
        CHECK(resumes(store, &first, tls_versions[i]), "%s: SSL_CTX_free emptied the store", tls_name(tls_versions[i]));
    }
}

static void a_host_that_limits_its_own_cache_to_one_session_evicts_nothing(const char *scratch)
{
    char *store = store_in(scratch);
    SSL_CTX *server = tls_attached(store, NULL);
    struct outcome made[6];

    SSL_CTX_sess_set_cache_size(server, 1);
    for (int i = 0; i < 6; i++)
        made[i] = tls_here(server, (struct visit){.version = tls_versions[i % 2]});
    for (int i = 0; i < 6; i++)
        CHECK(resumes(store, &made[i], tls_versions[i % 2]),
              "%s: OpenSSL's cache of one session evicts from the shared store", tls_name(tls_versions[i % 2]));
    SSL_CTX_free(server);
}

static void flushing_the_cache_of_openssl_leaves_the_store_full(const char *scratch)
{
    char *store = store_in(scratch);

    for (int i = 0; i < 2; i++) {
        SSL_CTX *server = tls_attached(store, NULL);
        struct outcome first = tls_here(server, (struct visit){.version = tls_versions[i]});

        /* 0 stands for all sessions, a time far ahead for all that will have expired by then. */
        SSL_CTX_flush_sessions_ex(server, 0);
        SSL_CTX_flush_sessions_ex(server, time(NULL) + 1000000);
        CHECK(resumes(store, &first, tls_versions[i]), "%s: SSL_CTX_flush_sessions_ex emptied the store",
              tls_name(tls_versions[i]));
        SSL_CTX_free(server);
    }
}

static void a_client_that_closes_tcp_without_goodbye_can_come_back(const char *scratch)
{
    char *store = store_in(scratch);

    for (int i = 0; i < 2; i++) {
        int version = tls_versions[i];
        struct visit rude = {.version = version, .ending = TCP_CLOSED};
        struct outcome first = tls_elsewhere(store, NULL, rude), again;

        CHECK(resumes(store, &first, version), "%s: a client that closes TCP loses its session", tls_name(version));
        rude.offer = &first.newest;
        again = tls_elsewhere(store, NULL, rude);
        CHECK(again.resumed && resumes(store, &again, version),
              "%s: a client that closes a resumed connection loses its session", tls_name(version));
    }
}

static void a_server_that_frees_without_shutdown_keeps_the_session(const char *scratch)
{
    char *store = store_in(scratch);

    for (int i = 0; i < 2; i++) {
        int version = tls_versions[i];
        struct visit visit = {.version = version, .ending = SERVER_FREES};
        struct outcome first = tls_elsewhere(store, NULL, visit), again;

        CHECK(resumes(store, &first, version), "%s: SSL_free without SSL_shutdown deletes the session", tls_name(version));
        visit.offer = &first.newest;
        again = tls_elsewhere(store, NULL, visit);
        CHECK(again.resumed && resumes(store, &again, version),
              "%s: SSL_free of a resumed connection deletes the session", tls_name(version));
    }
}

static void a_server_that_clears_its_ssl_for_reuse_keeps_the_session(const char *scratch)
{
    char *store = store_in(scratch);

    for (int i = 0; i < 2; i++) {
        SSL_CTX *server = tls_attached(store, NULL);
        struct pair *pair = tls_pair(server, (struct visit){.version = tls_versions[i]});
        struct outcome first;

        tls_talk(pair);
        first = pair->out;
        CHECK(SSL_clear(pair->server) == 1, "SSL_clear");
        tls_drop(pair);
        CHECK(resumes(store, &first, tls_versions[i]), "%s: SSL_clear deletes the session", tls_name(tls_versions[i]));
        SSL_CTX_free(server);
    }
}

/* Makes a session in TLS 1.2 and resumes it on a connection whose last flight of the client is damaged on the way. */
static struct saved resume_with_a_damaged_finished(const char *store, const char *options)
{
    SSL_CTX *server = tls_attached(store, options);
    struct outcome first = tls_here(server, (struct visit){.version = TLS1_2_VERSION});
    struct pair *pair = tls_pair(server, (struct visit){.version = TLS1_2_VERSION, .offer = &first.newest});
    BIO *flight = BIO_new(BIO_s_mem());
    unsigned char bytes[4096];
    int len;

    CHECK(tls_resumes_elsewhere(store, options, TLS1_2_VERSION, &first.newest), "the session does not resume to begin with");

    /* The client writes to memory; what it writes is carried over by hand. */
    CHECK(flight != NULL, "out of memory");
    SSL_set0_wbio(pair->client, flight);
    CHECK(SSL_do_handshake(pair->client) < 0, "the client needs no answer");
    len = BIO_read(flight, bytes, sizeof bytes);
    CHECK(len > 0 && write(pair->client_fd, bytes, (size_t)len) == len,
          "the ClientHello does not go out");
    CHECK(SSL_do_handshake(pair->server) < 0, "the server needs no Finished");
    CHECK(SSL_do_handshake(pair->client) == 1 && SSL_session_reused(pair->client), "the client does not resume");

    /* ChangeCipherSpec, then Finished, whose last byte belongs to the AEAD tag. */
    len = BIO_read(flight, bytes, sizeof bytes);
    CHECK(len > 0, "the client sends no Finished");
    bytes[len - 1] ^= 1;
    CHECK(write(pair->client_fd, bytes, (size_t)len) == len, "the Finished does not go out");
    CHECK(SSL_do_handshake(pair->server) <= 0 && ERR_peek_error() != 0, "the server accepts a damaged Finished");
    ERR_clear_error();
    tls_drop(pair);
    SSL_CTX_free(server);
    return first.newest;
}

static void a_damaged_finished_deletes_the_session_it_resumed(const char *scratch)
{
    char *store = store_in(scratch);
    struct saved session = resume_with_a_damaged_finished(store, NULL);

    CHECK(!tls_resumes_elsewhere(store, NULL, TLS1_2_VERSION, &session),
          "a session whose resumption failed its check is still offered to others");
}

static void remove_never_keeps_a_session_whose_connection_broke(const char *scratch)
{
    char *store = store_in(scratch);
    struct saved session = resume_with_a_damaged_finished(store, "remove=never");

    CHECK(tls_resumes_elsewhere(store, NULL, TLS1_2_VERSION, &session), "remove=never deletes all the same");
}

static void a_fatal_alert_deletes_the_session_it_resumed(const char *scratch)
{
    /* An application data record that no key fits: the client answers with a fatal bad_record_mac. */
    static const unsigned char garbage[5 + 48] = {0x17, 3, 3, 0, 48, 1, 2, 3};
    char *store = store_in(scratch);
    SSL_CTX *server = tls_attached(store, NULL);
    struct outcome first = tls_here(server, (struct visit){.version = TLS1_2_VERSION});
    struct pair *pair = tls_pair(server, (struct visit){.version = TLS1_2_VERSION, .offer = &first.newest});
    char byte;

    tls_talk(pair);
    CHECK(pair->out.resumed, "the session does not resume to begin with");
    CHECK(write(pair->server_fd, garbage, sizeof garbage) == (ssize_t)sizeof garbage, "write: %s", strerror(errno));
    CHECK(SSL_read(pair->client, &byte, 1) <= 0, "the client accepts garbage");
    ERR_clear_error();
    CHECK(SSL_read(pair->server, &byte, 1) <= 0 && ERR_peek_error() != 0, "the server gets no alert");
    ERR_clear_error();
    tls_drop(pair);
    CHECK(!resumes(store, &first, TLS1_2_VERSION), "a session survives the fatal alert of its client");
    SSL_CTX_free(server);
}

static void forget(SSL *ssl)
{
    CHECK_OK(sesscache_forget(ssl));
}

static void a_forgotten_tls12_session_resumes_nowhere(const char *scratch)
{
    char *store = store_in(scratch);
    SSL_CTX *here = tls_attached(store, NULL);
    struct outcome full = tls_here(here, (struct visit){.version = TLS1_2_VERSION, .finished = forget});
    struct outcome first = tls_here(here, (struct visit){.version = TLS1_2_VERSION}), again;

    CHECK(!resumes(store, &full, TLS1_2_VERSION), "another process resumes a session that was forgotten at once");
    CHECK(!tls_here(here, (struct visit){.version = TLS1_2_VERSION, .offer = &full.newest}).resumed,
          "the process that forgot a session resumes it");

    /* The order to forget may come on a later connection, in another process. */
    again = tls_elsewhere(store, NULL, (struct visit){.version = TLS1_2_VERSION, .offer = &first.newest, .finished = forget});
    CHECK(again.resumed, "the session does not resume to begin with");
    CHECK(!tls_here(here, (struct visit){.version = TLS1_2_VERSION, .offer = &first.newest}).resumed,
          "the process that made a session resumes it after another one forgot it");
    SSL_CTX_free(here);
}

static void forgetting_a_tls13_connection_ends_all_its_tickets(const char *scratch)
{
    char *store = store_in(scratch);
    SSL_CTX *here = tls_attached(store, NULL);
    struct outcome first;

    CHECK(SSL_CTX_set_num_tickets(here, 4) == 1, "SSL_CTX_set_num_tickets");
    first = tls_here(here, (struct visit){.version = TLS1_3_VERSION, .finished = forget});
    CHECK(first.given == 4, "the client got %zu tickets instead of 4", first.given);
    for (size_t i = 0; i < first.given; i++) {
        CHECK(!tls_resumes_elsewhere(store, NULL, TLS1_3_VERSION, &first.sessions[i]),
              "another process resumes ticket %zu of a connection that was forgotten", i + 1);
        CHECK(!tls_here(here, (struct visit){.version = TLS1_3_VERSION, .offer = &first.sessions[i]}).resumed,
              "ticket %zu of a connection that was forgotten resumes where it was made", i + 1);
    }
    SSL_CTX_free(here);
}

static void forgetting_a_resumed_tls13_connection_ends_the_ticket_it_came_with(const char *scratch)
{
    char *store = store_in(scratch);
    struct outcome first = tls_elsewhere(store, NULL, (struct visit){.version = TLS1_3_VERSION}), again;

    again = tls_elsewhere(store, NULL, (struct visit){.version = TLS1_3_VERSION, .offer = &first.newest, .finished = forget});
    CHECK(again.resumed, "the session does not resume to begin with");
    CHECK(!resumes(store, &first, TLS1_3_VERSION), "the ticket that a forgotten connection came with resumes again");
    CHECK(!resumes(store, &again, TLS1_3_VERSION), "the ticket that a forgotten connection was given resumes");
}

static void a_ticket_issued_after_forgetting_its_connection_does_not_resume(const char *scratch)
{
    char *store = store_in(scratch);
    SSL_CTX *server = tls_attached(store, NULL);
    struct pair *pair = tls_pair(server, (struct visit){.version = TLS1_3_VERSION});
    struct outcome out;
    char byte;

    tls_talk(pair);
    CHECK_OK(sesscache_forget(pair->server));
    CHECK(SSL_new_session_ticket(pair->server) == 1 && SSL_do_handshake(pair->server) == 1 &&
          SSL_write(pair->server, "x", 1) == 1, "the server cannot issue another ticket");
    CHECK(SSL_read(pair->client, &byte, 1) == 1, "the client cannot read");
    out = pair->out;
    tls_end(pair);
    CHECK(out.given > 0, "the client got no ticket");
    for (size_t i = 0; i < out.given; i++)
        CHECK(!tls_resumes_elsewhere(store, NULL, TLS1_3_VERSION, &out.sessions[i]),
              "ticket %zu of %zu resumes though its connection was forgotten", i + 1, out.given);
    SSL_CTX_free(server);
}

static void forgetting_one_connection_leaves_the_others(const char *scratch)
{
    char *store = store_in(scratch);

    for (int i = 0; i < 2; i++) {
        int version = tls_versions[i];
        struct outcome kept = tls_elsewhere(store, NULL, (struct visit){.version = version});

        (void)tls_elsewhere(store, NULL, (struct visit){.version = version, .finished = forget});
        CHECK(resumes(store, &kept, version), "%s: forgetting one connection ends another", tls_name(version));
    }
}

static void remove_openssl_obeys_every_removal(const char *scratch)
{
    char *store = store_in(scratch);
    static const enum ending endings[] = {TCP_CLOSED, SERVER_FREES};

    for (int i = 0; i < 4; i++) {
        int version = tls_versions[i % 2];
        struct visit visit = {.version = version, .ending = endings[i / 2]};
        struct outcome first = tls_elsewhere(store, "remove=openssl", visit), polite;

        CHECK(!resumes(store, &first, version), "%s: remove=openssl keeps a session that OpenSSL removes", tls_name(version));
        visit.ending = POLITE;
        polite = tls_elsewhere(store, "remove=openssl", visit);
        CHECK(resumes(store, &polite, version), "%s: remove=openssl loses a session that nobody removed", tls_name(version));
    }
}

static void remove_never_still_forgets_on_request(const char *scratch)
{
    char *store = store_in(scratch);

    for (int i = 0; i < 2; i++) {
        int version = tls_versions[i];
        struct visit visit = {.version = version, .ending = TCP_CLOSED};
        struct outcome first = tls_elsewhere(store, "remove=never", visit), forgotten;

        CHECK(resumes(store, &first, version), "%s: remove=never loses a session", tls_name(version));
        visit.finished = forget;
        forgotten = tls_elsewhere(store, "remove=never", visit);
        CHECK(!resumes(store, &forgotten, version), "%s: remove=never keeps what the server said to forget", tls_name(version));
    }
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(a_worker_that_frees_its_context_and_exits_leaves_the_store_full),
        TEST(a_context_freed_in_this_process_leaves_the_store_full),
        TEST(a_host_that_limits_its_own_cache_to_one_session_evicts_nothing),
        TEST(flushing_the_cache_of_openssl_leaves_the_store_full),
        TEST(a_client_that_closes_tcp_without_goodbye_can_come_back),
        TEST(a_server_that_frees_without_shutdown_keeps_the_session),
        TEST(a_server_that_clears_its_ssl_for_reuse_keeps_the_session),
        TEST(a_damaged_finished_deletes_the_session_it_resumed),
        TEST(remove_never_keeps_a_session_whose_connection_broke),
        TEST(a_fatal_alert_deletes_the_session_it_resumed),
        TEST(a_forgotten_tls12_session_resumes_nowhere),
        TEST(forgetting_a_tls13_connection_ends_all_its_tickets),
        TEST(forgetting_a_resumed_tls13_connection_ends_the_ticket_it_came_with),
        TEST(a_ticket_issued_after_forgetting_its_connection_does_not_resume),
        TEST(forgetting_one_connection_leaves_the_others),
        TEST(remove_openssl_obeys_every_removal),
        TEST(remove_never_still_forgets_on_request),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
