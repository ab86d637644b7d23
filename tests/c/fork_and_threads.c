/*
 * Any process and any thread, at any time: a cache that was opened and used before a fork works in parent and
 * children at once, however the child was made and whatever other threads were doing; and nothing of the store
 * reaches other users or other programs.
 */
#include "check.h"
#include "tls.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>

/* Long enough for every put to find its turn on a busy machine; the default would skip some. */
#define PATIENT "deadline=10s"

static void *shared_memory(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    CHECK(memory != MAP_FAILED, "mmap: %s", strerror(errno));
    return memory;
}

/* ---- many processes with many threads ---- */

enum { PROCESSES = 5, THREADS = 3, WORKERS = PROCESSES * THREADS, ROUNDS = 10 };

static SSL_CTX *server;
static struct board {
    pthread_barrier_t barrier;
    struct saved slots[WORKERS];
} *board;

static void meet(void)
{
    int result = pthread_barrier_wait(&board->barrier);

    CHECK(result == 0 || result == PTHREAD_BARRIER_SERIAL_THREAD, "pthread_barrier_wait: %s", strerror(result));
}

/* Makes a session, resumes it here, and resumes the one another worker made. */
static void *work(void *argument)
{
    int self = *(const int *)argument;

    for (int round = 0; round < ROUNDS; round++) {
        int version = tls_versions[round % 2], neighbour = (self + 1 + round * 2) % WORKERS;
        struct outcome first = tls_here(server, (struct visit){.version = version});

        CHECK(!first.resumed && first.newest.len > 0, "%s: no session is issued", tls_name(version));
        CHECK(tls_here(server, (struct visit){.version = version, .offer = &first.newest}).resumed,
              "%s: a session does not resume in the thread that made it", tls_name(version));
        board->slots[self] = first.newest;
        meet();
        CHECK(tls_here(server, (struct visit){.version = version, .offer = &board->slots[neighbour]}).resumed,
              "%s: worker %d does not resume the session of worker %d", tls_name(version), self, neighbour);
        meet();
    }
    return NULL;
}

static void run_threads(int process)
{
    pthread_t threads[THREADS];
    int numbers[THREADS];

    for (int i = 0; i < THREADS; i++) {
        numbers[i] = process * THREADS + i;
        CHECK(pthread_create(&threads[i], NULL, work, &numbers[i]) == 0, "pthread_create");
    }
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0, "pthread_join");
}

static void threads_of_parent_and_children_share_a_cache_used_before_the_fork(const char *scratch)
{
    pthread_barrierattr_t attributes;
    pid_t children[PROCESSES];

    board = shared_memory(sizeof *board);
    CHECK(pthread_barrierattr_init(&attributes) == 0 &&
          pthread_barrierattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED) == 0 &&
          pthread_barrier_init(&board->barrier, &attributes, WORKERS) == 0, "no barrier between processes");
    server = tls_attached(store_in(scratch), PATIENT);
    for (int v = 0; v < 2; v++) {
        struct outcome first = tls_here(server, (struct visit){.version = tls_versions[v]});

        CHECK(tls_here(server, (struct visit){.version = tls_versions[v], .offer = &first.newest}).resumed,
              "%s: nothing resumes before the fork", tls_name(tls_versions[v]));
    }
    for (int i = 1; i < PROCESSES; i++) {
        children[i] = check_fork();
        if (children[i] == 0) {
            run_threads(i);
            exit(0);
        }
    }
    run_threads(0);
    for (int i = 1; i < PROCESSES; i++)
        check_wait(children[i], "a child with threads");
    SSL_CTX_free(server);
}

/* ---- fork while other threads are inside the store ---- */

enum { BUSY_THREADS = 3, FORKS = 60 };

static sesscache *busy_cache;
static atomic_int busy_stop;
static atomic_ulong busy_rounds;

static void put_and_get(const char *id)
{
    char data[64];
    size_t len = sizeof data;

    CHECK_OK(sesscache_put(busy_cache, (const unsigned char *)id, strlen(id), id, strlen(id), (int64_t)time(NULL) + 600));
    CHECK_OK(sesscache_get(busy_cache, (const unsigned char *)id, strlen(id), data, &len));
    CHECK(len == strlen(id) && memcmp(data, id, len) == 0, "record %s comes back changed", id);
}

static void *keep_busy(void *argument)
{
    char id[32];
    unsigned int n = 0;

    while (!atomic_load(&busy_stop)) {
        snprintf(id, sizeof id, "%s.%u", (const char *)argument, n++ % 100);
        put_and_get(id);
        atomic_fetch_add(&busy_rounds, 1);
    }
    return NULL;
}

static void a_fork_while_threads_are_inside_the_store_harms_neither_side(const char *scratch)
{
    static char names[BUSY_THREADS][8] = {"a", "b", "c"};
    pthread_t threads[BUSY_THREADS];
    SSL_CTX *ctx = tls_server();
    struct outcome first;
    char id[32], data[32];
    size_t len;

    CHECK_OK(sesscache_open(store_in(scratch), PATIENT, &busy_cache));
    CHECK_OK(sesscache_attach(busy_cache, ctx));
    first = tls_here(ctx, (struct visit){.version = TLS1_2_VERSION});
    for (int i = 0; i < BUSY_THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, keep_busy, names[i]) == 0, "pthread_create");

    for (int n = 0; n < FORKS; n++) {
        unsigned long before = atomic_load(&busy_rounds);
        pid_t pid = check_fork();

        snprintf(id, sizeof id, "child %d", n);
        if (pid == 0) {
            put_and_get(id);
            CHECK(tls_here(ctx, (struct visit){.version = TLS1_2_VERSION, .offer = &first.newest}).resumed,
                  "a child forked in the middle of a put does not resume");
            _exit(0);
        }
        check_wait(pid, "a child forked while threads are inside the store");
        len = sizeof data;
        CHECK_OK(sesscache_get(busy_cache, (const unsigned char *)id, strlen(id), data, &len));
        /* The threads of the parent go on; the deadline of the test catches it if not. */
        while (atomic_load(&busy_rounds) == before)
            check_sleep(0.001);
    }
    atomic_store(&busy_stop, 1);
    for (int i = 0; i < BUSY_THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0, "pthread_join");
    CHECK(tls_here(ctx, (struct visit){.version = TLS1_2_VERSION, .offer = &first.newest}).resumed,
          "the parent does not resume any more");
    SSL_CTX_free(ctx);
    sesscache_close(busy_cache);
}

/* ---- every way to make a child ---- */

static pid_t raw_clone(void)
{
    return (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
}

static const struct {
    const char *name;
    pid_t (*make)(void);
} ways[] = {{"fork", fork}, {"_Fork", _Fork}, {"a raw clone", raw_clone}};

/* Resumes what an ancestor made, makes one in turn, and lets a grandchild do the same. */
static void descend(SSL_CTX *ctx, int version, int way, int depth, struct saved *sessions)
{
    struct outcome made;
    pid_t pid = ways[way].make();

    CHECK(pid >= 0, "%s: %s", ways[way].name, strerror(errno));
    if (pid == 0) {
        CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0, "prctl: %s", strerror(errno));
        for (int i = 0; i <= depth; i++)
            CHECK(tls_here(ctx, (struct visit){.version = version, .offer = &sessions[i]}).resumed,
                  "%s: a child made by %s does not resume the session of its ancestor", tls_name(version), ways[way].name);
        made = tls_here(ctx, (struct visit){.version = version});
        sessions[depth + 1] = made.newest;
        if (depth == 0)
            descend(ctx, version, way, depth + 1, sessions);
        _exit(0);
    }
    check_wait(pid, ways[way].name);
    CHECK(tls_here(ctx, (struct visit){.version = version, .offer = &sessions[depth + 1]}).resumed,
          "%s: the session made in a child of %s does not resume in its parent", tls_name(version), ways[way].name);
}

static void every_kind_of_child_resumes_and_is_resumed(const char *scratch)
{
    struct saved *sessions = shared_memory(4 * sizeof *sessions);
    SSL_CTX *ctx = tls_attached(store_in(scratch), NULL);

    for (int way = 0; way < 3; way++) {
        for (int v = 0; v < 2; v++) {
            sessions[0] = tls_here(ctx, (struct visit){.version = tls_versions[v]}).newest;
            descend(ctx, tls_versions[v], way, 0, sessions);
            CHECK(tls_here(ctx, (struct visit){.version = tls_versions[v], .offer = &sessions[2]}).resumed,
                  "%s: the session of a grandchild made by %s does not resume", tls_name(tls_versions[v]), ways[way].name);
        }
    }
    SSL_CTX_free(ctx);
}

static void a_parent_that_never_serves_shares_through_its_children(const char *scratch)
{
    SSL_CTX *ctx = tls_attached(store_in(scratch), NULL);

    for (int v = 0; v < 2; v++) {
        struct outcome link = tls_child(ctx, (struct visit){.version = tls_versions[v]});

        for (int n = 0; n < 20; n++) {
            link = tls_child(ctx, (struct visit){.version = tls_versions[v], .offer = &link.newest});
            CHECK(link.resumed, "%s: connection %d of one process each does not resume", tls_name(tls_versions[v]), n + 2);
        }
    }
    SSL_CTX_free(ctx);
}

/* ---- what others may see ---- */

static void every_descriptor_of_the_store_closes_on_exec(const char *scratch)
{
    SSL_CTX *ctx = tls_attached(store_in(scratch), NULL);
    struct outcome first = tls_here(ctx, (struct visit){.version = TLS1_2_VERSION});
    DIR *directory = opendir("/proc/self/fd");
    const struct dirent *entry;
    int seen = 0;

    CHECK(tls_here(ctx, (struct visit){.version = TLS1_2_VERSION, .offer = &first.newest}).resumed, "nothing resumes");
    CHECK(directory != NULL, "/proc/self/fd: %s", strerror(errno));
    while ((entry = readdir(directory)) != NULL) {
        char target[PATH_MAX];
        ssize_t len = readlinkat(dirfd(directory), entry->d_name, target, sizeof target - 1);

        if (len < 0)
            continue;
        target[len] = '\0';
        if (strncmp(target, scratch, strlen(scratch)) != 0)
            continue;
        seen++;
        CHECK(fcntl(atoi(entry->d_name), F_GETFD) & FD_CLOEXEC, "programs that this one starts inherit %s", target);
    }
    CHECK(closedir(directory) == 0, "closedir: %s", strerror(errno));
    CHECK(seen > 0, "no descriptor of the store is open: this test looks in the wrong place");
    SSL_CTX_free(ctx);
}

static void a_program_started_by_the_host_inherits_nothing_of_the_store(const char *scratch)
{
    SSL_CTX *ctx = tls_attached(store_in(scratch), NULL);
    char listing[8192];
    size_t used = 0;
    ssize_t len;
    int ends[2];
    pid_t pid;

    (void)tls_here(ctx, (struct visit){.version = TLS1_3_VERSION});
    CHECK(pipe(ends) == 0, "pipe: %s", strerror(errno));
    pid = check_fork();
    if (pid == 0) {
        CHECK(dup2(ends[1], 1) == 1 && close(ends[0]) == 0 && close(ends[1]) == 0, "dup2: %s", strerror(errno));
        (void)tls_here(ctx, (struct visit){.version = TLS1_3_VERSION});
        execlp("ls", "ls", "-l", "/proc/self/fd", (char *)NULL);
        CHECK(0, "ls: %s", strerror(errno));
    }
    CHECK(close(ends[1]) == 0, "close: %s", strerror(errno));
    while ((len = read(ends[0], listing + used, sizeof listing - 1 - used)) > 0)
        used += (size_t)len;
    CHECK(len == 0 && close(ends[0]) == 0, "read: %s", strerror(errno));
    listing[used] = '\0';
    check_wait(pid, "ls");
    CHECK(strstr(listing, "-> ") != NULL, "ls shows no descriptors at all:\n%s", listing);
    CHECK(strstr(listing, scratch) == NULL, "another program inherits the store:\n%s", listing);
    SSL_CTX_free(ctx);
}

static int files_seen;

static int look_at_mode(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    mode_t mode = status->st_mode & 07777;

    (void)walk;
    if (type == FTW_D) {
        CHECK(mode == 0700, "%s has mode %04o instead of 0700", path, (unsigned int)mode);
    } else {
        CHECK(type == FTW_F && S_ISREG(status->st_mode), "%s is no regular file", path);
        CHECK(mode == 0600, "%s has mode %04o instead of 0600", path, (unsigned int)mode);
        files_seen++;
    }
    return 0;
}

static void files_are_private_whatever_the_umask(const char *scratch)
{
    static const mode_t masks[] = {0, 0777, 022};
    char name[32];

    for (int i = 0; i < 3; i++) {
        mode_t mask = umask(masks[i]);
        SSL_CTX *ctx;
        char *store;

        snprintf(name, sizeof name, "store%d", i);
        store = path_in(scratch, name);
        ctx = tls_attached(store, NULL);
        for (int v = 0; v < 2; v++) {
            struct outcome first = tls_here(ctx, (struct visit){.version = tls_versions[v]});

            CHECK(tls_child(ctx, (struct visit){.version = tls_versions[v], .offer = &first.newest}).resumed,
                  "%s: nothing resumes under umask %04o", tls_name(tls_versions[v]), (unsigned int)masks[i]);
        }
        CHECK(umask(mask) == masks[i], "the library leaves another umask");
        files_seen = 0;
        CHECK(nftw(store, look_at_mode, 16, FTW_PHYS) == 0, "cannot walk %s: %s", store, strerror(errno));
        CHECK(files_seen > 0, "the store is not where it was asked to be");
        SSL_CTX_free(ctx);
    }
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(threads_of_parent_and_children_share_a_cache_used_before_the_fork),
        TEST(a_fork_while_threads_are_inside_the_store_harms_neither_side),
        TEST(every_kind_of_child_resumes_and_is_resumed),
        TEST(a_parent_that_never_serves_shares_through_its_children),
        TEST(every_descriptor_of_the_store_closes_on_exec),
        TEST(a_program_started_by_the_host_inherits_nothing_of_the_store),
        TEST(files_are_private_whatever_the_umask),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
