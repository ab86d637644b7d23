/* The part for mail: the directive. Mail is a module of its own in Debian and may be missing, so nothing of it is named
 * that would have to be linked. */

#include "ngx_sesscache.h"
#include <ngx_mail.h>
#include <ngx_mail_ssl_module.h>

static ngx_command_t ngx_mail_sesscache_commands[] = {
    { ngx_string("sesscache"), NGX_MAIL_MAIN_CONF | NGX_MAIL_SRV_CONF | NGX_CONF_TAKE12,
      ngx_sesscache_directive, NGX_MAIL_SRV_CONF_OFFSET, 0, NULL },
    ngx_null_command
};

static ngx_mail_module_t ngx_mail_sesscache_module_ctx = {
    .create_srv_conf = ngx_sesscache_create_srv,
    .merge_srv_conf = ngx_sesscache_merge_srv
};

ngx_module_t ngx_mail_sesscache_module = {
    NGX_MODULE_V1,
    .ctx = &ngx_mail_sesscache_module_ctx,
    .commands = ngx_mail_sesscache_commands,
    .type = NGX_MAIL_MODULE
};

static ngx_sesscache_server_t ngx_mail_sesscache_look(void *server, ngx_uint_t tls)
{
    ngx_mail_core_srv_conf_t *block = server;
    ngx_mail_ssl_conf_t *ssl = block->ctx->srv_conf[tls];
    return (ngx_sesscache_server_t){ block->ctx->srv_conf, ssl->ssl.ctx, ssl->builtin_session_cache,
                                     ssl->session_ticket_keys != NULL, block->file_name, block->line };
}

const ngx_sesscache_part_t ngx_mail_sesscache_part = {
    "ngx_mail_module", "ngx_mail_core_module", "ngx_mail_ssl_module", &ngx_mail_sesscache_module,
    NGX_MAIL_MAIN_CONF_OFFSET, offsetof(ngx_mail_core_main_conf_t, servers), ngx_mail_sesscache_look
};
