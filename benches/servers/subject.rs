//! What the harness asks of a server: one file per server answers.
//!
//! To add a server: write `NAME.rs` with a type that implements [`Subject`], and list it in `main.rs::subjects`. The
//! harness does the rest: it starts the server in the foreground, twice where two instances are asked for, drives it
//! with clients that come back, reloads it, kills its workers, and stops it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::instance::Instance;
use crate::machine::{wait_until, Result};

/// Who remembers the sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// The server as it is when nobody says anything about sessions.
    Stock,
    /// A cache for sessions that the server brings itself, by its name there; stateless tickets are off.
    Own(&'static str),
    /// The server with sesscache.
    Sesscache,
}

impl Cache {
    /// How the table names it.
    pub fn name(self) -> &'static str {
        match self {
            Cache::Stock => "stock",
            Cache::Own(name) => name,
            Cache::Sesscache => "sesscache",
        }
    }
}

/// A cache of a server's own with many sessions in it.
#[derive(Clone, Copy)]
pub struct Rival {
    pub cache: Cache,
    /// It becomes so slow that it is filled no further.
    pub most: usize,
}

/// Where one instance of a server lives and what it is to serve.
///
/// It answers `GET /` on `https://127.0.0.1:port` with status 200 and closes the connection when the client asks for
/// that. It has two worker processes at least, and says nothing in `error_log` below what it takes for a warning.
#[derive(Clone, Debug)]
pub struct Site {
    /// A directory for configuration, logs and pid files. Everything of the instance is in it, but for the store.
    pub directory: PathBuf,
    pub port: u16,
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// The directory of the store: of use with [`Cache::Sesscache`], and shared by instances that share sessions.
    pub store: PathBuf,
    /// The options of the store, as `capacity=64MiB`.
    pub options: String,
    /// Bytes that the server's own cache may take.
    pub own_capacity: u64,
    pub workers: usize,
    /// The user for the worker processes; `None` when the harness does not run as root.
    pub user: Option<String>,
    /// Seconds that a session is good for.
    pub timeout: u64,
}

impl Site {
    /// A path in the instance's directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Where the server writes what went wrong.
    pub fn error_log(&self) -> PathBuf {
        self.file("error.log")
    }
}

/// A server.
pub trait Subject {
    /// How the table names it.
    fn name(&self) -> &'static str;

    /// The version, in the server's own words.
    fn version(&self) -> Result<String>;

    /// Builds what the server needs to gain sesscache, against the staged library: header, library, pkg-config file.
    fn build(&mut self, stage: &Path) -> Result<()>;

    /// The caches of the table: as it is, with the best cache of its own that its workers share, with sesscache.
    fn caches(&self) -> Vec<Cache>;

    /// Its own caches for the comparison with many live sessions.
    fn rivals(&self) -> Vec<Rival> {
        Vec::new()
    }

    /// Processes beside the server that work for this cache.
    fn beside(&self, _cache: Cache) -> Vec<u32> {
        Vec::new()
    }

    /// Writes the configuration and returns the command that runs the server in the foreground, until it is stopped.
    fn command(&self, site: &Site, cache: Cache) -> Result<Command>;

    /// The signal that makes it end in order.
    fn stop_signal(&self) -> i32 {
        libc::SIGTERM
    }

    /// The signal that makes it read its configuration again.
    fn reload_signal(&self) -> i32 {
        libc::SIGHUP
    }

    /// Makes it read its configuration again, and returns when only workers of the new one are left.
    fn reload(&self, instance: &Instance) -> Result<()> {
        let old = instance.workers();
        instance.signal(self.reload_signal());
        let renewed = wait_until(Duration::from_secs(30), || {
            let now = instance.workers();
            !now.is_empty() && now.iter().all(|pid| !old.contains(pid))
        })?;
        if !renewed {
            return Err(format!("{}: 30 s after a reload the old workers are still there", self.name()).into());
        }
        Ok(())
    }

    /// Kills all workers with SIGKILL, and returns when the server has replaced them.
    fn kill_workers(&self, instance: &Instance) -> Result<()> {
        let old = instance.workers();
        for pid in &old {
            crate::instance::signal(*pid, libc::SIGKILL);
        }
        let replaced = wait_until(Duration::from_secs(30), || {
            let now = instance.workers();
            now.len() >= old.len() && now.iter().all(|pid| !old.contains(pid))
        })?;
        if !replaced {
            return Err(format!("{}: killed workers are not replaced within 30 s", self.name()).into());
        }
        Ok(())
    }

    /// Lines of the error log that an operator would have to look at.
    fn complaints(&self, log: &str) -> Vec<String>;
}
