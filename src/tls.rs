//! The OpenSSL side: what attach sets on an SSL_CTX, and why.
//!
//! - Session cache mode `SERVER | NO_INTERNAL | NO_AUTO_CLEAR`, with the CLIENT bit left as it is. Without NO_INTERNAL,
//!   SSL_CTX_free in one worker would empty the shared store through the remove callback.
//! - `SSL_OP_NO_TICKET | SSL_OP_NO_ANTI_REPLAY`: TLS 1.2 clients use session ids, TLS 1.3 tickets become 32-byte ids.
//!   The store's atomic take replaces OpenSSL's anti-replay, which works within one process only.
//! - The three callbacks and the id generator, as trampolines that know their cache.
//! - The timeout, when the option `ttl` is given.
//! - With `tickets=host`, instead of the options: no early data.

mod attach;
mod binding;
mod client;
mod connection;
mod der;
mod ffi;
mod handed;
mod handshakes;
mod hooks;
mod idle;
mod kept;
mod kinds;
mod notices;
mod openssl;
pub(crate) mod peer;
pub(crate) mod policy;
mod session;
mod slots;
pub(crate) mod text;

use self::connection::Connection;
use self::openssl::Conn;
use crate::status::{Error, Result, Status};
use crate::store::{Login, Namespace};

pub(crate) use self::attach::{attach, attach_client, detach, inherit};
pub(crate) use self::binding::Binding;
pub(crate) use self::client::{resume, resume_from};
pub(crate) use self::ffi::{SSL, SSL_CTX, SSL_SESSION};
pub(crate) use self::handed::{get_session, put_session};
pub(crate) use self::idle::end_all as end_idle;
#[cfg(all(feature = "capi", any(test, fuzzing)))]
pub(crate) use self::kinds::check_promises;

/// Ends the login behind this connection: nothing that goes back to the same full handshake resumes any more, in any process,
/// and nothing more of it is stored.
///
/// # Safety
/// `ssl` is a live connection driven by this thread.
pub(crate) unsafe fn forget(ssl: *mut SSL) -> Result<()> {
    // SAFETY: live, and driven by this thread, as demanded above.
    let conn = unsafe { Conn::new(ssl) };
    if !conn.is_server() {
        return client::forget(conn);
    }
    // After SSL_clear(3) the session of the connection before is still there.
    let is_a_connection = conn.has_answered();
    let Some(session) = conn.session().filter(|_| is_a_connection) else {
        return Err(Error::new(Status::NotFound, "the connection has no session"));
    };
    let is_stateless = match conn.is_tls13() {
        true => !hooks::tickets_are_stateful(conn),
        // OpenSSL gives a client of TLS 1.2 a ticket or an id, and takes the id of one who shows a ticket from the client.
        false => session.id().is_empty() && conn.options() & ffi::SSL_OP_NO_TICKET_64 == 0,
    };
    if is_stateless {
        return Err(Error::new(Status::NotFound, "the connection's tickets are stateless: no cache has them"));
    }
    let noted = session::note(session);
    // OpenSSL's own cache, turned on after attach, hands out sessions that carry no note.
    let slot = noted.map(|note| note.slot).or_else(|| conn.ctx().callbacks().new.and_then(slots::slot_of));
    // SAFETY: both ways name a cache that is attached to an SSL_CTX of this connection, which keeps it.
    let binding = slot.and_then(|slot| unsafe { slots::binding(slot) });
    let (Some(binding), Some(connection)) = (binding, Connection::current(conn)) else {
        return Err(Error::new(Status::NotFound, "the connection's session is in no cache"));
    };
    let kept = conn.ctx().forget(session);
    if let Some(note) = noted {
        connection.remember(note.login);
    } else if connection.login().is_none() {
        // A connection without a ticket may get one later; what is resumed without this cache is not ours to end.
        if conn.is_resumed() && !kept {
            return Err(Error::new(Status::NotFound, "the connection's session is in no cache"));
        }
        let lineage = binding.store.begin_lineage().ok_or_else(Error::no_random)?.0;
        connection.remember(Login { lineage, full_handshake: u32::try_from(session.time()).unwrap_or(u32::MAX) });
    }
    binding.store.revoke(&connection.logins(), binding.life(conn));
    let id = session.id();
    if !id.is_empty() {
        // The tombstone is what counts: a record that stays is one that does not resume.
        let _ = binding.store.remove(&id, Namespace(&binding.policy.namespace));
    }
    Ok(())
}

/// The major version of the OpenSSL that is running.
fn running_major() -> u8 {
    // SAFETY: no preconditions.
    (unsafe { ffi::OpenSSL_version_num() } >> 28) as u8
}
