/*
 * TLS connections for the tests: see tls.h.
 *
 * Both ends are small state machines over non-blocking sockets, so the same code serves a server in this
 * thread and one in a forked process.
 */
#include "tls.h"

#include <poll.h>
#include <sys/socket.h>

/* Longest silence on a connection before it counts as hung. */
#define SILENCE_MS 20000

const int tls_versions[2] = {TLS1_2_VERSION, TLS1_3_VERSION};
const char *tls_doing = "";

static int is_datagram(int version)
{
    return version == DTLS1_2_VERSION;
}

SSL_CTX *tls_server(void)
{
    return tls_server_for(TLS1_3_VERSION);
}

SSL_CTX *tls_server_for(int version)
{
    SSL_CTX *ctx = SSL_CTX_new(is_datagram(version) ? DTLS_server_method() : TLS_server_method());
    const struct credentials *own = tls_credentials(SERVER_P256);

    CHECK(ctx != NULL && SSL_CTX_use_certificate(ctx, own->certificate) == 1 &&
          SSL_CTX_use_PrivateKey(ctx, own->key) == 1 &&
          SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"tests", 5) == 1, "no SSL_CTX for the test server");
    return ctx;
}

SSL_CTX *tls_attached(const char *store, const char *options)
{
    SSL_CTX *ctx = tls_server();

    CHECK_OK(sesscache_enable(ctx, store, options));
    return ctx;
}

/* Called on the client for every session the server issues. */
static int on_session(SSL *ssl, SSL_SESSION *session)
{
    struct pair *pair = SSL_get_app_data(ssl);

    if (pair->out.given < MAX_GIVEN)
        tls_save(&pair->out.sessions[pair->out.given], session);
    tls_save(&pair->out.newest, session);
    pair->out.given++;
    return 0;
}

static void on_message(int sent, int version, int type, const void *data, size_t len, SSL *ssl, void *argument)
{
    struct pair *pair = argument;

    (void)version;
    (void)ssl;
    if (sent && type == SSL3_RT_HANDSHAKE && len > 0 && *(const unsigned char *)data == SSL3_MT_CLIENT_HELLO)
        pair->out.hellos++;
}

static struct pair *new_pair(const struct visit *visit)
{
    struct pair *pair = calloc(1, sizeof *pair);
    int kind = is_datagram(visit->version) ? SOCK_SEQPACKET : SOCK_STREAM;
    int fds[2];

    CHECK(pair != NULL, "out of memory");
    pair->visit = *visit;
    if (visit->offer != NULL && visit->offer->len == 0)
        pair->visit.offer = NULL;
    CHECK(socketpair(AF_UNIX, kind | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0, "socketpair: %s", strerror(errno));
    pair->client_fd = fds[0];
    pair->server_fd = fds[1];

    pair->client_ctx = SSL_CTX_new(is_datagram(visit->version) ? DTLS_client_method() : TLS_client_method());
    CHECK(pair->client_ctx != NULL, "no SSL_CTX for the client");
    SSL_CTX_set_session_cache_mode(pair->client_ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(pair->client_ctx, on_session);
    pair->client = SSL_new(pair->client_ctx);
    CHECK(pair->client != NULL && SSL_set_app_data(pair->client, pair) == 1 &&
          SSL_set_min_proto_version(pair->client, visit->version) == 1 &&
          SSL_set_max_proto_version(pair->client, visit->version) == 1 &&
          SSL_set_fd(pair->client, pair->client_fd) == 1, "no SSL for the client");
    SSL_set_msg_callback(pair->client, on_message);
    SSL_set_msg_callback_arg(pair->client, pair);
    SSL_set_connect_state(pair->client);
    if (visit->name != NULL)
        CHECK(SSL_set_tlsext_host_name(pair->client, visit->name) == 1, "the client cannot ask for %s", visit->name);
    if (visit->groups != NULL)
        CHECK(SSL_set1_groups_list(pair->client, visit->groups) == 1, "the client cannot offer %s", visit->groups);
    if (visit->prepare_client != NULL)
        visit->prepare_client(pair->client);
    if (pair->visit.offer != NULL) {
        SSL_SESSION *session = tls_load(pair->visit.offer);

        CHECK(SSL_set_session(pair->client, session) == 1, "the client cannot offer its session");
        SSL_SESSION_free(session);
    }
    return pair;
}

static void add_server(struct pair *pair, SSL_CTX *ctx)
{
    pair->server = SSL_new(ctx);
    CHECK(pair->server != NULL && SSL_set_fd(pair->server, pair->server_fd) == 1, "no SSL for the server");
    SSL_set_accept_state(pair->server);
    if (pair->visit.prepare != NULL)
        pair->visit.prepare(pair->server);
}

static void close_end(int *fd)
{
    if (*fd >= 0)
        CHECK(close(*fd) == 0, "close: %s", strerror(errno));
    *fd = -1;
}

/* 1: the call succeeded, 0: it waits for the other end. Anything else ends the test. */
static int settled(SSL *ssl, int result, const char *what)
{
    int error;

    if (result > 0)
        return 1;
    error = SSL_get_error(ssl, result);
    CHECK(error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE,
          "%s%s fails in %s (SSL_get_error %d)", tls_doing, what, SSL_state_string_long(ssl), error);
    return 0;
}

enum { EARLY, HANDSHAKE, ANSWER, BYE, DONE };

static int server_early(struct pair *pair)
{
    char text[256];
    size_t len = 0;
    int result = SSL_read_early_data(pair->server, text, sizeof text, &len);

    if (result == SSL_READ_EARLY_DATA_ERROR)
        return settled(pair->server, 0, "SSL_read_early_data");
    if (result == SSL_READ_EARLY_DATA_FINISH)
        pair->server_state = HANDSHAKE;
    else
        pair->early_read += len;
    return 1;
}

/* What the server does last; `POLITE` waits for the close_notify of the client. */
static int server_bye(struct pair *pair)
{
    char byte;
    int result;

    switch (pair->visit.ending) {
    case POLITE:
        result = SSL_shutdown(pair->server);
        if (result == 0)
            result = SSL_shutdown(pair->server);
        if (!settled(pair->server, result, "SSL_shutdown on the server"))
            return 0;
        break;
    case TCP_CLOSED:
        result = SSL_read(pair->server, &byte, 1);
        if (SSL_get_error(pair->server, result) == SSL_ERROR_WANT_READ)
            return 0;
        CHECK(result <= 0, "the server reads data nobody sent");
        ERR_clear_error();
        break;
    case SERVER_FREES:
        break;
    }
    pair->server_state = DONE;
    return 1;
}

/* One step of the server; 0 when it has to wait. */
static int server_step(struct pair *pair)
{
    switch (pair->server_state) {
    case EARLY:
        if (SSL_get_max_early_data(pair->server) > 0)
            return server_early(pair);
        pair->server_state = HANDSHAKE;
        return 1;
    case HANDSHAKE:
        if (!settled(pair->server, SSL_do_handshake(pair->server), "the handshake of the server"))
            return 0;
        if (pair->visit.finished != NULL)
            pair->visit.finished(pair->server);
        pair->server_state = ANSWER;
        return 1;
    case ANSWER:
        pair->answer[0] = SSL_session_reused(pair->server) ? 'r' : 'f';
        pair->answer[1] = pair->early_read > 0 ? 'e' : '-';
        if (!settled(pair->server, SSL_write(pair->server, pair->answer, 2), "SSL_write on the server"))
            return 0;
        pair->server_state = BYE;
        return 1;
    default:
        return server_bye(pair);
    }
}

/* Reads the answer, behind which all tickets of the handshake have arrived. */
static int client_answer(struct pair *pair)
{
    char answer[2];

    if (!settled(pair->client, SSL_read(pair->client, answer, 2), "SSL_read on the client"))
        return 0;
    pair->out.resumed = SSL_session_reused(pair->client);
    pair->out.early_accepted = SSL_get_early_data_status(pair->client) == SSL_EARLY_DATA_ACCEPTED;
    CHECK((answer[0] == 'r') == (pair->out.resumed != 0), "client and server disagree on whether this is a resumption");
    CHECK((answer[1] == 'e') == (pair->out.early_accepted != 0), "client and server disagree on the early data");
    if (pair->out.given == 0 && SSL_version(pair->client) != TLS1_3_VERSION && pair->out.resumed)
        pair->out.newest = *pair->visit.offer;
    pair->client_state = BYE;
    return 1;
}

static int client_step(struct pair *pair)
{
    size_t written;
    int result;

    switch (pair->client_state) {
    case EARLY:
        if (pair->visit.early != NULL) {
            result = SSL_write_early_data(pair->client, pair->visit.early, strlen(pair->visit.early), &written);
            if (!settled(pair->client, result, "SSL_write_early_data"))
                return 0;
        }
        pair->client_state = HANDSHAKE;
        return 1;
    case HANDSHAKE:
        if (!settled(pair->client, SSL_do_handshake(pair->client), "the handshake of the client"))
            return 0;
        pair->client_state = ANSWER;
        return 1;
    case ANSWER:
        return client_answer(pair);
    default:
        if (pair->visit.ending == POLITE) {
            result = SSL_shutdown(pair->client);
            if (result == 0)
                result = SSL_shutdown(pair->client);
            if (!settled(pair->client, result, "SSL_shutdown on the client"))
                return 0;
        }
        close_end(&pair->client_fd);
        pair->client_state = DONE;
        return 1;
    }
}

/* Steps the ends that live here until both have passed `state`. */
static void drive(struct pair *pair, int client, int server, int state)
{
    struct pollfd fds[2] = {{-1, POLLIN, 0}, {-1, POLLIN, 0}};
    int ready;

    for (;;) {
        while (client && pair->client_state < state && client_step(pair))
            ;
        while (server && pair->server_state < state && server_step(pair))
            ;
        client = client && pair->client_state < state;
        server = server && pair->server_state < state;
        if (!client && !server)
            return;
        fds[0].fd = client ? pair->client_fd : -1;
        fds[1].fd = server ? pair->server_fd : -1;
        do
            ready = poll(fds, 2, SILENCE_MS);
        while (ready < 0 && errno == EINTR);
        CHECK(ready > 0, "the connection hangs (client state %d, server state %d)", pair->client_state, pair->server_state);
    }
}

struct pair *tls_pair(SSL_CTX *server, struct visit visit)
{
    struct pair *pair = new_pair(&visit);

    add_server(pair, server);
    return pair;
}

void tls_talk(struct pair *pair)
{
    drive(pair, 1, 1, BYE);
}

void tls_drop(struct pair *pair)
{
    SSL_free(pair->client);
    SSL_CTX_free(pair->client_ctx);
    SSL_free(pair->server);
    close_end(&pair->client_fd);
    close_end(&pair->server_fd);
    free(pair);
}

void tls_end(struct pair *pair)
{
    drive(pair, 1, 1, DONE);
    tls_drop(pair);
}

struct outcome tls_here(SSL_CTX *server, struct visit visit)
{
    struct pair *pair = tls_pair(server, visit);
    struct outcome out;

    tls_talk(pair);
    out = pair->out;
    tls_end(pair);
    return out;
}

/* The server end of a forked process: ends as a worker does, with exit(3) and all its handlers. */
__attribute__((noreturn)) static void serve_and_exit(struct pair *pair, SSL_CTX *ctx, int own)
{
    close_end(&pair->client_fd);
    add_server(pair, ctx);
    drive(pair, 0, 1, DONE);
    SSL_free(pair->server);
    if (own)
        SSL_CTX_free(ctx);
    exit(0);
}

static struct outcome visit_process(SSL_CTX *ctx, const char *store, const char *options, struct visit visit)
{
    struct pair *pair = new_pair(&visit);
    struct outcome out;
    pid_t pid = check_fork();

    if (pid == 0)
        serve_and_exit(pair, ctx != NULL ? ctx : tls_attached(store, options), ctx == NULL);
    close_end(&pair->server_fd);
    drive(pair, 1, 0, DONE);
    check_wait(pid, "the process that serves");
    out = pair->out;
    tls_drop(pair);
    return out;
}

struct outcome tls_child(SSL_CTX *server, struct visit visit)
{
    return visit_process(server, NULL, NULL, visit);
}

struct outcome tls_elsewhere(const char *store, const char *options, struct visit visit)
{
    return visit_process(NULL, store, options, visit);
}

int tls_resumes_elsewhere(const char *store, const char *options, int version, const struct saved *session)
{
    CHECK(session->len > 0, "the server issued no session that could be resumed");
    return tls_elsewhere(store, options, (struct visit){.version = version, .offer = session}).resumed;
}

sesscache_stats tls_stats(sesscache *cache)
{
    sesscache_stats stats;

    memset(&stats, 0, sizeof stats);
    CHECK_OK(sesscache_read_stats(cache, &stats, sizeof stats));
    return stats;
}

const char *tls_name(int version)
{
    return version == TLS1_2_VERSION ? "TLS 1.2" : version == TLS1_3_VERSION ? "TLS 1.3" : "DTLS 1.2";
}
