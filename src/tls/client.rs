//! The client's side: which session is offered to which server, and what is kept of what the server gives.
//!
//! A session stands for a server that was verified once, by the rules of one program. It is offered where all of that still holds:
//! the rules are in the name under which it lies (`digest`), and the certificates behind it are looked up again.

use std::cell::{Cell, RefCell};
use std::ptr;

use libc::{c_int, c_long, c_void};

use super::openssl::{Conn, Unreadable};
use super::peer::{self, parse_shown, places, shown_of, Digest, Offered, Peer, Shown, LONGEST, PLACES, TLS13};
use super::session;
use super::{ffi, kept, running_major, slots, Binding, SSL};
use crate::status::{Error, Result, Status};
use crate::store::{flags, Login, Miss};

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
        Unreadable::StoreCallback => {
            "a function of the host verifies chains (X509_STORE_set_verify_cb, ..._check_revocation)"
        }
        Unreadable::StatusCallback => "a callback looks at the stapled status (SSL_CTX_set_tlsext_status_cb)",
        Unreadable::SecurityCallback => "a security callback decides (SSL_set_security_callback)",
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
pub(crate) unsafe fn resume(binding: &Binding, ssl: *mut SSL, peer: &[u8]) -> Result<()> {
    // SAFETY: live, and driven by this thread, as demanded above.
    let conn = unsafe { Conn::new(ssl) };
    slots::quiet(|| {
        withdraw(conn);
        let peer = std::str::from_utf8(peer).map_err(|_| Error::invalid("the peer's name is not UTF-8"))?;
        if !(1..=255).contains(&peer.len()) {
            return Err(Error::invalid("a peer's name has 1 to 255 bytes").remedy("give \"host:port\""));
        }
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
    if ssl == control {
        return Err(Error::invalid("the two connections are one"));
    }
    // SAFETY: live, and driven by this thread, as demanded above.
    let conn = unsafe { Conn::new(ssl) };
    // SAFETY: as above.
    let control = unsafe { Conn::new(control) };
    slots::quiet(|| {
        withdraw(conn);
        let Some(first) = Peer::find(control) else {
            return Err(Error::invalid("sesscache_resume was not called for the control connection"));
        };
        // SAFETY: the SSL_CTX of the control connection was attached to it, and keeps it.
        let binding = unsafe { slots::binding(first.slot) }.ok_or_else(none)?;
        check_ready(binding, conn)?;
        if !control.is_finished() {
            return Err(Error::invalid("the control connection has not ended its handshake"));
        }
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
        let shown =
            first.offered.borrow().as_ref().filter(|_| control.is_resumed()).map(|offered| offered.shown.clone());
        let shown = shown.or_else(|| shown_of(control)).ok_or_else(none)?;
        let holds = parse_shown(&shown).is_some_and(|(shown, _)| still_holds(conn, &shown));
        if binding.store.has_ended(login, flushes) || !holds {
            return Err(none());
        }
        offer(conn, session.raw())?;
        let peer = Peer::find(conn).ok_or_else(none)?;
        *peer.offered.borrow_mut() = Some(Offered { login, flushes, shown, is_tls13: false });
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
    let mut verified: Option<(Vec<u8>, bool)> = None;
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
        // Tickets of one server mostly come with one chain.
        let known = verified.as_ref().filter(|(shown, _)| shown[..] == *record.shown.bytes).map(|(_, holds)| *holds);
        let holds = known.unwrap_or_else(|| still_holds(conn, &record.shown));
        verified = Some((record.shown.bytes.to_vec(), holds));
        if !holds {
            return Err(Miss::ClientAuth);
        }
        let session = session::decode_whole(record.der).ok_or(Miss::Damaged)?;
        let shown = record.shown.bytes.to_vec();
        let is_tls13 = header.protocol == TLS13;
        if is_tls13 {
            // RFC 8446 appendix C.4: a ticket that is seen twice tells who comes again.
            found.take()?;
        }
        Ok((session, Offered { login: header.login(), flushes: found.flushes(), shown, is_tls13 }))
    });
    let (session, offered) = found.map_err(|miss| match miss {
        Miss::Unavailable => Error::busy(),
        _ => none(),
    })?;
    offer(conn, session.share().as_ref().raw())?;
    *peer.offered.borrow_mut() = Some(offered);
    Ok(())
}

/// Whether a handshake that showed this would come to the same result now. Where a callback of the host has a say, the option `policy`
/// stands for it.
fn still_holds(conn: Conn<'_>, shown: &Shown<'_>) -> bool {
    use Unreadable::{Dane, StoreCallback, VerifyCallback};
    if matches!(conn.unreadable(), Some(VerifyCallback | StoreCallback | Dane)) {
        return true;
    }
    conn.verify(&shown.chain) == Some(shown.result)
}

/// Takes back what was offered before, and what was noted of it: a connection may be used for one peer after another.
fn withdraw(conn: Conn<'_>) {
    if conn.is_before() && !conn.is_server() {
        conn.offer(ptr::null_mut());
        Peer::forget(conn);
    }
}

fn offer(conn: Conn<'_>, session: *mut ffi::SSL_SESSION) -> Result<()> {
    if !conn.offer(session) {
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
