//! The callbacks themselves: what OpenSSL hands over, what it gets back, and what it must not notice.

use std::time::Duration;

use libc::c_ulong;

use super::judge::{client_auth, extension, refuse, refuse_client};
use super::session::{self, Note};
use super::{connection, ffi, Binding};
use crate::options::{Remove, SingleUse, Sni};
use crate::stats::Counter;
use crate::store::{flags, Header, Judgement, Miss, Names, Namespace, Use};
use crate::sys::clock;

const TLS13: u16 = 0x0304;
/// Shortest life of a re-issued ticket: OpenSSL takes a timeout of 0 for its default.
const LEAST_LIFE: u64 = 1;

/// The protocol as records have it: version and flag bits.
///
/// # Safety
/// `ssl` is live.
unsafe fn protocol(ssl: *const ffi::SSL) -> (u16, u8) {
    // SAFETY: by contract.
    match unsafe { ffi::SSL_version(ssl) } {
        // QUIC is TLS 1.3 inside, and a session of one is not one of the other (RFC 9001 section 4.5).
        ffi::OSSL_QUIC1_VERSION => (TLS13, flags::QUIC),
        version => (version as u16, 0),
    }
}

/// Whether TLS 1.3 tickets of this connection are ids that will be looked up, and not sealed sessions.
///
/// # Safety
/// `ssl` is live.
unsafe fn tickets_are_stateful(ssl: *const ffi::SSL) -> bool {
    // SAFETY: by contract.
    let options = unsafe { ffi::SSL_get_options(ssl) };
    // SAFETY: by contract.
    let early_data = unsafe { ffi::SSL_get_max_early_data(ssl) } > 0;
    options & ffi::SSL_OP_NO_TICKET_64 != 0 || (early_data && options & ffi::SSL_OP_NO_ANTI_REPLAY == 0)
}

/// Whether the application has given the SSL_CTX an internal cache again: then OpenSSL keeps and returns copies of what is
/// good for one use, and asks nobody.
///
/// # Safety
/// `ssl` is live.
unsafe fn openssl_keeps_copies(binding: &Binding, ssl: *const ffi::SSL) -> bool {
    // SAFETY: by contract.
    let ctx = unsafe { ffi::SSL_get_SSL_CTX(ssl) };
    // After a switch to an SSL_CTX that is not ours its mode says nothing: that of the first one counts.
    // SAFETY: an SSL always has an SSL_CTX.
    let new = unsafe { ffi::SSL_CTX_sess_get_new_cb(ctx) };
    if !new.is_some_and(|new| std::ptr::fn_addr_eq(new, binding.trampolines().new)) {
        return false;
    }
    // SAFETY: as above; this control reads the mode.
    let mode = unsafe { ffi::SSL_CTX_ctrl(ctx, ffi::SSL_CTRL_GET_SESS_CACHE_MODE, 0, std::ptr::null_mut()) };
    mode & ffi::SSL_SESS_CACHE_NO_INTERNAL == 0
}

/// Whether the handshake under way has answered a ClientHello before: with a HelloRetryRequest, then. The server's random
/// number is all zero until the first answer, also on an SSL that is used again after SSL_clear.
///
/// # Safety
/// `ssl` is live and processing a ClientHello of TLS 1.3.
unsafe fn has_answered(ssl: *const ffi::SSL) -> bool {
    let mut random = [0_u8; 32];
    // SAFETY: by contract; at most 32 bytes are written.
    unsafe { ffi::SSL_get_server_random(ssl, random.as_mut_ptr(), random.len()) };
    random != [0; 32]
}

/// A session or ticket was made: store it.
///
/// # Safety
/// `ssl` is live, `session` is its own.
pub(super) unsafe fn new(binding: &Binding, ssl: *mut ffi::SSL, session: *mut ffi::SSL_SESSION) {
    // SAFETY: by contract.
    if unsafe { ffi::SSL_is_server(ssl) } != 1 {
        return;
    }
    // SAFETY: by contract; copied, because encoding takes the id away for a moment.
    let id = unsafe { session::id(session) }.to_vec();
    // SAFETY: by contract.
    let (version, kind) = unsafe { protocol(ssl) };
    let tls13 = version == TLS13;
    // SAFETY: by contract.
    let usable = if tls13 { id.len() == 32 && unsafe { tickets_are_stateful(ssl) } } else { !id.is_empty() };
    // SAFETY: by contract.
    let resumable = unsafe { ffi::SSL_SESSION_is_resumable(session) } == 1;
    // SAFETY: by contract.
    let auth = unsafe { client_auth(ssl, tls13) };
    // SAFETY: by contract.
    let has_peer = unsafe { session::has_peer(session) };
    let mut context_len = 0;
    // SAFETY: by contract.
    unsafe { ffi::SSL_SESSION_get0_id_context(session, &mut context_len) };
    // SAFETY: by contract; used up before the next call on it.
    let forgotten = unsafe { connection::find(ssl) }.is_some_and(|connection| connection.forgotten);
    // Without a context, resuming under client authentication is fatal in OpenSSL.
    if !usable || !resumable || forgotten || (auth.needs_context && context_len == 0) {
        binding.store.count(Counter::PutsSkipped);
        return;
    }

    // SAFETY: by contract.
    let made = unsafe { ffi::SSL_SESSION_get_time(session) }.max(0) as u64;
    // SAFETY: by contract.
    let timeout = unsafe { ffi::SSL_SESSION_get_timeout(session) }.max(0) as u64;
    // SAFETY: by contract.
    let note = unsafe { session::note(session) };
    let full_handshake = note.map_or(made, |note| u64::from(note.full_handshake));
    // SAFETY: by contract.
    let life = unsafe { binding.life(ssl) };
    let expires = (made + timeout).min(full_handshake + life);
    // Noted also on a session that was just made: later tickets of the same connection are copies of it.
    // SAFETY: by contract.
    unsafe { session::set_note(session, Note { slot: binding.slot(), full_handshake: full_handshake as u32 }) };

    let server_name = if binding.policy.sni == Sni::Strict {
        // SAFETY: by contract; 0 is TLSEXT_NAMETYPE_host_name.
        let name = unsafe { ffi::servername(ssl, 0) };
        if name.is_null() {
            0
        } else {
            // SAFETY: OpenSSL returns a NUL-terminated string inside the connection.
            let name = unsafe { std::ffi::CStr::from_ptr(name) };
            match binding.store.server_name_hash(name.to_bytes()) {
                Some(hash) => hash,
                None => return,
            }
        }
    } else {
        0
    };
    let mut header = Header {
        flags: kind,
        protocol: version,
        openssl: super::running_major(),
        id_len: id.len() as u8,
        expires: u32::try_from(expires).unwrap_or(u32::MAX),
        full_handshake: full_handshake as u32,
        server_name,
        ..Header::default()
    };
    header.flags |= if auth.asks || has_peer { flags::CLIENT_AUTH } else { 0 };
    header.flags |= if context_len > 0 { flags::ID_CONTEXT } else { 0 };
    // SAFETY: by contract; in this callback no other thread has the session.
    let Some(mut der) = (unsafe { session::encode(session, &id) }) else { return };
    let stored = binding.store.put(&id, Namespace(&binding.policy.namespace), &mut header, &der);
    crate::store::cleanse(&mut der);
    let Ok(tag) = stored else { return };
    if tls13 {
        // A ticket is redeemed once, so decoding it would never pay for another time: kept now or never.
        // SAFETY: by contract.
        if unsafe { session::is_as_stored(ssl, session) } {
            // SAFETY: by contract; in this callback no other thread has the session.
            unsafe { binding.decoded.keep(&tag, &header, session) };
        }
        // SAFETY: by contract.
        if let Some(connection) = unsafe { connection::find_or_make(ssl) } {
            connection.remember(&id);
        }
    }
}

/// A client offers this id. It is the client's to choose: most are none of ours.
///
/// # Safety
/// `ssl` is live and processing a ClientHello.
pub(super) unsafe fn get(binding: &Binding, ssl: *mut ffi::SSL, id: &[u8]) -> *mut ffi::SSL_SESSION {
    // SAFETY: by contract.
    let (version, kind) = unsafe { protocol(ssl) };
    let tls13 = version == TLS13;
    // SAFETY: by contract.
    let auth = unsafe { client_auth(ssl, tls13) };
    // A full handshake would fail without a certificate, so no session without one may stand in for it.
    let suits = |session: &session::Session| {
        // SAFETY: a live session.
        !auth.insists || unsafe { session::has_peer(session.raw()) }
    };
    if tls13 {
        // SAFETY: by contract.
        let retried = unsafe { has_answered(ssl) };
        // SAFETY: by contract; used up at once.
        let known = unsafe { connection::find(ssl) };
        if let Some((header, session)) = known.and_then(|connection| connection.taken(id, retried)) {
            // The second ClientHello may differ from the first, and so may what the application makes of it.
            let hash = |name: &[u8]| binding.store.server_name_hash(name);
            // SAFETY: by contract.
            let miss = unsafe { refuse_client(binding, ssl, &header, &auth, hash) };
            return if miss.is_none() && suits(&session) { session.into_raw() } else { std::ptr::null_mut() };
        }
    }
    let policy = &binding.policy;
    let used = std::cell::Cell::new(Use::Peek);
    let judge = |header: &Header, tag: &[u8; 16], names: Names<'_>| {
        // SAFETY: by contract.
        if let Some(miss) = unsafe { refuse(binding, ssl, header, (version, kind), &auth, &names) } {
            return (Judgement::Refuse(miss), Use::Peek);
        }
        let take = match policy.single_use {
            // SAFETY: by contract.
            SingleUse::EarlyData => tls13 && unsafe { extension(ssl, ffi::TLSEXT_TYPE_EARLY_DATA) }.is_some(),
            SingleUse::Always => tls13,
            SingleUse::Off => false,
        };
        // SAFETY: by contract.
        if take && unsafe { openssl_keeps_copies(binding, ssl) } {
            return (Judgement::Refuse(Miss::Unavailable), Use::Peek);
        }
        used.set(if take { Use::Take } else { Use::Peek });
        let judgement = match binding.decoded.find(tag, header, id) {
            Some(session) if !suits(&session) => Judgement::Refuse(Miss::ClientAuth),
            Some(session) => Judgement::Have((session, *header)),
            None => Judgement::Open,
        };
        (judgement, used.get())
    };
    let open = |header: &Header, tag: &[u8; 16], der: &[u8]| {
        let session = session::decode(der, id).ok_or(Miss::Damaged)?;
        // SAFETY: a live session of our own.
        let inside = unsafe { ffi::SSL_SESSION_get_protocol_version(session.raw()) };
        if inside != libc::c_int::from(version) {
            return Err(Miss::Damaged);
        }
        if !suits(&session) {
            return Err(Miss::ClientAuth);
        }
        if used.get() == Use::Peek {
            // SAFETY: a session of our own.
            unsafe { binding.decoded.keep(tag, header, session.raw()) };
        }
        Ok((session, *header))
    };
    let found = binding.store.get(id, Namespace(&policy.namespace), judge, open);
    let Ok((session, header)) = found else { return std::ptr::null_mut() };
    let note = Note { slot: binding.slot(), full_handshake: header.full_handshake };
    // SAFETY: a session of our own that nobody else has seen: decoded now, or a duplicate.
    unsafe { session::set_note(session.raw(), note) };
    if tls13 {
        // SAFETY: by contract; used up at once.
        if let Some(connection) = unsafe { connection::find_or_make(ssl) } {
            connection.remember(id);
            if used.get() == Use::Take {
                connection.keep_taken(id, header, &session);
            }
        }
    }
    session.into_raw()
}

/// OpenSSL has no more use for a session. It says so far more often than sessions go bad.
///
/// # Safety
/// `session` is live.
pub(super) unsafe fn remove(binding: &Binding, session: *mut ffi::SSL_SESSION, cause: c_ulong) {
    // SAFETY: by contract.
    let id = unsafe { session::id(session) };
    if id.is_empty() {
        return;
    }
    // SAFETY: by contract. Only what came from this cache may be deleted by it: with tickets, the id of a session is
    // whatever the client wrote into its ClientHello.
    let ours = unsafe { session::note(session) }.is_some_and(|note| note.slot == binding.slot());
    let obeyed = match binding.policy.remove {
        Remove::Failures => is_tls_failure(cause),
        Remove::OpenSsl => true,
        Remove::Never => false,
    };
    if ours && obeyed {
        let _ = binding.store.remove(id, Namespace(&binding.policy.namespace));
    } else {
        binding.store.count(Counter::RemovesIgnored);
    }
}

/// Whether the last error is TLS's own (RFC 5246 section 7.2.2), and not a connection that ended without close_notify:
/// TLS 1.1 and later allow resuming after that, and most clients just close.
fn is_tls_failure(cause: c_ulong) -> bool {
    cause != 0
        && ffi::ERR_GET_LIB(cause) == ffi::ERR_LIB_SSL
        && ffi::ERR_GET_REASON(cause) != ffi::SSL_R_UNEXPECTED_EOF_WHILE_READING
}

/// Makes the id of a new session, or of a new TLS 1.3 ticket. False: make a random one.
///
/// # Safety
/// `ssl` is live.
pub(super) unsafe fn generate(binding: &Binding, ssl: *mut ffi::SSL, out: &mut [u8]) -> bool {
    // SAFETY: by contract.
    let mut life = unsafe { binding.life(ssl) };
    // SAFETY: by contract.
    let (version, _) = unsafe { protocol(ssl) };
    // SAFETY: by contract; in TLS 1.3 this is the ticket's own session, a copy made a moment ago.
    let session = unsafe { ffi::SSL_get_session(ssl) };
    if version == TLS13 && !session.is_null() {
        // SAFETY: the connection holds the session, which is not NULL.
        if let Some(note) = unsafe { session::note(session) } {
            let age = clock::seconds().saturating_sub(u64::from(note.full_handshake));
            life = life.saturating_sub(age).max(LEAST_LIFE);
        }
        // SAFETY: as above.
        let timeout = unsafe { ffi::SSL_SESSION_get_timeout(session) }.max(0) as u64;
        // What is left of the life that began with the last full handshake; the hint to the client says the same.
        life = life.min(timeout.max(LEAST_LIFE));
        if life != timeout {
            // SAFETY: as above.
            unsafe { ffi::SSL_SESSION_set_timeout(session, life as libc::c_long) };
        }
        // SAFETY: by contract.
        let here = unsafe { tickets_are_stateful(ssl) } && !unsafe { openssl_keeps_copies(binding, ssl) };
        if binding.policy.single_use != SingleUse::Off && !here {
            // The application has turned on stateless tickets or the internal cache again. Then nobody asks here before
            // a ticket is used again, and OpenSSL's own protection is off: no early data with it.
            // SAFETY: by contract.
            unsafe { ffi::SSL_set_max_early_data(ssl, 0) };
        }
    }
    match binding.store.issue_id(Duration::from_secs(life)) {
        Some(id) if id.len() == out.len() => {
            out.copy_from_slice(&id);
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_connection_is_no_failure_and_a_bad_record_is() {
        let error = |lib: u64, reason: u64| (lib << 23 | reason) as c_ulong;
        assert!(!is_tls_failure(0));
        assert!(!is_tls_failure(error(20, 294)));
        assert!(!is_tls_failure(error(2, 281)), "a system error is not TLS's own");
        assert!(is_tls_failure(error(20, 281)));
    }
}
