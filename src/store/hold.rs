//! Holding a store: a process that is about to give up the file system opens all that serving needs, and then nothing any more.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use super::open::ATTEMPTS;
use super::path_access::PATIENCE;
use super::{thread, OpenStore, Store};
use crate::log::{self, Topic};
use crate::status::{Error, Result, Status};
use crate::sys::crypto::{self, Cipher};

impl Store {
    /// Opens all that serving needs, here and now. From then on neither this process nor a child of it goes anywhere by path,
    /// whatever comes of that.
    pub(crate) fn hold(self: &Arc<Self>) -> Result<()> {
        self.retry_at.store(0, Ordering::Relaxed);
        let opened = self.open_whole();
        let alone = self.path_access.end();
        opened.and(alone)
    }

    fn open_whole(self: &Arc<Self>) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let opened = self.obtain()?;
            if self.is_replaced(&opened, PATIENCE)? {
                opened.control.note_replaced();
                continue;
            }
            // The thread's reader slot, its random bytes, and OpenSSL's table of ciphers.
            return thread::with(self, |thread| {
                for snapshot in [Some(&mut thread.now), thread.before.as_mut()].into_iter().flatten() {
                    self.read(snapshot, |txn| txn.entries())?;
                }
                let ready = thread.random().is_some() && Cipher::sealing(&[0; crypto::KEY]).is_some();
                ready.then_some(()).ok_or_else(|| Error::new(Status::System, "no random bytes, or no memory"))
            })?;
        }
        Err(Error::new(Status::Busy, "the store changes faster than it can be opened"))
    }

    /// Whether the file of the keys, or that of the control page, is another one by now.
    pub(super) fn is_replaced(&self, opened: &OpenStore, patience: Duration) -> Result<bool> {
        let _way = self.path_access.begin(patience)?;
        Ok(opened.keys.changed(&self.dir.key) || opened.control.is_replaced(&self.dir.path))
    }

    /// What goes on in a process that holds the store, when there is something new to look at: the same generation, as long as
    /// nobody has seen other keys or another control file.
    pub(super) fn still_held(&self, opened: &OpenStore) -> Result<Arc<OpenStore>> {
        let control = &opened.control;
        let (epoch, current) = (control.epoch(), control.current());
        let same = current.number == opened.now.number && control.replaced() == opened.replaced;
        if !same || opened.is_retired() {
            return Err(self.lost("it has a new generation or other keys, or the program has closed its descriptors"));
        }
        Ok(Arc::new(OpenStore {
            epoch: AtomicU64::new(epoch),
            control: Arc::clone(control),
            replaced: opened.replaced,
            now: Arc::clone(&opened.now),
            before: opened.before.clone().filter(|_| current.keep),
            keys: Arc::clone(&opened.keys),
            mask: opened.mask,
        }))
    }

    /// Says once in a process that holds the store why it goes on without it.
    #[cold]
    pub(super) fn lost(&self, why: &str) -> Error {
        if self.path_access.is_first_to_say() {
            self.log.say(Topic::Open, log::WARNING, || {
                format!("the store cannot be used any more in a process that holds it ({why}): sessions stay in memory")
            });
        }
        Error::new(Status::System, format!("this process holds the store, and cannot open it: {why}"))
    }
}
