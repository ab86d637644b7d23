/* What the parts of the sesscache module share. ngx_sesscache_module.c is the manager: it knows every cache that the
 * configuration names, and the SSL contexts that are to be attached to each. The parts for http, mail and stream find
 * the contexts. */
#ifndef NGX_SESSCACHE_H
#define NGX_SESSCACHE_H

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <sesscache.h>

/* A directory with options, as the configuration names it. The same pair written twice is one cache. */
typedef struct {
    ngx_str_t     path;
    ngx_str_t     options;
    u_char       *file;         /* where it is named first */
    ngx_uint_t    line;
    ngx_array_t   contexts;     /* SSL_CTX * */
    sesscache    *handle;       /* of this process; NULL while it is not open */
    unsigned      failed:1;     /* the master has said that it cannot be opened */
} ngx_sesscache_t;

typedef struct {
    ngx_array_t   caches;       /* ngx_sesscache_t * */
} ngx_sesscache_conf_t;

/* What the directive sets in a server block; NULL for off. First member of the parts' own structures. */
typedef struct {
    ngx_sesscache_t  *cache;
} ngx_sesscache_srv_t;

/* What ngx_*_ssl_module has settled for a server block. */
typedef struct {
    SSL_CTX      *ctx;
    ssize_t       builtin;              /* of ssl_session_cache, NGX_SSL_*_SCACHE or a size */
    ngx_uint_t    ticket_keys;          /* ssl_session_ticket_key is given */
    u_char       *file;                 /* where the server block begins */
    ngx_uint_t    line;
} ngx_sesscache_server_t;

extern ngx_module_t  ngx_sesscache_module;

char *ngx_sesscache_directive(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
ngx_int_t ngx_sesscache_add(ngx_cycle_t *cycle, ngx_sesscache_t *cache, ngx_sesscache_server_t *server);
ngx_module_t *ngx_sesscache_find_module(ngx_cycle_t *cycle, const char *name);
ngx_uint_t ngx_sesscache_refused(ngx_connection_t *c, ngx_uint_t verify);
ngx_uint_t ngx_sesscache_resumed(ngx_connection_t *c, ngx_sesscache_t *cache);

ngx_int_t ngx_http_sesscache_collect(ngx_cycle_t *cycle);
ngx_int_t ngx_mail_sesscache_collect(ngx_cycle_t *cycle);
ngx_int_t ngx_stream_sesscache_collect(ngx_cycle_t *cycle);

char *ngx_http_sesscache_status(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);

#endif
