//! What LMDB's codes mean for the store.

use std::io;

use lmdb_sys as ffi;

use crate::status::{Error, Status};
use crate::sys::shared_page;

/// Why LMDB did not do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No free page: at put, at delete, or at commit.
    Full,
    /// Every reader slot is taken.
    ReadersFull,
    /// A process of another PID namespace has this process's number: this one cannot have a reader slot.
    PidClash,
    /// For so long, in milliseconds, a process that does not run has been holding the lock that a reader slot is taken under.
    SlotsHeld { millis: u64 },
    /// Another writer held the store past the deadline.
    LockTimeout,
    /// Somebody who does not hold our write lock holds that of LMDB.
    WriterHeld,
    /// A thread's reader slot was given to another: this process had lost its locks, and others took it for dead.
    SlotLost,
    /// All memory of the process is to be locked, and the map is more than it may lock.
    LockedMemory,
    /// The host has closed the descriptors of the store, and may have given their numbers to files of its own.
    Closed,
    /// Other files stood in the place of the store's when LMDB opened them.
    Exchanged,
    /// Something lies where nothing may be written over.
    Taken,
    /// The pages contradict themselves.
    Damaged(i32),
    /// The system refused.
    System(i32),
}

impl Fault {
    /// A code of mdb_env_open, where nothing but mmap(2) says EAGAIN.
    pub(super) fn from_open(code: libc::c_int) -> Fault {
        match code {
            libc::EAGAIN => Fault::LockedMemory,
            code => Fault::from_code(code),
        }
    }

    fn from_system(code: libc::c_int) -> Fault {
        match code {
            libc::ENOSPC | libc::EDQUOT => Fault::Full,
            code => Fault::System(code),
        }
    }

    pub(super) fn from_code(code: libc::c_int) -> Fault {
        match code {
            ffi::MDB_MAP_FULL | ffi::MDB_TXN_FULL | libc::ENOSPC | libc::EDQUOT => Fault::Full,
            ffi::MDB_READERS_FULL => Fault::ReadersFull,
            libc::EAGAIN => Fault::PidClash,
            ffi::MDB_BAD_RSLOT => Fault::SlotLost,
            // A lock whose holder died, and that could not be recovered from.
            libc::ENOTRECOVERABLE => Fault::Damaged(code),
            code if code < 0 => Fault::Damaged(code),
            code => Fault::System(code),
        }
    }

    /// The error in words; never LMDB's own `Display`, which borrows a static buffer.
    pub(crate) fn text(self) -> String {
        match self {
            Fault::Full => "no room could be made in the store".to_owned(),
            Fault::ReadersFull => "every reader slot is taken".to_owned(),
            Fault::PidClash => "a process of another PID namespace has the same number".to_owned(),
            Fault::SlotsHeld { millis } => {
                format!("a process that does not run has been taking a reader slot for {millis} ms")
            }
            Fault::LockTimeout => Error::busy().detail,
            Fault::WriterHeld => "LMDB's writer lock is held by a process that does not run, or damaged".to_owned(),
            Fault::SlotLost => "the reader slot is somebody else's".to_owned(),
            Fault::LockedMemory => shared_page::LOCKED_MEMORY.to_owned(),
            Fault::Closed => "the host has closed the descriptors of the store".to_owned(),
            Fault::Exchanged => "its files were exchanged while they were opened".to_owned(),
            Fault::Taken => "a record is there already".to_owned(),
            Fault::Damaged(code) => format!("damaged ({:?})", lmdb::Error::from_err_code(code)),
            Fault::System(code) => io::Error::from_raw_os_error(code).to_string(),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(e: io::Error) -> Fault {
        e.raw_os_error().map_or(Fault::LockedMemory, Fault::from_system)
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Error {
        let status = match fault {
            Fault::Full => Status::Full,
            Fault::LockTimeout => Status::Busy,
            Fault::Taken => Status::Invalid,
            _ => Status::System,
        };
        Error::new(status, fault.text())
    }
}

pub(super) fn check(code: libc::c_int) -> Result<(), Fault> {
    if code == 0 {
        Ok(())
    } else {
        Err(Fault::from_code(code))
    }
}
