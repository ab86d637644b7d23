//! The control file: one page of what all processes of a store agree on. The counters lie behind it.
//!
//! It is created whole under another name and linked into place, so nobody ever sees half of one. It is never repaired:
//! a damaged one is replaced, with a generation number that no older one had.

use std::fs::{self, File};
use std::io;
use std::mem::size_of;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::boot::BootId;
use super::counters::{Counters, SHARDS};
use super::directory::OpenDirectory;
use super::tombstones::Tombstones;
use super::trial::NotedTrial;
use crate::options::{CAPACITY_LIMITS, READERS_LIMITS};
use crate::stats::Counter;
use crate::sys::dir::Dir;
use crate::sys::files;
use crate::sys::shared_page::{Shareable, SharedPage, Word};
use crate::sys::{clock, crypto, process};

mod superblock;

use self::superblock::{bytes, Superblock};

const MAGIC: [u8; 8] = *b"sesscach";
/// Version of the layout below.
pub(crate) const FORMAT: u32 = 3;
/// Bytes of the file.
const SIZE: usize = size_of::<ControlPage>();

#[repr(C, align(64))]
struct ControlPage {
    superblock: Superblock,
    /// Changes whenever a process must look again: one load per operation.
    epoch: AtomicU64,
    /// Current generation's number << 1 | whether the one before it is still readable.
    generation: AtomicU64,
    /// What the next generation is to be like.
    capacity: Word,
    readers: AtomicU32,
    guard: AtomicU32,
    next_shard: AtomicU32,
    /// The boot of the machine, by who last could tell; 0: nobody could.
    boot: AtomicU32,
    /// Moments of the last look for dead readers and of the last round of maintenance, by any process, in milliseconds.
    reader_check: AtomicU64,
    round: AtomicU64,
    /// How the newest records opened when a process last tried; see `trial`.
    trial: AtomicU64,
    counters: Counters,
    /// How often the store was flushed, and the second of the last time.
    flushes: AtomicU64,
    flushed_at: AtomicU64,
    /// How often a process has seen that the keys, or the control file itself, were replaced.
    replaced: AtomicU64,
    tombstones: Tombstones,
    /// The longest time from a full handshake to the expiry of a session, of all that were put, in seconds.
    longest: Word,
}

// SAFETY: atomics, for which any bytes do.
unsafe impl Shareable for ControlPage {}

/// What a store is like; a difference begins a new generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) capacity: u64,
    pub(crate) readers: u32,
    pub(crate) guard: bool,
}

impl Shape {
    /// Whether the limits of the options hold, for a shape that was read from a file.
    pub(crate) fn is_sane(self) -> bool {
        (CAPACITY_LIMITS.0..=CAPACITY_LIMITS.1).contains(&self.capacity)
            && (READERS_LIMITS.0..=READERS_LIMITS.1).contains(&self.readers)
    }
}

/// The current generation and what may be read besides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Current {
    pub(crate) number: u64,
    /// The generation before is readable.
    pub(crate) keep: bool,
}

/// How often a store was flushed, in as many bits as a note on a session has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flushes(pub(crate) u16);

impl Flushes {
    pub(crate) const MASK: u16 = 0x7FFF;
}

/// Why a control file cannot be used.
#[derive(Debug)]
pub(crate) enum Unusable {
    /// It is not there.
    Missing,
    /// Damaged; it may be replaced.
    Damaged,
    /// Whole, and of another version.
    Format(u32),
    /// Whole, and of processes with another architecture, C library or page size.
    Platform,
    /// The system refused.
    System(io::Error),
}

/// A mapped control file.
pub(crate) struct Control {
    page: SharedPage<ControlPage>,
    identity: (u64, u64),
    pub(crate) mask: [u8; 16],
    pub(crate) names: [u8; 16],
    pub(crate) site: u32,
}

impl ControlPage {
    fn wanted(&self) -> Shape {
        Shape {
            capacity: self.capacity.get(),
            readers: self.readers.load(Ordering::Relaxed),
            guard: self.guard.load(Ordering::Relaxed) != 0,
        }
    }

    fn set_wanted(&self, shape: Shape) {
        self.capacity.set(shape.capacity);
        self.readers.store(shape.readers, Ordering::Relaxed);
        self.guard.store(u32::from(shape.guard), Ordering::Relaxed);
    }
}

impl Control {
    /// Creates the file unless it is there. Two processes at once: one of them wins, both go on with its file.
    pub(crate) fn create(dir: &OpenDirectory<'_>, shape: Shape) -> io::Result<()> {
        Self::publish(dir, shape, |from, to| match dir.link(from, to) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        })
    }

    /// Puts a new file in the place of a damaged one.
    pub(crate) fn replace(dir: &OpenDirectory<'_>, shape: Shape) -> io::Result<()> {
        Self::publish(dir, shape, |from, to| dir.rename(from, to))
    }

    fn publish(dir: &OpenDirectory<'_>, shape: Shape, place: impl Fn(&str, &str) -> io::Result<()>) -> io::Result<()> {
        let mut random = [[0_u8; 16]; 4];
        if !crypto::random(random.as_flattened_mut()) {
            return Err(io::Error::other("the kernel has no random bytes to give"));
        }
        let [mask, names, unique, site] = &random;
        let site = u128::from_ne_bytes(*site) as u32;
        let temporary = format!("control.{:032x}", u128::from_ne_bytes(*unique));
        let placed = files::create_zeroed(dir, &temporary, SIZE, dir.access()).and_then(|file| {
            let page = SharedPage::<ControlPage>::map(&file)?;
            let created = clock::micros();
            page.superblock.init(created, mask, names, site);
            page.epoch.store(1, Ordering::Relaxed);
            // Numbers start at the microsecond of creation: generations left by an earlier control file are never met again.
            page.generation.store(created << 1, Ordering::Relaxed);
            // Any number but one that a session of an earlier control file has noted.
            page.flushes.store(created, Ordering::Relaxed);
            page.set_wanted(shape);
            page.boot.store(dir.boot().map_or(0, BootId::number), Ordering::Relaxed);
            place(&temporary, "control")
        });
        crypto::cleanse(random.as_flattened_mut());
        let _ = dir.remove(&temporary);
        placed
    }

    /// Maps the file.
    pub(crate) fn open(dir: &OpenDirectory<'_>) -> Result<Control, Unusable> {
        Control::map(dir.open("control"), SharedPage::map)
    }

    /// Maps the file for looking only: whatever changes it is a fault.
    pub(crate) fn view(dir: &OpenDirectory<'_>) -> Result<Control, Unusable> {
        Control::map(dir.open_to_read("control"), SharedPage::map_to_read)
    }

    fn map(file: io::Result<File>, map: fn(&File) -> io::Result<SharedPage<ControlPage>>) -> Result<Control, Unusable> {
        let file = match file {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(Unusable::Missing),
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ELOOP)) => return Err(Unusable::Damaged),
            Err(e) => return Err(Unusable::System(e)),
        };
        let meta = file.metadata().map_err(Unusable::System)?;
        if meta.len() != SIZE as u64 {
            // Another version may have another size: its first words tell, read without a mapping.
            return Err(other_version(&file).map_or(Unusable::Damaged, Unusable::Format));
        }
        let page = map(&file).map_err(Unusable::System)?;
        page.superblock.verify()?;
        if !page.wanted().is_sane() {
            return Err(Unusable::Damaged);
        }
        let (mask, names) = (bytes(&page.superblock.mask), bytes(&page.superblock.names));
        let site = page.superblock.site.get() as u32;
        Ok(Control { page, identity: (meta.dev(), meta.ino()), mask, names, site })
    }

    /// Whether both are mappings of one file.
    pub(super) fn is_same_file(&self, other: &Control) -> bool {
        self.identity == other.identity
    }

    /// Whether the file under that name is still the mapped one.
    pub(crate) fn is_current_file(&self, dir: &Dir) -> bool {
        dir.stat("control").is_ok_and(|found| found.file() == self.identity)
    }

    /// The boot of the machine, as this process knows it or as others have noted it.
    pub(crate) fn boot(&self, known: Option<BootId>) -> Option<BootId> {
        known.or_else(|| BootId::noted(self.page.boot.load(Ordering::Relaxed)))
    }

    /// Notes the boot for those who cannot tell.
    pub(crate) fn note_boot(&self, known: Option<BootId>) {
        if let Some(boot) = known.filter(|boot| self.page.boot.load(Ordering::Relaxed) != boot.number()) {
            self.page.boot.store(boot.number(), Ordering::Relaxed);
        }
    }

    /// Whether another file is there in its place, or none. A directory that is out of reach since the process changed its
    /// root or its user says neither: what is open goes on.
    pub(crate) fn is_replaced(&self, directory: &Path) -> bool {
        match fs::symlink_metadata(directory.join("control")) {
            Ok(meta) => (meta.dev(), meta.ino()) != self.identity,
            Err(e) => e.kind() == io::ErrorKind::NotFound && directory.exists(),
        }
    }

    /// Changes whenever there is something to look at again.
    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        self.page.epoch.load(Ordering::Acquire)
    }

    /// Makes every process look again.
    pub(crate) fn bump(&self) {
        self.page.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// How often the keys, or the control file itself, were seen to be replaced.
    pub(super) fn replaced(&self) -> u64 {
        self.page.replaced.load(Ordering::Acquire)
    }

    /// Notes that they are, and makes every process look again.
    pub(super) fn note_replaced(&self) {
        self.page.replaced.fetch_add(1, Ordering::AcqRel);
        self.bump();
    }

    /// The current generation.
    pub(crate) fn current(&self) -> Current {
        let word = self.page.generation.load(Ordering::Acquire);
        Current { number: word >> 1, keep: word & 1 == 1 }
    }

    /// Replaces the current generation, if it is still `from`.
    pub(crate) fn switch(&self, from: Current, to: Current) -> bool {
        let word = |c: Current| c.number << 1 | u64::from(c.keep);
        let done =
            self.page.generation.compare_exchange(word(from), word(to), Ordering::AcqRel, Ordering::Acquire).is_ok();
        if done {
            self.bump();
        }
        done
    }

    /// When the file was made, in microseconds since 1970.
    pub(crate) fn created(&self) -> u64 {
        self.page.superblock.created.get()
    }

    /// What the next generation is to be like.
    pub(crate) fn wanted(&self) -> Shape {
        self.page.wanted()
    }

    /// Sets what the next generation is to be like.
    pub(crate) fn want(&self, shape: Shape) {
        self.page.set_wanted(shape);
        self.bump();
    }

    /// How often the store was flushed.
    pub(crate) fn flushes(&self) -> Flushes {
        Flushes(self.page.flushes.load(Ordering::Acquire) as u16 & Flushes::MASK)
    }

    /// The same, in all its bits.
    pub(super) fn flush_number(&self) -> u64 {
        self.page.flushes.load(Ordering::Acquire)
    }

    /// The second of the last flush.
    pub(crate) fn flushed_at(&self) -> u64 {
        self.page.flushed_at.load(Ordering::Relaxed)
    }

    /// Notes a flush, before there is anything to see of it: what is stored where the flush is seen has seen this.
    pub(crate) fn note_flush(&self) {
        self.page.flushed_at.fetch_max(clock::seconds(), Ordering::Relaxed);
        self.page.flushes.fetch_add(1, Ordering::AcqRel);
        self.page.tombstones.forget_moment();
    }

    /// Says that no flush counts any more by its time: the clock has been set back behind the last one.
    pub(crate) fn forget_time_of_flush(&self) {
        self.page.flushed_at.store(0, Ordering::Relaxed);
    }

    /// The logins that were ended.
    pub(crate) fn tombstones(&self) -> &Tombstones {
        &self.page.tombstones
    }

    /// Notes how long a session lives after its full handshake, in seconds.
    pub(super) fn note_life(&self, seconds: u64) {
        if seconds > self.page.longest.get() {
            self.page.longest.set(seconds);
        }
    }

    /// How long one lived at most, of all that were put, in seconds.
    pub(super) fn longest(&self) -> u64 {
        self.page.longest.get()
    }

    /// Whether it is time to look for dead readers: true for one caller in `pause` milliseconds, of all processes.
    pub(crate) fn reader_check_is_due(&self, pause: u64) -> bool {
        is_due(&self.page.reader_check, pause)
    }

    /// Whether it is time for a round of maintenance, in the same way.
    pub(crate) fn round_is_due(&self, pause: u64) -> bool {
        is_due(&self.page.round, pause)
    }

    /// Notes how the newest records opened.
    pub(crate) fn note_trial(&self, trial: NotedTrial) {
        self.page.trial.store(trial.word(), Ordering::Relaxed);
    }

    /// How the newest records opened when a process last tried.
    pub(crate) fn trial(&self) -> Option<NotedTrial> {
        NotedTrial::of(self.page.trial.load(Ordering::Relaxed))
    }

    /// A shard for a new thread.
    pub(crate) fn shard(&self) -> usize {
        self.page.next_shard.fetch_add(1, Ordering::Relaxed) as usize % SHARDS
    }

    /// Counts, for a thread that has no shard of its own.
    pub(crate) fn count(&self, counter: Counter, n: u64) {
        self.page.counters.add(process::incarnation() as usize, counter, n);
    }

    /// What all processes have counted.
    #[inline]
    pub(crate) fn counters(&self) -> &Counters {
        &self.page.counters
    }
}

fn is_due(last: &AtomicU64, pause: u64) -> bool {
    let now = clock::wall_millis();
    let then = last.load(Ordering::Relaxed);
    // A moment that lies ahead is of a clock that was set back since: count it as long ago.
    (then > now || now - then >= pause)
        && last.compare_exchange(then, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

fn other_version(file: &File) -> Option<u32> {
    use std::os::unix::fs::FileExt;
    let mut start = [0_u8; 12];
    file.read_exact_at(&mut start, 0).ok()?;
    let format = u32::from_ne_bytes(start[8..].try_into().ok()?);
    (start[..8] == MAGIC && format != FORMAT).then_some(format)
}
