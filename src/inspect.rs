//! A store seen from outside, for tools: what is in it, who uses it, whether it is whole. Rust only, and not part of the
//! API that is kept stable.
//!
//! Nothing is created, changed or repaired by looking, and no snapshot is held while the caller works. Only
//! [`Inspect::remove`] and [`Inspect::into_cache`] change something.
//!
//! Not for a process that has the same directory open as a [`Cache`]: LMDB wants one environment per process and file.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use crate::cache::Cache;
use crate::options::Options;
use crate::stats::Stats;
use crate::status::{Error, Result, Status};
use crate::store::control::{Control, Current, Shape, Unusable};
use crate::store::directory::{Directory, OpenDirectory};
use crate::store::entries::{generation_name, DATA, PAGE};
use crate::store::env::version::LmdbVersion;
use crate::store::generation::Broken;
use crate::store::open::{unusable_error, ATTEMPTS};
use crate::store::statistics;
use crate::sys::{clock, crypto};

mod generation;
mod health;
mod keys;
mod processes;
mod record;
mod walk;

use self::generation::OpenView;
pub use self::health::{examine, Finding, Verdict};
pub use self::keys::KeyVerdict;
pub use self::processes::{Presence, Process};
pub use self::record::{Contents, Opener, Record, Secret, CLIENT_PARTS};
pub use self::walk::Position;
pub use crate::store::record::{flags, Header};
pub use crate::store::trial::Trial;

/// Longest wait for another writer when a tool changes something: nobody's handshake depends on it.
const DEADLINE: Duration = Duration::from_secs(2);

/// A store that is looked at, as it is at this moment.
pub struct Inspect {
    dir: Directory,
    /// The key file that was named.
    key: Option<PathBuf>,
    control: Control,
    current: Current,
    /// The current generation, then the one before if it is still read. Empty before the first session.
    views: Vec<OpenView>,
    /// What is wrong with the current generation, in words.
    damage: Option<String>,
}

impl Inspect {
    /// Looks at the store in `path`; `key` names the key file when it is not in there. Status NOT_FOUND when there is
    /// no store.
    pub fn open(path: &Path, key: Option<&Path>) -> Result<Inspect> {
        Inspect::look(path, key).map_err(|error| with_owner(error, path, &path.join("control")))
    }

    fn look(path: &Path, key: Option<&Path>) -> Result<Inspect> {
        LmdbVersion::running().check()?;
        let dir = Directory::existing(path, key)?;
        let open = dir.enter()?;
        for _ in 0..ATTEMPTS {
            let control = view_control(&open)?;
            let current = control.current();
            let (mut views, mut damage) = (Vec::new(), None);
            match OpenView::open(&open, &control, current.number) {
                Ok(view) => views.push(view),
                Err(Broken::Gone) if control.current() != current => continue,
                // Before the first session, and after a reboot.
                Err(Broken::Gone) => damage = without_page(&open, current.number),
                Err(Broken::Damaged(what)) => damage = Some(what),
                Err(Broken::Refused(error)) => return Err(error),
            }
            if current.keep {
                views.extend(OpenView::open(&open, &control, current.number - 1).ok());
            }
            drop(open);
            return Ok(Inspect { dir, key: key.map(Path::to_owned), control, current, views, damage });
        }
        Err(Error::new(Status::Busy, "the store changes faster than it can be opened"))
    }

    /// Looks again, if there is another generation or control file by now.
    pub fn refresh(&mut self) -> Result<()> {
        if self.control.current() != self.current || self.control.is_replaced(&self.dir.path) || self.views.is_empty() {
            // First the environments that are open: the generation before may be one of them.
            self.views.clear();
            *self = Inspect::look(&self.dir.path, self.key.as_deref())?;
        }
        Ok(())
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.dir.path
    }

    /// The key file.
    pub fn key_file(&self) -> &Path {
        &self.dir.key
    }

    /// What is wrong with the store as a whole, in words.
    pub fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// A reading of all counters.
    pub fn stats(&mut self) -> Result<Stats> {
        let mut stats = statistics::of(&self.control, self.shape().capacity, self.current.number);
        for view in &mut self.views {
            let page = view.generation.env.page;
            let contents = view.read(statistics::contents)?;
            statistics::add(&mut stats, contents, page);
        }
        Ok(stats)
    }

    /// When counting began: when the control file was made, in seconds since 1970.
    pub fn created(&self) -> u64 {
        self.control.created() / 1_000_000
    }

    /// What has been counted over the last minute, and how long that is exactly; the gauges are those of `stats`. `None`
    /// when it is not known.
    pub fn recent(&self, stats: &Stats) -> Option<(Duration, Stats)> {
        let (age, before) = self.control.counters().a_minute_ago()?;
        Some((Duration::from_millis(age), stats.since(&stats.with_counters(before))))
    }

    /// What the current generation is like, or the first one is going to be.
    fn shape(&self) -> Shape {
        let current = self.views.first().filter(|view| view.generation.number == self.current.number);
        current.map_or(self.control.wanted(), |view| view.generation.page().shape())
    }

    /// The hard limit in bytes.
    pub fn capacity(&self) -> u64 {
        self.shape().capacity
    }

    /// How many reader slots there are.
    pub fn readers_limit(&self) -> u32 {
        self.shape().readers
    }

    /// How many generations are read: the current one, and the one before if its sessions still live. None before the first
    /// session.
    pub fn generations(&self) -> usize {
        self.views.len()
    }

    /// Bytes that the data files occupy.
    pub fn file_bytes(&self) -> u64 {
        self.views.iter().map(OpenView::file_bytes).sum()
    }

    /// Bytes of the current data file that have blocks reserved.
    fn reserved(&self) -> u64 {
        self.views.first().map_or(0, |view| view.generation.page().reserved.get())
    }

    /// Removes records from the store, in every process; how many were not gone already.
    pub fn remove(self, records: &[Record]) -> Result<u64> {
        let cache = self.into_cache()?;
        let mut removed = 0;
        for record in records {
            removed += u64::from(cache.store().remove_at(&record.key)?);
        }
        Ok(removed)
    }

    /// The same store as a cache that can be changed, with owner and modes as they are.
    pub fn into_cache(self) -> Result<Cache> {
        let dir = &self.dir;
        if !dir.key.exists() {
            let error = Error::new(Status::NotFound, format!("there is no key file {}", dir.key.display()));
            return Err(error.remedy("name the one that the server has"));
        }
        let options = Options {
            mode: dir.access.mode,
            owner: dir.access.uid.map(|uid| uid.to_string()),
            group: dir.access.gid.map(|gid| gid.to_string()),
            key: self.key.clone(),
            deadline: DEADLINE,
            ..Options::default()
        };
        let path = dir.path.clone();
        // First the environments of this one have to go.
        drop(self);
        Cache::open(path, &options)
    }
}

/// What is wrong with a generation whose page somebody has deleted: what is left of it, nobody can open.
fn without_page(open: &OpenDirectory<'_>, number: u64) -> Option<String> {
    let names = open.dir(generation_name(number)).and_then(|dir| dir.names()).ok()?;
    let is_there = |file: &str| names.iter().any(|name| name == file);
    (is_there(DATA) && !is_there(PAGE)).then(|| format!("{PAGE} is missing in {}", generation_name(number)))
}

/// The control file of a store that is there.
fn view_control(open: &OpenDirectory<'_>) -> Result<Control> {
    Control::view(open).map_err(|unusable| match unusable {
        Unusable::Missing => Error::new(
            Status::NotFound,
            format!("there is no store in {}: it has no control file", open.path().display()),
        ),
        unusable => unusable_error(open.path(), unusable),
    })
}

/// An error of a file that this user may not read says who may.
fn with_owner(error: Error, directory: &Path, file: &Path) -> Error {
    let is_denied = fs::File::open(file).is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied);
    match fs::metadata(directory).ok().filter(|_| is_denied) {
        Some(meta) => error.remedy(format!("run it as root, or as user {}, to whom the store belongs", meta.uid())),
        None => error,
    }
}

/// Versions of what this program is made of.
pub struct Versions {
    /// OpenSSL, as it is loaded.
    pub openssl: String,
    /// LMDB.
    pub lmdb: String,
}

/// Versions of what this program is made of.
pub fn versions() -> Versions {
    Versions { openssl: crypto::openssl_version().to_string(), lmdb: LmdbVersion::running().to_string() }
}

/// Seconds since 1970, as the store sees them.
pub fn now() -> u64 {
    clock::seconds()
}
