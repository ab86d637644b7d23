//! Directories that go away.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::{Builder, TempDir};

/// A directory that goes away with the value. Others may look into it, so that a program that has given up root can.
pub struct Scratch(Option<TempDir>);

impl Scratch {
    /// Makes one. The name is only there to be recognised.
    pub fn new(name: &str) -> Scratch {
        Scratch::within(&std::env::temp_dir(), name)
    }

    /// On tmpfs, where the stores of servers are.
    pub fn in_memory(name: &str) -> Scratch {
        Scratch::within(Path::new("/dev/shm"), name)
    }

    fn within(parent: &Path, name: &str) -> Scratch {
        let prefix = format!("sesscache-{name}-");
        let made = Builder::new().prefix(&prefix).permissions(Permissions::from_mode(0o700)).tempdir_in(parent);
        let made = made.unwrap_or_else(|e| panic!("no scratch directory: {e}"));
        // Whatever the umask.
        crate::set_mode(made.path(), 0o755);
        Scratch(Some(made))
    }

    /// A path in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// A path in it, as text for a command line.
    pub fn text(&self, name: &str) -> String {
        crate::text(&self.join(name)).to_owned()
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        self.0.as_ref().expect("there until it is dropped").path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let removed = self.0.take().map_or(Ok(()), TempDir::close);
        if !std::thread::panicking() {
            removed.unwrap_or_else(|e| panic!("a scratch directory stays behind: {e}"));
        }
    }
}
