//! OpenSSL as the benchmark needs it: openssl-sys, what that does not declare, and two things that are given back.

use std::ffi::CStr;
use std::ptr::NonNull;

use libc::{c_char, c_int, c_long, c_ulong};
pub use openssl_sys::*;

/// ssl.h: the option bits in the type that SSL_CTX_set_options takes.
pub const NO_TICKET: u64 = 0x0000_4000;
pub const NO_ANTI_REPLAY: u64 = 0x0100_0000;

/// See SSL_CTX_sess_set_new_cb(3) and SSL_CTX_sess_set_get_cb(3).
pub type NewCb = unsafe extern "C" fn(*mut SSL, *mut SSL_SESSION) -> c_int;
pub type GetCb = unsafe extern "C" fn(*mut SSL, *const u8, c_int, *mut c_int) -> *mut SSL_SESSION;

extern "C" {
    pub fn SSL_set_fd(ssl: *mut SSL, fd: c_int) -> c_int;
    pub fn BIO_up_ref(bio: *mut BIO) -> c_int;
    pub fn SSL_get1_session(ssl: *mut SSL) -> *mut SSL_SESSION;
    pub fn SSL_CTX_set_timeout(ctx: *mut SSL_CTX, seconds: c_long) -> c_long;
    pub fn SSL_CTX_sess_get_new_cb(ctx: *mut SSL_CTX) -> Option<NewCb>;
    pub fn SSL_CTX_sess_get_get_cb(ctx: *mut SSL_CTX) -> Option<GetCb>;
    #[link_name = "SSL_CTX_set_options"]
    pub fn set_options(ctx: *mut SSL_CTX, options: u64) -> u64;
    #[link_name = "ERR_error_string_n"]
    fn error_string(code: c_ulong, text: *mut c_char, len: usize);
}

/// Ends the benchmark with OpenSSL's own words when a call did not succeed.
pub fn must(what: &str, ok: bool) {
    if ok {
        return;
    }
    let mut text = [0; 256];
    // SAFETY: no preconditions.
    let code = unsafe { ERR_get_error() };
    // SAFETY: writes at most the length given, NUL included.
    unsafe { error_string(code, text.as_mut_ptr(), text.len()) };
    // SAFETY: NUL-terminated by the call before.
    let text = unsafe { CStr::from_ptr(text.as_ptr()) };
    panic!("{what}: {}", text.to_string_lossy());
}

/// A reference to an SSL_SESSION.
pub struct Session(NonNull<SSL_SESSION>);

// SAFETY: the benchmark has one thread; statics that hold sessions only have to satisfy the compiler.
unsafe impl Send for Session {}

impl Session {
    /// # Safety
    /// `raw` is NULL or a live session with a reference to give.
    pub unsafe fn adopt(raw: *mut SSL_SESSION) -> Session {
        must("a session", !raw.is_null());
        Session(NonNull::new(raw).expect("checked"))
    }

    pub fn raw(&self) -> *mut SSL_SESSION {
        self.0.as_ptr()
    }

    /// One more reference, for OpenSSL to give back.
    pub fn lend(&self) -> *mut SSL_SESSION {
        // SAFETY: a live session.
        unsafe { SSL_SESSION_up_ref(self.raw()) };
        self.raw()
    }

    pub fn from_der(der: &[u8]) -> Session {
        let mut from = der.as_ptr();
        // SAFETY: reads at most `len` bytes.
        let raw = unsafe { d2i_SSL_SESSION(std::ptr::null_mut(), &mut from, der.len() as c_long) };
        // SAFETY: NULL or a new session.
        unsafe { Session::adopt(raw) }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: one reference is ours.
        unsafe { SSL_SESSION_free(self.raw()) };
    }
}

/// Writes a session's DER over what `der` held, as every external cache has to.
///
/// # Safety
/// `session` is live.
pub unsafe fn write_der(session: *mut SSL_SESSION, der: &mut Vec<u8>) {
    // SAFETY: by contract; NULL asks for the length.
    let len = unsafe { i2d_SSL_SESSION(session, std::ptr::null_mut()) };
    must("i2d_SSL_SESSION", len > 0);
    der.resize(len as usize, 0);
    let mut to = der.as_mut_ptr();
    // SAFETY: the buffer has the length just asked for.
    must("i2d_SSL_SESSION", unsafe { i2d_SSL_SESSION(session, &mut to) } == len);
}

/// An SSL.
pub struct Connection(pub *mut SSL);

impl Connection {
    /// # Safety
    /// `ctx` is live.
    pub unsafe fn new(ctx: *mut SSL_CTX) -> Connection {
        // SAFETY: by contract.
        let ssl = unsafe { SSL_new(ctx) };
        must("SSL_new", !ssl.is_null());
        Connection(ssl)
    }

    /// A step of the handshake: whether it is complete now.
    pub fn step(&self) -> bool {
        // SAFETY: a live connection with transport and direction set.
        let done = unsafe { SSL_do_handshake(self.0) };
        if done != 1 {
            // SAFETY: a live connection; asked before any other call on it.
            let error = unsafe { SSL_get_error(self.0, done) };
            must("handshake", error == SSL_ERROR_WANT_READ);
        }
        done == 1
    }

    pub fn resumed(&self) -> bool {
        // SAFETY: a live connection.
        unsafe { SSL_session_reused(self.0) == 1 }
    }

    /// The session that the client would offer next.
    pub fn session(&self) -> Session {
        // SAFETY: a live connection.
        let raw = unsafe { SSL_get1_session(self.0) };
        // SAFETY: NULL or a reference of our own.
        unsafe { Session::adopt(raw) }
    }

    /// Reads: the client's way to see the tickets of TLS 1.3. Bytes read, or what SSL_read says instead.
    pub fn read(&self) -> c_int {
        let mut byte = [0_u8; 16];
        // SAFETY: a live connection, a buffer of that length.
        unsafe { SSL_read(self.0, byte.as_mut_ptr().cast(), byte.len() as c_int) }
    }

    /// As after close_notify in both directions: without it OpenSSL takes the session for a bad one.
    pub fn closed(&self) {
        // SAFETY: a live connection.
        unsafe { SSL_set_shutdown(self.0, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN) };
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: made in `new` and freed once.
        unsafe { SSL_free(self.0) };
    }
}
