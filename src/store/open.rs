//! Opening: the directory and its files for those who will use them, and what one process has open of them.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use super::backing::Backing;
use super::control::{Control, Current, Shape, Unusable};
use super::directory::{self, Directory, OpenDirectory};
use super::env::version::LmdbVersion;
use super::generation::{Broken, Generation};
use super::id::Mask;
use super::keys::{crypto_is_missing, Keys};
use super::local::LocalTable;
use super::path_access::PathAccess;
use super::{thread, OpenStore, Standing, Store, REGISTRY, STORES_MAX};
use crate::log::{self, Log, Silence, Topic};
use crate::options::{Options, DEFAULT_CAPACITY, DEFAULT_LOCAL, DEFAULT_READERS};
use crate::status::{Error, Result, Status};
use crate::sys::fork_safe::{self, PerProcess, RcuCell};
use crate::sys::per_thread::PerThread;
use crate::sys::{clock, crypto, files};

/// How long one thread waits for another of its process that is opening the store, which takes less than a millisecond.
const OPENING: Duration = Duration::from_millis(50);
/// After the store could not be opened, nobody tries again for so many milliseconds.
const RETRY: u64 = 1_000;
/// How long a thread waits for another one that ends the last use of a directory.
const ENDING: Duration = Duration::from_secs(1);
/// What is said where nobody can tell one boot from the next.
pub(crate) const BOOT_UNKNOWN: &str =
    "nobody who uses the store can read /proc/sys/kernel/random/boot_id: after a crash of the \
    machine, a store that is not on tmpfs may be taken for whole";
/// Milliseconds between two looks, by processes that start, for others that died.
const DEATHS: u64 = 1_000;
/// Times a generation that vanishes or is damaged is followed to its successor, in one opening.
pub(crate) const ATTEMPTS: usize = 4;

/// What an earlier opening has left, by this process or by a parent.
#[derive(Clone, Copy)]
struct Known<'o> {
    opened: Option<&'o OpenStore>,
    /// It is this process's own, and not a parent's.
    mine: bool,
}

impl Store {
    /// Finds or makes the directory, its control file and its keys, and closes them again: daemons close descriptors
    /// and fork after they start. The first use opens.
    pub(crate) fn open(path: &Path, options: &Options) -> Result<Arc<Store>> {
        LmdbVersion::running().check()?;
        thread::prepare()?;
        if !crypto::is_ready() {
            return Err(crypto_is_missing());
        }
        let (dir, found) = Directory::prepare(path, options)?;
        if dir.key_is_foreign {
            // With this process's own rights, which it may not have in the directory.
            Keys::load(&dir)?;
        }
        let (control, replaced, backing) = {
            let open = dir.enter_found(found)?;
            let backing = Backing::of(&open);
            let (control, replaced) = init_control(&open, options, &backing)?;
            if !dir.key_is_foreign {
                Keys::create(&open)?;
            }
            (control, replaced, backing)
        };
        check_address_space(control.wanted().capacity)?;
        let control = Arc::new(control);
        let make = || {
            let size = options.local.unwrap_or(DEFAULT_LOCAL);
            Ok(Arc::new(Store {
                dir: dir.clone(),
                deadline: options.deadline,
                control: Arc::clone(&control),
                newer_control: RcuCell::new(),
                local: (size > 0).then(|| LocalTable::new(size)).transpose()?,
                log: Log::new(),
                opened: PerProcess::new(),
                path_access: PathAccess::new(),
                threads: PerThread::new(),
                retry_at: AtomicU64::new(0),
                maintenance_at: AtomicU64::new(0),
                full_since: AtomicU64::new(0),
            }))
        };
        // A directory that was removed may have left its inode to this one; one that was renamed is reached by its new path.
        let is_same = |store: &Store| store.dir.identity == dir.identity && store.dir.path == dir.path;
        let store = REGISTRY.find_or_try(dir.identity.file, ENDING, is_same, make).unwrap_or_else(|| {
            Err(Error::new(Status::Full, format!("{STORES_MAX} directories are open in this process"))
                .remedy("close one first"))
        })?;
        let local = store.local.as_ref().map_or(0, LocalTable::size);
        if store.dir.key != dir.key || store.deadline != options.deadline || options.local.is_some_and(|n| n != local) {
            let text = format!("{} is open in this process with another key=, deadline= or local=", dir.path.display());
            return Err(Error::new(Status::Mismatch, text).remedy("give the same"));
        }
        store.take_over(&control);
        if options.hold {
            store.path_access.end_at_first_use();
        }
        if replaced {
            store.log.control_was_replaced();
        }
        if let Some((level, text)) = backing.says(options) {
            store.log.was_found_at_opening(level, text);
        }
        Ok(store)
    }

    /// What this process has open, opened or brought up to date now.
    pub(super) fn obtain(&self) -> Result<Arc<OpenStore>> {
        if clock::ticks() < self.retry_at.load(Ordering::Relaxed) {
            return Err(Error::new(Status::System, "the store could not be opened a moment ago"));
        }
        let held = self.path_access.has_ended();
        // Other threads of this process wait for the one that opens.
        let _silence = Silence::begin();
        let opened = self.opened.update(OPENING, |found| match found {
            fork_safe::Holding::Mine(opened) if opened.is_current() => Ok(Arc::clone(opened)),
            fork_safe::Holding::Mine(opened) if held => self.still_held(opened),
            _ if held => Err(self.lost("it was not opened, or a parent has it")),
            fork_safe::Holding::Mine(opened) => self.attach(Known { opened: Some(opened), mine: true }),
            fork_safe::Holding::Inherited(opened) => self.attach(Known { opened: Some(opened), mine: false }),
            fork_safe::Holding::Nothing => self.attach(Known { opened: None, mine: false }),
        });
        match opened {
            Some(Ok(opened)) => Ok(opened),
            Some(Err(error)) => {
                self.retry_at.store(clock::ticks() + RETRY, Ordering::Relaxed);
                if !held {
                    self.log.say(Topic::Open, log::ERR, || format!("running without the session cache: {error}"));
                }
                Err(error)
            }
            None => Err(Error::busy()),
        }
    }

    /// Opens what is the current generation by now. A forked child takes over what is plain shared memory, the control page and
    /// those of generations, and the keys: that saves a third of its first lookup. Environments it opens for itself.
    fn attach(&self, known: Known<'_>) -> Result<Arc<OpenStore>> {
        let _way = self.path_access.begin(OPENING)?;
        let opened = self.attach_by_path(known).or_else(|error| {
            let mine = known.opened.filter(|opened| known.mine && !self.sees_another(opened));
            mine.and_then(|opened| self.go_on_with(opened)).ok_or(error)
        });
        self.path_access.note_use();
        opened
    }

    fn attach_by_path(&self, known: Known<'_>) -> Result<Arc<OpenStore>> {
        let keys = self.current_keys(known)?;
        let open = self.dir.enter()?;
        // The lowest number that is free is given out (open(2)): one beyond them says that the host has the first three.
        let stdio = (open.file().as_raw_fd() <= 2).then(files::occupy_stdio).transpose();
        let _stdio = stdio.map_err(|e| Error::system("cannot open /dev/null", &e))?;
        for _ in 0..ATTEMPTS {
            let control = self.current_control(&open)?;
            let (epoch, flushes) = (AtomicU64::new(control.epoch()), control.flush_number());
            let current = control.current();
            let replaced = control.replaced();
            let Some(now) = self.current_generation(&open, known, &control, current)? else { continue };
            let before = if current.keep { known.open(&open, &control, current.number - 1).ok() } else { None };
            let mask = Mask::new(&control.mask, control.site);
            let standing = Standing::Opened;
            let opened = OpenStore { epoch, control, replaced, flushes, standing, now, before, keys, mask };
            opened.generations().for_each(|generation| generation.env.keep_out_of_core());
            return Ok(Arc::new(opened));
        }
        Err(Error::new(Status::Busy, "the store changes faster than it can be opened"))
    }

    /// The keys of the file as it is now. One that is half written or gone leaves those that were read before.
    fn current_keys(&self, known: Known<'_>) -> Result<Arc<Keys>> {
        let Some(opened) = known.opened else { return self.first_keys() };
        let looked = !known.mine && opened.is_current() && opened.keys.are_fresh();
        if looked || !opened.keys.changed(&self.dir.key) {
            return Ok(Arc::clone(&opened.keys));
        }
        Ok(Keys::load(&self.dir).unwrap_or_else(|error| {
            self.log.say(Topic::Keys, log::WARNING, || format!("keeping the sealing keys read before: {error}"));
            Arc::clone(&opened.keys)
        }))
    }

    /// The keys of the file for a process that has none. A directory that was removed and made anew under the server has none
    /// either: then they are made, as they are when it is opened.
    fn first_keys(&self) -> Result<Arc<Keys>> {
        match Keys::load(&self.dir) {
            Err(_) if !self.dir.key_is_foreign => {
                Keys::create(&self.dir.enter()?)?;
                Keys::load(&self.dir)
            }
            loaded => loaded,
        }
    }

    /// Goes on with this control page, unless it is that of before.
    fn take_over(&self, control: &Arc<Control>) {
        if !control.is_same_file(self.control()) {
            self.newer_control.set(Arc::clone(control));
        }
    }

    /// The control file as it is now, replaced if it is missing or damaged.
    fn current_control(&self, open: &OpenDirectory<'_>) -> Result<Arc<Control>> {
        let known = self.control();
        if known.is_current_file(open) && known.wanted().is_sane() {
            return Ok(Arc::clone(known));
        }
        let mut control = Control::open(open);
        if matches!(control, Err(Unusable::Missing | Unusable::Damaged)) {
            let capacity = Backing::of(open).default_capacity(&Options::default());
            write_control(open, Control::replace, Shape { capacity, ..DEFAULT_SHAPE })?;
            self.log.control_was_replaced();
            control = Control::open(open);
        }
        let control = control.map_err(|unusable| unusable_error(open.path(), unusable))?;
        control.note_boot(open.boot());
        if control.boot(open.boot()).is_none() {
            self.log.say(Topic::Boot, log::WARNING, || BOOT_UNKNOWN.to_owned());
        }
        let control = Arc::new(control);
        self.take_over(&control);
        Ok(control)
    }

    /// The current generation. `None` when it is not that any more, or must not be: then a new one has begun.
    fn current_generation(
        &self,
        open: &OpenDirectory<'_>,
        known: Known<'_>,
        control: &Arc<Control>,
        current: Current,
    ) -> Result<Option<Arc<Generation>>> {
        let mut keep = false;
        match known.open(open, control, current.number) {
            Ok(now) if !fits(now.page().shape(), control.wanted()) => {
                self.log.say(Topic::Generation, log::NOTICE, || "other options: a new generation begins".to_owned());
                keep = true;
            }
            Ok(now) => {
                if self.is_healthy(&now, control, known.opened.is_none()) {
                    return Ok(Some(now));
                }
                // If no other can begin, nothing goes on with this one.
                known.opened.inspect(|opened| opened.retire());
            }
            // Replaced by another process since `current` was read. Otherwise it is of an earlier boot.
            Err(Broken::Gone) if control.current() != current => return Ok(None),
            Err(Broken::Gone) => {}
            Err(Broken::Damaged(what)) => self
                .log
                .say(Topic::Damage, log::WARNING, || format!("the store is damaged ({what}): a new generation begins")),
            Err(Broken::Refused(error)) => return Err(error),
        }
        Generation::begin(open, control, current, keep).map(|()| None)
    }

    /// Looks for others that died inside an operation, if this process has just started and has not read a page yet; and if
    /// there were many of late, for the reason. False when that is damage.
    fn is_healthy(&self, generation: &Generation, control: &Control, starts: bool) -> bool {
        if starts && control.reader_check_is_due(DEATHS) {
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
}

impl Known<'_> {
    /// A generation: the one that is open, or opened anew, with a page that is mapped already.
    fn open(self, open: &OpenDirectory<'_>, control: &Arc<Control>, number: u64) -> Result<Arc<Generation>, Broken> {
        let of_the_control = self.opened.filter(|opened| Arc::ptr_eq(&opened.control, control));
        let known = of_the_control.and_then(|opened| opened.generations().find(|known| known.number == number));
        match known {
            Some(known) if self.mine && known.env.has_its_files() => Ok(Arc::clone(known)),
            known => {
                let known = known.map(|known| &**known);
                Generation::open(open, number, control.boot(open.boot()), known).map(Arc::new)
            }
        }
    }
}

const DEFAULT_SHAPE: Shape = Shape { capacity: DEFAULT_CAPACITY, readers: DEFAULT_READERS, guard: false };

/// Whether a generation is what is wanted. One that had to be made with `guard` for its file system's sake is.
fn fits(is: Shape, wanted: Shape) -> bool {
    is.capacity == wanted.capacity && is.readers == wanted.readers && (is.guard || !wanted.guard)
}

/// Makes the control file, or tells an existing one what this process wants of it. True when a damaged one had to go.
fn init_control(open: &OpenDirectory<'_>, options: &Options, backing: &Backing) -> Result<(Control, bool)> {
    let page = files::page_size() as u64;
    let merge = |base: Shape| Shape {
        capacity: options.capacity.unwrap_or(base.capacity) / page * page,
        readers: options.readers.unwrap_or(base.readers),
        guard: options.guard.unwrap_or(base.guard),
    };
    let mut replaced = false;
    for _ in 0..ATTEMPTS {
        let write = match Control::open(open) {
            Ok(control) => {
                let wanted = merge(control.wanted());
                if wanted != control.wanted() {
                    control.want(wanted);
                }
                control.note_boot(open.boot());
                return Ok((control, replaced));
            }
            Err(Unusable::Missing) => Control::create,
            Err(Unusable::Damaged) => {
                replaced = true;
                Control::replace
            }
            Err(unusable) => return Err(unusable_error(open.path(), unusable)),
        };
        write_control(open, write, merge(Shape { capacity: backing.default_capacity(options), ..DEFAULT_SHAPE }))?;
    }
    Err(Error::new(Status::Busy, "another process keeps replacing the control file"))
}

/// Rejects a store that this process could never map.
fn check_address_space(capacity: u64) -> Result<()> {
    match files::address_space_left() {
        Some((left, limit)) if left < capacity => {
            let text =
                format!("this process may map {left} bytes more (RLIMIT_AS is {limit}), and the store has {capacity}");
            let remedy = "raise the limit (ulimit -v, LimitAS=) or give a smaller capacity=";
            Err(Error::new(Status::System, text).remedy(remedy))
        }
        _ => Ok(()),
    }
}

fn write_control(
    open: &OpenDirectory<'_>,
    write: fn(&OpenDirectory<'_>, Shape) -> std::io::Result<()>,
    shape: Shape,
) -> Result<()> {
    open.check_before_making()?;
    let failed = |e| Error::system(format_args!("cannot write {}/control", open.path().display()), &e);
    write(open, shape).map_err(failed)
}

pub(crate) fn unusable_error(path: &Path, unusable: Unusable) -> Error {
    match unusable {
        Unusable::Format(format) => {
            directory::other_format(path, &format!("was made by another version of sesscache (format {format})"))
        }
        Unusable::Platform => directory::other_format(path, "is used by programs of another architecture or C library"),
        Unusable::Missing | Unusable::Damaged => {
            Error::new(Status::Format, format!("{}/control is damaged", path.display()))
                .remedy("nothing: the next process that opens the store replaces it")
        }
        Unusable::System(e) => Error::system(format_args!("cannot open {}/control", path.display()), &e),
    }
}
