//! Growing: what is written through the map must have a block behind it, so blocks are reserved before.
//!
//! Ahead of need, in small steps, and by one process at a time that holds nothing others wait for: whoever notices after a write
//! of its own that little is left. A writer grows the file itself only when nothing is left, and then by one step.

use std::io;
use std::sync::atomic::Ordering;

use super::env::Fault;
use super::generation::Generation;
use super::write_lock::WriteGuard;
use super::Store;
use crate::log::{self, Topic};
use crate::sys::{clock, files};

/// More bytes than any one transaction allocates: 64 KiB, the path to it, evictions, and the free list.
pub(super) const NEEDED: u64 = 256 << 10;
/// So many bytes beyond the last page in use are to be ready.
const AHEAD: u64 = 1 << 20;
/// Milliseconds between two attempts to reserve on a full file system.
const PAUSE: u64 = 1_000;

/// Whether more is to be reserved for so many bytes beyond the last page in use to be ready.
fn lacks(generation: &Generation, bytes: u64) -> bool {
    let (page, shape) = (generation.page(), generation.page().shape());
    // A damaged page may say anything of how many there are.
    let extent = (generation.env.extent() as u64).saturating_mul(generation.env.page as u64);
    let reserved = page.reserved.get();
    !shape.guard && reserved < shape.capacity && extent.saturating_add(bytes) > reserved
}

/// Whether little is left. Under the write lock: how many pages are in use stands where a commit writes.
#[inline]
pub(super) fn runs_low(generation: &Generation, _inside: &WriteGuard<'_>) -> bool {
    lacks(generation, AHEAD)
}

impl Store {
    /// Makes sure that the transaction to come meets no page without a block behind it.
    pub(super) fn with_room(&self, generation: &Generation, _inside: &WriteGuard<'_>) -> Result<(), Fault> {
        let shape = generation.page().shape();
        // Written with pwrite(2), which a limit that was lowered since the store was opened answers with SIGXFSZ.
        if shape.guard && files::exceeds_file_limit(shape.capacity) {
            return Err(Fault::Full);
        }
        if lacks(generation, NEEDED) {
            self.grow(generation, |from, to| generation.env.reserve(from, to).map(|()| true));
            if lacks(generation, NEEDED) {
                return Err(Fault::Full);
            }
        }
        Ok(())
    }

    /// Reserves a step, unless another process is at it. Outside the write lock.
    pub(super) fn grow_ahead(&self, generation: &Generation) {
        self.grow(generation, |from, to| generation.env.reserve_alone(from, to));
    }

    /// Reserves one step, if `reserve` does. Two at once do no harm: a block that is there stays as it is.
    #[cold]
    fn grow(&self, generation: &Generation, reserve: impl FnOnce(u64, u64) -> io::Result<bool>) {
        let (now, reserve_at) = (clock::ticks(), &generation.reserve_at);
        if now < reserve_at.load(Ordering::Relaxed) {
            return;
        }
        let (reserved, capacity) = (&generation.page().reserved, generation.page().shape().capacity);
        let from = reserved.get();
        let to = from.saturating_add(files::RESERVE_STEP).min(capacity);
        if to <= from {
            return;
        }
        match reserve(from, to) {
            Ok(true) => {
                reserved.raise(to);
                reserve_at.store(0, Ordering::Relaxed);
            }
            // Another process is at it; or signals came too fast, and the next write tries again.
            Ok(false) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => {
                reserve_at.store(now + PAUSE, Ordering::Relaxed);
                let why = match e.raw_os_error() {
                    Some(libc::EPERM | libc::ENOSYS) => "this process may not reserve",
                    _ => "the file system has no",
                };
                self.log.say(Topic::Full, log::WARNING, || {
                    format!("{why} room for the store to grow ({e}); older sessions make room instead")
                });
            }
        }
    }
}
