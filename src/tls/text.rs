//! A session as text, as `openssl sess_id` shows it. It holds the master key.

use std::ptr;

use libc::{c_int, c_uchar, c_void};

use super::ffi;
use super::openssl::SessionRef;
use super::session::{self, NewSession};

extern "C" {
    fn SSL_SESSION_print(bio: *mut ffi::BIO, session: *const ffi::SSL_SESSION) -> c_int;
    // A macro-made function of pem.h: the cipher arguments are NULL for a file that is not encrypted.
    fn PEM_write_bio_SSL_SESSION(bio: *mut ffi::BIO, session: *mut ffi::SSL_SESSION) -> c_int;
}

/// Whether the DER of a record is a session.
pub(crate) fn is_session(der: &[u8], id: &[u8]) -> bool {
    decode(der, id).is_some()
}

/// A session of a client lies under no id of its own, and has what its server gave it.
fn decode(der: &[u8], id: &[u8]) -> Option<NewSession> {
    if id.is_empty() {
        session::decode_whole(der)
    } else {
        session::decode(der, id)
    }
}

/// The session in words, with its keys.
pub(crate) fn words(der: &[u8], id: &[u8]) -> Option<Vec<u8>> {
    // SAFETY: wants a BIO and a session that are live: `written` has both.
    written(der, id, |bio, session| unsafe { SSL_SESSION_print(bio, session.raw()) })
}

/// The session in PEM, for `openssl s_client -sess_in`.
pub(crate) fn pem(der: &[u8], id: &[u8]) -> Option<Vec<u8>> {
    // SAFETY: wants a BIO and a session that are live: `written` has both.
    written(der, id, |bio, session| unsafe { PEM_write_bio_SSL_SESSION(bio, session.raw()) })
}

fn written(der: &[u8], id: &[u8], write: impl FnOnce(*mut ffi::BIO, SessionRef<'_>) -> c_int) -> Option<Vec<u8>> {
    let session = decode(der, id)?;
    // SAFETY: has no preconditions.
    let method = unsafe { ffi::BIO_s_mem() };
    // SAFETY: the method is libcrypto's own.
    let bio = unsafe { ffi::BIO_new(method) };
    if bio.is_null() {
        return None;
    }
    let done = write(bio, session.as_ref());
    let mut start: *mut c_uchar = ptr::null_mut();
    // SAFETY: BIO_CTRL_INFO on a memory BIO stores where its bytes begin and returns their number (BIO_get_mem_data).
    let len = unsafe { ffi::BIO_ctrl(bio, BIO_CTRL_INFO, 0, ptr::from_mut(&mut start).cast::<c_void>()) };
    let text = (done == 1 && len > 0 && !start.is_null()).then(|| {
        // SAFETY: that many bytes, alive until the BIO is freed below.
        unsafe { std::slice::from_raw_parts(start, len as usize) }.to_vec()
    });
    // SAFETY: made above and not used again. A memory BIO wipes what it held.
    unsafe { ffi::BIO_free_all(bio) };
    text
}

/// bio.h.
const BIO_CTRL_INFO: c_int = 3;
