/*
 * A session resumes where it was made and nowhere else: every pair of (made under, tried under) of protocol version,
 * server name, namespace, session id context and what is asked of the client.
 *
 * The table is printed: a row is what a session was made under, a column what it is tried under, R is a resumption. QUIC
 * has no server before OpenSSL 3.5, so this table has TLS 1.2, TLS 1.3 and DTLS 1.2.
 */
#include "check.h"
#include "tls.h"

enum asked { NOTHING, OPTIONAL, REQUIRED };

/* One side of a pair. Every member is an index into the names below. */
struct side {
    int version, name, space, context;
    enum asked asked;
    int shown;              /* the client has a certificate to show */
};

static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION, DTLS1_2_VERSION};
static const char *const names[] = {"a.example", "b.example"};
static const char *const spaces[] = {"one", "two"};
static const char *const contexts[] = {"red", "blue"};
static const int modes[] = {SSL_VERIFY_NONE, SSL_VERIFY_PEER, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT};
static const char *const asking[] = {"nothing", "optional", "required"};

enum { VERSIONS = 3, SIDES = 2, MADE = 4, TRIED = 3 };

/* Of all the sides there are: made under and tried under differ in what the client shows. */
static const struct { enum asked asked; int shown; } made_as[MADE] = {
    {NOTHING, 0}, {OPTIONAL, 0}, {OPTIONAL, 1}, {REQUIRED, 1},
};

static SSL_CTX *servers[2][SIDES][SIDES];
static const struct side *serving;

static SSL_CTX *server_of(const struct side *side)
{
    return servers[versions[side->version] == DTLS1_2_VERSION][side->space][side->context];
}

static void ask(SSL *server)
{
    tls_ask(server, modes[serving->asked]);
}

static void show(SSL *client)
{
    if (serving->shown)
        tls_show(client, CLIENT_P256);
}

static struct outcome connect_to(const struct side *side, const struct saved *offer)
{
    serving = side;
    return tls_here(server_of(side), (struct visit){.version = versions[side->version], .offer = offer,
                    .name = names[side->name], .prepare = ask, .prepare_client = show});
}

static const char *describe(const struct side *side, char *text, size_t room)
{
    snprintf(text, room, "%s %s, namespace %s, context %s, certificate %s%s", tls_name(versions[side->version]),
             names[side->name], spaces[side->space], contexts[side->context], asking[side->asked],
             side->asked == OPTIONAL ? side->shown ? " and shown" : " and not shown" : "");
    return text;
}

/* Whether the client has proved, when the session was made, what would be asked of it. */
static int proved(const struct side *made, const struct side *tried)
{
    switch (tried->asked) {
    case NOTHING:
        return 1;
    case OPTIONAL:
        return made->asked != NOTHING;
    default:
        return made->asked != NOTHING && made->shown;
    }
}

static int may_resume(const struct side *made, const struct side *tried)
{
    return made->version == tried->version && made->name == tried->name && made->space == tried->space &&
           made->context == tried->context && proved(made, tried);
}

static void open_servers(const char *store, const char *options)
{
    for (int space = 0; space < SIDES; space++) {
        sesscache *cache = NULL;
        char text[128];

        snprintf(text, sizeof text, "namespace=%s %s", spaces[space], options);
        CHECK_OK(sesscache_open(store, text, &cache));
        for (int datagrams = 0; datagrams < 2; datagrams++) {
            for (int context = 0; context < SIDES; context++) {
                SSL_CTX *ctx = tls_server_for(datagrams ? DTLS1_2_VERSION : TLS1_3_VERSION);

                CHECK(SSL_CTX_set_session_id_context(ctx, (const unsigned char *)contexts[context],
                      (unsigned)strlen(contexts[context])) == 1, "SSL_CTX_set_session_id_context");
                CHECK_OK(sesscache_attach(cache, ctx));
                servers[datagrams][space][context] = ctx;
            }
        }
        sesscache_close(cache);
    }
}

static void close_servers(void)
{
    for (int i = 0; i < 2 * SIDES * SIDES; i++)
        SSL_CTX_free((&servers[0][0][0])[i]);
}

/* Sessions of each version that lend their keys to an id of another version: no client offers one of its own there. */
static struct saved lenders[VERSIONS];

static int try(const struct side *made, const struct saved *session, const struct side *tried)
{
    static char label[512], ours[160], theirs[160];
    struct saved offer = *session;
    int resumed;

    if (made->version != tried->version) {
        offer = lenders[tried->version];
        tls_copy_id(&offer, session);
    }
    snprintf(label, sizeof label, "made under %s; tried under %s: ", describe(made, ours, sizeof ours),
             describe(tried, theirs, sizeof theirs));
    tls_doing = label;
    resumed = connect_to(tried, &offer).resumed;
    CHECK(resumed == may_resume(made, tried), "%s%s", label, resumed ? "resumes" : "does not resume");
    tls_doing = "";
    return resumed;
}

/* One row: all that differs from what it was made under in anything but the version, then the other versions. */
static void try_row(const struct side *made)
{
    char text[160], row[128], *cell = row;
    struct outcome first;
    struct side tried;

    tls_doing = describe(made, text, sizeof text);
    first = connect_to(made, NULL);
    CHECK(!first.resumed && first.newest.len > 0, "%s: the client got no session", text);
    for (int n = 0; n < SIDES * SIDES * SIDES * TRIED; n++) {
        tried = (struct side){.version = made->version, .name = n / TRIED / 4 % 2, .space = n / TRIED / 2 % 2,
                              .context = n / TRIED % 2, .asked = (enum asked)(n % TRIED), .shown = 1};
        *cell++ = try(made, &first.newest, &tried) ? 'R' : '.';
        if (n % TRIED == TRIED - 1)
            *cell++ = ' ';
    }
    for (int version = 0; version < VERSIONS; version++) {
        tried = *made;
        tried.version = version;
        if (version != made->version)
            *cell++ = try(made, &first.newest, &tried) ? 'R' : '.';
    }
    *cell = '\0';
    printf("%s  %s\n", row, text);
}

static void print_head(void)
{
    puts("a   a   a   a   b   b   b   b       server name tried");
    puts("1   1   2   2   1   1   2   2       namespace one, two");
    puts("r   b   r   b   r   b   r   b       context red, blue");
    puts("nor nor nor nor nor nor nor nor vv  certificate: nothing asked, optional, required; v: another version");
}

/* Sessions made under the first `names_made` server names. */
static void try_all(const char *store, const char *options, int names_made)
{
    open_servers(store, options);
    for (int version = 0; version < VERSIONS; version++) {
        struct side any = {.version = version};

        lenders[version] = connect_to(&any, NULL).newest;
    }
    print_head();
    for (int n = 0; n < VERSIONS * SIDES * SIDES * SIDES * MADE; n++) {
        struct side made = {.version = n / MADE / 8, .name = n / MADE / 4 % 2, .space = n / MADE / 2 % 2,
                            .context = n / MADE % 2, .asked = made_as[n % MADE].asked, .shown = made_as[n % MADE].shown};

        if (made.name < names_made)
            try_row(&made);
    }
    close_servers();
}

static void a_session_resumes_where_it_was_made_and_nowhere_else(const char *scratch)
{
    try_all(store_in(scratch), "", SIDES);
}

/* Without the table of decoded sessions, from which those with a certificate come else. */
static void a_session_decoded_anew_each_time_resumes_where_it_was_made_and_nowhere_else(const char *scratch)
{
    try_all(store_in(scratch), "decoded=0", 1);
}

static SSL_CTX *switched_to;

static int switch_in_client_hello(SSL *ssl, int *alert, void *argument)
{
    (void)alert;
    (void)argument;
    if (switched_to != NULL)
        SSL_set_SSL_CTX(ssl, switched_to);
    return SSL_CLIENT_HELLO_SUCCESS;
}

static int switch_in_servername(SSL *ssl, int *alert, void *argument)
{
    (void)switch_in_client_hello(ssl, alert, argument);
    return SSL_TLSEXT_ERR_OK;
}

/*
 * Whether a session made while the SSL_CTX is switched to another context id resumes when it is not, or the other way
 * round. Names do not count here: sni=off.
 */
static int crosses(const char *store, int version, int early, int switched_first)
{
    SSL_CTX *front = tls_attached(store, "sni=off"), *back = tls_attached(store, "sni=off");
    struct outcome first, same, other;

    CHECK(SSL_CTX_set_session_id_context(back, (const unsigned char *)"back", 4) == 1, "SSL_CTX_set_session_id_context");
    if (early)
        SSL_CTX_set_client_hello_cb(front, switch_in_client_hello, NULL);
    else
        SSL_CTX_set_tlsext_servername_callback(front, switch_in_servername);
    switched_to = switched_first ? back : NULL;
    first = tls_here(front, (struct visit){.version = version, .name = names[0]});
    same = tls_here(front, (struct visit){.version = version, .name = names[0], .offer = &first.newest});
    CHECK(same.resumed, "%s: a switched SSL_CTX resumes nothing", tls_name(version));
    switched_to = switched_first ? NULL : back;
    other = tls_here(front, (struct visit){.version = version, .name = names[1], .offer = &first.newest});
    SSL_CTX_free(front);
    SSL_CTX_free(back);
    return other.resumed;
}

static void with_sni_off_a_context_id_of_its_own_separates_what_is_switched_in_client_hello_cb(const char *scratch)
{
    char *store = store_in(scratch);

    for (int i = 0; i < 4; i++) {
        int version = tls_versions[i % 2];

        CHECK(!crosses(store, version, 1, i / 2), "%s: a session crosses from one session id context to another",
              tls_name(version));
        /* OpenSSL compares contexts before servername_cb: with sni=off nothing separates these. */
        CHECK(crosses(store, version, 0, i / 2), "%s: sni=off separates more than the header says", tls_name(version));
    }
}

/*
 * A client may send another name after a HelloRetryRequest than before, and OpenSSL asks twice for the session: the second
 * name counts too, also for a session that was taken at the first.
 */
static void a_name_changed_after_a_hello_retry_request_does_not_resume(const char *scratch)
{
    static const char *const options[] = {NULL, "single_use=always", NULL};
    char *store = store_in(scratch);

    for (int i = 0; i < 4; i++) {
        int with_early = i >= 2, changed = i != 3;
        SSL_CTX *server = tls_attached(store, options[i % 3]);
        struct outcome first;
        struct pair *pair;
        size_t written;

        CHECK(SSL_CTX_set_max_early_data(server, 16384) == 1, "SSL_CTX_set_max_early_data");
        first = tls_here(server, (struct visit){.version = TLS1_3_VERSION, .name = names[0]});
        CHECK(SSL_CTX_set1_groups_list(server, "P-384") == 1, "SSL_CTX_set1_groups_list");
        pair = tls_pair(server, (struct visit){.version = TLS1_3_VERSION, .name = names[0], .offer = &first.newest,
                                               .groups = "P-256:P-384"});
        if (with_early)
            CHECK(SSL_write_early_data(pair->client, "PAY", 3, &written) == 1, "the client sends no early data");
        else
            CHECK(SSL_do_handshake(pair->client) < 0, "the client needs no answer");
        if (changed)
            CHECK(SSL_set_tlsext_host_name(pair->client, names[1]) == 1, "SSL_set_tlsext_host_name");
        tls_talk(pair);
        CHECK(pair->out.hellos == 2, "there was no HelloRetryRequest");
        CHECK(pair->out.resumed == !changed, "%s%s: a session of %s %s", options[i % 3] != NULL ? options[i % 3] : "default",
              with_early ? ", early data" : "", names[0], changed ? "resumes under another name" : "does not resume");
        tls_end(pair);
        SSL_CTX_free(server);
    }
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(a_session_resumes_where_it_was_made_and_nowhere_else),
        TEST(a_session_decoded_anew_each_time_resumes_where_it_was_made_and_nowhere_else),
        TEST(a_name_changed_after_a_hello_retry_request_does_not_resume),
        TEST(with_sni_off_a_context_id_of_its_own_separates_what_is_switched_in_client_hello_cb),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
