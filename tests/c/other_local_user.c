/*
 * Another user of the machine, without rights: he finds nothing to read, and what he plants is not used, neither before
 * the store is opened nor in its place later, where he may rename what lies beside it.
 */
#include "check.h"
#include "tls.h"

#include <fcntl.h>
#include <grp.h>

enum { NOBODY = 65534 };

static void become_nobody(void)
{
    CHECK(setgroups(0, NULL) == 0 && setgid(NOBODY) == 0 && setuid(NOBODY) == 0, "setuid: %s", strerror(errno));
}

/* Runs it as the other user. */
static void as_nobody(void (*run)(const char *), const char *argument)
{
    pid_t pid = check_fork();

    if (pid == 0) {
        become_nobody();
        run(argument);
        exit(0);
    }
    check_wait(pid, "the other user");
}

static int am_root(void)
{
    if (geteuid() == 0)
        return 1;
    fprintf(stderr, "acting as another user needs root: skipped\n");
    return 0;
}

/* A directory where the other user may make and rename things. */
static char *shared_place(const char *scratch)
{
    char *place = path_in(scratch, "place");

    CHECK(chmod(scratch, 0755) == 0 && mkdir(place, 0775) == 0 && chown(place, 0, NOBODY) == 0 && chmod(place, 0775) == 0,
          "%s: %s", place, strerror(errno));
    return place;
}

static int seen;

static int cannot_open(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status;
    (void)walk;
    seen++;
    CHECK(type == FTW_DNR || open(path, O_RDONLY) < 0, "another user reads %s", path);
    return 0;
}

static void look_into(const char *store)
{
    static const char *const names[] = {"control", "key"};

    CHECK(nftw(store, cannot_open, 16, FTW_PHYS) == 0 && seen > 0, "nothing to look at");
    for (int i = 0; i < 2; i++) {
        CHECK(open(path_in(store, names[i]), O_RDONLY) < 0, "another user reads %s", names[i]);
        CHECK(unlink(path_in(store, names[i])) != 0, "another user deletes %s", names[i]);
        CHECK(symlink("/etc/passwd", path_in(store, "x")) != 0, "another user makes files in the store");
    }
}

static void another_local_user_reads_and_changes_nothing(const char *scratch)
{
    SSL_CTX *ctx;

    if (!am_root())
        return;
    CHECK(chmod(scratch, 0755) == 0, "chmod: %s", strerror(errno));
    ctx = tls_attached(store_in(scratch), NULL);
    (void)tls_here(ctx, (struct visit){.version = TLS1_3_VERSION});
    as_nobody(look_into, store_in(scratch));
    SSL_CTX_free(ctx);
}

static void make_directory(const char *path)
{
    CHECK(mkdir(path, 0700) == 0, "%s: %s", path, strerror(errno));
}

static void make_link(const char *path)
{
    CHECK(symlink("/etc", path) == 0, "%s: %s", path, strerror(errno));
}

static void make_key(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    static const unsigned char known[32];

    CHECK(fd >= 0 && write(fd, known, sizeof known) == sizeof known && close(fd) == 0, "%s: %s", path, strerror(errno));
}

static void what_another_local_user_has_made_before_is_refused(const char *scratch)
{
    char *place, *store, *key;
    SSL_CTX *ctx = tls_server();

    if (!am_root())
        return;
    place = shared_place(scratch);
    store = path_in(place, "directory");
    as_nobody(make_directory, store);
    CHECK(sesscache_enable(ctx, store, NULL) == SESSCACHE_INVALID, "a directory of another user is accepted");
    store = path_in(place, "link");
    as_nobody(make_link, store);
    CHECK(sesscache_enable(ctx, store, NULL) == SESSCACHE_INVALID, "a link of another user is followed");
    store = path_in(place, "own");
    key = path_in(place, "his-key");
    as_nobody(make_key, key);
    CHECK(mkdir(store, 0700) == 0 && symlink(key, path_in(store, "key")) == 0, "symlink: %s", strerror(errno));
    if (sesscache_enable(ctx, store, NULL) == SESSCACHE_OK) {
        struct outcome made = tls_here(ctx, (struct visit){.version = TLS1_2_VERSION});

        CHECK(!tls_here(ctx, (struct visit){.version = TLS1_2_VERSION, .offer = &made.newest}).resumed,
              "sessions are sealed with a key that another user has made");
    }
    SSL_CTX_free(ctx);
}

/* A whole store, made by himself and open to everybody. */
static void plant(const char *place)
{
    char *store = path_in(place, "store"), *own = path_in(place, "planted"), *script;
    SSL_CTX *ctx = tls_attached(own, NULL);

    (void)tls_here(ctx, (struct visit){.version = TLS1_3_VERSION});
    CHECK(asprintf(&script, "chmod -R a+rwX '%s'", own) > 0 && system(script) == 0, "chmod fails");
    CHECK(rename(store, path_in(place, "away")) == 0 && rename(own, store) == 0, "rename: %s", strerror(errno));
}

static int is_open_here(const char *directory)
{
    char text[512];
    FILE *maps = fopen("/proc/self/maps", "r");
    int found = 0;

    CHECK(maps != NULL, "/proc/self/maps: %s", strerror(errno));
    while (fgets(text, sizeof text, maps) != NULL)
        found |= strstr(text, directory) != NULL;
    CHECK(fclose(maps) == 0, "fclose: %s", strerror(errno));
    return found;
}

/* The group may write the directory above: he moves the store away and puts his own there. */
static void what_another_local_user_puts_in_the_place_of_the_store_is_not_used(const char *scratch)
{
    for (int used = 0; used < 2; used++) {
        char *place, *store;
        struct outcome before = {0};
        SSL_CTX *ctx;
        pid_t pid;

        if (!am_root())
            return;
        place = shared_place(scratch);
        store = path_in(place, "store");
        ctx = tls_attached(store, NULL);
        if (used)
            before = tls_here(ctx, (struct visit){.version = TLS1_2_VERSION});
        (void)tls_credentials(SERVER_P256);
        as_nobody(plant, place);
        pid = check_fork();
        if (pid == 0) {
            for (int v = 0; v < 2; v++)
                (void)tls_here(ctx, (struct visit){.version = tls_versions[v]});
            CHECK(!is_open_here(store), "the store that another user has planted is open in this process");
            exit(0);
        }
        check_wait(pid, "a child that opens the store");
        if (used)
            CHECK(tls_here(ctx, (struct visit){.version = TLS1_2_VERSION, .offer = &before.newest}).resumed,
                  "a process that had the store open loses its sessions");
        check_sleep(1.1);
        (void)tls_here(ctx, (struct visit){.version = TLS1_2_VERSION});
        (void)tls_here(ctx, (struct visit){.version = TLS1_2_VERSION});
        CHECK(!is_open_here(store), "the store that another user has planted is open a second later");
        SSL_CTX_free(ctx);
        CHECK(check_remove_tree(place) == 0, "%s: %s", place, strerror(errno));
    }
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(another_local_user_reads_and_changes_nothing),
        TEST(what_another_local_user_has_made_before_is_refused),
        TEST(what_another_local_user_puts_in_the_place_of_the_store_is_not_used),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
