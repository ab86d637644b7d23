/*
 * What early_data_replayed.c does to sesscache, done to servers without its protection: here the replays succeed, so
 * that test can fail.
 */
#include "check.h"
#include "tls.h"
#include "workers.h"

enum { COUNT = 40 };

static struct flight flights[COUNT];

static SSL_CTX *server(void)
{
    SSL_CTX *ctx = tls_server();

    CHECK(SSL_CTX_set_max_early_data(ctx, 16384) == 1, "SSL_CTX_set_max_early_data");
    return ctx;
}

static struct fleet *start_sharing(SSL_CTX *ctx)
{
    SSL_CTX *ctxs[MAX_WORKERS] = {ctx, ctx, ctx, ctx};

    return fleet_start(ctxs, NULL);
}

/* OpenSSL as it is: its cache protects one process, and each worker that was forked has a copy of what was there. */
static void openssl_executes_a_flight_once_per_process_that_knows_the_ticket(const char *scratch)
{
    SSL_CTX *ctx = server();
    struct fleet *fleet;

    (void)scratch;
    for (int i = 0; i < COUNT; i += 2) {
        struct outcome first = tls_here(ctx, (struct visit){.version = TLS1_3_VERSION});

        CHECK(first.given == 2, "the client got %zu tickets instead of 2", first.given);
        flight_record(&flights[i], i, &first.sessions[0], NULL);
        flight_record(&flights[i + 1], i + 1, &first.sessions[1], NULL);
    }
    fleet = start_sharing(ctx);
    fleet_play(fleet, flights, 0, COUNT);
    fleet_expect(fleet, 0, COUNT, MAX_WORKERS, "OpenSSL's own cache, inherited");
    /* Within one process its protection works, so playing again adds nothing. */
    fleet_play(fleet, flights, 0, COUNT);
    fleet_expect(fleet, 0, COUNT, MAX_WORKERS, "OpenSSL's own cache, inherited");
    fleet_stop(fleet);
}

/* What servers configure to have early data in all workers: tickets under one key, anti-replay off. */
static void stateless_tickets_under_a_shared_key_are_executed_every_time(const char *scratch)
{
    SSL_CTX *ctx = server();
    struct fleet *fleet;

    (void)scratch;
    SSL_CTX_set_options(ctx, SSL_OP_NO_ANTI_REPLAY);
    fleet = start_sharing(ctx);
    fleet_record(fleet, flights, 0, COUNT, NULL);
    fleet_play(fleet, flights, 0, COUNT);
    fleet_play(fleet, flights, 0, COUNT);
    fleet_expect(fleet, 0, COUNT, 2 * MAX_WORKERS, "stateless tickets");
    fleet_stop(fleet);
}

static sesscache *shelf;

static int shelve(SSL *ssl, SSL_SESSION *session)
{
    unsigned char der[4096], *end = der;
    unsigned int id_len;
    const unsigned char *id = SSL_SESSION_get_id(session, &id_len);
    int len = i2d_SSL_SESSION(session, NULL);

    (void)ssl;
    CHECK(len > 0 && (size_t)len <= sizeof der && i2d_SSL_SESSION(session, &end) == len, "i2d_SSL_SESSION");
    CHECK_OK(sesscache_put(shelf, id, id_len, der, (size_t)len, (int64_t)time(NULL) + 300));
    return 0;
}

static SSL_SESSION *look_up(SSL *ssl, const unsigned char *id, int id_len, int *copy)
{
    unsigned char der[4096];
    const unsigned char *from = der;
    size_t len = sizeof der;

    (void)ssl;
    *copy = 0;
    if (sesscache_get(shelf, id, (size_t)id_len, der, &len) != SESSCACHE_OK)
        return NULL;
    return d2i_SSL_SESSION(NULL, &from, (long)len);
}

static void take_down(SSL_CTX *ctx, SSL_SESSION *session)
{
    unsigned int id_len;
    const unsigned char *id = SSL_SESSION_get_id(session, &id_len);

    (void)ctx;
    (void)sesscache_remove(shelf, id, id_len);
}

/* The usual external cache: look up, and delete when OpenSSL says so. The worker that made the ticket has its own copy. */
static void an_external_cache_that_only_looks_up_executes_a_flight_again_where_it_was_made(const char *scratch)
{
    SSL_CTX *ctx = server();
    struct fleet *fleet;

    CHECK_OK(sesscache_open(store_in(scratch), "deadline=10s", &shelf));
    SSL_CTX_sess_set_new_cb(ctx, shelve);
    SSL_CTX_sess_set_get_cb(ctx, look_up);
    SSL_CTX_sess_set_remove_cb(ctx, take_down);
    fleet = start_sharing(ctx);
    fleet_record(fleet, flights, 0, COUNT, NULL);
    for (int i = 0; i < COUNT; i++) {
        int maker = i / 2 % MAX_WORKERS;

        CHECK(flight_deliver(fleet, &flights[i], (maker + 1) % MAX_WORKERS)[1] == 'e', "another worker refuses early data");
    }
    fleet_play(fleet, flights, 0, COUNT);
    fleet_expect(fleet, 0, COUNT, 2, "an external cache that only looks up");
    fleet_stop(fleet);
    sesscache_close(shelf);
}

static void single_use_off_executes_every_time(const char *scratch)
{
    SSL_CTX *ctx = server();
    struct fleet *fleet;

    CHECK_OK(sesscache_enable(ctx, store_in(scratch), "deadline=10s single_use=off"));
    fleet = start_sharing(ctx);
    fleet_record(fleet, flights, 0, COUNT, NULL);
    fleet_play(fleet, flights, 0, COUNT);
    fleet_play(fleet, flights, 0, COUNT);
    fleet_expect(fleet, 0, COUNT, 2 * MAX_WORKERS, "single_use=off");
    fleet_stop(fleet);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(openssl_executes_a_flight_once_per_process_that_knows_the_ticket),
        TEST(stateless_tickets_under_a_shared_key_are_executed_every_time),
        TEST(an_external_cache_that_only_looks_up_executes_a_flight_again_where_it_was_made),
        TEST(single_use_off_executes_every_time),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
