//! One LMDB environment, and the few things done with it: look up, put, delete, walk from the front.
//!
//! Reads are lock-free: a read transaction is made once, kept reset, and renewed for each lookup. Writes take the write lock
//! first and prove it. No transaction and no environment is touched in a process that did not make it: dropping an
//! inherited one in a forked child would break the parent.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lmdb::EnvironmentFlags;
use lmdb_sys as ffi;

use super::control::Shape;
use super::entries::{DATA, LOCK};
use super::id::SENTINEL;
use super::mdb;
use super::write_lock::WriteGuard;
use crate::sys::dir::Dir;
use crate::sys::files::{self, Access, FirstByte};
use crate::sys::fork_safe::Registry;
use crate::sys::{fork_safe, process, shared_page};

mod descriptors;
mod fault;
mod locks;
mod reader;
mod readers;
mod txn;
pub(crate) mod version;

use self::descriptors::Descriptors;
use self::fault::check;
pub(crate) use self::fault::Fault;
use self::locks::Locks;
pub(crate) use self::reader::Reader;
pub(crate) use self::readers::ReaderSlot;
use self::txn::NO_STAT;
pub(crate) use self::txn::{Next, Txn, Write};

/// How long a thread waits for another one that is opening an environment of this process.
const OPENING: Duration = Duration::from_millis(50);
/// Environments that a process can have open: two for each store.
const MOST: usize = 512;

/// The environments of this process, by device and inode of their lock files.
static ENVIRONMENTS: Registry<Env, MOST> = Registry::new();

/// Device and inode of the two files of an environment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Files {
    pub(crate) data: (u64, u64),
    pub(crate) lock: (u64, u64),
}

impl Files {
    /// Makes both, so that their modes do not depend on the umask, and so that every page of the lock file has a block
    /// behind it: LMDB maps it sparse, which is SIGBUS on a full tmpfs.
    pub(crate) fn create(dir: &Dir, readers: u32, access: Access) -> io::Result<Files> {
        let identity = |file: &File| files::identity(file.as_raw_fd()).ok_or_else(io::Error::last_os_error);
        let data = identity(&files::create(dir, DATA, access)?)?;
        let lock = identity(&files::create_zeroed(dir, LOCK, mdb::lock_file_len(readers), access)?)?;
        Ok(Files { data, lock })
    }
}

/// An open environment of this process.
pub(crate) struct Env {
    raw: *mut ffi::MDB_env,
    process: u64,
    is_registered: bool,
    descriptors: Descriptors,
    /// `None` without a lock file, on a read-only file system.
    locks: Option<Locks>,
    /// Commits write through a descriptor, and not through the map.
    guard: bool,
    /// Bytes of a page.
    pub(crate) page: usize,
    /// Pages of the whole map.
    pub(crate) pages: usize,
    /// Whether LMDB knows how the tree's keys compare.
    tree_is_known: AtomicBool,
    knowing: Mutex<()>,
}

// SAFETY: an MDB_env belongs to no thread (lmdb.h, mdb_env_open), and with NOTLS nor do its reader slots.
unsafe impl Send for Env {}
// SAFETY: an MDB_env may be used by several threads at once (lmdb.h, mdb_env_open); all else in here is Sync by itself.
unsafe impl Sync for Env {}

impl Env {
    /// Makes a new generation's environment in files that were created a moment ago. `reserve` bytes of the data file get
    /// blocks before the first write through the map.
    pub(crate) fn create(path: &Path, shape: Shape, files: Files, reserve: u64) -> Result<(), Fault> {
        let env = Env::open_raw(path, shape, files, shape.capacity as usize, Env::flags(shape))?;
        if !shape.guard {
            env.reserve(0, reserve).map_err(|e| Fault::System(e.raw_os_error().unwrap_or(libc::EIO)))?;
        }
        env.write_alone(|write| write.put(SENTINEL, b"sesscache"))
    }

    /// The environment of these files, opened unless this process has it: LMDB wants one of a lock file in a process, because
    /// it would make locks anew that are held, and give up all its locks at the end of either (lmdb.h). `None` when another
    /// thread is opening one for too long.
    pub(crate) fn find_or<E>(files: Files, open: impl FnOnce() -> Result<Env, E>) -> Option<Result<Arc<Env>, E>> {
        let is_mine = |env: &Env| env.process == process::incarnation() && env.has_its_files();
        let register = |mut env: Env| {
            env.is_registered = true;
            Arc::new(env)
        };
        ENVIRONMENTS.find_or_try(files.lock, OPENING, is_mine, || open().map(register))
    }

    /// Opens them for reading and writing. Damage that shows from outside is found here.
    pub(crate) fn open(path: &Path, shape: Shape, files: Files) -> Result<Env, Fault> {
        Env::open_as(path, shape, files, Env::flags(shape))
    }

    /// The same for reading alone: the map is read-only, and only a reader slot is ever written.
    pub(crate) fn view(path: &Path, shape: Shape, files: Files) -> Result<Env, Fault> {
        let flags = (Env::flags(shape) - EnvironmentFlags::WRITE_MAP) | EnvironmentFlags::READ_ONLY;
        Env::open_as(path, shape, files, flags)
    }

    fn open_as(path: &Path, shape: Shape, files: Files, flags: EnvironmentFlags) -> Result<Env, Fault> {
        let env = Env::open_raw(path, shape, files, 0, flags)?;
        let info = env.info();
        let len = env.data_file().and_then(|data| data.metadata()).map_or(0, |meta| meta.len());
        // A guarded file may end early: LMDB does not write pages that are free again when their transaction ends.
        let needed = if shape.guard { 0 } else { shape.capacity };
        if info.me_mapsize as u64 != shape.capacity || len < needed || info.me_last_pgno >= env.pages {
            return Err(Fault::Damaged(ffi::MDB_INVALID));
        }
        Ok(env)
    }

    /// The data file, as LMDB has it open. It stays LMDB's. An error when the host has closed it.
    pub(crate) fn data_file(&self) -> io::Result<ManuallyDrop<File>> {
        let open = self.descriptors.data().ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?;
        // SAFETY: from_raw_fd wants a descriptor that nobody closes: it is the environment's, which is borrowed, and a
        // ManuallyDrop closes nothing.
        Ok(ManuallyDrop::new(unsafe { File::from_raw_fd(open) }))
    }

    /// How processes other than this one and its parent have the environment of these files open, if a parent has left this one
    /// its descriptors: saves a child that begins one call to open(2).
    pub(crate) fn usage(&self, files: Files) -> Option<FirstByte> {
        let lock = self.descriptors.lock().filter(|lock| files::identity(*lock) == Some(files.lock))?;
        // SAFETY: from_raw_fd wants a descriptor that nobody closes: it is that of an environment, and a ManuallyDrop closes
        // nothing.
        Some(files::first_byte(&ManuallyDrop::new(unsafe { File::from_raw_fd(lock) })))
    }

    /// Makes blocks exist for a part of the data file.
    pub(crate) fn reserve(&self, from: u64, to: u64) -> io::Result<()> {
        files::reserve(&*self.data_file()?, from, to)
    }

    /// The same, unless another process is at it; whether it was done.
    pub(crate) fn reserve_alone(&self, from: u64, to: u64) -> io::Result<bool> {
        files::reserve_alone(&*self.data_file()?, from, to)
    }

    fn flags(shape: Shape) -> EnvironmentFlags {
        let mut flags = EnvironmentFlags::NO_SYNC | EnvironmentFlags::NO_TLS | EnvironmentFlags::NO_READAHEAD;
        flags.set(EnvironmentFlags::WRITE_MAP, !shape.guard);
        flags
    }

    fn open_raw(
        path: &Path,
        shape: Shape,
        files: Files,
        map_size: usize,
        flags: EnvironmentFlags,
    ) -> Result<Env, Fault> {
        let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Fault::System(libc::EINVAL))?;
        loop {
            let mut raw = ptr::null_mut();
            // SAFETY: mdb_env_create writes one pointer, to `raw`, which is there to be written.
            check(unsafe { ffi::mdb_env_create(&mut raw) })?;
            let env = Env {
                raw,
                process: process::incarnation(),
                is_registered: false,
                descriptors: Descriptors::default(),
                locks: None,
                guard: shape.guard,
                page: 0,
                pages: 0,
                tree_is_known: AtomicBool::new(false),
                knowing: Mutex::new(()),
            };
            // SAFETY: mdb_env_set_maxreaders wants an environment that is not open: this one was just created.
            check(unsafe { ffi::mdb_env_set_maxreaders(raw, shape.readers) })?;
            // Size 0 takes the creator's: another size would truncate the file under everybody.
            // SAFETY: mdb_env_set_mapsize wants one without a transaction: none can begin before it is open.
            check(unsafe { ffi::mdb_env_set_mapsize(raw, map_size) })?;
            // SAFETY: mdb_env_open wants a created environment and a NUL-terminated path, which a CString is.
            let code = unsafe { ffi::mdb_env_open(raw, path.as_ptr(), flags.bits(), 0o600) };
            match code {
                0 => return env.init(shape.readers, files),
                // A signal during LMDB's lock call makes it report failure with the lock held: begin again.
                libc::EINTR => {}
                code => return Err(Fault::from_open(code)),
            }
        }
    }

    /// What follows a successful mdb_env_open.
    fn init(mut self, readers: u32, files: Files) -> Result<Env, Fault> {
        let mut fd = -1;
        // SAFETY: mdb_env_get_fd wants an open environment, as mdb_env_open has just made it, and writes one integer.
        check(unsafe { ffi::mdb_env_get_fd(self.raw, &mut fd) })?;
        // LMDB forgets it on the data file: a child that execs would inherit all sessions.
        // SAFETY: F_SETFD touches no memory; a number that is closed is an error.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        // SAFETY: the environment is open, since mdb_env_open has succeeded.
        self.descriptors = unsafe { Descriptors::of(self.raw, fd) };
        // Its open(2) goes by path: what is open is looked at again.
        if !self.descriptors.are(files) {
            return Err(Fault::Exchanged);
        }
        self.locks = self.descriptors.lock().map(|fd| Locks::of(fd, readers)).transpose()?;
        let mut stat = NO_STAT;
        // SAFETY: mdb_env_stat reads the meta page of an open environment, which this is, and writes the struct.
        check(unsafe { ffi::mdb_env_stat(self.raw, &mut stat) })?;
        self.page = stat.ms_psize as usize;
        if !(512..=65_536).contains(&self.page) {
            return Err(Fault::Damaged(ffi::MDB_INVALID));
        }
        self.pages = self.info().me_mapsize / self.page;
        Ok(self)
    }

    fn info(&self) -> ffi::MDB_envinfo {
        let mut info = ffi::MDB_envinfo {
            me_mapaddr: ptr::null_mut(),
            me_mapsize: 0,
            me_last_pgno: 0,
            me_last_txnid: 0,
            me_maxreaders: 0,
            me_numreaders: 0,
        };
        // SAFETY: mdb_env_info reads the meta page of an open environment, as every Env but one in `open_raw` is, and writes
        // the struct. It fails on NULL alone.
        unsafe { ffi::mdb_env_info(self.raw, &mut info) };
        info
    }

    /// Pages the file has in use from its start, those free for reuse included.
    pub(crate) fn extent(&self) -> usize {
        self.info().me_last_pgno.saturating_add(1)
    }

    /// Whether the descriptors still lead to the files of the store: a host may close whatever it does not know.
    pub(crate) fn has_its_files(&self) -> bool {
        self.descriptors.are_whole()
    }

    /// Frees the slots of readers that died. Costs a system call per process attached.
    pub(crate) fn check_readers(&self) -> usize {
        // LMDB asks the lock file who lives. Any other file would say that nobody does.
        if !self.has_its_files() || self.before_slots().is_err() {
            return 0;
        }
        let mut dead = 0;
        // SAFETY: mdb_reader_check wants an open environment whose lock file is LMDB's, as was just looked at.
        unsafe { ffi::mdb_reader_check(self.raw, &mut dead) };
        dead.max(0) as usize
    }

    /// Finds the map by the address of the sentinel and leaves it out of core dumps. The first look into the tree.
    pub(crate) fn keep_out_of_core(&self) {
        let Ok(mut txn) = self.begin_to_read() else { return };
        if let Some(value) = txn.get(SENTINEL).ok().flatten() {
            // SAFETY: the value comes from `get` in a transaction that only reads, and so short a value lies behind its key.
            if let Some(start) = unsafe { mdb::map_start(value, self.page) } {
                shared_page::keep_out_of_core(start, self.pages * self.page);
            }
        }
        txn.abort();
    }

    fn before_slots(&self) -> Result<(), Fault> {
        self.locks.as_ref().map_or(Ok(()), Locks::before_slots)
    }

    fn begin_to_read(&self) -> Result<Txn, Fault> {
        self.before_slots()?;
        self.begin(ffi::MDB_RDONLY)
    }

    fn begin_to_write(&self) -> Result<Txn, Fault> {
        self.locks.as_ref().map_or(Ok(()), Locks::before_write)?;
        self.begin(0)
    }

    fn begin(&self, flags: libc::c_uint) -> Result<Txn, Fault> {
        let mut raw = ptr::null_mut();
        // SAFETY: mdb_txn_begin wants an open environment of this process: a child makes its own. With NOTLS a reading
        // transaction is bound to no thread; a writing one ends in this call of ours.
        check(unsafe { ffi::mdb_txn_begin(self.raw, ptr::null_mut(), flags, &mut raw) })?;
        let txn = Txn { raw };
        if !self.tree_is_known.load(Ordering::Acquire) {
            if let Err(fault) = self.know_tree(&txn) {
                txn.abort();
                return Err(fault);
            }
        }
        Ok(txn)
    }

    /// Has LMDB set the comparison of keys. It writes it to the environment, where every lookup reads it: once, and by one
    /// thread (lmdb.h, mdb_dbi_open). A child never waits here for a thread of its parent: it has an environment of its own.
    fn know_tree(&self, txn: &Txn) -> Result<(), Fault> {
        let _one = self.knowing.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.tree_is_known.load(Ordering::Acquire) {
            let mut tree = 0;
            // SAFETY: mdb_dbi_open wants a live transaction, and that no other thread is in it: the lock sees to that. NULL is the
            // unnamed tree.
            check(unsafe { ffi::mdb_dbi_open(txn.raw, ptr::null(), 0, &mut tree) })?;
            self.tree_is_known.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Writes in one transaction: all of it, or on any fault nothing.
    pub(crate) fn write<T>(
        &self,
        _proof: &WriteGuard<'_>,
        f: impl FnOnce(&mut Write<'_>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.write_alone(f)
    }

    fn write_alone<T>(&self, f: impl FnOnce(&mut Write<'_>) -> Result<T, Fault>) -> Result<T, Fault> {
        // A commit would write pages into whatever file has the descriptor's number.
        if self.guard && !self.descriptors.data_is_whole() {
            return Err(Fault::Closed);
        }
        let mut txn = AbortOnDrop(self.begin_to_write()?);
        let done = f(&mut Write::new(&mut txn.0))?;
        txn.commit().map(|()| done)
    }

    /// Reads inside a write transaction, for a process that cannot have a reader slot.
    pub(crate) fn read_exclusively<T>(
        &self,
        _proof: &WriteGuard<'_>,
        f: impl FnOnce(&mut Txn) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        f(&mut AbortOnDrop(self.begin_to_write()?).0)
    }
}

impl Drop for Env {
    fn drop(&mut self) {
        if self.process != process::incarnation() {
            return;
        }
        let lock_file = self.descriptors.lock_file();
        // What else is there of it stays: closing would close files of the host.
        if self.has_its_files() {
            // SAFETY: mdb_env_close wants an environment of this process without transactions: a Reader keeps an Arc of it, and
            // a writing transaction borrows it.
            unsafe { ffi::mdb_env_close(self.raw) };
        } else {
            fork_safe::keep_inherited(self.raw);
        }
        // Only then may it be opened again.
        if let Some(lock_file) = lock_file.filter(|_| self.is_registered) {
            ENVIRONMENTS.remove(lock_file);
        }
    }
}

struct AbortOnDrop(Txn);

impl AbortOnDrop {
    fn commit(self) -> Result<(), Fault> {
        let unended = ManuallyDrop::new(self);
        Txn { raw: unended.0.raw }.commit()
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        Txn { raw: self.0.raw }.abort();
    }
}
