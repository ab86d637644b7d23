/*
 * What the tests of OpenSSL's configuration module share.
 */
#ifndef OPENSSL_CONF_H
#define OPENSSL_CONF_H

#include "check.h"
#include "tls.h"

#include <dlfcn.h>

/* OpenSSL reads its configuration at the first call, which each test makes in a process of its own. */
static inline char *configure(const char *scratch, const char *settings)
{
    char *path = path_in(scratch, "openssl.cnf"), *store = store_in(scratch);
    FILE *file = fopen(path, "w");
    Dl_info library;

    CHECK(dladdr((void *)(size_t)sesscache_open, &library) != 0, "where is the library?");
    CHECK(file != NULL && fprintf(file, "openssl_conf = init\n[init]\nsesscache = ours\n[ours]\npath = %.*s/sesscache/openssl_conf.so\n"
                                        "directory = %s\n%s\n",
                                  (int)(strrchr(library.dli_fname, '/') - library.dli_fname), library.dli_fname, store, settings) > 0
          && fclose(file) == 0, "no configuration file");
    CHECK(setenv("OPENSSL_CONF", path, 1) == 0, "setenv");
    return store;
}

static inline int is_attached(SSL_CTX *ctx)
{
    return SSL_CTX_sess_get_new_cb(ctx) != NULL && SSL_CTX_sess_get_get_cb(ctx) != NULL && SSL_CTX_sess_get_remove_cb(ctx) != NULL;
}

/* Has the context make a connection. */
static inline void use(SSL_CTX *ctx)
{
    SSL *ssl = SSL_new(ctx);

    CHECK(ssl != NULL, "SSL_new");
    SSL_free(ssl);
}

#endif
