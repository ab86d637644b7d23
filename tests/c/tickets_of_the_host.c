/*
 * A server that judges each ticket itself (SSL_CTX_set_session_ticket_cb), as ProFTPD does to tell that a data connection belongs to
 * its control connection. With tickets=host its callbacks are asked as without a cache, and what they refuse does not resume.
 */
#include "check.h"
#include "tls.h"

static int generated, judged;
static const char *login = "login 1";

static int generate(SSL *ssl, void *argument)
{
    (void)argument;
    generated++;
    return SSL_SESSION_set1_ticket_appdata(SSL_get_session(ssl), login, strlen(login));
}

static SSL_TICKET_RETURN judge(SSL *ssl, SSL_SESSION *session, const unsigned char *name, size_t len, SSL_TICKET_STATUS status,
                               void *argument)
{
    void *data = NULL;
    size_t size = 0;
    int right;

    (void)ssl;
    (void)name;
    (void)len;
    (void)argument;
    judged++;
    if (status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW)
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    right = SSL_SESSION_get0_ticket_appdata(session, &data, &size) == 1 && size == strlen(login) &&
            memcmp(data, login, size) == 0;
    if (!right)
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    return SSL_version(ssl) == TLS1_3_VERSION ? SSL_TICKET_RETURN_USE_RENEW : SSL_TICKET_RETURN_USE;
}

static SSL_CTX *server_with_judge(const char *store)
{
    SSL_CTX *ctx = tls_server();

    CHECK(SSL_CTX_set_session_ticket_cb(ctx, generate, judge, NULL) == 1, "SSL_CTX_set_session_ticket_cb");
    if (store != NULL)
        CHECK_OK(sesscache_enable(ctx, store, "tickets=host"));
    return ctx;
}

struct story {
    int resumed[4], generated, judged;
};

/* A login and two returns; a return after the server has ended the login; a client that is new. */
static struct story tell(SSL_CTX *ctx, int version)
{
    struct story story = {.resumed = {0}};
    struct visit visit = {.version = version};
    struct outcome out = tls_here(ctx, visit);

    login = "login 1";
    generated = judged = 0;
    for (int n = 0; n < 4; n++) {
        visit.offer = n == 0 ? NULL : &out.newest;
        if (n == 3)
            login = "login 2";
        out = tls_here(ctx, visit);
        story.resumed[n] = out.resumed;
    }
    login = "login 1";
    story.generated = generated;
    story.judged = judged;
    return story;
}

static void callbacks_are_asked_as_without_a_cache_and_refused_tickets_do_not_resume(const char *scratch)
{
    SSL_CTX *alone = server_with_judge(NULL), *attached = server_with_judge(store_in(scratch));

    for (int i = 0; i < 2; i++) {
        struct story one = tell(alone, tls_versions[i]), two = tell(attached, tls_versions[i]);

        CHECK(memcmp(&one, &two, sizeof one) == 0, "%s: attached, the callbacks are asked %d and %d times, not %d and %d",
              tls_name(tls_versions[i]), two.generated, two.judged, one.generated, one.judged);
        CHECK(one.resumed[1] && one.resumed[2] && !one.resumed[3] && one.judged >= 3 && one.generated > 0,
              "%s: the callbacks judge nothing, so nothing was shown", tls_name(tls_versions[i]));
    }
    SSL_CTX_free(alone);
    SSL_CTX_free(attached);
}

static void without_tickets(SSL *client)
{
    SSL_set_options(client, SSL_OP_NO_TICKET);
}

static void a_client_without_tickets_resumes_by_id_in_every_process(const char *scratch)
{
    char *store = store_in(scratch);
    SSL_CTX *ctx = server_with_judge(store);
    struct visit visit = {.version = TLS1_2_VERSION, .prepare_client = without_tickets};
    struct outcome out = tls_here(ctx, visit);

    visit.offer = &out.newest;
    CHECK(tls_here(ctx, visit).resumed && tls_elsewhere(store, "tickets=host", visit).resumed, "an id does not resume");
    SSL_CTX_free(ctx);
}

static void a_ticket_of_the_host_carries_no_early_data(const char *scratch)
{
    SSL_CTX *ctx = tls_server();
    sesscache *cache;
    struct visit visit = {.version = TLS1_3_VERSION};

    CHECK(SSL_CTX_set_max_early_data(ctx, 16384) == 1, "SSL_CTX_set_max_early_data");
    CHECK_OK(sesscache_open(store_in(scratch), "tickets=host", &cache));
    CHECK_OK(sesscache_attach(cache, ctx));
    struct outcome out = tls_here(ctx, visit);

    tls_pretend_early(&out.newest);
    visit.offer = &out.newest;
    visit.early = "early";
    out = tls_here(ctx, visit);
    CHECK(out.resumed && !out.early_accepted, "resumed %d, early data %d", out.resumed, out.early_accepted);
    CHECK(tls_stats(cache).puts_skipped == 0 && tls_stats(cache).puts == 0, "tickets of the host are put into the store");
    CHECK_OK(sesscache_detach(ctx));
    CHECK(SSL_CTX_get_max_early_data(ctx) == 16384, "detaching leaves early data off");
    SSL_CTX_free(ctx);
    sesscache_close(cache);
}

static void allow_early(SSL *server)
{
    CHECK(SSL_set_max_early_data(server, 16384) == 1, "SSL_set_max_early_data");
}

/* OpenSSL's own protection makes the tickets of such a connection ids, each of which resumes once. */
static void early_data_that_one_ssl_allows_is_rejected_and_its_ticket_resumes(const char *scratch)
{
    SSL_CTX *ctx = server_with_judge(store_in(scratch));

    for (int i = 0; i < 2; i++) {
        struct visit visit = {.version = TLS1_3_VERSION, .prepare = allow_early};
        struct outcome first = tls_here(ctx, visit), out;

        visit.offer = &first.newest;
        visit.early = i == 0 ? "early" : NULL;
        out = tls_here(ctx, visit);
        CHECK(out.resumed && !out.early_accepted, "early data sent: %d: resumed %d, early data accepted %d", i == 0, out.resumed,
              out.early_accepted);
        visit.offer = &out.newest;
        CHECK(out.newest.len > 0 && tls_here(ctx, visit).resumed, "its next ticket does not resume");
    }
    SSL_CTX_free(ctx);
}

static sesscache_status forgotten;

static void forget(SSL *server)
{
    forgotten = sesscache_forget(server);
}

static void forget_says_that_it_cannot_end_a_stateless_ticket(const char *scratch)
{
    SSL_CTX *ctx = server_with_judge(store_in(scratch));

    for (int i = 0; i < 2; i++) {
        struct visit visit = {.version = tls_versions[i], .finished = forget};

        (void)tls_here(ctx, visit);
        CHECK(forgotten == SESSCACHE_NOT_FOUND, "%s: status %d", tls_name(tls_versions[i]), (int)forgotten);
    }
    SSL_CTX_free(ctx);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(callbacks_are_asked_as_without_a_cache_and_refused_tickets_do_not_resume),
        TEST(a_client_without_tickets_resumes_by_id_in_every_process),
        TEST(a_ticket_of_the_host_carries_no_early_data),
        TEST(early_data_that_one_ssl_allows_is_rejected_and_its_ticket_resumes),
        TEST(forget_says_that_it_cannot_end_a_stateless_ticket),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
