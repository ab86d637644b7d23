//! A connection to a server: to whom it goes, what was offered, and what is kept of the sessions that the server gives.

mod digest;
mod record;

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicI32, Ordering};

use libc::c_int;

use super::notices::Notice;
use super::openssl::{ex_index, Conn, SessionRef};
use super::{connection, ffi, running_major, session, Binding};
use crate::store::{flags, Flushes, Header, Login, Namespace, Pool};
use crate::sys::clock;

pub(super) use self::digest::Digest;
pub use self::digest::PARTS;
pub(crate) use self::record::parse;
pub(super) use self::record::{parse_shown, Shown};

pub(super) const TLS13: u16 = 0x0304;
/// RFC 8446 section 4.6.1: clients must not keep a ticket for longer. Nor a login, where no option says so.
pub(super) const LONGEST: u64 = 7 * 86_400;
/// The place of a session of TLS 1.2, which is used again and again; those below are for tickets of TLS 1.3.
const REUSED: u8 = 255;
pub(super) const PLACES: [u8; MOST_TICKETS + 1] = {
    let mut places = [REUSED; MOST_TICKETS + 1];
    let mut at = 0;
    while at < MOST_TICKETS {
        places[at] = at as u8;
        at += 1;
    }
    places
};
/// The most that `client_tickets` takes.
const MOST_TICKETS: usize = 64;

/// What is known of a connection that asked for a session, in its SSL's ex_data. An SSL belongs to one thread at a time.
pub(super) struct Peer {
    pub(super) slot: usize,
    pub(super) text: String,
    pub(super) digest: Digest,
    pub(super) name: [u8; 32],
    /// What was offered.
    pub(super) offered: RefCell<Option<Offered>>,
    /// What the connection goes back to, once that is known.
    pub(super) login: Cell<Option<(Login, Flushes)>>,
    pub(super) is_forgotten: Cell<bool>,
}

pub(super) struct Offered {
    pub(super) login: Login,
    pub(super) flushes: Flushes,
    /// What the server has shown, as records have it.
    pub(super) shown: Vec<u8>,
    pub(super) is_tls13: bool,
}

static INDEX: AtomicI32 = AtomicI32::new(-1);

fn index() -> c_int {
    INDEX.load(Ordering::Acquire)
}

/// Makes the index while no connection exists yet. `free` frees its values.
pub(super) fn prepare(free: ffi::ExFree) -> bool {
    ex_index(&INDEX, ffi::CRYPTO_EX_INDEX_SSL, Some(connection::forget_copy), Some(free)) >= 0
}

impl Peer {
    pub(super) fn find(conn: Conn<'_>) -> Option<&Peer> {
        let found = conn.ex_data(index()).cast::<Peer>();
        // SAFETY: our index holds NULL or what `keep` boxed, which OpenSSL frees with the SSL; the result lives no longer than the
        // borrow of the SSL.
        unsafe { found.as_ref() }
    }

    /// Keeps nothing with the connection.
    pub(super) fn forget(conn: Conn<'_>) {
        let before = conn.ex_data(index()).cast::<Peer>();
        if !before.is_null() && conn.set_ex_data(index(), std::ptr::null_mut()) {
            // SAFETY: from Box::into_raw in `keep`, and not under the index any more.
            drop(unsafe { Box::from_raw(before) });
        }
    }

    /// Keeps it with the connection, instead of what was kept before.
    pub(super) fn keep(self, conn: Conn<'_>) -> bool {
        let before = conn.ex_data(index()).cast::<Peer>();
        let made = Box::into_raw(Box::new(self));
        let (kept, end) = if conn.set_ex_data(index(), made.cast()) { (true, before) } else { (false, made) };
        if !end.is_null() {
            // SAFETY: from Box::into_raw, here or before, and not under the index any more.
            drop(unsafe { Box::from_raw(end) });
        }
        kept
    }

    /// What the connection goes back to, as far as that is known.
    pub(super) fn login_of(&self, conn: Conn<'_>) -> Option<(Login, Flushes)> {
        let offered = || self.offered.borrow().as_ref().map(|offered| (offered.login, offered.flushes));
        self.login.get().or_else(|| if conn.is_resumed() { offered() } else { None })
    }

    pub(super) fn pool<'a>(&'a self, binding: &'a Binding, places: &'a [u8]) -> Pool<'a> {
        Pool { name: &self.name, namespace: namespace(binding), places }
    }

    /// The connection ends. A session of TLS 1.2 with which no handshake came to its end is not offered again.
    pub(super) fn end(&self, binding: &Binding, conn: Conn<'_>) {
        let reused = self.offered.borrow().as_ref().is_some_and(|offered| !offered.is_tls13);
        if reused && !conn.is_before() && !conn.is_finished() {
            let _ = binding.store.empty_pool(self.pool(binding, &[REUSED]));
        }
    }
}

/// The namespace in which the clients of another keep their sessions. No option can contain the zero byte.
pub(crate) fn namespace_of(servers: &str) -> String {
    format!("{servers}\0clients")
}

/// Where sessions of clients lie: apart from an application's own records, and from servers' sessions.
pub(super) fn namespace(binding: &Binding) -> Namespace<'_> {
    Namespace(&binding.policy.clients.namespace)
}

/// The places for tickets, and that of a session of TLS 1.2.
pub(super) fn places(binding: &Binding) -> &'static [u8] {
    &PLACES[MOST_TICKETS - binding.policy.clients.tickets..]
}

/// What the server has shown in this handshake, as records have it. `None` where that says nothing, or not all.
pub(super) fn shown_of(conn: Conn<'_>) -> Option<Vec<u8>> {
    record::write_shown(conn.verify_result(), &conn.shown_chain()?)
}

/// The server has given a session.
pub(super) fn new(binding: &Binding, conn: Conn<'_>, session: SessionRef<'_>) {
    let Some(peer) = Peer::find(conn).filter(|peer| peer.slot == binding.slot() && !peer.is_forgotten.get()) else {
        return;
    };
    if !session.is_resumable() || (conn.demands_verification() && !conn.is_verified()) {
        return;
    }
    let Some((login, flushes, shown)) = origin(binding, conn, peer, session) else { return };
    peer.login.set(Some((login, flushes)));
    // A program that sets a name after it has asked for a session would get one for that name.
    let has_policy = binding.policy.clients.policy.is_some();
    // Of a key that both know beforehand, or a password, OpenSSL shows too little.
    if !has_policy && !conn.is_by_certificate() {
        return;
    }
    let same = Digest::of(binding, conn, &peer.text)
        .is_some_and(|now| now == peer.digest || (has_policy && peer.digest.is_same_but_for_certificate(&now)));
    if !same {
        binding.notices.say(
            Notice::ClientChanged,
            &binding.store.log,
            "a connection was changed after sesscache_resume: its sessions are not stored; call it right before SSL_connect",
        );
        return;
    }
    let is_quic = conn.version() == ffi::OSSL_QUIC1_VERSION;
    let version = session.version() as u16;
    let life = binding.policy.ttl_seconds().unwrap_or(LONGEST).min(LONGEST);
    let hint = match session.ticket_life() {
        // RFC 8446 section 4.6.1: discard it. In TLS 1.2 it says nothing (RFC 5077 section 3.3).
        0 if version == TLS13 => return,
        0 => LONGEST,
        seconds => seconds,
    };
    let expires =
        (session.time() + session.timeout().min(hint).min(LONGEST)).min(u64::from(login.full_handshake) + life);
    let expires = session.peer_expires().filter(|end| *end > session.time()).map_or(expires, |end| expires.min(end));
    let mut header = Header {
        flags: flags::CLIENT | if is_quic { flags::QUIC } else { 0 },
        protocol: version,
        openssl: running_major(),
        expires: u32::try_from(expires).unwrap_or(u32::MAX),
        full_handshake: login.full_handshake,
        lineage: login.lineage,
        server_name: binding.store.server_name_hash(peer.text.as_bytes()),
        ..Header::default()
    };
    let all = places(binding);
    let (reused, tickets) =
        all.split_last().map_or((all, all), |(last, tickets)| (std::slice::from_ref(last), tickets));
    let places = if version == TLS13 { tickets } else { reused };
    let _ = session::encode_after(
        session,
        |out| record::write_head(&peer.text, peer.digest.heads(), &shown, out),
        |plain| binding.store.put_in_pool(peer.pool(binding, places), flushes, &mut header, plain),
    );
}

/// What a session goes back to, and what its server has shown. `None` when that cannot be said.
fn origin(
    binding: &Binding,
    conn: Conn<'_>,
    peer: &Peer,
    session: SessionRef<'_>,
) -> Option<(Login, Flushes, Vec<u8>)> {
    if conn.is_resumed() {
        let offered = peer.offered.borrow();
        let offered = offered.as_ref()?;
        return Some((offered.login, offered.flushes, offered.shown.clone()));
    }
    let shown = shown_of(conn)?;
    if let Some((login, flushes)) = peer.login.get() {
        return Some((login, flushes, shown));
    }
    let (lineage, flushes) = binding.store.begin_lineage()?;
    let full_handshake = u32::try_from(session.time().min(clock::seconds())).unwrap_or(u32::MAX);
    Some((Login { lineage, full_handshake }, flushes, shown))
}
