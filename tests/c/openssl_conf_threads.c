/*
 * The configuration module of OpenSSL in programs with threads: one configures an SSL_CTX, or makes a connection, or forks, while another
 * attaches.
 */
#include "openssl_conf.h"

#include <pthread.h>

static void *serve(void *unused)
{
    SSL_CTX *serving = tls_server();

    (void)unused;
    use(serving);
    CHECK(is_attached(serving), "it is not attached at its own first connection");
    return serving;
}

static void a_connection_leaves_an_ssl_ctx_that_another_thread_configures_alone(const char *scratch)
{
    SSL_CTX *being_made;
    pthread_t thread;
    void *serving;

    configure(scratch, "");
    being_made = tls_server();
    CHECK(pthread_create(&thread, NULL, serve, NULL) == 0 && pthread_join(thread, &serving) == 0, "a thread");
    CHECK(!is_attached(being_made), "another SSL_CTX than that of the connection is attached");
    use(being_made);
    CHECK(is_attached(being_made), "it is not attached at its own first connection");
    SSL_CTX_free(being_made);
    SSL_CTX_free(serving);
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

    CHECK(CRYPTO_set_mem_functions(get, grow, put) == 1 && pipe(reached) == 0 && pipe(go_on) == 0, "no such preparations");
    configure(scratch, "");
    first = SSL_CTX_new(TLS_server_method());
    /* So that the ex_data of an SSL_CTX grows when attach puts something into it. */
    for (int i = 0; i < 10; i++)
        CHECK(SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, NULL) > 0, "no index");
    use(first);
    SSL_CTX_free(first);
    second = SSL_CTX_new(TLS_server_method());
    /* From OpenSSL 3.2 on the module is not told whose connection it is, and leaves another thread's SSL_CTX alone for a second. */
    if (OpenSSL_version_num() >= 0x30200000L)
        sleep(2);
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

static void what_a_thread_sets_while_another_attaches_stays(const char *scratch)
{
    pthread_t thread;
    SSL_CTX *ctx = attached_slowly(scratch, &thread);
    const struct credentials *own = tls_credentials(SERVER_P256);
    struct outcome first;
    char c = 0;

    SSL_CTX_set_options(ctx, SSL_OP_CIPHER_SERVER_PREFERENCE);
    CHECK(SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"ours", 4) == 1, "the context");
    CHECK(SSL_CTX_use_certificate(ctx, own->certificate) == 1 && SSL_CTX_use_PrivateKey(ctx, own->key) == 1, "the certificate");
    CHECK(write(go_on[1], &c, 1) == 1 && pthread_join(thread, NULL) == 0, "pthread_join");
    CHECK(is_attached(ctx) && SSL_CTX_get_options(ctx) & SSL_OP_CIPHER_SERVER_PREFERENCE, "an option of the program's is gone");
    first = tls_here(ctx, (struct visit){.version = TLS1_3_VERSION});
    CHECK(tls_here(ctx, (struct visit){.version = TLS1_3_VERSION, .offer = &first.newest}).resumed, "the server resumes nothing");
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
        TEST(a_connection_leaves_an_ssl_ctx_that_another_thread_configures_alone),
        TEST(a_connection_made_while_another_thread_attaches_has_what_attach_sets),
        TEST(what_a_thread_sets_while_another_attaches_stays),
        TEST(a_child_forked_in_the_midst_of_attach_does_not_wait_and_attaches),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
