//! Reader slots: a read transaction per thread, made once and renewed for each lookup.

use std::sync::Arc;

use lmdb_sys as ffi;

use super::{check, Env, Fault, Txn};
use crate::sys::{fork_safe, process};

/// A reader slot of this thread: a read transaction that is kept reset between lookups.
pub(crate) struct Reader {
    txn: Option<Txn>,
    process: u64,
    /// Kept so that the environment closes only after its readers.
    env: Arc<Env>,
}

impl Reader {
    /// Takes a slot.
    pub(crate) fn new(env: &Arc<Env>) -> Result<Reader, Fault> {
        let txn = env.begin_to_read()?;
        // SAFETY: a live read transaction.
        unsafe { ffi::mdb_txn_reset(txn.raw) };
        Ok(Reader { txn: Some(txn), process: env.process, env: Arc::clone(env) })
    }

    /// Runs `f` on a snapshot of this moment. No lock, no system call.
    #[inline]
    pub(crate) fn read<T>(&mut self, f: impl FnOnce(&mut Txn) -> T) -> Result<T, Fault> {
        let Some(txn) = &mut self.txn else { return Err(Fault::System(libc::EINVAL)) };
        // SAFETY: a reset read transaction of this process.
        let renewed = check(unsafe { ffi::mdb_txn_renew(txn.raw) });
        if renewed == Err(Fault::SlotLost) {
            self.give_up();
        }
        renewed?;
        let Some(txn) = &mut self.txn else { return Err(Fault::SlotLost) };
        let scope = ResetOnDrop(txn);
        Ok(f(scope.0))
    }

    /// Lets go of a slot that others take for free: ending the transaction could empty one that is somebody else's by now.
    #[cold]
    fn give_up(&mut self) {
        if let Some(txn) = self.txn.take() {
            fork_safe::keep_inherited(txn);
        }
    }
}

struct ResetOnDrop<'t>(&'t mut Txn);

impl Drop for ResetOnDrop<'_> {
    fn drop(&mut self) {
        // SAFETY: a renewed read transaction of this process.
        unsafe { ffi::mdb_txn_reset(self.0.raw) };
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.process == process::incarnation() {
            if !self.env.has_its_files() {
                self.give_up();
            }
            if let Some(txn) = self.txn.take() {
                txn.abort();
            }
        }
    }
}
