/* A session cache of mod_tls that keeps its sessions with sesscache: all processes of ProFTPD share them, through restarts.
 * Build:      make                  (ProFTPD's headers and the pkg-config module sesscache)
 * Configure:  LoadModule mod_tls_sesscache.c
 *             TLSSessionCache "sesscache:/run/proftpd-tls(capacity=64MiB)"
 *
 * The argument is DIRECTORY or DIRECTORY(OPTIONS), the options those of sesscache.h. owner= and group= are User and Group unless
 * the options give others. */
#include "conf.h"
#include "mod_tls.h"

#include <sesscache.h>

#define NAME "mod_tls_sesscache/0.1"

module tls_sesscache_module;

static sesscache *store;    /* of this process and all that it forks; NULL: there is none */

static void log_message(void *userdata, int level, const char *message)
{
    (void)userdata;
    /* ProFTPD's levels are those of syslog(3), too. */
    pr_log_pri(level, NAME ": %s", message);
}

static int fail(int reason)
{
    errno = reason;
    return -1;
}

static int close_cache(tls_sess_cache_t *cache)
{
    (void)cache;
    /* This module may be unloaded; what is stored stays, that is what a restart finds again. */
    sesscache_set_log(store, NULL, NULL);
    sesscache_close(store);
    store = NULL;
    return 0;
}

static int open_cache(tls_sess_cache_t *cache, char *info, long timeout)
{
    close_cache(cache);
    cache->cache_timeout = timeout;

    pool *scratch = make_sub_pool(permanent_pool);
    const char *path = info, *given = "", *parenthesis = strchr(info, '(');
    if (parenthesis != NULL) {
        size_t length = strlen(parenthesis);
        if (parenthesis[length - 1] != ')') {
            pr_log_pri(PR_LOG_ERR, NAME ": the options have no closing parenthesis; write DIRECTORY(name=value name=value), all of "
                       "it in quotes when there is a space");
            destroy_pool(scratch);
            return fail(EINVAL);
        }
        path = pstrndup(scratch, info, (size_t)(parenthesis - info));
        given = pstrndup(scratch, parenthesis + 1, length - 2);
    }

    /* Root opens the directory, and the processes that make handshakes run as this user. */
    char owner[64] = "";
    const uid_t *uid = get_param_ptr(main_server->conf, "UserID", FALSE);
    const gid_t *gid = get_param_ptr(main_server->conf, "GroupID", FALSE);
    if (geteuid() == 0 && uid != NULL && gid != NULL)
        snprintf(owner, sizeof owner, " owner?=%lu group?=%lu", (unsigned long)*uid, (unsigned long)*gid);
    sesscache_status status = sesscache_open(path, pstrcat(scratch, given, owner, NULL), &store);
    destroy_pool(scratch);
    if (status != SESSCACHE_OK) {
        store = NULL;
        pr_log_pri(PR_LOG_ERR, NAME ": serving without the cache: %s", sesscache_errmsg());
        return 0;
    }
    sesscache_set_log(store, log_message, NULL);
    return 0;
}

static int result_of(sesscache_status status)
{
    switch (status) {
    case SESSCACHE_OK: return 0;
    case SESSCACHE_NOT_FOUND: return fail(ENOENT);
    case SESSCACHE_FULL: return fail(ENOSPC);
    case SESSCACHE_BUSY: return fail(EBUSY);
    default: return fail(EIO);
    }
}

static int add(tls_sess_cache_t *cache, const unsigned char *id, unsigned int id_len, time_t expires, SSL_SESSION *session)
{
    (void)cache;
    /* Both are the session's own: its id, and when it was made with its timeout added. */
    (void)id;
    (void)id_len;
    (void)expires;
    /* mod_tls gives clients of TLS 1.3 stateless tickets, and never looks for their sessions. */
    if (SSL_SESSION_get_protocol_version(session) >= TLS1_3_VERSION)
        return 0;
    return result_of(sesscache_put_session(store, session));
}

static SSL_SESSION *get(tls_sess_cache_t *cache, const unsigned char *id, unsigned int id_len)
{
    (void)cache;
    SSL_SESSION *session = NULL;
    return result_of(sesscache_get_session(store, id, id_len, &session)) == 0 ? session : NULL;
}

static int delete(tls_sess_cache_t *cache, const unsigned char *id, unsigned int id_len)
{
    (void)cache;
    return result_of(sesscache_remove(store, id, id_len));
}

static int clear(tls_sess_cache_t *cache)
{
    (void)cache;
    sesscache_stats stats = { 0 };
    sesscache_status status = sesscache_read_stats(store, &stats, sizeof stats);
    if (status == SESSCACHE_OK)
        status = sesscache_flush(store);
    return status == SESSCACHE_OK ? (int)stats.sessions : result_of(status);
}

/* For `ftpdctl tls sesscache remove`: the directory stays, since other processes have it open. */
static int remove_all(tls_sess_cache_t *cache)
{
    return clear(cache) < 0 ? -1 : 0;
}

/* Counters are of all processes since the store was made, through restarts. */
static int status(tls_sess_cache_t *cache, void (*say)(void *, const char *, ...), void *arg, int flags)
{
    (void)cache;
    (void)flags;
    sesscache_stats stats;
    sesscache_status read = sesscache_read_stats(store, &stats, sizeof stats);
    if (read != SESSCACHE_OK)
        return result_of(read);
    uint64_t misses = stats.misses_absent + stats.misses_expired + stats.misses_namespace + stats.misses_damaged + stats.misses_unavailable;
    say(arg, "%s", "sesscache session cache provided by " NAME);
    say(arg, "Sessions: %lu, %lu of %lu bytes in use", (unsigned long)stats.sessions, (unsigned long)stats.used_bytes,
        (unsigned long)stats.capacity);
    say(arg, "Lookups: %lu hits, %lu misses", (unsigned long)stats.hits, (unsigned long)misses);
    say(arg, "Stored: %lu, not stored: %lu", (unsigned long)stats.puts,
        (unsigned long)(stats.puts_busy + stats.puts_full + stats.puts_failed));
    return 0;
}

static tls_sess_cache_t provider = {
    .cache_name = "sesscache",
    /* The processes share the store: one that ends must not empty it, and none may go by what it remembers itself. */
    .cache_mode = SSL_SESS_CACHE_NO_INTERNAL | SSL_SESS_CACHE_NO_AUTO_CLEAR,
    .open = open_cache,
    .close = close_cache,
    .add = add,
    .get = get,
    .delete = delete,
    .clear = clear,
    .remove = remove_all,
    .status = status,
};

static int init(void)
{
    return tls_sess_cache_register("sesscache", &provider);
}

module tls_sesscache_module = {
    .api_version = 0x20,
    .name = "tls_sesscache",
    .init = init,
    .module_version = NAME,
};
