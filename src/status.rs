//! Statuses: few kinds for decisions, text for people. One table makes [`Status`], the C enum, `sesscache_strerror` and the
//! documents.

use std::ffi::CStr;
use std::fmt;

use crate::sys::credentials;

/// A row of the table of statuses.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct StatusRow {
    /// The number in the C ABI.
    pub number: i32,
    /// The constant in C.
    pub name: &'static str,
    /// What `sesscache_strerror` says.
    pub phrase: &'static CStr,
    /// One sentence.
    pub meaning: &'static str,
}

macro_rules! statuses {
    ($($variant:ident $constant:ident = $number:literal, $phrase:literal, $meaning:literal;)*) => {
        /// Why a call did not do what it was asked. The numbers are part of the C ABI and never change.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        #[repr(i32)]
        pub enum Status {
            $(#[doc = $meaning] $variant = $number,)*
        }

        /// The same for C, where success is a status too.
        #[cfg(feature = "capi")]
        #[allow(non_camel_case_types, missing_docs)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(C)]
        pub enum sesscache_status {
            SESSCACHE_OK = 0,
            $($constant = $number,)*
        }

        #[cfg(feature = "capi")]
        impl From<Status> for sesscache_status {
            fn from(status: Status) -> Self {
                match status {
                    $(Status::$variant => Self::$constant,)*
                }
            }
        }

        /// Every status in the order of the numbers, success first.
        pub const TABLE: &[StatusRow] = &[
            StatusRow { number: 0, name: "SESSCACHE_OK", phrase: c"success", meaning: "The call did what it was asked." },
            $(StatusRow { number: $number, name: stringify!($constant), phrase: $phrase, meaning: $meaning },)*
        ];
    };
}

statuses! {
    Invalid SESSCACHE_INVALID = 1, c"invalid argument, option or directory",
        "An argument, an option or the directory is not acceptable; the message says what is.";
    System SESSCACHE_SYSTEM = 2, c"the operating system refused",
        "The operating system refused; the message has its reason.";
    Format SESSCACHE_FORMAT = 3, c"made by an incompatible version",
        "The directory holds something that this version cannot read.";
    Full SESSCACHE_FULL = 4, c"no room",
        "No room: 64 different caches are open in this process, a record has more than 64 KiB, or the device is full.";
    OpenSsl SESSCACHE_OPENSSL = 5, c"OpenSSL failed",
        "OpenSSL failed, for lack of memory or entropy.";
    Mismatch SESSCACHE_MISMATCH = 6, c"not the OpenSSL or the options in use",
        "The program uses another OpenSSL than this library, or has the directory open with other options.";
    Busy SESSCACHE_BUSY = 7, c"another process holds the store",
        "Another process held the store past the deadline.";
    Bug SESSCACHE_BUG = 8, c"internal fault",
        "A fault inside sesscache, which was contained.";
    NotFound SESSCACHE_NOT_FOUND = 9, c"no such record",
        "There is no such session or record.";
}

/// The phrase for a status number; any number has one.
#[cfg(any(test, feature = "capi"))]
pub(crate) fn phrase(status: i32) -> &'static CStr {
    TABLE.iter().find(|row| row.number == status).map_or(c"unknown status", |row| row.phrase)
}

/// A status, with the sentence that says what happened and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Error {
    /// The kind, for decisions.
    pub status: Status,
    /// What happened: one sentence for a person, never a secret.
    pub detail: String,
    /// What to do about it, where that is known.
    pub remedy: Option<Remedy>,
}

/// What to do about an [`Error`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remedy {
    /// An advice in words.
    Advice(String),
    /// A command to type.
    Run(String),
}

impl Error {
    /// An error that says what happened.
    pub fn new(status: Status, detail: impl Into<String>) -> Error {
        Error { status, detail: detail.into(), remedy: None }
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
        let error = Error::new(status, format!("{doing}: {cause}"));
        match cause.raw_os_error() {
            Some(libc::EACCES) if credentials::is_root_without_override() => error.remedy(
                "this root has no CAP_DAC_OVERRIDE: permit it (in systemd by CapabilityBoundingSet=), or give a directory \
                 where root needs none",
            ),
            _ => error,
        }
    }

    pub(crate) fn busy() -> Error {
        Error::new(Status::Busy, "another process held the store past the deadline, so this operation was skipped")
    }

    pub(crate) fn no_random() -> Error {
        Error::new(Status::System, "the kernel has no random bytes to give")
    }

    /// The same, with an advice in words.
    #[must_use]
    pub fn remedy(self, advice: impl Into<String>) -> Error {
        Error { remedy: Some(Remedy::Advice(advice.into())), ..self }
    }

    /// The same, with a command to type.
    #[must_use]
    pub fn run(self, command: impl Into<String>) -> Error {
        Error { remedy: Some(Remedy::Run(command.into())), ..self }
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Remedy::Advice(advice) => f.write_str(advice),
            Remedy::Run(command) => write!(f, "run: {command}"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)?;
        self.remedy.iter().try_for_each(|remedy| write!(f, "; {remedy}"))
    }
}

impl std::error::Error for Error {}

/// What calls that can fail return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_phrase_of_its_own() {
        assert_eq!(phrase(i32::MIN).to_str(), Ok("unknown status"));
        for (number, row) in (0..).zip(TABLE) {
            assert_eq!(row.number, number, "numbers are dense and in order");
            assert_eq!(phrase(number), row.phrase);
            assert_eq!(TABLE.iter().filter(|other| other.phrase == row.phrase).count(), 1, "{}", row.name);
        }
    }

    #[test]
    fn a_message_ends_with_what_to_do() {
        let error = || Error::invalid("/x is open to others");
        assert_eq!(error().to_string(), "/x is open to others");
        assert_eq!(error().remedy("use another").to_string(), "/x is open to others; use another");
        assert_eq!(error().run("chmod 0700 /x").to_string(), "/x is open to others; run: chmod 0700 /x");
    }
}
