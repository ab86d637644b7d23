/*
 * TLS connections for the tests: real OpenSSL on both ends of a real socket pair.
 *
 * The client runs in the calling thread. The server runs next to it, or in a forked process that uses
 * the caller's SSL_CTX, or in a forked process that makes an SSL_CTX of its own on a store.
 */
#ifndef TLS_H
#define TLS_H

#include "check.h"

#include <openssl/ssl.h>

/* The names that OpenSSL has since 3.3 and 3.4; those without _ex are deprecated in 3.4. */
#if OPENSSL_VERSION_NUMBER < 0x30400000L
#define SSL_SESSION_set_time_ex(session, time) SSL_SESSION_set_time(session, (long)(time))
#define SSL_CTX_flush_sessions_ex(ctx, time) SSL_CTX_flush_sessions(ctx, (long)(time))
#endif

/* A session as the client keeps it: plain bytes, so that it can be copied, kept and offered again. */
struct saved {
    size_t len;
    unsigned char der[2048];
};

enum ending {
    POLITE,          /* close_notify in both directions */
    TCP_CLOSED,      /* the client closes TCP without close_notify, the server reads that */
    SERVER_FREES     /* the server calls SSL_free without SSL_shutdown */
};

/* One connection to make. All members but `version` may be left zero. */
struct visit {
    int version;                    /* TLS1_2_VERSION, TLS1_3_VERSION, or DTLS1_2_VERSION with such a server */
    const struct saved *offer;      /* session the client offers */
    const char *name;               /* server name the client asks for */
    const char *groups;             /* groups of the client, most wanted first */
    const char *early;              /* text to send as early data */
    enum ending ending;
    void (*prepare)(SSL *server);   /* called on the server's SSL before the handshake */
    void (*prepare_client)(SSL *client);
    void (*finished)(SSL *server);  /* called on the server's SSL right after the handshake */
};

#define MAX_GIVEN 8

/* What came of it, seen from the client. */
struct outcome {
    int resumed;
    int early_accepted;
    int hellos;                     /* ClientHellos sent; 2 after a HelloRetryRequest */
    size_t given;                   /* sessions the server issued */
    struct saved sessions[MAX_GIVEN];   /* the first of them */
    struct saved newest;            /* the session to offer next; of length 0 when there is none */
};

/* A connection in the making whose two ends the test holds. */
struct pair {
    struct visit visit;
    struct outcome out;
    SSL_CTX *client_ctx;
    SSL *client, *server;
    int client_fd, server_fd;
    int client_state, server_state;
    size_t early_read;
    char answer[2];
};

/* Self-signed, made at the first question, one of each per process. */
enum credential { SERVER_P256, CLIENT_P256, CLIENT_RSA, CLIENT_6KB, CREDENTIALS };
struct credentials {
    EVP_PKEY *key;
    X509 *certificate;
};
const struct credentials *tls_credentials(enum credential kind);

/* Lets the client show this certificate when it is asked to. */
void tls_show(SSL *client, enum credential kind);

/* Makes the server ask for a certificate, and accept any: SSL_set_verify with this mode. */
void tls_ask(SSL *server, int mode);

/* A server's SSL_CTX with a P-256 certificate and a session id context. */
SSL_CTX *tls_server(void);
SSL_CTX *tls_server_for(int version);

/* The same, with a cache enabled. */
SSL_CTX *tls_attached(const char *store, const char *options);

/* Full connection with the server in this thread, in a forked process with this SSL_CTX, or in a forked
   process that enables a cache on an SSL_CTX of its own and frees it before it exits. */
struct outcome tls_here(SSL_CTX *server, struct visit visit);
struct outcome tls_child(SSL_CTX *server, struct visit visit);
struct outcome tls_elsewhere(const char *store, const char *options, struct visit visit);

/* Whether a process that knows only the store resumes this session. */
int tls_resumes_elsewhere(const char *store, const char *options, int version, const struct saved *session);

/* The steps of tls_here one by one: both ends exist, the handshake is done and answered, all is freed. */
struct pair *tls_pair(SSL_CTX *server, struct visit visit);
void tls_talk(struct pair *pair);
void tls_end(struct pair *pair);

/* Frees what is left of a pair without another word on the wire. */
void tls_drop(struct pair *pair);

/* From a session to the bytes that are kept, and back. */
void tls_save(struct saved *saved, const SSL_SESSION *session);
SSL_SESSION *tls_load(const struct saved *saved);

/* Dates the session now, so that the client offers it however old it is. */
void tls_pretend_fresh(struct saved *session);

/* Lets the client send early data with the session, whatever the server allowed. */
void tls_pretend_early(struct saved *session);

/* A session of the same kind under an id that no server has ever issued. */
void tls_change_id(struct saved *session);

/* Lets the client offer the id of one session with all else of another, which may be of another version. */
void tls_copy_id(struct saved *to, const struct saved *from);

/* The counters of a cache. */
sesscache_stats tls_stats(sesscache *cache);

/* "TLS 1.2" or "TLS 1.3", for messages. */
const char *tls_name(int version);

/* Both versions, for tests that hold for both. */
extern const int tls_versions[2];

/* What a table of tests is at: stands before the message when a handshake fails. */
extern const char *tls_doing;

#endif
