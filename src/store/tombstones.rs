//! Tombstones: which logins may not resume any more, by their lineage, in all processes.
//!
//! A login is a full handshake, and its lineage a random number that every session made from it carries. A tombstone stays
//! until the last session of its lineage would have expired. The table has a fixed size. Where it is full, the oldest
//! tombstone that is in the way becomes a moment: no session whose full handshake was at or before it resumes.
//!
//! Tombstones are written before what makes others look for them, so that a lookup that begins after `bury` has returned
//! finds them. Nobody waits: words are replaced whole.

use std::sync::atomic::{AtomicU64, Ordering};

/// Tombstones there are places for.
const PLACES: usize = 8_192;
/// Places that one lineage may have. A lookup reads as many while there are tombstones at all.
const WAYS: usize = 8;

/// What names a login, and when it was (seconds since 1970).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Login {
    /// A random number, never 0.
    pub lineage: u64,
    /// The second of the full handshake.
    pub full_handshake: u32,
}

/// The table as it lies in shared memory. All zeros are an empty one.
#[repr(C)]
pub(crate) struct Tombstones {
    /// No tombstone is of use beyond this second.
    until: AtomicU64,
    /// Nothing resumes whose full handshake was at or before this second.
    before: AtomicU64,
    places: [Tombstone; PLACES],
}

#[repr(C)]
struct Tombstone {
    /// 0: the place is free.
    lineage: AtomicU64,
    /// Until when it is needed, and when the full handshake was: 32 bits each. 0: somebody is writing it.
    times: AtomicU64,
}

impl Tombstones {
    /// Whether nothing of this login may resume, at the moment `now` (seconds).
    #[inline]
    pub(crate) fn has(&self, login: Login, now: u64) -> bool {
        now <= self.until.load(Ordering::Acquire) && self.search(login)
    }

    #[cold]
    fn search(&self, login: Login) -> bool {
        let named = self.ways(login.lineage).any(|place| place.lineage.load(Ordering::Acquire) == login.lineage);
        // Looked at after the table: what leaves that has become this moment before.
        named || u64::from(login.full_handshake) <= self.before.load(Ordering::Acquire)
    }

    /// Ends a login, whose last session expires at `end` (seconds).
    pub(crate) fn bury(&self, login: Login, end: u64, now: u64) {
        let times = end.min(u64::from(u32::MAX)) << 32 | u64::from(login.full_handshake);
        // Another process may take the place that was chosen: as many rounds as there are places end that.
        let placed = (0..WAYS).any(|_| self.place(login.lineage, times, now));
        if !placed {
            self.before.fetch_max(u64::from(login.full_handshake), Ordering::AcqRel);
        }
        self.until.fetch_max(end, Ordering::AcqRel);
    }

    /// False when the place that was chosen went to somebody else meanwhile, or all are being written.
    fn place(&self, lineage: u64, times: u64, now: u64) -> bool {
        if let Some(known) = self.ways(lineage).find(|place| place.lineage.load(Ordering::Acquire) == lineage) {
            known.times.fetch_max(times, Ordering::AcqRel);
            return true;
        }
        // A process that dies while it writes one leaves a place that is never used again.
        let free = self.ways(lineage).find(|place| place.lineage.load(Ordering::Acquire) == 0);
        if let Some(place) = free {
            let mine = place.lineage.compare_exchange(0, lineage, Ordering::AcqRel, Ordering::Acquire).is_ok();
            if mine {
                place.times.store(times, Ordering::Release);
            }
            return mine;
        }
        let oldest = self.ways(lineage).map(|place| (place.times.load(Ordering::Acquire), place));
        let Some((old, place)) = oldest.filter(|(times, _)| *times != 0).min_by_key(|(times, _)| *times) else {
            return false;
        };
        if place.times.compare_exchange(old, 0, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return false;
        }
        if old >> 32 >= now {
            self.before.fetch_max(old & u64::from(u32::MAX), Ordering::AcqRel);
        }
        place.lineage.store(lineage, Ordering::Release);
        place.times.store(times, Ordering::Release);
        true
    }

    fn ways(&self, lineage: u64) -> impl Iterator<Item = &Tombstone> {
        let first = lineage as usize % (PLACES / WAYS) * WAYS;
        self.places[first..first + WAYS].iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000;
    const END: u64 = NOW + 3_600;

    fn table() -> Box<Tombstones> {
        let zeros = vec![0_u64; std::mem::size_of::<Tombstones>() / 8].into_boxed_slice();
        // SAFETY: as large and as aligned as the table, which consists of u64s alone, and the box is given up here.
        unsafe { Box::from_raw(Box::into_raw(zeros).cast::<Tombstones>()) }
    }

    fn login(lineage: u64, ago: u32) -> Login {
        Login { lineage, full_handshake: NOW as u32 - ago }
    }

    #[test]
    fn a_login_that_was_ended_stays_so_until_its_last_session_expires_and_others_are_untouched() {
        let table = table();
        assert!(!table.has(login(7, 0), NOW));
        table.bury(login(7, 10), END, NOW);
        assert!(table.has(login(7, 10), NOW) && table.has(login(7, 10), END));
        assert!(!table.has(login(7, 10), END + 1), "a tombstone is looked for when nothing of its lineage lives");
        assert!(!table.has(login(8, 0), NOW) && !table.has(login(8, 10), NOW));
    }

    #[test]
    fn a_full_table_ends_older_logins_too_and_never_frees_one_that_was_ended() {
        let table = table();
        let set = |n: u64| n * (PLACES / WAYS) as u64 + 5;
        let logins: Vec<Login> = (0..20).map(|n| login(set(n), 100 - n as u32)).collect();
        for login in &logins {
            table.bury(*login, END, NOW);
            assert!(logins.iter().take_while(|one| *one != login).all(|one| table.has(*one, NOW)));
        }
        assert!(logins.iter().all(|login| table.has(*login, NOW)));
        assert!(table.has(login(set(30), 100), NOW), "as old as one that had to leave the table");
        assert!(!table.has(login(set(30), 10), NOW), "younger than all that had to");
    }

    #[test]
    fn places_of_expired_tombstones_are_used_again_at_no_cost_to_others() {
        let table = table();
        for n in 0..WAYS as u64 {
            table.bury(login(n * (PLACES / WAYS) as u64, 500), NOW - 1, NOW - 400);
        }
        table.bury(login(1_000 * (PLACES / WAYS) as u64, 0), END, NOW);
        assert!(!table.has(login(77, 450), NOW), "an expired tombstone became a moment");
    }

    #[test]
    fn ends_hold_whatever_threads_do_at_once() {
        let table = table();
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let table = &table;
                scope.spawn(move || {
                    for n in 0..5_000_u64 {
                        let one = login(n << 8 | thread, (n % 50) as u32);
                        table.bury(one, END, NOW);
                        assert!(table.has(one, NOW));
                    }
                });
            }
        });
        assert!((0..5_000_u64).all(|n| (0..4).all(|thread| table.has(login(n << 8 | thread, (n % 50) as u32), NOW))));
    }
}
