/*
 * A chain of TLS 1.3 resumptions ends when the life of its one full handshake does.
 *
 * Every resumption issues a fresh ticket. If each began a new life, a client that comes back often enough would
 * never again prove who it is, nor the server.
 */
#include "check.h"
#include "tls.h"

/* In seconds. Several links must fit into a life, and a handshake takes seconds in an emulator. */
#define LIFE check_patience(3)

/*
 * Times are kept in whole seconds by OpenSSL, so a life may end up to one earlier or later. It begins and is judged somewhere
 * inside of a handshake: what must be alive is so from before the first handshake to after this one, and what must be over is
 * so from after the first to before this one.
 */
#define SURELY_ALIVE (LIFE - 1.1)
#define SURELY_OVER (LIFE + 1.1)

static const char *with_ttl(const char *more)
{
    static char options[64];

    (void)snprintf(options, sizeof options, "ttl=%.0fs%s", LIFE, more);
    return options;
}

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

/* No ticket may promise more than what was left, when the client `asked`, of a life that began by `latest`. */
static void check_hints(const struct outcome *out, double latest, double asked)
{
    double left = latest + LIFE - asked;

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
    double latest, asked, earliest = check_now(), elapsed = 0;
    uint64_t before;
    int links = 0;

    if (timeout > 0)
        (void)SSL_CTX_set_timeout(server, timeout);
    CHECK_OK(sesscache_open(store, options, &cache));
    CHECK_OK(sesscache_attach(cache, server));
    link = tls_child(server, (struct visit){.version = TLS1_3_VERSION});
    latest = check_now();
    CHECK(!link.resumed && link.given > 0, "the first handshake is not full");
    check_hints(&link, latest, latest);

    while (elapsed < SURELY_OVER) {
        check_sleep(check_patience(0.4));
        asked = check_now();
        elapsed = asked - latest;
        /* A client that lies about the age of its ticket: the server has to know better. */
        tls_pretend_fresh(&link.newest);
        before = lookups(cache);
        next = tls_child(server, (struct visit){.version = TLS1_3_VERSION, .offer = &link.newest});
        if (check_now() - earliest < SURELY_ALIVE)
            CHECK(next.resumed, "the chain ends after %.1f of %.0f seconds", check_now() - earliest, LIFE);
        if (elapsed >= SURELY_OVER)
            CHECK(!next.resumed, "the chain goes on %.1f seconds after its full handshake; its life is %.0f", elapsed, LIFE);
        if (!next.resumed) {
            /* It is the server that refuses; the client may give up by itself only when it was promised no time at all. */
            CHECK(lookups(cache) > before || hint_of(&link.newest) == 0, "the client does not offer its ticket");
            continue;
        }
        check_hints(&next, latest, asked);
        link = next;
        links++;
    }
    CHECK(links >= 3, "the chain has %d links only", links);
    SSL_CTX_free(server);
    sesscache_close(cache);
}

static void a_chain_of_resumptions_ends_with_the_ttl_of_its_full_handshake(const char *scratch)
{
    follow(store_in(scratch), with_ttl(""), 0);
}

static void without_a_ttl_the_timeout_of_the_ssl_ctx_counts(const char *scratch)
{
    follow(store_in(scratch), NULL, (long)LIFE);
}

static void a_ttl_shorter_than_the_timeout_of_the_ssl_ctx_wins(const char *scratch)
{
    follow(store_in(scratch), with_ttl(""), 7200);
}

/* The timeout of an SSL_CTX is the application's to change at any time; the ttl holds all the same. */
static void a_timeout_set_after_attach_promises_clients_no_more_than_the_ttl(const char *scratch)
{
    SSL_CTX *server = tls_attached(store_in(scratch), with_ttl(""));
    struct outcome first, next;
    double latest, asked;

    (void)SSL_CTX_set_timeout(server, 7200);
    first = tls_child(server, (struct visit){.version = TLS1_3_VERSION});
    CHECK(first.given == 2, "the client got %zu tickets instead of 2", first.given);
    latest = check_now();
    check_hints(&first, latest, latest);
    asked = check_now();
    next = tls_child(server, (struct visit){.version = TLS1_3_VERSION, .offer = &first.newest});
    CHECK(next.resumed, "the ticket does not resume");
    check_hints(&next, latest, asked);
    SSL_CTX_free(server);
}

static void single_use_tickets_end_with_their_chain_too(const char *scratch)
{
    follow(store_in(scratch), with_ttl(" single_use=always"), 0);
}

static void a_tls12_session_ends_with_the_ttl(const char *scratch)
{
    char *store = store_in(scratch);
    SSL_CTX *server = tls_attached(store, with_ttl(""));
    double earliest = check_now(), latest, elapsed;
    struct outcome first = tls_child(server, (struct visit){.version = TLS1_2_VERSION});

    latest = check_now();
    do {
        struct outcome next = tls_child(server, (struct visit){.version = TLS1_2_VERSION, .offer = &first.newest});

        elapsed = check_now() - earliest;
        if (elapsed < SURELY_ALIVE)
            CHECK(next.resumed, "the session ends after %.1f of %.0f seconds", elapsed, LIFE);
        check_sleep(check_patience(0.4));
    } while (check_now() - latest < SURELY_OVER);
    CHECK(!tls_child(server, (struct visit){.version = TLS1_2_VERSION, .offer = &first.newest}).resumed,
          "the session resumes %.1f seconds after its handshake; its life is %.0f", check_now() - latest, LIFE);
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
