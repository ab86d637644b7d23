/*
 * A server of one release beside the same server of another: both have one directory open at the same time, and each is visited
 * by a client that comes with a session of the other's. scripts/test-release compiles it in both systems, with tests/c/tls.c.
 *
 *   neighbour DIRECTORY NAME OTHER
 *
 * Prints what became of the sessions of OTHER, and the last message of the library.
 */
#include "check.h"
#include "tls.h"

/* Seconds that the other may need. */
#define PATIENCE 120

static const char *directory;
static char message[512];

static void on_message(void *context, int level, const char *text)
{
    (void)context;
    (void)level;
    snprintf(message, sizeof message, " (%s)", text);
}

static char *file_of(const char *name, const char *what)
{
    char *path;

    CHECK(asprintf(&path, "%s/%s.%s", directory, name, what) > 0, "out of memory");
    return path;
}

/* The file is complete as soon as it has its name. */
static void leave(const char *name, const char *what, const void *bytes, size_t len)
{
    char *path = file_of(name, what), *unfinished = file_of(name, "new");
    FILE *file = fopen(unfinished, "w");

    CHECK(file != NULL && fwrite(bytes, 1, len, file) == len && fclose(file) == 0 && rename(unfinished, path) == 0,
          "%s: %s", path, strerror(errno));
    free(path);
    free(unfinished);
}

static struct saved wait_for(const char *name, const char *what)
{
    char *path = file_of(name, what);
    double end = check_now() + check_patience(PATIENCE);
    struct saved saved = {0};
    FILE *file;

    while ((file = fopen(path, "r")) == NULL) {
        CHECK(check_now() < end, "%s never comes", path);
        check_sleep(0.01);
    }
    saved.len = fread(saved.der, 1, sizeof saved.der, file);
    CHECK(fclose(file) == 0, "fclose: %s", strerror(errno));
    free(path);
    return saved;
}

int main(int argc, char **argv)
{
    SSL_CTX *ctx = tls_server();
    sesscache *cache;
    int resumed[2];

    CHECK(argc == 4, "usage: neighbour DIRECTORY NAME OTHER");
    directory = argv[1];
    CHECK_OK(sesscache_open(store_in(directory), "deadline=10s", &cache));
    sesscache_set_log(cache, on_message, NULL);
    CHECK_OK(sesscache_attach(cache, ctx));
    for (int i = 0; i < 2; i++) {
        struct outcome out = tls_here(ctx, (struct visit){.version = tls_versions[i]});

        CHECK(tls_here(ctx, (struct visit){.version = tls_versions[i], .offer = &out.newest}).resumed,
              "%s: a session of its own does not resume", tls_name(tls_versions[i]));
        leave(argv[2], tls_name(tls_versions[i]), out.newest.der, out.newest.len);
    }
    for (int i = 0; i < 2; i++) {
        struct saved theirs = wait_for(argv[3], tls_name(tls_versions[i]));

        resumed[i] = tls_here(ctx, (struct visit){.version = tls_versions[i], .offer = &theirs}).resumed;
    }
    /* Each keeps the directory open until the other has been visited. */
    leave(argv[2], "done", "", 0);
    wait_for(argv[3], "done");
    printf("TLS 1.2 %s, TLS 1.3 %s%s\n", resumed[0] ? "resumed" : "full", resumed[1] ? "resumed" : "full", message);
    SSL_CTX_free(ctx);
    sesscache_close(cache);
    return 0;
}
