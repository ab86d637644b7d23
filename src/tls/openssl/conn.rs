//! SSL, a connection.

use std::ffi::CStr;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use libc::{c_int, c_uint, c_void};

use super::{Ctx, SessionMut, SessionRef, Trampolines};
use crate::tls::ffi;

/// An SSL.
#[derive(Clone, Copy)]
pub(in crate::tls) struct Conn<'a>(*mut ffi::SSL, PhantomData<&'a ()>);

/// What a connection could agree on, by address: its SSL_CTX, its list of ciphers; and its security level.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::tls) struct Terms {
    ctx: usize,
    ciphers: usize,
    level: c_int,
}

impl<'a> Conn<'a> {
    /// # Safety
    /// For as long as `'a`, `raw` is a live SSL, driven by this thread.
    pub(in crate::tls) unsafe fn new(raw: *mut ffi::SSL) -> Conn<'a> {
        Conn(raw, PhantomData)
    }

    pub(super) fn raw(self) -> *mut ffi::SSL {
        self.0
    }

    pub(in crate::tls) fn ctx(self) -> Ctx<'a> {
        // SAFETY: live, as `new` demands.
        let ctx = unsafe { ffi::SSL_get_SSL_CTX(self.0) };
        // SAFETY: an SSL always has an SSL_CTX, and keeps it.
        unsafe { Ctx::new(ctx) }
    }

    pub(in crate::tls) fn is_server(self) -> bool {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_is_server(self.0) == 1 }
    }

    /// What it could agree on now: a servername callback may change all of it after the session was looked up.
    pub(in crate::tls) fn terms(self) -> Terms {
        Terms {
            // SAFETY: live, as `new` demands.
            ctx: unsafe { ffi::SSL_get_SSL_CTX(self.0) } as usize,
            // SAFETY: live, as `new` demands.
            ciphers: unsafe { ffi::SSL_get_ciphers(self.0) } as usize,
            // SAFETY: live, as `new` demands.
            level: unsafe { ffi::SSL_get_security_level(self.0) },
        }
    }

    /// Whether it is TLS 1.3, which QUIC is inside.
    pub(in crate::tls) fn is_tls13(self) -> bool {
        matches!(self.version(), ffi::OSSL_QUIC1_VERSION | ffi::TLS1_3_VERSION)
    }

    /// Whether this side has asked for a renegotiation since SSL_new(3) or SSL_clear(3).
    pub(in crate::tls) fn has_renegotiated(self) -> bool {
        // SAFETY: live, as `new` demands; this control reads a counter.
        unsafe { ffi::SSL_ctrl(self.0, ffi::SSL_CTRL_GET_TOTAL_RENEGOTIATIONS, 0, ptr::null_mut()) > 0 }
    }

    /// Seconds that a session lives where its SSL_CTX says 0.
    pub(in crate::tls) fn default_timeout(self) -> u64 {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_get_default_timeout(self.0) }.max(1) as u64
    }

    /// Whether its handshake was an abbreviated one.
    pub(in crate::tls) fn is_resumed(self) -> bool {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_session_reused(self.0) == 1 }
    }

    /// Whether its handshake has ended well.
    pub(in crate::tls) fn is_finished(self) -> bool {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_is_init_finished(self.0) == 1 }
    }

    pub(in crate::tls) fn version(self) -> c_int {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_version(self.0) }
    }

    /// The options that hold for it. Those of its SSL_CTX with QUIC: in a callback SSL_get_options(3) would wait for the lock
    /// under which OpenSSL 3.5 and later calls it, for ever.
    pub(in crate::tls) fn options(self) -> u64 {
        if self.version() == ffi::OSSL_QUIC1_VERSION {
            return self.ctx().options();
        }
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_get_options(self.0) }
    }

    pub(in crate::tls) fn set_options(self, bits: u64) {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::set_options(self.0, bits) };
    }

    pub(in crate::tls) fn clear_options(self, bits: u64) {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::clear_options(self.0, bits) };
    }

    /// Sets the id generator, or OpenSSL's own. It lives as long as the process (-z nodelete).
    pub(in crate::tls) fn set_generator(self, to: Option<&Trampolines>) {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_set_generate_session_id(self.0, to.map(|to| to.generate)) };
    }

    /// Whether it would agree on this cipher itself: it is in the list of SSL_set_cipher_list(3), and the security callback,
    /// which stands for the security level, allows it.
    pub(in crate::tls) fn allows(self, cipher: *const ffi::SSL_CIPHER) -> bool {
        if cipher.is_null() {
            return false;
        }
        // SAFETY: live, as `new` demands; the stack is the SSL's or its SSL_CTX's.
        let list = unsafe { ffi::SSL_get_ciphers(self.0) }.cast::<ffi::OPENSSL_STACK>();
        // SAFETY: NULL has no elements.
        let len = unsafe { ffi::OPENSSL_sk_num(list) };
        // SAFETY: an index below the stack's length.
        let listed = (0..len).any(|at| unsafe { ffi::OPENSSL_sk_value(list, at) }.cast_const().cast() == cipher);
        listed && self.security_allows(cipher)
    }

    /// Asks the security callback as OpenSSL does for a cipher that both sides have (ssl_cert.c: ssl_security).
    fn security_allows(self, cipher: *const ffi::SSL_CIPHER) -> bool {
        // SAFETY: live, as `new` demands.
        let Some(callback) = (unsafe { ffi::SSL_get_security_callback(self.0) }) else { return true };
        // SAFETY: live, as `new` demands.
        let data = unsafe { ffi::SSL_get0_security_ex_data(self.0) };
        // SAFETY: the cipher lies in OpenSSL's table; NULL asks for no count of its other bits.
        let bits = unsafe { ffi::SSL_CIPHER_get_bits(cipher, ptr::null_mut()) };
        let operation = ffi::SSL_SECOP_CIPHER_SHARED;
        // SAFETY: the arguments are those that OpenSSL itself gives it, and its data is the callback's own.
        unsafe { callback(self.0, ptr::null(), operation, bits, 0, cipher.cast_mut().cast(), data) != 0 }
    }

    pub(in crate::tls) fn verify_mode(self) -> c_int {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_get_verify_mode(self.0) }
    }

    /// Bytes of early data that it accepts.
    pub(in crate::tls) fn max_early_data(self) -> u32 {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_get_max_early_data(self.0) }
    }

    pub(in crate::tls) fn set_max_early_data(self, bytes: u32) {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_set_max_early_data(self.0, bytes) };
    }

    pub(in crate::tls) fn client_random(self) -> [u8; 32] {
        let mut random = [0_u8; 32];
        // SAFETY: live, as `new` demands; at most 32 bytes are written.
        unsafe { ffi::SSL_get_client_random(self.0, random.as_mut_ptr(), random.len()) };
        random
    }

    pub(in crate::tls) fn server_random(self) -> [u8; 32] {
        let mut random = [0_u8; 32];
        // SAFETY: live, as `new` demands; at most 32 bytes are written.
        unsafe { ffi::SSL_get_server_random(self.0, random.as_mut_ptr(), random.len()) };
        random
    }

    /// Whether it has drawn its random number: an SSL that has not is at a connection's first ClientHello, as far as it knows.
    pub(in crate::tls) fn has_answered(self) -> bool {
        self.server_random() != [0; 32]
    }

    /// The server name as OpenSSL settled it; for the length of a callback.
    pub(in crate::tls) fn server_name(self) -> Option<&'a CStr> {
        // SAFETY: live, as `new` demands; 0 is TLSEXT_NAMETYPE_host_name.
        let name = unsafe { ffi::servername(self.0, 0) };
        // SAFETY: OpenSSL returns NULL or a NUL-terminated string inside the connection.
        (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) })
    }

    /// The body of an extension of the ClientHello in progress; for the length of a callback.
    pub(in crate::tls) fn extension(self, kind: c_uint) -> Option<&'a [u8]> {
        let (mut body, mut len) = (ptr::null(), 0);
        // SAFETY: live, as `new` demands.
        let found = unsafe { ffi::SSL_client_hello_get0_ext(self.0, kind, &mut body, &mut len) } == 1;
        // SAFETY: on success the body has `len` bytes inside the connection.
        (found && !body.is_null()).then(|| unsafe { std::slice::from_raw_parts(body, len) })
    }

    pub(in crate::tls) fn session(self) -> Option<SessionRef<'a>> {
        // SAFETY: live, as `new` demands.
        let session = unsafe { ffi::SSL_get_session(self.0) };
        NonNull::new(session).map(|session| {
            // SAFETY: the SSL keeps its session.
            unsafe { SessionRef::new(session) }
        })
    }

    /// What lies under an index; NULL where nothing was put.
    pub(in crate::tls) fn ex_data(self, index: c_int) -> *mut c_void {
        // SAFETY: live, as `new` demands; an unknown index reads as NULL.
        unsafe { ffi::SSL_get_ex_data(self.0, index) }
    }

    /// False when OpenSSL has no memory for it.
    pub(in crate::tls) fn set_ex_data(self, index: c_int, value: *mut c_void) -> bool {
        // SAFETY: live, as `new` demands; the value goes to the index's free function only.
        unsafe { ffi::SSL_set_ex_data(self.0, index, value) == 1 }
    }

    /// Whether the application has given the SSL_CTX an internal cache again: then OpenSSL keeps and returns copies of
    /// what is good for one use, and asks nobody. After a switch to an SSL_CTX that is not ours, its mode says nothing:
    /// that of the first one counts, which attach has set.
    pub(in crate::tls) fn keeps_copies(self, ours: &Trampolines) -> bool {
        let ctx = self.ctx();
        ctx.callbacks().new.is_some_and(|new| ptr::fn_addr_eq(new, ours.new)) && ctx.has_internal_cache()
    }

    /// The session of the new-session callback, to be changed; `None` when OpenSSL has put it into its internal cache, from
    /// where another thread may take it at any time.
    pub(in crate::tls) fn unshared(self, session: SessionRef<'a>, ours: &Trampolines) -> Option<SessionMut<'a>> {
        (!self.keeps_copies(ours)).then_some(SessionMut::unshared(session))
    }
}
