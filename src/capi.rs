//! The C API: thin wrappers of one shape. Pointers become references here or not at all; panics end here.
//!
//! Doc comments in this file are the header's: they are written for C.
#![allow(non_camel_case_types)]

mod border;
mod handle;
pub(crate) mod records;
pub(crate) mod report;

use std::ffi::{c_char, c_int, c_uchar, c_void};
use std::os::unix::ffi::OsStrExt;

use self::border::{border, bytes, checked, out, text};
use self::handle::{borrow, close, hand_over};
use crate::cache;
use crate::options::Options;
use crate::status::{self, Error};
use crate::tls::{SSL, SSL_CTX};

/// What a call came to. 0 is success; sesscache_errmsg() has the sentence that goes with anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum sesscache_status {
    /// Done.
    SESSCACHE_OK = 0,
    /// An argument, option or directory is not acceptable; the message says what would be.
    SESSCACHE_INVALID = 1,
    /// The operating system refused; the message has its reason.
    SESSCACHE_SYSTEM = 2,
    /// The directory holds something that this version cannot read.
    SESSCACHE_FORMAT = 3,
    /// No room: 64 caches are open, a record is over 64 KiB, or the device is full.
    SESSCACHE_FULL = 4,
    /// OpenSSL failed, for lack of memory or entropy.
    SESSCACHE_OPENSSL = 5,
    /// Not the OpenSSL this library was built for, or the directory is open with other options.
    SESSCACHE_MISMATCH = 6,
    /// Another process held the store past the deadline.
    SESSCACHE_BUSY = 7,
    /// A fault inside sesscache, which was contained.
    SESSCACHE_BUG = 8,
    /// No such session or record.
    SESSCACHE_NOT_FOUND = 9,
}

/// An open cache. Any thread may use it, and so may any child that inherits it through fork(2).
pub struct sesscache {
    _private: [u8; 0],
}

/// Counters since the store was made, summed over all processes, and a few numbers of this moment. New fields are only
/// ever added at the end.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct sesscache_stats {
    /// records in the store
    pub sessions: u64,
    /// bytes of pages in use
    pub used_bytes: u64,
    /// hard limit of the store, in bytes
    pub capacity: u64,
    /// number of the current generation
    pub generation: u64,
    /// lookups that found a session
    pub hits: u64,
    /// lookups of an id the store does not have
    pub misses_absent: u64,
    /// lookups of an id this store did not make, refused without a search
    pub misses_foreign: u64,
    /// lookups of a session at the end of its life
    pub misses_expired: u64,
    /// lookups under another protocol version or major version of OpenSSL
    pub misses_protocol: u64,
    /// lookups from another namespace
    pub misses_namespace: u64,
    /// lookups under another server name
    pub misses_server_name: u64,
    /// lookups where client authentication is demanded that the session lacks
    pub misses_client_auth: u64,
    /// records that did not open: damaged, or the key is gone
    pub misses_damaged: u64,
    /// lookups while the store could not be asked
    pub misses_unavailable: u64,
    /// sessions stored
    pub puts: u64,
    /// sessions not stored because nobody could look them up
    pub puts_skipped: u64,
    /// sessions not stored because the gate was held past the deadline
    pub puts_busy: u64,
    /// sessions not stored because no room could be made
    pub puts_full: u64,
    /// sessions not stored for another reason
    pub puts_failed: u64,
    /// sessions handed out for the only time
    pub takes: u64,
    /// sessions deleted on request or after a TLS error
    pub removes: u64,
    /// removals asked by OpenSSL that were no sign of a bad session
    pub removes_ignored: u64,
    /// sessions that made room before their time
    pub evicted: u64,
    /// sessions deleted at the end of their life
    pub expired: u64,
    /// lookups of a TLS 1.2 session whose cipher this connection does not allow
    pub misses_cipher: u64,
    /// lookups of a session whose login sesscache_forget() has ended
    pub misses_revoked: u64,
}

/// Receives a message: the userdata given, a priority of syslog(3) (3 error, 4 warning, 5 notice), and one line without
/// newline that is valid until the function returns. May be called from any thread that uses the cache, at most once a
/// second per kind of message. It must not call back into sesscache.
pub type sesscache_log_fn = Option<unsafe extern "C" fn(userdata: *mut c_void, level: c_int, message: *const c_char)>;

/// Receives one record: the userdata given, its id, its data and its expiry (seconds since 1970). The pointers are valid
/// until it returns. Return 0 to go on, anything else to stop.
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

/// An options string; NULL stands for the empty one.
///
/// # Safety
/// `options` is NULL or a string that outlives the result.
unsafe fn option_text<'a>(options: *const c_char) -> Result<&'a str, Error> {
    // SAFETY: by contract.
    match unsafe { text(options) } {
        Some(text) => std::str::from_utf8(text).map_err(|_| Error::invalid("the options are not UTF-8")),
        None => Ok(""),
    }
}

/// Opens the cache in the directory `path`, which is created with mode 0700 when it is missing, and writes its handle to
/// `*cache`. A directory on tmpfs, as /run/NAME, is recommended: it keeps secrets off the disk.
///
/// `options` is NULL or a string of name=value pairs separated by spaces: "capacity=256MiB ttl=2h". They are listed at
/// the end of this header. NULL as `path` or `cache` is SESSCACHE_INVALID.
///
/// No descriptor stays open and no process is bound to: call it before or after fork(2), daemon(3), chroot(2) or a
/// change of user, as long as the directory can still be reached where handshakes happen. Opening a directory twice in
/// a process gives two handles on one store. The caller closes the handle with sesscache_close().
///
/// Returns SESSCACHE_INVALID for options or a directory that will not do, SESSCACHE_SYSTEM with the system's reason,
/// SESSCACHE_FORMAT for a directory of an incompatible version, SESSCACHE_FULL when 64 caches are open or the device is
/// full, SESSCACHE_MISMATCH when the directory is open in this process with another key= or deadline=.
/// `*cache` is only written on success. A server goes on without the cache when this fails.
// # Safety
// The strings are NUL-terminated; `cache` points to room for a pointer.
#[no_mangle]
pub unsafe extern "C" fn sesscache_open(
    path: *const c_char,
    options: *const c_char,
    cache: *mut *mut sesscache,
) -> sesscache_status {
    border(|| {
        // SAFETY: by contract.
        let to = unsafe { out(cache, "cache") }?;
        // SAFETY: by contract.
        let path = unsafe { text(path) }.ok_or_else(|| Error::invalid("path is NULL; give a directory"))?;
        // SAFETY: by contract.
        let options = unsafe { option_text(options) }?;
        let path = std::path::Path::new(std::ffi::OsStr::from_bytes(path));
        *to = hand_over(cache::Cache::open(path, &Options::parse(options)?)?);
        Ok(())
    })
}

/// Tells whether sesscache_open() would take these options, and touches nothing: for a server that is asked to check its
/// configuration without starting. NULL stands for the defaults.
///
/// Returns SESSCACHE_INVALID for options that will not do, and for an owner or group that does not exist.
// # Safety
// `options` is NULL or a string.
#[no_mangle]
pub unsafe extern "C" fn sesscache_check(options: *const c_char) -> sesscache_status {
    border(|| {
        // SAFETY: by contract.
        let options = unsafe { option_text(options) }?;
        cache::check(&Options::parse(options)?)
    })
}

/// Makes `ctx` look up and store its server sessions in the cache. Call it before the first SSL_new() on `ctx`, and on
/// every SSL_CTX that SSL_set_SSL_CTX() may switch to.
///
/// It sets, whatever was there before:
/// - the session cache mode: SSL_SESS_CACHE_SERVER with no internal cache; SSL_SESS_CACHE_CLIENT stays if it was set. If you
///   turn the internal cache on afterwards, there is no early data, and a ticket may resume twice in the process that made
///   it;
/// - SSL_OP_NO_TICKET: TLS 1.2 clients use session ids, TLS 1.3 tickets are ids too. Ticket keys and ticket key callbacks
///   are not asked. If you clear it afterwards, stateless tickets work as ever, but without early data;
/// - SSL_OP_NO_ANTI_REPLAY: replay of early data is prevented by the cache, across processes;
/// - the new, get and remove session callbacks; callbacks of your own are refused, see below;
/// - the session id generator. OpenSSL does not tell whether you had set one; if so, it is gone, also after detach. One set
///   after attach works, but lookups are slower, re-issued tickets promise more time than they have, and stateless tickets
///   may carry early data;
/// - the timeout, only with the option ttl=.
///
/// The number of TLS 1.3 tickets and the session id context stay yours: with SSL_VERIFY_PEER, set a session id context or
/// nothing can be resumed. The cache and its options are those of the SSL_CTX given to SSL_new(), also after
/// SSL_set_SSL_CTX(); a session id context changed by that in the client_hello callback counts, in the servername callback
/// it comes too late.
///
/// With SSL_VERIFY_PEER no session resumes that was made without asking for a certificate, with
/// SSL_VERIFY_FAIL_IF_NO_PEER_CERT none whose client showed none. A demand made in the servername or certificate callback
/// comes after OpenSSL has looked for the session, with any cache: make it in the client_hello callback, or do not begin to
/// demand certificates under a name without sesscache_flush(), or look at SSL_get0_peer_certificate() after the handshake.
/// OpenSSL verifies no certificate again: give SSL_CTXs that judge certificates differently session id contexts of their own.
///
/// A resumed session tells what one from OpenSSL's own cache tells, with three exceptions. SSL_get_peer_cert_chain() is
/// NULL, as only the client's own certificate is stored. ex_data is not stored: what is to be found again belongs into
/// SSL_SESSION_set1_ticket_appdata(). The timeout of a TLS 1.3 session is what is left of its life, and so is the lifetime
/// that the client is told.
///
/// `ctx` keeps the cache alive until it is freed: the handle may be closed at once. Attaching twice is fine.
///
/// Returns SESSCACHE_INVALID for NULL, for an SSL_CTX that is attached to another cache, and for one that has session
/// callbacks of its own, which stay in place; SESSCACHE_MISMATCH when `ctx` belongs to another OpenSSL;
/// SESSCACHE_OPENSSL when memory runs out. On failure `ctx` is unchanged.
// # Safety
// `cache` is an open handle, `ctx` a live SSL_CTX that no other thread is changing.
#[no_mangle]
pub unsafe extern "C" fn sesscache_attach(cache: *mut sesscache, ctx: *mut SSL_CTX) -> sesscache_status {
    border(|| {
        // SAFETY: by contract.
        let cache = unsafe { borrow(cache) }?;
        let ctx = checked(ctx, "ctx")?;
        // SAFETY: by contract.
        unsafe { cache.attach(ctx) }
    })
}

/// Undoes sesscache_attach(): mode, options and timeout are as before, the callbacks and the id generator are gone.
/// Connections that were made before keep what they have. Not needed before SSL_CTX_free().
///
/// Returns SESSCACHE_NOT_FOUND when `ctx` is not attached, SESSCACHE_INVALID for NULL.
// # Safety
// `ctx` is a live SSL_CTX that no other thread is using.
#[no_mangle]
pub unsafe extern "C" fn sesscache_detach(ctx: *mut SSL_CTX) -> sesscache_status {
    border(|| {
        let ctx = checked(ctx, "ctx")?;
        // SAFETY: by contract.
        unsafe { cache::detach(ctx) }
    })
}

/// Gives the handle back. NULL is fine. Attached SSL_CTXs go on using the cache until they are freed; sessions stay in
/// the directory.
// # Safety
// `cache` is NULL or an open handle, which no thread uses any more.
#[no_mangle]
pub unsafe extern "C" fn sesscache_close(cache: *mut sesscache) {
    border(|| {
        // SAFETY: by contract.
        unsafe { close(cache) };
        Ok(())
    });
}

/// The one call: sesscache_open(), sesscache_attach(), sesscache_close(). Statuses are theirs.
// # Safety
// As for sesscache_open() and sesscache_attach().
#[no_mangle]
pub unsafe extern "C" fn sesscache_enable(
    ctx: *mut SSL_CTX,
    path: *const c_char,
    options: *const c_char,
) -> sesscache_status {
    let status = border(|| checked(ctx, "ctx").map(|_| ()));
    if status != sesscache_status::SESSCACHE_OK {
        return status;
    }
    let mut cache = std::ptr::null_mut();
    // SAFETY: by contract.
    let opened = unsafe { sesscache_open(path, options, &mut cache) };
    if opened != sesscache_status::SESSCACHE_OK {
        return opened;
    }
    // SAFETY: by contract, and the handle was opened above.
    let attached = unsafe { sesscache_attach(cache, ctx) };
    // SAFETY: opened above, and nobody else has it.
    unsafe { sesscache_close(cache) };
    attached
}

/// This connection may not be resumed: deletes its session, in TLS 1.3 all its tickets, in every process, and stores no
/// more of it. For logout, for a client certificate that was refused.
///
/// Returns SESSCACHE_NOT_FOUND when the connection has no session in a cache, SESSCACHE_BUSY when another process held
/// the store past the deadline: call again. NULL is SESSCACHE_INVALID.
// # Safety
// `ssl` is a live connection that no other thread is using.
#[no_mangle]
pub unsafe extern "C" fn sesscache_forget(ssl: *mut SSL) -> sesscache_status {
    border(|| {
        let ssl = checked(ssl, "ssl")?;
        // SAFETY: by contract.
        unsafe { cache::forget(ssl) }
    })
}

/// Deletes the session or record with this id (1 to 255 bytes), in every process.
///
/// Returns SESSCACHE_NOT_FOUND when there is none, SESSCACHE_BUSY past the deadline, SESSCACHE_INVALID for NULL or a
/// length that no id has.
// # Safety
// `cache` is an open handle; `id` has `id_len` bytes.
#[no_mangle]
pub unsafe extern "C" fn sesscache_remove(
    cache: *mut sesscache,
    id: *const c_uchar,
    id_len: usize,
) -> sesscache_status {
    border(|| {
        // SAFETY: by contract.
        let cache = unsafe { borrow(cache) }?;
        // SAFETY: by contract.
        let id = unsafe { bytes(id, id_len, "id") }?;
        cache.remove(id)
    })
}

/// Forgets everything, in every process, at once. A new sealing key is made first, so that what is left in freed pages or
/// backups cannot be read; a key file named with key= is the operator's and stays.
///
/// Returns SESSCACHE_SYSTEM or SESSCACHE_FULL when the new store could not be made, SESSCACHE_INVALID for NULL.
// # Safety
// `cache` is an open handle.
#[no_mangle]
pub unsafe extern "C" fn sesscache_flush(cache: *mut sesscache) -> sesscache_status {
    border(|| {
        // SAFETY: by contract.
        unsafe { borrow(cache) }?.flush()
    })
}

/// Deletes at most `max` sessions and records that have expired, and writes their number to `*removed` unless it is
/// NULL. Never needed: expired ones leave with later stores.
///
/// Returns SESSCACHE_BUSY past the deadline, SESSCACHE_INVALID when `cache` is NULL.
// # Safety
// `cache` is an open handle; `removed` is NULL or points to a size_t.
#[no_mangle]
pub unsafe extern "C" fn sesscache_sweep(cache: *mut sesscache, max: usize, removed: *mut usize) -> sesscache_status {
    border(|| {
        // SAFETY: by contract.
        let swept = unsafe { borrow(cache) }?.sweep(max)?;
        // SAFETY: by contract.
        if let Some(removed) = unsafe { removed.as_mut() } {
            *removed = swept;
        }
        Ok(())
    })
}

/// Fills `stats` with counters summed over all processes. `size` is sizeof(sesscache_stats) as the program was compiled:
/// fields that this library does not know are set to 0, fields that the program does not know are left out.
///
/// Returns SESSCACHE_INVALID for NULL or a size of 0, SESSCACHE_SYSTEM when the store cannot be opened.
// # Safety
// `cache` is an open handle; `stats` has room for `size` bytes.
#[no_mangle]
pub unsafe extern "C" fn sesscache_read_stats(
    cache: *mut sesscache,
    stats: *mut sesscache_stats,
    size: usize,
) -> sesscache_status {
    border(|| {
        // SAFETY: by contract.
        let cache = unsafe { borrow(cache) }?;
        let to = checked(stats, "stats")?.cast::<u8>();
        if size == 0 {
            return Err(Error::invalid("size is 0; give sizeof(sesscache_stats)"));
        }
        let values = cache.stats()?.0;
        let known: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
        // SAFETY: by contract.
        let to = unsafe { std::slice::from_raw_parts_mut(to, size) };
        to.fill(0);
        let n = known.len().min(size);
        to[..n].copy_from_slice(&known[..n]);
        Ok(())
    })
}

/// Sends messages about this directory to `function`; NULL, as at the beginning, sends them nowhere. `userdata` is handed
/// through and must live as long as the function may be called. Handles on one directory share the function.
/// What sesscache_open() had to mend is said at once.
// # Safety
// `cache` is NULL or an open handle; `function` may be called from any thread that uses the cache.
#[no_mangle]
pub unsafe extern "C" fn sesscache_set_log(cache: *mut sesscache, function: sesscache_log_fn, userdata: *mut c_void) {
    border(|| {
        if !cache.is_null() {
            // SAFETY: by contract.
            let cache = unsafe { borrow(cache) }?;
            cache.set_log(function.map(|function| report::sink(function, userdata)));
        }
        Ok(())
    });
}

/// A phrase for any status, never NULL, valid for ever.
#[no_mangle]
pub extern "C" fn sesscache_strerror(status: c_int) -> *const c_char {
    status::phrase(status).as_ptr()
}

/// What went wrong in this thread's last call that failed, and what to do; "" when none has. Never NULL; valid until
/// this thread's next call that fails.
#[no_mangle]
pub extern "C" fn sesscache_errmsg() -> *const c_char {
    report::message()
}

/// The version of the library, as "0.1.0".
#[no_mangle]
pub extern "C" fn sesscache_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
