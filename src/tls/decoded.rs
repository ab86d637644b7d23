//! Decoded sessions of this process: parsing a client certificate costs more than a whole resumed handshake.
//!
//! Never a way around the store: an entry only counts while the store still has the very same record under the very same
//! id, told by its tag, and its header is still what was authenticated. What leaves is a duplicate, never the kept object.
//! A forked child begins with an empty table.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::openssl::SessionRef;
use super::session::{duplicate, NewSession, Session};
use crate::store::Header;
use crate::sys::fork_safe::{Holding, PerProcess};

/// A busy table is passed by: decoding again is slower, not wrong.
const PATIENCE: Duration = Duration::from_millis(1);

/// The table of one cache.
pub(super) struct Decoded {
    limit: usize,
    table: PerProcess<Mutex<Sessions>>,
}

#[derive(Default)]
struct Sessions {
    /// By the record's tag.
    by_tag: HashMap<[u8; 16], DecodedSession>,
    /// Tags in the order they came, as a ring: the oldest gives way.
    order: Vec<[u8; 16]>,
    next: usize,
}

struct DecodedSession {
    header: Header,
    session: Session,
}

impl Decoded {
    /// A table of at most `limit` sessions; 0 turns it off.
    pub(super) fn new(limit: usize) -> Decoded {
        Decoded { limit, table: PerProcess::new() }
    }

    fn table(&self) -> Option<Arc<Mutex<Sessions>>> {
        let table = self.table.update(PATIENCE, |found| {
            Ok::<_, Infallible>(match found {
                Holding::Mine(table) => Arc::clone(table),
                // Another thread of the parent may have been changing it at the fork.
                Holding::Nothing | Holding::Inherited(_) => Arc::default(),
            })
        });
        table?.ok()
    }

    /// A duplicate of the session whose record has this tag, header and id: what the tag proves when it is checked.
    pub(super) fn find(&self, tag: &[u8; 16], header: &Header, id: &[u8]) -> Option<NewSession> {
        if self.limit == 0 {
            return None;
        }
        let table = self.table()?;
        let session = {
            let table = table.lock().ok()?;
            let kept = table.by_tag.get(tag).filter(|kept| kept.header == *header)?;
            kept.session.share()?
        };
        (*session.as_ref().id() == *id).then(|| duplicate(session.as_ref()))?
    }

    /// Keeps a duplicate of a session that was decoded, or stored, under this tag, if decoding it is expensive.
    pub(super) fn keep(&self, tag: &[u8; 16], header: &Header, session: SessionRef<'_>) {
        if self.limit == 0 || !session.has_peer() {
            return;
        }
        let (Some(table), Some(copy)) = (self.table(), duplicate(session)) else { return };
        let Ok(mut table) = table.lock() else { return };
        let table = &mut *table;
        if table.by_tag.insert(*tag, DecodedSession { header: *header, session: copy.share() }).is_some() {
            return;
        }
        if table.order.len() < self.limit {
            table.order.push(*tag);
        } else {
            let oldest = std::mem::replace(&mut table.order[table.next], *tag);
            table.by_tag.remove(&oldest);
            table.next = (table.next + 1) % self.limit;
        }
    }
}
