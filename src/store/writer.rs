//! The one way to a write: take the write lock, see to room, change everything in one transaction.

use super::env::{Fault, Txn, Write};
use super::evict::{Sweep, Swept};
use super::generation::Generation;
use super::growth;
use super::id::Key;
use super::write_lock::WriteGuard;
use super::Store;
use crate::log::{self, Topic};
use crate::sys::clock;

/// A write lock whose holder does not move for so many milliseconds is left behind with its generation.
pub(super) const STUCK: u64 = 1_000;

impl Store {
    /// Takes the write lock, or says that it is held. One that is held by a stopped process is left behind.
    pub(super) fn lock<'g>(&self, generation: &'g Generation) -> Result<WriteGuard<'g>, Fault> {
        let locked = generation.lock.acquire(self.deadline).map_err(|timeout| {
            let held_for = timeout.held_for;
            if timeout.damaged {
                self.give_up(generation.number, "the store is damaged");
                return Fault::LockTimeout;
            }
            let millis = held_for.max(self.deadline.as_millis() as u64);
            self.log.say(Topic::Busy, log::WARNING, || {
                format!("another process has been writing for more than {millis} ms; sessions are not stored meanwhile")
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

    /// Does `f` under the write lock, with room for a transaction; what need not be done there follows.
    pub(super) fn with_lock<'g, T>(
        &self,
        generation: &'g Generation,
        f: impl FnOnce(&WriteGuard<'g>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let locked = self.lock(generation)?;
        let done = self.with_room(generation, &locked).and_then(|()| f(&locked));
        let runs_low = growth::runs_low(generation, &locked);
        drop(locked);
        if runs_low {
            self.grow_ahead(generation);
        }
        done
    }

    /// Makes the changes of `f` in one transaction, under the write lock.
    pub(super) fn change<'g>(
        &self,
        generation: &'g Generation,
        f: impl FnMut(&mut Write<'_>, &mut Sweep<'g>) -> Result<(), Fault>,
    ) -> Result<Swept, Fault> {
        self.with_lock(generation, |locked| sweep_in(generation, locked, clock::coarse_micros(), f))
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
