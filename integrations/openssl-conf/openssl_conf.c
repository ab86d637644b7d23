/*
 * A configuration module of OpenSSL: gives the server SSL_CTXs of a program that nobody patches to sesscache. README.md beside
 * this file says how to use it; docs/openssl-conf.md has the page for operators.
 *
 * It is linked with libcrypto only, and loads libsesscache when the program has libssl: sshd and its like read openssl.cnf, too,
 * and must not get a libssl that they do not have. It learns of an SSL_CTX and of an SSL through the constructors of their
 * ex_data: contexts.c. This file reads the section of openssl.cnf.
 */
#include "module.h"

#include <errno.h>
#include <limits.h>
#include <openssl/conf.h>
#include <openssl/err.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

struct report report = { .magic = "sesscache openssl_conf 1" };
struct settings settings;

/* Whether a list of words, separated by spaces or commas, has this one. */
static int names(const char *list, const char *name)
{
    size_t len = strlen(name);

    while (*(list += strspn(list, " ,\t")) != '\0') {
        size_t word = strcspn(list, " ,\t");

        if (word == len && strncmp(list, name, len) == 0)
            return 1;
        list += word;
    }
    return 0;
}

/* Whether the file that names this module means this program: by the name of its executable, or by the name it was called by. */
static int is_meant(const char *programs)
{
    char exe[PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", exe, sizeof exe - 1);
    const char *called = program_invocation_short_name, *name = called;

    if (len > 0) {
        exe[len] = '\0';
        name = strrchr(exe, '/') != NULL ? strrchr(exe, '/') + 1 : exe;
    }
    if (programs != NULL && !names(programs, name)) {
        if (!names(programs, called))
            return 0;
        name = called;
    }
    return (size_t)snprintf(report.program, sizeof report.program, "%s", name) < sizeof report.program;
}

/* The directory, with the program's name for each %p. */
static int name_directory(const char *pattern)
{
    size_t len = 0;

    for (; *pattern != '\0' && len < sizeof report.directory; pattern++) {
        if (pattern[0] == '%' && pattern[1] == 'p') {
            len += (size_t)snprintf(report.directory + len, sizeof report.directory - len, "%s", report.program);
            pattern++;
        } else {
            report.directory[len++] = *pattern;
        }
    }
    if (len >= sizeof report.directory)
        return 0;
    report.directory[len] = '\0';
    return 1;
}

/* OpenSSL calls it under this name; libcrypto declares a function of its own that is also called so. */
__attribute__((visibility("default"))) int module_init(CONF_IMODULE *module, const CONF *conf) __asm__("OPENSSL_init");
int module_init(CONF_IMODULE *module, const CONF *conf)
{
    const char *section = CONF_imodule_get_value(module);
    static int seen;
    int before = errno;
    const char *directory, *options, *context, *force, *programs;

    ERR_set_mark();
    directory = NCONF_get_string(conf, section, "directory");
    options = NCONF_get_string(conf, section, "options");
    programs = NCONF_get_string(conf, section, "programs");
    context = NCONF_get_string(conf, section, "session_id_context");
    force = NCONF_get_string(conf, section, "force");
    ERR_pop_to_mark();
    /* A program may read its configuration for several library contexts. One that gains rights by its file takes no orders. */
    if (seen || getauxval(AT_SECURE) != 0 || !is_meant(programs))
        goto out;
    if (directory == NULL || !name_directory(directory)) {
        complain("openssl.cnf gives no directory, or too long a one");
        goto out;
    }
    if (options != NULL && (size_t)snprintf(report.options, sizeof report.options, "%s", options) >= sizeof report.options) {
        complain("openssl.cnf gives too many options");
        goto out;
    }
    if (context != NULL) {
        settings.session_id_context_len = (unsigned)strnlen(context, sizeof settings.session_id_context);
        memcpy(settings.session_id_context, context, settings.session_id_context_len);
    }
    settings.force = force != NULL && strcmp(force, "yes") == 0;
    settings.owned = strstr(report.options, "owner=") != NULL;
    seen = 1;
    follow_contexts();
    prepare();
out:
    errno = before;
    return 1;
}
