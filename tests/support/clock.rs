//! A wall clock for processes, to be set by the test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{preload, Scratch, Worker};

/// A wall clock for workers, to be set by the test.
pub struct Clock {
    library: PathBuf,
    setting: PathBuf,
}

impl Clock {
    pub fn new(scratch: &Scratch) -> Clock {
        let clock = Clock { library: preload(scratch, "clock"), setting: scratch.join("clock") };
        clock.set(0, 0);
        clock
    }

    fn set(&self, added: i64, stands_at: i64) {
        use std::os::unix::fs::FileExt;
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(&self.setting);
        let bytes = [added.to_ne_bytes(), stands_at.to_ne_bytes()].concat();
        file.and_then(|file| file.write_all_at(&bytes, 0)).unwrap_or_else(|e| panic!("the clock is not set: {e}"));
    }

    /// The clock stands still, so many microseconds after 1970.
    pub fn stand(&self, micros: i64) {
        self.set(0, micros * 1_000);
    }

    /// The clock runs, so many seconds ahead of the true one.
    pub fn run_ahead(&self, seconds: i64) {
        self.set(seconds * 1_000_000_000, 0);
    }

    /// Makes a program live by this clock.
    pub fn give_to(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("SESSCACHE_TEST_CLOCK", &self.setting);
    }

    /// A worker that lives by this clock.
    pub fn worker(&self, path: &Path, options: &str) -> Worker {
        let mut worker = Worker::start_with("serve", &[], |command| self.give_to(command));
        worker.reopen(path, options).unwrap_or_else(|e| panic!("a worker cannot open {}: {e:?}", path.display()));
        worker
    }
}
