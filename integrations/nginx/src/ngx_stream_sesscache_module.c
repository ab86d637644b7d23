/* The part for stream: the directive and the variable. Stream is a module of its own in Debian and may be missing, so
 * nothing of it is named that would have to be linked. */

#include "ngx_sesscache.h"
#include <dlfcn.h>
#include <ngx_stream.h>
#include <ngx_stream_ssl_module.h>

/* Set by `config`. */
#if (NGX_SESSCACHE_STREAM_SSL_SRV_CONF)
typedef ngx_stream_ssl_srv_conf_t ngx_stream_sesscache_tls_conf_t;
#else
typedef ngx_stream_ssl_conf_t ngx_stream_sesscache_tls_conf_t;
#endif

static ngx_int_t ngx_stream_sesscache_init(ngx_conf_t *cf);

static ngx_command_t ngx_stream_sesscache_commands[] = {
    { ngx_string("sesscache"), NGX_STREAM_MAIN_CONF | NGX_STREAM_SRV_CONF | NGX_CONF_TAKE12,
      ngx_sesscache_directive, NGX_STREAM_SRV_CONF_OFFSET, 0, NULL },
    ngx_null_command
};

static ngx_stream_module_t ngx_stream_sesscache_module_ctx = {
    .postconfiguration = ngx_stream_sesscache_init,
    .create_srv_conf = ngx_sesscache_create_srv,
    .merge_srv_conf = ngx_sesscache_merge_srv
};

ngx_module_t ngx_stream_sesscache_module = {
    NGX_MODULE_V1,
    .ctx = &ngx_stream_sesscache_module_ctx,
    .commands = ngx_stream_sesscache_commands,
    .type = NGX_STREAM_MODULE
};

/* ngx_stream_ssl_module's place in the configuration, known once a stream block is read. */
static ngx_uint_t ngx_stream_sesscache_tls;

static ngx_sesscache_server_t ngx_stream_sesscache_look(void *server, ngx_uint_t tls)
{
    ngx_stream_core_srv_conf_t *block = server;
    ngx_stream_sesscache_tls_conf_t *ssl = block->ctx->srv_conf[tls];
    return (ngx_sesscache_server_t){ block->ctx->srv_conf, ssl->ssl.ctx, ssl->builtin_session_cache,
                                     ssl->session_ticket_keys != NULL, block->file_name, block->line };
}

const ngx_sesscache_part_t ngx_stream_sesscache_part = {
    "ngx_stream_module", "ngx_stream_core_module", "ngx_stream_ssl_module", &ngx_stream_sesscache_module,
    NGX_STREAM_MAIN_CONF_OFFSET, offsetof(ngx_stream_core_main_conf_t, servers), ngx_stream_sesscache_look
};

static ngx_int_t ngx_stream_sesscache_variable(ngx_stream_session_t *s, ngx_stream_variable_value_t *v, uintptr_t data)
{
    ngx_sesscache_variable(s->connection, ngx_stream_get_module_srv_conf(s, ngx_stream_sesscache_module), v);
    return NGX_OK;
}

/* Not before the block is read, as modules do: when this module is loaded before that of stream, there is no table of
 * variables yet. nginx looks for the names of variables when all modules are done. */
static ngx_int_t ngx_stream_sesscache_add_variable(ngx_conf_t *cf)
{
    ngx_str_t name = ngx_string("sesscache_resumed_from_store");
    ngx_stream_variable_t *(*add)(ngx_conf_t *, ngx_str_t *, ngx_uint_t);
    /* There is a stream block, so the module that defines the function is loaded, before this one or after it. */
    void *found = dlsym(RTLD_DEFAULT, "ngx_stream_add_variable");
    if (found == NULL)
        return NGX_ERROR;
    ngx_memcpy(&add, &found, sizeof add);
    ngx_stream_variable_t *variable = add(cf, &name, 0);
    if (variable == NULL)
        return NGX_ERROR;
    variable->get_handler = ngx_stream_sesscache_variable;
    return NGX_OK;
}

/* Runs when a connection is over: a session whose client certificate was refused must not come back. */
static ngx_int_t ngx_stream_sesscache_log(ngx_stream_session_t *s)
{
    ngx_stream_sesscache_tls_conf_t *ssl = s->srv_conf[ngx_stream_sesscache_tls];
    ngx_connection_t *c = s->connection;
    if (c->ssl != NULL && ssl->verify && ngx_sesscache_refused(c, ssl->verify))
        sesscache_forget(c->ssl->connection);
    return NGX_OK;
}

static ngx_int_t ngx_stream_sesscache_init(ngx_conf_t *cf)
{
    ngx_module_t *core = ngx_sesscache_find_module(cf->cycle, "ngx_stream_core_module");
    ngx_module_t *tls = ngx_sesscache_find_module(cf->cycle, "ngx_stream_ssl_module");
    if (core == NULL || tls == NULL)
        return NGX_OK;
    ngx_stream_sesscache_tls = tls->ctx_index;
    ngx_stream_core_main_conf_t *main = ((ngx_stream_conf_ctx_t *)cf->ctx)->main_conf[core->ctx_index];
    ngx_stream_handler_pt *handler = ngx_array_push(&main->phases[NGX_STREAM_LOG_PHASE].handlers);
    if (handler == NULL)
        return NGX_ERROR;
    *handler = ngx_stream_sesscache_log;
    return ngx_stream_sesscache_add_variable(cf);
}
