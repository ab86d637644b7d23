//! The store: records under ids, shared by all processes that opened the directory. Put, get, take, remove, sweep.
//!
//! It knows ids, times, headers and bytes, and nothing of TLS. Every fault inside is a miss or a skipped put with its
//! own counter; nothing here waits longer than the deadline.
//!
//! `open` opens, `thread` keeps what a thread has open; `lookup` and `write` are the operations, `local` has what could not be
//! stored, `writer` is the one way to a write, and `growth` sees to blocks for it. `maintenance` is done by the way, `renewal` begins a
//! new generation, `hold` is for processes that lose the file system. LMDB is in `env` and `mdb`.

mod backing;
pub(crate) mod boot;
mod check;
pub(crate) mod control;
mod counters;
pub(crate) mod directory;
pub(crate) mod entries;
pub(crate) mod env;
mod evict;
pub(crate) mod found;
pub(crate) mod generation;
mod growth;
mod held;
mod hold;
pub(crate) mod id;
pub(crate) mod keys;
mod local;
mod lookup;
mod maintenance;
mod mdb;
mod names;
pub(crate) mod open;
mod page;
mod path_access;
mod pool;
pub(crate) mod record;
mod renewal;
mod revocation;
pub(crate) mod seal;
pub(crate) mod siphash;
pub(crate) mod statistics;
pub(crate) mod thread;
mod tombstones;
pub(crate) mod trial;
pub(crate) mod try_keys;
mod usage;
mod write;
pub(crate) mod write_lock;
mod writer;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use self::control::Control;
use self::directory::Directory;
use self::generation::Generation;
use self::id::{DecodedId, Mask};
use self::keys::Keys;
use self::local::LocalTable;
use self::path_access::PathAccess;
use self::thread::ThreadContext;
use crate::log::Log;
use crate::options::{Options, MAX_TTL};
use crate::status::Result;
use crate::sys::fork_safe::{PerProcess, RcuCell, Registry};
use crate::sys::per_thread::PerThread;
use crate::sys::{clock, crypto};

pub(crate) use self::found::{Found, Miss};
// `check` looks for them beside itself: tests compile the two without the rest.
pub(crate) use self::control::Flushes;
use self::mdb::pages;
pub(crate) use self::names::{server_name_hash, Namespace, NamespaceHash};
pub(crate) use self::pool::Pool;
pub(crate) use self::record::{flags, Header, RecordKind};
pub(crate) use self::tombstones::Login;

/// Directories that one process can have open: more than caches, because connections keep theirs after it is closed.
const STORES_MAX: usize = 256;

/// The stores that are open in this process: a second environment on the same files would re-create its live locks.
static REGISTRY: Registry<Store, STORES_MAX> = Registry::new();

/// One directory, as this process and its children know it. What they have open of it is in `opened`.
pub(crate) struct Store {
    dir: Directory,
    deadline: Duration,
    /// The control page, mapped when the directory was opened: what ends sessions is looked up there also where the store is out
    /// of reach.
    control: Arc<Control>,
    /// One that has taken its place since.
    newer_control: RcuCell<Arc<Control>>,
    /// Sessions that could not be stored; `None` with `local=off`.
    local: Option<LocalTable>,
    pub(crate) log: Log,
    opened: PerProcess<OpenStore>,
    path_access: PathAccess,
    threads: PerThread<ThreadContext>,
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
    /// How often a process had seen other keys or another control file.
    replaced: u64,
    /// How often the store had been flushed.
    flushes: u64,
    standing: Standing,
    now: Arc<Generation>,
    /// The generation before, until its last record has expired.
    before: Option<Arc<Generation>>,
    keys: Arc<Keys>,
    mask: Mask,
}

/// How what is open compares with the directory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It was opened there.
    Opened,
    /// The directory could not be opened when there was something new to look at; the generation is still the current one.
    Kept,
    /// The same, and a newer generation has begun, from which this one is still read: here nothing is put any more.
    Behind,
}

impl OpenStore {
    fn is_current(&self) -> bool {
        self.epoch.load(Ordering::Relaxed) == self.control.epoch()
    }

    /// Those that are read.
    fn generations(&self) -> impl Iterator<Item = &Arc<Generation>> {
        std::iter::once(&self.now).chain(&self.before)
    }

    /// Whether the host has left the descriptors alone.
    fn has_its_files(&self) -> bool {
        self.generations().all(|generation| generation.env.has_its_files())
    }

    /// What an id is at the moment `now` (microseconds). One that expires later than anything put here can was not made here.
    fn decode(&self, id: &[u8], now: u64) -> DecodedId {
        self.mask.decode(id, now, now + MAX_TTL.as_micros() as u64 + 1_000_000)
    }

    fn namespace_hash(&self, namespace: Namespace<'_>) -> NamespaceHash {
        NamespaceHash::of(&self.control.names, namespace)
    }

    /// Whoever uses it next in this process opens the files anew.
    fn retire(&self) {
        self.epoch.store(0, Ordering::Relaxed);
    }

    fn is_retired(&self) -> bool {
        self.epoch.load(Ordering::Relaxed) == 0
    }

    /// Whoever uses it next in this process looks whether the directory can be opened.
    fn look_again(&self) {
        let _ = self.epoch.compare_exchange(self.control.epoch(), u64::MAX, Ordering::Relaxed, Ordering::Relaxed);
    }
}

impl Store {
    /// A fresh id for a session of that life; `None` when there are no random bytes. Where the store is out of reach it is made
    /// from the control page alone.
    pub(crate) fn issue_id(self: &Arc<Self>, life: Duration) -> Option<[u8; id::ID]> {
        let expiry = clock::micros() + life.as_micros() as u64;
        let issued = thread::with(self, |thread| {
            let random = thread.random()?;
            let expiry = thread.next_moment(expiry);
            Some(thread.opened.mask.issue(0, expiry, &random))
        });
        issued.unwrap_or_else(|_| {
            let mut random = [0; id::RANDOM];
            let control = self.control();
            crypto::random(&mut random).then(|| Mask::new(&control.mask, control.site).issue(0, expiry, &random))
        })
    }

    /// The hash of a server name for a header.
    pub(crate) fn server_name_hash(&self, name: &[u8]) -> u64 {
        names::server_name_hash(&self.control().names, name)
    }

    /// The control page as this process last knew it.
    pub(crate) fn control(&self) -> &Arc<Control> {
        self.newer_control.get().unwrap_or(&self.control)
    }

    /// Those that the path has led to before, as far as this process knows. A directory that was removed and made anew has
    /// another one; children that cannot open anything still go by the one of before.
    fn former_controls(self: &Arc<Self>) -> Vec<Arc<Control>> {
        let mut stores = REGISTRY.all();
        stores.push(Arc::clone(self));
        let of_path = stores.iter().filter(|store| store.dir.path == self.dir.path);
        let controls = of_path.flat_map(|store| [&store.control, store.control()]);
        controls.filter(|control| !control.is_same_file(self.control())).cloned().collect()
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

impl Drop for Store {
    fn drop(&mut self) {
        // Readers before the environment, and that before the entry: only then may the directory be opened again.
        self.threads.clear();
        self.opened.clear();
        REGISTRY.remove(self.dir.identity.file);
    }
}

/// Wipes a buffer that held a secret.
pub(crate) fn cleanse(secret: &mut [u8]) {
    crypto::cleanse(secret);
}
