//! The client's side: which session is offered to which server, and what is kept of what the server gives.
//!
//! A session stands for a server that was verified once, by the rules of one program. It is offered where all of that still holds:
//! the rules are in the name under which it lies (`digest`), and the certificates behind it are looked up again.

use std::cell::{Cell, RefCell};
use std::ptr;

use libc::{c_int, c_long, c_void};

use super::openssl::{Conn, Unreadable};
use super::peer::{self, anchors_of, places, Digest, Offered, Peer, LONGEST, PLACES, TLS13};
use super::session::{self, NewSession};
use super::{ffi, kept, running_major, slots, Binding, SSL};
use crate::status::{Error, Result, Status};
use crate::store::{flags, Login, Miss};
use crate::sys::crypto::sha256;

/// Makes what connections keep, while none exists yet.
pub(super) fn prepare() -> bool {
    peer::prepare(free)
}

unsafe extern "C" fn free(
    parent: *mut c_void,
    value: *mut c_void,
    _ad: *mut ffi::CRYPTO_EX_DATA,
    _idx: c_int,
    _argl: c_long,
    _argp: *mut c_void,
) {
    if value.is_null() {
        return;
    }
    // SAFETY: OpenSSL frees a value of the index once, with the SSL; the index holds only what `Peer::keep` boxed.
    let peer = unsafe { Box::from_raw(value.cast::<Peer>()) };
    // SAFETY: OpenSSL frees the ex_data of an SSL before the rest of it, and nobody else has the SSL any more.
    let conn = unsafe { Conn::new(parent.cast()) };
    slots::guarded(peer.slot, (), |binding| peer.end(binding, conn));
}

/// Why there is no resumption without the option `policy`.
fn check_readable(binding: &Binding, conn: Conn<'_>) -> Result<()> {
    let Some(what) = conn.unreadable().filter(|_| binding.policy.clients.policy.is_none()) else { return Ok(()) };
    let what = match what {
        Unreadable::VerifyCallback => "a verify callback (SSL_set_verify) decides on trust",
        Unreadable::ClientCertCallback => "a callback (SSL_CTX_set_client_cert_cb) chooses the client's certificate",
        Unreadable::Dane => "DANE decides on trust (SSL_dane_enable)",
        Unreadable::CertificateTransparency => "certificate transparency decides on trust (SSL_enable_ct)",
        Unreadable::RevocationLists => "revocation lists decide on trust (X509_V_FLAG_CRL_CHECK)",
    };
    let remedy = "give the option policy=TEXT, another text for each set of such rules";
    Err(Error::invalid(format!("{what}, and cannot be read")).remedy(remedy))
}

/// What a connection must be before a session can be offered.
fn check_ready(binding: &Binding, conn: Conn<'_>) -> Result<()> {
    if kept::client_slot(conn.ctx()) != Some(binding.slot()) {
        let error = Error::invalid("the SSL_CTX of the connection is not attached to this cache for clients");
        return Err(error.remedy("call sesscache_attach_client first"));
    }
    if conn.is_server() {
        let error = Error::invalid("the connection is a server's");
        return Err(error.remedy("call SSL_set_connect_state first, where the SSL_CTX is for both"));
    }
    if !conn.is_before() {
        return Err(Error::invalid("the handshake has begun").remedy("call it right before SSL_connect"));
    }
    check_readable(binding, conn)
}

fn no_digest() -> Error {
    Error::new(Status::OpenSsl, "OpenSSL could not compute a digest")
}

/// Offers a session with `peer`, if there is one that may be used, and has those stored that the server gives.
///
/// # Safety
/// `ssl` is a live connection driven by this thread.
pub(crate) unsafe fn resume(binding: &Binding, ssl: *mut SSL, peer: &str) -> Result<()> {
    if !(1..=255).contains(&peer.len()) {
        return Err(Error::invalid("a peer's name has 1 to 255 bytes").remedy("give \"host:port\""));
    }
    // SAFETY: live, and driven by this thread, as demanded above.
    let conn = unsafe { Conn::new(ssl) };
    slots::quiet(|| {
        check_ready(binding, conn)?;
        let digest = Digest::of(binding, conn, peer).ok_or_else(no_digest)?;
        let name = digest.name().ok_or_else(no_digest)?;
        begin(binding, conn, peer, digest, name)?;
        offer_from_pool(binding, conn, None)
    })
}

/// As [`resume`], for a connection that must go back to the same login as `control`, which is to the same peer.
///
/// # Safety
/// `ssl` and `control` are live connections driven by this thread.
pub(crate) unsafe fn resume_from(ssl: *mut SSL, control: *mut SSL) -> Result<()> {
    // SAFETY: live, and driven by this thread, as demanded above.
    let conn = unsafe { Conn::new(ssl) };
    // SAFETY: as above.
    let control = unsafe { Conn::new(control) };
    slots::quiet(|| {
        let Some(first) = Peer::find(control) else {
            return Err(Error::invalid("sesscache_resume was not called for the control connection"));
        };
        // SAFETY: the SSL_CTX of the control connection was attached to it, and keeps it.
        let binding = unsafe { slots::binding(first.slot) }.ok_or_else(none)?;
        check_ready(binding, conn)?;
        let digest = Digest::of(binding, conn, &first.text).ok_or_else(no_digest)?;
        if let Some(part) = first.digest.difference(&digest).filter(|_| digest != first.digest) {
            let error = Error::invalid(format!("the two connections differ in: {part}"));
            return Err(error.remedy("set both up in the same way"));
        }
        begin(binding, conn, &first.text, digest, first.name)?;
        let (login, flushes) = first.login_of(control).ok_or_else(none)?;
        if control.is_tls13() {
            return offer_from_pool(binding, conn, Some(login));
        }
        // In TLS 1.2 a session is used again, and that of the control connection is at hand.
        let session = control.session().filter(|session| session.is_resumable()).ok_or_else(none)?;
        if binding.store.has_ended(login, flushes) || !conn.offer(session.raw()) {
            return Err(none());
        }
        let peer = Peer::find(conn).ok_or_else(none)?;
        let anchors = first.offered.borrow().as_ref().map(|offered| offered.anchors.clone());
        let anchors = anchors.or_else(|| anchors_of(control)).ok_or_else(none)?;
        *peer.offered.borrow_mut() = Some(Offered { login, flushes, anchors, is_tls13: false });
        Ok(())
    })
}

fn none() -> Error {
    Error::new(Status::NotFound, "there is no session that may be used: the handshake will be a full one")
}

/// Notes with the connection whom it goes to.
fn begin(binding: &Binding, conn: Conn<'_>, peer: &str, digest: Digest, name: [u8; 32]) -> Result<()> {
    let peer = Peer {
        slot: binding.slot(),
        text: peer.to_owned(),
        digest,
        name,
        offered: RefCell::default(),
        login: Cell::default(),
        is_forgotten: Cell::default(),
    };
    match peer.keep(conn) {
        true => Ok(()),
        false => Err(Error::new(Status::OpenSsl, "OpenSSL could not keep the peer's name: out of memory")),
    }
}

fn offer_from_pool(binding: &Binding, conn: Conn<'_>, of: Option<Login>) -> Result<()> {
    let peer = Peer::find(conn).ok_or_else(none)?;
    let found = binding.store.find_in_pool(peer.pool(binding, places(binding)), |found| {
        let header = found.header;
        if !header.has(flags::CLIENT) || !found.is_of_namespace() {
            return Err(Miss::Namespace);
        }
        if header.openssl != running_major() {
            return Err(Miss::Protocol);
        }
        if of.is_some_and(|login| login != header.login()) {
            return Err(Miss::Namespace);
        }
        if found.is_revoked() {
            return Err(Miss::Revoked);
        }
        let record = peer::parse(found.open()?).ok_or(Miss::Damaged)?;
        let is_trusted = |(subject, hash): &(&[u8], &[u8; 32])| {
            conn.trusts(subject, |certificate| sha256(certificate).as_ref() == Some(hash))
        };
        if !record.anchors.iter().all(is_trusted) {
            return Err(Miss::ClientAuth);
        }
        let session = session::decode_whole(record.der).ok_or(Miss::Damaged)?;
        let anchors = record.anchors_bytes.to_vec();
        let is_tls13 = header.protocol == TLS13;
        if is_tls13 {
            // RFC 8446 appendix C.4: a ticket that is seen twice tells who comes again.
            found.take()?;
        }
        Ok((session, Offered { login: header.login(), flushes: found.flushes(), anchors, is_tls13 }))
    });
    let (session, offered) = found.map_err(|miss| match miss {
        Miss::Unavailable => Error::busy(),
        _ => none(),
    })?;
    offer(conn, session)?;
    *peer.offered.borrow_mut() = Some(offered);
    Ok(())
}

fn offer(conn: Conn<'_>, session: NewSession) -> Result<()> {
    if !conn.offer(session.as_ref().raw()) {
        return Err(none());
    }
    // The session says how the server was verified when it was made.
    if conn.demands_verification() && !conn.is_verified() {
        conn.offer(ptr::null_mut());
        return Err(none());
    }
    Ok(())
}

/// Ends the login behind a client's connection, and deletes all sessions with its peer.
pub(super) fn forget(conn: Conn<'_>) -> Result<()> {
    let not_found = || Error::new(Status::NotFound, "sesscache_resume was not called for the connection");
    let peer = Peer::find(conn).ok_or_else(not_found)?;
    // SAFETY: the SSL_CTX of the connection was attached to it, and keeps it.
    let binding = unsafe { slots::binding(peer.slot) }.ok_or_else(not_found)?;
    peer.is_forgotten.set(true);
    let offered = peer.offered.borrow().as_ref().map(|offered| offered.login);
    let logins: Vec<Login> = peer.login.get().map(|(login, _)| login).into_iter().chain(offered).collect();
    binding.store.revoke(&logins, LONGEST);
    binding.store.empty_pool(peer.pool(binding, &PLACES))
}
