//! The callbacks themselves: what OpenSSL hands over, what it gets back, and what it must not notice.

use std::time::Duration;

use libc::c_ulong;

use super::connection::{end_elsewhere, Connection};
use super::handshakes::LastRead;
use super::kept;
use super::notices::Notice;
use super::openssl::{Conn, SessionMut, SessionRef};
use super::peer;
use super::policy::{client_auth, reject, reject_client, reject_session};
use super::session::{self, Note};
use super::{ffi, Binding};
use crate::options::{Remove, SingleUse, Sni, Tickets};
use crate::stats::Counter;
use crate::store::{flags, Header, Login, Miss, Namespace, RecordKind};
use crate::sys::clock;

const TLS13: u16 = 0x0304;
/// Shortest life of a re-issued ticket: OpenSSL takes a timeout of 0 for its default.
const LEAST_LIFE: u64 = 1;

/// The protocol as records have it: version and flag bits.
fn protocol(conn: Conn<'_>) -> (u16, u8) {
    match conn.version() {
        // QUIC is TLS 1.3 inside, and a session of one is not one of the other (RFC 9001 section 4.5).
        ffi::OSSL_QUIC1_VERSION => (TLS13, flags::QUIC),
        version => (version as u16, 0),
    }
}

/// Whether TLS 1.3 tickets of this connection are ids that will be looked up, and not sealed sessions.
pub(super) fn tickets_are_stateful(conn: Conn<'_>) -> bool {
    let options = conn.options();
    options & ffi::SSL_OP_NO_TICKET_64 != 0 || (conn.max_early_data() > 0 && options & ffi::SSL_OP_NO_ANTI_REPLAY == 0)
}

/// Whether TLS 1.3 tickets are the host's, as the option `tickets` says, and nothing of them is for the store.
fn has_tickets_of_the_host(binding: &Binding, conn: Conn<'_>) -> bool {
    binding.policy.tickets == Tickets::Host && !tickets_are_stateful(conn)
}

/// OpenSSL's counters of the connection's SSL_CTX, if that is attached to this cache.
fn last_read<'a>(binding: &Binding, conn: Conn<'a>) -> Option<&'a LastRead> {
    kept::attached(conn.ctx()).filter(|(slot, _)| *slot == binding.slot()).map(|(_, last_read)| last_read)
}

/// A session or ticket was made: store it.
pub(super) fn new(binding: &Binding, conn: Conn<'_>, session: SessionRef<'_>) {
    if !conn.is_server() {
        return peer::new(binding, conn, session);
    }
    let Some(connection) = Connection::current(conn) else { return };
    let (version, kind) = protocol(conn);
    let tls13 = version == TLS13;
    if connection.see() {
        match last_read(binding, conn) {
            Some(last_read) => last_read.begin_in_child(conn.ctx(), tls13, conn.is_resumed()),
            None => end_elsewhere(&binding.handshakes, conn, tls13),
        }
        binding.handshakes.see(&binding.store, conn.is_resumed());
    }
    let id = session.id();
    if tls13 && has_tickets_of_the_host(binding, conn) {
        return;
    }
    let usable = if tls13 { id.len() == 32 && tickets_are_stateful(conn) } else { !id.is_empty() };
    let auth = client_auth(conn, tls13);
    let has_context = session.has_context();
    // Without a context, resuming under client authentication is fatal in OpenSSL.
    if !usable || !session.is_resumable() || (auth.needs_context && !has_context) {
        binding.store.count(Counter::PutsSkipped, 1);
        return;
    }

    let noted = session::note(session);
    let Some(note) = noted.or_else(|| first_note(binding, connection, session)) else { return };
    connection.remember(note.login);
    // Noted also on a session that was just made: later tickets of the same connection are copies of it.
    if let Some(mut session) = conn.unshared(session, binding.trampolines()).filter(|_| noted.is_none()) {
        session::set_note(&mut session, note);
    }
    let full_handshake = u64::from(note.login.full_handshake);
    let expires = (session.time() + session.timeout()).min(full_handshake + binding.life(conn));
    // A host that accepts a certificate which has expired already goes by other rules.
    let peer_expires = session.peer_expires().filter(|end| *end > session.time());
    let expires = peer_expires.map_or(expires, |end| expires.min(end));

    let name = if binding.policy.sni == Sni::Strict { conn.server_name() } else { None };
    let server_name = name.map_or(0, |name| binding.store.server_name_hash(name.to_bytes()));
    let mut header = Header {
        flags: kind,
        protocol: version,
        openssl: super::running_major(),
        id_len: id.len() as u8,
        expires: u32::try_from(expires).unwrap_or(u32::MAX),
        full_handshake: note.login.full_handshake,
        lineage: note.login.lineage,
        server_name,
        ..Header::default()
    };
    header.flags |= if auth.asks || session.has_peer() { flags::CLIENT_AUTH } else { 0 };
    header.flags |= if has_context { flags::ID_CONTEXT } else { 0 };
    header.flags |= if tls13 || connection.kept_terms(conn.terms()) { 0 } else { flags::LATE_TERMS };
    // A session that is not stored is counted where that happens.
    let _ = session::encode(session, |der| {
        binding.store.put_session(&id, Namespace(&binding.policy.namespace), note.flushes, &mut header, der)
    });
}

/// The note for a session that has none: of the login that the connection knows already, or of a new one. `None` when there are no
/// random bytes.
fn first_note(binding: &Binding, connection: &Connection, session: SessionRef<'_>) -> Option<Note> {
    let (lineage, flushes) = binding.store.begin_lineage()?;
    let full_handshake = u32::try_from(session.time()).unwrap_or(u32::MAX);
    let login = connection.login().unwrap_or(Login { lineage, full_handshake });
    Some(Note { slot: binding.slot(), flushes, login })
}

/// A client offers this id. It is the client's to choose: most are none of ours.
pub(super) fn get(binding: &Binding, conn: Conn<'_>, id: &[u8]) -> *mut ffi::SSL_SESSION {
    let (version, kind) = protocol(conn);
    let tls13 = version == TLS13;
    if let Some(last_read) = last_read(binding, conn) {
        binding.handshakes.read(&binding.store, conn.ctx(), last_read);
    }
    // SSL_stateless(3) has answered the first ClientHello and kept nothing. OpenSSL looks at the binder of a session before it has
    // read the cookie, so that it does not verify, and ends the handshake.
    if tls13 && conn.extension(ffi::TLSEXT_TYPE_COOKIE).is_some() && !conn.has_answered() {
        return std::ptr::null_mut();
    }
    let auth = client_auth(conn, tls13);
    let suits = |header: &Header, session: SessionRef<'_>| {
        reject_session(conn, tls13, &auth, header, session).map_or(Ok(()), Err)
    };
    let known = Connection::begin(conn).filter(|_| tls13).and_then(|connection| connection.taken(id));
    if let Some((header, session)) = known {
        // The second ClientHello may differ from the first, and so may what the application makes of it.
        let miss = reject_client(binding, conn, &header, &auth, |name| binding.store.server_name_hash(name));
        let flushes = session::note(session.as_ref()).map(|note| note.flushes);
        let ended = flushes.is_none_or(|seen| binding.store.has_ended(header.login(), seen));
        let same = miss.is_none() && !ended && suits(&header, session.as_ref()).is_ok();
        return if same { session.into_raw() } else { std::ptr::null_mut() };
    }
    let (mut taken, mut in_memory) = (false, false);
    let found = binding.store.lookup(id, Namespace(&binding.policy.namespace), RecordKind::Session, |found| {
        if let Some(miss) = reject(binding, conn, found, (version, kind), &auth) {
            return Err(miss);
        }
        let take = match binding.policy.single_use {
            SingleUse::EarlyData => tls13 && conn.extension(ffi::TLSEXT_TYPE_EARLY_DATA).is_some(),
            SingleUse::Always => tls13,
            SingleUse::Off => false,
        };
        in_memory = found.is_in_memory();
        if take && conn.keeps_copies(binding.trampolines()) {
            return Err(Miss::Unavailable);
        }
        let header = found.header;
        let session = binding.kinds.decode(found.open()?, header.lineage, id).ok_or(Miss::Damaged)?;
        if session.as_ref().version() != libc::c_int::from(version) {
            return Err(Miss::Damaged);
        }
        suits(&header, session.as_ref())?;
        // What is not resumed is not used up.
        if take {
            found.take()?;
            taken = true;
        }
        Ok((session, header, found.flushes()))
    });
    let Ok((mut session, header, flushes)) = found else { return std::ptr::null_mut() };
    let note = Note { slot: binding.slot(), flushes, login: header.login() };
    session::set_note(&mut session.as_mut(), note);
    let session = session.share();
    let Some(connection) =
        Connection::find_or_make(conn).filter(|connection| connection.note_found(conn, binding, note.login))
    else {
        return std::ptr::null_mut();
    };
    binding.handshakes.find();
    if taken {
        connection.keep_taken(id, header, &session);
    }
    // A client goes by what its ticket said when it was made. OpenSSL accepts its early data, and ends the handshake when
    // the session allows none. One that is not in the store never does: nobody promises its single use.
    let early =
        conn.extension(ffi::TLSEXT_TYPE_EARLY_DATA).is_some() && (in_memory || session.as_ref().max_early_data() == 0);
    // OpenSSL's own protection, where the host has it on, resumes from the internal cache alone.
    let protected = conn.options() & ffi::SSL_OP_NO_ANTI_REPLAY == 0;
    if tls13 && conn.max_early_data() > 0 && (early || protected) {
        connection.suspend_early_data(conn.max_early_data());
        conn.set_max_early_data(0);
    }
    session.into_raw()
}

/// The handshake under way turns out to be a full one. If a session was found for it, OpenSSL has refused that.
fn note_refusal(binding: &Binding, conn: Conn<'_>) {
    let times = Connection::find(conn).map_or(0, |connection| connection.refused(conn));
    if times > 0 {
        binding.handshakes.refuse(times);
        binding.store.count(Counter::HitsRefused, times);
        binding.notices.say(
            Notice::Refused,
            &binding.store.log,
            "OpenSSL refuses sessions that are found: give all servers that share them one SSL_CTX_set_session_id_context",
        );
    }
}

/// Says what the host has changed of what attaching has set, since nothing else would tell.
fn report_changes(binding: &Binding, conn: Conn<'_>) {
    let ctx = conn.ctx();
    if kept::attached(ctx).is_none_or(|(slot, _)| slot != binding.slot()) {
        return;
    }
    let log = &binding.store.log;
    if !ctx.has_callbacks(binding.trampolines()) {
        binding.notices.say(
            Notice::Callbacks,
            log,
            "the program has replaced a session callback after attaching: sessions are lost; attach last",
        );
    } else if !ctx.caches_sessions() {
        binding.notices.say(
            Notice::CacheMode,
            log,
            "the program has switched session caching off after attaching: nothing is stored; attach last",
        );
    }
}

/// OpenSSL has no more use for a session. It says so far more often than sessions go bad.
pub(super) fn remove(binding: &Binding, session: SessionRef<'_>, cause: c_ulong) {
    let id = session.id();
    if id.is_empty() {
        return;
    }
    // Only what came from this cache may be deleted by it: with tickets, the id of a session is whatever the client wrote
    // into its ClientHello.
    let ours = session::note(session).is_some_and(|note| note.slot == binding.slot());
    let obeyed = match binding.policy.remove {
        Remove::Failures => is_tls_failure(cause),
        Remove::OpenSsl => true,
        Remove::Never => false,
    };
    if ours && obeyed {
        let _ = binding.store.remove(&id, Namespace(&binding.policy.namespace));
    } else {
        binding.store.count(Counter::RemovesIgnored, 1);
    }
}

/// Whether the last error is TLS's own (RFC 5246 section 7.2.2), and not a connection that ended without close_notify:
/// TLS 1.1 and later allow resuming after that, and most clients just close.
fn is_tls_failure(cause: c_ulong) -> bool {
    cause != 0
        && ffi::ERR_GET_LIB(cause) == ffi::ERR_LIB_SSL
        && ffi::ERR_GET_REASON(cause) != ffi::SSL_R_UNEXPECTED_EOF_WHILE_READING
}

/// Makes the id of a new session, or of the new TLS 1.3 ticket that `session` becomes. False: make a random one.
pub(super) fn generate(binding: &Binding, conn: Conn<'_>, session: Option<SessionMut<'_>>, out: &mut [u8]) -> bool {
    let mut life = binding.life(conn);
    let (version, _) = protocol(conn);
    report_changes(binding, conn);
    // First of all: whose tickets they are depends on it.
    if let Some(allowed) =
        Connection::find(conn).filter(|_| version == TLS13).and_then(Connection::suspended_early_data)
    {
        conn.set_max_early_data(allowed);
    }
    if version == TLS13 && has_tickets_of_the_host(binding, conn) {
        return false;
    }
    if version != TLS13 || !conn.is_resumed() {
        note_refusal(binding, conn);
    }
    if version != TLS13 {
        Connection::begin(conn);
        if let Some(connection) = Connection::find_or_make(conn) {
            connection.set_terms(conn.terms());
        }
    }
    if let Some(mut session) = session.filter(|_| version == TLS13) {
        let Some(connection) = Connection::current(conn) else { return false };
        let noted = session::note(*session);
        if let Some(note) = noted.or_else(|| first_note(binding, connection, *session)) {
            if noted.is_none() {
                session::set_note(&mut session, note);
            }
            let age = clock::seconds().saturating_sub(u64::from(note.login.full_handshake));
            life = life.saturating_sub(age).max(LEAST_LIFE);
        }
        // What is left of the life that began with the last full handshake; the hint to the client says the same.
        let timeout = session.timeout();
        life = life.min(timeout.max(LEAST_LIFE));
        if life != timeout && session.lasts() {
            session.set_timeout(life);
        }
        let here = tickets_are_stateful(conn) && !conn.keeps_copies(binding.trampolines());
        if binding.policy.single_use != SingleUse::Off && !here {
            // The application has turned on stateless tickets or the internal cache again. Then nobody asks here before
            // a ticket is used again, and OpenSSL's own protection is off: no early data with it.
            conn.set_max_early_data(0);
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
