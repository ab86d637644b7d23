//! The control file: one shared page of what all processes agree on, and the counters.
//!
//! It is created whole under another name and linked into place, so nobody ever sees half of one. It is never repaired:
//! a damaged one is replaced, with a generation number that no older one had.

use std::fs;
use std::io::{self, Write};
use std::mem::{offset_of, size_of};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::id::siphash;
use super::revocation::Flushes;
use super::tombstones::Tombstones;
use crate::options::{CAPACITY_LIMITS, READERS_LIMITS};
use crate::stats::{Counter, COUNTERS};
use crate::sys::files::{self, Access, Mapping};
use crate::sys::{clock, crypto, process};

const MAGIC: [u8; 8] = *b"sesscach";
/// Version of the layout below.
pub(crate) const FORMAT: u32 = 2;
/// Counter shards: threads spread over them, so that counting is no fight for a cache line.
const SHARDS: usize = 32;
/// Readings of the counters that are kept: one in so many milliseconds, for a little over a minute.
const READINGS: usize = 14;
const READING_EVERY: u64 = 5_000;
/// Sealing keys that a key file may have.
pub(crate) const KEYS: usize = 16;
/// Bytes of the file.
pub(crate) const SIZE: usize = size_of::<Page>();

/// What never changes in the life of a control file.
#[repr(C)]
#[derive(Clone, Copy)]
struct Fixed {
    magic: [u8; 8],
    format: u32,
    size: u32,
    /// Microseconds since 1970.
    created: u64,
    /// Architecture, C library and page size: processes that differ in these cannot share mutexes or maps.
    platform: u64,
    /// Secret under which ids are made.
    mask: [u8; 16],
    /// Secret under which names are hashed.
    names: [u8; 16],
    /// Of all the above: tells a damaged page from a whole one.
    check: u64,
}

#[repr(C, align(64))]
struct Shard([AtomicU64; COUNTERS]);

/// What the counters were at a moment.
#[repr(C)]
struct Reading {
    /// In ticks; 0 while it is being written.
    at: AtomicU64,
    counters: [AtomicU64; COUNTERS],
}

#[repr(C, align(64))]
struct Page {
    fixed: Fixed,
    /// Changes whenever a process must look again: one load per operation.
    epoch: AtomicU64,
    /// Current generation's number << 1 | whether the one before it is still readable.
    generation: AtomicU64,
    /// What the next generation is to be like.
    capacity: AtomicU64,
    readers: AtomicU32,
    guard: AtomicU32,
    next_shard: AtomicU32,
    _reserved: u32,
    /// Ticks of the last look for dead readers and of the last round of maintenance, by any process.
    reader_check: AtomicU64,
    round: AtomicU64,
    shards: [Shard; SHARDS],
    /// A ring by the time of day.
    readings: [Reading; READINGS],
    /// How often the store was flushed, and the second of the last time.
    flushes: AtomicU64,
    flushed_at: AtomicU64,
    /// Numbers of the sealing keys in the key file, each plus 1; what follows the last is 0.
    keys: [AtomicU32; KEYS],
    tombstones: Tombstones,
}

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
    page: &'static Page,
    mapping: Mapping,
    process: u64,
    identity: (u64, u64),
    pub(crate) mask: [u8; 16],
    pub(crate) names: [u8; 16],
}

impl Fixed {
    fn check(&self) -> u64 {
        let mut bytes = Vec::with_capacity(64);
        bytes.extend_from_slice(&self.magic);
        bytes.extend_from_slice(&self.format.to_ne_bytes());
        bytes.extend_from_slice(&self.size.to_ne_bytes());
        bytes.extend_from_slice(&self.created.to_ne_bytes());
        bytes.extend_from_slice(&self.platform.to_ne_bytes());
        bytes.extend_from_slice(&self.mask);
        bytes.extend_from_slice(&self.names);
        siphash(0, 0, &bytes)
    }
}

impl Control {
    /// Creates the file unless it is there. Two processes at once: one of them wins, both go on with its file.
    pub(crate) fn create(directory: &Path, shape: Shape, access: Access) -> io::Result<()> {
        Self::publish(directory, shape, access, |from, to| match fs::hard_link(from, to) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        })
    }

    /// Puts a new file in the place of a damaged one.
    pub(crate) fn replace(directory: &Path, shape: Shape, access: Access) -> io::Result<()> {
        Self::publish(directory, shape, access, |from, to| fs::rename(from, to))
    }

    fn publish(
        directory: &Path,
        shape: Shape,
        access: Access,
        place: impl Fn(&Path, &Path) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut secret = [0_u8; 48];
        if !crypto::random(&mut secret) {
            return Err(io::Error::other("the kernel has no random bytes to give"));
        }
        let created = clock::micros();
        let mut fixed = Fixed {
            magic: MAGIC,
            format: FORMAT,
            size: SIZE as u32,
            created,
            platform: platform_hash(),
            mask: secret[..16].try_into().expect("16 bytes"),
            names: secret[16..32].try_into().expect("16 bytes"),
            check: 0,
        };
        fixed.check = fixed.check();
        let mut bytes = vec![0_u8; SIZE];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(offset_of!(Fixed, magic), &fixed.magic);
        put(offset_of!(Fixed, format), &fixed.format.to_ne_bytes());
        put(offset_of!(Fixed, size), &fixed.size.to_ne_bytes());
        put(offset_of!(Fixed, created), &fixed.created.to_ne_bytes());
        put(offset_of!(Fixed, platform), &fixed.platform.to_ne_bytes());
        put(offset_of!(Fixed, mask), &fixed.mask);
        put(offset_of!(Fixed, names), &fixed.names);
        put(offset_of!(Fixed, check), &fixed.check.to_ne_bytes());
        put(offset_of!(Page, epoch), &1_u64.to_ne_bytes());
        // Numbers start at the microsecond of creation: generations left by an earlier control file are never met again.
        put(offset_of!(Page, generation), &(created << 1).to_ne_bytes());
        put(offset_of!(Page, capacity), &shape.capacity.to_ne_bytes());
        put(offset_of!(Page, readers), &shape.readers.to_ne_bytes());
        // Any number but one that a session of an earlier control file has noted.
        put(offset_of!(Page, flushes), &created.to_ne_bytes());
        put(offset_of!(Page, guard), &u32::from(shape.guard).to_ne_bytes());

        let temporary =
            directory.join(format!("control.{:016x}", u64::from_ne_bytes(secret[32..40].try_into().expect("8 bytes"))));
        crypto::cleanse(&mut secret);
        let allowed = files::within_file_limit(bytes.len() as u64);
        let written =
            allowed.and_then(|()| files::create(&temporary, access)).and_then(|mut file| file.write_all(&bytes));
        let placed = written.and_then(|()| place(&temporary, &directory.join("control")));
        let _ = fs::remove_file(&temporary);
        placed
    }

    /// Maps the file.
    pub(crate) fn open(directory: &Path) -> Result<Control, Unusable> {
        Control::map(directory, files::open, files::map_shared)
    }

    /// Maps the file for looking only: whatever changes it is a fault.
    pub(crate) fn view(directory: &Path) -> Result<Control, Unusable> {
        Control::map(directory, files::open_to_read, files::map_to_read)
    }

    fn map(
        directory: &Path,
        open: fn(&Path) -> io::Result<fs::File>,
        map: fn(&fs::File, usize) -> io::Result<Mapping>,
    ) -> Result<Control, Unusable> {
        let file = match open(&directory.join("control")) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(Unusable::Missing),
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ELOOP)) => return Err(Unusable::Damaged),
            Err(e) => return Err(Unusable::System(e)),
        };
        let meta = file.metadata().map_err(Unusable::System)?;
        if meta.len() < size_of::<Fixed>() as u64 {
            return Err(Unusable::Damaged);
        }
        if meta.len() != SIZE as u64 {
            // Another version may have another size: its first words tell, read without a mapping.
            return Err(other_version(&file).map_or(Unusable::Damaged, Unusable::Format));
        }
        let mapping = map(&file, SIZE).map_err(Unusable::System)?;
        // SAFETY: the mapping is page-aligned, SIZE bytes long, and every bit pattern is a valid Page (integers only);
        // it is unmapped in Drop alone, which ends all use of the reference.
        let page: &'static Page = unsafe { &*mapping.start.cast::<Page>() };
        let control = Control {
            page,
            mapping,
            process: process::incarnation(),
            identity: (meta.dev(), meta.ino()),
            mask: page.fixed.mask,
            names: page.fixed.names,
        };
        let fixed = &page.fixed;
        if fixed.magic != MAGIC || fixed.check != fixed.check() || fixed.size as usize != SIZE {
            return Err(Unusable::Damaged);
        }
        if fixed.format != FORMAT {
            return Err(Unusable::Format(fixed.format));
        }
        if fixed.platform != platform_hash() {
            return Err(Unusable::Platform);
        }
        if !control.wanted().is_sane() {
            return Err(Unusable::Damaged);
        }
        Ok(control)
    }

    /// Whether the file under that name is still the mapped one.
    pub(crate) fn is_current_file(&self, directory: &Path) -> bool {
        fs::symlink_metadata(directory.join("control")).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.identity)
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

    /// What the next generation is to be like.
    pub(crate) fn wanted(&self) -> Shape {
        Shape {
            capacity: self.page.capacity.load(Ordering::Relaxed),
            readers: self.page.readers.load(Ordering::Relaxed),
            guard: self.page.guard.load(Ordering::Relaxed) != 0,
        }
    }

    /// Sets what the next generation is to be like.
    pub(crate) fn want(&self, shape: Shape) {
        self.page.capacity.store(shape.capacity, Ordering::Relaxed);
        self.page.readers.store(shape.readers, Ordering::Relaxed);
        self.page.guard.store(u32::from(shape.guard), Ordering::Relaxed);
        self.bump();
    }

    /// How often the store was flushed.
    pub(crate) fn flushes(&self) -> Flushes {
        Flushes(self.page.flushes.load(Ordering::Acquire) as u16 & Flushes::MASK)
    }

    /// The second of the last flush.
    pub(crate) fn flushed_at(&self) -> u64 {
        self.page.flushed_at.load(Ordering::Relaxed)
    }

    /// Notes a flush, before there is anything to see of it: what is stored where the flush is seen has seen this.
    pub(crate) fn note_flush(&self) {
        self.page.flushed_at.fetch_max(clock::seconds(), Ordering::Relaxed);
        self.page.flushes.fetch_add(1, Ordering::AcqRel);
    }

    /// The logins that were ended.
    pub(crate) fn tombstones(&self) -> &Tombstones {
        &self.page.tombstones
    }

    /// Whether the key file has a key of this number. A process that cannot look into the file any more goes by those that can.
    #[inline]
    pub(crate) fn has_key(&self, number: u16) -> bool {
        let mut keys =
            self.page.keys.iter().map(|key| key.load(Ordering::Relaxed)).take_while(|key| *key != 0).peekable();
        keys.peek().is_none() || keys.any(|key| key == u32::from(number) + 1)
    }

    /// Notes the numbers of the keys in the key file.
    pub(crate) fn set_keys(&self, numbers: impl Iterator<Item = u16>) {
        let numbers = numbers.map(|number| u32::from(number) + 1).chain(std::iter::repeat(0));
        self.page.keys.iter().zip(numbers).for_each(|(key, number)| key.store(number, Ordering::Relaxed));
    }

    /// Whether it is time to look for dead readers: true for one caller in `pause` milliseconds, of all processes.
    pub(crate) fn reader_check_is_due(&self, pause: u64) -> bool {
        is_due(&self.page.reader_check, pause)
    }

    /// Whether it is time for a round of maintenance, in the same way.
    pub(crate) fn round_is_due(&self, pause: u64) -> bool {
        is_due(&self.page.round, pause)
    }

    /// A shard for a new thread.
    pub(crate) fn shard(&self) -> usize {
        self.page.next_shard.fetch_add(1, Ordering::Relaxed) as usize % SHARDS
    }

    /// Counts.
    #[inline]
    pub(crate) fn count(&self, shard: usize, counter: Counter, n: u64) {
        self.page.shards[shard % SHARDS].0[counter as usize].fetch_add(n, Ordering::Relaxed);
    }

    /// Keeps a reading of the counters when one is due. Called every second or so while there is traffic; while there is
    /// none, nothing is counted either.
    pub(crate) fn keep_reading(&self) {
        let now = clock::ticks();
        let reading = &self.page.readings[(now / READING_EVERY) as usize % READINGS];
        let at = reading.at.load(Ordering::Relaxed);
        if at / READING_EVERY == now / READING_EVERY
            || reading.at.compare_exchange(at, 0, Ordering::Acquire, Ordering::Relaxed).is_err()
        {
            return;
        }
        for (kept, counter) in reading.counters.iter().zip(self.counters()) {
            kept.store(counter, Ordering::Relaxed);
        }
        reading.at.store(now, Ordering::Release);
    }

    /// The counters as they were a minute ago, or as long ago as is known if that is less: with how long ago, in
    /// milliseconds. `None` when nothing was counted for long, or not yet.
    pub(crate) fn a_minute_ago(&self) -> Option<(u64, [u64; COUNTERS])> {
        const MINUTE: u64 = 60_000;
        let now = clock::ticks();
        let read = |reading: &Reading| {
            let at = reading.at.load(Ordering::Acquire);
            let counters = std::array::from_fn(|n| reading.counters[n].load(Ordering::Relaxed));
            // Written meanwhile, or of an earlier boot: of no use.
            let whole = at != 0 && at <= now && reading.at.load(Ordering::Acquire) == at;
            whole.then(|| (now - at, counters))
        };
        let all: Vec<_> = self.page.readings.iter().filter_map(read).collect();
        let before = all.iter().filter(|(age, _)| *age >= MINUTE).min_by_key(|(age, _)| *age);
        // From a reading to the next nothing was counted, so an older one holds for a minute ago as well.
        let before = before.map(|(_, counters)| (MINUTE, *counters));
        before.or_else(|| all.iter().max_by_key(|(age, _)| *age).copied())
    }

    /// The sum of all shards.
    pub(crate) fn counters(&self) -> [u64; COUNTERS] {
        let mut sum = [0_u64; COUNTERS];
        for shard in &self.page.shards {
            for (sum, counter) in sum.iter_mut().zip(&shard.0) {
                *sum = sum.wrapping_add(counter.load(Ordering::Relaxed));
            }
        }
        sum
    }
}

fn is_due(last: &AtomicU64, pause: u64) -> bool {
    let now = clock::ticks();
    let then = last.load(Ordering::Relaxed);
    // A tick from before a reboot lies ahead: count it as long ago.
    (then > now || now - then >= pause)
        && last.compare_exchange(then, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

/// Names what processes must have in common to share a store.
pub(crate) fn platform() -> String {
    let libc = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
    format!("{}-{}-{}", std::env::consts::ARCH, libc, files::page_size())
}

fn platform_hash() -> u64 {
    siphash(0, 0, platform().as_bytes())
}

fn other_version(file: &fs::File) -> Option<u32> {
    use std::os::unix::fs::FileExt;
    let mut start = [0_u8; 12];
    file.read_exact_at(&mut start, 0).ok()?;
    let format = u32::from_ne_bytes(start[8..].try_into().ok()?);
    (start[..8] == MAGIC && format != FORMAT).then_some(format)
}

impl Drop for Control {
    fn drop(&mut self) {
        if self.process == process::incarnation() {
            // SAFETY: the page reference is a private field of the value that ends here.
            unsafe { files::unmap(self.mapping) };
        }
    }
}

// SAFETY: the mapping is shared memory made for concurrent use; all changing fields are atomics.
unsafe impl Send for Control {}
// SAFETY: as above.
unsafe impl Sync for Control {}
