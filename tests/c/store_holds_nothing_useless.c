/*
 * The store holds what can be resumed and nothing else.
 *
 * OpenSSL calls the new-session hook also for TLS 1.3 tickets that carry the whole session and are never looked
 * up, and the get hook for every random id that a TLS 1.3 client sends for the sake of old middleboxes. Neither
 * may leave a record, or strangers fill the store.
 */
#include "check.h"
#include "tls.h"

struct server {
    sesscache *cache;
    SSL_CTX *ctx;
};

static struct server serve(const char *store)
{
    struct server server = {NULL, tls_server()};

    CHECK_OK(sesscache_open(store, NULL, &server.cache));
    CHECK_OK(sesscache_attach(server.cache, server.ctx));
    return server;
}

static void end(struct server server)
{
    SSL_CTX_free(server.ctx);
    sesscache_close(server.cache);
}

static void expect(struct server server, uint64_t records, const char *what)
{
    sesscache_stats stats = tls_stats(server.cache);

    CHECK(stats.sessions == records, "%s: the store holds %llu records instead of %llu", what,
          (unsigned long long)stats.sessions, (unsigned long long)records);
    CHECK(stats.puts == records, "%s: %llu sessions were stored instead of %llu", what,
          (unsigned long long)stats.puts, (unsigned long long)records);
}

static void a_full_handshake_leaves_exactly_what_openssl_issued(const char *scratch)
{
    static const size_t tickets[] = {0, 1, 2, 5};
    struct server server = serve(store_in(scratch));
    uint64_t records = 0;

    (void)tls_here(server.ctx, (struct visit){.version = TLS1_2_VERSION});
    expect(server, ++records, "a full TLS 1.2 handshake");
    for (size_t i = 0; i < sizeof tickets / sizeof tickets[0]; i++) {
        CHECK(SSL_CTX_set_num_tickets(server.ctx, tickets[i]) == 1, "SSL_CTX_set_num_tickets");
        CHECK(tls_here(server.ctx, (struct visit){.version = TLS1_3_VERSION}).given == tickets[i],
              "the client did not get %zu tickets", tickets[i]);
        records += tickets[i];
        expect(server, records, "a full TLS 1.3 handshake");
    }
    end(server);
}

static void a_resumption_adds_only_the_ticket_that_openssl_issues_anew(const char *scratch)
{
    struct server server = serve(store_in(scratch));
    struct outcome tls12 = tls_here(server.ctx, (struct visit){.version = TLS1_2_VERSION});
    struct outcome tls13 = tls_here(server.ctx, (struct visit){.version = TLS1_3_VERSION});

    expect(server, 3, "one full handshake of each version");
    CHECK(tls_here(server.ctx, (struct visit){.version = TLS1_2_VERSION, .offer = &tls12.newest}).resumed,
          "TLS 1.2 does not resume");
    expect(server, 3, "a resumed TLS 1.2 handshake");
    CHECK(tls_here(server.ctx, (struct visit){.version = TLS1_3_VERSION, .offer = &tls13.newest}).resumed,
          "TLS 1.3 does not resume");
    expect(server, 4, "a resumed TLS 1.3 handshake");
    end(server);
}

static void use_tickets(SSL *ssl)
{
    SSL_clear_options(ssl, SSL_OP_NO_TICKET);
}

static void stateless_tickets_of_one_connection_leave_no_record(const char *scratch)
{
    struct server server = serve(store_in(scratch));

    for (int i = 0; i < 2; i++) {
        struct visit visit = {.version = tls_versions[i], .prepare = use_tickets};
        struct outcome first = tls_here(server.ctx, visit);

        CHECK(first.newest.len > 0, "%s: the client got no ticket", tls_name(tls_versions[i]));
        expect(server, 0, tls_name(tls_versions[i]));
        visit.offer = &first.newest;
        CHECK(tls_here(server.ctx, visit).resumed, "%s: the cache breaks the tickets of a host that wants them",
              tls_name(tls_versions[i]));
        expect(server, 0, tls_name(tls_versions[i]));
    }
    end(server);
}

static void stateless_tickets_of_a_whole_context_leave_no_record(const char *scratch)
{
    struct server server = serve(store_in(scratch));

    SSL_CTX_clear_options(server.ctx, SSL_OP_NO_TICKET);
    for (int i = 0; i < 2; i++) {
        struct visit visit = {.version = tls_versions[i]};
        struct outcome first = tls_here(server.ctx, visit);

        visit.offer = &first.newest;
        CHECK(tls_here(server.ctx, visit).resumed, "%s: the cache breaks the tickets of a host that wants them",
              tls_name(tls_versions[i]));
        expect(server, 0, tls_name(tls_versions[i]));
    }
    end(server);
}

static void an_unknown_id_is_a_full_handshake_and_leaves_nothing_of_its_own(const char *scratch)
{
    struct server server = serve(store_in(scratch));

    for (int i = 0; i < 2; i++) {
        int version = tls_versions[i];
        struct outcome first = tls_here(server.ctx, (struct visit){.version = version});
        sesscache_stats before = tls_stats(server.cache), after;
        uint64_t issued = version == TLS1_2_VERSION ? 1 : 2;

        tls_change_id(&first.newest);
        CHECK(!tls_here(server.ctx, (struct visit){.version = version, .offer = &first.newest}).resumed,
              "%s: an id that no server issued resumes", tls_name(version));
        after = tls_stats(server.cache);
        CHECK(after.sessions == before.sessions + issued && after.puts == before.puts + issued,
              "%s: an unknown id leaves more than the new session", tls_name(version));
        CHECK(after.misses_foreign + after.misses_absent == before.misses_foreign + before.misses_absent + 1,
              "%s: an unknown id is not counted as one miss", tls_name(version));
        CHECK(after.hits == before.hits, "%s: an unknown id is counted as a hit", tls_name(version));
    }
    end(server);
}

static void a_client_that_leaves_after_its_hello_leaves_nothing(const char *scratch)
{
    struct server server = serve(store_in(scratch));
    /* Sessions of another store: well-formed ids that mean nothing here. */
    struct server other = serve(path_in(scratch, "other"));

    for (int i = 0; i < 2; i++) {
        struct outcome first = tls_here(other.ctx, (struct visit){.version = tls_versions[i]});

        for (int n = 0; n < 50; n++) {
            struct pair *pair = tls_pair(server.ctx, (struct visit){.version = tls_versions[i], .offer = &first.newest});

            CHECK(SSL_do_handshake(pair->client) < 0, "the client needs no answer");
            CHECK(SSL_do_handshake(pair->server) < 0, "the server needs no second flight");
            ERR_clear_error();
            tls_drop(pair);
        }
        expect(server, 0, tls_name(tls_versions[i]));
    }
    end(other);
    end(server);
}

static void a_server_that_verifies_clients_without_a_context_id_stores_nothing(const char *scratch)
{
    struct server server = serve(store_in(scratch));

    /* OpenSSL refuses to resume such sessions: keeping them could only end in a failed handshake. */
    CHECK(SSL_CTX_set_session_id_context(server.ctx, (const unsigned char *)"", 0) == 1, "SSL_CTX_set_session_id_context");
    SSL_CTX_set_verify(server.ctx, SSL_VERIFY_PEER, NULL);
    for (int i = 0; i < 2; i++) {
        struct outcome first = tls_here(server.ctx, (struct visit){.version = tls_versions[i]});

        expect(server, 0, tls_name(tls_versions[i]));
        CHECK(!tls_here(server.ctx, (struct visit){.version = tls_versions[i], .offer = &first.newest}).resumed,
              "%s: a session without a context id resumes where clients are verified", tls_name(tls_versions[i]));
    }
    end(server);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(a_full_handshake_leaves_exactly_what_openssl_issued),
        TEST(a_resumption_adds_only_the_ticket_that_openssl_issues_anew),
        TEST(stateless_tickets_of_one_connection_leave_no_record),
        TEST(stateless_tickets_of_a_whole_context_leave_no_record),
        TEST(an_unknown_id_is_a_full_handshake_and_leaves_nothing_of_its_own),
        TEST(a_client_that_leaves_after_its_hello_leaves_nothing),
        TEST(a_server_that_verifies_clients_without_a_context_id_stores_nothing),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
