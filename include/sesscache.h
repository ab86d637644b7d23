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
 * A server whose cache cannot be opened goes on without it.
 *
 * Rules that hold for every function:
 * - Any thread may call any function at any time, except where a comment says otherwise.
 * - After fork(2) a child uses what it inherited as if nothing had happened. Nothing must be reopened.
 * - NULL where a comment does not say what it means is SESSCACHE_INVALID, never a crash.
 * - Output parameters are written on success only, except where a comment says otherwise.
 * - errno and OpenSSL's error queue are left as they were.
 * - Times are seconds since 1970 UTC; sizes are bytes.
 *
 * Link with: pkg-config --cflags --libs sesscache
 */

#ifndef SESSCACHE_H
#define SESSCACHE_H

/* Made from src/capi.rs by `make header`. Do not edit. */

#include <stddef.h>
#include <stdint.h>

struct ssl_ctx_st; /* SSL_CTX */
struct ssl_st;     /* SSL */

/**
 * What a call came to. 0 is success; sesscache_errmsg() has the sentence that goes with anything else.
 */
typedef enum {
    /**
     * Done.
     */
    SESSCACHE_OK = 0,
    /**
     * An argument, option or directory is not acceptable; the message says what would be.
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
     * No room: 64 caches are open, a record is over 64 KiB, or the device is full.
     */
    SESSCACHE_FULL = 4,
    /**
     * OpenSSL failed, for lack of memory or entropy.
     */
    SESSCACHE_OPENSSL = 5,
    /**
     * Not the OpenSSL this library was built for, or the directory is open with other options.
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
     * No such session or record.
     */
    SESSCACHE_NOT_FOUND = 9,
} sesscache_status;

/**
 * An open cache. Any thread may use it, and so may any child that inherits it through fork(2).
 */
typedef struct sesscache sesscache;

/**
 * Counters since the store was made, summed over all processes, and a few numbers of this moment. New fields are only
 * ever added at the end.
 */
typedef struct {
    /**
     * records in the store
     */
    uint64_t sessions;
    /**
     * bytes of pages in use
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
     * lookups of an id the store does not have
     */
    uint64_t misses_absent;
    /**
     * lookups of an id this store did not make, refused without a search
     */
    uint64_t misses_foreign;
    /**
     * lookups of a session at the end of its life
     */
    uint64_t misses_expired;
    /**
     * lookups under another protocol version or major version of OpenSSL
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
     * lookups where client authentication is demanded that the session lacks
     */
    uint64_t misses_client_auth;
    /**
     * records that did not open: damaged, or the key is gone
     */
    uint64_t misses_damaged;
    /**
     * lookups while the store could not be asked
     */
    uint64_t misses_unavailable;
    /**
     * sessions stored
     */
    uint64_t puts;
    /**
     * sessions not stored because nobody could look them up
     */
    uint64_t puts_skipped;
    /**
     * sessions not stored because the gate was held past the deadline
     */
    uint64_t puts_busy;
    /**
     * sessions not stored because no room could be made
     */
    uint64_t puts_full;
    /**
     * sessions not stored for another reason
     */
    uint64_t puts_failed;
    /**
     * sessions handed out for the only time
     */
    uint64_t takes;
    /**
     * sessions deleted on request or after a TLS error
     */
    uint64_t removes;
    /**
     * removals asked by OpenSSL that were no sign of a bad session
     */
    uint64_t removes_ignored;
    /**
     * sessions that made room before their time
     */
    uint64_t evicted;
    /**
     * sessions deleted at the end of their life
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
} sesscache_stats;

/**
 * Receives a message: the userdata given, a priority of syslog(3) (3 error, 4 warning, 5 notice), and one line without
 * newline that is valid until the function returns. May be called from any thread that uses the cache, at most once a
 * second per kind of message. It must not call back into sesscache.
 */
typedef void (*sesscache_log_fn)(void *userdata, int level, const char *message);

/**
 * Receives one record: the userdata given, its id, its data and its expiry (seconds since 1970). The pointers are valid
 * until it returns. Return 0 to go on, anything else to stop.
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
 * Opens the cache in the directory `path`, which is created with mode 0700 when it is missing, and writes its handle to
 * `*cache`. A directory on tmpfs, as /run/NAME, is recommended: it keeps secrets off the disk.
 *
 * `options` is NULL or a string of name=value pairs separated by spaces: "capacity=256MiB ttl=2h". They are listed at
 * the end of this header. NULL as `path` or `cache` is SESSCACHE_INVALID.
 *
 * No descriptor stays open and no process is bound to: call it before or after fork(2), daemon(3), chroot(2) or a
 * change of user, as long as the directory can still be reached where handshakes happen. Opening a directory twice in
 * a process gives two handles on one store. The caller closes the handle with sesscache_close().
 *
 * Returns SESSCACHE_INVALID for options or a directory that will not do, SESSCACHE_SYSTEM with the system's reason,
 * SESSCACHE_FORMAT for a directory of an incompatible version, SESSCACHE_FULL when 64 caches are open or the device is
 * full, SESSCACHE_MISMATCH when the directory is open in this process with another key= or deadline=.
 * `*cache` is only written on success. A server goes on without the cache when this fails.
 */
sesscache_status sesscache_open(const char *path,
                                const char *options,
                                sesscache **cache);

/**
 * Tells whether sesscache_open() would take these options, and touches nothing: for a server that is asked to check its
 * configuration without starting. NULL stands for the defaults.
 *
 * Returns SESSCACHE_INVALID for options that will not do, and for an owner or group that does not exist.
 */
sesscache_status sesscache_check(const char *options);

/**
 * Makes `ctx` look up and store its server sessions in the cache. Call it before the first SSL_new() on `ctx`, and on
 * every SSL_CTX that SSL_set_SSL_CTX() may switch to.
 *
 * It sets, whatever was there before:
 * - the session cache mode: SSL_SESS_CACHE_SERVER with no internal cache; SSL_SESS_CACHE_CLIENT stays if it was set. If you
 *   turn the internal cache on afterwards, there is no early data, and a ticket may resume twice in the process that made
 *   it;
 * - SSL_OP_NO_TICKET: TLS 1.2 clients use session ids, TLS 1.3 tickets are ids too. Ticket keys and ticket key callbacks
 *   are not asked. If you clear it afterwards, stateless tickets work as ever, but without early data;
 * - SSL_OP_NO_ANTI_REPLAY: replay of early data is prevented by the cache, across processes;
 * - the new, get and remove session callbacks; callbacks of your own are refused, see below;
 * - the session id generator. OpenSSL does not tell whether you had set one; if so, it is gone, also after detach. One set
 *   after attach works, but lookups are slower, re-issued tickets promise more time than they have, and stateless tickets
 *   may carry early data;
 * - the timeout, only with the option ttl=.
 *
 * The number of TLS 1.3 tickets and the session id context stay yours: with SSL_VERIFY_PEER, set a session id context or
 * nothing can be resumed. The cache and its options are those of the SSL_CTX given to SSL_new(), also after
 * SSL_set_SSL_CTX(); a session id context changed by that in the client_hello callback counts, in the servername callback
 * it comes too late.
 *
 * With SSL_VERIFY_PEER no session resumes that was made without asking for a certificate, with
 * SSL_VERIFY_FAIL_IF_NO_PEER_CERT none whose client showed none. A demand made in the servername or certificate callback
 * comes after OpenSSL has looked for the session, with any cache: make it in the client_hello callback, or do not begin to
 * demand certificates under a name without sesscache_flush(), or look at SSL_get0_peer_certificate() after the handshake.
 * OpenSSL verifies no certificate again: give SSL_CTXs that judge certificates differently session id contexts of their own.
 *
 * A resumed session tells what one from OpenSSL's own cache tells, with three exceptions. SSL_get_peer_cert_chain() is
 * NULL, as only the client's own certificate is stored. ex_data is not stored: what is to be found again belongs into
 * SSL_SESSION_set1_ticket_appdata(). The timeout of a TLS 1.3 session is what is left of its life, and so is the lifetime
 * that the client is told.
 *
 * `ctx` keeps the cache alive until it is freed: the handle may be closed at once. Attaching twice is fine.
 *
 * Returns SESSCACHE_INVALID for NULL, for an SSL_CTX that is attached to another cache, and for one that has session
 * callbacks of its own, which stay in place; SESSCACHE_MISMATCH when `ctx` belongs to another OpenSSL;
 * SESSCACHE_OPENSSL when memory runs out. On failure `ctx` is unchanged.
 */
sesscache_status sesscache_attach(sesscache *cache,
                                  struct ssl_ctx_st *ctx);

/**
 * Undoes sesscache_attach(): mode, options and timeout are as before, the callbacks and the id generator are gone.
 * Connections that were made before keep what they have. Not needed before SSL_CTX_free().
 *
 * Returns SESSCACHE_NOT_FOUND when `ctx` is not attached, SESSCACHE_INVALID for NULL.
 */
sesscache_status sesscache_detach(struct ssl_ctx_st *ctx);

/**
 * Gives the handle back. NULL is fine. Attached SSL_CTXs go on using the cache until they are freed; sessions stay in
 * the directory.
 */
void sesscache_close(sesscache *cache);

/**
 * The one call: sesscache_open(), sesscache_attach(), sesscache_close(). Statuses are theirs.
 */
sesscache_status sesscache_enable(struct ssl_ctx_st *ctx, const char *path, const char *options);

/**
 * This connection may not be resumed: deletes its session, in TLS 1.3 all its tickets, in every process, and stores no
 * more of it. For logout, for a client certificate that was refused.
 *
 * Returns SESSCACHE_NOT_FOUND when the connection has no session in a cache, SESSCACHE_BUSY when another process held
 * the store past the deadline: call again. NULL is SESSCACHE_INVALID.
 */
sesscache_status sesscache_forget(struct ssl_st *ssl);

/**
 * Deletes the session or record with this id (1 to 255 bytes), in every process.
 *
 * Returns SESSCACHE_NOT_FOUND when there is none, SESSCACHE_BUSY past the deadline, SESSCACHE_INVALID for NULL or a
 * length that no id has.
 */
sesscache_status sesscache_remove(sesscache *cache,
                                  const unsigned char *id,
                                  size_t id_len);

/**
 * Forgets everything, in every process, at once. A new sealing key is made first, so that what is left in freed pages or
 * backups cannot be read; a key file named with key= is the operator's and stays.
 *
 * Returns SESSCACHE_SYSTEM or SESSCACHE_FULL when the new store could not be made, SESSCACHE_INVALID for NULL.
 */
sesscache_status sesscache_flush(sesscache *cache);

/**
 * Deletes at most `max` sessions and records that have expired, and writes their number to `*removed` unless it is
 * NULL. Never needed: expired ones leave with later stores.
 *
 * Returns SESSCACHE_BUSY past the deadline, SESSCACHE_INVALID when `cache` is NULL.
 */
sesscache_status sesscache_sweep(sesscache *cache,
                                 size_t max,
                                 size_t *removed);

/**
 * Fills `stats` with counters summed over all processes. `size` is sizeof(sesscache_stats) as the program was compiled:
 * fields that this library does not know are set to 0, fields that the program does not know are left out.
 *
 * Returns SESSCACHE_INVALID for NULL or a size of 0, SESSCACHE_SYSTEM when the store cannot be opened.
 */
sesscache_status sesscache_read_stats(sesscache *cache,
                                      sesscache_stats *stats,
                                      size_t size);

/**
 * Sends messages about this directory to `function`; NULL, as at the beginning, sends them nowhere. `userdata` is handed
 * through and must live as long as the function may be called. Handles on one directory share the function.
 * What sesscache_open() had to mend is said at once.
 */
void sesscache_set_log(sesscache *cache,
                       sesscache_log_fn function,
                       void *userdata);

/**
 * A phrase for any status, never NULL, valid for ever.
 */
const char *sesscache_strerror(int status);

/**
 * What went wrong in this thread's last call that failed, and what to do; "" when none has. Never NULL; valid until
 * this thread's next call that fails.
 */
const char *sesscache_errmsg(void);

/**
 * The version of the library, as "0.1.0".
 */
const char *sesscache_version(void);

/**
 * Stores a record of the application's own under `id` (1 to 255 bytes) until `expires` (seconds since 1970), sealed and
 * bounded as sessions are. For servers that keep their own hooks. A record of the same id is replaced.
 *
 * Returns SESSCACHE_FULL for more than 65536 bytes or when no room can be made, SESSCACHE_BUSY past the deadline,
 * SESSCACHE_INVALID for NULL or a length that no id has. `data` may be NULL when `len` is 0.
 */
sesscache_status sesscache_put(sesscache *cache,
                               const unsigned char *id,
                               size_t id_len,
                               const void *data,
                               size_t len,
                               int64_t expires);

/**
 * Copies the record under `id` to `data`, which has room for `*len` bytes, and sets `*len` to its size.
 *
 * Returns SESSCACHE_NOT_FOUND when there is none or it has expired; SESSCACHE_INVALID for NULL, and when the room is too
 * small: then `*len` is the size it needs and nothing is copied. `data` may be NULL when `*len` is 0, to ask the size.
 * SESSCACHE_BUSY when the store could not be asked.
 */
sesscache_status sesscache_get(sesscache *cache,
                               const unsigned char *id,
                               size_t id_len,
                               void *data,
                               size_t *len);

/**
 * Calls `function` with every record of the application's own in the cache's namespace that has not expired. Records stored
 * or removed meanwhile may or may not be seen. `function` may call sesscache_remove() and the like.
 *
 * Returns SESSCACHE_OK also when `function` stopped it, SESSCACHE_INVALID for NULL.
 */
sesscache_status sesscache_each(sesscache *cache,
                                sesscache_each_fn function,
                                void *userdata);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SESSCACHE_H */

/*
 * The options: name=value pairs separated by spaces. A value with spaces stands in single quotes.
 *
 * capacity, by default 64MiB: a size from 1MiB to 64GiB, as 256MiB.
 *     Hard limit of the store. When it is full, the sessions that expire first make room.
 *
 * ttl, by default the SSL_CTX's timeout: a time from 1s to 366d, as 90s, 15m, 2h or 1d.
 *     Life of a session, counted from its last full handshake through any number of resumptions.
 *
 * mode, by default 0600: an octal file mode that gives others nothing and lets the owner read and write: 0600, 0640 or 0660.
 *     Mode of the files; the directory gets the matching search bits.
 *
 * owner, by default the user who opens first: a user name or number that exists, as www-data.
 *     User whose files these are: lets root open for workers that run as somebody else.
 *
 * group, by default the owner's: a group name or number that exists, as tls.
 *     Group of the files, of use with mode=0660.
 *
 * namespace, by default empty: up to 255 bytes of text.
 *     Sessions made in one namespace never resume in another.
 *
 * sni, by default strict: strict or off.
 *     strict: a session resumes only under the server name it was made for (RFC 6066).
 *
 * single_use, by default early_data: early_data, always or off.
 *     Which TLS 1.3 tickets resume once only: those offered with early data, all, or none. One for all processes.
 *
 * remove, by default failures: failures, openssl or never.
 *     Which of OpenSSL's removals are obeyed: those after a TLS error, all, or none.
 *
 * deadline, by default 5ms: a time from 0ms to 10s, as 5ms.
 *     Longest wait for another writer; past it the session is not stored and the handshake goes on.
 *
 * decoded, by default 1024: a number from 0 to 1000000.
 *     Decoded sessions kept per process, so that a returning client's certificate is not parsed again; 0: none.
 *
 * guard, by default off: on or off.
 *     on: the store is mapped read-only, so that a stray write of the host cannot reach it; slower writes.
 *
 * key, by default PATH/key: an absolute path.
 *     File of the sealing keys: 32 bytes each, the first seals, all open.
 *
 * readers, by default 2048: a number from 16 to 65536.
 *     Threads of all processes that can look up at the same time without waiting.
 */
