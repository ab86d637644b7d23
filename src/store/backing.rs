//! What the pages of a store lie in: memory, of which this process may have a limit, or a disk.
//!
//! A store in memory that is larger than what is left of the limit has the kernel end the worker that fills it, and those that are
//! started in its place. One on a disk has lookups wait for the disk: a frozen file system (fsfreeze(8), a snapshot) holds up
//! whoever writes to a mapped page, and a lookup counts.

use std::cell::Cell;

use super::directory::OpenDirectory;
use crate::log;
use crate::options::{Options, CAPACITY_LIMITS, DEFAULT_CAPACITY};
use crate::sys::{cgroup, files};

/// A store may have this part of the limit: the rest is the server's.
const PART: u64 = 4;

/// See the module's first line.
pub(super) struct Backing {
    in_memory: bool,
    /// The default capacity, when it had to be less than usual.
    shrunk: Cell<Option<u64>>,
}

impl Backing {
    /// For a store in that directory. Elsewhere than in memory its pages go to the disk when memory is short.
    pub(super) fn of(open: &OpenDirectory<'_>) -> Backing {
        Backing { in_memory: files::is_in_memory(open.file()), shrunk: Cell::new(None) }
    }

    /// In bytes, if there is one. It takes files to find out, so it is asked only when it matters.
    fn bytes(&self) -> Option<u64> {
        cgroup::memory_limit().filter(|_| self.in_memory)
    }

    /// The capacity of a store that is made now, when no option gives one.
    pub(super) fn default_capacity(&self, options: &Options) -> u64 {
        let most = |limit: u64| ((limit / PART) >> 20 << 20).max(CAPACITY_LIMITS.0);
        let least = if options.capacity.is_none() { self.bytes().map(most) } else { None };
        self.shrunk.set(least.filter(|least| *least < DEFAULT_CAPACITY));
        self.shrunk.get().unwrap_or(DEFAULT_CAPACITY)
    }

    /// What the operator should hear of it, with a level.
    pub(super) fn says(&self, options: &Options) -> Option<(i32, String)> {
        if !self.in_memory && !options.disk {
            return Some((
                log::WARNING,
                "the store is on a disk: handshakes wait while its file system is frozen or slow, and no session outlives a reboot \
                 there either; give a directory on tmpfs, such as one below /run, or disk=on"
                    .to_owned(),
            ));
        }
        let mib = |bytes: u64| bytes >> 20;
        if let (Some(shrunk), Some(limit)) = (self.shrunk.get(), self.bytes()) {
            let (limit, shrunk, usual) = (mib(limit), mib(shrunk), mib(DEFAULT_CAPACITY));
            return Some((
                log::NOTICE,
                format!(
                    "the memory limit is {limit} MiB: the store has {shrunk} MiB instead of {usual}; \
                 give capacity= to decide yourself"
                ),
            ));
        }
        let capacity = options.capacity?;
        let limit = self.bytes().filter(|limit| capacity > limit / PART)?;
        let (capacity, limit, part) = (mib(capacity), mib(limit), mib(limit / PART).max(1));
        Some((log::WARNING, format!(
            "capacity={capacity}MiB is more than a quarter of the memory limit, {limit} MiB: a store that fills up may have the \
             kernel end the server; raise the limit (MemoryMax=) or give capacity={part}MiB"
        )))
    }
}
