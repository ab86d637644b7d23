//! The one way to a write: take the write lock, see to room, change everything in one transaction.

use super::env::{Fault, Write};
use super::evict::{Sweep, Swept};
use super::generation::{Generation, RESERVE_STEP};
use super::write_lock::WriteGuard;
use super::Store;
use crate::log::{self, Topic};
use crate::status::{Error, Result};
use crate::sys::files;

/// A write lock whose holder does not move for so many milliseconds is left behind with its generation.
pub(super) const STUCK: u64 = 1_000;

impl Store {
    /// Takes the write lock, or says that it is held. One that is held by a stopped process is left behind.
    pub(super) fn lock<'g>(&self, generation: &'g Generation) -> Result<WriteGuard<'g>> {
        let locked = generation.lock.acquire(self.deadline).map_err(|timeout| {
            if timeout.damaged {
                self.give_up(generation.number, "the store is damaged");
                return Error::busy();
            }
            self.log.say(Topic::Busy, log::WARNING, || {
                format!(
                    "another process has been writing for {} ms; sessions are not stored meanwhile",
                    timeout.held_for
                )
            });
            if timeout.held_for > STUCK {
                self.leave_behind(generation.number, "a writer is stopped");
            }
            Error::busy()
        })?;
        if generation.page().is_suspect() && !self.is_sound(generation, &locked) {
            self.give_up(generation.number, "processes die of it");
            return Err(Error::busy());
        }
        Ok(locked)
    }

    /// Several processes died inside an operation within a minute. If a damaged page kills them, the next one would die as
    /// well: the file is read without LMDB, and given up when it is damaged. If somebody killed them, nothing is lost.
    #[cold]
    pub(super) fn is_sound(&self, generation: &Generation, locked: &WriteGuard<'_>) -> bool {
        let sound = !generation.page().claim_suspicion() || generation.verify(locked);
        if !sound {
            self.log.say(Topic::Damage, log::ERR, || "processes die of a damaged page in the store".to_owned());
        }
        sound
    }

    /// Makes sure that the transaction to come meets no page without a block behind it.
    pub(super) fn with_room(&self, generation: &Generation) -> Result<(), Fault> {
        let shape = generation.page().shape();
        let reserved = generation.page().reserved.get();
        if shape.guard {
            // Written with pwrite(2), which a limit that was lowered since the store was opened answers with SIGXFSZ.
            return if files::exceeds_file_limit(shape.capacity) { Err(Fault::Full) } else { Ok(()) };
        }
        if reserved >= shape.capacity {
            return Ok(());
        }
        let page = generation.env.page as u64;
        let extent = generation.env.extent() as u64 * page;
        if extent + RESERVE_STEP / 2 <= reserved {
            return Ok(());
        }
        let step = (shape.capacity / 64 / page * page).max(RESERVE_STEP);
        let to = (reserved + step).min(shape.capacity);
        let reserved = match generation.may_reserve().then(|| files::reserve(&generation.data, reserved, to)) {
            Some(Ok(())) => {
                generation.page().reserved.set(to);
                generation.resume_reserving();
                to
            }
            Some(Err(e)) => {
                generation.pause_reserving();
                self.log.say(Topic::Full, log::WARNING, || {
                    format!("the file system has no room for the store to grow ({e}); older sessions make room instead")
                });
                reserved
            }
            None => reserved,
        };
        // A quarter of a step is more than any one transaction allocates: 64 KiB, the path to it, and the free list.
        if extent + RESERVE_STEP / 4 <= reserved {
            Ok(())
        } else {
            Err(Fault::Full)
        }
    }
}

/// Makes the changes of `f` in one transaction.
///
/// A reader that was killed in its snapshot pins every page that is freed after it, until a store with room has none. So before
/// anything is given up for lack of room, dead readers are looked for, and `f` has a second try if there were any.
pub(super) fn sweep_in<'g>(
    generation: &Generation,
    locked: &WriteGuard<'g>,
    now: u64,
    mut f: impl FnMut(&mut Write<'_>, &mut Sweep<'g>) -> Result<(), Fault>,
) -> Result<Swept, Fault> {
    let mut attempt = || {
        let mut sweep = Sweep::begin(locked, now);
        generation.env.write(locked, |write| f(write, &mut sweep))?;
        Ok(sweep.committed())
    };
    match attempt() {
        Err(Fault::Full) => {
            // None may be left because another process freed them a moment ago.
            generation.free_dead_readers();
            attempt()
        }
        other => other,
    }
}
