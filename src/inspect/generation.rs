//! One generation, open for looking.

use std::fs::File;
use std::os::unix::fs::MetadataExt;

use crate::status::{Error, Result, Status};
use crate::store::control::Control;
use crate::store::directory::OpenDirectory;
use crate::store::entries::{generation_name, LOCK};
use crate::store::env::{Fault, Reader, Txn};
use crate::store::generation::{Broken, Generation};
use crate::sys::clock;

/// Fields are dropped in this order: the environment, and only then a descriptor of the lock file, because closing one ends all
/// POSIX locks that this process has on it.
pub(super) struct OpenView {
    pub(super) generation: Generation,
    pub(super) locks: File,
}

/// A generation at a moment: what tells which of its records are alive.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub(super) generation: u64,
    pub(super) now: u64,
    pub(super) horizon: u64,
}

impl OpenView {
    pub(super) fn open(open: &OpenDirectory<'_>, control: &Control, number: u64) -> Result<OpenView, Broken> {
        let locks =
            open.dir(generation_name(number)).and_then(|dir| dir.open_to_read(LOCK)).map_err(|e| match e.kind() {
                std::io::ErrorKind::NotFound => Broken::Gone,
                _ => Broken::Refused(Error::system(
                    format_args!("cannot open a {LOCK} in {}", open.path().display()),
                    &e,
                )),
            });
        // A lock file that is missing beside a data file is damage, which `view` finds.
        let generation = Generation::view(open, number, control.boot(open.boot()))?;
        Ok(OpenView { generation, locks: locks? })
    }

    /// Reads a snapshot. `f` may run again from the start. The reader slot is given back: a tool that looks for hours takes none from
    /// the servers meanwhile, and does not pass for one of them.
    pub(super) fn read<T>(&mut self, f: impl FnMut(&mut Txn) -> Result<T, Fault>) -> Result<T> {
        Reader::new(&self.generation.env).read(f).map_err(|fault| match fault {
            Fault::Damaged(_) => Error::new(Status::Format, format!("the store is {}", fault.text())),
            Fault::PidClash | Fault::SlotsHeld { .. } => Error::new(Status::Busy, fault.text()).remedy("run it again"),
            fault => Error::new(Status::System, format!("cannot read the store: {}", fault.text())),
        })
    }

    pub(super) fn moment(&self) -> Moment {
        let now = clock::coarse_micros();
        Moment { generation: self.generation.number, now, horizon: self.generation.page().horizon(now) }
    }

    /// Bytes that the data file occupies.
    pub(super) fn file_bytes(&self) -> u64 {
        self.generation.env.data_file().and_then(|data| data.metadata()).map_or(0, |meta| meta.blocks() * 512)
    }
}
