/*
 * Hosts with little stack: OpenSSL's asynchronous jobs have 32 KiB, and threads of event loops may have little more. No hook
 * needs more than 16 KiB, and connections that live inside jobs resume. DTLS servers that verify cookies first do as well.
 */
#include "check.h"
#include "tls.h"

#include <openssl/async.h>

enum { LOOKED_AT = 128 * 1024, MARK = 0xA5, LIMIT = 16 * 1024 };

static int (*real_new)(SSL *, SSL_SESSION *);
static SSL_SESSION *(*real_get)(SSL *, const unsigned char *, int, int *);
static size_t deepest_new, deepest_get;

/* What lies below the caller's frame is marked, and then looked through for the lowest byte that has changed. */
__attribute__((noinline)) static void mark_stack(void)
{
    volatile unsigned char below[LOOKED_AT];

    for (size_t i = 0; i < sizeof below; i++)
        below[i] = MARK;
}

__attribute__((noinline)) static size_t used_stack(void)
{
    volatile unsigned char below[LOOKED_AT];
    size_t i = 0;

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
    while (i < sizeof below && below[i] == MARK)
        i++;
#pragma GCC diagnostic pop
    return sizeof below - i;
}

static void keep_deepest(size_t *deepest)
{
    size_t used = used_stack();

    if (used > *deepest)
        *deepest = used;
}

static int wrapped_new(SSL *ssl, SSL_SESSION *session)
{
    int result;

    mark_stack();
    result = real_new(ssl, session);
    keep_deepest(&deepest_new);
    return result;
}

static SSL_SESSION *wrapped_get(SSL *ssl, const unsigned char *id, int len, int *copy)
{
    SSL_SESSION *result;

    mark_stack();
    result = real_get(ssl, id, len, copy);
    keep_deepest(&deepest_get);
    return result;
}

static void show(SSL *client)
{
    tls_show(client, CLIENT_6KB);
}

static void ask(SSL *server)
{
    tls_ask(server, SSL_VERIFY_PEER);
}

/* First uses, which open the store, and later ones; with and without a certificate of 6 KB; looked up, taken, and written. */
static void no_hook_needs_more_than_16_kib_of_stack(const char *scratch)
{
    static const char *const options[] = {"guard=off single_use=always", "guard=on capacity=1MiB", "guard=off decoded=0 capacity=1MiB"};

    for (int o = 0; o < 3; o++) {
        SSL_CTX *ctx = tls_attached(path_in(scratch, options[o]), options[o]);

        real_new = SSL_CTX_sess_get_new_cb(ctx);
        real_get = SSL_CTX_sess_get_get_cb(ctx);
        SSL_CTX_sess_set_new_cb(ctx, wrapped_new);
        SSL_CTX_sess_set_get_cb(ctx, wrapped_get);
        for (int n = 0; n < 400; n++) {
            struct visit visit = {.version = tls_versions[n % 2], .prepare = n % 4 < 2 ? ask : NULL, .prepare_client = show};
            struct outcome made = tls_here(ctx, visit);

            visit.offer = &made.newest;
            CHECK(n % 20 != 0 || tls_here(ctx, visit).resumed, "%s does not resume", tls_name(visit.version));
        }
        SSL_CTX_free(ctx);
    }
    printf("deepest stack: %zu bytes to store, %zu to look up\n", deepest_new, deepest_get);
    CHECK(deepest_new > 256 && deepest_get > 256, "no hook was called: this test looks in the wrong place");
    CHECK(deepest_new < LIMIT && deepest_get < LIMIT, "a hook needs %zu bytes of stack", deepest_new > deepest_get ? deepest_new : deepest_get);
}

/* ---- inside a job ---- */

static int run_job(void *argument)
{
    CHECK(ASYNC_get_current_job() != NULL, "not inside a job");
    tls_talk(*(struct pair **)argument);
    return 1;
}

/* Both ends of the connection in one job; whether it resumed. */
static int in_job(SSL_CTX *ctx, struct visit visit)
{
    ASYNC_WAIT_CTX *wait = ASYNC_WAIT_CTX_new();
    ASYNC_JOB *running = NULL;
    struct pair *pair = tls_pair(ctx, visit);
    int result = 0, resumed;

    CHECK(wait != NULL && ASYNC_start_job(&running, wait, &result, run_job, &pair, sizeof pair) == ASYNC_FINISH && result == 1,
          "the job does not run to its end");
    resumed = pair->out.resumed;
    tls_end(pair);
    ASYNC_WAIT_CTX_free(wait);
    return resumed;
}

static void mode_async(SSL *server)
{
    SSL_set_mode(server, SSL_MODE_ASYNC);
}

static void connections_inside_asynchronous_jobs_resume(const char *scratch)
{
    SSL_CTX *ctx = tls_attached(store_in(scratch), NULL);

    if (!ASYNC_is_capable()) {
        fprintf(stderr, "OpenSSL has no asynchronous jobs here: skipped\n");
        return;
    }
    CHECK(ASYNC_init_thread(2, 2) == 1, "ASYNC_init_thread");
    for (int v = 0; v < 2; v++) {
        /* By a server that starts its own jobs, and with the whole connection inside of one. */
        struct visit visit = {.version = tls_versions[v], .prepare = mode_async};
        struct outcome made = tls_here(ctx, visit);

        visit.offer = &made.newest;
        CHECK(tls_here(ctx, visit).resumed, "%s: SSL_MODE_ASYNC does not resume", tls_name(tls_versions[v]));
        visit.prepare = NULL;
        CHECK(in_job(ctx, visit), "%s: a connection inside a job does not resume", tls_name(tls_versions[v]));
    }
    ASYNC_cleanup_thread();
    SSL_CTX_free(ctx);
}

/* ---- what an application attaches to its sessions ---- */

static void attach_6_kb(SSL *server)
{
    static unsigned char data[6000];

    CHECK(SSL_SESSION_set1_ticket_appdata(SSL_get_session(server), data, sizeof data) == 1, "SSL_SESSION_set1_ticket_appdata");
}

static int attach_to_ticket(SSL *ssl, void *argument)
{
    (void)argument;
    attach_6_kb(ssl);
    return 1;
}

static void sessions_with_6_kb_of_application_data_resume(const char *scratch)
{
    char *store = store_in(scratch);
    SSL_CTX *ctx = tls_attached(store, NULL);
    sesscache *cache;

    /* TLS 1.2 stores at the end of the handshake; the application's last word before that is the ticket callback. */
    SSL_CTX_set_session_ticket_cb(ctx, attach_to_ticket, NULL, NULL);
    for (int v = 0; v < 2; v++) {
        struct outcome made = tls_here(ctx, (struct visit){.version = tls_versions[v], .finished = attach_6_kb});

        CHECK(tls_resumes_elsewhere(store, NULL, tls_versions[v], &made.newest), "%s: a session with 6 KB of data does not resume",
              tls_name(tls_versions[v]));
    }
    CHECK_OK(sesscache_open(store, NULL, &cache));
    CHECK(tls_stats(cache).puts_failed == 0 && tls_stats(cache).puts_full == 0, "a session is too large to be stored");
    sesscache_close(cache);
    SSL_CTX_free(ctx);
}

/* ---- DTLS with cookies ---- */

static int make_cookie(SSL *ssl, unsigned char *cookie, unsigned int *len)
{
    (void)ssl;
    memset(cookie, 'c', 16);
    *len = 16;
    return 1;
}

static int check_cookie(SSL *ssl, const unsigned char *cookie, unsigned int len)
{
    (void)ssl;
    return len == 16 && cookie[0] == 'c' && cookie[15] == 'c';
}

static void exchange_cookies(SSL *server)
{
    SSL_set_options(server, SSL_OP_COOKIE_EXCHANGE);
}

static SSL_CTX *dtls_server(const char *store)
{
    SSL_CTX *ctx = tls_server_for(DTLS1_2_VERSION);

    SSL_CTX_set_cookie_generate_cb(ctx, make_cookie);
    SSL_CTX_set_cookie_verify_cb(ctx, check_cookie);
    CHECK_OK(sesscache_enable(ctx, store, NULL));
    return ctx;
}

static void a_dtls_client_that_answers_a_cookie_resumes_in_another_process(const char *scratch)
{
    SSL_CTX *one = dtls_server(store_in(scratch));
    struct visit visit = {.version = DTLS1_2_VERSION, .prepare = exchange_cookies};
    struct outcome made = tls_here(one, visit), again;

    CHECK(made.hellos == 2, "no cookie was asked for");
    visit.offer = &made.newest;
    /* A child: it opens the store for itself. */
    again = tls_child(one, visit);
    CHECK(again.hellos == 2 && again.resumed, "a DTLS client that answers a cookie does not resume in another process");
    CHECK(tls_here(one, visit).resumed, "nor in the process that made the session");
    SSL_CTX_free(one);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(no_hook_needs_more_than_16_kib_of_stack),
        TEST(connections_inside_asynchronous_jobs_resume),
        TEST(sessions_with_6_kb_of_application_data_resume),
        TEST(a_dtls_client_that_answers_a_cookie_resumes_in_another_process),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
