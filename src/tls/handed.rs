//! Sessions of servers that keep their own session callbacks, handed in and out as SSL_SESSIONs. The server decides what resumes.

use std::ptr::NonNull;

use super::openssl::SessionRef;
use super::{attach, running_major, session, slots, Binding, SSL_SESSION};
use crate::status::{Error, Result, Status};
use crate::store::{Header, Miss, Namespace};

/// Stores the session under its id until it expires.
///
/// # Safety
/// `raw` is NULL or a live session of the libssl that this library uses, whose fields no other thread changes.
pub(crate) unsafe fn put_session(binding: &Binding, raw: *mut SSL_SESSION) -> Result<()> {
    attach::check_version()?;
    let raw = NonNull::new(raw).ok_or_else(|| Error::invalid("session is NULL"))?;
    // SAFETY: live and unchanged, as demanded above.
    let session = unsafe { SessionRef::new(raw) };
    let id = session.id();
    if id.is_empty() {
        let error = Error::invalid("the session has no id: its client keeps it in a stateless ticket");
        return Err(error.remedy("set SSL_OP_NO_TICKET"));
    }
    let mut header = Header {
        openssl: running_major(),
        id_len: id.len() as u8,
        expires: u32::try_from(session.time().saturating_add(session.timeout())).unwrap_or(u32::MAX),
        ..Header::default()
    };
    let put = |der: &[u8]| binding.store.put_opaque(&id, Namespace(&binding.policy.namespace), &mut header, der);
    slots::quiet(|| session::encode_whole(session, put))
        .unwrap_or_else(|| Err(Error::new(Status::OpenSsl, "OpenSSL could not encode the session: out of memory")))
}

/// The session under this id; the caller has a reference to free.
pub(crate) fn get_session(binding: &Binding, id: &[u8]) -> Result<*mut SSL_SESSION> {
    attach::check_version()?;
    let decode = |header: &Header, der: &[u8]| match header.openssl == running_major() {
        true => slots::quiet(|| session::decode_whole(der)),
        false => None,
    };
    let found = binding.store.get_opaque(id, Namespace(&binding.policy.namespace), false, decode);
    match found {
        Ok(Some(session)) => Ok(session.share().into_raw()),
        Err(Miss::Unavailable) => Err(Error::busy()),
        Ok(None) | Err(_) => Err(Error::new(Status::NotFound, "no such session")),
    }
}
