/*
 * sesscache: a TLS session cache shared by all processes of a server.
 *
 *     #include <openssl/ssl.h>
 *     #include <sesscache.h>
 *     #include <stdio.h>
 *
 *     SSL_CTX *make_context(void)
 *     {
 *         SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
 *         SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"myserver", 8);
 *         if (sesscache_enable(ctx, "/run/myserver-tls", "capacity=64MiB ttl=2h") != SESSCACHE_OK)
 *             fprintf(stderr, "no session cache: %s\n", sesscache_errmsg());
 *         return ctx;
 *     }
 *
 * That is all. Sessions of TLS 1.2 and TLS 1.3 made in one process resume in every other process that
 * opened the same directory: workers, children, other programs, the same program after a restart.
 * A server whose cache cannot be opened goes on without it: each client then makes a full handshake.
 *
 * Rules that hold for every function:
 * - Any thread may call any function at any time, except where a comment says otherwise.
 * - After fork(2) a child uses what it inherited as if nothing had happened. Nothing must be reopened.
 * - Where a comment gives NULL no meaning, NULL is SESSCACHE_INVALID, never a crash.
 * - A function writes its output parameters on success only, except where a comment says otherwise.
 * - No function changes errno or OpenSSL's error queue.
 * - Times are seconds since 1970 UTC; sizes are bytes.
 *
 * Link with: pkg-config --cflags --libs sesscache
 */

#ifndef SESSCACHE_H
#define SESSCACHE_H

/* Made from src/ by `make header`. Do not edit. */

#include <stddef.h>
#include <stdint.h>

struct ssl_ctx_st; /* SSL_CTX */
struct ssl_st;     /* SSL */
struct ssl_session_st; /* SSL_SESSION */

/**
 * What a call came to. 0 is success; sesscache_errmsg() explains anything else.
 */
typedef enum {
    /**
     * The call did what it was asked.
     */
    SESSCACHE_OK = 0,
    /**
     * An argument, an option or the directory is not acceptable; the message says what is.
     */
    SESSCACHE_INVALID = 1,
    /**
     * The operating system refused; the message has its reason.
     */
    SESSCACHE_SYSTEM = 2,
    /**
     * The directory holds something that this version cannot read.
     */
    SESSCACHE_FORMAT = 3,
    /**
     * No room: 64 different caches are open in this process, a record has more than 64 KiB, or the device is full.
     */
    SESSCACHE_FULL = 4,
    /**
     * OpenSSL failed, for lack of memory or entropy.
     */
    SESSCACHE_OPENSSL = 5,
    /**
     * The program uses another OpenSSL than this library, or has the directory open with other options.
     */
    SESSCACHE_MISMATCH = 6,
    /**
     * Another process held the store past the deadline.
     */
    SESSCACHE_BUSY = 7,
    /**
     * A fault inside sesscache, which was contained.
     */
    SESSCACHE_BUG = 8,
    /**
     * There is no such session or record.
     */
    SESSCACHE_NOT_FOUND = 9,
} sesscache_status;

/**
 * An open cache. Any thread may use it, and so may any child process that inherits it through fork(2).
 */
typedef struct sesscache sesscache;

/**
 * Counters since the store was made, summed over all processes, and a few numbers of this moment. New fields
 * are only ever added at the end.
 */
typedef struct {
    /**
     * records in the store: sessions, and the application's own
     */
    uint64_t sessions;
    /**
     * bytes of the pages in use
     */
    uint64_t used_bytes;
    /**
     * hard limit of the store, in bytes
     */
    uint64_t capacity;
    /**
     * number of the current generation
     */
    uint64_t generation;
    /**
     * lookups that found a session
     */
    uint64_t hits;
    /**
     * lookups of an id that the store does not have
     */
    uint64_t misses_absent;
    /**
     * lookups of an id that this store did not issue, rejected without a search
     */
    uint64_t misses_foreign;
    /**
     * lookups of a session that has expired
     */
    uint64_t misses_expired;
    /**
     * lookups under another protocol version, or another major version of OpenSSL
     */
    uint64_t misses_protocol;
    /**
     * lookups from another namespace
     */
    uint64_t misses_namespace;
    /**
     * lookups under another server name
     */
    uint64_t misses_server_name;
    /**
     * lookups that demand client authentication, of a session without it
     */
    uint64_t misses_client_auth;
    /**
     * lookups of a record that does not decrypt: it is damaged, or its key is gone
     */
    uint64_t misses_damaged;
    /**
     * lookups while the store could not be read
     */
    uint64_t misses_unavailable;
    /**
     * sessions stored
     */
    uint64_t puts;
    /**
     * sessions not stored because no client could resume them
     */
    uint64_t puts_skipped;
    /**
     * sessions not stored because the write lock was held past the deadline
     */
    uint64_t puts_busy;
    /**
     * sessions not stored because no room could be made
     */
    uint64_t puts_full;
    /**
     * sessions not stored for another reason, such as being longer than 64 KiB
     */
    uint64_t puts_failed;
    /**
     * single-use sessions consumed
     */
    uint64_t takes;
    /**
     * sessions deleted on request or after a TLS error
     */
    uint64_t removes;
    /**
     * removals by OpenSSL that were no sign of a bad session
     */
    uint64_t removes_ignored;
    /**
     * sessions evicted before they expired
     */
    uint64_t evicted;
    /**
     * sessions deleted after they expired
     */
    uint64_t expired;
    /**
     * lookups of a TLS 1.2 session whose cipher this connection does not allow
     */
    uint64_t misses_cipher;
    /**
     * lookups of a session whose login sesscache_forget() has ended
     */
    uint64_t misses_revoked;
    /**
     * hits after which OpenSSL refused the session: the servers differ in their session id contexts, for example
     */
    uint64_t hits_refused;
    /**
     * full handshakes of the SSL_CTXs that are attached
     */
    uint64_t handshakes_full;
    /**
     * handshakes of these SSL_CTXs that resumed a session, wherever it was kept
     */
    uint64_t handshakes_resumed;
    /**
     * hits on a session that was in memory, because it could not be stored
     */
    uint64_t hits_local;
    /**
     * sessions kept in memory because they could not be stored
     */
    uint64_t puts_local;
    /**
     * lookups by a client that found a session with its server
     */
    uint64_t client_hits;
    /**
     * lookups by a client that found none that it may use
     */
    uint64_t client_misses;
    /**
     * sessions of clients stored
     */
    uint64_t client_puts;
    /**
     * sessions of clients that could not be stored
     */
    uint64_t client_puts_failed;
} sesscache_stats;

/**
 * Receives a message: the userdata given, a priority of syslog(3) (3 error, 4 warning, 5 notice), and one line without a
 * newline. The line is valid until the function returns. Any thread that uses the cache may call the function, at most once
 * a second per kind of message. The function must not call back into sesscache.
 */
typedef void (*sesscache_log_fn)(void *userdata, int level, const char *message);

/**
 * Receives one record: the userdata given, its id, its data and its expiry (seconds since 1970). The pointers are valid
 * until the function returns. Return 0 to go on, anything else to stop.
 */
typedef int (*sesscache_each_fn)(void *userdata,
                                 const unsigned char *id,
                                 size_t id_len,
                                 const void *data,
                                 size_t len,
                                 int64_t expires);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Opens the cache in the directory `path` and writes its handle to `*cache`. The directory is created with mode 0700 when
 * it is missing; one on tmpfs, such as /run/NAME, keeps secrets off the disk.
 *
 * `options` is a string of name=value pairs separated by spaces, such as "capacity=256MiB ttl=2h"; NULL stands for the empty
 * string. The end of this header lists the options. The library copies both strings. A pair name?=value is a default: it counts
 * where the string has no name=value, so that a program can append its own to what an administrator wrote.
 *
 * The caller frees the handle with sesscache_close(). Several handles on one directory share one store.
 *
 * No descriptor stays open, and the handle is bound to no process: call it before or after fork(2), daemon(3), chroot(2) or
 * a change of user. A process that serves and cannot reach the directory keeps its sessions in memory, which it shares with the
 * process that called sesscache_open() before fork(2), and with all other children of that: see the option local.
 *
 * Returns SESSCACHE_INVALID for a `path` or `cache` that is NULL and for options or a directory that are not acceptable,
 * SESSCACHE_SYSTEM with the system's reason, such as an RLIMIT_AS below the capacity, SESSCACHE_FORMAT for a directory of an incompatible version, SESSCACHE_FULL when
 * 64 caches of different directories or options are open in this process or the device is full, SESSCACHE_MISMATCH when this process has the directory open with
 * another key=, deadline= or local=, SESSCACHE_OPENSSL when libcrypto has no AES-256-GCM or SHA-256: they come from the default library context, or
 * where that has none from one of the library's own with OpenSSL's default provider. A server whose cache cannot be opened goes on
 * without it.
 */
sesscache_status sesscache_open(const char *path,
                                const char *options,
                                sesscache **cache);

/**
 * Tells whether sesscache_open() would accept these options, and touches nothing: for a server that checks its configuration
 * without starting. NULL stands for the defaults.
 *
 * Returns SESSCACHE_INVALID for options that are not acceptable, and for an owner or group that does not exist.
 */
sesscache_status sesscache_check(const char *options);

/**
 * Makes `ctx` look up and store its server sessions in the cache. Call it before the first SSL_new() on `ctx`, and on
 * every SSL_CTX that SSL_set_SSL_CTX() may switch to.
 *
 * It sets, whatever was set before:
 * - the session cache mode: SSL_SESS_CACHE_SERVER without an internal cache; SSL_SESS_CACHE_CLIENT stays if it was set. If
 *   you turn the internal cache on afterwards, there is no early data, and a ticket may resume twice in the process that
 *   made it;
 * - SSL_OP_NO_TICKET: TLS 1.2 clients use session ids, and TLS 1.3 tickets are ids too. OpenSSL then uses no ticket keys
 *   and calls no ticket key callback. If you clear the option afterwards, stateless tickets work, without early data;
 * - SSL_OP_NO_ANTI_REPLAY: the cache prevents the replay of early data, across processes;
 * - the new, get and remove session callbacks. Callbacks of your own are refused, see below;
 * - the session id generator. One of your own is replaced, also after detach: OpenSSL cannot report that one is set. If you
 *   set one after attach, lookups are slower, re-issued tickets promise more time than they have, and stateless tickets may
 *   carry early data;
 * - the timeout, only with the option ttl=.
 *
 * With the option tickets=host, SSL_OP_NO_TICKET and SSL_OP_NO_ANTI_REPLAY stay as they are, and there is no early data
 * (SSL_CTX_set_max_early_data(3), restored by detach). That is for a server with SSL_CTX_set_session_ticket_cb(3): OpenSSL asks its
 * dec_cb about stateless tickets only, and cannot report that one is set. With tickets that are ids, sessions that dec_cb would
 * refuse resume, and gen_cb is not called in TLS 1.2; the data it adds in TLS 1.3 are stored, and SSL_SESSION_get0_ticket_appdata(3)
 * finds them after the handshake. Stateless tickets are in no cache: sesscache_forget(), sesscache_flush() and other processes
 * without the same keys do not know them.
 *
 * The number of TLS 1.3 tickets and the session id context stay yours. With SSL_VERIFY_PEER, set a session id context:
 * OpenSSL resumes nothing without one (SSL_CTX_set_session_id_context(3)). The cache and its options are those of the
 * SSL_CTX given to SSL_new(), also after SSL_set_SSL_CTX(). A session id context that SSL_set_SSL_CTX() changes counts in the
 * client_hello callback; in the servername callback it comes too late.
 *
 * With SSL_VERIFY_PEER, a session made without asking for a certificate does not resume; with
 * SSL_VERIFY_FAIL_IF_NO_PEER_CERT, neither does one whose client showed none. OpenSSL looks for the session before it calls
 * the servername and the certificate callback, so a demand made there comes too late, with any cache. Make it in the
 * client_hello callback, or call sesscache_flush() when you begin to demand certificates under a name, or look at
 * SSL_get0_peer_certificate() after the handshake. OpenSSL does not verify a certificate again: give SSL_CTXs that judge
 * certificates differently session id contexts of their own. A session expires with its client's certificate.
 *
 * A TLS 1.2 session does not resume under a cipher that SSL_get_ciphers() or the security level no longer allows, nor where
 * SSL_OP_NO_EXTENDED_MASTER_SECRET rules its extended master secret out: the handshake is full.
 *
 * A resumed session tells what one from OpenSSL's own cache tells, with four exceptions. SSL_get_peer_cert_chain() is
 * NULL, because a session stores the client's own certificate only. ex_data is not stored; use
 * SSL_SESSION_set1_ticket_appdata() for what must be found again. The timeout of a TLS 1.3 session is what is left of its
 * life, and so is the lifetime that the client is told. The client's certificate belongs to the default OSSL_LIB_CTX, also where
 * `ctx` has one of its own, as after a stateless ticket: its key can always be read, while X509_digest(3) and others that look
 * for algorithms in the certificate's context need them in the default one.
 *
 * `ctx` keeps the cache alive until it is freed: you may close the handle at once. Attaching twice does no harm. No other
 * thread may use `ctx` meanwhile.
 *
 * Returns SESSCACHE_INVALID for NULL, for an SSL_CTX that is attached to another cache, and for one that has session
 * callbacks of its own, which stay in place; SESSCACHE_MISMATCH when `ctx` belongs to another OpenSSL;
 * SESSCACHE_OPENSSL when memory runs out. On failure `ctx` is unchanged.
 */
sesscache_status sesscache_attach(sesscache *cache,
                                  struct ssl_ctx_st *ctx);

/**
 * Undoes sesscache_attach(): session cache mode, options and timeout are as before, the callbacks and the id generator are
 * removed. A mode, a timeout and callbacks that you have set since stay. Connections that exist keep the cache. Not needed
 * before SSL_CTX_free(). No other thread may use `ctx` meanwhile.
 *
 * Returns SESSCACHE_NOT_FOUND when `ctx` is not attached, SESSCACHE_INVALID for NULL.
 */
sesscache_status sesscache_detach(struct ssl_ctx_st *ctx);

/**
 * Gives `ssl`, which SSL_new() made before its SSL_CTX was attached or detached, what SSL_new() would copy from the SSL_CTX now:
 * SSL_OP_NO_TICKET, SSL_OP_NO_ANTI_REPLAY and the session id generator. For programs that learn of an SSL_CTX only when it
 * makes its first connection; without it, the ticket of that connection is a stateless one, which no other process resumes.
 * Call it before the handshake. No other thread may use `ssl` meanwhile.
 *
 * Returns SESSCACHE_NOT_FOUND when the SSL_CTX was never attached, SESSCACHE_INVALID for NULL, and for an `ssl` that has no
 * SSL_CTX yet: where SSL_new() of OpenSSL 3.2 and later constructs its ex_data, and copies the SSL_CTX's settings afterwards.
 */
sesscache_status sesscache_inherit(struct ssl_st *ssl);

/**
 * Frees the handle; NULL does nothing. Attached SSL_CTXs use the cache until they are freed, and the sessions stay in the
 * directory. No thread may use the handle any more.
 */
void sesscache_close(sesscache *cache);

/**
 * Opens all that serving needs, in the calling process, and opens nothing by path there from then on. For a process that is
 * about to give up the file system: by chroot(2), a change of user, or a filter of system calls. sesscache_hold(3) lists the system
 * calls that are made afterwards. The option hold=on does the same at the first use in each process.
 *
 * Any thread of the process may use the cache afterwards. What would need a path does not happen: when the store is flushed or the
 * key file changes, also by a key that is added, this process goes on with sessions in memory (option local), and says so once. When a
 * new generation begins from which earlier sessions still resume, they resume here too, and new ones are kept in memory.
 * sesscache_flush() returns SESSCACHE_SYSTEM there. A child that is forked after this call has the sessions in memory only,
 * because nothing of the store itself can be used across fork(2): call this function in each process that serves, not before
 * it is forked.
 *
 * Returns SESSCACHE_SYSTEM with the system's reason, or another status of sesscache_open(), when the store cannot be opened: this
 * process then opens nothing either, and keeps its sessions in memory. SESSCACHE_INVALID for NULL.
 */
sesscache_status sesscache_hold(sesscache *cache);

/**
 * Opens, attaches and closes in one call: see sesscache_open() and sesscache_attach(), whose statuses it returns. On an SSL_CTX
 * that has the cache already it does nothing.
 *
 * For a server with an SSL_CTX for each connection: a store that comes and goes stays open for two seconds after its last
 * SSL_CTX was freed, unless it has a log function, and is closed by the next call into the library after that, or at exit(3).
 */
sesscache_status sesscache_enable(struct ssl_ctx_st *ctx,
                                  const char *path,
                                  const char *options);

/**
 * Ends the login behind this connection: nothing that goes back to the same full handshake resumes any more, in any process,
 * and nothing more of it is stored. For a logout, or for a client certificate that was rejected. No other
 * thread may use `ssl` meanwhile.
 *
 * Returns SESSCACHE_NOT_FOUND when the connection has no session in a cache, SESSCACHE_INVALID for NULL.
 */
sesscache_status sesscache_forget(struct ssl_st *ssl);

/**
 * Deletes the session or record with this id (1 to 255 bytes), in every process; one that was kept in memory, as it could not be
 * stored, in this process and in those that share its memory.
 *
 * Returns SESSCACHE_NOT_FOUND when there is none, SESSCACHE_BUSY when another process held the store past the deadline,
 * SESSCACHE_INVALID for NULL and for an id that is empty or too long.
 */
sesscache_status sesscache_remove(sesscache *cache,
                                  const unsigned char *id,
                                  size_t id_len);

/**
 * Deletes all sessions and records, in every process, at once. It makes a new sealing key first, so that nobody can read
 * what is left in freed pages or backups; a key file named with key= belongs to the operator and stays.
 *
 * Returns SESSCACHE_SYSTEM or SESSCACHE_FULL when the new store could not be made, SESSCACHE_INVALID for NULL.
 */
sesscache_status sesscache_flush(sesscache *cache);

/**
 * Deletes at most `max` sessions and records that have expired, and writes their number to `*removed` unless `removed` is
 * NULL. Not needed: each store of a session deletes some expired ones.
 *
 * Returns SESSCACHE_BUSY when another process held the store past the deadline, SESSCACHE_INVALID when `cache` is NULL.
 */
sesscache_status sesscache_sweep(sesscache *cache,
                                 size_t max,
                                 size_t *removed);

/**
 * Fills `stats` with counters summed over all processes. `size` is sizeof(sesscache_stats) as the program was compiled: fields
 * that this library does not know are set to 0, fields that the program does not know are left out.
 *
 * Where the store cannot be opened, in a chroot for example, the counters are read all the same, and `sessions` and `used_bytes`
 * are 0.
 *
 * Returns SESSCACHE_INVALID for NULL or a size of 0, SESSCACHE_SYSTEM or SESSCACHE_BUSY when the open store cannot be read.
 */
sesscache_status sesscache_read_stats(sesscache *cache,
                                      sesscache_stats *stats,
                                      size_t size);

/**
 * Sends messages about this directory to `function`. NULL as `function`, the default, drops them; NULL as `cache` does
 * nothing. The handles on one directory share the function.
 *
 * `userdata` is passed through and may be NULL; it must stay valid as long as `function` may be called. What sesscache_open()
 * had to repair is reported at once.
 */
void sesscache_set_log(sesscache *cache,
                       sesscache_log_fn function,
                       void *userdata);

/**
 * Returns a phrase for any number, also for one that is no status. Never NULL, and valid as long as the process.
 */
const char *sesscache_strerror(int status);

/**
 * Returns what went wrong in the last call of this thread that failed, and what to do; "" when none has failed. Never NULL,
 * and valid until the next call of this thread that fails.
 */
const char *sesscache_errmsg(void);

/**
 * Returns the version of the library, such as "0.1.0". Never NULL, and valid as long as the process.
 */
const char *sesscache_version(void);

/**
 * Has the sessions stored in the cache that servers give to the client connections of `ctx`: those for which sesscache_resume() is
 * called. `ctx` may be attached with sesscache_attach() as well, in any order, for the connections that it accepts.
 *
 * It sets the callback for new sessions and SSL_SESS_CACHE_CLIENT; on an SSL_CTX of TLS_client_method() also
 * SSL_SESS_CACHE_NO_INTERNAL_STORE, since OpenSSL never looks up what it would keep there. `ctx` keeps the cache alive until it is
 * freed: you may close the handle at once. sesscache_detach() undoes it. No other thread may use `ctx` meanwhile.
 *
 * Returns SESSCACHE_INVALID for NULL, for an SSL_CTX that is attached to another cache, and for one that has a callback of its own
 * (SSL_CTX_sess_set_new_cb); SESSCACHE_MISMATCH when `ctx` belongs to another OpenSSL; SESSCACHE_OPENSSL when memory runs out. On
 * failure `ctx` is unchanged.
 */
sesscache_status sesscache_attach_client(sesscache *cache,
                                         struct ssl_ctx_st *ctx);

/**
 * Offers a session to the server of `ssl`, if there is one that may be used, and has those stored that the server gives. Call it
 * last, right before SSL_connect(): what is set later is not looked at, and sessions of a connection that was changed are not stored.
 *
 * `peer` names the server, 1 to 255 bytes of text such as "mail.example:465": what the program connects to, not what it was resolved
 * to. It must not be NULL, and is copied.
 *
 * OpenSSL verifies nothing anew when a client resumes; this function does: the certificates that the server has shown are verified by
 * what `ssl` trusts now, and the session is offered only where that comes to the result that it came to then. It is offered only to the
 * same peer, with the same server name, expected names (SSL_set1_host), verification, versions, options, ciphers, client certificate,
 * namespace and option policy. A ticket of TLS 1.3 is used once, over all processes (RFC 8446 appendix C.4); a session of TLS 1.2
 * again and again. Neither is used for longer than its server says, than 7 days (RFC 8446 section 4.6.1), or than the option ttl says,
 * counted from the full handshake. A session that you or an earlier call have offered is withdrawn first.
 *
 * Where a function of yours has a say, it is not asked again: this function insists on the option policy, a text that stands for such
 * rules, with a verify callback, functions of an X509_STORE, a security callback, SSL_CTX_set_client_cert_cb(), DANE, certificate
 * transparency, revocation lists, and a callback for a stapled status. OpenSSL does not show what
 * SSL_CTX_set_cert_verify_callback(), SSL_CTX_set_cert_cb(), SSL_CTX_set1_groups() and SSL_CTX_set1_sigalgs() have set: a program that
 * uses one of them for what it trusts or shows must give policy as well. A session that a key known to both sides or a password has
 * made (PSK, SRP) is stored only with policy.
 *
 * Early data is sent only by SSL_write_early_data(), if the session allows it. No other thread may use `ssl` meanwhile.
 *
 * Returns SESSCACHE_OK when a session is offered, SESSCACHE_NOT_FOUND when there is none and SESSCACHE_BUSY when the store could not be
 * read: the handshake will then be a full one, and its session is stored. SESSCACHE_INVALID for NULL, a `peer` that is empty or too
 * long, a connection that is a server's (call SSL_set_connect_state() first) or has begun its handshake, an SSL_CTX that is not
 * attached by sesscache_attach_client(), and where the option policy is missing; SESSCACHE_OPENSSL when memory runs out. After these
 * the handshake is a full one, and nothing of it is stored.
 */
sesscache_status sesscache_resume(sesscache *cache,
                                  struct ssl_st *ssl,
                                  const char *peer);

/**
 * As sesscache_resume(), for a connection that must go back to the login of `control`, a connection to the same peer that has ended
 * its handshake: data connections of FTPS, where the server demands that. sesscache_resume() was called for `control`, and both are set
 * up in the same way. In TLS 1.3 each takes a ticket that came over `control` or a connection that goes back to the same login: read
 * from one before, since tickets come with its data. No other thread may use either meanwhile.
 *
 * Returns what sesscache_resume() returns; SESSCACHE_INVALID also when the two connections differ, with what differs in
 * sesscache_errmsg().
 */
sesscache_status sesscache_resume_from(struct ssl_st *ssl,
                                       struct ssl_st *control);

/**
 * Stores a record of the application's own under `id` (1 to 255 bytes) until `expires` (seconds since 1970). The store
 * seals it and evicts it like a session; a record with the same id is replaced. For servers that keep their own session
 * callbacks.
 *
 * `data` may be NULL when `len` is 0. The library copies `id` and `data`; they stay the caller's.
 *
 * Returns SESSCACHE_INVALID for any other NULL and for an id that is empty or too long, SESSCACHE_FULL for more than 65536
 * bytes of data or when no room can be made, SESSCACHE_BUSY when another process held the store past the deadline.
 */
sesscache_status sesscache_put(sesscache *cache,
                               const unsigned char *id,
                               size_t id_len,
                               const void *data,
                               size_t len,
                               int64_t expires);

/**
 * Copies the record under `id` to `data`, which has room for `*len` bytes, and sets `*len` to the size of the record.
 *
 * When the room is too small, nothing is copied, `*len` is set to the size, and the status is SESSCACHE_INVALID. `data` may
 * be NULL when `*len` is 0: that asks for the size. `id` and `data` must not overlap.
 *
 * Returns SESSCACHE_NOT_FOUND when there is no such record or it has expired, SESSCACHE_INVALID for any other NULL, for an
 * id that is empty or too long and for too little room, SESSCACHE_BUSY when the store could not be read.
 */
sesscache_status sesscache_get(sesscache *cache,
                               const unsigned char *id,
                               size_t id_len,
                               void *data,
                               size_t *len);

/**
 * Stores `session` under its id until it expires, as a record of the application's own. For servers that keep their own session
 * callbacks, such as providers of a server's cache interface: call it where the program has a new session
 * (SSL_CTX_sess_set_new_cb(3)). What may resume, such as the server name, early data and single use, is the program's to decide:
 * the options ttl, sni, single_use and remove have no effect, and sesscache_forget() does not know the session.
 *
 * The session stays the caller's. It comes from the OpenSSL that this library is linked with. No other thread may change it meanwhile.
 *
 * Returns SESSCACHE_INVALID for NULL and for a session without an id, such as one in a stateless ticket; SESSCACHE_FULL when it has
 * more than 65536 bytes or no room can be made, SESSCACHE_BUSY when another process held the store past the deadline,
 * SESSCACHE_MISMATCH when the library was built for another OpenSSL, SESSCACHE_OPENSSL when memory runs out.
 */
sesscache_status sesscache_put_session(sesscache *cache,
                                       struct ssl_session_st *session);

/**
 * Writes the session that sesscache_put_session() stored under `id` to `*session`: a new SSL_SESSION, which the caller frees with
 * SSL_SESSION_free(3), or returns from a get-session callback with `*copy` set to 0 (SSL_CTX_sess_set_get_cb(3)). sesscache_remove()
 * deletes it.
 *
 * Returns SESSCACHE_NOT_FOUND when there is no such session or it has expired, or another major version of OpenSSL stored it;
 * SESSCACHE_INVALID for NULL and for an id that is empty or too long, SESSCACHE_BUSY when the store could not be read,
 * SESSCACHE_MISMATCH when the library was built for another OpenSSL.
 */
sesscache_status sesscache_get_session(sesscache *cache,
                                       const unsigned char *id,
                                       size_t id_len,
                                       struct ssl_session_st **session);

/**
 * Calls `function` with every record of the application's own in the namespace of the cache that has not expired.
 *
 * The walk may or may not meet records that are stored or removed meanwhile. `function` may call any function of this
 * header, such as sesscache_remove(). `userdata` is passed through and may be NULL.
 *
 * Returns SESSCACHE_OK, also when `function` stopped the walk; SESSCACHE_INVALID for any other NULL.
 */
sesscache_status sesscache_each(sesscache *cache,
                                sesscache_each_fn function,
                                void *userdata);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SESSCACHE_H */

/*
 * The options: name=value pairs separated by spaces. Put a value that contains spaces in single quotes.
 *
 * capacity, by default 64MiB, or a quarter of the memory limit: a size from 1MiB to 64GiB, such as 256MiB.
 *     Hard limit of the store. A full store evicts the sessions that expire first.
 *
 * ttl, by default the SSL_CTX's timeout: a time from 1s to 366d, such as 90s, 15m, 2h or 1d.
 *     Life of a session. It begins with the last full handshake, and no resumption extends it.
 *
 * mode, by default 0600: 0600, 0640 or 0660.
 *     Mode of the files. The directory gets the matching search bits.
 *
 * owner, by default the user that opens it first: the name or number of a user that exists, such as www-data.
 *     Owner of the files. root can thus open a cache for workers that run as another user.
 *
 * group, by default the owner's: the name or number of a group that exists, such as tls.
 *     Group of the files, for use with mode=0640 or mode=0660.
 *
 * namespace, by default empty: up to 255 bytes of text.
 *     A session made in one namespace never resumes in another.
 *
 * sni, by default strict: strict or off.
 *     strict: a session resumes only under the server name it was made for (RFC 6066). off disables the check.
 *
 * single_use, by default early_data: early_data, always or off.
 *     Which TLS 1.3 tickets resume once only, over all processes: those offered with early data, all, or none.
 *
 * tickets, by default ids: ids or host.
 *     ids: clients get ids, also in TLS 1.3. host: OpenSSL's tickets stay as the program has them, with its keys and callbacks and without early data; ids serve clients of TLS 1.2 that offer no tickets.
 *
 * remove, by default failures: failures, openssl or never.
 *     Which of OpenSSL's removals delete a session from the store: those after a TLS error, all, or none.
 *
 * deadline, by default 5ms: a time from 0ms to 10s, such as 5ms.
 *     Longest wait for another writer. Past it the session is not stored, and the handshake goes on.
 *
 * decoded, by default 4MiB: 0, or a size up to 1GiB, such as 4MiB.
 *     Memory of each process for decoded sessions, one of each kind: others of the kind are made without parsing; with a client certificate, those of the same login. 0 keeps none.
 *
 * guard, by default off: on or off.
 *     on maps the store read-only, which protects it from stray writes of the program. Writes are then slower.
 *
 * key, by default PATH/key: an absolute path.
 *     File with the sealing keys, 32 bytes each. The first one seals, all of them open.
 *
 * readers, by default 2048: a number from 16 to 65536.
 *     Number of threads, over all processes, that can look up without waiting for writers.
 *
 * local, by default 8MiB: a size from 64KiB to 1GiB, such as 8MiB, or off.
 *     Memory for sessions that could not be stored, shared with child processes: they resume there.
 *
 * hold, by default off: on or off.
 *     on: each process opens the store at its first use and nothing by path later. See sesscache_hold(3).
 *
 * disk, by default off: on or off.
 *     on: no warning that the directory is on a disk, where handshakes wait while the file system is frozen or slow.
 *
 * client_tickets, by default 8: a number from 1 to 64.
 *     Tickets of TLS 1.3 that clients keep for one server. Each is used once, over all processes.
 *
 * policy, by default none: 1 to 255 bytes of text.
 *     Stands for a client's rules of trust that OpenSSL does not show, such as a verify callback or DANE: sessions resume only under the same text.
 */
