/*
 * Opaque records, for servers that keep their own hooks: what one process puts another gets, byte for byte,
 * until it expires, and nobody else's records are in sight.
 */
#include "check.h"
#include "tls.h"

#define MAX_DATA 65536

static sesscache *open_cache(const char *store, const char *options)
{
    sesscache *cache = NULL;

    CHECK_OK(sesscache_open(store, options, &cache));
    return cache;
}

static int64_t in_a_minute(void)
{
    return (int64_t)time(NULL) + 60;
}

static void fill(unsigned char *data, size_t len, unsigned int seed)
{
    for (size_t i = 0; i < len; i++)
        data[i] = (unsigned char)(seed * 31 + i * 7 + i / 251);
}

static void put_text(sesscache *cache, const char *id, const char *text)
{
    CHECK_OK(sesscache_put(cache, (const unsigned char *)id, strlen(id), text, strlen(text), in_a_minute()));
}

static sesscache_status get(sesscache *cache, const char *id, char *text, size_t size)
{
    size_t len = size - 1;
    sesscache_status status = sesscache_get(cache, (const unsigned char *)id, strlen(id), text, &len);

    text[status == SESSCACHE_OK ? len : 0] = '\0';
    return status;
}

static void expect(sesscache *cache, const char *id, const char *text)
{
    char found[256];

    CHECK(get(cache, id, found, sizeof found) == SESSCACHE_OK, "record %s is lost", id);
    CHECK(strcmp(found, text) == 0, "record %s comes back as '%s' instead of '%s'", id, found, text);
}

static void expect_none(sesscache *cache, const char *id)
{
    char found[256];

    CHECK(get(cache, id, found, sizeof found) == SESSCACHE_NOT_FOUND, "record %s is found", id);
}

/* Sizes around the page limits of the store, and the largest. */
static const size_t sizes[] = {1, 2, 100, 1900, 1998, 1999, 4000, 4080, 4081, 8192, 16384, 65535, MAX_DATA};
enum { SIZES = sizeof sizes / sizeof sizes[0] };

static void put_all(sesscache *cache, unsigned int seed)
{
    static unsigned char data[MAX_DATA];

    for (unsigned int i = 0; i < SIZES; i++) {
        unsigned char id[2] = {(unsigned char)seed, (unsigned char)i};

        fill(data, sizes[i], seed + i);
        CHECK_OK(sesscache_put(cache, id, sizeof id, data, sizes[i], in_a_minute()));
    }
}

static void get_all(sesscache *cache, unsigned int seed)
{
    static unsigned char data[MAX_DATA], expected[MAX_DATA];

    for (unsigned int i = 0; i < SIZES; i++) {
        unsigned char id[2] = {(unsigned char)seed, (unsigned char)i};
        size_t len = sizeof data;

        fill(expected, sizes[i], seed + i);
        CHECK_OK(sesscache_get(cache, id, sizeof id, data, &len));
        CHECK(len == sizes[i] && memcmp(data, expected, len) == 0, "a record of %zu bytes comes back changed", sizes[i]);
    }
}

static void records_of_every_size_cross_processes(const char *scratch)
{
    sesscache *cache = open_cache(store_in(scratch), NULL);
    pid_t pid;

    put_all(cache, 1);
    pid = check_fork();
    if (pid == 0) {
        get_all(cache, 1);
        put_all(cache, 2);
        _exit(0);
    }
    check_wait(pid, "the process that reads the records");
    get_all(cache, 1);
    get_all(cache, 2);
    sesscache_close(cache);
}

static void records_outlive_the_process_and_the_handle(const char *scratch)
{
    char *store = store_in(scratch);
    pid_t pid = check_fork();
    sesscache *cache;

    if (pid == 0) {
        cache = open_cache(store, NULL);
        put_text(cache, "id", "text");
        sesscache_close(cache);
        exit(0);
    }
    check_wait(pid, "the process that puts a record");
    cache = open_cache(store, NULL);
    expect(cache, "id", "text");
    sesscache_close(cache);
}

static void a_buffer_that_is_too_small_learns_the_size(const char *scratch)
{
    sesscache *cache = open_cache(store_in(scratch), NULL);
    char buffer[8] = "-------";
    size_t len = 7;

    put_text(cache, "id", "12345678");
    CHECK(sesscache_get(cache, (const unsigned char *)"id", 2, buffer, &len) == SESSCACHE_INVALID, "a short buffer is accepted");
    CHECK(len == 8, "a short buffer is told to take %zu bytes instead of 8", len);
    CHECK(strcmp(buffer, "-------") == 0, "a short buffer is written to");
    CHECK_OK(sesscache_get(cache, (const unsigned char *)"id", 2, buffer, &len));
    CHECK(len == 8 && memcmp(buffer, "12345678", 8) == 0, "a buffer of just the right size is not filled");
    sesscache_close(cache);
}

static void an_unknown_id_is_not_found(const char *scratch)
{
    sesscache *cache = open_cache(store_in(scratch), NULL);

    expect_none(cache, "never put");
    put_text(cache, "known", "text");
    expect_none(cache, "unknown");
    expect_none(cache, "know");
    expect_none(cache, "known2");
    sesscache_close(cache);
}

static void the_last_put_wins(const char *scratch)
{
    sesscache *cache = open_cache(store_in(scratch), NULL);
    pid_t pid;

    put_text(cache, "id", "first");
    put_text(cache, "id", "second, and longer");
    expect(cache, "id", "second, and longer");
    pid = check_fork();
    if (pid == 0) {
        put_text(cache, "id", "3rd");
        _exit(0);
    }
    check_wait(pid, "the process that overwrites");
    expect(cache, "id", "3rd");
    CHECK(tls_stats(cache).sessions == 1, "overwriting leaves the old record behind");
    sesscache_close(cache);
}

static void a_removed_record_is_gone_everywhere(const char *scratch)
{
    sesscache *cache = open_cache(store_in(scratch), NULL);
    sesscache_status status;
    pid_t pid;

    put_text(cache, "id", "text");
    put_text(cache, "other", "stays");
    pid = check_fork();
    if (pid == 0) {
        CHECK_OK(sesscache_remove(cache, (const unsigned char *)"id", 2));
        _exit(0);
    }
    check_wait(pid, "the process that removes");
    expect_none(cache, "id");
    expect(cache, "other", "stays");
    status = sesscache_remove(cache, (const unsigned char *)"id", 2);
    CHECK(status == SESSCACHE_OK || status == SESSCACHE_NOT_FOUND, "removing twice gives status %d", (int)status);
    sesscache_close(cache);
}

static void flush_forgets_all_records_everywhere(const char *scratch)
{
    sesscache *cache = open_cache(store_in(scratch), NULL);
    pid_t pid;

    put_text(cache, "id", "text");
    pid = check_fork();
    if (pid == 0) {
        CHECK_OK(sesscache_flush(cache));
        _exit(0);
    }
    check_wait(pid, "the process that flushes");
    expect_none(cache, "id");
    put_text(cache, "id", "again");
    expect(cache, "id", "again");
    sesscache_close(cache);
}

/* What sesscache_each showed: ids joined by spaces, in the order seen. */
struct seen {
    char ids[1024];
    int calls, stop_after;
};

static int note(void *userdata, const unsigned char *id, size_t id_len, const void *data, size_t len, int64_t expires)
{
    struct seen *seen = userdata;
    size_t used = strlen(seen->ids);

    CHECK(id_len < 64 && used + id_len + 2 < sizeof seen->ids, "an id of %zu bytes that nobody put", id_len);
    CHECK(len == id_len + 1 && memcmp(data, "=", 1) == 0 && memcmp((const char *)data + 1, id, id_len) == 0,
          "each shows the data of another record");
    CHECK(expires > (int64_t)time(NULL) && expires <= in_a_minute(), "each shows a wrong time of expiry");
    snprintf(seen->ids + used, sizeof seen->ids - used, "%.*s ", (int)id_len, (const char *)id);
    return ++seen->calls == seen->stop_after;
}

static struct seen each(sesscache *cache, int stop_after)
{
    struct seen seen = {.stop_after = stop_after};

    CHECK_OK(sesscache_each(cache, note, &seen));
    return seen;
}

static void each_sees_the_opaque_records_and_stops_when_told(const char *scratch)
{
    char *store = store_in(scratch);
    sesscache *cache = open_cache(store, NULL);
    SSL_CTX *server = tls_server();
    struct seen seen;

    CHECK_OK(sesscache_attach(cache, server));
    CHECK(each(cache, 0).calls == 0, "an empty store shows records");
    put_text(cache, "one", "=one");
    put_text(cache, "two", "=two");
    put_text(cache, "three", "=three");
    /* TLS sessions share the store and are none of the caller's business. */
    (void)tls_here(server, (struct visit){.version = TLS1_2_VERSION});
    (void)tls_here(server, (struct visit){.version = TLS1_3_VERSION});

    seen = each(cache, 0);
    CHECK(seen.calls == 3, "each shows %d records instead of 3: %s", seen.calls, seen.ids);
    CHECK(strstr(seen.ids, "one ") && strstr(seen.ids, "two ") && strstr(seen.ids, "three "), "each misses one: %s", seen.ids);
    CHECK(each(cache, 1).calls == 1 && each(cache, 2).calls == 2, "each goes on when told to stop");
    CHECK_OK(sesscache_remove(cache, (const unsigned char *)"two", 3));
    CHECK(each(cache, 0).calls == 2, "each shows a removed record");
    SSL_CTX_free(server);
    sesscache_close(cache);
}

static void namespaces_in_one_directory_do_not_see_each_other(const char *scratch)
{
    char *store = store_in(scratch);
    sesscache *red = open_cache(store, "namespace=red"), *blue = open_cache(store, "namespace=blue");

    put_text(red, "id", "=id");
    put_text(red, "only red", "=only red");
    expect_none(blue, "id");
    CHECK(each(blue, 0).calls == 0, "each shows records of another namespace");
    put_text(blue, "id", "blue");
    expect(red, "id", "=id");
    expect(blue, "id", "blue");
    CHECK(each(red, 0).calls == 2, "each misses records of its own namespace");
    (void)sesscache_remove(blue, (const unsigned char *)"only red", 8);
    expect(red, "only red", "=only red");
    CHECK_OK(sesscache_remove(blue, (const unsigned char *)"id", 2));
    expect(red, "id", "=id");
    sesscache_close(red);
    sesscache_close(blue);
}

static void sessions_do_not_resume_in_another_namespace(const char *scratch)
{
    char *store = store_in(scratch);

    for (int v = 0; v < 2; v++) {
        struct outcome first = tls_elsewhere(store, "namespace=red", (struct visit){.version = tls_versions[v]});

        CHECK(!tls_resumes_elsewhere(store, "namespace=blue", tls_versions[v], &first.newest),
              "%s: a session resumes in another namespace", tls_name(tls_versions[v]));
        CHECK(!tls_resumes_elsewhere(store, NULL, tls_versions[v], &first.newest),
              "%s: a session resumes outside its namespace", tls_name(tls_versions[v]));
        CHECK(tls_resumes_elsewhere(store, "namespace=red", tls_versions[v], &first.newest),
              "%s: a session does not resume in its namespace", tls_name(tls_versions[v]));
    }
}

static void ids_from_1_to_255_bytes_are_all_different(const char *scratch)
{
    sesscache *cache = open_cache(store_in(scratch), NULL);
    unsigned char id[256], byte;
    size_t len;

    memset(id, 'x', sizeof id);
    for (size_t i = 1; i <= 255; i++) {
        byte = (unsigned char)i;
        CHECK_OK(sesscache_put(cache, id, i, &byte, 1, in_a_minute()));
    }
    for (size_t i = 1; i <= 255; i++) {
        len = 1;
        CHECK_OK(sesscache_get(cache, id, i, &byte, &len));
        CHECK(len == 1 && byte == i, "an id of %zu bytes finds the record of one with %u", i, (unsigned int)byte);
    }
    len = 1;
    CHECK(sesscache_put(cache, id, 256, &byte, 1, in_a_minute()) == SESSCACHE_INVALID, "an id of 256 bytes is put");
    CHECK(sesscache_get(cache, id, 256, &byte, &len) == SESSCACHE_INVALID, "an id of 256 bytes is looked up");
    CHECK(sesscache_remove(cache, id, 256) == SESSCACHE_INVALID, "an id of 256 bytes is removed");
    sesscache_close(cache);
}

static void data_over_64_kib_is_full(const char *scratch)
{
    static unsigned char data[MAX_DATA + 1];
    sesscache *cache = open_cache(store_in(scratch), NULL);

    CHECK(sesscache_put(cache, (const unsigned char *)"id", 2, data, sizeof data, in_a_minute()) == SESSCACHE_FULL,
          "a record over 64 KiB does not report FULL");
    CHECK(strlen(sesscache_errmsg()) > 0, "no message says why");
    expect_none(cache, "id");
    sesscache_close(cache);
}

static void an_expired_record_is_out_of_sight(const char *scratch)
{
    sesscache *cache = open_cache(store_in(scratch), NULL);
    int64_t now = (int64_t)time(NULL);
    sesscache_status status;
    char text[64];

    CHECK_OK(sesscache_put(cache, (const unsigned char *)"short", 5, "=short", 6, now + 3));
    put_text(cache, "long", "=long");
    CHECK(get(cache, "short", text, sizeof text) == SESSCACHE_OK, "a record expires before its time");
    CHECK(each(cache, 0).calls == 2, "each misses a record that has not expired");

    /* Times of expiry are whole seconds; one more makes sure it has passed. */
    check_sleep(4.1);
    expect_none(cache, "short");
    CHECK(each(cache, 0).calls == 1, "each shows an expired record");
    expect(cache, "long", "=long");

    status = sesscache_put(cache, (const unsigned char *)"past", 4, "=past", 5, now - 10);
    CHECK(status == SESSCACHE_OK || status == SESSCACHE_INVALID, "a record that has expired gets status %d", (int)status);
    expect_none(cache, "past");
    CHECK(each(cache, 0).calls == 1, "each shows a record put after its expiry");
    sesscache_close(cache);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(records_of_every_size_cross_processes),
        TEST(records_outlive_the_process_and_the_handle),
        TEST(a_buffer_that_is_too_small_learns_the_size),
        TEST(an_unknown_id_is_not_found),
        TEST(the_last_put_wins),
        TEST(a_removed_record_is_gone_everywhere),
        TEST(flush_forgets_all_records_everywhere),
        TEST(each_sees_the_opaque_records_and_stops_when_told),
        TEST(namespaces_in_one_directory_do_not_see_each_other),
        TEST(sessions_do_not_resume_in_another_namespace),
        TEST(ids_from_1_to_255_bytes_are_all_different),
        TEST(data_over_64_kib_is_full),
        TEST(an_expired_record_is_out_of_sight),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
