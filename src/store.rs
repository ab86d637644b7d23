//! The store: records under ids, shared by all processes that opened the directory. Put, get, take, remove, sweep.
//!
//! It knows ids, times, headers and bytes, and nothing of TLS. Every fault inside is a miss or a skipped put with its
//! own counter; nothing here waits longer than the deadline.

mod check;
pub(crate) mod control;
mod counters;
pub(crate) mod directory;
mod env;
mod evict;
mod generation;
pub(crate) mod id;
mod lookup;
mod maintenance;
mod page;
pub(crate) mod record;
pub(crate) mod seal;
pub(crate) mod thread;
mod usage;
pub(crate) mod view;
mod write;
pub(crate) mod write_lock;
mod writer;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use self::control::{Control, Shape, Unusable};
use self::directory::Directory;
use self::generation::{Broken, Generation};
use self::id::Mask;
use self::seal::Keys;
use crate::log::{self, Log, Topic};
use crate::options::{Options, DEFAULT_CAPACITY, DEFAULT_READERS, MAX_TTL};
use crate::stats::{Counter, Stats, COUNTERS, GAUGES};
use crate::status::{Error, Result, Status};
use crate::sys::fork_safe::{Holding, PerProcess, Registry};
use crate::sys::{clock, crypto};

pub(crate) use self::lookup::{Found, Kind as RecordKind, Miss};
pub(crate) use self::record::{flags, Header};

/// Directories that one process can have mapped: more than caches, because a thread that went idle keeps its map.
const STORES_MAX: usize = 256;
/// How long one thread waits for another of its process that is opening the store, which takes less than a millisecond.
const OPENING: Duration = Duration::from_millis(50);
/// After the store could not be opened, nobody tries again for so many milliseconds.
const RETRY: u64 = 1_000;
/// Milliseconds between two looks, by processes that start, for others that died.
const DEATHS: u64 = 1_000;
/// Times a generation that vanishes or is damaged is followed to its successor, in one opening.
const ATTEMPTS: usize = 4;

/// The stores that are open in this process: a second environment on the same files would re-create its live locks.
static REGISTRY: Registry<Store, STORES_MAX> = Registry::new();

/// One directory, as this process and its children know it. What they have open of it is in `opened`.
pub(crate) struct Store {
    dir: Directory,
    deadline: Duration,
    pub(crate) log: Log,
    opened: PerProcess<OpenStore>,
    /// No attempt to open before this tick.
    retry_at: AtomicU64,
    maintenance_at: AtomicU64,
    /// Since when puts have been failing for lack of room, in ticks; 0 when the last one did not.
    full_since: AtomicU64,
}

/// What one process has open. Replaced whole when the control file's epoch moves.
pub(crate) struct OpenStore {
    /// As read when it was opened; 0 when it is to be opened anew whatever the control file says.
    epoch: AtomicU64,
    control: Arc<Control>,
    now: Arc<Generation>,
    /// The generation before, until its last record has expired.
    before: Option<Arc<Generation>>,
    keys: Arc<Keys>,
    mask: Mask,
}

/// Whose record it is: names the namespace in keys and seals.
#[derive(Clone, Copy)]
pub(crate) struct Namespace<'a>(pub(crate) &'a str);

impl OpenStore {
    fn is_current(&self) -> bool {
        self.epoch.load(Ordering::Relaxed) == self.control.epoch()
    }

    /// Whether the host has left the descriptors alone.
    fn has_its_files(&self) -> bool {
        [Some(&self.now), self.before.as_ref()].into_iter().flatten().all(|generation| generation.env.has_its_files())
    }

    /// Whoever uses it next in this process opens the files anew.
    fn retire(&self) {
        self.epoch.store(0, Ordering::Relaxed);
    }
}

impl Store {
    /// Finds or makes the directory, its control file and its keys, and closes them again: daemons close descriptors
    /// and fork after they start. The first use opens.
    pub(crate) fn open(path: &Path, options: &Options) -> Result<Arc<Store>> {
        let dir = Directory::prepare(path, options)?;
        let (shape, replaced) = init_control(&dir, options)?;
        if !dir.key_is_foreign || dir.key.exists() {
            Keys::create(&dir)?;
        } else {
            return Err(Error::invalid(format!(
                "key='{}' is not there; make it with: openssl rand -out {0} 32",
                dir.key.display()
            )));
        }
        let identity = dir.identity;
        let store = REGISTRY.find_or_make(identity, || {
            Arc::new(Store {
                dir: dir.clone(),
                deadline: options.deadline,
                log: Log::new(),
                opened: PerProcess::new(),
                retry_at: AtomicU64::new(0),
                maintenance_at: AtomicU64::new(0),
                full_since: AtomicU64::new(0),
            })
        });
        let store = store.ok_or_else(|| {
            Error::new(Status::Full, format!("{STORES_MAX} directories are mapped in this process; close one first"))
        })?;
        if store.dir.key != dir.key || store.deadline != options.deadline {
            return Err(Error::new(
                Status::Mismatch,
                format!("{} is open in this process with another key= or deadline=; give the same", dir.path.display()),
            ));
        }
        debug_assert!(shape.is_sane());
        if replaced {
            store.log.control_was_replaced();
        }
        Ok(store)
    }

    /// What this process has open, opened or brought up to date now.
    fn obtain(&self) -> Result<Arc<OpenStore>> {
        if clock::ticks() < self.retry_at.load(Ordering::Relaxed) {
            return Err(Error::new(Status::System, "the store could not be opened a moment ago"));
        }
        let opened = self.opened.update(OPENING, |found| match found {
            Holding::Mine(opened) if opened.is_current() => Ok(Arc::clone(opened)),
            found => self.open_now(found).map(Arc::new),
        });
        match opened {
            Some(Ok(opened)) => Ok(opened),
            Some(Err(error)) => {
                self.retry_at.store(clock::ticks() + RETRY, Ordering::Relaxed);
                self.log.say(Topic::Open, log::ERR, || format!("running without the session cache: {error}"));
                Err(error)
            }
            None => Err(Error::busy()),
        }
    }

    /// A forked child takes over what is plain shared memory, the control page and those of generations, and the keys: that saves a
    /// third of its first lookup. Environments it opens for itself.
    fn open_now(&self, found: Holding<'_, OpenStore>) -> Result<OpenStore> {
        let dir = &self.dir;
        dir.check_again()?;
        let _stdio = crate::sys::files::occupy_stdio().map_err(|e| Error::system("cannot open /dev/null", &e))?;
        let (known, mine) = match found {
            Holding::Nothing => (None, false),
            Holding::Mine(opened) => (Some(opened), true),
            Holding::Inherited(opened) => (Some(opened), false),
        };
        let is_known = known.is_some();
        let keys = match known {
            Some(opened) if !opened.keys.changed(&dir.key) => Arc::clone(&opened.keys),
            // A key file that is half written or gone leaves the keys that were read before.
            Some(opened) => Keys::load(dir).unwrap_or_else(|error| {
                self.log.say(Topic::Keys, log::WARNING, || format!("keeping the sealing keys read before: {error}"));
                Arc::clone(&opened.keys)
            }),
            None => Keys::load(dir)?,
        };
        for _ in 0..ATTEMPTS {
            let control = match known {
                Some(opened) if opened.control.is_current_file(&dir.path) && opened.control.wanted().is_sane() => {
                    Arc::clone(&opened.control)
                }
                _ => Arc::new(self.open_control()?),
            };
            let epoch = control.epoch();
            let current = control.current();
            let known = |number: u64| {
                let opened = known?;
                [Some(&opened.now), opened.before.as_ref()]
                    .into_iter()
                    .flatten()
                    .find(|g| g.number == number && Arc::ptr_eq(&control, &opened.control))
            };
            let open = |number: u64| match known(number) {
                Some(generation) if mine && generation.env.has_its_files() => Ok(Arc::clone(generation)),
                known => Generation::open(dir, number, known.map(|g| Arc::clone(&g.lock))).map(Arc::new),
            };
            match open(current.number) {
                Ok(now) if !fits(now.page().shape(), control.wanted()) => {
                    self.log
                        .say(Topic::Generation, log::NOTICE, || "other options: a new generation begins".to_owned());
                    Generation::begin(dir, &control, current, true)?;
                }
                Ok(now) if !self.is_fit(&now, &control, is_known) => {
                    Generation::begin(dir, &control, current, false)?;
                }
                Ok(now) => {
                    let before = if current.keep { open(current.number - 1).ok() } else { None };
                    [Some(&now), before.as_ref()].into_iter().flatten().for_each(|g| g.env.keep_out_of_core());
                    let mask = Mask::new(&control.mask);
                    return Ok(OpenStore { epoch: AtomicU64::new(epoch), control, now, before, keys, mask });
                }
                // Replaced by another process since `current` was read: look again. Else it is of an earlier boot.
                Err(Broken::Gone) if control.current() != current => {}
                Err(Broken::Gone) => Generation::begin(dir, &control, current, false)?,
                Err(Broken::Damaged(what)) => {
                    self.log.say(Topic::Damage, log::WARNING, || {
                        format!("the store is damaged ({what}): a new generation begins")
                    });
                    Generation::begin(dir, &control, current, false)?;
                }
                Err(Broken::Refused(error)) => return Err(error),
            }
        }
        Err(Error::new(Status::Busy, "the store changes faster than it can be opened"))
    }

    /// Looks, as a process that has just started and has not read a page yet, for others that died inside an operation, and if
    /// there were many of late, for the reason. False when that is damage.
    fn is_fit(&self, generation: &Generation, control: &Control, known: bool) -> bool {
        if !known && control.reader_check_is_due(DEATHS) {
            generation.bury_readers();
        }
        if !generation.page().is_suspect() {
            return true;
        }
        match generation.lock.acquire(self.deadline) {
            Ok(locked) => self.is_sound(generation, &locked),
            Err(_) => true,
        }
    }

    fn open_control(&self) -> Result<Control> {
        let dir = &self.dir;
        match Control::open(&dir.path) {
            Ok(control) => Ok(control),
            Err(Unusable::Missing | Unusable::Damaged) => {
                Control::replace(&dir.path, default_shape(), dir.access)
                    .map_err(|e| Error::system(format_args!("cannot write {}/control", dir.path.display()), &e))?;
                self.log.control_was_replaced();
                Control::open(&dir.path).map_err(|unusable| unusable_error(dir, unusable))
            }
            Err(unusable) => Err(unusable_error(dir, unusable)),
        }
    }

    /// Begins a new generation, unless somebody already did. Sessions of the old one stay readable if `keep`.
    fn renew(&self, opened: &OpenStore, keep: bool, why: &str) -> Result<()> {
        let current = opened.control.current();
        if current.number == opened.now.number {
            self.log.say(Topic::Generation, log::WARNING, || format!("{why}: a new generation begins"));
            Generation::begin(&self.dir, &opened.control, current, keep)?;
        }
        Ok(())
    }

    /// Forgets everything, everywhere, at once: a new key first, so that what is left in pages or backups is unreadable.
    pub(crate) fn flush(self: &Arc<Self>) -> Result<()> {
        let opened = self.obtain()?;
        if !self.dir.key_is_foreign {
            Keys::replace(&self.dir)?;
        }
        let current = opened.control.current();
        Generation::begin(&self.dir, &opened.control, current, false)?;
        // Another process may have begun one at this instant, and kept the old one readable.
        let after = opened.control.current();
        if after.keep {
            opened.control.switch(after, control::Current { number: after.number, keep: false });
        }
        opened.control.bump();
        generation::clear(&self.dir, opened.control.current());
        Ok(())
    }

    /// Counts, from outside an operation.
    pub(crate) fn count(self: &Arc<Self>, counter: Counter) {
        let _ = thread::with(self, |thread| thread.opened.control.counters().add(thread.shard, counter, 1));
    }

    /// Everything in the table of `stats.rs`.
    pub(crate) fn stats(self: &Arc<Self>) -> Result<Stats> {
        thread::with(self, |thread| {
            let opened = &thread.opened;
            let mut all = [0; GAUGES + COUNTERS];
            all[2] = opened.now.page().shape().capacity;
            all[3] = opened.now.number;
            all[GAUGES..].copy_from_slice(&opened.control.counters().total());
            for snapshot in [Some(&mut thread.now), thread.before.as_mut()].into_iter().flatten() {
                let page = snapshot.generation.env.page as u64;
                let (entries, pages) = self
                    .read(snapshot, |txn| Ok((txn.entries(), txn.used_pages())))
                    .map_err(|fault| Error::new(Status::System, fault.text()))?;
                // One entry is the sentinel.
                all[0] += entries.unwrap_or(1).saturating_sub(1) as u64;
                all[1] += pages.unwrap_or(0) as u64 * page;
            }
            Ok(Stats(all))
        })?
    }

    /// The counters as they were about a minute ago, the gauges as they are.
    pub(crate) fn recent(self: &Arc<Self>) -> Result<Option<(Duration, Stats)>> {
        let mut all = self.stats()?;
        let before = thread::with(self, |thread| thread.opened.control.counters().a_minute_ago())?;
        Ok(before.map(|(age, counters)| {
            all.0[GAUGES..].copy_from_slice(&counters);
            (Duration::from_millis(age), all)
        }))
    }

    /// Ids that expire later than this, in microseconds, were not made here.
    fn latest(now: u64) -> u64 {
        now + MAX_TTL.as_micros() as u64 + 1_000_000
    }

    /// A fresh id for a session of that life; `None` when the store cannot be asked.
    pub(crate) fn issue_id(self: &Arc<Self>, life: Duration) -> Option<[u8; id::ID]> {
        thread::with(self, |thread| {
            let random = thread.random()?;
            let expiry = thread.next_moment(clock::micros() + life.as_micros() as u64);
            Some(thread.opened.mask.issue(expiry, &random))
        })
        .ok()
        .flatten()
    }

    /// The hash of a server name for a header; `None` when the store cannot be asked.
    pub(crate) fn server_name_hash(self: &Arc<Self>, name: &[u8]) -> Option<u64> {
        thread::with(self, |thread| name_hash(&thread.opened, "server", name)).ok()
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.dir.path
    }
}

/// Whether [`Store::open`] would take these options: what can be told without a directory.
pub(crate) fn check(options: &Options) -> Result<()> {
    directory::access(options).map(drop)
}

/// Never 0, which stands for no name.
fn name_hash(opened: &OpenStore, kind: &str, name: &[u8]) -> u64 {
    hash_name(&opened.control.names, kind, name)
}

fn hash_name(secret: &[u8; 16], kind: &str, name: &[u8]) -> u64 {
    let mut text = Vec::with_capacity(kind.len() + 1 + name.len());
    text.extend_from_slice(kind.as_bytes());
    text.push(0);
    text.extend(name.iter().map(u8::to_ascii_lowercase));
    id::name_hash(secret, &text).max(1)
}

impl Drop for Store {
    fn drop(&mut self) {
        // The environment first: only then may the directory be opened again.
        self.opened.clear();
        REGISTRY.remove(self.dir.identity);
    }
}

fn default_shape() -> Shape {
    Shape { capacity: DEFAULT_CAPACITY, readers: DEFAULT_READERS, guard: false }
}

/// Whether a generation is what is wanted. One that had to be made with `guard` for its file system's sake is.
fn fits(is: Shape, wanted: Shape) -> bool {
    is.capacity == wanted.capacity && is.readers == wanted.readers && (is.guard || !wanted.guard)
}

/// Makes the control file, or tells an existing one what this process wants of it. True when a damaged one had to go.
fn init_control(dir: &Directory, options: &Options) -> Result<(Shape, bool)> {
    let page = crate::sys::files::page_size() as u64;
    let merge = |base: Shape| Shape {
        capacity: options.capacity.unwrap_or(base.capacity) / page * page,
        readers: options.readers.unwrap_or(base.readers),
        guard: options.guard.unwrap_or(base.guard),
    };
    let failed = |e: &std::io::Error| Error::system(format_args!("cannot write {}/control", dir.path.display()), e);
    let mut replaced = false;
    for _ in 0..ATTEMPTS {
        match Control::open(&dir.path) {
            Ok(control) => {
                let wanted = merge(control.wanted());
                if wanted != control.wanted() {
                    control.want(wanted);
                }
                return Ok((wanted, replaced));
            }
            Err(Unusable::Missing) => {
                Control::create(&dir.path, merge(default_shape()), dir.access).map_err(|e| failed(&e))?;
            }
            Err(Unusable::Damaged) => {
                Control::replace(&dir.path, merge(default_shape()), dir.access).map_err(|e| failed(&e))?;
                replaced = true;
            }
            Err(unusable) => return Err(unusable_error(dir, unusable)),
        }
    }
    Err(Error::new(Status::Busy, "another process keeps replacing the control file"))
}

fn unusable_error(dir: &Directory, unusable: Unusable) -> Error {
    match unusable {
        Unusable::Format(format) => {
            directory::other_format(&dir.path, &format!("was made by another version of sesscache (format {format})"))
        }
        Unusable::Platform => {
            directory::other_format(&dir.path, "is used by programs of another architecture or C library")
        }
        Unusable::Missing | Unusable::Damaged => {
            Error::new(Status::Format, format!("{}/control is damaged; remove it", dir.path.display()))
        }
        Unusable::System(e) => Error::system(format_args!("cannot open {}/control", dir.path.display()), &e),
    }
}

/// Wipes a buffer that held a secret.
pub(crate) fn cleanse(secret: &mut [u8]) {
    crypto::cleanse(secret);
}
