/*
 * The sessions that a program has with its servers: each ticket of TLS 1.3 is offered once over all processes, as many are kept as the
 * option says, and what the program does with its SSL_CTX and its connections is refused with a cure or works.
 */
#include "check.h"
#include "connecting.h"
#include "workers.h"

#include <sys/mman.h>
#include <unistd.h>

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
    CHECK_OK(sesscache_attach_client(cache, plain));
    SSL_CTX_set_session_cache_mode(plain, SSL_SESS_CACHE_BOTH);
    CHECK_OK(sesscache_detach(plain));
    CHECK(SSL_CTX_get_session_cache_mode(plain) == SSL_SESS_CACHE_BOTH, "a mode that was set since is gone");
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
        struct ends control = connect_ends(ctx);

        (void)sesscache_resume(cache, control.client, PEER);
        CHECK(talk(control), "no control connection");
        for (n = 0; n < 10; n++) {
            struct ends data = connect_ends(ctx);

            SSL_set1_host(data.client, NULL);
            CHECK(sesscache_resume_from(data.client, control.client) == SESSCACHE_INVALID && strstr(sesscache_errmsg(), "expected names"), "%s",
                  sesscache_errmsg());
            SSL_set1_host(data.client, "localhost");
            CHECK_OK(sesscache_resume_from(data.client, control.client));
            CHECK(talk(data) && SSL_session_reused(data.client), "%s: data connection %d is not resumed",
                  tls_name(call.version), n);
            SSL_shutdown(data.client);
            free_ends(data);
        }
        free_ends(control);
        SSL_CTX_free(ctx);
    }
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
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
