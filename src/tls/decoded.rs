//! Decoded sessions of this process: parsing a client certificate costs more than a whole resumed handshake.
//!
//! Never a way around the store: an entry only counts while the store still has the very same record, told by its tag,
//! and what leaves is a duplicate, never the kept object. A forked child begins with an empty table.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::ffi;
use super::session::{has_peer, Session};
use crate::sys::process::{Found, PerProcess};

/// A busy table is passed by: decoding again is slower, not wrong.
const PATIENCE: Duration = Duration::from_millis(1);

/// The table of one cache.
pub(super) struct Decoded {
    limit: usize,
    table: PerProcess<Mutex<Table>>,
}

#[derive(Default)]
struct Table {
    /// By the record's tag: 128 bits that stand for id, header and session at once.
    sessions: HashMap<[u8; 16], Session>,
    /// Tags in the order they came, as a ring: the oldest gives way.
    order: Vec<[u8; 16]>,
    next: usize,
}

impl Decoded {
    /// A table of at most `limit` sessions; 0 turns it off.
    pub(super) fn new(limit: usize) -> Decoded {
        Decoded { limit, table: PerProcess::new() }
    }

    fn table(&self) -> Option<Arc<Mutex<Table>>> {
        let table = self.table.update(PATIENCE, |found| {
            Ok::<_, Infallible>(match found {
                Found::Mine(table) => Arc::clone(table),
                // Another thread of the parent may have been changing it at the fork.
                Found::Nothing | Found::Inherited(_) => Arc::default(),
            })
        });
        table?.ok()
    }

    /// A duplicate of the session whose record has this tag.
    pub(super) fn find(&self, tag: &[u8; 16]) -> Option<Session> {
        if self.limit == 0 {
            return None;
        }
        let table = self.table()?;
        let kept = table.lock().ok()?.sessions.get(tag)?.share()?;
        duplicate(&kept)
    }

    /// Keeps a duplicate of a session that was just decoded, if decoding it was expensive.
    pub(super) fn keep(&self, tag: &[u8; 16], session: &Session) {
        // SAFETY: a live session.
        if self.limit == 0 || !unsafe { has_peer(session.raw()) } {
            return;
        }
        let (Some(table), Some(copy)) = (self.table(), duplicate(session)) else { return };
        let Ok(mut table) = table.lock() else { return };
        let table = &mut *table;
        if table.sessions.insert(*tag, copy).is_some() {
            return;
        }
        if table.order.len() < self.limit {
            table.order.push(*tag);
        } else {
            let oldest = std::mem::replace(&mut table.order[table.next], *tag);
            table.sessions.remove(&oldest);
            table.next = (table.next + 1) % self.limit;
        }
    }
}

fn duplicate(session: &Session) -> Option<Session> {
    // SAFETY: a live session that nobody changes: it is either the table's own or was just decoded.
    let copy = unsafe { ffi::SSL_SESSION_dup(session.raw()) };
    // SAFETY: NULL or a new session with one reference.
    unsafe { Session::adopt(copy) }
}
