//! For how long the write lock has had the same holder, told without a clock that all processes of a store share: there is none.
//! Time namespaces shift the monotonic clocks, and the wall clock is set, and goes on while the machine is suspended.
//!
//! Who waits in vain notes the acquisition that it met, and the moment by both clocks. Who meets the same one goes by that note if
//! its own clocks are as far apart as those of the one who wrote it: then they are the same clocks, and ran all the time.

use crate::sys::clock;
use crate::sys::shared_page::Word;

/// Milliseconds by which the distance of the clocks may differ: a timer tick, and what NTP slews within seconds.
const AGREES: u64 = 100;
/// Milliseconds after which a note that one cannot go by is written anew: who could has had the time to.
const STALE: u64 = 3_000;

/// A wait for the write lock that was in vain.
#[repr(C)]
pub(super) struct Held {
    /// How often the lock had been taken; 0 while the note is written.
    taken: Word,
    monotonic: Word,
    wall: Word,
}

impl Held {
    /// A wait was in vain, for who has taken the lock as the `taken`th. Says for how long that one has been met, in milliseconds.
    pub(super) fn meet(&self, taken: u64) -> u64 {
        self.meet_at(taken, clock::ticks(), clock::wall_millis())
    }

    fn meet_at(&self, taken: u64, monotonic: u64, wall: u64) -> u64 {
        if self.taken.get() == taken {
            let (since, noted) = (self.monotonic.get(), self.wall.get());
            let apart = wall.wrapping_sub(monotonic) as i64;
            if apart.abs_diff(noted.wrapping_sub(since) as i64) < AGREES {
                return monotonic.saturating_sub(since);
            }
            if wall.abs_diff(noted) < STALE {
                return 0;
            }
        }
        self.taken.set(0);
        self.monotonic.set(monotonic);
        self.wall.set(wall);
        self.taken.set(taken);
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: u64 = 1_700_000_000_000;

    fn blank() -> Held {
        Held { taken: Word::new(0), monotonic: Word::new(0), wall: Word::new(0) }
    }

    #[test]
    fn a_holder_is_met_for_as_long_as_nobody_else_takes_the_lock() {
        let held = blank();
        assert_eq!(held.meet_at(7, 5_000, WALL), 0);
        assert_eq!(held.meet_at(7, 6_200, WALL + 1_201), 1_200);
        assert_eq!(held.meet_at(8, 6_300, WALL + 1_300), 0, "another holder");
    }

    #[test]
    fn nobody_goes_by_the_note_of_another_clock() {
        let held = blank();
        held.meet_at(7, 5_000, WALL);
        // A namespace that is ahead, and one behind; a clock that was set; a night.
        assert_eq!(held.meet_at(7, 1_000_000_005_000, WALL + 10), 0);
        assert_eq!(held.meet_at(7, 10, WALL + 20), 0);
        assert_eq!(held.meet_at(7, 5_030, WALL + 30), 30, "the note was left for who can go by it");
        assert_eq!(held.meet_at(7, 5_040, WALL + 86_400_000), 0);
        assert_eq!(held.meet_at(7, 6_540, WALL + 86_401_500), 1_500, "a new note counts from a new moment");
        assert_eq!(held.meet_at(7, 900_000, WALL + 86_405_000), 0);
        assert_eq!(held.meet_at(7, 901_500, WALL + 86_406_500), 1_500, "another namespace has its turn");
    }
}
