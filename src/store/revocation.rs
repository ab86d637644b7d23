//! Ending logins, and what may still be stored after a flush.

use std::sync::Arc;

use super::control::{Control, Flushes};
use super::thread;
use super::tombstones::Login;
use super::{Header, Store};
use crate::options::MAX_TTL;
use crate::sys::{clock, crypto};

impl Store {
    /// The lineage of a new login, and the number of flushes that it has seen; `None` when there are no random bytes.
    pub(crate) fn begin_lineage(self: &Arc<Self>) -> Option<(u64, Flushes)> {
        let begun = thread::with(self, |thread| {
            let random = thread.random()?;
            let (lineage, _) = random.split_first_chunk::<8>()?;
            Some((*lineage, thread.opened.control.flushes()))
        });
        let (lineage, flushes) = begun.unwrap_or_else(|_| {
            let mut lineage = [0; 8];
            crypto::random(&mut lineage).then(|| (lineage, self.control().flushes()))
        })?;
        Some((u64::from_ne_bytes(lineage).max(1), flushes))
    }

    /// Ends these logins in all processes. A session lives for `life` seconds after its full handshake, or as long as any in the
    /// store; where that is out of reach, as long as any ever does.
    pub(crate) fn revoke(self: &Arc<Self>, logins: &[Login], life: u64) {
        let longest = thread::with(self, |thread| {
            let generations = [Some(&thread.now), thread.before.as_ref()];
            generations.into_iter().flatten().map(|snapshot| snapshot.generation.page().longest.get()).max()
        });
        let longest = longest.map_or(u64::MAX, |longest| longest.unwrap_or(0));
        let life = longest.max(life).min(MAX_TTL.as_secs());
        let now = clock::seconds();
        for login in logins {
            self.control().tombstones().bury(*login, u64::from(login.full_handshake) + life, now);
        }
    }

    /// Whether nothing of this login may resume any more, or there was a flush since `seen`.
    pub(crate) fn has_ended(&self, login: Login, seen: Flushes) -> bool {
        self.control().flushes() != seen || self.control().tombstones().has(login, clock::seconds())
    }
}

/// Whether a session may be stored: its login has not been ended, and the store has not been flushed since its handshake.
pub(super) fn may_be_stored(control: &Control, header: &Header, seen: Flushes) -> bool {
    let now = clock::seconds();
    let flushed = control.flushed_at();
    if flushed > now {
        control.forget_time_of_flush();
    }
    let before = u64::from(header.full_handshake) < flushed && flushed <= now;
    control.flushes() == seen && !before && !control.tombstones().has(header.login(), now)
}
