//! Holding a store: a process that is about to give up the file system opens all that serving needs, and then nothing any more.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use super::open::ATTEMPTS;
use super::path_access::PATIENCE;
use super::{thread, OpenStore, Standing, Store};
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
        for attempt in 0..ATTEMPTS {
            let opened = self.obtain()?;
            if attempt == 0 && opened.standing != Standing::Opened {
                self.look_again(&opened);
                continue;
            }
            let is_whole = match opened.standing {
                Standing::Opened => true,
                Standing::Kept => self.path_access.has_ended(),
                Standing::Behind => false,
            };
            if !is_whole {
                return Err(Error::new(Status::System, "the directory cannot be opened"));
            }
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

    /// Who could not open the directory tries again, unless the store is held.
    pub(super) fn look_again(&self, opened: &OpenStore) {
        if opened.standing != Standing::Opened && !self.path_access.has_ended() {
            opened.look_again();
        }
    }

    /// Whether the file of the keys, or that of the control page, is another one by now.
    pub(super) fn is_replaced(&self, opened: &OpenStore, patience: Duration) -> Result<bool> {
        let _way = self.path_access.begin(patience)?;
        Ok(self.sees_another(opened))
    }

    /// The same, for who has the way by path.
    pub(super) fn sees_another(&self, opened: &OpenStore) -> bool {
        opened.keys.changed(&self.dir.key) || opened.control.is_replaced(&self.dir.path)
    }

    /// What goes on in a process that holds the store, when there is something new to look at.
    pub(super) fn still_held(&self, opened: &OpenStore) -> Result<Arc<OpenStore>> {
        self.go_on_with(opened).ok_or_else(|| {
            self.lost("it was flushed, has newer generations or other keys, or the program has closed its descriptors")
        })
    }

    /// What goes on in a process that cannot open the directory, when there is something new to look at: what it has open, as long
    /// as the store was not flushed, nobody has seen other keys or another control file, and others read the generation as well.
    /// They take from it under its own write lock, as this process does. One that is damaged they do not read any more.
    pub(super) fn go_on_with(&self, opened: &OpenStore) -> Option<Arc<OpenStore>> {
        let control = &opened.control;
        let (epoch, current) = (control.epoch(), control.current());
        let ended = control.replaced() != opened.replaced || control.flush_number() != opened.flushes;
        let standing = match current.number.checked_sub(opened.now.number) {
            _ if ended || opened.is_retired() => return None,
            Some(0) => Standing::Kept,
            Some(1) if current.keep => Standing::Behind,
            _ => return None,
        };
        if standing == Standing::Behind && opened.standing != standing {
            self.log.say(Topic::Generation, log::WARNING, || {
                "a new generation cannot be opened: the one before is read, and new sessions stay in memory".to_owned()
            });
        }
        Some(Arc::new(OpenStore {
            epoch: AtomicU64::new(epoch),
            control: Arc::clone(control),
            replaced: opened.replaced,
            flushes: opened.flushes,
            standing,
            now: Arc::clone(&opened.now),
            before: opened.before.clone().filter(|_| current.keep && standing == Standing::Kept),
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
