/*
 * Visits of a program that connects to a server in the same process: see connecting.c.
 */
#ifndef CONNECTING_H
#define CONNECTING_H

#include "tls.h"

#define PEER "mail.example:465"

/* One visit. Whatever is left zero is as in every other. */
struct call {
    int version;                        /* 0: both */
    const char *peer;
    void (*prepare_ctx)(SSL_CTX *);
    void (*prepare)(SSL *);
    void (*after)(SSL *);               /* called between sesscache_resume and the handshake */
    int without_trust;                  /* the store of certificates is empty */
    int no_verify;
    int break_off;                      /* the handshake does not come to its end */
    int expected_failure;
};

struct answer {
    sesscache_status status;
    int resumed;
    int failed;
    char ticket[2 * EVP_MAX_MD_SIZE + 1];   /* hash of the ticket that was offered, for TLS 1.3 */
};

/* The two ends of a connection. */
struct ends {
    SSL *client, *server;
};

/* Set by begin(): the client's cache, and a server with stateless tickets whose keys its children have too. */
extern sesscache *cache;
extern SSL_CTX *server;

void begin(const char *scratch, const char *options);

/* A client's SSL_CTX that is attached, and visits with one or with a new one. */
SSL_CTX *client_ctx(const struct call *call);
struct answer visit_with(SSL_CTX *ctx, struct call call);
struct answer visit(struct call call);

/* The steps of a visit: both ends exist; both handshakes come to their ends, or 0; all is freed. */
struct ends connect_ends(SSL_CTX *ctx);
int talk(struct ends ends);
void free_ends(struct ends ends);

#endif
