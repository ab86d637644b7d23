/*
 * The configuration module of OpenSSL: which SSL_CTXs of a program that knows nothing of it are attached, which never, and that
 * nothing of it stays where the program wants its own.
 */
#include "check.h"
#include "tls.h"

#include <dlfcn.h>
#include <pthread.h>

/* OpenSSL reads its configuration at the first call, which each test makes in a process of its own. */
static char *configure(const char *scratch, const char *settings)
{
    char *path = path_in(scratch, "openssl.cnf"), *store = store_in(scratch);
    FILE *file = fopen(path, "w");
    Dl_info library;

    CHECK(dladdr((void *)(size_t)sesscache_open, &library) != 0, "where is the library?");
    CHECK(file != NULL && fprintf(file, "openssl_conf = init\n[init]\nsesscache = ours\n[ours]\npath = %.*s/sesscache/openssl_conf.so\n"
                                        "directory = %s\n%s\n",
                                  (int)(strrchr(library.dli_fname, '/') - library.dli_fname), library.dli_fname, store, settings) > 0
          && fclose(file) == 0, "no configuration file");
    CHECK(setenv("OPENSSL_CONF", path, 1) == 0, "setenv");
    return store;
}

static int is_attached(SSL_CTX *ctx)
{
    return SSL_CTX_sess_get_new_cb(ctx) != NULL && SSL_CTX_sess_get_get_cb(ctx) != NULL && SSL_CTX_sess_get_remove_cb(ctx) != NULL;
}

/* Has the context make a connection. */
static void use(SSL_CTX *ctx)
{
    SSL *ssl = SSL_new(ctx);

    CHECK(ssl != NULL, "SSL_new");
    SSL_free(ssl);
}

static void the_first_connection_of_a_server_resumes_elsewhere(const char *scratch)
{
    char *store = configure(scratch, "");

    for (int v = 0; v < 2; v++) {
        SSL_CTX *server = tls_server();
        SSL *ssl = SSL_new(server);
        const uint64_t ours = SSL_OP_NO_TICKET | SSL_OP_NO_ANTI_REPLAY;
        struct outcome first;

        /* tls_here makes the client first, which is a connection, too. */
        CHECK(is_attached(server), "%s: the SSL_CTX is not attached", tls_name(tls_versions[v]));
        CHECK((SSL_get_options(ssl) & ours) == ours, "the first connection would issue a stateless ticket");
        SSL_free(ssl);
        first = tls_here(server, (struct visit){.version = tls_versions[v]});
        CHECK(tls_resumes_elsewhere(store, NULL, tls_versions[v], &first.newest),
              "%s: the session of the first connection is in no store", tls_name(tls_versions[v]));
        SSL_CTX_free(server);
    }
}

static void a_general_method_with_a_certificate_is_a_server(const char *scratch)
{
    SSL_CTX *general;

    configure(scratch, "");
    general = SSL_CTX_new(TLS_method());
    CHECK(SSL_CTX_use_certificate(general, tls_credentials(SERVER_P256)->certificate) == 1, "the certificate");
    use(general);
    CHECK(is_attached(general), "a server with TLS_method() is not attached");
    SSL_CTX_free(general);
}

static void a_clients_context_stays_as_it_is(const char *scratch)
{
    const SSL_METHOD *const methods[] = {TLS_client_method(), TLS_method(), DTLS_client_method()};
    SSL_CTX *server;

    configure(scratch, "force = yes\nsession_id_context = x");
    server = tls_server();
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        SSL_CTX *client = SSL_CTX_new(methods[i]);
        uint64_t options = SSL_CTX_get_options(client);
        long mode = SSL_CTX_get_session_cache_mode(client);

        /* One that a client shows. */
        if (methods[i] != TLS_method())
            CHECK(SSL_CTX_use_certificate(client, tls_credentials(CLIENT_P256)->certificate) == 1, "the certificate");
        for (int n = 0; n < 50; n++) {
            use(client);
            use(server);
        }
        CHECK(!is_attached(client) && SSL_CTX_get_options(client) == options && SSL_CTX_get_session_cache_mode(client) == mode,
              "the SSL_CTX of a client, %zu, is changed", i);
        SSL_CTX_free(client);
    }
    CHECK(is_attached(server), "the server beside it is not attached");
    SSL_CTX_free(server);
}

static int host_new(SSL *ssl, SSL_SESSION *session)
{
    (void)ssl, (void)session;
    return 0;
}

static void callbacks_of_the_program_win_and_nothing_of_ours_stays(const char *scratch)
{
    SSL_CTX *before, *after;
    uint64_t options;
    long mode;

    configure(scratch, "");
    before = tls_server();
    after = tls_server();
    options = SSL_CTX_get_options(before);
    mode = SSL_CTX_get_session_cache_mode(before);
    SSL_CTX_sess_set_new_cb(before, host_new);
    use(before);
    use(after);
    CHECK(is_attached(after), "a server is not attached");
    SSL_CTX_sess_set_new_cb(after, host_new);
    for (int i = 0; i < 2; i++) {
        SSL_CTX *ctx = i == 0 ? before : after;
        SSL *ssl = SSL_new(ctx);

        /* In OpenSSL 3.2 and later an SSL_CTX is let go at the next connection of any. */
        SSL_free(ssl);
        ssl = SSL_new(ctx);
        CHECK(SSL_CTX_sess_get_new_cb(ctx) == host_new && SSL_CTX_sess_get_get_cb(ctx) == NULL
              && SSL_CTX_sess_get_remove_cb(ctx) == NULL, "callback set %s: one is ours", i == 0 ? "before" : "after");
        CHECK(SSL_CTX_get_options(ctx) == options && SSL_get_options(ssl) == options && SSL_CTX_get_session_cache_mode(ctx) == mode,
              "callback set %s: options or mode of ours stay", i == 0 ? "before" : "after");
        SSL_free(ssl);
        CHECK(tls_here(ctx, (struct visit){.version = TLS1_3_VERSION}).given > 0, "no tickets any more");
        SSL_CTX_free(ctx);
    }
}

static void a_cache_that_is_switched_off_stays_off_unless_forced(const char *scratch)
{
    SSL_CTX *off;

    configure(scratch, "");
    off = tls_server();
    SSL_CTX_set_session_cache_mode(off, SSL_SESS_CACHE_OFF);
    use(off);
    CHECK(!is_attached(off) && SSL_CTX_get_session_cache_mode(off) == SSL_SESS_CACHE_OFF, "it is attached");
    SSL_CTX_free(off);
}

static void force_attaches_where_the_cache_is_switched_off(const char *scratch)
{
    SSL_CTX *off;

    configure(scratch, "force = yes");
    off = tls_server();
    SSL_CTX_set_session_cache_mode(off, SSL_SESS_CACHE_OFF);
    use(off);
    CHECK(is_attached(off), "force = yes has no effect");
    SSL_CTX_free(off);
}

/* How many clients of a server resume that it knows. */
static int resumed_of_two(SSL_CTX *server)
{
    int resumed = 0;

    for (int v = 0; v < 2; v++) {
        struct outcome first = tls_here(server, (struct visit){.version = tls_versions[v]});

        CHECK(first.newest.len > 0, "%s: no session", tls_name(tls_versions[v]));
        resumed += tls_here(server, (struct visit){.version = tls_versions[v], .offer = &first.newest}).resumed;
    }
    return resumed;
}

/* Programs make an SSL to list the ciphers of an SSL_CTX. */
static void a_cache_that_is_switched_off_after_an_ssl_leaves_the_tickets(const char *scratch)
{
    SSL_CTX *off;
    uint64_t options;

    configure(scratch, "");
    off = tls_server();
    options = SSL_CTX_get_options(off);
    use(off);
    SSL_CTX_set_session_cache_mode(off, SSL_SESS_CACHE_OFF);
    CHECK(resumed_of_two(off) == 2, "a program that relies on tickets resumes nothing");
    CHECK(!is_attached(off) && SSL_CTX_get_options(off) == options && SSL_CTX_get_session_cache_mode(off) == SSL_SESS_CACHE_OFF,
          "something of ours stays");
    SSL_CTX_free(off);
}

static void force_attaches_again_what_is_switched_off_after_an_ssl(const char *scratch)
{
    char *store = configure(scratch, "force = yes");
    SSL_CTX *off = tls_server();
    struct outcome first;

    use(off);
    SSL_CTX_set_session_cache_mode(off, SSL_SESS_CACHE_OFF);
    first = tls_here(off, (struct visit){.version = TLS1_2_VERSION});
    CHECK(tls_resumes_elsewhere(store, NULL, TLS1_2_VERSION, &first.newest), "its session is in no store");
    SSL_CTX_free(off);
}

static void a_connection_leaves_an_ssl_ctx_that_is_being_configured_alone(const char *scratch)
{
    SSL_CTX *serving, *being_made;

    /* In OpenSSL 3.2 and later nobody knows whose connection it is. */
    if (OpenSSL_version_num() >= 0x30200000L)
        return;
    configure(scratch, "");
    serving = tls_server();
    being_made = tls_server();
    use(serving);
    CHECK(is_attached(serving) && !is_attached(being_made), "another SSL_CTX than that of the connection is attached");
    use(being_made);
    CHECK(is_attached(being_made), "it is not attached at its own first connection");
    SSL_CTX_free(being_made);
    SSL_CTX_free(serving);
}

static void programs_that_are_not_named_are_left_alone(const char *scratch)
{
    SSL_CTX *server;
    char *store = configure(scratch, "programs = other, openssl_con openssl_conf2");

    server = tls_server();
    use(server);
    CHECK(!is_attached(server), "a program is attached that is not named");
    CHECK(access(store, F_OK) != 0, "it has a directory");
    SSL_CTX_free(server);
}

static void a_program_that_is_named_is_attached(const char *scratch)
{
    SSL_CTX *server;

    configure(scratch, "programs = other,openssl_conf");
    server = tls_server();
    use(server);
    CHECK(is_attached(server), "a program is not attached that is named");
    SSL_CTX_free(server);
}

static void the_directory_may_have_the_name_of_the_program(const char *scratch)
{
    char *path = path_in(scratch, "of-openssl_conf-");
    SSL_CTX *server;
    char *settings;

    CHECK(asprintf(&settings, "directory = %s/of-%%p-", scratch) > 0, "memory");
    configure(scratch, settings);
    server = tls_server();
    use(server);
    CHECK(access(path, F_OK) == 0, "%s is not there", path);
    SSL_CTX_free(server);
}

static void a_random_session_id_context_is_replaced(const char *scratch)
{
    struct outcome out = {.given = 0};

    configure(scratch, "session_id_context = the same");
    for (int v = 0; v < 2; v++)
        for (int n = 0; n < 3; n++) {
            SSL_CTX *server = tls_server();
            unsigned char random[8] = {(unsigned char)(n + 1)};

            CHECK(SSL_CTX_set_session_id_context(server, random, sizeof random) == 1, "the context");
            out = tls_here(server, (struct visit){.version = tls_versions[v], .offer = n > 0 ? &out.newest : NULL});
            CHECK(out.resumed == (n > 0), "%s: SSL_CTX %d", tls_name(tls_versions[v]), n);
            SSL_CTX_free(server);
        }
}

static void a_directory_that_cannot_be_used_costs_no_handshake(const char *scratch)
{
    char *store = configure(scratch, "");
    FILE *file = fopen(store, "w");
    SSL_CTX *server;
    struct outcome first;

    CHECK(file != NULL && fclose(file) == 0, "no file in its place");
    server = tls_server();
    for (int v = 0; v < 2; v++) {
        first = tls_here(server, (struct visit){.version = tls_versions[v]});
        CHECK(!is_attached(server) && tls_here(server, (struct visit){.version = tls_versions[v], .offer = &first.newest}).resumed,
              "%s: the server does not do what it does without the module", tls_name(tls_versions[v]));
    }
    CHECK(unlink(store) == 0 && sleep(2) == 0, "unlink");
    use(server);
    CHECK(is_attached(server), "the server is not attached when the directory can be made");
    SSL_CTX_free(server);
}

static void errno_and_the_error_queue_stay(const char *scratch)
{
    SSL_CTX *server;

    configure(scratch, "options = nonsense");
    CHECK(OPENSSL_init_ssl(0, NULL) == 1 && ERR_peek_error() == 0, "errors of the configuration are left in the queue");
    server = tls_server();
    ERR_raise(ERR_LIB_USER, 17);
    errno = 42;
    use(server);
    CHECK(errno == 42, "errno is changed");
    CHECK(ERR_GET_REASON(ERR_get_error()) == 17 && ERR_get_error() == 0, "the error queue is changed");
    SSL_CTX_free(server);
}

static pthread_t attaching;
static _Atomic int armed;
static int reached[2], go_on[2];

/* OpenSSL's memory: the thread that attaches stops here, in the midst of it. */
static void *grow(void *memory, size_t size, const char *file, int line)
{
    char c = 0;

    (void)file, (void)line;
    if (armed && pthread_equal(pthread_self(), attaching)) {
        armed = 0;
        if (write(reached[1], &c, 1) != 1 || read(go_on[0], &c, 1) != 1)
            abort();
    }
    return realloc(memory, size);
}

static void *get(size_t size, const char *file, int line)
{
    (void)file, (void)line;
    return malloc(size);
}

static void put(void *memory, const char *file, int line)
{
    (void)file, (void)line;
    free(memory);
}

static void *attach_slowly(void *ctx)
{
    attaching = pthread_self();
    armed = 1;
    use(ctx);
    return NULL;
}

/* An SSL_CTX that the thread is in the midst of attaching, until it is told to go on. */
static SSL_CTX *attached_slowly(const char *scratch, pthread_t *thread)
{
    SSL_CTX *first, *second;
    char c = 0;

    /* There the module is not told whose connection it is, and leaves another thread's SSL_CTX alone for a second. */
    if (OpenSSL_version_num() >= 0x30200000L)
        check_not_tried("from OpenSSL 3.2 on no thread attaches what another has just made");
    CHECK(CRYPTO_set_mem_functions(get, grow, put) == 1 && pipe(reached) == 0 && pipe(go_on) == 0, "no such preparations");
    configure(scratch, "");
    first = SSL_CTX_new(TLS_server_method());
    /* So that the ex_data of an SSL_CTX grows when attach puts something into it. */
    for (int i = 0; i < 10; i++)
        CHECK(SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, NULL) > 0, "no index");
    use(first);
    SSL_CTX_free(first);
    second = SSL_CTX_new(TLS_server_method());
    CHECK(pthread_create(thread, NULL, attach_slowly, second) == 0 && read(reached[0], &c, 1) == 1, "attach takes no memory");
    return second;
}

static void *make_connection(void *ctx)
{
    return SSL_new(ctx);
}

static void a_connection_made_while_another_thread_attaches_has_what_attach_sets(const char *scratch)
{
    pthread_t thread, meanwhile;
    SSL_CTX *ctx = attached_slowly(scratch, &thread);
    void *ssl;
    char c = 0;

    CHECK(pthread_create(&meanwhile, NULL, make_connection, ctx) == 0 && usleep(200000) == 0, "pthread_create");
    CHECK(write(go_on[1], &c, 1) == 1 && pthread_join(thread, NULL) == 0 && pthread_join(meanwhile, &ssl) == 0, "pthread_join");
    CHECK(is_attached(ctx), "the SSL_CTX is not attached");
    CHECK(SSL_get_options(ssl) & SSL_OP_NO_TICKET, "the connection would issue tickets that the SSL_CTX refuses");
    SSL_free(ssl);
    SSL_CTX_free(ctx);
}

static void a_child_forked_in_the_midst_of_attach_does_not_wait_and_attaches(const char *scratch)
{
    pthread_t thread;
    SSL_CTX *second = attached_slowly(scratch, &thread);
    pid_t pid;
    char c = 0;

    pid = check_fork();
    if (pid == 0) {
        for (int i = 0; i < 2; i++)
            use(second);
        CHECK(is_attached(second), "the SSL_CTX is never attached in a child");
        SSL_CTX_free(second);
        _exit(0);
    }
    check_wait(pid, "a child forked while another thread attaches");
    CHECK(write(go_on[1], &c, 1) == 1 && pthread_join(thread, NULL) == 0, "pthread_join");
    CHECK(is_attached(second), "the SSL_CTX is not attached");
    SSL_CTX_free(second);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(the_first_connection_of_a_server_resumes_elsewhere),
        TEST(a_general_method_with_a_certificate_is_a_server),
        TEST(a_clients_context_stays_as_it_is),
        TEST(callbacks_of_the_program_win_and_nothing_of_ours_stays),
        TEST(a_cache_that_is_switched_off_stays_off_unless_forced),
        TEST(force_attaches_where_the_cache_is_switched_off),
        TEST(a_cache_that_is_switched_off_after_an_ssl_leaves_the_tickets),
        TEST(force_attaches_again_what_is_switched_off_after_an_ssl),
        TEST(a_connection_leaves_an_ssl_ctx_that_is_being_configured_alone),
        TEST(programs_that_are_not_named_are_left_alone),
        TEST(a_program_that_is_named_is_attached),
        TEST(the_directory_may_have_the_name_of_the_program),
        TEST(a_random_session_id_context_is_replaced),
        TEST(a_directory_that_cannot_be_used_costs_no_handshake),
        TEST(errno_and_the_error_queue_stay),
        TEST(a_connection_made_while_another_thread_attaches_has_what_attach_sets),
        TEST(a_child_forked_in_the_midst_of_attach_does_not_wait_and_attaches),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
