//! The C API: thin wrappers of one shape. Pointers become references here or not at all; panics end here.
//!
//! Doc comments in this file and in `records` are the header's: they are written for C. The header's enum and the struct of
//! counters are made from the tables in `status` and `stats`.
#![allow(non_camel_case_types)]

mod border;
mod client;
pub(crate) mod records;
pub(crate) mod report;

use std::ffi::{c_char, c_int, c_uchar, c_void, OsStr};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;

use self::border::{border, borrow, bytes, checked, fill, out, room, text};
use crate::cache::{self, Cache};
use crate::stats::Stats as sesscache_stats;
pub(crate) use crate::status::sesscache_status;
use crate::status::{self, Error, Result};
use crate::tls::{SSL, SSL_CTX};

/// An open cache. Any thread may use it, and so may any child process that inherits it through fork(2).
pub struct sesscache(Cache);

/// Receives a message: the userdata given, a priority of syslog(3) (3 error, 4 warning, 5 notice), and one line without a
/// newline. The line is valid until the function returns. Any thread that uses the cache may call the function, at most once
/// a second per kind of message. The function must not call back into sesscache.
pub type sesscache_log_fn = Option<unsafe extern "C" fn(userdata: *mut c_void, level: c_int, message: *const c_char)>;

/// Receives one record: the userdata given, its id, its data and its expiry (seconds since 1970). The pointers are valid
/// until the function returns. Return 0 to go on, anything else to stop.
pub type sesscache_each_fn = Option<
    unsafe extern "C" fn(
        userdata: *mut c_void,
        id: *const c_uchar,
        id_len: usize,
        data: *const c_void,
        len: usize,
        expires: i64,
    ) -> c_int,
>;

/// The cache of a path and options as C gives them.
///
/// # Safety
/// Both are NULL or NUL-terminated, and nobody changes them during the call.
unsafe fn open(path: *const c_char, options: *const c_char) -> Result<Cache> {
    // SAFETY: `text` demands what this function demands.
    let path = unsafe { text(path) }.ok_or_else(|| Error::invalid("path is NULL").remedy("give a directory"))?;
    // SAFETY: `options` demands what this function demands.
    let options = unsafe { border::options(options) }?;
    Cache::open(OsStr::from_bytes(path), &options)
}

/// Opens the cache in the directory `path` and writes its handle to `*cache`. The directory is created with mode 0700 when
/// it is missing; one on tmpfs, such as /run/NAME, keeps secrets off the disk.
///
/// `options` is a string of name=value pairs separated by spaces, such as "capacity=256MiB ttl=2h"; NULL stands for the empty
/// string. The end of this header lists the options. The library copies both strings. A pair name?=value is a default: it counts
/// where the string has no name=value, so that a program can append its own to what an administrator wrote.
///
/// The caller frees the handle with sesscache_close(). Several handles on one directory share one store.
///
/// No descriptor stays open, and the handle is bound to no process: call it before or after fork(2), daemon(3), chroot(2) or
/// a change of user. A process that serves and cannot reach the directory keeps its sessions in memory, which it shares with the
/// process that called sesscache_open() before fork(2), and with all other children of that: see the option local.
///
/// Returns SESSCACHE_INVALID for a `path` or `cache` that is NULL and for options or a directory that are not acceptable,
/// SESSCACHE_SYSTEM with the system's reason, such as an RLIMIT_AS below the capacity, SESSCACHE_FORMAT for a directory of an incompatible version, SESSCACHE_FULL when
/// 64 caches of different directories or options are open in this process or the device is full, SESSCACHE_MISMATCH when this process has the directory open with
/// another key=, deadline= or local=, SESSCACHE_OPENSSL when libcrypto has no AES-256-GCM or SHA-256: they come from the default library context, or
/// where that has none from one of the library's own with OpenSSL's default provider. A server whose cache cannot be opened goes on
/// without it.
// # Safety
// The strings are NULL or NUL-terminated and nobody changes them before the call returns; `cache` is NULL or has room for a
// pointer that nobody else uses meanwhile.
#[no_mangle]
pub unsafe extern "C" fn sesscache_open(
    path: *const c_char,
    options: *const c_char,
    cache: *mut *mut sesscache,
) -> sesscache_status {
    border(|| {
        // SAFETY: `out` demands NULL or room that is nobody else's, which the caller owes; MaybeUninit needs no value.
        let to = unsafe { out(cache.cast::<MaybeUninit<*mut sesscache>>(), "cache") }?;
        // SAFETY: `open` demands strings or NULL, which the caller owes.
        let cache = unsafe { open(path, options) }?;
        to.write(Box::into_raw(Box::new(sesscache(cache))));
        Ok(())
    })
}

/// Tells whether sesscache_open() would accept these options, and touches nothing: for a server that checks its configuration
/// without starting. NULL stands for the defaults.
///
/// Returns SESSCACHE_INVALID for options that are not acceptable, and for an owner or group that does not exist.
// # Safety
// `options` is NULL or NUL-terminated and nobody changes it before the call returns.
#[no_mangle]
pub unsafe extern "C" fn sesscache_check(options: *const c_char) -> sesscache_status {
    border(|| {
        // SAFETY: `options` demands a string or NULL, which the caller owes.
        cache::check(&unsafe { border::options(options) }?)
    })
}

/// Makes `ctx` look up and store its server sessions in the cache. Call it before the first SSL_new() on `ctx`, and on
/// every SSL_CTX that SSL_set_SSL_CTX() may switch to.
///
/// It sets, whatever was set before:
/// - the session cache mode: SSL_SESS_CACHE_SERVER without an internal cache; SSL_SESS_CACHE_CLIENT stays if it was set. If
///   you turn the internal cache on afterwards, there is no early data, and a ticket may resume twice in the process that
///   made it;
/// - SSL_OP_NO_TICKET: TLS 1.2 clients use session ids, and TLS 1.3 tickets are ids too. OpenSSL then uses no ticket keys
///   and calls no ticket key callback. If you clear the option afterwards, stateless tickets work, without early data;
/// - SSL_OP_NO_ANTI_REPLAY: the cache prevents the replay of early data, across processes;
/// - the new, get and remove session callbacks. Callbacks of your own are refused, see below;
/// - the session id generator. One of your own is replaced, also after detach: OpenSSL cannot report that one is set. If you
///   set one after attach, lookups are slower, re-issued tickets promise more time than they have, and stateless tickets may
///   carry early data;
/// - the timeout, only with the option ttl=.
///
/// With the option tickets=host, SSL_OP_NO_TICKET and SSL_OP_NO_ANTI_REPLAY stay as they are, and there is no early data
/// (SSL_CTX_set_max_early_data(3), restored by detach). That is for a server with SSL_CTX_set_session_ticket_cb(3): OpenSSL asks its
/// dec_cb about stateless tickets only, and cannot report that one is set. With tickets that are ids, sessions that dec_cb would
/// refuse resume, and gen_cb is not called in TLS 1.2; the data it adds in TLS 1.3 are stored, and SSL_SESSION_get0_ticket_appdata(3)
/// finds them after the handshake. Stateless tickets are in no cache: sesscache_forget(), sesscache_flush() and other processes
/// without the same keys do not know them.
///
/// The number of TLS 1.3 tickets and the session id context stay yours. With SSL_VERIFY_PEER, set a session id context:
/// OpenSSL resumes nothing without one (SSL_CTX_set_session_id_context(3)). The cache and its options are those of the
/// SSL_CTX given to SSL_new(), also after SSL_set_SSL_CTX(). A session id context that SSL_set_SSL_CTX() changes counts in the
/// client_hello callback; in the servername callback it comes too late.
///
/// With SSL_VERIFY_PEER, a session made without asking for a certificate does not resume; with
/// SSL_VERIFY_FAIL_IF_NO_PEER_CERT, neither does one whose client showed none. OpenSSL looks for the session before it calls
/// the servername and the certificate callback, so a demand made there comes too late, with any cache. Make it in the
/// client_hello callback, or call sesscache_flush() when you begin to demand certificates under a name, or look at
/// SSL_get0_peer_certificate() after the handshake. OpenSSL does not verify a certificate again: give SSL_CTXs that judge
/// certificates differently session id contexts of their own. A session expires with its client's certificate.
///
/// A TLS 1.2 session does not resume under a cipher that SSL_get_ciphers() or the security level no longer allows, nor where
/// SSL_OP_NO_EXTENDED_MASTER_SECRET rules its extended master secret out: the handshake is full.
///
/// A resumed session tells what one from OpenSSL's own cache tells, with four exceptions. SSL_get_peer_cert_chain() is
/// NULL, because a session stores the client's own certificate only. ex_data is not stored; use
/// SSL_SESSION_set1_ticket_appdata() for what must be found again. The timeout of a TLS 1.3 session is what is left of its
/// life, and so is the lifetime that the client is told. The client's certificate belongs to the default OSSL_LIB_CTX, also where
/// `ctx` has one of its own, as after a stateless ticket: its key can always be read, while X509_digest(3) and others that look
/// for algorithms in the certificate's context need them in the default one.
///
/// `ctx` keeps the cache alive until it is freed: you may close the handle at once. Attaching twice does no harm. No other
/// thread may use `ctx` meanwhile.
///
/// Returns SESSCACHE_INVALID for NULL, for an SSL_CTX that is attached to another cache, and for one that has session
/// callbacks of its own, which stay in place; SESSCACHE_MISMATCH when `ctx` belongs to another OpenSSL;
/// SESSCACHE_OPENSSL when memory runs out. On failure `ctx` is unchanged.
// # Safety
// `cache` is NULL or an open handle, `ctx` NULL or a live SSL_CTX that no other thread uses before the call returns.
#[no_mangle]
pub unsafe extern "C" fn sesscache_attach(cache: *mut sesscache, ctx: *mut SSL_CTX) -> sesscache_status {
    border(|| {
        // SAFETY: `borrow` demands NULL or an open handle, which the caller owes.
        let cache = unsafe { borrow(cache) }?;
        let ctx = checked(ctx, "ctx")?;
        // SAFETY: `attach_raw` demands a live SSL_CTX that no other thread uses; it is not NULL, the rest the caller owes.
        unsafe { cache.attach_raw(ctx) }
    })
}

/// Undoes sesscache_attach(): session cache mode, options and timeout are as before, the callbacks and the id generator are
/// removed. A mode, a timeout and callbacks that you have set since stay. Connections that exist keep the cache. Not needed
/// before SSL_CTX_free(). No other thread may use `ctx` meanwhile.
///
/// Returns SESSCACHE_NOT_FOUND when `ctx` is not attached, SESSCACHE_INVALID for NULL.
// # Safety
// `ctx` is NULL or a live SSL_CTX that no other thread uses before the call returns.
#[no_mangle]
pub unsafe extern "C" fn sesscache_detach(ctx: *mut SSL_CTX) -> sesscache_status {
    border(|| {
        let ctx = checked(ctx, "ctx")?;
        // SAFETY: `detach_raw` demands a live SSL_CTX that no other thread uses; it is not NULL, the rest the caller owes.
        unsafe { cache::detach_raw(ctx) }
    })
}

/// Gives `ssl`, which SSL_new() made before its SSL_CTX was attached or detached, what SSL_new() would copy from the SSL_CTX now:
/// SSL_OP_NO_TICKET, SSL_OP_NO_ANTI_REPLAY and the session id generator. For programs that learn of an SSL_CTX only when it
/// makes its first connection; without it, the ticket of that connection is a stateless one, which no other process resumes.
/// Call it before the handshake. No other thread may use `ssl` meanwhile.
///
/// Returns SESSCACHE_NOT_FOUND when the SSL_CTX was never attached, SESSCACHE_INVALID for NULL, and for an `ssl` that has no
/// SSL_CTX yet: where SSL_new() of OpenSSL 3.2 and later constructs its ex_data, and copies the SSL_CTX's settings afterwards.
// # Safety
// `ssl` is NULL or a live connection whose handshake has not begun and that no other thread uses before the call returns.
#[no_mangle]
pub unsafe extern "C" fn sesscache_inherit(ssl: *mut SSL) -> sesscache_status {
    border(|| {
        let ssl = checked(ssl, "ssl")?;
        // SAFETY: `inherit_raw` demands a live connection before its handshake that no other thread uses; it is not NULL, the
        // rest the caller owes.
        unsafe { cache::inherit_raw(ssl) }
    })
}

/// Frees the handle; NULL does nothing. Attached SSL_CTXs use the cache until they are freed, and the sessions stay in the
/// directory. No thread may use the handle any more.
// # Safety
// `cache` is NULL or an open handle that no thread uses any more.
#[no_mangle]
pub unsafe extern "C" fn sesscache_close(cache: *mut sesscache) {
    border(|| {
        if !cache.is_null() {
            // SAFETY: `from_raw` demands a pointer of `into_raw` that nobody uses or frees again: sesscache_open() made it, and
            // the caller gives it up.
            drop(unsafe { Box::from_raw(cache) });
        }
        Ok(())
    });
}

/// Opens all that serving needs, in the calling process, and opens nothing by path there from then on. For a process that is
/// about to give up the file system: by chroot(2), a change of user, or a filter of system calls. sesscache_hold(3) lists the system
/// calls that are made afterwards. The option hold=on does the same at the first use in each process.
///
/// Any thread of the process may use the cache afterwards. What would need a path does not happen: when the store is flushed or the
/// key file changes, also by a key that is added, this process goes on with sessions in memory (option local), and says so once. When a
/// new generation begins from which earlier sessions still resume, they resume here too, and new ones are kept in memory.
/// sesscache_flush() returns SESSCACHE_SYSTEM there. A child that is forked after this call has the sessions in memory only,
/// because nothing of the store itself can be used across fork(2): call this function in each process that serves, not before
/// it is forked.
///
/// Returns SESSCACHE_SYSTEM with the system's reason, or another status of sesscache_open(), when the store cannot be opened: this
/// process then opens nothing either, and keeps its sessions in memory. SESSCACHE_INVALID for NULL.
// # Safety
// `cache` is NULL or an open handle.
#[no_mangle]
pub unsafe extern "C" fn sesscache_hold(cache: *mut sesscache) -> sesscache_status {
    border(|| {
        // SAFETY: `borrow` demands NULL or an open handle, which the caller owes.
        unsafe { borrow(cache) }?.hold()
    })
}

/// Opens, attaches and closes in one call: see sesscache_open() and sesscache_attach(), whose statuses it returns. On an SSL_CTX
/// that has the cache already it does nothing.
///
/// For a server with an SSL_CTX for each connection: a store that comes and goes stays open for two seconds after its last
/// SSL_CTX was freed, unless it has a log function, and is closed by the next call into the library after that, or at exit(3).
// # Safety
// As for sesscache_open() and sesscache_attach().
#[no_mangle]
pub unsafe extern "C" fn sesscache_enable(
    ctx: *mut SSL_CTX,
    path: *const c_char,
    options: *const c_char,
) -> sesscache_status {
    border(|| {
        let ctx = checked(ctx, "ctx")?;
        // SAFETY: `open` demands strings or NULL, which the caller owes.
        let cache = unsafe { open(path, options) }?;
        // SAFETY: `attach_raw` demands a live SSL_CTX that no other thread uses; it is not NULL, the rest the caller owes.
        unsafe { cache.attach_raw(ctx) }
    })
}

/// Ends the login behind this connection: nothing that goes back to the same full handshake resumes any more, in any process,
/// and nothing more of it is stored. For a logout, or for a client certificate that was rejected. No other
/// thread may use `ssl` meanwhile.
///
/// Returns SESSCACHE_NOT_FOUND when the connection has no session in a cache, SESSCACHE_INVALID for NULL.
// # Safety
// `ssl` is NULL or a live connection that no other thread uses before the call returns.
#[no_mangle]
pub unsafe extern "C" fn sesscache_forget(ssl: *mut SSL) -> sesscache_status {
    border(|| {
        let ssl = checked(ssl, "ssl")?;
        // SAFETY: `forget_raw` demands a live connection that no other thread uses; it is not NULL, the rest the caller owes.
        unsafe { cache::forget_raw(ssl) }
    })
}

/// Deletes the session or record with this id (1 to 255 bytes), in every process; one that was kept in memory, as it could not be
/// stored, in this process and in those that share its memory.
///
/// Returns SESSCACHE_NOT_FOUND when there is none, SESSCACHE_BUSY when another process held the store past the deadline,
/// SESSCACHE_INVALID for NULL and for an id that is empty or too long.
// # Safety
// `cache` is NULL or an open handle; `id` is NULL or has `id_len` bytes that nobody changes before the call returns.
#[no_mangle]
pub unsafe extern "C" fn sesscache_remove(
    cache: *mut sesscache,
    id: *const c_uchar,
    id_len: usize,
) -> sesscache_status {
    border(|| {
        // SAFETY: `borrow` demands NULL or an open handle, which the caller owes.
        let cache = unsafe { borrow(cache) }?;
        // SAFETY: `bytes` demands NULL or `id_len` bytes that do not change, which the caller owes.
        let id = unsafe { bytes(id, id_len, "id") }?;
        cache.remove(id)
    })
}

/// Deletes all sessions and records, in every process, at once. It makes a new sealing key first, so that nobody can read
/// what is left in freed pages or backups; a key file named with key= belongs to the operator and stays.
///
/// Returns SESSCACHE_SYSTEM or SESSCACHE_FULL when the new store could not be made, SESSCACHE_INVALID for NULL.
// # Safety
// `cache` is NULL or an open handle.
#[no_mangle]
pub unsafe extern "C" fn sesscache_flush(cache: *mut sesscache) -> sesscache_status {
    border(|| {
        // SAFETY: `borrow` demands NULL or an open handle, which the caller owes.
        unsafe { borrow(cache) }?.flush()
    })
}

/// Deletes at most `max` sessions and records that have expired, and writes their number to `*removed` unless `removed` is
/// NULL. Not needed: each store of a session deletes some expired ones.
///
/// Returns SESSCACHE_BUSY when another process held the store past the deadline, SESSCACHE_INVALID when `cache` is NULL.
// # Safety
// `cache` is NULL or an open handle; `removed` is NULL or has room for a size_t that nobody else uses meanwhile.
#[no_mangle]
pub unsafe extern "C" fn sesscache_sweep(cache: *mut sesscache, max: usize, removed: *mut usize) -> sesscache_status {
    border(|| {
        // SAFETY: `borrow` demands NULL or an open handle, which the caller owes.
        let swept = unsafe { borrow(cache) }?.sweep(max)?;
        if !removed.is_null() {
            // SAFETY: `out` demands room that is nobody else's, which the caller owes; MaybeUninit needs no value.
            unsafe { out(removed.cast::<MaybeUninit<usize>>(), "removed") }?.write(swept);
        }
        Ok(())
    })
}

/// Fills `stats` with counters summed over all processes. `size` is sizeof(sesscache_stats) as the program was compiled: fields
/// that this library does not know are set to 0, fields that the program does not know are left out.
///
/// Where the store cannot be opened, in a chroot for example, the counters are read all the same, and `sessions` and `used_bytes`
/// are 0.
///
/// Returns SESSCACHE_INVALID for NULL or a size of 0, SESSCACHE_SYSTEM or SESSCACHE_BUSY when the open store cannot be read.
// # Safety
// `cache` is NULL or an open handle; `stats` is NULL or has room for `size` bytes that nobody else uses meanwhile.
#[no_mangle]
pub unsafe extern "C" fn sesscache_read_stats(
    cache: *mut sesscache,
    stats: *mut sesscache_stats,
    size: usize,
) -> sesscache_status {
    border(|| {
        // SAFETY: `borrow` demands NULL or an open handle, which the caller owes.
        let cache = unsafe { borrow(cache) }?;
        // SAFETY: `room` demands NULL or `size` bytes that are nobody else's, which the caller owes.
        let to = unsafe { room(stats.cast(), size, "stats") }?;
        if to.is_empty() {
            return Err(Error::invalid("size is 0").remedy("give sizeof(sesscache_stats)"));
        }
        let known = cache.stats()?.values().into_iter().flat_map(u64::to_ne_bytes);
        fill(to, known.chain(std::iter::repeat(0)));
        Ok(())
    })
}

/// Sends messages about this directory to `function`. NULL as `function`, the default, drops them; NULL as `cache` does
/// nothing. The handles on one directory share the function.
///
/// `userdata` is passed through and may be NULL; it must stay valid as long as `function` may be called. What sesscache_open()
/// had to repair is reported at once.
// # Safety
// `cache` is NULL or an open handle; any thread that uses the cache may call `function` with `userdata` and a string.
#[no_mangle]
pub unsafe extern "C" fn sesscache_set_log(cache: *mut sesscache, function: sesscache_log_fn, userdata: *mut c_void) {
    border(|| {
        if !cache.is_null() {
            // SAFETY: `borrow` demands NULL or an open handle, which the caller owes.
            let cache = unsafe { borrow(cache) }?;
            // SAFETY: `sink` demands a function that any thread may call with this userdata, which the caller owes.
            cache.set_log(function.map(|function| unsafe { report::sink(function, userdata) }));
        }
        Ok(())
    });
}

/// Returns a phrase for any number, also for one that is no status. Never NULL, and valid as long as the process.
#[no_mangle]
pub extern "C" fn sesscache_strerror(status: c_int) -> *const c_char {
    status::phrase(status).as_ptr()
}

/// Returns what went wrong in the last call of this thread that failed, and what to do; "" when none has failed. Never NULL,
/// and valid until the next call of this thread that fails.
#[no_mangle]
pub extern "C" fn sesscache_errmsg() -> *const c_char {
    report::message()
}

/// Returns the version of the library, such as "0.1.0". Never NULL, and valid as long as the process.
#[no_mangle]
pub extern "C" fn sesscache_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
