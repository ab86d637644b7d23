//! What is remembered of one connection, in its SSL's ex_data: the logins behind it, and a ticket taken for it.
//!
//! SSL_clear(3) makes another client's connection of the same SSL and keeps its ex_data, while a renegotiation goes on with
//! the same client. The server's random number tells them apart: it is all zero in a handshake that has not answered yet,
//! unless there was a handshake before it in the same connection; and another one without a renegotiation is another connection.

use std::cell::RefCell;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::Arc;

use libc::{c_int, c_long, c_void};

use super::handshakes::Handshakes;
use super::openssl::{ex_index, Conn, Terms};
use super::session::Session;
use super::{ffi, kept, Binding};
use crate::store::id::ID;
use crate::store::{Header, Login};
use crate::sys::process::incarnation;

/// Logins that one connection may have: more than one needs renegotiations that resume sessions of others.
const LOGINS: usize = 64;

/// See the module's first line. An SSL belongs to one thread at a time, and so does this.
#[derive(Default)]
pub(super) struct Connection(RefCell<Remembered>);

#[derive(Default)]
struct Remembered {
    /// The server's random number of the latest handshake that came so far.
    random: [u8; 32],
    logins: Vec<Login>,
    /// The handshake under way is a renegotiation.
    renegotiates: bool,
    /// A callback has seen that handshake come to its end.
    seen: bool,
    /// What was found for the handshake under way.
    found: Option<Candidate>,
    /// A session taken for this connection: HelloRetryRequest makes OpenSSL ask for it twice.
    taken: Option<([u8; ID], Header, Session)>,
    /// What the handshake under way could have agreed on before the servername callback.
    terms: Option<Terms>,
    /// Bytes of early data that the host allows, where the session that is resumed allows none.
    early_data: Option<u32>,
}

/// A session that was found for a handshake. Only if that resumes it, its login is behind the connection.
struct Candidate {
    login: Login,
    /// Where it was found, in which process.
    slot: usize,
    handshakes: Arc<Handshakes>,
    process: u64,
    quic: bool,
    /// The client's random number: whose handshake it is.
    random: [u8; 32],
    /// How often: twice when a HelloRetryRequest makes OpenSSL ask again.
    times: u64,
}

impl Remembered {
    /// Another connection begins on the same SSL.
    fn reset(&mut self, conn: Conn<'_>) {
        if let Some(allowed) = self.early_data {
            conn.set_max_early_data(allowed);
        }
        *self = Remembered::default();
    }

    fn add(&mut self, login: Login) {
        if !self.logins.contains(&login) {
            self.logins.push(login);
        }
    }
}

impl Connection {
    /// What is remembered, if anything, as a ClientHello is answered or a TLS 1.2 session begins.
    pub(super) fn begin(conn: Conn<'_>) -> Option<&Connection> {
        let found = Connection::find(conn)?;
        let mut memory = found.0.borrow_mut();
        if !conn.has_answered() {
            memory.reset(conn);
        } else if !conn.is_tls13() {
            // A handshake that had not resumed what was found would have made a session, and forgotten it.
            memory.renegotiates = true;
            if let Some(found) = memory.found.take() {
                memory.add(found.login);
            }
        }
        drop(memory);
        Some(found)
    }

    /// What is remembered from now on, in a handshake that has drawn its random number, or after it.
    pub(super) fn current(conn: Conn<'_>) -> Option<&Connection> {
        let found = Connection::find_or_make(conn)?;
        let mut memory = found.0.borrow_mut();
        let random = conn.server_random();
        if memory.random != random {
            // Within one connection only a renegotiation draws another one, and TLS 1.3 has none.
            if conn.is_tls13() || !(memory.renegotiates || conn.has_renegotiated()) {
                let terms = memory.terms.take();
                memory.reset(conn);
                memory.terms = terms;
            }
            memory.random = random;
            memory.renegotiates = false;
            memory.seen = false;
        }
        drop(memory);
        Some(found)
    }

    /// What is remembered from now on.
    pub(super) fn find_or_make(conn: Conn<'_>) -> Option<&Connection> {
        if let Some(found) = Connection::find(conn) {
            return Some(found);
        }
        let made = Box::into_raw(Box::<Connection>::default());
        if !conn.set_ex_data(index(), made.cast()) {
            // SAFETY: from Box::into_raw above; OpenSSL did not take it.
            drop(unsafe { Box::from_raw(made) });
            return None;
        }
        Connection::find(conn)
    }

    pub(super) fn find(conn: Conn<'_>) -> Option<&Connection> {
        let found = conn.ex_data(index()).cast::<Connection>();
        // SAFETY: our index holds NULL or what `find_or_make` boxed, which OpenSSL frees with the SSL; the result lives no
        // longer than the borrow of the SSL.
        unsafe { found.as_ref() }
    }

    /// Remembers a login that is behind this connection. What was found for its handshake is, or is not, that one.
    pub(super) fn remember(&self, login: Login) {
        let mut memory = self.0.borrow_mut();
        memory.found = None;
        memory.add(login);
    }

    /// Notes the login of a session that was found for the handshake under way. False when the connection has too many.
    pub(super) fn note_found(&self, conn: Conn<'_>, binding: &Binding, login: Login) -> bool {
        let mut memory = self.0.borrow_mut();
        let random = conn.client_random();
        let before = memory.found.take().filter(|found| found.random == random);
        memory.found = Some(Candidate {
            login,
            slot: binding.slot(),
            handshakes: Arc::clone(&binding.handshakes),
            process: incarnation(),
            quic: conn.version() == ffi::OSSL_QUIC1_VERSION,
            random,
            times: 1 + before.map_or(0, |found| found.times),
        });
        memory.logins.len() < LOGINS
    }

    /// How often a session was found for the handshake under way, which turns out not to resume it: OpenSSL has refused it.
    pub(super) fn refused(&self, conn: Conn<'_>) -> u64 {
        let random = conn.client_random();
        self.0.borrow_mut().found.take_if(|found| found.random == random).map_or(0, |found| found.times)
    }

    /// As the SSL is freed: where a session was found that its handshake has resumed, and no callback has seen it end; `None` when
    /// that was in an SSL_CTX attached there, whose own counters tell. OpenSSL keeps what is asked here in the SSL itself; with
    /// QUIC it is in another object, which has ended by then.
    pub(super) fn resumed_elsewhere(&self, conn: Conn<'_>) -> Option<Arc<Handshakes>> {
        let found = self.0.borrow_mut().found.take().filter(|found| !found.quic && found.process == incarnation())?;
        let ctx = conn.ctx();
        // What was detached meanwhile has been counted.
        let elsewhere = kept::attached(ctx).map_or(!kept::was_attached(ctx), |(slot, _)| slot != found.slot);
        (elsewhere && conn.is_finished() && conn.is_resumed()).then_some(found.handshakes)
    }

    /// Whether a callback sees for the first time that the handshake comes to its end.
    pub(super) fn see(&self) -> bool {
        !std::mem::replace(&mut self.0.borrow_mut().seen, true)
    }

    /// Notes what the handshake under way could agree on before the servername callback.
    pub(super) fn set_terms(&self, terms: Terms) {
        self.0.borrow_mut().terms = Some(terms);
    }

    /// Whether it could agree on the same after it, as far as is known.
    pub(super) fn kept_terms(&self, terms: Terms) -> bool {
        self.0.borrow().terms == Some(terms)
    }

    /// The logins behind this connection, the latest last.
    pub(super) fn logins(&self) -> Vec<Login> {
        self.0.borrow().logins.clone()
    }

    /// The latest of them.
    pub(super) fn login(&self) -> Option<Login> {
        self.0.borrow().logins.last().copied()
    }

    /// Keeps a session that was taken, for a second question of the same handshake.
    pub(super) fn keep_taken(&self, id: &[u8], header: Header, session: &Session) {
        if let (Ok(id), Some(session)) = (id.try_into(), session.share()) {
            self.0.borrow_mut().taken = Some((id, header, session));
        }
    }

    /// The session taken under this id, again.
    pub(super) fn taken(&self, id: &[u8]) -> Option<(Header, Session)> {
        let memory = self.0.borrow();
        let (_, header, session) = memory.taken.as_ref().filter(|(taken, _, _)| taken[..] == *id)?;
        Some((*header, session.share()?))
    }

    /// Keeps how much early data the host allows, while this handshake accepts none.
    pub(super) fn suspend_early_data(&self, allowed: u32) {
        self.0.borrow_mut().early_data = Some(allowed);
    }

    /// What was kept so.
    pub(super) fn suspended_early_data(&self) -> Option<u32> {
        self.0.borrow_mut().early_data.take()
    }
}

/// Counts a handshake with sessions of one cache that ends in an SSL_CTX which is not attached to it, and has counted there or will.
pub(super) fn end_elsewhere(handshakes: &Handshakes, conn: Conn<'_>, counted: bool) {
    handshakes.end_elsewhere();
    if let Some((_, last_read)) = kept::attached(conn.ctx()) {
        last_read.pass(conn.ctx(), counted);
    }
}

static INDEX: AtomicI32 = AtomicI32::new(-1);

/// Before anything is attached there is no index, and -1 reads as NULL.
fn index() -> c_int {
    INDEX.load(Ordering::Acquire)
}

/// Makes the index while no connection exists yet. `free_value` frees its values.
pub(super) fn prepare(free_value: ffi::ExFree) -> bool {
    ex_index(&INDEX, ffi::CRYPTO_EX_INDEX_SSL, Some(forget_copy), Some(free_value)) >= 0
}

/// Takes what is remembered of a connection out of its SSL, which is being freed.
///
/// # Safety
/// `value` was found under the index in an SSL that is being freed, and is taken once.
pub(super) unsafe fn take(value: *mut c_void) -> Box<Connection> {
    // SAFETY: the index holds only what `find_or_make` boxed; taken once, as demanded above.
    unsafe { Box::from_raw(value.cast::<Connection>()) }
}

/// SSL_dup copies pointers; two connections must not own one box.
pub(super) unsafe extern "C" fn forget_copy(
    _to: *mut ffi::CRYPTO_EX_DATA,
    _from: *const ffi::CRYPTO_EX_DATA,
    value: *mut *mut c_void,
    _idx: c_int,
    _argl: c_long,
    _argp: *mut c_void,
) -> c_int {
    // SAFETY: OpenSSL passes the address of the copied pointer.
    unsafe { *value = std::ptr::null_mut() };
    1
}
