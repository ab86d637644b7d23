//! Generations: a store is never repaired, truncated or replaced in place; a new one begins beside it.
//!
//! Making one needs no lock. It is built under a name of its own, renamed to its number (one rename wins), and
//! published by a compare-and-swap in the control file (one swap wins). A maker that dies at any point leaves at worst
//! a directory that the next maker clears away.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use super::control::{platform, Control, Current, Shape};
use super::env::{Env, Fault};
use super::gate::Gate;
use super::place::Place;
use crate::status::{Error, Result, Status};
use crate::sys::files::{self, FileSystem};
use crate::sys::{clock, crypto};

/// Data files up to this size are reserved whole.
const RESERVE_WHOLE: u64 = 4 << 20;
/// The least step of reserving: one transaction of 64 KiB records and evictions never needs as much.
pub(crate) const RESERVE_STEP: u64 = 1 << 20;
/// Milliseconds between two attempts to reserve on a full file system, and between two looks for dead readers.
const PAUSE: u64 = 1_000;
/// Unfinished directories older than this were left by a dead maker.
const ABANDONED: std::time::Duration = std::time::Duration::from_secs(60);

/// One generation, open in this process.
pub(crate) struct Generation {
    pub(crate) number: u64,
    pub(crate) env: Arc<Env>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) data: PathBuf,
    /// No look for dead readers before this tick.
    readers_at: AtomicU64,
    /// No attempt to reserve file space before this tick; 0 when the last one did not fail.
    reserve_at: AtomicU64,
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
    /// Opens generation `number`. A gate that is mapped already, by a parent, is taken over.
    pub(crate) fn open(place: &Place, number: u64, gate: Option<Arc<Gate>>) -> std::result::Result<Generation, Broken> {
        let map = |directory: &Path| match gate {
            Some(gate) => Ok(Some(gate)),
            None => Gate::open(directory).map(|gate| gate.map(Arc::new)),
        };
        Generation::open_as(place, number, map, Env::open)
    }

    /// Opens generation `number` for reading alone.
    pub(crate) fn view(place: &Place, number: u64) -> std::result::Result<Generation, Broken> {
        let map = |directory: &Path| Gate::view(directory).map(|gate| gate.map(Arc::new));
        Generation::open_as(place, number, map, Env::view)
    }

    fn open_as(
        place: &Place,
        number: u64,
        map: impl FnOnce(&Path) -> io::Result<Option<Arc<Gate>>>,
        env: fn(&Path, Shape) -> std::result::Result<Env, Fault>,
    ) -> std::result::Result<Generation, Broken> {
        let directory = place.generation(number);
        let refused =
            |e: &io::Error| Broken::Refused(Error::system(format_args!("cannot open {}", directory.display()), e));
        let gate = match map(&directory) {
            Ok(Some(gate)) => gate,
            Ok(None) => return Err(Broken::Damaged("its gate is damaged".to_owned())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(Broken::Gone),
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ELOOP)) => {
                return Err(Broken::Damaged("its gate is no file".to_owned()))
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
        if files::exceeds_file_limit(gate.shape().capacity) {
            return Err(Broken::Refused(limit_too_low()));
        }
        match env(&directory, gate.shape()) {
            Ok(env) => Ok(Generation {
                number,
                env: Arc::new(env),
                gate,
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

    /// Frees the slots of readers that died, at most once a second: it costs a system call per process attached.
    pub(crate) fn free_dead_readers(&self) -> bool {
        let now = clock::ticks();
        let due = self.readers_at.load(Ordering::Relaxed);
        now >= due
            && self.readers_at.compare_exchange(due, now + PAUSE, Ordering::Relaxed, Ordering::Relaxed).is_ok()
            && self.env.check_readers() > 0
    }

    /// Whether it is worth asking the file system for more room.
    pub(crate) fn may_reserve(&self) -> bool {
        clock::ticks() >= self.reserve_at.load(Ordering::Relaxed)
    }

    /// The file system is full: do not ask again for a while.
    pub(crate) fn pause_reserving(&self) {
        self.reserve_at.store(clock::ticks() + PAUSE, Ordering::Relaxed);
    }

    /// The file system had room again.
    pub(crate) fn resume_reserving(&self) {
        self.reserve_at.store(0, Ordering::Relaxed);
    }

    /// Whether the store has to live with less than its capacity.
    pub(crate) fn is_pinched(&self) -> bool {
        self.reserve_at.load(Ordering::Relaxed) != 0 && self.gate.reserved() < self.gate.shape().capacity
    }

    /// Begins the generation after `from`. Whoever is fastest makes it; the result is the same for all.
    pub(crate) fn begin(place: &Place, control: &Control, from: Current, keep: bool) -> Result<()> {
        let number = from.number + 1;
        let to = place.generation(number);
        if !to.exists() {
            let built = build(place, control.wanted())?;
            match fs::rename(&built, &to) {
                Ok(()) => {}
                // A non-empty directory of that name: somebody else's, and as good as ours.
                Err(e) if matches!(e.raw_os_error(), Some(libc::ENOTEMPTY | libc::EEXIST)) => remove(&built),
                Err(e) => {
                    remove(&built);
                    return Err(Error::system(format_args!("cannot create {}", to.display()), &e));
                }
            }
        }
        if control.switch(from, Current { number, keep }) {
            clear(place, control.current());
        }
        Ok(())
    }
}

fn build(place: &Place, mut shape: Shape) -> Result<PathBuf> {
    if files::exceeds_file_limit(shape.capacity) {
        return Err(limit_too_low());
    }
    let mut random = [0_u8; 8];
    if !crypto::random(&mut random) {
        return Err(Error::new(Status::OpenSsl, "OpenSSL has no random bytes to give"));
    }
    let directory = place.path.join(format!("new-{:016x}", u64::from_ne_bytes(random)));
    let failed = |e: &io::Error| Error::system(format_args!("cannot create a store in {}", place.path.display()), e);
    fs::DirBuilder::new().mode(0o700).create(&directory).map_err(|e| failed(&e))?;
    let made = (|| {
        let handle = fs::File::open(&directory).map_err(|e| failed(&e))?;
        place.access.apply(&handle, true).map_err(|e| failed(&e))?;
        if files::file_system(&directory).map_err(|e| failed(&e))? == FileSystem::CopyOnWrite {
            shape.guard = true;
        }
        let reserve = if shape.capacity <= RESERVE_WHOLE { shape.capacity } else { RESERVE_STEP };
        let mut made = Env::create(&directory, shape, reserve, place.access);
        if matches!(made, Err(Fault::System(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL))) {
            // Space cannot be reserved here, so nothing may be written through the map.
            shape.guard = true;
            for name in ["data.mdb", "lock.mdb"] {
                let _ = fs::remove_file(directory.join(name));
            }
            made = Env::create(&directory, shape, reserve, place.access);
        }
        made.map_err(|fault| match fault {
            Fault::System(code) => failed(&io::Error::from_raw_os_error(code)),
            Fault::Full => failed(&io::Error::from_raw_os_error(libc::ENOSPC)),
            fault => Error::new(Status::System, fault.text()),
        })?;
        Gate::create(&directory, shape, reserve, place.access).map_err(|e| failed(&e))
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
    Error::new(
        Status::System,
        "the file size limit (RLIMIT_FSIZE, ulimit -f) is below the capacity; raise it or give a smaller capacity=",
    )
}

/// Removes everything that is neither the current generation nor the one kept for reading.
pub(crate) fn clear(place: &Place, current: Current) {
    let kept = |number: u64| number >= current.number || (current.keep && number + 1 == current.number);
    let Ok(entries) = fs::read_dir(&place.path) else { return };
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

/// The name of a generation's directory.
pub(crate) fn generation_name(boot: &str, number: u64) -> String {
    format!("v1-{}-{boot}-{number:x}", platform())
}

fn generation_number(name: &str) -> Option<u64> {
    let (head, number) = name.rsplit_once('-')?;
    head.starts_with("v1-").then(|| u64::from_str_radix(number, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_known_by_its_name() {
        assert_eq!(generation_number(&generation_name("0badcafe", 0x1234_5678_9abc)), Some(0x1234_5678_9abc));
        assert_eq!(generation_number("control"), None);
        assert_eq!(generation_number("key-1"), None);
    }
}
