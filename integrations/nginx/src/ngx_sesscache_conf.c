/* What http, mail and stream have in common: the directive, the walk over server blocks, and what a connection tells of
 * its session. */

#include "ngx_sesscache.h"

void *ngx_sesscache_create_srv(ngx_conf_t *cf)
{
    ngx_sesscache_srv_t *server = ngx_palloc(cf->pool, sizeof *server);
    if (server != NULL)
        server->cache = NGX_CONF_UNSET_PTR;
    return server;
}

char *ngx_sesscache_merge_srv(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_sesscache_srv_t *from = parent, *to = child;
    ngx_conf_merge_ptr_value(to->cache, from->cache, NULL);
    return NGX_CONF_OK;
}

/* Finds the cache with this path and these options, or notes it. */
static ngx_sesscache_t *ngx_sesscache_note(ngx_conf_t *cf, ngx_str_t *path, ngx_str_t *options)
{
    ngx_sesscache_conf_t *conf = (ngx_sesscache_conf_t *)ngx_get_conf(cf->cycle->conf_ctx, ngx_sesscache_module);
    ngx_sesscache_t **known = conf->caches.elts;
    for (ngx_uint_t i = 0; i < conf->caches.nelts; i++) {
        if (ngx_strcmp(known[i]->path.data, path->data) == 0
            && ngx_strcmp(known[i]->options.data, options->data) == 0)
            return known[i];
    }
    ngx_sesscache_t *cache = ngx_pcalloc(cf->pool, sizeof *cache);
    ngx_sesscache_t **place = ngx_array_push(&conf->caches);
    if (cache == NULL || place == NULL || ngx_array_init(&cache->contexts, cf->pool, 4, sizeof(SSL_CTX *)) != NGX_OK)
        return NULL;
    cache->path = *path;
    cache->options = *options;
    cache->file = cf->conf_file->file.name.data;
    cache->line = cf->conf_file->line;
    *place = cache;
    return cache;
}

/* sesscache off; sesscache DIRECTORY ["OPTIONS"]; */
char *ngx_sesscache_directive(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_sesscache_srv_t *server = conf;
    ngx_str_t *value = cf->args->elts;
    ngx_str_t none = ngx_string("");
    if (server->cache != NGX_CONF_UNSET_PTR)
        return "is duplicate";
    if (ngx_strcmp(value[1].data, "off") == 0) {
        server->cache = NULL;
        return cf->args->nelts == 2 ? NGX_CONF_OK : "off takes no options";
    }
    if (value[1].len == 0)
        return "needs a directory, as /run/nginx-tls";
    if (ngx_conf_full_name(cf->cycle, &value[1], 0) != NGX_OK)
        return NGX_CONF_ERROR;
    ngx_str_t *options = cf->args->nelts > 2 ? &value[2] : &none;
    if (sesscache_check((char *)options->data) != SESSCACHE_OK) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "sesscache: %s", sesscache_errmsg());
        return NGX_CONF_ERROR;
    }
    server->cache = ngx_sesscache_note(cf, &value[1], options);
    return server->cache != NULL ? NGX_CONF_OK : NGX_CONF_ERROR;
}

/* NULL for a module that is not loaded. */
ngx_module_t *ngx_sesscache_find_module(ngx_cycle_t *cycle, const char *name)
{
    for (ngx_uint_t i = 0; cycle->modules[i] != NULL; i++) {
        if (ngx_strcmp(cycle->modules[i]->name, name) == 0)
            return cycle->modules[i];
    }
    return NULL;
}

/* Notes the context of a server block. A cache of nginx's own beside it is refused. */
static ngx_int_t ngx_sesscache_add(ngx_cycle_t *cycle, ngx_sesscache_t *cache, const ngx_sesscache_server_t *server)
{
    if (cache == NULL || server->ctx == NULL)
        return NGX_OK;
    if (server->builtin != NGX_SSL_NONE_SCACHE) {
        const char *what = server->builtin == NGX_SSL_NO_SCACHE ? "off"
                         : server->builtin == NGX_SSL_NO_BUILTIN_SCACHE ? "shared" : "builtin";
        ngx_log_error(NGX_LOG_EMERG, cycle->log, 0,
                      "\"ssl_session_cache %s\" and \"sesscache\" of %s:%ui are both in force for the server in %s:%ui: "
                      "remove \"ssl_session_cache\", or write \"sesscache off\" in that server",
                      what, cache->file, cache->line, server->file, server->line);
        return NGX_ERROR;
    }
    if (server->ticket_keys)
        ngx_log_error(NGX_LOG_WARN, cycle->log, 0,
                      "\"ssl_session_ticket_key\" has no effect with \"sesscache\" for the server in %s:%ui: "
                      "tickets only name a session in the cache, none is encrypted",
                      server->file, server->line);
    SSL_CTX **place = ngx_array_push(&cache->contexts);
    if (place == NULL)
        return NGX_ERROR;
    *place = server->ctx;
    return NGX_OK;
}

/* Notes the SSL contexts of all server blocks of a part that is loaded and configured. */
ngx_int_t ngx_sesscache_collect(ngx_cycle_t *cycle, const ngx_sesscache_part_t *part)
{
    ngx_module_t *block = ngx_sesscache_find_module(cycle, part->block);
    ngx_module_t *core = ngx_sesscache_find_module(cycle, part->core);
    ngx_module_t *tls = ngx_sesscache_find_module(cycle, part->tls);
    if (block == NULL || core == NULL || tls == NULL || cycle->conf_ctx[block->index] == NULL)
        return NGX_OK;
    void **main_conf = *(void ***)((u_char *)cycle->conf_ctx[block->index] + part->main_conf);
    ngx_array_t *servers = (ngx_array_t *)((u_char *)main_conf[core->ctx_index] + part->servers);
    void **server = servers->elts;
    for (ngx_uint_t i = 0; i < servers->nelts; i++) {
        ngx_sesscache_server_t found = part->look(server[i], tls->ctx_index);
        ngx_sesscache_srv_t *ours = found.conf[part->ours->ctx_index];
        if (ngx_sesscache_add(cycle, ours->cache, &found) != NGX_OK)
            return NGX_ERROR;
    }
    return NGX_OK;
}

/* Whether a client's certificate was refused after the handshake, which is where nginx refuses them: the rules are
 * those of ngx_http_process_request() and ngx_stream_ssl_handler(). Such a session must not come back. */
ngx_uint_t ngx_sesscache_refused(ngx_connection_t *c, ngx_uint_t verify)
{
    if (c->ssl == NULL || !c->ssl->handshaked || verify == 0)
        return 0;
    long result = SSL_get_verify_result(c->ssl->connection);
    if (result != X509_V_OK && (verify != 3 || !ngx_ssl_verify_error_optional(result)))
        return 1;
    if (verify != 1)
        return 0;
    X509 *certificate = SSL_get_peer_certificate(c->ssl->connection);
    X509_free(certificate);
    return certificate == NULL;
}

/* $sesscache_resumed_from_store: 1 or 0; empty without TLS. */
void ngx_sesscache_variable(ngx_connection_t *c, ngx_sesscache_srv_t *server, ngx_variable_value_t *v)
{
    if (c->ssl == NULL) {
        v->not_found = 1;
        return;
    }
    ngx_uint_t ours = server->cache != NULL && server->cache->handle != NULL;
    v->data = (u_char *)(ours && SSL_session_reused(c->ssl->connection) ? "1" : "0");
    v->len = 1;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;
}
