//! Whether a process may go by path, and which of its threads does.
//!
//! What goes by path is done by one thread of a process at a time, so that who ends it knows that nobody is at it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::status::{Error, Result, Status};
use crate::sys::fork_safe::{ForkGuard, ForkLock};
use crate::sys::process::incarnation;

/// How long a thread waits for another one that goes by path: opening takes less than a millisecond, a flush a few.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// Whether a process may go by path.
pub(super) struct PathAccess {
    lock: ForkLock,
    /// The incarnation that holds the store; 0: none does.
    holder: AtomicU64,
    /// Its children hold it as well, with nothing open.
    is_inherited: AtomicBool,
    /// `hold=on`.
    at_first_use: AtomicBool,
    /// The incarnation that has said that it goes on without the store.
    said: AtomicU64,
}

impl PathAccess {
    pub(super) fn new() -> PathAccess {
        PathAccess {
            lock: ForkLock::new(),
            holder: AtomicU64::new(0),
            is_inherited: AtomicBool::new(false),
            at_first_use: AtomicBool::new(false),
            said: AtomicU64::new(0),
        }
    }

    /// Has each process hold the store when it has opened it for the first time.
    pub(super) fn end_at_first_use(&self) {
        self.at_first_use.store(true, Ordering::Relaxed);
    }

    /// The store was opened, or could not be.
    pub(super) fn note_use(&self) {
        if self.at_first_use.load(Ordering::Relaxed) {
            self.holder.store(incarnation(), Ordering::Release);
        }
    }

    /// Whether this process goes nowhere by path.
    pub(super) fn has_ended(&self) -> bool {
        let holder = self.holder.load(Ordering::Acquire);
        holder != 0 && (self.is_inherited.load(Ordering::Acquire) || holder == incarnation())
    }

    /// The way by path, for one thread; an error when the store is held, and when another thread is at it for longer than `patience`.
    pub(super) fn begin(&self, patience: Duration) -> Result<ForkGuard<'_>> {
        let guard = self.lock.hold(patience).ok_or_else(Error::busy)?;
        match self.has_ended() {
            true => Err(Error::new(Status::System, "this process holds the store, and opens nothing by path any more")),
            false => Ok(guard),
        }
    }

    /// Ends it for this process and its children, when nobody is on the way any more.
    pub(super) fn end(&self) -> Result<()> {
        let alone = self.lock.hold(PATIENCE);
        self.is_inherited.store(true, Ordering::Release);
        self.holder.store(incarnation(), Ordering::Release);
        alone.map(drop).ok_or_else(Error::busy)
    }

    /// Whether this process has not said yet that it goes on without the store.
    pub(super) fn is_first_to_say(&self) -> bool {
        self.said.swap(incarnation(), Ordering::Relaxed) != incarnation()
    }
}
