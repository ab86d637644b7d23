/*
 * A NULL pointer or an empty buffer gets a status, never a crash, and statuses always have words.
 */
#include "check.h"
#include "tls.h"
#include <unistd.h>

static const unsigned char id[] = {1, 2, 3, 4, 5, 6, 7, 8};

static sesscache *open_cache(const char *scratch)
{
    sesscache *cache = NULL;

    CHECK_OK(sesscache_open(store_in(scratch), NULL, &cache));
    return cache;
}

/* The call has to say INVALID, and why. */
#define REFUSED(call) refused(__LINE__, #call, (call))

static void refused(int line, const char *call, sesscache_status status)
{
    CHECK(status == SESSCACHE_INVALID, "line %d: %s returns %d instead of SESSCACHE_INVALID", line, call, (int)status);
    CHECK(sesscache_errmsg() != NULL && *sesscache_errmsg() != '\0', "line %d: no message says what is wrong", line);
}

static void open_refuses_null(const char *scratch)
{
    char *store = store_in(scratch);
    sesscache *cache = NULL;

    REFUSED(sesscache_open(NULL, NULL, &cache));
    CHECK(cache == NULL, "a refused open gives a handle");
    REFUSED(sesscache_open(store, NULL, NULL));
    REFUSED(sesscache_open(NULL, NULL, NULL));
    REFUSED(sesscache_open("", NULL, &cache));
    CHECK(cache == NULL, "a refused open gives a handle");
    CHECK_OK(sesscache_open(store, NULL, &cache));
    sesscache_close(cache);
    CHECK_OK(sesscache_open(store, "", &cache));
    sesscache_close(cache);
    sesscache_close(NULL);
}

static void the_message_names_the_option_that_is_wrong(const char *scratch)
{
    char *store = store_in(scratch);
    sesscache *cache = NULL;

    REFUSED(sesscache_open(store, "colour=red", &cache));
    CHECK(strstr(sesscache_errmsg(), "colour") != NULL, "an unknown option is not named: %s", sesscache_errmsg());
    REFUSED(sesscache_open(store, "ttl=banana", &cache));
    CHECK(strstr(sesscache_errmsg(), "ttl") != NULL && strstr(sesscache_errmsg(), "banana") != NULL,
          "a bad value is not named: %s", sesscache_errmsg());
    REFUSED(sesscache_open(store, "ttl", &cache));
    REFUSED(sesscache_open(store, "=", &cache));
    REFUSED(sesscache_open(store, "ttl=\xff\xfe", &cache));
    CHECK(cache == NULL, "a refused open gives a handle");
}

static void a_check_says_what_open_would_and_makes_nothing(const char *scratch)
{
    char *store = store_in(scratch);
    sesscache *cache = NULL;

    CHECK_OK(sesscache_check(NULL));
    CHECK_OK(sesscache_check(""));
    CHECK_OK(sesscache_check("capacity=1MiB ttl=2h owner=0 group=0"));
    REFUSED(sesscache_check("colour=red"));
    CHECK(strstr(sesscache_errmsg(), "colour") != NULL, "an unknown option is not named: %s", sesscache_errmsg());
    REFUSED(sesscache_check("ttl=banana"));
    REFUSED(sesscache_check("owner=nobody-has-this-name"));
    CHECK(strstr(sesscache_errmsg(), "nobody-has-this-name") != NULL, "the user is not named: %s", sesscache_errmsg());
    REFUSED(sesscache_check("group=nobody-has-this-name"));
    REFUSED(sesscache_check("capacity=1MiB capacity=1MiB"));
    REFUSED(sesscache_open(store, "owner=nobody-has-this-name", &cache));
    CHECK(access(store, F_OK) != 0, "a refused open makes the directory");
}

static void attach_detach_enable_and_forget_refuse_null(const char *scratch)
{
    sesscache *cache = open_cache(scratch);
    SSL_CTX *server = tls_server();

    REFUSED(sesscache_attach(NULL, server));
    REFUSED(sesscache_attach(cache, NULL));
    REFUSED(sesscache_attach(NULL, NULL));
    REFUSED(sesscache_detach(NULL));
    REFUSED(sesscache_inherit(NULL));
    REFUSED(sesscache_enable(NULL, store_in(scratch), NULL));
    REFUSED(sesscache_enable(server, NULL, NULL));
    REFUSED(sesscache_enable(NULL, NULL, NULL));
    REFUSED(sesscache_forget(NULL));
    /* Nothing of this may have touched the SSL_CTX. */
    CHECK(SSL_CTX_sess_get_new_cb(server) == NULL, "a refused call attaches");
    CHECK_OK(sesscache_attach(cache, server));
    SSL_CTX_free(server);
    sesscache_close(cache);
}

static void the_calls_of_a_handle_refuse_null(const char *scratch)
{
    sesscache *cache = open_cache(scratch);
    sesscache_stats stats;
    size_t removed = 77;

    REFUSED(sesscache_remove(NULL, id, sizeof id));
    REFUSED(sesscache_remove(cache, NULL, sizeof id));
    REFUSED(sesscache_remove(cache, id, 0));
    REFUSED(sesscache_flush(NULL));
    REFUSED(sesscache_hold(NULL));
    REFUSED(sesscache_sweep(NULL, 10, &removed));
    CHECK(removed == 77, "a refused sweep writes its result");
    REFUSED(sesscache_read_stats(NULL, &stats, sizeof stats));
    REFUSED(sesscache_read_stats(cache, NULL, sizeof stats));
    REFUSED(sesscache_read_stats(cache, &stats, 0));
    sesscache_set_log(NULL, NULL, NULL);
    sesscache_set_log(cache, NULL, NULL);
    CHECK_OK(sesscache_sweep(cache, 0, &removed));
    CHECK(removed == 0, "a sweep of no entries removes %zu", removed);
    sesscache_close(cache);
}

static void stats_fill_only_what_the_caller_has(const char *scratch)
{
    sesscache *cache = open_cache(scratch);
    unsigned char small[24], large[sizeof(sesscache_stats) + 64];

    memset(small, 0xa5, sizeof small);
    CHECK_OK(sesscache_read_stats(cache, (sesscache_stats *)(void *)small, 16));
    for (size_t i = 16; i < sizeof small; i++)
        CHECK(small[i] == 0xa5, "a caller with an older, shorter sesscache_stats is written past its end");
    /* A caller built for a later version sees zeros in the fields this one does not know. */
    memset(large, 0xa5, sizeof large);
    CHECK_OK(sesscache_read_stats(cache, (sesscache_stats *)(void *)large, sizeof large));
    for (size_t i = sizeof(sesscache_stats); i < sizeof large; i++)
        CHECK(large[i] == 0, "fields of a later version are left undefined");
    sesscache_close(cache);
}

static int stop(void *userdata, const unsigned char *key, size_t key_len, const void *data, size_t len, int64_t expires)
{
    (void)key;
    (void)key_len;
    (void)data;
    (void)len;
    (void)expires;
    CHECK(userdata == NULL, "the callback gets another userdata than NULL");
    return 1;
}

static void opaque_records_refuse_null(const char *scratch)
{
    sesscache *cache = open_cache(scratch);
    int64_t expires = (int64_t)time(NULL) + 60;
    char buffer[64];
    size_t len = sizeof buffer;

    REFUSED(sesscache_put(NULL, id, sizeof id, "x", 1, expires));
    REFUSED(sesscache_put(cache, NULL, sizeof id, "x", 1, expires));
    REFUSED(sesscache_put(cache, id, 0, "x", 1, expires));
    REFUSED(sesscache_put(cache, id, sizeof id, NULL, 1, expires));
    REFUSED(sesscache_get(NULL, id, sizeof id, buffer, &len));
    REFUSED(sesscache_get(cache, NULL, sizeof id, buffer, &len));
    REFUSED(sesscache_get(cache, id, 0, buffer, &len));
    REFUSED(sesscache_get(cache, id, sizeof id, buffer, NULL));
    REFUSED(sesscache_get(cache, id, sizeof id, NULL, &len));
    CHECK(len == sizeof buffer, "a refused get writes a length");
    REFUSED(sesscache_each(NULL, stop, NULL));
    REFUSED(sesscache_each(cache, NULL, NULL));

    /* Of a record that exists, a get without room is refused too, and says how much it takes. */
    CHECK_OK(sesscache_put(cache, id, sizeof id, "record", 6, expires));
    len = 0;
    REFUSED(sesscache_get(cache, id, sizeof id, buffer, &len));
    CHECK(len == 6, "a get without room says it takes %zu bytes instead of 6", len);
    CHECK_OK(sesscache_each(cache, stop, NULL));
    sesscache_close(cache);
}

static void a_record_without_data_is_kept_or_refused(const char *scratch)
{
    sesscache *cache = open_cache(scratch);
    int64_t expires = (int64_t)time(NULL) + 60;
    const void *const empty[] = {"", NULL};

    for (size_t i = 0; i < 2; i++) {
        sesscache_status status = sesscache_put(cache, id, sizeof id, empty[i], 0, expires);
        char buffer[8];
        size_t len = sizeof buffer;

        CHECK(status == SESSCACHE_OK || status == SESSCACHE_INVALID, "a record of no bytes gets status %d", (int)status);
        if (status == SESSCACHE_OK) {
            CHECK_OK(sesscache_get(cache, id, sizeof id, buffer, &len));
            CHECK(len == 0, "a record of no bytes comes back with %zu", len);
        } else {
            CHECK(sesscache_get(cache, id, sizeof id, buffer, &len) == SESSCACHE_NOT_FOUND, "a refused record is stored");
        }
    }
    sesscache_close(cache);
}

static void every_number_has_a_phrase(const char *scratch)
{
    (void)scratch;
    for (int status = -1000; status <= 1000; status++)
        CHECK(sesscache_strerror(status) != NULL && *sesscache_strerror(status) != '\0', "status %d has no phrase", status);
    CHECK(sesscache_strerror(INT_MIN) != NULL && sesscache_strerror(INT_MAX) != NULL, "an extreme status has no phrase");
    for (int one = SESSCACHE_OK; one <= SESSCACHE_NOT_FOUND; one++)
        for (int two = SESSCACHE_OK; two < one; two++)
            CHECK(strcmp(sesscache_strerror(one), sesscache_strerror(two)) != 0, "statuses %d and %d have the same phrase", one, two);
}

static void there_is_always_a_message_and_a_version(const char *scratch)
{
    (void)scratch;
    CHECK(sesscache_errmsg() != NULL, "no message before the first error");
    CHECK(sesscache_version() != NULL && *sesscache_version() != '\0', "the library does not say its version");
    REFUSED(sesscache_flush(NULL));
    REFUSED(sesscache_hold(NULL));
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(open_refuses_null),
        TEST(the_message_names_the_option_that_is_wrong),
        TEST(a_check_says_what_open_would_and_makes_nothing),
        TEST(attach_detach_enable_and_forget_refuse_null),
        TEST(the_calls_of_a_handle_refuse_null),
        TEST(stats_fill_only_what_the_caller_has),
        TEST(opaque_records_refuse_null),
        TEST(a_record_without_data_is_kept_or_refused),
        TEST(every_number_has_a_phrase),
        TEST(there_is_always_a_message_and_a_version),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
