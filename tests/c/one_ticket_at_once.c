/*
 * Two connections of one client offer the same session at the same instant, to two processes.
 *
 * Browsers do so. What is good for one use goes to one of them, the other gets a full handshake; neither fails, and both
 * come away with a session for next time.
 */
#include "check.h"
#include "tls.h"

#include <pthread.h>
#include <sys/mman.h>

#define ROUNDS 20

struct meeting {
    pthread_barrier_t barrier;
    struct outcome outcomes[2];
};

/* How each of the two connects, and what has to come of it. */
struct pairing {
    const char *name, *options;
    int version;
    int early[2];       /* with early data */
    int retried;        /* the first one meets a HelloRetryRequest */
    int resumed[2];     /* least and most that resume */
    int accepted[2];    /* least and most whose early data is accepted */
};

static const struct pairing pairings[] = {
    {"TLS 1.2", "", TLS1_2_VERSION, {0, 0}, 0, {2, 2}, {0, 0}},
    {"no early data", "", TLS1_3_VERSION, {0, 0}, 0, {2, 2}, {0, 0}},
    {"both with early data", "", TLS1_3_VERSION, {1, 1}, 0, {1, 1}, {1, 1}},
    {"one with early data", "", TLS1_3_VERSION, {1, 0}, 0, {1, 2}, {1, 1}},
    {"both with early data, one is retried", "", TLS1_3_VERSION, {1, 1}, 1, {1, 1}, {0, 1}},
    {"single_use=always, no early data", "single_use=always", TLS1_3_VERSION, {0, 0}, 0, {1, 1}, {0, 0}},
    {"single_use=always, one is retried", "single_use=always", TLS1_3_VERSION, {0, 0}, 1, {1, 1}, {0, 0}},
    {"single_use=always, both with early data", "single_use=always", TLS1_3_VERSION, {1, 1}, 0, {1, 1}, {1, 1}},
    {"single_use=always, one with early data", "single_use=always", TLS1_3_VERSION, {1, 0}, 0, {1, 1}, {0, 1}},
    {"single_use=off, both with early data", "single_use=off", TLS1_3_VERSION, {1, 1}, 0, {2, 2}, {2, 2}},
};

static SSL_CTX *serve(const char *store, const char *options, const char *groups)
{
    SSL_CTX *server = tls_server();
    char *patient;

    CHECK(asprintf(&patient, "deadline=10s %s", options) > 0, "out of memory");
    CHECK(SSL_CTX_set_max_early_data(server, 16384) == 1, "SSL_CTX_set_max_early_data");
    if (groups != NULL)
        CHECK(SSL_CTX_set1_groups_list(server, groups) == 1, "SSL_CTX_set1_groups_list");
    CHECK_OK(sesscache_enable(server, store, patient));
    free(patient);
    return server;
}

static struct meeting *meeting(void)
{
    struct meeting *made = mmap(NULL, sizeof *made, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_barrierattr_t attributes;

    CHECK(made != MAP_FAILED, "mmap: %s", strerror(errno));
    CHECK(pthread_barrierattr_init(&attributes) == 0 &&
          pthread_barrierattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED) == 0 &&
          pthread_barrier_init(&made->barrier, &attributes, 2) == 0, "no barrier between processes");
    return made;
}

static void check_bounds(const struct pairing *how, const char *what, int count, const int bounds[2])
{
    CHECK(count >= bounds[0] && count <= bounds[1], "%s: %s %d of two connections, not %d to %d", how->name, what, count,
          bounds[0], bounds[1]);
}

static void meet(const struct pairing *how, SSL_CTX *easy, SSL_CTX *picky, struct meeting *shared)
{
    struct outcome first = tls_here(easy, (struct visit){.version = how->version});
    const struct outcome *out = shared->outcomes;
    pid_t clients[2];

    for (int i = 0; i < 2; i++) {
        clients[i] = check_fork();
        if (clients[i] != 0)
            continue;
        struct visit visit = {.version = how->version, .offer = &first.newest, .early = how->early[i] ? "PAY" : NULL};
        int retried = how->retried && i == 0;

        if (how->version == TLS1_3_VERSION)
            visit.groups = "P-256:P-384";
        (void)pthread_barrier_wait(&shared->barrier);
        shared->outcomes[i] = tls_here(retried ? picky : easy, visit);
        CHECK(shared->outcomes[i].hellos == 1 + retried, "%s: %d ClientHellos", how->name, shared->outcomes[i].hellos);
        exit(0);
    }
    for (int i = 0; i < 2; i++)
        check_wait(clients[i], how->name);
    check_bounds(how, "resumed", out[0].resumed + out[1].resumed, how->resumed);
    check_bounds(how, "early data accepted of", out[0].early_accepted + out[1].early_accepted, how->accepted);
    for (int i = 0; i < 2; i++) {
        struct visit visit = {.version = how->version, .offer = &out[i].newest};

        CHECK(tls_here(easy, visit).resumed, "%s: connection %d has no session for next time", how->name, i + 1);
    }
}

static void of_two_clients_with_one_ticket_one_resumes_and_the_other_starts_over(const char *scratch)
{
    char *store = store_in(scratch);
    struct meeting *shared = meeting();

    for (size_t i = 0; i < sizeof pairings / sizeof pairings[0]; i++) {
        SSL_CTX *easy = serve(store, pairings[i].options, NULL), *picky = serve(store, pairings[i].options, "P-384");

        for (int round = 0; round < ROUNDS; round++)
            meet(&pairings[i], easy, picky, shared);
        SSL_CTX_free(easy);
        SSL_CTX_free(picky);
    }
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(of_two_clients_with_one_ticket_one_resumes_and_the_other_starts_over),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
