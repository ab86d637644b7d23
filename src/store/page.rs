//! The page of a generation: what its processes tell each other beside LMDB's files. The file is named `gate`.
//!
//! Anybody may write anything into it: what is read there is a hint, or is checked.

use std::sync::atomic::{AtomicU32, Ordering};

use super::boot::BootId;
use super::control::{Shape, FORMAT};
use super::held::Held;
use super::siphash::siphash;
use super::usage::{UsageTable, NAMESPACES};
use crate::sys::clock;
use crate::sys::mutex::Apart;
use crate::sys::shared_page::{Shareable, Word};

const MAGIC: [u8; 8] = *b"sessgate";
/// So many deaths inside an operation, within a minute, look like damage that kills.
const DEATHS: usize = 3;
/// A wall clock that is set back by less than so many seconds costs nobody a session.
const SET_BACK: u64 = 3_600;

#[repr(C, align(64))]
pub(crate) struct GenerationPage {
    magic: Word,
    format: AtomicU32,
    readers: AtomicU32,
    capacity: Word,
    guard: Word,
    /// Of all the above: tells a damaged page from a whole one.
    check: Word,
    /// The boot of the machine in which it was made; 0: nobody could tell.
    boot: Word,
    /// Bytes of the data file that have blocks behind them: those that may be written through the map.
    pub(crate) reserved: Word,
    /// When the last record expires, in seconds: after it, nothing here is worth reading.
    pub(crate) newest: Word,
    /// The longest life that a record was ever put with, in seconds.
    pub(crate) longest: Word,
    /// When the first one does, in microseconds, or earlier: tells when to sweep.
    pub(crate) oldest: Word,
    /// Not 0: some records lie outside the time order.
    pub(crate) foreign: Word,
    /// Bytes of each namespace.
    pub(crate) usage: UsageTable,
    /// How often the write lock was taken: tells one holder from the next.
    pub(super) taken: Word,
    /// Until this moment the file need not be checked again, in milliseconds, and which file that is, by its inode.
    trusted: Word,
    trusted_file: Word,
    /// When processes died inside an operation, in milliseconds: the last few of them, in no order.
    deaths: [Word; DEATHS],
    /// Not 0: so many died within so short a time that the file is to be checked.
    suspect: Word,
    /// When the file was checked, in milliseconds.
    trusted_from: Word,
    /// Tells a slow holder of the write lock from a stuck one.
    pub(super) held: Held,
    pub(super) mutex: Apart,
    /// The whole hash of the namespace in each row of `usage`; 0: not known.
    namespaces: [Word; NAMESPACES],
}

// SAFETY: atomics, for which any bytes do, and a mutex that pthread alone changes.
unsafe impl Shareable for GenerationPage {}

impl GenerationPage {
    /// Fills the page of a new generation, all of it zero. The mutex is made apart.
    pub(super) fn init(&self, shape: Shape, boot: Option<BootId>, reserved: u64) {
        self.magic.set(u64::from_ne_bytes(MAGIC));
        self.format.store(FORMAT, Ordering::Relaxed);
        self.readers.store(shape.readers, Ordering::Relaxed);
        self.capacity.set(shape.capacity);
        self.guard.set(u64::from(shape.guard));
        self.check.set(self.checksum());
        self.boot.set(boot.map_or(0, |boot| u64::from(boot.number())));
        self.reserved.set(reserved);
        self.oldest.set(u64::MAX);
    }

    fn checksum(&self) -> u64 {
        let shape = self.shape();
        let fields: [&[u8]; 4] = [
            &self.magic.get().to_ne_bytes(),
            &shape.capacity.to_ne_bytes(),
            &shape.readers.to_ne_bytes(),
            &[u8::from(shape.guard), 0, 0, 0],
        ];
        siphash(0, 0, &fields.concat())
    }

    /// Whether what never changes is as `init` left it, and the shape one that a store can have.
    pub(super) fn is_whole(&self) -> bool {
        self.magic.get() == u64::from_ne_bytes(MAGIC)
            && self.format.load(Ordering::Relaxed) == FORMAT
            && self.check.get() == self.checksum()
            && self.shape().is_sane()
    }

    /// The boot in which it was made, if anybody could tell.
    pub(super) fn boot(&self) -> Option<BootId> {
        BootId::noted(self.boot.get() as u32)
    }

    /// Notes it, where it has come out.
    pub(super) fn note_boot(&self, boot: BootId) {
        self.boot.set(u64::from(boot.number()));
    }

    /// What this generation is like.
    pub(crate) fn shape(&self) -> Shape {
        Shape {
            capacity: self.capacity.get(),
            readers: self.readers.load(Ordering::Relaxed),
            guard: self.guard.is_set(),
        }
    }

    /// Notes that a process died inside an operation: killed by somebody, or by a damaged page.
    pub(crate) fn note_death(&self) {
        let now = clock::wall_millis();
        // The longest ago gives way. Two at the same instant may be noted as one.
        let first = self.deaths.iter().min_by_key(|death| death.get());
        first.inspect(|death| death.set(now));
        self.trust(0, 0);
        let recent = |death: &Word| {
            let at = death.get();
            at != 0 && now.saturating_sub(at) < clock::MINUTE
        };
        if self.deaths.iter().all(recent) {
            self.suspect.set(1);
        }
    }

    /// Whether so many have died that the file is to be checked.
    #[inline]
    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect.is_set()
    }

    /// True for the one who is to check it; the deaths are forgotten then.
    pub(crate) fn claim_suspicion(&self) -> bool {
        let mine = self.suspect.swap(0) != 0;
        if mine {
            self.deaths.iter().for_each(|death| death.set(0));
        }
        mine
    }

    /// Whether the data file of this inode counts as checked. One put in its place does not.
    pub(crate) fn is_trusted(&self, inode: u64) -> bool {
        // A clock that is set back trusts nothing that was noted after it.
        let trusted = self.trusted_from.get()..self.trusted.get();
        self.trusted_file.get() == inode && trusted.contains(&clock::wall_millis())
    }

    /// Notes that it does, for so many milliseconds.
    pub(crate) fn trust(&self, inode: u64, millis: u64) {
        self.trusted_file.set(inode);
        let now = clock::wall_millis();
        self.trusted_from.set(now);
        self.trusted.set(now + millis);
    }

    /// Notes a record that was put, by its expiry.
    pub(crate) fn note_put(&self, micros: u64, seconds: u64) {
        if micros < self.oldest.get() {
            self.oldest.set(micros);
        }
        if seconds > self.newest.get() {
            self.newest.set(seconds);
        }
    }

    /// Notes the life of a record that is about to be put, in seconds.
    pub(crate) fn note_life(&self, seconds: u64) {
        if seconds > self.longest.get() {
            self.longest.set(seconds);
        }
    }

    /// The latest expiry, in microseconds, that a record can have at the moment `now`. One that ends later was put while
    /// the clock was ahead of `now`, and would outlive its time by as much.
    pub(crate) fn horizon(&self, now: u64) -> u64 {
        let longest = self.longest.get().saturating_add(SET_BACK);
        now.saturating_add(longest.saturating_mul(1_000_000))
    }

    /// Notes the whole hash of a namespace, which seals have, beside the half that headers have. Lookups never read it: it
    /// is there for tools, which know no names. Under the write lock only.
    pub(crate) fn note_namespace(&self, (wide, narrow): (u64, u32)) {
        let known = &self.namespaces[self.usage.row(narrow)];
        if known.get() != wide {
            known.set(wide);
        }
    }

    /// The whole hash of a namespace that is in the table. May be that of another one, whose row it was or is to be.
    pub(crate) fn namespace(&self, narrow: u32) -> Option<u64> {
        let row = self.usage.find(narrow)?;
        Some(self.namespaces[row].get()).filter(|wide| *wide != 0)
    }
}
