/* The manager of the caches: which there are, when they are opened, and what nginx's log hears of it.
 *
 * - While the configuration is read, and by `nginx -t`, no directory is made and no store is touched.
 * - The master opens each cache once before it starts the workers, and closes it again: it makes the directory, as
 *   root, and gives it to the user of the workers. So one that cannot be had is in the log before anybody connects.
 * - Each worker opens the caches for itself and attaches its SSL contexts. After a reload the workers of the old
 *   configuration go on with what they have, and a worker that is started later begins like the first.
 * - Whatever fails there is logged, and nginx serves without the cache. */

#include "ngx_sesscache.h"

static void *ngx_sesscache_create_conf(ngx_cycle_t *cycle);
static char *ngx_sesscache_init_conf(ngx_cycle_t *cycle, void *conf);
static ngx_int_t ngx_sesscache_init_module(ngx_cycle_t *cycle);
static ngx_int_t ngx_sesscache_init_process(ngx_cycle_t *cycle);

static ngx_core_module_t ngx_sesscache_module_ctx = {
    ngx_string("sesscache"),
    ngx_sesscache_create_conf,
    ngx_sesscache_init_conf
};

static ngx_command_t ngx_sesscache_commands[] = {
    ngx_null_command
};

ngx_module_t ngx_sesscache_module = {
    NGX_MODULE_V1,
    &ngx_sesscache_module_ctx,
    ngx_sesscache_commands,
    NGX_CORE_MODULE,
    NULL,                           /* init master */
    ngx_sesscache_init_module,
    ngx_sesscache_init_process,
    NULL,                           /* init thread */
    NULL,                           /* exit thread */
    NULL,                           /* exit process */
    NULL,                           /* exit master */
    NGX_MODULE_V1_PADDING
};

/* Configurations that live: with the last of them this file's code may be unloaded. */
static ngx_uint_t ngx_sesscache_configurations;

static void ngx_sesscache_cleanup(void *data)
{
    ngx_sesscache_conf_t *conf = data;
    ngx_sesscache_t **cache = conf->caches.elts;
    ngx_sesscache_configurations--;
    for (ngx_uint_t i = 0; i < conf->caches.nelts; i++) {
        /* The function is the directory's, and a newer configuration may have set it again. */
        if (ngx_sesscache_configurations == 0)
            sesscache_set_log(cache[i]->handle, NULL, NULL);
        sesscache_close(cache[i]->handle);
        cache[i]->handle = NULL;
    }
}

static void *ngx_sesscache_create_conf(ngx_cycle_t *cycle)
{
    ngx_sesscache_conf_t *conf = ngx_pcalloc(cycle->pool, sizeof *conf);
    ngx_pool_cleanup_t *cleanup = ngx_pool_cleanup_add(cycle->pool, 0);
    if (conf == NULL || cleanup == NULL
        || ngx_array_init(&conf->caches, cycle->pool, 2, sizeof(ngx_sesscache_t *)) != NGX_OK)
        return NULL;
    cleanup->handler = ngx_sesscache_cleanup;
    cleanup->data = conf;
    ngx_sesscache_configurations++;
    return conf;
}

/* Every block has been read, whatever the order of modules: all SSL contexts are there. */
static char *ngx_sesscache_init_conf(ngx_cycle_t *cycle, void *conf)
{
    if (ngx_sesscache_collect(cycle, &ngx_http_sesscache_part) != NGX_OK
        || ngx_sesscache_collect(cycle, &ngx_mail_sesscache_part) != NGX_OK
        || ngx_sesscache_collect(cycle, &ngx_stream_sesscache_part) != NGX_OK
        || ngx_http_sesscache_check(cycle) != NGX_OK)
        return NGX_CONF_ERROR;
    return NGX_CONF_OK;
}

/* The options with the user and group of the workers, unless they name others. */
static char *ngx_sesscache_options(ngx_cycle_t *cycle, ngx_sesscache_t *cache)
{
    ngx_core_conf_t *core = (ngx_core_conf_t *)ngx_get_conf(cycle->conf_ctx, ngx_core_module);
    const char *names[] = { "owner", "group" };
    ngx_uint_t ids[] = { core->user, core->group };
    u_char *options = ngx_pnalloc(cycle->pool, cache->options.len + 2 * sizeof " owner=" + 2 * NGX_INT_T_LEN);
    if (options == NULL)
        return NULL;
    u_char *end = ngx_cpymem(options, cache->options.data, cache->options.len + 1) - 1;
    /* Without a name the workers do not change their user: only root's do. */
    if (core->username == NULL)
        return (char *)options;
    for (ngx_uint_t i = 0; i < 2; i++) {
        u_char *more = ngx_sprintf(end, " %s=%ui%Z", names[i], ids[i]) - 1;
        /* An option given twice is refused: the administrator's own stays. */
        if (sesscache_check((char *)options) == SESSCACHE_OK)
            end = more;
        else
            *end = '\0';
    }
    return (char *)options;
}

static ngx_int_t ngx_sesscache_open(ngx_cycle_t *cycle, ngx_sesscache_t *cache)
{
    char *options = ngx_sesscache_options(cycle, cache);
    if (options == NULL)
        return NGX_ERROR;
    if (sesscache_open((char *)cache->path.data, options, &cache->handle) == SESSCACHE_OK)
        return NGX_OK;
    /* One line for all workers is enough: the master's. */
    ngx_uint_t level = cache->failed ? NGX_LOG_INFO : NGX_LOG_ERR;
    ngx_log_error(level, cycle->log, 0, "sesscache: %s; serving without it", sesscache_errmsg());
    cache->handle = NULL;
    cache->failed = 1;
    return NGX_ERROR;
}

/* May be called while nginx reads its configuration again: the log of the newest one is always there. */
static void ngx_sesscache_log(void *userdata, int level, const char *message)
{
    ngx_uint_t ours = level <= 3 ? NGX_LOG_ERR : level == 4 ? NGX_LOG_WARN : NGX_LOG_NOTICE;
    ngx_log_error(ours, ngx_cycle->log, 0, "sesscache: %s", message);
}

static void ngx_sesscache_attach(ngx_cycle_t *cycle)
{
    ngx_sesscache_conf_t *conf = (ngx_sesscache_conf_t *)ngx_get_conf(cycle->conf_ctx, ngx_sesscache_module);
    ngx_sesscache_t **cache = conf->caches.elts;
    for (ngx_uint_t i = 0; i < conf->caches.nelts; i++) {
        SSL_CTX **ctx = cache[i]->contexts.elts;
        if (cache[i]->handle != NULL || cache[i]->contexts.nelts == 0 || ngx_sesscache_open(cycle, cache[i]) != NGX_OK)
            continue;
        sesscache_set_log(cache[i]->handle, ngx_sesscache_log, NULL);
        for (ngx_uint_t j = 0; j < cache[i]->contexts.nelts; j++) {
            if (sesscache_attach(cache[i]->handle, ctx[j]) != SESSCACHE_OK)
                ngx_log_error(NGX_LOG_ERR, cycle->log, 0, "sesscache: %s; a server goes without it",
                              sesscache_errmsg());
        }
    }
}

/* In the master, or in the only process there is. */
static ngx_int_t ngx_sesscache_init_module(ngx_cycle_t *cycle)
{
    ngx_sesscache_conf_t *conf = (ngx_sesscache_conf_t *)ngx_get_conf(cycle->conf_ctx, ngx_sesscache_module);
    ngx_core_conf_t *core = (ngx_core_conf_t *)ngx_get_conf(cycle->conf_ctx, ngx_core_module);
    ngx_sesscache_t **cache = conf->caches.elts;
    if (ngx_test_config)
        return NGX_OK;
    if (!core->master) {
        /* A reload does not pass through init_process here. */
        ngx_sesscache_attach(cycle);
        return NGX_OK;
    }
    for (ngx_uint_t i = 0; i < conf->caches.nelts; i++) {
        if (cache[i]->contexts.nelts > 0 && ngx_sesscache_open(cycle, cache[i]) == NGX_OK) {
            sesscache_close(cache[i]->handle);
            cache[i]->handle = NULL;
        }
    }
    return NGX_OK;
}

static ngx_int_t ngx_sesscache_init_process(ngx_cycle_t *cycle)
{
    /* The manager and the loader of nginx's file cache have no connections. */
    if (ngx_process != NGX_PROCESS_HELPER)
        ngx_sesscache_attach(cycle);
    return NGX_OK;
}
