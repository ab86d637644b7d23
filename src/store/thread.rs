//! What a thread keeps of a store between operations: its reader slots, its cipher contexts, its random bytes and its buffers.
//!
//! Kept from one operation to the next, so that a lookup takes no lock, makes no system call and allocates nothing.
//! Begun anew when the process turns out to be a forked child, or when the store has something new to look at.

use std::panic::catch_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use super::env::{Fault, Reader, Txn};
use super::generation::Generation;
use super::id::RANDOM;
use super::seal::Sealer;
use super::{OpenStore, Store};
use crate::status::{Error, Result, Status};
use crate::sys::crypto;
use crate::sys::per_thread::{Keeps, Lease, PerThread};
use crate::sys::process;
use crate::sys::thread_specific::ThreadSpecific;

/// Ids whose random bytes are drawn at once: one call into OpenSSL's generator costs as much as a lookup.
const POOL: usize = 64;
/// Buffers larger than this are given back after use.
const BUFFER_KEPT: usize = 16 * 1024;

/// One generation as this thread sees it.
pub(super) struct Snapshot {
    reader: Reader,
    pub(super) generation: Arc<Generation>,
}

impl Snapshot {
    fn new(generation: &Arc<Generation>) -> Snapshot {
        Snapshot { reader: Reader::new(&generation.env), generation: Arc::clone(generation) }
    }

    /// Reads it. `f` may run again from the start.
    pub(super) fn read<T>(&mut self, mut f: impl FnMut(&mut Txn) -> Result<T, Fault>) -> Result<T, Fault> {
        match self.reader.read(&mut f) {
            Err(Fault::ReadersFull) if self.generation.free_dead_readers() => self.reader.read(&mut f),
            done => done,
        }
    }
}

/// See the module's first lines. Fields are dropped in this order: readers before the environments they read.
pub(crate) struct ThreadContext {
    pub(super) now: Snapshot,
    pub(super) before: Option<Snapshot>,
    pub(super) sealer: Sealer,
    pub(super) opened: Arc<OpenStore>,
    /// The record as it lies in the store.
    pub(super) record: Vec<u8>,
    /// The record opened. Wiped after each use.
    pub(super) plain: Vec<u8>,
    pub(super) shard: usize,
    pool: [u8; POOL * RANDOM],
    pool_left: usize,
    last_moment: u64,
}

impl ThreadContext {
    fn take(store: &Arc<Store>) -> Result<ThreadContext> {
        let opened = store.obtain()?;
        let sealer = Sealer::new(Arc::clone(&opened.keys));
        Ok(ThreadContext {
            now: Snapshot::new(&opened.now),
            before: opened.before.as_ref().map(Snapshot::new),
            sealer,
            record: Vec::with_capacity(1024),
            plain: Vec::with_capacity(1024),
            shard: opened.control.shard(),
            pool: [0; POOL * RANDOM],
            pool_left: 0,
            last_moment: 0,
            opened,
        })
    }

    fn refresh(&mut self, store: &Arc<Store>) -> Result<()> {
        let opened = store.obtain()?;
        if opened.now.number != self.now.generation.number || !Arc::ptr_eq(&opened.now, &self.now.generation) {
            let old = std::mem::replace(&mut self.now, Snapshot::new(&opened.now));
            self.before = opened.before.as_ref().map(|before| {
                if Arc::ptr_eq(before, &old.generation) {
                    old
                } else {
                    Snapshot::new(before)
                }
            });
        } else if opened.before.is_none() {
            self.before = None;
        }
        if !Arc::ptr_eq(self.sealer.keys(), &opened.keys) {
            self.sealer.change(Arc::clone(&opened.keys));
        }
        self.opened = opened;
        Ok(())
    }

    /// A moment of expiry that is later than the last one, if that was of about the same time: ids of one microsecond would be
    /// stored in the order of their random bytes, which halves pages.
    pub(super) fn next_moment(&mut self, expiry: u64) -> u64 {
        /// As many ids as a thread may be ahead of the clock.
        const BURST: u64 = 1_000;
        let behind = self.last_moment.wrapping_sub(expiry);
        self.last_moment = if behind < BURST { self.last_moment + 1 } else { expiry };
        self.last_moment
    }

    /// Random bytes for one id.
    pub(super) fn random(&mut self) -> Option<[u8; RANDOM]> {
        if self.pool_left == 0 {
            crypto::random(&mut self.pool).then_some(())?;
            self.pool_left = POOL;
        }
        self.pool_left -= 1;
        let drawn = &mut self.pool[self.pool_left * RANDOM..][..RANDOM];
        let mut out = [0; RANDOM];
        out.copy_from_slice(drawn);
        // What went out as an id must not lie about to be found and matched later.
        drawn.fill(0);
        Some(out)
    }

    fn clean_up(&mut self) {
        crypto::cleanse(&mut self.plain);
        self.plain.clear();
        if self.plain.capacity() > BUFFER_KEPT {
            self.plain = Vec::with_capacity(1024);
        }
        if self.record.capacity() > BUFFER_KEPT {
            self.record = Vec::with_capacity(1024);
        }
    }
}

impl Keeps for Store {
    type Value = ThreadContext;

    fn values(&self) -> &PerThread<ThreadContext> {
        &self.threads
    }
}

/// The contexts of a thread: one, in nearly every program.
static CONTEXTS: ThreadSpecific<Vec<Lease<Store>>> = ThreadSpecific::new();

/// Sees to it that threads can have contexts.
pub(super) fn prepare() -> Result<()> {
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    if !CONTEXTS.prepare() {
        let text = "the program has made all keys for thread-specific data that a process may have (PTHREAD_KEYS_MAX)";
        return Err(Error::new(Status::System, text));
    }
    if !REGISTERED.swap(true, Ordering::Relaxed) {
        process::at_exit(end_at_exit);
    }
    Ok(())
}

/// The thread that calls exit(3) does not end: its reader slots would stay taken until somebody looks for dead readers.
extern "C" fn end_at_exit() {
    let _ = catch_unwind(|| CONTEXTS.end());
}

fn no_context() -> Error {
    Error::new(Status::Busy, "called from within itself, or by a thread for which there is no memory")
}

/// Runs `f` with this thread's context for `store`.
pub(super) fn with<T>(store: &Arc<Store>, f: impl FnOnce(&mut ThreadContext) -> T) -> Result<T> {
    let done = CONTEXTS.with(|contexts| {
        let at = match contexts.iter().position(|lease| lease.is_of(store)) {
            Some(at) if contexts[at].value(store).is_some_and(|thread| thread.opened.is_current()) => at,
            _ => find_or_make(contexts, store)?,
        };
        let thread = contexts[at].value(store).ok_or_else(no_context)?;
        let result = f(thread);
        thread.clean_up();
        Ok(result)
    });
    done.unwrap_or_else(|| Err(no_context()))
}

#[cold]
fn find_or_make(contexts: &mut Vec<Lease<Store>>, store: &Arc<Store>) -> Result<usize> {
    contexts.retain(Lease::is_alive);
    if let Some(at) = contexts.iter().position(|lease| lease.is_of(store)) {
        return contexts[at].value(store).map_or(Err(no_context()), |thread| thread.refresh(store)).map(|()| at);
    }
    contexts.push(Lease::new(store, ThreadContext::take(store)?));
    Ok(contexts.len() - 1)
}
