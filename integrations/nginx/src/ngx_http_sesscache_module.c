/* The part for http: the directives sesscache and sesscache_status, and the variable $sesscache_resumed_from_store. */

#include "ngx_sesscache.h"
#include <ngx_http.h>

static ngx_int_t ngx_http_sesscache_add_variables(ngx_conf_t *cf);
static ngx_int_t ngx_http_sesscache_init(ngx_conf_t *cf);

static ngx_command_t ngx_http_sesscache_commands[] = {
    { ngx_string("sesscache"), NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_CONF_TAKE12,
      ngx_sesscache_directive, NGX_HTTP_SRV_CONF_OFFSET, 0, NULL },
    { ngx_string("sesscache_status"), NGX_HTTP_LOC_CONF | NGX_CONF_NOARGS,
      ngx_http_sesscache_status, 0, 0, NULL },
    ngx_null_command
};

static ngx_http_module_t ngx_http_sesscache_module_ctx = {
    .preconfiguration = ngx_http_sesscache_add_variables,
    .postconfiguration = ngx_http_sesscache_init,
    .create_srv_conf = ngx_sesscache_create_srv,
    .merge_srv_conf = ngx_sesscache_merge_srv
};

ngx_module_t ngx_http_sesscache_module = {
    NGX_MODULE_V1,
    .ctx = &ngx_http_sesscache_module_ctx,
    .commands = ngx_http_sesscache_commands,
    .type = NGX_HTTP_MODULE
};

static ngx_sesscache_server_t ngx_http_sesscache_look(void *server, ngx_uint_t tls)
{
    ngx_http_core_srv_conf_t *block = server;
    ngx_http_ssl_srv_conf_t *ssl = block->ctx->srv_conf[tls];
    return (ngx_sesscache_server_t){ block->ctx->srv_conf, ssl->ssl.ctx, ssl->builtin_session_cache,
                                     ssl->session_ticket_keys != NULL, block->file_name, block->line };
}

const ngx_sesscache_part_t ngx_http_sesscache_part = {
    "ngx_http_module", "ngx_http_core_module", "ngx_http_ssl_module", &ngx_http_sesscache_module,
    NGX_HTTP_MAIN_CONF_OFFSET, offsetof(ngx_http_core_main_conf_t, servers), ngx_http_sesscache_look
};

static ngx_sesscache_t *ngx_http_sesscache_of(ngx_http_core_srv_conf_t *server)
{
    ngx_sesscache_srv_t *conf = server->ctx->srv_conf[ngx_http_sesscache_module.ctx_index];
    return conf->cache;
}

/* All servers of a listening address have the default server's session cache, because OpenSSL takes the callbacks from
 * the context that a connection begins with; the options change with the server name. So they have to agree. */
static ngx_int_t ngx_http_sesscache_check_address(ngx_cycle_t *cycle, ngx_http_conf_addr_t *address)
{
    ngx_http_core_srv_conf_t **server = address->servers.elts;
    ngx_sesscache_t *cache = ngx_http_sesscache_of(address->default_server);
    for (ngx_uint_t i = 0; i < address->servers.nelts; i++) {
        ngx_http_ssl_srv_conf_t *ssl = server[i]->ctx->srv_conf[ngx_http_ssl_module.ctx_index];
        if (ssl->ssl.ctx == NULL || ngx_http_sesscache_of(server[i]) == cache)
            continue;
        ngx_log_error(NGX_LOG_EMERG, cycle->log, 0,
                      "the server in %s:%ui and the default server of %V in %s:%ui must have the same \"sesscache\": "
                      "connections begin with the default server; write it in \"http\"",
                      server[i]->file_name, server[i]->line, &address->opt.addr_text,
                      address->default_server->file_name, address->default_server->line);
        return NGX_ERROR;
    }
    return NGX_OK;
}

ngx_int_t ngx_http_sesscache_check(ngx_cycle_t *cycle)
{
    ngx_http_core_main_conf_t *main = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_core_module);
    if (main == NULL || main->ports == NULL)
        return NGX_OK;
    ngx_http_conf_port_t *port = main->ports->elts;
    for (ngx_uint_t i = 0; i < main->ports->nelts; i++) {
        ngx_http_conf_addr_t *address = port[i].addrs.elts;
        for (ngx_uint_t j = 0; j < port[i].addrs.nelts; j++) {
            if (address[j].opt.ssl && ngx_http_sesscache_check_address(cycle, &address[j]) != NGX_OK)
                return NGX_ERROR;
        }
    }
    return NGX_OK;
}

static ngx_int_t ngx_http_sesscache_variable(ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_sesscache_variable(r->connection, ngx_http_get_module_srv_conf(r, ngx_http_sesscache_module), v);
    return NGX_OK;
}

static ngx_int_t ngx_http_sesscache_add_variables(ngx_conf_t *cf)
{
    ngx_str_t name = ngx_string("sesscache_resumed_from_store");
    ngx_http_variable_t *variable = ngx_http_add_variable(cf, &name, 0);
    if (variable == NULL)
        return NGX_ERROR;
    variable->get_handler = ngx_http_sesscache_variable;
    return NGX_OK;
}

/* Runs when a request is over. nginx answers a bad client certificate with an error page and takes the session out of
 * its own cache, so that the client can come back with another certificate; this does it for sesscache. */
static ngx_int_t ngx_http_sesscache_log(ngx_http_request_t *r)
{
    ngx_http_ssl_srv_conf_t *ssl = ngx_http_get_module_srv_conf(r, ngx_http_ssl_module);
    ngx_connection_t *c = r->connection;
    const char *reason;
    if (c->ssl != NULL && ssl->verify
        && (ngx_sesscache_refused(c, ssl->verify) || ngx_ssl_ocsp_get_status(c, &reason) != NGX_OK))
        sesscache_forget(c->ssl->connection);
    return NGX_OK;
}

static ngx_int_t ngx_http_sesscache_init(ngx_conf_t *cf)
{
    ngx_http_core_main_conf_t *main = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);
    ngx_http_handler_pt *handler = ngx_array_push(&main->phases[NGX_HTTP_LOG_PHASE].handlers);
    if (handler == NULL)
        return NGX_ERROR;
    *handler = ngx_http_sesscache_log;
    return NGX_OK;
}
