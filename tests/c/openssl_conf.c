/*
 * The configuration module of OpenSSL: which SSL_CTXs of a program that knows nothing of it are attached, which never, and that
 * nothing of it stays where the program wants its own.
 */
#include "openssl_conf.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

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

/* One connection between these two; the session that the client has after it, and whether it resumed the one that it offered. */
static SSL_SESSION *connect_both(SSL_CTX *client_ctx, SSL_CTX *server_ctx, SSL_SESSION *offer, int *resumed)
{
    SSL *client = SSL_new(client_ctx), *server = SSL_new(server_ctx);
    SSL_SESSION *session;
    BIO *one, *other;
    char byte;

    CHECK(client != NULL && server != NULL && BIO_new_bio_pair(&one, 0, &other, 0) == 1, "no connection");
    SSL_set_bio(client, one, one);
    SSL_set_bio(server, other, other);
    CHECK(offer == NULL || SSL_set_session(client, offer) == 1, "the session is not offered");
    SSL_set_connect_state(client);
    SSL_set_accept_state(server);
    for (int i = 0, done = 0; i < 10 && done < 2; i++)
        done = (SSL_do_handshake(client) == 1) + (SSL_do_handshake(server) == 1);
    CHECK(SSL_write(server, "x", 1) == 1 && SSL_read(client, &byte, 1) == 1, "the handshake failed");
    *resumed = SSL_session_reused(client);
    session = SSL_get1_session(client);
    SSL_shutdown(client);
    SSL_shutdown(server);
    SSL_free(client);
    SSL_free(server);
    return session;
}

/* Nobody can tell it from a server's: it is attached. Its connections succeed and resume; in TLS 1.2 they ask for no ticket. */
static void a_client_with_a_general_method_and_a_certificate_resumes(const char *scratch)
{
    const struct credentials *own;

    configure(scratch, "");
    own = tls_credentials(CLIENT_P256);
    for (int v = 0; v < 2; v++) {
        SSL_CTX *client = SSL_CTX_new(TLS_method()), *server = tls_server();
        SSL_SESSION *session, *next;
        int resumed;

        CHECK(SSL_CTX_use_certificate(client, own->certificate) == 1 && SSL_CTX_use_PrivateKey(client, own->key) == 1
              && SSL_CTX_set_max_proto_version(client, tls_versions[v]) == 1, "the client");
        session = connect_both(client, server, NULL, &resumed);
        CHECK(is_attached(client) && !resumed, "the client is told from a server");
        next = connect_both(client, server, session, &resumed);
        CHECK(resumed, "%s: the client does not resume", tls_name(tls_versions[v]));
        SSL_SESSION_free(next);
        SSL_SESSION_free(session);
        SSL_CTX_free(client);
        SSL_CTX_free(server);
    }
}

/* OpenSSL's memory as Kamailio's processes have it. What is freed stays. */
enum { SHARED = 64 << 20, HEADER = 16 };
static char *shared, *next;

static void *get_shared(size_t size, const char *file, int line)
{
    char *block = next;

    (void)file, (void)line;
    next += HEADER + (size + HEADER - 1) / HEADER * HEADER;
    CHECK(next <= shared + SHARED, "the shared memory is too small");
    memcpy(block, &size, sizeof size);
    return block + HEADER;
}

static void *grow_shared(void *old, size_t size, const char *file, int line)
{
    void *block = get_shared(size, file, line);
    size_t had = 0;

    if (old != NULL) {
        memcpy(&had, (char *)old - HEADER, sizeof had);
        memcpy(block, old, had < size ? had : size);
    }
    return block;
}

static void keep_shared(void *memory, const char *file, int line)
{
    (void)memory, (void)file, (void)line;
}

static void an_ssl_ctx_in_memory_that_processes_share_stays_as_it_is(const char *scratch)
{
    SSL_CTX *server;
    uint64_t options;

    next = shared = mmap(NULL, SHARED, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED && CRYPTO_set_mem_functions(get_shared, grow_shared, keep_shared) == 1, "no shared memory");
    configure(scratch, "force = yes\nsession_id_context = x");
    server = tls_server();
    options = SSL_CTX_get_options(server);
    CHECK(resumed_of_two(server) == 2 && !is_attached(server) && SSL_CTX_get_options(server) == options, "it is attached");
    SSL_CTX_free(server);
}

/* SystemCallFilter= with SystemCallErrorNumber=EPERM: no file, no directory, no socket, which syslog would want. */
static void refuse_files(void)
{
    static const unsigned refused[] = {SYS_openat, SYS_mkdirat, SYS_newfstatat, SYS_statx, SYS_socket};
    enum { REFUSED = sizeof refused / sizeof refused[0] };
    struct sock_filter code[2 * REFUSED + 2] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))};
    struct sock_fprog program = {sizeof code / sizeof code[0], code};

    for (size_t i = 0; i < REFUSED; i++) {
        code[2 * i + 1] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, refused[i], 0, 1);
        code[2 * i + 2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
    }
    code[2 * REFUSED + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "prctl: %s", strerror(errno));
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        check_not_tried("no filter of system calls can be set here");
}

static void a_filter_that_refuses_files_costs_no_handshake(const char *scratch)
{
    SSL_CTX *server;

    configure(scratch, "");
    server = tls_server();
    refuse_files();
    CHECK(resumed_of_two(server) == 2 && !is_attached(server), "the server does not do what it does without the module");
    SSL_CTX_free(server);
}

static void a_filter_that_refuses_files_later_costs_no_session(const char *scratch)
{
    SSL_CTX *server;

    configure(scratch, "options = hold=on");
    server = tls_server();
    CHECK(resumed_of_two(server) == 2, "it resumes nothing");
    refuse_files();
    CHECK(resumed_of_two(server) == 2 && is_attached(server), "a server that has its store open resumes nothing");
    SSL_CTX_free(server);
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
        TEST(programs_that_are_not_named_are_left_alone),
        TEST(a_program_that_is_named_is_attached),
        TEST(the_directory_may_have_the_name_of_the_program),
        TEST(a_random_session_id_context_is_replaced),
        TEST(a_directory_that_cannot_be_used_costs_no_handshake),
        TEST(errno_and_the_error_queue_stay),
        TEST(a_client_with_a_general_method_and_a_certificate_resumes),
        TEST(an_ssl_ctx_in_memory_that_processes_share_stays_as_it_is),
        TEST(a_filter_that_refuses_files_costs_no_handshake),
        TEST(a_filter_that_refuses_files_later_costs_no_session),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
