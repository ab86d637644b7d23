//! Tombstones: which logins may not resume any more, by their lineage, in all processes.
//!
//! A login is a full handshake, and its lineage a random number that every session made from it carries. A tombstone stays
//! until the last session of its lineage would have expired. The table has a fixed size. Where it is full, the oldest
//! login that is in the way becomes a moment: no session whose full handshake was at or before it resumes.
//!
//! Tombstones are written before what makes others look for them, so that a lookup that begins after `bury` has returned
//! finds them. Nobody waits: words are replaced whole.

use std::sync::atomic::{AtomicU64, Ordering};

/// Tombstones there are places for.
const PLACES: usize = 16_384;
/// Places side by side. A lineage may lie in either of two such sets, and goes where one is free: so nearly all are taken before any
/// has to leave. A lookup reads both while there are tombstones at all.
const SET: usize = 8;

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
        now <= self.until.load(Ordering::Acquire) && self.search(login, now)
    }

    #[cold]
    fn search(&self, login: Login, now: u64) -> bool {
        let named = self.places(login.lineage).any(|place| place.lineage.load(Ordering::Acquire) == login.lineage);
        // Looked at after the table: what leaves that has become this moment before. One that lies ahead is of a clock that has been
        // set back, and of sessions that end beyond what any session can.
        let before = self.before.load(Ordering::Acquire);
        named || u64::from(login.full_handshake) <= before && before <= now
    }

    /// Nothing is left of the sessions that the moment was for.
    pub(super) fn forget_moment(&self) {
        self.before.store(0, Ordering::Release);
    }

    /// Ends a login, whose last session expires at `end` (seconds).
    pub(crate) fn bury(&self, login: Login, end: u64, now: u64) {
        let times = end.min(u64::from(u32::MAX)) << 32 | u64::from(login.full_handshake);
        // Another process may take the place that was chosen: as many rounds as there are places end that.
        let placed = (0..SET).any(|_| self.place(login.lineage, times, now));
        if !placed {
            self.before.fetch_max(u64::from(login.full_handshake), Ordering::AcqRel);
        }
        self.until.fetch_max(end, Ordering::AcqRel);
    }

    /// False when the place that was chosen went to somebody else meanwhile, or all are being written.
    fn place(&self, lineage: u64, times: u64, now: u64) -> bool {
        if let Some(known) = self.places(lineage).find(|place| place.lineage.load(Ordering::Acquire) == lineage) {
            known.times.fetch_max(times, Ordering::AcqRel);
            return true;
        }
        // A process that dies while it writes one leaves a place that is never used again.
        // Of two sets the emptier one: so they fill evenly.
        let free = |set: &[Tombstone]| set.iter().filter(|place| place.lineage.load(Ordering::Acquire) == 0).count();
        let emptier = self.sets(lineage).into_iter().max_by_key(|set| free(set));
        let free = emptier.and_then(|set| set.iter().find(|place| place.lineage.load(Ordering::Acquire) == 0));
        if let Some(place) = free {
            let mine = place.lineage.compare_exchange(0, lineage, Ordering::AcqRel, Ordering::Acquire).is_ok();
            if mine {
                place.times.store(times, Ordering::Release);
            }
            return mine;
        }
        // One that is of no use any more, or that of the oldest login: sessions that are older than it end with it.
        let rank = |times: u64| (times >> 32 >= now, times & u64::from(u32::MAX));
        let taken = self.places(lineage).map(|place| (place.times.load(Ordering::Acquire), place));
        let Some((old, place)) = taken.filter(|(times, _)| *times != 0).min_by_key(|(times, _)| rank(*times)) else {
            return false;
        };
        if rank(times) < rank(old) {
            if times >> 32 >= now {
                self.before.fetch_max(times & u64::from(u32::MAX), Ordering::AcqRel);
            }
            return true;
        }
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

    fn sets(&self, lineage: u64) -> [&[Tombstone]; 2] {
        [lineage, lineage >> 32].map(|hash| {
            let first = hash as usize % (PLACES / SET) * SET;
            &self.places[first..first + SET]
        })
    }

    fn places(&self, lineage: u64) -> impl Iterator<Item = &Tombstone> {
        self.sets(lineage).into_iter().flatten()
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
        let set = |n: u64| n * (PLACES / SET) as u64 + 5;
        let logins: Vec<Login> = (0..40).map(|n| login(set(n), 100 - n as u32)).collect();
        for login in &logins {
            table.bury(*login, END, NOW);
            assert!(logins.iter().take_while(|one| *one != login).all(|one| table.has(*one, NOW)));
        }
        assert!(logins.iter().all(|login| table.has(*login, NOW)));
        assert!(table.has(login(set(50), 100), NOW), "as old as one that had to leave the table");
        assert!(!table.has(login(set(50), 10), NOW), "younger than all that had to");
    }

    #[test]
    fn places_of_expired_tombstones_are_used_again_at_no_cost_to_others() {
        let table = table();
        for n in 0..SET as u64 {
            table.bury(login(n * (PLACES / SET) as u64, 500), NOW - 1, NOW - 400);
        }
        table.bury(login(1_000 * (PLACES / SET) as u64, 0), END, NOW);
        assert!(!table.has(login(77, 450), NOW), "an expired tombstone became a moment");
    }

    #[test]
    fn the_login_that_leaves_a_full_table_is_the_oldest_however_long_tombstones_last() {
        let table = table();
        let lineage = |n: u64| n * (PLACES / SET) as u64 + 5;
        for n in 0..2 * SET as u64 {
            table.bury(login(lineage(n), 1_000), END + 366 * 86_400, NOW);
        }
        for n in 0..SET as u64 {
            table.bury(login(lineage(100 + n), 0), END, NOW);
        }
        table.bury(login(lineage(200), 2_000), END, NOW);
        assert!(
            !table.has(login(77, 500), NOW),
            "a login of a moment ago became the moment before which nothing resumes"
        );
        assert!((0..SET as u64).all(|n| table.has(login(lineage(100 + n), 0), NOW)));
        assert!(table.has(login(lineage(200), 2_000), NOW), "one older than all is not ended");
    }

    #[test]
    fn hardly_a_place_is_left_before_a_login_has_to_leave() {
        let table = table();
        let mut random = 1_u64;
        let ended = (0..PLACES).position(|_| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            table.bury(login(random ^ random >> 29, 10), END, NOW);
            table.has(login(77, 20), NOW)
        });
        assert!(ended.is_some_and(|n| n > PLACES * 3 / 4), "older logins end after {ended:?} of {PLACES}");
    }

    #[test]
    fn a_clock_that_was_ahead_ends_no_later_login() {
        let table = table();
        let day = 86_400;
        for n in 0..2 * PLACES as u64 {
            let ahead = Login { lineage: n << 20 | n, full_handshake: (NOW + day) as u32 };
            table.bury(ahead, END + day, NOW + day);
        }
        assert!(table.has(login(77, 0), NOW + day), "the table has not overflowed");
        assert!(!table.has(login(77, 0), NOW), "a login of the right clock is ended by one of another");
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
