/* The libraries that the configuration module calls: looked up in the process, loaded, never linked. */
#include "module.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#define STR_(x) #x
#define STR(x) STR_(x)
#define LIBSSL "libssl.so." STR(OPENSSL_VERSION_MAJOR)

struct call call;
static _Atomic(sesscache *) the_cache;

/* The methods of libssl that are for one side only, each with NULL where this libssl lacks it. */
enum { METHODS = 8 };
static struct {
    const SSL_METHOD *client[METHODS], *server[METHODS];
} methods;

/* Keeps the newest message for the doctor. The thread that comes second at the same time does without. */
static void keep(void *userdata, int level, const char *message)
{
    static _Atomic uint32_t writer;
    uint32_t was = atomic_load(&writer), pid = (uint32_t)getpid();

    (void)userdata;
    (void)level;
    if (was != pid && atomic_compare_exchange_strong(&writer, &was, pid)) {
        snprintf(report.message, sizeof report.message, "%s", message);
        atomic_store(&writer, 0);
    }
}

void complain(const char *message)
{
    if (strcmp(message, report.message) != 0)
        syslog(LOG_DAEMON | LOG_WARNING, "sesscache: %s: %s", report.program, message);
    keep(NULL, LOG_WARNING, message);
}

/* libsesscache beside this module: a build that is not in the linker's cache goes with its own. */
static void *load_library(void)
{
    static const char name[] = SESSCACHE_SONAME;
    char path[PATH_MAX];
    void *found = NULL;
    const char *slash;
    Dl_info here;

    if (dladdr(&report, &here) != 0 && (slash = strrchr(here.dli_fname, '/')) != NULL
        && (size_t)snprintf(path, sizeof path, "%.*s/../%s", (int)(slash - here.dli_fname), here.dli_fname, name) < sizeof path)
        found = dlopen(path, RTLD_NOW);
    return found != NULL ? found : dlopen(name, RTLD_NOW);
}

static void find_methods(void *libssl, const char *side, const SSL_METHOD **to)
{
    static const char *const versions[METHODS] = { "TLS_%s_method", "TLSv1_2_%s_method", "TLSv1_1_%s_method", "TLSv1_%s_method",
                                                   "DTLS_%s_method", "DTLSv1_2_%s_method", "OSSL_QUIC_%s_method",
                                                   "OSSL_QUIC_%s_thread_method" };

    for (int i = 0; i < METHODS; i++) {
        const SSL_METHOD *(*get)(void);
        char name[64], *at;

        snprintf(name, sizeof name, "%s", versions[i]);
        at = strstr(name, "%s");
        snprintf(at, sizeof name - (size_t)(at - name), "%s%s", side, strstr(versions[i], "%s") + 2);
        *(void **)&get = dlsym(libssl, name);
        to[i] = get != NULL ? get() : NULL;
    }
}

static void resolve(void)
{
    void *libssl = dlopen(LIBSSL, RTLD_LAZY | RTLD_NOLOAD), *ours = libssl != NULL ? load_library() : NULL;

    if (ours == NULL) {
        const char *why = dlerror();
        complain(why != NULL ? why : "the program has another libssl than " LIBSSL);
        return;
    }
#define LOOK_UP(member, library, name)                                                      \
    if ((*(void **)&call.member = dlsym(library, name)) == NULL) {                          \
        complain("a function is missing: " name);                                           \
        return;                                                                             \
    }
    LOOK_UP(get_ctx, libssl, "SSL_get_SSL_CTX")
    LOOK_UP(method, libssl, "SSL_CTX_get_ssl_method")
    LOOK_UP(certificate, libssl, "SSL_CTX_get0_certificate")
    LOOK_UP(ctrl, libssl, "SSL_CTX_ctrl")
    LOOK_UP(get_ex_data, libssl, "SSL_CTX_get_ex_data")
    LOOK_UP(set_context, libssl, "SSL_CTX_set_session_id_context")
    LOOK_UP(set_context_of_ssl, libssl, "SSL_set_session_id_context")
    LOOK_UP(new_cb, libssl, "SSL_CTX_sess_get_new_cb")
    LOOK_UP(get_cb, libssl, "SSL_CTX_sess_get_get_cb")
    LOOK_UP(remove_cb, libssl, "SSL_CTX_sess_get_remove_cb")
    LOOK_UP(open, ours, "sesscache_open")
    LOOK_UP(close, ours, "sesscache_close")
    LOOK_UP(attach, ours, "sesscache_attach")
    LOOK_UP(detach, ours, "sesscache_detach")
    LOOK_UP(inherit, ours, "sesscache_inherit")
    LOOK_UP(set_log, ours, "sesscache_set_log")
    LOOK_UP(errmsg, ours, "sesscache_errmsg")
    find_methods(libssl, "client", methods.client);
    find_methods(libssl, "server", methods.server);
    call.ready = 1;
}

/* One for all: the program may have an SSL_CTX for each connection. */
sesscache *cache(void)
{
    sesscache *opened = atomic_load(&the_cache), *none = NULL;

    if (opened != NULL)
        return opened;
    if (call.open(report.directory, report.options, &opened) != SESSCACHE_OK) {
        complain(call.errmsg());
        return NULL;
    }
    call.set_log(opened, keep, NULL);
    if (atomic_compare_exchange_strong(&the_cache, &none, opened))
        return opened;
    call.close(opened);
    return none;
}

void prepare(void)
{
    /* Begins anew in a child of a fork in its midst. */
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    /* Where libssl comes later, its first SSL_CTX comes here. */
    if (!call.ready && dlopen(LIBSSL, RTLD_LAZY | RTLD_NOLOAD) != NULL)
        pthread_once(&once, resolve);
    if (call.ready && settings.owned && geteuid() == 0)
        cache();
}

enum role role_of(SSL_CTX *ctx)
{
    const SSL_METHOD *method = call.method(ctx);

    for (int i = 0; i < METHODS; i++) {
        if (methods.client[i] == method)
            return CLIENT;
        if (methods.server[i] == method)
            return SERVER;
    }
    return call.certificate(ctx) != NULL ? SERVER : UNKNOWN;
}

/* Kamailio's processes do: what this module and the library keep for an SSL_CTX, and for its connections, is memory of one process, which
   another would take for its own. Only a program that has its own allocator for OpenSSL can share. */
int is_shared(const SSL_CTX *ctx)
{
    unsigned long from, to, at = (unsigned long)ctx;
    CRYPTO_malloc_fn allocate;
    char line[PATH_MAX + 128], kind;
    int shared = 1;
    FILE *maps;

    CRYPTO_get_mem_functions(&allocate, NULL, NULL);
    if (allocate == CRYPTO_malloc)
        return 0;
    maps = fopen("/proc/self/maps", "re");
    while (maps != NULL && fgets(line, sizeof line, maps) != NULL)
        if (sscanf(line, "%lx-%lx %*3c%c", &from, &to, &kind) == 3 && from <= at && at < to)
            shared = kind == 's';
    if (maps != NULL)
        fclose(maps);
    return shared;
}
