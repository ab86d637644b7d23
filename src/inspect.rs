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
use crate::store::view::{Found, Seal, Sealer, Spot, View};
use crate::sys::clock;
use crate::tls::text;

mod health;
mod record;

pub use self::health::{examine, Finding, Verdict};
pub use self::record::{short_id, Contents, Record, Secret, Summary};

/// Longest wait for another writer when a tool changes something: nobody's handshake depends on it.
const DEADLINE: Duration = Duration::from_secs(2);

/// A store that is looked at.
pub struct Inspect {
    view: View,
    key: Option<PathBuf>,
}

/// Where a walk through all records is; the default is before the first.
#[derive(Clone, Copy, Default)]
pub struct Position(Spot);

/// A generation of the store.
pub struct Generation {
    /// Its number.
    pub number: u64,
    /// Its data file.
    pub data: PathBuf,
    /// Bytes of the data file.
    pub file_len: u64,
    /// Bytes that it occupies.
    pub file_bytes: u64,
    /// Bytes of it that have blocks reserved.
    pub reserved: u64,
    /// When its last record expires, in seconds since 1970.
    pub newest: u64,
}

/// What the store is like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Hard limit in bytes.
    pub capacity: u64,
    /// Reader slots.
    pub readers: u32,
    /// Ordinary writes in place of a writable map.
    pub guard: bool,
}

/// A process with reader slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// The number under which it took the slots.
    pub pid: i32,
    /// Its slots.
    pub slots: usize,
    /// Whether it is there.
    pub presence: Presence,
    /// Committed transactions since the oldest snapshot that it holds; `None` when it holds none.
    pub lag: Option<u64>,
}

/// Whether a process is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is.
    Here,
    /// It is, in another PID namespace.
    Elsewhere,
    /// It is gone and has left its slots behind.
    Gone,
}

impl Inspect {
    /// Looks at the store in `path`; `key` names the key file when it is not in there. Status NOT_FOUND when there is
    /// no store.
    pub fn open(path: &Path, key: Option<&Path>) -> Result<Inspect> {
        let view = View::open(path, key).map_err(|error| with_owner(error, path, &path.join("control")))?;
        Ok(Inspect { view, key: key.map(Path::to_owned) })
    }

    /// Looks again, if there is another generation or control file by now.
    pub fn refresh(&mut self) -> Result<()> {
        if self.view.is_outdated() {
            let path = self.path().to_owned();
            // First the environments that are open: the generation before may be one of them.
            self.view.looks.clear();
            self.view = View::open(&path, self.key.as_deref())?;
        }
        Ok(())
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.view.dir.path
    }

    /// The key file.
    pub fn key_file(&self) -> &Path {
        &self.view.dir.key
    }

    /// What is wrong with the store as a whole, in words.
    pub fn damage(&self) -> Option<&str> {
        self.view.damage.as_deref()
    }

    /// A reading of all counters.
    pub fn stats(&mut self) -> Result<Stats> {
        self.view.stats()
    }

    /// What has been counted over the last minute, and how long that is exactly; the gauges are those of `stats`. `None`
    /// when it is not known.
    pub fn recent(&self, stats: &Stats) -> Option<(Duration, Stats)> {
        let (age, before) = self.view.a_minute_ago()?;
        Some((Duration::from_millis(age), stats.since(&before)))
    }

    /// What the store is like.
    pub fn shape(&self) -> Shape {
        let shape = self.view.shape();
        Shape { capacity: shape.capacity, readers: shape.readers, guard: shape.guard }
    }

    /// Number of the current generation.
    pub fn current(&self) -> u64 {
        self.view.current()
    }

    /// The generations that are read: the current one, and the one before if its sessions still live. None before the
    /// first session.
    pub fn generations(&self) -> Vec<Generation> {
        let generation = |look: &crate::store::view::Look| {
            let (data, file_len, file_bytes) = look.file();
            let page = look.generation.page();
            let (reserved, newest) = (page.reserved.get(), page.newest.get());
            Generation { number: look.generation.number, data, file_len, file_bytes, reserved, newest }
        };
        self.view.looks.iter().map(generation).collect()
    }

    /// The processes that have reader slots, but for this one.
    pub fn processes(&self) -> Result<Vec<Process>> {
        let mut processes: Vec<Process> = Vec::new();
        for look in &self.view.looks {
            let last = look.generation.env.last_transaction();
            for (slot, holder) in look.slots()? {
                let presence = match holder {
                    None => Presence::Gone,
                    Some(pid) if pid == slot.pid => Presence::Here,
                    Some(_) => Presence::Elsewhere,
                };
                let lag = slot.snapshot.map(|snapshot| last.saturating_sub(snapshot));
                match processes.iter_mut().find(|process| process.pid == slot.pid) {
                    Some(process) => {
                        process.slots += 1;
                        process.lag = process.lag.max(lag);
                        // A process that is there may have a predecessor's slots in the generation before.
                        if presence != Presence::Gone {
                            process.presence = presence;
                        }
                    }
                    None => processes.push(Process { pid: slot.pid, slots: 1, presence, lag }),
                }
            }
        }
        Ok(processes)
    }

    /// The sessions that expire first and last, of those that have not expired.
    pub fn ends(&mut self) -> Result<Option<(Record, Record)>> {
        let ends = self.view.ends()?;
        Ok(ends.map(|(first, last)| (self.record(first), self.record(last))))
    }

    /// The next records, at most `most`; none at the end. First those with ids made elsewhere and the application's own,
    /// then those of this store in the order of their expiry.
    pub fn batch(&mut self, position: &mut Position, most: usize) -> Result<Vec<Record>> {
        let found = self.view.batch(&mut position.0, most)?;
        Ok(found.into_iter().map(|found| self.record(found)).collect())
    }

    fn record(&self, found: Found) -> Record {
        Record {
            id: self.view.id_of(&found.key).unwrap_or_default(),
            generation: found.generation,
            bytes: found.bytes,
            alive: found.alive,
            header: found.header.as_ref().map(Summary::new),
            found,
        }
    }

    /// The hash by which headers name a namespace.
    pub fn namespace_hash(&self, name: &str) -> u32 {
        self.view.namespace(name).1
    }

    /// What opens records: reads the key file.
    pub fn opener(&self, namespaces: &[String]) -> Result<Opener> {
        let mut names = vec![(0, 0)];
        names.extend(namespaces.iter().map(|name| self.view.namespace(name)));
        Ok(Opener { sealer: self.view.sealer()?, names })
    }

    /// Opens a record.
    pub fn open_record(&mut self, record: &Record, opener: &mut Opener) -> Result<Contents> {
        let mut plain = Secret(Vec::new());
        let seal = self.view.unseal(&record.found, &opener.names, &mut opener.sealer, &mut plain.0)?;
        Ok(match seal {
            Seal::Whole if record.is_session() && !text::is_session(plain.bytes(), &record.id) => {
                Contents::Damaged("it opens, but holds no session that this OpenSSL can read")
            }
            Seal::Whole => Contents::Plain(plain),
            Seal::Gone => Contents::Gone,
            Seal::OtherNamespace => Contents::OtherNamespace,
            Seal::KeyGone => Contents::Damaged("it is sealed under a key that is not in the key file"),
            Seal::Damaged => Contents::Damaged("it is not what was sealed"),
        })
    }

    /// Removes a record from the store, in every process; false when it was gone already.
    pub fn remove(self, record: &Record) -> Result<bool> {
        let key = record.found.key;
        self.into_cache()?.store().remove_at(&key)
    }

    /// The same store as a cache that can be changed, with owner and modes as they are.
    pub fn into_cache(self) -> Result<Cache> {
        let dir = &self.view.dir;
        if !dir.key.exists() {
            return Err(Error::new(
                Status::NotFound,
                format!("there is no key file {}; name the one that the server has", dir.key.display()),
            ));
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
        // First this view's environment has to go.
        drop(self);
        Cache::open(path, &options)
    }
}

/// An error of a file that this user may not read says who may.
fn with_owner(mut error: Error, directory: &Path, file: &Path) -> Error {
    let is_denied = fs::File::open(file).is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied);
    if let Some(owner) = fs::metadata(directory).ok().filter(|_| is_denied).map(|meta| meta.uid()) {
        error.detail.push_str(&format!("; run it as root, or as user {owner}, to whom the store belongs"));
    }
    error
}

/// Opens records: the sealing keys, and the namespaces whose records it can prove.
pub struct Opener {
    sealer: Sealer,
    names: Vec<(u64, u32)>,
}

/// Seconds since 1970, as the store sees them.
pub fn now() -> u64 {
    clock::seconds()
}
