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

    /// Ends these logins in all processes. A session lives for `life` seconds after its full handshake, or as long as any that was
    /// ever put, into the store or into memory.
    pub(crate) fn revoke(self: &Arc<Self>, logins: &[Login], life: u64) {
        // A process that has not used the store yet goes by the control page that is there now.
        let _ = self.obtain();
        let now = clock::seconds();
        for control in self.former_controls().iter().chain([self.control()]) {
            let life = control.longest().max(life).min(MAX_TTL.as_secs());
            for login in logins {
                control.tombstones().bury(*login, u64::from(login.full_handshake) + life, now);
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use crate::store::Namespace;

    #[test]
    fn a_tombstone_that_is_put_out_of_reach_lasts_as_long_as_a_session_and_no_longer() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("store");
        let store = Store::open(&path, &Options::parse("capacity=1MiB").unwrap()).unwrap();
        std::fs::remove_dir_all(&path).unwrap();
        let now = clock::seconds();
        let full_handshake = now as u32;
        let (_, seen) = store.begin_lineage().unwrap();
        let mut header = Header { expires: full_handshake + 3_600, full_handshake, lineage: 1, ..Header::default() };
        let id = store.issue_id(std::time::Duration::from_secs(3_600)).unwrap();
        store.put_session(&id, Namespace(""), seen, &mut header, b"a session").unwrap();
        let login = Login { lineage: 2, full_handshake };
        store.revoke(&[login], 60);
        let tombstones = store.control().tombstones();
        assert!(tombstones.has(login, now + 3_600), "it is gone before the last session is");
        assert!(!tombstones.has(login, now + 3_700), "it stays when the last session is gone");
    }
}
