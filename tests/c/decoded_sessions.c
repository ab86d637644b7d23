/*
 * The table of decoded sessions is never a way around the store.
 *
 * A process keeps one decoded session of each kind, and makes others of it, because parsing a certificate costs more than
 * the handshake. What another process has removed, flushed or used up, and what has expired, must not come out of that
 * table, and it must not grow.
 */
#include "check.h"
#include "tls.h"

#include <fcntl.h>
#include <malloc.h>
#include <string.h>
#include <sys/wait.h>

static void ask(SSL *server)
{
    tls_ask(server, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT);
}

static void show(SSL *client)
{
    tls_show(client, CLIENT_P256);
}

static struct visit with_certificate(int version, const struct saved *offer)
{
    return (struct visit){.version = version, .offer = offer, .prepare = ask, .prepare_client = show};
}

/* A session whose kind this process has decoded, and keeps. */
static struct outcome decoded(SSL_CTX *server)
{
    struct outcome made = tls_here(server, with_certificate(TLS1_2_VERSION, NULL));

    for (int i = 0; i < 3; i++)
        CHECK(tls_here(server, with_certificate(TLS1_2_VERSION, &made.newest)).resumed, "the session does not resume");
    return made;
}

/* Lets another process do something with the store. */
static void elsewhere(const char *store, const struct saved *session, void (*act)(sesscache *, const struct saved *))
{
    pid_t pid = fork();
    int status;

    CHECK(pid >= 0, "fork");
    if (pid == 0) {
        sesscache *cache;

        CHECK_OK(sesscache_open(store, NULL, &cache));
        act(cache, session);
        sesscache_close(cache);
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0, "the other process fails");
}

static void remove_it(sesscache *cache, const struct saved *saved)
{
    SSL_SESSION *session = tls_load(saved);
    unsigned len;
    const unsigned char *id = SSL_SESSION_get_id(session, &len);

    CHECK_OK(sesscache_remove(cache, id, len));
    SSL_SESSION_free(session);
}

static void flush_all(sesscache *cache, const struct saved *saved)
{
    (void)saved;
    CHECK_OK(sesscache_flush(cache));
}

static void what_another_process_has_removed_or_flushed_stays_gone(const char *scratch)
{
    void (*const acts[])(sesscache *, const struct saved *) = {remove_it, flush_all};

    for (size_t i = 0; i < 2; i++) {
        char *store = store_in(scratch);
        SSL_CTX *server = tls_attached(store, NULL);
        struct outcome made = decoded(server);

        elsewhere(store, &made.newest, acts[i]);
        CHECK(!tls_here(server, with_certificate(TLS1_2_VERSION, &made.newest)).resumed,
              "a session that another process has %s resumes", i == 0 ? "removed" : "flushed");
        SSL_CTX_free(server);
    }
}

static void what_has_expired_stays_gone(const char *scratch)
{
    SSL_CTX *server = tls_attached(store_in(scratch), "ttl=2s");
    struct outcome made = decoded(server);

    sleep(3);
    CHECK(!tls_here(server, with_certificate(TLS1_2_VERSION, &made.newest)).resumed, "a session outlives its time");
    SSL_CTX_free(server);
}

static void a_ticket_that_another_process_has_used_up_stays_gone(const char *scratch)
{
    SSL_CTX *server = tls_attached(store_in(scratch), "single_use=always");
    struct outcome made = tls_here(server, with_certificate(TLS1_3_VERSION, NULL));
    /* Of the same kind as the one before. */
    struct outcome next = tls_here(server, with_certificate(TLS1_3_VERSION, &made.newest));

    CHECK(next.resumed, "the first ticket does not resume");
    CHECK(tls_child(server, with_certificate(TLS1_3_VERSION, &next.newest)).resumed, "the ticket does not resume elsewhere");
    CHECK(!tls_here(server, with_certificate(TLS1_3_VERSION, &next.newest)).resumed, "a ticket for one use resumes twice");
    SSL_CTX_free(server);
}

/* Puts one other key in the place of the keys, as an operator does who wants an end to what the old one sealed. */
static void change_key(const char *store)
{
    char *path = path_in(store, "key"), *made = path_in(store, "key.made");
    unsigned char key[32];
    int file = open(made, O_WRONLY | O_CREAT | O_EXCL, 0600);

    memset(key, 'k', sizeof key);
    CHECK(file >= 0 && write(file, key, sizeof key) == (ssize_t)sizeof key && close(file) == 0 && rename(made, path) == 0,
          "no other key: %s", strerror(errno));
}

static void what_a_key_sealed_ends_with_the_key(const char *scratch)
{
    char *store = store_in(scratch);
    SSL_CTX *server = tls_attached(store, NULL);
    struct outcome made = decoded(server);

    change_key(store);
    /* Each process looks at the key file once a second. */
    sleep(2);
    CHECK(!tls_here(server, with_certificate(TLS1_2_VERSION, &made.newest)).resumed, "a session outlives its key");
    SSL_CTX_free(server);
}

static void what_a_key_sealed_ends_where_the_key_file_is_out_of_reach(const char *scratch)
{
    char *store = store_in(scratch);
    SSL_CTX *server = tls_attached(store, NULL);
    struct outcome made = tls_here(server, with_certificate(TLS1_2_VERSION, NULL));
    int ready[2], changed[2];
    char byte = 'x';
    pid_t pid;

    CHECK(pipe(ready) == 0 && pipe(changed) == 0, "pipe");
    pid = check_fork();
    if (pid == 0) {
        CHECK(tls_here(server, with_certificate(TLS1_2_VERSION, &made.newest)).resumed, "the session does not resume");
        if (chroot("/proc/self/fdinfo") != 0) {
            printf("not tried: chroot: %s\n", strerror(errno));
            byte = 'n';
        }
        CHECK(write(ready[1], &byte, 1) == 1 && read(changed[0], &byte, 1) == 1, "pipe");
        if (byte != 'n')
            CHECK(!tls_here(server, with_certificate(TLS1_2_VERSION, &made.newest)).resumed,
                  "a session outlives its key in a process that cannot see the key file");
        exit(0);
    }
    CHECK(read(ready[0], &byte, 1) == 1, "pipe");
    change_key(store);
    sleep(2);
    /* Whoever can look notes which keys there are. */
    CHECK(tls_here(server, with_certificate(TLS1_2_VERSION, NULL)).given == 1, "no session under the new key");
    CHECK(write(changed[1], &byte, 1) == 1, "pipe");
    check_wait(pid, "the process without the file system");
    SSL_CTX_free(server);
}

/* In a rollout another process may read another key file. */
static void another_process_with_other_keys_costs_this_one_nothing(const char *scratch)
{
    char *store = store_in(scratch), *options;
    SSL_CTX *server = tls_attached(store, NULL);
    struct outcome made = decoded(server);

    CHECK(asprintf(&options, "key=%s", path_in(scratch, "other")) > 0, "out of memory");
    int file = open(path_in(scratch, "other"), O_WRONLY | O_CREAT | O_EXCL, 0600);
    CHECK(file >= 0 && write(file, "0123456789abcdef0123456789abcdef", 32) == 32 && close(file) == 0, "no other key");
    pid_t pid = check_fork();
    if (pid == 0) {
        execl("/proc/self/exe", "decoded_sessions", "other-keys", store, options, (char *)NULL);
        _exit(1);
    }
    check_wait(pid, "the process with other keys");
    sleep(2);
    CHECK(tls_here(server, with_certificate(TLS1_2_VERSION, &made.newest)).resumed, "another process's keys end sessions here");
    SSL_CTX_free(server);
}

/* A process that makes a session with the keys that the options name. */
static int other_keys(char **argv)
{
    SSL_CTX *server = tls_attached(argv[2], argv[3]);
    int made = tls_here(server, with_certificate(TLS1_2_VERSION, NULL)).given == 1;

    SSL_CTX_free(server);
    return !made;
}

static void show_large(SSL *client)
{
    tls_show(client, CLIENT_6KB);
}

static unsigned kind;

/* A session id context of its own makes a kind. */
static void ask_as_another_service(SSL *server)
{
    CHECK(SSL_set_session_id_context(server, (unsigned char *)&kind, sizeof kind) == 1, "SSL_set_session_id_context");
    ask(server);
}

static void large_certificates_fill_no_memory(const char *scratch)
{
    enum { CLIENTS = 100 };
    SSL_CTX *server = tls_attached(store_in(scratch), "decoded=512KiB");
    size_t used[3];

    for (int round = 0; round < 3; round++) {
        for (int client = 0; client < CLIENTS; client++, kind++) {
            struct visit visit = {.version = TLS1_2_VERSION, .prepare = ask_as_another_service, .prepare_client = show_large};
            struct outcome made = tls_here(server, visit);

            visit.offer = &made.newest;
            for (int i = 0; i < 3; i++)
                CHECK(tls_here(server, visit).resumed, "the session does not resume");
        }
        used[round] = mallinfo2().uordblks;
    }
    CHECK(used[2] < used[0] + CLIENTS * 6 * 1024 / 2, "memory grows from %zu to %zu and %zu bytes", used[0], used[1], used[2]);
    SSL_CTX_free(server);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(what_another_process_has_removed_or_flushed_stays_gone),
        TEST(what_has_expired_stays_gone),
        TEST(a_ticket_that_another_process_has_used_up_stays_gone),
        TEST(what_a_key_sealed_ends_with_the_key),
        TEST(what_a_key_sealed_ends_where_the_key_file_is_out_of_reach),
        TEST(another_process_with_other_keys_costs_this_one_nothing),
        TEST(large_certificates_fill_no_memory),
    };

    if (argc == 4 && strcmp(argv[1], "other-keys") == 0)
        return other_keys(argv);
    return check_main(argc, argv, tests, TESTS(tests));
}
