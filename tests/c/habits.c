/*
 * See habits.h. The server is a process of its own that is killed at the end; the clients are this one. Other than in tls.c a failed
 * handshake ends nothing: it is counted.
 */
#include "habits.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/time.h>

/* Longest silence on a connection, in seconds. */
#define SILENCE 10
#define WORKERS 2
/* Where a program that is started for a connection finds it. */
#define INHERITED 3

struct tally {
    int visits, resumed, failed;
};

struct server {
    const struct habit *habit;
    enum sessions sessions;
    const char *scratch;
    int listener;
    SSL_CTX *ctx;
    SSL *again;
};

static SSL_CTX *make_context(const struct habit *habit, enum sessions sessions, const char *scratch)
{
    SSL_CTX *ctx = habit->make != NULL ? habit->make() : tls_server();

    if (habit->context != NULL)
        habit->context(ctx);
    if (sessions == IDS)
        SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
    /* As a server does: what fails here costs it nothing else. */
    if (sessions == ATTACHED && sesscache_enable(ctx, store_in(scratch), habit->options) != SESSCACHE_OK)
        fprintf(stderr, "%s: %s\n", habit->name, sesscache_errmsg());
    return ctx;
}

/* The store that is attached already, open for good. */
static void hold(const struct habit *habit, const char *scratch)
{
    sesscache *cache;

    CHECK_OK(sesscache_open(store_in(scratch), habit->options, &cache));
    CHECK_OK(sesscache_hold(cache));
    sesscache_close(cache);
}

static void set_silence(int fd)
{
    struct timeval silence = {SILENCE, 0};

    CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &silence, sizeof silence) == 0, "setsockopt: %s", strerror(errno));
}

static void handle(struct server *server, SSL_CTX *ctx, int fd)
{
    SSL *ssl = server->again != NULL ? server->again : SSL_new(ctx);

    if (ssl != NULL && server->habit->made != NULL)
        ssl = server->habit->made(ssl);
    set_silence(fd);
    if (ssl == NULL || SSL_set_fd(ssl, fd) != 1)
        return;
    SSL_set_accept_state(ssl);
    if (SSL_do_handshake(ssl) == 1) {
        if (server->habit->established != NULL)
            server->habit->established(ssl);
        if (SSL_write(ssl, SSL_session_reused(ssl) ? "r" : "f", 1) == 1)
            (void)SSL_shutdown(ssl);
    }
    ERR_clear_error();
    if (server->habit->used_again) {
        server->again = ssl;
        (void)SSL_clear(ssl);
    } else {
        SSL_free(ssl);
    }
}

struct job {
    struct server *server;
    int fd;
};

static void *in_a_thread(void *argument)
{
    struct job *job = argument;

    handle(job->server, job->server->ctx, job->fd);
    return NULL;
}

static void start_for(const struct server *server, int fd)
{
    char sessions[16];

    snprintf(sessions, sizeof sessions, "%d", (int)server->sessions);
    if (dup2(fd, INHERITED) != INHERITED || fcntl(INHERITED, F_SETFD, 0) != 0)
        _exit(1);
    execl("/proc/self/exe", "habits", "--serve", server->habit->name, sessions, server->scratch, (char *)NULL);
    _exit(1);
}

/* One connection, the way of this server. */
static void serve(struct server *server, int fd)
{
    struct job job = {server, fd};
    pthread_t thread;
    SSL_CTX *own;
    pid_t pid;

    switch (server->habit->model) {
    case THREAD_PER_CONNECTION:
        CHECK(pthread_create(&thread, NULL, in_a_thread, &job) == 0 && pthread_join(thread, NULL) == 0, "pthread_create");
        break;
    case FORK_PER_CONNECTION:
    case EXEC_PER_CONNECTION:
        pid = check_fork();
        if (pid == 0) {
            if (server->habit->model == EXEC_PER_CONNECTION)
                start_for(server, fd);
            if (server->habit->child != NULL)
                server->habit->child(server->scratch, fd);
            handle(server, server->ctx, fd);
            exit(0);
        }
        (void)waitpid(pid, NULL, 0);
        break;
    case CONTEXT_PER_CONNECTION:
    case PREFORK_CONTEXT_PER_CONNECTION:
        own = make_context(server->habit, server->sessions, server->scratch);
        handle(server, own, fd);
        SSL_CTX_free(own);
        break;
    default:
        handle(server, server->ctx, fd);
    }
}

__attribute__((noreturn)) static void listen_for_ever(struct server *server)
{
    const struct habit *habit = server->habit;
    enum model model = habit->model;
    int of_master = model == ONE_PROCESS || model == THREAD_PER_CONNECTION || model == PREFORK || model == FORK_PER_CONNECTION;
    int forks = model == PREFORK || model == PREFORK_CONTEXT_PER_WORKER || model == PREFORK_CONTEXT_PER_CONNECTION;

    if (of_master)
        server->ctx = make_context(habit, server->sessions, server->scratch);
    if (habit->holds && server->sessions == ATTACHED)
        hold(habit, server->scratch);
    if (habit->listener != NULL)
        habit->listener(server->scratch);
    for (int n = 1; forks && n < WORKERS; n++) {
        if (check_fork() == 0)
            break;
    }
    if (model == PREFORK_CONTEXT_PER_WORKER)
        server->ctx = make_context(habit, server->sessions, server->scratch);
    for (;;) {
        int fd = accept(server->listener, NULL, NULL);

        CHECK(fd >= 0, "accept: %s", strerror(errno));
        serve(server, fd);
        CHECK(close(fd) == 0, "close: %s", strerror(errno));
    }
}

void habit_serve_one(int argc, char **argv, const struct habit *habits, size_t count)
{
    struct server server = {.again = NULL};

    if (argc < 5 || strcmp(argv[1], "--serve") != 0)
        return;
    for (size_t n = 0; n < count; n++) {
        if (strcmp(habits[n].name, argv[2]) == 0)
            server.habit = &habits[n];
    }
    if (server.habit == NULL)
        return;
    server.sessions = (enum sessions)atoi(argv[3]);
    server.scratch = argv[4];
    if (server.habit->child != NULL)
        server.habit->child(server.scratch, INHERITED);
    server.ctx = make_context(server.habit, server.sessions, server.scratch);
    handle(&server, server.ctx, INHERITED);
    SSL_CTX_free(server.ctx);
    exit(0);
}

/* The newest session that a client was given; the application data of its SSL points here. */
static int on_session(SSL *ssl, SSL_SESSION *session)
{
    SSL_SESSION **newest = SSL_get_app_data(ssl);

    SSL_SESSION_free(*newest);
    *newest = session;
    return 1;
}

/* One visit, with the session of the one before if there is one. */
static void visit(SSL_CTX *clients, int port, int version, SSL_SESSION **session, struct tally *tally)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), offers = *session != NULL, done;
    SSL *ssl = SSL_new(clients);
    char answer = 0;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0, "connect: %s", strerror(errno));
    set_silence(fd);
    CHECK(ssl != NULL && SSL_set_app_data(ssl, session) == 1 && SSL_set_fd(ssl, fd) == 1 &&
          SSL_set_min_proto_version(ssl, version) == 1 && SSL_set_max_proto_version(ssl, version) == 1, "no SSL for a client");
    if (offers)
        CHECK(SSL_set_session(ssl, *session) == 1, "SSL_set_session");
    done = SSL_connect(ssl) == 1 && SSL_read(ssl, &answer, 1) == 1;
    tally->visits++;
    tally->failed += !done;
    tally->resumed += done && offers && answer == 'r' && SSL_session_reused(ssl);
    if (done)
        (void)SSL_shutdown(ssl);
    ERR_clear_error();
    SSL_free(ssl);
    CHECK(close(fd) == 0, "close: %s", strerror(errno));
}

/* Runs a server in such a way, and CLIENTS clients against it that come back once. */
static struct tally habit_run(const struct habit *habit, enum sessions sessions, const char *scratch, int version)
{
    struct server server = {.habit = habit, .sessions = sessions, .scratch = scratch};
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof address;
    SSL_SESSION *kept[CLIENTS] = {NULL};
    SSL_CTX *clients = SSL_CTX_new(TLS_client_method());
    struct tally tally = {0, 0, 0};
    pid_t pid;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    server.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(server.listener >= 0 && bind(server.listener, (struct sockaddr *)&address, sizeof address) == 0 &&
          listen(server.listener, 128) == 0 &&
          getsockname(server.listener, (struct sockaddr *)&address, &len) == 0, "no port to listen on: %s", strerror(errno));
    pid = check_fork();
    if (pid == 0) {
        /* A group of its own, so that its workers end with it. */
        CHECK(setpgid(0, 0) == 0, "setpgid: %s", strerror(errno));
        listen_for_ever(&server);
    }
    (void)setpgid(pid, pid);
    CHECK(close(server.listener) == 0 && clients != NULL, "no SSL_CTX for the clients");
    SSL_CTX_set_session_cache_mode(clients, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(clients, on_session);
    for (int round = 0; round < 2; round++) {
        if (round > 0 && habit->between != NULL)
            habit->between(scratch);
        for (int n = 0; n < CLIENTS; n++)
            visit(clients, ntohs(address.sin_port), version, &kept[n], &tally);
    }
    for (int n = 0; n < CLIENTS; n++)
        SSL_SESSION_free(kept[n]);
    SSL_CTX_free(clients);
    CHECK(kill(-pid, SIGKILL) == 0 && waitpid(pid, NULL, 0) == pid, "%s: the server has ended by itself", habit->name);
    return tally;
}

void habits_compare(const struct habit *habits, size_t count, const char *scratch)
{
    int worse = 0;

    printf("%-64s %-8s %6s %8s %9s of %d\n", "", "", "ids", "default", "attached", CLIENTS);
    for (size_t i = 0; i < count; i++) {
        for (int v = 0; v < 2; v++) {
            const struct habit *habit = &habits[i];
            int is_worse;
            char name[32], *place;
            struct tally of[3];

            if (habit->version != 0 && habit->version != tls_versions[v])
                continue;
            snprintf(name, sizeof name, "habit%zu-%d", i, v);
            place = path_in(scratch, name);
            CHECK(mkdir(place, 0711) == 0, "mkdir: %s", strerror(errno));
            for (int sessions = IDS; sessions <= ATTACHED; sessions++)
                of[sessions] = habit_run(habit, (enum sessions)sessions, place, tls_versions[v]);
            is_worse = (habit->bar == BAR_OF_ALL && of[ATTACHED].resumed < CLIENTS) ||
                       (habit->bar != BAR_OF_CHANCE && of[ATTACHED].resumed < of[IDS].resumed) ||
                       (habit->bar == JUST_AS_IDS && of[ATTACHED].resumed != of[IDS].resumed) ||
                       of[ATTACHED].failed > of[IDS].failed || of[ATTACHED].failed > of[DEFAULT].failed;
            printf("%-64s %-8s %6d %8d %9d%s", habit->name, tls_name(tls_versions[v]), of[IDS].resumed, of[DEFAULT].resumed,
                   of[ATTACHED].resumed, is_worse ? "  WORSE" : "");
            if (of[IDS].failed + of[DEFAULT].failed + of[ATTACHED].failed > 0)
                printf("  failed: %d %d %d", of[IDS].failed, of[DEFAULT].failed, of[ATTACHED].failed);
            printf("\n");
            worse += is_worse;
            free(place);
        }
    }
    CHECK(worse == 0, "in %d rows of the table a server with the cache is worse off than without", worse);
}
