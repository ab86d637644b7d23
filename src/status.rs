//! Statuses: few kinds for decisions, text for people. One table makes the C enum, `sesscache_strerror` and the docs.

use std::fmt;

/// Why a call did not do what was asked. The numbers are part of the C ABI and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Status {
    /// An argument, option or directory is not acceptable; the message says what would be.
    Invalid = 1,
    /// The operating system refused; the message has its reason.
    System = 2,
    /// The directory holds something that this version cannot read.
    Format = 3,
    /// No room: too many caches in the process, a value over 64 KiB, no space on the device.
    Full = 4,
    /// OpenSSL failed, for lack of memory or entropy.
    OpenSsl = 5,
    /// The OpenSSL in use is not the one the library was built for, or the directory is open with other options.
    Mismatch = 6,
    /// Another process held the store past the deadline.
    Busy = 7,
    /// A fault inside sesscache; it was contained.
    Bug = 8,
    /// No such record.
    NotFound = 9,
}

/// Every status with its number and phrase, 0 included.
pub const TABLE: &[(i32, &str, &std::ffi::CStr)] = &[
    (0, "OK", c"success"),
    (1, "INVALID", c"invalid argument, option or directory"),
    (2, "SYSTEM", c"the operating system refused"),
    (3, "FORMAT", c"made by an incompatible version"),
    (4, "FULL", c"no room"),
    (5, "OPENSSL", c"OpenSSL failed"),
    (6, "MISMATCH", c"not the OpenSSL or the options in use"),
    (7, "BUSY", c"another process holds the store"),
    (8, "BUG", c"internal fault"),
    (9, "NOT_FOUND", c"no such record"),
];

/// The phrase for a status number; any number has one.
pub fn phrase(status: i32) -> &'static std::ffi::CStr {
    TABLE.iter().find(|row| row.0 == status).map_or(c"unknown status", |row| row.2)
}

/// A status with the sentence that says what happened and what to do.
#[derive(Clone, Debug)]
pub struct Error {
    /// The kind, for decisions.
    pub status: Status,
    /// One sentence for a person; never a secret.
    pub detail: String,
}

impl Error {
    pub(crate) fn new(status: Status, detail: impl Into<String>) -> Error {
        Error { status, detail: detail.into() }
    }

    pub(crate) fn invalid(detail: impl Into<String>) -> Error {
        Error::new(Status::Invalid, detail)
    }

    /// A failed system call: what was being done, to what.
    pub(crate) fn system(doing: impl fmt::Display, cause: &std::io::Error) -> Error {
        let status = match cause.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Status::Full,
            _ => Status::System,
        };
        Error::new(status, format!("{doing}: {cause}"))
    }

    pub(crate) fn busy() -> Error {
        Error::new(Status::Busy, "another process held the store past the deadline; this operation was skipped")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Error {}

/// What fallible calls return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_phrase_and_every_status_a_row() {
        assert_eq!(phrase(i32::MIN).to_str(), Ok("unknown status"));
        for status in [Status::Invalid, Status::Bug, Status::NotFound] {
            assert_ne!(phrase(status as i32), phrase(i32::MAX));
        }
        assert!(TABLE.iter().enumerate().all(|(i, row)| row.0 == i as i32), "numbers are dense and in order");
    }
}
