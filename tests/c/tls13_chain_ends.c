/*
 * A chain of TLS 1.3 resumptions ends when the life of its one full handshake does.
 *
 * Every resumption issues a fresh ticket. If each began a new life, a client that comes back often enough would
 * never again prove who it is, nor the server.
 */
#include "check.h"
#include "tls.h"

/* Times are kept in whole seconds by OpenSSL, so a life of 3 seconds may end up to one earlier or later. */
#define LIFE 3
#define SURELY_ALIVE 1.9
#define SURELY_OVER 4.1

static unsigned long hint_of(const struct saved *saved)
{
    const unsigned char *der = saved->der;
    SSL_SESSION *session = d2i_SSL_SESSION(NULL, &der, (long)saved->len);
    unsigned long hint;

    CHECK(session != NULL, "the client cannot read its session");
    hint = SSL_SESSION_get_ticket_lifetime_hint(session);
    SSL_SESSION_free(session);
    return hint;
}

/* No ticket may promise more than what is left of the life, counted from `begin`. */
static void check_hints(const struct outcome *out, double begin)
{
    double left = begin + LIFE - check_now();

    for (size_t i = 0; i < out->given; i++)
        CHECK((double)hint_of(&out->sessions[i]) <= left + 1,
              "a ticket promises %lu seconds when %.1f are left", hint_of(&out->sessions[i]), left);
}

static uint64_t lookups(sesscache *cache)
{
    sesscache_stats stats = tls_stats(cache);

    return stats.hits + stats.misses_absent + stats.misses_foreign + stats.misses_expired + stats.misses_damaged +
           stats.misses_protocol + stats.misses_namespace + stats.misses_server_name + stats.misses_client_auth +
           stats.misses_unavailable;
}

/* Follows one chain to its end; each link in another process than the last. */
static void follow(const char *store, const char *options, long timeout)
{
    sesscache *cache = NULL;
    SSL_CTX *server = tls_server();
    struct outcome link, next;
    double begin, elapsed = 0;
    uint64_t before;
    int links = 0;

    if (timeout > 0)
        (void)SSL_CTX_set_timeout(server, timeout);
    CHECK_OK(sesscache_open(store, options, &cache));
    CHECK_OK(sesscache_attach(cache, server));
    link = tls_child(server, (struct visit){.version = TLS1_3_VERSION});
    begin = check_now();
    CHECK(!link.resumed && link.given > 0, "the first handshake is not full");
    check_hints(&link, begin);

    while (elapsed < SURELY_OVER) {
        check_sleep(0.4);
        elapsed = check_now() - begin;
        /* A client that lies about the age of its ticket: the server has to know better. */
        tls_pretend_fresh(&link.newest);
        before = lookups(cache);
        next = tls_child(server, (struct visit){.version = TLS1_3_VERSION, .offer = &link.newest});
        if (elapsed < SURELY_ALIVE)
            CHECK(next.resumed, "the chain ends after %.1f of %d seconds", elapsed, LIFE);
        if (elapsed >= SURELY_OVER)
            CHECK(!next.resumed, "the chain goes on %.1f seconds after its full handshake; its life is %d", elapsed, LIFE);
        if (!next.resumed) {
            /* It is the server that refuses; the client may give up by itself only when it was promised no time at all. */
            CHECK(lookups(cache) > before || hint_of(&link.newest) == 0, "the client does not offer its ticket");
            continue;
        }
        check_hints(&next, begin);
        link = next;
        links++;
    }
    CHECK(links >= 3, "the chain has %d links only", links);
    SSL_CTX_free(server);
    sesscache_close(cache);
}

static void a_chain_of_resumptions_ends_with_the_ttl_of_its_full_handshake(const char *scratch)
{
    follow(store_in(scratch), "ttl=3s", 0);
}

static void without_a_ttl_the_timeout_of_the_ssl_ctx_counts(const char *scratch)
{
    follow(store_in(scratch), NULL, LIFE);
}

static void a_ttl_shorter_than_the_timeout_of_the_ssl_ctx_wins(const char *scratch)
{
    follow(store_in(scratch), "ttl=3s", 7200);
}

/* The timeout of an SSL_CTX is the application's to change at any time; the ttl holds all the same. */
static void a_timeout_set_after_attach_promises_clients_no_more_than_the_ttl(const char *scratch)
{
    SSL_CTX *server = tls_attached(store_in(scratch), "ttl=3s");
    struct outcome first, next;
    double begin = check_now();

    (void)SSL_CTX_set_timeout(server, 7200);
    first = tls_child(server, (struct visit){.version = TLS1_3_VERSION});
    CHECK(first.given == 2, "the client got %zu tickets instead of 2", first.given);
    check_hints(&first, begin);
    next = tls_child(server, (struct visit){.version = TLS1_3_VERSION, .offer = &first.newest});
    CHECK(next.resumed, "the ticket does not resume");
    check_hints(&next, begin);
    SSL_CTX_free(server);
}

static void single_use_tickets_end_with_their_chain_too(const char *scratch)
{
    follow(store_in(scratch), "ttl=3s single_use=always", 0);
}

static void a_tls12_session_ends_with_the_ttl(const char *scratch)
{
    char *store = store_in(scratch);
    SSL_CTX *server = tls_attached(store, "ttl=3s");
    struct outcome first = tls_child(server, (struct visit){.version = TLS1_2_VERSION});
    double begin = check_now(), elapsed;

    do {
        struct outcome next = tls_child(server, (struct visit){.version = TLS1_2_VERSION, .offer = &first.newest});

        elapsed = check_now() - begin;
        if (elapsed < SURELY_ALIVE)
            CHECK(next.resumed, "the session ends after %.1f of %d seconds", elapsed, LIFE);
        check_sleep(0.4);
    } while (check_now() - begin < SURELY_OVER);
    CHECK(!tls_child(server, (struct visit){.version = TLS1_2_VERSION, .offer = &first.newest}).resumed,
          "the session resumes %.1f seconds after its handshake; its life is %d", check_now() - begin, LIFE);
    SSL_CTX_free(server);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(a_chain_of_resumptions_ends_with_the_ttl_of_its_full_handshake),
        TEST(without_a_ttl_the_timeout_of_the_ssl_ctx_counts),
        TEST(a_ttl_shorter_than_the_timeout_of_the_ssl_ctx_wins),
        TEST(a_timeout_set_after_attach_promises_clients_no_more_than_the_ttl),
        TEST(single_use_tickets_end_with_their_chain_too),
        TEST(a_tls12_session_ends_with_the_ttl),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
