/*
 * The host finds errno and OpenSSL's error queue as it left them.
 *
 * Before OpenSSL 4, SSL_get_error says SSL_ERROR_SSL when anything lies in the queue: one entry left behind by a
 * hook makes the server drop a connection that is in order.
 */
#include "check.h"
#include "tls.h"

#include <sys/resource.h>

/* ---- the hooks, called by real handshakes, each wrapped in a look at what they leave ---- */

static int (*real_new)(SSL *, SSL_SESSION *);
static SSL_SESSION *(*real_get)(SSL *, const unsigned char *, int, int *);
static void (*real_remove)(SSL_CTX *, SSL_SESSION *);
static int news, gets, removes;

/* The marked part of the queue holds one error of the host while a hook runs. */
static unsigned long enter(void)
{
    unsigned long last = ERR_peek_last_error();

    CHECK(ERR_set_mark() == 1 || last == 0, "ERR_set_mark");
    ERR_raise(ERR_LIB_USER, 77);
    errno = EXDEV;
    return last;
}

static void leave(unsigned long last, const char *hook)
{
    int saved = errno;
    unsigned long top = ERR_peek_last_error();

    CHECK(saved == EXDEV, "the %s hook changes errno to %d (%s)", hook, saved, strerror(saved));
    CHECK(ERR_GET_LIB(top) == ERR_LIB_USER && ERR_GET_REASON(top) == 77, "the %s hook leaves error %08lx in the queue", hook, top);
    (void)ERR_pop_to_mark();
    CHECK(ERR_peek_last_error() == last, "the %s hook removes what was in the queue, or leaves a mark", hook);
}

static int watched_new(SSL *ssl, SSL_SESSION *session)
{
    unsigned long last = enter();
    int result = real_new(ssl, session);

    leave(last, "new");
    news++;
    return result;
}

static SSL_SESSION *watched_get(SSL *ssl, const unsigned char *id, int len, int *copy)
{
    unsigned long last = enter();
    SSL_SESSION *session = real_get(ssl, id, len, copy);

    leave(last, "get");
    gets++;
    return session;
}

/* What this hook does depends on the error on top, so nothing is put there. */
static void watched_remove(SSL_CTX *ctx, SSL_SESSION *session)
{
    unsigned long first = ERR_peek_error(), last = ERR_peek_last_error();

    errno = EXDEV;
    real_remove(ctx, session);
    CHECK(errno == EXDEV, "the remove hook changes errno");
    CHECK(ERR_peek_error() == first && ERR_peek_last_error() == last, "the remove hook changes the error queue");
    removes++;
}

static void watch(SSL_CTX *server)
{
    real_new = SSL_CTX_sess_get_new_cb(server);
    real_get = SSL_CTX_sess_get_get_cb(server);
    real_remove = SSL_CTX_sess_get_remove_cb(server);
    CHECK(real_new != NULL && real_get != NULL && real_remove != NULL, "attach sets not all hooks");
    SSL_CTX_sess_set_new_cb(server, watched_new);
    SSL_CTX_sess_set_get_cb(server, watched_get);
    SSL_CTX_sess_set_remove_cb(server, watched_remove);
    news = gets = removes = 0;
}

static void hooks_leave_errno_and_the_error_queue_alone(const char *scratch)
{
    for (int v = 0; v < 2; v++) {
        SSL_CTX *server = tls_attached(store_in(scratch), NULL);
        struct visit visit = {.version = tls_versions[v]};
        struct outcome first;

        watch(server);
        first = tls_here(server, visit);
        CHECK(news > 0, "%s: the new hook is not called", tls_name(visit.version));
        visit.offer = &first.newest;
        CHECK(tls_here(server, visit).resumed, "%s: nothing resumes", tls_name(visit.version));
        CHECK(gets == 1, "%s: the get hook is called %d times", tls_name(visit.version), gets);
        visit.ending = TCP_CLOSED;
        (void)tls_here(server, visit);
        visit.ending = SERVER_FREES;
        (void)tls_here(server, visit);
        CHECK(removes > 0, "%s: the remove hook is not called", tls_name(visit.version));

        /* Misses: an id nobody issued, a session that was forgotten, another server name. */
        visit.ending = POLITE;
        visit.name = "other.example";
        CHECK(!tls_here(server, visit).resumed, "%s: resumes under another name", tls_name(visit.version));
        visit.name = NULL;
        tls_change_id(&first.newest);
        gets = 0;
        CHECK(!tls_here(server, visit).resumed && gets == 1, "%s: an unknown id is not looked up", tls_name(visit.version));
        SSL_CTX_free(server);
    }
}

static void a_store_that_vanishes_before_its_first_use_costs_no_handshake(const char *scratch)
{
    char *store = store_in(scratch);

    for (int v = 0; v < 2; v++) {
        SSL_CTX *server = tls_attached(store, NULL);
        struct visit visit = {.version = tls_versions[v]};
        struct outcome first;

        CHECK(check_remove_tree(store) == 0 || errno == ENOENT, "cannot remove %s: %s", store, strerror(errno));
        watch(server);
        first = tls_here(server, visit);
        visit.offer = &first.newest;
        (void)tls_here(server, visit);
        (void)tls_child(server, visit);
        CHECK(news > 0 && gets > 0, "%s: the hooks are not called", tls_name(visit.version));
        SSL_CTX_free(server);
    }
}

static void a_process_without_free_descriptors_costs_no_handshake(const char *scratch)
{
    char *store = store_in(scratch);

    for (int v = 0; v < 2; v++) {
        pid_t pid = check_fork();

        if (pid == 0) {
            SSL_CTX *server = tls_attached(store, NULL);
            struct pair *pair;
            struct rlimit limit;

            watch(server);
            pair = tls_pair(server, (struct visit){.version = tls_versions[v]});
            CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0, "getrlimit: %s", strerror(errno));
            limit.rlim_cur = 0;
            CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0, "setrlimit: %s", strerror(errno));
            CHECK(dup(0) < 0, "there are descriptors left");

            /* poll(2) counts against the limit as well, so the ends are stepped by hand. */
            for (int step = 0; step < 4; step++) {
                (void)SSL_do_handshake(pair->client);
                (void)SSL_do_handshake(pair->server);
            }
            CHECK(SSL_is_init_finished(pair->server) && SSL_is_init_finished(pair->client),
                  "%s: no handshake without free descriptors", tls_name(tls_versions[v]));
            CHECK(news > 0, "%s: the new hook is not called", tls_name(tls_versions[v]));
            _exit(0);
        }
        check_wait(pid, "a server without free descriptors");
    }
}

/* ---- whole steps of a handshake, compared with a server that has no cache ---- */

struct step {
    int result, error, errno_after;
    unsigned long queue;
};

enum { STEPS = 12 };

static struct step look(SSL *server, int result)
{
    struct step step = {.result = result, .errno_after = errno};

    step.error = SSL_get_error(server, result);
    step.queue = ERR_peek_last_error();
    return step;
}

/* Steps both ends through handshake and a first read, and notes what the server sees after each. */
static int trace(SSL_CTX *server, int version, struct saved *session, struct step steps[STEPS])
{
    struct pair *pair = tls_pair(server, (struct visit){.version = version, .offer = session});
    struct saved newest;
    char byte;
    int n, resumed;

    memset(steps, 0, STEPS * sizeof steps[0]);
    for (n = 0; n < STEPS - 2; n++) {
        int client = SSL_do_handshake(pair->client);

        errno = 0;
        steps[n] = look(pair->server, SSL_do_handshake(pair->server));
        if (client == 1 && steps[n].result == 1)
            break;
    }
    errno = 0;
    steps[n + 1] = look(pair->server, SSL_read(pair->server, &byte, 1));
    tls_talk(pair);
    resumed = pair->out.resumed;
    newest = pair->out.newest;
    tls_end(pair);
    *session = newest;
    return resumed;
}

static void every_step_of_a_handshake_looks_as_it_does_without_a_cache(const char *scratch)
{
    static const char *const kinds[] = {"full", "resumed", "an unknown id"};
    struct step plain[STEPS], cached[STEPS];

    for (int v = 0; v < 2; v++) {
        SSL_CTX *without = tls_server(), *with = tls_attached(store_in(scratch), NULL);
        struct saved theirs = {.len = 0}, ours = {.len = 0};

        /* The one without: OpenSSL's own cache, asked for the same kind of sessions. */
        SSL_CTX_set_options(without, SSL_OP_NO_TICKET | SSL_OP_NO_ANTI_REPLAY);
        for (int kind = 0; kind < 3; kind++) {
            if (kind == 2) {
                tls_change_id(&theirs);
                tls_change_id(&ours);
            }
            CHECK(trace(without, tls_versions[v], &theirs, plain) == (kind == 1), "the server without a cache is no model");
            CHECK(trace(with, tls_versions[v], &ours, cached) == (kind == 1), "%s: %s goes wrong", tls_name(tls_versions[v]), kinds[kind]);
            for (int n = 0; n < STEPS; n++)
                CHECK(plain[n].result == cached[n].result && plain[n].error == cached[n].error &&
                      plain[n].errno_after == cached[n].errno_after && plain[n].queue == cached[n].queue,
                      "%s, %s, step %d: result %d, SSL_get_error %d, errno %d, queue %08lx; without a cache %d, %d, %d, %08lx",
                      tls_name(tls_versions[v]), kinds[kind], n, cached[n].result, cached[n].error, cached[n].errno_after,
                      cached[n].queue, plain[n].result, plain[n].error, plain[n].errno_after, plain[n].queue);
        }
        SSL_CTX_free(without);
        SSL_CTX_free(with);
    }
}

/* ---- the calls of the library ---- */

static void prefill(void)
{
    ERR_clear_error();
    ERR_raise(ERR_LIB_USER, 1);
    ERR_raise(ERR_LIB_USER, 2);
    errno = EXDEV;
}

static void untouched(const char *call)
{
    int saved = errno;
    int first = ERR_GET_REASON(ERR_get_error()), second = ERR_GET_REASON(ERR_get_error());

    CHECK(saved == EXDEV, "%s changes errno to %d (%s)", call, saved, strerror(saved));
    CHECK(first == 1 && second == 2, "%s changes what is in the error queue", call);
    CHECK(ERR_peek_error() == 0, "%s leaves %08lx in the error queue", call, ERR_peek_error());
}

#define QUIET(status, call) \
    do { \
        sesscache_status got; \
        prefill(); \
        got = (call); \
        untouched(#call); \
        CHECK(got == (status), #call " returns %d instead of " #status, (int)got); \
    } while (0)

#define QUIET_VOID(call) \
    do { \
        prefill(); \
        (void)(call); \
        untouched(#call); \
    } while (0)

static int visit_record(void *userdata, const unsigned char *id, size_t id_len, const void *data, size_t len, int64_t expires)
{
    (void)userdata;
    (void)id;
    (void)id_len;
    (void)data;
    (void)len;
    (void)expires;
    return 0;
}

static void calls_leave_errno_and_the_error_queue_alone(const char *scratch)
{
    static const unsigned char id[] = "id", none[] = "none";
    char *store = store_in(scratch), *file = path_in(scratch, "file");
    int64_t soon = (int64_t)time(NULL) + 60;
    sesscache *cache = NULL, *unused = NULL;
    SSL_CTX *server = tls_server(), *another = tls_server();
    FILE *made = fopen(file, "w");
    struct pair *pair;
    sesscache_stats stats;
    char data[64];
    size_t len = sizeof data, removed;

    CHECK(made != NULL && fclose(made) == 0, "cannot make %s: %s", file, strerror(errno));
    QUIET(SESSCACHE_OK, sesscache_open(store, NULL, &cache));
    QUIET(SESSCACHE_INVALID, sesscache_open(store, "no such=option", &unused));
    QUIET(SESSCACHE_INVALID, sesscache_open(NULL, NULL, &unused));
    QUIET_VOID(sesscache_open(file, NULL, &unused));
    QUIET_VOID((sesscache_close(unused), 0));
    QUIET(SESSCACHE_OK, sesscache_attach(cache, server));
    QUIET(SESSCACHE_OK, sesscache_enable(another, store, NULL));
    QUIET(SESSCACHE_INVALID, sesscache_attach(cache, NULL));

    QUIET(SESSCACHE_OK, sesscache_put(cache, id, 2, "data", 4, soon));
    QUIET(SESSCACHE_OK, sesscache_get(cache, id, 2, data, &len));
    QUIET(SESSCACHE_NOT_FOUND, sesscache_get(cache, none, 4, data, &len));
    len = 1;
    QUIET(SESSCACHE_INVALID, sesscache_get(cache, id, 2, data, &len));
    QUIET(SESSCACHE_OK, sesscache_each(cache, visit_record, NULL));
    QUIET(SESSCACHE_OK, sesscache_read_stats(cache, &stats, sizeof stats));
    QUIET(SESSCACHE_OK, sesscache_sweep(cache, 100, &removed));
    QUIET(SESSCACHE_OK, sesscache_remove(cache, id, 2));
    QUIET_VOID(sesscache_remove(cache, id, 2));

    pair = tls_pair(server, (struct visit){.version = TLS1_3_VERSION});
    QUIET_VOID(sesscache_forget(pair->server));
    tls_talk(pair);
    QUIET(SESSCACHE_OK, sesscache_forget(pair->server));
    tls_end(pair);

    QUIET(SESSCACHE_OK, sesscache_flush(cache));
    QUIET(SESSCACHE_OK, sesscache_detach(another));
    QUIET_VOID(sesscache_detach(another));
    QUIET_VOID(sesscache_strerror(3));
    QUIET_VOID(sesscache_errmsg());
    QUIET_VOID(sesscache_version());
    QUIET_VOID((sesscache_set_log(cache, NULL, NULL), 0));
    QUIET_VOID((sesscache_close(cache), 0));
    QUIET_VOID((SSL_CTX_free(server), 0));
    SSL_CTX_free(another);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(hooks_leave_errno_and_the_error_queue_alone),
        TEST(a_store_that_vanishes_before_its_first_use_costs_no_handshake),
        TEST(a_process_without_free_descriptors_costs_no_handshake),
        TEST(every_step_of_a_handshake_looks_as_it_does_without_a_cache),
        TEST(calls_leave_errno_and_the_error_queue_alone),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
