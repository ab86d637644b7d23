/* The part for mail: the directive. Mail is a module of its own in Debian and may be missing, so nothing of it is named
 * that would have to be linked. */

#include "ngx_sesscache.h"
#include <ngx_mail.h>
#include <ngx_mail_ssl_module.h>

static void *ngx_mail_sesscache_create(ngx_conf_t *cf);
static char *ngx_mail_sesscache_merge(ngx_conf_t *cf, void *parent, void *child);

static ngx_command_t ngx_mail_sesscache_commands[] = {
    { ngx_string("sesscache"),
      NGX_MAIL_MAIN_CONF | NGX_MAIL_SRV_CONF | NGX_CONF_TAKE12,
      ngx_sesscache_directive,
      NGX_MAIL_SRV_CONF_OFFSET,
      0,
      NULL },
    ngx_null_command
};

static ngx_mail_module_t ngx_mail_sesscache_module_ctx = {
    NULL,
    NULL,
    NULL,
    ngx_mail_sesscache_create,
    ngx_mail_sesscache_merge
};

ngx_module_t ngx_mail_sesscache_module = {
    NGX_MODULE_V1,
    &ngx_mail_sesscache_module_ctx,
    ngx_mail_sesscache_commands,
    NGX_MAIL_MODULE,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL,
    NGX_MODULE_V1_PADDING
};

static void *ngx_mail_sesscache_create(ngx_conf_t *cf)
{
    ngx_sesscache_srv_t *conf = ngx_palloc(cf->pool, sizeof *conf);
    if (conf != NULL)
        conf->cache = NGX_CONF_UNSET_PTR;
    return conf;
}

static char *ngx_mail_sesscache_merge(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_sesscache_srv_t *from = parent, *to = child;
    ngx_conf_merge_ptr_value(to->cache, from->cache, NULL);
    return NGX_CONF_OK;
}

/* Notes the SSL context of every server block. */
ngx_int_t ngx_mail_sesscache_collect(ngx_cycle_t *cycle)
{
    ngx_module_t *mail = ngx_sesscache_find_module(cycle, "ngx_mail_module");
    ngx_module_t *core = ngx_sesscache_find_module(cycle, "ngx_mail_core_module");
    ngx_module_t *tls = ngx_sesscache_find_module(cycle, "ngx_mail_ssl_module");
    if (mail == NULL || core == NULL || tls == NULL)
        return NGX_OK;
    ngx_mail_conf_ctx_t *block = (ngx_mail_conf_ctx_t *)cycle->conf_ctx[mail->index];
    if (block == NULL)
        return NGX_OK;
    ngx_mail_core_main_conf_t *main = block->main_conf[core->ctx_index];
    ngx_mail_core_srv_conf_t **server = main->servers.elts;
    for (ngx_uint_t i = 0; i < main->servers.nelts; i++) {
        ngx_mail_ssl_conf_t *ssl = server[i]->ctx->srv_conf[tls->ctx_index];
        ngx_sesscache_srv_t *ours = server[i]->ctx->srv_conf[ngx_mail_sesscache_module.ctx_index];
        ngx_sesscache_server_t found = { ssl->ssl.ctx, ssl->builtin_session_cache, ssl->session_ticket_keys != NULL,
                                         server[i]->file_name, server[i]->line };
        if (ngx_sesscache_add(cycle, ours->cache, &found) != NGX_OK)
            return NGX_ERROR;
    }
    return NGX_OK;
}
