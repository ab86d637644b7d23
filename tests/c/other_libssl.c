/*
 * A program may have a libssl of its own beside the one that the library uses: linked statically, or loaded by a plugin. Their
 * SSL_CTXs cannot be attached, and the message names both, because nobody would look for the second one.
 */
#include "check.h"

#include <dlfcn.h>
#include <openssl/ssl.h>

/* ISO C has no cast from void * to a function pointer. */
static void find(void *library, const char *name, void *function)
{
    void *symbol = dlsym(library, name);

    CHECK(symbol != NULL, "a libssl without %s", name);
    memcpy(function, &symbol, sizeof symbol);
}

static void copy_file(const char *from, const char *to)
{
    char buffer[65536];
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    size_t len;

    CHECK(in != NULL && out != NULL, "cannot copy %s: %s", from, strerror(errno));
    while ((len = fread(buffer, 1, sizeof buffer, in)) > 0)
        CHECK(fwrite(buffer, 1, len, out) == len, "cannot write %s", to);
    CHECK(!ferror(in) && fclose(in) == 0 && fclose(out) == 0, "cannot copy %s", from);
}

static void a_context_of_another_libssl_is_refused_and_both_are_named(const char *scratch)
{
    SSL_CTX *(*new_ctx)(const SSL_METHOD *), *ctx;
    const SSL_METHOD *(*method)(void);
    void (*free_ctx)(SSL_CTX *);
    char *copy = path_in(scratch, "libssl-of-a-plugin.so");
    void *symbol = dlsym(RTLD_DEFAULT, "SSL_CTX_new"), *library;
    Dl_info ours;

    CHECK(symbol != NULL && dladdr(symbol, &ours) != 0, "where is libssl?");
    copy_file(ours.dli_fname, copy);
    library = dlopen(copy, RTLD_NOW | RTLD_LOCAL);
    CHECK(library != NULL, "dlopen: %s", dlerror());
    find(library, "SSL_CTX_new", &new_ctx);
    find(library, "TLS_server_method", &method);
    find(library, "SSL_CTX_free", &free_ctx);
    ctx = new_ctx(method());
    CHECK(ctx != NULL, "no SSL_CTX of another libssl");

    CHECK(sesscache_enable(ctx, store_in(scratch), NULL) == SESSCACHE_MISMATCH, "it is taken");
    CHECK(strstr(sesscache_errmsg(), copy) != NULL && strstr(sesscache_errmsg(), ours.dli_fname) != NULL,
          "the message does not name both: %s", sesscache_errmsg());
    free_ctx(ctx);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(a_context_of_another_libssl_is_refused_and_both_are_named),
    };

    return check_main(argc, argv, tests, TESTS(tests));
}
