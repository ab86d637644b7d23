//! SSL_CTX, SSL and SSL_SESSION as borrowed values. Code that gets a pointer from OpenSSL or the host vouches for it once;
//! everything done with it afterwards is safe.
//!
//! Most calls here demand one thing of their argument, that it is live, and `new` of its type says for how long it is.

use std::ffi::CStr;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicI32, Ordering};

use libc::{c_int, c_long, c_uint, c_void};

use super::ffi;

/// An SSL_CTX.
#[derive(Clone, Copy)]
pub(super) struct Ctx<'a>(*mut ffi::SSL_CTX, PhantomData<&'a ()>);

/// An SSL.
#[derive(Clone, Copy)]
pub(super) struct Conn<'a>(*mut ffi::SSL, PhantomData<&'a ()>);

/// An SSL_SESSION, for reading: other threads may have it as well.
#[derive(Clone, Copy)]
pub(super) struct SessionRef<'a>(NonNull<ffi::SSL_SESSION>, PhantomData<&'a ()>);

/// An SSL_SESSION that no other thread has yet, so that it may be changed.
pub(super) struct SessionMut<'a>(SessionRef<'a>);

/// The callbacks that are set on an SSL_CTX.
pub(super) struct Trampolines {
    pub(super) new: ffi::NewCb,
    pub(super) get: ffi::GetCb,
    pub(super) remove: ffi::RemoveCb,
    pub(super) generate: ffi::GenerateCb,
}

/// The three callbacks of an SSL_CTX as it has them.
pub(super) struct Callbacks {
    pub(super) new: Option<ffi::NewCb>,
    pub(super) get: Option<ffi::GetCb>,
    pub(super) remove: Option<ffi::RemoveCb>,
}

impl<'a> Ctx<'a> {
    /// # Safety
    /// For as long as `'a`, `raw` is a live SSL_CTX that no other thread changes.
    pub(super) unsafe fn new(raw: *mut ffi::SSL_CTX) -> Ctx<'a> {
        Ctx(raw, PhantomData)
    }

    pub(super) fn timeout(self) -> c_long {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_CTX_get_timeout(self.0) }
    }

    pub(super) fn set_timeout(self, seconds: c_long) {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_CTX_set_timeout(self.0, seconds) };
    }

    /// The session cache mode.
    pub(super) fn cache_mode(self) -> c_long {
        // SAFETY: live, as `new` demands; this control reads the mode.
        unsafe { ffi::SSL_CTX_ctrl(self.0, ffi::SSL_CTRL_GET_SESS_CACHE_MODE, 0, ptr::null_mut()) }
    }

    pub(super) fn set_cache_mode(self, mode: c_long) {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_CTX_set_session_cache_mode(self.0, mode) };
    }

    pub(super) fn options(self) -> u64 {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_CTX_get_options(self.0) }
    }

    pub(super) fn set_options(self, bits: u64) {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_CTX_set_options(self.0, bits) };
    }

    pub(super) fn clear_options(self, bits: u64) {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_CTX_clear_options(self.0, bits) };
    }

    pub(super) fn callbacks(self) -> Callbacks {
        Callbacks {
            // SAFETY: live, as `new` demands.
            new: unsafe { ffi::SSL_CTX_sess_get_new_cb(self.0) },
            // SAFETY: live, as `new` demands.
            get: unsafe { ffi::SSL_CTX_sess_get_get_cb(self.0) },
            // SAFETY: live, as `new` demands.
            remove: unsafe { ffi::SSL_CTX_sess_get_remove_cb(self.0) },
        }
    }

    /// Sets the three callbacks and the id generator, or none. They live as long as the process (-z nodelete).
    pub(super) fn set_callbacks(self, to: Option<&Trampolines>) {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_CTX_sess_set_new_cb(self.0, to.map(|t| t.new)) };
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_CTX_sess_set_get_cb(self.0, to.map(|t| t.get)) };
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_CTX_sess_set_remove_cb(self.0, to.map(|t| t.remove)) };
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_CTX_set_generate_session_id(self.0, to.map(|t| t.generate)) };
    }

    /// Whether OpenSSL keeps sessions of its own beside the callbacks.
    fn has_internal_cache(self) -> bool {
        self.cache_mode() & ffi::SSL_SESS_CACHE_NO_INTERNAL == 0
    }

    /// Takes the session out of OpenSSL's own cache. Not from within a callback: OpenSSL may hold its lock there.
    pub(super) fn forget(self, session: SessionRef<'_>) {
        if self.has_internal_cache() {
            // SAFETY: both live, as their `new` demand.
            unsafe { ffi::SSL_CTX_remove_session(self.0, session.raw()) };
        }
    }

    /// What lies under an index; NULL where nothing was put.
    pub(super) fn ex_data(self, index: c_int) -> *mut c_void {
        // SAFETY: live, as `new` demands; an unknown index reads as NULL.
        unsafe { ffi::SSL_CTX_get_ex_data(self.0, index) }
    }

    /// False when OpenSSL has no memory for it.
    pub(super) fn set_ex_data(self, index: c_int, value: *mut c_void) -> bool {
        // SAFETY: live, as `new` demands; the value goes to the index's free function only.
        unsafe { ffi::SSL_CTX_set_ex_data(self.0, index, value) == 1 }
    }

    /// The table of methods, which lies in the libssl that made it.
    pub(super) fn method(self) -> *const c_void {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_CTX_get_ssl_method(self.0) }.cast()
    }
}

impl<'a> Conn<'a> {
    /// # Safety
    /// For as long as `'a`, `raw` is a live SSL, driven by this thread.
    pub(super) unsafe fn new(raw: *mut ffi::SSL) -> Conn<'a> {
        Conn(raw, PhantomData)
    }

    pub(super) fn ctx(self) -> Ctx<'a> {
        // SAFETY: live, as `new` demands.
        let ctx = unsafe { ffi::SSL_get_SSL_CTX(self.0) };
        // SAFETY: an SSL always has an SSL_CTX, and keeps it.
        unsafe { Ctx::new(ctx) }
    }

    pub(super) fn is_server(self) -> bool {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_is_server(self.0) == 1 }
    }

    pub(super) fn version(self) -> c_int {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_version(self.0) }
    }

    pub(super) fn options(self) -> u64 {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_get_options(self.0) }
    }

    pub(super) fn verify_mode(self) -> c_int {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_get_verify_mode(self.0) }
    }

    pub(super) fn accepts_early_data(self) -> bool {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_get_max_early_data(self.0) > 0 }
    }

    pub(super) fn refuse_early_data(self) {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_set_max_early_data(self.0, 0) };
    }

    pub(super) fn server_random(self) -> [u8; 32] {
        let mut random = [0_u8; 32];
        // SAFETY: live, as `new` demands; at most 32 bytes are written.
        unsafe { ffi::SSL_get_server_random(self.0, random.as_mut_ptr(), random.len()) };
        random
    }

    /// The server name as OpenSSL settled it; for the length of a callback.
    pub(super) fn server_name(self) -> Option<&'a CStr> {
        // SAFETY: live, as `new` demands; 0 is TLSEXT_NAMETYPE_host_name.
        let name = unsafe { ffi::servername(self.0, 0) };
        // SAFETY: OpenSSL returns NULL or a NUL-terminated string inside the connection.
        (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) })
    }

    /// The body of an extension of the ClientHello in progress; for the length of a callback.
    pub(super) fn extension(self, kind: c_uint) -> Option<&'a [u8]> {
        let (mut body, mut len) = (ptr::null(), 0);
        // SAFETY: live, as `new` demands.
        let found = unsafe { ffi::SSL_client_hello_get0_ext(self.0, kind, &mut body, &mut len) } == 1;
        // SAFETY: on success the body has `len` bytes inside the connection.
        (found && !body.is_null()).then(|| unsafe { std::slice::from_raw_parts(body, len) })
    }

    pub(super) fn session(self) -> Option<SessionRef<'a>> {
        // SAFETY: live, as `new` demands.
        let session = unsafe { ffi::SSL_get_session(self.0) };
        NonNull::new(session).map(|session| SessionRef(session, PhantomData))
    }

    pub(super) fn has_peer_chain(self) -> bool {
        // SAFETY: live, as `new` demands.
        !unsafe { ffi::SSL_get_peer_cert_chain(self.0) }.is_null()
    }

    /// What lies under an index; NULL where nothing was put.
    pub(super) fn ex_data(self, index: c_int) -> *mut c_void {
        // SAFETY: live, as `new` demands; an unknown index reads as NULL.
        unsafe { ffi::SSL_get_ex_data(self.0, index) }
    }

    /// False when OpenSSL has no memory for it.
    pub(super) fn set_ex_data(self, index: c_int, value: *mut c_void) -> bool {
        // SAFETY: live, as `new` demands; the value goes to the index's free function only.
        unsafe { ffi::SSL_set_ex_data(self.0, index, value) == 1 }
    }

    /// Whether the application has given the SSL_CTX an internal cache again: then OpenSSL keeps and returns copies of
    /// what is good for one use, and asks nobody. After a switch to an SSL_CTX that is not ours, its mode says nothing:
    /// that of the first one counts, which attach has set.
    pub(super) fn keeps_copies(self, ours: &Trampolines) -> bool {
        let ctx = self.ctx();
        ctx.callbacks().new.is_some_and(|new| ptr::fn_addr_eq(new, ours.new)) && ctx.has_internal_cache()
    }

    /// The session of the new-session callback, to be changed; `None` when OpenSSL has put it into its internal cache, from
    /// where another thread may take it at any time.
    pub(super) fn unshared(self, session: SessionRef<'a>, ours: &Trampolines) -> Option<SessionMut<'a>> {
        (!self.keeps_copies(ours)).then_some(SessionMut(session))
    }
}

impl<'a> SessionRef<'a> {
    /// # Safety
    /// For as long as `'a`, `raw` is a live session whose fields no other thread changes.
    pub(super) unsafe fn new(raw: NonNull<ffi::SSL_SESSION>) -> SessionRef<'a> {
        SessionRef(raw, PhantomData)
    }

    pub(super) fn raw(self) -> *mut ffi::SSL_SESSION {
        self.0.as_ptr()
    }

    /// Its id.
    pub(super) fn id(self) -> Id {
        let mut len: c_uint = 0;
        // SAFETY: live, as `new` demands.
        let id = unsafe { ffi::SSL_SESSION_get_id(self.raw(), &mut len) };
        let mut out = Id { bytes: [0; 32], len: (len as usize).min(32) };
        if !id.is_null() {
            // SAFETY: SSL_SESSION_get_id returns that many bytes inside the session.
            out.bytes[..out.len].copy_from_slice(unsafe { std::slice::from_raw_parts(id, out.len) });
        }
        out
    }

    /// Whether the client has shown a certificate.
    pub(super) fn has_peer(self) -> bool {
        // SAFETY: live, as `new` demands; the certificate is only compared with NULL.
        !unsafe { ffi::SSL_SESSION_get0_peer(self.raw()) }.is_null()
    }

    pub(super) fn is_resumable(self) -> bool {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_SESSION_is_resumable(self.raw()) == 1 }
    }

    pub(super) fn has_context(self) -> bool {
        let mut len = 0;
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_SESSION_get0_id_context(self.raw(), &mut len) };
        len > 0
    }

    pub(super) fn version(self) -> c_int {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_SESSION_get_protocol_version(self.raw()) }
    }

    /// When it was made, in seconds.
    pub(super) fn time(self) -> u64 {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_SESSION_get_time(self.raw()) }.max(0) as u64
    }

    pub(super) fn timeout(self) -> u64 {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_SESSION_get_timeout(self.raw()) }.max(0) as u64
    }

    /// An index that nobody has made reads as NULL.
    pub(super) fn ex_data(self, index: c_int) -> *mut c_void {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_SESSION_get_ex_data(self.raw(), index) }
    }
}

impl<'a> SessionMut<'a> {
    /// # Safety
    /// For as long as `'a`, `raw` is a live session that only this thread has.
    pub(super) unsafe fn new(raw: NonNull<ffi::SSL_SESSION>) -> SessionMut<'a> {
        SessionMut(SessionRef(raw, PhantomData))
    }

    /// Sets its id; false when it is too long.
    pub(super) fn set_id(&mut self, id: &[u8]) -> bool {
        // SAFETY: live and ours, as `new` demands; the call checks the length before it reads.
        unsafe { ffi::SSL_SESSION_set1_id(self.raw(), id.as_ptr(), id.len() as c_uint) == 1 }
    }

    pub(super) fn set_timeout(&mut self, seconds: u64) {
        // SAFETY: live and ours, as `new` demands.
        unsafe { ffi::SSL_SESSION_set_timeout(self.raw(), seconds as c_long) };
    }

    /// Sets a number that is never followed.
    pub(super) fn set_ex_number(&mut self, index: c_int, number: usize) {
        // SAFETY: live and ours, as `new` demands.
        unsafe { ffi::SSL_SESSION_set_ex_data(self.raw(), index, number as *mut c_void) };
    }
}

impl<'a> Deref for SessionMut<'a> {
    type Target = SessionRef<'a>;

    fn deref(&self) -> &SessionRef<'a> {
        &self.0
    }
}

/// A session's id.
#[derive(Clone, Copy)]
pub(super) struct Id {
    bytes: [u8; 32],
    len: usize,
}

impl Deref for Id {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// An ex_data index, made at the first question. Two threads at once may make two; one of them stays unused.
pub(super) fn ex_index(at: &AtomicI32, class: c_int, dup: Option<ffi::ExDup>, free: Option<ffi::ExFree>) -> c_int {
    let known = at.load(Ordering::Acquire);
    if known >= 0 {
        return known;
    }
    // SAFETY: the functions have the types of crypto.h; NULL means no new function.
    let made = unsafe { ffi::new_ex_index(class, 0, ptr::null_mut(), ptr::null(), dup, free) };
    match at.compare_exchange(-1, made, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => made,
        Err(other) => other,
    }
}
