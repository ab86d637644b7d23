//! SSL_SESSIONs as bytes and back, and what is noted on them in ex_data.

use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use libc::{c_int, c_uint, c_void};

use super::ffi;

/// A reference to a session, given back on drop.
pub(super) struct Session(ptr::NonNull<ffi::SSL_SESSION>);

// SAFETY: reference counting of SSL_SESSION is atomic, and the object is only read.
unsafe impl Send for Session {}
// SAFETY: as above.
unsafe impl Sync for Session {}

impl Session {
    /// Takes over a reference that the caller has; NULL is none.
    ///
    /// # Safety
    /// `raw` is NULL or a live session with a reference to give.
    pub(super) unsafe fn adopt(raw: *mut ffi::SSL_SESSION) -> Option<Session> {
        ptr::NonNull::new(raw).map(Session)
    }

    /// Another reference to the same.
    pub(super) fn share(&self) -> Option<Session> {
        // SAFETY: a live session.
        let ok = unsafe { ffi::SSL_SESSION_up_ref(self.0.as_ptr()) };
        (ok == 1).then_some(Session(self.0))
    }

    /// Borrowed, for calls.
    pub(super) fn raw(&self) -> *mut ffi::SSL_SESSION {
        self.0.as_ptr()
    }

    /// Hands the reference on.
    pub(super) fn into_raw(self) -> *mut ffi::SSL_SESSION {
        let raw = self.0.as_ptr();
        std::mem::forget(self);
        raw
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: one reference is ours. OpenSSL wipes the secrets with the last one.
        unsafe { ffi::SSL_SESSION_free(self.0.as_ptr()) };
    }
}

/// The session's id.
///
/// # Safety
/// `session` is live; the result is valid until its id is changed.
pub(super) unsafe fn id<'a>(session: *const ffi::SSL_SESSION) -> &'a [u8] {
    let mut len: c_uint = 0;
    // SAFETY: by contract.
    let id = unsafe { ffi::SSL_SESSION_get_id(session, &mut len) };
    if id.is_null() {
        return &[];
    }
    // SAFETY: SSL_SESSION_get_id returns that many bytes inside the session.
    unsafe { std::slice::from_raw_parts(id, len as usize) }
}

/// Whether the client has shown a certificate.
///
/// # Safety
/// `session` is live.
pub(super) unsafe fn has_peer(session: *mut ffi::SSL_SESSION) -> bool {
    // SAFETY: by contract; the certificate is only compared with NULL.
    !unsafe { ffi::SSL_SESSION_get0_peer(session) }.is_null()
}

/// Whether a session of this connection has nothing that its DER would lose: the client's certificate chain, which is
/// there until the first resumption, and what the application attached to it.
///
/// # Safety
/// `ssl` is live and has `session`.
pub(super) unsafe fn is_as_stored(ssl: *const ffi::SSL, session: *const ffi::SSL_SESSION) -> bool {
    /// Indices that are looked at; few programs have more than one.
    const INDICES: c_int = 32;
    // SAFETY: by contract.
    let has_chain = !unsafe { ffi::SSL_get_peer_cert_chain(ssl) }.is_null();
    let ours = note_index();
    // SAFETY: by contract; an index that nobody has made reads as NULL.
    let attached = |index| !unsafe { ffi::SSL_SESSION_get_ex_data(session, index) }.is_null();
    !has_chain && !(0..INDICES).any(|index| index != ours && attached(index))
}

/// DER of the session without its id, which the key in the store already says.
///
/// # Safety
/// `session` is live and no other thread looks at it: in the new-session callback it is the connection's own.
pub(super) unsafe fn encode(session: *mut ffi::SSL_SESSION, id: &[u8]) -> Option<Vec<u8>> {
    // SAFETY: by contract; length 0 reads nothing.
    unsafe { ffi::SSL_SESSION_set1_id(session, id.as_ptr(), 0) };
    // SAFETY: by contract; NULL asks for the length.
    let len = unsafe { ffi::i2d_SSL_SESSION(session, ptr::null_mut()) };
    let mut der = vec![0_u8; usize::try_from(len).unwrap_or(0)];
    let mut to = der.as_mut_ptr();
    // SAFETY: the buffer has the length that the same call just asked for.
    let written = if der.is_empty() { 0 } else { unsafe { ffi::i2d_SSL_SESSION(session, &mut to) } };
    // SAFETY: by contract; at most 32 bytes, as it had them before.
    unsafe { ffi::SSL_SESSION_set1_id(session, id.as_ptr(), id.len() as c_uint) };
    (len > 0 && written == len).then_some(der)
}

/// The session of some DER, with its id. The bytes were authenticated before.
pub(super) fn decode(der: &[u8], id: &[u8]) -> Option<Session> {
    let mut from = der.as_ptr();
    // SAFETY: d2i reads at most `len` bytes from `from`.
    let raw = unsafe { ffi::d2i_SSL_SESSION(ptr::null_mut(), &mut from, der.len() as libc::c_long) };
    // SAFETY: NULL or a new session.
    let session = unsafe { Session::adopt(raw) }?;
    // d2i ignores trailing bytes; whatever has them is not what was stored.
    let whole = from as usize == der.as_ptr() as usize + der.len();
    // SAFETY: a live session of our own, and an id of at most 32 bytes is checked by the call itself.
    let named = unsafe { ffi::SSL_SESSION_set1_id(session.raw(), id.as_ptr(), id.len() as c_uint) };
    (whole && named == 1).then_some(session)
}

/// What is noted on a session: carried by SSL_SESSION_dup, and so by every TLS 1.3 ticket issued from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Note {
    /// Slot of the cache it belongs to.
    pub(super) slot: usize,
    /// Time of the last full handshake, in seconds.
    pub(super) full_handshake: u32,
}

const MARK: usize = 1 << 63;
static NOTE_INDEX: AtomicI32 = AtomicI32::new(-1);

/// Index for the note: a plain number, so copying it is right and freeing it is nothing.
pub(super) fn note_index() -> c_int {
    ex_index(&NOTE_INDEX, ffi::CRYPTO_EX_INDEX_SSL_SESSION, None, None)
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

/// Notes it on the session.
///
/// # Safety
/// `session` is live and no other thread looks at it.
pub(super) unsafe fn set_note(session: *mut ffi::SSL_SESSION, note: Note) {
    let word = MARK | note.slot << 32 | note.full_handshake as usize;
    // SAFETY: by contract; the value is never followed.
    unsafe { ffi::SSL_SESSION_set_ex_data(session, note_index(), word as *mut c_void) };
}

/// What is noted on the session.
///
/// # Safety
/// `session` is live.
pub(super) unsafe fn note(session: *const ffi::SSL_SESSION) -> Option<Note> {
    // SAFETY: by contract.
    let word = unsafe { ffi::SSL_SESSION_get_ex_data(session, note_index()) } as usize;
    (word & MARK != 0).then_some(Note { slot: word >> 32 & 0xFFFF, full_handshake: word as u32 })
}
