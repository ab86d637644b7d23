//! What is remembered of one connection, in its SSL's ex_data: which ids it was given, and a ticket taken for it.

use std::sync::atomic::AtomicI32;

use libc::{c_int, c_long, c_void};

use super::ffi;
use super::openssl::{ex_index, Conn};
use super::session::Session;
use crate::store::id::ID;
use crate::store::Header;

/// Ids remembered per connection, for `sesscache_forget`: two tickets per handshake is what OpenSSL issues by default.
const IDS: usize = 64;

/// See the module's first line.
#[derive(Default)]
pub(super) struct Connection {
    ids: Vec<[u8; ID]>,
    /// A session taken for this connection: HelloRetryRequest makes OpenSSL ask for it twice.
    taken: Option<([u8; ID], Header, Session)>,
    /// Nothing of this connection may be resumed any more.
    pub(super) forgotten: bool,
}

impl Connection {
    /// Remembers an id that resumes, or resumed, this connection. The oldest gives way.
    pub(super) fn remember(&mut self, id: &[u8]) {
        let Ok(id) = <[u8; ID]>::try_from(id) else { return };
        if self.ids.len() == IDS {
            self.ids.remove(0);
        }
        self.ids.push(id);
    }

    /// Every id remembered.
    pub(super) fn ids(&self) -> Vec<[u8; ID]> {
        self.ids.clone()
    }

    /// Keeps a session that was taken, for a second question of the same connection.
    pub(super) fn keep_taken(&mut self, id: &[u8], header: Header, session: &Session) {
        if let (Ok(id), Some(session)) = (id.try_into(), session.share()) {
            self.taken = Some((id, header, session));
        }
    }

    /// The session taken under this id, again: only in the handshake it was taken for, which is being `retried`.
    pub(super) fn taken(&mut self, id: &[u8], retried: bool) -> Option<(Header, Session)> {
        if !retried {
            self.taken = None;
        }
        let (_, header, session) = self.taken.as_ref().filter(|(taken, _, _)| taken[..] == *id)?;
        Some((*header, session.share()?))
    }
}

static INDEX: AtomicI32 = AtomicI32::new(-1);

fn index() -> c_int {
    ex_index(&INDEX, ffi::CRYPTO_EX_INDEX_SSL, Some(forget_copy), Some(free))
}

/// Makes the index while no connection exists yet.
pub(super) fn prepare() -> bool {
    index() >= 0
}

/// What is remembered of this connection, if anything. Used up before the next call here.
pub(super) fn find<'a>(conn: Conn<'a>) -> Option<&'a mut Connection> {
    // SAFETY: a live connection.
    let found = unsafe { ffi::SSL_get_ex_data(conn.raw(), index()) };
    // SAFETY: our index holds NULL or what `find_or_make` put there, freed with the SSL.
    unsafe { found.cast::<Connection>().as_mut() }
}

/// What is remembered of this connection, from now on.
pub(super) fn find_or_make<'a>(conn: Conn<'a>) -> Option<&'a mut Connection> {
    if let Some(found) = find(conn) {
        return Some(found);
    }
    let made = Box::into_raw(Box::<Connection>::default());
    // SAFETY: a live connection.
    if unsafe { ffi::SSL_set_ex_data(conn.raw(), index(), made.cast()) } != 1 {
        // SAFETY: OpenSSL did not take it.
        drop(unsafe { Box::from_raw(made) });
        return None;
    }
    // SAFETY: made above, and owned by the SSL from now on.
    unsafe { made.as_mut() }
}

unsafe extern "C" fn free(
    _parent: *mut c_void,
    value: *mut c_void,
    _ad: *mut ffi::CRYPTO_EX_DATA,
    _idx: c_int,
    _argl: c_long,
    _argp: *mut c_void,
) {
    if !value.is_null() {
        // SAFETY: our index holds only what `find_or_make` boxed; OpenSSL frees it once, with the SSL.
        drop(unsafe { Box::from_raw(value.cast::<Connection>()) });
    }
}

/// SSL_dup copies pointers; two connections must not own one box.
unsafe extern "C" fn forget_copy(
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
