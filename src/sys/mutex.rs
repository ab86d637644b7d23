//! Robust process-shared mutexes: made, passed with a deadline, and looked at from outside.
//!
//! One in shared memory may be damaged by whoever can write there, and some kinds make pthread abort the process that locks
//! them. So its kind is looked at first.

use std::cell::UnsafeCell;
use std::io;
use std::mem::MaybeUninit;

use libc::{c_int, pthread_mutex_t};

#[cfg(target_env = "gnu")]
extern "C" {
    fn pthread_mutex_clocklock(
        mutex: *mut pthread_mutex_t,
        clock: libc::clockid_t,
        at: *const libc::timespec,
    ) -> libc::c_int;
}

/// Where in a mutex its kind and its holder lie, in integers: glibc's `__data.__kind` and `__data.__lock` on 64-bit
/// machines, musl's `_m_type` and `_m_lock`.
const KIND: usize = if cfg!(target_env = "musl") { 0 } else { 4 };
const HOLDER: usize = if cfg!(target_env = "musl") { 1 } else { 0 };
/// The kernel's mark on a robust lock whose holder died (linux/futex.h: FUTEX_OWNER_DIED).
const OWNER_DIED: c_int = 0x4000_0000;

/// A mutex in memory that processes share.
#[repr(transparent)]
pub(crate) struct SharedMutex(UnsafeCell<pthread_mutex_t>);

/// The same on cache lines of its own.
#[repr(C, align(64))]
pub(crate) struct Apart(pub(crate) SharedMutex);

/// What a mutex looks like at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    Nobody,
    /// A thread, or damage that reads like one.
    Somebody,
    /// Who locks it next is told that the holder died.
    Dead,
}

// SAFETY: pthread's functions and volatile reads are all that touch it, from any thread of any process.
unsafe impl Sync for SharedMutex {}

impl SharedMutex {
    /// Makes one.
    ///
    /// # Safety
    /// `at` is aligned, writable memory of a mutex's size, and nobody else uses it yet.
    pub(crate) unsafe fn make(at: *mut SharedMutex) -> io::Result<()> {
        let mut attributes = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: initialises the attributes, used below only if it succeeds.
        let mut code = unsafe { libc::pthread_mutexattr_init(attributes) };
        if code == 0 {
            // SAFETY: the attributes are initialised.
            code |= unsafe { libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED) };
            // SAFETY: same.
            code |= unsafe { libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST) };
            // SAFETY: by contract.
            code |= unsafe { libc::pthread_mutex_init(at.cast(), attributes) };
            // SAFETY: the attributes are initialised and not used again.
            unsafe { libc::pthread_mutexattr_destroy(attributes) };
        }
        if code == 0 {
            Ok(())
        } else {
            Err(io::Error::other("process-shared robust mutexes are not available"))
        }
    }

    /// The kind of mutex that `make` makes here.
    pub(crate) fn usual_kind() -> io::Result<c_int> {
        let mut mutex = SharedMutex(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER));
        // SAFETY: the mutex is this function's own.
        unsafe { SharedMutex::make(&mut mutex) }?;
        let kind = mutex.kind();
        // SAFETY: made above, never locked, not used again.
        unsafe { libc::pthread_mutex_destroy(mutex.0.get()) };
        Ok(kind)
    }

    /// What pthread is told about it. Written once, when it is made.
    pub(crate) fn kind(&self) -> c_int {
        self.integer(KIND)
    }

    /// Who has it.
    pub(crate) fn holder(&self) -> Holder {
        match self.integer(HOLDER) {
            0 => Holder::Nobody,
            word if word & OWNER_DIED != 0 => Holder::Dead,
            _ => Holder::Somebody,
        }
    }

    #[inline]
    fn integer(&self, at: usize) -> c_int {
        // SAFETY: an aligned integer within the mutex: both places lie in its first five.
        let integer = unsafe { self.0.get().cast::<c_int>().add(at) };
        // SAFETY: as above; volatile, because other processes write it.
        unsafe { integer.read_volatile() }
    }

    /// Tries to lock it: 0, EBUSY, EOWNERDEAD with the lock held, or another error number.
    pub(crate) fn try_lock(&self) -> c_int {
        // SAFETY: a mutex of the usual kind, which whoever made or mapped it has looked at.
        unsafe { libc::pthread_mutex_trylock(self.0.get()) }
    }

    /// Waits for it until `at`, a moment of the monotonic clock: as `try_lock`, and ETIMEDOUT.
    #[cfg(target_env = "gnu")]
    pub(crate) fn lock_until(&self, at: libc::timespec) -> c_int {
        // SAFETY: as in `try_lock`; CLOCK_MONOTONIC is one of the two clocks that glibc accepts here.
        unsafe { pthread_mutex_clocklock(self.0.get(), libc::CLOCK_MONOTONIC, &at) }
    }

    /// musl has no clocklock: a wall clock that is set back during the wait makes it longer by as much, once.
    #[cfg(not(target_env = "gnu"))]
    pub(crate) fn lock_until(&self, at: libc::timespec) -> c_int {
        let left = at.tv_sec.saturating_sub((super::clock::ticks() / 1_000) as libc::time_t).max(0);
        let wall = libc::timespec { tv_sec: super::clock::seconds() as libc::time_t + left, tv_nsec: at.tv_nsec };
        // SAFETY: as in `try_lock`, and a valid time.
        unsafe { libc::pthread_mutex_timedlock(self.0.get(), &wall) }
    }

    /// After EOWNERDEAD: what the mutex guards is whole again.
    pub(crate) fn make_consistent(&self) -> bool {
        // SAFETY: EOWNERDEAD says that this thread holds it; without that, an error number comes back.
        unsafe { libc::pthread_mutex_consistent(self.0.get()) == 0 }
    }

    /// Unlocks it.
    ///
    /// # Safety
    /// This thread has locked it.
    pub(crate) unsafe fn unlock(&self) {
        // SAFETY: by contract.
        unsafe { libc::pthread_mutex_unlock(self.0.get()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mutex_looks_free_while_it_is_held_or_held_for_ever_after_its_holder_died() {
        let mut made = Box::new(SharedMutex(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER)));
        // SAFETY: it stays in its box, and nobody else knows it yet.
        unsafe { SharedMutex::make(&mut *made) }.unwrap();
        let mutex = &*made;
        assert_eq!(mutex.kind(), SharedMutex::usual_kind().unwrap());
        assert_eq!(mutex.holder(), Holder::Nobody);
        assert_eq!(mutex.try_lock(), 0);
        assert_eq!(mutex.holder(), Holder::Somebody);
        // SAFETY: locked above.
        unsafe { mutex.unlock() };
        std::thread::scope(|scope| scope.spawn(|| assert_eq!(mutex.try_lock(), 0)).join()).unwrap();
        assert_eq!(mutex.holder(), Holder::Dead);
        assert_eq!(mutex.try_lock(), libc::EOWNERDEAD);
        assert!(mutex.make_consistent());
        // SAFETY: locked above.
        unsafe { mutex.unlock() };
        assert_eq!(mutex.holder(), Holder::Nobody);
    }
}
