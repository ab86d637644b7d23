//! The gate: writers of one generation, one at a time, with a deadline that LMDB's own writer lock does not have.
//!
//! A robust process-shared mutex in a page of the generation's directory. A stopped process inside it costs the others
//! their deadline and later a new generation, never a stall; a dead one is recovered by the kernel.

use std::mem::{offset_of, size_of};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{fs, io, ptr};

use super::control::Shape;
use super::id::siphash;
use crate::sys::files::{self, Access, Mapping};
use crate::sys::mutex::{Apart, SharedMutex};
use crate::sys::{clock, process};

const MAGIC: [u8; 8] = *b"sessgate";
/// Namespaces that are told apart when room is made; all further ones share the last place.
pub(crate) const NAMESPACES: usize = 32;
/// Tries before sleeping: a put holds the gate for about a microsecond, a sleep and a wake-up cost thirty.
const SPINS: u32 = 200;
/// So many deaths inside an operation, within so many milliseconds, look like damage that kills.
const DEATHS: usize = 3;
const DEATHS_WITHIN: u64 = 60_000;
/// A wall clock that is set back by less than so many seconds costs nobody a session.
const SET_BACK: u64 = 3_600;
/// How long a thread that ran into the deadline only tries, in milliseconds.
const PATIENCE_LOST: u64 = 1_000;

#[repr(C)]
struct Fixed {
    magic: [u8; 8],
    format: u32,
    readers: u32,
    capacity: u64,
    guard: u64,
    check: u64,
}

#[repr(C, align(64))]
struct Page {
    fixed: Fixed,
    /// Bytes of the data file that have blocks behind them.
    reserved: AtomicU64,
    /// When the last record expires, in seconds: after it, nothing here is worth reading.
    newest: AtomicU64,
    /// The longest life that a record was ever put with, in seconds.
    longest: AtomicU64,
    /// When the first one does, in microseconds; a hint that tells when to sweep.
    oldest: AtomicU64,
    /// Records outside the time order.
    foreign: AtomicU64,
    /// Bytes of each namespace; see `usage`.
    shares: [Share; NAMESPACES],
    /// When the gate was last passed, in ticks; tells a slow holder from a stuck one.
    since: AtomicU64,
    /// Until this tick the file need not be checked again, and which file that is, by its inode.
    trusted: AtomicU64,
    trusted_file: AtomicU64,
    /// When processes died inside an operation, in ticks: the last few of them, in no order.
    deaths: [AtomicU64; DEATHS],
    /// Not 0: so many died within so short a time that the file is to be checked.
    suspect: AtomicU64,
    mutex: Apart,
    /// The whole hash of the namespace in each place of `shares`; 0: not known.
    namespaces: [AtomicU64; NAMESPACES],
}

/// What one namespace has.
#[repr(C)]
struct Share {
    /// Hash of the namespace in headers, plus 1; 0: nobody's.
    namespace: AtomicU64,
    bytes: AtomicU64,
    /// No record of it in time order expires before this moment, in microseconds.
    first: AtomicU64,
}

/// Bytes of the file.
const SIZE: usize = 4096;
const _: () = assert!(size_of::<Page>() <= SIZE);

/// The gate of one generation, mapped.
pub(crate) struct Gate {
    page: &'static Page,
    mapping: Mapping,
    process: u64,
    /// What the mutex must be told to be: by some kinds pthread ends the process that locks one.
    kind: libc::c_int,
    /// Until this tick, only try. Per process: the others find out for themselves.
    impatient_until: AtomicU64,
}

/// Proof of being inside. Leaves on drop.
pub(crate) struct WriteGuard<'a> {
    gate: &'a Gate,
    /// The mutex belongs to the thread that locked it.
    _thread: std::marker::PhantomData<*mut ()>,
}

/// The gate could not be passed in time.
#[derive(Debug)]
pub(crate) struct LockTimeout {
    /// Somebody has written over it.
    pub(crate) damaged: bool,
    /// For so long the same holder has been inside, in milliseconds.
    pub(crate) held_for: u64,
}

fn check(shape: Shape) -> u64 {
    let mut bytes = [0_u8; 24];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..16].copy_from_slice(&shape.capacity.to_ne_bytes());
    bytes[16..20].copy_from_slice(&shape.readers.to_ne_bytes());
    bytes[20] = u8::from(shape.guard);
    siphash(0, 0, &bytes)
}

impl Gate {
    /// Creates the file of a new generation. The caller publishes the directory afterwards, so nobody else sees it yet.
    pub(crate) fn create(directory: &Path, shape: Shape, reserved: u64, access: Access) -> io::Result<()> {
        let path = directory.join("gate");
        let file = files::create_zeroed(&path, SIZE, access)?;
        let mapping = files::map_shared(&file, SIZE)?;
        let put = |at: usize, value: &[u8]| {
            // SAFETY: every offset plus length lies within Page, and so within the mapping of SIZE bytes.
            let to = unsafe { mapping.start.add(at) };
            // SAFETY: same, and the mapping was made a moment ago, so no reference into it exists.
            unsafe { ptr::copy_nonoverlapping(value.as_ptr(), to, value.len()) };
        };
        put(offset_of!(Fixed, magic), &MAGIC);
        put(offset_of!(Fixed, format), &super::control::FORMAT.to_ne_bytes());
        put(offset_of!(Fixed, readers), &shape.readers.to_ne_bytes());
        put(offset_of!(Fixed, capacity), &shape.capacity.to_ne_bytes());
        put(offset_of!(Fixed, guard), &u64::from(shape.guard).to_ne_bytes());
        put(offset_of!(Fixed, check), &check(shape).to_ne_bytes());
        put(offset_of!(Page, reserved), &reserved.to_ne_bytes());
        put(offset_of!(Page, oldest), &u64::MAX.to_ne_bytes());
        // SAFETY: the offset lies within the mapping.
        let mutex = unsafe { mapping.start.add(offset_of!(Page, mutex)) };
        // SAFETY: zeroed memory, aligned to 64, which nobody else has seen yet.
        let made = unsafe { SharedMutex::make(mutex.cast()) };
        // SAFETY: `put` and `mutex` are done with; nothing refers into the mapping.
        unsafe { files::unmap(mapping) };
        made
    }

    /// Maps the gate of a generation; `None` when it is damaged.
    pub(crate) fn open(directory: &Path) -> io::Result<Option<Gate>> {
        Gate::map(files::open(&directory.join("gate"))?, files::map_shared)
    }

    /// The same for looking only: passing it, or noting anything in it, is a fault.
    pub(crate) fn view(directory: &Path) -> io::Result<Option<Gate>> {
        Gate::map(files::open_to_read(&directory.join("gate"))?, files::map_to_read)
    }

    fn map(file: fs::File, map: fn(&fs::File, usize) -> io::Result<Mapping>) -> io::Result<Option<Gate>> {
        if file.metadata()?.len() != SIZE as u64 {
            return Ok(None);
        }
        let kind = SharedMutex::usual_kind()?;
        let mapping = map(&file, SIZE)?;
        // SAFETY: page-aligned, SIZE bytes, any bit pattern is valid (integers, and a mutex that only pthread looks into);
        // unmapped in Drop alone.
        let page: &'static Page = unsafe { &*mapping.start.cast::<Page>() };
        let gate = Gate { page, mapping, process: process::incarnation(), kind, impatient_until: AtomicU64::new(0) };
        let fixed = &page.fixed;
        let whole = fixed.magic == MAGIC
            && fixed.format == super::control::FORMAT
            && fixed.check == check(gate.shape())
            && gate.shape().is_sane()
            && gate.is_sound();
        Ok(whole.then_some(gate))
    }

    /// Whether the mutex may be given to pthread. Somebody may write over it at any time.
    #[inline]
    fn is_sound(&self) -> bool {
        self.page.mutex.0.kind() == self.kind
    }

    /// What this generation is like.
    pub(crate) fn shape(&self) -> Shape {
        Shape {
            capacity: self.page.fixed.capacity,
            readers: self.page.fixed.readers,
            guard: self.page.fixed.guard != 0,
        }
    }

    /// Waits at most until the deadline; after a wait that was in vain, for a second not at all.
    pub(crate) fn enter(&self, deadline: Duration) -> Result<WriteGuard<'_>, LockTimeout> {
        if self.lock(deadline) {
            self.page.since.store(clock::ticks(), Ordering::Relaxed);
            return Ok(WriteGuard { gate: self, _thread: std::marker::PhantomData });
        }
        Err(LockTimeout {
            damaged: !self.is_sound(),
            held_for: clock::ticks().saturating_sub(self.page.since.load(Ordering::Relaxed)),
        })
    }

    fn lock(&self, deadline: Duration) -> bool {
        let mutex = &self.page.mutex.0;
        if !self.is_sound() {
            return false;
        }
        for _ in 0..SPINS {
            match mutex.try_lock() {
                0 => return true,
                libc::EBUSY => std::hint::spin_loop(),
                code => return self.settle(code),
            }
        }
        let now = clock::ticks();
        if deadline.is_zero() || now < self.impatient_until.load(Ordering::Relaxed) {
            return false;
        }
        let locked = self.settle(mutex.lock_until(clock::deadline(deadline)));
        if !locked {
            self.impatient_until.store(now + PATIENCE_LOST, Ordering::Relaxed);
        }
        locked
    }

    /// What a lock call's result means. A dead owner left LMDB consistent: its pages are only reachable after a commit.
    fn settle(&self, code: libc::c_int) -> bool {
        match code {
            0 => true,
            libc::EOWNERDEAD => {
                self.note_death();
                self.page.mutex.0.make_consistent()
            }
            _ => false,
        }
    }

    /// Notes that a process died inside an operation: killed by somebody, or by a damaged page.
    pub(crate) fn note_death(&self) {
        let now = clock::ticks();
        let deaths = &self.page.deaths;
        // The longest ago gives way. Two at the same instant may be noted as one.
        let first = deaths.iter().min_by_key(|death| death.load(Ordering::Relaxed));
        first.inspect(|death| death.store(now, Ordering::Relaxed));
        self.trust(0, 0);
        let recent = |death: &AtomicU64| {
            let at = death.load(Ordering::Relaxed);
            at != 0 && now.saturating_sub(at) < DEATHS_WITHIN
        };
        if deaths.iter().all(recent) {
            self.page.suspect.store(1, Ordering::Relaxed);
        }
    }

    /// Whether so many have died that the file is to be checked.
    #[inline]
    pub(crate) fn is_suspect(&self) -> bool {
        self.page.suspect.load(Ordering::Relaxed) != 0
    }

    /// True for the one who is to check it; the deaths are forgotten then.
    pub(crate) fn claim_suspicion(&self) -> bool {
        let mine = self.page.suspect.swap(0, Ordering::Relaxed) != 0;
        if mine {
            self.page.deaths.iter().for_each(|death| death.store(0, Ordering::Relaxed));
        }
        mine
    }

    /// Bytes of the data file that may be written through the map.
    pub(crate) fn reserved(&self) -> u64 {
        self.page.reserved.load(Ordering::Relaxed)
    }

    /// Whether the data file of this inode counts as checked. One put in its place does not.
    pub(crate) fn is_trusted(&self, inode: u64) -> bool {
        self.page.trusted_file.load(Ordering::Relaxed) == inode
            && self.page.trusted.load(Ordering::Relaxed) > clock::ticks()
    }

    /// Notes that it does, for so many milliseconds.
    pub(crate) fn trust(&self, inode: u64, millis: u64) {
        self.page.trusted_file.store(inode, Ordering::Relaxed);
        self.page.trusted.store(clock::ticks() + millis, Ordering::Relaxed);
    }

    /// Notes how far the data file is reserved.
    pub(crate) fn set_reserved(&self, bytes: u64) {
        self.page.reserved.store(bytes, Ordering::Relaxed);
    }

    /// When the first record expires, in microseconds; never later than the truth.
    pub(crate) fn oldest(&self) -> u64 {
        self.page.oldest.load(Ordering::Relaxed)
    }

    /// Notes the expiry of what is first in the tree now.
    pub(crate) fn set_oldest(&self, micros: u64) {
        self.page.oldest.store(micros, Ordering::Relaxed);
    }

    /// Notes a record that was put, by its expiry.
    pub(crate) fn note_put(&self, micros: u64, seconds: u64) {
        if micros < self.oldest() {
            self.set_oldest(micros);
        }
        if seconds > self.newest() {
            self.set_newest(seconds);
        }
    }

    /// When the last record expires, in seconds.
    pub(crate) fn newest(&self) -> u64 {
        self.page.newest.load(Ordering::Relaxed)
    }

    /// Notes the expiry of what is last in the tree now, in seconds.
    pub(crate) fn set_newest(&self, seconds: u64) {
        self.page.newest.store(seconds, Ordering::Relaxed);
    }

    /// Notes the life of a record that is about to be put, in seconds.
    pub(crate) fn note_life(&self, seconds: u64) {
        if seconds > self.page.longest.load(Ordering::Relaxed) {
            self.page.longest.store(seconds, Ordering::Relaxed);
        }
    }

    /// The longest life that a record was ever put with, in seconds.
    pub(crate) fn longest(&self) -> u64 {
        self.page.longest.load(Ordering::Relaxed)
    }

    /// The latest expiry, in microseconds, that a record can have at the moment `now`. One that ends later was put while
    /// the clock was ahead of `now`, and would outlive its time by as much.
    pub(crate) fn horizon(&self, now: u64) -> u64 {
        let longest = self.page.longest.load(Ordering::Relaxed).saturating_add(SET_BACK);
        now.saturating_add(longest.saturating_mul(1_000_000))
    }

    /// The place of a namespace in the table, taken now if it has none. Behind the gate only.
    pub(crate) fn slot_of_namespace(&self, namespace: u32) -> usize {
        let name = u64::from(namespace) + 1;
        let shares = &self.page.shares;
        if let Some(found) = shares.iter().position(|share| share.namespace.load(Ordering::Relaxed) == name) {
            return found;
        }
        let free = shares.iter().position(|share| share.bytes.load(Ordering::Relaxed) == 0).unwrap_or(NAMESPACES - 1);
        shares[free].namespace.store(name, Ordering::Relaxed);
        shares[free].first.store(u64::MAX, Ordering::Relaxed);
        free
    }

    /// Notes the whole hash of a namespace, which seals have, beside the half that headers have. Lookups never read it: it
    /// is there for tools, which know no names. Behind the gate only.
    pub(crate) fn note_namespace(&self, (wide, narrow): (u64, u32)) {
        let known = &self.page.namespaces[self.slot_of_namespace(narrow)];
        if known.load(Ordering::Relaxed) != wide {
            known.store(wide, Ordering::Relaxed);
        }
    }

    /// The whole hash of a namespace that is in the table. May be that of another one, whose place it was or is to be.
    pub(crate) fn namespace(&self, narrow: u32) -> Option<u64> {
        let name = u64::from(narrow) + 1;
        let at = self.page.shares.iter().position(|share| share.namespace.load(Ordering::Relaxed) == name)?;
        Some(self.page.namespaces[at].load(Ordering::Relaxed)).filter(|wide| *wide != 0)
    }

    /// Bytes that a place of the table stands for.
    pub(crate) fn namespace_bytes(&self, share: usize) -> u64 {
        self.page.shares[share].bytes.load(Ordering::Relaxed)
    }

    /// Sets them, behind the gate only.
    pub(crate) fn set_namespace_bytes(&self, share: usize, bytes: u64) {
        self.page.shares[share].bytes.store(bytes, Ordering::Relaxed);
    }

    /// No record of this place in time order expires before this moment, in microseconds.
    pub(crate) fn namespace_first(&self, share: usize) -> u64 {
        self.page.shares[share].first.load(Ordering::Relaxed)
    }

    /// Sets it, behind the gate only.
    pub(crate) fn set_namespace_first(&self, share: usize, micros: u64) {
        self.page.shares[share].first.store(micros, Ordering::Relaxed);
    }

    /// Whether any record lies outside the time order.
    pub(crate) fn has_foreign(&self) -> bool {
        self.page.foreign.load(Ordering::Relaxed) != 0
    }

    /// Notes that some do, or that the clock hand found none.
    pub(crate) fn set_foreign(&self, any: bool) {
        self.page.foreign.store(u64::from(any), Ordering::Relaxed);
    }
}

impl<'a> WriteGuard<'a> {
    /// The gate passed.
    pub(crate) fn gate(&self) -> &'a Gate {
        self.gate
    }
}

impl Drop for WriteGuard<'_> {
    fn drop(&mut self) {
        if self.gate.is_sound() {
            // SAFETY: a WriteGuard exists only where `lock` succeeded, in this thread.
            unsafe { self.gate.page.mutex.0.unlock() };
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if self.process == process::incarnation() {
            // SAFETY: every WriteGuard borrows the gate, so nobody is in it; the page is a private field.
            unsafe { files::unmap(self.mapping) };
        }
    }
}

// SAFETY: shared memory made for concurrent use: atomics, constants and a process-shared mutex.
unsafe impl Send for Gate {}
// SAFETY: as above.
unsafe impl Sync for Gate {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use crate::store::Store;
    use std::os::unix::fs::FileExt;

    #[test]
    #[cfg(target_env = "gnu")]
    fn a_gate_that_is_written_over_ends_who_passes_it_or_stays_shut() {
        let path = std::env::temp_dir().join(format!("sesscache-gate-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        let store = Store::open(&path, &Options::parse("capacity=1MiB").unwrap()).unwrap();
        let opened = store.obtain().unwrap();
        let generation = &opened.now;
        let deadline = Duration::from_secs(1);
        let inside = generation.gate.enter(deadline).unwrap();
        // With this bit glibc uses instructions that not every processor has (pthreadP.h: PTHREAD_MUTEX_ELISION_NP).
        let file = files::open(&generation.data.with_file_name("gate")).unwrap();
        file.write_all_at(&0x1ff_u32.to_ne_bytes(), offset_of!(Page, mutex) as u64 + 16).unwrap();
        drop(inside);
        assert!(generation.gate.enter(deadline).is_err_and(|shut| shut.damaged));
        assert!(store.enter(generation).is_err());
        assert!(store.obtain().unwrap().now.number > generation.number, "nobody can store any more");
        fs::remove_dir_all(&path).unwrap();
    }
}
