//! The one way to a write: take the write lock, see to room, change everything in one transaction.

use std::sync::atomic::Ordering;

use super::env::{Fault, Txn, Write};
use super::evict::{Sweep, Swept};
use super::generation::{Generation, RESERVE_STEP};
use super::id::Key;
use super::write_lock::WriteGuard;
use super::Store;
use crate::log::{self, Topic};
use crate::sys::{clock, files};

/// A write lock whose holder does not move for so many milliseconds is left behind with its generation.
pub(super) const STUCK: u64 = 1_000;

/// Milliseconds between two attempts to reserve on a full file system.
const PAUSE: u64 = 1_000;

impl Store {
    /// Takes the write lock, or says that it is held. One that is held by a stopped process is left behind.
    pub(super) fn lock<'g>(&self, generation: &'g Generation) -> Result<WriteGuard<'g>, Fault> {
        let locked = generation.lock.acquire(self.deadline).map_err(|timeout| {
            let held_for = timeout.held_for;
            if timeout.damaged {
                self.give_up(generation.number, "the store is damaged");
                return Fault::LockTimeout;
            }
            self.log.say(Topic::Busy, log::WARNING, || {
                format!("another process has been writing for {held_for} ms; sessions are not stored meanwhile")
            });
            if held_for > STUCK {
                self.leave_behind(generation.number, "a writer is stopped");
            }
            Fault::LockTimeout
        })?;
        if generation.page().is_suspect() && !self.is_sound(generation, &locked) {
            self.give_up(generation.number, "processes die of it");
            return Err(Fault::LockTimeout);
        }
        Ok(locked)
    }

    /// Makes the changes of `f` in one transaction, under the write lock.
    pub(super) fn change<'g>(
        &self,
        generation: &'g Generation,
        f: impl FnMut(&mut Write<'_>, &mut Sweep<'g>) -> Result<(), Fault>,
    ) -> Result<Swept, Fault> {
        let locked = self.lock(generation)?;
        self.with_room(generation)?;
        sweep_in(generation, &locked, clock::coarse_micros(), f)
    }

    /// Deletes a whole record, if it is there and `f` says so; whether it did.
    pub(super) fn delete_if(
        &self,
        generation: &Generation,
        key: &Key,
        mut f: impl FnMut(&mut Txn) -> Result<bool, Fault>,
    ) -> Result<bool, Fault> {
        let mut deleted = false;
        self.change(generation, |write, sweep| {
            deleted = f(write.txn())? && sweep.delete(write, key)?;
            Ok(())
        })?;
        Ok(deleted)
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
        let (now, reserve_at) = (clock::ticks(), &generation.reserve_at);
        let reserved = if now < reserve_at.load(Ordering::Relaxed) {
            reserved
        } else if let Err(e) = generation.env.reserve(reserved, to) {
            reserve_at.store(now + PAUSE, Ordering::Relaxed);
            self.log.say(Topic::Full, log::WARNING, || {
                format!("the file system has no room for the store to grow ({e}); older sessions make room instead")
            });
            reserved
        } else {
            generation.page().reserved.set(to);
            reserve_at.store(0, Ordering::Relaxed);
            to
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
