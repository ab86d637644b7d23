/*
 * A server that attaches the cache loses nothing that it had: whatever servers do, as many sessions resume as with OpenSSL and
 * session ids, and in as many as in one process of it; and no handshake fails that did not fail before. A row for each habit.
 */
/* Each row is six servers. */
#define CHECK_DEADLINE 180
#include "habits.h"

#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <openssl/evp.h>
#include <openssl/provider.h>
#include <stddef.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#define NOBODY 65534

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

static void short_timeout(SSL_CTX *ctx)
{
    (void)SSL_CTX_set_timeout(ctx, 30);
}

static void clean_environment(const char *scratch, int connection)
{
    (void)scratch;
    (void)connection;
    CHECK(clearenv() == 0, "clearenv");
}

/* All but the connection, as a child that was not told what is open; standard streams are part of it. */
static void close_descriptors(const char *scratch, int connection)
{
    (void)scratch;
    for (int fd = 0; fd < 256; fd++) {
        if (fd != connection)
            (void)close(fd);
    }
}

/* vsftpd: what is written to standard error arrives at the client, in the middle of the handshake. */
static void errors_go_to_the_client(const char *scratch, int connection)
{
    (void)scratch;
    CHECK(dup2(connection, 2) == 2, "dup2: %s", strerror(errno));
}

static void directory_is_made_anew(const char *scratch)
{
    char *store = store_in(scratch);

    (void)check_remove_tree(store);
    CHECK(mkdir(store, 0700) == 0, "mkdir: %s", strerror(errno));
    free(store);
}

static void hide_proc(const char *scratch)
{
    (void)scratch;
    CHECK(unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
          mount("none", "/proc", "tmpfs", 0, NULL) == 0, "/proc cannot be hidden: %s", strerror(errno));
}

static void limit_address_space(const char *scratch)
{
    struct rlimit limit = {512u << 20, 512u << 20};

    (void)scratch;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0, "setrlimit: %s", strerror(errno));
}

static void answer_eperm(const int *calls, size_t count)
{
    struct sock_filter program[8];
    struct sock_fprog filter = {0, program};
    size_t at = 0;

    program[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (size_t n = 0; n < count; n++)
        program[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)calls[n], (unsigned char)(count - n), 0);
    program[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    program[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
    filter.len = (unsigned short)at;
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0,
          "prctl: %s", strerror(errno));
}

/* A sandbox that knows the calls of a server and answers EPERM to others. */
static void refuse_calls(const char *scratch)
{
    static const int calls[] = {SYS_fallocate, SYS_flock, SYS_prlimit64};

    (void)scratch;
    answer_eperm(calls, TESTS(calls));
}

/* The files belong to that user already: owner=. */
static void change_user(const char *scratch, int connection)
{
    (void)scratch;
    (void)connection;
    CHECK(setgroups(0, NULL) == 0 && setgid(NOBODY) == 0 && setuid(NOBODY) == 0, "setuid: %s", strerror(errno));
}

/* What the next process opens anew is out of reach, and its own descriptors are no help. */
static void leave_the_file_system(const char *scratch)
{
    char *empty = path_in(scratch, "empty");

    CHECK((mkdir(empty, 0755) == 0 || errno == EEXIST) && chroot(empty) == 0 && chdir("/") == 0, "chroot: %s", strerror(errno));
    free(empty);
    change_user(scratch, -1);
}

static void leave_the_file_system_in_the_child(const char *scratch, int connection)
{
    (void)connection;
    CHECK(chroot(scratch) == 0 && chdir("/") == 0, "chroot: %s", strerror(errno));
    change_user(scratch, connection);
}

/* No room for the map of the store. */
static void limit_address_space_below_the_capacity(const char *scratch)
{
    struct rlimit limit = {256u << 20, 256u << 20};

    (void)scratch;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0, "setrlimit: %s", strerror(errno));
}

/* The control file has room; the store, which is made later, has none. */
static void fill_the_file_system(const char *scratch)
{
    char *store = store_in(scratch), *ballast = path_in(scratch, "store/control.0123456789abcdef"), block[4096] = {1};
    FILE *file;

    CHECK((mkdir(store, 0700) == 0 || errno == EEXIST) && unshare(CLONE_NEWNS) == 0 &&
          mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
          mount("none", store, "tmpfs", 0, "size=256k,mode=700") == 0, "no small file system: %s", strerror(errno));
    file = fopen(ballast, "w");
    CHECK(file != NULL, "%s: %s", ballast, strerror(errno));
    while (fwrite(block, sizeof block, 1, file) == 1 && fflush(file) == 0)
        ;
    (void)fclose(file);
    free(store);
    free(ballast);
}

/* A sandbox whose list is older than statx(2). */
static void refuse_statx(const char *scratch)
{
    static const int calls[] = {SYS_statx};

    (void)scratch;
    answer_eperm(calls, TESTS(calls));
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
    {.name = "one SSL_CTX for both roles", .model = ONE_PROCESS, .make = both_roles},
    {.name = "no session id context", .model = FORK_PER_CONNECTION, .context = no_id_context},
    {.name = "random session id context, one process", .model = ONE_PROCESS, .context = random_id_context},
    {.name = "asks for certificates", .model = FORK_PER_CONNECTION, .context = asks_for_certificates},
    {.name = "no tickets of its own, one on request", .model = ONE_PROCESS, .context = no_tickets_by_itself,
     .established = a_ticket_on_request, .version = TLS1_3_VERSION},
    {.name = "100 tickets for each connection", .model = ONE_PROCESS, .context = many_tickets, .version = TLS1_3_VERSION},
    {.name = "SSL used again after SSL_clear", .model = ONE_PROCESS, .used_again = 1},
    {.name = "timeout of 30 s", .model = PREFORK, .context = short_timeout},
    {.name = "cleaned environment", .model = EXEC_PER_CONNECTION, .child = clean_environment},
    {.name = "closed descriptors", .model = FORK_PER_CONNECTION, .child = close_descriptors},
    {.name = "standard error goes to the client", .model = FORK_PER_CONNECTION, .child = errors_go_to_the_client},
    {.name = "RuntimeDirectory made anew after the start", .model = FORK_PER_CONNECTION, .listener = directory_is_made_anew},
    {.name = "RLIMIT_AS that is enough", .model = FORK_PER_CONNECTION, .listener = limit_address_space},
    {.name = "ticket callbacks", .model = ONE_PROCESS, .context = ticket_callbacks},
    {.name = "own library context, the default one empty", .model = ONE_PROCESS, .make = own_library_context,
     .listener = empty_the_default_library_context},
    {.name = "RLIMIT_AS below the capacity, one process", .model = ONE_PROCESS, .options = "capacity=1GiB",
     .listener = limit_address_space_below_the_capacity},
    {.name = "RLIMIT_AS below the capacity, fork per connection", .model = FORK_PER_CONNECTION, .options = "capacity=1GiB",
     .listener = limit_address_space_below_the_capacity},
    {.name = "seccomp filter without statx", .model = FORK_PER_CONNECTION, .listener = refuse_statx},
    {.name = "seccomp filter that answers EPERM", .model = FORK_PER_CONNECTION, .listener = refuse_calls},
};

/* These take rights of root's. */
static const struct habit of_root[] = {
    {.name = "hidden /proc", .model = FORK_PER_CONNECTION, .listener = hide_proc},
    {.name = "chroot and setuid before the first handshake, one process", .model = ONE_PROCESS, .listener = leave_the_file_system},
    {.name = "chroot and setuid before the first handshake, threads", .model = THREAD_PER_CONNECTION,
     .listener = leave_the_file_system},
    {.name = "chroot and setuid in each child", .model = FORK_PER_CONNECTION, .child = leave_the_file_system_in_the_child},
    {.name = "chroot and setuid, prefork", .model = PREFORK, .listener = leave_the_file_system},
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
    return check_main(argc, argv, tests, TESTS(tests));
}
