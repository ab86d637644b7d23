/*
 * A server that attaches the cache loses nothing that it had: whatever servers do, as many sessions resume as with OpenSSL and
 * session ids, and in as many as in one process of it; and no handshake fails that did not fail before. A row for each habit.
 */
/* Each row is six servers. */
#define CHECK_DEADLINE 220
#include "habits.h"
#include "confinement.h"

#include <limits.h>
#include <openssl/evp.h>
#include <openssl/provider.h>

static SSL_CTX *both_roles(void)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_method());
    const struct credentials *own = tls_credentials(SERVER_P256);

    CHECK(ctx != NULL && SSL_CTX_use_certificate(ctx, own->certificate) == 1 &&
          SSL_CTX_use_PrivateKey(ctx, own->key) == 1, "no SSL_CTX for both roles");
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_BOTH);
    return ctx;
}

static void no_id_context(SSL_CTX *ctx)
{
    CHECK(SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"", 0) == 1, "SSL_CTX_set_session_id_context");
}

static void random_id_context(SSL_CTX *ctx)
{
    unsigned char random[16];

    CHECK(getentropy(random, sizeof random) == 0 && SSL_CTX_set_session_id_context(ctx, random, sizeof random) == 1,
          "SSL_CTX_set_session_id_context");
}

static int anybody(int ok, X509_STORE_CTX *store)
{
    (void)ok;
    (void)store;
    return 1;
}

static void asks_for_certificates(SSL_CTX *ctx)
{
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, anybody);
}

static void no_tickets_by_itself(SSL_CTX *ctx)
{
    CHECK(SSL_CTX_set_num_tickets(ctx, 0) == 1, "SSL_CTX_set_num_tickets");
}

static void a_ticket_on_request(SSL *ssl)
{
    CHECK(SSL_new_session_ticket(ssl) == 1, "SSL_new_session_ticket");
}

static void many_tickets(SSL_CTX *ctx)
{
    CHECK(SSL_CTX_set_num_tickets(ctx, 100) == 1, "SSL_CTX_set_num_tickets");
}

static void timeout_30_s(SSL_CTX *ctx)
{
    (void)SSL_CTX_set_timeout(ctx, 30);
}

static void timeout_0(SSL_CTX *ctx)
{
    (void)SSL_CTX_set_timeout(ctx, 0);
}

static void timeout_negative(SSL_CTX *ctx)
{
    (void)SSL_CTX_set_timeout(ctx, -1);
}

static void timeout_endless(SSL_CTX *ctx)
{
    (void)SSL_CTX_set_timeout(ctx, LONG_MAX);
}

/* Puma: tickets do for it, and the id context is drawn at each start. */
static void cache_off_and_random_id_context(SSL_CTX *ctx)
{
    (void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    random_id_context(ctx);
}

static int keeps_nothing(SSL *ssl, SSL_SESSION *session)
{
    (void)ssl;
    (void)session;
    return 0;
}

/* The library refuses such an SSL_CTX, and changes nothing of it. */
static void session_callbacks(SSL_CTX *ctx)
{
    SSL_CTX_sess_set_new_cb(ctx, keeps_nothing);
}

/* Another SSL with the settings of the first serves each client. */
static SSL *through_ssl_dup(SSL *ssl)
{
    SSL *copy = SSL_dup(ssl);

    CHECK(copy != NULL, "SSL_dup");
    SSL_free(ssl);
    return copy;
}

/* A library context of the server's own, and none of OpenSSL's algorithms in the default one. */
static SSL_CTX *own_library_context(void)
{
    static OSSL_LIB_CTX *own;
    const struct credentials *made = tls_credentials(SERVER_P256);
    SSL_CTX *ctx;

    if (own == NULL) {
        own = OSSL_LIB_CTX_new();
        CHECK(own != NULL && OSSL_PROVIDER_load(own, "default") != NULL, "no library context");
    }
    ctx = SSL_CTX_new_ex(own, NULL, TLS_server_method());
    CHECK(ctx != NULL && SSL_CTX_use_certificate(ctx, made->certificate) == 1 &&
          SSL_CTX_use_PrivateKey(ctx, made->key) == 1 &&
          SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"tests", 5) == 1, "no SSL_CTX in a library context");
    return ctx;
}

static void empty_the_default_library_context(const char *scratch)
{
    (void)scratch;
    CHECK(EVP_set_default_properties(NULL, "provider=none") == 1, "EVP_set_default_properties");
}

static void demand_a_fips_module_that_is_missing(const char *scratch)
{
    (void)scratch;
    CHECK(EVP_set_default_properties(NULL, "fips=yes") == 1, "EVP_set_default_properties");
}

/* Both callbacks of stateless tickets, as ProFTPD sets them: every ticket may resume. */
static int adds_nothing(SSL *ssl, void *argument)
{
    (void)ssl;
    (void)argument;
    return 1;
}

static SSL_TICKET_RETURN lets_resume(SSL *ssl, SSL_SESSION *session, const unsigned char *name, size_t len,
                                     SSL_TICKET_STATUS status, void *argument)
{
    (void)ssl;
    (void)session;
    (void)name;
    (void)len;
    (void)argument;
    return status == SSL_TICKET_SUCCESS || status == SSL_TICKET_SUCCESS_RENEW ? SSL_TICKET_RETURN_USE_RENEW
                                                                              : SSL_TICKET_RETURN_IGNORE_RENEW;
}

static void ticket_callbacks(SSL_CTX *ctx)
{
    CHECK(SSL_CTX_set_session_ticket_cb(ctx, adds_nothing, lets_resume, NULL) == 1, "SSL_CTX_set_session_ticket_cb");
}

static const struct habit habits[] = {
    {.name = "one process", .model = ONE_PROCESS},
    {.name = "threads", .model = THREAD_PER_CONNECTION},
    {.name = "prefork", .model = PREFORK},
    {.name = "fork per connection, SSL_CTX in the listener", .model = FORK_PER_CONNECTION},
    {.name = "exec per connection", .model = EXEC_PER_CONNECTION},
    {.name = "SSL_CTX per connection", .model = CONTEXT_PER_CONNECTION},
    {.name = "prefork, SSL_CTX per connection", .model = PREFORK_CONTEXT_PER_CONNECTION},
    {.name = "one SSL_CTX for both roles", .model = ONE_PROCESS, .make = both_roles},
    {.name = "no session id context, threads", .model = THREAD_PER_CONNECTION, .context = no_id_context},
    {.name = "no session id context, fork per connection", .model = FORK_PER_CONNECTION, .context = no_id_context},
    {.name = "random session id context, one process", .model = ONE_PROCESS, .context = random_id_context},
    {.name = "cache off, random session id context of the master, prefork", .model = PREFORK,
     .context = cache_off_and_random_id_context},
    /* What one worker makes the other refuses, with any cache. */
    {.name = "random session id context of each worker, prefork", .model = PREFORK_CONTEXT_PER_WORKER,
     .context = random_id_context, .bar = BAR_OF_CHANCE},
    {.name = "asks for certificates", .model = FORK_PER_CONNECTION, .context = asks_for_certificates},
    {.name = "no tickets in TLS 1.3", .model = FORK_PER_CONNECTION, .context = no_tickets_by_itself, .version = TLS1_2_VERSION},
    {.name = "no tickets of its own, one on request", .model = ONE_PROCESS, .context = no_tickets_by_itself,
     .established = a_ticket_on_request, .version = TLS1_3_VERSION},
    {.name = "100 tickets for each connection", .model = ONE_PROCESS, .context = many_tickets, .version = TLS1_3_VERSION},
    {.name = "SSL used again after SSL_clear", .model = ONE_PROCESS, .used_again = 1},
    {.name = "SSL made by SSL_dup", .model = FORK_PER_CONNECTION, .made = through_ssl_dup},
    {.name = "timeout of 30 s", .model = PREFORK, .context = timeout_30_s},
    {.name = "timeout of 0", .model = ONE_PROCESS, .context = timeout_0},
    /* Before OpenSSL 3.2 nothing resumes with it; later it is an endless one. */
    {.name = "timeout of -1", .model = ONE_PROCESS, .context = timeout_negative, .bar = JUST_AS_IDS},
    {.name = "timeout of LONG_MAX", .model = ONE_PROCESS, .context = timeout_endless},
    {.name = "cleaned environment", .model = EXEC_PER_CONNECTION, .child = clean_environment},
    {.name = "closed descriptors", .model = FORK_PER_CONNECTION, .child = close_descriptors},
    {.name = "standard error goes to the client", .model = FORK_PER_CONNECTION, .child = errors_go_to_the_client},
    {.name = "RuntimeDirectory made anew after the start", .model = FORK_PER_CONNECTION, .listener = directory_is_made_anew},
    {.name = "RuntimeDirectory removed between two visits, one process", .model = ONE_PROCESS, .between = remove_the_directory},
    {.name = "RuntimeDirectory removed between two visits, threads", .model = THREAD_PER_CONNECTION,
     .between = remove_the_directory},
    {.name = "RuntimeDirectory made anew between two visits, one process", .model = ONE_PROCESS, .between = directory_is_made_anew},
    {.name = "RuntimeDirectory made anew between two visits, threads", .model = THREAD_PER_CONNECTION,
     .between = directory_is_made_anew},
    /* Nobody has the sessions any more. */
    {.name = "RuntimeDirectory removed between two visits, fork per connection", .model = FORK_PER_CONNECTION,
     .between = remove_the_directory, .bar = BAR_OF_IDS},
    {.name = "RLIMIT_AS that is enough", .model = FORK_PER_CONNECTION, .listener = limit_address_space},
    {.name = "ticket callbacks", .model = ONE_PROCESS, .context = ticket_callbacks},
    {.name = "ticket callbacks, tickets=host, fork per connection", .model = FORK_PER_CONNECTION, .context = ticket_callbacks,
     .options = "tickets=host"},
    {.name = "session callbacks of its own", .model = ONE_PROCESS, .context = session_callbacks},
    {.name = "own library context, the default one empty", .model = ONE_PROCESS, .make = own_library_context,
     .listener = empty_the_default_library_context},
    {.name = "own library context, fips=yes without the module", .model = ONE_PROCESS, .make = own_library_context,
     .listener = demand_a_fips_module_that_is_missing},
    {.name = "RLIMIT_AS below the capacity, one process", .model = ONE_PROCESS, .options = "capacity=1GiB",
     .listener = limit_address_space_below_the_capacity},
    {.name = "RLIMIT_AS below the capacity, fork per connection", .model = FORK_PER_CONNECTION, .options = "capacity=1GiB",
     .listener = limit_address_space_below_the_capacity},
    {.name = "seccomp filter without statx", .model = FORK_PER_CONNECTION, .listener = refuse_statx},
    {.name = "seccomp filter that answers EPERM", .model = FORK_PER_CONNECTION, .listener = refuse_calls},
    {.name = "seccomp filter that kills, one process", .model = ONE_PROCESS, .holds = 1, .listener = kill_at_other_calls},
    {.name = "seccomp filter that kills, threads", .model = THREAD_PER_CONNECTION, .holds = 1, .listener = kill_at_other_calls},
    {.name = "seccomp filter that kills, fork per connection", .model = FORK_PER_CONNECTION, .holds = 1,
     .listener = kill_at_other_calls},
};

/* These take rights of root's. */
static const struct habit of_root[] = {
    {.name = "hidden /proc", .model = FORK_PER_CONNECTION, .listener = hide_proc},
    {.name = "chroot and setuid before the first handshake, one process", .model = ONE_PROCESS, .listener = leave_the_file_system},
    {.name = "chroot and setuid before the first handshake, threads", .model = THREAD_PER_CONNECTION,
     .listener = leave_the_file_system},
    {.name = "chroot and setuid in each child", .model = FORK_PER_CONNECTION, .child = leave_the_file_system_in_the_child},
    {.name = "chroot and setuid, prefork", .model = PREFORK, .listener = leave_the_file_system},
    {.name = "exec per connection, SSL_CTX made in a chroot", .model = EXEC_PER_CONNECTION, .child = make_the_context_in_a_chroot},
    {.name = "file system full, one process", .model = ONE_PROCESS, .listener = fill_the_file_system},
    {.name = "file system full, fork per connection", .model = FORK_PER_CONNECTION, .listener = fill_the_file_system},
    {.name = "setuid in each child, owner=", .model = FORK_PER_CONNECTION, .child = change_user, .options = "owner=65534"},
};

static void no_habit_of_a_server_loses_a_session_by_the_cache(const char *scratch)
{
    habits_compare(habits, TESTS(habits), scratch);
}

static void no_habit_of_a_server_of_root_loses_a_session_by_the_cache(const char *scratch)
{
    if (geteuid() != 0)
        check_not_tried("it takes root");
    CHECK(chmod(scratch, 0711) == 0, "chmod: %s", strerror(errno));
    habits_compare(of_root, TESTS(of_root), scratch);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(no_habit_of_a_server_loses_a_session_by_the_cache),
        TEST(no_habit_of_a_server_of_root_loses_a_session_by_the_cache),
    };

    habit_serve_one(argc, argv, habits, TESTS(habits));
    habit_serve_one(argc, argv, of_root, TESTS(of_root));
    return check_main(argc, argv, tests, TESTS(tests));
}
