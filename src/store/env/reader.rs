//! Reader slots: a read transaction per thread, made once and renewed for each lookup.

use std::sync::Arc;

use lmdb_sys as ffi;

use super::{check, Env, Fault, Txn};
use crate::sys::{fork_safe, process};

/// A reader slot of this thread, taken at the first reading: a read transaction that is kept reset between lookups.
pub(crate) struct Reader {
    txn: Option<Txn>,
    /// Kept so that the environment closes only after its readers.
    env: Arc<Env>,
}

impl Reader {
    pub(crate) fn new(env: &Arc<Env>) -> Reader {
        Reader { txn: None, env: Arc::clone(env) }
    }

    /// Runs `f` on a snapshot of this moment. No lock, no system call, once there is a slot. `f` may run again from the start.
    #[inline]
    pub(crate) fn read<T>(&mut self, mut f: impl FnMut(&mut Txn) -> Result<T, Fault>) -> Result<T, Fault> {
        match self.read_once(&mut f) {
            // LMDB publishes a reader before it has the root: two commits in between can look like a missing page.
            Err(Fault::Damaged(_) | Fault::SlotLost) => self.read_once(&mut f),
            done => done,
        }
    }

    #[inline]
    fn read_once<T>(&mut self, f: &mut impl FnMut(&mut Txn) -> Result<T, Fault>) -> Result<T, Fault> {
        let txn = match &mut self.txn {
            Some(txn) => txn,
            none => none.insert(self.env.begin_reset()?),
        };
        // SAFETY: mdb_txn_renew wants a reset read transaction. This one was reset when it was made, and is after every reading.
        match check(unsafe { ffi::mdb_txn_renew(txn.raw) }) {
            Ok(()) => f(ResetOnDrop(txn).0),
            Err(fault) => {
                if fault == Fault::SlotLost {
                    self.give_up();
                }
                Err(fault)
            }
        }
    }

    /// Lets go of a slot that others take for free: ending the transaction could empty one that is somebody else's by now.
    #[cold]
    fn give_up(&mut self) {
        if let Some(txn) = self.txn.take() {
            fork_safe::keep_inherited(txn);
        }
    }
}

impl Env {
    /// Takes a reader slot.
    #[cold]
    fn begin_reset(&self) -> Result<Txn, Fault> {
        let txn = self.begin_to_read()?;
        // SAFETY: mdb_txn_reset wants a read transaction that is live, as this one has just become.
        unsafe { ffi::mdb_txn_reset(txn.raw) };
        Ok(txn)
    }
}

struct ResetOnDrop<'t>(&'t mut Txn);

impl Drop for ResetOnDrop<'_> {
    fn drop(&mut self) {
        // SAFETY: mdb_txn_reset wants a read transaction that is live: one exists only after a successful renewal.
        unsafe { ffi::mdb_txn_reset(self.0.raw) };
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.env.process == process::incarnation() {
            if !self.env.has_its_files() {
                self.give_up();
            }
            if let Some(txn) = self.txn.take() {
                txn.abort();
            }
        }
    }
}
