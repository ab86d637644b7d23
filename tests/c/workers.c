/*
 * Workers, and flights played to them: see workers.h.
 */
#include "workers.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>

/* Longest silence on a connection, in seconds. */
#define SILENCE 20
#define ORDER "PAY "

static void set_socket(int fd)
{
    struct timeval silence = {SILENCE, 0};
    int one = 1;

    CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &silence, sizeof silence) == 0 &&
          setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) == 0, "setsockopt: %s", strerror(errno));
}

static struct sockaddr_in loopback(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static void begin_to_listen(struct worker *worker)
{
    struct sockaddr_in address = loopback(0);
    socklen_t len = sizeof address;

    worker->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(worker->listener >= 0 && bind(worker->listener, (struct sockaddr *)&address, sizeof address) == 0 &&
          listen(worker->listener, 128) == 0 &&
          getsockname(worker->listener, (struct sockaddr *)&address, &len) == 0, "no port to listen on: %s", strerror(errno));
    worker->port = ntohs(address.sin_port);
}

/* One connection; nothing that a client does may end the worker. */
static void serve(SSL *ssl, struct board *board, int n)
{
    char text[64], answer[2] = {'-', '-'};
    size_t len;
    int result = SSL_READ_EARLY_DATA_SUCCESS;

    while (result == SSL_READ_EARLY_DATA_SUCCESS && SSL_get_max_early_data(ssl) > 0) {
        result = SSL_read_early_data(ssl, text, sizeof text - 1, &len);
        if (result == SSL_READ_EARLY_DATA_SUCCESS) {
            text[len] = '\0';
            CHECK(strncmp(text, ORDER, strlen(ORDER)) == 0, "a worker reads other early data than was sent");
            atomic_fetch_add(&board->accepted[atoi(text + strlen(ORDER))], 1);
            atomic_fetch_add(&board->by_worker[n], 1);
            answer[1] = 'e';
        }
    }
    if (result == SSL_READ_EARLY_DATA_ERROR || SSL_accept(ssl) != 1)
        return;
    answer[0] = SSL_session_reused(ssl) ? 'r' : 'f';
    if (SSL_write(ssl, answer, 2) == 2)
        (void)SSL_shutdown(ssl);
}

__attribute__((noreturn)) static void work(struct fleet *fleet, int n)
{
    struct worker *worker = &fleet->workers[n];

    if (fleet->before != NULL)
        fleet->before();
    for (;;) {
        int fd = accept(worker->listener, NULL, NULL);
        SSL *ssl = SSL_new(worker->ctx);

        CHECK(fd >= 0 && ssl != NULL, "a worker cannot accept: %s", strerror(errno));
        set_socket(fd);
        CHECK(SSL_set_fd(ssl, fd) == 1, "SSL_set_fd");
        SSL_set_accept_state(ssl);
        serve(ssl, fleet->board, n);
        ERR_clear_error();
        SSL_free(ssl);
        CHECK(close(fd) == 0, "close: %s", strerror(errno));
    }
}

void fleet_spawn(struct fleet *fleet, int n)
{
    fleet->workers[n].pid = check_fork();
    if (fleet->workers[n].pid == 0)
        work(fleet, n);
}

void fleet_kill(struct fleet *fleet, int n)
{
    int status;

    CHECK(kill(fleet->workers[n].pid, SIGKILL) == 0 && waitpid(fleet->workers[n].pid, &status, 0) == fleet->workers[n].pid,
          "worker %d is gone", n);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "worker %d has ended by itself", n);
}

struct fleet *fleet_start(SSL_CTX *const ctxs[MAX_WORKERS], void (*before)(void))
{
    struct fleet *fleet = calloc(1, sizeof *fleet);

    CHECK(fleet != NULL, "out of memory");
    fleet->before = before;
    fleet->count = MAX_WORKERS;
    fleet->board = mmap(NULL, sizeof *fleet->board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(fleet->board != MAP_FAILED, "mmap: %s", strerror(errno));
    for (int n = 0; n < fleet->count; n++) {
        fleet->workers[n].ctx = ctxs[n];
        begin_to_listen(&fleet->workers[n]);
    }
    for (int n = 0; n < fleet->count; n++)
        fleet_spawn(fleet, n);
    return fleet;
}

void fleet_stop(struct fleet *fleet)
{
    for (int n = 0; n < fleet->count; n++) {
        fleet_kill(fleet, n);
        CHECK(close(fleet->workers[n].listener) == 0, "close: %s", strerror(errno));
    }
    CHECK(munmap(fleet->board, sizeof *fleet->board) == 0, "munmap: %s", strerror(errno));
    free(fleet);
}

static int dial(const struct worker *worker)
{
    struct sockaddr_in address = loopback(worker->port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0, "connect: %s", strerror(errno));
    set_socket(fd);
    return fd;
}

struct tickets {
    size_t count;
    struct saved *saved;
};

static int on_ticket(SSL *ssl, SSL_SESSION *session)
{
    struct tickets *tickets = SSL_get_app_data(ssl);

    if (tickets != NULL && tickets->count < 2)
        tls_save(&tickets->saved[tickets->count++], session);
    return 0;
}

static SSL *new_client(void)
{
    static SSL_CTX *ctx;
    SSL *client;

    if (ctx == NULL) {
        ctx = SSL_CTX_new(TLS_client_method());
        CHECK(ctx != NULL && SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) == 1, "no SSL_CTX for the clients");
        SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(ctx, on_ticket);
    }
    client = SSL_new(ctx);
    CHECK(client != NULL, "no SSL for a client");
    SSL_set_connect_state(client);
    return client;
}

/* Handshake and answer; the worker has to serve whoever is honest. */
static void finish(SSL *client, char answer[3])
{
    CHECK(SSL_do_handshake(client) == 1, "an honest client is not served: its handshake fails");
    CHECK(SSL_read(client, answer, 2) == 2, "an honest client is not served: no answer");
    CHECK((answer[0] == 'r') == SSL_session_reused(client), "client and worker disagree on whether this is a resumption");
    CHECK((answer[1] == 'e') == (SSL_get_early_data_status(client) == SSL_EARLY_DATA_ACCEPTED),
          "client and worker disagree on the early data");
    SSL_set_shutdown(client, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
}

size_t fleet_tickets(struct fleet *fleet, int n, struct saved saved[2])
{
    struct tickets tickets = {0, saved};
    int fd = dial(&fleet->workers[n]);
    SSL *client = new_client();
    char answer[3] = "";

    CHECK(SSL_set_app_data(client, &tickets) == 1 && SSL_set_fd(client, fd) == 1, "no SSL for a client");
    finish(client, answer);
    CHECK(tickets.count > 0, "a client got no ticket");
    SSL_free(client);
    CHECK(close(fd) == 0, "close: %s", strerror(errno));
    return tickets.count;
}

void flight_record(struct flight *flight, int number, const struct saved *ticket, const char *groups)
{
    SSL_SESSION *session = tls_load(ticket);
    BIO *memory = BIO_new(BIO_s_mem());
    char order[32];
    size_t written;
    int len;

    CHECK(number < MAX_FLIGHTS, "more flights than fit the board");
    flight->number = number;
    flight->client = new_client();
    CHECK(memory != NULL && SSL_set_session(flight->client, session) == 1, "the client cannot offer its session");
    SSL_SESSION_free(session);
    if (groups != NULL)
        CHECK(SSL_set1_groups_list(flight->client, groups) == 1, "the client cannot offer %s", groups);
    SSL_set0_wbio(flight->client, memory);
    len = snprintf(order, sizeof order, ORDER "%d", number);
    CHECK(SSL_write_early_data(flight->client, order, (size_t)len, &written) == 1, "the client sends no early data");
    len = BIO_read(memory, flight->bytes, sizeof flight->bytes);
    CHECK(len > 0 && BIO_pending(memory) == 0, "a first flight of another size than expected");
    flight->len = (size_t)len;
}

static void send_to(int fd, const struct flight *flight)
{
    CHECK(send(fd, flight->bytes, flight->len, MSG_NOSIGNAL) == (ssize_t)flight->len, "send: %s", strerror(errno));
}

/* The client goes on where its first flight went to. */
static const char *go_on(struct flight *flight, int fd)
{
    static char answer[3];

    SSL_set0_wbio(flight->client, NULL);
    CHECK(SSL_set_fd(flight->client, fd) == 1, "SSL_set_fd");
    finish(flight->client, answer);
    return answer;
}

const char *flight_deliver(struct fleet *fleet, struct flight *flight, int n)
{
    int fd = dial(&fleet->workers[n]);
    const char *answer;

    send_to(fd, flight);
    answer = go_on(flight, fd);
    CHECK(close(fd) == 0, "close: %s", strerror(errno));
    return answer;
}

const char *flight_strike(struct fleet *fleet, struct flight *flight, int honest)
{
    const char *answer = "";
    int fds[MAX_WORKERS];
    char ignored[4096];

    for (int n = 0; n < fleet->count; n++)
        fds[n] = dial(&fleet->workers[n]);
    for (int n = 0; n < fleet->count; n++)
        send_to(fds[n], flight);
    for (int n = 0; n < fleet->count; n++) {
        if (n != honest)
            (void)shutdown(fds[n], SHUT_WR);
    }
    if (honest >= 0)
        answer = go_on(flight, fds[honest]);
    for (int n = 0; n < fleet->count; n++) {
        while (n != honest && recv(fds[n], ignored, sizeof ignored, 0) > 0)
            ;
        CHECK(close(fds[n]) == 0, "close: %s", strerror(errno));
    }
    return answer;
}

void flight_end(struct flight *flight)
{
    SSL_free(flight->client);
    flight->client = NULL;
}

void fleet_record(struct fleet *fleet, struct flight *flights, int from, int to, const char *groups)
{
    struct saved tickets[2];
    size_t left = 0;

    for (int i = from; i < to; i++) {
        if (left == 0)
            left = fleet_tickets(fleet, i / 2 % fleet->count, tickets);
        flight_record(&flights[i], i, &tickets[--left], groups);
    }
}

void fleet_play(struct fleet *fleet, struct flight *flights, int from, int to)
{
    for (int i = from; i < to; i++)
        (void)flight_strike(fleet, &flights[i], -1);
}

unsigned fleet_accepted(const struct fleet *fleet, int number)
{
    return atomic_load(&fleet->board->accepted[number]);
}

void fleet_expect(const struct fleet *fleet, int from, int to, unsigned times, const char *when)
{
    for (int i = from; i < to; i++)
        CHECK(fleet_accepted(fleet, i) == times, "%s: the early data of client %d is executed %u times instead of %u", when, i,
              fleet_accepted(fleet, i), times);
}
