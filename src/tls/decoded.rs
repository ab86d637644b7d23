//! Decoded sessions of this process: parsing a client certificate costs more than a whole resumed handshake.
//!
//! Never a way around the store: an entry only counts while the store still has the very same record under the very same
//! id, told by its tag, and its header is still what was authenticated. What leaves is a duplicate, never the kept object.
//! A forked child begins with an empty table.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::openssl::SessionRef;
use super::session::{duplicate, NewSession, Session};
use crate::store::Header;
use crate::sys::fork_safe::{Holding, PerProcess};

/// A busy table is passed by: decoding again is slower, not wrong.
const PATIENCE: Duration = Duration::from_millis(1);

/// Bytes of DER that an entry may have on average. A certificate takes several times as much when it is decoded, and its size is
/// the client's to choose.
const BYTES_PER_SESSION: usize = 2_048;

/// The table of one cache.
pub(super) struct Decoded {
    limit: usize,
    table: PerProcess<Mutex<Sessions>>,
}

#[derive(Default)]
struct Sessions {
    /// By the record's tag.
    by_tag: HashMap<[u8; 16], DecodedSession>,
    /// Tags in the order they came: the oldest gives way.
    order: VecDeque<[u8; 16]>,
    /// Bytes of DER that all of them have.
    bytes: usize,
}

struct DecodedSession {
    header: Header,
    session: Session,
    bytes: usize,
}

impl Decoded {
    /// A table of at most `limit` sessions; 0 turns it off.
    pub(super) fn new(limit: usize) -> Decoded {
        Decoded { limit, table: PerProcess::new() }
    }

    /// Most sessions that it keeps.
    pub(super) fn limit(&self) -> usize {
        self.limit
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

    /// Keeps a duplicate of a session that was decoded, or stored, under this tag and has so many bytes of DER, if decoding it is
    /// expensive.
    pub(super) fn keep(&self, tag: &[u8; 16], header: &Header, bytes: usize, session: SessionRef<'_>) {
        if self.limit == 0 || !session.has_peer() {
            return;
        }
        let (Some(table), Some(copy)) = (self.table(), duplicate(session)) else { return };
        let Ok(mut table) = table.lock() else { return };
        let table = &mut *table;
        let kept = DecodedSession { header: *header, session: copy.share(), bytes };
        if table.by_tag.insert(*tag, kept).is_some() {
            return;
        }
        table.order.push_back(*tag);
        table.bytes += bytes;
        while table.order.len() > self.limit || table.bytes > self.limit.saturating_mul(BYTES_PER_SESSION) {
            let Some(oldest) = table.order.pop_front() else { return };
            table.bytes -= table.by_tag.remove(&oldest).map_or(0, |gone| gone.bytes);
        }
    }
}
