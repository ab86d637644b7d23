//! Ending logins, and what may still be stored after a flush.

use std::sync::Arc;

use super::control::Flushes;
use super::thread::{self, ThreadContext};
use super::tombstones::Login;
use super::{Header, Store};
use crate::options::MAX_TTL;
use crate::status::Result;
use crate::sys::clock;

impl Store {
    /// The lineage of a new login, and the number of flushes that it has seen; `None` when the store cannot be asked.
    pub(crate) fn begin_lineage(self: &Arc<Self>) -> Option<(u64, Flushes)> {
        let begun = thread::with(self, |thread| {
            let random = thread.random()?;
            let (lineage, _) = random.split_first_chunk::<8>()?;
            Some((u64::from_ne_bytes(*lineage).max(1), thread.opened.control.flushes()))
        });
        begun.ok().flatten()
    }

    /// Ends these logins in all processes. A session lives for `life` seconds after its full handshake, or as long as any in the
    /// store.
    pub(crate) fn revoke(self: &Arc<Self>, logins: &[Login], life: u64) -> Result<()> {
        thread::with(self, |thread| {
            let now = clock::seconds();
            let generations = [Some(&thread.now), thread.before.as_ref()];
            let longest =
                generations.into_iter().flatten().map(|snapshot| snapshot.generation.page().longest.get()).max();
            let life = longest.unwrap_or(0).max(life).min(MAX_TTL.as_secs());
            for login in logins {
                thread.opened.control.tombstones().bury(*login, u64::from(login.full_handshake) + life, now);
            }
        })
    }
}

impl Store {
    /// Whether nothing of this login may resume any more, or there was a flush since `seen`.
    pub(crate) fn has_ended(self: &Arc<Self>, login: Login, seen: Flushes) -> bool {
        let ended = thread::with(self, |thread| {
            let control = &thread.opened.control;
            control.flushes() != seen || control.tombstones().has(login, clock::seconds())
        });
        ended.unwrap_or(true)
    }
}

/// Whether a session may be stored: its login has not been ended, and the store has not been flushed since its handshake.
pub(super) fn may_be_stored(thread: &ThreadContext, header: &Header, seen: Flushes) -> bool {
    let (control, now) = (&thread.opened.control, clock::seconds());
    let flushed = control.flushed_at();
    if flushed > now {
        control.forget_time_of_flush();
    }
    let before = u64::from(header.full_handshake) < flushed && flushed <= now;
    control.flushes() == seen && !before && !control.tombstones().has(header.login(), now)
}
