/*
 * A program may have a libssl of its own beside the one that the library uses: linked statically, or loaded by a plugin. Their
 * SSL_CTXs cannot be attached, and the message names both, because nobody would look for the second one.
 */
#include "check.h"
#include "loaded.h"

#include <openssl/ssl.h>

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
    find_function(library, "SSL_CTX_new", &new_ctx);
    find_function(library, "TLS_server_method", &method);
    find_function(library, "SSL_CTX_free", &free_ctx);
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
