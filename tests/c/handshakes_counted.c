/*
 * An operator asks how many handshakes resumed. Each one is counted once, as full or as resumed, whatever SSL_CTX, process or cache
 * had a part in it; and where sessions are found and nothing resumes, the figures say so, and a message why.
 */
#include "check.h"
#include "tls.h"

static int messages;
static char last_message[512];

static void on_message(void *userdata, int level, const char *message)
{
    (void)userdata;
    (void)level;
    messages++;
    snprintf(last_message, sizeof last_message, "%s", message);
}

static sesscache *watched(const char *store)
{
    sesscache *cache;

    CHECK_OK(sesscache_open(store, "disk=on", &cache));
    sesscache_set_log(cache, on_message, NULL);
    return cache;
}

static SSL_CTX *served(sesscache *cache)
{
    SSL_CTX *ctx = tls_server();

    CHECK_OK(sesscache_attach(cache, ctx));
    return ctx;
}

static void expect(sesscache *cache, const char *what, uint64_t full, uint64_t resumed)
{
    sesscache_stats stats = tls_stats(cache);

    CHECK(stats.handshakes_full == full && stats.handshakes_resumed == resumed,
          "%s: %llu full and %llu resumed are counted, not %llu and %llu", what, (unsigned long long)stats.handshakes_full,
          (unsigned long long)stats.handshakes_resumed, (unsigned long long)full, (unsigned long long)resumed);
}

static void every_handshake_is_counted_once_in_every_process(const char *scratch)
{
    char *store = store_in(scratch);
    sesscache *cache = watched(store);
    SSL_CTX *ctx = served(cache);
    uint64_t full = 0, resumed = 0;

    for (int i = 0; i < 2; i++) {
        struct visit visit = {.version = tls_versions[i]};
        struct outcome out = tls_here(ctx, visit);

        visit.offer = &out.newest;
        expect(cache, "a full handshake", ++full, resumed);
        out = tls_here(ctx, visit);
        expect(cache, "a resumption in the process that made the session", full, ++resumed);
        out = tls_child(ctx, visit);
        expect(cache, "a resumption in a child", full, ++resumed);
        out = tls_elsewhere(store, NULL, visit);
        expect(cache, "a resumption elsewhere", full, ++resumed);
        visit.offer = NULL;
        (void)tls_child(ctx, visit);
        (void)tls_elsewhere(store, NULL, visit);
        expect(cache, "full handshakes in other processes", full += 2, resumed);
    }
    SSL_CTX_free(ctx);
    expect(cache, "the SSL_CTX is freed", full, resumed);
    sesscache_close(cache);
}

/* A connection that is open when the process forks is the parent's to count. */
static void a_forked_child_counts_nothing_of_its_parent(const char *scratch)
{
    sesscache *cache = watched(store_in(scratch));
    SSL_CTX *ctx = served(cache);
    struct outcome first = tls_here(ctx, (struct visit){.version = TLS1_2_VERSION});
    struct visit again = {.version = TLS1_2_VERSION, .offer = &first.newest};
    struct pair *open = tls_pair(ctx, again);

    tls_talk(open);
    for (int i = 0; i < 3; i++)
        CHECK(tls_child(ctx, again).resumed, "a session does not resume in a child");
    expect(cache, "three children", 1, 3);
    tls_end(open);
    expect(cache, "and their parent", 1, 4);
    SSL_CTX_free(ctx);
    sesscache_close(cache);
}

/* OpenSSL has counted the end of a TLS 1.3 handshake when its ticket is made, and that of a TLS 1.2 handshake later. */
static void a_childs_first_handshake_costs_no_resumption(const char *scratch)
{
    sesscache *cache = watched(store_in(scratch));
    SSL_CTX *ctx = served(cache);
    uint64_t each = 0;

    for (int i = 0; i < 2; i++) {
        pid_t pid = check_fork();

        if (pid == 0) {
            struct outcome first = tls_here(ctx, (struct visit){.version = tls_versions[i]});
            struct outcome second = tls_here(ctx, (struct visit){.version = TLS1_2_VERSION});

            CHECK(tls_here(ctx, (struct visit){.version = tls_versions[i], .offer = &first.newest}).resumed, "the first session");
            CHECK(tls_here(ctx, (struct visit){.version = TLS1_2_VERSION, .offer = &second.newest}).resumed, "the second session");
            _exit(0);
        }
        check_wait(pid, "a child");
        each += 2;
        expect(cache, tls_name(tls_versions[i]), each, each);
    }
    SSL_CTX_free(ctx);
    sesscache_close(cache);
}

static void a_retried_hello_is_one_handshake(const char *scratch)
{
    sesscache *cache = watched(store_in(scratch));
    SSL_CTX *ctx = served(cache);

    CHECK(SSL_CTX_set1_groups_list(ctx, "P-384") == 1, "SSL_CTX_set1_groups_list");
    struct visit visit = {.version = TLS1_3_VERSION, .groups = "X25519:P-384"};
    struct outcome out = tls_here(ctx, visit);

    visit.offer = &out.newest;
    out = tls_here(ctx, visit);
    CHECK(out.resumed && out.hellos == 2, "no HelloRetryRequest");
    expect(cache, "a HelloRetryRequest", 1, 1);
    SSL_CTX_free(ctx);
    sesscache_close(cache);
}

static SSL_CTX *switched_to;

static int switch_context(SSL *ssl, int *alert, void *argument)
{
    (void)alert;
    (void)argument;
    SSL_set_SSL_CTX(ssl, switched_to);
    return SSL_TLSEXT_ERR_OK;
}

static void a_switch_by_server_name_counts_in_either_context(const char *scratch)
{
    sesscache *cache = watched(store_in(scratch));
    SSL_CTX *ctx = served(cache);

    switched_to = served(cache);
    SSL_CTX_set_tlsext_servername_callback(ctx, switch_context);
    for (int i = 0; i < 2; i++) {
        struct visit visit = {.version = tls_versions[i], .name = "a.example"};
        struct outcome out = tls_here(ctx, visit);

        visit.offer = &out.newest;
        CHECK(tls_here(ctx, visit).resumed, "%s: a session does not resume", tls_name(tls_versions[i]));
    }
    SSL_CTX_free(ctx);
    SSL_CTX_free(switched_to);
    expect(cache, "a switch", 2, 2);
    sesscache_close(cache);
}

/* OpenSSL counts sessions found for handshakes of clients and of handshakes that fail under the same number. */
/* The counters of OpenSSL that tell of a handshake's end are those of the SSL_CTX that has no cache, or another one. */
static void a_switch_to_a_foreign_context_counts_where_the_connection_began(const char *scratch)
{
    for (int attached = 0; attached < 2; attached++) {
        sesscache *cache = watched(path_in(scratch, attached ? "first" : "alone")), *second = watched(path_in(scratch, "second"));
        SSL_CTX *ctx = served(cache), *plain = served(cache);
        uint64_t full = 0, resumed = 0;

        switched_to = attached ? served(second) : tls_server();
        SSL_CTX_set_tlsext_servername_callback(ctx, switch_context);
        for (int n = 0; n < 6; n++) {
            struct visit visit = {.version = tls_versions[n % 2], .name = "a.example"};
            SSL_CTX *to = n < 4 ? ctx : plain;
            struct outcome out = tls_here(to, visit);

            visit.offer = &out.newest;
            expect(cache, "a full handshake", ++full, resumed);
            for (int again = 0; again < 2; again++) {
                CHECK(tls_here(to, visit).resumed, "%s: a session does not resume", tls_name(visit.version));
                (void)tls_here(plain, (struct visit){.version = tls_versions[again]});
                expect(cache, "a resumption and a full handshake", ++full, ++resumed);
            }
        }
        SSL_CTX_free(ctx);
        SSL_CTX_free(plain);
        SSL_CTX_free(switched_to);
        expect(cache, "all", full, resumed);
        expect(second, "the cache of the other SSL_CTX", 0, 0);
        sesscache_close(cache);
        sesscache_close(second);
    }
}

static void what_a_client_resumes_is_no_resumption_of_the_server(const char *scratch)
{
    sesscache *cache = watched(store_in(scratch));
    SSL_CTX *both = SSL_CTX_new(TLS_method()), *other = tls_server();
    const struct credentials *own = tls_credentials(SERVER_P256);
    SSL_SESSION *session = NULL;

    CHECK(both != NULL && SSL_CTX_use_certificate(both, own->certificate) == 1 &&
          SSL_CTX_use_PrivateKey(both, own->key) == 1, "no SSL_CTX for both roles");
    CHECK_OK(sesscache_attach(cache, both));
    for (int i = 0; i < 5; i++) {
        SSL *client = SSL_new(both), *server = SSL_new(other);
        BIO *to_server, *to_client;

        CHECK(client != NULL && server != NULL && BIO_new_bio_pair(&to_server, 0, &to_client, 0) == 1 &&
              SSL_set_max_proto_version(client, TLS1_2_VERSION) == 1, "no connection");
        SSL_set_bio(client, to_server, to_server);
        SSL_set_bio(server, to_client, to_client);
        SSL_set_connect_state(client);
        SSL_set_accept_state(server);
        CHECK(session == NULL || SSL_set_session(client, session) == 1, "SSL_set_session");
        for (int step = 0; step < 4; step++) {
            (void)SSL_do_handshake(client);
            (void)SSL_do_handshake(server);
        }
        CHECK(SSL_is_init_finished(client) && SSL_session_reused(client) == (session != NULL), "the client does not resume");
        SSL_SESSION_free(session);
        session = SSL_get1_session(client);
        SSL_set_shutdown(client, SSL_SENT_SHUTDOWN);
        SSL_set_shutdown(server, SSL_SENT_SHUTDOWN);
        SSL_free(client);
        SSL_free(server);
        ERR_clear_error();
    }
    SSL_SESSION_free(session);
    for (int i = 0; i < 4; i++)
        (void)tls_here(both, (struct visit){.version = tls_versions[i % 2]});
    SSL_CTX_free(both);
    expect(cache, "an SSL_CTX for both roles", 4, 0);
    SSL_CTX_free(other);
    sesscache_close(cache);
}

static void tickets_of_the_host_count_as_what_they_are(const char *scratch)
{
    sesscache *cache = watched(store_in(scratch));
    SSL_CTX *ctx = served(cache);

    SSL_CTX_clear_options(ctx, SSL_OP_NO_TICKET);
    for (int i = 0; i < 2; i++) {
        struct visit visit = {.version = tls_versions[i]};
        struct outcome out = tls_here(ctx, visit);

        visit.offer = &out.newest;
        for (int n = 0; n < 3; n++)
            CHECK(tls_here(ctx, visit).resumed, "%s: a ticket does not resume", tls_name(tls_versions[i]));
    }
    SSL_CTX_free(ctx);
    expect(cache, "stateless tickets", 2, 6);
    sesscache_close(cache);
}

static SSL_CTX *with_context(sesscache *cache, const char *context)
{
    SSL_CTX *ctx = served(cache);

    CHECK(SSL_CTX_set_session_id_context(ctx, (const unsigned char *)context, (unsigned)strlen(context)) == 1,
          "SSL_CTX_set_session_id_context");
    return ctx;
}

static void sessions_that_openssl_refuses_are_no_success(const char *scratch)
{
    sesscache *cache = watched(store_in(scratch));
    SSL_CTX *one = with_context(cache, "one"), *two = with_context(cache, "two");
    uint64_t refused = 0;

    for (int i = 0; i < 2; i++) {
        for (int n = 0; n < 5; n++) {
            struct visit visit = {.version = tls_versions[i]};
            struct outcome out = tls_here(one, visit);

            visit.offer = &out.newest;
            CHECK(!tls_here(two, visit).resumed, "a session resumes under another session id context");
            refused++;
        }
    }
    sesscache_stats stats = tls_stats(cache);

    expect(cache, "two contexts", 20, 0);
    CHECK(stats.hits == refused && stats.hits_refused == refused, "%llu hits, %llu of them refused",
          (unsigned long long)stats.hits, (unsigned long long)stats.hits_refused);
    CHECK(messages == 1 && strstr(last_message, "SSL_CTX_set_session_id_context") != NULL, "%d messages: %s", messages,
          last_message);
    SSL_CTX_free(one);
    SSL_CTX_free(two);
    sesscache_close(cache);
}

/* SSL_clear keeps what belongs to the SSL: the session found for one client is not refused to the next. */
static void an_ssl_that_is_used_again_has_nothing_refused(const char *scratch)
{
    sesscache *cache = watched(store_in(scratch));
    SSL_CTX *ctx = served(cache), *client_ctx = SSL_CTX_new(TLS_client_method());
    struct outcome first = tls_here(ctx, (struct visit){.version = TLS1_2_VERSION});
    SSL *server = SSL_new(ctx);

    CHECK(server != NULL && client_ctx != NULL && SSL_CTX_set_max_proto_version(client_ctx, TLS1_2_VERSION) == 1,
          "out of memory");
    for (int n = 0; n < 6; n++) {
        SSL *client = SSL_new(client_ctx);
        BIO *to_server, *to_client;

        CHECK(client != NULL && BIO_new_bio_pair(&to_server, 0, &to_client, 0) == 1, "out of memory");
        SSL_set_bio(client, to_server, to_server);
        SSL_set_bio(server, to_client, to_client);
        SSL_set_connect_state(client);
        SSL_set_accept_state(server);
        if (n % 2 == 0) {
            SSL_SESSION *session = tls_load(&first.newest);

            CHECK(SSL_set_session(client, session) == 1, "SSL_set_session");
            SSL_SESSION_free(session);
        }
        for (int step = 0; step < 4; step++) {
            (void)SSL_do_handshake(client);
            (void)SSL_do_handshake(server);
        }
        CHECK(SSL_is_init_finished(server) && SSL_session_reused(server) == (n % 2 == 0), "visit %d", n);
        SSL_set_shutdown(server, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
        SSL_free(client);
        CHECK(SSL_clear(server) == 1, "SSL_clear");
    }
    SSL_free(server);
    CHECK(tls_stats(cache).hits_refused == 0 && messages == 0, "refused: %llu, %s",
          (unsigned long long)tls_stats(cache).hits_refused, last_message);
    expect(cache, "one SSL", 4, 3);
    SSL_CTX_free(client_ctx);
    SSL_CTX_free(ctx);
    sesscache_close(cache);
}

static int nothing_new(SSL *ssl, SSL_SESSION *session)
{
    (void)ssl;
    (void)session;
    return 0;
}

static SSL_SESSION *nothing_found(SSL *ssl, const unsigned char *id, int len, int *copy)
{
    (void)ssl;
    (void)id;
    (void)len;
    *copy = 0;
    return NULL;
}

static void what_the_program_changes_after_attaching_is_said_once(const char *scratch)
{
    static const struct {
        const char *what, *said;
        int kind;
    } changes[] = {
        {"new", "replaced a session callback", 0},
        {"get", "replaced a session callback", 1},
        {"off", "switched session caching off", 2},
    };

    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        sesscache *cache = watched(path_in(scratch, changes[i].what));
        SSL_CTX *ctx = served(cache);

        messages = 0;
        (void)tls_here(ctx, (struct visit){.version = TLS1_3_VERSION});
        CHECK(messages == 0, "%s: %s", changes[i].what, last_message);
        if (changes[i].kind == 0)
            SSL_CTX_sess_set_new_cb(ctx, nothing_new);
        else if (changes[i].kind == 1)
            SSL_CTX_sess_set_get_cb(ctx, nothing_found);
        else
            SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
        for (int n = 0; n < 6; n++)
            (void)tls_here(ctx, (struct visit){.version = tls_versions[n % 2]});
        CHECK(messages == 1 && strstr(last_message, changes[i].said) != NULL, "%s: %d messages: %s", changes[i].what, messages,
              last_message);
        SSL_CTX_free(ctx);
        expect(cache, changes[i].what, 7, 0);
        sesscache_close(cache);
    }
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(every_handshake_is_counted_once_in_every_process),
        TEST(a_forked_child_counts_nothing_of_its_parent),
        TEST(a_childs_first_handshake_costs_no_resumption),
        TEST(a_retried_hello_is_one_handshake),
        TEST(a_switch_by_server_name_counts_in_either_context),
        TEST(a_switch_to_a_foreign_context_counts_where_the_connection_began),
        TEST(what_a_client_resumes_is_no_resumption_of_the_server),
        TEST(tickets_of_the_host_count_as_what_they_are),
        TEST(sessions_that_openssl_refuses_are_no_success),
        TEST(an_ssl_that_is_used_again_has_nothing_refused),
        TEST(what_the_program_changes_after_attaching_is_said_once),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
