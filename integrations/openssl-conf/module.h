/* What the parts of the configuration module share; openssl_conf.c says what it is. */
#ifndef SESSCACHE_OPENSSL_CONF_H
#define SESSCACHE_OPENSSL_CONF_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <openssl/crypto.h>
#include <openssl/ssl.h>
#include <sesscache.h>
#include <stdatomic.h>
#include <stdint.h>

/* What `sesscache doctor --pid` reads in the memory of a process; src/bin/sesscache/pid.rs has the same layout. */
struct report {
    char magic[24];
    _Atomic uint32_t made, attached, clients, switched_off, refused, detached, failed, shared;
    char program[64], directory[512], options[512], message[512];
};
extern struct report report;

/* What openssl.cnf says besides. */
struct settings {
    char session_id_context[SSL_MAX_SID_CTX_LENGTH];
    unsigned session_id_context_len;
    int force;          /* attach where the program has switched its cache off */
    int owned;          /* root opens for others, before it may be unable to */
};
extern struct settings settings;

/* The calls of libssl and libsesscache, which are looked up, not linked. */
struct call {
    __typeof__(SSL_get_SSL_CTX) *get_ctx;
    __typeof__(SSL_CTX_get_ssl_method) *method;
    __typeof__(SSL_CTX_get0_certificate) *certificate;
    __typeof__(SSL_CTX_ctrl) *ctrl;
    __typeof__(SSL_CTX_get_ex_data) *get_ex_data;
    __typeof__(SSL_CTX_set_session_id_context) *set_context;
    __typeof__(SSL_set_session_id_context) *set_context_of_ssl;
    __typeof__(SSL_CTX_sess_get_new_cb) *new_cb;
    __typeof__(SSL_CTX_sess_get_get_cb) *get_cb;
    __typeof__(SSL_CTX_sess_get_remove_cb) *remove_cb;
    __typeof__(sesscache_open) *open;
    __typeof__(sesscache_close) *close;
    __typeof__(sesscache_attach) *attach;
    __typeof__(sesscache_detach) *detach;
    __typeof__(sesscache_inherit) *inherit;
    __typeof__(sesscache_set_log) *set_log;
    __typeof__(sesscache_errmsg) *errmsg;
    int ready;
};
extern struct call call;

/* Fills `call` and opens the directory, as far as a chroot or a change of user would put them out of reach. */
void prepare(void);

/* The one handle of the process, or NULL. */
sesscache *cache(void);

/* Says it to syslog and to the doctor. Only where files are opened, too: a sandbox may end the server for a socket. */
void complain(const char *message);

enum role { CLIENT, SERVER, UNKNOWN };

enum role role_of(SSL_CTX *ctx);

/* Whether an SSL_CTX lies in memory that processes share. */
int is_shared(const SSL_CTX *ctx);

/* Has SSL_CTX_new, SSL_CTX_free and SSL_new tell us from now on. */
void follow_contexts(void);

#endif
