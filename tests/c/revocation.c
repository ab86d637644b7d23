/*
 * sesscache_forget() ends a login: nothing that goes back to the same full handshake resumes, in any process, whatever
 * the connection was given before or is given later. A flush does the same to all, also to handshakes that it meets half done.
 */
#include "check.h"
#include "tls.h"

#include <openssl/rand.h>
#include <sys/resource.h>

#define TICKETS 100

static SSL_CTX *serve(const char *store)
{
    SSL_CTX *server = tls_attached(store, NULL);

    SSL_CTX_set_options(server, SSL_OP_ALLOW_CLIENT_RENEGOTIATION);
    return server;
}

static void forget(SSL *server)
{
    CHECK_OK(sesscache_forget(server));
}

static void none_resumes(const char *store, int version, const struct outcome *out, const char *what)
{
    for (size_t i = 0; i < out->given && i < MAX_GIVEN; i++)
        CHECK(!tls_resumes_elsewhere(store, NULL, version, &out->sessions[i]), "%s: session %zu of %s resumes after forget",
              tls_name(version), i, what);
}

static void every_session_of_a_login_ends(const char *scratch)
{
    char *store = store_in(scratch);

    for (int i = 0; i < 2; i++) {
        SSL_CTX *server = serve(store);
        struct outcome login = tls_here(server, (struct visit){.version = tls_versions[i]});
        struct outcome other = tls_here(server, (struct visit){.version = tls_versions[i]});
        struct outcome second = tls_here(server, (struct visit){.version = tls_versions[i], .offer = &login.newest});
        struct outcome logout =
            tls_here(server, (struct visit){.version = tls_versions[i], .offer = &second.newest, .finished = forget});

        CHECK(second.resumed && logout.resumed, "%s: nothing resumed before forget", tls_name(tls_versions[i]));
        none_resumes(store, tls_versions[i], &login, "the login");
        none_resumes(store, tls_versions[i], &second, "the second connection");
        none_resumes(store, tls_versions[i], &logout, "the connection that was forgotten");
        CHECK(tls_resumes_elsewhere(store, NULL, tls_versions[i], &other.newest), "%s: another login of the same second ended",
              tls_name(tls_versions[i]));
        SSL_CTX_free(server);
    }
}

static void a_hundred_tickets_end(const char *scratch)
{
    char *store = store_in(scratch);
    SSL_CTX *server = serve(store);
    struct outcome out;

    CHECK(SSL_CTX_set_num_tickets(server, TICKETS) == 1, "SSL_CTX_set_num_tickets");
    struct pair *pair = tls_pair(server, (struct visit){.version = TLS1_3_VERSION});

    tls_talk(pair);
    forget(pair->server);
    out = pair->out;
    tls_end(pair);
    CHECK(out.given >= MAX_GIVEN, "%zu tickets", out.given);
    none_resumes(store, TLS1_3_VERSION, &out, "a hundred");
    SSL_CTX_free(server);
}

static void pump(struct pair *pair)
{
    char byte;

    for (int i = 0; i < 10; i++) {
        (void)SSL_read(pair->client, &byte, 1);
        (void)SSL_read(pair->server, &byte, 1);
    }
}

static void the_session_from_before_a_renegotiation_ends(const char *scratch)
{
    char *store = store_in(scratch);
    SSL_CTX *server = serve(store);

    SSL_CTX_set_options(server, SSL_OP_NO_SESSION_RESUMPTION_ON_RENEGOTIATION);
    for (int resumed = 0; resumed < 2; resumed++) {
        struct outcome login = tls_here(server, (struct visit){.version = TLS1_2_VERSION});
        struct visit visit = {.version = TLS1_2_VERSION, .offer = resumed ? &login.newest : NULL};
        struct pair *pair = tls_pair(server, visit);
        struct outcome out;

        tls_talk(pair);
        CHECK(SSL_renegotiate(pair->server) == 1 && SSL_do_handshake(pair->server) == 1, "SSL_renegotiate");
        pump(pair);
        CHECK(pair->out.hellos == 2 && pair->out.given == (resumed ? 1 : 2), "%d ClientHellos, %zu sessions", pair->out.hellos,
              pair->out.given);
        forget(pair->server);
        out = pair->out;
        tls_end(pair);
        none_resumes(store, TLS1_2_VERSION, &out, "a renegotiated connection");
        if (resumed)
            none_resumes(store, TLS1_2_VERSION, &login, "its login");
    }
    SSL_CTX_free(server);
}

static void a_ticket_made_after_forget_does_not_resume(const char *scratch)
{
    char *store = store_in(scratch);
    SSL_CTX *server = serve(store);
    struct outcome out;

    for (int tickets = 0; tickets < 2; tickets++) {
        CHECK(SSL_CTX_set_num_tickets(server, (size_t)tickets) == 1, "SSL_CTX_set_num_tickets");
        struct pair *pair = tls_pair(server, (struct visit){.version = TLS1_3_VERSION});

        tls_talk(pair);
        forget(pair->server);
        CHECK(SSL_new_session_ticket(pair->server) == 1, "SSL_new_session_ticket");
        CHECK(SSL_write(pair->server, "x", 1) == 1, "SSL_write");
        pump(pair);
        out = pair->out;
        tls_end(pair);
        CHECK(out.given == (size_t)tickets + 1, "%zu tickets", out.given);
        none_resumes(store, TLS1_3_VERSION, &out, "a connection with a later ticket");
    }
    SSL_CTX_free(server);
}

/* The server's SSL of one connection, cleared, serves the next one. */
static struct pair *next_on_same_ssl(struct pair *before, SSL_CTX *server, struct visit visit)
{
    struct pair *pair = tls_pair(server, visit);
    SSL *again = before->server;

    before->server = NULL;
    SSL_free(pair->server);
    CHECK(SSL_clear(again) == 1 && SSL_set_fd(again, pair->server_fd) == 1, "SSL_clear");
    SSL_set_accept_state(again);
    pair->server = again;
    tls_drop(before);
    return pair;
}

static void an_ssl_that_is_cleared_belongs_to_the_next_client(const char *scratch)
{
    char *store = store_in(scratch);

    for (int i = 0; i < 2; i++) {
        SSL_CTX *server = serve(store);
        struct outcome out[3];
        struct pair *pair = tls_pair(server, (struct visit){.version = tls_versions[i]});

        for (int client = 0; client < 3; client++) {
            if (client > 0)
                pair = next_on_same_ssl(pair, server, (struct visit){.version = tls_versions[i]});
            tls_talk(pair);
            if (client == 1)
                forget(pair->server);
            out[client] = pair->out;
            (void)SSL_shutdown(pair->server);
        }
        tls_drop(pair);
        none_resumes(store, tls_versions[i], &out[1], "the client that was forgotten");
        for (int client = 0; client < 3; client += 2)
            CHECK(out[client].given > 0 && tls_resumes_elsewhere(store, NULL, tls_versions[i], &out[client].newest),
                  "%s: client %d does not resume", tls_name(tls_versions[i]), client);
        SSL_CTX_free(server);
    }
}

static void one_hash_only(SSL *client)
{
    CHECK(SSL_set_ciphersuites(client, "TLS_AES_128_GCM_SHA256") == 1, "SSL_set_ciphersuites");
}

/* Ids are seen on the wire. With another hash than the session's OpenSSL takes a full handshake before it looks at the binder. */
static void offering_somebody_elses_id_gives_no_say_over_his_login(const char *scratch)
{
    char *store = store_in(scratch);
    SSL_CTX *server = serve(store);
    struct outcome victim = tls_here(server, (struct visit){.version = TLS1_3_VERSION});
    struct outcome own = tls_here(server, (struct visit){.version = TLS1_3_VERSION});
    struct saved stolen = own.newest;
    struct visit visit = {.version = TLS1_3_VERSION, .offer = &stolen, .prepare_client = one_hash_only, .finished = forget};

    tls_copy_id(&stolen, &victim.newest);
    own = tls_here(server, visit);
    CHECK(!own.resumed, "a session resumes without its secret");
    none_resumes(store, TLS1_3_VERSION, &own, "the connection that was forgotten");
    CHECK(tls_resumes_elsewhere(store, NULL, TLS1_3_VERSION, &victim.newest), "somebody else's logout ends a login");
    SSL_CTX_free(server);
}

static void a_client_that_leaves_in_the_middle_leaves_nothing_to_the_next_one(const char *scratch)
{
    char *store = store_in(scratch);
    SSL_CTX *server = serve(store);
    struct outcome alice = tls_here(server, (struct visit){.version = TLS1_3_VERSION}), bob;
    struct pair *pair = tls_pair(server, (struct visit){.version = TLS1_3_VERSION, .offer = &alice.sessions[0]});

    (void)SSL_do_handshake(pair->client);
    (void)SSL_do_handshake(pair->server);
    ERR_clear_error();
    pair = next_on_same_ssl(pair, server, (struct visit){.version = TLS1_3_VERSION});
    tls_talk(pair);
    bob = pair->out;
    tls_end(pair);
    tls_here(server, (struct visit){.version = TLS1_3_VERSION, .offer = &alice.sessions[1], .finished = forget});
    none_resumes(store, TLS1_3_VERSION, &alice, "the login");
    CHECK(tls_resumes_elsewhere(store, NULL, TLS1_3_VERSION, &bob.newest), "one client's logout ends the next one's login");
    SSL_CTX_free(server);
}

static void stateless_tickets(SSL *server)
{
    SSL_clear_options(server, SSL_OP_NO_TICKET);
}

static void refuses_to_forget(SSL *server)
{
    CHECK(sesscache_forget(server) == SESSCACHE_NOT_FOUND, "forget says that it has ended what it cannot end");
}

static void stateless_tickets_are_not_said_to_end(const char *scratch)
{
    SSL_CTX *server = serve(store_in(scratch));
    struct visit visit = {.version = TLS1_3_VERSION, .prepare = stateless_tickets, .finished = refuses_to_forget};

    CHECK(tls_here(server, visit).given > 0, "no ticket");
    SSL_CTX_free(server);
}

static int own_generator(SSL *ssl, unsigned char *id, unsigned int *len)
{
    (void)ssl;
    return RAND_bytes(id, (int)*len);
}

/* Set after attach, it takes the place of the cache's, which is how the cache learns that a session begins. */
static void a_renegotiation_with_the_hosts_own_ids_ends_as_well(const char *scratch)
{
    char *store = store_in(scratch);
    SSL_CTX *server = serve(store);
    struct pair *pair;
    struct outcome out;

    CHECK(SSL_CTX_set_generate_session_id(server, own_generator) == 1, "SSL_CTX_set_generate_session_id");
    SSL_CTX_set_options(server, SSL_OP_NO_SESSION_RESUMPTION_ON_RENEGOTIATION);
    pair = tls_pair(server, (struct visit){.version = TLS1_2_VERSION});
    tls_talk(pair);
    for (int round = 0; round < 2; round++) {
        CHECK(SSL_renegotiate(pair->server) == 1 && SSL_do_handshake(pair->server) == 1, "SSL_renegotiate");
        pump(pair);
        if (round == 0)
            forget(pair->server);
    }
    out = pair->out;
    tls_end(pair);
    CHECK(out.given == 3, "%zu sessions", out.given);
    none_resumes(store, TLS1_2_VERSION, &out, "a renegotiated connection");
    SSL_CTX_free(server);
}

static void a_cleared_ssl_has_nothing_to_forget(const char *scratch)
{
    char *store = store_in(scratch);

    for (int i = 0; i < 2; i++) {
        SSL_CTX *server = serve(store);
        struct pair *pair = tls_pair(server, (struct visit){.version = tls_versions[i]});
        struct outcome before;

        tls_talk(pair);
        CHECK(sesscache_forget(pair->client) == SESSCACHE_NOT_FOUND, "a client's connection is forgotten");
        before = pair->out;
        (void)SSL_shutdown(pair->server);
        pair = next_on_same_ssl(pair, server, (struct visit){.version = tls_versions[i]});
        CHECK(sesscache_forget(pair->server) == SESSCACHE_NOT_FOUND, "a connection that has not begun is forgotten");
        tls_drop(pair);
        CHECK(tls_resumes_elsewhere(store, NULL, tls_versions[i], &before.newest), "%s: the client before does not resume",
              tls_name(tls_versions[i]));
        SSL_CTX_free(server);
    }
}

static void a_handshake_suspended_over_a_flush_carries_nothing_across(const char *scratch)
{
    char *store = store_in(scratch);

    for (int resumed = 0; resumed < 2; resumed++) {
        SSL_CTX *server = serve(store);
        sesscache *cache;
        struct outcome login = tls_here(server, (struct visit){.version = TLS1_3_VERSION});
        struct visit visit = {.version = TLS1_3_VERSION, .offer = resumed ? &login.newest : NULL};
        struct pair *pair = tls_pair(server, visit);
        struct outcome out;

        CHECK_OK(sesscache_open(store, NULL, &cache));
        (void)SSL_do_handshake(pair->client);
        (void)SSL_do_handshake(pair->server);
        /* A full handshake is older than a flush by its second. */
        sleep(resumed ? 0 : 2);
        CHECK_OK(sesscache_flush(cache));
        tls_talk(pair);
        out = pair->out;
        tls_end(pair);
        CHECK(out.resumed == resumed && out.given > 0, "resumed %d, %zu tickets", out.resumed, out.given);
        none_resumes(store, TLS1_3_VERSION, &out, "a handshake begun before the flush");
        out = tls_here(server, (struct visit){.version = TLS1_3_VERSION});
        CHECK(tls_resumes_elsewhere(store, NULL, TLS1_3_VERSION, &out.newest), "nothing is stored after a flush");
        sesscache_close(cache);
        SSL_CTX_free(server);
    }
}

static void a_flush_that_fails_ends_nothing(const char *scratch)
{
    char *store = store_in(scratch);
    SSL_CTX *server = serve(store);
    struct outcome login = tls_here(server, (struct visit){.version = TLS1_3_VERSION});
    struct rlimit before, low = {1 << 20, 1 << 20};
    sesscache *cache;

    CHECK_OK(sesscache_open(store, NULL, &cache));
    CHECK(getrlimit(RLIMIT_FSIZE, &before) == 0, "getrlimit");
    low.rlim_max = before.rlim_max;
    CHECK(setrlimit(RLIMIT_FSIZE, &low) == 0, "setrlimit");
    CHECK(sesscache_flush(cache) != SESSCACHE_OK, "a flush succeeds where no new store can be made");
    CHECK(setrlimit(RLIMIT_FSIZE, &before) == 0, "setrlimit");
    login = tls_here(server, (struct visit){.version = TLS1_3_VERSION, .offer = &login.newest});
    CHECK(login.resumed, "a flush that failed has ended a session");
    CHECK(tls_resumes_elsewhere(store, NULL, TLS1_3_VERSION, &login.newest), "nothing is stored after a flush that failed");
    CHECK_OK(sesscache_flush(cache));
    CHECK(!tls_here(server, (struct visit){.version = TLS1_3_VERSION, .offer = &login.newest}).resumed, "a flush ends nothing");
    sesscache_close(cache);
    SSL_CTX_free(server);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(every_session_of_a_login_ends),
        TEST(a_hundred_tickets_end),
        TEST(the_session_from_before_a_renegotiation_ends),
        TEST(a_ticket_made_after_forget_does_not_resume),
        TEST(an_ssl_that_is_cleared_belongs_to_the_next_client),
        TEST(offering_somebody_elses_id_gives_no_say_over_his_login),
        TEST(a_client_that_leaves_in_the_middle_leaves_nothing_to_the_next_one),
        TEST(stateless_tickets_are_not_said_to_end),
        TEST(a_renegotiation_with_the_hosts_own_ids_ends_as_well),
        TEST(a_cleared_ssl_has_nothing_to_forget),
        TEST(a_handshake_suspended_over_a_flush_carries_nothing_across),
        TEST(a_flush_that_fails_ends_nothing),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
