/*
 * Early data is accepted in any process, and once only in all of them together (RFC 8446 section 8.1).
 *
 * Whoever records the first flight of a client can send it again, to another worker too. OpenSSL's own
 * anti-replay knows one process only.
 */
#include "check.h"
#include "tls.h"

#include <openssl/rand.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

#define REQUEST "GET /pay?amount=100 HTTP/1.0\r\n\r\n"

static SSL_CTX *serve(const char *store, const char *options)
{
    SSL_CTX *server = tls_server();

    CHECK(SSL_CTX_set_max_early_data(server, 16384) == 1, "SSL_CTX_set_max_early_data");
    CHECK_OK(sesscache_enable(server, store, options));
    return server;
}

static struct outcome first_visit(SSL_CTX *server)
{
    struct outcome first = tls_child(server, (struct visit){.version = TLS1_3_VERSION});

    CHECK(!first.resumed && first.newest.len > 0, "the client got no ticket");
    return first;
}

static struct visit early(const struct saved *ticket)
{
    return (struct visit){.version = TLS1_3_VERSION, .offer = ticket, .early = REQUEST};
}

static struct visit plain(const struct saved *ticket)
{
    return (struct visit){.version = TLS1_3_VERSION, .offer = ticket};
}

static void early_data_is_accepted_in_another_process(const char *scratch)
{
    SSL_CTX *one = serve(store_in(scratch), NULL), *two = serve(store_in(scratch), NULL);
    struct outcome first = first_visit(one), again;

    again = tls_child(two, early(&first.newest));
    CHECK(again.resumed && again.early_accepted, "another process refuses early data");
    /* The ticket that came with it is good for the next early data, also in this process. */
    again = tls_here(one, early(&again.newest));
    CHECK(again.resumed && again.early_accepted, "the ticket of a resumed connection carries no early data");
    SSL_CTX_free(one);
    SSL_CTX_free(two);
}

static void early_data_allowed_after_attach_is_accepted_once_too(const char *scratch)
{
    SSL_CTX *server = tls_attached(store_in(scratch), NULL);
    struct outcome first;

    CHECK(SSL_CTX_set_max_early_data(server, 16384) == 1, "SSL_CTX_set_max_early_data");
    first = first_visit(server);
    CHECK(tls_child(server, early(&first.newest)).early_accepted, "early data is refused");
    CHECK(!tls_child(server, early(&first.newest)).early_accepted, "early data is accepted twice");
    SSL_CTX_free(server);
}

static void the_same_ticket_carries_early_data_once_only(const char *scratch)
{
    SSL_CTX *one = serve(store_in(scratch), NULL), *two = serve(store_in(scratch), NULL);
    struct outcome first = first_visit(one);

    CHECK(tls_child(one, early(&first.newest)).early_accepted, "early data is refused the first time");
    CHECK(!tls_child(one, early(&first.newest)).early_accepted, "early data is accepted twice");
    CHECK(!tls_child(two, early(&first.newest)).early_accepted, "another SSL_CTX accepts early data again");
    CHECK(!tls_here(one, early(&first.newest)).early_accepted, "the process that made the ticket accepts early data again");
    SSL_CTX_free(one);
    SSL_CTX_free(two);
}

static void the_process_that_issued_a_ticket_keeps_no_copy_of_it(const char *scratch)
{
    SSL_CTX *server = serve(store_in(scratch), NULL);
    struct outcome first = tls_here(server, plain(NULL));

    CHECK(tls_child(server, early(&first.newest)).early_accepted, "early data is refused the first time");
    CHECK(!tls_here(server, early(&first.newest)).early_accepted, "the issuing process accepts early data that another one had");
    SSL_CTX_free(server);
}

static void a_ticket_without_early_data_resumes_again_until_early_data_takes_it(const char *scratch)
{
    SSL_CTX *server = serve(store_in(scratch), NULL);
    struct outcome first = first_visit(server);

    for (int i = 0; i < 3; i++)
        CHECK(tls_child(server, plain(&first.newest)).resumed, "parallel connections of one client do not resume");
    CHECK(tls_child(server, early(&first.newest)).early_accepted, "early data is refused");
    CHECK(!tls_child(server, early(&first.newest)).early_accepted, "early data is accepted twice");
    CHECK(!tls_child(server, plain(&first.newest)).resumed, "a ticket that was taken resumes");
    SSL_CTX_free(server);
}

static void single_use_always_lets_each_ticket_resume_once(const char *scratch)
{
    char *store = store_in(scratch);
    SSL_CTX *server = serve(store, "single_use=always");
    struct outcome first = first_visit(server), link;

    CHECK(first.given == 2, "the client got %zu tickets instead of 2", first.given);
    for (size_t i = 0; i < first.given; i++) {
        CHECK(tls_child(server, plain(&first.sessions[i])).resumed, "ticket %zu does not resume at all", i + 1);
        CHECK(!tls_child(server, plain(&first.sessions[i])).resumed, "ticket %zu resumes twice", i + 1);
        CHECK(!tls_here(server, early(&first.sessions[i])).resumed, "ticket %zu resumes a third time", i + 1);
    }
    link = first_visit(server);
    for (int i = 0; i < 3; i++) {
        link = tls_child(server, early(&link.newest));
        CHECK(link.resumed && link.early_accepted, "single_use=always breaks the chain of tickets");
    }
    SSL_CTX_free(server);
}

static void single_use_off_accepts_early_data_every_time(const char *scratch)
{
    SSL_CTX *server = serve(store_in(scratch), "single_use=off");
    struct outcome first = first_visit(server);

    for (int i = 0; i < 3; i++) {
        struct outcome again = tls_child(server, early(&first.newest));

        CHECK(again.resumed && again.early_accepted, "single_use=off refuses early data at attempt %d", i + 1);
    }
    SSL_CTX_free(server);
}

static int generate(SSL *ssl, unsigned char *id, unsigned int *len)
{
    (void)ssl;
    return RAND_bytes(id, (int)*len);
}

/* Ids that the store did not make: from a generator that the application sets after attach. */
static void ids_of_the_application_are_accepted_once_too(const char *scratch)
{
    SSL_CTX *server = serve(store_in(scratch), NULL);
    struct outcome first;

    CHECK(SSL_CTX_set_generate_session_id(server, generate) == 1, "SSL_CTX_set_generate_session_id");
    first = first_visit(server);
    CHECK(tls_child(server, early(&first.newest)).early_accepted, "early data is refused");
    CHECK(!tls_child(server, early(&first.newest)).early_accepted, "early data is accepted twice");
    CHECK(!tls_here(server, plain(&first.newest)).resumed, "a ticket that was taken resumes");
    SSL_CTX_free(server);
}

/* OpenSSL asks twice for the session when it sends a HelloRetryRequest; the answer must be the same. */
static void a_hello_retry_request_still_resumes(const char *scratch)
{
    static const char *const options[] = {NULL, "single_use=always", "single_use=off"};
    char *store = store_in(scratch);

    for (size_t i = 0; i < 3; i++) {
        SSL_CTX *easy = serve(store, options[i]), *picky = serve(store, options[i]);

        CHECK(SSL_CTX_set1_groups_list(picky, "P-384") == 1, "SSL_CTX_set1_groups_list");
        for (int with_early = 0; with_early < 2; with_early++) {
            struct outcome first = first_visit(easy), again;
            struct visit visit = with_early ? early(&first.newest) : plain(&first.newest);

            visit.groups = "P-256:P-384";
            again = tls_child(picky, visit);
            CHECK(again.hellos == 2, "there was no HelloRetryRequest");
            CHECK(again.resumed, "%s, %s: a HelloRetryRequest costs the resumption", options[i] != NULL ? options[i] : "default",
                  with_early ? "early data" : "no early data");
            CHECK(!again.early_accepted, "early data is accepted after a HelloRetryRequest");
            if (i < 2 && with_early)
                CHECK(!tls_child(easy, early(&first.newest)).early_accepted,
                      "early data that a HelloRetryRequest refused is accepted when played to another server");
            if (i == 1)
                CHECK(!tls_child(easy, plain(&first.newest)).resumed, "a HelloRetryRequest lets a ticket resume twice");
        }
        SSL_CTX_free(easy);
        SSL_CTX_free(picky);
    }
}

/* Plays recorded bytes to a server; 1 when it hands early data to the application. */
static int play(SSL_CTX *server, const unsigned char *flight, size_t len)
{
    struct pair *pair = tls_pair(server, plain(NULL));
    char text[256];
    size_t got = 0;
    int result;

    CHECK(write(pair->client_fd, flight, len) == (ssize_t)len, "write: %s", strerror(errno));
    result = SSL_read_early_data(pair->server, text, sizeof text, &got);
    CHECK(result != SSL_READ_EARLY_DATA_SUCCESS || (got == strlen(REQUEST) && memcmp(text, REQUEST, got) == 0),
          "the server reads other early data than was sent");
    ERR_clear_error();
    tls_drop(pair);
    return result == SSL_READ_EARLY_DATA_SUCCESS;
}

/* What a client sends that offers early data with this ticket, and nothing after it. */
static size_t record_flight(SSL_CTX *server, const struct saved *ticket, unsigned char *flight, size_t room)
{
    struct pair *pair = tls_pair(server, early(ticket));
    BIO *memory = BIO_new(BIO_s_mem());
    size_t written;
    int len;

    CHECK(memory != NULL, "out of memory");
    SSL_set0_wbio(pair->client, memory);
    CHECK(SSL_write_early_data(pair->client, REQUEST, strlen(REQUEST), &written) == 1, "the client sends no early data");
    len = BIO_read(memory, flight, (int)room);
    CHECK(len > 0, "the client sends nothing");
    tls_drop(pair);
    return (size_t)len;
}

static void a_recorded_flight_played_again_is_not_executed(const char *scratch)
{
    SSL_CTX *one = serve(store_in(scratch), NULL), *two = serve(store_in(scratch), NULL);
    struct outcome first = first_visit(one);
    unsigned char flight[8192];
    size_t len = record_flight(one, &first.newest, flight, sizeof flight);
    pid_t pid;

    CHECK(play(one, flight, len), "early data is refused the first time");
    CHECK(!play(one, flight, len), "a replay is executed by the same server");
    CHECK(!play(two, flight, len), "a replay is executed by another SSL_CTX");
    pid = check_fork();
    if (pid == 0) {
        CHECK(!play(two, flight, len), "a replay is executed by another process");
        _exit(0);
    }
    check_wait(pid, "the process that gets the replay");
    SSL_CTX_free(one);
    SSL_CTX_free(two);
}

/* Servers may use an SSL again after SSL_clear. What was taken for one connection is not good for the next. */
static void an_ssl_used_again_does_not_resume_a_ticket_twice(const char *scratch)
{
    SSL_CTX *server = tls_attached(store_in(scratch), "single_use=always");
    struct outcome first = first_visit(server);
    struct pair *once = tls_pair(server, plain(&first.newest)), *twice;

    tls_talk(once);
    CHECK(once->out.resumed, "the ticket does not resume at all");
    /* SSL_clear would delete the session of a connection that is not shut down. */
    SSL_set_shutdown(once->server, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    CHECK(SSL_clear(once->server) == 1, "SSL_clear");
    twice = tls_pair(server, plain(&first.newest));
    SSL_free(twice->server);
    twice->server = once->server;
    once->server = NULL;
    CHECK(SSL_set_fd(twice->server, twice->server_fd) == 1, "SSL_set_fd");
    tls_talk(twice);
    CHECK(!twice->out.resumed, "the next connection on the same SSL resumes the ticket again");
    tls_end(twice);
    tls_drop(once);
    SSL_CTX_free(server);
}

/* A host that turns stateless tickets on again after attach: nobody could tell a replay. */
static void stateless_tickets_carry_no_early_data(const char *scratch)
{
    SSL_CTX *server = serve(store_in(scratch), NULL);
    unsigned char flight[8192];
    struct outcome first;
    size_t len;

    SSL_CTX_clear_options(server, SSL_OP_NO_TICKET);
    first = first_visit(server);
    CHECK(tls_child(server, plain(&first.newest)).resumed, "the tickets of a host that wants them do not resume");
    /* The client is told so; one that does not listen is refused. */
    tls_pretend_early(&first.newest);
    len = record_flight(server, &first.newest, flight, sizeof flight);
    for (int i = 0; i < 3; i++)
        CHECK(!play(server, flight, len), "a stateless ticket carries early data at attempt %d", i + 1);
    SSL_CTX_free(server);
}

/* A host that gives the SSL_CTX an internal cache again: the worker that made a ticket, or took it, would have a copy. */
static void with_an_internal_cache_there_is_no_early_data(const char *scratch)
{
    SSL_CTX *server = serve(store_in(scratch), NULL);
    struct outcome before = tls_here(server, plain(NULL)), after;
    unsigned char flight[8192];
    size_t len;

    (void)SSL_CTX_set_session_cache_mode(server, SSL_SESS_CACHE_SERVER);
    after = tls_here(server, plain(NULL));
    tls_pretend_early(&after.newest);
    len = record_flight(server, &after.newest, flight, sizeof flight);
    for (int i = 0; i < 3; i++)
        CHECK(!play(server, flight, len), "a ticket of which there is a copy carries early data at attempt %d", i + 1);
    len = record_flight(server, &before.newest, flight, sizeof flight);
    for (int i = 0; i < 3; i++)
        CHECK(!play(server, flight, len), "a ticket that OpenSSL keeps when it is taken carries early data at attempt %d", i + 1);
    SSL_CTX_free(server);
}

enum { RACERS = 6, RACES = 15 };

struct race {
    pthread_barrier_t barrier;
    atomic_int accepted;
};

static void of_many_processes_at_once_one_accepts_the_early_data(const char *scratch)
{
    SSL_CTX *server = serve(store_in(scratch), "deadline=10s");
    struct race *race = mmap(NULL, sizeof *race, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_barrierattr_t attributes;

    CHECK(race != MAP_FAILED, "mmap: %s", strerror(errno));
    CHECK(pthread_barrierattr_init(&attributes) == 0 &&
          pthread_barrierattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED) == 0 &&
          pthread_barrier_init(&race->barrier, &attributes, RACERS) == 0, "no barrier between processes");
    for (int n = 0; n < RACES; n++) {
        struct outcome first = first_visit(server);
        pid_t racers[RACERS];

        atomic_store(&race->accepted, 0);
        for (int i = 0; i < RACERS; i++) {
            racers[i] = check_fork();
            if (racers[i] == 0) {
                (void)pthread_barrier_wait(&race->barrier);
                atomic_fetch_add(&race->accepted, tls_here(server, early(&first.newest)).early_accepted);
                _exit(0);
            }
        }
        for (int i = 0; i < RACERS; i++)
            check_wait(racers[i], "a process that races for the ticket");
        CHECK(atomic_load(&race->accepted) == 1, "%d of %d processes accept the same early data",
              atomic_load(&race->accepted), RACERS);
    }
    SSL_CTX_free(server);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(early_data_is_accepted_in_another_process),
        TEST(early_data_allowed_after_attach_is_accepted_once_too),
        TEST(the_same_ticket_carries_early_data_once_only),
        TEST(the_process_that_issued_a_ticket_keeps_no_copy_of_it),
        TEST(a_ticket_without_early_data_resumes_again_until_early_data_takes_it),
        TEST(single_use_always_lets_each_ticket_resume_once),
        TEST(single_use_off_accepts_early_data_every_time),
        TEST(ids_of_the_application_are_accepted_once_too),
        TEST(a_hello_retry_request_still_resumes),
        TEST(a_recorded_flight_played_again_is_not_executed),
        TEST(an_ssl_used_again_does_not_resume_a_ticket_twice),
        TEST(stateless_tickets_carry_no_early_data),
        TEST(with_an_internal_cache_there_is_no_early_data),
        TEST(of_many_processes_at_once_one_accepts_the_early_data),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
