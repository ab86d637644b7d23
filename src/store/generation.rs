//! Generations: a store is never repaired, truncated or replaced in place; a new one begins beside it.
//!
//! Making one needs no lock. It is built under a name of its own, renamed to its number (one rename wins), and
//! published by a compare-and-swap in the control file (one swap wins). A maker that dies at any point leaves at worst
//! a directory that the next maker clears away.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::boot::BootId;
use super::control::{Control, Current, Shape};
use super::directory::OpenDirectory;
use super::entries::{generation_name, generation_number, is_unfinished, new_name, DATA, LOCK, PAGE};
use super::env::{Env, Fault, Files, ReaderSlot};
use super::page::GenerationPage;
use super::write_lock::{WriteGuard, WriteLock};
use crate::status::{Error, Result, Status};
use crate::sys::clock;
use crate::sys::files::{self, FileSystem, FirstByte};

mod dir;

use self::dir::{inspect, GenerationDir};

/// Data files up to this size are reserved whole.
const RESERVE_WHOLE: u64 = 4 << 20;
/// Of larger ones, so much at first.
const RESERVE_FIRST: u64 = 1 << 20;
/// A process looks for dead readers again after so many times as long as the last look took: a store that a dead one pins may
/// be full within milliseconds, and with a thousand processes a look takes milliseconds.
const READERS_PAUSE: u32 = 50;
/// Unfinished directories older than this were left by a dead maker.
const ABANDONED: Duration = Duration::from_secs(60);

/// One generation, open in this process.
pub(crate) struct Generation {
    pub(crate) number: u64,
    pub(crate) env: Arc<Env>,
    pub(crate) lock: Arc<WriteLock>,
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
    /// Opens generation `number` of this boot. From one that is `known`, of this process or a parent, the page is taken over.
    pub(crate) fn open(
        open: &OpenDirectory<'_>,
        number: u64,
        boot: Option<BootId>,
        known: Option<&Generation>,
    ) -> Result<Generation, Broken> {
        let dir = GenerationDir::find(open, number)?;
        let lock = known.map_or_else(|| dir.lock(WriteLock::open), |known| Ok(Arc::clone(&known.lock)))?;
        let files = dir.files()?;
        dir.check_boot(lock.page(), boot, |page, boot| page.note_boot(boot))?;
        let env = Env::find_or(files, || {
            let usage = known.and_then(|known| known.env.usage(files)).unwrap_or_else(|| dir.usage());
            if usage == FirstByte::Free {
                dir.inspect_unused(&lock, files).map_err(Broken::Damaged)?;
            }
            dir.open(lock.page(), files, usage, Env::open)
        });
        let busy = || Broken::Refused(Error::new(Status::Busy, "another thread is opening a store"));
        Ok(Generation::new(number, env.unwrap_or_else(|| Err(busy()))?, lock))
    }

    /// Opens generation `number` for reading alone.
    pub(crate) fn view(open: &OpenDirectory<'_>, number: u64, boot: Option<BootId>) -> Result<Generation, Broken> {
        let dir = GenerationDir::find(open, number)?;
        let lock = dir.lock(WriteLock::view)?;
        let files = dir.files()?;
        // Nothing may be noted in the page, and nobody may be held off.
        dir.check_boot(lock.page(), boot, |_, _| {})?;
        let usage = dir.usage();
        if usage == FirstByte::Free && !dir.is_large(lock.page()) && dir.inspect(lock.page().shape()).is_err() {
            return Err(Broken::Damaged("its data file is damaged".to_owned()));
        }
        let env = dir.open(lock.page(), files, usage, Env::view)?;
        Ok(Generation::new(number, Arc::new(env), lock))
    }

    fn new(number: u64, env: Arc<Env>, lock: Arc<WriteLock>) -> Generation {
        Generation { number, env, lock, readers_at: AtomicU64::new(0), reserve_at: AtomicU64::new(0) }
    }

    /// What its processes tell each other.
    #[inline]
    pub(crate) fn page(&self) -> &GenerationPage {
        self.lock.page()
    }

    /// Whether every page of the data file is as LMDB takes on trust. No writer moves meanwhile, and readers do not matter.
    pub(crate) fn verify(&self, _inside: &WriteGuard<'_>) -> bool {
        self.env.data_file().is_ok_and(|data| inspect(&data, self.page().shape()).is_ok())
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
    pub(crate) fn begin(open: &OpenDirectory<'_>, control: &Control, from: Current, keep: bool) -> Result<()> {
        let number = from.number + 1;
        Generation::make(open, control, number)?;
        if control.switch(from, Current { number, keep }) {
            clear(open, control.current());
        }
        Ok(())
    }

    /// Makes generation `number`, which nobody uses before it is the current one, unless it is there.
    pub(crate) fn make(open: &OpenDirectory<'_>, control: &Control, number: u64) -> Result<()> {
        let to = generation_name(number);
        if open.stat(&to).is_ok_and(|found| found.is_dir()) {
            return Ok(());
        }
        // What else has the name was not made here.
        let _ = open.remove(&to);
        let built = build(open, control)?;
        match open.rename(&built, &to) {
            Ok(()) => Ok(()),
            // A non-empty directory of that name: somebody else's, and as good as ours.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOTEMPTY | libc::EEXIST)) => {
                remove(open, &built);
                Ok(())
            }
            Err(e) => {
                remove(open, &built);
                Err(Error::system(format_args!("cannot create {}/{to}", open.path().display()), &e))
            }
        }
    }
}

/// Makes a generation under a name that nobody knows, and says it.
fn build(open: &OpenDirectory<'_>, control: &Control) -> Result<String> {
    let shape = control.wanted();
    // Zeroed under our eyes, the control page would ask for a lock file of 256 GiB.
    if !shape.is_sane() {
        return Err(Error::new(Status::Format, format!("{}/control is damaged", open.path().display())));
    }
    if files::exceeds_file_limit(shape.capacity) {
        return Err(limit_too_low());
    }
    let name = new_name()?;
    let failed = |e: &io::Error| Error::system(format_args!("cannot create a store in {}", open.path().display()), e);
    open.make_dir(&name, 0o700).map_err(|e| failed(&e))?;
    let made = fill(open, &name, shape, control.boot(open.boot())).map_err(|fault| match fault {
        Fault::System(code) => failed(&io::Error::from_raw_os_error(code)),
        Fault::Full => {
            let what = "no space is left on the device, or the quota is used up";
            Error::new(Status::Full, format!("cannot create a store in {}: {what}", open.path().display()))
        }
        fault => Error::new(Status::System, fault.text()),
    });
    match made {
        Ok(()) => Ok(name),
        Err(error) => {
            remove(open, &name);
            Err(error)
        }
    }
}

fn fill(open: &OpenDirectory<'_>, name: &str, mut shape: Shape, boot: Option<BootId>) -> Result<(), Fault> {
    let dir = open.dir(name)?;
    let access = open.access();
    access.apply(&dir.readable()?, true)?;
    if files::file_system(dir.file())? == FileSystem::CopyOnWrite {
        shape.guard = true;
    }
    let reserve = if shape.capacity <= RESERVE_WHOLE { shape.capacity } else { RESERVE_FIRST };
    let init = |shape: Shape| {
        let files = Files::create(&dir, shape.readers, access)?;
        let path = open.path_for_lmdb(name, &dir);
        let _rights = open.rights_for_lmdb().map_err(|_| Fault::System(libc::EPERM))?;
        Env::create(&path, shape, files, reserve)
    };
    let mut made = init(shape);
    if matches!(made, Err(Fault::System(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL | libc::EPERM))) {
        // Space cannot be reserved here, so nothing may be written through the map. A seccomp filter answers EPERM.
        shape.guard = true;
        [DATA, LOCK].iter().for_each(|name| drop(dir.remove(name)));
        made = init(shape);
    }
    made?;
    Ok(WriteLock::create(&dir, shape, boot, reserve, access)?)
}

fn limit_too_low() -> Error {
    Error::new(Status::System, "the file size limit (RLIMIT_FSIZE, ulimit -f) is below the capacity")
        .remedy("raise it or give a smaller capacity=")
}

/// Removes everything that is neither the current generation nor the one kept for reading.
pub(crate) fn clear(open: &OpenDirectory<'_>, current: Current) {
    let kept = |number: u64| number >= current.number || (current.keep && number + 1 == current.number);
    for name in open.names().unwrap_or_default() {
        let Some(name) = name.to_str() else { continue };
        let is_over = match generation_number(name) {
            Some(number) => !kept(number),
            None => {
                is_unfinished(name) && open.stat(name).is_ok_and(|found| found.age().is_some_and(|age| age > ABANDONED))
            }
        };
        if is_over {
            remove(open, name);
        }
    }
}

/// Removes a generation as a pair, or a leftover file. Those who have it open keep it until they look again.
fn remove(open: &OpenDirectory<'_>, name: &str) {
    match open.dir(name) {
        Ok(dir) => {
            [PAGE, DATA, LOCK].iter().for_each(|name| drop(dir.remove(name)));
            let _ = open.remove_dir(name);
        }
        // A file, or a link that leads anywhere: its name goes, and nothing else.
        Err(_) => drop(open.remove(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_new_generation_is_called_whole_and_a_damaged_one_is_not() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("store");
        let store = super::super::Store::open(&path, &Options::parse("capacity=1MiB").unwrap()).unwrap();
        let opened = store.obtain().unwrap();
        let generation = &opened.now;
        let locked = generation.lock.acquire(Duration::from_secs(1)).unwrap();
        assert!(generation.verify(&locked), "a new generation is called damaged");
        // The flags of the first page behind the meta pages, which is the root.
        let file = generation.env.data_file().unwrap();
        file.write_all_at(&[0xff], 2 * generation.env.page as u64 + 10).unwrap();
        assert!(!generation.verify(&locked), "a root of no kind is called whole");
        drop(locked);
    }
}
