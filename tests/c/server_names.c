/*
 * A session never resumes under another server name than the one it was made for.
 *
 * Servers change the SSL_CTX of a connection when they learn the name: in client_hello_cb, before OpenSSL looks
 * for the session, or in servername_cb, after it. The SSL_CTX they change to may have been attached or not. The
 * hooks are those of the SSL_CTX given to SSL_new, whichever one the connection shows later.
 */
#include "check.h"
#include "tls.h"

#define FRONT "front.example"
#define OTHER "other.example"

/* Where connections for OTHER are sent. */
static SSL_CTX *other_ctx;

static int on_servername(SSL *ssl, int *alert, void *argument)
{
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);

    (void)alert;
    (void)argument;
    if (name != NULL && strcmp(name, OTHER) == 0)
        SSL_set_SSL_CTX(ssl, other_ctx);
    return SSL_TLSEXT_ERR_OK;
}

static int on_client_hello(SSL *ssl, int *alert, void *argument)
{
    const unsigned char *extension;
    size_t len;

    (void)alert;
    (void)argument;
    /* Extension 0 holds a list of names with lengths in front; looking for the bytes is enough for a test. */
    if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &extension, &len) == 1 &&
        memmem(extension, len, OTHER, strlen(OTHER)) != NULL)
        SSL_set_SSL_CTX(ssl, other_ctx);
    return SSL_CLIENT_HELLO_SUCCESS;
}

static int resumes(SSL_CTX *server, int version, const struct saved *session, const char *name)
{
    return tls_child(server, (struct visit){.version = version, .offer = session, .name = name}).resumed;
}

/* Both names in turn, each session under each name, while FRONT stays and OTHER is sent to other_ctx. */
static void names_stay_apart(SSL_CTX *front, int version, const char *how)
{
    struct outcome first = tls_child(front, (struct visit){.version = version, .name = FRONT});
    struct outcome other = tls_child(front, (struct visit){.version = version, .name = OTHER});

    CHECK(resumes(front, version, &first.newest, FRONT), "%s, %s: the name that is not switched does not resume",
          tls_name(version), how);
    CHECK(resumes(front, version, &other.newest, OTHER), "%s, %s: the name that is switched does not resume",
          tls_name(version), how);
    CHECK(!resumes(front, version, &first.newest, OTHER), "%s, %s: a session of %s resumes under %s",
          tls_name(version), how, FRONT, OTHER);
    CHECK(!resumes(front, version, &other.newest, FRONT), "%s, %s: a session of %s resumes under %s",
          tls_name(version), how, OTHER, FRONT);
}

static void a_context_switched_in_servername_cb_resumes_under_its_name_only(const char *scratch)
{
    char *store = store_in(scratch);

    for (int attached = 0; attached < 2; attached++) {
        SSL_CTX *front = tls_attached(store, NULL);

        other_ctx = attached ? tls_attached(store, NULL) : tls_server();
        SSL_CTX_set_tlsext_servername_callback(front, on_servername);
        for (int i = 0; i < 2; i++)
            names_stay_apart(front, tls_versions[i], attached ? "switched to an attached SSL_CTX" : "switched to a plain SSL_CTX");
        SSL_CTX_free(front);
        SSL_CTX_free(other_ctx);
    }
}

static void a_context_switched_in_client_hello_cb_resumes_under_its_name_only(const char *scratch)
{
    char *store = store_in(scratch);

    for (int attached = 0; attached < 2; attached++) {
        SSL_CTX *front = tls_attached(store, NULL);

        other_ctx = attached ? tls_attached(store, NULL) : tls_server();
        SSL_CTX_set_client_hello_cb(front, on_client_hello, NULL);
        for (int i = 0; i < 2; i++)
            names_stay_apart(front, tls_versions[i], attached ? "switched to an attached SSL_CTX" : "switched to a plain SSL_CTX");
        SSL_CTX_free(front);
        SSL_CTX_free(other_ctx);
    }
}

static void contexts_attached_to_two_caches_do_not_crash_when_switched(const char *scratch)
{
    SSL_CTX *front = tls_attached(store_in(scratch), NULL);

    other_ctx = tls_attached(path_in(scratch, "other"), NULL);
    SSL_CTX_set_tlsext_servername_callback(front, on_servername);
    for (int i = 0; i < 2; i++)
        names_stay_apart(front, tls_versions[i], "switched to an SSL_CTX with another cache");
    SSL_CTX_free(front);
    SSL_CTX_free(other_ctx);
}

static void a_plain_context_switched_to_an_attached_one_does_not_crash(const char *scratch)
{
    SSL_CTX *front = tls_server();

    other_ctx = tls_attached(store_in(scratch), NULL);
    SSL_CTX_set_tlsext_servername_callback(front, on_servername);
    SSL_CTX_set_client_hello_cb(front, on_client_hello, NULL);
    for (int i = 0; i < 2; i++) {
        struct outcome first = tls_child(front, (struct visit){.version = tls_versions[i], .name = OTHER});

        CHECK(!first.resumed, "%s: a first connection counts as resumed", tls_name(tls_versions[i]));
        (void)resumes(front, tls_versions[i], &first.newest, OTHER);
    }
    SSL_CTX_free(front);
    SSL_CTX_free(other_ctx);
}

static void without_any_callback_names_stay_apart_too(const char *scratch)
{
    SSL_CTX *front = tls_attached(store_in(scratch), NULL);

    for (int i = 0; i < 2; i++)
        names_stay_apart(front, tls_versions[i], "no callback");
    SSL_CTX_free(front);
}

static void no_name_is_a_name_of_its_own(const char *scratch)
{
    SSL_CTX *server = tls_attached(store_in(scratch), NULL);

    for (int i = 0; i < 2; i++) {
        int version = tls_versions[i];
        struct outcome without = tls_child(server, (struct visit){.version = version});
        struct outcome with = tls_child(server, (struct visit){.version = version, .name = FRONT});

        CHECK(resumes(server, version, &without.newest, NULL), "%s: a session without a name does not resume", tls_name(version));
        CHECK(!resumes(server, version, &without.newest, FRONT), "%s: a session without a name resumes under one", tls_name(version));
        CHECK(!resumes(server, version, &with.newest, NULL), "%s: a session with a name resumes without", tls_name(version));
    }
    SSL_CTX_free(server);
}

static void a_prefix_of_a_name_is_another_name(const char *scratch)
{
    SSL_CTX *server = tls_attached(store_in(scratch), NULL);

    for (int i = 0; i < 2; i++) {
        int version = tls_versions[i];
        struct outcome first = tls_child(server, (struct visit){.version = version, .name = "a.example"});

        CHECK(!resumes(server, version, &first.newest, "a.exampl"), "%s: resumes under a shorter name", tls_name(version));
        CHECK(!resumes(server, version, &first.newest, "a.example.org"), "%s: resumes under a longer name", tls_name(version));
    }
    SSL_CTX_free(server);
}

static void upper_and_lower_case_are_the_same_name(const char *scratch)
{
    SSL_CTX *server = tls_attached(store_in(scratch), NULL);

    for (int i = 0; i < 2; i++) {
        int version = tls_versions[i];
        struct outcome first = tls_child(server, (struct visit){.version = version, .name = "Front.EXAMPLE"});

        CHECK(resumes(server, version, &first.newest, "fRONT.example"), "%s: a name in other letters does not resume",
              tls_name(version));
    }
    SSL_CTX_free(server);
}

static void a_chain_of_tickets_stays_with_its_name(const char *scratch)
{
    SSL_CTX *server = tls_attached(store_in(scratch), NULL);
    struct outcome link = tls_child(server, (struct visit){.version = TLS1_3_VERSION, .name = FRONT});

    for (int i = 0; i < 3; i++) {
        link = tls_child(server, (struct visit){.version = TLS1_3_VERSION, .offer = &link.newest, .name = FRONT});
        CHECK(link.resumed, "resumption %d of a chain is a full handshake", i + 1);
    }
    CHECK(!resumes(server, TLS1_3_VERSION, &link.newest, OTHER), "a ticket issued on a resumption resumes under another name");
    SSL_CTX_free(server);
}

static void sni_off_lets_sessions_cross_names(const char *scratch)
{
    SSL_CTX *server = tls_attached(store_in(scratch), "sni=off");

    for (int i = 0; i < 2; i++) {
        int version = tls_versions[i];
        struct outcome first = tls_child(server, (struct visit){.version = version, .name = FRONT});

        CHECK(resumes(server, version, &first.newest, OTHER), "%s: sni=off still separates names", tls_name(version));
        CHECK(resumes(server, version, &first.newest, NULL), "%s: sni=off still asks for a name", tls_name(version));
    }
    SSL_CTX_free(server);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(a_context_switched_in_servername_cb_resumes_under_its_name_only),
        TEST(a_context_switched_in_client_hello_cb_resumes_under_its_name_only),
        TEST(contexts_attached_to_two_caches_do_not_crash_when_switched),
        TEST(a_plain_context_switched_to_an_attached_one_does_not_crash),
        TEST(without_any_callback_names_stay_apart_too),
        TEST(no_name_is_a_name_of_its_own),
        TEST(a_prefix_of_a_name_is_another_name),
        TEST(upper_and_lower_case_are_the_same_name),
        TEST(a_chain_of_tickets_stays_with_its_name),
        TEST(sni_off_lets_sessions_cross_names),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
