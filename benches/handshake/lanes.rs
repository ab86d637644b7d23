//! What is compared: ways for a server to know a session again.

use std::cell::{Cell, RefCell};
use std::ptr;

use libc::c_int;
use sesscache::Cache;

use crate::context::{Context, People, Setting};
use crate::ffi::{self, must, Session};

/// A way for a server to know a session again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Callbacks that cost nothing: they keep one SSL_SESSION and hand out references.
    PassThrough,
    /// Callbacks that keep DER: what OpenSSL makes every external cache pay, without any cost of its own.
    Codec,
    /// OpenSSL's cache within one process.
    Internal,
    /// sesscache, in a process that has decoded the session before where that is possible.
    Sesscache,
    /// sesscache without its table of decoded sessions: as in a process that sees the session for the first time.
    Unseen,
    /// Stateless tickets.
    Tickets,
}

impl Lane {
    pub const ALL: [Lane; 6] =
        [Lane::PassThrough, Lane::Codec, Lane::Internal, Lane::Sesscache, Lane::Unseen, Lane::Tickets];

    pub fn name(self) -> &'static str {
        match self {
            Lane::PassThrough => "pass-through",
            Lane::Codec => "d2i and i2d alone",
            Lane::Internal => "OpenSSL's own cache",
            Lane::Sesscache => "sesscache",
            Lane::Unseen => "sesscache, decoded=0",
            Lane::Tickets => "stateless tickets",
        }
    }

    /// Whether the session may come from another process.
    pub fn is_shared(self) -> bool {
        matches!(self, Lane::Sesscache | Lane::Unseen)
    }

    /// A server that goes this way.
    pub fn server(self, setting: Setting, people: &People, caches: &Caches) -> Context {
        let server = Context::server(setting, people);
        let external = ffi::SSL_SESS_CACHE_SERVER | ffi::SSL_SESS_CACHE_NO_INTERNAL | ffi::SSL_SESS_CACHE_NO_AUTO_CLEAR;
        match self {
            Lane::PassThrough | Lane::Codec => {
                server.set_mode(external);
                server.set_options(ffi::NO_TICKET | ffi::NO_ANTI_REPLAY);
                let (new, get): (ffi::NewCb, ffi::GetCb) =
                    if self == Lane::Codec { (codec_new, codec_get) } else { (pass_new, pass_get) };
                set_callbacks(&server, new, get);
            }
            Lane::Internal => {
                server.set_mode(ffi::SSL_SESS_CACHE_SERVER);
                server.set_options(ffi::NO_TICKET | ffi::NO_ANTI_REPLAY);
            }
            Lane::Sesscache | Lane::Unseen => {
                let cache = if self == Lane::Unseen { &caches.unseen } else { &caches.seen };
                // SAFETY: live, and this thread is the only one.
                unsafe { cache.attach_raw(server.0) }.unwrap_or_else(|error| panic!("attach: {}", error.detail));
            }
            Lane::Tickets => {}
        }
        server
    }
}

/// Two handles on one store.
pub struct Caches {
    pub seen: Cache,
    pub unseen: Cache,
}

/// Sets both callbacks.
pub fn set_callbacks(server: &Context, new: ffi::NewCb, get: ffi::GetCb) {
    // SAFETY: live; the functions have the types that OpenSSL calls.
    unsafe { ffi::SSL_CTX_sess_set_new_cb(server.0, Some(new)) };
    // SAFETY: same.
    unsafe { ffi::SSL_CTX_sess_set_get_cb(server.0, Some(get)) };
}

thread_local! {
    /// The session of `PassThrough`.
    static KEPT: RefCell<Option<Session>> = const { RefCell::new(None) };
    /// What it replaced: freed by `tidy`, outside of what is timed.
    static REPLACED: RefCell<Vec<Session>> = const { RefCell::new(Vec::new()) };
    /// The session of `Codec`.
    static DER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// Whether new sessions replace the one that is kept.
    static FOLLOW: Cell<bool> = const { Cell::new(true) };
}

/// Whether the two floors keep what is new (true), or go on with what they have: then what `Codec` encodes is encoded
/// and dropped.
pub fn follow(yes: bool) {
    FOLLOW.set(yes);
}

/// Frees what the pass-through left.
pub fn tidy() {
    REPLACED.with_borrow_mut(Vec::clear);
}

/// Frees everything that the floors keep.
pub fn forget() {
    tidy();
    KEPT.set(None);
    DER.with_borrow_mut(Vec::clear);
}

unsafe extern "C" fn pass_new(_ssl: *mut ffi::SSL, session: *mut ffi::SSL_SESSION) -> c_int {
    if !FOLLOW.get() {
        return 0;
    }
    // SAFETY: OpenSSL passes a live session; returning 1 keeps the reference that came with the call.
    let session = unsafe { Session::adopt(session) };
    if let Some(before) = KEPT.replace(Some(session)) {
        REPLACED.with_borrow_mut(|replaced| replaced.push(before));
    }
    1
}

unsafe extern "C" fn pass_get(
    _ssl: *mut ffi::SSL,
    _id: *const u8,
    _len: c_int,
    copy: *mut c_int,
) -> *mut ffi::SSL_SESSION {
    // SAFETY: OpenSSL passes a valid int. 0: the reference is the caller's.
    unsafe { *copy = 0 };
    KEPT.with_borrow(|kept| kept.as_ref().map_or(ptr::null_mut(), Session::lend))
}

unsafe extern "C" fn codec_new(_ssl: *mut ffi::SSL, session: *mut ffi::SSL_SESSION) -> c_int {
    thread_local!(static DROPPED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });
    let at = if FOLLOW.get() { &DER } else { &DROPPED };
    at.with_borrow_mut(|der| {
        // SAFETY: OpenSSL passes a live session.
        unsafe { ffi::write_der(session, der) }
    });
    0
}

unsafe extern "C" fn codec_get(
    _ssl: *mut ffi::SSL,
    _id: *const u8,
    _len: c_int,
    copy: *mut c_int,
) -> *mut ffi::SSL_SESSION {
    // SAFETY: OpenSSL passes a valid int. 0: the reference is the caller's.
    unsafe { *copy = 0 };
    let session = DER.with_borrow(|der| (!der.is_empty()).then(|| Session::from_der(der)));
    session.map_or(ptr::null_mut(), |session| {
        let raw = session.raw();
        std::mem::forget(session);
        raw
    })
}

/// Puts a clock around the callbacks that a server has.
pub mod clocked {
    use std::time::Instant;

    use super::*;

    thread_local! {
        static BEHIND: Cell<Option<(ffi::NewCb, ffi::GetCb)>> = const { Cell::new(None) };
        static SPENT: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
    }

    /// From now on this server's callbacks are timed; one server at a time.
    pub fn wrap(server: &Context) {
        // SAFETY: live.
        let callbacks = unsafe { ffi::SSL_CTX_sess_get_new_cb(server.0) };
        // SAFETY: live.
        let callbacks = callbacks.zip(unsafe { ffi::SSL_CTX_sess_get_get_cb(server.0) });
        must("callbacks to put a clock around", callbacks.is_some());
        BEHIND.set(callbacks);
        set_callbacks(server, new, get);
    }

    /// Nanoseconds in `new` and in `get` since the last question.
    pub fn spent() -> (u64, u64) {
        SPENT.replace((0, 0))
    }

    unsafe extern "C" fn new(ssl: *mut ffi::SSL, session: *mut ffi::SSL_SESSION) -> c_int {
        let Some((behind, _)) = BEHIND.get() else { return 0 };
        let start = Instant::now();
        // SAFETY: OpenSSL's own arguments.
        let kept = unsafe { behind(ssl, session) };
        let (new, get) = SPENT.get();
        SPENT.set((new + start.elapsed().as_nanos() as u64, get));
        kept
    }

    unsafe extern "C" fn get(ssl: *mut ffi::SSL, id: *const u8, len: c_int, copy: *mut c_int) -> *mut ffi::SSL_SESSION {
        let Some((_, behind)) = BEHIND.get() else { return ptr::null_mut() };
        let start = Instant::now();
        // SAFETY: OpenSSL's own arguments.
        let found = unsafe { behind(ssl, id, len, copy) };
        let (new, get) = SPENT.get();
        SPENT.set((new, get + start.elapsed().as_nanos() as u64));
        found
    }
}
