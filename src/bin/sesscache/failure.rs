//! How a verb ends: fine, unhealthy, or not at all; and what a failure says.

use std::io;
use std::process::ExitCode;

use sesscache::{Error, Status};

/// How a verb that did its work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Exit status 0.
    Fine,
    /// Exit status 1: something is not as it should be, or is not there.
    Unhealthy,
    /// Exit status 2: an argument is missing, and the output says which, or the system refused.
    Misused,
}

impl Outcome {
    /// Unhealthy unless `fine`.
    pub fn fine_if(fine: bool) -> Outcome {
        if fine {
            Outcome::Fine
        } else {
            Outcome::Unhealthy
        }
    }

    pub fn code(self) -> ExitCode {
        match self {
            Outcome::Fine => ExitCode::SUCCESS,
            Outcome::Unhealthy => ExitCode::from(1),
            Outcome::Misused => ExitCode::from(2),
        }
    }
}

/// Why a verb could not do its work.
#[derive(Debug)]
pub enum Failure {
    /// The store or the system says why.
    Store(Error),
    /// What was being done, and why it failed.
    System(String, io::Error),
    /// Nobody reads any more what is written: no failure of this program.
    Closed,
}

impl Failure {
    pub fn system(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Failure {
        |cause| Failure::System(doing.into(), cause)
    }

    /// Says it, and gives the exit status.
    pub fn report(self) -> ExitCode {
        self.say();
        self.outcome().code()
    }

    pub fn say(&self) {
        match self {
            Failure::Closed => {}
            Failure::Store(error) => eprintln!("sesscache: {error}"),
            Failure::System(doing, cause) => eprintln!("sesscache: {doing}: {cause}"),
        }
    }

    /// How the verb ends with it.
    pub fn outcome(&self) -> Outcome {
        match self {
            Failure::Closed => Outcome::Fine,
            Failure::Store(error) if matches!(error.status, Status::NotFound | Status::Format) => Outcome::Unhealthy,
            Failure::Store(_) | Failure::System(..) => Outcome::Misused,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Store(error)
    }
}

/// Errors of writing to stdout.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::Closed,
            _ => Failure::System("cannot write the output".to_owned(), error),
        }
    }
}
