//! SSL_SESSION.

use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;

use libc::{c_int, c_long, c_uint, c_void};

use crate::tls::ffi;

/// Indices of ex_data that are looked at: no call tells how many there are, and one that was not made costs a comparison.
const INDICES: c_int = 256;

/// An SSL_SESSION, for reading: other threads may have it as well.
#[derive(Clone, Copy)]
pub(in crate::tls) struct SessionRef<'a>(NonNull<ffi::SSL_SESSION>, PhantomData<&'a ()>);

/// An SSL_SESSION that no other thread has yet, so that it may be changed.
pub(in crate::tls) struct SessionMut<'a>(SessionRef<'a>);

/// A session's id.
#[derive(Clone, Copy)]
pub(in crate::tls) struct Id {
    bytes: [u8; 32],
    len: usize,
}

impl Deref for Id {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl<'a> SessionRef<'a> {
    /// # Safety
    /// For as long as `'a`, `raw` is a live session whose fields no other thread changes.
    pub(in crate::tls) unsafe fn new(raw: NonNull<ffi::SSL_SESSION>) -> SessionRef<'a> {
        SessionRef(raw, PhantomData)
    }

    pub(in crate::tls) fn raw(self) -> *mut ffi::SSL_SESSION {
        self.0.as_ptr()
    }

    /// Its id.
    pub(in crate::tls) fn id(self) -> Id {
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
    pub(in crate::tls) fn has_peer(self) -> bool {
        // SAFETY: live, as `new` demands; the certificate is only compared with NULL.
        !unsafe { ffi::SSL_SESSION_get0_peer(self.raw()) }.is_null()
    }

    /// Whether it has the client's certificate, and not its key.
    pub(in crate::tls) fn has_unreadable_peer(self) -> bool {
        // SAFETY: live, as `new` demands.
        let peer = unsafe { ffi::SSL_SESSION_get0_peer(self.raw()) };
        // SAFETY: the session keeps its certificate, and the certificate its key, which is only compared with NULL.
        !peer.is_null() && unsafe { ffi::X509_get0_pubkey(peer) }.is_null()
    }

    pub(in crate::tls) fn is_resumable(self) -> bool {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_SESSION_is_resumable(self.raw()) == 1 }
    }

    pub(in crate::tls) fn has_context(self) -> bool {
        let mut len = 0;
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_SESSION_get0_id_context(self.raw(), &mut len) };
        len > 0
    }

    pub(in crate::tls) fn version(self) -> c_int {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_SESSION_get_protocol_version(self.raw()) }
    }

    /// When it was made, in seconds.
    pub(in crate::tls) fn time(self) -> u64 {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_SESSION_get_time(self.raw()) }.max(0) as u64
    }

    pub(in crate::tls) fn timeout(self) -> u64 {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_SESSION_get_timeout(self.raw()) }.max(0) as u64
    }

    /// Whether it lasts at all: before OpenSSL 3.2, a negative SSL_CTX_set_timeout(3) ends each session as it begins.
    pub(in crate::tls) fn lasts(self) -> bool {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_SESSION_get_timeout(self.raw()) >= 0 }
    }

    /// Seconds for which the server says that its ticket is good; 0 when it does not say.
    pub(in crate::tls) fn ticket_life(self) -> u64 {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_SESSION_get_ticket_lifetime_hint(self.raw()) }
    }

    /// The cipher, by its address in OpenSSL's table; NULL when this OpenSSL does not know it.
    pub(in crate::tls) fn cipher(self) -> *const ffi::SSL_CIPHER {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_SESSION_get0_cipher(self.raw()) }
    }

    /// Bytes of early data that the client was allowed.
    pub(in crate::tls) fn max_early_data(self) -> u32 {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_SESSION_get_max_early_data(self.raw()) }
    }

    /// The second in which the client's certificate expires; `None` without a certificate or when its date cannot be read.
    pub(in crate::tls) fn peer_expires(self) -> Option<u64> {
        // SAFETY: live, as `new` demands.
        let peer = unsafe { ffi::SSL_SESSION_get0_peer(self.raw()) };
        // SAFETY: the session keeps its certificate.
        let not_after = unsafe { ffi::X509_get0_notAfter(NonNull::new(peer)?.as_ptr()) };
        // SAFETY: all zeros is a valid tm.
        let mut date: libc::tm = unsafe { std::mem::zeroed() };
        // SAFETY: the certificate keeps its date; the tm is written through a valid pointer.
        let known = unsafe { ffi::ASN1_TIME_to_tm(not_after, &mut date) } == 1;
        // SAFETY: timegm reads and normalises the tm.
        known.then(|| unsafe { libc::timegm(&mut date) }.max(0) as u64)
    }

    /// Whether anything is attached to it.
    pub(in crate::tls) fn has_attached(self) -> bool {
        (0..INDICES).any(|index| !self.ex_data(index).is_null())
    }

    /// Whether anything is attached to the client's certificate.
    pub(in crate::tls) fn has_attached_to_peer(self) -> bool {
        // SAFETY: live, as `new` demands.
        let peer = unsafe { ffi::SSL_SESSION_get0_peer(self.raw()) };
        // SAFETY: the session keeps its certificate; an unknown index reads as NULL.
        let attached = |index| !unsafe { ffi::X509_get_ex_data(peer, index) }.is_null();
        !peer.is_null() && (0..INDICES).any(attached)
    }

    /// An index that nobody has made reads as NULL.
    pub(in crate::tls) fn ex_data(self, index: c_int) -> *mut c_void {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_SESSION_get_ex_data(self.raw(), index) }
    }
}

impl<'a> SessionMut<'a> {
    /// One that OpenSSL has handed out and not put where another thread could find it.
    pub(super) fn unshared(session: SessionRef<'a>) -> SessionMut<'a> {
        SessionMut(session)
    }

    /// # Safety
    /// For as long as `'a`, `raw` is a live session that only this thread has.
    pub(in crate::tls) unsafe fn new(raw: NonNull<ffi::SSL_SESSION>) -> SessionMut<'a> {
        SessionMut(SessionRef(raw, PhantomData))
    }

    /// Sets its id; false when it is too long.
    pub(in crate::tls) fn set_id(&mut self, id: &[u8]) -> bool {
        // SAFETY: live and ours, as `new` demands; the call checks the length before it reads.
        unsafe { ffi::SSL_SESSION_set1_id(self.raw(), id.as_ptr(), id.len() as c_uint) == 1 }
    }

    /// Sets its secret, which must have the length of the one that it has; false when it is empty or too long.
    pub(in crate::tls) fn set_secret(&mut self, secret: &[u8]) -> bool {
        // SAFETY: live and ours, as `new` demands; the call checks the length before it reads.
        unsafe { ffi::SSL_SESSION_set1_master_key(self.raw(), secret.as_ptr(), secret.len()) == 1 }
    }

    /// Sets when it was made, and how many seconds it lives. SSL_SESSION_set_time_ex(3) is in OpenSSL since 3.3 only; where a long
    /// holds the number, both do the same.
    pub(in crate::tls) fn set_times(&mut self, time: c_long, timeout: c_long) {
        // SAFETY: live and ours, as `new` demands.
        unsafe { ffi::SSL_SESSION_set_time(self.raw(), time) };
        // SAFETY: live and ours, as `new` demands.
        unsafe { ffi::SSL_SESSION_set_timeout(self.raw(), timeout) };
    }

    pub(in crate::tls) fn set_timeout(&mut self, seconds: u64) {
        // SAFETY: live and ours, as `new` demands.
        unsafe { ffi::SSL_SESSION_set_timeout(self.raw(), seconds as c_long) };
    }

    /// Sets a number that is never followed.
    pub(in crate::tls) fn set_ex_number(&mut self, index: c_int, number: usize) {
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
