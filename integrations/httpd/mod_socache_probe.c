/* For tests and measurements only: a provider that hands everything on to another one, so that a request can fill the very
 * cache that mod_ssl uses, and walk through it.
 * Configure:  SSLSessionCache probe:shmcb:/path(1000000)
 *             <Location /probe> SetHandler socache-probe </Location>
 * Ask:        /probe?fill=10000   stores so many records of random ids through the provider, as mod_ssl would
 *             /probe?count        walks through all of them */
#include <httpd.h>
#include <http_config.h>
#include <http_protocol.h>
#include <ap_provider.h>
#include <ap_socache.h>
#include <apr_general.h>
#include <apr_strings.h>
#include <stdlib.h>
#include <string.h>
#include <util_mutex.h>

/* SIZE is that of a TLS 1.2 session without client certificate. LIFE is a minute less than mod_ssl's sessions have, so that
 * these records expire, and make room, first. */
enum { ID = 32, SIZE = 170, LIFE = 3600 - 60 };

static ap_socache_provider_t *inner;
static ap_socache_instance_t *instance;
static ap_socache_provider_t provider;

static const char *create(ap_socache_instance_t **out, const char *arg, apr_pool_t *tmp, apr_pool_t *pool)
{
    const char *colon = arg != NULL ? strchr(arg, ':') : NULL;
    const char *name = colon != NULL ? apr_pstrmemdup(tmp, arg, (apr_size_t)(colon - arg)) : "";
    inner = ap_lookup_provider(AP_SOCACHE_PROVIDER_GROUP, name, AP_SOCACHE_PROVIDER_VERSION);
    if (inner == NULL)
        return apr_psprintf(tmp, "there is no provider \"%s\"", name);
    /* mod_ssl holds its mutex for the same providers as ever. */
    provider = *inner;
    provider.name = "probe";
    provider.create = create;
    const char *error = inner->create(out, colon + 1, tmp, pool);
    instance = *out;
    return error;
}

static apr_status_t count_one(ap_socache_instance_t *cache, server_rec *s, void *userctx, const unsigned char *id,
                              unsigned int id_len, const unsigned char *data, unsigned int len, apr_pool_t *pool)
{
    (void)cache;
    (void)s;
    (void)pool;
    /* Iterators may rely on a NUL behind both. */
    if (id[id_len] != '\0' || data[len] != '\0')
        return APR_EGENERAL;
    ++*(unsigned *)userctx;
    return APR_SUCCESS;
}

static int handler(request_rec *r)
{
    if (r->handler == NULL || strcmp(r->handler, "socache-probe") != 0)
        return DECLINED;
    ap_set_content_type(r, "text/plain");
    unsigned done = 0;
    if (r->args != NULL && strncmp(r->args, "fill=", 5) == 0) {
        unsigned char id[ID], data[SIZE];
        apr_time_t now = apr_time_now();
        for (int n = atoi(r->args + 5); n > 0; n--) {
            if (apr_generate_random_bytes(id, ID) != APR_SUCCESS || apr_generate_random_bytes(data, SIZE) != APR_SUCCESS)
                return HTTP_INTERNAL_SERVER_ERROR;
            done += inner->store(instance, r->server, id, ID, now + apr_time_from_sec(LIFE), data, SIZE, r->pool) == APR_SUCCESS;
        }
    } else if (inner->iterate(instance, r->server, &done, count_one, r->pool) != APR_SUCCESS) {
        return HTTP_INTERNAL_SERVER_ERROR;
    }
    ap_rprintf(r, "%u\n", done);
    return OK;
}

static void register_all(apr_pool_t *pool)
{
    provider.name = "probe";
    provider.create = create;
    ap_register_provider(pool, AP_SOCACHE_PROVIDER_GROUP, "probe", AP_SOCACHE_PROVIDER_VERSION, &provider);
    ap_hook_handler(handler, NULL, NULL, APR_HOOK_MIDDLE);
}

module AP_MODULE_DECLARE_DATA socache_probe_module = {
    STANDARD20_MODULE_STUFF, NULL, NULL, NULL, NULL, NULL, register_all, AP_MODULE_FLAG_NONE,
};
