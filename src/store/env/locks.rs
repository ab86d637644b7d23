//! LMDB's two locks, looked at before LMDB waits for them: it waits without a deadline.
//!
//! Who takes a reader slot holds one of them for a moment, and who writes the other. A process that is stopped in that moment,
//! or a damaged lock file, would have everybody wait for as long as it lasts. Nothing is locked here: between the look and
//! LMDB's call lie some nanoseconds, in which a process would have to be stopped for another one to wait.

use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use libc::c_int;
use lmdb_sys as ffi;

use super::super::mdb::{pages, LockHead};
use super::Fault;
use crate::sys::clock;
use crate::sys::mutex::{Holder, Patience, SharedMutex};
use crate::sys::shared_page::SharedPage;

/// Longest wait. These locks are held for some hundred nanoseconds: who has one for longer does not run.
const WAIT: Duration = Duration::from_millis(1);

/// The locks of an environment.
pub(super) struct Locks {
    head: SharedPage<LockHead>,
    kind: c_int,
    readers: u32,
    patience: Patience,
    /// Since when the lock of the slots was never seen free, in ticks; 0 when it was.
    held_since: AtomicU64,
}

impl Locks {
    /// Those of the lock file that LMDB has open under `descriptor`, with slots for so many readers.
    pub(super) fn of(descriptor: c_int, readers: u32) -> Result<Locks, Fault> {
        let system = |e: io::Error| e.raw_os_error().map_or(Fault::LockedMemory, Fault::System);
        let kind = SharedMutex::usual_kind().map_err(system)?;
        // SAFETY: a File wants an open descriptor that nobody else closes meanwhile: LMDB has it open, and is closed after this. It
        // stays LMDB's: closing it would drop this process's locks (fcntl(2)).
        let file = ManuallyDrop::new(unsafe { File::from_raw_fd(descriptor) });
        let head = SharedPage::map_to_read(&file).map_err(system)?;
        let locks = Locks { head, kind, readers, patience: Patience::new(), held_since: AtomicU64::new(0) };
        locks.check().map(|()| locks)
    }

    /// Whether LMDB may look into the lock file at all: pthread aborts on some kinds of mutexes, and LMDB walks as many
    /// slots as are said to be used.
    fn check(&self) -> Result<(), Fault> {
        let LockHead { table, writer } = &*self.head;
        let whole = table.magic.load(Ordering::Relaxed) == pages::MAGIC
            && table.slots.kind() == self.kind
            && writer.0.kind() == self.kind
            && table.used.load(Ordering::Relaxed) <= self.readers;
        whole.then_some(()).ok_or(Fault::Damaged(ffi::MDB_INVALID))
    }

    /// Returns when a reader slot can be taken, or given up for another, without waiting.
    pub(super) fn before_slots(&self) -> Result<(), Fault> {
        self.check()?;
        let wait = if self.patience.is_lost() { Duration::ZERO } else { WAIT };
        if self.head.table.slots.is_free_within(wait) {
            self.held_since.store(0, Ordering::Relaxed);
            return Ok(());
        }
        if !wait.is_zero() {
            self.patience.lose();
        }
        let now = clock::ticks();
        let _ = self.held_since.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        Err(Fault::SlotsHeld { millis: now.saturating_sub(self.held_since.load(Ordering::Relaxed)) })
    }

    /// Returns when a write can begin without waiting. Under our own write lock nobody else writes, so that is at once.
    #[inline]
    pub(super) fn before_write(&self) -> Result<(), Fault> {
        self.check()?;
        match self.head.writer.0.holder() {
            Holder::Nobody => Ok(()),
            // LMDB then frees the slots of the dead.
            Holder::Dead => self.before_slots(),
            Holder::Somebody if self.head.writer.0.is_free_within(WAIT) => Ok(()),
            Holder::Somebody => Err(Fault::WriterHeld),
        }
    }
}
