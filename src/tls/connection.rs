//! What is remembered of one connection, in its SSL's ex_data: which ids it was given, and a ticket taken for it.

use std::cell::RefCell;
use std::sync::atomic::AtomicI32;

use libc::{c_int, c_long, c_void};

use super::ffi;
use super::openssl::{ex_index, Conn};
use super::session::Session;
use crate::store::id::ID;
use crate::store::Header;

/// Ids remembered per connection, for `sesscache_forget`: two tickets per handshake is what OpenSSL issues by default.
const IDS: usize = 64;

/// See the module's first line. An SSL belongs to one thread at a time, and so does this.
#[derive(Default)]
pub(super) struct Connection(RefCell<Memory>);

#[derive(Default)]
struct Memory {
    /// Slot of the cache that the ids are in.
    slot: Option<usize>,
    ids: Vec<[u8; ID]>,
    /// A session taken for this connection: HelloRetryRequest makes OpenSSL ask for it twice.
    taken: Option<([u8; ID], Header, Session)>,
    /// Nothing of this connection may be resumed any more.
    forgotten: bool,
}

impl Connection {
    /// What is remembered of this connection, if anything.
    pub(super) fn find(conn: Conn<'_>) -> Option<&Connection> {
        let found = conn.ex_data(index()).cast::<Connection>();
        // SAFETY: our index holds NULL or what `find_or_make` boxed, which OpenSSL frees with the SSL; the result lives no
        // longer than the borrow of the SSL.
        unsafe { found.as_ref() }
    }

    /// What is remembered of this connection, from now on.
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

    /// Remembers an id that resumes, or resumed, this connection, and the slot of its cache. The oldest gives way.
    pub(super) fn remember(&self, slot: usize, id: &[u8]) {
        let Ok(id) = <[u8; ID]>::try_from(id) else { return };
        let mut memory = self.0.borrow_mut();
        memory.slot = Some(slot);
        if memory.ids.len() == IDS {
            memory.ids.remove(0);
        }
        memory.ids.push(id);
    }

    /// Slot of the cache that has sessions of this connection.
    pub(super) fn slot(&self) -> Option<usize> {
        self.0.borrow().slot
    }

    /// From now on nothing of this connection is stored. Every id remembered.
    pub(super) fn forget(&self) -> Vec<[u8; ID]> {
        let mut memory = self.0.borrow_mut();
        memory.forgotten = true;
        memory.ids.clone()
    }

    pub(super) fn is_forgotten(&self) -> bool {
        self.0.borrow().forgotten
    }

    /// Keeps a session that was taken, for a second question of the same connection.
    pub(super) fn keep_taken(&self, id: &[u8], header: Header, session: &Session) {
        if let (Ok(id), Some(session)) = (id.try_into(), session.share()) {
            self.0.borrow_mut().taken = Some((id, header, session));
        }
    }

    /// The session taken under this id, again: only in the handshake it was taken for, which is being `retried`.
    pub(super) fn taken(&self, id: &[u8], retried: bool) -> Option<(Header, Session)> {
        let taken = &mut self.0.borrow_mut().taken;
        if !retried {
            *taken = None;
        }
        let (_, header, session) = taken.as_ref().filter(|(taken, _, _)| taken[..] == *id)?;
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
