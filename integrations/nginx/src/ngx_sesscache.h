/* What the parts of the sesscache module share. ngx_sesscache_module.c is the manager: it opens every cache that the
 * configuration names, and attaches the SSL contexts to it. ngx_sesscache_conf.c reads the directive and finds the
 * contexts. The parts for http, mail and stream tell it where, and have what is theirs alone. */
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

/* What the directive sets in a server block; NULL for off. The configuration of all three parts. */
typedef struct {
    ngx_sesscache_t  *cache;
} ngx_sesscache_srv_t;

/* What nginx has settled for a server block. */
typedef struct {
    void        **conf;                 /* of all modules, for this block */
    SSL_CTX      *ctx;
    ssize_t       builtin;              /* of ssl_session_cache, NGX_SSL_*_SCACHE or a size */
    ngx_uint_t    ticket_keys;          /* ssl_session_ticket_key is given */
    u_char       *file;                 /* where the server block begins */
    ngx_uint_t    line;
} ngx_sesscache_server_t;

/* Where http, mail or stream keeps its server blocks. Modules go by name: naming one that may not be loaded, as those of
 * mail and stream, would be an undefined symbol. */
typedef struct {
    const char     *block, *core, *tls; /* its modules */
    ngx_module_t   *ours;               /* the part of sesscache */
    size_t          main_conf;          /* NGX_*_MAIN_CONF_OFFSET */
    size_t          servers;            /* offset of the array of server blocks in the core's main configuration */
    ngx_sesscache_server_t  (*look)(void *server, ngx_uint_t tls);
} ngx_sesscache_part_t;

extern ngx_module_t  ngx_sesscache_module;
extern const ngx_sesscache_part_t  ngx_http_sesscache_part, ngx_mail_sesscache_part, ngx_stream_sesscache_part;

char *ngx_sesscache_directive(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
void *ngx_sesscache_create_srv(ngx_conf_t *cf);
char *ngx_sesscache_merge_srv(ngx_conf_t *cf, void *parent, void *child);
ngx_int_t ngx_sesscache_collect(ngx_cycle_t *cycle, const ngx_sesscache_part_t *part);
ngx_module_t *ngx_sesscache_find_module(ngx_cycle_t *cycle, const char *name);
ngx_uint_t ngx_sesscache_refused(ngx_connection_t *c, ngx_uint_t verify);
void ngx_sesscache_variable(ngx_connection_t *c, ngx_sesscache_srv_t *server, ngx_variable_value_t *v);

ngx_int_t ngx_http_sesscache_check(ngx_cycle_t *cycle);
char *ngx_http_sesscache_status(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);

#endif
