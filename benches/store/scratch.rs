//! Where the stores lie while they are measured: in memory, where the manual says that they should.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A directory that goes away with all in it. One run at a time: a second one would measure the first.
pub struct Scratch {
    root: PathBuf,
    _lock: File,
}

impl Scratch {
    pub fn new() -> Scratch {
        let base = std::env::var_os("BENCH_DIR").map_or_else(
            || if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() },
            PathBuf::from,
        );
        // SAFETY: no preconditions.
        let user = unsafe { libc::getuid() };
        let root = base.join(format!("sesscache-bench.{user}"));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&root).expect("a directory for the benchmark");
        let lock = File::create(root.join("lock")).expect("a lock file");
        // SAFETY: an open descriptor; no memory is involved.
        let code = unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
        assert_eq!(code, 0, "another run of this benchmark is going on in {}", root.display());
        let scratch = Scratch { root, _lock: lock };
        // What an interrupted run left.
        scratch.clear();
        scratch
    }

    /// A path that does not exist yet.
    pub fn path(&self, name: &str) -> PathBuf {
        let path = self.root.join(name);
        let _ = fs::remove_dir_all(&path);
        path
    }

    /// An empty directory.
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).expect("a directory for the benchmark");
        path
    }

    /// Deletes what has been stored so far.
    pub fn clear(&self) {
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}
