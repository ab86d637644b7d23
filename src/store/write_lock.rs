//! The write lock of a generation: one writer at a time, with a deadline that LMDB's own writer lock does not have.
//!
//! A robust process-shared mutex in the generation's page. A stopped process that holds it costs the others their deadline
//! and later a new generation, never a stall; a dead one is recovered by the kernel.

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::mem::size_of;
use std::time::Duration;

use libc::c_int;

use super::boot::BootId;
use super::control::Shape;
use super::entries::PAGE;
use super::page::GenerationPage;
use crate::log::Silence;
use crate::sys::clock;
use crate::sys::dir::Dir;
use crate::sys::files::{self, Access};
use crate::sys::mutex::{Patience, SharedMutex, SPINS};
use crate::sys::shared_page::SharedPage;

/// Bytes of the file.
const SIZE: usize = 4096;
const _: () = assert!(size_of::<GenerationPage>() <= SIZE);

/// The write lock of one generation, with its page.
pub(crate) struct WriteLock {
    page: SharedPage<GenerationPage>,
    /// What the mutex must be told to be: by some kinds pthread ends the process that locks one.
    kind: c_int,
    patience: Patience,
}

/// Proof of holding a [`WriteLock`]; released on drop.
pub(crate) struct WriteGuard<'a> {
    lock: &'a WriteLock,
    /// Ends after the lock is released: the host's log function must not keep other processes waiting.
    _silence: Silence,
    /// The mutex belongs to the thread that locked it.
    _thread: PhantomData<*mut ()>,
}

/// The write lock could not be had in time.
#[derive(Debug)]
pub(crate) struct LockTimeout {
    /// Somebody has written over it.
    pub(crate) damaged: bool,
    /// For so long processes have met the same holder, in milliseconds.
    pub(crate) held_for: u64,
}

impl WriteLock {
    /// Creates the page of a new generation. The caller publishes the directory afterwards, so nobody else sees it yet.
    pub(crate) fn create(
        dir: &Dir,
        shape: Shape,
        boot: Option<BootId>,
        reserved: u64,
        access: Access,
    ) -> io::Result<()> {
        let file = files::create_zeroed(dir, PAGE, SIZE, access)?;
        let page = SharedPage::<GenerationPage>::map(&file)?;
        page.init(shape, boot, reserved);
        // SAFETY: `init` wants a mutex that nobody uses: the file was made above, in a directory that nobody else knows.
        unsafe { page.mutex.0.init() }
    }

    /// Maps the page of a generation; `None` when it is damaged.
    pub(crate) fn open(dir: &Dir) -> io::Result<Option<WriteLock>> {
        WriteLock::map(dir.open(PAGE)?, SharedPage::map)
    }

    /// The same for looking only: locking, or noting anything in the page, is a fault.
    pub(crate) fn view(dir: &Dir) -> io::Result<Option<WriteLock>> {
        WriteLock::map(dir.open_to_read(PAGE)?, SharedPage::map_to_read)
    }

    fn map(file: File, map: fn(&File) -> io::Result<SharedPage<GenerationPage>>) -> io::Result<Option<WriteLock>> {
        if file.metadata()?.len() != SIZE as u64 {
            return Ok(None);
        }
        let lock = WriteLock { kind: SharedMutex::usual_kind()?, page: map(&file)?, patience: Patience::new() };
        let whole = lock.page.is_whole() && lock.is_sound();
        Ok(whole.then_some(lock))
    }

    /// The page that it lies in.
    #[inline]
    pub(crate) fn page(&self) -> &GenerationPage {
        &self.page
    }

    /// Whether the mutex may be given to pthread. Somebody may write over it at any time.
    #[inline]
    fn is_sound(&self) -> bool {
        self.page.mutex.0.kind() == self.kind
    }

    /// Waits at most until the deadline; after a wait that was in vain, for a while not at all.
    pub(crate) fn acquire(&self, deadline: Duration) -> Result<WriteGuard<'_>, LockTimeout> {
        if self.lock(deadline) {
            self.page.taken.set(self.page.taken.get().wrapping_add(1));
            return Ok(WriteGuard { lock: self, _silence: Silence::begin(), _thread: PhantomData });
        }
        Err(LockTimeout { damaged: !self.is_sound(), held_for: self.page.held.meet(self.page.taken.get()) })
    }

    fn lock(&self, deadline: Duration) -> bool {
        let mutex = &self.page.mutex.0;
        if !self.is_sound() {
            return false;
        }
        for _ in 0..SPINS {
            match mutex.try_lock() {
                0 => return true,
                libc::EBUSY => std::hint::spin_loop(),
                code => return self.is_locked(code),
            }
        }
        if deadline.is_zero() || self.patience.is_lost() {
            return false;
        }
        let locked = self.is_locked(mutex.lock_until(clock::deadline(deadline)));
        if !locked {
            self.patience.lose();
        }
        locked
    }

    /// What a lock call's result means. A dead owner left LMDB consistent: its pages are only reachable after a commit.
    fn is_locked(&self, code: c_int) -> bool {
        match code {
            0 => true,
            libc::EOWNERDEAD => {
                self.page.note_death();
                self.page.mutex.0.make_consistent()
            }
            _ => false,
        }
    }
}

impl<'a> WriteGuard<'a> {
    /// The page that the lock lies in.
    pub(crate) fn page(&self) -> &'a GenerationPage {
        self.lock.page()
    }
}

impl Drop for WriteGuard<'_> {
    fn drop(&mut self) {
        if self.lock.is_sound() {
            self.lock.page.mutex.0.unlock();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{self, Topic};
    use crate::options::Options;
    use crate::store::Store;
    use std::fs;
    use std::mem::offset_of;
    use std::os::unix::fs::FileExt;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::Arc;

    #[test]
    #[cfg(target_env = "gnu")]
    fn a_write_lock_that_is_written_over_is_left_behind_with_its_generation() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("store");
        let store = Store::open(&path, &Options::parse("capacity=1MiB").unwrap()).unwrap();
        let opened = store.obtain().unwrap();
        let generation = &opened.now;
        let deadline = Duration::from_secs(1);
        let locked = generation.lock.acquire(deadline).unwrap();
        // With this bit glibc uses instructions that not every processor has (pthreadP.h: PTHREAD_MUTEX_ELISION_NP).
        let name = super::super::entries::generation_name(generation.number);
        let file = fs::OpenOptions::new().write(true).open(path.join(name).join(PAGE)).unwrap();
        file.write_all_at(&0x1ff_u32.to_ne_bytes(), offset_of!(GenerationPage, mutex) as u64 + 16).unwrap();
        drop(locked);
        assert!(generation.lock.acquire(deadline).is_err_and(|timeout| timeout.damaged));
        assert!(store.lock(generation).is_err());
        assert!(store.obtain().unwrap().now.number > generation.number, "nobody can store any more");
    }
    #[test]
    fn the_host_hears_nothing_before_the_write_lock_is_released() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("store");
        let store = Store::open(&path, &Options::parse("capacity=1MiB disk=on").unwrap()).unwrap();
        let generation = Arc::clone(&store.obtain().unwrap().now);
        let (heard, listener) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&generation));
        let count = Arc::clone(&heard);
        store.log.set(Some(Box::new(move |_, _| {
            assert!(listener.lock.acquire(Duration::ZERO).is_ok(), "the host is called under the write lock");
            count.fetch_add(1, Ordering::Relaxed);
        })));
        let locked = store.lock(&generation).unwrap();
        store.log.say(Topic::Full, log::WARNING, || "said under the lock".to_owned());
        drop(locked);
        assert_eq!(heard.load(Ordering::Relaxed), 1);
    }
}
