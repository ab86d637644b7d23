/*
 * A store that cannot be reached, beside OpenSSL alone: whatever the reason, a session resumes in the process that made it, as it
 * does with OpenSSL's own cache. It is kept in memory; without that memory, with local=off, it would be lost.
 */
#include "check.h"
#include "tls.h"

#include <dirent.h>
#include <fcntl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/statvfs.h>

enum { PAIRS = 20 };

/* How many clients resume that return once, half of them by either version. */
static int resumed_pairs(SSL_CTX *ctx)
{
    int resumed = 0;

    for (int n = 0; n < PAIRS; n++) {
        int version = tls_versions[n % 2];
        struct outcome made = tls_here(ctx, (struct visit){.version = version});

        resumed += tls_here(ctx, (struct visit){.version = version, .offer = &made.newest}).resumed;
    }
    return resumed;
}

/* OpenSSL with session ids. */
static SSL_CTX *alone(void)
{
    SSL_CTX *ctx = tls_server();

    SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
    return ctx;
}

/* ---- ways to lose the store ---- */

/* What the SSL_CTX under test is attached to. */
static sesscache *cache;

static void leave_for_another_root(const char *scratch)
{
    char *empty = path_in(scratch, "empty");

    CHECK((mkdir(empty, 0755) == 0 || errno == EEXIST) && chroot(empty) == 0 && chdir("/") == 0, "chroot: %s", strerror(errno));
}

static void become_nobody(const char *scratch)
{
    (void)scratch;
    CHECK(setgid(65534) == 0 && setuid(65534) == 0, "setuid: %s", strerror(errno));
}

static void leave_for_another_root_as_nobody(const char *scratch)
{
    leave_for_another_root(scratch);
    become_nobody(scratch);
}

static void remove_the_directory(const char *scratch)
{
    CHECK(check_remove_tree(store_in(scratch)) == 0, "cannot remove the store: %s", strerror(errno));
}

static void write_garbage_into_the_key(const char *scratch)
{
    int fd = open(path_in(scratch, "store/key"), O_WRONLY | O_TRUNC);

    CHECK(fd >= 0 && write(fd, "garbage", 7) == 7 && close(fd) == 0, "the key: %s", strerror(errno));
}

/* What is mapped, and less than the store besides. */
static void map_no_more(const char *scratch)
{
    FILE *statm = fopen("/proc/self/statm", "r");
    struct rlimit limit = {0, RLIM_INFINITY};
    unsigned long pages;

    (void)scratch;
    CHECK(statm != NULL && fscanf(statm, "%lu", &pages) == 1 && fclose(statm) == 0, "statm: %s", strerror(errno));
    limit.rlim_cur = pages * 4096 + (16UL << 20);
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0, "setrlimit: %s", strerror(errno));
}

/* The file system has room for the control page, and none for more. */
static void fill_the_file_system(const char *scratch)
{
    int fd = open(path_in(scratch, "store/../fill"), O_WRONLY | O_CREAT, 0600);
    char block[4096] = {0};

    CHECK(fd >= 0, "open: %s", strerror(errno));
    while (write(fd, block, sizeof block) > 0)
        continue;
    CHECK(errno == ENOSPC && close(fd) == 0, "write: %s", strerror(errno));
}

/* A process that stores as fast as it can. It says when it has begun. */
static pid_t start_writer(void)
{
    int ready[2];
    char byte;
    pid_t pid;

    CHECK(pipe(ready) == 0, "pipe: %s", strerror(errno));
    pid = check_fork();
    if (pid == 0) {
        char data[2000] = {0};
        unsigned char id[8] = {0};

        for (unsigned long n = 0;; n++) {
            memcpy(id, &n, sizeof n);
            (void)sesscache_put(cache, id, sizeof id, data, sizeof data, time(NULL) + 60);
            if (n == 0)
                CHECK(write(ready[1], "w", 1) == 1, "write: %s", strerror(errno));
        }
    }
    CHECK(read(ready[0], &byte, 1) == 1 && close(ready[0]) == 0 && close(ready[1]) == 0, "the writer does not begin");
    return pid;
}

static void write_without_pause(const char *scratch)
{
    (void)scratch;
    (void)start_writer();
    (void)start_writer();
}

/* Stops a writer at a moment when it holds the write lock: then others cannot store. */
static void stop_a_writer(const char *scratch)
{
    pid_t writer = start_writer();

    (void)scratch;
    for (int n = 0; n < 10000; n++) {
        int status, stored;

        CHECK(kill(writer, SIGSTOP) == 0 && waitpid(writer, &status, WUNTRACED) == writer && WIFSTOPPED(status), "SIGSTOP: %s", strerror(errno));
        stored = sesscache_put(cache, (const unsigned char *)"probe", 5, "x", 1, time(NULL) + 60);
        if (stored == SESSCACHE_BUSY)
            return;
        CHECK(kill(writer, SIGCONT) == 0, "SIGCONT: %s", strerror(errno));
        sched_yield();
    }
    CHECK(0, "a writer never holds the write lock");
}

static void *take_a_slot(void *unused)
{
    size_t len = 0;

    (void)unused;
    (void)sesscache_get(cache, (const unsigned char *)"nothing", 7, NULL, &len);
    pause();
    return NULL;
}

/* readers=16: another process has all slots. */
static void take_all_slots(const char *scratch)
{
    int ready[2];
    char byte;

    CHECK(pipe(ready) == 0, "pipe: %s", strerror(errno));
    if (check_fork() == 0) {
        pthread_t thread;

        (void)scratch;
        for (int n = 0; n < 32; n++)
            CHECK(pthread_create(&thread, NULL, take_a_slot, NULL) == 0, "pthread_create");
        check_sleep(0.3);
        CHECK(write(ready[1], "r", 1) == 1, "write: %s", strerror(errno));
        pause();
    }
    CHECK(read(ready[0], &byte, 1) == 1, "the slots are not taken");
}

static const struct way {
    const char *name, *options;
    void (*leave)(const char *scratch);
    /* Without memory for sessions nothing at all resumes. */
    int is_away;
    int needs_root;
} ways[] = {
    {"chroot", "", leave_for_another_root, 1, 1},
    {"setuid", "", become_nobody, 1, 1},
    {"chroot and setuid", "", leave_for_another_root_as_nobody, 1, 1},
    {"directory removed", "", remove_the_directory, 1, 0},
    {"key replaced by garbage", "", write_garbage_into_the_key, 1, 0},
    {"RLIMIT_AS too small", "capacity=512MiB", map_no_more, 1, 0},
    {"file system full", "", fill_the_file_system, 1, 1},
    {"writer stopped", "deadline=1ms", stop_a_writer, 1, 0},
    {"writers that saturate", "deadline=0ms", write_without_pause, 0, 0},
    {"no reader slot free", "readers=16", take_all_slots, 0, 0},
};

static int has_file_system_of_its_own(const char *scratch)
{
    return unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("tmpfs", scratch, "tmpfs", 0, "size=1m") == 0;
}

/* In a process of its own, before the store was ever used there. */
static void try_way(const char *scratch, const struct way *way, int in_memory)
{
    char *options;
    SSL_CTX *ctx = tls_server();
    int resumed;

    CHECK(asprintf(&options, "%s%s", way->options, in_memory ? "" : " local=off") >= 0, "out of memory");
    if (way->leave == fill_the_file_system && !has_file_system_of_its_own(scratch))
        exit(CHECK_NOT_TRIED);
    CHECK_OK(sesscache_open(store_in(scratch), options, &cache));
    CHECK_OK(sesscache_attach(cache, ctx));
    (void)tls_credentials(SERVER_P256);
    way->leave(scratch);
    CHECK(resumed_pairs(alone()) == PAIRS, "%s: OpenSSL alone does not resume: this test looks in the wrong place", way->name);
    resumed = resumed_pairs(ctx);
    CHECK(tls_stats(cache).handshakes_full >= PAIRS, "%s: the counters are not read", way->name);
    if (in_memory)
        CHECK(resumed == PAIRS, "%s: %d of %d clients resume, with OpenSSL alone all", way->name, resumed, PAIRS);
    else if (way->is_away)
        CHECK(resumed < PAIRS / 2, "%s: %d of %d clients resume without the memory: the store is not away", way->name, resumed, PAIRS);
    exit(0);
}

static void sessions_resume_in_the_process_that_made_them_whatever_becomes_of_the_store(const char *scratch)
{
    for (size_t n = 0; n < TESTS(ways); n++) {
        for (int in_memory = 0; in_memory < 2; in_memory++) {
            char name[32], *own;
            int status;
            pid_t pid;

            if (ways[n].needs_root && geteuid() != 0) {
                printf("not tried: %s needs root\n", ways[n].name);
                continue;
            }
            snprintf(name, sizeof name, "%zu-%d", n, in_memory);
            own = path_in(scratch, name);
            CHECK(mkdir(own, 0700) == 0, "mkdir: %s", strerror(errno));
            pid = check_fork();
            if (pid == 0)
                try_way(own, &ways[n], in_memory);
            CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status), "%s: the server died", ways[n].name);
            if (WEXITSTATUS(status) == CHECK_NOT_TRIED)
                printf("not tried: %s needs a mount of its own\n", ways[n].name);
            else
                CHECK(WEXITSTATUS(status) == 0, "%s: see above", ways[n].name);
        }
    }
}

/* ---- the store goes on without a process that cannot open anything ---- */

static void have_no_descriptor_left(const char *scratch)
{
    struct rlimit limit;

    (void)scratch;
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0, "getrlimit: %s", strerror(errno));
    limit.rlim_cur = 3;
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0, "setrlimit: %s", strerror(errno));
}

static void have_descriptors_again(void)
{
    struct rlimit limit;

    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0, "getrlimit: %s", strerror(errno));
    limit.rlim_cur = limit.rlim_max;
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0, "setrlimit: %s", strerror(errno));
}

/* What another process does meanwhile, with a session from before. */
static void begin_a_generation(const char *store, const struct saved *made)
{
    SSL_CTX *ctx = tls_attached(store, "capacity=12MiB single_use=always");

    CHECK(tls_here(ctx, (struct visit){.version = TLS1_3_VERSION, .offer = made}).resumed == (made != NULL), "another process does not resume");
}

static void flush_and_begin_another(const char *store, const struct saved *made)
{
    sesscache *own;

    (void)made;
    CHECK_OK(sesscache_open(store, NULL, &own));
    CHECK_OK(sesscache_flush(own));
    (void)tls_here(tls_attached(store, "capacity=12MiB"), (struct visit){.version = TLS1_3_VERSION});
}

static void replace_the_key_and_begin_another(const char *store, const struct saved *made)
{
    SSL_CTX *ctx = tls_attached(store, NULL);
    FILE *key;

    (void)made;
    (void)tls_here(ctx, (struct visit){.version = TLS1_3_VERSION});
    key = fopen(path_in(store, "key"), "w");
    CHECK(key != NULL && fputs("another key of thirty-two bytes.", key) >= 0 && fclose(key) == 0, "the key: %s", strerror(errno));
    for (int n = 0; n < 2; n++) {
        check_sleep(1.05);
        (void)tls_here(ctx, (struct visit){.version = TLS1_3_VERSION});
    }
    begin_a_generation(store, NULL);
}

enum { BEFORE = 8 };

/* Sessions from before resume here but for the one that was used elsewhere; new ones are kept in memory. */
static void serve_while_others_go_on(const char *scratch, void (*leave)(const char *), int go, int ready, int resume)
{
    SSL_CTX *ctx = tls_server();
    struct outcome made[BEFORE];
    struct pair *pairs[BEFORE + 1];
    struct visit visit = {.version = TLS1_3_VERSION};
    uint64_t kept;
    char byte;

    CHECK_OK(sesscache_open(store_in(scratch), "single_use=always", &cache));
    CHECK_OK(sesscache_attach(cache, ctx));
    for (int n = 0; n < BEFORE; n++)
        made[n] = tls_here(ctx, (struct visit){.version = tls_versions[n % 2]});
    /* Their sockets, while there are descriptors. */
    for (int n = 0; n < BEFORE; n++)
        pairs[n] = tls_pair(ctx, (struct visit){.version = tls_versions[n % 2], .offer = &made[n].newest});
    pairs[BEFORE] = tls_pair(ctx, visit);
    leave(scratch);
    CHECK(write(ready, &made[1].newest, sizeof made[1].newest) == sizeof made[1].newest && read(go, &byte, 1) == 1, "pipe: %s", strerror(errno));
    for (int n = 0; n < BEFORE; n++) {
        tls_talk(pairs[n]);
        CHECK(SSL_session_reused(pairs[n]->server) == (resume && n != 1), "session %d of %d resumes: %d", n, BEFORE, SSL_session_reused(pairs[n]->server));
    }
    tls_talk(pairs[BEFORE]);
    visit.offer = &pairs[BEFORE]->out.newest;
    if (leave != have_no_descriptor_left)
        exit(!tls_here(ctx, visit).resumed);
    have_descriptors_again();
    CHECK(tls_here(ctx, visit).resumed, "what was put in memory meanwhile does not resume");
    /* A round of maintenance. */
    check_sleep(1.05);
    (void)tls_here(ctx, (struct visit){.version = TLS1_3_VERSION});
    kept = tls_stats(cache).puts_local;
    (void)tls_here(ctx, (struct visit){.version = TLS1_3_VERSION});
    CHECK(kept > 0 && tls_stats(cache).puts_local == kept, "the store is not used again");
    exit(0);
}

static void what_is_open_is_read_when_a_new_generation_cannot_be_opened(const char *scratch)
{
    static const struct {
        const char *name;
        void (*leave)(const char *scratch);
        void (*others)(const char *store, const struct saved *made);
        int resume, needs_root;
    } cases[] = {
        {"no descriptor", have_no_descriptor_left, begin_a_generation, 1, 0},
        {"chroot", leave_for_another_root, begin_a_generation, 1, 1},
        {"no descriptor, flushed", have_no_descriptor_left, flush_and_begin_another, 0, 0},
        {"chroot, flushed", leave_for_another_root, flush_and_begin_another, 0, 1},
        {"chroot, another key", leave_for_another_root, replace_the_key_and_begin_another, 0, 1},
    };

    (void)tls_credentials(SERVER_P256);
    for (size_t n = 0; n < TESTS(cases); n++) {
        char *own = path_in(scratch, cases[n].name);
        struct outcome made;
        int go[2], ready[2];
        pid_t pid;

        if (cases[n].needs_root && geteuid() != 0) {
            printf("not tried: %s needs root\n", cases[n].name);
            continue;
        }
        CHECK(mkdir(own, 0700) == 0 && pipe(go) == 0 && pipe(ready) == 0, "pipe: %s", strerror(errno));
        pid = check_fork();
        if (pid == 0)
            serve_while_others_go_on(own, cases[n].leave, go[0], ready[1], cases[n].resume);
        CHECK(read(ready[0], &made.newest, sizeof made.newest) == sizeof made.newest, "%s: the server does not begin", cases[n].name);
        cases[n].others(store_in(own), &made.newest);
        CHECK(write(go[1], "g", 1) == 1, "pipe: %s", strerror(errno));
        check_wait(pid, cases[n].name);
    }
}

/* ---- what the store has no room for ---- */

static X509 *large_certificate;

static void show_large_certificate(SSL *client)
{
    CHECK(SSL_use_certificate(client, large_certificate) == 1 && SSL_use_PrivateKey(client, tls_credentials(CLIENT_P256)->key) == 1,
          "the client's certificate");
}

static void ask_for_a_large_certificate(SSL *server)
{
    tls_ask(server, SSL_VERIFY_PEER);
    SSL_set_max_cert_list(server, 500000);
}

static X509 *certificate_with_a_comment_of(size_t len)
{
    X509 *certificate = X509_dup(tls_credentials(CLIENT_P256)->certificate);
    char *comment = calloc(1, len + 1);
    X509_EXTENSION *extension;

    CHECK(certificate != NULL && comment != NULL, "no memory");
    memset(comment, 'x', len);
    extension = X509V3_EXT_conf_nid(NULL, NULL, NID_netscape_comment, comment);
    CHECK(extension != NULL && X509_add_ext(certificate, extension, -1) == 1 &&
              X509_sign(certificate, tls_credentials(CLIENT_P256)->key, EVP_sha256()) > 0,
          "no certificate of %zu bytes", len);
    return certificate;
}

static void a_session_too_large_for_the_store_resumes_in_its_process(const char *scratch)
{
    SSL_CTX *ctx = tls_server();

    CHECK_OK(sesscache_open(store_in(scratch), NULL, &cache));
    CHECK_OK(sesscache_attach(cache, ctx));
    large_certificate = certificate_with_a_comment_of(70000);
    for (int n = 0; n < 2 * 2; n++) {
        SSL_CTX *server = n / 2 ? ctx : alone();
        struct visit visit = {.version = tls_versions[n % 2], .prepare = ask_for_a_large_certificate,
                              .prepare_client = show_large_certificate};
        struct outcome made = tls_here(server, visit);

        visit.offer = &made.newest;
        CHECK(tls_here(server, visit).resumed, "%s, %s: does not resume", n / 2 ? "attached" : "alone", tls_name(visit.version));
    }
    CHECK(tls_stats(cache).hits_local == 2, "they were found elsewhere: this test looks in the wrong place");
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(a_session_too_large_for_the_store_resumes_in_its_process),
        TEST(sessions_resume_in_the_process_that_made_them_whatever_becomes_of_the_store),
        TEST(what_is_open_is_read_when_a_new_generation_cannot_be_opened),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
