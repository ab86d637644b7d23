//! The descriptors that LMDB keeps, and whether they are still its own.
//!
//! Daemons close every number from 3 on, and give the numbers to files of their own. LMDB would go on writing pages, asking
//! for locks and closing under these numbers.

use std::sync::atomic::{AtomicBool, Ordering};

use libc::c_int;
use lmdb_sys as ffi;

use super::super::mdb;
use super::Files;
use crate::sys::files;

/// A number, and device and inode of the file behind it.
type Known = (c_int, (u64, u64));

/// What an environment has open. Once lost it stays lost: a number may come to lead to the same file again, its locks do not.
#[derive(Default)]
pub(super) struct Descriptors {
    data: Option<Known>,
    lock: Option<Known>,
    meta: Option<Known>,
    lost: AtomicBool,
}

impl Descriptors {
    /// Those of an environment that was opened a moment ago and has its data file under `data`.
    ///
    /// # Safety
    /// `env` is an open environment.
    pub(super) unsafe fn of(env: *mut ffi::MDB_env, data: c_int) -> Descriptors {
        let known = |descriptor: c_int| files::identity(descriptor).map(|file| (descriptor, file));
        // SAFETY: `descriptors` wants an open environment, which the caller of this one has promised.
        let [data, lock, meta] = unsafe { mdb::descriptors(env, data) };
        Descriptors { data: known(data), lock: known(lock), meta: known(meta), lost: AtomicBool::new(false) }
    }

    /// The number of the lock file; `None` when there is none.
    pub(super) fn lock(&self) -> Option<c_int> {
        self.lock.map(|(descriptor, _)| descriptor)
    }

    /// The number of the data file, if it is still that.
    pub(super) fn data(&self) -> Option<c_int> {
        self.data.filter(|_| self.data_is_whole()).map(|(descriptor, _)| descriptor)
    }

    /// Device and inode of the lock file.
    pub(super) fn lock_file(&self) -> Option<(u64, u64)> {
        self.lock.map(|(_, file)| file)
    }

    /// Whether they lead to these files. On a read-only file system there is no lock file.
    pub(super) fn are(&self, files: Files) -> bool {
        let is = |known: Option<Known>, file: (u64, u64)| known.is_none_or(|(_, found)| found == file);
        is(self.data, files.data) && is(self.meta, files.data) && is(self.lock, files.lock)
    }

    /// Whether all of them are still what they were.
    pub(super) fn are_whole(&self) -> bool {
        self.check(&[self.data, self.lock, self.meta])
    }

    /// The same of the one that commits are written to.
    pub(super) fn data_is_whole(&self) -> bool {
        self.check(&[self.data])
    }

    fn check(&self, all: &[Option<Known>]) -> bool {
        if self.lost.load(Ordering::Relaxed) {
            return false;
        }
        let whole = all.iter().flatten().all(|(descriptor, file)| files::identity(*descriptor) == Some(*file));
        if !whole {
            self.lost.store(true, Ordering::Relaxed);
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::super::Env;
    use crate::options::Options;
    use crate::store::Store;
    use std::os::fd::AsRawFd;

    #[test]
    fn a_descriptor_that_is_replaced_is_noticed() {
        for guard in ["off", "on"] {
            let scratch = tempfile::tempdir().unwrap();
            let path = scratch.path().join("store");
            let options = Options::parse(&format!("capacity=1MiB guard={guard}")).unwrap();
            let store = Store::open(&path, &options).unwrap();
            let opened = store.obtain().unwrap();
            let env: &Env = &opened.now.env;
            assert!(env.has_its_files(), "guard={guard}: descriptors that nobody touched count as lost");
            let (lock, _) = env.descriptors.lock.expect("LMDB's lock file is not where its source says");
            assert_eq!(env.descriptors.meta.is_some(), guard == "on", "LMDB's meta file is not where its source says");
            let other = std::fs::File::open("/dev/null").unwrap();
            // SAFETY: dup2 replaces a number that nobody but the environment knows.
            assert_eq!(unsafe { libc::dup2(other.as_raw_fd(), lock) }, lock);
            assert!(!env.has_its_files(), "guard={guard}: the lock file is gone and nothing is noticed");
        }
    }
}
