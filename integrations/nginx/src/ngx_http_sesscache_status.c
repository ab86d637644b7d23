/* The status page: every cache of the configuration with its counters, as text, or as JSON for `?json` and for clients
 * that accept application/json. */

#include "ngx_sesscache.h"
#include <ngx_http.h>

typedef struct {
    const char  *name;
    size_t       offset;
} ngx_http_sesscache_counter_t;

#define COUNTER(name)  { #name, offsetof(sesscache_stats, name) }

static const ngx_http_sesscache_counter_t ngx_http_sesscache_counters[] = {
    COUNTER(sessions), COUNTER(used_bytes), COUNTER(capacity), COUNTER(generation),
    COUNTER(hits), COUNTER(misses_absent), COUNTER(misses_foreign), COUNTER(misses_expired),
    COUNTER(misses_protocol), COUNTER(misses_namespace), COUNTER(misses_server_name), COUNTER(misses_client_auth),
    COUNTER(misses_damaged), COUNTER(misses_unavailable),
    COUNTER(puts), COUNTER(puts_skipped), COUNTER(puts_busy), COUNTER(puts_full), COUNTER(puts_failed),
    COUNTER(takes), COUNTER(removes), COUNTER(removes_ignored), COUNTER(evicted), COUNTER(expired),
};

enum {
    COUNTERS = sizeof ngx_http_sesscache_counters / sizeof ngx_http_sesscache_counters[0],
    LINE = sizeof "  \"misses_unavailable\": 18446744073709551615,\n",
    MESSAGE = 512                       /* of a text of the library's, cut off there */
};

static ngx_uint_t ngx_http_sesscache_wants_json(ngx_http_request_t *r)
{
    ngx_list_part_t *part = &r->headers_in.headers.part;
    if (r->args.len == 4 && ngx_strncmp(r->args.data, "json", 4) == 0)
        return 1;
    for (; part != NULL; part = part->next) {
        ngx_table_elt_t *header = part->elts;
        for (ngx_uint_t i = 0; i < part->nelts; i++) {
            if (header[i].key.len == 6 && ngx_strncasecmp(header[i].key.data, (u_char *)"Accept", 6) == 0
                && ngx_strnstr(header[i].value.data, "application/json", header[i].value.len) != NULL)
                return 1;
        }
    }
    return 0;
}

/* Text inside a JSON string. */
static u_char *ngx_http_sesscache_escape(u_char *to, u_char *text, size_t len)
{
    return (u_char *)ngx_escape_json(to, text, len);
}

static u_char *ngx_http_sesscache_one(u_char *to, ngx_sesscache_t *cache, ngx_uint_t json)
{
    sesscache_stats stats;
    const char *trouble = NULL;
    if (cache->handle == NULL)
        trouble = cache->failed ? "could not be opened, see the error log" : "no server uses it";
    else if (sesscache_read_stats(cache->handle, &stats, sizeof stats) != SESSCACHE_OK)
        trouble = sesscache_errmsg();

    if (json) {
        to = ngx_cpymem(to, "{\n  \"path\": \"", sizeof "{\n  \"path\": \"" - 1);
        to = ngx_http_sesscache_escape(to, cache->path.data, cache->path.len);
        *to++ = '"';
    } else {
        to = ngx_sprintf(to, "path %V\n", &cache->path);
    }
    if (trouble != NULL) {
        size_t len = ngx_min(ngx_strlen(trouble), MESSAGE);
        if (json) {
            to = ngx_cpymem(to, ",\n  \"error\": \"", sizeof ",\n  \"error\": \"" - 1);
            to = ngx_http_sesscache_escape(to, (u_char *)trouble, len);
            return ngx_sprintf(to, "\"\n}");
        }
        return ngx_sprintf(to, "error %*s\n", len, trouble);
    }
    for (ngx_uint_t i = 0; i < COUNTERS; i++) {
        const ngx_http_sesscache_counter_t *counter = &ngx_http_sesscache_counters[i];
        uint64_t value;
        ngx_memcpy(&value, (u_char *)&stats + counter->offset, sizeof value);
        to = ngx_sprintf(to, json ? ",\n  \"%s\": %uL" : "%s %uL\n", counter->name, value);
    }
    return json ? ngx_sprintf(to, "\n}") : to;
}

static ngx_int_t ngx_http_sesscache_status_handler(ngx_http_request_t *r)
{
    ngx_sesscache_conf_t *conf = (ngx_sesscache_conf_t *)ngx_get_conf(ngx_cycle->conf_ctx, ngx_sesscache_module);
    ngx_sesscache_t **cache = conf->caches.elts;
    if (!(r->method & (NGX_HTTP_GET | NGX_HTTP_HEAD)))
        return NGX_HTTP_NOT_ALLOWED;
    ngx_int_t rc = ngx_http_discard_request_body(r);
    if (rc != NGX_OK)
        return rc;

    /* A byte of text takes six at most in JSON. */
    size_t size = sizeof "[\n]\n";
    for (ngx_uint_t i = 0; i < conf->caches.nelts; i++)
        size += 64 + COUNTERS * LINE + 6 * (cache[i]->path.len + MESSAGE);
    ngx_buf_t *buffer = ngx_create_temp_buf(r->pool, size);
    if (buffer == NULL)
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    ngx_uint_t json = ngx_http_sesscache_wants_json(r);
    if (json)
        *buffer->last++ = '[';
    for (ngx_uint_t i = 0; i < conf->caches.nelts; i++) {
        if (i > 0)
            *buffer->last++ = json ? ',' : '\n';
        buffer->last = ngx_http_sesscache_one(buffer->last, cache[i], json);
    }
    if (json)
        buffer->last = ngx_sprintf(buffer->last, "]\n");

    r->headers_out.status = NGX_HTTP_OK;
    r->headers_out.content_length_n = buffer->last - buffer->pos;
    ngx_str_t text_type = ngx_string("text/plain"), json_type = ngx_string("application/json");
    r->headers_out.content_type = json ? json_type : text_type;
    r->headers_out.content_type_len = r->headers_out.content_type.len;
    buffer->last_buf = r == r->main;
    buffer->last_in_chain = 1;
    buffer->memory = buffer->last > buffer->pos;
    rc = ngx_http_send_header(r);
    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only)
        return rc;
    ngx_chain_t out = { buffer, NULL };
    return ngx_http_output_filter(r, &out);
}

/* sesscache_status; */
char *ngx_http_sesscache_status(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_core_loc_conf_t *location = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
    location->handler = ngx_http_sesscache_status_handler;
    return NGX_CONF_OK;
}
