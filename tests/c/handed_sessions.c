/*
 * A server that keeps its own session callbacks hands its SSL_SESSIONs in and gets them out again, in any process.
 */
#include "check.h"
#include "tls.h"
#include <openssl/err.h>
#include <unistd.h>

static sesscache *cache;
static sesscache_status put_status;

static int on_new(SSL *ssl, SSL_SESSION *session)
{
    (void)ssl;
    put_status = sesscache_put_session(cache, session);
    return 0;
}

static SSL_SESSION *on_get(SSL *ssl, const unsigned char *id, int len, int *copy)
{
    SSL_SESSION *session = NULL;

    (void)ssl;
    *copy = 0;
    return sesscache_get_session(cache, id, (size_t)len, &session) == SESSCACHE_OK ? session : NULL;
}

static SSL_CTX *server_with_callbacks(void)
{
    SSL_CTX *server = tls_server();

    SSL_CTX_set_options(server, SSL_OP_NO_TICKET);
    SSL_CTX_set_session_cache_mode(server, SSL_SESS_CACHE_SERVER | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(server, on_new);
    SSL_CTX_sess_set_get_cb(server, on_get);
    return server;
}

static void open_cache(const char *scratch, const char *options)
{
    CHECK_OK(sesscache_open(store_in(scratch), options, &cache));
}

/* One session of this version, as the server's callback saw it, by its id. */
static SSL_SESSION *made;

static int keep(SSL *ssl, SSL_SESSION *session)
{
    (void)ssl;
    SSL_SESSION_free(made);
    made = session;
    return 1;
}

static SSL_SESSION *a_session(int version)
{
    SSL_CTX *server = server_with_callbacks();

    SSL_CTX_sess_set_new_cb(server, keep);
    (void)tls_here(server, (struct visit){.version = version});
    SSL_CTX_free(server);
    CHECK(made != NULL, "%s: the server has no session", tls_name(version));
    return made;
}

static void sessions_resume_in_another_process(const char *scratch)
{
    open_cache(scratch, NULL);
    for (int v = 0; v < 2; v++) {
        SSL_CTX *server = server_with_callbacks();
        struct outcome first = tls_here(server, (struct visit){.version = tls_versions[v]});
        pid_t pid;

        CHECK_OK(put_status);
        CHECK(!first.resumed && first.newest.len > 0, "%s: the first visit gets no session", tls_name(tls_versions[v]));
        pid = check_fork();
        if (pid == 0) {
            SSL_CTX *other = server_with_callbacks();

            CHECK(tls_here(other, (struct visit){.version = tls_versions[v], .offer = &first.newest}).resumed,
                  "%s: a session does not resume in another process", tls_name(tls_versions[v]));
            SSL_CTX_free(other);
            _exit(0);
        }
        check_wait(pid, "the process where the client returns");
        SSL_CTX_free(server);
    }
    sesscache_close(cache);
}

static void a_session_comes_back_as_it_was(const char *scratch)
{
    open_cache(scratch, NULL);
    for (int v = 0; v < 2; v++) {
        SSL_SESSION *session = a_session(tls_versions[v]), *found = NULL;
        unsigned char *before = NULL, *after = NULL;
        unsigned int len;
        const unsigned char *id = SSL_SESSION_get_id(session, &len);
        int before_len = i2d_SSL_SESSION(session, &before), after_len;

        CHECK_OK(sesscache_put_session(cache, session));
        CHECK_OK(sesscache_get_session(cache, id, len, &found));
        after_len = i2d_SSL_SESSION(found, &after);
        CHECK(before_len == after_len && memcmp(before, after, (size_t)after_len) == 0, "%s: it comes back changed", tls_name(tls_versions[v]));
        OPENSSL_free(before);
        OPENSSL_free(after);
        SSL_SESSION_free(found);
        CHECK_OK(sesscache_remove(cache, id, len));
        CHECK(sesscache_get_session(cache, id, len, &found) == SESSCACHE_NOT_FOUND, "a removed session is found");
    }
    sesscache_close(cache);
}

static void a_session_lives_as_long_as_it_says(const char *scratch)
{
    SSL_SESSION *session = a_session(TLS1_2_VERSION), *found = NULL;
    unsigned int len;
    const unsigned char *id = SSL_SESSION_get_id(session, &len);

    open_cache(scratch, NULL);
    SSL_SESSION_set_timeout(session, 2);
    CHECK_OK(sesscache_put_session(cache, session));
    CHECK_OK(sesscache_get_session(cache, id, len, &found));
    SSL_SESSION_free(found);
    check_sleep(3.1);
    CHECK(sesscache_get_session(cache, id, len, &found) == SESSCACHE_NOT_FOUND, "a session outlives its timeout");
    sesscache_close(cache);
}

static void what_is_no_session_is_not_found_and_leaves_no_error(const char *scratch)
{
    SSL_SESSION *session = a_session(TLS1_3_VERSION), *found = session;
    unsigned int len;
    const unsigned char *id = SSL_SESSION_get_id(session, &len);

    open_cache(scratch, NULL);
    ERR_clear_error();
    CHECK_OK(sesscache_put(cache, id, len, "no session", 10, (int64_t)time(NULL) + 60));
    CHECK(sesscache_get_session(cache, id, len, &found) == SESSCACHE_NOT_FOUND, "a record of other data is a session");
    CHECK(found == session, "what is not found is written");
    CHECK(ERR_peek_error() == 0, "an error is left behind");
    sesscache_close(cache);
}

static void sessions_stay_in_their_namespace(const char *scratch)
{
    SSL_SESSION *session = a_session(TLS1_2_VERSION), *found = NULL;
    unsigned int len;
    const unsigned char *id = SSL_SESSION_get_id(session, &len);

    open_cache(scratch, "namespace=red");
    CHECK_OK(sesscache_put_session(cache, session));
    sesscache_close(cache);
    open_cache(scratch, "namespace=blue");
    CHECK(sesscache_get_session(cache, id, len, &found) == SESSCACHE_NOT_FOUND, "another namespace has the session");
    sesscache_close(cache);
    open_cache(scratch, "namespace?=blue namespace=red");
    CHECK_OK(sesscache_get_session(cache, id, len, &found));
    SSL_SESSION_free(found);
    sesscache_close(cache);
}

static void null_and_a_session_without_an_id_are_refused(const char *scratch)
{
    SSL_SESSION *found = NULL, *empty = SSL_SESSION_new();
    const unsigned char id[] = {1, 2, 3};

    open_cache(scratch, NULL);
    CHECK(sesscache_put_session(NULL, empty) == SESSCACHE_INVALID, "no cache is accepted");
    CHECK(sesscache_put_session(cache, NULL) == SESSCACHE_INVALID, "no session is accepted");
    CHECK(sesscache_put_session(cache, empty) == SESSCACHE_INVALID, "a session without an id is accepted");
    CHECK(strstr(sesscache_errmsg(), "no id") != NULL, "the message does not say why: %s", sesscache_errmsg());
    CHECK(sesscache_get_session(NULL, id, sizeof id, &found) == SESSCACHE_INVALID, "no cache is accepted");
    CHECK(sesscache_get_session(cache, NULL, sizeof id, &found) == SESSCACHE_INVALID, "no id is accepted");
    CHECK(sesscache_get_session(cache, id, 0, &found) == SESSCACHE_INVALID, "an empty id is accepted");
    CHECK(sesscache_get_session(cache, id, sizeof id, NULL) == SESSCACHE_INVALID, "no room for the session is accepted");
    CHECK(found == NULL, "a refused call writes its result");
    SSL_SESSION_free(empty);
    sesscache_close(cache);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(sessions_resume_in_another_process),
        TEST(a_session_comes_back_as_it_was),
        TEST(a_session_lives_as_long_as_it_says),
        TEST(what_is_no_session_is_not_found_and_leaves_no_error),
        TEST(sessions_stay_in_their_namespace),
        TEST(null_and_a_session_without_an_id_are_refused),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
