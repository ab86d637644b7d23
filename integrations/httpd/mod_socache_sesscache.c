/* A provider of httpd's small object cache that keeps its objects with sesscache: all processes of a server share them,
 * through reloads, restarts and crashes. mod_ssl keeps its TLS sessions in it.
 * Build:      make                  (apxs and the pkg-config module sesscache)
 * Configure:  SSLSessionCache "sesscache:/run/apache2-tls(capacity=64MiB)"
 *
 * The argument is DIRECTORY or DIRECTORY(OPTIONS), the options those of sesscache.h. Without a directory it is
 * sesscache-NAME in httpd's runtime directory, NAME being the consumer's. Two options have defaults of their own:
 * owner= and group= are httpd's User and Group when root starts it, and namespace= is the consumer's name.
 *
 * A cache that does not work never keeps httpd from serving: it is logged, and every lookup misses. */
#include <httpd.h>
#include <http_config.h>
#include <http_log.h>
#include <http_main.h>
#include <http_protocol.h>
#include <ap_provider.h>
#include <ap_socache.h>
#include <apr_strings.h>
#include <mod_status.h>
#include <unixd.h>

#include <sesscache.h>
#include <string.h>
#include <unistd.h>

#define NAME "mod_socache_sesscache: "

APLOG_USE_MODULE(socache_sesscache);

struct ap_socache_instance_t {
    apr_pool_t *pool;       /* outlives the instance */
    const char *path;       /* NULL: the default, known when the consumer's name is */
    const char *options;
    sesscache *cache;       /* NULL: there is none, every lookup misses */
};

/* May be called from any thread. `ap_server_conf` is the running configuration's, NULL while there is none. */
static void log_message(void *userdata, int level, const char *message)
{
    (void)userdata;
    /* httpd's levels are those of syslog(3), too. */
    ap_log_error(APLOG_MARK, level, 0, ap_server_conf, NAME "%s", message);
}

static apr_status_t close_cache(void *data)
{
    ap_socache_instance_t *instance = data;
    if (instance->cache != NULL) {
        /* This module is unloaded when httpd reloads; the old generation of children never gets here. */
        sesscache_set_log(instance->cache, NULL, NULL);
        sesscache_close(instance->cache);
        instance->cache = NULL;
    }
    return APR_SUCCESS;
}

/* Runs for `apachectl configtest` as well, so nothing is made here. */
static const char *create(ap_socache_instance_t **out, const char *arg, apr_pool_t *tmp, apr_pool_t *pool)
{
    ap_socache_instance_t *instance = apr_pcalloc(pool, sizeof *instance);
    instance->pool = pool;
    instance->options = "";
    *out = instance;
    if (arg == NULL || *arg == '\0')
        return NULL;

    const char *open = strchr(arg, '(');
    if (open != NULL) {
        size_t length = strlen(open);
        if (open[length - 1] != ')')
            return "the options of sesscache have no closing parenthesis; write DIRECTORY(name=value name=value), all of it "
                   "in quotes when there is a space";
        instance->options = apr_pstrmemdup(pool, open + 1, length - 2);
    }
    const char *path = open == NULL ? arg : apr_pstrmemdup(tmp, arg, (apr_size_t)(open - arg));
    if (*path != '\0') {
        instance->path = ap_server_root_relative(pool, path);
        if (instance->path == NULL)
            return apr_psprintf(tmp, "invalid directory %s", path);
    }

    return sesscache_check(instance->options) == SESSCACHE_OK ? NULL : apr_psprintf(tmp, "sesscache: %s", sesscache_errmsg());
}

/* The children run as somebody else than the parent, and it is they who use the store. */
static const char *complete_options(const ap_socache_instance_t *instance, const char *consumer, apr_pool_t *pool)
{
    const char *given = apr_pstrcat(pool, instance->options, " namespace?=", consumer, NULL);
    if (geteuid() != 0)
        return given;
    return apr_psprintf(pool, "%s owner?=%lu group?=%lu", given, (unsigned long)ap_unixd_config.user_id,
                        (unsigned long)ap_unixd_config.group_id);
}

static apr_status_t init(ap_socache_instance_t *instance, const char *consumer, const struct ap_socache_hints *hints,
                         server_rec *s, apr_pool_t *pool)
{
    (void)hints;
    if (instance->path == NULL)
        instance->path = ap_runtime_dir_relative(instance->pool, apr_pstrcat(pool, "sesscache-", consumer, NULL));
    if (sesscache_open(instance->path, complete_options(instance, consumer, pool), &instance->cache) != SESSCACHE_OK) {
        instance->cache = NULL;
        ap_log_error(APLOG_MARK, APLOG_ERR, 0, s, NAME "serving without the cache: %s", sesscache_errmsg());
        return APR_SUCCESS;
    }
    sesscache_set_log(instance->cache, log_message, NULL);
    apr_pool_cleanup_register(instance->pool, instance, close_cache, apr_pool_cleanup_null);
    ap_log_error(APLOG_MARK, APLOG_INFO, 0, s, NAME "%s uses %s", consumer, instance->path);
    return APR_SUCCESS;
}

/* What is stored stays: that is what a restart finds again. */
static void destroy(ap_socache_instance_t *instance, server_rec *s)
{
    (void)s;
    apr_pool_cleanup_run(instance->pool, instance, close_cache);
}

static apr_status_t result_of(sesscache_status status)
{
    switch (status) {
    case SESSCACHE_OK: return APR_SUCCESS;
    case SESSCACHE_NOT_FOUND: return APR_NOTFOUND;
    case SESSCACHE_INVALID: return APR_EINVAL;
    case SESSCACHE_FULL: return APR_ENOSPC;
    case SESSCACHE_BUSY: return APR_EBUSY;
    default: return APR_EGENERAL;
    }
}

static apr_status_t store(ap_socache_instance_t *instance, server_rec *s, const unsigned char *id, unsigned int id_len,
                          apr_time_t expiry, unsigned char *data, unsigned int len, apr_pool_t *pool)
{
    (void)pool;
    if (instance->cache == NULL)
        return APR_EGENERAL;
    sesscache_status status = sesscache_put(instance->cache, id, id_len, data, len, apr_time_sec(expiry));
    if (status != SESSCACHE_OK)
        ap_log_error(APLOG_MARK, APLOG_DEBUG, 0, s, NAME "not stored: %s", sesscache_errmsg());
    return result_of(status);
}

static apr_status_t retrieve(ap_socache_instance_t *instance, server_rec *s, const unsigned char *id, unsigned int id_len,
                             unsigned char *data, unsigned int *len, apr_pool_t *pool)
{
    (void)s;
    (void)pool;
    if (instance->cache == NULL)
        return APR_NOTFOUND;
    size_t size = *len;
    sesscache_status status = sesscache_get(instance->cache, id, id_len, data, &size);
    if (status == SESSCACHE_INVALID && size > *len)
        return APR_ENOSPC;
    if (status == SESSCACHE_OK)
        *len = (unsigned int)size;
    return result_of(status);
}

static apr_status_t forget(ap_socache_instance_t *instance, server_rec *s, const unsigned char *id, unsigned int id_len,
                           apr_pool_t *pool)
{
    (void)s;
    (void)pool;
    return instance->cache == NULL ? APR_NOTFOUND : result_of(sesscache_remove(instance->cache, id, id_len));
}

/* The names that mod_socache_shmcb has are used for what is the same. Counters are of all processes since the store was
 * made, through restarts. Other consumers of the same directory are counted, too. */
static void status(ap_socache_instance_t *instance, request_rec *r, int flags)
{
    int brief = flags & AP_STATUS_SHORT;
    sesscache_stats stats;
    if (instance->cache == NULL || sesscache_read_stats(instance->cache, &stats, sizeof stats) != SESSCACHE_OK) {
        ap_rputs(brief ? "CacheType: SESSCACHE\nCacheState: unavailable\n"
                       : "cache type: <b>SESSCACHE</b>, <b>unavailable</b>: the error log says why<br>\n", r);
        return;
    }
    uint64_t misses = stats.misses_absent + stats.misses_foreign + stats.misses_expired + stats.misses_protocol
                      + stats.misses_namespace + stats.misses_server_name + stats.misses_client_auth
                      + stats.misses_damaged + stats.misses_unavailable;
    uint64_t usage = stats.capacity > 0 ? 100 * stats.used_bytes / stats.capacity : 0;
    const struct {
        const char *name, *text;
        uint64_t value;
    } rows[] = {
        { "CacheSharedMemory", "capacity in bytes", stats.capacity },
        { "CacheUsedMemory", "bytes in use", stats.used_bytes },
        { "CacheCurrentEntries", "current entries", stats.sessions },
        { "CacheGeneration", "generation of the store", stats.generation },
        { "CacheStoreCount", "total entries stored", stats.puts },
        { "CacheExpireCount", "total entries expired", stats.expired },
        { "CacheDiscardCount", "total entries that made room before their time", stats.evicted },
        { "CacheRetrieveHitCount", "total retrieves, hit", stats.hits },
        { "CacheRetrieveMissCount", "total retrieves, miss", misses },
        { "CacheRetrieveDamagedCount", "of these, entries that did not open", stats.misses_damaged },
        { "CacheRetrieveUnavailableCount", "of these, while the store could not be asked", stats.misses_unavailable },
        { "CacheRemoveHitCount", "total removes", stats.removes },
        { "CacheStoreBusyCount", "not stored, another process was writing too long", stats.puts_busy },
        { "CacheStoreFullCount", "not stored, no room", stats.puts_full },
        { "CacheStoreFailCount", "not stored for another reason", stats.puts_failed },
    };
    if (brief)
        ap_rprintf(r, "CacheType: SESSCACHE\nCacheState: working\nCacheUsage: %" APR_UINT64_T_FMT "%%\n",
                   (apr_uint64_t)usage);
    else
        ap_rprintf(r, "cache type: <b>SESSCACHE</b>, directory: <b>%s</b>, cache usage: <b>%" APR_UINT64_T_FMT "%%</b><br>\n",
                   ap_escape_html(r->pool, instance->path), (apr_uint64_t)usage);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        ap_rprintf(r, brief ? "%s: %" APR_UINT64_T_FMT "\n" : "%s: <b>%" APR_UINT64_T_FMT "</b><br>\n",
                   brief ? rows[i].name : rows[i].text, (apr_uint64_t)rows[i].value);
}

struct iteration {
    ap_socache_instance_t *instance;
    server_rec *s;
    void *userctx;
    ap_socache_iterator_t *iterator;
    apr_pool_t *pool;
    unsigned char *data;    /* a copy with a NUL behind it, which iterators may rely on */
    size_t room;
    apr_status_t result;
};

static int visit(void *userdata, const unsigned char *id, size_t id_len, const void *data, size_t len, int64_t expires)
{
    (void)expires;
    struct iteration *it = userdata;
    unsigned char name[256] = { 0 };    /* ids have at most 255 bytes */
    memcpy(name, id, id_len);
    if (it->room < len + 1) {
        it->room = 2 * len + 1;
        it->data = apr_palloc(it->pool, it->room);
    }
    memcpy(it->data, data, len);
    it->data[len] = '\0';
    it->result = it->iterator(it->instance, it->s, it->userctx, name, (unsigned int)id_len, it->data, (unsigned int)len,
                              it->pool);
    return it->result != APR_SUCCESS;
}

static apr_status_t iterate(ap_socache_instance_t *instance, server_rec *s, void *userctx, ap_socache_iterator_t *iterator,
                            apr_pool_t *pool)
{
    struct iteration it = { instance, s, userctx, iterator, pool, NULL, 0, APR_SUCCESS };
    if (instance->cache == NULL)
        return APR_NOTFOUND;
    sesscache_status status = sesscache_each(instance->cache, visit, &it);
    return status != SESSCACHE_OK ? result_of(status) : it.result;
}

/* No AP_SOCACHE_FLAG_NOTMPSAFE: threads and processes may call at the same time, and httpd takes no mutex. */
static const ap_socache_provider_t provider = {
    "sesscache", 0, create, init, destroy, store, retrieve, forget, status, iterate,
};

static void register_provider(apr_pool_t *pool)
{
    ap_register_provider(pool, AP_SOCACHE_PROVIDER_GROUP, "sesscache", AP_SOCACHE_PROVIDER_VERSION, &provider);
}

module AP_MODULE_DECLARE_DATA socache_sesscache_module = {
    STANDARD20_MODULE_STUFF, NULL, NULL, NULL, NULL, NULL, register_provider, AP_MODULE_FLAG_NONE,
};
