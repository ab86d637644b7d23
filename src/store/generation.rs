//! Generations: a store is never repaired, truncated or replaced in place; a new one begins beside it.
//!
//! Making one needs no lock. It is built under a name of its own, renamed to its number (one rename wins), and
//! published by a compare-and-swap in the control file (one swap wins). A maker that dies at any point leaves at worst
//! a directory that the next maker clears away.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::check::{self, Damage, Expected};
use super::control::{Control, Current, Shape};
use super::directory::{generation_number, new_path, Directory};
use super::env::{Env, Fault, ReaderSlot};
use super::page::GenerationPage;
use super::pages;
use super::write_lock::{WriteGuard, WriteLock};
use crate::status::{Error, Result, Status};
use crate::sys::clock;
use crate::sys::files::{self, FileSystem, FirstByte};

/// Data files up to this size are reserved whole.
const RESERVE_WHOLE: u64 = 4 << 20;
/// Of larger ones, so much at first.
const RESERVE_FIRST: u64 = 1 << 20;
/// A process looks for dead readers again after so many times as long as the last look took: a store that a dead one pins may
/// be full within milliseconds, and with a thousand processes a look takes milliseconds.
const READERS_PAUSE: u32 = 50;
/// Unfinished directories older than this were left by a dead maker.
const ABANDONED: Duration = Duration::from_secs(60);
/// A file is not checked again before so many times the check has passed. A server with a process per connection has
/// nobody who keeps its store open, and each process would check it: this way they spend a 400th of the time on it.
const RARELY: u64 = 400;
/// Larger files, by their part in use, are opened without a check.
const CHECKED: u64 = 512 << 20;
/// Longest wait for another process that opens the generation, which takes a tenth of one, in milliseconds.
const OPENING: u32 = 50;
/// Longest wait for writers to leave, so that the file can be checked while nothing moves in it, in milliseconds.
const WRITERS_LEAVE: u32 = 50;

/// One generation, open in this process.
pub(crate) struct Generation {
    pub(crate) number: u64,
    pub(crate) env: Arc<Env>,
    pub(crate) lock: Arc<WriteLock>,
    pub(crate) data: PathBuf,
    /// No look for dead readers before this tick.
    readers_at: AtomicU64,
    /// No attempt to reserve file space before this tick; 0 when the last one did not fail.
    pub(super) reserve_at: AtomicU64,
}

/// Why a generation could not be opened.
pub(crate) enum Broken {
    /// Not there: it was replaced a moment ago, or belongs to an earlier boot.
    Gone,
    /// Damaged.
    Damaged(String),
    /// The system refused; another generation would fare no better.
    Refused(Error),
}

impl Generation {
    /// Opens generation `number`. A page that is mapped already, by a parent, is taken over.
    pub(crate) fn open(dir: &Directory, number: u64, lock: Option<Arc<WriteLock>>) -> Result<Generation, Broken> {
        let map = |directory: &Path| match lock {
            Some(lock) => Ok(Some(lock)),
            None => WriteLock::open(directory).map(|lock| lock.map(Arc::new)),
        };
        Generation::open_as(dir, number, map, inspect_unused, Env::open)
    }

    /// Opens generation `number` for reading alone.
    pub(crate) fn view(dir: &Directory, number: u64) -> Result<Generation, Broken> {
        let map = |directory: &Path| WriteLock::view(directory).map(|lock| lock.map(Arc::new));
        let check = |directory: &Path, lock: &WriteLock| {
            let page = lock.page();
            // Nothing may be noted in the page, and nobody may be held off.
            let data = directory.join("data.mdb");
            let whole = is_large(&data, page) || is_in_use(directory) || inspect(&data, page.shape()).is_ok();
            whole.then_some(()).ok_or_else(|| "its data file is damaged".to_owned())
        };
        Generation::open_as(dir, number, map, check, Env::view)
    }

    fn open_as(
        dir: &Directory,
        number: u64,
        map: impl FnOnce(&Path) -> io::Result<Option<Arc<WriteLock>>>,
        check: impl FnOnce(&Path, &WriteLock) -> Result<(), String>,
        env: fn(&Path, Shape) -> Result<Env, Fault>,
    ) -> Result<Generation, Broken> {
        let directory = dir.generation(number);
        let refused =
            |e: &io::Error| Broken::Refused(Error::system(format_args!("cannot open {}", directory.display()), e));
        let lock = match map(&directory) {
            Ok(Some(lock)) => lock,
            Ok(None) => return Err(Broken::Damaged("its page is damaged".to_owned())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(Broken::Gone),
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ELOOP)) => {
                return Err(Broken::Damaged("its page is no file".to_owned()))
            }
            Err(e) => return Err(refused(&e)),
        };
        // LMDB would create what is missing, and a new lock file for an old data file means two domains of locks.
        for name in ["data.mdb", "lock.mdb"] {
            match fs::symlink_metadata(directory.join(name)) {
                Ok(meta) if meta.is_file() && meta.len() > 0 => {}
                Ok(_) => return Err(Broken::Damaged(format!("{name} is empty or no file"))),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    return Err(Broken::Damaged(format!("{name} is missing")))
                }
                Err(e) => return Err(refused(&e)),
            }
        }
        if files::exceeds_file_limit(lock.page().shape().capacity) {
            return Err(Broken::Refused(limit_too_low()));
        }
        check(&directory, &lock).map_err(Broken::Damaged)?;
        if !can_be_opened(&directory) {
            let what = "a process is stopped while it opens";
            return Err(Broken::Refused(Error::new(Status::Busy, format!("{what} {}", directory.display()))));
        }
        match env(&directory, lock.page().shape()) {
            Ok(env) => Ok(Generation {
                number,
                env: Arc::new(env),
                lock,
                data: directory.join("data.mdb"),
                readers_at: AtomicU64::new(0),
                reserve_at: AtomicU64::new(0),
            }),
            Err(fault @ Fault::Damaged(_)) => Err(Broken::Damaged(fault.text())),
            Err(fault) => Err(Broken::Refused(Error::new(
                Status::System,
                format!("cannot open {}: {}", directory.display(), fault.text()),
            ))),
        }
    }

    /// What its processes tell each other.
    #[inline]
    pub(crate) fn page(&self) -> &GenerationPage {
        self.lock.page()
    }

    /// Whether every page of the data file is as LMDB takes on trust. No writer moves meanwhile, and readers do not matter.
    pub(crate) fn verify(&self, _inside: &WriteGuard<'_>) -> bool {
        inspect(&self.data, self.page().shape()).is_ok()
    }

    /// Frees the slots of readers that died, unless it was done a moment ago: it costs a system call per process attached.
    pub(crate) fn free_dead_readers(&self) -> bool {
        if clock::ticks() < self.readers_at.load(Ordering::Relaxed) {
            return false;
        }
        let begin = Instant::now();
        let dead = self.bury_readers();
        let pause = (begin.elapsed() * READERS_PAUSE).as_millis() as u64;
        self.readers_at.store(clock::ticks() + pause.max(1), Ordering::Relaxed);
        dead > 0
    }

    /// Frees the slots of readers that died; how many. Those who died in the middle of a lookup are noted in the page.
    pub(crate) fn bury_readers(&self) -> usize {
        let before = self.env.slots().unwrap_or_default();
        let dead = self.env.check_readers();
        if dead > 0 {
            let after = self.env.slots().unwrap_or_default();
            let in_lookup =
                |slot: &&ReaderSlot| slot.snapshot.is_some() && !after.iter().any(|left| left.pid == slot.pid);
            before.iter().filter(in_lookup).for_each(|_| self.page().note_death());
        }
        dead
    }

    /// Whether the store has to live with less than its capacity.
    pub(crate) fn is_short_of_disk(&self) -> bool {
        self.reserve_at.load(Ordering::Relaxed) != 0 && self.page().reserved.get() < self.page().shape().capacity
    }

    /// Begins the generation after `from`. Whoever is fastest makes it; the result is the same for all.
    pub(crate) fn begin(dir: &Directory, control: &Control, from: Current, keep: bool) -> Result<()> {
        let number = from.number + 1;
        Generation::make(dir, control, number)?;
        if control.switch(from, Current { number, keep }) {
            clear(dir, control.current());
        }
        Ok(())
    }

    /// Makes generation `number`, which nobody uses before it is the current one, unless it is there.
    pub(crate) fn make(dir: &Directory, control: &Control, number: u64) -> Result<()> {
        let to = dir.generation(number);
        if to.exists() {
            return Ok(());
        }
        let built = build(dir, control.wanted())?;
        match fs::rename(&built, &to) {
            Ok(()) => Ok(()),
            // A non-empty directory of that name: somebody else's, and as good as ours.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOTEMPTY | libc::EEXIST)) => {
                remove(&built);
                Ok(())
            }
            Err(e) => {
                remove(&built);
                Err(Error::system(format_args!("cannot create {}", to.display()), &e))
            }
        }
    }
}

/// How other processes have the generation open: LMDB then holds a lock on the first byte of its lock file.
fn use_of(directory: &Path) -> FirstByte {
    // Closing the descriptor would drop this process's own lock. It has none: a process has one environment per directory,
    // and this one is not open yet.
    files::open_to_read(&directory.join("lock.mdb")).map_or(FirstByte::Shared, |file| files::first_byte(&file))
}

fn is_in_use(directory: &Path) -> bool {
    use_of(directory) != FirstByte::Free
}

/// Waits until nobody else is about to open the generation as the first: LMDB would wait for him without a deadline.
fn can_be_opened(directory: &Path) -> bool {
    for _ in 0..OPENING {
        if use_of(directory) != FirstByte::Alone {
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    false
}

fn is_large(data: &Path, page: &GenerationPage) -> bool {
    let used = if page.shape().guard { fs::metadata(data).map_or(0, |meta| meta.len()) } else { page.reserved.get() };
    used > CHECKED
}

/// Checks a data file that nobody has open. Who has it open has checked it, or relies on who did. A large one is not
/// checked: at 0.4 s for a GiB the first session of a server would wait for too long.
fn inspect_unused(directory: &Path, lock: &WriteLock) -> Result<(), String> {
    let (data, page) = (directory.join("data.mdb"), lock.page());
    let inode = fs::metadata(&data).map_or(0, |meta| meta.ino());
    if page.is_trusted(inode) || is_large(&data, page) || is_in_use(directory) {
        return Ok(());
    }
    let begin = Instant::now();
    if inspect(&data, page.shape()).is_ok() {
        page.trust(inode, begin.elapsed().as_millis() as u64 * RARELY);
        return Ok(());
    }
    // Somebody may have opened it since then and moved pages under the eyes of the check: look again with writers held off.
    // Only trying, since a wait in vain would make the puts to come impatient.
    for _ in 0..WRITERS_LEAVE {
        if let Ok(_locked) = lock.acquire(Duration::ZERO) {
            return inspect(&data, page.shape()).map_err(|damage| damage.to_string());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    // It is in use after all.
    Ok(())
}

/// Reads the whole data file, never through a map: a page that is not there is an error and no signal.
fn inspect(data: &Path, shape: Shape) -> Result<(), Damage> {
    let page = files::page_size().min(pages::PAGE_MAX);
    let unreadable = |_| Damage { page: 0, what: "it cannot be read" };
    let file = files::open(data).map_err(unreadable)?;
    // What is written through the map is as long as the map, and LMDB lengthens in silence what is not. A guarded file may
    // end early: its last pages are free and were never written.
    if !shape.guard && file.metadata().map_err(unreadable)?.len() < shape.capacity {
        return Err(Damage { page: shape.capacity / page as u64 - 1, what: "the file ends before it" });
    }
    check::check(Expected { page, map: shape.capacity }, |number, out| {
        file.read_exact_at(out, number * page as u64).is_ok()
    })?;
    Ok(())
}

fn build(dir: &Directory, mut shape: Shape) -> Result<PathBuf> {
    // Zeroed under our eyes, the control page would ask for a lock file of 256 GiB.
    if !shape.is_sane() {
        return Err(Error::new(Status::Format, format!("{}/control is damaged", dir.path.display())));
    }
    if files::exceeds_file_limit(shape.capacity) {
        return Err(limit_too_low());
    }
    let directory = new_path(&dir.path)?;
    let failed = |e: &io::Error| Error::system(format_args!("cannot create a store in {}", dir.path.display()), e);
    fs::DirBuilder::new().mode(0o700).create(&directory).map_err(|e| failed(&e))?;
    let made = (|| {
        let handle = fs::File::open(&directory).map_err(|e| failed(&e))?;
        dir.access.apply(&handle, true).map_err(|e| failed(&e))?;
        if files::file_system(&directory).map_err(|e| failed(&e))? == FileSystem::CopyOnWrite {
            shape.guard = true;
        }
        let reserve = if shape.capacity <= RESERVE_WHOLE { shape.capacity } else { RESERVE_FIRST };
        let mut made = Env::create(&directory, shape, reserve, dir.access);
        if matches!(made, Err(Fault::System(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL))) {
            // Space cannot be reserved here, so nothing may be written through the map.
            shape.guard = true;
            for name in ["data.mdb", "lock.mdb"] {
                let _ = fs::remove_file(directory.join(name));
            }
            made = Env::create(&directory, shape, reserve, dir.access);
        }
        made.map_err(|fault| match fault {
            Fault::System(code) => failed(&io::Error::from_raw_os_error(code)),
            Fault::Full => {
                let what = "no space is left on the device, or the quota is used up";
                Error::new(Status::Full, format!("cannot create a store in {}: {what}", dir.path.display()))
            }
            fault => Error::new(Status::System, fault.text()),
        })?;
        WriteLock::create(&directory, shape, reserve, dir.access).map_err(|e| failed(&e))
    })();
    match made {
        Ok(()) => Ok(directory),
        Err(error) => {
            remove(&directory);
            Err(error)
        }
    }
}

fn limit_too_low() -> Error {
    Error::new(Status::System, "the file size limit (RLIMIT_FSIZE, ulimit -f) is below the capacity")
        .remedy("raise it or give a smaller capacity=")
}

/// Removes everything that is neither the current generation nor the one kept for reading.
pub(crate) fn clear(dir: &Directory, current: Current) {
    let kept = |number: u64| number >= current.number || (current.keep && number + 1 == current.number);
    let Ok(entries) = fs::read_dir(&dir.path) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let path = entry.path();
        if let Some(number) = generation_number(name) {
            if !kept(number) {
                remove(&path);
            }
        } else if name.starts_with("new-") || name.starts_with("control.") || name.starts_with("key.") {
            let age = entry.metadata().and_then(|meta| meta.modified()).ok().and_then(|at| at.elapsed().ok());
            if age.is_some_and(|age| age > ABANDONED) {
                remove(&path);
            }
        }
    }
}

/// Removes a generation as a pair, or a leftover file. Those who have it open keep it until they look again.
fn remove(path: &Path) {
    for name in ["gate", "data.mdb", "lock.mdb"] {
        let _ = fs::remove_file(path.join(name));
    }
    let _ = fs::remove_dir(path).or_else(|_| fs::remove_file(path));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    #[test]
    fn a_new_generation_is_called_whole_and_a_damaged_one_is_not() {
        let path = std::env::temp_dir().join(format!("sesscache-verify-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        let store = super::super::Store::open(&path, &Options::parse("capacity=1MiB").unwrap()).unwrap();
        let opened = store.obtain().unwrap();
        let generation = &opened.now;
        let locked = generation.lock.acquire(Duration::from_secs(1)).unwrap();
        assert!(generation.verify(&locked), "a new generation is called damaged");
        // The flags of the first page behind the meta pages, which is the root.
        let file = files::open(&generation.data).unwrap();
        file.write_all_at(&[0xff], 2 * generation.env.page as u64 + 10).unwrap();
        assert!(!generation.verify(&locked), "a root of no kind is called whole");
        drop(locked);
        fs::remove_dir_all(&path).unwrap();
    }
}
