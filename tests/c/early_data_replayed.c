/*
 * Early data that somebody recorded is executed at most once, whichever worker gets it, how often, and when.
 *
 * Each test records the first flight of clients, lets every client and its recorder race for four workers, and plays the
 * flights again later. SESSCACHE_TEST_FLIGHTS=N plays N of them in each of the first four tests, at most 2000, instead of a
 * thousand in the first and a few in the others. early_data_unprotected.c does the same to servers that lack the protection.
 */
/* Seconds: thousands of handshakes, on a machine that may have other things to do. */
#define CHECK_DEADLINE 150
#include "check.h"
#include "tls.h"
#include "workers.h"

#include <sched.h>
#include <sys/mount.h>

/* No wait for the gate ends early, so each ticket is good for one flight exactly, however busy the machine. */
#define PATIENT "deadline=10s"
/* OpenSSL refuses early data by itself ten seconds after the ticket: so many are recorded and played at a time. */
#define BATCH 25
#define FEW 30

static struct flight flights[MAX_FLIGHTS];

static void start_with(SSL_CTX *ctxs[MAX_WORKERS], const char *store, const char *options)
{
    for (int n = 0; n < MAX_WORKERS; n++) {
        ctxs[n] = tls_server();
        CHECK(SSL_CTX_set_max_early_data(ctxs[n], 16384) == 1, "SSL_CTX_set_max_early_data");
        if (store != NULL)
            CHECK_OK(sesscache_enable(ctxs[n], store, options));
    }
}

static struct fleet *start(const char *store, const char *options)
{
    SSL_CTX *ctxs[MAX_WORKERS];

    start_with(ctxs, store, options);
    return fleet_start(ctxs, NULL);
}

/* Clients and their recorders race for all workers, one after the other; all flights again after each batch. */
static void storm(struct fleet *fleet, int count)
{
    for (int from = 0; from < count; from += BATCH) {
        int to = from + BATCH < count ? from + BATCH : count;

        fleet_record(fleet, flights, from, to, NULL);
        for (int i = from; i < to; i++) {
            (void)flight_strike(fleet, &flights[i], i % fleet->count);
            flight_end(&flights[i]);
        }
        fleet_play(fleet, flights, from, to);
    }
}

/* How many flights a test plays. */
static int flights_wanted(int by_default)
{
    const char *wanted = getenv("SESSCACHE_TEST_FLIGHTS");
    int count = wanted != NULL ? atoi(wanted) : by_default;

    CHECK(count > 0 && count <= MAX_FLIGHTS, "SESSCACHE_TEST_FLIGHTS is a number up to %d", MAX_FLIGHTS);
    return count;
}

static void a_thousand_flights_are_executed_once_by_four_workers(const char *scratch)
{
    int count = flights_wanted(1000);
    struct fleet *fleet = start(store_in(scratch), PATIENT);

    storm(fleet, count);
    fleet_play(fleet, flights, 0, count);
    fleet_expect(fleet, 0, count, 1, "four workers");
    for (int n = 0; n < fleet->count; n++)
        CHECK(count < 100 || atomic_load(&fleet->board->by_worker[n]) > 0, "worker %d never accepts early data", n);
    fleet_stop(fleet);
}

static void with_other_options_a_thousand_flights_are_executed_once_too(const char *scratch)
{
    static const char *const options[] = {PATIENT " single_use=always", PATIENT " guard=on"};
    int count = flights_wanted(FEW);

    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        struct fleet *fleet = start(path_in(scratch, i == 0 ? "always" : "guard"), options[i]);

        storm(fleet, count);
        fleet_expect(fleet, 0, count, 1, options[i]);
        fleet_stop(fleet);
    }
}

/* The client sends its request again after a HelloRetryRequest: if anybody executed the early data too, that is twice. */
static void what_a_hello_retry_request_refused_is_executed_nowhere(const char *scratch)
{
    int count = flights_wanted(FEW);
    SSL_CTX *ctxs[MAX_WORKERS];
    struct fleet *fleet;

    start_with(ctxs, store_in(scratch), PATIENT);
    CHECK(SSL_CTX_set1_groups_list(ctxs[0], "P-384") == 1, "SSL_CTX_set1_groups_list");
    fleet = fleet_start(ctxs, NULL);
    for (int from = 0; from < count; from += BATCH) {
        int to = from + BATCH < count ? from + BATCH : count;

        fleet_record(fleet, flights, from, to, "P-256:P-384");
        for (int i = from; i < to; i++) {
            CHECK(strcmp(flight_deliver(fleet, &flights[i], 0), "r-") == 0,
                  "after a HelloRetryRequest a client is not resumed, or its early data is accepted");
            flight_end(&flights[i]);
        }
        fleet_play(fleet, flights, from, to);
    }
    fleet_expect(fleet, 0, count, 0, "after a HelloRetryRequest");
    fleet_stop(fleet);
}

/* Here the one with the HelloRetryRequest is not first: whoever plays its flight at the same instant may win, once. */
static void in_a_race_with_a_hello_retry_request_one_executes_at_most(const char *scratch)
{
    SSL_CTX *ctxs[MAX_WORKERS];
    struct fleet *fleet;

    start_with(ctxs, store_in(scratch), PATIENT);
    CHECK(SSL_CTX_set1_groups_list(ctxs[0], "P-384") == 1, "SSL_CTX_set1_groups_list");
    fleet = fleet_start(ctxs, NULL);
    fleet_record(fleet, flights, 0, FEW, "P-256:P-384");
    for (int i = 0; i < FEW; i++)
        (void)flight_strike(fleet, &flights[i], 0);
    fleet_play(fleet, flights, 0, FEW);
    for (int i = 0; i < FEW; i++)
        CHECK(fleet_accepted(fleet, i) <= 1, "the early data of client %d is executed %u times", i, fleet_accepted(fleet, i));
    fleet_stop(fleet);
}

static void replace(struct fleet *fleet, int n)
{
    fleet_kill(fleet, n);
    fleet_spawn(fleet, n);
}

static void a_worker_that_dies_forgets_nothing_that_it_executed(const char *scratch)
{
    int count = flights_wanted(FEW);
    struct fleet *fleet = start(store_in(scratch), PATIENT);

    for (int from = 0; from < count; from += BATCH) {
        int to = from + BATCH < count ? from + BATCH : count;

        fleet_record(fleet, flights, from, to, NULL);
        for (int i = from; i < to; i++) {
            (void)flight_strike(fleet, &flights[i], i % fleet->count);
            flight_end(&flights[i]);
            if (i % 5 == 4)
                replace(fleet, i / 5 % fleet->count);
        }
        fleet_play(fleet, flights, from, to);
    }
    fleet_expect(fleet, 0, count, 1, "after the death of workers");
    fleet_stop(fleet);
}

static void a_worker_that_dies_while_it_executes_does_not_let_others_do_it_again(const char *scratch)
{
    enum { AT_ONCE = 3 };
    struct fleet *fleet = start(store_in(scratch), PATIENT);
    unsigned all = 0;

    fleet_record(fleet, flights, 0, FEW, NULL);
    for (int from = 0; from < FEW; from += AT_ONCE) {
        pid_t player = check_fork();

        if (player == 0) {
            fleet_play(fleet, flights, from, from + AT_ONCE);
            _exit(0);
        }
        check_sleep(0.001 + from * 0.0001);
        replace(fleet, from % fleet->count);
        check_wait(player, "whoever plays the flights");
    }
    fleet_play(fleet, flights, 0, FEW);
    for (int i = 0; i < FEW; i++) {
        CHECK(fleet_accepted(fleet, i) <= 1, "a worker died: the early data of client %d is executed %u times", i, fleet_accepted(fleet, i));
        all += fleet_accepted(fleet, i);
    }
    CHECK(all > 0, "no early data is accepted while workers die");
    fleet_stop(fleet);
}

/* Stores large records as fast as it can until it is stopped. */
__attribute__((noreturn)) static void keep_writing(sesscache *cache)
{
    static unsigned char data[65536];
    unsigned char id[32] = {0};

    for (;;) {
        id[0]++;
        (void)sesscache_put(cache, id, sizeof id, data, sizeof data, (int64_t)time(NULL) + 60);
    }
}

/* Stops a process in the middle of a write: then nobody else can write. */
static void stop_inside(sesscache *cache, pid_t writer)
{
    static const unsigned char id[] = "probe";
    int status;

    for (int attempt = 0; attempt < 2000; attempt++) {
        CHECK(kill(writer, SIGSTOP) == 0 && waitpid(writer, &status, WUNTRACED) == writer && WIFSTOPPED(status),
              "the writer is gone");
        if (sesscache_put(cache, id, sizeof id, id, sizeof id, (int64_t)time(NULL) + 60) == SESSCACHE_BUSY)
            return;
        CHECK(kill(writer, SIGCONT) == 0, "kill: %s", strerror(errno));
        check_sleep(0.0005 + attempt % 7 * 0.0001);
    }
    CHECK(0, "the writer is never inside the gate");
}

static void while_the_gate_is_held_nothing_is_executed_and_everybody_is_served(const char *scratch)
{
    enum { SOME = 24 };
    char *store = store_in(scratch);
    struct fleet *fleet = start(store, NULL);
    sesscache *cache = NULL;
    pid_t writer;
    unsigned fresh = 0;
    double begin;
    int i = 0;

    CHECK_OK(sesscache_open(store, NULL, &cache));
    fleet_record(fleet, flights, 0, 3 * SOME, NULL);
    writer = check_fork();
    if (writer == 0)
        keep_writing(cache);
    check_sleep(0.05);
    stop_inside(cache, writer);
    begin = check_now();

    /* Every worker runs into the deadline; after a second all move to a new generation, and old tickets stay unprovable. */
    for (; i < SOME; i++)
        CHECK(flight_strike(fleet, &flights[i], i % fleet->count)[1] == '-', "early data is accepted that nobody could take");
    fleet_expect(fleet, 0, SOME, 0, "the gate is held");
    while (check_now() - begin < 1.5)
        check_sleep(0.05);
    for (; i < 2 * SOME; i++)
        CHECK(flight_strike(fleet, &flights[i], i % fleet->count)[1] == '-', "early data is accepted that nobody could take");
    fleet_play(fleet, flights, 0, 2 * SOME);
    fleet_expect(fleet, 0, 2 * SOME, 0, "the gate is held");
    fleet_record(fleet, flights, 3 * SOME, 4 * SOME, NULL);
    for (i = 3 * SOME; i < 4 * SOME; i++)
        (void)flight_strike(fleet, &flights[i], i % fleet->count);
    fleet_play(fleet, flights, 3 * SOME, 4 * SOME);
    for (i = 3 * SOME; i < 4 * SOME; i++)
        fresh += fleet_accepted(fleet, i);
    CHECK(fresh > 0, "a stopped writer ends early data for all");

    CHECK(kill(writer, SIGCONT) == 0, "kill: %s", strerror(errno));
    check_sleep(0.05);
    CHECK(kill(writer, SIGKILL) == 0 && waitpid(writer, NULL, 0) == writer, "the writer is gone");
    for (i = 2 * SOME; i < 3 * SOME; i++)
        (void)flight_strike(fleet, &flights[i], i % fleet->count);
    for (int round = 0; round < 2; round++)
        fleet_play(fleet, flights, 0, 4 * SOME);
    for (i = 0; i < 4 * SOME; i++)
        CHECK(fleet_accepted(fleet, i) <= 1, "the gate was held: the early data of client %d is executed %u times", i, fleet_accepted(fleet, i));
    fleet_stop(fleet);
    sesscache_close(cache);
}

static const char *read_only;

/* Whether this process may have mounts of its own. */
static int may_mount(void)
{
    pid_t pid = check_fork();
    int status;

    if (pid == 0)
        _exit(unshare(CLONE_NEWNS) != 0);
    CHECK(waitpid(pid, &status, 0) == pid, "waitpid: %s", strerror(errno));
    return status == 0;
}

/* As root, chmod stops nobody. */
static void make_store_read_only(void)
{
    if (geteuid() != 0)
        return;
    CHECK(unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
          mount(read_only, read_only, NULL, MS_BIND, NULL) == 0 &&
          mount(NULL, read_only, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) == 0, "no read-only mount: %s", strerror(errno));
}

static int make_entry_read_only(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)walk;
    return type == FTW_SL ? 0 : chmod(path, status->st_mode & 0555);
}

static int make_entry_writable(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)walk;
    return type == FTW_SL ? 0 : chmod(path, status->st_mode | 0200);
}

static void a_store_that_cannot_be_written_executes_nothing_and_serves_everybody(const char *scratch)
{
    char *store = store_in(scratch);
    struct fleet *fleet, *unable;
    SSL_CTX *ctxs[MAX_WORKERS];

    if (geteuid() == 0 && !may_mount())
        check_not_tried("a read-only mount takes CAP_SYS_ADMIN");
    fleet = start(store, PATIENT);
    fleet_record(fleet, flights, 0, FEW, NULL);
    start_with(ctxs, store, PATIENT);
    read_only = store;
    if (geteuid() != 0)
        CHECK(nftw(store, make_entry_read_only, 16, FTW_DEPTH | FTW_PHYS) == 0, "chmod: %s", strerror(errno));
    unable = fleet_start(ctxs, make_store_read_only);
    for (int i = 0; i < FEW; i++)
        CHECK(strcmp(flight_strike(unable, &flights[i], i % unable->count), "f-") == 0,
              "a store that cannot be written lets a ticket resume with early data");
    fleet_expect(unable, 0, FEW, 0, "the store cannot be written");
    fleet_stop(unable);
    if (geteuid() != 0)
        CHECK(nftw(store, make_entry_writable, 16, FTW_PHYS) == 0, "chmod: %s", strerror(errno));
    fleet_play(fleet, flights, 0, FEW);
    fleet_play(fleet, flights, 0, FEW);
    fleet_expect(fleet, 0, FEW, 1, "the store can be written again");
    fleet_stop(fleet);
}

__attribute__((format(printf, 1, 2))) static void shell(const char *format, ...)
{
    char command[3 * PATH_MAX];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(command, sizeof command, format, arguments);
    va_end(arguments);
    CHECK(system(command) == 0, "%s: fails", command);
}

/* The page of a generation says which boot it was made in, behind its first 40 bytes: makes each one of another boot. */
static void age_generations(const char *store)
{
    shell("cd '%s' && for g in v1-*; do printf 'c0ffee00' | dd of=$g/gate bs=8 seek=5 conv=notrunc status=none || exit 1; done",
          store);
}

/*
 * After a power cut the file system may show the store as it was before tickets were taken. The machine has booted
 * since; without that, as in the second round, nobody could tell, and the flights are executed again.
 */
static void a_store_from_before_a_power_cut_executes_nothing_again(const char *scratch)
{
    enum { SOME = 20 };
    char *store = store_in(scratch), *copy = path_in(scratch, "copy");

    for (int booted = 1; booted >= 0; booted--) {
        struct fleet *fleet = start(store, PATIENT);

        fleet_record(fleet, flights, 0, SOME, NULL);
        shell("cp -a '%s' '%s'", store, copy);
        fleet_play(fleet, flights, 0, SOME);
        fleet_expect(fleet, 0, SOME, 1, "before the power cut");
        fleet_stop(fleet);
        shell("rm -r '%s' && mv '%s' '%s'", store, copy, store);
        if (booted)
            age_generations(store);

        fleet = start(store, PATIENT);
        for (int i = 0; i < SOME; i++) {
            const char *answer = flight_strike(fleet, &flights[i], i % fleet->count);

            CHECK(!booted || strcmp(answer, "f-") == 0, "a client resumes from a store of an earlier boot");
        }
        fleet_expect(fleet, 0, SOME, !booted, booted ? "after the power cut" : "a store put back while the machine runs");
        fleet_record(fleet, flights, SOME, 2 * SOME, NULL);
        fleet_play(fleet, flights, SOME, 2 * SOME);
        fleet_expect(fleet, SOME, 2 * SOME, 1, "new tickets");
        fleet_stop(fleet);
    }
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(a_thousand_flights_are_executed_once_by_four_workers),
        TEST(with_other_options_a_thousand_flights_are_executed_once_too),
        TEST(what_a_hello_retry_request_refused_is_executed_nowhere),
        TEST(in_a_race_with_a_hello_retry_request_one_executes_at_most),
        TEST(a_worker_that_dies_forgets_nothing_that_it_executed),
        TEST(a_worker_that_dies_while_it_executes_does_not_let_others_do_it_again),
        TEST(while_the_gate_is_held_nothing_is_executed_and_everybody_is_served),
        TEST(a_store_that_cannot_be_written_executes_nothing_and_serves_everybody),
        TEST(a_store_from_before_a_power_cut_executes_nothing_again),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
