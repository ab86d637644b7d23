//! LMDB's two locks, looked at before LMDB waits for them: it waits without a deadline.
//!
//! Who takes a reader slot holds one of them for a moment, and who writes the other. A process that is stopped in that moment,
//! or a damaged lock file, would have everybody wait for as long as it lasts. Nothing is locked here: between the look and
//! LMDB's call lie some nanoseconds, in which a process would have to be stopped for another one to wait.

use std::fs::File;
use std::io;
use std::mem::{size_of, ManuallyDrop};
use std::os::fd::FromRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use libc::c_int;
use lmdb_sys as ffi;

use super::super::mdb::{pages, LockHead};
use super::Fault;
use crate::sys::files::{self, Mapping};
use crate::sys::mutex::{Holder, SharedMutex};
use crate::sys::{clock, process};

/// Tries before sleeping.
const SPINS: u32 = 200;
/// Longest wait. These locks are held for some hundred nanoseconds: who has one for longer does not run.
const PATIENCE: Duration = Duration::from_millis(1);
const NAP: Duration = Duration::from_micros(50);
/// How long a process that waited in vain only looks, in milliseconds.
const PATIENCE_LOST: u64 = 1_000;

/// The head of an environment's lock file, mapped.
pub(super) struct Locks {
    head: &'static LockHead,
    mapping: Mapping,
    process: u64,
    kind: c_int,
    readers: u32,
    /// Until this tick, only look.
    impatient_until: AtomicU64,
    /// Since when the lock of the slots was never seen free, in ticks; 0 when it was.
    held_since: AtomicU64,
}

impl Locks {
    /// Those of the lock file that LMDB has open under `descriptor`, with slots for so many readers.
    pub(super) fn of(descriptor: c_int, readers: u32) -> Result<Locks, Fault> {
        let system = |e: io::Error| e.raw_os_error().map_or(Fault::LockedMemory, Fault::System);
        let kind = SharedMutex::usual_kind().map_err(system)?;
        // SAFETY: a File wants an open descriptor of its own: LMDB has opened it, and ManuallyDrop leaves it to LMDB. Closing it
        // would drop this process's locks (fcntl(2)).
        let file = ManuallyDrop::new(unsafe { File::from_raw_fd(descriptor) });
        let mapping = files::map_to_read(&file, size_of::<LockHead>()).map_err(system)?;
        // SAFETY: a reference wants alignment, length and valid bits for as long as it lives: the mapping is page-aligned and as
        // long as a LockHead, which holds integers and mutexes of any bits, and Drop alone unmaps it.
        let head: &'static LockHead = unsafe { &*mapping.start.cast::<LockHead>() };
        let locks = Locks {
            head,
            mapping,
            process: process::incarnation(),
            kind,
            readers,
            impatient_until: AtomicU64::new(0),
            held_since: AtomicU64::new(0),
        };
        locks.check().map(|()| locks)
    }

    /// Whether LMDB may look into the lock file at all: pthread aborts on some kinds of mutexes, and LMDB walks as many
    /// slots as are said to be used.
    fn check(&self) -> Result<(), Fault> {
        let LockHead { table, writer } = self.head;
        let whole = table.magic.load(Ordering::Relaxed) == pages::MAGIC
            && table.slots.kind() == self.kind
            && writer.0.kind() == self.kind
            && table.used.load(Ordering::Relaxed) <= self.readers;
        whole.then_some(()).ok_or(Fault::Damaged(ffi::MDB_INVALID))
    }

    /// Returns when a reader slot can be taken, or given up for another, without waiting.
    pub(super) fn before_slots(&self) -> Result<(), Fault> {
        self.check()?;
        let slots = &self.head.table.slots;
        let now = clock::ticks();
        let patience = if now < self.impatient_until.load(Ordering::Relaxed) { Duration::ZERO } else { PATIENCE };
        if is_free_within(slots, patience) {
            self.held_since.store(0, Ordering::Relaxed);
            return Ok(());
        }
        if !patience.is_zero() {
            self.impatient_until.store(now + PATIENCE_LOST, Ordering::Relaxed);
        }
        let _ = self.held_since.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        Err(Fault::SlotsHeld { millis: now.saturating_sub(self.held_since.load(Ordering::Relaxed)) })
    }

    /// Returns when a write can begin without waiting. Behind the gate nobody else writes, so that is at once.
    #[inline]
    pub(super) fn before_write(&self) -> Result<(), Fault> {
        self.check()?;
        match self.head.writer.0.holder() {
            Holder::Nobody => Ok(()),
            // LMDB then frees the slots of the dead.
            Holder::Dead => self.before_slots(),
            Holder::Somebody if is_free_within(&self.head.writer.0, PATIENCE) => Ok(()),
            Holder::Somebody => Err(Fault::WriterHeld),
        }
    }
}

impl Drop for Locks {
    fn drop(&mut self) {
        if self.process == process::incarnation() {
            // SAFETY: no reference into the mapping may be left: `head` is private to the value that ends here.
            unsafe { files::unmap(self.mapping) };
        }
    }
}

// SAFETY: what is mapped belongs to no thread, and is unmapped by whichever drops the last.
unsafe impl Send for Locks {}
// SAFETY: the mapping is only read, through atomics and SharedMutex, which are Sync.
unsafe impl Sync for Locks {}

fn is_free_within(mutex: &SharedMutex, patience: Duration) -> bool {
    let is_free = || mutex.holder() != Holder::Somebody;
    if is_free() {
        return true;
    }
    for _ in 0..SPINS {
        std::hint::spin_loop();
        if is_free() {
            return true;
        }
    }
    let until = Instant::now() + patience;
    while Instant::now() < until {
        std::thread::sleep(NAP);
        if is_free() {
            return true;
        }
    }
    false
}
