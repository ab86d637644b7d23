//! SSL_SESSIONs that are ours: as bytes and back, and what is noted on them in ex_data.

use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicI32;

use libc::c_int;

use super::openssl::{ex_index, SessionMut, SessionRef};
use super::{der, ffi};
use crate::store::{cleanse, Flushes, Login};
use crate::sys::crypto::in_own_context;
use crate::sys::thread_specific::ThreadSpecific;

/// A reference to a session, given back on drop. What it refers to is only read.
pub(super) struct Session(NonNull<ffi::SSL_SESSION>);

/// The only reference to a session.
pub(super) struct NewSession(Session);

// SAFETY: the reference count of an SSL_SESSION is atomic (SSL_SESSION_up_ref(3)), and what has a Session only reads.
unsafe impl Send for Session {}
// SAFETY: as above.
unsafe impl Sync for Session {}

impl Session {
    /// Another reference to the same.
    pub(super) fn share(&self) -> Option<Session> {
        // SAFETY: wants a live session, which the reference held here keeps.
        let ok = unsafe { ffi::SSL_SESSION_up_ref(self.0.as_ptr()) };
        (ok == 1).then_some(Session(self.0))
    }

    pub(super) fn as_ref(&self) -> SessionRef<'_> {
        // SAFETY: live as long as this reference; changes need a SessionMut, which `NewSession` gives out before it becomes
        // a Session, and never after.
        unsafe { SessionRef::new(self.0) }
    }

    /// Hands the reference on.
    pub(super) fn into_raw(self) -> *mut ffi::SSL_SESSION {
        let raw = self.0.as_ptr();
        std::mem::forget(self);
        raw
    }
}

impl NewSession {
    /// # Safety
    /// `raw` is NULL or a live session with one reference, the caller's to give.
    unsafe fn adopt(raw: *mut ffi::SSL_SESSION) -> Option<NewSession> {
        NonNull::new(raw).map(|raw| NewSession(Session(raw)))
    }

    pub(super) fn as_ref(&self) -> SessionRef<'_> {
        self.0.as_ref()
    }

    pub(super) fn as_mut(&mut self) -> SessionMut<'_> {
        // SAFETY: live, and the only reference there is, borrowed for as long as the result lives.
        unsafe { SessionMut::new(self.0 .0) }
    }

    /// From here on it is only read.
    pub(super) fn share(self) -> Session {
        self.0
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: one reference is ours. OpenSSL wipes the secrets with the last one.
        unsafe { ffi::SSL_SESSION_free(self.0.as_ptr()) };
    }
}

/// A session of its own with the same contents.
pub(super) fn duplicate(session: SessionRef<'_>) -> Option<NewSession> {
    // SAFETY: wants a live session, which a SessionRef is.
    let copy = unsafe { ffi::SSL_SESSION_dup(session.raw()) };
    // SAFETY: SSL_SESSION_dup returns NULL or a new session with one reference.
    unsafe { NewSession::adopt(copy) }
}

/// Where sessions are encoded. Wiped after each use.
static DER: ThreadSpecific<Vec<u8>> = ThreadSpecific::new();

/// Calls `f` with the DER of the session as it is stored: without its id, which the key in the store already says, and without the
/// age of a ticket that carries no early data. They are cut out of the bytes, not taken off the session: another thread may have
/// found that in OpenSSL's internal cache.
pub(super) fn encode<R>(session: SessionRef<'_>, f: impl FnOnce(&[u8]) -> R) -> Option<R> {
    in_buffer(session, |bytes| der::strip(bytes).is_some().then(|| f(bytes)))
}

/// Calls `f` with what `head` writes and the session's DER behind it.
pub(super) fn encode_after<R>(
    session: SessionRef<'_>,
    head: impl FnOnce(&mut Vec<u8>),
    f: impl FnOnce(&[u8]) -> R,
) -> Option<R> {
    let mut whole = Vec::new();
    head(&mut whole);
    encode_whole(session, |der| {
        whole.reserve_exact(der.len());
        whole.extend_from_slice(der);
        let done = f(&whole);
        cleanse(&mut whole);
        done
    })
}

/// Calls `f` with the session's DER as OpenSSL encodes it.
pub(super) fn encode_whole<R>(session: SessionRef<'_>, f: impl FnOnce(&[u8]) -> R) -> Option<R> {
    in_buffer(session, |bytes| Some(f(bytes)))
}

fn in_buffer<R>(session: SessionRef<'_>, f: impl FnOnce(&mut Vec<u8>) -> Option<R>) -> Option<R> {
    /// A buffer larger than this is given back after use.
    const KEPT: usize = 16 * 1024;
    DER.with_or_temporary(|bytes| {
        let result = if write(session, bytes) { f(bytes) } else { None };
        cleanse(bytes);
        bytes.clear();
        if bytes.capacity() > KEPT {
            *bytes = Vec::new();
        }
        result
    })
}

/// Writes the session's DER over what `out` holds.
fn write(session: SessionRef<'_>, out: &mut Vec<u8>) -> bool {
    // SAFETY: wants a live session; NULL asks for the length.
    let len = unsafe { ffi::i2d_SSL_SESSION(session.raw(), ptr::null_mut()) };
    let Some(room) = usize::try_from(len).ok().filter(|len| *len > 0) else { return false };
    out.clear();
    out.resize(room, 0);
    let mut to = out.as_mut_ptr();
    // SAFETY: wants room for as many bytes as the same call has just asked for.
    unsafe { ffi::i2d_SSL_SESSION(session.raw(), &mut to) == len }
}

/// The session's DER, as OpenSSL encodes it.
#[cfg(all(feature = "capi", any(test, fuzzing)))]
pub(super) fn der_of(session: SessionRef<'_>) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    write(session, &mut bytes).then_some(bytes)
}

/// Whether OpenSSL encodes the session in exactly these bytes.
pub(super) fn is_der_of(session: SessionRef<'_>, der: &[u8]) -> bool {
    let mut bytes = Vec::new();
    let same = write(session, &mut bytes) && bytes == der;
    cleanse(&mut bytes);
    same
}

/// Whether the session was made with the extended master secret.
pub(super) fn has_extended_master_secret(session: SessionRef<'_>) -> bool {
    encode(session, der::has_extended_master_secret) == Some(true)
}

/// The session of some DER, with its id.
pub(super) fn decode(der: &[u8], id: &[u8]) -> Option<NewSession> {
    let mut session = decode_whole(der)?;
    session.as_mut().set_id(id).then_some(session)
}

/// The session of some DER, parsed. The bytes were authenticated before.
pub(super) fn decode_whole(der: &[u8]) -> Option<NewSession> {
    let session = parse(der);
    if session.as_ref().is_some_and(|session| !session.as_ref().has_unreadable_peer()) {
        return session;
    }
    // d2i_SSL_SESSION_ex(3), too, reads a certificate's key in the default library context, which is empty in some hosts.
    in_own_context(|| parse(der)).flatten().or(session)
}

fn parse(der: &[u8]) -> Option<NewSession> {
    let mut from = der.as_ptr();
    // SAFETY: d2i reads at most `len` bytes from `from`.
    let raw = unsafe { ffi::d2i_SSL_SESSION(ptr::null_mut(), &mut from, der.len() as libc::c_long) };
    // SAFETY: d2i_SSL_SESSION returns NULL or a new session with one reference.
    let session = unsafe { NewSession::adopt(raw) }?;
    // d2i ignores trailing bytes; whatever has them is not what was stored.
    (from as usize == der.as_ptr() as usize + der.len()).then_some(session)
}

/// What is noted on a session: carried by SSL_SESSION_dup, and so by every TLS 1.3 ticket issued from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Note {
    /// Slot of the cache it belongs to.
    pub(super) slot: usize,
    /// The store's number of flushes when the session was made or looked up.
    pub(super) flushes: Flushes,
    /// The full handshake that it goes back to.
    pub(super) login: Login,
}

/// A note is two plain numbers, so that copying it is right and freeing it is nothing: this bit, the number of flushes (15 bits),
/// the slot (16), the time of the full handshake (32); and the lineage.
const MARK: usize = 1 << 63;
static NOTE_INDEX: AtomicI32 = AtomicI32::new(-1);
static LINEAGE_INDEX: AtomicI32 = AtomicI32::new(-1);

fn index(at: &AtomicI32) -> c_int {
    ex_index(at, ffi::CRYPTO_EX_INDEX_SSL_SESSION, None, None)
}

/// Makes the indices while no session exists yet.
pub(super) fn prepare() -> bool {
    index(&NOTE_INDEX) >= 0 && index(&LINEAGE_INDEX) >= 0
}

/// Notes it on the session.
pub(super) fn set_note(session: &mut SessionMut<'_>, note: Note) {
    let flushes = usize::from(note.flushes.0) << 48;
    let word = MARK | flushes | note.slot << 32 | note.login.full_handshake as usize;
    session.set_ex_number(index(&NOTE_INDEX), word);
    session.set_ex_number(index(&LINEAGE_INDEX), note.login.lineage as usize);
}

/// What is noted on the session.
pub(super) fn note(session: SessionRef<'_>) -> Option<Note> {
    let word = session.ex_data(index(&NOTE_INDEX)) as usize;
    (word & MARK != 0).then(|| Note {
        slot: word >> 32 & 0xFFFF,
        flushes: Flushes((word >> 48) as u16 & Flushes::MASK),
        login: Login { lineage: session.ex_data(index(&LINEAGE_INDEX)) as u64, full_handshake: word as u32 },
    })
}
