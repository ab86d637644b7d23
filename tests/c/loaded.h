/*
 * Libraries that a test loads itself: a copy of one, and the functions in it.
 */
#ifndef LOADED_H
#define LOADED_H

#include "check.h"

#include <dlfcn.h>

static inline void copy_file(const char *from, const char *to)
{
    char buffer[65536];
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    size_t len;

    CHECK(in != NULL && out != NULL, "cannot copy %s: %s", from, strerror(errno));
    while ((len = fread(buffer, 1, sizeof buffer, in)) > 0)
        CHECK(fwrite(buffer, 1, len, out) == len, "cannot write %s", to);
    CHECK(!ferror(in) && fclose(in) == 0 && fclose(out) == 0, "cannot copy %s", from);
}

/* ISO C has no cast from void * to a function pointer. */
static inline void find_function(void *library, const char *name, void *function)
{
    void *symbol = dlsym(library, name);

    CHECK(symbol != NULL, "the library has no %s", name);
    memcpy(function, &symbol, sizeof symbol);
}

#endif
