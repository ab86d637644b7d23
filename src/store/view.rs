//! A store seen from outside: nothing is created, changed or repaired, and nobody who works with it is held up.
//!
//! The only thing that is written is a reader slot, which LMDB needs to keep the pages of a snapshot. Snapshots last for
//! a batch of records, never while a caller works with them.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::control::{Control, Current, Shape, Unusable};
use super::directory::Directory;
use super::env::{Fault, Reader, Slot, Txn};
use super::generation::{Broken, Generation};
use super::id::{Key, Mask, OUTSIDERS, TIMES};
use super::lookup::{copy_record, hash_namespace, narrow_hash};
use super::record::{self, flags, Header};
use super::seal::Keys;
pub(crate) use super::seal::Sealer;
use super::{unusable_error, Namespace, ATTEMPTS};
use crate::stats::{Stats, COUNTERS, GAUGES};
use crate::status::{Error, Result, Status};
use crate::sys::{clock, files};

/// Entries looked at in one snapshot to find the first session that has not expired.
const EXPIRED_AT_FRONT: usize = 10_000;

/// A store as it is at this moment.
pub(crate) struct View {
    pub(crate) dir: Directory,
    control: Control,
    current: Current,
    /// The current generation, then the one before if it is still read. Empty before the first session.
    pub(crate) looks: Vec<Look>,
    /// What is wrong with the current generation, in words.
    pub(crate) damage: Option<String>,
}

/// A generation looked into. Fields are dropped in this order: the reader, the environment, and only then a descriptor
/// of the lock file, because closing one ends all POSIX locks that this process has on it.
pub(crate) struct Look {
    reader: Option<Reader>,
    pub(crate) generation: Generation,
    locks: File,
}

/// Where a walk through all records is.
#[derive(Clone, Copy, Default)]
pub(crate) struct Spot {
    look: usize,
    after: Option<Key>,
}

/// A record met on a walk.
pub(crate) struct Found {
    pub(crate) key: Key,
    pub(crate) generation: u64,
    /// `None` when there is no header to be read: the record is damaged.
    pub(crate) header: Option<Header>,
    /// Whether a lookup may return it: it has not expired, and no clock that was ahead made it.
    pub(crate) alive: bool,
    /// Bytes of the whole record.
    pub(crate) bytes: usize,
}

/// What became of an attempt to open a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seal {
    /// It opened.
    Whole,
    /// Removed or replaced since it was met.
    Gone,
    /// It belongs to a namespace that was not named and is not in the generation's table, so its seal cannot be proven.
    OtherNamespace,
    /// Its sealing key is not among the keys.
    KeyGone,
    /// It is not what was sealed.
    Damaged,
}

impl View {
    /// Looks at the store in `path`, which must be there.
    pub(crate) fn open(path: &Path, key: Option<&Path>) -> Result<View> {
        let dir = Directory::existing(path, key)?;
        for _ in 0..ATTEMPTS {
            let control = Control::view(&dir.path).map_err(|unusable| match unusable {
                Unusable::Missing => Error::new(
                    Status::NotFound,
                    format!("there is no store in {}: it has no control file", dir.path.display()),
                ),
                unusable => unusable_error(&dir, unusable),
            })?;
            let current = control.current();
            let (mut looks, mut damage) = (Vec::new(), None);
            match Look::open(&dir, current.number) {
                Ok(look) => looks.push(look),
                Err(Broken::Gone) if control.current() != current => continue,
                // Before the first session, and after a reboot.
                Err(Broken::Gone) => {}
                Err(Broken::Damaged(what)) => damage = Some(what),
                Err(Broken::Refused(error)) => return Err(error),
            }
            if current.keep {
                looks.extend(Look::open(&dir, current.number - 1).ok());
            }
            return Ok(View { dir, control, current, looks, damage });
        }
        Err(Error::new(Status::Busy, "the store changes faster than it can be opened"))
    }

    /// Whether there is something else to look at.
    pub(crate) fn is_outdated(&self) -> bool {
        self.control.current() != self.current || !self.control.is_current_file(&self.dir.path) || self.looks.is_empty()
    }

    /// Everything in the table of `stats.rs`.
    pub(crate) fn stats(&mut self) -> Result<Stats> {
        let mut all = [0; GAUGES + COUNTERS];
        all[2] = self.shape().capacity;
        all[3] = self.current.number;
        all[GAUGES..].copy_from_slice(&self.control.counters().total());
        for look in &mut self.looks {
            let page = look.generation.env.page as u64;
            let (entries, pages) = look.read(|txn| Ok((txn.entries()?, txn.used_pages()?)))?;
            // One entry is the sentinel.
            all[0] += entries.saturating_sub(1) as u64;
            all[1] += pages as u64 * page;
        }
        Ok(Stats(all))
    }

    /// The counters about a minute ago, and how long ago that is in milliseconds.
    pub(crate) fn a_minute_ago(&self) -> Option<(u64, [u64; COUNTERS])> {
        self.control.counters().a_minute_ago()
    }

    /// What the current generation is like, or the first one is going to be.
    pub(crate) fn shape(&self) -> Shape {
        self.looks
            .first()
            .filter(|look| look.generation.number == self.current.number)
            .map_or(self.control.wanted(), |look| look.generation.page().shape())
    }

    /// Number of the current generation.
    pub(crate) fn current(&self) -> u64 {
        self.current.number
    }

    /// The first and the last session in the order of their expiry, of those that have not expired.
    pub(crate) fn ends(&mut self) -> Result<Option<(Found, Found)>> {
        let mut ends: Option<(Found, Found)> = None;
        for look in &mut self.looks {
            let when = look.when();
            let found = look.read(|txn| {
                let mut first = None;
                let mut looked = 0;
                txn.walk(TIMES, |key, value| {
                    looked += 1;
                    first = head(key, value, when).filter(|found| found.alive);
                    first.is_none() && looked < EXPIRED_AT_FRONT
                })?;
                let last = txn.last(|key, _| Key::read(key.get(..super::id::ID)?))?.flatten();
                let last = match last.filter(|key| key.expiry().is_some()) {
                    Some(key) => txn.get(key.bytes())?.and_then(|value| head(key.bytes(), value, when)),
                    None => None,
                };
                Ok(first.zip(last))
            })?;
            let Some((first, last)) = found else { continue };
            ends = Some(match ends {
                None => (first, last),
                Some((a, b)) => (
                    if first.key.bytes() < a.key.bytes() { first } else { a },
                    if last.key.bytes() > b.key.bytes() { last } else { b },
                ),
            });
        }
        Ok(ends)
    }

    /// The next records after `spot`, at most `most`; none at the end.
    pub(crate) fn batch(&mut self, spot: &mut Spot, most: usize) -> Result<Vec<Found>> {
        while let Some(look) = self.looks.get_mut(spot.look) {
            let when = look.when();
            let after = spot.after;
            let found = look.read(|txn| {
                let mut found: Vec<Found> = Vec::new();
                let from = after.as_ref().map_or(OUTSIDERS, |key| key.bytes());
                txn.walk(from, |key, value| {
                    if after.as_ref().is_some_and(|after| after.bytes() == key) {
                        return true;
                    }
                    match head(key, value, when) {
                        Some(_) if found.len() == most => return false,
                        Some(head) => found.push(head),
                        None => {
                            if let Some(last) = found.last_mut().filter(|last| key.starts_with(last.key.bytes())) {
                                last.bytes += value.len();
                            }
                        }
                    }
                    true
                })?;
                Ok(found)
            })?;
            match found.last() {
                Some(last) => {
                    spot.after = Some(last.key);
                    return Ok(found);
                }
                None => *spot = Spot { look: spot.look + 1, after: None },
            }
        }
        Ok(Vec::new())
    }

    /// The id under which a record was stored.
    pub(crate) fn id_of(&self, key: &Key) -> Option<Vec<u8>> {
        Mask::new(&self.control.mask).id_of(key)
    }

    /// The namespace as it stands in seals and headers.
    pub(crate) fn namespace(&self, name: &str) -> (u64, u32) {
        hash_namespace(&self.control.names, Namespace(name))
    }

    /// What opens records, from the key file.
    pub(crate) fn sealer(&self) -> Result<Sealer> {
        Ok(Sealer::new(Keys::load(&self.dir)?))
    }

    /// Opens a record into `plain`, which holds a secret afterwards. `names` are namespaces that it may belong to, besides
    /// those that the generation knows.
    pub(crate) fn unseal(
        &mut self,
        found: &Found,
        names: &[(u64, u32)],
        sealer: &mut Sealer,
        plain: &mut Vec<u8>,
    ) -> Result<Seal> {
        let Some(look) = self.looks.iter_mut().find(|look| look.generation.number == found.generation) else {
            return Ok(Seal::Gone);
        };
        let mut bytes = Vec::with_capacity(found.bytes);
        if !look.read(|txn| copy_record(txn, &found.key, &mut bytes))? {
            return Ok(Seal::Gone);
        }
        let Some(record) = record::parse(&bytes) else { return Ok(Seal::Damaged) };
        let narrow = record.header.namespace;
        if !sealer.has_key(record.header.key_number) {
            return Ok(Seal::KeyGone);
        }
        let named = names.iter().filter(|name| name.1 == narrow).map(|name| name.0);
        let noted = look.generation.page().namespace(narrow).filter(|wide| narrow_hash(*wide) == narrow);
        let mut known = named.chain(noted).peekable();
        if known.peek().is_none() {
            return Ok(Seal::OtherNamespace);
        }
        let whole = known.any(|wide| sealer.open(&record, (found.key.bytes(), wide), plain));
        Ok(if whole { Seal::Whole } else { Seal::Damaged })
    }
}

impl Look {
    fn open(dir: &Directory, number: u64) -> Result<Look, Broken> {
        let lock = dir.generation(number).join("lock.mdb");
        let locks = files::open_to_read(&lock).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Broken::Gone,
            _ => Broken::Refused(Error::system(format_args!("cannot open {}", lock.display()), &e)),
        });
        // A lock file that is missing beside a data file is damage, which `view` finds.
        match (Generation::view(dir, number), locks) {
            (Ok(generation), Ok(locks)) => Ok(Look { reader: None, generation, locks }),
            (Err(broken), _) | (Ok(_), Err(broken)) => Err(broken),
        }
    }

    fn read<T>(&mut self, mut f: impl FnMut(&mut Txn) -> Result<T, Fault>) -> Result<T> {
        let mut read = || {
            if self.reader.is_none() {
                self.reader = Some(Reader::new(&self.generation.env)?);
            }
            match &mut self.reader {
                Some(reader) => reader.read(&mut f).and_then(|done| done),
                None => Err(Fault::ReadersFull),
            }
        };
        let done = match read() {
            // LMDB publishes a reader before it has the root: two commits in between can look like a missing page.
            Err(Fault::Damaged(_)) => read(),
            other => other,
        };
        done.map_err(|fault| match fault {
            Fault::Damaged(_) => Error::new(Status::Format, format!("the store is {}", fault.text())),
            Fault::PidClash | Fault::SlotsHeld { .. } => {
                Error::new(Status::Busy, format!("{}; run it again", fault.text()))
            }
            fault => Error::new(Status::System, format!("cannot read the store: {}", fault.text())),
        })
    }

    fn when(&self) -> When {
        let now = clock::coarse_micros();
        When { generation: self.generation.number, now, horizon: self.generation.page().horizon(now) }
    }

    /// The reader slots taken by other processes, each with whether its process lives: the number under which it is
    /// known here, or 0 when it is in another PID namespace.
    pub(crate) fn slots(&self) -> Result<Vec<(Slot, Option<i32>)>> {
        let slots = self.generation.env.slots().map_err(|fault| Error::new(Status::System, fault.text()))?;
        let me = std::process::id() as i32;
        let alive = |slot: &Slot| files::lock_holder(&self.locks, i64::from(slot.pid)).unwrap_or(Some(slot.pid));
        Ok(slots.into_iter().filter(|slot| slot.pid != me).map(|slot| (slot, alive(&slot))).collect())
    }

    /// The data file, its size and the bytes that it occupies.
    pub(crate) fn file(&self) -> (PathBuf, u64, u64) {
        let meta = fs::metadata(&self.generation.data);
        let sizes = meta.map_or((0, 0), |meta| (meta.len(), meta.blocks() * 512));
        (self.generation.data.clone(), sizes.0, sizes.1)
    }
}

/// A generation at a moment: what tells which of its records are alive.
#[derive(Clone, Copy)]
struct When {
    generation: u64,
    now: u64,
    horizon: u64,
}

/// A record by its first entry; `None` for a continuation.
fn head(key: &[u8], value: &[u8], when: When) -> Option<Found> {
    let key = Key::read(key).filter(Key::is_head)?;
    let header = Header::read(value);
    let alive = header.is_none_or(|header| header.is_alive(when.now, when.horizon));
    Some(Found { key, generation: when.generation, header, alive, bytes: value.len() })
}

pub(crate) use super::env::lmdb_version;

/// What `doctor` looks at besides a view.
pub(crate) mod parts {
    pub(crate) use super::super::directory::Directory;
    pub(crate) use super::super::seal::Keys;
}

/// Whether a header is that of an application's own record.
pub(crate) fn is_opaque(header: &Header) -> bool {
    header.has(flags::OPAQUE)
}
